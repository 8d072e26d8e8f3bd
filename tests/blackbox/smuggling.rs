//! Smuggling and injection, judged by the octets that the upstream received.

use std::time::Duration;

use crate::support::gatepost::{Gatepost, Setup};
use crate::support::mta::Mta;
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

/// Every dot between up to two of CR, LF and NUL on either side, but CRLF.CRLF: what was published, and what was not yet.
fn all_ends() -> Vec<Vec<u8>> {
    const OCTETS: [u8; 3] = *b"\r\n\0";
    let mut sides: Vec<Vec<u8>> = vec![Vec::new()];
    sides.extend(OCTETS.map(|one| vec![one]));
    sides.extend(OCTETS.iter().flat_map(|&one| OCTETS.map(|other| vec![one, other])));
    let ends =
        sides.iter().flat_map(|before| sides.iter().map(move |after| [before, &b"."[..], after].concat()));
    let mut ends: Vec<Vec<u8>> = ends.filter(|end| end != b"\r\n.\r\n").collect();
    ends.extend(FAKE_ENDS.iter().map(|end| end.to_vec()));
    ends
}

/// Whether there is a bare CR, a bare LF or a NUL in it.
fn is_unclean(octets: &[u8]) -> bool {
    let bare = |at: usize| match octets[at] {
        b'\n' => at == 0 || octets[at - 1] != b'\r',
        b'\r' => octets.get(at + 1) != Some(&b'\n'),
        octet => octet == 0,
    };
    (0..octets.len()).any(bare)
}

/// One message by BDAT, the chunks cut before and after each octet of `middle`.
fn send_in_chunks(client: &mut Smtp, before: &[u8], middle: &[u8], after: &[u8]) -> u16 {
    let mut wire = Vec::new();
    let mut chunks = vec![before];
    chunks.extend(middle.chunks(1));
    for chunk in &chunks {
        wire.extend_from_slice(format!("BDAT {}\r\n", chunk.len()).as_bytes());
        wire.extend_from_slice(chunk);
    }
    wire.extend_from_slice(format!("BDAT {} LAST\r\n", after.len()).as_bytes());
    wire.extend_from_slice(after);
    client.send(&wire);
    (0..=chunks.len()).map(|_| client.reply().code).last().unwrap()
}

const BEGINNING: &[u8] = b"Subject: seen\r\n\r\nHello";

/// RFC 5321 4.1.1.4: by DATA and by BDAT, what is unclean goes nowhere, and what is clean is content; nothing of it is a command.
#[test]
fn nothing_but_the_end_of_data_ends_it() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).relay().start();
    let mut clean = 0;
    for end in all_ends() {
        let whole = [BEGINNING, &end, SMUGGLED].concat();
        // In SMUGGLED the end of data is the real one; by BDAT it is content.
        let content = &whole[..whole.len() - b".\r\n".len()];
        let expected = if is_unclean(content) { 554 } else { 250 };
        let mut client = gatepost.relay();
        begin(&mut client);
        client.send(&whole);
        assert_eq!(client.reply().code, expected, "DATA: {}", shown(&end));
        client.expect("NOOP", 250);
        client.expect("MAIL FROM:<alice@mta.example>", 250);
        client.expect("RCPT TO:<bob@mta.example>", 250);
        assert_eq!(send_in_chunks(&mut client, BEGINNING, &end, SMUGGLED), expected, "BDAT: {}", shown(&end));
        client.expect("NOOP", 250);
        if expected == 250 {
            clean += 1;
            let taken = upstream.expect_taken(2 * clean);
            let [data, chunks] = &taken[taken.len() - 2..] else { unreachable!() };
            assert!(
                chunks.message().ends_with(&[BEGINNING, &end, SMUGGLED].concat()),
                "BDAT: {}",
                shown(&end)
            );
            // A dot at the beginning of a line was stuffing.
            let unstuffed = String::from_utf8_lossy(content).replace("\r\n.", "\r\n");
            assert!(data.message().ends_with(unstuffed.as_bytes()), "DATA: {}", shown(&end));
        }
    }
    // `.` in mid-line, at a line's end, at a line's beginning.
    assert_eq!(clean, 3);
    assert!(
        !upstream
            .octets()
            .iter()
            .any(|octets| contains(octets, b"\nRCPT TO:<victim@mta.example>\r\nDATA\r\n."))
    );
    let commands = upstream.transactions().iter().filter(|one| one.mail.contains("smuggled")).count();
    assert_eq!(commands, 0, "smuggled");
    for transaction in upstream.taken() {
        assert!(!is_unclean(&transaction.data), "{}", shown(&transaction.data));
    }
}

/// The same with what is longer than a message that is received first, and with bare LF mended: an LF.LF is content then, stuffed.
#[test]
fn nothing_but_the_end_of_data_ends_it_in_long_and_mended_messages() {
    let upstream = Scripted::start();
    let strict = Setup::new(upstream.address).relay().start();
    let mending = Setup::new(upstream.address).relay().set("session.bare_newline", "normalize").start();
    let long = [BEGINNING, &b" and a long line follows\r\n".repeat(20_000)].concat();
    for end in all_ends() {
        let bare_lf_alone = !end.contains(&0)
            && !is_unclean(
                &String::from_utf8_lossy(&end).replace("\r\n", "\n").replace('\n', "\r\n").into_bytes(),
            );
        let mut client = mending.relay();
        begin(&mut client);
        client.send(&[BEGINNING, &end, SMUGGLED].concat());
        assert_eq!(client.reply().code, if bare_lf_alone { 250 } else { 554 }, "mended: {}", shown(&end));
        client.expect("NOOP", 250);
        client.expect("MAIL FROM:<alice@mta.example>", 250);
        client.expect("RCPT TO:<bob@mta.example>", 250);
        let code = send_in_chunks(&mut client, BEGINNING, &end, SMUGGLED);
        assert_eq!(code, if bare_lf_alone { 250 } else { 554 }, "mended, BDAT: {}", shown(&end));
        client.expect("NOOP", 250);
    }
    for end in FAKE_ENDS {
        let mut client = strict.relay();
        begin(&mut client);
        client.send(&[&long, *end, SMUGGLED].concat());
        client.expect_reply(554);
        client.expect("NOOP", 250);
    }
    for transaction in upstream.transactions() {
        assert!(!transaction.mail.contains("smuggled"), "{}", shown(&transaction.data));
        assert!(!is_unclean(&transaction.data), "{}", shown(&transaction.data));
    }
}

/// The proof of the pudding: behind Gatepost, whatever an MTA takes for the end of data, nobody gets a smuggled mail.
fn nobody_gets_smuggled_mail(mta: &Mta, mailboxes: &Mta, setup: impl Fn() -> Setup) {
    let mut relayed = 0;
    for policy in ["reject", "normalize"] {
        let gatepost = setup().set("session.bare_newline", policy).start();
        for end in all_ends() {
            let smuggled = String::from_utf8_lossy(SMUGGLED).replace("victim", "dave").into_bytes();
            let mut client = gatepost.login("alice");
            begin(&mut client);
            client.send(&[BEGINNING, &end, &smuggled].concat());
            relayed += usize::from(client.reply().code == 250);
            client.expect("MAIL FROM:<alice@mta.example>", 250);
            client.expect("RCPT TO:<bob@mta.example>", 250);
            relayed += usize::from(send_in_chunks(&mut client, BEGINNING, &end, &smuggled) == 250);
        }
    }
    let arrived = mailboxes.expect_mail("bob", relayed);
    assert!(relayed > 6, "what is clean, and what was mended");
    assert_eq!(mailboxes.delivered(), arrived.len(), "{:?}: somebody else got mail", mta.kind);
}

#[test]
#[ignore = "needs tests/install: Postfix, Exim, OpenSMTPD"]
fn nothing_is_smuggled_to_real_mtas() {
    for mta in [Mta::postfix(), Mta::exim(), Mta::opensmtpd()] {
        nobody_gets_smuggled_mail(&mta, &mta, || Setup::new(mta.address));
    }
}

#[test]
#[ignore = "needs tests/install: Dovecot, Postfix"]
fn nothing_is_smuggled_through_dovecot() {
    let postfix = Mta::postfix();
    let dovecot = Mta::dovecot(postfix.address);
    nobody_gets_smuggled_mail(&dovecot, &postfix, || dovecot.login());
}

/// RFC 3030 3: with BODY=BINARYMIME all of it is content, and goes up in chunks, as it is.
#[test]
fn in_binary_content_nothing_is_an_end() {
    let upstream = Scripted::offering(
        vec!["PIPELINING", "SIZE 104857600", "8BITMIME", "CHUNKING", "BINARYMIME"],
        |_| None,
    );
    let gatepost = Setup::new(upstream.address).relay().start();
    let ends: Vec<u8> = all_ends().iter().flat_map(|end| [end.as_slice(), SMUGGLED].concat()).collect();
    let mut client = gatepost.relay();
    client.expect("MAIL FROM:<alice@mta.example> BODY=BINARYMIME", 250);
    client.expect("RCPT TO:<bob@mta.example>", 250);
    client.send(&[format!("BDAT {}\r\n", BEGINNING.len()).as_bytes(), BEGINNING].concat());
    client.expect_reply(250);
    client.send(&[format!("BDAT {} LAST\r\n", ends.len()).as_bytes(), &ends].concat());
    client.expect_reply(250);
    let taken = upstream.expect_taken(1).remove(0);
    assert!(taken.data.ends_with(&[BEGINNING, &ends].concat()));
    assert_eq!(upstream.transactions().len(), 1);
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
    assert!(client.ehlo().offers("CHUNKING"));
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
        &b"NOOP\r\n".repeat(2_000), // more than one read takes
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
