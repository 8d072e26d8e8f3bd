//! The ledger: durable counts and blocks.
//!
//! Memory answers, the disk remembers: each account in use has one entry under its own lock. Changes are written and flushed
//! (sled's flush, then fdatasync, since the former is no fsync) before [`Watch::count`] returns; a block also goes into a list
//! that people can read (`blocklist`). One writer thread batches the flushes of all sessions. If writing fails, the state holds
//! in memory and writing is retried every second. A recipient that exists costs no disk access. The interface contains no type
//! of sled; only `store` names it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::mimicry::{About, Place, Precedents};
use crate::account::Account;
use crate::clock::Timestamp;
use crate::smtp::Reply;

mod accounts;
mod blocklist;
mod day;
mod entry;
mod pages;
mod policy;
mod rebuild;
mod rows;
mod shared;
mod state;
mod store;
mod terms;
#[cfg(test)]
mod tests;
mod view;
mod writer;

use shared::Shared;
use writer::Writer;

pub use super::cause::Cause;
pub use super::window::{Count, MAX_LIMIT};
pub use crate::history::{Block, BlockedBy, Relayed, Sample, Uncounted};
pub use day::{BLIND_AFTER, Tallies};
pub use policy::{AccountRule, Detection, Leniency, Match, OnAlarm, Policy, Terms};
pub use terms::{
    Attempt, Blindness, CauseChange, Change, LedgerError, Moment, News, Probation, RELAYED, Record, SAMPLES,
    Standing, Verdict,
};
pub use view::{Reservation, Watch};

/// How long closing the ledger waits for the disk.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Counts and blocks of all accounts. Cheap to clone. Closes when the last clone and the last [`Watch`] are dropped.
#[derive(Clone)]
pub struct Ledger {
    handle: Arc<Handle>,
}

/// Not held by the writer's thread, so that the thread ends when nobody else is left.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.queue.close();
        self.shared.wait_closed(CLOSE_TIMEOUT);
    }
}

impl Ledger {
    /// Opens `dir/ledger` (or creates it), clears what a kill during an earlier open left behind, and starts the
    /// writer. `dir/ledger.lock` keeps other processes out and tells them who has it. A broken database is set aside;
    /// the blocks then come from `dir/blocked`, or from `parked`, which returns the blocks, not lifted since, for which
    /// messages are parked; [`Self::recovery`] reports it. Blocks.
    ///
    /// # Errors
    /// The database is in use, of a newer version, or not writable.
    pub fn open(
        dir: &Path,
        policy: Policy,
        parked: &dyn Fn() -> Vec<(Account, Block)>,
        now: Timestamp,
    ) -> Result<Self, LedgerError> {
        let (shared, list) = Shared::open(dir, policy, parked, now)?;
        let shared = Arc::new(shared);
        // The writer may have the list of blocks to write before any session tells it the time.
        shared.tell_time(now);
        shared.end_probations();
        let writer = Writer::new(shared.clone(), list);
        std::thread::Builder::new()
            .name("ledger".into())
            .spawn(move || writer.run())
            .map_err(|error| LedgerError::Write(format!("its thread does not start: {error}")))?;
        Ok(Self { handle: Arc::new(Handle { shared }) })
    }

    /// What had to be mended at this or an earlier opening, one sentence per line, until [`Self::told_recovery`] is called.
    pub fn recovery(&self) -> Option<String> {
        rebuild::untold(&self.shared().dir)
    }

    /// Notes that the abuse desk was told of the recovery. Blocks.
    ///
    /// # Errors
    /// That could not be noted: it will be reported again.
    pub fn told_recovery(&self) -> Result<(), LedgerError> {
        rebuild::told(&self.shared().dir)
    }

    /// Returns a session's view of `account`.
    pub async fn watch(&self, account: &Account, now: Timestamp) -> Watch {
        let shared = self.shared();
        shared.tell_time(now);
        let watch = Watch::new(self.clone(), shared.accounts.hold(account));
        shared.loaded(watch.entry(), now).await;
        watch
    }

    /// Blocks an account by hand. `Ok(Change::WasSo)` if it is blocked already.
    ///
    /// # Errors
    /// The change holds in memory, but could not be written (yet).
    pub async fn block(
        &self,
        account: &Account,
        reason: Option<&str>,
        now: Timestamp,
    ) -> Result<Change, LedgerError> {
        let watch = self.watch(account, now).await;
        let (made, written) = {
            let mut state = watch.entry().lock();
            (state.block_by_hand(reason, now), self.shared().queue.submit(watch.entry(), &mut state))
        };
        self.changed(&watch, made, written).await
    }

    /// Lifts a block, ends a probation, and forgets the window and the test. `Ok(Change::WasSo)` if the account is neither
    /// blocked nor on probation; window and test are forgotten all the same.
    ///
    /// # Errors
    /// As for [`Self::block`].
    pub async fn unblock(&self, account: &Account, now: Timestamp) -> Result<Change, LedgerError> {
        let watch = self.watch(account, now).await;
        let (made, written) = {
            let mut state = watch.entry().lock();
            let made = state.unblock(now);
            watch.entry().show_probation(&state);
            (made, self.shared().queue.submit(watch.entry(), &mut state))
        };
        self.changed(&watch, made, written).await
    }

    /// Shortens the probations that began or were extended while the clock was ahead; `latest` is the latest time that it has
    /// said for a while.
    pub fn bring_back(&self, latest: Timestamp) {
        self.shared().bring_back(latest);
    }

    /// Learns of a time that is certainly over: a block that is made while the clock is behind that counts from then on.
    pub fn raise_floor(&self, floor: Timestamp) {
        self.shared().raise_floor(floor);
    }

    /// Returns the accounts whose block was not made by hand, is at least `age` old, and was reported.
    pub fn lapsed(&self, age: Duration, now: Moment) -> Vec<Account> {
        let mut lapsed = Vec::new();
        self.shared().accounts.each(|entry| {
            if entry.standing() == Standing::Blocked && entry.lock().has_lapsed(age, now) {
                lapsed.push(entry.account.clone());
            }
        });
        lapsed
    }

    /// Lifts such a block, as [`Self::unblock`] does, and returns it.
    pub async fn lapse(&self, account: &Account, age: Duration, now: Moment) -> Option<Block> {
        // The window must be loaded to be forgotten.
        let watch = self.watch(account, now.at).await;
        let (block, written) = {
            let mut state = watch.entry().lock();
            let block = state.lapse(age, now);
            watch.entry().show_probation(&state);
            (block, self.shared().queue.submit(watch.entry(), &mut state))
        };
        // If it could not be written it holds in memory.
        let _ = self.changed(&watch, block.is_some(), written).await;
        block
    }

    async fn changed(
        &self,
        watch: &Watch,
        made: bool,
        written: writer::Waiting,
    ) -> Result<Change, LedgerError> {
        let written = self.shared().written(watch.entry(), written).await;
        if made {
            self.shared().crossed.notify_one();
        }
        written.map_err(LedgerError::Write)?;
        Ok(if made { Change::Made } else { Change::WasSo })
    }

    /// Returns what is known of an account; `None` if there is neither an attempt in the window nor a block or probation.
    pub async fn record(&self, account: &Account, now: Timestamp) -> Option<Record> {
        let (shared, account) = (self.handle.shared.clone(), account.clone());
        let look = move || {
            let entry = shared.accounts.find(&account);
            pages::record(&shared, &account, entry, now).ok().flatten()
        };
        spawn_blocking(look).await.ok().flatten()
    }

    /// Returns a page of the accounts with an attempt in the window, a block or a probation: by name, after `after`, at most
    /// `limit`.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn records(
        &self,
        after: Option<&Account>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Record>, LedgerError> {
        let (shared, after) = (self.handle.shared.clone(), after.cloned());
        spawn_blocking(move || pages::records(&shared, after, limit, now).map_err(LedgerError::Read))
            .await
            .unwrap_or_else(|error| Err(LedgerError::Read(error.to_string())))
    }

    /// Returns the news for which [`Self::told`] has not been called yet, even before a restart: first unblocked
    /// accounts, then blocks, then probations. Leaves out blocks and liftings that are not on the disk yet, unless they
    /// cannot be written for now.
    pub async fn untold(&self, now: Timestamp) -> Vec<News> {
        let shared = self.handle.shared.clone();
        spawn_blocking(move || pages::untold(&shared, now)).await.unwrap_or_default()
    }

    /// Returns when a block or a probation has come or gone that [`Self::untold`] may not have returned yet. Callers must look
    /// now and then all the same: a block whose session was cut off is not announced.
    pub async fn crossed(&self) {
        self.shared().crossed.notified().await;
    }

    /// Notes that `news` was reported; written soon, without waiting. If a crash comes first, it is reported again,
    /// never lost.
    pub fn told(&self, news: &News) {
        let (shared, account) = (self.shared(), news.account());
        let Some(entry) = shared.accounts.find(account) else { return };
        let mut state = entry.lock();
        let is_news = match news {
            News::Unblocked { at, .. } => state.tell_lifting(*at),
            News::Blocked(record) => record.block.as_ref().is_some_and(|block| state.tell(block)),
            News::Probation(record) => record.probation.is_some_and(|begun| state.tell_probation(&begun)),
        };
        if is_news {
            shared.queue.submit_idly(&entry, &mut state);
        }
    }

    /// Returns the upstream's last replies.
    pub fn precedents(&self) -> Precedents {
        self.shared().precedents().clone()
    }

    /// Notes an upstream's reply to MAIL, RCPT or the end of data; written within seconds, without waiting.
    pub fn learn(&self, place: Place, about: About<'_>, reply: &Reply) {
        self.shared().learn(place, about, reply);
    }

    /// Counts one probed recipient of the day (UTC); reports, once per day and kind, that none of the first 1,000 was refused.
    pub fn tally(&self, foreign: bool, refused: bool, now: Timestamp) -> Option<Blindness> {
        self.shared().tally(foreign, refused, now)
    }

    /// Returns roughly how many recipients the upstream was asked about today (UTC), and how many it refused.
    pub fn tallies(&self, now: Timestamp) -> Tallies {
        self.shared().day().tallies(now)
    }

    /// Whether the upstream seems to accept everybody today (UTC): enough recipients were probed and none was refused.
    pub fn blindness(&self, now: Timestamp) -> Option<Blindness> {
        self.shared().day().blindness(now)
    }

    /// Returns the domains that refuse everybody: their answers do not count.
    pub fn common_causes(&self, now: Timestamp) -> Vec<Cause> {
        self.shared().common_causes(now)
    }

    /// Returns which domains became, or ceased to be, such since the last call; for the log.
    pub fn cause_changes(&self, now: Timestamp) -> Vec<CauseChange> {
        self.shared().cause_changes(now)
    }

    /// Returns when there may be such changes. A cause that ends in silence is only found by calling [`Self::cause_changes`].
    pub async fn caused(&self) {
        self.shared().caused.notified().await;
    }

    /// Why the last write failed; `None` while everything is written. Changes are announced.
    pub fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.shared().trouble.subscribe()
    }

    /// Changes the policy of all accounts from now on.
    pub fn set_policy(&self, policy: Policy) {
        self.shared().policy.store(Arc::new(policy));
        // A higher limit may let waiting sessions go on.
        self.shared().accounts.each(|entry| entry.freed.notify_waiters());
        self.shared().end_probations();
    }

    /// Writes everything pending and closes; waits at most 5 s. Later counts hold in memory only.
    pub async fn close(&self) {
        let shared = self.handle.shared.clone();
        shared.queue.close();
        let _ = spawn_blocking(move || shared.wait_closed(CLOSE_TIMEOUT)).await;
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }
}
