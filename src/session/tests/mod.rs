//! Dialogues with the pure machine: scripts in which the test plays client, upstream, guard and driver.
//!
//! A line of a script is an event, followed by everything that must result from it: replies (`S:`) and at most one step
//! (`>`; none means `Step::Read`). Nothing more and nothing less may come.

mod block;
mod data;
mod front;
mod order;
mod probation;
mod random;
mod security;

use super::*;
use crate::clock::Timestamp;
use crate::guard::mimicry::{About, Precedents};
use crate::sender::rules::{Policy, Rules};
use crate::smtp::Extensions;

/// How a dialogue begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// On a starttls listener, nothing said yet.
    Clear,
    /// On an implicit listener, nothing said yet.
    Implicit,
    /// `anna` logged in, over TLS.
    User,
    /// The same, on a server that refuses blocked accounts.
    Refusing,
    /// A relay host in cleartext, after EHLO.
    Relay,
}

/// The world, which a script can change.
#[derive(Clone)]
pub(super) struct World {
    pub blocked: bool,
    pub probation: bool,
    pub room: bool,
    pub interruption: Option<Interruption>,
    pub precedents: Precedents,
    pub upstream: Option<Extensions>,
    pub mechanisms: &'static str,
    pub message_id: String,
    /// The account that `only-as-self` restricts, and the rules.
    pub bound: Option<(Rules, Account)>,
}

impl Sources for World {
    fn time(&self) -> Timestamp {
        Timestamp::from_millis(1_795_536_328_123) // 2026-11-24
    }

    fn probation(&self) -> bool {
        self.probation
    }

    fn precedents(&self) -> &Precedents {
        &self.precedents
    }

    fn upstream(&self) -> Option<&Extensions> {
        self.upstream.as_ref()
    }

    fn sender(&self) -> Option<(&Rules, &Account)> {
        self.bound.as_ref().map(|(rules, account)| (rules, account))
    }

    fn room(&self) -> bool {
        self.room
    }
}

impl World {
    pub(super) fn new() -> Self {
        let upstream = Extensions {
            pipelining: true,
            size: Some(Some(10_000_000)),
            eight_bit_mime: true,
            smtputf8: true,
            dsn: true,
            ..Extensions::default()
        };
        Self {
            blocked: false,
            probation: false,
            room: true,
            interruption: None,
            precedents: Precedents::default(),
            upstream: Some(upstream),
            mechanisms: "PLAIN LOGIN",
            message_id: String::new(),
            bound: None,
        }
    }

    pub(super) fn view(&self) -> View<'_> {
        View {
            blocked: self.blocked,
            interruption: self.interruption,
            mechanisms: self.mechanisms,
            sources: self,
        }
    }

    fn change(&mut self, what: &str) {
        match what.split_once(' ').unwrap_or((what, "")) {
            ("blocked", _) => self.blocked = true,
            ("open", _) => self.blocked = false,
            ("probation", "over") => self.probation = false,
            ("probation", _) => self.probation = true,
            ("full", _) => self.room = false,
            ("kicked", _) => self.interruption = Some(Interruption::Kicked),
            ("credentials", _) => self.interruption = Some(Interruption::CredentialsChanged),
            ("shutdown", _) => self.interruption = Some(Interruption::ShuttingDown),
            ("message-id", id) => self.message_id = id.to_owned(),
            ("no-auth", _) => self.mechanisms = "",
            ("no-upstream", _) => self.upstream = None,
            ("plain-upstream", _) => self.upstream = Some(Extensions::default()),
            ("offers", keywords) => {
                let text = format!("x\n{}", keywords.replace('|', "\n"));
                let ehlo = Reply { code: 250, enhanced: None, text: text.into() };
                self.upstream = Some(Extensions::from_ehlo(&ehlo));
            }
            ("only-as-self", _) => {
                let domains = vec!["example.org".to_owned()];
                let rules = Rules { policy: Policy::Own, domains, ..Rules::default() };
                self.bound = Some((rules, "anna".parse().unwrap()));
            }
            ("upstream-size", octets) => {
                self.upstream.get_or_insert_default().size = Some(octets.parse().ok());
            }
            ("learned", what) => {
                let (place, rest) = what.split_once(' ').unwrap();
                let (address, said) = rest.split_once(' ').unwrap();
                let place = match place {
                    "MAIL" => Place::Mail,
                    "RCPT" => Place::Rcpt,
                    _ => Place::EndOfData,
                };
                assert!(self.precedents.learn(
                    place,
                    About::address(address.trim_matches('-')),
                    &reply(said)
                ));
            }
            _ => panic!("no such change: {what}"),
        }
    }
}

pub(super) fn session(start: Start) -> Session {
    let terms = Terms {
        hostname: "mx.example.org".to_owned(),
        implicit_tls: !matches!(start, Start::Clear | Start::Relay),
        relay_host: start == Start::Relay,
        max_message_size: 1000,
        max_recipients: 3,
        max_transactions: 0,
        max_errors: 10,
        refuse_blocked: start == Start::Refusing,
    };
    let mut session = Session::new(terms, 1);
    let (world, mut out) = (World::new(), Vec::new());
    let hello = Event::Line(Ok(Command::Ehlo("client.example".to_owned())));
    if !matches!(start, Start::Clear | Start::Implicit) {
        session.handle(hello, &world.view(), &mut out);
    }
    if matches!(start, Start::User | Start::Refusing) {
        let anna = AuthOutcome::Success("anna".parse().unwrap());
        session.handle(Event::Authenticated(anna), &world.view(), &mut out);
    }
    session
}

/// Makes a reply as an upstream would send it; `|` separates its lines.
pub(super) fn reply(text: &str) -> Reply {
    let wire = format!("{}\r\n", text.replace('|', "\r\n"));
    Reply::parse(wire.as_bytes()).unwrap().unwrap().0
}

fn fault(name: &str) -> UpstreamFault {
    match name {
        "unavailable" => UpstreamFault::Unavailable,
        "starved" => UpstreamFault::Starved,
        "busy" => UpstreamFault::Busy,
        "protocol" => UpstreamFault::Protocol,
        "ambiguous" => UpstreamFault::Ambiguous,
        _ => panic!("no such fault: {name}"),
    }
}

fn answer(text: &str) -> Answered {
    match text.split_once(' ') {
        Some(("fault", name)) => Answered::Fault(fault(name)),
        Some(_) => Answered::Replied(reply(text)),
        None if text == "unasked" => Answered::Unasked,
        None => Answered::BrokenPath,
    }
}

fn delivery(text: &str) -> Delivery {
    match text.split_once(' ') {
        Some(("fault", name)) => Delivery::Fault(fault(name)),
        Some(_) => Delivery::Replied(reply(text)),
        None => match text {
            "parked" => Delivery::Parked,
            "refused" => Delivery::Refused,
            "bad-newline" => Delivery::BadNewline,
            "too-big" => Delivery::TooBig,
            "foreign-from" => Delivery::ForeignFrom,
            "loop" => Delivery::Loop,
            "full" => Delivery::QuarantineFull(ParkReason::Blocked),
            "unreadable" => Delivery::Unreadable,
            "no-route" => Delivery::NoRoute,
            _ => panic!("no such delivery: {text}"),
        },
    }
}

fn outcome(text: &str) -> AuthOutcome {
    match text {
        "denied" => AuthOutcome::Denied,
        "malformed" => AuthOutcome::Malformed,
        "base64" => AuthOutcome::BadBase64,
        "too-long" => AuthOutcome::TooLong,
        "cancelled" => AuthOutcome::Cancelled,
        "not-offered" => AuthOutcome::NotOffered,
        "later" => AuthOutcome::Later,
        name => AuthOutcome::Success(name.parse().unwrap()),
    }
}

fn event(kind: &str, text: &str) -> Event {
    match (kind, text) {
        ("C", line) => Event::Line(Command::parse(line.as_bytes()).map_err(LineError::Command)),
        ("L", "too-long") => Event::Line(Err(LineError::TooLong)),
        ("L", "auth-too-long") => Event::Line(Err(LineError::AuthTooLong)),
        ("L", "tls-hello") => Event::Line(Err(LineError::TlsHello)),
        ("L", "fault") => Event::Line(Err(LineError::Fault)),
        ("E", "connected") => Event::Connected,
        ("E", "tls") => Event::TlsEstablished,
        ("E", "timed-out") => Event::TimedOut,
        ("E", "interrupted") => Event::Interrupted,
        ("E", "discarded") => Event::ChunkDiscarded,
        ("E", octets) => Event::ChunkReceived(octets.strip_prefix("received ").unwrap().parse().unwrap()),
        ("A", text) => Event::Authenticated(outcome(text)),
        ("U", text) => Event::Answered(answer(text)),
        ("D", text) => Event::Delivered(delivery(text)),
        _ => panic!("no such event: {kind}: {text}"),
    }
}

/// Writes a step as it stands in a script.
fn written(step: &Step) -> String {
    match step {
        Step::Read => String::new(),
        Step::Close => "close".to_owned(),
        Step::StartTls => "starttls".to_owned(),
        Step::Authenticate { mechanism, initial: None } => format!("auth {mechanism}"),
        Step::Authenticate { mechanism, initial: Some(initial) } => format!("auth {mechanism} {initial}"),
        Step::Ask(Ask::Mail(command)) => format!("ask MAIL {}", command.reverse_path),
        Step::Ask(Ask::Rcpt(command)) => format!("ask RCPT {}", command.forward_path),
        Step::Ask(Ask::BrokenPath(octets)) => format!("ask PATH {}", String::from_utf8_lossy(octets)),
        Step::ReceiveData => "data".to_owned(),
        Step::ReceiveChunk { size, last: false } => format!("chunk {size}"),
        Step::ReceiveChunk { size, last: true } => format!("chunk {size} last"),
        Step::DiscardChunk(size) => format!("discard {size}"),
    }
}

fn route(destination: &Destination) -> String {
    match destination {
        Destination::Relay => "relay".to_owned(),
        Destination::Refuse => "refuse".to_owned(),
        Destination::Park(order) => match order.reason {
            ParkReason::Blocked => "park blocked".to_owned(),
            ParkReason::AnsweredUnasked => "park unasked".to_owned(),
            ParkReason::CredentialsChanged => "park credentials".to_owned(),
            ParkReason::Probation => "park probation".to_owned(),
        },
    }
}

/// What the transaction knows of its recipients: address, whether the client was told 250, the upstream's reply.
fn recipients(session: &Session) -> Vec<String> {
    let written = |recipient: &Recipient| {
        let said = recipient.upstream.as_ref().map_or("-".to_owned(), Reply::to_string);
        let told = if recipient.accepted { "taken" } else { "refused" };
        format!("{} {told} {said}", recipient.command.forward_path)
    };
    session.transaction().map(|of| of.recipients.iter().map(written).collect()).unwrap_or_default()
}

fn matches(pattern: &str, line: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => line.starts_with(beginning),
        None => line == pattern,
    }
}

/// Plays one dialogue; see the top of this file. Apart from events, `V:` changes the world, `?` asks for the
/// destination, and `R:` lines are the transaction's recipients in order.
fn play(title: &str, start: Start, script: &str) {
    let (mut session, mut world, mut open) = (session(start), World::new(), 0);
    let lines: Vec<&str> = script.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut lines = lines.into_iter().peekable();
    while let Some(line) = lines.next() {
        let place = format!("{title}: {line}");
        let (kind, text) = line.split_once(' ').unwrap_or((line, ""));
        match kind {
            "V:" => world.change(text),
            "?" => assert_eq!(
                route(&session.destination(|| world.message_id.clone(), &world.view())),
                text,
                "{place}"
            ),
            "R:" => {
                let mut expected = vec![text];
                while let Some(next) = lines.next_if(|next| next.starts_with("R:")) {
                    expected.push(next.trim_start_matches("R: "));
                }
                assert_eq!(recipients(&session), expected, "{place}");
            }
            _ => {
                let event = event(kind.trim_end_matches(':'), text);
                if let Event::Line(line) = &event {
                    assert!(
                        open == 0 || Session::may_overtake(line),
                        "{place}: the driver would settle first"
                    );
                }
                open -= i32::from(matches!(event, Event::Answered(_)));
                let mut out = Vec::new();
                let step = session.handle(event, &world.view(), &mut out);
                open += i32::from(matches!(step, Step::Ask(_)));
                let out = String::from_utf8(out).unwrap();
                let mut said = out.split_terminator("\r\n");
                while let Some(expected) = lines.next_if(|line| line.starts_with("S:")) {
                    let expected = expected.trim_start_matches("S: ");
                    let reply = said.next().unwrap_or_default();
                    assert!(matches(expected, reply), "{place}: expected {expected}, got {reply}");
                }
                assert_eq!(said.next(), None, "{place}: more than expected");
                let expected = lines.next_if(|line| line.starts_with('>')).unwrap_or_default();
                assert_eq!(written(&step), expected.trim_start_matches("> "), "{place}: step");
            }
        }
    }
}

/// Plays each dialogue.
pub(super) fn play_all(dialogues: &[(&str, Start, &str)]) {
    for (title, start, script) in dialogues {
        play(title, *start, script);
    }
}
