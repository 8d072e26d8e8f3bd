//! What is known of one account, and what is decided about it: whether an attempt counts, blocks, or begins a probation.
//!
//! Without I/O: time is an argument; `commit` says what is to be written, and takes over what the disk has.

mod changes;
mod commit;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use changes::{Changes, Part};
pub(super) use commit::Commit;

use super::day::day_of;
use super::rows::{self, Extent, KeptBlock};
use super::{
    Attempt, Block, BlockedBy, Leniency, OnAlarm, Policy, Probation, RELAYED, Record, Relayed, SAMPLES,
    Sample, Terms, Uncounted, Verdict,
};
use crate::account::Account;
use crate::clock::Timestamp;
use crate::guard::detector::{Detector, Evidence};
use crate::guard::window::{Added, Key, Window};

/// So many counted attempts are remembered with their domains.
const RECENT: usize = 64;
/// Of so many domains it is remembered that their answers did not count.
const UNCOUNTED: usize = 8;
/// How many octets, about, a relayed message takes in memory.
const MESSAGE_OCTETS: usize = 250;

#[derive(Debug)]
pub(super) struct State {
    account: Account,
    window: Window,
    attempts: Extent,
    /// Of the last attempts in the window, as far as they are known: the last sample is of the last mark.
    samples: VecDeque<Sample>,
    relayed: VecDeque<Relayed>,
    relayed_extent: Extent,
    would_block_day: Option<u64>,
    alarm_day: Option<u64>,
    detector: Detector,
    /// The latest counted attempts with their domains, which may turn out to refuse everybody.
    recent: VecDeque<Recent>,
    uncounted: VecDeque<(Uncounted, Timestamp)>,
    /// What of the detector's evidence the disk has.
    written_s: f64,
    block: Option<KeptBlock>,
    /// One that was lifted, as long as that is not in force.
    lifting: Option<KeptBlock>,
    probation: Option<Probation>,
    /// When a block was lifted, or a probation ended by hand, of which nobody was told.
    lifted: Option<Timestamp>,
    /// What the policy says of the account, and which policy it is.
    settled: Option<(Arc<Policy>, Terms)>,
    /// RCPTs in flight.
    pub(super) in_flight: usize,
    /// Watches.
    pub(super) holders: usize,
    /// Its place among the idle accounts, while it has one.
    pub(super) idle: Option<u64>,
    /// Whether it waits in the writer's queue.
    pub(super) queued: bool,
    /// The disk could not be read: before anything is written, what it has must be taken over.
    unread: bool,
    /// It was unblocked meanwhile: what the disk has is forgotten, not taken over.
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

/// Whether a decision has to be on the disk before it is acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// It changed nothing.
    Unchanged,
    /// It did, or rests on a change that may not be there yet.
    Awaited,
}

impl State {
    /// The state of an account of which nothing is known yet.
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

    /// The disk says that it is blocked, or on probation.
    pub(super) fn withhold(&mut self, block: Option<KeptBlock>, probation: Option<Probation>) {
        (self.block, self.probation) = (block, probation);
    }

    /// Counts an attempt, and decides what it means.
    pub(super) fn attempt(&mut self, attempt: &Attempt<'_>, policy: &Arc<Policy>) -> (Verdict, Durability) {
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
        let today = Some(day_of(now));
        let verdict = if count >= rule.limit && terms.blocks() {
            let reason = format!("{count} invalid recipients within {}", spoken(rule.period));
            self.block_by_itself(BlockedBy::Limit, reason, now);
            Verdict::Crossed(Box::new(self.record(now, &terms)))
        } else if count >= rule.limit && self.would_block_day < today {
            self.would_block_day = today;
            self.changes.mark(Part::Row);
            Verdict::WouldBlock(Box::new(self.record(now, &terms)))
        } else if evidence == Evidence::Alarm {
            self.alarm(now, count, &terms)
        } else {
            Verdict::Counted { count }
        };
        (verdict, Durability::Awaited)
    }

    /// What the test's alarm means; the attempt is the `count`th in the window.
    fn alarm(&mut self, now: Timestamp, count: u32, terms: &Terms) -> Verdict {
        let record = |state: &Self| Box::new(state.record(now, terms));
        let verdict = match (terms.leniency, terms.on_alarm) {
            (Leniency::None, OnAlarm::Block) => {
                let reason = format!(
                    "the share of invalid recipients is that of a stolen account ({count} of them within {})",
                    spoken(terms.rule.period)
                );
                self.block_by_itself(BlockedBy::Detection, reason, now);
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
        let today = Some(day_of(now));
        // That it would have been blocked is told once a day, whatever would have done it.
        let told = match terms.on_alarm {
            OnAlarm::Block => &mut self.would_block_day,
            OnAlarm::Probation | OnAlarm::Notify | OnAlarm::Off => &mut self.alarm_day,
        };
        if *told >= today {
            return Verdict::Counted { count };
        }
        *told = today;
        self.changes.mark(Part::Row);
        verdict(record(self))
    }

    /// Begins a probation, or has the one that there is last longer; says whether it began.
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

    /// One more recipient that exists: in memory, written with the next one that does not.
    pub(super) fn valid(&mut self, address: u64, domain: Option<Key>, now: Timestamp, policy: &Arc<Policy>) {
        let terms = self.terms(policy);
        if terms.on_alarm != OnAlarm::Off {
            self.detector.valid(address, domain, now, &terms.test);
        }
    }

    /// So many answers of a domain did not count.
    pub(super) fn uncount(&mut self, domain: &str, answers: u32, now: Timestamp) {
        let same = |(held, _): &&mut (Uncounted, Timestamp)| held.domain.eq_ignore_ascii_case(domain);
        if let Some((held, last)) = self.uncounted.iter_mut().find(same) {
            (held.answers, *last) = (held.answers.saturating_add(answers), now);
        } else {
            let uncounted = Uncounted { domain: rows::domain(domain), answers };
            push(&mut self.uncounted, (uncounted, now), UNCOUNTED);
        }
    }

    /// A domain turned out to refuse everybody: what it counted since then is taken back. Says whether that changed anything.
    /// What led to a block stays as the block found it.
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
        // The last sample is of the last attempt.
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

    /// What the policy says of the account; looked up anew when the policy is another.
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

    /// Grants leave for up to `wanted` RCPTs, as many as may be in flight besides those that are.
    pub(super) fn grant(&mut self, wanted: usize, now: Timestamp, policy: &Arc<Policy>) -> usize {
        let terms = self.terms(policy);
        let granted = if self.block.is_some() {
            0 // The block is not shown yet, but nothing more may be asked.
        } else if terms.blocks() {
            let rule = terms.rule;
            let count = self.window.count(now, rule.period) as usize;
            let free = (rule.limit as usize).saturating_sub(count + self.in_flight);
            // A lower limit than the count (it was higher, or the account was exempt): the next attempt will
            // cross it.
            wanted.min(if self.in_flight == 0 { free.max(1) } else { free })
        } else {
            wanted
        };
        self.in_flight += granted;
        granted
    }

    /// How long until an attempt leaves the window, and with it a place becomes free.
    pub(super) fn next_expiry(&mut self, now: Timestamp, policy: &Arc<Policy>) -> Option<Duration> {
        let period = self.terms(policy).rule.period;
        self.window.next_expiry(now, period)
    }

    /// Blocks by hand; `false` where it was so: then a new reason takes the place of the old. A block that Gatepost made is the
    /// operator's from then on, and no longer lapses.
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
        // Who blocks by hand knows; a program may not.
        self.set_block(Some(KeptBlock { block, told: false }));
        true
    }

    fn block_by_itself(&mut self, by: BlockedBy, reason: String, now: Timestamp) {
        let block = Block { at: now, by, reason: Some(reason) };
        self.set_block(Some(KeptBlock { block, told: false }));
    }

    /// The abuse desk was told of this block; `false` where it is not the one that holds, or was told of before.
    pub(super) fn tell(&mut self, of: &Block) -> bool {
        let Some(kept) = self.block.as_mut().filter(|kept| kept.block == *of && !kept.told) else {
            return false;
        };
        kept.told = true;
        self.changes.mark(Part::Block);
        true
    }

    /// The abuse desk was told that this probation began; `false` where it is not the one that there is, or was told of
    /// before.
    pub(super) fn tell_probation(&mut self, of: &Probation) -> bool {
        let ours = |probation: &&mut Probation| probation.since == of.since && !probation.told;
        let Some(probation) = self.probation.as_mut().filter(ours) else { return false };
        probation.told = true;
        self.changes.mark(Part::Probation);
        true
    }

    /// Ends the probation if its time is over and nobody has to be told of it, or if `terms` no longer have any; `false` where
    /// it goes on.
    pub(super) fn end_probation(&mut self, now: Timestamp, terms: &Terms) -> bool {
        let over = |probation: &Probation| !terms.delays() || probation.told && probation.until <= now;
        let ends = self.probation.as_ref().is_some_and(over);
        if ends {
            self.set_probation(None);
        }
        ends
    }

    /// Lifts a block, ends a probation, and forgets the window and the test; `false` where there was neither block nor
    /// probation.
    pub(super) fn unblock(&mut self, now: Timestamp) -> bool {
        let (blocked, probation) = (self.block.is_some(), self.probation);
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
            self.lifted = Some(now);
            self.changes.mark(Part::Lifting);
        }
        made
    }

    /// Whether it is blocked, not by hand, for as long as `age`, and the abuse desk knows of it.
    pub(super) fn has_lapsed(&self, age: Duration, now: Timestamp) -> bool {
        self.block.as_ref().is_some_and(|KeptBlock { block, told }| {
            *told && block.by != BlockedBy::Operator && now.since(block.at) >= age
        })
    }

    /// Lifts a block that has lapsed, as [`Self::unblock`] does. The block that was.
    pub(super) fn lapse(&mut self, age: Duration, now: Timestamp) -> Option<Block> {
        let block = self.block().filter(|_| self.has_lapsed(age, now))?.clone();
        self.unblock(now).then_some(block)
    }

    /// The disk says that a block was lifted then and that nobody was told.
    pub(super) fn was_lifted(&mut self, at: Timestamp) {
        // A crash may have left the block that was being lifted.
        self.lifted = Some(at).filter(|at| self.block().is_none_or(|block| block.at > *at));
    }

    /// It is known that the block was lifted then; `false` where there is another lifting to be told of, or none.
    pub(super) fn tell_lifting(&mut self, at: Timestamp) -> bool {
        if self.lifted != Some(at) {
            return false;
        }
        self.lifted = None;
        self.changes.mark(Part::Lifting);
        true
    }

    /// Keeps a message that the upstream took; the commit of the next attempt writes it.
    pub(super) fn relayed(&mut self, message: Relayed) {
        self.relayed_extent.push();
        push(&mut self.relayed, rows::relayed(message), RELAYED);
    }

    pub(super) fn record(&self, now: Timestamp, terms: &Terms) -> Record {
        let (period, limit) = (terms.rule.period, terms.rule.limit);
        let probation = self.probation.filter(|probation| is_notable(probation, now));
        // Nothing counts while a block lasts: an operator who comes a day later sees what led to it.
        let now = self.block().map_or(now, |block| block.at.min(now));
        let first = self.window.first(now, period);
        let in_window = |sample: &&Sample| first.is_some_and(|first| sample.at >= first);
        Record {
            account: self.account.clone(),
            invalid_recipients: self.window.count(now, period),
            first,
            last: self.window.last(now, period),
            limit,
            period,
            // What is in force.
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

    /// Whether there is something to say about the account.
    pub(super) fn is_notable(&self, now: Timestamp, terms: &Terms) -> bool {
        self.block.is_some()
            || self.lifting.is_some()
            || self.probation.is_some_and(|probation| is_notable(&probation, now))
            || self.window.count(now, terms.rule.period) > 0
    }

    /// Whether the disk must go on having it: it is notable, the test has evidence, or something was told today.
    pub(super) fn is_worth_keeping(&self, now: Timestamp, terms: &Terms) -> bool {
        self.is_notable(now, terms)
            || self.detector.is_fresh(now)
            || self.would_block_day.max(self.alarm_day) >= Some(day_of(now))
    }

    /// Whether it may leave memory, but for the messages of [`Self::unwritten_octets`].
    pub(super) fn is_idle(&self) -> bool {
        self.holders == 0
            && self.in_flight == 0
            && self.block.is_none()
            && self.probation.is_none()
            && self.lifted.is_none()
            && !self.queued
            && !self.is_dirty()
    }

    /// How many octets, about, memory alone knows: messages that the upstream took, recipients that exist, domains of those that
    /// do not.
    pub(super) fn unwritten_octets(&self) -> usize {
        let messages = self.relayed_extent.unwritten(self.relayed.len()).count();
        let recent = self.recent.len() * size_of::<Recent>();
        messages * MESSAGE_OCTETS + recent + self.detector.unkept_octets()
    }

    /// Has the evidence of the test written if it is less than the disk has: the account is about to leave memory, or we
    /// are. Says whether it was.
    pub(super) fn write_evidence(&mut self) -> bool {
        let lower = self.detector.s() < self.written_s;
        if lower {
            self.changes.mark(Part::Row);
        }
        lower
    }

    /// Forgets the recipients that memory alone knows.
    pub(super) fn forget_recipients(&mut self) {
        self.detector.forget_valid();
        self.recent = VecDeque::new();
    }

    /// Has the messages written although no attempt came.
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

    /// What is decided of the block is shown.
    pub(super) fn note_shown(&mut self) {
        self.lifting = None;
    }

    pub(super) fn probation(&self) -> Option<Probation> {
        self.probation
    }

    /// When a block was lifted of which nobody was told.
    pub(super) fn lifted(&self) -> Option<Timestamp> {
        self.lifted
    }

    /// Whether the disk lacks that.
    pub(super) fn is_lifting_due(&self) -> bool {
        self.changes.is_due(Part::Lifting)
    }

    fn set_block(&mut self, block: Option<KeptBlock>) {
        // Of a probation that a block overtakes nobody need be told any more.
        if block.is_some()
            && let Some(probation) = self.probation.filter(|probation| !probation.told)
        {
            self.set_probation(Some(Probation { told: true, ..probation }));
        }
        let before = std::mem::replace(&mut self.block, block);
        self.lifting = if self.block.is_none() { before } else { None };
        self.changes.mark(Part::Block);
    }

    fn set_probation(&mut self, probation: Option<Probation>) {
        self.probation = probation;
        self.changes.mark(Part::Probation);
    }
}

/// Whether there is something to say of a probation: it lasts, or nobody was told.
fn is_notable(probation: &Probation, now: Timestamp) -> bool {
    probation.until > now || !probation.told
}

fn push<T>(list: &mut VecDeque<T>, item: T, most: usize) {
    list.push_back(item);
    while list.len() > most {
        list.pop_front();
    }
}

/// A duration as the configuration writes it.
fn spoken(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86_400, 'd'), (3_600, 'h'), (60, 'm'), (1, 's')];
    let unit = units.iter().find(|(unit, _)| seconds >= *unit && seconds.is_multiple_of(*unit));
    match unit {
        Some((unit, letter)) => format!("{}{letter}", seconds / unit),
        None => format!("{}ms", duration.as_millis()),
    }
}
