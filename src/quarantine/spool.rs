//! Parked messages as files: `DATA_DIR/quarantine/ID.message` and `ID.envelope`, mode 0600.
//!
//! A message is parked at the moment its envelope is renamed: the message is written and fsynced before that, the
//! folder after it. A message without an envelope was never acknowledged, and is removed at the next start. Removal
//! takes the envelope first. An index in memory (account, size, state, due time, told queue id) answers sizes, listings
//! and due times. Only one process at a time has the folder open. Files not named like a parked message are left alone.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;

pub use super::claim::{Claim, MessageReader};
use super::envelope::{Envelope, State};
use super::floor::{self, Floor};
use super::marks::{self, Mark};
pub use super::parking::{Parking, Salvaged, Unparked};
pub use super::shared::Held;
use super::shared::{Shared, blocking};
use super::space::{FIRST_BOOKING, Space};
pub use super::terms::{Entry, Filter, Limits, Line, ParkError, SWEPT_TOLD, SpoolError, Swept, Usage};
use super::waiting::{Awaited, Waiting};
use super::{claim, files, listing};
use crate::account::Account;
use crate::clock::Timestamp;
use crate::durable::Folder;
use crate::fail;
use crate::history::Block;
use crate::id::QuarantineId;

/// The folder's name in the data directory.
const FOLDER: &str = "quarantine";
/// How long a start waits for a command that has the folder open.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// How many expired messages are removed with one fsync.
const EXPIRE_BATCH: usize = 256;
/// How many unreadable messages are read again at a time.
const READ_AGAIN_BATCH: usize = 256;

/// The quarantine. Cheap to clone.
#[derive(Clone)]
pub struct Spool {
    shared: Arc<Shared>,
}

impl Spool {
    /// Opens (or creates) `dir/quarantine`, reads all envelopes, and removes messages that have none.
    ///
    /// # Errors
    /// The folder cannot be created or read, or another process keeps it open longer than [`LOCK_WAIT`].
    pub async fn open(dir: &Path, limits: Limits) -> Result<Self, SpoolError> {
        let path = dir.join(FOLDER);
        let opened = blocking(move || {
            let folder = Folder::create(&path).map_err(|error| error.to_string())?;
            let lock = files::lock(&folder, LOCK_WAIT)?;
            let (index, swept) = files::scan(&folder).map_err(|error| error.to_string())?;
            let space = Space::of(&path);
            let (index, marking) = (Mutex::new(index), Mutex::default());
            let floor = Mutex::new(Floor::read(&folder));
            let limits = ArcSwap::from_pointee(limits);
            Ok(Shared { folder: Arc::new(folder), limits, space, index, floor, marking, swept, _lock: lock })
        });
        let shared = opened.await?.map_err(SpoolError::Io)?;
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Applies new limits from now on; what is parked stays.
    pub fn adopt(&self, limits: Limits) {
        self.shared.limits.store(Arc::new(limits));
    }

    /// Checks whether a message of `account` of `size` octets (0: unknown) would fit, for MAIL of a blocked account.
    /// Cheap.
    ///
    /// # Errors
    /// [`ParkError::Full`]; [`ParkError::Io`] if the file system does not say how much is free.
    pub fn room(&self, account: &Account, size: u64) -> Result<(), ParkError> {
        self.shared.index().fits(&self.shared.limits.load(), account, size).map_err(ParkError::Full)?;
        self.shared.space.check(size.max(FIRST_BOOKING))
    }

    /// Returns the time that is certainly over: what is parked while the clock is behind that expires as if it had come
    /// then.
    pub fn floor(&self) -> Timestamp {
        self.shared.floor().time()
    }

    /// Returns the file that says so.
    pub fn floor_file(&self) -> PathBuf {
        self.shared.folder.path().join(floor::NAME)
    }

    /// Learns the earliest time that the clock has said for a while. Written each hour; if that fails, with the next
    /// call.
    pub async fn settled(&self, earliest: Timestamp) {
        let Some(time) = self.shared.floor().raise(earliest) else { return };
        let shared = Arc::clone(&self.shared);
        // Nothing depends on the last hour, and a disk that takes nothing is noticed elsewhere.
        let _ =
            blocking(move || floor::write(&shared.folder, time).map(|()| shared.floor().wrote(time))).await;
    }

    /// Begins to park a message.
    ///
    /// # Errors
    /// The quarantine is full.
    pub async fn begin(&self, account: &Account, now: Timestamp) -> Result<Parking, ParkError> {
        Parking::begin(&self.shared, account, now)
    }

    /// Claims a message.
    ///
    /// # Errors
    /// Unknown, claimed, unreadable.
    pub async fn claim(&self, id: QuarantineId) -> Result<Claim, SpoolError> {
        Claim::of(self.shared.hold(id)?).await
    }

    /// Returns a message's envelope, without claiming it.
    ///
    /// # Errors
    /// Unknown, unreadable.
    pub async fn envelope(&self, id: QuarantineId) -> Result<Envelope, SpoolError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.load(id)).await?
    }

    /// Opens a message as it arrived; also one whose envelope is unreadable.
    ///
    /// # Errors
    /// Unknown, or not readable.
    pub async fn message(&self, id: QuarantineId) -> Result<MessageReader, SpoolError> {
        self.open_file(id, files::message_name(id)).await
    }

    /// Returns the size of a message file in octets; 0 if unknown.
    pub fn message_size(&self, id: QuarantineId) -> u64 {
        self.shared.index().size(id).unwrap_or(0)
    }

    /// Opens the envelope as it is on disk; also an unreadable one.
    ///
    /// # Errors
    /// Unknown, or not there.
    pub async fn raw_envelope(&self, id: QuarantineId) -> Result<MessageReader, SpoolError> {
        self.open_file(id, files::envelope_name(id)).await
    }

    async fn open_file(&self, id: QuarantineId, name: String) -> Result<MessageReader, SpoolError> {
        if self.shared.index().state(id).is_none() {
            return Err(SpoolError::Unknown(id.to_string()));
        }
        MessageReader::open(&self.shared, id, name).await
    }

    /// Resolves what an operator wrote who wants to look at a message: an id, or a queue id that a client was told. If several
    /// messages have that queue id, the newest is meant; a short one among others only finds the message that alone has it.
    pub fn resolve(&self, text: &str) -> Option<QuarantineId> {
        self.resolve_all([text]).remove(text).or_else(|| self.resolve_short(text))
    }

    /// Does so for all that an operator wrote in one command, with one look at all messages; what is in neither way known is
    /// not in the result, nor is a short queue id among others: a mistyped one could release or delete somebody else's mail.
    /// Sessions wait for no more than that look.
    pub fn resolve_all<'a>(
        &self,
        texts: impl IntoIterator<Item = &'a str>,
    ) -> HashMap<&'a str, QuarantineId> {
        let (mut found, mut others) = (HashMap::new(), HashSet::new());
        for text in texts {
            // In whatever case it was copied by ear.
            let id = text.to_ascii_uppercase().parse().ok();
            match id.filter(|id| self.shared.index().state(*id).is_some()) {
                Some(id) => drop(found.insert(text, id)),
                None => drop(others.insert(text)),
            }
        }
        if !others.is_empty() {
            found.extend(self.shared.index().told(&others));
        }
        found
    }

    /// Resolves a queue id that is too short for [`Self::resolve_all`].
    pub fn resolve_short(&self, text: &str) -> Option<QuarantineId> {
        self.shared.index().told_among_others(text)
    }

    /// Returns a page of messages after `after`, oldest first. Reads only as many envelopes as it needs to fill
    /// `limit`.
    pub async fn list(&self, filter: &Filter, after: Option<QuarantineId>, limit: usize) -> Vec<Entry> {
        listing::page(&self.shared, filter, after, limit).await
    }

    /// Returns the ids of an account's messages (`None`: all), oldest first.
    pub fn ids(&self, account: Option<&Account>) -> Vec<QuarantineId> {
        self.shared.index().page(account, None, None, usize::MAX)
    }

    /// Removes a message for good; also an unreadable one.
    ///
    /// # Errors
    /// Unknown, claimed, or its files could not be removed; then the call can be repeated.
    pub async fn remove(&self, id: QuarantineId) -> Result<(), SpoolError> {
        claim::remove(Arc::new(self.shared.hold(id)?)).await
    }

    /// Returns the messages without an envelope that were removed at opening.
    pub fn swept(&self) -> &[Swept] {
        &self.shared.swept
    }

    /// Returns how many messages are known to be unreadable; their accounts are unknown.
    pub fn unreadable(&self) -> u64 {
        self.shared.index().unreadable()
    }

    /// Reads again what could not be read: up to [`READ_AGAIN_BATCH`] messages after `after`. A disk that failed, or a lack
    /// of descriptors, is soon over; a message that is damaged stays unreadable. Returns how many can be read now, and
    /// the last that was tried; `None` if there are no more.
    pub async fn read_again(&self, after: Option<QuarantineId>) -> (usize, Option<QuarantineId>) {
        let ids = self.shared.index().unreadable_after(after, READ_AGAIN_BATCH);
        let last = ids.last().filter(|_| ids.len() == READ_AGAIN_BATCH).copied();
        if ids.is_empty() {
            return (0, None);
        }
        let shared = Arc::clone(&self.shared);
        let read = blocking(move || ids.into_iter().filter(|id| shared.load(*id).is_ok()).count());
        (read.await.unwrap_or(0), last)
    }

    /// Returns what an account (`None`: all) has in the quarantine.
    pub fn usage(&self, account: Option<&Account>) -> Usage {
        self.shared.index().usage(account)
    }

    /// Returns what is in the quarantine, by state.
    pub fn stock(&self) -> BTreeMap<State, Usage> {
        self.shared.index().stock().by_state()
    }

    /// Returns the used share of `max_size`, 0 to 1; envelopes and files count as well.
    pub fn fill_level(&self) -> f64 {
        self.shared.index().fill_level(&self.shared.limits.load())
    }

    /// If it has reached 80 % of `max_size` since the last call, returns what is parked: how many messages, and all
    /// octets that count, envelopes and files included. Only once, and again only after it fell below 70 %.
    pub fn became_nearly_full(&self) -> Option<Usage> {
        self.shared.index().became_nearly_full(&self.shared.limits.load())
    }

    /// Claims the message that goes first of the unclaimed ones whose next try or due time has come, among the lines
    /// that are `open`: the one to be tried again that is longest due, else the oldest whose delay is over.
    pub fn claim_due(&self, now: Timestamp, open: impl FnMut(&Line) -> bool) -> Option<(Held, Line)> {
        self.shared.hold_due(now, open)
    }

    /// Returns whether an unclaimed message of `account` that goes out, or is tried again, by itself is due at `now`.
    pub fn is_due_by_itself(&self, account: &Account, now: Timestamp) -> bool {
        self.shared.index().is_due_by_itself(account, now)
    }

    /// Leaves a message alone until `until`, although it may be due; an operator can release it all the same.
    pub fn rest(&self, id: QuarantineId, until: Timestamp) {
        self.shared.index().rest(id, until);
    }

    /// Returns when the next unclaimed message comes due, or came.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.shared.index().next_due()
    }

    /// Summarizes what of `account` goes out by itself.
    pub fn awaited(&self, account: &Account) -> Awaited {
        self.shared.index().awaited(account)
    }

    /// Returns the same for all accounts that have any.
    pub fn all_awaited(&self) -> BTreeMap<Account, Awaited> {
        self.shared.index().all_awaited()
    }

    /// Returns the accounts with messages that go out by themselves.
    pub fn awaited_accounts(&self) -> BTreeSet<Account> {
        self.shared.index().awaited_accounts()
    }

    /// Postpones what of `account` goes out by itself, now that its probation lasts until `until`: in memory only, at
    /// once, and visible to every caller. Call it again after each start, as long as probation lasts; before ending
    /// probation early, call [`Self::write_due_times`].
    pub fn postpone(&self, account: &Account, until: Timestamp) {
        self.shared.index().postpone(account, until);
    }

    /// Brings back next tries and due times that were set while the clock was ahead; `latest` is the latest time that it
    /// has said for a while. In memory only, so call it again and again.
    pub fn bring_back(&self, latest: Timestamp) {
        self.shared.index().bring_back(latest);
    }

    /// Writes the due times of an account's messages to disk, as they are in memory.
    ///
    /// # Errors
    /// Some could not be written; after a restart those have their previous due times.
    pub async fn write_due_times(&self, account: &Account) -> Result<(), SpoolError> {
        let mut failed = Ok(());
        let put_off = self.shared.index().put_off(account);
        for id in put_off {
            // A claimed one is on its way out.
            let Ok(held) = self.shared.hold(id) else { continue };
            let written = blocking(move || held.shared.write_due_time(id)).await;
            if let Err(error) = written.unwrap_or_else(|unfinished| Err(unfinished.into())) {
                failed = Err(error);
            }
        }
        failed
    }

    /// Makes messages of `account` wait for an operator, durably, instead of going out or being tried again by
    /// themselves; if `by` is given, only those due by then.
    ///
    /// # Errors
    /// Some are claimed or unreadable, or one could not be written, and none after it: those are due as before, and the
    /// call can be repeated.
    pub async fn keep(&self, account: &Account, by: Option<Timestamp>) -> Result<(), SpoolError> {
        self.keep_some(account, by, usize::MAX).await
    }

    /// Does the same for up to `most` messages.
    ///
    /// # Errors
    /// As [`Self::keep`].
    pub async fn keep_some(
        &self,
        account: &Account,
        by: Option<Timestamp>,
        most: usize,
    ) -> Result<(), SpoolError> {
        let awaited = self.shared.index().awaited_ids(account, by);
        let (mut failed, mut written) = (Ok(()), 0);
        for id in awaited {
            if written == most {
                break;
            }
            let held = match self.shared.hold(id) {
                Ok(held) => held,
                Err(SpoolError::Unknown(_)) => continue,
                // An error of the disk takes precedence: a claim passes.
                Err(error) => {
                    failed = failed.and(Err(error));
                    continue;
                }
            };
            let kept = blocking(move || held.shared.write_kept(id)).await;
            match kept.unwrap_or_else(|unfinished| Err(unfinished.into())) {
                Ok(()) => written += 1,
                // The disk takes no other either, and may take long to say so.
                Err(error @ SpoolError::Io(_)) => return Err(error),
                Err(error) => failed = Err(error),
            }
        }
        failed
    }

    /// Notes durably that the account's block made at `blocked` is lifted; call it before lifting the block. Mail
    /// parked by a lifted block then no longer proves that block, should the blocks have to be rebuilt from the
    /// quarantine.
    ///
    /// # Errors
    /// It could not be written.
    pub async fn mark_unblocked(
        &self,
        account: &Account,
        blocked: Timestamp,
        now: Timestamp,
    ) -> Result<(), SpoolError> {
        let shared = Arc::clone(&self.shared);
        let mark = Mark { account: account.clone(), blocked, lifted: now };
        let marked = blocking(move || {
            let _one_at_a_time = shared.marking.lock();
            marks::add(&shared.folder, mark, |account| shared.index().usage(Some(account)).messages > 0)
        });
        marked.await?.map_err(SpoolError::Io)?;
        fail::point("unblock.marked");
        Ok(())
    }

    /// Returns the blocks for which messages are parked and which were not lifted, the latest of each account. Reads
    /// every envelope; blocking.
    pub fn blocks(&self) -> Vec<(Account, Block)> {
        let marks = marks::read(&self.shared.folder).unwrap_or_default();
        let mut blocks: BTreeMap<Account, Block> = BTreeMap::new();
        for id in self.ids(None) {
            let Ok(Envelope { account, block: Some(block), .. }) = self.shared.load(id) else { continue };
            if marks.iter().any(|mark| mark.account == account && mark.blocked == block.at) {
                continue;
            }
            match blocks.get(&account) {
                Some(later) if later.at >= block.at => {}
                _ => drop(blocks.insert(account, block)),
            }
        }
        blocks.into_iter().collect()
    }

    /// Returns what waits for an operator, by account; messages parked before `before` count as old.
    pub fn waiting(&self, before: Option<Timestamp>) -> Vec<Waiting> {
        self.shared.index().waiting(before)
    }

    /// Returns when the oldest message that waits for an operator was parked.
    pub fn oldest_waiting(&self) -> Option<Timestamp> {
        self.shared.index().oldest_waiting()
    }

    /// Returns how long a message is kept; `None`: forever.
    pub fn expire_after(&self) -> Option<Duration> {
        self.shared.limits.load().expire_after
    }

    /// Removes parked messages that are older than `expire_after` and were parked before `announced`; returns their
    /// ids. A message that is to go out by itself stays, unless its time has come and its account is in `held`. A
    /// message that cannot be removed stays until the next call.
    pub async fn expire(
        &self,
        now: Timestamp,
        held: &BTreeSet<Account>,
        announced: Timestamp,
    ) -> Vec<QuarantineId> {
        let Some(age) = self.shared.limits.load().expire_after else { return Vec::new() };
        let mut expired = Vec::new();
        loop {
            let old =
                self.shared.index().parked_before(now.before(age).min(announced), now, held, EXPIRE_BATCH);
            let held: Vec<Held> = old.into_iter().filter_map(|id| self.shared.hold(id).ok()).collect();
            let shared = Arc::clone(&self.shared);
            let removed = blocking(move || {
                let ids: Vec<_> = held.iter().map(|held| held.id).collect();
                let gone = ids.iter().zip(shared.remove(&ids)).filter(|(_, outcome)| outcome.is_ok());
                gone.map(|(id, _)| *id).collect::<Vec<_>>()
            });
            match removed.await {
                Ok(gone) if !gone.is_empty() => expired.extend(gone),
                _ => return expired,
            }
        }
    }
}
