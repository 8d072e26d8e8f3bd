//! TLS configuration: the server's certificates towards clients, the trust anchors towards the upstream.
//!
//! TLS 1.2 (RFC 5246) and 1.3 (RFC 8446). The provider aws-lc-rs is named explicitly, so that no other one linked in by
//! a dependency can take its place. Tickets are stateless (RFC 5077, RFC 8446 4.6.1): a session costs no memory once it
//! is closed. Their keys change every six hours (`tickets.rs`).

use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use rustls::CipherSuite;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};

use super::Stream;
pub use super::served::{EXPIRY_WARNING, Expiring, Served};
use super::tickets::Tickets;
pub use super::trust::client_config;
use super::trust::{KeyPair, anchors_of};

/// Why TLS cannot be set up; names the file and the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(pub String);

/// Performs TLS handshakes with clients. Cheap to clone.
#[derive(Clone)]
pub struct Acceptor {
    acceptor: TlsAcceptor,
    served: Arc<Served>,
}

impl Acceptor {
    /// Serves these pairs, the first of which is the default. With `client_ca`, clients are asked for a certificate of
    /// one of its authorities; they may do without.
    ///
    /// # Errors
    /// A file is missing, encrypted, or holds no certificate or key, or a pair does not match.
    pub fn open(pairs: Vec<KeyPair>, client_ca: Option<&Path>) -> Result<Self, TlsError> {
        Self::with(Served::open(pairs)?, client_ca)
    }

    /// Like [`Self::open`], but all pairs are additional ones: the default does not exist yet.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_further(pairs: Vec<KeyPair>, client_ca: Option<&Path>) -> Result<Self, TlsError> {
        Self::with(Served::open_further(pairs)?, client_ca)
    }

    fn with(served: Served, client_ca: Option<&Path>) -> Result<Self, TlsError> {
        let served = Arc::new(served);
        let config = with_certificates(Arc::clone(&served), client_ca, Arc::new(tickets()?))?;
        Ok(Self { acceptor: TlsAcceptor::from(config), served })
    }

    /// The certificates in use.
    pub fn served(&self) -> &Arc<Served> {
        &self.served
    }

    /// Performs the handshake.
    ///
    /// # Errors
    /// The client accepts nothing that we offer, or the connection is lost.
    pub async fn accept(&self, tcp: TcpStream) -> std::io::Result<Stream> {
        Ok(Stream::Server(Box::new(self.acceptor.accept(tcp).await?)))
    }
}

/// The server's configuration: TLS 1.2 and 1.3 with this certificate chain and key. Checks that they match.
///
/// # Errors
/// A file is missing, encrypted, or holds no certificate or key, or the two do not match.
#[cfg(test)]
pub(crate) fn server_config(
    certificate: &Path,
    private_key: &Path,
) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let pair = KeyPair { certificate: certificate.to_owned(), private_key: private_key.to_owned() };
    with_certificates(Arc::new(Served::open(vec![pair])?), None, Arc::new(tickets()?))
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn ours(cause: rustls::Error) -> TlsError {
    TlsError(format!("TLS cannot be set up: {cause}"))
}

fn tickets() -> Result<Tickets, TlsError> {
    Tickets::new().map_err(ours)
}

fn with_certificates(
    served: Arc<Served>,
    client_ca: Option<&Path>,
    tickets: Arc<Tickets>,
) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let config = rustls::ServerConfig::builder_with_provider(server_provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(ours)?;
    let config = match client_ca {
        None => config.with_no_client_auth(),
        Some(path) => {
            let anchors = Arc::new(anchors_of(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(anchors, provider())
                .allow_unauthenticated()
                .build()
                .map_err(|cause| TlsError(format!("{}: {cause}", path.display())))?;
            config.with_client_cert_verifier(verifier)
        }
    };
    let mut config = config.with_cert_resolver(served);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = tickets;
    // One is enough for a mail program, which opens one connection at a time; each costs octets and CPU.
    config.send_tls13_tickets = 1;
    // All suites are good, but a client's broken preference should not decide.
    config.ignore_client_order = true;
    Ok(Arc::new(config))
}

/// The provider with its suites ordered by cost: those with SHA-384 last, which take a fifth of a session with one
/// message (docs/decisions/0019-the-order-of-cipher-suites.md).
fn server_provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| {
        matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_256_GCM_SHA384
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
        )
    });
    Arc::new(provider)
}

/// The crypto provider of all TLS in this program.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rustls::pki_types::pem::PemObject;
    use rustls::{ClientConnection, ServerConnection};

    use super::super::self_signed::generate;
    use super::*;

    /// Writes a pair to disk.
    fn pair(folder: &Path, name: &str) -> (PathBuf, PathBuf, String) {
        let (certificate, key) = generate(&["mail.example.org"]).unwrap();
        let paths = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
        std::fs::write(&paths.0, &certificate).unwrap();
        std::fs::write(&paths.1, key).unwrap();
        (paths.0, paths.1, certificate)
    }

    fn client(
        certificate: &str,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> rustls::ClientConfig {
        client_of(provider(), certificate, versions)
    }

    fn client_of(
        provider: Arc<CryptoProvider>,
        certificate: &str,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> rustls::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(rustls::pki_types::CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap())
            .unwrap();
        rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
    }

    /// Performs a handshake in memory and passes on the ticket that follows it.
    fn handshake(
        server: &Arc<rustls::ServerConfig>,
        client: &Arc<rustls::ClientConfig>,
    ) -> Result<(rustls::HandshakeKind, rustls::ProtocolVersion), rustls::Error> {
        let server = negotiated(server, client)?;
        Ok((server.handshake_kind().unwrap(), server.protocol_version().unwrap()))
    }

    /// The server's end of the connection after the handshake.
    fn negotiated(
        server: &Arc<rustls::ServerConfig>,
        client: &Arc<rustls::ClientConfig>,
    ) -> Result<ServerConnection, rustls::Error> {
        let mut server = ServerConnection::new(Arc::clone(server))?;
        let mut client = ClientConnection::new(Arc::clone(client), "mail.example.org".try_into().unwrap())?;
        for _ in 0..8 {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            let mut rest = wire.as_slice();
            while !rest.is_empty() {
                server.read_tls(&mut rest).unwrap();
                server.process_new_packets()?;
            }
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            let mut rest = wire.as_slice();
            while !rest.is_empty() {
                client.read_tls(&mut rest).unwrap();
                client.process_new_packets()?;
            }
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        Ok(server)
    }

    #[test]
    fn both_versions_full_and_resumed() {
        use rustls::HandshakeKind::{Full, Resumed};
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key, pem) = pair(folder.path(), "a");
        let server = server_config(&certificate, &key).unwrap();
        for (offered, version) in [
            (&rustls::version::TLS12, rustls::ProtocolVersion::TLSv1_2),
            (&rustls::version::TLS13, rustls::ProtocolVersion::TLSv1_3),
        ] {
            let client = Arc::new(client(&pem, &[offered]));
            assert_eq!(handshake(&server, &client).unwrap(), (Full, version));
            assert_eq!(handshake(&server, &client).unwrap(), (Resumed, version));
        }
    }

    /// Sessions resume across a rotation of the tickets' keys; with an expired ticket the handshake is a full one, and
    /// mail goes on.
    #[test]
    fn resumed_as_long_as_the_ticket_lives() {
        use rustls::HandshakeKind::{Full, Resumed};
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key, pem) = pair(folder.path(), "a");
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let tickets = Arc::new(tickets().unwrap());
            let served = KeyPair { certificate: certificate.clone(), private_key: key.clone() };
            let served = Arc::new(Served::open(vec![served]).unwrap());
            let server = with_certificates(served, None, Arc::clone(&tickets)).unwrap();
            // The first ticket of each client is the one under test.
            let clients = [(); 3].map(|()| Arc::new(client(&pem, &[version])));
            for client in &clients {
                assert_eq!(handshake(&server, client).unwrap().0, Full);
            }
            for (client, kind) in clients.iter().zip([Resumed, Resumed, Full]) {
                // At five, ten and fifteen hours.
                tickets.grow_older(std::time::Duration::from_secs(5 * 60 * 60));
                assert_eq!(handshake(&server, client).unwrap().0, kind, "{version:?}");
                // And the new ticket uses the new key.
                assert_eq!(handshake(&server, client).unwrap().0, Resumed, "{version:?}");
            }
        }
    }

    #[test]
    fn the_suite_is_ours_to_choose() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key, pem) = pair(folder.path(), "a");
        let server = server_config(&certificate, &key).unwrap();
        for (offered, cheapest) in [
            (&rustls::version::TLS12, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
            (&rustls::version::TLS13, CipherSuite::TLS13_AES_128_GCM_SHA256),
        ] {
            let chosen = [false, true].map(|reversed| {
                let mut suites = provider().cipher_suites.clone();
                if reversed {
                    suites.reverse();
                }
                let provider = Arc::new(CryptoProvider { cipher_suites: suites, ..(*provider()).clone() });
                let client = Arc::new(client_of(provider, &pem, &[offered]));
                negotiated(&server, &client).unwrap().negotiated_cipher_suite().unwrap().suite()
            });
            assert_eq!(chosen, [cheapest; 2]);
        }
    }

    #[test]
    fn a_pair_that_does_not_fit_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, _, _) = pair(folder.path(), "a");
        let (_, key, _) = pair(folder.path(), "b");
        let error = server_config(&certificate, &key).unwrap_err().to_string();
        assert!(
            error.contains("b.key") && error.contains("a.crt") && error.contains("not the key"),
            "{error}"
        );
    }
}
