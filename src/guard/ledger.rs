//! Counts and blocks, durable: the only file that names sled.
//!
//! Memory answers, the disk remembers: each account in use has one entry under its own lock; what changes is written
//! as one value and flushed (sled's flush, then fdatasync, since the former is no fsync) before [`Watch::count`] returns. One writer
//! thread batches the flushes of all sessions. Where writing fails the state holds in memory and is tried again each
//! second. A recipient that exists costs no disk access. No type of sled's appears in the interface.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::mimicry::{Place, Precedents};
use crate::account::Account;
use crate::clock::Timestamp;
use crate::smtp::Reply;

/// `[limit] count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// The same address again within the period neither counts nor renews the first one's time.
    Distinct,
    /// Every RCPT counts.
    Attempts,
}

/// When an account is blocked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The Nth invalid recipient within `period` blocks.
    pub invalid_recipients: u32,
    /// How long an attempt counts.
    pub period: Duration,
    /// What counts.
    pub count: Count,
    /// Count, but never block by itself.
    pub observe: bool,
    /// Accounts that are never blocked automatically.
    pub exempt: HashSet<Account>,
}

/// May this account's recipients be asked about?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Yes.
    Open,
    /// No: what it sends is parked.
    Blocked,
}

/// Who or what blocked an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlockedBy {
    /// The limit.
    Limit,
    /// An operator, by hand.
    Operator,
    /// The sequential test.
    Detection,
}

/// A block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Since when.
    pub at: Timestamp,
    /// By what.
    pub by: BlockedBy,
    /// What the operator said, or the limit that was reached.
    pub reason: Option<String>,
}

/// One attempt to reach a recipient that does not exist.
#[derive(Debug, Clone)]
pub struct Attempt<'a> {
    /// As the client wrote it, cleaned; for the sample in the notice.
    pub address: &'a str,
    /// Equal for attempts that `Count::Distinct` takes for the same: the comparison key, or a broken path's octets.
    pub key: &'a [u8],
    /// Where the client connected from.
    pub client: IpAddr,
    /// When.
    pub now: Timestamp,
}

/// What an attempt did.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// It counts; so many are in the window now.
    Counted {
        /// This one included.
        count: u32,
    },
    /// The same address was counted within the period.
    Repeated,
    /// It crossed the limit: the account is blocked now, by this very attempt. Just one attempt gets this.
    Crossed(Box<Record>),
    /// It reached the limit of an account that is observed or exempt; at most once an account and day.
    WouldBlock(Box<Record>),
    /// The account was blocked meanwhile.
    Blocked,
}

/// A message that the upstream took, for the postmaster to clear from its queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relayed {
    /// When.
    pub at: Timestamp,
    /// The upstream's final reply, in which its queue id stands.
    pub reply: String,
    /// The message's Message-ID.
    pub message_id: Option<String>,
}

/// One counted attempt in a sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When.
    pub at: Timestamp,
    /// The address.
    pub address: String,
    /// The client's address.
    pub client: IpAddr,
}

/// How many samples, and how many relayed messages, an account's record keeps: the latest.
pub const SAMPLES: usize = 20;
/// See [`SAMPLES`].
pub const RELAYED: usize = 50;

/// All that is known of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Whose.
    pub account: Account,
    /// Invalid recipients in the window.
    pub invalid_recipients: u32,
    /// The first attempt in the window.
    pub first: Option<Timestamp>,
    /// The last attempt.
    pub last: Option<Timestamp>,
    /// The block, if any.
    pub block: Option<Block>,
    /// The latest counted attempts.
    pub samples: Vec<Sample>,
    /// The latest messages that the upstream took.
    pub relayed: Vec<Relayed>,
}

/// Whether a change changed anything ("what is so already is done").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It did.
    Made,
    /// It was so already.
    WasSo,
}

/// A day's recipients met no refusal: the upstream seems to accept everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blindness {
    /// All recipients.
    Everybody,
    /// Those at domains other than its own.
    Foreign,
}

/// Why the ledger could not be opened or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LedgerError {
    /// Another process has it open.
    #[error("{path} is in use by another process")]
    InUse {
        /// The lock file.
        path: String,
    },
    /// It does not open.
    #[error("the database {path} does not open: {cause}")]
    Broken {
        /// The database folder.
        path: String,
        /// What sled says.
        cause: String,
    },
    /// It was written by a newer Gatepost.
    #[error(
        "the database {path} has version {found}; this Gatepost knows up to {known}. Use a newer Gatepost"
    )]
    Newer {
        /// The database folder.
        path: String,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A change could not be written.
    #[error("the ledger could not be written: {0}")]
    Write(String),
}

/// Counts and blocks of all accounts. Cheap to clone.
#[derive(Clone)]
pub struct Ledger {
    // helper C
}

/// One session's view of its account. While one exists the account's entry stays in memory.
pub struct Watch {
    // helper C
}

/// Leave to have so many RCPTs of the account in flight; dropping it gives them back.
#[must_use]
pub struct Reservation {
    // helper C
}

impl Reservation {
    /// How many RCPTs may be asked.
    pub fn granted(&self) -> usize {
        todo!()
    }

    /// Gives one back: its answer has come (after it was counted, where it counts).
    pub fn release_one(&mut self) {
        todo!()
    }
}

impl Ledger {
    /// Opens `dir/ledger` (making it where it is not), heals what a kill during an earlier open left, and starts the writer.
    ///
    /// # Errors
    /// In use, broken, newer, or not writable.
    pub fn open(_dir: &Path, _policy: Policy) -> Result<Self, LedgerError> {
        todo!()
    }

    /// A session's view of `account`.
    pub async fn watch(&self, _account: &Account, _now: Timestamp) -> Watch {
        todo!()
    }

    /// Blocks by hand. `Ok(Change::WasSo)` for an account that is blocked.
    ///
    /// # Errors
    /// It holds in memory, but could not be written (yet).
    pub async fn block(
        &self,
        _account: &Account,
        _reason: Option<&str>,
        _now: Timestamp,
    ) -> Result<Change, LedgerError> {
        todo!()
    }

    /// Lifts a block and forgets the window.
    ///
    /// # Errors
    /// As [`Self::block`].
    pub async fn unblock(&self, _account: &Account, _now: Timestamp) -> Result<Change, LedgerError> {
        todo!()
    }

    /// What is known of one account; `None` for one with neither an attempt in the window nor a block.
    pub async fn record(&self, _account: &Account, _now: Timestamp) -> Option<Record> {
        todo!()
    }

    /// A page of the accounts with an attempt in the window or a block, by name, behind `after`; at most `limit`.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn records(
        &self,
        _after: Option<&Account>,
        _limit: usize,
        _now: Timestamp,
    ) -> Result<Vec<Record>, LedgerError> {
        todo!()
    }

    /// The upstream's last replies.
    pub fn precedents(&self) -> Arc<Precedents> {
        todo!()
    }

    /// Takes note of an upstream's reply to MAIL, RCPT or the end of data; written within seconds, without waiting.
    pub fn learn(&self, _place: Place, _address: &str, _reply: &Reply) {
        todo!()
    }

    /// Takes note of one probed recipient of the day (UTC); once a day and kind says that the first 1,000 met no refusal.
    pub fn tally(&self, _foreign: bool, _refused: bool, _now: Timestamp) -> Option<Blindness> {
        todo!()
    }

    /// Why the last write failed; `None` while all is written. Changes are announced.
    pub fn trouble(&self) -> tokio::sync::watch::Receiver<Option<String>> {
        todo!()
    }

    /// Changes the policy of all accounts from now on.
    pub fn set_policy(&self, _policy: Policy) {
        todo!()
    }

    /// Writes all that is pending and closes.
    pub async fn close(&self) {
        todo!()
    }
}

impl Watch {
    /// Whose.
    pub fn account(&self) -> &Account {
        todo!()
    }

    /// Open or blocked, as of now. Takes no lock that is held across I/O.
    pub fn standing(&self) -> Standing {
        todo!()
    }

    /// The block, if any.
    pub fn block(&self) -> Option<Block> {
        todo!()
    }

    /// Leave for up to `wanted` (at least 1) RCPTs. Those in flight over all sessions plus the count never exceed the limit;
    /// waits until at least one is free. `None` as soon as the account is blocked. An account that is observed or exempt
    /// always gets all.
    pub async fn reserve(&self, _wanted: usize, _now: Timestamp) -> Option<Reservation> {
        todo!()
    }

    /// The same without waiting: `granted()` may be 0.
    pub fn try_reserve(&self, _wanted: usize, _now: Timestamp) -> Option<Reservation> {
        todo!()
    }

    /// Counts an invalid recipient; returns when it is durable, or known not to be for now (`Ledger::trouble` says so).
    pub async fn count(&self, _attempt: Attempt<'_>) -> Verdict {
        todo!()
    }

    /// Takes note of a message that the upstream took: in memory, written with the next attempt.
    pub fn relayed(&self, _message: Relayed) {
        todo!()
    }

    /// What is known of the account.
    pub fn record(&self, _now: Timestamp) -> Record {
        todo!()
    }
}
