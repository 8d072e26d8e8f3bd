//! The files that a configuration names and where it names them, for errors about files that cannot be used.
//!
//! The code that opens a file finds out what is wrong with it; its error begins with the path, and the place in the
//! configuration is put in front of it here. Pure.

use std::path::{Path, PathBuf};

/// A file and the key that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedFile {
    /// The path with which it is opened.
    pub(super) path: PathBuf,
    /// The line of the key; `None`: the default holds.
    pub(super) line: Option<usize>,
    /// Table, key and, where written, the value.
    pub(super) subject: String,
}

/// All files that a configuration names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamedFiles {
    /// The configuration file.
    pub(super) file: PathBuf,
    pub(super) list: Vec<NamedFile>,
}

impl NamedFiles {
    /// Puts the place in the configuration in front of an error that begins with the path of a named file: `FILE:LINE:
    /// [table] key = "...": `, the form of all problems of a configuration. If several keys name that file, all of them
    /// are listed, since it is unknown which is meant. Any other error is returned unchanged.
    pub fn located(&self, error: &impl ToString) -> String {
        let error = error.to_string();
        let length = |named: &NamedFile| named.path.as_os_str().len();
        let mut found: Vec<_> = self.list.iter().filter(|named| begins(&error, &named.path)).collect();
        let longest = found.iter().map(|named| length(named)).max();
        found.retain(|named| Some(length(named)) == longest);
        let Some(first) = found.first() else { return error };
        let file = self.file.display();
        let place = first.line.map_or_else(|| file.to_string(), |line| format!("{file}:{line}"));
        let subjects = found.iter().map(|named| match named.line {
            Some(_) => named.subject.clone(),
            None => format!("{} (not set there; this is the default)", named.subject),
        });
        format!("{place}: {}: {error}", subjects.collect::<Vec<_>>().join(" and "))
    }
}

/// Whether a text begins with exactly this path, not with a longer one.
fn begins(text: &str, path: &Path) -> bool {
    let rest = text.strip_prefix(&path.display().to_string());
    rest.is_some_and(|rest| rest.starts_with([':', ' ']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_gets_its_place() {
        let named = |path: &str, line, subject: &str| NamedFile {
            path: path.into(),
            line,
            subject: subject.to_owned(),
        };
        let files = NamedFiles {
            file: "/etc/config.toml".into(),
            list: vec![
                named("/etc/users", None, "[auth] users"),
                named("/etc/a", Some(3), "[tls] certificate = \"a\""),
                named("/etc/a b", Some(4), "[tls] private_key = \"a b\""),
                named("/etc/both", Some(6), "[[certificate]] certificate = \"both\""),
                named("/etc/both", Some(7), "[[certificate]] private_key = \"both\""),
            ],
        };
        for (error, expected) in [
            ("/etc/a: gone", "/etc/config.toml:3: [tls] certificate = \"a\": /etc/a: gone"),
            ("/etc/a b: gone", "/etc/config.toml:4: [tls] private_key = \"a b\": /etc/a b: gone"),
            (
                "/etc/a and /etc/x differ",
                "/etc/config.toml:3: [tls] certificate = \"a\": /etc/a and /etc/x differ",
            ),
            (
                "/etc/users:7: no `:`",
                "/etc/config.toml: [auth] users (not set there; this is the default): /etc/users:7: no `:`",
            ),
            (
                "/etc/both: no key in it",
                "/etc/config.toml:6: [[certificate]] certificate = \"both\" and [[certificate]] private_key = \"both\": \
                 /etc/both: no key in it",
            ),
            ("/etc/ab: gone", "/etc/ab: gone"),
            ("the disk is full", "the disk is full"),
        ] {
            assert_eq!(files.located(&error), expected);
        }
    }
}
