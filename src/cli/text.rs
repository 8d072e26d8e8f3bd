//! Makes text from strangers fit for a terminal: it must neither move the cursor nor reverse the line.
//!
//! Control characters (such as ESC), bidirectional overrides and invisible characters are replaced. In JSON they are
//! escaped instead, so that a program gets the original text.

use std::borrow::Cow;
use std::fmt::Write;

use crate::clock::Timestamp;
use crate::visible::is_unsafe;

/// Replaces a character that is not shown.
const REPLACEMENT: char = '\u{fffd}';

/// One line without anything that could harm a terminal; a tab becomes a blank.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let safe = |c| match c {
        '\t' => ' ',
        c if is_unsafe(c) => REPLACEMENT,
        c => c,
    };
    Cow::Owned(text.chars().map(safe).collect())
}

/// Escapes the harmful characters of JSON as `\uXXXX`. The meaning is the same, since they only occur in strings.
pub(super) fn escape_json(json: &str) -> Cow<'_, str> {
    if !json.contains(is_unsafe) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_unsafe(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// The terminal cells that a character takes: two for East Asian characters and pictographs (UAX 11, by blocks), none
/// for combining marks.
fn cells(c: char) -> usize {
    match c {
        '\u{300}'..='\u{36f}' | '\u{fe00}'..='\u{fe0f}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

/// The terminal cells that a line takes.
pub(super) fn width(line: &str) -> usize {
    line.chars().map(cells).sum()
}

/// The most characters shown for each cell.
const MARKS: usize = 4;

/// Cuts a line to fit into `most` terminal cells; a line that is cut ends with an ellipsis.
pub(super) fn cut(line: &str, most: usize) -> Cow<'_, str> {
    // Combining marks take no cell, and there may be any number of them.
    let longest = most.saturating_mul(MARKS);
    if width(line) <= most && line.chars().take(longest + 1).count() <= longest {
        return Cow::Borrowed(line);
    }
    let mut left = most.saturating_sub(1);
    let fits = |c: &char| {
        let fits = cells(*c) <= left;
        left = left.saturating_sub(cells(*c));
        fits
    };
    let kept: String = line.chars().take(longest).take_while(fits).collect();
    Cow::Owned(kept + "\u{2026}")
}

/// A time to the second: `2026-11-24T16:05:28Z`.
pub(super) fn moment(time: Timestamp) -> String {
    let text = time.to_string();
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}

/// A size for people: `512`, `1.4 KiB`, `50.0 MiB`.
pub(super) fn size(octets: u64) -> String {
    let units = [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| octets >= *unit) {
        Some((unit, name)) => {
            let tenths = u128::from(octets) * 10 / u128::from(*unit);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => octets.to_string(),
    }
}

/// `1 message`, `2 messages`.
pub(super) fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::AccountState;
    use crate::quarantine::envelope::State;

    #[test]
    fn states_have_the_words_that_they_have_in_json() {
        for state in [State::Parked, State::Releasing, State::Failed, State::Unreadable] {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        for state in [AccountState::Counting, AccountState::Probation, AccountState::Blocked] {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
    }

    #[test]
    fn nothing_reaches_the_terminal() {
        for (text, expected) in [
            ("plain", "plain"),
            ("größe 漢字 🙂", "größe 漢字 🙂"),
            ("a\tb", "a b"),
            ("\u{1b}[31mred\u{1b}[0m", "\u{fffd}[31mred\u{fffd}[0m"),
            ("\u{9b}31m", "\u{fffd}31m"), // CSI as one character of C1
            ("a\r\nb", "a\u{fffd}\u{fffd}b"),
            ("invoice\u{202e}fdp.exe", "invoice\u{fffd}fdp.exe"),
            ("pay\u{200b}pal", "pay\u{fffd}pal"),
            ("\u{2066}x\u{2069}", "\u{fffd}x\u{fffd}"),
            ("\u{7f}", "\u{fffd}"),
            ("\u{e0041}", "\u{fffd}"),
        ] {
            assert_eq!(clean(text), expected, "{text:?}");
        }
    }

    #[test]
    fn json_keeps_what_was_written() {
        for text in ["plain", "\u{1b}[31m", "\u{9b}\u{202e}\u{7f}", "\u{e0041} 🙂", "a\tb\nc"] {
            let json = serde_json::to_string(text).unwrap();
            let escaped = escape_json(&json);
            assert!(!escaped.contains(is_unsafe), "{text:?}");
            assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
        }
    }

    #[test]
    fn shown_shorter() {
        for (text, width, expected) in [
            ("abc", 3, "abc"),
            ("abcdef", 5, "abcd…"),
            ("äöüäöü", 5, "äöüä…"),
            ("", 5, ""),
            ("漢字", 4, "漢字"),
            ("漢字漢", 5, "漢字…"),
            ("漢字漢", 4, "漢…"),
            ("e\u{301}e", 2, "e\u{301}e"),
            ("ab", 0, "…"),
        ] {
            assert_eq!(cut(text, width), expected);
        }
        assert_eq!(moment(Timestamp::from_millis(1_795_536_328_123)), "2026-11-24T16:05:28Z");
        for (octets, expected) in
            [(0, "0"), (1_023, "1023"), (1_024, "1.0 KiB"), (1_500, "1.4 KiB"), (52_428_800, "50.0 MiB")]
        {
            assert_eq!(size(octets), expected);
        }
        assert_eq!((count(1, "session"), count(0, "session")), ("1 session".into(), "0 sessions".into()));
    }
}
