//! Mail of our own: the abuse desk's notices, the sender's DSN, and the outbox in which they wait for the upstream.
//!
//! [`notice`] and [`dsn`] write messages (lettre's builder); [`outbox`] keeps them as files and sends them (lettre's transport).

pub mod dsn;
pub mod notice;
pub mod outbox;
