//! The password with which we authenticate to another server, read from a file.
//!
//! It is wiped from memory when dropped, and never shown.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::visible::unreadable;

/// The name with which we authenticate, and the file that holds the password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The SASL authentication identity.
    pub username: String,
    /// The file whose first line is the password.
    pub password_file: PathBuf,
}

/// Why there is no password; names the file and the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PasswordError(String);

/// Reads the first line of the file, without its line ending.
///
/// # Errors
/// The file cannot be read, is not UTF-8, begins with an empty line, or holds a NUL, which SASL cannot express (RFC
/// 4616 2).
pub fn read(path: &Path) -> Result<Zeroizing<String>, PasswordError> {
    let wrong = |why: &dyn std::fmt::Display| PasswordError(format!("{}: {why}", path.display()));
    let octets = std::fs::read(path).map_err(|cause| PasswordError(unreadable(path, &cause)))?;
    let octets = Zeroizing::new(octets);
    let text = str::from_utf8(&octets).map_err(|_| wrong(&"the password should be UTF-8"))?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(wrong(&"no password in it; it should stand in the first line"));
    }
    if line.contains('\0') {
        return Err(wrong(&"there is a NUL in the password"));
    }
    Ok(Zeroizing::new(line.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        for (content, expected) in [
            (&b"secret"[..], Ok("secret")),
            (b"secret\n", Ok("secret")),
            (b"secret\r\nmore\n", Ok("secret")),
            (b" two words \n", Ok(" two words ")),
            ("pa\u{df}wort\n".as_bytes(), Ok("pa\u{df}wort")),
            (b"", Err("no password in it")),
            (b"\nsecret\n", Err("no password in it")),
            (b"\xff\n", Err("UTF-8")),
            (b"a\0b\n", Err("NUL")),
        ] {
            std::fs::write(&path, content).unwrap();
            match (read(&path), expected) {
                (Ok(password), Ok(expected)) => assert_eq!(*password, expected),
                (Err(error), Err(part)) => {
                    let text = error.to_string();
                    assert!(text.contains(part) && text.contains("password: "), "{text}");
                }
                (found, expected) => panic!("{expected:?}: {}", found.is_ok()),
            }
        }
        assert!(read(&folder.path().join("none")).unwrap_err().to_string().contains("none: No such file"));
    }
}
