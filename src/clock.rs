//! The clock: the only place that asks what time it is.
//!
//! Everything else takes a [`Timestamp`] as an argument, so that windows, due times and expiry can be tested without
//! waiting. Formats: RFC 3339 for programs, RFC 5322 3.3 for headers.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A time in UTC, in whole milliseconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

/// The latest time that the calendar can show: just short of the year 10000 in any time zone.
const LATEST_MILLIS: u64 = 253_402_207_200_000;

impl Timestamp {
    /// The time `millis` milliseconds after the Unix epoch, at most the end of the calendar.
    pub const fn from_millis(millis: u64) -> Self {
        Self(if millis > LATEST_MILLIS { LATEST_MILLIS } else { millis })
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// This time plus `duration`.
    pub fn after(self, duration: Duration) -> Self {
        Self::from_millis(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// This time minus `duration`, at least the epoch.
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// The time since `earlier`; zero if that is in the future.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// RFC 5322 3.3, in UTC: `Tue, 24 Nov 2026 16:05:28 +0000`.
    pub fn to_rfc5322(self) -> String {
        thread_local!(static SAID: Said = Said::default());
        let form = |calendar: jiff::Timestamp| calendar.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string();
        SAID.with(|said| said.of(self, form, str::to_owned))
    }

    /// Parses an RFC 3339 date and time.
    ///
    /// # Errors
    /// The text is not an RFC 3339 date-time, or is before 1970.
    pub fn parse_rfc3339(text: &str) -> Result<Self, String> {
        let parsed: jiff::Timestamp =
            text.parse().map_err(|_| format!("`{text}` is no RFC 3339 time such as 2026-11-24T16:05:28Z"))?;
        u64::try_from(parsed.as_millisecond())
            .map(Self::from_millis)
            .map_err(|_| format!("`{text}` lies before 1970"))
    }

    fn calendar(self) -> jiff::Timestamp {
        let millis = i64::try_from(self.0).unwrap_or(i64::MAX);
        jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }
}

/// RFC 3339 in UTC, with milliseconds: `2026-11-24T16:05:28.123Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        thread_local!(static SAID: Said = Said::default());
        let form = |calendar: jiff::Timestamp| calendar.strftime("%Y-%m-%dT%H:%M:%S.").to_string();
        SAID.with(|said| said.of(*self, form, |second| f.write_str(second)))?;
        write!(f, "{:03}Z", self.0 % 1_000)
    }
}

/// A second with its text, cached because each message has several of them.
#[derive(Default)]
struct Said(Cell<Option<(u64, String)>>);

impl Said {
    /// Returns `then` applied to the text that `form` makes of the second of `moment`.
    fn of<T>(
        &self,
        moment: Timestamp,
        form: impl FnOnce(jiff::Timestamp) -> String,
        then: impl FnOnce(&str) -> T,
    ) -> T {
        let second = moment.0 / 1_000;
        let known = self.0.take().filter(|(known, _)| *known == second);
        let said = known.unwrap_or_else(|| anew(second, moment, form));
        let outcome = then(&said.1);
        self.0.set(Some(said));
        outcome
    }
}

/// Once in a second.
#[cold]
fn anew(second: u64, moment: Timestamp, form: impl FnOnce(jiff::Timestamp) -> String) -> (u64, String) {
    (second, form(moment.calendar()))
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse_rfc3339(&text).map_err(serde::de::Error::custom)
    }
}

/// Converts a system time; `None` before 1970.
pub fn of(time: SystemTime) -> Option<Timestamp> {
    let elapsed = time.duration_since(UNIX_EPOCH).ok()?;
    Some(Timestamp::from_millis(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)))
}

/// The current time. A clock before 1970 counts as the epoch.
#[inline(never)] // see "The code of a message" in docs/performance.md
pub fn now() -> Timestamp {
    let now = of(SystemTime::now()).unwrap_or_default();
    #[cfg(feature = "fail-points")]
    let now = Timestamp::from_millis(now.0.saturating_add_signed(crate::fail::offset_millis()));
    now
}

/// The earliest and the latest time that the clock has said for a while. What has passed by the earliest is over, and
/// what lies after the latest is in the future, even if the clock is briefly wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The earliest.
    pub earliest: Timestamp,
    /// The latest.
    pub latest: Timestamp,
}

/// A clock for irreversible actions, which lags behind and does not jump: such actions wait until their time has passed
/// by this clock, so that a system clock which is briefly ahead does no harm.
#[derive(Debug, Default)]
pub struct Settled {
    /// When the clock was read, and what it said; the oldest first.
    looks: VecDeque<(Instant, Timestamp)>,
}

impl Settled {
    /// How far back all readings must agree that its time has come before something very old is removed: the longest
    /// wait.
    const WAIT: Duration = Duration::from_secs(3600);
    /// For something younger: its age divided by this.
    const DIVISOR: u32 = 100;
    /// How many readings are kept for each wait.
    const LOOKS: u32 = 8;

    /// How far back, at least, the readings must agree before something of `age` is removed; at most an eighth and the
    /// time between two readings more.
    pub fn wait(age: Duration) -> Duration {
        (age / Self::DIVISOR).min(Self::WAIT)
    }

    /// Notes that the clock says `now` at `at`. Returns the earliest time that it has said since [`Self::wait`] of
    /// `age` ago; `None` if the readings do not go back that far.
    pub fn look(&mut self, at: Instant, now: Timestamp, age: Duration) -> Option<Timestamp> {
        self.span(at, now, age).map(|span| span.earliest)
    }

    /// As [`Self::look`]; returns the latest time too.
    pub fn span(&mut self, at: Instant, now: Timestamp, age: Duration) -> Option<Span> {
        let wait = Self::wait(age);
        let is_older = |than: Duration| {
            move |(then, _): &(Instant, Timestamp)| at.saturating_duration_since(*then) >= than
        };
        if self.looks.back().is_none_or(is_older(wait / Self::LOOKS)) {
            self.looks.push_back((at, now));
        }
        while self.looks.get(1).is_some_and(is_older(wait)) {
            self.looks.pop_front();
        }
        let is_settled = self.looks.front().is_some_and(is_older(wait));
        let said = || self.looks.iter().map(|(_, then)| *then);
        is_settled.then(|| Span {
            earliest: said().fold(now, Timestamp::min),
            latest: said().fold(now, Timestamp::max),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_ahead_for_a_while_settles_nothing() {
        let age = Settled::WAIT * Settled::DIVISOR;
        let (begin, minute) = (Instant::now(), Duration::from_secs(60));
        let mut settled = Settled::default();
        let right = |n: u32| Timestamp::from_millis(1_000_000_000_000).after(minute * n);
        for n in 0..600 {
            let ahead = Duration::from_secs(31 * 24 * 3600);
            let is_ahead = (200..230).contains(&n) || (280..300).contains(&n);
            let now = if is_ahead { right(n).after(ahead) } else { right(n) };
            match settled.look(begin + minute * n, now, age) {
                None => assert!(n < 60, "{n}"),
                Some(then) => {
                    assert!((60..600).contains(&n) && then <= right(n), "{n}: {then}");
                    assert!(
                        then >= right(n - 60).before(Settled::WAIT / Settled::LOOKS) || n < 70,
                        "{n}: {then} is long ago"
                    );
                }
            }
            assert!(settled.looks.len() <= 10);
        }
        // At once if there is nothing to wait for.
        assert_eq!(Settled::default().look(begin, right(0), Duration::ZERO), Some(right(0)));
    }

    #[test]
    fn both_formats_and_back() {
        let moment = Timestamp::from_millis(1_795_536_328_123);
        assert_eq!(moment.to_string(), "2026-11-24T16:05:28.123Z");
        assert_eq!(moment.to_rfc5322(), "Tue, 24 Nov 2026 16:05:28 +0000");
        assert_eq!(Timestamp::parse_rfc3339("2026-11-24T17:05:28.123+01:00"), Ok(moment));
        assert!(Timestamp::parse_rfc3339("yesterday").is_err());
        assert!(Timestamp::parse_rfc3339("1969-12-31T23:59:59Z").is_err());
    }

    #[test]
    fn each_second_says_its_own() {
        for (millis, time, date) in [
            (1_795_536_328_999, "2026-11-24T16:05:28.999Z", "Tue, 24 Nov 2026 16:05:28 +0000"),
            (1_795_536_328_000, "2026-11-24T16:05:28.000Z", "Tue, 24 Nov 2026 16:05:28 +0000"),
            (1_795_536_327_007, "2026-11-24T16:05:27.007Z", "Tue, 24 Nov 2026 16:05:27 +0000"),
            (1_795_536_329_070, "2026-11-24T16:05:29.070Z", "Tue, 24 Nov 2026 16:05:29 +0000"),
            (0, "1970-01-01T00:00:00.000Z", "Thu, 01 Jan 1970 00:00:00 +0000"),
        ] {
            let moment = Timestamp::from_millis(millis);
            assert_eq!((moment.to_string().as_str(), moment.to_rfc5322().as_str()), (time, date));
        }
    }

    #[test]
    fn arithmetic_stays_within_the_calendar() {
        let latest = Timestamp::from_millis(u64::MAX);
        assert_eq!(latest.after(Duration::MAX), latest);
        assert_eq!(latest.to_string(), "9999-12-30T22:00:00.000Z");
        assert_eq!(Timestamp::default().before(Duration::from_secs(1)), Timestamp::default());
        assert_eq!(Timestamp::default().since(latest), Duration::ZERO);
    }
}
