//! An account on probation: everything is asked and replied as usual, and the message waits (CONTRACT, Detection).

use super::{Start::*, play_all};

#[test]
fn on_probation() {
    play_all(&[
        (
            "recipients are asked about and answered as ever; the 250 to the end of data is that of a parked message",
            User,
            "V: learned . - 250 2.0.0 Ok: queued as 4D489100508D
            C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok
            C: RCPT TO:<b@example.org>
            > ask RCPT <b@example.org>
            V: probation
            U: 550 5.1.1 b is unknown
            S: 550 5.1.1 b is unknown
            C: RCPT TO:<c@example.org>
            > ask RCPT <c@example.org>
            U: 250 2.1.5 c is welcome
            S: 250 2.1.5 c is welcome
            C: DATA
            S: 354 *
            > data
            ? park probation
            R: <b@example.org> refused 550 5.1.1 b is unknown
            R: <c@example.org> taken 250 2.1.5 c is welcome
            D: parked
            S: 250 2.0.0 Ok: queued as *
            V: probation over
            C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok",
        ),
        (
            "what cannot be parked is relayed at once: asked again, and answered with the upstream's own reply",
            User,
            "V: probation
            C: MAIL FROM:<a@example.org>
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
            ? park probation
            V: probation over
            ? relay
            D: 250 2.0.0 taken by the upstream
            S: 250 2.0.0 taken by the upstream",
        ),
        (
            "a block is more than probation, also where it comes in between",
            User,
            "V: probation
            C: MAIL FROM:<a@example.org>
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
            ? park probation
            V: blocked
            ? park blocked
            V: open
            V: probation over
            ? park blocked",
        ),
        (
            "so are credentials that changed: that message waits for an operator",
            User,
            "V: probation
            C: MAIL FROM:<a@example.org>
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
            V: credentials
            ? park credentials",
        ),
        (
            "what can neither be parked nor read back is put off, with no word of a full quarantine",
            User,
            "V: probation
            C: MAIL FROM:<a@example.org>
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
            ? park probation
            D: unreadable
            S: 451 4.3.0 *",
        ),
        (
            "what nobody decided about is put off, never refused for good",
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
            ? relay
            D: no-route
            S: 451 4.3.0 *",
        ),
        (
            "a full quarantine does not show at MAIL",
            User,
            "V: probation
            V: full
            C: MAIL FROM:<a@example.org>
            > ask MAIL <a@example.org>",
        ),
    ]);
}

#[test]
fn a_transaction_that_waits_stays_open_upstream() {
    use super::*;
    let (mut session, mut world, mut out) = (session(User), World::new(), Vec::new());
    world.probation = true;
    for line in ["MAIL FROM:<a@example.org>", "RCPT TO:<b@example.org>"] {
        session.handle(event("C", line), &world.view(), &mut out);
        session.handle(event("U", "250 2.1.0 Ok"), &world.view(), &mut out);
    }
    assert!(matches!(session.destination(String::new, &world.view()), Destination::Park(_)));
    assert!(session.needs_upstream(), "it may yet be relayed");
    world.blocked = true;
    assert!(matches!(session.destination(String::new, &world.view()), Destination::Park(_)));
    assert!(!session.needs_upstream());
}
