//! The fields that Gatepost puts in front of a message: Received (RFC 5321 4.4), Date and Message-ID if missing
//! (RFC 6409 8.2, 8.3), Sender if wanted (8.1), X-Authenticated-As or X-Relayed-From on released messages.

use std::net::IpAddr;

use super::path::{MAX_PATH, Mailbox};
use super::xtext;
use crate::account::{Account, Kind};
use crate::clock::Timestamp;
use crate::decimal::push_ipv4;
use crate::id::SessionId;
use crate::visible::is_printable_ascii;

/// The most Received fields; one more is taken for a loop (RFC 5321 6.3: at least 100).
pub const MAX_RECEIVED: usize = 100;

/// The content of `Received:`.
#[derive(Debug, Clone)]
pub struct Received<'a> {
    /// The name that the client gave, as given: it is cleaned here.
    pub helo: Option<&'a str>,
    /// The client's address; `None` hides it.
    pub client: Option<IpAddr>,
    /// Our own host name.
    pub hostname: &'a str,
    /// How the message came.
    pub protocol: Protocol,
    /// The TLS version and cipher, such as `TLSv1.3`, `TLS_AES_256_GCM_SHA384`.
    pub tls: Option<(&'a str, &'a str)>,
    /// The session's id in our log.
    pub session: SessionId,
    /// The recipient without brackets, if there is only one (RFC 5321 7.2: never with more than one).
    pub only_recipient: Option<&'a str>,
    /// The time of arrival.
    pub when: Timestamp,
}

/// The transmission type after `with` (RFC 3848, RFC 6531 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocol {
    /// Whether the client said EHLO rather than HELO.
    pub extended: bool,
    /// Whether TLS was used.
    pub tls: bool,
    /// Whether the client authenticated.
    pub authenticated: bool,
    /// Whether the transaction had SMTPUTF8.
    pub smtputf8: bool,
}

/// The longest host name (RFC 5321 4.5.3.1.2).
const MAX_HOST: usize = 255;
/// The length of most Received fields, in octets.
const TYPICAL: usize = 320;

impl Protocol {
    /// Returns `ESMTPSA`, `UTF8SMTPS`, ... Without EHLO it is `SMTP`: the registry has no finer names.
    pub const fn name(self) -> &'static str {
        match (self.smtputf8, self.tls, self.authenticated) {
            (true, true, true) => "UTF8SMTPSA",
            (true, true, false) => "UTF8SMTPS",
            (true, false, true) => "UTF8SMTPA",
            (true, false, false) => "UTF8SMTP",
            _ if !self.extended => "SMTP",
            (false, true, true) => "ESMTPSA",
            (false, true, false) => "ESMTPS",
            (false, false, true) => "ESMTPA",
            (false, false, false) => "ESMTP",
        }
    }
}

/// Returns the whole field, folded, with its last CRLF. No line is over 998 octets, and no character can end the field.
pub fn received(received: &Received<'_>) -> String {
    // One string, written in place: there is one for each message.
    let mut out = String::with_capacity(TYPICAL);
    out += "Received: ";
    if let Some(client) = received.client {
        let literal = address_literal(client);
        out += "from ";
        // Extended-Domain = address-literal FWS "(" TCP-info ")" if the client gave no name.
        match received.helo.filter(|helo| !helo.is_empty()) {
            Some(helo) => push_clean(&mut out, helo, HOST),
            None => out += &literal,
        }
        push_all(&mut out, &[" (", &literal, ")\r\n\t"]);
    }
    out += "by ";
    push_clean(&mut out, received.hostname, HOST);
    push_all(&mut out, &[" with ", received.protocol.name()]);
    if let Some((version, cipher)) = received.tls {
        out += "\r\n\t(";
        push_clean(&mut out, version, ATOM);
        out += " ";
        push_clean(&mut out, cipher, ATOM);
        out += ")";
    }
    push_all(&mut out, &["\r\n\tid ", &received.session.to_string()]);
    let printable = |recipient: &&str| {
        recipient.len() <= MAX_PATH
            && (is_printable_ascii(recipient.as_bytes())
                || received.protocol.smtputf8 && !recipient.contains(char::is_control))
    };
    if let Some(recipient) = received.only_recipient.filter(printable) {
        push_all(&mut out, &["\r\n\tfor <", recipient, ">"]);
    }
    push_all(&mut out, &[";\r\n\t", &received.when.to_rfc5322(), "\r\n"]);
    out
}

#[inline(never)] // see "The code of a message" in docs/performance.md
fn push_all(out: &mut String, parts: &[&str]) {
    parts.iter().for_each(|part| out.push_str(part));
}

/// Returns `Date: ...` CRLF.
pub fn date(when: Timestamp) -> String {
    format!("Date: {}\r\n", when.to_rfc5322())
}

/// Returns the Message-ID for a message that came without one, with brackets.
pub fn own_message_id(session: SessionId, serial: u32, hostname: &str) -> String {
    format!("<{session}.{serial}@{}>", host(hostname))
}

/// Returns `Message-ID: <ID@hostname>` CRLF.
pub fn message_id(session: SessionId, serial: u32, hostname: &str) -> String {
    format!("Message-ID: {}\r\n", own_message_id(session, serial, hostname))
}

/// The name of the field that [`origin`] writes for users.
pub const AUTHENTICATED_AS: &str = "X-Authenticated-As";
/// The name of the field that [`origin`] writes for relay hosts.
pub const RELAYED_FROM: &str = "X-Relayed-From";

/// The name of the field that [`sender`] writes (RFC 5322 3.6.2).
pub const SENDER: &str = "Sender";

/// Returns `Sender: ADDRESS` CRLF, for an address that has been checked.
pub fn sender(address: &Mailbox) -> String {
    format!("{SENDER}: {}\r\n", address.as_str())
}

/// Returns `X-Authenticated-As: NAME` or `X-Relayed-From: HOST` CRLF; a name that is not printable ASCII is in xtext
/// (RFC 3461 4).
pub fn origin(account: &Account) -> String {
    match account.kind() {
        Kind::User(name) if name.bytes().all(|octet| octet.is_ascii_graphic()) => {
            format!("{AUTHENTICATED_AS}: {name}\r\n")
        }
        Kind::User(name) => format!("{AUTHENTICATED_AS}: {}\r\n", xtext::encode(name.as_bytes())),
        Kind::Host(address) => format!("{RELAYED_FROM}: {address}\r\n"),
    }
}

/// RFC 5321 4.1.3
fn address_literal(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let mut literal = String::with_capacity("[255.255.255.255]".len());
            literal.push('[');
            push_ipv4(&mut literal, v4);
            literal.push(']');
            literal
        }
        IpAddr::V6(v6) => format!("[IPv6:{v6}]"),
    }
}

/// Keeps a domain or address literal; of anything else, only what cannot break the field.
fn host(text: &str) -> String {
    let mut out = String::new();
    push_clean(&mut out, text, HOST);
    out
}

/// The characters apart from letters and digits that stay in a host name and in an atom.
const HOST: &[u8] = b".-[]:_";
const ATOM: &[u8] = b".-_";

/// Keeps letters, digits and the `others`; everything else becomes `?`.
fn push_clean(out: &mut String, text: &str, others: &[u8]) {
    let stays = |octet: u8| octet.is_ascii_alphanumeric() || others.contains(&octet);
    if text.len() <= MAX_HOST && text.bytes().all(stays) {
        return out.push_str(text);
    }
    let stays = |c: char| u8::try_from(c).is_ok_and(stays);
    out.extend(text.chars().take(MAX_HOST).map(|c| if stays(c) { c } else { '?' }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::header::HeaderCollector;
    use proptest::prelude::*;

    const WHEN: Timestamp = Timestamp::from_millis(1_795_536_328_123);

    const PROTOCOL: Protocol = Protocol { extended: true, tls: true, authenticated: true, smtputf8: false };

    fn everything(session: SessionId) -> Received<'static> {
        Received {
            helo: Some("client.example"),
            client: Some("192.0.2.1".parse().unwrap()),
            hostname: "mail.example.org",
            protocol: PROTOCOL,
            tls: Some(("TLSv1.3", "TLS_AES_256_GCM_SHA384")),
            session,
            only_recipient: Some("anna@example.org"),
            when: WHEN,
        }
    }

    #[test]
    fn the_received_field() {
        let id = SessionId::new(WHEN);
        let all = everything(id);
        assert_eq!(
            received(&all),
            format!(
                "Received: from client.example ([192.0.2.1])\r\n\tby mail.example.org with ESMTPSA\r\n\
                \t(TLSv1.3 TLS_AES_256_GCM_SHA384)\r\n\tid {id}\r\n\tfor <anna@example.org>;\r\n\
                \tTue, 24 Nov 2026 16:05:28 +0000\r\n"
            )
        );
        let hidden = Received { client: None, tls: None, only_recipient: None, ..all };
        assert_eq!(
            received(&hidden),
            format!(
                "Received: by mail.example.org with ESMTPSA\r\n\tid {id};\r\n\tTue, 24 Nov 2026 16:05:28 +0000\r\n"
            )
        );
    }

    #[test]
    fn where_it_came_from() {
        let session = SessionId::new(WHEN);
        for (helo, client, expected) in [
            (Some("[192.0.2.7]"), "192.0.2.1", "from [192.0.2.7] ([192.0.2.1])"),
            (Some("[IPv6:::1]"), "2001:db8::1", "from [IPv6:::1] ([IPv6:2001:db8::1])"),
            (Some("x"), "::ffff:192.0.2.1", "from x ([192.0.2.1])"),
            (Some("Anna's (PC)\r\nBcc: <x>"), "192.0.2.1", "from Anna?s??PC???Bcc:??x? ([192.0.2.1])"),
            (Some("b\u{fc}cher"), "192.0.2.1", "from b?cher ([192.0.2.1])"),
            (Some(""), "192.0.2.1", "from [192.0.2.1] ([192.0.2.1])"),
            (None, "192.0.2.1", "from [192.0.2.1] ([192.0.2.1])"),
        ] {
            let field =
                received(&Received { helo, client: Some(client.parse().unwrap()), ..everything(session) });
            assert_eq!(field.lines().next(), Some(format!("Received: {expected}").as_str()));
        }
    }

    #[test]
    fn transmission_types() {
        let protocol =
            |extended, tls, authenticated, smtputf8| Protocol { extended, tls, authenticated, smtputf8 };
        for (protocol, expected) in [
            (protocol(true, true, true, false), "ESMTPSA"), // RFC 3848
            (protocol(true, true, false, false), "ESMTPS"),
            (protocol(true, false, true, false), "ESMTPA"),
            (protocol(true, false, false, false), "ESMTP"),
            (protocol(false, false, false, false), "SMTP"),
            (protocol(false, true, false, false), "SMTP"),
            (protocol(true, true, true, true), "UTF8SMTPSA"), // RFC 6531 4.3
            (protocol(true, true, false, true), "UTF8SMTPS"),
            (protocol(true, false, true, true), "UTF8SMTPA"),
            (protocol(true, false, false, true), "UTF8SMTP"),
        ] {
            assert_eq!(protocol.name(), expected);
        }
    }

    #[test]
    fn the_recipient() {
        let utf8 = Protocol { smtputf8: true, ..PROTOCOL };
        for (protocol, recipient, shown) in [
            (PROTOCOL, r#""a> b"@c"#, true),
            (PROTOCOL, "\u{fc}@b", false), // an ASCII header (RFC 6532 is for UTF8SMTP)
            (utf8, "\u{fc}@b", true),
            (PROTOCOL, &"a".repeat(MAX_PATH + 1), false),
            (utf8, "a\r\nb@c", false),
            (utf8, "a\u{85}b@c", false),
        ] {
            let all = everything(SessionId::new(WHEN));
            let field = received(&Received { only_recipient: Some(recipient), protocol, ..all });
            assert_eq!(field.contains(&format!("\tfor <{recipient}>;")), shown, "{recipient:?}");
            assert_eq!(field.contains("for"), shown, "{recipient:?}");
        }
    }

    #[test]
    fn the_other_fields() {
        let session = SessionId::new(WHEN);
        assert_eq!(date(WHEN), "Date: Tue, 24 Nov 2026 16:05:28 +0000\r\n");
        assert_eq!(
            message_id(session, 2, "mail.example.org"),
            format!("Message-ID: <{session}.2@mail.example.org>\r\n")
        );
        for (account, expected) in [
            ("anna@example.org", "X-Authenticated-As: anna@example.org\r\n"),
            ("anna+x=y", "X-Authenticated-As: anna+x=y\r\n"),
            ("gr\u{fc}n+x", "X-Authenticated-As: gr+C3+BCn+2Bx\r\n"),
            ("host:192.0.2.1", "X-Relayed-From: 192.0.2.1\r\n"),
            ("host:2001:db8:1:2:3::", "X-Relayed-From: 2001:db8:1:2::\r\n"), // an account is the /64
        ] {
            assert_eq!(origin(&account.parse().unwrap()), expected);
        }
    }

    proptest! {
        #[test]
        fn nothing_ends_the_field(helo: String, recipient: String, version: String, hostname: String, smtputf8: bool, long in 0..5000usize) {
            let protocol = Protocol { smtputf8, ..PROTOCOL };
            let helo = helo + &"x".repeat(long);
            let field = received(&Received {
                helo: Some(&helo),
                only_recipient: Some(&recipient),
                tls: Some((&version, &version)),
                hostname: &hostname,
                protocol,
                ..everything(SessionId::new(WHEN))
            });
            for line in field.strip_suffix("\r\n").unwrap().split("\r\n") {
                prop_assert!(line.len() <= 998);
                prop_assert!(!line.chars().any(|c| c.is_control() && c != '\t'));
            }
            let mut header = HeaderCollector::new(usize::MAX);
            header.push(field.as_bytes());
            prop_assert!(header.finish().without(&["Received"]).is_empty());
        }
    }
}
