//! Who is it? The SASL exchange (rsasl, behind a guard) and the users file.
//!
//! Never says whether a user exists: unknown user, wrong password and a wrong authorization identity take the same steps and
//! the same work. Password work runs on blocking threads, a bounded number at once, never on an async worker; a password that
//! was right lately needs none.

mod check;
mod decoy;
pub mod edit;
pub mod exchange;
mod guesses;
mod recent;
mod sasl;
mod scheme;
mod scram;
pub mod users;
mod verifier;
mod watch;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use sha2::{Digest as _, Sha256};

use crate::account::{Account, Kind};
use check::Checks;
use decoy::Decoys;
use guesses::Guesses;
use recent::Recent;
use scram::Variant;
use tokio::time::Instant;
use users::{Problem, User, Users};

pub use exchange::Exchange;
pub use guesses::{GuessLimits, Guessed};
pub use watch::NewUsers;

/// The SASL mechanisms that can be configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Mechanism {
    /// RFC 4616
    #[serde(rename = "PLAIN")]
    Plain,
    /// draft-murchison-sasl-login
    #[serde(rename = "LOGIN")]
    Login,
    /// RFC 7677
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
}

/// SCRAM-SHA-256 with channel binding (RFC 5802 6): offered beside it where there is one.
const SCRAM_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// What an exchange can be bound to: `tls-exporter` (RFC 9266) of the TLS session that it is held in.
pub type Binding = [u8; 32];

impl Mechanism {
    /// Its registered name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
        }
    }
}

/// What one response of the client led to.
#[derive(Debug)]
pub enum SaslStep {
    /// 334 with this, not yet in base64.
    Challenge(Vec<u8>),
    /// 235: it is this account.
    Success(Account),
    /// 535: why stands for the log alone.
    Denied {
        /// The name that was tried, cleaned, where there was one.
        name: Option<String>,
        /// For the log: `unknown user`, `wrong password`, `authorization identity`, ...
        why: &'static str,
        /// Whether it counts as a guess: the same wrong password again does not.
        counted: bool,
    },
    /// 454: not now, since too many guesses came before (from there, or at that account), or too many passwords are being checked.
    Later {
        /// The name that was tried, cleaned, where there was one.
        name: Option<String>,
    },
    /// 501 5.5.2: no message of the mechanism.
    Malformed,
}

/// What became of the users file.
#[derive(Debug)]
pub enum UsersEvent {
    /// Read anew; the sessions of these names (their line changed or went) end.
    Reloaded {
        /// Users now.
        users: usize,
        /// As the users file spelt them.
        ended: Vec<String>,
    },
    /// The new file is refused as a whole, and why; the old one stays in force.
    Refused(String),
}

/// Why the users file cannot be used at the start.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// It cannot be read.
    #[error("{path}: {cause}{}", cure(.cause))]
    Io {
        /// The file.
        path: String,
        /// Why.
        cause: io::Error,
    },
    /// A line is wrong.
    #[error("{path}:{line}: {problem}")]
    Line {
        /// The file.
        path: String,
        /// From 1.
        line: usize,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// The system gives no random octets.
    #[error("no random octets: {0}")]
    Random(io::Error),
    /// There is no user in it.
    #[error("{path}: no user in it; `gatepost user add NAME` makes the first")]
    Empty {
        /// The file.
        path: String,
    },
}

fn cure(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::NotFound => "; is [auth] users right? `gatepost user add NAME` makes the file",
        io::ErrorKind::PermissionDenied => "; give it to the user that Gatepost runs as",
        _ => "",
    }
}

impl UsersError {
    fn io(path: &Path, cause: io::Error) -> Self {
        Self::Io { path: path.display().to_string(), cause }
    }

    fn line(path: &Path, Problem { line, text }: Problem) -> Self {
        Self::Line { path: path.display().to_string(), line, problem: text }
    }
}

/// Authenticates against the users file. Cheap to clone.
#[derive(Clone)]
pub struct Authenticator {
    shared: Arc<Shared>,
}

/// The users of one moment, to be compared with those of a later one.
pub struct Snapshot {
    shared: Arc<Shared>,
    directory: Arc<Directory>,
}

/// What all exchanges share.
struct Shared {
    file: Option<PathBuf>,
    /// As configured.
    mechanisms: Vec<Mechanism>,
    decoys: Decoys,
    checks: Checks,
    guesses: Guesses,
    recent: Recent,
    current: ArcSwap<Directory>,
}

/// One version of the users file, and what follows from it.
struct Directory {
    version: Version,
    users: Users,
    /// Of the configured mechanisms those that every user can use.
    offered: Vec<Mechanism>,
    line: Arc<str>,
    /// The same where there is a channel binding.
    line_bound: Arc<str>,
}

/// Tells versions of the file apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    /// SHA-256 of the content.
    Content([u8; 32]),
    /// It could not be read.
    Unreadable(io::ErrorKind),
}

impl Authenticator {
    /// Reads the users file (`None`: there are no users, only relay hosts). `secret` (32 octets, the same over restarts) makes decoys.
    ///
    /// # Errors
    /// The file is missing, holds no user, or a line is wrong; or the system gives no random octets.
    pub fn open(
        users: Option<&Path>,
        mechanisms: &[Mechanism],
        secret: [u8; 32],
    ) -> Result<Self, UsersError> {
        let directory = match users {
            None => Directory::nobody(),
            Some(path) => Directory::read(path, mechanisms).1?.with_users(path)?,
        };
        Self::with(directory, users, mechanisms, secret)
    }

    /// As [`Self::open`], for a server that has relay hosts as well: no file, or one without users, is no error, and
    /// [`Self::watch`] finds the first user.
    ///
    /// # Errors
    /// The file is there and cannot be read, or a line is wrong; or the system gives no random octets.
    pub fn open_if_there(
        users: &Path,
        mechanisms: &[Mechanism],
        secret: [u8; 32],
    ) -> Result<Self, UsersError> {
        let directory = match Directory::read(users, mechanisms).1 {
            Err(UsersError::Io { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
                Directory::nobody()
            }
            read => read?,
        };
        Self::with(directory, Some(users), mechanisms, secret)
    }

    fn with(
        directory: Directory,
        file: Option<&Path>,
        mechanisms: &[Mechanism],
        secret: [u8; 32],
    ) -> Result<Self, UsersError> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|error| UsersError::Random(error.into()))?;
        let shared = Shared {
            file: file.map(Path::to_path_buf),
            mechanisms: mechanisms.to_vec(),
            decoys: Decoys::new(secret),
            checks: Checks::new(0),
            guesses: Guesses::new(GuessLimits::NONE, key, Instant::now()),
            recent: Recent::new(),
            current: ArcSwap::from_pointee(directory),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Tolerates so many wrong passwords, and checks so many at once (0: as the processor has cores, less one), from now on; what was
    /// tried stays known. Before, any number is tolerated.
    pub fn adopt(&self, guesses: GuessLimits, checks: usize) {
        self.shared.guesses.adopt(guesses);
        self.shared.checks.adopt(checks);
    }

    /// The mechanisms to offer, those that every user of the file can use, in the configured order: `PLAIN LOGIN`; with
    /// `binding`, those that need one as well. Empty: AUTH is not offered.
    pub fn offered(&self, binding: bool) -> Arc<str> {
        let directory = self.shared.current.load();
        Arc::clone(if binding { &directory.line_bound } else { &directory.line })
    }

    /// Who cannot log in at all, and why; in the order of the file.
    pub fn shut_out(&self) -> Vec<(String, String)> {
        let directory = self.shared.current.load();
        let shut_out = |user: &User| Some((user.name().to_owned(), user.shut_out()?.to_owned()));
        directory.users.iter().filter_map(shut_out).collect()
    }

    /// The users as they are now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { shared: Arc::clone(&self.shared), directory: self.shared.current.load_full() }
    }

    /// Whether a client with a verified certificate for these names is offered EXTERNAL: one of them is a user's.
    pub fn knows(&self, names: &[String]) -> bool {
        self.shared.current.load().owner(names).is_some()
    }

    /// Begins an exchange of EXTERNAL (RFC 4422 A) with a client whose certificate was verified, and is for these names; `None`
    /// where none of them is a user's.
    pub fn external(&self, names: &[String], origin: IpAddr) -> Option<Exchange> {
        let directory = self.shared.current.load_full();
        let name = directory.owner(names)?.name().to_owned();
        Some(Exchange::external(Arc::clone(&self.shared), directory, name, origin))
    }

    /// Begins an exchange with a client at `origin`; `None` for a mechanism that is not offered (504 5.5.4). `binding` is there
    /// where it was offered.
    pub fn exchange(&self, mechanism: &str, origin: IpAddr, binding: Option<Binding>) -> Option<Exchange> {
        let directory = self.shared.current.load_full();
        let (name, variant) = match binding {
            None => (mechanism, Variant::Alone),
            Some(binding) if mechanism.eq_ignore_ascii_case(SCRAM_PLUS) => {
                (Mechanism::ScramSha256.name(), Variant::Plus(binding))
            }
            Some(_) => (mechanism, Variant::Bare),
        };
        let offered = &directory.offered;
        let mechanism = *offered.iter().find(|offered| offered.name().eq_ignore_ascii_case(name))?;
        Some(Exchange::new(Arc::clone(&self.shared), directory, (mechanism, variant), origin))
    }
}

impl Snapshot {
    /// Whether the line of `account` has changed since, or gone.
    pub fn is_outdated(&self, account: &Account) -> bool {
        let now = self.shared.current.load();
        let Kind::User(name) = account.kind() else { return false };
        !Arc::ptr_eq(&now, &self.directory) && !self.directory.has_same(name, &now)
    }
}

/// Their names, that of SCRAM's other variant behind it.
fn names(offered: &[Mechanism], plus: bool) -> Vec<&'static str> {
    let names = offered.iter().flat_map(|mechanism| match mechanism {
        Mechanism::ScramSha256 if plus => [Some(mechanism.name()), Some(SCRAM_PLUS)],
        _ => [Some(mechanism.name()), None],
    });
    names.flatten().collect()
}

impl Directory {
    fn nobody() -> Self {
        let missing = Version::Unreadable(io::ErrorKind::NotFound);
        let nothing: Arc<str> = "".into();
        let (line, line_bound) = (Arc::clone(&nothing), nothing);
        Self { version: missing, users: Users::default(), offered: Vec::new(), line, line_bound }
    }

    /// Reads the file, and says which version it was even where that is broken.
    fn read(path: &Path, mechanisms: &[Mechanism]) -> (Version, Result<Self, UsersError>) {
        let content = match std::fs::read(path) {
            Ok(content) => content,
            Err(cause) => return (Version::Unreadable(cause.kind()), Err(UsersError::io(path, cause))),
        };
        let version = Version::Content(Sha256::digest(&content).into());
        let read = Users::parse(&content).map_err(|problem| UsersError::line(path, problem)).map(|users| {
            let offered = users.offered(mechanisms);
            let line = |plus| names(&offered, plus).join(" ").into();
            Self { version, users, line: line(false), line_bound: line(true), offered }
        });
        (version, read)
    }

    /// Itself, unless there is nobody in it.
    fn with_users(self, path: &Path) -> Result<Self, UsersError> {
        if self.users.is_empty() {
            Err(UsersError::Empty { path: path.display().to_string() })
        } else {
            Ok(self)
        }
    }

    /// Whether `name` is that of somebody who is in `newer` as well, with the same name and hash.
    fn has_same(&self, name: &str, newer: &Self) -> bool {
        match (self.find(name), newer.find(name)) {
            (Some(then), Some(now)) => now.is(then),
            _ => false,
        }
    }

    /// Whose certificate it is that is for these names: the first who is there, and nobody if he is shut out.
    fn owner(&self, names: &[String]) -> Option<&User> {
        names.iter().find_map(|name| self.find(name)).filter(|user| user.shut_out().is_none())
    }

    /// Who has this name, as it came or prepared (RFC 4013).
    fn find(&self, name: &str) -> Option<&User> {
        // Prepared before it is needed: that a name is found shall not save time.
        let prepared = if name.is_ascii() { None } else { sasl::prepared(name) };
        self.users.get(name).or_else(|| self.users.get(prepared.as_deref()?))
    }
}
