//! The second half of a transaction with binary content: BDAT, chunk by chunk.
//!
//! Every chunk waits for its reply, so that a refusal is known before the next one goes out. Until the last chunk goes
//! out, any failure cuts the connection; after that, a missing reply is reported as ambiguous. RFC 3030 2, 3.

use super::connection::{Connection, Loss};
use super::transaction::{Stage, Transaction};
use super::transfer::ambiguous;
use super::{Fault, Stopped};
use crate::smtp::Reply;

impl Transaction {
    /// Makes sure that the transaction stands on a live connection, repeating it on a fresh one if necessary. Tells the
    /// upstream nothing about the content yet.
    ///
    /// # Errors
    /// See [`Fault`]; never a refusal.
    pub async fn begin_chunks(&mut self) -> Result<(), Stopped> {
        if self.stage != Stage::Envelope || !self.questions.is_empty() || self.accepted.is_empty() {
            let why = "BDAT needs an accepted recipient, and no question open";
            return Err(Fault::Protocol(why.to_owned()).into());
        }
        self.take_data_back().await;
        if let Some(mut connection) = self.connection.take() {
            match connection.check_in_step() {
                Ok(()) => self.connection = Some(connection),
                Err(loss) => {
                    self.doubt(&loss);
                    self.spare = Some(connection.discard());
                }
            }
        }
        self.stand_before_data().await?;
        self.stage = Stage::Content;
        Ok(())
    }

    /// Sends a chunk that is not the last, and waits for the reply to it.
    ///
    /// Not cancel-safe: if the future is dropped before it completes, drop the transaction too.
    ///
    /// # Errors
    /// The connection is gone: [`Stopped::Refused`] if the upstream refused the chunk, and with it the message.
    pub async fn write_chunk(&mut self, octets: &[u8]) -> Result<(), Stopped> {
        let limit = self.upstream.settings().timeouts.block;
        // The connection stays out of `self` meanwhile: dropping the future closes it.
        let mut connection = self.connection_in_data()?;
        queue(&mut connection, octets, "")?;
        match connection.reply_to_content(limit).await? {
            reply if reply.is_completion() => {
                self.connection = Some(connection);
                Ok(())
            }
            reply if reply.is_intermediate() => Err(no_answer(&reply).into()),
            refusal => Err(Stopped::Refused(refusal)),
        }
    }

    /// Sends the last chunk, which may be empty, and waits for the reply to the message.
    ///
    /// # Errors
    /// [`Fault::Ambiguous`] if the chunk may have gone out.
    pub async fn finish_chunks(&mut self, octets: &[u8]) -> Result<Reply, Fault> {
        let patience = self.upstream.settings().timeouts.end;
        let mut connection = self.connection_in_data()?;
        self.stage = Stage::Over;
        queue(&mut connection, octets, " LAST")?;
        match connection.reply_to_content(patience).await {
            Ok(reply) if reply.is_intermediate() => Err(ambiguous(no_answer(&reply))),
            Ok(reply) => Ok(self.ended(connection, reply)),
            Err(loss) => Err(ambiguous(loss)),
        }
    }
}

fn queue(connection: &mut Connection, octets: &[u8], marker: &str) -> Result<(), Fault> {
    connection.check_in_step()?;
    connection.queue(format!("BDAT {}{marker}\r\n", octets.len()).as_bytes());
    connection.queue(octets);
    Ok(())
}

fn no_answer(reply: &Reply) -> Loss {
    Loss::Garbled(format!("a reply that does not answer BDAT: {reply}"))
}
