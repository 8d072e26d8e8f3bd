//! xtext (RFC 3461 4): any octets as printable ASCII without blanks, `+` and `=`. XCLIENT values are written in it too.

use std::fmt::Write;

/// Encodes `octets` as xtext.
pub fn encode(octets: &[u8]) -> String {
    let mut out = String::with_capacity(octets.len());
    for &octet in octets {
        if is_xchar(octet) {
            out.push(char::from(octet));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "+{octet:02X}");
        }
    }
    out
}

/// Decodes `text`; `None` if it is not xtext. Hexadecimal digits in lower case are accepted too.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        out.push(match octet {
            b'+' => hexadecimal(octets.next()?)? << 4 | hexadecimal(octets.next()?)?,
            octet if is_xchar(octet) => octet,
            _ => return None,
        });
    }
    Some(out)
}

fn is_xchar(octet: u8) -> bool {
    matches!(octet, b'!'..=b'~') && octet != b'+' && octet != b'='
}

fn hexadecimal(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn examples() {
        for (text, expected) in [
            ("", Some(&b""[..])),
            ("QQ314159", Some(b"QQ314159")),
            ("a+2Bb+3Dc+20d", Some(b"a+b=c d")),
            ("a+2b", Some(b"a+")),
            ("+", None),
            ("+2", None),
            ("+2G", None),
            ("a=b", None),
            ("a b", None),
            ("gr\u{fc}n", None),
        ] {
            assert_eq!(decode(text).as_deref(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn decode_undoes_encode(octets: Vec<u8>) {
            let text = encode(&octets);
            prop_assert!(text.bytes().all(|octet| octet.is_ascii_graphic()));
            prop_assert_eq!(decode(&text), Some(octets));
        }
    }
}
