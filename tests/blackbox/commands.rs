//! CONTRACT, Commands: status, block, unblock, kick, audit lines, exit status.

use serde_json::Value;

use crate::support::gatepost::{Gatepost, PASSWORD, Setup};
use crate::support::scripted::Scripted;
use crate::support::smtp::message;
use crate::support::{PATIENCE, wait_for};

/// Exit status: 0 done; 1 it failed, one line on standard error; 2 usage. What is so already is done.
#[test]
fn exit_status() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).start();
    let rows: &[(&[&str], i32)] = &[
        (&["status"], 0),
        (&["block", "alice"], 0),
        (&["block", "alice"], 0),
        (&["unblock", "alice"], 0),
        (&["unblock", "alice"], 0),
        (&["kick", "alice"], 0),
        (&["quarantine", "list"], 0),
        (&["quarantine", "show", "no-such-id"], 1),
        (&["quarantine", "show", "01K0000000000000000000ZZZZ"], 1),
        (&["quarantine", "delete", "01K0000000000000000000ZZZZ"], 1),
        (&["quarantine", "release", "01K0000000000000000000ZZZZ"], 1),
        (&["user", "remove", "no-such-user"], 1),
        (&["no-such-command"], 2),
        (&["block"], 2),
        (&["block", "no such account"], 2),
        (&["quarantine", "release"], 2),
        (&["status", "--no-such-flag"], 2),
    ];
    for (arguments, expected) in rows {
        let finished = gatepost.run(arguments);
        assert_eq!(
            finished.status.code(),
            Some(*expected),
            "{arguments:?}: {}{}",
            finished.stdout,
            finished.stderr
        );
        if *expected == 1 {
            assert_eq!(finished.stderr.trim_end().lines().count(), 1, "{arguments:?}: {}", finished.stderr);
        }
    }
}

/// `status --json`: its keys; first, last; the table for people.
#[test]
fn status_shows_who_counts_and_who_is_blocked() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).start();
    assert_eq!(gatepost.run(&["status", "--json"]).expect(0).stdout, "");
    let mut client = gatepost.login("alice");
    client.expect("MAIL FROM:<alice@mta.example>", 250);
    client.harvest(3, "mta.example");
    gatepost.run(&["block", "bob", "--reason", "away"]).expect(0);
    // What is known better later is what is shown.
    let again = gatepost.run(&["block", "bob", "--reason", "on holiday"]).expect(0).stdout;
    assert!(again.contains("was blocked already"), "{again}");
    let alice = gatepost.status("user:alice").unwrap();
    let keys = [
        "account",
        "state",
        "invalid_recipients",
        "limit",
        "period_seconds",
        "first",
        "last",
        "blocked_at",
        "blocked_by",
        "reason",
        "parked",
        "sessions",
        "probation_until",
        "awaited",
        "next_due",
    ];
    for key in keys {
        assert!(alice.get(key).is_some(), "no key {key} in {alice}");
    }
    assert_eq!((&alice["state"], &alice["invalid_recipients"]), (&"counting".into(), &3.into()));
    assert!(alice["first"].as_str().unwrap().ends_with('Z') && alice["blocked_at"].is_null(), "{alice}");
    assert!(alice["first"].as_str() <= alice["last"].as_str());
    let bob = gatepost.status("user:bob").unwrap();
    assert_eq!(
        (&bob["state"], &bob["blocked_by"], &bob["reason"]),
        (&"blocked".into(), &"operator".into(), &"on holiday".into())
    );
    let table = gatepost.run(&["status"]).expect(0).stdout;
    assert!(table.contains("alice") && table.contains("bob") && table.contains("100"), "{table}");
}

/// `kick ACCOUNT`: 421 4.7.0 at their next command; `unblock` says how many sessions of the account are open.
#[test]
fn kick_ends_the_sessions_of_that_account_alone() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).start();
    let mut alice = [gatepost.login("alice"), gatepost.login("alice")];
    let mut bob = gatepost.login("bob");
    alice[1].expect("MAIL FROM:<alice@mta.example>", 250);
    let said = gatepost.run(&["unblock", "alice"]).expect(0).stdout;
    assert!(said.contains("It has 2 open sessions; `gatepost kick user:alice` ends them."), "{said}");
    gatepost.run(&["kick", "user:alice"]).expect(0);
    for client in &mut alice {
        drop(client.try_send(b"NOOP\r\n"));
        assert!(client.reply().text().starts_with("421 4.7.0"));
        client.expect_close();
    }
    bob.expect("NOOP", 250);
    let said = gatepost.run(&["block", "bob"]).expect(0).stdout;
    assert!(said.contains("It has 1 open session; `gatepost kick user:bob` ends it."), "{said}");
    gatepost.run(&["unblock", "bob", "--kick"]).expect(0);
    // First the sessions, so that none sends anything in between.
    let audited = |line: &Value| {
        (line["object"] == "user:bob").then(|| line["command"].as_str().unwrap_or_default().to_owned())
    };
    let order: Vec<String> = gatepost.log_lines().iter().filter_map(audited).collect();
    assert_eq!(order, ["block", "kick", "unblock"]);
    drop(bob.try_send(b"NOOP\r\n"));
    assert!(bob.reply().text().starts_with("421 4.7.0"));
}

/// Each command that looks into or changes something leaves an audit line in the log, with the Unix user; made while `serve` is down it
/// waits, and the next start logs it. So at each `[log] level`.
#[test]
fn commands_leave_audit_lines() {
    let upstream = Scripted::start();
    let mut gatepost = Setup::new(upstream.address).set("log.level", "info").start();
    gatepost.run(&["block", "alice", "--reason", "audit-reason"]).expect(0);
    gatepost.login("alice").submit("alice@mta.example", &["bob@mta.example"], &message("audited"));
    let id = gatepost.parked()[0]["id"].as_str().unwrap().to_owned();
    gatepost.run(&["quarantine", "show", &id, "--raw"]).expect(0);
    gatepost.run(&["quarantine", "delete", &id]).expect(0);
    gatepost.run(&["unblock", "alice"]).expect(0);
    let uid = rustix::process::getuid().as_raw().to_string();
    let who =
        std::env::var("USER").unwrap_or_else(|_| if uid == "0" { "root".to_owned() } else { uid.clone() });
    let by_us = |text: &str| text.contains(&who) || text.contains(&uid);
    let folder = gatepost.folder().join("evidence");
    gatepost.run(&["quarantine", "export", "nosuch", "--output", folder.to_str().unwrap()]).expect(1);
    for words in [
        &["block", "user:alice"][..],
        &["show", &id],
        &["delete", &id],
        &["unblock", "user:alice"],
        &["export", "nosuch"],
    ] {
        gatepost.expect_log(&format!("{words:?}"), |line| {
            let text = line.to_string();
            words.iter().all(|word| text.contains(word)) && by_us(&text)
        });
    }
    assert!(gatepost.terminate().success());
    gatepost.run(&["user", "remove", "bob"]).expect(0);
    gatepost.replace_in_config("level = \"info\"", "level = \"error\"");
    gatepost.spawn();
    gatepost.expect_log("that bob was removed while serve was down", |line| {
        let text = line.to_string();
        text.contains("user remove") && text.contains("bob") && by_us(&text)
    });
}

/// CONTRACT, Commands: one line on standard error says why and what to do, whatever stands in it.
#[test]
fn one_line_says_why() {
    let gatepost = Setup::new(Scripted::start().address).write();
    let expect = |arguments: &[&str], part: &str| {
        let stderr = gatepost.run(arguments).expect(1).stderr;
        assert!(stderr.lines().count() == 1 && stderr.contains(part), "{stderr}");
    };
    expect(&["user", "remove", "a\nb"], "`gatepost user list` shows all");
    std::fs::remove_dir_all(gatepost.data_dir()).unwrap();
    std::fs::write(gatepost.data_dir(), "").unwrap();
    expect(&["status"], "data_dir should be a folder");
}

/// The commands work while `serve` does not run, where that makes sense.
#[test]
fn commands_without_serve() {
    let upstream = Scripted::start();
    let mut gatepost = Setup::new(upstream.address).start();
    gatepost.run(&["block", "alice"]).expect(0);
    gatepost.login("alice").submit("alice@mta.example", &["bob@mta.example"], &message("parked"));
    assert!(gatepost.terminate().success());
    assert_eq!(gatepost.parked().len(), 1);
    assert_eq!(gatepost.status("user:alice").unwrap()["state"], "blocked");
    gatepost.start();
    assert_eq!(gatepost.status("user:alice").unwrap()["state"], "blocked");
    gatepost.run(&["unblock", "alice", "--release"]).expect(0);
    upstream.expect_taken(1);
}

/// Who asks for what is not there is told so, and nobody is asked for the password of a name that cannot be.
#[test]
fn nothing_there_is_said() {
    let gatepost = Setup::new(Scripted::start().address).start();
    for (arguments, part) in [
        (&["quarantine", "release", "--account", "alice"][..], "user:alice has no message in the quarantine"),
        (&["quarantine", "delete", "--account", "alice"], "user:alice has no message in the quarantine"),
        (&["quarantine", "release", "--all"], "there is no message in the quarantine"),
    ] {
        let said = gatepost.run(arguments).expect(0);
        assert!(said.stdout.is_empty() && said.stderr.contains(part), "{said:?}");
        let json = gatepost.run(&[arguments, &["--json"]].concat()).expect(0);
        assert!(json.stdout.is_empty() && json.stderr.is_empty(), "{json:?}");
    }
    let empty = gatepost.run(&["quarantine", "show", ""]).expect(1).stderr;
    assert!(empty.contains("no message with an empty id is in the quarantine"), "{empty}");
    let name = gatepost.run(&["user", "add", "a b"]).expect(1).stderr;
    assert!(name.contains("blanks") && !name.contains("terminal"), "{name}");
}

/// What is parked stays in sight, although its account is neither counting nor blocked any more.
#[test]
fn status_tells_of_mail_of_accounts_that_it_does_not_list() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).start();
    gatepost.run(&["block", "alice"]).expect(0);
    gatepost.login("alice").submit("alice@mta.example", &["bob@mta.example"], &message("parked"));
    let status = || gatepost.run(&["status"]).expect(0).stdout;
    assert!(!status().contains("quarantine"), "{}", status());
    gatepost.run(&["unblock", "alice"]).expect(0);
    assert!(status().contains("1 message of another account is in the quarantine"), "{}", status());
    let json = gatepost.run(&["status", "--json"]).expect(0).stdout;
    assert_eq!(json, "", "an object is an account");
    let metrics = gatepost.run(&["status", "--metrics"]).expect(0).stdout;
    let size = gatepost.parked()[0]["size"].as_u64().unwrap();
    for line in [
        "gatepost_parked_messages 1".to_owned(),
        "gatepost_quarantine_messages{state=\"parked\"} 1".to_owned(),
        "gatepost_quarantine_messages{state=\"failed\"} 0".to_owned(),
        format!("gatepost_quarantine_octets{{state=\"parked\"}} {size}"),
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
}

/// A second `serve` on the same data is refused.
#[test]
fn one_serve_at_a_time() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).start();
    let second = gatepost.run(&["serve"]).expect(1);
    assert!(!second.stderr.is_empty());
    gatepost.login("alice").quit();
}

/// CONTRACT, `data_dir`: mail of others is nobody's business: nothing in it is readable by the group or the world.
#[test]
fn the_data_is_private() {
    use std::os::unix::fs::MetadataExt as _;
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).start();
    gatepost.run(&["block", "alice"]).expect(0);
    gatepost.login("alice").submit("alice@mta.example", &["bob@mta.example"], &message("private"));
    let mut folders = vec![gatepost.data_dir()];
    let mut looked_at = 0;
    while let Some(folder) = folders.pop() {
        // A closed folder is enough for what is in it.
        let closed = std::fs::metadata(&folder).unwrap().mode() & 0o077 == 0;
        if closed {
            looked_at += 1;
            continue;
        }
        for entry in std::fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            looked_at += 1;
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                assert_eq!(metadata.mode() & 0o077, 0, "{} is open to others", entry.path().display());
            }
        }
    }
    assert!(looked_at > 0);
    let socket = std::fs::metadata(gatepost.data_dir().join("control.sock")).unwrap();
    assert_eq!(socket.mode() & 0o777, 0o600);
    assert!(!gatepost.log_text().contains(PASSWORD));
}

/// Issue 3, The notice: it goes out by a durable outbox: one that was under way when Gatepost was killed is sent by the next start.
#[test]
fn the_notice_survives_a_kill() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let hangs = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&hangs);
    let upstream = Scripted::with(move |asked| {
        let notice = asked.verb == "RCPT" && asked.path() == "abuse@mta.example";
        (notice && switch.load(Ordering::SeqCst)).then_some(crate::support::scripted::Answer::Silence)
    });
    let mut gatepost = Setup::new(upstream.address).limit(5).notify("abuse@mta.example").start();
    let mut client = gatepost.login("alice");
    client.expect("MAIL FROM:<alice@mta.example>", 250);
    client.harvest(5, "mta.example");
    let asked = || upstream.lines("RCPT TO:<abuse@").len();
    assert!(wait_for(PATIENCE, || Some(()).filter(|()| asked() > 0)).is_some(), "no notice was tried");
    gatepost.kill();
    hangs.store(false, Ordering::SeqCst);
    gatepost.start();
    let taken = upstream.expect_taken(1);
    assert_eq!(taken.len(), 1);
    let text = String::from_utf8_lossy(&taken[0].data).into_owned();
    for words in ["user:alice", "127.0.0.1", "nobody-"] {
        assert!(text.contains(words), "no {words} in the notice:\n{text}");
    }
}

/// "`check`, `serve` and `status` say so loudly": over restarts, and on standard error alone.
#[test]
fn status_says_that_the_upstream_is_blind() {
    const WORD: &str = "BLIND";
    let upstream = Scripted::start();
    let mut gatepost = Setup::new(upstream.address).start();
    let said = |gatepost: &Gatepost| {
        let status = gatepost.run(&["status", "--json"]).expect(0);
        assert!(!status.stdout.contains(WORD), "{}", status.stdout);
        status.stderr.matches(WORD).count()
    };
    let mut client = gatepost.login("alice");
    client.expect("MAIL FROM:<alice@mta.example>", 250);
    for number in 0..999 {
        client.send(format!("RCPT TO:<anybody-{number}@mta.example>\r\n").as_bytes());
    }
    (0..999).for_each(|_| drop(client.expect_reply(250)));
    assert_eq!(said(&gatepost), 0, "of 999");
    client.expect("RCPT TO:<anybody@mta.example>", 250);
    assert_eq!(said(&gatepost), 1, "of 1,000");
    gatepost.expect_log("that it is blind", |line| line.to_string().contains(WORD));
    client.quit();
    gatepost.terminate();
    assert_eq!(said(&gatepost), 1, "while `serve` is down");
    gatepost.start();
    assert_eq!(said(&gatepost), 1, "after a restart");
}

/// `action = "refuse"`: what is said of a block is what happens.
#[test]
fn a_block_says_whether_mail_is_parked_or_refused() {
    let upstream = Scripted::start();
    for (action, word) in [("park", "parked"), ("refuse", "refused")] {
        let gatepost = Setup::new(upstream.address).set("limit.action", action).start();
        let said = gatepost.run(&["block", "alice"]).expect(0).stdout;
        assert!(said.contains(word), "{said}");
    }
}
