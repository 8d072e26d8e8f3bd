//! The header section of a message as it streams past (RFC 5322 2.2): collected up to a limit, examined, and rewritten
//! only by dropping whole fields.
//!
//! The scan is tolerant, since devices write bad headers: a line that is neither a field nor a continuation ends
//! nothing.

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use memchr::{memchr, memchr2};

/// The end of a line and an empty one.
const EMPTY: &[u8] = b"\r\n\r\n";

/// Built once: building it costs as much as a search.
static EMPTY_LINE: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(EMPTY));

/// Collects content up to the empty line that ends the header section.
#[derive(Debug)]
pub struct HeaderCollector {
    octets: Vec<u8>,
    limit: usize,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Collecting,
    Complete,
    TooLong,
}

/// The result of a push.
#[derive(Debug, PartialEq, Eq)]
pub enum Collected {
    /// The header section continues.
    More,
    /// It is complete: this many octets of the pushed content belong to it (including the empty line), the rest is
    /// body.
    Complete {
        /// The number of octets taken.
        taken: usize,
    },
    /// It exceeds the limit.
    TooLong,
}

impl HeaderCollector {
    /// Accepts a header section of at most `limit` octets, including its empty line.
    pub const fn new(limit: usize) -> Self {
        Self { octets: Vec::new(), limit, state: State::Collecting }
    }

    /// Takes the next octets of the content (unstuffed).
    pub fn push(&mut self, content: &[u8]) -> Collected {
        match self.state {
            State::Collecting => {}
            State::Complete => return Collected::Complete { taken: 0 },
            State::TooLong => return Collected::TooLong,
        }
        // Only the header section is copied: the body may be much larger.
        let room = self.limit - self.octets.len();
        let front = &content[..content.len().min(room)];
        if let Some(taken) = self.end_in(front) {
            self.octets.extend_from_slice(&front[..taken]);
            self.state = State::Complete;
            return Collected::Complete { taken };
        }
        self.octets.extend_from_slice(front);
        if content.len() > room {
            self.state = State::TooLong;
            return Collected::TooLong;
        }
        Collected::More
    }

    /// How many octets have been collected.
    pub fn len(&self) -> usize {
        self.octets.len()
    }

    /// Whether nothing has been collected.
    pub fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    /// How many octets of what comes next belong to the header section, if its empty line ends there.
    fn end_in(&self, next: &[u8]) -> Option<usize> {
        // The first line of all may be empty; later ones follow another CRLF, and all but the last octet may be here.
        let begins = |before: &[u8], rest: &[u8]| self.octets == before && next.starts_with(rest);
        let first = if begins(b"\r", b"\n") { Some(1) } else { begins(b"", b"\r\n").then_some(2) };
        let across = || {
            (1..EMPTY.len()).find(|taken| {
                let (before, rest) = EMPTY.split_at(EMPTY.len() - taken);
                self.octets.ends_with(before) && next.starts_with(rest)
            })
        };
        first.or_else(across).or_else(|| EMPTY_LINE.find(next).map(|at| at + EMPTY.len()))
    }

    /// Ends the header section: at the empty line, or at the end of a message without one.
    pub fn finish(self) -> Header {
        Header { octets: self.octets }
    }
}

/// A complete header section, verbatim.
#[derive(Debug, Clone)]
pub struct Header {
    octets: Vec<u8>,
}

impl Header {
    /// The octets as they arrived, with the empty line if there was one.
    pub fn as_bytes(&self) -> &[u8] {
        &self.octets
    }

    /// Returns the unfolded value of the first field with this name (case-insensitive), trimmed; invalid UTF-8 becomes
    /// U+FFFD.
    pub fn value(&self, name: &str) -> Option<String> {
        self.values(name).next()
    }

    /// As [`Self::value`], for every field with this name in order.
    pub fn values(&self, name: &str) -> impl Iterator<Item = String> {
        self.fields().filter(move |field| field.is_named(name)).map(Field::unfolded)
    }

    /// Whether a field has this name.
    pub fn has(&self, name: &str) -> bool {
        self.fields().any(|field| field.is_named(name))
    }

    /// How many fields have this name.
    pub fn count(&self, name: &str) -> usize {
        self.fields().filter(|field| field.is_named(name)).count()
    }

    /// Returns the header section without the fields of these names, as non-empty slices in order. `X-Foo :` (a blank
    /// before the colon, RFC 5322 4.5) is the same name.
    pub fn without(&self, names: &[&str]) -> Vec<&[u8]> {
        let mut kept = Vec::new();
        let (mut begin, mut end) = (0, 0);
        for field in self.fields() {
            let next = end + field.0.len();
            if names.iter().any(|name| field.is_named(name)) {
                kept.push(&self.octets[begin..end]);
                begin = next;
            }
            end = next;
        }
        kept.push(&self.octets[begin..]);
        kept.retain(|slice| !slice.is_empty());
        kept
    }

    /// The fields, without gaps: what is between them is returned as if it were a field.
    fn fields(&self) -> Fields<'_> {
        Fields(&self.octets)
    }
}

/// The fields that are left.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    #[inline(never)] // see "The code of a message" in docs/performance.md
    fn next(&mut self) -> Option<Field<'a>> {
        let mut length = line_length(self.0);
        while matches!(self.0.get(length), Some(b' ' | b'\t')) {
            length += line_length(&self.0[length..]);
        }
        let (field, after) = self.0.split_at(length);
        self.0 = after;
        (!field.is_empty()).then_some(Field(field))
    }
}

/// Returns the length of the first line with its LF. A bare LF, which only BODY=BINARYMIME lets through, ends a line
/// too, so that what the next server might take for a field of ours is dropped.
fn line_length(octets: &[u8]) -> usize {
    memchr(b'\n', octets).map_or(octets.len(), |lf| lf + 1)
}

/// A field with its continuation lines, or a line that is not a field.
#[derive(Clone, Copy)]
struct Field<'a>(&'a [u8]);

impl<'a> Field<'a> {
    fn colon(self) -> usize {
        memchr(b':', self.0).unwrap_or(self.0.len())
    }

    fn is_named(self, name: &str) -> bool {
        // Nearly all fields begin with another letter.
        let first = self.0.first().zip(name.as_bytes().first());
        first.is_some_and(|(front, letter)| front.eq_ignore_ascii_case(letter)) && self.has_name(name)
    }

    #[inline(never)] // see "The code of a message" in docs/performance.md
    fn has_name(self, name: &str) -> bool {
        let Some((front, rest)) = self.0.split_at_checked(name.len()) else { return false };
        front.eq_ignore_ascii_case(name.as_bytes())
            && rest.iter().find(|octet| !octet.is_ascii_whitespace()) == Some(&b':')
    }

    fn unfolded(self) -> String {
        // RFC 5322 2.2.3: unfolding removes the CRLF and keeps the blank after it.
        let value = self.value();
        let end = value.iter().rposition(|octet| !matches!(octet, b'\r' | b'\n')).map_or(0, |at| at + 1);
        let line = &value[..end];
        let unfolded = match memchr2(b'\r', b'\n', line) {
            None => Cow::Borrowed(line),
            Some(_) => {
                value.split(|octet| matches!(octet, b'\r' | b'\n')).collect::<Vec<_>>().concat().into()
            }
        };
        String::from_utf8_lossy(&unfolded).trim_matches([' ', '\t']).to_owned()
    }

    /// What follows the colon.
    fn value(self) -> &'a [u8] {
        self.0.get(self.colon() + 1..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn collect(pieces: &[&[u8]], limit: usize) -> (HeaderCollector, Result<Option<usize>, ()>) {
        let mut collector = HeaderCollector::new(limit);
        let mut before = 0;
        for piece in pieces {
            match collector.push(piece) {
                Collected::More => before += piece.len(),
                Collected::Complete { taken } => return (collector, Ok(Some(before + taken))),
                Collected::TooLong => return (collector, Err(())),
            }
        }
        (collector, Ok(None))
    }

    fn header(text: &str) -> Header {
        collect(&[text.as_bytes()], usize::MAX).0.finish()
    }

    #[test]
    fn where_it_ends() {
        for (content, limit, expected) in [
            ("A: 1\r\n\r\nbody\r\n\r\n", 100, Ok(Some(8))),
            ("\r\nbody", 100, Ok(Some(2))), // no header at all
            ("A: 1\r\n", 100, Ok(None)),    // the message may end here
            ("", 100, Ok(None)),
            ("A: 1\n\nB: 2\r\n\r\n", 100, Ok(Some(14))), // CRLF alone ends lines
            ("A: 1\r\n \r\nB: 2\r\n\r\n", 100, Ok(Some(17))), // a line of blanks is no empty line
            ("A: 1\r\n\r\nbody", 8, Ok(Some(8))),
            ("A: 1\r\n\r\nbody", 7, Err(())),
            ("A: 12\r\n", 7, Ok(None)),
            ("A: 12\r\nB", 7, Err(())),
            ("\r\nbody", 1, Err(())),
        ] {
            let (collector, end) = collect(&[content.as_bytes()], limit);
            assert_eq!(end, expected, "{content:?}");
            if let Ok(end) = end {
                let end = end.unwrap_or(content.len());
                assert_eq!(collector.finish().as_bytes(), &content.as_bytes()[..end], "{content:?}");
            }
        }
    }

    #[test]
    fn once_over_it_stays_over() {
        let mut collector = HeaderCollector::new(8);
        assert_eq!(collector.push(b"A: 1234\r\n"), Collected::TooLong);
        assert_eq!(collector.push(b"\r\n"), Collected::TooLong);
        let mut collector = HeaderCollector::new(8);
        assert_eq!(collector.push(b"A: 1\r\n\r\n"), Collected::Complete { taken: 8 });
        assert_eq!(collector.push(b"body"), Collected::Complete { taken: 0 });
        assert_eq!(collector.finish().as_bytes(), b"A: 1\r\n\r\n");
    }

    #[test]
    fn values() {
        let header = header(
            "From someone@example.org Tue Nov 24 16:05:28 2026\r\nSubject: first\r\n  and\r\n\tlast \r\nsubject: second\r\n\
            no field, no continuation\r\nX-Blank \t: a:b\r\nX-Empty:\r\nX-Latin: gr\r\nMessage-ID:\r\n <1@a>\r\n\r\n",
        );
        for (name, value, count) in [
            ("Subject", Some("first  and\tlast"), 2),
            ("SUBJECT", Some("first  and\tlast"), 2),
            ("x-blank", Some("a:b"), 1),
            ("X-Empty", Some(""), 1),
            ("Message-ID", Some("<1@a>"), 1),
            ("From", None, 0), // the mbox line is none
            ("no field, no continuation", None, 0),
            ("", None, 0),
        ] {
            assert_eq!(header.value(name).as_deref(), value, "{name}");
            assert_eq!(header.count(name), count, "{name}");
            assert_eq!(header.has(name), count > 0, "{name}");
        }
        let latin = collect(&[b"Subject: gr\xfcn\r\n\r\n"], 100).0.finish();
        assert_eq!(latin.value("subject").as_deref(), Some("gr\u{fffd}n"));
    }

    #[test]
    fn dropping_fields() {
        for (text, expected) in [
            ("A: 1\r\nX: 2\r\nB: 3\r\n\r\n", &["A: 1\r\n", "B: 3\r\n\r\n"][..]),
            ("x: 1\r\n 2\r\n\t3\r\nA: 1\r\n", &["A: 1\r\n"]), // with its continuation lines
            ("A: 1\r\nX \t: 2\r\n\r\n", &["A: 1\r\n", "\r\n"]), // RFC 5322 4.5
            ("X: 1\r\nY: 2\r\nX: 3\r\n\r\n", &["\r\n"]),
            ("X: 1\r\nA: 2\r\n X: 3\r\n\r\n", &["A: 2\r\n X: 3\r\n\r\n"]), // a continuation is no field
            ("XX: 1\r\nX\r\n\r\n", &["XX: 1\r\nX\r\n\r\n"]),
            ("A: 1\nX: 2\r\nB: 3\r\n\r\n", &["A: 1\n", "B: 3\r\n\r\n"]),
            ("X: 1", &[]),
            ("", &[]),
            ("\r\n", &["\r\n"]),
        ] {
            let header = header(text);
            let kept: Vec<&str> = header
                .without(&["X", "Y"])
                .into_iter()
                .map(|slice| std::str::from_utf8(slice).unwrap())
                .collect();
            assert_eq!(kept, expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_split_collects_the_same(words in prop::collection::vec(prop::sample::select(&["\r\n", "\r", "\n", "A: ", "b"][..]), 0..12), cuts: Vec<prop::sample::Index>, limit in 0..20usize) {
            let content = words.concat().into_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(content.len() + 1)).collect();
            cuts.extend([0, content.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &content[cut[0]..cut[1]]).collect();
            let (split, split_end) = collect(&pieces, limit);
            let (whole, whole_end) = collect(&[&content], limit);
            prop_assert_eq!(split_end, whole_end);
            prop_assert_eq!(split.octets, whole.octets);
        }

        #[test]
        fn what_is_kept_has_none_of_them_and_all_else(words in prop::collection::vec(prop::sample::select(&["\r\n", "X", "x: 1\r\n", "A: 2\r\n", " ", ":", "\t"][..]), 0..12)) {
            let header = Header { octets: words.concat().into_bytes() };
            let kept = Header { octets: header.without(&["X"]).concat() };
            prop_assert_eq!(kept.count("X"), 0);
            prop_assert_eq!(kept.count("A"), header.count("A"));
            prop_assert_eq!(header.without(&[]).concat(), header.as_bytes());
        }
    }
}
