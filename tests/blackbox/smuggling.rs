//! Smuggling and injection, judged by the octets that the upstream received.

use std::time::Duration;

use crate::support::gatepost::{Gatepost, Setup};
use crate::support::scripted::Scripted;
use crate::support::smtp::Smtp;
use crate::support::{contains, shown};

/// Ways to write the end of data that some servers believe and others do not. Only CRLF.CRLF is one (RFC 5321 4.1.1.4).
const FAKE_ENDS: &[&[u8]] = &[
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\r.\n",
    b"\n.\r",
    b"\r\n.\r\r\n",
    b"\r\r\n.\r\r\n",
    b"\n\r.\n\r",
    b"\r\n\x00.\r\n",
    b"\r\n.\x00\r\n",
    b"\r\x00\n.\r\x00\n",
    b"\r\n.\r\x00\n",
    b"\n\n.\n\n",
];

const SMUGGLED: &[u8] = b"MAIL FROM:<smuggled@mta.example>\r\nRCPT TO:<victim@mta.example>\r\nDATA\r\nSubject: smuggled\r\n\r\nHa.\r\n.\r\n";

fn begin(client: &mut Smtp) {
    client.expect("MAIL FROM:<alice@mta.example>", 250);
    client.expect("RCPT TO:<bob@mta.example>", 250);
    client.expect("DATA", 354);
}

/// What has gone upstream is clean, and holds no end of data.
fn expect_nothing_relayed(upstream: &Scripted) {
    assert_eq!(upstream.taken(), [], "nothing is relayed");
    for octets in upstream.octets() {
        let mut previous = 0;
        for (at, &octet) in octets.iter().enumerate() {
            assert!(octet != 0, "NUL at {at}: {}", shown(&octets));
            assert!(octet != b'\n' || previous == b'\r', "bare LF at {at}: {}", shown(&octets));
            assert!(previous != b'\r' || octet == b'\n', "bare CR before {at}: {}", shown(&octets));
            previous = octet;
        }
        assert!(!contains(&octets, b"\r\n.\r\n"), "the end of data went upstream: {}", shown(&octets));
    }
}

/// CONTRACT, SMTP: bare CR, bare LF, NUL, or an end-of-data other than CRLF.CRLF: `554 5.6.0` at the end of data; never relayed
/// (the upstream connection is dropped before its end of data), never taken as the end.
#[test]
fn no_fake_end_of_data_reaches_the_upstream() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).relay().start();
    for fake_end in FAKE_ENDS {
        for first_piece in [usize::MAX, 1, 2, 3] {
            let mut client = gatepost.relay();
            begin(&mut client);
            let beginning = [b"Subject: seen\r\n\r\nHello", *fake_end].concat();
            // A TCP segment that ends within the sequence must make no difference.
            let split =
                (beginning.len() - fake_end.len() + first_piece.min(fake_end.len())).min(beginning.len());
            client.send(&beginning[..split]);
            if split < beginning.len() {
                std::thread::sleep(Duration::from_millis(2));
            }
            client.send(&[&beginning[split..], SMUGGLED].concat());
            let reply = client.expect_reply(554);
            assert!(reply.text().starts_with("554 5.6.0"), "{}: {}", shown(fake_end), reply.text());
            // One message, one reply: nothing of it was run as a command, and the session is in step.
            client.expect("NOOP", 250);
            client.quit();
        }
    }
    expect_nothing_relayed(&upstream);
}

/// The same for what is parked: a release must not smuggle either.
#[test]
fn no_fake_end_of_data_is_parked() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).relay().start();
    gatepost.run(&["block", "host:127.0.0.2"]).expect(0);
    for fake_end in FAKE_ENDS {
        let mut client = gatepost.relay();
        begin(&mut client);
        client.send(&[b"Subject: seen\r\n\r\nHello", *fake_end, SMUGGLED].concat());
        let reply = client.expect_reply(554);
        assert!(reply.text().starts_with("554 5.6.0"), "{}: {}", shown(fake_end), reply.text());
        client.expect("NOOP", 250);
    }
    assert_eq!(gatepost.parked(), Vec::<serde_json::Value>::new());
    expect_nothing_relayed(&upstream);
}

/// What is allowed passes unchanged (CONTRACT: lines of any length; RFC 5321 4.5.2: dots).
#[test]
fn dots_and_long_lines_pass_unchanged() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).relay().start();
    let long = [b"Subject: long\r\n\r\n".to_vec(), vec![b'x'; 200_000], b"\r\n".to_vec()].concat();
    let rows: [&[u8]; 7] = [
        b"Subject: dots\r\n\r\n.\r\n..\r\n...\r\n.x\r\n",
        b"Subject: only a header\r\n",
        b"Subject: ends with a dot\r\n\r\nx\r\n.\r\n",
        b"\r\nno header\r\n",
        b"Subject: 8 bit \xff\xfe\r\n\r\n\x01\x1b\x7f\x80\r\n",
        b"Subject: MAIL\r\n\r\n.\r\nMAIL FROM:<x@y>\r\nRCPT TO:<z@y>\r\nDATA\r\n",
        &long,
    ];
    for (number, message) in rows.iter().enumerate() {
        gatepost.relay().submit("alice@mta.example", &["bob@mta.example"], message);
        let taken = upstream.expect_taken(number + 1).remove(number);
        assert!(
            taken.message().ends_with(message),
            "{} arrived as {}",
            shown(message),
            shown(&taken.message())
        );
    }
    assert_eq!(upstream.transactions().len(), rows.len());
}

/// RFC 3030: the octets of a chunk are no commands and no end of data, wherever the chunk begins.
#[test]
fn chunks_smuggle_nothing() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).relay().start();
    let mut client = gatepost.relay();
    if !client.ehlo().offers("CHUNKING") {
        assert_eq!(client.ask("BDAT 1 LAST").code / 100, 5);
        return;
    }
    client.expect("MAIL FROM:<alice@mta.example>", 250);
    client.expect("RCPT TO:<bob@mta.example>", 250);
    client.send(b"BDAT 24\r\nSubject: chunks\r\n\r\nHi.\r\n");
    client.expect_reply(250);
    let rest = [b".\r\n", SMUGGLED].concat();
    client.send(&[format!("BDAT {} LAST\r\n", rest.len()).as_bytes(), &rest].concat());
    client.expect_reply(250);
    let taken = upstream.expect_taken(1).remove(0);
    let sent = [b"Subject: chunks\r\n\r\nHi.\r\n", &rest[..]].concat();
    assert!(taken.message().ends_with(&sent), "arrived as {}", shown(&taken.message()));
    assert_eq!(upstream.transactions().len(), 1);

    for bad in [
        &b"Subject: x\r\n\r\nHello\n.\nMAIL FROM:<smuggled@x>\r\n"[..],
        b"Subject: x\r\n\r\nHello\r.\r\r\n",
        b"a: b\r\n\r\n\x00\r\n",
    ] {
        let mut client = gatepost.relay();
        client.expect("MAIL FROM:<alice@mta.example>", 250);
        client.expect("RCPT TO:<bob@mta.example>", 250);
        client.send(&[format!("BDAT {} LAST\r\n", bad.len()).as_bytes(), bad].concat());
        assert!(client.expect_reply(554).text().starts_with("554 5.6.0"));
        client.expect("NOOP", 250);
    }
    assert_eq!(upstream.taken().len(), 1);
}

/// CONTRACT, SMTP: bare CR, bare LF, NUL in a command: `500 5.5.2`; nothing of it reaches the upstream.
#[test]
fn no_command_is_smuggled_through_a_command() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).relay().start();
    for bad in [
        &b"MAIL FROM:<alice@mta.example>\nRCPT TO:<smuggled@mta.example>\r\n"[..],
        b"MAIL FROM:<alice@mta.example>\rRCPT TO:<smuggled@mta.example>\r\n",
        b"MAIL FROM:<alice@mta.example> BODY=8BITMIME\rRSET\r\n",
        b"MAIL FROM:<alice\x00@mta.example>\r\n",
        b"NOOP\n",
    ] {
        let mut client = gatepost.relay();
        client.send(&[bad, b"NOOP\r\n"].concat());
        let reply = client.reply();
        assert_eq!(reply.code, 500, "{}: {}", shown(bad), reply.text());
        assert!(reply.text().starts_with("500 5.5.2"), "{}", reply.text());
    }
    // Quoted local parts must not lose their quotes on the way.
    let mut client = gatepost.relay();
    client.expect("MAIL FROM:<alice@mta.example>", 250);
    let quoted = r#"RCPT TO:<"bob> ORCPT=rfc822;x"@mta.example>"#;
    client.expect(quoted, 250);
    client.data(b"Subject: quoted\r\n\r\n", 250);
    assert_eq!(upstream.expect_taken(1)[0].recipients, [quoted]);
    assert!(!upstream.octets().iter().any(|octets| contains(octets, b"smuggled")));
}

/// CONTRACT, SMTP: bytes pipelined behind STARTTLS are discarded, never run (CVE-2011-0411).
#[test]
fn what_follows_starttls_in_cleartext_is_discarded() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).start();
    for injected in [
        &b"NOOP\r\n"[..],
        b"EHLO evil.example\r\nMAIL FROM:<evil@mta.example>\r\n",
        b"AUTH PLAIN AGFsaWNlAHg=\r\n",
        b"NOO",
    ] {
        let mut client = Smtp::connect(gatepost.starttls);
        client.ehlo();
        client.send(&[b"STARTTLS\r\n", injected].concat());
        client.expect_reply(220);
        client.begin_tls();
        // The first reply within TLS answers the first command within TLS: EHLO, multi-line.
        assert!(client.ehlo().offers("AUTH"));
        client.expect("NOOP", 250);
        client.quit();
    }
    assert_eq!(upstream.lines("MAIL"), [""; 0]);
}

/// RFC 3207 4.2: what was said before TLS is forgotten.
#[test]
fn starttls_forgets_what_was_said_before() {
    let upstream = Scripted::start();
    let gatepost: Gatepost = Setup::new(upstream.address).relay().start();
    let mut client = gatepost.relay();
    client.expect("MAIL FROM:<alice@mta.example>", 250);
    client.expect("RSET", 250);
    client.starttls();
    client.expect("RCPT TO:<bob@mta.example>", 503);
    client.expect("MAIL FROM:<alice@mta.example>", 503);
    assert!(!client.ehlo().offers("STARTTLS"));
    client.expect("STARTTLS", 503);
}
