//! The fields that Gatepost adds in front of a message: Received (RFC 5321 4.4), Date and Message-ID where missing
//! (RFC 6409 8.2, 8.3), X-Authenticated-As or X-Relayed-From on released ones.

use std::net::IpAddr;

use crate::account::Account;
use crate::clock::Timestamp;
use crate::id::SessionId;

/// What `Received:` says.
#[derive(Debug, Clone)]
pub struct Received<'a> {
    /// What the client called itself, cleaned.
    pub helo: Option<&'a str>,
    /// Where it connected from; `None` hides it.
    pub client: Option<IpAddr>,
    /// Our own name.
    pub hostname: &'a str,
    /// How it came.
    pub protocol: Protocol,
    /// `TLSv1.3`, `TLS13_AES_256_GCM_SHA384`.
    pub tls: Option<(&'a str, &'a str)>,
    /// The id by which our log knows it.
    pub session: SessionId,
    /// The recipient, where there is just one (RFC 5321 7.2: never with more than one).
    pub only_recipient: Option<&'a str>,
    /// When.
    pub when: Timestamp,
}

/// The transmission type after `with` (RFC 3848, RFC 6531 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocol {
    /// EHLO rather than HELO.
    pub extended: bool,
    /// Over TLS.
    pub tls: bool,
    /// Authenticated.
    pub authenticated: bool,
    /// The transaction had SMTPUTF8.
    pub smtputf8: bool,
}

impl Protocol {
    /// `ESMTPSA`, `UTF8SMTPS`, ...
    pub fn name(self) -> &'static str {
        todo!()
    }
}

/// The whole field, folded, with its last CRLF. Never a line over 998 octets, never a character that could end it.
pub fn received(_received: &Received<'_>) -> String {
    todo!()
}

/// `Date: ...` CRLF.
pub fn date(_when: Timestamp) -> String {
    todo!()
}

/// `Message-ID: <ID@hostname>` CRLF.
pub fn message_id(_session: SessionId, _serial: u32, _hostname: &str) -> String {
    todo!()
}

/// The name of the field that [`origin`] writes for users.
pub const AUTHENTICATED_AS: &str = "X-Authenticated-As";
/// The name of the field that [`origin`] writes for relay hosts.
pub const RELAYED_FROM: &str = "X-Relayed-From";

/// `X-Authenticated-As: NAME` or `X-Relayed-From: HOST` CRLF; a name that is not printable ASCII in xtext (RFC 3461 4).
pub fn origin(_account: &Account) -> String {
    todo!()
}
