//! Plain-or-TLS streams, and the TLS configuration of both sides. One crypto provider: aws-lc-rs.

pub mod pem;
pub mod self_signed;
pub mod stream;
pub mod tls;
pub mod trust;

pub use stream::Stream;
