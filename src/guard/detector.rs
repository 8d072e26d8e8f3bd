//! The sequential test: does an account's recipient list look honest or harvested?
//!
//! Pure, time is an argument. Each probed recipient is evidence: `s` rises by ln(t1/t0) with one that does not exist, and falls
//! by ln((1-t0)/(1-t1)) with one that does, never below 0; at the threshold it alarms, and starts from 0 again. This is Page's
//! CUSUM form of Wald's sequential probability ratio test; Jung, Paxson, Berger and Balakrishnan (IEEE Symposium on Security
//! and Privacy 2004) use it to find port scans. `docs/detection.md` says what it is good for.
//!
//! An address is evidence once, as long as it is remembered: mail programs repeat refused recipients, and people write to the
//! same people again. Time is evidence too: every [`FORGIVEN`] lowers `s` by as much as one invalid recipient raises it, so
//! that an honest sender's typing errors do not add up over weeks. Memory is bounded by [`REMEMBERED`] valid addresses,
//! [`RAISED`] invalid ones and [`DOMAINS`] domains.

use std::collections::VecDeque;
use std::time::Duration;

use memchr::memchr_iter;
use serde::{Deserialize, Serialize};

use super::window::Key;
use crate::clock::Timestamp;

/// How many addresses that exist are remembered.
pub const REMEMBERED: usize = 256;
/// How many addresses that do not exist and moved `s` are remembered. They are written to the disk.
pub const RAISED: usize = 64;
/// How many domains that accepted a recipient are remembered.
pub const DOMAINS: usize = 64;
/// How many invalid recipients move `s` at a domain that accepted none of the account's recipients within the period: a company
/// that has closed is one fact, however many of its addresses are in a list.
pub const OF_A_DEAD_DOMAIN: usize = 3;
/// How long after the last invalid recipient that moved `s` everything is forgotten.
pub const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long it takes to forgive one invalid recipient. Someone who only writes to addresses already known has nothing else to
/// set against typing errors.
pub const FORGIVEN: Duration = Duration::from_secs(4 * 60 * 60);

/// The default of `[detection] usual_share`, t0.
pub const USUAL_SHARE: f64 = 0.05;
/// The default of `[detection] thief_share`, t1.
pub const THIEF_SHARE: f64 = 0.30;
/// The default of `[detection] threshold`, h.
pub const THRESHOLD: f64 = 12.0;

/// `[detection]`: the two hypotheses, and how much evidence is enough.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Test {
    rise: f64,
    fall: f64,
    threshold: f64,
}

impl Test {
    /// `usual_share` (t0) and `thief_share` (t1) are the shares of invalid recipients in honest mail and in a harvested list,
    /// 0 < t0 < t1 < 1; `threshold` (h) is more than 0.
    pub fn new(usual_share: f64, thief_share: f64, threshold: f64) -> Self {
        Self {
            rise: (thief_share / usual_share).ln(),
            fall: ((1.0 - usual_share) / (1.0 - thief_share)).ln(),
            threshold,
        }
    }

    /// How much an invalid recipient raises `s`.
    pub fn rise(&self) -> f64 {
        self.rise
    }

    /// How much a valid recipient lowers `s`.
    pub fn fall(&self) -> f64 {
        self.fall
    }
}

/// The effect of an invalid recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// None: the address is known, or its domain is known to be dead.
    Known,
    /// `s` rose.
    Raised,
    /// `s` reached the threshold and restarts from 0.
    Alarm,
}

/// What survives a restart.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    s: f64,
    raised: Vec<Raised>,
}

/// The test of one account.
#[derive(Debug, Clone, Default)]
pub struct Detector {
    s: f64,
    /// The last invalid recipients that moved `s`, oldest first.
    raised: VecDeque<Raised>,
    /// Hashes of the last valid recipients: a ring once it is full.
    valid: Vec<u64>,
    /// An octet of each of these, by which they are found faster.
    valid_octets: Vec<u8>,
    oldest_valid: usize,
    /// The domains that accepted a recipient, and when they last did.
    accepted: Vec<(Key, Timestamp)>,
}

/// An invalid recipient that moved `s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Raised {
    /// Milliseconds since the Unix epoch.
    at: u64,
    address: Key,
    /// `None` for a broken path.
    domain: Option<Key>,
    /// Whether an alarm came since.
    spent: bool,
}

impl Raised {
    fn at(&self) -> Timestamp {
        Timestamp::from_millis(self.at)
    }
}

impl Detector {
    /// Restores the test from `kept`.
    pub fn of(kept: Kept) -> Self {
        Self { s: kept.s.max(0.0), raised: kept.raised.into(), ..Self::default() }
    }

    /// Returns what must survive a restart: everything but the valid recipients.
    pub fn kept(&self) -> Kept {
        Kept { s: self.s, raised: self.raised.iter().copied().collect() }
    }

    /// Prepends what was kept of an earlier time. `s` may come out too high, never too low.
    pub fn prepend(&mut self, kept: Kept) {
        self.s += kept.s.max(0.0);
        for raised in kept.raised.into_iter().rev().take(RAISED.saturating_sub(self.raised.len())) {
            self.raised.push_front(raised);
        }
    }

    /// The evidence that the account is stolen, as of the last recipient that moved it.
    pub fn s(&self) -> f64 {
        self.s
    }

    /// Whether so many more invalid recipients could raise an alarm.
    pub fn may_alarm(&self, invalid: usize, test: &Test) -> bool {
        self.s + invalid as f64 * test.rise >= test.threshold
    }

    /// Notes a recipient that does not exist. `period` is how long a domain's acceptance holds.
    pub fn invalid(
        &mut self,
        address: Key,
        domain: Option<Key>,
        now: Timestamp,
        period: Duration,
        test: &Test,
    ) -> Evidence {
        self.clamp(now);
        if !self.is_fresh(now) {
            self.s = 0.0;
            self.raised.clear();
        }
        let known = self.raised.iter().any(|raised| raised.address == address)
            || domain.is_some_and(|domain| self.is_known_dead(domain, now, period));
        if known {
            return Evidence::Known;
        }
        self.forgive(now, test);
        if self.raised.len() >= RAISED {
            self.raised.pop_front();
        }
        self.raised.push_back(Raised { at: now.as_millis(), address, domain, spent: false });
        self.s += test.rise;
        if self.s < test.threshold {
            return Evidence::Raised;
        }
        self.s = 0.0;
        self.raised.iter_mut().for_each(|raised| raised.spent = true);
        Evidence::Alarm
    }

    /// Notes a recipient that exists. `address` is a hash of it, stable while the process runs.
    pub fn valid(&mut self, address: u64, domain: Option<Key>, now: Timestamp, test: &Test) {
        if let Some(domain) = domain {
            self.accept(domain, now);
        }
        let octet = address.to_le_bytes()[0];
        if memchr_iter(octet, &self.valid_octets).any(|at| self.valid[at] == address) {
            return;
        }
        if self.valid.len() < REMEMBERED {
            self.valid.push(address);
            self.valid_octets.push(octet);
        } else {
            self.valid[self.oldest_valid] = address;
            self.valid_octets[self.oldest_valid] = octet;
            self.oldest_valid = (self.oldest_valid + 1) % REMEMBERED;
        }
        self.s = (self.s - test.fall).max(0.0);
    }

    /// Undoes what these addresses moved, since they were no evidence after all. Returns whether they had moved anything.
    pub fn take_back(&mut self, addresses: &[Key], test: &Test) -> bool {
        let before = self.raised.len();
        let mut live = 0u32;
        self.raised.retain(|raised| {
            let taken = addresses.contains(&raised.address);
            live += u32::from(taken && !raised.spent);
            !taken
        });
        self.s = (self.s - f64::from(live) * test.rise).max(0.0);
        self.raised.len() != before
    }

    /// Whether there is no evidence at all.
    pub fn is_new(&self) -> bool {
        self.raised.is_empty() && self.valid.is_empty() && self.accepted.is_empty()
    }

    /// Whether the last invalid recipient that moved `s` is recent enough for it to count.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        self.raised.back().is_some_and(|last| now.since(last.at()) < KEPT)
    }

    /// Forgets what only memory knows.
    pub fn forget_valid(&mut self) {
        (self.valid, self.valid_octets, self.oldest_valid) = (Vec::new(), Vec::new(), 0);
        self.accepted = Vec::new();
    }

    /// How many octets only memory knows.
    pub fn unkept_octets(&self) -> usize {
        size_of_val(self.valid.as_slice()) + self.valid_octets.len() + size_of_val(self.accepted.as_slice())
    }

    /// Whether [`OF_A_DEAD_DOMAIN`] invalid recipients of the domain have moved `s`, so that no more do.
    fn is_known_dead(&self, domain: Key, now: Timestamp, period: Duration) -> bool {
        let within = |at: Timestamp| now.since(at) < period;
        let moved = self.raised.iter().filter(|raised| raised.domain == Some(domain) && within(raised.at()));
        moved.count() >= OF_A_DEAD_DOMAIN
            && !self.accepted.iter().any(|(accepted, at)| *accepted == domain && within(*at))
    }

    /// Lowers `s` for the time since the last invalid recipient that moved it. Valid recipients since then have lowered it
    /// already; the order makes no difference.
    fn forgive(&mut self, now: Timestamp, test: &Test) {
        if let Some(last) = self.raised.back() {
            let forgiven = now.since(last.at()).as_secs_f64() / FORGIVEN.as_secs_f64();
            self.s = (self.s - forgiven * test.rise).max(0.0);
        }
    }

    fn accept(&mut self, domain: Key, now: Timestamp) {
        if let Some((_, at)) = self.accepted.iter_mut().find(|(accepted, _)| *accepted == domain) {
            *at = now;
        } else if self.accepted.len() < DOMAINS {
            self.accepted.push((domain, now));
        } else if let Some(oldest) = self.accepted.iter_mut().min_by_key(|(_, at)| *at) {
            *oldest = (domain, now);
        }
    }

    /// Dates entries in the future to `now`: the clock has stepped back.
    fn clamp(&mut self, now: Timestamp) {
        for raised in &mut self.raised {
            raised.at = raised.at.min(now.as_millis());
        }
        for (_, at) in &mut self.accepted {
            *at = (*at).min(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PERIOD: Duration = Duration::from_secs(3_600);
    const MINUTE: u64 = 60_000;

    fn test() -> Test {
        Test::new(USUAL_SHARE, THIEF_SHARE, THRESHOLD)
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + millis)
    }

    fn key(text: &str) -> Key {
        Key::of(text.as_bytes())
    }

    /// One recipient: `dead 7@a.example`, or `living 7@a.example`; a broken path has no domain.
    fn feed(detector: &mut Detector, what: &str, now: Timestamp) -> Option<Evidence> {
        let (kind, address) = what.split_once(' ').unwrap();
        let domain = address.split_once('@').map(|(_, domain)| Key::of_domain(domain));
        if kind == "dead" {
            return Some(detector.invalid(key(address), domain, now, PERIOD, &test()));
        }
        detector.valid(hash(address), domain, now, &test());
        None
    }

    fn hash(address: &str) -> u64 {
        address.bytes().fold(7, |hash: u64, octet| hash.wrapping_mul(31) + u64::from(octet))
    }

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found}, not {expected}");
    }

    #[test]
    fn the_steps_and_the_alarm() {
        let (rise, fall) = (6f64.ln(), (0.95f64 / 0.7).ln());
        let mut detector = Detector::default();
        feed(&mut detector, "living 1@a.example", at(0));
        near(detector.s(), 0.0); // never below
        feed(&mut detector, "dead 1@b.example", at(0));
        feed(&mut detector, "living 2@a.example", at(0));
        near(detector.s(), rise - fall);
        // Seven in a row from zero are enough: six are 10.75, seven 12.54.
        let mut detector = Detector::default();
        let seven: Vec<_> =
            (0..7).map(|n| feed(&mut detector, &format!("dead a@{n}.example"), at(n)).unwrap()).collect();
        assert_eq!(seven[..6], [Evidence::Raised; 6]);
        assert_eq!((seven[6], detector.s()), (Evidence::Alarm, 0.0));
        let evidence = Detector { s: 3.0 * rise, ..Detector::default() };
        assert!(!evidence.may_alarm(3, &test()) && evidence.may_alarm(4, &test()));
        // It starts from zero, and knows what it knew.
        assert_eq!(feed(&mut detector, "dead a@0.example", at(10)), Some(Evidence::Known));
        assert_eq!(feed(&mut detector, "dead b@0.example", at(10)), Some(Evidence::Raised));
        near(detector.s(), rise);
        // Broken paths have no domain to be dead.
        let mut detector = Detector::default();
        let broken = (0..7).map(|n| feed(&mut detector, &format!("dead {n}@"), at(n)).unwrap());
        assert_eq!(broken.last(), Some(Evidence::Known), "one empty domain");
        let mut detector = Detector::default();
        let broken = (0..7).map(|n| feed(&mut detector, &format!("dead {n}"), at(n)).unwrap());
        assert_eq!(broken.last(), Some(Evidence::Alarm));
    }

    #[test]
    fn an_address_is_evidence_once() {
        let mut detector = Detector::default();
        for n in 0..100 {
            // Each hour, for days: long after the window has forgotten it.
            feed(&mut detector, "dead 1@a.example", at(n * 60 * MINUTE));
        }
        near(detector.s(), test().rise());
        feed(&mut detector, "living 1@b.example", at(6_000 * MINUTE));
        let after_one = detector.s();
        for n in 0..100 {
            feed(&mut detector, "living 1@b.example", at(6_000 * MINUTE + n));
        }
        near(detector.s(), after_one);
        // After that many others it is forgotten.
        for n in 0..REMEMBERED {
            feed(&mut detector, &format!("living other-{n}@b.example"), at(6_000 * MINUTE));
        }
        feed(&mut detector, "dead 2@c.example", at(6_001 * MINUTE));
        let before = detector.s();
        feed(&mut detector, "living 1@b.example", at(6_001 * MINUTE));
        near(detector.s(), before - test().fall());
    }

    #[test]
    fn a_dead_domain_is_one_fact() {
        let mut detector = Detector::default();
        let run = |detector: &mut Detector, from: u64, now: u64| -> Vec<Evidence> {
            (from..from + 5)
                .map(|n| feed(detector, &format!("dead {n}@Dead.example"), at(now)).unwrap())
                .collect()
        };
        use Evidence::{Alarm, Known, Raised};
        assert_eq!(run(&mut detector, 0, 0), [Raised, Raised, Raised, Known, Known]);
        // It lives after all: there is a share to speak of.
        feed(&mut detector, "living 1@dead.EXAMPLE", at(1));
        assert_eq!(run(&mut detector, 10, 1), [Raised, Raised, Raised, Alarm, Raised]);
        // Its acceptance is a period old, and so are those that moved s.
        assert_eq!(run(&mut detector, 20, 60 * MINUTE + 1), [Raised, Raised, Raised, Known, Known]);
        assert_eq!(run(&mut detector, 30, 61 * MINUTE), [Known; 5]);
    }

    #[test]
    fn what_is_taken_back() {
        let mut detector = Detector::default();
        for n in 0..6 {
            feed(&mut detector, &format!("dead a@{n}.example"), at(0));
        }
        assert!(detector.take_back(&[key("a@1.example"), key("a@2.example"), key("nobody")], &test()));
        near(detector.s(), 4.0 * test().rise());
        assert!(!detector.take_back(&[key("a@1.example")], &test()), "once");
        for n in 6..9 {
            feed(&mut detector, &format!("dead a@{n}.example"), at(0));
        }
        assert_eq!(detector.s(), 0.0, "an alarm");
        feed(&mut detector, "dead a@9.example", at(0));
        // What an alarm has spent does not speak for the account any more.
        detector.take_back(&[key("a@8.example"), key("a@7.example")], &test());
        near(detector.s(), test().rise());
    }

    #[test]
    fn old_evidence_is_none() {
        let mut detector = Detector::default();
        for n in 0..6 {
            feed(&mut detector, &format!("dead a@{n}.example"), at(0));
        }
        let week = 7 * 24 * 60 * MINUTE;
        assert!(detector.is_fresh(at(week - 1)) && !detector.is_fresh(at(week)));
        feed(&mut detector, "dead a@6.example", at(week));
        near(detector.s(), test().rise());
        // A clock that was years ahead: its evidence is of now, not for ever.
        let mut detector = Detector::default();
        feed(&mut detector, "dead a@0.example", at(1_000 * week));
        feed(&mut detector, "dead a@1.example", at(0));
        assert!(!detector.is_fresh(at(week)));
    }

    #[test]
    fn time_forgives() {
        // One mistyped address in each four hours, among mail to the same twenty: for a year.
        let mut detector = Detector::default();
        let rare = 4 * 60 * MINUTE;
        for n in 0..2_190 {
            for friend in 0..20 {
                feed(&mut detector, &format!("living {friend}@friends.example"), at(n * rare));
            }
            let evidence = feed(&mut detector, &format!("dead {n}@{n}.example"), at(n * rare));
            assert_eq!(evidence, Some(Evidence::Raised));
            near(detector.s(), test().rise());
        }
        // Half of it in half the time, and no more than there is.
        feed(&mut detector, "dead next@b.example", at(2_189 * rare + rare / 2));
        near(detector.s(), 1.5 * test().rise());
        feed(&mut detector, "dead late@c.example", at(2_300 * rare));
        near(detector.s(), test().rise());
        // Twice an hour is a thief's pace, however long it takes.
        let mut detector = Detector::default();
        let pace = (0..20)
            .map(|n| feed(&mut detector, &format!("dead {n}@{n}.example"), at(n * 30 * MINUTE)).unwrap());
        assert_eq!(pace.filter(|evidence| *evidence == Evidence::Alarm).count(), 2);
        // A clock that steps back forgives nothing.
        let mut detector = Detector::default();
        feed(&mut detector, "dead 0@0.example", at(100 * rare));
        feed(&mut detector, "dead 1@1.example", at(0));
        near(detector.s(), 2.0 * test().rise());
    }

    fn recipients() -> impl Strategy<Value = Vec<(bool, u16, u8, u32)>> {
        let recipient = (any::<bool>(), 0u16..600, 0u8..90, 0u32..600_000);
        prop::collection::vec(recipient, 0..900)
    }

    fn name((dead, address, domain, _): (bool, u16, u8, u32)) -> String {
        format!("{} {address}@{domain}.example", if dead { "dead" } else { "living" })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn never_negative_and_bounded(recipients in recipients()) {
            let mut detector = Detector::default();
            let (mut now, mut kept) = (0, Kept::default());
            for recipient in recipients {
                now += u64::from(recipient.3);
                let evidence = feed(&mut detector, &name(recipient), at(now));
                prop_assert!((0.0..12.0).contains(&detector.s()));
                prop_assert!(detector.raised.len() <= RAISED);
                prop_assert!(detector.unkept_octets() <= REMEMBERED * 9 + DOMAINS * 16);
                // The disk has it as of the last that moved it upwards: too high, never too low.
                if evidence.is_some_and(|evidence| evidence != Evidence::Known) {
                    kept = detector.kept();
                }
                prop_assert!(Detector::of(kept.clone()).s() >= detector.s());
            }
        }

        /// With invalid recipients only, a restart changes nothing, whenever it comes.
        #[test]
        fn a_restart_is_none(recipients in recipients(), restarts in prop::collection::vec(any::<bool>(), 900)) {
            let (mut steady, mut restarted) = (Detector::default(), Detector::default());
            let mut now = 0;
            for (recipient, restart) in recipients.into_iter().zip(restarts) {
                now += u64::from(recipient.3);
                if restart {
                    restarted = Detector::of(restarted.kept());
                }
                let recipient = name((true, recipient.1, recipient.2, recipient.3));
                let [a, b] = [&mut steady, &mut restarted].map(|detector| feed(detector, &recipient, at(now)));
                prop_assert_eq!(a, b);
                prop_assert_eq!(steady.s().to_bits(), restarted.s().to_bits());
            }
        }

        /// Where nothing is forgotten, and no domain is dead, it is the formula and nothing else.
        #[test]
        fn as_the_formula(dead in prop::collection::vec(any::<bool>(), 0..60)) {
            let (mut detector, mut s) = (Detector::default(), 0f64);
            for (n, dead) in dead.into_iter().enumerate() {
                let evidence = feed(&mut detector, &name((dead, n as u16, 0, 0)).replace("@0.", &format!("@{n}.")), at(0));
                s = (s + if dead { (0.30f64 / 0.05).ln() } else { -(0.95f64 / 0.70).ln() }).max(0.0);
                prop_assert_eq!(evidence == Some(Evidence::Alarm), s >= 12.0);
                if s >= 12.0 {
                    s = 0.0;
                }
                prop_assert!((detector.s() - s).abs() < 1e-9);
            }
        }
    }
}
