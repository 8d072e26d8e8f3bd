//! Events for programs: sent to one address as JSON by POST, signed as Standard Webhooks specifies.
//!
//! An event is a mail of the outbox with another carrier: it is written here ([`event`]) and sent here ([`Messenger`]),
//! while [`super::outbox`] stores it, retries it and keeps it across restarts. Each is sent at least once; a receiver
//! recognizes a repetition by its `webhook-id`.
//!
//! HTTP is hyper's, which the control socket needs anyway: one request per connection, no redirects, no proxies.

mod post;
mod secret;
mod target;

use std::path::PathBuf;

use serde::Serialize;

pub use post::Messenger;
pub use secret::{SecretError, Secrets};
pub use target::Target;

use super::outbox::{Kind, Mail};
use crate::clock::Timestamp;

/// `[notify] webhook` and `webhook_secret_file`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Where events are sent.
    pub target: Target,
    /// The file with the secrets for signing; read anew for each try.
    pub secret_file: PathBuf,
    /// Whether the file is Gatepost's own, to be created if missing.
    pub own_secret: bool,
}

/// Makes an event for the outbox. Events with the same `about`, an account or the upstream, arrive in order.
///
/// # Errors
/// `data` has no form in JSON.
pub fn event(
    kind: &str,
    about: &str,
    timestamp: Timestamp,
    data: &impl Serialize,
) -> Result<Mail, serde_json::Error> {
    #[derive(Serialize)]
    struct Body<'a, T> {
        r#type: &'a str,
        timestamp: Timestamp,
        data: &'a T,
    }
    let message = serde_json::to_vec(&Body { r#type: kind, timestamp, data })?;
    Ok(Mail { kind: Kind::Event, from: None, to: vec![about.to_owned()], message, require_tls: false })
}

#[cfg(test)]
mod tests;
