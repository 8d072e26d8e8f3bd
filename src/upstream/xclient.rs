//! The XCLIENT command (Postfix XCLIENT_README): on whose behalf we speak, in one line of at most 512 octets.
//!
//! Pure. Only attributes named in the upstream's EHLO reply are sent. Values are xtext (RFC 3461 4); unknown ones, and
//! those that would be refused as malformed, are `[UNAVAILABLE]`.

use std::net::IpAddr;

use super::{ClientIdentity, Fault};
use crate::smtp::xtext;

/// The longest command line, CRLF included: the limit of RFC 5321 4.5.3.1.4, which XCLIENT does not raise.
const MAX_LINE: usize = 512;
/// The longest encoded value that Postfix takes (3.7: `501 5.5.4 Error: attribute value too long`).
const MAX_VALUE: usize = 255;
const UNAVAILABLE: &str = "[UNAVAILABLE]";

/// Returns the command line, or `None` if the upstream offers no attribute that we could send.
///
/// The most important attributes come first. NAME and HELO are last: they can be long, come from the client, and decide
/// nothing for an authenticated one. What does not fit is `[UNAVAILABLE]` or left out.
///
/// `address` is the client's, or `None` to keep it from the upstream.
///
/// # Errors
/// The user name does not fit: without it, or with a part of it, the upstream would take the client for someone else.
pub(super) fn command(
    identity: &ClientIdentity,
    address: Option<IpAddr>,
    offered: &[String],
) -> Result<Option<Vec<u8>>, Fault> {
    let address = address.map(|address| match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("IPV6:{address}"),
    });
    let protocol = if identity.extended { "ESMTP" } else { "SMTP" };
    let name = identity.name.as_deref().filter(|name| is_host_name(name));
    let attributes = [
        ("ADDR", address),
        ("LOGIN", identity.login.clone()),
        ("PROTO", Some(protocol.to_owned())),
        ("PORT", Some(identity.address.port().to_string())),
        ("NAME", name.map(str::to_owned)),
        ("HELO", identity.helo.clone()),
    ];
    let mut line = b"XCLIENT".to_vec();
    let empty = line.len();
    for (attribute, value) in attributes {
        if !offered.iter().any(|offer| offer == attribute) {
            continue;
        }
        let value = value.filter(|value| !value.is_empty());
        let encoded =
            value.as_deref().map_or_else(|| UNAVAILABLE.to_owned(), |value| xtext::encode(value.as_bytes()));
        let room = MAX_LINE.saturating_sub(line.len() + " =\r\n".len() + attribute.len());
        let fitting = if encoded.len() <= room.min(MAX_VALUE) {
            encoded.as_str()
        } else if attribute == "LOGIN" {
            return Err(Fault::Unavailable(format!(
                "the user name is too long for an XCLIENT command ({} octets)",
                encoded.len()
            )));
        } else if UNAVAILABLE.len() <= room {
            UNAVAILABLE
        } else {
            continue;
        };
        line.push(b' ');
        line.extend_from_slice(attribute.as_bytes());
        line.push(b'=');
        line.extend_from_slice(fitting.as_bytes());
    }
    if line.len() == empty {
        return Ok(None);
    }
    line.extend_from_slice(b"\r\n");
    Ok(Some(line))
}

/// Whether Postfix takes this as NAME: labels of letters, digits, `-` and `_`, not only digits. It answers 501 to
/// anything else, and the client would lose its mail because of a broken PTR record.
fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= MAX_VALUE
        && name.split('.').all(label)
        && name.bytes().any(|octet| !octet.is_ascii_digit() && octet != b'.')
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::clock::Timestamp;
    use crate::id::SessionId;

    /// What Postfix 3.7 offers.
    const POSTFIX: &[&str] =
        &["NAME", "ADDR", "PROTO", "HELO", "REVERSE_NAME", "PORT", "LOGIN", "DESTADDR", "DESTPORT"];

    fn identity(
        address: &str,
        name: Option<&str>,
        helo: Option<&str>,
        login: Option<&str>,
    ) -> ClientIdentity {
        ClientIdentity {
            session: SessionId::new(Timestamp::default()),
            name: name.map(str::to_owned),
            address: address.parse::<SocketAddr>().unwrap(),
            helo: helo.map(str::to_owned),
            extended: true,
            login: login.map(str::to_owned),
        }
    }

    fn line(identity: &ClientIdentity, offered: &[&str]) -> Option<String> {
        let offered: Vec<_> = offered.iter().map(|&offer| offer.to_owned()).collect();
        command(identity, Some(identity.address.ip()), &offered)
            .unwrap()
            .map(|line| String::from_utf8(line).unwrap())
    }

    #[test]
    fn what_is_known_is_said_as_far_as_it_is_offered() {
        let all = identity("192.0.2.7:4711", Some("pc.example.org"), Some("pc"), Some("alice"));
        let v6 = identity("[2001:db8::7]:25", None, None, None);
        let mapped = identity("[::ffff:192.0.2.7]:25", None, None, None);
        let odd = identity("192.0.2.7:1", Some("192.0.2.7"), Some("a b"), Some("j\u{fc}rgen+x=y"));
        let empty = identity("192.0.2.7:1", Some(""), Some(""), Some(""));
        let table: &[(&ClientIdentity, &[&str], &str)] = &[
            (
                &all,
                POSTFIX,
                "XCLIENT ADDR=192.0.2.7 LOGIN=alice PROTO=ESMTP PORT=4711 NAME=pc.example.org HELO=pc\r\n",
            ),
            (&all, &["HELO", "ADDR"], "XCLIENT ADDR=192.0.2.7 HELO=pc\r\n"),
            // XCLIENT_README: an IPv6 address has the prefix of RFC 5321's address literals
            (&v6, &["ADDR", "LOGIN"], "XCLIENT ADDR=IPV6:2001:db8::7 LOGIN=[UNAVAILABLE]\r\n"),
            (&v6, &["NAME", "HELO"], "XCLIENT NAME=[UNAVAILABLE] HELO=[UNAVAILABLE]\r\n"),
            // CONTRACT, Words: an IPv4-mapped address is IPv4
            (&mapped, &["ADDR"], "XCLIENT ADDR=192.0.2.7\r\n"),
            // xtext, and a name that Postfix would refuse
            (
                &odd,
                &["NAME", "HELO", "LOGIN"],
                "XCLIENT LOGIN=j+C3+BCrgen+2Bx+3Dy NAME=[UNAVAILABLE] HELO=a+20b\r\n",
            ),
            (
                &empty,
                &["NAME", "HELO", "LOGIN"],
                "XCLIENT LOGIN=[UNAVAILABLE] NAME=[UNAVAILABLE] HELO=[UNAVAILABLE]\r\n",
            ),
        ];
        for (identity, offered, expected) in table {
            assert_eq!(line(identity, offered).as_deref(), Some(*expected));
        }
        assert_eq!(line(&all, &[]), None);
        assert_eq!(line(&all, &["DESTADDR"]), None);
    }

    #[test]
    fn the_least_important_goes_first_where_it_does_not_fit() {
        let long = "x".repeat(250);
        let host = format!("{0}.{0}.{0}.org", "n".repeat(60));
        let login = "u".repeat(200);
        // HELO goes, NAME and LOGIN stay
        let helo = line(&identity("192.0.2.7:1", Some(&host), Some(&long), Some(&login)), POSTFIX).unwrap();
        assert!(
            helo.contains(&login) && helo.contains(&host) && helo.contains(" HELO=[UNAVAILABLE]"),
            "{helo}"
        );
        // NAME goes too
        let (host, login) = (format!("{0}.{0}.{0}.{0}", "n".repeat(60)), "u".repeat(250));
        let name = line(&identity("192.0.2.7:1", Some(&host), Some("pc"), Some(&login)), POSTFIX).unwrap();
        assert!(name.contains(&login) && name.contains(" NAME=[UNAVAILABLE] HELO=pc\r\n"), "{name}");
        // Postfix takes encoded values of up to 255 octets
        let all = |helo: &str| line(&identity("192.0.2.7:1", None, Some(helo), None), &["HELO"]).unwrap();
        assert_eq!(all(&"+".repeat(85)).len(), "XCLIENT HELO=\r\n".len() + 255);
        assert_eq!(all(&"+".repeat(86)), "XCLIENT HELO=[UNAVAILABLE]\r\n");
        // never without the user name
        let offered = ["LOGIN".to_owned()];
        let login = "u".repeat(256);
        assert!(command(&identity("192.0.2.7:1", None, None, Some(&login)), None, &offered).is_err());
        // nor an address that the upstream is not to be told
        let named = identity("192.0.2.7:1", None, None, Some("alice"));
        let offered = ["ADDR".to_owned()];
        assert_eq!(command(&named, None, &offered).unwrap().unwrap(), b"XCLIENT ADDR=[UNAVAILABLE]\r\n");
    }

    proptest! {
        #[test]
        fn one_line_of_512_octets_whatever_the_client_says(
            name in "\\PC{0,300}", helo in any::<String>(), login in proptest::option::of("[ -~]{0,85}"),
            port: u16, extended: bool,
        ) {
            let mut identity = identity("[2001:db8:1111:2222:3333:4444:5555:6666]:1", Some(&name), Some(&helo), None);
            identity.login = login;
            identity.address.set_port(port);
            identity.extended = extended;
            let offered: Vec<_> = POSTFIX.iter().map(|&offer| offer.to_owned()).collect();
            let line = command(&identity, Some(identity.address.ip()), &offered).unwrap().unwrap();
            prop_assert!(line.len() <= MAX_LINE);
            let inside = line.strip_suffix(b"\r\n").unwrap();
            prop_assert!(inside.iter().all(|&octet| octet == b' ' || octet.is_ascii_graphic()));
            prop_assert!(inside.split(|&octet| octet == b' ').skip(1).all(|word| word.contains(&b'=')));
        }
    }
}
