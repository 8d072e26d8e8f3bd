//! Keeps the users in step with their file, which is read again once it has not changed for a second.
//!
//! A broken, empty or missing version is reported once, and the users in force stay; unless it is empty since `user remove` took
//! the last one out.

use std::future::pending;
use std::path::Path;
use std::sync::Arc;

use super::{Authenticator, Directory, UsersEvent, Version};
use crate::rested::{PACE, Pace, Rested};

/// Users that have been read but are not in force yet.
pub struct NewUsers(Directory);

impl Authenticator {
    /// Watches the users file for as long as this is polled; it is read again once it has not changed for a second.
    pub async fn watch(&self, changed: impl Fn(UsersEvent) + Send) {
        self.watch_at(PACE, changed).await;
    }

    async fn watch_at(&self, pace: Pace, changed: impl Fn(UsersEvent) + Send) {
        let Some(path) = self.shared.file.clone() else { return pending().await };
        let mut rested = Rested::new(&path, pace);
        // The version that was refused last, and the one that was in force then.
        let mut refused: Option<(Version, Version)> = None;
        loop {
            let authenticator = self.clone();
            let (now, read) = rested.read(move |path| authenticator.read(path)).await;
            // Not what was read here last: a reload may have put another version in force.
            let in_force = self.shared.current.load().version;
            let known =
                refused.filter(|(_, then)| *then == in_force).map_or(in_force, |(refused, _)| refused);
            if now != known {
                refused = read.is_err().then_some((now, in_force));
                changed(match read {
                    Ok(directory) => self.replace(directory),
                    Err(problem) => {
                        UsersEvent::Refused(format!("{problem}; the users read before stay in force"))
                    }
                });
            }
        }
    }

    /// Reads the users file as it is, without waiting for it to rest; `None` if nothing has changed.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn read_anew(&self) -> Result<Option<NewUsers>, super::UsersError> {
        let Some(path) = &self.shared.file else { return Ok(None) };
        let old = self.shared.current.load().version;
        let (version, read) = self.read(path);
        // With relay hosts the file may be missing: that it still is means no change.
        if version == old { Ok(None) } else { read.map(NewUsers).map(Some) }
    }

    /// The same where nobody can log in so far, and relay hosts are no longer there to make up for it.
    ///
    /// # Errors
    /// The file cannot be used, is missing, or is empty (unless by `user remove` of the last user).
    pub fn read_first(&self) -> Result<Option<NewUsers>, super::UsersError> {
        let Some(path) = &self.shared.file else { return Ok(None) };
        self.read(path).1.map(NewUsers).map(Some)
    }

    /// Puts users in force that were read anew.
    pub fn adopt_users(&self, users: NewUsers) -> UsersEvent {
        self.replace(users.0)
    }

    fn read(&self, path: &Path) -> (Version, Result<Directory, super::UsersError>) {
        let (version, read) = Directory::read(path, &self.shared.mechanisms);
        (version, read.and_then(|directory| directory.with_users(path)))
    }

    /// Puts new users in force.
    pub(super) fn replace(&self, directory: Directory) -> UsersEvent {
        let directory = Arc::new(directory);
        let old = self.shared.current.swap(Arc::clone(&directory));
        let ended = old.users.ended(&directory.users);
        self.shared.recent.forget(&ended);
        UsersEvent::Reloaded { users: directory.users.len(), ended }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::super::{Mechanism, edit};
    use super::*;

    const CRYPT: &str = "$5$rounds=1000$8g3bLFkL5Aut2SOi$GLcj/dD3LUBe6HsKOb/.Md/0lurit91j96ihy0vhx/2";
    const OTHER: &str = "$5$4sp6L1kB/3848sxR$23Qr1Il2kfH4pgmstUQMpTgXJRtUcp4LrK0.qSArT99";
    /// A rest long enough for a write on a busy machine.
    const BRISK: Pace = Pace { look: Duration::from_millis(20), rest: Duration::from_millis(300) };
    /// Far more than a look and a rest.
    const DEADLINE: Duration = Duration::from_secs(20);

    /// The next event as text; `None` if a look and two rests pass without one.
    async fn next(events: &mut mpsc::UnboundedReceiver<UsersEvent>, deadline: Duration) -> Option<String> {
        timeout(deadline, events.recv()).await.ok().map(|event| match event.unwrap() {
            UsersEvent::Reloaded { users, ended } => format!("{users} {}", ended.join(" ")),
            UsersEvent::Refused(why) => why,
        })
    }

    #[tokio::test]
    async fn the_file_through_its_life() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let text = |anna: &str, bob: &str| format!("anna:{anna}\nbob:{bob}\n");
        std::fs::write(&path, text(CRYPT, CRYPT)).unwrap();
        let authenticator = Authenticator::open(Some(&path), &[Mechanism::Plain], [7; 32]).unwrap();
        let (sender, mut events) = mpsc::unbounded_channel();
        let watcher = authenticator.clone();
        let watch =
            tokio::spawn(async move { watcher.watch_at(BRISK, |event| sender.send(event).unwrap()).await });
        let silence = BRISK.look + 2 * BRISK.rest;

        // Nothing has changed since it was opened, although it was touched.
        std::fs::write(&path, text(CRYPT, CRYPT)).unwrap();
        assert_eq!(next(&mut events, silence).await, None);
        // In place, with the same length.
        std::fs::write(&path, text(CRYPT, &CRYPT.replace("hx/2", "hx/3"))).unwrap();
        assert_eq!(next(&mut events, DEADLINE).await.unwrap(), "2 bob");
        // By a rename.
        std::fs::write(folder.path().join("new"), text(OTHER, &CRYPT.replace("hx/2", "hx/3"))).unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        assert_eq!(next(&mut events, DEADLINE).await.unwrap(), "2 anna");
        // Broken, reported once; then empty, missing, and back as it was.
        std::fs::write(&path, "anna:x\nbob\n").unwrap();
        let refused = next(&mut events, DEADLINE).await.unwrap();
        assert!(refused.contains("users:2: no `:`"), "{refused}");
        assert_eq!(next(&mut events, silence).await, None);
        std::fs::write(&path, "# nobody\n").unwrap();
        assert!(next(&mut events, DEADLINE).await.unwrap().contains("users: no user in it"));
        std::fs::remove_file(&path).unwrap();
        assert!(next(&mut events, DEADLINE).await.unwrap().contains("users: No such file"));
        assert_eq!(&*authenticator.offered(false), "PLAIN");
        std::fs::write(&path, format!("anna:{OTHER}\n")).unwrap();
        assert_eq!(next(&mut events, DEADLINE).await.unwrap(), "1 bob");
        // Empty, but on purpose.
        edit::remove(&path, "anna").unwrap();
        assert_eq!(next(&mut events, DEADLINE).await.unwrap(), "0 anna");
        assert_eq!(&*authenticator.offered(false), "");
        // What follows that comment makes it an accident again.
        std::fs::write(&path, format!("{}# anna:{OTHER}\n", std::fs::read_to_string(&path).unwrap()))
            .unwrap();
        assert!(next(&mut events, DEADLINE).await.unwrap().contains("users: no user in it"));
        watch.abort();
    }

    /// A user is added and a reload puts that in force; then the user is removed again before the file has rested. The
    /// file is then as it was when last read here, but is not what is in force.
    #[tokio::test]
    async fn what_is_put_back_behind_a_reload_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let anna = format!("anna:{CRYPT}\n");
        std::fs::write(&path, &anna).unwrap();
        let authenticator = Authenticator::open(Some(&path), &[Mechanism::Plain], [7; 32]).unwrap();
        let (sender, mut events) = mpsc::unbounded_channel();
        let watcher = authenticator.clone();
        let pace = Pace { rest: Duration::from_secs(1), ..BRISK };
        let watch =
            tokio::spawn(async move { watcher.watch_at(pace, |event| sender.send(event).unwrap()).await });
        tokio::time::sleep(pace.look * 2).await; // it has looked
        std::fs::write(&path, format!("{anna}bob:{CRYPT}\n")).unwrap();
        authenticator.adopt_users(authenticator.read_anew().unwrap().unwrap());
        std::fs::write(&path, &anna).unwrap();
        assert_eq!(next(&mut events, DEADLINE).await.unwrap(), "1 bob");
        watch.abort();
    }

    #[tokio::test]
    async fn a_file_that_is_being_written_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let authenticator = Authenticator::open_if_there(&path, &[Mechanism::Plain], [7; 32]).unwrap();
        assert_eq!(&*authenticator.offered(false), "");
        let (sender, mut events) = mpsc::unbounded_channel();
        let watcher = authenticator.clone();
        let watch = tokio::spawn(async move { watcher.watch(|event| sender.send(event).unwrap()).await });
        // Never at rest for a second: each of these versions would be refused.
        for _ in 0..6 {
            std::fs::write(&path, "anna:$5$").unwrap();
            assert_eq!(next(&mut events, PACE.rest / 4).await, None);
        }
        std::fs::write(&path, format!("anna:{CRYPT}")).unwrap();
        assert_eq!(next(&mut events, DEADLINE).await.unwrap(), "1 ");
        assert_eq!(&*authenticator.offered(false), "PLAIN");
        watch.abort();
    }

    #[test]
    fn what_a_start_needs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let opened = |strict: bool| {
            let opened = if strict {
                Authenticator::open(Some(&path), &[Mechanism::Plain], [7; 32])
            } else {
                Authenticator::open_if_there(&path, &[Mechanism::Plain], [7; 32])
            };
            opened
                .map(|authenticator| authenticator.offered(false).to_string())
                .map_err(|cause| cause.to_string())
        };
        for (content, strict, lenient) in [
            (None, Err("users: No such file"), Ok("")),
            (Some("# nobody\n"), Err("users: no user in it; `gatepost user add NAME`"), Ok("")),
            (Some("anna\n"), Err("users:1: no `:`"), Err("users:1: no `:`")),
            (Some("anna:!\n"), Ok(""), Ok("")),
            (
                Some("anna:$5$4sp6L1kB/3848sxR$23Qr1Il2kfH4pgmstUQMpTgXJRtUcp4LrK0.qSArT99\n"),
                Ok("PLAIN"),
                Ok("PLAIN"),
            ),
        ] {
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            for (found, expected) in [(opened(true), strict), (opened(false), lenient)] {
                match (&found, expected) {
                    (Ok(offered), Ok(expected)) => assert_eq!(offered, expected),
                    (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
                    _ => panic!("{content:?}: {found:?}"),
                }
            }
        }
        assert_eq!(&*Authenticator::open(None, &[Mechanism::Plain], [7; 32]).unwrap().offered(false), "");
    }
}
