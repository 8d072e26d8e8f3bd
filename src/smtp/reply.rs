//! Replies: read from an upstream strictly, written to a client cleanly.
//!
//! RFC 5321 4.2, enhanced status codes of RFC 3463 and 2034. What an upstream sends is parsed, bounded and cleaned:
//! nothing in it can become a second reply.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An enhanced status code (RFC 3463): class.subject.detail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Enhanced {
    /// 2, 4 or 5.
    pub class: u8,
    /// 0 to 999.
    pub subject: u16,
    /// 0 to 999.
    pub detail: u16,
}

/// One reply, of one or more lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// 200 to 599.
    pub code: u16,
    /// Set where each line had the same one, or the first line had one.
    pub enhanced: Option<Enhanced>,
    /// The text without codes; lines are separated by `\n`. Printable characters alone.
    pub text: Cow<'static, str>,
}

/// The longest line of a reply that is passed on or written, in octets with its CRLF (RFC 5321 4.5.3.1.5).
pub const MAX_REPLY_LINE: usize = 512;
/// The most octets that one reply of an upstream may have in all; beyond, it breaks SMTP.
pub const MAX_REPLY: usize = 64 * 1024;

/// An upstream's octets that are no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no SMTP reply: {0}")]
pub struct ReplyError(pub &'static str);

impl Reply {
    /// One of our own, or of a test.
    pub const fn fixed(code: u16, enhanced: Enhanced, text: &'static str) -> Self {
        Self { code, enhanced: Some(enhanced), text: Cow::Borrowed(text) }
    }

    /// 2yz or 3yz.
    pub const fn is_positive(&self) -> bool {
        self.code < 400
    }

    /// 4yz
    pub const fn is_transient(&self) -> bool {
        self.code >= 400 && self.code < 500
    }

    /// 5yz
    pub const fn is_permanent(&self) -> bool {
        self.code >= 500
    }

    /// Reads one whole reply from the front of `octets`: `Ok(None)` where its last line has not come yet, else the
    /// reply and how many octets it took. Lenient in what does not matter (a missing text, a bare LF at the end of a
    /// line is refused, non-ASCII becomes `?`), strict in what does (code, separator, the same code on each line).
    ///
    /// # Errors
    /// The octets break SMTP; the connection cannot be trusted any further.
    pub fn parse(_octets: &[u8]) -> Result<Option<(Self, usize)>, ReplyError> {
        todo!()
    }

    /// Appends the reply as it goes to a client: every line with code and enhanced code (`X.0.0` where there is none,
    /// for 2yz, 4yz and 5yz), at most 512 octets a line, printable ASCII.
    pub fn encode(&self, _out: &mut Vec<u8>) {
        todo!()
    }

    /// The lines of the text.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.text.split('\n')
    }
}

/// One line, for logs and envelopes: `550 5.1.1 text / second line`.
impl fmt::Display for Reply {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}

impl fmt::Display for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// `class.subject.detail`, each part without leading zeros (RFC 3463 2).
impl FromStr for Enhanced {
    type Err = ReplyError;

    fn from_str(_text: &str) -> Result<Self, ReplyError> {
        todo!()
    }
}

impl Serialize for Enhanced {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Enhanced {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
