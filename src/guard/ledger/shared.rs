//! The state that sessions and the writer share.

use std::hash::{BuildHasher, Hasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use memchr::memchr;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::accounts::Accounts;
use super::blocklist::BlockList;
use super::day::Day;
use super::entry::Entry;
use super::pages;
use super::rebuild::{self, Opening};
use super::rows;
use super::state::State;
use super::store::{Store, Tree};
use super::writer::{Queue, Waiting, Written};
use super::{Blindness, Block, CauseChange, LedgerError, Moment, Policy};
use crate::account::Account;
use crate::clock::Timestamp;
use crate::guard::cause::{self, Answer, Cause, Causes};
use crate::guard::mimicry::{About, Place, Precedents};
use crate::guard::window::Key;
use crate::smtp::Reply;
use crate::smtp::path::MAX_PATH;

/// How long a client waits for the disk; after that its reply goes out as if the write had failed.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// How many changes of causes are kept at most until somebody logs them.
const CAUSE_CHANGES: usize = 1_000;

pub(super) struct Shared {
    /// The data directory.
    pub(super) dir: PathBuf,
    pub(super) store: Arc<Store>,
    pub(super) queue: Queue,
    pub(super) accounts: Accounts,
    pub(super) policy: ArcSwap<Policy>,
    precedents: Mutex<Precedents>,
    pub(super) precedents_changed: AtomicBool,
    day: Mutex<Day>,
    pub(super) day_changed: AtomicBool,
    pub(super) trouble: watch::Sender<Option<String>>,
    /// Notified when there may be news for the abuse desk.
    pub(super) crossed: Notify,
    hashes: RandomState,
    /// Split by the domain's key, so that sessions seldom wait for one another.
    causes: [Mutex<Causes>; 16],
    cause_changes: Mutex<Vec<CauseChange>>,
    /// Notified when there are changes of causes.
    pub(super) caused: Notify,
    /// The time that a caller gave last. Not the latest time: a clock that was ahead must not make counts look old for ever.
    now: AtomicU64,
    /// A time that is certainly over, even if the clock is behind.
    floor: AtomicU64,
}

impl Shared {
    pub(super) fn open(
        dir: &Path,
        policy: Policy,
        parked: &dyn Fn() -> Vec<(Account, Block)>,
        now: Timestamp,
    ) -> Result<(Self, BlockList), LedgerError> {
        let Opening { store, list, blocks, probations, lifted, precedents, day } =
            rebuild::open(dir, parked, now)?;
        let accounts = Accounts::of(blocks.into_iter().collect(), probations, lifted);
        let shared = Self {
            dir: dir.to_owned(),
            store: Arc::new(store),
            queue: Queue::default(),
            accounts,
            policy: ArcSwap::from_pointee(policy),
            precedents: Mutex::new(precedents),
            precedents_changed: AtomicBool::new(false),
            day: Mutex::new(day),
            day_changed: AtomicBool::new(false),
            trouble: watch::Sender::new(None),
            crossed: Notify::new(),
            hashes: RandomState::new(),
            causes: Default::default(),
            cause_changes: Mutex::default(),
            caused: Notify::new(),
            now: AtomicU64::new(0),
            floor: AtomicU64::new(0),
        };
        Ok((shared, list))
    }

    pub(super) fn tell_time(&self, now: Timestamp) {
        self.now.store(now.as_millis(), Ordering::Relaxed);
    }

    /// Hashes an address, ignoring case and whatever follows a `+` in its local-part: all subaddresses of a mailbox are one
    /// recipient. Stable while this process runs.
    pub(super) fn hash(&self, address: &str) -> u64 {
        // Most addresses have no tag.
        let tag = memchr(b'+', address.as_bytes())
            .and_then(|_| address.split_once('+').zip(address.rsplit_once('@')));
        match tag {
            Some(((mailbox, _), (local_part, domain)))
                if mailbox.len() < local_part.len() && !mailbox.is_empty() =>
            {
                self.hash_whole(&format!("{mailbox}@{domain}"))
            }
            _ => self.hash_whole(address),
        }
    }

    fn hash_whole(&self, address: &str) -> u64 {
        let mut hasher = self.hashes.build_hasher();
        // Room for the longest path.
        let mut lower = [0; MAX_PATH];
        match lower.get_mut(..address.len()) {
            Some(lower) if address.is_ascii() => {
                lower.copy_from_slice(address.as_bytes());
                lower.make_ascii_lowercase();
                hasher.write(lower);
            }
            _ => hasher.write(address.to_lowercase().as_bytes()),
        }
        hasher.finish()
    }

    pub(super) fn raise_floor(&self, floor: Timestamp) {
        self.floor.fetch_max(floor.as_millis(), Ordering::Relaxed);
    }

    /// Returns when something that happens at `now` by the clock is dated: not before the floor.
    pub(super) fn moment(&self, now: Timestamp) -> Moment {
        let floor = Timestamp::from_millis(self.floor.load(Ordering::Relaxed));
        Moment { at: now.max(floor), instant: Instant::now() }
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now.load(Ordering::Relaxed))
    }

    /// Returns once `entry` was read from the disk.
    pub(super) async fn loaded(&self, entry: &Arc<Entry>, now: Timestamp) {
        if !entry.is_loaded() {
            let (entry, store) = (entry.clone(), self.store.clone());
            let _ = spawn_blocking(move || entry.load(&store, now)).await;
        }
    }

    /// Returns once a change is on the disk, or cannot be written for now.
    pub(super) async fn written(&self, entry: &Arc<Entry>, waiting: Waiting) -> Written {
        match timeout(WRITE_TIMEOUT, waiting).await {
            Ok(Ok(written)) => written,
            Ok(Err(_)) => Err("the ledger is closed".into()),
            Err(_) => {
                let why = format!("the disk has not answered for {} s", WRITE_TIMEOUT.as_secs());
                entry.show_unwritten();
                self.tell_trouble(Some(&why));
                let store = self.store.clone();
                spawn_blocking(move || store.poke());
                Err(why)
            }
        }
    }

    pub(super) fn tell_trouble(&self, why: Option<&String>) {
        self.trouble.send_if_modified(|trouble| {
            let changed = trouble.as_ref() != why;
            if changed {
                *trouble = why.cloned();
            }
            changed
        });
    }

    pub(super) fn wait_closed(&self, most: Duration) {
        if !self.queue.wait_closed(most) {
            self.store.poke();
            self.queue.wait_closed(Duration::from_secs(1));
        }
    }

    /// Removes one holder of `entry`.
    pub(super) fn release(&self, entry: &Arc<Entry>) {
        self.accounts.release(entry, |entry, state| self.leave(entry, state));
    }

    /// Drops `entry` if nobody needs it any more.
    pub(super) fn settle(&self, entry: &Arc<Entry>) {
        self.accounts.settle(entry, |entry, state| self.leave(entry, state));
    }

    /// Drops the entries that nobody has needed for long.
    pub(super) fn dismiss_idle(&self, now: Instant) {
        self.accounts.dismiss_idle(now, |entry, state| self.leave(entry, state));
    }

    /// Called before an entry leaves memory: has the messages of a notable account written, and evidence in the account's
    /// favour.
    fn leave(&self, entry: &Arc<Entry>, state: &mut State) {
        let terms = state.terms(&self.policy.load());
        let notable = state.is_notable(self.now(), &terms);
        if notable {
            state.write_messages();
        }
        if state.write_evidence() || notable {
            self.queue.submit_idly(entry, state);
        }
        state.forget_recipients();
    }

    /// Notes that the domain accepted a recipient.
    pub(super) fn accepted(&self, domain: Key, now: Timestamp) {
        let ended = self.causes(domain).accepted(domain, now);
        if let Some(cause) = ended {
            self.say(CauseChange::Ended(cause));
        }
    }

    /// Notes that the domain permanently refused a recipient of the account. Returns whether that answer counts; if the
    /// domain's answers cease to count, earlier ones are taken back.
    pub(super) fn refused(&self, account: &Account, domain: &str, now: Timestamp) -> bool {
        let key = Key::of_domain(domain);
        let account = self.hashes.hash_one(account.as_str());
        let name = rows::domain(domain);
        let answer = self.causes(key).refused(key, &name, account, now);
        if answer == Answer::Begins {
            self.take_back((key, &name), now);
            self.say(CauseChange::Began(Cause { domain: name, since: now, answers: 1 }));
        }
        answer == Answer::Counts
    }

    /// Returns the domains whose answers do not count.
    pub(super) fn common_causes(&self, now: Timestamp) -> Vec<Cause> {
        let lasting = |causes: &Mutex<Causes>| lock(causes).lasting(now).cloned().collect::<Vec<_>>();
        self.causes.iter().flat_map(lasting).collect()
    }

    /// Returns which causes began and ended since the last call.
    pub(super) fn cause_changes(&self, now: Timestamp) -> Vec<CauseChange> {
        let mut changes = std::mem::take(&mut *lock(&self.cause_changes));
        let ended = self.causes.iter().flat_map(|causes| lock(causes).end(now));
        changes.extend(ended.map(CauseChange::Ended));
        changes
    }

    fn causes(&self, domain: Key) -> MutexGuard<'_, Causes> {
        lock(&self.causes[domain.place(self.causes.len())])
    }

    fn say(&self, change: CauseChange) {
        let mut changes = lock(&self.cause_changes);
        if changes.len() < CAUSE_CHANGES {
            changes.push(change);
        }
        self.caused.notify_one();
    }

    /// Takes a domain's recent answers back from all accounts: whoever counted one lately is in memory.
    fn take_back(&self, domain: (Key, &str), now: Timestamp) {
        let mut entries = Vec::new();
        self.accounts.each(|entry| entries.push(entry.clone()));
        let policy = self.policy.load();
        for entry in entries {
            let mut state = entry.lock();
            if state.take_back(domain, now.before(cause::SPAN), now, &policy) {
                self.queue.submit_idly(&entry, &mut state);
                entry.freed.notify_waiters();
            }
        }
    }

    /// Ends the probations that are over, or that the policy no longer provides for.
    pub(super) fn end_probations(&self) {
        let (now, policy) = (self.now(), self.policy.load());
        self.accounts.each(|entry| {
            let mut state = entry.lock();
            let terms = state.terms(&policy);
            if state.end_probation(now, &terms) {
                entry.show_probation(&state);
                self.queue.submit_idly(entry, &mut state);
            }
        });
    }

    /// Shortens the probations that began or were extended while the clock was ahead of `latest`.
    pub(super) fn bring_back(&self, latest: Timestamp) {
        let policy = self.policy.load();
        self.accounts.each(|entry| {
            if entry.probation(latest).is_none() {
                return;
            }
            let mut state = entry.lock();
            let terms = state.terms(&policy);
            if state.bring_back(latest, &terms) {
                entry.show_probation(&state);
                self.queue.submit_idly(entry, &mut state);
            }
        });
    }

    /// Returns the entries whose evidence on the disk is worse than in memory, before the process ends.
    pub(super) fn with_better_evidence(&self) -> Vec<Arc<Entry>> {
        let mut entries = Vec::new();
        self.accounts.each(|entry| {
            let mut state = entry.lock();
            if state.write_evidence() && !std::mem::replace(&mut state.queued, true) {
                entries.push(entry.clone());
            }
        });
        entries
    }

    pub(super) fn learn(&self, place: Place, about: About<'_>, reply: &Reply) {
        if self.precedents().learn(place, about, reply) {
            self.nudge(&self.precedents_changed);
        }
    }

    pub(super) fn precedents(&self) -> MutexGuard<'_, Precedents> {
        lock(&self.precedents)
    }

    pub(super) fn tally(&self, foreign: bool, refused: bool, now: Timestamp) -> Option<Blindness> {
        let said = self.day().count(foreign, refused, now);
        // Read first, since writing would evict it from the other cores' caches every time. The writer clears the flag before
        // it takes the lock, so a count made under the lock while the flag is still set is written in time.
        if !self.day_changed.load(Ordering::Acquire) {
            self.nudge(&self.day_changed);
        }
        said
    }

    pub(super) fn day(&self) -> MutexGuard<'_, Day> {
        lock(&self.day)
    }

    fn nudge(&self, changed: &AtomicBool) {
        if !changed.swap(true, Ordering::AcqRel) {
            self.queue.nudge();
        }
    }

    /// Looks at the first account after `after` that has rows in `tree`, and removes its rows if they are no longer worth
    /// keeping. Returns its name and how many rows were looked at; `None` if there is no such account. For the writer only.
    pub(super) fn sweep_next(&self, tree: Tree, after: Option<&Account>) -> Option<(Account, usize)> {
        let account = pages::next_account(&self.store, tree, after).ok()??;
        if self.accounts.find(&account).is_some() {
            return Some((account, 1));
        }
        let stored = rows::read(&self.store, &account).ok()?;
        let edits = stored.removals(&account);
        let looked = edits.len();
        let now = self.now();
        let entry = Entry::read(&account, stored, now);
        if !entry.lock().is_worth_keeping(now, &self.policy.load().terms(&account)) {
            self.store.apply(&edits).ok()?;
        }
        Some((account, looked))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
