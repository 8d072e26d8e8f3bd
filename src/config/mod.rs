//! The configuration: the file as written becomes a valid [`Config`], or all its problems at once.
//!
//! An unknown key, a wrong type or an impossible value is a [`problem::Problem`] with file, line, key and what would be right.
//! Nothing here asks the system for anything but the file (the host name and the clock are arguments).

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
    /// The file that it came from; `None` in tests and the demo.
    pub file: Option<PathBuf>,
    /// The files that it names, and where.
    pub files: NamedFiles,
    /// Our name in greeting, EHLO, Received.
    pub hostname: String,
    /// Database, quarantine, outbox, control socket.
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
    /// `[limit]`, `[detection]` and `[[account]]`, as the ledger needs them.
    pub policy: Policy,
    /// `[limit] action`
    pub action: Action,
    /// `[limit] unblock_after`: how old an automatic block gets; `None`: as old as may be.
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
    /// Reads a file. `machine` is the machine's name, for an empty `hostname`.
    ///
    /// # Errors
    /// All problems of the file at once; or that it cannot be read.
    pub fn load(file: &Path, machine: &str) -> Result<Self, Problems> {
        let octets = std::fs::read(file).map_err(|error| {
            Problems::of_file(file, None, format!("cannot be read: {error}; is it the right --config FILE?"))
        })?;
        let text = str::from_utf8(&octets).map_err(|error| {
            let line = 1 + octets.iter().take(error.valid_up_to()).filter(|octet| **octet == b'\n').count();
            Problems::of_file(file, Some(line), "is not UTF-8 from this line on".to_owned())
        })?;
        Self::parse(text, file, machine)
    }

    /// All pairs of certificate and key for clients, the default first.
    pub fn key_pairs(&self) -> Vec<KeyPair> {
        let Tls { certificate, private_key, .. } = self.tls.clone();
        std::iter::once(KeyPair { certificate, private_key })
            .chain(self.certificates.iter().cloned())
            .collect()
    }

    /// Reads the text of a configuration file; relative paths in it are relative to the folder of `file`.
    ///
    /// # Errors
    /// All problems of the text at once.
    pub fn parse(text: &str, file: &Path, machine: &str) -> Result<Self, Problems> {
        file::read(text, file, machine)
    }
}

/// Every key that a configuration file can have, as `[table] key`; those before the first table have no `[table]`.
pub fn keys() -> Vec<String> {
    file::keys()
        .into_iter()
        .map(|key| format!("{} {}", key.table, key.name).trim_start().to_owned())
        .collect()
}

/// One `[[listen]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Address and port; port 0 is any free one.
    pub address: SocketAddr,
    /// How TLS begins.
    pub tls: ListenTls,
    /// Whose connections begin with a PROXY header.
    pub proxy_protocol: Vec<IpNet>,
}

/// `[[listen]] tls`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenTls {
    /// By STARTTLS.
    StartTls,
    /// From the first octet.
    Implicit,
}

/// `[tls]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// PEM chain.
    pub certificate: PathBuf,
    /// PEM key.
    pub private_key: PathBuf,
    /// Both are the default paths: a missing pair is made.
    pub may_generate: bool,
    /// PEM with the authorities of clients' certificates; `None`: clients are not asked.
    pub client_ca: Option<PathBuf>,
}

/// `[upstream]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// What the client module needs.
    pub settings: Settings,
    /// Its own mail domains.
    pub domains: Vec<String>,
    /// Foreign domains for `check`.
    pub canary: Vec<String>,
}

/// `[auth]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// In the order in which they are offered.
    pub mechanisms: Vec<Mechanism>,
    /// Whether SCRAM-SHA-256-PLUS is offered beside SCRAM-SHA-256, where the TLS session has what it takes.
    pub channel_binding: bool,
    /// The users file.
    pub users: PathBuf,
    /// How many wrong passwords are tolerated.
    pub guesses: GuessLimits,
    /// Passwords that are checked at the same time; 0: as many as there are cores, less one.
    pub max_checks: usize,
}

/// `[limit] action`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A blocked account's mail is parked without a word.
    Park,
    /// It is refused with 550 5.7.1.
    Refuse,
}

/// `[notify]`
#[derive(Debug, Clone)]
pub struct Notify {
    /// The abuse desk; empty: no mail.
    pub to: Vec<String>,
    /// The sender.
    pub from: String,
    /// How often the abuse desk is reminded of what waits in the quarantine; `None`: never.
    pub digest: Option<Duration>,
    /// The file with the text of notices about an account; `None`: our own.
    pub template: Option<PathBuf>,
    /// The program that gets events.
    pub webhook: Option<Hook>,
}

/// `[sender]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// Who may send as whom.
    pub policy: SenderPolicy,
    /// The senders file.
    pub map: PathBuf,
    /// Each address of From: too.
    pub from_header: bool,
}

/// `[submission]`
#[derive(Debug, Clone)]
pub struct Submission {
    /// Sender: is ours to write.
    pub sender_header: bool,
    /// Received: does not say where the client is.
    pub hide_client: bool,
}

/// `[session] bare_newline`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BareNewline {
    /// A message with one is refused.
    Reject,
    /// It becomes CRLF.
    Normalize,
}

/// `[session]`; sizes in octets.
#[derive(Debug, Clone)]
pub struct Session {
    /// Client connections in all.
    pub max_connections: usize,
    /// And from one address (IPv6: /64).
    pub max_connections_per_ip: usize,
    /// New ones from one address within a minute; 0: any number.
    pub max_new_connections_per_ip: usize,
    /// Sessions of one user; 0: any number.
    pub max_connections_per_account: usize,
    /// Transactions of one session; 0: any number.
    pub max_transactions: u32,
    /// A session ends after this many errors.
    pub max_errors: u32,
    /// Of one message.
    pub max_message_size: u64,
    /// Of its header section.
    pub max_header_size: usize,
    /// Of one transaction.
    pub max_recipients: usize,
    /// Of all mail data that is held in memory.
    pub max_buffered: usize,
    /// Octets of mail data a second; 0: any will do.
    pub min_rate: u32,
    /// For one whole command; in mail data for the next octet.
    pub idle_timeout: Duration,
    /// From connecting to AUTH; relay hosts: to the first command.
    pub auth_timeout: Duration,
    /// For the TLS handshake alone.
    pub tls_timeout: Duration,
    /// What is under way gets this long at shutdown.
    pub shutdown_timeout: Duration,
    /// What becomes of a bare LF in a message.
    pub bare_newline: BareNewline,
    /// Networks for which it is normalized whatever `bare_newline` says.
    pub bare_newline_hosts: Vec<IpNet>,
}

/// `[process]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// As whom `serve` runs once its sockets are bound; empty: as whoever starts it.
    pub user: String,
    /// Whether the file system is restricted to what the configuration names.
    pub sandbox: bool,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// How.
    pub format: LogFormat,
    /// From which level on.
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
    /// Something needs a look.
    Warn,
    /// What happens.
    Info,
    /// And why.
    Debug,
    /// Everything.
    Trace,
}
