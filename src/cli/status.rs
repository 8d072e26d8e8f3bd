//! `gatepost status`: accounts with an invalid recipient in the window, on probation, blocked, or with messages that
//! will be released automatically; and how much the quarantine holds of all others.

use super::Format;
use super::gate::Gate;
use super::output::Failed;
use super::table::{Table, column};
use super::text::moment;
use crate::config::Config;
use crate::control::api::{AccountState, AccountStatus, Answer, Request, Stock, UpstreamStatus};
use crate::guard::ledger::BlockedBy;
use crate::quarantine::envelope::State;
use crate::units;

/// The states of a message, in the order of their numbers.
const STATES: [State; 4] = [State::Parked, State::Releasing, State::Failed, State::Unreadable];

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    format: Format,
    /// Numbers alone, as Prometheus reads them (for the textfile collector of its node_exporter)
    #[arg(long, conflicts_with = "json")]
    metrics: bool,
}

pub(super) async fn run(arguments: &Arguments, config: &Config) -> Result<(), Failed> {
    let mut output = arguments.format.output();
    let mut gate = Gate::open_to_look(config, &mut output).await?;
    let mut replies = gate.ask(Request::Status).await?;
    let mut table = Table::new([
        column("ACCOUNT", 1, 20, 40),
        column("STATE", 2, 9, 9),
        column("INVALID", 3, 17, 24),
        column("FIRST", 10, 20, 20),
        column("LAST", 5, 20, 20),
        column("PARKED", 4, 6, 8),
        column("SESSIONS", 8, 8, 8),
        column("BLOCKED", 7, 33, 33),
        column("PROBATION", 6, 26, 26),
        column("GOES OUT", 9, 27, 32),
        column("REASON", 11, 12, 50),
    ]);
    let mut upstream = None;
    let mut quarantine = Vec::new();
    let mut sums = Sums::default();
    while let Some(answer) = replies.next().await {
        let status = match answer {
            Answer::Account(status) => status,
            Answer::Upstream(status) => {
                upstream = Some(status);
                continue;
            }
            Answer::Quarantine(stock) => {
                quarantine = stock;
                continue;
            }
            _ => continue,
        };
        sums.add(&status);
        match (arguments.metrics, output.is_json()) {
            (true, _) => {}
            (false, true) => output.object(&status)?,
            (false, false) => table.row(&mut output, row(status))?,
        }
    }
    if arguments.metrics {
        if let Some(upstream) = upstream.filter(|_| replies.verdict().is_ok()) {
            for line in sums.metrics(&upstream, &quarantine).lines() {
                output.line(line)?;
            }
        }
        gate.close().await;
        output.end()?;
        return replies.verdict();
    }
    if !table.finish(&mut output)? && !output.is_json() && replies.verdict().is_ok() {
        output.line("No account has an invalid recipient in the window, none is blocked, and no mail waits to go out by itself.")?;
    }
    if let Some(status) = upstream.filter(|_| !output.is_json()) {
        if let Some(line) = of_others(&quarantine, sums.parked) {
            output.line(&line)?;
        }
        output.line(&of_upstream(&status))?;
    }
    gate.close().await;
    output.end()?;
    replies.verdict()
}

/// Totals over all accounts that `status` knows.
#[derive(Debug, Default)]
struct Sums {
    counting: u64,
    probation: u64,
    blocked: u64,
    invalid: u64,
    parked: u64,
    awaited: u64,
}

impl Sums {
    fn add(&mut self, status: &AccountStatus) {
        let of_state = match status.state {
            AccountState::Counting => &mut self.counting,
            AccountState::Probation => &mut self.probation,
            AccountState::Blocked => &mut self.blocked,
        };
        *of_state += 1;
        self.invalid += u64::from(status.invalid_recipients);
        self.parked += status.parked;
        self.awaited += status.awaited;
    }

    /// The text format of Prometheus, version 0.0.4.
    fn metrics(&self, upstream: &UpstreamStatus, quarantine: &[Stock]) -> String {
        let Self { counting, probation, blocked, invalid, parked: _, awaited } = *self;
        let in_quarantine = |measure: fn(&Stock) -> u64| {
            STATES.map(|state| {
                let of_state = quarantine.iter().filter(|stock| stock.state == state);
                (state.as_str(), of_state.map(measure).sum::<u64>())
            })
        };
        // Each line with its state, or `""`.
        let one = |name: &str, help: &str, lines: &[(&str, u64)]| {
            let lines = lines.iter().map(|(state, value)| match *state {
                "" => format!("gatepost_{name} {value}\n"),
                state => format!("gatepost_{name}{{state=\"{state}\"}} {value}\n"),
            });
            format!(
                "# HELP gatepost_{name} {help}\n# TYPE gatepost_{name} gauge\n{}",
                lines.collect::<String>()
            )
        };
        [
            one(
                "accounts",
                "Accounts with an invalid recipient in the window, on probation, or blocked.",
                &[
                    (AccountState::Counting.as_str(), counting),
                    (AccountState::Probation.as_str(), probation),
                    (AccountState::Blocked.as_str(), blocked),
                ],
            ),
            one("invalid_recipients", "Invalid recipients in the windows of all accounts.", &[("", invalid)]),
            one(
                "parked_messages",
                "Messages in the quarantine.",
                &[("", quarantine.iter().map(|stock| stock.messages).sum())],
            ),
            one("quarantine_messages", "The same, by state.", &in_quarantine(|stock| stock.messages)),
            one(
                "quarantine_octets",
                "How many octets these messages have.",
                &in_quarantine(|stock| stock.octets),
            ),
            one("awaited_messages", "How many of them go out by themselves.", &[("", awaited)]),
            one(
                "recipients_asked_today",
                "About how many recipients the upstream was asked today (UTC).",
                &[("", upstream.asked)],
            ),
            one("recipients_refused_today", "How many of them it refused.", &[("", upstream.refused)]),
            one(
                "upstream_blind",
                "1: the upstream seems to accept everybody.",
                &[("", u64::from(upstream.blind))],
            ),
            one(
                "common_causes",
                "Domains that refuse everybody just now, and count against nobody.",
                &[("", upstream.common_causes)],
            ),
            one(
                "recipients_not_counted",
                "Recipients that they refused since.",
                &[("", upstream.not_counted)],
            ),
        ]
        .concat()
    }
}

/// What the quarantine holds of accounts that are not listed; `listed` is how many messages those have that are. A warning
/// tells of the unreadable ones, whose accounts are unknown.
fn of_others(quarantine: &[Stock], listed: u64) -> Option<String> {
    let known = quarantine.iter().filter(|stock| stock.state != State::Unreadable);
    let others = known.map(|stock| stock.messages).sum::<u64>().saturating_sub(listed);
    let (are, them) = match others {
        0 => return None,
        1 => ("1 message of another account is".to_owned(), "it"),
        more => (format!("{more} messages of other accounts are"), "them"),
    };
    Some(format!("{are} in the quarantine; `gatepost quarantine list` shows {them}."))
}

/// The share of recipients that the upstream refuses, which shows an operator whether it verifies them.
fn of_upstream(status: &UpstreamStatus) -> String {
    let UpstreamStatus { asked, refused, foreign_asked, foreign_refused, blind, .. } = *status;
    if asked == 0 {
        return "The upstream was asked about no recipient today (UTC).".to_owned();
    }
    let share = |refused: u64, asked: u64| match (refused, asked) {
        (_, 0) => "none asked".to_owned(),
        (0, asked) => format!("none of {asked}"),
        // In tenths of a percent, but never 0.0 if there was a refusal.
        (refused, asked) => {
            let tenths = (refused * 1000 / asked).max(1);
            format!("{refused} of {asked} ({}.{} %)", tenths / 10, tenths % 10)
        }
    };
    let verdict = if blind { " It seems to be BLIND: it accepts everybody." } else { "" };
    format!(
        "Recipients that the upstream refused today (UTC): {}; at foreign domains: {}.{verdict}",
        share(refused, asked),
        share(foreign_refused, foreign_asked)
    )
}

fn row(status: AccountStatus) -> [String; 11] {
    let time = |time: Option<_>| time.map(moment).unwrap_or_default();
    let by = match status.blocked_by {
        Some(BlockedBy::Limit) => "by the limit ",
        Some(BlockedBy::Operator) => "by hand ",
        Some(BlockedBy::Detection) => "by detection ",
        None => "",
    };
    let period = units::show_duration(std::time::Duration::from_secs(status.period_seconds));
    [
        status.account.to_string(),
        status.state.as_str().to_owned(),
        format!("{} of {} in {period}", status.invalid_recipients, status.limit),
        time(status.first),
        time(status.last),
        status.parked.to_string(),
        status.sessions.to_string(),
        format!("{by}{}", time(status.blocked_at)),
        status.probation_until.map(|until| format!("until {}", moment(until))).unwrap_or_default(),
        status.next_due.map(|due| format!("{}, from {}", status.awaited, moment(due))).unwrap_or_default(),
        status.reason.unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stock(numbers: [u64; 4]) -> Vec<Stock> {
        let of = |(state, messages)| Stock { state, messages, octets: 1000 * messages };
        STATES.into_iter().zip(numbers).map(of).collect()
    }

    #[test]
    fn what_waits_of_accounts_that_are_not_listed() {
        for (numbers, listed, expected) in [
            ([0, 0, 0, 0], 0, None),
            ([3, 0, 0, 2], 3, None),
            // One went while the accounts were being listed.
            ([2, 0, 0, 0], 3, None),
            ([3, 0, 1, 0], 3, Some("1 message of another account is in the quarantine")),
            ([5, 1, 1, 9], 2, Some("5 messages of other accounts are in the quarantine")),
        ] {
            let line = of_others(&stock(numbers), listed);
            let begins = line.as_deref().zip(expected).is_some_and(|(line, part)| line.starts_with(part));
            assert!(begins || line.is_none() && expected.is_none(), "{numbers:?} {listed}: {line:?}");
        }
    }

    #[test]
    fn the_metrics_have_the_whole_quarantine() {
        let upstream = UpstreamStatus {
            asked: 0,
            refused: 0,
            foreign_asked: 0,
            foreign_refused: 0,
            blind: false,
            common_causes: 0,
            not_counted: 0,
        };
        let text = Sums::default().metrics(&upstream, &stock([4, 1, 0, 2]));
        for line in [
            "gatepost_parked_messages 7",
            "gatepost_quarantine_messages{state=\"parked\"} 4",
            "gatepost_quarantine_messages{state=\"failed\"} 0",
            "gatepost_quarantine_octets{state=\"unreadable\"} 2000",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn the_upstream_in_words() {
        for (numbers, blind, expected) in [
            ([0, 0, 0, 0], false, "The upstream was asked about no recipient today (UTC)."),
            ([10, 0, 0, 0], false, "today (UTC): none of 10; at foreign domains: none asked."),
            ([1234, 56, 800, 40], false, "56 of 1234 (4.5 %); at foreign domains: 40 of 800 (5.0 %)."),
            (
                [5000, 1, 1500, 0],
                true,
                "1 of 5000 (0.1 %); at foreign domains: none of 1500. It seems to be BLIND: it accepts everybody.",
            ),
        ] {
            let [asked, refused, foreign_asked, foreign_refused] = numbers;
            let (common_causes, not_counted) = (0, 0);
            let status = UpstreamStatus {
                asked,
                refused,
                foreign_asked,
                foreign_refused,
                blind,
                common_causes,
                not_counted,
            };
            let text = of_upstream(&status);
            assert!(text.ends_with(expected), "{text}");
        }
    }
}
