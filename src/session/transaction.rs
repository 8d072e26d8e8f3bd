//! One client's mail transaction: who sends, to whom, what the upstream had said of each, and where it is bound.

use crate::smtp::{MailCommand, RcptCommand, Reply};

/// Where the message will go, as far as it is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Upstream, unless the account is blocked by then.
    Upstream,
    /// To the quarantine: the limit was crossed in this transaction.
    Quarantine,
    /// To the quarantine for good: a recipient was answered unasked.
    Unasked,
}

/// One RCPT that parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// The command.
    pub command: RcptCommand,
    /// What the upstream said; `None` where it was not asked or gave no answer.
    pub upstream: Option<Reply>,
    /// Whether the client was told 250.
    pub accepted: bool,
}

/// A mail transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// MAIL.
    pub mail: MailCommand,
    /// What the upstream said to it; `None` where it was not asked.
    pub mail_reply: Option<Reply>,
    /// Every RCPT, the refused ones too, in order.
    pub recipients: Vec<Recipient>,
    /// Where it goes.
    pub bound: Bound,
    /// BDAT has begun.
    pub in_chunks: bool,
}

impl Transaction {
    /// Opened by MAIL.
    pub(super) fn new(mail: MailCommand, mail_reply: Option<Reply>, bound: Bound) -> Self {
        Self { mail, mail_reply, recipients: Vec::new(), bound, in_chunks: false }
    }

    /// How many recipients the client was told 250 for.
    pub fn accepted(&self) -> usize {
        self.recipients.iter().filter(|recipient| recipient.accepted).count()
    }

    /// Parks it, if it was not to be parked anyway.
    pub(super) fn divert(&mut self) {
        if self.bound == Bound::Upstream {
            self.bound = Bound::Quarantine;
        }
    }
}
