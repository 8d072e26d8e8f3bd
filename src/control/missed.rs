//! The messages of a selection that were not released or deleted, and why: counted, and reported in one line; pure.

use super::api::Selection;
use crate::quarantine::spool::SpoolError;

/// Counts the messages of a selection that are claimed, gone or not begun. There may be thousands, so one line reports
/// them all.
#[derive(Debug, Default)]
pub(super) struct Missed {
    claimed: usize,
    gone: usize,
    /// How many were not begun, since `serve` is shutting down.
    pub(super) late: usize,
}

impl Missed {
    /// Starts a count for a selection; `None` for messages named one by one, which are reported individually.
    pub(super) fn of(which: &Selection) -> Option<Self> {
        match which {
            Selection::Ids(_) => None,
            Selection::Account(_) | Selection::All => Some(Self::default()),
        }
    }

    /// Counts `failure` and returns true, if it is of a kind that is counted.
    pub(super) fn counts(&mut self, failure: &SpoolError) -> bool {
        match failure {
            SpoolError::Claimed(_) => self.claimed += 1,
            SpoolError::Unknown(_) => self.gone += 1,
            SpoolError::Unreadable { .. } | SpoolError::Io(_) => return false,
        }
        true
    }

    /// Returns the line about them; `None` if there are none.
    pub(super) fn sentence(&self) -> Option<String> {
        let messages = |count| match count {
            1 => "1 message is".to_owned(),
            more => format!("{more} messages are"),
        };
        let causes = [
            (self.claimed, "in other hands just now, `serve`'s or another command's; try again in a moment"),
            (self.gone, "gone: another command took care of that"),
            (self.late, "left alone, since `serve` is shutting down; try again once it runs"),
        ];
        let said = causes.iter().filter(|(count, _)| *count > 0);
        let said: Vec<_> = said.map(|(count, why)| format!("{} {why}", messages(*count))).collect();
        (!said.is_empty()).then(|| said.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::id::QuarantineId;

    #[test]
    fn one_line_speaks_for_what_others_have_in_hand() {
        let id = QuarantineId::new(Timestamp::from_millis(1));
        for (claimed, gone, expected) in [
            (0, 0, None),
            (
                1,
                0,
                Some(
                    "1 message is in other hands just now, `serve`'s or another command's; try again in a moment",
                ),
            ),
            (
                2000,
                3,
                Some(
                    "2000 messages are in other hands just now, `serve`'s or another command's; try again in a moment; \
                     3 messages are gone: another command took care of that",
                ),
            ),
            (0, 2, Some("2 messages are gone: another command took care of that")),
        ] {
            let mut missed = Missed::of(&Selection::All).unwrap();
            for failure in [SpoolError::Claimed(id)].iter().cycle().take(claimed) {
                assert!(missed.counts(failure));
            }
            for failure in [SpoolError::Unknown(String::new())].iter().cycle().take(gone) {
                assert!(missed.counts(failure));
            }
            assert!(!missed.counts(&SpoolError::Io("no room".to_owned())));
            assert_eq!(missed.sentence().as_deref(), expected);
        }
        let late = Missed { late: 1, ..Missed::default() };
        assert!(late.sentence().unwrap().starts_with("1 message is left alone"), "{late:?}");
        assert!(Missed::of(&Selection::Ids(Vec::new())).is_none());
    }
}
