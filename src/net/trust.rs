//! Whom we trust as a TLS client, the system's anchors and those that the operator adds, and how we identify ourselves.
//!
//! Certificates are always verified, names included (RFC 6125); there is no switch to turn that off. A server's certificate that
//! the operator has named himself needs no other to vouch for it, even if it is an authority's: `openssl req -x509` makes such
//! ones, and OpenSSL's clients take them. webpki does not (RFC 5280 4.2.1.9 leaves it open).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::tls::TlsError;
use super::{certificate, pem};

/// The certificate with which a client or server identifies itself, and its key; both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// Its own certificate first, then the chain.
    pub certificate: PathBuf,
    /// PKCS#8, PKCS#1 or SEC1.
    pub private_key: PathBuf,
}

/// The client's configuration: trusts the system's anchors and those in `ca`, and shows our certificate if the server
/// asks for one.
///
/// # Errors
/// `ca` is missing or holds no certificate; there is no anchor at all; or the pair does not match.
pub fn client_config(ca: Option<&Path>, identity: Option<&KeyPair>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut anchors = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    anchors.add_parsable_certificates(system.certs);
    let mut named = Vec::new();
    if let Some(path) = ca {
        named = pem::certificates(path)?;
        anchors.roots.extend(anchors_from(path, &named)?.roots);
    }
    if anchors.is_empty() {
        let why = system.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(TlsError(format!(
            "the system has no trust anchors{why}: install ca-certificates, or name a PEM file with `ca`"
        )));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let unusable = |error: &dyn std::fmt::Display| TlsError(format!("TLS cannot be set up: {error}"));
    let by_anchors = WebPkiServerVerifier::builder_with_provider(Arc::new(anchors), Arc::clone(&provider))
        .build()
        .map_err(|error| unusable(&error))?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { by_anchors, named }));
    let config = match identity {
        None => config.with_no_client_auth(),
        Some(KeyPair { certificate, private_key }) => {
            let (chain, key) = (pem::certificates(certificate)?, pem::private_key(private_key)?);
            config.with_client_auth_cert(chain, key).map_err(|error| {
                let (certificate, private_key) = (certificate.display(), private_key.display());
                TlsError(format!("{certificate} and {private_key} cannot be used together: {error}"))
            })?
        }
    };
    Ok(Arc::new(config))
}

/// Reads the trust anchors of a PEM file.
///
/// # Errors
/// The file is missing, or holds no certificate or one that cannot be an anchor.
pub(super) fn anchors_of(path: &Path) -> Result<RootCertStore, TlsError> {
    anchors_from(path, &pem::certificates(path)?)
}

fn anchors_from(path: &Path, certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, TlsError> {
    let mut anchors = RootCertStore::empty();
    for certificate in certificates {
        anchors.add(certificate.clone()).map_err(|error| {
            TlsError(format!("{}: a certificate that cannot be a trust anchor: {error}", path.display()))
        })?;
    }
    Ok(anchors)
}

/// Whether a certificate was not trusted since it is an authority's. rustls has no error of its own for that.
pub fn is_an_authoritys(error: &impl std::fmt::Display) -> bool {
    error.to_string().contains("CaUsedAsEndEntity")
}

/// Verifies a server's certificate by the trust anchors; one that is itself in the operator's file, by its name and time.
#[derive(Debug)]
struct Verifier {
    by_anchors: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        server: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let by_anchors = self.by_anchors.verify_server_cert(server, intermediates, name, ocsp_response, now);
        match by_anchors {
            Err(error) if is_an_authoritys(&error) && self.named.contains(server) => {
                verify_server_name(&ParsedCertificate::try_from(server)?, name)?;
                match certificate::is_in_time(server, now) {
                    true => Ok(ServerCertVerified::assertion()),
                    false => Err(CertificateError::Expired.into()),
                }
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        server: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_anchors.verify_tls12_signature(message, server, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        server: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_anchors.verify_tls13_signature(message, server, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_anchors.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_empty_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        assert!(client_config(Some(&path), None).unwrap_err().to_string().contains("ca.pem"));
        std::fs::write(&path, "nothing\n").unwrap();
        assert!(client_config(Some(&path), None).unwrap_err().to_string().contains("ca.pem"));
    }

    #[test]
    fn a_file_of_ones_own_is_an_anchor() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let pair = rcgen::generate_simple_self_signed(["mail.example.org".to_owned()]).unwrap();
        std::fs::write(&path, pair.cert.pem()).unwrap();
        assert!(client_config(Some(&path), None).is_ok());
    }

    #[test]
    fn a_client_certificate_must_fit_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["a", "b"] {
            let pair = rcgen::generate_simple_self_signed(["gate.example.org".to_owned()]).unwrap();
            std::fs::write(path(&format!("{name}.crt")), pair.cert.pem()).unwrap();
            std::fs::write(path(&format!("{name}.key")), pair.signing_key.serialize_pem()).unwrap();
        }
        let pair =
            |certificate: &str, key: &str| KeyPair { certificate: path(certificate), private_key: path(key) };
        let ca = path("a.crt");
        let config = client_config(Some(&ca), Some(&pair("a.crt", "a.key"))).unwrap();
        assert!(config.client_auth_cert_resolver.has_certs());
        for (certificate, key, part) in [
            ("a.crt", "b.key", "a.crt and "),
            ("none.crt", "a.key", "none.crt"),
            ("a.crt", "a.crt", "no private key"),
        ] {
            let error = client_config(Some(&ca), Some(&pair(certificate, key))).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
