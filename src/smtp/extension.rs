//! Service extensions: what an EHLO reply says the other side can do (RFC 5321 4.1.1.1).

use super::Reply;

/// What an upstream offered. Unknown keywords are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extensions {
    /// PIPELINING (RFC 2920)
    pub pipelining: bool,
    /// SIZE (RFC 1870): `Some(None)` without a value or with 0 (no fixed maximum), else octets.
    pub size: Option<Option<u64>>,
    /// 8BITMIME (RFC 6152)
    pub eight_bit_mime: bool,
    /// SMTPUTF8 (RFC 6531)
    pub smtputf8: bool,
    /// DSN (RFC 3461)
    pub dsn: bool,
    /// CHUNKING (RFC 3030)
    pub chunking: bool,
    /// BINARYMIME (RFC 3030)
    pub binary_mime: bool,
    /// ENHANCEDSTATUSCODES (RFC 2034)
    pub enhanced_status_codes: bool,
    /// STARTTLS (RFC 3207)
    pub starttls: bool,
    /// XCLIENT (Postfix XCLIENT_README): the attribute names, upper case; empty where it is not offered.
    pub xclient: Vec<String>,
}

impl Extensions {
    /// Reads the reply to EHLO.
    pub fn from_ehlo(_reply: &Reply) -> Self {
        todo!()
    }
}
