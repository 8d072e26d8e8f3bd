//! Replies within replies: a verifying MTA quotes the recipient's server in its own text.
//!
//! Finds the innermost one. A quoted reply begins at a reply code that follows a colon, a bracket, a quotation mark, an arrow,
//! the start of a line or another code, or that precedes an enhanced status code of its class. A multi-line reply folded into
//! one line (`550-5.1.1 a 550 5.1.1 b`) is one reply. The only words it interprets are those that tell which command a quoted
//! reply answers.

use crate::smtp::{Enhanced, Reply};

/// The innermost reply.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quoted<'a> {
    /// `None` if it has only an enhanced code.
    pub(super) code: Option<u16>,
    /// Of the code's class; `None` if the reply does not begin with one.
    pub(super) enhanced: Option<Enhanced>,
    /// Its text, without the codes at its start and what Postfix appends.
    pub(super) text: &'a str,
    /// What precedes it; `None` if nothing is quoted.
    before: Option<&'a str>,
    /// What Postfix appends: the command, after `(in reply to `.
    in_reply_to: Option<&'a str>,
}

impl Quoted<'_> {
    pub(super) fn is_quoted(&self) -> bool {
        self.before.is_some()
    }

    /// Whether the code is 5yz, or there is only an enhanced code of class 5.
    pub(super) fn is_permanent(&self) -> bool {
        self.code.map_or(self.enhanced.is_some_and(|enhanced| enhanced.class == 5), |code| code >= 500)
    }

    /// Whether nothing says that it answers a command other than RCPT. Postfix truncates quotes, so the name may be incomplete.
    pub(super) fn answers_rcpt(&self) -> bool {
        let before = self.before.unwrap_or_default();
        if before.trim_end().ends_with("refused to talk to me:") {
            return false; // Postfix: the greeting
        }
        let command_before = COMMAND_BEFORE
            .iter()
            .find_map(|marker| before.rfind(marker).and_then(|at| before.get(at + marker.len()..)));
        [self.in_reply_to, command_before].into_iter().flatten().all(|command| {
            let command = command.trim_start_matches("pipelined ");
            command.starts_with("rcpt to") || "rcpt to".starts_with(command)
        })
    }
}

/// What precedes the command that a quoted reply answers.
const COMMAND_BEFORE: &[&str] = &[
    "response to \"",     // Exim, callout
    "mail server after ", // Exim, delivery
];

/// What precedes the command after the quoted reply.
const COMMAND_BEHIND: &str = "(in reply to "; // Postfix

/// Finds the innermost reply in `text`, the text of `outer` in lower case.
pub(super) fn innermost<'a>(outer: &Reply, text: &'a str) -> Quoted<'a> {
    let mut found =
        Quoted { code: Some(outer.code), enhanced: outer.enhanced, text, before: None, in_reply_to: None };
    let mut previous = Head { code: None, enhanced: None, end: 0, more: false };
    for at in 0..text.len() {
        let Some(head) = Head::at(text, at) else { continue };
        let directly_behind = at == previous.end && head.code.is_some();
        if !(directly_behind || head.is_introduced(text, at)) {
            continue;
        }
        let same_codes =
            head.code == previous.code && (head.enhanced.is_none() || head.enhanced == previous.enhanced);
        let continues = previous.more && same_codes && !directly_behind;
        if !continues {
            found.code = head.code;
            found.enhanced = head.enhanced;
            found.text = text.get(head.end..).unwrap_or_default();
            found.before = text.get(..at);
        }
        previous = Head { enhanced: head.enhanced.or(previous.enhanced.filter(|_| continues)), ..head };
    }
    if let Some((own, command)) = found.text.split_once(COMMAND_BEHIND) {
        found.text = own;
        found.in_reply_to = Some(command);
    }
    found
}

/// Finds an enhanced status code as qmail and Cisco write it: `(#5.1.1)`, `#5.1.0 Address rejected`.
pub(super) fn hashed(text: &str) -> Option<Enhanced> {
    text.match_indices('#').find_map(|(at, _)| {
        enhanced_at(text.as_bytes().get(at + 1..)?).map(|(code, _)| code).filter(|code| code.class == 5)
    })
}

/// The codes at the start of a reply, or of a line of it.
#[derive(Debug, Clone, Copy)]
struct Head {
    code: Option<u16>,
    enhanced: Option<Enhanced>,
    /// Where the text begins.
    end: usize,
    /// A hyphen follows the code: more lines follow.
    more: bool,
}

impl Head {
    /// Parses the codes at `at`. Positive codes are left out: they are not quoted as a reason.
    fn at(text: &str, at: usize) -> Option<Self> {
        let octets = text.as_bytes();
        let here = octets.get(at..)?;
        match here {
            // RFC 5321 4.2.1: the second digit is 0 to 5.
            [c @ b'4'..=b'5', x @ b'0'..=b'5', i @ b'0'..=b'9', rest @ ..] => {
                let more = match rest {
                    [] | [b' ' | b'\n', ..] => false,
                    [b'-', ..] => true,
                    _ => return None,
                };
                let code = [c, x, i].iter().fold(0, |code, digit| code * 10 + u16::from(*digit - b'0'));
                let text_at = skip_blanks(octets, at + 3 + usize::from(!rest.is_empty()));
                let enhanced = octets
                    .get(text_at..)
                    .and_then(enhanced_at)
                    .filter(|(enhanced, _)| u16::from(enhanced.class) == code / 100);
                let end = enhanced.map_or(text_at, |(_, length)| skip_blanks(octets, text_at + length));
                Some(Self { code: Some(code), enhanced: enhanced.map(|(enhanced, _)| enhanced), end, more })
            }
            [b'4' | b'5', b'.', ..] => {
                let (enhanced, length) = enhanced_at(here)?;
                let end = skip_blanks(octets, at + length);
                Some(Self { code: None, enhanced: Some(enhanced), end, more: false })
            }
            _ => None,
        }
    }

    /// Whether the preceding text, or its own form, shows that it begins a reply.
    fn is_introduced(&self, text: &str, at: usize) -> bool {
        let before = text.get(..at).unwrap_or_default();
        let said = before.trim_end_matches(' ');
        if said.ends_with([':', '(', '\'', '"']) || said.ends_with("->") {
            return true;
        }
        let begins_line = said.is_empty() || said.ends_with('\n');
        self.code.is_some() && (begins_line || self.enhanced.is_some() && before.ends_with(' '))
    }
}

fn skip_blanks(octets: &[u8], from: usize) -> usize {
    from + octets.iter().skip(from).take_while(|octet| matches!(octet, b' ' | b'\n')).count()
}

/// Parses an enhanced status code (RFC 3463 2) of class 4 or 5 at the start; returns it with its length. Version numbers and
/// IPv4 addresses do not match: the subject is at most 7, and neither a digit nor another part may follow.
fn enhanced_at(octets: &[u8]) -> Option<(Enhanced, usize)> {
    let (class, subject, rest) = match octets {
        [class @ b'4'..=b'5', b'.', subject @ b'0'..=b'7', b'.', rest @ ..] => (class, subject, rest),
        _ => return None,
    };
    let digits = rest.iter().take_while(|octet| octet.is_ascii_digit()).count();
    if !(1..=3).contains(&digits) {
        return None;
    }
    if let [b'.', b'0'..=b'9', ..] = rest.get(digits..)? {
        return None;
    }
    let detail = rest.iter().take(digits).fold(0, |detail, digit| detail * 10 + u16::from(*digit - b'0'));
    let code = Enhanced { class: class - b'0', subject: u16::from(subject - b'0'), detail };
    Some((code, "5.1.".len() + digits))
}
