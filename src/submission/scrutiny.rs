//! What a message's header says against it, and what is changed in the message because of its sender.
//!
//! Examined once, when the header is complete. A block plays no part: the answer is the same for everyone.

use super::Conversation;
use super::message::Newlines;
use crate::account::{Account, Kind};
use crate::config::BareNewline;
use crate::quarantine::envelope::Treatment;
use crate::sender::header::from_addresses;
use crate::sender::rules::{own_addresses, same};
use crate::session::Delivery;
use crate::smtp::header::Header;
use crate::smtp::trace::MAX_RECEIVED;
use crate::smtp::{Body, Mailbox};

impl Conversation {
    /// Returns why the message is refused because of its header.
    pub(super) fn objection(&self, header: &Header) -> Option<Delivery> {
        if header.count("Received") > MAX_RECEIVED {
            return Some(Delivery::Loop);
        }
        let account = &self.sender.as_ref()?.account;
        let foreign = self.parts.config.sender.from_header && !self.may_say_from(account, header);
        foreign.then_some(Delivery::ForeignFrom)
    }

    fn may_say_from(&self, account: &Account, header: &Header) -> bool {
        let rules = self.parts.senders.rules();
        // The header of an account without restrictions may be as bad as it likes.
        !rules.bind(account)
            || from_addresses(header).is_some_and(|addresses| {
                addresses.iter().all(|address| rules.allow_mailbox(account, address))
            })
    }

    /// How malformed newlines in the incoming message are treated.
    pub(super) fn newlines(&self) -> Newlines {
        let session = &self.parts.config.session;
        let parameters = self.session.transaction().map(|transaction| &transaction.mail.parameters);
        if parameters.is_some_and(|parameters| parameters.body == Some(Body::BinaryMime)) {
            Newlines::Binary
        } else if session.bare_newline == BareNewline::Normalize
            || session.bare_newline_hosts.iter().any(|network| network.contains(&self.peer.ip()))
        {
            Newlines::Normalized
        } else {
            Newlines::Strict
        }
    }

    /// What is changed in the message at each transfer; and the address for our Sender:, if there is to be one.
    pub(super) fn treatment(&self, header: &Header) -> (Treatment, Option<Mailbox>) {
        let user = self.sender.as_ref().map(|sender| &sender.account);
        let user = user.filter(|account| {
            self.parts.config.submission.sender_header && matches!(account.kind(), Kind::User(_))
        });
        // Even if we write none of our own: what the client says of itself cannot be trusted.
        let normalize = self.newlines() == Newlines::Normalized;
        let treatment = Treatment { normalize, without_sender: user.is_some() };
        (treatment, user.and_then(|user| self.own_sender(user, header)))
    }

    /// The address for Sender: to name the user; `None` if From: is an address of the user's, or the user has none.
    #[inline(never)] // see "The code of a message" in docs/performance.md
    fn own_sender(&self, user: &Account, header: &Header) -> Option<Mailbox> {
        let own = own_addresses(user, &self.parts.config.upstream.domains);
        if header.count("From") == 1
            && let Some([only]) = from_addresses(header).as_deref()
            && own.iter().any(|own| same(only, own))
        {
            return None;
        }
        let utf8 = self.session.transaction().is_some_and(|open| open.mail.parameters.smtputf8);
        // RFC 6532: a header is ASCII unless the message is sent with SMTPUTF8.
        own.into_iter().next().filter(|own| own.is_ascii() || utf8)
    }
}
