//! A session's events in any order, and SASL exchanges.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::IpAddr;

use gatepost::account::Account;
use gatepost::auth::{Authenticator, Mechanism, SaslStep};
use gatepost::clock::Timestamp;
use gatepost::guard::mimicry::Precedents;
use gatepost::session::{
    Answered, Ask, AuthOutcome, Delivery, Destination, Event, Given, Interruption, LineError, Session, Step,
    Terms, UpstreamFault, View,
};
use gatepost::smtp::{Command, Extensions, Reply};

use super::mail;

/// What the input is read for.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn octet(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn choose(&mut self, of: u8) -> u8 {
        self.octet().unwrap_or_default() % of
    }

    fn line(&mut self) -> Vec<u8> {
        let end = self.0.iter().position(|&octet| octet == b'\n').unwrap_or(self.0.len());
        let line = self.0[..end].to_vec();
        self.0 = self.0.get(end + 1..).unwrap_or_default();
        line
    }

    /// Up to so many octets.
    fn octets(&mut self, count: usize) -> &[u8] {
        let (octets, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        octets
    }

    fn reply(&mut self) -> Reply {
        let texts: [&[u8]; 6] = [
            b"250 2.1.0 Ok\r\n",
            b"250 Ok: queued as 4711AB\r\n",
            b"550 5.1.1 No\r\n",
            b"451 4.3.0 Later\r\n",
            b"554-5.7.1 One\r\n554 5.7.1 Two\r\n",
            b"421 4.3.2 Gone\r\n",
        ];
        let text = texts[usize::from(self.choose(6))];
        Reply::parse(text).unwrap().unwrap().0
    }
}

/// The world that a view shows.
struct World {
    blocked: bool,
    probation: bool,
    room: bool,
    interruption: Option<Interruption>,
    precedents: Precedents,
    upstream: Option<Extensions>,
    mechanisms: &'static str,
    /// Bare LFs are mended.
    tolerant: bool,
}

struct Driver<'a> {
    input: Input<'a>,
    session: Session,
    world: World,
    asked: VecDeque<bool>,
    out: Vec<u8>,
    closed: bool,
    commands: usize,
}

/// As many replies as commands (DATA has two), whole ones, and none after the end; whatever happens, in whatever order.
pub fn session(data: &[u8]) {
    let mut input = Input(data);
    let start = input.octet().unwrap_or_default();
    let terms = Terms {
        hostname: "mx.example.org".to_owned(),
        implicit_tls: start & 1 != 0,
        relay_host: start & 2 != 0,
        max_message_size: 1000,
        max_recipients: 3,
        max_transactions: 0,
        max_errors: 10,
        refuse_blocked: start & 4 != 0,
    };
    let world = World {
        blocked: start & 8 != 0,
        probation: start & 32 != 0,
        room: true,
        interruption: None,
        precedents: Precedents::default(),
        upstream: (start & 16 != 0).then(Extensions::default),
        mechanisms: "PLAIN LOGIN",
        tolerant: start & 64 != 0,
    };
    let session = Session::new(terms, 1);
    let mut driver =
        Driver { input, session, world, asked: VecDeque::new(), out: Vec::new(), closed: false, commands: 1 };
    driver.handle(Event::Connected);
    while let Some(what) = driver.input.octet() {
        driver.act(what);
        driver.check();
    }
    driver.settle();
    driver.check();
}

impl Driver<'_> {
    fn handle(&mut self, event: Event) -> Step {
        let World { blocked, probation, room, interruption, precedents, upstream, mechanisms, .. } =
            &self.world;
        let time = Timestamp::from_millis(1_795_536_328_123);
        let upstream = upstream.as_ref();
        let given = Given { time, probation: *probation, precedents, upstream, sender: None, room: *room };
        let view = View { blocked: *blocked, interruption: *interruption, mechanisms, sources: &given };
        let step = self.session.handle(event, &view, &mut self.out);
        self.closed |= step == Step::Close;
        step
    }

    fn destination(&mut self) -> Destination {
        let World { blocked, probation, room, interruption, precedents, upstream, mechanisms, .. } =
            &self.world;
        let time = Timestamp::from_millis(1_795_536_328_123);
        let upstream = upstream.as_ref();
        let given = Given { time, probation: *probation, precedents, upstream, sender: None, room: *room };
        let view = View { blocked: *blocked, interruption: *interruption, mechanisms, sources: &given };
        self.session.destination(|| "<1@example.org>".to_owned(), &view)
    }

    fn act(&mut self, what: u8) {
        match what {
            0 => self.world.blocked = !self.world.blocked,
            1 => self.world.room = !self.world.room,
            2 => self.world.interruption = Some(Interruption::CredentialsChanged),
            3 => self.world.interruption = Some(Interruption::Kicked),
            4 => self.world.interruption = Some(Interruption::ShuttingDown),
            5 => self.world.upstream = None,
            6 => self.world.mechanisms = "",
            7 => {
                let ehlo = b"250-mx\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250-CHUNKING\r\n250-BINARYMIME\r\n250-REQUIRETLS\r\n\
                    250-DELIVERBY 60\r\n250-FUTURERELEASE 3600 2030-01-01T00:00:00Z\r\n250-MT-PRIORITY\r\n250 SIZE 500\r\n";
                self.world.upstream =
                    Reply::parse(ehlo).ok().flatten().map(|(reply, _)| Extensions::from_ehlo(&reply));
            }
            8 => self.answer(),
            9 => {
                self.settle();
                // The last words come unasked, once.
                self.commands += usize::from(!self.closed);
                self.handle(Event::TimedOut);
            }
            10 => self.line(Err(LineError::TooLong)),
            11 => self.line(Err(LineError::AuthTooLong)),
            12 => self.line(Err(LineError::Fault)),
            13 => self.line(Err(LineError::TlsHello)),
            _ => {
                let line = self.input.line();
                self.line(Command::parse(&line).map_err(LineError::Command));
            }
        }
    }

    fn line(&mut self, line: Result<Command, LineError>) {
        while !self.asked.is_empty() && !Session::may_overtake(&line) {
            self.answer();
        }
        if self.closed {
            return;
        }
        self.commands += 1;
        match self.handle(Event::Line(line)) {
            Step::Ask(Ask::BrokenPath(_)) => self.asked.push_back(false),
            Step::Ask(_) => self.asked.push_back(true),
            Step::StartTls => drop(self.handle(Event::TlsEstablished)),
            Step::Authenticate { .. } => {
                let outcome = match self.input.choose(3) {
                    0 => AuthOutcome::Success("anna".parse::<Account>().unwrap()),
                    1 => AuthOutcome::Denied,
                    _ => AuthOutcome::Cancelled,
                };
                self.handle(Event::Authenticated(outcome));
            }
            Step::ReceiveData => {
                self.commands += 1;
                if self.world.tolerant && !self.mended() {
                    return drop(self.handle(Event::Delivered(Delivery::BadNewline)));
                }
                self.deliver();
            }
            Step::ReceiveChunk { last: true, .. } => self.deliver(),
            Step::ReceiveChunk { size, .. } => match self.input.choose(4) {
                0 => drop(self.handle(Event::Delivered(Delivery::TooBig))),
                _ => drop(self.handle(Event::ChunkReceived(size))),
            },
            Step::DiscardChunk(_) => drop(self.handle(Event::ChunkDiscarded)),
            Step::Read | Step::Close => {}
        }
    }

    /// Mail data comes, of a client whose newlines are mended; whether it may go on.
    fn mended(&mut self) -> bool {
        let (count, size) = (self.input.choose(255), self.input.choose(9));
        let octets = [self.input.octets(usize::from(count)), b"\r\n.\r\n"].concat();
        mail::mended(&octets, usize::from(size)).unwrap().1
    }

    fn deliver(&mut self) {
        let delivery = match self.destination() {
            Destination::Relay => match self.input.choose(4) {
                0 => Delivery::BadNewline,
                1 => Delivery::Fault(UpstreamFault::Ambiguous),
                _ => Delivery::Replied(self.input.reply()),
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
        let Some(upstream) = self.asked.pop_front() else { return };
        let answered = match self.input.choose(5) {
            _ if !upstream => Answered::BrokenPath,
            0 => Answered::Unasked,
            1 => Answered::Fault(UpstreamFault::Busy),
            2 => Answered::MailRefused(self.input.reply()),
            _ => Answered::Replied(self.input.reply()),
        };
        self.handle(Event::Answered(answered));
    }

    fn settle(&mut self) {
        while !self.asked.is_empty() && !self.closed {
            self.answer();
        }
    }

    fn check(&self) {
        let (mut rest, mut replies) = (&self.out[..], 0);
        while let Some((_, length)) = Reply::parse(rest).unwrap() {
            rest = &rest[length..];
            replies += 1;
        }
        assert!(rest.is_empty(), "half a reply");
        assert!(replies <= self.commands, "more replies than commands");
        if self.asked.is_empty() && !self.closed {
            assert_eq!(replies, self.commands, "a command without its reply");
        }
    }
}

struct Site {
    runtime: tokio::runtime::Runtime,
    auth: Authenticator,
}

impl Site {
    fn open() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let users = folder.path().join("users");
        // `secret`, by 4096 iterations over an empty salt: what is right does not matter here.
        let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        std::fs::write(&users, format!("anna:{{SCRAM-SHA-256}}4096,c2FsdA==,{key},{key}\n")).unwrap();
        let mechanisms = [Mechanism::Plain, Mechanism::Login, Mechanism::ScramSha256];
        let auth = Authenticator::open(Some(&users), &mechanisms, [7; 32]).unwrap();
        Self { runtime, auth }
    }
}

/// Messages of a SASL mechanism, one a line: nobody gets in by them, and no exchange panics or goes on for ever.
pub fn sasl(data: &[u8]) {
    thread_local!(static SITE: RefCell<Option<Site>> = const { RefCell::new(None) });
    let mut input = Input(data);
    let mechanism = ["PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"][usize::from(input.choose(4))];
    SITE.with_borrow_mut(|site| {
        let Site { runtime, auth } = site.get_or_insert_with(Site::open);
        let mut exchange = auth.exchange(mechanism, IpAddr::from([192, 0, 2, 1]), Some([7; 32])).unwrap();
        let mut nonce = Vec::new();
        for _ in 0..8 {
            // `%` is the nonce of the last challenge, without which nothing behind it would ever be reached.
            let line = input.line();
            let response = match line.iter().position(|&octet| octet == b'%') {
                Some(at) => [&line[..at], &nonce, &line[at + 1..]].concat(),
                None => line,
            };
            match runtime.block_on(exchange.step(Some(&response))) {
                SaslStep::Challenge(challenge) => {
                    let text = challenge.strip_prefix(b"r=").unwrap_or_default();
                    nonce = text.split(|&octet| octet == b',').next().unwrap_or_default().to_vec();
                }
                SaslStep::Success(account) => panic!("{account} by {}", response.escape_ascii()),
                SaslStep::Denied { name, .. } => {
                    assert!(!name.unwrap_or_default().contains(char::is_control));
                    return;
                }
                SaslStep::Later { .. } => panic!("put off without limits"),
                SaslStep::Malformed => return,
            }
        }
        panic!("it goes on and on");
    });
}
