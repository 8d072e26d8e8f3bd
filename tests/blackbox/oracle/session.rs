//! One client's session, and what must be said in it.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Scene;
use super::upstream::{Kind, UNWANTED};
use crate::support::random::Random;
use crate::support::smtp::{Reply, Smtp, stuffed};

/// A message as a client sent it.
pub(super) struct Said {
    /// Who was accepted, in order of the alphabet.
    pub(super) recipients: Vec<String>,
    /// As it came by DATA or BDAT.
    pub(super) content: Vec<u8>,
}

/// A command of a batch, by what the reply to it depends on.
enum Asked {
    Mail,
    Rcpt(Kind, String),
    /// A RCPT whose path or parameters are none.
    BadRcpt(u16),
    /// MAIL in a transaction.
    Nested,
    Data,
    Other(u16),
}

/// How the envelope is gone on from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Data,
    Chunks,
    Reset,
    Nothing,
}

pub(super) struct Session<'a> {
    scene: &'a Scene,
    smtp: Smtp,
    random: Random,
}

/// One transaction so far.
struct Transaction {
    number: u64,
    began: Instant,
    mail: Kind,
    mail_taken: bool,
    accepted: Vec<String>,
}

impl<'a> Session<'a> {
    pub(super) fn new(scene: &'a Scene, smtp: Smtp, random: Random) -> Self {
        Self { scene, smtp, random }
    }

    pub(super) fn play(mut self) {
        for _ in 0..2 + self.random.below(8) {
            let end =
                self.random.one_of(&[End::Data, End::Data, End::Data, End::Chunks, End::Reset, End::Nothing]);
            let transaction = self.envelope(end);
            let is_over = match end {
                End::Data if transaction.may_go_on() => {
                    self.mail_data(&transaction);
                    true
                }
                End::Chunks => self.chunks(&transaction),
                End::Nothing if self.random.once_in(5) => return, // it hangs up
                _ => end == End::Reset,
            };
            if !is_over {
                let line = self.random.one_of(&["RSET", "EHLO again.example"]);
                self.smtp.expect(line, 250);
            }
        }
        self.smtp.quit();
    }

    /// MAIL, RCPTs and what else stands between them, in one batch.
    fn envelope(&mut self, end: End) -> Transaction {
        let number = self.scene.transactions.fetch_add(1, Ordering::Relaxed);
        let mail = match self.random.below(10) {
            0 => Kind::Refused,
            1 => Kind::Closes,
            _ => Kind::Fine,
        };
        let mut transaction =
            Transaction { number, began: Instant::now(), mail, mail_taken: false, accepted: Vec::new() };
        let mut batch = Vec::new();
        if self.random.once_in(10) {
            batch.push(("NOOP".to_owned(), Asked::Other(250)));
        }
        batch.push((format!("MAIL FROM:<{}>", mail.address(number, 0)), Asked::Mail));
        for recipient in 1..=self.random.one_of(&[1, 1, 2, 5, 12, 30, 30]) {
            let kind = self.kind();
            let address = kind.address(number, recipient);
            batch.push((format!("RCPT TO:<{address}>"), Asked::Rcpt(kind, address)));
            batch.extend(self.aside(&transaction, recipient));
        }
        match end {
            End::Data => batch.push(("DATA".to_owned(), Asked::Data)),
            End::Reset => batch.push(("RSET".to_owned(), Asked::Other(250))),
            End::Chunks | End::Nothing => {}
        }
        // All at once, or so many ahead of the replies.
        let ahead = self.random.one_of(&[30, 30, 20, 20, 5, 1]).min(batch.len());
        let (front, rest) = batch.split_at(ahead);
        let lines: String = front.iter().map(|(line, _)| format!("{line}\r\n")).collect();
        self.send(lines.as_bytes());
        let mut rest = rest.iter();
        for (line, asked) in &batch {
            let reply = self.smtp.reply();
            if let Some((next, _)) = rest.next() {
                self.send(format!("{next}\r\n").as_bytes());
            }
            self.check(&mut transaction, asked, &reply, line);
        }
        transaction
    }

    fn kind(&mut self) -> Kind {
        if self.random.once_in(40) {
            return self.random.one_of(&[Kind::Closes, Kind::Leaves]);
        }
        if self.random.below(10) < self.scene.dead {
            return Kind::Dead;
        }
        self.random.one_of(&[
            Kind::Fine,
            Kind::Fine,
            Kind::Fine,
            Kind::Fine,
            Kind::Fine,
            Kind::Put,
            Kind::Refused,
            Kind::Late,
        ])
    }

    /// What is seldom said between two RCPTs.
    fn aside(&mut self, transaction: &Transaction, number: usize) -> Option<(String, Asked)> {
        let (line, asked) = match self.random.below(100) {
            0..=2 => ("RCPT TO:<nobody>".to_owned(), Asked::BadRcpt(501)),
            3..=4 => ("RCPT TO:<a@mta.example> FOO=1".to_owned(), Asked::BadRcpt(555)),
            5..=6 if self.scene.has_broken_paths() => {
                ("RCPT TO:<a b@mta.example>".to_owned(), Asked::BadRcpt(501))
            }
            7 => ("VRFY x".to_owned(), Asked::Other(252)),
            8 => ("NOOP".to_owned(), Asked::Other(250)),
            // Behind a MAIL that may fail it would be no second one.
            9 if transaction.mail == Kind::Fine => {
                let address = Kind::Fine.address(transaction.number, 1_000 + number);
                (format!("MAIL FROM:<{address}>"), Asked::Nested)
            }
            _ => return None,
        };
        Some((line, asked))
    }

    fn check(&self, transaction: &mut Transaction, asked: &Asked, reply: &Reply, line: &str) {
        let blocked = self.scene.may_be_blocked(transaction.began);
        let failed = reply.code == 451 && self.scene.oracle.failed(transaction.number);
        let in_vain = !transaction.mail_taken;
        let code = reply.code;
        let is_right = match asked {
            Asked::Other(expected) => code == *expected,
            Asked::Mail => {
                transaction.mail_taken = code == 250;
                code == transaction.mail.code() || failed || (blocked && code == 250)
            }
            Asked::Rcpt(..) | Asked::Nested | Asked::Data if in_vain => code == 503,
            Asked::BadRcpt(expected) => code == *expected || (in_vain && code == 503),
            Asked::Nested => code == 503,
            Asked::Rcpt(kind, address) => {
                if code == 250 {
                    transaction.accepted.push(address.clone());
                }
                // A block that ends before it: MAIL is asked only then, and may be refused.
                let mail = blocked && code == transaction.mail.code();
                let named = blocked || failed || reply.text().contains(address.as_str());
                (code == kind.code() && named) || failed || mail || (blocked && code == 250)
            }
            Asked::Data => code == if transaction.accepted.is_empty() { 554 } else { 354 },
        };
        assert!(
            is_right,
            "{line}: {} (may have been blocked: {blocked}; the upstream failed: {}; GATEPOST_SEED={})",
            reply.text(),
            self.scene.oracle.failed(transaction.number),
            self.scene.given,
        );
    }

    /// A message, and whether it is one that no upstream wants.
    fn message(&mut self, transaction: &Transaction) -> (Vec<u8>, bool) {
        let unwanted = self.random.once_in(10);
        let mut message =
            format!("From: <a@mta.example>\r\nSubject: s{}\r\n", transaction.number).into_bytes();
        if unwanted {
            message.extend_from_slice(UNWANTED.as_bytes());
        }
        message.extend_from_slice(b"\r\n");
        match self.random.below(5) {
            0 => message.extend_from_slice(b".dot\r\n..two\r\n.\r\n"),
            1 => {}
            2 => message.extend_from_slice(b"no newline"),
            3 => message.extend_from_slice(b"short\r\n"),
            _ => {
                let lines = self.random.one_of(&[1, 60, 900, 4_000]);
                message.extend(format!("{}\r\n", "x".repeat(76)).repeat(lines).into_bytes());
            }
        }
        (message, unwanted)
    }

    /// What follows 354.
    fn mail_data(&mut self, transaction: &Transaction) {
        let (mut message, unwanted) = self.message(transaction);
        if !message.ends_with(b"\r\n") {
            message.extend_from_slice(b"\r\n"); // there is no other way to end it
        }
        let bad = self.random.once_in(10);
        let mut wire = stuffed(&message);
        if bad {
            let mut at = usize::try_from(self.random.below(message.len() as u64 - 2)).unwrap();
            at += usize::from(at > 0 && wire[at - 1] == b'\r');
            wire.splice(at..at, *b"\n.\n");
        }
        let goes_on = self.random.once_in(3);
        if goes_on {
            wire.extend_from_slice(b"NOOP\r\n");
        }
        self.send(&wire);
        let reply = self.smtp.reply();
        if goes_on {
            self.smtp.expect_reply(250);
        }
        self.end(transaction, message, bad, unwanted, &reply);
    }

    /// The message in chunks; says whether that ended the transaction.
    fn chunks(&mut self, transaction: &Transaction) -> bool {
        let (mut message, unwanted) = self.message(transaction);
        let bad = self.random.once_in(10);
        if bad {
            let at = usize::try_from(self.random.below(message.len() as u64 + 1)).unwrap();
            message.splice(at..at, *b"\nX");
        }
        let mut sizes = Vec::new();
        let mut left = message.len() as u64;
        while left > 0 && !self.random.once_in(3) {
            let size = self.random.below(left + 1);
            sizes.push(size);
            left -= size;
        }
        if self.random.once_in(2) {
            sizes.push(left);
        } else {
            sizes.extend([left, 0]);
        }
        let reset = sizes.len() > 1 && self.random.once_in(10);
        let last = sizes.len() - 1;
        let (mut wire, mut rest) = (Vec::new(), message.as_slice());
        for (number, size) in sizes.iter().enumerate() {
            let (chunk, behind) = rest.split_at(usize::try_from(*size).unwrap());
            rest = behind;
            match number == last {
                true if reset => wire.extend_from_slice(b"RSET\r\n"),
                is_last => {
                    let marker = if is_last { " LAST" } else { "" };
                    wire.extend_from_slice(format!("BDAT {size}{marker}\r\n").as_bytes());
                    wire.extend_from_slice(chunk);
                }
            }
        }
        self.send(&wire);
        let mut replies: Vec<Reply> = sizes.iter().map(|_| self.smtp.reply()).collect();
        if reset {
            assert_eq!(replies.pop().unwrap().code, 250, "RSET (GATEPOST_SEED={})", self.scene.given);
        }
        if !transaction.may_go_on() {
            let expected = if transaction.mail_taken { 554 } else { 503 };
            assert!(replies.iter().all(|reply| reply.code == expected), "{expected}: {replies:?}");
            return reset;
        }
        // The first failure is the message's.
        let failure = replies.iter().find(|reply| reply.code != 250);
        match failure.or(replies.last().filter(|_| !reset)) {
            Some(reply) => self.end(transaction, message, bad, unwanted, reply),
            None => assert!(self.scene.oracle.deliveries(&transaction.subject()).is_empty(), "it was reset"),
        }
        reset
    }

    /// What the reply to a message must be, and where the message is then.
    fn end(&self, transaction: &Transaction, content: Vec<u8>, bad: bool, unwanted: bool, reply: &Reply) {
        let subject = transaction.subject();
        let deliveries = self.scene.oracle.deliveries(&subject);
        let blocked = self.scene.may_be_blocked(transaction.began);
        let about = format!(
            "{subject}: {} (bad: {bad}, unwanted: {unwanted}, may have been blocked: {blocked}, GATEPOST_SEED={})",
            reply.text(),
            self.scene.given
        );
        if reply.code != 250 {
            let failed = reply.code == 451 && self.scene.oracle.failed(transaction.number);
            let refused = (bad && reply.code / 100 == 5) || (unwanted && reply.code == 554);
            assert!(failed || refused, "{about}");
            assert!(deliveries.is_empty(), "{about}: and yet it is delivered");
            return;
        }
        let mut recipients = transaction.accepted.clone();
        recipients.sort();
        assert!(!bad, "{about}");
        match deliveries.as_slice() {
            [] => assert!(blocked, "{about}: it is nowhere"),
            [delivery] => {
                assert_eq!(delivery.recipients, recipients, "{about}");
                let mut expected = content.clone();
                if !expected.ends_with(b"\r\n") {
                    expected.extend_from_slice(b"\r\n");
                }
                assert!(delivery.content.ends_with(&expected), "{about}: it has changed");
            }
            _ => panic!("{about}: delivered {} times", deliveries.len()),
        }
        self.scene.acknowledged.lock().unwrap().insert(subject, Said { recipients, content });
    }

    /// In one piece or two, at once or with a pause.
    fn send(&mut self, octets: &[u8]) {
        let cut = match self.random.below(3) {
            0 => usize::try_from(self.random.below(octets.len() as u64)).unwrap(),
            _ => 0,
        };
        let (front, rest) = octets.split_at(cut);
        if !front.is_empty() {
            self.smtp.send(front);
            std::thread::sleep(Duration::from_millis(self.random.one_of(&[0, 0, 3, 60])));
        }
        self.smtp.send(rest);
    }
}

impl Transaction {
    fn may_go_on(&self) -> bool {
        self.mail_taken && !self.accepted.is_empty()
    }

    fn subject(&self) -> String {
        format!("s{}", self.number)
    }
}
