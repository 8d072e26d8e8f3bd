//! Records of accounts from disk and memory, in order, page by page.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::entry::Entry;
use super::rows;
use super::store::{Store, Tree};
use super::{News, Record, Shared};
use crate::account::Account;
use crate::clock::Timestamp;

/// How many accounts are looked at in one step, notable or not.
const STEP: usize = 256;

/// Returns the first account after `after` that has rows in `tree`.
pub(super) fn next_account(
    store: &Store,
    tree: Tree,
    after: Option<&Account>,
) -> Result<Option<Account>, String> {
    let mut from = after.map(rows::end_key).unwrap_or_default();
    loop {
        let range = (Bound::Included(from.as_slice()), Bound::Unbounded);
        let Some((key, _)) = store.scan(tree, range, 1)?.pop() else { return Ok(None) };
        match rows::parse_key(&key) {
            Some((account, _)) => return Ok(Some(account)),
            // Not one of our keys: try the next.
            None => {
                from = key;
                from.push(0);
            }
        }
    }
}

/// Returns the first `limit` notable accounts after `after`. Holds no more than a page of them and [`STEP`] others. Blocks.
pub(super) fn records(
    shared: &Shared,
    after: Option<Account>,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<Record>, String> {
    let mut records = Vec::new();
    let mut cursor = after;
    while records.len() < limit {
        let (accounts, last) = step(shared, cursor.as_ref())?;
        for (account, entry) in accounts {
            if let Some(record) = record(shared, &account, entry, now)? {
                records.push(record);
            }
            if records.len() >= limit {
                break;
            }
        }
        match last {
            Some(last) => cursor = Some(last),
            None => break,
        }
    }
    Ok(records)
}

/// Returns the record of an account, if it is notable. Blocks.
pub(super) fn record(
    shared: &Shared,
    account: &Account,
    entry: Option<Arc<Entry>>,
    now: Timestamp,
) -> Result<Option<Record>, String> {
    let entry = match entry {
        Some(entry) => entry,
        None => {
            // For this look only: it is not added to the accounts in memory.
            Arc::new(Entry::read(account, rows::read(&shared.store, account)?, now))
        }
    };
    entry.load(&shared.store, now);
    let mut state = entry.lock();
    let terms = state.terms(&shared.policy.load());
    Ok(state.is_notable(now, &terms).then(|| state.record(now, &terms)))
}

/// Returns what is still to be reported, in the order of [`super::Ledger::untold`]. Blocks.
pub(super) fn untold(shared: &Shared, now: Timestamp) -> Vec<News> {
    let mut news = Vec::new();
    let (mut blocked, mut delayed) = (Vec::new(), Vec::new());
    shared.accounts.each(|entry| {
        let unblocked = |at| News::Unblocked { account: entry.account.clone(), at };
        news.extend(entry.untold_lifting().map(unblocked));
        if entry.is_untold() {
            blocked.push(entry.clone());
        } else if entry.is_probation_untold() {
            delayed.push(entry.clone());
        }
    });
    let record = |entry: Arc<Entry>| {
        let account = entry.account.clone();
        record(shared, &account, Some(entry), now).ok().flatten()
    };
    let blocked = blocked.into_iter().filter_map(record).filter(|record| record.block.is_some());
    news.extend(blocked.map(News::Blocked));
    let is_delayed = |record: &Record| record.block.is_none() && record.probation.is_some();
    news.extend(delayed.into_iter().filter_map(record).filter(is_delayed).map(News::Probation));
    news
}

type Accounts = BTreeMap<Account, Option<Arc<Entry>>>;

/// Returns the next accounts, and the last of them if more may follow.
fn step(shared: &Shared, after: Option<&Account>) -> Result<(Accounts, Option<Account>), String> {
    let entries = shared.accounts.page(after, STEP);
    let mut accounts = Accounts::new();
    // After a full page there may be more entries in memory: accounts on the disk beyond its end wait for the next step.
    let mut end =
        (entries.len() == STEP).then(|| entries.last().map(|entry| entry.account.clone())).flatten();
    let mut cursor = after.cloned();
    // While the database cannot be opened, the accounts in memory are all there is.
    let on_disk = if shared.store.is_open() { STEP } else { 0 };
    for looked in 1..=on_disk {
        let Some(account) = next_account(&shared.store, Tree::Attempts, cursor.as_ref())? else { break };
        if end.as_ref().is_some_and(|end| account > *end) {
            break;
        }
        accounts.insert(account.clone(), None);
        if looked == STEP {
            end = Some(account);
            break;
        }
        cursor = Some(account);
    }
    for entry in entries {
        if end.as_ref().is_none_or(|end| entry.account <= *end) {
            accounts.insert(entry.account.clone(), Some(entry));
        }
    }
    Ok((accounts, end))
}
