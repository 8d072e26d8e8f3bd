//! The gate as the ledger and the submission build it of the guard's pure parts: window, detector, common cause, probation.

use std::collections::HashMap;
use std::time::Duration;

use gatepost::clock::Timestamp;
use gatepost::guard::cause::{self, Answer, Causes};
use gatepost::guard::detector::{Detector, Evidence, Test};
use gatepost::guard::window::{Added, Count, Key, Rule, Window};

/// One recipient that somebody asks for, in a message of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event {
    pub(crate) at: u64,
    pub(crate) account: usize,
    pub(crate) address: u64,
    pub(crate) domain: u64,
    pub(crate) exists: bool,
}

/// What is in force.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) limit: bool,
    pub(crate) on_alarm: Alarm,
    pub(crate) desk: Desk,
    /// t0, t1 and h.
    pub(crate) test: (f64, f64, f64),
}

/// The test's defaults.
pub(crate) const TEST: (f64, f64, f64) = (0.05, 0.30, 12.0);

/// What an alarm does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alarm {
    Nothing,
    Blocks,
    Delays,
}

/// Whether somebody reads the notice of a probation, and blocks a thief before the delay is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Desk {
    Away,
    Awake,
}

impl Setting {
    pub(crate) const LIMIT: Self =
        Self { limit: true, on_alarm: Alarm::Nothing, desk: Desk::Away, test: TEST };
    pub(crate) const TEST: Self = Self { limit: false, on_alarm: Alarm::Blocks, ..Self::LIMIT };
    pub(crate) const AWAY: Self = Self { on_alarm: Alarm::Delays, ..Self::LIMIT };
    pub(crate) const AWAKE: Self = Self { desk: Desk::Awake, ..Self::AWAY };
}

/// What became of one run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    /// Living recipients to whom mail went out.
    pub(crate) reached: u64,
    /// Recipients asked about before all accounts were blocked.
    pub(crate) asked: u64,
    /// Accounts blocked, and put on probation at least once.
    pub(crate) blocked: u64,
    pub(crate) delayed: u64,
}

const DELAY: u64 = 30 * 60_000;
const MOST_DELAY: u64 = 24 * 3_600_000;
/// So long after the first alarm a desk that is awake acts.
const DESK: u64 = 20 * 60_000;
/// An account that nobody has used for so long leaves memory.
const IDLE: u64 = 3_600_000;

const RULE: Rule = Rule { limit: 100, period: Duration::from_secs(3_600), count: Count::Distinct };

#[derive(Default)]
struct Account {
    window: Window,
    detector: Detector,
    recent: Vec<(u64, Key, Key)>,
    blocked: bool,
    delayed: bool,
    probation_until: u64,
    desk_acts: Option<u64>,
    /// Messages that wait, by arrival and due time.
    parked: Vec<(u64, u64)>,
    /// None of them is due before.
    due: u64,
    last: u64,
    reached: u64,
}

impl Account {
    /// Time goes by: the desk acts, and what is due goes out.
    fn pass(&mut self, now: u64) {
        let desk = self.desk_acts.filter(|at| *at <= now);
        let until = desk.unwrap_or(now);
        if !self.blocked && until >= self.due {
            let before = self.parked.len();
            self.parked.retain(|(_, due)| *due > until);
            self.reached += (before - self.parked.len()) as u64;
            self.due = self.parked.iter().map(|(_, due)| *due).min().unwrap_or_default();
        }
        self.blocked |= desk.is_some();
        if now.saturating_sub(self.last) >= IDLE {
            self.detector.forget_valid();
        }
        self.last = now;
    }

    fn alarm(&mut self, now: u64, setting: &Setting) {
        match setting.on_alarm {
            Alarm::Nothing => {}
            Alarm::Blocks => self.blocked = true,
            Alarm::Delays => {
                self.delayed = true;
                self.probation_until = now + DELAY;
                for (arrived, due) in &mut self.parked {
                    *due = (*due).max(now + DELAY).min(*arrived + MOST_DELAY);
                }
                if setting.desk == Desk::Awake && self.desk_acts.is_none() {
                    self.desk_acts = Some(now + DESK);
                }
            }
        }
    }
}

/// What becomes of these recipients, in order of time.
pub(crate) fn play(events: &[Event], setting: &Setting) -> Outcome {
    let (t0, t1, h) = setting.test;
    let test = Test::new(t0, t1, h);
    let accounts = events.iter().map(|event| event.account + 1).max().unwrap_or_default();
    let mut accounts: Vec<Account> = (0..accounts).map(|_| Account::default()).collect();
    let mut causes = Causes::default();
    let mut keys: HashMap<u64, Key> = HashMap::new();
    let mut asked = 0;
    for event in events {
        let now = Timestamp::from_millis(event.at);
        let account = &mut accounts[event.account];
        account.pass(event.at);
        if account.blocked {
            continue;
        }
        asked += 1;
        let domain = *keys.entry(event.domain).or_insert_with(|| Key::of_domain(&event.domain.to_string()));
        if event.exists {
            causes.accepted(domain, now);
            if setting.on_alarm != Alarm::Nothing {
                account.detector.valid(event.address, Some(domain), now, &test);
            }
            if event.at < account.probation_until {
                account.parked.push((event.at, event.at + DELAY));
            } else {
                account.reached += 1;
            }
            continue;
        }
        match causes.refused(domain, "", event.account as u64, now) {
            Answer::Counts => {}
            Answer::Lasts => continue,
            Answer::Begins => {
                accounts.iter_mut().for_each(|account| take_back(account, domain, event.at, &test));
                continue;
            }
        }
        let address = Key::of(&event.address.to_be_bytes());
        let Added::Counted(count) = account.window.add(address, now, &RULE) else { continue };
        account.recent.push((event.at, address, domain));
        let evidence = if setting.on_alarm == Alarm::Nothing {
            Evidence::Known
        } else {
            account.detector.invalid(address, Some(domain), now, RULE.period, &test)
        };
        if setting.limit && count >= RULE.limit {
            account.blocked = true;
        } else if evidence == Evidence::Alarm {
            account.alarm(event.at, setting);
        }
    }
    // In the end all goes out that is not kept.
    accounts.iter_mut().for_each(|account| account.pass(u64::MAX / 2));
    Outcome {
        reached: accounts.iter().map(|account| account.reached).sum(),
        asked,
        blocked: accounts.iter().map(|account| u64::from(account.blocked)).sum(),
        delayed: accounts.iter().map(|account| u64::from(account.delayed)).sum(),
    }
}

fn take_back(account: &mut Account, domain: Key, now: u64, test: &Test) {
    let span = u64::try_from(cause::SPAN.as_millis()).unwrap();
    let since = now.saturating_sub(span);
    let of_it = |(at, _, of): &&(u64, Key, Key)| *of == domain && *at >= since;
    let addresses: Vec<Key> = account.recent.iter().filter(of_it).map(|(_, address, _)| *address).collect();
    if !account.blocked && !addresses.is_empty() {
        let since = Timestamp::from_millis(since);
        account.window.remove(|mark| mark.at() >= since && addresses.contains(&mark.key()));
        account.detector.take_back(&addresses, test);
    }
}
