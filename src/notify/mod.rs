//! Mail of our own: the abuse desk's notices, the sender's DSN, and the outbox in which they wait for the upstream.
//!
//! [`notice`] and [`dsn`] write messages, pure, with lettre's header and MIME types; [`outbox`] keeps them as files and
//! sends them with lettre's transport. What stands in them may come from a thief: [`letter`] makes it safe to print.

pub mod dsn;
mod letter;
pub mod notice;
pub mod outbox;

pub use outbox::Outbox;
