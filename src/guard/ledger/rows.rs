//! The database's keys and values: one small row per attempt and per relayed message.
//!
//! A count writes only new rows and removes those that have left the window, however large the window is; rows stay far below
//! the size at which sled puts them into files. A row's key is the account, an octet 0 (which no account name contains) and a
//! sequence number, so that rows sort by account and then by age; the account's own row has no number. Values are a version
//! octet, then postcard.

use std::net::IpAddr;
use std::ops::{Bound, Range};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::store::{Edit, Pair, Store, Tree};
use super::{Block, BlockedBy, Probation, RELAYED, Relayed, Sample};
use crate::account::Account;
use crate::clock::Timestamp;
use crate::guard::detector::Kept;
use crate::guard::window::{MAX_LIMIT, Mark};

/// The version of values.
const VERSION: u8 = 1;
/// The version of accounts' own rows: those of version 1 have no test.
const ACCOUNT_VERSION: u8 = 2;
/// The length to which texts from outside are cut, in octets: 64 + `@` + 255 (RFC 5321 4.5.3.1) fit.
const MAX_TEXT: usize = 320;
/// The length to which a reply is cut, in octets; the queue id is near its start.
const MAX_REPLY: usize = 512;

/// One counted attempt; older ones have no sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AttemptRow {
    pub(super) mark: Mark,
    pub(super) sample: Option<(String, IpAddr)>,
}

/// What is known of an account apart from its attempts. Days are since the Unix epoch.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct AccountRow {
    /// The last day on which the account would have been blocked.
    pub(super) would_block_day: Option<u64>,
    /// The last day on which an alarm without consequences was reported.
    pub(super) alarm_day: Option<u64>,
    /// The sequential test.
    pub(super) test: Kept,
}

#[derive(Serialize, Deserialize)]
struct RelayedRow {
    at: u64,
    reply: String,
    message_id: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct BlockRow {
    at: u64,
    by: BlockedBy,
    reason: Option<String>,
    told: bool,
}

#[derive(Serialize, Deserialize)]
struct ProbationRow {
    since: u64,
    until: u64,
    told: bool,
}

/// A block, and whether it was reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeptBlock {
    pub(super) block: Block,
    pub(super) told: bool,
}

/// Everything the disk has of an account; lists are oldest first, with the rows' numbers.
#[derive(Debug, Default)]
pub(super) struct Stored {
    pub(super) account: AccountRow,
    pub(super) attempts: Vec<(u64, AttemptRow)>,
    pub(super) relayed: Vec<(u64, Relayed)>,
}

impl Stored {
    /// Returns the edits that remove it all.
    pub(super) fn removals(&self, account: &Account) -> Vec<Edit> {
        let removal = |tree, key| Edit { tree, key, value: None };
        let attempts = self.attempts.iter().map(|(number, _)| (Tree::Attempts, row_key(account, *number)));
        let relayed = self.relayed.iter().map(|(number, _)| (Tree::Relayed, row_key(account, *number)));
        let own = std::iter::once((Tree::Attempts, account_key(account)));
        own.chain(attempts).chain(relayed).map(|(tree, key)| removal(tree, key)).collect()
    }
}

/// Which rows of a list are on the disk; it grows at its end and is cut at its front.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Extent {
    /// No row below is on the disk.
    low: u64,
    /// All rows below are on the disk, unless they were removed.
    written: u64,
    /// No row from here on is on the disk; below, a failed write may have left some.
    attempted: u64,
    /// The number of the next row.
    next: u64,
}

/// How far a commit takes an [`Extent`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reach {
    low: u64,
    next: u64,
}

impl Extent {
    /// The extent of a list whose rows in this range were found on the disk.
    pub(super) fn found(rows: Range<u64>) -> Self {
        Self { low: rows.start, written: rows.end, attempted: rows.end, next: rows.end }
    }

    /// Notes that the list grew by one.
    pub(super) fn push(&mut self) {
        self.next += 1;
    }

    /// Notes that the `last` rows differ from those on the disk.
    pub(super) fn changed(&mut self, last: usize) {
        self.written = self.written.min(self.first(last));
    }

    /// Returns the rows to write if the list holds `held` rows.
    pub(super) fn unwritten(&self, held: usize) -> Range<u64> {
        self.written.max(self.first(held))..self.next
    }

    /// Returns the rows to remove if the list holds `held` rows.
    pub(super) fn outlived(&self, held: usize) -> Range<u64> {
        self.low..self.attempted.min(self.first(held))
    }

    /// Notes that a commit begins; returns how far it goes.
    pub(super) fn attempt(&mut self, held: usize) -> Reach {
        self.attempted = self.attempted.max(self.next);
        Reach { low: self.first(held), next: self.next }
    }

    /// Notes that the commit succeeded.
    pub(super) fn reached(&mut self, reach: Reach) {
        self.low = self.low.max(reach.low);
        self.written = self.written.max(reach.next);
    }

    fn first(&self, held: usize) -> u64 {
        self.next.saturating_sub(held as u64)
    }
}

/// Returns the key of an account's own row.
pub(super) fn account_key(account: &Account) -> Vec<u8> {
    let mut key = account.as_str().as_bytes().to_vec();
    key.push(0);
    key
}

/// Returns the key of one of an account's numbered rows.
pub(super) fn row_key(account: &Account, number: u64) -> Vec<u8> {
    let mut key = account_key(account);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// Parses a row's key into the account and, if there is one, the row's number.
pub(super) fn parse_key(key: &[u8]) -> Option<(Account, Option<u64>)> {
    let end = key.iter().position(|octet| *octet == 0)?;
    let account = std::str::from_utf8(&key[..end]).ok()?.parse().ok()?;
    let number = match &key[end + 1..] {
        [] => None,
        number => Some(u64::from_be_bytes(number.try_into().ok()?)),
    };
    Some((account, number))
}

/// Returns a key that sorts after all rows of the account and before those of the next.
pub(super) fn end_key(account: &Account) -> Vec<u8> {
    let mut key = account.as_str().as_bytes().to_vec();
    key.push(1);
    key
}

/// Encodes a value.
pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Encoding cannot fail: there are no maps of unknown length and no foreign `Serialize`.
    postcard::to_extend(value, vec![VERSION]).unwrap_or_default()
}

/// Decodes a value; `None` if it is not one of ours.
pub(super) fn decode<T: DeserializeOwned>(value: &[u8]) -> Option<T> {
    decode_version(VERSION, value)
}

fn decode_version<T: DeserializeOwned>(version: u8, value: &[u8]) -> Option<T> {
    let (found, rest) = value.split_first()?;
    (*found == version).then(|| postcard::from_bytes(rest).ok()).flatten()
}

/// Returns the edit that writes an account's own row.
pub(super) fn account_edit(account: &Account, row: &AccountRow) -> Edit {
    let value = postcard::to_extend(row, vec![ACCOUNT_VERSION]).unwrap_or_default();
    Edit { tree: Tree::Attempts, key: account_key(account), value: Some(value) }
}

fn decode_account(value: &[u8]) -> AccountRow {
    decode_version(ACCOUNT_VERSION, value).unwrap_or_else(|| AccountRow {
        would_block_day: decode(value).unwrap_or_default(),
        ..AccountRow::default()
    })
}

/// Returns the edit that sets, or ends, an account's probation.
pub(super) fn probation_edit(account: &Account, probation: Option<&Probation>) -> Edit {
    let value = probation.map(|Probation { since, until, told }| {
        encode(&ProbationRow { since: since.as_millis(), until: until.as_millis(), told: *told })
    });
    Edit { tree: Tree::Probations, key: account.as_str().into(), value }
}

/// Reads all probations. Unreadable ones are left out: they only delay, and a delay ends.
pub(super) fn probations(store: &Store) -> Result<Vec<(Account, Probation)>, String> {
    let pairs = store.scan(Tree::Probations, (Bound::Unbounded, Bound::Unbounded), usize::MAX)?;
    let parse = |(key, value): Pair| {
        let account = std::str::from_utf8(&key).ok()?.parse().ok()?;
        let ProbationRow { since, until, told } = decode(&value)?;
        let (since, until) = (Timestamp::from_millis(since), Timestamp::from_millis(until));
        Some((account, Probation { since, until, told }))
    };
    Ok(pairs.into_iter().filter_map(parse).collect())
}

/// Returns the edit that notes when an account's block was lifted, or that this was reported.
pub(super) fn lifted_edit(account: &Account, lifted: Option<Timestamp>) -> Edit {
    let value = lifted.map(|at| encode(&at.as_millis()));
    Edit { tree: Tree::Lifted, key: account.as_str().into(), value }
}

/// Reads all liftings that are still to be reported.
pub(super) fn lifted(store: &Store) -> Result<Vec<(Account, Timestamp)>, String> {
    let pairs = store.scan(Tree::Lifted, (Bound::Unbounded, Bound::Unbounded), usize::MAX)?;
    let parse = |(key, value): Pair| {
        let account = std::str::from_utf8(&key).ok()?.parse().ok()?;
        Some((account, Timestamp::from_millis(decode(&value)?)))
    };
    Ok(pairs.into_iter().filter_map(parse).collect())
}

/// Returns the edit that sets, or lifts, an account's block.
pub(super) fn block_edit(account: &Account, kept: Option<&KeptBlock>) -> Edit {
    let value = kept.map(|KeptBlock { block, told }| {
        let Block { at, by, reason } = block;
        encode(&BlockRow { at: at.as_millis(), by: *by, reason: reason.clone(), told: *told })
    });
    Edit { tree: Tree::Blocks, key: account.as_str().into(), value }
}

/// Reads all blocks. An unreadable one is a fault of the database.
pub(super) fn blocks(store: &Store) -> Result<Vec<(Account, KeptBlock)>, String> {
    let pairs = store.scan(Tree::Blocks, (Bound::Unbounded, Bound::Unbounded), usize::MAX)?;
    let parse = |(key, value): &Pair| {
        let account = std::str::from_utf8(key).ok()?.parse().ok()?;
        let BlockRow { at, by, reason, told } = decode(value)?;
        Some((account, KeptBlock { block: Block { at: Timestamp::from_millis(at), by, reason }, told }))
    };
    let unread = |pair: &Pair| format!("the block of {} does not read", pair.0.escape_ascii());
    pairs.iter().map(|pair| parse(pair).ok_or_else(|| unread(pair))).collect()
}

/// Returns the edit that writes a relayed message.
pub(super) fn relayed_edit(account: &Account, number: u64, message: &Relayed) -> Edit {
    let row = RelayedRow {
        at: message.at.as_millis(),
        reply: message.reply.clone(),
        message_id: message.message_id.clone(),
    };
    Edit { tree: Tree::Relayed, key: row_key(account, number), value: Some(encode(&row)) }
}

/// Reads everything the disk has of `account`.
pub(super) fn read(store: &Store, account: &Account) -> Result<Stored, String> {
    let (start, end) = (account_key(account), end_key(account));
    let range = (Bound::Included(start.as_slice()), Bound::Excluded(end.as_slice()));
    let mut stored = Stored::default();
    // There may be rows beyond the window that await removal: after a crash, or when the limit was lowered.
    for (key, value) in store.scan(Tree::Attempts, range, 2 * MAX_LIMIT as usize)? {
        match parse_key(&key) {
            Some((_, None)) => stored.account = decode_account(&value),
            Some((_, Some(number))) => stored.attempts.extend(decode(&value).map(|row| (number, row))),
            None => {}
        }
    }
    for (key, value) in store.scan(Tree::Relayed, range, 4 * RELAYED)? {
        if let (Some((_, Some(number))), Some(row)) = (parse_key(&key), decode::<RelayedRow>(&value)) {
            let at = Timestamp::from_millis(row.at);
            stored.relayed.push((number, Relayed { at, reply: row.reply, message_id: row.message_id }));
        }
    }
    Ok(stored)
}

/// Makes a sample, cut to the length that is kept.
pub(super) fn sample(at: Timestamp, address: &str, client: IpAddr) -> Sample {
    Sample { at, address: cut(address, MAX_TEXT), client }
}

/// Returns a domain as it is kept: in lower case, and cut.
pub(super) fn domain(name: &str) -> String {
    cut(&name.to_ascii_lowercase(), MAX_TEXT)
}

/// Cuts a relayed message to the length that is kept.
pub(super) fn relayed(message: Relayed) -> Relayed {
    let message_id = message.message_id.map(|id| cut(&id, MAX_TEXT));
    Relayed { at: message.at, reply: cut(&message.reply, MAX_REPLY), message_id }
}

fn cut(text: &str, octets: usize) -> String {
    text[..text.floor_char_boundary(octets)].to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::guard::window::Key;

    #[test]
    fn keys_sort_by_account_and_age() {
        let account = |text: &str| text.parse::<Account>().unwrap();
        let (a, b) = (account("a"), account("a!"));
        let keys = [
            account_key(&a),
            row_key(&a, 0),
            row_key(&a, 255),
            row_key(&a, 256),
            end_key(&a),
            account_key(&b),
        ];
        assert!(keys.is_sorted());
        assert_eq!(parse_key(&keys[0]), Some((a.clone(), None)));
        assert_eq!(parse_key(&keys[3]), Some((a, Some(256))));
        assert_eq!(parse_key(b"user:a"), None);
        assert_eq!(parse_key(b"user:a\x00123"), None);
    }

    #[test]
    fn the_largest_row_is_far_below_a_page() {
        let address = format!("{}€", "x".repeat(MAX_TEXT - 1));
        let kept = sample(Timestamp::from_millis(u64::MAX), &address, "2001:db8::1".parse().unwrap());
        assert_eq!(kept.address.len(), MAX_TEXT - 1, "cut between characters");
        let row =
            AttemptRow { mark: Mark::new(kept.at, Key::of(b"a")), sample: Some((kept.address, kept.client)) };
        let value = encode(&row);
        assert!(value.len() < 400, "{}", value.len());
        assert_eq!(decode::<AttemptRow>(&value), Some(row));
        assert_eq!(decode::<AttemptRow>(&[2, 0, 0]), None, "another version");
        assert_eq!(decode::<AttemptRow>(&[]), None);
    }

    proptest! {
        /// However commits succeed, fail half-way or come late: after one that went well the disk has what
        /// memory has.
        #[test]
        fn the_disk_follows(steps in prop::collection::vec((0u8..6, 0usize..4), 0..60)) {
            let (mut extent, mut disk) = (Extent::default(), std::collections::BTreeSet::new());
            let mut held = 0usize;
            for (step, n) in steps.into_iter().chain([(3, 0)]) {
                match step {
                    0 | 1 => { extent.push(); held += 1; }
                    2 => held = held.saturating_sub(n),
                    3 | 4 => {
                        // 4: it fails after n rows.
                        let most = if step == 3 { usize::MAX } else { n };
                        let (write, remove) = (extent.unwritten(held), extent.outlived(held));
                        let reach = extent.attempt(held);
                        disk.extend(write.take(most));
                        remove.take(most).for_each(|row| { disk.remove(&row); });
                        if step == 3 {
                            extent.reached(reach);
                            let memory: std::collections::BTreeSet<u64> = (extent.first(held)..extent.next).collect();
                            prop_assert_eq!(&disk, &memory);
                        }
                    }
                    _ => held = 0,
                }
            }
        }
    }
}
