//! The writer thread: commits the changes of all sessions in groups.
//!
//! Changes that come in during a commit make up the next one, so a slow disk makes groups larger, not queues longer. A block is
//! in the database and in the list before anybody is told. If a commit fails, those who wait are told, the changes stay in
//! memory, and every second the database is reopened and the commit repeated; until it succeeds nobody else waits, except for
//! a block: it is tried at once, since at least one of both may take it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::blocklist::BlockList;
use super::entry::Entry;
use super::state::{Commit, State};
use super::store::{Edit, Tree};
use super::{Shared, rows};
use crate::account::Account;
use crate::fail;

/// How long after a failed commit the next one is tried.
const RETRY: Duration = Duration::from_secs(1);
/// How often, at most, single values are written that nobody waits for.
const LAZY: Duration = Duration::from_secs(1);
/// How often long idle accounts and expired probations are looked for.
const REST: Duration = Duration::from_secs(60);
/// How many rows are swept for each row written.
const SWEPT_PER_ROW: i64 = 2;
/// How many rows are swept at a time, at most; an account is swept as a whole.
const SWEPT_AT_ONCE: i64 = 256;

/// The key of the precedents.
pub(super) const PRECEDENTS: &[u8] = b"precedents";
/// The key of the day's counts.
pub(super) const DAY: &[u8] = b"day";
/// The key of the number of changes of blocks.
pub(super) const BLOCKS_CHANGE: &[u8] = b"blocks_change";

/// Whether a change is on the disk, or why not.
pub(super) type Written = Result<(), String>;
/// Receives the outcome of a write.
pub(super) type Waiting = oneshot::Receiver<Written>;

/// The work that waits for the writer.
#[derive(Debug, Default)]
pub(super) struct Queue {
    work: Mutex<Work>,
    filled: Condvar,
    closed: Condvar,
}

#[derive(Debug, Default)]
struct Work {
    /// The entries whose `queued` is set, each once.
    changed: Vec<Arc<Entry>>,
    waiting: Vec<Waiter>,
    lazy: bool,
    closing: bool,
    closed: bool,
}

#[derive(Debug)]
struct Waiter {
    entry: Arc<Entry>,
    told: oneshot::Sender<Written>,
}

impl Queue {
    /// Queues the changes of an entry, whose locked state is `state`; the receiver gets the outcome.
    pub(super) fn submit(&self, entry: &Arc<Entry>, state: &mut State) -> Waiting {
        let (told, waiting) = oneshot::channel();
        let mut work = self.lock();
        if work.closed {
            let _ = told.send(Err("the ledger is closed".into()));
            return waiting;
        }
        work.change(entry, state);
        work.waiting.push(Waiter { entry: entry.clone(), told });
        self.filled.notify_one();
        waiting
    }

    /// Queues the changes of an entry; nobody waits for the outcome.
    pub(super) fn submit_idly(&self, entry: &Arc<Entry>, state: &mut State) {
        let mut work = self.lock();
        if !work.closed {
            work.change(entry, state);
            self.filled.notify_one();
        }
    }

    /// Notes that a single value changed; nobody waits for it.
    pub(super) fn nudge(&self) {
        self.lock().lazy = true;
        self.filled.notify_one();
    }

    /// Asks the writer to write what is left and to end.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.filled.notify_one();
    }

    /// Waits until everything is written and the database closed; `false` if that takes longer than `most`.
    pub(super) fn wait_closed(&self, most: Duration) -> bool {
        let open = |work: &mut Work| !work.closed;
        let waited = self.closed.wait_timeout_while(self.lock(), most, open);
        waited.unwrap_or_else(PoisonError::into_inner).0.closed
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all work as soon as there is some, or at `due`. Lazy work alone waits until `lazy_at`.
    fn take(&self, due: Instant, lazy_at: Instant) -> Work {
        let mut work = self.lock();
        loop {
            let due = if work.lazy { due.min(lazy_at) } else { due };
            let now = Instant::now();
            if !work.changed.is_empty() || !work.waiting.is_empty() || work.closing || now >= due {
                let lazy = work.lazy && (now >= lazy_at || work.closing);
                work.lazy &= !lazy;
                return Work {
                    changed: std::mem::take(&mut work.changed),
                    waiting: std::mem::take(&mut work.waiting),
                    lazy,
                    ..*work
                };
            }
            let waited = self.filled.wait_timeout(work, due.duration_since(now));
            work = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Work {
    fn change(&mut self, entry: &Arc<Entry>, state: &mut State) {
        if !std::mem::replace(&mut state.queued, true) {
            self.changed.push(entry.clone());
        }
    }
}

/// The state of the writer thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    list: BlockList,
    /// Entries left by a failed commit.
    held: Vec<Arc<Entry>>,
    /// While commits fail: why, and when the next one is due.
    failing: Option<(String, Instant)>,
    /// Whether the database failed and must be reopened.
    reopens: bool,
    lazy_at: Instant,
    rest_at: Instant,
    /// The account in each tree that was swept last.
    swept: [(Tree, Option<Account>); 2],
    /// How many rows are still to be swept; below 0 if too many were.
    to_sweep: i64,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, list: BlockList) -> Self {
        let now = Instant::now();
        let swept = [(Tree::Attempts, None), (Tree::Relayed, None)];
        Self {
            shared,
            list,
            held: Vec::new(),
            failing: None,
            reopens: false,
            lazy_at: now,
            rest_at: now + REST,
            swept,
            to_sweep: 0,
        }
    }

    /// Writes until the queue closes.
    pub(super) fn run(mut self) {
        // The block list may be missing or outdated.
        self.turn(Work::default());
        loop {
            let due = self.failing.as_ref().map_or(self.rest_at, |(_, at)| self.rest_at.min(*at));
            let work = self.shared.queue.take(due, self.lazy_at);
            let closing = work.closing;
            self.turn(work);
            if closing {
                break;
            }
        }
        self.shared.store.close();
        let late = {
            let mut work = self.shared.queue.lock();
            work.closed = true;
            std::mem::take(&mut work.waiting)
        };
        self.shared.queue.closed.notify_all();
        tell(late, &Err("the ledger is closed".into()));
    }

    fn turn(&mut self, work: Work) {
        self.held.extend(work.changed);
        let now = Instant::now();
        if now >= self.rest_at {
            self.rest_at = now + REST;
            self.shared.dismiss_idle(now);
            self.shared.end_probations();
        }
        if work.closing {
            self.held.extend(self.shared.with_better_evidence());
        }
        if let Some((why, at)) = &self.failing
            && now < *at
            && !work.closing
            && !self.is_block_new(&work.waiting)
        {
            tell(work.waiting, &Err(why.clone()));
            return;
        }
        if self.held.is_empty() && !work.lazy && self.failing.is_none() && !self.list.is_behind() {
            tell(work.waiting, &Ok(()));
            return;
        }
        let entries = std::mem::take(&mut self.held);
        let written = self.commit(&entries, work.lazy);
        match &written {
            Ok(_) => self.failing = None,
            Err(why) => self.keep(entries, why.clone()),
        }
        self.shared.tell_trouble(written.as_ref().err());
        let rows = *written.as_ref().unwrap_or(&0);
        tell(work.waiting, &written.map(drop));
        self.sweep(rows);
    }

    /// Whether somebody waits for a change to a block that has not been tried yet.
    fn is_block_new(&self, waiting: &[Waiter]) -> bool {
        waiting.iter().any(|Waiter { entry, .. }| !self.list.has(&entry.account, entry.lock().kept_block()))
    }

    /// Makes all changes of `entries` durable; returns how many rows that took.
    fn commit(&mut self, entries: &[Arc<Entry>], lazy: bool) -> Result<usize, String> {
        // Changes from here on queue their entries again.
        entries.iter().for_each(|entry| entry.lock().queued = false);
        let stored = self.store(entries, lazy);
        self.reopens = stored.is_err();
        if stored.is_err() {
            // Blocks made meanwhile survive a crash if at least the list can be written.
            entries.iter().for_each(|entry| self.list.note(&entry.account, entry.lock().kept_block()));
        }
        let listed = self.list.write(self.shared.now());
        let commits = stored?;
        listed?;
        commits.iter().for_each(|(_, commit)| fail::stage(commit.deed, "listed"));
        let mut rows = 0;
        for (entry, commit) in &commits {
            entry.committed(commit);
            rows += commit.changes.len();
            self.shared.settle(entry);
        }
        Ok(rows)
    }

    /// Makes all changes of `entries` durable in the database.
    fn store<'a>(
        &mut self,
        entries: &'a [Arc<Entry>],
        lazy: bool,
    ) -> Result<Vec<(&'a Arc<Entry>, Commit)>, String> {
        let store = Arc::clone(&self.shared.store);
        if self.reopens {
            store.reopen()?;
        }
        let mut commits: Vec<(&Arc<Entry>, Commit)> = Vec::with_capacity(entries.len());
        for entry in entries {
            entry.reload(&store, self.shared.now())?;
            let commit = entry.lock().commit();
            self.list.note(&entry.account, commit.block.as_ref());
            commits.push((entry, commit));
        }
        // After a failure, lazily written values may be lost.
        if lazy || self.failing.is_some() {
            self.lazy_at = Instant::now() + LAZY;
            store.apply(&self.lazily(self.failing.is_some()))?;
        }
        for (_, commit) in &commits {
            store.apply(&commit.changes)?;
        }
        commits.iter().for_each(|(_, commit)| fail::stage(commit.deed, "applied"));
        let change = self.list.unstored();
        if let Some(change) = change {
            let value = Some(rows::encode(&change));
            store.apply(&[Edit { tree: Tree::Meta, key: BLOCKS_CHANGE.into(), value }])?;
        }
        if !commits.is_empty() || change.is_some() || self.failing.is_some() {
            store.sync()?;
        }
        commits.iter().for_each(|(_, commit)| fail::stage(commit.deed, "synced"));
        if let Some(change) = change {
            self.list.is_stored(change);
        }
        Ok(commits)
    }

    /// Returns edits for the single values that changed, or for all of them.
    fn lazily(&self, all: bool) -> Vec<Edit> {
        let mut changes = Vec::new();
        if self.shared.precedents_changed.swap(false, Ordering::AcqRel) || all {
            let value = Some(rows::encode(&*self.shared.precedents()));
            changes.push(Edit { tree: Tree::Meta, key: PRECEDENTS.into(), value });
        }
        if self.shared.day_changed.swap(false, Ordering::AcqRel) || all {
            let value = Some(rows::encode(&*self.shared.day()));
            changes.push(Edit { tree: Tree::Meta, key: DAY.into(), value });
        }
        changes
    }

    /// Keeps entries for the next commit. Nobody waits for the disk meanwhile: their blocks are shown.
    fn keep(&mut self, entries: Vec<Arc<Entry>>, why: String) {
        for entry in entries {
            entry.show_unwritten();
            let queued = std::mem::replace(&mut entry.lock().queued, true);
            // An entry that was queued again meanwhile comes with the next work.
            if !queued {
                self.held.push(entry);
            }
        }
        self.failing = Some((why, Instant::now() + RETRY));
    }

    /// Sweeps the next accounts on the disk, removing those no longer worth keeping.
    fn sweep(&mut self, written: usize) {
        let earned = i64::try_from(written).unwrap_or(SWEPT_AT_ONCE).saturating_mul(SWEPT_PER_ROW);
        // An account is swept as a whole: after one with many rows the next waits longer.
        self.to_sweep = self.to_sweep.saturating_add(earned).min(SWEPT_AT_ONCE);
        while self.to_sweep > 0 {
            // The trees take turns; a tree that was at its end starts over.
            self.swept.rotate_left(1);
            let (tree, after) = &mut self.swept[0];
            let next = self.shared.sweep_next(*tree, after.as_ref());
            let (account, looked) = next.map_or((None, 1), |(account, rows)| (Some(account), rows.max(1)));
            *after = account;
            self.to_sweep -= i64::try_from(looked).unwrap_or(i64::MAX);
        }
    }
}

fn tell(waiting: Vec<Waiter>, written: &Written) {
    for Waiter { entry, told } in waiting {
        if written.is_err() {
            entry.show_unwritten();
        }
        let _ = told.send(written.clone());
    }
}
