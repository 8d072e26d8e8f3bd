//! Wiring: a configuration becomes parts, parts become accept loops; and how it all ends.
//!
//! Decides nothing about mail. What keeps the start from going on is one sentence that names the thing and the cure.

mod data_dir;
mod listener;
mod slots;
mod watchers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::auth::Authenticator;
use crate::config::{Config, Protection};
use crate::desk::Desk;
use crate::guard::Ledger;
use crate::maillog;
use crate::net::{self_signed, tls};
use crate::notify::outbox::Outbox;
use crate::parts::Parts;
use crate::quarantine::Spool;
use crate::release::Releaser;
use crate::roster::Roster;
use crate::upstream::Upstream;
pub use data_dir::DataDir;

/// How long the start waits to learn what the upstream offers, before clients are let in.
const FIRST_CONTACT: Duration = Duration::from_secs(3);

/// Why the service did not start or went down.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ServerError(pub String);

impl ServerError {
    fn from<E: std::fmt::Display>(error: E) -> Self {
        Self(error.to_string())
    }
}

/// The service, ready to take clients.
pub struct Server {
    parts: Parts,
    outbox: Outbox,
    listeners: Vec<listener::Listener>,
    shutdown: watch::Sender<bool>,
    tasks: JoinSet<()>,
    /// Holds the data directory's lock.
    data_dir: DataDir,
}
