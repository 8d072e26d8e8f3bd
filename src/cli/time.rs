//! `--since`: a time, or how long ago.

use crate::clock::{self, Timestamp};
use crate::units;

/// Parses an RFC 3339 time, or a duration ago such as `2h`.
pub(super) fn since(text: &str) -> Result<Timestamp, String> {
    match units::duration(text) {
        Some(ago) => Ok(clock::now().before(ago)),
        None => Timestamp::parse_rfc3339(text).map_err(|_| {
            format!("`{text}` is neither a time such as 2026-11-24T16:05:28Z nor a duration ago such as 90s, 10m, 2h or 30d")
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways() {
        assert_eq!(since("2026-11-24T16:05:28Z"), Ok(Timestamp::from_millis(1_795_536_328_000)));
        let two_hours_ago = since("2h").unwrap();
        let behind = clock::now().since(two_hours_ago).as_secs();
        assert!((7_200..7_260).contains(&behind), "{behind}");
        for wrong in ["", "2", "2 h", "yesterday", "2026-11-24"] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }
}
