//! What is known of a session and its message, in the forms needed for headers, envelopes, XCLIENT and the log.

use std::net::SocketAddr;
use std::sync::Arc;

use super::message::{Incoming, Route};
use crate::account::{Account, Kind};
use crate::clock::{self, Timestamp};
use crate::config::Config;
use crate::encoded_word;
use crate::guard::ledger::Block;
use crate::id::SessionId;
use crate::maillog::MessageFacts;
use crate::net::Stream;
use crate::quarantine::envelope::{Recipient, RecipientState, SessionFacts, TlsFacts};
use crate::session::{ParkReason, Session, Transaction};
use crate::smtp::Mailbox;
use crate::smtp::header::Header;
use crate::smtp::trace::{self, Protocol, Received};
use crate::upstream::ClientIdentity;

/// Makes a seed for the made-up queue ids.
pub(super) fn seed() -> u64 {
    let mut octets = [0; 8];
    let _ = getrandom::fill(&mut octets);
    u64::from_le_bytes(octets)
}

fn login(session: &Session) -> Option<String> {
    session.user().and_then(|account| match account.kind() {
        Kind::User(name) => Some(name.to_owned()),
        Kind::Host(_) => None,
    })
}

/// Returns what XCLIENT tells the upstream.
pub(super) fn identity(session: &Session, id: SessionId, peer: SocketAddr) -> Arc<ClientIdentity> {
    Arc::new(ClientIdentity {
        session: id,
        name: None,
        address: peer,
        helo: session.hello().map(|hello| hello.name.clone()),
        extended: session.hello().is_some_and(|hello| hello.extended),
        login: login(session),
    })
}

/// Returns what the envelope records of the session.
pub(super) fn session(
    session: &Session,
    stream: Option<&Stream>,
    id: SessionId,
    peer: SocketAddr,
) -> SessionFacts {
    SessionFacts {
        id,
        client: peer,
        client_name: None,
        helo: session.hello().map(|hello| hello.name.clone()),
        extended: session.hello().is_some_and(|hello| hello.extended),
        login: login(session),
        tls: stream
            .and_then(Stream::tls)
            .map(|tls| TlsFacts { version: tls.version.to_owned(), cipher: tls.cipher.to_owned() }),
    }
}

/// Returns what the envelope records of the recipients.
pub(super) fn recipients(transaction: &Transaction) -> Vec<Recipient> {
    let recipient = |recipient: &crate::session::Recipient| Recipient {
        forward_path: recipient.command.forward_path.clone(),
        parameters: recipient.command.parameters.clone(),
        upstream: recipient.upstream.clone(),
        state: if recipient.accepted { RecipientState::Pending } else { RecipientState::Rejected },
    };
    transaction.recipients.iter().map(recipient).collect()
}

/// Says in words why a message is parked. With `due`, it goes out by itself.
pub(super) fn reason(reason: ParkReason, due: Option<Timestamp>, block: Option<Block>) -> String {
    if due.is_some() {
        return "account on probation: it goes out by itself, unless the account is blocked by then"
            .to_owned();
    }
    match (reason, block) {
        (ParkReason::CredentialsChanged, _) => {
            "the account's credentials changed while the message was under way".to_owned()
        }
        (_, Some(Block { reason: Some(text), .. })) => format!("account blocked: {text}"),
        (ParkReason::Blocked | ParkReason::Probation, _) | (ParkReason::AnsweredUnasked, Some(_)) => {
            "account blocked".to_owned()
        }
        (ParkReason::AnsweredUnasked, None) => {
            "account blocked when a recipient was given; the upstream was not asked about it".to_owned()
        }
    }
}

/// Returns the fields put in front of the message: with Sender: if there is a `sender`, and with the origin if it is
/// parked.
pub(super) fn trace(
    conversation: &super::Conversation,
    header: &Header,
    sender: Option<&Mailbox>,
    parked: Option<&Account>,
) -> String {
    let super::Conversation { session, parts, id, peer, messages, client, .. } = conversation;
    let config: &Config = &parts.config;
    let now = clock::now();
    let tls = client.stream().and_then(Stream::tls);
    let hello = session.hello();
    let transaction = session.transaction();
    let only_recipient = transaction.and_then(|transaction| {
        let mut accepted = transaction.accepted_addresses();
        accepted.next().filter(|_| accepted.next().is_none())
    });
    let mut fields = trace::received(&Received {
        helo: hello.map(|hello| hello.name.as_str()),
        client: (!config.submission.hide_client).then_some(peer.ip()),
        hostname: &config.hostname,
        protocol: Protocol {
            extended: hello.is_some_and(|hello| hello.extended),
            tls: tls.is_some(),
            authenticated: session.user().is_some(),
            smtputf8: transaction.is_some_and(|transaction| transaction.mail.parameters.smtputf8),
        },
        tls: tls.as_ref().map(|tls| (tls.version, tls.cipher)),
        session: *id,
        only_recipient,
        when: now,
    });
    if let Some(account) = parked {
        fields.push_str(&trace::origin(account));
    }
    if !header.has("Date") {
        fields.push_str(&trace::date(now));
    }
    if !header.has("Message-ID") {
        fields.push_str(&trace::message_id(*id, *messages, &config.hostname));
    }
    fields.extend(sender.map(trace::sender));
    fields
}

/// What the log and the envelope record of a received message.
pub(super) struct Message {
    size: u64,
    /// The Message-ID, with brackets.
    pub(super) message_id: Option<String>,
    /// The decoded subject (RFC 2047), if the envelope needs it.
    pub(super) subject: Option<String>,
}

impl Message {
    /// Describes a message whose header is complete.
    pub(super) fn of(conversation: &super::Conversation, incoming: &Incoming) -> Self {
        let value = |name| incoming.header().and_then(|header| header.value(name));
        let is_parked = matches!(incoming.route, Route::Quarantine(_));
        let subject = is_parked.then(|| value("Subject")).flatten().map(|raw| encoded_word::decode(&raw));
        let super::Conversation { id, messages, parts, .. } = conversation;
        let message_id = Some(incoming.message_id(*id, *messages, &parts.config.hostname));
        Self { size: incoming.size(), message_id, subject }
    }

    /// Passes the facts for a log line to `log`.
    pub(super) fn with_facts(
        &self,
        account: &Account,
        transaction: &Transaction,
        log: impl FnOnce(&MessageFacts<'_>),
    ) {
        let (accepted, refused): (Vec<_>, Vec<_>) =
            transaction.recipients.iter().partition(|recipient| recipient.accepted);
        let (accepted, refused) = (addresses(&accepted), addresses(&refused));
        log(&MessageFacts {
            account,
            sender: transaction.mail.reverse_path.as_str(),
            message_id: self.message_id.as_deref(),
            accepted: &accepted,
            refused: &refused,
            size: self.size,
        });
    }
}

impl Incoming {
    /// The Message-ID, with brackets: its own, or the one that the session's `serial`th message is given.
    pub(super) fn message_id(&self, session: SessionId, serial: u32, hostname: &str) -> String {
        let its_own = self.header().and_then(|header| header.value("Message-ID"));
        its_own.unwrap_or_else(|| trace::own_message_id(session, serial, hostname))
    }
}

fn addresses<'a>(recipients: &[&'a crate::session::Recipient]) -> Vec<&'a str> {
    recipients.iter().map(|recipient| recipient.command.forward_path.as_str()).collect()
}
