//! The files that a configuration names: where each of them is named, for the one who cannot open it.
//!
//! What keeps a file from being used is found out by whoever opens it; its error begins with the path, and gets the place in
//! the configuration put before it here. Pure.

use std::path::{Path, PathBuf};

/// A file, and the key that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedFile {
    /// As it is opened.
    pub(super) path: PathBuf,
    /// Where the key is written; `None`: the default.
    pub(super) line: Option<usize>,
    /// Table, key and, where it is written, the value.
    pub(super) subject: String,
}

/// All of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamedFiles {
    /// The configuration file.
    pub(super) file: PathBuf,
    pub(super) list: Vec<NamedFile>,
}

impl NamedFiles {
    /// Why a file cannot be used, in the form of every problem of a configuration: `FILE:LINE: [table] key = "...": ` and
    /// `error`, which begins with the path. What begins with no such path stays as it is.
    pub fn located(&self, error: &impl ToString) -> String {
        let error = error.to_string();
        let found = self.list.iter().filter(|named| begins(&error, &named.path));
        let Some(named) = found.max_by_key(|named| named.path.as_os_str().len()) else { return error };
        let (file, subject) = (self.file.display(), &named.subject);
        match named.line {
            Some(line) => format!("{file}:{line}: {subject}: {error}"),
            None => format!("{file}: {subject} (not written there, this is its default): {error}"),
        }
    }
}

/// Whether a text begins with a path: all of it, not just that of a folder above.
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
                "/etc/config.toml: [auth] users (not written there, this is its default): /etc/users:7: no `:`",
            ),
            ("/etc/ab: gone", "/etc/ab: gone"),
            ("the disk is full", "the disk is full"),
        ] {
            assert_eq!(files.located(&error), expected);
        }
    }
}
