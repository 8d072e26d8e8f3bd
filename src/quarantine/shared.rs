//! What the parts of the spool share: the folder, the index, the limits; and how they get to a blocking thread.

use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use super::envelope::{Envelope, State};
use super::files::{self, LoadError};
use super::floor::Floor;
use super::index::{Index, Refusal};
use super::record::Record;
use super::space::Space;
use super::terms::{Limits, Line, SpoolError, Swept, Unfinished};
use crate::clock::Timestamp;
use crate::durable::Folder;
use crate::id::QuarantineId;

pub(super) struct Shared {
    pub(super) folder: Arc<Folder>,
    pub(super) limits: ArcSwap<Limits>,
    pub(super) space: Arc<Space>,
    pub(super) index: Mutex<Index>,
    pub(super) floor: Mutex<Floor>,
    /// Held while marks are written.
    pub(super) marking: Mutex<()>,
    /// Messages removed at opening because they had no envelope.
    pub(super) swept: Vec<Swept>,
    /// The lock that keeps other processes out.
    pub(super) _lock: File,
}

impl Shared {
    /// Locks the index; never hold it across an await or a disk access.
    pub(super) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the floor; never hold it across an await or a disk access.
    pub(super) fn floor(&self) -> MutexGuard<'_, Floor> {
        self.floor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads an envelope, with its due time as memory has it; blocking.
    pub(super) fn load(&self, id: QuarantineId) -> Result<Envelope, SpoolError> {
        let Some(state) = self.index().state(id) else { return Err(SpoolError::Unknown(id.to_string())) };
        match files::load(&self.folder, id) {
            Ok((mut envelope, octets)) => {
                // Somebody has repaired it, or the disk failed when it was first read.
                if state == State::Unreadable {
                    self.index().heal(id, Record::of(&envelope, octets));
                }
                if envelope.state() == State::Parked {
                    envelope.due = self.index().due_time(id).or(envelope.due);
                }
                Ok(envelope)
            }
            // It was removed meanwhile.
            Err(_) if self.index().state(id).is_none() => Err(SpoolError::Unknown(id.to_string())),
            Err(LoadError::Unreadable(cause)) => Err(SpoolError::Unreadable { id, cause }),
            Err(LoadError::Io(cause)) => Err(SpoolError::Io(cause)),
        }
    }

    /// Returns whether a message is just being removed: its files go first, then its record.
    pub(super) fn is_going(&self, id: QuarantineId) -> bool {
        let there = self.folder.path().join(files::envelope_name(id)).symlink_metadata().is_ok();
        !there && self.index().is_claimed(id)
    }

    /// Writes the due time that the index has to disk; blocking. The caller must hold the message.
    pub(super) fn write_due_time(&self, id: QuarantineId) -> Result<(), SpoolError> {
        let envelope = self.load(id)?;
        self.rewrite(&envelope)
    }

    /// Writes to disk that the message waits for an operator, unless an operator has decided meanwhile; blocking. The
    /// caller must hold the message.
    pub(super) fn write_kept(&self, id: QuarantineId) -> Result<(), SpoolError> {
        let mut envelope = self.load(id)?;
        if envelope.goes_by_itself().is_none() {
            return Ok(());
        }
        envelope.keep();
        self.rewrite(&envelope)?;
        self.index().keep(id);
        Ok(())
    }

    fn rewrite(&self, envelope: &Envelope) -> Result<(), SpoolError> {
        let id = envelope.id;
        let failed = |cause: String| SpoolError::Io(format!("message {id}: {cause}"));
        let text = envelope.encode().map_err(|error| failed(error.to_string()))?;
        self.folder
            .write(files::envelope_name(id), text.as_bytes())
            .map_err(|error| failed(error.to_string()))?;
        self.put_if_there(id, Record::of(envelope, text.len() as u64));
        Ok(())
    }

    /// Replaces a message's record, unless the message is gone.
    pub(super) fn put_if_there(&self, id: QuarantineId, record: Record) {
        let mut index = self.index();
        if index.state(id).is_some() {
            index.put(id, record);
        }
    }

    /// Claims a message.
    pub(super) fn hold(self: &Arc<Self>, id: QuarantineId) -> Result<Held, SpoolError> {
        match self.index().claim(id) {
            Ok(()) => Ok(Held { shared: Arc::clone(self), id }),
            Err(Refusal::Unknown) => Err(SpoolError::Unknown(id.to_string())),
            Err(Refusal::Claimed) => Err(SpoolError::Claimed(id)),
        }
    }

    /// Claims the message that goes first of those due at `now`, among the lines that are `open`.
    pub(super) fn hold_due(
        self: &Arc<Self>,
        now: Timestamp,
        open: impl FnMut(&Line) -> bool,
    ) -> Option<(Held, Line)> {
        let (id, line) = self.index().claim_due(now, open)?;
        Some((Held { shared: Arc::clone(self), id }, line))
    }

    /// Removes messages for good; blocking. The caller must hold them. Each has its own outcome.
    pub(super) fn remove(&self, ids: &[QuarantineId]) -> Vec<Result<(), String>> {
        let outcomes = files::remove(&self.folder, ids);
        let mut index = self.index();
        for (id, outcome) in ids.iter().zip(&outcomes) {
            if outcome.is_ok() {
                index.remove(*id);
            }
        }
        outcomes
    }
}

/// A claimed message. It moves with the work on its files, so that nobody else claims it before that work is done, even
/// if the caller is gone.
pub struct Held {
    pub(super) shared: Arc<Shared>,
    pub(super) id: QuarantineId,
}

impl Held {
    /// Returns which it is.
    pub fn id(&self) -> QuarantineId {
        self.id
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.index().unclaim(self.id);
    }
}

/// Runs disk work on a blocking thread; it is completed even if nobody waits for it any more.
///
/// # Errors
/// The work panicked, or the program is ending.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Unfinished> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Unfinished(error.to_string()))
}
