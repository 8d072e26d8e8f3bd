//! What one log line says about a message or a recipient, whichever program wrote it.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::guard::classify::Outcome;
use crate::smtp::{Enhanced, Reply};

/// Who a line says was at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender<'a> {
    /// Somebody who authenticated, by that name; empty where the line does not tell the name.
    User(&'a str),
    /// Somebody who did not, at that address.
    Host(IpAddr),
    /// A program on the machine itself.
    Local,
    /// The line does not say.
    Untold,
}

/// What one line says. An `id` is a queue id, unique on its machine for a while; a `process` is one that serves a session at
/// a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record<'a> {
    /// A session began.
    Connected {
        /// Of smtpd.
        process: u32,
    },
    /// A session is over.
    Disconnected {
        /// Of smtpd.
        process: u32,
        /// Whether the client authenticated, or may have.
        authenticated: bool,
    },
    /// A message has its id, or will have none (`None`).
    Begun {
        /// The new one.
        id: Option<&'a str>,
        /// That tells of it.
        process: Option<u32>,
        /// Who it is from.
        sender: Sender<'a>,
        /// The id that the same message had before it went through a filter.
        before: Option<&'a str>,
    },
    /// A recipient was refused while the client waited.
    Refused {
        /// Of the message, if it has one.
        id: Option<&'a str>,
        /// That tells of it.
        process: Option<u32>,
        /// Who asked.
        sender: Sender<'a>,
        /// The address.
        recipient: &'a str,
        /// Whether it exists.
        outcome: Outcome,
    },
    /// What became of one recipient of a message in the end.
    Settled {
        /// Of the message.
        id: &'a str,
        /// The address, as the client gave it.
        recipient: &'a str,
        /// Delivered, or bounced, and why.
        outcome: Outcome,
        /// The id that it has in the queue into which a filter on this machine put it back.
        passed_on: Option<&'a str>,
    },
    /// A message has left the queue; its id may be used again.
    Gone {
        /// Of the message.
        id: &'a str,
    },
    /// Gatepost asked the upstream about a recipient.
    Probed {
        /// The session.
        session: Cow<'a, str>,
        /// As Gatepost writes it.
        account: Cow<'a, str>,
        /// The address.
        recipient: Cow<'a, str>,
        /// What the upstream said.
        outcome: Outcome,
    },
    /// Gatepost counted an invalid recipient: the one that it asked about just before, or one that no upstream was asked about.
    Counted {
        /// The session.
        session: Cow<'a, str>,
        /// As Gatepost writes it.
        account: Cow<'a, str>,
        /// The address.
        recipient: Cow<'a, str>,
    },
    /// Gatepost relayed a message, or parked one whose recipients had been asked about.
    Transferred {
        /// The session.
        session: Cow<'a, str>,
        /// As Gatepost writes it.
        account: Cow<'a, str>,
        /// Addresses, separated by commas.
        accepted: Cow<'a, str>,
    },
}

/// A line of one of our programs that breaks off, or says something else than such lines do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

/// What a line says, if it says anything that matters here.
pub type Said<'a> = Result<Option<Record<'a>>, Broken>;

/// `550 5.1.1 text` as the reply that it was; `None` where no reply code stands in front.
pub(super) fn reply(text: &str) -> Option<Reply> {
    let (code, rest) = text.split_at_checked(3)?;
    let code = code.parse().ok().filter(|code| (200..600).contains(code))?;
    let rest = rest.strip_prefix([' ', '-']).or(rest.is_empty().then_some(rest))?;
    let (enhanced, text) = match rest.split_once(' ') {
        Some((first, after)) => match first.parse::<Enhanced>() {
            Ok(enhanced) if u16::from(enhanced.class) == code / 100 => (Some(enhanced), after),
            _ => (None, rest),
        },
        None => (None, rest),
    };
    Some(Reply { code, enhanced, text: Cow::Owned(text.to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies() {
        for (text, expected) in [
            ("550 5.1.1 <x@y>: no", Some("550 5.1.1 <x@y>: no")),
            ("550-5.1.1 a 550 5.1.1 b", Some("550 5.1.1 a 550 5.1.1 b")),
            ("550 User unknown", Some("550 User unknown")),
            ("550 4.1.1 odd", Some("550 4.1.1 odd")),
            ("450", Some("450")),
            ("5501 x", None),
            ("99 x", None),
            ("é50 x", None),
            ("", None),
        ] {
            assert_eq!(reply(text).map(|reply| reply.to_string()).as_deref(), expected, "{text}");
        }
    }
}
