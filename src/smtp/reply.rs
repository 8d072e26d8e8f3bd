//! Replies: parsed strictly from an upstream, written cleanly to a client.
//!
//! RFC 5321 4.2, enhanced status codes of RFC 3463 and 2034. What an upstream sends is parsed, bounded and cleaned:
//! nothing in it can become a second reply.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use memchr::memchr;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::decimal::Digits;
use crate::visible::is_printable_ascii;

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
    /// The code that every line had, or the first line.
    pub enhanced: Option<Enhanced>,
    /// The text without codes; lines are separated by `\n`. Only printable characters.
    pub text: Cow<'static, str>,
}

/// The longest reply line that is passed on or written, in octets with its CRLF (RFC 5321 4.5.3.1.5).
pub const MAX_REPLY_LINE: usize = 512;
/// Octets for a code, an enhanced code, their separators and the CRLF.
const ROOM_FOR_CODES: usize = 20;
/// [`MAX_REPLY_LINE`] without the CRLF.
const MAX_LINE_CONTENT: usize = MAX_REPLY_LINE - 2;
/// The most octets of a whole reply from an upstream; a longer one breaks SMTP.
pub const MAX_REPLY: usize = 64 * 1024;

/// What many MTAs say to a RCPT: there may be a thousand of these in a transaction, which then need no memory of their own.
const USUAL: [&str; 5] = ["Ok", "ok", "OK", "Accepted", "Recipient OK"];

/// Why an upstream's octets are not a reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no SMTP reply: {0}")]
pub struct ReplyError(pub &'static str);

impl Reply {
    /// Makes a reply of our own, or of a test.
    pub const fn fixed(code: u16, enhanced: Enhanced, text: &'static str) -> Self {
        Self { code, enhanced: Some(enhanced), text: Cow::Borrowed(text) }
    }

    /// 2yz, "positive completion" (RFC 5321 4.2.1).
    pub const fn is_completion(&self) -> bool {
        self.code / 100 == 2
    }

    /// 3yz, "positive intermediate" (RFC 5321 4.2.1).
    pub const fn is_intermediate(&self) -> bool {
        self.code / 100 == 3
    }

    /// 4yz
    pub const fn is_transient(&self) -> bool {
        self.code >= 400 && self.code < 500
    }

    /// 5yz
    pub const fn is_permanent(&self) -> bool {
        self.code >= 500
    }

    /// Keeps at most the first `octets` of the text, and the memory for no more.
    pub fn shorten(&mut self, octets: usize) {
        if self.text.len() > octets {
            // Not truncated in place, which would keep the room of all of it.
            self.text = Cow::Owned(self.text[..self.text.floor_char_boundary(octets)].to_owned());
        }
    }

    /// Parses a whole reply at the front of `octets`: returns the reply and how many octets it took, or `Ok(None)` if
    /// its last line has not arrived. Lenient where it does not matter (a missing text; a line over [`MAX_REPLY_LINE`]
    /// is cut; a character that is not printable becomes `?`), strict where it does (CRLF, code, separator, the same
    /// code on each line).
    ///
    /// # Errors
    /// The octets break SMTP; the connection cannot be trusted any further.
    pub fn parse(octets: &[u8]) -> Result<Option<(Self, usize)>, ReplyError> {
        let bounded = &octets[..octets.len().min(MAX_REPLY)];
        let mut so_far: Option<Self> = None;
        let mut taken = 0;
        while let Some((line, length)) = next_line(&bounded[taken..])? {
            taken += length;
            let line = Line::parse(line)?;
            let reply = match so_far {
                Some(reply) => reply.with(&line)?,
                None => Self::begin(&line),
            };
            if line.last {
                return Ok(Some((reply, taken)));
            }
            so_far = Some(reply);
        }
        if octets.len() < MAX_REPLY { Ok(None) } else { Err(ReplyError("it has no end")) }
    }

    /// Returns the code of the reply at the front of `octets` and how many octets it takes: the same as
    /// [`Self::parse`], without processing its text.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn measure(octets: &[u8]) -> Result<Option<(u16, usize)>, ReplyError> {
        let bounded = &octets[..octets.len().min(MAX_REPLY)];
        let mut code = None;
        let mut taken = 0;
        while let Some((line, length)) = next_line(&bounded[taken..])? {
            taken += length;
            let line = Line::parse(line)?;
            if *code.get_or_insert(line.code) != line.code {
                return Err(ReplyError("its lines have different codes"));
            }
            if line.last {
                return Ok(Some((line.code, taken)));
            }
        }
        if octets.len() < MAX_REPLY { Ok(None) } else { Err(ReplyError("it has no end")) }
    }

    fn begin(line: &Line<'_>) -> Self {
        // RFC 2034 4: the classes agree; a code of another class is text that happens to look like one.
        let (code, text) = split_enhanced(line.text);
        let enhanced = code.filter(|code| u16::from(code.class) == line.code / 100);
        let text = if enhanced.is_some() { text } else { line.text };
        if let Some(usual) = USUAL.iter().find(|usual| usual.as_bytes() == text) {
            return Self { code: line.code, enhanced, text: Cow::Borrowed(usual) };
        }
        let mut clean = String::with_capacity(text.len());
        push_clean(&mut clean, text);
        Self { code: line.code, enhanced, text: Cow::Owned(clean) }
    }

    fn with(mut self, line: &Line<'_>) -> Result<Self, ReplyError> {
        if line.code != self.code {
            return Err(ReplyError("its lines have different codes"));
        }
        let (enhanced, text) = split_enhanced(line.text);
        let repeated = self.enhanced.is_some() && enhanced == self.enhanced;
        let clean = self.text.to_mut();
        clean.push('\n');
        push_clean(clean, if repeated { text } else { line.text });
        Ok(self)
    }

    /// Appends the reply in the form for a client: every line with code and enhanced code (`X.0.0` if there is none,
    /// for 2yz, 4yz and 5yz), at most 512 octets a line, printable ASCII.
    #[inline(never)] // see "The code of a message" in docs/performance.md
    pub fn encode(&self, out: &mut Vec<u8>) {
        let class = match self.code {
            200..300 => Some(2),
            400..500 => Some(4),
            500..600 => Some(5),
            _ => None, // 3yz has no class (RFC 3463 2)
        };
        let generic = class.map(|class| Enhanced { class, subject: 0, detail: 0 });
        self.encode_lines(self.enhanced.or(generic), out);
    }

    /// As [`Reply::encode`], without an enhanced code: for the greeting and EHLO (RFC 2034 3).
    pub fn encode_plain(&self, out: &mut Vec<u8>) {
        self.encode_lines(None, out);
    }

    fn encode_lines(&self, enhanced: Option<Enhanced>, out: &mut Vec<u8>) {
        let mut rest = Some(&*self.text);
        while let Some(text) = rest {
            let (text, separator) = match memchr(b'\n', text.as_bytes()) {
                Some(end) => {
                    rest = text.get(end + 1..);
                    (text.get(..end).unwrap_or_default(), b'-')
                }
                None => {
                    rest = None;
                    (text, b' ')
                }
            };
            let begin = out.len();
            out.reserve(text.len() + ROOM_FOR_CODES);
            let [hundreds, tens, ones] = [self.code / 100, self.code / 10 % 10, self.code % 10].map(digit);
            out.extend_from_slice(&[hundreds, tens, ones, separator]);
            if let Some(enhanced) = enhanced {
                enhanced.encode(out);
                if !text.is_empty() {
                    out.push(b' ');
                }
            }
            if is_printable_ascii(text.as_bytes()) {
                out.extend_from_slice(text.as_bytes());
            } else {
                out.extend(text.chars().map(|c| if matches!(c, ' '..='~') { c as u8 } else { b'?' }));
            }
            out.truncate(begin + MAX_LINE_CONTENT);
            out.extend_from_slice(b"\r\n");
        }
    }

    /// The lines of the text.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.text.split('\n')
    }
}

/// One line of a reply as received.
struct Line<'a> {
    code: u16,
    last: bool,
    text: &'a [u8],
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8]) -> Result<Self, ReplyError> {
        let (code, rest) = match line {
            [c @ b'2'..=b'5', x @ b'0'..=b'9', i @ b'0'..=b'9', rest @ ..] => {
                ([c, x, i].iter().fold(0, |code, digit| code * 10 + u16::from(*digit - b'0')), rest)
            }
            _ => return Err(ReplyError("a line does not begin with a code from 200 to 599")),
        };
        let (last, text) = match rest {
            [] => (true, rest),
            [b' ', text @ ..] => (true, text),
            [b'-', text @ ..] => (false, text),
            _ => return Err(ReplyError("the code is not followed by a blank or a hyphen")),
        };
        let room = MAX_LINE_CONTENT - "250 ".len();
        Ok(Self { code, last, text: text.get(..room).unwrap_or(text) })
    }
}

/// Returns the line at the front without its CRLF, and its length with it.
fn next_line(octets: &[u8]) -> Result<Option<(&[u8], usize)>, ReplyError> {
    let Some(lf) = memchr(b'\n', octets) else { return Ok(None) };
    match &octets[..lf] {
        [line @ .., b'\r'] => Ok(Some((line, lf + 1))),
        _ => Err(ReplyError("a line ends with a bare LF")),
    }
}

/// Splits the text of a line into an enhanced code at its front, if there is one, and the rest.
fn split_enhanced(text: &[u8]) -> (Option<Enhanced>, &[u8]) {
    // No code is longer than `5.999.999`.
    let end = text.iter().take(10).position(|octet| *octet == b' ').unwrap_or(text.len());
    let code = Enhanced::read(&text[..end]);
    (code, text.get(end + 1..).unwrap_or_default())
}

/// Appends `text`; each unprintable character and each invalid UTF-8 sequence becomes `?`.
fn push_clean(out: &mut String, text: &[u8]) {
    if let Ok(plain) = std::str::from_utf8(text)
        && is_printable_ascii(text)
    {
        return out.push_str(plain);
    }
    out.reserve(text.len());
    for chunk in text.utf8_chunks() {
        out.extend(chunk.valid().chars().map(|c| if is_printable(c) { c } else { '?' }));
        if !chunk.invalid().is_empty() {
            out.push('?');
        }
    }
}

/// The last digit of a number, in ASCII.
fn digit(number: u16) -> u8 {
    b'0' + (number % 10) as u8
}

/// Appends a number.
fn push_number(out: &mut Vec<u8>, number: u16) {
    out.extend_from_slice(Digits::of(number.into()).as_bytes());
}

impl Enhanced {
    fn read(text: &[u8]) -> Option<Self> {
        // Nearly all look like this.
        if let [class @ (b'2' | b'4' | b'5'), b'.', subject @ b'0'..=b'9', b'.', detail @ b'0'..=b'9'] = text
        {
            let [class, subject, detail] = [class, subject, detail].map(|digit| digit - b'0');
            return Some(Self { class, subject: subject.into(), detail: detail.into() });
        }
        let (class, rest) = enhanced_part(text)?;
        let (subject, rest) = enhanced_part(rest.strip_prefix(b".")?)?;
        let (detail, rest) = enhanced_part(rest.strip_prefix(b".")?)?;
        let class = u8::try_from(class).ok().filter(|class| matches!(class, 2 | 4 | 5))?;
        rest.is_empty().then_some(Self { class, subject, detail })
    }

    fn encode(self, out: &mut Vec<u8>) {
        if let Self { class, subject: subject @ ..10, detail: detail @ ..10 } = self {
            let [class, subject, detail] = [class.into(), subject, detail].map(digit);
            return out.extend_from_slice(&[class, b'.', subject, b'.', detail]);
        }
        self.encode_long(out);
    }

    #[cold]
    fn encode_long(self, out: &mut Vec<u8>) {
        push_number(out, self.class.into());
        out.push(b'.');
        push_number(out, self.subject);
        out.push(b'.');
        push_number(out, self.detail);
    }
}

/// Line and paragraph separators are not control characters in Unicode, but they end lines.
fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}')
}

impl Reply {
    /// One line, for logs and envelopes: `550 5.1.1 text / second line`.
    pub fn one_line(&self) -> String {
        let mut out = String::with_capacity("250 2.000.000 ".len() + self.text.len());
        out.push_str(Digits::padded(self.code.into(), 3).as_str());
        if let Some(enhanced) = self.enhanced {
            out.push(' ');
            enhanced.push(&mut out);
        }
        if memchr(b'\n', self.text.as_bytes()).is_none() {
            if !self.text.is_empty() {
                out.push(' ');
                out.push_str(&self.text);
            }
            return out;
        }
        for (index, line) in self.lines().enumerate() {
            match index {
                0 if line.is_empty() => continue,
                0 => out.push(' '),
                _ => out.push_str(" / "),
            }
            out.push_str(line);
        }
        out
    }
}

/// See [`Reply::one_line`].
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.one_line())
    }
}

impl Enhanced {
    fn push(self, out: &mut String) {
        out.push_str(Digits::of(self.class.into()).as_str());
        for number in [self.subject, self.detail] {
            out.push('.');
            out.push_str(Digits::of(number.into()).as_str());
        }
    }
}

impl fmt::Display for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity("2.000.000".len());
        self.push(&mut text);
        f.write_str(&text)
    }
}

/// `class.subject.detail`, each part without leading zeros (RFC 3463 2).
impl FromStr for Enhanced {
    type Err = ReplyError;

    fn from_str(text: &str) -> Result<Self, ReplyError> {
        Self::read(text.as_bytes()).ok_or(ReplyError("no enhanced status code"))
    }
}

/// Parses 1 to 3 digits without a leading zero at the front; returns the rest as well.
fn enhanced_part(text: &[u8]) -> Option<(u16, &[u8])> {
    let length = text.iter().position(|octet| !octet.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(length);
    let leading_zero = length > 1 && digits.starts_with(b"0");
    let number = digits.iter().take(3).fold(0, |number, digit| number * 10 + u16::from(*digit - b'0'));
    (matches!(length, 1..=3) && !leading_zero).then_some((number, rest))
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn enhanced(class: u8, subject: u16, detail: u16) -> Option<Enhanced> {
        Some(Enhanced { class, subject, detail })
    }

    fn parsed(octets: &[u8]) -> Reply {
        let (reply, taken) = Reply::parse(octets).unwrap().unwrap();
        assert_eq!(taken, octets.len());
        reply
    }

    fn encoded(reply: &Reply) -> Vec<u8> {
        let mut out = Vec::new();
        reply.encode(&mut out);
        out
    }

    #[test]
    fn the_beginning_is_kept() {
        for (text, octets, kept) in [
            ("abc", 3, "abc"),
            ("abc", 2, "ab"),
            ("a\u{fc}c", 2, "a"),
            ("a\u{fc}c", 3, "a\u{fc}"),
            ("", 0, ""),
        ] {
            let mut reply = Reply { code: 550, enhanced: None, text: text.into() };
            reply.shorten(octets);
            assert_eq!(reply.text, kept, "{text} {octets}");
        }
        let mut long = Reply { code: 550, enhanced: None, text: "x".repeat(60_000).into() };
        long.shorten(9);
        let Cow::Owned(text) = long.text else { panic!() };
        assert!(text.capacity() < 100);
    }

    #[test]
    fn replies() {
        for (octets, code, code_enhanced, text) in [
            (&b"250 2.1.5 Ok\r\n"[..], 250, enhanced(2, 1, 5), "Ok"),
            (b"250 Ok\r\n", 250, None, "Ok"),
            (b"250\r\n", 250, None, ""), // RFC 5321 4.2: the text may be missing
            (b"250 \r\n", 250, None, ""),
            (b"250 2.0.0\r\n", 250, enhanced(2, 0, 0), ""),
            (b"354 go ahead\r\n", 354, None, "go ahead"),
            (b"354 3.0.0 go\r\n", 354, None, "3.0.0 go"), // RFC 3463 2: class is 2, 4 or 5
            (b"550-5.1.1 one\r\n550-5.1.1 two\r\n550 5.1.1\r\n", 550, enhanced(5, 1, 1), "one\ntwo\n"),
            (b"550-5.1.1 one\r\n550 two\r\n", 550, enhanced(5, 1, 1), "one\ntwo"),
            (b"550-5.1.1 one\r\n550 5.7.1 two\r\n", 550, enhanced(5, 1, 1), "one\n5.7.1 two"),
            (b"550-one\r\n550 5.7.1 two\r\n", 550, None, "one\n5.7.1 two"),
            (b"450 5.1.1 x\r\n", 450, None, "5.1.1 x"), // RFC 2034 4: the classes must agree
            (b"552 1 Requested mail action aborted\r\n", 552, None, "1 Requested mail action aborted"), // Yahoo
            (b"550 5.1.1: x\r\n", 550, None, "5.1.1: x"),
            (b"250 a\x1b[31m\tb\0c\rd\x7f\r\n", 250, None, "a?[31m?b?c?d?"),
            (b"250 gr\xc3\xbcn gr\xfcn \xe2\x80\xa8\r\n", 250, None, "gr\u{fc}n gr?n ?"),
        ] {
            let expected = Reply { code, enhanced: code_enhanced, text: text.into() };
            assert_eq!(parsed(octets), expected, "{}", octets.escape_ascii());
        }
    }

    #[test]
    fn one_reply_is_taken_and_the_rest_left() {
        assert_eq!(Reply::parse(b"250 a\r\n250 b\r\n").unwrap().unwrap().1, 7);
        for unfinished in ["", "2", "250 a", "250 a\r", "250-a\r\n", "250-a\r\n250 b\r"] {
            assert_eq!(Reply::parse(unfinished.as_bytes()), Ok(None), "{unfinished:?}");
        }
    }

    #[test]
    fn what_is_no_reply() {
        let endless = "250-a\r\n".repeat(MAX_REPLY / 7 + 1);
        let long = "x".repeat(MAX_REPLY);
        for octets in [
            "250 a\n",
            "\r\n",
            "25\r\n",
            "2500\r\n",
            "250a\r\n",
            "250\ta\r\n",
            "199 a\r\n",
            "600 a\r\n",
            "999 a\r\n",
            "2x0 a\r\n",
            " 250 a\r\n",
            "+OK\r\n",
            "HTTP/1.1 400 Bad Request\r\n",
            "250-a\r\n251 b\r\n",
            "250-a\r\n550 b\r\n",
            "250-a\r\n\r\n",
            "250-a\r\n250-b\n",
            &endless,
            &long,
        ] {
            assert!(Reply::parse(octets.as_bytes()).is_err(), "{:?}", &octets[..octets.len().min(40)]);
        }
    }

    #[test]
    fn the_bounds() {
        // A line over 512 octets is cut, when parsed and also when the enhanced code makes it longer as it is written.
        let reply = parsed(format!("250-{}\r\n250 b\r\n", "a".repeat(2000)).as_bytes());
        assert_eq!(reply.text, format!("{}\nb", "a".repeat(506)));
        let out = encoded(&reply);
        assert_eq!(out.split_inclusive(|&octet| octet == b'\n').next().unwrap().len(), MAX_REPLY_LINE);
        assert!(out.ends_with(b"a\r\n250 2.0.0 b\r\n"));
        // A whole reply has at most MAX_REPLY octets.
        let longest = format!("250 {}\r\n", "a".repeat(MAX_REPLY - 6));
        assert!(Reply::parse(longest.as_bytes()).unwrap().is_some());
        assert_eq!(Reply::parse(&longest.as_bytes()[..MAX_REPLY - 1]), Ok(None));
    }

    #[test]
    fn what_a_client_sees() {
        for (code, enhanced, text, with, without) in [
            (250, enhanced(2, 1, 5), "Ok", "250 2.1.5 Ok\r\n", "250 Ok\r\n"),
            (250, None, "Ok", "250 2.0.0 Ok\r\n", "250 Ok\r\n"),
            (450, None, "5.1.1 x", "450 4.0.0 5.1.1 x\r\n", "450 5.1.1 x\r\n"),
            (550, None, "", "550 5.0.0\r\n", "550 \r\n"),
            (354, None, "go", "354 go\r\n", "354 go\r\n"),
            (334, None, "", "334 \r\n", "334 \r\n"), // RFC 4954 4: the empty challenge has its blank
            (550, enhanced(5, 1, 1), "a\nb", "550-5.1.1 a\r\n550 5.1.1 b\r\n", "550-a\r\n550 b\r\n"),
            (
                250,
                None,
                "a\r\n250 b\u{fc}\0",
                "250-2.0.0 a?\r\n250 2.0.0 250 b??\r\n",
                "250-a?\r\n250 250 b??\r\n",
            ),
        ] {
            let reply = Reply { code, enhanced, text: text.into() };
            assert_eq!(encoded(&reply).escape_ascii().to_string(), with.escape_default().to_string());
            let mut plain = Vec::new();
            reply.encode_plain(&mut plain);
            assert_eq!(plain.escape_ascii().to_string(), without.escape_default().to_string());
        }
    }

    #[test]
    fn for_logs() {
        assert_eq!(parsed(b"550-5.1.1 a\r\n550 5.1.1 b\r\n").to_string(), "550 5.1.1 a / b");
        assert_eq!(parsed(b"250\r\n").to_string(), "250");
    }

    #[test]
    fn enhanced_codes() {
        for (text, expected) in [
            ("2.0.0", enhanced(2, 0, 0)),
            ("5.7.999", enhanced(5, 7, 999)),
            ("4.10.1", enhanced(4, 10, 1)),
            ("3.0.0", None),
            ("2.01.1", None), // RFC 3463 2: without leading zeros
            ("2.1.00", None),
            ("02.1.1", None),
            ("2.1.1000", None),
            ("2.1", None),
            ("2.1.", None),
            ("2..1", None),
            ("2.1.1.1", None),
            ("2.1.+1", None),
            ("2.1.1 ", None),
            ("", None),
        ] {
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
    }

    /// Octets that are often nearly a reply.
    fn octets() -> impl Strategy<Value = Vec<u8>> {
        let line = r"[2-5][0-5][0-9][- ]([245]\.[0-9]{1,2}\.[0-9]{1,2} )?[ -~ü\x00\r\u{2028}]{0,8}\r\n";
        let multi =
            r"550-(5\.1\.1 )?[a-c ]{0,3}\r\n550[ -](5\.1\.[12] )?[a-cü\t]{0,3}\r\n(550 [a-c]{0,700}\r\n)?";
        prop_oneof![
            line.prop_map(String::into_bytes),
            multi.prop_map(String::into_bytes),
            prop::collection::vec(prop::sample::select(&b"250 -.\r\n\0\xff"[..]), 0..40),
            prop::collection::vec(any::<u8>(), 0..40),
        ]
    }

    proptest! {
        #[test]
        fn nothing_in_it_becomes_a_second_reply(octets in octets()) {
            let Ok(Some((reply, taken))) = Reply::parse(&octets) else { return Ok(()) };
            prop_assert!(taken <= octets.len());
            prop_assert!(reply.lines().all(|line| line.chars().all(is_printable)));
            let out = encoded(&reply);
            for line in out.split_inclusive(|&octet| octet == b'\n') {
                prop_assert!(line.len() <= MAX_REPLY_LINE);
                let content = line.strip_suffix(b"\r\n").unwrap();
                prop_assert!(content.iter().all(|octet| matches!(octet, b' '..=b'~')));
            }
            let (again, length) = Reply::parse(&out).unwrap().unwrap();
            prop_assert_eq!(length, out.len());
            prop_assert_eq!(again.code, reply.code);
            prop_assert_eq!(again.lines().count(), reply.lines().count());
            if let Some(enhanced) = reply.enhanced {
                prop_assert_eq!(again.enhanced, Some(enhanced));
            }
            prop_assert_eq!(encoded(&again), out);
        }

        #[test]
        fn what_is_measured_is_what_is_parsed(octets in octets()) {
            let parsed = Reply::parse(&octets).map(|found| found.map(|(reply, taken)| (reply.code, taken)));
            prop_assert_eq!(Reply::measure(&octets), parsed);
        }

        #[test]
        fn a_reply_is_found_only_when_it_is_whole(octets in octets()) {
            match Reply::parse(&octets) {
                Ok(Some((reply, taken))) => {
                    for end in 0..taken {
                        prop_assert_eq!(Reply::parse(&octets[..end]), Ok(None));
                    }
                    prop_assert_eq!(Reply::parse(&octets[..taken]), Ok(Some((reply, taken))));
                }
                Ok(None) => {
                    for end in 0..octets.len() {
                        prop_assert_eq!(Reply::parse(&octets[..end]), Ok(None));
                    }
                }
                Err(_) => {}
            }
        }

        #[test]
        fn enhanced_codes_read_back(class in prop::sample::select(vec![2u8, 4, 5]), subject in 0..1000u16, detail in 0..1000u16) {
            let code = Enhanced { class, subject, detail };
            prop_assert_eq!(code.to_string().parse(), Ok(code));
        }
    }
}
