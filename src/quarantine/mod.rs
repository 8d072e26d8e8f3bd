//! The spool in which a blocked account's messages are parked.
//!
//! [`envelope`] is pure, versioned text; [`spool`] is files, fsync and rename.

pub mod envelope;
pub mod spool;

pub use envelope::{Envelope, Recipient, RecipientState};
pub use spool::Spool;
