//! A session's view of its account, and its leave to ask about recipients.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::entry::Entry;
use super::state::Durability;
use super::{Attempt, Block, Ledger, Record, Relayed, Standing, Terms, Verdict};
use crate::account::Account;
use crate::clock::Timestamp;
use crate::guard::window::Key;

/// One session's view of its account. While one exists the account's entry stays in memory.
pub struct Watch {
    ledger: Ledger,
    entry: Arc<Entry>,
}

/// Leave to have a number of the account's RCPTs in flight; dropping it gives it back.
#[must_use]
pub struct Reservation {
    ledger: Ledger,
    entry: Arc<Entry>,
    in_flight: usize,
}

impl Watch {
    /// Takes over one hold of a loaded `entry`; dropping the view releases it.
    pub(super) fn new(ledger: Ledger, entry: Arc<Entry>) -> Self {
        Self { ledger, entry }
    }

    pub(super) fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    /// Returns whose view this is.
    pub fn account(&self) -> &Account {
        &self.entry.account
    }

    /// Whether the account is open or blocked now. Takes no lock.
    pub fn standing(&self) -> Standing {
        self.entry.standing()
    }

    /// Waits until the account is blocked. Cancel-safe.
    pub async fn blocked(&self) {
        loop {
            // Enabled before the check, so that a block between check and wait is not missed.
            let mut shown = std::pin::pin!(self.entry.shown.notified());
            shown.as_mut().enable();
            if self.standing() == Standing::Blocked {
                return;
            }
            shown.await;
        }
    }

    /// Returns the block, if any.
    pub fn block(&self) -> Option<Block> {
        self.entry.block()
    }

    /// Returns leave for no RCPT, to be extended.
    pub fn no_leave(&self) -> Reservation {
        Reservation { ledger: self.ledger.clone(), entry: self.entry.clone(), in_flight: 0 }
    }

    /// Extends `leave` by up to `wanted` (at least 1) RCPTs, waiting until at least one is free; returns by how many. RCPTs in
    /// flight over all sessions plus the count never exceed the limit; an account that is observed or exempt always gets all.
    /// `None` as soon as the account is blocked. Cancel-safe: nothing is granted without being added to `leave`.
    pub async fn reserve(&self, leave: &mut Reservation, wanted: usize, now: Timestamp) -> Option<usize> {
        let (since, wanted) = (Instant::now(), wanted.max(1));
        // Registered before the attempt, like the wait itself.
        let _waiting = Waiting::new(&self.entry.waiting);
        loop {
            // Enabled before the attempt, so that nothing freed between attempt and wait is missed.
            let mut freed = std::pin::pin!(self.entry.freed.notified());
            freed.as_mut().enable();
            let now = now.after(since.elapsed());
            let granted = self.try_extend(leave, wanted, now)?;
            if granted > 0 {
                // There may be room for the next in line: only one is woken for all that was given back.
                if granted >= wanted && self.entry.waiting.load(Ordering::Acquire) > 1 {
                    self.entry.freed.notify_one();
                }
                return Some(granted);
            }
            let expiry = {
                let policy = self.ledger.shared().policy.load();
                self.entry.lock().next_expiry(now, &policy)
            };
            match expiry {
                Some(expiry) => tokio::select! {
                    () = freed => {}
                    () = sleep(expiry) => {}
                },
                None => freed.await,
            }
        }
    }

    /// Like [`Self::reserve`], without waiting: it may grant 0.
    pub fn try_extend(&self, leave: &mut Reservation, wanted: usize, now: Timestamp) -> Option<usize> {
        if self.standing() == Standing::Blocked {
            return None;
        }
        let policy = self.ledger.shared().policy.load();
        let granted = self.entry.lock().grant(wanted, now, &policy);
        leave.in_flight += granted;
        Some(granted)
    }

    /// Whether the account's mail is neither parked nor delayed, and would not be if so many more recipients were invalid.
    pub fn stays_open(&self, invalid: usize, now: Timestamp) -> bool {
        let policy = self.ledger.shared().policy.load();
        self.standing() == Standing::Open
            && self.probation(now).is_none()
            && self.entry.lock().stays_open(invalid, now, &policy)
    }

    /// Counts an invalid recipient; returns when that is durable, or cannot be written for now (`Ledger::trouble` says so). If
    /// the caller drops this future the attempt is counted, but the verdict is lost; a block is in [`Ledger::untold`] all the
    /// same.
    pub async fn count(&self, attempt: Attempt<'_>) -> Verdict {
        let shared = self.ledger.shared();
        shared.tell_time(attempt.now);
        if let Some(domain) = attempt.domain
            && !shared.refused(&self.entry.account, domain, attempt.now)
        {
            self.entry.lock().uncount(domain, 1, attempt.now);
            return Verdict::CommonCause;
        }
        let (verdict, waiting) = {
            let policy = shared.policy.load();
            let mut state = self.entry.lock();
            let moment = shared.moment(attempt.now);
            let (verdict, durability) = state.attempt(&attempt, moment, &policy);
            if matches!(verdict, Verdict::Crossed(_)) && moment.at > attempt.now {
                // The time at which a block was made identifies it, also while the clock is behind.
                shared.raise_floor(moment.at.after(Duration::from_millis(1)));
            }
            if matches!(verdict, Verdict::Alarmed(_) | Verdict::AlarmedAgain(_)) {
                self.entry.show_probation(&state);
            }
            let awaited = durability == Durability::Awaited;
            (verdict, awaited.then(|| shared.queue.submit(&self.entry, &mut state)))
        };
        if let Some(waiting) = waiting {
            // If it could not be written, state and verdict hold in memory.
            let _ = shared.written(&self.entry, waiting).await;
        }
        if matches!(verdict, Verdict::Crossed(_) | Verdict::Alarmed(_)) {
            shared.crossed.notify_one();
        }
        verdict
    }

    /// Notes a recipient that the upstream accepted: in memory, written with the next attempt.
    pub fn accepted(&self, address: &str, domain: Option<Key>, now: Timestamp) {
        let shared = self.ledger.shared();
        let address = shared.hash(address);
        if let Some(domain) = domain {
            shared.accepted(domain, now);
        }
        let policy = shared.policy.load();
        self.entry.lock().valid(address, domain, now, &policy);
    }

    /// Notes a recipient that the upstream permanently refused although it may exist. It counts against nobody, but its domain
    /// may turn out to refuse everybody.
    pub fn refused(&self, domain: &str, now: Timestamp) {
        self.ledger.shared().refused(&self.entry.account, domain, now);
    }

    /// Returns until when the account's mail is delayed; `None` if it is not on probation. Takes no lock then. That is at most
    /// the delay from now: an alarm may have come while the clock was ahead.
    pub fn probation(&self, now: Timestamp) -> Option<Timestamp> {
        let until = self.entry.probation(now)?;
        Some(until.min(now.after(self.terms().delay)))
    }

    /// Returns the policy as it applies to the account.
    pub fn terms(&self) -> Terms {
        self.entry.lock().terms(&self.ledger.shared().policy.load())
    }

    /// Notes a message that the upstream took: in memory, written with the next attempt.
    pub fn relayed(&self, message: Relayed) {
        self.entry.lock().relayed(message);
    }

    /// Returns what is known of the account.
    pub fn record(&self, now: Timestamp) -> Record {
        let mut state = self.entry.lock();
        let terms = state.terms(&self.ledger.shared().policy.load());
        state.record(now, &terms)
    }
}

/// Counts one waiter for leave while it exists.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::AcqRel);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ledger.shared().release(&self.entry);
    }
}

impl Reservation {
    /// Gives back leave for `n` RCPTs, at most what there is. Their answers have come and, if they count, were counted.
    pub fn release_some(&mut self, n: usize) {
        let n = n.min(self.in_flight);
        if n == 0 {
            return;
        }
        self.in_flight -= n;
        let settled = {
            let mut state = self.entry.lock();
            state.in_flight -= n;
            state.in_flight == 0 && state.holders == 0
        };
        // Nearly always nobody waits; a waiter registers before it takes that lock. One waiter is woken, takes what it wants,
        // and wakes the next if it got all of it; a waiter that is dropped meanwhile passes the wake-up on.
        if self.entry.waiting.load(Ordering::Acquire) > 0 {
            self.entry.freed.notify_one();
        }
        if settled {
            self.ledger.shared().settle(&self.entry);
        }
    }

    /// Gives all leave back.
    pub fn release(&mut self) {
        self.release_some(self.in_flight);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.release();
    }
}
