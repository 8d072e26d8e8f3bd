//! A day's recipients (UTC): how many were probed and refused, and whether the upstream seems to be blind.
//!
//! Pure. Counts survive restarts; after a crash they are those of some seconds before it.

use serde::{Deserialize, Serialize};

use super::Blindness;
use crate::clock::Timestamp;

/// How many recipients of a day without a single refusal are suspicious (CONTRACT, Classification).
pub const BLIND_AFTER: u64 = 1000;

/// One day's counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Day {
    day: u64,
    everybody: Tally,
    foreign: Tally,
}

/// Roughly how many recipients the upstream was asked about on a day, and how many it refused, for any reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tallies {
    /// All recipients.
    pub asked: u64,
    /// Refused recipients.
    pub refused: u64,
    /// Recipients at domains other than its own.
    pub foreign_asked: u64,
    /// Refused recipients at those domains.
    pub foreign_refused: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Tally {
    probed: u64,
    refused: u64,
    /// Whether none of the first [`BLIND_AFTER`] was refused, and whether that was said.
    blind: bool,
    said: bool,
}

impl Day {
    /// Counts one recipient.
    pub(super) fn count(&mut self, foreign: bool, refused: bool, now: Timestamp) -> Option<Blindness> {
        let today = day_of(now);
        if is_another(self.day, today) {
            *self = Self { day: today, ..Self::default() };
        }
        self.everybody.count(refused);
        if foreign {
            self.foreign.count(refused);
        }
        if self.everybody.say() {
            Some(Blindness::Everybody)
        } else {
            self.foreign.say().then_some(Blindness::Foreign)
        }
    }
}

impl Day {
    /// Returns the counts of today's recipients so far.
    pub(super) fn tallies(&self, now: Timestamp) -> Tallies {
        if day_of(now) != self.day {
            return Tallies::default();
        }
        Tallies {
            asked: self.everybody.probed,
            refused: self.everybody.refused,
            foreign_asked: self.foreign.probed,
            foreign_refused: self.foreign.refused,
        }
    }

    /// Whether the upstream seems to be blind: [`BLIND_AFTER`] of today's recipients were probed and none was refused.
    pub(super) fn blindness(&self, now: Timestamp) -> Option<Blindness> {
        if day_of(now) != self.day {
            None
        } else if self.everybody.is_blind() {
            Some(Blindness::Everybody)
        } else {
            self.foreign.is_blind().then_some(Blindness::Foreign)
        }
    }
}

/// The days since the Unix epoch.
pub(super) fn day_of(now: Timestamp) -> u64 {
    now.as_millis() / 86_400_000
}

/// Whether `today` is another day than `day`, for what happens once a day. Sessions on both sides of midnight must not start
/// a day twice; a day further in the future is one of a clock that was ahead.
pub(super) fn is_another(day: u64, today: u64) -> bool {
    today > day || today + 1 < day
}

impl Tally {
    fn is_blind(&self) -> bool {
        self.probed >= BLIND_AFTER && self.refused == 0
    }

    fn count(&mut self, refused: bool) {
        self.probed += 1;
        self.refused += u64::from(refused);
        self.blind |= self.probed == BLIND_AFTER && self.refused == 0;
    }

    /// Returns `true` once, when the tally turned out to be blind.
    fn say(&mut self) -> bool {
        self.blind && !std::mem::replace(&mut self.said, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = 86_400_000 / 2;

    fn at(day: u64) -> Timestamp {
        Timestamp::from_millis(day * 86_400_000 + NOON)
    }

    fn run(day: &mut Day, n: usize, foreign: bool, refused: bool, now: Timestamp) -> Vec<(usize, Blindness)> {
        (1..=n).filter_map(|i| day.count(foreign, refused, now).map(|said| (i, said))).collect()
    }

    #[test]
    fn blindness_is_said_once_a_day_and_kind() {
        let mut day = Day::default();
        assert_eq!(run(&mut day, 999, false, false, at(1)), []);
        assert_eq!(run(&mut day, 4001, false, false, at(1)), [(1, Blindness::Everybody)]);
        assert_eq!(run(&mut day, 5000, true, false, at(1)), [(1000, Blindness::Foreign)]);
        // Both at once: one after the other.
        assert_eq!(
            run(&mut day, 5000, true, false, at(2)),
            [(1000, Blindness::Everybody), (1001, Blindness::Foreign)]
        );
        // One refusal among the first thousand: the upstream sees.
        assert_eq!(run(&mut day, 999, false, false, at(3)), []);
        assert_eq!(run(&mut day, 1, false, true, at(3)), []);
        assert_eq!(run(&mut day, 5000, false, false, at(3)), []);
        // It refuses its own, but nobody else.
        assert_eq!(run(&mut day, 1, false, true, at(4)), []);
        assert_eq!(run(&mut day, 5000, true, false, at(4)), [(1000, Blindness::Foreign)]);
    }

    #[test]
    fn blindness_lasts_until_a_refusal_or_to_the_end_of_the_day() {
        let mut day = Day::default();
        run(&mut day, 999, true, false, at(1));
        assert_eq!(day.blindness(at(1)), None);
        run(&mut day, 1, false, false, at(1));
        assert_eq!(day.blindness(at(1)), Some(Blindness::Everybody));
        assert_eq!(day.blindness(at(2)), None);
        let tallies = Tallies { asked: 1000, refused: 0, foreign_asked: 999, foreign_refused: 0 };
        assert_eq!((day.tallies(at(1)), day.tallies(at(2))), (tallies, Tallies::default()));
        // At its own domain: of the others nothing is known.
        run(&mut day, 1, false, true, at(1));
        assert_eq!(day.blindness(at(1)), None);
        run(&mut day, 1, true, false, at(1));
        assert_eq!(day.blindness(at(1)), Some(Blindness::Foreign));
        run(&mut day, 1, true, true, at(1));
        assert_eq!(day.blindness(at(1)), None);
    }

    #[test]
    fn a_session_on_the_other_side_of_midnight() {
        let mut day = Day::default();
        assert_eq!(run(&mut day, 998, false, false, at(5)), []);
        assert_eq!(run(&mut day, 1, false, false, at(4)), []);
        assert_eq!(run(&mut day, 1, false, false, at(5)), [(1, Blindness::Everybody)]);
        // A clock that was days ahead: the day begins anew.
        assert_eq!(run(&mut day, 1000, false, false, at(2)), [(1000, Blindness::Everybody)]);
    }
}
