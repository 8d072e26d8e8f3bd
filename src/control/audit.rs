//! Who looked at what, and who changed it: one line a command, for the mail log.
//!
//! A running `serve` logs the lines itself. Lines made while it is down wait in the data folder, one JSON file each,
//! and the next start logs them. Text that an operator wrote is cleaned and bounded.

use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::durable::Folder;
use crate::id::AuditId;
use crate::visible::masked;

/// The prefix of the files in the data folder whose lines wait for the next start.
pub const PENDING: &str = "audit-pending-";

/// The most characters kept of a field that an operator wrote.
const SHOWN: usize = 200;

/// The Unix user who gave a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The name in /etc/passwd, or else `uid 1000`.
    pub user: String,
}

/// What is logged about a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLine {
    /// When.
    pub time: Timestamp,
    /// Which Unix user.
    pub user: String,
    /// The command, such as `quarantine release`.
    pub command: String,
    /// What it was about: an account, a message, a filter.
    pub object: String,
    /// Its outcome.
    pub outcome: String,
}

impl Actor {
    /// Returns the user with this id.
    pub fn from_uid(uid: u32) -> Self {
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        Self { user: name_of(&passwd, uid).unwrap_or_else(|| format!("uid {uid}")) }
    }

    /// Returns the user who runs this process.
    pub fn current() -> Self {
        Self::from_uid(rustix::process::getuid().as_raw())
    }
}

impl AuditLine {
    /// Makes a line about a command of `actor`.
    pub fn new(actor: &Actor, command: &str, object: &str, outcome: &str, now: Timestamp) -> Self {
        Self {
            time: now,
            user: actor.user.clone(),
            command: clean(command),
            object: clean(object),
            outcome: clean(outcome),
        }
    }

    /// Makes a line about what Gatepost does by itself, as configured.
    pub fn of_gatepost(command: &str, object: &str, outcome: &str, now: Timestamp) -> Self {
        Self::new(&Actor { user: "gatepost (by itself)".to_owned() }, command, object, outcome, now)
    }
}

fn clean(text: &str) -> String {
    let mut cleaned: String = text.chars().take(SHOWN).map(masked).collect();
    if text.chars().nth(SHOWN).is_some() {
        cleaned.push_str("...");
    }
    cleaned
}

fn name_of(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// Stores a line durably for the next start of `serve`.
///
/// # Errors
/// The file cannot be written.
pub fn postpone(data_dir: &Path, line: &AuditLine) -> io::Result<()> {
    let folder = Arc::new(Folder::open(data_dir).map_err(io::Error::other)?);
    let mut file = folder.temporary().map_err(io::Error::other)?;
    file.write(&serde_json::to_vec(line)?).map_err(io::Error::other)?;
    // A command run by root must not leave a file that `serve` cannot read. The owner is set before the file has a
    // name: afterwards, whoever owns the folder could put another file in its place.
    file.own_as(&std::fs::metadata(data_dir)?).map_err(io::Error::other)?;
    file.commit(format!("{PENDING}{}", AuditId::new(line.time))).map_err(io::Error::other)
}

/// Passes the waiting lines to `log`, oldest first, and removes them, with one fsync for all. After a crash in between
/// they are passed again. A file that cannot be read or removed does not hold up the others.
///
/// # Errors
/// A file cannot be read or removed: the text names the first, and how many more there are.
pub fn log_pending(data_dir: &Path, mut log: impl FnMut(&AuditLine)) -> io::Result<()> {
    let folder = Folder::open(data_dir).map_err(io::Error::other)?;
    let mut names = folder.names().map_err(io::Error::other)?;
    names.retain(|name| name.as_encoded_bytes().starts_with(PENDING.as_bytes()));
    if names.is_empty() {
        return Ok(());
    }
    names.sort();
    let mut left = Vec::new();
    for name in names {
        let path = data_dir.join(&name);
        let handed_on = std::fs::read(&path).and_then(|octets| {
            log(&read(&octets));
            folder.unlink(name).map(drop).map_err(io::Error::other)
        });
        left.extend(handed_on.err().map(|error| format!("{}: {error}", path.display())));
    }
    folder.sync().map_err(io::Error::other)?;
    match left.as_slice() {
        [] => Ok(()),
        [only] => Err(io::Error::other(only.as_str())),
        [first, others @ ..] => Err(io::Error::other(format!("{first}; and {} more", others.len()))),
    }
}

/// Parses a line; one that does not parse is passed on as it is.
fn read(octets: &[u8]) -> AuditLine {
    serde_json::from_slice(octets).unwrap_or_else(|_| AuditLine {
        time: Timestamp::default(),
        user: "unknown".to_owned(),
        command: "unknown".to_owned(),
        object: clean(&String::from_utf8_lossy(octets)),
        outcome: "an audit line that does not parse".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn line(object: &str) -> AuditLine {
        let actor = Actor { user: "root".to_owned() };
        AuditLine::new(&actor, "block", object, "done", Timestamp::from_millis(1_795_536_328_123))
    }

    fn logged(folder: &Path) -> Vec<AuditLine> {
        let mut lines = Vec::new();
        log_pending(folder, |line| lines.push(line.clone())).unwrap();
        lines
    }

    #[test]
    fn what_cannot_be_seen_is_not_kept() {
        assert_eq!(line("a\u{202e}b\u{200b}c\u{1b}d").object, "a?b?c?d");
    }

    #[test]
    fn what_waits_is_logged_once() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("other"), "").unwrap();
        assert_eq!(logged(folder.path()), []);
        let mut later = line("user:bert");
        later.time = later.time.after(std::time::Duration::from_secs(1));
        postpone(folder.path(), &later).unwrap();
        postpone(folder.path(), &line("user:anna")).unwrap();
        for entry in std::fs::read_dir(folder.path()).unwrap().map(Result::unwrap) {
            let private = entry.metadata().unwrap().mode() & 0o777 == 0o600;
            assert!(private || entry.file_name() == "other");
        }
        assert_eq!(logged(folder.path()), [line("user:anna"), later]);
        assert_eq!(logged(folder.path()), []);
        assert!(folder.path().join("other").exists());
        // An unreadable one hides none of the others, before or after it, and those are not logged twice.
        postpone(folder.path(), &line("user:anna")).unwrap();
        for name in ["0", "Z"] {
            std::fs::create_dir(folder.path().join(format!("{PENDING}{name}"))).unwrap();
        }
        let mut lines = 0;
        for expected in [1, 1] {
            let error = log_pending(folder.path(), |_| lines += 1).unwrap_err().to_string();
            assert_eq!(lines, expected);
            assert!(error.contains("audit-pending-0") && error.ends_with("and 1 more"), "{error}");
        }
    }

    #[test]
    fn a_line_that_does_not_parse_hides_no_other() {
        let folder = tempfile::tempdir().unwrap();
        postpone(folder.path(), &line("user:anna")).unwrap();
        std::fs::write(folder.path().join(format!("{PENDING}0")), "{\"time\":\"2026-").unwrap();
        let objects: Vec<String> = logged(folder.path()).into_iter().map(|line| line.object).collect();
        assert_eq!(objects, ["{\"time\":\"2026-", "user:anna"]);
    }

    #[test]
    fn what_an_operator_wrote_forges_no_line() {
        let long = "x".repeat(300);
        for (text, expected) in [
            ("user:anna", "user:anna".to_owned()),
            ("a\nb\u{1b}[31m", "a?b?[31m".to_owned()),
            (&long, format!("{}...", "x".repeat(200))),
        ] {
            assert_eq!(line(text).object, expected);
        }
    }

    #[test]
    fn names_of_users() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nbroken\nanna:x:1000:1000::/home/anna:/bin/sh\n";
        assert_eq!(name_of(passwd, 0).as_deref(), Some("root"));
        assert_eq!(name_of(passwd, 1000).as_deref(), Some("anna"));
        assert_eq!(name_of(passwd, 1001), None);
        assert_eq!(Actor::from_uid(4_000_000_000).user, "uid 4000000000");
    }
}
