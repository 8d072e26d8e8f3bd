//! The data directory: private, used by one process at a time, with a secret that survives restarts.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, AtFlags, Dir, FlockOperation, OFlags, statat};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::ServerError;
use crate::control::{Actor, audit, socket};
use crate::durable::{self, TEMP_PREFIX};
use crate::visible::{shell_word, unreadable};

/// The file locked by the process that has the data directory.
const LOCK: &str = "gatepost.lock";
/// Precedes the process id in the name of a file that `check` writes to test the directory.
pub const CHECK_MARK: &str = "check-";
/// How many octets of the lock are read: more than a process id and its newline take.
const PID_OCTETS: u64 = 16;
/// How long to wait for a command that only looks into it, or a predecessor that is about to end.
const WAIT: Duration = Duration::from_secs(5);
/// The contents that must be ours; a command run by another user would have created them as that user's.
const CONTENTS: [&str; 12] = [
    LOCK,
    "secret",
    "webhook-secret",
    "ledger",
    "ledger/db",
    "ledger/conf",
    "ledger.lock",
    "blocked",
    "quarantine",
    "quarantine/lock",
    "outbox",
    "digests",
];
/// How the names of what else may be in it begin.
const BEGINNINGS: [&str; 6] =
    [socket::NAME, socket::TEMPORARY, audit::PENDING, TEMP_PREFIX, "ledger.broken", "ledger.recovered"];
/// What tells a data directory from any other folder: every start makes the first, and a quarantine that was brought back from
/// a backup has the second.
const MARKS: [&str; 2] = [LOCK, "quarantine/version"];
/// How the names begin of what may be in one before the first start: what an empty file system has, and what `check` and
/// `user add` leave.
const BEFORE: [&str; 3] = ["lost+found", TEMP_PREFIX, audit::PENDING];

/// A data directory that no other process uses, until this is dropped.
pub struct DataDir {
    path: PathBuf,
    /// Locked while it is open.
    _lock: File,
}

impl DataDir {
    /// Creates the directory if it is missing (mode 0700), and takes it; blocks for some seconds if another process has it.
    ///
    /// # Errors
    /// It cannot be created, something in it belongs to another user, or another process keeps it: then the error names that
    /// process.
    pub fn take(path: &Path) -> Result<Self, ServerError> {
        Self::take_within(path, WAIT)
    }

    fn take_within(path: &Path, wait: Duration) -> Result<Self, ServerError> {
        durable::create_folder(path).map_err(|error| {
            ServerError(format!(
                "{error}; create the data directory and give it to Gatepost's user, or set data_dir"
            ))
        })?;
        if let Some(barred) = Self::barred(path) {
            return Err(ServerError(barred));
        }
        let name = path.join(LOCK);
        // Never through a link, since it is written to.
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&name)
            .map_err(|error| {
                ServerError(format!(
                    "{}: {error}; give the data directory to Gatepost's user, or set another data_dir",
                    name.display()
                ))
            })?;
        if let Err(error) = durable::lock_within(&lock, FlockOperation::NonBlockingLockExclusive, wait) {
            if error != Errno::WOULDBLOCK {
                return Err(ServerError(format!(
                    "{} cannot be locked: {error}; set a data_dir on a file system of this machine",
                    name.display()
                )));
            }
            return Err(used_by(path, &mut lock));
        }
        let noted = lock
            .set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()));
        noted.map_err(|error| ServerError(format!("{}: {error}", name.display())))?;
        sweep(path);
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Returns the error that names the process that keeps it, if there is one; blocks as [`Self::take`] does. Opens only the
    /// lock, and only for reading, so that root may look into another user's folder.
    pub fn in_use(path: &Path) -> Option<ServerError> {
        Self::in_use_for(path, WAIT)
    }

    fn in_use_for(path: &Path, wait: Duration) -> Option<ServerError> {
        let mut lock = durable::Folder::open(path).ok()?.read(LOCK).ok()?;
        let busy = durable::lock_within(&lock, FlockOperation::NonBlockingLockShared, wait)
            == Err(Errno::WOULDBLOCK);
        busy.then(|| used_by(path, &mut lock))
    }

    /// Returns the paths of a data directory's contents that exist.
    pub fn contents(path: &Path) -> impl Iterator<Item = PathBuf> {
        CONTENTS.iter().map(|name| path.join(name)).filter(|path| path.symlink_metadata().is_ok())
    }

    /// Whether something by this name, at the top of a data directory, is ours.
    pub(super) fn is_ours(name: &[u8]) -> bool {
        CONTENTS.iter().any(|known| known.as_bytes() == name)
            || BEGINNINGS.iter().any(|begin| name.starts_with(begin.as_bytes()))
    }

    /// Returns the name of something in an open folder that is no data directory, and is not empty either.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(super) fn stranger(folder: impl AsFd) -> io::Result<Option<String>> {
        let marked = |mark| statat(&folder, mark, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        if MARKS.into_iter().any(marked) {
            return Ok(None);
        }
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            let none = [&b"."[..], b".."].contains(&name);
            if !none && !BEFORE.iter().any(|begin| name.starts_with(begin.as_bytes())) {
                return Ok(Some(String::from_utf8_lossy(name).into_owned()));
            }
        }
        Ok(None)
    }

    /// Returns the name of something in a folder that is no data directory, and is not empty either; `None` also if the folder
    /// cannot be read.
    pub fn stranger_in(path: &Path) -> Option<String> {
        Self::stranger(File::open(path).ok()?).ok()?
    }

    /// Says what in a data directory we may not use, whose it is, and what to do.
    pub fn barred(path: &Path) -> Option<String> {
        std::iter::once(path.to_owned()).chain(Self::contents(path)).find_map(|found| {
            let metadata = std::fs::metadata(&found).ok()?;
            let search = if metadata.is_dir() { Access::EXEC_OK } else { Access::empty() };
            let error = rustix::fs::access(&found, Access::READ_OK | Access::WRITE_OK | search).err()?;
            let (owner, we) = (Actor::from_uid(metadata.uid()).user, Actor::current().user);
            let (shown, why) = (found.display(), io::Error::from(error));
            if error == Errno::ROFS {
                let cure = "mount it writable (under systemd: ReadWritePaths=), or set another data_dir";
                return Some(format!("{shown}: {why}; {cure}"));
            }
            if owner == we {
                let path = shell_word(&shown.to_string());
                return Some(format!("{shown}: {why} for `{we}`, whose it is; chmod u+rwX {path}"));
            }
            let cure = match Self::stranger_in(path) {
                Some(name) => {
                    format!("it holds `{name}`, so it is not Gatepost's; set data_dir to a folder of its own")
                }
                // If the folder itself belongs to another user, we may be the wrong one.
                None if found == path => format!(
                    "run Gatepost as `{owner}`, or, if nothing else uses this folder: chown -R {we} {}",
                    shell_word(&path.display().to_string())
                ),
                None => format!("chown -R {we} {}", shell_word(&path.display().to_string())),
            };
            Some(format!("{shown}: {why} for `{we}`, since it is `{owner}`'s; {cure}"))
        })
    }

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns 32 random octets, the same over restarts, from which decoys for unknown users are made.
    ///
    /// # Errors
    /// The secret cannot be read, is not 32 octets long, or cannot be created.
    pub fn secret(&self) -> Result<[u8; 32], ServerError> {
        let path = self.path.join("secret");
        match std::fs::read(&path) {
            Ok(octets) => octets.try_into().map_err(|_| {
                ServerError(format!(
                    "{} does not hold 32 octets; remove it, and a fresh one is made",
                    path.display()
                ))
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut secret = [0; 32];
                getrandom::fill(&mut secret).map_err(|error| {
                    ServerError(format!("the operating system has no random numbers: {error}"))
                })?;
                durable::write(&path, &secret).map_err(ServerError::from)?;
                Ok(secret)
            }
            Err(error) => Err(ServerError(unreadable(&path, &error))),
        }
    }
}

/// Removes what processes that are gone left half written; files of running ones, such as `check`, are still in use.
fn sweep(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(TEMP_PREFIX)) else { continue };
        let is_number = |text: &&str| !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
        let counted = rest.split_once('-').filter(|(_, count)| is_number(count));
        let process = rest.strip_prefix(CHECK_MARK).or(counted.map(|(process, _)| process)).filter(is_number);
        let process = process.and_then(|process| process.parse().ok()).and_then(Pid::from_raw);
        if process.is_some_and(|process| test_kill_process(process) == Err(Errno::SRCH)) {
            // A file that cannot be removed does no harm.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Reads the holder's process id from the lock; anything else in it is not for the log.
fn used_by(path: &Path, lock: &mut File) -> ServerError {
    let mut holder = String::new();
    let _ = lock.take(PID_OCTETS).read_to_string(&mut holder);
    let holder = match holder.trim().parse::<u32>() {
        Ok(process) => format!("process {process}"),
        Err(_) => "another process".to_owned(),
    };
    ServerError(format!("{} is in use by {holder}; stop it first, or set another data_dir", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_dead_left_half_written_is_removed() {
        let home = tempfile::tempdir().unwrap();
        // No process has so high a number (proc_pid_max(5)).
        let (dead, living) = (i32::MAX, std::process::id());
        for name in
            [format!("{dead}-0"), format!("{CHECK_MARK}{dead}"), format!("{living}-1"), dead.to_string()]
        {
            std::fs::write(home.path().join(format!("{TEMP_PREFIX}{name}")), "").unwrap();
        }
        drop(DataDir::take(home.path()).unwrap());
        let mut left: Vec<_> =
            std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        let mut expected =
            [format!("{TEMP_PREFIX}{living}-1"), format!("{TEMP_PREFIX}{dead}"), LOCK.to_owned()];
        expected.sort();
        assert_eq!(left, expected.map(std::ffi::OsString::from));
    }

    #[test]
    fn one_process_at_a_time_and_one_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let first = DataDir::take(&path).expect("free");
        let secret = first.secret().expect("made");
        let Err(error) = DataDir::take_within(&path, Duration::ZERO) else { panic!("taken twice") };
        assert!(error.to_string().contains(&format!("in use by process {}", std::process::id())), "{error}");
        let told = DataDir::in_use_for(&path, Duration::ZERO).expect("taken").to_string();
        assert!(told.contains(&format!("in use by process {}", std::process::id())), "{told}");
        drop(first);
        assert!(DataDir::in_use(&path).is_none());
        assert_eq!(DataDir::take(&path).expect("free again").secret().expect("kept"), secret);
        std::fs::write(path.join("secret"), b"short").unwrap();
        assert!(DataDir::take(&path).expect("free").secret().is_err());
    }

    #[test]
    fn a_folder_is_ours_by_its_marks_or_empty() {
        for (contents, expected) in [
            (&[][..], None),
            // A file system of its own; a `check` that was killed; users were added.
            (&["lost+found/", ".new-check-7", "audit-pending-1"], None),
            (&["gatepost.lock", "ledger/db", "server.crt"], None),
            (&["quarantine/version", "quarantine/1.message", "notes"], None),
            (&["top.txt"], Some("top.txt")),
            (&["quarantine/mail"], Some("quarantine")),
            (&["gatepost.lock.old"], Some("gatepost.lock.old")),
        ] {
            let home = tempfile::tempdir().unwrap();
            for name in contents {
                let path = home.path().join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                match name.ends_with('/') {
                    true => std::fs::create_dir_all(path).unwrap(),
                    false => std::fs::write(path, "").unwrap(),
                }
            }
            assert_eq!(DataDir::stranger_in(home.path()).as_deref(), expected, "{contents:?}");
        }
        for (name, expected) in [
            ("ledger", true),
            ("ledger.broken-20260101T000000Z-2", true),
            ("audit-pending-7", true),
            (".new-7-1", true),
            ("ledgers", false),
            ("certs", false),
            (".git", false),
        ] {
            assert_eq!(DataDir::is_ours(name.as_bytes()), expected, "{name}");
        }
    }

    #[test]
    fn whoever_comes_next_waits_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        for look in [false, true] {
            let first = DataDir::take(&path).expect("free");
            let soon = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(100));
                drop(first);
            });
            if look {
                assert!(DataDir::in_use(&path).is_none(), "it was free in time");
            } else {
                DataDir::take(&path).expect("free in time");
            }
            soon.join().unwrap();
        }
    }

    #[test]
    fn a_lock_that_is_a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, precious) = (folder.path().join("data"), folder.path().join("precious"));
        std::fs::create_dir(&path).unwrap();
        std::fs::write(&precious, "content").unwrap();
        std::os::unix::fs::symlink(&precious, path.join(LOCK)).unwrap();
        assert!(DataDir::in_use(&path).is_none());
        let Err(error) = DataDir::take(&path) else { panic!("taken through a link") };
        assert!(error.to_string().contains(LOCK), "{error}");
        assert_eq!(std::fs::read(&precious).unwrap(), b"content");
    }
}
