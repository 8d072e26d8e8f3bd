//! The seed scenario, in full: a list of recipients that do not exist, the block, the notice, the quarantine, the release.

use crate::support::contains;
use crate::support::gatepost::{Gatepost, Setup};
use crate::support::mta::{DOMAIN, Kind, Mta};
use crate::support::smtp::{Reply, Smtp, message};
use crate::support::{PATIENCE, shown, wait_for};

#[derive(Clone, Copy)]
enum Who {
    User,
    RelayHost,
}

impl Who {
    fn account(self) -> &'static str {
        match self {
            Self::User => "user:alice",
            Self::RelayHost => "host:127.0.0.2",
        }
    }

    fn session(self, gatepost: &Gatepost) -> Smtp {
        match self {
            Self::User => gatepost.login("alice"),
            Self::RelayHost => gatepost.relay(),
        }
    }

    /// CONTRACT, Headers.
    fn mark(self) -> &'static str {
        match self {
            Self::User => "\r\nX-Authenticated-As: alice\r\n",
            Self::RelayHost => "\r\nX-Relayed-From: 127.0.0.2\r\n",
        }
    }

    /// CONTRACT, Headers: RFC 3848.
    fn protocol(self) -> &'static str {
        match self {
            Self::User => "with ESMTPSA",
            Self::RelayHost => "with ESMTP\r\n",
        }
    }
}

#[test]
#[ignore = "needs tests/install: Postfix"]
fn a_user_in_front_of_postfix() {
    seed_scenario(Kind::Postfix, Who::User);
}

#[test]
#[ignore = "needs tests/install: Postfix"]
fn a_relay_host_in_front_of_postfix() {
    seed_scenario(Kind::Postfix, Who::RelayHost);
}

#[test]
#[ignore = "needs tests/install: Exim"]
fn a_user_in_front_of_exim() {
    seed_scenario(Kind::Exim, Who::User);
}

#[test]
#[ignore = "needs tests/install: Exim"]
fn a_relay_host_in_front_of_exim() {
    seed_scenario(Kind::Exim, Who::RelayHost);
}

/// Issue 3, Proof: 100 unknown recipients, block, notice, later messages parked and not seen by the MTA, `unblock --release`,
/// delivered byte for byte.
fn seed_scenario(kind: Kind, who: Who) {
    let mta = Mta::start(kind, DOMAIN, crate::support::mta::Foreign::Unrouted);
    let gatepost = Setup::new(mta.address).relay().notify("abuse@mta.example").start();

    let mut client = who.session(&gatepost);
    client.submit("alice@mta.example", &["bob@mta.example"], &message("honest"));
    mta.expect_mail("bob", 1);

    let crossing = message("crossing");
    client.expect("MAIL FROM:<alice@mta.example>", 250);
    client.expect("RCPT TO:<bob@mta.example>", 250);
    expect_no_count_for_refusals(&mut client, &gatepost, who);
    expect_honest_answers(kind, &client.harvest(100, DOMAIN));
    client.data(&crossing, 250);

    let status = gatepost.status(who.account()).expect("the account is listed");
    assert_eq!(status["state"], "blocked");
    assert_eq!(status["blocked_by"], "limit");
    assert_eq!(status["invalid_recipients"], 100);
    assert_eq!((&status["limit"], &status["period_seconds"]), (&100.into(), &3600.into()));
    assert_eq!((&status["parked"], &status["sessions"]), (&1.into(), &1.into()));

    // The sequential test alarmed long before: its notice came first.
    let notices = mta.expect_mail("abuse", 2);
    let notice =
        notices.iter().find(|notice| contains(notice, b"Subject: Blocked")).expect("a notice of the block");
    for words in [who.account(), "100", "nobody-", "quarantine list", "unblock"] {
        assert!(
            contains(notice, words.as_bytes()),
            "`{words}` is not in the notice:\n{}",
            String::from_utf8_lossy(notice)
        );
    }

    // The same session and another one; a forged mark of ours; the MTA sees none of it.
    let forged =
        [b"X-Authenticated-As: postmaster\r\nX-Relayed-From: 192.0.2.1\r\n", &message("later")[..]].concat();
    client.submit("alice@mta.example", &["bob@mta.example", "carol@mta.example"], &forged);
    let mut other = who.session(&gatepost);
    other.submit(
        "alice@mta.example",
        &["dave@mta.example", "nobody-at-all@mta.example"],
        &message("another session"),
    );
    let parked = gatepost.parked();
    let subjects: Vec<_> = parked.iter().map(|object| object["subject"].as_str().unwrap()).collect();
    assert_eq!(subjects, ["crossing", "later", "another session"]);
    for object in &parked {
        assert_eq!((&object["account"], &object["state"]), (&who.account().into(), &"parked".into()));
        assert_eq!(object["sender"], "alice@mta.example");
    }
    assert_eq!(parked[1]["recipients"], serde_json::json!(["bob@mta.example", "carol@mta.example"]));
    assert_eq!(parked[1]["size"], forged.len());
    assert_eq!(mta.delivered(), 3, "the honest message and two notices, nothing else");
    for secret in ["carol@", "dave@", "nobody-at-all@", "later@client.example"] {
        assert!(!mta.log().contains(secret), "the MTA has seen {secret}");
    }
    // CONTRACT, `quarantine show --raw`: octet for octet as it arrived.
    let raw =
        gatepost.run(&["quarantine", "show", parked[1]["id"].as_str().unwrap(), "--raw"]).expect(0).stdout;
    assert_eq!(raw.as_bytes(), forged, "quarantine show --raw");

    gatepost.run(&["unblock", who.account(), "--release"]).expect(0);
    let bob = mta.expect_mail("bob", 3);
    mta.expect_mail("carol", 1);
    mta.expect_mail("dave", 1);
    let later = bob.iter().find(|mail| contains(mail, b"\r\nSubject: later\r\n")).expect("`later` arrived");
    expect_unchanged(later, &message("later"));
    assert!(bob.iter().any(|mail| mail.ends_with(&crossing)), "`crossing` arrived octet for octet");
    for trace in [who.mark(), who.protocol()] {
        assert!(
            contains(later, trace.as_bytes()),
            "no {}:\n{}",
            shown(trace.as_bytes()),
            String::from_utf8_lossy(later)
        );
    }
    for forgery in ["postmaster", "192.0.2.1"] {
        assert!(
            !contains(later, forgery.as_bytes()),
            "the client's own mark was left:\n{}",
            String::from_utf8_lossy(later)
        );
    }

    // CONTRACT, Release: refused for good with others taken: released, and one DSN a message to the sender.
    let gone = wait_for(PATIENCE, || Some(()).filter(|()| gatepost.parked().is_empty()));
    assert!(gone.is_some(), "still there: {:?}", gatepost.parked());
    for report in mta.expect_mail("alice", 2) {
        assert!(
            contains(&report, b"message/delivery-status"),
            "no DSN:\n{}",
            String::from_utf8_lossy(&report)
        );
        assert!(contains(&report, b"nobody-"), "{}", String::from_utf8_lossy(&report));
    }

    // CONTRACT, `unblock`: also forgets the window; the account is served as before.
    assert_eq!(gatepost.status(who.account()), None);
    client.submit("alice@mta.example", &["bob@mta.example"], &message("afterwards"));
    mta.expect_mail("bob", 4);
    assert_eq!(mta.mailbox("abuse").len(), 2, "one notice for one probation, one for one block");
}

/// CONTRACT, Classification: no 5.2.x, 5.7.x, 4xx.
fn expect_no_count_for_refusals(client: &mut Smtp, gatepost: &Gatepost, who: Who) {
    for (recipient, code) in
        [("refused", 550), ("full", 452), ("overfull", 552), ("sick", 451), ("disabled", 550)]
    {
        client.expect(&format!("RCPT TO:<{recipient}@{DOMAIN}>"), code);
    }
    assert_eq!(gatepost.status(who.account()), None, "nothing has been counted");
}

/// CONTRACT, SMTP: RCPT of an account that is not blocked: the upstream's own reply; the crossing one: 250.
fn expect_honest_answers(kind: Kind, replies: &[Reply]) {
    for (number, reply) in replies.iter().take(99).enumerate() {
        let expected = match kind {
            Kind::Postfix => format!(
                "550 5.1.1 <nobody-{number}@mta.example>: Recipient address rejected: User unknown in local recipient table"
            ),
            // Exim gives no enhanced code; ENHANCEDSTATUSCODES is offered, so there has to be one (RFC 2034).
            Kind::Exim => "550 5.0.0 Unrouteable address".to_owned(),
            Kind::OpenSmtpd | Kind::Dovecot(_) => {
                format!("550 5.0.0 Invalid recipient: <nobody-{number}@mta.example>")
            }
        };
        assert_eq!(reply.text(), expected);
    }
    assert_eq!(replies[99].code, 250, "the crossing RCPT: {}", replies[99].text());
}

/// Body and original header stand unchanged behind the added headers.
fn expect_unchanged(arrived: &[u8], sent: &[u8]) {
    assert!(
        arrived.ends_with(sent),
        "changed on the way\n--- sent\n{}\n--- arrived\n{}",
        String::from_utf8_lossy(sent),
        String::from_utf8_lossy(arrived)
    );
}
