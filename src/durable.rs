//! Write, fsync, rename, fsync the folder: the only place that makes files durable.
//!
//! A file is created under a temporary name in its own folder (mode 0600) and gets its name by one rename, so a name
//! always stands for complete content. Whoever renames or unlinks several files of a [`Folder`] calls [`Folder::sync`]
//! once after them all; concurrent calls share one fsync. Calls block: async callers make them on a blocking thread.
//! Every error names the step and the path. Leftovers of a crash begin with [`TEMP_PREFIX`].
//!
//! Also holds the one way in which files are locked ([`lock_within`]).

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RenameFlags, flock};
use rustix::io::Errno;

/// The prefix of temporary file names.
pub const TEMP_PREFIX: &str = ".new-";

/// The mode of files: only for Gatepost's own user.
const FILE_MODE: Mode = Mode::from_raw_mode(0o600);
/// The mode of folders, likewise.
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o700);
/// How many temporary names are tried, since a crashed predecessor with the same process id may have left some.
const NAMES_TRIED: usize = 100_000;
/// How often a lock that is held is tried again.
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {}: {cause}", path.display())]
pub struct DurableError {
    /// The operation, such as `fsync`.
    pub step: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// The operating system's error.
    #[source]
    pub cause: io::Error,
}

impl DurableError {
    fn new(step: &'static str, path: impl Into<PathBuf>, cause: impl Into<io::Error>) -> Self {
        Self { step, path: path.into(), cause: cause.into() }
    }

    /// Whether the disk, or the user's quota, is full.
    pub fn is_full(&self) -> bool {
        let code = self.cause.raw_os_error();
        [Errno::NOSPC, Errno::DQUOT].iter().any(|full| code == Some(full.raw_os_error()))
    }

    /// Whether a file or folder does not exist.
    pub fn is_missing(&self) -> bool {
        self.cause.kind() == io::ErrorKind::NotFound
    }
}

/// What happens to an existing file of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It is replaced.
    Replace,
    /// It is kept, and the step fails.
    Keep,
}

/// Locks a file by a non-blocking operation, which is repeated until `wait` has passed, since the holder may be about
/// to release the lock. It is tried at least once. Blocks the thread.
///
/// # Errors
/// `WOULDBLOCK`: the lock is held. Other errors: the system cannot lock the file.
pub fn lock_within(file: &File, operation: FlockOperation, wait: Duration) -> rustix::io::Result<()> {
    let deadline = Instant::now() + wait;
    loop {
        match flock(file, operation) {
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(LOCK_RETRY),
            outcome => return outcome,
        }
    }
}

/// Durably writes `content` to `path`, replacing an existing file.
///
/// # Errors
/// A step failed. The old file is still in place, unless the named step is the last (fsync of the folder).
pub fn write(path: &Path, content: &[u8]) -> Result<(), DurableError> {
    let (folder, name) = split(path)?;
    Arc::new(Folder::open(folder)?).write(name, content)
}

/// Durably removes the file at `path`; returns whether it existed.
///
/// # Errors
/// A step failed.
pub fn remove(path: &Path) -> Result<bool, DurableError> {
    let (folder, name) = split(path)?;
    Folder::open(folder)?.remove(name)
}

/// Durably creates a private folder (0700) and its missing parents. An existing folder is left as it is.
///
/// # Errors
/// A step failed, or the path is a file.
pub fn create_folder(path: &Path) -> Result<(), DurableError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() {
        // A predecessor may have been killed between mkdir and fsync. A parent that we may not open was not created by
        // us.
        if let Ok(parent) = Folder::open(parent) {
            let _ = parent.sync();
        }
        return Ok(());
    }
    if !parent.is_dir() {
        create_folder(parent)?;
    }
    match rustix::fs::mkdir(path, FOLDER_MODE) {
        Ok(()) => {}
        Err(Errno::EXIST) if path.is_dir() => {}
        Err(cause) => return Err(DurableError::new("create the folder", path, cause)),
    }
    Folder::open(parent)?.sync()
}

fn split(path: &Path) -> Result<(&Path, &OsStr), DurableError> {
    let name = path.file_name().ok_or_else(|| DurableError::new("use the name", path, Errno::INVAL))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((folder, name))
}

/// An open folder.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    fd: OwnedFd,
    rounds: Mutex<Rounds>,
    round_over: Condvar,
}

/// Counters of the fsyncs of one folder.
#[derive(Debug, Default)]
struct Rounds {
    begun: u64,
    over: u64,
    /// The last fsync that failed, and its error.
    failed: Option<(u64, Errno)>,
}

impl Folder {
    /// Opens an existing folder.
    ///
    /// # Errors
    /// The folder does not exist or may not be opened.
    pub fn open(path: &Path) -> Result<Self, DurableError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|cause| DurableError::new("open the folder", path, cause))?;
        Ok(Self { path: path.into(), fd, rounds: Mutex::default(), round_over: Condvar::new() })
    }

    /// Opens a folder, creating it if missing ([`create_folder`]).
    ///
    /// # Errors
    /// The folder could not be created or opened.
    pub fn create(path: &Path) -> Result<Self, DurableError> {
        create_folder(path)?;
        Self::open(path)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a regular file of the folder for reading, never through a symbolic link, which could lead elsewhere.
    ///
    /// # Errors
    /// There is no such file, it is something else (`EISDIR`, `ELOOP`, `ENXIO`), or it may not be read.
    pub fn read(&self, name: impl AsRef<OsStr>) -> Result<File, DurableError> {
        let path = self.child(name.as_ref())?;
        // Non-blocking, since nobody may ever write to a pipe of that name.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let failed = |cause: io::Error| DurableError::new("open", &path, cause);
        let file = File::from(
            rustix::fs::openat(&self.fd, name.as_ref(), flags, Mode::empty())
                .map_err(|cause| failed(cause.into()))?,
        );
        let kind = file.metadata().map_err(failed)?.file_type();
        match (kind.is_file(), kind.is_dir()) {
            (true, _) => Ok(file),
            (_, true) => Err(failed(Errno::ISDIR.into())),
            _ => Err(failed(Errno::NXIO.into())),
        }
    }

    /// Creates a temporary file.
    ///
    /// # Errors
    /// The file could not be created.
    pub fn temporary(self: &Arc<Self>) -> Result<Temporary, DurableError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let process = std::process::id();
        for _ in 0..NAMES_TRIED {
            let name = format!("{TEMP_PREFIX}{process}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
            match rustix::fs::openat(&self.fd, &name, flags, FILE_MODE) {
                Ok(fd) => {
                    return Ok(Temporary {
                        folder: Arc::clone(self),
                        file: File::from(fd),
                        name: Some(name),
                    });
                }
                Err(Errno::EXIST) => {}
                Err(cause) => return Err(DurableError::new("create a file in", &self.path, cause)),
            }
        }
        Err(DurableError::new("find a free temporary name in", &self.path, Errno::EXIST))
    }

    /// Durably writes a whole file, replacing one of the same name.
    ///
    /// # Errors
    /// As [`write()`].
    pub fn write(self: &Arc<Self>, name: impl AsRef<OsStr>, content: &[u8]) -> Result<(), DurableError> {
        let mut temporary = self.temporary()?;
        temporary.write(content)?;
        temporary.commit(name)
    }

    /// Unlinks a file; returns whether it existed. Durable only after [`Folder::sync`].
    ///
    /// # Errors
    /// The file could not be unlinked.
    pub fn unlink(&self, name: impl AsRef<OsStr>) -> Result<bool, DurableError> {
        let path = self.child(name.as_ref())?;
        match rustix::fs::unlinkat(&self.fd, name.as_ref(), AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(cause) => Err(DurableError::new("remove", path, cause)),
        }
    }

    /// Durably removes a file; returns whether it existed.
    ///
    /// # Errors
    /// A step failed.
    pub fn remove(&self, name: impl AsRef<OsStr>) -> Result<bool, DurableError> {
        let was_there = self.unlink(name)?;
        self.sync()?;
        Ok(was_there)
    }

    /// The names of the folder's entries, in no particular order.
    ///
    /// # Errors
    /// The folder could not be read completely.
    pub fn names(&self) -> Result<Vec<OsString>, DurableError> {
        std::fs::read_dir(&self.path)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.file_name())).collect())
            .map_err(|cause| DurableError::new("read the folder", &self.path, cause))
    }

    /// Removes what a crash left unfinished; returns the number of files. Only for the sole process that writes here,
    /// before it writes.
    ///
    /// # Errors
    /// A step failed.
    pub fn sweep(&self) -> Result<usize, DurableError> {
        let mut swept = 0;
        for name in self.names()? {
            if name.as_encoded_bytes().starts_with(TEMP_PREFIX.as_bytes()) {
                let gone = rustix::fs::unlinkat(&self.fd, &name, AtFlags::empty());
                gone.map_err(|cause| DurableError::new("remove", self.path.join(&name), cause))?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    /// Makes all renames and unlinks durable that were done before the call. Callers that arrive during an fsync share
    /// the next one.
    ///
    /// # Errors
    /// The fsync failed, or one shared with later callers did: renames may not survive a crash.
    pub fn sync(&self) -> Result<(), DurableError> {
        let mut rounds = self.lock();
        // An fsync already under way may not have seen the caller's changes.
        let mine = rounds.begun + 1;
        while rounds.over < mine {
            if rounds.begun > rounds.over {
                rounds = self.round_over.wait(rounds).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            rounds.begun += 1;
            drop(rounds);
            let outcome = rustix::fs::fsync(&self.fd);
            rounds = self.lock();
            rounds.over = rounds.begun;
            if let Err(cause) = outcome {
                rounds.failed = Some((rounds.over, cause));
            }
            self.round_over.notify_all();
        }
        match rounds.failed {
            Some((round, cause)) if round >= mine => {
                Err(DurableError::new("fsync the folder", &self.path, cause))
            }
            _ => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Rounds> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The path of `name`, which must be directly in this folder.
    fn child(&self, name: &OsStr) -> Result<PathBuf, DurableError> {
        let path = self.path.join(name);
        let octets = name.as_encoded_bytes();
        if path.file_name() == Some(name) && !octets.contains(&b'/') && !octets.contains(&0) {
            Ok(path)
        } else {
            Err(DurableError::new("use the name", path, Errno::INVAL))
        }
    }
}

/// A file without a name of its own yet. Dropping it removes it.
#[derive(Debug)]
pub struct Temporary {
    folder: Arc<Folder>,
    file: File,
    /// `None` once renamed.
    name: Option<String>,
}

impl Temporary {
    /// Appends octets.
    ///
    /// # Errors
    /// The octets could not be written; the file is useless from then on.
    pub fn write(&mut self, content: &[u8]) -> Result<(), DurableError> {
        self.file
            .write_all(content)
            .map_err(|cause| DurableError::new("write a file in", self.place(), cause))
    }

    /// Opens the file a second time, to read what was written even after it is gone. Both share one position, so read
    /// with explicit offsets.
    ///
    /// # Errors
    /// There are no more file descriptors.
    pub fn again(&self) -> Result<File, DurableError> {
        self.file.try_clone().map_err(|cause| DurableError::new("open a file in", self.place(), cause))
    }

    /// Takes over owner, group and mode of a file that this one will replace.
    ///
    /// # Errors
    /// Only root may change the owner; others may change the group to one of theirs. If the group has the rights that everybody
    /// has, that it stays ours is no error.
    pub fn take_after(&self, other: &std::fs::Metadata) -> Result<(), DurableError> {
        let failed = |cause| DurableError::new("keep owner and mode of a file in", self.place(), cause);
        self.own_as(other)?;
        let own = self.file.metadata().map_err(failed)?;
        let differ = (other.mode() >> 3 ^ other.mode()) & Mode::RWXO.as_raw_mode() != 0;
        if own.gid() != other.gid() && differ {
            return Err(DurableError::new("keep the group of a file in", self.place(), Errno::PERM));
        }
        // After the owner, so that nobody else ever has the rights meant for that owner.
        self.file.set_permissions(other.permissions()).map_err(failed)
    }

    /// Takes over the owner of `other`, and its group if we may: so far, the group has no rights. By file descriptor, since a
    /// name may refer to another file by then.
    ///
    /// # Errors
    /// Only root may change the owner.
    pub fn own_as(&self, other: &std::fs::Metadata) -> Result<(), DurableError> {
        let failed = |cause| DurableError::new("keep the owner of a file in", self.place(), cause);
        let own = self.file.metadata().map_err(failed)?;
        if (own.uid(), own.gid()) == (other.uid(), other.gid()) {
            return Ok(());
        }
        match fchown(&self.file, Some(other.uid()), Some(other.gid())) {
            Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied && own.uid() == other.uid() => {
                Ok(())
            }
            done => done.map_err(failed),
        }
    }

    /// Writes the content to disk, after which the file may be renamed.
    ///
    /// # Errors
    /// The fsync failed. It is not repeated, since the kernel may have dropped what it could not write.
    pub fn sync(self) -> Result<Synced, DurableError> {
        match self.file.sync_all() {
            Ok(()) => Ok(Synced(self)),
            Err(cause) => Err(DurableError::new("fsync a file in", self.place(), cause)),
        }
    }

    /// Durably writes the content and gives the file its name, replacing one of that name.
    ///
    /// # Errors
    /// As [`write()`].
    pub fn commit(self, name: impl AsRef<OsStr>) -> Result<(), DurableError> {
        let folder = Arc::clone(&self.folder);
        self.sync()?.rename(name, Existing::Replace)?;
        folder.sync()
    }

    /// The path for errors: the folder's, since the temporary name differs each time and says nothing.
    fn place(&self) -> &Path {
        &self.folder.path
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // A file that cannot be removed goes at the next start.
            let _ = rustix::fs::unlinkat(&self.folder.fd, name, AtFlags::empty());
        }
    }
}

/// A temporary file whose content is on disk. Dropping it removes it.
#[derive(Debug)]
pub struct Synced(Temporary);

impl Synced {
    /// Renames the file. Durable only after [`Folder::sync`].
    ///
    /// # Errors
    /// The file could not be renamed and is gone.
    pub fn rename(mut self, name: impl AsRef<OsStr>, existing: Existing) -> Result<(), DurableError> {
        let target = self.0.folder.child(name.as_ref())?;
        let fd = &self.0.folder.fd;
        let from = self.0.name.as_deref().unwrap_or_default();
        match existing {
            Existing::Replace => rustix::fs::renameat(fd, from, fd, name.as_ref()),
            Existing::Keep => rename_to_new(fd, from, name.as_ref()),
        }
        .map_err(|cause| DurableError::new("rename a temporary file to", target, cause))?;
        self.0.name = None;
        Ok(())
    }
}

fn rename_to_new(fd: &OwnedFd, from: &str, to: &OsStr) -> Result<(), Errno> {
    match rustix::fs::renameat_with(fd, from, fd, to, RenameFlags::NOREPLACE) {
        // Not every file system supports the flag (NFS does not); a hard link never replaces a file either.
        Err(Errno::INVAL | Errno::NOSYS) => {
            rustix::fs::linkat(fd, from, fd, to, AtFlags::empty())?;
            rustix::fs::unlinkat(fd, from, AtFlags::empty())
        }
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn names(folder: &Folder) -> Vec<String> {
        let mut names: Vec<_> =
            folder.names().unwrap().into_iter().map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn folders_and_files_are_private_and_whole() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/b/c");
        let folder = Arc::new(Folder::create(&path).unwrap());
        Folder::create(&path).unwrap();
        folder.write("file", b"old").unwrap();
        write(&path.join("file"), b"new").unwrap();
        assert_eq!(std::fs::read(path.join("file")).unwrap(), b"new");
        assert_eq!(names(&folder), ["file"]);
        assert_eq!(
            [mode(&path.join("file")), mode(&path), mode(&home.path().join("a"))],
            [0o600, 0o700, 0o700]
        );
        assert!(remove(&path.join("file")).unwrap());
        assert!(!remove(&path.join("file")).unwrap());
        assert_eq!(names(&folder), [""; 0]);
    }

    #[test]
    fn nothing_is_seen_before_the_rename_and_a_dropped_file_is_gone() {
        let home = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::open(home.path()).unwrap());
        let mut kept = folder.temporary().unwrap();
        let dropped = folder.temporary().unwrap();
        kept.write(b"one ").unwrap();
        kept.write(b"two").unwrap();
        assert!(names(&folder).iter().all(|name| name.starts_with(TEMP_PREFIX)));
        drop(dropped);
        drop(folder.temporary().unwrap().sync().unwrap());
        assert_eq!(names(&folder).len(), 1);
        kept.commit("file").unwrap();
        assert_eq!(names(&folder), ["file"]);
        assert_eq!(std::fs::read(home.path().join("file")).unwrap(), b"one two");
    }

    #[test]
    fn keep_keeps_what_is_there() {
        let home = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::open(home.path()).unwrap());
        let put = |existing| folder.temporary().unwrap().sync().unwrap().rename("file", existing);
        put(Existing::Keep).unwrap();
        folder.write("file", b"first").unwrap();
        let error = put(Existing::Keep).unwrap_err();
        assert_eq!(error.cause.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(home.path().join("file")).unwrap(), b"first");
        put(Existing::Replace).unwrap();
        assert_eq!(std::fs::read(home.path().join("file")).unwrap(), b"");
        assert_eq!(names(&folder), ["file"]);
    }

    #[test]
    fn what_is_read_is_a_file_of_the_folder() {
        let home = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::open(home.path()).unwrap());
        folder.write("file", b"content").unwrap();
        std::fs::create_dir(home.path().join("folder")).unwrap();
        std::os::unix::fs::symlink("file", home.path().join("link")).unwrap();
        let pipe = home.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, FILE_MODE).unwrap();
        assert_eq!(io::read_to_string(folder.read("file").unwrap()).unwrap(), "content");
        for (name, expected) in [
            ("folder", Errno::ISDIR),
            ("link", Errno::LOOP),
            ("pipe", Errno::NXIO),
            ("missing", Errno::NOENT),
            ("../file", Errno::INVAL),
        ] {
            let error = folder.read(name).unwrap_err();
            assert_eq!(error.cause.raw_os_error(), Some(expected.raw_os_error()), "{error}");
        }
    }

    #[test]
    fn a_sweep_takes_the_temporary_files_alone() {
        let home = tempfile::tempdir().unwrap();
        for name in [".new-1-2", ".new-", ".news", "new-1-2", "file"] {
            std::fs::write(home.path().join(name), b"").unwrap();
        }
        let folder = Folder::open(home.path()).unwrap();
        assert_eq!(folder.sweep().unwrap(), 2);
        assert_eq!(names(&folder), [".news", "file", "new-1-2"]);
    }

    #[test]
    fn every_error_names_step_and_path_and_leaves_nothing_behind() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("folder")).unwrap();
        std::fs::write(home.path().join("file"), b"").unwrap();
        type Attempt = fn(&Path) -> Result<(), DurableError>;
        let attempts: [(Attempt, &str); 8] = [
            (|home| write(&home.join("missing/file"), b""), "cannot open the folder HOME/missing: No such"),
            (|home| write(&home.join("file/file"), b""), "cannot open the folder HOME/file: Not a directory"),
            (
                |home| write(&home.join("folder"), b""),
                "cannot rename a temporary file to HOME/folder: Is a dir",
            ),
            (|home| remove(&home.join("folder")).map(drop), "cannot remove HOME/folder: Is a directory"),
            (|home| write(&home.join(".."), b""), "cannot use the name HOME/..: Invalid"),
            (|home| create_folder(&home.join("file")), "cannot create the folder HOME/file: File exists"),
            (|home| create_folder(&home.join("file/a/b")), "cannot create the folder HOME/file: File exists"),
            (|home| Folder::open(home)?.unlink("a/b").map(drop), "cannot use the name HOME/a/b: Invalid"),
        ];
        for (attempt, expected) in attempts {
            let told = attempt(home.path()).unwrap_err().to_string();
            let told = told.replace(home.path().to_str().unwrap(), "HOME");
            assert!(told.starts_with(expected), "{told}");
        }
        assert_eq!(names(&Folder::open(home.path()).unwrap()), ["file", "folder"]);
    }

    #[test]
    fn a_folder_in_which_nothing_can_be_made() {
        // No file can be created there, not even by root.
        let folder = Arc::new(Folder::open(Path::new("/proc/self")).unwrap());
        let error = folder.write("file", b"").unwrap_err();
        assert_eq!((error.step, error.is_full()), ("create a file in", false));
        // A repeated failure is reported once, if its text stays the same.
        assert_eq!(folder.write("file", b"").unwrap_err().to_string(), error.to_string());
    }

    #[test]
    fn a_full_device_is_told_apart() {
        let error = DurableError::new("write", "/", Errno::NOSPC);
        assert!(error.is_full());
        let file = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let folder = Arc::new(Folder::open(Path::new("/dev")).unwrap());
        let mut temporary = Temporary { folder, file, name: None };
        let error = temporary.write(b"x").unwrap_err();
        assert_eq!((error.step, error.is_full()), ("write a file in", true));
    }

    #[test]
    fn those_who_come_during_an_fsync_share_the_next() {
        let home = tempfile::tempdir().unwrap();
        let folder = Folder::open(home.path()).unwrap();
        folder.lock().begun = 1; // one is under way
        let (threads, arrived, returned) = (8, AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    arrived.fetch_add(1, Ordering::SeqCst);
                    folder.sync().unwrap();
                    returned.fetch_add(1, Ordering::SeqCst);
                });
            }
            while arrived.load(Ordering::SeqCst) < threads {
                std::thread::yield_now();
            }
            assert_eq!(
                returned.load(Ordering::SeqCst),
                0,
                "the one under way may have begun too early for them"
            );
            folder.lock().over = 1;
            folder.round_over.notify_all();
        });
        let rounds = folder.lock();
        assert_eq!(rounds.begun, rounds.over);
        assert!((2..1 + threads).contains(&rounds.over), "{}", rounds.over);
    }

    #[test]
    fn a_failed_round_fails_those_who_waited_for_it_and_nobody_later() {
        // fsync of a folder in /proc is refused.
        let folder = Folder::open(Path::new("/proc/self")).unwrap();
        for _ in 0..2 {
            let error = folder.sync().unwrap_err();
            assert_eq!(error.step, "fsync the folder");
        }
        folder.lock().failed = None;
        folder.lock().over = 7;
        folder.lock().begun = 7;
        let home = tempfile::tempdir().unwrap();
        let folder = Folder { fd: Folder::open(home.path()).unwrap().fd, ..folder };
        folder.lock().failed = Some((7, Errno::IO));
        folder.sync().unwrap();
    }
}
