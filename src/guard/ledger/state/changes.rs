//! Which parts of an account have changed since its last commit.
//!
//! Pure. Changes are numbered; a commit takes along every number up to the latest one. The numbers are only compared, so
//! numbering a change twice does no harm.

/// A part of an account with a row of its own on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The block.
    Block,
    /// That a block was lifted.
    Lifting,
    /// The probation.
    Probation,
    /// The account's own row: the detector's evidence, and what was reported today.
    Row,
}

/// The numbers of an account's changes.
#[derive(Debug, Default)]
pub(super) struct Changes {
    latest: u64,
    committed: u64,
    /// The latest change to each [`Part`].
    last: [u64; 4],
}

impl Changes {
    /// Numbers a change to something other than a [`Part`]: an attempt or a message.
    pub(super) fn touch(&mut self) {
        self.latest += 1;
    }

    /// Numbers a change to `part`.
    pub(super) fn mark(&mut self, part: Part) {
        self.touch();
        self.last[part as usize] = self.latest;
    }

    /// Whether the disk lacks the latest change to `part`.
    pub(super) fn is_due(&self, part: Part) -> bool {
        self.last[part as usize] > self.committed
    }

    /// Whether the disk lacks any change.
    pub(super) fn is_dirty(&self) -> bool {
        self.latest != self.committed
    }

    /// The number of the latest change.
    pub(super) fn latest(&self) -> u64 {
        self.latest
    }

    /// Notes that all changes up to number `change` are on the disk.
    pub(super) fn commit(&mut self, change: u64) {
        self.committed = change;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_due_until_its_latest_change_is_committed() {
        const PARTS: [Part; 4] = [Part::Block, Part::Lifting, Part::Probation, Part::Row];
        let mut changes = Changes::default();
        assert!(!changes.is_dirty() && PARTS.iter().all(|part| !changes.is_due(*part)));
        changes.touch();
        assert!(changes.is_dirty() && PARTS.iter().all(|part| !changes.is_due(*part)));
        for part in PARTS {
            changes.mark(part);
            let due = |other: &Part| changes.is_due(*other) == (*other == part);
            assert!(changes.is_dirty() && PARTS.iter().all(due), "{part:?}");

            // Another change to it while the commit is under way.
            let commit = changes.latest();
            changes.mark(part);
            changes.commit(commit);
            assert!(changes.is_dirty() && changes.is_due(part), "{part:?}");
            changes.commit(changes.latest());
            assert!(!changes.is_dirty() && !changes.is_due(part), "{part:?}");
        }
    }
}
