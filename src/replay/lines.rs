//! Splits a stream of octets into log lines, in bounded memory for any stream.
//!
//! A line ends with LF; a CR before it, or at the end of the stream, is dropped. A line longer than [`MAX_LINE`] is
//! skipped and reported as such. The last line need not have an end.

use std::io::{self, Read};
use std::ops::Range;

use memchr::memchr;

/// The longest line that is read, in octets: one of Gatepost about a message with 1,000 long addresses fits.
pub const MAX_LINE: usize = 256 * 1024;
/// How much is read at a time.
const PIECE: usize = 64 * 1024;

/// What [`Lines::advance`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A line, which [`Lines::current`] returns.
    Line,
    /// A line longer than [`MAX_LINE`].
    TooLong,
    /// The end of the stream.
    End,
}

/// The lines of a stream.
#[derive(Debug)]
pub struct Lines<R> {
    reader: R,
    buffer: Vec<u8>,
    /// The range of `buffer` that has been read but not returned.
    unread: Range<usize>,
    /// The range of `buffer` with the current line.
    current: Range<usize>,
    ended: bool,
}

impl<R: Read> Lines<R> {
    /// The lines of `reader`, which needs no buffer.
    pub fn new(reader: R) -> Self {
        Self { reader, buffer: vec![0; PIECE], unread: 0..0, current: 0..0, ended: false }
    }

    /// The line that [`Lines::advance`] found, without its end.
    pub fn current(&self) -> &[u8] {
        &self.buffer[self.current.clone()]
    }

    /// Goes to the next line.
    ///
    /// # Errors
    /// The stream cannot be read any further.
    pub fn advance(&mut self) -> io::Result<Found> {
        // How much of `unread` is known to have no LF.
        let mut looked_at = 0;
        let mut too_long = false;
        loop {
            let unread = &self.buffer[self.unread.clone()];
            if let Some(lf) = memchr(b'\n', &unread[looked_at..]).map(|at| looked_at + at) {
                let line = self.unread.start..self.unread.start + lf;
                self.unread.start = line.end + 1;
                return Ok(self.found(line, too_long));
            }
            looked_at = unread.len();
            if looked_at > MAX_LINE {
                too_long = true;
                self.unread.start = self.unread.end;
                looked_at = 0;
            }
            if !self.ended {
                self.fill()?;
            } else if self.unread.is_empty() && !too_long {
                return Ok(Found::End);
            } else {
                let line = self.unread.clone();
                self.unread.start = self.unread.end;
                return Ok(self.found(line, too_long));
            }
        }
    }

    fn found(&mut self, line: Range<usize>, too_long: bool) -> Found {
        let has_cr = self.buffer[line.clone()].ends_with(b"\r");
        self.current = line.start..line.end - usize::from(has_cr);
        if too_long || self.current.len() > MAX_LINE { Found::TooLong } else { Found::Line }
    }

    /// Reads once more, appending to what is unread.
    fn fill(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        self.current = 0..0;
        if self.buffer.len() - self.unread.end < PIECE / 2 {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        loop {
            match self.reader.read(&mut self.buffer[self.unread.end..]) {
                Ok(octets) => {
                    self.unread.end += octets;
                    self.ended = octets == 0;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // What was read before is still returned.
                    self.ended = true;
                    return Err(error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Yields `step` octets at a time.
    struct Drip<'a>(&'a [u8], usize);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let most = self.1.min(buffer.len());
            self.0.take(most as u64).read(buffer).inspect(|read| self.0 = &self.0[*read..])
        }
    }

    fn all(octets: &[u8], step: usize) -> Vec<Option<Vec<u8>>> {
        let mut lines = Lines::new(Drip(octets, step));
        let mut found = Vec::new();
        loop {
            match lines.advance().unwrap() {
                Found::Line => found.push(Some(lines.current().to_vec())),
                Found::TooLong => found.push(None),
                Found::End => return found,
            }
            assert!(lines.buffer.len() <= 4 * MAX_LINE);
        }
    }

    #[test]
    fn ends_of_lines() {
        for (octets, expected) in [
            (&b""[..], &[][..]),
            (b"a", &["a"]),
            (b"a\n", &["a"]),
            (b"a\r\n\nb", &["a", "", "b"]),
            (b"a\rb\r\r\nc\r", &["a\rb\r", "c"]),
            (b"\n", &[""]),
        ] {
            let expected: Vec<_> = expected.iter().map(|line| Some(line.as_bytes().to_vec())).collect();
            assert_eq!(all(octets, 1), expected, "{}", octets.escape_ascii());
            assert_eq!(all(octets, 100), expected, "{}", octets.escape_ascii());
        }
    }

    #[test]
    fn long_lines_are_passed_over() {
        let long = |length| vec![b'x'; length];
        for (length, kept) in [(MAX_LINE, true), (MAX_LINE + 1, false), (3 * MAX_LINE + 7, false)] {
            for end in [&b"\n"[..], b"\r\n"] {
                let octets = [b"a\n", &long(length)[..], end, b"b\n"].concat();
                let expected =
                    [Some(b"a".to_vec()), kept.then(|| long(length)), Some(b"b".to_vec())].to_vec();
                assert_eq!(all(&octets, 7_919), expected, "{length}");
            }
            assert_eq!(all(&long(length), 65_536), [kept.then(|| long(length))], "{length} without an end");
        }
    }

    #[test]
    fn what_came_before_a_fault_is_given_out() {
        struct Broken(usize);
        impl Read for Broken {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0 += 1;
                match self.0 {
                    1 => (&b"a\nb"[..]).read(buffer),
                    2 => Err(io::ErrorKind::Interrupted.into()),
                    _ => Err(io::ErrorKind::UnexpectedEof.into()),
                }
            }
        }
        let mut lines = Lines::new(Broken(0));
        assert_eq!(lines.advance().unwrap(), Found::Line);
        assert_eq!(lines.advance().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(lines.advance().unwrap(), Found::Line);
        assert_eq!(lines.current(), b"b");
        assert_eq!(lines.advance().unwrap(), Found::End);
    }

    proptest! {
        #[test]
        fn the_split_does_not_matter(
            octets in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..200),
            step in 1usize..50,
        ) {
            prop_assert_eq!(all(&octets, step), all(&octets, 1_000));
        }
    }
}
