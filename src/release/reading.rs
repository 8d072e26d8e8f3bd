//! A parked message as a release reads it: piece by piece, with newlines normalized if that was decided on arrival.
//!
//! A file that is not what arrived is an error: neither part of a message nor an altered one is ever sent as if it were the whole.

use tokio::io::AsyncReadExt;

use crate::id::QuarantineId;
use crate::quarantine::Envelope;
use crate::quarantine::checksum::{Altered, Checksum};
use crate::quarantine::spool::{MessageReader, SpoolError};
use crate::smtp::header::{Collected, Header, HeaderCollector};
use crate::smtp::newline::Normalizer;

/// How many octets of a message are read at once.
const READ_AT_ONCE: usize = 64 * 1_024;

/// Why a message cannot be sent, or returned to its sender.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    /// It is not what arrived.
    #[error(transparent)]
    Altered(#[from] Altered),
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] SpoolError),
}

/// A reader of a parked message, which normalizes newlines if that was decided on arrival.
pub(super) struct Reading {
    message: MessageReader,
    id: QuarantineId,
    normalizer: Option<Normalizer>,
    /// That of the octets read so far, as they arrived.
    checksum: Checksum,
    /// What that must be in the end.
    sha256: String,
    buffer: Vec<u8>,
    mended: Vec<u8>,
}

impl Reading {
    pub(super) fn of(message: MessageReader, envelope: &Envelope) -> Self {
        let normalizer = envelope.treatment.normalize.then(Normalizer::default);
        Self {
            message,
            id: envelope.id,
            normalizer,
            checksum: Checksum::default(),
            sha256: envelope.sha256.clone(),
            buffer: vec![0; READ_AT_ONCE],
            mended: Vec::new(),
        }
    }

    /// Returns the next octets; none at the end. Only there it is known whether they are what arrived.
    pub(super) async fn next(&mut self) -> Result<&[u8], Unfit> {
        let octets = self.message.read(&mut self.buffer).await;
        let octets = octets.map_err(|error| unreadable(self.id, &error))?;
        let read = self.buffer.get(..octets).unwrap_or_default();
        self.checksum.update(read);
        if octets == 0 {
            Altered::check(self.id, &self.checksum, &self.sha256)?;
        }
        let Some(normalizer) = &mut self.normalizer else { return Ok(read) };
        self.mended.clear();
        normalizer.push(read, &mut self.mended);
        Ok(&self.mended)
    }

    /// Reads the header section, and returns it with the part of the body that was read with it.
    pub(super) async fn header(&mut self) -> Result<(Header, Vec<u8>), Unfit> {
        let mut header = HeaderCollector::new(usize::MAX);
        loop {
            let content = self.next().await?;
            if content.is_empty() {
                return Ok((header.finish(), Vec::new()));
            }
            if let Collected::Complete { taken } = header.push(content) {
                return Ok((header.finish(), content.get(taken..).unwrap_or_default().to_vec()));
            }
        }
    }
}

fn unreadable(id: QuarantineId, error: &std::io::Error) -> SpoolError {
    SpoolError::Io(format!("message {id}: {error}"))
}
