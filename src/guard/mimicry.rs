//! The 250 of a parked message looks like the upstream's own (CONTRACT, SMTP: a block does not show).
//!
//! Keeps what the upstream last said at the three places where a blocked account is answered unasked, and makes a new
//! reply of it: the address exchanged, every word that is a queue id replaced by a random one of the same shape.

use serde::{Deserialize, Serialize};

use crate::smtp::Reply;

/// Where a reply stands in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// To MAIL.
    Mail,
    /// To RCPT.
    Rcpt,
    /// To the end of data.
    EndOfData,
}

/// A 250 that the upstream gave, and the address that it was about (the null reverse-path and end of data: `""`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Precedent {
    /// What it said.
    pub reply: Reply,
    /// The address that MAIL or RCPT had named, without brackets.
    pub address: String,
}

/// The last 250 at each place, to whomever it was given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Precedents {
    /// To MAIL.
    pub mail: Option<Precedent>,
    /// To RCPT.
    pub rcpt: Option<Precedent>,
    /// To the end of data.
    pub end_of_data: Option<Precedent>,
}

/// A reply made after a precedent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imitation {
    /// What the client is told.
    pub reply: Reply,
    /// The made-up queue id in it (the first word that was exchanged), for the envelope and the log.
    pub queue_id: Option<String>,
}

/// Random numbers for shapes; seeded by the caller, so that this file stays pure.
#[derive(Debug)]
pub struct Shuffle {
    state: u64,
}

impl Shuffle {
    /// From a seed of the operating system's randomness.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }
}

impl Precedents {
    /// The 250 for `address` at `place`.
    pub fn imitate(&self, _place: Place, _address: &str, _shuffle: &mut Shuffle) -> Imitation {
        todo!()
    }

    /// Takes note of a reply; `true` where it changed anything but the words that [`Self::imitate`] exchanges anyway.
    /// Replies other than 250 are not precedents.
    pub fn learn(&mut self, _place: Place, _address: &str, _reply: &Reply) -> bool {
        todo!()
    }
}
