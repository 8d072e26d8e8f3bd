//! Counts and blocks, durable.
//!
//! Memory answers, the disk remembers: each account in use has one entry under its own lock; what changes is
//! written and flushed (sled's flush, then fdatasync, since the former is no fsync) before [`Watch::count`]
//! returns; of a block, the list that people can read too (`blocklist`). One writer thread batches the flushes of all sessions. Where writing fails the state holds in
//! memory and is tried again each second. A recipient that exists costs no disk access. No type of sled's
//! appears in the interface; `store` alone names it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::Guard;
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
pub use day::{BLIND_AFTER, Tallies};
pub use policy::{AccountRule, Detection, Leniency, Match, OnAlarm, Policy, Terms};
pub use terms::{
    Attempt, Blindness, Block, BlockedBy, CauseChange, Change, LedgerError, News, Probation, RELAYED, Record,
    Relayed, SAMPLES, Sample, Standing, Uncounted, Verdict,
};
pub use view::{Reservation, Watch};

/// How long closing waits for the disk.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Counts and blocks of all accounts. Cheap to clone. When the last clone and the last [`Watch`] go it
/// closes.
#[derive(Clone)]
pub struct Ledger {
    handle: Arc<Handle>,
}

/// What the writer's thread does not hold, so that it ends when nobody else is left.
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
    /// Opens `dir/ledger` (making it where it is not), heals what a kill during an earlier open left, and
    /// starts the writer. `dir/ledger.lock` keeps other processes out, and tells them who is in. A database that is broken is set
    /// aside, and the blocks are had from `dir/blocked`, or from `parked`, which says for which blocks messages are parked that were
    /// not lifted; then [`Self::recovery`] tells. Blocks.
    ///
    /// # Errors
    /// In use, newer, or not writable.
    pub fn open(
        dir: &Path,
        policy: Policy,
        parked: &dyn Fn() -> Vec<(Account, Block)>,
        now: Timestamp,
    ) -> Result<Self, LedgerError> {
        let (shared, list) = Shared::open(dir, policy, parked, now)?;
        let shared = Arc::new(shared);
        shared.end_probations();
        let writer = Writer::new(shared.clone(), list);
        std::thread::Builder::new()
            .name("ledger".into())
            .spawn(move || writer.run())
            .map_err(|error| LedgerError::Write(format!("its thread does not start: {error}")))?;
        Ok(Self { handle: Arc::new(Handle { shared }) })
    }

    /// What had to be mended at this or an earlier opening, a sentence a line, as long as [`Self::told_recovery`] was not called.
    pub fn recovery(&self) -> Option<String> {
        rebuild::untold(&self.shared().dir)
    }

    /// The abuse desk knows of it. Blocks.
    ///
    /// # Errors
    /// It will be told again.
    pub fn told_recovery(&self) -> Result<(), LedgerError> {
        rebuild::told(&self.shared().dir)
    }

    /// A session's view of `account`.
    pub async fn watch(&self, account: &Account, now: Timestamp) -> Watch {
        let shared = self.shared();
        shared.tell_time(now);
        let watch = Watch::new(self.clone(), shared.accounts.hold(account));
        shared.loaded(watch.entry(), now).await;
        watch
    }

    /// Blocks by hand. `Ok(Change::WasSo)` for an account that is blocked.
    ///
    /// # Errors
    /// It holds in memory, but could not be written (yet).
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

    /// Lifts a block, ends a probation, and forgets the window and the test. `Ok(Change::WasSo)` for an account that is
    /// neither blocked nor on probation; the rest is forgotten all the same.
    ///
    /// # Errors
    /// As [`Self::block`].
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

    /// Accounts whose block nobody made by hand and is as old as `age`.
    pub fn lapsed(&self, age: Duration, now: Timestamp) -> Vec<Account> {
        let mut lapsed = Vec::new();
        self.shared().accounts.each(|entry| {
            if entry.standing() == Standing::Blocked && entry.lock().has_lapsed(age, now) {
                lapsed.push(entry.account.clone());
            }
        });
        lapsed
    }

    /// Lifts such a block, as [`Self::unblock`] does; which it was.
    pub async fn lapse(&self, account: &Account, age: Duration, now: Timestamp) -> Option<Block> {
        // Its window has to be known to be forgotten.
        let watch = self.watch(account, now).await;
        let (block, written) = {
            let mut state = watch.entry().lock();
            let block = state.lapse(age, now);
            watch.entry().show_probation(&state);
            (block, self.shared().queue.submit(watch.entry(), &mut state))
        };
        // Where it could not be written it holds in memory.
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

    /// What is known of one account; `None` for one with neither an attempt in the window nor a block.
    pub async fn record(&self, account: &Account, now: Timestamp) -> Option<Record> {
        let (shared, account) = (self.handle.shared.clone(), account.clone());
        let look = move || {
            let entry = shared.accounts.find(&account);
            pages::record(&shared, &account, entry, now).ok().flatten()
        };
        spawn_blocking(look).await.ok().flatten()
    }

    /// A page of the accounts with an attempt in the window or a block, by name, behind `after`; at most
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

    /// What [`Self::told`] was not called for, over restarts: first the accounts that were unblocked, then the blocks, then the
    /// probations. What is not on the disk yet is left out, unless it cannot be had there for now.
    pub async fn untold(&self, now: Timestamp) -> Vec<News> {
        let shared = self.handle.shared.clone();
        spawn_blocking(move || pages::untold(&shared, now)).await.unwrap_or_default()
    }

    /// Returns when a block or a probation has come or gone that [`Self::untold`] may not have told yet. Callers look now and
    /// then all the same: of a block whose session was cut off nothing is said.
    pub async fn crossed(&self) {
        self.shared().crossed.notified().await;
    }

    /// Notes that `news` was told; written soon, without waiting. After a crash before that it is told again.
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

    /// The upstream's last replies.
    pub fn precedents(&self) -> Guard<Arc<Precedents>> {
        self.shared().precedents.load()
    }

    /// Takes note of an upstream's reply to MAIL, RCPT or the end of data; written within seconds, without
    /// waiting.
    pub fn learn(&self, place: Place, about: About<'_>, reply: &Reply) {
        self.shared().learn(place, about, reply);
    }

    /// Takes note of one probed recipient of the day (UTC); once a day and kind says that the first 1,000 met
    /// no refusal.
    pub fn tally(&self, foreign: bool, refused: bool, now: Timestamp) -> Option<Blindness> {
        self.shared().tally(foreign, refused, now)
    }

    /// About how many recipients the upstream was asked today (UTC), and how many it refused.
    pub fn tallies(&self, now: Timestamp) -> Tallies {
        self.shared().day().tallies(now)
    }

    /// Whether the upstream seems to accept everybody today (UTC): enough was probed, and nothing refused.
    pub fn blindness(&self, now: Timestamp) -> Option<Blindness> {
        self.shared().day().blindness(now)
    }

    /// The domains that refuse everybody: their answers do not count.
    pub fn common_causes(&self, now: Timestamp) -> Vec<Cause> {
        self.shared().common_causes(now)
    }

    /// Which domains began and ended to be such since the last call, for the log.
    pub fn cause_changes(&self, now: Timestamp) -> Vec<CauseChange> {
        self.shared().cause_changes(now)
    }

    /// Returns when there may be such changes. An end by silence is only found by asking.
    pub async fn caused(&self) {
        self.shared().caused.notified().await;
    }

    /// Why the last write failed; `None` while all is written. Changes are announced.
    pub fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.shared().trouble.subscribe()
    }

    /// Changes the policy of all accounts from now on.
    pub fn set_policy(&self, policy: Policy) {
        self.shared().policy.store(Arc::new(policy));
        // A higher limit frees those who wait.
        self.shared().accounts.each(|entry| entry.freed.notify_waiters());
        self.shared().end_probations();
    }

    /// Writes all that is pending and closes; waits 5 s for that at most. What is counted later holds in
    /// memory alone.
    pub async fn close(&self) {
        let shared = self.handle.shared.clone();
        shared.queue.close();
        let _ = spawn_blocking(move || shared.wait_closed(CLOSE_TIMEOUT)).await;
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }
}
