//! THE MAIL PATH OUT: claim a parked message, transfer it upstream, finish or put back.
//!
//! Once a release is decided, Gatepost sees it through. The decision is on disk before the first try; a recipient
//! answered for good is noted durably; the message is removed when all are answered. A crash in between may send twice
//! (with the same Message-ID), but never loses a message. If the disk does not take the answers, Gatepost waits for it.
//! Tries that happen by themselves are in `rounds`.

mod asking;
mod error;
mod reading;
mod rounds;
mod turns;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use asking::{ASK_PATIENCE, answer_all, answered, ask, no_answer, not_sent};
pub use error::{EndError, ReleaseError};
use reading::{Reading, Unfit};

use crate::clock::{self, Span, Timestamp};
use crate::fail;
use crate::guard::ledger::Relayed;
use crate::id::{QuarantineId, SessionId};
use crate::maillog;
use crate::notify::dsn::{MAX_RETURNED, Original};
use crate::parts::Parts;
use crate::quarantine::Envelope;
use crate::quarantine::envelope::{Recipient, RecipientState, Release, State};
use crate::quarantine::progress::{Answer as Answered, ReleaseOutcome};
use crate::quarantine::schedule::{GIVE_UP_AFTER, is_over, next_try};
use crate::quarantine::spool::{Claim, SpoolError};
use crate::smtp::header::HeaderCollector;
use crate::smtp::parameter::Ret;
use crate::smtp::{MailParameters, Reply};
use crate::transfer::{Form, Transfer, as_sent};
use crate::upstream::{ClientIdentity, Fault, SessionConnections, Stopped, Transaction};

/// The pause before the answers to a message are written again to a disk that did not take them.
const DISK_AGAIN: Duration = Duration::from_secs(1);

/// The state after one try, over all recipients that the client was told 250 for.
#[derive(Debug, Clone)]
pub struct Report {
    /// Which message.
    pub id: QuarantineId,
    /// The outcome.
    pub outcome: ReleaseOutcome,
    /// Recipients the message was delivered to, in this try or an earlier one, with the upstream's reply.
    pub delivered: Vec<(String, Reply)>,
    /// Recipients refused for good.
    pub refused: Vec<(String, Reply)>,
    /// Recipients deferred.
    pub deferred: Vec<(String, Reply)>,
    /// The Message-ID, with brackets.
    pub message_id: Option<String>,
}

impl Report {
    /// What the envelope has of the answers so far.
    pub fn of(envelope: &Envelope, outcome: ReleaseOutcome) -> Self {
        let so_far = envelope.answers();
        let owned = |answers: Vec<Answered<'_>>| {
            answers
                .into_iter()
                .map(|answer| (answer.recipient.as_str().to_owned(), answer.reply.clone()))
                .collect()
        };
        Self {
            id: envelope.id,
            outcome,
            delivered: owned(so_far.delivered),
            refused: owned(so_far.refused),
            deferred: owned(so_far.deferred),
            message_id: None,
        }
    }
}

/// Whose decision a try is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    /// An operator's, made now. `quiet`: the sender is not notified of refused recipients.
    Operator { quiet: bool },
    /// The end of the message's delay.
    Due,
    /// An earlier decision, whose next try has come.
    Earlier,
}

/// How a try ended for those recipients that were still open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tried {
    /// Each has an answer of its own.
    Answered,
    /// The upstream refused the content itself.
    ContentRefused,
}

/// One try: the message is claimed, and the decision is on disk.
struct Try {
    claim: Claim,
    envelope: Envelope,
    decision: Decision,
    now: Timestamp,
    /// What the clock has said for a while; `None` if that is not known: then nothing is given up.
    settled: Option<Span>,
}

/// The transaction of a try, after the upstream was asked about each open recipient and before anything is sent.
struct Asked {
    upstream: Transaction,
    /// The places in `recipients` of those that the upstream accepts.
    taken: Vec<usize>,
    /// The recipients as they were before.
    before: Vec<Recipient>,
    /// Outlives the transaction, even if a shutdown cuts the try short.
    _connections: SessionConnections,
}

/// A try that the upstream has answered, until that is on disk.
struct Ending {
    claim: Claim,
    envelope: Envelope,
    outcome: ReleaseOutcome,
    stage: Stage,
}

/// The next step of an ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Note,
    Tell,
    Remove,
}

/// The upstream's answer to the message.
enum Sent {
    /// The refusal of DATA: nothing was sent.
    Data(Reply),
    /// The reply to the content, at its end or before.
    Content(Reply),
    /// No reply.
    Fault(Fault),
}

/// Releases parked messages.
#[derive(Clone)]
pub struct Releaser {
    parts: Parts,
    /// Set in a process that ends with its command, so that nobody could write answers down later: tells the operator
    /// that a release waits for the disk.
    waits: Option<fn(&str)>,
}

impl Releaser {
    /// Makes a releaser for `serve`.
    pub fn new(parts: Parts) -> Self {
        Self { parts, waits: None }
    }

    /// Makes a releaser for a process that ends when its releases do: if the disk does not take the answers, each
    /// release waits for it and reports that to `tell`.
    pub fn alone(parts: Parts, tell: fn(&str)) -> Self {
        Self { parts, waits: Some(tell) }
    }

    /// Releases a message: tries at once, and returns how that went.
    ///
    /// # Errors
    /// Nothing was sent; or it was, and the answers are not on disk yet: they are written as soon as the disk takes them.
    pub async fn release(&self, id: QuarantineId, quiet: bool) -> Result<Report, ReleaseError> {
        let claim = self.parts.spool.claim(id).await?;
        // Only `run` looks at the clock all the time: to give up is left to it.
        let mut attempt = Try::begin(claim, Decision::Operator { quiet }, None).await?;
        let asked = self.ask(&mut attempt).await;
        self.finish(attempt, asked).await
    }

    /// Asks the upstream about each open recipient, and records the refusals.
    async fn ask(&self, attempt: &mut Try) -> Asked {
        let identity = identity(&attempt.envelope, attempt.now);
        let connections = self.parts.upstream.session(identity.session);
        let mut upstream = self.parts.upstream.transaction(identity);
        let before = attempt.envelope.recipients.clone();
        let certain = certain(&attempt.envelope, attempt.decision, attempt.now, attempt.settled);
        let taken = ask(&mut upstream, &mut attempt.envelope, attempt.now, certain, ASK_PATIENCE).await;
        Asked { upstream, taken, before, _connections: connections }
    }

    /// Sends the message to the recipients that the upstream accepts, and ensures that the answers are written down. If
    /// its content cannot be read, none is: all open recipients are asked again.
    async fn finish(&self, attempt: Try, asked: Asked) -> Result<Report, ReleaseError> {
        let Try { claim, mut envelope, decision, now, settled } = attempt;
        // Dropped before the claim, should this be cut short.
        let mut asked = asked;
        let tried = match asked.taken.as_slice() {
            [] => Ok(Tried::Answered),
            taken => send(&claim, &mut envelope, &mut asked.upstream, taken, now).await,
        };
        let is_in_doubt = asked.upstream.is_in_doubt();
        asked.end(&mut envelope, now);
        let tried = if is_in_doubt { tried.map(|_| Tried::Answered) } else { tried }?;
        fail::point("release.answered");
        let mut report = settle(&mut envelope, tried, now, settled);
        report.message_id = message_id(&claim, &envelope).await;
        maillog::released(&report, &envelope);
        if decision == Decision::Due {
            self.remember(&report, &envelope, now).await;
        }
        let mut ending = Ending { claim, envelope, outcome: report.outcome, stage: Stage::Note };
        let Err(cause) = self.end(&mut ending).await else { return Ok(report) };
        maillog::release_not_noted(report.id, &cause.to_string());
        let not_noted = ReleaseError::NotNoted { id: report.id, cause };
        if let Some(tell) = self.waits {
            tell(&format!(
                "{not_noted}. Do not end this command before: the next release would send the message again"
            ));
            self.see_through(ending).await;
            return Ok(report);
        }
        let releaser = self.clone();
        tokio::spawn(async move { releaser.see_through(ending).await });
        Err(not_noted)
    }

    /// Remembers what an account sent without an operator's decision, for the abuse desk should the account turn out to
    /// be stolen.
    async fn remember(&self, report: &Report, envelope: &Envelope, now: Timestamp) {
        if let Some((_, reply)) = report.delivered.first() {
            let relayed =
                Relayed { at: now, reply: reply.to_string(), message_id: report.message_id.clone() };
            self.parts.ledger.watch(&envelope.account, now).await.relayed(relayed);
        }
    }

    /// Writes the answers down, notifies the sender, and removes the message; starts at the current stage, and stops at
    /// the first error.
    async fn end(&self, ending: &mut Ending) -> Result<(), EndError> {
        let Ending { claim, envelope, outcome, stage } = ending;
        if *stage == Stage::Note {
            // A message that goes at once would take the note with it. Besides, a full disk takes no note, but lets
            // files be removed.
            if *outcome != ReleaseOutcome::Released || envelope.failures_to_tell().next().is_some() {
                claim.update(envelope.clone()).await?;
                fail::point("release.noted");
            }
            *stage = Stage::Tell;
        }
        if *outcome != ReleaseOutcome::Released {
            return Ok(());
        }
        if *stage == Stage::Tell {
            self.tell_sender(claim, envelope).await?;
            fail::point("release.told");
            *stage = Stage::Remove;
        }
        claim.finish().await?;
        fail::point("release.done");
        Ok(())
    }

    /// Repeats [`Self::end`] until it succeeds or `serve` shuts down. The message stays claimed meanwhile, so that an
    /// error of our disk does not make us ask the upstream again.
    async fn see_through(&self, mut ending: Ending) {
        let mut shutdown = self.parts.shutdown.clone();
        loop {
            let down = timeout(DISK_AGAIN, shutdown.wait_for(|down| *down)).await.is_ok();
            match self.end(&mut ending).await {
                Ok(()) => return maillog::release_noted(ending.envelope.id),
                Err(cause) if down => {
                    return maillog::release_forgotten(ending.envelope.id, &cause.to_string());
                }
                Err(_) => {}
            }
        }
    }

    /// Sends the sender one DSN for all recipients refused for good, if the sender wants to know.
    async fn tell_sender(&self, claim: &Claim, envelope: &Envelope) -> Result<(), EndError> {
        let refused: Vec<&Recipient> = envelope.failures_to_tell().collect();
        if refused.is_empty() {
            return Ok(());
        }
        let (sent, is_whole) = match returned(claim, envelope).await {
            Ok(returned) => returned,
            // The sender hears of it all the same.
            Err(Unfit::Altered(_)) => (envelope.trace.clone().into_bytes(), false),
            Err(Unfit::Unreadable(error)) => return Err(error.into()),
        };
        let original = if is_whole { Original::Whole(&sent) } else { Original::Header(&sent) };
        Ok(self.parts.desk.dsn(envelope, original, &refused).await?)
    }
}

impl Try {
    /// Writes the decision to disk.
    async fn begin(mut claim: Claim, decision: Decision, settled: Option<Span>) -> Result<Self, SpoolError> {
        fail::point("release.claimed");
        let mut envelope = claim.envelope().clone();
        let now = clock::now();
        decide(&mut envelope, decision, now, settled);
        claim.update(envelope.clone()).await?;
        fail::point("release.decided");
        Ok(Self { claim, envelope, decision, now, settled })
    }

    /// Leaves the message to an operator: nothing of it was sent, and its account is blocked.
    async fn keep(mut self, asked: Asked) -> Result<(), SpoolError> {
        asked.end(&mut self.envelope, self.now);
        fail::point("release.answered");
        maillog::kept_by_block(&self.envelope);
        self.envelope.keep();
        self.claim.update(self.envelope).await
    }
}

impl Asked {
    /// Ends the transaction.
    fn end(self, envelope: &mut Envelope, now: Timestamp) {
        if self.upstream.is_in_doubt() {
            // It is unknown which answer belongs to which question: none of them counts, and nothing was sent.
            envelope.recipients = self.before;
            answer_all(envelope, &no_answer(&Fault::out_of_step()), now);
        }
        self.upstream.abandon();
    }
}

/// Sends the message to the recipients in `taken`, and records the upstream's answer for each.
async fn send(
    claim: &Claim,
    envelope: &mut Envelope,
    upstream: &mut Transaction,
    taken: &[usize],
    now: Timestamp,
) -> Result<Tried, SpoolError> {
    let (reply, tried) = match stream(claim, envelope, upstream).await? {
        Sent::Content(reply) if reply.is_permanent() => (reply, Tried::ContentRefused),
        Sent::Content(reply) => (reply, Tried::Answered),
        Sent::Data(reply) => {
            if reply.is_permanent() {
                answer_all(envelope, &reply, now);
            }
            (reply, Tried::Answered)
        }
        Sent::Fault(fault) => {
            upstream.abort_data();
            (no_answer(&fault), Tried::Answered)
        }
    };
    for index in taken {
        if let Some(recipient) = envelope.recipients.get_mut(*index) {
            recipient.state = answered(&reply, now);
        }
    }
    Ok(tried)
}

/// Streams the whole message upstream. One that is not what arrived is refused for good, by ourselves: an operator hears of it
/// as of any other message that nobody takes.
async fn stream(claim: &Claim, envelope: &Envelope, upstream: &mut Transaction) -> Result<Sent, SpoolError> {
    match stream_whole(claim, envelope, upstream).await {
        Ok(sent) => Ok(sent),
        Err(Unfit::Altered(altered)) => {
            maillog::altered(envelope, &altered.to_string());
            Ok(Sent::Content(not_sent()))
        }
        Err(Unfit::Unreadable(error)) => Err(error),
    }
}

async fn stream_whole(claim: &Claim, envelope: &Envelope, upstream: &mut Transaction) -> Result<Sent, Unfit> {
    let mut message = Reading::of(claim.message().await?, envelope);
    let (header, body) = message.header().await?;
    let form = Form::of(&envelope.parameters);
    match form.begin(upstream).await {
        Ok(()) => {}
        Err(Stopped::Refused(reply)) => return Ok(Sent::Data(reply)),
        Err(Stopped::Fault(fault)) => return Ok(Sent::Fault(fault)),
    }
    let mut transfer = Transfer::new(form, envelope.treatment, &envelope.trace, &header);
    let mut pushed = transfer.push(upstream, &body).await;
    loop {
        if let Err(stop) = pushed {
            return Ok(Sent::from(stop));
        }
        let content = message.next().await.inspect_err(|_| upstream.abort_data())?;
        if content.is_empty() {
            break;
        }
        pushed = transfer.push(upstream, content).await;
    }
    Ok(transfer.finish(upstream).await.map_or_else(Sent::from, Sent::Content))
}

/// Returns what a DSN returns of the message, and whether that is all of it.
async fn returned(claim: &Claim, envelope: &Envelope) -> Result<(Vec<u8>, bool), Unfit> {
    let mut message = Reading::of(claim.message().await?, envelope);
    let (header, body) = message.header().await?;
    let mut sent = as_sent(&envelope.trace, envelope.treatment, &header);
    let is_whole = returns_whole(envelope);
    if is_whole {
        sent.extend(body);
    }
    loop {
        let content = message.next().await?;
        if content.is_empty() {
            return Ok((sent, is_whole));
        }
        if is_whole {
            sent.extend_from_slice(content);
        }
    }
}

/// Returns whether a DSN returns the whole message: if that was asked for (RFC 3461 4.3), unless it requires TLS (RFC
/// 8689 5) or is too big.
fn returns_whole(envelope: &Envelope) -> bool {
    let MailParameters { ret, require_tls, .. } = &envelope.parameters;
    *ret == Some(Ret::Full) && !require_tls && envelope.size <= MAX_RETURNED
}

impl From<Stopped> for Sent {
    fn from(stop: Stopped) -> Self {
        match stop {
            Stopped::Refused(reply) => Self::Content(reply),
            Stopped::Fault(fault) => Self::Fault(fault),
        }
    }
}

/// Returns the message's own Message-ID, or the one that it was given on arrival; for the log.
async fn message_id(claim: &Claim, envelope: &Envelope) -> Option<String> {
    let (header, _) = Reading::of(claim.message().await.ok()?, envelope).header().await.ok()?;
    header.value("Message-ID").or_else(|| {
        let mut trace = HeaderCollector::new(usize::MAX);
        let _ = trace.push(envelope.trace.as_bytes());
        trace.finish().value("Message-ID")
    })
}

/// Records the decision. A failed message starts over: its refused recipients are tried again, and the five days begin
/// anew. Those of a release that was decided while the clock was ahead begin once that is known.
fn decide(envelope: &mut Envelope, decision: Decision, now: Timestamp, settled: Option<Span>) {
    let failed = envelope.state() == State::Failed;
    let quiet = match decision {
        Decision::Operator { quiet } => Some(quiet),
        Decision::Due => Some(false),
        Decision::Earlier => None,
    };
    if let Some(quiet) = quiet {
        if failed {
            for recipient in &mut envelope.recipients {
                if matches!(recipient.state, RecipientState::Refused { .. }) {
                    recipient.state = RecipientState::Pending;
                }
            }
        }
        let (requested, tries) = match &envelope.release {
            // Once its time is over the tries that it had still count: an operator's repetition is no new beginning.
            Some(earlier) if !failed && now >= earlier.requested.after(GIVE_UP_AFTER) => {
                (earlier.requested, earlier.tries)
            }
            Some(earlier) if !failed => (earlier.requested, 0),
            _ => (now, 0),
        };
        let by_itself = decision == Decision::Due;
        envelope.begin_release(Release { requested, quiet, by_itself, tries, next: Some(now) });
    }
    if let Some(release) = &mut envelope.release {
        if let Some(said) = settled.filter(|_| decision == Decision::Earlier) {
            release.requested = release.requested.min(said.latest);
        }
        release.tries = release.tries.saturating_add(1);
        // A try that is cut short by a crash is repeated after the usual pause.
        release.next = Some(next_try(release.requested, release.tries, now));
    }
}

/// Determines the outcome of the try, and records it in the envelope.
fn settle(envelope: &mut Envelope, tried: Tried, now: Timestamp, settled: Option<Span>) -> Report {
    let any_delivered = envelope.any_delivered();
    if envelope.release.as_ref().is_some_and(|release| is_over(release.requested, release.tries, settled)) {
        give_up(envelope, now);
    }
    let open = envelope.pending().next().is_some();
    let outcome = if tried == Tried::ContentRefused && !any_delivered {
        ReleaseOutcome::Failed
    } else if open {
        ReleaseOutcome::Releasing
    } else if any_delivered {
        ReleaseOutcome::Released
    } else {
        ReleaseOutcome::Failed
    };
    if let Some(release) = &mut envelope.release {
        release.next = match outcome {
            ReleaseOutcome::Releasing => Some(next_try(release.requested, release.tries, now)),
            // It is removed in a moment; after a crash before that, the next try finishes the release.
            ReleaseOutcome::Released => Some(now),
            ReleaseOutcome::Failed => None,
        };
    }
    Report::of(envelope, outcome)
}

/// Records deferred recipients as refused, since the five days are over by a clock that has settled.
fn give_up(envelope: &mut Envelope, now: Timestamp) {
    for recipient in &mut envelope.recipients {
        if let RecipientState::Deferred { reply, .. } = &recipient.state {
            recipient.state = RecipientState::Refused { reply: reply.clone(), at: now };
        }
    }
}

/// Returns the identity of the session in which the message arrived, with a session id of this try's own, so that its
/// connections are not shared.
fn identity(envelope: &Envelope, now: Timestamp) -> Arc<ClientIdentity> {
    let facts = &envelope.session;
    Arc::new(ClientIdentity {
        session: SessionId::new(now),
        name: facts.client_name.clone(),
        address: SocketAddr::new(facts.client.ip().to_canonical(), facts.client.port()),
        helo: facts.helo.clone(),
        extended: facts.extended,
        login: facts.login.clone(),
    })
}

/// Returns the time by which BY= may be judged for good in a try at `now`; `settled` is what the clock has said for a while.
fn certain(
    envelope: &Envelope,
    decision: Decision,
    now: Timestamp,
    settled: Option<Span>,
) -> Option<Timestamp> {
    match decision {
        // Whoever decides now sees what comes of it, and can repeat it while nobody was taken.
        Decision::Operator { .. } if !envelope.any_delivered() => Some(now),
        Decision::Operator { .. } | Decision::Due | Decision::Earlier => settled.map(|said| said.earliest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quarantine::sample;

    const HOUR: Duration = Duration::from_secs(60 * 60);

    pub(super) fn at(hours: u32) -> Timestamp {
        Timestamp::from_millis(1_795_536_328_123).after(HOUR * hours)
    }

    pub(super) fn later() -> Reply {
        Reply { code: 451, enhanced: None, text: "come back later".into() }
    }

    /// A release decided at hour 0, with as many recipients, all of which were deferred.
    pub(super) fn deferred(recipients: usize) -> Envelope {
        let mut envelope = sample::envelope(sample::id(1), b"");
        let recipient = envelope.recipients.remove(0);
        let state = answered(&later(), at(0));
        envelope.recipients = vec![Recipient { state, ..recipient }; recipients];
        decide(&mut envelope, Decision::Operator { quiet: true }, at(0), None);
        envelope
    }

    /// After the first delivery the message leaves with this try: nobody can repeat it.
    #[test]
    fn an_operator_goes_by_the_clock_while_that_can_be_repeated() {
        let mut envelope = deferred(2);
        let settled = Some(Span { earliest: at(1), latest: at(2) });
        let operator = Decision::Operator { quiet: false };
        for (decision, expected) in [(operator, at(3)), (Decision::Due, at(1)), (Decision::Earlier, at(1))] {
            assert_eq!(certain(&envelope, decision, at(3), settled), Some(expected), "{decision:?}");
        }
        let reply = Reply { code: 250, enhanced: None, text: "ok".into() };
        envelope.recipients[0].state = RecipientState::Delivered { reply, at: at(0) };
        assert_eq!(certain(&envelope, operator, at(3), settled), Some(at(1)));
        assert_eq!(certain(&envelope, operator, at(3), None), None);
    }

    /// Whatever the clock says at the moment: mail would be lost without a word.
    #[test]
    fn five_days_are_over_only_by_a_settled_clock() {
        let span = |earliest, latest| Some(Span { earliest: at(earliest), latest: at(latest) });
        for (hour, settled, given_up) in [
            (119, None, false),
            (120, None, false),
            (121, span(120, 121), true),
            // Ahead.
            (9_000, None, false),
            (9_000, span(1, 9_000), false),
            (9_000, span(119, 9_000), false),
            // Too far behind to be true.
            (1, span(120, 121), true),
        ] {
            for decision in [Decision::Operator { quiet: true }, Decision::Earlier] {
                let mut envelope = deferred(2);
                envelope.recipients[0].state = answered(&sample::reply(), at(0));
                decide(&mut envelope, decision, at(hour), None);
                let release = envelope.release.as_mut().unwrap();
                release.tries = 100;
                let begun = release.next.unwrap();
                assert!(begun > at(hour) && begun <= at(hour + 1), "{hour}: {begun}");
                let report = settle(&mut envelope, Tried::Answered, at(hour), settled);
                let outcome = if given_up { ReleaseOutcome::Released } else { ReleaseOutcome::Releasing };
                assert_eq!((report.outcome, report.refused.len()), (outcome, usize::from(given_up)));
                let next = envelope.release.unwrap().next;
                if hour >= 120 && !given_up {
                    assert_eq!(next, Some(at(hour + 1)), "{hour} {settled:?}");
                }
            }
        }
    }

    #[test]
    fn what_failed_no_longer_goes_out_by_itself() {
        for decision in [Decision::Due, Decision::Operator { quiet: true }] {
            let mut envelope = deferred(1);
            envelope.release = None;
            envelope.due = Some(at(1));
            envelope.reason = "account on probation: it goes out by itself".into();
            decide(&mut envelope, decision, at(1), None);
            let tried = Tried::ContentRefused;
            assert_eq!(settle(&mut envelope, tried, at(1), None).outcome, ReleaseOutcome::Failed);
            assert_eq!(envelope.reason, "account on probation when it came");
        }
    }

    /// Somebody releases everything each hour: what has had its five days is given up all the same.
    #[test]
    fn a_repetition_is_no_new_beginning() {
        for (hour, tries) in [(119, 1), (120, 101)] {
            let mut envelope = deferred(1);
            envelope.release.as_mut().unwrap().tries = 100;
            decide(&mut envelope, Decision::Operator { quiet: false }, at(hour), None);
            assert_eq!(envelope.release.unwrap().tries, tries, "{hour}");
        }
    }

    #[test]
    fn the_five_days_begin_when_the_clock_is_back() {
        for (hour, latest, requested) in [(1, None, 0), (1, Some(1), 0), (1, Some(9_000), 0)] {
            let said = latest.map(|latest| Span { earliest: at(0), latest: at(latest) });
            let mut envelope = deferred(1);
            decide(&mut envelope, Decision::Earlier, at(hour), said);
            assert_eq!(envelope.release.unwrap().requested, at(requested));
        }
        let mut envelope = deferred(1);
        envelope.release.as_mut().unwrap().requested = at(9_000);
        for (said, requested) in [(None, 9_000), (Some(Span { earliest: at(1), latest: at(2) }), 2)] {
            decide(&mut envelope, Decision::Earlier, at(2), said);
            assert_eq!(envelope.release.as_ref().unwrap().requested, at(requested));
        }
    }
}
