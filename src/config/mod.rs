//! The configuration: turns the file as written into a valid [`Config`], or reports all its problems at once.
//!
//! An unknown key, a wrong type or an impossible value is a [`problem::Problem`] with file, line, key and remedy.
//! Nothing here asks the system for anything but the file; the host name is an argument.

pub mod problem;

mod classify;
mod detection;
mod file;
mod named;
mod notify;
mod section;
mod upstream;
mod value;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use crate::auth::{GuessLimits, Mechanism};
use crate::guard::Rules;
use crate::guard::ledger::Policy;
use crate::notify::webhook::Hook;
use crate::quarantine::spool::Limits;
use crate::sender::Policy as SenderPolicy;
use crate::upstream::{KeyPair, Settings};

pub use named::NamedFiles;
pub use problem::{Problem, Problems};

/// A valid configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it was read from; `None` in tests and the demo.
    pub file: Option<PathBuf>,
    /// The files that it names, and where it names them.
    pub files: NamedFiles,
    /// Our name in the greeting, EHLO and Received.
    pub hostname: String,
    /// The folder of database, quarantine, outbox and control socket.
    pub data_dir: PathBuf,
    /// Where clients connect.
    pub listen: Vec<Listen>,
    /// `[tls]`
    pub tls: Tls,
    /// `[[certificate]]`
    pub certificates: Vec<KeyPair>,
    /// `[upstream]`
    pub upstream: Upstream,
    /// `[auth]`
    pub auth: Auth,
    /// `[relay] hosts`
    pub relay_hosts: Vec<IpNet>,
    /// `[limit]`, `[detection]` and `[[account]]`, as the ledger takes them.
    pub policy: Policy,
    /// `[limit] action`
    pub action: Action,
    /// `[limit] unblock_after`: how long an automatic block lasts; `None`: until it is lifted.
    pub unblock_after: Option<Duration>,
    /// `[[classify]]`
    pub classify: Rules,
    /// `[quarantine]`
    pub quarantine: Limits,
    /// `[notify]`
    pub notify: Notify,
    /// `[sender]`
    pub sender: Sender,
    /// `[submission]`
    pub submission: Submission,
    /// `[session]`
    pub session: Session,
    /// `[log]`
    pub log: Log,
    /// `[process]`
    pub process: Process,
}

impl Config {
    /// Reads a file. An empty `hostname` stands for `machine`, the name of this machine.
    ///
    /// # Errors
    /// All problems of the file, or that it cannot be read.
    pub fn load(file: &Path, machine: &str) -> Result<Self, Problems> {
        file::read(&Self::text(file)?, file, machine, None)
    }

    /// Reads a file anew while `in_force` is what we started with: its `hostname` stands for an empty one, and whatever
    /// follows from our name or the data folder follows from those, even if the file has others by now.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_anew(file: &Path, in_force: &Self) -> Result<Self, Problems> {
        file::read(&Self::text(file)?, file, &in_force.hostname, Some(in_force))
    }

    fn text(file: &Path) -> Result<String, Problems> {
        let octets = std::fs::read(file).map_err(|error| {
            Problems::of_file(file, None, format!("cannot be read: {error}; is it the right --config FILE?"))
        })?;
        String::from_utf8(octets).map_err(|error| {
            let valid = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
            let line = 1 + valid.filter(|octet| **octet == b'\n').count();
            Problems::of_file(file, Some(line), "is not UTF-8 from this line on".to_owned())
        })
    }

    /// All pairs of certificate and key that clients are served, the default first.
    pub fn key_pairs(&self) -> Vec<KeyPair> {
        let Tls { certificate, private_key, .. } = self.tls.clone();
        std::iter::once(KeyPair { certificate, private_key })
            .chain(self.certificates.iter().cloned())
            .collect()
    }

    /// Reads the text of a configuration file; relative paths in it are relative to the folder of `file`.
    ///
    /// # Errors
    /// All problems of the text.
    pub fn parse(text: &str, file: &Path, machine: &str) -> Result<Self, Problems> {
        file::read(text, file, machine, None)
    }
}

/// Every key that a configuration file can have, as `[table] key`, or just `key` for those before the first table.
pub fn keys() -> Vec<String> {
    file::keys()
        .into_iter()
        .map(|key| format!("{} {}", key.table, key.name).trim_start().to_owned())
        .collect()
}

/// One `[[listen]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Address and port; port 0 is any free port.
    pub address: SocketAddr,
    /// How TLS begins.
    pub tls: ListenTls,
    /// Networks whose connections begin with a PROXY header.
    pub proxy_protocol: Vec<IpNet>,
}

/// `[[listen]] tls`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenTls {
    /// With STARTTLS.
    StartTls,
    /// From the first octet.
    Implicit,
}

/// `[tls]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// PEM file with the certificate chain.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub private_key: PathBuf,
    /// Whether both are the default paths: a missing pair may then be generated.
    pub may_generate: bool,
    /// PEM file with the authorities of clients' certificates; `None`: clients are not asked for one.
    pub client_ca: Option<PathBuf>,
}

/// `[upstream]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// The settings of the upstream client.
    pub settings: Settings,
    /// The MTA's own mail domains.
    pub domains: Vec<String>,
    /// Foreign domains with which `check` tests whether the MTA verifies recipients elsewhere, too.
    pub canary: Vec<String>,
}

impl Upstream {
    /// The canaries that are foreign indeed.
    pub fn foreign_canaries(&self) -> impl Iterator<Item = &str> {
        let is_own = |canary: &str| self.domains.iter().any(|domain| domain.eq_ignore_ascii_case(canary));
        self.canary.iter().map(String::as_str).filter(move |canary| !is_own(canary))
    }
}

/// `[auth]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// In the order in which they are offered.
    pub mechanisms: Vec<Mechanism>,
    /// Whether SCRAM-SHA-256-PLUS is offered beside SCRAM-SHA-256 on TLS sessions that support it.
    pub channel_binding: bool,
    /// The users file.
    pub users: PathBuf,
    /// How many wrong passwords are tolerated.
    pub guesses: GuessLimits,
    /// How many passwords are checked at the same time; 0: the number of cores less one.
    pub max_checks: usize,
}

/// `[limit] action`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A blocked account's mail is parked, unnoticed by its client.
    Park,
    /// It is refused with 550 5.7.1.
    Refuse,
}

/// `[notify]`
#[derive(Debug, Clone)]
pub struct Notify {
    /// Addresses of the abuse desk; empty: no mail.
    pub to: Vec<String>,
    /// The From address.
    pub from: String,
    /// How often the abuse desk is reminded of messages in the quarantine; `None`: never.
    pub digest: Option<Duration>,
    /// The file with the text of notices about an account; `None`: the built-in text.
    pub template: Option<PathBuf>,
    /// Where events are posted.
    pub webhook: Option<Hook>,
}

/// `[sender]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// Who may send as whom.
    pub policy: SenderPolicy,
    /// The senders file.
    pub map: PathBuf,
    /// Whether the addresses in From: are checked too.
    pub from_header: bool,
}

/// `[submission]`
#[derive(Debug, Clone)]
pub struct Submission {
    /// Whether Gatepost replaces or adds Sender:.
    pub sender_header: bool,
    /// Whether Received: omits the client's address.
    pub hide_client: bool,
}

/// `[session] bare_newline`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BareNewline {
    /// The message is refused.
    Reject,
    /// It is replaced by CRLF.
    Normalize,
}

/// `[session]`; sizes in octets.
#[derive(Debug, Clone)]
pub struct Session {
    /// Client connections in total.
    pub max_connections: usize,
    /// Client connections from one address (IPv6: one /64).
    pub max_connections_per_ip: usize,
    /// New connections from one address per minute; 0: unlimited.
    pub max_new_connections_per_ip: usize,
    /// Sessions of one user; 0: unlimited.
    pub max_connections_per_account: usize,
    /// Transactions in one session; 0: unlimited.
    pub max_transactions: u32,
    /// Errors after which a session ends.
    pub max_errors: u32,
    /// Size of one message.
    pub max_message_size: u64,
    /// Size of the header section of one message.
    pub max_header_size: usize,
    /// Recipients of one transaction.
    pub max_recipients: usize,
    /// Size of all mail data held in memory.
    pub max_buffered: usize,
    /// Octets of mail data per second; 0: no minimum.
    pub min_rate: u32,
    /// Time for one whole command, or for the next octet of mail data.
    pub idle_timeout: Duration,
    /// Time from connecting to AUTH, or to the first command of a relay host.
    pub auth_timeout: Duration,
    /// Time for the TLS handshake alone.
    pub tls_timeout: Duration,
    /// Time that unfinished work gets at shutdown.
    pub shutdown_timeout: Duration,
    /// What happens to a bare LF in a message.
    pub bare_newline: BareNewline,
    /// Networks for which bare LFs are normalized regardless of `bare_newline`.
    pub bare_newline_hosts: Vec<IpNet>,
}

/// `[process]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// The user that `serve` runs as once its sockets are bound; empty: unchanged.
    pub user: String,
    /// Whether access to the file system is restricted to what the configuration names.
    pub sandbox: bool,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Text or JSON.
    pub format: LogFormat,
    /// The lowest level that is logged.
    pub level: LogLevel,
}

/// `[log] format`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// Text.
    Text,
    /// JSON.
    Json,
}

/// `[log] level`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Something is lost or broken.
    Error,
    /// Something needs attention.
    Warn,
    /// What happens.
    Info,
    /// And why it happens.
    Debug,
    /// Everything.
    Trace,
}
