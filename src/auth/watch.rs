//! Keeps the users in step with their file: one that has rested for a second is read again.
//!
//! Polled, not subscribed to: a `stat` twice a second works on every file system and for every way to replace a file.
//! A broken or empty version, or none, is reported once, and the users read before stay in force.

use std::future::pending;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Authenticator, Directory, UsersEvent, Version};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(400);
/// How long it must have been as it is, so that one that is just being written is not read by halves.
const REST: Duration = Duration::from_secs(1);

/// A file as `stat` sees it; every write and every replacement shows in it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Sight {
    place: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What a look came to: a sight, or why there was none.
type Look = Result<Sight, io::ErrorKind>;

impl Authenticator {
    /// Watches the users file for as long as it is polled: one that has rested for a second is read again.
    pub async fn watch(&self, changed: impl Fn(UsersEvent) + Send) {
        let Some(path) = self.shared.file.clone() else { return pending().await };
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut version = self.shared.current.load().version;
        // Not taken from the first reading: the file may have changed in the same tick of its clock. The version tells.
        let mut judged: Option<Look> = None;
        let mut resting: Option<(Look, Instant)> = None;
        loop {
            ticks.tick().await;
            let Ok(look) = blocking(&path, look).await else { continue };
            if judged == Some(look) {
                resting = None;
                continue;
            }
            let since = match resting {
                Some((same, since)) if same == look => since,
                _ => Instant::now(),
            };
            resting = Some((look, since));
            if since.elapsed() < REST {
                continue;
            }
            let authenticator = self.clone();
            let Ok((read, after)) =
                blocking(&path, move |path| (authenticator.read(path), self::look(path))).await
            else {
                continue;
            };
            if after != look {
                continue;
            }
            judged = Some(look);
            let (now, read) = read;
            if now != version {
                version = now;
                changed(match read {
                    Ok(directory) => self.replace(directory),
                    Err(problem) => {
                        UsersEvent::Refused(format!("{problem}; the users read before stay in force"))
                    }
                });
            }
        }
    }

    fn read(&self, path: &Path) -> (Version, Result<Directory, super::UsersError>) {
        let (version, read) = Directory::read(path, &self.shared.mechanisms);
        (version, read.and_then(|directory| directory.with_users(path)))
    }

    /// Puts new users in force.
    fn replace(&self, directory: Directory) -> UsersEvent {
        let directory = Arc::new(directory);
        let old = self.shared.current.swap(Arc::clone(&directory));
        UsersEvent::Reloaded { users: directory.users.len(), ended: old.users.ended(&directory.users) }
    }
}

async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(&Path) -> T + Send + 'static,
) -> Result<T, tokio::task::JoinError> {
    let path: PathBuf = path.into();
    spawn_blocking(move || work(&path)).await
}

fn look(path: &Path) -> Look {
    let seen = std::fs::metadata(path).map_err(|cause| cause.kind())?;
    Ok(Sight {
        place: (seen.dev(), seen.ino()),
        size: seen.size(),
        modified: (seen.mtime(), seen.mtime_nsec()),
        changed: (seen.ctime(), seen.ctime_nsec()),
    })
}
