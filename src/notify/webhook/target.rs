//! The address to which events are posted: https://, or http:// on this machine only.

use std::fmt;
use std::net::IpAddr;

use hyper::Uri;

/// A web address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Whether the scheme is https.
    pub(super) tls: bool,
    /// A name or an IP address, the latter without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Host and, where written, port: the value of the Host field.
    pub(super) authority: String,
    /// Path and query.
    pub(super) path: String,
}

impl Target {
    /// Parses an address.
    ///
    /// # Errors
    /// What would be right.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const REMEDY: &str = "an address such as https://example.org/hooks/gatepost";
        // hyper silently drops a fragment.
        if text.contains('#') {
            return Err("an address without a # in it");
        }
        let uri: Uri = text.parse().map_err(|_| REMEDY)?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(REMEDY),
        };
        let authority = uri.authority().ok_or(REMEDY)?;
        if authority.as_str().contains('@') {
            return Err(
                "an address without a name or a password in it; events are signed, see webhook_secret_file",
            );
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let port = match authority.port() {
            Some(port) => port.as_str().parse().ok().filter(|port| *port > 0).ok_or(REMEDY)?,
            None if authority.as_str().ends_with(':') => return Err(REMEDY),
            None if tls => 443,
            None => 80,
        };
        if host.is_empty() {
            return Err(REMEDY);
        }
        let loopback =
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
        if !tls && !loopback {
            return Err(
                "https://, since whoever listens in would learn whose account is blocked; http:// only to 127.0.0.1, [::1] or localhost",
            );
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { tls, host, port, authority: authority.as_str().to_owned(), path })
    }
}

/// As it was written.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}
