//! Who may send as whom: the rules in force, and the senders file that they come from.
//!
//! The file is read again once it has not changed for a second. If the new file is broken or empty, it is refused as a whole
//! (the error names a broken line), and the old one stays in force.

pub mod header;
mod map;
pub mod rules;

use std::future::pending;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use crate::rested::{PACE, Pace, Rested};
use crate::visible::unreadable;
pub use rules::{Policy, Rules};

/// Why the senders file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SendersError {
    /// The file cannot be read.
    #[error("{}", unreadable(.path.as_ref(), .cause))]
    Io {
        /// The file.
        path: String,
        /// Why.
        cause: std::io::Error,
    },
    /// A line is wrong.
    #[error("{path}:{line}: {problem}")]
    Line {
        /// The file.
        path: String,
        /// Its number, from 1.
        line: usize,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// The file contains no account.
    #[error("{path}: no account in it; right is ACCOUNT: ADDRESS, @DOMAIN, ..., one a line")]
    Empty {
        /// The file.
        path: String,
    },
}

/// The outcome of reading a changed senders file.
#[derive(Debug)]
pub enum SendersEvent {
    /// The new file is in force; it has this many accounts.
    Reloaded(usize),
    /// The new file is refused as a whole, for this reason; the old one stays in force.
    Refused(String),
}

/// The rules in force. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Senders {
    current: Arc<ArcSwap<Rules>>,
    file: Option<PathBuf>,
}

impl Senders {
    /// Opens the rules, and reads the file `map` if the policy needs it.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn open(policy: Policy, domains: &[String], map: &Path) -> Result<Self, SendersError> {
        let mut rules = Rules { policy, domains: domains.to_vec(), ..Rules::default() };
        let file = (policy == Policy::Map).then(|| map.to_owned());
        if let Some(file) = &file {
            rules.map = read(file)?;
        }
        Ok(Self { current: Arc::new(ArcSwap::from_pointee(rules)), file })
    }

    /// Returns the rules as they are now.
    pub fn rules(&self) -> Guard<Arc<Rules>> {
        self.current.load()
    }

    /// Watches the file, for as long as this future is polled.
    pub async fn watch(&self, changed: impl Fn(SendersEvent) + Send) {
        self.watch_at(PACE, changed).await;
    }

    async fn watch_at(&self, pace: Pace, changed: impl Fn(SendersEvent) + Send) {
        let Some(file) = &self.file else { return pending().await };
        let mut rested = Rested::new(file, pace);
        loop {
            match rested.read(read).await {
                Ok(map) => {
                    let old = self.current.load();
                    if map != old.map {
                        let accounts = map.len();
                        self.current.store(Arc::new(Rules { map, ..Rules::clone(&old) }));
                        changed(SendersEvent::Reloaded(accounts));
                    }
                }
                Err(problem) => {
                    changed(SendersEvent::Refused(format!("{problem}; the map read before stays in force")));
                }
            }
        }
    }
}

fn read(path: &Path) -> Result<std::collections::HashMap<String, Vec<rules::Allowed>>, SendersError> {
    let shown = || path.display().to_string();
    let octets = std::fs::read(path).map_err(|cause| SendersError::Io { path: shown(), cause })?;
    let line = |line, problem| SendersError::Line { path: shown(), line, problem };
    let text = str::from_utf8(&octets).map_err(|error| {
        let before = octets.get(..error.valid_up_to()).unwrap_or_default();
        let number = 1 + before.iter().filter(|octet| **octet == b'\n').count();
        line(number, "no UTF-8".to_owned())
    })?;
    let map = map::parse(text).map_err(|problem| line(problem.line, problem.text))?;
    if map.is_empty() { Err(SendersError::Empty { path: shown() }) } else { Ok(map) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;
    use crate::smtp::ReversePath;

    /// Rests long enough for a write on a busy machine.
    const BRISK: Pace = Pace { look: Duration::from_millis(20), rest: Duration::from_millis(300) };

    #[tokio::test]
    async fn the_file_through_its_life() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("senders");
        let open = || Senders::open(Policy::Map, &[], &path);
        assert!(open().unwrap_err().to_string().contains("No such file"));
        std::fs::write(&path, "# none\n").unwrap();
        assert!(open().unwrap_err().to_string().contains("no account in it"));
        std::fs::write(&path, b"anna: a@b\nbob: \xff@b\n").unwrap();
        assert!(open().unwrap_err().to_string().ends_with("senders:2: no UTF-8"));
        std::fs::write(&path, "anna: a@b\n").unwrap();
        let senders = open().unwrap();

        let (sender, mut events) = mpsc::unbounded_channel();
        let watcher = senders.clone();
        let watch =
            tokio::spawn(async move { watcher.watch_at(BRISK, |event| sender.send(event).unwrap()).await });
        let mut next = async || timeout(Duration::from_secs(20), events.recv()).await.unwrap().unwrap();
        let may = |name: &str, address: &str| {
            senders.rules().allow(&name.parse().unwrap(), &ReversePath::parse(address).unwrap())
        };
        std::fs::write(&path, "anna: a@b\nbob: @c\n").unwrap();
        assert!(matches!(next().await, SendersEvent::Reloaded(2)));
        assert!(may("bob", "x@c") && may("anna", "a@b"));
        std::fs::write(&path, "anna: x@y\nbob\n").unwrap();
        let SendersEvent::Refused(why) = next().await else { panic!() };
        assert!(why.contains("senders:2: no `:`"), "{why}");
        assert!(may("anna", "a@b") && !may("anna", "x@y"));
        watch.abort();
        let any = Senders::open(Policy::Any, &[], &path).unwrap();
        assert!(any.file.is_none());
    }
}
