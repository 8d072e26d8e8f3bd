//! CONTRACT, Front, the client's side: extensions passed on, who may send as whom, fix-ups, bare newlines, loops, PROXY, other
//! protocols; judged by the octets that the upstream received.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::support::gatepost::{Gatepost, PASSWORD, Setup, user_line};
use crate::support::scripted::{Answer, EXTENSIONS, Scripted};
use crate::support::smtp::{Smtp, message, stuffed};
use crate::support::{PATIENCE, contains, shown, tls, wait_for};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn offering(further: &[&'static str]) -> Vec<&'static str> {
    EXTENSIONS.iter().chain(further).copied().collect()
}

/// The header and body that the upstream got, the lines of Gatepost's own Received: taken off.
fn taken(upstream: &Scripted, number: usize) -> Vec<u8> {
    let message = upstream.expect_taken(number + 1).remove(number).message();
    let text = String::from_utf8_lossy(&message);
    assert!(text.starts_with("Received: "), "{text}");
    let end =
        message.windows(3).position(|three| three[..2] == *b"\r\n" && !b" \t".contains(&three[2])).unwrap();
    message[end + 2..].to_vec()
}

/// The id of the only parked message.
fn only_parked(gatepost: &Gatepost) -> String {
    let parked = gatepost.parked();
    assert_eq!(parked.len(), 1, "{parked:?}");
    parked[0]["id"].as_str().unwrap().to_owned()
}

/// The message as it arrived, octet for octet.
fn raw(gatepost: &Gatepost, id: &str) -> Vec<u8> {
    let output = gatepost.command(&["quarantine", "show", id, "--raw"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn chunk(octets: &[u8], last: bool) -> Vec<u8> {
    let marker = if last { " LAST" } else { "" };
    [format!("BDAT {}{marker}\r\n", octets.len()).as_bytes(), octets].concat()
}

/// Where a TLS record (RFC 8446 5.1: 16,384 octets at the most) ends means nothing: not in the middle of the end of data or of a command
/// between chunks, whether its rest is here already or comes later, and what follows the message in the same record is the next command.
#[test]
fn mail_data_comes_in_whatever_records() {
    const RECORD: usize = 16_384;
    let upstream = Scripted::offering(offering(&[]), |_| None);
    let gatepost = Setup::new(upstream.address).start();
    let mut client = gatepost.login("alice");
    let mut sent = 0;
    let mut arrived = |client: &mut Smtp, expected: &[u8]| {
        client.expect_reply(250);
        client.expect_reply(252);
        assert!(taken(&upstream, sent) == expected, "message {sent}");
        sent += 1;
    };
    let begin = |client: &mut Smtp| {
        client.expect("MAIL FROM:<alice@mta.example>", 250);
        client.expect("RCPT TO:<bob@mta.example>", 250);
    };
    let padded = |octets: usize| {
        let mut message = message("records");
        let padding = octets - stuffed(&message).len() - 2;
        message.extend(std::iter::repeat_n(b'x', padding));
        message.extend_from_slice(b"\r\n");
        message
    };
    let vrfy = b"VRFY bob\r\n";
    for cut in 0..=8 {
        // The end of the first record stands so many octets before the end of the mail data.
        let long = padded(RECORD + cut);
        let wire = [&stuffed(&long)[..], vrfy].concat();
        begin(&mut client);
        client.expect("DATA", 354);
        client.send(&wire);
        arrived(&mut client, &long);
        // The same, and the rest comes later.
        begin(&mut client);
        client.expect("DATA", 354);
        client.send(&wire[..RECORD]);
        std::thread::sleep(Duration::from_millis(20));
        client.send(&wire[RECORD..]);
        arrived(&mut client, &long);
    }
    for cut in 0..=20 {
        // In the command between two chunks, before and behind it.
        let long = padded(2 * RECORD);
        let head = RECORD - "BDAT 16384\r\n".len() - cut;
        begin(&mut client);
        client.send(&[&chunk(&long[..head], false)[..], &chunk(&long[head..], true), vrfy].concat());
        client.expect_reply(250);
        arrived(&mut client, &long);
    }
    // Each octet in a record of its own.
    let short = message("octets");
    begin(&mut client);
    client.expect("DATA", 354);
    stuffed(&short).iter().chain(vrfy).for_each(|octet| client.send(&[*octet]));
    arrived(&mut client, &short);
    client.quit();
}

/// Issue 4, Extensions: DELIVERBY, FUTURERELEASE, MT-PRIORITY are offered and passed through where the upstream has them, DSN with xtext
/// intact; AUTH= is parsed and never passed. What a parked message used, its release uses again.
#[test]
fn what_the_upstream_has_is_passed_on() {
    let keywords = ["DELIVERBY 60", "FUTURERELEASE 604800 2030-01-01T00:00:00Z", "MT-PRIORITY MIXER"];
    let upstream = Scripted::offering(offering(&keywords), |_| None);
    let gatepost = Setup::new(upstream.address).start();
    let mail = "MAIL FROM:<alice@mta.example> BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+2Bb BY=120;RT \
                HOLDUNTIL=2029-12-24T12:00:00+01:00 MT-PRIORITY=-3";
    for block in [false, true] {
        if block {
            gatepost.run(&["block", "alice"]).expect(0);
        }
        let mut client = gatepost.login("alice");
        let ehlo = client.ehlo();
        for keyword in keywords {
            assert!(ehlo.lines.iter().any(|line| line == keyword), "{keyword}: {}", ehlo.text());
        }
        assert!(!ehlo.offers("REQUIRETLS") && !ehlo.offers("BINARYMIME"), "{}", ehlo.text());
        client.expect("MAIL FROM:<alice@mta.example> REQUIRETLS", 555);
        client.expect("MAIL FROM:<alice@mta.example> HOLDFOR=0", 501);
        client.expect(&format!("{mail} AUTH=alice+2Bx@mta.example"), 250);
        client.expect("RCPT TO:<bob@mta.example> NOTIFY=DELAY ORCPT=rfc822;b+2Bob@mta.example", 250);
        client.data(&message("parameters"), 250);
    }
    gatepost.run(&["quarantine", "release", &only_parked(&gatepost)]).expect(0);
    for transaction in upstream.expect_taken(2) {
        // RFC 2852 4: the time that it was here is taken off.
        let by = transaction.mail.split("BY=").nth(1).and_then(|rest| rest.split(';').next()).unwrap();
        assert!((60..=120).contains(&by.parse::<u32>().unwrap()), "{by}");
        assert_eq!(transaction.mail.replacen(&format!("BY={by};"), "BY=120;", 1), mail);
        assert_eq!(
            transaction.recipients,
            ["RCPT TO:<bob@mta.example> NOTIFY=DELAY ORCPT=rfc822;b+2Bob@mta.example"]
        );
    }
}

/// RFC 4865: a HOLDUNTIL that passed while the message was parked is not given to the upstream, which would refuse it for good.
#[test]
fn a_moment_that_has_passed_holds_nothing_up() {
    let upstream = Scripted::offering(offering(&["FUTURERELEASE 604800 2030-01-01T00:00:00Z"]), |asked| {
        (asked.verb == "MAIL" && asked.line.contains("HOLDUNTIL=2026-11-24"))
            .then_some(Answer::reply("501 5.5.4 That moment has passed"))?
    });
    let gatepost = Setup::new(upstream.address).start();
    gatepost.run(&["block", "alice"]).expect(0);
    let mut client = gatepost.login("alice");
    client.expect("MAIL FROM:<alice@mta.example> HOLDUNTIL=2026-11-24T12:00:00Z", 250);
    client.expect("RCPT TO:<bob@mta.example>", 250);
    client.data(&message("later"), 250);
    gatepost.run(&["quarantine", "release", &only_parked(&gatepost)]).expect(0);
    assert_eq!(upstream.expect_taken(1)[0].mail, "MAIL FROM:<alice@mta.example>");
}

/// RFC 2852 4: when the time that a parked message was given is over, by-mode N goes on with what is left, and R is not sent any more.
#[test]
fn what_was_to_be_returned_by_now_is_not_sent() {
    let upstream = Scripted::offering(offering(&["DELIVERBY"]), |_| None);
    let gatepost = Setup::new(upstream.address).start();
    gatepost.run(&["block", "alice"]).expect(0);
    let mut client = gatepost.login("alice");
    for by in ["BY=1;N", "BY=1;R"] {
        client.expect(&format!("MAIL FROM:<alice@mta.example> {by}"), 250);
        client.expect("RCPT TO:<bob@mta.example>", 250);
        client.data(&message(by), 250);
    }
    let parked = Instant::now();
    assert!(wait_for(PATIENCE, || (parked.elapsed().as_millis() > 1_100).then_some(())).is_some());
    let ids: Vec<String> =
        gatepost.parked().iter().map(|message| message["id"].as_str().unwrap().to_owned()).collect();
    gatepost.run(&["quarantine", "release", &ids[0]]).expect(0);
    gatepost.run(&["quarantine", "release", &ids[1]]).expect(1);
    let sent = upstream.expect_taken(1);
    let left =
        sent[0].mail.strip_prefix("MAIL FROM:<alice@mta.example> BY=").unwrap().strip_suffix(";N").unwrap();
    assert!(left.parse::<i32>().unwrap() <= 0, "{left}");
    let kept = gatepost.parked();
    assert_eq!(
        (kept.len(), kept[0]["state"].as_str()),
        (1, Some("failed")),
        "it stays whole, for the operator"
    );
    assert_eq!(upstream.taken().len(), 1);
}

/// RFC 5322 2.2.3: a message whose first line begins with a blank goes on with no field of ours.
#[test]
fn nothing_folds_into_a_field_of_ours() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).set("submission.sender_header", true).start();
    for begin in [" , ceo@mta.example\r\n", "\tx\r\n"] {
        let sent = format!("{begin}From: b@c\r\nDate: x\r\nMessage-ID: <1@p>\r\n\r\nHello\r\n");
        let before = upstream.taken().len();
        gatepost.login("alice").submit("alice@mta.example", &["bob@mta.example"], sent.as_bytes());
        let arrived = String::from_utf8(taken(&upstream, before)).unwrap();
        assert_eq!(arrived, format!("Sender: alice@mta.example\r\n\r\n{sent}"));
    }
}

/// Issue 4, Extensions: REQUIRETLS only where the client's TLS and a verified TLS hop that offers it meet.
#[test]
fn requiretls_needs_tls_on_both_sides() {
    let upstream = Scripted::offering(offering(&["REQUIRETLS"]), |_| None);
    let cleartext = Setup::new(upstream.address).start();
    let mut client = cleartext.login("alice");
    assert!(!client.ehlo().offers("REQUIRETLS"));
    client.expect("MAIL FROM:<alice@mta.example> REQUIRETLS", 555);

    let front = tls::front(upstream.address);
    let gatepost = Setup::new(front)
        .relay()
        .set("upstream.tls", "implicit")
        .set("upstream.tls_name", "localhost")
        .set("upstream.ca", "ca.pem")
        .start();
    let mut relay = gatepost.relay();
    assert!(!relay.ehlo().offers("REQUIRETLS"));
    relay.expect("MAIL FROM:<alice@mta.example> REQUIRETLS", 555);
    let mut client = gatepost.login("alice");
    assert!(client.ehlo().offers("REQUIRETLS"));
    client.expect("MAIL FROM:<alice@mta.example> REQUIRETLS", 250);
    client.expect("RCPT TO:<bob@mta.example>", 250);
    client.data(&message("secret"), 250);
    assert_eq!(upstream.expect_taken(1)[0].mail, "MAIL FROM:<alice@mta.example> REQUIRETLS");
}

/// Issue 4, Extensions: LIMITS (RFC 9422): the smaller of both sides' values.
#[test]
fn limits_are_the_smaller_ones() {
    for (theirs, ours, expected) in [
        ("LIMITS RCPTMAX=2 MAILMAX=7", 10, "LIMITS MAILMAX=7 RCPTMAX=2"),
        ("LIMITS RCPTMAX=100 RCPTDOMAINMAX=1", 2, "LIMITS RCPTMAX=2 RCPTDOMAINMAX=1"),
        ("HELP", 2, "LIMITS RCPTMAX=2"),
    ] {
        let upstream = Scripted::offering(offering(&[theirs]), |_| None);
        let gatepost = Setup::new(upstream.address).relay().set("session.max_recipients", ours).start();
        let mut client = gatepost.relay();
        let ehlo = client.ehlo();
        assert!(ehlo.lines.iter().any(|line| line == expected), "{expected}: {}", ehlo.text());
        client.expect("MAIL FROM:<alice@mta.example>", 250);
        client.expect("RCPT TO:<bob@mta.example>", 250);
        client.expect("RCPT TO:<carol@mta.example>", 250);
        assert!(client.ask("RCPT TO:<dave@mta.example>").text().starts_with("452 4.5.3"));
        assert_eq!(upstream.lines("RCPT").len(), 2);
    }
}

/// Issue 4, Extensions: BINARYMIME only where the upstream has both; then all octets pass, by BDAT, relayed or parked.
#[test]
fn binary_content_goes_by_bdat() {
    let upstream = Scripted::offering(offering(&["CHUNKING", "BINARYMIME"]), |_| None);
    let gatepost = Setup::new(upstream.address).start();
    let all: Vec<u8> = (0..=255).collect();
    let body = [&all[..], b"\n.\r\n\r\n.\r\nQUIT\r\n", &all.repeat(1_200)].concat();
    let first = b"Subject: binary\r\nX-Authenticated-As: forged\r\n\r\n".to_vec();
    let cleaned = b"Subject: binary\r\n\r\n";
    for block in [false, true] {
        if block {
            gatepost.run(&["block", "alice"]).expect(0);
        }
        let mut client = gatepost.login("alice");
        assert!(client.ehlo().offers("BINARYMIME"));
        client.expect("MAIL FROM:<alice@mta.example> BODY=BINARYMIME", 250);
        client.expect("RCPT TO:<bob@mta.example>", 250);
        client.expect("DATA", 503);
        client.send(&chunk(&first, false));
        client.expect_reply(250);
        client.send(&chunk(&body, true));
        client.expect_reply(250);
    }
    let id = only_parked(&gatepost);
    assert!(raw(&gatepost, &id) == [&first[..], &body].concat(), "--raw is not what arrived");
    gatepost.run(&["quarantine", "release", &id]).expect(0);
    let expected = [&cleaned[..], &body].concat();
    for transaction in upstream.expect_taken(2) {
        assert_eq!(transaction.mail, "MAIL FROM:<alice@mta.example> BODY=BINARYMIME");
        // By BDAT nothing is stuffed: `data` is what came.
        assert!(transaction.data.ends_with(&expected), "{} octets", transaction.data.len());
        let front = &transaction.data[..transaction.data.len() - expected.len()];
        assert!(front.starts_with(b"Received: ") && front.ends_with(b"\r\n"), "{}", shown(front));
    }
    assert_eq!(upstream.lines("DATA"), [""; 0]);
}

/// RFC 3030 2: a chunk that the upstream refuses is the end of the message, whose reply the client gets.
#[test]
fn a_chunk_that_is_refused() {
    let upstream = Scripted::offering(offering(&["CHUNKING", "BINARYMIME"]), |asked| {
        (asked.verb == "BDAT").then(|| Answer::Reply("552 5.3.4 too much of it".to_owned()))
    });
    let gatepost = Setup::new(upstream.address).relay().start();
    let mut client = gatepost.relay();
    client.expect("MAIL FROM:<alice@mta.example> BODY=BINARYMIME", 250);
    client.expect("RCPT TO:<bob@mta.example>", 250);
    client.send(&chunk(&[b"Subject: x\r\n\r\n", &[0; 600_000][..]].concat(), true));
    assert_eq!(client.reply().text(), "552 5.3.4 too much of it");
    client.expect("NOOP", 250);
    assert!(upstream.lines("BDAT").iter().all(|line| !line.contains("LAST")), "{:?}", upstream.lines("BDAT"));
    // So small that its last chunk is the first that goes upstream.
    client.expect("MAIL FROM:<alice@mta.example> BODY=BINARYMIME", 250);
    client.expect("RCPT TO:<bob@mta.example>", 250);
    client.send(&chunk(b"Subject: x\r\n\r\n\0", true));
    assert_eq!(client.reply().text(), "552 5.3.4 too much of it");
    client.expect("NOOP", 250);
    let last = upstream.lines("BDAT").pop().unwrap();
    assert!(last.ends_with(" LAST"), "{last}");
    assert_eq!(upstream.taken(), []);

    let lacking = Scripted::offering(offering(&["BINARYMIME"]), |_| None);
    let gatepost = Setup::new(lacking.address).relay().start();
    let mut client = gatepost.relay();
    assert!(!client.ehlo().offers("BINARYMIME"));
    client.expect("MAIL FROM:<alice@mta.example> BODY=BINARYMIME", 555);
}

/// CONTRACT, Front: `[sender]`: 550 5.7.1 at MAIL; subaddresses; the null reverse-path always; `own` leaves relay hosts alone. A
/// block does not show.
#[test]
fn users_send_as_themselves() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).relay().set("sender.policy", "own").start();
    for block in [false, true] {
        if block {
            gatepost.run(&["block", "alice"]).expect(0);
        }
        let mut client = gatepost.login("alice");
        for (address, allowed) in [
            ("alice@mta.example", true),
            ("Alice+list@MTA.example", true),
            (r#""alice"@mta.example"#, true),
            ("", true),
            ("bob@mta.example", false),
            ("alice@elsewhere.example", false),
        ] {
            let reply = client.ask(&format!("MAIL FROM:<{address}>"));
            let expected = if allowed { "250" } else { "550 5.7.1" };
            assert!(reply.text().starts_with(expected), "{address}: {}", reply.text());
            client.expect("RSET", 250);
        }
    }
    gatepost.relay().submit("root@printer.example", &["bob@mta.example"], &message("from a printer"));
    assert!(!upstream.lines("MAIL").iter().any(|line| line.contains("elsewhere") || line.contains("<bob@")));
    gatepost.expect_log("who tried", |line| line.to_string().contains("sender address refused"));
}

/// CONTRACT, Front: `from_header`: each address of From: too, 550 5.7.1 at the end of data; what cannot be read is refused.
#[test]
fn the_header_must_say_so_too() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address)
        .relay()
        .set("sender.policy", "own")
        .set("sender.from_header", true)
        .start();
    for block in [false, true] {
        if block {
            gatepost.run(&["block", "alice"]).expect(0);
        }
        let mut client = gatepost.login("alice");
        for (from, allowed) in [
            ("From: Alice <alice@mta.example>\r\n", true),
            ("From: \"bob@mta.example\" <alice+x@mta.example>\r\n", true),
            ("", true),
            ("From: Bob <bob@mta.example>\r\n", false),
            ("From: alice@mta.example, bob@mta.example\r\n", false),
            ("From: alice@mta.example\r\nFROM : bob@mta.example\r\n", false),
            ("From: friends: alice@mta.example,\r\n\tbob@mta.example;\r\n", false),
            ("From: <alice@mta.example> <bob@mta.example>\r\n", false),
            ("From: Alice \"Boss, the\" <alice@mta.example>\r\n", true),
            (
                "From: A \"<alice@mta.example>, \" <bob@mta.example>, \"<alice@mta.example>, x\" <alice@mta.example>\r\n",
                false,
            ),
            ("From: (() \") <bob@mta.example>, (\") <alice@mta.example>\r\n", false),
        ] {
            client.expect("MAIL FROM:<alice@mta.example>", 250);
            client.expect("RCPT TO:<carol@mta.example>", 250);
            let message = format!("Subject: x\r\n{from}\r\nHello\r\n");
            let reply = client.data(message.as_bytes(), if allowed { 250 } else { 550 });
            assert!(allowed || reply.text().starts_with("550 5.7.1"), "{from}: {}", reply.text());
        }
    }
    assert_eq!((upstream.taken().len(), gatepost.parked().len()), (4, 4));
    // A relay host's header may be as bad as it likes.
    gatepost.relay().submit("a@b", &["carol@mta.example"], b"From: ,;<\r\n\r\nHello\r\n");
}

/// CONTRACT, Front: the map: addresses, domains, subaddresses; it holds for relay hosts that it names; it is read again once it has
/// rested for a second, and a broken one is refused as a whole.
#[test]
fn senders_by_map() {
    let upstream = Scripted::start();
    let mut gatepost = Setup::new(upstream.address).relay().set("sender.policy", "map").write();
    let map = gatepost.folder().join("senders");
    gatepost.run(&["check"]).expect(1);
    std::fs::write(
        &map,
        "# who as whom\nalice: info@mta.example, @shop.example\nhost:127.0.0.2: printer@mta.example\n",
    )
    .unwrap();
    gatepost.start();
    let expect = |gatepost: &Gatepost, rows: &[(&str, &str, bool)]| {
        for (user, address, allowed) in rows {
            let mut client = if *user == "host" { gatepost.relay() } else { gatepost.login(user) };
            let reply = client.ask(&format!("MAIL FROM:<{address}>"));
            let expected = if *allowed { "250" } else { "550 5.7.1" };
            assert!(reply.text().starts_with(expected), "{user} {address}: {}", reply.text());
        }
    };
    expect(
        &gatepost,
        &[
            ("alice", "info+x@mta.example", true),
            ("alice", "anybody@shop.example", true),
            ("alice", "alice@mta.example", false),
            ("bob", "bob@mta.example", false),
            ("bob", "", true),
            ("host", "printer@mta.example", true),
            ("host", "boss@mta.example", false),
        ],
    );
    std::fs::write(&map, "bob: bob@mta.example\nalice\n").unwrap();
    gatepost.expect_log("the line", |line| {
        let text = line.to_string();
        text.contains("senders:2") && text.contains("refused")
    });
    expect(&gatepost, &[("bob", "bob@mta.example", false), ("alice", "info@mta.example", true)]);
    std::fs::write(&map, "bob: bob@mta.example\n").unwrap();
    gatepost.expect_log("that it was read", |line| line.to_string().contains("senders file read anew"));
    expect(
        &gatepost,
        &[
            ("bob", "bob@mta.example", true),
            ("alice", "info@mta.example", false),
            ("host", "boss@mta.example", true), // no longer named
        ],
    );
}

/// CONTRACT, Front: `[submission] sender_header`: every Sender: goes, one comes where From: is not the account's. `hide_client`:
/// Received: carries no client address. Both at a release too.
#[test]
fn sender_and_received_as_submission_wants_them() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address)
        .relay()
        .set("submission.sender_header", true)
        .set("submission.hide_client", true)
        .start();
    let own = "Sender: alice@mta.example\r\n";
    let rows = [
        ("From: Alice <ALICE@mta.example>\r\nSender: x@y\r\n", "From: Alice <ALICE@mta.example>\r\n", ""),
        (
            "From: info@mta.example\r\nSENDER: x@y,\r\n z@y\r\nSender : q\r\n",
            "From: info@mta.example\r\n",
            own,
        ),
        ("From: alice@mta.example, b@c\r\n", "From: alice@mta.example, b@c\r\n", own),
        ("From: alice+x@mta.example\r\n", "From: alice+x@mta.example\r\n", own),
        ("To: b@c\r\n", "To: b@c\r\n", own),
    ];
    let common = "Date: Tue, 24 Nov 2026 16:05:28 +0000\r\nMessage-ID: <1@client.example>\r\n";
    for (header, kept, added) in rows {
        let before = upstream.taken().len();
        let sent = format!("{header}{common}\r\nHello\r\n");
        gatepost.login("alice").submit("alice@mta.example", &["bob@mta.example"], sent.as_bytes());
        gatepost.run(&["block", "alice"]).expect(0);
        gatepost.login("alice").submit("alice@mta.example", &["bob@mta.example"], sent.as_bytes());
        let id = only_parked(&gatepost);
        assert_eq!(raw(&gatepost, &id), sent.as_bytes());
        gatepost.run(&["quarantine", "release", &id]).expect(0);
        gatepost.run(&["unblock", "alice"]).expect(0);
        for (number, origin) in [(before, ""), (before + 1, "X-Authenticated-As: alice\r\n")] {
            let arrived = String::from_utf8(taken(&upstream, number)).unwrap();
            assert_eq!(arrived, format!("{origin}{added}{kept}{common}\r\nHello\r\n"));
        }
    }
    for transaction in upstream.taken() {
        let message = String::from_utf8(transaction.message()).unwrap();
        let received = message.split("\r\nX-").next().unwrap().split(";\r\n").next().unwrap();
        assert!(received.starts_with("Received: by gate.example with ESMTPSA"), "{received}");
        assert!(!received.contains("127.0.0"), "{received}");
    }
    // Any address of the account's will do.
    let of_two = Setup::new(upstream.address)
        .set("upstream.domains", vec!["mta.example", "second.example"])
        .set("submission.sender_header", true)
        .start();
    let count = upstream.taken().len();
    let sent = format!("From: alice@second.example\r\nSender: x@y\r\n{common}\r\nHello\r\n");
    of_two.login("alice").submit("alice@mta.example", &["bob@mta.example"], sent.as_bytes());
    assert_eq!(taken(&upstream, count), sent.replace("Sender: x@y\r\n", "").as_bytes());
    // A name that is no address, or none that an ASCII header could have: no Sender:, rather than what the client says.
    let nameless = Setup::new(upstream.address)
        .set("submission.sender_header", true)
        .user_line(&user_line("\u{fc}na", PASSWORD))
        .start();
    nameless.login("\u{fc}na").submit("alice@mta.example", &["bob@mta.example"], sent.as_bytes());
    assert_eq!(taken(&upstream, count + 1), sent.replace("Sender: x@y\r\n", "").as_bytes());
    // A relay host has no address of its own: its Sender: stays.
    let count = upstream.taken().len();
    let sent = format!("Sender: x@y\r\nFrom: z@y\r\n{common}\r\nHello\r\n");
    gatepost.relay().submit("z@y", &["bob@mta.example"], sent.as_bytes());
    assert_eq!(taken(&upstream, count), sent.as_bytes());
}

/// CONTRACT, Front: `bare_newline`: a bare LF becomes CRLF on transfer, and is never an end of data; --raw stays as it arrived; a bare
/// CR and a NUL are refused as ever.
#[test]
fn bare_newlines_are_mended_where_that_is_wanted() {
    let upstream = Scripted::start();
    let gatepost =
        Setup::new(upstream.address).relay().set("session.bare_newline_hosts", vec!["127.0.0.2/32"]).start();
    let sent: &[u8] = b"Subject: printer\nFrom: p@mta.example\nX-Relayed-From: forged\nDate: x\nMessage-ID: <1@p>\n\nscan\n.\nMAIL FROM:<smuggled@x>\n.\r\n..stuffed\r\nend\n";
    let mended = "Subject: printer\r\nFrom: p@mta.example\r\nDate: x\r\nMessage-ID: <1@p>\r\n\r\nscan\r\n.\r\nMAIL FROM:<smuggled@x>\r\n.\r\n.stuffed\r\nend\r\n";
    let arriving: &[u8] = b"Subject: printer\nFrom: p@mta.example\nX-Relayed-From: forged\nDate: x\nMessage-ID: <1@p>\n\nscan\n.\nMAIL FROM:<smuggled@x>\n.\r\n.stuffed\r\nend\n\r\n";
    // An end of line to end the data with is part of the message where its last LF is bare.
    let relayed = format!("{mended}\r\n");
    for by_chunks in [false, true] {
        for block in [false, true] {
            gatepost.run(&[if block { "block" } else { "unblock" }, "host:127.0.0.2"]).expect(0);
            let before = upstream.taken().len();
            for piece in [1, 7, usize::MAX] {
                let mut client = gatepost.relay();
                client.expect("MAIL FROM:<p@mta.example>", 250);
                client.expect("RCPT TO:<bob@mta.example>", 250);
                let octets = if by_chunks {
                    arriving
                        .chunks(piece.min(arriving.len()))
                        .flat_map(|piece| chunk(piece, false))
                        .chain(chunk(b"", true))
                        .collect()
                } else {
                    client.expect("DATA", 354);
                    [sent, b"\r\n.\r\n"].concat()
                };
                client.send(&octets);
                if by_chunks {
                    for _ in arriving.chunks(piece.min(arriving.len())) {
                        client.expect_reply(250);
                    }
                }
                client.expect_reply(250);
                client.quit();
            }
            if block {
                for parked in gatepost.parked() {
                    let id = parked["id"].as_str().unwrap();
                    assert_eq!(shown(&raw(&gatepost, id)), shown(arriving));
                    assert_eq!(parked["size"], arriving.len());
                    gatepost.run(&["quarantine", "release", id]).expect(0);
                }
            }
            for number in before..before + 3 {
                let arrived = String::from_utf8(taken(&upstream, number)).unwrap();
                let arrived = arrived.strip_prefix("X-Relayed-From: 127.0.0.2\r\n").unwrap_or(&arrived);
                assert_eq!(shown(arrived.as_bytes()), shown(relayed.as_bytes()));
            }
        }
    }
    assert_eq!(upstream.transactions().len(), upstream.taken().len());
    gatepost.run(&["unblock", "host:127.0.0.2"]).expect(0);
    for bad in [&b"a: b\r\n\r\nx\ry\n"[..], b"a: b\n\n\0\n", b"a: b\r\n\r\nx\r\r\n"] {
        let mut client = gatepost.relay();
        client.expect("MAIL FROM:<p@mta.example>", 250);
        client.expect("RCPT TO:<bob@mta.example>", 250);
        client.expect("DATA", 354);
        client.send(&[bad, b"\r\n.\r\n"].concat());
        assert!(client.reply().text().starts_with("554 5.6.0"));
    }
    // Others are refused, unless it is meant for all.
    for (policy, code) in [("reject", 554), ("normalize", 250)] {
        let gatepost = Setup::new(upstream.address).set("session.bare_newline", policy).start();
        let mut client = gatepost.login("alice");
        client.expect("MAIL FROM:<alice@mta.example>", 250);
        client.expect("RCPT TO:<bob@mta.example>", 250);
        client.expect("DATA", 354);
        client.send(b"Subject: x\n\nHello\n\r\n.\r\n");
        client.expect_reply(code);
    }
}

/// A message that does not fit into memory: the beginning is held, mended, and both go where they belong.
#[test]
fn big_messages_are_mended_too() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).set("session.bare_newline", "normalize").start();
    let body: Vec<u8> = (0..60_000).flat_map(|number| format!("line {number}\n").into_bytes()).collect();
    let sent = [b"Subject: big\nDate: x\nMessage-ID: <1@p>\n\n", &body[..], b"\r\n"].concat();
    let mended = String::from_utf8(sent.clone()).unwrap().replace("\r\n", "\n").replace('\n', "\r\n");
    gatepost.login("alice").submit("alice@mta.example", &["bob@mta.example"], &sent);
    gatepost.run(&["block", "alice"]).expect(0);
    gatepost.login("alice").submit("alice@mta.example", &["bob@mta.example"], &sent);
    let id = only_parked(&gatepost);
    assert!(raw(&gatepost, &id) == sent);
    gatepost.run(&["quarantine", "release", &id]).expect(0);
    assert!(taken(&upstream, 0) == mended.as_bytes());
    assert!(taken(&upstream, 1) == [b"X-Authenticated-As: alice\r\n", mended.as_bytes()].concat());
}

/// Issue 4, Submission: more Received: lines than RFC 5321 6.3 suggests get 554 5.4.6; a block does not show.
#[test]
fn loops_end_here() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).start();
    for block in [false, true] {
        if block {
            gatepost.run(&["block", "alice"]).expect(0);
        }
        for (lines, code) in [(100, 250), (101, 554)] {
            let received = "Received: from a by b;\r\n\tTue, 24 Nov 2026 16:05:28 +0000\r\n".repeat(lines);
            let mut client = gatepost.login("alice");
            client.expect("MAIL FROM:<alice@mta.example>", 250);
            client.expect("RCPT TO:<bob@mta.example>", 250);
            let reply = client.data(format!("{received}Subject: x\r\n\r\nHello\r\n").as_bytes(), code);
            assert!(code == 250 || reply.text().starts_with("554 5.4.6"), "{}", reply.text());
            client.expect("NOOP", 250);
        }
    }
    assert_eq!((upstream.taken().len(), gatepost.parked().len()), (1, 1));
}

/// A listener each for STARTTLS and implicit TLS, behind a proxy at 127.0.0.1.
fn behind_proxy(setup: Setup) -> Setup {
    let listener = |tls: &str| {
        let mut table = toml::Table::new();
        table.insert("address".to_owned(), "127.0.0.1:0".into());
        table.insert("tls".to_owned(), tls.into());
        table.insert("proxy_protocol".to_owned(), vec!["127.0.0.1/32"].into());
        toml::Value::from(table)
    };
    setup.set("listen", vec![listener("starttls"), listener("implicit")])
}

fn proxied(server: SocketAddr, header: &[u8]) -> Smtp {
    let mut client = Smtp::open(LOCALHOST, server);
    client.send(header);
    client
}

fn v1(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 192.0.2.9 4711 587\r\n").into_bytes()
}

fn v2(command: u8, client: [u8; 4]) -> Vec<u8> {
    let addresses = [&client[..], &[192, 0, 2, 9], &4711_u16.to_be_bytes(), &587_u16.to_be_bytes()].concat();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, 0x11, 0, 12][..], &addresses].concat()
}

/// CONTRACT, Front: `proxy_protocol`: v1 and v2, from the named networks alone and then required; the real client counts for XCLIENT,
/// relay hosts and limits.
#[test]
fn proxies_say_who_the_client_is() {
    let upstream = Scripted::offering(offering(&["XCLIENT ADDR PORT LOGIN"]), |_| None);
    let setup = Setup::new(upstream.address)
        .set("relay.hosts", vec!["198.51.100.7/32"])
        .set("session.max_connections_per_ip", 2);
    let gatepost = behind_proxy(setup).start();

    // A relay host behind the proxy, by either version; what follows the header in the same segment is not lost.
    for header in [v1("198.51.100.7"), v2(0x21, [198, 51, 100, 7])] {
        let mut client = proxied(gatepost.starttls, &[&header[..], b"EHLO client.example\r\n"].concat());
        client.expect_reply(220);
        client.expect_reply(250);
        client.submit("a@b.example", &["bob@mta.example"], &message("by proxy"));
        client.quit();
    }
    let xclient = upstream.lines("XCLIENT");
    assert!(
        !xclient.is_empty()
            && xclient.iter().all(|line| line.contains("ADDR=198.51.100.7") && line.contains("PORT=4711")),
        "{xclient:?}"
    );
    assert!(contains(&upstream.taken()[0].message(), b"([198.51.100.7])"));
    // Another client is no relay host; nor is the proxy's own connection (LOCAL).
    for header in [v1("198.51.100.8"), v2(0x20, [0; 4]), b"PROXY UNKNOWN\r\n".to_vec()] {
        let mut client = proxied(gatepost.starttls, &header);
        client.expect_reply(220);
        client.ehlo();
        assert!(client.ask("MAIL FROM:<a@b.example>").text().starts_with("530 5.7.0"));
        client.starttls();
        client.ehlo();
        client.auth_plain("alice", PASSWORD, 235);
        client.quit();
    }
    // TLS from the first octet behind the header.
    let mut client = proxied(gatepost.implicit, &v2(0x21, [203, 0, 113, 1]));
    client.begin_tls();
    client.expect_reply(220);
    client.ehlo();
    client.auth_plain("alice", PASSWORD, 235);
    client.submit("alice@mta.example", &["bob@mta.example"], &message("within TLS"));
    assert!(upstream.lines("XCLIENT").iter().any(|line| line.contains("ADDR=203.0.113.1")));
    // Each real client has limits of its own.
    let mut held = Vec::new();
    for (client, code) in
        [("203.0.113.2", 220), ("203.0.113.2", 220), ("203.0.113.2", 421), ("203.0.113.3", 220)]
    {
        let mut client = proxied(gatepost.starttls, &v1(client));
        client.expect_reply(code);
        held.push(client);
    }
}

/// CONTRACT, `auth_timeout`: from connecting on, so that a proxy which does not say who its client is has no longer.
#[test]
fn a_proxy_that_says_nothing_is_not_waited_for() {
    let upstream = Scripted::start();
    let gatepost = behind_proxy(Setup::new(upstream.address).set("session.auth_timeout", "1s")).start();
    let began = Instant::now();
    let mut client = proxied(gatepost.starttls, b"PROXY");
    client.expect_close();
    let waited = began.elapsed();
    assert!((0.8..9.0).contains(&waited.as_secs_f64()), "{waited:?}");
}

/// PROXY protocol 2.1 (UNKNOWN) and 2.2 (LOCAL): a connection whose client is not named is served, and has no rights from the proxy's
/// own address; UNSPEC with the command PROXY is not served at all.
#[test]
fn nobody_relays_by_the_address_of_the_proxy() {
    let upstream = Scripted::start();
    let setup = Setup::new(upstream.address).set("relay.hosts", vec!["127.0.0.0/8", "198.51.100.7/32"]);
    let gatepost = behind_proxy(setup).start();
    for header in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN 198.51.100.7 192.0.2.9 4711 587\r\n".to_vec(),
        v2(0x20, [0; 4]),
        v2(0x20, [198, 51, 100, 7]),
    ] {
        let mut client = proxied(gatepost.starttls, &header);
        client.expect_reply(220);
        client.ehlo();
        let reply = client.ask("MAIL FROM:<a@b.example>");
        assert!(reply.text().starts_with("530 5.7.0"), "{}: {}", header.escape_ascii(), reply.text());
        client.starttls();
        client.ehlo();
        client.auth_plain("alice", PASSWORD, 235);
        client.submit("alice@mta.example", &["bob@mta.example"], &message("logged in"));
        client.quit();
    }
    proxied(gatepost.starttls, b"\r\n\r\n\0\r\nQUIT\n\x21\x00\x00\x00").expect_close();
    // One that is named is what its address says.
    let mut client = proxied(gatepost.starttls, &v1("198.51.100.7"));
    client.expect_reply(220);
    client.ehlo();
    client.submit("a@b.example", &["bob@mta.example"], &message("named"));
}

/// CONTRACT, Front: from a named network without a header: closed, with a log line; from elsewhere: served without one, and one is no
/// command.
#[test]
fn headers_are_required_and_believed_from_the_proxy_alone() {
    let upstream = Scripted::start();
    let gatepost = behind_proxy(Setup::new(upstream.address).relay()).start();
    for wrong in [
        &b"EHLO client.example\r\n"[..],
        b"PROXY TCP4 198.51.100.7 192.0.2.9 4711\r\n",
        b"PROXY TCP4 198.51.100.7 192.0.2.9 4711 587\n\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x00\x00\x00",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00",
    ] {
        for server in [gatepost.starttls, gatepost.implicit] {
            proxied(server, wrong).expect_close();
        }
    }
    let lines =
        || gatepost.log_lines().iter().filter(|line| line.to_string().contains("no PROXY header")).count();
    assert!(wait_for(PATIENCE, || (lines() >= 10).then_some(())).is_some(), "{} log lines", lines());
    // 127.0.0.2 is not the proxy.
    let mut client = gatepost.relay();
    client.submit("a@b.example", &["bob@mta.example"], &message("direct"));
    let reply = client.ask("PROXY TCP4 198.51.100.7 192.0.2.9 4711 587");
    assert!(reply.text().starts_with("500 5.5.1"), "{}", reply.text());
    assert!(contains(&upstream.taken()[0].message(), b"([127.0.0.2])"));
}

/// Issue 4, Strict: HTTP verbs and TLS hellos on the wrong port end the connection (ALPACA): what follows is not run.
#[test]
fn other_protocols_end_the_connection() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).relay().start();
    let smuggled = b"MAIL FROM:<evil@mta.example>\r\nRCPT TO:<bob@mta.example>\r\nDATA\r\n";
    for request in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"POST /?x HTTP/1.1\r\n",
        b"put / HTTP/1.1\r\n",
        b"HEAD / HTTP/1.0\r\n",
        b"OPTIONS * HTTP/1.1\r\n",
        b"CONNECT mx.example.org:25 HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n",
        b"DELETE / HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x16\x03\x03",
    ] {
        let mut client = gatepost.relay();
        client.send(&[request, smuggled].concat());
        let reply = client.reply();
        assert!(reply.text().starts_with("500 5.5.1"), "{}: {}", shown(request), reply.text());
        client.expect_close();
    }
    assert_eq!(upstream.lines("MAIL"), [""; 0]);
    for protocol in ["HTTP", "TLS"] {
        gatepost.expect_log(protocol, |line| {
            line.to_string().contains("another protocol") && line.to_string().contains(protocol)
        });
    }
}

/// RCPT beyond `max_recipients`: what is refused is no recipient, however many RCPTs come at once.
#[test]
fn refused_recipients_take_no_place() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).set("session.max_recipients", 3).start();
    let mut client = gatepost.login("alice");
    let recipients = ["nobody-1", "a", "nobody-2", "b", "nobody-3", "c", "d", "nobody-4"];
    let batch: String = recipients.iter().map(|name| format!("RCPT TO:<{name}@mta.example>\r\n")).collect();
    client.send(format!("MAIL FROM:<alice@mta.example>\r\n{batch}").as_bytes());
    client.expect_reply(250);
    let replies: Vec<u16> = recipients.iter().map(|_| client.reply().code).collect();
    assert_eq!(replies, [550, 250, 550, 250, 550, 250, 452, 452]);
    client.data(&message("three"), 250);
    assert_eq!(upstream.expect_taken(1)[0].recipients.len(), 3);
}
