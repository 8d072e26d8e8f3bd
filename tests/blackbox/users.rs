//! CONTRACT, Users file: the `user` commands, and the file read again while `serve` runs.

use crate::support::gatepost::{Gatepost, PASSWORD, Setup, user_line};
use crate::support::program::{Finished, run};
use crate::support::scripted::Scripted;
use crate::support::smtp::{Smtp, message};
use crate::support::{PATIENCE, wait_for};

fn user(gatepost: &Gatepost, arguments: &[&str], password: &str) -> Finished {
    run(&mut gatepost.command(&[&["user"], arguments].concat()), password.as_bytes())
}

/// `user add` / `passwd` / `remove` / `list`; they keep comments, blank lines, order and further fields.
#[test]
fn user_commands() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).write();
    let before = format!("# staff\n\n{}:1000:1000::/home\n# end\n", user_line("alice", PASSWORD).trim_end());
    gatepost.write_users(&before);
    user(&gatepost, &["add", "carol", "--password-stdin"], "secret\n").expect(0);
    assert_eq!(
        user(&gatepost, &["add", "carol", "--password-stdin"], "secret\n").expect(1).stderr.lines().count(),
        1
    );
    let text = std::fs::read_to_string(gatepost.folder().join("users")).unwrap();
    assert!(text.starts_with(&before), "{text}");
    assert!(text.contains("\ncarol:{SCRAM-SHA-256}100000,"), "{text}");
    let listed = gatepost.json_lines(&["user", "list"]);
    assert_eq!(listed.len(), 2);
    assert_eq!((&listed[1]["name"], &listed[1]["scheme"]), (&"carol".into(), &"SCRAM-SHA-256".into()));
    for mechanism in ["PLAIN", "LOGIN", "SCRAM-SHA-256"] {
        assert!(listed[1]["mechanisms"].as_array().unwrap().contains(&mechanism.into()), "{}", listed[1]);
    }
    user(&gatepost, &["passwd", "alice", "--password-stdin"], "changed\n").expect(0);
    let text = std::fs::read_to_string(gatepost.folder().join("users")).unwrap();
    let line = text.lines().find(|line| line.starts_with("alice:")).unwrap();
    assert!(line.ends_with(":1000:1000::/home") && text.starts_with("# staff\n\nalice:"), "{text}");
    user(&gatepost, &["remove", "carol"], "").expect(0);
    user(&gatepost, &["passwd", "carol", "--password-stdin"], "x\n").expect(1);
    let text = std::fs::read_to_string(gatepost.folder().join("users")).unwrap();
    assert!(!text.contains("carol") && text.contains("# end"), "{text}");
    for bad in ["", "a:b", "#x", "a b", "a\nb"] {
        let finished = user(&gatepost, &["add", bad, "--password-stdin"], "x\n");
        assert_ne!(finished.status.code(), Some(0), "{bad:?} is no name");
    }
}

/// The file is read again once it has rested for a second; a changed or removed line ends that name's sessions: 421 4.7.0 at the next
/// command.
#[test]
fn a_changed_file_is_read_again() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).start();
    let mut alice = gatepost.login("alice");
    let mut bob = gatepost.login("bob");
    user(&gatepost, &["passwd", "alice", "--password-stdin"], "changed\n").expect(0);
    user(&gatepost, &["add", "carol", "--password-stdin"], "new\n").expect(0);
    let arrived = wait_for(PATIENCE, || {
        let mut client = Smtp::secured(gatepost.starttls);
        Some(()).filter(|()| client.try_auth_plain("carol", "new").code == 235)
    });
    assert!(arrived.is_some(), "carol cannot log in");
    drop(alice.try_send(b"NOOP\r\n"));
    assert!(alice.reply().text().starts_with("421 4.7.0"));
    bob.expect("NOOP", 250);
    Smtp::secured(gatepost.starttls).auth_plain("alice", PASSWORD, 535);
    Smtp::secured(gatepost.starttls).auth_plain("alice", "changed", 235);
    user(&gatepost, &["remove", "bob"], "").expect(0);
    let ended = wait_for(PATIENCE, || {
        drop(bob.try_send(b"NOOP\r\n"));
        Some(bob.reply()).filter(|reply| reply.code != 250)
    });
    assert!(ended.expect("bob's session ends").text().starts_with("421 4.7.0"));
}

/// A message under way when its user is removed is parked.
#[test]
fn a_message_under_way_is_parked() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).start();
    let mut alice = gatepost.login("alice");
    alice.expect("MAIL FROM:<alice@mta.example>", 250);
    alice.expect("RCPT TO:<bob@mta.example>", 250);
    alice.expect("DATA", 354);
    alice.send(b"Subject: under way\r\n\r\n");
    user(&gatepost, &["remove", "alice"], "").expect(0);
    let removed = wait_for(PATIENCE, || {
        let mut client = Smtp::secured(gatepost.starttls);
        Some(()).filter(|()| client.try_auth_plain("alice", PASSWORD).code == 535)
    });
    assert!(removed.is_some(), "alice can still log in");
    alice.send(b"rest\r\n.\r\n");
    alice.expect_reply(250);
    assert_eq!(gatepost.parked().len(), 1);
    assert_eq!(upstream.taken(), []);
    drop(alice.try_send(b"NOOP\r\n"));
    assert!(alice.reply().text().starts_with("421 4.7.0"));
}

/// A broken or empty new one is refused as a whole, with the line named, and the old one stays in force.
#[test]
fn a_broken_file_is_refused() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).start();
    let mut alice = gatepost.login("alice");
    gatepost.write_users(&format!("{}alice\n", user_line("carol", PASSWORD)));
    gatepost.expect_log("that line 2 is broken", |line| {
        let text = line.to_string();
        text.contains("users")
            && (text.contains("line 2") || text.contains("users:2") || text.contains("\"line\":2"))
    });
    alice.expect("NOOP", 250);
    gatepost.login("alice").submit("alice@mta.example", &["bob@mta.example"], &message("still"));
    Smtp::secured(gatepost.starttls).auth_plain("carol", PASSWORD, 535);
    let lines = gatepost.log_lines().len();
    gatepost.write_users("");
    gatepost.expect_log("that the file is empty", |line| {
        gatepost.log_lines()[lines..].contains(line) && line.to_string().contains("users")
    });
    gatepost.login("alice").quit();
}

/// Two lines that differ only in case are an error; a missing file stops the start unless `[relay] hosts` is set.
#[test]
fn impossible_users_files_stop_the_start() {
    let upstream = Scripted::start();
    let twice = user_line("Alice", PASSWORD);
    let gatepost = Setup::new(upstream.address).user_line(&twice).write();
    let finished = gatepost.run(&["serve"]).expect(1);
    assert!(
        finished.stderr.contains("users") && finished.stderr.to_lowercase().contains("alice"),
        "{}",
        finished.stderr
    );

    let gatepost = Setup::new(upstream.address).write();
    std::fs::remove_file(gatepost.folder().join("users")).unwrap();
    gatepost.run(&["serve"]).expect(1);

    let mut gatepost = Setup::new(upstream.address).relay().write();
    std::fs::remove_file(gatepost.folder().join("users")).unwrap();
    gatepost.start();
    gatepost.relay().submit("alice@mta.example", &["bob@mta.example"], &message("relay alone"));
    assert!(!Smtp::secured(gatepost.starttls).ehlo().offers("AUTH"), "there is nobody who could");
}

/// The log names those who are shut out; a reason that several have stands there once.
#[test]
fn who_is_shut_out_is_logged_with_one_reason_for_all() {
    let gatepost = Setup::new(Scripted::start().address)
        .user_line("odd:{SSHA}x7HdCCS88lBckW/eYB9T3hvOVnpFfClD\neven:{PLAIN}secret\nlocked:\n")
        .start();
    let line = gatepost.expect_log("who is shut out", |line| line["users"] == 3);
    let named = line["named"].as_str().unwrap();
    assert!(named.starts_with("odd, even: its scheme is not among "), "{named}");
    assert!(
        named.ends_with("; locked: the line has no hash") && named.matches("ARGON2ID").count() == 1,
        "{named}"
    );
}

/// The schemes that the contract lists, each made by another program than ours.
#[test]
fn hashes_of_other_programs() {
    let upstream = Scripted::start();
    // Bare, and in Dovecot's notations.
    let mut setup = Setup::new(upstream.address);
    for (name, option) in [("sha512", "-6"), ("sha256", "-5")] {
        let mut openssl = std::process::Command::new("openssl");
        let made =
            run(openssl.args(["passwd", option, "-salt", "saltsalt", "password"]), b"").expect(0).stdout;
        let scheme = name.to_uppercase();
        let made = made.trim();
        setup = setup.user_line(&format!(
            "{name}:{made}\n{name}d:{{{scheme}-CRYPT}}{made}\n{name}c:{{CRYPT}}{made}\n"
        ));
    }
    let gatepost = setup.start();
    for name in ["sha512", "sha512d", "sha512c", "sha256", "sha256d", "sha256c"] {
        Smtp::secured(gatepost.starttls).auth_plain(name, "password", 235);
        Smtp::secured(gatepost.starttls).auth_plain(name, "Password", 535);
    }
}
