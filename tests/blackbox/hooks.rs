//! CONTRACT, Detection: `[notify] template`, `webhook` and `webhook_secret_file`.

use serde_json::json;

use crate::support::contains;
use crate::support::gatepost::{Gatepost, Setup};
use crate::support::receiver::{Receiver, SECRET};
use crate::support::scripted::{Answer, Scripted};
use crate::support::smtp::message;
use crate::support::tls;

/// Knows nobody whose name begins with `nobody`.
fn upstream() -> Scripted {
    Scripted::with(|asked| match asked.verb {
        "RCPT" if asked.path().starts_with("nobody") => Answer::reply("550 5.1.1 User unknown"),
        _ => None,
    })
}

fn setup(upstream: &Scripted, receiver: &Receiver) -> Setup {
    Setup::new(upstream.address)
        .limit(2)
        .notify("abuse@mta.example")
        .set("notify.webhook", receiver.url())
        .set("notify.webhook_secret_file", "secret")
        .file("secret", &format!("{SECRET}\n"))
}

fn cross(gatepost: &Gatepost, user: &str) {
    let mut client = gatepost.login(user);
    client.expect(&format!("MAIL FROM:<{user}@mta.example>"), 250);
    client.expect("RCPT TO:<nobody-1@mta.example>", 550);
    client.send(b"RCPT TO:<nobody-2@mta.example>\r\n");
    client.reply();
}

/// Each event is POSTed as JSON, signed; `data` is the object of `status`.
#[test]
fn a_block_is_posted_with_the_object_of_status() {
    let (upstream, receiver) = (upstream(), Receiver::start());
    let gatepost = setup(&upstream, &receiver).start();
    cross(&gatepost, "alice");
    let post = receiver.expect(1).remove(0);
    post.expect_signed();
    assert_eq!(post.first_line, "POST /hooks HTTP/1.1");
    let event = post.json();
    assert_eq!(event["type"], "account.blocked");
    let mut status = gatepost.status("user:alice").unwrap();
    // The session has ended meanwhile.
    status["sessions"] = event["data"]["sessions"].clone();
    assert_eq!(event["data"], status);
    assert_eq!(event["timestamp"], status["blocked_at"]);
    assert_eq!((&status["blocked_by"], &status["state"]), (&json!("limit"), &json!("blocked")));
    // The abuse desk has its mail all the same.
    assert!(contains(&upstream.expect_taken(1)[0].data, b"Blocked: user:alice"));
    gatepost.expect_log("that it was sent", |line| line.to_string().contains("event sent"));
}

/// Over TLS, to whom the system's anchors vouch for; without a secret of the operator's it is signed with one of Gatepost's own.
#[test]
fn over_tls_and_signed_with_a_secret_of_our_own() {
    let (upstream, receiver) = (upstream(), Receiver::start());
    let url = format!("https://localhost:{}/hooks?token=1", tls::front(receiver.address).port());
    let setup = || {
        Setup::new(upstream.address).limit(2).set("notify.webhook", url.as_str()).set("log.level", "debug")
    };
    let mut gatepost = setup().trust_authority().start();
    let check = gatepost.run(&["check"]);
    let of_secret = check.stdout.contains("webhook-secret") || check.stdout.contains("webhook_secret");
    assert!(!of_secret, "{}", check.stdout);
    let file = gatepost.data_dir().join("webhook-secret");
    let secret = std::fs::read_to_string(&file).unwrap();
    gatepost.expect_log("where the secret is", |line| {
        line.to_string().contains("signed with the secret in this new file")
            && line.to_string().contains("webhook-secret")
    });
    assert!(!gatepost.log_text().contains(secret.trim()), "the secret itself is nobody's business");
    cross(&gatepost, "alice");
    let post = receiver.expect(1).remove(0);
    post.expect_signed_with(secret.trim());
    assert_eq!(post.first_line, "POST /hooks?token=1 HTTP/1.1");
    assert_eq!(post.json()["data"]["account"], "user:alice");
    gatepost.expect_log("that it was sent", |line| line.to_string().contains("event sent"));
    // It is still the same one after a restart.
    gatepost.terminate();
    gatepost.start();
    cross(&gatepost, "bob");
    receiver.expect(2).remove(1).expect_signed_with(secret.trim());
    gatepost.expect_log("that it was sent", |line| line.to_string().contains("event sent"));

    // Nobody vouches for it: nothing is told.
    let gatepost = setup().start();
    cross(&gatepost, "alice");
    let why = gatepost.expect_log("why not", |line| line.to_string().contains("event put off")).to_string();
    assert!(why.contains("TLS: ") && why.contains("UnknownIssuer"), "{why}");
    let posts = receiver.expect(2);
    assert_eq!(posts.len(), 2, "{posts:?}");
}

/// Anything but 2xx is tried again, over restarts, with the same id; redirects are not followed; what is about the same account
/// waits for its turn, what is about another does not.
#[test]
fn what_is_not_taken_is_tried_again_in_order() {
    let (upstream, receiver) = (upstream(), Receiver::start());
    let mut gatepost = setup(&upstream, &receiver).set("limit.observe", true).start();
    let elsewhere = format!("307 Temporary Redirect\r\nlocation: {}", receiver.url());
    receiver.answer_next(&[&elsewhere, "500 Internal Server Error"]);
    cross(&gatepost, "alice");
    receiver.expect(1);
    gatepost.expect_log("that it was put off", |line| line.to_string().contains("event put off"));
    cross(&gatepost, "bob");
    let posts = receiver.expect(2);
    assert_eq!(posts[1].json()["data"]["account"], "user:bob");
    gatepost.terminate();
    gatepost.start();
    let posts = receiver.expect(4);
    for post in &posts {
        post.expect_signed();
        assert_eq!(post.kind(), "account.would_block");
    }
    for (first, again) in [(0, 2), (1, 3)] {
        assert_eq!(posts[first].fields["webhook-id"], posts[again].fields["webhook-id"]);
        assert_eq!(posts[first].body, posts[again].body);
    }
    // With `observe` the account counts on.
    assert_eq!(posts[0].json()["data"]["state"], "counting");
}

/// A crash between the block and the event loses nothing: the receiver was never there.
#[test]
fn an_event_outlives_a_crash() {
    let (upstream, receiver) = (upstream(), Receiver::start());
    let url = receiver.url();
    let mut gatepost = setup(&upstream, &receiver).set("notify.webhook", "http://127.0.0.1:9/nobody").start();
    cross(&gatepost, "alice");
    gatepost.expect_log("that it was put off", |line| line.to_string().contains("event put off"));
    gatepost.kill();
    gatepost.replace_in_config("http://127.0.0.1:9/nobody", &url);
    gatepost.start();
    assert_eq!(receiver.expect(1)[0].json()["data"]["account"], "user:alice");
}

/// A template gives the mail about an account its text, and its subject if it has one.
#[test]
fn the_notice_in_ones_own_words() {
    let upstream = upstream();
    let template = "Subject: Konto {account} gesperrt\n\n{count} von {limit} in {period}:\n{samples}\n\ngatepost unblock {account}\n";
    let gatepost = Setup::new(upstream.address)
        .limit(2)
        .notify("abuse@mta.example")
        .set("notify.template", "notice.txt")
        .file("notice.txt", template)
        .start();
    cross(&gatepost, "alice");
    let mail = String::from_utf8(upstream.expect_taken(1).remove(0).data).unwrap();
    for part in [
        "Subject: Konto user:alice gesperrt\r\n",
        "2 von 2 in 1 hour:\r\n",
        "nobody-2@mta.example  from 127.0.0.1\r\n",
        "\r\n\r\ngatepost unblock user:alice\r\n",
    ] {
        assert!(mail.contains(part), "{part}\n{mail}");
    }
    assert!(!mail.contains("WHAT TO DO"), "{mail}");
}

/// `check` and the start name a template that is none, and a secret that is none; `check` names one that everybody can read.
#[test]
fn files_that_cannot_be_used_are_named() {
    let (upstream, receiver) = (upstream(), Receiver::start());
    for (key, file, content, part) in [
        (
            "notify.template",
            "notice.txt",
            "Konto {acount}\n",
            "notice.txt:1: {acount} is unknown; there are {event}, {account},",
        ),
        ("notify.webhook_secret_file", "secret", "sesame\n", "secret:1: a secret is whsec_ and base64"),
    ] {
        let mut gatepost = setup(&upstream, &receiver).set(key, file).file(file, content).write();
        let finished = gatepost.run(&["check"]).expect(1);
        assert!(
            format!("{}{}", finished.stdout, finished.stderr).contains(part),
            "{}{}",
            finished.stdout,
            finished.stderr
        );
        let finished = gatepost.run(&["serve"]).expect(1);
        assert!(finished.stderr.contains(part), "{}", finished.stderr);
        assert!(finished.stderr.trim_end().lines().count() == 1, "{}", finished.stderr);
        gatepost.kill();
    }
    let gatepost = setup(&upstream, &receiver).write();
    let readable = gatepost.run(&["check"]);
    assert!(readable.stdout.contains("secret has mode 0"), "{}{}", readable.stdout, readable.stderr);
}

/// Blocks and unblocks by hand are events too, also those that were made while `serve` was down.
#[test]
fn what_is_done_by_hand_is_posted_too() {
    let (upstream, receiver) = (upstream(), Receiver::start());
    let mut gatepost = setup(&upstream, &receiver).start();
    gatepost.run(&["block", "alice", "--reason", "phished"]).expect(0);
    let blocked = receiver.expect(1).remove(0).json();
    assert_eq!(blocked["type"], "account.blocked");
    assert_eq!(blocked["data"], gatepost.status("user:alice").unwrap());
    assert_eq!(
        (&blocked["data"]["blocked_by"], &blocked["data"]["reason"]),
        (&json!("operator"), &json!("phished"))
    );
    gatepost.login("alice").submit("alice@mta.example", &["bob@mta.example"], &message("parked"));
    gatepost.run(&["unblock", "alice"]).expect(0);
    let unblocked = receiver.expect(2).remove(1).json();
    assert_eq!(unblocked["type"], "account.unblocked");
    let data = &unblocked["data"];
    assert_eq!((&data["account"], &data["state"]), (&json!("user:alice"), &json!("counting")));
    assert_eq!(
        (&data["blocked_at"], &data["invalid_recipients"], &data["parked"]),
        (&json!(null), &json!(0), &json!(1))
    );
    // What is so already is no event.
    gatepost.run(&["unblock", "alice"]).expect(0);
    gatepost.terminate();
    gatepost.run(&["block", "bob"]).expect(0);
    gatepost.run(&["unblock", "bob"]).expect(0);
    gatepost.run(&["block", "bob"]).expect(0);
    gatepost.start();
    let posts = receiver.expect(4);
    let told: Vec<_> =
        posts[2..].iter().map(|post| (post.kind(), post.json()["data"]["account"].clone())).collect();
    assert_eq!(
        told,
        [
            ("account.unblocked".to_owned(), json!("user:bob")),
            ("account.blocked".to_owned(), json!("user:bob"))
        ]
    );
    // Who blocks by hand knows: no mail.
    assert_eq!(upstream.taken().len(), 0);
}

/// An alarm that blocks says so; observed it says what it would have done, once a day.
#[test]
fn an_alarm_that_blocks_is_posted() {
    for (observe, kind, state) in
        [(false, "account.blocked", "blocked"), (true, "account.would_block", "counting")]
    {
        let (upstream, receiver) = (upstream(), Receiver::start());
        let gatepost = setup(&upstream, &receiver)
            .limit(100)
            .set("limit.observe", observe)
            .set("detection.on_alarm", "block")
            .set("detection.threshold", 2.0)
            .start();
        cross(&gatepost, "alice");
        let post = receiver.expect(1).remove(0);
        post.expect_signed();
        let event = post.json();
        let mut status = gatepost.status("user:alice").unwrap();
        // The session has ended meanwhile.
        status["sessions"] = event["data"]["sessions"].clone();
        assert_eq!((&event["type"], &event["data"]), (&json!(kind), &status));
        let by = if observe { json!(null) } else { json!("detection") };
        assert_eq!((&status["state"], &status["blocked_by"]), (&json!(state), &by));
        // The next event that there is: nothing more came of alice.
        cross(&gatepost, "bob");
        let posts = receiver.expect(2);
        assert_eq!(
            (posts[1].kind().as_str(), &posts[1].json()["data"]["account"]),
            (kind, &json!("user:bob"))
        );
    }
}

/// An upstream that says 250 to everybody is an event too.
#[test]
fn a_blind_upstream_is_posted() {
    let (upstream, receiver) = (upstream(), Receiver::start());
    let gatepost = setup(&upstream, &receiver).start();
    let mut client = gatepost.login("alice");
    client.expect("MAIL FROM:<alice@mta.example>", 250);
    for _ in 0..10 {
        client.send("RCPT TO:<bob@mta.example>\r\n".repeat(100).as_bytes());
        (0..100).for_each(|_| drop(client.expect_reply(250)));
    }
    let post = receiver.expect(1).remove(0);
    post.expect_signed();
    let event = post.json();
    assert_eq!(
        (&event["type"], &event["data"]),
        (&json!("upstream.blind"), &json!({ "recipients": 1000, "domains": "all" }))
    );
}

/// `[limit] unblock_after` lifts automatic blocks alone; parked mail stays; the count begins anew; over restarts too.
#[test]
fn automatic_blocks_are_lifted_when_their_time_is_over() {
    let (upstream, receiver) = (upstream(), Receiver::start());
    let mut gatepost = setup(&upstream, &receiver).set("limit.unblock_after", "4s").start();
    gatepost.run(&["block", "bob"]).expect(0);
    cross(&gatepost, "alice");
    gatepost.login("alice").submit("alice@mta.example", &["bob@mta.example"], &message("parked"));
    assert_eq!(gatepost.status("user:alice").unwrap()["state"], "blocked");
    receiver.expect(2);
    gatepost.kill();
    gatepost.start();
    let event = receiver.expect(3).remove(2).json();
    assert_eq!(
        (&event["type"], &event["data"]["account"]),
        (&json!("account.unblocked"), &json!("user:alice"))
    );
    assert!(gatepost.status("user:alice").is_none(), "nothing is left in the window");
    assert_eq!(gatepost.parked().len(), 1);
    assert_eq!(gatepost.status("user:bob").unwrap()["state"], "blocked");
    gatepost.expect_log("that it was lifted", |line| line.to_string().contains("unblock_after is over"));
    gatepost.expect_log("it in the audit", |line| {
        let line = line.to_string();
        line.contains("by itself") && line.contains("user:alice") && line.contains("unblock_after")
    });
    cross(&gatepost, "alice");
    assert_eq!(gatepost.status("user:alice").unwrap()["invalid_recipients"], 2);
}

/// A lifted block lets nothing out: what was delayed before the block stays parked too.
#[test]
fn what_was_delayed_stays_when_a_block_is_lifted() {
    let (upstream, receiver) = (upstream(), Receiver::start());
    let gatepost = setup(&upstream, &receiver)
        .limit(4)
        .set("limit.unblock_after", "1s")
        .set("detection.threshold", 2.0)
        .set("detection.delay", "5s")
        .start();
    let mut client = gatepost.login("alice");
    client.expect("MAIL FROM:<alice@mta.example>", 250);
    for number in 1..=2 {
        client.expect(&format!("RCPT TO:<nobody-{number}@mta.example>"), 550);
    }
    client.expect("RCPT TO:<bob@mta.example>", 250);
    client.data(&message("delayed"), 250);
    assert!(!gatepost.parked()[0]["due"].is_null());
    client.expect("MAIL FROM:<alice@mta.example>", 250);
    client.expect("RCPT TO:<nobody-3@mta.example>", 550);
    client.expect("RCPT TO:<nobody-4@mta.example>", 250);
    client.quit();
    let posts = receiver.expect(3);
    let kinds: Vec<_> = posts.iter().map(crate::support::receiver::Post::kind).collect();
    assert_eq!(kinds, ["account.probation", "account.blocked", "account.unblocked"]);
    assert_eq!(posts[0].json()["data"]["state"], "probation");
    let parked = gatepost.parked();
    assert!(parked.len() == 1 && parked[0]["due"].is_null(), "{parked:?}");
}
