//! The data directory: private, ours alone while we run, with the secret that outlives restarts.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, FlockOperation, flock};
use rustix::io::Errno;

use super::ServerError;
use crate::control::Actor;
use crate::durable;

/// Locked by the process that has the data directory.
const LOCK: &str = "gatepost.lock";
/// What is in it that must be ours, and that another user who ran a command here would have made his.
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

/// A data directory that no other process uses. Dropping it lets go.
pub struct DataDir {
    path: PathBuf,
    /// Locked for as long as it is open.
    _lock: File,
}

impl DataDir {
    /// Makes it where it is not (mode 0700), and takes it.
    ///
    /// # Errors
    /// It cannot be made; something in it belongs to another user; or another process has it: then the error names that.
    pub fn take(path: &Path) -> Result<Self, ServerError> {
        durable::create_folder(path).map_err(|error| {
            ServerError(format!(
                "{error}; create the data directory and give it to Gatepost's user, or set data_dir"
            ))
        })?;
        if let Some(barred) = Self::barred(path) {
            return Err(ServerError(barred));
        }
        let name = path.join(LOCK);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&name)
            .map_err(|error| {
                ServerError(format!(
                    "{}: {error}; give the data directory to Gatepost's user, or set another data_dir",
                    name.display()
                ))
            })?;
        if let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            if error != Errno::WOULDBLOCK {
                return Err(ServerError(format!(
                    "{} cannot be locked: {error}; set a data_dir on a file system of this machine",
                    name.display()
                )));
            }
            let mut holder = String::new();
            let _ = lock.read_to_string(&mut holder);
            let holder = if holder.trim().is_empty() {
                "another process".to_owned()
            } else {
                format!("process {}", holder.trim())
            };
            return Err(ServerError(format!(
                "{} is in use by {holder}; stop it first, or set another data_dir",
                path.display()
            )));
        }
        let noted = lock
            .set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()));
        noted.map_err(|error| ServerError(format!("{}: {error}", name.display())))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// What is in a data directory, as far as it is there.
    pub fn contents(path: &Path) -> impl Iterator<Item = PathBuf> {
        CONTENTS.iter().map(|name| path.join(name)).filter(|path| path.symlink_metadata().is_ok())
    }

    /// What of a data directory we may not use, whose it is, and what to do.
    pub fn barred(path: &Path) -> Option<String> {
        std::iter::once(path.to_owned()).chain(Self::contents(path)).find_map(|found| {
            let metadata = std::fs::metadata(&found).ok()?;
            let search = if metadata.is_dir() { Access::EXEC_OK } else { Access::empty() };
            let error = rustix::fs::access(&found, Access::READ_OK | Access::WRITE_OK | search).err()?;
            let (owner, we) = (Actor::from_uid(metadata.uid()).user, Actor::current().user);
            // Where the folder itself is another's, it may be we who are wrong.
            let other_user =
                if found == path { format!("run Gatepost as `{owner}`, or: ") } else { String::new() };
            Some(format!(
                "{}: {} for `{we}`, since it is `{owner}`'s; {other_user}chown -R {we} {}",
                found.display(),
                std::io::Error::from(error),
                path.display()
            ))
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// 32 random octets, the same over restarts: what decoys for unknown users are made of.
    ///
    /// # Errors
    /// It cannot be read, is not 32 octets long, or cannot be made.
    pub fn secret(&self) -> Result<[u8; 32], ServerError> {
        let path = self.path.join("secret");
        match std::fs::read(&path) {
            Ok(octets) => octets.try_into().map_err(|_| {
                ServerError(format!(
                    "{} does not hold 32 octets; remove it, and a fresh one is made",
                    path.display()
                ))
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut secret = [0; 32];
                getrandom::fill(&mut secret).map_err(|error| {
                    ServerError(format!("the operating system has no random numbers: {error}"))
                })?;
                durable::write(&path, &secret).map_err(ServerError::from)?;
                Ok(secret)
            }
            Err(error) => {
                Err(ServerError(format!("{}: {error}; let Gatepost's user read it", path.display())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time_and_one_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let first = DataDir::take(&path).expect("free");
        let secret = first.secret().expect("made");
        let Err(error) = DataDir::take(&path) else { panic!("taken twice") };
        assert!(error.to_string().contains(&format!("in use by process {}", std::process::id())), "{error}");
        drop(first);
        assert_eq!(DataDir::take(&path).expect("free again").secret().expect("kept"), secret);
        std::fs::write(path.join("secret"), b"short").unwrap();
        assert!(DataDir::take(&path).expect("free").secret().is_err());
    }
}
