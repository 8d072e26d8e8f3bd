//! Small file systems of our own, in a mount namespace of our own.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

const INNER: &str = "GATEPOST_FAULTS_INNER";

/// Begins the test anew in a mount namespace of its own, if that can be had; whether this process is the one that is to run it.
pub(crate) fn enter(test: &str) -> bool {
    if std::env::var_os(INNER).is_some() {
        return true;
    }
    let root = rustix::process::geteuid().is_root();
    let how: &[&str] = if root { &["--mount"] } else { &["--mount", "--map-root-user"] };
    let probe = Command::new("unshare").args(how).args(["mount", "-t", "tmpfs", "tmpfs", "/mnt"]).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        // Not by println!, which the test harness keeps to itself when a test passes; tests/run repeats it at its end.
        let told = format!(
            "\nleft out: {test}: rounds with a full disk, since no file system can be mounted here\n"
        );
        std::io::stdout().write_all(told.as_bytes()).unwrap();
        return true;
    }
    let mut command = Command::new("unshare");
    command.args(how).arg(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--include-ignored"]).env(INNER, "1");
    assert!(command.status().unwrap().success(), "see above");
    false
}

/// Whether this process may mount.
pub(crate) fn can_mount() -> bool {
    std::env::var_os(INNER).is_some()
}

pub(crate) fn mount(place: &Path, mib: u64) {
    std::fs::create_dir_all(place).unwrap();
    let options = format!("size={mib}m,mode=700");
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(place).status();
    assert!(mount.unwrap().success());
}

/// A file that takes all that is free; gone when dropped.
pub(crate) struct Filler(PathBuf);

impl Filler {
    pub(crate) fn fill(place: &Path) -> Self {
        let path = place.join("filler");
        let file = std::fs::File::create(&path).unwrap();
        let free = rustix::fs::statvfs(place).unwrap();
        let mut size = free.f_bavail * free.f_frsize;
        let mut at = 0;
        while size >= 4096 {
            match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), at, size) {
                Ok(()) => at += size,
                Err(_) => size /= 2,
            }
        }
        Self(path)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
