//! Who looked into what, and who changed it: one line a command, for the mail log.
//!
//! While `serve` runs it logs the lines itself. Made while it is down they wait in a file in the data folder, one JSON
//! object a line, and the next start logs them. Text that an operator wrote is cleaned and bounded.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::process::Uid;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// The file in which lines wait for the next start, in the data folder.
pub const PENDING: &str = "audit-pending";

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
}

fn clean(text: &str) -> String {
    let printable = |c: char| if c.is_control() { '?' } else { c };
    let mut cleaned: String = text.chars().take(SHOWN).map(printable).collect();
    if cleaned.len() < text.len() {
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

/// Keeps a line for the next start of `serve`.
///
/// # Errors
/// The file cannot be written.
pub fn postpone(data_dir: &Path, line: &AuditLine) -> io::Result<()> {
    let mut octets = serde_json::to_vec(line)?;
    octets.push(b'\n');
    let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(data_dir.join(PENDING))?;
    // A command of root's must not leave a file that `serve` cannot read.
    let folder = std::fs::metadata(data_dir)?;
    if file.metadata()?.uid() != folder.uid() {
        rustix::fs::fchown(&file, Some(Uid::from_raw(folder.uid())), None)?;
    }
    file.write_all(&octets)?;
    file.sync_data()?;
    File::open(data_dir)?.sync_all()
}

/// Hands the lines that wait to `log`, then forgets them. A line that does not parse is handed on as it is; a crash in
/// between hands them on again.
///
/// # Errors
/// The file is there, and cannot be read or removed.
pub fn log_pending(data_dir: &Path, mut log: impl FnMut(&AuditLine)) -> io::Result<()> {
    let path = data_dir.join(PENDING);
    let octets = match std::fs::read(&path) {
        Ok(octets) => octets,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for line in String::from_utf8_lossy(&octets).lines() {
        log(&serde_json::from_str(line).unwrap_or_else(|_| AuditLine {
            time: Timestamp::default(),
            user: "unknown".to_owned(),
            command: "unknown".to_owned(),
            object: clean(line),
            outcome: format!("a line in {PENDING} that does not parse"),
        }));
    }
    std::fs::remove_file(&path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(object: &str) -> AuditLine {
        let actor = Actor { user: "root".to_owned() };
        AuditLine::new(&actor, "block", object, "done", Timestamp::from_millis(1_795_536_328_123))
    }

    #[test]
    fn what_waits_is_logged_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut logged = Vec::new();
        log_pending(folder.path(), |line| logged.push(line.clone())).unwrap();
        assert_eq!(logged, []);

        postpone(folder.path(), &line("user:anna")).unwrap();
        postpone(folder.path(), &line("user:bert")).unwrap();
        let mode = std::fs::metadata(folder.path().join(PENDING)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        log_pending(folder.path(), |line| logged.push(line.clone())).unwrap();
        log_pending(folder.path(), |line| logged.push(line.clone())).unwrap();
        assert_eq!(logged, [line("user:anna"), line("user:bert")]);
    }

    #[test]
    fn a_line_cut_short_by_a_crash_hides_no_other() {
        let folder = tempfile::tempdir().unwrap();
        postpone(folder.path(), &line("user:anna")).unwrap();
        let path = folder.path().join(PENDING);
        let mut octets = std::fs::read(&path).unwrap();
        octets.extend_from_slice(b"{\"time\":\"2026-");
        std::fs::write(&path, octets).unwrap();
        let mut objects = Vec::new();
        log_pending(folder.path(), |line| objects.push(line.object.clone())).unwrap();
        assert_eq!(objects, ["user:anna", "{\"time\":\"2026-"]);
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
