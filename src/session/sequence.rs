//! The order of commands (RFC 5321 4.1.4, 3207 4, 4954 4, 6409 3.3, 3030 2) as one table: is it allowed now?
//!
//! Ignores arguments and changes nothing; the first broken rule gives the reply.

use super::texts;
use crate::smtp::Reply;

/// The commands whose order matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    StartTls,
    Auth,
    Mail,
    Rcpt,
    Data,
    Bdat,
}

/// The state of the conversation that decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Situation {
    /// EHLO or HELO has been said.
    pub greeted: bool,
    /// The connection is encrypted.
    pub encrypted: bool,
    /// STARTTLS is available on this listener.
    pub can_encrypt: bool,
    /// AUTH is offered. Known only at AUTH itself, and false at every other command of this table
    /// ([`Event::concerns_login`](super::Event::concerns_login)).
    pub can_authenticate: bool,
    /// A user has logged in.
    pub authenticated: bool,
    /// The client may send without TLS and AUTH.
    pub relay_host: bool,
    /// MAIL has been accepted, or is being asked.
    pub in_transaction: bool,
    /// BDAT has begun.
    pub in_chunks: bool,
    /// The number of accepted recipients.
    pub recipients: usize,
}

type Rule = (fn(&Situation) -> bool, &'static Reply);

const GREETED: Rule = (|now| now.greeted, &texts::SAY_HELLO);
const TRANSACTION: Rule = (|now| now.in_transaction, &texts::NEED_MAIL);
const NO_TRANSACTION: Rule = (|now| !now.in_transaction, &texts::IN_TRANSACTION);
const NO_CHUNKS: Rule = (|now| !now.in_chunks, &texts::IN_CHUNKS);
const RECIPIENTS: Rule = (|now| now.recipients > 0, &texts::NO_RECIPIENTS);

// What must hold for each command, in the order in which it is checked.
const STARTTLS: &[Rule] = &[GREETED, (|now| !now.encrypted && now.can_encrypt, &texts::TLS_ALREADY)];
const AUTH: &[Rule] = &[
    (|now| now.encrypted, &texts::AUTH_IN_CLEAR),
    GREETED,
    (|now| now.can_authenticate, &texts::NO_AUTH),
    (|now| !now.authenticated, &texts::AUTHENTICATED_ALREADY),
    NO_TRANSACTION,
];
const MAIL: &[Rule] = &[
    (|now| now.encrypted || now.relay_host, &texts::NEED_TLS),
    GREETED,
    (|now| now.authenticated || now.relay_host, &texts::NEED_AUTH),
    NO_CHUNKS,
    (|now| !now.in_transaction, &texts::NESTED_MAIL),
];
const RCPT: &[Rule] = &[TRANSACTION, NO_CHUNKS];
const DATA: &[Rule] = &[TRANSACTION, NO_CHUNKS, RECIPIENTS];
const BDAT: &[Rule] = &[TRANSACTION, RECIPIENTS];

/// Returns the reply to a command that is not allowed now; `None` if it is.
pub(super) fn out_of_order(verb: Verb, now: &Situation) -> Option<&'static Reply> {
    let rules = match verb {
        Verb::StartTls => STARTTLS,
        Verb::Auth => AUTH,
        Verb::Mail => MAIL,
        Verb::Rcpt => RCPT,
        Verb::Data => DATA,
        Verb::Bdat => BDAT,
    };
    rules.iter().find(|(holds, _)| !holds(now)).map(|(_, reply)| *reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: Situation = Situation {
        greeted: false,
        encrypted: false,
        can_encrypt: true,
        can_authenticate: true,
        authenticated: false,
        relay_host: false,
        in_transaction: false,
        in_chunks: false,
        recipients: 0,
    };
    const SECURE: Situation = Situation { greeted: true, encrypted: true, ..FRESH };
    const USER: Situation = Situation { authenticated: true, ..SECURE };
    const HOST: Situation = Situation { greeted: true, relay_host: true, ..FRESH };
    const OPENED: Situation = Situation { in_transaction: true, ..USER };
    const ADDRESSED: Situation = Situation { recipients: 1, ..OPENED };
    const CHUNKS: Situation = Situation { in_chunks: true, ..ADDRESSED };

    #[test]
    fn the_order_of_commands() {
        for (verb, now, expected) in [
            // RFC 3207 4: after EHLO, once
            (Verb::StartTls, FRESH, Some("503 5.5.1")),
            (Verb::StartTls, Situation { greeted: true, ..FRESH }, None),
            (Verb::StartTls, SECURE, Some("503 5.5.1")),
            // CONTRACT: AUTH on cleartext is 538 whatever else is missing
            (Verb::Auth, FRESH, Some("538 5.7.11")),
            (Verb::Auth, HOST, Some("538 5.7.11")),
            (Verb::Auth, Situation { encrypted: true, ..FRESH }, Some("503 5.5.1")),
            (Verb::Auth, SECURE, None),
            (Verb::Auth, Situation { can_authenticate: false, ..SECURE }, Some("502 5.5.1")),
            (Verb::Auth, USER, Some("503 5.5.1")),
            // RFC 4954 4: not permitted during a mail transaction
            (Verb::Auth, Situation { in_transaction: true, relay_host: true, ..SECURE }, Some("503 5.5.1")),
            // RFC 6409 3.3, 4.3
            (Verb::Mail, FRESH, Some("530 5.7.0")),
            (Verb::Mail, Situation { encrypted: true, ..FRESH }, Some("503 5.5.1")),
            (Verb::Mail, SECURE, Some("530 5.7.0")),
            (Verb::Mail, USER, None),
            (Verb::Mail, HOST, None),
            (Verb::Mail, Situation { greeted: false, ..HOST }, Some("503 5.5.1")),
            (Verb::Mail, OPENED, Some("503 5.5.1")),
            (Verb::Rcpt, USER, Some("503 5.5.1")),
            (Verb::Rcpt, OPENED, None),
            (Verb::Data, USER, Some("503 5.5.1")),
            (Verb::Data, OPENED, Some("554 5.5.1")),
            (Verb::Data, ADDRESSED, None),
            // RFC 3030 2: DATA and BDAT cannot be mixed; no RCPT once BDAT has begun
            (Verb::Data, CHUNKS, Some("503 5.5.1")),
            (Verb::Rcpt, CHUNKS, Some("503 5.5.1")),
            (Verb::Mail, CHUNKS, Some("503 5.5.1")),
            (Verb::Bdat, USER, Some("503 5.5.1")),
            (Verb::Bdat, OPENED, Some("554 5.5.1")),
            (Verb::Bdat, CHUNKS, None),
        ] {
            let answer = out_of_order(verb, &now)
                .map(|reply| format!("{} {}", reply.code, reply.enhanced.expect("own replies have one")));
            assert_eq!(answer.as_deref(), expected, "{verb:?} {now:?}");
        }
    }
}
