//! Which account is responsible for which recipient: turns records into attempts, in bounded memory.
//!
//! Recipients of a message belong to its sender, found by the queue id; they count at the time at which the message
//! arrived, since Gatepost would have asked about them then. Refused recipients belong to the session. Mail from
//! elsewhere (of an MX), from programs on the machine, and in messages from before the beginning of the log belongs to
//! no account; it is counted and left out.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use super::recent::Recent;
use super::record::{Record, Sender};
use crate::account::Account;
use crate::clock::Timestamp;
use crate::guard::classify::Outcome;
use crate::guard::window::Key;

/// How the local parts of recipients begin that `gatepost check` asks about, which cannot exist.
pub const NOBODY: &str = "gatepost-check-";

/// The most messages under way at the same time.
const MESSAGES: usize = 100_000;
/// The most sessions at the same time, over all machines.
const SESSIONS: usize = 10_000;
/// The most refusals of one session that wait until its account is known.
const WAITING: usize = 1_000;

/// A recipient that an account asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// When it was asked for.
    pub at: Timestamp,
    /// The account.
    pub account: Account,
    /// The address.
    pub key: Key,
    /// The domain of the address; `None` if it has none.
    pub domain: Option<Key>,
    /// Whether it exists.
    pub outcome: Outcome,
}

/// Recipients that belong to no account, by reason.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// From clients that did not authenticate and are not relay hosts: mail from elsewhere.
    pub inbound: u64,
    /// From programs on the machine itself.
    pub local: u64,
    /// In messages from before the beginning of the log, or that were under way for too long.
    pub unknown_message: u64,
    /// From users whose name is not in the log, or cannot be an account's.
    pub unnamed: u64,
}

/// To whom a message belongs.
#[derive(Debug, Clone)]
enum Owner {
    Account(Account),
    Elsewhere,
    Local,
    Unnamed,
}

#[derive(Debug)]
struct Message {
    owner: Owner,
    at: Timestamp,
}

/// A session of Postfix's smtpd.
#[derive(Debug, Default)]
struct Session {
    account: Option<Account>,
    waiting: Vec<Waiting>,
}

/// A refusal whose account is not known yet.
#[derive(Debug)]
struct Waiting {
    at: Timestamp,
    key: Key,
    domain: Option<Key>,
    outcome: Outcome,
    /// The owner if nobody authenticates.
    client: Owner,
}

/// A session of Gatepost.
#[derive(Debug, Default)]
struct Probing {
    /// The last recipient asked about, and whether it was taken for invalid.
    last: Option<(Key, bool)>,
    /// Whether accepted recipients have lines of their own.
    detailed: bool,
}

/// Where a record stands.
#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    at: Timestamp,
    host: &'a str,
}

/// Keeps what later lines need.
#[derive(Debug)]
pub struct Attribution {
    relay_hosts: Vec<IpNet>,
    messages: Recent<Message>,
    sessions: Recent<Session>,
    probing: Recent<Probing>,
    left_out: LeftOut,
}

impl Attribution {
    /// Clients in `relay_hosts` that do not authenticate are accounts too.
    pub fn new(relay_hosts: Vec<IpNet>) -> Self {
        Self {
            relay_hosts,
            messages: Recent::new(MESSAGES),
            sessions: Recent::new(SESSIONS),
            probing: Recent::new(SESSIONS),
            left_out: LeftOut::default(),
        }
    }

    /// The recipients that belong to no account.
    pub fn left_out(&self) -> LeftOut {
        self.left_out
    }

    /// Takes a record that was written at `at` on `host`, and calls `attempt` for each attempt that becomes known.
    pub fn take(&mut self, at: Timestamp, host: &str, record: Record<'_>, attempt: impl FnMut(Attempt)) {
        let line = Line { at, host };
        if let Record::Refused { recipient, .. } | Record::Settled { recipient, .. } = &record
            && is_nobody(recipient)
        {
            return;
        }
        match record {
            Record::Connected { process } => self.sessions.insert((host, process), Session::default()),
            Record::Disconnected { process, authenticated } => {
                self.disconnected(line, process, authenticated, attempt);
            }
            Record::Begun { id, process, sender, before } => {
                self.begun(line, id, process, sender, before, attempt);
            }
            Record::Refused { id, process, sender, recipient, outcome } => {
                self.refused(line, id, process, sender, recipient, outcome).into_iter().for_each(attempt);
            }
            Record::Settled { id, recipient, outcome, passed_on } => {
                self.settled(line, id, recipient, outcome, passed_on).into_iter().for_each(attempt);
            }
            Record::Gone { id } => drop(self.messages.remove((host, id))),
            Record::Probed { session, account, recipient, outcome } => {
                self.probed(line, &session, &account, &recipient, outcome).into_iter().for_each(attempt);
            }
            Record::Counted { session, account, recipient } => {
                self.counted(line, &session, &account, &recipient).into_iter().for_each(attempt);
            }
            Record::Transferred { session, account, accepted } => {
                self.transferred(line, &session, &account, &accepted, attempt);
            }
        }
    }

    fn disconnected(
        &mut self,
        line: Line<'_>,
        process: u32,
        authenticated: bool,
        mut attempt: impl FnMut(Attempt),
    ) {
        let session = self.sessions.remove((line.host, process)).unwrap_or_default();
        for Waiting { at, key, domain, outcome, client } in session.waiting {
            match client {
                // A relay host that did not authenticate.
                Owner::Account(account) if !authenticated => {
                    attempt(Attempt { at, account, key, domain, outcome });
                }
                _ if authenticated => self.left_out.unnamed += 1,
                client => self.leave_out(&client),
            }
        }
    }

    fn begun(
        &mut self,
        line: Line<'_>,
        id: Option<&str>,
        process: Option<u32>,
        sender: Sender<'_>,
        before: Option<&str>,
        mut attempt: impl FnMut(Attempt),
    ) {
        let Line { at, host } = line;
        let earlier = before.and_then(|before| self.messages.entry((host, before)));
        let earlier = earlier.map(|message| message.owner.clone());
        let owner = earlier.unwrap_or_else(|| self.owner(sender));
        if let (Owner::Account(account), Some(process)) = (&owner, process) {
            self.session_of(host, process, account, &mut attempt);
        }
        if let Some(id) = id {
            self.messages.insert((host, id), Message { owner, at });
        }
    }

    fn refused(
        &mut self,
        line: Line<'_>,
        id: Option<&str>,
        process: Option<u32>,
        sender: Sender<'_>,
        recipient: &str,
        outcome: Outcome,
    ) -> Option<Attempt> {
        let Line { at, host } = line;
        let known = id.and_then(|id| self.messages.entry((host, id))).map(|message| message.owner.clone());
        let client = self.owner(sender);
        let (key, domain) = keys(recipient);
        let session = process.and_then(|process| self.sessions.entry((host, process)));
        let owner = match (known, sender, session) {
            (Some(owner), ..) => owner,
            // Who authenticated may become known later.
            (None, Sender::Host(_) | Sender::Untold, Some(session)) => match session.account.clone() {
                Some(account) => Owner::Account(account),
                None if session.waiting.len() < WAITING => {
                    session.waiting.push(Waiting { at, key, domain, outcome, client });
                    return None;
                }
                None => Owner::Unnamed,
            },
            _ => client,
        };
        let account = self.account_of(owner)?;
        Some(Attempt { at, account, key, domain, outcome })
    }

    fn settled(
        &mut self,
        line: Line<'_>,
        id: &str,
        recipient: &str,
        outcome: Outcome,
        passed_on: Option<&str>,
    ) -> Option<Attempt> {
        let Some(message) = self.messages.entry((line.host, id)) else {
            self.left_out.unknown_message += 1;
            return None;
        };
        let (owner, at) = (message.owner.clone(), message.at);
        if let Some(next) = passed_on.and_then(|next| self.messages.entry((line.host, next))) {
            // A filter returned the message under another id, under which its recipients are settled.
            *next = Message { owner, at };
            return None;
        }
        let account = self.account_of(owner)?;
        let (key, domain) = keys(recipient);
        Some(Attempt { at, account, key, domain, outcome })
    }

    fn probed(
        &mut self,
        line: Line<'_>,
        session: &str,
        account: &str,
        recipient: &str,
        outcome: Outcome,
    ) -> Option<Attempt> {
        let account = self.named(account)?;
        let (key, domain) = keys(recipient);
        let probing = self.probing.entry_or_default(session);
        probing.last = Some((key, outcome == Outcome::NoSuchRecipient));
        probing.detailed |= outcome == Outcome::Accepted;
        Some(Attempt { at: line.at, account, key, domain, outcome })
    }

    fn counted(&mut self, line: Line<'_>, session: &str, account: &str, recipient: &str) -> Option<Attempt> {
        let account = self.named(account)?;
        let (key, domain) = keys(recipient);
        if self.probing.entry_or_default(session).last == Some((key, true)) {
            return None;
        }
        Some(Attempt { at: line.at, account, key, domain, outcome: Outcome::NoSuchRecipient })
    }

    fn transferred(
        &mut self,
        line: Line<'_>,
        session: &str,
        account: &str,
        accepted: &str,
        mut attempt: impl FnMut(Attempt),
    ) {
        let Some(account) = self.named(account) else { return };
        if self.probing.entry_or_default(session).detailed {
            return;
        }
        for recipient in accepted.split(',').filter(|recipient| !recipient.is_empty()) {
            let (key, domain) = keys(recipient);
            let (at, account) = (line.at, account.clone());
            attempt(Attempt { at, account, key, domain, outcome: Outcome::Accepted });
        }
    }

    /// The account of a session is now known, and with it that of its refusals.
    fn session_of(&mut self, host: &str, process: u32, account: &Account, attempt: &mut impl FnMut(Attempt)) {
        // XCLIENT may have assigned the session to another client.
        let Some(session) = self.sessions.entry((host, process)) else { return };
        session.account = Some(account.clone());
        for Waiting { at, key, domain, outcome, .. } in session.waiting.drain(..) {
            attempt(Attempt { at, account: account.clone(), key, domain, outcome });
        }
    }

    fn owner(&self, sender: Sender<'_>) -> Owner {
        match sender {
            // Gatepost looks up names ignoring case.
            Sender::User(name) => {
                Account::user(&name.to_ascii_lowercase()).map_or(Owner::Unnamed, Owner::Account)
            }
            Sender::Host(address) if self.is_relay_host(address) => Owner::Account(Account::host(address)),
            Sender::Host(_) | Sender::Untold => Owner::Elsewhere,
            Sender::Local => Owner::Local,
        }
    }

    fn is_relay_host(&self, address: IpAddr) -> bool {
        self.relay_hosts.iter().any(|network| network.contains(&address.to_canonical()))
    }

    /// An account as spelled in Gatepost's log.
    fn named(&mut self, account: &str) -> Option<Account> {
        let account = account.to_ascii_lowercase().parse().ok();
        self.left_out.unnamed += u64::from(account.is_none());
        account
    }

    /// The account that owns it; `None` if there is none, which is counted.
    fn account_of(&mut self, owner: Owner) -> Option<Account> {
        self.leave_out(&owner);
        match owner {
            Owner::Account(account) => Some(account),
            Owner::Elsewhere | Owner::Local | Owner::Unnamed => None,
        }
    }

    fn leave_out(&mut self, owner: &Owner) {
        match owner {
            Owner::Account(_) => {}
            Owner::Elsewhere => self.left_out.inbound += 1,
            Owner::Local => self.left_out.local += 1,
            Owner::Unnamed => self.left_out.unnamed += 1,
        }
    }
}

/// Whether `gatepost check` made this recipient up: the prefix is followed by 32 hexadecimal digits.
fn is_nobody(recipient: &str) -> bool {
    let random = recipient.strip_prefix(NOBODY).and_then(|rest| rest.split_once('@'));
    random.is_some_and(|(digits, _)| {
        digits.len() == 32 && digits.bytes().all(|octet| octet.is_ascii_hexdigit())
    })
}

/// An address and its domain, for comparison ignoring case.
fn keys(recipient: &str) -> (Key, Option<Key>) {
    let address = recipient.to_ascii_lowercase();
    let domain = address.rsplit_once('@').map(|(_, domain)| Key::of_domain(domain));
    (Key::of(address.as_bytes()), domain)
}
