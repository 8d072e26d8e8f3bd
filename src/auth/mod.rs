//! Authentication: the SASL exchange (rsasl, behind a guard) and the users file.
//!
//! Nothing reveals whether a user exists: an unknown user, a wrong password and a wrong authorization identity take the
//! same steps and the same work. Passwords are checked on blocking threads, a limited number at once, never on an async
//! worker; one that was right lately needs no check.

mod bounded;
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
use crate::visible::unreadable;
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

/// SCRAM-SHA-256 with channel binding (RFC 5802 6); offered beside SCRAM-SHA-256 if a binding is available.
const SCRAM_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// The channel binding of an exchange: `tls-exporter` (RFC 9266) of its TLS session.
pub type Binding = [u8; 32];

impl Mechanism {
    /// The registered name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
        }
    }
}

/// The outcome of one response of the client.
#[derive(Debug)]
pub enum SaslStep {
    /// 334 with this challenge, not yet encoded in base64.
    Challenge(Vec<u8>),
    /// 235; the account that has logged in.
    Success(Account),
    /// 535. The reason is for the log only.
    Denied {
        /// The name that was tried, cleaned; `None` if there was none.
        name: Option<String>,
        /// For the log: `unknown user`, `wrong password`, `authorization identity`, ...
        why: &'static str,
        /// Whether it counts as a guess; repeating the same wrong password does not.
        counted: bool,
    },
    /// 454: refused for now, because of too many guesses (from the address or at the account) or too many passwords
    /// being checked.
    Later {
        /// The name that was tried, cleaned; `None` if there was none.
        name: Option<String>,
        /// Too many passwords are being checked; the client need not have guessed any.
        crowded: bool,
    },
    /// 501 5.5.2: not a message of the mechanism.
    Malformed,
}

/// What happened to the users file.
#[derive(Debug)]
pub enum UsersEvent {
    /// The file was read anew. The sessions of the users whose line changed or disappeared have to end.
    Reloaded {
        /// The number of users.
        users: usize,
        /// Those users, as the old file spelled them.
        ended: Vec<String>,
    },
    /// The new file is refused as a whole, for this reason; the old one stays in force.
    Refused(String),
}

/// Why the users file cannot be used at start-up.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// The file cannot be read.
    #[error("{}{}", unreadable(.path.as_ref(), .cause), maker(.cause))]
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
        /// Line number, from 1.
        line: usize,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// The system provides no random octets.
    #[error("no random octets: {0}")]
    Random(io::Error),
    /// The file has no users.
    #[error("{path}: no user in it; `gatepost user add NAME` makes the first")]
    Empty {
        /// The file.
        path: String,
    },
}

fn maker(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::NotFound => " `gatepost user add NAME` makes the file",
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

/// The users at one moment, for comparison with later ones.
pub struct Snapshot {
    shared: Arc<Shared>,
    directory: Arc<Directory>,
}

/// The state shared by all exchanges.
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

/// One version of the users file, and what is derived from it.
struct Directory {
    version: Version,
    users: Users,
    /// The configured mechanisms that every user can use.
    offered: Vec<Mechanism>,
    line: Arc<str>,
    /// The same for sessions with a channel binding.
    line_bound: Arc<str>,
}

/// Identifies a version of the file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    /// SHA-256 of the content.
    Content([u8; 32]),
    /// The file could not be read.
    Unreadable(io::ErrorKind),
}

impl Authenticator {
    /// Reads the users file (`None`: there are no users, only relay hosts). `secret` (32 octets, the same after a
    /// restart) seeds the decoys.
    ///
    /// # Errors
    /// The file is missing, has no users or has a wrong line; or the system provides no random octets.
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

    /// Like [`Self::open`], for a server that also has relay hosts: the file may be missing or have no users, and
    /// [`Self::watch`] finds the first user.
    ///
    /// # Errors
    /// The file exists and cannot be read, or a line is wrong; or the system provides no random octets.
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

    /// Sets the limits on guesses, and how many passwords are checked at once (0: the number of cores less one).
    /// Earlier attempts stay remembered. Until the first call guesses are unlimited.
    pub fn adopt(&self, guesses: GuessLimits, checks: usize) {
        self.shared.guesses.adopt(guesses);
        self.shared.checks.adopt(checks);
    }

    /// The mechanisms to offer, in the configured order: those that every user can use, such as `PLAIN LOGIN`. With
    /// `binding`, the ones that need a channel binding too. Empty: AUTH is not offered.
    pub fn offered(&self, binding: bool) -> Arc<str> {
        let directory = self.shared.current.load();
        Arc::clone(if binding { &directory.line_bound } else { &directory.line })
    }

    /// The users who cannot log in at all, and why; in the order of the file.
    pub fn shut_out(&self) -> Vec<(String, String)> {
        let directory = self.shared.current.load();
        let shut_out = |user: &User| Some((user.name().to_owned(), user.shut_out()?.to_owned()));
        directory.users.iter().filter_map(shut_out).collect()
    }

    /// Whether there are no users.
    pub fn has_nobody(&self) -> bool {
        self.shared.current.load().users.is_empty()
    }

    /// The users as they are now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { shared: Arc::clone(&self.shared), directory: self.shared.current.load_full() }
    }

    /// Whether a client whose verified certificate has these names is offered EXTERNAL: one of them must be a user's.
    pub fn knows(&self, names: &[String]) -> bool {
        self.shared.current.load().owner(names).is_some()
    }

    /// Begins an exchange of EXTERNAL (RFC 4422 A) with a client whose verified certificate has these names; `None` if
    /// none of them is a user's.
    pub fn external(&self, names: &[String], origin: IpAddr) -> Option<Exchange> {
        let directory = self.shared.current.load_full();
        let name = directory.owner(names)?.name().to_owned();
        Some(Exchange::external(Arc::clone(&self.shared), directory, name, origin))
    }

    /// Begins an exchange with a client at `origin`; `None` for a mechanism that is not offered (504 5.5.4). `binding`
    /// must be given if it was when the mechanisms were offered.
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
    /// Whether the line of `account` has changed or disappeared since.
    pub fn is_outdated(&self, account: &Account) -> bool {
        let now = self.shared.current.load();
        let Kind::User(name) = account.kind() else { return false };
        !Arc::ptr_eq(&now, &self.directory) && !self.directory.has_same(name, &now)
    }
}

/// The names of the mechanisms, with SCRAM's other variant after it.
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

    /// Reads the file; returns its version even if it is broken.
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

    /// Returns itself, or an error if it has no users for no stated reason.
    fn with_users(self, path: &Path) -> Result<Self, UsersError> {
        if self.users.is_empty() && !self.users.is_meant_to_be_empty() {
            Err(UsersError::Empty { path: path.display().to_string() })
        } else {
            Ok(self)
        }
    }

    /// Whether the user called `name` is in `newer` too, with the same name and hash.
    fn has_same(&self, name: &str, newer: &Self) -> bool {
        match (self.find(name), newer.find(name)) {
            (Some(then), Some(now)) => now.is(then),
            _ => false,
        }
    }

    /// The user to whom a certificate with these names belongs: the first that exists, or nobody if that user is shut
    /// out.
    fn owner(&self, names: &[String]) -> Option<&User> {
        names.iter().find_map(|name| self.find(name)).filter(|user| user.shut_out().is_none())
    }

    /// Finds a user by the name as it came, or else prepared (RFC 4013).
    fn find(&self, name: &str) -> Option<&User> {
        // Prepared before it is needed, so that the time does not depend on whether the name is found.
        let prepared = if name.is_ascii() { None } else { sasl::prepared(name) };
        self.users.get(name).or_else(|| self.users.get(prepared.as_deref()?))
    }
}
