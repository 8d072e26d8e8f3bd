//! Wiring: a configuration becomes parts, parts become accept loops, and all of it is shut down.
//!
//! Decides nothing about mail. An error at the start is one sentence that names the cause and the cure.

mod commanded;
mod contacts;
mod data_dir;
mod handing;
mod host;
mod listener;
pub mod process;
mod reload;
mod slots;
mod sockets;
mod systemd;
mod watchers;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use commanded::Commanded;
use contacts::Contacts;
pub use data_dir::{CHECK_MARK, DataDir};
pub use host::PartsHost;
use listener::Listener;
use slots::{Most, Slots};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::auth::{Authenticator, UsersError};
use crate::clock;
use crate::config::{Config, ListenTls};
use crate::control::socket::{self, ControlSocket};
use crate::control::{Operations, audit};
use crate::desk::{Desk, Terms};
use crate::digest::Digests;
use crate::guard::Ledger;
use crate::maillog;
use crate::net::{self_signed, tls};
use crate::notify::outbox::Outbox;
use crate::parts::Parts;
use crate::quarantine::Spool;
use crate::quarantine::spool::SWEPT_TOLD;
use crate::release::Releaser;
use crate::roster::Roster;
use crate::sender::Senders;
use crate::submission::Buffers;
use crate::upstream::Upstream;

/// How long the rest may take to end once `shutdown_timeout` is over.
const GOODBYE: Duration = Duration::from_secs(2);

/// Why the service did not start, or stopped.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ServerError(pub String);

impl ServerError {
    fn from<E: std::fmt::Display>(error: E) -> Self {
        Self(error.to_string())
    }
}

/// The parts without sockets, for a command that works while the service does not run.
pub struct Workshop {
    /// The parts.
    pub parts: Parts,
    shutdown: watch::Sender<bool>,
    _data_dir: DataDir,
}

/// The service, bound and ready to accept clients.
pub struct Server {
    workshop: Workshop,
    listeners: Vec<Listener>,
    control: ControlSocket,
    slots: Slots,
}

impl Workshop {
    /// Takes the data directory and creates all parts.
    ///
    /// # Errors
    /// One of them cannot be created.
    pub async fn open(config: Config) -> Result<Self, ServerError> {
        let data_dir = DataDir::take(&config.data_dir)?;
        let secret = data_dir.secret()?;
        let (users, mechanisms) = (&config.auth.users, &config.auth.mechanisms);
        // One source of senders is enough: relay hosts or users.
        let auth = if config.relay_hosts.is_empty() {
            Authenticator::open(Some(users), mechanisms, secret)
        } else {
            Authenticator::open_if_there(users, mechanisms, secret)
        };
        let unusable = |error: &dyn std::fmt::Display| ServerError(config.files.located(&error));
        let auth = auth.map_err(|error| unusable(&users_unusable(&error)))?;
        auth.adopt(config.auth.guesses, config.auth.max_checks);
        let senders = Senders::open(config.sender.policy, &config.upstream.domains, &config.sender.map)
            .map_err(|error| unusable(&error))?;
        let spool =
            Spool::open(data_dir.path(), config.quarantine.clone()).await.map_err(ServerError::from)?;
        let parked = || spool.blocks();
        let ledger = Ledger::open(data_dir.path(), config.policy.clone(), &parked, clock::now());
        let ledger = ledger.map_err(ServerError::from)?;
        let outbox = Outbox::open(data_dir.path()).map_err(ServerError::from)?;
        let upstream = Upstream::open(config.upstream.settings.clone()).map_err(|error| unusable(&error))?;
        let buffers = Buffers::new(config.session.max_buffered);
        let (shutdown, down) = watch::channel(false);
        let config = Arc::new(config);
        let (digests, trouble) = Digests::open(data_dir.path(), &config, clock::now());
        if let Some(why) = trouble {
            maillog::digests_unreadable(&why);
        }
        let terms = Terms::read(Arc::clone(&config)).map_err(ServerError)?;
        let tls = certificate(&config)?;
        let desk = Desk::new(terms, outbox, spool.clone());
        let in_force = Arc::new(ArcSwap::new(Arc::clone(&config)));
        let parts = Parts {
            config,
            in_force,
            ledger,
            spool,
            upstream,
            auth,
            senders,
            roster: Roster::default(),
            digests,
            desk,
            buffers,
            tls,
            shutdown: down,
        };
        Ok(Self { parts, shutdown, _data_dir: data_dir })
    }

    /// Returns the operations of the control API over these parts; audit lines go to `audit`.
    pub fn operations(&self, audit: host::Audit) -> Operations {
        let Parts { ledger, spool, roster, .. } = self.parts.clone();
        Operations::new(ledger, spool, roster, Arc::new(PartsHost::new(self.parts.clone(), audit)))
    }

    /// The same for a command's own process; `tell` is told what it waits for.
    pub fn operations_alone(&self, audit: host::Audit, tell: fn(&str)) -> Operations {
        let Parts { ledger, spool, roster, .. } = self.parts.clone();
        Operations::new(ledger, spool, roster, Arc::new(PartsHost::alone(self.parts.clone(), audit, tell)))
    }

    /// Writes what is pending.
    pub async fn close(self) {
        self.parts.upstream.close();
        self.parts.ledger.close().await;
    }
}

/// Opens the certificates that clients see. May create a self-signed pair, so it comes after everything else that can fail: a
/// start that fails leaves no files behind.
fn certificate(config: &Config) -> Result<tls::Acceptor, ServerError> {
    let (certificate, key) = (&config.tls.certificate, &config.tls.private_key);
    let unusable = |error: tls::TlsError| ServerError(config.files.located(&error));
    let client_ca = config.tls.client_ca.as_deref();
    if config.tls.may_generate {
        // The other files first: they may make the start fail, too.
        tls::Acceptor::open_further(config.certificates.clone(), client_ca).map_err(unusable)?;
        if self_signed::ensure(certificate, key, &config.hostname).map_err(unusable)? {
            maillog::self_signed(certificate);
        }
    }
    tls::Acceptor::open(config.key_pairs(), client_ca).map_err(unusable)
}

fn users_unusable(error: &UsersError) -> String {
    let cure = match error {
        UsersError::Io { cause, .. } if cause.kind() == std::io::ErrorKind::NotFound => {
            ". Relay hosts alone ([relay] hosts) need none"
        }
        // The error says it itself.
        _ => "",
    };
    format!("{error}{cure}")
}

impl Server {
    /// Creates all parts and binds all sockets; no client is accepted yet.
    ///
    /// # Errors
    /// The service cannot start.
    pub async fn start(config: Config) -> Result<Self, ServerError> {
        Self::start_on(config, None).await
    }

    /// The same on sockets bound already, one for each `[[listen]]`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_on(config: Config, bound: Option<Vec<TcpListener>>) -> Result<Self, ServerError> {
        let listen = config.listen.clone();
        let workshop = Workshop::open(config).await?;
        let bound = match bound {
            Some(bound) => bound,
            None => sockets::open(&listen)?,
        };
        let pairs = listen.iter().zip(bound);
        let listeners =
            pairs.map(|(listen, socket)| Listener::new(listen, socket)).collect::<Result<Vec<_>, _>>()?;
        let control = ControlSocket::bind(&workshop.parts.config.data_dir).map_err(|error| {
            ServerError(format!(
                "the control socket {} cannot be made: {error}; set data_dir to a folder of ours alone",
                workshop.parts.config.data_dir.join(socket::NAME).display()
            ))
        })?;
        let slots = Slots::new(Most::of(&workshop.parts.config.session), Instant::now());
        Ok(Self { workshop, listeners, control, slots })
    }

    /// Returns the listeners' addresses, in the order of the configuration.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|listener| listener.address).collect()
    }

    /// The parts, for callers other than clients.
    pub fn parts(&self) -> &Parts {
        &self.workshop.parts
    }

    /// Accepts clients until `until` completes, then lets what is under way finish.
    pub async fn run(self, until: impl Future<Output = ()>) {
        let Self { workshop, listeners, control, slots } = self;
        let parts = workshop.parts.clone();
        let mut beside = watch_over(&parts, Contacts::begun(&parts).await);
        let mut finishing = JoinSet::new();
        let releaser = Releaser::new(parts.clone());
        finishing.spawn(async move { releaser.run().await });
        let operations = workshop.operations(Box::new(maillog::audit));
        if let Err(error) = audit::log_pending(&parts.config.data_dir, maillog::audit) {
            maillog::audit_lines_left(&error.to_string());
        }
        watchers::shut_out(&parts);
        parts.ledger.raise_floor(parts.spool.floor());
        tell_what_was_found(&parts);
        let mut commanded = Commanded::start(control, operations);
        for listener in listeners {
            let tls = match listener.tls {
                ListenTls::StartTls => "starttls",
                ListenTls::Implicit => "implicit",
            };
            maillog::listening(listener.address, tls);
            tokio::spawn(listener.run(parts.clone(), slots.clone()));
        }
        let config = &parts.config;
        maillog::serving(env!("CARGO_PKG_VERSION"), &config.hostname, config.file.as_deref());
        systemd::ready();
        until.await;
        systemd::stopping();
        maillog::shutting_down(slots.open());
        let _ = workshop.shutdown.send(true);
        let patience = parts.in_force.load().session.shutdown_timeout;
        let _ = timeout(patience, async {
            slots.emptied().await;
            while finishing.join_next().await.is_some() {}
            commanded.drain().await;
        })
        .await;
        let left = slots.open();
        // Whatever they count from here on would be lost, and must not be answered.
        slots.evict();
        let _ = timeout(GOODBYE, slots.emptied()).await;
        // Finishes commands that came while sessions used up the time.
        let _ = timeout(GOODBYE, commanded.drain()).await;
        // No release may go on once the next process can take the data directory.
        finishing.shutdown().await;
        commanded.cut().await;
        let _ = timeout(GOODBYE, parts.desk.finish()).await;
        beside.shutdown().await;
        workshop.close().await;
        maillog::stopped(left);
    }
}

/// Logs what is not as it should be in the quarantine that an earlier process has left.
fn tell_what_was_found(parts: &Parts) {
    let swept = parts.spool.swept();
    swept.iter().take(SWEPT_TOLD).for_each(maillog::quarantine_swept);
    if let Some(more) = swept.len().checked_sub(SWEPT_TOLD).filter(|more| *more > 0) {
        maillog::quarantine_swept_more(more);
    }
    let (floor, now) = (parts.spool.floor(), clock::now());
    if floor > now {
        maillog::clock_behind(floor, now, &parts.spool.floor_file());
    }
    let unreadable = parts.spool.unreadable();
    if unreadable > 0 {
        maillog::quarantine_unreadable(unreadable);
    }
}

/// The tasks that run beside the sessions.
fn watch_over(parts: &Parts, contacts: Contacts) -> JoinSet<()> {
    let mut beside = JoinSet::new();
    beside.spawn(watchers::log());
    beside.spawn(systemd::watchdog());
    beside.spawn(watchers::users(parts.clone()));
    beside.spawn(watchers::senders(parts.clone()));
    beside.spawn(watchers::ledger(parts.clone()));
    beside.spawn(watchers::recovery(parts.clone()));
    beside.spawn(watchers::blocks(parts.clone()));
    beside.spawn(watchers::lapses(parts.clone()));
    beside.spawn(watchers::causes(parts.clone()));
    beside.spawn(watchers::digests(parts.clone()));
    beside.spawn(watchers::quarantine(parts.clone()));
    beside.spawn(watchers::unreadable(parts.clone()));
    for index in 0..parts.tls.served().pairs().len() {
        beside.spawn(watchers::certificate(parts.clone(), index));
    }
    beside.spawn(watchers::expiry(parts.clone()));
    let desk = parts.desk.clone();
    beside.spawn(async move { desk.run().await });
    beside.spawn(contacts.keep(parts.clone()));
    beside
}

/// Runs `gatepost serve` until SIGTERM or SIGINT. SIGHUP reloads the configuration; certificates and users file are watched
/// anyway. `ready` comes from [`process::ready`].
///
/// # Errors
/// The service could not start.
pub async fn serve(config: Config, mut ready: process::Ready) -> Result<(), ServerError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ServerError::from)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServerError::from)?;
    let hangup = signal(SignalKind::hangup()).map_err(ServerError::from)?;
    let bound = ready.bound.take();
    let server = Server::start_on(config, bound).await?;
    ready.tell();
    tokio::spawn(reload::hangups(server.workshop.parts.clone(), server.slots.clone(), hangup));
    server
        .run(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_file_that_cannot_be_read_has_one_cure() {
        let told = |kind: std::io::ErrorKind| {
            users_unusable(&UsersError::Io { path: "/users".to_owned(), cause: kind.into() })
        };
        assert_eq!(
            told(std::io::ErrorKind::PermissionDenied),
            "/users: permission denied; let the user that Gatepost runs as read it"
        );
        assert_eq!(
            told(std::io::ErrorKind::NotFound),
            "/users: entity not found; is its path in the configuration right? `gatepost user add NAME` makes the file. \
             Relay hosts alone ([relay] hosts) need none"
        );
    }
}
