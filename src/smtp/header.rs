//! The header section of a message as it streams past (RFC 5322 2.2): collected up to its limit, looked at, and
//! rewritten only by dropping whole fields.
//!
//! The scan is tolerant, since devices write bad headers: a line that is no field and no continuation ends nothing.

/// Collects content until the empty line that ends the header section.
#[derive(Debug)]
pub struct HeaderCollector {
    // buffer, limit: helper A
}

/// What a push did.
#[derive(Debug, PartialEq, Eq)]
pub enum Collected {
    /// The header section goes on.
    More,
    /// It is complete; this many octets of the pushed content belong to it (the empty line included), the rest is body.
    Complete {
        /// Octets taken.
        taken: usize,
    },
    /// Longer than the limit.
    TooLong,
}

impl HeaderCollector {
    /// For a header section of at most `limit` octets.
    pub fn new(_limit: usize) -> Self {
        todo!()
    }

    /// Takes the next octets of the content (unstuffed).
    pub fn push(&mut self, _content: &[u8]) -> Collected {
        todo!()
    }

    /// Ends it: at the empty line, or where the message ended without one.
    pub fn finish(self) -> Header {
        todo!()
    }
}

/// A whole header section, verbatim.
#[derive(Debug, Clone)]
pub struct Header {
    octets: Vec<u8>,
}

impl Header {
    /// As it arrived, with the empty line where there was one.
    pub fn as_bytes(&self) -> &[u8] {
        &self.octets
    }

    /// The unfolded value of the first field of that name (without regard to case), blanks at both ends off; octets
    /// that are no UTF-8 become U+FFFD.
    pub fn value(&self, _name: &str) -> Option<String> {
        todo!()
    }

    /// How many fields of that name there are.
    pub fn count(&self, _name: &str) -> usize {
        todo!()
    }

    /// The header section without the fields of these names: borrowed slices of it, in order. `X-Foo :` (a blank before the
    /// colon, RFC 5322 4.5) is the same name.
    pub fn without(&self, _names: &[&str]) -> Vec<&[u8]> {
        todo!()
    }
}
