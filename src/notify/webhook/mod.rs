//! Events for programs: POSTed as JSON to one address, signed as Standard Webhooks says.
//!
//! An event is a mail of the outbox's, with another carrier: it is written here ([`event`]) and sent here ([`Messenger`]); that it
//! waits, is tried again and survives a restart is [`super::outbox`]'s. Each is sent at least once; a program tells a repetition
//! by its `webhook-id`.
//!
//! The HTTP is hyper's, which the control socket needs anyway: one request a connection, no redirects, no proxies.

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
    /// Where events go.
    pub target: Target,
    /// Whose secrets they are signed with; read anew for each try.
    pub secret_file: PathBuf,
    /// The file is Gatepost's own: it is made where it is missing.
    pub own_secret: bool,
}

/// An event for the outbox. `about` is whose it is: the events about one account, or about the upstream, arrive in order.
pub fn event(kind: &str, about: &str, timestamp: Timestamp, data: &impl Serialize) -> Mail {
    #[derive(Serialize)]
    struct Body<'a, T> {
        r#type: &'a str,
        timestamp: Timestamp,
        data: &'a T,
    }
    // Nothing that is put here can fail to be written: no maps with keys that are no texts.
    let message = serde_json::to_vec(&Body { r#type: kind, timestamp, data }).unwrap_or_default();
    Mail { kind: Kind::Event, from: None, to: vec![about.to_owned()], message, require_tls: false }
}

#[cfg(test)]
mod tests;
