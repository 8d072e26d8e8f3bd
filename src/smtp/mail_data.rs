//! Mail data: where it ends, what it must not contain, dot-stuffing (RFC 5321 4.5.2) and unstuffing.
//!
//! Only CRLF.CRLF ends mail data. A message with a bare CR, a bare LF or a NUL is never relayed: an end of data that
//! one server recognises and the next does not is how messages are smuggled. Lines may have any length.
//!
//! The scanner never copies: it reports how much of the buffer is mail data in wire form, and where the stuffed dots
//! are. What may turn out to be the end (CR, `.`, `.` CR) stays unconsumed in the caller's buffer.

use std::sync::LazyLock;

use memchr::memchr3;
use memchr::memmem::Finder;

/// Built once: building it costs as much as a search.
static LINE_DOT: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(b"\r\n."));
static LF_DOT: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(b"\n."));

/// Why a message cannot be relayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A CR without LF.
    #[error("a bare CR")]
    BareCr,
    /// A LF without CR.
    #[error("a bare LF")]
    BareLf,
    /// A NUL.
    #[error("a NUL")]
    Nul,
}

/// The result of scanning the buffered octets.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// The number of octets at the front that are mail data in wire form (still dot-stuffed), without the terminator.
    pub wire: usize,
    /// The octets to drop from the front, including the terminator if it was found.
    pub consumed: usize,
    /// Offsets in the wire octets of the dots added by stuffing, ascending.
    pub stuffed: Vec<usize>,
    /// Whether the end of the mail data was found.
    pub ended: bool,
}

impl Scan {
    /// Returns the content (unstuffed) as non-empty slices of `input`, which must be what was scanned.
    pub fn content<'a>(&'a self, input: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let mut begin = 0;
        let ends = self.stuffed.iter().copied().chain([self.wire]);
        ends.filter_map(move |end| {
            let slice = input.get(begin..end);
            begin = end + 1;
            slice.filter(|slice| !slice.is_empty())
        })
    }
}

/// Scans what follows DATA.
#[derive(Debug)]
pub struct DotScanner {
    /// Whether a dot coming next would begin a line: after CRLF, or as the very first octet.
    at_line_start: bool,
    tolerates_bare_lf: bool,
    fault: Option<Fault>,
}

impl Default for DotScanner {
    fn default() -> Self {
        Self::new()
    }
}

impl DotScanner {
    /// Starts before the first octet.
    pub const fn new() -> Self {
        Self { at_line_start: true, tolerates_bare_lf: false, fault: None }
    }

    /// Starts before the first octet of content whose bare LFs will be mended: they are no fault, begin no line and end
    /// nothing.
    pub const fn tolerating_bare_lf() -> Self {
        Self { tolerates_bare_lf: true, ..Self::new() }
    }

    /// Scans `input`, which has all octets not yet consumed. After a fault it still looks for the end.
    ///
    /// Consumes nothing if `input` is empty or consists only of what cannot be decided yet.
    pub fn scan(&mut self, input: &[u8]) -> Scan {
        // Nearly all content is sound: then only a dot after CRLF matters, and there is no need to go through its
        // lines.
        if is_sound(input) { self.scan_by(input, next_dot) } else { self.scan_by(input, next_newline) }
    }

    /// `next` finds the next octet of interest; `None` if there is none.
    fn scan_by(&mut self, input: &[u8], next: impl Fn(&[u8]) -> Option<usize>) -> Scan {
        let mut stuffed = Vec::new();
        let mut position = 0;
        loop {
            let rest = &input[position..];
            if self.at_line_start && rest.first() == Some(&b'.') {
                match rest {
                    [_, b'\r', b'\n', ..] => {
                        return Scan { wire: position, consumed: position + 3, stuffed, ended: true };
                    }
                    [_] | [_, b'\r'] => break,
                    _ => stuffed.push(position),
                }
            }
            let Some(offset) = next(rest) else {
                self.at_line_start &= rest.is_empty();
                position = input.len();
                break;
            };
            position += offset;
            match &input[position..] {
                [b'\r', b'\n', ..] => {
                    position += 2;
                    self.at_line_start = true;
                }
                [b'\r'] => break,
                [octet, ..] => {
                    if !(self.tolerates_bare_lf && *octet == b'\n') {
                        self.fault = self.fault.or(Some(fault_of(*octet)));
                    }
                    position += 1;
                    self.at_line_start = false;
                }
                [] => break,
            }
        }
        Scan { wire: position, consumed: position, stuffed, ended: false }
    }

    /// Returns the first fault so far. A message with a fault must not be relayed.
    pub const fn fault(&self) -> Option<Fault> {
        self.fault
    }
}

/// Whether every CR is followed by LF, every LF preceded by CR, and there is no NUL; a CR at the end is left open.
fn is_sound(input: &[u8]) -> bool {
    /// Octets examined without a branch, so that the compiler can vectorise; a fault ends the search early.
    const BLOCK: usize = 1024;
    let Some(behind) = input.get(1..) else { return true };
    let pairs = input.chunks(BLOCK).zip(behind.chunks(BLOCK));
    let mut sound = input[0] != b'\n' && input[input.len() - 1] != 0;
    for (octets, followers) in pairs {
        let unsound = octets.iter().zip(followers).fold(false, |unsound, (octet, follower)| {
            unsound | (*octet == 0) | ((*octet == b'\r') != (*follower == b'\n'))
        });
        sound &= !unsound;
        if !sound {
            break;
        }
    }
    sound
}

/// Finds the next octet that may be a fault or the end of a line.
fn next_newline(rest: &[u8]) -> Option<usize> {
    memchr3(b'\r', b'\n', 0, rest)
}

/// Finds the next CRLF in sound content that is followed by a dot or ends the content so far.
fn next_dot(rest: &[u8]) -> Option<usize> {
    LINE_DOT.find(rest).or(match rest {
        [before @ .., b'\r', b'\n'] | [before @ .., b'\r'] => Some(before.len()),
        _ => None,
    })
}

const fn fault_of(octet: u8) -> Fault {
    match octet {
        b'\r' => Fault::BareCr,
        b'\n' => Fault::BareLf,
        _ => Fault::Nul,
    }
}

/// Checks content that came by BDAT (ended by its length, not by a dot) for the same faults, however it is split.
#[derive(Debug, Default)]
pub struct ContentChecker {
    after_cr: bool,
    tolerates_bare_lf: bool,
    fault: Option<Fault>,
}

impl ContentChecker {
    /// Checks content whose bare LFs will be mended.
    pub fn tolerating_bare_lf() -> Self {
        Self { tolerates_bare_lf: true, ..Self::default() }
    }

    /// Checks the next octets.
    pub fn check(&mut self, octets: &[u8]) {
        if self.fault.is_some() || octets.is_empty() {
            return;
        }
        let mut rest = octets;
        if std::mem::take(&mut self.after_cr) {
            match octets {
                [b'\n', after @ ..] => rest = after,
                _ => self.fault = Some(Fault::BareCr),
            }
        }
        while let Some(offset) = memchr3(b'\r', b'\n', 0, rest) {
            match &rest[offset..] {
                [b'\r', b'\n', after @ ..] => rest = after,
                [b'\r'] => {
                    self.after_cr = true;
                    return;
                }
                [b'\n', after @ ..] if self.tolerates_bare_lf => rest = after,
                [octet, ..] => {
                    self.fault = self.fault.or(Some(fault_of(*octet)));
                    return;
                }
                [] => return,
            }
        }
    }

    /// Returns the first fault, whatever follows.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Returns the first fault once nothing follows (a CR at the very end is bare).
    pub fn finish(&self) -> Option<Fault> {
        self.fault.or_else(|| self.after_cr.then_some(Fault::BareCr))
    }
}

/// Dot-stuffs content for DATA, however it is split, and knows how to end it.
#[derive(Debug)]
pub struct DotStuffer {
    position: Position,
}

/// The position in a line of the next octet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    Start,
    AfterCr,
    Inside,
}

impl Default for DotStuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl DotStuffer {
    /// Starts before the first octet.
    pub const fn new() -> Self {
        Self { position: Position::Start }
    }

    /// Appends `content`, stuffed, to `out`.
    pub fn stuff(&mut self, content: &[u8], out: &mut Vec<u8>) {
        let Some(last) = content.len().checked_sub(1) else { return };
        out.reserve(content.len());
        if self.position == Position::Start && content[0] == b'.' {
            out.push(b'.');
        }
        let follows_cr = |lf: usize| match lf.checked_sub(1) {
            Some(before) => content[before] == b'\r',
            None => self.position == Position::AfterCr,
        };
        let mut copied = 0;
        // A LF with a dot after it is rarer than a LF.
        for lf in LF_DOT.find_iter(content) {
            if follows_cr(lf) {
                out.extend_from_slice(&content[copied..=lf]);
                out.push(b'.');
                copied = lf + 1;
            }
        }
        out.extend_from_slice(&content[copied..]);
        self.position = match content[last] {
            b'\n' if follows_cr(last) => Position::Start,
            b'\r' => Position::AfterCr,
            _ => Position::Inside,
        };
    }

    /// Returns the terminator: `.CRLF` if the content is empty or ended with CRLF, else `CRLF.CRLF`.
    pub fn terminator(self) -> &'static [u8] {
        if self.position == Position::Start { b".\r\n" } else { b"\r\n.\r\n" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::newline::Normalizer;
    use proptest::prelude::*;

    /// What a scanner made of the pieces.
    #[derive(Debug, Default, PartialEq)]
    struct Outcome {
        content: Vec<u8>,
        wire: Vec<u8>,
        ended: bool,
        fault: Option<Fault>,
        left: Vec<u8>,
    }

    fn scan(pieces: &[&[u8]]) -> Outcome {
        let mut scanner = DotScanner::new();
        let mut outcome = Outcome::default();
        for piece in pieces {
            outcome.left.extend_from_slice(piece);
            if outcome.ended {
                continue;
            }
            let scan = scanner.scan(&outcome.left);
            assert!(scan.stuffed.is_sorted() && scan.stuffed.iter().all(|&dot| dot < scan.wire));
            outcome.content.extend(scan.content(&outcome.left).flatten());
            outcome.wire.extend_from_slice(&outcome.left[..scan.wire]);
            outcome.ended = scan.ended;
            outcome.left.drain(..scan.consumed);
            assert!(outcome.ended || outcome.left.len() <= 2, "held back: {:?}", outcome.left);
        }
        outcome.fault = scanner.fault();
        outcome
    }

    /// Cuts `octets` at the `cuts`.
    fn pieces<'a>(octets: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(octets.len() + 1)).collect();
        cuts.extend([0, octets.len()]);
        cuts.sort_unstable();
        cuts.windows(2).map(|cut| &octets[cut[0]..cut[1]]).collect()
    }

    fn stuffed(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut stuffer, mut out) = (DotStuffer::new(), Vec::new());
        for piece in pieces {
            stuffer.stuff(piece, &mut out);
        }
        out.extend_from_slice(stuffer.terminator());
        out
    }

    fn checked(pieces: &[&[u8]]) -> Option<Fault> {
        let mut checker = ContentChecker::default();
        pieces.iter().for_each(|piece| checker.check(piece));
        checker.finish()
    }

    #[test]
    fn ends() {
        for (input, content, left) in [
            (".\r\n", "", ""), // an empty message
            ("\r\n.\r\n", "\r\n", ""),
            ("a\r\n.\r\nQUIT\r\n", "a\r\n", "QUIT\r\n"),
            ("..\r\n.\r\n", ".\r\n", ""), // RFC 5321 4.5.2
            (".a\r\n...\r\n.\r\n", "a\r\n..\r\n", ""),
            ("a.\r\n.b.\r\n\r\n..\r\n.\r\n.\r\n", "a.\r\nb.\r\n\r\n.\r\n", ".\r\n"),
        ] {
            let outcome = scan(&[input.as_bytes()]);
            assert!(outcome.ended, "{input:?}");
            assert_eq!(outcome.content.escape_ascii().to_string(), content.escape_default().to_string());
            assert_eq!(outcome.left, left.as_bytes(), "{input:?}");
            assert_eq!(outcome.fault, None, "{input:?}");
        }
    }

    #[test]
    fn what_cannot_be_decided_is_held_back() {
        for (input, wire) in [
            ("", 0),
            (".", 0),
            (".\r", 0),
            ("a\r", 1),
            ("a\r\n", 3),
            ("a\r\n.", 3),
            ("a\r\n.\r", 3),
            ("a.", 2),
            ("a.\r", 2),
        ] {
            let scan = DotScanner::new().scan(input.as_bytes());
            assert_eq!((scan.wire, scan.consumed, scan.ended), (wire, wire, false), "{input:?}");
        }
    }

    #[test]
    fn smuggling() {
        // What some server has taken for an end of data: each is a fault and none is an end (CVE-2023-51764 and its
        // kin).
        for (fake, fault) in [
            ("\n.\n", Fault::BareLf),
            ("\n.\r\n", Fault::BareLf),
            ("\r\n.\n", Fault::BareLf),
            ("\r.\r", Fault::BareCr),
            ("\r.\n", Fault::BareCr),
            ("\r.\r\n", Fault::BareCr),
            ("\r\n.\r", Fault::BareCr),
            ("\n.\r", Fault::BareLf),
            ("\r\r\n.\r\r\n", Fault::BareCr),
            ("\r\n.\r\r\n", Fault::BareCr),
            ("\n\n.\r\n", Fault::BareLf),
            ("\r\n\0.\r\n", Fault::Nul),
            ("\r\n.\0\r\n", Fault::Nul),
            ("\r\n.\r\0\n", Fault::BareCr),
            ("\r\0\n.\r\n", Fault::BareCr),
            ("\0\r\n.\0", Fault::Nul),
        ] {
            for before in ["", "a", "a\r\n"] {
                let input = format!("{before}{fake}MAIL FROM:<a@b>\r\n.\r\n");
                let outcome = scan(&[input.as_bytes()]);
                assert!(outcome.ended, "{input:?}");
                assert_eq!(outcome.left, b"", "{input:?} ended too early");
                assert_eq!(outcome.fault, Some(fault), "{input:?}");
            }
        }
        // Dots without any meaning.
        for input in ["a.\r\nb\r\n", "a .\r\n", "\r\n .\r\n", "\r\n..\r\n", "\r\n.a\r\n", "\r\n. \r\n"] {
            let outcome = scan(&[input.as_bytes()]);
            assert!(!outcome.ended && outcome.fault.is_none() && outcome.left.is_empty(), "{input:?}");
        }
    }

    #[test]
    fn stuffing() {
        for (content, expected) in [
            ("", ".\r\n"),
            ("a", "a\r\n.\r\n"),
            ("a\r\n", "a\r\n.\r\n"),
            (".", "..\r\n.\r\n"),
            (".\r\n", "..\r\n.\r\n"),
            ("a\r\n.\r\nb\r\n", "a\r\n..\r\nb\r\n.\r\n"),
            ("a.b\r\n", "a.b\r\n.\r\n"),
            ("a\n.b\r\n", "a\n.b\r\n.\r\n"), // a bare LF begins no line: whoever unstuffs takes no dot off
            ("\r\n", "\r\n.\r\n"),
        ] {
            let out = stuffed(&[content.as_bytes()]);
            assert_eq!(out.escape_ascii().to_string(), expected.escape_default().to_string());
        }
    }

    #[test]
    fn faults_of_bdat() {
        for (content, expected) in [
            ("", None),
            ("a\r\n.\r\nb", None), // a dot means nothing here
            ("a\r", Some(Fault::BareCr)),
            ("a\rb\n", Some(Fault::BareCr)),
            ("a\n\0", Some(Fault::BareLf)),
            ("\0\n", Some(Fault::Nul)),
        ] {
            assert_eq!(checked(&[content.as_bytes()]), expected, "{content:?}");
        }
    }

    #[test]
    fn where_bare_lf_is_mended() {
        for (content, fault) in [
            ("a\nb\n", None),
            ("\n.\n", None),
            ("a\n\rb", Some(Fault::BareCr)),
            ("a\n\0", Some(Fault::Nul)),
            ("\r\r\n", Some(Fault::BareCr)),
        ] {
            let mut checker = ContentChecker::tolerating_bare_lf();
            checker.check(content.as_bytes());
            assert_eq!(checker.finish(), fault, "{content:?}");
            let mut scanner = DotScanner::tolerating_bare_lf();
            let input = format!("{content}\r\n.\r\nNOOP\r\n");
            let scan = scanner.scan(input.as_bytes());
            // Only CRLF.CRLF is the end, all the same.
            assert_eq!((scan.ended, input.len() - scan.consumed), (true, "NOOP\r\n".len()), "{content:?}");
            assert_eq!(scanner.fault(), fault, "{content:?}");
        }
        let mut scanner = DotScanner::tolerating_bare_lf();
        let input = b"a\n.\r\nb\n..c\r\n.\n";
        let scan = scanner.scan(input);
        assert!(!scan.ended && scan.stuffed == [12], "{scan:?}");
    }

    /// RFC 5321 4.5.2 speaks of lines as transferred: only CRLF ends one, even if bare LFs will be mended. So a dot
    /// after a bare LF is content: a sender that writes bare LFs and stuffs dots gets one too many, and nobody gets one
    /// too few.
    #[test]
    fn dots_behind_a_bare_lf_that_is_mended() {
        for (input, mended, wire) in [
            ("a\n..\r\n.\r\n", "a\r\n..\r\n", "a\r\n...\r\n.\r\n"),
            ("a\n..\nb\r\n.\r\n", "a\r\n..\r\nb\r\n", "a\r\n...\r\nb\r\n.\r\n"),
            ("a\n.\r\n.\r\n", "a\r\n.\r\n", "a\r\n..\r\n.\r\n"),
            ("a\n.\n.\r\nb\r\n.\r\n", "a\r\n.\r\n.\r\nb\r\n", "a\r\n..\r\n..\r\nb\r\n.\r\n"),
            // A line that begins with a dot and continues with a LF.
            ("a\r\n.\nb\r\n.\r\n", "a\r\n\r\nb\r\n", "a\r\n\r\nb\r\n.\r\n"),
            (".\n.\r\n\r\n.\r\n", "\r\n.\r\n\r\n", "\r\n..\r\n\r\n.\r\n"),
        ] {
            let mut scanner = DotScanner::tolerating_bare_lf();
            let scan = scanner.scan(input.as_bytes());
            assert!(scan.ended && scan.consumed == input.len() && scanner.fault().is_none(), "{input:?}");
            let (mut normalizer, mut content) = (Normalizer::default(), Vec::new());
            scan.content(input.as_bytes()).for_each(|piece| normalizer.push(piece, &mut content));
            assert_eq!(content.escape_ascii().to_string(), mended.escape_default().to_string(), "{input:?}");
            assert_eq!(stuffed(&[&content]).escape_ascii().to_string(), wire.escape_default().to_string());
        }
    }

    fn faultless() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(&["\r\n", ".", "a", "..", "bc"][..]), 0..24)
            .prop_map(|words| words.concat().into_bytes())
    }

    fn anything() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(
            prop::sample::select(&["\r\n", "\r\n.", ".\r\n", ".", "\r", "\n", "\0", "a"][..]),
            0..24,
        )
        .prop_map(|words| words.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn scanning_undoes_stuffing(content in faultless(), cuts: Vec<prop::sample::Index>, later: Vec<prop::sample::Index>) {
            let wire = stuffed(&pieces(&content, &cuts));
            prop_assert_eq!(&wire, &stuffed(&[&content]));
            let outcome = scan(&pieces(&wire, &later));
            prop_assert!(outcome.ended && outcome.left.is_empty());
            prop_assert_eq!(outcome.fault, None);
            prop_assert_eq!(&outcome.wire, &wire[..wire.len() - 3]);
            let mut expected = content;
            if !expected.is_empty() && !expected.ends_with(b"\r\n") {
                expected.extend_from_slice(b"\r\n");
            }
            prop_assert_eq!(outcome.content, expected);
        }

        #[test]
        fn any_split_scans_the_same(input in anything(), cuts: Vec<prop::sample::Index>) {
            prop_assert_eq!(scan(&pieces(&input, &cuts)), scan(&[&input]));
        }

        /// Sound content is examined less closely, with the same result; also across the bounds of blocks.
        #[test]
        fn a_quick_look_sees_the_same(input in anything(), filler in 0..2_100_usize, start: bool) {
            let input = [&b"x".repeat(filler)[..], &input, &b"y".repeat(filler % 7)].concat();
            let scanner = || DotScanner { at_line_start: start, ..DotScanner::new() };
            let (mut quick, mut close) = (scanner(), scanner());
            let scan = quick.scan(&input);
            prop_assert_eq!(&scan, &close.scan_by(&input, next_newline));
            prop_assert_eq!(quick.fault(), close.fault());
            // A CR at the end is judged when the next octet is seen.
            if input.get(scan.consumed) != Some(&b'\r') {
                prop_assert_eq!(quick.at_line_start, close.at_line_start);
            }
        }

        #[test]
        fn the_end_is_the_first_crlf_dot_crlf(input in anything()) {
            let framed = [b"\r\n", &input[..]].concat();
            let expected = framed.windows(5).position(|window| window == b"\r\n.\r\n").map(|at| at + 3);
            let outcome = scan(&[&input]);
            prop_assert_eq!(outcome.ended.then(|| input.len() - outcome.left.len()), expected);
            // Passed on unchanged, it cannot end earlier for the upstream either.
            let wire = [&outcome.wire[..], b".\r\n"].concat();
            if outcome.ended {
                prop_assert_eq!(scan(&[&wire]).left, b"");
            }
        }

        #[test]
        fn any_split_checks_the_same(content in anything(), cuts: Vec<prop::sample::Index>) {
            prop_assert_eq!(checked(&pieces(&content, &cuts)), checked(&[&content]));
            let stuffed = stuffed(&[&content]);
            // A CR at the very end is bare; stuffing ends its line.
            if !content.ends_with(b"\r") {
                prop_assert_eq!(scan(&[&stuffed]).fault, checked(&[&content]));
            }
        }
    }
}
