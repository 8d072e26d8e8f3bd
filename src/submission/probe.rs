//! Questions and their answers: what goes upstream, how much at once, and how an answer counts.
//!
//! A RCPT is asked only with leave from the guard, so that RCPTs in flight over all sessions of an account plus its count never
//! exceed its limit. An invalid recipient is durable in the ledger before its reply goes to the client.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use tokio::time::Instant;

use super::client::Lost;
use super::message::upstream_fault;
use super::{Conversation, Sender, facts};
use crate::clock;
use crate::guard::classify::missing_host;
use crate::guard::ledger::{Attempt, BlockedBy, Leniency, Record, Terms, Verdict};
use crate::guard::mimicry::{About, Place};
use crate::guard::window::Rule;
use crate::guard::{Outcome, Standing, classify};
use crate::maillog::Alarm;
use crate::rare::rare;
use crate::session::{Answered, Ask, Event, Step, UpstreamFault};
use crate::smtp::{ForwardPath, MailCommand, RcptCommand, Reply};
use crate::upstream::{Answer, Fault, Question, Transaction};

/// Whether one more RCPT may be in flight, with the machine's next step, since answers may have come meanwhile.
enum Leave {
    /// It may; the session has the guard's leave for it.
    Given(Step),
    /// The account is blocked.
    Blocked(Step),
    /// The session is over.
    Over,
}

/// A question without an answer yet.
pub(super) enum Asked {
    /// The upstream was asked.
    Mail {
        /// The address of the reverse-path.
        address: String,
    },
    /// The upstream was asked.
    Rcpt {
        /// The recipient. Its leave is part of the session's, and given back with the answer.
        path: ForwardPath,
    },
    /// It could not be asked.
    Failed(UpstreamFault),
    /// It could not be asked: the upstream refused MAIL, which was asked late.
    MailRefused(Reply),
    /// The account was blocked before its turn came.
    Unasked,
    /// It was counted already.
    BrokenPath,
}

impl Conversation {
    /// Asks without waiting for the answer, though it may wait for the guard's leave.
    pub(super) async fn ask(&mut self, ask: Ask) -> Result<Step, Lost> {
        match ask {
            Ask::Mail(command) => {
                self.open(command);
                Ok(Step::Read)
            }
            Ask::Rcpt(command) => self.ask_rcpt(command).await,
            Ask::BrokenPath(octets) => rare(self.ask_broken_path(&octets)).await,
        }
    }

    fn open(&mut self, command: MailCommand) {
        let identity = facts::identity(&self.session, self.id, self.peer);
        let mut upstream = self.connections.transaction(identity);
        self.asked.push_back(Asked::Mail { address: command.reverse_path.as_str().to_owned() });
        upstream.ask(Question::Mail(command));
        self.upstream = Some(Box::new(upstream));
    }

    async fn ask_rcpt(&mut self, command: RcptCommand) -> Result<Step, Lost> {
        let step = match self.leave_to_ask().await? {
            Leave::Given(step) => step,
            Leave::Blocked(step) => {
                self.asked.push_back(Asked::Unasked);
                return Ok(step);
            }
            Leave::Over => return Ok(Step::Close),
        };
        if self.upstream.is_none()
            && let Err(unasked) = rare(self.reopen()).await?
        {
            self.asked.push_back(unasked);
            self.free_leave();
            return Ok(step);
        }
        if let Some(upstream) = &mut self.upstream {
            self.asked.push_back(Asked::Rcpt { path: command.forward_path.clone() });
            upstream.ask(Question::Rcpt(command));
        }
        Ok(step)
    }

    /// Opens the transaction upstream: MAIL was answered without asking while the account was blocked, and it no longer is. If
    /// the upstream refuses, the recipients get its reply; those of one batch share one question.
    async fn reopen(&mut self) -> Result<Result<(), Asked>, Lost> {
        match self.asked.back() {
            Some(Asked::MailRefused(reply)) => return Ok(Err(Asked::MailRefused(reply.clone()))),
            Some(Asked::Failed(fault)) => return Ok(Err(Asked::Failed(*fault))),
            _ => {}
        }
        // Others must not wait for that.
        self.give_back_leave();
        self.client.flush().await?;
        let Some(transaction) = self.session.transaction() else {
            return Ok(Err(Asked::Failed(UpstreamFault::Unavailable)));
        };
        let identity = facts::identity(&self.session, self.id, self.peer);
        let mut upstream = self.connections.transaction(identity);
        upstream.ask(Question::Mail(transaction.mail.clone()));
        Ok(match upstream.answer().await {
            Answer::Replied(reply) if reply.is_completion() => {
                self.upstream = Some(Box::new(upstream));
                Ok(())
            }
            Answer::Replied(reply) => {
                self.log.upstream_failed("MAIL", &reply.to_string());
                Err(Asked::MailRefused(reply))
            }
            Answer::None(fault) => {
                self.log_fault("MAIL", &fault);
                Err(Asked::Failed(upstream_fault(&fault)))
            }
        })
    }

    async fn ask_broken_path(&mut self, octets: &[u8]) -> Result<Step, Lost> {
        let step = match self.leave_to_ask().await? {
            Leave::Given(step) => {
                // Others must not wait for our disk.
                self.give_back_leave();
                let shown = String::from_utf8_lossy(octets).into_owned();
                self.count(&shown, octets, None).await;
                self.free_leave();
                step
            }
            Leave::Blocked(step) => step,
            Leave::Over => return Ok(Step::Close),
        };
        self.asked.push_back(Asked::BrokenPath);
        Ok(step)
    }

    /// Lets DATA go upstream with the RCPTs that it follows in the client's batch, if the message will certainly go there too:
    /// not if one of these RCPTs may block the account or raise an alarm.
    pub(super) fn data_follows(&mut self) {
        let (Some(upstream), Some(Sender { watch, .. })) = (&mut self.upstream, &self.sender) else { return };
        let recipients = self.asked.iter().filter(|asked| matches!(asked, Asked::Rcpt { .. })).count();
        if recipients > 0 && self.session.needs_upstream() && watch.stays_open(recipients, clock::now()) {
            upstream.data_follows();
        }
    }

    /// Gets the guard's leave for one more RCPT in flight, asking once for all that have come. If this session's own questions
    /// hold all the leave there is, they are answered first.
    async fn leave_to_ask(&mut self) -> Result<Leave, Lost> {
        let Some(Sender { watch, leave, unused_leave, answered_leave, .. }) = &mut self.sender else {
            return Ok(Leave::Blocked(Step::Read));
        };
        if *unused_leave == 0 {
            leave.release_some(std::mem::take(answered_leave));
            let wanted = 1 + self.client.rcpts_at_most();
            *unused_leave = watch.try_extend(leave, wanted, clock::now()).unwrap_or_default();
        }
        if *unused_leave > 0 && watch.standing() == Standing::Open {
            *unused_leave -= 1;
            return Ok(Leave::Given(Step::Read));
        }
        rare(self.wait_for_leave()).await
    }

    pub(super) fn give_back_leave(&mut self) {
        if let Some(sender) = &mut self.sender {
            sender.give_back_leave();
        }
    }

    async fn wait_for_leave(&mut self) -> Result<Leave, Lost> {
        self.give_back_leave();
        let step = self.settle_all().await;
        if step == Step::Close {
            return Ok(Leave::Over);
        }
        self.client.flush().await?;
        let wanted = 1 + self.client.rcpts_at_most();
        let Some(Sender { watch, leave, unused_leave, .. }) = &mut self.sender else {
            return Ok(Leave::Blocked(step));
        };
        Ok(match watch.reserve(leave, wanted, clock::now()).await {
            Some(granted) => {
                // One of them is for the RCPT that waited.
                *unused_leave = granted.saturating_sub(1);
                Leave::Given(step)
            }
            None => Leave::Blocked(step),
        })
    }

    /// Notes that a RCPT has its answer. Its leave cannot be reused for another: it may have counted, and the guard must see
    /// that first.
    fn free_leave(&mut self) {
        if let Some(sender) = &mut self.sender {
            sender.answered_leave += 1;
        }
    }

    /// Waits for all answers, or until the session is over.
    pub(super) async fn settle_all(&mut self) -> Step {
        let mut step = Step::Read;
        while !self.asked.is_empty() && step != Step::Close {
            step = self.settle().await;
        }
        step
    }

    /// Waits for the oldest answer, counts it, and passes it on.
    pub(super) async fn settle(&mut self) -> Step {
        let answered = match self.asked.pop_front() {
            Some(Asked::Mail { address }) => {
                let answer = self.answer("MAIL").await;
                if let Answered::Replied(reply) = &answer {
                    self.parts.ledger.learn(Place::Mail, About::address(&address), reply);
                }
                answer
            }
            Some(Asked::Rcpt { path }) => {
                let answer = self.answer("RCPT").await;
                // After a refused MAIL it says nothing about the recipient.
                if let Answered::Replied(reply) = &answer
                    && self.session.transaction().is_some()
                {
                    self.judge(&path, reply).await;
                }
                self.free_leave();
                answer
            }
            Some(Asked::Failed(fault)) => Answered::Fault(fault),
            Some(Asked::MailRefused(reply)) => Answered::MailRefused(reply),
            Some(Asked::Unasked) => Answered::Unasked,
            Some(Asked::BrokenPath) => Answered::BrokenPath,
            None => return Step::Read,
        };
        if self.asked.is_empty() {
            self.last_answer = Instant::now();
            self.give_back_leave();
        }
        self.handle(Event::Answered(answered))
    }

    /// Returns the upstream's next answer. Replies that are ready go out before a wait for one that is not.
    async fn answer(&mut self, what: &str) -> Answered {
        let Some(upstream) = &mut self.upstream else {
            return Answered::Fault(UpstreamFault::Unavailable);
        };
        let was_in_doubt = upstream.is_in_doubt();
        let answer = {
            let mut answer = pin!(upstream.answer());
            match poll_fn(|cx| Poll::Ready(answer.as_mut().poll(cx))).await {
                Poll::Ready(answer) => answer,
                Poll::Pending => {
                    if let Some(sender) = &mut self.sender {
                        sender.give_back_leave();
                    }
                    self.client.pass_on().await;
                    answer.await
                }
            }
        };
        self.note_doubt(was_in_doubt);
        match answer {
            Answer::Replied(reply) => Answered::Replied(reply),
            Answer::None(fault) => {
                self.log_fault(what, &fault);
                Answered::Fault(upstream_fault(&fault))
            }
        }
    }

    fn log_fault(&self, what: &str, fault: &Fault) {
        match fault {
            Fault::Starved(why) => self.log.starved(what, why),
            fault => self.log.upstream_failed(what, &fault.to_string()),
        }
    }

    /// Logs, once per transaction, that answers passed to the client and the ledger may belong to other questions.
    pub(super) fn note_doubt(&self, before: bool) {
        let is_in_doubt = self.upstream.as_deref().is_some_and(Transaction::is_in_doubt);
        if let Some(sender) = self.sender.as_ref().filter(|_| is_in_doubt && !before) {
            self.log.in_doubt(&sender.account);
        }
    }

    /// Logs and tallies the upstream's answer about a recipient, and counts the recipient if it does not exist.
    async fn judge(&mut self, path: &ForwardPath, reply: &Reply) {
        self.parts.ledger.learn(Place::Rcpt, About::address(path.as_str()), reply);
        if let Some(sender) = &self.sender {
            self.log.probed(&sender.account, path.as_str(), reply);
        }
        let foreign = path.domain().is_some_and(|domain| {
            !self.parts.config.upstream.domains.iter().any(|own| own.eq_ignore_ascii_case(domain))
        });
        let now = clock::now();
        let blindness = self.parts.ledger.tally(foreign, !reply.is_completion(), now);
        if let Some(blindness) = blindness {
            self.give_back_leave();
            rare(self.parts.desk.blind(blindness)).await;
        }
        match (classify(reply, &self.parts.config.classify), &self.sender) {
            (Outcome::Accepted, Some(sender)) => {
                let domain = path.domain().map(|domain| self.domains.of(domain));
                sender.watch.accepted(path.as_str(), domain, now);
            }
            (Outcome::NoSuchRecipient, Some(_)) => {
                self.give_back_leave();
                // Earlier replies must not wait for the disk.
                self.client.pass_on().await;
                // A host without a name is the cause for all domains that are reached by way of it.
                let missing = missing_host(reply)
                    .filter(|host| !path.domain().is_some_and(|domain| domain.eq_ignore_ascii_case(host)))
                    .map(|host| format!("{host} (on the way, and not found)"));
                let cause = missing.as_deref().or(path.domain());
                rare(self.count(path.as_str(), path.comparison_key().as_bytes(), cause)).await;
            }
            (Outcome::OtherRefusal, Some(sender)) if reply.is_permanent() => {
                if let Some(domain) = path.domain() {
                    sender.watch.refused(domain, now);
                }
            }
            _ => {}
        }
    }

    /// Counts one invalid recipient: durable when this returns. The ledger has the abuse desk told of a block.
    async fn count(&mut self, shown: &str, key: &[u8], domain: Option<&str>) {
        let Some(sender) = &self.sender else { return };
        let attempt = Attempt { address: shown, key, domain, client: self.peer.ip(), now: clock::now() };
        let Terms { rule: Rule { limit, .. }, leniency, .. } = sender.watch.terms();
        match sender.watch.count(attempt).await {
            Verdict::Counted { count } => self.log.counted(&sender.account, shown, count, limit),
            Verdict::Repeated | Verdict::Blocked | Verdict::CommonCause => {}
            Verdict::Crossed(record) => {
                self.parts.upstream.end_account(&sender.account);
                match &record.block {
                    Some(block) if block.by == BlockedBy::Detection => {
                        self.log.counted(&sender.account, shown, record.invalid_recipients, limit);
                        self.log.blocked_by_alarm(&sender.account, block);
                    }
                    _ => self.log.blocked(&sender.account, shown, limit),
                }
            }
            Verdict::Alarmed(record) => {
                self.log.counted(&sender.account, shown, record.invalid_recipients, limit);
                self.delay(&record, Alarm::First);
            }
            Verdict::AlarmedAgain(record) => {
                self.log.counted(&sender.account, shown, record.invalid_recipients, limit);
                self.delay(&record, Alarm::Further);
            }
            Verdict::Suspected(record) => {
                self.log.counted(&sender.account, shown, record.invalid_recipients, limit);
                self.log.suspected(&sender.account);
                self.parts.desk.suspected(&record, self.parts.roster.count(&sender.account)).await;
            }
            Verdict::WouldAlarm(record) => {
                self.log.counted(&sender.account, shown, record.invalid_recipients, limit);
                self.log.would_alarm(&sender.account);
                if leniency == Leniency::Observed {
                    self.parts.desk.would_alarm(&record, self.parts.roster.count(&sender.account)).await;
                }
            }
            Verdict::WouldBlock(record) => {
                self.log.would_block(&sender.account, limit);
                // CONTRACT: exempt accounts are counted, shown and logged, nothing more.
                if leniency == Leniency::Observed {
                    self.parts.desk.would_block(&record, self.parts.roster.count(&sender.account)).await;
                }
            }
        }
    }

    /// Postpones the parked mail of an account on probation (CONTRACT, Detection). The ledger has the abuse desk told of the
    /// probation.
    fn delay(&self, record: &Record, alarm: Alarm) {
        if let Some(probation) = record.probation {
            self.log.probation(&record.account, alarm, probation.until);
            self.parts.spool.postpone(&record.account, probation.until);
        }
    }
}
