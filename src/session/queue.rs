//! The commands not yet answered, oldest first. The numbers needed at every command are kept up to date rather than
//! counted, so that each of a thousand recipients in a batch costs the same.

use std::collections::VecDeque;

use crate::smtp::{MailCommand, RcptCommand, Reply};

/// A command not yet answered.
#[derive(Debug)]
pub(super) enum Pending {
    /// The upstream is being asked.
    Mail(MailCommand),
    /// The upstream is being asked.
    Rcpt(RcptCommand),
    /// The guard is being asked.
    BrokenPath,
    /// Nobody is asked, but earlier commands must be answered first.
    Unasked(RcptCommand),
    /// Likewise, with the reply already known.
    Said(Reply),
}

/// The queue of commands not yet answered.
#[derive(Debug, Default)]
pub(super) struct Queue {
    commands: VecDeque<Pending>,
    mails: usize,
    /// Whether the last MAIL had SMTPUTF8.
    smtputf8: bool,
    recipients: usize,
    others: usize,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.mails + self.recipients + self.others == 0
    }

    /// Whether a MAIL is among them.
    pub(super) fn has_mail(&self) -> bool {
        self.mails > 0
    }

    /// Whether the last MAIL among them has SMTPUTF8; `None` if there is no MAIL.
    pub(super) fn smtputf8(&self) -> Option<bool> {
        self.has_mail().then_some(self.smtputf8)
    }

    /// How many recipients may yet be accepted.
    pub(super) fn recipients(&self) -> usize {
        self.recipients
    }

    /// How many commands are neither MAIL nor a recipient that may be accepted.
    pub(super) fn others(&self) -> usize {
        self.others
    }

    pub(super) fn push_back(&mut self, pending: Pending) {
        if let Pending::Mail(mail) = &pending {
            self.smtputf8 = mail.parameters.smtputf8;
        }
        *self.count(&pending) += 1;
        self.commands.push_back(pending);
    }

    pub(super) fn push_front(&mut self, pending: Pending) {
        *self.count(&pending) += 1;
        self.commands.push_front(pending);
    }

    pub(super) fn pop_front(&mut self) -> Option<Pending> {
        let pending = self.commands.pop_front()?;
        *self.count(&pending) -= 1;
        Some(pending)
    }

    fn count(&mut self, pending: &Pending) -> &mut usize {
        match pending {
            Pending::Mail(_) => &mut self.mails,
            Pending::Rcpt(_) | Pending::Unasked(_) => &mut self.recipients,
            Pending::BrokenPath | Pending::Said(_) => &mut self.others,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::Command;

    #[test]
    fn what_it_knows_is_what_it_holds() {
        let mail = |line: &str| match Command::parse(line.as_bytes()) {
            Ok(Command::Mail(mail)) => Pending::Mail(mail),
            other => panic!("{other:?}"),
        };
        let rcpt = || match Command::parse(b"RCPT TO:<a@b>") {
            Ok(Command::Rcpt(rcpt)) => rcpt,
            other => panic!("{other:?}"),
        };
        let mut queue = Queue::default();
        let known =
            |queue: &Queue| (queue.has_mail(), queue.smtputf8(), queue.recipients(), queue.is_empty());
        assert_eq!(known(&queue), (false, None, 0, true));
        queue.push_back(Pending::BrokenPath);
        queue.push_back(mail("MAIL FROM:<a@b> SMTPUTF8"));
        queue.push_back(Pending::Rcpt(rcpt()));
        queue.push_back(Pending::Unasked(rcpt()));
        assert_eq!(known(&queue), (true, Some(true), 2, false));
        assert!(matches!(queue.pop_front(), Some(Pending::BrokenPath)));
        let first = queue.pop_front().unwrap();
        assert_eq!(known(&queue), (false, None, 2, false));
        queue.push_front(first);
        assert_eq!(known(&queue), (true, Some(true), 2, false));
        queue.push_back(mail("MAIL FROM:<a@b>"));
        let first = queue.pop_front().unwrap();
        queue.push_front(first);
        assert_eq!(known(&queue), (true, Some(false), 2, false));
        while queue.pop_front().is_some() {}
        assert_eq!(known(&queue), (false, None, 0, true));
    }
}
