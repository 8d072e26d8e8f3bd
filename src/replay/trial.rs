//! Tries settings on the attempts of all accounts at once: when would each have stopped which account?
//!
//! The limit counts as in `guard::window`, the sequential test works as in `guard::detector`, and both are tried
//! together with probation: mail accepted meanwhile is sent when due, unless the limit blocks before. Recipients at a
//! domain that refuses everyone do not count, as in `guard::cause`. Memory is bounded by [`MAX_ACCOUNTS`], and per
//! account.
//!
//! A known difference from the gate: there, permanent refusals for other reasons help to make a domain a common cause.
//! Here they do not, since logs do not always show whether a refusal was permanent.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use super::attribution::Attempt;
use crate::account::Account;
use crate::clock::Timestamp;
use crate::guard::cause::{Answer, Causes, SPAN};
use crate::guard::classify::Outcome;
use crate::guard::detector::{Detector, Evidence, Test, USUAL_SHARE};
use crate::guard::window::{Added, Count, Key, Mark, Rule, Window};
use crate::quarantine::schedule::postponed;

/// The most accounts tried. Beyond that, those without an invalid recipient are dropped.
pub const MAX_ACCOUNTS: usize = 10_000;
/// The least size of the window, so that a curve shows more than the highest limit.
const LEAST_WINDOW: u32 = 500;
/// The most points of a curve.
const POINTS: usize = 512;
/// For how many of an account's last invalid recipients the domain is remembered, as in the ledger.
const RECENT: usize = 64;
const HOUR: u64 = 60 * 60 * 1_000;

/// The settings tried on all accounts.
#[derive(Debug, Clone)]
pub struct Grid {
    /// `[limit] invalid_recipients`, in ascending order.
    pub limits: Vec<u32>,
    /// `[limit] period`
    pub period: Duration,
    /// `[limit] count`
    pub count: Count,
    /// `[detection] usual_share`, in ascending order.
    pub usual_shares: Vec<f64>,
    /// `[detection] thief_share`
    pub thief_share: f64,
    /// `[detection] threshold`
    pub threshold: f64,
    /// `[detection] delay`
    pub delay: Duration,
}

impl Grid {
    fn course(&self) -> Course {
        let limit = self.limits.iter().copied().max().unwrap_or(LEAST_WINDOW).max(LEAST_WINDOW);
        Course {
            rule: Rule { limit, period: self.period, count: self.count },
            limits: self.limits.clone(),
            tests: self.usual_shares.iter().map(|share| self.test(*share)).collect(),
            delay: self.delay,
        }
    }

    fn test(&self, usual_share: f64) -> Test {
        Test::new(usual_share, self.thief_share, self.threshold)
    }

    /// The share of invalid recipients at which the test with the default usual share does not move: a lower share
    /// indicates an honest sender, a higher one a thief.
    pub fn neutral_share(&self) -> f64 {
        let test = self.test(USUAL_SHARE);
        test.fall() / (test.rise() + test.fall())
    }
}

/// Limits and tests that are tried side by side on one window.
#[derive(Debug, Clone)]
pub struct Course {
    /// The rule of the window; its limit is no less than any of `limits`.
    pub rule: Rule,
    /// The limits.
    pub limits: Vec<u32>,
    /// The tests.
    pub tests: Vec<Test>,
    /// How long a probation lasts after the last alarm.
    pub delay: Duration,
}

/// The configuration of an account.
#[derive(Debug, Clone)]
pub struct Own {
    /// Its limit and test; `None` if neither has an effect.
    pub course: Option<Course>,
    /// Whether it is exempt.
    pub exempt: bool,
    /// Whether an alarm of its test blocks it.
    pub alarm_blocks: bool,
}

/// Returns the configuration of an account.
pub type OwnTerms = Box<dyn Fn(&Account) -> Own>;

/// The moment at which a setting would have intervened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// When it was.
    pub at: Timestamp,
    /// The number of recipients whose mail had been sent within the day before.
    pub reached: u64,
    /// The number of invalid recipients counted by then.
    pub invalid: u64,
}

/// What a course did to one account.
#[derive(Debug, Default)]
pub struct Run {
    /// For each limit, when it would have blocked.
    pub limits: Vec<Option<Stop>>,
    /// For each test, when it would have raised its first alarm.
    pub alarms: Vec<Option<Stop>>,
    /// For each limit and test, the number of recipients whose mail had been sent when the limit blocked after a
    /// probation.
    pub both: Vec<Vec<Option<u64>>>,
    window: Window,
    detectors: Vec<Detector>,
    probation: Vec<Probation>,
}

impl Run {
    fn new(course: &Course) -> Self {
        let (limits, tests) = (course.limits.len(), course.tests.len());
        Self {
            limits: vec![None; limits],
            alarms: vec![None; tests],
            both: vec![vec![None; tests]; limits],
            window: Window::default(),
            detectors: std::iter::repeat_with(Detector::default).take(tests).collect(),
            probation: std::iter::repeat_with(Probation::default).take(tests).collect(),
        }
    }

    fn accept(&mut self, attempt: &Attempt, course: &Course) {
        for ((detector, test), probation) in
            self.detectors.iter_mut().zip(&course.tests).zip(&mut self.probation)
        {
            probation.tick(attempt.at);
            detector.valid(attempt.key.bits(), attempt.domain, attempt.at, test);
            probation.accept(attempt.at, course.delay);
        }
    }

    /// Takes an invalid recipient that counts, the `count`th in the window; `stop` describes the moment.
    fn refuse(&mut self, attempt: &Attempt, course: &Course, count: u32, stop: Stop) {
        let tests =
            self.detectors.iter_mut().zip(&course.tests).zip(&mut self.probation).zip(&mut self.alarms);
        for (((detector, test), probation), first) in tests {
            probation.tick(attempt.at);
            let period = course.rule.period;
            let evidence = detector.invalid(attempt.key, attempt.domain, attempt.at, period, test);
            if evidence == Evidence::Alarm {
                first.get_or_insert(stop);
                probation.alarm(attempt.at, course.delay);
            }
        }
        for ((limit, crossed), both) in course.limits.iter().zip(&mut self.limits).zip(&mut self.both) {
            if count >= *limit && crossed.is_none() {
                *crossed = Some(stop);
                let reached =
                    |probation: &Probation| Some(stop.reached.saturating_sub(probation.held_back()));
                *both = self.probation.iter().map(reached).collect();
            }
        }
    }

    /// Withdraws these recipients, counted since then, as evidence. Their consequences stay, as a block does.
    fn take_back(&mut self, addresses: &[Key], since: Timestamp, course: &Course) {
        self.window.remove(|mark: &Mark| mark.at() >= since && addresses.contains(&mark.key()));
        for (detector, test) in self.detectors.iter_mut().zip(&course.tests) {
            detector.take_back(addresses, test);
        }
    }

    fn has_stopped(&self) -> bool {
        self.limits.iter().chain(&self.alarms).any(Option::is_some)
    }
}

/// What is known about one account.
#[derive(Debug)]
pub struct Tally {
    /// The first attempt.
    pub first: Timestamp,
    /// The last attempt.
    pub last: Timestamp,
    /// Accepted recipients.
    pub accepted: u64,
    /// Invalid recipients, as the window counts them.
    pub invalid: u64,
    /// Recipients refused for another reason.
    pub refused: u64,
    /// What the tried settings would have done.
    pub tried: Run,
    /// What the configuration would have done.
    pub own: Option<Run>,
    /// Whether the configuration exempts it.
    pub exempt: bool,
    /// Whether an alarm blocks it according to the configuration.
    pub alarm_blocks: bool,
    /// Invalid recipients within the period, over time.
    pub curve: Curve,
    own_course: Option<Course>,
    /// The clock hour of the last attempt; then the busiest one before it.
    hour: Hour,
    busiest_before: Hour,
    /// The day of the last invalid recipient; then the number of earlier days that had one.
    today: Day,
    days_before: u32,
    /// Invalid recipients of the last [`SPAN`] that counted, by time.
    recent: VecDeque<Invalid>,
    /// Accepted recipients of the last day, by clock hour.
    sent: VecDeque<Sent>,
}

/// A clock hour of an account.
#[derive(Debug, Default, Clone, Copy)]
pub struct Hour {
    /// How many hours there were before it since 1970.
    number: u64,
    /// Invalid recipients that counted.
    pub invalid: u64,
    /// Accepted recipients.
    pub accepted: u64,
}

/// A day with an invalid recipient.
#[derive(Debug, Default, Clone, Copy)]
struct Day {
    /// How many days there were before it since 1970.
    number: u64,
    invalid: u64,
}

/// An invalid recipient that counted.
#[derive(Debug, Clone, Copy)]
struct Invalid {
    at: Timestamp,
    address: Key,
    domain: Key,
}

/// The accepted recipients of a clock hour.
#[derive(Debug)]
struct Sent {
    hour: u64,
    recipients: u64,
}

/// How many invalid recipients were within the period, at a bounded number of times.
#[derive(Debug, Default)]
pub struct Curve(Vec<(Timestamp, u32)>);

impl Curve {
    /// In chronological order.
    pub fn points(&self) -> &[(Timestamp, u32)] {
        &self.0
    }

    fn push(&mut self, at: Timestamp, count: u32) {
        if self.0.len() >= POINTS {
            // The higher of two neighbours is kept.
            let higher = |pair: &[(Timestamp, u32)]| pair.iter().copied().max_by_key(|(_, count)| *count);
            self.0 = self.0.chunks(2).filter_map(higher).collect();
        }
        self.0.push((at, count));
    }

    /// Its points since `since` did not count; at `now` the number is `count`.
    fn lower(&mut self, since: Timestamp, now: Timestamp, count: u32) {
        self.0.truncate(self.0.partition_point(|(at, _)| *at < since));
        self.push(now, count);
    }
}

/// The mail of an account since the test's alarm.
#[derive(Debug, Default)]
struct Probation {
    until: Option<Timestamp>,
    /// By the minute of its arrival.
    delayed: VecDeque<Delayed>,
}

/// Mail that is delayed.
#[derive(Debug)]
struct Delayed {
    since: Timestamp,
    due: Timestamp,
    recipients: u64,
}

impl Probation {
    fn alarm(&mut self, now: Timestamp, delay: Duration) {
        let until = now.after(delay);
        self.until = Some(until);
        for mail in &mut self.delayed {
            mail.due = postponed(mail.due, mail.since, until);
        }
    }

    fn accept(&mut self, now: Timestamp, delay: Duration) {
        if self.until.is_none_or(|until| now >= until) {
            return;
        }
        match self.delayed.back_mut() {
            Some(last) if now.since(last.since) < Duration::from_secs(60) => last.recipients += 1,
            _ => self.delayed.push_back(Delayed { since: now, due: now.after(delay), recipients: 1 }),
        }
    }

    /// Sends what is due at `now`.
    fn tick(&mut self, now: Timestamp) {
        while self.delayed.front().is_some_and(|mail| mail.due <= now) {
            self.delayed.pop_front();
        }
    }

    /// The number of recipients whose mail has not been sent.
    fn held_back(&self) -> u64 {
        self.delayed.iter().map(|mail| mail.recipients).sum()
    }
}

impl Tally {
    fn new(course: &Course, own: Option<Own>, at: Timestamp) -> Self {
        let exempt = own.as_ref().is_some_and(|own| own.exempt);
        let alarm_blocks = own.as_ref().is_some_and(|own| own.alarm_blocks);
        let own_course = own.and_then(|own| own.course);
        Self {
            first: at,
            last: at,
            accepted: 0,
            invalid: 0,
            refused: 0,
            tried: Run::new(course),
            own: own_course.as_ref().map(Run::new),
            exempt,
            alarm_blocks,
            curve: Curve::default(),
            own_course,
            hour: Hour::default(),
            busiest_before: Hour::default(),
            today: Day::default(),
            days_before: 0,
            recent: VecDeque::new(),
            sent: VecDeque::new(),
        }
    }

    /// Whether any setting, or the configuration, would have stopped it.
    pub fn is_suspicious(&self) -> bool {
        self.tried.has_stopped() || self.own.as_ref().is_some_and(Run::has_stopped)
    }

    /// The share of invalid recipients among those that say something about a list.
    pub fn share(&self) -> f64 {
        share(self.invalid, self.accepted)
    }

    /// The same share in the busiest hour.
    pub fn busiest_share(&self) -> f64 {
        let Hour { invalid, accepted, .. } = self.busiest();
        share(invalid, accepted)
    }

    /// The clock hour with the most invalid recipients.
    pub fn busiest(&self) -> Hour {
        if self.hour.invalid > 0 && self.hour.invalid >= self.busiest_before.invalid {
            self.hour
        } else {
            self.busiest_before
        }
    }

    /// The number of days with an invalid recipient.
    pub fn days(&self) -> u32 {
        self.days_before + u32::from(self.today.invalid > 0)
    }

    fn put(&mut self, attempt: &Attempt, course: &Course) {
        self.last = attempt.at;
        match attempt.outcome {
            Outcome::OtherRefusal => self.refused += 1,
            Outcome::Accepted => self.accept(attempt, course),
            Outcome::NoSuchRecipient => self.refuse(attempt, course),
        }
    }

    fn accept(&mut self, attempt: &Attempt, course: &Course) {
        self.accepted += 1;
        self.in_the_hour(attempt.at, 0, 1);
        let hour = attempt.at.as_millis() / HOUR;
        match self.sent.back_mut() {
            Some(last) if last.hour == hour => last.recipients += 1,
            _ => self.sent.push_back(Sent { hour, recipients: 1 }),
        }
        while self.sent.front().is_some_and(|first| first.hour + 24 < hour) {
            self.sent.pop_front();
        }
        self.tried.accept(attempt, course);
        if let (Some(own), Some(course)) = (&mut self.own, &self.own_course) {
            own.accept(attempt, course);
        }
    }

    fn refuse(&mut self, attempt: &Attempt, course: &Course) {
        let added = self.tried.window.add(attempt.key, attempt.at, &course.rule);
        let mut stop = Stop { at: attempt.at, reached: self.reached(attempt.at), invalid: self.invalid + 1 };
        if let Added::Counted(count) = added {
            self.invalid += 1;
            self.in_the_hour(attempt.at, 1, 0);
            self.curve.push(attempt.at, count);
            let number = attempt.at.as_millis() / (24 * HOUR);
            if self.today.number != number {
                (self.days_before, self.today) = (self.days(), Day { number, invalid: 0 });
            }
            self.today.invalid += 1;
            self.remember(attempt);
            self.tried.refuse(attempt, course, count, stop);
        }
        stop.invalid = self.invalid;
        if let (Some(own), Some(course)) = (&mut self.own, &self.own_course)
            && let Added::Counted(count) = own.window.add(attempt.key, attempt.at, &course.rule)
        {
            own.refuse(attempt, course, count, stop);
        }
    }

    fn remember(&mut self, attempt: &Attempt) {
        while self.recent.len() >= RECENT
            || self.recent.front().is_some_and(|first| attempt.at.since(first.at) >= SPAN)
        {
            self.recent.pop_front();
        }
        if let Some(domain) = attempt.domain {
            self.recent.push_back(Invalid { at: attempt.at, address: attempt.key, domain });
        }
    }

    /// Withdraws what was counted lately for a domain that turned out to refuse everyone. Returns how many recipients
    /// that were.
    fn take_back(&mut self, domain: Key, now: Timestamp, course: &Course) -> u64 {
        let since = now.before(SPAN);
        let counted = |one: &Invalid| one.domain == domain && one.at >= since;
        let taken: Vec<Invalid> = self.recent.iter().filter(|one| counted(one)).copied().collect();
        let Some(first) = taken.first().map(|one| one.at) else { return 0 };
        self.recent.retain(|one| !counted(one));
        let addresses: Vec<Key> = taken.iter().map(|one| one.address).collect();
        self.tried.take_back(&addresses, since, course);
        if let (Some(own), Some(course)) = (&mut self.own, &self.own_course) {
            own.take_back(&addresses, since, course);
        }
        let of_number = |span: u64, number: u64| {
            taken.iter().filter(|one| one.at.as_millis() / span == number).count() as u64
        };
        self.invalid -= taken.len() as u64;
        self.hour.invalid -= of_number(HOUR, self.hour.number).min(self.hour.invalid);
        self.today.invalid -= of_number(24 * HOUR, self.today.number).min(self.today.invalid);
        self.curve.lower(first, now, self.tried.window.count(now, course.rule.period));
        taken.len() as u64
    }

    /// Accepted recipients within the day before `now`: what an account sent before it was stolen says nothing about
    /// the thief.
    fn reached(&self, now: Timestamp) -> u64 {
        let hour = now.as_millis() / HOUR;
        self.sent.iter().filter(|then| then.hour + 24 >= hour).map(|then| then.recipients).sum()
    }

    fn in_the_hour(&mut self, at: Timestamp, invalid: u64, accepted: u64) {
        let number = at.as_millis() / HOUR;
        if self.hour.number != number {
            (self.busiest_before, self.hour) = (self.busiest(), Hour { number, ..Hour::default() });
        }
        self.hour.invalid += invalid;
        self.hour.accepted += accepted;
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share is shown with two digits")]
fn share(invalid: u64, accepted: u64) -> f64 {
    if invalid == 0 { 0.0 } else { invalid as f64 / (invalid + accepted) as f64 }
}

/// The trial of all accounts.
pub struct Trial {
    grid: Grid,
    course: Course,
    own: Option<OwnTerms>,
    tallies: HashMap<Account, Tally>,
    causes: Causes,
    hashes: RandomState,
    /// How many domains refused everyone for a while, and how many of their recipients do not count.
    common: (u64, u64),
    /// Dropped accounts without an invalid recipient, and how many recipients they had.
    given_way: (u64, u64),
    /// Attempts of accounts for which there was no room.
    no_room: u64,
}

impl Trial {
    /// Tries these settings and, if there is one, the configuration.
    pub fn new(grid: Grid, own: Option<OwnTerms>) -> Self {
        let course = grid.course();
        Self {
            grid,
            course,
            own,
            tallies: HashMap::new(),
            causes: Causes::default(),
            hashes: RandomState::new(),
            common: (0, 0),
            given_way: (0, 0),
            no_room: 0,
        }
    }

    /// Takes an attempt, no earlier than the one before.
    pub fn put(&mut self, attempt: &Attempt) {
        if !self.tallies.contains_key(&attempt.account) {
            if self.tallies.len() >= MAX_ACCOUNTS {
                self.make_room();
            }
            if self.tallies.len() >= MAX_ACCOUNTS {
                self.no_room += 1;
                return;
            }
            let own = self.own.as_ref().map(|own| own(&attempt.account));
            self.tallies.insert(attempt.account.clone(), Tally::new(&self.course, own, attempt.at));
        }
        let counts = self.counts(attempt);
        if let Some(tally) = self.tallies.get_mut(&attempt.account) {
            if counts {
                tally.put(attempt, &self.course);
            } else {
                tally.last = attempt.at;
            }
        }
    }

    /// Whether the answer speaks for or against the account. When a domain's answers cease to, earlier ones are
    /// withdrawn.
    fn counts(&mut self, attempt: &Attempt) -> bool {
        let Some(domain) = attempt.domain else { return true };
        let answer = match attempt.outcome {
            Outcome::OtherRefusal => return true,
            Outcome::Accepted => {
                self.causes.accepted(domain, attempt.at);
                return true;
            }
            Outcome::NoSuchRecipient => {
                let account = self.hashes.hash_one(attempt.account.as_str());
                self.causes.refused(domain, "", account, attempt.at)
            }
        };
        if answer == Answer::Counts {
            return true;
        }
        self.common.1 += 1;
        if answer == Answer::Begins {
            let take_back = |tally: &mut Tally| tally.take_back(domain, attempt.at, &self.course);
            self.common =
                (self.common.0 + 1, self.common.1 + self.tallies.values_mut().map(take_back).sum::<u64>());
        }
        false
    }

    /// Drops the least recently active half of the accounts without an invalid recipient.
    fn make_room(&mut self) {
        let mut clean: Vec<Timestamp> =
            self.tallies.values().filter(|tally| tally.invalid == 0).map(|tally| tally.last).collect();
        if clean.is_empty() {
            return;
        }
        let middle = clean.len() / 2;
        let (_, until, _) = clean.select_nth_unstable(middle);
        let until = *until;
        self.tallies.retain(|_, tally| {
            let stays = tally.invalid > 0 || tally.last > until;
            if !stays {
                self.given_way.0 += 1;
                self.given_way.1 += tally.accepted;
            }
            stays
        });
    }

    /// The settings.
    pub fn grid(&self) -> &Grid {
        &self.grid
    }

    /// The accounts, in no particular order.
    pub fn tallies(&self) -> impl Iterator<Item = (&Account, &Tally)> {
        self.tallies.iter()
    }

    /// How often a domain began to refuse everyone, and how many recipients did not count because of that.
    pub fn common_causes(&self) -> (u64, u64) {
        self.common
    }

    /// The accounts that were dropped, and how many recipients they had.
    pub fn given_way(&self) -> (u64, u64) {
        self.given_way
    }

    /// Attempts of accounts for which there was no room.
    pub fn no_room(&self) -> u64 {
        self.no_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::window::Key;

    pub(super) fn grid() -> Grid {
        Grid {
            limits: vec![5, 10],
            period: Duration::from_secs(3_600),
            count: Count::Distinct,
            usual_shares: vec![0.05],
            thief_share: 0.30,
            threshold: 12.0,
            delay: Duration::from_secs(1_800),
        }
    }

    fn attempt(account: &str, second: u64, address: &str, outcome: Outcome) -> Attempt {
        Attempt {
            at: Timestamp::from_millis(1_700_000_000_000 + second * 1_000),
            account: Account::user(account).unwrap(),
            key: Key::of(address.as_bytes()),
            domain: address.split('@').next_back().map(Key::of_domain),
            outcome,
        }
    }

    /// One character per step: `+` accepted, `-` invalid, `.` refused otherwise, a blank nothing.
    fn tried(line: &str, step: u64) -> Tally {
        let mut trial = Trial::new(grid(), None);
        for (place, c) in line.chars().enumerate() {
            let outcome = match c {
                '+' => Outcome::Accepted,
                '-' => Outcome::NoSuchRecipient,
                '.' => Outcome::OtherRefusal,
                _ => continue,
            };
            trial.put(&attempt("a", place as u64 * step, &format!("{place}@{place}.example"), outcome));
        }
        trial.tallies.remove(&Account::user("a").unwrap()).unwrap()
    }

    fn seconds(stop: Option<Stop>) -> Option<(u64, u64, u64)> {
        stop.map(|stop| ((stop.at.as_millis() - 1_700_000_000_000) / 1_000, stop.reached, stop.invalid))
    }

    #[test]
    fn when_each_setting_steps_in() {
        let tally = tried("++-+-.+-+--------+-", 1);
        assert_eq!((tally.accepted, tally.invalid, tally.refused), (6, 12, 1));
        assert_eq!(seconds(tally.tried.limits[0]), Some((10, 5, 5)));
        assert_eq!(seconds(tally.tried.limits[1]), Some((15, 5, 10)));
        // 7 x ln 6 = 12.5; the four accepted ones in between subtract 1.2.
        assert_eq!(seconds(tally.tried.alarms[0]), Some((13, 5, 8)));
        // The limit of 5 comes before the alarm; at 10 the recipient accepted during probation has not been reached
        // yet.
        assert_eq!(tally.tried.both, [[Some(5)], [Some(5)]]);
        assert_eq!((tally.busiest().invalid, tally.busiest().accepted, tally.days()), (12, 6, 1));
        assert_eq!(tally.curve.points().len(), 12);
    }

    #[test]
    fn probation_delays_and_lets_go() {
        // The alarm comes with the 7th, at 60 s. What is accepted at 70 and 80 s is due 30 minutes later.
        let mut line = "-------++".to_owned();
        line.push_str(&" ".repeat(170));
        line.push_str("+++---");
        let tally = tried(&line, 10);
        assert_eq!(seconds(tally.tried.alarms[0]), Some((60, 0, 7)));
        assert_eq!(seconds(tally.tried.limits[1]), Some((1_840, 5, 10)));
        // At 1,840 s the first, which is due at 1,870 s, has not been sent.
        assert_eq!(tally.tried.both[1], [Some(0)]);
        let later = tried(&line.replace("+++---", "          +++---"), 10);
        assert_eq!(later.tried.both[1], [Some(5)], "both were due, and probation was over");
    }

    /// Three accounts take turns, every 10 s: recipients at a domain that is down, and others.
    fn wave(outage: &str) -> Trial {
        let own = |_: &Account| {
            let course = Course { limits: vec![10], ..grid().course() };
            Own { course: Some(course), exempt: false, alarm_blocks: false }
        };
        let mut trial = Trial::new(Grid { limits: vec![10], ..grid() }, Some(Box::new(own)));
        for (place, c) in (0_u64..).zip(outage.chars()) {
            let domain = if c == 'd' { place.to_string() } else { "down".to_owned() };
            let outcome = if c == '+' { Outcome::Accepted } else { Outcome::NoSuchRecipient };
            let account = ["a", "b", "c"][usize::try_from(place % 3).unwrap()];
            trial.put(&attempt(account, place * 10, &format!("{place}@{domain}.example"), outcome));
        }
        trial
    }

    #[test]
    fn what_a_domain_refuses_that_refuses_everybody_does_not_count() {
        // Each account has one that is really dead. The twentieth refusal takes back the nineteen before it.
        let trial = wave(&("ddd".to_owned() + &"-".repeat(100)));
        assert_eq!(trial.common_causes(), (1, 100));
        for (account, tally) in trial.tallies() {
            let own = tally.own.as_ref().unwrap();
            assert!(!tally.is_suspicious(), "{account}");
            assert_eq!((tally.invalid, tally.busiest().invalid, tally.days()), (1, 1, 1));
            let period = Duration::from_secs(3_600);
            assert_eq!(
                (tally.tried.window.count(tally.last, period), own.window.count(tally.last, period)),
                (1, 1)
            );
            assert_eq!(tally.curve.points().last().map(|(_, count)| *count), Some(1));
            assert!(tally.recent.len() <= 1);
        }
        // Somebody exists there, so all three are thieves.
        let trial = wave(&("+++".to_owned() + &"-".repeat(54)));
        assert_eq!(trial.common_causes(), (0, 0));
        assert!(trial.tallies().all(|(_, tally)| tally.is_suspicious() && tally.invalid == 18));
        // The domain works again, and its refusals count again.
        let trial = wave(&("-".repeat(40) + "+" + &"-".repeat(40)));
        assert_eq!(trial.common_causes(), (1, 40));
        assert_eq!(trial.tallies().map(|(_, tally)| tally.invalid).sum::<u64>(), 40);
    }

    #[test]
    fn the_same_address_counts_once_within_the_period() {
        let mut trial = Trial::new(grid(), None);
        for second in 0..100 {
            trial.put(&attempt("a", second * 60, "dead@example.org", Outcome::NoSuchRecipient));
        }
        let (_, tally) = trial.tallies().next().unwrap();
        assert_eq!((tally.invalid, tally.tried.limits[0]), (2, None));
    }

    #[test]
    fn accounts_are_bounded() {
        let mut trial = Trial::new(Grid { limits: vec![5], usual_shares: vec![], ..grid() }, None);
        let accounts = MAX_ACCOUNTS as u64 * 3 / 2;
        for number in 0..accounts {
            let outcome = if number % 10 == 0 { Outcome::NoSuchRecipient } else { Outcome::Accepted };
            trial.put(&attempt(&format!("a{number}"), number, "x@example.org", outcome));
        }
        assert!(trial.tallies.len() <= MAX_ACCOUNTS);
        assert_eq!(trial.tallies.len() as u64 + trial.given_way.0, accounts);
        assert_eq!(trial.given_way.0, trial.given_way.1);
        let dirty = trial.tallies().filter(|(_, tally)| tally.invalid > 0).count() as u64;
        assert_eq!(dirty, accounts / 10, "no account with an invalid recipient gives way");
        assert_eq!(trial.no_room, 0);
    }

    #[test]
    fn curves_are_bounded_and_keep_their_peaks() {
        let mut curve = Curve::default();
        for number in 0..100_000_u32 {
            curve.push(
                Timestamp::from_millis(u64::from(number)),
                if number == 7_777 { 900 } else { number % 50 },
            );
            assert!(curve.0.len() <= POINTS);
        }
        assert!(curve.0.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(curve.0.contains(&(Timestamp::from_millis(7_777), 900)));
    }
}
