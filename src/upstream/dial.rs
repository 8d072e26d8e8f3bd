//! From nothing to a connection that is ready for MAIL: TCP, TLS, greeting, EHLO, XCLIENT, EHLO.
//!
//! All of it within `connect_timeout`. A refusal on the way is told with the upstream's words; it never counts against
//! a client. RFC 5321 3.1, 4.1.1.1; RFC 3207; Postfix XCLIENT_README.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::connection::Connection;
use super::slot::Slot;
use super::{ClientIdentity, Fault, Protection, Settings, xclient};
use crate::net::Stream;
use crate::smtp::{Extensions, Reply};

/// The service is ready (RFC 5321 4.2.3).
const READY: u16 = 220;

/// A syntax error in arguments (RFC 5321 4.2.3).
const SYNTAX: u16 = 501;

/// How an upstream is reached.
pub(super) struct Dialer {
    pub(super) settings: Settings,
    pub(super) tls: Option<Arc<rustls::ClientConfig>>,
}

impl Dialer {
    /// Connects as far as MAIL; where `identity` is given, on its behalf. `learned` is told what is offered before XCLIENT.
    pub(super) async fn open(
        &self,
        slot: Slot,
        identity: Option<&Arc<ClientIdentity>>,
        learned: impl FnOnce(&Extensions),
    ) -> Result<Box<Connection>, Fault> {
        let limit = self.settings.connect_timeout;
        let opening = async {
            let mut connection = self.greet(slot).await?;
            learned(&connection.extensions);
            if let Some(identity) = identity {
                self.introduce(&mut connection, identity).await?;
            }
            Ok(Box::new(connection))
        };
        timeout(limit, opening).await.unwrap_or_else(|_| {
            Err(Fault::Unavailable(format!("the upstream was not ready for mail within {limit:?}")))
        })
    }

    async fn greet(&self, slot: Slot) -> Result<Connection, Fault> {
        let mut stream = Stream::Plain(self.connect().await?);
        if self.settings.protection == Protection::Implicit {
            stream = self.secure(stream).await?;
        }
        let mut connection = Connection::new(stream, slot);
        let greeting = connection.reply(self.settings.connect_timeout).await?;
        if greeting.code != READY {
            return Err(refused("our connection", &greeting));
        }
        self.hello(&mut connection).await?;
        if self.settings.protection == Protection::StartTls {
            connection = self.start_tls(connection).await?;
        }
        Ok(connection)
    }

    /// XCLIENT, where it is wanted and offered, and the extensions anew.
    async fn introduce(
        &self,
        connection: &mut Connection,
        identity: &Arc<ClientIdentity>,
    ) -> Result<(), Fault> {
        if !self.settings.xclient {
            return Ok(());
        }
        let address = identity.address.ip().to_canonical();
        let offered = connection.extensions.xclient.clone();
        let Some(line) = xclient::command(identity, Some(address), &offered)? else {
            return Ok(());
        };
        connection.identity = Some(Arc::clone(identity));
        let mut reply = self.say_for_whom(connection, &line).await?;
        // Postfix with `inet_protocols = ipv4` takes no IPv6 address (501 5.5.4), but does take a second attempt. A user
        // name carries a client without an address; what has neither would be denied relaying, for good.
        if reply.code == SYNTAX
            && address.is_ipv6()
            && identity.login.is_some()
            && offers(&offered, "LOGIN")
            && let Some(line) = xclient::command(identity, None, &offered)?
        {
            reply = self.say_for_whom(connection, &line).await?;
        }
        if reply.code != READY {
            return Err(refused("XCLIENT", &reply));
        }
        self.hello(connection).await
    }

    /// XCLIENT_README: the server answers with a greeting, and forgets all that was said before. Postfix hangs up on
    /// anything that was pipelined behind the command.
    async fn say_for_whom(&self, connection: &mut Connection, line: &[u8]) -> Result<Reply, Fault> {
        connection.queue(line);
        Ok(connection.reply(self.settings.connect_timeout).await?)
    }

    async fn connect(&self) -> Result<TcpStream, Fault> {
        let Settings { host, port, .. } = &self.settings;
        let unreachable = |error: &dyn std::fmt::Display| {
            Fault::Unavailable(format!("cannot reach {host}:{port}: {error}"))
        };
        let addresses: Vec<SocketAddr> =
            lookup_host((host.as_str(), *port)).await.map_err(|error| unreachable(&error))?.collect();
        let deadline = Instant::now() + self.settings.connect_timeout;
        let mut last = unreachable(&"the name has no address");
        for (tried, address) in addresses.iter().enumerate() {
            // One address that swallows packets must leave time for the others.
            let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
            let share = deadline.saturating_duration_since(Instant::now()) / left;
            match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true).map_err(|error| unreachable(&error))?;
                    return Ok(stream);
                }
                Ok(Err(error)) => last = unreachable(&error),
                Err(_) => last = unreachable(&"no answer to the attempt to connect"),
            }
        }
        Err(last)
    }

    async fn secure(&self, stream: Stream) -> Result<Stream, Fault> {
        let name = &self.settings.tls_name;
        let failed = |error: &dyn std::fmt::Display| {
            Fault::Unavailable(format!("no TLS with the upstream as {name}: {error}"))
        };
        let config = self.tls.as_ref().ok_or_else(|| failed(&"TLS is not set up"))?;
        let Stream::Plain(stream) = stream else { return Err(failed(&"there is TLS already")) };
        let server = ServerName::try_from(name.clone()).map_err(|error| failed(&error))?;
        let stream = TlsConnector::from(Arc::clone(config))
            .connect(server, stream)
            .await
            .map_err(|error| failed(&error))?;
        Ok(Stream::Client(Box::new(stream)))
    }

    async fn start_tls(&self, mut connection: Connection) -> Result<Connection, Fault> {
        if !connection.extensions.starttls {
            return Err(Fault::Unavailable("the upstream does not offer STARTTLS".to_owned()));
        }
        connection.queue(b"STARTTLS\r\n");
        let reply = connection.reply(self.settings.connect_timeout).await?;
        if reply.code != READY {
            return Err(refused("STARTTLS", &reply));
        }
        // What came in cleartext behind the 220 would be taken for the server's words under TLS (CVE-2011-0411's mirror
        // image). What has not been read yet breaks the handshake.
        if !connection.inbox.is_empty() {
            return Err(Fault::Protocol("octets behind the reply to STARTTLS".to_owned()));
        }
        let (stream, slot) = connection.into_parts();
        let mut connection = Connection::new(self.secure(stream).await?, slot);
        // RFC 3207 4.2: what was learned before TLS is void.
        self.hello(&mut connection).await?;
        Ok(connection)
    }

    /// EHLO, or HELO where that is unknown (RFC 5321 3.2).
    async fn hello(&self, connection: &mut Connection) -> Result<(), Fault> {
        let Settings { hostname, connect_timeout: limit, .. } = &self.settings;
        connection.queue(format!("EHLO {hostname}\r\n").as_bytes());
        let mut reply = connection.reply(*limit).await?;
        if reply.code / 100 == 2 {
            connection.extensions = Extensions::from_ehlo(&reply);
            return Ok(());
        }
        if reply.is_permanent() {
            connection.queue(format!("HELO {hostname}\r\n").as_bytes());
            let ehlo = std::mem::replace(&mut reply, connection.reply(*limit).await?);
            if reply.code / 100 == 2 {
                connection.extensions = Extensions::default();
                return Ok(());
            }
            return Err(Fault::Unavailable(format!("the upstream refused EHLO: {ehlo}; and HELO: {reply}")));
        }
        Err(refused("EHLO", &reply))
    }
}

fn offers(offered: &[String], attribute: &str) -> bool {
    offered.iter().any(|offer| offer == attribute)
}

fn refused(what: &str, reply: &Reply) -> Fault {
    Fault::Unavailable(format!("the upstream refused {what}: {reply}"))
}
