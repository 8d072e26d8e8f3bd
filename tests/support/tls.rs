//! A certificate authority of the tests' own, and what a client needs to trust it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;

const DAY: Duration = Duration::from_secs(86_400);

/// Certificates for `localhost`, `127.0.0.1` and `gate.example`, made once for all tests.
pub(crate) struct Material {
    /// What clients are told to trust.
    pub(crate) authority: String,
    /// The server's chain.
    pub(crate) certificate: String,
    /// The server's key.
    pub(crate) key: String,
    authority_der: CertificateDer<'static>,
}

pub(crate) fn material() -> &'static Material {
    static MATERIAL: OnceLock<Material> = OnceLock::new();
    MATERIAL.get_or_init(|| {
        let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        authority.distinguished_name.push(rcgen::DnType::CommonName, "Gatepost tests");
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let authority_certificate = authority.self_signed(&authority_key).unwrap();
        let issuer = rcgen::Issuer::from_params(&authority, &authority_key);
        let names = ["localhost", "127.0.0.1", "gate.example"].map(String::from);
        let key = rcgen::KeyPair::generate().unwrap();
        let mut server = rcgen::CertificateParams::new(names).unwrap();
        // As authorities issue them.
        let now = rcgen::date_time_ymd(1970, 1, 1) + SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        (server.not_before, server.not_after) = (now - DAY, now + 90 * DAY);
        let certificate = server.signed_by(&key, &issuer).unwrap();
        Material {
            authority: authority_certificate.pem(),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            authority_der: authority_certificate.der().clone(),
        }
    })
}

impl Material {
    /// Writes `ca.pem`, `server.pem` and `server.key`.
    pub(crate) fn write(&self, folder: &Path) {
        std::fs::write(folder.join("ca.pem"), &self.authority).unwrap();
        std::fs::write(folder.join("server.pem"), &self.certificate).unwrap();
        std::fs::write(folder.join("server.key"), &self.key).unwrap();
    }
}

/// A client that trusts the tests' authority alone.
pub(crate) fn client() -> Arc<rustls::ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(material().authority_der.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// A port where TLS begins at once, with the tests' certificate, and what is in it goes on to `server`.
pub(crate) fn front(server: SocketAddr) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain =
        rustls_pemfile::certs(&mut material().certificate.as_bytes()).collect::<Result<_, _>>().unwrap();
    let key = rustls_pemfile::private_key(&mut material().key.as_bytes()).unwrap().unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    carried(server, move |outside, inside| {
        let acceptor = acceptor.clone();
        async move {
            // A client that does not like the certificate is what some tests are about.
            let (Ok(mut outside), mut inside) = (acceptor.accept(outside).await, inside) else { return };
            drop(tokio::io::copy_bidirectional(&mut outside, &mut inside).await);
        }
    })
}

/// The other way round: a plain port, carried to `server` within TLS, for clients that speak none.
pub(crate) fn tunnel(server: SocketAddr) -> SocketAddr {
    let connector = tokio_rustls::TlsConnector::from(client());
    carried(server, move |mut outside, inside| {
        let connector = connector.clone();
        async move {
            let name = ServerName::try_from("localhost").unwrap();
            let mut inside = connector.connect(name, inside).await.unwrap();
            drop(tokio::io::copy_bidirectional(&mut outside, &mut inside).await);
        }
    })
}

/// A port each of whose connections is joined with one to `server`.
fn carried<F: Future<Output = ()> + Send + 'static>(
    server: SocketAddr,
    join: impl Fn(TcpStream, TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((outside, _)) = listener.accept().await {
                let Ok(inside) = TcpStream::connect(server).await else { continue };
                tokio::spawn(join(outside, inside));
            }
        });
    });
    address
}
