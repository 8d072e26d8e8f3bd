//! Classification in front of real MTAs that verify foreign recipients, with a second real MTA that refuses for several reasons.

use crate::support::gatepost::Setup;
use crate::support::mta::{FOREIGN, Foreign, Kind, Mta};
use crate::support::smtp::Smtp;

/// CONTRACT, Classification: a reply that quotes another is judged by the innermost quoted one alone.
fn expect_counted(front: Kind, reject_code: Option<u16>, behind: Kind) {
    let second = Mta::start(behind, FOREIGN, Foreign::Unrouted);
    let first =
        Mta::start(front, crate::support::mta::DOMAIN, Foreign::Verified { by: second.address, reject_code });
    let gatepost = Setup::new(first.address).set("upstream.canary", vec![FOREIGN]).start();
    let rows: &[(&str, bool)] = &[
        ("nobody-1", true), // Postfix: 550 5.1.1 ... User unknown; Exim: 550 Unrouteable address
        ("gone", true),     // 550 5.1.1
        ("moved", true),    // 550 5.1.6
        ("gone-bare", behind == Kind::Exim), // 550 without enhanced code; a Postfix puts 5.7.1 there
        ("listed", false),  // 550 5.7.1 ... blocked using
        ("refused", false), // 550 5.7.1
        ("overfull", false), // 552 5.2.2
        ("disabled", false), // 550 5.2.1
        ("full", false),    // 452 4.2.2
        ("sick", false),    // 451 4.3.0
    ];
    let mut client = gatepost.login("alice");
    // One call-out may take seconds.
    client.set_patience(std::time::Duration::from_secs(60));
    client.expect("MAIL FROM:<alice@mta.example>", 250);
    client.expect(&format!("RCPT TO:<bob@{FOREIGN}>"), 250);
    let mut count = 0;
    for (recipient, counts) in rows {
        let reply = client.ask(&format!("RCPT TO:<{recipient}@{FOREIGN}>"));
        // The README's recipe for Exim lets through whom it cannot ask about just now (`defer_ok`).
        let deferred = front == Kind::Exim && ["full", "sick"].contains(recipient);
        assert_eq!(reply.code < 400, deferred, "{recipient}: {}", reply.text());
        // The README: 550 for who is known dead, whatever for; 450 for what cannot be told just now.
        if front == Kind::Postfix {
            let dead = !["full", "sick"].contains(recipient);
            let code = if dead { reject_code.unwrap_or(550) } else { 450 };
            assert_eq!(reply.code, code, "{recipient}: {}", reply.text());
        }
        count += i64::from(*counts);
        let status = gatepost.status("user:alice");
        let counted = status.map_or(0, |object| object["invalid_recipients"].as_i64().unwrap());
        assert_eq!(counted, count, "after {recipient}, which was answered {}", reply.text());
    }
    // CONTRACT, check: blind, at its own or a canary domain. Neither is.
    gatepost.run(&["check"]).expect(0);
}

/// Postfix's default: 450 in front even for a recipient known dead.
#[test]
#[ignore = "needs tests/install: Postfix, Exim"]
fn postfix_that_verifies_with_450_in_front_of_exim() {
    expect_counted(Kind::Postfix, Some(450), Kind::Exim);
}

#[test]
#[ignore = "needs tests/install: Postfix"]
fn postfix_that_verifies_with_550_in_front_of_postfix() {
    expect_counted(Kind::Postfix, None, Kind::Postfix);
}

#[test]
#[ignore = "needs tests/install: Postfix, Exim"]
fn exim_that_calls_out_in_front_of_postfix() {
    expect_counted(Kind::Exim, None, Kind::Postfix);
}

#[test]
#[ignore = "needs tests/install: Exim"]
fn exim_that_calls_out_in_front_of_exim() {
    expect_counted(Kind::Exim, None, Kind::Exim);
}

/// The README's recipe: servers must not be asked whenever a stranger sends something, since that gets the MTA onto blocklists.
#[test]
#[ignore = "needs tests/install: Exim"]
fn exim_calls_out_for_gatepost_alone() {
    let second = Mta::start(Kind::Exim, FOREIGN, Foreign::Unrouted);
    let first = Mta::start(
        Kind::Exim,
        crate::support::mta::DOMAIN,
        Foreign::Verified { by: second.address, reject_code: None },
    );
    for (address, expected) in [(first.public, 250), (first.address, 550)] {
        let mut client = Smtp::connect(address);
        client.ehlo();
        client.expect("MAIL FROM:<x@else.example>", 250);
        client.expect(&format!("RCPT TO:<nobody-1@{FOREIGN}>"), expected);
    }
}
