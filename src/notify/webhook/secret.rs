//! The signature of events: HMAC-SHA256 over id, time and body (Standard Webhooks 1.0).
//!
//! The file has one secret per line (`whsec_` and base64), so that a new one can be introduced while receivers still
//! know the old one: events are then signed with each. Secrets are wiped from memory when dropped, and never shown.

use std::path::Path;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::durable;
use crate::visible::unreadable;

/// The prefix of a secret.
const PREFIX: &str = "whsec_";
/// The fewest octets that Standard Webhooks requires of a secret.
const ENOUGH: usize = 24;
/// The octets of a secret that is generated here.
const NEW: usize = 32;
/// The most secrets in a file; each makes the signature longer.
const MAX_SECRETS: usize = 5;

/// With or without padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The secrets of a file; at least one.
pub struct Secrets(Vec<Zeroizing<Vec<u8>>>);

/// Why there are no secrets; names the file and the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SecretError(String);

impl Secrets {
    /// Reads a file of secrets.
    ///
    /// # Errors
    /// The file cannot be read, or a line is not a secret.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let file = path.display();
        let octets = std::fs::read(path).map_err(|cause| SecretError(unreadable(path, &cause)))?;
        let octets = Zeroizing::new(octets);
        let text = str::from_utf8(&octets).unwrap_or_default();
        let mut secrets = Vec::new();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let secret = line.trim().strip_prefix(PREFIX).and_then(|code| LENIENT.decode(code).ok());
            match secret.filter(|secret| !secret.is_empty()) {
                Some(secret) => secrets.push(Zeroizing::new(secret)),
                None => {
                    return Err(SecretError(format!(
                        "{file}:{}: a secret is {PREFIX} and base64",
                        index + 1
                    )));
                }
            }
        }
        match secrets.len() {
            0 => Err(SecretError(format!(
                "{file}: no secret in it; {PREFIX} and base64 should stand in the first line"
            ))),
            1..=MAX_SECRETS => Ok(Self(secrets)),
            _ => Err(SecretError(format!("{file}: at most {MAX_SECRETS} secrets"))),
        }
    }

    /// Creates the file with a new secret unless it exists. Returns whether it was created.
    ///
    /// # Errors
    /// The file cannot be written, or the system provides no random octets.
    pub fn make_if_missing(path: &Path) -> Result<bool, SecretError> {
        if path.symlink_metadata().is_ok() {
            return Ok(false);
        }
        let failed = |error: &dyn std::fmt::Display| SecretError(format!("{}: {error}", path.display()));
        let mut secret = Zeroizing::new([0; NEW]);
        getrandom::fill(secret.as_mut_slice()).map_err(|error| failed(&error))?;
        let line = Zeroizing::new(format!("{PREFIX}{}\n", STANDARD.encode(secret.as_slice())));
        durable::write(path, line.as_bytes()).map_err(|error| failed(&error))?;
        Ok(true)
    }

    /// Whether a secret is so short that it might be guessed.
    pub fn are_weak(&self) -> bool {
        self.0.iter().any(|secret| secret.len() < ENOUGH)
    }

    /// The value of `webhook-signature`; `seconds` is the value of `webhook-timestamp`.
    pub(super) fn sign(&self, id: &str, seconds: u64, body: &[u8]) -> String {
        let sign = |secret: &Zeroizing<Vec<u8>>| {
            // HMAC takes keys of any length.
            let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
            mac.update(format!("{id}.{seconds}.").as_bytes());
            mac.update(body);
            Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
        };
        self.0.iter().filter_map(sign).collect::<Vec<_>>().join(" ")
    }
}
