//! What a parked message takes of `max_size` and `max_size_per_account`; pure.
//!
//! Not its own octets alone: an empty message for a thousand recipients fills the disk with its envelope, and any
//! number of empty messages fills it with files. So the envelope counts as well, and a fixed share for the two files.

/// What a file takes beside its content, in octets: its inode, its name in the folder, and the unused rest of its last
/// block. The usual block has 4 KiB.
const FILE: u64 = 4 * 1024;
/// What a message's two files take beside their content, in octets.
const FILES: u64 = 2 * FILE;
/// What envelopes and files may take before they count, in octets: those of some 28 ordinary messages. Without it a
/// limit of a few KiB would take no message at all; with it a small limit holds as many octets of messages as it says.
const FREE: u64 = 256 * 1024;

/// Octets on the disk, of one message or of many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Weight {
    /// Of messages, as they arrived.
    messages: u64,
    /// Of all else: envelopes, and the fixed share of each file.
    beside: u64,
}

impl Weight {
    /// Returns the weight of `octets` of a message alone.
    pub(super) fn of_content(octets: u64) -> Self {
        Self { messages: octets, beside: 0 }
    }

    /// Returns what a message takes beside its content; its envelope has `octets`.
    pub(super) fn of_envelope(octets: u64) -> Self {
        Self { messages: 0, beside: octets.saturating_add(FILES) }
    }

    /// Returns how many octets count towards a limit.
    pub(super) fn counted(self) -> u64 {
        self.messages.saturating_add(self.beside.saturating_sub(FREE))
    }

    /// Returns the octets of messages.
    pub(super) fn content(self) -> u64 {
        self.messages
    }

    #[must_use]
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            messages: self.messages.saturating_add(other.messages),
            beside: self.beside.saturating_add(other.beside),
        }
    }

    #[must_use]
    pub(super) fn minus(self, other: Self) -> Self {
        Self {
            messages: self.messages.saturating_sub(other.messages),
            beside: self.beside.saturating_sub(other.beside),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts() {
        const MIB: u64 = 1024 * 1024;
        let message = |size, envelope| Weight::of_content(size).plus(Weight::of_envelope(envelope));
        let many = |count, one: Weight| (0..count).fold(Weight::default(), |sum, _| sum.plus(one));
        for (weight, expected, what) in [
            (Weight::default(), 0, "nothing"),
            (message(40_960, 1_200), 40_960, "a small limit means messages"),
            (many(28, message(1, 1_100)), 28, "so long as there are few"),
            (many(10_000, message(0, 1_000)), 10_000 * 9_192 - FREE, "empty ones"),
            (many(10, message(5, MIB)), 50 + 10 * (MIB + FILES) - FREE, "many recipients"),
            (message(u64::MAX, u64::MAX), u64::MAX, "no overflow"),
        ] {
            assert_eq!(weight.counted(), expected, "{what}");
        }
        let both = message(7, 300_000).plus(message(9, 5));
        assert_eq!(both.minus(message(9, 5)), message(7, 300_000));
        assert_eq!((both.content(), Weight::default().minus(both)), (16, Weight::default()));
    }
}
