//! `[upstream]`: where the MTA is, or several equivalent ones, how we authenticate there, and how long to wait for
//! replies.
//!
//! Keys that depend on each other are judged together: TLS with IP addresses and sockets, a login without TLS. Pure.

use std::time::Duration;

use super::section::Section;
use super::{Listen, Upstream, value};
use crate::units::{HOUR, MINUTE, SECOND};
use crate::upstream::{Address, Credentials, Endpoint, KeyPair, Protection, Settings, Timeouts};

/// Reads the table.
pub(super) fn read(section: &mut Section<'_>, hostname: &str, listen: &[Listen]) -> Upstream {
    let addresses = addresses(section, listen);
    let protection = section.choice(
        "tls",
        Protection::Off,
        &[("off", Protection::Off), ("starttls", Protection::StartTls), ("implicit", Protection::Implicit)],
    );
    let endpoints = endpoints(section, addresses, protection);
    let ca = section.optional_path("ca");
    let identity = identity(section, protection);
    let credentials = credentials(section, protection, &endpoints);
    let reply = section.duration("timeout", 150 * SECOND, SECOND..=HOUR);
    let end = section.duration("data_timeout", 10 * MINUTE, SECOND..=HOUR);
    let settings = Settings {
        endpoints,
        protection,
        ca,
        identity,
        credentials,
        hostname: hostname.to_owned(),
        xclient: section.flag("xclient", true),
        connect_timeout: section.duration("connect_timeout", 30 * SECOND, SECOND..=HOUR),
        timeouts: section.table("timeouts", "[upstream.timeouts]", |section| timeouts(section, reply, end)),
        max_connections: section.whole("max_connections", 90, 1..=100_000),
    };
    let mut domains = section.list("domains", Vec::new(), value::domain);
    if domains.is_empty() {
        domains = own_domains(hostname);
    }
    let canary = section.list("canary", Vec::new(), value::domain);
    Upstream { settings, domains, canary }
}

fn addresses(section: &mut Section<'_>, listen: &[Listen]) -> Vec<Address> {
    let folder = section.folder();
    let default = vec![Address::Tcp { host: "127.0.0.1".to_owned(), port: 25 }];
    let mut seen = Vec::new();
    let addresses = section.one_or_more("address", default, |text| {
        let address = match value::upstream(text)? {
            Address::Unix(path) => Address::Unix(folder.join(path)),
            address => address,
        };
        if seen.contains(&address) {
            return Err("each address once".to_owned());
        }
        seen.push(address.clone());
        Ok(address)
    });
    for address in &addresses {
        let Address::Tcp { port, .. } = address else { continue };
        let own = address.literal().filter(|ip| listen.iter().any(|listener| reaches(*ip, *port, listener)));
        if own.is_some() {
            section
                .problem("address", format!("the MTA behind Gatepost; at {address} Gatepost itself listens"));
        }
    }
    addresses
}

fn endpoints(section: &mut Section<'_>, addresses: Vec<Address>, protection: Protection) -> Vec<Endpoint> {
    let one_name = section.text("tls_name", String::new(), |text| match text {
        "" => Ok(String::new()),
        name => value::certificate_name(name),
    });
    if protection != Protection::Off && section.sound(&["address", "tls", "tls_name"]) {
        if addresses.iter().any(|address| matches!(address, Address::Unix(_))) {
            section
                .problem("tls", "\"off\", since address has a unix: socket, at which nobody can listen in");
        } else if one_name.is_empty() && addresses.iter().any(|address| address.literal().is_some()) {
            section.problem(
                "tls_name",
                "the name in the upstream's certificate, since address is an IP address",
            );
        }
    }
    let endpoint = |address| {
        let tls_name = match &address {
            Address::Tcp { host, .. } if one_name.is_empty() => host.clone(),
            _ => one_name.clone(),
        };
        Endpoint { address, tls_name }
    };
    addresses.into_iter().map(endpoint).collect()
}

/// The certificate and key that we show the upstream.
fn identity(section: &mut Section<'_>, protection: Protection) -> Option<KeyPair> {
    let certificate = section.optional_path("client_certificate");
    let private_key = section.optional_path("client_key");
    if !section.sound(&["client_certificate", "client_key", "tls"]) {
        return None;
    }
    match (certificate, private_key) {
        (Some(certificate), Some(private_key)) => {
            if protection == Protection::Off {
                section.problem("client_certificate", "none without tls = \"starttls\" or \"implicit\"");
            }
            return Some(KeyPair { certificate, private_key });
        }
        (Some(_), None) => section.problem("client_key", "the file with the key of client_certificate"),
        (None, Some(_)) => {
            section.problem("client_certificate", "the file with the certificate of client_key");
        }
        (None, None) => {}
    }
    None
}

/// The login for the upstream.
fn credentials(
    section: &mut Section<'_>,
    protection: Protection,
    endpoints: &[Endpoint],
) -> Option<Credentials> {
    let username = section.text("username", String::new(), |text| match text.contains('\0') {
        true => Err("a name without NUL".to_owned()),
        false => Ok(text.to_owned()),
    });
    let password_file = section.optional_path("password_file");
    if !section.sound(&["username", "password_file", "tls", "address"]) {
        return None;
    }
    let password_file = match (username.as_str(), password_file) {
        ("", None) => return None,
        ("", Some(_)) => {
            section.problem("username", "the name to which the password in password_file belongs");
            return None;
        }
        (_, None) => {
            section.problem("password_file", "the file with the password of username, in its first line");
            return None;
        }
        (_, Some(file)) => file,
    };
    let far = endpoints.iter().find(|endpoint| !endpoint.address.is_local());
    if let Some(Endpoint { address, .. }) = far.filter(|_| protection == Protection::Off) {
        let remedy = format!(
            "none without tls = \"starttls\" or \"implicit\": on the way to {address} others could read the password"
        );
        section.problem("username", remedy);
    }
    Some(Credentials { username, password_file })
}

/// `[upstream.timeouts]`; a missing value is taken from `[upstream]`.
fn timeouts(section: &mut Section<'_>, reply: Duration, end: Duration) -> Timeouts {
    let range = SECOND..=HOUR;
    let mail = section.optional_duration("mail", range.clone());
    let rcpt = section.optional_duration("rcpt", range.clone());
    let data = section.optional_duration("data", range);
    Timeouts {
        mail: mail.unwrap_or(reply),
        rcpt: rcpt.unwrap_or(reply),
        data: data.unwrap_or(reply),
        block: reply,
        end: data.unwrap_or(end),
    }
}

/// Whether a connection to `ip` and `port` on this machine would reach `listener`.
fn reaches(ip: std::net::IpAddr, port: u16, listener: &Listen) -> bool {
    let at = listener.address.ip();
    port == listener.address.port() && (at == ip || (at.is_unspecified() && ip.is_loopback()))
}

/// The host name, and its parent domain if that has at least two labels.
fn own_domains(hostname: &str) -> Vec<String> {
    let hostname = hostname.to_ascii_lowercase();
    let parent = hostname.split_once('.').map(|(_, rest)| rest).filter(|rest| rest.contains('.'));
    let parent = parent.map(str::to_owned);
    std::iter::once(hostname).chain(parent).collect()
}
