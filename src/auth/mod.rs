//! Who is it? The SASL exchange (rsasl, behind a guard) and the users file.
//!
//! Never says whether a user exists: unknown user, wrong password and a wrong authorization identity take the same steps and
//! the same work. Password work runs on blocking threads, a bounded number at once, never on an async worker.

pub mod exchange;
pub mod users;

use std::path::Path;
use std::sync::Arc;

use crate::account::Account;

pub use exchange::Exchange;

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
    #[error("{path}: {cause}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        cause: std::io::Error,
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
}

/// Authenticates against the users file. Cheap to clone.
#[derive(Clone)]
pub struct Authenticator {
    // helper F
}

impl Authenticator {
    /// Reads the users file (`None`: there are no users, only relay hosts). `secret` (32 octets, the same over restarts) makes decoys.
    ///
    /// # Errors
    /// The file is missing or a line is wrong.
    pub fn open(
        _users: Option<&Path>,
        _mechanisms: &[Mechanism],
        _secret: [u8; 32],
    ) -> Result<Self, UsersError> {
        todo!()
    }

    /// The mechanisms to offer, those that every user of the file can use, in the configured order: `PLAIN LOGIN`.
    /// Empty: AUTH is not offered.
    pub fn offered(&self) -> Arc<str> {
        todo!()
    }

    /// Begins an exchange; `None` for a mechanism that is not offered (504 5.5.4).
    pub fn exchange(&self, _mechanism: &str) -> Option<Exchange> {
        todo!()
    }

    /// Watches the users file for as long as it is polled: one that has rested for a second is read again.
    pub async fn watch(&self, _changed: impl Fn(UsersEvent) + Send) {
        todo!()
    }
}
