//! A self-signed certificate for a first start (rcgen).

use std::path::Path;

use super::tls::TlsError;

/// Makes a self-signed pair (ECDSA P-256, names: `hostname`, localhost, the loopback addresses) where neither file is there; says whether it did.
/// The key has mode 0600.
///
/// # Errors
/// A file cannot be written.
pub fn ensure(_certificate: &Path, _private_key: &Path, _hostname: &str) -> Result<bool, TlsError> {
    todo!()
}

/// A throw-away pair in memory: certificate and key as PEM.
///
/// # Errors
/// No pair could be made.
pub fn generate(_names: &[&str]) -> Result<(String, String), TlsError> {
    todo!()
}
