//! Hands a data directory that belongs to root to the user that Gatepost is about to become.
//!
//! Runs as root; the new owner must have no influence on what it does. A folder that already belongs to that user is
//! left alone, since he may have put anything there; one with contents that is no data directory is refused. In others,
//! what Gatepost made is given, each file checked and given by its descriptor, never by a path that could mean another
//! file by then. Links are not followed; files with a second name, and mounts, keep their owner. A folder is given after
//! its contents.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, fstat, openat};

use super::DataDir;
use crate::durable;

/// The new owner.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub(super) user: u32,
    pub(super) group: u32,
}

/// Creates the data directory if it is missing, and gives it and what is ours in it to `owner`, unless it is his already, or is
/// in a place where he could exchange it.
///
/// # Errors
/// It is no data directory, and not empty either: says what to do. Or a step failed.
pub(super) fn give(folder: &Path, owner: Owner) -> io::Result<()> {
    if steered(folder, owner)? {
        return Ok(()); // he makes and has it himself, or is told to at the next step
    }
    durable::create_folder(folder).map_err(io::Error::other)?;
    let (fd, about) = open(folder)?;
    if about.st_uid == owner.user {
        return Ok(());
    }
    match DataDir::stranger(&fd)? {
        Some(name) => Err(io::Error::other(not_ours(&name))),
        None => give_folder(&fd, &about, owner, DataDir::is_ours),
    }
}

/// Says why [`give`] would refuse a folder that exists, if it would.
pub(super) fn refusal(folder: &Path, owner: Owner) -> Option<String> {
    if steered(folder, owner).ok()? {
        return None;
    }
    let (fd, about) = open(folder).ok()?;
    if about.st_uid == owner.user {
        return None;
    }
    DataDir::stranger(&fd).ok()?.map(|name| not_ours(&name))
}

fn not_ours(name: &str) -> String {
    format!(
        "it holds `{name}`, and nothing that shows that it is Gatepost's; set data_dir to a folder that is empty or does not exist \
         yet, or, if nothing else uses this one, make that user its owner"
    )
}

/// The directory itself may be a link made by the administrator.
fn open(folder: &Path) -> io::Result<(OwnedFd, Stat)> {
    let fd = openat(CWD, folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let about = fstat(&fd)?;
    Ok((fd, about))
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

/// Gives a folder and those of its contents whose names are `wanted`, with all that is below them.
fn give_folder(fd: &OwnedFd, about: &Stat, owner: Owner, wanted: fn(&[u8]) -> bool) -> io::Result<()> {
    for entry in Dir::read_from(fd)? {
        let entry = entry?;
        let name = entry.file_name();
        if [&b"."[..], b".."].contains(&name.to_bytes()) || !wanted(name.to_bytes()) {
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
                give_folder(&openat(&child, ".", flags, Mode::empty())?, &found, owner, |_| true)?;
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
        let ours =
            ["gatepost.lock", "secret", "audit-pending-1", "quarantine/version", "quarantine/1.message"];
        for file in ours.map(|name| data.join(name)).into_iter().chain([precious.join("shadow")]) {
            std::fs::write(file, "x").unwrap();
        }
        std::fs::create_dir(data.join("certs")).unwrap();
        std::fs::write(data.join("certs/server.key"), "x").unwrap();
        symlink(precious.join("shadow"), data.join("link")).unwrap();
        symlink(&precious, data.join("outbox")).unwrap();
        std::fs::hard_link(precious.join("shadow"), data.join("digests")).unwrap();
        give(&data, NOBODY).unwrap();
        for given in ["", "quarantine"].into_iter().chain(ours) {
            assert_eq!(owner(&data.join(given)), NOBODY.user, "{given}");
        }
        for kept in ["digests", "certs", "certs/server.key"] {
            assert_eq!(owner(&data.join(kept)), 0, "{kept}");
        }
        for kept in ["", "shadow"] {
            assert_eq!(owner(&precious.join(kept)), 0, "{kept}");
        }
    }

    #[test]
    #[ignore = "needs root: tests/run runs it"]
    fn what_is_not_ours_is_refused_whole() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("shared");
        std::fs::create_dir_all(folder.join("projects")).unwrap();
        let refused = give(&folder, NOBODY).unwrap_err().to_string();
        assert!(refused.starts_with("it holds `projects`") && refused.contains("set data_dir"), "{refused}");
        assert_eq!(refusal(&folder, NOBODY).as_ref(), Some(&refused));
        assert_eq!((owner(&folder), owner(&folder.join("projects"))), (0, 0));
        // What it says does it.
        chown(&folder, Some(NOBODY.user), None).unwrap();
        give(&folder, NOBODY).unwrap();
        assert_eq!((refusal(&folder, NOBODY), owner(&folder.join("projects"))), (None, 0));
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
        std::fs::write(data.join("gatepost.lock"), "").unwrap();
        chown(&data, Some(0), Some(0)).unwrap();
        symlink(&data, home.path().join("var")).unwrap();
        give(&home.path().join("var"), NOBODY).unwrap();
        assert_eq!(owner(&data), NOBODY.user);
    }
}
