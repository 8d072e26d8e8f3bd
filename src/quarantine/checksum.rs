//! The checksum that tells whether a message is what arrived: SHA-256, in the envelope in hexadecimal.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::id::QuarantineId;

/// The checksum of what has passed so far. Shown in hexadecimal.
#[derive(Debug, Clone, Default)]
pub struct Checksum(Sha256);

impl Checksum {
    /// That of `octets`.
    pub fn of(octets: &[u8]) -> Self {
        let mut checksum = Self::default();
        checksum.update(octets);
        checksum
    }

    /// Takes the next octets.
    pub fn update(&mut self, octets: &[u8]) {
        self.0.update(octets);
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.clone().finalize().iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

/// Says that a message was altered since it arrived, by the disk or by somebody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("message {id} is not what arrived: its SHA-256 is {now}, and was {then}; see the disk")]
pub struct Altered {
    id: QuarantineId,
    now: String,
    then: String,
}

impl Altered {
    /// Compares the checksum of what is there now with that of what arrived.
    ///
    /// # Errors
    /// They differ.
    pub fn check(id: QuarantineId, now: &Checksum, then: &str) -> Result<(), Self> {
        let now = now.to_string();
        if now == then { Ok(()) } else { Err(Self { id, now, then: then.to_owned() }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_sha256sum_says_it() {
        let mut checksum = Checksum::of(b"a");
        checksum.update(b"bc");
        // FIPS 180-4, the first example.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(checksum.to_string(), abc);
        let id: QuarantineId = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
        assert_eq!(Altered::check(id, &checksum, abc), Ok(()));
        let told = Altered::check(id, &Checksum::default(), abc).unwrap_err().to_string();
        assert!(
            told.contains(&id.to_string()) && told.contains("is e3b0c442") && told.contains("was ba7816bf"),
            "{told}"
        );
    }
}
