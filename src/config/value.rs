//! The values of the configuration: each function parses one kind of text, or says what would be right.
//!
//! Pure: no name is resolved and no file opened. Domains follow RFC 5321 4.1.2 and RFC 1034 3.5.

use std::net::{IpAddr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};

use super::section::Remedy;
use crate::account::Account;
use crate::smtp::path::Mailbox;
use crate::upstream::Address;

/// Parses a domain name: labels of letters, digits and hyphens. The result is in lower case.
pub(super) fn domain(text: &str) -> Result<String, Remedy> {
    const REMEDY: &str = "a domain name such as mail.example.org";
    if !text.is_ascii() {
        return Err("a domain name in ASCII; an international one in its xn-- form".to_owned());
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
    };
    // A last label of digits only would be (part of) an IPv4 address.
    let numeric_end = text.rsplit('.').next().is_some_and(|last| last.bytes().all(|o| o.is_ascii_digit()));
    if text.len() > 253 || numeric_end || !text.split('.').all(label) {
        return Err(REMEDY.to_owned());
    }
    Ok(text.to_ascii_lowercase())
}

/// Parses an IP address and port to listen on.
pub(super) fn listener(text: &str) -> Result<SocketAddr, Remedy> {
    text.parse().map_err(|_| "an IP address and a port such as [::]:587 or 127.0.0.1:587".to_owned())
}

/// Parses host and port of the upstream; an IPv6 literal loses its brackets.
pub(super) fn host_and_port(text: &str) -> Result<(String, u16), Remedy> {
    const REMEDY: &str =
        "host and port such as 127.0.0.1:25, [2001:db8::1]:25 or mail.example.org:25, or unix:PATH";
    let remedy = || REMEDY.to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(remedy)?;
    let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(remedy)?;
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(literal) => literal.parse::<std::net::Ipv6Addr>().map_err(|_| remedy())?.to_string(),
        None if host.parse::<std::net::Ipv4Addr>().is_ok() => host.to_owned(),
        // Names in container networks have underscores.
        None => domain(&host.replace('_', "x")).map(|_| host.to_ascii_lowercase()).map_err(|_| remedy())?,
    };
    Ok((host, port))
}

/// Parses the address of an upstream: `unix:PATH`, or host and port.
pub(super) fn upstream(text: &str) -> Result<Address, Remedy> {
    match text.strip_prefix("unix:") {
        Some(path) if path.is_empty() || path.contains('\0') => {
            Err("unix: and the path of a socket, such as unix:/run/mta/submission".to_owned())
        }
        Some(path) => Ok(Address::Unix(path.into())),
        None => host_and_port(text).map(|(host, port)| Address::Tcp { host, port }),
    }
}

/// Checks the path of a file.
pub(super) fn path(text: &str) -> Result<String, Remedy> {
    if text.is_empty() || text.contains('\0') {
        return Err("the path of a file".to_owned());
    }
    Ok(text.to_owned())
}

/// Parses the name in a certificate: a domain name or an IP address.
pub(super) fn certificate_name(text: &str) -> Result<String, Remedy> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(address.to_string()),
        Err(_) => domain(text),
    }
}

/// Parses a network. A bare address is the network of that address alone; an IPv4-mapped one becomes IPv4.
pub(super) fn network(text: &str) -> Result<IpNet, Remedy> {
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text
            .parse::<IpNet>()
            .map_err(|_| "an address or a network such as 192.168.0.0/16 or 2001:db8::/32".to_owned())?,
    };
    if network.addr() != network.network() {
        // A typing error must not open the door to 65,534 others.
        let (address, truncated) = (network.addr(), network.trunc());
        return Err(format!("{address} for that host alone, or {truncated} for the network"));
    }
    Ok(unmapped(network))
}

fn unmapped(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let mapped = v6.addr().to_ipv4_mapped().filter(|_| v6.prefix_len() >= 96);
    mapped.and_then(|v4| Ipv4Net::new(v4, v6.prefix_len() - 96).ok()).map_or(network, IpNet::V4)
}

/// Parses an account; `NAME` alone is `user:NAME`, unless it looks like what `[[account]] match` takes for hosts or for a
/// pattern.
pub(super) fn account(text: &str) -> Result<Account, Remedy> {
    if text.parse::<IpAddr>().is_ok() {
        return Err(format!("host:{text} for the relay host, or user:{text} for a user of that name"));
    }
    if !text.starts_with("user:") && !text.starts_with("host:") && text.contains(['*', '/']) {
        let remedy = "an account; [[account]] with match and exempt = true for several, or user:NAME for that very name";
        return Err(remedy.to_owned());
    }
    text.parse().map_err(|error| format!("an account such as anna, user:anna or host:192.0.2.1 ({error})"))
}

/// Parses a mail address without a display name.
pub(super) fn mailbox(text: &str) -> Result<String, Remedy> {
    match Mailbox::parse(text) {
        Ok(mailbox) => Ok(mailbox.as_str().to_owned()),
        Err(_) => Err("a mail address such as abuse@example.org, without a display name".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains() {
        let long = format!("{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(63));
        for (text, good) in [
            ("mail.example.org", true),
            ("localhost", true),
            ("xn--mller-kva.example", true),
            ("3com.example", true),
            ("", false),
            ("mail.example.org.", false), // RFC 5321 4.1.2: no trailing dot
            ("-a.example", false),
            ("a-.example", false),
            ("a..example", false),
            ("my_host", false),
            ("müller.example", false),
            ("192.0.2.1", false),
            ("[192.0.2.1]", false),
            (long.as_str(), false),
        ] {
            assert_eq!(domain(text).is_ok(), good, "{text}");
        }
        assert_eq!(domain("Mail.Example.ORG"), Ok("mail.example.org".to_owned()));
    }

    #[test]
    fn hosts_and_ports() {
        for (text, expected) in [
            ("127.0.0.1:25", Some(("127.0.0.1", 25))),
            ("[::1]:2525", Some(("::1", 2525))),
            ("mail.example.org:25", Some(("mail.example.org", 25))),
            ("mail_server:25", Some(("mail_server", 25))),
            ("::1:25", None),
            ("[127.0.0.1]:25", None),
            ("127.0.0.1", None),
            ("127.0.0.1:0", None),
            ("127.0.0.1:65536", None),
            ("127.0.0.1:smtp", None),
            (":25", None),
            ("", None),
        ] {
            let found = host_and_port(text).ok();
            assert_eq!(found.as_ref().map(|(host, port)| (host.as_str(), *port)), expected, "{text}");
        }
    }

    #[test]
    fn upstreams() {
        assert_eq!(upstream("unix:/run/mta"), Ok(Address::Unix("/run/mta".into())));
        assert_eq!(upstream("mta:25"), Ok(Address::Tcp { host: "mta".to_owned(), port: 25 }));
        for wrong in ["unix:", "unix:/run/\0", "/run/mta"] {
            assert!(upstream(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn networks() {
        for (text, expected) in [
            ("192.168.0.0/16", Ok("192.168.0.0/16")),
            ("192.0.2.1", Ok("192.0.2.1/32")),
            ("2001:db8::1", Ok("2001:db8::1/128")),
            ("::ffff:192.0.2.0/120", Ok("192.0.2.0/24")),
            ("::ffff:192.0.2.1", Ok("192.0.2.1/32")),
            ("::/0", Ok("::/0")),
            ("0.0.0.0/0", Ok("0.0.0.0/0")),
            ("192.168.0.1/16", Err("192.168.0.1 for that host alone, or 192.168.0.0/16 for the network")),
            ("192.168.0.0/33", Err("an address or a network such as 192.168.0.0/16 or 2001:db8::/32")),
            ("here", Err("an address or a network such as 192.168.0.0/16 or 2001:db8::/32")),
        ] {
            let found = network(text).map(|network| network.to_string());
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{text}");
        }
    }

    #[test]
    fn listeners_and_certificate_names() {
        for (text, good) in [
            ("[::]:587", true),
            ("127.0.0.1:0", true),
            ("localhost:587", false),
            (":587", false),
            ("*:587", false),
            ("0.0.0.0", false),
        ] {
            assert_eq!(listener(text).is_ok(), good, "{text}");
        }
        assert_eq!(certificate_name("MX.example.org"), Ok("mx.example.org".to_owned()));
        assert_eq!(certificate_name("192.0.2.1"), Ok("192.0.2.1".to_owned()));
        assert!(certificate_name("*.example.org").is_err());
    }
}
