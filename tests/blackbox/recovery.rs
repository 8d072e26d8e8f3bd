//! Issue 6, Faults: a database that does not open is set aside, and no block is forgotten.

use crate::support::gatepost::{Gatepost, PASSWORD, Setup, user_line};
use crate::support::scripted::Scripted;
use crate::support::{LONGER_THAN_TWO_TRIES, PATIENCE, contains, throughout, wait_for};

/// Who is blocked, and by what.
fn blocked(gatepost: &Gatepost) -> Vec<String> {
    let status = gatepost.json_lines(&["status"]);
    let blocked = status.iter().filter(|object| object["state"] == "blocked");
    let mut blocked: Vec<_> = blocked
        .map(|object| {
            let word = |key: &str| object[key].as_str().unwrap_or("-").to_owned();
            format!("{} {} {}", word("account"), word("blocked_by"), word("reason"))
        })
        .collect();
    blocked.sort();
    blocked
}

fn park(gatepost: &Gatepost, user: &str) {
    let mut client = gatepost.login(user);
    let message = format!("Subject: of {user}\r\n\r\nbody\r\n");
    client.submit("x@mta.example", &["bob@mta.example"], message.as_bytes());
    client.quit();
}

/// Alice is blocked by hand, bob by the limit, both with mail; carol was unblocked with her mail kept; dora is on probation, with
/// mail that waits; eve is blocked and has sent nothing.
#[test]
fn no_block_is_forgotten_with_the_database() {
    let upstream = Scripted::start();
    let mut setup =
        Setup::new(upstream.address).limit(4).notify("abuse@mta.example").set("detection.threshold", 3.0);
    for name in ["carol", "dora", "eve"] {
        setup = setup.user_line(&user_line(name, PASSWORD));
    }
    let mut gatepost = setup.start();
    gatepost.run(&["block", "alice", "--reason", "spam seen"]).expect(0);
    park(&gatepost, "alice");
    let mut bob = gatepost.login("bob");
    bob.expect("MAIL FROM:<bob@mta.example>", 250);
    bob.expect("RCPT TO:<alice@mta.example>", 250);
    bob.harvest(4, "mta.example");
    bob.data(b"Subject: of bob\r\n\r\nbody\r\n", 250);
    gatepost.run(&["block", "carol"]).expect(0);
    park(&gatepost, "carol");
    gatepost.run(&["unblock", "carol"]).expect(0);
    let mut dora = gatepost.login("dora");
    dora.expect("MAIL FROM:<dora@mta.example>", 250);
    dora.expect("RCPT TO:<alice@mta.example>", 250);
    dora.harvest(3, "mta.example");
    dora.data(b"Subject: of dora\r\n\r\nbody\r\n", 250);
    assert_eq!(gatepost.status("user:dora").unwrap()["state"], "probation");
    gatepost.run(&["block", "eve"]).expect(0);
    assert_eq!(gatepost.parked().len(), 4);
    let limit = "user:bob limit 4 invalid recipients within 1h";
    let (alice, eve) = ("user:alice operator spam seen", "user:eve operator -");
    assert_eq!(blocked(&gatepost), [alice, limit, eve]);
    let text = std::fs::read_to_string(gatepost.data_dir().join("blocked")).unwrap();
    assert_eq!(text.lines().filter(|line| !line.starts_with('#')).count(), 3, "{text}");
    gatepost.terminate();

    // Damaged: the list has them all.
    let data = gatepost.data_dir();
    let db = data.join("ledger/db");
    std::fs::remove_file(&db).unwrap();
    std::fs::create_dir(&db).unwrap();
    // A command meanwhile is no worse off.
    let told = gatepost.run(&["status", "--json"]).expect(0);
    assert!(told.stderr.contains("is set aside as"), "{}", told.stderr);
    gatepost.start();
    assert_eq!(blocked(&gatepost), [alice, limit, eve]);
    let names =
        std::fs::read_dir(&data).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let aside: Vec<_> = names.filter(|name| name.starts_with("ledger.broken-")).collect();
    assert_eq!(aside.len(), 1, "{aside:?}");
    gatepost.expect_log("what was set aside", |line| {
        line["level"] == "ERROR" && line.to_string().contains(&aside[0])
    });
    let notice = wait_for(PATIENCE, || {
        let taken = upstream.taken();
        taken
            .iter()
            .map(|one| String::from_utf8_lossy(&one.data).into_owned())
            .find(|text| text.contains("The database was damaged"))
    });
    let notice = notice.expect("a notice").replace("=\r\n", "");
    assert!(notice.contains(&aside[0]), "{notice}");
    gatepost.terminate();
    gatepost.start();
    assert!(!gatepost.log_text().contains("had to be mended"), "told once");
    gatepost.terminate();

    // All gone: what is parked for a block speaks, and nothing else.
    std::fs::remove_dir_all(data.join("ledger")).unwrap();
    std::fs::remove_file(data.join("blocked")).unwrap();
    gatepost.start();
    assert_eq!(blocked(&gatepost), [alice, limit]);
    assert!(std::fs::read_to_string(data.join("blocked")).unwrap().contains("user:bob "));
    assert_eq!(gatepost.parked().len(), 4, "whatever becomes of the database");
    assert!(!gatepost.log_text().contains("panicked"), "{}", gatepost.log_text());
}

/// What cannot be written holds in memory, is told of once, however often that comes and goes, and the command that made it says so.
#[test]
fn one_notice_while_nothing_can_be_written() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).notify("abuse@mta.example").start();
    let list = gatepost.data_dir().join("blocked");
    let aside = list.with_extension("aside");
    let is_failure = |line: &&serde_json::Value| line.to_string().contains("the ledger cannot be written");
    let failures = || gatepost.log_lines().iter().filter(is_failure).count();
    for (round, name) in ["alice", "bob"].into_iter().enumerate() {
        let _ = std::fs::rename(&list, &aside);
        std::fs::create_dir(&list).unwrap();
        let refused = gatepost.run(&["block", name, "--json"]).expect(1);
        let told = format!("gatepost: user:{name} is blocked in memory alone, ");
        assert!(refused.stderr.starts_with(&told), "{}", refused.stderr);
        assert_eq!((refused.stdout.as_str(), refused.stderr.lines().count()), ("", 1));
        assert_eq!(gatepost.status(&format!("user:{name}")).unwrap()["state"], "blocked");
        assert!(wait_for(PATIENCE, || (failures() > round).then_some(())).is_some());
        // It is tried again meanwhile.
        throughout(LONGER_THAN_TWO_TRIES, || {
            assert_eq!(failures(), round + 1, "{}", gatepost.log_text());
        });
        std::fs::remove_dir(&list).unwrap();
        let recovered = |line: &serde_json::Value| line.to_string().contains("the ledger is written again");
        let all = || gatepost.log_lines().into_iter().filter(recovered).count();
        assert!(wait_for(PATIENCE, || (all() == round + 1).then_some(())).is_some());
    }
    let text = std::fs::read_to_string(&list).unwrap();
    assert!(text.contains("user:alice") && text.contains("user:bob"), "{text}");
    let notices = || {
        upstream
            .taken()
            .into_iter()
            .filter(|one| contains(&one.data, b"Counts and blocks cannot be written"))
            .count()
    };
    assert!(wait_for(PATIENCE, || (notices() > 0).then_some(())).is_some());
    throughout(LONGER_THAN_TWO_TRIES, || assert_eq!(notices(), 1));
}

/// A machine whose clock starts in the past: a block counts from a time that is certainly over, and what led to it stays to
/// be seen (decision 24).
#[test]
fn a_block_is_dated_by_the_floor() {
    let upstream = Scripted::start();
    let mut gatepost = Setup::new(upstream.address).limit(3).start();
    gatepost.terminate();
    std::fs::write(gatepost.data_dir().join("quarantine/floor"), "2100-01-01T00:00:00.000Z\n").unwrap();
    gatepost.start();
    let mut alice = gatepost.login("alice");
    alice.expect("MAIL FROM:<alice@mta.example>", 250);
    alice.harvest(3, "mta.example");
    let status = gatepost.status("user:alice").unwrap();
    assert!(status["blocked_at"].as_str().unwrap().starts_with("2100-01-01T00:00:00"), "{status}");
    assert_eq!(status["invalid_recipients"], 3, "{status}");
}
