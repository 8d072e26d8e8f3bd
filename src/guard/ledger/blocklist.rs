//! The block list as text: `DATA_DIR/blocked`, one account per line, for people and for the case that the database is lost.
//!
//! Rewritten as a whole (rename, fsync of file and folder) in the same step as the database: a block is on the disk when both
//! have it. Read only at the start. Its first line says how many changes of blocks there have been, as the database does too;
//! whichever knows of more changes is right.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::rows::KeptBlock;
use super::{Block, BlockedBy};
use crate::account::Account;
use crate::clock::Timestamp;
use crate::durable;
use crate::visible::is_unsafe;

/// The file's name in the data directory.
pub(super) const NAME: &str = "blocked";
/// How the first line begins.
const HEAD: &str = "# Gatepost's blocked accounts, version 1, change ";
/// The second line.
const LEGEND: &str = "# ACCOUNT SINCE BY(limit|operator|detection) ABUSE-DESK(told|untold) REASON. Written by Gatepost with \
                      each change; edits are lost: use `gatepost block` and `unblock`.";

/// All blocks.
pub(super) type Blocks = BTreeMap<Account, KeptBlock>;

/// The contents of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listed {
    /// How many changes there have been; 0 if the first line does not say.
    pub(super) change: u64,
    pub(super) blocks: Blocks,
    /// What is wrong with the file, if anything.
    pub(super) damage: Option<String>,
}

/// The list, and whether the file matches it.
#[derive(Debug)]
pub(super) struct BlockList {
    path: PathBuf,
    blocks: Blocks,
    change: u64,
    /// The latest change that the database knows of.
    stored: u64,
    /// Whether the file differs from the list.
    dirty: bool,
}

impl BlockList {
    /// Builds the list from the database's `blocks` as of change number `stored`; `listed` is what the file said.
    pub(super) fn new(dir: &Path, blocks: Blocks, stored: u64, listed: Option<&Listed>) -> Self {
        let same = |listed: &&Listed| {
            listed.damage.is_none() && listed.change == stored && listed.blocks == blocks && stored > 0
        };
        let dirty = listed.filter(same).is_none();
        Self { path: dir.join(NAME), blocks, change: stored + u64::from(dirty), stored, dirty }
    }

    /// Whether this is what is known of an account's block.
    pub(super) fn has(&self, account: &Account, block: Option<&KeptBlock>) -> bool {
        self.blocks.get(account) == block
    }

    /// Notes an account's block, or that it has none.
    pub(super) fn note(&mut self, account: &Account, block: Option<&KeptBlock>) {
        if self.has(account, block) {
            return;
        }
        match block {
            Some(block) => drop(self.blocks.insert(account.clone(), block.clone())),
            None => drop(self.blocks.remove(account)),
        }
        if !self.dirty {
            self.dirty = true;
            self.change += 1;
        }
    }

    /// The number of the change that the database has yet to store; `None` if it has it.
    pub(super) fn unstored(&self) -> Option<u64> {
        (self.change != self.stored).then_some(self.change)
    }

    /// Notes that the database has this change.
    pub(super) fn is_stored(&mut self, change: u64) {
        self.stored = change;
    }

    /// Whether there is something to write.
    pub(super) fn is_behind(&self) -> bool {
        self.dirty || self.unstored().is_some()
    }

    /// Writes the list to the file, durably. Blocks.
    pub(super) fn write(&mut self, now: Timestamp) -> Result<(), String> {
        if self.dirty {
            let text = text(&self.blocks, self.change, now);
            durable::write(&self.path, text.as_bytes()).map_err(|error| error.to_string())?;
            self.dirty = false;
        }
        Ok(())
    }
}

/// Reads the file; `None` if there is none.
pub(super) fn read(dir: &Path) -> Option<Listed> {
    match std::fs::read(dir.join(NAME)) {
        Ok(octets) => Some(parse(&octets)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => Some(Listed { damage: Some(error.to_string()), ..Listed::default() }),
    }
}

fn text(blocks: &Blocks, change: u64, now: Timestamp) -> String {
    let accounts = if blocks.len() == 1 { "account" } else { "accounts" };
    let mut text = format!("{HEAD}{change}, {} {accounts}, at {now}\n{LEGEND}\n", blocks.len());
    for (account, KeptBlock { block, told }) in blocks {
        let by = match block.by {
            BlockedBy::Limit => "limit",
            BlockedBy::Operator => "operator",
            BlockedBy::Detection => "detection",
        };
        let told = if *told { "told" } else { "untold" };
        let reason = block.reason.as_deref().unwrap_or_default().replace(is_unsafe, " ");
        let _ = writeln!(text, "{}", format!("{account} {} {by} {told} {reason}", block.at).trim_end());
    }
    text
}

fn parse(octets: &[u8]) -> Listed {
    let text = String::from_utf8_lossy(octets);
    let head = text.lines().next().and_then(|line| line.strip_prefix(HEAD)).and_then(|rest| {
        let (change, rest) = rest.split_once(", ")?;
        Some((change.parse::<u64>().ok()?, rest.split_once(' ')?.0.parse::<usize>().ok()?))
    });
    let mut listed = Listed { change: head.map_or(0, |(change, _)| change), ..Listed::default() };
    let mut unread = 0;
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match parse_line(line) {
            Some((account, kept)) => drop(listed.blocks.insert(account, kept)),
            None => unread += 1,
        }
    }
    let found = listed.blocks.len();
    listed.damage = match head {
        None => Some("its first line is none of Gatepost's".to_owned()),
        Some(_) if unread > 0 => Some(format!("{unread} of its lines cannot be read")),
        Some((_, accounts)) if accounts != found => {
            Some(format!("it has {found} accounts, and should have {accounts}"))
        }
        Some(_) => None,
    };
    listed
}

fn parse_line(line: &str) -> Option<(Account, KeptBlock)> {
    let mut words = line.splitn(5, ' ');
    let account = words.next()?.parse().ok()?;
    let at = Timestamp::parse_rfc3339(words.next()?).ok()?;
    let by = match words.next()? {
        "limit" => BlockedBy::Limit,
        "operator" => BlockedBy::Operator,
        "detection" => BlockedBy::Detection,
        _ => return None,
    };
    let told = match words.next()? {
        "told" => true,
        "untold" => false,
        _ => return None,
    };
    let reason = words.next().map(str::to_owned);
    Some((account, KeptBlock { block: Block { at, by, reason }, told }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(by: BlockedBy, told: bool, reason: Option<&str>) -> KeptBlock {
        let at = Timestamp::from_millis(1_795_536_328_123);
        KeptBlock { block: Block { at, by, reason: reason.map(str::to_owned) }, told }
    }

    fn some() -> Blocks {
        [
            ("anna", kept(BlockedBy::Limit, true, Some("100 invalid recipients within 1h"))),
            ("host:192.0.2.1", kept(BlockedBy::Operator, false, None)),
            ("über@example.org", kept(BlockedBy::Detection, false, Some("# no comment"))),
        ]
        .map(|(account, kept)| (account.parse().unwrap(), kept))
        .into()
    }

    #[test]
    fn what_is_written_is_read_and_people_can_read_it() {
        let text = text(&some(), 7, Timestamp::from_millis(1_795_536_400_000));
        assert_eq!(
            text.lines().filter(|line| !line.starts_with("# ACCOUNT")).collect::<Vec<_>>(),
            [
                "# Gatepost's blocked accounts, version 1, change 7, 3 accounts, at 2026-11-24T16:06:40.000Z",
                "host:192.0.2.1 2026-11-24T16:05:28.123Z operator untold",
                "user:anna 2026-11-24T16:05:28.123Z limit told 100 invalid recipients within 1h",
                "user:über@example.org 2026-11-24T16:05:28.123Z detection untold # no comment",
            ]
        );
        assert_eq!(parse(text.as_bytes()), Listed { change: 7, blocks: some(), damage: None });
    }

    #[test]
    fn a_reason_is_one_line() {
        let blocks =
            [("anna".parse().unwrap(), kept(BlockedBy::Operator, true, Some("a\nuser:ben\u{1b}[2J")))];
        let listed = parse(text(&blocks.into(), 1, Timestamp::default()).as_bytes());
        assert_eq!((listed.blocks.len(), listed.damage), (1, None));
    }

    #[test]
    fn damage_is_noticed_and_what_can_be_read_is_read() {
        let whole = text(&some(), 7, Timestamp::default());
        let octets = whole.as_bytes();
        for end in 0..octets.len() - 1 {
            let listed = parse(&octets[..end]);
            // The reason of the last line may be cut.
            let last =
                whole.rfind('\n').map(|at| whole[..at].rfind("untold").unwrap() + "untold".len()).unwrap();
            assert!(listed.damage.is_some() || end >= last, "cut at {end}");
        }
        let damaged = whole.replace("host:192.0.2.1", "host:192.0.2.\0");
        let listed = parse(damaged.as_bytes());
        assert_eq!((listed.blocks.len(), listed.damage.is_some()), (2, true));
        assert!(parse(b"").damage.is_some());
    }

    #[test]
    fn it_is_written_when_it_changes() {
        let home = tempfile::tempdir().unwrap();
        let now = Timestamp::from_millis(1);
        let file = || std::fs::read_to_string(home.path().join(NAME)).unwrap();
        let mut list = BlockList::new(home.path(), Blocks::new(), 0, read(home.path()).as_ref());
        assert!(list.is_behind(), "there is none yet");
        list.write(now).unwrap();
        list.is_stored(list.unstored().unwrap());
        assert!(!list.is_behind() && file().contains("change 1, 0 accounts"));

        let (anna, block) = ("anna".parse().unwrap(), kept(BlockedBy::Operator, true, None));
        list.note(&anna, None);
        assert!(!list.is_behind());
        list.note(&anna, Some(&block));
        assert_eq!(list.unstored(), Some(2));
        list.write(now).unwrap();
        assert!(
            file().contains("change 2, 1 account,") && list.is_behind(),
            "the database does not know yet"
        );
        list.is_stored(2);
        let listed = read(home.path()).unwrap();
        assert!(!BlockList::new(home.path(), listed.blocks.clone(), 2, Some(&listed)).is_behind());
        assert!(BlockList::new(home.path(), Blocks::new(), 3, Some(&listed)).is_behind());

        std::fs::remove_file(home.path().join(NAME)).unwrap();
        std::fs::create_dir(home.path().join(NAME)).unwrap();
        list.note(&anna, None);
        assert!(list.write(now).unwrap_err().contains("Is a directory") && list.is_behind());
        assert!(read(home.path()).unwrap().damage.is_some());
    }
}
