//! The connections to the upstream: bounded in number, reused, and given up when someone else waits.
//!
//! A connection that carried XCLIENT serves the client named there; any other may serve anybody. Whoever finds neither
//! a fitting connection nor a place for a new one waits: for each of them one unsuitable connection is closed, and
//! places are handed out in order of arrival. Several upstreams take turns with each transaction: an idle connection to
//! the one whose turn it is, else a new one to it. Where every session needs a connection of its own, a few are greeted
//! ahead as long as sessions are frequent, and a session gets its own before its first transaction. The lock is never held
//! across an await, nor while a connection is closed.

use std::collections::VecDeque;
use std::convert::Infallible;
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

/// How many greeted connections are kept ready for future sessions.
pub(super) const AHEAD: usize = 4;
/// How many connections may be made or idle for sessions that have not begun a transaction: those that log in and then stay
/// silent must not have many.
const PREPARED: usize = 16;
/// How long none is made ahead after one failed, or died before it was used: an upstream that is down or short of
/// connections or time (Postfix under stress: `smtpd_timeout` of 10 s) is left in peace.
const AHEAD_PAUSE: Duration = Duration::from_secs(60);

/// What the pool gives to whoever needs a connection.
pub(super) enum Lease {
    /// The right to open a connection.
    Slot(Slot),
    /// A connection that was open before; it may have died since.
    Connection(Box<Connection>),
}

/// The right to greet a connection ahead, for a future session.
pub(super) struct AheadPlace {
    pub(super) slot: Slot,
    /// Ends when someone waits for the place, or when nothing is to be greeted any more.
    pub(super) wanted_back: oneshot::Receiver<Infallible>,
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
    /// Slots handed out, including those of idle connections.
    open: usize,
    /// Idle connections, longest idle first.
    idle: VecDeque<Box<Connection>>,
    /// Those who wait, in order of arrival. The channels of those that gave up are closed.
    waiting: VecDeque<oneshot::Sender<Lease>>,
    /// Connections that are being closed for those who wait.
    leaving: usize,
    /// The connections that are being made ahead of need. The channels of finished ones are closed.
    making: Vec<Making>,
    /// When a session last needed a connection of its own.
    needed: Option<Instant>,
    /// Until when none is made ahead.
    pause: Option<Instant>,
    /// Whether a task watches over `idle`.
    watched: bool,
    /// Whether the pool has been closed: nothing is kept any more.
    closing: bool,
}

/// A connection that is being made ahead of need.
struct Making {
    /// The client for which it is made; `None`: for a session to come.
    client: Option<Arc<ClientIdentity>>,
    /// Dropping it asks for the place.
    wanted_back: oneshot::Sender<Infallible>,
}

impl State {
    /// Counts the idle connections that may serve anybody.
    fn ready(&self) -> usize {
        self.idle.iter().filter(|idle| idle.identity.is_none()).count()
    }

    /// Counts the connections that sessions to come will find, greeted or about to be.
    fn ahead(&self) -> usize {
        self.ready() + self.making.iter().filter(|making| making.client.is_none()).count()
    }

    /// Counts the connections made, or being made, for sessions that have not begun a transaction.
    fn prepared(&self) -> usize {
        let made = self.idle.iter().filter(|idle| idle.is_prepared()).count();
        made + self.making.iter().filter(|making| making.client.is_some()).count()
    }

    /// Whether upstreams are left in peace: nothing is made ahead of need.
    fn is_pausing(&self, now: Instant) -> bool {
        self.pause.is_some_and(|end| end > now)
    }

    /// Forgets those that are not being made any more.
    fn purge_making(&mut self) {
        self.making.retain(|making| !making.wanted_back.is_closed());
    }

    /// Gives up one of the connections that are being made ahead of need, for somebody who waits: the youngest for a session
    /// to come, or else for one that has logged in.
    fn give_one_up(&mut self) {
        self.purge_making();
        let youngest = self.making.iter().rposition(|making| making.client.is_none());
        if let Some(last) = youngest.or(self.making.len().checked_sub(1)) {
            self.making.remove(last);
        }
    }

    /// Takes the connection that is being made for this client off the list.
    fn no_longer_made(&mut self, client: &Arc<ClientIdentity>) -> Option<oneshot::Sender<Infallible>> {
        let is_its_own = |named: &Arc<ClientIdentity>| Arc::ptr_eq(named, client);
        let making = self.making.iter().position(|making| making.client.as_ref().is_some_and(is_its_own))?;
        Some(self.making.swap_remove(making).wanted_back)
    }

    /// Whether somebody waits for a place or connection.
    fn is_short(&self) -> bool {
        self.waiting.iter().any(|waiting| !waiting.is_closed())
    }

    /// Notes that a connection is being made; what is returned ends when it is to be given up.
    fn begin(&mut self, client: Option<Arc<ClientIdentity>>) -> oneshot::Receiver<Infallible> {
        let (wanted_back, given_up) = oneshot::channel();
        self.making.push(Making { client, wanted_back });
        given_up
    }

    /// Takes the connection used last, the one most likely to be alive.
    fn take_idle(&mut self, fits: impl Fn(&Connection) -> bool) -> Option<Box<Connection>> {
        let fitting = self.idle.iter().rposition(|idle| fits(idle))?;
        self.idle.remove(fitting)
    }

    /// Takes a connection to this upstream that may serve anybody.
    fn take_idle_to(&mut self, endpoint: usize) -> Option<Box<Connection>> {
        self.take_idle(|idle| idle.identity.is_none() && idle.endpoint == endpoint)
    }

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

    /// Takes an idle connection regardless of turns: the client's own, else one greeted ahead, since each of those was
    /// made in turn.
    pub(super) fn take_own(&self, client: &ClientIdentity) -> Option<Box<Connection>> {
        let mut state = self.lock();
        let own = state.take_idle(|idle| idle.identity.as_deref() == Some(client));
        own.or_else(|| state.take_idle(Connection::is_unused))
    }

    /// Returns a connection that may serve anybody, or the right to make one. `turn` lists the upstreams that may be
    /// asked, in order.
    ///
    /// # Errors
    /// [`Fault::Busy`] if none became free in time.
    pub(super) async fn acquire(&self, turn: &[usize]) -> Result<Lease, Fault> {
        match self.take(turn) {
            Ok(lease) => Ok(lease),
            Err(waiting) => self.wait(waiting).await,
        }
    }

    /// Returns the right to make a connection, even if another one is idle.
    ///
    /// # Errors
    /// As [`Self::acquire`].
    pub(super) async fn place(&self) -> Result<Slot, Fault> {
        let lease = match self.take(&[]) {
            Ok(lease) => lease,
            Err(waiting) => self.wait(waiting).await?,
        };
        Ok(match lease {
            Lease::Slot(slot) => slot,
            Lease::Connection(connection) => connection.leave().await,
        })
    }

    /// Returns the right to make one more connection if that is possible at once.
    pub(super) fn spare(&self) -> Option<Slot> {
        let mut state = self.lock();
        let is_free = state.open < self.max;
        state.open += usize::from(is_free);
        is_free.then(|| self.slot())
    }

    async fn wait(&self, waiting: oneshot::Receiver<Lease>) -> Result<Lease, Fault> {
        match timeout(self.patience, waiting).await {
            Ok(Ok(lease)) => Ok(lease),
            _ => Err(Fault::Busy(self.max)),
        }
    }

    /// With an empty `turn`, no idle connection will do.
    fn take(&self, turn: &[usize]) -> Result<Lease, oneshot::Receiver<Lease>> {
        let mut state = self.lock();
        if let Some(connection) = turn.first().and_then(|first| state.take_idle_to(*first)) {
            return Ok(Lease::Connection(connection));
        }
        if state.open < self.max {
            state.open += 1;
            return Ok(Lease::Slot(self.slot()));
        }
        if let Some(connection) = turn.iter().skip(1).find_map(|next| state.take_idle_to(*next)) {
            return Ok(Lease::Connection(connection));
        }
        // Its place becomes free once it has closed.
        let oldest = state.idle.pop_front();
        while state.waiting.front().is_some_and(oneshot::Sender::is_closed) {
            state.waiting.pop_front();
        }
        let (sender, receiver) = oneshot::channel();
        state.waiting.push_back(sender);
        match oldest {
            Some(oldest) => {
                state.leaving += 1;
                drop(state);
                oldest.quit();
            }
            None => state.give_one_up(),
        }
        Err(receiver)
    }

    /// Takes a connection back from a transaction, for whoever waits.
    pub(super) fn give_back(&self, mut connection: Box<Connection>) {
        connection.count_transaction();
        self.put(connection);
    }

    /// Notes that a session needed a connection of its own; returns the right to greet one for the next session. `None`
    /// if sessions are rare (it would grow too old), enough are ready, or somebody waits for the place.
    pub(super) fn place_ahead(&self, now: Instant) -> Option<AheadPlace> {
        let mut state = self.lock();
        state.purge_making();
        let is_busy = state.needed.replace(now).is_some_and(|last| last + self.idle_limit > now);
        let is_wanted = is_busy && !state.is_pausing(now) && state.ahead() < AHEAD && !state.closing;
        if !is_wanted || state.open >= self.max || state.is_short() {
            return None;
        }
        state.open += 1;
        Some(AheadPlace { slot: self.slot(), wanted_back: state.begin(None) })
    }

    /// Returns a connection greeted ahead, or the right to make one, for a session that may soon need it, with a channel that
    /// ends when it is to be given up. `None` if there is no place to spare.
    pub(super) fn place_for(
        &self,
        client: &Arc<ClientIdentity>,
        now: Instant,
    ) -> Option<(Lease, oneshot::Receiver<Infallible>)> {
        let mut state = self.lock();
        state.purge_making();
        let is_welcome = !state.is_pausing(now) && state.prepared() < PREPARED && !state.closing;
        if !is_welcome || state.is_short() {
            return None;
        }
        let lease = match state.take_idle(Connection::is_unused) {
            Some(greeted) => Lease::Connection(greeted),
            None if state.open >= self.max => return None,
            None => {
                state.open += 1;
                Lease::Slot(self.slot())
            }
        };
        Some((lease, state.begin(Some(Arc::clone(client)))))
    }

    /// Notes that a connection made ahead of need has failed.
    pub(super) fn pause_ahead(&self, now: Instant) {
        self.lock().pause = Some(now + AHEAD_PAUSE);
    }

    /// Hands the connection to whoever waits, else keeps it idle.
    pub(super) fn put(&self, mut connection: Box<Connection>) {
        connection.rest();
        self.put_into(self.lock(), connection);
    }

    /// The same with a connection made for a client, unless it has been claimed or given up meanwhile: then it is returned.
    /// Whoever claimed it still holds the channel.
    pub(super) fn put_made(
        &self,
        mut connection: Box<Connection>,
        client: &Arc<ClientIdentity>,
    ) -> Option<Box<Connection>> {
        let mut state = self.lock();
        if state.no_longer_made(client).is_none() {
            return Some(connection);
        }
        connection.rest();
        self.put_into(state, connection);
        None
    }

    fn put_into<'a>(&'a self, mut state: MutexGuard<'a, State>, mut connection: Box<Connection>) {
        if !connection.is_reusable(Instant::now()) || state.closing {
            drop(state);
            connection.quit();
            return;
        }
        if let Some(identity) = &connection.identity {
            // A session has one transaction at a time: those that named its client otherwise, before another EHLO or
            // login, will not be used again.
            let is_outdated =
                |other: &ClientIdentity| other.session == identity.session && other != &**identity;
            let outdated = state.take_idle(|idle| idle.identity.as_deref().is_some_and(is_outdated));
            // What carried XCLIENT is of no use to others: its place goes to someone who waits, unless enough others
            // are closing.
            let waiting = state.waiting.iter().filter(|waiting| !waiting.is_closed()).count();
            if outdated.is_some() && state.leaving < waiting {
                state.leaving += 1;
            }
            if state.leaving < waiting {
                state.leaving += 1;
                drop(state);
                connection.quit();
            } else {
                self.keep_idle(state, connection);
            }
            if let Some(outdated) = outdated {
                outdated.quit();
            }
            return;
        }
        while let Some(waiting) = state.next_waiting() {
            drop(state);
            match waiting.send(Lease::Connection(connection)) {
                Err(Lease::Connection(unwanted)) => connection = unwanted,
                _ => return,
            }
            state = self.lock();
        }
        self.keep_idle(state, connection);
    }

    fn keep_idle(&self, mut state: MutexGuard<'_, State>, connection: Box<Connection>) {
        state.idle.push_back(connection);
        if !state.watched
            && let Ok(runtime) = Handle::try_current()
        {
            state.watched = true;
            runtime.spawn(watch(Weak::clone(&self.own)));
        }
    }

    /// Takes over the connection that is being made for this client: it is given up if what is returned is dropped, and not for
    /// those who wait.
    pub(super) fn claim(&self, client: &Arc<ClientIdentity>) -> Option<oneshot::Sender<Infallible>> {
        self.lock().no_longer_made(client)
    }

    /// Closes the idle connections that named a client of this session, and gives up what is being made for it.
    pub(super) fn end_session(&self, session: SessionId) {
        self.end(|client| client.session == session);
    }

    /// Closes the idle connections that named such a client, and gives up those that are being made for one.
    pub(super) fn end(&self, is_over: impl Fn(&ClientIdentity) -> bool) {
        self.lock().making.retain(|making| !making.client.as_deref().is_some_and(&is_over));
        self.close_idle(|idle| idle.identity.as_deref().is_some_and(&is_over));
    }

    /// Closes idle connections, and from now on each one as it becomes idle.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closing = true;
        state.making.clear();
        drop(state);
        self.close_idle(|_| true);
    }

    /// Closes connections that have been idle for too long; returns when to look again, `None` if none is idle.
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
            connection.quit();
        }
    }

    fn slot(&self) -> Slot {
        let places: Weak<dyn Places> = self.own.clone();
        Slot::new(places)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No panic can happen in the middle of a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places for Pool {
    fn freed(&self) {
        loop {
            let mut state = self.lock();
            // This may have been another connection: counting one too few closes one too many, but keeps nobody
            // waiting.
            state.leaving = state.leaving.saturating_sub(1);
            let Some(waiting) = state.next_waiting() else {
                state.open = state.open.saturating_sub(1);
                return;
            };
            drop(state);
            match waiting.send(Lease::Slot(self.slot())) {
                Ok(()) => return,
                // It gave up just now: the place is still free, and goes to the next one here rather than by recursion.
                Err(Lease::Slot(slot)) => slot.disarm(),
                Err(Lease::Connection(_)) => return,
            }
        }
    }
}

/// Closes idle connections as they grow too old, as long as there are any.
async fn watch(pool: Weak<Pool>) {
    while let Some(next) = pool.upgrade().and_then(|pool| pool.close_expired()) {
        sleep_until(next).await;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::tests::identity;
    use super::*;

    impl Pool {
        /// Counts the idle connections that may serve anybody.
        pub(in crate::upstream) fn ready(&self) -> usize {
            self.lock().ready()
        }

        /// Whether nothing is made ahead of need for now.
        pub(in crate::upstream) fn is_pausing(&self) -> bool {
            self.lock().is_pausing(Instant::now())
        }

        /// Counts the idle connections that serve one session.
        pub(in crate::upstream) fn idle_for_sessions(&self) -> usize {
            self.lock().idle.iter().filter(|idle| idle.identity.is_some()).count()
        }

        /// Counts the connections that are being made for a session that has not begun a transaction.
        pub(in crate::upstream) fn being_made(&self) -> usize {
            let mut state = self.lock();
            state.purge_making();
            state.making.iter().filter(|making| making.client.is_some()).count()
        }
    }

    #[tokio::test]
    async fn how_many_are_greeted_ahead() {
        let pool = Pool::new(AHEAD + 2, PATIENCE, IDLE_LIMIT);
        let now = Instant::now();
        let mut places = Vec::new();
        let place = |places: &mut Vec<AheadPlace>, at: Instant| {
            places.extend(pool.place_ahead(at));
            places.len()
        };
        // a single session; more of them, frequent enough; never more than the maximum
        assert_eq!(place(&mut places, now), 0);
        for number in 1..=AHEAD {
            assert_eq!(place(&mut places, now), number);
        }
        assert_eq!(place(&mut places, now), AHEAD);
        // one is done, but sessions have become rare
        places.pop();
        assert_eq!(place(&mut places, now + IDLE_LIMIT), AHEAD - 1);
        assert_eq!(place(&mut places, now + IDLE_LIMIT), AHEAD);
        // one failed
        places.pop();
        pool.pause_ahead(now);
        let end = now + AHEAD_PAUSE;
        for (at, expected) in [(end - Duration::from_millis(1), AHEAD - 1), (end, AHEAD)] {
            assert_eq!(place(&mut places, at), expected);
        }
        // the last place of all goes to a session, and then there is none
        places.pop();
        let _held = [pool.place().await.ok(), pool.place().await.ok(), pool.place().await.ok()];
        assert_eq!(place(&mut places, end), AHEAD - 1);
        // whoever waits wants one of them back
        assert!(places.iter_mut().all(|place| place.wanted_back.try_recv() == EMPTY));
        let waiting = pool.take(&[]).err().unwrap();
        let youngest = places.pop().map(|mut place| place.wanted_back.try_recv());
        assert!(youngest.is_some_and(|wanted_back| wanted_back != EMPTY));
        assert!(places.iter_mut().all(|place| place.wanted_back.try_recv() == EMPTY));
        assert!(matches!(pool.wait(waiting).await, Ok(Lease::Slot(_))));
    }

    #[tokio::test]
    async fn how_many_are_made_for_sessions() {
        let pool = Pool::new(PREPARED + 1, PATIENCE, IDLE_LIMIT);
        let (client, now) = (identity("alice"), Instant::now());
        let mut made: Vec<_> = (0..PREPARED + 1).filter_map(|_| pool.place_for(&client, now)).collect();
        assert_eq!(made.len(), PREPARED);
        // one is done; somebody else needs the last two places, and a third one
        made.pop();
        let _held = (pool.place().await.ok(), pool.place().await.ok());
        assert!(pool.place_for(&client, now).is_none());
        let waiting = pool.take(&[]).err().unwrap();
        let given_up: Vec<_> = made.iter_mut().map(|(_, given_up)| given_up.try_recv() != EMPTY).collect();
        assert_eq!(given_up.iter().filter(|given_up| **given_up).count(), 1);
        assert!(given_up.last().unwrap());
        drop(waiting);
        // nor during a pause, nor while all is being closed
        made.clear();
        pool.pause_ahead(now);
        assert!(pool.place_for(&client, now).is_none());
        let later = now + AHEAD_PAUSE;
        assert!(pool.place_for(&client, later).is_some());
        pool.close();
        assert!(pool.place_for(&client, later).is_none());
    }

    const EMPTY: Result<Infallible, oneshot::error::TryRecvError> = Err(oneshot::error::TryRecvError::Empty);

    #[tokio::test]
    async fn none_is_greeted_ahead_while_all_is_being_closed() {
        let pool = Pool::new(AHEAD, PATIENCE, IDLE_LIMIT);
        let now = Instant::now();
        assert!(pool.place_ahead(now).is_none());
        let mut place = pool.place_ahead(now).unwrap();
        pool.close();
        assert!(place.wanted_back.try_recv() != EMPTY);
        assert!(pool.place_ahead(now).is_none());
    }
}
