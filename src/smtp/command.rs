//! One command line to one [`Command`], and MAIL and RCPT back to the line that goes upstream.
//!
//! Verbs without regard to case; arguments by the grammar of RFC 5321 4.1.1, 3207, 4954, 3030. What is wrong is said
//! as exactly as a reply can say it. Nothing here knows whether the command is allowed now.

use super::{Extensions, ForwardPath, MailParameters, RcptParameters, ReversePath};

/// A command, with valid arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `EHLO` with a domain or address literal, or whatever printable text the client thinks it is.
    Ehlo(String),
    /// `HELO`, likewise.
    Helo(String),
    /// `STARTTLS` (RFC 3207)
    StartTls,
    /// `AUTH` (RFC 4954 4)
    Auth {
        /// Upper case.
        mechanism: String,
        /// The initial response, base64 as it stands in the line; `=` is the empty one.
        initial: Option<String>,
    },
    /// `MAIL`
    Mail(MailCommand),
    /// `RCPT`
    Rcpt(RcptCommand),
    /// `DATA`
    Data,
    /// `BDAT` (RFC 3030)
    Bdat {
        /// Octets that follow the line.
        size: u64,
        /// Whether this chunk ends the message.
        last: bool,
    },
    /// `RSET`
    Rset,
    /// `NOOP`, whatever follows it
    Noop,
    /// `QUIT`
    Quit,
    /// `VRFY` with an argument
    Vrfy,
    /// `EXPN` with an argument
    Expn,
    /// `HELP`, whatever follows it
    Help,
}

/// `MAIL FROM:`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailCommand {
    /// Who gets the DSNs.
    pub reverse_path: ReversePath,
    /// The parameters.
    pub parameters: MailParameters,
}

/// `RCPT TO:`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RcptCommand {
    /// Who is to get the message.
    pub forward_path: ForwardPath,
    /// The parameters.
    pub parameters: RcptParameters,
}

/// Why a line is no command. Each has one reply (session/texts.rs).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No verb that we know: 500 5.5.1 (RFC 5321 4.2.4: 500 for unrecognised; 502 for not implemented)
    #[error("unknown command")]
    Unknown,
    /// A control character, or octets that are no UTF-8: 500 5.5.2
    #[error("a character that no command has")]
    Character,
    /// The verb is known, its arguments are not: 501 5.5.4, with what would be right
    #[error("{0}")]
    Arguments(&'static str),
    /// A reverse-path that is none: 501 5.1.7
    #[error("no reverse-path")]
    ReversePath,
    /// A forward-path that is none: 501 5.1.3. `harvested` is the path's octets where it stands in brackets with an
    /// `@` in it, and so counts as an invalid recipient (CONTRACT, Classification); `None` where it does not count.
    #[error("no forward-path")]
    ForwardPath {
        /// The octets between the brackets.
        harvested: Option<Vec<u8>>,
    },
    /// A parameter that we did not offer: 555 5.5.4 (RFC 5321 4.1.1.11)
    #[error("unknown parameter")]
    Parameter,
    /// A known parameter with a value that is none: 501 5.5.4
    #[error("bad value of parameter {0}")]
    ParameterValue(&'static str),
}

impl Command {
    /// Reads one line, without its CRLF. Blanks at its end are ignored (RFC 5321 4.1.1).
    ///
    /// # Errors
    /// See [`CommandError`].
    pub fn parse(_line: &[u8]) -> Result<Self, CommandError> {
        todo!()
    }
}

impl MailCommand {
    /// Whether the upstream can be told all of it; names the first extension that is missing.
    /// SIZE alone is left out silently where the upstream does not know it.
    pub fn missing_extension(&self, _upstream: &Extensions) -> Option<&'static str> {
        todo!()
    }

    /// Appends `MAIL FROM:<...> ...` CRLF, with the parameters that `upstream` knows.
    pub fn encode(&self, _upstream: &Extensions, _out: &mut Vec<u8>) {
        todo!()
    }
}

impl RcptCommand {
    /// As [`MailCommand::missing_extension`].
    pub fn missing_extension(&self, _upstream: &Extensions) -> Option<&'static str> {
        todo!()
    }

    /// Appends `RCPT TO:<...> ...` CRLF.
    pub fn encode(&self, _upstream: &Extensions, _out: &mut Vec<u8>) {
        todo!()
    }
}
