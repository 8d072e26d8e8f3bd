//! Where a server is, a host and port or a socket file of this machine, and how the connection to it is protected.
//!
//! Pure: names are resolved by the code that connects, each time anew.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

/// A server's address as the configuration writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A TCP endpoint.
    Tcp {
        /// Host name or IP literal, the latter without brackets.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// The socket file of a server on this machine.
    Unix(PathBuf),
}

/// How the connection to a server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// No protection.
    Off,
    /// STARTTLS, required.
    StartTls,
    /// TLS from the first octet.
    Implicit,
}

/// A server and the name that its certificate must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it is.
    pub address: Address,
    /// The name in its certificate; unused without TLS.
    pub tls_name: String,
}

impl Address {
    /// Whether the traffic stays on this machine (RFC 6761 6.3: `localhost` is always loopback).
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => match host.parse::<IpAddr>() {
                Ok(address) => address.to_canonical().is_loopback(),
                Err(_) => host.eq_ignore_ascii_case("localhost"),
            },
        }
    }

    /// The IP address, if the host is written as one.
    pub fn literal(&self) -> Option<IpAddr> {
        match self {
            Self::Unix(_) => None,
            Self::Tcp { host, .. } => host.parse().ok(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { host, port } if host.parse::<Ipv6Addr>().is_ok() => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_as_written_and_local_or_not() {
        let tcp = |host: &str| Address::Tcp { host: host.to_owned(), port: 25 };
        for (address, shown, local) in [
            (tcp("127.0.0.1"), "127.0.0.1:25", true),
            (tcp("127.9.9.9"), "127.9.9.9:25", true),
            (tcp("::1"), "[::1]:25", true),
            (tcp("::ffff:127.0.0.1"), "[::ffff:127.0.0.1]:25", true),
            (tcp("localhost"), "localhost:25", true),
            (tcp("mail.example.org"), "mail.example.org:25", false),
            (tcp("192.0.2.1"), "192.0.2.1:25", false),
            (tcp("2001:db8::1"), "[2001:db8::1]:25", false),
            (Address::Unix("/run/mta".into()), "unix:/run/mta", true),
        ] {
            assert_eq!((address.to_string().as_str(), address.is_local()), (shown, local));
        }
    }
}
