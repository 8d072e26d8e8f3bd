//! One stream type for plain TCP, TLS of either side, and socket files of this machine.
//!
//! It delegates to the stream inside, vectored writes included, and adds no buffer, no time-out and no protocol.

use std::io::{self, BufRead as _, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::CipherSuite;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::certificate::Facts;

/// A plain TCP connection, TLS over TCP, or a unix socket.
pub enum Stream {
    /// Plain TCP.
    Plain(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
    /// TLS with us as the server.
    Server(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    /// TLS with us as the client.
    Client(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

/// Version and cipher suite of a TLS session, as logs and headers name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsSession {
    /// `TLSv1.3`
    pub version: &'static str,
    /// `TLS_AES_256_GCM_SHA384`
    pub cipher: &'static str,
}

impl Stream {
    /// Version and cipher suite; `None` without TLS.
    pub fn tls(&self) -> Option<TlsSession> {
        let (version, suite) = match self {
            Self::Plain(_) | Self::Unix(_) => return None,
            Self::Server(stream) => {
                (stream.get_ref().1.protocol_version(), stream.get_ref().1.negotiated_cipher_suite())
            }
            Self::Client(stream) => {
                (stream.get_ref().1.protocol_version(), stream.get_ref().1.negotiated_cipher_suite())
            }
        };
        let version = match version {
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLS",
        };
        Some(TlsSession { version, cipher: suite.map_or("", |suite| name_of(suite.suite())) })
    }

    /// Whether [`Self::channel_binding`] returns a value: only as the server of a TLS 1.3 session. RFC 9266 4.2 also
    /// allows TLS 1.2 with an extended master secret, but rustls does not tell whether there is one, and clients use
    /// `tls-unique` with TLS 1.2.
    pub fn can_bind(&self) -> bool {
        let Self::Server(stream) = self else { return false };
        stream.get_ref().1.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3)
    }

    /// The `tls-exporter` channel binding (RFC 9266 2): a value that only the two ends of this TLS session know.
    pub fn channel_binding(&self) -> Option<[u8; 32]> {
        let Self::Server(stream) = self else { return None };
        let session = &stream.get_ref().1;
        let exported = session.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b""));
        exported.ok().filter(|_| self.can_bind())
    }

    /// The names in the client's verified certificate, the most reliable first; empty without one.
    pub fn client_names(&self) -> Vec<String> {
        let Self::Server(stream) = self else { return Vec::new() };
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let facts = chain.first().and_then(|certificate| Facts::read(certificate));
        facts.iter().flat_map(Facts::identities).map(str::to_owned).collect()
    }

    /// The unread rest of the first record that TLS has decrypted, in place and without a copy; always empty unless we
    /// are the TLS server.
    #[inline(never)] // see "The code of a message" in docs/performance.md
    pub fn decrypted(&mut self) -> &[u8] {
        match self {
            Self::Server(stream) => stream.get_mut().1.reader().into_first_chunk().unwrap_or_default(),
            Self::Plain(_) | Self::Unix(_) | Self::Client(_) => &[],
        }
    }

    /// The number of octets that TLS has decrypted and nobody has read yet, over all records.
    pub fn decrypted_in_all(&mut self) -> usize {
        match self {
            // Reads nothing from the socket. The next read reports an error again.
            Self::Server(stream) => {
                stream.get_mut().1.process_new_packets().map_or(0, |state| state.plaintext_bytes_to_read())
            }
            Self::Plain(_) | Self::Unix(_) | Self::Client(_) => 0,
        }
    }

    /// Consumes up to `octets` octets of [`Self::decrypted`].
    pub fn used(&mut self, octets: usize) {
        let octets = octets.min(self.decrypted().len());
        if let Self::Server(stream) = self {
            stream.get_mut().1.reader().consume(octets);
        }
    }

    /// Waits, without a buffer, until something can be read or the other side has closed. Octets decrypted by then are
    /// in [`Self::decrypted`]. Cancel-safe.
    ///
    /// # Errors
    /// Errors of reading.
    pub async fn readable(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.readable().await,
            Self::Unix(stream) => stream.readable().await,
            Self::Server(stream) => stream.fill_buf().await.map(drop),
            Self::Client(stream) => stream.fill_buf().await.map(drop),
        }
    }

    /// Whether nobody else can listen in: TLS, or the peer is on this machine.
    pub fn is_private(&self) -> bool {
        match self {
            Self::Plain(stream) => {
                stream.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback())
            }
            Self::Unix(_) | Self::Server(_) | Self::Client(_) => true,
        }
    }
}

/// The IANA name; rustls gives those of TLS 1.3 another prefix.
fn name_of(suite: CipherSuite) -> &'static str {
    match suite.as_str().unwrap_or_default() {
        "TLS13_AES_128_GCM_SHA256" => "TLS_AES_128_GCM_SHA256",
        "TLS13_AES_256_GCM_SHA384" => "TLS_AES_256_GCM_SHA384",
        "TLS13_CHACHA20_POLY1305_SHA256" => "TLS_CHACHA20_POLY1305_SHA256",
        name => name,
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Server(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Client(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Server(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Client(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Server(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Client(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Server(stream) => Pin::new(stream).poll_flush(cx),
            Self::Client(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Server(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Client(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_has_its_name() {
        let suites = rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;
        let names: Vec<&str> = suites.iter().map(|suite| name_of(suite.suite())).collect();
        assert!(names.iter().all(|name| name.starts_with("TLS_")), "{names:?}");
        assert!(names.contains(&"TLS_AES_256_GCM_SHA384"), "{names:?}");
    }
}
