//! The SMTP client towards the MTA.
//!
//! One [`Transaction`] upstream for one of a client's. Commands are asked without waiting and answered in order; a connection
//! that the upstream closes in mid-transaction is replaced, the accepted part repeated, without the caller noticing.
//! Replies go back as they came: what they mean for a client or an account is decided elsewhere. RFC 5321, 2920, 3207;
//! Postfix XCLIENT_README.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::id::SessionId;
use crate::smtp::{Extensions, MailCommand, RcptCommand, Reply};

mod connection;
mod content;
mod dial;
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

use pool::{IDLE_LIMIT, PATIENCE};
use shared::Shared;

pub use transaction::Transaction;

/// How the connection to the upstream is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// Not at all.
    Off,
    /// STARTTLS, required.
    StartTls,
    /// TLS from the first octet.
    Implicit,
}

/// `[upstream]`, as this module needs it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Host name or IP literal.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// TLS.
    pub protection: Protection,
    /// The name that the certificate must have.
    pub tls_name: String,
    /// Our EHLO name.
    pub hostname: String,
    /// Whether XCLIENT is used where it is offered.
    pub xclient: bool,
    /// Until it is ready for MAIL.
    pub connect_timeout: Duration,
    /// For one reply.
    pub timeout: Duration,
    /// For the reply to the end of data.
    pub data_timeout: Duration,
    /// Connections at the most.
    pub max_connections: usize,
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

impl Drop for SessionConnections {
    fn drop(&mut self) {
        self.upstream.end_session(self.session);
    }
}

impl Upstream {
    /// Makes ready; connects to nothing yet. `tls` is needed unless `settings.protection` is off.
    pub fn new(settings: Settings, tls: Option<Arc<rustls::ClientConfig>>) -> Self {
        Self { shared: Arc::new(Shared::new(settings, tls, PATIENCE, IDLE_LIMIT)) }
    }

    /// What the upstream offered last (before XCLIENT); `None` as long as it never answered.
    pub fn offers(&self) -> Option<Arc<Extensions>> {
        self.shared.offers.load_full()
    }

    /// Connects, reads greeting and EHLO, and keeps what is offered for [`Self::offers`]. With `identity` also as far as XCLIENT.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn learn(&self, identity: Option<Arc<ClientIdentity>>) -> Result<Extensions, Fault> {
        let slot = self.shared.pool.place().await?;
        let mut connection = Box::pin(self.shared.open(slot, identity.as_ref())).await?;
        let extensions = std::mem::take(&mut connection.extensions);
        drop(connection.quit());
        Ok(extensions)
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

    /// Closes all idle connections with QUIT, and those in use as soon as their transactions are over.
    pub async fn close(&self) {
        self.shared.pool.close();
    }
}
