//! Mail of our own: notices to the abuse desk, DSNs to senders, events for programs, and the outbox in which they wait.
//!
//! [`notice`] and [`dsn`] write messages, pure, with lettre's header and MIME types; [`outbox`] keeps them as files and
//! sends them with lettre's transport; [`webhook`] writes and posts events. Their content may come from a thief;
//! [`letter`] makes it safe to print.

pub mod digest;
pub mod dsn;
mod incident;
mod letter;
pub mod notice;
pub mod outbox;
pub mod suspicion;
pub mod template;
pub mod webhook;

pub use outbox::Outbox;
