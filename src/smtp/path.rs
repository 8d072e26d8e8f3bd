//! Mailboxes and paths of RFC 5321 4.1.2, with the UTF-8 of RFC 6531 3.3.
//!
//! A mailbox keeps its text as it was written: quoting and case travel upstream unchanged, since taking the quotes
//! off and putting them back is how parameters get injected. A source route is parsed and dropped (RFC 5321 C).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `local-part@domain` or `local-part@[address literal]`, checked and kept verbatim, without angle brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mailbox {
    text: Box<str>,
    /// Where in `text` the separating `@` stands.
    at: usize,
}

/// What follows `MAIL FROM:`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// `<>`: the sender of DSNs, to whom nothing is ever returned.
    Null,
    /// A mailbox.
    Mailbox(Mailbox),
}

/// What follows `RCPT TO:`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ForwardPath {
    /// `<postmaster>` without a domain, in the letters that the client wrote (RFC 5321 4.5.1).
    Postmaster(Box<str>),
    /// A mailbox.
    Mailbox(Mailbox),
}

/// Why a path is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No `<` and `>` around it.
    #[error("a path stands in angle brackets")]
    NoBrackets,
    /// No `@` in it (and it is not `<postmaster>`).
    #[error("an address has an @")]
    NoDomain,
    /// An `@`, but not the grammar of RFC 5321 4.1.2 and RFC 6531 3.3.
    #[error("no mailbox of RFC 5321")]
    Syntax,
    /// Over the 64 octets of a local-part, 255 of a domain or 256 of a path (RFC 5321 4.5.3.1).
    #[error("longer than RFC 5321 4.5.3.1 allows")]
    TooLong,
}

impl Mailbox {
    /// Reads a bare `local-part@domain`.
    ///
    /// # Errors
    /// See [`PathError`]; never [`PathError::NoBrackets`].
    pub fn parse(_text: &str) -> Result<Self, PathError> {
        todo!()
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What stands before the separating `@`, quotes included.
    pub fn local_part(&self) -> &str {
        &self.text[..self.at]
    }

    /// What stands behind it, brackets of a literal included.
    pub fn domain(&self) -> &str {
        &self.text[self.at + 1..]
    }

    /// Whether it can be sent without SMTPUTF8.
    pub fn is_ascii(&self) -> bool {
        self.text.is_ascii()
    }
}

impl ReversePath {
    /// The address without brackets; `""` for the null reverse-path.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Null => "",
            Self::Mailbox(mailbox) => mailbox.as_str(),
        }
    }
}

impl ForwardPath {
    /// The address without brackets.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Postmaster(text) => text,
            Self::Mailbox(mailbox) => mailbox.as_str(),
        }
    }

    /// The recipient domain; `None` for `<postmaster>`.
    pub fn domain(&self) -> Option<&str> {
        match self {
            Self::Postmaster(_) => None,
            Self::Mailbox(mailbox) => Some(mailbox.domain()),
        }
    }

    /// Equal for addresses that count as the same: without regard to case.
    pub fn comparison_key(&self) -> String {
        self.as_str().to_lowercase()
    }
}

/// With angle brackets.
impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.as_str())
    }
}

/// With angle brackets.
impl fmt::Display for ForwardPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.as_str())
    }
}

/// The address without brackets; `""` is the null reverse-path.
impl FromStr for ReversePath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        if text.is_empty() { Ok(Self::Null) } else { Mailbox::parse(text).map(Self::Mailbox) }
    }
}

impl Serialize for ReversePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ReversePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The address without brackets.
impl FromStr for ForwardPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        if text.eq_ignore_ascii_case("postmaster") {
            return Ok(Self::Postmaster(text.into()));
        }
        Mailbox::parse(text).map(Self::Mailbox)
    }
}

impl Serialize for ForwardPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ForwardPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
