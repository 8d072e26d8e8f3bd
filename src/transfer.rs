//! A message on its way upstream, the same for a submission and for a release: our trace fields, the header without
//! forged copies of them, the body; dot-stuffed (or, with BODY=BINARYMIME, in chunks), streamed, finished only when it is
//! whole.

use std::time::Duration;

use tokio::time::Instant;

use crate::quarantine::envelope::Treatment;
use crate::smtp::header::Header;
use crate::smtp::mail_data::DotStuffer;
use crate::smtp::{Body, MailParameters, Reply, trace};
use crate::upstream::{Stopped, Transaction};

/// The fields that a client cannot set: copies of them are dropped from every message (CONTRACT, Headers).
pub const RESERVED: &[&str] = &[trace::AUTHENTICATED_AS, trace::RELAYED_FROM];

/// These too, where we say ourselves who the sender is.
const RESERVED_AND_SENDER: &[&str] = &[trace::AUTHENTICATED_AS, trace::RELAYED_FROM, trace::SENDER];

/// So much is stuffed before it is written.
const WRITE_AT_ONCE: usize = 64 * 1_024;

/// Room for the bodies of most messages, in octets.
const TYPICAL_BODY: usize = 4 * 1_024;

/// However little there is, it is written after so long: a slow client must not look to the upstream like a silent one
/// (Postfix gives up after 300 s).
const WRITE_AT_LEAST: Duration = Duration::from_secs(30);

/// How the content goes over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// By DATA.
    Lines,
    /// By BDAT: it may have any octets (RFC 3030 3).
    Binary,
}

impl Form {
    /// As the client declared it.
    pub fn of(parameters: &MailParameters) -> Self {
        if parameters.body == Some(Body::BinaryMime) { Self::Binary } else { Self::Lines }
    }

    /// Makes the upstream ready for the content.
    ///
    /// # Errors
    /// See [`Stopped`].
    pub async fn begin(self, upstream: &mut Transaction) -> Result<(), Stopped> {
        match self {
            Self::Lines => upstream.begin_data().await,
            Self::Binary => upstream.begin_chunks().await,
        }
    }
}

enum Framing {
    Dots(DotStuffer),
    Chunks,
}

impl Framing {
    fn frame(&mut self, content: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Dots(stuffer) => stuffer.stuff(content, out),
            Self::Chunks => out.extend_from_slice(content),
        }
    }
}

/// The header section as it goes upstream: without what a client cannot set.
fn kept(header: &Header, treatment: Treatment) -> Vec<&[u8]> {
    header.without(if treatment.without_sender { RESERVED_AND_SENDER } else { RESERVED })
}

/// The header section as it goes upstream, behind `trace`.
pub fn as_sent(trace: &str, treatment: Treatment, header: &Header) -> Vec<u8> {
    let mut octets = Vec::new();
    begin(trace, &kept(header, treatment), |part| octets.extend_from_slice(part));
    octets
}

fn begin(trace: &str, kept: &[&[u8]], mut put: impl FnMut(&[u8])) {
    put(trace.as_bytes());
    // A line that goes on with a field (RFC 5322 2.2.3), though there is none before it: it must not go on with ours.
    if kept.first().is_some_and(|octets| matches!(octets.first(), Some(b' ' | b'\t'))) {
        put(b"\r\n");
    }
    kept.iter().for_each(|part| put(part));
}

/// Mail data on its way. Dropping it before [`Transfer::finish`] leaves the transaction to be aborted by its owner.
pub struct Transfer {
    framing: Framing,
    buffer: Vec<u8>,
    /// When something was sent last.
    written: Instant,
}

impl Transfer {
    /// A message behind `trace`, on a transaction for which [`Form::begin`] was done. Sends nothing yet.
    pub fn new(form: Form, treatment: Treatment, trace: &str, header: &Header) -> Self {
        let mut framing = match form {
            Form::Lines => Framing::Dots(DotStuffer::new()),
            Form::Binary => Framing::Chunks,
        };
        let mut buffer = Vec::with_capacity(trace.len() + header.as_bytes().len() + TYPICAL_BODY);
        begin(trace, &kept(header, treatment), |part| framing.frame(part, &mut buffer));
        Self { framing, buffer, written: Instant::now() }
    }

    /// Sends more of the message (not stuffed).
    ///
    /// # Errors
    /// See [`Stopped`]; nothing more can be sent.
    pub async fn push(&mut self, upstream: &mut Transaction, content: &[u8]) -> Result<(), Stopped> {
        for piece in content.chunks(WRITE_AT_ONCE) {
            self.framing.frame(piece, &mut self.buffer);
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
        if matches!(self.framing, Framing::Chunks) {
            return Ok(upstream.finish_chunks(&self.buffer).await?);
        }
        // Apart from the terminator: what goes wrong before that is certain not to have been accepted.
        self.write(upstream).await?;
        let mut terminator = Vec::new();
        if let Framing::Dots(stuffer) = self.framing {
            stuffer.finish(&mut terminator);
        }
        Ok(upstream.finish_data(&terminator).await?)
    }

    async fn write(&mut self, upstream: &mut Transaction) -> Result<(), Stopped> {
        let written = match self.framing {
            Framing::Dots(_) => upstream.write_data(&self.buffer).await,
            Framing::Chunks => upstream.write_chunk(&self.buffer).await,
        };
        self.buffer.clear();
        self.written = Instant::now();
        written
    }
}
