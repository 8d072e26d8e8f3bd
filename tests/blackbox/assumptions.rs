//! What the other tests take for granted of the real MTAs, asked of them without Gatepost in between.

use crate::support::mta::{DOMAIN, Mta, REFUSALS};
use crate::support::smtp::{Smtp, message};

/// Issue 3, Proof: real local users: valid, unknown, policy-refused and full mailboxes.
#[test]
#[ignore = "needs tests/install: Postfix"]
fn postfix_answers_as_the_tests_assume() {
    let mta = Mta::postfix();
    let mut client = Smtp::connect(mta.address);
    assert!(client.ehlo().offers("XCLIENT"));
    // Issue 3: Postfix judges by the client's address after XCLIENT; without a LOGIN it denies relaying.
    client.expect("XCLIENT NAME=[UNAVAILABLE] ADDR=127.0.0.9 PORT=4711 PROTO=ESMTP HELO=client.example", 220);
    client.ehlo();
    client.expect("MAIL FROM:<alice@mta.example>", 250);
    client.expect("RCPT TO:<bob@elsewhere.example>", 554);
    expect_refusals(
        &mut client,
        "550 5.1.1 <nobody-0@mta.example>: Recipient address rejected: User unknown in local recipient table",
    );
    client.expect("RCPT TO:<bob@mta.example>", 250);
    client.data(&message("direct"), 250);
    mta.expect_mail("bob", 1);

    // The README's recipe: permit_sasl_authenticated believes XCLIENT LOGIN.
    let mut client = Smtp::connect(mta.address);
    client.ehlo();
    client.expect("XCLIENT ADDR=127.0.0.9 LOGIN=alice", 220);
    client.ehlo();
    client.expect("MAIL FROM:<alice@mta.example>", 250);
    client.expect("RCPT TO:<bob@elsewhere.example>", 250);

    // Issue 3: it hangs up after 20 refused recipients.
    let replies = Smtp::connect(mta.address).refused_until_closed();
    assert_eq!(replies.last().map(|reply| reply.code), Some(421), "{replies:?}");
    assert!(replies.len() <= 21);
}

/// The same of Exim, which knows no XCLIENT in Debian 12, and gives no enhanced status codes.
#[test]
#[ignore = "needs tests/install: Exim"]
fn exim_answers_as_the_tests_assume() {
    let mta = Mta::exim();
    let mut client = Smtp::connect(mta.address);
    assert!(!client.ehlo().offers("ENHANCEDSTATUSCODES"));
    client.expect("MAIL FROM:<alice@mta.example>", 250);
    expect_refusals(&mut client, "550 Unrouteable address");
    client.expect("RCPT TO:<bob@mta.example>", 250);
    client.data(&message("direct"), 250);
    mta.expect_mail("bob", 1);
}

fn expect_refusals(client: &mut Smtp, unknown: &str) {
    assert_eq!(client.ask(&format!("RCPT TO:<nobody-0@{DOMAIN}>")).text(), unknown);
    for (name, refusal) in REFUSALS {
        let reply = client.ask(&format!("RCPT TO:<{name}@{DOMAIN}>"));
        let (code, text) = refusal.split_once(' ').unwrap();
        assert_eq!(reply.code.to_string(), code, "{name}: {}", reply.text());
        // Postfix puts the address and its own words in between, and 5.7.1 where there is no enhanced code.
        let last_words = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.' || c == ' ');
        assert!(reply.text().ends_with(last_words), "{name}: {}", reply.text());
    }
}

impl Smtp {
    /// Asks about recipients that do not exist until the server has had enough.
    fn refused_until_closed(&mut self) -> Vec<crate::support::smtp::Reply> {
        self.ehlo();
        self.expect("MAIL FROM:<alice@mta.example>", 250);
        let mut replies = Vec::new();
        while replies.len() < 30 {
            let reply = self.ask(&format!("RCPT TO:<nobody-{}@{DOMAIN}>", replies.len()));
            let over = reply.code == 421;
            replies.push(reply);
            if over {
                break;
            }
        }
        replies
    }
}
