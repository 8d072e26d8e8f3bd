//! What is known of every parked message without reading it, about 100 octets each; pure.
//!
//! Answers questions about sizes, limits, due times and pages, and holds the claims. A message being received counts as
//! reserved, so that concurrent messages cannot exceed a limit together.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use super::envelope::{Envelope, State};
use super::schedule::postponed;
use super::terms::{Due, Limits, Usage};
use super::waiting::{Awaited, Message, Sum, Waiting};
use crate::account::Account;
use crate::clock::Timestamp;
use crate::id::QuarantineId;

/// The share of `max_size` from which the quarantine is nearly full (CONTRACT: notice at 80 %).
const NOTICE_SHARE: f64 = 0.8;
/// The share below which it must fall before it is reported again.
const QUIET_SHARE: f64 = 0.7;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// `None` if the envelope cannot be read.
    account: Option<Account>,
    size: u64,
    parked: Timestamp,
    state: State,
    /// The next try or the due time.
    due: Option<Timestamp>,
    /// Whether its release began without an operator's decision.
    begun_by_itself: bool,
    /// Whether the due time was postponed in memory only, not yet on disk.
    put_off: bool,
    told: Option<Box<str>>,
    claimed: bool,
}

impl Record {
    pub(super) fn of(envelope: &Envelope) -> Self {
        Self {
            account: Some(envelope.account.clone()),
            size: envelope.size,
            parked: envelope.parked,
            state: envelope.state(),
            due: envelope.release.as_ref().map_or(envelope.due, |release| release.next),
            begun_by_itself: envelope.release.as_ref().is_some_and(|release| release.by_itself),
            put_off: false,
            told: envelope.told_queue_id.as_deref().map(Into::into),
            claimed: false,
        }
    }

    /// A record for a message whose envelope cannot be read; `size` is that of its message file, in octets.
    pub(super) fn unreadable(id: QuarantineId, size: u64) -> Self {
        Self {
            account: None,
            size,
            parked: id.born(),
            state: State::Unreadable,
            due: None,
            begun_by_itself: false,
            put_off: false,
            told: None,
            claimed: false,
        }
    }

    /// Like [`Envelope::goes_by_itself`], but with a due time that may be postponed in memory only.
    fn goes_by_itself(&self) -> Option<Timestamp> {
        self.due.filter(|_| self.state == State::Parked || self.begun_by_itself)
    }
}

/// Why a message cannot be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Unknown,
    Claimed,
}

#[derive(Debug, Default)]
struct Holding {
    usage: Usage,
    /// Octets of messages being received.
    reserved: u64,
    /// The account's messages that go out, or are tried again, without an operator's decision; empty in the total.
    awaited: BTreeSet<QuarantineId>,
}

impl Holding {
    fn octets(&self) -> u64 {
        self.usage.octets.saturating_add(self.reserved)
    }

    fn add(&mut self, size: u64) {
        self.usage.messages += 1;
        self.usage.octets = self.usage.octets.saturating_add(size);
    }

    fn subtract(&mut self, size: u64) {
        self.usage.messages = self.usage.messages.saturating_sub(1);
        self.usage.octets = self.usage.octets.saturating_sub(size);
    }

    fn is_empty(&self) -> bool {
        self.usage.messages == 0 && self.reserved == 0
    }
}

/// All messages.
#[derive(Debug, Default)]
pub(super) struct Index {
    records: BTreeMap<QuarantineId, Record>,
    accounts: HashMap<Account, Holding>,
    total: Holding,
    /// Due times of the messages that are not claimed.
    due: BTreeSet<(Timestamp, QuarantineId)>,
    noticed: bool,
}

impl Index {
    /// Returns whether a message is claimed.
    pub(super) fn is_claimed(&self, id: QuarantineId) -> bool {
        self.records.get(&id).is_some_and(|record| record.claimed)
    }

    /// Counts the messages whose envelope cannot be read.
    pub(super) fn unreadable(&self) -> u64 {
        let unreadable = self.records.values().filter(|record| record.state == State::Unreadable);
        u64::try_from(unreadable.count()).unwrap_or(u64::MAX)
    }

    /// Checks whether `octets` more of `account` fit; for 0, whether one octet would.
    pub(super) fn fits(&self, limits: &Limits, account: &Account, octets: u64) -> Result<(), String> {
        let fits = |holding: u64, limit: u64| holding.saturating_add(octets.max(1)) <= limit;
        let of_account = self.accounts.get(account).map_or(0, Holding::octets);
        if !fits(self.total.octets(), limits.max_size) {
            return Err(format!("max_size, {} octets, is reached", limits.max_size));
        }
        if !fits(of_account, limits.max_size_per_account) {
            return Err(format!(
                "max_size_per_account, {} octets, is reached by {account}",
                limits.max_size_per_account
            ));
        }
        Ok(())
    }

    /// Reserves `octets` for a message that is being received.
    pub(super) fn reserve(&mut self, limits: &Limits, account: &Account, octets: u64) -> Result<(), String> {
        if octets == 0 {
            return Ok(());
        }
        self.fits(limits, account, octets)?;
        self.total.reserved += octets;
        self.accounts.entry(account.clone()).or_default().reserved += octets;
        Ok(())
    }

    /// Gives back reserved octets.
    pub(super) fn unreserve(&mut self, account: &Account, octets: u64) {
        self.total.reserved = self.total.reserved.saturating_sub(octets);
        if let Some(holding) = self.accounts.get_mut(account) {
            holding.reserved = holding.reserved.saturating_sub(octets);
            if holding.is_empty() {
                self.accounts.remove(account);
            }
        }
    }

    /// Adds a message, or replaces its record. A claim is kept, and so is a later due time that was postponed in
    /// memory.
    pub(super) fn put(&mut self, id: QuarantineId, mut record: Record) {
        if let Some(old) = self.remove(id) {
            record.claimed = old.claimed;
            if old.put_off && record.state == State::Parked && record.due < old.due {
                (record.due, record.put_off) = (old.due, true);
            }
        }
        self.total.add(record.size);
        if let Some(account) = record.account.take() {
            let entry = self.accounts.entry(account);
            // All messages of an account share one allocation.
            record.account = Some(entry.key().clone());
            let holding = entry.or_default();
            holding.add(record.size);
            if record.goes_by_itself().is_some() {
                holding.awaited.insert(id);
            }
        }
        if let Some(due) = record.due.filter(|_| !record.claimed) {
            self.due.insert((due, id));
        }
        self.records.insert(id, record);
    }

    /// Removes a message.
    pub(super) fn remove(&mut self, id: QuarantineId) -> Option<Record> {
        let record = self.records.remove(&id)?;
        self.total.subtract(record.size);
        if let Some(account) = &record.account
            && let Some(holding) = self.accounts.get_mut(account)
        {
            holding.subtract(record.size);
            holding.awaited.remove(&id);
            if holding.is_empty() {
                self.accounts.remove(account);
            }
        }
        if let Some(due) = record.due {
            self.due.remove(&(due, id));
        }
        Some(record)
    }

    /// Claims a message.
    pub(super) fn claim(&mut self, id: QuarantineId) -> Result<(), Refusal> {
        let record = self.records.get_mut(&id).ok_or(Refusal::Unknown)?;
        if record.claimed {
            return Err(Refusal::Claimed);
        }
        record.claimed = true;
        if let Some(due) = record.due {
            self.due.remove(&(due, id));
        }
        Ok(())
    }

    /// Ends a claim; no effect if the message was removed meanwhile.
    pub(super) fn unclaim(&mut self, id: QuarantineId) {
        if let Some(record) = self.records.get_mut(&id) {
            record.claimed = false;
            if let Some(due) = record.due {
                self.due.insert((due, id));
            }
        }
    }

    pub(super) fn state(&self, id: QuarantineId) -> Option<State> {
        self.records.get(&id).map(|record| record.state)
    }

    pub(super) fn size(&self, id: QuarantineId) -> Option<u64> {
        self.records.get(&id).map(|record| record.size)
    }

    /// Returns the newest message for which a client was told `queue_id`.
    pub(super) fn told(&self, queue_id: &str) -> Option<QuarantineId> {
        let mut newest_first = self.records.iter().rev();
        newest_first.find(|(_, record)| record.told.as_deref() == Some(queue_id)).map(|(id, _)| *id)
    }

    /// Returns the first `count` ids after `after`, restricted to `account` and to messages parked at or after `since`
    /// if these are given.
    pub(super) fn page(
        &self,
        account: Option<&Account>,
        since: Option<Timestamp>,
        after: Option<QuarantineId>,
        count: usize,
    ) -> Vec<QuarantineId> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.records
            .range((from, Bound::Unbounded))
            .filter(|(_, record)| account.is_none_or(|account| record.account.as_ref() == Some(account)))
            .filter(|(_, record)| since.is_none_or(|since| record.parked >= since))
            .map(|(id, _)| *id)
            .take(count)
            .collect()
    }

    /// Returns the unclaimed messages whose time has come, the longest due first.
    pub(super) fn due(&self, now: Timestamp) -> Vec<Due> {
        let come = self.due.iter().take_while(|(due, _)| *due <= now);
        let of = |id: &QuarantineId| {
            let record = self.records.get(id)?;
            let by_itself = record.goes_by_itself().is_some();
            Some(Due { id: *id, account: record.account.clone()?, state: record.state, by_itself })
        };
        come.filter_map(|(_, id)| of(id)).collect()
    }

    /// Returns when a parked message goes out by itself.
    pub(super) fn due_time(&self, id: QuarantineId) -> Option<Timestamp> {
        self.records.get(&id).filter(|record| record.state == State::Parked)?.due
    }

    /// Postpones the parked messages of `account` that go out by themselves, now that its probation lasts until
    /// `until`.
    pub(super) fn postpone(&mut self, account: &Account, until: Timestamp) {
        let Some(holding) = self.accounts.get(account) else { return };
        for id in &holding.awaited {
            let Some(record) = self.records.get_mut(id) else { continue };
            let Some(due) = record.due.filter(|_| record.state == State::Parked) else { continue };
            let later = postponed(due, record.parked, until);
            if later == due {
                continue;
            }
            record.due = Some(later);
            record.put_off = true;
            if self.due.remove(&(due, *id)) {
                self.due.insert((later, *id));
            }
        }
    }

    /// Returns the messages of `account` that go out, or are tried again, without an operator's decision; if `by` is
    /// given, only those due by then.
    pub(super) fn awaited_ids(&self, account: &Account, by: Option<Timestamp>) -> Vec<QuarantineId> {
        let is_awaited =
            |record: &Record| record.goes_by_itself().is_some_and(|due| by.is_none_or(|by| due <= by));
        self.awaited_records(account).filter(|(_, record)| is_awaited(record)).map(|(id, _)| id).collect()
    }

    /// Makes a message wait for an operator.
    pub(super) fn keep(&mut self, id: QuarantineId) {
        if let Some(record) = self.records.get_mut(&id) {
            record.put_off = false;
            if let Some(due) = record.due.take() {
                self.due.remove(&(due, id));
            }
            if let Some(holding) = record.account.as_ref().and_then(|account| self.accounts.get_mut(account))
            {
                holding.awaited.remove(&id);
            }
        }
    }

    /// Returns the messages of `account` whose due time was postponed in memory only.
    pub(super) fn put_off(&self, account: &Account) -> Vec<QuarantineId> {
        self.awaited_records(account).filter(|(_, record)| record.put_off).map(|(id, _)| id).collect()
    }

    /// Returns what waits for an operator, by account; messages parked before `before` count as old.
    pub(super) fn waiting(&self, before: Option<Timestamp>) -> Vec<Waiting> {
        let mut sum = Sum::default();
        for record in self.records.values() {
            let Some(account) = &record.account else { continue };
            let (size, parked, state) = (record.size, record.parked, record.state);
            sum.add(Message { account, size, parked, state, awaited: record.due.is_some() }, before);
        }
        sum.done()
    }

    /// Returns when the oldest message that waits for an operator was parked.
    pub(super) fn oldest_waiting(&self) -> Option<Timestamp> {
        let mut waiting =
            self.records.values().filter(|record| matches!(record.state, State::Parked | State::Failed));
        waiting.next().map(|record| record.parked)
    }

    /// Summarizes the messages of `account` that go out, or are tried again, without an operator's decision.
    pub(super) fn awaited(&self, account: &Account) -> Awaited {
        let mut awaited = Awaited::default();
        self.awaited_records(account).filter_map(|(_, record)| record.due).for_each(|due| awaited.add(due));
        awaited
    }

    /// Returns the same for all accounts that have such messages.
    pub(super) fn all_awaited(&self) -> BTreeMap<Account, Awaited> {
        self.awaited_accounts().into_iter().map(|account| (account.clone(), self.awaited(&account))).collect()
    }

    fn awaited_records(&self, account: &Account) -> impl Iterator<Item = (QuarantineId, &Record)> {
        let ids = self.accounts.get(account).into_iter().flat_map(|holding| &holding.awaited);
        ids.filter_map(|id| Some((*id, self.records.get(id)?)))
    }

    /// Returns the accounts with such messages.
    pub(super) fn awaited_accounts(&self) -> BTreeSet<Account> {
        let awaited = self.accounts.iter().filter(|(_, holding)| !holding.awaited.is_empty());
        awaited.map(|(account, _)| account.clone()).collect()
    }

    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Returns up to `count` unclaimed messages in state `Parked` that were parked before `before`. One with a due time
    /// is included only if that has come and its account is in `held`.
    pub(super) fn parked_before(
        &self,
        before: Timestamp,
        now: Timestamp,
        held: &BTreeSet<Account>,
        count: usize,
    ) -> Vec<QuarantineId> {
        let waits = |record: &Record| match record.due {
            None => true,
            Some(due) => due <= now && record.account.as_ref().is_some_and(|account| held.contains(account)),
        };
        // No message is parked before its id is born.
        let old = self.records.iter().take_while(|(id, _)| id.born() < before);
        old.filter(|(_, record)| record.state == State::Parked && !record.claimed && record.parked < before)
            .filter(|(_, record)| waits(record))
            .map(|(id, _)| *id)
            .take(count)
            .collect()
    }

    pub(super) fn usage(&self, account: Option<&Account>) -> Usage {
        match account {
            None => self.total.usage,
            Some(account) => self.accounts.get(account).map_or_else(Usage::default, |holding| holding.usage),
        }
    }

    /// Returns the used share of `max_size`, 0 to 1.
    pub(super) fn fill_level(&self, limits: &Limits) -> f64 {
        // Precise enough: sizes below 2^53 octets convert exactly.
        let level = self.total.octets() as f64 / limits.max_size.max(1) as f64;
        level.min(1.0)
    }

    /// Returns whether it has become nearly full since the last call.
    pub(super) fn became_nearly_full(&mut self, limits: &Limits) -> bool {
        let level = self.fill_level(limits);
        let news = level >= NOTICE_SHARE && !self.noticed;
        self.noticed = level >= if self.noticed { QUIET_SHARE } else { NOTICE_SHARE };
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quarantine::envelope::Release;
    use crate::quarantine::sample::{envelope, id};

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn limits() -> Limits {
        Limits { max_size: 100, max_size_per_account: 60, expire_after: None }
    }

    fn account(name: &str) -> Account {
        name.parse().unwrap()
    }

    fn due(id: QuarantineId, state: State) -> Due {
        Due { id, account: account("anna"), state, by_itself: state == State::Parked }
    }

    fn record(name: &str, size: usize) -> Record {
        Record { account: Some(account(name)), ..Record::of(&envelope(id(1), &vec![0; size])) }
    }

    #[test]
    fn usage_follows_what_is_put_and_removed() {
        let mut index = Index::default();
        let (one, two, three) = (id(1), id(2), id(3));
        index.put(one, record("anna", 10));
        index.put(two, record("bert", 20));
        index.put(three, Record::unreadable(three, 5));
        index.put(one, record("anna", 10));
        let usage = |messages, octets| Usage { messages, octets };
        assert_eq!(index.usage(None), usage(3, 35));
        assert_eq!(index.usage(Some(&account("anna"))), usage(1, 10));
        assert_eq!(index.page(Some(&account("bert")), None, None, 9), [two]);
        assert_eq!(index.page(None, None, Some(one), 9), [two, three]);
        assert_eq!(index.page(None, Some(at(2)), None, 9), [three], "the sample was parked at 1");
        index.remove(one);
        assert_eq!(index.remove(one), None);
        assert_eq!(index.usage(Some(&account("anna"))), usage(0, 0));
        assert_eq!(index.usage(None), usage(2, 25));
        assert_eq!(index.accounts.len(), 1);
    }

    #[test]
    fn reservations_count_against_both_limits() {
        let (anna, bert) = (account("anna"), account("bert"));
        let mut index = Index::default();
        index.put(id(1), record("anna", 30));
        assert!(index.reserve(&limits(), &anna, 31).unwrap_err().contains("per_account"));
        index.reserve(&limits(), &anna, 30).unwrap();
        assert!(index.fits(&limits(), &anna, 0).is_err(), "not one octet more");
        index.fits(&limits(), &bert, 0).unwrap();
        assert!(index.reserve(&limits(), &bert, 41).unwrap_err().contains("max_size,"));
        index.reserve(&limits(), &bert, 40).unwrap();
        assert!(index.fits(&limits(), &account("carl"), 0).is_err());
        index.unreserve(&anna, 30);
        index.unreserve(&bert, 40);
        assert_eq!((index.total.reserved, index.accounts.len()), (0, 1));
        assert!(index.fits(&limits(), &anna, u64::MAX).is_err());
    }

    #[test]
    fn a_claim_is_one_hand_and_hides_what_is_due() {
        let mut index = Index::default();
        let (one, two) = (id(1), id(2));
        let mut releasing = envelope(two, b"");
        releasing.due = Some(at(1));
        releasing.release =
            Some(Release { requested: at(0), quiet: false, by_itself: false, tries: 1, next: Some(at(7)) });
        index.put(one, Record { due: Some(at(9)), ..record("anna", 1) });
        index.put(two, Record::of(&releasing));
        assert_eq!(index.next_due(), Some(at(7)));
        let (first, second) = (due(two, State::Releasing), due(one, State::Parked));
        assert!(index.due(at(8)).iter().eq([&first]));
        assert_eq!(index.due(at(9)), [first, second.clone()]);
        index.claim(two).unwrap();
        assert_eq!(index.claim(two), Err(Refusal::Claimed));
        assert_eq!(index.claim(id(3)), Err(Refusal::Unknown));
        assert_eq!((index.due(at(9)), index.next_due()), (vec![second], Some(at(9))));
        releasing.release.as_mut().unwrap().next = Some(at(20));
        index.put(two, Record::of(&releasing));
        assert_eq!(index.claim(two), Err(Refusal::Claimed), "a change keeps the claim");
        index.unclaim(two);
        index.remove(one);
        index.unclaim(one);
        assert_eq!((index.due(at(9)), index.next_due()), (vec![], Some(at(20))));
    }

    #[test]
    fn what_goes_out_by_itself_is_put_off_account_by_account() {
        const DAY: u64 = 24 * 3_600_000;
        let mut index = Index::default();
        let ids = [id(1), id(2), id(3), id(4), id(5)];
        for (id, name, due) in
            [(ids[0], "anna", 10), (ids[1], "bert", 11), (ids[2], "anna", 12), (ids[3], "anna", 40)]
        {
            index.put(id, Record { due: Some(at(due)), parked: at(1), ..record(name, 1) });
        }
        // Neither a message that waits for an operator nor a release under way is postponed.
        let release = Record { state: State::Releasing, due: Some(at(5)), ..record("anna", 1) };
        index.put(ids[4], release);
        index.put(id(6), record("anna", 1));
        index.claim(ids[2]).unwrap();
        index.postpone(&account("anna"), at(30));
        let times = |index: &Index| ids.map(|id| index.due_time(id).map(Timestamp::as_millis));
        assert_eq!(times(&index), [Some(30), Some(11), Some(30), Some(40), None]);
        index.unclaim(ids[2]);
        let come: Vec<_> = index.due(at(30)).into_iter().map(|due| due.id).collect();
        assert_eq!(come, [ids[4], ids[1], ids[0], ids[2]], "the oldest first of those that are due at once");
        index.postpone(&account("anna"), at(DAY + 1000));
        assert_eq!(times(&index), [Some(DAY + 1), Some(11), Some(DAY + 1), Some(DAY + 1), None]);
        assert_eq!(index.awaited_accounts(), [account("anna"), account("bert")].into());
        let anna = Awaited { messages: 3, next: Some(at(DAY + 1)), last: Some(at(DAY + 1)) };
        let bert = Awaited { messages: 1, next: Some(at(11)), last: Some(at(11)) };
        assert_eq!((index.awaited(&account("anna")), index.awaited(&account("bert"))), (anna, bert));
        assert_eq!(index.all_awaited(), [(account("anna"), anna), (account("bert"), bert)].into());
        assert_eq!(index.awaited(&account("carl")), Awaited::default());
        assert_eq!(index.awaited_ids(&account("bert"), Some(at(10))), []);
        assert_eq!(index.awaited_ids(&account("bert"), Some(at(11))), [ids[1]]);
        assert_eq!(index.awaited_ids(&account("bert"), None), [ids[1]]);
        index.keep(ids[1]);
        assert_eq!((index.awaited(&account("bert")), index.due_time(ids[1])), (Awaited::default(), None));
        assert_eq!(index.awaited_ids(&account("bert"), None), []);
        assert_eq!(index.put_off(&account("anna")), [ids[0], ids[2], ids[3]]);
        for id in ids {
            index.remove(id);
        }
        assert_eq!((index.due.len(), index.awaited_accounts()), (0, [].into()));
    }

    #[test]
    fn only_what_waits_for_an_operator_expires() {
        let mut index = Index::default();
        let ids = [id(1), id(2), id(3), id(4), id(5)];
        for (place, id) in ids.iter().enumerate() {
            let parked = at(place as u64 + 1);
            index.put(*id, Record { parked, ..record("anna", 1) });
        }
        index.claim(ids[0]).unwrap();
        index.put(ids[1], Record { state: State::Failed, ..record("anna", 1) });
        index.put(ids[2], Record::unreadable(ids[2], 1));
        let expire = |index: &Index, before, held: &[&str]| {
            index.parked_before(at(before), at(8), &held.iter().map(|name| account(name)).collect(), 9)
        };
        assert_eq!(expire(&index, 5, &[]), [ids[3]]);
        assert_eq!(expire(&index, 6, &[]), [ids[3], ids[4]]);
        for (due, held, expected) in [
            (9, &[][..], &[ids[4]][..]),
            (9, &["anna"], &[ids[4]]),
            (8, &["bert"], &[ids[4]]),
            (8, &["anna"], &[ids[3], ids[4]]),
        ] {
            index.put(ids[3], Record { parked: at(4), due: Some(at(due)), ..record("anna", 1) });
            assert_eq!(expire(&index, 6, held), expected, "due at {due}, {held:?} blocked");
        }
    }

    #[test]
    fn the_newest_of_those_with_one_told_id() {
        let mut index = Index::default();
        let (one, two) = (id(1), id(2));
        index.put(one, record("anna", 1));
        index.put(two, record("anna", 1));
        assert_eq!(index.told("4F2A91B0C3"), Some(two));
        assert_eq!(index.told("4F2A91B0C"), None);
    }

    #[test]
    fn nearly_full_is_said_once_a_time() {
        let mut index = Index::default();
        let limits = Limits { max_size_per_account: 100, ..limits() };
        for (octets, expected) in
            [(79, false), (80, true), (90, false), (75, false), (85, false), (69, false), (80, true)]
        {
            index.put(id(1), record("anna", octets));
            assert_eq!(index.became_nearly_full(&limits), expected, "{octets}");
            let kept = index.records.keys().next().copied().unwrap();
            index.remove(kept);
        }
    }
}
