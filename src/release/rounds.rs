//! What happens by itself: releases are tried again, mail whose delay is over is relayed, expired mail is removed.
//!
//! CONTRACT, Detection: mail that falls due while its account is not blocked goes out, oldest first, one message at a
//! time per account. Mail that falls due, or is to be tried again by itself, while its account is blocked waits for an
//! operator from then on: whoever lifts the block of a stolen account does not mean to send what the thief left. During
//! probation nothing of the account is due before that ends (or a day after its arrival, if that is sooner), so a crash
//! between an alarm and the due times that follow from it lets nothing out too early.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use super::{Decision, Releaser, Report, Try};
use crate::account::Account;
use crate::clock::{self, Settled, Timestamp};
use crate::fail;
use crate::guard::Standing;
use crate::id::QuarantineId;
use crate::maillog;
use crate::parts::Parts;
use crate::quarantine::Envelope;
use crate::quarantine::envelope::State;
use crate::quarantine::spool::{Due, SpoolError};

/// The longest pause between looks for due messages.
const TICK: Duration = Duration::from_secs(5);
/// The shortest pause.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// How many releases are tried again at once, and how many accounts have mail on its way out at once: a silent upstream
/// must not hold up all the others.
const AT_ONCE: usize = 4;
/// How long a message that could not be tried is left alone, whatever its envelope says: the disk may not have taken
/// the next try.
const REST: Duration = Duration::from_secs(60);
/// How often expired messages are looked for.
const EXPIRY_TICK: Duration = Duration::from_secs(10);

/// `None`: it was not to go after all, or a block holds it back.
type Attempt = Result<Option<Report>, SpoolError>;

/// The tries under way.
#[derive(Default)]
struct Rounds {
    tasks: JoinSet<Attempt>,
    under_way: HashMap<Id, Due>,
    resting: HashMap<QuarantineId, Instant>,
    /// Accounts whose mail could not be held back, which has been logged.
    unkept: BTreeSet<Account>,
}

impl Rounds {
    /// Returns whether a try of `due` may begin now.
    fn has_place(&self, due: &Due) -> bool {
        let alike = || self.under_way.values().filter(|other| other.state == due.state);
        !self.resting.contains_key(&due.id)
            && alike().count() < AT_ONCE
            && (due.state != State::Parked || alike().all(|other| other.account != due.account))
    }

    fn begin(&mut self, releaser: &Releaser, due: Due) {
        fail::point("probation.due");
        self.resting.insert(due.id, Instant::now() + REST);
        let releaser = releaser.clone();
        let id = due.id;
        let task = self.tasks.spawn(async move { releaser.release_due(id).await });
        self.under_way.insert(task.id(), due);
    }

    fn ended(&mut self, done: Result<(Id, Attempt), JoinError>) {
        let task = match &done {
            Ok((task, _)) => *task,
            Err(error) => error.id(),
        };
        let Some(Due { id, .. }) = self.under_way.remove(&task) else { return };
        match done {
            Ok((_, Ok(Some(_)))) => {}
            // Nothing is wrong with it: it is claimed elsewhere, or its time has not come.
            Ok((_, Ok(None) | Err(SpoolError::Claimed(_)))) => drop(self.resting.remove(&id)),
            Ok((_, Err(error))) => maillog::release_failed(id, &error.to_string()),
            Err(error) => maillog::task_failed("release", &error.to_string()),
        }
    }
}

impl Releaser {
    /// Does what is due until the service shuts down, and then finishes what is under way.
    pub async fn run(&self) {
        let mut shutdown = self.parts.shutdown.clone();
        let mut rounds = Rounds::default();
        let mut expiry = Instant::now();
        let mut settled = Settled::default();
        while !*shutdown.borrow() {
            self.begin_due(&mut rounds).await;
            let then = self.settled(&mut settled);
            if expiry.elapsed() >= EXPIRY_TICK {
                expiry = Instant::now();
                self.expire(then).await;
            }
            tokio::select! {
                () = tokio::time::sleep(self.pause()) => {}
                Some(done) = rounds.tasks.join_next_with_id() => rounds.ended(done),
                _ = shutdown.wait_for(|down| *down) => {}
            }
        }
        while let Some(done) = rounds.tasks.join_next_with_id().await {
            rounds.ended(done);
        }
    }

    fn pause(&self) -> Duration {
        let until_due = self.parts.spool.next_due().map(|due| due.since(clock::now()));
        until_due.map_or(TICK, |wait| wait.clamp(SHORTEST_PAUSE, TICK))
    }

    async fn begin_due(&self, rounds: &mut Rounds) {
        rounds.resting.retain(|_, until| *until > Instant::now());
        let held = self.hold_back().await;
        let now = clock::now();
        let mut due = self.parts.spool.due(now);
        let fell_due = |account: &&Account| due.iter().any(|due| due.by_itself && due.account == **account);
        for account in held.iter().filter(fell_due) {
            self.keep(account, now, rounds).await;
        }
        due.retain(|due| !(due.by_itself && held.contains(&due.account)));
        // Of those whose delay is over, the oldest go first: ids sort by arrival.
        due.sort_by_key(|due| (due.state == State::Parked).then_some(due.id));
        for due in due {
            if rounds.has_place(&due) {
                rounds.begin(self, due);
            }
        }
    }

    /// Makes what fell due while its account is blocked wait for an operator.
    async fn keep(&self, account: &Account, now: Timestamp, rounds: &mut Rounds) {
        match self.parts.spool.keep(account, Some(now)).await {
            Ok(()) => drop(rounds.unkept.remove(account)),
            Err(error) => {
                if rounds.unkept.insert(account.clone()) {
                    maillog::not_kept(account, &error.to_string());
                }
            }
        }
    }

    /// Postpones what accounts on probation have parked until probation ends. Returns the blocked accounts, whose mail
    /// stays although its time may have come.
    async fn hold_back(&self) -> BTreeSet<Account> {
        let Parts { ledger, spool, .. } = &self.parts;
        let mut held = BTreeSet::new();
        for account in spool.awaited_accounts() {
            let now = clock::now();
            let watch = ledger.watch(&account, now).await;
            if let Some(until) = watch.probation(now) {
                spool.postpone(&account, until);
            }
            if watch.standing() == Standing::Blocked {
                held.insert(account);
            }
        }
        held
    }

    /// Relays a message whose delay is over, or tries a release again, if the message is still to go.
    async fn release_due(&self, id: QuarantineId) -> Attempt {
        let claim = self.parts.spool.claim(id).await?;
        let envelope = claim.envelope();
        let decision = match envelope.state() {
            State::Releasing => Decision::Earlier,
            State::Parked if envelope.due.is_some_and(|due| due <= clock::now()) => Decision::Due,
            State::Parked | State::Failed | State::Unreadable => return Ok(None),
        };
        if self.is_to_be_kept(envelope).await {
            return Ok(None);
        }
        if decision == Decision::Due {
            maillog::delay_over(envelope);
        }
        let mut attempt = Try::begin(claim, decision).await?;
        let asked = self.ask(&mut attempt).await;
        // The account may have been blocked meanwhile.
        if !asked.taken.is_empty() && self.is_to_be_kept(&attempt.envelope).await {
            return attempt.keep(asked).await.map(|()| None);
        }
        self.finish(attempt, asked).await.map(Some)
    }

    /// Returns whether a block holds the message back: its account is blocked, and no operator has decided that it
    /// goes.
    async fn is_to_be_kept(&self, envelope: &Envelope) -> bool {
        envelope.goes_by_itself().is_some()
            && self.parts.ledger.watch(&envelope.account, clock::now()).await.standing() == Standing::Blocked
    }

    /// Returns the time by which messages may expire now; `None` if none may yet.
    fn settled(&self, settled: &mut Settled) -> Option<Timestamp> {
        settled.look(Instant::now().into_std(), clock::now(), self.parts.spool.expire_after()?)
    }

    async fn expire(&self, settled: Option<Timestamp>) {
        let Some(now) = settled else { return };
        let held = self.hold_back().await;
        // Nothing expires that no digest has announced.
        let Some(announced) = self.parts.digests.released(now) else { return };
        for id in self.parts.spool.expire(now, &held, announced).await {
            maillog::expired(id);
        }
    }
}
