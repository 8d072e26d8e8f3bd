//! What all transactions share: how to reach the upstreams, what they offered, and the connections to them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::connection::Connection;
use super::dial::{Dialer, Unready, system_resolver};
use super::pool::{AheadPlace, Lease, Pool};
use super::slot::Slot;
use super::{ClientIdentity, Endpoints, Fault, Login, OpenError, Protection, Settings, tls};
use crate::smtp::Extensions;

/// How much longer greeting ahead may take once someone waits for the place: an upstream that answers properly is ready
/// sooner than a fresh connection would be.
const AHEAD_GRACE: Duration = Duration::from_secs(1);

/// How long a connection may wait for its first MAIL and still count as fresh.
const BRIEF: Duration = Duration::from_secs(2);

pub(super) struct Shared {
    pub(super) dialer: Dialer,
    pub(super) pool: Arc<Pool>,
}

impl Shared {
    pub(super) fn open(
        settings: Settings,
        patience: Duration,
        idle_limit: Duration,
    ) -> Result<Arc<Self>, OpenError> {
        let tls = match settings.protection {
            Protection::Off => None,
            Protection::StartTls | Protection::Implicit => {
                Some(tls::client_config(settings.ca.as_deref(), settings.identity.as_ref())?)
            }
        };
        let login = settings.credentials.clone().map(Login::open).transpose()?;
        let endpoints = Endpoints::new(settings.endpoints.clone());
        let pool = Pool::new(settings.max_connections, patience, idle_limit);
        let resolver = system_resolver();
        Ok(Arc::new(Self { dialer: Dialer { settings, tls, login, endpoints, resolver }, pool }))
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.dialer.settings
    }

    pub(super) fn endpoints(&self) -> &Endpoints {
        &self.dialer.endpoints
    }

    /// Returns a connection for this client, an idle or a fresh one.
    pub(super) async fn connection(
        self: &Arc<Self>,
        identity: &Arc<ClientIdentity>,
    ) -> Result<Box<Connection>, Fault> {
        let (lease, turn) = match self.pool.take_own(identity) {
            Some(own) if own.identity.is_some() => match self.still_alive(own).await {
                Ok(own) => return Ok(own),
                Err(slot) => (Lease::Slot(slot), None),
            },
            Some(ahead) => (Lease::Connection(ahead), None),
            None => {
                let turn = self.endpoints().candidates(Instant::now());
                (self.pool.acquire(&turn).await?, Some(turn))
            }
        };
        Ok(self.make_ready(lease, turn, identity).await?)
    }

    /// Returns a session's own connection if it has not died while idle, else its place.
    async fn still_alive(&self, mut own: Box<Connection>) -> Result<Box<Connection>, Slot> {
        let is_prepared = own.is_prepared();
        if own.is_alive().await {
            if is_prepared && own.idle_since.elapsed() < BRIEF {
                own.wake();
            }
            return Ok(own);
        }
        if is_prepared {
            self.pool.pause_ahead(Instant::now());
        }
        Err(own.discard())
    }

    /// Makes a place, or a connection on which no client has been named, into a connection for this client. `turn` lists the
    /// upstreams that may be asked, in order; `None`: those whose turn it is then.
    pub(super) async fn make_ready(
        self: &Arc<Self>,
        lease: Lease,
        turn: Option<Vec<usize>>,
        identity: &Arc<ClientIdentity>,
    ) -> Result<Box<Connection>, Unready> {
        let next = || self.endpoints().candidates(Instant::now());
        let connection = match lease {
            Lease::Slot(slot) => {
                let turn = turn.unwrap_or_else(next);
                self.dialer.dial_until(slot, Some(identity), &turn, self.dialer.deadline()).await?
            }
            Lease::Connection(mut idle) => {
                let (was_ahead, deadline) = (idle.is_unused(), self.dialer.deadline());
                let is_alive = idle.is_alive().await;
                let introduced = match is_alive {
                    true => self.dialer.introduce(&mut idle, identity, deadline).await.map(|()| true),
                    false => Ok(false),
                };
                match introduced {
                    Ok(true) => idle,
                    Err(refused @ Unready::Refused(_)) => {
                        idle.quit();
                        if was_ahead {
                            self.greet_ahead();
                        }
                        return Err(refused);
                    }
                    Ok(false) | Err(Unready::Lost(_)) => {
                        if was_ahead {
                            self.pool.pause_ahead(Instant::now());
                        }
                        let mut turn = turn.unwrap_or_else(next);
                        if is_alive {
                            // It was not idleness: another upstream is more likely to do better.
                            turn.sort_by_key(|index| *index == idle.endpoint);
                        }
                        self.dialer.dial_until(idle.discard(), Some(identity), &turn, deadline).await?
                    }
                }
            }
        };
        if connection.identity.is_some() {
            self.greet_ahead();
        }
        Ok(connection)
    }

    /// Greets a connection for the next session, which then waits for neither TCP, TLS nor the greeting. Called after a
    /// session got a connection of its own.
    fn greet_ahead(self: &Arc<Self>) {
        let place = self.pool.place_ahead(Instant::now());
        let Some(AheadPlace { slot, mut wanted_back }) = place else { return };
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            let greeting = async {
                let mut connection = shared.dial(slot, None, &[]).await.ok()?;
                connection.is_alive().await.then_some(connection)
            };
            // It counts as being greeted until it is in the pool.
            let wanted_back = async {
                drop((&mut wanted_back).await);
                sleep(AHEAD_GRACE).await;
            };
            let greeted = tokio::select! {
                greeted = Box::pin(greeting) => greeted,
                () = wanted_back => return,
            };
            match greeted {
                Some(connection) => shared.pool.put(connection),
                None => shared.pool.pause_ahead(Instant::now()),
            }
        });
    }

    /// Opens a fresh connection on this client's behalf, to the upstream whose turn it is or else to another one; to
    /// one of `last` only if no other answers.
    pub(super) async fn dial(
        &self,
        slot: Slot,
        identity: Option<&Arc<ClientIdentity>>,
        last: &[usize],
    ) -> Result<Box<Connection>, Fault> {
        let mut turn = self.endpoints().candidates(Instant::now());
        turn.sort_by_key(|index| last.contains(index));
        Ok(self.dialer.dial_until(slot, identity, &turn, self.dialer.deadline()).await?)
    }

    /// Connects to this upstream and returns what it offers.
    pub(super) async fn learn(&self, index: usize) -> Result<Extensions, Fault> {
        let slot = self.pool.place().await?;
        Ok(offer_of(Box::pin(self.dialer.dial_one(slot, index)).await?))
    }
}

/// Returns what the last EHLO reply on this connection offered, and closes it with QUIT.
pub(super) fn offer_of(mut connection: Box<Connection>) -> Extensions {
    let extensions = std::mem::take(&mut connection.extensions);
    connection.quit();
    extensions
}
