//! What each command does, over ledger, quarantine and roster; the same within `serve` and, while that is down, within
//! the command's own process.
//!
//! Answers are sent as they come, through a bounded channel: a list of 100,000 is never in memory as a whole. Each
//! operation leaves an audit line. Whatever else it needs from the program around it is in [`Host`].

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::api::{
    AccountState, AccountStatus, Answer, Changed, Deed, DeleteOutcome, Deleted, Entry, Part, Purpose,
    Released, Request, Selection, Stock, UpstreamStatus,
};
use super::audit::{Actor, AuditLine};
use super::missed::Missed;
use crate::account::Account;
use crate::clock;
use crate::guard::ledger::{BLIND_AFTER, Blindness, Change, LedgerError, Record, Tallies};
use crate::guard::{Ledger, Standing};
use crate::id::QuarantineId;
use crate::quarantine::envelope::State;
use crate::quarantine::progress::ReleaseOutcome;
use crate::quarantine::spool::{self, Filter, SpoolError, Usage};
use crate::quarantine::{Awaited, Spool};
use crate::release::{ReleaseError, Report};
use crate::roster::{Ending, Roster};
use crate::visible::{is_unsafe, masked, shell_word};

/// How many accounts or messages are in memory at once.
const PAGE: usize = 200;
/// How many messages are released at once: a silent upstream must not hold up all the others.
const RELEASES_AT_ONCE: usize = 8;
/// How many octets of a message are read at once.
const READ_AT_ONCE: usize = 64 * 1024;
/// How many answers, or pieces of a message, wait for a slow reader.
const WAITING: usize = 16;
/// The same for a command that changes something: room for an answer per message, since the command must not wait for a
/// pager.
const WAITING_OF_CHANGES: usize = 1 << 20;
/// How long a command that only looks may go on once `serve` shuts down.
const LAST_LOOK: Duration = Duration::from_secs(1);
/// How often a claimed message is tried again, and the pause between tries.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);
/// The longest reason for a block, in characters.
const MAX_REASON: usize = 500;

/// The future that a trait's method returns.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The program around the operations: `serve`, or a command's own process.
pub trait Host: Send + Sync + 'static {
    /// Leaves an audit line.
    fn audit(&self, line: &AuditLine);

    /// Returns what `status` warns of besides a blind upstream: notices that nobody accepts, a ledger that cannot be
    /// written.
    fn warnings(&self) -> Vec<String>;

    /// Returns whether nothing more may be begun, since `serve` is shutting down.
    fn is_ending(&self) -> bool {
        false
    }

    /// Notes that an operator has blocked the account.
    fn blocked(&self, _account: &Account) {}

    /// Releases a message.
    fn release(&self, id: QuarantineId, quiet: bool) -> Pending<'_, Result<Released, ReleaseError>>;
}

/// The answers of one command. A reader that wants no more drops it.
pub type Answers = mpsc::Receiver<Answer>;
/// The octets of one message.
pub type Octets = mpsc::Receiver<Result<Bytes, String>>;

/// A release that has ended.
type Attempt = (QuarantineId, Result<Released, ReleaseError>);

/// The reader of the answers is gone.
struct Gone;

/// The operations. Cheap to clone.
#[derive(Clone)]
pub struct Operations {
    ledger: Ledger,
    spool: Spool,
    roster: Roster,
    host: Arc<dyn Host>,
    /// Commands under way that change something.
    under_way: Arc<Mutex<JoinSet<()>>>,
    /// Commands under way that only look.
    looking: Arc<Mutex<JoinSet<()>>>,
}

/// One command under way.
struct Command<'a> {
    operations: &'a Operations,
    actor: &'a Actor,
    answers: mpsc::Sender<Answer>,
}

impl Operations {
    /// Makes the operations over these parts.
    pub fn new(ledger: Ledger, spool: Spool, roster: Roster, host: Arc<dyn Host>) -> Self {
        Self { ledger, spool, roster, host, under_way: Arc::default(), looking: Arc::default() }
    }

    /// Performs a command and returns its answers. Once they are dropped, a command that only looks ends at its next
    /// answer; any other is completed.
    pub fn perform(&self, request: Request, actor: Actor) -> Answers {
        let (waiting, under_way) = match request.only_looks() {
            true => (WAITING, &self.looking),
            false => (WAITING_OF_CHANGES, &self.under_way),
        };
        let (answers, listener) = mpsc::channel(waiting);
        let operations = self.clone();
        let mut under_way = under_way.lock().unwrap_or_else(PoisonError::into_inner);
        while under_way.try_join_next().is_some() {}
        under_way.spawn(async move {
            let command = Command { operations: &operations, actor: &actor, answers };
            // A reader that went away wants no more of a list; everything else goes on without one.
            let _ = command.perform(request).await;
        });
        listener
    }

    /// Waits until no command is under way, whether or not anybody reads the answers; aborts those that only look after
    /// [`LAST_LOOK`]. Dropping the future aborts the commands it waits for.
    pub async fn finish(&self) {
        let looked = tokio::time::timeout(LAST_LOOK, finished(&self.looking));
        let ((), _) = tokio::join!(finished(&self.under_way), looked);
    }

    /// Returns a message octet for octet as it arrived, or its envelope as it is on disk.
    ///
    /// # Errors
    /// There is no such message, or it cannot be read.
    pub async fn message(
        &self,
        id: &str,
        part: Part,
        purpose: Purpose,
        actor: &Actor,
    ) -> Result<Octets, String> {
        let found = match (self.resolve(id), part) {
            (Ok(id), Part::Message) => self.spool.message(id).await.map_err(|error| error.to_string()),
            (Ok(id), Part::Envelope) => self.spool.raw_envelope(id).await.map_err(|error| error.to_string()),
            (Err(failure), _) => Err(failure),
        };
        // `show` has asked for the envelope before, which left an audit line; one line is enough for both parts.
        if purpose != Purpose::Show && part == Part::Message {
            self.audit(actor, audited_as(purpose), &self.name(id), outcome_of(&found));
        }
        let mut file = found?;
        let (octets, reader) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            loop {
                let mut piece = vec![0; READ_AT_ONCE];
                let read = file.read(&mut piece).await;
                let end = !matches!(read, Ok(1..));
                let item = match read {
                    Ok(0) => return,
                    Ok(length) => {
                        piece.truncate(length);
                        Ok(Bytes::from(piece))
                    }
                    Err(error) => Err(format!("the message cannot be read: {error}")),
                };
                if octets.send(item).await.is_err() || end {
                    return;
                }
            }
        });
        Ok(reader)
    }

    /// Returns the name of a message in an audit line: its id, if it has one.
    fn name(&self, id: &str) -> String {
        self.spool.resolve(id).map_or_else(|| shown(id), |id| id.to_string())
    }

    fn resolve(&self, id: &str) -> Result<QuarantineId, String> {
        self.spool.resolve(id).ok_or_else(|| unknown(id))
    }

    fn audit(&self, actor: &Actor, command: &str, object: &str, outcome: &str) {
        self.host.audit(&AuditLine::new(actor, command, object, outcome, clock::now()));
    }

    /// Returns the warning about messages that cannot be read, whose accounts are unknown.
    fn unreadable(&self) -> Option<String> {
        let whose = match self.spool.unreadable() {
            0 => return None,
            1 => "1 message in the quarantine cannot be read; its account is unknown".to_owned(),
            more => format!("{more} messages in the quarantine cannot be read; their accounts are unknown"),
        };
        Some(format!(
            "{whose}; `gatepost quarantine list` says which and why, `quarantine export` saves what is there"
        ))
    }

    /// Returns an account's state, if it is blocked or on probation.
    async fn state(&self, account: &Account) -> Option<AccountState> {
        let now = clock::now();
        let watch = self.ledger.watch(account, now).await;
        match (watch.standing(), watch.probation(now)) {
            (Standing::Blocked, _) => Some(AccountState::Blocked),
            (Standing::Open, until) => until.map(|_| AccountState::Probation),
        }
    }

    fn parked(&self, account: &Account) -> u64 {
        self.spool.usage(Some(account)).messages
    }
}

/// Waits for all commands. Dropping the future aborts those that are left.
async fn finished(commands: &Mutex<JoinSet<()>>) {
    loop {
        let mut under_way = std::mem::take(&mut *commands.lock().unwrap_or_else(PoisonError::into_inner));
        if under_way.is_empty() {
            return;
        }
        while under_way.join_next().await.is_some() {}
    }
}

impl Command<'_> {
    async fn perform(&self, request: Request) -> Result<(), Gone> {
        match request {
            Request::Status => self.status().await,
            Request::Block { account, reason } => self.block(account, reason).await,
            Request::Unblock { account, release, kick } => self.unblock(account, release, kick).await,
            Request::Kick { account } => self.kick(account).await,
            Request::List { filter, limit } => self.list(filter, limit).await,
            Request::Envelope { id, purpose } => self.envelope(&id, purpose).await,
            Request::Release { which, quiet } => self.release(which, quiet).await,
            Request::Delete { which } => self.delete(which).await,
            Request::Audit { done, object, outcome } => {
                self.audit(&done, &object, &outcome);
                Ok(())
            }
        }
    }

    async fn status(&self) -> Result<(), Gone> {
        self.audit("status", "all accounts", "done");
        let now = clock::now();
        let blind = self.operations.ledger.blindness(now).map(blind);
        let Tallies { asked, refused, foreign_asked, foreign_refused } = self.operations.ledger.tallies(now);
        let causes = self.operations.ledger.common_causes(now);
        let upstream = UpstreamStatus {
            asked,
            refused,
            foreign_asked,
            foreign_refused,
            blind: blind.is_some(),
            common_causes: causes.len() as u64,
            not_counted: causes.iter().map(|cause| cause.answers).sum(),
        };
        self.say(Answer::Upstream(upstream)).await?;
        let stock = self.operations.spool.stock().into_iter();
        let stock = stock.map(|(state, Usage { messages, octets })| Stock { state, messages, octets });
        self.say(Answer::Quarantine(stock.collect())).await?;
        let unreadable = self.operations.unreadable();
        for warning in self.operations.host.warnings().into_iter().chain(blind).chain(unreadable) {
            self.say(Answer::Warning(warning)).await?;
        }
        // Mail may wait although nothing is left in the window and probation is over or was ended.
        let mut awaited = self.operations.spool.all_awaited();
        let mut after = None;
        loop {
            let page = match self.operations.ledger.records(after.as_ref(), PAGE, clock::now()).await {
                Ok(page) => page,
                Err(error) => return self.fail(error.to_string()).await,
            };
            let Some(last) = page.last() else { break };
            after = Some(last.account.clone());
            for record in page {
                let awaited = awaited.remove(&record.account).unwrap_or_default();
                self.account(record, awaited).await?;
            }
        }
        for (account, awaited) in awaited {
            let now = clock::now();
            let record = self.operations.ledger.watch(&account, now).await.record(now);
            self.account(record, awaited).await?;
        }
        Ok(())
    }

    async fn account(&self, record: Record, awaited: Awaited) -> Result<(), Gone> {
        let parked = self.operations.parked(&record.account);
        let sessions = self.operations.roster.count(&record.account);
        let status = AccountStatus::new(record, parked, awaited, sessions, clock::now());
        self.say(Answer::Account(status)).await
    }

    async fn block(&self, account: Account, reason: Option<String>) -> Result<(), Gone> {
        let reason = reason.and_then(|text| kept(&text));
        let was = self.operations.state(&account).await;
        let made = self.operations.ledger.block(&account, reason.as_deref(), clock::now()).await;
        self.operations.host.blocked(&account);
        let outcome = match (&made, &reason) {
            (Ok(Change::Made), Some(reason)) => format!("done: {reason}"),
            (Ok(Change::Made), None) => "done".to_owned(),
            (Ok(Change::WasSo), Some(reason)) => format!("was blocked already, now for: {reason}"),
            (Ok(Change::WasSo), None) => "was blocked already".to_owned(),
            (Err(error), _) => format!("failed: {error}"),
        };
        self.audit("block", account.as_str(), &outcome);
        let mut changed = self.changed(account, Deed::Blocked, matches!(made, Ok(Change::Made)));
        changed.was = was;
        self.report(changed, made.err()).await
    }

    async fn unblock(&self, account: Account, release: bool, kick: bool) -> Result<(), Gone> {
        let was = self.operations.state(&account).await;
        self.keep_due_times(&account).await;
        // What is released right away need not be held back.
        if was == Some(AccountState::Blocked)
            && !release
            && let Err(why) = self.keep_what_fell_due(&account).await
        {
            let why = format!(
                "{account} stays blocked: what fell due meanwhile cannot be held back, and would go out by itself: {why}; \
                 to release all of it: gatepost unblock {} --release",
                shell_word(account.as_str())
            );
            self.audit("unblock", account.as_str(), &format!("failed: {why}"));
            return self.fail(why).await;
        }
        self.mark_unblocked(&account).await;
        // First, so that none of the sessions that are to end sends anything in between.
        let kicked = kick.then(|| self.end_sessions(&account));
        let made = self.operations.ledger.unblock(&account, clock::now()).await;
        let outcome = match &made {
            Ok(Change::Made) if was == Some(AccountState::Probation) => "done, was on probation".to_owned(),
            Ok(Change::Made) => "done".to_owned(),
            Ok(Change::WasSo) => "was not blocked".to_owned(),
            Err(error) => format!("failed: {error}"),
        };
        self.audit("unblock", account.as_str(), &outcome);
        let mut changed = self.changed(account.clone(), Deed::Unblocked, matches!(made, Ok(Change::Made)));
        changed.was = was;
        if release {
            // It is released right away, and does not go out by itself.
            (changed.awaited, changed.last_due) = (0, None);
        }
        if let Some(sessions) = kicked {
            (changed.sessions, changed.kicked) = (sessions, true);
        }
        let _ = self.report(changed, made.err()).await;
        if release { self.release(Selection::Account(account), false).await } else { Ok(()) }
    }

    /// Keeps due times that follow from a probation which is about to be ended early (CONTRACT, Detection), also over a
    /// restart.
    async fn keep_due_times(&self, account: &Account) {
        let (Operations { ledger, spool, .. }, now) = (self.operations, clock::now());
        let Some(until) = ledger.watch(account, now).await.probation(now) else { return };
        spool.postpone(account, until);
        if let Err(error) = spool.write_due_times(account).await {
            self.warn(format!("{error}: after a restart some of its messages go out earlier")).await;
        }
    }

    /// Makes what fell due during a block, which is about to end, wait for a release; also if no `serve` was running to
    /// see it.
    async fn keep_what_fell_due(&self, account: &Account) -> Result<(), SpoolError> {
        for _ in 0..TRIES {
            match self.operations.spool.keep(account, Some(clock::now())).await {
                // Its release is being considered, and will not happen while the account is blocked.
                Err(SpoolError::Claimed(_)) => tokio::time::sleep(PAUSE).await,
                kept => return kept,
            }
        }
        // It is being sent: that was decided.
        Ok(())
    }

    /// Marks the block as lifted, so that mail parked by it no longer proves it, should the blocks have to be rebuilt
    /// from the quarantine.
    async fn mark_unblocked(&self, account: &Account) {
        let (Operations { ledger, spool, .. }, now) = (self.operations, clock::now());
        let Some(block) = ledger.watch(account, now).await.block() else { return };
        if let Err(error) = spool.mark_unblocked(account, block.at, now).await {
            self.warn(format!("{error}: it cannot be noted in the quarantine")).await;
        }
    }

    async fn kick(&self, account: Account) -> Result<(), Gone> {
        let sessions = self.end_sessions(&account);
        let mut changed = self.changed(account, Deed::Kicked, sessions > 0);
        changed.sessions = sessions;
        changed.kicked = true;
        self.say(Answer::Changed(changed)).await
    }

    fn end_sessions(&self, account: &Account) -> usize {
        let sessions = self.operations.roster.end(account, Ending::Kicked);
        self.audit("kick", account.as_str(), &format!("{sessions} open sessions told to end"));
        sessions
    }

    fn changed(&self, account: Account, done: Deed, changed: bool) -> Changed {
        let sessions = self.operations.roster.count(&account);
        let parked = self.operations.parked(&account);
        let Awaited { messages: awaited, last: last_due, next: _ } = self.operations.spool.awaited(&account);
        Changed { account, done, changed, sessions, kicked: false, parked, was: None, awaited, last_due }
    }

    /// Reports what was done. If the ledger could not be written, it is unknown whether the change will last.
    async fn report(&self, changed: Changed, unwritten: Option<LedgerError>) -> Result<(), Gone> {
        let Some(why) = unwritten else { return self.say(Answer::Changed(changed)).await };
        let what = if changed.done == Deed::Blocked { "blocked" } else { "unblocked" };
        self.fail(format!(
            "{} is {what} in memory alone, which the next start forgets unless `serve` can write it before: {why}",
            changed.account
        ))
        .await
    }

    async fn list(&self, filter: Filter, limit: Option<usize>) -> Result<(), Gone> {
        self.audit("quarantine list", &describe(&filter), "done");
        let mut left = limit.unwrap_or(usize::MAX);
        let mut after = None;
        while left > 0 {
            let page = self.operations.spool.list(&filter, after, left.min(PAGE)).await;
            left -= page.len().min(left);
            let entries: Vec<Entry> = page.into_iter().map(Entry::from).collect();
            let Some(last) = entries.last() else { break };
            after = Some(last.id);
            for entry in entries {
                self.say(Answer::Entry(entry)).await?;
            }
        }
        Ok(())
    }

    async fn envelope(&self, id: &str, purpose: Purpose) -> Result<(), Gone> {
        let found = match self.operations.resolve(id) {
            Ok(id) => self.find(id, purpose).await,
            Err(failure) => Err(failure),
        };
        // If the command goes on to read the message, that leaves the line.
        if purpose == Purpose::Show || found.is_err() {
            self.audit(audited_as(purpose), &self.operations.name(id), outcome_of(&found));
        }
        match found {
            Ok(answer) => self.say(answer).await,
            Err(failure) => self.fail(failure).await,
        }
    }

    /// Returns the envelope; if it is unreadable and the octets are wanted, what is known about the message.
    async fn find(&self, id: QuarantineId, purpose: Purpose) -> Result<Answer, String> {
        let spool = &self.operations.spool;
        match spool.envelope(id).await {
            Ok(envelope) => Ok(Answer::Envelope(Box::new(envelope))),
            Err(SpoolError::Unreadable { cause, .. } | SpoolError::Io(cause)) if purpose != Purpose::Show => {
                let size = spool.message_size(id);
                Ok(Answer::Entry(spool::Entry::Unreadable { id, size, cause }.into()))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    async fn release(&self, which: Selection, quiet: bool) -> Result<(), Gone> {
        let command = if quiet { "quarantine release --quiet" } else { "quarantine release" };
        let of_account = matches!(which, Selection::Account(_));
        let mut missed = Missed::of(&which);
        let mut under_way = JoinSet::new();
        for id in self.select(command, which).await {
            if under_way.len() >= RELEASES_AT_ONCE {
                self.next_released(command, &mut under_way, &mut missed).await;
            }
            let host = Arc::clone(&self.operations.host);
            if host.is_ending() {
                // A message sent without its answer being noted would be sent again.
                match &mut missed {
                    Some(missed) => missed.late += 1,
                    None => {
                        let why = format!("message {id}: not begun, since `serve` is shutting down");
                        let _ = self.fail(why).await;
                    }
                }
                continue;
            }
            under_way.spawn(async move { (id, host.release(id, quiet).await) });
        }
        while !under_way.is_empty() {
            self.next_released(command, &mut under_way, &mut missed).await;
        }
        self.say_missed(missed).await;
        self.say_unreadable(of_account).await
    }

    /// Waits for the next release to end, and reports its outcome.
    async fn next_released(
        &self,
        command: &str,
        under_way: &mut JoinSet<Attempt>,
        missed: &mut Option<Missed>,
    ) {
        let (id, outcome) = match under_way.join_next().await {
            Some(Ok(attempt)) => attempt,
            Some(Err(error)) => {
                let _ = self.fail(format!("a release broke off: {error}")).await;
                return;
            }
            None => return,
        };
        if let (Err(ReleaseError::NotSent(failure)), Some(missed)) = (&outcome, missed)
            && missed.counts(failure)
        {
            return self.audit(command, &id.to_string(), &failure.to_string());
        }
        if let Err(ReleaseError::NotSent(SpoolError::Claimed(_))) = &outcome
            && let Ok(envelope) = self.operations.spool.envelope(id).await
            && envelope.state() == State::Releasing
        {
            // What becomes of it is told to whoever has it.
            let so_far = Report::of(&envelope, ReleaseOutcome::Releasing);
            let _ = self.say(Answer::Released(so_far.into())).await;
        }
        let outcome = outcome.map_err(|failure| failure.to_string());
        let word = match &outcome {
            Ok(released) => released.outcome.as_str(),
            Err(failure) => failure,
        };
        self.audit(command, &id.to_string(), word);
        // The decision stands, and the next message is released too, whether or not anybody reads the answers.
        let _ = match outcome {
            Ok(released) => self.say(Answer::Released(released)).await,
            Err(failure) => self.fail(failure).await,
        };
    }

    async fn delete(&self, which: Selection) -> Result<(), Gone> {
        let of_account = matches!(which, Selection::Account(_));
        let mut missed = Missed::of(&which);
        for id in self.select("quarantine delete", which).await {
            let removed = self.operations.spool.remove(id).await;
            let counted = match (&removed, &mut missed) {
                (Err(failure), Some(missed)) => missed.counts(failure),
                _ => false,
            };
            let removed = removed.map_err(|failure| failure.to_string());
            self.audit("quarantine delete", &id.to_string(), outcome_of(&removed));
            let _ = match removed {
                Ok(()) => self.say(Answer::Deleted(Deleted { id, outcome: DeleteOutcome::Deleted })).await,
                Err(_) if counted => Ok(()),
                Err(failure) => self.fail(failure).await,
            };
        }
        self.say_missed(missed).await;
        self.say_unreadable(of_account).await
    }

    /// Reports, after the command, those messages of a selection that were missed.
    async fn say_missed(&self, missed: Option<Missed>) {
        if let Some(sentence) = missed.and_then(|missed| missed.sentence()) {
            let _ = self.fail(sentence).await;
        }
    }

    /// Warns, after a command on all messages of an account, that unreadable messages may belong to it too.
    async fn say_unreadable(&self, of_account: bool) -> Result<(), Gone> {
        match self.operations.unreadable().filter(|_| of_account) {
            Some(warning) => self.say(Answer::Warning(warning)).await,
            None => Ok(()),
        }
    }

    /// Returns the ids of a selection; reports names that match nothing as failures.
    async fn select(&self, command: &str, which: Selection) -> Vec<QuarantineId> {
        let names = match which {
            Selection::Account(account) => {
                let ids = self.operations.spool.ids(Some(&account));
                self.audit(command, account.as_str(), &format!("{} messages", ids.len()));
                return ids;
            }
            Selection::All => {
                let ids = self.operations.spool.ids(None);
                self.audit(command, "all", &format!("{} messages", ids.len()));
                return ids;
            }
            Selection::Ids(names) => names,
        };
        let known = self.operations.spool.resolve_all(names.iter().map(String::as_str));
        let (mut ids, mut chosen) = (Vec::new(), HashSet::new());
        for name in &names {
            match known.get(name.as_str()) {
                // It may be named twice, by its id and by its queue id.
                Some(id) => ids.extend(chosen.insert(*id).then_some(*id)),
                None => {
                    self.audit(command, name, "unknown");
                    let short = self.operations.spool.resolve_short(name);
                    let why = short.map_or_else(|| unknown(name), |id| too_short(name, id));
                    let _ = self.fail(why).await;
                }
            }
        }
        ids
    }

    async fn say(&self, answer: Answer) -> Result<(), Gone> {
        self.answers.send(answer).await.map_err(|_| Gone)
    }

    /// Warns any reader; the command goes on without one.
    async fn warn(&self, why: String) {
        let _ = self.say(Answer::Warning(why)).await;
    }

    async fn fail(&self, why: String) -> Result<(), Gone> {
        self.say(Answer::Failure(why)).await
    }

    fn audit(&self, command: &str, object: &str, outcome: &str) {
        self.operations.audit(self.actor, command, object, outcome);
    }
}

fn audited_as(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Show => "quarantine show",
        Purpose::Raw => "quarantine show --raw",
        Purpose::Export => "quarantine export",
    }
}

fn outcome_of<T>(outcome: &Result<T, String>) -> &str {
    match outcome {
        Ok(_) => "done",
        Err(failure) => failure,
    }
}

/// CONTRACT: `status` says loudly that the upstream does not verify recipients.
fn blind(blindness: Blindness) -> String {
    let which = match blindness {
        Blindness::Everybody => "",
        Blindness::Foreign => " at domains other than its own",
    };
    format!(
        "BLIND: the upstream refused none of the first {BLIND_AFTER} recipients{which} today (UTC), and seems to accept everybody; \
         see `gatepost check`"
    )
}

/// The reason of a block as it is kept: it is shown in many places, `DATA_DIR/blocked` among them, which people read as
/// it is. `None`: there is nothing to be seen in it.
fn kept(reason: &str) -> Option<String> {
    let kept = reason.chars().take(MAX_REASON);
    kept.clone().any(|c| !is_unsafe(c)).then(|| kept.map(masked).collect())
}

fn unknown(id: &str) -> String {
    format!(
        "no message {} is in the quarantine; `gatepost quarantine list` shows those that are",
        if id.is_empty() { "with an empty id".to_owned() } else { shown(id) }
    )
}

/// Says that a queue id is enough to look at a message only.
fn too_short(queue_id: &str, id: QuarantineId) -> String {
    format!(
        "the queue id {} is too short for that, since many messages may have it; the only one now is {id}, which `gatepost quarantine show {id}` shows",
        shown(queue_id)
    )
}

/// Makes what an operator wrote as an id fit for a message.
fn shown(id: &str) -> String {
    id.chars().take(64).map(masked).collect()
}

/// Describes a filter in the words of the command line.
fn describe(filter: &Filter) -> String {
    let mut words = Vec::new();
    if let Some(account) = &filter.account {
        words.push(format!("--account {account}"));
    }
    if let Some(sender) = &filter.sender {
        words.push(format!("--sender {sender}"));
    }
    if let Some(subject) = &filter.subject {
        words.push(format!("--subject {subject}"));
    }
    if let Some(since) = filter.since {
        words.push(format!("--since {since}"));
    }
    if words.is_empty() { "all".to_owned() } else { words.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_wrote_reverses_no_line() {
        for (reason, expected) in [
            ("stolen", Some("stolen")),
            ("looks \u{202e}ddo\u{1b}[2J\r\n", Some("looks ?ddo?[2J??")),
            ("\u{1b}\u{202e}", None),
            ("", None),
        ] {
            assert_eq!(kept(reason).as_deref(), expected, "{reason:?}");
        }
        assert_eq!(kept(&"x".repeat(MAX_REASON + 1)).map(|reason| reason.len()), Some(MAX_REASON));
        assert_eq!(shown("abc\u{202e}\u{200b}\u{7}"), "abc???");
    }
}
