//! The parts that both mail paths consist of, wired once by the server (or the demo) and shared by all sessions.

use std::sync::Arc;

use arc_swap::ArcSwap;
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

/// Everything that a session, a release or the control API needs. Cheap to clone.
#[derive(Clone)]
pub struct Parts {
    /// The configuration in force when this copy was made: a session keeps the one it began with.
    pub config: Arc<Config>,
    /// The configuration in force now, for whatever outlives a session.
    pub in_force: Arc<ArcSwap<Config>>,
    /// Counts and blocks.
    pub ledger: Ledger,
    /// Parked messages.
    pub spool: Spool,
    /// The connections to the MTA.
    pub upstream: Upstream,
    /// Who may log in.
    pub auth: Authenticator,
    /// Who may send as whom.
    pub senders: Senders,
    /// Open sessions.
    pub roster: Roster,
    /// Which digests were sent, and what may expire because of them.
    pub digests: Digests,
    /// Notices to the abuse desk.
    pub desk: Desk,
    /// The memory for mail data.
    pub buffers: Buffers,
    /// TLS towards clients.
    pub tls: Acceptor,
    /// Turns true when the service shuts down.
    pub shutdown: watch::Receiver<bool>,
}

impl Parts {
    /// A copy with the configuration in force now.
    #[must_use]
    pub fn current(&self) -> Self {
        Self { config: self.in_force.load_full(), ..self.clone() }
    }
}
