//! CONTRACT, Detection: what is evidence and what is not, `[[account]]`, and the common cause. Probation has a file of its own.

use serde_json::Value;

use crate::support::gatepost::{Gatepost, PASSWORD, Setup, user_line};
use crate::support::scripted::{Answer, Scripted};
use crate::support::smtp::{Smtp, message};
use crate::support::{PATIENCE, contains, wait_for};

/// Asks for one recipient, in a transaction of its own.
fn ask(client: &mut Smtp, recipient: &str, code: u16) {
    client.expect("MAIL FROM:<alice@mta.example>", 250);
    client.expect(&format!("RCPT TO:<{recipient}>"), code);
    client.expect("RSET", 250);
}

fn state(gatepost: &Gatepost, account: &str) -> Option<String> {
    gatepost.status(account).map(|status| status["state"].as_str().unwrap().to_owned())
}

fn with_carol(upstream: &Scripted) -> Setup {
    Setup::new(upstream.address).user_line(&user_line("carol", PASSWORD))
}

/// Six misses are no alarm, the seventh is; a kill in between forgets nothing.
#[test]
fn evidence_survives_a_kill() {
    let upstream = Scripted::start();
    let mut gatepost = Setup::new(upstream.address).start();
    let mut client = gatepost.login("alice");
    for n in 0..6 {
        ask(&mut client, &format!("nobody@{n}.example"), 550);
    }
    assert_eq!(state(&gatepost, "user:alice").unwrap(), "counting");
    gatepost.kill();
    gatepost.start();
    let mut client = gatepost.login("alice");
    ask(&mut client, "nobody@6.example", 550);
    assert_eq!(state(&gatepost, "user:alice").unwrap(), "probation");
}

/// What an upstream says to the recipients behind a MAIL that it refused is no answer to who they are.
#[test]
fn behind_a_refused_mail_nothing_counts() {
    let upstream = Scripted::with(|asked| match asked.verb {
        "MAIL" if asked.line.contains("<carol@") => Answer::reply("550 5.7.1 not you"),
        "RCPT" => Answer::reply("550 5.1.1 nobody of that name"),
        _ => None,
    });
    let gatepost = Setup::new(upstream.address).start();
    let mut client = gatepost.login("alice");
    let batch = |sender: &str| {
        format!("MAIL FROM:<{sender}@mta.example>\r\nRCPT TO:<a@x.example>\r\nRCPT TO:<b@x.example>\r\n")
    };
    client.send(batch("carol").as_bytes());
    for code in [550, 503, 503] {
        client.expect_reply(code);
    }
    assert_eq!(gatepost.status("user:alice").map(|status| status["invalid_recipients"].clone()), None);
    client.send(batch("alice").as_bytes());
    for code in [250, 550, 550] {
        client.expect_reply(code);
    }
    assert_eq!(gatepost.status("user:alice").unwrap()["invalid_recipients"], 2);
}

/// Of a domain that accepted nobody three are evidence, and an address is evidence once.
#[test]
fn a_closed_company_and_a_stuck_outbox_are_no_thief() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).set("limit.count", "attempts").start();
    let mut client = gatepost.login("alice");
    for n in 0..10 {
        ask(&mut client, &format!("nobody{n}@closed.example"), 550);
    }
    let mut other = gatepost.login("bob");
    for _ in 0..30 {
        ask(&mut other, "nobody@mta.example", 550);
    }
    let status = gatepost.status("user:bob").unwrap();
    assert_eq!((&status["state"], &status["invalid_recipients"]), (&"counting".into(), &30.into()));
    assert_eq!(state(&gatepost, "user:alice").unwrap(), "counting");
    // Three were evidence: with four more it is an alarm.
    for n in 0..4 {
        assert_eq!(state(&gatepost, "user:alice").unwrap(), "counting");
        ask(&mut client, &format!("nobody@{n}.example"), 550);
    }
    assert_eq!(state(&gatepost, "user:alice").unwrap(), "probation");
}

/// Valid recipients speak for the account, over sessions too: one in five is no thief's list.
#[test]
fn recipients_that_exist_are_evidence_too() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).start();
    for n in 0..20 {
        let mut client = gatepost.login("alice");
        ask(&mut client, &format!("nobody@{n}.example"), 550);
        for k in 0..7 {
            ask(&mut client, &format!("reader-{n}-{k}@mta.example"), 250);
        }
    }
    let status = gatepost.status("user:alice").unwrap();
    assert_eq!((&status["state"], &status["invalid_recipients"]), (&"counting".into(), &20.into()));
    // The same living address again and again speaks once.
    let mut client = gatepost.login("bob");
    for n in 0..7 {
        for _ in 0..7 {
            ask(&mut client, "himself@mta.example", 250);
        }
        ask(&mut client, &format!("nobody@{n}.example"), 550);
    }
    assert_eq!(state(&gatepost, "user:bob").unwrap(), "probation");
}

/// `[[account]]`: the first that matches; what it leaves out is as for everybody.
#[test]
fn what_is_different_for_some_accounts() {
    let upstream = Scripted::start();
    let rules: toml::Value = toml::toml! {
        [[account]]
        match = "alice"
        invalid_recipients = 3
        period = "2h"
        [[account]]
        match = "127.0.0.0/8"
        exempt = true
        [[account]]
        match = "bob"
        usual_share = 0.25
    }["account"]
        .clone();
    let gatepost = with_carol(&upstream).limit(9).relay().set("account", rules).start();
    let limit = |account: &str| {
        let status = gatepost.status(account).unwrap();
        (status["limit"].as_i64().unwrap(), status["period_seconds"].as_i64().unwrap())
    };
    let mut alice = gatepost.login("alice");
    ask(&mut alice, "nobody@0.example", 550);
    ask(&mut alice, "nobody@1.example", 550);
    ask(&mut alice, "nobody@2.example", 250);
    let status = gatepost.status("user:alice").unwrap();
    assert_eq!((&status["state"], &status["blocked_by"]), (&"blocked".into(), &"limit".into()));
    assert_eq!(limit("user:alice"), (3, 7_200));

    // A quarter is usual for bob: no alarm, but the limit that everybody has.
    let mut bob = gatepost.login("bob");
    (0..8).for_each(|n| ask(&mut bob, &format!("nobody@{n}.example"), 550));
    assert_eq!(state(&gatepost, "user:bob").unwrap(), "counting");
    ask(&mut bob, "nobody@8.example", 250);
    assert_eq!((state(&gatepost, "user:bob").unwrap().as_str(), limit("user:bob")), ("blocked", (9, 3_600)));

    let mut carol = gatepost.login("carol");
    (0..7).for_each(|n| ask(&mut carol, &format!("nobody@{n}.example"), 550));
    assert_eq!(state(&gatepost, "user:carol").unwrap(), "probation");

    let mut host = gatepost.relay();
    (0..12).for_each(|n| ask(&mut host, &format!("nobody@{n}.example"), 550));
    assert_eq!(state(&gatepost, "host:127.0.0.2").unwrap(), "counting");
    host.submit("printer@mta.example", &["bob@mta.example"], &message("at once"));
    assert_eq!(upstream.taken().len(), 1);
}

/// `[[account]]`: one that is observed, one that is not exempt though `[limit] exempt` names it, and all users of a domain.
#[test]
fn whom_account_tables_spare_and_whom_not() {
    let upstream = Scripted::start();
    let rules: toml::Value = toml::toml! {
        [[account]]
        match = "alice"
        observe = true
        [[account]]
        match = "carol"
        exempt = false
        [[account]]
        match = "*@example.org"
        invalid_recipients = 2
    }["account"]
        .clone();
    let user = |name: &str| user_line(name, PASSWORD);
    let gatepost = with_carol(&upstream)
        .user_line(&(user("dora@Example.org") + &user("erik@example.com")))
        .limit(3)
        .notify("abuse@mta.example")
        .set("limit.exempt", vec!["carol", "bob"])
        .set("account", rules)
        .start();
    // Which miss blocks, if one does.
    for (user, blocks) in [
        ("alice", None),
        ("bob", None),
        ("carol", Some(3)),
        ("dora@Example.org", Some(2)),
        ("erik@example.com", Some(3)),
    ] {
        let mut client = gatepost.login(user);
        for n in 1..=5 {
            let shown = if blocks.is_some_and(|blocks| n >= blocks) { 250 } else { 550 };
            ask(&mut client, &format!("nobody@{n}.example"), shown);
        }
        let status = gatepost.status(&format!("user:{user}")).unwrap();
        let expected = if blocks.is_some() { "blocked" } else { "counting" };
        assert_eq!(status["state"], expected, "{user}");
        assert_eq!(status["limit"], blocks.unwrap_or(3), "{user}");
        // An observed one goes on, and its mail goes out.
        if blocks.is_none() {
            client.submit("alice@mta.example", &["bob@mta.example"], &message(user));
        }
    }
    // Two messages, three blocks, and what would have been for alice; of bob, who is exempt, nobody is told.
    let taken = upstream.expect_taken(6);
    let told = |subject: &str| taken.iter().filter(|one| contains(&one.data, subject.as_bytes())).count();
    assert_eq!((told("Subject: Would have blocked: user:alice"), told("Subject: Blocked: user:")), (1, 3));
}

/// A domain that refuses 20 recipients of three accounts and accepts none counts against nobody, until it accepts one.
#[test]
fn a_domain_that_refuses_everybody_is_a_common_cause() {
    let upstream = Scripted::start();
    let gatepost = with_carol(&upstream).limit(9).notify("abuse@mta.example").start();
    let mut clients = ["alice", "bob", "carol"].map(|user| gatepost.login(user));
    for n in 0..19usize {
        ask(&mut clients[n % 3], &format!("nobody{n}@down.example"), 550);
    }
    let counted = |account: &str| {
        gatepost.status(account).map_or(0, |status| status["invalid_recipients"].as_i64().unwrap())
    };
    assert_eq!(counted("user:alice"), 7);
    // The twentieth: what counted is taken back, and nothing more does.
    for n in 19..60usize {
        ask(&mut clients[n % 3], &format!("nobody{n}@down.example"), 550);
    }
    assert_eq!(["user:alice", "user:bob", "user:carol"].map(counted), [0; 3]);
    let began = gatepost.expect_log("a common cause", |line| text(line).starts_with("common cause: "));
    assert!(began.to_string().contains("down.example"), "{began}");
    let warned = gatepost.run(&["status"]).expect(0).stderr;
    assert!(warned.contains("down.example has refused everybody since"), "{warned}");
    let metrics = || gatepost.run(&["status", "--metrics"]).expect(0).stdout;
    let lines = metrics();
    for line in [
        "# TYPE gatepost_common_causes gauge",
        "gatepost_common_causes 1",
        "gatepost_recipients_not_counted 41",
        "gatepost_recipients_refused_today 60",
        "gatepost_upstream_blind 0",
        "gatepost_accounts{state=\"blocked\"} 0",
    ] {
        assert!(lines.lines().any(|found| found == line), "{line}\n{lines}");
    }

    // All else counts as ever, and the notice says what did not.
    for n in 0..9 {
        ask(&mut clients[0], &format!("nobody{n}@mta.example"), if n < 8 { 550 } else { 250 });
    }
    assert_eq!(state(&gatepost, "user:alice").unwrap(), "blocked");
    let notice = &upstream.expect_taken(1)[0].data;
    assert!(contains(notice, b"Not counted:              20 at down.example, which refused everybody"));

    ask(&mut clients[1], "somebody@down.example", 250);
    gatepost.expect_log("the end of it", |line| text(line).starts_with("common cause over"));
    ask(&mut clients[1], "nobody@down.example", 550);
    assert_eq!(counted("user:bob"), 1);
    assert!(!gatepost.run(&["status"]).expect(0).stderr.contains("refused everybody"));
    let lines = metrics();
    for line in [
        "gatepost_common_causes 0",
        "gatepost_accounts{state=\"blocked\"} 1",
        "gatepost_invalid_recipients 10",
    ] {
        assert!(lines.lines().any(|found| found == line), "{line}\n{lines}");
    }
}

/// The upstream's relayhost has lost its name: recipients of all domains are refused, and nobody's list is to blame.
#[test]
fn a_host_without_a_name_is_a_common_cause() {
    let upstream = Scripted::with(|asked| match asked.verb {
        "RCPT" => Answer::reply(
            "450 4.1.1 Recipient address rejected: unverified address: Host or domain name not found. Name \
             service error for name=smarthost.isp.example type=AAAA: Host not found",
        ),
        _ => None,
    });
    let gatepost = with_carol(&upstream).start();
    let mut clients = ["alice", "bob", "carol"].map(|user| gatepost.login(user));
    for n in 0..21usize {
        ask(&mut clients[n % 3], &format!("somebody@{n}.example"), 450);
    }
    for account in ["user:alice", "user:bob", "user:carol"] {
        let status = gatepost.status(account);
        assert_eq!(status.map_or(0, |status| status["invalid_recipients"].as_i64().unwrap()), 0, "{account}");
    }
    let warned = gatepost.run(&["status"]).expect(0).stderr;
    assert!(
        warned.contains("smarthost.isp.example (on the way, and not found) has refused everybody since"),
        "{warned}"
    );
}

fn text(line: &Value) -> &str {
    line["fields"]["message"].as_str().or_else(|| line["message"].as_str()).unwrap_or_default()
}

/// Three stolen accounts at one provider that has some of those whom they ask for.
#[test]
fn a_wave_of_stolen_accounts_is_no_common_cause() {
    let upstream = Scripted::start();
    let gatepost = with_carol(&upstream).limit(12).start();
    let mut clients = ["alice", "bob", "carol"].map(|user| gatepost.login(user));
    ask(&mut clients[0], "somebody@big.example", 250);
    for n in 0..36usize {
        ask(&mut clients[n % 3], &format!("nobody{n}@big.example"), if n < 33 { 550 } else { 250 });
    }
    for account in ["user:alice", "user:bob", "user:carol"] {
        let blocked = || (state(&gatepost, account).as_deref() == Some("blocked")).then_some(());
        assert!(wait_for(PATIENCE, blocked).is_some(), "{account}");
    }
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
