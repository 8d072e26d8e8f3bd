//! One client's mail transaction: the sender, the recipients, the upstream's replies to them, and the destination.

use crate::smtp::{MailCommand, RcptCommand, Reply};

/// Where the message will go, as far as decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Upstream, unless the account gets blocked.
    Upstream,
    /// To the quarantine: the limit was crossed in this transaction.
    Quarantine,
    /// To the quarantine for good: a recipient was accepted without asking.
    Unasked,
}

/// One RCPT that was parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// The command.
    pub command: RcptCommand,
    /// The upstream's reply; `None` if it was not asked or gave none.
    pub upstream: Option<Reply>,
    /// Whether the client was told 250.
    pub accepted: bool,
}

/// The most octets that are kept of the text of a reply to RCPT: eight of RFC 5321's longest lines. There may be thousands
/// of them, and an upstream may say 64 KiB in each.
const MAX_KEPT: usize = 4 * 1_024;

/// A mail transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// The MAIL command.
    pub mail: MailCommand,
    /// The upstream's reply to it; `None` if it was not asked.
    pub mail_reply: Option<Reply>,
    /// Every RCPT in order, including refused ones (at most as many of those as recipients are allowed).
    pub recipients: Vec<Recipient>,
    /// Where the message goes.
    pub bound: Bound,
    /// Whether BDAT has begun.
    pub in_chunks: bool,
    accepted: usize,
}

impl Transaction {
    /// Opens a transaction with MAIL.
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

    /// Records a recipient. Refused ones beyond `max_refused` are forgotten, since a client must not make the list grow
    /// at will. `expected` more are about to follow.
    pub(super) fn note(&mut self, mut recipient: Recipient, max_refused: usize, expected: usize) {
        if let Some(reply) = &mut recipient.upstream {
            reply.shorten(MAX_KEPT);
        }
        let refused = self.recipients.len() - self.accepted;
        if recipient.accepted {
            self.accepted += 1;
        } else if refused >= max_refused {
            return;
        }
        if self.recipients.is_empty() {
            self.recipients.reserve(1 + expected);
        }
        self.recipients.push(recipient);
    }

    /// Diverts the message to the quarantine, unless it goes there anyway.
    pub(super) fn divert(&mut self) {
        if self.bound == Bound::Upstream {
            self.bound = Bound::Quarantine;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::{Command, ReversePath};

    #[test]
    fn of_a_long_reply_the_beginning_is_kept() {
        let Ok(Command::Rcpt(command)) = Command::parse(b"RCPT TO:<a@b>") else { panic!() };
        let wire = format!("{}550 x\r\n", format!("550-{}\r\n", "x".repeat(500)).repeat(120));
        let (reply, _) = Reply::parse(wire.as_bytes()).unwrap().unwrap();
        assert!(reply.text.len() > 60_000);
        let mail = MailCommand { reverse_path: ReversePath::Null, parameters: Box::default() };
        let mut transaction = Transaction::new(mail, None, Bound::Upstream);
        for accepted in [true, false] {
            let upstream = Some(reply.clone());
            transaction.note(Recipient { command: command.clone(), upstream, accepted }, 9, 0);
        }
        for recipient in &transaction.recipients {
            assert_eq!(recipient.upstream.as_ref().unwrap().text.len(), 4_096);
        }
    }
}
