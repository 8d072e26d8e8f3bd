//! Hands a data directory that belongs to root to the user that Gatepost is about to become.
//!
//! Runs as root; the new owner must have no influence on what it does. A folder that already belongs to that user is
//! left alone, since he may have put anything there. In others, each file is checked and given by its descriptor, never
//! by a path that could mean another file by then. Links are not followed; files with a second name, and mounts, keep
//! their owner. A folder is given after its contents.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, fstat, openat};

use crate::durable;

/// The new owner.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub(super) user: u32,
    pub(super) group: u32,
}

/// Creates the data directory if it is missing, and gives it and its contents to `owner`, unless it is his already, or is in a
/// place where he could exchange it.
pub(super) fn give(folder: &Path, owner: Owner) -> io::Result<()> {
    if steered(folder, owner)? {
        return Ok(()); // he makes and has it himself, or is told to at the next step
    }
    durable::create_folder(folder).map_err(io::Error::other)?;
    // The directory itself may be a link made by the administrator.
    let fd = openat(CWD, folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let about = fstat(&fd)?;
    if about.st_uid != owner.user {
        give_folder(&fd, &about, owner)?;
    }
    Ok(())
}

/// Whether `owner` may write to a folder on `path`, as written or as resolved.
fn steered(path: &Path, owner: Owner) -> io::Result<bool> {
    let written = std::path::absolute(path)?;
    let mut ways = vec![written.clone()];
    // What is missing will be created in the last folder that exists.
    ways.extend(written.ancestors().find_map(|above| above.canonicalize().ok()).map(|above| above.join("-")));
    ways.extend(written.canonicalize().ok());
    let above = |way: &PathBuf| way.ancestors().skip(1).map(Path::to_owned).collect::<Vec<_>>();
    Ok(ways.iter().flat_map(above).any(|folder| {
        folder.metadata().is_ok_and(|about| {
            let anybody = about.mode() & 0o002 != 0 && about.mode() & 0o1000 == 0;
            about.uid() == owner.user || anybody
        })
    }))
}

fn give_folder(fd: &OwnedFd, about: &Stat, owner: Owner) -> io::Result<()> {
    for entry in Dir::read_from(fd)? {
        let entry = entry?;
        let name = entry.file_name();
        if [&b"."[..], b".."].contains(&name.to_bytes()) {
            continue;
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let child = openat(fd, name, flags, Mode::empty())?;
        let found = fstat(&child)?;
        if found.st_uid == owner.user || found.st_dev != about.st_dev {
            continue;
        }
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                give_folder(&openat(&child, ".", flags, Mode::empty())?, &found, owner)?;
            }
            FileType::RegularFile | FileType::Socket if found.st_nlink == 1 => give_one(&child, owner)?,
            _ => {}
        }
    }
    give_one(fd, owner)
}

fn give_one(fd: &OwnedFd, owner: Owner) -> io::Result<()> {
    let (user, group) = (Uid::from_raw(owner.user), Gid::from_raw(owner.group));
    Ok(chownat(fd, "", Some(user), Some(group), AtFlags::EMPTY_PATH)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{chown, symlink};

    const NOBODY: Owner = Owner { user: 65_534, group: 65_534 };

    fn owner(path: &Path) -> u32 {
        path.symlink_metadata().unwrap().uid()
    }

    #[test]
    #[ignore = "needs root: tests/run runs it"]
    fn what_is_roots_is_given_and_nothing_that_a_name_leads_to() {
        let home = tempfile::tempdir().unwrap();
        let (data, precious) = (home.path().join("data"), home.path().join("precious"));
        std::fs::create_dir_all(data.join("quarantine")).unwrap();
        std::fs::create_dir(&precious).unwrap();
        for file in [data.join("secret"), data.join("quarantine/1.message"), precious.join("shadow")] {
            std::fs::write(file, "x").unwrap();
        }
        symlink(precious.join("shadow"), data.join("link")).unwrap();
        symlink(&precious, data.join("outbox")).unwrap();
        std::fs::hard_link(precious.join("shadow"), data.join("second-name")).unwrap();
        give(&data, NOBODY).unwrap();
        for given in ["", "secret", "quarantine", "quarantine/1.message"] {
            assert_eq!(owner(&data.join(given)), NOBODY.user, "{given}");
        }
        for kept in ["", "shadow"] {
            assert_eq!(owner(&precious.join(kept)), 0, "{kept}");
        }
        assert_eq!(owner(&data.join("second-name")), 0);
    }

    #[test]
    #[ignore = "needs root: tests/run runs it"]
    fn a_folder_that_is_the_users_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("data");
        give(&data, NOBODY).unwrap();
        assert_eq!(owner(&data), NOBODY.user, "made, and given");
        std::fs::write(data.join("planted"), "x").unwrap();
        give(&data, NOBODY).unwrap();
        assert_eq!(owner(&data.join("planted")), 0);
        // Nor one that he could have put in the place of another.
        let etc = home.path().join("etc");
        std::fs::create_dir(&etc).unwrap();
        symlink(&etc, data.join("inner")).unwrap();
        give(&data.join("inner"), NOBODY).unwrap();
        give(&data.join("missing"), NOBODY).unwrap();
        assert_eq!((owner(&etc), data.join("missing").exists()), (0, false));
        // The administrator's own link is followed.
        chown(&data, Some(0), Some(0)).unwrap();
        symlink(&data, home.path().join("var")).unwrap();
        give(&home.path().join("var"), NOBODY).unwrap();
        assert_eq!(owner(&data), NOBODY.user);
    }
}
