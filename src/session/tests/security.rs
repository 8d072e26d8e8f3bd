//! TLS, AUTH, and how many errors are tolerated.

use super::{Start::*, play, play_all};

#[test]
fn starttls() {
    play_all(&[
        (
            "CONTRACT: cleartext offers no AUTH; MAIL wants TLS, then AUTH",
            Clear,
            "C: MAIL FROM:<a@example.org>
            S: 530 5.7.0 Must issue a STARTTLS command first
            C: EHLO x
            S: 250-mx.example.org
            S: 250-PIPELINING
            S: 250-SIZE 1000
            S: 250-STARTTLS
            S: 250-ENHANCEDSTATUSCODES
            S: 250-8BITMIME
            S: 250-DSN
            S: 250-SMTPUTF8
            S: 250-CHUNKING
            S: 250-HELP
            S: 250 LIMITS RCPTMAX=3
            C: MAIL FROM:<a@example.org>
            S: 530 5.7.0 Must issue a STARTTLS command first
            C: STARTTLS
            S: 220 2.0.0 Ready to start TLS
            > starttls
            E: tls
            C: MAIL FROM:<a@example.org>
            S: 503 5.5.1 Send EHLO first
            C: AUTH PLAIN
            S: 503 5.5.1 Send EHLO first
            C: EHLO x
            S: 250-mx.example.org
            S: 250-PIPELINING
            S: 250-SIZE 1000
            S: 250-AUTH PLAIN LOGIN
            S: 250-ENHANCEDSTATUSCODES
            S: 250-8BITMIME
            S: 250-DSN
            S: 250-SMTPUTF8
            S: 250-CHUNKING
            S: 250-HELP
            S: 250 LIMITS RCPTMAX=3
            C: MAIL FROM:<a@example.org>
            S: 530 5.7.0 Authentication required
            C: STARTTLS
            S: 503 5.5.1 TLS is active already
            C: AUTH PLAIN AGFubmEAeA==
            > auth PLAIN AGFubmEAeA==
            A: anna
            S: 235 2.7.0 *
            C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>",
        ),
        (
            "RFC 3207 4.2: STARTTLS forgets EHLO and the transaction (a relay host's)",
            Relay,
            "C: MAIL FROM:<>
            > ask MAIL <>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok
            C: STARTTLS
            S: 220 2.0.0 *
            > starttls
            E: tls
            C: RCPT TO:<b@example.org>
            S: 503 5.5.1 *
            C: MAIL FROM:<>
            S: 503 5.5.1 Send EHLO first
            C: HELO x
            S: 250 mx.example.org
            C: MAIL FROM:<>
            > ask MAIL <>",
        ),
        (
            "an implicit listener has no STARTTLS",
            Implicit,
            "C: EHLO x
            S: 250-mx.example.org
            S: 250-PIPELINING
            S: 250-SIZE 1000
            S: 250-AUTH PLAIN LOGIN
            S: 250-ENHANCEDSTATUSCODES
            S: 250-8BITMIME
            S: 250-DSN
            S: 250-SMTPUTF8
            S: 250-CHUNKING
            S: 250-HELP
            S: 250 LIMITS RCPTMAX=3
            C: STARTTLS
            S: 503 5.5.1 *",
        ),
        (
            "STARTTLS takes no parameters, and is not run with some",
            Clear,
            "C: EHLO x
            S: 250-*
            S: 250-*
            S: 250-*
            S: 250-*
            S: 250-*
            S: 250-*
            S: 250-*
            S: 250-*
            S: 250-*
            S: 250-*
            S: 250 *
            C: STARTTLS now
            S: 501 5.5.4 *",
        ),
    ]);
}

#[test]
fn auth() {
    play_all(&[
        (
            "CONTRACT: on cleartext 538 5.7.11, before EHLO, on a relay host, whatever the mechanism",
            Relay,
            "C: AUTH PLAIN AGFubmEAeA==
            S: 538 5.7.11 *
            C: AUTH NO-SUCH
            S: 538 5.7.11 *
            C: MAIL FROM:<>
            > ask MAIL <>",
        ),
        (
            "RFC 4954 4: once a session, and not in a transaction",
            User,
            "C: AUTH LOGIN
            S: 503 5.5.1 Already authenticated
            C: EHLO x
            S: 250-*
            S: 250-*
            S: 250-*
            S: 250-*
            S: 250-*
            S: 250-*
            S: 250-*
            S: 250-*
            S: 250-*
            S: 250-*
            S: 250 *
            C: AUTH LOGIN
            S: 503 5.5.1 Already authenticated",
        ),
        (
            "a relay host that authenticates in mid-transaction must end that first",
            Relay,
            "C: STARTTLS
            S: 220 2.0.0 *
            > starttls
            E: tls
            C: HELO x
            S: 250 mx.example.org
            C: MAIL FROM:<>
            > ask MAIL <>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok
            C: AUTH PLAIN
            S: 503 5.5.1 A mail transaction is under way; send RSET first
            C: RSET
            S: 250 2.0.0 Ok
            C: AUTH PLAIN
            > auth PLAIN
            A: anna
            S: 235 2.7.0 *",
        ),
        (
            "where nobody can log in, AUTH is neither offered nor known",
            Implicit,
            "V: no-auth
            C: EHLO x
            S: 250-mx.example.org
            S: 250-PIPELINING
            S: 250-SIZE 1000
            S: 250-ENHANCEDSTATUSCODES
            S: 250-8BITMIME
            S: 250-DSN
            S: 250-SMTPUTF8
            S: 250-CHUNKING
            S: 250-HELP
            S: 250 LIMITS RCPTMAX=3
            C: AUTH PLAIN
            S: 502 5.5.1 *",
        ),
        (
            "an AUTH that is none",
            User,
            "C: AUTH
            S: 501 5.5.4 *
            C: AUTH PLAIN a b
            S: 501 5.5.4 *
            L: auth-too-long
            S: 500 5.5.6 *",
        ),
    ]);
    for (outcome, reply) in [
        ("denied", "535 5.7.8 Authentication credentials invalid"),
        ("malformed", "501 5.5.2 *"),
        ("base64", "501 5.5.2 *"),
        ("too-long", "500 5.5.6 *"),
        ("cancelled", "501 5.7.0 *"),
        ("not-offered", "504 5.5.4 *"),
        ("later", "454 4.7.0 *"),
    ] {
        let script = format!(
            "C: HELO x
            S: 250 mx.example.org
            C: auth login
            > auth LOGIN
            A: {outcome}
            S: {reply}
            C: MAIL FROM:<>
            S: 530 5.7.0 *
            C: AUTH PLAIN =
            > auth PLAIN =
            A: anna
            S: 235 2.7.0 *"
        );
        play(outcome, Implicit, &script);
    }
}

#[test]
fn ten_errors() {
    let borne = |line: &str, reply: &str| format!("{line}\nS: {reply}\n").repeat(9);
    for (line, reply) in [
        ("C: XYZZY", "500 5.5.1 *"),
        ("C: NOOP \u{1}", "501 5.5.2 *"),
        ("L: fault", "500 5.5.2 *"),
        ("L: too-long", "500 5.5.2 *"),
        ("L: auth-too-long", "500 5.5.6 *"),
        ("A: denied", "535 5.7.8 *"),
        ("A: cancelled", "501 5.7.0 *"),
        ("C: EXPN staff", "502 5.5.1 *"),
        ("C: MAIL FROM:<a@@b>", "501 5.1.7 *"),
        ("C: MAIL FROM:<> FOO=BAR", "555 5.5.4 *"),
        ("C: MAIL FROM:<> SIZE=x", "501 5.5.4 *"),
        ("C: MAIL FROM:<> SIZE=2000", "552 5.3.4 *"),
        ("C: DATA", "503 5.5.1 *"),
        ("C: DATA now", "501 5.5.4 *"),
        ("E: discarded", "503 5.5.1 *"),
    ] {
        let script = format!("{}{line}\nS: 421 4.7.0 Too many errors; *\n> close", borne(line, reply));
        play("CONTRACT: the 10th error is answered with 421", User, &script);
    }
    // The tenth BDAT without a size closes in any case.
    let script = format!("{}C: BDAT\nS: 421 4.7.0 *\n> close", borne("C: XYZZY", "500 5.5.1 *"));
    play("a chunk without a size", User, &script);

    // Nine errors, then twenty times something that is not an error, then the tenth error.
    for (line, reply) in [
        ("C: RCPT TO:<b@example.org>", "503 5.5.1 *"),
        ("C: RCPT TO:<no-domain>", "503 5.5.1 *"),
        ("C: RCPT", "501 5.5.4 *"),
        ("C: RCPT TO:<a@b> FOO", "555 5.5.4 *"),
        ("C: RCPT TO:<a@b> NOTIFY=x", "501 5.5.4 *"),
        ("C: RCPT TO:<a@b> \u{1}", "501 5.5.2 *"),
        ("D: 554 5.7.1 spam", "554 5.7.1 spam"),
        ("D: full", "452 4.3.1 *"),
        ("D: fault unavailable", "451 4.4.1 *"),
        ("A: later", "454 4.7.0 *"),
        ("C: NOOP", "250 2.0.0 Ok"),
        ("C: VRFY a", "252 2.1.5 *"),
        ("C: MAIL FROM:<>\n> ask MAIL <>\nU: 550 5.7.1 no", "550 5.7.1 no"),
    ] {
        let harmless = format!("{line}\nS: {reply}\n").repeat(20);
        let script =
            format!("{}{harmless}C: XYZZY\nS: 421 4.7.0 *\n> close", borne("C: XYZZY", "500 5.5.1 *"));
        play("CONTRACT: none in answer to RCPT, nor the upstream's own", User, &script);
    }
    let script = format!(
        "C: MAIL FROM:<>\n> ask MAIL <>\nU: 250 2.1.0 Ok\nS: 250 2.1.0 Ok\n{}{}C: XYZZY\nS: 421 4.7.0 *\n> close",
        "C: RCPT TO:<b@example.org>\n> ask RCPT <b@example.org>\nU: 550 5.1.1 no\nS: 550 5.1.1 no\n\
         C: RCPT TO:<b@@example.org>\n> ask PATH b@@example.org\nU: counted\nS: 501 5.1.3 *\n\
         C: RCPT TO:<\u{fc}@example.org>\nS: 553 5.6.7 *\n"
            .repeat(20),
        borne("C: XYZZY", "500 5.5.1 *"),
    );
    play("an address list that is all wrong", User, &script);
}
