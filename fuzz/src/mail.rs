//! Mail data in both directions, and its header section.

use gatepost::smtp::header::{Collected, Header, HeaderCollector};
use gatepost::smtp::mail_data::{ContentChecker, DotScanner, DotStuffer, Fault};
use gatepost::smtp::newline::Normalizer;

use super::{choice, pieces};

/// What a scanner makes of the octets behind DATA.
#[derive(Debug, PartialEq)]
struct Scanned {
    content: Vec<u8>,
    wire: Vec<u8>,
    ended: bool,
    fault: Option<Fault>,
    left: Vec<u8>,
}

fn scan(data: &[u8], size: usize) -> Scanned {
    scan_with(DotScanner::new(), data, size)
}

fn scan_with(mut scanner: DotScanner, data: &[u8], size: usize) -> Scanned {
    let mut scanned =
        Scanned { content: Vec::new(), wire: Vec::new(), ended: false, fault: None, left: Vec::new() };
    for piece in pieces(data, size) {
        scanned.left.extend_from_slice(piece);
        if scanned.ended {
            continue;
        }
        let scan = scanner.scan(&scanned.left);
        scanned.content.extend(scan.content(&scanned.left).flatten());
        scanned.wire.extend_from_slice(&scanned.left[..scan.wire]);
        scanned.ended = scan.ended;
        scanned.left.drain(..scan.consumed);
        assert!(scanned.ended || scanned.left.len() <= 2, "more is held back than can be an end");
    }
    scanned.fault = scanner.fault();
    scanned
}

/// In: the first CRLF.CRLF and nothing else ends mail data, whatever the split; what has no fault in it and goes out again
/// ends nowhere else, not even for a server that takes a bare CR or LF for a line's end.
pub fn mail_data(data: &[u8]) {
    let (size, data) = choice(data);
    let scanned = scan(data, 0);
    assert_eq!(scanned, scan(data, 1 + size % 9));
    let framed = [b"\r\n", data].concat();
    let end = framed.windows(5).position(|window| window == b"\r\n.\r\n").map(|at| at + 3);
    assert_eq!(scanned.ended.then(|| data.len() - scanned.left.len()), end);
    if scanned.ended && scanned.fault.is_none() {
        let mut out = Vec::new();
        let mut stuffer = DotStuffer::new();
        stuffer.stuff(&scanned.content, &mut out);
        out.extend_from_slice(stuffer.terminator());
        assert_eq!(lenient_end(&out), Some(out.len()), "{}", out.escape_ascii());
    }
}

/// Where bare LFs are mended: the end is the same as where they are not, and what goes out has one end, at its end, for any server.
/// How much of `data` was taken, and whether it may go out; `None`: no end.
pub(super) fn mended(data: &[u8], size: usize) -> Option<(usize, bool)> {
    let strict = scan(data, size);
    let scanned = scan_with(DotScanner::tolerating_bare_lf(), data, size);
    assert_eq!((strict.ended, &strict.left), (scanned.ended, &scanned.left));
    assert_eq!((&strict.content, &strict.wire), (&scanned.content, &scanned.wire));
    if !scanned.ended {
        return None;
    }
    let mut checker = ContentChecker::tolerating_bare_lf();
    pieces(&scanned.content, size).for_each(|piece| checker.check(piece));
    assert_eq!(checker.finish(), scanned.fault);
    if scanned.fault.is_none() {
        let (mut normalizer, mut stuffer) = (Normalizer::default(), DotStuffer::new());
        let (mut content, mut out) = (Vec::new(), Vec::new());
        for piece in pieces(&scanned.content, size) {
            let mut mended = Vec::new();
            normalizer.push(piece, &mut mended);
            stuffer.stuff(&mended, &mut out);
            content.extend(mended);
        }
        out.extend_from_slice(stuffer.terminator());
        assert_eq!(lenient_end(&out), Some(out.len()), "{}", out.escape_ascii());
        // Taken in by the next one it is as it was when it left.
        assert_eq!(scan(&out, 0).content, content);
        assert_eq!(scan(&out, 0).fault, None);
    }
    Some((data.len() - scanned.left.len(), scanned.fault.is_none()))
}

/// Where the most lenient of servers would see the end: a dot alone between any two line ends.
fn lenient_end(wire: &[u8]) -> Option<usize> {
    let mut begin = 0;
    for (at, &octet) in wire.iter().enumerate() {
        if matches!(octet, b'\r' | b'\n') {
            if wire[begin..at] == *b"." {
                return Some(if wire[at..].starts_with(b"\r\n") { at + 2 } else { at + 1 });
            }
            begin = at + 1;
        }
    }
    None
}

/// Out: what is stuffed has one end, at its end, and comes in again as it was; a check of the content finds what the
/// scanner finds.
pub fn stuffing(data: &[u8]) {
    let (size, content) = choice(data);
    let stuffed = |size| {
        let (mut stuffer, mut out) = (DotStuffer::new(), Vec::new());
        pieces(content, size).for_each(|piece| stuffer.stuff(piece, &mut out));
        out.extend_from_slice(stuffer.terminator());
        out
    };
    let checked = |size| {
        let mut checker = ContentChecker::default();
        pieces(content, size).for_each(|piece| checker.check(piece));
        checker.finish()
    };
    let (wire, fault) = (stuffed(0), checked(0));
    assert_eq!((&wire, fault), (&stuffed(1 + size % 9), checked(1 + size % 9)));
    let scanned = scan(&wire, 0);
    assert!(scanned.ended && scanned.left.is_empty(), "{}", wire.escape_ascii());
    // A CR at the very end is bare; stuffing ends its line.
    if !content.ends_with(b"\r") {
        assert_eq!(scanned.fault, fault);
    }
    let ends_line = content.is_empty() || content.ends_with(b"\r\n");
    let expected = if ends_line { content.to_vec() } else { [content, b"\r\n"].concat() };
    assert_eq!(scanned.content, expected);
}

/// The header ends at the first empty line, whatever the split; no value has a line's end in it, and what is taken out is
/// out, and nothing else.
pub fn header(data: &[u8]) {
    let (size, data) = choice(data);
    let (header, taken) = collected(data, 0, 4096);
    let (again, taken_again) = collected(data, 1 + size % 9, 4096);
    assert_eq!((header.as_bytes(), taken), (again.as_bytes(), taken_again));
    let whole = data.get(..taken.unwrap_or(data.len()).min(4096)).unwrap_or_default();
    assert_eq!(header.as_bytes(), whole);
    for name in ["Date", "X-Authenticated-As"] {
        assert_eq!(header.value(name).is_some(), header.count(name) > 0);
        assert!(!header.value(name).unwrap_or_default().contains(['\r', '\n']));
        let kept = header.without(&[name]).concat();
        let (without, _) = collected(&kept, 0, usize::MAX);
        assert_eq!(without.count(name), 0, "{}", kept.escape_ascii());
        assert_eq!(header.count(name) == 0, kept == header.as_bytes());
    }
}

fn collected(data: &[u8], size: usize, limit: usize) -> (Header, Option<usize>) {
    let mut collector = HeaderCollector::new(limit);
    let mut before = 0;
    for piece in pieces(data, size) {
        match collector.push(piece) {
            Collected::More => before += piece.len(),
            Collected::Complete { taken } => return (collector.finish(), Some(before + taken)),
            Collected::TooLong => return (collector.finish(), None),
        }
    }
    (collector.finish(), None)
}
