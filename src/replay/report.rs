//! The result of the trial: a row for each setting, the accounts that any of them would have stopped, and a
//! recommendation.
//!
//! It is not known who is a thief. [`Looks`] is a guess from the busiest hour of an account and from how steady it is,
//! and is presented as one wherever it is shown.

use serde::Serialize;

use super::attribution::LeftOut;
use super::trial::{Curve, Grid, Run, Stop, Tally, Trial};
use crate::account::Account;
use crate::clock::Timestamp;
use crate::guard::detector::USUAL_SHARE;
use crate::guard::window::Rule;

/// The most accounts listed individually.
pub const MOST_ACCOUNTS: usize = 1_000;
/// An account with fewer invalid recipients in an hour is not taken for a thief's.
const LEAST_OF_A_THIEF: u64 = 25;
/// An old list has invalid recipients on at least this many days.
const STEADY_DAYS: u32 = 3;
/// The costs that the recommendation weighs, in recipients that a thief reaches: of a thief who is not noticed at all,
const MISSED: f64 = 1_000.0;
/// of one whose mail is only delayed,
const DELAYED_THIEF: f64 = 100.0;
/// of an honest account that is blocked,
const BLOCKED: f64 = 500.0;
/// and of one whose mail is delayed.
const DELAYED: f64 = 20.0;
/// Settings whose costs differ by no more than this are equally good: a single log is no reason to give up the defaults
/// for a few recipients.
const MUCH_THE_SAME: f64 = 50.0;

/// What was read.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// All lines.
    pub lines: u64,
    /// Lines about a message or a recipient.
    pub used: u64,
    /// Lines that are truncated, too long, not UTF-8, or do not begin like a log line.
    pub unreadable: u64,
    /// Lines outside the requested time.
    pub out_of_time: u64,
    /// The time of the first line.
    pub from: Option<Timestamp>,
    /// The time of the last line.
    pub until: Option<Timestamp>,
}

/// What an account looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Looks {
    /// Many invalid recipients within an hour, too many for an honest list.
    #[serde(rename = "thief")]
    Thief,
    /// A share of invalid recipients that is normal for honest lists, on several days.
    #[serde(rename = "old list")]
    OldList,
    /// Neither.
    #[serde(rename = "unclear")]
    Unclear,
}

impl Looks {
    /// A description in a word or two.
    pub fn word(self) -> &'static str {
        match self {
            Self::Thief => "a thief's",
            Self::OldList => "an old list",
            Self::Unclear => "unclear",
        }
    }

    fn of(tally: &Tally, neutral: f64) -> Self {
        if tally.busiest().invalid >= LEAST_OF_A_THIEF && tally.busiest_share() >= neutral {
            Self::Thief
        } else if tally.invalid >= LEAST_OF_A_THIEF
            && tally.days() >= STEADY_DAYS
            && tally.busiest_share() < neutral
            && tally.share() < neutral
        {
            Self::OldList
        } else {
            Self::Unclear
        }
    }
}

/// A setting: a limit, a test, or both.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Setting {
    /// `[limit] invalid_recipients`
    pub invalid_recipients: Option<u32>,
    /// `[detection] usual_share`, with `on_alarm = "probation"`.
    pub usual_share: Option<f64>,
}

/// What a setting would have done.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The setting.
    #[serde(flatten)]
    pub setting: Setting,
    /// Whether it is the configured one.
    pub yours: bool,
    /// How many accounts it would have blocked.
    pub blocked: u64,
    /// How many accounts it would have put on probation but never blocked.
    pub probation: u64,
    /// How many of these look like a thief's.
    pub thieves: u64,
    /// How many that look like a thief's it would not have stopped.
    pub missed: u64,
    /// The median number of recipients whose mail had been sent within the day before an account was stopped.
    pub reached_median: Option<u64>,
    /// The highest such number.
    pub reached_most: Option<u64>,
    #[serde(skip)]
    cost: f64,
}

/// An account that some setting would have stopped.
#[derive(Debug, Serialize)]
pub struct Suspect<'a> {
    /// The account.
    pub account: &'a Account,
    /// A guess at what it is.
    pub looks_like: Looks,
    /// Whether the configuration exempts it.
    pub exempt: bool,
    /// Accepted recipients.
    pub accepted: u64,
    /// Nonexistent recipients.
    pub invalid: u64,
    /// Recipients refused for another reason.
    pub refused_otherwise: u64,
    /// The share of invalid recipients among accepted and invalid ones.
    pub share: f64,
    /// The first attempt.
    pub first: Timestamp,
    /// The last attempt.
    pub last: Timestamp,
    /// Invalid recipients in the hour that had the most.
    pub busiest_hour_invalid: u64,
    /// Accepted recipients in that hour.
    pub busiest_hour_accepted: u64,
    /// Days with an invalid recipient.
    pub days: u32,
    /// When each setting would have intervened first.
    pub stops: Vec<Stopped>,
    /// Its curve, for the picture.
    #[serde(skip)]
    pub curve: &'a Curve,
}

/// A setting that would have stopped an account.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Stopped {
    /// The setting, a limit or a test.
    #[serde(flatten)]
    pub setting: Setting,
    /// When it would have done so.
    pub at: Timestamp,
    /// The number of recipients whose mail had been sent within the day before.
    pub reached: u64,
    /// The number of invalid recipients counted by then.
    pub invalid: u64,
}

/// The recommended settings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recommendation {
    /// `[limit] invalid_recipients` and `[detection] usual_share`; without the latter `on_alarm = "off"`.
    #[serde(flatten)]
    pub setting: Setting,
    /// `[limit] exempt`: accounts that look honest but would be stopped.
    pub exempt: Vec<Account>,
    /// The recommendation in one sentence.
    pub text: String,
}

/// The whole report.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    /// What was read.
    #[serde(flatten)]
    pub reading: Reading,
    /// Accounts that asked for a recipient.
    pub accounts: u64,
    /// How many of these had no invalid recipient and were dropped for lack of room.
    pub accounts_let_go: u64,
    /// Recipients of accounts for which there was no room.
    pub no_room: u64,
    /// Accepted recipients.
    pub accepted: u64,
    /// Nonexistent recipients.
    pub invalid: u64,
    /// Recipients refused for another reason.
    pub refused_otherwise: u64,
    /// How often a domain began to refuse everyone.
    pub common_causes: u64,
    /// Recipients that such domains refused meanwhile; they count against nobody.
    pub not_counted: u64,
    /// Recipients that belong to no account.
    pub left_out: LeftOut,
    /// `[limit] period`
    pub period_seconds: u64,
    /// `[detection] thief_share`
    pub thief_share: f64,
    /// `[detection] threshold`
    pub threshold: f64,
    /// One row per setting.
    pub settings: Vec<Row>,
    /// Accounts that some setting would have stopped, those with the most invalid recipients first; at most
    /// [`MOST_ACCOUNTS`].
    pub suspects: Vec<Suspect<'a>>,
    /// The recommendation; `None` if there is no basis for one.
    pub recommendation: Option<Recommendation>,
}

impl<'a> Report<'a> {
    /// Summarizes a trial.
    ///
    /// `yours` is the configured setting for accounts in general, if there is a configuration.
    pub fn of(trial: &'a Trial, reading: Reading, left_out: LeftOut, yours: Option<Setting>) -> Self {
        let grid = trial.grid();
        let neutral = grid.neutral_share();
        let tried: Vec<Tried<'_>> = trial
            .tallies()
            .filter(|(_, tally)| tally.is_suspicious())
            .map(|(account, tally)| Tried { account, tally, looks: Looks::of(tally, neutral) })
            .collect();
        let rows = rows(grid, &tried, yours);
        let sum = |of: fn(&Tally) -> u64| trial.tallies().map(|(_, tally)| of(tally)).sum::<u64>();
        let (let_go, let_go_accepted) = trial.given_way();
        let accounts = trial.tallies().count() as u64 + let_go;
        let mut suspects: Vec<Suspect<'_>> = tried.iter().map(|tried| tried.suspect(grid)).collect();
        suspects.sort_by(|a, b| b.invalid.cmp(&a.invalid).then_with(|| a.account.cmp(b.account)));
        suspects.truncate(MOST_ACCOUNTS);
        let invalid = sum(|tally| tally.invalid);
        let recommendation = recommend(grid, &rows, &tried, invalid, yours);
        Self {
            reading,
            accounts,
            accounts_let_go: let_go,
            no_room: trial.no_room(),
            accepted: sum(|tally| tally.accepted) + let_go_accepted,
            invalid,
            refused_otherwise: sum(|tally| tally.refused),
            common_causes: trial.common_causes().0,
            not_counted: trial.common_causes().1,
            left_out,
            period_seconds: grid.period.as_secs(),
            thief_share: grid.thief_share,
            threshold: grid.threshold,
            settings: rows,
            suspects,
            recommendation,
        }
    }
}

/// An account that something would have stopped.
struct Tried<'a> {
    account: &'a Account,
    tally: &'a Tally,
    looks: Looks,
}

/// What a setting does to an account.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Done {
    Nothing,
    Delayed { reached: u64 },
    Blocked { reached: u64 },
}

impl<'a> Tried<'a> {
    fn by(&self, limit: Option<usize>, share: Option<usize>) -> Done {
        done(&self.tally.tried, limit, share)
    }

    /// What the configuration does: its limit, and its test if that stops anybody.
    fn by_yours(&self) -> Done {
        let Some(own) = &self.tally.own else { return Done::Nothing };
        let first = |stops: &[Option<Stop>]| stops.first().copied().flatten();
        match (first(&own.limits), first(&own.alarms)) {
            (limit, Some(alarm))
                if self.tally.alarm_blocks && limit.is_none_or(|limit| alarm.at <= limit.at) =>
            {
                Done::Blocked { reached: alarm.reached }
            }
            _ => done(own, Some(0), Some(0)),
        }
    }

    fn cost(&self, done: Done) -> f64 {
        let recipients = |reached: u64| f64::from(u32::try_from(reached).unwrap_or(u32::MAX));
        match (self.looks, done) {
            (Looks::Thief, Done::Nothing) => MISSED + recipients(self.tally.accepted),
            (Looks::Thief, Done::Delayed { reached }) => DELAYED_THIEF + recipients(reached),
            (Looks::Thief, Done::Blocked { reached }) => recipients(reached),
            (_, Done::Nothing) => 0.0,
            (_, Done::Delayed { .. }) => DELAYED,
            (_, Done::Blocked { .. }) => BLOCKED,
        }
    }

    fn suspect(&self, grid: &Grid) -> Suspect<'a> {
        let tally = self.tally;
        let stopped = |invalid_recipients, usual_share, stop: &Option<Stop>| {
            let setting = Setting { invalid_recipients, usual_share };
            stop.map(|stop| Stopped { setting, at: stop.at, reached: stop.reached, invalid: stop.invalid })
        };
        let by_limit = grid
            .limits
            .iter()
            .zip(&tally.tried.limits)
            .filter_map(|(limit, stop)| stopped(Some(*limit), None, stop));
        let by_test = grid
            .usual_shares
            .iter()
            .zip(&tally.tried.alarms)
            .filter_map(|(share, stop)| stopped(None, Some(*share), stop));
        Suspect {
            account: self.account,
            looks_like: self.looks,
            exempt: tally.exempt,
            accepted: tally.accepted,
            invalid: tally.invalid,
            refused_otherwise: tally.refused,
            share: tally.share(),
            first: tally.first,
            last: tally.last,
            busiest_hour_invalid: tally.busiest().invalid,
            busiest_hour_accepted: tally.busiest().accepted,
            days: tally.days(),
            stops: by_limit.chain(by_test).collect(),
            curve: &tally.curve,
        }
    }
}

fn done(run: &Run, limit: Option<usize>, share: Option<usize>) -> Done {
    let blocked = limit.and_then(|limit| run.limits.get(limit).copied().flatten());
    let alarm = share.and_then(|share| run.alarms.get(share).copied().flatten());
    match (blocked, alarm) {
        (Some(stop), _) => {
            let both = limit.zip(share).and_then(|(limit, share)| *run.both.get(limit)?.get(share)?);
            Done::Blocked { reached: both.unwrap_or(stop.reached) }
        }
        (None, Some(stop)) => Done::Delayed { reached: stop.reached },
        (None, None) => Done::Nothing,
    }
}

/// The configuration, each limit alone, each test alone, and all combinations.
fn rows(grid: &Grid, tried: &[Tried<'_>], yours: Option<Setting>) -> Vec<Row> {
    let limits = 0..grid.limits.len();
    let shares = 0..grid.usual_shares.len();
    let alone = limits
        .clone()
        .map(|limit| (Some(limit), None))
        .chain(shares.clone().map(|share| (None, Some(share))));
    let both = limits.flat_map(|limit| shares.clone().map(move |share| (Some(limit), Some(share))));
    let tried_rows = alone.chain(both).map(|(limit, share)| {
        let setting = Setting {
            invalid_recipients: limit.and_then(|limit| grid.limits.get(limit).copied()),
            usual_share: share.and_then(|share| grid.usual_shares.get(share).copied()),
        };
        row(setting, false, tried, |tried| tried.by(limit, share))
    });
    yours
        .map(|setting| row(setting, true, tried, |tried| tried.by_yours()))
        .into_iter()
        .chain(tried_rows)
        .collect()
}

fn row(setting: Setting, yours: bool, tried: &[Tried<'_>], does: impl Fn(&Tried<'_>) -> Done) -> Row {
    let mut row = Row {
        setting,
        yours,
        blocked: 0,
        probation: 0,
        thieves: 0,
        missed: 0,
        reached_median: None,
        reached_most: None,
        cost: 0.0,
    };
    let mut reached_by = Vec::new();
    for tried in tried.iter().filter(|tried| !tried.tally.exempt) {
        let done = does(tried);
        let is_thief = tried.looks == Looks::Thief;
        row.cost += tried.cost(done);
        match done {
            Done::Nothing => row.missed += u64::from(is_thief),
            Done::Delayed { reached } => {
                row.probation += 1;
                reached_by.push(reached);
            }
            Done::Blocked { reached } => {
                row.blocked += 1;
                reached_by.push(reached);
            }
        }
        row.thieves += u64::from(is_thief && done != Done::Nothing);
    }
    reached_by.sort_unstable();
    row.reached_median = reached_by.get(reached_by.len().saturating_sub(1) / 2).copied();
    row.reached_most = reached_by.last().copied();
    row
}

/// Of the settings with the lowest or nearly the lowest cost, the one closest to the defaults.
fn recommend(
    grid: &Grid,
    rows: &[Row],
    tried: &[Tried<'_>],
    invalid: u64,
    yours: Option<Setting>,
) -> Option<Recommendation> {
    if invalid == 0 {
        return None;
    }
    // The limit is always on; the test may be off.
    let candidates = || rows.iter().filter(|row| !row.yours && row.setting.invalid_recipients.is_some());
    let distance = |row: &Row| {
        let default = Rule::DEFAULT.limit;
        let limit = f64::from(row.setting.invalid_recipients.unwrap_or(default).abs_diff(default));
        let share = row.setting.usual_share.map_or(1.0, |share| (share - USUAL_SHARE).abs());
        limit / 100.0 + share
    };
    let least = candidates().map(|row| row.cost).min_by(f64::total_cmp)?;
    let good = candidates().filter(|row| row.cost <= least + MUCH_THE_SAME);
    let best = good.min_by(|a, b| distance(a).total_cmp(&distance(b)).then(a.cost.total_cmp(&b.cost)))?;
    let limit = grid.limits.iter().position(|limit| Some(*limit) == best.setting.invalid_recipients);
    let share = grid.usual_shares.iter().position(|share| Some(*share) == best.setting.usual_share);
    let stopped =
        || tried.iter().filter(|tried| !tried.tally.exempt && tried.by(limit, share) != Done::Nothing);
    let mut exempt: Vec<Account> =
        stopped().filter(|tried| tried.looks == Looks::OldList).map(|tried| tried.account.clone()).collect();
    exempt.sort();
    let unclear = stopped().filter(|tried| tried.looks == Looks::Unclear).count();
    let verb = if yours == Some(best.setting) { "Keep" } else { "Set" };
    let text = sentence(verb, best, &exempt, unclear);
    Some(Recommendation { setting: best.setting, exempt, text })
}

fn sentence(verb: &str, best: &Row, exempt: &[Account], unclear: usize) -> String {
    let mut text = format!(
        "{verb} [limit] invalid_recipients = {}",
        best.setting.invalid_recipients.unwrap_or_default()
    );
    match best.setting.usual_share {
        Some(share) => text.push_str(&format!(" and [detection] usual_share = {share}")),
        None => text.push_str(" and [detection] on_alarm = \"off\""),
    }
    text.push_str(match (best.thieves, best.missed) {
        (0, 0) => ": nothing in this log looks like a stolen account",
        (0, _) => ": no setting here would have stopped what looks like a stolen account",
        _ => ": ",
    });
    if best.thieves > 0 {
        let of = best.thieves + best.missed;
        text.push_str(&match (best.thieves, of) {
            (1, 1) => "the one account that looks stolen would have been stopped".to_owned(),
            (2, 2) => "both accounts that look stolen would have been stopped".to_owned(),
            (thieves, of) if thieves == of => {
                format!("all {of} accounts that look stolen would have been stopped")
            }
            (thieves, of) => format!("{thieves} of {of} accounts that look stolen would have been stopped"),
        });
        if let Some(most) = best.reached_most {
            text.push_str(&format!(" with at most {most} recipients reached"));
        }
    }
    match (best.thieves, unclear) {
        (_, 0) => {}
        (0, 1) => text.push_str("; one account that is unclear would have been stopped: look at it"),
        (0, unclear) => text.push_str(&format!(
            "; {unclear} accounts that are unclear would have been stopped: look at them"
        )),
        (_, 1) => text.push_str(", one more that is unclear (look at it) too"),
        (_, more) => text.push_str(&format!(", {more} more that are unclear (look at them) too")),
    }
    match exempt {
        [] if best.thieves == 0 && unclear == 0 => text.push_str(", and nobody would have been disturbed"),
        [] => {}
        [one] => text.push_str(&format!("; consider to exempt {one}, which looks like an old list")),
        [first, more @ ..] => text.push_str(&format!(
            "; consider to exempt {first} and {} more, which look like old lists",
            more.len()
        )),
    }
    text.push('.');
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::guard::classify::Outcome;
    use crate::guard::window::{Count, Key, Rule};
    use crate::replay::attribution::Attempt;
    use crate::replay::trial::{Course, Own};

    fn grid() -> Grid {
        Grid {
            limits: vec![25, 50, 75, 100, 150, 200],
            period: Duration::from_secs(3_600),
            count: Count::Distinct,
            usual_shares: vec![0.02, 0.05, 0.10],
            thief_share: 0.30,
            threshold: 12.0,
            delay: Duration::from_secs(1_800),
        }
    }

    /// Sends to `recipients`, one per second from `begin` on; each `dead`th does not exist.
    fn send(trial: &mut Trial, name: &str, begin: u64, recipients: u64, dead: u64) {
        for number in 0..recipients {
            let address = format!("{name}{begin}{number}");
            trial.put(&Attempt {
                at: Timestamp::from_millis(1_700_000_000_000 + (begin + number) * 1_000),
                account: Account::user(name).unwrap(),
                key: Key::of(address.as_bytes()),
                domain: Some(Key::of(&number.to_le_bytes())),
                outcome: if number % dead == dead - 1 { Outcome::NoSuchRecipient } else { Outcome::Accepted },
            });
        }
    }

    fn report(trial: &Trial) -> Report<'_> {
        Report::of(trial, Reading::default(), LeftOut::default(), None)
    }

    const DAY: u64 = 86_400;

    #[test]
    fn a_thief_among_honest_senders() {
        let mut trial = Trial::new(grid(), None);
        for day in 0..5 {
            send(&mut trial, "newsletter", day * DAY, 3_000, 20);
            send(&mut trial, "anna", day * DAY + 4_000, 30, 29);
        }
        send(&mut trial, "stolen", 5 * DAY, 3_000, 3);
        let report = report(&trial);
        let looks: Vec<_> =
            report.suspects.iter().map(|suspect| (suspect.account.as_str(), suspect.looks_like)).collect();
        assert_eq!(looks, [("user:stolen", Looks::Thief), ("user:newsletter", Looks::OldList)]);
        let row = |limit, share| {
            let setting = Setting { invalid_recipients: limit, usual_share: share };
            report.settings.iter().find(|row| row.setting == setting).unwrap()
        };
        // 150 of the 3,000 within 50 minutes are dead.
        assert_eq!((row(Some(100), None).blocked, row(Some(200), None).blocked), (2, 1));
        assert_eq!((row(None, Some(0.05)).probation, row(None, Some(0.05)).thieves), (1, 1));
        let both = row(Some(200), Some(0.05));
        assert_eq!((both.blocked, both.probation, both.missed), (1, 0, 0));
        assert_eq!(both.reached_median, both.reached_most);
        // What the test stopped early has not been sent when the limit blocks; the limit alone lets 400 through.
        assert!(both.reached_most < Some(40) && row(Some(200), None).reached_most == Some(400), "{both:?}");
        let recommendation = report.recommendation.unwrap();
        assert_eq!(
            recommendation.setting,
            Setting { invalid_recipients: Some(200), usual_share: Some(0.05) },
            "{}",
            recommendation.text
        );
        assert_eq!(recommendation.exempt, []);
        assert!(
            recommendation
                .text
                .contains("the one account that looks stolen would have been stopped with at most")
        );
        assert_eq!(report.settings.len(), 6 + 3 + 18);
    }

    #[test]
    fn nothing_to_go_by() {
        let mut trial = Trial::new(grid(), None);
        send(&mut trial, "anna", 0, 10, 100);
        assert_eq!(report(&trial).recommendation, None);
        send(&mut trial, "anna", 100, 10, 10);
        let quiet = report(&trial).recommendation.unwrap();
        assert_eq!(quiet.setting, Setting { invalid_recipients: Some(100), usual_share: Some(0.05) });
        assert!(
            quiet.text.contains("nothing in this log looks like a stolen account, and nobody would"),
            "{}",
            quiet.text
        );
    }

    /// Each is one sentence that contradicts nothing in it.
    #[test]
    fn sentences() {
        let row = |thieves, missed| Row {
            setting: Setting { invalid_recipients: Some(100), usual_share: None },
            yours: false,
            blocked: 0,
            probation: 0,
            thieves,
            missed,
            reached_median: None,
            reached_most: None,
            cost: 0.0,
        };
        let old = [Account::user("anna").unwrap()];
        for (thieves, missed, exempt, unclear, expected) in [
            (
                0,
                0,
                &[][..],
                0,
                "nothing in this log looks like a stolen account, and nobody would have been disturbed",
            ),
            (
                0,
                0,
                &[],
                1,
                "nothing in this log looks like a stolen account; one account that is unclear would have been stopped: look at it",
            ),
            (
                0,
                1,
                &old,
                3,
                "no setting here would have stopped what looks like a stolen account; 3 accounts that are unclear would have been \
                 stopped: look at them; consider to exempt user:anna, which looks like an old list",
            ),
            (
                1,
                0,
                &[],
                1,
                "the one account that looks stolen would have been stopped, one more that is unclear (look at it) too",
            ),
        ] {
            let text = sentence("Set", &row(thieves, missed), exempt, unclear);
            let expected = format!(
                "Set [limit] invalid_recipients = 100 and [detection] on_alarm = \"off\": {expected}."
            );
            assert_eq!(text, expected);
        }
    }

    /// The configured row follows what is configured for each account.
    #[test]
    fn yours() {
        let own = |account: &Account| {
            let course = Course {
                rule: Rule { limit: 70, period: Duration::from_secs(3_600), count: Count::Distinct },
                limits: vec![70],
                tests: Vec::new(),
                delay: Duration::ZERO,
            };
            match account.as_str() {
                "user:newsletter" => Own { course: None, exempt: true, alarm_blocks: false },
                "user:observed" => Own { course: None, exempt: false, alarm_blocks: false },
                _ => Own { course: Some(course), exempt: false, alarm_blocks: false },
            }
        };
        let mut trial = Trial::new(grid(), Some(Box::new(own)));
        for name in ["newsletter", "observed", "stolen"] {
            send(&mut trial, name, 0, 3_000, 3);
        }
        let setting = Setting { invalid_recipients: Some(70), usual_share: None };
        let report = Report::of(&trial, Reading::default(), LeftOut::default(), Some(setting));
        let [own, others @ ..] = &report.settings[..] else { panic!("no rows") };
        assert_eq!(
            (own.yours, own.setting, own.blocked, own.probation, own.missed),
            (true, setting, 1, 0, 1)
        );
        assert_eq!((own.reached_most, others.len()), (Some(140), 6 + 3 + 18));
        assert!(others.iter().all(|row| !row.yours && row.blocked + row.probation == 2));
        assert!(
            report
                .suspects
                .iter()
                .all(|suspect| suspect.exempt == (suspect.account.as_str() == "user:newsletter"))
        );
        let same = Setting { invalid_recipients: Some(100), usual_share: Some(0.05) };
        let report = Report::of(&trial, Reading::default(), LeftOut::default(), Some(same));
        assert!(
            report.recommendation.unwrap().text.starts_with("Keep [limit] invalid_recipients = 100 and ")
        );
    }
}
