//! The lines of one session: each has the session id and the client's address.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tracing::{debug, error, info, warn};

use super::bounds::Kind;
use super::{BOUNDS, clean, list, said};
use crate::account::Account;
use crate::auth::Guessed;
use crate::clock::Timestamp;
use crate::guard::ledger::Block;
use crate::id::{QuarantineId, SessionId};
use crate::session::ParkReason;
use crate::smtp::Reply;

/// The lines of one session.
#[derive(Debug, Clone)]
pub struct SessionLog {
    id: SessionId,
    client: Arc<Client>,
}

/// A client's address, and the text that nearly every line has of it.
#[derive(Debug)]
struct Client {
    ip: IpAddr,
    text: String,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a line about a message says.
#[derive(Debug, Clone, Copy)]
pub struct MessageFacts<'a> {
    /// The responsible account.
    pub account: &'a Account,
    /// The address of `MAIL FROM:`, without brackets.
    pub sender: &'a str,
    /// Its Message-ID, with brackets.
    pub message_id: Option<&'a str>,
    /// The recipients that were accepted with 250.
    pub accepted: &'a [&'a str],
    /// All other recipients.
    pub refused: &'a [&'a str],
    /// The size in octets, as the message arrived.
    pub size: u64,
}

/// The kind of an alarm of the sequential test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alarm {
    /// It begins a probation.
    First,
    /// It prolongs a probation.
    Further,
}

impl SessionLog {
    /// Creates the log of one session.
    pub fn new(id: SessionId, client: SocketAddr) -> Self {
        Self { id, client: Arc::new(Client { ip: client.ip(), text: client.to_string() }) }
    }

    /// A client connected.
    pub fn connected(&self, tls: bool, relay_host: bool) {
        debug!(session = %self.id, client = %self.client, tls, relay_host, "connected");
    }

    /// The session is encrypted.
    pub fn encrypted(&self, version: &str, cipher: &str) {
        debug!(session = %self.id, client = %self.client, version, cipher, "encrypted");
    }

    /// The client sent credentials in cleartext.
    pub fn credentials_exposed(&self) {
        if !BOUNDS.admit(Kind::CredentialsExposed, self.client.ip) {
            return;
        }
        warn!(session = %self.id, client = %self.client,
            "credentials exposed: AUTH on an unencrypted connection was refused; the password may have been overheard");
    }

    /// A user logged in.
    pub fn authenticated(&self, account: &Account, mechanism: &str) {
        info!(session = %self.id, client = %self.client, %account, mechanism, "authenticated");
    }

    /// A user exceeded the limit on sessions.
    pub fn too_many_sessions(&self, account: &Account) {
        if !BOUNDS.admit(Kind::AccountCrowded, self.client.ip) {
            return;
        }
        warn!(session = %self.id, client = %self.client, %account, "too many sessions of one account: client turned away");
    }

    /// A login failed.
    ///
    /// What the client chose comes last: `contrib/fail2ban` parses this line from its beginning.
    pub fn authentication_failed(&self, mechanism: &str, name: Option<&str>, why: &str, counted: bool) {
        if !BOUNDS.admit(Kind::AuthenticationFailed, self.client.ip) {
            return;
        }
        let user = name.map(clean);
        warn!(session = %self.id, client = %self.client, counted, mechanism, user, why, "authentication failed");
    }

    /// A login was not tried. Parsed in the same way as [`Self::authentication_failed`].
    /// A crowd is nobody's guess, so that line has a beginning of its own.
    pub fn authentication_put_off(&self, mechanism: &str, name: Option<&str>, crowded: bool) {
        if !BOUNDS.admit(Kind::AuthenticationFailed, self.client.ip) {
            return;
        }
        let user = name.map(clean);
        let why = if crowded {
            "authentication not tried: too many passwords are being checked"
        } else {
            "authentication put off: too many wrong passwords came from there, or for that account"
        };
        warn!(session = %self.id, client = %self.client, mechanism, user, "{why}");
    }

    /// A user logged in after many wrong passwords.
    pub fn guessed(&self, account: &Account, guessed: Guessed) {
        warn!(session = %self.id, client = %self.client, %account, guesses = guessed.guesses, addresses = guessed.addresses,
            "A PASSWORD MAY HAVE BEEN GUESSED: a log-in succeeded from a new address after many wrong passwords");
    }

    /// The upstream answered a RCPT.
    #[inline(never)] // see "The code of a message" in docs/performance.md
    pub fn probed(&self, account: &Account, recipient: &str, reply: &Reply) {
        if reply.is_completion() {
            debug!(session = %self.id, %account, recipient = clean(recipient), reply = %said(reply), "recipient accepted");
        } else {
            info!(session = %self.id, %account, recipient = clean(recipient), reply = %said(reply), "recipient refused");
        }
    }

    /// An invalid recipient was counted.
    pub fn counted(&self, account: &Account, recipient: &str, count: u32, limit: u32) {
        info!(session = %self.id, %account, recipient = clean(recipient), count, limit, "invalid recipient");
    }

    /// The account has been blocked.
    pub fn blocked(&self, account: &Account, recipient: &str, limit: u32) {
        warn!(session = %self.id, client = %self.client, %account, recipient = clean(recipient), limit,
            "account blocked: it reached the limit of invalid recipients");
    }

    /// The sequential test raised an alarm, which blocked the account.
    pub fn blocked_by_alarm(&self, account: &Account, block: &Block) {
        warn!(session = %self.id, client = %self.client, %account, why = block.reason.as_deref().map(clean),
            "account blocked: the sequential test of its recipients alarmed");
    }

    /// The sequential test raised an alarm: the account's messages are delayed.
    pub fn probation(&self, account: &Account, alarm: Alarm, until: Timestamp) {
        let what = match alarm {
            Alarm::First => {
                "account on probation: the sequential test of its recipients alarmed; what it sends is delayed"
            }
            Alarm::Further => {
                "account longer on probation: the sequential test of its recipients alarmed again"
            }
        };
        warn!(session = %self.id, client = %self.client, %account, %until, "{what}");
    }

    /// The sequential test raised an alarm, without further consequence.
    pub fn suspected(&self, account: &Account) {
        warn!(session = %self.id, client = %self.client, %account,
            "account suspected: the sequential test of its recipients alarmed; nothing is done");
    }

    /// The sequential test raised an alarm for an account that is observed or exempt.
    pub fn would_alarm(&self, account: &Account) {
        warn!(session = %self.id, client = %self.client, %account,
            "the sequential test of an account's recipients alarmed, but it is observed or exempt");
    }

    /// The account would have been blocked, were it not observed or exempt.
    pub fn would_block(&self, account: &Account, limit: u32) {
        warn!(session = %self.id, client = %self.client, %account, limit,
            "account would have been blocked: it reached the limit of invalid recipients, but is observed or exempt");
    }

    /// The upstream gave no answer.
    pub fn upstream_failed(&self, what: &str, fault: &str) {
        warn!(session = %self.id, client = %self.client, at = what, fault = clean(fault), "upstream failed");
    }

    /// The upstream was not asked, for lack of a resource of ours; `why` says what to do.
    pub fn starved(&self, what: &str, why: &str) {
        error!(session = %self.id, client = %self.client, at = what, why = clean(why),
            "the upstream could not be connected to, through no fault of its own; the client was told to try again");
    }

    /// The upstream sent more replies than commands, and some of them were taken for answers.
    pub fn in_doubt(&self, account: &Account) {
        error!(session = %self.id, client = %self.client, %account,
            "the upstream gave more replies than it was asked for: refusals in this transaction may have been counted for recipients that exist; it is not relayed, and the client will be told to try again");
    }

    /// The upstream accepted the message, or refused it at its end.
    pub fn relayed(&self, facts: &MessageFacts<'_>, reply: &Reply) {
        let what = if reply.is_completion() { "message relayed" } else { "message refused by the upstream" };
        info!(session = %self.id, client = %self.client, account = %facts.account, sender = clean(facts.sender),
            message_id = facts.message_id.map(clean), accepted = list(facts.accepted), refused = list(facts.refused),
            size = facts.size, reply = %said(reply), "{what}");
    }

    /// The upstream did not reply to the end of data.
    pub fn ambiguous(&self, facts: &MessageFacts<'_>, fault: &str) {
        error!(session = %self.id, client = %self.client, account = %facts.account, sender = clean(facts.sender),
            message_id = facts.message_id.map(clean), accepted = list(facts.accepted), fault = clean(fault),
            "no reply to the end of data: the message may have been accepted; the client was told to try again");
    }

    /// A message was parked.
    pub fn parked(&self, facts: &MessageFacts<'_>, id: QuarantineId, told: Option<&str>, why: &str) {
        info!(session = %self.id, client = %self.client, account = %facts.account, sender = clean(facts.sender),
            message_id = facts.message_id.map(clean), accepted = list(facts.accepted), refused = list(facts.refused),
            size = facts.size, quarantine_id = %id, told_queue_id = told, why, "message parked");
    }

    /// A message could not be parked.
    pub fn not_parked(&self, account: &Account, reason: ParkReason, why: &str) {
        warn!(session = %self.id, client = %self.client, %account, why = clean(why),
            "{} could not be parked; the client was told to try again", to_be_parked(reason));
    }

    /// A complete message had no route.
    pub fn nowhere_to_go(&self, account: &Account) {
        error!(session = %self.id, client = %self.client, %account,
            "a message had no route: this is a defect of Gatepost's, please report it; the client was told to try again");
    }

    /// A message was to be delayed, but is sent upstream at once.
    pub fn not_delayed(&self, account: &Account, why: &str) {
        warn!(session = %self.id, client = %self.client, %account, why = clean(why),
            "message of an account on probation could not be parked, and is relayed at once");
    }

    /// A message was to be delayed, but could not be read back to be sent upstream instead.
    pub fn not_kept(&self, account: &Account, why: &str) {
        error!(session = %self.id, client = %self.client, %account, why = clean(why),
            "message of an account on probation could neither be parked nor relayed; the client was told to try again");
    }

    /// A message was refused by Gatepost itself.
    pub fn rejected(&self, account: &Account, why: &str) {
        info!(session = %self.id, client = %self.client, %account, why, "message not accepted");
    }

    /// A defect of ours ended the session; [`panicked`](super::panicked) says which.
    pub fn panicked(&self) {
        error!(session = %self.id, client = %self.client, "session task panicked: the connection was cut");
    }

    /// The client did not speak SMTP.
    pub fn other_protocol(&self, what: &str) {
        if !BOUNDS.admit(Kind::OtherProtocol, self.client.ip) {
            return;
        }
        info!(session = %self.id, client = %self.client, protocol = what,
            "connection closed: the client speaks another protocol");
    }

    /// MAIL had a sender address that the account may not use.
    #[cold]
    pub fn foreign_sender(&self, account: &Account, sender: &str) {
        info!(session = %self.id, client = %self.client, %account, sender = clean(sender), "sender address refused");
    }

    /// The session has ended.
    pub fn disconnected(&self, why: &str) {
        debug!(session = %self.id, client = %self.client, why = clean(why), "disconnected");
    }
}

/// How the log describes a message that was to be parked for this reason.
fn to_be_parked(reason: ParkReason) -> &'static str {
    match reason {
        ParkReason::Blocked => "message of a blocked account",
        ParkReason::AnsweredUnasked => {
            "message with a recipient that was given while its account was blocked"
        }
        ParkReason::CredentialsChanged => "message of an account whose password was changed meanwhile",
        ParkReason::Probation => "message of an account on probation",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_blocked_account_is_called_so() {
        for reason in [ParkReason::CredentialsChanged, ParkReason::AnsweredUnasked, ParkReason::Probation] {
            assert!(!to_be_parked(reason).contains("of a blocked account"), "{reason:?}");
        }
        assert_eq!(to_be_parked(ParkReason::Blocked), "message of a blocked account");
    }
}
