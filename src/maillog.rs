//! The mail log: one method an event, one line a call, never a password.
//!
//! Every line of a session carries its session id. What a client or an upstream wrote goes into fields alone, never into the
//! message, and is cleaned of control characters by the formatter (JSON) or here (text).

use std::net::SocketAddr;

use tracing::{debug, error, info, warn};

use crate::account::Account;
use crate::id::{QuarantineId, SessionId};
use crate::release::Report;
use crate::smtp::Reply;

/// The lines of one session.
#[derive(Debug, Clone, Copy)]
pub struct SessionLog {
    id: SessionId,
    client: SocketAddr,
}

/// What a line about a message says.
#[derive(Debug, Clone, Copy)]
pub struct MessageFacts<'a> {
    /// Who is responsible.
    pub account: &'a Account,
    /// `MAIL FROM:`, without brackets.
    pub sender: &'a str,
    /// Its Message-ID, with brackets.
    pub message_id: Option<&'a str>,
    /// Recipients that the client was told 250 for.
    pub accepted: &'a [&'a str],
    /// All others.
    pub refused: &'a [&'a str],
    /// Octets, as it arrived.
    pub size: u64,
}

/// Text from outside for a log line: control characters and bidirectional overrides become `?`.
pub fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '?',
            c if c.is_control() => '?',
            c => c,
        })
        .collect()
}

fn list(addresses: &[&str]) -> String {
    let cleaned: Vec<String> = addresses.iter().map(|address| clean(address)).collect();
    cleaned.join(",")
}

impl SessionLog {
    /// For one session.
    pub fn new(id: SessionId, client: SocketAddr) -> Self {
        Self { id, client }
    }

    /// A client connected.
    pub fn connected(&self, tls: bool, relay_host: bool) {
        debug!(session = %self.id, client = %self.client, tls, relay_host, "connected");
    }

    /// TLS is up.
    pub fn encrypted(&self, version: &str, cipher: &str) {
        debug!(session = %self.id, client = %self.client, version, cipher, "encrypted");
    }

    /// The client sent credentials on cleartext.
    pub fn credentials_exposed(&self) {
        warn!(session = %self.id, client = %self.client,
            "credentials exposed: AUTH on an unencrypted connection was refused; the password may have been overheard");
    }

    /// A user logged in.
    pub fn authenticated(&self, account: &Account, mechanism: &str) {
        info!(session = %self.id, client = %self.client, %account, mechanism, "authenticated");
    }

    /// A log-in failed.
    pub fn authentication_failed(&self, mechanism: &str, name: Option<&str>, why: &str) {
        let user = name.map(clean);
        warn!(session = %self.id, client = %self.client, mechanism, user, why, "authentication failed");
    }

    /// The upstream answered a RCPT.
    pub fn probed(&self, account: &Account, recipient: &str, reply: &Reply) {
        let recipient = clean(recipient);
        if reply.is_positive() {
            debug!(session = %self.id, %account, recipient, reply = %reply, "recipient accepted");
        } else {
            info!(session = %self.id, %account, recipient, reply = %reply, "recipient refused");
        }
    }

    /// An invalid recipient counted.
    pub fn counted(&self, account: &Account, recipient: &str, count: u32, limit: u32) {
        info!(session = %self.id, %account, recipient = clean(recipient), count, limit, "invalid recipient");
    }

    /// The account is blocked now.
    pub fn blocked(&self, account: &Account, recipient: &str, limit: u32) {
        warn!(session = %self.id, client = %self.client, %account, recipient = clean(recipient), limit,
            "account blocked: it reached the limit of invalid recipients; its mail is parked from now on");
    }

    /// The account would be blocked, were it not observed or exempt.
    pub fn would_block(&self, account: &Account, limit: u32) {
        warn!(session = %self.id, client = %self.client, %account, limit,
            "account would have been blocked: it reached the limit of invalid recipients, but is observed or exempt");
    }

    /// The upstream gave no answer.
    pub fn upstream_failed(&self, what: &str, fault: &str) {
        warn!(session = %self.id, client = %self.client, at = what, fault = clean(fault), "upstream failed");
    }

    /// The upstream took the message, or refused it at its end.
    pub fn relayed(&self, facts: &MessageFacts<'_>, reply: &Reply) {
        let what = if reply.is_positive() { "message relayed" } else { "message refused by the upstream" };
        info!(session = %self.id, client = %self.client, account = %facts.account, sender = clean(facts.sender),
            message_id = facts.message_id.map(clean), accepted = list(facts.accepted), refused = list(facts.refused),
            size = facts.size, reply = %reply, "{what}");
    }

    /// The upstream did not answer at the end of data.
    pub fn ambiguous(&self, facts: &MessageFacts<'_>, fault: &str) {
        error!(session = %self.id, client = %self.client, account = %facts.account, sender = clean(facts.sender),
            message_id = facts.message_id.map(clean), accepted = list(facts.accepted), fault = clean(fault),
            "no reply to the end of data: the message may have been accepted; the client was told to try again");
    }

    /// A message is in the quarantine.
    pub fn parked(&self, facts: &MessageFacts<'_>, id: QuarantineId, told: Option<&str>, why: &str) {
        info!(session = %self.id, client = %self.client, account = %facts.account, sender = clean(facts.sender),
            message_id = facts.message_id.map(clean), accepted = list(facts.accepted), refused = list(facts.refused),
            size = facts.size, quarantine_id = %id, told_queue_id = told, why, "message parked");
    }

    /// A message was not taken, by our own decision.
    pub fn rejected(&self, account: &Account, why: &str) {
        info!(session = %self.id, client = %self.client, %account, why, "message not accepted");
    }

    /// The session is over.
    pub fn disconnected(&self, why: &str) {
        debug!(session = %self.id, client = %self.client, why = clean(why), "disconnected");
    }
}

/// A parked message was released, or a release was tried.
pub fn released(report: &Report, account: &Account) {
    let addresses = |list: &[(String, Reply)]| {
        list.iter().map(|(address, reply)| format!("{} ({reply})", clean(address))).collect::<Vec<_>>().join(", ")
    };
    info!(quarantine_id = %report.id, %account, outcome = ?report.outcome, delivered = addresses(&report.delivered),
        refused = addresses(&report.refused), deferred = addresses(&report.deferred), "release tried");
}

/// A release that is due could not be tried.
pub fn release_failed(id: QuarantineId, why: &str) {
    warn!(quarantine_id = %id, why = clean(why), "release could not be tried");
}

/// A parked message had been kept for as long as the configuration says.
pub fn expired(id: QuarantineId) {
    info!(quarantine_id = %id, "parked message expired and was removed");
}
