//! The parameters of MAIL and RCPT that Gatepost knows: typed, and written back as they came.
//!
//! SIZE (RFC 1870), BODY (6152, 3030), SMTPUTF8 (6531), RET, ENVID, NOTIFY, ORCPT (3461), AUTH (4954: parsed and never
//! passed on), REQUIRETLS (8689), BY (2852), HOLDFOR, HOLDUNTIL (4865), MT-PRIORITY (6710). xtext is checked and kept
//! encoded.

use std::fmt;
use std::io::Write as _;

use serde::{Deserialize, Serialize};

use super::grammar::Upper;
use super::{CommandError, Extensions, further, grammar, xtext};
use crate::clock::Timestamp;

/// The longest decoded ENVID, in characters (RFC 3461 4.4).
const MAX_ENVID: usize = 100;
/// The longest ORCPT as written, in characters (RFC 3461 4.2).
const MAX_ORCPT: usize = 500;
/// The most digits of a SIZE (RFC 1870 3).
const MAX_SIZE_DIGITS: usize = 20;

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
    /// Return the whole message.
    Full,
    /// Return only the header.
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
    /// `SIZE=`, in octets.
    pub size: Option<u64>,
    /// `BODY=`
    pub body: Option<Body>,
    /// `SMTPUTF8`
    pub smtputf8: bool,
    /// `RET=`
    pub ret: Option<Ret>,
    /// `ENVID=`, in xtext as written.
    pub envid: Option<String>,
    /// `REQUIRETLS`
    pub require_tls: bool,
    /// `BY=`, as written; see [`Self::after`].
    pub by: Option<String>,
    /// `HOLDFOR=`, as written; see [`Self::after`].
    pub hold_for: Option<String>,
    /// `HOLDUNTIL=`, as written; never together with `HOLDFOR=`.
    pub hold_until: Option<String>,
    /// `MT-PRIORITY=`, as written.
    pub mt_priority: Option<String>,
}

/// What a client asked for with RCPT.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RcptParameters {
    /// `NOTIFY=`
    pub notify: Option<Notify>,
    /// `ORCPT=`, type and xtext as written.
    pub orcpt: Option<String>,
}

/// As written after `BODY=`.
impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SevenBit => "7BIT",
            Self::EightBitMime => "8BITMIME",
            Self::BinaryMime => "BINARYMIME",
        })
    }
}

/// As written after `RET=`.
impl fmt::Display for Ret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "FULL",
            Self::Hdrs => "HDRS",
        })
    }
}

/// As written after `NOTIFY=`.
impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [(self.success, "SUCCESS"), (self.failure, "FAILURE"), (self.delay, "DELAY")];
        let mut separator = "";
        for (_, name) in named.into_iter().filter(|(wanted, _)| *wanted) {
            write!(f, "{separator}{name}")?;
            separator = ",";
        }
        if separator.is_empty() { f.write_str("NEVER") } else { Ok(()) }
    }
}

impl MailParameters {
    /// Parses what follows the path: nothing, or a blank and parameters.
    pub(super) fn parse(text: &str) -> Result<Self, CommandError> {
        let mut parameters = Self::default();
        let (mut smtputf8, mut require_tls, mut auth) = (None, None, None);
        for (keyword, value) in keywords(text) {
            match Upper::of(keyword).octets() {
                b"SIZE" => once(&mut parameters.size, "SIZE", value.and_then(size))?,
                b"BODY" => once(&mut parameters.body, "BODY", value.and_then(body))?,
                b"SMTPUTF8" => once(&mut smtputf8, "SMTPUTF8", value.is_none().then_some(()))?,
                b"RET" => once(&mut parameters.ret, "RET", value.and_then(ret))?,
                b"ENVID" => once(&mut parameters.envid, "ENVID", value.and_then(envid))?,
                b"AUTH" => once(&mut auth, "AUTH", value.and_then(submitter))?,
                b"REQUIRETLS" => once(&mut require_tls, "REQUIRETLS", value.is_none().then_some(()))?,
                b"BY" => once(&mut parameters.by, "BY", value.and_then(further::by))?,
                // RFC 4865 3: one or the other.
                b"HOLDFOR" if parameters.hold_until.is_none() => {
                    once(&mut parameters.hold_for, "HOLDFOR", value.and_then(further::hold_for))?;
                }
                b"HOLDUNTIL" if parameters.hold_for.is_none() => {
                    once(&mut parameters.hold_until, "HOLDUNTIL", value.and_then(further::hold_until))?;
                }
                b"HOLDFOR" => return Err(CommandError::ParameterValue("HOLDFOR")),
                b"HOLDUNTIL" => return Err(CommandError::ParameterValue("HOLDUNTIL")),
                b"MT-PRIORITY" => {
                    let priority = value.and_then(further::mt_priority);
                    once(&mut parameters.mt_priority, "MT-PRIORITY", priority)?;
                }
                _ => return Err(CommandError::Parameter),
            }
        }
        parameters.smtputf8 = smtputf8.is_some();
        parameters.require_tls = require_tls.is_some();
        Ok(parameters)
    }

    /// Returns the parameters after the message has been here for `elapsed` seconds; `None` if it should have been
    /// returned by now (BY, mode R).
    pub fn after(&self, elapsed: u64) -> Option<Self> {
        let by = match &self.by {
            Some(by) => Some(further::by_after(by, elapsed)?),
            None => None,
        };
        let hold_for = self.hold_for.as_ref().and_then(|hold| further::hold_after(hold, elapsed));
        Some(Self { by, hold_for, ..self.clone() })
    }

    /// Drops a HOLDUNTIL that has passed. It has no effect and is not passed on (RFC 4865 4): an upstream would refuse
    /// it, and the message with it.
    pub fn forget_the_past(&mut self, now: Timestamp) {
        let passed = |until: &String| further::moment(until).is_some_and(|until| until <= now);
        self.hold_until = self.hold_until.take().filter(|until| !passed(until));
    }

    /// Returns the seconds within which BY wants the message returned, if it does.
    pub fn by_returns_within(&self) -> Option<u32> {
        further::returns_within(self.by.as_ref()?)
    }

    /// Returns HOLDFOR in seconds.
    pub fn hold_seconds(&self) -> Option<u32> {
        self.hold_for.as_ref()?.parse().ok()
    }

    /// Returns the first extension that `upstream` lacks for these parameters.
    pub fn missing_extension(&self, upstream: &Extensions) -> Option<&'static str> {
        let binary = self.body == Some(Body::BinaryMime);
        let holds = self.hold_for.is_some() || self.hold_until.is_some();
        let further = &upstream.further;
        let needed = [
            (self.smtputf8 && !upstream.smtputf8, "SMTPUTF8"),
            (self.body == Some(Body::EightBitMime) && !upstream.eight_bit_mime, "8BITMIME"),
            (binary && !upstream.binary_mime, "BINARYMIME"),
            (binary && !upstream.chunking, "CHUNKING"),
            ((self.ret.is_some() || self.envid.is_some()) && !upstream.dsn, "DSN"),
            (self.require_tls && !further.require_tls, "REQUIRETLS"),
            (self.by.is_some() && further.deliver_by.is_none(), "DELIVERBY"),
            (holds && further.future_release.is_none(), "FUTURERELEASE"),
            (self.mt_priority.is_some() && further.mt_priority.is_none(), "MT-PRIORITY"),
        ];
        needed.into_iter().find_map(|(missing, name)| missing.then_some(name))
    }

    /// Appends the parameters that `upstream` knows, each preceded by a blank.
    pub(super) fn encode(&self, upstream: &Extensions, out: &mut Vec<u8>) {
        if let Some(size) = self.size.filter(|_| upstream.size.is_some()) {
            append(out, format_args!(" SIZE={size}"));
        }
        let body_known = |body: &Body| match body {
            // 7BIT is the default (RFC 6152 3), so that leaving it out loses nothing.
            Body::SevenBit | Body::EightBitMime => upstream.eight_bit_mime,
            Body::BinaryMime => upstream.binary_mime && upstream.chunking,
        };
        if let Some(body) = self.body.filter(body_known) {
            append(out, format_args!(" BODY={body}"));
        }
        if self.smtputf8 && upstream.smtputf8 {
            out.extend_from_slice(b" SMTPUTF8");
        }
        if let Some(ret) = self.ret.filter(|_| upstream.dsn) {
            append(out, format_args!(" RET={ret}"));
        }
        if let Some(envid) = self.envid.as_ref().filter(|_| upstream.dsn) {
            append(out, format_args!(" ENVID={envid}"));
        }
        let further = &upstream.further;
        if self.require_tls && further.require_tls {
            out.extend_from_slice(b" REQUIRETLS");
        }
        for (keyword, value, known) in [
            ("BY", &self.by, further.deliver_by.is_some()),
            ("HOLDFOR", &self.hold_for, further.future_release.is_some()),
            ("HOLDUNTIL", &self.hold_until, further.future_release.is_some()),
            ("MT-PRIORITY", &self.mt_priority, further.mt_priority.is_some()),
        ] {
            if let Some(value) = value.as_ref().filter(|_| known) {
                append(out, format_args!(" {keyword}={value}"));
            }
        }
    }
}

/// Writing to a Vec cannot fail.
fn append(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}

impl RcptParameters {
    /// As [`MailParameters::parse`].
    pub(super) fn parse(text: &str) -> Result<Self, CommandError> {
        if text.is_empty() { Ok(Self::default()) } else { Self::read(text) }
    }

    #[inline(never)] // see "The code of a message" in docs/performance.md
    fn read(text: &str) -> Result<Self, CommandError> {
        let mut parameters = Self::default();
        for (keyword, value) in keywords(text) {
            match Upper::of(keyword).octets() {
                b"NOTIFY" => once(&mut parameters.notify, "NOTIFY", value.and_then(notify))?,
                b"ORCPT" => once(&mut parameters.orcpt, "ORCPT", value.and_then(orcpt))?,
                _ => return Err(CommandError::Parameter),
            }
        }
        Ok(parameters)
    }

    /// As [`MailParameters::missing_extension`].
    pub(super) fn missing_extension(&self, upstream: &Extensions) -> Option<&'static str> {
        if (self.notify.is_some() || self.orcpt.is_some()) && !upstream.dsn {
            return Some("DSN");
        }
        let utf8 = self.orcpt.as_ref().is_some_and(|orcpt| !orcpt.is_ascii());
        (utf8 && !upstream.smtputf8).then_some("SMTPUTF8")
    }

    /// As [`MailParameters::encode`].
    pub(super) fn encode(&self, upstream: &Extensions, out: &mut Vec<u8>) {
        if let Some(notify) = self.notify.filter(|_| upstream.dsn) {
            append(out, format_args!(" NOTIFY={notify}"));
        }
        let orcpt_known = |orcpt: &&String| upstream.dsn && (upstream.smtputf8 || orcpt.is_ascii());
        if let Some(orcpt) = self.orcpt.as_ref().filter(orcpt_known) {
            append(out, format_args!(" ORCPT={orcpt}"));
        }
    }
}

/// Splits the list into `keyword` and `keyword=value`.
fn keywords(text: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    text.split(' ').filter(|word| !word.is_empty()).map(|word| match word.split_once('=') {
        Some((keyword, value)) => (keyword, Some(value)),
        None => (word, None),
    })
}

/// Sets a parameter that must not be set yet.
fn once<T>(slot: &mut Option<T>, name: &'static str, value: Option<T>) -> Result<(), CommandError> {
    match (&slot, value) {
        (None, Some(value)) => {
            *slot = Some(value);
            Ok(())
        }
        _ => Err(CommandError::ParameterValue(name)),
    }
}

/// A number too large for u64 exceeds any limit: the maximum stands for it.
fn size(text: &str) -> Option<u64> {
    let digits =
        matches!(text.len(), 1..=MAX_SIZE_DIGITS) && text.bytes().all(|octet| octet.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

fn body(text: &str) -> Option<Body> {
    match Upper::of(text).octets() {
        b"7BIT" => Some(Body::SevenBit),
        b"8BITMIME" => Some(Body::EightBitMime),
        b"BINARYMIME" => Some(Body::BinaryMime),
        _ => None,
    }
}

fn ret(text: &str) -> Option<Ret> {
    match Upper::of(text).octets() {
        b"FULL" => Some(Ret::Full),
        b"HDRS" => Some(Ret::Hdrs),
        _ => None,
    }
}

fn notify(text: &str) -> Option<Notify> {
    let mut notify = Notify { success: false, failure: false, delay: false };
    if text.eq_ignore_ascii_case("NEVER") {
        return Some(notify);
    }
    for event in text.split(',') {
        match Upper::of(event).octets() {
            b"SUCCESS" => notify.success = true,
            b"FAILURE" => notify.failure = true,
            b"DELAY" => notify.delay = true,
            _ => return None,
        }
    }
    Some(notify)
}

fn envid(text: &str) -> Option<String> {
    let decoded = xtext::decode(text)?;
    // RFC 3461 4.4: printable (graphic and white space) characters from the US-ASCII repertoire.
    let printable = decoded.iter().all(|octet| matches!(octet, b'\t' | b' '..=b'~'));
    (printable && matches!(decoded.len(), 1..=MAX_ENVID)).then(|| text.to_owned())
}

fn orcpt(text: &str) -> Option<String> {
    let (kind, address) = text.split_once(';')?;
    let valid = if kind.eq_ignore_ascii_case("utf-8") {
        // RFC 6533 3: plain UTF-8, or ASCII with \x{...}; blanks and controls have been excluded.
        !address.contains(['+', '='])
    } else {
        // Decoded it goes into DSNs, where a CRLF would begin a field of the sender's choice.
        xtext::decode(address).is_some_and(|address| address.iter().all(|octet| matches!(octet, b' '..=b'~')))
    };
    (valid && grammar::is_atom(kind) && kind.is_ascii() && !address.is_empty() && text.len() <= MAX_ORCPT)
        .then(|| text.to_owned())
}

/// `AUTH=`: a mailbox in xtext, or `<>`. On whose behalf we relay is for us to say, so it is dropped (RFC 4954 5).
fn submitter(text: &str) -> Option<()> {
    (!text.is_empty() && (text == "<>" || xtext::decode(text).is_some())).then_some(())
}
