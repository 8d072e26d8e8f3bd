//! A message on its way into the quarantine, in constant memory however big it is.
//!
//! A small message stays in memory until its end, and then goes to disk in one visit to a blocking thread.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::envelope::{Envelope, VERSION};
use super::files;
use super::index::Record;
use super::shared::{Shared, blocking};
use super::space::{Booking, FIRST_BOOKING};
use super::spool::ParkError;
use crate::account::Account;
use crate::clock::Timestamp;
use crate::durable::{DurableError, Temporary};
use crate::id::QuarantineId;

/// The most of a message that is in memory, octets.
pub(super) const BUFFER: usize = 64 * 1024;

/// A message being parked. Dropping it leaves nothing behind.
pub struct Parking {
    id: QuarantineId,
    reservation: Reservation,
    booking: Booking,
    draft: Draft,
    /// What is not in the file yet; grows with the message up to [`BUFFER`].
    buffer: Vec<u8>,
    size: u64,
    hasher: Sha256,
    /// What went wrong; from then on nothing else is said.
    failed: Option<ParkError>,
}

/// The file that the message is written to; none as long as it fits the buffer.
struct Draft(Option<Temporary>);

impl Drop for Draft {
    fn drop(&mut self) {
        // To unlink a big file takes a while.
        if let (Some(file), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            drop(runtime.spawn_blocking(move || drop(file)));
        }
    }
}

/// Octets set aside in the index.
struct Reservation {
    shared: Arc<Shared>,
    account: Account,
    octets: u64,
}

impl Reservation {
    fn grow(&mut self, octets: u64) -> Result<(), ParkError> {
        let shared = &self.shared;
        shared.index().reserve(&shared.limits, &self.account, octets).map_err(ParkError::Full)?;
        self.octets += octets;
        Ok(())
    }

    /// Exchanges it for the message itself.
    fn redeem(mut self, id: QuarantineId, record: Record) {
        let shared = Arc::clone(&self.shared);
        let mut index = shared.index();
        index.unreserve(&self.account, std::mem::take(&mut self.octets));
        index.put(id, record);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.octets > 0 {
            self.shared.index().unreserve(&self.account, self.octets);
        }
    }
}

impl Parking {
    pub(super) fn begin(shared: &Arc<Shared>, account: &Account, now: Timestamp) -> Result<Self, ParkError> {
        shared.index().fits(&shared.limits, account, 0).map_err(ParkError::Full)?;
        Ok(Self {
            id: QuarantineId::new(now),
            booking: shared.space.book(FIRST_BOOKING)?,
            reservation: Reservation { shared: Arc::clone(shared), account: account.clone(), octets: 0 },
            draft: Draft(None),
            buffer: Vec::new(),
            size: 0,
            hasher: Sha256::new(),
            failed: None,
        })
    }

    /// The id that it will have.
    pub fn id(&self) -> QuarantineId {
        self.id
    }

    /// Appends octets of the message as it arrived.
    ///
    /// # Errors
    /// It does not fit, or the disk fails; then the message cannot be parked any more.
    pub async fn write(&mut self, content: &[u8]) -> Result<(), ParkError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        // Holds if the caller goes away in the middle.
        self.failed = Some(ParkError::Io("the writing of the message was interrupted".into()));
        let outcome = self.append(content).await;
        self.failed = outcome.clone().err();
        outcome
    }

    async fn append(&mut self, mut content: &[u8]) -> Result<(), ParkError> {
        let octets = content.len() as u64;
        self.reservation.grow(octets)?;
        self.booking.cover(octets.saturating_add(self.buffer.len() as u64))?;
        self.hasher.update(content);
        self.size += octets;
        while !content.is_empty() {
            let (now, later) = content.split_at(content.len().min(BUFFER - self.buffer.len()));
            grow(&mut self.buffer, now.len());
            self.buffer.extend_from_slice(now);
            content = later;
            if self.buffer.len() == BUFFER {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Writes the buffer to the file.
    async fn flush(&mut self) -> Result<(), ParkError> {
        let folder = Arc::clone(&self.reservation.shared.folder);
        let (begun, mut buffer) = (self.draft.0.take(), std::mem::take(&mut self.buffer));
        let written = blocking(move || {
            let mut file = begun.map_or_else(|| folder.temporary(), Ok)?;
            file.write(&buffer)?;
            buffer.clear();
            Ok((file, buffer))
        });
        let (file, buffer) = written.await.map_err(ParkError::Io)?.map_err(|error| failure(&error))?;
        self.booking.written(BUFFER as u64);
        (self.draft.0, self.buffer) = (Some(file), buffer);
        Ok(())
    }

    /// Octets so far, and their SHA-256 in hexadecimal.
    pub fn digest(&self) -> (u64, String) {
        let hash = self.hasher.clone().finalize();
        (self.size, hash.iter().map(|octet| format!("{octet:02x}")).collect())
    }

    /// Makes message and envelope durable. Only after this may the client be told 250. Once begun it is seen through, even
    /// if the caller goes away.
    ///
    /// # Errors
    /// It could not be made durable, or the envelope is not that of this message; nothing is left behind.
    pub async fn commit(mut self, envelope: &Envelope) -> Result<(), ParkError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.check(envelope)?;
        let text = envelope.encode().map_err(|error| ParkError::Io(error.to_string()))?;
        self.booking.cover((self.buffer.len() + text.len()) as u64)?;
        let record = Record::of(envelope);
        let Self { id, reservation, booking, mut draft, buffer, .. } = self;
        let begun = draft.0.take();
        let parked = blocking(move || {
            files::park(&reservation.shared.folder, id, begun, &buffer, &text)?;
            reservation.redeem(id, record);
            drop(booking);
            Ok(())
        });
        parked.await.map_err(ParkError::Io)?.map_err(|error| failure(&error))
    }

    /// What would make it unreadable later is said while the client still has the message.
    fn check(&self, envelope: &Envelope) -> Result<(), ParkError> {
        let fits = envelope.version == VERSION
            && envelope.id == self.id
            && envelope.account == self.reservation.account
            && (envelope.size, &envelope.sha256) == (self.size, &self.digest().1);
        if fits { Ok(()) } else { Err(ParkError::Io(format!("the envelope is not that of {}", self.id))) }
    }
}

/// Makes room for `more`, never beyond [`BUFFER`].
fn grow(buffer: &mut Vec<u8>, more: usize) {
    let needed = buffer.len() + more;
    if buffer.capacity() < needed {
        let wanted = needed.max(buffer.capacity() * 2).min(BUFFER);
        buffer.reserve_exact(wanted - buffer.len());
    }
}

fn failure(error: &DurableError) -> ParkError {
    if error.is_full() { ParkError::Full(error.to_string()) } else { ParkError::Io(error.to_string()) }
}
