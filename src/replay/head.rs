//! The head of a log line: when it was written, on which machine, by which program.
//!
//! Understands the forms in which syslog daemons, journald, Postfix's postlogd, Exim and Gatepost write to files. The
//! rest of the line is read by [`postfix`](super::postfix), [`exim`](super::exim) and [`gatepost`](super::gatepost).

use std::ops::Range;

use super::calendar::Calendar;
use crate::clock::Timestamp;

/// The program that wrote a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Postfix's smtpd with this process id.
    Smtpd(u32),
    /// Another of Postfix's programs.
    Postfix,
    /// Exim.
    Exim,
    /// Gatepost.
    Gatepost,
    /// Another program, or an unknown one.
    Other,
}

/// The head of a line. The other parts are given by position, so that it can be stored beside the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// When it was written.
    pub at: Timestamp,
    /// The machine; empty if the line does not name it.
    pub host: Range<usize>,
    /// The program.
    pub program: Program,
    /// Where the rest begins.
    pub rest: usize,
}

/// The programs of Postfix that write about messages or recipients: the last part of `postfix/submission/smtpd`. (The
/// clients of postscreen are strangers.)
const POSTFIX_PROGRAMS: [&str; 12] = [
    "qmgr", "oqmgr", "smtp", "lmtp", "local", "virtual", "pipe", "error", "retry", "discard", "cleanup",
    "bounce",
];

/// Parses the head of a line; `None` if the line does not begin like a log line.
pub fn read(line: &str, calendar: &mut Calendar) -> Option<Head> {
    if line.starts_with('{') {
        let at = calendar.read(json_timestamp(line)?)?.0;
        return Some(Head { at, host: 0..0, program: Program::Gatepost, rest: 0 });
    }
    let (text, version) = without_priority(line);
    let text = without_weekday(text);
    let (at, rest) = calendar.read(text)?;
    let exims = text.as_bytes().get(10) == Some(&b' ') && text.starts_with(|c: char| c.is_ascii_digit());
    if exims && text.len() == without_priority(line).0.len() {
        let rest = rest.strip_prefix(' ')?;
        return Some(Head { at, host: 0..0, program: Program::Exim, rest: offset(line, rest) });
    }
    if let Some(rest) = without_level(rest) {
        return Some(Head { at, host: 0..0, program: Program::Gatepost, rest: offset(line, rest) });
    }
    // journald's short-full gives the zone in letters.
    let rest = if exims { rest.strip_prefix(' ')?.split_once(' ')?.1 } else { rest.strip_prefix(' ')? };
    // FreeBSD's syslogd adds `<mail.info>`.
    let rest = if rest.starts_with('<') { rest.split_once("> ")?.1 } else { rest };
    let (host, rest) = rest.split_once(' ')?;
    let place = offset(line, host);
    let tagged = if version { rfc5424(rest) } else { rfc3164(rest) };
    let Some((program, rest)) = tagged else {
        return Some(Head { at, host: 0..0, program: Program::Other, rest: line.len() });
    };
    let mut head = Head { at, host: place..place + host.len(), program, rest: offset(line, rest) };
    let own = match program {
        Program::Exim => exims_own(rest),
        Program::Gatepost => gateposts_own(rest),
        Program::Smtpd(_) | Program::Postfix | Program::Other => None,
    };
    if let Some((own, rest)) = own {
        // The time is written twice (Exim: syslog_timestamp); this one is the message's.
        head.rest = offset(line, rest);
        head.at = own;
    }
    Some(head)
}

/// The position in `line` of its substring `part`.
fn offset(line: &str, part: &str) -> usize {
    part.as_ptr().addr().saturating_sub(line.as_ptr().addr()).min(line.len())
}

/// The value of `timestamp`, which comes first in our log.
fn json_timestamp(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("\"timestamp\":\"")?;
    rest.split_once('"').map(|(time, _)| time)
}

/// Strips `<22>` of RFC 3164; `<22>1 ` indicates RFC 5424.
fn without_priority(line: &str) -> (&str, bool) {
    let text = match line.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
        Some((priority, rest)) if priority.bytes().all(|octet| octet.is_ascii_digit()) => rest,
        _ => line,
    };
    match text.strip_prefix("1 ") {
        Some(rest) => (rest, true),
        None => (text, false),
    }
}

/// Strips the weekday of journald's short-full: `Tue 2026-11-24 16:05:28 CET host ...`.
fn without_weekday(text: &str) -> &str {
    match text.as_bytes() {
        [b'A'..=b'Z', b'a'..=b'z', b'a'..=b'z', b' ', b'0'..=b'9', b'0'..=b'9', b'0'..=b'9', ..] => {
            &text[4..]
        }
        _ => text,
    }
}

/// Strips the level from ` INFO message`, Gatepost's text form.
fn without_level(rest: &str) -> Option<&str> {
    let rest = rest.strip_prefix(' ')?.trim_start_matches(' ');
    ["INFO ", "WARN ", "ERROR ", "DEBUG ", "TRACE "].iter().find_map(|level| rest.strip_prefix(level))
}

/// Parses `postfix/smtpd[123]: text`.
fn rfc3164(text: &str) -> Option<(Program, &str)> {
    let (tag, rest) = text.split_once(": ")?;
    let (name, process) = match tag.split_once('[') {
        Some((name, process)) => (name, process.strip_suffix(']')?),
        None => (tag, ""),
    };
    Some((program(name, process), rest))
}

/// Parses `postfix/smtpd 123 - - text`.
fn rfc5424(text: &str) -> Option<(Program, &str)> {
    let (name, rest) = text.split_once(' ')?;
    let (process, rest) = rest.split_once(' ')?;
    let (_message_id, rest) = rest.split_once(' ')?;
    let rest = if rest.starts_with('[') { rest.split_once("] ")?.1 } else { rest.strip_prefix("- ")? };
    Some((program(name, process), rest.strip_prefix('\u{feff}').unwrap_or(rest)))
}

fn program(name: &str, process: &str) -> Program {
    match name {
        "exim" | "exim4" => return Program::Exim,
        "gatepost" => return Program::Gatepost,
        _ => {}
    }
    match name.rsplit_once('/') {
        Some((_, "smtpd")) => Program::Smtpd(process.parse().unwrap_or_default()),
        Some((_, daemon)) if POSTFIX_PROGRAMS.contains(&daemon) => Program::Postfix,
        _ => Program::Other,
    }
}

/// Parses Exim's own time in a line that it sent to syslog; also returns the rest.
fn exims_own(rest: &str) -> Option<(Timestamp, &str)> {
    let (at, rest) = Calendar::new(Timestamp::default()).read(rest)?;
    Some((at, rest.strip_prefix(' ')?))
}

/// Parses the time and the level of Gatepost's text form behind a syslog head; also returns the rest.
fn gateposts_own(rest: &str) -> Option<(Timestamp, &str)> {
    let (at, rest) = Calendar::new(Timestamp::default()).read(rest)?;
    Some((at, without_level(rest)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        use Program::{Exim, Gatepost, Other, Postfix, Smtpd};
        let november = "2026-11-24T16:05:28.000Z";
        for (line, at, host, program, rest) in [
            ("Nov 24 16:05:28 mx postfix/smtpd[123]: connect", november, "mx", Smtpd(123), "connect"),
            ("Nov 24 16:05:28 mx postfix/submission/smtpd[123]: x", november, "mx", Smtpd(123), "x"),
            ("Nov 24 16:05:28 mx postfix-out/qmgr[1]: A: removed", november, "mx", Postfix, "A: removed"),
            ("Nov 24 16:05:28 mx postfix/postscreen[1]: x", november, "mx", Other, "x"),
            ("Nov 24 16:05:28 mx dovecot: imap-login: x", november, "mx", Other, "imap-login: x"),
            ("Nov 24 16:05:28 mx kernel: x", november, "mx", Other, "x"),
            ("Nov 24 16:05:28 mx last message repeated 2 times", november, "", Other, ""),
            ("<22>Nov 24 16:05:28 mx postfix/smtp[1]: x", november, "mx", Postfix, "x"),
            ("Nov 24 16:05:28 <mail.info> mx postfix/smtp[1]: x", november, "mx", Postfix, "x"),
            ("2026-11-24T17:05:28+01:00 mx postfix/smtp[1]: x", november, "mx", Postfix, "x"),
            ("2026-11-24T17:05:28+0100 mx postfix/smtp[1]: x", november, "mx", Postfix, "x"),
            ("Tue 2026-11-24 16:05:28 UTC mx postfix/smtp[1]: x", november, "mx", Postfix, "x"),
            ("<22>1 2026-11-24T16:05:28Z mx postfix/smtpd 12 - - x", november, "mx", Smtpd(12), "x"),
            (
                "1 2026-11-24T16:05:28Z mx postfix/smtp 12 - [a b=\"c\"] \u{feff}x",
                november,
                "mx",
                Postfix,
                "x",
            ),
            ("2026-11-24 16:05:28 1abcde-000001-Aa <= x", november, "", Exim, "1abcde-000001-Aa <= x"),
            ("2026-11-24 17:05:28 +0100 [12] x", november, "", Exim, "[12] x"),
            ("Nov 24 17:05:27 mx exim[12]: 2026-11-24 16:05:28 x", november, "mx", Exim, "x"),
            ("Nov 24 16:05:28 mx exim4[12]: x", november, "mx", Exim, "x"),
            (
                "2026-11-24T16:05:28.000000Z  INFO message relayed a=b",
                november,
                "",
                Gatepost,
                "message relayed a=b",
            ),
            ("2026-11-24T16:05:28.000000Z ERROR x", november, "", Gatepost, "x"),
            (
                "{\"timestamp\":\"2026-11-24T16:05:28.000000Z\"}",
                november,
                "",
                Gatepost,
                "{\"timestamp\":\"2026-11-24T16:05:28.000000Z\"}",
            ),
            ("Nov 24 16:05:28 mx gatepost[1]: {}", november, "mx", Gatepost, "{}"),
            (
                "2026-11-24T17:05:29+0100 mx gatepost[1]: 2026-11-24T16:05:28.000000Z  INFO message relayed a=b",
                november,
                "mx",
                Gatepost,
                "message relayed a=b",
            ),
            ("Nov 24 16:05:28 mx gatepost[1]: thread panicked", november, "mx", Gatepost, "thread panicked"),
        ] {
            let mut calendar = Calendar::new(Timestamp::parse_rfc3339("2026-11-28T00:00:00Z").unwrap());
            let head = read(line, &mut calendar).unwrap_or_else(|| panic!("{line}"));
            let found = (head.at.to_string(), &line[head.host.clone()], head.program, &line[head.rest..]);
            assert_eq!(found, (at.to_owned(), host, program, rest), "{line}");
        }
    }

    #[test]
    fn no_heads() {
        for line in [
            "",
            "x",
            "{}",
            "-- Journal begins at",
            "Nov 24 16:05:28",
            "Nov 24 16:05:28 mx",
            "<22>",
            "{\"timestamp\":\"x\"}",
        ] {
            let mut calendar = Calendar::new(Timestamp::from_millis(1_795_536_328_123));
            assert_eq!(read(line, &mut calendar), None, "{line}");
        }
    }
}
