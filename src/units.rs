//! Durations (`90s`, `10m`, `1h`, `30d`) and sizes (`64KiB`, `50MiB`, `10GiB`) as people read and write them: one whole
//! number and one unit. Pure.

use std::time::Duration;

/// 1 s
pub const SECOND: Duration = Duration::from_secs(1);
/// 60 s
pub const MINUTE: Duration = Duration::from_secs(60);
/// 3,600 s
pub const HOUR: Duration = Duration::from_secs(60 * 60);
/// 86,400 s
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What a duration looks like, as part of a sentence.
pub const DURATION: &str = "a duration such as 90s, 10m, 1h or 30d";
/// What a size looks like, as part of a sentence.
pub const SIZE: &str = "a size such as 64KiB, 50MiB or 10GiB";

const DURATION_UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
const SIZE_UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Parses a duration; `None` if the text is not one, or exceeds [`u64::MAX`] seconds.
pub fn duration(text: &str) -> Option<Duration> {
    quantity(text, &DURATION_UNITS).map(Duration::from_secs)
}

/// Parses a size into octets; `None` if the text is not one, or exceeds [`u64::MAX`].
pub fn size(text: &str) -> Option<u64> {
    quantity(text, &SIZE_UNITS)
}

/// Formats whole seconds in the largest unit that expresses them exactly.
pub fn show_duration(duration: Duration) -> String {
    show(duration.as_secs(), &DURATION_UNITS, "s")
}

/// Formats octets in the largest unit that expresses them exactly.
pub fn show_size(octets: u64) -> String {
    show(octets, &SIZE_UNITS, " octets")
}

fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn show(value: u64, units: &[(&str, u64)], smallest: &str) -> String {
    match units.iter().find(|(_, factor)| value > 0 && value.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", value / factor),
        None => format!("{value}{smallest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expected) in [
            ("0s", Some(0)),
            ("90s", Some(90)),
            ("10m", Some(600)),
            ("1h", Some(3_600)),
            ("30d", Some(2_592_000)),
            ("007s", Some(7)),
            ("", None),
            ("90", None),
            ("s", None),
            ("1 h", None),
            ("1H", None),
            ("1h30m", None),
            ("-1s", None),
            ("1.5h", None),
            ("٣s", None), // digits, but not ASCII ones
            ("500ms", None),
            ("99999999999999999999s", None),
            ("18446744073709551615d", None),
        ] {
            assert_eq!(duration(text), expected.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("64KiB", Some(65_536)),
            ("50MiB", Some(52_428_800)),
            ("10GiB", Some(10_737_418_240)),
            ("1TiB", Some(1_099_511_627_776)),
            ("0KiB", Some(0)),
            ("65536", None),
            ("64KB", None),
            ("64kib", None),
            ("64 KiB", None),
            ("99999999TiB", None),
        ] {
            assert_eq!(size(text), expected, "{text}");
        }
    }

    #[test]
    fn shown_in_the_largest_exact_unit() {
        for (seconds, expected) in
            [(0, "0s"), (90, "90s"), (600, "10m"), (3_600, "1h"), (86_400, "1d"), (90_000, "25h")]
        {
            assert_eq!(show_duration(Duration::from_secs(seconds)), expected);
        }
        for (octets, expected) in [
            (0, "0 octets"),
            (100, "100 octets"),
            (65_536, "64KiB"),
            (1 << 30, "1GiB"),
            (1_536, "1536 octets"),
        ] {
            assert_eq!(show_size(octets), expected);
        }
    }
}
