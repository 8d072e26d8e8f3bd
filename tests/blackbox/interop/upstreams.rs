//! Upstreams other than Postfix, each with some clients; MTAs as clients; and an upstream that answers as none should.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::clients::{Port, Post, RIGHT, client};
use super::house::{Behind, House};
use super::letters::{Keeps, Kind as LetterKind, Letter, SENDER};
use super::page::{self, Upstream};
use crate::support::contains;
use crate::support::gatepost::{Gatepost, Setup};
use crate::support::mta::{FOREIGN, Foreign, Kind, Mta};
use crate::support::scripted::{Answer, Asked, EXTENSIONS, Scripted};
use crate::support::smtp::{RELAY_HOST, Smtp};

/// All kinds on both ports, by each client of the upstream's row.
fn in_front_of(upstream: Upstream, setup: Setup, behind: &dyn Behind) {
    let mut house = House::open(setup, behind);
    for name in page::UPSTREAM_CLIENTS {
        house.takes_all_kinds(client(name));
    }
    page::upstream_passed(upstream);
}

#[test]
#[ignore = "needs tests/install: Exim, swaks, curl, python3, nodemailer"]
fn exim_as_upstream() {
    let mta = Mta::exim();
    in_front_of(Upstream::Exim, Setup::new(mta.address), &mta);
}

#[test]
#[ignore = "needs tests/install: OpenSMTPD, swaks, curl, python3, nodemailer"]
fn opensmtpd_as_upstream() {
    let mta = Mta::opensmtpd();
    in_front_of(Upstream::OpenSmtpd, Setup::new(mta.address), &mta);
}

#[test]
#[ignore = "needs tests/install: Dovecot, Postfix, swaks, curl, python3, nodemailer"]
fn dovecot_submission_as_upstream() {
    let postfix = Mta::postfix();
    let dovecot = Mta::dovecot(postfix.address);
    in_front_of(Upstream::Dovecot, dovecot.login(), &postfix);
    assert!(dovecot.log().contains("Successfully relayed message"), "{}", dovecot.log());
}

/// Answers that are odd and can be understood: no client sees anything of it.
fn odd(asked: &Asked<'_>) -> Option<Answer> {
    let x = "x".repeat(3000);
    let reply = match asked.verb {
        "CONNECT" => format!("220-\u{1b}[2J\r\n220-{x}\r\n220-250 Ok\r\n220 ESMTP\u{2028}"),
        "EHLO" => {
            let offered: String =
                EXTENSIONS.iter().map(|extension| format!("250-{}\r\n", extension.to_lowercase())).collect();
            format!(
                "250-mx\r\n250-\r\n250-SIZE 99999999999999999999999999\r\n250-SIZE -1\r\n250-{x}\r\n250-AUTH=LOGIN\r\n250-\u{1}\r\n{offered}250 XYZZY \u{7f}"
            )
        }
        "MAIL" => ["250", "250 ", "250-\r\n250", "250 2.1.0\tOk\u{8}"][asked.before % 4].to_owned(),
        "RCPT" if asked.path().starts_with("nobody") => {
            "550-5.1.1 \u{1b}[31mno\r\n550-5.1.1 250 2.1.5 Ok\r\n550 5.1.1 User unknown".to_owned()
        }
        "RCPT" => match asked.before % 5 {
            0 => "250 2.1.5 Ok\r250 2.0.0 Forged".to_owned(),
            1 => format!("250 2.1.5 {x}"),
            2 => format!("{}250 2.1.5 Ok", "250-2.1.5 \r\n".repeat(100)),
            3 => "250 5.1.1 User unknown".to_owned(),
            _ => "250".to_owned(),
        },
        "DATA" => "354-\r\n354-250 2.0.0 Ok\r\n354".to_owned(),
        "." => "250-2.0.0 \0\r\n250 2.0.0 550 5.7.1 queued as\rA1B2C3D4E5".to_owned(),
        // Without a word.
        "QUIT" => return Some(Answer::Close),
        _ => return None,
    };
    // Half of them octet by octet.
    Some(if asked.connection.is_multiple_of(2) { Answer::Dripped(reply) } else { Answer::Reply(reply) })
}

#[test]
#[ignore = "needs tests/install: swaks, curl, python3, nodemailer"]
fn a_hostile_upstream() {
    let upstream = Scripted::with(odd);
    in_front_of(Upstream::Hostile, Setup::new(upstream.address), &upstream);
}

/// Answers that break SMTP, and where: the client is told to try again, nothing is taken for accepted, nothing that was forged is
/// shown, and when the upstream has come to its senses all is well.
#[test]
#[ignore = "needs tests/install: curl"]
fn a_broken_upstream_harms_no_client() {
    const FORGED: &str = "2.0.0 Forged";
    let endless = "250-more\r\n".repeat(9000);
    let breaks: Vec<(&str, String)> = [
        ("CONNECT", "220 mx\n220 2.0.0 Forged"),
        ("CONNECT", "SSH-2.0-OpenSSH_9.2"),
        ("CONNECT", "220-mx\r\n250 2.0.0 Forged"),
        ("EHLO", "250-mx\n250-PIPELINING\n250 SIZE"),
        ("EHLO", "250-mx\r\n500 2.0.0 Forged"),
        ("MAIL", "250 2.1.0 Ok\n250 2.0.0 Forged"),
        ("MAIL", "150 2.0.0 Forged"),
        ("MAIL", "999 2.0.0 Forged"),
        ("RCPT", "250 2.1.5 Ok\n250 2.0.0 Forged"),
        ("RCPT", "354 2.0.0 Forged"),
        ("RCPT", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"),
        ("RCPT", "250-2.1.5 Ok\r\n550 2.0.0 Forged"),
        ("RCPT", "250_2.0.0 Forged"),
        ("DATA", "354 Go on\r\n250 2.0.0 Forged"),
        ("DATA", "250 2.0.0 Forged"),
        (".", "250 2.0.0 Ok\n250 2.0.0 Forged"),
        (".", "2500 2.0.0 Forged"),
        (".", "\u{0}\r\n250 2.0.0 Forged"),
    ]
    .iter()
    .map(|(verb, reply)| (*verb, (*reply).to_owned()))
    .chain([("MAIL", endless.clone()), ("RCPT", endless)])
    .collect();
    let now = Arc::new(AtomicUsize::new(usize::MAX));
    let upstream = {
        let (now, breaks) = (Arc::clone(&now), breaks.clone());
        Scripted::with(move |asked| {
            let (verb, reply) = breaks.get(now.load(Ordering::SeqCst))?;
            (asked.verb == *verb).then(|| Answer::Reply(reply.clone()))
        })
    };
    let gatepost = Setup::new(upstream.address).start();
    let curl = |tag: &str| {
        let letter = Letter::new(LetterKind::Plain, Keeps::Message, tag);
        let post = Post {
            gatepost: &gatepost,
            port: Port::Submissions,
            mechanism: "PLAIN",
            password: RIGHT,
            letter: &letter,
            goes_on: false,
        };
        (letter.message(), (client("curl").send)(&post))
    };
    for (number, (verb, reply)) in breaks.iter().enumerate() {
        let shown = reply.chars().take(60).collect::<String>();
        now.store(number, Ordering::SeqCst);
        upstream.hang_up();
        let (_, sent) = curl(&format!("broken-{number}"));
        assert_ne!(sent.code, 0, "{verb}: {shown:?} was taken for good");
        assert!(
            sent.said.contains("\n< 45") && !sent.said.contains(FORGED),
            "{verb}: {shown:?}: {}",
            sent.said
        );
        now.store(usize::MAX, Ordering::SeqCst);
        let (message, sent) = curl(&format!("mended-{number}"));
        assert_eq!(sent.code, 0, "after {verb}: {shown:?}: {}", sent.said);
        let last = upstream.taken().pop().unwrap();
        assert!(last.message().ends_with(&message), "after {verb}: {shown:?}");
    }
    assert_eq!(
        upstream.taken().iter().filter(|taken| contains(&taken.data, b"mended-")).count(),
        breaks.len()
    );
}

/// An MTA that sends its mail through Gatepost, as a relay host.
fn satellite(kind: Kind) -> (String, Gatepost, Scripted) {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).set("relay.hosts", vec!["127.0.0.1/32"]).start();
    let mta =
        Mta::start(kind, "satellite.example", Foreign::Verified { by: gatepost.starttls, reject_code: None });
    let letter = Letter::new(LetterKind::Large, Keeps::Message, "by-an-mta");
    let mut client = Smtp::connect_from(RELAY_HOST, mta.address);
    client.ehlo();
    client.expect(&format!("MAIL FROM:<{SENDER}>"), 250);
    client.expect(&format!("RCPT TO:<carol@{FOREIGN}>"), 250);
    // It asks Gatepost, who asks the upstream.
    client.expect(&format!("RCPT TO:<nobody-1@{FOREIGN}>"), 550);
    client.data(&letter.message(), 250);
    client.quit();
    let taken = upstream.expect_taken(1).pop().unwrap();
    if let Some(difference) = letter.differs(&taken.message(), Keeps::Message) {
        panic!("{difference}");
    }
    assert_eq!(gatepost.status("host:127.0.0.1").unwrap()["invalid_recipients"], 1);
    (mta.log(), gatepost, upstream)
}

/// Exim sends in chunks where it may.
#[test]
#[ignore = "needs tests/install: Exim"]
fn exim_as_client() {
    let (log, ..) = satellite(Kind::Exim);
    let delivery = log.lines().find(|line| line.contains(" => ")).unwrap();
    assert!(delivery.contains(" K "), "no CHUNKING: {delivery}");
    page::satellite_passed("Exim");
}

#[test]
#[ignore = "needs tests/install: Postfix"]
fn postfix_as_client() {
    satellite(Kind::Postfix);
    page::satellite_passed("Postfix");
}

/// RFC 3030: what came in chunks reaches MTAs that have their own ideas of DATA, of any size, cut anywhere.
#[test]
#[ignore = "needs tests/install: Postfix, Exim"]
fn chunks_reach_real_mtas() {
    for mta in [Mta::postfix(), Mta::exim()] {
        let gatepost = Setup::new(mta.address).start();
        let letter = Letter::new(LetterKind::Large, Keeps::Message, "in-chunks");
        let message = letter.message();
        for (number, size) in [7_001, 1 << 20, message.len()].into_iter().enumerate() {
            let mut client = gatepost.login("alice");
            client.expect(&format!("MAIL FROM:<{SENDER}> BODY=8BITMIME"), 250);
            client.expect("RCPT TO:<carol@mta.example>", 250);
            let mut chunks: Vec<&[u8]> = message.chunks(size).collect();
            let last = chunks.pop().unwrap();
            for chunk in chunks {
                client.send(&[format!("BDAT {}\r\n", chunk.len()).as_bytes(), chunk].concat());
                client.expect_reply(250);
            }
            client.send(&[format!("BDAT {} LAST\r\n", last.len()).as_bytes(), last].concat());
            client.expect_reply(250);
            let arrived = mta.expect_mail("carol", number + 1).pop().unwrap();
            if let Some(difference) = letter.differs(&arrived, Keeps::Message) {
                panic!("{:?}, chunks of {size}: {difference}", mta.kind);
            }
        }
    }
}

/// RFC 3030 3: Dovecot's submission service has BINARYMIME where the MTA behind it has, and says so once we are logged in: what is
/// binary goes there by BDAT, octet for octet. Dovecot itself makes CRLF of a bare LF on the way out.
#[test]
#[ignore = "needs tests/install: Dovecot"]
fn binary_content_passes_dovecot() {
    let sink = Scripted::offering(
        vec!["PIPELINING", "SIZE 104857600", "8BITMIME", "CHUNKING", "BINARYMIME"],
        |_| None,
    );
    let dovecot = Mta::dovecot(sink.address);
    let gatepost = dovecot.login().start();
    let mut client = gatepost.login("alice");
    assert!(client.ehlo().offers("BINARYMIME"));
    client.expect(&format!("MAIL FROM:<{SENDER}> BODY=BINARYMIME"), 250);
    client.expect("RCPT TO:<carol@mta.example>", 250);
    let every_octet: Vec<u8> = (0..=255).collect();
    let content = [b"Subject: binary\r\nMIME-Version: 1.0\r\n\r\n.\n\r\r\n.\r\n", &every_octet[..]].concat();
    client.send(&[format!("BDAT {} LAST\r\n", content.len()).as_bytes(), &content].concat());
    client.expect_reply(250);
    let taken = sink.expect_taken(1).pop().unwrap();
    assert!(taken.mail.contains("BODY=BINARYMIME"), "{}", taken.mail);
    let mut mended: Vec<u8> = Vec::new();
    for &octet in &content {
        if octet == b'\n' && mended.last() != Some(&b'\r') {
            mended.push(b'\r');
        }
        mended.push(octet);
    }
    assert!(taken.data.ends_with(&mended), "{}", crate::support::shown(&taken.data));
}
