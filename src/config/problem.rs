//! What is wrong with a configuration file and how to mend it, all at once.
//!
//! A problem names file, line, table and key. Near misses get a "did you mean".

use std::fmt;
use std::path::{Path, PathBuf};

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// From 1; `None` if the problem is not about a line (the file cannot be read).
    pub line: Option<usize>,
    /// Table, key and, if there is one, the value as written: `[limit] period = "1 hour"`.
    pub subject: String,
    /// What would be right.
    pub remedy: String,
}

/// All problems of one file, by line. Displayed as one line per problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    /// The file.
    pub file: PathBuf,
    /// At least one.
    pub list: Vec<Problem>,
}

impl Problems {
    /// A single problem with the file as a whole.
    pub(super) fn of_file(file: &Path, line: Option<usize>, remedy: String) -> Self {
        Self { file: file.to_owned(), list: vec![Problem { line, subject: String::new(), remedy }] }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}", self.file.display())?;
            if let Some(line) = problem.line {
                write!(f, ":{line}")?;
            }
            if !problem.subject.is_empty() {
                write!(f, ": {}", problem.subject)?;
            }
            write!(f, ": {}", problem.remedy)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The known name that `written` was probably meant to be.
pub(super) fn near<'k>(written: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let written = plain(written);
    known
        .into_iter()
        .map(|candidate| (distance(&written, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).min(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The Levenshtein distance: how many insertions, deletions and substitutions turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (to, above) in b.iter().zip(row.iter_mut().skip(1)) {
            let best = (left + 1).min(*above + 1).min(diagonal + usize::from(from != *to));
            diagonal = std::mem::replace(above, best);
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses() {
        let known = ["max_size", "max_size_per_account", "expire_after", "to"];
        for (written, expected) in [
            ("max-size", Some("max_size")),
            ("maxsize", Some("max_size")),
            ("Expire_After", Some("expire_after")),
            ("expires_after", Some("expire_after")),
            ("max_size_per_acount", Some("max_size_per_account")),
            // Two letters are too few to guess from.
            ("from", None),
            ("ta", None),
            ("colour", None),
        ] {
            assert_eq!(near(written, known), expected, "{written}");
        }
    }

    #[test]
    fn distances() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("period", "perod", 1),
            ("größe", "grosse", 3),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
