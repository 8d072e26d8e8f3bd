//! Any sequence of events: one reply for each command, in order, and nothing that reveals a block.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// A client's lines. `%` is the number of the line, which tells the replies to MAIL and RCPT apart.
const LINES: &[&str] = &[
    "MAIL FROM:<m%@example.org>",
    "MAIL FROM:<m%@example.org>",
    "RCPT TO:<r%@example.org>",
    "RCPT TO:<r%@example.org>",
    "RCPT TO:<r%@example.org>",
    "RCPT TO:<r%@@example.org>",
    "RCPT TO:<r%>",
    "RCPT TO:<r%@example.org> FOO",
    "DATA",
    "DATA",
    "BDAT 5",
    "BDAT 5 LAST",
    "RSET",
    "NOOP",
    "EHLO again",
    "HELO again",
    "STARTTLS",
    "AUTH PLAIN",
    "VRFY a",
    "XYZZY",
    "BDAT x",
    "QUIT",
];

#[derive(Debug, Clone)]
enum Act {
    Line(usize),
    /// Answer the oldest question.
    Answer,
    Change(u8),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (0..LINES.len()).prop_map(Act::Line),
        2 => Just(Act::Answer),
        1 => any::<u8>().prop_map(Act::Change),
    ]
}

/// Plays the driver: answers what must not be overtaken first, and does what the steps ask.
struct Driver {
    session: Session,
    world: World,
    /// The open questions: the number of each, and whether it is for the upstream.
    asked: VecDeque<(usize, bool)>,
    out: Vec<u8>,
    /// The number of the command that each future reply is for.
    expected: Vec<usize>,
    /// Whether the world may change.
    steady: bool,
    choices: u64,
    closed: bool,
}

impl Driver {
    fn new(start: Start, world: World, choices: u64, steady: bool) -> Self {
        Self {
            session: session(start),
            world,
            asked: VecDeque::new(),
            out: Vec::new(),
            expected: Vec::new(),
            steady,
            choices,
            closed: false,
        }
    }

    fn choose(&mut self, of: u64) -> u64 {
        self.choices =
            self.choices.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.choices >> 33) % of
    }

    fn handle(&mut self, event: Event) -> Step {
        let step = self.session.handle(event, &self.world.view(), &mut self.out);
        self.closed |= step == Step::Close;
        step
    }

    fn act(&mut self, number: usize, act: &Act) {
        match act {
            Act::Line(line) => self.line(number, LINES[*line]),
            Act::Answer => self.answer(),
            Act::Change(_) if self.steady => {}
            Act::Change(what) => match what % 16 {
                0..6 => self.world.blocked = !self.world.blocked,
                6..8 => self.world.room = !self.world.room,
                8 => self.world.interruption = Some(Interruption::ShuttingDown),
                9 => self.world.change("credentials"),
                10 => self.world.change("kicked"),
                11..13 => self.world.upstream = None,
                13..15 => self.world.probation = !self.world.probation,
                _ => self.world.mechanisms = "",
            },
        }
    }

    fn line(&mut self, number: usize, line: &str) {
        let line =
            Command::parse(line.replace('%', &number.to_string()).as_bytes()).map_err(LineError::Command);
        while !self.asked.is_empty() && !Session::may_overtake(&line) {
            self.answer();
        }
        if self.closed {
            return;
        }
        self.expected.push(number);
        match self.handle(Event::Line(line)) {
            Step::Ask(Ask::BrokenPath(_)) => self.asked.push_back((number, false)),
            Step::Ask(_) => self.asked.push_back((number, true)),
            Step::StartTls => drop(self.handle(Event::TlsEstablished)),
            Step::Authenticate { .. } => {
                let outcome = [AuthOutcome::Success("anna".parse().unwrap()), AuthOutcome::Denied];
                let chosen = self.choose(2) as usize;
                self.handle(Event::Authenticated(outcome[chosen].clone()));
            }
            Step::ReceiveData => {
                self.expected.push(number); // 354 was the first reply
                self.deliver();
            }
            Step::ReceiveChunk { last: true, .. } => self.deliver(),
            Step::ReceiveChunk { size, .. } => drop(self.handle(Event::ChunkReceived(size))),
            Step::DiscardChunk(_) => drop(self.handle(Event::ChunkDiscarded)),
            Step::Read | Step::Close => {}
        }
    }

    fn deliver(&mut self) {
        let delivery = match self.session.destination(String::new, &self.world.view()) {
            Destination::Relay if self.steady => Delivery::Replied(reply("250 2.0.0 message accepted")),
            Destination::Relay => match self.choose(3) {
                0 => Delivery::Replied(reply("250 2.0.0 message accepted")),
                1 => Delivery::BadNewline,
                _ => Delivery::Fault(UpstreamFault::Ambiguous),
            },
            Destination::Park(order) => {
                assert_eq!(order.told.code, 250);
                Delivery::Parked
            }
            Destination::Refuse => Delivery::Refused,
        };
        self.handle(Event::Delivered(delivery));
    }

    fn answer(&mut self) {
        let Some((number, upstream)) = self.asked.pop_front() else { return };
        let choice = if self.steady { 0 } else { self.choose(7) };
        let answered = match choice {
            _ if !upstream => Answered::BrokenPath,
            0..3 => Answered::Replied(reply(&format!("250 2.1.0 about {number} <x{number}@example.org>"))),
            3 => Answered::Replied(reply(&format!("550 5.1.1 about {number} no"))),
            4 => Answered::Fault(UpstreamFault::Unavailable),
            5 => Answered::MailRefused(reply(&format!("554 5.7.1 about {number} no"))),
            _ => Answered::Unasked,
        };
        self.handle(Event::Answered(answered));
        if self.closed {
            self.asked.clear();
        }
    }

    fn settle(&mut self) {
        while !self.asked.is_empty() {
            self.answer();
        }
    }

    /// Each reply as one string.
    fn replies(&self) -> Vec<String> {
        let (mut rest, mut replies) = (&self.out[..], Vec::new());
        while let Some((reply, length)) = Reply::parse(rest).unwrap() {
            rest = &rest[length..];
            replies.push(reply.to_string());
        }
        assert!(rest.is_empty(), "half a reply");
        replies
    }
}

/// The number in `... about 7 ...`.
fn about(reply: &str) -> Option<usize> {
    let (_, rest) = reply.split_once(" about ")?;
    rest.split(' ').next()?.parse().ok()
}

const STARTS: [Start; 5] = [Start::Clear, Start::Implicit, Start::User, Start::Refusing, Start::Relay];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn one_reply_for_each_command_in_order(
        start in 0..STARTS.len(),
        acts in proptest::collection::vec(act(), 0..60),
        choices: u64,
    ) {
        let mut driver = Driver::new(STARTS[start], World::new(), choices, false);
        for (number, act) in acts.iter().enumerate() {
            driver.act(number, act);
            let replies = driver.replies();
            prop_assert!(replies.len() <= driver.expected.len());
            if driver.asked.is_empty() && !driver.closed {
                prop_assert_eq!(replies.len(), driver.expected.len(), "a command without its reply");
            }
            for (reply, expected) in replies.iter().zip(&driver.expected) {
                prop_assert!(about(reply).is_none_or(|number| number == *expected), "{reply} answers {expected}");
            }
        }
        driver.settle();
        let replies = driver.replies();
        if driver.closed {
            let last = replies.last().map_or("", String::as_str);
            prop_assert!(["221", "421", "501"].iter().any(|code| last.starts_with(code)), "{last}");
            let before = replies.len();
            prop_assert_eq!(driver.handle(Event::Line(Ok(Command::Noop))), Step::Close);
            prop_assert_eq!(driver.replies().len(), before);
        } else {
            prop_assert_eq!(replies.len(), driver.expected.len());
        }
    }

    /// CONTRACT: EHLO is the same for blocked and unblocked accounts, whatever came before.
    #[test]
    fn ehlo_does_not_tell_a_block(
        start in 0..STARTS.len(),
        acts in proptest::collection::vec(act(), 0..30),
        choices: u64,
    ) {
        let [one, other] = [false, true].map(|blocked| {
            let mut driver = Driver::new(STARTS[start], World::new(), choices, false);
            for (number, act) in acts.iter().enumerate() {
                driver.act(number, act);
            }
            driver.settle();
            driver.out.clear();
            driver.world.blocked = blocked;
            driver.handle(Event::Line(Ok(Command::Ehlo("x".to_owned()))));
            driver.out
        });
        prop_assert_eq!(one, other);
    }

    /// CONTRACT: no other reply differs either, if the upstream accepts everything in always the same form.
    #[test]
    fn no_reply_tells_a_block(acts in proptest::collection::vec(act(), 0..60), choices: u64) {
        let mut world = World::new();
        for (place, address) in [(Place::Mail, "m0@example.org"), (Place::Rcpt, "r0@example.org")] {
            world.precedents.learn(place, About::address(address), &reply("250 2.1.0 thanks"));
        }
        world.precedents.learn(Place::EndOfData, About::default(), &reply("250 2.0.0 message accepted"));
        let [open, blocked] = [false, true].map(|blocked| {
            let mut driver = Driver::new(Start::User, World { blocked, ..world.clone() }, choices, true);
            for (number, act) in acts.iter().enumerate() {
                driver.act(number, act);
            }
            driver.settle();
            let replies = driver.replies();
            replies.into_iter().map(|said| if about(&said).is_some() { "250 2.1.0 thanks".into() } else { said }).collect::<Vec<_>>()
        });
        prop_assert_eq!(open, blocked);
    }
}
