//! The listening sockets: bound as configured, or taken over from the service manager.
//!
//! systemd passes sockets by `LISTEN_FDS` (sd_listen_fds(3)): one with the address of a `[[listen]]` is used for it, so that
//! clients wait during a restart instead of being refused, and ports below 1,024 need no privilege.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use listenfd::ListenFd;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

use super::ServerError;
use crate::config::Listen;
use crate::maillog;

/// How many connections the kernel queues until we accept them.
const BACKLOG: i32 = 1_024;

/// Opens one socket for each `[[listen]]`, in order.
///
/// # Errors
/// An address is in use, not ours, or needs a privilege that we lack; or a socket was passed that no `[[listen]]` names.
pub(super) fn open(listeners: &[Listen]) -> Result<Vec<TcpListener>, ServerError> {
    let mut passed = passed()?;
    let mut sockets = Vec::new();
    for listener in listeners {
        let place = passed.iter().position(|(address, _)| is_same(*address, listener.address));
        sockets.push(match place {
            Some(place) => passed.swap_remove(place).1,
            None => bound(listener.address)?,
        });
    }
    match passed.first() {
        None => Ok(sockets),
        Some((address, _)) => Err(ServerError(format!(
            "the service manager passed a socket at {address}, which no [[listen]] names: add one, or take it out of the socket unit"
        ))),
    }
}

/// Returns the sockets that the service manager passed.
fn passed() -> Result<Vec<(SocketAddr, TcpListener)>, ServerError> {
    let mut manager = ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..manager.len() {
        let unusable = |error: io::Error| {
            ServerError(format!(
                "socket {} of the service manager is none that listens for TCP: {error}; ListenStream= in the socket unit makes one",
                index + 1
            ))
        };
        if let Some(socket) = manager.take_tcp_listener(index).map_err(unusable)? {
            let address = socket.local_addr().map_err(unusable)?;
            sockets.push((address, socket));
        }
    }
    Ok(sockets)
}

/// Whether a passed socket has the configured address; `0.0.0.0` and `[::]` are the same here.
fn is_same(passed: SocketAddr, configured: SocketAddr) -> bool {
    passed.port() == configured.port()
        && (passed.ip().to_canonical() == configured.ip().to_canonical()
            || passed.ip().is_unspecified() && configured.ip().is_unspecified())
}

/// Binds a socket. `[::]` also accepts IPv4; on a machine without IPv6 it becomes `0.0.0.0`.
fn bound(address: SocketAddr) -> Result<TcpListener, ServerError> {
    let socket = match listening(address) {
        Err(error) if no_ipv6(&error) && address.ip().is_unspecified() && address.is_ipv6() => {
            maillog::no_ipv6(address);
            listening(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
        }
        socket => socket,
    };
    socket.map_err(|error| ServerError(format!("cannot listen on {address}: {error}; {}", cure(&error))))
}

fn cure(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "the privilege is missing: let systemd open it (`systemctl enable --now gatepost.socket`, with this address as \
             ListenStream=), or start as root with [process] user"
        }
        _ => "is another server there, or the address not this machine's?",
    }
}

fn listening(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

fn no_ipv6(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
        || code == Some(rustix::io::Errno::ADDRNOTAVAIL.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_privilege_that_is_missing_has_a_cure() {
        assert!(
            cure(&io::Error::from(io::ErrorKind::PermissionDenied)).contains("enable --now gatepost.socket")
        );
        assert!(cure(&io::Error::from(io::ErrorKind::AddrInUse)).contains("another server"));
    }

    #[test]
    fn which_socket_stands_in_for_which_listener() {
        for (passed, configured, expected) in [
            ("[::]:587", "[::]:587", true),
            ("0.0.0.0:587", "[::]:587", true),
            ("[::]:465", "[::]:587", false),
            ("127.0.0.1:587", "[::]:587", false),
            ("127.0.0.1:587", "127.0.0.1:587", true),
            ("[::ffff:127.0.0.1]:587", "127.0.0.1:587", true),
        ] {
            let (passed, configured): (SocketAddr, SocketAddr) =
                (passed.parse().unwrap(), configured.parse().unwrap());
            assert_eq!(is_same(passed, configured), expected, "{passed} {configured}");
        }
    }
}
