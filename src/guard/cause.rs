//! Common causes: a domain that refuses everybody says nothing about those who ask.
//!
//! Pure, time is an argument. If a domain refused [`ANSWERS`] probes of [`ACCOUNTS`] accounts within [`SPAN`] and accepted none
//! in that time, the cause is the domain, or us. Its answers then do not count until it accepts a recipient, or has refused
//! none for [`SPAN`]. Nobody can be reached at such a domain, so a thief who brings this about gains nothing. A wave of stolen
//! accounts at a domain that accepts some recipients is no common cause.
//!
//! Memory is bounded by [`DOMAINS`] domains, the latest.

use std::collections::BTreeMap;
use std::time::Duration;

use super::window::Key;
use crate::clock::Timestamp;

/// How many refusals within [`SPAN`] make a domain a common cause.
pub const ANSWERS: usize = 20;
/// How many accounts must have been refused.
pub const ACCOUNTS: usize = 3;
/// How far back refusals are counted, and how long a cause lasts without a further one.
pub const SPAN: Duration = Duration::from_secs(10 * 60);
/// How many domains are remembered.
pub const DOMAINS: usize = 512;

/// The recent answers of domains.
#[derive(Debug, Default)]
pub struct Causes {
    domains: BTreeMap<Key, Domain>,
}

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It speaks for or against the account.
    Counts,
    /// It makes the domain a common cause: neither it nor those before it count.
    Begins,
    /// The domain is a common cause.
    Lasts,
}

/// A common cause, current or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The domain, as it was given.
    pub domain: String,
    /// Since when.
    pub since: Timestamp,
    /// How many answers have not counted since it began.
    pub answers: u64,
}

#[derive(Debug, Default)]
struct Domain {
    /// When it last accepted a recipient.
    accepted: Option<Timestamp>,
    /// Its refusals; most domains have none.
    refused: Option<Box<Refused>>,
}

#[derive(Debug)]
struct Refused {
    /// The latest times: a ring.
    times: [Timestamp; ANSWERS],
    next: usize,
    /// The accounts refused last, and when.
    accounts: [Option<(u64, Timestamp)>; ACCOUNTS],
    cause: Option<Cause>,
}

impl Causes {
    /// Notes that the domain accepted a recipient; returns the common cause that this ends, if any.
    pub fn accepted(&mut self, domain: Key, now: Timestamp) -> Option<Cause> {
        let held = self.hold(domain, now);
        held.accepted = Some(now);
        held.refused.as_mut().and_then(|refused| refused.cause.take())
    }

    /// Notes that the domain permanently refused a recipient of `account` (a hash).
    pub fn refused(&mut self, domain: Key, name: &str, account: u64, now: Timestamp) -> Answer {
        let held = self.hold(domain, now);
        // The clock may have stepped back.
        held.accepted = held.accepted.min(Some(now));
        let lately = |at: Timestamp| now.since(at) < SPAN;
        let refused = held.refused.get_or_insert_with(Box::default);
        // It is over, though `end` has not run yet.
        let silent = !lately(refused.last());
        refused.cause.take_if(|_| silent);
        refused.note(account, now);
        if let Some(cause) = &mut refused.cause {
            cause.answers += 1;
            return Answer::Lasts;
        }
        let everybody = lately(refused.times[refused.next])
            && refused.accounts.iter().all(|seen| seen.is_some_and(|(_, at)| lately(at)))
            && !held.accepted.is_some_and(lately);
        if !everybody {
            return Answer::Counts;
        }
        refused.cause = Some(Cause { domain: name.to_owned(), since: now, answers: 1 });
        Answer::Begins
    }

    /// The current common causes.
    pub fn lasting(&self, now: Timestamp) -> impl Iterator<Item = &Cause> {
        let lasts = move |refused: &&Refused| now.since(refused.last()) < SPAN;
        self.refusing().filter(lasts).filter_map(|refused| refused.cause.as_ref())
    }

    /// Ends, and returns, those that have refused nobody for [`SPAN`].
    pub fn end(&mut self, now: Timestamp) -> Vec<Cause> {
        let refusing = self.domains.values_mut().filter_map(|held| held.refused.as_deref_mut());
        let silent = refusing.filter(|refused| now.since(refused.last()) >= SPAN);
        silent.filter_map(|refused| refused.cause.take()).collect()
    }

    fn refusing(&self) -> impl Iterator<Item = &Refused> {
        self.domains.values().filter_map(|held| held.refused.as_deref())
    }

    fn hold(&mut self, domain: Key, now: Timestamp) -> &mut Domain {
        if self.domains.len() >= DOMAINS && !self.domains.contains_key(&domain) {
            self.make_room(now);
        }
        self.domains.entry(domain).or_default()
    }

    /// Forgets domains too old to matter. If that frees too little, forgets the half heard of least recently, common causes
    /// last.
    fn make_room(&mut self, now: Timestamp) {
        self.domains.retain(|_, held| held.is_cause() || now.since(held.last()) < SPAN);
        if self.domains.len() < DOMAINS {
            return;
        }
        let mut ages: Vec<(bool, Timestamp)> = self.domains.values().map(Domain::worth).collect();
        let (_, middle, _) = ages.select_nth_unstable(DOMAINS / 2);
        let middle = *middle;
        self.domains.retain(|_, held| held.worth() > middle);
    }
}

impl Domain {
    fn is_cause(&self) -> bool {
        self.refused.as_ref().is_some_and(|refused| refused.cause.is_some())
    }

    fn last(&self) -> Timestamp {
        let refused = self.refused.as_ref().map(|refused| refused.last());
        self.accepted.max(refused).unwrap_or_default()
    }

    fn worth(&self) -> (bool, Timestamp) {
        (self.is_cause(), self.last())
    }
}

impl Default for Refused {
    fn default() -> Self {
        let times = [Timestamp::default(); ANSWERS];
        Self { times, next: 0, accounts: [None; ACCOUNTS], cause: None }
    }
}

impl Refused {
    /// When it refused last.
    fn last(&self) -> Timestamp {
        self.times[(self.next + ANSWERS - 1) % ANSWERS]
    }

    fn note(&mut self, account: u64, now: Timestamp) {
        // The clock has stepped back: entries in the future are dated to now.
        let accounts = self.accounts.iter_mut().flatten().map(|(_, at)| at);
        for at in self.times.iter_mut().chain(accounts) {
            *at = (*at).min(now);
        }
        self.times[self.next] = now;
        self.next = (self.next + 1) % ANSWERS;
        let known = self.accounts.iter().position(|seen| seen.is_some_and(|(known, _)| known == account));
        let longest_ago = || (0..ACCOUNTS).min_by_key(|place| self.accounts[*place].map(|(_, at)| at));
        if let Some(place) = known.or_else(longest_ago) {
            self.accounts[place] = Some((account, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000;
    const MINUTE: u64 = 60 * SECOND;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + millis)
    }

    fn key(name: &str) -> Key {
        Key::of_domain(name)
    }

    /// Runs the domain's answers, one every `step` milliseconds, to `accounts` accounts in turn: `+` accepts, `-` refuses.
    /// Shown as `.` counts, `B` begins, `L` lasts, `a` accepts, `E` ends.
    fn run(causes: &mut Causes, from: u64, step: u64, accounts: u64, answers: &str) -> String {
        let answer = |(n, answer): (u64, char)| {
            let now = at(from + n * step);
            match answer {
                '+' => causes.accepted(key("dead.example"), now).map_or('a', |_| 'E'),
                _ => match causes.refused(key("dead.example"), "dead.example", n % accounts, now) {
                    Answer::Counts => '.',
                    Answer::Begins => 'B',
                    Answer::Lasts => 'L',
                },
            }
        };
        (0..).zip(answers.chars()).map(answer).collect()
    }

    #[test]
    fn twenty_answers_to_three_accounts_within_ten_minutes() {
        let minuses = |n: usize| "-".repeat(n);
        let dots = |n: usize| ".".repeat(n);
        for (step, accounts, answers, expected) in [
            (SECOND, 3, minuses(21), dots(19) + "BL"),
            (SECOND, 5, minuses(21), dots(19) + "BL"),
            // One company's closed account list, by two people.
            (SECOND, 2, minuses(100), dots(100)),
            // The first of twenty just within ten minutes of the last, and not.
            (10 * MINUTE / 19 - 1, 3, minuses(20), dots(19) + "B"),
            (10 * MINUTE / 19 + 1, 3, minuses(20), dots(20)),
            // A wave at a big provider: somebody always exists.
            (SECOND, 3, "---+".repeat(100), "...a".repeat(100)),
            // One accepted recipient in the ten minutes before.
            (SECOND, 3, "+".to_owned() + &minuses(100), "a".to_owned() + &dots(100)),
            // Accepted once: over, and for ten minutes nothing new begins.
            (SECOND, 3, minuses(22) + "+" + &minuses(50), dots(19) + "BLLE" + &dots(50)),
            (MINUTE / 3, 3, minuses(20) + "+" + &minuses(31), dots(19) + "BE" + &dots(29) + "BL"),
        ] {
            assert_eq!(run(&mut Causes::default(), 0, step, accounts, &answers), expected, "{answers}");
        }
    }

    #[test]
    fn it_lasts_as_long_as_it_refuses_now_and_then() {
        let mut causes = Causes::default();
        run(&mut causes, 0, SECOND, 3, &"-".repeat(20));
        // Once in nine minutes, to one account: the cause lasts.
        assert_eq!(run(&mut causes, 9 * MINUTE, 9 * MINUTE, 1, "----"), "LLLL");
        let last = 4 * 9 * MINUTE;
        let lasting: Vec<&Cause> = causes.lasting(at(last + MINUTE)).collect();
        let cause = Cause { domain: "dead.example".to_owned(), since: at(19 * SECOND), answers: 5 };
        assert_eq!(lasting, [&cause]);
        assert_eq!(causes.end(at(last + 10 * MINUTE - 1)), []);
        assert_eq!(causes.lasting(at(last + 10 * MINUTE)).count(), 0);
        // Whether it is asked or ended first: over is over.
        assert_eq!(run(&mut causes, last + 10 * MINUTE, SECOND, 1, "-"), ".");
        run(&mut causes, last + 11 * MINUTE, SECOND, 3, &"-".repeat(20));
        assert_eq!(causes.end(at(last + 30 * MINUTE)).len(), 1);
        assert_eq!(causes.end(at(last + 30 * MINUTE)), []);
    }

    #[test]
    fn a_clock_that_steps_back_does_no_harm() {
        let mut causes = Causes::default();
        run(&mut causes, 1_000 * MINUTE, SECOND, 3, &"-".repeat(20));
        assert_eq!(run(&mut causes, 0, SECOND, 3, "--"), "LL");
        assert_eq!(causes.end(at(10 * MINUTE + SECOND)).len(), 1, "not in a thousand minutes");
    }

    #[test]
    fn memory_is_bounded_and_causes_go_last() {
        let mut causes = Causes::default();
        run(&mut causes, 0, SECOND, 3, &"-".repeat(20));
        for n in 0..10 * DOMAINS as u64 {
            causes.accepted(key(&format!("{n}.example")), at(MINUTE + n));
            causes.refused(key(&format!("{n}.example")), "", n, at(MINUTE + n));
            assert!(causes.domains.len() <= DOMAINS);
        }
        assert_eq!(causes.lasting(at(MINUTE)).count(), 1);
        // What is old goes before what is young.
        causes.accepted(key("young.example"), at(2 * MINUTE));
        for n in 0..DOMAINS as u64 / 4 {
            causes.accepted(key(&format!("late-{n}.example")), at(2 * MINUTE));
        }
        assert!(causes.domains.contains_key(&key("young.example")));
    }
}
