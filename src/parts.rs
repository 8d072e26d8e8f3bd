//! The parts that both mail paths are made of, wired once by the server (or the demo) and shared by all sessions.

use std::sync::Arc;

use tokio::sync::watch;

use crate::auth::Authenticator;
use crate::config::Config;
use crate::desk::Desk;
use crate::digest::Digests;
use crate::guard::Ledger;
use crate::net::tls::Acceptor;
use crate::quarantine::Spool;
use crate::roster::Roster;
use crate::sender::Senders;
use crate::submission::Buffers;
use crate::upstream::Upstream;

/// Everything that a session, a release or the control API works with. Cheap to clone.
#[derive(Clone)]
pub struct Parts {
    /// The configuration in force.
    pub config: Arc<Config>,
    /// Counts and blocks.
    pub ledger: Ledger,
    /// Parked messages.
    pub spool: Spool,
    /// The MTA.
    pub upstream: Upstream,
    /// Who may log in.
    pub auth: Authenticator,
    /// Who may send as whom.
    pub senders: Senders,
    /// Who is connected.
    pub roster: Roster,
    /// Which digests went out, and what may expire by them.
    pub digests: Digests,
    /// Who is told.
    pub desk: Desk,
    /// The memory for mail data.
    pub buffers: Buffers,
    /// TLS towards clients.
    pub tls: Acceptor,
    /// Turns true when the service shuts down.
    pub shutdown: watch::Receiver<bool>,
}
