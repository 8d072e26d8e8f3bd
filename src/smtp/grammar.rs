//! Recognisers for the terminals of RFC 5321 4.1.2, with the UTF-8 of RFC 6531 3.3: local-parts, domains, address
//! literals.
//!
//! They accept or reject a text, and never change it. A U-label is any label of letters, digits, hyphens and visible
//! non-ASCII characters: whether IDNA2008 allows it is for the upstream to say.

use std::net::Ipv6Addr;

use memchr::memchr;

/// Room for the longest known keyword: `MT-PRIORITY` has 11 octets.
const MAX_KEYWORD: usize = 12;

/// A keyword in upper case, for comparison; kept in place, since every command has several.
pub(super) struct Upper {
    octets: [u8; MAX_KEYWORD],
    length: usize,
}

impl Upper {
    /// Converts a word; one that is too long for any keyword becomes the empty text.
    pub(super) fn of(word: &str) -> Self {
        let mut octets = [0; MAX_KEYWORD];
        let Some(room) = octets.get_mut(..word.len()) else { return Self { octets, length: 0 } };
        room.copy_from_slice(word.as_bytes());
        room.make_ascii_uppercase();
        Self { octets, length: word.len() }
    }

    pub(super) fn octets(&self) -> &[u8] {
        &self.octets[..self.length]
    }
}

/// The longest DNS label, in octets (RFC 1035 2.3.4).
const MAX_LABEL: usize = 63;

/// Returns the length in octets of the local-part at the front of `text`, up to its `@`; `None` if there is none.
pub(super) fn local_part(text: &str) -> Option<usize> {
    if text.starts_with('"') {
        let length = quoted_string(text)?;
        return text[length..].starts_with('@').then_some(length);
    }
    let length = memchr(b'@', text.as_bytes())?;
    is_dot_string(&text[..length]).then_some(length)
}

/// `Dot-string`
fn is_dot_string(text: &str) -> bool {
    if !text.is_ascii() {
        return parts(text).all(is_atom);
    }
    // Nearly all are ASCII, and need one look at each octet.
    let mut dot = true;
    for octet in text.bytes() {
        if octet == b'.' && dot || octet != b'.' && !ATEXT[usize::from(octet & 0x7f)] {
            return false;
        }
        dot = octet == b'.';
    }
    !dot
}

/// The parts between dots; at least one.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        match text.bytes().position(|octet| octet == b'.') {
            Some(dot) => {
                rest = text.get(dot + 1..);
                text.get(..dot)
            }
            None => rest.take(),
        }
    })
}

/// `Atom`
pub(super) fn is_atom(text: &str) -> bool {
    let all = if text.is_ascii() {
        text.bytes().all(|octet| ATEXT[usize::from(octet & 0x7f)])
    } else {
        text.chars().all(is_atext)
    };
    !text.is_empty() && all
}

/// `atext` (RFC 5322 3.2.3), RFC 6531 3.3: `=/ UTF8-non-ascii`.
fn is_atext(c: char) -> bool {
    match u8::try_from(c) {
        Ok(octet) if octet.is_ascii() => ATEXT[usize::from(octet)],
        _ => is_visible_non_ascii(c),
    }
}

/// For each ASCII character, whether it is `atext`.
const ATEXT: [bool; 128] = {
    let mut table = [false; 128];
    let mut octet = 0_u8;
    while octet < 128 {
        table[octet as usize] = octet.is_ascii_alphanumeric();
        octet += 1;
    }
    let marks = b"!#$%&'*+-/=?^_`{|}~";
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    table
};

/// For each ASCII character, whether it is a letter, a digit or a hyphen.
const LDH: [bool; 128] = {
    let mut table = [false; 128];
    let mut octet = 0_u8;
    while octet < 128 {
        table[octet as usize] = octet.is_ascii_alphanumeric() || octet == b'-';
        octet += 1;
    }
    table
};

/// C1 control characters are UTF8-non-ascii by the letter; but no address has one, and terminals obey them.
fn is_visible_non_ascii(c: char) -> bool {
    !c.is_ascii() && !c.is_control()
}

/// Returns the length of the `Quoted-string` at the front of `text`, quotes included.
#[cold]
fn quoted_string(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().skip(1);
    while let Some((offset, c)) = chars.next() {
        match c {
            '"' => return Some(offset + 1),
            // quoted-pairSMTP = %d92 %d32-126
            '\\' => {
                chars.next().filter(|(_, c)| matches!(c, ' '..='~'))?;
            }
            ' '..='~' => {}
            c if is_visible_non_ascii(c) => {}
            _ => return None,
        }
    }
    None
}

/// `Domain`, or an address literal with its brackets.
pub(super) fn is_domain_or_literal(text: &str) -> bool {
    match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(is_literal),
        None => is_domain(text),
    }
}

/// `Domain`: no trailing dot, no underscore.
pub(super) fn is_domain(text: &str) -> bool {
    if !text.is_ascii() {
        return parts(text).all(is_label);
    }
    // As for `Dot-string`.
    let (mut length, mut last) = (0, b'.');
    for octet in text.bytes() {
        match octet {
            b'.' if length == 0 || last == b'-' => return false,
            b'.' => length = 0,
            b'-' if length == 0 => return false,
            _ if length == MAX_LABEL || !LDH[usize::from(octet & 0x7f)] => return false,
            _ => length += 1,
        }
        last = octet;
    }
    length > 0 && last != b'-'
}

#[cold]
fn is_label(label: &str) -> bool {
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-';
    // The length of a U-label is that of its A-label, which only IDNA could tell.
    let is_sound = if label.is_ascii() {
        label.bytes().all(is_plain) && matches!(label.len(), 1..=MAX_LABEL)
    } else {
        let is_one =
            |c: char| u8::try_from(c).is_ok_and(is_plain) || (is_visible_non_ascii(c) && !c.is_whitespace());
        label.chars().all(is_one)
    };
    is_sound && !label.starts_with('-') && !label.ends_with('-')
}

/// The content of the brackets of `address-literal` (RFC 5321 4.1.3).
#[cold]
fn is_literal(text: &str) -> bool {
    match text.split_once(':') {
        None => is_ipv4(text),
        Some((tag, address)) if tag.eq_ignore_ascii_case("IPv6") => address.parse::<Ipv6Addr>().is_ok(),
        // General-address-literal = Standardized-tag ":" 1*dcontent; without the angle brackets and quotes that
        // dcontent allows, since they would end a path in the wrong place.
        Some((tag, content)) => {
            tag.ends_with(|c: char| c.is_ascii_alphanumeric())
                && tag.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
                && !content.is_empty()
                && content
                    .chars()
                    .all(|c| matches!(c, '!'..='Z' | '^'..='~') && !matches!(c, '<' | '>' | '"'))
        }
    }
}

/// `Snum 3("." Snum)`; unlike the standard library, the grammar allows leading zeros.
fn is_ipv4(text: &str) -> bool {
    let is_snum = |part: &str| {
        matches!(part.len(), 1..=3)
            && part.bytes().all(|octet| octet.is_ascii_digit())
            && part.parse::<u8>().is_ok()
    };
    text.split('.').count() == 4 && text.split('.').all(is_snum)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keywords_in_upper_case() {
        for (word, expected) in [
            ("rcpt", "RCPT"),
            ("Mt-Priority", "MT-PRIORITY"),
            ("", ""),
            ("stra\u{df}e", "STRA\u{df}E"),
            ("\u{131}", "\u{131}"), // no keyword by way of Unicode's capitals
            ("abcdefghijklm", ""),
        ] {
            assert_eq!(Upper::of(word).octets(), expected.as_bytes(), "{word}");
        }
    }

    #[test]
    fn atext_is_what_the_rfc_lists() {
        for c in (0..=0xff_u8).map(char::from) {
            let expected = c.is_ascii_alphanumeric()
                || "!#$%&'*+-/=?^_`{|}~".contains(c)
                || (!c.is_ascii() && !c.is_control());
            assert_eq!(is_atext(c), expected, "{c:?}");
        }
    }

    #[test]
    fn domains() {
        let longest_label = "a".repeat(63);
        for (text, expected) in [
            ("example.org", true),
            ("EXAMPLE", true),
            ("xn--bcher-kva.example", true),
            ("3com.example", true),
            ("192.0.2.1", true),           // the grammar does not ask for letters
            ("b\u{fc}cher.example", true), // RFC 6531 3.3: sub-domain =/ U-label
            ("\u{4f8b}\u{3048}.jp", true),
            (&format!("{longest_label}.org"), true),
            (&format!("{longest_label}a.org"), false), // RFC 1035 2.3.4
            ("", false),
            ("example.org.", false),
            (".example.org", false),
            ("a..b", false),
            ("-a.org", false),
            ("a-.org", false),
            ("a_b.org", false), // Let-dig and hyphens alone
            ("a b.org", false),
            ("a\u{a0}b.org", false),
            ("a\u{85}b.org", false),
            ("a@b", false),
            ("[example.org]", false),
        ] {
            assert_eq!(is_domain(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn one_look_at_each_octet_finds_the_same(text in r"[aZ9.-]{0,8}|[a.@_ -]{0,8}|[ab]{60,66}(\.[a-]{1,3})?") {
            prop_assert_eq!(is_domain(&text), parts(&text).all(is_label));
            prop_assert_eq!(is_dot_string(&text), parts(&text).all(is_atom));
        }
    }

    #[test]
    fn address_literals() {
        for (text, expected) in [
            ("[192.0.2.1]", true),
            ("[192.000.002.001]", true), // Snum = 1*3DIGIT
            ("[IPv6:2001:db8::1]", true),
            ("[ipv6:::ffff:192.0.2.1]", true), // literal text of an ABNF has no case
            ("[x-tag:!content]", true),
            ("[192.0.2.256]", false),
            ("[192.0.2]", false),
            ("[192.0.2.1.1]", false),
            ("[192.0.2.+1]", false),
            ("[192.0.2.1", false),
            ("[]", false),
            ("[2001:db8::1]x", false),
            ("[IPv6:2001:db8::g]", false),
            ("[IPv6:fe80::1%eth0]", false),
            ("[x-:a]", false), // Ldh-str ends with Let-dig
            ("[x:]", false),
            ("[x:a b]", false),
            ("[x:a]]", false),
            ("[x:a>b]", false), // a path would end in its middle
            ("[x:\"]", false),  // or not at all
            ("[:a]", false),
        ] {
            assert_eq!(is_domain_or_literal(text), expected, "{text}");
        }
    }

    #[test]
    fn local_parts() {
        for (text, expected) in [
            ("a@b", Some(1)),
            ("a.b+c!#$%&'*+-/=?^_`{|}~@b", Some(24)),
            ("gr\u{fc}n@b", Some(5)),
            (r#""a b"@c"#, Some(5)),
            (r#""a\"@\\"@c"#, Some(8)),
            (r#"""@c"#, Some(2)), // *QcontentSMTP
            (r#"">"@c"#, Some(3)),
            ("a", None),
            ("@b", None),
            (".a@b", None),
            ("a.@b", None),
            ("a..b@c", None),
            ("a b@c", None),
            ("a<b@c", None),
            ("a\"b\"@c", None),
            (r#""a"b@c"#, None),
            (r#""a".b@c"#, None), // obs-local-part of RFC 5322, not of 5321
            (r#""a@c"#, None),
            ("\"a\\\u{fc}\"@c", None), // quoted-pairSMTP is ASCII
            ("\"a\tb\"@c", None),
        ] {
            assert_eq!(local_part(text), expected, "{text}");
        }
    }
}
