//! Who sends: thieves with harvested lists, and honest people with lists that have aged.

use crate::gate::Event;
use crate::random::Random;

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// A Tuesday.
const START: u64 = 1_764_000_000_000;

/// Somebody who sends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Thief(Thief),
    Typos,
    SameHundred,
    Newsletter {
        stale: f64,
        by_domain: bool,
    },
    Club,
    StuckOutboxes,
    /// With a newsletter that begins so long after the provider went down.
    ProviderDown {
        newsletter: Option<u64>,
    },
}

/// A thief, or one with several accounts who shares his list out among them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Thief {
    /// The share of the list that is dead.
    pub(crate) dead: f64,
    /// Recipients an hour, of each account.
    pub(crate) rate: u64,
    pub(crate) accounts: usize,
    /// Recipients that he knows to be living, for each of the list.
    pub(crate) mixed_in: u64,
    /// So many different ones of them.
    pub(crate) known: u64,
    /// How long his list is, for each account.
    pub(crate) list: u64,
    /// All of the list is at one provider.
    pub(crate) one_provider: bool,
}

impl Thief {
    pub(crate) const TYPICAL: Self =
        Self { dead: 0.30, rate: 500, accounts: 1, mixed_in: 0, known: 0, list: 2_000, one_provider: false };
}

/// For how long a thief goes on.
const THIEFS_TIME: u64 = DAY;

/// A kind, its name in the table, and how many runs there are of it.
pub(crate) struct Named {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) runs: u64,
}

pub(crate) fn thieves() -> Vec<Named> {
    let thief = |name, thief| Named { name, kind: Kind::Thief(thief), runs: 20 };
    let typical = Thief::TYPICAL;
    vec![
        thief("10 % dead, 500 an hour", Thief { dead: 0.10, ..typical }),
        thief("20 % dead, 500 an hour", Thief { dead: 0.20, ..typical }),
        thief("30 % dead, 500 an hour", typical),
        thief("40 % dead, 500 an hour", Thief { dead: 0.40, ..typical }),
        thief("50 % dead, 500 an hour", Thief { dead: 0.50, ..typical }),
        thief("30 % dead, 50 an hour", Thief { rate: 50, ..typical }),
        thief("30 % dead, 200 an hour", Thief { rate: 200, ..typical }),
        thief("30 % dead, 5,000 an hour", Thief { rate: 5_000, ..typical }),
        thief("30 % dead, 500 an hour, 3 accounts", Thief { accounts: 3, ..typical }),
        thief("30 % dead, 500 an hour, 5 accounts", Thief { accounts: 5, ..typical }),
        thief("the same at one provider", Thief { accounts: 5, one_provider: true, ..typical }),
        thief(
            "30 % dead, diluted to 15 % by new living ones",
            Thief { mixed_in: 1, known: 100_000, ..typical },
        ),
        thief("30 % dead, diluted to 15 % by the same 200", Thief { mixed_in: 1, known: 200, ..typical }),
        thief(
            "50 % dead, diluted to 10 % by the same 200",
            Thief { dead: 0.50, mixed_in: 4, known: 200, ..typical },
        ),
    ]
}

pub(crate) fn honest() -> Vec<Named> {
    let newsletter = |name, stale, by_domain| Named {
        name,
        kind: Kind::Newsletter { stale, by_domain },
        runs: if stale == 0.05 { 300 } else { 100 },
    };
    let down = |name, newsletter| Named { name, kind: Kind::ProviderDown { newsletter }, runs: 10 };
    vec![
        Named { name: "people who mistype", kind: Kind::Typos, runs: 10 },
        Named { name: "a desk that never sleeps, to the same hundred", kind: Kind::SameHundred, runs: 5 },
        newsletter("newsletter to 2,000, 2 % stale", 0.02, false),
        newsletter("newsletter to 2,000, 5 % stale", 0.05, false),
        newsletter("newsletter to 2,000, 10 % stale", 0.10, false),
        newsletter("newsletter by domain, dead ones in runs of 10, 2 %", 0.02, true),
        newsletter("newsletter by domain, dead ones in runs of 10, 5 %", 0.05, true),
        newsletter("newsletter by domain, dead ones in runs of 10, 10 %", 0.10, true),
        Named { name: "a club's yearly mail to 60, a quarter stale", kind: Kind::Club, runs: 200 },
        Named { name: "stuck outboxes", kind: Kind::StuckOutboxes, runs: 3 },
        down("a provider refuses everybody for an hour: 50 people", None),
        down("the same, and a newsletter 15 minutes later", Some(15 * MINUTE)),
        down("the same, and a newsletter just then", Some(0)),
    ]
}

/// All recipients of one run, in order of time.
pub(crate) fn events(kind: &Kind, seed: u64) -> Vec<Event> {
    let mut world = World { random: Random::new(seed.wrapping_mul(0x5851_F42D_4C95_7F2D)), last: 1_000_000 };
    let mut events = match kind {
        Kind::Thief(thief) => world.thief(thief),
        Kind::Typos => world.typos(),
        Kind::SameHundred => world.same_hundred(),
        Kind::Newsletter { stale, by_domain } => world.newsletter(*stale, *by_domain),
        Kind::Club => world.club(),
        Kind::StuckOutboxes => world.stuck_outboxes(),
        Kind::ProviderDown { newsletter } => world.provider_down(*newsletter),
    };
    events.sort_by_key(|event| event.at);
    events
}

struct World {
    random: Random,
    /// The last address that was made up.
    last: u64,
}

/// The biggest provider.
const PROVIDER: u64 = 0;

impl World {
    /// Four in ten are at a few big providers, the others somewhere.
    fn domain(&mut self) -> u64 {
        match self.random.below(100) {
            0..20 => PROVIDER,
            20..30 => 1,
            30..40 => 2 + self.random.below(3),
            _ => 100 + self.random.below(5_000),
        }
    }

    fn somebody(&mut self, account: usize, at: u64, exists: bool) -> Event {
        self.last += 1;
        Event { at, account, address: self.last, domain: self.domain(), exists }
    }

    fn thief(&mut self, thief: &Thief) -> Vec<Event> {
        let Thief { dead, rate, accounts, mixed_in, known, list, one_provider } = *thief;
        let step = HOUR / rate;
        let mut events = Vec::new();
        for account in 0..accounts {
            let mut at = START + account as u64 * MINUTE;
            let mut listed = 0;
            while listed < list && at < START + THIEFS_TIME {
                let exists = !self.random.chance(dead);
                let mut one = self.somebody(account, at, exists);
                if one_provider {
                    one.domain = PROVIDER;
                }
                events.push(one);
                (listed, at) = (listed + 1, at + step);
                for _ in 0..mixed_in {
                    // His own boxes and his friends': at one domain.
                    let address = 1 + self.random.below(known);
                    events.push(Event { at, account, address, domain: 99, exists: true });
                    at += step;
                }
            }
        }
        events
    }

    /// Ten accounts for ninety days: ten mails an hour, day and night, to the same hundred people, one address in a hundred wrong.
    /// None of the hundred is evidence after the first day, since the account is never out of memory.
    fn same_hundred(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for account in 0..10usize {
            for tenth in 0..90 * 24 * 10 {
                let at = START + tenth * HOUR / 10;
                events.push(match self.random.below(100) {
                    0 => self.somebody(account, at, false),
                    _ => {
                        let address = account as u64 * 100 + self.random.below(100);
                        Event { at, account, address, domain: address % 7, exists: true }
                    }
                });
            }
        }
        events
    }

    /// Twenty people for thirty days: forty mails a day each, mostly to the same thirty people, one address in a hundred wrong.
    fn typos(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for person in 0..20usize {
            for day in 0..30 {
                for _ in 0..40 {
                    let at = START + day * DAY + self.random.below(9 * HOUR);
                    let contact = self.random.below(30);
                    let friend = Event {
                        at,
                        account: person,
                        address: person as u64 * 100 + contact,
                        domain: contact % 5,
                        exists: true,
                    };
                    events.push(match self.random.below(100) {
                        0 => self.somebody(person, at, false),
                        1..10 => self.somebody(person, at, true),
                        _ => friend,
                    });
                }
            }
        }
        events
    }

    /// To 2,000, within half an hour.
    fn newsletter(&mut self, stale: f64, by_domain: bool) -> Vec<Event> {
        const READERS: usize = 2_000;
        let mut readers: Vec<Event> = Vec::new();
        if by_domain {
            // Ten a domain; a domain is there with all of its addresses, or gone with them.
            for domain in 0..READERS as u64 / 10 {
                let exists = !self.random.chance(stale);
                for _ in 0..10 {
                    readers.push(Event { domain: 100 + domain, ..self.somebody(0, 0, exists) });
                }
            }
        } else {
            for _ in 0..READERS {
                let exists = !self.random.chance(stale);
                readers.push(self.somebody(0, 0, exists));
            }
        }
        (0..).zip(&mut readers).for_each(|(n, reader)| reader.at = START + n * 900);
        readers
    }

    fn club(&mut self) -> Vec<Event> {
        let mut members: Vec<bool> = (0..60).map(|n| n >= 15).collect();
        self.random.shuffle(&mut members);
        (0..).zip(members).map(|(n, exists)| self.somebody(0, START + n * SECOND, exists)).collect()
    }

    /// Ten programs that try what was refused again each minute, for two days: one to three dead addresses; and forty mails
    /// a day.
    fn stuck_outboxes(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for account in 0..10usize {
            let stuck: Vec<Event> =
                (0..1 + self.random.below(3)).map(|_| self.somebody(account, 0, false)).collect();
            for minute in 0..2 * 24 * 60 {
                events.extend(stuck.iter().map(|one| Event { at: START + minute * MINUTE, ..*one }));
            }
            for day in 0..2 {
                for _ in 0..40 {
                    let at = START + day * DAY + self.random.below(9 * HOUR);
                    events.push(self.somebody(account, at, true));
                }
            }
        }
        events
    }

    /// Fifty people in their two busiest hours, and maybe a newsletter to 2,000; for the second hour one provider refuses
    /// everybody.
    fn provider_down(&mut self, newsletter: Option<u64>) -> Vec<Event> {
        let mut events = Vec::new();
        for account in 0..50usize {
            for _ in 0..30 {
                let at = START + self.random.below(2 * HOUR);
                let typo = self.random.chance(0.01);
                events.push(self.somebody(account, at, !typo));
            }
        }
        for (reader, begins) in newsletter.into_iter().flat_map(|begins| (0..2_000).map(move |n| (n, begins)))
        {
            let typo = self.random.chance(0.02);
            events.push(self.somebody(50, START + HOUR + begins + reader * 900, !typo));
        }
        for event in &mut events {
            event.exists &= event.domain != PROVIDER || event.at < START + HOUR;
        }
        events
    }
}
