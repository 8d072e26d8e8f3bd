//! Splits octets into command lines. Only CRLF ends a line (RFC 5321 2.3.8).
//!
//! A line with a bare CR, a bare LF or a NUL is one faulty line up to its CRLF, never two. An over-long line is dropped
//! as it comes, so that nobody can make the buffer grow.

use memchr::{memchr_iter, memchr3};

/// What is at the front of the buffered octets.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// No complete line yet; `consumed` octets can be dropped (the inside of an over-long line).
    Incomplete {
        /// The octets to drop from the front.
        consumed: usize,
    },
    /// A line, without its CRLF.
    Line {
        /// The line's octets.
        line: &'a [u8],
        /// The octets to drop from the front.
        consumed: usize,
    },
    /// The end of a line that was longer than the limit; its octets are gone.
    TooLong {
        /// The octets to drop from the front.
        consumed: usize,
    },
    /// The end of a line that contains a bare CR, a bare LF or a NUL.
    Faulty {
        /// The octets to drop from the front.
        consumed: usize,
    },
}

/// Splits lines. Remembers only whether it is inside an over-long line.
#[derive(Debug, Default)]
pub struct Framer {
    overflowing: bool,
}

impl Framer {
    /// Examines the front of `buffered`; a line may have `limit` octets including its CRLF.
    pub fn frame<'a>(&mut self, buffered: &'a [u8], limit: usize) -> Frame<'a> {
        let Some(end) = find_crlf(buffered) else { return self.incomplete(buffered, limit) };
        let consumed = end + 2;
        if std::mem::take(&mut self.overflowing) || consumed > limit {
            return Frame::TooLong { consumed };
        }
        let line = &buffered[..end];
        if memchr3(b'\r', b'\n', 0, line).is_some() {
            return Frame::Faulty { consumed };
        }
        Frame::Line { line, consumed }
    }

    fn incomplete(&mut self, buffered: &[u8], limit: usize) -> Frame<'static> {
        self.overflowing |= buffered.len() >= limit;
        if !self.overflowing {
            return Frame::Incomplete { consumed: 0 };
        }
        // A CR at the end may be half of the CRLF.
        let half = usize::from(buffered.last() == Some(&b'\r'));
        Frame::Incomplete { consumed: buffered.len() - half }
    }

    /// Whether octets of an unfinished over-long line have been dropped.
    pub fn is_overflowing(&self) -> bool {
        self.overflowing
    }
}

/// Returns where the first CRLF begins.
fn find_crlf(octets: &[u8]) -> Option<usize> {
    memchr_iter(b'\n', octets).filter_map(|lf| lf.checked_sub(1)).find(|&cr| octets[cr] == b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, PartialEq)]
    enum Event {
        Line(Vec<u8>),
        TooLong,
        Faulty,
    }

    /// Feeds the pieces in order; returns the events and what is left over.
    fn run(pieces: &[&[u8]], limit: usize) -> (Vec<Event>, Vec<u8>) {
        let mut framer = Framer::default();
        let (mut events, mut buffer) = (Vec::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                let (event, consumed) = match framer.frame(&buffer, limit) {
                    Frame::Incomplete { consumed } => (None, consumed),
                    Frame::Line { line, consumed } => (Some(Event::Line(line.to_vec())), consumed),
                    Frame::TooLong { consumed } => (Some(Event::TooLong), consumed),
                    Frame::Faulty { consumed } => (Some(Event::Faulty), consumed),
                };
                buffer.drain(..consumed);
                assert!(buffer.len() < limit || event.is_some(), "the buffer grows");
                match event {
                    Some(event) => events.push(event),
                    None => break,
                }
            }
        }
        (events, buffer)
    }

    #[test]
    fn lines() {
        let line = |text: &str| Event::Line(text.into());
        for (input, events, left) in [
            ("NOOP\r\nQU", vec![line("NOOP")], "QU"),
            ("\r\n\r\n", vec![line(""), line("")], ""),
            ("\n\r\n", vec![Event::Faulty], ""),
            ("NO\nQUIT\r\nRSET\r\n", vec![Event::Faulty, line("RSET")], ""), // one line, not two
            ("NO\rOP\r\n", vec![Event::Faulty], ""),
            ("NOOP\r\r\n", vec![Event::Faulty], ""),
            ("NO\0OP\r\n", vec![Event::Faulty], ""),
            ("12345678\r\n", vec![line("12345678")], ""), // the limit to the octet
            ("123456789\r\nNOOP\r\n", vec![Event::TooLong, line("NOOP")], ""),
            ("1234\n6789abc\rdef\r\nNOOP\r\n", vec![Event::TooLong, line("NOOP")], ""),
            ("123456789\r", vec![], "\r"),
            ("1234", vec![], "1234"),
        ] {
            assert_eq!(run(&[input.as_bytes()], 10), (events, left.into()), "{input:?}");
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_frames(input in "[ab\r\n\x00]{0,40}|([a]{0,12}\r\n){0,6}", at: Vec<prop::sample::Index>) {
            let input = input.as_bytes();
            let mut cuts: Vec<usize> = at.iter().map(|index| index.index(input.len() + 1)).collect();
            cuts.extend([0, input.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &input[cut[0]..cut[1]]).collect();
            prop_assert_eq!(run(&pieces, 10), run(&[input], 10));
        }
    }
}
