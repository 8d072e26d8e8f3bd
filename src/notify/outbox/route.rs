//! The way to the upstream: lettre's SMTP connection, TLS as configured.
//!
//! One mail, one recipient, one transaction, one connection: lettre's pooled transport cannot tell what a refusal was
//! about. Only a 5yz to MAIL, RCPT, DATA or the end of data refuses a mail for good:
//! a server that does not greet us, or whose certificate is wrong, is a matter that somebody will mend.

use std::error::Error as _;
use std::path::PathBuf;
use std::time::Duration;

use lettre::Address;
use lettre::address::Envelope;
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::Response;
use tokio::time::timeout;

use super::OutboxError;
use crate::net::pem;

/// How the connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// Not at all.
    Off,
    /// STARTTLS, required.
    StartTls,
    /// TLS from the first octet.
    Implicit,
}

/// `[upstream]`, as far as our own mail needs it.
#[derive(Debug, Clone)]
pub struct Route {
    /// Host name or IP literal.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// TLS.
    pub protection: Protection,
    /// The name that the certificate must have.
    pub tls_name: String,
    /// Further trust anchors (PEM) beside the system's.
    pub ca: Option<PathBuf>,
    /// Our EHLO name.
    pub hostname: String,
    /// Until it is ready for MAIL.
    pub connect_timeout: Duration,
    /// For a whole transaction, the reply to the end of data included.
    pub timeout: Duration,
}

/// What became of a mail; with the upstream's reply, or why there was none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Taken(String),
    Refused(String),
    Deferred(String),
    /// Nobody is there to be asked.
    Unreachable(String),
}

/// Takes mails along a route.
pub(super) struct Carrier {
    route: Route,
    /// `None`: unprotected.
    tls: Option<TlsParameters>,
    hello: ClientId,
}

impl Carrier {
    pub(super) fn new(route: &Route) -> Result<Self, OutboxError> {
        let tls = match route.protection {
            Protection::Off => None,
            Protection::StartTls | Protection::Implicit => Some(tls(route)?),
        };
        Ok(Self { route: route.clone(), tls, hello: ClientId::Domain(route.hostname.clone()) })
    }

    /// Sends one mail.
    pub(super) async fn send(&self, from: Option<&str>, to: &str, message: &[u8]) -> Outcome {
        let envelope = match envelope(from, to) {
            Ok(envelope) => envelope,
            Err(why) => return Outcome::Refused(why),
        };
        let mut connection = match timeout(self.route.connect_timeout, self.connect()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) if error.status().is_none() => return Outcome::Unreachable(told(&error)),
            Ok(Err(error)) => return Outcome::Deferred(told(&error)),
            Err(_) => return Outcome::Unreachable("the upstream was not ready in time".to_owned()),
        };
        match timeout(self.route.timeout, connection.send(&envelope, message)).await {
            Ok(Ok(response)) => {
                // It has the mail, whatever it says to this.
                let _ = timeout(QUIT_TIMEOUT, connection.quit()).await;
                Outcome::Taken(reply(&response))
            }
            Ok(Err(error)) if error.is_permanent() => Outcome::Refused(told(&error)),
            Ok(Err(error)) => Outcome::Deferred(told(&error)),
            Err(_) => Outcome::Deferred("the upstream did not answer in time".to_owned()),
        }
    }

    /// Ready for MAIL.
    async fn connect(&self) -> Result<AsyncSmtpConnection, lettre::transport::smtp::Error> {
        let Route { host, port, protection, connect_timeout, .. } = &self.route;
        let (first, later) = match protection {
            Protection::Implicit => (self.tls.clone(), None),
            Protection::StartTls => (None, self.tls.clone()),
            Protection::Off => (None, None),
        };
        let address = (host.as_str(), *port);
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(address, Some(*connect_timeout), &self.hello, first, None)
                .await?;
        if let Some(tls) = later {
            connection.starttls(tls, &self.hello).await?;
        }
        Ok(connection)
    }
}

/// How long is waited for the reply to QUIT.
const QUIT_TIMEOUT: Duration = Duration::from_secs(2);

fn tls(route: &Route) -> Result<TlsParameters, OutboxError> {
    let wrong = |error: lettre::transport::smtp::Error| OutboxError::Tls(told(&error));
    let mut builder = TlsParameters::builder(route.tls_name.clone());
    if let Some(ca) = &route.ca {
        let anchors = pem::certificates(ca).map_err(|error| OutboxError::Tls(error.to_string()))?;
        for anchor in anchors {
            builder = builder.add_root_certificate(Certificate::from_der(anchor.to_vec()).map_err(wrong)?);
        }
    }
    builder.build_rustls().map_err(wrong)
}

fn envelope(from: Option<&str>, to: &str) -> Result<Envelope, String> {
    let from = from.map(address).transpose()?;
    Envelope::new(from, vec![address(to)?]).map_err(|error| error.to_string())
}

/// Whatever can stand between brackets. lettre's own check knows fewer addresses than RFC 5321 does.
fn address(text: &str) -> Result<Address, String> {
    let wrong = || format!("`{}` is no address", text.escape_debug());
    let (local_part, domain) = text.rsplit_once('@').ok_or_else(wrong)?;
    let unsafe_here = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    let ends_path = |c: char| matches!(c, ' ' | '<' | '>');
    // RFC 5321 4.1.2: within a Quoted-string blanks and brackets are harmless.
    let quoted = local_part.len() >= 2 && local_part.starts_with('"') && local_part.ends_with('"');
    let safe = !text.contains(unsafe_here)
        && !domain.contains(ends_path)
        && (quoted || !local_part.contains(ends_path));
    if local_part.is_empty() || domain.is_empty() || !safe {
        return Err(wrong());
    }
    Ok(Address::new_dangerous(local_part, domain))
}

/// The upstream's reply, in one line.
fn reply(response: &Response) -> String {
    let text: Vec<&str> = response.message().collect();
    format!("{} {}", response.code(), text.join(" ")).trim_end().to_owned()
}

/// A refusal as the upstream put it, any other error as lettre does.
fn told(error: &lettre::transport::smtp::Error) -> String {
    match (error.status(), error.source()) {
        (Some(code), Some(text)) => format!("{code} {text}"),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_stand_between_brackets_is_an_address() {
        let long = format!("{}@example.org", "x".repeat(70));
        for good in [
            "anna@example.org",
            "anna@mx_1.example.org",
            "a@[192.0.2.1]",
            "\"a b\"@example.org",
            "grün@example.org",
            &long,
        ] {
            assert_eq!(address(good).map(|address| address.to_string()), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "anna",
            "@example.org",
            "anna@",
            "a b@example.org",
            "a@b c",
            "a@b>\r\nDATA",
            "a\n@b.c",
            "a@b.c> X=<y",
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
        assert!(envelope(None, "a@b.c").is_ok_and(|envelope| envelope.from().is_none()));
    }
}
