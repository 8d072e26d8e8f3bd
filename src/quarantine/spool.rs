//! Parked messages as files: `DATA_DIR/quarantine/ID.message` and `ID.envelope`, mode 0600.
//!
//! The envelope's rename is the moment at which a message is parked: the message is written and fsynced before it, the folder
//! after it. A message without an envelope was never acknowledged, and goes at the next start. Removal takes the envelope
//! first. An index in memory (account, size, state, due time, told queue id) answers sizes, listings and due times. One
//! process at a time has the folder open. What is not named like a parked message is left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;

pub use super::claim::{Claim, MessageReader};
use super::envelope::{BlockFacts, Envelope};
use super::marks::{self, Mark};
pub use super::parking::{Parking, Salvaged, Unparked};
use super::shared::{Held, Shared, blocking};
use super::space::{FIRST_BOOKING, Space};
pub use super::terms::{Due, Entry, Filter, Limits, ParkError, SWEPT_TOLD, SpoolError, Swept, Usage};
use super::waiting::{Awaited, Waiting};
use super::{claim, files, listing};
use crate::account::Account;
use crate::clock::Timestamp;
use crate::durable::Folder;
use crate::fail;
use crate::id::QuarantineId;

/// The folder's name in the data directory.
const FOLDER: &str = "quarantine";
/// How long a command that is just looking may hold up a start.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// How many expired messages are removed with one fsync.
const EXPIRE_BATCH: usize = 256;

/// The quarantine. Cheap to clone.
#[derive(Clone)]
pub struct Spool {
    shared: Arc<Shared>,
}

impl Spool {
    /// Opens (or makes) `dir/quarantine`, reads all envelopes, removes what was never acknowledged.
    ///
    /// # Errors
    /// The folder cannot be made or read, or another process has had it open for some seconds.
    pub async fn open(dir: &Path, limits: Limits) -> Result<Self, SpoolError> {
        let path = dir.join(FOLDER);
        let opened = blocking(move || {
            let folder = Folder::create(&path).map_err(|error| error.to_string())?;
            let lock = files::lock(&folder, LOCK_WAIT)?;
            let (index, swept) = files::scan(&folder).map_err(|error| error.to_string())?;
            let space = Space::of(&path);
            let (index, marking) = (Mutex::new(index), Mutex::default());
            let limits = ArcSwap::from_pointee(limits);
            Ok(Shared { folder: Arc::new(folder), limits, space, index, marking, swept, _lock: lock })
        });
        let shared = opened.await?.map_err(SpoolError::Io)?;
        Ok(Self { shared: Arc::new(shared) })
    }

    /// These from now on; what is parked stays.
    pub fn adopt(&self, limits: Limits) {
        self.shared.limits.store(Arc::new(limits));
    }

    /// Whether a message of `account` of `size` octets (0: unknown) would fit; what MAIL of a blocked account asks. Cheap.
    ///
    /// # Errors
    /// [`ParkError::Full`]; [`ParkError::Io`] where the file system does not say how much is free.
    pub fn room(&self, account: &Account, size: u64) -> Result<(), ParkError> {
        self.shared.index().fits(&self.shared.limits.load(), account, size).map_err(ParkError::Full)?;
        self.shared.space.check(size.max(FIRST_BOOKING))
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
        Claim::take(&self.shared, id).await
    }

    /// A message's envelope, without claiming it.
    ///
    /// # Errors
    /// Unknown, unreadable.
    pub async fn envelope(&self, id: QuarantineId) -> Result<Envelope, SpoolError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.load(id)).await?
    }

    /// The message as it arrived, to read; that of an unreadable envelope too.
    ///
    /// # Errors
    /// Unknown, or not readable.
    pub async fn message(&self, id: QuarantineId) -> Result<MessageReader, SpoolError> {
        self.open_file(id, files::message_name(id)).await
    }

    /// Octets of its message file, as far as is known.
    pub fn message_size(&self, id: QuarantineId) -> u64 {
        self.shared.index().size(id).unwrap_or(0)
    }

    /// The envelope as it stands on disk, to read; an unreadable one too.
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

    /// The id that an operator means: an id, or the queue id that a client was told, letter for letter. Of several messages
    /// with the same queue id it is the newest.
    pub fn resolve(&self, text: &str) -> Option<QuarantineId> {
        let index = self.shared.index();
        let id = text.parse().ok().filter(|id| index.state(*id).is_some());
        id.or_else(|| index.told(text))
    }

    /// A page of messages, oldest first, behind `after`. Reads at most so many envelopes as it needs for `limit`.
    pub async fn list(&self, filter: &Filter, after: Option<QuarantineId>, limit: usize) -> Vec<Entry> {
        listing::page(&self.shared, filter, after, limit).await
    }

    /// The ids of an account's messages (`None`: all), oldest first.
    pub fn ids(&self, account: Option<&Account>) -> Vec<QuarantineId> {
        self.shared.index().page(account, None, None, usize::MAX)
    }

    /// Removes a message for good, an unreadable one too.
    ///
    /// # Errors
    /// Unknown, claimed, or not removable; then it can be tried again.
    pub async fn remove(&self, id: QuarantineId) -> Result<(), SpoolError> {
        claim::remove(Arc::new(self.shared.hold(id)?)).await
    }

    /// The messages without an envelope that were removed when the quarantine was opened.
    pub fn swept(&self) -> &[Swept] {
        &self.shared.swept
    }

    /// How many cannot be read, as far as is known: whose they are is not.
    pub fn unreadable(&self) -> u64 {
        self.shared.index().unreadable()
    }

    /// What an account (`None`: all) has in the quarantine.
    pub fn usage(&self, account: Option<&Account>) -> Usage {
        self.shared.index().usage(account)
    }

    /// How much of `max_size` is taken, 0 to 1.
    pub fn fill_level(&self) -> f64 {
        self.shared.index().fill_level(&self.shared.limits.load())
    }

    /// Whether it has come to 80 % of `max_size` since this was last asked: true once, and again only after it fell below 70 %.
    pub fn became_nearly_full(&self) -> bool {
        self.shared.index().became_nearly_full(&self.shared.limits.load())
    }

    /// Messages whose next try or due time has come, the longest due first; without those that are claimed.
    pub fn due(&self, now: Timestamp) -> Vec<Due> {
        self.shared.index().due(now)
    }

    /// When the next one comes due; without those that are claimed.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.shared.index().next_due()
    }

    /// What of `account` goes out by itself.
    pub fn awaited(&self, account: &Account) -> Awaited {
        self.shared.index().awaited(account)
    }

    /// The same of all accounts that have any.
    pub fn all_awaited(&self) -> BTreeMap<Account, Awaited> {
        self.shared.index().all_awaited()
    }

    /// Accounts with messages that go out by themselves.
    pub fn awaited_accounts(&self) -> BTreeSet<Account> {
        self.shared.index().awaited_accounts()
    }

    /// Puts off what of `account` goes out by itself, now that its probation lasts to `until`: in memory, at once, and for
    /// all who ask. It is to be called at each start again, as long as probation lasts; whoever ends that before its time
    /// calls [`Self::write_due_times`] first.
    pub fn postpone(&self, account: &Account, until: Timestamp) {
        self.shared.index().postpone(account, until);
    }

    /// Makes the due times of an account's messages durable, as they are in memory.
    ///
    /// # Errors
    /// Some could not be written; after a restart those are due as they were first.
    pub async fn write_due_times(&self, account: &Account) -> Result<(), SpoolError> {
        let mut failed = Ok(());
        let put_off = self.shared.index().put_off(account);
        for id in put_off {
            // One in another's hand is on its way out.
            let Ok(held) = self.shared.hold(id) else { continue };
            let written = blocking(move || held.shared.write_due_time(id)).await;
            if let Err(error) = written.unwrap_or_else(|unfinished| Err(unfinished.into())) {
                failed = Err(error);
            }
        }
        failed
    }

    /// What of `account` was to go out by itself or be tried again so, `by` then if that is given, waits for an operator instead, durably.
    ///
    /// # Errors
    /// Some could not be written, or are in other hands: those are due as they were, and this can be done again.
    pub async fn keep(&self, account: &Account, by: Option<Timestamp>) -> Result<(), SpoolError> {
        let awaited = self.shared.index().awaited_ids(account, by);
        let mut failed = Ok(());
        for id in awaited {
            let held = match self.shared.hold(id) {
                Ok(held) => held,
                Err(SpoolError::Unknown(_)) => continue,
                // What the disk says weighs more: that one of them is in another's hands passes.
                Err(error) => {
                    failed = failed.and(Err(error));
                    continue;
                }
            };
            let kept = blocking(move || held.shared.write_kept(id)).await;
            if let Err(error) = kept.unwrap_or_else(|unfinished| Err(unfinished.into())) {
                failed = Err(error);
            }
        }
        failed
    }

    /// Notes durably that the account's block of `blocked` is lifted, before it is: mail parked by a lifted block no longer
    /// proves that block, should the blocks have to be rebuilt from the quarantine.
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

    /// The blocks for which messages are parked, and which were not lifted, each account's latest. Reads every envelope; blocks.
    pub fn blocks(&self) -> Vec<(Account, BlockFacts)> {
        let marks = marks::read(&self.shared.folder).unwrap_or_default();
        let mut blocks: BTreeMap<Account, BlockFacts> = BTreeMap::new();
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

    /// What waits for an operator, account by account; those parked before `before` count as old.
    pub fn waiting(&self, before: Option<Timestamp>) -> Vec<Waiting> {
        self.shared.index().waiting(before)
    }

    /// Since when the oldest message waits for an operator.
    pub fn oldest_waiting(&self) -> Option<Timestamp> {
        self.shared.index().oldest_waiting()
    }

    /// How old a message may grow; `None`: as old as it likes.
    pub fn expire_after(&self) -> Option<Duration> {
        self.shared.limits.load().expire_after
    }

    /// Removes parked messages older than `expire_after`, and parked before `announced`; says which. One that is to go out by itself stays, unless its
    /// time has come and its account is among those that are `held`. One that cannot be removed stays for the next time.
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
