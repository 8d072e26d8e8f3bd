//! The addresses in From: (RFC 5322 3.6.2; groups: RFC 6854).
//!
//! Encoded words are not decoded: an address contains none, and the text that they encode must not be taken for an address.

use mailparse::{MailAddr, SingleInfo, addrparse};

use crate::smtp::Mailbox;
use crate::smtp::header::Header;

/// Returns every address in every From: field; empty if there is no From:. `None` if one of the fields cannot be parsed as a
/// whole, since nobody knows then what the recipient's program will show.
pub fn from_addresses(header: &Header) -> Option<Vec<Mailbox>> {
    let mut addresses = Vec::new();
    for value in header.values("From") {
        let list = addrparse(&value).ok()?;
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
