//! When a release is tried again, and when a message of an account on probation goes out by itself; pure.
//!
//! CONTRACT, Release: after 5, 10, 20, 40, then every 60 minutes for 5 days, counted from the decision. CONTRACT,
//! Detection: a further alarm restarts the delay, up to 24 h in all.

use std::time::Duration;

use crate::clock::{Span, Timestamp};

/// How long after the first, second, ... try the next one comes; after the last, [`EVERY`].
const FIRST_DELAYS: [Duration; 4] = [minutes(5), minutes(10), minutes(20), minutes(40)];
/// How long after every later try the next one comes.
const EVERY: Duration = minutes(60);
/// How long after the decision tries are made (RFC 5321 4.5.4.1: at least 4 to 5 days).
pub const GIVE_UP_AFTER: Duration = minutes(5 * 24 * 60);

/// How many tries there are at least before something is given up; five days have some 124. So a clock that was behind when
/// it all began, and was then put right, ends nothing within an hour.
const FEWEST_TRIES: u32 = 24;

/// What [`Settled`](crate::clock::Settled) is asked with, to judge whether [`GIVE_UP_AFTER`] is over: readings must then
/// agree for 36 minutes, or 41 at most, so that the try an hour after the end is the last one.
pub const SETTLED_AGE: Duration = minutes(5 * 24 * 60 / 2);

/// How long after its arrival a message of an account on probation goes out at the latest, however many further alarms
/// there are.
pub const LONGEST_DELAY: Duration = minutes(24 * 60);

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

/// Returns the next try of a release that was decided at `requested` and has been tried `tries` times, the last time at
/// `now`. One try comes at the end of [`GIVE_UP_AFTER`]. After that they go on until [`is_over`] says so: the clock may
/// be wrong.
pub fn next_try(requested: Timestamp, tries: u32, now: Timestamp) -> Timestamp {
    let end = requested.after(GIVE_UP_AFTER);
    if now >= end {
        return now.after(EVERY);
    }
    let delay = match tries.checked_sub(1) {
        None => Duration::ZERO,
        Some(index) => {
            usize::try_from(index).ok().and_then(|i| FIRST_DELAYS.get(i)).copied().unwrap_or(EVERY)
        }
    };
    now.after(delay).min(end)
}

/// Returns whether [`GIVE_UP_AFTER`] is over by a settled clock and after enough `tries`, so that unanswered recipients count
/// as refused. `settled` is `None` if no clock has settled: never in a process that ends with its command.
pub fn is_over(requested: Timestamp, tries: u32, settled: Option<Span>) -> bool {
    tries >= FEWEST_TRIES && settled.is_some_and(|said| said.earliest >= requested.after(GIVE_UP_AFTER))
}

/// Returns how many tries by the schedule are worth as much as `tries` that come `every` so often.
pub fn worth(tries: u32, every: Duration) -> u32 {
    u32::try_from(every.saturating_mul(tries).as_secs() / EVERY.as_secs()).unwrap_or(u32::MAX)
}

/// Returns when a message that arrived at `parked` and was due at `due` goes out by itself, now that probation lasts
/// until `until`. Each alarm restarts the delay, so nothing is due before probation ends. But the delay is never
/// shortened, nor is it extended beyond [`LONGEST_DELAY`].
pub fn postponed(due: Timestamp, parked: Timestamp, until: Timestamp) -> Timestamp {
    due.max(until.min(parked.after(LONGEST_DELAY)))
}

/// Returns the next try of what was to be tried again at `next`, now that the clock says `now`: at the latest when it
/// would come after a try made now, since it may have been put off while the clock was ahead.
pub fn next_try_by(next: Timestamp, now: Timestamp) -> Timestamp {
    next.min(now.after(EVERY))
}

/// Returns when a message that says that it arrived at `parked` and is due at `due` goes out, given the `latest` time
/// that the clock has said for a while. If it arrived while the clock was ahead, its delay begins at `latest`.
pub fn due_by(due: Timestamp, parked: Timestamp, latest: Timestamp) -> Timestamp {
    let came_ahead = parked > latest && due >= parked;
    let due = if came_ahead { latest.after(due.since(parked)) } else { due };
    due.min(latest.after(LONGEST_DELAY))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::clock::Settled;

    #[test]
    fn the_delay_begins_anew_and_ends_after_a_day() {
        const DAY: u64 = 24 * 60;
        let at = |minute: u64| Timestamp::default().after(minutes(10_000 + minute));
        for (due, parked, until, expected) in [
            (30, 0, 20, 30),
            (30, 0, 30, 30),
            (30, 0, 50, 50),
            (30, 0, DAY, DAY),
            (30, 0, DAY + 1, DAY),
            (30 + 5, 5, DAY + 1, DAY + 1),
            // Parked with a longer delay than is configured now.
            (2 * DAY, 0, DAY + 30, 2 * DAY),
        ] {
            assert_eq!(postponed(at(due), at(parked), at(until)), at(expected), "{due} {parked} {until}");
        }
    }

    #[test]
    fn what_was_made_while_the_clock_was_ahead_is_brought_back() {
        const DAY: u64 = 24 * 60;
        let at = |minute: u64| Timestamp::default().after(minutes(10_000 + minute));
        for (due, parked, latest, expected) in [
            // Nothing is wrong.
            (30, 0, 0, 30),
            (30, 0, 20, 30),
            (DAY, 0, 0, DAY),
            // It came while the clock was two days ahead.
            (2 * DAY + 30, 2 * DAY, 10, 10 + 30),
            // That is done, and its due time was written down.
            (40, 2 * DAY, 11, 40),
            // It came before, and an alarm postponed it meanwhile; the delay is at most a day all the same.
            (2 * DAY, 0, 60, DAY + 60),
        ] {
            assert_eq!(due_by(at(due), at(parked), at(latest)), at(expected), "{due} {parked} {latest}");
        }
        for (next, now, expected) in [(60, 0, 60), (0, 10, 0), (2 * DAY, 10, 70)] {
            assert_eq!(next_try_by(at(next), at(now)), at(expected), "{next} {now}");
        }
    }

    #[test]
    fn the_table() {
        const DAYS: u64 = 24 * 60;
        let at = |minute: u64| Timestamp::default().after(minutes(10_000 + minute));
        for (tries, minute, expected) in [
            (0, 0, 0),
            (1, 0, 5),
            (2, 5, 15),
            (3, 15, 35),
            (4, 35, 75),
            (5, 75, 135),
            (6, 135, 195),
            (u32::MAX, 195, 255),
            (100, 5 * DAYS - 61, 5 * DAYS - 1),
            // A try at the end, instead of nearly an hour without one.
            (100, 5 * DAYS - 30, 5 * DAYS),
            // Nobody has said yet that the clock is right.
            (100, 5 * DAYS, 5 * DAYS + 60),
            // Gatepost was down.
            (2, 9 * DAYS, 9 * DAYS + 60),
        ] {
            assert_eq!(next_try(at(0), tries, at(minute)), at(expected), "try {tries} at minute {minute}");
        }
        let stepped_back = at(0).before(minutes(60));
        assert_eq!(next_try(at(0), 1, stepped_back), stepped_back.after(minutes(5)), "the clock went back");
    }

    #[test]
    fn five_days_have_about_120_tries() {
        let requested = Timestamp::from_millis(1_795_536_328_123);
        let (mut now, mut tries) = (requested, 0);
        while !is_over(requested, tries, Some(Span { earliest: now, latest: now })) {
            (now, tries) = (next_try(requested, tries, now), tries + 1);
        }
        assert_eq!((now, tries), (requested.after(GIVE_UP_AFTER), 124));
        assert!(!is_over(requested, tries, None), "no clock has settled");
    }

    /// Begun in 1970, three minutes before the clock was put right.
    #[test]
    fn a_clock_that_was_behind_ends_nothing_within_a_day_or_so() {
        let (requested, right) = (Timestamp::default(), Timestamp::from_millis(1_795_536_328_123));
        let (mut now, mut tries) = (right, 1);
        while !is_over(requested, tries, Some(Span { earliest: now, latest: now })) {
            (now, tries) = (next_try(requested, tries, now), tries + 1);
        }
        assert_eq!(now, right.after(23 * EVERY));
        let quarter = Duration::from_secs(15);
        assert_eq!([0, 239, 240, 24 * 240, u32::MAX].map(|n| worth(n, quarter)), [0, 0, 1, 24, 17_895_697]);
    }

    /// The clock is a year ahead for half an hour, three hours before the end.
    #[test]
    fn the_try_an_hour_after_the_end_is_the_last() {
        let (begin, tick) = (Instant::now(), Duration::from_secs(5));
        let requested = Timestamp::from_millis(1_795_536_328_123);
        let end = requested.after(GIVE_UP_AFTER);
        let first = end.before(minutes(180));
        let (mut settled, mut next, mut tries) = (Settled::default(), first, Vec::new());
        for n in 0..10_000 {
            let right = first.after(tick * n);
            let is_ahead = (1..360).contains(&n);
            let now = if is_ahead { right.after(minutes(365 * 24 * 60)) } else { right };
            let said = settled.span(begin + tick * n, now, SETTLED_AGE);
            assert!(!is_ahead || !is_over(requested, 100, said), "{right}");
            if is_ahead || right < next {
                continue;
            }
            tries.push(right);
            if is_over(requested, 100, said) {
                break;
            }
            next = next_try(requested, 100, now);
        }
        assert_eq!(tries, [first, end.before(minutes(120)), end.before(minutes(60)), end, end.after(EVERY)]);
    }
}
