//! What is offered of the upstream's extensions, who may send as whom, other protocols.

use super::Start::{Clear, Implicit, Refusing, Relay, User};
use super::play_all;

#[test]
fn extensions_passed_on() {
    play_all(&[
        (
            "offered where the upstream has them, REQUIRETLS on TLS alone, BINARYMIME only with CHUNKING",
            User,
            "V: offers CHUNKING|BINARYMIME|REQUIRETLS|DELIVERBY 60|FUTURERELEASE 9 2027-01-01T00:00:00Z|MT-PRIORITY MIXER
            C: EHLO x
            S: 250-mx.example.org
            S: 250-PIPELINING
            S: 250-SIZE 1000
            S: 250-AUTH PLAIN LOGIN
            S: 250-ENHANCEDSTATUSCODES
            S: 250-BINARYMIME
            S: 250-REQUIRETLS
            S: 250-DELIVERBY 60
            S: 250-FUTURERELEASE 9 2027-01-01T00:00:00Z
            S: 250-MT-PRIORITY MIXER
            S: 250-CHUNKING
            S: 250-HELP
            S: 250 LIMITS RCPTMAX=3
            C: MAIL FROM:<a@example.org> REQUIRETLS BY=90;R HOLDFOR=3 MT-PRIORITY=-9 BODY=BINARYMIME
            > ask MAIL <a@example.org>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok
            C: RCPT TO:<b@example.org>
            > ask RCPT <b@example.org>
            U: 250 2.1.5 Ok
            S: 250 2.1.5 Ok
            C: DATA
            S: 503 5.5.1 *
            C: BDAT 5 LAST
            > chunk 5 last",
        ),
        (
            "RFC 8689 2: not on cleartext",
            Relay,
            "V: offers REQUIRETLS|BINARYMIME
            C: EHLO x
            S: 250-mx.example.org
            S: 250-PIPELINING
            S: 250-SIZE 1000
            S: 250-STARTTLS
            S: 250-ENHANCEDSTATUSCODES
            S: 250-CHUNKING
            S: 250-HELP
            S: 250 LIMITS RCPTMAX=3
            C: MAIL FROM:<a@example.org> REQUIRETLS
            S: 555 5.5.4 *
            C: MAIL FROM:<a@example.org> BODY=BINARYMIME
            S: 555 5.5.4 *",
        ),
        (
            "RFC 5321 4.1.1.11: what was not offered",
            User,
            "C: MAIL FROM:<a@example.org> REQUIRETLS
            S: 555 5.5.4 *
            C: MAIL FROM:<a@example.org> BY=9;R
            S: 555 5.5.4 *
            C: MAIL FROM:<a@example.org> HOLDUNTIL=2027-01-01T00:00:00Z
            S: 555 5.5.4 *
            C: MAIL FROM:<a@example.org> MT-PRIORITY=1
            S: 555 5.5.4 *
            C: MAIL FROM:<a@example.org> MT-PRIORITY=ten
            S: 501 5.5.4 Bad value of parameter MT-PRIORITY",
        ),
        (
            "RFC 2852 4, 4865 4: values beyond what was offered are refused by us, blocked or not; what has passed is not passed on",
            User,
            "V: offers DELIVERBY 60|FUTURERELEASE 9 2027-01-01T00:00:00Z
            C: EHLO x
            S: 250-mx.example.org
            S: 250-PIPELINING
            S: 250-SIZE 1000
            S: 250-AUTH PLAIN LOGIN
            S: 250-ENHANCEDSTATUSCODES
            S: 250-DELIVERBY 60
            S: 250-FUTURERELEASE 9 2027-01-01T00:00:00Z
            S: 250-CHUNKING
            S: 250-HELP
            S: 250 LIMITS RCPTMAX=3
            C: MAIL FROM:<a@example.org> BY=59;R
            S: 501 5.5.4 Bad value of parameter BY
            C: MAIL FROM:<a@example.org> HOLDFOR=10
            S: 501 5.5.4 Bad value of parameter HOLDFOR
            C: MAIL FROM:<a@example.org> HOLDUNTIL=2027-01-01T00:00:01Z
            S: 501 5.5.4 Bad value of parameter HOLDUNTIL
            C: MAIL FROM:<a@example.org> HOLDUNTIL=2026-02-31T00:00:00Z
            S: 501 5.5.4 Bad value of parameter HOLDUNTIL
            V: blocked
            C: MAIL FROM:<a@example.org> BY=59;R
            S: 501 5.5.4 Bad value of parameter BY
            C: MAIL FROM:<a@example.org> HOLDFOR=10
            S: 501 5.5.4 Bad value of parameter HOLDFOR
            C: MAIL FROM:<a@example.org> HOLDUNTIL=2027-01-01T00:00:01Z
            S: 501 5.5.4 Bad value of parameter HOLDUNTIL
            C: MAIL FROM:<a@example.org> HOLDUNTIL=2026-02-31T00:00:00Z
            S: 501 5.5.4 Bad value of parameter HOLDUNTIL
            C: MAIL FROM:<a@example.org> HOLDUNTIL=2026-01-01t01:00:00+01:00 BY=59;N
            S: 250 2.1.0 Ok",
        ),
        (
            "RFC 9422: the smaller of both sides' limits, offered and kept to, blocked or not",
            User,
            "V: offers LIMITS RCPTMAX=1 MAILMAX=20
            C: EHLO x
            S: 250-mx.example.org
            S: 250-PIPELINING
            S: 250-SIZE 1000
            S: 250-AUTH PLAIN LOGIN
            S: 250-ENHANCEDSTATUSCODES
            S: 250-CHUNKING
            S: 250-HELP
            S: 250 LIMITS MAILMAX=20 RCPTMAX=1
            C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok
            C: RCPT TO:<b@example.org>
            > ask RCPT <b@example.org>
            U: 250 2.1.5 Ok
            S: 250 2.1.5 Ok
            C: RCPT TO:<c@example.org>
            S: 452 4.5.3 *
            V: blocked
            C: RCPT TO:<c@example.org>
            S: 452 4.5.3 *",
        ),
    ]);
}

#[test]
fn senders() {
    const AS_SELF: &str = "V: only-as-self
            C: MAIL FROM:<mallory@example.org>
            S: 550 5.7.1 *
            C: MAIL FROM:<anna@example.com> SIZE=3
            S: 550 5.7.1 *
            C: MAIL FROM:<Anna+x@Example.org>";
    let open = format!("{AS_SELF}\n> ask MAIL <Anna+x@Example.org>");
    let blocked = format!("V: blocked\n{AS_SELF}\nS: 250 2.1.0 Ok");
    let refusing = format!("V: blocked\n{AS_SELF}\nS: 550 5.7.1 This account may not send for now*");
    play_all(&[
        ("refused at MAIL, and nothing is asked upstream", User, &open),
        ("a block does not show", User, &blocked),
        ("nor where it is told", Refusing, &refusing),
        (
            "the null reverse-path is always allowed",
            User,
            "V: only-as-self
            C: MAIL FROM:<>
            > ask MAIL <>",
        ),
        (
            "first what the grammar and the order say",
            Implicit,
            "V: only-as-self
            C: MAIL FROM:<mallory@example.org>
            S: 503 5.5.1 *",
        ),
        (
            "what the header says is told at the end of data",
            User,
            "C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok
            C: RCPT TO:<b@example.org>
            > ask RCPT <b@example.org>
            U: 250 2.1.5 Ok
            S: 250 2.1.5 Ok
            C: DATA
            S: 354 *
            > data
            D: foreign-from
            S: 550 5.7.1 *
            C: RCPT TO:<b@example.org>
            S: 503 5.5.1 *
            D: loop
            S: 554 5.4.6 *",
        ),
    ]);
}

#[test]
fn other_protocols() {
    play_all(&[
        (
            "ALPACA: what follows a request of HTTP is not looked at",
            Clear,
            "C: POST / HTTP/1.1
            S: 500 5.5.1 *
            > close
            C: Host: mx.example.org
            > close",
        ),
        (
            "HTTP/2, within a session",
            User,
            "C: PRI * HTTP/2.0
            S: 500 5.5.1 *
            > close",
        ),
        (
            "TLS where STARTTLS was to be said",
            Clear,
            "E: connected
            S: 220 mx.example.org ESMTP
            L: tls-hello
            S: 500 5.5.1 *
            > close",
        ),
    ]);
}
