//! Opens a database that may be damaged or missing: a damaged one is set aside, and the blocks come from elsewhere.
//!
//! They come from the block list if it knows of later changes than the database (sled takes a truncated log for a shorter one),
//! or if there is no database; if the list is missing or damaged too, also from what is parked. Counts, probations and the like
//! cannot be recovered. What happened is written to [`NOTE`] before anything else, and stays there until somebody is told.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::blocklist::{self, BlockList, Blocks, Listed};
use super::day::Day;
use super::rows::{self, KeptBlock};
use super::store::{Edit, Store, Tree};
use super::writer::{BLOCKS_CHANGE, DAY, PRECEDENTS};
use super::{Block, LedgerError, Probation};
use crate::account::Account;
use crate::clock::Timestamp;
use crate::durable::{self, Folder};
use crate::guard::mimicry::Precedents;

/// The file with what is still to be reported, one sentence per line.
const NOTE: &str = "ledger.recovered";
/// The longest cause that is quoted, in octets.
const MAX_CAUSE: usize = 500;

/// Everything read at an opening.
pub(super) struct Opening {
    pub(super) store: Store,
    pub(super) list: BlockList,
    pub(super) blocks: Blocks,
    pub(super) probations: Vec<(Account, Probation)>,
    pub(super) lifted: Vec<(Account, Timestamp)>,
    pub(super) precedents: Precedents,
    pub(super) day: Day,
}

/// What the database holds.
struct Kept {
    blocks: Blocks,
    change: u64,
    probations: Vec<(Account, Probation)>,
    lifted: Vec<(Account, Timestamp)>,
    precedents: Precedents,
    day: Day,
}

impl Kept {
    fn read(store: &Store) -> Result<Self, String> {
        store.verify()?;
        Ok(Self {
            blocks: rows::blocks(store)?.into_iter().collect(),
            change: value(store, BLOCKS_CHANGE)?,
            probations: rows::probations(store)?,
            lifted: rows::lifted(store)?,
            precedents: value(store, PRECEDENTS)?,
            day: value(store, DAY)?,
        })
    }
}

/// Opens the database in `dir`, and mends it. `parked` returns the blocks not yet lifted that parked messages stem from.
pub(super) fn open(
    dir: &Path,
    parked: &dyn Fn() -> Vec<(Account, Block)>,
    now: Timestamp,
) -> Result<Opening, LedgerError> {
    let (store, kept) = match whole(dir) {
        Err(LedgerError::Broken { path, cause }) => {
            let aside = set_aside(dir, now)?;
            let cause = cause[..cause.floor_char_boundary(MAX_CAUSE)].replace(char::is_control, " ");
            let sentence =
                format!("the database {path} was broken and is set aside as {} ({cause})", aside.display());
            note(dir, now, &sentence)?;
            whole(dir)?
        }
        opened => opened?,
    };
    let fresh = store.is_fresh();
    let listed = blocklist::read(dir);
    let ahead = listed.as_ref().is_some_and(|listed| listed.change > kept.change);
    let mut blocks = kept.blocks.clone();
    let mut lifted = kept.lifted;
    let mut sources = Vec::new();
    if let Some(listed) = listed.as_ref().filter(|listed| fresh || ahead || is_of(listed, kept.change)) {
        if ahead && listed.damage.is_none() {
            // Lifted, though the database does not know, and still to be reported.
            let gone: Vec<_> =
                blocks.extract_if(.., |account, _| !listed.blocks.contains_key(account)).collect();
            lifted.retain(|(account, _)| !gone.iter().any(|(gone, _)| gone == account));
            lifted.extend(gone.into_iter().map(|(account, _)| (account, now)));
            blocks.extend(listed.blocks.clone());
        } else {
            listed.blocks.iter().for_each(|(account, kept)| {
                blocks.entry(account.clone()).or_insert_with(|| kept.clone());
            });
        }
        sources.push(dir.join(blocklist::NAME).display().to_string());
    }
    if fresh && listed.as_ref().is_none_or(|listed| listed.damage.is_some()) {
        let parked = parked();
        if !parked.is_empty() {
            sources.push("what is parked".to_owned());
        }
        for (account, block) in parked {
            // The abuse desk is told of the recovery instead.
            blocks.entry(account).or_insert(KeptBlock { block, told: true });
        }
    }
    let mut change = kept.change.max(listed.as_ref().map_or(0, |listed| listed.change));
    let mut edits = differences(&kept.blocks, &blocks);
    if !edits.is_empty() || change != kept.change {
        change += 1;
        edits.extend(lifted.iter().map(|(account, at)| rows::lifted_edit(account, Some(*at))));
        let value = Some(rows::encode(&change));
        edits.push(Edit { tree: Tree::Meta, key: BLOCKS_CHANGE.into(), value });
    }
    if (fresh && !sources.is_empty()) || ahead {
        note(dir, now, &sentence(fresh, &sources, blocks.len()))?;
    }
    let written = store.apply(&edits).and_then(|()| store.settle());
    let written = written.and_then(|()| if fresh || !edits.is_empty() { store.sync() } else { Ok(()) });
    written.map_err(|cause| store.unopenable(cause))?;
    let list = BlockList::new(dir, blocks.clone(), change, listed.as_ref());
    let Kept { probations, precedents, day, .. } = kept;
    Ok(Opening { store, list, blocks, probations, lifted, precedents, day })
}

/// Whether the list is undamaged and of this change.
fn is_of(listed: &Listed, change: u64) -> bool {
    listed.damage.is_none() && listed.change == change
}

/// Opens and reads the database.
fn whole(dir: &Path) -> Result<(Store, Kept), LedgerError> {
    let store = Store::open(dir)?;
    match Kept::read(&store) {
        Ok(kept) => Ok((store, kept)),
        Err(cause) => {
            store.close();
            Err(store.broken(cause))
        }
    }
}

/// Renames the database's folder; returns the new name.
fn set_aside(dir: &Path, now: Timestamp) -> Result<PathBuf, LedgerError> {
    let from = dir.join("ledger");
    let stamp: String = now.to_string().chars().filter(|c| !matches!(c, '-' | ':')).take(15).collect();
    let names = (1..).map(|n| if n == 1 { String::new() } else { format!("-{n}") });
    let to = names.map(|n| dir.join(format!("ledger.broken-{stamp}Z{n}"))).find(|path| !path.exists());
    let to = to.unwrap_or_else(|| dir.join("ledger.broken"));
    let failed = |cause: String| LedgerError::Unopenable {
        path: from.display().to_string(),
        cause: format!("it is broken, and cannot be set aside as {}: {cause}", to.display()),
    };
    std::fs::rename(&from, &to).map_err(|error| failed(error.to_string()))?;
    Folder::open(dir).and_then(|folder| folder.sync()).map_err(|error| failed(error.to_string()))?;
    Ok(to)
}

/// Returns the edits that turn `from` into `to`.
fn differences(from: &Blocks, to: &Blocks) -> Vec<Edit> {
    let gone = from.keys().filter(|account| !to.contains_key(*account));
    let gone = gone.map(|account| rows::block_edit(account, None));
    let changed = to.iter().filter(|(account, kept)| from.get(*account) != Some(kept));
    gone.chain(changed.map(|(account, kept)| rows::block_edit(account, Some(kept)))).collect()
}

fn sentence(fresh: bool, sources: &[String], blocks: usize) -> String {
    let sources = if sources.is_empty() { "nowhere".to_owned() } else { sources.join(" and ") };
    if fresh {
        format!(
            "a fresh database was made, with {blocks} blocked account(s) from {sources}; what was counted, and who was on probation, is forgotten"
        )
    } else {
        format!(
            "the database had lost its latest changes; the {blocks} blocked account(s) are now those of {sources}"
        )
    }
}

/// Adds a sentence to [`NOTE`].
fn note(dir: &Path, now: Timestamp, sentence: &str) -> Result<(), LedgerError> {
    let path = dir.join(NOTE);
    let mut text = std::fs::read_to_string(&path).unwrap_or_default();
    let _ = writeln!(text, "{now} {sentence}");
    durable::write(&path, text.as_bytes()).map_err(|error| LedgerError::Write(error.to_string()))
}

/// Returns what is still to be reported.
pub(super) fn untold(dir: &Path) -> Option<String> {
    std::fs::read_to_string(dir.join(NOTE)).ok()
}

/// Notes that it was reported.
pub(super) fn told(dir: &Path) -> Result<(), LedgerError> {
    durable::remove(&dir.join(NOTE)).map(drop).map_err(|error| LedgerError::Write(error.to_string()))
}

fn value<T: DeserializeOwned + Default>(store: &Store, key: &[u8]) -> Result<T, String> {
    Ok(store.value(Tree::Meta, key)?.and_then(|value| rows::decode(&value)).unwrap_or_default())
}
