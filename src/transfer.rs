//! A message on its way upstream, the same for a submission and for a release: our trace fields, the header without
//! forged copies of them, the body; dot-stuffed, streamed, finished only when it is whole.

use crate::smtp::header::Header;
use crate::smtp::mail_data::DotStuffer;
use crate::smtp::{Reply, trace};
use crate::upstream::{Fault, Transaction};

/// The fields that a client cannot set: copies of them are dropped from every message (CONTRACT, Headers).
pub const RESERVED: &[&str] = &[trace::AUTHENTICATED_AS, trace::RELAYED_FROM];

/// So much is stuffed before it is written.
const WRITE_AT_ONCE: usize = 64 * 1_024;

/// Why a transfer ended before its end.
#[derive(Debug)]
pub enum Stopped {
    /// The upstream refused DATA, or said why in mid-data.
    Refused(Reply),
    /// It gave no answer.
    Fault(Fault),
}

/// Mail data on its way. Dropping it before [`Transfer::finish`] leaves the transaction to be aborted by its owner.
pub struct Transfer {
    stuffer: DotStuffer,
    buffer: Vec<u8>,
}

impl Transfer {
    /// Sends DATA, then queues `trace` and the header.
    ///
    /// # Errors
    /// See [`Stopped`].
    pub async fn begin(upstream: &mut Transaction, trace: &str, header: &Header) -> Result<Self, Stopped> {
        match upstream.begin_data().await {
            Ok(None) => {}
            Ok(Some(reply)) => return Err(Stopped::Refused(reply)),
            Err(fault) => return Err(Stopped::Fault(fault)),
        }
        let mut transfer = Self { stuffer: DotStuffer::new(), buffer: Vec::new() };
        transfer.stuffer.stuff(trace.as_bytes(), &mut transfer.buffer);
        for slice in header.without(RESERVED) {
            transfer.stuffer.stuff(slice, &mut transfer.buffer);
        }
        Ok(transfer)
    }

    /// Sends more of the message, as it arrived (not stuffed).
    ///
    /// # Errors
    /// See [`Stopped`]; nothing more can be sent.
    pub async fn push(&mut self, upstream: &mut Transaction, content: &[u8]) -> Result<(), Stopped> {
        for piece in content.chunks(WRITE_AT_ONCE) {
            self.stuffer.stuff(piece, &mut self.buffer);
            if self.buffer.len() >= WRITE_AT_ONCE {
                self.write(upstream).await?;
            }
        }
        Ok(())
    }

    /// Sends the rest and the end of data, and waits for the reply.
    ///
    /// # Errors
    /// See [`Stopped`].
    pub async fn finish(self, upstream: &mut Transaction) -> Result<Reply, Stopped> {
        let Self { stuffer, mut buffer } = self;
        // The end goes out in one write with the rest of a small message.
        stuffer.finish(&mut buffer);
        upstream.finish_data(&buffer).await.map_err(Stopped::Fault)
    }

    async fn write(&mut self, upstream: &mut Transaction) -> Result<(), Stopped> {
        let written = upstream.write_data(&self.buffer).await;
        self.buffer.clear();
        match written {
            Ok(None) => Ok(()),
            Ok(Some(reply)) => Err(Stopped::Refused(reply)),
            Err(fault) => Err(Stopped::Fault(fault)),
        }
    }
}
