//! Exclusive access to one parked message.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

use super::envelope::Envelope;
use super::files;
use super::record::Record;
use super::shared::{Held, Shared, blocking};
use super::terms::SpoolError;
use crate::id::QuarantineId;

/// The most octets of a message that a reader holds in memory.
const READ_AHEAD: usize = 64 * 1024;

/// A claimed message; nobody else can claim it meanwhile. Dropping the claim puts the message back as it is on disk.
pub struct Claim {
    held: Arc<Held>,
    envelope: Envelope,
}

/// A reader of a file of a message, from its first octet.
#[derive(Debug)]
pub struct MessageReader(tokio::fs::File);

impl MessageReader {
    pub(super) async fn open(shared: &Shared, id: QuarantineId, name: String) -> Result<Self, SpoolError> {
        let folder = Arc::clone(&shared.folder);
        match blocking(move || folder.read(name)).await? {
            Ok(file) => {
                let mut file = tokio::fs::File::from_std(file);
                file.set_max_buf_size(READ_AHEAD);
                Ok(Self(file))
            }
            // It was removed meanwhile.
            Err(_) if shared.index().state(id).is_none() => Err(SpoolError::Unknown(id.to_string())),
            Err(error) => Err(SpoolError::Io(error.to_string())),
        }
    }
}

impl AsyncRead for MessageReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl Claim {
    /// Reads the envelope of a claimed message.
    ///
    /// # Errors
    /// It was removed or is unreadable.
    pub async fn of(held: Held) -> Result<Self, SpoolError> {
        blocking(move || {
            let envelope = held.shared.load(held.id)?;
            Ok(Self { held: Arc::new(held), envelope })
        })
        .await?
    }

    /// Returns the envelope as it was at the claim or the last [`Self::update`].
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// Opens the message as it arrived, from its first octet.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub async fn message(&self) -> Result<MessageReader, SpoolError> {
        MessageReader::open(&self.held.shared, self.held.id, files::message_name(self.held.id)).await
    }

    /// Writes a changed envelope durably, and keeps the claim. Once begun, the write is completed even if the caller
    /// goes away.
    ///
    /// # Errors
    /// It could not be written, or does not belong to this message: the old one is still in force. (If only the last
    /// step failed, the fsync of the folder, the new one may be found after a crash.)
    pub async fn update(&mut self, envelope: Envelope) -> Result<(), SpoolError> {
        let id = self.held.id;
        let what_stays = |envelope: &Envelope| (envelope.version, envelope.id, envelope.size);
        if what_stays(&envelope) != what_stays(&self.envelope)
            || envelope.account != self.envelope.account
            || envelope.sha256 != self.envelope.sha256
        {
            return Err(SpoolError::Io(format!("the envelope is not that of {id}")));
        }
        let text = envelope.encode().map_err(|cause| SpoolError::Io(format!("message {id}: {cause}")))?;
        let record = Record::of(&envelope, text.len() as u64);
        let held = Arc::clone(&self.held);
        let written = blocking(move || {
            held.shared.folder.write(files::envelope_name(id), text.as_bytes())?;
            held.shared.put_if_there(id, record);
            Ok::<_, crate::durable::DurableError>(())
        });
        written.await?.map_err(|error| SpoolError::Io(error.to_string()))?;
        self.envelope = envelope;
        Ok(())
    }

    /// Removes the message, since every recipient is answered. Once begun, the removal is completed even if the caller
    /// goes away.
    ///
    /// # Errors
    /// The files could not be removed; the call can be repeated.
    pub async fn finish(&self) -> Result<(), SpoolError> {
        remove(Arc::clone(&self.held)).await
    }
}

/// Removes a claimed message.
pub(super) async fn remove(held: Arc<Held>) -> Result<(), SpoolError> {
    let outcomes = blocking(move || held.shared.remove(&[held.id])).await?;
    outcomes.into_iter().collect::<Result<(), _>>().map_err(SpoolError::Io)
}
