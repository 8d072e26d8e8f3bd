//! The one thread that writes: commits the changes of all sessions in groups.
//!
//! What comes in while a commit is under way makes up the next one, so a disk that is slow to flush makes
//! groups larger, not queues longer. A block is in the database and in the list before anybody is told. Where a commit fails, those who wait are told, the changes stay in
//! memory, and each second the database is opened anew and the commit repeated; until then nobody else waits.

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

/// How soon a failed commit is repeated.
const RETRY: Duration = Duration::from_secs(1);
/// How often at most what nobody waits for is written.
const LAZY: Duration = Duration::from_secs(1);
/// How often accounts are looked for that have been idle for long.
const REST: Duration = Duration::from_secs(60);
/// For each row written so many are looked at, whether they are still needed; and at most some so many at a
/// time.
const SWEPT_PER_ROW: i64 = 2;
const SWEPT_AT_ONCE: i64 = 256;

/// Where the precedents are.
pub(super) const PRECEDENTS: &[u8] = b"precedents";
/// Where the day's counts are.
pub(super) const DAY: &[u8] = b"day";
/// How many changes of blocks there have been.
pub(super) const BLOCKS_CHANGE: &[u8] = b"blocks_change";

/// Whether a change is on the disk; if not, why.
pub(super) type Written = Result<(), String>;
/// Says so.
pub(super) type Waiting = oneshot::Receiver<Written>;

/// What waits for the writer.
#[derive(Debug, Default)]
pub(super) struct Queue {
    work: Mutex<Work>,
    filled: Condvar,
    closed: Condvar,
}

#[derive(Debug, Default)]
struct Work {
    /// Each entry once: those whose `queued` is set.
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
    /// Has the changes of an entry written; `state` is its own.
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

    /// The same, and nobody waits.
    pub(super) fn submit_idly(&self, entry: &Arc<Entry>, state: &mut State) {
        let mut work = self.lock();
        if !work.closed {
            work.change(entry, state);
            self.filled.notify_one();
        }
    }

    /// There is something to write that nobody waits for.
    pub(super) fn nudge(&self) {
        self.lock().lazy = true;
        self.filled.notify_one();
    }

    /// No more will come.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.filled.notify_one();
    }

    /// Waits until all is written and the database closed; `false` where that takes longer than `most`.
    pub(super) fn wait_closed(&self, most: Duration) -> bool {
        let open = |work: &mut Work| !work.closed;
        let waited = self.closed.wait_timeout_while(self.lock(), most, open);
        waited.unwrap_or_else(PoisonError::into_inner).0.closed
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all that is there, as soon as there is something, or at `due`; what is lazy alone not before
    /// `lazy_at`.
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

/// The thread's own.
pub(super) struct Writer {
    shared: Arc<Shared>,
    list: BlockList,
    /// Entries that a failed commit left.
    held: Vec<Arc<Entry>>,
    /// While commits fail: why, and when the next is due.
    failing: Option<(String, Instant)>,
    /// The database failed: it must be opened anew.
    reopens: bool,
    lazy_at: Instant,
    rest_at: Instant,
    /// In each tree, the account that was looked at last.
    swept: [(Tree, Option<Account>); 2],
    /// How many rows are to be looked at; below 0 there were too many.
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
        // There may be no list yet, or an older one.
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

    /// Makes all changes of `entries` durable; says how many rows they were.
    fn commit(&mut self, entries: &[Arc<Entry>], lazy: bool) -> Result<usize, String> {
        // What changes from here on makes its entry come again.
        entries.iter().for_each(|entry| entry.lock().queued = false);
        let stored = self.store(entries, lazy);
        self.reopens = stored.is_err();
        if stored.is_err() {
            // Whoever is blocked meanwhile is so over a crash, if the list at least can be written.
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
        // After a failure what was written lazily may be gone.
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

    /// What of the single values changed, or all of them.
    fn lazily(&self, all: bool) -> Vec<Edit> {
        let mut changes = Vec::new();
        if self.shared.precedents_changed.swap(false, Ordering::AcqRel) || all {
            let value = Some(rows::encode(&**self.shared.precedents.load()));
            changes.push(Edit { tree: Tree::Meta, key: PRECEDENTS.into(), value });
        }
        if self.shared.day_changed.swap(false, Ordering::AcqRel) || all {
            let value = Some(rows::encode(&*self.shared.day()));
            changes.push(Edit { tree: Tree::Meta, key: DAY.into(), value });
        }
        changes
    }

    /// Keeps entries for the next commit. Nobody is to wait for the disk meanwhile: their blocks are shown.
    fn keep(&mut self, entries: Vec<Arc<Entry>>, why: String) {
        for entry in entries {
            entry.show_unwritten();
            let queued = std::mem::replace(&mut entry.lock().queued, true);
            // One that was queued anew meanwhile comes with the next work.
            if !queued {
                self.held.push(entry);
            }
        }
        self.failing = Some((why, Instant::now() + RETRY));
    }

    /// Looks at the next accounts on the disk, and removes those that nothing is to be said of any more.
    fn sweep(&mut self, written: usize) {
        let earned = i64::try_from(written).unwrap_or(SWEPT_AT_ONCE).saturating_mul(SWEPT_PER_ROW);
        // An account with many rows is looked at as a whole: those after it wait the longer.
        self.to_sweep = self.to_sweep.saturating_add(earned).min(SWEPT_AT_ONCE);
        while self.to_sweep > 0 {
            // The trees take turns; one that is at its end begins anew with its next.
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
