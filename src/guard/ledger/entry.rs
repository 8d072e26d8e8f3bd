//! An account in memory: its state under a lock of its own, and what can be seen of it without the lock.
//!
//! Nobody holds the lock across an await. A block is decided at once, so that nothing more is counted or asked, but shown only
//! once it is on the disk: nothing that depends on it may survive a crash that it does not.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;

use super::rows::{self, KeptBlock, Stored};
use super::state::{Commit, State};
use super::store::Store;
use super::{Block, Probation, Standing};
use crate::account::Account;
use crate::clock::Timestamp;

/// An account in memory.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) account: Account,
    /// Whether a block is shown.
    blocked: AtomicBool,
    /// Until when the account's mail is delayed, in milliseconds since the Unix epoch; 0 if it is not. Shown at once: a delay
    /// that a crash forgets does no harm.
    delayed_until: AtomicU64,
    /// Set once the account was read from the disk, or could not be.
    loaded: OnceLock<()>,
    state: Mutex<State>,
    /// Notified when leave may have become free, or there will be none.
    pub(super) freed: Notify,
    /// How many wait for that notification.
    pub(super) waiting: AtomicUsize,
    /// Notified when a block is shown, or that there is none.
    pub(super) shown: Notify,
}

impl Entry {
    /// Creates an account that is not blocked, as far as is known.
    pub(super) fn new(account: &Account) -> Self {
        Self {
            account: account.clone(),
            blocked: AtomicBool::new(false),
            delayed_until: AtomicU64::new(0),
            loaded: OnceLock::new(),
            state: Mutex::new(State::new(account.clone())),
            freed: Notify::new(),
            waiting: AtomicUsize::new(0),
            shown: Notify::new(),
        }
    }

    /// Creates an account that is blocked or on probation according to the disk.
    pub(super) fn withheld(
        account: &Account,
        block: Option<KeptBlock>,
        probation: Option<Probation>,
    ) -> Self {
        let entry = Self::new(account);
        entry.blocked.store(block.is_some(), Ordering::Release);
        {
            let mut state = entry.lock();
            state.withhold(block, probation);
            entry.show_probation(&state);
        }
        entry
    }

    /// Creates an account from what the disk has.
    pub(super) fn read(account: &Account, stored: Stored, now: Timestamp) -> Self {
        let entry = Self::new(account);
        entry.loaded.get_or_init(|| entry.lock().adopt(stored, now));
        entry
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics under the lock; if something did, the state would still be the best there is.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.loaded.get().is_some()
    }

    /// Reads the account from the disk, the first time. Blocks.
    pub(super) fn load(&self, store: &Store, now: Timestamp) {
        self.loaded.get_or_init(|| {
            let stored = rows::read(store, &self.account);
            let mut state = self.lock();
            match stored {
                Ok(stored) => state.adopt(stored, now),
                Err(_) => state.note_unreadable(),
            }
        });
    }

    /// Reads the account from the disk if that failed before. Blocks.
    pub(super) fn reload(&self, store: &Store, now: Timestamp) -> Result<(), String> {
        if self.lock().is_unread() {
            let stored = rows::read(store, &self.account)?;
            self.lock().adopt(stored, now);
        }
        Ok(())
    }

    pub(super) fn standing(&self) -> Standing {
        if self.blocked.load(Ordering::Acquire) { Standing::Blocked } else { Standing::Open }
    }

    /// Returns the block that is shown.
    pub(super) fn block(&self) -> Option<Block> {
        (self.standing() == Standing::Blocked).then(|| self.lock().block().cloned()).flatten()
    }

    /// Whether a block is shown that is still to be reported.
    pub(super) fn is_untold(&self) -> bool {
        self.standing() == Standing::Blocked && self.lock().kept_block().is_some_and(|kept| !kept.told)
    }

    /// Returns when the block was lifted, if that is still to be reported. The account may be blocked again.
    pub(super) fn untold_lifting(&self) -> Option<Timestamp> {
        let state = self.lock();
        state.lifted().filter(|_| !state.is_lifting_due() || !self.is_awaited(&state))
    }

    /// Whether the block shown is not the one decided, which has yet to be written.
    fn is_awaited(&self, state: &State) -> bool {
        (self.standing() == Standing::Blocked) != state.block().is_some()
    }

    /// Returns until when the account's mail is delayed, if it is at `now`.
    pub(super) fn probation(&self, now: Timestamp) -> Option<Timestamp> {
        let until = Timestamp::from_millis(self.delayed_until.load(Ordering::Acquire));
        (until > now).then_some(until)
    }

    /// Whether there is a probation that is still to be reported. One that a block overtook need not be reported.
    pub(super) fn is_probation_untold(&self) -> bool {
        self.delayed_until.load(Ordering::Acquire) != 0
            && self.lock().probation().is_some_and(|probation| !probation.told)
    }

    /// Shows the probation of `state`.
    pub(super) fn show_probation(&self, state: &State) {
        let until = state.probation().map_or(0, |probation| probation.until.as_millis());
        self.delayed_until.store(until, Ordering::Release);
    }

    /// Notes that `commit` is on the disk.
    pub(super) fn committed(&self, commit: &Commit) {
        let mut state = self.lock();
        if state.committed(commit) {
            self.show(&mut state);
        }
    }

    /// Shows the block, or that there is none, although that could not be written for now.
    pub(super) fn show_unwritten(&self) {
        self.show(&mut self.lock());
    }

    fn show(&self, state: &mut State) {
        state.note_shown();
        self.blocked.store(state.block().is_some(), Ordering::Release);
        self.freed.notify_waiters();
        self.shown.notify_waiters();
    }
}
