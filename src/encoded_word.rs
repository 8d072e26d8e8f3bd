//! Encoded words (RFC 2047) in the value of a header field, decoded for people to read.
//!
//! The library tries each `=?` with every `?=` after it, and each time counts characters from the start of the line: a
//! hostile line takes time cubic in its length. So values are decoded only as far as that is cheap.

use memchr::memmem;

/// How many octets of a value are decoded. A line has 998 at the most (RFC 5322 2.1.1), a word 75 (RFC 2047 2).
const MAX_DECODED: usize = 2_000;
/// The most steps for one value: some ten milliseconds. The 26 words that fill `MAX_DECODED` take at most 1,500,000.
const MAX_STEPS: u64 = 20_000_000;

/// Decodes the words of a value; what is too long or too costly stays as written.
pub fn decode(value: &str) -> String {
    let (beginning, rest) = value.split_at(beginning_of(value));
    if steps(beginning.as_bytes()) > MAX_STEPS {
        return value.to_owned();
    }
    let field = format!("X: {beginning}");
    match mailparse::parse_header(field.as_bytes()) {
        Ok((header, _)) => header.get_value() + rest,
        Err(_) => value.to_owned(),
    }
}

/// How many steps, at most, the library takes to decode a line.
pub fn steps(line: &[u8]) -> u64 {
    let count = |what| memmem::find_iter(line, what).count() as u64;
    let starts = count(b"=?");
    if starts == 0 {
        return 0;
    }
    let tries = starts.saturating_mul(1 + count(b"?="));
    tries.saturating_mul(line.len() as u64)
}

/// Where the beginning that is decoded ends: at a blank, if there is one, so that no word is cut.
fn beginning_of(value: &str) -> usize {
    if value.len() <= MAX_DECODED {
        return value.len();
    }
    let end = value.floor_char_boundary(MAX_DECODED);
    value[..end].rfind([' ', '\t']).unwrap_or(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_decoded() {
        for (value, expected) in [
            ("", ""),
            ("Plain text", "Plain text"),
            ("=?utf-8?q?Gr=C3=BC=C3=9Fe?=", "Grüße"),
            ("Re: =?utf-8?B?R3LDvMOfZQ==?= an alle", "Re: Grüße an alle"),
            ("=?utf-8?q?one?= =?utf-8?q?_two?=", "one two"), // RFC 2047 6.2: the blank between two goes
            ("=?utf-8?q?open", "=?utf-8?q?open"),
            ("=?x-unknown?q?a?=", "=?x-unknown?q?a?="),
            ("a ?= b =? c", "a ?= b =? c"),
        ] {
            assert_eq!(decode(value), expected, "{value}");
        }
    }

    #[test]
    fn behind_the_beginning_it_stays_as_it_stands() {
        let word = "=?utf-8?q?a=C3=BC_and_some_more?=";
        let long = vec![word; 200].join(" ");
        let decoded = decode(&long);
        let words = MAX_DECODED / (word.len() + 1);
        assert_eq!(decoded, "aü and some more".repeat(words) + &format!(" {word}").repeat(200 - words));
        let text = "ü".repeat(100_000);
        assert_eq!(decode(&text), text, "no blank, and the limit within a character");
    }

    /// Input that took the library hours.
    #[test]
    fn what_is_costly_stays_as_it_stands() {
        for n in [100, 1_000, 43_000] {
            for value in [",=?".repeat(n) + &"?=a".repeat(n), ",=?".repeat(2 * n), "a=?".repeat(2 * n)] {
                let begun = std::time::Instant::now();
                assert_eq!(decode(&value), value);
                assert!(begun.elapsed().as_secs() < 2, "{} octets: {:?}", value.len(), begun.elapsed());
            }
        }
    }
}
