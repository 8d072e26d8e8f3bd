//! The rules of the conversation that are Gatepost's own: CONTRACT, SMTP, row by row.

use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::gatepost::{Gatepost, PASSWORD, Setup};
use crate::support::scripted::{Answer, Scripted};
use crate::support::smtp::{Heard, Smtp, message};
use crate::support::{PATIENCE, wait_for};

/// A line, and the beginning of the reply to it.
type Row<'a> = (&'a str, &'a str);

fn play(client: &mut Smtp, rows: &[Row<'_>]) {
    for (line, expected) in rows {
        let reply = client.ask(line);
        assert!(reply.text().starts_with(expected), "{line}: expected {expected}, got {}", reply.text());
    }
}

/// CONTRACT, SMTP: AUTH offered only once TLS is up; AUTH on cleartext: 538 5.7.11, with a line in the log, the credentials not
/// looked at; MAIL before STARTTLS and before AUTH: 530 5.7.0.
#[test]
fn nothing_is_said_and_nobody_sends_before_tls_and_auth() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).start();
    let mut client = Smtp::connect(gatepost.starttls);
    let ehlo = client.ehlo();
    assert!(ehlo.offers("STARTTLS") && !ehlo.offers("AUTH"), "{}", ehlo.text());
    let credentials = STANDARD.encode(format!("\0alice\0{PASSWORD}"));
    play(
        &mut client,
        &[
            (&format!("AUTH PLAIN {credentials}"), "538 5.7.11"),
            ("AUTH PLAIN", "538 5.7.11"),
            ("AUTH SCRAM-SHA-256", "538 5.7.11"),
            ("MAIL FROM:<alice@mta.example>", "530 5.7.0"),
            ("RCPT TO:<bob@mta.example>", "503 5.5.1"),
        ],
    );
    gatepost.expect_log("that the credentials were exposed", |line| line.to_string().contains("exposed"));
    client.starttls();
    let ehlo = client.ehlo();
    assert!(ehlo.offers("AUTH") && !ehlo.offers("STARTTLS"), "{}", ehlo.text());
    for mechanism in ["PLAIN", "LOGIN", "SCRAM-SHA-256"] {
        assert!(ehlo.text().contains(mechanism), "{}", ehlo.text());
    }
    play(&mut client, &[("MAIL FROM:<alice@mta.example>", "530 5.7.0"), ("STARTTLS", "503 5.5.1")]);
    client.auth_plain("alice", PASSWORD, 235);
    play(&mut client, &[("AUTH PLAIN", "503 5.5.1"), ("MAIL FROM:<alice@mta.example>", "250 2.1.0")]);
    assert!(
        !gatepost.log_text().contains(PASSWORD) && !gatepost.log_text().contains(&credentials),
        "a password in the log"
    );
    assert_eq!(upstream.lines("AUTH"), [""; 0]);
}

/// The same on the implicit listener.
#[test]
fn implicit_tls_offers_auth_at_once() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).start();
    let mut client = Smtp::connect_tls(gatepost.implicit);
    let ehlo = client.ehlo();
    assert!(ehlo.offers("AUTH") && !ehlo.offers("STARTTLS"), "{}", ehlo.text());
    play(&mut client, &[("MAIL FROM:<alice@mta.example>", "530 5.7.0")]);
    client.auth_plain("alice", PASSWORD, 235);
    client.submit("alice@mta.example", &["bob@mta.example"], &message("implicit"));
    upstream.expect_taken(1);
}

/// CONTRACT, SMTP: wrong password, unknown user, an authorization identity other than empty or the authentication identity: the same
/// 535 5.7.8.
#[test]
fn a_refused_login_tells_nothing() {
    let upstream = Scripted::start();
    // A user whose hash has a scheme that does not exist is shut out alone.
    // So is one who has no hash at all.
    let lines = "odd:{NO-SUCH-SCHEME}xyz\nlocked::1000\n";
    let gatepost = Setup::new(upstream.address).user_line(lines).start();
    let plain = |authorization: &str, name: &str, password: &str| {
        let mut client = Smtp::secured(gatepost.starttls);
        client
            .ask(&format!("AUTH PLAIN {}", STANDARD.encode(format!("{authorization}\0{name}\0{password}"))))
            .text()
    };
    let wrong = plain("", "alice", "wrong");
    assert!(wrong.starts_with("535 5.7.8 "), "{wrong}");
    for (authorization, name, password) in [
        ("", "nobody", "wrong"),
        ("", "nobody", PASSWORD),
        ("", "odd", PASSWORD),
        ("", "locked", PASSWORD),
        ("", "locked", ""),
        ("", "alice ", PASSWORD),
        ("bob", "alice", PASSWORD),
        ("nobody", "alice", PASSWORD),
        ("", "alicE\u{301}", PASSWORD),
    ] {
        assert_eq!(plain(authorization, name, password), wrong, "{authorization:?} {name:?}");
    }
    // LOGIN asks for the password whether or not there is such a user.
    let login = |name: &str| {
        let mut client = Smtp::secured(gatepost.starttls);
        let mut texts = vec![client.ask("AUTH LOGIN").text(), client.ask(&STANDARD.encode(name)).text()];
        texts.push(client.ask(&STANDARD.encode("wrong")).text());
        texts
    };
    assert_eq!(login("alice"), login("nobody"));
    assert_eq!(login("alice")[2], wrong);
    // What is right works, whoever is named as oneself, and without regard to ASCII case.
    for (authorization, name) in [("", "alice"), ("alice", "alice"), ("", "ALICE")] {
        let text = plain(authorization, name, PASSWORD);
        assert!(text.starts_with("235 2.7.0"), "{authorization:?} {name:?}: {text}");
    }
}

/// CRATES 1: a decoy must give an unknown user the same salt each time, and the iterations of real ones.
#[test]
fn scram_tells_unknown_users_from_known_ones_by_nothing() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).start();
    let challenge = |name: &str| {
        let mut client = Smtp::secured(gatepost.starttls);
        let reply =
            client.ask(&format!("AUTH SCRAM-SHA-256 {}", STANDARD.encode(format!("n,,n={name},r=abcdefgh"))));
        let first = String::from_utf8(STANDARD.decode(&reply.lines[0]).unwrap()).unwrap();
        let parts: Vec<String> = first.split(',').map(str::to_owned).collect();
        assert!(parts[0].starts_with("r=abcdefgh") && parts[0].len() > 16, "{first}");
        let nonce = parts[0].clone();
        let last =
            client.ask(&STANDARD.encode(format!("c=biws,{nonce},p={}", STANDARD.encode([7; 32])))).text();
        (parts[1..].to_vec(), last)
    };
    let (known, known_end) = challenge("alice");
    let (unknown, unknown_end) = challenge("nobody");
    assert_eq!(challenge("nobody").0, unknown, "the salt of an unknown user changes");
    assert_eq!(known[1], unknown[1], "iterations");
    assert_eq!(known[0].len(), unknown[0].len(), "length of the salt");
    assert_ne!(challenge("nobody-else").0, unknown);
    assert_eq!(known_end, unknown_end);
    assert!(known_end.starts_with("535 5.7.8"), "{known_end}");
}

/// CRATES 1: crafted SCRAM messages make rsasl panic. The session answers, and serves on.
#[test]
fn crafted_scram_messages_end_nothing() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).set("session.max_connections_per_ip", 10_000).start();
    for first in [
        "n,,",
        "n,,n",
        "n,a,n=alice,r=x",
        "n,,n=alice,r",
        "",
        "n",
        ",,,",
        "p=x,,n=alice,r=y",
        "\u{0}",
        "n,,n==,r=x",
        "n,,n=alice,r=",
    ] {
        let mut client = Smtp::secured(gatepost.starttls);
        let reply = client.ask(&format!(
            "AUTH SCRAM-SHA-256 {}",
            if first.is_empty() { "=".into() } else { STANDARD.encode(first) }
        ));
        let reply = if reply.code == 334 { client.ask("*") } else { reply };
        assert!(matches!(reply.code, 501 | 535), "{first:?}: {}", reply.text());
        client.expect("NOOP", 250);
    }
    for last in ["c", "c=biws,r", "c=biws,r=x,p=AAAA,", "", ",", "c=biws,r=x", "c=,r=,p=", "p=AAAA"] {
        let mut client = Smtp::secured(gatepost.starttls);
        client.expect(&format!("AUTH SCRAM-SHA-256 {}", STANDARD.encode("n,,n=alice,r=abcdefgh")), 334);
        let reply = client.ask(&STANDARD.encode(last));
        assert!(matches!(reply.code, 501 | 535), "{last:?}: {}", reply.text());
        client.expect("NOOP", 250);
        client.auth_plain("alice", PASSWORD, 235);
    }
}

/// RFC 4954 4: cancelled by `*`, no base64, with and without an initial response.
#[test]
fn the_sasl_exchange_follows_rfc_4954() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).start();
    let mut client = Smtp::secured(gatepost.starttls);
    let plain = STANDARD.encode(format!("\0alice\0{PASSWORD}"));
    play(
        &mut client,
        &[
            ("AUTH", "501 5.5."),
            ("AUTH NO-SUCH-MECHANISM", "504 5.5.4"),
            ("AUTH PLAIN", "334 "),
            ("*", "501 "),
            ("AUTH PLAIN ====", "501 5.5.2"),
            ("AUTH LOGIN", "334 VXNlcm5hbWU6"), // Username:
            ("*", "501 "),
            ("AUTH PLAIN", "334 "),
            (&plain, "235 2.7.0"),
        ],
    );
    for initial in [false, true] {
        let mut client = Smtp::secured(gatepost.starttls);
        let name = STANDARD.encode("alice");
        if initial {
            play(&mut client, &[(&format!("AUTH LOGIN {name}"), "334 UGFzc3dvcmQ6")]);
        } else {
            play(&mut client, &[("AUTH LOGIN", "334 VXNlcm5hbWU6"), (&name, "334 UGFzc3dvcmQ6")]);
        }
        play(&mut client, &[(&STANDARD.encode(PASSWORD), "235 2.7.0")]);
    }
    // CONTRACT: AUTH or a response to a challenge over 12,288 octets: 500 5.5.6; a command line over 4,096: 500 5.5.2.
    let mut client = Smtp::secured(gatepost.starttls);
    let long = "A".repeat(12_300);
    play(
        &mut client,
        &[("AUTH PLAIN", "334 "), (&long, "500 5.5.6"), (&format!("AUTH PLAIN {long}"), "500 5.5.6")],
    );
    play(&mut client, &[(&format!("NOOP {}", "A".repeat(4_096)), "500 5.5.2"), ("NOOP", "250 ")]);
}

/// CONTRACT, SMTP: order of commands, VRFY, EXPN, syntax.
#[test]
fn commands_in_and_out_of_order() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).set("session.max_recipients", 3).relay().start();
    let rows: &[&[Row<'_>]] = &[
        &[
            ("MAIL FROM:<>", "250 "),
            ("RCPT TO:<bob@mta.example>", "250 "),
            ("RSET", "250 "),
            ("RCPT TO:<bob@mta.example>", "503 5.5.1"),
        ],
        &[
            ("DATA", "503 5.5.1"),
            ("VRFY bob", "252 2.1.5"),
            ("EXPN list", "502 5.5.1"),
            ("XYZZY", "500 5.5.1"),
            ("HELP", "214 "),
        ],
        &[
            ("MAIL FROM:<alice@mta.example>", "250 "),
            ("MAIL FROM:<alice@mta.example>", "503 5.5.1"),
            ("DATA", "554 5.5.1"),
        ],
        &[
            ("MAIL FROM:<alice@mta.example>", "250 2.1.0 Sender ok"),
            ("RCPT TO:<no-domain>", "501 5.1.3"),
            ("RCPT TO:<@>", "501 5.1.3"),
            ("RCPT TO:<two@@mta.example>", "501 5.1.3"),
            ("RCPT TO:<\u{fc}ser@mta.example>", "553 5.6.7"),
            ("RCPT TO:<postmaster>", "250 "),
            ("RCPT TO: <bob@mta.example>", "250 2.1.5 <bob@mta.example> Recipient ok"),
        ],
        &[
            ("MAIL FROM:<\u{fc}ser@mta.example> SMTPUTF8", "250 "),
            ("RCPT TO:<\u{fc}ser@mta.example>", "250 "),
            ("RCPT TO:<b@mta.example>", "250 "),
            ("RCPT TO:<c@mta.example>", "250 "),
            // CONTRACT: RCPT beyond max_recipients.
            ("RCPT TO:<d@mta.example>", "452 4.5.3"),
        ],
    ];
    for dialogue in rows {
        play(&mut gatepost.relay(), dialogue);
    }
    assert!(
        upstream.lines("VRFY").is_empty() && upstream.lines("EXPN").is_empty(),
        "VRFY would be an uncounted oracle"
    );
}

/// CONTRACT, Classification: of what reaches no upstream, a path in brackets with an `@` that is no Path counts; the rest does not.
#[test]
fn broken_paths_count_and_habits_of_devices_do_not() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).relay().start();
    let mut client = gatepost.relay();
    client.expect("MAIL FROM:<alice@mta.example>", 250);
    let rows: &[(&str, i64)] = &[
        ("RCPT TO:<two@@mta.example>", 1),
        ("RCPT TO:<two@@mta.example>", 1), // distinct
        ("RCPT TO:<a b@mta.example>", 2),
        ("RCPT TO:<no-domain>", 2),           // no @
        ("RCPT TO:bob@mta.example", 2),       // no brackets
        ("RCPT TO: <bob@mta.example>", 2),    // a blank: accepted
        ("RCPT TO:<bob@mta.example> X=Y", 2), // an unknown parameter
        ("RCPT TO:<\u{fc}x@mta.example>", 2), // SMTPUTF8 not declared
    ];
    for (line, count) in rows {
        let reply = client.ask(line);
        let counted = gatepost
            .status("host:127.0.0.2")
            .map_or(0, |object| object["invalid_recipients"].as_i64().unwrap());
        assert_eq!(counted, *count, "{line}: {}", reply.text());
    }
}

/// A batch of MAIL and 20 recipients that do not exist; the answers to the first and the fifth wait until they are asked for.
fn harvest_in_a_batch() -> (Gatepost, Smtp, mpsc::Sender<()>, Scripted) {
    let (answers, may_answer) = mpsc::channel();
    let may_answer = Mutex::new(may_answer);
    let upstream = Scripted::with(move |asked| {
        if matches!(asked.path(), "nobody-0@mta.example" | "nobody-4@mta.example") {
            may_answer.lock().unwrap().recv().unwrap();
        }
        None
    });
    let gatepost = Setup::new(upstream.address).relay().start();
    let mut client = gatepost.relay();
    let recipients: String = (0..20).map(|n| format!("RCPT TO:<nobody-{n}@mta.example>\r\n")).collect();
    client.send(format!("MAIL FROM:<alice@mta.example>\r\n{recipients}").as_bytes());
    (gatepost, client, answers, upstream)
}

/// Who closes his half behind a batch gets all of its replies, and what was asked counts.
#[test]
fn a_batch_is_answered_behind_half_a_close() {
    let (gatepost, mut client, answers, _upstream) = harvest_in_a_batch();
    client.end();
    client.expect_reply(250);
    for number in 0..20 {
        if number == 0 || number == 4 {
            answers.send(()).unwrap();
        }
        client.expect_reply(550);
    }
    client.expect_close();
    assert_eq!(gatepost.status("host:127.0.0.2").unwrap()["invalid_recipients"], 20);
}

/// Who goes away behind a batch reads none of the replies, and all that was asked counts.
#[test]
fn a_batch_counts_behind_a_close() {
    let (gatepost, mut client, answers, upstream) = harvest_in_a_batch();
    client.expect_reply(250);
    wait_for(PATIENCE, || upstream.lines("RCPT").first().map(drop)).expect("a question");
    drop(client);
    for count in [4, 20] {
        answers.send(()).unwrap();
        let counted = || gatepost.status("host:127.0.0.2").filter(|seen| seen["invalid_recipients"] == count);
        wait_for(PATIENCE, counted).unwrap_or_else(|| panic!("{count} counted"));
    }
}

/// CONTRACT, SMTP: message over `max_message_size`, by SIZE or by counting; header over `max_header_size`: 552 5.3.4.
#[test]
fn what_is_too_big_is_refused() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address)
        .set("session.max_message_size", "64KiB")
        .set("session.max_header_size", "8KiB")
        .relay()
        .start();
    let mut client = gatepost.relay();
    assert!(client.ehlo().text().contains("SIZE 65536"), "SIZE is offered");
    play(&mut client, &[("MAIL FROM:<alice@mta.example> SIZE=65537", "552 5.3.4")]);
    let header = |octets: usize| [b"Subject: ", &vec![b'x'; octets][..], b"\r\n\r\nbody\r\n"].concat();
    let body = |octets: usize| [b"Subject: x\r\n\r\n", &vec![b'y'; octets - 16][..], b"\r\n"].concat();
    for (message, taken) in [
        (body(65_536), true),
        (body(65_537), false),
        // The empty line is not part of it.
        (header(8_192 - "Subject: \r\n".len() + 1), false),
        (header(8_192 - "Subject: \r\n".len()), true),
        (body(500_000), false),
    ] {
        let mut client = gatepost.relay();
        client.expect("MAIL FROM:<alice@mta.example> SIZE=100", 250);
        client.expect("RCPT TO:<bob@mta.example>", 250);
        let reply = client.data(&message, if taken { 250 } else { 552 });
        assert!(taken || reply.text().starts_with("552 5.3.4"), "{}", reply.text());
        client.expect("NOOP", 250);
    }
    assert_eq!(upstream.taken().len(), 2);
}

/// CONTRACT, SMTP: the 10th error in a session: 421 4.7.0 in place of its own reply; but none in answer to RCPT.
#[test]
fn the_tenth_error_ends_the_session() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).relay().start();
    let mut client = gatepost.relay();
    client.expect("MAIL FROM:<alice@mta.example>", 250);
    for number in 0..20 {
        client.expect(&format!("RCPT TO:<nobody-{number}@mta.example>"), 550);
        client.expect("RCPT TO:<broken@@mta.example>", 501);
    }
    for _ in 0..9 {
        client.expect("XYZZY", 500);
    }
    assert!(client.ask("XYZZY").text().starts_with("421 4.7.0"));
    client.expect_close();

    let mut client = Smtp::secured(gatepost.starttls);
    let guesses: Vec<u16> = (0..10).map(|_| client.ask("AUTH PLAIN AGFsaWNlAHdyb25n").code).collect();
    assert_eq!(guesses.last(), Some(&421), "{guesses:?}");
    client.expect_close();
}

/// CONTRACT, SMTP: `idle_timeout` for one whole command, however slowly it drips; `auth_timeout` from connecting to AUTH.
#[test]
fn the_slow_are_sent_away() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address)
        .set("session.idle_timeout", "2s")
        .set("session.auth_timeout", "3s")
        .relay()
        .start();
    let mut dripping = gatepost.relay();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(10) && dripping.try_send(b"N").is_ok() {
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(dripping.reply().text().starts_with("421 4.4.2"));
    assert!(began.elapsed() >= Duration::from_secs(2));

    let mut guest = Smtp::secured(gatepost.starttls);
    let began = Instant::now();
    let mut answered = 0;
    let last = loop {
        std::thread::sleep(Duration::from_millis(100));
        drop(guest.try_send(b"NOOP\r\n"));
        match guest.hear() {
            Heard::Reply(reply) if reply.code == 250 => answered += 1,
            Heard::Reply(reply) => break reply.text(),
            Heard::Closed => panic!("closed without a word"),
        }
        assert!(began.elapsed() < Duration::from_secs(20), "auth_timeout does not hold");
    };
    assert!(answered > 0 && last.starts_with("421 4.4.2"), "{last}");
}

/// CONTRACT, Configuration: on an implicit listener, too, who does not shake hands within `tls_timeout` is cut off.
#[test]
fn who_does_not_shake_hands_is_cut_off() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).set("session.tls_timeout", "1s").start();
    let mut silent = Smtp::open(std::net::Ipv4Addr::LOCALHOST.into(), gatepost.implicit);
    silent.expect_close();
}

/// CONTRACT, SMTP: over `max_connections_per_ip`: starttls: 421 4.7.0 in place of the greeting; implicit: closed before the handshake.
#[test]
fn connections_beyond_the_limit_are_turned_away() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).set("session.max_connections_per_ip", 3).relay().start();
    let held: Vec<Smtp> = (0..3).map(|_| Smtp::connect(gatepost.starttls)).collect();
    let mut fourth = Smtp::open(std::net::Ipv4Addr::LOCALHOST.into(), gatepost.starttls);
    assert!(fourth.reply().text().starts_with("421 4.7.0"));
    fourth.expect_close();
    Smtp::open(std::net::Ipv4Addr::LOCALHOST.into(), gatepost.implicit).expect_close();
    gatepost.relay().quit();
    // However many come, they do not use up the descriptors while they are told.
    let before = gatepost.descriptors();
    let crowd: Vec<_> = (0..300)
        .map(|_| {
            std::net::TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, gatepost.starttls.port())).unwrap()
        })
        .collect();
    // Those before it have been taken when the last one is told, and not all of them are given the time to read that.
    let mut last = Smtp::open(std::net::Ipv4Addr::LOCALHOST.into(), gatepost.starttls);
    assert!(last.reply().text().starts_with("421 4.7.0"));
    let most = gatepost.descriptors();
    assert!(most <= before + 100, "{before} and then {most} descriptors");
    for mut stream in crowd {
        let mut told = String::new();
        std::io::Read::read_to_string(&mut stream, &mut told).unwrap();
        assert!(told.starts_with("421 4.7.0"), "{told:?}");
    }
    drop(held);
    let freed = wait_for(PATIENCE, || {
        let mut next = Smtp::open(std::net::Ipv4Addr::LOCALHOST.into(), gatepost.starttls);
        Some(()).filter(|()| next.reply().code == 220)
    });
    assert!(freed.is_some(), "closed connections still count");
}

/// CONTRACT, SMTP: shutting down: 421 4.3.2 at the next command; a message under way is finished first.
#[test]
fn shutting_down_finishes_what_is_under_way() {
    let upstream = Scripted::start();
    let mut gatepost = Setup::new(upstream.address).relay().start();
    let mut idle = gatepost.relay();
    let mut busy = gatepost.relay();
    busy.expect("MAIL FROM:<alice@mta.example>", 250);
    busy.expect("RCPT TO:<bob@mta.example>", 250);
    busy.expect("DATA", 354);
    busy.send(b"Subject: under way\r\n\r\n");
    gatepost.signal_term();
    gatepost.expect_log("that it is shutting down", |line| line.to_string().contains("shut"));
    // Commands are taken until the last session has ended.
    gatepost.run(&["block", "bob"]).expect(0);
    assert_eq!(gatepost.status("user:bob").unwrap()["state"], "blocked");
    drop(idle.try_send(b"NOOP\r\n"));
    assert!(idle.reply().text().starts_with("421 4.3.2"));
    busy.send(b"still here\r\n.\r\n");
    busy.expect_reply(250);
    upstream.expect_taken(1);
    drop(busy.try_send(b"NOOP\r\n"));
    assert!(busy.reply().text().starts_with("421 4.3.2"));
    assert!(gatepost.expect_end(Duration::from_secs(20)).success());
}

/// CONTRACT, `shutdown_timeout`: what is under way gets this long; who just sits there gets none of it.
#[test]
fn shutting_down_does_not_wait_for_the_idle() {
    let upstream = Scripted::start();
    let mut gatepost = Setup::new(upstream.address).set("session.shutdown_timeout", "20s").relay().start();
    let mut idle = gatepost.relay();
    let began = Instant::now();
    assert!(gatepost.terminate().success());
    // a third of it is for those who are silent in mid-transaction
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    assert!(idle.reply().text().starts_with("421 4.3.2"));

    gatepost.start();
    let mut lingering = gatepost.relay();
    lingering.expect("MAIL FROM:<alice@mta.example>", 250);
    let began = Instant::now();
    gatepost.terminate();
    assert!(began.elapsed() < Duration::from_secs(19), "{:?}", began.elapsed());
}

/// The same: who is silent in mid-transaction, before its message, gets no more than a part of it; a message between two chunks
/// is under way, and gets it all.
#[test]
fn shutting_down_tells_the_silent_and_waits_for_chunks() {
    let upstream = Scripted::start();
    let mut gatepost = Setup::new(upstream.address).set("session.shutdown_timeout", "15s").relay().start();
    let (mut silent, mut chunked) = (gatepost.relay(), gatepost.relay());
    for client in [&mut silent, &mut chunked] {
        client.expect("MAIL FROM:<alice@mta.example>", 250);
        client.expect("RCPT TO:<bob@mta.example>", 250);
    }
    chunked.send(b"BDAT 19\r\nSubject: chunks\r\n\r\n");
    chunked.expect_reply(250);
    let began = Instant::now();
    gatepost.signal_term();
    assert!(silent.reply().text().starts_with("421 4.3.2"));
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    chunked.send(b"BDAT 4 LAST\r\nHi\r\n");
    chunked.expect_reply(250);
    upstream.expect_taken(1);
    drop(chunked.try_send(b"NOOP\r\n"));
    assert!(chunked.reply().text().starts_with("421 4.3.2"));
    assert!(gatepost.expect_end(Duration::from_secs(20)).success());
}

/// CONTRACT, SMTP: if the reply to the end of data does not come, the log says that the message may have been accepted; so it does
/// if the stop cuts the wait off.
#[test]
fn shutting_down_says_what_may_have_been_accepted() {
    let upstream = Scripted::with(|asked| (asked.verb == ".").then_some(Answer::Silence));
    let mut gatepost = Setup::new(upstream.address).set("session.shutdown_timeout", "1s").relay().start();
    let mut client = gatepost.relay();
    client.expect("MAIL FROM:<alice@mta.example>", 250);
    client.expect("RCPT TO:<bob@mta.example>", 250);
    client.expect("DATA", 354);
    client.send(&[&message("cut off")[..], b".\r\n"].concat());
    let has_come = || upstream.transactions().iter().any(|sent| sent.data.ends_with(b"trailing blank \r\n"));
    wait_for(PATIENCE, || has_come().then_some(())).expect("the upstream has the message");
    gatepost.terminate();
    gatepost.expect_log("what may have been accepted", |line| {
        let line = line.to_string();
        line.contains("may have been accepted")
            && line.contains("cut off by the shutdown")
            && line.contains("bob@")
    });
}

/// Issue 3, Logs: every line of a session with its session id; per relayed message one line with account, client, Message-ID,
/// recipients accepted and refused, and the upstream's final reply.
#[test]
fn a_relayed_message_is_one_line_of_the_log() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).start();
    let mut client = gatepost.login("alice");
    client.expect("MAIL FROM:<alice@mta.example>", 250);
    client.expect("RCPT TO:<bob@mta.example>", 250);
    client.expect("RCPT TO:<nobody-1@mta.example>", 550);
    client.data(&message("logged"), 250);
    let line = gatepost.expect_log("what was relayed", |line| line.to_string().contains("queued as"));
    let text = line.to_string();
    for part in [
        "user:alice",
        "127.0.0.1",
        "<logged@client.example>",
        "bob@mta.example",
        "nobody-1@mta.example",
        "queued as",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    assert!(text.contains("\"session\""), "no session id in {text}");
}
