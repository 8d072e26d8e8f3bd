//! A blocked account: what is asked, what is replied, and where the message goes (CONTRACT, SMTP).

use super::{Start::*, play_all};

#[test]
fn the_crossing() {
    play_all(&[
        (
            "the RCPT that crosses is told 250, the real answer is kept, nothing further is asked",
            User,
            "C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok
            C: RCPT TO:<b@example.org>
            > ask RCPT <b@example.org>
            U: 550 5.1.1 b is unknown
            S: 550 5.1.1 b is unknown
            C: RCPT TO:<c@example.org>
            > ask RCPT <c@example.org>
            V: blocked
            U: 550 5.1.1 c is unknown
            S: 250 2.1.5 Ok
            C: RCPT TO:<d@example.org>
            S: 250 2.1.5 Ok
            C: RCPT TO:<e@@example.org>
            S: 501 5.1.3 *
            C: RCPT TO:<f@example.org>
            S: 250 2.1.5 Ok
            C: RCPT TO:<g@example.org>
            S: 452 4.5.3 *
            R: <b@example.org> refused 550 5.1.1 b is unknown
            R: <c@example.org> taken 550 5.1.1 c is unknown
            R: <d@example.org> taken -
            R: <f@example.org> taken -
            C: DATA
            S: 354 *
            > data
            ? park unasked
            D: parked
            S: 250 2.0.0 Ok: queued as *
            C: MAIL FROM:<a@example.org>
            S: 250 2.1.0 Ok",
        ),
        (
            "those in flight: told 250, whatever the upstream says or does; the replies stay in order",
            User,
            "C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok
            C: RCPT TO:<b@example.org>
            > ask RCPT <b@example.org>
            C: RCPT TO:<c@example.org>
            > ask RCPT <c@example.org>
            V: blocked
            C: RCPT TO:<d@example.org>
            C: RCPT TO:<no-domain>
            U: 250 2.1.5 b welcome
            S: 250 2.1.5 Ok
            U: fault unavailable
            S: 250 2.1.5 Ok
            S: 250 2.1.5 Ok
            S: 501 5.1.3 *
            R: <b@example.org> taken 250 2.1.5 b welcome
            R: <c@example.org> taken -
            R: <d@example.org> taken -
            ? park unasked",
        ),
        (
            "the crossing alone: parked, even if the account is unblocked before the end of data",
            User,
            "C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok
            C: RCPT TO:<b@example.org>
            > ask RCPT <b@example.org>
            V: blocked
            U: 550 5.1.1 b
            S: 250 2.1.5 Ok
            V: open
            C: RCPT TO:<c@example.org>
            > ask RCPT <c@example.org>
            U: 550 5.1.1 c
            S: 550 5.1.1 c
            C: DATA
            S: 354 *
            > data
            ? park blocked",
        ),
        (
            "a broken path that crosses is 501 all the same, and the transaction is parked",
            User,
            "C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok
            C: RCPT TO:<b@example.org>
            > ask RCPT <b@example.org>
            U: 250 2.1.5 b
            S: 250 2.1.5 b
            C: RCPT TO:<two@@example.org>
            > ask PATH two@@example.org
            V: blocked
            U: counted
            S: 501 5.1.3 *
            V: open
            C: DATA
            S: 354 *
            > data
            ? park blocked",
        ),
        (
            "a RCPT that waited for leave until the account was blocked is answered unasked",
            User,
            "C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok
            C: RCPT TO:<b@example.org>
            > ask RCPT <b@example.org>
            V: blocked
            U: unasked
            S: 250 2.1.5 Ok
            V: open
            R: <b@example.org> taken -
            ? park unasked",
        ),
        (
            "MAIL in flight while another session crosses: its own reply, and RCPT is not asked",
            User,
            "C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>
            V: blocked
            C: RCPT TO:<b@example.org>
            U: 550 5.7.1 not you
            S: 550 5.7.1 not you
            S: 503 5.5.1 *
            C: MAIL FROM:<a@example.org>
            S: 250 2.1.0 Ok",
        ),
    ]);
}

#[test]
fn blocked_and_unblocked() {
    play_all(&[
        (
            "MAIL and RCPT are not asked",
            User,
            "V: blocked
            C: MAIL FROM:<a@example.org>
            S: 250 2.1.0 Ok
            C: RCPT TO:<b@example.org> NOTIFY=NEVER
            S: 250 2.1.5 Ok
            C: RCPT TO:<\u{fc}@example.org>
            S: 553 5.6.7 *
            C: RCPT TO:<\u{fc}@@example.org>
            S: 553 5.6.7 *
            C: RCPT TO:<c@example.org> FOO
            S: 555 5.5.4 *
            C: MAIL FROM:<a@example.org>
            S: 503 5.5.1 *
            C: DATA
            S: 354 *
            > data
            ? park unasked
            D: parked
            S: 250 2.0.0 Ok: queued as *",
        ),
        (
            "what MAIL would be refused for, it is refused for",
            User,
            "V: blocked
            C: MAIL FROM:<a@example.org> SIZE=1001
            S: 552 5.3.4 *
            C: MAIL FROM:<\u{fc}@example.org>
            S: 550 5.6.7 *
            C: MAIL FROM:<a@example.org> BODY=BINARYMIME
            S: 555 5.5.4 *
            C: MAIL FROM:<a@@example.org>
            S: 501 5.1.7 *
            C: DATA
            S: 503 5.5.1 *",
        ),
        (
            "blocked by the time of the end of data",
            User,
            "C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok
            C: RCPT TO:<b@example.org>
            > ask RCPT <b@example.org>
            U: 250 2.1.5 b
            S: 250 2.1.5 b
            C: DATA
            S: 354 *
            > data
            V: blocked
            ? park blocked
            D: parked
            S: 250 2.0.0 Ok: queued as *",
        ),
        (
            "blocked after RCPT and unblocked before the end of data, nothing unasked in between: relayed",
            User,
            "C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok
            C: RCPT TO:<b@example.org>
            > ask RCPT <b@example.org>
            U: 250 2.1.5 b
            S: 250 2.1.5 b
            V: blocked
            C: NOOP
            S: 250 2.0.0 Ok
            V: open
            C: DATA
            S: 354 *
            > data
            ? relay",
        ),
        (
            "MAIL unasked, unblocked, RCPT asked: relayed",
            User,
            "V: blocked
            C: MAIL FROM:<a@example.org>
            S: 250 2.1.0 Ok
            V: open
            C: RCPT TO:<b@example.org>
            > ask RCPT <b@example.org>
            U: 250 2.1.5 b
            S: 250 2.1.5 b
            R: <b@example.org> taken 250 2.1.5 b
            C: DATA
            S: 354 *
            > data
            ? relay",
        ),
        (
            "RCPT unasked, unblocked, RCPT asked: parked, and the next transaction is as ever",
            User,
            "V: blocked
            C: MAIL FROM:<a@example.org>
            S: 250 2.1.0 Ok
            C: RCPT TO:<b@example.org>
            S: 250 2.1.5 Ok
            V: open
            C: RCPT TO:<c@example.org>
            > ask RCPT <c@example.org>
            U: 550 5.1.1 c
            S: 550 5.1.1 c
            C: RCPT TO:<d@example.org>
            > ask RCPT <d@example.org>
            U: 250 2.1.5 d
            S: 250 2.1.5 d
            C: DATA
            S: 354 *
            > data
            ? park unasked
            D: parked
            S: 250 2.0.0 Ok: queued as *
            C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok
            C: RCPT TO:<b@example.org>
            > ask RCPT <b@example.org>
            U: 250 2.1.5 b
            S: 250 2.1.5 b
            ? relay",
        ),
        (
            "a full quarantine: 452 4.3.1 at MAIL, or at the end of data, which is no error",
            User,
            "V: blocked
            C: MAIL FROM:<a@example.org>
            S: 250 2.1.0 Ok
            V: full
            C: RCPT TO:<b@example.org>
            S: 250 2.1.5 Ok
            C: DATA
            S: 354 *
            > data
            ? park unasked
            D: full
            S: 452 4.3.1 *
            C: MAIL FROM:<a@example.org>
            S: 452 4.3.1 *
            C: RCPT TO:<b@example.org>
            S: 503 5.5.1 *
            V: open
            C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>",
        ),
        (
            "a relay host is blocked like any other",
            Relay,
            "V: blocked
            C: MAIL FROM:<>
            S: 250 2.1.0 Ok
            C: RCPT TO:<postmaster>
            S: 250 2.1.5 Ok
            ? park unasked",
        ),
    ]);
}

#[test]
fn the_form_of_the_replies() {
    play_all(&[
        (
            "CONTRACT: those that the upstream gave last, the address and the queue id exchanged",
            User,
            "V: learned MAIL old@example.net 250 2.1.0 <old@example.net>... Sender ok
            V: learned RCPT old@example.net 250-2.1.5 <old@example.net>|250 2.1.5 Recipient ok
            V: learned END - 250 message accepted
            V: blocked
            C: MAIL FROM:<a@example.org>
            S: 250 2.1.0 <a@example.org>... Sender ok
            C: RCPT TO:<b@example.org>
            S: 250-2.1.5 <b@example.org>
            S: 250 2.1.5 Recipient ok
            C: DATA
            S: 354 *
            > data
            ? park unasked
            D: parked
            S: 250 2.0.0 message accepted",
        ),
        (
            "Exchange repeats the Message-ID",
            User,
            "V: learned END <old@example.net> 250 2.6.0 <old@example.net> Queued mail for delivery
            V: message-id <new@example.org>
            V: blocked
            C: MAIL FROM:<a@example.org>
            S: 250 2.1.0 Ok
            C: RCPT TO:<b@example.org>
            S: 250 2.1.5 Ok
            C: DATA
            S: 354 *
            > data
            ? park unasked
            D: parked
            S: 250 2.6.0 <new@example.org> Queued mail for delivery",
        ),
        (
            "the crossing RCPT and one in flight too",
            User,
            "V: learned RCPT old@example.net 250 <old@example.net> is syntactically correct
            C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>
            U: 250 OK
            S: 250 2.0.0 OK
            C: RCPT TO:<b@example.org>
            > ask RCPT <b@example.org>
            C: RCPT TO:<c@example.org>
            > ask RCPT <c@example.org>
            V: blocked
            U: 550 5.1.1 no
            S: 250 2.0.0 <b@example.org> is syntactically correct
            U: 450 4.2.0 later
            S: 250 2.0.0 <c@example.org> is syntactically correct",
        ),
    ]);
}

#[test]
fn refused_where_the_law_says_so() {
    play_all(&[
        (
            "the crossing RCPT has the upstream's own reply, and 550 5.7.1 answers what follows",
            Refusing,
            "C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok
            C: RCPT TO:<b@example.org>
            > ask RCPT <b@example.org>
            U: 250 2.1.5 b
            S: 250 2.1.5 b
            C: RCPT TO:<c@example.org>
            > ask RCPT <c@example.org>
            V: blocked
            C: RCPT TO:<d@example.org>
            U: 550 5.1.1 c
            S: 550 5.1.1 c
            S: 550 5.7.1 *
            R: <b@example.org> taken 250 2.1.5 b
            R: <c@example.org> refused 550 5.1.1 c
            C: RCPT TO:<e@example.org>
            S: 550 5.7.1 *
            C: RCPT TO:<f@@example.org>
            S: 501 5.1.3 *
            C: DATA
            S: 354 *
            > data
            ? refuse
            D: refused
            S: 550 5.7.1 *
            C: MAIL FROM:<a@example.org>
            S: 550 5.7.1 *
            C: RCPT TO:<a@example.org>
            S: 503 5.5.1 *
            V: open
            C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>",
        ),
        (
            "a RCPT that waited for leave",
            Refusing,
            "C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok
            C: RCPT TO:<b@example.org>
            > ask RCPT <b@example.org>
            V: blocked
            U: unasked
            S: 550 5.7.1 *
            C: DATA
            S: 554 5.5.1 *",
        ),
        (
            "a broken path that crosses, and then unblocked: nothing was answered unasked, so it is relayed",
            Refusing,
            "C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok
            C: RCPT TO:<b@example.org>
            > ask RCPT <b@example.org>
            U: 250 2.1.5 b
            S: 250 2.1.5 b
            C: RCPT TO:<two@@example.org>
            > ask PATH two@@example.org
            V: blocked
            U: counted
            S: 501 5.1.3 *
            ? refuse
            V: open
            ? relay",
        ),
        (
            "550 at MAIL is an error of the session's, and at RCPT is none",
            Refusing,
            "V: blocked
            C: MAIL FROM:<>
            S: 550 5.7.1 *
            C: MAIL FROM:<>
            S: 550 5.7.1 *
            C: MAIL FROM:<>
            S: 550 5.7.1 *
            C: MAIL FROM:<>
            S: 550 5.7.1 *
            C: MAIL FROM:<>
            S: 550 5.7.1 *
            C: MAIL FROM:<>
            S: 550 5.7.1 *
            C: MAIL FROM:<>
            S: 550 5.7.1 *
            C: MAIL FROM:<>
            S: 550 5.7.1 *
            C: MAIL FROM:<>
            S: 550 5.7.1 *
            C: RCPT TO:<b@example.org>
            S: 503 5.5.1 *
            C: MAIL FROM:<>
            S: 421 4.7.0 *
            > close",
        ),
    ]);
}
