//! A self-signed certificate for a first start (rcgen).
//!
//! For trying Gatepost out; no client trusts it. Existing files are never touched.

use std::path::Path;
use std::time::Duration;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
};

use zeroize::Zeroizing;

use super::tls::TlsError;
use crate::clock::{self, Timestamp};
use crate::durable;

/// Validity: from a day ago, for clients whose clock is behind, for ten years, since nobody renews a self-signed
/// certificate.
const VALID_BEFORE: Duration = Duration::from_secs(86_400);
const VALID_AFTER: Duration = Duration::from_secs(3_652 * 86_400);

/// Creates a self-signed pair (ECDSA P-256; names: `hostname`, localhost, the loopback addresses) if neither file
/// exists, and returns whether it did. The key has mode 0600.
///
/// # Errors
/// A file cannot be written.
pub fn ensure(certificate: &Path, private_key: &Path, hostname: &str) -> Result<bool, TlsError> {
    match (is_there(certificate)?, is_there(private_key)?) {
        (true, true) => return Ok(false),
        (false, false) => {}
        (true, false) => return Err(half(private_key, certificate)),
        (false, true) => return Err(half(certificate, private_key)),
    }
    let (certificate_pem, key_pem) = generate(&[hostname, "localhost", "127.0.0.1", "::1"])?;
    let key_pem = Zeroizing::new(key_pem);
    // The key first: a crash in between leaves a pair that is rejected with a clear error, not one that looks complete.
    write(private_key, &key_pem)?;
    write(certificate, &certificate_pem)?;
    Ok(true)
}

/// Creates a throw-away pair in memory: certificate and key as PEM.
///
/// # Errors
/// The pair cannot be made.
pub fn generate(names: &[&str]) -> Result<(String, String), TlsError> {
    let failed = |cause: rcgen::Error| {
        TlsError(format!("no self-signed certificate for {} can be made: {cause}", names.join(", ")))
    };
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let certificate = parameters(names).and_then(|params| params.self_signed(&key)).map_err(failed)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn parameters(names: &[&str]) -> Result<CertificateParams, rcgen::Error> {
    let mut distinct: Vec<String> = Vec::new();
    for name in names {
        if !distinct.iter().any(|known| known == name) {
            distinct.push((*name).to_owned());
        }
    }
    let mut params = CertificateParams::new(distinct)?;
    params.distinguished_name = DistinguishedName::new();
    // RFC 5280 A.1: ub-common-name is 64; a longer name appears in subjectAltName only.
    if let Some(name) = names.first().filter(|name| name.len() <= 64) {
        params.distinguished_name.push(DnType::CommonName, *name);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let now = clock::now();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since_epoch = |moment: Timestamp| Duration::from_millis(moment.as_millis());
    params.not_before = epoch + since_epoch(now.before(VALID_BEFORE));
    params.not_after = epoch + since_epoch(now.after(VALID_AFTER));
    Ok(params)
}

/// Writes a file with mode 0600, creating its folder if needed.
fn write(path: &Path, pem: &str) -> Result<(), TlsError> {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .map_or(Ok(()), durable::create_folder)
        .and_then(|()| durable::write(path, pem.as_bytes()))
        .map_err(|cause| {
            TlsError(format!(
                "a self-signed certificate cannot be made: {cause}; set [tls] certificate and private_key to files that are there, or to a folder that Gatepost's user may write to"
            ))
        })
}

/// Whether the file exists.
///
/// # Errors
/// It cannot be told, since a folder above it may not be searched.
pub fn is_there(path: &Path) -> Result<bool, TlsError> {
    path.try_exists().map_err(|cause| TlsError(format!("{}: {cause}", path.display())))
}

fn half(missing: &Path, present: &Path) -> TlsError {
    TlsError(format!(
        "{}: missing, while {} is there; restore it, or move the other away and a new pair is made",
        missing.display(),
        present.display()
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;
    use crate::net::tls::server_config;

    #[test]
    fn only_where_neither_file_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let certificate = folder.path().join("certs/server.crt");
        let key = folder.path().join("certs/server.key");
        assert!(ensure(&certificate, &key, "mail.example.org").unwrap());
        assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        server_config(&certificate, &key).unwrap();

        let before = std::fs::read(&certificate).unwrap();
        assert!(!ensure(&certificate, &key, "mail.example.org").unwrap());
        assert_eq!(std::fs::read(&certificate).unwrap(), before);

        std::fs::remove_file(&key).unwrap();
        let error = ensure(&certificate, &key, "mail.example.org").unwrap_err().to_string();
        assert!(error.contains("server.key: missing"), "{error}");
        assert!(!key.exists());

        // No folder can be created there.
        let nowhere = Path::new("/proc/gatepost/server.crt");
        let error =
            ensure(nowhere, &nowhere.with_extension("key"), "mail.example.org").unwrap_err().to_string();
        assert!(error.contains("/proc/gatepost") && error.contains("set [tls] certificate"), "{error}");
    }

    #[test]
    fn the_names_in_it() {
        for names in [
            &["mail.example.org", "localhost", "127.0.0.1", "::1"][..],
            &["localhost", "localhost"][..],
            // Longer than a common name may be.
            &["a-label-of-some-length.another-label-of-some-length.a-third-label.example.org"][..],
        ] {
            let (certificate, _) = generate(names).unwrap();
            let der = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
            let parsed = rustls::server::ParsedCertificate::try_from(&der).unwrap();
            for name in names {
                let name = rustls::pki_types::ServerName::try_from(*name).unwrap();
                rustls::client::verify_server_name(&parsed, &name).unwrap();
            }
        }
        assert!(generate(&["größe.example"]).is_err());
    }
}
