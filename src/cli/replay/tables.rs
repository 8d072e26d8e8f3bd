//! The report for people.

use super::super::output::{Failed, Output};
use super::super::table::{Table, column};
use super::super::text::{count, moment};
use crate::guard::window::Rule;
use crate::replay::report::{Report, Row, Suspect};
use crate::units;

/// The most accounts listed.
const SHOWN: usize = 30;

pub(super) fn print(report: &Report<'_>, output: &mut Output) -> Result<(), Failed> {
    summary(report, output)?;
    output.line("")?;
    settings(report, output)?;
    output.line("")?;
    accounts(report, output)?;
    output.line("")?;
    match &report.recommendation {
        Some(recommendation) => output.line(&format!("Recommended: {}", recommendation.text)),
        None => output.line(
            "No recommendation: no recipient in this log was refused or bounced as one that does not exist. Either nobody wrote to one, or \
             the log does not tell.",
        ),
    }
}

fn summary(report: &Report<'_>, output: &mut Output) -> Result<(), Failed> {
    let reading = &report.reading;
    let time = |time: Option<_>| time.map(moment).unwrap_or_default();
    let share = percent(report.invalid, report.accepted);
    output.line(&format!(
        "{} from {} to {}: {} asked for {}, of which {} not exist ({share}) and {} refused for another reason.",
        count(reading.lines, "line"),
        time(reading.from),
        time(reading.until),
        count(report.accounts, "account"),
        count(report.accepted + report.invalid + report.refused_otherwise + report.not_counted, "recipient"),
        verb(report.invalid, "does", "do"),
        verb(report.refused_otherwise, "was", "were"),
    ))?;
    let left_out = &report.left_out;
    if report.not_counted > 0 {
        output.line(&format!(
            "Not counted: {} of domains that refused those of three or more accounts and accepted none, as happened {}.",
            count(report.not_counted, "recipient"),
            count(report.common_causes, "time"),
        ))?;
    }
    for (number, what, which) in [
        (
            left_out.inbound,
            "recipient",
            "of mail from elsewhere: no account's, unless --relay names the network",
        ),
        (left_out.local, "recipient", "of mail from programs on the machine"),
        (left_out.unknown_message, "recipient", "of messages that came before the log begins"),
        (left_out.unnamed, "recipient", "of somebody who logged in, the log does not tell as whom"),
        (report.no_room, "recipient", "of accounts beyond the first 10,000 with invalid recipients"),
        (reading.out_of_time, "line", "before --since or after --until"),
        (reading.unreadable, "line", "that cannot be read"),
    ] {
        if number > 0 {
            output.line(&format!("Left out: {} {which}.", count(number, what)))?;
        }
    }
    Ok(())
}

/// `1 was`, `2 were`.
fn verb(number: u64, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

/// The tests, combined with the limit in force or the default; `--json` has all combinations.
fn settings(report: &Report<'_>, output: &mut Output) -> Result<(), Failed> {
    let period = units::show_duration(std::time::Duration::from_secs(report.period_seconds));
    output.line(&format!(
        "What settings would have done (invalid recipients within {period}; reached: recipients whose mail had gone out before, within a day):"
    ))?;
    let yours = report.settings.iter().find(|row| row.yours);
    let limit = yours.and_then(|row| row.setting.invalid_recipients).unwrap_or(Rule::DEFAULT.limit);
    let recommended = report.recommendation.as_ref().map(|recommendation| recommendation.setting);
    let shown = |row: &&Row| {
        let alone =
            row.yours || row.setting.invalid_recipients.is_none() || row.setting.usual_share.is_none();
        alone || row.setting.invalid_recipients == Some(limit) || Some(row.setting) == recommended
    };
    let mut table = Table::new([
        column("LIMIT", 1, 5, 8),
        column("USUAL SHARE", 1, 11, 11),
        column("BLOCKED", 1, 7, 8),
        column("PROBATION", 2, 9, 9),
        column("REACHED (MEDIAN)", 3, 16, 16),
        column("(MOST)", 4, 6, 9),
        column("LOOK STOLEN", 5, 11, 16),
        column("", 6, 11, 24),
    ]);
    for row in report.settings.iter().filter(shown) {
        let number = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
        let limit = row.setting.invalid_recipients;
        let mut notes = Vec::new();
        if row.yours {
            notes.push("yours");
        }
        if Some(row.setting) == recommended {
            notes.push("recommended");
        }
        let cells = [
            limit.map_or("-".to_owned(), |limit| limit.to_string()),
            row.setting.usual_share.map_or("-".to_owned(), |share| share.to_string()),
            limit.map_or("-".to_owned(), |_| row.blocked.to_string()),
            row.setting.usual_share.map_or("-".to_owned(), |_| row.probation.to_string()),
            number(row.reached_median),
            number(row.reached_most),
            format!("{} of {}", row.thieves, row.thieves + row.missed),
            notes.join(", "),
        ];
        table.row(output, cells)?;
    }
    table.finish(output).map(drop)
}

fn accounts(report: &Report<'_>, output: &mut Output) -> Result<(), Failed> {
    if report.suspects.is_empty() {
        return output.line("None of these settings would have stopped anybody.");
    }
    output.line("Accounts that one of them would have stopped (what they look like is a guess):")?;
    let mut table = Table::new([
        column("ACCOUNT", 1, 20, 40),
        column("LOOKS LIKE", 2, 11, 11),
        column("INVALID", 3, 7, 9),
        column("OF", 4, 7, 9),
        column("SHARE", 5, 6, 7),
        column("BUSIEST HOUR", 6, 16, 20),
        column("DAYS", 9, 4, 5),
        column("FIRST STOPPED", 7, 20, 20),
        column("BY", 8, 16, 24),
        column("REACHED", 10, 7, 9),
    ]);
    for suspect in report.suspects.iter().take(SHOWN) {
        table.row(output, row(suspect))?;
    }
    table.finish(output)?;
    let more = report.suspects.len().saturating_sub(SHOWN);
    if more > 0 {
        output.line(&format!(
            "and {more} more; --json tells of up to {}.",
            crate::replay::report::MOST_ACCOUNTS
        ))?;
    }
    Ok(())
}

fn row(suspect: &Suspect<'_>) -> [String; 10] {
    let first = suspect.stops.iter().min_by_key(|stop| stop.at);
    let by = first.map(|stop| match (stop.setting.invalid_recipients, stop.setting.usual_share) {
        (Some(limit), _) => format!("limit {limit}"),
        (None, share) => format!("usual share {}", share.unwrap_or_default()),
    });
    [
        suspect.account.to_string(),
        if suspect.exempt {
            format!("{}, exempt", suspect.looks_like.word())
        } else {
            suspect.looks_like.word().to_owned()
        },
        suspect.invalid.to_string(),
        (suspect.invalid + suspect.accepted).to_string(),
        percent(suspect.invalid, suspect.accepted),
        format!(
            "{} of {}",
            suspect.busiest_hour_invalid,
            suspect.busiest_hour_invalid + suspect.busiest_hour_accepted
        ),
        suspect.days.to_string(),
        first.map(|stop| moment(stop.at)).unwrap_or_default(),
        by.unwrap_or_default(),
        first.map(|stop| stop.reached.to_string()).unwrap_or_default(),
    ]
}

/// The share of invalid recipients among those that say something about a list.
fn percent(invalid: u64, accepted: u64) -> String {
    let all = u128::from(invalid) + u128::from(accepted);
    let tenths = (u128::from(invalid) * 1_000 + all / 2).checked_div(all).unwrap_or(0);
    format!("{}.{} %", tenths / 10, tenths % 10)
}
