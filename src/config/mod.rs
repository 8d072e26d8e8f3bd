//! The configuration: the file as written becomes a valid [`Config`], or all its problems at once.
//!
//! An unknown key, a wrong type or an impossible value is a [`problem::Problem`] with file, line, key and what would be right.
//! Nothing here asks the system for anything but the file (the host name and the clock are arguments).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::auth::Mechanism;
use crate::guard::ledger::Policy;
use crate::quarantine::spool::Limits;
use crate::upstream::Settings;

/// A valid configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that it came from; `None` in tests and the demo.
    pub file: Option<PathBuf>,
    /// Our name in greeting, EHLO, Received.
    pub hostname: String,
    /// Database, quarantine, outbox, control socket.
    pub data_dir: PathBuf,
    /// Where clients connect.
    pub listen: Vec<Listen>,
    /// `[tls]`
    pub tls: Tls,
    /// `[upstream]`
    pub upstream: Upstream,
    /// `[auth]`
    pub auth: Auth,
    /// `[relay] hosts`
    pub relay_hosts: Vec<IpNet>,
    /// `[limit]`, as the ledger needs it.
    pub policy: Policy,
    /// `[limit] action`
    pub action: Action,
    /// `[quarantine]`
    pub quarantine: Limits,
    /// `[notify]`
    pub notify: Notify,
    /// `[session]`
    pub session: Session,
    /// `[log]`
    pub log: Log,
}

/// One `[[listen]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Address and port; port 0 is any free one.
    pub address: SocketAddr,
    /// How TLS begins.
    pub tls: ListenTls,
}

/// `[[listen]] tls`
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ListenTls {
    /// By STARTTLS.
    StartTls,
    /// From the first octet.
    Implicit,
}

/// `[tls]`
#[derive(Debug, Clone)]
pub struct Tls {
    /// PEM chain.
    pub certificate: PathBuf,
    /// PEM key.
    pub private_key: PathBuf,
    /// Both are the default paths: a missing pair is made.
    pub may_generate: bool,
}

/// `[upstream]`
#[derive(Debug, Clone)]
pub struct Upstream {
    /// What the client module needs.
    pub settings: Settings,
    /// Further trust anchors.
    pub ca: Option<PathBuf>,
    /// Its own mail domains.
    pub domains: Vec<String>,
    /// Foreign domains for `check`.
    pub canary: Vec<String>,
}

/// `[auth]`
#[derive(Debug, Clone)]
pub struct Auth {
    /// In the order in which they are offered.
    pub mechanisms: Vec<Mechanism>,
    /// The users file.
    pub users: PathBuf,
}

/// `[limit] action`
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
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
}

/// `[session]`; sizes in octets.
#[derive(Debug, Clone)]
pub struct Session {
    /// Client connections in all.
    pub max_connections: usize,
    /// And from one address (IPv6: /64).
    pub max_connections_per_ip: usize,
    /// Of one message.
    pub max_message_size: u64,
    /// Of its header section.
    pub max_header_size: usize,
    /// Of one transaction.
    pub max_recipients: usize,
    /// For one whole command; in mail data for the next octet.
    pub idle_timeout: Duration,
    /// From connecting to AUTH; relay hosts: to the first command.
    pub auth_timeout: Duration,
    /// What is under way gets this long at shutdown.
    pub shutdown_timeout: Duration,
}

/// `[log]`
#[derive(Debug, Clone)]
pub struct Log {
    /// How.
    pub format: LogFormat,
    /// From which level on.
    pub level: LogLevel,
}

/// `[log] format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// Text.
    Text,
    /// JSON.
    Json,
}

/// `[log] level`
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the five levels of every log")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}
