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

use super::{Decision, ReleaseError, Releaser, Report, Try};
use crate::account::Account;
use crate::clock::{self, Settled, Span, Timestamp};
use crate::fail;
use crate::guard::Standing;
use crate::id::QuarantineId;
use crate::maillog;
use crate::quarantine::envelope::State;
use crate::quarantine::schedule::SETTLED_AGE;
use crate::quarantine::spool::{Claim, Held, Line};
use crate::quarantine::{Envelope, Spool};

/// The longest pause between looks for due messages.
const TICK: Duration = Duration::from_secs(5);
/// The shortest pause, also between two questions to the ledger about who is blocked or on probation. In between, each
/// try asks it about its own account.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// How many releases are tried again at once, and how many accounts have mail on its way out at once: a silent upstream
/// must not hold up all the others.
const AT_ONCE: usize = 4;
/// How many releases of one account are tried again at once: nor must its silent recipients hold up everybody else's.
const OF_ONE: usize = AT_ONCE / 2;
/// How long a message is left alone after a try that could not be recorded, whatever its envelope says: the disk may not
/// have taken the next try.
const REST: Duration = Duration::from_secs(60);
/// How often expired messages are looked for, and what was put off while the clock was ahead.
const EXPIRY_TICK: Duration = Duration::from_secs(10);
/// How many messages of a blocked account are made to wait for an operator between two looks, since nothing else goes
/// meanwhile: two fsyncs each. What is left is not due to go either as long as the account is blocked.
const KEPT_AT_ONCE: usize = 16;

/// `None`: it was not to go after all, or a block or probation holds it back.
type Attempt = Result<Option<Report>, ReleaseError>;

/// The tries under way.
#[derive(Default)]
struct Rounds {
    tasks: JoinSet<Attempt>,
    under_way: HashMap<Id, (QuarantineId, Line)>,
    /// The accounts that were blocked at the last look, of those with mail that goes by itself.
    blocked: BTreeSet<Account>,
    /// When the ledger was last asked; `None`: it must be asked again.
    looked: Option<Instant>,
    /// Accounts whose mail could not be held back, which has been logged.
    unkept: BTreeSet<Account>,
    /// What the clock has said for a while; `None` while that is not known.
    said: Option<Span>,
    /// Whether the clock is behind the floor, which has been logged.
    is_below: bool,
}

impl Rounds {
    /// Returns whether a try of a message in `line` may begin now.
    fn has_place(&self, line: &Line) -> bool {
        let alike =
            || self.under_way.values().map(|(_, other)| other).filter(|other| other.state == line.state);
        let of_one = if line.state == State::Parked { 1 } else { OF_ONE };
        !(line.by_itself && self.blocked.contains(&line.account))
            && alike().count() < AT_ONCE
            && alike().filter(|other| other.account == line.account).count() < of_one
    }

    /// Returns whether, besides, no other of its account is under way: those go first, however long others have been due.
    fn is_first(&self, line: &Line) -> bool {
        let mut others = self.under_way.values().map(|(_, other)| other);
        self.has_place(line)
            && !others.any(|other| other.state == line.state && other.account == line.account)
    }

    /// Claims what goes next of what is due.
    fn claim(&self, spool: &Spool, now: Timestamp) -> Option<(Held, Line)> {
        let first = spool.claim_due(now, |line| self.is_first(line));
        first.or_else(|| spool.claim_due(now, |line| self.has_place(line)))
    }

    /// Logs, once, that the clock is behind the floor: nothing that is parked until it is past that expires as usual.
    fn mention_floor(&mut self, spool: &Spool, said: Span) {
        let floor = spool.floor();
        if !std::mem::replace(&mut self.is_below, said.latest < floor) && self.is_below {
            maillog::clock_behind(floor, said.latest, &spool.floor_file());
        }
    }

    fn begin(&mut self, releaser: &Releaser, held: Held, line: Line) {
        fail::point("probation.due");
        let id = held.id();
        let releaser = releaser.clone();
        let (account, said) = (line.account.clone(), self.said);
        let task = self.tasks.spawn(async move { releaser.release_due(held, &account, said).await });
        self.under_way.insert(task.id(), (id, line));
    }

    fn ended(&mut self, spool: &Spool, done: Result<(Id, Attempt), JoinError>) {
        let task = match &done {
            Ok((task, _)) => *task,
            Err(error) => error.id(),
        };
        let Some((id, _)) = self.under_way.remove(&task) else { return };
        let rest = match done {
            // If its answers are not noted yet, the log says so, and it stays claimed until they are.
            Ok((_, Ok(Some(_)) | Err(ReleaseError::NotNoted { .. }))) => return,
            Ok((_, Ok(None))) => {
                // The last look did not know what this try found out.
                self.looked = None;
                SHORTEST_PAUSE
            }
            Ok((_, Err(error))) => {
                maillog::release_failed(id, &error.to_string());
                REST
            }
            Err(error) => {
                maillog::task_failed("release", &error.to_string());
                REST
            }
        };
        spool.rest(id, clock::now().after(rest));
    }
}

impl Releaser {
    /// Does what is due until the service shuts down, and then finishes what is under way.
    pub async fn run(&self) {
        let mut shutdown = self.parts.shutdown.clone();
        let mut rounds = Rounds::default();
        let mut expiry = Instant::now();
        let (mut settled, mut schedule) = (Settled::default(), Settled::default());
        while !*shutdown.borrow() {
            rounds.said = schedule.span(Instant::now().into_std(), clock::now(), SETTLED_AGE);
            self.begin_due(&mut rounds).await;
            let then = self.settled(&mut settled);
            if expiry.elapsed() >= EXPIRY_TICK {
                expiry = Instant::now();
                self.bring_back(&rounds);
                if let Some(said) = rounds.said {
                    self.parts.spool.settled(said.earliest).await;
                    self.parts.ledger.raise_floor(said.earliest);
                    rounds.mention_floor(&self.parts.spool, said);
                }
                self.expire(then).await;
            }
            tokio::select! {
                () = tokio::time::sleep(self.pause()) => {}
                Some(done) = rounds.tasks.join_next_with_id() => rounds.ended(&self.parts.spool, done),
                _ = shutdown.wait_for(|down| *down) => {}
            }
        }
        while let Some(done) = rounds.tasks.join_next_with_id().await {
            rounds.ended(&self.parts.spool, done);
        }
    }

    /// Brings back what was put off while the clock was ahead. Only what all readings for a while put into the future, so
    /// that a clock that is behind for a moment lets nothing out early.
    fn bring_back(&self, rounds: &Rounds) {
        if let Some(said) = rounds.said {
            self.parts.ledger.bring_back(said.latest);
            self.parts.spool.bring_back(said.latest);
        }
    }

    fn pause(&self) -> Duration {
        let until_due = self.parts.spool.next_due().map(|due| due.since(clock::now()));
        until_due.map_or(TICK, |wait| wait.clamp(SHORTEST_PAUSE, TICK))
    }

    async fn begin_due(&self, rounds: &mut Rounds) {
        if rounds.looked.is_none_or(|at| at.elapsed() >= SHORTEST_PAUSE) {
            self.look(rounds).await;
        }
        let now = clock::now();
        while let Some((held, line)) = rounds.claim(&self.parts.spool, now) {
            rounds.begin(self, held, line);
        }
    }

    /// Asks the ledger who is blocked or on probation, and holds back what fell due of the blocked accounts.
    async fn look(&self, rounds: &mut Rounds) {
        rounds.blocked = self.hold_back().await;
        let now = clock::now();
        let fell_due = |account: &&Account| self.parts.spool.is_due_by_itself(account, now);
        for account in rounds.blocked.iter().filter(fell_due).cloned().collect::<Vec<_>>() {
            self.keep(&account, now, rounds).await;
        }
        rounds.looked = Some(Instant::now());
    }

    /// Makes what fell due while its account is blocked wait for an operator.
    async fn keep(&self, account: &Account, now: Timestamp, rounds: &mut Rounds) {
        match self.parts.spool.keep_some(account, Some(now), KEPT_AT_ONCE).await {
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
        let mut held = BTreeSet::new();
        for account in self.parts.spool.awaited_accounts() {
            if self.postpone(&account).await == Standing::Blocked {
                held.insert(account);
            }
        }
        held
    }

    /// Postpones what an account has parked until its probation ends, if it is on probation. Returns its standing.
    async fn postpone(&self, account: &Account) -> Standing {
        let now = clock::now();
        let watch = self.parts.ledger.watch(account, now).await;
        if let Some(until) = watch.probation(now) {
            self.parts.spool.postpone(account, until);
        }
        watch.standing()
    }

    /// Relays a message of `account` whose delay is over, or tries a release again, if the message is still to go.
    async fn release_due(&self, held: Held, account: &Account, said: Option<Span>) -> Attempt {
        // The account may have had an alarm just now. The claim takes the due time that follows from that.
        self.postpone(account).await;
        let claim = Claim::of(held).await?;
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
        let mut attempt = Try::begin(claim, decision, said).await?;
        let asked = self.ask(&mut attempt).await;
        // The account may have been blocked meanwhile.
        if !asked.taken.is_empty() && self.is_to_be_kept(&attempt.envelope).await {
            attempt.keep(asked).await?;
            return Ok(None);
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::Arc;

    use super::*;
    use crate::quarantine::spool::{Limits, SpoolError};

    fn line(name: &str, state: State, by_itself: bool) -> Line {
        Line { account: name.parse().unwrap(), state, by_itself }
    }

    #[tokio::test]
    async fn one_message_of_an_account_and_few_releases_at_once() {
        let mut rounds = Rounds::default();
        let begin = |rounds: &mut Rounds, line: Line| {
            let task = rounds.tasks.spawn(std::future::pending());
            rounds.under_way.insert(task.id(), (QuarantineId::new(Timestamp::default()), line));
        };
        let delayed = |name: &str| line(name, State::Parked, true);
        let again = |name: &str, by_itself| line(name, State::Releasing, by_itself);
        begin(&mut rounds, delayed("anna"));
        assert!(!rounds.has_place(&delayed("anna")));
        assert!(rounds.has_place(&delayed("bert")));
        for n in 0..OF_ONE {
            assert!(rounds.has_place(&again("anna", false)), "two of one account too");
            assert_eq!(rounds.is_first(&again("anna", n == 1)), n == 0);
            begin(&mut rounds, again("anna", n == 1));
        }
        assert!(!rounds.has_place(&again("anna", false)) && rounds.is_first(&again("bert", true)));
        for name in ["bert", "carl"] {
            begin(&mut rounds, again(name, false));
        }
        assert!(!rounds.has_place(&again("dora", true)));
        assert!(rounds.has_place(&delayed("bert")), "releases that hang do not hold up what is delayed");
        for name in ["bert", "carl", "dora"] {
            begin(&mut rounds, delayed(name));
        }
        assert!(!rounds.has_place(&delayed("emil")));
        rounds.under_way.clear();
        rounds.blocked.insert("anna".parse().unwrap());
        let places = [delayed("anna"), again("anna", true), again("anna", false), delayed("bert")];
        assert_eq!(places.map(|line| rounds.has_place(&line)), [false, false, true, true]);
    }

    /// What cannot be written down yet has been sent: that does not count as a release that did not succeed.
    #[tokio::test]
    async fn what_was_sent_and_not_noted_is_no_failure() {
        let home = tempfile::tempdir().unwrap();
        let limits = Limits { max_size: 1, max_size_per_account: 1, expire_after: None };
        let spool = Spool::open(home.path(), limits).await.unwrap();
        let log = home.path().join("log");
        let subscriber =
            tracing_subscriber::fmt().with_writer(Arc::new(File::create(&log).unwrap())).finish();
        let _log = tracing::subscriber::set_default(subscriber);
        let id = QuarantineId::new(Timestamp::default());
        let full = || SpoolError::Io("no space left".into());
        for (error, lines) in
            [(ReleaseError::NotNoted { id, cause: full().into() }, 0), (ReleaseError::NotSent(full()), 1)]
        {
            let mut rounds = Rounds::default();
            let task = rounds.tasks.spawn(async move { Err(error) });
            rounds.under_way.insert(task.id(), (id, line("anna", State::Releasing, false)));
            let done = rounds.tasks.join_next_with_id().await.unwrap();
            rounds.ended(&spool, done);
            let log = std::fs::read_to_string(&log).unwrap();
            assert_eq!(log.lines().count(), lines, "{log}");
            assert!(rounds.under_way.is_empty());
        }
    }

    /// Whoever mends the clock is to hear of the next time that it is behind, and not of each look meanwhile.
    #[tokio::test]
    async fn a_clock_behind_the_floor_is_said_once_a_time() {
        let home = tempfile::tempdir().unwrap();
        let limits = Limits { max_size: 1, max_size_per_account: 1, expire_after: None };
        let spool = Spool::open(home.path(), limits).await.unwrap();
        let floor = Timestamp::from_millis(1_795_536_000_000);
        spool.settled(floor).await;
        let log = home.path().join("log");
        let subscriber =
            tracing_subscriber::fmt().with_writer(Arc::new(File::create(&log).unwrap())).finish();
        let mut rounds = Rounds::default();
        tracing::subscriber::with_default(subscriber, || {
            let hour = Duration::from_secs(3_600);
            let mut said = 0;
            for (latest, is_said) in [
                (floor, false),
                (floor.before(hour), true),
                (floor.before(2 * hour), false),
                (floor.after(hour), false),
                (Timestamp::default(), true),
            ] {
                // What the clock said for a moment only says nothing.
                rounds.mention_floor(&spool, Span { earliest: Timestamp::default(), latest });
                said += usize::from(is_said);
                let log = std::fs::read_to_string(&log).unwrap();
                assert_eq!(log.lines().count(), said, "{latest}: {log}");
                let parts = [floor.to_string(), latest.to_string(), spool.floor_file().display().to_string()];
                let last = log.lines().last().unwrap_or_default();
                assert!(!is_said || parts.iter().all(|part| last.contains(part)), "{log}");
            }
        });
    }
}
