//! Parses a command line into a [`Command`], and writes MAIL and RCPT for the upstream.
//!
//! Verbs are case-insensitive; arguments follow the grammar of RFC 5321 4.1.1, 3207, 4954, 3030. Errors are as exact as
//! a reply can be. Nothing here knows whether a command is allowed now.

use super::grammar::Upper;
use super::path::{PathError, split_brackets};
use super::{Extensions, ForwardPath, MailParameters, RcptParameters, ReversePath};

/// The longest name of a SASL mechanism (RFC 4422 3.1).
const MAX_MECHANISM: usize = 20;
/// Room for MAIL or RCPT with the usual parameters, in octets, without the address.
const ROOM_FOR_LINE: usize = 64;
/// The methods of HTTP (RFC 9110 9.3, 5789) and the start of HTTP/2 (RFC 9113 3.4). None is an SMTP verb.
const HTTP: &[&str] =
    &["GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PATCH", "PRI"];

/// The length of the longest of [`HTTP`], in octets.
pub const HTTP_METHOD: usize = 7;

/// Whether the word is an HTTP method, in any case.
pub fn is_http_method(word: &[u8]) -> bool {
    HTTP.iter().any(|method| word.eq_ignore_ascii_case(method.as_bytes()))
}

/// A command with valid arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `EHLO` with a domain, an address literal, or whatever printable text the client sends.
    Ehlo(String),
    /// `HELO`, likewise.
    Helo(String),
    /// `STARTTLS` (RFC 3207)
    StartTls,
    /// `AUTH` (RFC 4954 4)
    Auth {
        /// The mechanism, in upper case.
        mechanism: String,
        /// The initial response, in base64 as written; `=` is the empty one.
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
        /// The number of octets that follow the line.
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
    /// The address that DSNs go to.
    pub reverse_path: ReversePath,
    /// The parameters; boxed, since commands move a lot and these are large.
    pub parameters: Box<MailParameters>,
}

/// `RCPT TO:`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RcptCommand {
    /// The recipient.
    pub forward_path: ForwardPath,
    /// The parameters.
    pub parameters: RcptParameters,
}

/// Why a line is not a command. Each error has one reply (session/texts.rs).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// An unknown verb: 500 5.5.1 (RFC 5321 4.2.4: 500 for unrecognised, 502 for not implemented)
    #[error("unknown command")]
    Unknown,
    /// An HTTP request: what follows may be a form that a browser was made to send, with commands in it (ALPACA)
    #[error("HTTP")]
    Http,
    /// A control character, or invalid UTF-8: 501 5.5.2 (RFC 5321 4.1.2)
    #[error("a character that no command has")]
    Character,
    /// A known verb with wrong arguments: 501 5.5.4, with the right syntax
    #[error("{0}")]
    Arguments(&'static str),
    /// A BDAT that does not say how many octets follow: 501 5.5.4; what follows cannot be told from commands
    #[error("Syntax: BDAT chunk-size [LAST]")]
    ChunkSize,
    /// A malformed reverse-path: 501 5.1.7
    #[error("no reverse-path")]
    ReversePath,
    /// A malformed forward-path: 501 5.1.3. `harvested` has its octets if it is in brackets and contains an `@`, and so
    /// counts as an invalid recipient (CONTRACT, Classification); `None` if it does not count.
    #[error("no forward-path")]
    ForwardPath {
        /// The octets between the brackets.
        harvested: Option<Vec<u8>>,
    },
    /// A parameter that was not offered: 555 5.5.4 (RFC 5321 4.1.1.11)
    #[error("unknown parameter")]
    Parameter,
    /// A malformed value of a known parameter: 501 5.5.4
    #[error("bad value of parameter {0}")]
    ParameterValue(&'static str),
    /// Any of these but `ForwardPath` in a RCPT: the same reply, which does not count as an error of the session
    /// (CONTRACT)
    #[error("{0}")]
    Rcpt(Box<Self>),
}

impl Command {
    /// Parses one line without its CRLF. Trailing blanks are ignored (RFC 5321 4.1.1).
    ///
    /// # Errors
    /// See [`CommandError`].
    pub fn parse(line: &[u8]) -> Result<Self, CommandError> {
        let verb = || line.split(|octet| *octet == b' ').next();
        let is_rcpt = || verb().is_some_and(|verb| verb.eq_ignore_ascii_case(b"RCPT"));
        Self::read(line).map_err(|error| match error {
            CommandError::ForwardPath { .. } => error,
            CommandError::Character if is_rcpt() && harvested(line).is_some() => {
                CommandError::ForwardPath { harvested: harvested(line) }
            }
            _ if is_rcpt() => CommandError::Rcpt(Box::new(error)),
            _ => error,
        })
    }

    fn read(line: &[u8]) -> Result<Self, CommandError> {
        let text = std::str::from_utf8(line).map_err(|_| CommandError::Character)?;
        let text = text.trim_end_matches([' ', '\t']);
        if has_control(text) {
            return Err(CommandError::Character);
        }
        // A verb is short: a loop finds its end sooner than a search would begin.
        let (verb, arguments) = match text.bytes().position(|octet| octet == b' ') {
            Some(blank) => (&text[..blank], &text[blank + 1..]),
            None => (text, ""),
        };
        let arguments = arguments.trim_start_matches(' ');
        let alone = |command: Self, syntax| match arguments {
            "" => Ok(command),
            _ => Err(CommandError::Arguments(syntax)),
        };
        let some = |syntax| match arguments {
            "" => Err(CommandError::Arguments(syntax)),
            _ => Ok(arguments),
        };
        match Upper::of(verb).octets() {
            b"EHLO" => Ok(Self::Ehlo(some("Syntax: EHLO domain or address literal")?.to_owned())),
            b"HELO" => Ok(Self::Helo(some("Syntax: HELO domain")?.to_owned())),
            b"STARTTLS" => alone(Self::StartTls, "Syntax: STARTTLS, without parameters"),
            b"AUTH" => auth(arguments),
            b"MAIL" => mail(arguments).map(Self::Mail),
            b"RCPT" => rcpt(arguments).map(Self::Rcpt),
            b"DATA" => alone(Self::Data, "Syntax: DATA, without parameters"),
            b"BDAT" => bdat(arguments),
            b"RSET" => alone(Self::Rset, "Syntax: RSET, without parameters"),
            b"NOOP" => Ok(Self::Noop),
            b"QUIT" => alone(Self::Quit, "Syntax: QUIT, without parameters"),
            b"VRFY" => some("Syntax: VRFY address").map(|_| Self::Vrfy),
            b"EXPN" => some("Syntax: EXPN list").map(|_| Self::Expn),
            b"HELP" => Ok(Self::Help),
            verb if is_http_method(verb) => Err(CommandError::Http),
            _ => Err(CommandError::Unknown),
        }
    }
}

/// Whether there is a control character, C1 included.
fn has_control(text: &str) -> bool {
    if text.is_ascii() {
        text.bytes().fold(false, |control, octet| control | octet.is_ascii_control())
    } else {
        text.chars().any(char::is_control)
    }
}

/// `AUTH mechanism [initial-response]`
fn auth(arguments: &str) -> Result<Command, CommandError> {
    let mut words = arguments.split(' ').filter(|word| !word.is_empty());
    let mechanism = words.next().unwrap_or_default().to_ascii_uppercase();
    let initial = words.next().map(str::to_owned);
    let is_mechanism = matches!(mechanism.len(), 1..=MAX_MECHANISM)
        && mechanism.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_');
    if !is_mechanism || words.next().is_some() {
        return Err(CommandError::Arguments("Syntax: AUTH mechanism [initial-response]"));
    }
    Ok(Command::Auth { mechanism, initial })
}

/// `BDAT chunk-size [LAST]` (RFC 3030 2)
fn bdat(arguments: &str) -> Result<Command, CommandError> {
    let (size, marker) = arguments.split_once(' ').unwrap_or((arguments, ""));
    let last = match marker.trim_start_matches(' ') {
        "" => Some(false),
        marker => marker.eq_ignore_ascii_case("LAST").then_some(true),
    };
    // The standard library's parser accepts a leading `+`.
    let size = size.bytes().all(|octet| octet.is_ascii_digit()).then(|| size.parse().ok()).flatten();
    match (size, last) {
        (Some(size), Some(last)) => Ok(Command::Bdat { size, last }),
        _ => Err(CommandError::ChunkSize),
    }
}

fn mail(arguments: &str) -> Result<MailCommand, CommandError> {
    const SYNTAX: CommandError = CommandError::Arguments("Syntax: MAIL FROM:<address> [parameters]");
    let text = after_keyword(arguments, "FROM:").ok_or(SYNTAX)?;
    let (path, rest) = split_brackets(text).map_err(|_| CommandError::ReversePath)?;
    let reverse_path = ReversePath::parse(path).map_err(|_| CommandError::ReversePath)?;
    if !is_parameter_list(rest) {
        return Err(SYNTAX);
    }
    Ok(MailCommand { reverse_path, parameters: Box::new(MailParameters::parse(rest)?) })
}

fn rcpt(arguments: &str) -> Result<RcptCommand, CommandError> {
    const SYNTAX: CommandError = CommandError::Arguments("Syntax: RCPT TO:<address> [parameters]");
    let text = after_keyword(arguments, "TO:").ok_or(SYNTAX)?;
    let (path, rest) = split_brackets(text).map_err(|_| CommandError::ForwardPath { harvested: None })?;
    let forward_path = ForwardPath::parse(path).map_err(|error| CommandError::ForwardPath {
        harvested: (error != PathError::NoDomain).then(|| path.as_bytes().to_vec()),
    })?;
    if !is_parameter_list(rest) {
        return Err(SYNTAX);
    }
    Ok(RcptCommand { forward_path, parameters: RcptParameters::parse(rest)? })
}

/// Returns the octets in the brackets of a RCPT, if an `@` and an invalid character are among them.
fn harvested(line: &[u8]) -> Option<Vec<u8>> {
    let (_, arguments) = line.split_at(line.iter().position(|octet| *octet == b'<')?);
    // Latin-1 has a character for each octet, so the path ends where it would end if it were sound.
    let text: String = arguments.iter().copied().map(char::from).collect();
    let length = split_brackets(&text).ok()?.0.chars().count();
    let path = arguments.get(1..=length).filter(|path| path.contains(&b'@'))?;
    let sound = std::str::from_utf8(path).is_ok_and(|path| !path.chars().any(char::is_control));
    (!sound).then(|| path.to_vec())
}

/// Returns what follows `FROM:` or `TO:`; devices put blanks after the colon (RFC 5321 3.3 calls it a common fault).
fn after_keyword<'a>(arguments: &'a str, keyword: &str) -> Option<&'a str> {
    let (front, rest) = arguments.split_at_checked(keyword.len())?;
    front.eq_ignore_ascii_case(keyword).then(|| rest.trim_start_matches(' '))
}

fn is_parameter_list(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with(' ')
}

impl MailCommand {
    /// Returns the first extension that the upstream lacks for this command. SIZE and BODY=7BIT, the default, need
    /// none: they are left out if the upstream does not know them.
    pub fn missing_extension(&self, upstream: &Extensions) -> Option<&'static str> {
        if !self.reverse_path.is_ascii() && !upstream.smtputf8 {
            return Some("SMTPUTF8");
        }
        self.parameters.missing_extension(upstream)
    }

    /// Appends `MAIL FROM:<...> ...` CRLF, with the parameters that `upstream` knows.
    pub fn encode(&self, upstream: &Extensions, out: &mut Vec<u8>) {
        out.reserve(ROOM_FOR_LINE + self.reverse_path.as_str().len());
        out.extend_from_slice(b"MAIL FROM:<");
        out.extend_from_slice(self.reverse_path.as_str().as_bytes());
        out.push(b'>');
        self.parameters.encode(upstream, out);
        out.extend_from_slice(b"\r\n");
    }
}

impl RcptCommand {
    /// As [`MailCommand::missing_extension`].
    pub fn missing_extension(&self, upstream: &Extensions) -> Option<&'static str> {
        if !self.forward_path.is_ascii() && !upstream.smtputf8 {
            return Some("SMTPUTF8");
        }
        self.parameters.missing_extension(upstream)
    }

    /// Appends `RCPT TO:<...> ...` CRLF.
    pub fn encode(&self, upstream: &Extensions, out: &mut Vec<u8>) {
        out.reserve(ROOM_FOR_LINE + self.forward_path.as_str().len());
        out.extend_from_slice(b"RCPT TO:<");
        out.extend_from_slice(self.forward_path.as_str().as_bytes());
        out.push(b'>');
        self.parameters.encode(upstream, out);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::further::{Further, FutureRelease};
    use crate::smtp::parameter::{Body, Notify, Ret};
    use proptest::prelude::*;

    fn everything() -> Extensions {
        Extensions {
            size: Some(None),
            eight_bit_mime: true,
            smtputf8: true,
            dsn: true,
            chunking: true,
            binary_mime: true,
            further: further(),
            ..Extensions::default()
        }
    }

    fn further() -> Further {
        Further {
            require_tls: true,
            deliver_by: Some(0),
            future_release: Some(FutureRelease { max_interval: 9, max_date_time: String::new() }),
            mt_priority: Some(String::new()),
            ..Further::default()
        }
    }

    fn mail(line: &str) -> MailCommand {
        match Command::parse(line.as_bytes()) {
            Ok(Command::Mail(mail)) => mail,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn rcpt(line: &str) -> RcptCommand {
        match Command::parse(line.as_bytes()) {
            Ok(Command::Rcpt(rcpt)) => rcpt,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn commands() {
        let auth = |mechanism: &str, initial: Option<&str>| Command::Auth {
            mechanism: mechanism.to_owned(),
            initial: initial.map(str::to_owned),
        };
        for (line, expected) in [
            ("EHLO client.example", Command::Ehlo("client.example".to_owned())),
            ("ehlo  [192.0.2.1] ", Command::Ehlo("[192.0.2.1]".to_owned())),
            ("EHLO Anna's PC", Command::Ehlo("Anna's PC".to_owned())), // devices say what they like
            ("HeLo x", Command::Helo("x".to_owned())),
            ("StartTLS", Command::StartTls),
            ("AUTH plain", auth("PLAIN", None)),
            ("AUTH PLAIN =", auth("PLAIN", Some("="))), // RFC 4954 4: an empty initial response
            ("AUTH SCRAM-SHA-256 biwsbj1h", auth("SCRAM-SHA-256", Some("biwsbj1h"))),
            ("data ", Command::Data),
            ("DATA\t", Command::Data), // RFC 5321 4.1.1: trailing white space
            ("BDAT 0 last", Command::Bdat { size: 0, last: true }),
            ("BDAT 18446744073709551615", Command::Bdat { size: u64::MAX, last: false }),
            ("RSET", Command::Rset),
            ("NOOP", Command::Noop),
            ("NOOP whatever this is", Command::Noop),
            ("QUIT", Command::Quit),
            ("VRFY anna", Command::Vrfy),
            ("EXPN list", Command::Expn),
            ("HELP", Command::Help),
            ("HELP MAIL", Command::Help),
        ] {
            assert_eq!(Command::parse(line.as_bytes()), Ok(expected), "{line}");
        }
    }

    #[test]
    fn what_is_no_command() {
        #[derive(Debug, PartialEq)]
        enum Kind {
            Unknown,
            Http,
            Character,
            Arguments,
            ChunkSize,
            Rcpt,
            Other,
        }
        for (line, expected) in [
            (&b""[..], Kind::Unknown),
            (b" NOOP", Kind::Unknown),
            (b"NOOPS", Kind::Unknown),
            (b"MAILFROM:<a@b>", Kind::Unknown),
            (b"TURN", Kind::Unknown),
            (b"GET / HTTP/1.1", Kind::Http),
            (b"POST /form HTTP/1.0", Kind::Http),
            (b"PRI * HTTP/2.0", Kind::Http),
            (b"connect x:25", Kind::Http),
            (b"GETS", Kind::Unknown),
            (b"NOOP\0", Kind::Character),
            (b"NO\tOP", Kind::Character),
            (b"NOOP a\x1b", Kind::Character),
            (b"NOOP a\rb", Kind::Character),
            (b"NOOP \x7f", Kind::Character),
            (b"NOOP \xc2\x85", Kind::Character), // a C1 control character
            (b"rcpt TO:<m\xfcller@example.org>", Kind::Other),
            (b"RCPT TO:<m\xfcller>", Kind::Rcpt),
            (b"RCPT TO:<a@b> \x01", Kind::Rcpt),
            (b"RCPT TO:<a@b\xfc", Kind::Rcpt),
            (b"EHLO", Kind::Arguments),
            (b"HELO ", Kind::Arguments),
            (b"STARTTLS now", Kind::Arguments),
            (b"DATA foo", Kind::Arguments),
            (b"RSET foo", Kind::Arguments),
            (b"QUIT foo", Kind::Arguments),
            (b"VRFY", Kind::Arguments),
            (b"EXPN", Kind::Arguments),
            (b"AUTH", Kind::Arguments),
            (b"AUTH PLAIN a b", Kind::Arguments),
            (b"AUTH PL.AIN", Kind::Arguments),
            (b"AUTH ABCDEFGHIJKLMNOPQRSTU", Kind::Arguments), // RFC 4422 3.1: 20 at most
            (b"BDAT", Kind::ChunkSize),
            (b"BDAT LAST", Kind::ChunkSize),
            (b"BDAT -1", Kind::ChunkSize),
            (b"BDAT +1", Kind::ChunkSize),
            (b"BDAT 1x", Kind::ChunkSize),
            (b"BDAT 1 LASTS", Kind::ChunkSize),
            (b"BDAT 1 LAST LAST", Kind::ChunkSize),
            (b"BDAT 18446744073709551616", Kind::ChunkSize), // never a wrapped length: what follows would be run
            (b"MAIL", Kind::Arguments),
            (b"MAIL <a@b>", Kind::Arguments),
            (b"MAIL FROM <a@b>", Kind::Arguments),
            (b"MAIL FROM :<a@b>", Kind::Arguments),
            (b"MAIL TO:<a@b>", Kind::Arguments),
            (b"MAIL FROM:<a@b>SIZE=1", Kind::Arguments),
            (b"RCPT", Kind::Rcpt),
            (b"RCPT TO:<a@b>>", Kind::Rcpt),
            ("RCPT TÖ:<a@b>".as_bytes(), Kind::Rcpt),
            ("RCPT T\u{20ac}".as_bytes(), Kind::Rcpt), // a split in the middle of a character
            (b"MAIL FROM:a@b", Kind::Other),
        ] {
            let kind = match Command::parse(line).unwrap_err() {
                CommandError::Unknown => Kind::Unknown,
                CommandError::Http => Kind::Http,
                CommandError::Character => Kind::Character,
                CommandError::Arguments(_) => Kind::Arguments,
                CommandError::ChunkSize => Kind::ChunkSize,
                CommandError::Rcpt(_) => Kind::Rcpt,
                _ => Kind::Other,
            };
            assert_eq!(kind, expected, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn paths_that_are_none() {
        for line in [
            "MAIL FROM:",
            "MAIL FROM:a@b",
            "MAIL FROM:<a>",
            "MAIL FROM:<a@b",
            "MAIL FROM:<a b@c>",
            "MAIL FROM:<postmaster>",
        ] {
            assert_eq!(Command::parse(line.as_bytes()), Err(CommandError::ReversePath), "{line}");
        }
        for path in [&b"m\xfcller@example.org"[..], b"a\x07@b", b"a@b\t"] {
            let expected = CommandError::ForwardPath { harvested: Some(path.to_vec()) };
            let line = [b"RCPT TO:<", path, b"> NOTIFY=NEVER"].concat();
            assert_eq!(Command::parse(&line), Err(expected), "{}", path.escape_ascii());
        }
        let path = &b"\"a>\xfc\"@b"[..]; // a bracket in quotes ends no path
        let expected = CommandError::ForwardPath { harvested: Some(path.to_vec()) };
        assert_eq!(Command::parse(&[b"RCPT TO:<", path, b">"].concat()), Err(expected));
        for line in [
            &b"RCPT TO:<a@b> ORCPT=rfc822;\t<a@b>"[..],
            b"RCPT TO:<a@b>\t<A M>",
            b"RCPT TO:<a@b> <\xfc>",
            b"RCPT TO:<a> <\xfc@b>",
        ] {
            // CONTRACT: malformed parameters do not count.
            let expected = CommandError::Rcpt(Box::new(CommandError::Character));
            assert_eq!(Command::parse(line), Err(expected), "{}", line.escape_ascii());
        }
        let long = format!("{}@example.org", "a".repeat(300));
        for (line, harvested) in [
            (format!("RCPT TO:<{long}>").as_str(), Some(long.as_str())), // RFC 5321 4.5.3.1.3
            ("RCPT TO:", None),
            ("RCPT TO:a@b", None), // CONTRACT: missing brackets do not count
            ("RCPT TO:<a@b", None),
            ("RCPT TO:a@b>", None),
            ("RCPT TO:<>", None),
            ("RCPT TO:<anna>", None), // nor does what has no @
            ("RCPT TO:<a b>", None),
            ("RCPT TO:<a b@c>", Some("a b@c")),
            ("RCPT TO:<a@b.>", Some("a@b.")),
            ("RCPT TO: < a@b >", Some(" a@b ")),
            ("RCPT TO:<a@b_c>", Some("a@b_c")),
            ("RCPT TO:<<a@b>>", Some("<a@b")),
            ("RCPT TO:<a@b@c> FOO", Some("a@b@c")), // the path is judged before the parameters
            ("RCPT TO:<20261124.AA$1f@>", Some("20261124.AA$1f@")),
            (r#"RCPT TO:<"a@b">"#, Some(r#""a@b""#)),
            (r#"RCPT TO:<a"b@c> NOTIFY=NEVER"#, Some(r#"a"b@c"#)),
        ] {
            let harvested = harvested.map(|text| text.as_bytes().to_vec());
            assert_eq!(
                Command::parse(line.as_bytes()),
                Err(CommandError::ForwardPath { harvested }),
                "{line}"
            );
        }
    }

    #[test]
    fn parameters_of_mail() {
        let parsed = mail("mail from:<> size=1000 body=8bitmime SMTPUTF8 ret=hdrs ENVID=QQ+2B1 AUTH=<>");
        assert_eq!(parsed.reverse_path, ReversePath::Null);
        assert_eq!(
            *parsed.parameters,
            MailParameters {
                size: Some(1000),
                body: Some(Body::EightBitMime),
                smtputf8: true,
                ret: Some(Ret::Hdrs),
                envid: Some("QQ+2B1".to_owned()),
                ..MailParameters::default()
            }
        );
        assert_eq!(*mail("MAIL FROM:  <a@b>").parameters, MailParameters::default());
        assert_eq!(mail("MAIL FROM:<a@b>  SIZE=99999999999999999999").parameters.size, Some(u64::MAX));
        assert_eq!(*mail("MAIL FROM:<a@b> AUTH=e+3Dmc2@example.com").parameters, MailParameters::default());
        let (long, longer) = (format!("ENVID={}", "+41".repeat(100)), format!("ENVID={}", "a".repeat(101)));
        assert!(mail(&format!("MAIL FROM:<a@b> {long}")).parameters.envid.is_some());
        for (parameter, expected) in [
            ("FOO", CommandError::Parameter),
            ("FOO=BAR", CommandError::Parameter),
            ("=", CommandError::Parameter),
            ("NOTIFY=NEVER", CommandError::Parameter), // RCPT's
            ("XMT-PRIORITY=3", CommandError::Parameter),
            ("REQUIRETLS=yes", CommandError::ParameterValue("REQUIRETLS")),
            ("BY=0;R", CommandError::ParameterValue("BY")),
            ("HOLDFOR=0", CommandError::ParameterValue("HOLDFOR")),
            ("HOLDFOR=1 HOLDUNTIL=2026-12-24T12:00:00Z", CommandError::ParameterValue("HOLDUNTIL")), // RFC 4865 3
            ("HOLDUNTIL=2026-12-24T12:00:00Z HOLDFOR=1", CommandError::ParameterValue("HOLDFOR")),
            ("MT-PRIORITY=10", CommandError::ParameterValue("MT-PRIORITY")),
            ("SIZE", CommandError::ParameterValue("SIZE")),
            ("SIZE=", CommandError::ParameterValue("SIZE")),
            ("SIZE=-1", CommandError::ParameterValue("SIZE")),
            ("SIZE=+1", CommandError::ParameterValue("SIZE")),
            ("SIZE=1k", CommandError::ParameterValue("SIZE")),
            ("SIZE=000000000000000000001", CommandError::ParameterValue("SIZE")), // 1*20DIGIT
            ("SIZE=1 size=1", CommandError::ParameterValue("SIZE")),
            ("BODY=9BIT", CommandError::ParameterValue("BODY")),
            ("BODY=7BIT=", CommandError::ParameterValue("BODY")),
            ("SMTPUTF8=", CommandError::ParameterValue("SMTPUTF8")),
            ("SMTPUTF8 SMTPUTF8", CommandError::ParameterValue("SMTPUTF8")),
            ("RET=NONE", CommandError::ParameterValue("RET")),
            ("ENVID=", CommandError::ParameterValue("ENVID")),
            ("ENVID=a+0D+0A", CommandError::ParameterValue("ENVID")), // printable when decoded
            ("ENVID=a+4", CommandError::ParameterValue("ENVID")),
            ("ENVID=gr\u{fc}n", CommandError::ParameterValue("ENVID")),
            (&longer, CommandError::ParameterValue("ENVID")),
            ("AUTH=", CommandError::ParameterValue("AUTH")),
            ("AUTH=a=b", CommandError::ParameterValue("AUTH")),
        ] {
            let line = format!("MAIL FROM:<a@b> {parameter}");
            assert_eq!(Command::parse(line.as_bytes()), Err(expected), "{line}");
        }
    }

    #[test]
    fn parameters_of_rcpt() {
        let parsed = rcpt("rcpt to:<PostMaster> notify=success,DELAY orcpt=rfc822;Bob+2Bx@example.com");
        assert_eq!(parsed.forward_path.as_str(), "PostMaster");
        let notify = Notify { success: true, failure: false, delay: true };
        let orcpt = Some("rfc822;Bob+2Bx@example.com".to_owned());
        assert_eq!(parsed.parameters, RcptParameters { notify: Some(notify), orcpt });
        let never = Notify { success: false, failure: false, delay: false };
        assert_eq!(rcpt("RCPT TO:<a@b> NOTIFY=never").parameters.notify, Some(never));
        assert!(rcpt("RCPT TO:<a@b> ORCPT=utf-8;gr\\x{FC}n@b").parameters.orcpt.is_some()); // RFC 6533 3
        assert!(rcpt("RCPT TO:<a@b> ORCPT=UTF-8;gr\u{fc}n@b").parameters.orcpt.is_some());
        let (long, longer) =
            (format!("ORCPT=rfc822;{}", "a".repeat(493)), format!("ORCPT=rfc822;{}", "a".repeat(494)));
        assert!(rcpt(&format!("RCPT TO:<a@b> {long}")).parameters.orcpt.is_some());
        for (parameter, expected) in [
            ("SIZE=1", CommandError::Parameter), // MAIL's
            ("NOTIFY", CommandError::ParameterValue("NOTIFY")),
            ("NOTIFY=", CommandError::ParameterValue("NOTIFY")),
            ("NOTIFY=SUCCESS,", CommandError::ParameterValue("NOTIFY")),
            ("NOTIFY=NEVER,FAILURE", CommandError::ParameterValue("NOTIFY")), // NEVER stands alone
            ("NOTIFY=DELAY NOTIFY=DELAY", CommandError::ParameterValue("NOTIFY")),
            ("ORCPT=a@b", CommandError::ParameterValue("ORCPT")),
            ("ORCPT=rfc822;", CommandError::ParameterValue("ORCPT")),
            ("ORCPT=;a@b", CommandError::ParameterValue("ORCPT")),
            ("ORCPT=a@b;c", CommandError::ParameterValue("ORCPT")),
            ("ORCPT=rfc822;a=b", CommandError::ParameterValue("ORCPT")),
            ("ORCPT=rfc822;a+0D+0AX:", CommandError::ParameterValue("ORCPT")),
            ("ORCPT=rfc822;gr\u{fc}n@b", CommandError::ParameterValue("ORCPT")),
            ("ORCPT=utf-8;a+0Db", CommandError::ParameterValue("ORCPT")),
            (&longer, CommandError::ParameterValue("ORCPT")),
        ] {
            let line = format!("RCPT TO:<a@b> {parameter}");
            let expected = CommandError::Rcpt(Box::new(expected));
            assert_eq!(Command::parse(line.as_bytes()), Err(expected), "{line}");
        }
    }

    #[test]
    fn what_goes_upstream() {
        let bare = Extensions::default();
        for (line, upstream, missing, expected) in [
            ("MAIL FROM:<a@b> SIZE=1 BODY=7BIT", &bare, None, "MAIL FROM:<a@b>\r\n"),
            (
                "MAIL FROM:<a@b> body=7bit size=01",
                &everything(),
                None,
                "MAIL FROM:<a@b> SIZE=1 BODY=7BIT\r\n",
            ),
            ("MAIL FROM:<> BODY=8BITMIME", &bare, Some("8BITMIME"), "MAIL FROM:<>\r\n"),
            ("MAIL FROM:<a@b> SMTPUTF8", &bare, Some("SMTPUTF8"), "MAIL FROM:<a@b>\r\n"),
            ("MAIL FROM:<\u{fc}@b>", &bare, Some("SMTPUTF8"), "MAIL FROM:<\u{fc}@b>\r\n"),
            ("MAIL FROM:<a@b> RET=FULL", &bare, Some("DSN"), "MAIL FROM:<a@b>\r\n"),
            (
                "MAIL FROM:<a@b> BODY=BINARYMIME",
                &Extensions { chunking: false, ..everything() },
                Some("CHUNKING"),
                "MAIL FROM:<a@b>\r\n",
            ),
            ("MAIL FROM:<a@b> REQUIRETLS", &bare, Some("REQUIRETLS"), "MAIL FROM:<a@b>\r\n"),
            ("MAIL FROM:<a@b> BY=1;N", &bare, Some("DELIVERBY"), "MAIL FROM:<a@b>\r\n"),
            ("MAIL FROM:<a@b> HOLDFOR=1", &bare, Some("FUTURERELEASE"), "MAIL FROM:<a@b>\r\n"),
            ("MAIL FROM:<a@b> MT-PRIORITY=3", &bare, Some("MT-PRIORITY"), "MAIL FROM:<a@b>\r\n"),
            (
                "MAIL FROM:<a@b> mt-priority=-3 holduntil=2026-12-24T12:00:00+01:00 by=+007;nT requiretls",
                &everything(),
                None,
                "MAIL FROM:<a@b> REQUIRETLS BY=+007;nT HOLDUNTIL=2026-12-24T12:00:00+01:00 MT-PRIORITY=-3\r\n",
            ),
            (
                "MAIL FROM:<@r:a@b> AUTH=a@b ENVID=x RET=FULL SMTPUTF8 BODY=BINARYMIME",
                &everything(),
                None,
                "MAIL FROM:<a@b> BODY=BINARYMIME SMTPUTF8 RET=FULL ENVID=x\r\n",
            ),
        ] {
            let (command, mut out) = (mail(line), Vec::new());
            command.encode(upstream, &mut out);
            assert_eq!(
                (command.missing_extension(upstream), String::from_utf8(out).unwrap()),
                (missing, expected.to_owned())
            );
        }
        for (line, upstream, missing, expected) in [
            ("RCPT TO:<Postmaster>", &bare, None, "RCPT TO:<Postmaster>\r\n"),
            (
                r#"RCPT TO:<"foo> ORCPT=x"@b> NOTIFY=delay,success"#,
                &everything(),
                None,
                "RCPT TO:<\"foo> ORCPT=x\"@b> NOTIFY=SUCCESS,DELAY\r\n",
            ),
            ("RCPT TO:<a@b> ORCPT=rfc822;c@d", &bare, Some("DSN"), "RCPT TO:<a@b>\r\n"),
            ("RCPT TO:<a@\u{fc}>", &bare, Some("SMTPUTF8"), "RCPT TO:<a@\u{fc}>\r\n"),
            (
                "RCPT TO:<a@b> NOTIFY=NEVER ORCPT=utf-8;\u{fc}@b",
                &Extensions { smtputf8: false, ..everything() },
                Some("SMTPUTF8"),
                "RCPT TO:<a@b> NOTIFY=NEVER\r\n",
            ),
        ] {
            let (command, mut out) = (rcpt(line), Vec::new());
            command.encode(upstream, &mut out);
            assert_eq!(
                (command.missing_extension(upstream), String::from_utf8(out).unwrap()),
                (missing, expected.to_owned())
            );
        }
    }

    fn path() -> impl Strategy<Value = String> {
        r#"[a-c\u{fc}]{1,3}@[a-c\u{fc}]{1,3}(\.org)?|"[a-c> \u{fc}]{0,4}(\\[">a ])?"@[a-c]{1,2}|(@[a-c]{1,2}:)?[a-c]{1,3}@\[192\.0\.2\.[0-9]\]"#
    }

    /// Any subset in any order, with repetitions.
    fn parameters(of: &'static [&'static str]) -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(of), 0..5).prop_map(|words| words.join(" "))
    }

    const OF_MAIL: &[&str] = &[
        "SIZE=0",
        "SIZE=77",
        "BODY=7BIT",
        "BODY=8BITMIME",
        "BODY=BINARYMIME",
        "SMTPUTF8",
        "RET=FULL",
        "RET=HDRS",
        "ENVID=a+2Bb",
        "AUTH=<>",
        "REQUIRETLS",
        "BY=7;R",
        "HOLDFOR=7",
        "HOLDUNTIL=2026-12-24T12:00:00Z",
        "MT-PRIORITY=-7",
        "X",
    ];
    const OF_RCPT: &[&str] = &[
        "NOTIFY=NEVER",
        "NOTIFY=SUCCESS,FAILURE",
        "NOTIFY=DELAY",
        "ORCPT=rfc822;a@b",
        "ORCPT=utf-8;\u{fc}@b",
        "X",
    ];

    fn upstreams() -> impl Strategy<Value = Extensions> {
        any::<[bool; 7]>().prop_map(|[size, eight_bit_mime, smtputf8, dsn, chunking, binary_mime, more]| {
            Extensions {
                further: if more { further() } else { Further::default() },
                size: size.then_some(None),
                eight_bit_mime,
                smtputf8,
                dsn,
                chunking,
                binary_mime,
                ..Extensions::default()
            }
        })
    }

    /// Parses one line that was written.
    fn reread(out: &[u8]) -> Command {
        let line = out.strip_suffix(b"\r\n").unwrap();
        assert!(!line.iter().any(|&octet| octet < b' '), "{}", line.escape_ascii());
        Command::parse(line).unwrap()
    }

    proptest! {
        #[test]
        fn mail_reads_back_where_nothing_is_missing(path in path(), words in parameters(OF_MAIL), upstream in upstreams()) {
            let line = format!("MAIL FROM:<{path}> {words}");
            let Ok(Command::Mail(mut command)) = Command::parse(line.as_bytes()) else { return Ok(()) };
            let mut out = Vec::new();
            command.encode(&upstream, &mut out);
            let again = reread(&out);
            let whole = command.missing_extension(&upstream).is_none();
            if upstream.size.is_none() {
                command.parameters.size = None;
            }
            if !upstream.eight_bit_mime && command.parameters.body == Some(Body::SevenBit) {
                command.parameters.body = None;
            }
            let same = again == Command::Mail(command.clone());
            // The path cannot be left out: if it is not ASCII, nothing else need be missing.
            prop_assert_eq!(same || !command.reverse_path.is_ascii(), whole || !command.reverse_path.is_ascii());
            prop_assert!(same || !whole);
        }

        #[test]
        fn rcpt_reads_back_where_nothing_is_missing(path in path(), words in parameters(OF_RCPT), upstream in upstreams()) {
            let line = format!("RCPT TO:<{path}> {words}");
            let Ok(Command::Rcpt(command)) = Command::parse(line.as_bytes()) else { return Ok(()) };
            let mut out = Vec::new();
            command.encode(&upstream, &mut out);
            let same = reread(&out) == Command::Rcpt(command.clone());
            let whole = command.missing_extension(&upstream).is_none();
            prop_assert_eq!(same || !command.forward_path.is_ascii(), whole || !command.forward_path.is_ascii());
            prop_assert!(same || !whole);
        }

        #[test]
        fn no_line_is_a_trap(line in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            r#"(MAIL FROM|RCPT TO|BDAT|AUTH|EHLO)[: ]?[<>@"\\a.\[\]: =+;ü\t0-9]{0,20}"#.prop_map(String::into_bytes),
        ]) {
            let everything = everything();
            match Command::parse(&line) {
                Ok(Command::Mail(command)) => {
                    let mut out = Vec::new();
                    command.encode(&everything, &mut out);
                    prop_assert_eq!(reread(&out), Command::Mail(command));
                }
                Ok(Command::Rcpt(command)) => {
                    let mut out = Vec::new();
                    command.encode(&everything, &mut out);
                    prop_assert_eq!(reread(&out), Command::Rcpt(command));
                }
                Err(CommandError::ForwardPath { harvested: Some(octets) }) => prop_assert!(octets.contains(&b'@')),
                _ => {}
            }
        }
    }
}
