//! What is known of all parked messages without reading them: a record each, and as much again for one that is to go;
//! pure.
//!
//! Answers questions about sizes, limits, due times and pages, and holds the claims. A message being received counts as
//! reserved, so that concurrent messages cannot exceed a limit together. Whenever a record comes, changes or goes, `enter` and
//! `leave` keep what is counted by state and sorted by time.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::iter;
use std::ops::Bound;

use super::envelope::State;
use super::queue::Queue;
use super::record::Record;
use super::schedule::{next_try_by, postponed};
use super::stock::Stock;
use super::terms::{Limits, Line, Usage};
use super::waiting::{Awaited, Message, Sum, Waiting};
use super::weight::Weight;
use crate::account::Account;
use crate::clock::Timestamp;
use crate::id::QuarantineId;

/// The share of `max_size` from which the quarantine is nearly full (CONTRACT: notice at 80 %).
const NOTICE_SHARE: f64 = 0.8;
/// The share below which it must fall before it is reported again.
const QUIET_SHARE: f64 = 0.7;

/// The shortest of several queue ids by which a message is found, in octets.
const SHORTEST_TOLD: usize = 8;

/// Why a message cannot be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Unknown,
    Claimed,
}

#[derive(Debug, Default)]
struct Holding {
    messages: u64,
    parked: Weight,
    /// Of messages being received.
    reserved: Weight,
    /// The account's messages that go out, or are tried again, without an operator's decision, by due time; empty in
    /// the total.
    awaited: BTreeSet<(Timestamp, QuarantineId)>,
}

impl Holding {
    fn weight(&self) -> Weight {
        self.parked.plus(self.reserved)
    }

    fn usage(&self) -> Usage {
        Usage { messages: self.messages, octets: self.parked.content() }
    }

    fn add(&mut self, weight: Weight) {
        self.messages += 1;
        self.parked = self.parked.plus(weight);
    }

    fn subtract(&mut self, weight: Weight) {
        self.messages = self.messages.saturating_sub(1);
        self.parked = self.parked.minus(weight);
    }

    fn is_empty(&self) -> bool {
        self.messages == 0 && self.reserved == Weight::default()
    }
}

/// All messages.
#[derive(Debug, Default)]
pub(super) struct Index {
    records: BTreeMap<QuarantineId, Record>,
    accounts: HashMap<Account, Holding>,
    total: Holding,
    stock: Stock,
    queue: Queue,
    /// Those that wait for an operator and were parked, as the clock said, before their id was born: it was wrong at one of the
    /// two. All others are no older than their ids, which sort them.
    misdated: BTreeSet<(Timestamp, QuarantineId)>,
    noticed: bool,
}

impl Index {
    /// Returns whether a message is claimed.
    pub(super) fn is_claimed(&self, id: QuarantineId) -> bool {
        self.records.get(&id).is_some_and(|record| record.claimed)
    }

    /// Returns how many messages have an envelope that cannot be read.
    pub(super) fn unreadable(&self) -> u64 {
        self.stock.of(State::Unreadable).messages
    }

    /// Returns the first `count` of them after `after`.
    pub(super) fn unreadable_after(&self, after: Option<QuarantineId>, count: usize) -> Vec<QuarantineId> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let later = self.records.range((from, Bound::Unbounded));
        later.filter(|(_, record)| record.state == State::Unreadable).map(|(id, _)| *id).take(count).collect()
    }

    /// Replaces the record of a message that could not be read, and now can.
    pub(super) fn heal(&mut self, id: QuarantineId, record: Record) {
        if self.state(id) == Some(State::Unreadable) {
            self.put(id, Record { was_unreadable: true, ..record });
        }
    }

    /// Checks whether one more message of `account` with `octets` would fit, whatever its envelope; for 0, whether one
    /// of one octet would.
    pub(super) fn fits(&self, limits: &Limits, account: &Account, octets: u64) -> Result<(), String> {
        self.check(limits, account, Weight::of_content(octets.max(1)).plus(Weight::of_envelope(0)))
    }

    fn check(&self, limits: &Limits, account: &Account, more: Weight) -> Result<(), String> {
        let fits = |holding: Weight, limit: u64| holding.plus(more).counted() <= limit;
        let of_account = self.accounts.get(account).map_or_else(Weight::default, Holding::weight);
        if !fits(self.total.weight(), limits.max_size) {
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

    /// Reserves `more` for a message that is being received.
    pub(super) fn reserve(&mut self, limits: &Limits, account: &Account, more: Weight) -> Result<(), String> {
        if more == Weight::default() {
            return Ok(());
        }
        self.check(limits, account, more)?;
        self.total.reserved = self.total.reserved.plus(more);
        let holding = self.accounts.entry(account.clone()).or_default();
        holding.reserved = holding.reserved.plus(more);
        Ok(())
    }

    /// Gives back what was reserved.
    pub(super) fn unreserve(&mut self, account: &Account, weight: Weight) {
        self.total.reserved = self.total.reserved.minus(weight);
        if let Some(holding) = self.accounts.get_mut(account) {
            holding.reserved = holding.reserved.minus(weight);
            if holding.is_empty() {
                self.accounts.remove(account);
            }
        }
    }

    /// Adds a message, or replaces its record. A claim and a rest are kept, and so are a due time and a time of arrival
    /// that were changed in memory.
    pub(super) fn put(&mut self, id: QuarantineId, mut record: Record) {
        if let Some(old) = self.remove(id) {
            (record.claimed, record.rests) = (old.claimed, old.rests);
            record.was_unreadable |= old.was_unreadable;
            if old.state != State::Unreadable {
                // The envelope says when it came by the clock of that time, which may have been ahead.
                record.parked = record.parked.min(old.parked);
            }
            if old.put_off
                && record.state == State::Parked
                && record.due.is_some_and(|due| Some(due) != old.due)
            {
                (record.due, record.put_off) = (old.due, true);
            }
        }
        let weight = record.weight();
        self.total.add(weight);
        if let Some(account) = record.account.take() {
            let entry = self.accounts.entry(account);
            // All messages of an account share one allocation.
            record.account = Some(entry.key().clone());
            entry.or_default().add(weight);
        }
        self.records.insert(id, record);
        self.enter(id);
    }

    /// Removes a message.
    pub(super) fn remove(&mut self, id: QuarantineId) -> Option<Record> {
        self.leave(id);
        let record = self.records.remove(&id)?;
        self.total.subtract(record.weight());
        if let Some(account) = &record.account
            && let Some(holding) = self.accounts.get_mut(account)
        {
            holding.subtract(record.weight());
            if holding.is_empty() {
                self.accounts.remove(account);
            }
        }
        Some(record)
    }

    /// Changes a message's record, its place wherever messages are sorted by time, and the counts; no effect if it is
    /// gone.
    fn change(&mut self, id: QuarantineId, change: impl FnOnce(&mut Record)) {
        self.leave(id);
        if let Some(record) = self.records.get_mut(&id) {
            change(record);
        }
        self.enter(id);
    }

    /// Enters a message wherever messages are counted by state or sorted by time.
    fn enter(&mut self, id: QuarantineId) {
        let Some(record) = self.records.get(&id) else { return };
        self.stock.add(record.state, record.size);
        if let Some(due) = record.goes_by_itself()
            && let Some(holding) = record.account.as_ref().and_then(|account| self.accounts.get_mut(account))
        {
            holding.awaited.insert((due, id));
        }
        if let (Some(time), Some(line)) = (record.goes_from(), record.line()) {
            self.queue.insert(time, id, line);
        }
        if record.waits() && record.parked < id.born() {
            self.misdated.insert((record.parked, id));
        }
    }

    /// Takes a message out from there. Nothing that it is counted or sorted by may change before that.
    fn leave(&mut self, id: QuarantineId) {
        let Some(record) = self.records.get(&id) else { return };
        self.stock.subtract(record.state, record.size);
        if let Some(due) = record.goes_by_itself()
            && let Some(holding) = record.account.as_ref().and_then(|account| self.accounts.get_mut(account))
        {
            holding.awaited.remove(&(due, id));
        }
        if let Some(time) = record.goes_from() {
            self.queue.remove(time, id);
        }
        self.misdated.remove(&(record.parked, id));
    }

    /// Claims a message.
    pub(super) fn claim(&mut self, id: QuarantineId) -> Result<(), Refusal> {
        let record = self.records.get(&id).ok_or(Refusal::Unknown)?;
        if record.claimed {
            return Err(Refusal::Claimed);
        }
        self.change(id, |record| record.claimed = true);
        Ok(())
    }

    /// Claims the message that goes first of those due at `now`, among the lines that are `open`. Of those whose delay
    /// is over that is the oldest, of those to be tried again the one that is longest due.
    pub(super) fn claim_due(
        &mut self,
        now: Timestamp,
        open: impl FnMut(&Line) -> bool,
    ) -> Option<(QuarantineId, Line)> {
        let (id, line) = self.queue.first(now, open)?;
        self.change(id, |record| record.claimed = true);
        Some((id, line))
    }

    /// Ends a claim; no effect if the message was removed meanwhile.
    pub(super) fn unclaim(&mut self, id: QuarantineId) {
        self.change(id, |record| record.claimed = false);
    }

    /// Leaves a message alone until `until`, although it may be due.
    pub(super) fn rest(&mut self, id: QuarantineId, until: Timestamp) {
        self.change(id, |record| record.rests = Some(until));
    }

    pub(super) fn state(&self, id: QuarantineId) -> Option<State> {
        self.records.get(&id).map(|record| record.state)
    }

    pub(super) fn size(&self, id: QuarantineId) -> Option<u64> {
        self.records.get(&id).map(|record| record.size)
    }

    /// Returns, for each of these queue ids that a client was told, alone or among others, the newest message. Of several, a
    /// short one says too little: many messages have the same five digits. Looks at each message once.
    pub(super) fn told<'a>(&self, queue_ids: &HashSet<&'a str>) -> HashMap<&'a str, QuarantineId> {
        let mut found = HashMap::new();
        for (id, record) in self.records.iter().rev() {
            if found.len() == queue_ids.len() {
                break;
            }
            let Some(told) = record.told.as_deref() else { continue };
            let words = told.split(' ').filter(|word| word.len() >= SHORTEST_TOLD);
            for queue_id in iter::once(told).chain(words).filter_map(|word| queue_ids.get(word)) {
                found.entry(*queue_id).or_insert(*id);
            }
        }
        found
    }

    /// Returns the only message that has this queue id among others, which is too short for [`Self::told`].
    pub(super) fn told_among_others(&self, queue_id: &str) -> Option<QuarantineId> {
        if queue_id.len() >= SHORTEST_TOLD {
            return None;
        }
        let has = |told: &str| told.split(' ').any(|word| word == queue_id);
        let mut found = self.records.iter().filter(|(_, record)| record.told.as_deref().is_some_and(has));
        found.next().map(|(id, _)| *id).filter(|_| found.next().is_none())
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

    /// Returns whether an unclaimed message of `account` that goes out, or is tried again, without an operator's
    /// decision is due at `now`.
    pub(super) fn is_due_by_itself(&self, account: &Account, now: Timestamp) -> bool {
        let mut due = self.awaited_of(account).take_while(|(due, _)| *due <= now);
        due.any(|(_, id)| !self.is_claimed(id))
    }

    /// Returns when a parked message goes out by itself.
    pub(super) fn due_time(&self, id: QuarantineId) -> Option<Timestamp> {
        self.records.get(&id).filter(|record| record.state == State::Parked)?.due
    }

    /// Postpones the parked messages of `account` that go out by themselves, now that its probation lasts until
    /// `until`.
    pub(super) fn postpone(&mut self, account: &Account, until: Timestamp) {
        let early: Vec<_> = self.awaited_of(account).take_while(|(due, _)| *due < until).collect();
        for (due, id) in early {
            let Some(record) = self.records.get(&id).filter(|record| record.state == State::Parked) else {
                continue;
            };
            let later = postponed(due, record.parked, until);
            if later != due {
                self.change(id, |record| (record.due, record.put_off) = (Some(later), true));
            }
        }
    }

    /// Brings back next tries and due times that were set while the clock was ahead; `latest` is the latest time that it
    /// has said for a while. In memory only. Looks only at what is to go after that.
    pub(super) fn bring_back(&mut self, latest: Timestamp) {
        let rest = |record: &Record| record.rests.map(|until| next_try_by(until, latest));
        let is_ahead = |record: &Record| record.due_by(latest) != record.due || rest(record) != record.rests;
        let is_ahead = |id: &QuarantineId| self.records.get(id).is_some_and(is_ahead);
        let ahead: Vec<_> = self.queue.after(latest).filter(is_ahead).collect();
        for id in ahead {
            self.change(id, |record| {
                record.rests = rest(record);
                if record.due_by(latest) == record.due {
                    return;
                }
                record.due = record.due_by(latest);
                record.parked = record.parked.min(latest);
                record.put_off = record.state == State::Parked;
            });
        }
    }

    /// Returns the messages of `account` that go out, or are tried again, without an operator's decision; if `by` is
    /// given, only those due by then.
    pub(super) fn awaited_ids(&self, account: &Account, by: Option<Timestamp>) -> Vec<QuarantineId> {
        let awaited = self.awaited_of(account).take_while(|(due, _)| by.is_none_or(|by| *due <= by));
        awaited.map(|(_, id)| id).collect()
    }

    /// Makes a message wait for an operator.
    pub(super) fn keep(&mut self, id: QuarantineId) {
        self.change(id, |record| (record.due, record.put_off) = (None, false));
    }

    /// Returns the messages of `account` whose due time was changed in memory only.
    pub(super) fn put_off(&self, account: &Account) -> Vec<QuarantineId> {
        let is_put_off = |id: &QuarantineId| self.records.get(id).is_some_and(|record| record.put_off);
        self.awaited_of(account).map(|(_, id)| id).filter(is_put_off).collect()
    }

    /// Returns what waits for an operator, by account; messages parked before `before` count as old.
    pub(super) fn waiting(&self, before: Option<Timestamp>) -> Vec<Waiting> {
        let mut sum = Sum::default();
        for (id, record) in &self.records {
            let Some(account) = &record.account else { continue };
            // As in `parked_before`.
            let before = before.filter(|before| record.is_from_before(*id, *before));
            let (size, parked, state) = (record.size, record.parked, record.state);
            sum.add(Message { account, size, parked, state, awaited: record.due.is_some() }, before);
        }
        sum.done()
    }

    /// Returns when the oldest message that waits for an operator was parked.
    pub(super) fn oldest_waiting(&self) -> Option<Timestamp> {
        let mut oldest = self.misdated.first().map(|(parked, _)| *parked);
        for (id, record) in &self.records {
            if oldest.is_some_and(|oldest| oldest <= id.born()) {
                break;
            }
            if record.waits() {
                oldest = oldest.into_iter().chain([record.parked]).min();
            }
        }
        oldest
    }

    /// Summarizes the messages of `account` that go out, or are tried again, without an operator's decision.
    pub(super) fn awaited(&self, account: &Account) -> Awaited {
        self.accounts.get(account).map_or_else(Awaited::default, |holding| Awaited {
            messages: u64::try_from(holding.awaited.len()).unwrap_or(u64::MAX),
            next: holding.awaited.first().map(|(due, _)| *due),
            last: holding.awaited.last().map(|(due, _)| *due),
        })
    }

    /// Returns the same for all accounts that have such messages.
    pub(super) fn all_awaited(&self) -> BTreeMap<Account, Awaited> {
        self.awaited_accounts().into_iter().map(|account| (account.clone(), self.awaited(&account))).collect()
    }

    /// Returns these messages of `account` themselves, by due time.
    fn awaited_of(&self, account: &Account) -> impl Iterator<Item = (Timestamp, QuarantineId)> {
        self.accounts.get(account).into_iter().flat_map(|holding| &holding.awaited).copied()
    }

    /// Returns the accounts with such messages.
    pub(super) fn awaited_accounts(&self) -> BTreeSet<Account> {
        let awaited = self.accounts.iter().filter(|(_, holding)| !holding.awaited.is_empty());
        awaited.map(|(account, _)| account.clone()).collect()
    }

    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.queue.next()
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
        let old = self.records.iter().take_while(|(id, _)| id.born() < before);
        old.filter(|(id, record)| record.is_from_before(**id, before))
            .filter(|(_, record)| record.state == State::Parked && !record.claimed)
            .filter(|(_, record)| waits(record))
            .map(|(id, _)| *id)
            .take(count)
            .collect()
    }

    pub(super) fn usage(&self, account: Option<&Account>) -> Usage {
        match account {
            None => self.total.usage(),
            Some(account) => self.accounts.get(account).map_or_else(Usage::default, Holding::usage),
        }
    }

    /// Returns what is in each state.
    pub(super) fn stock(&self) -> &Stock {
        &self.stock
    }

    /// Returns the used share of `max_size`, 0 to 1.
    pub(super) fn fill_level(&self, limits: &Limits) -> f64 {
        // Precise enough: sizes below 2^53 octets convert exactly.
        let level = self.total.weight().counted() as f64 / limits.max_size.max(1) as f64;
        level.min(1.0)
    }

    /// If it has become nearly full since the last call, returns what is parked: how many messages, and the octets that
    /// count towards `max_size`.
    pub(super) fn became_nearly_full(&mut self, limits: &Limits) -> Option<Usage> {
        let level = self.fill_level(limits);
        let news = level >= NOTICE_SHARE && !self.noticed;
        self.noticed = level >= if self.noticed { QUIET_SHARE } else { NOTICE_SHARE };
        let (messages, octets) = (self.total.messages, self.total.weight().counted());
        news.then_some(Usage { messages, octets })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    /// Returns what is due at `millis`, in the order in which it goes.
    fn due(index: &mut Index, millis: u64) -> Vec<QuarantineId> {
        let due: Vec<_> = iter::from_fn(|| index.claim_due(at(millis), |_| true)).collect();
        due.into_iter().map(|(id, _)| id).inspect(|id| index.unclaim(*id)).collect()
    }

    fn record(name: &str, size: usize) -> Record {
        Record { account: Some(account(name)), ..Record::of(&envelope(id(1), &vec![0; size]), 0) }
    }

    #[test]
    fn usage_follows_what_is_put_and_removed() {
        let mut index = Index::default();
        let (one, two, three) = (id(1), id(2), id(3));
        index.put(one, record("anna", 10));
        index.put(two, record("bert", 20));
        index.put(three, Record::unreadable(three, 5, 0));
        index.put(one, record("anna", 10));
        let usage = |messages, octets| Usage { messages, octets };
        assert_eq!(index.usage(None), usage(3, 35));
        let stock = [(State::Parked, usage(2, 30)), (State::Unreadable, usage(1, 5))];
        assert_eq!(index.stock().by_state(), stock.into());
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

    /// Whatever happens to messages, the kept counts are those that counting anew gives.
    fn assert_kept_counts(index: &Index) {
        let mut stock = BTreeMap::<State, Usage>::new();
        let mut accounts = BTreeMap::<Account, Usage>::new();
        let mut total = Usage::default();
        for record in index.records.values() {
            let of_account = record.account.clone().map(|account| accounts.entry(account).or_default());
            for usage in of_account.into_iter().chain([stock.entry(record.state).or_default(), &mut total]) {
                usage.messages += 1;
                usage.octets += record.size;
            }
        }
        let kept = index.accounts.iter().map(|(account, holding)| (account.clone(), holding.usage()));
        assert_eq!((index.stock().by_state(), kept.collect(), index.usage(None)), (stock, accounts, total));
        let waiting = index.waiting(None);
        assert_eq!(index.oldest_waiting(), waiting.iter().map(|waiting| waiting.oldest).min());
    }

    #[derive(Debug, Clone)]
    enum Event {
        Put(u64, Record),
        Heal(u64, Record),
        Remove(u64),
        Claim(u64),
        Unclaim(u64),
        Keep(u64),
        Postpone(Account),
        BringBack,
    }

    fn any_event() -> impl Strategy<Value = Event> {
        let states = vec![State::Parked, State::Releasing, State::Failed];
        let readable =
            (prop::sample::select(vec!["anna", "bert"]), 0..99_usize, prop::sample::select(states));
        let readable = (readable, any::<bool>(), 0..9_u64);
        let readable = readable.prop_map(|((name, size, state), is_due, parked)| Record {
            state,
            parked: at(parked),
            due: is_due.then_some(at(50)),
            ..record(name, size)
        });
        let readable = readable.boxed();
        let unreadable = (0..99_u64).prop_map(|size| Record::unreadable(id(1), size, 0));
        let place = 1..6_u64;
        prop_oneof![
            4 => (place.clone(), readable.clone()).prop_map(|(place, record)| Event::Put(place, record)),
            2 => (place.clone(), unreadable).prop_map(|(place, record)| Event::Put(place, record)),
            2 => (place.clone(), readable).prop_map(|(place, record)| Event::Heal(place, record)),
            3 => place.clone().prop_map(Event::Remove),
            1 => place.clone().prop_map(Event::Claim),
            1 => place.clone().prop_map(Event::Unclaim),
            1 => place.prop_map(Event::Keep),
            1 => Just(Event::Postpone(account("anna"))),
            1 => Just(Event::BringBack),
        ]
    }

    proptest! {
        #[test]
        fn the_kept_counts_are_those_of_a_recount(events in prop::collection::vec(any_event(), 0..40)) {
            // An id is the same whenever it is asked for.
            let ids: Vec<_> = (0..6).map(id).collect();
            let id = |place: u64| ids[usize::try_from(place).unwrap()];
            let mut index = Index::default();
            for event in events {
                match event {
                    Event::Put(place, record) => index.put(id(place), record),
                    Event::Heal(place, record) => index.heal(id(place), record),
                    Event::Remove(place) => drop(index.remove(id(place))),
                    Event::Claim(place) => drop(index.claim(id(place))),
                    Event::Unclaim(place) => index.unclaim(id(place)),
                    Event::Keep(place) => index.keep(id(place)),
                    Event::Postpone(account) => index.postpone(&account, at(70)),
                    Event::BringBack => index.bring_back(at(10)),
                }
                assert_kept_counts(&index);
            }
        }
    }

    #[test]
    fn reservations_count_against_both_limits() {
        let content = Weight::of_content;
        let (anna, bert) = (account("anna"), account("bert"));
        let mut index = Index::default();
        index.put(id(1), record("anna", 30));
        assert!(index.reserve(&limits(), &anna, content(31)).unwrap_err().contains("per_account"));
        index.reserve(&limits(), &anna, content(30)).unwrap();
        assert!(index.fits(&limits(), &anna, 0).is_err(), "not one octet more");
        index.fits(&limits(), &bert, 0).unwrap();
        assert!(index.reserve(&limits(), &bert, content(41)).unwrap_err().contains("max_size,"));
        index.reserve(&limits(), &bert, content(40)).unwrap();
        assert!(index.fits(&limits(), &account("carl"), 0).is_err());
        index.unreserve(&anna, content(30));
        index.unreserve(&bert, content(40));
        assert_eq!((index.total.reserved, index.accounts.len()), (Weight::default(), 1));
        assert!(index.fits(&limits(), &anna, u64::MAX).is_err());
    }

    /// Neither an empty message nor one for a thousand recipients is free of charge, and what lists show is the message.
    #[test]
    fn envelopes_and_files_count_against_both_limits() {
        const MIB: u64 = 1024 * 1024;
        let anna = account("anna");
        let limits = Limits { max_size: 10 * MIB, max_size_per_account: 5 * MIB, ..limits() };
        for (envelope, fit) in [(1_000, 598), (MIB, 5)] {
            let mut index = Index::default();
            let full = (1..1_000).find_map(|place| {
                let one = Weight::of_envelope(envelope);
                if let Err(full) = index.reserve(&limits, &anna, one) {
                    return Some(full);
                }
                index.unreserve(&anna, one);
                index.put(id(place), Record { envelope, ..record("anna", 0) });
                None
            });
            assert!(full.unwrap().contains("per_account"), "{envelope}");
            assert_eq!(index.usage(Some(&anna)), Usage { messages: fit, octets: 0 });
            index.fits(&limits, &account("bert"), 0).unwrap();
        }
    }

    #[test]
    fn an_envelope_that_grows_is_followed() {
        const MIB: u64 = 1024 * 1024;
        let (mut index, id) = (Index::default(), id(1));
        let limits = Limits { max_size: 5 * MIB, ..limits() };
        for (envelope, said) in [(MIB, false), (4 * MIB, false), (5 * MIB, true)] {
            index.put(id, Record { envelope, ..record("anna", 10) });
            let said = said.then_some(Usage { messages: 1, octets: 10 + envelope + 8_192 - 262_144 });
            assert_eq!(index.became_nearly_full(&limits), said, "{envelope}");
        }
        index.remove(id);
        assert_eq!((index.fill_level(&limits), index.accounts.len()), (0.0, 0));
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
        index.put(two, Record::of(&releasing, 0));
        assert_eq!(index.next_due(), Some(at(7)));
        assert_eq!(due(&mut index, 8), [two]);
        assert_eq!(due(&mut index, 9), [two, one]);
        let line = Line { account: account("anna"), state: State::Parked, by_itself: true };
        assert_eq!(index.claim_due(at(9), |line| line.by_itself), Some((one, line)));
        assert_eq!(index.claim_due(at(9), |line| line.by_itself), None);
        assert_eq!(index.claim(one), Err(Refusal::Claimed));
        index.unclaim(one);
        index.claim(two).unwrap();
        assert_eq!(index.claim(two), Err(Refusal::Claimed));
        assert_eq!(index.claim(id(3)), Err(Refusal::Unknown));
        assert_eq!((due(&mut index, 9), index.next_due()), (vec![one], Some(at(9))));
        releasing.release.as_mut().unwrap().next = Some(at(20));
        index.put(two, Record::of(&releasing, 0));
        assert_eq!(index.claim(two), Err(Refusal::Claimed), "a change keeps the claim");
        index.unclaim(two);
        index.remove(one);
        index.unclaim(one);
        assert_eq!((due(&mut index, 9), index.next_due()), (vec![], Some(at(20))));
    }

    #[test]
    fn what_could_not_be_recorded_rests_whatever_happens_to_it() {
        let mut index = Index::default();
        let (one, two) = (id(1), id(2));
        let parked = || Record { due: Some(at(5)), ..record("anna", 1) };
        index.put(one, parked());
        index.put(two, parked());
        index.claim(one).unwrap();
        index.rest(one, at(20));
        index.unclaim(one);
        index.rest(id(3), at(20));
        assert_eq!((due(&mut index, 19), index.next_due()), (vec![two], Some(at(5))));
        // It is due all the same: a block keeps it, probation puts it off, an operator can claim it.
        assert!(index.is_due_by_itself(&account("anna"), at(5)));
        assert!(!index.is_due_by_itself(&account("anna"), at(4)));
        assert_eq!(index.awaited_ids(&account("anna"), Some(at(5))), [one, two]);
        index.claim(two).unwrap();
        assert!(index.is_due_by_itself(&account("anna"), at(5)), "the one that rests is not claimed");
        index.put(one, parked());
        assert_eq!((due(&mut index, 19), due(&mut index, 20)), (vec![], vec![one]));
        index.claim(one).unwrap();
        assert!(!index.is_due_by_itself(&account("anna"), at(5)), "both are claimed");
        index.postpone(&account("anna"), at(30));
        index.unclaim(one);
        assert_eq!((due(&mut index, 29), due(&mut index, 30)), (vec![], vec![one]));
    }

    /// However many messages of an account are due, the next one is found by looking at its line alone.
    #[test]
    fn a_round_does_not_look_at_all_that_is_due() {
        const MANY: u64 = 20_000;
        let mut index = Index::default();
        for millis in 1..=MANY {
            index.put(id(millis), Record { due: Some(at(millis)), ..record("anna", 1) });
            index.put(id(millis), Record { due: Some(at(millis)), ..record("bert", 1) });
        }
        let (mut looks, mut gone) = (0, Vec::new());
        while let Some((id, _)) = index.claim_due(at(MANY), |line| {
            looks += 1;
            line.account == account("anna")
        }) {
            gone.push(id);
            index.remove(id);
        }
        assert!(gone.len() as u64 == MANY && gone.is_sorted(), "{}", gone.len());
        assert_eq!(looks, 2 * MANY + 1, "one for each account, as long as it has something due");
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
        let come = [ids[4], ids[0], ids[1], ids[2]];
        assert_eq!(due(&mut index, 30), come, "a release, then the oldest of those whose delay is over");
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
        assert_eq!((index.next_due(), index.awaited_accounts()), (None, [].into()));
    }

    /// Written down or not: probation must not postpone it into the future again.
    #[test]
    fn what_was_brought_back_stays_so() {
        const DAY: u64 = 24 * 3_600_000;
        let mut index = Index::default();
        let ahead = |due: u64| Record { parked: at(9 * DAY), due: Some(at(due)), ..record("anna", 1) };
        let (one, two) = (id(1), id(2));
        index.put(one, ahead(9 * DAY + 30));
        index.put(two, ahead(9 * DAY + 30));
        index.bring_back(at(100));
        index.put(one, ahead(130));
        index.put(two, ahead(9 * DAY + 30));
        index.postpone(&account("anna"), at(3 * DAY));
        assert_eq!([one, two].map(|id| index.due_time(id)), [Some(at(DAY + 100)); 2]);
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
        index.put(ids[2], Record::unreadable(ids[2], 1, 0));
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

    /// What comes after it has earlier ids, and may always be gone within a day: the digest must not wait for that.
    #[test]
    fn the_oldest_may_have_come_while_the_clock_was_ahead() {
        let mut index = Index::default();
        let put = |index: &mut Index, born, parked| {
            index.put(id(born), Record { parked: at(parked), ..record("anna", 1) });
        };
        // It takes longer to arrive than the one after it.
        put(&mut index, 500, 520);
        put(&mut index, 510, 515);
        assert_eq!(index.oldest_waiting(), Some(at(515)));
        index.put(id(1_000), Record { parked: at(1_000), due: Some(at(1_030)), ..record("anna", 1) });
        index.bring_back(at(100));
        assert_eq!(index.oldest_waiting(), Some(at(100)));
    }

    #[test]
    fn what_came_while_the_clock_was_ahead_expires_late() {
        let (mut index, id) = (Index::default(), id(1_000));
        index.put(id, Record { parked: at(1_000), due: Some(at(1_030)), ..record("anna", 1) });
        index.bring_back(at(100));
        index.keep(id);
        let expire = |before| index.parked_before(at(before), at(before), &[].into(), 9);
        assert_eq!(index.oldest_waiting(), Some(at(100)));
        assert_eq!((expire(101), expire(1_000), expire(1_001)), (vec![], vec![], vec![id]));
    }

    #[test]
    fn the_newest_of_those_with_one_told_id() {
        let mut index = Index::default();
        let (one, two) = (id(1), id(2));
        index.put(one, record("anna", 1));
        index.put(two, record("anna", 1));
        let told = |index: &Index, queue_id| index.told(&[queue_id].into()).remove(queue_id);
        assert_eq!(told(&index, "4F2A91B0C3"), Some(two));
        assert_eq!(told(&index, "4F2A91B0C"), None);
        index.put(one, Record { told: Some("1349174460 d9443c-29ab 13230".into()), ..record("anna", 1) });
        assert_eq!(told(&index, "d9443c-29ab"), Some(one), "one of several");
        assert_eq!(told(&index, "13230"), None, "too short to be the only one");
        assert_eq!(index.told_among_others("13230"), Some(one));
        index.put(id(3), Record { told: Some("1349174461 13230".into()), ..record("anna", 1) });
        assert_eq!(index.told_among_others("13230"), None, "two have it");
        let all = ["4F2A91B0C3", "1349174460", "d9443c-29ab", "13230", "1349174460 d9443c-29ab 13230", ""];
        let found = index.told(&all.into());
        assert_eq!(found, [(all[0], two), (all[1], one), (all[2], one), (all[4], one)].into());
    }

    #[test]
    fn nearly_full_is_said_once_a_time() {
        let mut index = Index::default();
        let limits = Limits { max_size_per_account: 100, ..limits() };
        for (octets, expected) in
            [(79, false), (80, true), (90, false), (75, false), (85, false), (69, false), (80, true)]
        {
            index.put(id(1), record("anna", octets));
            let said = expected.then_some(Usage { messages: 1, octets: octets as u64 });
            assert_eq!(index.became_nearly_full(&limits), said, "{octets}");
            let kept = index.records.keys().next().copied().unwrap();
            index.remove(kept);
        }
    }
}
