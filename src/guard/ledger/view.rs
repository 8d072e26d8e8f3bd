//! A session's view of its account, and its leave to ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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

/// Leave to have so many RCPTs of the account in flight; dropping it gives them back.
#[must_use]
pub struct Reservation {
    ledger: Ledger,
    entry: Arc<Entry>,
    in_flight: usize,
}

impl Watch {
    /// Of an entry that this holds from now on, and that is loaded.
    pub(super) fn new(ledger: Ledger, entry: Arc<Entry>) -> Self {
        Self { ledger, entry }
    }

    pub(super) fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    /// Whose.
    pub fn account(&self) -> &Account {
        &self.entry.account
    }

    /// Open or blocked, as of now. Takes no lock.
    pub fn standing(&self) -> Standing {
        self.entry.standing()
    }

    /// Waits until the account is blocked. May be dropped at any time.
    pub async fn blocked(&self) {
        loop {
            // Before the look, so that no block is missed that comes between it and the wait.
            let mut shown = std::pin::pin!(self.entry.shown.notified());
            shown.as_mut().enable();
            if self.standing() == Standing::Blocked {
                return;
            }
            shown.await;
        }
    }

    /// The block, if any.
    pub fn block(&self) -> Option<Block> {
        self.entry.block()
    }

    /// Leave for no RCPT, to be extended.
    pub fn no_leave(&self) -> Reservation {
        Reservation { ledger: self.ledger.clone(), entry: self.entry.clone(), in_flight: 0 }
    }

    /// Extends `leave` by up to `wanted` (at least 1) RCPTs, waiting until at least one is free; returns by how many. Those in
    /// flight over all sessions plus the count never exceed the limit; an account that is observed or exempt always gets all.
    /// `None` as soon as the account is blocked. Cancel-safe: what was granted is in `leave`.
    pub async fn reserve(&self, leave: &mut Reservation, wanted: usize, now: Timestamp) -> Option<usize> {
        let (since, wanted) = (Instant::now(), wanted.max(1));
        // Counted before the attempt, like the wait itself.
        let _waiting = Waiting::new(&self.entry.waiting);
        loop {
            // Before the attempt, so that nothing is missed that comes between it and the wait.
            let mut freed = std::pin::pin!(self.entry.freed.notified());
            freed.as_mut().enable();
            let now = now.after(since.elapsed());
            let granted = self.try_extend(leave, wanted, now)?;
            if granted > 0 {
                // There may be room for the next who waits: one is woken for all that was given back.
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

    /// [`Self::reserve`] without waiting: it may grant 0.
    pub fn try_extend(&self, leave: &mut Reservation, wanted: usize, now: Timestamp) -> Option<usize> {
        if self.standing() == Standing::Blocked {
            return None;
        }
        let policy = self.ledger.shared().policy.load();
        let granted = self.entry.lock().grant(wanted, now, &policy);
        leave.in_flight += granted;
        Some(granted)
    }

    /// Counts an invalid recipient; returns when it is durable, or known not to be for now (`Ledger::trouble`
    /// says so). Who drops it has counted, but loses the verdict, which nobody else gets; a block by the limit
    /// is in [`Ledger::untold`] all the same.
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
            let (verdict, durability) = state.attempt(&attempt, &policy);
            if matches!(verdict, Verdict::Alarmed(_) | Verdict::AlarmedAgain(_)) {
                self.entry.show_probation(&state);
            }
            let awaited = durability == Durability::Awaited;
            (verdict, awaited.then(|| shared.queue.submit(&self.entry, &mut state)))
        };
        if let Some(waiting) = waiting {
            // Where it could not be written the state holds in memory, and so does the verdict.
            let _ = shared.written(&self.entry, waiting).await;
        }
        if matches!(verdict, Verdict::Crossed(_) | Verdict::Alarmed(_)) {
            shared.crossed.notify_one();
        }
        verdict
    }

    /// Takes note of a recipient that the upstream accepted: in memory, written with the next attempt.
    pub fn accepted(&self, address: &str, domain: Option<Key>, now: Timestamp) {
        let shared = self.ledger.shared();
        let address = shared.hash(address);
        if let Some(domain) = domain {
            shared.accepted(domain, now);
        }
        let policy = shared.policy.load();
        self.entry.lock().valid(address, domain, now, &policy);
    }

    /// Takes note of a recipient that the upstream refused for good for another reason than that it does not exist: it counts
    /// against nobody, but its domain may turn out to refuse everybody.
    pub fn refused(&self, domain: &str, now: Timestamp) {
        self.ledger.shared().refused(&self.entry.account, domain, now);
    }

    /// Until when what the account sends is delayed; `None` where it is not on probation. Takes no lock.
    pub fn probation(&self, now: Timestamp) -> Option<Timestamp> {
        self.entry.probation(now)
    }

    /// What holds for the account.
    pub fn terms(&self) -> Terms {
        self.entry.lock().terms(&self.ledger.shared().policy.load())
    }

    /// Takes note of a message that the upstream took: in memory, written with the next attempt.
    pub fn relayed(&self, message: Relayed) {
        self.entry.lock().relayed(message);
    }

    /// What is known of the account.
    pub fn record(&self, now: Timestamp) -> Record {
        let mut state = self.entry.lock();
        let terms = state.terms(&self.ledger.shared().policy.load());
        state.record(now, &terms)
    }
}

/// One who waits for leave, for as long as he does.
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
    /// Gives so many back, or as many as there are: their answers have come (after they were counted, where they count).
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
        // Nearly always nobody waits; whoever begins to is counted before he takes that lock. One of those who wait is woken, takes
        // what he wants, and wakes the next if he got that; who drops his wait meanwhile passes it on.
        if self.entry.waiting.load(Ordering::Acquire) > 0 {
            self.entry.freed.notify_one();
        }
        if settled {
            self.ledger.shared().settle(&self.entry);
        }
    }

    /// Gives all back.
    pub fn release(&mut self) {
        self.release_some(self.in_flight);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.release();
    }
}
