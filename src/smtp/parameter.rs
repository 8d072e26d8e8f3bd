//! The parameters of MAIL and RCPT that Gatepost knows: typed, and written back as they came.
//!
//! SIZE (RFC 1870), BODY (6152, 3030), SMTPUTF8 (6531), RET, ENVID, NOTIFY, ORCPT (3461), AUTH (4954: parsed and
//! never passed on). xtext is checked and kept encoded.

use serde::{Deserialize, Serialize};

/// `BODY=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Body {
    /// `7BIT`
    #[serde(rename = "7BIT")]
    SevenBit,
    /// `8BITMIME` (RFC 6152)
    #[serde(rename = "8BITMIME")]
    EightBitMime,
    /// `BINARYMIME` (RFC 3030): only with BDAT
    BinaryMime,
}

/// `RET=` (RFC 3461 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Ret {
    /// The whole message comes back.
    Full,
    /// The header alone.
    Hdrs,
}

/// `NOTIFY=` (RFC 3461 4.1). All three false is `NEVER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notify {
    /// `SUCCESS`
    pub success: bool,
    /// `FAILURE`
    pub failure: bool,
    /// `DELAY`
    pub delay: bool,
}

/// What a client asked for with MAIL.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MailParameters {
    /// `SIZE=`, octets.
    pub size: Option<u64>,
    /// `BODY=`
    pub body: Option<Body>,
    /// `SMTPUTF8`
    pub smtputf8: bool,
    /// `RET=`
    pub ret: Option<Ret>,
    /// `ENVID=`, xtext as it was written.
    pub envid: Option<String>,
}

/// What a client asked for with RCPT.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RcptParameters {
    /// `NOTIFY=`
    pub notify: Option<Notify>,
    /// `ORCPT=`, type and xtext as they were written.
    pub orcpt: Option<String>,
}
