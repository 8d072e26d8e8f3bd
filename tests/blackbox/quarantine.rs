//! CONTRACT, Commands and Release: the quarantine and the way out of it.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::obstacle::{self, Trap, trapped};
use crate::support::gatepost::{Gatepost, Setup};
use crate::support::scripted::{Answer, EXTENSIONS, Scripted, Transaction};
use crate::support::smtp::message;
use crate::support::{LONGER_THAN_TWO_TRIES, PATIENCE, contains, throughout, wait_for};

fn blocked(upstream: &Scripted) -> Gatepost {
    let gatepost = Setup::new(upstream.address).start();
    gatepost.run(&["block", "alice"]).expect(0);
    gatepost
}

fn park(gatepost: &Gatepost, subject: &str, recipients: &[&str]) -> String {
    gatepost.login("alice").submit("alice@mta.example", recipients, &message(subject));
    let parked = gatepost.parked();
    let object = parked.iter().find(|object| object["subject"] == subject).expect("it is listed");
    object["id"].as_str().unwrap().to_owned()
}

fn gone(gatepost: &Gatepost, id: &str) -> bool {
    gatepost.parked().iter().all(|object| object["id"] != id)
}

/// `quarantine list [--account] [--sender] [--subject] [--since] [--limit]`
#[test]
fn list_finds_and_orders() {
    let upstream = Scripted::start();
    let gatepost = blocked(&upstream);
    gatepost.run(&["block", "bob"]).expect(0);
    for subject in ["first invoice", "Second INVOICE", "third"] {
        park(&gatepost, subject, &["carol@mta.example", "dave@mta.example"]);
    }
    gatepost.login("bob").submit("", &["carol@mta.example"], &message("of bob"));
    let find = |filter: &[&str]| -> Vec<String> {
        let found = gatepost.json_lines(&[&["quarantine", "list"], filter].concat());
        found.iter().map(|object| object["subject"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(find(&[]), ["first invoice", "Second INVOICE", "third", "of bob"], "oldest first");
    assert_eq!(find(&["--account", "bob"]), ["of bob"]);
    assert_eq!(find(&["--subject", "Invoice"]), ["first invoice", "Second INVOICE"]);
    assert_eq!(find(&["--sender", "ALICE@"]), ["first invoice", "Second INVOICE", "third"]);
    assert_eq!(find(&["--limit", "2"]), ["first invoice", "Second INVOICE"]);
    assert_eq!(find(&["--since", "1h"]).len(), 4);
    assert_eq!(find(&["--since", "2099-01-01T00:00:00Z"]), [""; 0]);
    let objects = gatepost.parked();
    let keys = ["id", "time", "account", "sender", "recipients", "size", "subject", "state", "reason", "due"];
    assert!(keys.iter().all(|key| objects[0].get(key).is_some()), "{}", objects[0]);
    assert_eq!(objects[3]["sender"], "", "the null reverse-path");
    assert!(objects[0]["due"].is_null());
    let table = gatepost.run(&["quarantine", "list"]).expect(0).stdout;
    assert!(table.contains("first invoice") && table.contains("alice"), "{table}");
}

/// A file that does not parse is reported by `quarantine list`, and does not hide the others.
#[test]
fn an_unreadable_envelope_hides_nothing() {
    let upstream = Scripted::start();
    let gatepost = blocked(&upstream);
    let first = park(&gatepost, "first", &["bob@mta.example"]);
    park(&gatepost, "second", &["bob@mta.example"]);
    let mut spoilt = 0;
    let mut folders = vec![gatepost.data_dir()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().contains(&first)
                && std::fs::read(&path).is_ok_and(|text| text.starts_with(b"{"))
            {
                std::fs::write(&path, b"{ \"version\": 1, broken").unwrap();
                spoilt += 1;
            }
        }
    }
    assert_eq!(spoilt, 1, "one envelope was found and spoilt");
    let listed = gatepost.parked();
    let states: Vec<_> =
        listed.iter().map(|object| (object["subject"].as_str(), object["state"].as_str().unwrap())).collect();
    assert!(states.contains(&(Some("second"), "parked")), "{states:?}");
    assert!(states.iter().any(|(_, state)| *state == "unreadable"), "{states:?}");
}

/// `quarantine show ID [--raw]`: the safe preview has no control characters in it, whatever the message has.
#[test]
fn show_is_safe_to_look_at() {
    let upstream = Scripted::start();
    let gatepost = blocked(&upstream);
    let nasty = b"Subject: \x1b]0;owned\x07 =?utf-8?Q?=1B[31m=E2=80=AEred?=\r\nFrom: x\r\n\r\n\x1b[2J\x1b[H\x07 wiped\r\n";
    gatepost.login("alice").submit("alice@mta.example", &["bob@mta.example"], nasty);
    let id = gatepost.parked()[0]["id"].as_str().unwrap().to_owned();
    for arguments in [&["quarantine", "show", &id][..], &["quarantine", "list"]] {
        let shown = gatepost.run(arguments).expect(0).stdout;
        let harmful = shown
            .chars()
            .find(|c| (c.is_control() && *c != '\n' && *c != '\t') || ('\u{202a}'..='\u{202e}').contains(c));
        assert_eq!(harmful, None, "{arguments:?}: {shown:?}");
    }
    let raw = gatepost.run(&["quarantine", "show", &id, "--raw"]).expect(0);
    assert_eq!(raw.stdout.as_bytes(), nasty);
}

/// `quarantine export`: the message as it arrived, its envelope and session as JSON, and a SHA-256 manifest.
#[test]
fn export_is_evidence() {
    let upstream = Scripted::start();
    let gatepost = blocked(&upstream);
    let ids = [park(&gatepost, "one", &["bob@mta.example"]), park(&gatepost, "two", &["bob@mta.example"])];
    let output = gatepost.folder().join("evidence");
    gatepost.run(&["quarantine", "export", &ids[0], &ids[1], "--output", output.to_str().unwrap()]).expect(0);
    let mut files: Vec<_> = std::fs::read_dir(&output).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let contents: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    for subject in ["one", "two"] {
        assert!(contents.contains(&message(subject)), "no file is the message as it arrived: {files:?}");
    }
    let parsed = contents.iter().filter_map(|octets| serde_json::from_slice::<Value>(octets).ok());
    assert_eq!(parsed.filter(|value| value.to_string().contains("user:alice")).count(), 2, "{files:?}");
    // The manifest is what sha256sum checks.
    let manifest = files
        .iter()
        .find(|file| file.to_string_lossy().to_lowercase().contains("sha256"))
        .expect("a manifest");
    let mut sha256sum = std::process::Command::new("sha256sum");
    let checked =
        crate::support::program::run(sha256sum.arg("-c").arg(manifest).current_dir(&output), b"").expect(0);
    assert_eq!(checked.stdout.lines().count(), 4, "{}", checked.stdout);

    // It is whole even if nobody reads what is said of it, which is more than is written at once.
    let unread = gatepost.folder().join("unread");
    let mut arguments = vec!["quarantine", "export", "--output", unread.to_str().unwrap()];
    arguments.extend([&*ids[0]; 200]);
    arguments.push(&ids[1]);
    let mut child = gatepost.command(&arguments).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
    assert_eq!(std::fs::read_dir(&unread).unwrap().count(), files.len());
}

/// `quarantine delete`: removes for good, by id and by account.
#[test]
fn delete_removes_for_good() {
    let upstream = Scripted::start();
    let gatepost = blocked(&upstream);
    let ids = [park(&gatepost, "one", &["bob@mta.example"]), park(&gatepost, "two", &["bob@mta.example"])];
    park(&gatepost, "three", &["bob@mta.example"]);
    gatepost.run(&["quarantine", "delete", &ids[0]]).expect(0);
    assert!(gone(&gatepost, &ids[0]));
    gatepost.run(&["quarantine", "show", &ids[0]]).expect(1);
    gatepost.run(&["quarantine", "delete", "--account", "alice"]).expect(0);
    assert_eq!(gatepost.parked().len(), 0);
    assert_eq!(upstream.taken(), []);
}

/// CONTRACT, Release: all answered and at least one taken: released, with one DSN for those refused; unless `--quiet`.
#[test]
fn release_with_refused_recipients_tells_the_sender_once() {
    let upstream = Scripted::start();
    let gatepost = blocked(&upstream);
    let id = park(&gatepost, "mixed", &["bob@mta.example", "nobody-1@mta.example", "nobody-2@mta.example"]);
    let result = gatepost.run(&["quarantine", "release", &id, "--json"]).expect(0).json_lines().remove(0);
    assert_eq!((&result["id"], &result["outcome"]), (&json!(id), &json!("released")));
    assert_eq!(result["delivered"][0]["recipient"], "bob@mta.example");
    assert_eq!(result["refused"].as_array().unwrap().len(), 2);
    assert!(result["refused"][0]["reply"].as_str().unwrap().starts_with("550 5.1.1"), "{result}");
    assert_eq!(result["deferred"], json!([]));
    assert!(gone(&gatepost, &id));
    let taken = upstream.expect_taken(2);
    assert_eq!(taken[0].recipients, ["RCPT TO:<bob@mta.example>"]);
    assert!(contains(&taken[0].message(), b"X-Authenticated-As: alice\r\n"));
    assert!(taken[0].message().ends_with(&message("mixed")));
    let report = &taken[1];
    assert!(report.mail.starts_with("MAIL FROM:<>"), "{}", report.mail);
    assert_eq!(report.recipients.len(), 1);
    assert!(report.recipients[0].starts_with("RCPT TO:<alice@mta.example>"));
    for words in ["nobody-1@mta.example", "nobody-2@mta.example", "message/delivery-status", "5.1.1"] {
        assert!(contains(&report.message(), words.as_bytes()), "no {words} in the DSN");
    }
    let quiet = park(&gatepost, "quiet", &["bob@mta.example", "nobody-1@mta.example"]);
    gatepost.run(&["quarantine", "release", &quiet, "--quiet"]).expect(0);
    let id = park(&gatepost, "last", &["bob@mta.example"]);
    gatepost.run(&["quarantine", "release", &id]).expect(0);
    assert_eq!(upstream.expect_taken(4).len(), 4, "mixed, its DSN, quiet, last");
}

/// CONTRACT, Commands: ID may also be the queue id that the client was told. Many messages may have one of five digits: a mistyped
/// one must not hit another message.
#[test]
fn a_short_queue_id_is_enough_to_look_at_a_message() {
    let upstream = Scripted::offering(EXTENSIONS.to_vec(), |asked| {
        (asked.verb == ".").then(|| Answer::Reply("250 ok 1796067774 qp 12345".to_owned()))
    });
    let gatepost = Setup::new(upstream.address).start();
    let mut client = gatepost.login("alice");
    client.submit("alice@mta.example", &["bob@mta.example"], &message("relayed"));
    gatepost.run(&["block", "alice"]).expect(0);
    let told = client.submit("alice@mta.example", &["bob@mta.example"], &message("parked")).text();
    let short = told.rsplit(' ').next().unwrap();
    let id = gatepost.parked()[0]["id"].as_str().unwrap().to_owned();
    let shown = gatepost.run(&["quarantine", "show", short, "--json"]).expect(0).json_lines().remove(0);
    assert_eq!(shown["id"], id.as_str(), "{told}");
    for command in ["release", "delete"] {
        let refused = gatepost.run(&["quarantine", command, short]).expect(1);
        assert!(refused.stderr.contains("too short") && refused.stderr.contains(&id), "{}", refused.stderr);
    }
    assert_eq!(gatepost.parked().len(), 1);
}

/// What is no longer what arrived goes to nobody else, and the sender hears of that, without it.
#[test]
fn what_was_altered_between_two_tries_is_bounced() {
    let defers = Arc::new(AtomicBool::new(true));
    let deferred = Arc::clone(&defers);
    let upstream = Scripted::offering(EXTENSIONS.to_vec(), move |asked| {
        (asked.line.contains("carol") && deferred.load(Ordering::Relaxed))
            .then(|| Answer::Reply("450 4.2.0 later".to_owned()))
    });
    let gatepost = blocked(&upstream);
    for (number, ret) in [" RET=FULL", ""].into_iter().enumerate() {
        let mut client = gatepost.login("alice");
        client.expect(&format!("MAIL FROM:<alice@mta.example>{ret}"), 250);
        for name in ["bob", "carol"] {
            client.expect(&format!("RCPT TO:<{name}@mta.example>"), 250);
        }
        client.data(&message("sound"), 250);
        let id = gatepost.parked()[0]["id"].as_str().unwrap().to_owned();
        defers.store(true, Ordering::Relaxed);
        gatepost.run(&["quarantine", "release", &id]).expect(1);
        upstream.expect_taken(2 * number + 1);
        let file = gatepost.data_dir().join(format!("quarantine/{id}.message"));
        let sound = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, sound.replace("Subject: sound", "Subject: wrong")).unwrap();
        defers.store(false, Ordering::Relaxed);
        let release =
            gatepost.run(&["quarantine", "release", &id, "--json"]).expect(0).json_lines().remove(0);
        assert_eq!(release["delivered"][0]["recipient"], "bob@mta.example", "{release}");
        assert!(release["refused"][0]["reply"].as_str().unwrap().starts_with("554 5.3.0"), "{release}");
        let dsn = upstream.expect_taken(2 * number + 2).remove(2 * number + 1);
        assert!(dsn.mail.starts_with("MAIL FROM:<>"), "{}", dsn.mail);
        for (words, is_there) in
            [("carol@mta.example", true), ("is not what arrived", true), ("wrong", false)]
        {
            assert_eq!(contains(&dsn.message(), words.as_bytes()), is_there, "{ret}: {words}");
        }
        assert!(gone(&gatepost, &id));
    }
}

/// RFC 3461 4.3: with RET=FULL the DSN has the whole message as it was sent; else, and of a big one, the header alone.
#[test]
fn what_a_dsn_returns() {
    let upstream = Scripted::start();
    let gatepost = blocked(&upstream);
    let mut taken = 0;
    let mut dsn = |parameter: &str, mail: &[u8]| {
        let mut client = gatepost.login("alice");
        client.expect(&format!("MAIL FROM:<alice@mta.example>{parameter}"), 250);
        for name in ["bob", "nobody-1"] {
            client.expect(&format!("RCPT TO:<{name}@mta.example>"), 250);
        }
        client.data(mail, 250);
        let id = gatepost.parked()[0]["id"].as_str().unwrap().to_owned();
        gatepost.run(&["quarantine", "release", &id]).expect(0);
        taken += 2;
        let [.., sent, dsn] = &upstream.expect_taken(taken)[..] else { panic!("two more") };
        assert!(dsn.mail.starts_with("MAIL FROM:<>"), "{}", dsn.mail);
        (sent.message(), dsn.message())
    };
    let mail = message("to be returned");
    let (sent, whole) = dsn(" RET=FULL", &mail);
    assert!(sent.ends_with(&mail));
    assert!(contains(&whole, b"Content-Type: message/rfc822\r\n") && contains(&whole, &sent));
    for parameter in ["", " RET=HDRS"] {
        let (sent, header) = dsn(parameter, &mail);
        let fields = sent.windows(4).position(|octets| octets == b"\r\n\r\n").unwrap() + 2;
        assert!(contains(&header, b"Content-Type: text/rfc822-headers\r\n"));
        assert!(contains(&header, &sent[..fields]) && !contains(&header, &sent), "RET is {parameter}");
    }
    let (_, header) = dsn(" RET=FULL", &[mail, vec![b'x'; 102_400], b"\r\n".to_vec()].concat());
    assert!(contains(&header, b"Content-Type: text/rfc822-headers\r\n") && header.len() < 102_400);
}

/// CONTRACT, Release: nobody was ever taken and all refused: failed; it stays whole, can be released again; nothing is sent.
#[test]
fn release_that_fails_keeps_the_message() {
    let accepts = Arc::new(Mutex::new(false));
    let switch = Arc::clone(&accepts);
    let upstream = Scripted::with(move |asked| match asked.verb {
        "." if !*switch.lock().unwrap() => Answer::reply("554 5.7.1 looks like spam"),
        _ => None,
    });
    let gatepost = blocked(&upstream);
    let refused = park(&gatepost, "all refused", &["nobody-1@mta.example"]);
    let content = park(&gatepost, "content refused", &["bob@mta.example"]);
    for id in [&refused, &content] {
        let finished = gatepost.run(&["quarantine", "release", id, "--json"]).expect(1);
        assert_eq!(finished.json_lines()[0]["outcome"], "failed");
    }
    let states: Vec<Value> = gatepost.parked().into_iter().map(|object| object["state"].clone()).collect();
    assert_eq!(states, ["failed", "failed"]);
    *accepts.lock().unwrap() = true;
    gatepost.run(&["quarantine", "release", &content]).expect(0);
    let taken = upstream.expect_taken(1);
    assert_eq!(taken.len(), 1, "no DSN");
    assert!(taken[0].message().ends_with(&message("content refused")));
    assert_eq!(
        gatepost.run(&["quarantine", "show", &refused, "--raw"]).expect(0).stdout.as_bytes(),
        message("all refused")
    );
}

/// CONTRACT, Release: some deferred: `releasing`; it stays with just those recipients; a restart forgets nothing.
#[test]
fn release_keeps_the_deferred_alone() {
    let upstream = Scripted::with(|asked| match asked.verb {
        "RCPT" if asked.path().starts_with("later") => Answer::reply("451 4.2.1 come back later"),
        _ => None,
    });
    let mut gatepost = blocked(&upstream);
    let id = park(&gatepost, "partly", &["bob@mta.example", "later@mta.example"]);
    let result = gatepost.run(&["quarantine", "release", &id, "--json"]).expect(1).json_lines().remove(0);
    assert_eq!(result["outcome"], "releasing");
    assert_eq!(
        (result["delivered"].as_array().unwrap().len(), result["deferred"].as_array().unwrap().len()),
        (1, 1)
    );
    assert!(gatepost.terminate().success());
    gatepost.start();
    let listed = gatepost.parked().remove(0);
    assert_eq!(
        (&listed["state"], &listed["recipients"]),
        (&"releasing".into(), &json!(["later@mta.example"]))
    );
    gatepost.run(&["quarantine", "release", &id]);
    let bob = upstream.lines("RCPT TO:<bob@");
    assert_eq!(bob.len(), 1, "who was taken is not sent to again: {bob:?}");
    assert!(upstream.lines("RCPT TO:<later@").len() >= 2);
}

/// The clock is days ahead at the start, or where there is no `serve`: nobody knows for how long, so nothing is given up.
#[test]
fn a_clock_that_is_days_ahead_gives_no_release_up() {
    let upstream = Scripted::with(|asked| match asked.verb {
        "RCPT" if asked.path().starts_with("later") => Answer::reply("451 4.2.1 come back later"),
        _ => None,
    });
    let mut gatepost = blocked(&upstream);
    let id = park(&gatepost, "partly", &["bob@mta.example", "later@mta.example"]);
    gatepost.run(&["quarantine", "release", &id]).expect(1);
    assert!(gatepost.terminate().success());
    let path = obstacle::envelope(&gatepost, &id);
    let mut envelope: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for time in ["requested", "next"] {
        envelope["release"][time] = "2026-01-02T03:04:05.678Z".into();
    }
    std::fs::write(&path, envelope.to_string()).unwrap();
    gatepost.start();
    let again = wait_for(PATIENCE, || (upstream.lines("RCPT TO:<later@").len() == 2).then_some(()));
    assert!(again.is_some(), "{}", gatepost.log_text());
    assert!(gatepost.terminate().success());
    let result = gatepost.run(&["quarantine", "release", &id, "--json"]).expect(1).json_lines().remove(0);
    assert_eq!((&result["outcome"], &result["refused"]), (&"releasing".into(), &json!([])));
    assert_eq!(upstream.lines("RCPT TO:<later@").len(), 3);
}

/// The disk does not take what the upstream answered: nobody is sent the message again because of that.
#[test]
fn answers_that_cannot_be_written_down_are_kept() {
    let trap = Trap::default();
    let upstreams = trap.clone();
    let upstream = Scripted::with(move |asked| match asked.verb {
        "RCPT" if asked.path().starts_with("later") => Answer::reply("451 4.2.1 come back later"),
        "." => {
            upstreams.spring();
            None
        }
        _ => None,
    });
    let gatepost = blocked(&upstream);
    let later = ["bob@mta.example", "later@mta.example"];
    for (subject, recipients, taken) in [
        ("goes", &later[..1], 1),
        ("told", &["bob@mta.example", "nobody-1@mta.example"], 3),
        ("stays", &later, 4),
    ] {
        let id = park(&gatepost, subject, recipients);
        let envelope = obstacle::envelope(&gatepost, &id);
        trap.set(&envelope);
        let refused = gatepost.run(&["quarantine", "release", &id]).expect(1);
        assert!(refused.stderr.contains("that cannot be written down"), "{}", refused.stderr);
        let again = gatepost.run(&["quarantine", "release", &id]).expect(1);
        assert!(!again.stderr.contains("that cannot be written down"), "{}", again.stderr);
        obstacle::remove(&envelope);
        let settled = wait_for(PATIENCE, || match subject {
            "stays" => gatepost.parked().iter().any(|object| object["state"] == "releasing").then_some(()),
            _ => gone(&gatepost, &id).then_some(()),
        });
        assert!(settled.is_some(), "{subject}\n{}", gatepost.log_text());
        assert_eq!(upstream.expect_taken(taken).len(), taken, "{subject}");
    }
    // Now that it is written down the other one alone is asked.
    gatepost.run(&["quarantine", "release", "--all"]).expect(1);
    assert_eq!(upstream.lines("RCPT TO:<bob@").len(), 3, "once for each message");
}

/// The same where no `serve` is there to go on trying: the command says so, and ends when it is written down.
#[test]
fn a_release_without_serve_waits_for_the_disk() {
    let trap = Trap::default();
    let upstream = trapped(&trap);
    let mut gatepost = blocked(&upstream);
    let id = park(&gatepost, "goes", &["bob@mta.example"]);
    gatepost.terminate();
    let envelope = obstacle::envelope(&gatepost, &id);
    trap.set(&envelope);
    std::thread::scope(|scope| {
        let command = scope.spawn(|| gatepost.run(&["quarantine", "release", &id]));
        upstream.expect_taken(1);
        throughout(LONGER_THAN_TWO_TRIES, || assert!(!command.is_finished(), "it does not wait"));
        obstacle::remove(&envelope);
        let released = command.join().unwrap().expect(0);
        assert!(released.stderr.contains("Do not end this command"), "{}", released.stderr);
        assert!(released.stdout.contains("released"), "{}", released.stdout);
    });
    gatepost.start();
    assert_eq!((gatepost.parked().len(), upstream.taken().len()), (0, 1), "once");
}

/// So many parked, each with its number as its subject, and an upstream that takes its time at the end of data.
fn parked_before_a_slow_upstream(count: usize) -> (Scripted, Gatepost) {
    let upstream = Scripted::with(|asked| {
        if asked.verb == "." {
            std::thread::sleep(Duration::from_millis(200));
        }
        None
    });
    let gatepost = blocked(&upstream);
    let mut client = gatepost.login("alice");
    for number in 0..count {
        client.submit("alice@mta.example", &["bob@mta.example"], &message(&format!("number {number}")));
    }
    (upstream, gatepost)
}

/// Which numbers the upstream took, in order.
fn numbers(upstream: &Scripted) -> Vec<usize> {
    let number = |one: &Transaction| {
        let text = String::from_utf8(one.message()).unwrap();
        text.split("Subject: number ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap()
    };
    let mut numbers: Vec<usize> = upstream.taken().iter().map(number).collect();
    numbers.sort_unstable();
    numbers
}

/// A stop finishes the releases that are under way, and begins no more: what went out without a note of it would go out again.
#[test]
fn a_stop_in_the_middle_of_many_releases_sends_nothing_twice() {
    const PARKED: usize = 60;
    let (upstream, mut gatepost) = parked_before_a_slow_upstream(PARKED);
    let command = gatepost
        .command(&["quarantine", "release", "--all"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    upstream.expect_taken(3);
    gatepost.terminate();
    let told = command.unwrap().wait_with_output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
    assert_eq!(told.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("left alone, since `serve` is shutting down"), "{stderr}");
    let so_far = upstream.taken().len();
    assert!(so_far < PARKED, "it stopped before the end");
    assert_eq!(stdout.matches(": released").count(), so_far, "{stdout}");
    gatepost.start();
    gatepost.run(&["quarantine", "release", "--all"]).expect(0);
    assert_eq!(numbers(&upstream), (0..PARKED).collect::<Vec<_>>());
}

/// Nor where the command is gone by then: what it began is waited for all the same.
#[test]
fn a_stop_behind_a_command_that_was_killed_sends_nothing_twice() {
    const PARKED: usize = 40;
    let (upstream, mut gatepost) = parked_before_a_slow_upstream(PARKED);
    let mut command =
        gatepost.command(&["quarantine", "release", "--all"]).stdout(Stdio::piped()).spawn().unwrap();
    upstream.expect_taken(3);
    command.kill().unwrap();
    command.wait().unwrap();
    gatepost.terminate();
    assert!(upstream.taken().len() < PARKED, "it stopped before the end");
    gatepost.start();
    gatepost.run(&["quarantine", "release", "--all"]).expect(0);
    assert_eq!(numbers(&upstream), (0..PARKED).collect::<Vec<_>>());
}

/// `quarantine release --all | head -1`: nobody reads what it says, and it goes on to its end, without `serve` and with it.
#[test]
fn a_release_that_nobody_reads_goes_on() {
    for without_serve in [true, false] {
        let (upstream, mut gatepost) = parked_before_a_slow_upstream(12);
        if without_serve {
            gatepost.terminate();
        }
        let mut command =
            gatepost.command(&["quarantine", "release", "--all"]).stdout(Stdio::piped()).spawn().unwrap();
        drop(command.stdout.take());
        assert_eq!(command.wait().unwrap().code(), Some(0), "all of it was done");
        assert_eq!(numbers(&upstream), (0..12).collect::<Vec<_>>());
        if without_serve {
            gatepost.start();
        }
        assert_eq!(gatepost.parked().len(), 0);
    }
}

/// CONTRACT, Release: a message is claimed, so that two releases at once send it once.
#[test]
fn two_releases_at_once_send_it_once() {
    let upstream = Scripted::start();
    let gatepost = blocked(&upstream);
    for number in 0..10 {
        park(&gatepost, &format!("number {number}"), &["bob@mta.example"]);
    }
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let finished = gatepost.run(&["quarantine", "release", "--all"]);
                // One line speaks for all that another has in hand.
                assert!(finished.stderr.lines().count() <= 1, "{}", finished.stderr);
            });
        }
    });
    assert!(wait_for(PATIENCE, || Some(()).filter(|()| gatepost.parked().is_empty())).is_some());
    assert_eq!(upstream.taken().len(), 10);
}

/// CONTRACT, --json: `quarantine release`: per message `id`, `outcome`: also of one that another command has in hand.
#[test]
fn a_release_of_what_is_being_released_says_so() {
    let holds = Arc::new(AtomicBool::new(false));
    let held = Arc::clone(&holds);
    let upstream = Scripted::offering(EXTENSIONS.to_vec(), move |asked| {
        let is_held = || asked.line.starts_with("RCPT") && held.load(Ordering::Relaxed);
        wait_for(PATIENCE, || (!is_held()).then_some(()))?;
        None
    });
    let gatepost = blocked(&upstream);
    let id = park(&gatepost, "once", &["bob@mta.example"]);
    holds.store(true, Ordering::Relaxed);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| gatepost.run(&["quarantine", "release", &id, "--json"]));
        let is_in_hand = || (gatepost.parked().first()?["state"] == "releasing").then_some(());
        wait_for(PATIENCE, is_in_hand).unwrap();
        let second = gatepost.run(&["quarantine", "release", &id, "--json"]);
        holds.store(false, Ordering::Relaxed);
        let told = second.expect(1).json_lines();
        assert_eq!(
            (&told[0]["id"], &told[0]["outcome"]),
            (&id.as_str().into(), &"releasing".into()),
            "{told:?}"
        );
        assert_eq!(told[0]["delivered"], json!([]));
        assert_eq!(first.join().unwrap().expect(0).json_lines()[0]["outcome"], "released");
    });
    upstream.expect_taken(1);
}

/// CONTRACT, Release: a release goes upstream with the XCLIENT of the session that brought it.
#[test]
fn a_release_carries_the_senders_xclient() {
    let mut extensions = EXTENSIONS.to_vec();
    extensions.push("XCLIENT NAME ADDR PORT PROTO HELO LOGIN");
    let upstream = Scripted::offering(extensions, |_| None);
    let gatepost = blocked(&upstream);
    let id = park(&gatepost, "released", &["bob@mta.example"]);
    gatepost.run(&["quarantine", "release", &id]).expect(0);
    upstream.expect_taken(1);
    let lines = upstream.lines("XCLIENT");
    assert!(
        lines.iter().any(|line| line.contains("LOGIN=alice") && line.contains("HELO=client.example")),
        "{lines:?}"
    );
}

/// CONTRACT, SMTP: quarantine full: 452 4.3.1: at the end of data when this message would not fit; `[quarantine] max_size_per_account`.
#[test]
fn a_full_quarantine_says_so() {
    for key in ["quarantine.max_size", "quarantine.max_size_per_account"] {
        let upstream = Scripted::start();
        let gatepost = Setup::new(upstream.address)
            .set("session.max_message_size", "64KiB")
            .set(key, "150KiB")
            .notify("abuse@mta.example")
            .start();
        gatepost.run(&["block", "alice"]).expect(0);
        let big = [b"Subject: big\r\n\r\n".to_vec(), b"0123456789\r\n".repeat(5_000)].concat();
        let mut client = gatepost.login("alice");
        client.submit("alice@mta.example", &["bob@mta.example"], &big);
        client.submit("alice@mta.example", &["bob@mta.example"], &big);
        let mail = client.ask("MAIL FROM:<alice@mta.example>");
        if mail.code == 250 {
            client.expect("RCPT TO:<bob@mta.example>", 250);
            assert!(client.data(&big, 452).text().starts_with("452 4.3.1"));
        } else {
            assert!(mail.text().starts_with("452 4.3.1"), "{}", mail.text());
        }
        assert_eq!(gatepost.parked().len(), 2, "{key}");
        // Others are served as ever.
        gatepost.login("bob").submit("bob@mta.example", &["carol@mta.example"], &message("not full"));
        // Room is used again.
        gatepost.run(&["quarantine", "delete", "--account", "alice"]).expect(0);
        client.expect("RSET", 250);
        client.submit("alice@mta.example", &["bob@mta.example"], &big);
        assert_eq!(gatepost.parked().len(), 1, "{key}");
    }
}

/// Who is refused at MAIL leaves a line as well, one each; the others leave none.
#[test]
fn a_mail_refused_for_a_full_quarantine_is_logged() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).set("quarantine.max_size_per_account", "1KiB").start();
    gatepost.run(&["block", "alice"]).expect(0);
    let mut client = gatepost.login("alice");
    let whole = [b"Subject: all of it\r\n\r\n".to_vec(), b"x".repeat(1_000), b"\r\n".to_vec()].concat();
    assert_eq!(whole.len(), 1_024);
    client.submit("alice@mta.example", &["bob@mta.example"], &whole);
    client.expect("MAIL FROM:<alice@mta.example>", 452);
    client.expect("RCPT TO:<bob@mta.example>", 503);
    client.expect("MAIL FROM:<alice@mta.example>", 452);
    client.expect("MAIL FROM:<alice@mta.example> SIZE=999999999", 552);
    client.expect("MAIL", 501);
    gatepost.run(&["block", "bob"]).expect(0);
    gatepost.expect_log("what came later", |line| line.to_string().contains("user:bob"));
    let not_parked = |line: &&Value| line["message"].as_str().unwrap().contains("could not be parked");
    let lines = gatepost.log_lines();
    let refused: Vec<&Value> = lines.iter().filter(not_parked).collect();
    assert_eq!(refused.len(), 2, "{refused:?}");
    for line in refused {
        assert_eq!((&line["level"], &line["account"]), (&"WARN".into(), &"user:alice".into()), "{line}");
        assert!(line["why"].as_str().unwrap().contains("max_size_per_account"), "{line}");
    }
}

/// Its envelope takes room as well: with many recipients more than the message, which may be next to nothing.
#[test]
fn many_recipients_fill_the_quarantine() {
    let upstream = Scripted::start();
    let gatepost =
        Setup::new(upstream.address).set("quarantine.max_size", "1MiB").notify("abuse@mta.example").start();
    gatepost.run(&["block", "alice"]).expect(0);
    let mut client = gatepost.login("alice");
    let domain = format!("{}.example", ["d".repeat(60).as_str(); 3].join("."));
    let rcpt: Vec<String> = (0..1_000).map(|n| format!("RCPT TO:<r{n}@{domain}>\r\n")).collect();
    let mut parked = 0;
    let full = loop {
        let mail = client.ask("MAIL FROM:<alice@mta.example>");
        if mail.code != 250 {
            break mail;
        }
        for some in rcpt.chunks(100) {
            client.send(some.concat().as_bytes());
            some.iter().for_each(|_| drop(client.expect_reply(250)));
        }
        client.expect("DATA", 354);
        let end = client.ask(".");
        if end.code != 250 {
            break end;
        }
        parked += 1;
        assert!(parked < 10, "for ever");
    };
    assert!(full.text().starts_with("452 4.3.1"), "{}", full.text());
    let list = gatepost.parked();
    assert_eq!((list.len(), parked > 1), (parked, true));
    assert!(list.iter().all(|one| one["size"] == 0), "lists show the message's size");
    let files = std::fs::read_dir(gatepost.data_dir().join("quarantine")).unwrap();
    let octets: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(octets < (1 << 20) + (1 << 18), "{octets} octets");
    // 80 %: the abuse desk hears of it.
    let notice = upstream.expect_taken(1).remove(0);
    assert!(contains(&notice.data, b"nearly full"), "{}", String::from_utf8_lossy(&notice.data));
}

/// CONTRACT, `expire_after`: parked messages alone.
#[test]
fn parked_messages_expire() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).set("quarantine.expire_after", "2s").start();
    gatepost.run(&["block", "alice"]).expect(0);
    gatepost.login("alice").submit("alice@mta.example", &["bob@mta.example"], &message("short-lived"));
    assert_eq!(gatepost.parked().len(), 1);
    let expired = wait_for(Duration::from_secs(180), || Some(()).filter(|()| gatepost.parked().is_empty()));
    assert!(expired.is_some(), "it is still there");
    assert_eq!(upstream.taken(), [], "nothing bounces to the sender");
}

/// CONTRACT, Headers: Received (RFC 3848), Date and Message-ID where missing (RFC 6409), made once, at arrival.
#[test]
fn trace_headers_are_made_once() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).relay().start();
    let bare = b"Subject: bare\r\n\r\nno date, no id\r\n";
    gatepost.login("bob").submit("bob@mta.example", &["carol@mta.example"], bare);
    gatepost.relay().submit("bob@mta.example", &["carol@mta.example"], &message("full"));
    let taken = upstream.expect_taken(2);
    let text = |index: usize| String::from_utf8(taken[index].message()).unwrap();
    assert!(text(0).starts_with("Received: from ") && text(0).contains("with ESMTPSA"), "{}", text(0));
    assert_eq!(
        (text(0).matches("\r\nDate: ").count(), text(0).matches("\r\nMessage-ID: <").count()),
        (1, 1),
        "{}",
        text(0)
    );
    assert!(!text(0).contains("X-Authenticated-As"), "relayed mail is not marked: {}", text(0));
    assert!(text(1).contains("with ESMTP\r\n"), "{}", text(1));
    let full = text(1);
    assert_eq!(
        (full.matches("\r\nDate: ").count(), full.matches("\r\nMessage-ID: ").count()),
        (1, 1),
        "{full}"
    );

    gatepost.run(&["block", "bob"]).expect(0);
    gatepost.login("bob").submit("bob@mta.example", &["carol@mta.example"], bare);
    let id = gatepost.parked()[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(gatepost.parked()[0]["size"], bare.len());
    gatepost.run(&["quarantine", "release", &id]).expect(0);
    let released = String::from_utf8(upstream.expect_taken(3)[2].message()).unwrap();
    assert!(
        released.contains("\r\nDate: ")
            && released.contains("\r\nMessage-ID: <")
            && released.ends_with("no date, no id\r\n"),
        "{released}"
    );
    assert!(released.contains("X-Authenticated-As: bob\r\n"), "{released}");
}

/// Issue 3, Logs: a line for each relayed message says account, client, Message-ID and the upstream's reply; a release relays too.
#[test]
fn a_release_is_one_line_of_the_log() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).start();
    gatepost.run(&["block", "alice"]).expect(0);
    let own = message("own");
    let without = b"Subject: without\r\n\r\nHello.\r\n";
    for content in [&own[..], without] {
        gatepost.login("alice").submit("alice@mta.example", &["bob@mta.example"], content);
    }
    gatepost.run(&["quarantine", "release", "--all"]).expect(0);
    let parked = |line: &Value| line["message"] == "message parked";
    let ids: Vec<_> = gatepost.log_lines().into_iter().filter(parked).collect();
    assert_eq!(ids.len(), 2);
    for parked in ids {
        let released = gatepost.expect_log("what became of it", |line| {
            line["quarantine_id"] == parked["quarantine_id"] && line["outcome"] == "released"
        });
        for key in ["session", "client", "account", "sender", "message_id"] {
            assert!(released[key].is_string(), "no {key} in {released}");
            assert_eq!(released[key], parked[key], "{key}");
        }
        assert!(released["delivered"].as_str().unwrap().contains("queued as"), "{released}");
    }
}
