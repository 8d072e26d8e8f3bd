//! Sockets that accept clients: limited in number, closed when the service shuts down.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::ServerError;
use super::slots::{Slot, Slots};
use crate::config::{Listen, ListenTls};
use crate::maillog;
use crate::net::proxy::{self, Origin, ProxyError};
use crate::net::{self, Stream};
use crate::parts::Parts;
use crate::session::texts;
use crate::submission::{self, Peer};

/// How long to wait after the system has refused a connection for want of descriptors or memory.
const BACK_OFF: Duration = Duration::from_millis(100);

/// How long to wait for a proxy's header, which it sends at once.
const PROXY_PATIENCE: Duration = Duration::from_secs(10);

/// How many of those turned away are given time to read why; any more are closed at once. A flood beyond `max_connections` must
/// not use up the descriptors left for files and the upstream.
static LINGERING: Semaphore = Semaphore::const_new(64);

/// One bound socket.
pub(super) struct Listener {
    socket: TcpListener,
    /// Where it is bound, with the real port.
    pub address: SocketAddr,
    /// How TLS begins.
    pub tls: ListenTls,
    /// The networks whose connections begin with a PROXY header.
    proxies: Arc<[IpNet]>,
}

impl Listener {
    /// Wraps a bound socket.
    ///
    /// # Errors
    /// The runtime cannot wait for it.
    pub(super) fn new(listen: &Listen, socket: std::net::TcpListener) -> Result<Self, ServerError> {
        let unusable =
            |error: io::Error| ServerError(format!("cannot listen on {}: {error}", listen.address));
        socket.set_nonblocking(true).map_err(unusable)?;
        let socket = TcpListener::from_std(socket).map_err(unusable)?;
        let address = socket.local_addr().map_err(unusable)?;
        Ok(Self { socket, address, tls: listen.tls, proxies: listen.proxy_protocol.clone().into() })
    }

    /// Accepts clients until the service shuts down.
    pub(super) async fn run(self, parts: Parts, slots: Slots) {
        let mut shutdown = parts.shutdown.clone();
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                _ = shutdown.wait_for(|down| *down) => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let (parts, tls) = (parts.current(), self.tls);
                    if self.proxies.iter().any(|network| network.contains(&peer.ip().to_canonical())) {
                        tokio::spawn(admit_proxied(parts, stream, peer, tls, slots.clone()));
                    } else {
                        let slot = slots.take(peer.ip(), Instant::now());
                        admit(parts, stream, Peer::Client(peer), tls, slot, Instant::now());
                    }
                }
                Err(error) => {
                    // EMFILE, ENFILE, ENOMEM: clients already connected go on.
                    maillog::accept_failed(self.address, &error.to_string());
                    tokio::time::sleep(BACK_OFF).await;
                }
            }
        }
    }
}

/// Reads the client's address from the PROXY header, then goes on as if the client itself had connected.
async fn admit_proxied(parts: Parts, mut stream: TcpStream, proxy: SocketAddr, tls: ListenTls, slots: Slots) {
    let connected = Instant::now();
    let patience = PROXY_PATIENCE.min(parts.config.session.auth_timeout);
    let peer = match timeout(patience, proxy::read(&mut stream)).await {
        Ok(Ok(Origin::Client(client))) => Peer::Client(client),
        Ok(Ok(Origin::Own)) => Peer::Proxy(proxy),
        Ok(Err(ProxyError::Broken(why))) => return maillog::no_proxy_header(proxy, why),
        // Health checks may do no more than connect.
        Ok(Err(ProxyError::Io(error))) => return maillog::handshake_failed(proxy, &error.to_string()),
        Err(_) => return maillog::no_proxy_header(proxy, "timed out"),
    };
    let slot = slots.take(peer.address().ip(), Instant::now());
    admit(parts, stream, peer, tls, slot, connected);
}

/// Serves a client. Each step is a task of its own, no bigger than what it waits for: most connections are idle, and a
/// handshake takes more room than what follows.
fn admit(
    parts: Parts,
    stream: TcpStream,
    peer: Peer,
    tls: ListenTls,
    slot: Option<Slot>,
    connected: Instant,
) {
    let Some(slot) = slot else {
        maillog::too_many_connections(peer.address());
        turn_away(stream, tls);
        return;
    };
    // Replies are whole writes; waiting to join them costs 40 ms each.
    let _ = stream.set_nodelay(true);
    match tls {
        // A task of its own, so that nothing a session does ends the listener.
        ListenTls::StartTls => {
            tokio::spawn(async move { converse(parts, Stream::Plain(stream), peer, connected, slot) })
        }
        ListenTls::Implicit => tokio::spawn(shake_hands(parts, stream, peer, connected, slot)),
    };
}

async fn shake_hands(parts: Parts, stream: TcpStream, peer: Peer, connected: Instant, slot: Slot) {
    let session = &parts.config.session;
    let limit = session.tls_timeout.min(session.auth_timeout);
    let shaken = tokio::select! {
        biased;
        shaken = timeout(limit, parts.tls.accept(stream)) => shaken,
        () = slot.evicted() => return,
    };
    match shaken {
        Ok(Ok(stream)) => converse(parts, stream, peer, connected, slot),
        Ok(Err(error)) => maillog::handshake_failed(peer.address(), &error.to_string()),
        Err(_) => maillog::handshake_failed(peer.address(), "timed out"),
    }
}

fn converse(parts: Parts, stream: Stream, peer: Peer, connected: Instant, slot: Slot) {
    let mut conversation = Box::pin(submission::serve(parts, stream, peer, connected));
    tokio::spawn(async move {
        tokio::select! {
            biased;
            () = &mut conversation => {}
            () = slot.evicted() => {}
        }
        // First what the session holds is dropped, then its place.
        drop(conversation);
        drop(slot);
    });
}

/// Turns away a client over a connection limit: 421 in place of the greeting; on an implicit listener nothing, since TLS is not
/// up.
fn turn_away(mut stream: TcpStream, tls: ListenTls) {
    if tls != ListenTls::StartTls {
        return;
    }
    let mut reply = Vec::new();
    texts::TOO_MANY_CONNECTIONS.encode(&mut reply);
    let Ok(place) = LINGERING.try_acquire() else {
        let _ = stream.try_write(&reply);
        return;
    };
    tokio::spawn(async move {
        net::linger(&mut stream, &reply).await;
        drop((stream, place));
    });
}
