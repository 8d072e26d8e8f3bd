//! Whom we trust as a TLS client: the system's anchors and those that the operator adds.
//!
//! Certificates are always verified, names included (RFC 6125); there is no switch to turn that off.

use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

use super::pem;
use super::tls::TlsError;

/// The client's side: the system's trust anchors and those in `ca`.
///
/// # Errors
/// `ca` is missing or holds no certificate; or there is no anchor at all.
pub fn client_config(ca: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut anchors = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    anchors.add_parsable_certificates(system.certs);
    if let Some(path) = ca {
        for certificate in pem::certificates(path)? {
            anchors.add(certificate).map_err(|error| {
                TlsError(format!("{}: a certificate that cannot be a trust anchor: {error}", path.display()))
            })?;
        }
    }
    if anchors.is_empty() {
        return Err(TlsError(
            "the system has no trust anchors: install ca-certificates, or name a PEM file with `ca`"
                .to_owned(),
        ));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError(format!("TLS cannot be set up: {error}")))?
        .with_root_certificates(anchors)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_empty_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        assert!(client_config(Some(&path)).unwrap_err().to_string().contains("ca.pem"));
        std::fs::write(&path, "nothing\n").unwrap();
        assert!(client_config(Some(&path)).unwrap_err().to_string().contains("ca.pem"));
    }

    #[test]
    fn a_file_of_ones_own_is_an_anchor() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let pair = rcgen::generate_simple_self_signed(["mail.example.org".to_owned()]).unwrap();
        std::fs::write(&path, pair.cert.pem()).unwrap();
        assert!(client_config(Some(&path)).is_ok());
    }
}
