//! The sequential test: is this account's list that of an honest sender, or a harvested one?
//!
//! Pure, time is an argument. Each probed recipient is evidence: `s` rises by ln(t1/t0) with one that does not exist, and
//! falls by ln((1-t0)/(1-t1)) with one that does, never below 0; at the threshold it alarms, and starts from 0 again. This is
//! Page's CUSUM form of Wald's sequential probability ratio test; Jung, Paxson, Berger and Balakrishnan (IEEE Symposium on
//! Security and Privacy 2004) find port scans by it. `docs/detection.md` says what it is good for.
//!
//! An address is evidence once, as long as it is remembered: mail programs repeat what was refused, and people write to the
//! same people. Memory is bounded: [`REMEMBERED`] addresses of each kind are, and [`DOMAINS`] domains.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::window::Key;
use crate::clock::Timestamp;

/// So many addresses that exist are remembered.
pub const REMEMBERED: usize = 256;
/// So many that do not exist, and moved `s`: they are written to the disk.
pub const RAISED: usize = 64;
/// Of so many domains it is remembered that they accepted a recipient.
pub const DOMAINS: usize = 64;
/// Of a domain that accepted none of an account's recipients within the period so many invalid ones move `s`: a company that
/// has closed is one fact, however many of its addresses stand in a list.
pub const OF_A_DEAD_DOMAIN: usize = 3;
/// So long after the last invalid recipient that moved it `s` starts from 0.
pub const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

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

    /// How much `s` rises with an invalid recipient.
    pub fn rise(&self) -> f64 {
        self.rise
    }

    /// How much it falls with a valid one.
    pub fn fall(&self) -> f64 {
        self.fall
    }
}

/// What an invalid recipient did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// Nothing: the address is known, or its domain is.
    Known,
    /// `s` rose.
    Raised,
    /// `s` reached the threshold, and starts from 0.
    Alarm,
}

/// What is kept over a restart.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    s: f64,
    raised: Vec<Raised>,
}

/// The test of one account.
#[derive(Debug, Clone, Default)]
pub struct Detector {
    s: f64,
    /// The last invalid recipients that moved `s`, the oldest first.
    raised: VecDeque<Raised>,
    /// Hashes of the last valid ones: a ring once it is full.
    valid: Vec<u64>,
    oldest_valid: usize,
    /// Which domains accepted a recipient, and when last.
    accepted: Vec<(Key, Timestamp)>,
}

/// An invalid recipient that moved `s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Raised {
    /// Milliseconds since the Unix epoch.
    at: u64,
    address: Key,
    /// `None` of a broken path.
    domain: Option<Key>,
    /// An alarm came since.
    spent: bool,
}

impl Raised {
    fn at(&self) -> Timestamp {
        Timestamp::from_millis(self.at)
    }
}

impl Detector {
    /// As it was when this was kept.
    pub fn of(kept: Kept) -> Self {
        Self { s: kept.s.max(0.0), raised: kept.raised.into(), ..Self::default() }
    }

    /// What a restart may not lose: all but the valid recipients.
    pub fn kept(&self) -> Kept {
        Kept { s: self.s, raised: self.raised.iter().copied().collect() }
    }

    /// Puts before this what was kept of the time before it. `s` may come out too high, never too low.
    pub fn prepend(&mut self, kept: Kept) {
        self.s += kept.s.max(0.0);
        for raised in kept.raised.into_iter().rev().take(RAISED.saturating_sub(self.raised.len())) {
            self.raised.push_front(raised);
        }
    }

    /// How much evidence there is that the account is stolen.
    pub fn s(&self) -> f64 {
        self.s
    }

    /// One more recipient that does not exist. `period` is how long a domain's acceptance holds.
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
        if self.raised.iter().any(|raised| raised.address == address)
            || domain.is_some_and(|domain| self.is_known_dead(domain, now, period))
        {
            return Evidence::Known;
        }
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

    /// One more recipient that exists. `address` is a hash of it: equal for equal addresses, as long as the process runs.
    pub fn valid(&mut self, address: u64, domain: Option<Key>, now: Timestamp, test: &Test) {
        if let Some(domain) = domain {
            self.accept(domain, now);
        }
        if self.valid.contains(&address) {
            return;
        }
        if self.valid.len() < REMEMBERED {
            self.valid.push(address);
        } else {
            self.valid[self.oldest_valid] = address;
            self.oldest_valid = (self.oldest_valid + 1) % REMEMBERED;
        }
        self.s = (self.s - test.fall).max(0.0);
    }

    /// These addresses were no evidence after all: what they moved is taken back. Says whether that was anything.
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

    /// Whether there is no evidence of any kind.
    pub fn is_new(&self) -> bool {
        self.raised.is_empty() && self.valid.is_empty() && self.accepted.is_empty()
    }

    /// Whether the last invalid recipient that moved `s` is recent enough for it to count.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        self.raised.back().is_some_and(|last| now.since(last.at()) < KEPT)
    }

    /// Forgets what memory alone knows.
    pub fn forget_valid(&mut self) {
        (self.valid, self.oldest_valid, self.accepted) = (Vec::new(), 0, Vec::new());
    }

    /// How many octets memory alone knows.
    pub fn unkept_octets(&self) -> usize {
        size_of_val(self.valid.as_slice()) + size_of_val(self.accepted.as_slice())
    }

    /// Whether so many invalid recipients of the domain moved `s` that no more do.
    fn is_known_dead(&self, domain: Key, now: Timestamp, period: Duration) -> bool {
        let within = |at: Timestamp| now.since(at) < period;
        let moved = self.raised.iter().filter(|raised| raised.domain == Some(domain) && within(raised.at()));
        moved.count() >= OF_A_DEAD_DOMAIN
            && !self.accepted.iter().any(|(accepted, at)| *accepted == domain && within(*at))
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

    /// Takes what lies in the future for of now: the clock has stepped back.
    fn clamp(&mut self, now: Timestamp) {
        for raised in &mut self.raised {
            raised.at = raised.at.min(now.as_millis());
        }
        for (_, at) in &mut self.accepted {
            *at = (*at).min(now);
        }
    }
}
