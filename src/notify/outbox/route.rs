//! The way to the upstream: lettre's SMTP connection with TLS and login as configured; the first of several endpoints
//! that is ready.
//!
//! Each mail gets one recipient, one transaction and one connection, because lettre's pooled transport cannot tell
//! which command was refused. Only a 5yz to MAIL, RCPT, DATA or the end of data refuses a mail permanently: a server
//! that does not greet us, or whose certificate is wrong, will be mended by somebody.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use lettre::address::Envelope;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{
    AsyncSmtpConnection, AsyncTokioStream, Certificate, Identity, TlsParameters,
};
use lettre::transport::smtp::commands::{self, Data, Ehlo, Rcpt};
use lettre::transport::smtp::extension::{ClientId, MailParameter};
use lettre::transport::smtp::response::Response;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::OutboxError;
use super::file::Meta;
use crate::net::address::{Address, Endpoint, Protection};
use crate::net::trust::KeyPair;
use crate::net::{password, pem};
use crate::visible::{breaks_line, unreadable};

/// The parts of `[upstream]` that our own mail needs.
#[derive(Debug, Clone)]
pub struct Route {
    /// At least one; tried in this order.
    pub endpoints: Vec<Endpoint>,
    /// The use of TLS.
    pub protection: Protection,
    /// Further trust anchors (PEM) beside the system's.
    pub ca: Option<PathBuf>,
    /// Our certificate; lettre sends only the first of its chain.
    pub identity: Option<KeyPair>,
    /// Our login; the password is read anew for each mail.
    pub login: Option<password::Credentials>,
    /// Our EHLO name.
    pub hostname: String,
    /// The time until it is ready for MAIL.
    pub connect_timeout: Duration,
    /// The time for a whole transaction, including the reply to the end of data.
    pub timeout: Duration,
}

/// The outcome for a mail, with the upstream's reply or why there was none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Taken(String),
    Refused(String),
    Deferred(String),
    /// No endpoint can be reached.
    Unreachable(String),
}

/// Sends mail along a route.
pub(super) struct Carrier {
    route: Route,
    /// Each endpoint with its TLS; `None`: unencrypted.
    ways: Vec<(Address, Option<TlsParameters>)>,
    hello: ClientId,
}

impl Carrier {
    pub(super) fn new(route: &Route) -> Result<Self, OutboxError> {
        let way = |endpoint: &Endpoint| {
            let tls = match route.protection {
                Protection::Off => None,
                Protection::StartTls | Protection::Implicit => Some(tls(route, &endpoint.tls_name)?),
            };
            Ok((endpoint.address.clone(), tls))
        };
        let ways = route.endpoints.iter().map(way).collect::<Result<_, OutboxError>>()?;
        Ok(Self { ways, route: route.clone(), hello: ClientId::Domain(route.hostname.clone()) })
    }

    /// Sends one mail.
    pub(super) async fn send(&self, meta: &Meta, message: &[u8]) -> Outcome {
        let envelope = match envelope(meta.from.as_deref(), &meta.to) {
            Ok(envelope) => envelope,
            Err(why) => return Outcome::Refused(why),
        };
        let mut connection = match self.connect().await {
            Ok(connection) => connection,
            Err(outcome) => return outcome,
        };
        if meta.require_tls
            && let Err(outcome) = self.expect_require_tls(&mut connection).await
        {
            return outcome;
        }
        let sending = async {
            if meta.require_tls {
                send_by_require_tls(&mut connection, &envelope, message).await
            } else {
                connection.send(&envelope, message).await
            }
        };
        match timeout(self.route.timeout, sending).await {
            Ok(Ok(response)) => {
                // The upstream has the mail, whatever it replies to QUIT.
                let _ = timeout(QUIT_TIMEOUT, connection.quit()).await;
                Outcome::Taken(reply(&response))
            }
            Ok(Err(error)) if error.is_permanent() => Outcome::Refused(told(&error)),
            Ok(Err(error)) => Outcome::Deferred(told(&error)),
            Err(_) => Outcome::Deferred("the upstream did not answer in time".to_owned()),
        }
    }

    /// Whether the upstream offers REQUIRETLS within TLS whose certificate was verified (RFC 8689 2). lettre keeps only
    /// a little of the EHLO reply.
    async fn expect_require_tls(&self, connection: &mut AsyncSmtpConnection) -> Result<(), Outcome> {
        let lacking = || Outcome::Deferred("the upstream offers no REQUIRETLS".to_owned());
        if !connection.is_encrypted() {
            return Err(lacking());
        }
        let asked = timeout(self.route.timeout, connection.command(Ehlo::new(self.hello.clone()))).await;
        let offer = match asked {
            Ok(Ok(offer)) => offer,
            Ok(Err(error)) => return Err(Outcome::Deferred(told(&error))),
            Err(_) => return Err(Outcome::Deferred("the upstream did not answer in time".to_owned())),
        };
        let offered = offer.message().skip(1).any(|line| line.trim_end().eq_ignore_ascii_case("REQUIRETLS"));
        if offered { Ok(()) } else { Err(lacking()) }
    }

    /// Returns the first connection that is ready for MAIL, else the last reply, or that nobody can be reached.
    async fn connect(&self) -> Result<AsyncSmtpConnection, Outcome> {
        let mut last = Outcome::Unreachable("there is no upstream".to_owned());
        for (address, tls) in &self.ways {
            last = match timeout(self.route.connect_timeout, self.reach(address, tls.as_ref())).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(outcome)) => outcome,
                Err(_) => Outcome::Unreachable("the upstream was not ready in time".to_owned()),
            };
        }
        Err(last)
    }

    /// Connects to one endpoint until it is ready for MAIL.
    async fn reach(
        &self,
        address: &Address,
        tls: Option<&TlsParameters>,
    ) -> Result<AsyncSmtpConnection, Outcome> {
        let refused = |error: lettre::transport::smtp::Error| match error.status() {
            Some(_) => Outcome::Deferred(told(&error)),
            None => Outcome::Unreachable(told(&error)),
        };
        let (first, later) = match self.route.protection {
            Protection::Implicit => (tls, None),
            Protection::StartTls => (None, tls),
            Protection::Off => (None, None),
        };
        let unreachable = |error: io::Error| Outcome::Unreachable(format!("{address}: {error}"));
        let mut connection = match address {
            Address::Tcp { host, port } if first.is_none() => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(unreachable)?;
                // lettre writes the end of data separately and leaves Nagle's algorithm on, which costs 40 ms per mail.
                stream.set_nodelay(true).map_err(unreachable)?;
                AsyncSmtpConnection::connect_with_transport(Box::new(stream), &self.hello).await
            }
            Address::Tcp { host, port } => {
                let (server, limit) = ((host.as_str(), *port), Some(self.route.connect_timeout));
                AsyncSmtpConnection::connect_tokio1(server, limit, &self.hello, first.cloned(), None).await
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(unreachable)?;
                AsyncSmtpConnection::connect_with_transport(Box::new(Local(stream)), &self.hello).await
            }
        }
        .map_err(refused)?;
        if let Some(tls) = later {
            connection.starttls(tls.clone(), &self.hello).await.map_err(refused)?;
        }
        if let Some(password::Credentials { username, password_file }) = &self.route.login {
            if !(connection.is_encrypted() || address.is_local()) {
                let why = "the password is not sent where others can listen".to_owned();
                return Err(Outcome::Deferred(why));
            }
            let password = password::read(password_file);
            let password = password.map_err(|error| Outcome::Deferred(error.to_string()))?;
            let credentials = Credentials::new(username.clone(), password.to_string());
            connection
                .auth(DEFAULT_MECHANISMS, &credentials)
                .await
                .map_err(|error| Outcome::Deferred(told(&error)))?;
        }
        Ok(connection)
    }
}

/// Like lettre's own `send`, with one more parameter. Non-ASCII addresses of a DSN need SMTPUTF8; the message itself is
/// ASCII.
async fn send_by_require_tls(
    connection: &mut AsyncSmtpConnection,
    envelope: &Envelope,
    message: &[u8],
) -> Result<Response, lettre::transport::smtp::Error> {
    let mut parameters = vec![MailParameter::Other { keyword: "REQUIRETLS".to_owned(), value: None }];
    if !envelope.from().into_iter().chain(envelope.to()).all(|address| {
        let text: &str = address.as_ref();
        text.is_ascii()
    }) {
        parameters.push(MailParameter::SmtpUtfEight);
    }
    connection.command(commands::Mail::new(envelope.from().cloned(), parameters)).await?;
    for to in envelope.to() {
        connection.command(Rcpt::new(to.clone(), Vec::new())).await?;
    }
    connection.command(Data).await?;
    connection.message(message).await
}

/// A unix socket in the form that lettre takes.
#[derive(Debug)]
struct Local(UnixStream);

impl AsyncTokioStream for Local {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl AsyncRead for Local {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Local {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

/// How long to wait for the reply to QUIT.
const QUIT_TIMEOUT: Duration = Duration::from_secs(2);

fn tls(route: &Route, name: &str) -> Result<TlsParameters, OutboxError> {
    let wrong = |error: lettre::transport::smtp::Error| OutboxError::Tls(told(&error));
    let mut builder = TlsParameters::builder(name.to_owned());
    if let Some(ca) = &route.ca {
        let anchors = pem::certificates(ca).map_err(|error| OutboxError::Tls(error.to_string()))?;
        for anchor in anchors {
            builder = builder.add_root_certificate(Certificate::from_der(anchor.to_vec()).map_err(wrong)?);
        }
    }
    if let Some(KeyPair { certificate, private_key }) = &route.identity {
        let chain = pem::certificates(certificate).map_err(|error| OutboxError::Tls(error.to_string()))?;
        let key =
            std::fs::read(private_key).map_err(|cause| OutboxError::Tls(unreadable(private_key, &cause)))?;
        if let Some(own) = chain.first() {
            // lettre 0.11 takes what it calls PEM here for DER, and for a single certificate.
            builder = builder.identify_with(Identity::from_pem(own, &key).map_err(wrong)?);
        }
    }
    builder.build_rustls().map_err(wrong)
}

fn envelope(from: Option<&str>, to: &str) -> Result<Envelope, String> {
    let from = from.map(address).transpose()?;
    Envelope::new(from, vec![address(to)?]).map_err(|error| error.to_string())
}

/// Accepts anything that is allowed between angle brackets. lettre's own check accepts fewer addresses than RFC 5321.
fn address(text: &str) -> Result<lettre::Address, String> {
    let wrong = || format!("`{}` is no address", text.escape_debug());
    let (local_part, domain) = text.rsplit_once('@').ok_or_else(wrong)?;
    let ends_path = |c: char| matches!(c, ' ' | '<' | '>');
    // RFC 5321 4.1.2: within a Quoted-string blanks and brackets are harmless.
    let quoted = local_part.len() >= 2 && local_part.starts_with('"') && local_part.ends_with('"');
    let safe = !text.contains(breaks_line)
        && !domain.contains(ends_path)
        && (quoted || !local_part.contains(ends_path));
    if local_part.is_empty() || domain.is_empty() || !safe {
        return Err(wrong());
    }
    Ok(lettre::Address::new_dangerous(local_part, domain))
}

/// The upstream's reply in one line.
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
