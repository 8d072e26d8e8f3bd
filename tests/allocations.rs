//! What a command allocates once a session runs: nothing, but what is kept of it.
//!
//! From the line to the question that goes upstream, and from the upstream's reply to that of the client; without sockets.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use allocation_counter::measure;
use gatepost::clock::Timestamp;
use gatepost::guard::mimicry::Precedents;
use gatepost::session::{Answered, Ask, Event, Given, LineError, Session, Step, Terms, View};
use gatepost::smtp::{Command, Extensions, Reply};

struct Talk {
    session: Session,
    precedents: Precedents,
    upstream: Extensions,
    to_client: Vec<u8>,
    to_upstream: Vec<u8>,
}

impl Talk {
    /// EHLO and MAIL were said.
    fn begun() -> Self {
        let terms = Terms {
            hostname: "mail.example.org".to_owned(),
            implicit_tls: true,
            relay_host: true,
            max_message_size: 1_000_000,
            max_recipients: 1_000,
            max_transactions: 0,
            max_errors: 100,
            refuse_blocked: false,
        };
        let mut talk = Self {
            session: Session::new(terms, 1),
            precedents: Precedents::default(),
            upstream: Extensions { pipelining: true, ..Extensions::default() },
            to_client: Vec::with_capacity(64 * 1_024),
            to_upstream: Vec::with_capacity(64 * 1_024),
        };
        talk.happens(Event::Connected);
        talk.says(b"EHLO client.example");
        assert!(matches!(talk.says(b"MAIL FROM:<anna@example.org>"), Step::Ask(Ask::Mail(_))));
        talk.is_answered(b"250 2.1.0 Ok\r\n");
        talk
    }

    fn happens(&mut self, event: Event) -> Step {
        let given = Given {
            time: Timestamp::default(),
            probation: false,
            precedents: &self.precedents,
            upstream: Some(&self.upstream),
            sender: None,
            room: true,
        };
        let view = View { blocked: false, interruption: None, mechanisms: "", sources: &given };
        self.session.handle(event, &view, &mut self.to_client)
    }

    fn says(&mut self, line: &[u8]) -> Step {
        self.happens(Event::Line(Command::parse(line).map_err(LineError::Command)))
    }

    fn is_answered(&mut self, octets: &[u8]) {
        let (reply, _) = Reply::parse(octets).unwrap().unwrap();
        self.happens(Event::Answered(Answered::Replied(reply)));
    }

    fn names(&mut self, recipient: &[u8], reply: &[u8]) {
        match self.says(recipient) {
            Step::Ask(Ask::Rcpt(command)) => command.encode(&self.upstream, &mut self.to_upstream),
            step => panic!("{step:?}"),
        }
        self.is_answered(reply);
    }
}

#[test]
fn a_recipient_costs_its_address_and_an_unusual_reply() {
    // The list of recipients grows by doubling; from 65 to 128 it does not.
    let recipients: Vec<String> = (0..128).map(|n| format!("RCPT TO:<user{n}@example.net>")).collect();
    let (few, many) = recipients.split_at(65);
    for (reply, each) in [(&b"250 2.1.5 Ok\r\n"[..], 1), (b"250 2.1.5 Recipient is known\r\n", 2)] {
        let mut talk = Talk::begun();
        few.iter().for_each(|recipient| talk.names(recipient.as_bytes(), reply));
        let info = measure(|| many.iter().for_each(|recipient| talk.names(recipient.as_bytes(), reply)));
        assert_eq!(info.count_total, each * many.len() as u64, "{info:?}");
        assert!(talk.to_client.ends_with(reply));
    }
}

#[test]
fn what_leaves_nothing_behind_allocates_nothing() {
    let mut talk = Talk::begun();
    for line in [&b"NOOP"[..], b"HELP", b"RSET", b"VRFY anna", b"DATA"] {
        let info = measure(|| {
            talk.says(line);
        });
        assert_eq!(info.count_total, 0, "{}: {info:?}", line.escape_ascii());
    }
}
