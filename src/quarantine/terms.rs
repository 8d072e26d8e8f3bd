//! The types of the spool's questions and answers; pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::envelope::{Envelope, State};
use crate::account::Account;
use crate::clock::Timestamp;
use crate::id::QuarantineId;

/// The limits in `[quarantine]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The most octets of all messages together, with their envelopes and files ([`super::weight`]).
    pub max_size: u64,
    /// The same for one account's messages.
    pub max_size_per_account: u64,
    /// How long a parked message is kept; `None`: forever.
    pub expire_after: Option<Duration>,
}

/// Why a message cannot be parked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParkError {
    /// `max_size` or `max_size_per_account` is reached, or the disk has too little room.
    #[error("the quarantine is full: {0}")]
    Full(String),
    /// A file could not be written.
    #[error("{0}")]
    Io(String),
}

/// Why a parked message cannot be read, claimed, changed or removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpoolError {
    /// No message has that id.
    #[error("no message {0} is in the quarantine")]
    Unknown(String),
    /// It is claimed: another task has it in hand.
    #[error(
        "message {0} is being released just now; try again when that is done (`gatepost quarantine list` shows it)"
    )]
    Claimed(QuarantineId),
    /// Its envelope does not parse, or its files do not fit each other.
    #[error("message {id}: {cause}")]
    Unreadable {
        /// Which.
        id: QuarantineId,
        /// Why.
        cause: String,
    },
    /// A file could not be read, written or removed.
    #[error("{0}")]
    Io(String),
}

/// Which messages a listing includes. An unreadable message has no account, sender or subject, so it is listed only if
/// none of them is asked for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Filter {
    /// Only messages of this account.
    pub account: Option<Account>,
    /// Only messages whose reverse-path contains this, ignoring case.
    pub sender: Option<String>,
    /// Only messages whose subject contains this, ignoring case.
    pub subject: Option<String>,
    /// Only messages parked at or after this time.
    pub since: Option<Timestamp>,
}

/// One line of a listing.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A message.
    Message(Box<Envelope>),
    /// A message whose envelope does not parse or cannot be read.
    Unreadable {
        /// Which.
        id: QuarantineId,
        /// The size of its message file, in octets.
        size: u64,
        /// Why.
        cause: String,
    },
}

/// What is alike in messages that go one after another when their time comes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// Whose.
    pub account: Account,
    /// `Parked`: their delay is over, and they are to go out by themselves. `Releasing`: they are to be tried again.
    pub state: State,
    /// Whether they go out without an operator's decision; a block of the account then holds them back.
    pub by_itself: bool,
}

/// How many swept messages are reported by id.
pub const SWEPT_TOLD: usize = 20;

/// A message that was removed at start because it had no envelope: it was never acknowledged or was being removed when
/// a process was cut off, or its envelope was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Which.
    pub id: QuarantineId,
    /// How many octets.
    pub size: u64,
}

impl std::fmt::Display for Swept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { id, size } = self;
        write!(
            f,
            "message {id} of {size} octets had no envelope and was removed: it was being parked or removed when gatepost was cut off, unless somebody took the envelope away"
        )
    }
}

/// How much is parked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// How many messages.
    pub messages: u64,
    /// How many octets, of the messages themselves unless said otherwise.
    pub octets: u64,
}

/// Work on the disk that panicked, or was dropped because the program is ending; with the cause.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("work on the disk did not end: {0}")]
pub(super) struct Unfinished(pub(super) String);

impl From<Unfinished> for ParkError {
    fn from(unfinished: Unfinished) -> Self {
        Self::Io(unfinished.to_string())
    }
}

impl From<Unfinished> for SpoolError {
    fn from(unfinished: Unfinished) -> Self {
        Self::Io(unfinished.to_string())
    }
}
