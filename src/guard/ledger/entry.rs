//! An account in memory: its state under the account's own lock, and what of it is shown without the lock.
//!
//! Nobody holds the lock across an await. A block is decided at once, so that nothing more is counted or asked, and shown
//! once it is on the disk: nothing that depends on it may outlive a crash that it does not.

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
    /// Until when what the account sends is delayed, in milliseconds since the Unix epoch; 0 where it is not. Shown at once: a
    /// delay that a crash forgets did no harm.
    delayed_until: AtomicU64,
    /// Set once what the disk has was taken over, or could not be.
    loaded: OnceLock<()>,
    state: Mutex<State>,
    /// Told when a RCPT may be free to ask, or none will be.
    pub(super) freed: Notify,
    /// How many wait for that.
    pub(super) waiting: AtomicUsize,
    /// Told when a block is shown, or that there is none.
    pub(super) shown: Notify,
}

impl Entry {
    /// An account that is not blocked, as far as is known.
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

    /// An account that the disk says is blocked, or on probation.
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

    /// An account as the disk has it.
    pub(super) fn read(account: &Account, stored: Stored, now: Timestamp) -> Self {
        let entry = Self::new(account);
        entry.loaded.get_or_init(|| entry.lock().adopt(stored, now));
        entry
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics under the lock; if something did, the state is still the best that there is.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.loaded.get().is_some()
    }

    /// Takes over what the disk has, the first time. Blocks.
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

    /// Takes over what the disk has where that failed before. Blocks.
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

    /// The block that is shown.
    pub(super) fn block(&self) -> Option<Block> {
        (self.standing() == Standing::Blocked).then(|| self.lock().block().cloned()).flatten()
    }

    /// Whether a block is shown of which the abuse desk was not told.
    pub(super) fn is_untold(&self) -> bool {
        self.standing() == Standing::Blocked && self.lock().kept_block().is_some_and(|kept| !kept.told)
    }

    /// When its block was lifted, if nobody was told of that. It may be blocked again.
    pub(super) fn untold_lifting(&self) -> Option<Timestamp> {
        let state = self.lock();
        state.lifted().filter(|_| !state.is_lifting_due() || !self.is_awaited(&state))
    }

    /// Whether what is shown of a block is not what is decided: the disk is still to take it.
    fn is_awaited(&self, state: &State) -> bool {
        (self.standing() == Standing::Blocked) != state.block().is_some()
    }

    /// Until when what the account sends is delayed, if it is at `now`.
    pub(super) fn probation(&self, now: Timestamp) -> Option<Timestamp> {
        let until = Timestamp::from_millis(self.delayed_until.load(Ordering::Acquire));
        (until > now).then_some(until)
    }

    /// Whether there is a probation of which the abuse desk was not told. Of one that a block overtook it need not be.
    pub(super) fn is_probation_untold(&self) -> bool {
        self.delayed_until.load(Ordering::Acquire) != 0
            && self.lock().probation().is_some_and(|probation| !probation.told)
    }

    /// Shows the probation as it is.
    pub(super) fn show_probation(&self, state: &State) {
        let until = state.probation().map_or(0, |probation| probation.until.as_millis());
        self.delayed_until.store(until, Ordering::Release);
    }

    /// What `commit` says is on the disk.
    pub(super) fn committed(&self, commit: &Commit) {
        let mut state = self.lock();
        if state.committed(commit) {
            self.show(&mut state);
        }
    }

    /// Shows a block, or that there is none, that is not on the disk: it cannot be had there for now.
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
