//! One mail transaction with the upstream, over as many connections as it takes.
//!
//! Questions are asked ahead and answered in order. A connection that is lost gets replaced, what had been accepted is
//! repeated on the new one (repetition.rs), and unanswered questions are asked again. Mail data is in transfer.rs. This
//! file decides what the end of a connection means, never what a reply means. RFC 5321 3.3, 3.8; RFC 2920 3.1.
//!
//! A connection with more replies than questions is given up. If it had answered RCPTs, an existing recipient may have
//! got the refusal of another one: the transaction is in doubt, and nothing is relayed. A surplus reply that is not
//! followed by a further one before the next command goes out cannot be told from that command's own.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

pub use super::connection::MAX_REFUSALS;
use super::connection::{Connection, Loss, MAX_BATCH, WORN_PATIENCE};
use super::preparation::Preparation;
use super::repetition::{Repetition, repeat};
use super::shared::Shared;
use super::slot::Slot;
use super::{Answer, ClientIdentity, Fault, Question};
use crate::rare::rare;
use crate::smtp::{Body, MailCommand, RcptCommand, Reply};

/// Room for a MAIL or RCPT, in octets; a longer one takes more.
const TYPICAL_LINE: usize = 64;

/// How far the transaction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// MAIL and RCPT.
    Envelope,
    /// DATA has been sent, and perhaps part of the message: on any failure the connection must be cut.
    Content,
    /// Nothing more can follow.
    Over,
}

/// The command that got no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Mail,
    Rcpt,
    Data,
}

/// One mail transaction. Dropping it gives the connection back, or closes it in mid-data.
pub struct Transaction {
    pub(super) upstream: Arc<Shared>,
    identity: Arc<ClientIdentity>,
    /// Of its first connection, which may be under way.
    preparation: Option<Preparation>,
    pub(super) stage: Stage,
    pub(super) connection: Option<Box<Connection>>,
    /// The place of a lost connection, for its replacement.
    pub(super) spare: Option<Slot>,
    /// Unanswered questions, oldest first.
    pub(super) questions: VecDeque<Question>,
    /// How many of the questions have been sent.
    in_flight: usize,
    /// How many of the oldest questions get this fault without being asked.
    doomed: Option<(usize, Fault)>,
    mail: Option<MailCommand>,
    pub(super) accepted: Vec<RcptCommand>,
    /// What a fresh connection refused of the accepted part.
    pub(super) not_repeated: Option<Repetition>,
    /// Whether recipients have been refused in this transaction.
    dirty: bool,
    /// Whether the connection replaces one that was lost before it answered all its questions.
    replacement: bool,
    /// The upstreams that hung up on this transaction, at MAIL or later. Others are preferred.
    turned_away: Vec<usize>,
    /// RCPTs answered on the current connection.
    answered: usize,
    /// Whether the answers may belong to other recipients.
    pub(super) in_doubt: bool,
    /// Whether DATA is to go out behind the last question.
    data_follows: bool,
}

impl Transaction {
    pub(super) fn new(
        upstream: Arc<Shared>,
        identity: Arc<ClientIdentity>,
        preparation: Option<Preparation>,
    ) -> Self {
        Self {
            upstream,
            identity,
            preparation,
            stage: Stage::Envelope,
            connection: None,
            spare: None,
            questions: VecDeque::new(),
            in_flight: 0,
            doomed: None,
            mail: None,
            accepted: Vec::new(),
            not_repeated: None,
            dirty: false,
            replacement: false,
            turned_away: Vec::new(),
            answered: 0,
            in_doubt: false,
            data_follows: false,
        }
    }

    /// Queues a question, to be sent by the next [`Self::answer`]; all queued ones go out in one write where the
    /// upstream offers PIPELINING.
    pub fn ask(&mut self, question: Question) {
        self.data_follows = false;
        self.questions.push_back(question);
    }

    /// Lets DATA go out in one write with the last of the questions that are queued, if the upstream offers PIPELINING and
    /// has refused nothing so far: that saves a round trip. [`Self::begin_data`] waits for the reply; if it is not called,
    /// the connection is given up without another word, unless DATA has been refused.
    pub fn data_follows(&mut self) {
        let mail = self.questions.iter().find_map(|question| match question {
            Question::Mail(mail) => Some(mail),
            Question::Rcpt(_) => None,
        });
        let is_binary = |mail: &MailCommand| mail.parameters.body == Some(Body::BinaryMime);
        self.data_follows = !self.questions.is_empty() && !mail.or(self.mail.as_ref()).is_some_and(is_binary);
    }

    /// Counts the unanswered questions.
    #[cfg(test)]
    pub(super) fn outstanding(&self) -> usize {
        self.questions.len()
    }

    /// Returns the answer to the oldest question; a `Fault::Protocol` if there is none.
    ///
    /// Cancel-safe: an unanswered question is answered by the next call.
    pub async fn answer(&mut self) -> Answer {
        loop {
            if let Some(fault) = self.foregone() {
                self.questions.pop_front();
                return Answer::None(fault);
            }
            if self.in_flight == 0 {
                // Boxed only when there is something to wait for: most questions find the connection ready.
                if !self.is_ready()
                    && let Err(fault) = Box::pin(self.make_ready()).await
                {
                    self.doom(fault);
                    continue;
                }
                match self.send_batch() {
                    Ok(None) => {}
                    Ok(Some(missing)) => {
                        self.questions.pop_front();
                        return Answer::None(Fault::MissingExtension(missing));
                    }
                    Err(loss) => {
                        if let Some(answer) = self.lose(loss) {
                            return answer;
                        }
                        continue;
                    }
                }
            }
            if let Some(answer) = self.next_answer().await {
                return answer;
            }
        }
    }

    /// Whether earlier answers may belong to other questions. Nothing is relayed then.
    pub fn is_in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// Whether mail data has begun and not ended.
    pub fn is_in_content(&self) -> bool {
        self.stage == Stage::Content
    }

    /// What the connection in use offers (after XCLIENT), if there is one.
    #[cfg(test)]
    pub(super) fn extensions(&self) -> Option<&crate::smtp::Extensions> {
        self.connection.as_ref().map(|connection| &connection.extensions)
    }

    /// The fault that the oldest question gets without being asked, if any.
    fn foregone(&mut self) -> Option<Fault> {
        if let Some((left, fault)) = self.doomed.take() {
            if left > 1 {
                self.doomed = Some((left - 1, fault.clone()));
            }
            return Some(fault);
        }
        let Some(question) = self.questions.front() else {
            return Some(Fault::Protocol("there is no question to answer".to_owned()));
        };
        if self.in_flight > 0 {
            return None;
        }
        if self.stage != Stage::Envelope {
            return Some(Fault::Protocol("the transaction takes no more questions".to_owned()));
        }
        match (question, &self.mail, &self.not_repeated) {
            (Question::Mail(_), Some(_), _) => Some(Fault::Protocol("a second MAIL".to_owned())),
            (Question::Rcpt(_), None, _) => Some(Fault::Unavailable("MAIL was not accepted".to_owned())),
            (_, _, Some(Repetition::MailRefused(why))) => Some(Fault::Unavailable(why.clone())),
            _ => None,
        }
    }

    /// Gives this fault to all outstanding questions.
    fn doom(&mut self, fault: Fault) {
        self.spare = None;
        self.in_flight = 0;
        if !self.questions.is_empty() {
            self.doomed = Some((self.questions.len(), fault));
        }
    }

    fn is_ready(&self) -> bool {
        let is_usable =
            |connection: &Connection| connection.refusals < MAX_REFUSALS && !connection.is_data_ahead();
        self.connection.as_deref().is_some_and(is_usable) && self.not_repeated.is_none()
    }

    /// Provides a connection on which the accepted part stands, with room for more refusals.
    async fn make_ready(&mut self) -> Result<(), Fault> {
        self.take_data_back().await;
        let is_worn = |connection: &mut Box<Connection>| connection.refusals >= MAX_REFUSALS;
        if let Some(mut worn) = self.connection.take_if(is_worn) {
            if let Err(loss) = worn.check_in_step() {
                self.doubt(&loss);
            }
            self.replace(worn).await;
        }
        if self.connection.is_none() {
            self.connect().await?;
        }
        match &self.not_repeated {
            Some(Repetition::MailRefused(why)) => Err(Fault::Unavailable(why.clone())),
            _ => Ok(()),
        }
    }

    /// Gives up a connection on which DATA has gone out ahead, unless it has been refused: no content follows.
    pub(super) async fn take_data_back(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        match connection.take_data_back() {
            Ok(()) => self.connection = Some(connection),
            Err(loss) => {
                self.doubt(&loss);
                self.replace(connection).await;
            }
        }
    }

    /// Gives up a connection that still answers, and takes a place for the next one.
    async fn replace(&mut self, old: Box<Connection>) {
        self.replacement = false;
        self.spare = Some(match self.upstream.pool.spare() {
            Some(slot) => {
                old.quit();
                slot
            }
            None => rare(old.leave()).await,
        });
    }

    /// Connects and repeats what had been accepted.
    pub(super) async fn connect(&mut self) -> Result<(), Fault> {
        self.answered = 0;
        let mut connection = match self.spare.take() {
            Some(slot) => rare(self.upstream.dial(slot, Some(&self.identity), &self.turned_away)).await?,
            None => match self.prepared().await? {
                Some(connection) => connection,
                None => Box::pin(self.upstream.connection(&self.identity)).await?,
            },
        };
        if let Some(mail) = &self.mail {
            let limits = &self.upstream.settings().timeouts;
            // Recipients need no repetition if nothing can be relayed any more.
            let is_lost = self.not_repeated.is_some() || self.in_doubt;
            let recipients = if is_lost { &[] } else { self.accepted.as_slice() };
            let mut outcome = repeat(&mut connection, mail, recipients, limits).await;
            if matches!(outcome, Err(Loss::Closed(_))) && connection.has_rested() {
                let slot = connection.discard();
                connection = rare(self.upstream.dial(slot, Some(&self.identity), &self.turned_away)).await?;
                outcome = repeat(&mut connection, mail, recipients, limits).await;
            }
            match outcome? {
                Repetition::Whole => {}
                Repetition::MailRefused(why) => {
                    self.not_repeated = Some(Repetition::MailRefused(why));
                    connection.quit();
                    return Ok(());
                }
                refused @ Repetition::RecipientRefused(_) => self.not_repeated = Some(refused),
            }
        }
        self.connection = Some(connection);
        Ok(())
    }

    /// Returns the connection that was being made ready when the transaction began, unless it is in the pool.
    async fn prepared(&mut self) -> Result<Option<Box<Connection>>, Fault> {
        let Some(preparation) = &mut self.preparation else { return Ok(None) };
        let finished = rare(preparation.finished(&self.upstream.pool)).await;
        self.preparation = None;
        finished
    }

    /// Queues as many questions as may be in flight; returns the extension that the first one lacks.
    fn send_batch(&mut self) -> Result<Option<&'static str>, Loss> {
        let Some(connection) = &mut self.connection else {
            return Err(Loss::Closed("there is no connection".to_owned()));
        };
        connection.check_in_step()?;
        let window = if !connection.extensions.pipelining {
            1
        } else if self.dirty || connection.refusals > 0 {
            // Each may be refused, and the connection must not see more refusals than allowed.
            usize::try_from(MAX_REFUSALS.saturating_sub(connection.refusals)).unwrap_or(1).max(1)
        } else {
            MAX_BATCH
        };
        connection.outbox.reserve(window.min(self.questions.len()) * TYPICAL_LINE);
        for question in self.questions.iter().take(window) {
            let extensions = &connection.extensions;
            let missing = match question {
                Question::Mail(mail) => mail.missing_extension(extensions),
                Question::Rcpt(rcpt) => rcpt.missing_extension(extensions),
            };
            if missing.is_some() {
                if self.in_flight == 0 {
                    return Ok(missing);
                }
                break;
            }
            match question {
                Question::Mail(mail) => mail.encode(extensions, &mut connection.outbox),
                Question::Rcpt(rcpt) => rcpt.encode(extensions, &mut connection.outbox),
            }
            self.in_flight += 1;
        }
        if self.in_flight == self.questions.len() {
            // RFC 2920 3.1: DATA may end a batch. After a refusal it may be one error too many for the upstream.
            let is_clean = !self.dirty && !self.in_doubt && connection.refusals == 0;
            if std::mem::take(&mut self.data_follows) && is_clean && connection.extensions.pipelining {
                connection.queue_data_ahead();
            }
        }
        Ok(None)
    }

    /// Returns the answer to the oldest question in flight; `None` if it is to be asked again.
    async fn next_answer(&mut self) -> Option<Answer> {
        let limits = &self.upstream.settings().timeouts;
        let limit = match self.questions.front()? {
            Question::Mail(_) => limits.mail,
            Question::Rcpt(_) => limits.rcpt,
        };
        let connection = self.connection.as_mut()?;
        let is_worn = connection.refusals >= MAX_REFUSALS && self.mail.is_some();
        let limit = if is_worn { WORN_PATIENCE.min(limit) } else { limit };
        let reply = match connection.reply(limit).await {
            Err(Loss::Silent(_)) if is_worn => {
                // The upstream gets slower from here on: the rest goes over a fresh connection.
                self.in_flight = 0;
                if let Some(worn) = self.connection.take() {
                    rare(self.replace(worn)).await;
                }
                return None;
            }
            Ok(reply) => connection.check_awaiting(self.in_flight.saturating_sub(1)).map(|()| reply),
            Err(loss) => Err(loss),
        };
        match reply {
            Ok(reply) => self.settle(reply),
            Err(loss) => self.lose(loss),
        }
    }

    fn settle(&mut self, reply: Reply) -> Option<Answer> {
        if reply.is_intermediate() {
            return self.lose(Loss::Garbled(format!("a reply that answers neither MAIL nor RCPT: {reply}")));
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        let question = self.questions.pop_front()?;
        match (&question, &self.connection) {
            (Question::Rcpt(_), _) => self.answered += 1,
            (Question::Mail(_), Some(connection)) => self.upstream.endpoints().replied(connection.endpoint),
            (Question::Mail(_), None) => {}
        }
        if !reply.is_completion() {
            self.dirty = true;
            if let Some(connection) = &mut self.connection {
                connection.refusals += 1;
            }
            return Some(Answer::Replied(reply));
        }
        match question {
            Question::Mail(mail) => self.mail = Some(mail),
            Question::Rcpt(rcpt) if self.mail.is_some() => {
                if self.accepted.is_empty() {
                    self.accepted.reserve(1 + self.questions.len());
                }
                self.accepted.push(rcpt);
            }
            Question::Rcpt(_) => {}
        }
        Some(Answer::Replied(reply))
    }

    /// Gives the connection up. Returns the answer to the oldest question; or `None`, when all outstanding questions
    /// are doomed or will be asked again on a fresh connection.
    fn lose(&mut self, loss: Loss) -> Option<Answer> {
        let lost = self.connection.take()?;
        self.in_flight = 0;
        self.doubt(&loss);
        let first = matches!(self.questions.front(), Some(Question::Mail(_)));
        self.leave_out(&lost, &loss, if first { Verb::Mail } else { Verb::Rcpt });
        let again = match loss {
            Loss::Closed(_) if first => lost.has_rested() || self.goes_elsewhere(),
            Loss::OutOfStep if first => !self.replacement,
            Loss::Closed(_) | Loss::OutOfStep => {
                self.mail.is_some() && (self.answered > 0 || !self.replacement)
            }
            Loss::Silent(_) | Loss::Garbled(_) => false,
        };
        if again {
            self.replacement = !first || loss == Loss::OutOfStep;
            self.spare = Some(lost.discard());
            return None;
        }
        match loss {
            Loss::Closed(why) => {
                self.doom(Fault::Unavailable(why));
                None
            }
            loss => {
                // We keep the place: the other questions go on over a fresh connection, whoever else waits.
                self.spare = Some(lost.discard());
                self.questions.pop_front();
                Some(Answer::None(match loss {
                    Loss::Silent(limit) if !first => Fault::Silent(limit),
                    loss => loss.into(),
                }))
            }
        }
    }

    /// Prefers other upstreams for this transaction after a hang-up. At MAIL the cause may be this sender or the
    /// upstream itself, so the upstream is left out for everybody only once several clients have met it; the end of an
    /// idle connection tells nothing. Silence at MAIL or DATA leaves it out for everybody, since others would wait as
    /// well; at RCPT the silence may be that of the server which the upstream asks.
    pub(super) fn leave_out(&mut self, lost: &Connection, loss: &Loss, verb: Verb) {
        let (endpoints, now) = (self.upstream.endpoints(), Instant::now());
        match (loss, verb) {
            (Loss::Closed(_), Verb::Mail) if lost.has_rested() => {}
            (Loss::Closed(_), Verb::Mail) => {
                self.turned_away.push(lost.endpoint);
                endpoints.hung_up(lost.endpoint, self.identity.account(), now);
            }
            (Loss::Closed(_), Verb::Rcpt | Verb::Data) => self.turned_away.push(lost.endpoint),
            (Loss::Silent(_), Verb::Mail | Verb::Data) => endpoints.failed(lost.endpoint, now),
            (Loss::Silent(_), Verb::Rcpt) | (Loss::Garbled(_) | Loss::OutOfStep, _) => {}
        }
    }

    fn goes_elsewhere(&self) -> bool {
        self.upstream.endpoints().any_in(Instant::now(), &self.turned_away)
    }

    pub(super) fn doubt(&mut self, loss: &Loss) {
        self.in_doubt |= *loss == Loss::OutOfStep && self.answered > 0;
    }

    /// Ends the transaction with RSET; the connection stays for the session's next one.
    pub fn abandon(self) {
        drop(self);
    }

    /// Gives the connection to others while the client is silent. The next question, or DATA, takes another one and
    /// repeats the accepted part there. Does nothing while an answer is awaited or once DATA has been sent.
    pub fn rest(&mut self) {
        if self.stage == Stage::Envelope && self.questions.is_empty() {
            self.give_back();
            self.spare = None;
            self.replacement = false;
        }
    }

    fn give_back(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        if self.stage != Stage::Envelope {
            return drop(connection);
        }
        if self.in_flight > 0 {
            return connection.quit();
        }
        if let Err(loss) = connection.take_data_back() {
            self.doubt(&loss);
            return connection.quit();
        }
        match connection.check_in_step() {
            Ok(()) if connection.is_reusable(Instant::now()) => {
                if self.mail.is_some() {
                    connection.reset();
                }
                self.upstream.pool.give_back(connection);
            }
            Ok(()) => connection.quit(),
            Err(loss) => {
                self.doubt(&loss);
                connection.quit();
            }
        }
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.give_back();
    }
}
