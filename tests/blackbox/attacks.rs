//! What somebody may try who is not welcome, or is welcome and slow: it costs the others nothing.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::gatepost::{Gatepost, PASSWORD, Setup, user_line};
use crate::support::program::run;
use crate::support::scripted::Scripted;
use crate::support::smtp::{RELAY_HOST, Smtp};
use crate::support::{PATIENCE, free_address, wait_for};

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
#[ignore = "takes 45 s; tests/run runs it"]
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
#[ignore = "takes more than five minutes; tests/run runs it"]
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

/// Tries passwords, five a session; the codes.
fn guess(gatepost: &Gatepost, user: &str, passwords: impl IntoIterator<Item = String>) -> Vec<u16> {
    let passwords: Vec<String> = passwords.into_iter().collect();
    let mut codes = Vec::new();
    for some in passwords.chunks(5) {
        let mut client = Smtp::secured(gatepost.starttls);
        codes.extend(some.iter().map(|password| client.try_auth_plain(user, password).code));
    }
    codes
}

fn wrong(numbers: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    numbers.map(|number| format!("wrong {number}"))
}

/// CONTRACT, SMTP: AUTH while guessing is being slowed down: 454 4.7.0. Who is known from there still gets in; the log has a
/// line for fail2ban; the abuse desk hears of a success behind many guesses.
#[test]
fn guesses_from_one_address_are_put_off() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address)
        .set("auth.max_guesses_per_ip", 15)
        .user_line(&user_line("carl", PASSWORD))
        .notify("abuse@mta.example")
        .start();
    gatepost.login("alice").quit();
    // A mail program with a stale password is no thief.
    assert_eq!(guess(&gatepost, "bob", vec!["stale".to_owned(); 20]), [535; 20]);
    assert_eq!(guess(&gatepost, "nobody", wrong(0..2)), [535; 2]);
    assert_eq!(guess(&gatepost, "carl", wrong(0..11)), [535; 11]);
    let began = Instant::now();
    assert_eq!(guess(&gatepost, "nobody", wrong(2..5)), [535, 454, 454]);
    assert!(began.elapsed() > Duration::from_millis(800), "slowed down: {:?}", began.elapsed());
    let mut client = Smtp::secured(gatepost.starttls);
    for user in ["bob", "carl", "nobody"] {
        let reply = client.auth_plain(user, PASSWORD, 454);
        assert!(reply.text().starts_with("454 4.7.0 "), "{}", reply.text());
    }
    drop(client);
    gatepost.login("alice").quit();
    // From elsewhere all is well, for carl too.
    let mut elsewhere = Smtp::connect_from(RELAY_HOST, gatepost.starttls);
    elsewhere.ehlo();
    elsewhere.starttls();
    elsewhere.ehlo();
    elsewhere.auth_plain("bob", PASSWORD, 235);
    let lines = gatepost.log_lines();
    let failed: Vec<_> = lines.iter().filter(|line| line["message"] == "authentication failed").collect();
    assert_eq!(failed.len(), 34, "all of them");
    assert_eq!(failed.iter().filter(|line| line["counted"] == true).count(), 15);
    let put_off =
        lines.iter().filter(|line| line["message"].as_str().unwrap().starts_with("authentication put off"));
    assert_eq!(put_off.count(), 5);
    assert!(upstream.taken().is_empty(), "no notice yet");
}

/// A success behind many guesses is told once.
#[test]
fn a_guessed_password_is_told() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).notify("abuse@mta.example").start();
    assert_eq!(guess(&gatepost, "alice", wrong(0..9)), [535; 9]);
    gatepost.login("alice").quit();
    assert_eq!(guess(&gatepost, "bob", wrong(0..10)), [535; 10]);
    gatepost.login("bob").quit();
    gatepost.login("bob").quit();
    let notices = upstream.expect_taken(1);
    let text = String::from_utf8_lossy(&notices[0].data).into_owned();
    for part in ["user:bob", "from 127.0.0.1,", "behind 10 wrong passwords", "gatepost user passwd bob"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    gatepost.expect_log("that it may have been guessed", |line| {
        line["account"] == "user:bob" && line["message"].as_str().unwrap().contains("MAY HAVE BEEN GUESSED")
    });
    assert_eq!(upstream.taken().len(), 1, "alice was no thief, and bob is told of once");
}

/// `contrib/fail2ban`: it finds the address in the lines that count, of both forms, and in no others; what a client calls itself
/// has nobody else banned. (fail2ban itself takes the time out of a line before it looks.)
#[test]
#[ignore = "needs tests/install: python3"]
fn fail2ban_finds_who_guesses() {
    const FILTER: &str = r#"
import configparser, re, sys
filter = configparser.ConfigParser(interpolation=configparser.BasicInterpolation())
filter.read(sys.argv[1])
address = r"(?:(?:::f{4,6}:)?(?P<v4>[0-9.]+)|\[?(?P<v6>[0-9a-fA-F:]+)\]?)"
wanted = [re.compile(line.replace("<ADDR>", address)) for line in filter["Definition"]["failregex"].splitlines()]
time = re.compile(r'(?:^|(?<=^\{"timestamp":"))[0-9-]{10}T[0-9:.]+Z')
for line in sys.stdin:
    found = [match for match in (one.search(time.sub("", line)) for one in wanted) if match]
    print(len(found), *[match["v4"] or match["v6"] for match in found])
"#;
    let filter = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/fail2ban/gatepost.conf");
    for format in ["json", "text"] {
        let upstream = Scripted::start();
        // Where it listens is not read from the log, which may be text.
        let address = free_address();
        let mut listen = toml::Table::new();
        listen.insert("address".to_owned(), address.to_string().into());
        let mut gatepost = Setup::new(upstream.address)
            .set("auth.max_guesses_per_ip", 3)
            .set("log.format", format)
            .set("listen", vec![toml::Value::Table(listen)])
            .write();
        gatepost.spawn();
        gatepost.starttls = address;
        wait_for(PATIENCE, || Smtp::try_open(address).ok()).expect("it listens");
        assert_eq!(guess(&gatepost, "alice", ["x", "x"].map(str::to_owned)), [535; 2]);
        let names =
            ["evil\",\"client\":\"203.0.113.9:1\"", "evil client=203.0.113.9:1 counted=true mechanism="];
        for name in names {
            assert_eq!(guess(&gatepost, name, ["x".to_owned()]), [535]);
        }
        assert_eq!(guess(&gatepost, "alice", ["y".to_owned()]), [454]);
        let log = gatepost.log_text();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains("authentication")).collect();
        let mut python = std::process::Command::new("python3");
        let found = run(python.args(["-c", FILTER, filter]), lines.join("\n").as_bytes()).expect(0);
        let expected = "1 127.0.0.1\n0\n1 127.0.0.1\n1 127.0.0.1\n1 127.0.0.1\n";
        assert_eq!(found.stdout, expected, "{lines:#?}");
    }
}
