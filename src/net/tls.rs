//! TLS configuration: the server's certificate towards clients, the trust anchors towards the upstream.

use std::path::Path;
use std::sync::Arc;

pub use super::trust::client_config;

/// Why TLS cannot be set up; names the file and what would be right.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(pub String);

/// The server's side: TLS 1.2 and 1.3 with this certificate chain and key. Checks that they fit together.
///
/// # Errors
/// A file is missing, encrypted, holds no certificate or key, or the two do not fit.
pub fn server_config(
    _certificate: &Path,
    _private_key: &Path,
) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    todo!()
}
