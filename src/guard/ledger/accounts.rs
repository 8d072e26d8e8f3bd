//! The accounts in memory: those in use, blocked, on probation, or with changes that are not on the disk yet.
//!
//! An entry is in the map before the account is read from the disk, so each account has at most one. An account that nobody
//! uses leaves at once, unless only memory knows its messages and recipients: a thief whose program reconnects for each message
//! must still have them in his record, and must not pass for honest by writing to himself over and over. Such accounts stay for
//! an hour, in bounded number.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Probation;
use super::entry::Entry;
use super::rows::KeptBlock;
use super::state::State;
use crate::account::Account;
use crate::clock::Timestamp;

/// How long an account stays only because of its messages.
const IDLE: Duration = Duration::from_secs(3600);
/// How many octets those accounts may take in all; beyond that, the longest idle ones leave.
const IDLE_OCTETS: usize = 10_000_000;

#[derive(Debug, Default)]
pub(super) struct Accounts {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: BTreeMap<Account, Arc<Entry>>,
    /// The idle accounts, longest idle first.
    idle: BTreeMap<u64, Idle>,
    last_idle: u64,
    idle_octets: usize,
}

#[derive(Debug)]
struct Idle {
    since: Instant,
    octets: usize,
    entry: Arc<Entry>,
}

impl Accounts {
    /// Builds the accounts that are blocked, on probation, or whose lifted block is still to be reported.
    pub(super) fn of(
        blocks: Vec<(Account, KeptBlock)>,
        probations: Vec<(Account, Probation)>,
        lifted: Vec<(Account, Timestamp)>,
    ) -> Self {
        let mut withheld: BTreeMap<Account, (Option<KeptBlock>, Option<Probation>)> = BTreeMap::new();
        for (account, _) in &lifted {
            withheld.entry(account.clone()).or_default();
        }
        for (account, block) in blocks {
            withheld.entry(account).or_default().0 = Some(block);
        }
        for (account, probation) in probations {
            withheld.entry(account).or_default().1 = Some(probation);
        }
        let entries = withheld.into_iter().map(|(account, (block, probation))| {
            let entry = Arc::new(Entry::withheld(&account, block, probation));
            (account, entry)
        });
        let entries: BTreeMap<Account, Arc<Entry>> = entries.collect();
        for (account, at) in lifted {
            if let Some(entry) = entries.get(&account) {
                entry.lock().was_lifted(at);
            }
        }
        Self { inner: Mutex::new(Inner { entries, ..Inner::default() }) }
    }

    /// Returns the entry of `account` with one more holder.
    pub(super) fn hold(&self, account: &Account) -> Arc<Entry> {
        let mut inner = self.lock();
        let entry =
            inner.entries.entry(account.clone()).or_insert_with(|| Arc::new(Entry::new(account))).clone();
        let mut state = entry.lock();
        state.holders += 1;
        if let Some(place) = state.idle.take() {
            inner.no_more_idle(place);
        }
        drop(state);
        entry
    }

    /// Returns the entry of `account`, if it is in memory.
    pub(super) fn find(&self, account: &Account) -> Option<Arc<Entry>> {
        self.lock().entries.get(account).cloned()
    }

    /// Returns the first `most` entries after `after`, by account.
    pub(super) fn page(&self, after: Option<&Account>, most: usize) -> Vec<Arc<Entry>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let inner = self.lock();
        inner
            .entries
            .range::<Account, _>((from, Bound::Unbounded))
            .take(most)
            .map(|(_, entry)| entry.clone())
            .collect()
    }

    /// Calls `visit` with each entry.
    pub(super) fn each(&self, visit: impl FnMut(&Arc<Entry>)) {
        self.lock().entries.values().for_each(visit);
    }

    /// Removes one holder; `leave` as for [`Self::settle`].
    pub(super) fn release(&self, entry: &Arc<Entry>, leave: impl FnMut(&Arc<Entry>, &mut State)) {
        entry.lock().holders -= 1;
        self.settle(entry, leave);
    }

    /// Drops an entry that nobody needs any more, and the longest idle ones if there are too many. `leave` is called before an
    /// idle one goes, and may keep it by making it dirty.
    pub(super) fn settle(&self, entry: &Arc<Entry>, mut leave: impl FnMut(&Arc<Entry>, &mut State)) {
        let mut inner = self.lock();
        let mut state = entry.lock();
        if !state.is_idle() || state.idle.is_some() || !inner.has(entry) {
            return;
        }
        let octets = state.unwritten_octets();
        if octets == 0 {
            inner.entries.remove(&entry.account);
            return;
        }
        inner.last_idle += 1;
        let place = inner.last_idle;
        state.idle = Some(place);
        drop(state);
        inner.idle.insert(place, Idle { since: Instant::now(), octets, entry: entry.clone() });
        inner.idle_octets += octets;
        while inner.idle_octets > IDLE_OCTETS && inner.dismiss(&mut leave) {}
    }

    /// Drops the entries that have been idle for [`IDLE`].
    pub(super) fn dismiss_idle(&self, now: Instant, mut leave: impl FnMut(&Arc<Entry>, &mut State)) {
        let mut inner = self.lock();
        let due = |idle: &Idle| now.saturating_duration_since(idle.since) >= IDLE;
        while inner.idle.first_key_value().is_some_and(|(_, idle)| due(idle)) {
            inner.dismiss(&mut leave);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn no_more_idle(&mut self, place: u64) {
        if let Some(idle) = self.idle.remove(&place) {
            self.idle_octets -= idle.octets;
        }
    }

    /// Drops the longest idle entry, unless `leave` keeps it to be written; returns `false` if there is none.
    fn dismiss(&mut self, leave: &mut impl FnMut(&Arc<Entry>, &mut State)) -> bool {
        let Some((_, idle)) = self.idle.pop_first() else { return false };
        self.idle_octets -= idle.octets;
        let mut state = idle.entry.lock();
        state.idle = None;
        leave(&idle.entry, &mut state);
        if state.is_idle() {
            self.entries.remove(&idle.entry.account);
        }
        true
    }

    /// Whether the entry is still the one in the map: it may have left, and another taken its place.
    fn has(&self, entry: &Arc<Entry>) -> bool {
        self.entries.get(&entry.account).is_some_and(|held| Arc::ptr_eq(held, entry))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Relayed;
    use super::*;

    fn message() -> Relayed {
        Relayed { at: Timestamp::from_millis(1), reply: "250 2.0.0 Ok: queued as 1".into(), message_id: None }
    }

    fn account(text: &str) -> Account {
        text.parse().unwrap()
    }

    #[test]
    fn who_leaves_when() {
        let accounts = Accounts::default();
        let (a, b) = (accounts.hold(&account("a")), accounts.hold(&account("b")));
        let second = accounts.hold(&account("a"));
        assert!(Arc::ptr_eq(&a, &second), "one entry an account");

        accounts.release(&a, |_, _| {});
        assert!(accounts.find(&a.account).is_some(), "somebody holds it still");
        accounts.release(&a, |_, _| {});
        assert!(accounts.find(&a.account).is_none());

        b.lock().relayed(message());
        accounts.release(&b, |_, _| {});
        assert!(accounts.find(&b.account).is_some(), "for the sake of its message");
        accounts.dismiss_idle(Instant::now(), |_, _| unreachable!("its time has not come"));
        let again = accounts.hold(&b.account);
        assert!(Arc::ptr_eq(&b, &again));
        accounts.dismiss_idle(Instant::now() + IDLE, |_, _| unreachable!("it is in use"));
        accounts.release(&b, |_, _| {});

        // Kept for its messages to be written: then it goes with the next to settle it.
        accounts.dismiss_idle(Instant::now() + IDLE, |_, state| state.write_messages());
        assert!(accounts.find(&b.account).is_some());
        let mut asked = 0;
        accounts.dismiss_idle(Instant::now() + IDLE, |_, _| asked += 1);
        assert_eq!(asked, 0, "it is not idle, it is waiting to be written");
    }

    #[test]
    fn idle_accounts_are_bounded() {
        let accounts = Accounts::default();
        let most = IDLE_OCTETS / 250 / 50;
        for n in 0..most + 10 {
            let entry = accounts.hold(&account(&format!("user-{n:05}")));
            (0..50).for_each(|_| entry.lock().relayed(message()));
            accounts.release(&entry, |_, _| {});
        }
        assert_eq!(accounts.page(None, usize::MAX).len(), most);
        assert!(accounts.find(&account("user-00009")).is_none(), "the longest idle went");
        assert!(accounts.find(&account("user-00010")).is_some());
    }
}
