//! The SMTP client for the MTA, or for several equivalent ones.
//!
//! Each client transaction has one [`Transaction`] upstream. Commands are asked without waiting and answered in order;
//! if the upstream closes a connection in mid-transaction, it is replaced and the accepted part repeated, without the
//! caller noticing. Replies are passed back unchanged: what they mean for a client or an account is decided elsewhere.
//! RFC 5321, 2920, 3207; Postfix XCLIENT_README.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::Guard;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::account::Account;
use crate::id::SessionId;
use crate::net::password::PasswordError;
use crate::net::tls::{self, TlsError};
use crate::smtp::{Extensions, MailCommand, RcptCommand, Reply};

mod chunks;
mod connection;
mod content;
mod dial;
mod endpoints;
mod login;
mod pool;
mod preparation;
mod repetition;
mod shared;
mod slot;
pub mod transaction;
mod transfer;
mod xclient;

#[cfg(test)]
mod scripted;
#[cfg(test)]
mod tests;

use endpoints::Endpoints;
use login::Login;
use pool::{IDLE_LIMIT, PATIENCE};
use shared::{Shared, offer_of};

pub use crate::net::address::{Address, Endpoint, Protection};
pub use crate::net::password::Credentials;
pub use crate::net::trust::KeyPair;
pub use preparation::SessionConnections;
pub use transaction::Transaction;

/// The part of `[upstream]` that this module needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The upstreams, at least one; they take turns.
    pub endpoints: Vec<Endpoint>,
    /// How TLS is used.
    pub protection: Protection,
    /// Trust anchors (PEM) in addition to the system's.
    pub ca: Option<PathBuf>,
    /// Our certificate, for upstreams that ask for one.
    pub identity: Option<KeyPair>,
    /// The name and password that we authenticate with, if any.
    pub credentials: Option<Credentials>,
    /// The name that we give in EHLO.
    pub hostname: String,
    /// Whether XCLIENT is used where it is offered.
    pub xclient: bool,
    /// The time until a connection is ready for MAIL.
    pub connect_timeout: Duration,
    /// The times for everything after that.
    pub timeouts: Timeouts,
    /// The most connections.
    pub max_connections: usize,
}

impl Settings {
    /// Whether XCLIENT is used where it is offered. Not after a login of our own: the upstream then knows whose mail
    /// this is, and XCLIENT would undo that.
    pub fn names_clients(&self) -> bool {
        self.xclient && self.credentials.is_none()
    }
}

/// How long a reply may take, by the command it answers (RFC 5321 4.5.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// MAIL.
    pub mail: Duration,
    /// RCPT.
    pub rcpt: Duration,
    /// DATA.
    pub data: Duration,
    /// A block of mail data; not a reply, but the time for it to go out.
    pub block: Duration,
    /// The end of data.
    pub end: Duration,
}

impl Timeouts {
    /// Uses `reply` for everything but the end of data, which gets `end`.
    pub fn new(reply: Duration, end: Duration) -> Self {
        Self { mail: reply, rcpt: reply, data: reply, block: reply, end }
    }
}

/// Why the upstream cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The trust anchors or our own certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The password file.
    #[error(transparent)]
    Password(#[from] PasswordError),
}

/// What one upstream offers, or why it gave no answer.
#[derive(Debug)]
pub struct Contact {
    /// The upstream's address.
    pub address: Address,
    /// What it offers before XCLIENT.
    pub offers: Result<Extensions, Fault>,
}

/// The client on whose behalf we speak, as XCLIENT tells the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The session; connections that carried its XCLIENT serve it alone.
    pub session: SessionId,
    /// The host name, if known.
    pub name: Option<String>,
    /// The address and port; IPv4-mapped addresses as IPv4.
    pub address: SocketAddr,
    /// The name given in EHLO or HELO.
    pub helo: Option<String>,
    /// Whether it said EHLO rather than HELO.
    pub extended: bool,
    /// The user name, if it authenticated.
    pub login: Option<String>,
}

impl ClientIdentity {
    /// The account that is responsible for the mail.
    pub(super) fn account(&self) -> Account {
        let user = self.login.as_deref().and_then(|name| Account::user(name).ok());
        user.unwrap_or_else(|| Account::host(self.address.ip()))
    }
}

/// A question to the upstream.
#[derive(Debug, Clone)]
pub enum Question {
    /// Opens the transaction; the first question of each.
    Mail(MailCommand),
    /// Asks whether this recipient exists.
    Rcpt(RcptCommand),
}

/// The upstream's answer to a question.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The upstream's own reply.
    Replied(Reply),
    /// No reply came, for this reason.
    None(Fault),
}

/// Why the upstream gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No connection was free for 10 s: 451 4.3.2
    #[error("all {0} upstream connections are in use")]
    Busy(usize),
    /// The upstream cannot be reached, refused the connection, EHLO or XCLIENT, was silent for too long, or closed: 451
    /// 4.4.1
    #[error("{0}")]
    Unavailable(String),
    /// The upstream was silent at RCPT for this long; perhaps not it, but the server that it asks: 451 4.4.1
    #[error("the upstream was silent for {0:?}")]
    Silent(Duration),
    /// We have no file descriptor left to connect with, which is not the upstream's fault: 451 4.4.1
    #[error("{0}")]
    Starved(String),
    /// The upstream sent something that is not SMTP: 451 4.3.0
    #[error("{0}")]
    Protocol(String),
    /// The upstream lacks an extension that the command uses: 451 4.3.0
    #[error("the upstream does not offer {0}")]
    MissingExtension(&'static str),
    /// When the transaction was repeated on a fresh connection, the upstream refused what it had accepted; nothing may
    /// be relayed: 451 4.4.1
    #[error("at the repetition the upstream refused what it had accepted: {0}")]
    NotRepeated(String),
    /// The mail data went out completely, but no reply came; the message may have been accepted: 451 4.4.2
    #[error("no reply to the end of data ({0}); the message may have been accepted")]
    Ambiguous(String),
}

/// Why mail data went no further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// The upstream refused DATA, or the message before it had all of it.
    Refused(Reply),
    /// The upstream gave no answer.
    Fault(Fault),
}

impl From<Fault> for Stopped {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Fault {
    /// The upstream gave more replies than it was asked for, so that they can no longer be matched to questions.
    pub fn out_of_step() -> Self {
        Self::Protocol("the upstream gave more replies than it was asked for".to_owned())
    }
}

/// The upstreams and the connections to them. Cheap to clone.
#[derive(Clone)]
pub struct Upstream {
    shared: Arc<Shared>,
}

impl Upstream {
    /// Reads the files named in the settings; does not connect yet.
    ///
    /// # Errors
    /// One of the files is missing or malformed.
    pub fn open(settings: Settings) -> Result<Self, OpenError> {
        Ok(Self { shared: Shared::open(settings, PATIENCE, IDLE_LIMIT)? })
    }

    /// What all reachable upstreams offered last (before XCLIENT) in common; `None` until one has answered.
    pub fn offers(&self) -> Guard<Option<Arc<Extensions>>> {
        self.shared.endpoints().common.load()
    }

    /// Connects to every upstream, even those left out, and updates [`Self::offers`]. One that has not answered within
    /// `patience` is reported as unavailable, though it may be well.
    pub async fn contact(&self, patience: Duration) -> Vec<Contact> {
        let count = self.shared.endpoints().count();
        let mut asking = JoinSet::new();
        for index in 0..count {
            let shared = Arc::clone(&self.shared);
            asking.spawn(async move {
                let late = |_| Err(Fault::Unavailable("no answer in time".to_owned()));
                (index, timeout(patience, shared.learn(index)).await.unwrap_or_else(late))
            });
        }
        let mut answers = asking.join_all().await;
        answers.sort_by_key(|(index, _)| *index);
        let contact = |(index, offers)| {
            let endpoint = self.shared.endpoints().get(index)?;
            Some(Contact { address: endpoint.address.clone(), offers })
        };
        answers.into_iter().filter_map(contact).collect()
    }

    /// Connects to the upstream whose turn it is, up to EHLO, or with `identity` up to XCLIENT; returns what it offers
    /// then.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn learn(&self, identity: Option<Arc<ClientIdentity>>) -> Result<Extensions, Fault> {
        let slot = self.shared.pool.place().await?;
        Ok(offer_of(Box::pin(self.shared.dial(slot, identity.as_ref(), &[])).await?))
    }

    /// Begins a transaction on behalf of a client. Takes no connection before its first answer.
    pub fn transaction(&self, identity: Arc<ClientIdentity>) -> Transaction {
        Transaction::new(Arc::clone(&self.shared), identity, None)
    }

    /// Returns a handle that closes the session's connections when dropped.
    pub fn session(&self, session: SessionId) -> SessionConnections {
        SessionConnections::new(self.clone(), session)
    }

    /// Closes the connections of a session that is over. Its transactions must have been dropped.
    pub fn end_session(&self, session: SessionId) {
        self.shared.pool.end_session(session);
    }

    /// Closes the idle connections of an account that has been blocked, and those being made. Those in use are closed by their
    /// sessions' [`SessionConnections::close`] once given back.
    pub fn end_account(&self, account: &Account) {
        self.shared.pool.end(|client| client.account() == *account);
    }

    /// Closes all idle connections with QUIT, and those in use as soon as their transactions are over.
    pub fn close(&self) {
        self.shared.pool.close();
    }
}
