//! Parked messages as files: `DATA_DIR/quarantine/ID.message` and `ID.envelope`, mode 0600.
//!
//! The envelope's rename is the moment at which a message is parked: the message is written and fsynced before it, the folder
//! after it. A message without an envelope was never acknowledged, and goes at the next start. Removal takes the envelope
//! first. An index in memory (account, size, state, due time, told queue id) answers sizes, listings and due times.

use std::path::Path;
use std::time::Duration;

use super::envelope::{Envelope, EnvelopeError, State};
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
    #[error("message {0} is being released just now")]
    Claimed(QuarantineId),
    /// Its envelope does not parse.
    #[error("message {id}: {cause}")]
    Unreadable {
        /// Which.
        id: QuarantineId,
        /// Why.
        cause: EnvelopeError,
    },
    /// A file could not be read, written or removed.
    #[error("{0}")]
    Io(String),
}

/// Which messages a listing wants.
#[derive(Debug, Clone, Default)]
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

/// How much is parked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Messages.
    pub messages: u64,
    /// Octets.
    pub octets: u64,
}

/// The quarantine. Cheap to clone.
#[derive(Clone)]
pub struct Spool {
    // helper E
}

/// A message being parked. Dropping it leaves nothing behind.
pub struct Parking {
    // helper E
}

/// A message in hand, which nobody else can claim meanwhile. Dropping it puts it back as it is on disk.
pub struct Claim {
    // helper E
}

impl Spool {
    /// Opens (or makes) `dir/quarantine`, reads all envelopes, removes what was never acknowledged.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub async fn open(_dir: &Path, _limits: Limits) -> Result<Self, SpoolError> {
        todo!()
    }

    /// Whether a message of `account` of `size` octets (0: unknown) would fit; what MAIL of a blocked account asks.
    ///
    /// # Errors
    /// [`ParkError::Full`]
    pub fn room(&self, _account: &Account, _size: u64) -> Result<(), ParkError> {
        todo!()
    }

    /// Begins to park a message.
    ///
    /// # Errors
    /// The quarantine is full, or the file cannot be made.
    pub async fn begin(&self, _account: &Account, _now: Timestamp) -> Result<Parking, ParkError> {
        todo!()
    }

    /// Claims a message.
    ///
    /// # Errors
    /// Unknown, claimed, unreadable.
    pub async fn claim(&self, _id: QuarantineId) -> Result<Claim, SpoolError> {
        todo!()
    }

    /// A message's envelope, without claiming it.
    ///
    /// # Errors
    /// Unknown, unreadable.
    pub async fn envelope(&self, _id: QuarantineId) -> Result<Envelope, SpoolError> {
        todo!()
    }

    /// The message as it arrived, to read.
    ///
    /// # Errors
    /// Unknown, or not readable.
    pub async fn message(&self, _id: QuarantineId) -> Result<tokio::fs::File, SpoolError> {
        todo!()
    }

    /// The id that an operator means: an id, or the queue id that a client was told.
    pub fn resolve(&self, _text: &str) -> Option<QuarantineId> {
        todo!()
    }

    /// A page of messages, oldest first, behind `after`. Reads at most so many envelopes as it needs for `limit`.
    pub async fn list(&self, _filter: &Filter, _after: Option<QuarantineId>, _limit: usize) -> Vec<Entry> {
        todo!()
    }

    /// The ids of an account's messages (`None`: all), oldest first.
    pub fn ids(&self, _account: Option<&Account>) -> Vec<QuarantineId> {
        todo!()
    }

    /// Removes a message for good.
    ///
    /// # Errors
    /// Unknown, claimed, or not removable.
    pub async fn remove(&self, _id: QuarantineId) -> Result<(), SpoolError> {
        todo!()
    }

    /// What an account (`None`: all) has in the quarantine.
    pub fn usage(&self, _account: Option<&Account>) -> Usage {
        todo!()
    }

    /// Messages whose next try or due time has come.
    pub fn due(&self, _now: Timestamp) -> Vec<(QuarantineId, State)> {
        todo!()
    }

    /// When the next one comes due.
    pub fn next_due(&self) -> Option<Timestamp> {
        todo!()
    }

    /// Removes parked messages older than `expire_after`; says which.
    pub async fn expire(&self, _now: Timestamp) -> Vec<QuarantineId> {
        todo!()
    }
}

impl Parking {
    /// The id that it will have.
    pub fn id(&self) -> QuarantineId {
        todo!()
    }

    /// Appends octets of the message as it arrived.
    ///
    /// # Errors
    /// It does not fit, or the disk fails.
    pub async fn write(&mut self, _content: &[u8]) -> Result<(), ParkError> {
        todo!()
    }

    /// Octets so far, and their SHA-256 in hexadecimal.
    pub fn digest(&self) -> (u64, String) {
        todo!()
    }

    /// Makes message and envelope durable. Only after this may the client be told 250.
    ///
    /// # Errors
    /// It could not be made durable; nothing is left behind.
    pub async fn commit(self, _envelope: &Envelope) -> Result<(), ParkError> {
        todo!()
    }
}

impl Claim {
    /// Its envelope.
    pub fn envelope(&self) -> &Envelope {
        todo!()
    }

    /// The message as it arrived, from its first octet.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub async fn message(&self) -> Result<tokio::fs::File, SpoolError> {
        todo!()
    }

    /// Writes a changed envelope, durably, and keeps the claim.
    ///
    /// # Errors
    /// It could not be written; the old one is still in force.
    pub async fn update(&mut self, _envelope: Envelope) -> Result<(), SpoolError> {
        todo!()
    }

    /// Removes the message: all are answered.
    ///
    /// # Errors
    /// The files could not be removed.
    pub async fn finish(self) -> Result<(), SpoolError> {
        todo!()
    }
}
