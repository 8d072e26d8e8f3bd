//! What can happen to a session and what it asks of its driver: the types between the pure machine and the loop that
//! owns the sockets (submission.rs).

use crate::account::Account;
use crate::clock::Timestamp;
use crate::guard::mimicry::Precedents;
use crate::sender::rules::Rules;
use crate::smtp::{Command, CommandError, Extensions, MailCommand, RcptCommand, Reply};

/// Something that happened to the session.
#[derive(Debug)]
pub enum Event {
    /// The client has connected (over TLS on an implicit listener).
    Connected,
    /// A line has arrived.
    Line(Result<Command, LineError>),
    /// TLS is up after STARTTLS.
    TlsEstablished,
    /// The SASL exchange is over.
    Authenticated(AuthOutcome),
    /// The oldest open question has its answer.
    Answered(Answered),
    /// A chunk of this many octets has arrived that does not end the message.
    ChunkReceived(u64),
    /// A chunk that could not be accepted has been discarded.
    ChunkDiscarded,
    /// The message has reached its destination, or has failed.
    Delivered(Delivery),
    /// Nothing came in time.
    TimedOut,
    /// The service is shutting down and the client is silent.
    Interrupted,
}

impl Event {
    /// Whether the reply depends on [`View::mechanisms`].
    pub fn concerns_login(&self) -> bool {
        matches!(self, Self::Line(Ok(Command::Ehlo(_) | Command::Helo(_) | Command::Auth { .. })))
    }
}

/// Why a line is not a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineError {
    /// Its text is wrong.
    Command(CommandError),
    /// It is over 4,096 octets.
    TooLong,
    /// It is an AUTH command over 12,288 octets.
    AuthTooLong,
    /// It contains a bare CR, a bare LF or a NUL.
    Fault,
    /// It is a RCPT over 4,096 octets.
    RcptTooLong,
    /// It is a RCPT with a bare CR, a bare LF or a NUL.
    RcptFault,
    /// It is a TLS ClientHello.
    TlsHello,
}

/// How a SASL exchange ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthOutcome {
    /// The client has authenticated as this account.
    Success(Account),
    /// The credentials are wrong; the same whatever the reason.
    Denied,
    /// A response is not a message of the mechanism.
    Malformed,
    /// A response is not base64.
    BadBase64,
    /// A response is over 12,288 octets.
    TooLong,
    /// The client sent `*`.
    Cancelled,
    /// The mechanism is not offered.
    NotOffered,
    /// Authentication is being put off.
    Later,
    /// The credentials are right, but the account has too many sessions.
    Crowded,
}

/// Why there is no reply from the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamFault {
    /// The upstream does not answer: 451 4.4.1
    Unavailable,
    /// We lack a resource of our own: 451 4.4.1
    Starved,
    /// All connections are in use: 451 4.3.2
    Busy,
    /// The upstream broke SMTP: 451 4.3.0
    Protocol,
    /// The message may have been accepted: 451 4.4.2
    Ambiguous,
}

/// The answer to a question.
#[derive(Debug, Clone)]
pub enum Answered {
    /// The upstream's own reply.
    Replied(Reply),
    /// The upstream gave no reply.
    Fault(UpstreamFault),
    /// The recipient was not asked about, since a late MAIL was refused with this reply.
    MailRefused(Reply),
    /// The recipient was not asked about after all, since the account had been blocked by the time its turn came.
    Unasked,
    /// A broken path has been counted (or did not count).
    BrokenPath,
}

/// What became of a message.
#[derive(Debug, Clone)]
pub enum Delivery {
    /// The upstream gave this reply to the end of data.
    Replied(Reply),
    /// The message is durable in the quarantine.
    Parked,
    /// The message was to be refused, and is gone.
    Refused,
    /// The upstream failed.
    Fault(UpstreamFault),
    /// The message contains a bare CR, a bare LF or a NUL.
    BadNewline,
    /// The message is over `max_message_size` or `max_header_size`.
    TooBig,
    /// An address in From: is not the account's.
    ForeignFrom,
    /// The message has been through too many servers.
    Loop,
    /// The quarantine has no room, or could not make the message durable; with the reason for parking it.
    QuarantineFull(ParkReason),
    /// All sessions together hold too much mail data for its long header.
    NoMemory,
    /// The message could not be parked and was to be relayed at once, but what had come of it cannot be read any more.
    Unreadable,
    /// No destination was chosen: a defect of ours.
    NoRoute,
}

/// What the driver does next. Replies that are ready have already been appended to its buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Take the next line.
    Read,
    /// Flush, then close.
    Close,
    /// Flush, discard the buffered input, do the TLS handshake.
    StartTls,
    /// Run a SASL exchange.
    Authenticate {
        /// The mechanism, in upper case.
        mechanism: String,
        /// The initial response, as it stood in the command.
        initial: Option<String>,
    },
    /// Ask this without waiting for the answer.
    Ask(Ask),
    /// Flush (354 is in the buffer) and take the message up to its end of data.
    ReceiveData,
    /// Take this many octets of the message.
    ReceiveChunk {
        /// The number of octets.
        size: u64,
        /// Whether they end the message.
        last: bool,
    },
    /// Discard this many octets.
    DiscardChunk(u64),
}

/// A question.
#[derive(Debug, PartialEq, Eq)]
pub enum Ask {
    /// Ask the upstream.
    Mail(MailCommand),
    /// Ask the upstream, and count the answer.
    Rcpt(RcptCommand),
    /// Ask the guard alone, where a malformed path counts.
    BrokenPath(Vec<u8>),
}

/// Where a message goes. Decided once it has come, or as much of it as is held in memory.
#[derive(Debug, PartialEq, Eq)]
pub enum Destination {
    /// To the upstream.
    Relay,
    /// To the quarantine.
    Park(ParkOrder),
    /// Nowhere; the client will be told.
    Refuse,
}

/// What the envelope records of the reply that the client will get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkOrder {
    /// The 250 reply.
    pub told: Reply,
    /// The made-up queue ids in the reply, with a blank between two.
    pub told_queue_id: Option<String>,
    /// Why the message is parked.
    pub reason: ParkReason,
}

/// Why a message is parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParkReason {
    /// The account is blocked.
    Blocked,
    /// A recipient was accepted without asking while the account was blocked.
    AnsweredUnasked,
    /// The account's credentials changed while the message was under way.
    CredentialsChanged,
    /// The account is on probation: the message goes out by itself later, or at once if it cannot be parked.
    Probation,
}

/// Why a session ends at its next command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interruption {
    /// An operator ended the session: 421 4.7.0
    Kicked,
    /// The account's credentials changed after it logged in: 421 4.7.0, and a message under way is parked
    CredentialsChanged,
    /// The service is shutting down: 421 4.3.2
    ShuttingDown,
}

/// The world as seen at the moment of an event.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// Whether the account is blocked.
    pub blocked: bool,
    /// Why the session is to end at its next command, if it is.
    pub interruption: Option<Interruption>,
    /// The SASL mechanisms to offer; empty if there are none. Needed only if [`Event::concerns_login`].
    pub mechanisms: &'a str,
    /// What few events need.
    pub sources: &'a dyn Sources,
}

/// What few events need, and is costly to look at.
pub trait Sources {
    /// The time of the event.
    fn time(&self) -> Timestamp;
    /// Whether the account is on probation.
    fn probation(&self) -> bool;
    /// The upstream's most recent replies.
    fn precedents(&self) -> &Precedents;
    /// What the upstream offers, as far as known.
    fn upstream(&self) -> Option<&Extensions>;
    /// The sender addresses that the account may use; `None` while there is no account.
    fn sender(&self) -> Option<(&Rules, &Account)>;
    /// Whether the quarantine has room. Looked at where nothing else is left to decide: if not, the client is told so.
    fn room(&self) -> bool;
}

/// [`Sources`] with values known in advance.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// [`Sources::time`]
    pub time: Timestamp,
    /// [`Sources::probation`]
    pub probation: bool,
    /// [`Sources::precedents`]
    pub precedents: &'a Precedents,
    /// [`Sources::upstream`]
    pub upstream: Option<&'a Extensions>,
    /// [`Sources::sender`]
    pub sender: Option<(&'a Rules, &'a Account)>,
    /// [`Sources::room`]
    pub room: bool,
}

impl Sources for Given<'_> {
    fn time(&self) -> Timestamp {
        self.time
    }

    fn probation(&self) -> bool {
        self.probation
    }

    fn precedents(&self) -> &Precedents {
        self.precedents
    }

    fn upstream(&self) -> Option<&Extensions> {
        self.upstream
    }

    fn sender(&self) -> Option<(&Rules, &Account)> {
        self.sender
    }

    fn room(&self) -> bool {
        self.room
    }
}
