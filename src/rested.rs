//! A file that people edit while the service runs: it is read again once it has not changed for a second.
//!
//! It is polled: a `stat` twice a second works on every file system and for every way to replace a file. The reader
//! decides whether its content is valid.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

/// The pace of the watch.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How often the file is looked at.
    pub look: Duration,
    /// How long it must be unchanged, so that a file is not read while it is being written.
    pub rest: Duration,
}

/// The pace that the contract promises.
pub const PACE: Pace = Pace { look: Duration::from_millis(400), rest: Duration::from_secs(1) };

/// A file as `stat` shows it; every write and every replacement changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sight {
    place: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The result of a look.
type Look = Result<Sight, io::ErrorKind>;

/// Watches one file.
#[derive(Debug)]
pub struct Rested {
    path: PathBuf,
    pace: Pace,
    ticks: Interval,
    judged: Option<Look>,
    resting: Option<(Look, Instant)>,
}

impl Rested {
    /// Begins to watch. The current state also counts as unread: the file may have changed since it was read, within
    /// the same tick of its clock.
    pub fn new(path: &Path, pace: Pace) -> Self {
        let mut ticks = interval(pace.look);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { path: path.to_owned(), pace, ticks, judged: None, resting: None }
    }

    /// Waits until the file is at rest in a state that was not read yet, then reads it on a blocking thread.
    pub async fn read<T, R>(&mut self, read: R) -> T
    where
        T: Send + 'static,
        R: Fn(&Path) -> T + Clone + Send + 'static,
    {
        loop {
            self.ticks.tick().await;
            let Ok(look) = blocking(&self.path, look).await else { continue };
            if self.judged == Some(look) {
                self.resting = None;
                continue;
            }
            let since = match self.resting {
                Some((same, since)) if same == look => since,
                _ => Instant::now(),
            };
            self.resting = Some((look, since));
            if since.elapsed() < self.pace.rest {
                continue;
            }
            let read = read.clone();
            let Ok((read, after)) = blocking(&self.path, move |path| (read(path), self::look(path))).await
            else {
                continue;
            };
            if after == look {
                self.judged = Some(look);
                return read;
            }
        }
    }
}

async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(&Path) -> T + Send + 'static,
) -> Result<T, tokio::task::JoinError> {
    let path = path.to_owned();
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
