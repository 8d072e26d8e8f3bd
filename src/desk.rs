//! What the abuse desk and the senders are told: events of the guard and of releases become mail in the outbox.

use std::sync::Arc;

use crate::config::Config;
use crate::guard::ledger::{Blindness, Record};
use crate::notify::outbox::Outbox;
use crate::quarantine::spool::Usage;
use crate::quarantine::{Envelope, Recipient};
use crate::smtp::Reply;

/// Writes to whom it concerns. Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    config: Arc<Config>,
    outbox: Outbox,
}

impl Desk {
    /// Writes through this outbox.
    pub fn new(config: Arc<Config>, outbox: Outbox) -> Self {
        Self { config, outbox }
    }

    /// Sends what waits in the outbox, for as long as it is polled.
    pub async fn run(&self) {
        std::future::pending::<()>().await;
    }

    /// What an operator should know of mail of ours that nobody takes.
    pub fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// Counts or blocks cannot be written.
    pub async fn ledger_trouble(&self, _why: &str) {
        todo!()
    }

    /// 80 % of the quarantine are used.
    pub async fn quarantine_nearly_full(&self, _usage: Usage) {
        todo!()
    }

    /// An account was blocked by the limit; durable when this returns.
    pub async fn blocked(&self, _record: &Record, _sessions: usize) {}

    /// An account that is observed or exempt would have been blocked.
    pub async fn would_block(&self, _record: &Record, _sessions: usize) {}

    /// The upstream seems to accept everybody.
    pub async fn blind(&self, _blindness: Blindness) {}

    /// The sender of a released message is told who refused it; durable when this returns.
    ///
    /// # Errors
    /// The DSN could not be written.
    pub async fn bounce(
        &self,
        _envelope: &Envelope,
        _refused: &[(&Recipient, &Reply)],
    ) -> Result<(), String> {
        todo!()
    }
}
