//! One mail transaction with the upstream, over as many connections as it takes.

use super::{Answer, Fault, Question};
use crate::smtp::{Extensions, Reply};

/// A connection is replaced after so many refusals: Postfix slows down after 10 errors (`smtpd_soft_error_limit`) and
/// hangs up after 20 (`smtpd_hard_error_limit`).
pub const MAX_REFUSALS: u32 = 8;

/// One mail transaction. Dropping it gives the connection back, or closes it where data is under way.
pub struct Transaction {
    // helper D
}

impl Transaction {
    /// Queues a question; it goes out with the next [`Self::answer`], all queued ones in one write where the upstream has PIPELINING.
    pub fn ask(&mut self, _question: Question) {
        todo!()
    }

    /// Questions not yet answered.
    pub fn outstanding(&self) -> usize {
        todo!()
    }

    /// The answer to the oldest question. Must not be called with none outstanding (then: a `Fault::Protocol`).
    pub async fn answer(&mut self) -> Answer {
        todo!()
    }

    /// What the connection in use offers (after XCLIENT), where there is one.
    pub fn extensions(&self) -> Option<&Extensions> {
        todo!()
    }

    /// Sends DATA and waits for 354 (repeating the transaction on a fresh connection where the old one is gone).
    ///
    /// # Errors
    /// `Ok(Some(reply))`: the upstream refused DATA with this.
    pub async fn begin_data(&mut self) -> Result<Option<Reply>, Fault> {
        todo!()
    }

    /// Sends mail data in wire form (dot-stuffed), as much as there is, without the terminator.
    ///
    /// # Errors
    /// The connection is gone; where the upstream said why before it went, `Ok(Some(reply))`.
    pub async fn write_data(&mut self, _wire: &[u8]) -> Result<Option<Reply>, Fault> {
        todo!()
    }

    /// Sends the terminator given (`.CRLF` or `CRLF.CRLF`) and waits for the reply.
    ///
    /// # Errors
    /// [`Fault::Ambiguous`] once the terminator may have gone out.
    pub async fn finish_data(&mut self, _terminator: &[u8]) -> Result<Reply, Fault> {
        todo!()
    }

    /// Drops the connection before the end of data: what was sent is never taken for a message.
    pub fn abort_data(&mut self) {
        todo!()
    }

    /// RSET: the connection stays for the session's next transaction.
    pub fn abandon(self) {
        todo!()
    }
}
