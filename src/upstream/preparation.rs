//! The connections of one session: the first is made ready at the login, before the client has said MAIL.
//!
//! Where XCLIENT ties a connection to a session, the client would wait for it at its first MAIL: for XCLIENT and EHLO, and often
//! for TCP, TLS and the greeting as well. They take place while it reads the reply to its login. What is ready by its MAIL lies
//! in the pool, like any idle connection of the session; what is not is waited for.

use std::sync::Arc;

use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::time::Instant;

use super::connection::Connection;
use super::dial::Unready;
use super::pool::Pool;
use super::shared::Shared;
use super::{ClientIdentity, Fault, Transaction, Upstream};
use crate::id::SessionId;

/// The connections of one session, closed on drop, however the session ends. Drop it after the session's transactions.
#[must_use]
pub struct SessionConnections {
    upstream: Upstream,
    session: SessionId,
    preparation: Option<Preparation>,
}

impl SessionConnections {
    pub(super) fn new(upstream: Upstream, session: SessionId) -> Self {
        Self { upstream, session, preparation: None }
    }

    /// Has a connection made ready for the session's first transaction, if it needs one of its own and there is room.
    pub fn prepare(&mut self, identity: &Arc<ClientIdentity>) {
        let needs_its_own = self.upstream.offers().as_ref().is_some_and(|offer| !offer.xclient.is_empty());
        if needs_its_own && self.upstream.shared.settings().names_clients() {
            self.preparation = self.upstream.shared.prepare(identity);
        }
    }

    /// Begins a transaction on behalf of a client. Takes no connection before its first answer.
    pub fn transaction(&mut self, identity: Arc<ClientIdentity>) -> Transaction {
        let shared = &self.upstream.shared;
        let mut preparation = self.preparation.take();
        if let Some(useless) = preparation.take_if(|prepared| prepared.identity != identity) {
            // The client has said EHLO again, with another name.
            shared.pool.end(|client| *client == *useless.identity);
        }
        Transaction::new(Arc::clone(shared), identity, preparation)
    }

    /// Closes the session's connections that no transaction uses.
    pub fn close(&self) {
        self.upstream.end_session(self.session);
    }
}

impl Drop for SessionConnections {
    fn drop(&mut self) {
        self.close();
    }
}

/// A connection that is being made ready, or was.
pub(super) struct Preparation {
    identity: Arc<ClientIdentity>,
    /// The connection if it was claimed in time. Else it is in the pool.
    outcome: oneshot::Receiver<Result<Option<Box<Connection>>, Fault>>,
}

impl Preparation {
    /// Waits as long as it is being made. `None`: if it is ready, it is in the pool.
    ///
    /// # Errors
    /// It failed while somebody waited. If it failed before, another attempt may go better.
    pub(super) async fn finished(&mut self, pool: &Pool) -> Result<Option<Box<Connection>>, Fault> {
        match self.outcome.try_recv() {
            Ok(outcome) => Ok(outcome.unwrap_or_default()),
            Err(TryRecvError::Closed) => Ok(None),
            Err(TryRecvError::Empty) => {
                // If this wait is given up, the connection is as well.
                let _claim = pool.claim(&self.identity);
                (&mut self.outcome).await.unwrap_or(Ok(None))
            }
        }
    }
}

impl Shared {
    /// Makes a connection ready for this client. `None` if there is no place to spare.
    fn prepare(self: &Arc<Self>, identity: &Arc<ClientIdentity>) -> Option<Preparation> {
        let (lease, mut given_up) = self.pool.place_for(identity, Instant::now())?;
        let (done, outcome) = oneshot::channel();
        let (shared, client) = (Arc::clone(self), Arc::clone(identity));
        tokio::spawn(async move {
            let made = tokio::select! {
                made = Box::pin(shared.make_ready(lease, None, &client)) => made,
                _ = &mut given_up => return,
            };
            if matches!(made, Err(Unready::Lost(_))) {
                shared.pool.pause_ahead(Instant::now());
            }
            let made = made.map(|connection| shared.pool.put_made(connection, &client)).map_err(Fault::from);
            let is_claimed = given_up.try_recv() == Err(TryRecvError::Empty);
            match made {
                Ok(Some(unneeded)) if !is_claimed => unneeded.quit(),
                made => drop(done.send(made)),
            }
        });
        Some(Preparation { identity: Arc::clone(identity), outcome })
    }
}
