//! Mail of our own that waits for the upstream, and events that wait for their receiver: one durable file each, retried
//! across restarts.
//!
//! The files are `DATA_DIR/outbox/ID.mail` ([`mod@file`]), one per recipient, since a transaction fails as a whole if
//! one of two recipients is refused. [`Outbox::put`] returns when the mail is on disk; [`Outbox::run`] sends what is
//! due, by way of [`route`], and reports each outcome. Retries follow the schedule of releases, and each start tries at
//! once; while no upstream can be reached, they come every [`ANYBODY_THERE`], so that notices are sent soon after it
//! returns. Mail that was given up stays visible until somebody removes the file. Notices, reports ([`Kind::Dsn`]) and
//! events ([`Kind::Event`]) have a lane each, so that none waits for what hangs in another; events about the same
//! account are sent one after the other, in order. A crash between the upstream's 250 and the removal sends a mail
//! twice (with the same Message-ID), but none is lost.

mod file;
mod route;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore};
use tokio::task::spawn_blocking;

pub use route::Route;

use super::webhook::Messenger;
use crate::clock::{self, Settled, Span, Timestamp};
use crate::durable::{DurableError, Existing, Folder};
use crate::fail;
use crate::id::OutboxId;
use crate::quarantine::schedule::{SETTLED_AGE, is_over, next_try, next_try_by, worth};
use file::Meta;
use route::{Carrier, Outcome};

/// The kinds of mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A notice for the abuse desk.
    Notice,
    /// A DSN for the sender of a released message.
    Dsn,
    /// An event for a program: JSON, sent by POST.
    Event,
}

/// The lanes of the outbox; none waits for what is on its way in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    Notices,
    /// What senders are told may hang in the upstream's content filter, which the abuse desk must not wait for.
    Reports,
    Events,
}

impl Kind {
    /// Returns its word in the log and in the outbox's files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Notice => "notice",
            Self::Dsn => "dsn",
            Self::Event => "event",
        }
    }

    fn lane(self) -> Lane {
        match self {
            Self::Notice => Lane::Notices,
            Self::Dsn => Lane::Reports,
            Self::Event => Lane::Events,
        }
    }
}

/// Whether further mail can be sent after this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    /// The receiver cannot be reached: each further mail would wait just as long in vain.
    Closed,
}

/// What sends the mail of a lane.
enum Bearer<'a> {
    Mail(Lane, &'a Carrier),
    Events(&'a Messenger),
}

/// A mail to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Its kind.
    pub kind: Kind,
    /// The reverse-path without brackets; `None` for the null reverse-path.
    pub from: Option<String>,
    /// The forward-paths without brackets; for an event, what it is about.
    pub to: Vec<String>,
    /// Header and body, with lines that end with CRLF; for an event, the JSON.
    pub message: Vec<u8>,
    /// Whether it may only be sent with REQUIRETLS (RFC 8689 5).
    pub require_tls: bool,
}

/// A mail that could not be sent, or a file that is not a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// Its file; removing it settles the matter.
    pub path: PathBuf,
    /// What it is and why it is stuck, for people.
    pub why: String,
}

/// What happened to a mail, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The receiver accepted it.
    Sent {
        /// Its id.
        id: OutboxId,
        /// Its kind.
        kind: Kind,
        /// Its recipient.
        to: String,
        /// The reply.
        reply: String,
    },
    /// It is to be tried again.
    Deferred {
        /// Its id.
        id: OutboxId,
        /// Its kind.
        kind: Kind,
        /// Its recipient.
        to: String,
        /// The reply, or why there was none.
        reply: String,
        /// When it is tried again.
        next: Timestamp,
    },
    /// It is given up: it was permanently refused, or five days have passed.
    GivenUp {
        /// Its id.
        id: OutboxId,
        /// Its kind.
        kind: Kind,
        /// Its recipient.
        to: String,
        /// The reply, or why there was none.
        reply: String,
    },
    /// A file could not be read, written or removed.
    Trouble(String),
}

/// Why the outbox failed.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// A file could not be read or written.
    #[error(transparent)]
    Disk(#[from] DurableError),
    /// What is known of a mail could not be written as JSON.
    #[error("the first line of its file: {0}")]
    Line(#[from] serde_json::Error),
    /// The trust anchors of `[upstream] ca` cannot be read, or TLS cannot be set up.
    #[error("{0}")]
    Tls(String),
    /// A task of ours was aborted.
    #[error("the outbox's task ended: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// The outbox. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbox {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    folder: Arc<Folder>,
    state: Mutex<State>,
    wake_notices: Notify,
    wake_reports: Notify,
    wake_events: Notify,
    /// One permit for each lane, held while a mail of it is on its way.
    sending: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    /// Mail that waits or was given up, oldest first.
    mails: BTreeMap<OutboxId, Meta>,
    /// The greatest id so far. The next one is greater, whatever the clock says: what is sent first goes by the ids.
    last: Option<OutboxId>,
    /// Mail that could not be written to the disk yet.
    kept: VecDeque<Batch>,
    /// Mail that was sent, and whose file could not be removed yet: the next start would send it again.
    spent: Vec<OutboxId>,
    /// The last error reported about that: writing is retried each second, but reported once.
    told: Option<String>,
    /// Files that are not mail.
    broken: Vec<Stuck>,
}

/// Mails of which either all are stored or none.
#[derive(Debug, Clone)]
struct Batch {
    mails: Vec<Mail>,
    /// One per recipient, in order.
    ids: Vec<OutboxId>,
    created: Timestamp,
}

/// How many lanes there are, see [`Lane`].
const LANES: u32 = 3;
/// The most entries that wait for the disk; further ones displace the oldest.
const MAX_KEPT: usize = 1_000;
/// How often an unreachable upstream is tried again.
const ANYBODY_THERE: Duration = Duration::from_secs(15);
/// How often writing to the disk is tried again.
const DISK_AGAIN: Duration = Duration::from_secs(1);
/// The longest sleep, since the wall clock may be set meanwhile.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

impl Outbox {
    /// Opens `data_dir/outbox`, creating it if missing. A file that is not a mail is left alone and reported by
    /// [`Outbox::stuck`].
    ///
    /// # Errors
    /// The folder cannot be created or read.
    pub fn open(data_dir: &Path) -> Result<Self, OutboxError> {
        let folder = Arc::new(Folder::create(&data_dir.join("outbox"))?);
        folder.sweep()?;
        let mut state = State::default();
        for name in folder.names()? {
            let path = folder.path().join(&name);
            state.last = state.last.max(file::id(&name));
            match file::read(&path) {
                Ok((id, mut meta, _)) => {
                    // Due at once: a restart often follows a repair of what delayed it.
                    meta.next = meta.next.map(|_| Timestamp::default());
                    state.mails.insert(id, meta);
                }
                Err(why) => state.broken.push(Stuck { why: format!("no mail: {why}"), path }),
            }
        }
        let shared = Shared {
            folder,
            state: Mutex::new(state),
            wake_notices: Notify::new(),
            wake_reports: Notify::new(),
            wake_events: Notify::new(),
            sending: Semaphore::new(LANES as usize),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Stores a mail, one id per recipient. It is on disk when this returns, and is then sent at once.
    ///
    /// # Errors
    /// The disk does not take it; nothing of it is stored.
    pub async fn put(&self, mail: Mail, now: Timestamp) -> Result<Vec<OutboxId>, OutboxError> {
        self.put_all(vec![mail], now).await
    }

    /// Stores several mails; either all of them or none.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn put_all(&self, mails: Vec<Mail>, now: Timestamp) -> Result<Vec<OutboxId>, OutboxError> {
        if mails.is_empty() {
            return Ok(Vec::new());
        }
        let batch = self.state().batch(mails, now);
        let ids = batch.ids.clone();
        self.write(batch).await?;
        Ok(ids)
    }

    async fn write(&self, batch: Batch) -> Result<(), OutboxError> {
        let folder = Arc::clone(&self.shared.folder);
        let written = spawn_blocking(move || write_all(&folder, &batch)).await??;
        self.state().mails.extend(written);
        let Shared { wake_notices, wake_reports, wake_events, .. } = &*self.shared;
        [wake_notices, wake_reports, wake_events].into_iter().for_each(Notify::notify_one);
        Ok(())
    }

    /// Keeps in memory what the disk did not take; [`Outbox::run`] writes it as soon as possible.
    pub fn keep(&self, mails: Vec<Mail>, now: Timestamp) {
        let mut state = self.state();
        if state.kept.len() >= MAX_KEPT {
            state.kept.pop_front();
        }
        let batch = state.batch(mails, now);
        state.kept.push_back(batch);
        self.shared.wake_notices.notify_one();
    }

    /// Mail that was given up (see [`Event::GivenUp`]), and files that are not mail, for as long as the files exist.
    pub fn stuck(&self) -> Vec<Stuck> {
        let mut stuck: Vec<Stuck> = {
            let state = self.state();
            let given_up = state.mails.iter().filter(|(_, meta)| meta.next.is_none());
            let given_up = given_up.map(|(id, meta)| Stuck { path: self.path(*id), why: meta.given_up() });
            given_up.chain(state.broken.iter().cloned()).collect()
        };
        stuck.retain(|stuck| stuck.path.exists());
        stuck
    }

    /// The number of mails that wait to be sent.
    pub fn waiting(&self) -> usize {
        let state = self.state();
        state.mails.values().filter(|meta| meta.next.is_some()).count()
            + state.kept.iter().map(|batch| batch.mails.len()).sum::<usize>()
    }

    /// Sends due mail by `route`, for as long as this is polled. One caller at a time.
    ///
    /// # Errors
    /// TLS cannot be set up; nothing was sent.
    pub async fn run(&self, route: &Route, report: impl Fn(Event)) -> Result<Infallible, OutboxError> {
        let carrier = Carrier::new(route)?;
        let [notices, reports] = [Lane::Notices, Lane::Reports].map(|lane| Bearer::Mail(lane, &carrier));
        tokio::select! {
            never = Box::pin(self.drive(&notices, &self.shared.wake_notices, &report)) => Ok(never),
            never = Box::pin(self.drive(&reports, &self.shared.wake_reports, &report)) => Ok(never),
        }
    }

    /// Sends due events, for as long as this is polled. One caller at a time.
    pub async fn run_events(&self, messenger: &Messenger, report: impl FnMut(Event)) -> Infallible {
        self.drive(&Bearer::Events(messenger), &self.shared.wake_events, report).await
    }

    /// Waits until no mail is on its way; once this returns, none is sent any more. A mail that was cut off between the
    /// receiver's reply and the removal of its file would be sent again by the next process.
    pub async fn finish(&self) {
        if let Ok(permits) = self.shared.sending.acquire_many(LANES).await {
            permits.forget();
        }
    }

    async fn drive(&self, bearer: &Bearer<'_>, wake: &Notify, mut report: impl FnMut(Event)) -> Infallible {
        let mut settled = Settled::default();
        loop {
            // Only one lane writes what the disk did not take. What is on disk is sent all the same, which makes room.
            let is_first = bearer.lane() == Lane::Notices;
            let disk = is_first && !(self.remove_spent().await & self.write_kept(&mut report).await);
            let now = clock::now();
            let said = settled.span(Instant::now(), now, SETTLED_AGE);
            let due = self.send_due(bearer, now, said, &mut report).await;
            let wait = due.into_iter().chain(disk.then_some(DISK_AGAIN)).min();
            let woken = wake.notified();
            match wait {
                Some(wait) => {
                    let _ = tokio::time::timeout(wait.min(LONGEST_WAIT), woken).await;
                }
                None => woken.await,
            }
        }
    }

    /// Tries everything that is due, see [`State::next`]; returns how long to wait for the next. What is over by what the clock
    /// has `said` for a while is given up.
    async fn send_due(
        &self,
        bearer: &Bearer<'_>,
        now: Timestamp,
        said: Option<Span>,
        report: &mut impl FnMut(Event),
    ) -> Option<Duration> {
        self.state().bring_back(now);
        // What was put off in this round waits, although the clock may have been set back since; what has come since goes
        // as if it had been here.
        let mut tried = HashSet::new();
        let next = |tried: &HashSet<OutboxId>| {
            let state = self.state();
            state.next(bearer.lane(), clock::now(), tried).map(|(id, meta)| (id, meta.clone()))
        };
        while let Some((id, meta)) = next(&tried) {
            tried.insert(id);
            if self.send(bearer, id, meta, said, report).await == Way::Closed {
                self.state().note_closed(bearer.lane(), id);
                return Some(ANYBODY_THERE);
            }
        }
        let next = self.state().heads(bearer.lane()).map(|(_, _, next)| next).min()?;
        Some(next.since(clock::now()))
    }

    async fn send(
        &self,
        bearer: &Bearer<'_>,
        id: OutboxId,
        mut meta: Meta,
        said: Option<Span>,
        report: &mut impl FnMut(Event),
    ) -> Way {
        let _permit = self.shared.sending.acquire().await;
        let path = self.path(id);
        let message = match spawn_blocking(move || file::read(&path)).await {
            Ok(Ok((_, _, message))) => message,
            // Removed by an operator, or damaged meanwhile.
            gone => {
                self.state().mails.remove(&id);
                if let Ok(Err(why)) = gone
                    && self.path(id).exists()
                {
                    let path = self.path(id);
                    report(Event::Trouble(format!("{}: {why}", path.display())));
                    self.state().broken.push(Stuck { path, why: format!("no mail: {why}") });
                }
                return Way::Open;
            }
        };
        let outcome = bearer.send(id, &meta, &message).await;
        let way = if matches!(outcome, Outcome::Unreachable(_)) { Way::Closed } else { Way::Open };
        let (kind, to) = (meta.kind, meta.to.clone());
        let event = match outcome {
            Outcome::Taken(reply) => {
                fail::point("outbox.sent");
                self.remove(id, report).await;
                fail::point("outbox.removed");
                Event::Sent { id, kind, to, reply }
            }
            Outcome::Unreachable(reply) => {
                let is_news = meta.last.replace(reply.clone()).as_ref() != Some(&reply);
                meta.unreached = meta.unreached.saturating_add(1);
                meta.next = (!meta.is_over(said)).then(|| clock::now().after(ANYBODY_THERE));
                self.state().mails.insert(id, meta.clone());
                match meta.next {
                    // Tried so often that it would fill the log.
                    Some(_) if !is_news => return way,
                    Some(next) => Event::Deferred { id, kind, to, reply, next },
                    None => {
                        self.note(id, &meta, &message, report).await;
                        Event::GivenUp { id, kind, to, reply }
                    }
                }
            }
            Outcome::Refused(ref reply) | Outcome::Deferred(ref reply) => {
                let is_refused = matches!(outcome, Outcome::Refused(_));
                meta.settle(reply, clock::now(), is_refused, said);
                let reply = reply.clone();
                self.note(id, &meta, &message, report).await;
                match meta.next {
                    Some(next) => Event::Deferred { id, kind, to, reply, next },
                    None => Event::GivenUp { id, kind, to, reply },
                }
            }
        };
        report(event);
        way
    }

    /// Writes a mail's new state; if the disk does not take it, it still holds in memory.
    async fn note(&self, id: OutboxId, meta: &Meta, message: &[u8], report: &mut impl FnMut(Event)) {
        self.state().mails.insert(id, meta.clone());
        if let Err(error) = self.write_note(id, meta, message).await {
            report(Event::Trouble(error.to_string()));
        }
    }

    async fn write_note(&self, id: OutboxId, meta: &Meta, message: &[u8]) -> Result<(), OutboxError> {
        let (folder, content) = (Arc::clone(&self.shared.folder), file::content(meta, message)?);
        spawn_blocking(move || folder.write(file::name(id), &content)).await??;
        Ok(())
    }

    async fn remove(&self, id: OutboxId, report: &mut impl FnMut(Event)) {
        self.state().mails.remove(&id);
        if let Err(error) = self.unlink(id).await {
            let why =
                format!("{error}; if its file cannot be removed, the mail goes out again at the next start");
            report(Event::Trouble(why));
            self.state().spent.push(id);
            self.shared.wake_notices.notify_one();
        }
    }

    /// Removes what could not be removed before; returns whether nothing is left.
    async fn remove_spent(&self) -> bool {
        let spent = std::mem::take(&mut self.state().spent);
        for (at, id) in spent.iter().enumerate() {
            if self.unlink(*id).await.is_err() {
                self.state().spent.extend_from_slice(&spent[at..]);
                return false;
            }
        }
        true
    }

    async fn unlink(&self, id: OutboxId) -> Result<(), OutboxError> {
        let folder = Arc::clone(&self.shared.folder);
        spawn_blocking(move || folder.remove(file::name(id))).await??;
        Ok(())
    }

    /// Writes what the disk did not take before; returns whether nothing is left.
    async fn write_kept(&self, report: &mut impl FnMut(Event)) -> bool {
        loop {
            let Some(batch) = self.state().kept.front().cloned() else {
                self.state().told = None;
                return true;
            };
            let ids = batch.ids.clone();
            match self.write(batch).await {
                Ok(()) => {
                    let mut state = self.state();
                    // Unless a newer one displaced it meanwhile.
                    state.kept.pop_front_if(|front| front.ids == ids);
                }
                Err(error) => {
                    let why = Some(error.to_string());
                    if self.state().told != why {
                        report(Event::Trouble(error.to_string()));
                        self.state().told = why;
                    }
                    return false;
                }
            }
        }
    }

    fn path(&self, id: OutboxId) -> PathBuf {
        self.shared.folder.path().join(file::name(id))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code can leave the state half changed while holding the lock.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn batch(&mut self, mails: Vec<Mail>, now: Timestamp) -> Batch {
        let recipients = mails.iter().map(|mail| mail.to.len()).sum();
        let next = || {
            let id = OutboxId::after(self.last, now);
            self.last = Some(id);
            id
        };
        let ids = std::iter::repeat_with(next).take(recipients).collect();
        Batch { mails, ids, created: now }
    }

    /// Brings back next tries that were set while the clock was ahead. If it is behind now, some come early.
    fn bring_back(&mut self, now: Timestamp) {
        for meta in self.mails.values_mut() {
            meta.next = meta.next.map(|next| next_try_by(next, now));
        }
    }

    /// Notes for all other mails of a lane that the way is closed for them too.
    fn note_closed(&mut self, lane: Lane, tried: OutboxId) {
        let others = self.mails.iter_mut().filter(|(id, meta)| **id != tried && meta.kind.lane() == lane);
        for (_, meta) in others {
            meta.unreached = meta.unreached.saturating_add(1);
        }
    }

    /// The mail of a lane that is due at `now`, was not `tried` in this round, and goes first: the oldest, but mails to an address that puts off what it
    /// gets go behind those to all others, who need not wait while it keeps silent.
    fn next(&self, lane: Lane, now: Timestamp, tried: &HashSet<OutboxId>) -> Option<(OutboxId, &Meta)> {
        let slow: HashSet<&str> = match lane {
            Lane::Notices | Lane::Reports => {
                let tried = self.heads(lane).filter(|(_, meta, _)| meta.tries > 0);
                tried.map(|(_, meta, _)| meta.to.as_str()).collect()
            }
            Lane::Events => HashSet::new(),
        };
        let due = || self.heads(lane).filter(|(id, _, next)| *next <= now && !tried.contains(id));
        let first = due().find(|(_, meta, _)| !slow.contains(meta.to.as_str())).or_else(|| due().next());
        first.map(|(id, meta, _)| (id, meta))
    }

    /// The mails of a lane that may be sent next, and when; of the events about the same account, only the oldest.
    fn heads(&self, lane: Lane) -> impl Iterator<Item = (OutboxId, &Meta, Timestamp)> {
        let mut about = HashSet::new();
        self.mails
            .iter()
            .filter(move |(_, meta)| meta.kind.lane() == lane)
            .filter_map(|(id, meta)| Some((*id, meta, meta.next?)))
            .filter(move |(_, meta, _)| lane != Lane::Events || about.insert(meta.to.as_str()))
    }
}

impl Bearer<'_> {
    fn lane(&self) -> Lane {
        match self {
            Self::Mail(lane, _) => *lane,
            Self::Events(_) => Lane::Events,
        }
    }

    async fn send(&self, id: OutboxId, meta: &Meta, message: &[u8]) -> Outcome {
        match self {
            Self::Mail(_, carrier) => carrier.send(meta, message).await,
            Self::Events(messenger) => match messenger.post(id, message, clock::now()).await {
                Ok(answer) => Outcome::Taken(answer),
                Err(why) => Outcome::Deferred(why),
            },
        }
    }
}

/// Writes one file per recipient; either all of them or none.
fn write_all(folder: &Arc<Folder>, batch: &Batch) -> Result<Vec<(OutboxId, Meta)>, OutboxError> {
    let mut written = Vec::new();
    let recipients = batch.mails.iter().flat_map(|mail| mail.to.iter().map(move |to| (mail, to)));
    let outcome = recipients
        .zip(&batch.ids)
        .try_for_each(|((mail, to), id)| {
            let meta = Meta::new(mail, to, batch.created);
            let mut temporary = folder.temporary()?;
            temporary.write(&file::content(&meta, &mail.message)?)?;
            // One that is there is left from an earlier try of the same batch.
            temporary.sync()?.rename(file::name(*id), Existing::Replace)?;
            fail::point("outbox.named");
            written.push((*id, meta));
            Ok(())
        })
        .and_then(|()| Ok(folder.sync()?));
    if let Err(error) = outcome {
        for (id, _) in written {
            let _ = folder.unlink(file::name(id));
        }
        return Err(error);
    }
    fail::point("outbox.synced");
    Ok(written)
}

impl Meta {
    fn new(mail: &Mail, to: &str, now: Timestamp) -> Self {
        Self {
            version: file::VERSION,
            kind: mail.kind,
            from: mail.from.clone(),
            to: to.to_owned(),
            created: now,
            tries: 0,
            unreached: 0,
            next: Some(now),
            last: None,
            require_tls: mail.require_tls,
        }
    }

    /// Notes a try that did not succeed, and gives the mail up if it `is_refused`, or if its time is over by what the clock
    /// has `said` for a while.
    fn settle(&mut self, reply: &str, now: Timestamp, is_refused: bool, said: Option<Span>) {
        self.tries = self.tries.saturating_add(1);
        self.last = Some(reply.to_owned());
        let is_over = is_refused || self.is_over(said);
        self.next = (!is_over).then(|| next_try(self.created, self.tries, now));
    }

    /// Returns whether it has been tried for long enough, by what the clock has `said` for a while.
    fn is_over(&self, said: Option<Span>) -> bool {
        let tries = self.tries.saturating_add(worth(self.unreached, ANYBODY_THERE));
        is_over(self.created, tries, said)
    }

    /// Says that it was given up, what came of the last try, and how to be rid of it.
    fn given_up(&self) -> String {
        format!(
            "{} was given up; the last try: {}; it is not tried again, and this line goes when the file is removed",
            self.describe(),
            self.last.as_deref().unwrap_or("no reply")
        )
    }

    fn describe(&self) -> String {
        let kind = match self.kind {
            Kind::Notice => "a notice",
            Kind::Dsn => "a delivery status notification",
            Kind::Event => return format!("an event about {} for [notify] webhook", self.to),
        };
        format!("{kind} for {}", self.to)
    }
}
