//! The two files of a message, `ID.message` and `ID.envelope`, and the order in which they are created and removed;
//! blocking.
//!
//! The message is on disk before the envelope gets its name, and the envelope is off the disk before the message is
//! removed. So an envelope always means a whole message, and a message without one was never acknowledged or is being
//! removed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::envelope::{Envelope, MAX_TEXT};
use super::index::Index;
use super::record::Record;
use super::terms::Swept;
use crate::durable::{self, DurableError, Existing, Folder, Temporary};
use crate::fail;
use crate::id::QuarantineId;

/// Locked by the process that has the folder open, so that it never sweeps another process's half-done work.
const LOCK: &str = "lock";
/// Contains the version of the folder's layout, as text.
const VERSION_FILE: &str = "version";
/// The version that this Gatepost writes, and the newest that it reads.
const VERSION: u32 = 1;

pub(super) fn message_name(id: QuarantineId) -> String {
    format!("{id}.message")
}

pub(super) fn envelope_name(id: QuarantineId) -> String {
    format!("{id}.envelope")
}

/// Why an envelope cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LoadError {
    /// The files on disk are not a valid parked message.
    Unreadable(String),
    /// A file could not be read or looked at.
    Io(String),
}

impl LoadError {
    fn io(what: &str, path: &std::path::Path, cause: &std::io::Error) -> Self {
        Self::Io(format!("cannot {what} {}: {cause}", path.display()))
    }
}

/// Reads an envelope, and checks that the message file is there and has the right size. The number is that of the
/// octets of the envelope's text.
pub(super) fn load(folder: &Folder, id: QuarantineId) -> Result<(Envelope, u64), LoadError> {
    let path = folder.path().join(envelope_name(id));
    let file = match folder.read(envelope_name(id)) {
        Ok(file) => file,
        Err(error) if error.is_missing() => {
            return Err(LoadError::Unreadable("the envelope is missing".into()));
        }
        Err(error) => return Err(LoadError::Io(error.to_string())),
    };
    let mut octets = Vec::new();
    file.take(MAX_TEXT as u64 + 1)
        .read_to_end(&mut octets)
        .map_err(|cause| LoadError::io("read", &path, &cause))?;
    let text = str::from_utf8(&octets).map_err(|cause| {
        let at = cause.valid_up_to();
        LoadError::Unreadable(format!("the envelope does not parse: no UTF-8 at octet {at}"))
    })?;
    let envelope = Envelope::decode(text).map_err(|cause| LoadError::Unreadable(cause.to_string()))?;
    if envelope.id != id {
        return Err(LoadError::Unreadable(format!("the envelope is that of {}", envelope.id)));
    }
    match size(folder, &message_name(id))? {
        None => Err(LoadError::Unreadable("the message file is missing".into())),
        Some(size) if size != envelope.size => Err(LoadError::Unreadable(format!(
            "the message file has {size} octets, and should have {}",
            envelope.size
        ))),
        Some(_) => Ok((envelope, octets.len() as u64)),
    }
}

/// Returns the size of a file in octets; `None` if there is none.
fn size(folder: &Folder, name: &str) -> Result<Option<u64>, LoadError> {
    let path = folder.path().join(name);
    match std::fs::symlink_metadata(&path) {
        Ok(found) => Ok(Some(found.len())),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(LoadError::io("look at", &path, &cause)),
    }
}

/// Makes a message and its envelope durable. `begun` is the file with what was written of the message so far, `rest` is
/// the remainder.
pub(super) fn park(
    folder: &Arc<Folder>,
    id: QuarantineId,
    begun: Option<Temporary>,
    rest: &[u8],
    envelope: &str,
) -> Result<(), DurableError> {
    let mut message = begun.map_or_else(|| folder.temporary(), Ok)?;
    message.write(rest)?;
    let message = message.sync()?;
    fail::point("park.message");
    let mut text = folder.temporary()?;
    text.write(envelope.as_bytes())?;
    let text = text.sync()?;
    fail::point("park.envelope");
    // `Keep`, since a system with poor randomness may generate an id twice.
    message.rename(message_name(id), Existing::Keep)?;
    fail::point("park.message-named");
    if let Err(error) = text.rename(envelope_name(id), Existing::Keep) {
        let _ = folder.unlink(message_name(id));
        return Err(error);
    }
    fail::point("park.envelope-named");
    folder.sync().inspect_err(|_| {
        let _ = folder.unlink(envelope_name(id));
        let _ = folder.unlink(message_name(id));
    })?;
    fail::point("park.synced");
    Ok(())
}

/// Removes messages for good. They share one fsync, but each has its own outcome; a failed removal can be repeated.
pub(super) fn remove(folder: &Folder, ids: &[QuarantineId]) -> Vec<Result<(), String>> {
    let unlinked: Vec<_> = ids.iter().map(|id| folder.unlink(envelope_name(*id))).collect();
    let synced = folder.sync().map_err(|error| error.to_string());
    fail::point("release.envelope-gone");
    let outcomes = ids.iter().zip(unlinked).map(|(id, unlinked)| {
        unlinked.map_err(|error| error.to_string())?;
        synced.clone()?;
        folder.unlink(message_name(*id)).map(drop).map_err(|error| error.to_string())
    });
    outcomes.collect()
}

/// Locks the folder, waiting up to `wait` for another process to release it. The lock lasts as long as the returned
/// file. Refuses a folder of a newer version.
pub(super) fn lock(folder: &Folder, wait: Duration) -> Result<File, String> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = folder.path().join(LOCK);
    let failed = |cause: std::io::Error| format!("cannot lock {}: {cause}", path.display());
    let mut options = File::options();
    let file = options.create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(failed)?;
    match durable::lock_within(&file, FlockOperation::NonBlockingLockExclusive, wait) {
        Ok(()) => known(folder).map(|()| file),
        Err(Errno::WOULDBLOCK) => {
            Err(format!("another gatepost process has {} open: stop it first", folder.path().display()))
        }
        Err(error) => Err(failed(error.into())),
    }
}

/// Checks that we know the folder's version; writes ours if it has none.
fn known(folder: &Folder) -> Result<(), String> {
    let path = folder.path().join(VERSION_FILE);
    let text = match std::fs::read(&path) {
        Ok(octets) => String::from_utf8_lossy(&octets).into_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // It has the first version. If that cannot be written, for example on a full disk, accepting mail matters
            // more.
            let _ = durable::write(&path, format!("{VERSION}\n").as_bytes());
            return Ok(());
        }
        Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
    };
    match text.trim().parse() {
        Ok(0..=VERSION) => Ok(()),
        Ok(found) => Err(format!(
            "{}: the quarantine has version {found}; this Gatepost knows up to {VERSION}. Use a newer Gatepost",
            path.display()
        )),
        Err(_) => Err(format!(
            "{}: no version in it, but {:?}; if a Gatepost of this version or an older one wrote the quarantine, remove the file",
            path.display(),
            text.chars().take(20).collect::<String>()
        )),
    }
}

/// Reads all envelopes. Removes temporary files, and messages that have no envelope; returns these messages. Call it
/// only under [`lock`].
pub(super) fn scan(folder: &Folder) -> Result<(Index, Vec<Swept>), DurableError> {
    let mut swept = folder.sweep()?;
    let (mut messages, mut envelopes) = (Vec::new(), BTreeSet::new());
    for name in folder.names()? {
        let Some((id, kind)) = name.to_str().and_then(|name| name.split_once('.')) else { continue };
        match (id.parse::<QuarantineId>(), kind) {
            (Ok(id), "message") => messages.push(id),
            (Ok(id), "envelope") => drop(envelopes.insert(id)),
            _ => {}
        }
    }
    let mut without_envelope = Vec::new();
    for id in messages {
        // A folder of that name is not ours.
        if !envelopes.contains(&id) && !folder.path().join(message_name(id)).is_dir() {
            let size = known_size(folder, &message_name(id));
            if folder.unlink(message_name(id))? {
                swept += 1;
                without_envelope.push(Swept { id, size });
            }
        }
    }
    if swept > 0 {
        folder.sync()?;
    }
    let ids: Vec<_> = envelopes.into_iter().collect();
    let mut index = Index::default();
    for (id, record) in ids.iter().zip(records(folder, &ids)) {
        index.put(*id, record);
    }
    Ok((index, without_envelope))
}

/// Reads the record of each id, with as many threads as there are processors.
fn records(folder: &Folder, ids: &[QuarantineId]) -> Vec<Record> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = ids.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let readers: Vec<_> = ids
            .chunks(share)
            .map(|ids| scope.spawn(move || ids.iter().map(|id| record(folder, *id)).collect::<Vec<_>>()))
            .collect();
        let read = readers.into_iter().zip(ids.chunks(share));
        // A reader that panicked must not hide its messages.
        read.flat_map(|(reader, ids)| {
            reader.join().unwrap_or_else(|_| ids.iter().map(|id| Record::unreadable(*id, 0, 0)).collect())
        })
        .collect()
    })
}

fn record(folder: &Folder, id: QuarantineId) -> Record {
    match load(folder, id) {
        Ok((envelope, octets)) => Record::of(&envelope, octets),
        Err(_) => {
            let of = |name: String| known_size(folder, &name);
            Record::unreadable(id, of(message_name(id)), of(envelope_name(id)))
        }
    }
}

/// Like [`size`], but 0 if there is no such file, or nobody can say.
fn known_size(folder: &Folder, name: &str) -> u64 {
    size(folder, name).ok().flatten().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quarantine::sample;

    fn folder() -> (tempfile::TempDir, Arc<Folder>) {
        let home = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::open(home.path()).unwrap());
        (home, folder)
    }

    fn park_sample(folder: &Arc<Folder>, id: QuarantineId) -> Result<(), DurableError> {
        let text = sample::envelope(id, b"content").encode().unwrap();
        park(folder, id, None, b"content", &text)
    }

    #[test]
    fn a_name_that_is_taken_is_never_overwritten_nor_removed() {
        for taken in [message_name, envelope_name] {
            let (home, folder) = folder();
            let id = sample::id(1);
            std::fs::write(home.path().join(taken(id)), b"older").unwrap();
            park_sample(&folder, id).unwrap_err();
            assert_eq!(folder.names().unwrap(), [std::ffi::OsString::from(taken(id))]);
            assert_eq!(std::fs::read(home.path().join(taken(id))).unwrap(), b"older");
        }
    }

    #[test]
    fn each_message_has_its_own_outcome() {
        let (home, folder) = folder();
        let ids = [sample::id(1), sample::id(2), sample::id(3)];
        for id in ids {
            park_sample(&folder, id).unwrap();
        }
        // A folder cannot be unlinked, not even by root.
        std::fs::remove_file(home.path().join(envelope_name(ids[1]))).unwrap();
        std::fs::create_dir(home.path().join(envelope_name(ids[1]))).unwrap();
        let outcomes = remove(&folder, &ids);
        assert!(outcomes[0].is_ok() && outcomes[2].is_ok());
        assert!(outcomes[1].as_ref().unwrap_err().contains(&envelope_name(ids[1])));
        assert_eq!(folder.names().unwrap().len(), 2, "the message whose envelope stayed is there");
    }

    #[test]
    fn one_at_a_time() {
        let (_home, folder) = folder();
        let first = lock(&folder, Duration::ZERO).unwrap();
        assert!(lock(&folder, Duration::ZERO).unwrap_err().contains("another gatepost process"));
        std::thread::scope(|scope| {
            let second = scope.spawn(|| lock(&folder, Duration::from_secs(30)));
            drop(first);
            second.join().unwrap().unwrap();
        });
    }

    #[test]
    fn what_is_wrong_with_it_is_said() {
        let (home, folder) = folder();
        let id = sample::id(1);
        park_sample(&folder, id).unwrap();
        let good = std::fs::read(home.path().join(envelope_name(id))).unwrap();
        let foreign = sample::envelope(sample::id(2), b"content").encode().unwrap();
        let long = sample::envelope(id, b"longer than it is").encode().unwrap();
        for (envelope, expected) in [
            (&b"\xff\xfe"[..], "no UTF-8 at octet 0"),
            (&good[..good.len() / 2], "does not parse: EOF"),
            (foreign.as_bytes(), "the envelope is that of 0"),
            (long.as_bytes(), "has 7 octets, and should have 17"),
        ] {
            std::fs::write(home.path().join(envelope_name(id)), envelope).unwrap();
            let Err(LoadError::Unreadable(told)) = load(&folder, id) else { panic!("taken") };
            assert!(told.contains(expected), "{told}");
        }
        std::fs::write(home.path().join(envelope_name(id)), good).unwrap();
        load(&folder, id).unwrap();
        std::fs::remove_file(home.path().join(message_name(id))).unwrap();
        assert_eq!(load(&folder, id), Err(LoadError::Unreadable("the message file is missing".into())));
    }
}
