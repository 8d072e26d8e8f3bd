//! Accounts: who is responsible for a message, an authenticated user or a relay host.
//!
//! Written `user:NAME` or `host:ADDRESS`. An IPv6 host is its /64, and an IPv4-mapped address is IPv4. Names are never
//! empty and have no control characters or blanks.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest name of an account, in octets: it becomes part of keys, file names and headers.
pub const MAX_NAME: usize = 255;

/// Why a text does not name an account.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAnAccount {
    /// The name is empty.
    #[error("an account's name is not empty")]
    Empty,
    /// The name has more than [`MAX_NAME`] octets.
    #[error("an account's name has at most {MAX_NAME} octets")]
    TooLong,
    /// The name has a blank or a control character.
    #[error("an account's name has no blanks and no control characters")]
    Blank,
    /// `host:` without an IP address.
    #[error("`host:` is followed by an IP address")]
    NotAnAddress,
    /// `host:` with a network that is not an account.
    #[error(
        "a relay host is its IPv4 address, or the /64 of its IPv6 address: host:ADDRESS, or host:ADDRESS/64 with IPv6"
    )]
    NotAHost,
}

/// Who is responsible for a message. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Account {
    /// The written form, checked once.
    text: Arc<str>,
}

/// The two kinds of account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind<'a> {
    /// The SASL authentication identity, as the users file spells it.
    User(&'a str),
    /// A relay host: its address, or the first 64 bits of it if it is IPv6.
    Host(IpAddr),
}

impl Account {
    /// The account of an authenticated user.
    ///
    /// # Errors
    /// The name is empty, too long, or has a blank or a control character.
    pub fn user(name: &str) -> Result<Self, NotAnAccount> {
        if name.is_empty() {
            return Err(NotAnAccount::Empty);
        }
        if name.len() > MAX_NAME {
            return Err(NotAnAccount::TooLong);
        }
        if name.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(NotAnAccount::Blank);
        }
        Ok(Self { text: format!("user:{name}").into() })
    }

    /// The account of the relay host at `address`.
    pub fn host(address: IpAddr) -> Self {
        let address = match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
            v4 @ IpAddr::V4(_) => v4,
        };
        Self { text: format!("host:{address}").into() }
    }

    /// The kind of the account, with its name or address.
    pub fn kind(&self) -> Kind<'_> {
        if let Some(name) = self.text.strip_prefix("user:") {
            return Kind::User(name);
        }
        let address = self.text.strip_prefix("host:").and_then(|text| text.parse().ok());
        Kind::Host(address.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)))
    }

    /// The written form: `user:NAME` or `host:ADDRESS`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// `NAME` alone means `user:NAME`; `host:ADDRESS/64` is accepted for an IPv6 host, since that is how it is explained to
/// people.
impl FromStr for Account {
    type Err = NotAnAccount;

    fn from_str(text: &str) -> Result<Self, NotAnAccount> {
        match text.strip_prefix("host:") {
            Some(host) => {
                let (address, prefix) = match host.split_once('/') {
                    Some((address, prefix)) => (address, Some(prefix)),
                    None => (host, None),
                };
                let address: IpAddr = address.parse().map_err(|_| NotAnAccount::NotAnAddress)?;
                match prefix {
                    Some(prefix) if prefix != "64" || address.to_canonical().is_ipv4() => {
                        Err(NotAnAccount::NotAHost)
                    }
                    _ => Ok(Self::host(address)),
                }
            }
            None => Self::user(text.strip_prefix("user:").unwrap_or(text)),
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Account {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Account {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_written_form() {
        for (text, expected) in [
            ("anna", Ok("user:anna")),
            ("user:anna@example.org", Ok("user:anna@example.org")),
            ("host:192.0.2.1", Ok("host:192.0.2.1")),
            ("host:::ffff:192.0.2.1", Ok("host:192.0.2.1")),
            ("host:2001:db8:1:2:3:4:5:6", Ok("host:2001:db8:1:2::")),
            ("host:2001:db8:1:2::/64", Ok("host:2001:db8:1:2::")),
            ("host:2001:db8:1:2:3:4:5:6/64", Ok("host:2001:db8:1:2::")),
            ("host:2001:db8:1:2::/48", Err(NotAnAccount::NotAHost)),
            ("host:2001:db8:1:2::/128", Err(NotAnAccount::NotAHost)),
            ("host:2001:db8:1:2::/", Err(NotAnAccount::NotAHost)),
            ("host:192.0.2.1/64", Err(NotAnAccount::NotAHost)),
            ("host:192.0.2.1/32", Err(NotAnAccount::NotAHost)),
            ("host:::ffff:192.0.2.1/64", Err(NotAnAccount::NotAHost)),
            ("host:here/64", Err(NotAnAccount::NotAnAddress)),
            ("", Err(NotAnAccount::Empty)),
            ("user:", Err(NotAnAccount::Empty)),
            ("a b", Err(NotAnAccount::Blank)),
            ("a\u{1b}[31m", Err(NotAnAccount::Blank)),
            ("host:here", Err(NotAnAccount::NotAnAddress)),
        ] {
            let parsed = text.parse::<Account>();
            assert_eq!(parsed.as_ref().map(Account::as_str), expected.as_ref().copied(), "{text}");
        }
        assert_eq!(Account::user(&"x".repeat(256)), Err(NotAnAccount::TooLong));
    }

    #[test]
    fn the_kind() {
        assert_eq!("anna".parse::<Account>().unwrap().kind(), Kind::User("anna"));
        let host = Account::host("2001:db8::1".parse().unwrap());
        assert_eq!(host.kind(), Kind::Host("2001:db8::".parse().unwrap()));
    }
}
