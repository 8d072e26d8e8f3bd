//! Gatepost's own log, JSON or text, as `maillog` writes it.
//!
//! Accepted recipients have lines of their own only at level `debug`; at `info` those of relayed messages are in the
//! message's line.

use std::borrow::Cow;

use serde::Deserialize;

use super::record::{Broken, Record, Said, reply};
use crate::guard::classify::{Rules, classify};
use crate::smtp::Reply;

/// The fields of a line that matter.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Fields<'a> {
    #[serde(borrow)]
    message: Cow<'a, str>,
    #[serde(borrow)]
    session: Cow<'a, str>,
    #[serde(borrow)]
    account: Cow<'a, str>,
    #[serde(borrow)]
    recipient: Cow<'a, str>,
    #[serde(borrow)]
    accepted: Cow<'a, str>,
    #[serde(borrow)]
    reply: Cow<'a, str>,
    #[serde(borrow)]
    why: Cow<'a, str>,
}

/// The messages of the lines that matter, in the wording of [`maillog`](crate::maillog).
const MESSAGES: [&str; 8] = [
    "recipient accepted",
    "recipient refused",
    "invalid recipient",
    "account blocked: it reached the limit of invalid recipients",
    "message relayed",
    "message refused by the upstream",
    "message parked",
    "no reply to the end of data: the message may have been accepted; the client was told to try again",
];

/// Reads one line: JSON, or text from after the level.
pub(super) fn read<'a>(text: &'a str, rules: &Rules) -> Said<'a> {
    let fields = if text.starts_with('{') {
        if !MESSAGES.iter().any(|message| text.contains(message)) {
            return Ok(None);
        }
        serde_json::from_str(text).map_err(|_| Broken)?
    } else {
        match MESSAGES.iter().find_map(|message| Some((*message, text.strip_prefix(message)?))) {
            Some((message, rest)) => from_text(message, rest)?,
            None => return Ok(None),
        }
    };
    record(fields, rules)
}

fn record<'a>(fields: Fields<'a>, rules: &Rules) -> Said<'a> {
    let Fields { message, session, account, recipient, accepted, reply: said, why } = fields;
    let complete = !session.is_empty() && !account.is_empty();
    let record = match &*message {
        "recipient accepted" | "recipient refused" => {
            let reply = reply(&said).ok_or(Broken)?;
            // The log joined the lines of the reply.
            let reply = Reply { text: Cow::Owned(reply.text.replace(" / ", "\n")), ..reply };
            Record::Probed { session, account, recipient, outcome: classify(&reply, rules) }
        }
        "invalid recipient" | "account blocked: it reached the limit of invalid recipients" => {
            Record::Counted { session, account, recipient }
        }
        // The upstream was not asked about a blocked account's recipients.
        "message parked" if !why.contains("probation") => return Ok(None),
        _ if MESSAGES.contains(&&*message) => Record::Transferred { session, account, accepted },
        _ => return Ok(None),
    };
    if complete { Ok(Some(record)) } else { Err(Broken) }
}

/// Parses ` session=1 account=user:anna recipient="x@example.org" reply=550 5.1.1 no`: a reply comes last and is not
/// quoted.
fn from_text<'a>(message: &'a str, text: &'a str) -> Result<Fields<'a>, Broken> {
    let mut fields = Fields { message: Cow::Borrowed(message), ..Fields::default() };
    let mut rest = text;
    while let Some((name, value)) = rest.trim_start_matches(' ').split_once('=') {
        let (value, after) = if name == "reply" { (Cow::Borrowed(value), "") } else { value_of(value)? };
        rest = after;
        match name {
            "session" => fields.session = value,
            "account" => fields.account = value,
            "recipient" => fields.recipient = value,
            "accepted" => fields.accepted = value,
            "reply" => fields.reply = value,
            "why" => fields.why = value,
            _ => {}
        }
    }
    Ok(fields)
}

/// Parses a value up to the next blank, or quoted as Rust does; also returns the rest.
fn value_of(text: &str) -> Result<(Cow<'_, str>, &str), Broken> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = text.split_once(' ').unwrap_or((text, ""));
        return Ok((Cow::Borrowed(value), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Ok((Cow::Owned(value), &quoted[at + 1..])),
            // Control characters have been removed by maillog, so only these two and non-printable characters are
            // escaped.
            '\\' => match characters.next().ok_or(Broken)?.1 {
                'u' => value.push('?'),
                c => value.push(c),
            },
            c => value.push(c),
        }
    }
    Err(Broken)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::account::Account;
    use crate::clock::Timestamp;
    use crate::guard::classify::Outcome;
    use crate::id::SessionId;
    use crate::maillog::{MessageFacts, SessionLog};
    use crate::replay::calendar::Calendar;
    use crate::replay::head::{Program, read as head};
    use crate::smtp::Enhanced;

    /// Where the lines are written.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Written {
        fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(octets)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What `maillog` writes, in both forms, as in `serve`.
    fn written(log: impl Fn(SessionLog)) -> [String; 2] {
        let session = SessionLog::new(SessionId::new(Timestamp::default()), ([192, 0, 2, 1], 4711).into());
        [true, false].map(|json| {
            let out = Written::default();
            let writer = out.clone();
            let builder = tracing_subscriber::fmt()
                .with_writer(move || writer.clone())
                .with_max_level(tracing::Level::DEBUG)
                .with_target(false);
            if json {
                tracing::subscriber::with_default(builder.json().flatten_event(true).finish(), || {
                    log(session.clone());
                });
            } else {
                tracing::subscriber::with_default(builder.with_ansi(false).finish(), || log(session.clone()));
            }
            let octets = out.0.lock().unwrap().clone();
            String::from_utf8(octets).unwrap()
        })
    }

    fn no_such_user(text: &'static str) -> Reply {
        Reply::fixed(550, Enhanced { class: 5, subject: 1, detail: 1 }, text)
    }

    /// Reads the lines as replay does, including their heads, with `syslogs` before each; returns what they say without
    /// the session.
    fn say(syslogs: &str, lines: &str) -> Vec<String> {
        let mut calendar = Calendar::new(Timestamp::from_millis(u64::MAX));
        let said = lines.lines().map(|line| {
            let line = &format!("{syslogs}{line}");
            let head = head(line, &mut calendar).unwrap_or_else(|| panic!("{line}"));
            assert_eq!(head.program, Program::Gatepost);
            match read(&line[head.rest..], &Rules::default()).unwrap_or_else(|_| panic!("{line}")) {
                Some(Record::Probed { account, recipient, outcome, .. }) => {
                    format!("{account} {recipient} {outcome:?}")
                }
                Some(Record::Counted { account, recipient, .. }) => format!("{account} {recipient} counted"),
                Some(Record::Transferred { account, accepted, .. }) => {
                    format!("{account} {accepted} transferred")
                }
                Some(other) => panic!("{other:?}"),
                None => "nothing".to_owned(),
            }
        });
        said.collect()
    }

    #[test]
    fn what_maillog_writes() {
        let account = Account::user("anna@example.org").unwrap();
        let odd = r#""a\"b c=d"@example.org"#;
        let facts = MessageFacts {
            account: &account,
            sender: "anna@example.org",
            message_id: Some("<x@y>"),
            accepted: &["a@example.org", "b@example.org"],
            refused: &["c@example.org"],
            size: 10,
        };
        let taken = Reply::fixed(250, Enhanced { class: 2, subject: 1, detail: 5 }, "Ok reply=550");
        for lines in written(|log| {
            log.authenticated(&account, "PLAIN");
            log.probed(&account, "a@example.org", &taken);
            log.probed(&account, "x@example.org", &no_such_user("<x@example.org>: no\nmore \"quoted\" a=b"));
            log.counted(&account, "x@example.org", 1, 100);
            log.probed(
                &account,
                odd,
                &Reply::fixed(550, Enhanced { class: 5, subject: 7, detail: 1 }, "blocked"),
            );
            log.counted(&account, odd, 2, 100);
            log.relayed(&facts, &taken);
            log.blocked(&account, "z@example.org", 100);
            log.parked(
                &facts,
                crate::id::QuarantineId::new(Timestamp::default()),
                None,
                "the account is blocked",
            );
            log.parked(&facts, crate::id::QuarantineId::new(Timestamp::default()), None, "probation");
            log.ambiguous(&facts, "timed out");
            log.disconnected("QUIT");
        }) {
            let expected = [
                "nothing".to_owned(),
                "user:anna@example.org a@example.org Accepted".to_owned(),
                "user:anna@example.org x@example.org NoSuchRecipient".to_owned(),
                "user:anna@example.org x@example.org counted".to_owned(),
                format!("user:anna@example.org {odd} OtherRefusal"),
                format!("user:anna@example.org {odd} counted"),
                "user:anna@example.org a@example.org,b@example.org transferred".to_owned(),
                "user:anna@example.org z@example.org counted".to_owned(),
                "nothing".to_owned(),
                "user:anna@example.org a@example.org,b@example.org transferred".to_owned(),
                "user:anna@example.org a@example.org,b@example.org transferred".to_owned(),
                "nothing".to_owned(),
            ];
            // As in a file, and as `journalctl -o short-iso` shows it.
            for syslogs in ["", "2026-11-30T10:05:43+0100 mx gatepost[812]: "] {
                assert_eq!(say(syslogs, &lines), expected, "{syslogs}{lines}");
            }
        }
        assert_eq!(
            read(
                "recipient refused session=1 account=user:a recipient=\"x@y\" reply=550 5.1.1 no",
                &Rules::default()
            )
            .map(|said| matches!(said, Some(Record::Probed { outcome: Outcome::NoSuchRecipient, .. }))),
            Ok(true)
        );
    }

    #[test]
    fn broken_lines() {
        for text in [
            "{\"message\":\"recipient refused\",\"session\":\"1\",\"account\":\"us",
            "{\"message\":\"recipient refused\",\"session\":\"1\",\"account\":\"user:a\"}",
            "{\"message\":\"invalid recipient\",\"account\":\"user:a\"}",
            "recipient refused session=1 account=user:a recipient=\"x@",
            "invalid recipient session=1",
        ] {
            assert_eq!(read(text, &Rules::default()), Err(Broken), "{text}");
        }
    }
}
