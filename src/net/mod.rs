//! Plain and TLS streams, the TLS configuration of both sides, and what is needed to reach another server. One crypto
//! provider: aws-lc-rs.

pub mod address;
pub mod certificate;
mod linger;
pub mod password;
pub mod pem;
pub mod proxy;
pub mod self_signed;
pub mod served;
pub mod stream;
mod tickets;
pub mod time_limit;
pub mod tls;
pub mod trust;

pub use linger::linger;
pub use stream::Stream;
pub use time_limit::TimeLimit;
