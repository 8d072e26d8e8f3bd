//! The addresses in From: (RFC 5322 3.6.2; groups: RFC 6854).
//!
//! Encoded words are not decoded: an address contains none, and the text that they encode must not be taken for an address.
//! `mailparse` knows quoted strings at the beginning of a phrase alone, and no comment in a comment, so both are taken out
//! before it looks.

use std::str::Chars;

use mailparse::{MailAddr, SingleInfo, addrparse};

use crate::smtp::Mailbox;
use crate::smtp::header::Header;

/// Returns every address in every From: field; empty if there is no From:. `None` if one of the fields cannot be parsed as a
/// whole, since nobody knows then what the recipient's program will show.
pub fn from_addresses(header: &Header) -> Option<Vec<Mailbox>> {
    let mut addresses = Vec::new();
    for value in header.values("From") {
        let list = match without_quotes(&value) {
            Some(plain) => addrparse(&plain).ok()?,
            // Devices write worse. With a single `@` no program can find another address than we do.
            None if value.matches('@').count() == 1 => addrparse(&value).ok()?,
            None => return None,
        };
        for address in list.iter() {
            let members: &[SingleInfo] = match address {
                MailAddr::Single(single) => std::slice::from_ref(single),
                MailAddr::Group(group) => &group.addrs,
            };
            for member in members {
                addresses.push(Mailbox::parse(member.addr.trim()).ok()?);
            }
        }
    }
    Some(addresses)
}

/// Stands for a quoted string. No address can contain it, so none is made up by what it stands for.
const QUOTED: char = '\\';

/// Returns the value with a blank for each comment and [`QUOTED`] for each quoted string, but for those in an address in
/// brackets. `None` if programs may disagree where one ends.
fn without_quotes(value: &str) -> Option<String> {
    let mut plain = String::with_capacity(value.len());
    let mut in_brackets = false;
    let mut rest = value.chars();
    while let Some(c) = rest.next() {
        match c {
            '(' => {
                skip_comment(&mut rest)?;
                plain.push(' ');
            }
            '"' => match quoted_string(&mut rest)? {
                local_part if in_brackets && !local_part.contains('>') => plain.extend(["\"", local_part]),
                _ => plain.push(QUOTED),
            },
            // RFC 5322 has no quoted-pair here, but some programs have.
            '\\' if rest.as_str().starts_with(['"', '(', ')']) => return None,
            '[' => {
                // RFC 5322 3.4.1: neither quotes nor comments in a domain literal.
                let (literal, behind) = rest.as_str().split_once(']')?;
                if literal.contains(['"', '(', ')', '\\']) {
                    return None;
                }
                plain.extend(["[", literal, "]"]);
                rest = behind.chars();
            }
            _ => {
                in_brackets = c == '<' || in_brackets && c != '>';
                plain.push(c);
            }
        }
    }
    Some(plain)
}

/// Skips the rest of a comment, and the comments in it (RFC 5322 3.2.2). `None` if it does not end.
fn skip_comment(rest: &mut Chars<'_>) -> Option<()> {
    let mut depth = 1;
    while depth > 0 {
        match rest.next()? {
            '(' => depth += 1,
            ')' => depth -= 1,
            '\\' => _ = rest.next()?,
            _ => {}
        }
    }
    Some(())
}

/// Takes the rest of a quoted string, and returns it with the quote that ends it. `None` if it does not end.
fn quoted_string<'a>(rest: &mut Chars<'a>) -> Option<&'a str> {
    let whole = rest.as_str();
    loop {
        match rest.next()? {
            '"' => return whole.get(..whole.len() - rest.as_str().len()),
            '\\' => _ = rest.next()?,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::header::HeaderCollector;

    fn addresses(text: &str) -> Option<Vec<String>> {
        let mut header = HeaderCollector::new(usize::MAX);
        header.push(format!("{text}\r\n\r\n").as_bytes());
        let found = from_addresses(&header.finish())?;
        Some(found.iter().map(|mailbox| mailbox.as_str().to_owned()).collect())
    }

    #[test]
    fn what_is_in_from() {
        for (text, expected) in [
            ("From: a@b", Some(&["a@b"][..])),
            ("From: Anna <a@b>", Some(&["a@b"])),
            ("From: \"x@y\" <a@b>", Some(&["a@b"])),
            ("From: x@y <a@b>", Some(&["a@b"])), // a display name that looks like an address; some programs write that
            ("From: \"a@b\" <x@y>", Some(&["x@y"])),
            ("From: a@b <x@y>", Some(&["x@y"])),
            ("From: =?utf-8?q?a=40b=3E=2C?= <x@y>", Some(&["x@y"])),
            ("From: Anna\r\n <a@b>,\r\n\t\"B, C\" <c@d>", Some(&["a@b", "c@d"])),
            ("From: a@b\r\nfrom : x@y", Some(&["a@b", "x@y"])), // two fields
            ("From: all: a@b, <c@d>;", Some(&["a@b", "c@d"])),
            ("From: undisclosed:;", Some(&[])),
            ("From: (Anna) a@b", Some(&["a@b"])),
            ("From: Anna \"Boss, the\" <a@b>", Some(&["a@b"])), // a phrase is any mixture of atoms and quoted strings
            ("From: A \"<a@b>, \" <x@y>, \"<a@b>, x\" <a@b>", Some(&["x@y", "a@b"])),
            ("From: \"Team, all\": \"A\" <a@b>;", Some(&["a@b"])),
            ("From: \"A \\\" <x@y>, \" <a@b>", Some(&["a@b"])),
            ("From: (() \") <x@y>, (\") <a@b>", Some(&["x@y", "a@b"])), // comments nest
            ("From: ((a@b) <x@y>", None),
            ("From: (()) \" <x@y>, (\" <a@b>", Some(&["a@b"])),
            ("From: (() ) <x@y>, (\") <a@b>", Some(&["x@y", "a@b"])),
            ("From: (\\) <x@y>) a@b (c)", Some(&["a@b"])),
            ("From: A <\"a b\"@c>", Some(&["\"a b\"@c"])),
            ("From: A <\"a> <x\"@c>", None),
            ("From: \"<a@b>, \"@c <x@y>, \"@c <a@b>, \" <a@b>", Some(&["x@y", "a@b"])),
            ("From: \"x\"@b", None), // not x@b, whatever stands for the quoted string
            ("From: a@b \"x\"", None),
            ("From: \\\"A\\\" <a@b>", Some(&["a@b"])), // some devices write that
            ("From: \\\" <x@y>, \" <a@b>", None),
            ("From: DOMAIN\\a <a@b>", Some(&["a@b"])),
            ("From: A [B (C)] <a@b>", Some(&["a@b"])),
            ("From: A [(] <x@y>, B [)] <a@b>", None),
            ("From: a@[192.0.2.1]", Some(&["a@[192.0.2.1]"])),
            ("From:", Some(&[])),
            ("To: x@y", Some(&[])),
            ("From: <a@b> <x@y>", None),
            ("From: a@b, Anna", None),
            ("From: <a@b", None),
            ("From: \"a@b", None),
            ("From: <x@y>a@b", None),
            ("From: a b@c", None),
            ("From: <a@b@c>", None),
            ("From: <@r:a@b>", None),
        ] {
            let expected = expected.map(|list| list.iter().map(|text| (*text).to_owned()).collect());
            assert_eq!(addresses(text), expected, "{text}");
        }
    }
}
