//! A message on its way upstream, the same for a submission and a release: our trace fields, the header without forged
//! copies of them, the body. It is dot-stuffed (or, with BODY=BINARYMIME, sent in chunks), streamed, and finished only
//! when it is complete.

use std::time::Duration;

use tokio::time::Instant;

use crate::quarantine::envelope::Treatment;
use crate::rare::rare;
use crate::smtp::header::Header;
use crate::smtp::mail_data::DotStuffer;
use crate::smtp::{Body, MailParameters, Reply, trace};
use crate::upstream::{Stopped, Transaction};

/// Fields that a client cannot set: they are dropped from every message (CONTRACT, Headers).
pub const RESERVED: &[&str] = &[trace::AUTHENTICATED_AS, trace::RELAYED_FROM];

/// The fields dropped when we state the sender ourselves.
const RESERVED_AND_SENDER: &[&str] = &[trace::AUTHENTICATED_AS, trace::RELAYED_FROM, trace::SENDER];

/// How many octets are framed before they are written.
const WRITE_AT_ONCE: usize = 64 * 1_024;

/// Room for the body of most messages, and what ends it, in octets.
const TYPICAL_BODY: usize = 4 * 1_024 + 64;

/// How long content may wait before it is written, however little there is: a slow client must not look to the upstream
/// like a silent one (Postfix gives up after 300 s).
const WRITE_AT_LEAST: Duration = Duration::from_secs(30);

/// How the content is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// By DATA.
    Lines,
    /// By BDAT: it may contain any octets (RFC 3030 3).
    Binary,
}

impl Form {
    /// Returns the form that the client declared.
    pub fn of(parameters: &MailParameters) -> Self {
        if parameters.body == Some(Body::BinaryMime) { Self::Binary } else { Self::Lines }
    }

    /// Prepares the upstream for the content.
    ///
    /// # Errors
    /// See [`Stopped`].
    pub async fn begin(self, upstream: &mut Transaction) -> Result<(), Stopped> {
        match self {
            Self::Lines => upstream.begin_data().await,
            Self::Binary => rare(upstream.begin_chunks()).await,
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

/// Returns the header section as it goes upstream, without what a client cannot set.
fn kept(header: &Header, treatment: Treatment) -> Vec<&[u8]> {
    header.without(if treatment.without_sender { RESERVED_AND_SENDER } else { RESERVED })
}

/// Returns the header section as it goes upstream, after `trace`.
pub fn as_sent(trace: &str, treatment: Treatment, header: &Header) -> Vec<u8> {
    let mut octets = Vec::new();
    begin(trace, &kept(header, treatment), |part| octets.extend_from_slice(part));
    octets
}

fn begin(trace: &str, kept: &[&[u8]], mut put: impl FnMut(&[u8])) {
    put(trace.as_bytes());
    // The first line may continue a field (RFC 5322 2.2.3) although none precedes it: it must not continue ours.
    if kept.first().is_some_and(|octets| matches!(octets.first(), Some(b' ' | b'\t'))) {
        put(b"\r\n");
    }
    kept.iter().for_each(|part| put(part));
}

/// Mail data being sent. If dropped before [`Transfer::finish`], the owner of the transaction must abort it.
pub struct Transfer {
    framing: Framing,
    buffer: Vec<u8>,
    /// When something was last sent.
    written: Instant,
}

impl Transfer {
    /// Begins a message after `trace`, on a transaction for which [`Form::begin`] succeeded. Sends nothing yet.
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
    /// See [`Stopped`]; nothing more can be sent then.
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
        self.complete(upstream).await?;
        self.end(upstream).await
    }

    /// Sends the rest, as far as the message is certainly not accepted yet: all but the end of data, or the last chunk.
    ///
    /// # Errors
    /// See [`Stopped`]; nothing more can be sent then.
    pub async fn complete(&mut self, upstream: &mut Transaction) -> Result<(), Stopped> {
        match self.framing {
            Framing::Dots(_) => self.write(upstream).await,
            Framing::Chunks => Ok(()),
        }
    }

    /// Ends the message after [`Self::complete`], and waits for the reply.
    ///
    /// # Errors
    /// See [`Stopped`].
    pub async fn end(self, upstream: &mut Transaction) -> Result<Reply, Stopped> {
        let Framing::Dots(stuffer) = self.framing else {
            return Ok(rare(upstream.finish_chunks(&self.buffer)).await?);
        };
        Ok(upstream.finish_data(stuffer.terminator()).await?)
    }

    async fn write(&mut self, upstream: &mut Transaction) -> Result<(), Stopped> {
        let written = match self.framing {
            Framing::Dots(_) => upstream.write_data(&mut self.buffer).await,
            Framing::Chunks => rare(upstream.write_chunk(&self.buffer)).await,
        };
        self.buffer.clear();
        self.written = Instant::now();
        written
    }
}
