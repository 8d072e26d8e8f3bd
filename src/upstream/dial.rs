//! From nothing to a connection that is ready for MAIL: TCP, TLS, greeting, EHLO, AUTH or XCLIENT, and EHLO again.
//!
//! All of it happens within `connect_timeout`, however many upstreams and addresses are tried. A refusal on the way is
//! reported in the upstream's words, and never counts against a client. RFC 5321 3.1, 4.1.1.1; RFC 3207; Postfix
//! XCLIENT_README.

use std::fmt::Display;
use std::future::Future;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use rustix::io::Errno;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::connection::{Connection, Loss};
use super::slot::Slot;
use super::{Address, ClientIdentity, Endpoint, Endpoints, Fault, Login, Protection, Settings, xclient};
use crate::net::Stream;
use crate::net::trust::is_an_authoritys;
use crate::smtp::{Extensions, Reply};

/// The service is ready (RFC 5321 4.2.3).
const READY: u16 = 220;

/// A syntax error in arguments (RFC 5321 4.2.3).
const SYNTAX: u16 = 501;

/// The result of a name lookup.
type Addresses = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Looks a name up. Called for every connection, so that an upstream that has moved is found.
pub(super) type Resolver = Box<dyn Fn(&str, u16) -> Addresses + Send + Sync>;

/// The system's resolver.
pub(super) fn system_resolver() -> Resolver {
    Box::new(|host, port| {
        let host = host.to_owned();
        Box::pin(async move { Ok(lookup_host((host, port)).await?.collect()) })
    })
}

/// Why a connection is not ready for a client's MAIL.
pub(super) enum Unready {
    /// The upstream refused XCLIENT or the EHLO behind it, or XCLIENT cannot be sent: that is the answer to this client.
    Refused(Fault),
    /// The upstream cannot be reached, refused us, or did not answer properly.
    Lost(Fault),
}

impl From<Unready> for Fault {
    fn from(unready: Unready) -> Self {
        let (Unready::Refused(fault) | Unready::Lost(fault)) = unready;
        fault
    }
}

impl From<Loss> for Unready {
    fn from(loss: Loss) -> Self {
        Self::Lost(loss.into())
    }
}

impl From<Fault> for Unready {
    fn from(fault: Fault) -> Self {
        Self::Lost(fault)
    }
}

/// Everything needed to reach the upstreams.
pub(super) struct Dialer {
    pub(super) settings: Settings,
    pub(super) tls: Option<Arc<rustls::ClientConfig>>,
    pub(super) login: Option<Login>,
    pub(super) endpoints: Endpoints,
    pub(super) resolver: Resolver,
}

impl Dialer {
    /// Connects to the first upstream of `turn` that is ready for MAIL; with `identity`, on that client's behalf.
    pub(super) async fn dial_until(
        &self,
        mut slot: Slot,
        identity: Option<&Arc<ClientIdentity>>,
        turn: &[usize],
        deadline: Instant,
    ) -> Result<Box<Connection>, Unready> {
        let mut whys = Vec::new();
        for (tried, index) in turn.iter().enumerate() {
            match self.attempt(*index, &mut slot, identity, share(deadline, turn.len() - tried)).await {
                Err(Unready::Lost(fault)) if turn.len() > 1 && !matches!(fault, Fault::Starved(_)) => {
                    let address = self.endpoints.get(*index).map(|endpoint| endpoint.address.to_string());
                    whys.push(format!("{}: {fault}", address.unwrap_or_default()));
                }
                outcome => return outcome,
            }
        }
        Err(Unready::Lost(Fault::Unavailable(whys.join("; "))))
    }

    /// Makes one upstream ready for MAIL. If it is lost, `slot` is still there for another one.
    async fn attempt(
        &self,
        index: usize,
        slot: &mut Slot,
        identity: Option<&Arc<ClientIdentity>>,
        deadline: Instant,
    ) -> Result<Box<Connection>, Unready> {
        let mut connection = self.reach(index, deadline).await?;
        connection.occupy(mem::replace(slot, Slot::nowhere()));
        let Some(identity) = identity else { return Ok(connection) };
        match self.introduce_until(&mut connection, identity, deadline).await {
            Ok(()) => Ok(connection),
            Err(refused @ Unready::Refused(_)) => {
                connection.quit();
                Err(refused)
            }
            Err(lost @ Unready::Lost(_)) => {
                // As at MAIL, this one client may be the cause.
                self.endpoints.hung_up(index, identity.account(), Instant::now());
                *slot = connection.discard();
                Err(lost)
            }
        }
    }

    /// Connects to one particular upstream, ready for MAIL.
    pub(super) async fn dial_one(&self, slot: Slot, index: usize) -> Result<Box<Connection>, Fault> {
        let mut connection = self.reach(index, self.deadline()).await?;
        connection.occupy(slot);
        Ok(connection)
    }

    /// The deadline of an attempt that begins now.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.settings.connect_timeout
    }

    fn late(&self) -> Fault {
        let limit = self.settings.connect_timeout;
        Fault::Unavailable(format!(
            "the upstream was not ready for mail in time (connect_timeout: {limit:?})"
        ))
    }

    /// Connects to one upstream, and records the outcome for its turn and for what clients are offered.
    async fn reach(&self, index: usize, deadline: Instant) -> Result<Box<Connection>, Fault> {
        let endpoint = self.endpoints.get(index);
        let endpoint = endpoint.ok_or_else(|| Fault::Unavailable("there is no upstream".to_owned()))?;
        let reached = timeout_at(deadline, Box::pin(self.greet(endpoint, deadline))).await;
        match reached.unwrap_or_else(|_| Err(self.late())) {
            Ok(mut connection) => {
                connection.endpoint = index;
                self.endpoints.answered(index, &connection.extensions);
                Ok(Box::new(connection))
            }
            Err(fault) => {
                if !matches!(fault, Fault::Starved(_)) {
                    self.endpoints.failed(index, Instant::now());
                }
                Err(fault)
            }
        }
    }

    async fn greet(&self, endpoint: &Endpoint, deadline: Instant) -> Result<Connection, Fault> {
        let mut stream = self.connect(&endpoint.address, deadline).await?;
        if self.settings.protection == Protection::Implicit {
            stream = self.secure(stream, &endpoint.tls_name).await?;
        }
        let mut connection = Connection::new(stream, Slot::nowhere());
        let greeting = connection.reply(self.settings.connect_timeout).await?;
        if greeting.code != READY {
            return Err(refused("our connection", &greeting));
        }
        self.hello(&mut connection).await?;
        if self.settings.protection == Protection::StartTls {
            connection = self.start_tls(connection, &endpoint.tls_name).await?;
        }
        if let Some(login) = &self.login {
            login.authenticate(&mut connection, self.settings.connect_timeout).await?;
            // Dovecot offers the extensions and the SIZE of the MTA behind it only after authentication.
            self.hello(&mut connection).await?;
        }
        Ok(connection)
    }

    /// Looks the name up and tries all of its addresses.
    async fn connect(&self, address: &Address, deadline: Instant) -> Result<Stream, Fault> {
        let (host, port) = match address {
            Address::Tcp { host, port } => (host.as_str(), *port),
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|error| failed(address, &error))?;
                return Ok(Stream::Unix(stream));
            }
        };
        let found = (self.resolver)(host, port).await.map_err(|error| failed(address, &error))?;
        let mut last = unreachable(address, &"the name has no address");
        for (tried, found_address) in found.iter().enumerate() {
            match timeout_at(share(deadline, found.len() - tried), TcpStream::connect(found_address)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true).map_err(|error| failed(address, &error))?;
                    return Ok(Stream::Plain(stream));
                }
                Ok(Err(error)) => last = failed(address, &error),
                Err(_) => last = unreachable(address, &"no answer to the attempt to connect"),
            }
        }
        Err(last)
    }

    /// Makes an idle connection speak for this client. Spends half of the remaining time at most, so that a fresh
    /// connection can be tried if it fails.
    pub(super) async fn introduce(
        &self,
        connection: &mut Connection,
        identity: &Arc<ClientIdentity>,
        deadline: Instant,
    ) -> Result<(), Unready> {
        self.introduce_until(connection, identity, share(deadline, 2)).await
    }

    /// Makes the connection speak for this client, as far as the upstream allows.
    async fn introduce_until(
        &self,
        connection: &mut Connection,
        identity: &Arc<ClientIdentity>,
        deadline: Instant,
    ) -> Result<(), Unready> {
        if !self.settings.names_clients() {
            return Ok(());
        }
        let speaking = Box::pin(self.speak_for(connection, identity));
        timeout_at(deadline, speaking).await.unwrap_or_else(|_| Err(self.late().into()))
    }

    /// Sends XCLIENT where it is offered, and EHLO again.
    async fn speak_for(
        &self,
        connection: &mut Connection,
        identity: &Arc<ClientIdentity>,
    ) -> Result<(), Unready> {
        let address = identity.address.ip().to_canonical();
        let offered = connection.extensions.xclient.clone();
        let command = |address| xclient::command(identity, address, &offered).map_err(Unready::Refused);
        let Some(line) = command(Some(address))? else {
            return Ok(());
        };
        connection.identity = Some(Arc::clone(identity));
        let mut reply = self.say_for_whom(connection, &line).await?;
        // Postfix with `inet_protocols = ipv4` takes no IPv6 address (501 5.5.4), but does take a second attempt. A
        // user name is enough to admit a client without an address; with neither it would be denied relaying for good.
        if reply.code == SYNTAX
            && address.is_ipv6()
            && identity.login.is_some()
            && offers(&offered, "LOGIN")
            && let Some(line) = command(None)?
        {
            reply = self.say_for_whom(connection, &line).await?;
        }
        if reply.code != READY {
            return Err(Unready::Refused(refused("XCLIENT", &reply)));
        }
        if let Some(refusal) = self.say_hello(connection).await? {
            return Err(Unready::Refused(refusal));
        }
        connection.wake();
        Ok(())
    }

    /// XCLIENT_README: the server answers with a greeting and forgets everything before it. Postfix hangs up if
    /// anything was pipelined after the command.
    async fn say_for_whom(&self, connection: &mut Connection, line: &[u8]) -> Result<Reply, Loss> {
        connection.command(line, self.settings.connect_timeout).await
    }

    async fn secure(&self, stream: Stream, name: &str) -> Result<Stream, Fault> {
        let failed =
            |error: &dyn Display| Fault::Unavailable(format!("no TLS with the upstream as {name}: {error}"));
        let config = self.tls.as_ref().ok_or_else(|| failed(&"TLS is not set up"))?;
        let Stream::Plain(stream) = stream else { return Err(failed(&"this is no plain TCP")) };
        let server = ServerName::try_from(name.to_owned()).map_err(|error| failed(&error))?;
        let stream = TlsConnector::from(Arc::clone(config)).connect(server, stream).await;
        Ok(Stream::Client(Box::new(stream.map_err(|error| failed(&untrusted(&error)))?)))
    }

    async fn start_tls(&self, mut connection: Connection, name: &str) -> Result<Connection, Fault> {
        if !connection.extensions.starttls {
            return Err(Fault::Unavailable("the upstream does not offer STARTTLS".to_owned()));
        }
        let reply = connection.command(b"STARTTLS\r\n", self.settings.connect_timeout).await?;
        if reply.code != READY {
            return Err(refused("STARTTLS", &reply));
        }
        // Cleartext after the 220 would be taken for the server's words under TLS (the mirror image of CVE-2011-0411).
        // What has not been read yet breaks the handshake.
        if !connection.inbox.is_empty() {
            return Err(Fault::Protocol("octets after the reply to STARTTLS".to_owned()));
        }
        let (stream, slot) = connection.into_parts();
        let mut connection = Connection::new(self.secure(stream, name).await?, slot);
        // RFC 3207 4.2: what was learned before TLS is void.
        self.hello(&mut connection).await?;
        Ok(connection)
    }

    /// As [`Self::say_hello`]; a refusal is an error.
    async fn hello(&self, connection: &mut Connection) -> Result<(), Fault> {
        self.say_hello(connection).await?.map_or(Ok(()), Err)
    }

    /// Sends EHLO, or HELO where EHLO is unknown (RFC 5321 3.2). Returns the upstream's refusal, if it refused.
    async fn say_hello(&self, connection: &mut Connection) -> Result<Option<Fault>, Loss> {
        let Settings { hostname, connect_timeout: limit, .. } = &self.settings;
        let mut reply = connection.command(format!("EHLO {hostname}\r\n").as_bytes(), *limit).await?;
        if reply.is_completion() {
            connection.extensions = Extensions::from_ehlo(&reply);
            // RFC 8689 2: REQUIRETLS means something only over TLS; ours always verifies.
            connection.extensions.further.require_tls &= matches!(connection.stream, Stream::Client(_));
            return Ok(None);
        }
        if reply.is_permanent() {
            let helo = connection.command(format!("HELO {hostname}\r\n").as_bytes(), *limit).await?;
            let ehlo = mem::replace(&mut reply, helo);
            if reply.is_completion() {
                connection.extensions = Extensions::default();
                return Ok(None);
            }
            let refusal = format!("the upstream refused EHLO: {ehlo}; and HELO: {reply}");
            return Ok(Some(Fault::Unavailable(refusal)));
        }
        Ok(Some(refused("EHLO", &reply)))
    }
}

fn unreachable(address: &Address, why: &dyn Display) -> Fault {
    Fault::Unavailable(format!("cannot reach {address}: {why}"))
}

/// Turns a failure to connect into a fault: the upstream's, or our own lack of descriptors.
fn failed(address: &Address, error: &io::Error) -> Fault {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE) => Fault::Starved(format!(
            "cannot reach {address}: all file descriptors of this process are in use; raise their number (LimitNOFILE= of the service, or `ulimit -n`), or lower [session] max_connections"
        )),
        Some(Errno::NFILE) => Fault::Starved(format!(
            "cannot reach {address}: all file descriptors of this machine are in use; raise `sysctl fs.file-max`, or find out who holds them"
        )),
        _ => unreachable(address, error),
    }
}

/// The deadline of the first of `attempts`: one that gets no answer must leave time for the others.
fn share(deadline: Instant, attempts: usize) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now) / u32::try_from(attempts.max(1)).unwrap_or(u32::MAX)
}

fn offers(offered: &[String], attribute: &str) -> bool {
    offered.iter().any(|offer| offer == attribute)
}

/// Why there is no TLS. `openssl req -x509` makes an authority's certificate unless told otherwise.
fn untrusted(error: &io::Error) -> String {
    match is_an_authoritys(error) {
        true => {
            "its certificate is an authority's (CA:TRUE), and not in the file that `ca` names; add it there, \
                 or make one with `openssl req -addext basicConstraints=critical,CA:FALSE`"
                .to_owned()
        }
        false => error.to_string(),
    }
}

fn refused(what: &str, reply: &Reply) -> Fault {
    Fault::Unavailable(format!("the upstream refused {what}: {reply}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_fault_it_is() {
        let address = Address::Unix("/run/mta".into());
        for (errno, ours) in
            [(Errno::MFILE, true), (Errno::NFILE, true), (Errno::CONNREFUSED, false), (Errno::NOENT, false)]
        {
            let fault = failed(&address, &errno.into());
            assert_eq!(matches!(fault, Fault::Starved(_)), ours, "{fault:?}");
            assert!(fault.to_string().starts_with("cannot reach unix:/run/mta: "), "{fault}");
        }
        assert!(matches!(failed(&address, &io::Error::other("the name is unknown")), Fault::Unavailable(_)));
    }
}
