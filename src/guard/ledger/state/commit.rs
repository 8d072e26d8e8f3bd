//! Moves an account's state to the disk and back: what a commit writes, and how the state adopts what was read.

use std::collections::VecDeque;
use std::ops::Range;

use super::State;
use super::changes::Part;
use crate::account::Account;
use crate::clock::Timestamp;
use crate::guard::ledger::rows::{self, AccountRow, AttemptRow, Extent, KeptBlock, Reach, Stored};
use crate::guard::ledger::store::{Edit, Tree};
use crate::guard::ledger::{RELAYED, Relayed, SAMPLES, Sample};
use crate::guard::window::{Mark, Window};

/// The edits of one commit, and how far they take the account.
#[derive(Debug)]
pub(in super::super) struct Commit {
    pub(in super::super) changes: Vec<Edit>,
    /// The block, if there is one.
    pub(in super::super) block: Option<KeptBlock>,
    /// What is done, in a word, for `fail`.
    pub(in super::super) deed: &'static str,
    change: u64,
    attempts: Reach,
    relayed: Option<Reach>,
    s: Option<f64>,
}

impl State {
    /// Takes over what the disk has; anything already in memory is newer.
    pub(in super::super) fn adopt(&mut self, stored: Stored, now: Timestamp) {
        self.would_block_day = self.would_block_day.max(stored.account.would_block_day);
        self.alarm_day = self.alarm_day.max(stored.account.alarm_day);
        let (numbers, mut rows): (Vec<u64>, Vec<AttemptRow>) = stored.attempts.into_iter().unzip();
        self.attempts = append(&numbers, self.window.held());
        if self.forgets {
            rows.clear();
        } else {
            self.detector.prepend(stored.account.test);
        }
        self.written_s = self.detector.s();
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
        (self.unread, self.forgets) = (false, false);
    }

    /// Notes that the disk could not be read.
    pub(in super::super) fn note_unreadable(&mut self) {
        self.unread = true;
    }

    /// Whether the disk could not be read, and must be before a commit.
    pub(in super::super) fn is_unread(&self) -> bool {
        self.unread
    }

    /// Returns what is to be written now.
    pub(in super::super) fn commit(&mut self) -> Commit {
        let account = &self.account;
        let mut changes = Vec::new();
        let deed = if self.changes.is_due(Part::Lifting) && self.lifted.is_some() {
            "unblock"
        } else if self.changes.is_due(Part::Block) {
            "block"
        } else if self.changes.is_due(Part::Probation) {
            "probation"
        } else {
            "count"
        };
        // The lifting's note before the lifting: if a crash cuts off the rest, the block is known to be older.
        if self.changes.is_due(Part::Lifting) {
            changes.push(rows::lifted_edit(account, self.lifted));
        }
        // The block before what led to it: it survives if a crash cuts off the rest.
        if self.changes.is_due(Part::Block) {
            changes.push(rows::block_edit(account, self.block.as_ref()));
        }
        if self.changes.is_due(Part::Probation) {
            changes.push(rows::probation_edit(account, self.probation.as_ref()));
        }
        // The test before the attempts: it may know of too many, never of too few.
        let s = self.changes.is_due(Part::Row).then(|| {
            let (would_block_day, alarm_day) = (self.would_block_day, self.alarm_day);
            let row = AccountRow { would_block_day, alarm_day, test: self.detector.kept() };
            changes.push(rows::account_edit(account, &row));
            self.detector.s()
        });
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
        let (block, change) = (self.block.clone(), self.changes.latest());
        Commit { changes, block, deed, change, attempts, relayed, s }
    }

    /// Notes that `commit` is on the disk; returns whether that includes the latest change to the block.
    pub(in super::super) fn committed(&mut self, commit: &Commit) -> bool {
        self.attempts.reached(commit.attempts);
        if let Some(reach) = commit.relayed {
            self.relayed_extent.reached(reach);
        }
        self.changes.commit(commit.change);
        if let Some(s) = commit.s {
            self.written_s = s;
        }
        !self.changes.is_due(Part::Block)
    }
}

fn row(mark: Mark, sample: Option<&Sample>) -> AttemptRow {
    AttemptRow { mark, sample: sample.map(|sample| (sample.address.clone(), sample.client)) }
}

fn removals(tree: Tree, account: &Account, numbers: Range<u64>) -> impl Iterator<Item = Edit> {
    numbers.map(move |number| Edit { tree, key: rows::row_key(account, number), value: None })
}

/// Returns the extent of a list that starts with rows of these numbers, followed by `unwritten` unwritten ones.
fn append(numbers: &[u64], unwritten: usize) -> Extent {
    let first = numbers.first().copied().unwrap_or_default();
    let end = numbers.last().map_or(0, |last| last + 1);
    let mut extent = Extent::found(first..end);
    (0..unwritten).for_each(|_| extent.push());
    extent
}

fn prepend<T>(list: &mut VecDeque<T>, newest_first: impl Iterator<Item = T>, most: usize) {
    for item in newest_first.take(most.saturating_sub(list.len())) {
        list.push_front(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::window::Key;

    /// An unblock while the disk cannot be read forgets what the disk has, not what came since.
    #[test]
    fn an_unblock_forgets_what_could_not_be_read() {
        let at = Timestamp::from_millis;
        let mark = |time, name: &str| Mark::new(at(time), Key::of(name.as_bytes()));
        for unblocked in [false, true] {
            let account: Account = "anna".parse().unwrap();
            let mut state = State::new(account.clone());
            state.unread = true;
            if unblocked {
                assert!(!state.unblock(at(50)), "neither blocked nor on probation");
            }
            state.window = Window::of([mark(60, "new@x")]);
            let old = |number, name| (number, AttemptRow { mark: mark(10, name), sample: None });
            let stored = Stored { attempts: vec![old(7, "one@x"), old(8, "two@x")], ..Stored::default() };
            state.adopt(stored, at(100));
            let keys: Vec<_> =
                state.commit().changes.into_iter().map(|edit| (edit.key, edit.value.is_some())).collect();
            let row = |number| rows::row_key(&account, number);
            assert!(keys.contains(&(row(9), true)), "{keys:?}");
            let (held, removed) = if unblocked { (1, true) } else { (3, false) };
            assert_eq!(state.window.held(), held);
            assert_eq!([7, 8].map(|number| keys.contains(&(row(number), false))), [removed; 2], "{keys:?}");
        }
    }
}
