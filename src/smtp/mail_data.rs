//! Mail data: where it ends, what must not be in it, dot-stuffing (RFC 5321 4.5.2), and its opposite.
//!
//! Only CRLF.CRLF ends mail data. A bare CR, a bare LF or a NUL makes the message one that is never relayed: what one
//! server takes for an end and the next does not is how messages are smuggled. Lines may have any length.
//!
//! A scanner never copies: it says how much of the buffer is mail data in wire form and where in it the stuffed dots
//! are. What may yet turn out to be the end (CR, CRLF., ...) it leaves unconsumed in the caller's buffer.

/// Why a message cannot be relayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// CR without LF.
    #[error("a bare CR")]
    BareCr,
    /// LF without CR.
    #[error("a bare LF")]
    BareLf,
    /// NUL.
    #[error("a NUL")]
    Nul,
}

/// What one look at the buffered octets found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// This many octets at the front are mail data in wire form (still dot-stuffed), terminator left out.
    pub wire: usize,
    /// Octets to drop from the front; with the terminator where it was found.
    pub consumed: usize,
    /// Offsets into the wire octets of dots that stuffing added, ascending.
    pub stuffed: Vec<usize>,
    /// Whether the end of the mail data was found.
    pub ended: bool,
}

impl Scan {
    /// The content (unstuffed) as slices of `input`, which must be what was scanned.
    pub fn content<'a>(&'a self, _input: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        std::iter::empty() // todo
    }
}

/// Scans what follows DATA.
#[derive(Debug)]
pub struct DotScanner {
    // at_line_start, fault: helper A
}

impl DotScanner {
    /// Before the first octet.
    pub fn new() -> Self {
        todo!()
    }

    /// Looks at `input`: all octets not yet consumed, in order. After a fault it goes on to look for the end.
    pub fn scan(&mut self, _input: &[u8]) -> Scan {
        todo!()
    }

    /// The first fault so far. A message with one must not be relayed.
    pub fn fault(&self) -> Option<Fault> {
        todo!()
    }
}

/// Checks content that came by BDAT (where the length, not a dot, ends it) for the same faults, over any splits.
#[derive(Debug, Default)]
pub struct ContentChecker {
    // last octet was CR, fault: helper A
}

impl ContentChecker {
    /// Looks at the next octets.
    pub fn check(&mut self, _octets: &[u8]) {
        todo!()
    }

    /// The first fault, where no octet follows any more (a CR at the very end is bare).
    pub fn finish(&self) -> Option<Fault> {
        todo!()
    }
}

/// Dot-stuffs content for DATA, over any splits, and writes the terminator.
#[derive(Debug)]
pub struct DotStuffer {
    // position in a line: helper A
}

impl DotStuffer {
    /// Before the first octet.
    pub fn new() -> Self {
        todo!()
    }

    /// Appends `content` to `out`, stuffed.
    pub fn stuff(&mut self, _content: &[u8], _out: &mut Vec<u8>) {
        todo!()
    }

    /// Appends the terminator: `.CRLF` where the content ended with CRLF or is empty, else `CRLF.CRLF`.
    pub fn finish(self, _out: &mut Vec<u8>) {
        todo!()
    }
}
