//! The middle of the mail path in: a message comes, by DATA or in chunks, and its route is chosen.
//!
//! The route is chosen as late as possible: when all of it has come, or as much as is held in memory, and again when
//! the upstream is ready for its content, so that a block in between still holds. RFC 5321 4.1.1.4, RFC 3030 2.

use tokio::time::Instant;

use super::client::Lost;
use super::message::{Bounds, Incoming, Route};
use super::pace::Pace;
use super::{Conversation, Scene, UPSTREAM_REST, facts};
use crate::clock;
use crate::guard::Standing;
use crate::rare::rare;
use crate::session::{Delivery, Destination, Event, Step, UpstreamFault};

/// Octets of the line that ends a header section.
const EMPTY_LINE: usize = 2;

impl Conversation {
    fn bounds(&self) -> Bounds {
        Bounds {
            size: self.session.max_message_size(),
            // The empty line behind it is not part of it (RFC 5322 2.1).
            header: self.parts.config.session.max_header_size.saturating_add(EMPTY_LINE),
            newlines: self.newlines(),
            loan: self.parts.buffers.loan(),
            pace: self.pace(),
        }
    }

    pub(super) async fn receive_data(&mut self) -> Result<Step, Lost> {
        self.client.flush().await?;
        self.incoming = Some(Box::new(Incoming::by_data(self.bounds())));
        self.receive_rest().await
    }

    /// Takes mail data until it ends.
    async fn receive_rest(&mut self) -> Result<Step, Lost> {
        loop {
            let Some(incoming) = &mut self.incoming else { return Ok(Step::Read) };
            let (consumed, ended) =
                incoming.take_data(self.client.buffered(), self.upstream.as_deref_mut()).await;
            self.client.consume(consumed);
            if ended {
                return self.message_ended().await;
            }
            if incoming.needs_route() {
                self.choose_route().await;
            }
            if let Err(lost) = self.more_of_message().await {
                return self.lost_in_message(lost);
            }
        }
    }

    fn pace(&self) -> Pace {
        Pace::new(self.parts.config.session.min_rate)
    }

    /// Waits for more of the incoming message.
    async fn more_of_message(&mut self) -> Result<(), Lost> {
        let Some(mut pace) = self.incoming.as_ref().map(|incoming| incoming.pace) else { return Ok(()) };
        let came = self.more(&mut pace).await;
        if let Some(incoming) = &mut self.incoming {
            incoming.pace = pace;
        }
        came
    }

    /// Waits for more octets of mail data. Until its DATA has begun, the upstream connection goes to others after a
    /// while.
    async fn more(&mut self, pace: &mut Pace) -> Result<(), Lost> {
        let began = Instant::now();
        let idle = self.command_deadline();
        let slow = pace.patience().map(|patience| began + patience);
        let deadline = slow.map_or(idle, |slow| slow.min(idle));
        let rest = self.last_answer + UPSTREAM_REST;
        loop {
            let blocked =
                self.sender.as_ref().is_some_and(|sender| sender.watch.standing() == Standing::Blocked);
            let resting = blocked || rest <= Instant::now();
            if resting {
                self.rest_upstream();
            }
            let wait = if resting || self.upstream.is_none() { deadline } else { deadline.min(rest) };
            let octets = match self.client.read_data(wait).await {
                Err(Lost::TimedOut) if wait < deadline => continue,
                Err(Lost::TimedOut) if idle <= deadline => return Err(Lost::TimedOut),
                Err(Lost::TimedOut) => 0,
                Err(lost) => return Err(lost),
                Ok(octets) => octets,
            };
            if pace.keeps_up(octets, began.elapsed()) {
                return Ok(());
            }
            if let Some(sender) = &self.sender {
                self.log.rejected(&sender.account, "mail data came too slowly ([session] min_rate)");
            }
            return Err(Lost::TimedOut);
        }
    }

    pub(super) async fn receive_chunk(&mut self, size: u64, last: bool) -> Result<Step, Lost> {
        if self.incoming.is_none() {
            self.incoming = Some(Box::new(Incoming::by_chunks(self.bounds())));
        }
        let mut left = size;
        while left > 0 {
            if self.client.buffered().is_empty()
                && let Err(lost) = self.more_of_message().await
            {
                return self.lost_in_message(lost);
            }
            let Some(incoming) = &mut self.incoming else { return Ok(Step::Read) };
            let buffered = self.client.buffered();
            let take = buffered.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            incoming.take_chunk(&buffered[..take], self.upstream.as_deref_mut()).await;
            self.client.consume(take);
            left -= take as u64;
            if incoming.needs_route() {
                self.choose_route().await;
            }
        }
        if last {
            return self.message_ended().await;
        }
        if self.incoming.as_ref().is_some_and(|incoming| matches!(incoming.route, Route::Nowhere(_))) {
            return self.message_ended().await;
        }
        Ok(self.handle(Event::ChunkReceived(size)))
    }

    pub(super) async fn discard_chunk(&mut self, size: u64) -> Result<Step, Lost> {
        let (mut left, mut pace) = (size, self.pace());
        while left > 0 {
            if self.client.buffered().is_empty()
                && let Err(lost) = self.more(&mut pace).await
            {
                return self.lost_in_message(lost);
            }
            let take = self.client.buffered().len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.client.consume(take);
            left -= take as u64;
        }
        Ok(self.handle(Event::ChunkDiscarded))
    }

    pub(super) fn lost_in_message(&mut self, lost: Lost) -> Result<Step, Lost> {
        if let Some(mut incoming) = self.incoming.take() {
            incoming.abort(self.upstream.as_deref_mut());
        }
        match lost {
            Lost::TimedOut => Ok(self.handle(Event::TimedOut)),
            lost => Err(lost),
        }
    }

    /// Asks the machine where the message goes, and passes on what has come of it. CONTRACT, Detection: a message that
    /// was to be delayed but cannot be parked is relayed at once.
    pub(super) async fn choose_route(&mut self) {
        self.take_route().await;
        let delayed = |incoming: &Incoming| incoming.at_once && incoming.is_undecided();
        if self.incoming.as_deref().is_some_and(delayed) {
            Box::pin(self.take_route()).await;
        }
    }

    async fn take_route(&mut self) {
        let header = self.incoming.as_deref().and_then(Incoming::header);
        let objection = header.and_then(|header| self.objection(header));
        if let (Some(objection), Some(incoming)) = (objection, &mut self.incoming) {
            return incoming.fail(objection);
        }
        let mut destination = self.destination();
        if destination == Destination::Relay {
            self.begin_upstream().await;
            // CONTRACT: a block that comes before the content begins to go upstream still holds.
            destination = self.destination();
        }
        let Some(header) = self.incoming.as_deref().and_then(Incoming::header) else { return };
        let account = self.sender.as_ref().map(|sender| &sender.account);
        let (treatment, from) = self.treatment(header);
        let parked = account.filter(|_| destination != Destination::Relay);
        let trace = facts::trace(self, header, from.as_ref(), parked);
        let Some(incoming) = self.incoming.as_mut().filter(|incoming| incoming.is_undecided()) else {
            return;
        };
        match (destination, &mut self.upstream, &self.sender) {
            (Destination::Relay, Some(upstream), _) => incoming.relay(upstream, treatment, &trace).await,
            (Destination::Relay, None, _) => incoming.fail(Delivery::Fault(UpstreamFault::Unavailable)),
            // The account has been blocked meanwhile, and the quarantine did not take the message.
            (Destination::Park(order), upstream, Some(_)) if matches!(incoming.route, Route::Stranded(_)) => {
                incoming.abort(upstream.as_deref_mut());
                incoming.fail(Delivery::QuarantineFull(order.reason));
            }
            (Destination::Park(order), upstream, Some(sender)) => {
                incoming.abort(upstream.as_deref_mut());
                let begun = rare(self.parts.spool.begin(&sender.account, clock::now())).await;
                rare(incoming.park(begun, order, treatment, trace)).await;
            }
            (Destination::Park(_) | Destination::Refuse, upstream, _) => {
                incoming.abort(upstream.as_deref_mut());
                incoming.fail(Delivery::Refused);
            }
        }
    }

    fn destination(&mut self) -> Destination {
        let mut scene = Scene::of(&self.parts, self.sender.as_ref(), &self.shutdown);
        // A message is no longer delayed once the upstream is ready for it.
        let is_ready = self.upstream.as_ref().is_some_and(|upstream| upstream.is_in_content());
        scene.delays = !is_ready && !self.incoming.as_ref().is_some_and(|incoming| incoming.at_once);
        let (incoming, config) = (self.incoming.as_deref(), &self.parts.config);
        let message_id = |incoming: &Incoming| incoming.message_id(self.id, self.messages, &config.hostname);
        self.session.destination(|| incoming.map(message_id).unwrap_or_default(), &scene.view())
    }

    async fn begin_upstream(&mut self) {
        let Some(incoming) = &mut self.incoming else { return };
        match &mut self.upstream {
            Some(upstream) => {
                let was_in_doubt = upstream.is_in_doubt();
                incoming.begin(upstream).await;
                self.note_doubt(was_in_doubt);
            }
            None => incoming.fail(Delivery::Fault(UpstreamFault::Unavailable)),
        }
    }
}
