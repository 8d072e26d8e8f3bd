//! The end of the mail path in: completes a message where it goes, and reports what became of it.
//!
//! The client's 250 is the upstream's 250, or that of a message which is durable in the quarantine; nothing else.

use super::client::Lost;
use super::message::{Incoming, Parked, Route, stopped};
use super::{Conversation, Sender, facts, message};
use crate::clock::{self, Timestamp};
use crate::guard::Standing;
use crate::guard::ledger::Relayed;
use crate::guard::mimicry::{About, Place, names_somebody};
use crate::maillog::{MessageFacts, SessionLog};
use crate::quarantine::spool::Unparked;
use crate::rare::rare;
use crate::session::{Delivery, Event, ParkReason, Step, Transaction, UpstreamFault};
use crate::smtp::{MailParameters, Reply};
use crate::transfer::Transfer;

impl Conversation {
    /// Chooses the route of a message that has come completely, if that is still to be done, and completes it there.
    pub(super) async fn message_ended(&mut self) -> Result<Step, Lost> {
        // RFC 2920 3.2: the replies to earlier chunks do not wait for the reply to the message.
        if let Err(lost) = self.client.flush().await {
            return self.lost_in_message(lost);
        }
        let Some(incoming) = &mut self.incoming else { return Ok(Step::Read) };
        incoming.end();
        if incoming.is_undecided() {
            self.choose_route().await;
        }
        let Some(delivery) = self.complete().await else { return Ok(Step::Read) };
        self.messages += 1;
        Ok(self.handle(Event::Delivered(delivery)))
    }

    /// Completes the message where it goes; `None` if there is none.
    async fn complete(&mut self) -> Option<Delivery> {
        let message = facts::Message::of(self, self.incoming.as_ref()?);
        loop {
            let mut incoming = self.incoming.take()?;
            if matches!(incoming.route, Route::Nowhere(_)) {
                incoming.abort(self.upstream.as_deref_mut());
            }
            match std::mem::replace(&mut incoming.route, Route::Undecided) {
                Route::Upstream(transfer) => {
                    if incoming.at_once {
                        self.report_hurry(incoming.trouble.as_deref());
                    }
                    return Some(self.finish_upstream(transfer, &message).await);
                }
                Route::Quarantine(parked) => {
                    if let Some(delivery) = rare(self.finish_parked(incoming, parked, &message)).await {
                        return Some(delivery);
                    }
                }
                Route::Nowhere(delivery) => {
                    self.report_failure(&delivery, incoming.trouble.as_deref(), &message);
                    return Some(delivery);
                }
                Route::Undecided | Route::Stranded(_) => {
                    self.report_failure(&Delivery::NoRoute, None, &message);
                    return Some(Delivery::NoRoute);
                }
            }
        }
    }

    /// Completes a message in the quarantine; `None` if it was to be delayed and that failed, so that it has a new route.
    async fn finish_parked(
        &mut self,
        mut incoming: Box<Incoming>,
        parked: Box<Parked>,
        message: &facts::Message,
    ) -> Option<Delivery> {
        match self.finish_quarantine(parked, message).await {
            Ok(delivery) => Some(delivery),
            Err(Unparked { error, content }) => {
                incoming.strand(&error, content);
                self.incoming = Some(incoming);
                self.choose_route().await;
                None
            }
        }
    }

    async fn finish_upstream(&mut self, mut transfer: Transfer, message: &facts::Message) -> Delivery {
        let Some(upstream) = &mut self.upstream else { return Delivery::Fault(UpstreamFault::Unavailable) };
        let ended = match transfer.complete(upstream).await {
            Ok(()) => {
                let open = self.sender.as_ref().zip(self.session.transaction());
                let unanswered = Unanswered { open, message, log: &self.log };
                let ended = transfer.end(upstream).await;
                unanswered.answered();
                ended
            }
            Err(stop) => Err(stop),
        };
        let reply = match ended {
            Ok(reply) => reply,
            Err(stop) => {
                let trouble = message::cause(&stop);
                let delivery = stopped(stop);
                self.report_failure(&delivery, Some(&trouble), message);
                return delivery;
            }
        };
        self.took(&reply, message);
        Delivery::Replied(reply)
    }

    /// Records the upstream's reply to the end of data.
    fn took(&mut self, reply: &Reply, message: &facts::Message) {
        let (Some(sender), Some(transaction)) = (&self.sender, self.session.transaction()) else { return };
        let recipients: Vec<&str> =
            if names_somebody(reply) { transaction.accepted_addresses().collect() } else { Vec::new() };
        let about = About {
            address: message.message_id.as_deref().unwrap_or_default(),
            envelope: Some((transaction.mail.reverse_path.as_str(), &recipients)),
        };
        self.parts.ledger.learn(Place::EndOfData, about, reply);
        if reply.is_completion() {
            let reply = reply.one_line();
            let message_id = message.message_id.clone();
            sender.watch.relayed(Relayed { at: clock::now(), reply, message_id });
        }
        message.with_facts(&sender.account, transaction, |facts| self.log.relayed(facts, reply));
    }

    /// Makes a message durable in the quarantine; returns one that was to be delayed if that fails.
    async fn finish_quarantine(
        &mut self,
        parked: Box<Parked>,
        message: &facts::Message,
    ) -> Result<Delivery, Unparked> {
        let (Some(sender), Some(transaction)) = (&self.sender, self.session.transaction()) else {
            return Ok(Delivery::QuarantineFull(parked.order.reason));
        };
        let delayed = parked.is_delayed();
        let now = clock::now();
        let due = self.due(parked.order.reason, now);
        let Parked { parking, order, trace, treatment } = *parked;
        let (size, sha256) = parking.digest();
        let envelope = crate::quarantine::Envelope {
            version: crate::quarantine::envelope::VERSION,
            id: parking.id(),
            account: sender.account.clone(),
            parked: now,
            reason: facts::reason(order.reason, due, sender.watch.block()),
            block: sender.watch.block().filter(|_| due.is_none()),
            session: facts::session(&self.session, self.client.stream(), self.id, self.peer),
            reverse_path: transaction.mail.reverse_path.clone(),
            parameters: MailParameters::clone(&transaction.mail.parameters),
            mail_reply: transaction.mail_reply.clone(),
            recipients: facts::recipients(transaction),
            size,
            sha256,
            subject: message.subject.clone(),
            trace,
            treatment,
            told: order.told,
            told_queue_id: order.told_queue_id,
            due,
            release: None,
        };
        match parking.commit(&envelope).await {
            Ok(()) => {
                message.with_facts(&sender.account, transaction, |facts| {
                    self.log.parked(facts, envelope.id, envelope.told_queue_id.as_deref(), &envelope.reason);
                });
                Ok(Delivery::Parked)
            }
            Err(unparked) if delayed => Err(unparked),
            Err(Unparked { error, .. }) => {
                self.log.not_parked(&sender.account, order.reason, &error.to_string());
                Ok(Delivery::QuarantineFull(order.reason))
            }
        }
    }

    /// When a message goes out by itself; `None` if it waits for an operator, since the account is blocked by now.
    fn due(&self, reason: ParkReason, now: Timestamp) -> Option<Timestamp> {
        let watch = self.sender.as_ref().map(|sender| &sender.watch)?;
        if reason != ParkReason::Probation || watch.standing() == Standing::Blocked {
            return None;
        }
        // Probation may have ended while a large message came: then there is nothing to wait for.
        Some(watch.probation(now).map_or(now, |_| now.after(watch.terms().delay)))
    }

    fn report_hurry(&self, trouble: Option<&str>) {
        if let Some(sender) = &self.sender {
            self.log.not_delayed(&sender.account, trouble.unwrap_or_default());
        }
    }

    fn report_failure(&self, delivery: &Delivery, trouble: Option<&str>, message: &facts::Message) {
        let (Some(sender), Some(transaction)) = (&self.sender, self.session.transaction()) else { return };
        match delivery {
            Delivery::Replied(reply) => {
                message.with_facts(&sender.account, transaction, |facts| self.log.relayed(facts, reply));
            }
            Delivery::Fault(UpstreamFault::Ambiguous) => {
                let fault = trouble.unwrap_or_default();
                message.with_facts(&sender.account, transaction, |facts| self.log.ambiguous(facts, fault));
            }
            Delivery::Fault(UpstreamFault::Starved) => {
                self.log.starved("mail data", trouble.unwrap_or_default());
            }
            Delivery::Fault(_) => self.log.upstream_failed("mail data", trouble.unwrap_or_default()),
            Delivery::QuarantineFull(reason) => {
                self.log.not_parked(&sender.account, *reason, trouble.unwrap_or("the quarantine is full"));
            }
            Delivery::NoMemory => {
                self.log.rejected(&sender.account, "no memory left for its header ([session] max_buffered)");
            }
            Delivery::Unreadable => self.log.not_kept(&sender.account, trouble.unwrap_or_default()),
            Delivery::NoRoute => self.log.nowhere_to_go(&sender.account),
            Delivery::BadNewline => self.log.rejected(&sender.account, "a bare CR, a bare LF or a NUL"),
            Delivery::TooBig => self.log.rejected(&sender.account, "too big"),
            Delivery::ForeignFrom => {
                self.log
                    .rejected(&sender.account, "an address in From: is not the account's, or cannot be read");
            }
            Delivery::Loop => self.log.rejected(&sender.account, "too many Received: lines"),
            Delivery::Refused => self.log.rejected(&sender.account, "the account is blocked"),
            Delivery::Parked => {}
        }
    }
}

/// The wait for the reply to the end of data. If the stop of the process cuts it off, the log says so.
struct Unanswered<'a> {
    open: Option<(&'a Sender, &'a Transaction)>,
    message: &'a facts::Message,
    log: &'a SessionLog,
}

impl Unanswered<'_> {
    fn answered(mut self) {
        self.open = None;
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some((sender, transaction)) = self.open.take() {
            let log = |facts: &MessageFacts<'_>| self.log.ambiguous(facts, "cut off by the shutdown");
            self.message.with_facts(&sender.account, transaction, log);
        }
    }
}
