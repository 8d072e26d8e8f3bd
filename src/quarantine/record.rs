//! What is known of one parked message without reading it, about 100 octets; pure.

use super::envelope::{Envelope, State};
use super::schedule::{due_by, next_try_by};
use super::terms::Line;
use super::weight::Weight;
use crate::account::Account;
use crate::clock::Timestamp;
use crate::id::QuarantineId;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// `None` if the envelope cannot be read.
    pub(super) account: Option<Account>,
    pub(super) size: u64,
    /// Octets of the envelope's text.
    pub(super) envelope: u64,
    pub(super) parked: Timestamp,
    pub(super) state: State,
    /// The next try or the due time.
    pub(super) due: Option<Timestamp>,
    /// Whether its release began without an operator's decision.
    pub(super) begun_by_itself: bool,
    /// Whether the due time was changed in memory only, not yet on disk.
    pub(super) put_off: bool,
    /// Until when it is left alone, although it may be due.
    pub(super) rests: Option<Timestamp>,
    pub(super) told: Option<Box<str>>,
    pub(super) claimed: bool,
    /// Whether it could not be read when this process began: no digest has shown it, so it does not expire before the next
    /// start.
    pub(super) was_unreadable: bool,
}

impl Record {
    /// A record for a message whose envelope's text has `octets`.
    pub(super) fn of(envelope: &Envelope, octets: u64) -> Self {
        Self {
            account: Some(envelope.account.clone()),
            size: envelope.size,
            envelope: octets,
            parked: envelope.parked,
            state: envelope.state(),
            due: envelope.release.as_ref().map_or(envelope.due, |release| release.next),
            begun_by_itself: envelope.release.as_ref().is_some_and(|release| release.by_itself),
            put_off: false,
            rests: None,
            told: envelope.told_queue_id.as_deref().map(Into::into),
            claimed: false,
            was_unreadable: false,
        }
    }

    /// Whether a digest that announced all that was parked before `before` was about this message too. Its id counts as
    /// well: one that came while the clock was behind says that it was parked long ago, but its id is not older than the
    /// floor. One that came while the clock was ahead may have been brought back to before its id's birth.
    pub(super) fn is_from_before(&self, id: QuarantineId, before: Timestamp) -> bool {
        id.born() < before && self.parked < before && !self.was_unreadable
    }

    /// A record for a message whose envelope cannot be read; `size` and `envelope` are those of its files, in octets.
    pub(super) fn unreadable(id: QuarantineId, size: u64, envelope: u64) -> Self {
        Self {
            account: None,
            size,
            envelope,
            parked: id.born(),
            state: State::Unreadable,
            due: None,
            begun_by_itself: false,
            put_off: false,
            rests: None,
            told: None,
            claimed: false,
            was_unreadable: false,
        }
    }

    /// Whether it stays until an operator decides, it is due, or it expires.
    pub(super) fn waits(&self) -> bool {
        matches!(self.state, State::Parked | State::Failed)
    }

    pub(super) fn weight(&self) -> Weight {
        Weight::of_content(self.size).plus(Weight::of_envelope(self.envelope))
    }

    /// Like [`Envelope::goes_by_itself`], but with a due time that may be changed in memory only.
    pub(super) fn goes_by_itself(&self) -> Option<Timestamp> {
        self.due.filter(|_| self.state == State::Parked || self.begun_by_itself)
    }

    /// Returns from when on it may go; `None` if it is claimed or never due.
    pub(super) fn goes_from(&self) -> Option<Timestamp> {
        let due = self.due.filter(|_| !self.claimed)?;
        Some(due.max(self.rests.unwrap_or(due)))
    }

    /// Returns where it goes in the queue.
    pub(super) fn line(&self) -> Option<Line> {
        let by_itself = self.goes_by_itself().is_some();
        Some(Line { account: self.account.clone()?, state: self.state, by_itself })
    }

    /// Returns its next try or due time, given the `latest` time that the clock has said for a while.
    pub(super) fn due_by(&self, latest: Timestamp) -> Option<Timestamp> {
        let due = self.due?;
        Some(if self.state == State::Parked {
            due_by(due, self.parked, latest)
        } else {
            next_try_by(due, latest)
        })
    }
}
