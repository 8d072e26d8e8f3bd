//! Lines of the contract that a review found broken, or proved by no other test.

use crate::support::gatepost::Setup;
use crate::support::scripted::Scripted;
use crate::support::smtp::message;

/// "`check`, `serve` and `status` say so loudly": over restarts, and on standard error alone.
#[test]
fn status_says_that_the_upstream_is_blind() {
    const WORD: &str = "BLIND";
    let upstream = Scripted::start();
    let mut gatepost = Setup::new(upstream.address).start();
    let said = |gatepost: &crate::support::gatepost::Gatepost| {
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

/// `exempt` accounts are counted, shown and logged: the abuse desk hears of those alone who would be blocked.
#[test]
fn the_exempt_send_no_notice() {
    for observe in [false, true] {
        let upstream = Scripted::start();
        let gatepost = Setup::new(upstream.address)
            .limit(3)
            .set("limit.exempt", vec!["alice"])
            .set("limit.observe", observe)
            .notify("abuse@mta.example")
            .start();
        for user in ["alice", "bob"] {
            let mut client = gatepost.login(user);
            client.expect("MAIL FROM:<alice@mta.example>", 250);
            client.harvest(3, "mta.example");
        }
        gatepost.expect_log("that alice would have been blocked", |line| {
            line["account"] == "user:alice"
                && line["message"].as_str().unwrap().contains("would have been blocked")
        });
        // Written in the order in which they come about, and sent in that order.
        let notices = upstream.expect_taken(1);
        let first = String::from_utf8_lossy(&notices[0].data).into_owned();
        assert!(first.contains("user:bob") && !first.contains("user:alice"), "observe {observe}: {first}");
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
    let parked = |line: &serde_json::Value| line["message"] == "message parked";
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

/// Exit status 1: one line says why, and what to do.
#[test]
fn what_keeps_it_from_starting_says_what_to_do() {
    let upstream = Scripted::start();
    for (remove, cure) in [("users", "gatepost user add"), ("server.pem", "path"), ("server.key", "path")] {
        let gatepost = Setup::new(upstream.address).write();
        std::fs::remove_file(gatepost.folder().join(remove)).unwrap();
        let serve = gatepost.run(&["serve"]).expect(1);
        let lines: Vec<_> = serve.stderr.lines().collect();
        assert!(lines.len() == 1 && lines[0].contains(remove) && lines[0].contains(cure), "{lines:?}");
    }
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
