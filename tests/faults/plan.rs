//! What is to break in a round.

use gatepost::fail::STEPS;

use crate::support::random::Random;

/// What the upstream does instead of answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whim {
    Stall,
    Drop,
    HalfALine,
    Garbage,
    NotNow,
    /// It does what it was told, and the reply is lost.
    Lost,
}

const WHIMS: [Whim; 6] = [Whim::Stall, Whim::Drop, Whim::HalfALine, Whim::Garbage, Whim::NotNow, Whim::Lost];
const VERBS: [&str; 6] = ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "."];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Database,
    Spool,
    Both,
}

const FULL: [Full; 3] = [Full::Database, Full::Spool, Full::Both];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Plan {
    /// SIGKILL at the Nth time that it comes to the step.
    KillAt {
        step: &'static str,
        times: u64,
    },
    /// SIGKILL after so many milliseconds.
    KillAfter(u64),
    /// One in so many of these is answered so.
    Upstream {
        verb: &'static str,
        whim: Whim,
        one_in: u64,
    },
    Disk(Full),
    /// Files of parked messages cannot be read.
    Unreadable,
    /// By so many seconds.
    Clock(i64),
    /// So many are left.
    Descriptors(u64),
}

impl Plan {
    /// Each step once, and kills right after a full disk; the last comes first.
    pub(crate) fn first(random: &mut Random, mounts: bool) -> Vec<Self> {
        let mut plans: Vec<_> =
            STEPS.iter().map(|step| Self::KillAt { step, times: 1 + random.below(2) }).collect();
        for at in (1..plans.len()).rev() {
            plans.swap(at, usize::try_from(random.below(at as u64 + 1)).unwrap());
        }
        let full = if mounts { &FULL[..] } else { &[] };
        let early = |random: &mut Random| Self::KillAfter(100 + random.below(200));
        plans.extend(full.iter().flat_map(|full| [early(random), Self::Disk(*full)]));
        plans
    }

    pub(crate) fn draw(random: &mut Random, mounts: bool) -> Self {
        match random.below(16) {
            0..=4 => Self::KillAt { step: random.one_of(STEPS), times: 1 + random.below(4) },
            5..=6 => Self::KillAfter(random.below(600)),
            7..=10 => Self::Upstream {
                verb: random.one_of(&VERBS),
                whim: random.one_of(&WHIMS),
                one_in: 1 + random.below(3),
            },
            11..=12 if mounts => Self::Disk(random.one_of(&FULL)),
            11..=13 => Self::Unreadable,
            14 => Self::Clock((1 + i64::try_from(random.below(48)).unwrap()) * random.one_of(&[3600, -3600])),
            _ => Self::Descriptors(random.below(6)),
        }
    }
}
