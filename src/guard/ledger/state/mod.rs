//! The state of one account, and the decisions about it: whether an attempt counts, blocks, or begins a probation.
//!
//! No I/O; time is an argument. `commit` says what to write, and takes over what was read.

mod changes;
mod commit;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use changes::{Changes, Part};
pub(super) use commit::Commit;

use super::day::{day_of, is_another};
use super::rows::{self, Extent, KeptBlock};
use super::{
    Attempt, Block, BlockedBy, Leniency, Moment, OnAlarm, Policy, Probation, RELAYED, Record, Relayed,
    SAMPLES, Sample, Terms, Uncounted, Verdict,
};
use crate::account::Account;
use crate::clock::Timestamp;
use crate::guard::detector::{Detector, Evidence};
use crate::guard::window::{Added, Key, Window};
use crate::units::show_duration;

/// How many counted attempts are remembered, with their domains, per account.
const RECENT: usize = 64;
/// How many domains whose answers did not count are remembered per account.
const UNCOUNTED: usize = 8;
/// Roughly how many octets a relayed message takes in memory.
const MESSAGE_OCTETS: usize = 250;

#[derive(Debug)]
pub(super) struct State {
    account: Account,
    window: Window,
    attempts: Extent,
    /// Samples of the last attempts in the window, as far as they are known: the last sample belongs to the last mark.
    samples: VecDeque<Sample>,
    relayed: VecDeque<Relayed>,
    relayed_extent: Extent,
    would_block_day: Option<u64>,
    alarm_day: Option<u64>,
    detector: Detector,
    /// The latest counted attempts with their domains, which may turn out to refuse everybody.
    recent: VecDeque<Recent>,
    uncounted: VecDeque<(Uncounted, Timestamp)>,
    /// The detector's evidence as the disk has it.
    written_s: f64,
    block: Option<KeptBlock>,
    /// When the block was made, by a clock that does not jump; `None` if it was made before this process began, or by hand.
    blocked: Option<Instant>,
    /// A lifted block, until its lifting is shown.
    lifting: Option<KeptBlock>,
    probation: Option<Probation>,
    /// When a block was lifted, or a probation ended by hand, if that is still to be reported.
    lifted: Option<Timestamp>,
    /// The account's terms, and the policy they come from.
    settled: Option<(Arc<Policy>, Terms)>,
    /// RCPTs in flight over all sessions.
    pub(super) in_flight: usize,
    /// How many [`super::Watch`]es there are.
    pub(super) holders: usize,
    /// Its place among the idle accounts, if it has one.
    pub(super) idle: Option<u64>,
    /// Whether it is in the writer's queue.
    pub(super) queued: bool,
    /// Whether the disk could not be read; it must be before anything is written.
    unread: bool,
    /// Whether it was unblocked meanwhile: attempts on the disk are then forgotten, not taken over.
    forgets: bool,
    changes: Changes,
}

/// An attempt that counted.
#[derive(Debug, Clone, Copy)]
struct Recent {
    at: Timestamp,
    address: Key,
    domain: Key,
}

/// Whether a decision must be on the disk before it is acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// It changed nothing.
    Unchanged,
    /// It changed something, or rests on a change that may not be written yet.
    Awaited,
}

impl State {
    /// Creates the state of an account of which nothing is known yet.
    pub(super) fn new(account: Account) -> Self {
        Self {
            account,
            window: Window::default(),
            attempts: Extent::default(),
            samples: VecDeque::new(),
            relayed: VecDeque::new(),
            relayed_extent: Extent::default(),
            would_block_day: None,
            alarm_day: None,
            detector: Detector::default(),
            recent: VecDeque::new(),
            uncounted: VecDeque::new(),
            written_s: 0.0,
            block: None,
            blocked: None,
            lifting: None,
            probation: None,
            lifted: None,
            settled: None,
            in_flight: 0,
            holders: 0,
            idle: None,
            queued: false,
            unread: false,
            forgets: false,
            changes: Changes::default(),
        }
    }

    /// Sets the block and the probation that the disk has.
    pub(super) fn withhold(&mut self, block: Option<KeptBlock>, probation: Option<Probation>) {
        (self.block, self.probation) = (block, probation);
    }

    /// Counts an attempt and decides its effect; a block is dated `moment`.
    pub(super) fn attempt(
        &mut self,
        attempt: &Attempt<'_>,
        moment: Moment,
        policy: &Arc<Policy>,
    ) -> (Verdict, Durability) {
        if self.block.is_some() {
            let durability = if self.is_dirty() { Durability::Awaited } else { Durability::Unchanged };
            return (Verdict::Blocked, durability);
        }
        let (terms, now) = (self.terms(policy), attempt.now);
        let rule = terms.rule;
        self.attempts.changed(self.window.clamp(now));
        let key = Key::of(attempt.key);
        let count = match self.window.add(key, now, &terms.window()) {
            Added::Repeated => return (Verdict::Repeated, Durability::Unchanged),
            Added::Counted(count) => count,
        };
        self.changes.touch();
        self.attempts.push();
        push(&mut self.samples, rows::sample(now, attempt.address, attempt.client), SAMPLES);
        let domain = attempt.domain.map(Key::of_domain);
        if let Some(domain) = domain {
            push(&mut self.recent, Recent { at: now, address: key, domain }, RECENT);
        }
        let evidence = if terms.on_alarm == OnAlarm::Off {
            Evidence::Known
        } else {
            self.detector.invalid(key, domain, now, rule.period, &terms.test)
        };
        if evidence != Evidence::Known {
            self.changes.mark(Part::Row);
        }
        let today = day_of(now);
        let verdict = if count >= rule.limit && terms.blocks() {
            let reason = format!("{count} invalid recipients within {}", show_duration(rule.period));
            self.block_by_itself(BlockedBy::Limit, reason, moment);
            Verdict::Crossed(Box::new(self.record(now, &terms)))
        } else if count >= rule.limit && self.would_block_day.is_none_or(|told| is_another(told, today)) {
            self.would_block_day = Some(today);
            self.changes.mark(Part::Row);
            Verdict::WouldBlock(Box::new(self.record(now, &terms)))
        } else if evidence == Evidence::Alarm {
            self.alarm(now, moment, count, &terms)
        } else {
            Verdict::Counted { count }
        };
        (verdict, Durability::Awaited)
    }

    /// Decides the effect of the test's alarm; the attempt is the `count`th in the window.
    fn alarm(&mut self, now: Timestamp, moment: Moment, count: u32, terms: &Terms) -> Verdict {
        let record = |state: &Self| Box::new(state.record(now, terms));
        let verdict = match (terms.leniency, terms.on_alarm) {
            (Leniency::None, OnAlarm::Block) => {
                let reason = format!(
                    "the share of invalid recipients is that of a stolen account ({count} of them within {})",
                    show_duration(terms.rule.period)
                );
                self.block_by_itself(BlockedBy::Detection, reason, moment);
                return Verdict::Crossed(record(self));
            }
            (Leniency::None, OnAlarm::Probation) => {
                return if self.delay(now, terms.delay) {
                    Verdict::Alarmed(record(self))
                } else {
                    Verdict::AlarmedAgain(record(self))
                };
            }
            (Leniency::None | Leniency::Observed, OnAlarm::Notify) => Verdict::Suspected,
            _ => Verdict::WouldAlarm,
        };
        let today = day_of(now);
        // That the account would have been blocked is reported once a day, whatever the reason.
        let told = match terms.on_alarm {
            OnAlarm::Block => &mut self.would_block_day,
            OnAlarm::Probation | OnAlarm::Notify | OnAlarm::Off => &mut self.alarm_day,
        };
        if told.is_some_and(|told| !is_another(told, today)) {
            return Verdict::Counted { count };
        }
        *told = Some(today);
        self.changes.mark(Part::Row);
        verdict(record(self))
    }

    /// Begins a probation, or extends the current one; returns whether one began.
    fn delay(&mut self, now: Timestamp, delay: Duration) -> bool {
        let until = now.after(delay);
        let running = self.probation.as_mut().filter(|probation| probation.until > now);
        let begins = running.is_none();
        match running {
            Some(probation) => probation.until = probation.until.max(until),
            None => self.probation = Some(Probation { since: now, until, told: false }),
        }
        self.changes.mark(Part::Probation);
        begins
    }

    /// Notes a recipient that exists: in memory, written with the next one that does not.
    pub(super) fn valid(&mut self, address: u64, domain: Option<Key>, now: Timestamp, policy: &Arc<Policy>) {
        let terms = self.terms(policy);
        if terms.on_alarm != OnAlarm::Off {
            self.detector.valid(address, domain, now, &terms.test);
        }
    }

    /// Notes that `answers` answers of a domain did not count.
    pub(super) fn uncount(&mut self, domain: &str, answers: u32, now: Timestamp) {
        let same = |(held, _): &&mut (Uncounted, Timestamp)| held.domain.eq_ignore_ascii_case(domain);
        if let Some((held, last)) = self.uncounted.iter_mut().find(same) {
            (held.answers, *last) = (held.answers.saturating_add(answers), now);
        } else {
            let uncounted = Uncounted { domain: rows::domain(domain), answers };
            push(&mut self.uncounted, (uncounted, now), UNCOUNTED);
        }
    }

    /// Takes back what a domain counted since then, as it turned out to refuse everybody; returns whether that changed
    /// anything. What led to a block stays as it was.
    pub(super) fn take_back(
        &mut self,
        (domain, name): (Key, &str),
        since: Timestamp,
        now: Timestamp,
        policy: &Arc<Policy>,
    ) -> bool {
        let counted = |recent: &Recent| recent.domain == domain && recent.at >= since;
        let addresses: Vec<Key> =
            self.recent.iter().filter(|recent| counted(recent)).map(|recent| recent.address).collect();
        if addresses.is_empty() {
            return false;
        }
        self.recent.retain(|recent| !counted(recent));
        self.uncount(name, u32::try_from(addresses.len()).unwrap_or(u32::MAX), now);
        if self.block.is_some() {
            return false;
        }
        // The last sample belongs to the last attempt.
        let unsampled = self.window.held().saturating_sub(self.samples.len());
        let places = self.window.remove(|mark| mark.at() >= since && addresses.contains(&mark.key()));
        for place in places.iter().rev().filter_map(|place| place.checked_sub(unsampled)) {
            self.samples.remove(place);
        }
        self.attempts.changed(self.window.held());
        let test = self.terms(policy).test;
        self.detector.take_back(&addresses, &test);
        self.changes.mark(Part::Row);
        true
    }

    /// Returns the account's terms; looked up again when the policy changed.
    pub(super) fn terms(&mut self, policy: &Arc<Policy>) -> Terms {
        match &self.settled {
            Some((of, terms)) if Arc::ptr_eq(of, policy) => *terms,
            _ => {
                let terms = policy.terms(&self.account);
                self.settled = Some((policy.clone(), terms));
                terms
            }
        }
    }

    /// Grants leave for up to `wanted` RCPTs, as many as may be in flight in addition to those that are.
    pub(super) fn grant(&mut self, wanted: usize, now: Timestamp, policy: &Arc<Policy>) -> usize {
        let terms = self.terms(policy);
        let granted = if self.block.is_some() {
            0 // The block is not shown yet, but nothing more may be asked.
        } else if terms.blocks() {
            let rule = terms.rule;
            let count = self.window.count(now, rule.period) as usize;
            let free = (rule.limit as usize).saturating_sub(count + self.in_flight);
            // If the limit is below the count (it was higher, or the account was exempt), the next attempt will cross it.
            wanted.min(if self.in_flight == 0 { free.max(1) } else { free })
        } else {
            wanted
        };
        self.in_flight += granted;
        granted
    }

    /// Whether so many more invalid recipients would neither reach a limit that blocks nor raise an alarm that delays or blocks.
    pub(super) fn stays_open(&mut self, invalid: usize, now: Timestamp, policy: &Arc<Policy>) -> bool {
        let terms = self.terms(policy);
        if self.block.is_some() {
            return false; // also one that is not shown yet
        }
        if !terms.blocks() {
            return true;
        }
        let count = self.window.count(now, terms.rule.period) as usize;
        // Those of other sessions too.
        let crosses = count + self.in_flight.max(invalid) >= terms.rule.limit as usize;
        let is_watched = matches!(terms.on_alarm, OnAlarm::Probation | OnAlarm::Block);
        let alarms = is_watched && self.detector.may_alarm(invalid, &terms.test);
        !crosses && !alarms
    }

    /// Returns how long until an attempt leaves the window and makes room for another.
    pub(super) fn next_expiry(&mut self, now: Timestamp, policy: &Arc<Policy>) -> Option<Duration> {
        let period = self.terms(policy).rule.period;
        self.window.next_expiry(now, period)
    }

    /// Blocks by hand; `false` if the account is blocked already: then a new reason replaces the old one. A block that Gatepost
    /// made becomes the operator's, and no longer lapses.
    pub(super) fn block_by_hand(&mut self, reason: Option<&str>, now: Timestamp) -> bool {
        if let Some(KeptBlock { block, told }) = self.block.clone() {
            let news = reason.is_some_and(|reason| block.reason.as_deref() != Some(reason));
            if block.by != BlockedBy::Operator || news {
                let reason = reason.map(str::to_owned).or(block.reason);
                let block = Block { by: BlockedBy::Operator, reason, ..block };
                self.set_block(Some(KeptBlock { block, told }));
            }
            return false;
        }
        let block = Block { at: now, by: BlockedBy::Operator, reason: reason.map(Into::into) };
        // Whoever blocks by hand knows of it; a program may not.
        self.set_block(Some(KeptBlock { block, told: false }));
        true
    }

    fn block_by_itself(&mut self, by: BlockedBy, reason: String, moment: Moment) {
        let block = Block { at: moment.at, by, reason: Some(reason) };
        self.set_block(Some(KeptBlock { block, told: false }));
        self.blocked = Some(moment.instant);
    }

    /// Notes that this block was reported; `false` if it is not the current one, or was reported before.
    pub(super) fn tell(&mut self, of: &Block) -> bool {
        let Some(kept) = self.block.as_mut().filter(|kept| kept.block == *of && !kept.told) else {
            return false;
        };
        kept.told = true;
        self.changes.mark(Part::Block);
        true
    }

    /// Notes that this probation was reported; `false` if it is not the current one, or was reported before.
    pub(super) fn tell_probation(&mut self, of: &Probation) -> bool {
        let ours = |probation: &&mut Probation| probation.since == of.since && !probation.told;
        let Some(probation) = self.probation.as_mut().filter(ours) else { return false };
        probation.told = true;
        self.changes.mark(Part::Probation);
        true
    }

    /// Ends the probation if it is over and was reported, or if `terms` no longer provide for one; returns whether it ended.
    pub(super) fn end_probation(&mut self, now: Timestamp, terms: &Terms) -> bool {
        let over = |probation: &Probation| !terms.delays() || probation.told && probation.until <= now;
        let ends = self.probation.as_ref().is_some_and(over);
        if ends {
            self.set_probation(None);
        }
        ends
    }

    /// Shortens a probation that lasts longer than the delay from `latest` on, since it began or was extended while the clock
    /// was ahead; returns whether there was one. So does a reload with a shorter delay: running probations then end by that
    /// one. A clock that is behind for so long that it counts shortens them too, by as much at most as it is behind; they
    /// still end a whole delay later by its own time.
    pub(super) fn bring_back(&mut self, latest: Timestamp, terms: &Terms) -> bool {
        let until = latest.after(terms.delay);
        let Some(probation) = self.probation.filter(|probation| probation.until > until) else {
            return false;
        };
        // When it began identifies it: that stays.
        self.set_probation(Some(Probation { until, ..probation }));
        true
    }

    /// Lifts a block, ends a probation, and forgets the window and the test; `false` if there was neither block nor running
    /// probation.
    pub(super) fn unblock(&mut self, now: Timestamp) -> bool {
        let (blocked_at, probation) = (self.block().map(|block| block.at), self.probation);
        let blocked = blocked_at.is_some();
        let unknown = self.window.held() == 0 && self.detector.is_new() && !self.unread;
        if !blocked && probation.is_none() && unknown {
            return false;
        }
        self.window = Window::default();
        self.samples.clear();
        self.detector = Detector::default();
        self.recent.clear();
        self.forgets = self.unread;
        self.changes.mark(Part::Row);
        if blocked {
            self.set_block(None);
        }
        if probation.is_some() {
            self.set_probation(None);
        }
        let made = blocked || probation.is_some_and(|probation| probation.until > now);
        if made {
            // A block may be dated later than the clock says: it is not lifted before it was made.
            self.lifted = blocked_at.max(Some(now));
            self.changes.mark(Part::Lifting);
        }
        made
    }

    /// Whether the account has been blocked for at least `age`, not by hand, and the block was reported. It is no older
    /// than the time that has passed for this process if this process made it, whatever the clock says.
    pub(super) fn has_lapsed(&self, age: Duration, now: Moment) -> bool {
        let is_old = |blocked: Instant| now.instant.saturating_duration_since(blocked) >= age;
        self.block.as_ref().is_some_and(|KeptBlock { block, told }| {
            *told
                && block.by != BlockedBy::Operator
                && now.at.since(block.at) >= age
                && self.blocked.is_none_or(is_old)
        })
    }

    /// Lifts a block that has lapsed, as [`Self::unblock`] does, and returns it.
    pub(super) fn lapse(&mut self, age: Duration, now: Moment) -> Option<Block> {
        let block = self.block().filter(|_| self.has_lapsed(age, now))?.clone();
        self.unblock(now.at).then_some(block)
    }

    /// Sets when a block was lifted, as the disk has it; that is still to be reported.
    pub(super) fn was_lifted(&mut self, at: Timestamp) {
        // A crash may have left behind the block that was being lifted.
        self.lifted = Some(at).filter(|at| self.block().is_none_or(|block| block.at > *at));
    }

    /// Notes that this lifting was reported; `false` if another one is to be reported, or none.
    pub(super) fn tell_lifting(&mut self, at: Timestamp) -> bool {
        if self.lifted != Some(at) {
            return false;
        }
        self.lifted = None;
        self.changes.mark(Part::Lifting);
        true
    }

    /// Notes a message that the upstream took; the commit of the next attempt writes it.
    pub(super) fn relayed(&mut self, message: Relayed) {
        self.relayed_extent.push();
        push(&mut self.relayed, rows::relayed(message), RELAYED);
    }

    pub(super) fn record(&self, now: Timestamp, terms: &Terms) -> Record {
        let (period, limit) = (terms.rule.period, terms.rule.limit);
        let probation = self.probation.filter(|probation| is_notable(probation, now));
        // Nothing counts during a block: an operator who looks a day later sees what led to it. One of our own was made by
        // the newest attempt, and may be dated later ([`Moment`]).
        let newest = self.window.marks().next_back().map(|mark| mark.at());
        let now = self.block().map_or(now, |block| {
            newest.filter(|_| block.by != BlockedBy::Operator).unwrap_or(block.at).min(now)
        });
        let first = self.window.first(now, period);
        let in_window = |sample: &&Sample| first.is_some_and(|first| sample.at >= first);
        Record {
            account: self.account.clone(),
            invalid_recipients: self.window.count(now, period),
            first,
            last: self.window.last(now, period),
            limit,
            period,
            // The block that is shown.
            block: self.block.as_ref().or(self.lifting.as_ref()).map(|kept| kept.block.clone()),
            probation,
            samples: self.samples.iter().filter(in_window).cloned().collect(),
            relayed: self.relayed.iter().cloned().collect(),
            uncounted: self
                .uncounted
                .iter()
                .filter(|(_, last)| now.since(*last) < period)
                .map(|(uncounted, _)| uncounted.clone())
                .collect(),
        }
    }

    /// Whether the disk lacks a change.
    pub(super) fn is_dirty(&self) -> bool {
        self.changes.is_dirty()
    }

    /// Whether `status` has something to show about the account.
    pub(super) fn is_notable(&self, now: Timestamp, terms: &Terms) -> bool {
        self.block.is_some()
            || self.lifting.is_some()
            || self.probation.is_some_and(|probation| is_notable(&probation, now))
            || self.window.count(now, terms.rule.period) > 0
    }

    /// Whether the account must stay on the disk: it is notable, the test has evidence, or something was reported today.
    pub(super) fn is_worth_keeping(&self, now: Timestamp, terms: &Terms) -> bool {
        self.is_notable(now, terms)
            || self.detector.is_fresh(now)
            || self.would_block_day.max(self.alarm_day) >= Some(day_of(now))
    }

    /// Whether the account may leave memory, [`Self::unwritten_octets`] aside.
    pub(super) fn is_idle(&self) -> bool {
        self.holders == 0
            && self.in_flight == 0
            && self.block.is_none()
            && self.probation.is_none()
            && self.lifted.is_none()
            && !self.queued
            && !self.is_dirty()
    }

    /// Roughly how many octets only memory knows: messages that the upstream took, recipients that exist, domains of those that
    /// do not.
    pub(super) fn unwritten_octets(&self) -> usize {
        let messages = self.relayed_extent.unwritten(self.relayed.len()).count();
        let recent = self.recent.len() * size_of::<Recent>();
        messages * MESSAGE_OCTETS + recent + self.detector.unkept_octets()
    }

    /// Has the evidence of the test written if it is less than on the disk; returns whether it is. For an account about to
    /// leave memory, or a process about to end.
    pub(super) fn write_evidence(&mut self) -> bool {
        let lower = self.detector.s() < self.written_s;
        if lower {
            self.changes.mark(Part::Row);
        }
        lower
    }

    /// Forgets the recipients that only memory knows.
    pub(super) fn forget_recipients(&mut self) {
        self.detector.forget_valid();
        self.recent = VecDeque::new();
    }

    /// Has the messages written even though no attempt came.
    pub(super) fn write_messages(&mut self) {
        self.changes.touch();
    }

    /// The block, if there is one, shown or not.
    pub(super) fn kept_block(&self) -> Option<&KeptBlock> {
        self.block.as_ref()
    }

    pub(super) fn block(&self) -> Option<&Block> {
        self.block.as_ref().map(|kept| &kept.block)
    }

    /// Notes that the block as decided is shown.
    pub(super) fn note_shown(&mut self) {
        self.lifting = None;
    }

    pub(super) fn probation(&self) -> Option<Probation> {
        self.probation
    }

    /// Returns when a block was lifted, if that is still to be reported.
    pub(super) fn lifted(&self) -> Option<Timestamp> {
        self.lifted
    }

    /// Whether the lifting has yet to be written.
    pub(super) fn is_lifting_due(&self) -> bool {
        self.changes.is_due(Part::Lifting)
    }

    fn set_block(&mut self, block: Option<KeptBlock>) {
        // A probation that a block overtakes need not be reported any more.
        if block.is_some()
            && let Some(probation) = self.probation.filter(|probation| !probation.told)
        {
            self.set_probation(Some(Probation { told: true, ..probation }));
        }
        let before = std::mem::replace(&mut self.block, block);
        self.blocked = None;
        self.lifting = if self.block.is_none() { before } else { None };
        self.changes.mark(Part::Block);
    }

    fn set_probation(&mut self, probation: Option<Probation>) {
        self.probation = probation;
        self.changes.mark(Part::Probation);
    }
}

/// Whether a probation lasts, or is still to be reported.
fn is_notable(probation: &Probation, now: Timestamp) -> bool {
    probation.until > now || !probation.told
}

fn push<T>(list: &mut VecDeque<T>, item: T, most: usize) {
    list.push_back(item);
    while list.len() > most {
        list.pop_front();
    }
}
