//! What the upstream says and does, and what of it the client sees.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::gatepost::Setup;
use crate::support::mta::Mta;
use crate::support::scripted::{Answer, Asked, EXTENSIONS, Scripted};
use crate::support::smtp::{Smtp, message, stuffed};
use crate::support::{PATIENCE, contains, tls, wait_for};

/// CONTRACT, SMTP: RCPT and MAIL: the upstream's own reply: code, enhanced code and text (printable, multi-line kept); one without an
/// enhanced code gets `X.0.0` of its class; one that breaks SMTP becomes `451 4.3.0`.
#[test]
fn the_upstreams_own_replies_are_passed_on() {
    let rows: &[(&str, &str)] = &[
        ("550 5.1.1 no such user", "550 5.1.1 no such user"),
        ("250 2.1.5 fine", "250 2.1.5 fine"),
        ("250 fine", "250 2.0.0 fine"),
        ("550 no such user here", "550 5.0.0 no such user here"),
        ("450 4.2.0 greylisted, try in 5 minutes", "450 4.2.0 greylisted, try in 5 minutes"),
        ("452 later", "452 4.0.0 later"),
        ("552 5.2.2 full", "552 5.2.2 full"),
        ("550-5.7.1 first\r\n550 5.7.1 second", "550 5.7.1 first\n5.7.1 second"),
        ("550-first\r\n550-second\r\n550 third", "550 5.0.0 first\n5.0.0 second\n5.0.0 third"),
        ("999 what", "451 4.3.0"),
        ("hello", "451 4.3.0"),
        ("55 5.1.1 x", "451 4.3.0"),
        ("550-a\r\n250 b", "451 4.3.0"),
        ("354 2.0.0 this is no answer to RCPT", "451 4.3.0"),
    ];
    let upstream = Scripted::with(|asked| {
        let number: Option<usize> =
            asked.path().strip_prefix("row-").and_then(|rest| rest.split('@').next()?.parse().ok());
        (asked.verb == "RCPT").then_some(())?;
        Answer::reply(ROWS_REPLIES.get()?.get(number?)?)
    });
    ROWS_REPLIES.set(rows.iter().map(|(reply, _)| (*reply).to_owned()).collect()).unwrap();
    let gatepost = Setup::new(upstream.address).relay().start();
    for (number, (sent, expected)) in rows.iter().enumerate() {
        let mut client = gatepost.relay();
        client.expect("MAIL FROM:<alice@mta.example>", 250);
        let reply = client.ask(&format!("RCPT TO:<row-{number}@mta.example>"));
        assert!(
            reply.text().starts_with(expected),
            "{sent:?} came as {:?}, expected {expected:?}",
            reply.text()
        );
        assert_eq!(reply.lines.len(), expected.lines().count(), "{sent:?}: lines");
        client.expect("NOOP", 250);
    }
}

static ROWS_REPLIES: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();

/// RFC 5321 4.2: what is not printable is not passed on, nor are lines of more than 512 octets.
#[test]
fn replies_are_made_presentable() {
    let upstream = Scripted::with(|asked| match (asked.verb, asked.path()) {
        ("RCPT", "long@mta.example") => Answer::reply(&format!("550 5.1.1 {}", "x".repeat(3000))),
        ("RCPT", "control@mta.example") => Answer::reply("550 5.1.1 \x1b[31mred\x07\tand\x7f more"),
        _ => None,
    });
    let gatepost = Setup::new(upstream.address).relay().start();
    let mut client = gatepost.relay();
    client.expect("MAIL FROM:<alice@mta.example>", 250);
    let long = client.expect("RCPT TO:<long@mta.example>", 550);
    assert!(long.lines.iter().all(|line| line.len() + 6 <= 512), "a line of {} octets", long.lines[0].len());
    let control = client.expect("RCPT TO:<control@mta.example>", 550);
    assert!(control.text().chars().all(|c| !c.is_control()), "{:?}", control.text());
    assert!(control.text().starts_with("550 5.1.1"), "{}", control.text());
}

/// CONTRACT, SMTP: MAIL, DATA and the end of data: the upstream's own reply; a refusal of DATA comes at the end of data. None counts.
#[test]
fn refusals_of_mail_data_and_the_message_are_passed_on_and_do_not_count() {
    let upstream = Scripted::with(|asked| {
        // What the transaction is about stands in MAIL alone; connections are per session here (XCLIENT).
        match asked.verb {
            "MAIL" if asked.path().starts_with("refused") => Answer::reply("550 5.7.1 Sender refused"),
            "MAIL" if asked.path().starts_with("unknown") => Answer::reply("550 5.1.1 Sender unknown"),
            "DATA" if asked.before == 0 => Answer::reply("451 4.3.1 DATA refused"),
            "." => Answer::reply("554 5.7.1 Content refused"),
            _ => None,
        }
    });
    let gatepost = Setup::new(upstream.address).relay().start();
    let mut client = gatepost.relay();
    assert_eq!(client.ask("MAIL FROM:<refused@mta.example>").text(), "550 5.7.1 Sender refused");
    assert_eq!(client.ask("MAIL FROM:<unknown@mta.example>").text(), "550 5.1.1 Sender unknown");
    let mut replies = Vec::new();
    for number in 0..2 {
        client.expect("MAIL FROM:<alice@mta.example>", 250);
        client.expect("RCPT TO:<bob@mta.example>", 250);
        client.expect("DATA", 354);
        client.send(&stuffed(&message(&format!("message {number}"))));
        replies.push(client.reply().text());
    }
    replies.sort();
    assert!(replies.contains(&"451 4.3.1 DATA refused".to_owned()), "{replies:?}");
    assert_eq!(gatepost.status("host:127.0.0.2"), None, "nothing of it counts");
    assert_eq!(upstream.taken(), []);
}

/// CONTRACT, SMTP: the upstream closes or answers 421 in mid-transaction: a fresh connection, the accepted part repeated, the RCPT asked
/// again; the client sees none of it.
#[test]
fn an_upstream_that_hangs_up_is_replaced_unseen() {
    for pipelined in [false, true] {
        for how in [Answer::Last("421 4.7.0 Too many errors".to_owned()), Answer::Close] {
            let fault = how.clone();
            let refusals = Mutex::new(HashMap::<usize, usize>::new());
            // After four refusals it has had enough of the connection.
            let upstream = Scripted::with(move |asked| {
                (asked.verb == "RCPT").then_some(())?;
                let mut refusals = refusals.lock().unwrap();
                let count = refusals.entry(asked.connection).or_default();
                *count += usize::from(asked.path().starts_with("nobody"));
                (*count > 4).then(|| fault.clone())
            });
            let gatepost = Setup::new(upstream.address).relay().set("detection.on_alarm", "off").start();
            let mut client = gatepost.relay();
            client.expect("MAIL FROM:<alice@mta.example>", 250);
            let lines: Vec<String> = (0..30)
                .map(|number| match number % 5 {
                    0 => format!("RCPT TO:<rcpt-{number}@mta.example>\r\n"),
                    _ => format!("RCPT TO:<nobody-{number}@mta.example>\r\n"),
                })
                .collect();
            if pipelined {
                client.send(lines.concat().as_bytes());
            }
            for (number, line) in lines.iter().enumerate() {
                if !pipelined {
                    client.send(line.as_bytes());
                }
                let reply = client.reply();
                let expected = match number % 5 {
                    0 => format!("250 2.1.5 <rcpt-{number}@mta.example> Recipient ok"),
                    _ => format!(
                        "550 5.1.1 <nobody-{number}@mta.example>: Recipient address rejected: User unknown"
                    ),
                };
                assert_eq!(reply.text(), expected, "after {how:?}, pipelined: {pipelined}");
            }
            client.data(&message("at last"), 250);
            let taken = upstream.expect_taken(1);
            assert_eq!(taken.len(), 1);
            let recipients: Vec<_> =
                (0..30).step_by(5).map(|n| format!("RCPT TO:<rcpt-{n}@mta.example>")).collect();
            assert_eq!(taken[0].recipients, recipients, "each recipient once, in order");
            // Neither the repetition nor the asking again counts twice.
            assert_eq!(gatepost.status("host:127.0.0.2").unwrap()["invalid_recipients"], 24);
        }
    }
}

/// CONTRACT, SMTP: a recipient refused at the repetition does not count; nothing is relayed, and the end of data gets `451 4.4.1`.
#[test]
fn what_cannot_be_repeated_is_not_relayed() {
    let asked_before = Mutex::new(HashMap::<String, usize>::new());
    let upstream = Scripted::with(move |asked| {
        (asked.verb == "RCPT").then_some(())?;
        let mut before = asked_before.lock().unwrap();
        let count = before.entry(asked.path().to_owned()).or_default();
        *count += 1;
        match (asked.path(), *count) {
            ("third@mta.example", 1) => Some(Answer::Close),
            ("first@mta.example", 2..) => Answer::reply("550 5.1.1 gone since"),
            _ => None,
        }
    });
    let gatepost = Setup::new(upstream.address).relay().start();
    let mut client = gatepost.relay();
    client.expect("MAIL FROM:<alice@mta.example>", 250);
    client.expect("RCPT TO:<first@mta.example>", 250);
    client.expect("RCPT TO:<second@mta.example>", 250);
    client.ask("RCPT TO:<third@mta.example>");
    let reply = client.data(&message("half"), 451);
    assert!(reply.text().starts_with("451 4.4.1"), "{}", reply.text());
    assert_eq!(upstream.taken(), []);
    assert_eq!(gatepost.status("host:127.0.0.2"), None);
}

/// CONTRACT, SMTP: if the fresh one answers no RCPT either, or the upstream is down: `451 4.4.1`; a blocked account's mail is parked all
/// the same.
#[test]
fn an_upstream_that_is_down_is_no_reason_to_stop_parking() {
    let down = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&down);
    let upstream = Scripted::with(move |asked| {
        (asked.verb == "RCPT" || asked.verb == "CONNECT").then_some(())?;
        switch.load(Ordering::SeqCst).then_some(Answer::Close)
    });
    let gatepost = Setup::new(upstream.address).relay().start();
    let mut client = gatepost.relay();
    client.expect("MAIL FROM:<alice@mta.example>", 250);
    down.store(true, Ordering::SeqCst);
    let reply = client.expect("RCPT TO:<bob@mta.example>", 451);
    assert!(reply.text().starts_with("451 4.4.1"), "{}", reply.text());
    upstream.stop();
    let mut client = gatepost.relay();
    assert!(client.ask("MAIL FROM:<alice@mta.example>").text().starts_with("451 4.4.1"));
    gatepost.run(&["block", "user:alice"]).expect(0);
    gatepost.login("alice").submit("alice@mta.example", &["bob@mta.example"], &message("parked anyway"));
    assert_eq!(gatepost.parked().len(), 1);
}

/// CONTRACT, SMTP: upstream silent for `timeout`: `451 4.4.1`; the reply to the end of data does not come: `451 4.4.2`, and the log says
/// that the message may have been accepted.
#[test]
fn an_upstream_that_is_silent() {
    let upstream = Scripted::with(|asked| match (asked.verb, asked.path()) {
        ("RCPT", "silent@mta.example") | (".", _) => Some(Answer::Silence),
        _ => None,
    });
    let gatepost = Setup::new(upstream.address)
        .set("upstream.timeout", "2s")
        .set("upstream.data_timeout", "2s")
        .relay()
        .start();
    let mut client = gatepost.relay();
    client.expect("MAIL FROM:<alice@mta.example>", 250);
    let reply = client.expect("RCPT TO:<silent@mta.example>", 451);
    assert!(reply.text().starts_with("451 4.4.1"), "{}", reply.text());
    let mut client = gatepost.relay();
    client.expect("MAIL FROM:<alice@mta.example>", 250);
    client.expect("RCPT TO:<bob@mta.example>", 250);
    let reply = client.data(&message("who knows"), 451);
    assert!(reply.text().starts_with("451 4.4.2"), "{}", reply.text());
    gatepost.expect_log("that it may have been accepted", |line| {
        line.to_string().contains("may have been accepted")
    });
}

/// CONTRACT, SMTP: no upstream connection free for 10 s: `451 4.3.2`.
#[test]
fn upstream_connections_are_bounded() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).set("upstream.max_connections", 2).relay().start();
    let mut holders: Vec<Smtp> = (0..2).map(|_| gatepost.relay()).collect();
    for holder in &mut holders {
        holder.expect("MAIL FROM:<alice@mta.example>", 250);
        holder.expect("RCPT TO:<bob@mta.example>", 250);
    }
    let mut third = gatepost.relay();
    let reply = third.ask("MAIL FROM:<alice@mta.example>");
    assert!(reply.text().starts_with("451 4.3.2"), "{}", reply.text());
    assert!(upstream.open_connections() <= 2);
    holders[0].data(&message("done"), 250);
    third.submit("alice@mta.example", &["bob@mta.example"], &message("now"));
}

/// Issue 3: XCLIENT as far as offered, `[UNAVAILABLE]` for what is not known, xtext, at most 512 octets, never pipelined behind; EHLO again.
#[test]
fn xclient_says_who_the_client_is() {
    let mut extensions = EXTENSIONS.to_vec();
    extensions.push("XCLIENT NAME ADDR PORT PROTO HELO LOGIN");
    let upstream = Scripted::offering(extensions, |_| None);
    let gatepost = Setup::new(upstream.address)
        .user_line(&crate::support::gatepost::user_line("a+b=c", "x y"))
        .relay()
        .start();
    let mut client = Smtp::login(gatepost.starttls, "a+b=c", "x y");
    client.submit("alice@mta.example", &["bob@mta.example"], &message("user"));
    let mut client = gatepost.relay();
    client.submit("alice@mta.example", &["bob@mta.example"], &message("relay"));
    let lines = upstream.lines("XCLIENT");
    assert_eq!(lines.len(), 2, "{lines:?}");
    // RFC 3461 4: xtext of + and =.
    for attribute in ["ADDR=127.0.0.1", "PROTO=ESMTP", "HELO=client.example", "LOGIN=a+2Bb+3Dc", "PORT="] {
        assert!(
            lines[0].split(' ').any(|word| word.starts_with(attribute)),
            "no {attribute} in {}",
            lines[0]
        );
    }
    assert!(lines[1].contains("ADDR=127.0.0.2"), "{}", lines[1]);
    assert!(!lines[1].contains("LOGIN=") || lines[1].contains("LOGIN=[UNAVAILABLE]"), "{}", lines[1]);
    assert!(lines.iter().all(|line| line.len() + 2 <= 512));
    for octets in upstream.octets().iter().filter(|octets| contains(octets, b"XCLIENT ")) {
        let text = String::from_utf8_lossy(octets);
        assert_eq!(text.matches("EHLO ").count(), 2, "greeting, XCLIENT, greeting again: {text}");
    }
}

/// CONTRACT, SMTP: a refusal of XCLIENT is answered with `451 4.4.1` and does not count.
#[test]
fn a_refused_xclient_is_no_ones_fault() {
    let mut extensions = EXTENSIONS.to_vec();
    extensions.push("XCLIENT NAME ADDR PORT PROTO HELO LOGIN");
    let upstream = Scripted::offering(extensions, |asked: &Asked<'_>| {
        if asked.verb == "XCLIENT" { Answer::reply("550 5.7.0 insufficient authorization") } else { None }
    });
    let gatepost = Setup::new(upstream.address).relay().start();
    let reply = gatepost.relay().ask("MAIL FROM:<alice@mta.example>");
    assert!(reply.text().starts_with("451 4.4.1"), "{}", reply.text());
    assert_eq!(gatepost.status("host:127.0.0.2"), None);
}

/// CONTRACT, SMTP: a block does not show in the form of any reply.
#[test]
fn a_block_does_not_show_in_any_reply() {
    let upstream = Scripted::start();
    let mut gatepost = Setup::new(upstream.address).limit(3).start();
    let mut bob = gatepost.login("bob");
    let ehlo = bob.ehlo();
    let mail = bob.expect("MAIL FROM:<bob@mta.example>", 250);
    let rcpt = bob.expect("RCPT TO:<carol@mta.example>", 250);
    let end = bob.data(&message("relayed"), 250);
    assert_eq!(rcpt.text(), "250 2.1.5 <carol@mta.example> Recipient ok");

    let mut alice = gatepost.login("alice");
    alice.expect("MAIL FROM:<alice@mta.example>", 250);
    let harvest = alice.harvest(4, "mta.example");
    assert_eq!(harvest[2].text(), "250 2.1.5 <nobody-2@mta.example> Recipient ok", "the crossing one");
    assert_eq!(harvest[3].text(), "250 2.1.5 <nobody-3@mta.example> Recipient ok", "the one after it");
    let mut told = vec![alice.data(&message("crossing"), 250)];
    let asked = upstream.lines("RCPT").len();
    for round in ["same session", "fresh session", "after a restart"] {
        match round {
            "fresh session" => alice = gatepost.login("alice"),
            "after a restart" => {
                assert!(gatepost.terminate().success());
                gatepost.start();
                alice = gatepost.login("alice");
            }
            _ => {}
        }
        assert_eq!(alice.ehlo(), ehlo, "{round}");
        assert_eq!(alice.expect("MAIL FROM:<alice@mta.example>", 250), mail, "{round}");
        let rcpt = alice.expect("RCPT TO:<no-such@mta.example>", 250);
        assert_eq!(rcpt.text(), "250 2.1.5 <no-such@mta.example> Recipient ok", "{round}");
        told.push(alice.data(&message(round), 250));
    }
    assert_eq!(upstream.lines("RCPT").len(), asked, "nothing is asked upstream");
    let shape = |text: &str| text.replace(|c: char| c.is_ascii_digit() || c.is_ascii_uppercase(), "#");
    let mut ids: Vec<String> = told.iter().map(|reply| reply.text()).collect();
    for text in &ids {
        // ABC0001000 and a random one may differ in which octets are digits: hexadecimal stays hexadecimal.
        assert_eq!(shape(text), shape(&end.text()));
        assert!(text.starts_with("250 2.0.0 Ok: queued as "), "{text}");
        let id = text.rsplit(' ').next().unwrap();
        assert!(
            id.chars().all(|c| c.is_ascii_digit() || ('A'..='F').contains(&c)),
            "{id} is not hexadecimal"
        );
        assert_ne!(*text, end.text());
        // CONTRACT, quarantine show: ID may also be the queue id that the client was told.
        gatepost.run(&["quarantine", "show", id]).expect(0);
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4, "an id twice");
    assert_eq!(upstream.taken().len(), 1);
}

/// CONTRACT, SMTP: the same where an upstream repeats at the end of data whose message it took: it is this one's sender and recipient, over
/// restarts too, and nobody else's.
#[test]
fn a_block_does_not_show_by_whose_message_it_was() {
    let sender = Mutex::new(String::new());
    let upstream = Scripted::with(move |asked| match asked.verb {
        "MAIL" => {
            *sender.lock().unwrap() = asked.path().to_owned();
            None
        }
        "." => Answer::reply(&format!("250 2.0.0 <{}> to <carol@mta.example> taken", sender.lock().unwrap())),
        _ => None,
    });
    let mut gatepost = Setup::new(upstream.address).start();
    gatepost.login("bob").submit("bob@mta.example", &["carol@mta.example"], &message("relayed"));
    gatepost.run(&["block", "alice"]).expect(0);
    for round in ["at once", "after a restart"] {
        let mut alice = gatepost.login("alice");
        alice.expect("MAIL FROM:<alice@mta.example>", 250);
        alice.expect("RCPT TO:<dave@mta.example>", 250);
        let end = alice.data(&message(round), 250);
        assert_eq!(end.text(), "250 2.0.0 <alice@mta.example> to <dave@mta.example> taken", "{round}");
        assert!(gatepost.terminate().success());
        gatepost.start();
    }
}

/// CONTRACT, SMTP: RCPT in flight: those in flight over all sessions of an account, plus its count, never exceed its limit.
#[test]
fn sessions_together_get_no_more_honest_answers_than_one() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).limit(20).set("session.max_connections_per_ip", 1000).start();
    let honest: usize = std::thread::scope(|scope| {
        let sessions: Vec<_> = (0..8)
            .map(|session| {
                let gatepost = &gatepost;
                scope.spawn(move || {
                    let mut client = gatepost.login("alice");
                    client.expect("MAIL FROM:<alice@mta.example>", 250);
                    let lines: String = (0..25)
                        .map(|number| format!("RCPT TO:<nobody-{session}-{number}@mta.example>\r\n"))
                        .collect();
                    client.send(lines.as_bytes());
                    (0..25).filter(|_| client.reply().code == 550).count()
                })
            })
            .collect();
        sessions.into_iter().map(|session| session.join().unwrap()).sum()
    });
    assert_eq!(honest, 19, "the 20th blocks and gets 250");
    assert!(upstream.lines("RCPT").len() <= 20, "{} were asked", upstream.lines("RCPT").len());
    assert_eq!(gatepost.status("user:alice").unwrap()["state"], "blocked");
}

/// The same for one that goes on at each reply: what has counted makes room for nobody.
#[test]
fn a_session_that_goes_on_at_each_reply_gets_no_more_than_its_limit() {
    const LIMIT: usize = 10;
    let upstream = Scripted::with(|asked| {
        if asked.verb != "RCPT" {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20)); // so that the next one comes while others wait
        Answer::reply("550 5.1.1 no such user")
    });
    for first in ["", "RCPT TO:<a b@mta.example>\r\n"] {
        let user = if first.is_empty() { "alice" } else { "bob" };
        let gatepost = Setup::new(upstream.address).limit(LIMIT as i64).start();
        let before = upstream.lines("RCPT").len();
        let mut client = gatepost.login(user);
        client.expect(&format!("MAIL FROM:<{user}@mta.example>"), 250);
        let line = |number: usize| format!("RCPT TO:<nobody-{number}@mta.example>\r\n");
        client.send([first.to_owned(), (0..LIMIT).map(line).collect()].concat().as_bytes());
        if !first.is_empty() {
            client.expect_reply(501);
        }
        for number in LIMIT..3 * LIMIT {
            client.reply();
            client.send(line(number).as_bytes());
        }
        (0..LIMIT).for_each(|_| drop(client.reply()));
        let asked = upstream.lines("RCPT")[before..].iter().collect::<BTreeSet<_>>().len();
        assert_eq!(asked, LIMIT - usize::from(!first.is_empty()), "asked about, {first:?} first");
        assert_eq!(gatepost.status(&format!("user:{user}")).unwrap()["state"], "blocked");
    }
}

/// CONTRACT, Block: one that ends between MAIL, which was answered unasked, and its recipients. Where the upstream refuses MAIL then, they
/// are told what it said, which is no word about them.
#[test]
fn a_mail_that_is_refused_late() {
    let upstream =
        Scripted::with(|asked| Answer::reply("550 5.1.1 sender unknown").filter(|_| asked.verb == "MAIL"));
    let gatepost = Setup::new(upstream.address).start();
    gatepost.run(&["block", "alice"]).expect(0);
    let mut client = gatepost.login("alice");
    client.expect("MAIL FROM:<alice@mta.example>", 250);
    gatepost.run(&["unblock", "alice"]).expect(0);
    client.send(b"RCPT TO:<a@mta.example>\r\nRCPT TO:<b@mta.example>\r\nRCPT TO:<c@mta.example>\r\n");
    for _ in 0..3 {
        assert_eq!(client.reply().text(), "550 5.1.1 sender unknown");
    }
    assert_eq!((upstream.lines("MAIL").len(), upstream.lines("RCPT").len()), (1, 0));
    assert_eq!(gatepost.status("user:alice"), None, "nobody was counted");
    client.expect("DATA", 554);
}

/// CONTRACT, SMTP: a message of any other session of that account whose content has not yet begun to go upstream is parked.
#[test]
fn a_transaction_open_at_the_block_is_parked() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).limit(2).start();
    let mut open = gatepost.login("alice");
    open.expect("MAIL FROM:<alice@mta.example>", 250);
    open.expect("RCPT TO:<bob@mta.example>", 250);
    let mut other = gatepost.login("alice");
    other.expect("MAIL FROM:<alice@mta.example>", 250);
    other.harvest(2, "mta.example");
    open.data(&message("open"), 250);
    assert_eq!(gatepost.parked().len(), 1);
    // A transaction in which a RCPT was answered unasked is parked even if the account is unblocked meanwhile.
    other.expect("RCPT TO:<unasked@mta.example>", 250);
    gatepost.run(&["unblock", "alice"]).expect(0);
    other.data(&message("unasked"), 250);
    assert_eq!(gatepost.parked().len(), 2);
    assert_eq!(upstream.taken(), []);
}

/// DATA that a client pipelines goes upstream with its batch. A block still holds until the content follows, and the upstream hears
/// nothing that it could take for content; behind a RCPT that may cross the limit, nothing is asked.
#[test]
fn data_in_a_batch() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).limit(3).start();
    let mut client = gatepost.login("alice");
    let batch = |client: &mut Smtp, names: &[&str]| {
        let recipients: String =
            names.iter().map(|name| format!("RCPT TO:<{name}@mta.example>\r\n")).collect();
        client.send(format!("MAIL FROM:<alice@mta.example>\r\n{recipients}DATA\r\n").as_bytes());
        (0..names.len() + 2).map(|_| client.reply().code).collect::<Vec<_>>()
    };
    let heard = |count: usize| {
        let data = wait_for(PATIENCE, || Some(upstream.lines("DATA").len()).filter(|&heard| heard >= count));
        assert_eq!(data, Some(count), "DATA");
    };
    for block in [false, true] {
        assert_eq!(batch(&mut client, &["bob"]), [250, 250, 354]);
        heard(1 + usize::from(block));
        if block {
            gatepost.run(&["block", "alice"]).expect(0);
        }
        client.send(&stuffed(&message("a batch")));
        client.expect_reply(250);
    }
    assert_eq!((upstream.taken().len(), gatepost.parked().len()), (1, 1));
    wait_for(PATIENCE, || (upstream.open_connections() == 0).then_some(())).expect("the connection is cut");
    let octets = upstream.octets();
    assert!(octets.iter().any(|one| one.ends_with(b"RCPT TO:<bob@mta.example>\r\nDATA\r\n")));

    gatepost.run(&["unblock", "alice"]).expect(0);
    assert_eq!(batch(&mut client, &["nobody-1"]), [250, 550, 554], "nobody is left");
    heard(3);
    // On a connection that has refused nothing.
    let mut client = gatepost.login("alice");
    assert_eq!(batch(&mut client, &["nobody-2", "nobody-3"]), [250, 550, 250, 354]);
    client.send(&stuffed(&message("crossed")));
    client.expect_reply(250);
    assert_eq!((upstream.taken().len(), gatepost.parked().len()), (1, 2));
    heard(3);
}

/// CONTRACT, `[limit] action = "refuse"`: the crossing RCPT has the upstream's own reply, and 550 5.7.1 answers what follows.
#[test]
fn refuse_says_so() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).limit(2).set("limit.action", "refuse").start();
    let mut client = gatepost.login("alice");
    client.expect("MAIL FROM:<alice@mta.example>", 250);
    client.expect("RCPT TO:<bob@mta.example>", 250);
    for reply in client.harvest(2, "mta.example") {
        assert!(reply.text().starts_with("550 5.1.1"), "{}", reply.text());
    }
    assert!(client.ask("RCPT TO:<bob@mta.example>").text().starts_with("550 5.7.1"));
    client.expect("DATA", 354);
    client.send(&stuffed(&message("refused")));
    assert!(client.reply().text().starts_with("550 5.7.1"));
    assert!(gatepost.login("alice").ask("MAIL FROM:<alice@mta.example>").text().starts_with("550 5.7.1"));
    assert!(gatepost.parked().is_empty() && upstream.taken().is_empty());
}

/// CONTRACT, `observe`: count, log and notify, but never block by itself; a block by hand holds for everyone.
#[test]
fn observe_blocks_nobody() {
    let upstream = Scripted::start();
    let gatepost =
        Setup::new(upstream.address).limit(3).set("limit.observe", true).notify("abuse@mta.example").start();
    let mut client = gatepost.login("alice");
    client.expect("MAIL FROM:<alice@mta.example>", 250);
    for reply in client.harvest(8, "mta.example") {
        assert!(reply.text().starts_with("550 5.1.1"), "{}", reply.text());
    }
    assert_eq!(gatepost.status("user:alice").unwrap()["state"], "counting");
    let notice = upstream.expect_taken(1).remove(0);
    let text = String::from_utf8_lossy(&notice.data).to_lowercase();
    assert!(text.contains("would have blocked: user:alice"), "{text}");
    client.submit_in_transaction(&message("observed"));
    upstream.expect_taken(2);
    gatepost.run(&["block", "alice"]).expect(0);
    client.submit("alice@mta.example", &["bob@mta.example"], &message("by hand"));
    assert_eq!(gatepost.parked().len(), 1);
    assert_eq!(
        upstream.taken().len(),
        2,
        "a block by hand sends no notice, nor does a second `would have blocked` on one day"
    );
}

/// CONTRACT, `exempt`: counted, shown and logged, and the upstream's own replies.
#[test]
fn the_exempt_are_counted_and_not_blocked() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).limit(3).set("limit.exempt", vec!["user:alice"]).start();
    let mut client = gatepost.login("alice");
    client.expect("MAIL FROM:<alice@mta.example>", 250);
    assert!(client.harvest(8, "mta.example").iter().all(|reply| reply.code == 550));
    assert_eq!(gatepost.status("user:alice").unwrap()["state"], "counting");
}

/// CONTRACT, `count`: distinct: the same address again within the period does not count, without regard to case; attempts: all do.
#[test]
fn distinct_and_attempts() {
    for (count, expected) in [("distinct", 2), ("attempts", 6)] {
        let upstream = Scripted::start();
        let gatepost = Setup::new(upstream.address).set("limit.count", count).start();
        let mut client = gatepost.login("alice");
        client.expect("MAIL FROM:<alice@mta.example>", 250);
        for recipient in ["nobody-a@mta.example", "nobody-A@MTA.example", "nobody-b@mta.example"] {
            client.expect(&format!("RCPT TO:<{recipient}>"), 550);
            client.expect(&format!("RCPT TO:<{recipient}>"), 550);
        }
        assert_eq!(gatepost.status("user:alice").unwrap()["invalid_recipients"], expected, "{count}");
    }
}

/// CONTRACT, `period`: the window slides; a block does not lapse with it.
#[test]
fn the_window_slides_and_a_block_stays() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).limit(3).set("limit.period", "2s").start();
    let mut client = gatepost.login("alice");
    client.expect("MAIL FROM:<alice@mta.example>", 250);
    client.harvest(2, "mta.example");
    assert_eq!(gatepost.status("user:alice").unwrap()["invalid_recipients"], 2);
    let gone = wait_for(PATIENCE, || Some(()).filter(|()| gatepost.status("user:alice").is_none()));
    assert!(gone.is_some(), "the window does not slide");
    assert!(client.harvest(2, "two.example").iter().all(|reply| reply.code == 550));
    client.expect("RCPT TO:<nobody-3@mta.example>", 250);
    let crossed = std::time::Instant::now();
    assert!(wait_for(PATIENCE, || Some(()).filter(|()| crossed.elapsed().as_secs() >= 3)).is_some());
    let blocked = gatepost.status("user:alice").unwrap();
    // An operator who comes later sees what led to it.
    assert_eq!((&blocked["state"], &blocked["invalid_recipients"]), (&"blocked".into(), &3.into()));
    gatepost.login("alice").submit("alice@mta.example", &["bob@mta.example"], &message("still blocked"));
    assert_eq!(gatepost.parked().len(), 1);
}

/// CONTRACT, `[upstream] tls`: starttls and implicit verify the certificate, against the name of the host, the system's trust anchors
/// and `ca`.
#[test]
fn the_upstreams_certificate_is_verified() {
    let upstream = Scripted::start();
    let secured = tls::front(upstream.address);
    let by_name = |address: SocketAddr, protection: &str, name: &str, ca: &str| {
        let setup = Setup::new(address)
            .set("upstream.tls", protection)
            .set("upstream.tls_name", name)
            .set("upstream.ca", ca);
        let gatepost = setup.relay().start();
        gatepost.relay().ask("MAIL FROM:<alice@mta.example>").text()
    };
    for (address, protection, name, ca) in [
        (secured, "implicit", "elsewhere.example", "ca.pem"),
        (secured, "implicit", "localhost", ""),
        // No TLS where TLS is asked for.
        (upstream.address, "starttls", "localhost", "ca.pem"),
        (upstream.address, "implicit", "localhost", "ca.pem"),
    ] {
        let reply = by_name(address, protection, name, ca);
        assert!(reply.starts_with("451 4.4.1"), "{protection} {name} {ca}: {reply}");
        assert_eq!(upstream.lines("MAIL"), [""; 0], "{protection} {name} {ca}");
    }
    assert_eq!(by_name(secured, "implicit", "localhost", "ca.pem"), "250 2.1.0 Sender ok");
    // With an IP literal and no name the start stops.
    let gatepost = Setup::new(secured).set("upstream.tls", "implicit").write();
    assert!(gatepost.run(&["serve"]).expect(1).stderr.contains("tls_name"));
}

/// The same by STARTTLS, XCLIENT within it.
#[test]
#[ignore = "needs tests/install: Postfix"]
fn postfix_is_reached_by_starttls() {
    let mta = Mta::postfix();
    let setup = || Setup::new(mta.address).set("upstream.tls", "starttls").set("upstream.ca", "ca.pem");
    let gatepost = setup().set("upstream.tls_name", "localhost").start();
    gatepost.login("alice").submit("alice@mta.example", &["bob@mta.example"], &message("encrypted"));
    mta.expect_mail("bob", 1);
    assert!(mta.log().contains("TLS connection established"), "{}", mta.log());
    assert!(mta.log().contains("sasl_username=alice"), "XCLIENT LOGIN was not believed:\n{}", mta.log());
    let gatepost = setup().set("upstream.tls_name", "elsewhere.example").start();
    assert!(gatepost.login("alice").ask("MAIL FROM:<alice@mta.example>").text().starts_with("451 4.4.1"));
}

impl Smtp {
    /// RCPT of a good recipient and the message, MAIL having been said.
    fn submit_in_transaction(&mut self, message: &[u8]) {
        self.expect("RCPT TO:<bob@mta.example>", 250);
        self.data(message, 250);
    }
}
