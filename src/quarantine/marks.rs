//! Blocks that were lifted while mail they parked is still here: `quarantine/unblocked`, one block a line.
//!
//! A line is `ACCOUNT BLOCKED-AT LIFTED-AT`. The envelopes say for which block a message was parked, so that blocks can
//! be rebuilt from them if all else is lost. Without these marks, an account that was unblocked while its mail stayed
//! would be blocked again. A block is identified by the time at which it was made, so a clock change does no harm.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use crate::account::Account;
use crate::clock::Timestamp;
use crate::durable::Folder;

/// Not a name that a parked message can have.
const NAME: &str = "unblocked";
/// How long a mark is kept although its account has no mail here: a message may be on its way in.
const KEPT: Duration = Duration::from_secs(86_400);

/// A block that was lifted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) account: Account,
    pub(super) blocked: Timestamp,
    pub(super) lifted: Timestamp,
}

/// Returns all marks, skipping lines that do not parse.
pub(super) fn read(folder: &Folder) -> Result<Vec<Mark>, String> {
    let mut octets = Vec::new();
    match folder.read(NAME) {
        Ok(mut file) => file.read_to_end(&mut octets).map(drop).map_err(|error| error.to_string())?,
        Err(error) if error.is_missing() => return Ok(Vec::new()),
        Err(error) => return Err(error.to_string()),
    }
    let mark = |line: &str| {
        let mut words = line.split(' ');
        let account = words.next()?.parse().ok()?;
        let mut time = || Timestamp::parse_rfc3339(words.next()?).ok();
        Some(Mark { account, blocked: time()?, lifted: time()? })
    };
    Ok(String::from_utf8_lossy(&octets).lines().filter_map(mark).collect())
}

/// Adds a mark durably. Drops marks older than [`KEPT`] of accounts for which `is_here` is false.
pub(super) fn add(
    folder: &Arc<Folder>,
    mark: Mark,
    is_here: impl Fn(&Account) -> bool,
) -> Result<(), String> {
    let mut marks = read(folder)?;
    let (account, blocked, now) = (mark.account.clone(), mark.blocked, mark.lifted);
    marks.retain(|mark| {
        (mark.account != account || mark.blocked != blocked)
            && (now.since(mark.lifted) < KEPT || is_here(&mark.account))
    });
    marks.push(mark);
    let text: String =
        marks.iter().map(|mark| format!("{} {} {}\n", mark.account, mark.blocked, mark.lifted)).collect();
    folder.write(NAME, text.as_bytes()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_kept_as_long_as_they_may_be_needed() {
        let home = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::open(home.path()).unwrap());
        let at = Timestamp::from_millis;
        let mark = |name: &str, blocked, lifted| Mark {
            account: name.parse().unwrap(),
            blocked: at(blocked),
            lifted: at(lifted),
        };
        let here = |account: &Account| account.as_str() == "user:anna";
        assert_eq!(read(&folder), Ok(vec![]));
        let day = 86_400_000;
        for (added, expected) in [
            (mark("anna", 1, 2), vec![mark("anna", 1, 2)]),
            (mark("ben", 3, 4), vec![mark("anna", 1, 2), mark("ben", 3, 4)]),
            (mark("anna", 1, 5), vec![mark("ben", 3, 4), mark("anna", 1, 5)]),
            (mark("anna", 6, day + 7), vec![mark("anna", 1, 5), mark("anna", 6, day + 7)]),
        ] {
            add(&folder, added, here).unwrap();
            assert_eq!(read(&folder), Ok(expected));
        }
        std::fs::write(
            home.path().join(NAME),
            b"user:anna x y\n\xff\nuser:anna 2026-11-24T16:05:28Z 2026-11-24T16:05:29Z\n",
        )
        .unwrap();
        assert_eq!(read(&folder).unwrap().len(), 1);
        std::fs::remove_file(home.path().join(NAME)).unwrap();
        std::fs::create_dir(home.path().join(NAME)).unwrap();
        assert!(read(&folder).is_err() && add(&folder, mark("anna", 1, 2), here).is_err());
    }
}
