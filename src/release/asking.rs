//! Asking the upstream about the recipients of a release, within one try, and what is recorded of the answers.

use std::time::Duration;

use tokio::time::Instant;

use super::turns::Turns;
use crate::clock::Timestamp;
use crate::maillog;
use crate::quarantine::Envelope;
use crate::quarantine::envelope::{Recipient, RecipientState};
use crate::smtp::{Enhanced, MailCommand, RcptCommand, Reply};
use crate::upstream::{Answer, Fault, Question, Transaction};

/// How long one try waits in all for answers that settle nothing: for none, or for 4xx. What is left is asked first at
/// the next try.
pub(super) const ASK_PATIENCE: Duration = Duration::from_secs(10 * 60);

/// Asks MAIL, and RCPT for each open recipient until `patience` is over; records the refusals; returns the places of those
/// accepted. Who is asked first is decided by [`Turns`]. Once the upstream is gone nobody else is asked: each further
/// attempt to reach it may take `[upstream] connect_timeout`. `certain` is the time by which BY= may be judged for good:
/// `now` may be ahead.
pub(super) async fn ask(
    upstream: &mut Transaction,
    envelope: &mut Envelope,
    now: Timestamp,
    certain: Option<Timestamp>,
    patience: Duration,
) -> Vec<usize> {
    let turns = Turns::of(envelope, |recipient| last_asked(recipient, now));
    if turns.is_empty() {
        return Vec::new(); // a crash came between the last answer and the removal
    }
    if let Err(refusal) = open(upstream, envelope, now, certain).await {
        answer_all(envelope, &refusal, now);
        return Vec::new();
    }
    ask_each(upstream, envelope, turns, now, patience).await
}

/// Asks MAIL, unless the time of BY= is over. The error is a reply for all recipients: the upstream's, or ours.
async fn open(
    upstream: &mut Transaction,
    envelope: &Envelope,
    now: Timestamp,
    certain: Option<Timestamp>,
) -> Result<(), Reply> {
    let left = |by: Timestamp| envelope.parameters.after(by.since(envelope.parked).as_secs());
    let Some(mut parameters) = left(now) else {
        let is_certain = certain.is_some_and(|certain| left(certain).is_none());
        return Err(if is_certain { too_late() } else { perhaps_too_late() });
    };
    parameters.forget_the_past(now);
    let mail = MailCommand { reverse_path: envelope.reverse_path.clone(), parameters: Box::new(parameters) };
    upstream.ask(Question::Mail(mail));
    let reply = reply_to(upstream.answer().await);
    if reply.is_completion() { Ok(()) } else { Err(reply) }
}

/// Asks RCPT in the order of `turns`.
async fn ask_each(
    upstream: &mut Transaction,
    envelope: &mut Envelope,
    mut turns: Turns,
    now: Timestamp,
    patience: Duration,
) -> Vec<usize> {
    let (mut taken, mut waited, mut is_gone) = (Vec::new(), Duration::ZERO, false);
    while !turns.is_empty() && waited < patience && !is_gone {
        let some = turns.next();
        for recipient in some.iter().filter_map(|place| envelope.recipients.get(*place)) {
            upstream.ask(Question::Rcpt(RcptCommand {
                forward_path: recipient.forward_path.clone(),
                parameters: recipient.parameters.clone(),
            }));
        }
        for place in some {
            let since = Instant::now();
            let answer = upstream.answer().await;
            let Some(recipient) = envelope.recipients.get_mut(place) else { continue };
            match &answer {
                Answer::Replied(_) => turns.heard(&recipient.forward_path, true),
                Answer::None(Fault::Silent(_)) => turns.heard(&recipient.forward_path, false),
                Answer::None(Fault::MissingExtension(_)) => {}
                Answer::None(_) if is_gone => {
                    leave(recipient, now);
                    continue;
                }
                Answer::None(_) => is_gone = true,
            }
            let reply = reply_to(answer);
            if reply.is_completion() {
                taken.push(place);
                continue;
            }
            recipient.state = answered(&reply, now);
            if recipient.is_open() {
                waited += since.elapsed();
            }
        }
    }
    for place in turns.rest() {
        if let Some(recipient) = envelope.recipients.get_mut(place) {
            leave(recipient, now);
        }
    }
    taken.sort_unstable();
    taken
}

/// Returns when the recipient was last put off by an answer of its own; `None` if no try came to it, or if that is said to
/// have been in the future, by a clock that was ahead.
fn last_asked(recipient: &Recipient, now: Timestamp) -> Option<Timestamp> {
    match &recipient.state {
        RecipientState::Deferred { at, asked: true, .. } if *at <= now => Some(*at),
        _ => None,
    }
}

/// Leaves a recipient to the next try. One that was asked before keeps that answer, and its time.
fn leave(recipient: &mut Recipient, now: Timestamp) {
    if recipient.state == RecipientState::Pending {
        recipient.state = not_asked(now);
    }
}

/// Records one reply for all open recipients. If it only puts them off, those that were put off before are still asked in
/// the order of their own answers: each keeps the time of that, and one that was not asked stays so.
pub(super) fn answer_all(envelope: &mut Envelope, reply: &Reply, now: Timestamp) {
    for recipient in envelope.recipients.iter_mut().filter(|recipient| recipient.is_open()) {
        let at = match &recipient.state {
            RecipientState::Deferred { asked: false, .. } if !settles(reply) => continue,
            RecipientState::Deferred { at, .. } if !settles(reply) => *at,
            _ => now,
        };
        recipient.state = answered(reply, at);
    }
}

/// Returns whether a recipient with this reply is answered for good.
fn settles(reply: &Reply) -> bool {
    reply.is_completion() || reply.is_permanent()
}

fn reply_to(answer: Answer) -> Reply {
    match answer {
        Answer::Replied(reply) => reply,
        Answer::None(fault) => no_answer(&fault),
    }
}

/// Returns the reply for by-mode R when the time is over, so that the sender no longer wants delivery (RFC 2852 4, RFC
/// 3463 3.5).
fn too_late() -> Reply {
    Reply {
        code: 554,
        enhanced: Some(Enhanced { class: 5, subject: 4, detail: 7 }),
        text: "the time that BY= gave it was over before it was released".into(),
    }
}

/// Returns the reply recorded if that time is over by a clock that has not settled; it defers the recipient.
fn perhaps_too_late() -> Reply {
    Reply {
        code: 451,
        enhanced: Some(Enhanced { class: 4, subject: 4, detail: 7 }),
        text: "the time that BY= gave it seems to be over; it is not certain yet that the clock is right"
            .into(),
    }
}

/// Returns the reply recorded if the upstream gave no answer; it defers the recipient.
pub(super) fn no_answer(fault: &Fault) -> Reply {
    Reply {
        code: 451,
        enhanced: Some(Enhanced { class: 4, subject: 4, detail: 1 }),
        text: maillog::clean(&fault.to_string()).into(),
    }
}

/// Returns our own refusal of a message that is not what arrived. Its sender may read it.
pub(super) fn not_sent() -> Reply {
    Reply {
        code: 554,
        enhanced: Some(Enhanced { class: 5, subject: 3, detail: 0 }),
        text: "what was kept of the message is not what arrived, and was not sent".into(),
    }
}

/// Returns the state of a recipient that no try has come to by `at`.
fn not_asked(at: Timestamp) -> RecipientState {
    let reply = Reply {
        code: 451,
        enhanced: Some(Enhanced { class: 4, subject: 4, detail: 1 }),
        text: "not asked yet: the upstream was silent, or put off others, for too long, or went away".into(),
    };
    RecipientState::Deferred { reply, at, asked: false }
}

pub(super) fn answered(reply: &Reply, at: Timestamp) -> RecipientState {
    let reply = reply.clone();
    if reply.is_completion() {
        RecipientState::Delivered { reply, at }
    } else if reply.is_permanent() {
        RecipientState::Refused { reply, at }
    } else {
        RecipientState::Deferred { reply, at, asked: true }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::super::identity;
    use super::super::tests::{at, deferred, later};
    use super::*;
    use crate::net::address::{Address, Endpoint, Protection};
    use crate::quarantine::sample;
    use crate::smtp::ForwardPath;
    use crate::upstream::{Settings, Timeouts, Upstream};

    /// An upstream that accepts recipients whose names begin with `good`, puts off those with `busy`, and hangs up at those
    /// with `gone`. At an RCPT of another it falls silent. Returns which it was asked about.
    async fn upstream() -> (Upstream, mpsc::UnboundedReceiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, asks) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let asked = asked.clone();
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    stream.write_all(b"220 mx\r\n").await.unwrap();
                    let mut line = String::new();
                    while stream.read_line(&mut line).await.is_ok_and(|octets| octets > 0) {
                        let command = std::mem::take(&mut line);
                        let name = command.strip_prefix("RCPT TO:<").and_then(|path| path.split('@').next());
                        if let Some(name) = name {
                            asked.send(name.to_owned()).unwrap();
                        }
                        let reply = match name {
                            Some(name) if name.starts_with("busy") => {
                                tokio::time::sleep(SILENCE / 2).await;
                                "451 4.7.1 later\r\n"
                            }
                            Some(name) if name.starts_with("gone") => return,
                            Some(name) if !name.starts_with("good") => return std::future::pending().await,
                            _ if command.starts_with("EHLO") => "250-mx\r\n250 PIPELINING\r\n",
                            _ => "250 ok\r\n",
                        };
                        if stream.write_all(reply.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        let address = Address::Tcp { host: "127.0.0.1".into(), port };
        let settings = Settings {
            endpoints: vec![Endpoint { address, tls_name: "mx.example.org".into() }],
            protection: Protection::Off,
            ca: None,
            identity: None,
            credentials: None,
            hostname: "gate.example.org".into(),
            xclient: false,
            connect_timeout: 50 * SILENCE,
            timeouts: Timeouts { rcpt: SILENCE, ..Timeouts::new(50 * SILENCE, 50 * SILENCE) },
            max_connections: 1,
        };
        (Upstream::open(settings).unwrap(), asks)
    }

    /// As long as this test upstream may be silent at RCPT.
    const SILENCE: Duration = Duration::from_millis(200);

    /// One try; returns who was asked about, and who was taken, by name.
    async fn one_try(
        upstream: &Upstream,
        asks: &mut mpsc::UnboundedReceiver<String>,
        envelope: &mut Envelope,
        now: Timestamp,
    ) -> (BTreeSet<String>, Vec<String>) {
        let mut transaction = upstream.transaction(identity(envelope, now));
        let taken = ask(&mut transaction, envelope, now, None, SILENCE * 2).await;
        drop(transaction);
        let asked = std::iter::from_fn(|| asks.try_recv().ok()).collect();
        let name = |place: &usize| {
            let path = envelope.recipients[*place].forward_path.as_str();
            path.split('@').next().unwrap().to_owned()
        };
        let taken: Vec<_> = taken.iter().map(|place| (*place, name(place))).collect();
        for (place, _) in &taken {
            envelope.recipients[*place].state = answered(&sample::reply(), now);
        }
        (asked, taken.into_iter().map(|(_, name)| name).collect())
    }

    /// Nobody waits for hours because some of the recipients before him are silent.
    #[tokio::test]
    async fn one_silent_domain_holds_up_no_other() {
        let (upstream, mut asks) = upstream().await;
        let mut envelope = deferred(1);
        let pattern = envelope.recipients.remove(0);
        let name = |n| {
            if n < 20 { format!("dead{n}@dead.example") } else { format!("good{n}@example.org") }
        };
        let recipient =
            |n| Recipient { forward_path: ForwardPath::parse(&name(n)).unwrap(), ..pattern.clone() };
        envelope.recipients = (0..30).map(recipient).collect();
        let (asked, taken) = one_try(&upstream, &mut asks, &mut envelope, at(1)).await;
        assert_eq!(
            (asked.len(), taken.len()),
            (12, 10),
            "all others, and as many as patience allows: {asked:?}"
        );
    }

    /// A host that is down is not dialled again for each few recipients.
    #[tokio::test]
    async fn once_the_upstream_is_gone_nobody_else_is_asked() {
        let (upstream, mut asks) = upstream().await;
        let mut envelope = deferred(1);
        let pattern = Recipient { state: RecipientState::Pending, ..envelope.recipients.remove(0) };
        let name = |n| if n == 0 { "good0@example.org".into() } else { format!("gone{n}@{n}.example") };
        let recipient =
            |n| Recipient { forward_path: ForwardPath::parse(&name(n)).unwrap(), ..pattern.clone() };
        envelope.recipients = (0..12).map(recipient).collect();
        for n in 1..4 {
            let (mut asked, taken) = one_try(&upstream, &mut asks, &mut envelope, at(n)).await;
            assert_eq!(taken.len(), usize::from(n == 1));
            asked.remove("good0");
            assert_eq!(asked, [format!("gone{n}")].into(), "the next one");
            let left = envelope.recipients.iter().filter(|one| one.state == not_asked(at(1)));
            assert_eq!(left.count(), 11 - usize::try_from(n).unwrap());
        }
    }

    /// The upstream hangs up at each recipient of one domain, who come first.
    #[tokio::test]
    async fn a_domain_that_ends_each_try_holds_up_no_other() {
        let (upstream, mut asks) = upstream().await;
        let mut envelope = deferred(1);
        let pattern = Recipient { state: RecipientState::Pending, ..envelope.recipients.remove(0) };
        let name = |n| if n < 20 { format!("gone{n}@x.example") } else { format!("good{n}@{n}.example") };
        let recipient =
            |n| Recipient { forward_path: ForwardPath::parse(&name(n)).unwrap(), ..pattern.clone() };
        envelope.recipients = (0..25).map(recipient).collect();
        let (_, first) = one_try(&upstream, &mut asks, &mut envelope, at(1)).await;
        let (_, second) = one_try(&upstream, &mut asks, &mut envelope, at(2)).await;
        assert_eq!(first.len() + second.len(), 5, "{first:?} {second:?}");
    }

    /// A clock that is ahead for a moment must not refuse it for good.
    #[tokio::test]
    async fn that_the_time_of_by_is_over_must_be_certain() {
        let (upstream, mut asks) = upstream().await;
        for (now, certain, expected) in [
            (2, None, perhaps_too_late()),
            (2, Some(at(0)), perhaps_too_late()),
            (2, Some(at(2)), too_late()),
        ] {
            let mut envelope = deferred(1);
            envelope.parked = at(0);
            envelope.parameters.by = Some("3600;R".into());
            let mut transaction = upstream.transaction(identity(&envelope, at(now)));
            let taken = ask(&mut transaction, &mut envelope, at(now), certain, SILENCE * 2).await;
            let state = answered(&expected, if settles(&expected) { at(now) } else { at(0) });
            assert_eq!((taken, &envelope.recipients[0].state), (vec![], &state), "{certain:?}");
        }
        assert!(asks.try_recv().is_err(), "nobody was asked about");
    }

    #[test]
    fn who_was_asked_when_outlives_tries_that_ask_nobody() {
        let mut envelope = deferred(4);
        envelope.recipients[0].state = answered(&later(), at(2));
        envelope.recipients[1].state = not_asked(at(2));
        envelope.recipients[2].state = RecipientState::Pending;
        let busy = Reply { text: "busy".into(), ..later() };
        answer_all(&mut envelope, &busy, at(3));
        let states: Vec<_> = envelope.recipients.iter().map(|one| one.state.clone()).collect();
        let [busy_2, busy_3, busy_0] = [2, 3, 0].map(|hour| answered(&busy, at(hour)));
        assert_eq!(states, [busy_2, not_asked(at(2)), busy_3, busy_0]);
        let order = [Some(at(2)), None, Some(at(3)), Some(at(0))];
        assert_eq!(envelope.recipients.iter().map(|one| last_asked(one, at(3))).collect::<Vec<_>>(), order);
        assert_eq!(last_asked(&envelope.recipients[2], at(2)), None, "the clock was ahead");
        let RecipientState::Deferred { reply, .. } = not_asked(at(2)) else { panic!("deferred") };
        let repeated = Recipient { state: answered(&reply, at(2)), ..envelope.recipients[0].clone() };
        assert_eq!(last_asked(&repeated, at(3)), Some(at(2)), "whatever the upstream says");
        let refused = answered(&Reply { code: 550, ..busy }, at(4));
        answer_all(&mut envelope, &Reply { code: 550, text: "busy".into(), ..later() }, at(4));
        assert!(envelope.recipients.iter().all(|one| one.state == refused));
    }

    /// A silent recipient takes as long as the time limit, one that is put off half of that. All have one domain.
    #[tokio::test]
    async fn a_try_ends_and_the_next_one_goes_on() {
        for (slow, state) in [
            ("dead", RecipientState::Pending),
            ("dead", answered(&later(), at(0))),
            ("busy", RecipientState::Pending),
        ] {
            let (upstream, mut asks) = upstream().await;
            let mut envelope = deferred(1);
            let pattern = Recipient { state, ..envelope.recipients.remove(0) };
            let name =
                |n| if n < 20 { format!("{slow}{n}@example.org") } else { format!("good{n}@example.org") };
            let recipient =
                |n| Recipient { forward_path: ForwardPath::parse(&name(n)).unwrap(), ..pattern.clone() };
            envelope.recipients = (0..30).map(recipient).collect();
            let begun = Instant::now();
            let mut tries = Vec::new();
            for n in 1..20 {
                let (asked, taken) = one_try(&upstream, &mut asks, &mut envelope, at(n)).await;
                let open: Vec<_> = envelope.pending().map(|(_, one)| &one.state).collect();
                let all = open.iter().all(|state| matches!(state, RecipientState::Deferred { .. }));
                assert!(all, "listed as such, and refused when the five days are over: {open:?}");
                tries.push((asked, taken.len()));
                if n == 1 {
                    assert!(begun.elapsed() < 15 * SILENCE, "{:?}", begun.elapsed());
                }
                if taken.len() == 10 {
                    break;
                }
            }
            let (last, before) = tries.split_last().unwrap();
            assert_eq!(last.1, 10, "all that are good, and none before: {tries:?}");
            assert!(before.iter().all(|(asked, _)| (2..=8).contains(&asked.len())), "{tries:?}");
            let different: BTreeSet<_> = before.iter().flat_map(|(asked, _)| asked).collect();
            assert!(different.len() + 4 >= before.iter().map(|(asked, _)| asked.len()).sum(), "{tries:?}");
        }
    }
}
