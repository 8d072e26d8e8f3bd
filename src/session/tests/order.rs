//! The order of commands and replies (RFC 5321 4.1.4, 2920), and the upstream's replies.

use super::{Start::*, World, play_all, session};
use crate::session::{Event, LineError, Session};
use crate::smtp::Command;

/// RFC 2920 3.1: commands that depend on earlier answers must wait for them.
#[test]
fn what_may_overtake_questions() {
    for (line, expected) in [
        ("RCPT TO:<b@example.org>", true),
        ("RCPT TO:<no-domain>", true),
        ("RCPT TO:<b@example.org> FOO", true),
        ("RCPT TO:<b@@example.org>", false),  // it counts, in its turn
        ("MAIL FROM:<a@example.org>", false), // another transaction
        ("DATA", false),
        ("BDAT 5", false),
        ("RSET", false),
        ("NOOP", false),
        ("EHLO x", false),
        ("QUIT", false),
        ("XYZZY", false),
    ] {
        let parsed = Command::parse(line.as_bytes()).map_err(LineError::Command);
        assert_eq!(Session::may_overtake(&parsed), expected, "{line}");
    }
}

/// Every reply is kept until its turn comes, whoever gives it; their number is limited.
#[test]
fn as_many_wait_as_there_may_be_recipients() {
    for (change, line) in [
        ("", "RCPT TO:<b@example.org>"),
        ("", "RCPT TO:<no-domain>"),
        ("", "RCPT TO:<b@c> FOO"),
        // parsed, and refused without a question
        ("", "RCPT TO:<\u{fc}@example.org>"),
        ("plain-upstream", "RCPT TO:<b@example.org> NOTIFY=NEVER"),
        ("blocked", "RCPT TO:<b@example.org>"),
        ("kicked", "RCPT TO:<b@example.org>"),
    ] {
        let (mut session, mut world) = (session(Refusing), World::new());
        let mut say = |line: &str, world: &World| {
            let line = Command::parse(line.as_bytes()).map_err(LineError::Command);
            let waits = Session::may_overtake(&line) && session.has_room();
            session.handle(Event::Line(line), &world.view(), &mut Vec::new());
            waits
        };
        if change == "plain-upstream" {
            world.change(change);
            say("EHLO client.example", &world);
        }
        say("MAIL FROM:<a@example.org>", &world);
        if !change.is_empty() {
            world.change(change);
        }
        let waiting = (0..9).take_while(|_| say(line, &world)).count();
        assert_eq!(waiting, 3, "{change} {line}");
    }
}

#[test]
fn greetings() {
    play_all(&[
        (
            "RFC 5321 4.2, RFC 2034 3: greeting and EHLO have no enhanced status codes",
            Clear,
            "E: connected
            S: 220 mx.example.org ESMTP
            C: EHLO client.example
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
            C: QUIT
            S: 221 2.0.0 Bye
            > close",
        ),
        (
            "HELO offers nothing",
            Implicit,
            "C: HELO client.example
            S: 250 mx.example.org
            A: anna
            S: 235 2.7.0 Authentication successful
            C: MAIL FROM:<a@example.org> SIZE=10 BODY=8BITMIME
            > ask MAIL <a@example.org>
            U: 250 Ok
            S: 250 2.0.0 Ok",
        ),
        (
            "what is not known of the upstream is not offered, but nor is it refused for good",
            User,
            "V: no-upstream
            C: EHLO client.example
            S: 250-mx.example.org
            S: 250-PIPELINING
            S: 250-SIZE 1000
            S: 250-AUTH PLAIN LOGIN
            S: 250-ENHANCEDSTATUSCODES
            S: 250-CHUNKING
            S: 250-HELP
            S: 250 LIMITS RCPTMAX=3
            C: MAIL FROM:<a@example.org> BODY=8BITMIME
            S: 451 4.4.1 *
            C: MAIL FROM:<a@example.org> SMTPUTF8
            S: 451 4.4.1 *
            C: MAIL FROM:<a@example.org> RET=HDRS
            S: 451 4.4.1 *
            C: MAIL FROM:<a@example.org> ENVID=x
            S: 451 4.4.1 *
            C: MAIL FROM:<a@example.org> REQUIRETLS
            S: 451 4.4.1 *
            C: MAIL FROM:<a@example.org> FOO=BAR
            S: 555 5.5.4 *
            V: blocked
            C: MAIL FROM:<a@example.org> BODY=8BITMIME
            S: 451 4.4.1 *
            V: open
            C: MAIL FROM:<a@example.org> BODY=7BIT SIZE=3 AUTH=<>
            > ask MAIL <a@example.org>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok
            C: RCPT TO:<b@example.org> NOTIFY=NEVER
            S: 451 4.4.1 *
            C: RCPT TO:<b@example.org> ORCPT=rfc822;b@example.org
            S: 451 4.4.1 *",
        ),
        (
            "what the upstream turns out to have can be used in the same session",
            User,
            "V: no-upstream
            C: EHLO client.example
            S: 250-*
            S: 250-*
            S: 250-*
            S: 250-*
            S: 250-*
            S: 250-*
            S: 250-*
            S: 250 *
            C: MAIL FROM:<a@example.org> BODY=8BITMIME
            S: 451 4.4.1 *
            V: offers 8BITMIME|DSN
            C: MAIL FROM:<a@example.org> BODY=8BITMIME
            > ask MAIL <a@example.org>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok
            C: RCPT TO:<b@example.org> NOTIFY=NEVER
            > ask RCPT <b@example.org>
            U: 250 2.1.5 Ok
            S: 250 2.1.5 Ok
            C: RSET
            S: 250 2.0.0 Ok
            C: MAIL FROM:<a@example.org> BODY=BINARYMIME
            S: 555 5.5.4 *
            V: no-upstream
            C: MAIL FROM:<a@example.org> BODY=8BITMIME
            > ask MAIL <a@example.org>
            U: 451 4.4.1 no
            S: 451 4.4.1 no",
        ),
        (
            "what the upstream does not have is not offered, nor taken: RFC 5321 4.1.1.11",
            User,
            "V: plain-upstream
            C: EHLO client.example
            S: 250-mx.example.org
            S: 250-PIPELINING
            S: 250-SIZE 1000
            S: 250-AUTH PLAIN LOGIN
            S: 250-ENHANCEDSTATUSCODES
            S: 250-CHUNKING
            S: 250-HELP
            S: 250 LIMITS RCPTMAX=3
            C: MAIL FROM:<a@example.org> BODY=8BITMIME
            S: 555 5.5.4 *
            C: MAIL FROM:<a@example.org> SMTPUTF8
            S: 555 5.5.4 *
            C: MAIL FROM:<a@example.org> RET=HDRS
            S: 555 5.5.4 *
            C: MAIL FROM:<a@example.org> ENVID=x
            S: 555 5.5.4 *
            C: MAIL FROM:<a@example.org> BODY=7BIT SIZE=3 AUTH=<>
            > ask MAIL <a@example.org>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok
            C: RCPT TO:<b@example.org> NOTIFY=NEVER
            S: 555 5.5.4 *
            C: RCPT TO:<b@example.org> ORCPT=rfc822;b@example.org
            S: 555 5.5.4 *",
        ),
        (
            "RFC 8689 2: not on cleartext, whatever the upstream has",
            Relay,
            "V: no-upstream
            C: HELO x
            S: 250 mx.example.org
            C: MAIL FROM:<a@example.org> REQUIRETLS
            S: 555 5.5.4 *
            C: MAIL FROM:<a@example.org> SMTPUTF8
            S: 451 4.4.1 *",
        ),
        (
            "what counts is what was offered, not what is known by now",
            User,
            "V: plain-upstream
            C: MAIL FROM:<a@example.org> SMTPUTF8 RET=FULL
            > ask MAIL <a@example.org>",
        ),
        (
            "RFC 1870 3: the smaller maximum of the two",
            User,
            "V: upstream-size 500
            C: EHLO x
            S: 250-mx.example.org
            S: 250-PIPELINING
            S: 250-SIZE 500
            S: 250-AUTH PLAIN LOGIN
            S: 250-ENHANCEDSTATUSCODES
            S: 250-8BITMIME
            S: 250-DSN
            S: 250-SMTPUTF8
            S: 250-CHUNKING
            S: 250-HELP
            S: 250 LIMITS RCPTMAX=3
            C: MAIL FROM:<> SIZE=501
            S: 552 5.3.4 *
            C: MAIL FROM:<> SIZE=500
            > ask MAIL <>",
        ),
        (
            "RFC 3030: BINARYMIME is not offered, whatever the upstream has",
            User,
            "C: MAIL FROM:<> BODY=BINARYMIME
            S: 555 5.5.4 *",
        ),
    ]);
}

#[test]
fn order_of_commands() {
    play_all(&[
        (
            "RFC 5321 4.1.4: some may come at any time",
            Clear,
            "C: NOOP
            S: 250 2.0.0 Ok
            C: RSET
            S: 250 2.0.0 Ok
            C: HELP
            S: 214 2.0.0 *
            C: VRFY anna
            S: 252 2.1.5 *
            C: EXPN staff
            S: 502 5.5.1 *
            C: DATA
            S: 503 5.5.1 *
            C: RCPT TO:<b@example.org>
            S: 503 5.5.1 *
            C: RCPT TO:<b@@example.org>
            S: 503 5.5.1 *
            C: STARTTLS
            S: 503 5.5.1 Send EHLO first",
        ),
        (
            "RFC 5321 3.3: MAIL once",
            User,
            "C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok
            C: MAIL FROM:<a@example.org>
            S: 503 5.5.1 *
            C: DATA
            S: 554 5.5.1 *
            C: RSET
            S: 250 2.0.0 Ok
            C: RCPT TO:<b@example.org>
            S: 503 5.5.1 *
            C: MAIL FROM:<c@example.org>
            > ask MAIL <c@example.org>",
        ),
        (
            "RFC 5321 4.1.4: EHLO in mid-transaction is like RSET",
            User,
            "C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok
            C: HELO again
            S: 250 mx.example.org
            C: DATA
            S: 503 5.5.1 *
            C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>",
        ),
        (
            "a message, and another; the upstream's own replies",
            User,
            "C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>
            U: 250 sender <a@example.org> ok
            S: 250 2.0.0 sender <a@example.org> ok
            C: RCPT TO:<b@example.org>
            > ask RCPT <b@example.org>
            U: 250-2.1.5 b is known|250 2.1.5 and welcome
            S: 250-2.1.5 b is known
            S: 250 2.1.5 and welcome
            C: RCPT TO:<c@example.org>
            > ask RCPT <c@example.org>
            U: 450 4.2.0 greylisted
            S: 450 4.2.0 greylisted
            C: RCPT TO:<d@example.org>
            > ask RCPT <d@example.org>
            U: 550 no such user
            S: 550 5.0.0 no such user
            C: RCPT TO:<e@example.org>
            > ask RCPT <e@example.org>
            U: 251 User not local; will forward
            S: 251 2.0.0 User not local; will forward
            C: DATA
            S: 354 End data with <CR><LF>.<CR><LF>
            > data
            ? relay
            R: <b@example.org> taken 250 2.1.5 b is known / and welcome
            R: <c@example.org> refused 450 4.2.0 greylisted
            R: <d@example.org> refused 550 no such user
            R: <e@example.org> taken 251 User not local; will forward
            D: 250 2.0.0 Ok: queued as 4D489100508D
            S: 250 2.0.0 Ok: queued as 4D489100508D
            C: DATA
            S: 503 5.5.1 *
            C: MAIL FROM:<>
            > ask MAIL <>",
        ),
        (
            "DATA without an accepted recipient, all refused",
            User,
            "C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok
            C: RCPT TO:<b@example.org>
            > ask RCPT <b@example.org>
            U: 550 5.1.1 no
            S: 550 5.1.1 no
            C: DATA
            S: 554 5.5.1 *",
        ),
        (
            "a 221 of the upstream's is a reply like any other, and ends nothing",
            User,
            "C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>
            U: 221 2.0.0 odd
            S: 221 2.0.0 odd
            C: NOOP
            S: 250 2.0.0 Ok",
        ),
    ]);
}

#[test]
fn pipelining() {
    play_all(&[
        (
            "replies leave in the order of the commands",
            User,
            "C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>
            C: RCPT TO:<b@example.org>
            > ask RCPT <b@example.org>
            C: RCPT TO:<no-domain>
            C: RCPT TO:<c@example.org> FOO=BAR
            C: RCPT TO:<c@example.org>
            > ask RCPT <c@example.org>
            U: 250 2.1.0 mail
            S: 250 2.1.0 mail
            U: 550 5.1.1 b
            S: 550 5.1.1 b
            S: 501 5.1.3 *
            S: 555 5.5.4 *
            U: 250 2.1.5 c
            S: 250 2.1.5 c
            C: DATA
            S: 354 *
            > data",
        ),
        (
            "MAIL is refused with RCPTs behind it",
            User,
            "C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>
            C: RCPT TO:<b@example.org>
            > ask RCPT <b@example.org>
            C: RCPT TO:<c@example.org>
            > ask RCPT <c@example.org>
            U: 550 5.1.0 not you
            S: 550 5.1.0 not you
            C: RCPT TO:<d@example.org>
            U: 503 5.5.1 need MAIL
            S: 503 5.5.1 Send MAIL first
            U: fault unavailable
            S: 503 5.5.1 Send MAIL first
            S: 503 5.5.1 Send MAIL first
            C: DATA
            S: 503 5.5.1 *
            C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok",
        ),
        (
            "what the upstream lacks or fails in",
            User,
            "C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>
            U: fault busy
            S: 451 4.3.2 *
            C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>
            U: fault unavailable
            S: 451 4.4.1 *
            C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok
            C: RCPT TO:<b@example.org>
            > ask RCPT <b@example.org>
            U: fault protocol
            S: 451 4.3.0 *
            C: RCPT TO:<b@example.org>
            > ask RCPT <b@example.org>
            U: fault unavailable
            S: 451 4.4.1 *
            R: <b@example.org> refused -
            R: <b@example.org> refused -",
        ),
        (
            "those on their way count towards max_recipients; refused ones do not",
            User,
            "C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok
            C: RCPT TO:<b@example.org>
            > ask RCPT <b@example.org>
            C: RCPT TO:<c@example.org>
            > ask RCPT <c@example.org>
            C: RCPT TO:<d@example.org>
            > ask RCPT <d@example.org>
            C: RCPT TO:<e@example.org>
            U: 550 5.1.1 b
            S: 550 5.1.1 b
            U: 250 2.1.5 c
            S: 250 2.1.5 c
            U: 250 2.1.5 d
            S: 250 2.1.5 d
            S: 452 4.5.3 *
            C: RCPT TO:<e@example.org>
            > ask RCPT <e@example.org>
            U: 250 2.1.5 e
            S: 250 2.1.5 e
            C: RCPT TO:<f@example.org>
            S: 452 4.5.3 *
            C: RCPT TO:<f@@example.org>
            > ask PATH f@@example.org",
        ),
        (
            "refused recipients beyond as many as there may be are forgotten",
            User,
            "C: MAIL FROM:<>
            > ask MAIL <>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok
            C: RCPT TO:<b@example.org>
            > ask RCPT <b@example.org>
            U: 450 4.2.0 b
            S: 450 4.2.0 b
            C: RCPT TO:<c@example.org>
            > ask RCPT <c@example.org>
            U: 450 4.2.0 c
            S: 450 4.2.0 c
            C: RCPT TO:<d@example.org>
            > ask RCPT <d@example.org>
            U: 450 4.2.0 d
            S: 450 4.2.0 d
            C: RCPT TO:<e@example.org>
            > ask RCPT <e@example.org>
            U: 450 4.2.0 e
            S: 450 4.2.0 e
            C: RCPT TO:<f@example.org>
            > ask RCPT <f@example.org>
            U: 250 2.1.5 f
            S: 250 2.1.5 f
            R: <b@example.org> refused 450 4.2.0 b
            R: <c@example.org> refused 450 4.2.0 c
            R: <d@example.org> refused 450 4.2.0 d
            R: <f@example.org> taken 250 2.1.5 f",
        ),
    ]);
}

#[test]
fn paths() {
    play_all(&[
        (
            "CONTRACT: a broken path is 501 5.1.3, and one that was harvested counts",
            User,
            "C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok
            C: RCPT TO:<two@@example.org>
            > ask PATH two@@example.org
            C: RCPT TO:<b@example.org>
            > ask RCPT <b@example.org>
            U: counted
            S: 501 5.1.3 *
            U: 250 2.1.5 b
            S: 250 2.1.5 b
            C: RCPT TO:<no-domain>
            S: 501 5.1.3 *
            C: RCPT TO:b@example.org
            S: 501 5.1.3 *
            C: RCPT TO:<>
            S: 501 5.1.3 *
            C: RCPT TO: <postmaster>
            > ask RCPT <postmaster>",
        ),
        (
            "CONTRACT: 553 5.6.7 where SMTPUTF8 was not declared, broken paths too, and nothing counts",
            User,
            "C: MAIL FROM:<\u{fc}@example.org>
            S: 550 5.6.7 *
            C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>
            C: RCPT TO:<\u{fc}@example.org>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok
            S: 553 5.6.7 *
            C: RCPT TO:<\u{fc}@@example.org>
            S: 553 5.6.7 *
            C: RCPT TO:<b@example.org> ORCPT=utf-8;\u{fc}@example.org
            S: 553 5.6.7 *
            C: RCPT TO:<\u{fc}>
            S: 501 5.1.3 *",
        ),
        (
            "RFC 6531: declared with MAIL, on its way or answered",
            User,
            "C: MAIL FROM:<\u{fc}@example.org> SMTPUTF8
            > ask MAIL <\u{fc}@example.org>
            C: RCPT TO:<\u{e4}@example.org>
            > ask RCPT <\u{e4}@example.org>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok
            U: 250 2.1.5 \u{e4} ok
            S: 250 2.1.5 ? ok
            C: RCPT TO:<\u{f6}@@example.org>
            > ask PATH \u{f6}@@example.org
            U: counted
            S: 501 5.1.3 *
            C: RCPT TO:<b@example.org> ORCPT=utf-8;\u{fc}@example.org
            > ask RCPT <b@example.org>",
        ),
    ]);
}
