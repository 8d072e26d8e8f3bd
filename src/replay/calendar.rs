//! The times at the beginning of log lines, even if they have no year.
//!
//! RFC 3164 (`Nov 24 16:05:28`), RFC 3339 (`2026-11-24T16:05:28.123+01:00`, also with `+0100` as in journald) and
//! Exim's form (`2026-11-24 16:05:28.123 +0100`). A time without a zone is taken as UTC, since only the time between
//! lines matters here.

use crate::clock::Timestamp;

const DAY: i64 = 24 * 60 * 60 * 1_000;
/// How far a machine's clock may be ahead of ours.
const SLACK: i64 = DAY;
/// 29 February occurs every fourth year, but only after eight years around 2100.
const YEARS_BACK: i64 = 8;
const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// Finds the year of the lines of one log: that of the line before, unless the year turned.
#[derive(Debug, Clone)]
pub struct Calendar {
    /// The time of the line before, in milliseconds since the epoch like all times here.
    last: Option<i64>,
    /// The first line is no later than this.
    latest: i64,
}

impl Calendar {
    /// For a log that ends at `latest` or earlier.
    pub fn new(latest: Timestamp) -> Self {
        Self { last: None, latest: millis_of(latest).saturating_add(SLACK) }
    }

    /// Parses the time at the beginning of a line; also returns the rest, from a blank on.
    pub fn read<'a>(&mut self, line: &'a str) -> Option<(Timestamp, &'a str)> {
        let octets = line.as_bytes();
        let (millis, length) = match octets.first()? {
            b'0'..=b'9' => with_year(octets)?,
            _ => self.without_year(octets)?,
        };
        self.last = Some(millis);
        Some((Timestamp::from_millis(u64::try_from(millis).ok()?), line.get(length..)?))
    }

    /// Parses `Nov 24 16:05:28` or `Nov  4 16:05:28.123456`.
    fn without_year(&self, line: &[u8]) -> Option<(i64, usize)> {
        let name = line.get(..3)?;
        let month = 1 + i64::try_from(MONTHS.iter().position(|month| *month == name)?).ok()?;
        let day = match line.get(3..7)? {
            [b' ', b' ', d @ b'1'..=b'9', b' '] => i64::from(d - b'0'),
            [b' ', tens, ones, b' '] => two(&[*tens, *ones])?,
            _ => return None,
        };
        let (time, length) = time_of_day(line.get(7..)?)?;
        let at = |year| days(year, month, day).map(|days| days * DAY + time);
        let found = match self.last {
            Some(last) => {
                let near = year_of(last);
                (near - 1..=near + 1).filter_map(at).min_by_key(|at| at.abs_diff(last))
            }
            None => {
                let latest = year_of(self.latest);
                (latest - YEARS_BACK..=latest).rev().filter_map(at).find(|at| *at <= self.latest)
            }
        };
        Some((found?, 7 + length))
    }
}

/// Parses `2026-11-24T16:05:28.123+01:00` or `2026-11-24 16:05:28 +0100`; without a zone it is UTC.
fn with_year(line: &[u8]) -> Option<(i64, usize)> {
    let [c1, c2, y1, y2, b'-', m1, m2, b'-', d1, d2, b'T' | b' ', rest @ ..] = line else { return None };
    let year = two(&[*c1, *c2])? * 100 + two(&[*y1, *y2])?;
    let days = days(year, two(&[*m1, *m2])?, two(&[*d1, *d2])?)?;
    let (time, length) = time_of_day(rest)?;
    let (zone, zone_length) = match &rest[length..] {
        [b'Z', ..] => (0, 1),
        [b' ', sign @ (b'+' | b'-'), zone @ ..] => (offset(*sign, zone)?.0, 6),
        [sign @ (b'+' | b'-'), zone @ ..] => offset(*sign, zone).map(|(zone, length)| (zone, 1 + length))?,
        _ => (0, 0),
    };
    Some((days * DAY + time - zone, 11 + length + zone_length))
}

/// Parses `16:05:28` with any fraction of a second; also returns its length.
fn time_of_day(line: &[u8]) -> Option<(i64, usize)> {
    let [h1, h2, b':', m1, m2, b':', s1, s2, rest @ ..] = line else { return None };
    let (hour, minute, second) = (two(&[*h1, *h2])?, two(&[*m1, *m2])?, two(&[*s1, *s2])?);
    // RFC 3339 5.6: a leap second has the number 60.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction, length) = match rest {
        [b'.' | b',', digits @ ..] => {
            let count = digits.iter().take_while(|octet| octet.is_ascii_digit()).count();
            let millis =
                digits.iter().take(count.min(3)).fold(0, |sum, octet| sum * 10 + i64::from(octet - b'0'));
            (millis * [1, 100, 10, 1][count.min(3)], 1 + count)
        }
        _ => (0, 0),
    };
    Some((((hour * 60 + minute) * 60 + second) * 1_000 + fraction, 8 + length))
}

/// Parses `01:00` or `0100`; also returns its length.
fn offset(sign: u8, zone: &[u8]) -> Option<(i64, usize)> {
    let (hours, minutes, length) = match zone {
        [h1, h2, b':', m1, m2, ..] => (two(&[*h1, *h2])?, two(&[*m1, *m2])?, 5),
        [h1, h2, m1, m2, ..] => (two(&[*h1, *h2])?, two(&[*m1, *m2])?, 4),
        _ => return None,
    };
    let millis = (hours * 60 + minutes) * 60_000;
    Some((if sign == b'-' { -millis } else { millis }, length))
}

fn two(digits: &[u8; 2]) -> Option<i64> {
    let digit = |octet: u8| octet.is_ascii_digit().then(|| i64::from(octet - b'0'));
    Some(digit(digits[0])? * 10 + digit(digits[1])?)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && year % 100 != 0 || year % 400 == 0
}

/// The number of days from 1970-01-01 to a date in the Gregorian calendar; `None` for invalid or earlier dates.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    const BEFORE_MONTH: [i64; 13] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365];
    let month = usize::try_from(month).ok().filter(|month| (1..=12).contains(month))?;
    let leap_day = i64::from(is_leap(year));
    let length = BEFORE_MONTH[month] - BEFORE_MONTH[month - 1] + if month == 2 { leap_day } else { 0 };
    if year < 1970 || day < 1 || day > length {
        return None;
    }
    let leap_days = |year: i64| year / 4 - year / 100 + year / 400;
    let before_year = (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969);
    Some(before_year + BEFORE_MONTH[month - 1] + if month > 2 { leap_day } else { 0 } + day - 1)
}

fn year_of(millis: i64) -> i64 {
    let guess = 1970 + millis.div_euclid(DAY) / 366;
    (guess..)
        .take_while(|year| days(*year, 1, 1).is_some_and(|days| days * DAY <= millis))
        .last()
        .unwrap_or(1970)
}

fn millis_of(time: Timestamp) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn time(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    #[test]
    fn forms() {
        for (line, expected, rest) in [
            ("2026-11-24T16:05:28Z x", "2026-11-24T16:05:28Z", " x"),
            ("2026-11-24T16:05:28.123456+01:00 x", "2026-11-24T15:05:28.123Z", " x"),
            ("2026-11-24T16:05:28-0530 x", "2026-11-24T21:35:28Z", " x"),
            ("2026-11-24T16:05:28,5 x", "2026-11-24T16:05:28.500Z", " x"),
            ("2026-11-24 16:05:28 x", "2026-11-24T16:05:28Z", " x"),
            ("2026-11-24 16:05:28.12 +0100 x", "2026-11-24T15:05:28.120Z", " x"),
            ("Nov 24 16:05:28 x", "2026-11-24T16:05:28Z", " x"),
            ("Nov  4 16:05:28.987654 x", "2026-11-04T16:05:28.987Z", " x"),
            ("Nov 04 16:05:28 x", "2026-11-04T16:05:28Z", " x"),
            // The machine's clock is ahead of ours; if by more than a day, the line is from last year.
            ("Nov 29 01:00:00 x", "2026-11-29T01:00:00Z", " x"),
            ("Nov 29 13:00:00 x", "2025-11-29T13:00:00Z", " x"),
            ("Dec 31 23:59:60 x", "2026-01-01T00:00:00Z", " x"),
            ("Feb 29 00:00:00", "2024-02-29T00:00:00Z", ""),
        ] {
            let mut calendar = Calendar::new(time("2026-11-28T12:00:00Z"));
            assert_eq!(calendar.read(line), Some((time(expected), rest)), "{line}");
        }
    }

    #[test]
    fn no_times() {
        for line in [
            "",
            "N",
            "Nov",
            "Nov 24",
            "Nov 24 16:05",
            "nov 24 16:05:28",
            "Nov 31 16:05:28 x",
            "Nov  0 16:05:28 x",
            "Nov 24 24:05:28 x",
            "Nov 24 16:60:28 x",
            "Nov 24 16:05:61 x",
            "Nov 2é 16:05:28",
            "2026-11-24",
            "2026-13-24T16:05:28Z",
            "2026-02-29T16:05:28Z",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+01:00",
            "2026-11-24T16:05:28+1",
            "2026-11-24T16:05:28+é1:00",
            "24/11/2026 16:05:28",
        ] {
            assert_eq!(Calendar::new(time("2026-11-28T12:00:00Z")).read(line), None, "{line}");
        }
    }

    /// The year can turn within a log, forwards and, if lines are out of order, backwards.
    #[test]
    fn the_year_turns() {
        let mut calendar = Calendar::new(time("2027-01-08T00:00:00Z"));
        for (line, expected) in [
            ("Dec 30 00:00:00", "2026-12-30T00:00:00Z"),
            ("Dec 31 23:59:59", "2026-12-31T23:59:59Z"),
            ("Jan  1 00:00:01", "2027-01-01T00:00:01Z"),
            ("Dec 31 23:59:59", "2026-12-31T23:59:59Z"),
            ("Jan  1 00:00:02", "2027-01-01T00:00:02Z"),
            ("Jan  7 00:00:00", "2027-01-07T00:00:00Z"),
            // A year that is written holds for the lines after it.
            ("2031-03-01 00:00:00", "2031-03-01T00:00:00Z"),
            ("Mar  2 00:00:00", "2031-03-02T00:00:00Z"),
        ] {
            assert_eq!(calendar.read(line).unwrap().0, time(expected), "{line}");
        }
    }

    proptest! {
        #[test]
        fn the_calendar_is_right(millis in 0i64..4_000_000_000_000) {
            let time = Timestamp::from_millis(millis.unsigned_abs());
            let text = time.to_string();
            let read = Calendar::new(Timestamp::default()).read(&text).map(|(at, _)| at);
            prop_assert_eq!(read, Some(time));
            prop_assert_eq!(year_of(millis).to_string(), &text[..4]);
        }

        #[test]
        fn nothing_panics(line in "\\PC{0,40}", other in "[JFMASOND][a-z]{2} [ 0-9][0-9] [0-9:.+-]{0,20}é?") {
            let mut calendar = Calendar::new(Timestamp::from_millis(1_795_536_328_123));
            for line in [line, other] {
                if let Some((_, rest)) = calendar.read(&line) {
                    prop_assert!(line.ends_with(rest));
                }
            }
        }
    }
}
