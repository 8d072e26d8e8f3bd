//! A message on its way into the quarantine, in constant memory whatever its size.
//!
//! A small message stays in memory until its end, and then goes to disk in one visit to a blocking thread. The content
//! of a message that could not be parked can be recovered ([`Salvaged`]), since whoever relays it instead has no other
//! copy.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::checksum::Checksum;
use super::envelope::{Envelope, VERSION};
use super::files;
use super::record::Record;
use super::shared::{Shared, blocking};
use super::space::{Booking, FIRST_BOOKING};
use super::terms::ParkError;
use super::weight::Weight;
use crate::account::Account;
use crate::clock::Timestamp;
use crate::durable::{DurableError, Temporary};
use crate::id::QuarantineId;

/// The most octets of a message held in memory.
pub(super) const BUFFER: usize = 64 * 1024;

/// In force during a write, should its caller go away.
const INTERRUPTED: &str = "the writing of the message was interrupted";

/// A message being parked. Dropping it leaves nothing behind.
pub struct Parking {
    id: QuarantineId,
    reservation: Reservation,
    booking: Booking,
    draft: Draft,
    /// Octets already in the file.
    written: u64,
    /// Octets not in the file yet; grows with the message up to [`BUFFER`], or until [`Parking::spill`].
    buffer: Vec<u8>,
    /// Octets of all writes that succeeded.
    size: u64,
    checksum: Checksum,
    /// The first error, which every later write or commit returns.
    failed: Option<ParkError>,
}

/// The file that the message is written to; none as long as the message fits the buffer.
struct Draft(Option<Temporary>);

impl Drop for Draft {
    fn drop(&mut self) {
        // Unlinking a big file takes a while.
        if let (Some(file), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            drop(runtime.spawn_blocking(move || drop(file)));
        }
    }
}

/// What is reserved in the index.
struct Reservation {
    shared: Arc<Shared>,
    account: Account,
    weight: Weight,
}

impl Reservation {
    fn grow(&mut self, more: Weight) -> Result<(), ParkError> {
        let shared = &self.shared;
        shared.index().reserve(&shared.limits.load(), &self.account, more).map_err(ParkError::Full)?;
        self.weight = self.weight.plus(more);
        Ok(())
    }

    /// Replaces the reservation by the message itself.
    fn redeem(mut self, id: QuarantineId, record: Record) {
        let shared = Arc::clone(&self.shared);
        let mut index = shared.index();
        index.unreserve(&self.account, std::mem::take(&mut self.weight));
        index.put(id, record);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.weight != Weight::default() {
            self.shared.index().unreserve(&self.account, self.weight);
        }
    }
}

impl Parking {
    pub(super) fn begin(shared: &Arc<Shared>, account: &Account, now: Timestamp) -> Result<Self, ParkError> {
        shared.index().fits(&shared.limits.load(), account, 0).map_err(ParkError::Full)?;
        Ok(Self {
            id: QuarantineId::new(shared.floor().born(now)),
            booking: shared.space.book(FIRST_BOOKING)?,
            reservation: Reservation {
                shared: Arc::clone(shared),
                account: account.clone(),
                weight: Weight::default(),
            },
            draft: Draft(None),
            written: 0,
            buffer: Vec::new(),
            size: 0,
            checksum: Checksum::default(),
            failed: None,
        })
    }

    /// Returns the id that the message will have.
    pub fn id(&self) -> QuarantineId {
        self.id
    }

    /// Appends octets of the message as it arrived.
    ///
    /// # Errors
    /// It does not fit, or the disk fails. The message can then no longer be parked, but [`Self::salvage`] recovers
    /// what was appended before this call.
    pub async fn write(&mut self, content: &[u8]) -> Result<(), ParkError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.failed = Some(ParkError::Io(INTERRUPTED.into()));
        let outcome = self.append(content).await;
        self.failed = outcome.clone().err();
        outcome
    }

    async fn append(&mut self, mut content: &[u8]) -> Result<(), ParkError> {
        let octets = content.len() as u64;
        self.reservation.grow(Weight::of_content(octets))?;
        self.booking.cover(octets.saturating_add(self.buffer.len() as u64))?;
        self.checksum.update(content);
        while !content.is_empty() {
            let (now, later) = content.split_at(content.len().min(BUFFER - self.buffer.len()));
            grow(&mut self.buffer, now.len());
            self.buffer.extend_from_slice(now);
            content = later;
            if self.buffer.len() == BUFFER {
                self.flush().await?;
            }
        }
        self.size += octets;
        Ok(())
    }

    /// Writes the buffer to the file.
    async fn flush(&mut self) -> Result<(), ParkError> {
        let folder = Arc::clone(&self.reservation.shared.folder);
        let (begun, buffer) = (self.draft.0.take(), std::mem::take(&mut self.buffer));
        let visit = blocking(move || {
            let (mut file, outcome) = match begun.map_or_else(|| folder.temporary(), Ok) {
                Ok(file) => (Some(file), Ok(())),
                Err(error) => (None, Err(error)),
            };
            let outcome = outcome.and_then(|()| file.as_mut().map_or(Ok(()), |file| file.write(&buffer)));
            (file, buffer, outcome)
        });
        let (file, buffer, outcome) = visit.await?;
        (self.draft.0, self.buffer) = (file, buffer);
        outcome.map_err(|error| failure(&error))?;
        self.booking.written(self.buffer.len() as u64);
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Returns how many octets of memory the message takes.
    pub fn held(&self) -> usize {
        self.buffer.capacity()
    }

    /// Writes out what is held in memory, and frees it. If the disk fails, the next write or the commit says so.
    pub async fn spill(&mut self) {
        if self.failed.is_some() || self.buffer.is_empty() {
            return;
        }
        self.failed = Some(ParkError::Io(INTERRUPTED.into()));
        self.failed = self.flush().await.err();
        if self.failed.is_none() {
            self.buffer = Vec::new();
        }
    }

    /// Returns what was appended, if the message cannot be parked after all.
    ///
    /// # Errors
    /// Not all of it is there any more.
    pub fn salvage(mut self) -> Result<Salvaged, ParkError> {
        let file = self.draft.0.as_ref().map(Temporary::again).transpose();
        let file = file.map_err(|error| ParkError::Io(error.to_string()))?;
        Salvaged::of(file, self.written, std::mem::take(&mut self.buffer), self.size)
    }

    /// Returns the number of octets so far and their SHA-256 in hexadecimal.
    pub fn digest(&self) -> (u64, String) {
        (self.size, self.checksum.to_string())
    }

    /// Makes message and envelope durable. Only after this may the client be told 250. Once begun, it is completed even
    /// if the caller goes away.
    ///
    /// # Errors
    /// It could not be made durable, or the envelope does not belong to this message. Nothing is left behind except
    /// what the error holds.
    pub async fn commit(mut self, envelope: &Envelope) -> Result<(), Unparked> {
        let text = match self.prepare(envelope) {
            Ok(text) => text,
            Err(error) => return Err(Unparked { error, content: self.salvage() }),
        };
        let again = self.draft.0.as_ref().map(Temporary::again).transpose();
        let record = Record::of(envelope, text.len() as u64);
        let Self { id, reservation, booking, mut draft, written, buffer, size, .. } = self;
        let begun = draft.0.take();
        let parked = blocking(move || {
            let outcome = files::park(&reservation.shared.folder, id, begun, &buffer, &text);
            if outcome.is_ok() {
                reservation.redeem(id, record);
            }
            drop(booking);
            (outcome, buffer)
        });
        let (outcome, buffer) = parked.await.map_err(|unfinished| {
            let error = ParkError::from(unfinished);
            Unparked { content: Err(error.clone()), error }
        })?;
        outcome.map_err(|error| Unparked {
            error: failure(&error),
            content: again
                .map_err(|error| ParkError::Io(error.to_string()))
                .and_then(|file| Salvaged::of(file, written, buffer, size)),
        })
    }

    /// Returns the envelope's text, after all checks.
    fn prepare(&mut self, envelope: &Envelope) -> Result<String, ParkError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.check(envelope)?;
        let text = envelope.encode().map_err(|error| ParkError::Io(error.to_string()))?;
        self.reservation.grow(Weight::of_envelope(text.len() as u64))?;
        self.booking.cover((self.buffer.len() + text.len()) as u64)?;
        Ok(text)
    }

    /// Detects what would make the message unreadable later, while the client still has it.
    fn check(&self, envelope: &Envelope) -> Result<(), ParkError> {
        let fits = envelope.version == VERSION
            && envelope.id == self.id
            && envelope.account == self.reservation.account
            && (envelope.size, &envelope.sha256) == (self.size, &self.digest().1);
        if fits { Ok(()) } else { Err(ParkError::Io(format!("the envelope is not that of {}", self.id))) }
    }
}

/// A message that was not parked.
#[derive(Debug)]
pub struct Unparked {
    /// Why.
    pub error: ParkError,
    /// The message itself, if it can be recovered.
    pub content: Result<Salvaged, ParkError>,
}

/// The content of a message, or of its beginning, that could not be parked: as it arrived, from its first octet.
#[derive(Debug)]
pub struct Salvaged {
    file: Option<Arc<File>>,
    /// How many octets to read from the file, before those in `buffer`.
    in_file: u64,
    buffer: Vec<u8>,
    position: u64,
    size: u64,
}

impl Salvaged {
    /// Takes the first `size` octets of the `written` ones in the file followed by `buffer`.
    fn of(file: Option<File>, written: u64, buffer: Vec<u8>, size: u64) -> Result<Self, ParkError> {
        let in_file = if file.is_some() { written.min(size) } else { 0 };
        if size - in_file > buffer.len() as u64 || in_file < written.min(size) {
            return Err(ParkError::Io("what was received of the message is not there any more".into()));
        }
        Ok(Self { file: file.map(Arc::new), in_file, buffer, position: 0, size })
    }

    /// Returns the total number of octets.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the next octets; none at the end.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn next(&mut self) -> Result<Vec<u8>, ParkError> {
        let left = self.in_file.saturating_sub(self.position);
        if let Some(file) = self.file.as_ref().filter(|_| left > 0) {
            let (file, position) = (Arc::clone(file), self.position);
            let mut piece = vec![0; usize::try_from(left).unwrap_or(BUFFER).min(BUFFER)];
            let read = blocking(move || file.read_exact_at(&mut piece, position).map(|()| piece));
            let piece = read.await?.map_err(|cause| {
                ParkError::Io(format!("what was received of the message cannot be read: {cause}"))
            })?;
            self.position += piece.len() as u64;
            return Ok(piece);
        }
        let left = usize::try_from(self.size - self.position).unwrap_or(usize::MAX);
        self.position = self.size;
        let mut piece = std::mem::take(&mut self.buffer);
        piece.truncate(left);
        Ok(piece)
    }
}

/// Makes room for `more` octets, never beyond [`BUFFER`] in all.
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
