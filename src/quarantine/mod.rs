//! The spool in which a blocked account's messages are parked.
//!
//! [`envelope`] is pure, versioned text. [`progress`] and [`schedule`] hold what a release derives from it. [`spool`]
//! does files, fsync and rename, with a pure index in memory.

pub mod checksum;
mod claim;
pub mod envelope;
mod files;
mod floor;
mod index;
mod listing;
mod marks;
mod parking;
pub mod progress;
mod queue;
mod record;
pub(crate) mod sample;
pub mod schedule;
mod shared;
mod space;
pub mod spool;
mod stock;
mod terms;
mod tests;
mod waiting;
mod weight;

pub use envelope::{Envelope, Recipient, RecipientState};
pub use spool::Spool;
pub use waiting::{Awaited, Waiting};
