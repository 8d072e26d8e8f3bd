//! Who is responsible for which recipient: from records to attempts, in bounded memory.
//!
//! A message's recipients are its sender's, by the queue id; they count at the time at which the message came, since Gatepost would
//! have asked about them then. Refused recipients are the session's. Mail from elsewhere (an MX's), from programs on the machine, and
//! of messages that came before the log begins is nobody's; it is counted and left out.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use super::recent::Recent;
use super::record::{Record, Sender};
use crate::account::Account;
use crate::clock::Timestamp;
use crate::guard::classify::Outcome;
use crate::guard::window::Key;

/// Messages that are under way at the same time.
const MESSAGES: usize = 100_000;
/// Sessions that are, of all machines.
const SESSIONS: usize = 10_000;
/// Refusals of one session that wait for its account to be told.
const WAITING: usize = 1_000;

/// One recipient that an account asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub account: Account,
    /// The address.
    pub key: Key,
    /// Its domain; `None` where it has none.
    pub domain: Option<Key>,
    /// Whether it exists.
    pub outcome: Outcome,
}

/// Recipients that are nobody's, by the reason.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Of clients that did not authenticate and are no relay hosts: mail from elsewhere.
    pub inbound: u64,
    /// Of programs on the machine itself.
    pub local: u64,
    /// Of messages that came before the log begins, or were under way for too long.
    pub unknown_message: u64,
    /// Of somebody whose name the log does not tell, or is none that an account can have.
    pub unnamed: u64,
}

/// Whose a message is.
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

/// A session with Postfix's smtpd.
#[derive(Debug, Default)]
struct Session {
    account: Option<Account>,
    waiting: Vec<Waiting>,
}

/// A refusal of which it is not yet known whose it is.
#[derive(Debug)]
struct Waiting {
    at: Timestamp,
    key: Key,
    domain: Option<Key>,
    outcome: Outcome,
    /// Whose it is if nobody authenticates.
    client: Owner,
}

/// A session with Gatepost.
#[derive(Debug, Default)]
struct Probing {
    /// The recipient asked about last, and whether it was taken for invalid.
    last: Option<(Key, bool)>,
    /// Accepted recipients have lines of their own.
    detailed: bool,
}

/// Remembers what later lines need.
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

    /// What was nobody's.
    pub fn left_out(&self) -> LeftOut {
        self.left_out
    }

    /// Takes one record, written at `at` on `host`, and passes on the attempts that it makes known.
    pub fn take(&mut self, at: Timestamp, host: &str, record: Record<'_>, mut attempt: impl FnMut(Attempt)) {
        match record {
            Record::Connected { process } => self.sessions.insert((host, process), Session::default()),
            Record::Disconnected { process, authenticated } => {
                let session = self.sessions.remove((host, process)).unwrap_or_default();
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
            Record::Begun { id, process, sender, before } => {
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
            Record::Refused { id, process, sender, recipient, outcome } => {
                let known =
                    id.and_then(|id| self.messages.entry((host, id))).map(|message| message.owner.clone());
                let client = self.owner(sender);
                let (key, domain) = keys(recipient);
                let session = process.and_then(|process| self.sessions.entry((host, process)));
                let owner = match (known, sender, session) {
                    (Some(owner), ..) => owner,
                    // Who authenticated may be told later.
                    (None, Sender::Host(_) | Sender::Untold, Some(session)) => {
                        match session.account.clone() {
                            Some(account) => Owner::Account(account),
                            None if session.waiting.len() < WAITING => {
                                session.waiting.push(Waiting { at, key, domain, outcome, client });
                                return;
                            }
                            None => Owner::Unnamed,
                        }
                    }
                    _ => client,
                };
                match owner {
                    Owner::Account(account) => attempt(Attempt { at, account, key, domain, outcome }),
                    owner => self.leave_out(&owner),
                }
            }
            Record::Settled { id, recipient, outcome, passed_on } => {
                let Some(message) = self.messages.entry((host, id)) else {
                    self.left_out.unknown_message += 1;
                    return;
                };
                let (owner, at) = (message.owner.clone(), message.at);
                if let Some(next) = passed_on.and_then(|next| self.messages.entry((host, next))) {
                    // A filter put the message back under another id: its recipients are settled there.
                    *next = Message { owner, at };
                    return;
                }
                let Owner::Account(account) = owner else { return self.leave_out(&owner) };
                let (key, domain) = keys(recipient);
                attempt(Attempt { at, account, key, domain, outcome });
            }
            Record::Gone { id } => drop(self.messages.remove((host, id))),
            Record::Probed { session, account, recipient, outcome } => {
                let Some(account) = self.named(&account) else { return };
                let (key, domain) = keys(&recipient);
                let probing = self.probing.entry_or_default(&*session);
                probing.last = Some((key, outcome == Outcome::NoSuchRecipient));
                probing.detailed |= outcome == Outcome::Accepted;
                attempt(Attempt { at, account, key, domain, outcome });
            }
            Record::Counted { session, account, recipient } => {
                let Some(account) = self.named(&account) else { return };
                let (key, domain) = keys(&recipient);
                if self.probing.entry_or_default(&*session).last != Some((key, true)) {
                    attempt(Attempt { at, account, key, domain, outcome: Outcome::NoSuchRecipient });
                }
            }
            Record::Transferred { session, account, accepted } => {
                let Some(account) = self.named(&account) else { return };
                if self.probing.entry_or_default(&*session).detailed {
                    return;
                }
                for recipient in accepted.split(',').filter(|recipient| !recipient.is_empty()) {
                    let (key, domain) = keys(recipient);
                    attempt(Attempt {
                        at,
                        account: account.clone(),
                        key,
                        domain,
                        outcome: Outcome::Accepted,
                    });
                }
            }
        }
    }

    /// The account of a session is known now, and so is whose its refusals were.
    fn session_of(&mut self, host: &str, process: u32, account: &Account, attempt: &mut impl FnMut(Attempt)) {
        // XCLIENT may have made it another's.
        let Some(session) = self.sessions.entry((host, process)) else { return };
        session.account = Some(account.clone());
        for Waiting { at, key, domain, outcome, .. } in session.waiting.drain(..) {
            attempt(Attempt { at, account: account.clone(), key, domain, outcome });
        }
    }

    fn owner(&self, sender: Sender<'_>) -> Owner {
        match sender {
            // Gatepost finds names without regard to case.
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

    /// An account as Gatepost's log spells it.
    fn named(&mut self, account: &str) -> Option<Account> {
        let account = account.to_ascii_lowercase().parse().ok();
        self.left_out.unnamed += u64::from(account.is_none());
        account
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

/// An address and its domain, compared without regard to case.
fn keys(recipient: &str) -> (Key, Option<Key>) {
    let address = recipient.to_ascii_lowercase();
    let domain = address.rsplit_once('@').map(|(_, domain)| Key::of_domain(domain));
    (Key::of(address.as_bytes()), domain)
}
