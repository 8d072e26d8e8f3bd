//! One account in memory: what it did, whether it is blocked, and what of that awaits the writer.
//!
//! Decides under the account's own lock, which nobody holds across an await. A block is decided at once, so
//! that nothing more is counted or asked, and shown once it is on the disk: nothing that depends on it may
//! outlive a crash that it does not.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::rows::{self, AccountRow, AttemptRow, Extent, KeptBlock, Reach, Stored};
use super::store::{Edit, Store, Tree};
use super::{
    Attempt, Block, BlockedBy, Policy, RELAYED, Record, Relayed, SAMPLES, Sample, Standing, Verdict,
};
use crate::account::Account;
use crate::clock::Timestamp;
use crate::guard::window::{Added, Key, Mark, Window};

/// An account in memory.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) account: Account,
    /// Whether a block is shown.
    blocked: AtomicBool,
    /// Set once what the disk has was taken over, or could not be.
    loaded: OnceLock<()>,
    state: Mutex<State>,
    /// Told when a RCPT may be free to ask, or none will be.
    pub(super) freed: Notify,
}

#[derive(Debug, Default)]
pub(super) struct State {
    window: Window,
    attempts: Extent,
    /// Of the last attempts in the window, as far as they are known: the last sample is of the last mark.
    samples: VecDeque<Sample>,
    relayed: VecDeque<Relayed>,
    relayed_extent: Extent,
    would_block_day: Option<u64>,
    block: Option<KeptBlock>,
    /// RCPTs in flight.
    pub(super) in_flight: usize,
    /// Watches.
    pub(super) holders: usize,
    /// Its place among the idle accounts, while it has one.
    pub(super) idle: Option<u64>,
    /// Whether it waits in the writer's queue.
    pub(super) queued: bool,
    /// The disk could not be read: before anything is written, what it has must be taken over.
    unread: bool,
    /// Changes are numbered: the latest, the latest to the block, to the account's own row, and the latest on
    /// the disk.
    change: u64,
    block_change: u64,
    row_change: u64,
    committed: u64,
}

/// What a commit will have written.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) changes: Vec<Edit>,
    change: u64,
    attempts: Reach,
    relayed: Option<Reach>,
}

/// Whether a decision has to be on the disk before it is acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// It changed nothing.
    Unchanged,
    /// It did, or rests on a change that may not be there yet.
    Awaited,
}

impl Entry {
    /// An account that is not blocked, as far as is known.
    pub(super) fn new(account: &Account) -> Self {
        Self {
            account: account.clone(),
            blocked: AtomicBool::new(false),
            loaded: OnceLock::new(),
            state: Mutex::default(),
            freed: Notify::new(),
        }
    }

    /// An account that the disk says is blocked.
    pub(super) fn blocked(account: &Account, block: KeptBlock) -> Self {
        let entry = Self::new(account);
        entry.lock().block = Some(block);
        entry.blocked.store(true, Ordering::Release);
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
                Err(_) => state.unread = true,
            }
        });
    }

    /// Takes over what the disk has where that failed before. Blocks.
    pub(super) fn reload(&self, store: &Store, now: Timestamp) -> Result<(), String> {
        if self.lock().unread {
            let stored = rows::read(store, &self.account)?;
            let mut state = self.lock();
            state.adopt(stored, now);
            state.unread = false;
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
        self.standing() == Standing::Blocked && self.lock().block.as_ref().is_some_and(|kept| !kept.told)
    }

    /// What `commit` says is on the disk.
    pub(super) fn committed(&self, commit: &Commit) {
        let mut state = self.lock();
        state.attempts.reached(commit.attempts);
        if let Some(reach) = commit.relayed {
            state.relayed_extent.reached(reach);
        }
        state.committed = commit.change;
        if state.block_change <= commit.change {
            self.show(&state);
        }
    }

    /// Shows a block, or that there is none, that is not on the disk: it cannot be had there for now.
    pub(super) fn show_unwritten(&self) {
        self.show(&self.lock());
    }

    fn show(&self, state: &State) {
        self.blocked.store(state.block.is_some(), Ordering::Release);
        self.freed.notify_waiters();
    }
}

impl State {
    /// Takes over what the disk has; what came since then is newer.
    fn adopt(&mut self, stored: Stored, now: Timestamp) {
        self.would_block_day = self.would_block_day.max(stored.account.would_block_day);
        let (numbers, rows): (Vec<u64>, Vec<AttemptRow>) = stored.attempts.into_iter().unzip();
        self.attempts = append(&numbers, self.window.held());
        let older = rows.iter().rev().map_while(|row| {
            let (address, client) = row.sample.clone()?;
            Some(Sample { at: row.mark.at(), address, client })
        });
        prepend(&mut self.samples, older, SAMPLES);
        self.window = Window::of(rows.iter().map(|row| row.mark).chain(self.window.marks()));
        self.attempts.changed(self.window.clamp(now));

        let (numbers, messages): (Vec<u64>, Vec<Relayed>) = stored.relayed.into_iter().unzip();
        self.relayed_extent = append(&numbers, self.relayed.len());
        prepend(&mut self.relayed, messages.into_iter().rev(), RELAYED);
    }

    /// Counts an attempt, and decides what it means.
    pub(super) fn attempt(
        &mut self,
        account: &Account,
        attempt: &Attempt<'_>,
        policy: &Policy,
    ) -> (Verdict, Durability) {
        if self.block.is_some() {
            let durability = if self.is_dirty() { Durability::Awaited } else { Durability::Unchanged };
            return (Verdict::Blocked, durability);
        }
        let rule = policy.rule();
        self.attempts.changed(self.window.clamp(attempt.now));
        let count = match self.window.add(Key::of(attempt.key), attempt.now, &rule) {
            Added::Repeated => return (Verdict::Repeated, Durability::Unchanged),
            Added::Counted(count) => count,
        };
        self.change += 1;
        self.attempts.push();
        push(&mut self.samples, rows::sample(attempt.now, attempt.address, attempt.client), SAMPLES);
        let day = day_of(attempt.now);
        let verdict = if count < rule.limit {
            Verdict::Counted { count }
        } else if policy.blocks(account) {
            let reason = format!("{count} invalid recipients within {}", spoken(rule.period));
            let block = Block { at: attempt.now, by: BlockedBy::Limit, reason: Some(reason) };
            self.set_block(Some(KeptBlock { block, told: false }));
            Verdict::Crossed(Box::new(self.record(account, attempt.now, rule.period)))
        } else if self.would_block_day < Some(day) {
            self.would_block_day = Some(day);
            self.row_change = self.change;
            Verdict::WouldBlock(Box::new(self.record(account, attempt.now, rule.period)))
        } else {
            Verdict::Counted { count }
        };
        (verdict, Durability::Awaited)
    }

    /// Grants leave for up to `wanted` RCPTs, as many as may be in flight besides those that are.
    pub(super) fn grant(
        &mut self,
        account: &Account,
        wanted: usize,
        now: Timestamp,
        policy: &Policy,
    ) -> usize {
        let granted = if self.block.is_some() {
            0 // The block is not shown yet, but nothing more may be asked.
        } else if policy.blocks(account) {
            let rule = policy.rule();
            let count = self.window.count(now, rule.period) as usize;
            let free = (rule.limit as usize).saturating_sub(count + self.in_flight);
            // A lower limit than the count (it was higher, or the account was exempt): the next attempt will
            // cross it.
            wanted.min(if self.in_flight == 0 { free.max(1) } else { free })
        } else {
            wanted
        };
        self.in_flight += granted;
        granted
    }

    /// How long until an attempt leaves the window, and with it a place becomes free.
    pub(super) fn next_expiry(&self, now: Timestamp, policy: &Policy) -> Option<Duration> {
        self.window.next_expiry(now, policy.period)
    }

    /// Blocks by hand; `false` where it was so.
    pub(super) fn block_by_hand(&mut self, reason: Option<&str>, now: Timestamp) -> bool {
        if self.block.is_some() {
            return false;
        }
        self.change += 1;
        let block = Block { at: now, by: BlockedBy::Operator, reason: reason.map(Into::into) };
        // Who blocks by hand knows.
        self.set_block(Some(KeptBlock { block, told: true }));
        true
    }

    /// The abuse desk was told of this block; `false` where it is not the one that holds, or was told of before.
    pub(super) fn tell(&mut self, of: &Block) -> bool {
        let Some(kept) = self.block.as_mut().filter(|kept| kept.block == *of && !kept.told) else {
            return false;
        };
        kept.told = true;
        self.change += 1;
        self.block_change = self.change;
        true
    }

    /// Lifts a block and forgets the window; `false` where there was no block.
    pub(super) fn unblock(&mut self) -> bool {
        if self.block.is_none() && self.window.held() == 0 {
            return false;
        }
        self.change += 1;
        self.window = Window::default();
        self.samples.clear();
        let blocked = self.block.is_some();
        if blocked {
            self.set_block(None);
        }
        blocked
    }

    /// Keeps a message that the upstream took; the commit of the next attempt writes it.
    pub(super) fn relayed(&mut self, message: Relayed) {
        self.relayed_extent.push();
        push(&mut self.relayed, rows::relayed(message), RELAYED);
    }

    pub(super) fn record(&self, account: &Account, now: Timestamp, period: Duration) -> Record {
        // Nothing counts while a block lasts: an operator who comes a day later sees what led to it.
        let now = self.block().map_or(now, |block| block.at.min(now));
        let first = self.window.first(now, period);
        let in_window = |sample: &&Sample| first.is_some_and(|first| sample.at >= first);
        Record {
            account: account.clone(),
            invalid_recipients: self.window.count(now, period),
            first,
            last: self.window.last(now, period),
            block: self.block().cloned(),
            samples: self.samples.iter().filter(in_window).cloned().collect(),
            relayed: self.relayed.iter().cloned().collect(),
        }
    }

    /// Whether the disk lacks a change.
    pub(super) fn is_dirty(&self) -> bool {
        self.change != self.committed
    }

    /// Whether there is something to say about the account.
    pub(super) fn is_notable(&self, now: Timestamp, period: Duration) -> bool {
        self.block.is_some() || self.window.count(now, period) > 0
    }

    /// Whether the disk must go on having it: it is notable, or it would have been blocked today.
    pub(super) fn is_worth_keeping(&self, now: Timestamp, period: Duration) -> bool {
        self.is_notable(now, period) || self.would_block_day >= Some(day_of(now))
    }

    /// Whether it may leave memory, but for the messages of [`Self::unwritten_messages`].
    pub(super) fn is_idle(&self) -> bool {
        self.holders == 0 && self.in_flight == 0 && self.block.is_none() && !self.queued && !self.is_dirty()
    }

    /// Messages that the upstream took and that memory alone knows.
    pub(super) fn unwritten_messages(&self) -> usize {
        self.relayed_extent.unwritten(self.relayed.len()).count()
    }

    /// Has the messages written although no attempt came.
    pub(super) fn write_messages(&mut self) {
        self.change += 1;
    }

    /// What is to be written now.
    pub(super) fn commit(&mut self, account: &Account) -> Commit {
        let mut changes = Vec::new();
        // The block first: if a crash cuts the rest off, it is there.
        if self.block_change > self.committed {
            changes.push(rows::block_edit(account, self.block.as_ref()));
        }
        if self.row_change > self.committed {
            let value = Some(rows::encode(&AccountRow { would_block_day: self.would_block_day }));
            changes.push(Edit { tree: Tree::Attempts, key: rows::account_key(account), value });
        }
        let held = self.window.held();
        let mut known = self.samples.iter().rev();
        for (number, mark) in self.attempts.unwritten(held).rev().zip(self.window.marks().rev()) {
            let value = Some(rows::encode(&row(mark, known.next())));
            changes.push(Edit { tree: Tree::Attempts, key: rows::row_key(account, number), value });
        }
        changes.extend(removals(Tree::Attempts, account, self.attempts.outlived(held)));
        let attempts = self.attempts.attempt(held);

        let kept = self.relayed.len();
        let relayed = (held > 0 || self.block.is_some()).then(|| {
            let messages = self.relayed_extent.unwritten(kept).rev().zip(self.relayed.iter().rev());
            changes.extend(messages.map(|(number, message)| rows::relayed_edit(account, number, message)));
            changes.extend(removals(Tree::Relayed, account, self.relayed_extent.outlived(kept)));
            self.relayed_extent.attempt(kept)
        });
        Commit { changes, change: self.change, attempts, relayed }
    }

    fn block(&self) -> Option<&Block> {
        self.block.as_ref().map(|kept| &kept.block)
    }

    fn set_block(&mut self, block: Option<KeptBlock>) {
        self.block = block;
        self.block_change = self.change;
    }
}

/// The days since the Unix epoch.
pub(super) fn day_of(now: Timestamp) -> u64 {
    now.as_millis() / 86_400_000
}

fn row(mark: Mark, sample: Option<&Sample>) -> AttemptRow {
    AttemptRow { mark, sample: sample.map(|sample| (sample.address.clone(), sample.client)) }
}

fn removals(tree: Tree, account: &Account, numbers: std::ops::Range<u64>) -> impl Iterator<Item = Edit> {
    numbers.map(move |number| Edit { tree, key: rows::row_key(account, number), value: None })
}

/// The extent of a list that begins with rows of these numbers, and goes on with so many unwritten ones.
fn append(numbers: &[u64], unwritten: usize) -> Extent {
    let first = numbers.first().copied().unwrap_or_default();
    let end = numbers.last().map_or(0, |last| last + 1);
    let mut extent = Extent::found(first..end);
    (0..unwritten).for_each(|_| extent.push());
    extent
}

fn push<T>(list: &mut VecDeque<T>, item: T, most: usize) {
    list.push_back(item);
    while list.len() > most {
        list.pop_front();
    }
}

fn prepend<T>(list: &mut VecDeque<T>, newest_first: impl Iterator<Item = T>, most: usize) {
    for item in newest_first.take(most.saturating_sub(list.len())) {
        list.push_front(item);
    }
}

/// A duration as the configuration writes it.
fn spoken(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86_400, 'd'), (3_600, 'h'), (60, 'm'), (1, 's')];
    let unit = units.iter().find(|(unit, _)| seconds >= *unit && seconds.is_multiple_of(*unit));
    match unit {
        Some((unit, letter)) => format!("{}{letter}", seconds / unit),
        None => format!("{}ms", duration.as_millis()),
    }
}
