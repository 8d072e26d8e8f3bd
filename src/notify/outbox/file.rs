//! One mail of the outbox as a file: a line of JSON with its state, then the mail.
//!
//! Reading is strict: a newer version or an unknown key is an error with an explanation; nothing is dropped silently.
//! Writing is done by `durable`.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use memchr::memchr;
use serde::{Deserialize, Serialize};

use super::Kind;
use crate::clock::Timestamp;
use crate::id::OutboxId;

/// The version that this Gatepost writes, and the newest that it reads.
pub(super) const VERSION: u32 = 1;

/// The ending of a mail's file name.
const ENDING: &str = ".mail";

/// The first line of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Meta {
    /// See [`VERSION`].
    pub(super) version: u32,
    pub(super) kind: Kind,
    /// The reverse-path; `null` for the null reverse-path.
    pub(super) from: Option<String>,
    /// The forward-path.
    pub(super) to: String,
    pub(super) created: Timestamp,
    /// The number of tries so far.
    pub(super) tries: u32,
    /// The number of tries since the start that met nobody; they come more often.
    #[serde(skip)]
    pub(super) unreached: u32,
    /// When the next try is due; `null` once the mail was given up: permanently refused, or after five days.
    pub(super) next: Option<Timestamp>,
    /// The upstream's reply to the last try.
    pub(super) last: Option<String>,
    /// Whether MAIL has REQUIRETLS; omitted if not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) require_tls: bool,
}

/// The file name of a mail.
pub(super) fn name(id: OutboxId) -> String {
    format!("{id}{ENDING}")
}

/// The mail that a file of this name is for, if any.
pub(super) fn id(name: &OsStr) -> Option<OutboxId> {
    name.to_str()?.strip_suffix(ENDING)?.parse().ok()
}

/// The content of the file.
pub(super) fn content(meta: &Meta, message: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let mut content = serde_json::to_vec(meta)?;
    content.push(b'\n');
    content.extend_from_slice(message);
    Ok(content)
}

/// Reads a file; the error is for people.
pub(super) fn read(path: &Path) -> Result<(OutboxId, Meta, Vec<u8>), String> {
    let id = path.file_name().and_then(id).ok_or_else(|| format!("its name is not ID{ENDING}"))?;
    let mut content = fs::read(path).map_err(|error| format!("it cannot be read: {error}"))?;
    let line = memchr(b'\n', &content).ok_or("its first line has no end")?;
    let message = content.split_off(line + 1);
    let meta = parse(content.get(..line).unwrap_or_default())?;
    Ok((id, meta, message))
}

fn parse(line: &[u8]) -> Result<Meta, String> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let wrong = |error: serde_json::Error| format!("its first line: {error}");
    let Versioned { version } = serde_json::from_slice(line).map_err(wrong)?;
    if version > VERSION {
        return Err(format!(
            "it has version {version}; this Gatepost knows up to {VERSION}. Use a newer Gatepost"
        ));
    }
    serde_json::from_slice(line).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> Meta {
        Meta {
            version: VERSION,
            kind: Kind::Dsn,
            from: None,
            to: "anna@example.org".into(),
            created: Timestamp::from_millis(1_795_536_328_123),
            tries: 2,
            unreached: 0,
            next: Some(Timestamp::from_millis(1_795_536_628_123)),
            last: Some("451 \"later\"\n".into()),
            require_tls: true,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let id = OutboxId::new(meta().created);
        let path = folder.path().join(name(id));
        let message = b"A: b\r\n\r\n{\"version\":9}\n\xff".to_vec();
        fs::write(&path, content(&meta(), &message).unwrap()).unwrap();
        assert_eq!(read(&path), Ok((id, meta(), message)));
    }

    #[test]
    fn what_is_no_mail_is_refused_with_a_sentence() {
        let good = String::from_utf8(content(&meta(), b"").unwrap()).unwrap();
        let id = name(OutboxId::new(meta().created));
        let folder = tempfile::tempdir().unwrap();
        for (name, content, expected) in [
            ("notes.txt", good.clone(), "its name is not ID.mail"),
            (&id, String::new(), "no end"),
            (&id, good.trim_end().to_owned(), "no end"),
            (&id, good.replacen(":1,", ":2,", 1), "version 2; this Gatepost knows up to 1"),
            (&id, good.replacen("\"to\"", "\"too\"", 1), "`too`"),
            (&id, "{}\n".to_owned(), "version"),
            (&id, "\0\n".to_owned(), "its first line"),
        ] {
            let path = folder.path().join(name);
            fs::write(&path, content).unwrap();
            let error = read(&path).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert!(read(&folder.path().join(name(OutboxId::new(Timestamp::default())))).is_err());
    }
}
