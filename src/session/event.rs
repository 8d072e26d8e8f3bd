//! What can happen to a session, and what it asks its driver to do: the two types between the pure machine and the
//! loop with the sockets (submission.rs).

use crate::account::Account;
use crate::clock::Timestamp;
use crate::guard::mimicry::Precedents;
use crate::sender::rules::Rules;
use crate::smtp::{Command, CommandError, Extensions, MailCommand, RcptCommand, Reply};

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// The client is connected (over TLS on an implicit listener).
    Connected,
    /// A line came.
    Line(Result<Command, LineError>),
    /// TLS is up after STARTTLS.
    TlsEstablished,
    /// The SASL exchange is over.
    Authenticated(AuthOutcome),
    /// The oldest question that was asked has its answer.
    Answered(Answered),
    /// A chunk that does not end the message has come, of so many octets.
    ChunkReceived(u64),
    /// A chunk that could not be kept was thrown away.
    ChunkDiscarded,
    /// The message is where it belongs, or nowhere.
    Delivered(Delivery),
    /// Nothing came in time.
    TimedOut,
    /// The service is shutting down and the client is silent.
    Interrupted,
}

impl Event {
    /// Whether [`View::mechanisms`] matters to what is said.
    pub fn concerns_login(&self) -> bool {
        matches!(self, Self::Line(Ok(Command::Ehlo(_) | Command::Helo(_) | Command::Auth { .. })))
    }
}

/// A line that is no command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineError {
    /// By its text.
    Command(CommandError),
    /// Over 4,096 octets.
    TooLong,
    /// An AUTH command over 12,288 octets.
    AuthTooLong,
    /// A bare CR, a bare LF or a NUL.
    Fault,
    /// A RCPT over 4,096 octets.
    RcptTooLong,
    /// A RCPT with a bare CR, a bare LF or a NUL.
    RcptFault,
    /// A TLS client hello in place of a line.
    TlsHello,
}

/// How a SASL exchange ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthOutcome {
    /// It is this account.
    Success(Account),
    /// It is not: the same whatever the reason.
    Denied,
    /// No message of the mechanism.
    Malformed,
    /// No base64.
    BadBase64,
    /// A response over 12,288 octets.
    TooLong,
    /// The client sent `*`.
    Cancelled,
    /// The mechanism is not offered.
    NotOffered,
    /// Not now.
    Later,
    /// It is, but has too many sessions.
    Crowded,
}

/// Why there is no reply of the upstream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamFault {
    /// 451 4.4.1
    Unavailable,
    /// 451 4.4.1, for want of something of our own.
    Starved,
    /// 451 4.3.2
    Busy,
    /// 451 4.3.0
    Protocol,
    /// 451 4.4.2
    Ambiguous,
}

/// The answer to a question.
#[derive(Debug, Clone)]
pub enum Answered {
    /// The upstream's own reply.
    Replied(Reply),
    /// It gave none.
    Fault(UpstreamFault),
    /// A recipient about whom it was not asked, since it refused MAIL, for which it was asked late; with that reply.
    MailRefused(Reply),
    /// It was not asked after all, since the account had been blocked by the time its turn came.
    Unasked,
    /// A broken path was counted (or did not count).
    BrokenPath,
}

/// What became of a message.
#[derive(Debug, Clone)]
pub enum Delivery {
    /// The upstream's reply to the end of data, whatever it is.
    Replied(Reply),
    /// It is in the quarantine, durably.
    Parked,
    /// It was to be refused, and is gone.
    Refused,
    /// The upstream failed.
    Fault(UpstreamFault),
    /// A bare CR, a bare LF, a NUL.
    BadNewline,
    /// Over `max_message_size` or `max_header_size`.
    TooBig,
    /// An address in From: is not the account's.
    ForeignFrom,
    /// It has been through too many servers.
    Loop,
    /// It does not fit into the quarantine, or could not be made durable there; why it was to be parked.
    QuarantineFull(ParkReason),
    /// All sessions together hold too much mail data for its long header.
    NoMemory,
    /// It was to be relayed at once for want of that, and what had come of it cannot be read any more.
    Unreadable,
    /// Nobody decided where it goes: a defect of ours.
    NoRoute,
}

/// What the driver is to do next. Replies that have become ready were appended to its buffer already.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Take the next line.
    Read,
    /// Flush and close.
    Close,
    /// Flush, drop what was buffered, shake hands.
    StartTls,
    /// Hold a SASL exchange.
    Authenticate {
        /// Upper case.
        mechanism: String,
        /// As it stood in the command.
        initial: Option<String>,
    },
    /// Ask, without waiting for the answer.
    Ask(Ask),
    /// Flush (354 is in the buffer) and take the message up to its end-of-data.
    ReceiveData,
    /// Take so many octets of the message.
    ReceiveChunk {
        /// Octets.
        size: u64,
        /// Whether they end the message.
        last: bool,
    },
    /// Throw so many octets away.
    DiscardChunk(u64),
}

/// A question.
#[derive(Debug, PartialEq, Eq)]
pub enum Ask {
    /// To the upstream.
    Mail(MailCommand),
    /// To the upstream, counting the answer.
    Rcpt(RcptCommand),
    /// To the guard alone: a path that is none counts.
    BrokenPath(Vec<u8>),
}

/// Where a message goes, now that it (or as much of it as is held in memory) has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Destination {
    /// Upstream.
    Relay,
    /// Into the quarantine.
    Park(ParkOrder),
    /// Nowhere, and the client will be told so.
    Refuse,
}

/// What the envelope has to know of the reply that the client will get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkOrder {
    /// The 250.
    pub told: Reply,
    /// The made-up queue id in it.
    pub told_queue_id: Option<String>,
    /// Why it is parked.
    pub reason: ParkReason,
}

/// Why a message is parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParkReason {
    /// The account is blocked.
    Blocked,
    /// A recipient was answered unasked while the account was blocked.
    AnsweredUnasked,
    /// The account's credentials changed while the message was under way.
    CredentialsChanged,
    /// The account is on probation: the message goes out by itself in a while, and at once where it cannot be parked.
    Probation,
}

/// Why a session is to end at its next command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interruption {
    /// An operator ended it: 421 4.7.0
    Kicked,
    /// The account's credentials changed since it logged in: 421 4.7.0, and a message under way is parked
    CredentialsChanged,
    /// The service shuts down: 421 4.3.2
    ShuttingDown,
}

/// The world at the moment of an event.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// When that is.
    pub now: Timestamp,
    /// Whether the account is blocked.
    pub blocked: bool,
    /// Whether the account is on probation.
    pub probation: bool,
    /// Whether the quarantine has room (asked only where the account is blocked).
    pub room: bool,
    /// Whether the session is to end at its next command.
    pub interruption: Option<Interruption>,
    /// The SASL mechanisms to offer; empty: none.
    pub mechanisms: &'a str,
    /// The rest.
    pub sources: &'a dyn Sources,
}

/// What few events ask for, and costs something to look at.
pub trait Sources {
    /// The upstream's last replies.
    fn precedents(&self) -> &Precedents;
    /// What the upstream offers, as far as it is known.
    fn upstream(&self) -> Option<&Extensions>;
    /// As whom the account may send; `None` as long as there is no account.
    fn sender(&self) -> Option<(&Rules, &Account)>;
}

/// [`Sources`] that are known beforehand.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// [`Sources::precedents`]
    pub precedents: &'a Precedents,
    /// [`Sources::upstream`]
    pub upstream: Option<&'a Extensions>,
    /// [`Sources::sender`]
    pub sender: Option<(&'a Rules, &'a Account)>,
}

impl Sources for Given<'_> {
    fn precedents(&self) -> &Precedents {
        self.precedents
    }

    fn upstream(&self) -> Option<&Extensions> {
        self.upstream
    }

    fn sender(&self) -> Option<(&Rules, &Account)> {
        self.sender
    }
}
