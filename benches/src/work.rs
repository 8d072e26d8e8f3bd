//! One piece of work for each thing that is done for every command, every recipient or every message.

use std::hint::black_box;
use std::time::Duration;

use crate::account::Account;
use crate::clock::Timestamp;
use crate::guard::classify::{Rules as ClassifyRules, classify};
use crate::guard::detector::{Detector, Test};
use crate::guard::mimicry::{About, Place, Precedents};
use crate::guard::window::{Count, Key, Rule, Window};
use crate::id::SessionId;
use crate::quarantine::envelope::Envelope;
use crate::sender::rules::Rules as SenderRules;
use crate::session::{Answered, Ask, AuthOutcome, Event, Given, Session, Step, Terms, View};
use crate::smtp::header::{Collected, Header, HeaderCollector};
use crate::smtp::mail_data::{DotScanner, DotStuffer};
use crate::smtp::trace::{Protocol, Received, received};
use crate::smtp::{Command, Extensions, Reply};

/// A piece of work.
pub struct Work {
    /// Its name; a slash in it stands before what it is done to.
    pub name: &'static str,
    /// Octets that one run goes through, where that is what matters.
    pub octets: Option<u64>,
    /// Does it once.
    pub run: Box<dyn FnMut()>,
}

const RCPT: &[u8] = b"RCPT TO:<anna.example@example.org> NOTIFY=FAILURE,DELAY";
const MAIL: &[u8] = b"MAIL FROM:<anna.example@example.org> SIZE=4096 BODY=8BITMIME";
const ACCEPTED: &[u8] = b"250 2.1.5 Ok\r\n";
const REFUSED: &[u8] =
    b"550-5.1.1 <anna.example@example.org>: Recipient address rejected: User unknown in virtual mailbox table\r\n\
      550 5.1.1 See https://example.org/help\r\n";
const WHEN: Timestamp = Timestamp::from_millis(1_795_536_328_123);

/// A header such as mail programs write.
const HEADER: &[u8] = b"Date: Tue, 24 Nov 2026 16:05:28 +0000\r\nFrom: Anna Example <anna.example@example.org>\r\n\
    To: Bob Example <bob@example.com>\r\nMessage-ID: <20261124160528.4F2A91B0C3@laptop.example.org>\r\n\
    Subject: =?UTF-8?Q?Gr=C3=BC=C3=9Fe?= from a place\r\n that is far away\r\nMIME-Version: 1.0\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\nUser-Agent: Mozilla Thunderbird\r\n\r\n";

/// All of them; what they do is the same in each run of the program.
pub fn all() -> Vec<Work> {
    let mut all = vec![
        simple("command_parse/rcpt", || Command::parse(black_box(RCPT))),
        simple("command_parse/mail", || Command::parse(black_box(MAIL))),
        simple("reply_parse/one_line", || Reply::parse(black_box(ACCEPTED))),
        simple("reply_parse/two_lines", || Reply::parse(black_box(REFUSED))),
        reply_encode(),
        rcpt_encode(),
        simple("classify/refused", {
            let (reply, rules) = (reply(REFUSED), ClassifyRules::default());
            move || classify(black_box(&reply), black_box(&rules))
        }),
        precedent(),
        window(Count::Distinct, "window_update/distinct"),
        window(Count::Attempts, "window_update/attempts"),
        detector_valid(),
        detector_invalid(),
        simple("received", trace),
        header(),
        envelope(),
        session(),
    ];
    // 256 KiB are held at the most before a message's route is chosen.
    for (name, stuffing, line) in [
        (
            "scan/text",
            "stuff/text",
            &b"Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod\r\n"[..],
        ),
        (
            "scan/dots",
            "stuff/dots",
            b"..\r\n..Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed\r\n",
        ),
    ] {
        let wire = line.repeat(256 * 1024 / line.len());
        all.push(scan(name, wire.clone()));
        all.push(stuff(stuffing, wire));
    }
    all
}

fn simple<T>(name: &'static str, mut work: impl FnMut() -> T + 'static) -> Work {
    Work { name, octets: None, run: Box::new(move || drop(black_box(work()))) }
}

fn reply(wire: &[u8]) -> Reply {
    Reply::parse(wire).expect("it is a reply").expect("it is whole").0
}

fn reply_encode() -> Work {
    let (reply, mut out) = (reply(ACCEPTED), Vec::with_capacity(512));
    simple("reply_encode", move || {
        out.clear();
        black_box(&reply).encode(&mut out);
    })
}

fn rcpt_encode() -> Work {
    let Ok(Command::Rcpt(rcpt)) = Command::parse(RCPT) else { panic!("it is a RCPT") };
    let upstream = Extensions { dsn: true, ..Extensions::default() };
    let mut out = Vec::with_capacity(512);
    simple("rcpt_encode", move || {
        out.clear();
        black_box(&rcpt).encode(black_box(&upstream), &mut out);
    })
}

fn precedent() -> Work {
    let (mut precedents, reply) = (Precedents::default(), reply(ACCEPTED));
    precedents.learn(Place::Rcpt, About::address("bob@example.com"), &reply);
    simple("precedent_is_no_news", move || {
        precedents.learn(
            Place::Rcpt,
            About::address(black_box("anna.example@example.org")),
            black_box(&reply),
        )
    })
}

fn window(count: Count, name: &'static str) -> Work {
    let rule = Rule { limit: 100, period: Duration::from_secs(3_600), count };
    let mut window = Window::default();
    let mut serial = 0_u64;
    simple(name, move || {
        serial += 1;
        window.add(Key::of(&serial.to_be_bytes()), WHEN.after(Duration::from_secs(serial)), &rule)
    })
}

fn detector_valid() -> Work {
    let (mut detector, test) = (Detector::default(), Test::new(0.05, 0.30, 12.0));
    let mut serial = 0_u64;
    simple("detector_update/valid", move || {
        serial += 1;
        let domain = Key::of_domain(black_box("example.org"));
        detector.valid(serial, Some(domain), WHEN.after(Duration::from_secs(serial)), &test);
    })
}

fn detector_invalid() -> Work {
    let (mut detector, test) = (Detector::default(), Test::new(0.05, 0.30, 12.0));
    let mut serial = 0_u64;
    simple("detector_update/invalid", move || {
        serial += 1;
        let (address, domain) = (Key::of(&serial.to_be_bytes()), Key::of_domain(black_box("example.org")));
        let now = WHEN.after(Duration::from_secs(serial));
        detector.invalid(address, Some(domain), now, Duration::from_secs(3_600), &test)
    })
}

fn trace() -> String {
    received(&Received {
        helo: black_box(Some("[192.0.2.7]")),
        client: "192.0.2.7".parse().ok(),
        hostname: "mail.example.org",
        protocol: Protocol { extended: true, tls: true, authenticated: true, smtputf8: false },
        tls: Some(("TLSv1.3", "TLS_AES_256_GCM_SHA384")),
        session: session_id(),
        only_recipient: Some("anna.example@example.org"),
        when: WHEN,
    })
}

fn session_id() -> SessionId {
    "01M8HMHW97REWAQS1RW4E6S6WC".parse().expect("it is an id")
}

/// What is asked of the header of each message.
fn header() -> Work {
    simple("header", || {
        let mut collector = HeaderCollector::new(256 * 1024);
        let Collected::Complete { .. } = collector.push(black_box(HEADER)) else { panic!("it is whole") };
        let header: Header = collector.finish();
        let counts = ["Received", "Date", "Message-ID"].map(|name| header.count(name));
        let values = ["Message-ID", "Subject"].map(|name| header.value(name));
        let kept = header.without(&["X-Authenticated-As", "X-Relayed-From"]).len();
        (counts, values, kept)
    })
}

fn envelope() -> Work {
    let envelope: Envelope = Envelope::decode(include_str!("envelope.json")).expect("it is an envelope");
    simple("envelope_encode", move || black_box(&envelope).encode())
}

/// A transaction of one recipient on the machine: MAIL, RCPT, DATA, delivered.
fn session() -> Work {
    let terms = Terms {
        hostname: "mail.example.org".to_owned(),
        implicit_tls: true,
        relay_host: false,
        max_message_size: 50 * 1024 * 1024,
        max_recipients: 1_000,
        max_transactions: 0,
        max_errors: 20,
        refuse_blocked: false,
    };
    let account: Account = "anna".parse().expect("it is an account");
    let (precedents, upstream, rules) =
        (Precedents::default(), Extensions::default(), SenderRules::default());
    let mut session = Session::new(terms, 7);
    let mut out = Vec::with_capacity(4096);
    let mut handle = move |event| {
        let given = Given {
            time: WHEN,
            probation: false,
            precedents: &precedents,
            upstream: Some(&upstream),
            sender: Some((&rules, &account)),
            room: true,
        };
        let view = View { blocked: false, interruption: None, mechanisms: "PLAIN LOGIN", sources: &given };
        out.clear();
        session.handle(event, &view, &mut out)
    };
    let line = |line: &[u8]| Event::Line(Ok(Command::parse(line).expect("it is a command")));
    handle(Event::Connected);
    handle(line(b"EHLO [192.0.2.7]"));
    handle(Event::Authenticated(AuthOutcome::Success("anna".parse().expect("it is an account"))));
    let accepted = reply(ACCEPTED);
    simple("session/transaction", move || {
        for question in [&b"MAIL FROM:<anna.example@example.org>"[..], b"RCPT TO:<bob@example.com>"] {
            let Step::Ask(Ask::Mail(_) | Ask::Rcpt(_)) = handle(line(question)) else { panic!("it asks") };
            handle(Event::Answered(Answered::Replied(accepted.clone())));
        }
        assert_eq!(handle(line(b"DATA")), Step::ReceiveData);
        handle(Event::Delivered(crate::session::Delivery::Replied(accepted.clone())))
    })
}

fn scan(name: &'static str, wire: Vec<u8>) -> Work {
    let octets = Some(wire.len() as u64);
    let run = move || {
        let scan = DotScanner::new().scan(black_box(&wire));
        assert!(!scan.ended);
        drop(black_box(scan));
    };
    Work { name, octets, run: Box::new(run) }
}

fn stuff(name: &'static str, content: Vec<u8>) -> Work {
    let octets = Some(content.len() as u64);
    let mut out = Vec::with_capacity(2 * content.len());
    let run = move || {
        out.clear();
        DotStuffer::new().stuff(black_box(&content), &mut out);
        black_box(&out);
    };
    Work { name, octets, run: Box::new(run) }
}
