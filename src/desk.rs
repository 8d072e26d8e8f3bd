//! What the abuse desk and the senders are told: events of the guard and of releases become mail in the outbox.

use crate::guard::ledger::{Blindness, Record};
use crate::quarantine::{Envelope, Recipient};
use crate::smtp::Reply;

/// Writes to whom it concerns. Cheap to clone.
#[derive(Clone)]
pub struct Desk {}

impl Desk {
    /// An account was blocked by the limit; durable when this returns.
    pub async fn blocked(&self, _record: &Record, _sessions: usize) {
        todo!()
    }

    /// An account that is observed or exempt would have been blocked.
    pub async fn would_block(&self, _record: &Record, _sessions: usize) {
        todo!()
    }

    /// The upstream seems to accept everybody.
    pub async fn blind(&self, _blindness: Blindness) {
        todo!()
    }

    /// The sender of a released message is told who refused it; durable when this returns.
    ///
    /// # Errors
    /// The DSN could not be written.
    pub async fn bounce(&self, _envelope: &Envelope, _refused: &[(&Recipient, &Reply)]) -> Result<(), String> {
        todo!()
    }
}
