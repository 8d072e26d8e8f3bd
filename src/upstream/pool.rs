//! The connections to the upstream: bounded in number, reused, given up when someone else waits.
//!
//! A connection that carried XCLIENT serves the client that it named; any other may serve anybody. While someone waits
//! nothing is idle: an idle connection that fits is taken, one that does not is closed, and the queue is served in order.
//! The lock is never held across an await, nor while a connection is closed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

use super::connection::Connection;
use super::slot::{Places, Slot};
use super::{ClientIdentity, Fault};
use crate::id::SessionId;

/// How long a transaction waits for a connection (CONTRACT).
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may be idle; well below what upstreams allow (Postfix's `smtpd_timeout` and Exim's
/// `smtp_receive_timeout`: 300 s).
pub(super) const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// What a transaction gets.
pub(super) enum Lease {
    /// The right to connect.
    Slot(Slot),
    /// A connection that was used before; it may have died since.
    Connection(Box<Connection>),
}

pub(super) struct Pool {
    own: Weak<Self>,
    max: usize,
    patience: Duration,
    idle_limit: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Slots given out, those of idle connections too.
    open: usize,
    /// In the order in which they became idle.
    idle: VecDeque<Box<Connection>>,
    /// In the order in which they came. Those that gave up are closed.
    waiting: VecDeque<oneshot::Sender<Lease>>,
    /// Whether a task watches over `idle`.
    watched: bool,
    /// Nothing is kept any more.
    closing: bool,
}

impl State {
    fn next_waiting(&mut self) -> Option<oneshot::Sender<Lease>> {
        while let Some(waiting) = self.waiting.pop_front() {
            if !waiting.is_closed() {
                return Some(waiting);
            }
        }
        None
    }
}

impl Pool {
    pub(super) fn new(max: usize, patience: Duration, idle_limit: Duration) -> Arc<Self> {
        Arc::new_cyclic(|own| Self {
            own: Weak::clone(own),
            max: max.max(1),
            patience,
            idle_limit,
            state: Mutex::default(),
        })
    }

    /// A connection that may serve this client, or the right to make one.
    ///
    /// # Errors
    /// [`Fault::Busy`]: none became free in time.
    pub(super) async fn acquire(&self, identity: &ClientIdentity) -> Result<Lease, Fault> {
        match self.take(|idle| idle.may_serve(identity)) {
            Ok(lease) => Ok(lease),
            Err(waiting) => self.wait(waiting).await,
        }
    }

    /// The right to make a connection, whatever is idle.
    ///
    /// # Errors
    /// As [`Self::acquire`].
    pub(super) async fn place(&self) -> Result<Slot, Fault> {
        let lease = match self.take(|_| false) {
            Ok(lease) => lease,
            Err(waiting) => self.wait(waiting).await?,
        };
        Ok(match lease {
            Lease::Slot(slot) => slot,
            Lease::Connection(connection) => connection.quit(),
        })
    }

    async fn wait(&self, waiting: oneshot::Receiver<Lease>) -> Result<Lease, Fault> {
        match timeout(self.patience, waiting).await {
            Ok(Ok(lease)) => Ok(lease),
            _ => Err(Fault::Busy(self.max)),
        }
    }

    fn take(&self, fits: impl Fn(&Connection) -> bool) -> Result<Lease, oneshot::Receiver<Lease>> {
        let mut state = self.lock();
        // The one used last is the one most likely to be alive.
        if let Some(fitting) = state.idle.iter().rposition(|idle| fits(idle))
            && let Some(connection) = state.idle.remove(fitting)
        {
            return Ok(Lease::Connection(connection));
        }
        if state.open < self.max {
            state.open += 1;
            return Ok(Lease::Slot(self.slot()));
        }
        if let Some(oldest) = state.idle.pop_front() {
            drop(state);
            return Ok(Lease::Slot(oldest.quit()));
        }
        while state.waiting.front().is_some_and(oneshot::Sender::is_closed) {
            state.waiting.pop_front();
        }
        let (sender, receiver) = oneshot::channel();
        state.waiting.push_back(sender);
        Err(receiver)
    }

    /// A transaction is done with it. Whoever waits gets it, or its place.
    pub(super) fn give_back(&self, mut connection: Box<Connection>) {
        connection.count_transaction();
        connection.rest();
        let mut state = self.lock();
        if !connection.is_reusable() || state.closing {
            drop(state);
            drop(connection.quit());
            return;
        }
        while let Some(waiting) = state.next_waiting() {
            drop(state);
            if connection.identity.is_some() {
                // What carried XCLIENT is of no use to others; its place goes to the same one that waits.
                offer(waiting, Lease::Slot(connection.quit()));
                return;
            }
            match waiting.send(Lease::Connection(connection)) {
                Err(Lease::Connection(unwanted)) => connection = unwanted,
                _ => return,
            }
            state = self.lock();
        }
        state.idle.push_back(connection);
        if !state.watched
            && let Ok(runtime) = Handle::try_current()
        {
            state.watched = true;
            runtime.spawn(watch(Weak::clone(&self.own)));
        }
    }

    /// Closes what is idle and named a client of this session.
    pub(super) fn end_session(&self, session: SessionId) {
        self.close_idle(|idle| idle.identity.as_ref().is_some_and(|identity| identity.session == session));
    }

    /// Closes what is idle, and from now on what becomes idle.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.close_idle(|_| true);
    }

    /// Closes what has been idle for too long; says when to look again, `None` where nothing is idle.
    fn close_expired(&self) -> Option<Instant> {
        let now = Instant::now();
        self.close_idle(|idle| idle.idle_since + self.idle_limit <= now);
        let mut state = self.lock();
        let next = state.idle.front().map(|oldest| oldest.idle_since + self.idle_limit);
        state.watched = next.is_some();
        next
    }

    pub(super) fn close_idle(&self, unwanted: impl Fn(&Connection) -> bool) {
        let mut closing = Vec::new();
        let mut state = self.lock();
        let mut kept = VecDeque::with_capacity(state.idle.len());
        for connection in state.idle.drain(..) {
            if unwanted(&connection) {
                closing.push(connection);
            } else {
                kept.push_back(connection);
            }
        }
        state.idle = kept;
        drop(state);
        for connection in closing {
            drop(connection.quit());
        }
    }

    fn slot(&self) -> Slot {
        let places: Weak<dyn Places> = self.own.clone();
        Slot::new(places)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places for Pool {
    fn freed(&self) {
        loop {
            let mut state = self.lock();
            let Some(waiting) = state.next_waiting() else {
                state.open = state.open.saturating_sub(1);
                return;
            };
            drop(state);
            match waiting.send(Lease::Slot(self.slot())) {
                Ok(()) => return,
                // Gave up just now: the place is still free, and goes to the next one here, not by recursion.
                Err(Lease::Slot(slot)) => slot.disarm(),
                Err(Lease::Connection(_)) => return,
            }
        }
    }
}

/// Where the receiver has gone, what was offered is dropped, and a place dropped goes to the next in the queue.
fn offer(waiting: oneshot::Sender<Lease>, lease: Lease) {
    drop(waiting.send(lease));
}

/// Closes idle connections as they get too old, as long as there are any.
async fn watch(pool: Weak<Pool>) {
    while let Some(next) = pool.upgrade().and_then(|pool| pool.close_expired()) {
        sleep_until(next).await;
    }
}
