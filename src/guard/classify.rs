//! What an upstream's reply to RCPT says: does the recipient exist? (CONTRACT, Classification)
//!
//! Only an outcome that says *this mailbox does not exist* counts against anyone. A reply that quotes another is
//! judged by the innermost quoted one alone.

use crate::smtp::Reply;

/// What a probe found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// 2yz: the upstream takes the recipient.
    Accepted,
    /// A permanent "no such recipient": the only one that counts.
    NoSuchRecipient,
    /// Refused for any other reason, for now or for good.
    OtherRefusal,
}

/// Judges one reply to RCPT.
pub fn classify(_reply: &Reply) -> Outcome {
    todo!()
}
