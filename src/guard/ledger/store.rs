//! The database; the only file that names sled.
//!
//! Keys and values are octets here; `rows` knows what they mean. sled (0.34.7) leaves three things to us: its flush is no fsync
//! (sled#1452), so `sync` adds one; a kill during an open leaves a half-written snapshot that no later open survives
//! (sled#1533), so `open` removes it; after a failed write it refuses all further ones, hence `reopen`. Pages over 128 KiB go
//! into files that are never fsynced: sixteen values share a page, so none may exceed 7 KiB.

use std::fs::File;
use std::io::{Read, Write};
use std::ops::Bound;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::LedgerError;
use crate::durable::{self, Folder};

/// The database's version, raised by each change of keys or values that an older Gatepost would misread.
const SCHEMA: u32 = 1;
const SCHEMA_KEY: &[u8] = b"schema";
/// The size of sled's page cache, in octets.
const CACHE: u64 = 16 << 20;
/// How often sled writes by itself.
const FLUSH_EVERY: Duration = Duration::from_millis(500);
/// With fewer octets free, any trouble may be due to a full disk.
const LEAST_FREE: u64 = 1 << 20;
/// How long to wait for another process's lock.
const LOCK_WAIT: Duration = Duration::from_secs(1);
/// How long closing may take: a failed disk must not hold up the end of the process.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// The kinds of key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tree {
    /// Counted attempts, and accounts' own rows.
    Attempts,
    /// Messages that the upstream took.
    Relayed,
    /// Blocks.
    Blocks,
    /// Probations.
    Probations,
    /// Liftings of blocks that are still to be reported.
    Lifted,
    /// The version, and single values.
    Meta,
}

/// One key's new value; `None` removes it.
#[derive(Debug)]
pub(super) struct Edit {
    pub(super) tree: Tree,
    pub(super) key: Vec<u8>,
    pub(super) value: Option<Vec<u8>>,
}

/// A key and its value.
pub(super) type Pair = (Vec<u8>, Vec<u8>);

/// The database of one data directory, locked against other processes while it is open.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    lock: Mutex<Option<File>>,
    /// Whether this opening created it, or an earlier one that was cut short.
    fresh: bool,
    /// `None` once it is closed, or while it cannot be reopened.
    opened: RwLock<Option<Opened>>,
}

#[derive(Debug)]
struct Opened {
    db: sled::Db,
    attempts: sled::Tree,
    relayed: sled::Tree,
    blocks: sled::Tree,
    probations: sled::Tree,
    lifted: sled::Tree,
    meta: sled::Tree,
    /// sled's file, opened a second time for the fsync.
    file: File,
}

impl Store {
    /// Opens `dir/ledger`, creating it if it is missing.
    pub(super) fn open(dir: &Path) -> Result<Self, LedgerError> {
        let path = dir.join("ledger");
        let shown = path.display().to_string();
        let unopenable = |cause: String| LedgerError::Unopenable { path: shown.clone(), cause };
        let broken = |cause: String| LedgerError::Broken { path: shown.clone(), cause };
        durable::create_folder(dir).map_err(|error| unopenable(error.to_string()))?;
        let lock = lock(&dir.join("ledger.lock"), &unopenable)?;
        if path.symlink_metadata().is_ok_and(|found| found.is_file()) {
            return Err(broken("it is no folder".to_owned()));
        }
        durable::create_folder(&path).map_err(|error| unopenable(error.to_string()))?;
        let found =
            open(&path).map_err(
                |Fault { cause, passing }| {
                    if passing || is_full(&path) { unopenable(cause) } else { broken(cause) }
                },
            )?;
        match found {
            Found::Ours(opened, fresh) => {
                Ok(Self { path, lock: Mutex::new(Some(lock)), fresh, opened: RwLock::new(Some(opened)) })
            }
            Found::Newer(found) => Err(LedgerError::Newer { path: shown, found, known: SCHEMA }),
        }
    }

    /// Whether there was no database before. It counts as created once [`Self::settle`] was called and synced.
    pub(super) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Notes that a fresh database has its initial contents.
    pub(super) fn settle(&self) -> Result<(), String> {
        if !self.fresh {
            return Ok(());
        }
        self.with(|opened| opened.meta.insert(SCHEMA_KEY, &SCHEMA.to_be_bytes()).map(drop))
    }

    /// Reads everything: sled checks a page only when it is read.
    pub(super) fn verify(&self) -> Result<(), String> {
        self.with(|opened| {
            let trees = [
                &opened.meta,
                &opened.blocks,
                &opened.probations,
                &opened.lifted,
                &opened.attempts,
                &opened.relayed,
            ];
            // Stops at the first error, which sled would repeat for ever.
            trees.into_iter().flat_map(|tree| tree.iter()).try_for_each(|pair| pair.map(drop))
        })
    }

    /// The error for a damaged database.
    pub(super) fn broken(&self, cause: String) -> LedgerError {
        let path = self.path.display().to_string();
        if is_full(&self.path) {
            LedgerError::Unopenable { path, cause }
        } else {
            LedgerError::Broken { path, cause }
        }
    }

    /// The error for a database that cannot be used.
    pub(super) fn unopenable(&self, cause: String) -> LedgerError {
        LedgerError::Unopenable { path: self.path.display().to_string(), cause }
    }

    /// Reopens the database after a failed write: what was not synced may be gone.
    pub(super) fn reopen(&self) -> Result<(), String> {
        let mut slot = self.opened.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = slot.take() {
            let_go(opened);
        }
        match open(&self.path).map_err(|fault| fault.cause)? {
            Found::Ours(opened, _) => *slot = Some(opened),
            Found::Newer(found) => return Err(format!("its version became {found}")),
        }
        Ok(())
    }

    /// Closes the database and releases the lock.
    pub(super) fn close(&self) {
        let opened = self.opened.write().unwrap_or_else(PoisonError::into_inner).take();
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        if opened.is_none_or(let_go) {
            lock.inspect(unlock);
        } else {
            // sled still holds its files, so we keep the lock until the process ends.
            std::mem::forget(lock);
        }
    }

    /// Makes changes, in this order. They are durable after the next `sync`, or some time later.
    pub(super) fn apply(&self, changes: &[Edit]) -> Result<(), String> {
        self.with(|opened| {
            for Edit { tree, key, value } in changes {
                match value {
                    Some(value) => opened.tree(*tree).insert(key, value.as_slice())?,
                    None => opened.tree(*tree).remove(key)?,
                };
            }
            Ok(())
        })
    }

    /// Returns when all changes that were applied are durable.
    pub(super) fn sync(&self) -> Result<(), String> {
        self.with(|opened| {
            opened.db.flush()?;
            opened.file.sync_data()?;
            Ok(())
        })
    }

    /// Wakes a `sync` that waits for a failed write: sled does not always tell it of the failure, but does at the next write.
    pub(super) fn poke(&self) {
        let _ = self.with(|opened| opened.meta.insert(b"poke", b"").map(drop));
    }

    /// Returns the value of a key.
    pub(super) fn value(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        self.with(|opened| Ok(opened.tree(tree).get(key)?.map(|value| value.to_vec())))
    }

    /// Returns the first `most` pairs of a range, by key. Stops at the first error, which sled would repeat for ever.
    pub(super) fn scan(
        &self,
        tree: Tree,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        most: usize,
    ) -> Result<Vec<Pair>, String> {
        self.with(|opened| {
            let pairs = opened.tree(tree).range::<&[u8], _>(range).take(most);
            pairs.map(|pair| pair.map(|(key, value)| (key.to_vec(), value.to_vec()))).collect()
        })
    }

    /// Whether it is open: not closed, nor waiting for a disk on which it can be opened again.
    pub(super) fn is_open(&self) -> bool {
        self.opened.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Runs `work`, turning panics into errors: sled panics if a file is not as it expects.
    fn with<T>(&self, work: impl FnOnce(&Opened) -> sled::Result<T>) -> Result<T, String> {
        let guard: RwLockReadGuard<'_, _> = self.opened.read().unwrap_or_else(PoisonError::into_inner);
        let opened = guard.as_ref().ok_or("the database is closed")?;
        caught(|| work(opened))
    }
}

impl Opened {
    fn tree(&self, tree: Tree) -> &sled::Tree {
        match tree {
            Tree::Attempts => &self.attempts,
            Tree::Relayed => &self.relayed,
            Tree::Blocks => &self.blocks,
            Tree::Probations => &self.probations,
            Tree::Lifted => &self.lifted,
            Tree::Meta => &self.meta,
        }
    }
}

enum Found {
    /// The database, and whether it is fresh.
    Ours(Opened, bool),
    Newer(u32),
}

/// Why a database does not open.
struct Fault {
    cause: String,
    /// Whether the fault may pass: nothing is wrong with its files.
    passing: bool,
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        use rustix::io::Errno;
        const PASSING: [Errno; 12] = [
            Errno::NOSPC,
            Errno::DQUOT,
            Errno::FBIG,
            Errno::MFILE,
            Errno::NFILE,
            Errno::ACCESS,
            Errno::PERM,
            Errno::ROFS,
            Errno::NOMEM,
            Errno::AGAIN,
            Errno::INTR,
            Errno::BUSY,
        ];
        let cause = error.to_string();
        let passing = match error.raw_os_error() {
            Some(code) => PASSING.iter().any(|errno| errno.raw_os_error() == code),
            // The code is only in sled's text.
            None => cause.contains("could not acquire lock"),
        };
        Self { cause, passing }
    }
}

/// Whether so little of the disk is free that this explains any trouble: sled panics then, too.
fn is_full(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|found| found.f_bavail.saturating_mul(found.f_frsize) < LEAST_FREE)
}

fn open(path: &Path) -> Result<Found, Fault> {
    heal(path)?;
    let found = caught_as(
        |error| match error {
            sled::Error::Io(error) => error.into(),
            error => Fault { cause: error.to_string(), passing: false },
        },
        |cause| Fault { cause, passing: false },
        || {
            let config = sled::Config::new()
                .path(path)
                .cache_capacity(CACHE)
                .flush_every_ms(u64::try_from(FLUSH_EVERY.as_millis()).ok())
                .mode(sled::Mode::LowSpace);
            let db = config.open()?;
            let file = File::open(path.join("db"))?;
            let meta = db.open_tree("meta")?;
            let version = meta.get(SCHEMA_KEY)?;
            let fresh = version.is_none();
            let version = version.and_then(|value| <[u8; 4]>::try_from(value.as_ref()).ok());
            match version.map(u32::from_be_bytes) {
                Some(version) if version > SCHEMA => return Ok(Found::Newer(version)),
                None if !fresh => return Err(sled::Error::ReportableBug("its version does not read".into())),
                _ => {}
            }
            let opened = Opened {
                attempts: db.open_tree("attempts")?,
                relayed: db.open_tree("relayed")?,
                blocks: db.open_tree("blocks")?,
                probations: db.open_tree("probations")?,
                lifted: db.open_tree("lifted")?,
                meta,
                file,
                db,
            };
            opened.db.flush()?;
            opened.file.sync_all()?;
            Ok(Found::Ours(opened, fresh))
        },
    )?;
    // Syncing the folder makes the names of new files durable.
    Folder::open(path).and_then(|folder| folder.sync()).map_err(|error| Fault::from(error.cause))?;
    Ok(found)
}

/// Removes what a kill during an open left behind, which sled would take for its newest snapshot (sled#1533).
fn heal(path: &Path) -> std::io::Result<()> {
    for file in std::fs::read_dir(path)? {
        let file = file?;
        let name = file.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            std::fs::remove_file(file.path())?;
        }
    }
    Ok(())
}

fn caught<T>(work: impl FnOnce() -> sled::Result<T>) -> Result<T, String> {
    caught_as(|error| error.to_string(), |panic| panic, work)
}

fn caught_as<T, E>(
    failed: impl FnOnce(sled::Error) -> E,
    panicked: impl FnOnce(String) -> E,
    work: impl FnOnce() -> sled::Result<T>,
) -> Result<T, E> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(outcome) => outcome.map_err(failed),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(panicked(text.unwrap_or("sled panicked").to_owned()))
        }
    }
}

/// Drops a database; returns whether sled released its file in time. Runs on a thread of its own, since sled waits for ever for
/// its threads if they have died.
fn let_go(opened: Opened) -> bool {
    let (done, gone) = mpsc::channel();
    let spawned = std::thread::Builder::new().name("ledger-close".into()).spawn(move || {
        let Opened { db, attempts, relayed, blocks, probations, lifted, meta, file } = opened;
        let _ = catch_unwind(AssertUnwindSafe(|| {
            drop((attempts, relayed, blocks, probations, lifted, meta, db));
        }));
        // A task of sled may still hold the file for a moment, and with it the lock that the next open needs.
        let _ = flock(&file, FlockOperation::LockExclusive);
        unlock(&file);
        let _ = done.send(());
    });
    spawned.is_ok() && gone.recv_timeout(CLOSE_TIMEOUT).is_ok()
}

/// Explicit, since closing the file is not enough: a child process between fork and exec has it too.
fn unlock(file: &File) {
    let _ = flock(file, FlockOperation::Unlock);
}

/// Takes the lock file. Waits a moment, since the holder may be about to release it: a process that is ending, or a child
/// before its exec.
fn lock(path: &Path, broken: &dyn Fn(String) -> LedgerError) -> Result<File, LedgerError> {
    let failed = |error: std::io::Error| broken(format!("{}: {error}", path.display()));
    let options = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).clone();
    let mut file = options.open(path).map_err(failed)?;
    match durable::lock_within(&file, FlockOperation::NonBlockingLockExclusive, LOCK_WAIT) {
        Ok(()) => {
            file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
            Ok(file)
        }
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let _ = file.take(32).read_to_string(&mut text);
            Err(LedgerError::InUse { path: path.display().to_string(), pid: text.trim().parse().ok() })
        }
        Err(error) => Err(failed(error.into())),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Whether sled by itself opens a database.
    pub(in super::super) fn sled_opens(path: &Path) -> Result<(), String> {
        caught(|| sled::open(path).map(drop))
    }
}
