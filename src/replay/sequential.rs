//! The sequential test of one account, as `guard` has it: the share of invalid recipients among all that it asks for.
//!
//! `s = max(0, s + (invalid ? ln(t1/t0) : ln((1-t1)/(1-t0))))`, alarm at `s >= h`, which sets s to 0. Each valid address once, of the
//! last [`ADDRESSES`]; of a domain that accepted nobody within the period at most [`DEAD_DOMAIN`] invalid ones.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::guard::window::Key;

/// So many valid addresses are remembered.
const ADDRESSES: usize = 256;
/// So many domains are.
const DOMAINS: usize = 64;
/// So many invalid recipients of a domain that accepts nobody move s within a period.
const DEAD_DOMAIN: usize = 3;

/// t0, t1 and h.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Terms {
    up: f64,
    down: f64,
    threshold: f64,
}

impl Terms {
    pub(super) fn new(usual_share: f64, thief_share: f64, threshold: f64) -> Self {
        let down = ((1.0 - thief_share) / (1.0 - usual_share)).ln();
        Self { up: (thief_share / usual_share).ln(), down, threshold }
    }

    /// The share of invalid recipients at which s stays as it is: below it speaks for an honest sender, above it for a thief.
    pub(super) fn neutral(&self) -> f64 {
        -self.down / (self.up - self.down)
    }
}

/// What one account has on it.
#[derive(Debug, Default)]
pub(super) struct Sequential {
    s: f64,
    valid: VecDeque<Key>,
    domains: VecDeque<Domain>,
}

#[derive(Debug)]
struct Domain {
    key: Key,
    accepted: Option<Timestamp>,
    moved: [Option<Timestamp>; DEAD_DOMAIN],
}

impl Sequential {
    pub(super) fn valid(&mut self, address: Key, domain: Key, now: Timestamp, terms: &Terms) {
        self.domain(domain).accepted = Some(now);
        if self.valid.contains(&address) {
            return;
        }
        if self.valid.len() >= ADDRESSES {
            self.valid.pop_front();
        }
        self.valid.push_back(address);
        self.s = (self.s + terms.down).max(0.0);
    }

    /// Says whether it alarms.
    pub(super) fn invalid(&mut self, domain: Key, now: Timestamp, period: Duration, terms: &Terms) -> bool {
        let within = |at: Option<Timestamp>| at.is_some_and(|at| now.since(at) < period);
        let known = self.domain(domain);
        if !within(known.accepted) {
            let Some(free) = known.moved.iter_mut().find(|at| !within(**at)) else { return false };
            *free = Some(now);
        }
        self.s += terms.up;
        let alarm = self.s >= terms.threshold;
        if alarm {
            self.s = 0.0;
        }
        alarm
    }

    fn domain(&mut self, key: Key) -> &mut Domain {
        let place = self.domains.iter().position(|domain| domain.key == key).unwrap_or_else(|| {
            if self.domains.len() >= DOMAINS {
                self.domains.pop_front();
            }
            self.domains.push_back(Domain { key, accepted: None, moved: [None; DEAD_DOMAIN] });
            self.domains.len() - 1
        });
        &mut self.domains[place]
    }
}
