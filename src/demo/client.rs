//! The mail programs of the story: a minimal SMTP client over TLS with AUTH PLAIN, one command at a time.
//!
//! It does what a mail program does and reports every reply, so that the story can show it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::cast::{Mail, Person};
use crate::net::Stream;
use crate::smtp::Reply;
use crate::smtp::mail_data::DotStuffer;

/// The time for each reply.
const PATIENCE: Duration = Duration::from_secs(15);
/// The name in the throw-away certificate.
const SERVER: &str = "localhost";

/// Why a conversation was broken off.
#[derive(Debug, thiserror::Error)]
#[error("the SMTP conversation broke off {at}: {why}")]
pub(super) struct Broken {
    at: String,
    why: String,
}

impl Broken {
    fn new(at: &str, why: &impl ToString) -> Self {
        Self { at: at.to_owned(), why: why.to_string() }
    }
}

/// How TLS begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Security {
    /// With STARTTLS, as on port 587.
    StartTls,
    /// From the first octet, as on port 465.
    Implicit,
}

/// Where and how to connect.
#[derive(Clone)]
pub(super) struct Access {
    pub(super) address: SocketAddr,
    pub(super) security: Security,
    pub(super) tls: Arc<ClientConfig>,
}

/// What a mail program saw of one message.
pub(super) struct Sent {
    /// The reply to each recipient, in order.
    pub(super) recipients: Vec<Reply>,
    /// The reply to the end of data; `None` if no recipient was accepted.
    pub(super) end: Option<Reply>,
}

/// One open connection.
pub(super) struct Client {
    stream: Stream,
    buffered: Vec<u8>,
}

impl Client {
    /// Connects, begins TLS and logs in.
    ///
    /// # Errors
    /// The server refuses, closes the connection or does not reply.
    pub(super) async fn log_in(access: &Access, person: &Person) -> Result<Self, Broken> {
        let mut client = Self::connect(access).await?;
        let plain = STANDARD.encode(format!("\0{}\0{}", person.name, person.password));
        let reply = client.converse("at AUTH", format!("AUTH PLAIN {plain}\r\n").as_bytes()).await?;
        if reply.code == 235 { Ok(client) } else { Err(Broken::new("at AUTH", &reply)) }
    }

    async fn connect(access: &Access) -> Result<Self, Broken> {
        let at = "at the start";
        let stream = timeout(PATIENCE, TcpStream::connect(access.address)).await;
        let stream = stream.map_err(|_| Broken::new(at, &"no connection in time"))?;
        let stream = stream.map_err(|error| Broken::new(at, &error))?;
        let mut client = match access.security {
            Security::Implicit => Self::over_tls(stream, access).await?,
            Security::StartTls => {
                let mut plain = Self { stream: Stream::Plain(stream), buffered: Vec::new() };
                plain.greeted_with(at, 220).await?;
                plain.ask(at, "EHLO demo.example.org", 250).await?;
                plain.ask("at STARTTLS", "STARTTLS", 220).await?;
                match plain.stream {
                    Stream::Plain(stream) => Self::over_tls(stream, access).await?,
                    _ => return Err(Broken::new(at, &"TLS in TLS")),
                }
            }
        };
        if access.security == Security::Implicit {
            client.greeted_with(at, 220).await?;
        }
        client.ask("at EHLO", "EHLO demo.example.org", 250).await?;
        Ok(client)
    }

    async fn over_tls(stream: TcpStream, access: &Access) -> Result<Self, Broken> {
        let at = "in the TLS handshake";
        let name = ServerName::try_from(SERVER).map_err(|error| Broken::new(at, &error))?;
        let handshake = TlsConnector::from(Arc::clone(&access.tls)).connect(name, stream);
        let stream = timeout(PATIENCE, handshake).await.map_err(|_| Broken::new(at, &"no answer in time"))?;
        let stream = stream.map_err(|error| Broken::new(at, &error))?;
        Ok(Self { stream: Stream::Client(Box::new(stream)), buffered: Vec::new() })
    }

    /// Sends a mail to those recipients that are accepted, as mail programs for lists do.
    ///
    /// # Errors
    /// MAIL is refused, or the conversation is broken off.
    pub(super) async fn send(&mut self, mail: &Mail) -> Result<Sent, Broken> {
        self.ask("at MAIL", &format!("MAIL FROM:<{}>", mail.from), 250).await?;
        let mut recipients = Vec::new();
        for recipient in &mail.to {
            recipients.push(self.rcpt(recipient).await?);
        }
        let end = if recipients.iter().any(Reply::is_completion) {
            Some(self.data(&mail.content()).await?)
        } else {
            self.ask("at RSET", "RSET", 250).await?;
            None
        };
        Ok(Sent { recipients, end })
    }

    /// Sends MAIL.
    ///
    /// # Errors
    /// MAIL is refused, or the conversation is broken off.
    pub(super) async fn mail(&mut self, from: &str) -> Result<Reply, Broken> {
        self.ask("at MAIL", &format!("MAIL FROM:<{from}>"), 250).await
    }

    /// Sends RCPT; returns any reply.
    ///
    /// # Errors
    /// The conversation is broken off.
    pub(super) async fn rcpt(&mut self, recipient: &str) -> Result<Reply, Broken> {
        self.converse("at RCPT", format!("RCPT TO:<{recipient}>\r\n").as_bytes()).await
    }

    /// Sends DATA and the message; returns the reply to its end.
    ///
    /// # Errors
    /// DATA is refused, or the conversation is broken off.
    pub(super) async fn data(&mut self, content: &str) -> Result<Reply, Broken> {
        self.ask("at DATA", "DATA", 354).await?;
        let mut wire = Vec::new();
        let mut stuffer = DotStuffer::new();
        stuffer.stuff(content.as_bytes(), &mut wire);
        wire.extend_from_slice(stuffer.terminator());
        self.converse("at the end of data", &wire).await
    }

    /// Sends NOOP; returns any reply.
    ///
    /// # Errors
    /// The conversation is broken off.
    pub(super) async fn noop(&mut self) -> Result<Reply, Broken> {
        self.converse("at NOOP", b"NOOP\r\n").await
    }

    /// Sends QUIT.
    ///
    /// # Errors
    /// The conversation is broken off.
    pub(super) async fn quit(mut self) -> Result<(), Broken> {
        self.ask("at QUIT", "QUIT", 221).await.map(drop)
    }

    async fn ask(&mut self, at: &str, command: &str, expected: u16) -> Result<Reply, Broken> {
        let reply = self.converse(at, format!("{command}\r\n").as_bytes()).await?;
        if reply.code == expected { Ok(reply) } else { Err(Broken::new(at, &reply)) }
    }

    async fn greeted_with(&mut self, at: &str, expected: u16) -> Result<Reply, Broken> {
        self.await_reply(at)
            .await
            .and_then(|reply| if reply.code == expected { Ok(reply) } else { Err(Broken::new(at, &reply)) })
    }

    async fn converse(&mut self, at: &str, octets: &[u8]) -> Result<Reply, Broken> {
        let written = timeout(PATIENCE, async {
            self.stream.write_all(octets).await?;
            self.stream.flush().await
        });
        let written = written.await.map_err(|_| Broken::new(at, &"the server reads no more"))?;
        written.map_err(|error| Broken::new(at, &error))?;
        self.await_reply(at).await
    }

    async fn await_reply(&mut self, at: &str) -> Result<Reply, Broken> {
        timeout(PATIENCE, self.reply(at)).await.map_err(|_| Broken::new(at, &"no reply in time"))?
    }

    async fn reply(&mut self, at: &str) -> Result<Reply, Broken> {
        loop {
            let parsed = Reply::parse(&self.buffered).map_err(|error| Broken::new(at, &error))?;
            if let Some((reply, taken)) = parsed {
                self.buffered.drain(..taken);
                return Ok(reply);
            }
            let read = self.stream.read_buf(&mut self.buffered).await;
            if read.map_err(|error| Broken::new(at, &error))? == 0 {
                return Err(Broken::new(at, &"the server closed the connection"));
            }
        }
    }
}
