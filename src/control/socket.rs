//! The control socket: a Unix socket in the data folder, mode 0600, by which the commands find a running `serve`.
//!
//! It is created under another name and renamed, so that it never has a wider mode under its own, and replaces one that
//! a killed predecessor left. The ledger's lock ensures that no other `serve` runs on the same data.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// Its name in the data folder.
pub const NAME: &str = "control.sock";

/// The name under which it is made.
pub const TEMPORARY: &str = ".control.sock.new";
/// The longest path that a socket's address holds (`sun_path`, less the terminating zero).
const MAX_PATH: usize = 107;

/// A listening socket.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    name: Name,
}

/// The name of a socket; dropping it removes the name.
#[derive(Debug)]
pub(super) struct Name(PathBuf);

impl ControlSocket {
    /// Listens in `data_dir`. Must be called within a runtime.
    ///
    /// # Errors
    /// The socket cannot be created there.
    pub fn bind(data_dir: &Path) -> io::Result<Self> {
        let temporary = data_dir.join(TEMPORARY);
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = with_short_path(data_dir, TEMPORARY, |path| UnixListener::bind(path))?;
        std::fs::set_permissions(&temporary, Permissions::from_mode(0o600))?;
        let path = data_dir.join(NAME);
        std::fs::rename(&temporary, &path)?;
        Ok(Self { listener, name: Name(path) })
    }

    /// Returns the listener, and its name, which must be kept as long as the listener.
    pub(super) fn into_parts(self) -> (UnixListener, Name) {
        (self.listener, self.name)
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // One that stays is replaced at the next start.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Connects to the `serve` that runs on `data_dir`; `None` if none runs.
///
/// # Errors
/// One may run but cannot be reached: mostly because it is another user's.
pub(super) async fn connect(data_dir: &Path) -> io::Result<Option<UnixStream>> {
    let connecting = with_short_path(data_dir, NAME, |path| std::os::unix::net::UnixStream::connect(path));
    match connecting {
        Ok(stream) => {
            stream.set_nonblocking(true)?;
            UnixStream::from_std(stream).map(Some)
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Calls `act` with a path to `name` in `folder` that fits into a socket address.
fn with_short_path<T>(folder: &Path, name: &str, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let path = folder.join(name);
    if path.as_os_str().len() <= MAX_PATH {
        return act(&path);
    }
    let folder = File::open(folder)?;
    act(&Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn found_while_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("x".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        for data_dir in [folder.path(), &deep] {
            assert!(connect(data_dir).await.unwrap().is_none(), "nothing there");
            let socket = ControlSocket::bind(data_dir).unwrap();
            let mode = std::fs::metadata(data_dir.join(NAME)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            assert!(connect(data_dir).await.unwrap().is_some());
            drop(socket);
            assert!(connect(data_dir).await.unwrap().is_none(), "gone");
        }
    }

    #[tokio::test]
    async fn one_that_was_left_behind_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        drop(std::os::unix::net::UnixListener::bind(folder.path().join(NAME)).unwrap());
        assert!(connect(folder.path()).await.unwrap().is_none(), "nobody listens any more");
        let _socket = ControlSocket::bind(folder.path()).unwrap();
        assert!(connect(folder.path()).await.unwrap().is_some());
    }
}
