//! THE MAIL PATH IN: drives one client's session from its first octet to the last reply.
//!
//! A loop: do what the machine's step asks (read a line, start TLS, authenticate, ask, receive, relay or park), and turn the
//! outcome into the next event. The machine (session/) decides what may be said when, and what is replied. [`client`] reads and
//! writes octets, [`probe`] counts answers, [`receive`] takes a message in and routes it, [`message`] is the message meanwhile,
//! and [`outcome`] how it ends.

mod buffers;
mod client;
mod facts;
mod message;
mod outcome;
mod pace;
mod probe;
mod receive;
mod sasl;
mod scrutiny;

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::Guard;
pub use buffers::Buffers;
use client::{Client, Lost};
use message::Incoming;
use probe::Asked;
use sasl::{Denied, Known};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

use crate::account::Account;
use crate::clock::{self, Timestamp};
use crate::config::Action;
use crate::guard::mimicry::Precedents;
use crate::guard::window::DomainKeys;
use crate::guard::{Reservation, Standing, Watch};
use crate::id::SessionId;
use crate::maillog::SessionLog;
use crate::net::Stream;
use crate::parts::Parts;
use crate::quarantine::spool::ParkError;
use crate::rare::rare;
use crate::roster::{Ending, Ticket};
use crate::sender::Rules;
use crate::session::{
    AuthOutcome, Event, Interruption, LineError, ParkReason, Session, Sources, Step, Terms, View,
};
use crate::smtp::{Command, CommandError, Extensions};
use crate::upstream::{SessionConnections, Transaction};

/// How long a client without a transaction may stay silent once the service shuts down, before it gets its 421 unasked.
const SHUTDOWN_GRACE: std::time::Duration = std::time::Duration::from_secs(1);
/// The share of `shutdown_timeout` that a client has for that in mid-transaction, before its message: its next command would
/// get 421 anyway, and others must not wait for it.
const SHUTDOWN_SHARE: u32 = 3;

/// How long a client may be silent in mid-transaction before others may have its upstream connection; well below the time after
/// which the upstream would close it (Postfix's `smtpd_timeout`: 300 s).
const UPSTREAM_REST: std::time::Duration = std::time::Duration::from_secs(30);

/// How long the upstream may take at least to answer what was asked once the client has closed; it always has its
/// `[upstream] timeout`.
const LAST_ANSWERS: std::time::Duration = std::time::Duration::from_secs(60);

/// The account that a session belongs to.
struct Sender {
    account: Account,
    watch: Watch,
    /// The guard's leave, for the RCPTs in flight and for those counted by the next two fields.
    leave: Reservation,
    /// Leave held for RCPTs not asked yet.
    unused_leave: usize,
    /// Leave held for RCPTs already answered, not given back yet.
    answered_leave: usize,
    ticket: Ticket,
}

impl Sender {
    /// Gives back leave that is no longer needed, in one step and before any wait, so that other sessions of the account get
    /// it whole.
    fn give_back_leave(&mut self) {
        let unneeded = std::mem::take(&mut self.unused_leave) + std::mem::take(&mut self.answered_leave);
        self.leave.release_some(unneeded);
    }
}

/// Logs a panic of the session's task. What the session held is given back by unwinding.
struct Witness(SessionLog);

impl Drop for Witness {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.panicked();
        }
    }
}

/// One client's conversation: the machine and everything it drives.
struct Conversation {
    parts: Parts,
    id: SessionId,
    peer: SocketAddr,
    log: SessionLog,
    client: Client,
    session: Session,
    sender: Option<Sender>,
    /// The client's names according to its certificate, if it has shown one.
    certificate: Vec<String>,
    /// Questions without an answer yet, in order.
    asked: VecDeque<Asked>,
    /// Keys of the recipients' domains.
    domains: DomainKeys,
    upstream: Option<Box<Transaction>>,
    /// After the transaction, so that it is dropped after it if the task is cut off.
    connections: SessionConnections,
    /// When the upstream last answered.
    last_answer: Instant,
    incoming: Option<Box<Incoming>>,
    /// When a client must have logged in (a relay host: sent its first command).
    admission: Option<Instant>,
    shutdown: watch::Receiver<bool>,
    /// How many messages there were so far, for Message-IDs.
    messages: u32,
}

/// The other end of a connection.
#[derive(Debug, Clone, Copy)]
pub enum Peer {
    /// The client.
    Client(SocketAddr),
    /// A proxy that does not name its client, if it has one (PROXY protocol 2.1, UNKNOWN; 2.2, LOCAL). It makes nobody a relay
    /// host: otherwise everyone who reaches the proxy would be one.
    Proxy(SocketAddr),
}

impl Peer {
    /// Returns the address, whichever end it is.
    pub fn address(self) -> SocketAddr {
        match self {
            Self::Client(address) | Self::Proxy(address) => address,
        }
    }
}

/// Serves one client to the end of its session. On an implicit listener `stream` is already TLS.
///
/// Not an `async fn`: that would store its arguments as well as what is made of them, for each connection.
pub fn serve(
    parts: Parts,
    stream: Stream,
    peer: Peer,
    connected: Instant,
) -> impl Future<Output = ()> + Send + use<> {
    let id = SessionId::new(clock::now());
    let is_client = matches!(peer, Peer::Client(_));
    let peer = SocketAddr::new(peer.address().ip().to_canonical(), peer.address().port());
    let log = SessionLog::new(id, peer);
    let witness = Witness(log.clone());
    let relay_host = is_client && parts.config.relay_hosts.iter().any(|network| network.contains(&peer.ip()));
    log.connected(stream.tls().is_some(), relay_host);
    let terms = Terms {
        hostname: parts.config.hostname.clone(),
        implicit_tls: stream.tls().is_some(),
        relay_host,
        max_message_size: parts.config.session.max_message_size,
        max_recipients: parts.config.session.max_recipients,
        max_transactions: parts.config.session.max_transactions,
        max_errors: parts.config.session.max_errors,
        refuse_blocked: parts.config.action == Action::Refuse,
    };
    let mut conversation = Conversation {
        id,
        peer,
        log,
        certificate: stream.client_names(),
        client: Client::new(stream),
        session: Session::new(terms, facts::seed()),
        sender: None,
        asked: VecDeque::new(),
        domains: DomainKeys::default(),
        upstream: None,
        connections: parts.upstream.session(id),
        last_answer: connected,
        incoming: None,
        admission: Some(connected + parts.config.session.auth_timeout),
        shutdown: parts.shutdown.clone(),
        messages: 0,
        parts,
    };
    async move {
        if relay_host {
            rare(conversation.becomes(Account::host(conversation.peer.ip()))).await;
        }
        let ended = conversation.run().await;
        let why = ended.err().map_or_else(|| "closed".to_owned(), |lost| lost.to_string());
        conversation.log.disconnected(&why);
        if let Some(sender) = &mut conversation.sender {
            sender.leave.release();
        }
        // As long as somebody can be told that its answers are in doubt.
        conversation.rest_upstream();
        drop((conversation.upstream, conversation.connections));
        rare(conversation.client.close()).await;
        drop(witness);
    }
}

impl Conversation {
    async fn run(&mut self) -> Result<(), Lost> {
        let mut step = self.handle(Event::Connected);
        loop {
            self.give_back_upstream();
            // Steps that are rare, or come once per message, are boxed: what a session holds while it waits for a command is
            // what a connection costs.
            step = match step {
                Step::Read => self.next().await?,
                Step::Close => {
                    self.give_back_leave();
                    return self.client.flush().await;
                }
                Step::StartTls => rare(self.start_tls()).await?,
                Step::Authenticate { mechanism, initial } => {
                    let initial = initial.map(Zeroizing::new);
                    let initial = initial.as_ref().map(|text| text.as_str());
                    rare(self.authenticate(&mechanism, initial)).await?
                }
                Step::Ask(ask) => self.ask(ask).await?,
                Step::ReceiveData => Box::pin(self.receive_data()).await?,
                Step::ReceiveChunk { size, last } => rare(self.receive_chunk(size, last)).await?,
                Step::DiscardChunk(size) => rare(self.discard_chunk(size)).await?,
            };
        }
    }

    /// Waits for the next event while no message is coming in: a command, an answer, or a timeout.
    async fn next(&mut self) -> Result<Step, Lost> {
        // Computed only when there is something to wait for: in a batch the next command is already here.
        let mut deadline = None;
        // Until when the upstream is kept waiting, whatever the client says meanwhile.
        let mut rest = self.upstream.is_some().then(|| self.last_answer + UPSTREAM_REST);
        loop {
            if let Some(lost) = self.client.take_loss() {
                return Err(rare(self.last_answers(lost)).await);
            }
            // A flood of commands does not outlast it either.
            if self.admission.is_some_and(|admission| admission <= Instant::now()) {
                return Ok(self.handle(Event::TimedOut));
            }
            if let Some(line) = self.client.buffered_command() {
                let overtakes = Session::may_overtake(&line) && self.session.has_room();
                if !overtakes {
                    if matches!(line, Ok(Command::Data)) {
                        self.data_follows();
                    }
                    if self.settle_all().await == Step::Close {
                        return Ok(Step::Close);
                    }
                    if let Some(lost) = self.client.take_loss() {
                        return Err(lost);
                    }
                }
                self.remark_on(&line);
                if self.sender.is_some() {
                    self.admission = None;
                }
                return Ok(self.handle(Event::Line(line)));
            }
            if !self.asked.is_empty() {
                match self.client.read_ready().await {
                    // The rest of a batch may already be here.
                    Ok(true) => continue,
                    Ok(false) => return Ok(self.settle().await),
                    Err(lost) => return Err(rare(self.last_answers(lost)).await),
                }
            }
            self.give_back_leave();
            self.client.flush().await?;
            // Between two chunks a message is under way: the shutdown leaves the client alone until its next command.
            let in_chunks = self.session.transaction().is_some_and(|transaction| transaction.in_chunks);
            let deadline = *deadline.get_or_insert_with(|| self.command_deadline());
            let shutdown = (!in_chunks).then_some(&mut self.shutdown);
            let wait = rest.map_or(deadline, |rest| rest.min(deadline));
            let command = self.client.read_command(Some(wait), shutdown);
            // On the heap: most waiting sessions are in no transaction, and should not take room for one.
            let came = match &self.sender {
                Some(sender) if rest.is_some() => Box::pin(unless_blocked(command, &sender.watch)).await,
                _ => Some(command.await),
            };
            // A blocked account holds no upstream connection, whichever session the block came from.
            let Some(came) = came else {
                rest = None;
                self.rest_upstream();
                self.connections.close();
                continue;
            };
            match came {
                Ok(()) => {}
                Err(Lost::TimedOut) if wait < deadline => {
                    rest = None;
                    self.rest_upstream();
                }
                Err(Lost::TimedOut) => return Ok(self.handle(Event::TimedOut)),
                Err(Lost::Interrupted) => return rare(self.interrupted()).await,
                Err(lost) => return Err(lost),
            }
        }
    }

    /// Settles what was asked of the upstream although the client has closed or is gone: it counts, and a client that has
    /// closed only its half waits for the replies.
    async fn last_answers(&mut self, lost: Lost) -> Lost {
        let limit = self.parts.config.upstream.settings.timeouts.rcpt.max(LAST_ANSWERS);
        let _ = timeout(limit, self.settle_all()).await;
        let _ = self.client.flush().await;
        lost
    }

    /// Lets others have the upstream connection; if the transaction goes on, it takes another.
    fn rest_upstream(&mut self) {
        if let Some(upstream) = &mut self.upstream {
            let was_in_doubt = upstream.is_in_doubt();
            upstream.rest();
            self.note_doubt(was_in_doubt);
        }
    }

    /// Logs what an operator should know about a line, whatever its reply.
    fn remark_on(&self, line: &Result<Command, LineError>) {
        match line {
            Ok(Command::Auth { initial: Some(_), .. }) if !self.session.encrypted() => {
                self.log.credentials_exposed();
            }
            Ok(Command::Mail(mail)) => {
                if let Some(Sender { account, .. }) = &self.sender
                    && !self.parts.senders.rules().allow(account, &mail.reverse_path)
                {
                    self.log.foreign_sender(account, mail.reverse_path.as_str());
                }
            }
            Err(LineError::Command(CommandError::Http)) => self.log.other_protocol("HTTP"),
            Err(LineError::TlsHello) => self.log.other_protocol("TLS"),
            _ => {}
        }
    }

    fn command_deadline(&self) -> Instant {
        let idle = Instant::now() + self.parts.config.session.idle_timeout;
        self.admission.map_or(idle, |admission| admission.min(idle))
    }

    /// Handles a shutdown while the client is silent: its next command gets 421, or it gets 421 unasked after a while.
    async fn interrupted(&mut self) -> Result<Step, Lost> {
        let grace = match self.session.transaction() {
            Some(_) => self.parts.config.session.shutdown_timeout / SHUTDOWN_SHARE,
            None => SHUTDOWN_GRACE,
        };
        match self.client.read_command(Some(Instant::now() + grace), None).await {
            Ok(()) | Err(Lost::TimedOut) => Ok(self.handle(Event::Interrupted)),
            Err(lost) => Err(lost),
        }
    }

    async fn start_tls(&mut self) -> Result<Step, Lost> {
        self.client.discard_cleartext().await;
        self.client.flush().await?;
        let deadline = self.command_deadline().min(Instant::now() + self.parts.config.session.tls_timeout);
        self.client.start_tls(&self.parts.tls, Some(deadline)).await?;
        if let Some(tls) = self.client.stream().and_then(Stream::tls) {
            self.log.encrypted(tls.version, tls.cipher);
        }
        self.certificate = self.client.stream().map(Stream::client_names).unwrap_or_default();
        Ok(self.handle(Event::TlsEstablished))
    }

    async fn authenticate(&mut self, mechanism: &str, initial: Option<&str>) -> Result<Step, Lost> {
        let deadline = self.command_deadline();
        let users = self.parts.auth.snapshot();
        let binding = self.client.stream().filter(|_| self.binds()).and_then(Stream::channel_binding);
        let known = Known { origin: self.peer.ip(), certificate: &self.certificate, binding };
        let auth = &self.parts.auth;
        let exchange = sasl::exchange(&mut self.client, auth, mechanism, initial, known, deadline).await;
        let mut ended = match exchange {
            Ok(ended) => ended,
            Err(Lost::TimedOut) => return Ok(self.handle(Event::TimedOut)),
            Err(lost) => return Err(lost),
        };
        match &ended.denied {
            Some(Denied::Wrong { name, why, counted }) => {
                self.log.authentication_failed(mechanism, name.as_deref(), why, *counted);
            }
            Some(Denied::PutOff { name, crowded }) => {
                self.log.authentication_put_off(mechanism, name.as_deref(), *crowded);
            }
            None => {}
        }
        if let AuthOutcome::Success(account) = &ended.outcome {
            self.log.authenticated(account, mechanism);
            if let Some(guessed) = ended.guessed {
                self.log.guessed(account, guessed);
                self.parts.desk.guessed(account, self.peer.ip(), guessed).await;
            }
            self.becomes(account.clone()).await;
            if self.is_crowded(account) {
                self.log.too_many_sessions(account);
                ended.outcome = AuthOutcome::Crowded;
            } else if let Some(sender) = self.sender.as_ref().filter(|_| users.is_outdated(account)) {
                // A users file loaded before the session was in the roster did not end it.
                sender.ticket.end(Ending::CredentialsChanged);
            }
            self.admission = None;
        }
        let step = self.handle(Event::Authenticated(ended.outcome));
        self.prepare_upstream();
        Ok(step)
    }

    /// Has an upstream connection made ready while a client that has just logged in reads that it has.
    fn prepare_upstream(&mut self) {
        let Some(Sender { watch, ticket, .. }) = &self.sender else { return };
        let may_send = || watch.standing() == Standing::Open && ticket.ending().is_none();
        if self.session.user().is_some() && may_send() {
            self.connections.prepare(&facts::identity(&self.session, self.id, self.peer));
            // A block meanwhile has not seen it (`Upstream::end_account`).
            if !may_send() {
                self.connections.close();
            }
        }
    }

    /// Whether the account, including this session, has too many sessions.
    fn is_crowded(&self, account: &Account) -> bool {
        let most = self.parts.config.session.max_connections_per_account;
        most > 0 && self.parts.roster.count(account) > most
    }

    /// Whether an exchange can be bound to the client's TLS session.
    fn binds(&self) -> bool {
        self.parts.config.auth.channel_binding && self.client.stream().is_some_and(Stream::can_bind)
    }

    /// Returns the mechanisms that the client is offered.
    #[inline(never)] // see "The code of a message" in docs/performance.md
    fn mechanisms(&self) -> Arc<str> {
        let offered = self.parts.auth.offered(self.binds());
        if self.certificate.is_empty() || !self.parts.auth.knows(&self.certificate) {
            return offered;
        }
        format!("{} {offered}", sasl::EXTERNAL).trim_end().into()
    }

    async fn becomes(&mut self, account: Account) {
        let watch = self.parts.ledger.watch(&account, clock::now()).await;
        let ticket = self.parts.roster.enter(&account, self.id);
        let leave = watch.no_leave();
        self.sender = Some(Sender { account, watch, leave, unused_leave: 0, answered_leave: 0, ticket });
    }

    /// Gives up the upstream for a transaction that the machine has given up, or that can only be parked.
    fn give_back_upstream(&mut self) {
        // RSET or EHLO between two chunks.
        if self.session.transaction().is_none()
            && let Some(mut incoming) = self.incoming.take()
        {
            incoming.abort(self.upstream.as_deref_mut());
        }
        if self.asked.is_empty() && !self.session.needs_upstream() && self.upstream.is_some() {
            // Before it is gone: then nobody learns that its answers are in doubt.
            self.rest_upstream();
            self.upstream = None;
            // A block that comes after this check closes idle connections itself (`Upstream::end_account`).
            if self.sender.as_ref().is_some_and(|sender| sender.watch.standing() == Standing::Blocked) {
                self.connections.close();
            }
        }
    }

    fn handle(&mut self, event: Event) -> Step {
        let mut scene = Scene::of(&self.parts, self.sender.as_ref(), &self.shutdown);
        if event.concerns_login() {
            scene.mechanisms = Some(self.mechanisms());
        }
        let step = self.session.handle(event, &scene.view(), &mut self.client.outbound);
        if let (Some(Err(full)), Some(sender)) = (scene.room.get(), scene.sender) {
            self.log.not_parked(&sender.account, ParkReason::Blocked, &full.to_string());
        }
        step
    }
}

/// Returns the outcome of `waiting`; `None` if the account is blocked first.
async fn unless_blocked<T>(waiting: impl Future<Output = T>, watch: &Watch) -> Option<T> {
    tokio::select! {
        biased;
        came = waiting => Some(came),
        () = watch.blocked() => None,
    }
}

/// What the machine sees of the world during one event. Holds guards instead of `Arc`s: all sessions share their counters, and
/// changing them at each event makes the cores wait for each other.
struct Scene<'a> {
    blocked: bool,
    /// Whether a message may be delayed.
    delays: bool,
    interruption: Option<Interruption>,
    /// The mechanisms, for events that concern the login.
    mechanisms: Option<Arc<str>>,
    parts: &'a Parts,
    sender: Option<&'a Sender>,
    now: OnceCell<Timestamp>,
    /// Whether a message could be parked, if that decided the reply.
    room: OnceCell<Result<(), ParkError>>,
    precedents: OnceCell<Precedents>,
    upstream: OnceCell<Guard<Option<Arc<Extensions>>>>,
    rules: OnceCell<Guard<Arc<Rules>>>,
}

impl<'a> Scene<'a> {
    fn of(parts: &'a Parts, sender: Option<&'a Sender>, shutdown: &watch::Receiver<bool>) -> Self {
        let blocked = sender.is_some_and(|sender| sender.watch.standing() == Standing::Blocked);
        let interruption = match sender.and_then(|sender| sender.ticket.ending()) {
            Some(Ending::Kicked) => Some(Interruption::Kicked),
            Some(Ending::CredentialsChanged) => Some(Interruption::CredentialsChanged),
            None => shutdown.borrow().then_some(Interruption::ShuttingDown),
        };
        Self {
            blocked,
            delays: true,
            interruption,
            mechanisms: None,
            parts,
            sender,
            now: OnceCell::new(),
            room: OnceCell::new(),
            precedents: OnceCell::new(),
            upstream: OnceCell::new(),
            rules: OnceCell::new(),
        }
    }

    fn view(&self) -> View<'_> {
        View {
            blocked: self.blocked,
            interruption: self.interruption,
            mechanisms: self.mechanisms.as_deref().unwrap_or_default(),
            sources: self,
        }
    }
}

/// Loaded on demand, at most once per event.
impl Sources for Scene<'_> {
    fn time(&self) -> Timestamp {
        *self.now.get_or_init(clock::now)
    }

    fn probation(&self) -> bool {
        self.delays && self.sender.is_some_and(|sender| sender.watch.probation(self.time()).is_some())
    }

    fn precedents(&self) -> &Precedents {
        self.precedents.get_or_init(|| self.parts.ledger.precedents())
    }

    fn upstream(&self) -> Option<&Extensions> {
        self.upstream.get_or_init(|| self.parts.upstream.offers()).as_deref()
    }

    fn sender(&self) -> Option<(&Rules, &Account)> {
        let rules = || self.parts.senders.rules();
        self.sender.map(|sender| (&***self.rules.get_or_init(rules), &sender.account))
    }

    fn room(&self) -> bool {
        let room = |sender: &Sender| self.parts.spool.room(&sender.account, 0);
        self.room.get_or_init(|| self.sender.map_or(Ok(()), room)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_panic_is_logged_with_the_session() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let file = Arc::new(File::create(&path).unwrap());
        let subscriber = tracing_subscriber::fmt().with_writer(file).finish();
        let id = SessionId::new(Timestamp::from_millis(1));
        tracing::subscriber::with_default(subscriber, || {
            for panics in [false, true] {
                let session = std::panic::catch_unwind(|| {
                    let _witness = Witness(SessionLog::new(id, "192.0.2.1:25".parse().unwrap()));
                    assert!(!panics, "as it is meant to");
                });
                assert_eq!(session.is_err(), panics);
            }
        });
        let log = std::fs::read_to_string(path).unwrap();
        assert_eq!((log.lines().count(), log.contains(&id.to_string())), (1, true), "{log}");
    }

    /// Of the future that a function makes out of four arguments.
    fn size_of_future<A, B, C, D, F>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    /// What each idle connection costs, beside TLS.
    #[test]
    fn a_session_that_waits_is_small() {
        let size = size_of_future(serve);
        assert!(size <= 2_560, "{size} octets, of which the conversation has {}", size_of::<Conversation>());
    }
}
