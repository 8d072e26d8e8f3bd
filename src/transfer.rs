//! A message on its way upstream, the same for a submission and for a release: our trace fields, the header without
//! forged copies of them, the body; dot-stuffed, streamed, finished only when it is whole.

use std::time::Duration;

use tokio::time::Instant;

use crate::smtp::header::Header;
use crate::smtp::mail_data::DotStuffer;
use crate::smtp::{Reply, trace};
use crate::upstream::{Fault, Transaction};

/// The fields that a client cannot set: copies of them are dropped from every message (CONTRACT, Headers).
pub const RESERVED: &[&str] = &[trace::AUTHENTICATED_AS, trace::RELAYED_FROM];

/// So much is stuffed before it is written.
const WRITE_AT_ONCE: usize = 64 * 1_024;

/// However little there is, it is written after so long: a slow client must not look to the upstream like a silent one
/// (Postfix gives up after 300 s).
const WRITE_AT_LEAST: Duration = Duration::from_secs(30);

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
    /// When something was sent last.
    written: Instant,
}

impl Transfer {
    /// A message behind `trace`, on a transaction that has its 354. Sends nothing yet.
    pub fn new(trace: &str, header: &Header) -> Self {
        let mut transfer = Self { stuffer: DotStuffer::new(), buffer: Vec::new(), written: Instant::now() };
        transfer.stuffer.stuff(trace.as_bytes(), &mut transfer.buffer);
        for slice in header.without(RESERVED) {
            transfer.stuffer.stuff(slice, &mut transfer.buffer);
        }
        transfer
    }

    /// Sends more of the message, as it arrived (not stuffed).
    ///
    /// # Errors
    /// See [`Stopped`]; nothing more can be sent.
    pub async fn push(&mut self, upstream: &mut Transaction, content: &[u8]) -> Result<(), Stopped> {
        for piece in content.chunks(WRITE_AT_ONCE) {
            self.stuffer.stuff(piece, &mut self.buffer);
            if self.buffer.len() >= WRITE_AT_ONCE || self.written.elapsed() >= WRITE_AT_LEAST {
                self.write(upstream).await?;
            }
        }
        Ok(())
    }

    /// Sends the rest and the end of data, and waits for the reply.
    ///
    /// # Errors
    /// See [`Stopped`].
    pub async fn finish(mut self, upstream: &mut Transaction) -> Result<Reply, Stopped> {
        // Apart from the terminator: what goes wrong before that is certain not to have been accepted.
        self.write(upstream).await?;
        let mut terminator = Vec::new();
        self.stuffer.finish(&mut terminator);
        upstream.finish_data(&terminator).await.map_err(Stopped::Fault)
    }

    async fn write(&mut self, upstream: &mut Transaction) -> Result<(), Stopped> {
        let written = upstream.write_data(&self.buffer).await;
        self.buffer.clear();
        self.written = Instant::now();
        match written {
            Ok(None) => Ok(()),
            Ok(Some(reply)) => Err(Stopped::Refused(reply)),
            Err(fault) => Err(Stopped::Fault(fault)),
        }
    }
}
