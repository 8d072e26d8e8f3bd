//! An account's history in plain facts: recipients asked for in vain, messages that went out, the block.
//!
//! The ledger keeps them, envelopes and notices repeat them. How [`Block`] and [`BlockedBy`] are written is part of formats:
//! envelopes and the control API (JSON), and the ledger's rows (postcard, which numbers the variants).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// Who or what blocked an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlockedBy {
    /// The limit.
    Limit,
    /// An operator, by hand.
    Operator,
    /// The sequential test.
    Detection,
}

/// A block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// Since when; identifies it.
    pub at: Timestamp,
    /// By what.
    pub by: BlockedBy,
    /// What the operator said, or why Gatepost blocked.
    pub reason: Option<String>,
}

/// An attempt to reach a recipient that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// When.
    pub at: Timestamp,
    /// The address as the client wrote it.
    pub address: String,
    /// The client's address.
    pub client: IpAddr,
}

/// A message that the upstream took, so that the postmaster can find it in its queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relayed {
    /// When.
    pub at: Timestamp,
    /// The upstream's final reply, with its queue id.
    pub reply: String,
    /// The message's Message-ID.
    pub message_id: Option<String>,
}

/// Answers that did not count because their domain refuses everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uncounted {
    /// The domain, in lower case.
    pub domain: String,
    /// How many of the account's recipients there did not count, including those that counted at first and were taken back.
    pub answers: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_written_as_ever() {
        for (by, number, name) in [
            (BlockedBy::Limit, 0, "limit"),
            (BlockedBy::Operator, 1, "operator"),
            (BlockedBy::Detection, 2, "detection"),
        ] {
            let block = Block { at: Timestamp::from_millis(1), by, reason: None };
            let json = format!(r#"{{"at":"1970-01-01T00:00:00.001Z","by":"{name}","reason":null}}"#);
            assert_eq!(serde_json::to_string(&block).unwrap(), json);
            assert_eq!(serde_json::from_str::<Block>(&json).unwrap(), block);
            assert!(serde_json::from_str::<Block>(&json.replace('}', r#","who":""}"#)).is_err());
            assert_eq!(postcard::to_allocvec(&by).unwrap(), [number]);
        }
    }
}
