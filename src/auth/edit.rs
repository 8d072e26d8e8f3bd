//! Edits the users file: one line changes, everything else stays as it is, octet for octet.
//!
//! Comments, blank lines, order, further fields and line endings are kept, as are owner and mode of the file and the
//! target of a symbolic link. A file that cannot be read completely is not edited. Concurrent edits wait for each
//! other, by a lock on the folder. Calls block and are deliberately slow (they derive a key).

use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use zeroize::Zeroizing;

use super::UsersError;
use super::check::MAX_PASSWORD;
use super::sasl::prepared;
use super::users::{self, Entry, Users};
use super::verifier::Verifier;
use crate::account::Account;
use crate::durable::{DurableError, Folder};
use crate::visible::shell_word;

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// Such a line could not be read back.
    #[error("`{0}` cannot be a name in the users file: {1}")]
    Name(String, String),
    /// No mail program could log in with it, or everybody could.
    #[error("the password {0}")]
    Password(&'static str),
    /// No login checks one that is longer.
    #[error("the password has more than {MAX_PASSWORD} octets")]
    LongPassword,
    /// `add` of a name that exists, perhaps in another case.
    #[error("`{0}` is there already; `gatepost user passwd {word}` changes the password", word = shell_word(.0))]
    Exists(String),
    /// `passwd` or `remove` of a name that does not exist.
    #[error("there is no user `{}`; `gatepost user list` shows all", .0.escape_debug())]
    Unknown(String),
    /// The file cannot be used as it is.
    #[error(transparent)]
    Users(#[from] UsersError),
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] DurableError),
    /// Its replacement would not belong to whom it belongs to.
    #[error("{}: {cause}; do this as root, or give the file to a user and a group that you are (`chown`)", path.display())]
    Owner {
        /// The users file.
        path: PathBuf,
        /// What cannot be kept.
        cause: DurableError,
    },
    /// The system provides no random octets.
    #[error("no random octets for a salt: {0}")]
    Random(#[from] getrandom::Error),
}

/// The result of an edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// The user whose line changed, as the file spells the name.
    pub name: String,
    /// How many users there are now.
    pub users: usize,
}

/// Adds a user at the end. Creates a missing file (mode 0600, with its version in a comment).
///
/// # Errors
/// See [`EditError`]; nothing was changed.
pub fn add(path: &Path, name: &str, password: &str) -> Result<Edited, EditError> {
    check_name(name)?;
    let hash = hash(password)?;
    edit(path, Missing::IsEmpty, |text, users| {
        if let Some(user) = users.get(name) {
            return Err(EditError::Exists(user.name().to_owned()));
        }
        let end = line_ending(text);
        let version = if text.is_empty() { format!("{}\n", users::version_line()) } else { String::new() };
        let is_other = |line: &&str| line.trim_end() != users::EMPTIED;
        let text: String = text.split_inclusive('\n').filter(is_other).collect();
        Ok((name.to_owned(), format!("{version}{text}{}{name}:{hash}{end}", gap(&text, end))))
    })
}

/// Sets a user's password.
///
/// # Errors
/// See [`EditError`]; nothing was changed.
pub fn passwd(path: &Path, name: &str, password: &str) -> Result<Edited, EditError> {
    let hash = hash(password)?;
    edit(path, Missing::Fails, |text, users| {
        let (name, entry) = find(text, users, name)?;
        Ok((name, format!("{}{hash}{}", &text[..entry.hash.start], &text[entry.hash.end..])))
    })
}

/// Removes a user's line. Where it was the last one, a comment takes its place: `serve` refuses a file that is empty by accident.
///
/// # Errors
/// See [`EditError`]; nothing was changed.
pub fn remove(path: &Path, name: &str) -> Result<Edited, EditError> {
    edit(path, Missing::Fails, |text, users| {
        let (name, entry) = find(text, users, name)?;
        let left = format!("{}{}", &text[..entry.whole.start], &text[entry.whole.end..]);
        let end = line_ending(text);
        let emptied = match users.len() {
            1 => format!("{}{}{end}", gap(&left, end), users::EMPTIED),
            _ => String::new(),
        };
        Ok((name, left + &emptied))
    })
}

/// The line ending of a file.
fn line_ending(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}

/// What is missing in front of a further line.
fn gap<'a>(text: &str, end: &'a str) -> &'a str {
    if text.is_empty() || text.ends_with('\n') { "" } else { end }
}

/// How a missing file is treated.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    IsEmpty,
    Fails,
}

/// Replaces the text of the file; `change` returns the user's name and the new text.
fn edit(
    path: &Path,
    missing: Missing,
    change: impl FnOnce(&str, &Users) -> Result<(String, String), EditError>,
) -> Result<Edited, EditError> {
    let path = resolve(path)?;
    let io = |cause| UsersError::io(&path, cause);
    let wrong = |problem| UsersError::line(&path, problem);
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Held until the end of this function. The file itself cannot be locked, since it is replaced.
    let lock = File::open(parent).map_err(|cause| UsersError::io(parent, cause))?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|cause| UsersError::io(parent, cause.into()))?;

    let (content, metadata) = match read(&path) {
        Ok((content, metadata)) => (content, Some(metadata)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound && missing == Missing::IsEmpty => {
            (Vec::new(), None)
        }
        Err(cause) => return Err(io(cause).into()),
    };
    let text = users::text(&content).map_err(wrong)?;
    let users = Users::parse(&content).map_err(wrong)?;
    let (name, text) = change(text, &users)?;
    // Ensures that what is written can be read back.
    let users = Users::parse(text.as_bytes()).map_err(wrong)?.len();

    let folder = Arc::new(Folder::open(parent)?);
    let mut file = folder.temporary()?;
    if let Some(metadata) = metadata {
        file.take_after(&metadata).map_err(|cause| EditError::Owner { path: path.clone(), cause })?;
    }
    file.write(text.as_bytes())?;
    file.commit(path.file_name().unwrap_or_default())?;
    Ok(Edited { name, users })
}

fn read(path: &Path) -> io::Result<(Vec<u8>, Metadata)> {
    let mut file = File::open(path)?;
    let mut content = Vec::new();
    io::Read::read_to_end(&mut file, &mut content)?;
    Ok((content, file.metadata()?))
}

/// Returns where the file itself is or will be: a symbolic link is followed, not replaced.
fn resolve(path: &Path) -> Result<PathBuf, UsersError> {
    match path.canonicalize() {
        Ok(path) => Ok(path),
        // A dangling link is an error; it is not replaced by a file.
        Err(cause) if cause.kind() == io::ErrorKind::NotFound && !path.is_symlink() => Ok(path.to_path_buf()),
        Err(cause) => Err(UsersError::io(path, cause)),
    }
}

fn find(text: &str, users: &Users, name: &str) -> Result<(String, Entry), EditError> {
    let unknown = || EditError::Unknown(name.to_owned());
    let user = users.get(name).ok_or_else(unknown)?;
    let mut entries = users::entries(text).flatten();
    let entry = entries.find(|entry| text[entry.name.clone()] == *user.name()).ok_or_else(unknown)?;
    Ok((user.name().to_owned(), entry))
}

/// Checks whether a user may have this name.
///
/// # Errors
/// It may not stand in the file; says why.
pub fn check_name(name: &str) -> Result<(), EditError> {
    let wrong = |why: &str| EditError::Name(name.escape_debug().to_string(), why.to_owned());
    Account::user(name).map_err(|cause| wrong(&cause.to_string()))?;
    if name.contains(':') {
        return Err(wrong("a `:` ends the name"));
    }
    if name.starts_with(['#', '\u{feff}']) {
        return Err(wrong("a `#` begins a comment"));
    }
    Ok(())
}

/// Hashes a password; prepared if possible, as mail programs do for PLAIN and SCRAM (RFC 4013).
fn hash(password: &str) -> Result<String, EditError> {
    if password.is_empty() {
        return Err(EditError::Password("is empty"));
    }
    if password.len() > MAX_PASSWORD {
        return Err(EditError::LongPassword);
    }
    if password.chars().any(char::is_control) {
        return Err(EditError::Password("holds a control character, which mail programs cannot send"));
    }
    let prepared = prepared(password).unwrap_or_else(|| Zeroizing::new(password.to_owned()));
    Ok(format!("{{SCRAM-SHA-256}}{}", Verifier::new(prepared.as_bytes())?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    const CRYPT: &str = "$5$rounds=1000$8g3bLFkL5Aut2SOi$GLcj/dD3LUBe6HsKOb/.Md/0lurit91j96ihy0vhx/2";

    /// The content with each new verifier replaced by `NEW`.
    fn content(path: &Path) -> String {
        let text = std::fs::read_to_string(path).unwrap();
        text.split_inclusive([':', '\n', ' ', '\r'])
            .map(|part| {
                let (part, end) = part.split_at(part.trim_end_matches([':', '\n', ' ', '\r']).len());
                let new =
                    part.strip_prefix("{SCRAM-SHA-256}100000,").is_some_and(|verifier| verifier.len() == 114);
                format!("{}{end}", if new { "NEW" } else { part })
            })
            .collect()
    }

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn one_line_changes() {
        type Edit = fn(&Path) -> Result<Edited, EditError>;
        let add: Edit = |path| add(path, "bob", "secret");
        let passwd: Edit = |path| passwd(path, "ANNA", "secret");
        let remove: Edit = |path| remove(path, "anna");
        for (before, edit, after, users) in [
            ("", add, "# gatepost users 1\nbob:NEW\n", 1),
            ("# gatepost users 1\n", add, "# gatepost users 1\nbob:NEW\n", 1),
            ("# us\n\nanna:HASH\n", add, "# us\n\nanna:HASH\nbob:NEW\n", 2),
            ("anna:HASH", add, "anna:HASH\nbob:NEW\n", 2),
            ("anna:HASH\r\n", add, "anna:HASH\r\nbob:NEW\r\n", 2),
            ("# us\nanna:HASH:1:2:Anna #1::\n#end", passwd, "# us\nanna:NEW:1:2:Anna #1::\n#end", 1),
            ("\u{feff}anna: HASH # x:y\r\nz:!\r\n", passwd, "\u{feff}anna: NEW # x:y\r\nz:!\r\n", 2),
            // A line without a hash.
            ("anna:\nz:\n", passwd, "anna:NEW\nz:\n", 2),
            ("anna::1000\n", passwd, "anna:NEW:1000\n", 1),
            ("anna: # later\n", passwd, "anna:NEW # later\n", 1),
            ("anna:#later\n", passwd, "anna:NEW\n", 1),
            ("z:!\nanna::1\n", remove, "z:!\n", 1),
            ("z:\n", add, "z:\nbob:NEW\n", 2),
            ("z:!\nanna:HASH:1\n# end\n", remove, "z:!\n# end\n", 1),
            ("z:!\nanna:HASH", remove, "z:!\n", 1),
            ("anna:HASH\n", remove, "# gatepost: no users, the last one was removed\n", 0),
            ("# us\r\nanna:HASH", remove, "# us\r\n# gatepost: no users, the last one was removed\r\n", 0),
            ("anna:HASH\n# end", remove, "# end\n# gatepost: no users, the last one was removed\n", 0),
            ("# gatepost: no users, the last one was removed", add, "bob:NEW\n", 1),
            ("# us\r\n# gatepost: no users, the last one was removed\r\n", add, "# us\r\nbob:NEW\r\n", 1),
        ] {
            let (_folder, path) = file(&before.replace("HASH", CRYPT));
            let edited = edit(&path).unwrap();
            assert_eq!(content(&path), after.replace("HASH", CRYPT), "{before}");
            assert_eq!(edited.users, users, "{before}");
        }
    }

    #[test]
    fn what_was_written_verifies() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        // A ligature can be prepared; an emoji cannot.
        for (name, password, verifies) in
            [("a", "pass word", "pass word"), ("b", "\u{fb01}sh", "fish"), ("c", "🔑", "🔑")]
        {
            add(&path, name, password).unwrap();
            let users = Users::read(&path).unwrap();
            let hash = users.get(name).unwrap().hash().unwrap();
            assert!(hash.matches(verifies.as_bytes()), "{name}");
        }
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_refused_changes_nothing() {
        let text = format!("Anna:{CRYPT}\nb$b:{CRYPT}\n");
        let (folder, path) = file(&text);
        let long = "x".repeat(MAX_PASSWORD + 1);
        for (result, part) in [
            (add(&path, "anna", "x"), "`Anna` is there already"),
            (add(&path, "b$b", "x"), "`gatepost user passwd 'b$b'`"),
            (add(&path, "bob", ""), "is empty"),
            (add(&path, "bob", &long), "1024"),
            (add(&path, "bob", "a\n"), "control character"),
            (add(&path, "", "x"), "not empty"),
            (add(&path, "b b", "x"), "blanks"),
            (add(&path, "b:b", "x"), "`:`"),
            (add(&path, "#b", "x"), "`#`"),
            (passwd(&path, "bob", "x"), "no user `bob`"),
            (remove(&path, "bob"), "no user `bob`"),
            (passwd(&folder.path().join("missing"), "bob", "x"), "missing: No such file"),
            (remove(&folder.path().join("missing"), "bob"), "missing: No such file"),
            (add(&folder.path().join("no/folder"), "bob", "x"), "no: No such file"),
        ] {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        std::fs::write(&path, "anna\n").unwrap();
        let error = add(&path, "bob", "x").unwrap_err().to_string();
        assert!(error.contains("users:1: no `:`"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "something is left over");
    }

    #[test]
    fn owner_mode_and_link_stay() {
        let (folder, path) = file(&format!("anna:{CRYPT}\n"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        // Only root can tell whether owner and group are kept.
        let root = std::os::unix::fs::chown(&path, Some(1234), Some(4321)).is_ok();
        let link = folder.path().join("link");
        symlink("users", &link).unwrap();
        passwd(&link, "anna", "secret").unwrap();
        assert!(link.is_symlink());
        let after = std::fs::metadata(&path).unwrap();
        assert_eq!(after.mode() & 0o7777, 0o640);
        if root {
            assert_eq!((after.uid(), after.gid()), (1234, 4321));
        }
        let dangling = folder.path().join("dangling");
        symlink("nowhere", &dangling).unwrap();
        assert!(add(&dangling, "bob", "x").is_err() && dangling.is_symlink());
    }

    #[test]
    fn edits_at_the_same_time_wait_for_each_other() {
        let (_folder, path) = file("");
        std::thread::scope(|scope| {
            for index in 0..8 {
                let path = &path;
                scope.spawn(move || add(path, &format!("user{index}"), "secret").unwrap());
            }
        });
        assert_eq!(Users::read(&path).unwrap().len(), 8);
    }
}
