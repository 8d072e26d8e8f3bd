//! Octets to command lines. CRLF alone ends a line (RFC 5321 2.3.8).

/// What stands at the front of the buffered octets.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// No whole line yet; `consumed` octets are of no further use (the inside of an over-long line).
    Incomplete {
        /// Octets to drop from the front.
        consumed: usize,
    },
    /// A line, without its CRLF.
    Line {
        /// The line.
        line: &'a [u8],
        /// Octets to drop from the front.
        consumed: usize,
    },
    /// The end of a line that was longer than the limit; its octets are gone.
    TooLong {
        /// Octets to drop from the front.
        consumed: usize,
    },
    /// The end of a line with a bare CR, a bare LF or a NUL in it.
    Faulty {
        /// Octets to drop from the front.
        consumed: usize,
    },
}

/// Cuts lines. Remembers only whether it is inside a line that is too long.
#[derive(Debug, Default)]
pub struct Framer {
    overflowing: bool,
}

impl Framer {
    /// Looks at the front of `buffered`; a line may have `limit` octets with its CRLF.
    pub fn frame<'a>(&mut self, _buffered: &'a [u8], _limit: usize) -> Frame<'a> {
        todo!()
    }

    /// Whether octets of an unfinished over-long line were dropped already.
    pub fn is_overflowing(&self) -> bool {
        self.overflowing
    }
}
