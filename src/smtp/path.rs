//! Mailboxes and paths of RFC 5321 4.1.2, with the UTF-8 of RFC 6531 3.3.
//!
//! A mailbox keeps its text as written: quoting and case travel upstream unchanged, since removing quotes and putting
//! them back is how parameters get injected. A source route is parsed and dropped (RFC 5321 C).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use memchr::{memchr, memchr2};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::grammar;

/// The longest path in octets, brackets included (RFC 5321 4.5.3.1.3).
///
/// The 64 octets of a local-part (4.5.3.1.1) are the least that a server must accept; honest addresses have more (reply
/// tokens, VERP, SRS), and 4.5.3.1 asks for no unnecessary limits, so only the limit of the path applies.
pub const MAX_PATH: usize = 256;

/// `local-part@domain` or `local-part@[address literal]`, checked and kept verbatim, without angle brackets. Cheap to
/// clone: the question, its answer and the transactions on both sides share the same recipient.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mailbox {
    text: Arc<str>,
    /// The offset of the separating `@` in `text`.
    at: usize,
}

/// The path after `MAIL FROM:`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// The null reverse-path `<>`, as DSNs have it; nothing is ever returned to it.
    Null,
    /// A mailbox.
    Mailbox(Mailbox),
}

/// The path after `RCPT TO:`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ForwardPath {
    /// `<postmaster>` without a domain, in the client's spelling (RFC 5321 4.5.1).
    Postmaster(Box<str>),
    /// A mailbox.
    Mailbox(Mailbox),
}

/// Why a text is not a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// There is no `<` and `>` around it.
    #[error("a path stands in angle brackets")]
    NoBrackets,
    /// It has no `@` (and is not `<postmaster>`).
    #[error("an address has an @")]
    NoDomain,
    /// It has an `@`, but breaks the grammar of RFC 5321 4.1.2 and RFC 6531 3.3.
    #[error("no mailbox of RFC 5321")]
    Syntax,
    /// It is over [`MAX_PATH`].
    #[error("longer than RFC 5321 4.5.3.1 allows")]
    TooLong,
}

impl Mailbox {
    /// Parses a bare `local-part@domain`.
    ///
    /// # Errors
    /// See [`PathError`]; never [`PathError::NoBrackets`].
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let fault = |fault| if memchr(b'@', text.as_bytes()).is_some() { fault } else { PathError::NoDomain };
        if text.len() + "<>".len() > MAX_PATH {
            return Err(fault(PathError::TooLong));
        }
        let at = grammar::local_part(text).ok_or_else(|| fault(PathError::Syntax))?;
        if !grammar::is_domain_or_literal(&text[at + 1..]) {
            return Err(PathError::Syntax);
        }
        Ok(Self { text: text.into(), at })
    }

    /// Parses the content of a path's brackets; a source route is dropped.
    fn parse_routed(text: &str) -> Result<Self, PathError> {
        if !text.starts_with('@') {
            return Self::parse(text);
        }
        // A-d-l = At-domain *( "," At-domain ); no Domain has a colon, so the first one ends the route.
        let (route, mailbox) = text.split_once(':').ok_or(PathError::Syntax)?;
        let is_at_domain = |hop: &str| hop.strip_prefix('@').is_some_and(grammar::is_domain);
        if !route.split(',').all(is_at_domain) || !mailbox.contains('@') {
            return Err(PathError::Syntax);
        }
        Self::parse(mailbox)
    }

    /// Returns the mailbox as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the part before the separating `@`, quotes included.
    pub fn local_part(&self) -> &str {
        &self.text[..self.at]
    }

    /// Returns the part after the `@`, brackets of a literal included.
    pub fn domain(&self) -> &str {
        &self.text[self.at + 1..]
    }

    /// Whether it can be sent without SMTPUTF8.
    pub fn is_ascii(&self) -> bool {
        self.text.is_ascii()
    }
}

/// Splits `<path>rest` into `path` and `rest`. The path ends at the first `>` outside a quoted string.
///
/// # Errors
/// Only [`PathError::NoBrackets`].
pub(super) fn split_brackets(text: &str) -> Result<(&str, &str), PathError> {
    let inner = text.strip_prefix('<').ok_or(PathError::NoBrackets)?;
    // With unpaired quotes no bracket counts; then the first one ends what is malformed anyway.
    let end = unquoted_bracket(inner).or_else(|| inner.find('>')).ok_or(PathError::NoBrackets)?;
    Ok((&inner[..end], &inner[end + 1..]))
}

fn unquoted_bracket(text: &str) -> Option<usize> {
    // Nearly no path has quotes.
    let first = memchr2(b'>', b'"', text.as_bytes())?;
    if text.as_bytes()[first] == b'>' {
        return Some(first);
    }
    let mut quoted = false;
    let mut octets = text.bytes().enumerate();
    while let Some((offset, octet)) = octets.next() {
        match octet {
            b'"' => quoted = !quoted,
            b'\\' if quoted => {
                octets.next();
            }
            b'>' if !quoted => return Some(offset),
            _ => {}
        }
    }
    None
}

impl ReversePath {
    /// Parses the content of the brackets; a source route is dropped.
    ///
    /// # Errors
    /// See [`PathError`]; never [`PathError::NoBrackets`].
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.is_empty() { Ok(Self::Null) } else { Mailbox::parse_routed(text).map(Self::Mailbox) }
    }

    /// Whether it can be sent without SMTPUTF8.
    #[inline(never)] // see "The code of a message" in docs/performance.md
    pub fn is_ascii(&self) -> bool {
        self.as_str().is_ascii()
    }

    /// Returns the address without brackets; `""` for the null reverse-path.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Null => "",
            Self::Mailbox(mailbox) => mailbox.as_str(),
        }
    }
}

impl ForwardPath {
    /// Parses the content of the brackets; a source route is dropped.
    ///
    /// # Errors
    /// See [`PathError`]; never [`PathError::NoBrackets`]. Only with [`PathError::NoDomain`] does the text have no `@`.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.eq_ignore_ascii_case("postmaster") {
            return Ok(Self::Postmaster(text.into()));
        }
        Mailbox::parse_routed(text).map(Self::Mailbox)
    }

    /// Whether it can be sent without SMTPUTF8.
    #[inline(never)] // see "The code of a message" in docs/performance.md
    pub fn is_ascii(&self) -> bool {
        self.as_str().is_ascii()
    }

    /// Returns the address without brackets.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Postmaster(text) => text,
            Self::Mailbox(mailbox) => mailbox.as_str(),
        }
    }

    /// Returns the recipient domain; `None` for `<postmaster>`.
    pub fn domain(&self) -> Option<&str> {
        match self {
            Self::Postmaster(_) => None,
            Self::Mailbox(mailbox) => Some(mailbox.domain()),
        }
    }

    /// Returns a key that is equal for addresses that count as the same: case is ignored.
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn mailboxes() {
        let longest = format!("{}@example.org", "a".repeat(MAX_PATH - 2 - 12));
        for (text, expected) in [
            ("anna@example.org", Ok(("anna", "example.org"))),
            ("Anna@EXAMPLE.org", Ok(("Anna", "EXAMPLE.org"))), // kept as written
            (r#""a@b"@example.org"#, Ok((r#""a@b""#, "example.org"))),
            (r#""foo> ORCPT=x"@example.org"#, Ok((r#""foo> ORCPT=x""#, "example.org"))),
            ("anna@[192.0.2.1]", Ok(("anna", "[192.0.2.1]"))),
            ("anna@[IPv6:::1]", Ok(("anna", "[IPv6:::1]"))),
            (&longest, Ok((&longest[..242], "example.org"))), // 4.5.3.1: no limit of its own for the local-part
            (&format!("a{longest}"), Err(PathError::TooLong)),
            ("anna", Err(PathError::NoDomain)),
            ("", Err(PathError::NoDomain)),
            ("anna@", Err(PathError::Syntax)),
            ("@example.org", Err(PathError::Syntax)),
            ("a@b@example.org", Err(PathError::Syntax)),
            ("anna@example.org.", Err(PathError::Syntax)),
            (" anna@example.org", Err(PathError::Syntax)),
            ("anna@example.org ", Err(PathError::Syntax)),
            ("<anna@example.org>", Err(PathError::Syntax)),
            ("anna@exam_ple.org", Err(PathError::Syntax)),
            ("anna\r\n@example.org", Err(PathError::Syntax)),
            (r#""a@b""#, Err(PathError::Syntax)), // an @, though none that separates
        ] {
            let parsed = Mailbox::parse(text);
            assert_eq!(
                parsed.as_ref().map(|m| (m.local_part(), m.domain())),
                expected.as_ref().copied(),
                "{text}"
            );
        }
    }

    #[test]
    fn paths() {
        for (text, expected) in [
            ("@a,@b.example:anna@example.org", Ok("anna@example.org")), // RFC 5321 C
            ("@a:anna@example.org", Ok("anna@example.org")),
            (r#"@a:":"@example.org"#, Ok(r#"":"@example.org"#)),
            ("PostMaster", Ok("PostMaster")),
            ("postmaster@example.org", Ok("postmaster@example.org")),
            ("@a:postmaster", Err(PathError::Syntax)),
            ("@a,b:anna@example.org", Err(PathError::Syntax)),
            ("@a,:anna@example.org", Err(PathError::Syntax)),
            ("@:anna@example.org", Err(PathError::Syntax)),
            ("@a", Err(PathError::Syntax)),
            ("postmaster2", Err(PathError::NoDomain)),
            ("", Err(PathError::NoDomain)),
        ] {
            let parsed = ForwardPath::parse(text);
            assert_eq!(parsed.as_ref().map(ForwardPath::as_str), expected.as_ref().copied(), "{text}");
        }
        assert_eq!(ReversePath::parse(""), Ok(ReversePath::Null));
        assert_eq!(ReversePath::parse("postmaster"), Err(PathError::NoDomain));
    }

    #[test]
    fn brackets() {
        for (text, expected) in [
            ("<a@b>", Ok(("a@b", ""))),
            ("<a@b> SIZE=1", Ok(("a@b", " SIZE=1"))),
            (r#"<"a> \"b"@c> X"#, Ok((r#""a> \"b"@c"#, " X"))),
            (r#"<"a\\"@c>"b">"#, Ok((r#""a\\"@c"#, r#""b">"#))),
            (r#"<a"b@c> X"#, Ok((r#"a"b@c"#, " X"))),
            ("<<a@b>>", Ok(("<a@b", ">"))),
            ("<>", Ok(("", ""))),
            ("a@b", Err(PathError::NoBrackets)),
            ("<a@b", Err(PathError::NoBrackets)),
            (" <a@b>", Err(PathError::NoBrackets)),
            ("", Err(PathError::NoBrackets)),
        ] {
            assert_eq!(split_brackets(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_a_path_reads_back_and_stays_one_line(text in r#"[ab@."\\<>\[\]: ü\r\n\x00]{0,12}|[a-c"]{1,3}@[a-c.]{1,3}"#) {
            if let Ok(path) = ForwardPath::parse(&text) {
                prop_assert!(!path.as_str().chars().any(char::is_control));
                prop_assert_eq!(path.as_str().parse(), Ok(path.clone()));
                let written = format!("{path} NOTIFY=NEVER");
                prop_assert_eq!(split_brackets(&written), Ok((path.as_str(), " NOTIFY=NEVER")));
            }
        }
    }
}
