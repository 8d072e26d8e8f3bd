//! Certificates and keys from PEM files (RFC 7468). The only file that names rustls-pemfile.
//!
//! The customer chose that crate. It is no longer maintained (RUSTSEC-2025-0134), but its decoder is that of
//! rustls-pki-types, which is. Every error names the file and the remedy.

use std::path::Path;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::tls::TlsError;
use crate::visible::unreadable;

/// Reads the certificates of a file in their order; at least one.
///
/// # Errors
/// The file cannot be read, is damaged, or holds no certificate.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let certificates: Vec<_> =
        rustls_pemfile::certs(&mut text.as_slice()).collect::<Result<_, _>>().map_err(|cause| {
            TlsError(format!("{}: damaged PEM ({cause}); copy the file anew", path.display()))
        })?;
    if certificates.is_empty() {
        return Err(TlsError(format!(
            "{}: no certificate in it; it should hold `-----BEGIN CERTIFICATE-----`{}",
            path.display(),
            not_pem(&text)
        )));
    }
    Ok(certificates)
}

/// Reads the first private key of a file: PKCS#8, PKCS#1 or SEC1, not encrypted.
///
/// # Errors
/// The file cannot be read, is damaged, or holds no key or only an encrypted one.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = zeroize::Zeroizing::new(read(path)?);
    let file = path.display();
    match rustls_pemfile::private_key(&mut text.as_slice()) {
        Ok(Some(key)) => Ok(key),
        // PKCS#8 marks encryption in the label, PKCS#1 and SEC1 in a header (`Proc-Type: 4,ENCRYPTED`, RFC 1421
        // 4.6.1.1).
        _ if memchr::memmem::find(&text, b"ENCRYPTED").is_some() => Err(TlsError(format!(
            "{file}: the private key is encrypted; store it without a passphrase (`openssl pkey -in {file}`)"
        ))),
        Ok(None) => Err(TlsError(format!(
            "{file}: no private key in it; it should hold `-----BEGIN PRIVATE KEY-----`{}",
            not_pem(&text)
        ))),
        Err(cause) => Err(TlsError(format!("{file}: damaged PEM ({cause}); copy the file anew"))),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|cause| TlsError(unreadable(path, &cause)))
}

/// The usual mistake is a DER file in place of a PEM file.
fn not_pem(text: &[u8]) -> &'static str {
    match (text.is_empty(), text.starts_with(&[0x30])) {
        (true, _) => " (the file is empty)",
        (_, true) => " (this looks like DER; `openssl x509` and `openssl pkey` convert with `-inform DER`)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::super::self_signed::generate;
    use super::*;

    #[test]
    fn what_a_file_may_hold() {
        let (certificate, key) = generate(&["mail.example.org"]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
        let chain = format!("{certificate}{certificate}");
        let combined = format!("a text\r\n{key}{}", certificate.replace('\n', "\r\n"));
        let truncated = &certificate[..certificate.len() / 2];
        // (content, certificates or the error's part, key or the error's part)
        #[allow(clippy::type_complexity, reason = "a table")]
        let rows: [(&[u8], Result<usize, &str>, Result<(), &str>); 9] = [
            (certificate.as_bytes(), Ok(1), Err("no private key")),
            (chain.as_bytes(), Ok(2), Err("no private key")),
            (key.as_bytes(), Err("no certificate"), Ok(())),
            (combined.as_bytes(), Ok(1), Ok(())),
            (encrypted.as_bytes(), Err("no certificate"), Err("without a passphrase")),
            (old.as_bytes(), Err("damaged PEM"), Err("without a passphrase")),
            (truncated.as_bytes(), Err("damaged PEM"), Err("damaged PEM")),
            (b"", Err("is empty"), Err("is empty")),
            (b"\x30\x82\x01\x02", Err("DER"), Err("DER")),
        ];
        for (row, (content, expected_certificates, expected_key)) in rows.into_iter().enumerate() {
            let path = folder.path().join(row.to_string());
            std::fs::write(&path, content).unwrap();
            check(row, certificates(&path).map(|found| found.len()), expected_certificates);
            check(row, private_key(&path).map(|_| ()), expected_key);
        }
        let missing = folder.path().join("missing");
        check(9, certificates(&missing).map(|found| found.len()), Err("missing: No such file"));
        check(9, private_key(&missing).map(|_| ()), Err("missing: No such file"));
    }

    fn check<T: PartialEq + std::fmt::Debug>(
        row: usize,
        found: Result<T, TlsError>,
        expected: Result<T, &str>,
    ) {
        match (found, expected) {
            (Err(TlsError(text)), Err(part)) => assert!(text.contains(part), "row {row}: {text}"),
            (found, expected) => assert_eq!(found.ok(), expected.ok(), "row {row}"),
        }
    }
}
