//! How far the release of a message has come, derived from its envelope; pure.
//!
//! CONTRACT, Release: a recipient is answered once it was delivered to or refused for good; the others are tried again.

use serde::{Deserialize, Serialize};

use super::envelope::{Envelope, Recipient, RecipientState};
use crate::smtp::{ForwardPath, Reply, ReversePath};

/// The outcome of one try of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseOutcome {
    /// Every recipient is answered, and at least one was delivered to: the message has left the quarantine.
    Released,
    /// Some recipients are deferred: `serve` tries again.
    Releasing,
    /// The upstream accepted it for nobody: the message stays, whole, for the operator.
    Failed,
}

impl ReleaseOutcome {
    /// Returns its word in the log, in JSON and for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Releasing => "releasing",
            Self::Failed => "failed",
        }
    }
}

/// The upstream's replies so far, for each recipient it was asked about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers<'a> {
    /// Recipients the message was accepted for, in this try or an earlier one.
    pub delivered: Vec<Answer<'a>>,
    /// Recipients refused for good.
    pub refused: Vec<Answer<'a>>,
    /// Recipients deferred at the last try.
    pub deferred: Vec<Answer<'a>>,
}

/// One recipient's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer<'a> {
    /// Who.
    pub recipient: &'a ForwardPath,
    /// The upstream's reply.
    pub reply: &'a Reply,
}

impl Recipient {
    /// Returns whether the message is still to be sent to it.
    pub fn is_open(&self) -> bool {
        matches!(self.state, RecipientState::Pending | RecipientState::Deferred { .. })
    }

    /// Returns whether the sender wants to be told of a failure: the default of NOTIFY (RFC 3461 4.1).
    pub fn wants_failures(&self) -> bool {
        self.parameters.notify.is_none_or(|notify| notify.failure)
    }
}

impl Envelope {
    /// Returns the recipients that the message is still to be sent to, each with its place in `recipients`.
    pub fn pending(&self) -> impl Iterator<Item = (usize, &Recipient)> {
        self.recipients.iter().enumerate().filter(|(_, recipient)| recipient.is_open())
    }

    /// Returns the recipients of whose refusal the sender is to be told once the message has gone: refused for good,
    /// unless the release is quiet, the reverse-path is null, or NOTIFY excludes it.
    pub fn failures_to_tell(&self) -> impl Iterator<Item = &Recipient> {
        let quiet = self.release.as_ref().is_some_and(|release| release.quiet);
        let anybody = !quiet && self.reverse_path != ReversePath::Null;
        let refused = |recipient: &&Recipient| matches!(recipient.state, RecipientState::Refused { .. });
        self.recipients
            .iter()
            .filter(move |recipient| anybody && refused(recipient) && recipient.wants_failures())
    }

    /// Returns whether the upstream ever accepted the message for anybody.
    pub fn any_delivered(&self) -> bool {
        self.recipients.iter().any(|recipient| matches!(recipient.state, RecipientState::Delivered { .. }))
    }

    /// Returns the answers so far, in the order of RCPT.
    pub fn answers(&self) -> Answers<'_> {
        let mut answers = Answers::default();
        for recipient in &self.recipients {
            let (list, reply) = match &recipient.state {
                RecipientState::Rejected | RecipientState::Pending => continue,
                RecipientState::Delivered { reply, .. } => (&mut answers.delivered, reply),
                RecipientState::Refused { reply, .. } => (&mut answers.refused, reply),
                RecipientState::Deferred { reply, .. } => (&mut answers.deferred, reply),
            };
            list.push(Answer { recipient: &recipient.forward_path, reply });
        }
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::quarantine::sample::{envelope, id, reply};
    use crate::smtp::parameter::Notify;

    #[test]
    fn who_wants_failures() {
        let mut recipient = envelope(id(1), b"").recipients.remove(0);
        let never = Notify { success: false, failure: false, delay: false };
        for (notify, expected) in [
            (None, true),
            (Some(never), false),
            (Some(Notify { success: true, ..never }), false),
            (Some(Notify { failure: true, ..never }), true),
        ] {
            recipient.parameters.notify = notify;
            assert_eq!(recipient.wants_failures(), expected, "{notify:?}");
        }
    }

    #[test]
    fn each_state_has_its_place() {
        let (reply, at) = (reply(), Timestamp::default());
        let states = [
            RecipientState::Rejected,
            RecipientState::Pending,
            RecipientState::Delivered { reply: reply.clone(), at },
            RecipientState::Refused { reply: reply.clone(), at },
            RecipientState::Deferred { reply: reply.clone(), at, asked: true },
        ];
        let mut envelope = envelope(id(1), b"");
        let recipient = envelope.recipients[0].clone();
        envelope.recipients = states.map(|state| Recipient { state, ..recipient.clone() }).into();
        let pending: Vec<_> = envelope.pending().map(|(place, _)| place).collect();
        assert_eq!(pending, [1, 4]);
        assert!(envelope.any_delivered());
        let answer = vec![Answer { recipient: &recipient.forward_path, reply: &reply }];
        let expected = Answers { delivered: answer.clone(), refused: answer.clone(), deferred: answer };
        assert_eq!(envelope.answers(), expected);
        envelope.recipients.truncate(2);
        assert!(!envelope.any_delivered());
        assert_eq!(envelope.answers(), Answers::default());
    }
}
