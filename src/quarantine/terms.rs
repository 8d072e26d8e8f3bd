//! The types of the spool's questions and answers; pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::envelope::{Envelope, State};
use crate::account::Account;
use crate::clock::Timestamp;
use crate::id::QuarantineId;

/// `[quarantine]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Octets of all messages.
    pub max_size: u64,
    /// Octets of one account's messages.
    pub max_size_per_account: u64,
    /// How long a parked message is kept; `None`: for ever.
    pub expire_after: Option<Duration>,
}

/// Why a message cannot be parked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParkError {
    /// `max_size`, `max_size_per_account`, or the disk has not enough room.
    #[error("the quarantine is full: {0}")]
    Full(String),
    /// A file could not be written.
    #[error("{0}")]
    Io(String),
}

/// Why a parked message cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpoolError {
    /// There is none of that id.
    #[error("no message {0} is in the quarantine")]
    Unknown(String),
    /// Another release has it in hand.
    #[error(
        "message {0} is being released just now; try again when that is done (`gatepost quarantine list` shows it)"
    )]
    Claimed(QuarantineId),
    /// Its envelope does not parse.
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

/// Which messages a listing wants. What cannot be read has no account, sender or subject, and is listed where none of them
/// is asked for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Filter {
    /// Of this account.
    pub account: Option<Account>,
    /// Whose reverse-path contains this, without regard to case.
    pub sender: Option<String>,
    /// Whose subject contains this, without regard to case.
    pub subject: Option<String>,
    /// Parked at or after this.
    pub since: Option<Timestamp>,
}

/// One line of a listing.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A message.
    Message(Box<Envelope>),
    /// One whose envelope does not parse or cannot be read.
    Unreadable {
        /// Which.
        id: QuarantineId,
        /// Octets of its message file.
        size: u64,
        /// Why.
        cause: String,
    },
}

/// A message whose time has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Which.
    pub id: QuarantineId,
    /// Whose.
    pub account: Account,
    /// `Parked`: it was to go out by itself; `Releasing`: it is to be tried again.
    pub state: State,
    /// No operator decided it: a block of the account keeps it.
    pub by_itself: bool,
}

/// So many of them are told of by name.
pub const SWEPT_TOLD: usize = 20;

/// A message that had no envelope, and was removed for that: never acknowledged, or about to be removed, when a process was cut off.
/// Or its envelope was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Which.
    pub id: QuarantineId,
    /// Octets.
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
    /// Messages.
    pub messages: u64,
    /// Octets.
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
