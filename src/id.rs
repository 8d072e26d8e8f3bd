//! Session ids and quarantine ids: ULIDs, so that they sort by creation time and fit in file names.
//!
//! 26 characters of Crockford's base 32. Parsing is strict, since an operator's id becomes part of a path. The time is
//! an argument; the random part comes from the operating system.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use ulid::Ulid;

use crate::clock::Timestamp;

/// The text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an id has 26 characters of 0-9 and A-Z (without I, L, O, U)")]
pub struct NotAnId;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Ulid);

        impl $name {
            /// Creates an id with the time `now`.
            pub fn new(now: Timestamp) -> Self {
                Self(Ulid::from_parts(now.as_millis(), random()))
            }

            /// When it was created.
            pub fn born(&self) -> Timestamp {
                Timestamp::from_millis(self.0.timestamp_ms())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                let id = Ulid::from_string(text).map_err(|_| NotAnId)?;
                // Each id has one spelling; any other is not ours.
                if id.to_string() == text { Ok(Self(id)) } else { Err(NotAnId) }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id! {
    /// Identifies a client connection; every log line of the session has it.
    SessionId
}
id! {
    /// Identifies a parked message; the name of its files.
    QuarantineId
}
id! {
    /// Identifies a mail of our own in the outbox; the name of its file.
    OutboxId
}

id! {
    /// Identifies an audit line that waits for the next start; the name of its file.
    AuditId
}

impl OutboxId {
    /// Creates an id with the time `now`; if it would not be greater than `last`, the next one after that.
    pub fn after(last: Option<Self>, now: Timestamp) -> Self {
        let id = Self::new(now);
        let next = last.filter(|last| id <= *last).and_then(|last| last.0.0.checked_add(1));
        next.map_or(id, |next| Self(Ulid(next)))
    }
}

impl QuarantineId {
    /// The last in the order of ids; no message has it.
    pub(crate) const LAST: Self = Self(Ulid(u128::MAX));
}

/// 128 random bits, or zeros if the operating system has none: ids then differ by time alone, and code that creates a
/// file named by an id refuses to overwrite one.
fn random() -> u128 {
    let mut octets = [0; 16];
    let _ = getrandom::fill(&mut octets);
    u128::from_le_bytes(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_birth_and_survive_the_trip() {
        let early = QuarantineId::new(Timestamp::from_millis(1_000));
        let late = QuarantineId::new(Timestamp::from_millis(2_000));
        assert!(early < late && early.to_string() < late.to_string());
        assert_eq!(late.to_string().parse(), Ok(late));
        assert_eq!(late.born(), Timestamp::from_millis(2_000));
    }

    #[test]
    fn one_after_the_other() {
        let at = |millis| Timestamp::from_millis(millis);
        let mut last = OutboxId::after(None, at(1_000));
        for millis in [1_000, 1_000, 999, 0] {
            let next = OutboxId::after(Some(last), at(millis));
            assert!(next > last && next.born() <= at(1_001), "{last} {next}");
            last = next;
        }
        assert_eq!(OutboxId::after(Some(last), at(2_000)).born(), at(2_000));
        let end = OutboxId(Ulid(u128::MAX));
        assert_eq!(OutboxId::after(Some(end), at(1)).born(), at(1), "there is none after it");
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        let lower = QuarantineId::new(Timestamp::from_millis(1_795_536_328_123)).to_string().to_lowercase();
        for text in
            ["", "../../etc/passwd", "01ARZ3NDEKTSV4RRFFQ69G5FA", "01ARZ3NDEKTSV4RRFFQ69G5FAVX", &lower]
        {
            assert_eq!(text.parse::<QuarantineId>(), Err(NotAnId), "{text}");
        }
    }
}
