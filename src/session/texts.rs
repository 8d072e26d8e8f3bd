//! All of Gatepost's own replies: code, enhanced status code (RFC 3463, 5248) and text.
//!
//! The codes are those of CONTRACT, SMTP. The texts say what to do, and say the same to a blocked account as to any
//! other.

use std::borrow::Cow;

use super::UpstreamFault;
use crate::smtp::{CommandError, Enhanced, Reply};

const fn own(code: u16, subject: u16, detail: u16, text: &'static str) -> Reply {
    Reply::fixed(code, Enhanced { class: (code / 100) as u8, subject, detail }, text)
}

/// Declares the replies, and collects them for the tests.
macro_rules! replies {
    ($($(#[$note:meta])* $visible:vis const $name:ident: Reply = $reply:expr;)*) => {
        $($(#[$note])* $visible const $name: Reply = $reply;)*

        /// All replies, by name.
        #[cfg(test)]
        const ALL: &[(&str, Reply)] = &[$((stringify!($name), $name)),*];
    };
}

replies! {
    pub(super) const BYE: Reply = own(221, 0, 0, "Bye");
    pub(super) const OK: Reply = own(250, 0, 0, "Ok");
    pub(super) const READY_FOR_TLS: Reply = own(220, 0, 0, "Ready to start TLS");
    pub(super) const HELP: Reply = own(214, 0, 0, "See RFC 5321 and RFC 6409");
    pub(super) const NOT_VERIFIED: Reply = own(252, 1, 5, "Send some mail, I'll try my best");
    pub(super) const NO_EXPN: Reply = own(502, 5, 1, "EXPN is not implemented");
    pub(super) const AUTHENTICATED: Reply = own(235, 7, 0, "Authentication successful");
    /// RFC 5321 4.2.1: 354 has no enhanced status code (RFC 2034 3).
    pub(super) const GO_AHEAD: Reply =
        Reply { code: 354, enhanced: None, text: Cow::Borrowed("End data with <CR><LF>.<CR><LF>") };

    pub(super) const SAY_HELLO: Reply = own(503, 5, 1, "Send EHLO first");
    pub(super) const TLS_ALREADY: Reply = own(503, 5, 1, "TLS is active already");
    pub(super) const AUTHENTICATED_ALREADY: Reply = own(503, 5, 1, "Already authenticated");
    pub(super) const IN_TRANSACTION: Reply = own(503, 5, 1, "A mail transaction is under way; send RSET first");
    pub(super) const NEED_MAIL: Reply = own(503, 5, 1, "Send MAIL first");
    pub(super) const NESTED_MAIL: Reply = own(503, 5, 1, "MAIL was given already; send RSET first");
    pub(super) const IN_CHUNKS: Reply =
        own(503, 5, 1, "The message is being sent by BDAT; go on with it or send RSET");
    pub(super) const BINARY_NEEDS_BDAT: Reply = own(503, 5, 1, "A message of BODY=BINARYMIME is sent by BDAT");
    pub(super) const NO_RECIPIENTS: Reply = own(554, 5, 1, "No valid recipients");
    pub(super) const NEED_TLS: Reply = own(530, 7, 0, "Must issue a STARTTLS command first");
    pub(super) const NEED_AUTH: Reply = own(530, 7, 0, "Authentication required");
    /// Historic in RFC 4954, and still the most exact code.
    pub(super) const AUTH_IN_CLEAR: Reply = own(538, 7, 11, "Encryption required: send STARTTLS before AUTH");
    pub(super) const NO_AUTH: Reply = own(502, 5, 1, "AUTH is not offered here");
    pub(super) const NO_SUCH_MECHANISM: Reply = own(504, 5, 4, "This SASL mechanism is not offered");
    pub(super) const BAD_CREDENTIALS: Reply = own(535, 7, 8, "Authentication credentials invalid");
    pub(super) const SASL_SYNTAX: Reply = own(501, 5, 2, "Malformed message for this SASL mechanism");
    pub(super) const SASL_BASE64: Reply = own(501, 5, 2, "Not valid base64");
    pub(super) const SASL_CANCELLED: Reply = own(501, 7, 0, "Authentication cancelled");
    pub(super) const SASL_TOO_LONG: Reply = own(500, 5, 6, "Authentication exchange line is too long");
    pub(super) const AUTH_LATER: Reply =
        own(454, 7, 0, "Authentication is not possible for now; try again later");

    pub(super) const OTHER_PROTOCOL: Reply = own(500, 5, 1, "This is an SMTP server; closing the connection");
    pub(super) const LINE_TOO_LONG: Reply = own(500, 5, 2, "Line too long");
    pub(super) const LINE_FAULT: Reply =
        own(500, 5, 2, "Lines must end in CRLF and contain no other CR, LF or NUL");
    pub(super) const TOO_BIG: Reply = own(552, 3, 4, "The message or its header is too big");
    pub(super) const TOO_MANY_RECIPIENTS: Reply = own(452, 5, 3, "Too many recipients in one transaction");
    pub(super) const NEEDS_SMTPUTF8: Reply = own(553, 6, 7, "An address that is not ASCII needs SMTPUTF8");
    /// RFC 6531 3.5: 550 to MAIL, 553 to RCPT.
    pub(super) const SENDER_NEEDS_SMTPUTF8: Reply = own(550, 6, 7, "An address that is not ASCII needs SMTPUTF8");
    pub(super) const NO_PATH: Reply = own(501, 1, 3, "Bad recipient address syntax");
    pub(super) const PARAMETER_UNKNOWN: Reply = own(555, 5, 4, "A parameter of MAIL or RCPT is not offered here");

    pub(super) const BAD_NEWLINE: Reply =
        own(554, 6, 0, "The message has a bare CR, a bare LF or a NUL in it, and was not accepted");
    pub(super) const FOREIGN_SENDER: Reply = own(550, 7, 1, "This account may not send with this sender address");
    pub(super) const FOREIGN_FROM: Reply =
        own(550, 7, 1, "This account may not send with the address in From:, or it cannot be read");
    pub(super) const LOOP: Reply = own(554, 4, 6, "Too many Received: lines: this message goes round in circles");
    pub(super) const QUARANTINE_FULL: Reply = own(452, 3, 1, "Insufficient system storage; try again later");
    /// RFC 3463 3.4: X.3.2, the system accepts no messages at present; not the reply of a full quarantine.
    pub(super) const NO_MEMORY: Reply = own(452, 3, 2, "Too many messages at the same time; try again later");
    pub(super) const LOCAL_TROUBLE: Reply = own(451, 3, 0, "Local error in processing; try again later");
    pub(super) const BLOCKED: Reply = own(550, 7, 1, "This account may not send for now; ask your postmaster");
    pub(super) const UPSTREAM_UNAVAILABLE: Reply =
        own(451, 4, 1, "The mail server does not answer; try again later");
    pub(super) const UPSTREAM_BUSY: Reply =
        own(451, 3, 2, "All mail server connections are in use; try again later");
    pub(super) const UPSTREAM_PROTOCOL: Reply = own(451, 3, 0, "The mail server is in trouble; try again later");
    pub(super) const UPSTREAM_AMBIGUOUS: Reply =
        own(451, 4, 2, "The mail server did not answer at the end of data; try again later");

    pub(super) const TOO_MANY_ERRORS: Reply = own(421, 7, 0, "Too many errors; closing the connection");
    /// Replaces the greeting when a connection limit is exceeded (server/).
    pub const TOO_MANY_CONNECTIONS: Reply = own(421, 7, 0, "Too many connections; try again later");
    pub(super) const TOO_MANY_SESSIONS: Reply =
        own(421, 7, 0, "This account has too many sessions; try again later");
    pub(super) const TOO_MANY_TRANSACTIONS: Reply =
        own(421, 7, 0, "Too many transactions in one session; connect again");
    pub(super) const ENDED: Reply = own(421, 7, 0, "This session has been ended; log in again");
    pub(super) const TIMED_OUT: Reply = own(421, 4, 2, "Timed out; closing the connection");
    pub(super) const SHUTTING_DOWN: Reply = own(421, 3, 2, "The service is shutting down; try again later");
}

/// Returns the reply to a line that is not a command.
pub(super) fn command_error(error: &CommandError) -> Reply {
    match error {
        CommandError::Unknown => own(500, 5, 1, "Unknown command"),
        CommandError::Http => OTHER_PROTOCOL,
        // RFC 5321 4.1.2: 501 to invalid character codes.
        CommandError::Character => own(501, 5, 2, "Commands may contain only printable characters"),
        CommandError::Arguments(right) => own(501, 5, 4, right),
        CommandError::ChunkSize => own(501, 5, 4, "Syntax: BDAT chunk-size [LAST]"),
        CommandError::ReversePath => own(501, 1, 7, "Bad sender address syntax"),
        CommandError::ForwardPath { .. } => NO_PATH,
        CommandError::Parameter => PARAMETER_UNKNOWN,
        CommandError::ParameterValue(name) => {
            let mut reply = own(501, 5, 4, "");
            reply.text = Cow::Owned(format!("Bad value of parameter {name}"));
            reply
        }
        CommandError::Rcpt(error) => command_error(error),
    }
}

/// Returns the reply for an upstream that gave no answer.
pub(super) fn upstream_fault(fault: UpstreamFault) -> Reply {
    match fault {
        UpstreamFault::Unavailable | UpstreamFault::Starved => UPSTREAM_UNAVAILABLE,
        UpstreamFault::Busy => UPSTREAM_BUSY,
        UpstreamFault::Protocol => UPSTREAM_PROTOCOL,
        UpstreamFault::Ambiguous => UPSTREAM_AMBIGUOUS,
    }
}

/// Returns the reply to an accepted chunk (RFC 5321 4.2.5, RFC 3030 2).
pub(super) fn chunk_received(octets: u64) -> Reply {
    let mut reply = OK;
    reply.text = Cow::Owned(format!("{octets} octets received"));
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 2034 4, 5321 4.2: each has an enhanced code of its class on every line; except 354, as no 3yz has one.
    #[test]
    fn every_reply_has_its_enhanced_code() {
        let rcpt = |error| CommandError::Rcpt(Box::new(error));
        let errors = [
            CommandError::Unknown,
            CommandError::Http,
            CommandError::Character,
            CommandError::Arguments("Syntax: DATA"),
            CommandError::ChunkSize,
            CommandError::ReversePath,
            CommandError::ForwardPath { harvested: None },
            CommandError::Parameter,
            CommandError::ParameterValue("SIZE"),
            rcpt(CommandError::Parameter),
            rcpt(CommandError::ParameterValue("NOTIFY")),
        ];
        let said = errors.iter().map(|error| ("command_error", command_error(error)));
        let others = said.chain([("chunk_received", chunk_received(7))]);
        for (name, reply) in ALL.iter().map(|(name, reply)| (*name, reply.clone())).chain(others) {
            if name == "GO_AHEAD" {
                assert_eq!((reply.code, reply.enhanced), (354, None));
                continue;
            }
            let class = reply.enhanced.map(|enhanced| u16::from(enhanced.class));
            assert_eq!(class, Some(reply.code / 100), "{name}");
            assert!(matches!(reply.code / 100, 2 | 4 | 5) && !reply.text.is_empty(), "{name}");
            let mut wire = Vec::new();
            reply.encode(&mut wire);
            let wire = String::from_utf8(wire).unwrap();
            let enhanced = reply.enhanced.map(|enhanced| enhanced.to_string()).unwrap_or_default();
            for line in wire.split_terminator("\r\n") {
                assert_eq!(
                    line.get(4..).and_then(|text| text.split(' ').next()),
                    Some(enhanced.as_str()),
                    "{name}"
                );
            }
        }
    }

    /// No other reply of ours is made in the session, and only the greeting and EHLO's go out without an enhanced code.
    #[test]
    fn no_reply_is_made_elsewhere() {
        let machine = include_str!("mod.rs");
        assert_eq!(
            machine.matches("Reply { code").count(),
            machine.matches(".encode_plain(").count(),
            "greeting and EHLO"
        );
        assert_eq!(machine.matches(".encode_plain(").count(), 2, "greeting and EHLO");
        for (file, source) in
            [("transaction.rs", include_str!("transaction.rs")), ("queue.rs", include_str!("queue.rs"))]
        {
            assert!(!source.contains("Reply {") && !source.contains(".encode_plain("), "{file}");
        }
    }
}
