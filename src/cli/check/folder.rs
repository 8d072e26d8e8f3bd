//! Facts about the data folder: it is tried out the way `serve` will use it, and left as it was.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};

use crate::control::Actor;
use crate::durable::{DurableError, Folder, TEMP_PREFIX};
use crate::server::{CHECK_MARK, DataDir};

/// Something in the data folder with the wrong owner.
pub(super) struct Foreign {
    pub(super) path: PathBuf,
    pub(super) owner: String,
    /// The owner of the data folder.
    pub(super) expected: String,
}

/// Why the data folder cannot be created, written to or locked by us.
pub(super) fn unusable(data_dir: &Path) -> Option<String> {
    let missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    // Innermost first.
    let missing: Vec<&Path> = data_dir.ancestors().take_while(missing).collect();
    let tried = try_out(data_dir);
    for made in missing {
        // A folder that is in use by now stays.
        let _ = std::fs::remove_dir(made);
    }
    tried.err()
}

fn try_out(data_dir: &Path) -> Result<(), String> {
    write(data_dir).map_err(|error| error.to_string())?;
    lock(data_dir).map_err(|error| format!("a file in {} cannot be locked: {error}", data_dir.display()))?;
    DataDir::barred(data_dir).map_or(Ok(()), Err)
}

fn write(data_dir: &Path) -> Result<(), DurableError> {
    let mut file = Arc::new(Folder::create(data_dir)?).temporary()?;
    file.write(b"gatepost check")?;
    file.sync().map(drop)
}

/// Tests locking without the lock itself: a running `serve` holds that, and one created by root would lock `serve` out.
fn lock(data_dir: &Path) -> io::Result<()> {
    let name = data_dir.join(format!("{TEMP_PREFIX}{CHECK_MARK}{}", std::process::id()));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&name)?;
    let locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
    std::fs::remove_file(&name)?;
    Ok(locked?)
}

/// The first entry of the data folder with another owner than the folder; only root could use both.
pub(super) fn foreign(data_dir: &Path) -> Option<Foreign> {
    let expected = std::fs::metadata(data_dir).ok()?.uid();
    DataDir::contents(data_dir).find_map(|path| {
        let owner = path.symlink_metadata().ok()?.uid();
        (owner != expected).then(|| Foreign {
            path,
            owner: Actor::from_uid(owner).user,
            expected: Actor::from_uid(expected).user,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_is_left_as_it_was() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("file"), "").unwrap();
        std::fs::create_dir(home.path().join("there")).unwrap();
        for (path, expected) in [
            ("there", None),
            ("missing/below/it", None),
            ("file", Some("file: File exists")),
            ("file/below", Some("file: File exists")),
        ] {
            match (unusable(&home.path().join(path)), expected) {
                (None, None) => {}
                (Some(why), Some(part)) => assert!(why.contains(part), "{why}"),
                (found, _) => panic!("{path}: {found:?}"),
            }
        }
        // Nothing can be created there, not even by root.
        let why = unusable(Path::new("/proc/gatepost")).unwrap();
        assert!(why.starts_with("cannot create the folder /proc/gatepost: "), "{why}");
        let mut left: Vec<_> =
            std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["file", "there"]);
        assert_eq!(std::fs::read_dir(home.path().join("there")).unwrap().count(), 0);
    }

    #[test]
    fn all_is_its_owners() {
        let home = tempfile::tempdir().unwrap();
        drop(DataDir::take(home.path()).unwrap());
        assert!(foreign(home.path()).is_none());
        if std::os::unix::fs::chown(home.path(), Some(65_534), None).is_ok() {
            let foreign = foreign(home.path()).unwrap();
            assert_eq!((foreign.owner.as_str(), foreign.path), ("root", home.path().join("gatepost.lock")));
        }
    }
}
