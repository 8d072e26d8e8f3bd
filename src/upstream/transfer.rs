//! The second half of a transaction: DATA, mail data, end of data.
//!
//! Until the terminator goes out, any failure cuts the connection, so that half a message is never taken for a whole
//! one; after that, a missing reply is reported as ambiguous. RFC 5321 3.3, 4.1.1.4, 4.5.3.2.4 to 4.5.3.2.6.

use super::connection::{Connection, Loss};
use super::content::Ending;
use super::repetition::Repetition;
use super::transaction::{Stage, Transaction, Verb};
use super::{Fault, Stopped};
use crate::smtp::Reply;

impl Transaction {
    /// Sends DATA and waits for 354, repeating the transaction on a fresh connection if the old one is gone.
    ///
    /// # Errors
    /// See [`Stopped`].
    pub async fn begin_data(&mut self) -> Result<(), Stopped> {
        if self.stage != Stage::Envelope || !self.questions.is_empty() || self.accepted.is_empty() {
            let why = "DATA needs an accepted recipient, and no question open";
            return Err(Fault::Protocol(why.to_owned()).into());
        }
        let mut last_attempt = false;
        loop {
            self.stand_before_data().await?;
            match self.ask_for_data().await {
                Ok(reply) if reply.is_intermediate() => return Ok(()),
                Ok(refusal) => return Err(Stopped::Refused(refusal)),
                Err(loss) => {
                    self.stage = Stage::Envelope;
                    let lost = self.connection.take();
                    if let Some(lost) = &lost {
                        self.leave_out(lost, &loss, Verb::Data);
                    }
                    self.spare = lost.map(|lost| lost.discard());
                    self.doubt(&loss);
                    if last_attempt || !matches!(loss, Loss::Closed(_) | Loss::OutOfStep) {
                        self.spare = None;
                        return Err(loss.into());
                    }
                    last_attempt = true;
                }
            }
        }
    }

    /// Provides a connection on which the whole transaction stands.
    pub(super) async fn stand_before_data(&mut self) -> Result<(), Fault> {
        if self.in_doubt {
            self.spare = None;
            return Err(Fault::out_of_step());
        }
        if self.connection.is_none() && self.not_repeated.is_none() {
            Box::pin(self.connect()).await?;
        }
        match &self.not_repeated {
            Some(Repetition::MailRefused(why) | Repetition::RecipientRefused(why)) => {
                Err(Fault::NotRepeated(why.clone()))
            }
            _ => Ok(()),
        }
    }

    /// Returns the reply to DATA: 354 or a refusal.
    async fn ask_for_data(&mut self) -> Result<Reply, Loss> {
        let limit = self.upstream.settings().timeouts.data;
        let Some(connection) = &mut self.connection else {
            return Err(Loss::Closed("there is no connection".to_owned()));
        };
        self.stage = Stage::Content;
        let reply = connection.ask_for_data(limit).await?;
        match reply.code {
            354 => Ok(reply),
            400.. => {
                connection.refusals += 1;
                self.stage = Stage::Envelope;
                Ok(reply)
            }
            _ => Err(Loss::Garbled(format!("a reply that does not answer DATA: {reply}"))),
        }
    }

    /// Sends mail data in wire form (dot-stuffed), without the terminator. What is left in `wire` is of no more use.
    ///
    /// Not cancel-safe: if the future is dropped before it completes, drop the transaction too.
    ///
    /// # Errors
    /// The connection is gone: [`Stopped::Refused`] if the upstream said why.
    pub async fn write_data(&mut self, wire: &mut Vec<u8>) -> Result<(), Stopped> {
        let limit = self.upstream.settings().timeouts.block;
        // The connection stays out of `self` meanwhile: dropping the future closes it.
        let mut connection = self.connection_in_data()?;
        connection.put(wire, limit).await?;
        self.connection = Some(connection);
        Ok(())
    }

    /// Sends the terminator (`.CRLF` or `CRLF.CRLF`) and waits for the reply.
    ///
    /// # Errors
    /// [`Fault::Ambiguous`] once the terminator may have gone out.
    pub async fn finish_data(&mut self, terminator: &[u8]) -> Result<Reply, Fault> {
        let limits = &self.upstream.settings().timeouts;
        let (limit, patience) = (limits.block, limits.end);
        let mut connection = self.connection_in_data()?;
        self.stage = Stage::Over;
        match connection.end(terminator, limit, patience).await {
            Ok(reply) => Ok(self.ended(connection, reply)),
            Err(Ending::Refused(reply)) => Ok(reply),
            Err(Ending::Lost(loss)) => Err(loss.into()),
            Err(Ending::Ambiguous(loss)) => Err(ambiguous(loss)),
        }
    }

    /// Releases the connection after the reply to the end of data: to the pool only if the message was accepted.
    pub(super) fn ended(&self, connection: Box<Connection>, reply: Reply) -> Reply {
        if reply.is_completion() {
            self.upstream.pool.give_back(connection);
        } else {
            // The refusal may have come in mid-data, with another one to follow: no further transaction on this
            // connection.
            connection.quit();
        }
        reply
    }

    pub(super) fn connection_in_data(&mut self) -> Result<Box<Connection>, Fault> {
        if self.stage != Stage::Content {
            return Err(Fault::Protocol("mail data before DATA".to_owned()));
        }
        self.connection
            .take()
            .ok_or_else(|| Fault::Unavailable("the connection was lost in mid-data".to_owned()))
    }

    /// Closes the connection before the end of data, so that what was sent is never taken for a message.
    pub fn abort_data(&mut self) {
        self.stage = Stage::Over;
        drop(self.connection.take());
    }
}

/// The fault for a connection lost after the end of data may have gone out.
pub(super) fn ambiguous(loss: Loss) -> Fault {
    match Fault::from(loss) {
        Fault::Unavailable(why) | Fault::Protocol(why) => Fault::Ambiguous(why),
        fault => fault,
    }
}
