//! The types of the ledger's questions and answers.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::account::Account;
use crate::clock::Timestamp;
use crate::guard::cause::Cause;
use crate::history::{Block, Relayed, Sample, Uncounted};

/// Whether the upstream may be asked about an account's recipients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Yes.
    Open,
    /// No: the account's mail is parked or refused.
    Blocked,
}

/// A period in which an account's mail is delayed, since the sequential test alarmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probation {
    /// When the alarm came that began it.
    pub since: Timestamp,
    /// When it ends, unless there is a further alarm.
    pub until: Timestamp,
    /// Whether the abuse desk was told that it began.
    pub told: bool,
}

/// One attempt to reach a recipient that does not exist.
#[derive(Debug, Clone)]
pub struct Attempt<'a> {
    /// The address as the client wrote it, cleaned; for the sample in the notice.
    pub address: &'a str,
    /// Equal for attempts that `Count::Distinct` counts as one: the comparison key, or a broken path's octets.
    pub key: &'a [u8],
    /// The recipient's domain, or the host on the way to it whose name cannot be found; `None` for a broken path.
    pub domain: Option<&'a str>,
    /// Where the client connected from.
    pub client: IpAddr,
    /// When.
    pub now: Timestamp,
}

/// A moment by two clocks, since one of them may be put right in between.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// By the clock.
    pub at: Timestamp,
    /// By one that does not jump, and knows only the time of this process.
    pub instant: Instant,
}

/// The effect of an attempt.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// It counts.
    Counted {
        /// How many are in the window now, this one included. Below the limit, unless the account is observed or exempt: then
        /// up to [`super::MAX_LIMIT`].
        count: u32,
    },
    /// It does not count: the recipient's domain refuses everybody.
    CommonCause,
    /// The same address was counted within the period.
    Repeated,
    /// It crossed the limit, or with `on_alarm = "block"` the sequential test alarmed: this very attempt blocked the account
    /// (the record's block says why). Exactly one attempt gets this.
    Crossed(Box<Record>),
    /// It counts, the sequential test alarmed, and the account's probation began. [`super::Ledger::untold`] has it reported. The
    /// limit outweighs an alarm in the same attempt.
    Alarmed(Box<Record>),
    /// It counts, and the sequential test alarmed again: the probation is extended.
    AlarmedAgain(Box<Record>),
    /// It counts, and the sequential test alarmed without consequences (`on_alarm = "notify"`); at most once per account and
    /// day.
    Suspected(Box<Record>),
    /// It counts, and the sequential test alarmed for an account that is observed or exempt; at most once per account and day.
    WouldAlarm(Box<Record>),
    /// It reached the limit of an account that is observed or exempt; at most once per account and day.
    WouldBlock(Box<Record>),
    /// It does not count: the account was blocked meanwhile.
    Blocked,
}

/// How many samples an account's record keeps: the latest.
pub const SAMPLES: usize = 20;
/// How many relayed messages an account's record keeps: the latest.
pub const RELAYED: usize = 50;

/// Everything that is known of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Whose.
    pub account: Account,
    /// Invalid recipients in the window; for a blocked account, in the window at the time of the block.
    pub invalid_recipients: u32,
    /// The first attempt in the window.
    pub first: Option<Timestamp>,
    /// The last attempt in the window.
    pub last: Option<Timestamp>,
    /// The account's limit.
    pub limit: u32,
    /// The limit's period.
    pub period: Duration,
    /// The block, if any.
    pub block: Option<Block>,
    /// The probation, while it lasts or is still to be reported.
    pub probation: Option<Probation>,
    /// The latest counted attempts.
    pub samples: Vec<Sample>,
    /// The latest messages that the upstream took.
    pub relayed: Vec<Relayed>,
    /// Answers that did not count within the period. Lost at a restart.
    pub uncounted: Vec<Uncounted>,
}

/// A domain began or ended to be a common cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CauseChange {
    /// Its answers no longer count.
    Began(Cause),
    /// Its answers count again.
    Ended(Cause),
}

impl News {
    /// Returns the account it is about.
    pub fn account(&self) -> &Account {
        match self {
            Self::Unblocked { account, .. } => account,
            Self::Blocked(record) | Self::Probation(record) => &record.account,
        }
    }
}

impl Record {
    /// Returns the record of an account that did nothing yet, with its limit.
    pub fn blank(account: Account, limit: u32, period: Duration) -> Self {
        Self {
            account,
            invalid_recipients: 0,
            first: None,
            last: None,
            limit,
            period,
            block: None,
            probation: None,
            samples: Vec::new(),
            relayed: Vec::new(),
            uncounted: Vec::new(),
        }
    }
}

/// What the abuse desk, or a program, is still to be told; see [`super::Ledger::untold`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A block was lifted, or a probation ended by hand. The account may be blocked again.
    Unblocked {
        /// Whose.
        account: Account,
        /// When.
        at: Timestamp,
    },
    /// The account was blocked, possibly by hand; the record has the block.
    Blocked(Record),
    /// A probation began, and no block has overtaken it; the record has the probation, which may be over by now.
    Probation(Record),
}

/// Whether a change changed anything ("what is so already is done").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It did.
    Made,
    /// It was so already.
    WasSo,
}

/// Which of a day's recipients the upstream seems to accept blindly, since it refused none.
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
    #[error("{path} is in use by {}", holder(*.pid))]
    InUse {
        /// The lock file.
        path: String,
        /// The other's process id, if it is known.
        pid: Option<u32>,
    },
    /// It is damaged.
    #[error("the database {path} does not open: {cause}")]
    Broken {
        /// The database folder.
        path: String,
        /// What sled says.
        cause: String,
    },
    /// It does not open, and a fresh one would not either: the disk is full, or a file belongs to another user.
    #[error("the database {path} does not open: {cause}")]
    Unopenable {
        /// The database folder.
        path: String,
        /// Why.
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
    /// It could not be read.
    #[error("the ledger could not be read: {0}")]
    Read(String),
    /// A change could not be written.
    #[error(
        "the ledger could not be written: {0}; see to the room on the disk and to whose data_dir is, then give the command again"
    )]
    Write(String),
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".into(), |pid| format!("process {pid}"))
}
