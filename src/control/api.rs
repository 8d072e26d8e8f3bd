//! The control API's questions and answers: what travels over the socket, and what `--json` prints.
//!
//! A command is one [`Request`]; it is answered by any number of [`Answer`]s, one JSON object a line, as they come
//! about. The keys of the answers are promised to the outside: they may be added to, never renamed.

use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::clock::Timestamp;
use crate::guard::ledger::{BlockedBy, Record};
use crate::id::QuarantineId;
use crate::quarantine::envelope::{RecipientState, State};
use crate::quarantine::progress::ReleaseOutcome;
use crate::quarantine::spool::{self, Filter};
use crate::quarantine::{Awaited, Envelope, Recipient};

/// One command.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Request {
    /// The accounts with an invalid recipient in the window or a block.
    Status,
    /// Blocks by hand.
    Block {
        /// Whom.
        account: Account,
        /// Why; shown by `status`.
        reason: Option<String>,
    },
    /// Lifts a block, and forgets the window.
    Unblock {
        /// Whose.
        account: Account,
        /// Releases all of its parked messages too.
        release: bool,
        /// Ends its open sessions too.
        kick: bool,
    },
    /// Ends an account's open sessions at their next command.
    Kick {
        /// Whose.
        account: Account,
    },
    /// Parked messages, oldest first.
    List {
        /// Which.
        filter: Filter,
        /// At the most; `None`: all.
        limit: Option<usize>,
    },
    /// One message's envelope.
    Envelope {
        /// Its id, or the queue id that the client was told.
        id: String,
        /// What for.
        purpose: Purpose,
    },
    /// Relays messages after all.
    Release {
        /// Which.
        which: Selection,
        /// The sender is not told of refused recipients.
        quiet: bool,
    },
    /// Removes messages for good.
    Delete {
        /// Which.
        which: Selection,
    },
    /// Leaves an audit line about a command that needs nothing else of `serve`.
    Audit {
        /// The command, such as `user add`.
        done: String,
        /// What it was done to.
        object: String,
        /// What came of it.
        outcome: String,
    },
}

impl Request {
    /// Whether it changes nothing, and is asked for the answer alone.
    pub(super) fn only_looks(&self) -> bool {
        match self {
            Self::Status | Self::List { .. } | Self::Envelope { .. } => true,
            Self::Block { .. }
            | Self::Unblock { .. }
            | Self::Kick { .. }
            | Self::Release { .. }
            | Self::Delete { .. }
            | Self::Audit { .. } => false,
        }
    }
}

/// Messages to be released or deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    /// These, by id or by the queue id that the client was told.
    Ids(Vec<String>),
    /// All of an account.
    Account(Account),
    /// All.
    All,
}

/// Why somebody looks into a message; the audit line says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// `quarantine show`
    Show,
    /// `quarantine show --raw`
    Raw,
    /// `quarantine export`
    Export,
}

/// Which file of a message is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The message as it arrived.
    #[default]
    Message,
    /// The envelope as it stands on disk.
    Envelope,
}

/// One line of an answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To `status`: of the upstream, first of all.
    Upstream(UpstreamStatus),
    /// To `status`.
    Account(AccountStatus),
    /// To `block`, `unblock`, `kick`.
    Changed(Changed),
    /// To `quarantine list`; to `quarantine export`, of a message that cannot be read.
    Entry(Entry),
    /// To `quarantine show` and `quarantine export`.
    Envelope(Box<Envelope>),
    /// To `quarantine release`: one message.
    Released(Released),
    /// To `quarantine delete`: one message.
    Deleted(Deleted),
    /// Something that the operator should know, whatever was asked.
    Warning(String),
    /// It failed, or failed for one of several things; why, and what to do.
    Failure(String),
}

/// What the upstream said today (UTC) when it was asked about recipients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamStatus {
    /// About how many it was asked.
    pub asked: u64,
    /// How many it refused, for whatever reason.
    pub refused: u64,
    /// Of those asked, at domains other than its own.
    pub foreign_asked: u64,
    /// And refused.
    pub foreign_refused: u64,
    /// It seems to accept everybody, be it only at foreign domains.
    pub blind: bool,
    /// Domains that refuse everybody just now: a common cause.
    pub common_causes: u64,
    /// Answers of theirs that did not count since each began.
    pub not_counted: u64,
}

/// What an account is up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountState {
    /// Invalid recipients in the window, no more.
    Counting,
    /// What it sends goes out with a delay.
    Probation,
    /// What it sends is parked.
    Blocked,
}

/// One account, as `status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountStatus {
    /// Whose.
    pub account: Account,
    /// Where it stands.
    pub state: AccountState,
    /// In the window.
    pub invalid_recipients: u32,
    /// With so many it is blocked.
    pub limit: u32,
    /// Within this.
    pub period_seconds: u64,
    /// The first attempt in the window.
    pub first: Option<Timestamp>,
    /// The last attempt.
    pub last: Option<Timestamp>,
    /// Since when it is blocked.
    pub blocked_at: Option<Timestamp>,
    /// By what.
    pub blocked_by: Option<BlockedBy>,
    /// Why.
    pub reason: Option<String>,
    /// Its messages in the quarantine.
    pub parked: u64,
    /// Its open sessions.
    pub sessions: usize,
    /// Until when what it sends is delayed.
    pub probation_until: Option<Timestamp>,
    /// So many of its messages in the quarantine go out by themselves.
    pub awaited: u64,
    /// When the next of them does.
    pub next_due: Option<Timestamp>,
}

impl AccountStatus {
    /// From what the ledger, the quarantine and the roster know, and the limit of this account.
    pub fn new(record: Record, parked: u64, awaited: Awaited, sessions: usize, now: Timestamp) -> Self {
        let until = record.probation.map(|probation| probation.until).filter(|until| *until > now);
        let state = match (&record.block, until) {
            (Some(_), _) => AccountState::Blocked,
            (None, Some(_)) => AccountState::Probation,
            (None, None) => AccountState::Counting,
        };
        // A block keeps them.
        let awaited = if state == AccountState::Blocked { Awaited::default() } else { awaited };
        let (blocked_at, blocked_by, reason) = match record.block {
            Some(block) => (Some(block.at), Some(block.by), block.reason),
            None => (None, None, None),
        };
        Self {
            account: record.account,
            state,
            invalid_recipients: record.invalid_recipients,
            limit: record.limit,
            period_seconds: record.period.as_secs(),
            first: record.first,
            last: record.last,
            blocked_at,
            blocked_by,
            reason,
            parked,
            sessions,
            probation_until: until.filter(|_| state == AccountState::Probation),
            awaited: awaited.messages,
            next_due: awaited.next,
        }
    }
}

/// What was done to an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// `block`
    Blocked,
    /// `unblock`
    Unblocked,
    /// `kick`
    Kicked,
}

/// A change to an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Whose.
    pub account: Account,
    /// What was done.
    pub done: Deed,
    /// False where it was so already.
    pub changed: bool,
    /// Its open sessions.
    pub sessions: usize,
    /// Whether those were told to end.
    pub kicked: bool,
    /// Its messages in the quarantine.
    pub parked: u64,
    /// What it was before, if it was blocked or on probation.
    pub was: Option<AccountState>,
    /// So many of those go out by themselves.
    pub awaited: u64,
    /// When the last of them does.
    pub last_due: Option<Timestamp>,
}

/// One message, as `quarantine list` shows it. What is not known of an unreadable one is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which.
    pub id: QuarantineId,
    /// When its end of data came.
    pub time: Timestamp,
    /// Who sent it.
    pub account: Option<Account>,
    /// The reverse-path; `""` is the null one.
    pub sender: Option<String>,
    /// The forward-paths that the client was told 250 for; while it is being released, those of them that are not answered yet.
    pub recipients: Vec<String>,
    /// Octets.
    pub size: u64,
    /// Decoded, not cleaned.
    pub subject: Option<String>,
    /// Where it stands.
    pub state: State,
    /// Why it was parked; of an unreadable one, why it is.
    pub reason: String,
    /// When it goes out by itself.
    pub due: Option<Timestamp>,
}

impl From<spool::Entry> for Entry {
    fn from(entry: spool::Entry) -> Self {
        match entry {
            spool::Entry::Message(envelope) => Self::from(*envelope),
            spool::Entry::Unreadable { id, size, cause } => Self {
                id,
                time: id.born(),
                account: None,
                sender: None,
                recipients: Vec::new(),
                size,
                subject: None,
                state: State::Unreadable,
                reason: cause,
                due: None,
            },
        }
    }
}

impl From<Envelope> for Entry {
    fn from(envelope: Envelope) -> Self {
        let state = envelope.state();
        // CONTRACT, Release: a message that is releasing stays with those who have no answer yet.
        let is_its_own = |recipient: &&Recipient| match state {
            State::Releasing => recipient.is_open(),
            State::Parked | State::Failed | State::Unreadable => recipient.state != RecipientState::Rejected,
        };
        Self {
            id: envelope.id,
            time: envelope.parked,
            account: Some(envelope.account),
            sender: Some(envelope.reverse_path.as_str().to_owned()),
            recipients: envelope
                .recipients
                .iter()
                .filter(is_its_own)
                .map(|recipient| recipient.forward_path.as_str().to_owned())
                .collect(),
            size: envelope.size,
            subject: envelope.subject,
            state,
            reason: envelope.reason,
            due: envelope.due.filter(|_| state == State::Parked),
        }
    }
}

/// The release of one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// Which.
    pub id: QuarantineId,
    /// What became of it at the first try.
    pub outcome: ReleaseOutcome,
    /// Those who got it, now or in an earlier try.
    pub delivered: Vec<Answered>,
    /// Those who were refused for good.
    pub refused: Vec<Answered>,
    /// Those who will be tried again.
    pub deferred: Vec<Answered>,
}

/// One recipient, and what the upstream said of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// The forward-path.
    pub recipient: String,
    /// The upstream's reply, on one line.
    pub reply: String,
}

/// The removal of one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// Which.
    pub id: QuarantineId,
    /// Always `deleted`; what could not be is a failure.
    pub outcome: DeleteOutcome,
}

/// See [`Deleted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeleteOutcome {
    /// It is gone.
    Deleted,
}
