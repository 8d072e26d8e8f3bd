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
    /// Every RCPT, the refused ones too (as many of them as there may be recipients), in order.
    pub recipients: Vec<Recipient>,
    /// Where it goes.
    pub bound: Bound,
    /// BDAT has begun.
    pub in_chunks: bool,
    accepted: usize,
}

impl Transaction {
    /// Opened by MAIL.
    pub(super) fn new(mail: MailCommand, mail_reply: Option<Reply>, bound: Bound) -> Self {
        Self { mail, mail_reply, recipients: Vec::new(), bound, in_chunks: false, accepted: 0 }
    }

    /// How many recipients the client was told 250 for.
    pub fn accepted(&self) -> usize {
        self.accepted
    }

    /// The addresses for which the client was told 250, in order.
    pub fn accepted_addresses(&self) -> impl Iterator<Item = &str> {
        let accepted = self.recipients.iter().filter(|recipient| recipient.accepted);
        accepted.map(|recipient| recipient.command.forward_path.as_str())
    }

    /// Takes down a recipient. Of refused ones there can be any number; beyond `max_refused` they are forgotten, since a
    /// client must not make this grow as it likes.
    pub(super) fn note(&mut self, recipient: Recipient, max_refused: usize) {
        let refused = self.recipients.len() - self.accepted;
        if recipient.accepted {
            self.accepted += 1;
        } else if refused >= max_refused {
            return;
        }
        self.recipients.push(recipient);
    }

    /// Parks it, if it was not to be parked anyway.
    pub(super) fn divert(&mut self) {
        if self.bound == Bound::Upstream {
            self.bound = Bound::Quarantine;
        }
    }
}
