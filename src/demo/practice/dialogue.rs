//! One client's conversation with the practice MTA: octets in, replies out, no socket.
//!
//! The texts have the form of Postfix's, so that readers see what a real MTA would say. The sequence of commands is
//! checked (RFC 5321 4.1.4). The reply to RCPT is immediate and final.

use std::fmt::Display;
use std::sync::Arc;

use super::directory::{Directory, Finding};
use super::letters::{Letter, Letters, MAX_KEPT};
use crate::smtp::line::{Frame, Framer};
use crate::smtp::mail_data::DotScanner;
use crate::smtp::{Command, CommandError, Enhanced, MailCommand, RcptCommand, Reply, xtext};

/// Its name in the greeting and the reply to EHLO.
const NAME: &str = "practice.example.org";
/// The longest command line (RFC 5321 4.5.3.1.4 and the additions of extensions).
const MAX_LINE: usize = 4_096;
/// The largest message.
const MAX_SIZE: u64 = 10 * 1_024 * 1_024;
/// The most recipients of one message; RFC 5321 4.5.3.1.8 requires at least 100.
const MAX_RECIPIENTS: usize = 1_000;
/// The attributes that XCLIENT accepts (Postfix XCLIENT_README).
const XCLIENT: [&str; 8] = ["NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT"];

/// What to do with the socket once the replies are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Wait for octets.
    Read,
    /// Close it.
    Close,
}

/// What the next octets are.
enum Expecting {
    Commands(Framer),
    Content { scanner: DotScanner, kept: Vec<u8>, size: u64 },
}

/// The envelope so far.
struct Envelope {
    reverse_path: String,
    recipients: Vec<String>,
}

/// One conversation.
pub(super) struct Dialogue {
    directory: Arc<Directory>,
    letters: Letters,
    expecting: Expecting,
    greeted: bool,
    /// From XCLIENT; outlives transactions.
    login: Option<String>,
    envelope: Option<Envelope>,
}

impl Dialogue {
    pub(super) fn new(directory: Arc<Directory>, letters: Letters) -> Self {
        let expecting = Expecting::Commands(Framer::default());
        Self { directory, letters, expecting, greeted: false, login: None, envelope: None }
    }

    pub(super) fn greet(&self, out: &mut Vec<u8>) {
        Reply { code: 220, enhanced: None, text: format!("{NAME} ESMTP practice MTA").into() }
            .encode_plain(out);
    }

    pub(super) fn timed_out(&self, out: &mut Vec<u8>) {
        say(out, 421, "4.4.2", format!("{NAME} Error: timeout exceeded"));
    }

    /// Takes everything complete from the front of `buffered` and appends the replies.
    pub(super) fn take(&mut self, buffered: &mut Vec<u8>, out: &mut Vec<u8>) -> Next {
        loop {
            let consumed = match &mut self.expecting {
                Expecting::Content { scanner, kept, size } => {
                    let scan = scanner.scan(buffered);
                    for slice in scan.content(buffered) {
                        let room = MAX_KEPT - kept.len();
                        kept.extend_from_slice(slice.get(..room).unwrap_or(slice));
                        *size += slice.len() as u64;
                    }
                    if scan.ended {
                        self.end_of_data(out);
                    }
                    scan.consumed
                }
                Expecting::Commands(framer) => match framer.frame(buffered, MAX_LINE) {
                    Frame::Incomplete { consumed } => {
                        buffered.drain(..consumed);
                        return Next::Read;
                    }
                    Frame::Line { line, consumed } => {
                        let line = line.to_vec();
                        if self.line(&line, out) == Next::Close {
                            return Next::Close;
                        }
                        consumed
                    }
                    Frame::TooLong { consumed } => {
                        say(out, 500, "5.5.2", "Error: line too long");
                        consumed
                    }
                    Frame::Faulty { consumed } => {
                        say(out, 500, "5.5.2", "Error: bare CR, LF or NUL in a command");
                        consumed
                    }
                },
            };
            if consumed == 0 {
                return Next::Read;
            }
            buffered.drain(..consumed);
        }
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) -> Next {
        if let Some(attributes) = xclient(line) {
            self.xclient(attributes, out);
            return Next::Read;
        }
        match Command::parse(line) {
            Ok(Command::Ehlo(_)) => self.ehlo(out),
            Ok(Command::Helo(_)) => {
                self.begin_session();
                Reply { code: 250, enhanced: None, text: NAME.into() }.encode_plain(out);
            }
            Ok(Command::Mail(mail)) => self.mail(&mail, out),
            Ok(Command::Rcpt(rcpt)) => self.rcpt(&rcpt, out),
            Ok(Command::Data) => self.data(out),
            Ok(Command::Rset) => {
                self.envelope = None;
                say(out, 250, "2.0.0", "Ok");
            }
            Ok(Command::Noop) => say(out, 250, "2.0.0", "Ok"),
            Ok(Command::Vrfy) => say(out, 252, "2.1.5", "Cannot VRFY; send some mail, and RCPT will tell"),
            Ok(Command::Help) => say(out, 214, "2.0.0", "EHLO MAIL RCPT DATA RSET NOOP QUIT VRFY XCLIENT"),
            Ok(Command::Quit) => {
                say(out, 221, "2.0.0", "Bye");
                return Next::Close;
            }
            Ok(Command::StartTls | Command::Auth { .. } | Command::Bdat { .. } | Command::Expn) => {
                say(out, 502, "5.5.1", "Error: command not implemented");
            }
            Err(error) => refuse(&error, out),
        }
        Next::Read
    }

    fn begin_session(&mut self) {
        self.greeted = true;
        self.envelope = None;
    }

    fn ehlo(&mut self, out: &mut Vec<u8>) {
        self.begin_session();
        let text = format!(
            "{NAME}\nPIPELINING\nSIZE {MAX_SIZE}\nENHANCEDSTATUSCODES\n8BITMIME\nSMTPUTF8\nDSN\nXCLIENT {}",
            XCLIENT.join(" ")
        );
        Reply { code: 250, enhanced: None, text: text.into() }.encode_plain(out);
    }

    /// Any client on loopback may say whom it acts for: the session then starts over with a greeting.
    fn xclient(&mut self, attributes: &str, out: &mut Vec<u8>) {
        if self.envelope.is_some() {
            return say(out, 503, "5.5.1", "Error: MAIL transaction in progress");
        }
        let mut login = None;
        for attribute in attributes.split_ascii_whitespace() {
            let (name, value) = attribute.split_once('=').unwrap_or((attribute, ""));
            let Some(value) = xtext::decode(value).filter(|_| is_attribute(name)) else {
                return say(out, 501, "5.5.4", format!("Error: bad XCLIENT attribute: {attribute}"));
            };
            if name.eq_ignore_ascii_case("LOGIN") && value != b"[UNAVAILABLE]" {
                login = Some(String::from_utf8_lossy(&value).into_owned());
            }
        }
        self.login = login;
        self.greeted = false;
        self.greet(out);
    }

    fn mail(&mut self, mail: &MailCommand, out: &mut Vec<u8>) {
        if !self.greeted {
            return say(out, 503, "5.5.1", "Error: send HELO/EHLO first");
        }
        if self.envelope.is_some() {
            return say(out, 503, "5.5.1", "Error: nested MAIL command");
        }
        if mail.parameters.size.is_some_and(|size| size > MAX_SIZE) {
            return say(out, 552, "5.3.4", "Message size exceeds fixed limit");
        }
        if !mail.reverse_path.is_ascii() && !mail.parameters.smtputf8 {
            return say(out, 553, "5.6.7", "Must declare SMTPUTF8 to send unicode address");
        }
        let reverse_path = mail.reverse_path.as_str().to_owned();
        self.envelope = Some(Envelope { reverse_path, recipients: Vec::new() });
        say(out, 250, "2.1.0", "Ok");
    }

    fn rcpt(&mut self, rcpt: &RcptCommand, out: &mut Vec<u8>) {
        let Some(envelope) = &mut self.envelope else {
            return say(out, 503, "5.5.1", "Error: need MAIL command");
        };
        if envelope.recipients.len() == MAX_RECIPIENTS {
            return say(out, 452, "4.5.3", "Error: too many recipients");
        }
        let address = rcpt.forward_path.as_str();
        match self.directory.find(&rcpt.forward_path) {
            Finding::Living => {
                envelope.recipients.push(address.to_owned());
                say(out, 250, "2.1.5", "Ok");
            }
            Finding::Unknown => {
                let why = "Recipient address rejected: User unknown in local recipient table";
                say(out, 550, "5.1.1", format!("<{address}>: {why}"));
            }
            Finding::Elsewhere => say(out, 554, "5.7.1", format!("<{address}>: Relay access denied")),
        }
    }

    fn data(&mut self, out: &mut Vec<u8>) {
        match &self.envelope {
            None => say(out, 503, "5.5.1", "Error: need RCPT command"),
            Some(envelope) if envelope.recipients.is_empty() => {
                say(out, 554, "5.5.1", "Error: no valid recipients");
            }
            Some(_) => {
                self.expecting = Expecting::Content { scanner: DotScanner::new(), kept: Vec::new(), size: 0 };
                Reply { code: 354, enhanced: None, text: "End data with <CR><LF>.<CR><LF>".into() }
                    .encode(out);
            }
        }
    }

    fn end_of_data(&mut self, out: &mut Vec<u8>) {
        let commands = Expecting::Commands(Framer::default());
        let Expecting::Content { scanner, kept, size } = std::mem::replace(&mut self.expecting, commands)
        else {
            return;
        };
        let Some(envelope) = self.envelope.take() else { return };
        if let Some(fault) = scanner.fault() {
            return say(out, 554, "5.6.0", format!("Error: {fault} in the message"));
        }
        if size > MAX_SIZE {
            return say(out, 552, "5.3.4", "Error: message file too big");
        }
        let Some(queue_id) = queue_id() else {
            return say(out, 451, "4.3.0", "Error: queue file write error");
        };
        self.letters.add(Letter {
            queue_id: queue_id.clone(),
            login: self.login.clone(),
            reverse_path: envelope.reverse_path,
            recipients: envelope.recipients,
            content: kept,
            size,
        });
        say(out, 250, "2.0.0", format!("Ok: queued as {queue_id}"));
    }
}

/// The attributes, if the line is `XCLIENT`.
fn xclient(line: &[u8]) -> Option<&str> {
    let (verb, attributes) = str::from_utf8(line).ok()?.split_once(' ')?;
    verb.eq_ignore_ascii_case("XCLIENT").then_some(attributes)
}

fn is_attribute(name: &str) -> bool {
    XCLIENT.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Ten hexadecimal digits, like Postfix's short queue ids; `None` if the system provides no random octets.
fn queue_id() -> Option<String> {
    let mut octets = [0; 5];
    getrandom::fill(&mut octets).ok()?;
    Some(octets.iter().map(|octet| format!("{octet:02X}")).collect())
}

fn refuse(error: &CommandError, out: &mut Vec<u8>) {
    match error {
        CommandError::Unknown | CommandError::Http => say(out, 500, "5.5.1", "Error: unknown command"),
        CommandError::Character => say(out, 500, "5.5.2", format!("Error: {error}")),
        CommandError::Arguments(syntax) => say(out, 501, "5.5.4", syntax),
        CommandError::ReversePath => say(out, 501, "5.1.7", "Bad sender address syntax"),
        CommandError::ForwardPath { .. } => say(out, 501, "5.1.3", "Bad recipient address syntax"),
        CommandError::Parameter => say(out, 555, "5.5.4", format!("Error: {error}")),
        CommandError::ParameterValue(_) | CommandError::ChunkSize => {
            say(out, 501, "5.5.4", format!("Error: {error}"));
        }
        CommandError::Rcpt(error) => refuse(error, out),
    }
}

fn say(out: &mut Vec<u8>, code: u16, enhanced: &str, text: impl Display) {
    let enhanced: Option<Enhanced> = enhanced.parse().ok();
    Reply { code, enhanced, text: text.to_string().into() }.encode(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialogue() -> Dialogue {
        let directory = Directory::new(&["example.org"], &["ada@example.org", "gr\u{fc}n@example.org"]);
        Dialogue::new(Arc::new(directory), Letters::default())
    }

    /// Feeds all input at once; returns the replies as lines.
    fn replies(dialogue: &mut Dialogue, input: &str) -> Vec<String> {
        let (mut buffered, mut out) = (input.as_bytes().to_vec(), Vec::new());
        dialogue.take(&mut buffered, &mut out);
        assert!(buffered.is_empty(), "left over: {}", buffered.escape_ascii());
        String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
    }

    fn greeted() -> Dialogue {
        let mut dialogue = dialogue();
        replies(&mut dialogue, "EHLO test\r\n");
        dialogue
    }

    #[test]
    fn what_is_offered() {
        let lines = replies(&mut dialogue(), "EHLO test\r\n");
        let size = format!("250-SIZE {MAX_SIZE}");
        let offered: Vec<_> = lines.iter().map(String::as_str).collect();
        assert_eq!(
            offered,
            [
                "250-practice.example.org",
                "250-PIPELINING",
                &size,
                "250-ENHANCEDSTATUSCODES",
                "250-8BITMIME",
                "250-SMTPUTF8",
                "250-DSN",
                "250 XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"
            ]
        );
    }

    #[test]
    fn one_command_each() {
        let unknown =
            "550 5.1.1 <adda@example.org>: Recipient address rejected: User unknown in local recipient table";
        let mail = "MAIL FROM:<>\r\n";
        for (before, command, reply) in [
            ("", "MAIL FROM:<x@example.net> SIZE=1000 BODY=8BITMIME RET=HDRS ENVID=a", "250 2.1.0 Ok"),
            ("", "MAIL FROM:<x@example.net> SIZE=99999999", "552 5.3.4 Message size exceeds fixed limit"),
            (
                "",
                "MAIL FROM:<gr\u{fc}n@example.org>",
                "553 5.6.7 Must declare SMTPUTF8 to send unicode address",
            ),
            ("", "RCPT TO:<ada@example.org>", "503 5.5.1 Error: need MAIL command"),
            ("", "DATA", "503 5.5.1 Error: need RCPT command"),
            ("", "BDAT 0 LAST", "502 5.5.1 Error: command not implemented"),
            ("", "STARTTLS", "502 5.5.1 Error: command not implemented"),
            ("", "FOO", "500 5.5.1 Error: unknown command"),
            ("", "NO\nOP", "500 5.5.2 Error: bare CR, LF or NUL in a command"),
            ("", "XCLIENT ADDR=192.0.2.7 LOGIN=ada", "220 practice.example.org ESMTP practice MTA"),
            ("", "XCLIENT COLOUR=red", "501 5.5.4 Error: bad XCLIENT attribute: COLOUR=red"),
            ("", "XCLIENT LOGIN=+4", "501 5.5.4 Error: bad XCLIENT attribute: LOGIN=+4"),
            (mail, "XCLIENT LOGIN=ada", "503 5.5.1 Error: MAIL transaction in progress"),
            (mail, "MAIL FROM:<>", "503 5.5.1 Error: nested MAIL command"),
            (mail, "RCPT TO:<ada@example.org> NOTIFY=NEVER", "250 2.1.5 Ok"),
            (mail, "RCPT TO:<POSTMASTER>", "250 2.1.5 Ok"),
            (mail, "RCPT TO:<adda@example.org>", unknown),
            (mail, "RCPT TO:<ada@example.com>", "554 5.7.1 <ada@example.com>: Relay access denied"),
            (mail, "RCPT TO:<a..b@example.org>", "501 5.1.3 Bad recipient address syntax"),
            (mail, "DATA", "554 5.5.1 Error: no valid recipients"),
            ("XCLIENT LOGIN=ada\r\n", "MAIL FROM:<>", "503 5.5.1 Error: send HELO/EHLO first"),
        ] {
            let mut dialogue = greeted();
            replies(&mut dialogue, before);
            assert_eq!(replies(&mut dialogue, &format!("{command}\r\n")), [reply], "{before:?} {command:?}");
        }
    }

    #[test]
    fn any_split_gives_the_same_letter() {
        let input = "XCLIENT LOGIN=ada+2Bx\r\nEHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<ada@example.org>\r\nDATA\r\n..x\r\n\r\n.\r\nNOOP\r\n";
        for at in 0..=input.len() {
            let mut dialogue = dialogue();
            let (mut buffered, mut out) = (Vec::new(), Vec::new());
            for piece in [&input[..at], &input[at..]] {
                buffered.extend_from_slice(piece.as_bytes());
                assert_eq!(dialogue.take(&mut buffered, &mut out), Next::Read);
            }
            let letter = dialogue.letters.find(|_| true).unwrap();
            assert_eq!((letter.content.as_slice(), letter.size), (&b".x\r\n\r\n"[..], 6), "{at}");
            assert_eq!((letter.login.as_deref(), letter.reverse_path.as_str()), (Some("ada+x"), ""));
            assert!(out.ends_with(
                format!("250 2.0.0 Ok: queued as {}\r\n250 2.0.0 Ok\r\n", letter.queue_id).as_bytes()
            ));
        }
    }

    #[test]
    fn memory_is_bounded_and_faults_are_refused() {
        let begin = "MAIL FROM:<>\r\nRCPT TO:<ada@example.org>\r\nDATA\r\n";
        let mut dialogue = greeted();
        let lines = "x".repeat(998) + "\r\n";
        let long = lines.repeat(MAX_KEPT / 1_000 + 2);
        assert!(replies(&mut dialogue, &format!("{begin}{long}.\r\n"))[3].starts_with("250 2.0.0 Ok"));
        let letter = dialogue.letters.find(|_| true).unwrap();
        assert_eq!((letter.content.len(), letter.size), (MAX_KEPT, long.len() as u64));
        // One line more than allowed.
        let huge = lines.repeat(usize::try_from(MAX_SIZE).unwrap() / 1_000 + 1);
        assert_eq!(
            replies(&mut dialogue, &format!("{begin}{huge}.\r\n"))[3],
            "552 5.3.4 Error: message file too big"
        );
        assert_eq!(
            replies(&mut dialogue, &format!("{begin}a\nb\r\n.\r\n"))[3],
            "554 5.6.0 Error: a bare LF in the message"
        );
        assert_eq!(dialogue.letters.total(), 1);
        // The transaction is over either way.
        assert_eq!(
            replies(&mut dialogue, "RCPT TO:<ada@example.org>\r\n"),
            ["503 5.5.1 Error: need MAIL command"]
        );
    }
}
