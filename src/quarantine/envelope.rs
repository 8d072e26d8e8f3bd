//! What is known of a parked message beside its octets: readable, versioned text (JSON), pure.
//!
//! A version that is newer than ours is refused with a sentence, an unknown key too: nothing is dropped in silence.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::clock::Timestamp;
use crate::id::{QuarantineId, SessionId};
use crate::smtp::{ForwardPath, MailParameters, RcptParameters, Reply, ReversePath};

/// The version that this Gatepost writes, and the newest that it reads.
pub const VERSION: u32 = 1;

/// One parked message's envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// See [`VERSION`].
    pub version: u32,
    /// The name of its files.
    pub id: QuarantineId,
    /// Who sent it.
    pub account: Account,
    /// When the end of data came.
    pub parked: Timestamp,
    /// Why it was parked.
    pub reason: String,
    /// The session that brought it.
    pub session: SessionFacts,
    /// `MAIL FROM:`
    pub reverse_path: ReversePath,
    /// Its parameters.
    pub parameters: MailParameters,
    /// What the upstream had said to MAIL, where it was asked.
    pub mail_reply: Option<Reply>,
    /// Every RCPT that parsed, the refused ones too, in order.
    pub recipients: Vec<Recipient>,
    /// Octets of the message as it arrived.
    pub size: u64,
    /// SHA-256 of the message as it arrived, lower-case hexadecimal.
    pub sha256: String,
    /// The Subject, decoded (RFC 2047), as it came otherwise: clean it before showing it.
    pub subject: Option<String>,
    /// What is put in front at each transfer: Received, Date and Message-ID where missing, X-Authenticated-As.
    pub trace: String,
    /// The reply that the client got at the end of data.
    pub told: Reply,
    /// The made-up queue id in it.
    pub told_queue_id: Option<String>,
    /// When it goes out by itself (probation).
    pub due: Option<Timestamp>,
    /// Set from the first release on.
    pub release: Option<Release>,
}

/// The session that brought a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionFacts {
    /// The id in the log.
    pub id: SessionId,
    /// The client's address and port.
    pub client: SocketAddr,
    /// Its name, where it was looked up.
    pub client_name: Option<String>,
    /// What it said at EHLO or HELO, cleaned.
    pub helo: Option<String>,
    /// EHLO rather than HELO.
    pub extended: bool,
    /// The user name, where it authenticated.
    pub login: Option<String>,
    /// The TLS version and cipher suite.
    pub tls: Option<TlsFacts>,
}

/// How a session was encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFacts {
    /// `TLSv1.3`
    pub version: String,
    /// `TLS13_AES_256_GCM_SHA384`
    pub cipher: String,
}

/// One RCPT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipient {
    /// `RCPT TO:`
    pub forward_path: ForwardPath,
    /// Its parameters.
    pub parameters: RcptParameters,
    /// What the upstream said; `None` where it was not asked.
    pub upstream: Option<Reply>,
    /// Where it stands.
    pub state: RecipientState,
}

/// Where a recipient stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum RecipientState {
    /// The client was told a refusal: never sent to.
    Rejected,
    /// To be sent to.
    Pending,
    /// The upstream took it at a release.
    Delivered {
        /// Its reply to the end of data.
        reply: Reply,
        /// When.
        at: Timestamp,
    },
    /// The upstream refused it for good at a release.
    Refused {
        /// Its reply.
        reply: Reply,
        /// When.
        at: Timestamp,
    },
    /// Put off at the last try; will be tried again.
    Deferred {
        /// Its reply, or ours where it gave none.
        reply: Reply,
        /// When.
        at: Timestamp,
    },
}

/// A release under way or failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// When it was decided.
    pub requested: Timestamp,
    /// Whether the sender is not told of refused recipients.
    pub quiet: bool,
    /// Tries so far.
    pub tries: u32,
    /// The next try; `None`: failed, waits for the operator.
    pub next: Option<Timestamp>,
}

/// What a listing says of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Waits for an operator (or its due time).
    Parked,
    /// Released, some recipients still to be answered.
    Releasing,
    /// Released, and nobody took it.
    Failed,
    /// Its envelope does not parse.
    Unreadable,
}

/// Why a text is no envelope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// A newer Gatepost wrote it.
    #[error("the envelope has version {found}; this Gatepost knows up to {VERSION}. Use a newer Gatepost")]
    Newer {
        /// Its version.
        found: u32,
    },
    /// Not our text.
    #[error("the envelope does not parse: {0}")]
    Syntax(String),
}

impl Envelope {
    /// Where the message stands.
    pub fn state(&self) -> State {
        match &self.release {
            None => State::Parked,
            Some(Release { next: Some(_), .. }) => State::Releasing,
            Some(Release { next: None, .. }) => State::Failed,
        }
    }

    /// As text.
    pub fn encode(&self) -> String {
        todo!()
    }

    /// From text.
    ///
    /// # Errors
    /// It is newer, or no envelope.
    pub fn decode(_text: &str) -> Result<Self, EnvelopeError> {
        todo!()
    }
}
