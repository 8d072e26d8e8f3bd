//! Mail data: DATA, BDAT (RFC 3030), what becomes of a message, and what interrupts it.

use super::{Start::*, play, play_all};

/// Plays each dialogue after a transaction with one recipient has been opened.
fn addressed(dialogues: &[(&str, &str)]) {
    const ENVELOPE: &str = "C: MAIL FROM:<a@example.org>
        > ask MAIL <a@example.org>
        U: 250 2.1.0 Ok
        S: 250 2.1.0 Ok
        C: RCPT TO:<b@example.org>
        > ask RCPT <b@example.org>
        U: 250 2.1.5 Ok
        S: 250 2.1.5 Ok";
    for (title, script) in dialogues {
        play(title, User, &format!("{ENVELOPE}\n{script}"));
    }
}

#[test]
fn the_end_of_data() {
    for (delivery, reply) in [
        ("250 queued", "250 2.0.0 queued"),
        ("250-2.6.0 first|250 2.6.0 second", "250-2.6.0 first\nS: 250 2.6.0 second"),
        ("451 4.3.0 later", "451 4.3.0 later"),
        ("554 5.7.1 spam", "554 5.7.1 spam"),
        ("refused", "550 5.7.1 *"),
        ("bad-newline", "554 5.6.0 *"),
        ("too-big", "552 5.3.4 *"),
        ("full", "452 4.3.1 *"),
        ("fault unavailable", "451 4.4.1 *"),
        ("fault busy", "451 4.3.2 *"),
        ("fault protocol", "451 4.3.0 *"),
        ("fault ambiguous", "451 4.4.2 *"),
    ] {
        let script = format!(
            "C: DATA\nS: 354 *\n> data\n? relay\nD: {delivery}\nS: {reply}\nC: RCPT TO:<c@example.org>\nS: 503 5.5.1 *"
        );
        addressed(&[("CONTRACT: what becomes of a message", &script)]);
        let script = format!("C: BDAT 5 LAST\n> chunk 5 last\n? relay\nD: {delivery}\nS: {reply}");
        addressed(&[("the same by BDAT", &script)]);
    }
    addressed(&[
        (
            "421 at the end of data is passed on, and means what it says",
            "C: DATA
            S: 354 *
            > data
            ? relay
            D: 421 4.3.2 shutting down
            S: 421 4.3.2 shutting down
            > close",
        ),
        (
            "silence in mail data",
            "C: DATA
            S: 354 *
            > data
            E: timed-out
            S: 421 4.4.2 *
            > close",
        ),
    ]);
}

#[test]
fn chunks() {
    addressed(&[
        (
            "RFC 3030: each chunk has its reply, the last one that of the message",
            "C: BDAT 100
            > chunk 100
            E: received 100
            S: 250 2.0.0 100 octets received
            C: NOOP
            S: 250 2.0.0 Ok
            C: BDAT 0
            > chunk 0
            E: received 0
            S: 250 2.0.0 0 octets received
            C: BDAT 7 LAST
            > chunk 7 last
            ? relay
            D: 250 2.0.0 Ok
            S: 250 2.0.0 Ok
            C: BDAT 3
            > discard 3
            E: discarded
            S: 503 5.5.1 *",
        ),
        (
            "RFC 3030 2: no RCPT, MAIL, DATA or AUTH between chunks",
            "C: BDAT 1
            > chunk 1
            E: received 1
            S: 250 2.0.0 1 octets received
            C: RCPT TO:<c@example.org>
            S: 503 5.5.1 *
            C: RCPT TO:<c@@example.org>
            S: 503 5.5.1 *
            C: MAIL FROM:<>
            S: 503 5.5.1 *
            C: DATA
            S: 503 5.5.1 *
            C: AUTH PLAIN
            S: 503 5.5.1 *
            C: BDAT 0 LAST
            > chunk 0 last
            ? relay
            D: 250 2.0.0 Ok
            S: 250 2.0.0 Ok",
        ),
        (
            "RSET between two chunks forgets them; the next message may come by DATA",
            "C: BDAT 5
            > chunk 5
            E: received 5
            S: 250 2.0.0 5 octets received
            C: RSET
            S: 250 2.0.0 Ok
            C: BDAT 5 LAST
            > discard 5
            E: discarded
            S: 503 5.5.1 *
            C: MAIL FROM:<>
            > ask MAIL <>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok
            C: RCPT TO:<b@example.org>
            > ask RCPT <b@example.org>
            U: 250 2.1.5 Ok
            S: 250 2.1.5 Ok
            C: DATA
            S: 354 *
            > data",
        ),
        (
            "RFC 3030 2: what was pipelined behind a chunk that failed is discarded",
            "C: BDAT 5
            > chunk 5
            D: too-big
            S: 552 5.3.4 *
            C: BDAT 5
            > discard 5
            E: discarded
            S: 503 5.5.1 *
            C: BDAT 5 LAST
            > discard 5
            E: discarded
            S: 503 5.5.1 *
            C: MAIL FROM:<>
            > ask MAIL <>",
        ),
        (
            "blocked between two chunks",
            "C: BDAT 5
            > chunk 5
            E: received 5
            S: 250 2.0.0 5 octets received
            V: blocked
            C: BDAT 5
            > chunk 5
            E: received 5
            S: 250 2.0.0 5 octets received
            C: BDAT 0 LAST
            > chunk 0 last
            ? park blocked
            D: parked
            S: 250 2.0.0 Ok: queued as *",
        ),
        (
            "CONTRACT: while the service shuts down a message under way is finished first",
            "C: BDAT 5
            > chunk 5
            E: received 5
            S: 250 2.0.0 5 octets received
            V: shutdown
            C: BDAT 5 LAST
            > chunk 5 last
            ? relay
            D: 250 2.0.0 Ok
            S: 250 2.0.0 Ok
            C: BDAT 5 LAST
            S: 421 4.3.2 *
            > close",
        ),
        (
            "CONTRACT: a message under way is parked when the credentials change",
            "C: BDAT 5
            > chunk 5
            E: received 5
            S: 250 2.0.0 5 octets received
            V: credentials
            C: BDAT 5 LAST
            > chunk 5 last
            ? park credentials
            D: parked
            S: 250 2.0.0 Ok: queued as *
            C: MAIL FROM:<>
            S: 421 4.7.0 *
            > close",
        ),
        (
            "and ends with anything but its next chunk",
            "C: BDAT 5
            > chunk 5
            E: received 5
            S: 250 2.0.0 5 octets received
            V: shutdown
            C: NOOP
            S: 421 4.3.2 *
            > close",
        ),
        (
            "a session that an operator ends, ends at its next command, a chunk too",
            "C: BDAT 5
            > chunk 5
            E: received 5
            S: 250 2.0.0 5 octets received
            V: kicked
            C: BDAT 5 LAST
            S: 421 4.7.0 *
            > close",
        ),
    ]);
    play_all(&[
        (
            "CONTRACT: BDAT without MAIL or recipients: its octets are discarded",
            User,
            "C: BDAT 18446744073709551615
            > discard 18446744073709551615
            E: discarded
            S: 503 5.5.1 *
            C: MAIL FROM:<>
            > ask MAIL <>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok
            C: BDAT 5 LAST
            > discard 5
            E: discarded
            S: 554 5.5.1 *
            C: RCPT TO:<b@example.org>
            > ask RCPT <b@example.org>",
        ),
        (
            "a chunk whose size is none cannot be skipped: what follows would be run",
            User,
            "C: BDAT 18446744073709551616
            S: 501 5.5.4 Syntax: BDAT chunk-size [LAST]
            > close",
        ),
        (
            "nor one without a size",
            Clear,
            "C: BDAT LAST
            S: 501 5.5.4 *
            > close",
        ),
        (
            "CONTRACT: blocked or not, BDAT's own replies are the same",
            User,
            "V: blocked
            C: MAIL FROM:<>
            S: 250 2.1.0 Ok
            C: BDAT 5
            > discard 5
            E: discarded
            S: 554 5.5.1 *
            C: RCPT TO:<b@example.org>
            S: 250 2.1.5 Ok
            C: BDAT 5
            > chunk 5
            E: received 5
            S: 250 2.0.0 5 octets received
            C: BDAT 5 LAST
            > chunk 5 last
            ? park unasked
            D: parked
            S: 250 2.0.0 Ok: queued as *",
        ),
    ]);
}

#[test]
fn interruptions() {
    addressed(&[
        (
            "CONTRACT: the credentials changed while the message was under way",
            "C: DATA
            S: 354 *
            > data
            V: credentials
            ? park credentials
            D: parked
            S: 250 2.0.0 Ok: queued as *
            C: NOOP
            S: 421 4.7.0 *
            > close",
        ),
        (
            "ended by an operator in mid-data: the message is not the session",
            "C: DATA
            S: 354 *
            > data
            V: kicked
            ? relay
            D: 250 2.0.0 Ok
            S: 250 2.0.0 Ok
            C: QUIT
            S: 421 4.7.0 *
            > close",
        ),
        (
            "shutting down in mid-data",
            "C: DATA
            S: 354 *
            > data
            V: shutdown
            ? relay
            D: 250 2.0.0 Ok
            S: 250 2.0.0 Ok
            C: MAIL FROM:<>
            S: 421 4.3.2 *
            > close",
        ),
        (
            "shutting down between RCPT and DATA: no message is under way",
            "V: shutdown
            C: DATA
            S: 421 4.3.2 *
            > close",
        ),
    ]);
    play_all(&[
        (
            "421 waits for the answers that came before it, and is the last word",
            User,
            "C: MAIL FROM:<>
            > ask MAIL <>
            C: RCPT TO:<b@example.org>
            > ask RCPT <b@example.org>
            V: kicked
            C: RCPT TO:<c@example.org>
            C: RCPT TO:<no-domain>
            U: 250 2.1.0 Ok
            S: 250 2.1.0 Ok
            U: 550 5.1.1 b
            S: 550 5.1.1 b
            S: 421 4.7.0 *
            > close",
        ),
        (
            "CONTRACT: idle_timeout, auth_timeout",
            Clear,
            "E: timed-out
            S: 421 4.4.2 *
            > close",
        ),
        (
            "shutting down and the client is silent",
            User,
            "E: interrupted
            S: 421 4.3.2 *
            > close",
        ),
        (
            "nothing is said after the last word",
            User,
            "C: QUIT
            S: 221 2.0.0 Bye
            > close
            C: NOOP
            > close
            E: timed-out
            > close",
        ),
    ]);
}
