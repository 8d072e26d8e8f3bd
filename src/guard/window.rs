//! The exact sliding window of one account's counted attempts: pure, time is an argument.
//!
//! Holds at most [`Rule::limit`] attempts, which bounds memory and disk per account; a count saturates there. An attempt counts
//! while it is less than `period` old. A clock that steps backwards does no harm: an attempt in the future is dated to now, so
//! none counts for longer than `period` after the step.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::clock::Timestamp;

/// The highest limit that can be configured: each attempt within the period takes 16 octets of memory.
pub const MAX_LIMIT: u32 = 10_000;

/// `[limit] count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// The same address again within the period neither counts nor renews the first one's time.
    Distinct,
    /// Every RCPT counts.
    Attempts,
}

/// What counts, for how long, and up to what number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// How many attempts the window holds, from 1 to [`MAX_LIMIT`].
    pub limit: u32,
    /// How long an attempt counts.
    pub period: Duration,
    /// Whether the same address counts again.
    pub count: Count,
}

impl Rule {
    /// The default of `[limit]`.
    pub const DEFAULT: Self =
        Self { limit: 100, period: Duration::from_secs(60 * 60), count: Count::Distinct };
}

/// A hash of an address or a domain: equal ones have equal keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key([u8; 8]);

impl Key {
    /// Returns the first 64 bits of the SHA-256, so that nobody can choose addresses that collide.
    pub fn of(octets: &[u8]) -> Self {
        let mut key = [0; 8];
        key.copy_from_slice(&Sha256::digest(octets)[..8]);
        Self(key)
    }

    /// Returns an index below `places` (at most 256), the same for equal keys.
    pub fn place(&self, places: usize) -> usize {
        usize::from(self.0[0]) % places
    }

    /// Returns the key of a domain, without regard to ASCII case.
    pub fn of_domain(domain: &str) -> Self {
        // RFC 5321 4.5.3.1.2: 255 octets. No mailbox has a longer domain; the rest of one is hashed as written.
        let mut lower = [0; 255];
        let most = domain.len().min(lower.len());
        let (lower, rest) = (&mut lower[..most], &domain.as_bytes()[most..]);
        lower.copy_from_slice(&domain.as_bytes()[..most]);
        lower.make_ascii_lowercase();
        let mut key = [0; 8];
        key.copy_from_slice(&Sha256::new().chain_update(lower).chain_update(rest).finalize()[..8]);
        Self(key)
    }

    /// The key as a number.
    pub fn bits(self) -> u64 {
        u64::from_le_bytes(self.0)
    }
}

/// Makes keys of domains and remembers the last one: the recipients of a message often share a domain.
#[derive(Debug, Default)]
pub struct DomainKeys {
    last: Option<(Box<str>, Key)>,
}

impl DomainKeys {
    /// [`Key::of_domain`].
    pub fn of(&mut self, domain: &str) -> Key {
        if let Some((last, key)) = &self.last
            && **last == *domain
        {
            return *key;
        }
        let key = Key::of_domain(domain);
        self.last = Some((domain.into(), key));
        key
    }
}

/// One counted attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Milliseconds since the Unix epoch.
    at: u64,
    key: Key,
}

impl Mark {
    /// An attempt at `at` to reach the address with this `key`.
    pub fn new(at: Timestamp, key: Key) -> Self {
        Self { at: at.as_millis(), key }
    }

    /// The address.
    pub fn key(&self) -> Key {
        self.key
    }

    /// When it was.
    pub fn at(&self) -> Timestamp {
        Timestamp::from_millis(self.at)
    }
}

/// What one more attempt did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It counts. Holds the number now in the window, at most the limit.
    Counted(u32),
    /// The same address is in the window already.
    Repeated,
}

/// The attempts of the last `period`, at most `limit`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Window {
    /// By time, oldest first. Expired attempts are dropped when the next one comes.
    marks: VecDeque<Mark>,
}

impl Window {
    /// Builds a window from attempts in the order in which they came.
    pub fn of(marks: impl IntoIterator<Item = Mark>) -> Self {
        let mut marks: VecDeque<Mark> = marks.into_iter().collect();
        // The clock may have stepped back between two attempts; see `clamp`.
        let mut latest = u64::MAX;
        for mark in marks.iter_mut().rev() {
            mark.at = mark.at.min(latest);
            latest = mark.at;
        }
        Self { marks }
    }

    /// Counts an attempt at `now`. A full window drops its oldest attempt.
    pub fn add(&mut self, key: Key, now: Timestamp, rule: &Rule) -> Added {
        self.clamp(now);
        self.marks.drain(..self.expired(now, rule.period));
        if rule.count == Count::Distinct && self.marks.iter().any(|mark| mark.key == key) {
            return Added::Repeated;
        }
        let limit = rule.limit.clamp(1, MAX_LIMIT);
        while self.marks.len() >= limit as usize {
            self.marks.pop_front();
        }
        self.marks.push_back(Mark::new(now, key));
        Added::Counted(u32::try_from(self.marks.len()).unwrap_or(limit))
    }

    /// Removes attempts; returns their former indices among those held, in order.
    pub fn remove(&mut self, which: impl Fn(&Mark) -> bool) -> Vec<usize> {
        let places = self.marks.iter().enumerate().filter(|(_, mark)| which(mark)).map(|(place, _)| place);
        let places = places.collect();
        self.marks.retain(|mark| !which(mark));
        places
    }

    /// Dates attempts in the future to `now`; returns how many, counted from the end, it changed.
    pub fn clamp(&mut self, now: Timestamp) -> usize {
        let future = self.marks.iter_mut().rev().take_while(|mark| mark.at > now.as_millis());
        future.map(|mark| mark.at = now.as_millis()).count()
    }

    /// Returns how many attempts count at `now`.
    pub fn count(&self, now: Timestamp, period: Duration) -> u32 {
        u32::try_from(self.marks.len() - self.expired(now, period)).unwrap_or(MAX_LIMIT)
    }

    /// Returns the time of the first attempt that counts at `now`.
    pub fn first(&self, now: Timestamp, period: Duration) -> Option<Timestamp> {
        self.marks.get(self.expired(now, period)).map(|mark| mark.at().min(now))
    }

    /// Returns the time of the last attempt that counts at `now`.
    pub fn last(&self, now: Timestamp, period: Duration) -> Option<Timestamp> {
        self.first(now, period)?;
        self.marks.back().map(|mark| mark.at().min(now))
    }

    /// Returns how long the first attempt that counts at `now` goes on counting.
    pub fn next_expiry(&self, now: Timestamp, period: Duration) -> Option<Duration> {
        self.first(now, period).map(|first| period.saturating_sub(now.since(first)))
    }

    /// The attempts held, oldest first; some may no longer count.
    pub fn marks(&self) -> impl DoubleEndedIterator<Item = Mark> + ExactSizeIterator {
        self.marks.iter().copied()
    }

    /// How many attempts are held.
    pub fn held(&self) -> usize {
        self.marks.len()
    }

    fn expired(&self, now: Timestamp, period: Duration) -> usize {
        self.marks.partition_point(|mark| now.since(mark.at()) >= period)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_domain_is_remembered() {
        let mut keys = DomainKeys::default();
        for domain in ["a.example", "a.example", "b.example", "A.example", "a.example", ""] {
            assert_eq!(keys.of(domain), Key::of_domain(domain), "{domain}");
        }
        assert_eq!(keys.of("B.example"), Key::of_domain("b.example"));
    }

    fn rule(limit: u32, period: u64, count: Count) -> Rule {
        Rule { limit, period: Duration::from_millis(period), count }
    }

    fn run(rule: &Rule, attempts: &[(u64, &str)]) -> Vec<Added> {
        let mut window = Window::default();
        let add =
            |&(at, key): &(u64, &str)| window.add(Key::of(key.as_bytes()), Timestamp::from_millis(at), rule);
        attempts.iter().map(add).collect()
    }

    #[test]
    fn what_counts_and_for_how_long() {
        use Added::{Counted, Repeated};
        let distinct = rule(3, 100, Count::Distinct);
        let attempts = rule(3, 100, Count::Attempts);
        for (rule, input, expected) in [
            // An attempt counts while it is less than the period old: at 199 the first still does, at 200 no
            // more.
            (distinct, vec![(100, "a"), (199, "b")], vec![Counted(1), Counted(2)]),
            (distinct, vec![(100, "a"), (200, "b")], vec![Counted(1), Counted(1)]),
            // A repeated address does not renew the time of the first: "a" expires at 200 all the same.
            (
                distinct,
                vec![(100, "a"), (150, "a"), (200, "a"), (299, "a")],
                vec![Counted(1), Repeated, Counted(1), Repeated],
            ),
            (attempts, vec![(100, "a"), (150, "a"), (200, "a")], vec![Counted(1), Counted(2), Counted(2)]),
            // It saturates at the limit; the oldest attempt is dropped, and counts again when repeated.
            (
                distinct,
                vec![(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "a")],
                vec![Counted(1), Counted(2), Counted(3), Counted(3), Counted(3)],
            ),
            // The clock steps back by 900: the first two are of now, and expire a period after.
            (
                attempts,
                vec![(1000, "a"), (1010, "b"), (100, "c"), (199, "d"), (200, "e")],
                vec![Counted(1), Counted(2), Counted(3), Counted(3), Counted(2)],
            ),
        ] {
            assert_eq!(run(&rule, &input), expected, "{rule:?} {input:?}");
        }
    }

    #[test]
    fn reading_does_not_change_the_window() {
        let rule = rule(10, 100, Count::Attempts);
        let mut window = Window::default();
        for at in [100, 150, 160] {
            window.add(Key::of(b"a"), Timestamp::from_millis(at), &rule);
        }
        let at = Timestamp::from_millis;
        for (now, count, first, last, expiry) in [
            (160, 3, Some(100), Some(160), Some(40)),
            (200, 2, Some(150), Some(160), Some(50)),
            (259, 1, Some(160), Some(160), Some(1)),
            (260, 0, None, None, None),
            // Before the first attempt: all are of now.
            (50, 3, Some(50), Some(50), Some(100)),
        ] {
            assert_eq!(window.count(at(now), rule.period), count, "{now}");
            assert_eq!(window.first(at(now), rule.period), first.map(at), "{now}");
            assert_eq!(window.last(at(now), rule.period), last.map(at), "{now}");
            assert_eq!(window.next_expiry(at(now), rule.period), expiry.map(Duration::from_millis), "{now}");
        }
    }

    /// The contract in the plainest words: a list of all attempts that counted.
    #[derive(Default)]
    struct Naive(Vec<(u64, u8)>);

    impl Naive {
        fn add(&mut self, key: u8, now: u64, rule: &Rule) -> Added {
            let period = u64::try_from(rule.period.as_millis()).unwrap();
            for attempt in &mut self.0 {
                attempt.0 = attempt.0.min(now);
            }
            self.0.retain(|(at, _)| now - at < period);
            if rule.count == Count::Distinct && self.0.iter().any(|(_, known)| *known == key) {
                return Added::Repeated;
            }
            self.0.push((now, key));
            let excess = self.0.len().saturating_sub(rule.limit as usize);
            self.0.drain(..excess);
            Added::Counted(u32::try_from(self.0.len()).unwrap())
        }
    }

    proptest! {
        #[test]
        fn as_the_naive_model(
            limit in 1u32..8,
            period in 1u64..60,
            distinct: bool,
            steps in prop::collection::vec((-40i64..40, 0u8..6), 0..80),
        ) {
            let rule = rule(limit, period, if distinct { Count::Distinct } else { Count::Attempts });
            let (mut window, mut naive) = (Window::default(), Naive::default());
            let mut now = 1000u64;
            for (step, key) in steps {
                now = now.saturating_add_signed(step);
                let at = Timestamp::from_millis(now);
                prop_assert_eq!(window.add(Key::of(&[key]), at, &rule), naive.add(key, now, &rule));
                prop_assert_eq!(window.count(at, rule.period) as usize, naive.0.len());
                // What the disk gives back after a restart is the same window.
                prop_assert_eq!(&Window::of(window.marks()), &window);
            }
        }

        #[test]
        fn of_any_marks_is_ordered(times in prop::collection::vec(0u64..100, 0..20)) {
            let window = Window::of(times.iter().map(|at| Mark::new(Timestamp::from_millis(*at), Key::of(b"a"))));
            prop_assert_eq!(window.held(), times.len());
            prop_assert!(window.marks().zip(window.marks().skip(1)).all(|(a, b)| a.at() <= b.at()));
        }
    }
}
