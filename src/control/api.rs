//! The control API's requests and answers: what travels over the socket, and what `--json` prints.
//!
//! A command is one [`Request`]; it is answered by any number of [`Answer`]s, one JSON object a line, as they come. The
//! keys of the answers are a public promise: they may be added to, never renamed.

use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::clock::Timestamp;
use crate::guard::ledger::{BlockedBy, Record};
use crate::id::QuarantineId;
use crate::quarantine::envelope::{RecipientState, State};
use crate::quarantine::progress::ReleaseOutcome;
use crate::quarantine::spool::{self, Filter};
use crate::quarantine::{Awaited, Envelope, Recipient};
use crate::release::Report;
use crate::smtp::Reply;

/// One command.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Request {
    /// Lists the accounts with an invalid recipient in the window or a block.
    Status,
    /// Blocks an account by hand.
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
        /// Whether to release all of its parked messages too.
        release: bool,
        /// Whether to end its open sessions too.
        kick: bool,
    },
    /// Ends an account's open sessions at their next command.
    Kick {
        /// Whose.
        account: Account,
    },
    /// Lists parked messages, oldest first.
    List {
        /// Which.
        filter: Filter,
        /// The most messages to list; `None`: all.
        limit: Option<usize>,
    },
    /// Returns one message's envelope.
    Envelope {
        /// Its id, or the queue id that the client was told.
        id: String,
        /// What for.
        purpose: Purpose,
    },
    /// Releases messages.
    Release {
        /// Which.
        which: Selection,
        /// Whether the sender is not notified of refused recipients.
        quiet: bool,
    },
    /// Removes messages for good.
    Delete {
        /// Which.
        which: Selection,
    },
    /// Leaves an audit line about a command that needs nothing else from `serve`.
    Audit {
        /// The command, such as `user add`.
        done: String,
        /// What it was done to.
        object: String,
        /// Its outcome.
        outcome: String,
    },
}

impl Request {
    /// Returns whether the command changes nothing.
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
    /// All messages of an account.
    Account(Account),
    /// All messages.
    All,
}

/// Why somebody looks at a message, for the audit line.
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
    /// The envelope as it is on disk.
    Envelope,
}

/// One line of an answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To `status`: about the upstream; comes first.
    Upstream(UpstreamStatus),
    /// To `status`: about the quarantine; comes before the accounts.
    Quarantine(Vec<Stock>),
    /// To `status`: one account.
    Account(AccountStatus),
    /// To `block`, `unblock`, `kick`.
    Changed(Changed),
    /// To `quarantine list`: one message. To `quarantine export`: a message that cannot be read.
    Entry(Entry),
    /// To `quarantine show` and `quarantine export`.
    Envelope(Box<Envelope>),
    /// To `quarantine release`: one message.
    Released(Released),
    /// To `quarantine delete`: one message.
    Deleted(Deleted),
    /// Something the operator should know, whatever the command.
    Warning(String),
    /// The command failed, or failed for one of several objects; why, and what to do.
    Failure(String),
}

/// What the upstream answered today (UTC) when it was asked about recipients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamStatus {
    /// How many recipients it was asked about.
    pub asked: u64,
    /// How many it refused, for whatever reason.
    pub refused: u64,
    /// How many of those asked were at domains other than its own.
    pub foreign_asked: u64,
    /// How many of these it refused.
    pub foreign_refused: u64,
    /// Whether it seems to accept everybody, at least at foreign domains.
    pub blind: bool,
    /// How many domains refuse everybody at present: a common cause.
    pub common_causes: u64,
    /// How many of their answers did not count, since each common cause began.
    pub not_counted: u64,
}

/// What the quarantine has in one state, whosever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stock {
    /// In which.
    pub state: State,
    /// How many messages.
    pub messages: u64,
    /// How many octets, of the messages alone.
    pub octets: u64,
}

/// The state of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountState {
    /// It merely has invalid recipients in the window.
    Counting,
    /// Its mail goes out with a delay.
    Probation,
    /// Its mail is parked.
    Blocked,
}

impl AccountState {
    /// The word for it, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counting => "counting",
            Self::Probation => "probation",
            Self::Blocked => "blocked",
        }
    }
}

/// One account, as `status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountStatus {
    /// Whose.
    pub account: Account,
    /// Its state.
    pub state: AccountState,
    /// Invalid recipients in the window.
    pub invalid_recipients: u32,
    /// The number of invalid recipients at which it is blocked.
    pub limit: u32,
    /// The period of the limit, in seconds.
    pub period_seconds: u64,
    /// The first attempt in the window.
    pub first: Option<Timestamp>,
    /// The last attempt in the window.
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
    /// When its probation ends; until then its mail is delayed.
    pub probation_until: Option<Timestamp>,
    /// How many of its messages in the quarantine go out by themselves.
    pub awaited: u64,
    /// When the next of them goes out.
    pub next_due: Option<Timestamp>,
}

impl AccountStatus {
    /// Combines what the ledger, the quarantine and the roster know about an account.
    pub fn new(record: Record, parked: u64, awaited: Awaited, sessions: usize, now: Timestamp) -> Self {
        let until = record.probation.map(|probation| probation.until).filter(|until| *until > now);
        let state = match (&record.block, until) {
            (Some(_), _) => AccountState::Blocked,
            (None, Some(_)) => AccountState::Probation,
            (None, None) => AccountState::Counting,
        };
        // A block holds them back.
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
    /// False if it was so already.
    pub changed: bool,
    /// Its open sessions.
    pub sessions: usize,
    /// Whether those were told to end.
    pub kicked: bool,
    /// Its messages in the quarantine.
    pub parked: u64,
    /// Its state before, if it was blocked or on probation.
    pub was: Option<AccountState>,
    /// How many of those messages go out by themselves.
    pub awaited: u64,
    /// When the last of them goes out.
    pub last_due: Option<Timestamp>,
}

/// One message, as `quarantine list` shows it. What is unknown about an unreadable one is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which.
    pub id: QuarantineId,
    /// When its end of data arrived; for an unreadable one, when its id was made.
    pub time: Timestamp,
    /// Who sent it.
    pub account: Option<Account>,
    /// The reverse-path; `""` is the null one.
    pub sender: Option<String>,
    /// The forward-paths for which the client was told 250; during a release, only those not answered yet.
    pub recipients: Vec<String>,
    /// Its size in octets.
    pub size: u64,
    /// The Subject, decoded but not cleaned.
    pub subject: Option<String>,
    /// Its state.
    pub state: State,
    /// Why it was parked; for an unreadable one, why it is unreadable.
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
        // CONTRACT, Release: a message that is releasing stays with those recipients who have no answer yet.
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
    /// The outcome of the first try.
    pub outcome: ReleaseOutcome,
    /// Recipients it was delivered to, in this try or an earlier one.
    pub delivered: Vec<Answered>,
    /// Recipients refused for good.
    pub refused: Vec<Answered>,
    /// Recipients that will be tried again.
    pub deferred: Vec<Answered>,
}

impl From<Report> for Released {
    fn from(report: Report) -> Self {
        let answered = |list: Vec<(String, Reply)>| {
            list.into_iter()
                .map(|(recipient, reply)| Answered { recipient, reply: reply.to_string() })
                .collect()
        };
        Self {
            id: report.id,
            outcome: report.outcome,
            delivered: answered(report.delivered),
            refused: answered(report.refused),
            deferred: answered(report.deferred),
        }
    }
}

/// One recipient and the upstream's reply.
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
    /// Always `deleted`; a message that could not be deleted is a failure.
    pub outcome: DeleteOutcome,
}

/// See [`Deleted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeleteOutcome {
    /// It is gone.
    Deleted,
}
