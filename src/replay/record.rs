//! What one log line says about a message or a recipient, whichever program wrote it.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::guard::classify::Outcome;
use crate::smtp::{Enhanced, Reply};

/// The client that a line names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender<'a> {
    /// An authenticated user; the name is empty if the line does not have it.
    User(&'a str),
    /// A client at this address that did not authenticate.
    Host(IpAddr),
    /// A program on the machine itself.
    Local,
    /// The line does not say.
    Untold,
}

/// What one line says. An `id` is a queue id, unique on its machine for a while; a `process` is one that serves one
/// session at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record<'a> {
    /// A session began.
    Connected {
        /// The process id of smtpd.
        process: u32,
    },
    /// A session ended.
    Disconnected {
        /// The process id of smtpd.
        process: u32,
        /// Whether the client authenticated, or may have.
        authenticated: bool,
    },
    /// A message was given its id, or will have none (`None`).
    Begun {
        /// Its new id.
        id: Option<&'a str>,
        /// The process that reports it.
        process: Option<u32>,
        /// The client.
        sender: Sender<'a>,
        /// The id of the same message before it passed a filter.
        before: Option<&'a str>,
    },
    /// A recipient was refused while the client waited.
    Refused {
        /// The id of the message, if it has one.
        id: Option<&'a str>,
        /// The process that reports it.
        process: Option<u32>,
        /// The client.
        sender: Sender<'a>,
        /// The address.
        recipient: &'a str,
        /// Whether it exists.
        outcome: Outcome,
    },
    /// The fate of one recipient of a message.
    Settled {
        /// The id of the message.
        id: &'a str,
        /// The address as the client gave it.
        recipient: &'a str,
        /// Delivered or bounced, and why.
        outcome: Outcome,
        /// The id in the queue into which a filter on this machine returned the message.
        passed_on: Option<&'a str>,
    },
    /// A message left the queue; its id may be reused.
    Gone {
        /// The id of the message.
        id: &'a str,
    },
    /// Gatepost asked the upstream about a recipient.
    Probed {
        /// The session.
        session: Cow<'a, str>,
        /// As spelled by Gatepost.
        account: Cow<'a, str>,
        /// The address.
        recipient: Cow<'a, str>,
        /// The upstream's answer.
        outcome: Outcome,
    },
    /// Gatepost counted an invalid recipient: the one that it asked about just before, or one that the upstream was not
    /// asked about.
    Counted {
        /// The session.
        session: Cow<'a, str>,
        /// As spelled by Gatepost.
        account: Cow<'a, str>,
        /// The address.
        recipient: Cow<'a, str>,
    },
    /// Gatepost relayed a message, or parked one whose recipients the upstream was asked about.
    Transferred {
        /// The session.
        session: Cow<'a, str>,
        /// As spelled by Gatepost.
        account: Cow<'a, str>,
        /// Addresses, separated by commas.
        accepted: Cow<'a, str>,
    },
}

/// A line of one of the known programs that is truncated or does not have the expected form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

/// What a line says, if that matters here.
pub type Said<'a> = Result<Option<Record<'a>>, Broken>;

/// Parses `550 5.1.1 text` into a reply; `None` if it does not begin with a reply code.
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
