//! Who looked into what, and who changed it: one line a command, for the mail log.
//!
//! While `serve` runs it logs the lines itself. Made while it is down they wait in the data folder, one file of JSON each,
//! and the next start logs them. Text that an operator wrote is cleaned and bounded.

use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::durable::Folder;
use crate::id::AuditId;
use crate::visible::is_unsafe;

/// How the names of the files begin in which lines wait for the next start, in the data folder.
pub const PENDING: &str = "audit-pending-";

/// The most characters of a field that an operator wrote.
const SHOWN: usize = 200;

/// A Unix user who gave a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The name in /etc/passwd; `uid 1000` for one who has none there.
    pub user: String,
}

/// What is logged of a command.
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
    /// What came of it.
    pub outcome: String,
}

impl Actor {
    /// The user with this number.
    pub fn from_uid(uid: u32) -> Self {
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        Self { user: name_of(&passwd, uid).unwrap_or_else(|| format!("uid {uid}")) }
    }

    /// Who runs this process.
    pub fn current() -> Self {
        Self::from_uid(rustix::process::getuid().as_raw())
    }
}

impl AuditLine {
    /// A line about a command of `actor`.
    pub fn new(actor: &Actor, command: &str, object: &str, outcome: &str, now: Timestamp) -> Self {
        Self {
            time: now,
            user: actor.user.clone(),
            command: clean(command),
            object: clean(object),
            outcome: clean(outcome),
        }
    }

    /// A line about what the configuration has Gatepost do by itself.
    pub fn of_gatepost(command: &str, object: &str, outcome: &str, now: Timestamp) -> Self {
        Self::new(&Actor { user: "gatepost (by itself)".to_owned() }, command, object, outcome, now)
    }
}

fn clean(text: &str) -> String {
    let printable = |c: char| if is_unsafe(c) { '?' } else { c };
    let mut cleaned: String = text.chars().take(SHOWN).map(printable).collect();
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

/// Keeps a line for the next start of `serve`, durably.
///
/// # Errors
/// The file cannot be written.
pub fn postpone(data_dir: &Path, line: &AuditLine) -> io::Result<()> {
    let folder = Arc::new(Folder::open(data_dir).map_err(io::Error::other)?);
    let mut file = folder.temporary().map_err(io::Error::other)?;
    file.write(&serde_json::to_vec(line)?).map_err(io::Error::other)?;
    // A command of root's must not leave a file that `serve` cannot read. Before it has a name: whoever has the folder could
    // put another in its place.
    file.own_as(&std::fs::metadata(data_dir)?).map_err(io::Error::other)?;
    file.commit(format!("{PENDING}{}", AuditId::new(line.time))).map_err(io::Error::other)
}

/// Hands the lines that wait to `log`, oldest first, and forgets them, with one fsync for all. A crash in between hands them
/// on again. One that cannot be read or removed keeps none of the others from it.
///
/// # Errors
/// A file is there, and cannot be read or removed: the first of these, and how many there are.
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

/// One that does not parse is handed on as it is.
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
        // One that cannot be read hides none of the others, neither those before it nor those behind, and those no second time.
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
