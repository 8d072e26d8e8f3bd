//! The SMTP client towards the MTA, or towards several that are alike.
//!
//! One [`Transaction`] upstream for one of a client's. Commands are asked without waiting and answered in order; a connection
//! that the upstream closes in mid-transaction is replaced, the accepted part repeated, without the caller noticing.
//! Replies go back as they came: what they mean for a client or an account is decided elsewhere. RFC 5321, 2920, 3207;
//! Postfix XCLIENT_README.

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
pub use transaction::Transaction;

/// `[upstream]`, as this module needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// At least one; they take turns.
    pub endpoints: Vec<Endpoint>,
    /// TLS.
    pub protection: Protection,
    /// Further trust anchors (PEM) beside the system's.
    pub ca: Option<PathBuf>,
    /// Our certificate, for upstreams that ask for one.
    pub identity: Option<KeyPair>,
    /// As whom we authenticate, if anybody.
    pub credentials: Option<Credentials>,
    /// Our EHLO name.
    pub hostname: String,
    /// Whether XCLIENT is used where it is offered.
    pub xclient: bool,
    /// Until it is ready for MAIL.
    pub connect_timeout: Duration,
    /// For all that comes then.
    pub timeouts: Timeouts,
    /// Connections at the most.
    pub max_connections: usize,
}

impl Settings {
    /// Whether XCLIENT is used where it is offered. With a login of our own it is not: the upstream has been told whose
    /// mail this is, and XCLIENT would take that back.
    pub fn names_clients(&self) -> bool {
        self.xclient && self.credentials.is_none()
    }
}

/// How long a reply may take, by what it answers (RFC 5321 4.5.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// MAIL.
    pub mail: Duration,
    /// RCPT.
    pub rcpt: Duration,
    /// DATA.
    pub data: Duration,
    /// No reply: for a block of mail data to go out.
    pub block: Duration,
    /// The end of data.
    pub end: Duration,
}

impl Timeouts {
    /// `reply` for each but that to the end of data, which has `end`.
    pub fn new(reply: Duration, end: Duration) -> Self {
        Self { mail: reply, rcpt: reply, data: reply, block: reply, end }
    }
}

/// Why the upstream cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Trust anchors or our own certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The file with the password.
    #[error(transparent)]
    Password(#[from] PasswordError),
}

/// What came of asking one upstream what it offers.
#[derive(Debug)]
pub struct Contact {
    /// Which.
    pub address: Address,
    /// What it offers, before XCLIENT.
    pub offers: Result<Extensions, Fault>,
}

/// On whose behalf: what XCLIENT tells the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    /// Connections that carried its XCLIENT serve this session alone.
    pub session: SessionId,
    /// Its name, where known.
    pub name: Option<String>,
    /// Its address and port; IPv4-mapped addresses as IPv4.
    pub address: SocketAddr,
    /// What it called itself.
    pub helo: Option<String>,
    /// ESMTP rather than SMTP.
    pub extended: bool,
    /// The user name, where it authenticated.
    pub login: Option<String>,
}

impl ClientIdentity {
    /// Whose mail it is.
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
    /// Does this recipient exist?
    Rcpt(RcptCommand),
}

/// Its answer.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The upstream's own reply.
    Replied(Reply),
    /// There was none, and why.
    None(Fault),
}

/// Why the upstream gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No connection was free for 10 s: 451 4.3.2
    #[error("all {0} upstream connections are in use")]
    Busy(usize),
    /// It cannot be reached, refused the connection, EHLO or XCLIENT, was silent for too long, or closed: 451 4.4.1
    #[error("{0}")]
    Unavailable(String),
    /// We have no file descriptor left to connect with, which is none of its doing: 451 4.4.1
    #[error("{0}")]
    Starved(String),
    /// It sent what is no SMTP: 451 4.3.0
    #[error("{0}")]
    Protocol(String),
    /// It lacks an extension that the command uses: 451 4.3.0
    #[error("the upstream does not offer {0}")]
    MissingExtension(&'static str),
    /// At the repetition on a fresh connection it refused what it had accepted; nothing may be relayed: 451 4.4.1
    #[error("at the repetition the upstream refused what it had accepted: {0}")]
    NotRepeated(String),
    /// The mail data went out whole, the reply to it did not come: the message may have been accepted: 451 4.4.2
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
    /// It gave more replies than it was asked for: which of them answers which question is not known.
    pub fn out_of_step() -> Self {
        Self::Protocol("the upstream gave more replies than it was asked for".to_owned())
    }
}

/// The upstream and the connections to it. Cheap to clone.
#[derive(Clone)]
pub struct Upstream {
    shared: Arc<Shared>,
}

/// The connections of one session; dropping it closes them, however the session ends. To be dropped after the session's
/// transactions.
#[must_use]
pub struct SessionConnections {
    upstream: Upstream,
    session: SessionId,
}

impl SessionConnections {
    /// Closes those that no transaction uses.
    pub fn close(&self) {
        self.upstream.end_session(self.session);
    }
}

impl Drop for SessionConnections {
    fn drop(&mut self) {
        self.upstream.end_session(self.session);
    }
}

impl Upstream {
    /// Reads the files that the settings name; connects to nothing yet.
    ///
    /// # Errors
    /// One of them is missing, or not what it should be.
    pub fn open(settings: Settings) -> Result<Self, OpenError> {
        Ok(Self { shared: Shared::open(settings, PATIENCE, IDLE_LIMIT)? })
    }

    /// What all upstreams offered last (before XCLIENT) that can be reached; `None` as long as none ever answered.
    pub fn offers(&self) -> Guard<Option<Arc<Extensions>>> {
        self.shared.endpoints().common.load()
    }

    /// Connects to each of them, for [`Self::offers`], those that are left out too. What has not answered after
    /// `patience` is told as such, and may still be well.
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

    /// Connects to the one whose turn it is, as far as EHLO, with `identity` as far as XCLIENT; what it offers then.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn learn(&self, identity: Option<Arc<ClientIdentity>>) -> Result<Extensions, Fault> {
        let slot = self.shared.pool.place().await?;
        Ok(offer_of(Box::pin(self.shared.dial(slot, identity.as_ref(), &[])).await?))
    }

    /// A transaction on behalf of a client. Needs no connection before its first answer.
    pub fn transaction(&self, identity: Arc<ClientIdentity>) -> Transaction {
        Transaction::new(Arc::clone(&self.shared), identity)
    }

    /// A session begins, whose connections are closed with it.
    pub fn session(&self, session: SessionId) -> SessionConnections {
        SessionConnections { upstream: self.clone(), session }
    }

    /// The session is over: closes its connections. Its transactions must have been dropped.
    pub fn end_session(&self, session: SessionId) {
        self.shared.pool.end_session(session);
    }

    /// The account is blocked, and needs none: closes its connections that no transaction uses. Those in use are to be closed
    /// with their sessions' [`SessionConnections::close`] once they are given back.
    pub fn end_account(&self, account: &Account) {
        self.shared
            .pool
            .close_idle(|idle| idle.identity.as_ref().is_some_and(|named| named.account() == *account));
    }

    /// Closes all idle connections with QUIT, and those in use as soon as their transactions are over.
    pub fn close(&self) {
        self.shared.pool.close();
    }
}
