//! What somebody may try who is not welcome, or is welcome and slow: it costs the others nothing.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::gatepost::{Gatepost, Setup};
use crate::support::scripted::Scripted;
use crate::support::smtp::Smtp;
use crate::support::{PATIENCE, wait_for};

/// A session in the midst of a message: behind its header, and so many octets of its body.
fn in_mid_message(gatepost: &Gatepost, user: &str, body: usize) -> Smtp {
    let mut client = gatepost.login(user);
    client.expect(&format!("MAIL FROM:<{user}@mta.example>"), 250);
    client.expect("RCPT TO:<carl@mta.example>", 250);
    client.expect("DATA", 354);
    client.send(b"Subject: slow\r\n\r\n");
    client.send("A line of this message.\r\n".repeat(body / 25).as_bytes());
    client
}

fn data_begun(upstream: &Scripted) -> bool {
    upstream.octets().iter().any(|octets| octets.windows(6).any(|window| window == b"DATA\r\n"))
}

/// Issue 6, Limits: messages up to 256 KiB are received whole before the upstream's DATA is begun, as long as there is memory.
#[test]
fn the_upstreams_data_waits_for_the_message_while_there_is_memory() {
    // (max_buffered, octets of body, begun before the end)
    for (max_buffered, body, early) in [
        ("256MiB", 200 * 1024, false),
        ("256MiB", 300 * 1024, true),
        ("0KiB", 10 * 1024, false),
        ("0KiB", 40 * 1024, true),
        ("64KiB", 40 * 1024, false),
        ("64KiB", 200 * 1024, true),
    ] {
        let upstream = Scripted::start();
        let gatepost = Setup::new(upstream.address).set("session.max_buffered", max_buffered).start();
        let mut client = in_mid_message(&gatepost, "alice", body);
        if early {
            assert!(
                wait_for(PATIENCE, || data_begun(&upstream).then_some(())).is_some(),
                "{max_buffered}, {body}: not begun"
            );
        } else {
            // Another session's whole message goes through meanwhile, and is the only one.
            let mut other = gatepost.login("bob");
            other.submit("bob@mta.example", &["carl@mta.example"], b"Subject: quick\r\n\r\nHello.\r\n");
            let begun = upstream.transactions().iter().filter(|one| !one.data.is_empty()).count();
            assert_eq!(begun, 1, "{max_buffered}, {body}: begun");
        }
        client.send(b"The end.\r\n.\r\n");
        client.expect_reply(250);
        let taken = upstream.expect_taken(if early { 1 } else { 2 });
        let slow = taken.iter().find(|one| one.message().ends_with(b"The end.\r\n")).expect("it came");
        assert!(slow.data.len() > body / 25 * 25, "{} octets of {body}", slow.data.len());
    }
}

/// A header that needs more memory than there is puts its message off; that of an ordinary message needs none of the
/// common memory.
#[test]
fn a_long_header_waits_for_better_times() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).set("session.max_buffered", "0KiB").start();
    let mut client = gatepost.login("alice");
    for (fields, code) in [(100, 250), (1_000, 452), (100, 250)] {
        client.expect("MAIL FROM:<alice@mta.example>", 250);
        client.expect("RCPT TO:<carl@mta.example>", 250);
        let header = "X-Filler: 0123456789012345678901234567\r\n".repeat(fields);
        let reply = client.data(format!("{header}\r\nHello.\r\n").as_bytes(), code);
        if code == 452 {
            assert!(reply.text().starts_with("452 4.3.2 "), "{}", reply.text());
        }
    }
    assert_eq!(upstream.expect_taken(2).len(), 2);
}

/// "A slow client never holds an upstream connection": neither in its mail data nor by saying NOOP.
#[test]
fn a_slow_client_lets_go_of_the_upstream() {
    thread::scope(|scope| {
        scope.spawn(|| lets_go(true));
        scope.spawn(|| lets_go(false));
    });
}

fn lets_go(in_mail_data: bool) {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).set("upstream.max_connections", 1).start();
    let mut slow = in_mid_message(&gatepost, "alice", 0);
    if !in_mail_data {
        slow.send(b".\r\n");
        slow.expect_reply(250);
        slow.expect("MAIL FROM:<alice@mta.example>", 250);
        slow.expect("RCPT TO:<carl@mta.example>", 250);
    }
    let mut quick = gatepost.login("bob");
    let began = Instant::now();
    // CONTRACT: the connection is in use for now.
    let reply = quick.ask("MAIL FROM:<bob@mta.example>");
    assert!(reply.text().starts_with("451 4.3.2 "), "{}", reply.text());
    while began.elapsed() < Duration::from_secs(31) {
        if in_mail_data {
            slow.send(b"x");
        } else {
            slow.expect("NOOP", 250);
        }
        thread::sleep(Duration::from_secs(1));
    }
    quick.submit("bob@mta.example", &["carl@mta.example"], b"Subject: quick\r\n\r\nHello.\r\n");
    quick.quit();
    // The slow one comes through all the same.
    if in_mail_data {
        slow.send(b"\r\n.\r\n");
        slow.expect_reply(250);
    } else {
        slow.data(b"Subject: slow\r\n\r\nHello.\r\n", 250);
    }
    slow.quit();
    let taken = upstream.expect_taken(if in_mail_data { 2 } else { 3 });
    assert!(taken.iter().all(|one| one.recipients.len() == 1), "{taken:?}");
}

/// `min_rate`: mail data slower than that over five minutes ends with 421 4.4.2.
#[test]
#[ignore = "takes more than five minutes"]
fn mail_data_that_drips_ends() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).start();
    let mut slow = in_mid_message(&gatepost, "alice", 0);
    slow.set_patience(Duration::from_secs(20));
    let began = Instant::now();
    let reply = loop {
        // A CRLF in each: 45 octets a second.
        slow.send("x".repeat(88).as_bytes());
        slow.send(b"\r\n");
        thread::sleep(Duration::from_secs(2));
        if began.elapsed() > Duration::from_secs(302) {
            break slow.reply();
        }
    };
    assert!(reply.text().starts_with("421 4.4.2 "), "{}", reply.text());
    slow.expect_close();
    gatepost.expect_log("why", |line| line["why"].as_str().is_some_and(|why| why.contains("min_rate")));
    assert!(upstream.taken().is_empty());
}
