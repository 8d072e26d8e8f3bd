//! Which message goes next: those whose time has come, in lines, in the order in which they go; pure.
//!
//! No answer takes time that grows with the number of messages that are due. A message enters its line once, when its
//! time comes: each look begins where the last one ended.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included, Unbounded};

use super::envelope::State;
use super::terms::Line;
use crate::clock::Timestamp;
use crate::id::QuarantineId;

/// A message's place in its line, and among those of other lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// It is tried again: the longest due goes first.
    Again(Timestamp, QuarantineId),
    /// Its delay is over: the oldest goes first, since ids sort by arrival.
    Delayed(QuarantineId),
}

/// The messages that have a time and are not claimed.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// All, by time.
    times: BTreeMap<(Timestamp, QuarantineId), Line>,
    /// Exactly those whose time is not after `reached`. No line is empty.
    lines: BTreeMap<Line, BTreeSet<Place>>,
    /// The time of the last look.
    reached: Timestamp,
}

impl Queue {
    /// Adds a message that goes at `time`.
    pub(super) fn insert(&mut self, time: Timestamp, id: QuarantineId, line: Line) {
        if time <= self.reached {
            enter(&mut self.lines, &line, place(&line, time, id));
        }
        self.times.insert((time, id), line);
    }

    /// Removes it; no effect if it is not there.
    pub(super) fn remove(&mut self, time: Timestamp, id: QuarantineId) {
        let Some(line) = self.times.remove(&(time, id)) else { return };
        if time <= self.reached {
            leave(&mut self.lines, &line, place(&line, time, id));
        }
    }

    /// Returns the message that goes first at `now`, of those in the lines that are `open`. Looks at the first of each
    /// line only.
    pub(super) fn first(
        &mut self,
        now: Timestamp,
        mut open: impl FnMut(&Line) -> bool,
    ) -> Option<(QuarantineId, Line)> {
        self.reach(now);
        let open = self.lines.iter().filter(|(line, _)| open(line));
        let (place, line) = open.filter_map(|(line, places)| Some((places.first()?, line))).min()?;
        let (Place::Again(_, id) | Place::Delayed(id)) = place;
        Some((*id, line.clone()))
    }

    /// Returns when the next message goes, or went.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.times.keys().next().map(|(time, _)| *time)
    }

    /// Returns the messages that go after `time`.
    pub(super) fn after(&self, time: Timestamp) -> impl Iterator<Item = QuarantineId> {
        let later = (Excluded((time, QuarantineId::LAST)), Unbounded);
        self.times.range(later).map(|((_, id), _)| *id)
    }

    /// Puts into the lines what came due since the last look; if the clock was set back, takes out what is no longer
    /// due.
    fn reach(&mut self, now: Timestamp) {
        let end = |time| (time, QuarantineId::LAST);
        let between = |from, to| (Excluded(end(from)), Included(end(to)));
        if self.reached < now {
            for ((time, id), line) in self.times.range(between(self.reached, now)) {
                enter(&mut self.lines, line, place(line, *time, *id));
            }
        } else if now < self.reached {
            for ((time, id), line) in self.times.range(between(now, self.reached)) {
                leave(&mut self.lines, line, place(line, *time, *id));
            }
        }
        self.reached = now;
    }
}

fn place(line: &Line, time: Timestamp, id: QuarantineId) -> Place {
    if line.state == State::Parked { Place::Delayed(id) } else { Place::Again(time, id) }
}

fn enter(lines: &mut BTreeMap<Line, BTreeSet<Place>>, line: &Line, place: Place) {
    lines.entry(line.clone()).or_default().insert(place);
}

fn leave(lines: &mut BTreeMap<Line, BTreeSet<Place>>, line: &Line, place: Place) {
    if let Some(places) = lines.get_mut(line) {
        places.remove(&place);
        if places.is_empty() {
            lines.remove(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quarantine::sample::id;
    use proptest::prelude::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn line(name: &str, state: State, by_itself: bool) -> Line {
        Line { account: name.parse().unwrap(), state, by_itself }
    }

    fn delayed(name: &str) -> Line {
        line(name, State::Parked, true)
    }

    /// The ids of all that is due at `now`, in the order in which they go.
    fn drain(queue: &mut Queue, now: u64, mut open: impl FnMut(&Line) -> bool) -> Vec<u64> {
        let mut gone = Vec::new();
        while let Some((id, _)) = queue.first(at(now), &mut open) {
            let time = queue.times.keys().find(|(_, other)| *other == id).unwrap().0;
            queue.remove(time, id);
            gone.push(id.born().as_millis());
        }
        gone
    }

    #[test]
    fn the_oldest_goes_first_of_those_whose_delay_is_over() {
        let mut queue = Queue::default();
        // 1 and 3 came before the delay was made shorter.
        for (born, time, name) in [(1, 50, "anna"), (3, 52, "bert"), (4, 40, "anna"), (5, 41, "anna")] {
            queue.insert(at(time), id(born), delayed(name));
        }
        let after = |queue: &Queue, time| queue.after(at(time)).map(|id| id.born()).collect::<Vec<_>>();
        assert_eq!((after(&queue, 41), after(&queue, 52)), (vec![at(1), at(3)], vec![]));
        assert_eq!(queue.first(at(39), |_| true), None);
        assert_eq!(queue.first(at(51), |_| true).unwrap().0.born(), at(1));
        assert_eq!(queue.first(at(51), |line| line.account.as_str() == "user:bert"), None);
        assert_eq!(queue.first(at(52), |line| line.account.as_str() == "user:bert").unwrap().0.born(), at(3));
        // The clock is set back: 1 and 3 must wait again.
        assert_eq!(queue.first(at(45), |_| true).unwrap().0.born(), at(4));
        assert_eq!(drain(&mut queue, 41, |_| true), [4, 5]);
        assert_eq!((queue.next(), queue.lines.len()), (Some(at(50)), 0));
        assert_eq!(drain(&mut queue, 60, |_| true), [1, 3]);
        assert_eq!((queue.next(), queue.lines.len()), (None, 0));
    }

    #[test]
    fn the_longest_due_release_goes_first_and_before_new_mail() {
        let mut queue = Queue::default();
        let again = |name, by_itself| line(name, State::Releasing, by_itself);
        queue.insert(at(10), id(1), delayed("anna"));
        queue.insert(at(9), id(2), again("bert", false));
        queue.insert(at(7), id(3), again("anna", true));
        queue.insert(at(8), id(4), again("anna", false));
        assert_eq!(drain(&mut queue, 10, |line| !line.by_itself), [4, 2]);
        assert_eq!(drain(&mut queue, 10, |_| true), [3, 1]);
    }

    proptest! {
        /// Whatever is put in, taken out and asked when, the answer is that of a search through all messages.
        #[test]
        fn it_agrees_with_a_search(steps in prop::collection::vec(
            (0..4_u8, 0..12_u64, 0..20_u64, any::<bool>(), prop::sample::select(vec!["anna", "bert"])), 1..60,
        )) {
            let ids: Vec<_> = (0..12).map(|n| id(n + 1)).collect();
            let mut queue = Queue::default();
            let mut all: BTreeMap<QuarantineId, (Timestamp, Line)> = BTreeMap::new();
            for (step, which, time, again, name) in steps {
                let (id, time) = (ids[usize::try_from(which).unwrap()], at(time));
                if let Some((time, _)) = all.get(&id).filter(|_| step < 2) {
                    queue.remove(*time, id);
                    all.remove(&id);
                } else if step < 3 && !all.contains_key(&id) {
                    let line = if again { line(name, State::Releasing, false) } else { delayed(name) };
                    queue.insert(time, id, line.clone());
                    all.insert(id, (time, line));
                }
                let open = |line: &Line| line.account.as_str() == "user:anna" || step == 3;
                let due = all.iter().filter(|(_, (due, line))| *due <= time && open(line));
                let expected = due.min_by_key(|(id, (due, line))| place(line, *due, **id));
                let expected = expected.map(|(id, (_, line))| (*id, line.clone()));
                prop_assert_eq!(queue.first(time, open), expected);
                prop_assert_eq!(queue.next(), all.values().map(|(time, _)| *time).min());
                prop_assert!(queue.lines.values().all(|places| !places.is_empty()));
            }
        }
    }
}
