//! Octets as scripts write them, and patterns of them.
//!
//! `\r \n \t \0 \\ \* \{ \} \xNN` stand for one octet, `\{N:TEXT}` for N times TEXT, `\b{TEXT}` for its base64. In a pattern `*`
//! stands for any octets, none included.

use std::fmt;
use std::iter::Peekable;
use std::str::Chars;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::shown;

/// What is expected of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// What stands between the stars.
    pieces: Vec<Vec<u8>>,
}

impl Pattern {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut chars = text.chars().peekable();
        let mut pieces = vec![octets_until(&mut chars, &['*'])?];
        while chars.next().is_some() {
            pieces.push(octets_until(&mut chars, &['*'])?);
        }
        Ok(Self { pieces })
    }

    pub(crate) fn matches(&self, line: &[u8]) -> bool {
        let (first, rest) = self.pieces.split_first().unwrap();
        let Some(mut line) = line.strip_prefix(first.as_slice()) else { return false };
        let Some((last, middle)) = rest.split_last() else { return line.is_empty() };
        for piece in middle {
            let Some(at) = find(line, piece) else { return false };
            line = &line[at + piece.len()..];
        }
        line.ends_with(last)
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    if needle.is_empty() {
        return Some(0);
    }
    haystack.windows(needle.len()).position(|window| window == needle)
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pieces: Vec<_> = self.pieces.iter().map(|piece| shown(piece)).collect();
        f.write_str(&pieces.join("*"))
    }
}

/// The octets that `text` stands for.
pub(crate) fn octets(text: &str) -> Result<Vec<u8>, String> {
    octets_until(&mut text.chars().peekable(), &[])
}

fn octets_until(chars: &mut Peekable<Chars<'_>>, ends: &[char]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    while let Some(&c) = chars.peek() {
        if ends.contains(&c) {
            break;
        }
        chars.next();
        if c == '\\' {
            escape(chars, &mut out)?;
        } else {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    Ok(out)
}

fn escape(chars: &mut Peekable<Chars<'_>>, out: &mut Vec<u8>) -> Result<(), String> {
    let c = chars.next().ok_or("a backslash at the end")?;
    match c {
        'r' => out.push(b'\r'),
        'n' => out.push(b'\n'),
        't' => out.push(b'\t'),
        '0' => out.push(0),
        '\\' | '*' | '}' => out.push(c as u8),
        'x' => {
            let digits: String = chars.take(2).collect();
            out.push(u8::from_str_radix(&digits, 16).map_err(|_| format!("\\x{digits} is no octet"))?);
        }
        'b' if chars.next() == Some('{') => out.extend_from_slice(STANDARD.encode(braced(chars)?).as_bytes()),
        '{' => {
            let count: String = std::iter::from_fn(|| chars.next_if(char::is_ascii_digit)).collect();
            let count = count.parse().map_err(|_| "\\{N:TEXT} repeats TEXT")?;
            if chars.next() != Some(':') {
                return Err("\\{N:TEXT} repeats TEXT".to_owned());
            }
            let text = braced(chars)?;
            out.extend_from_slice(&text.repeat(count));
        }
        c => return Err(format!("\\{c} means nothing")),
    }
    Ok(())
}

fn braced(chars: &mut Peekable<Chars<'_>>) -> Result<Vec<u8>, String> {
    let text = octets_until(chars, &['}'])?;
    chars.next().map(|_| text).ok_or_else(|| "a brace is not closed".to_owned())
}

#[test]
fn escapes_and_patterns() {
    for (text, expected) in [
        (r"a\r\n\0\\\x80", &b"a\r\n\0\\\x80"[..]),
        (r"<\{3:ab}>", b"<ababab>"),
        (r"\b{\0a\0b}", b"AGEAYg=="),
        ("\u{fc}", b"\xc3\xbc"),
    ] {
        assert_eq!(octets(text).as_deref(), Ok(expected), "{text}");
    }
    for text in [r"\", r"\q", r"\{a}", r"\{2:a", r"\xg1"] {
        assert!(octets(text).is_err(), "{text}");
    }
    for (pattern, line, expected) in [
        ("250 Ok", "250 Ok", true),
        ("250 Ok", "250 Ok.", false),
        ("250 *", "250 ", true),
        ("250 * as *", "250 queued as X", true),
        ("250 * as *", "250 queued", false),
        ("*a*a", "a", false),
        ("\\*", "*", true),
        ("\\*", "x", false),
    ] {
        assert_eq!(Pattern::parse(pattern).unwrap().matches(line.as_bytes()), expected, "{pattern} {line}");
    }
}
