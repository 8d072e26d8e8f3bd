//! What all mail of our own has in common: its header, and text from outside made safe to print.
//!
//! RFC 5322 3.6, RFC 2047 through lettre, RFC 3834 5 (Auto-Submitted). Addresses are used unparsed (RFC 6532), except
//! for control characters: lettre's parser accepts fewer of them than RFC 5321 does, and a mail that is not written
//! would be worse.

use std::time::{Duration, UNIX_EPOCH};

use lettre::message::header::{Date, HeaderName, HeaderValue, Headers, MIME_VERSION_1_0, MessageId, Subject};

use crate::clock::Timestamp;
use crate::id::OutboxId;
use crate::visible::{is_unsafe, one_line};

/// Why a mail was written (RFC 3834 5).
#[derive(Debug, Clone, Copy)]
pub(super) enum AutoSubmitted {
    /// On our own initiative.
    Generated,
    /// In reply to a message.
    Replied,
}

/// The values of the header.
pub(super) struct Head<'a> {
    /// `addr-spec`, or `name <addr-spec>`.
    pub(super) from: &'a str,
    pub(super) to: &'a [String],
    pub(super) subject: &'a str,
    /// The id of this mail, which becomes its Message-ID.
    pub(super) id: OutboxId,
    pub(super) hostname: &'a str,
    pub(super) now: Timestamp,
    pub(super) auto_submitted: AutoSubmitted,
}

impl Head<'_> {
    /// The header fields, except those that describe the body.
    pub(super) fn fields(&self) -> Headers {
        let mut headers = Headers::new();
        headers.set(Date::new(UNIX_EPOCH + Duration::from_millis(self.now.as_millis())));
        headers.insert_raw(addresses("From", &[self.from]));
        headers.insert_raw(addresses("To", &self.to.iter().map(String::as_str).collect::<Vec<_>>()));
        headers.set(Subject::from(shown(self.subject)));
        headers.set(MessageId::from(format!("<{}@{}>", self.id, self.hostname)));
        headers.set(MIME_VERSION_1_0);
        let auto_submitted = match self.auto_submitted {
            AutoSubmitted::Generated => "auto-generated",
            AutoSubmitted::Replied => "auto-replied",
        };
        headers.insert_raw(raw("Auto-Submitted", auto_submitted.to_owned()));
        headers
    }
}

/// A field with one address per line.
fn addresses(name: &'static str, addresses: &[&str]) -> HeaderValue {
    raw(name, addresses.iter().map(|address| one_line(address)).collect::<Vec<_>>().join(",\r\n "))
}

/// A field whose value is already safe and folded.
fn raw(name: &'static str, value: String) -> HeaderValue {
    HeaderValue::dangerous_new_pre_encoded(HeaderName::new_from_ascii_str(name), value.clone(), value)
}

/// The longest text from outside that is shown, in characters.
const MAX_SHOWN: usize = 500;

/// Makes text from outside safe to show: characters that move the cursor, change the direction of writing or are
/// invisible become `\u{...}`, and a long text is cut off.
pub(super) fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(MAX_SHOWN));
    for (count, c) in text.chars().enumerate() {
        if count == MAX_SHOWN {
            out.push('…');
            break;
        }
        if is_unsafe(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// `2026-11-24 16:05:28 UTC`
pub(super) fn moment(at: Timestamp) -> String {
    let text = at.to_string();
    format!("{} UTC", text.get(..19).unwrap_or(&text).replace('T', " "))
}

/// A duration in the largest unit that expresses it exactly.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (count, unit) = [(86_400, "day"), (3_600, "hour"), (60, "minute")]
        .into_iter()
        .find(|(length, _)| seconds > 0 && seconds.is_multiple_of(*length))
        .map_or((seconds, "second"), |(length, unit)| (seconds / length, unit));
    if count == 1 { format!("1 {unit}") } else { format!("{count} {unit}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_is_made_safe() {
        for (text, expected) in [
            ("plain <a@b.c>", "plain <a@b.c>"),
            ("grün", "grün"),
            ("a\r\nBcc: x", "a\\u{d}\\u{a}Bcc: x"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
            ("abc\u{202e}cba", "abc\\u{202e}cba"),
            ("a\u{200b}b\u{2028}c", "a\\u{200b}b\\u{2028}c"),
        ] {
            assert_eq!(shown(text), expected);
        }
        assert_eq!(shown(&"x".repeat(9_999)).chars().count(), MAX_SHOWN + 1);
    }

    #[test]
    fn durations_and_moments() {
        for (seconds, expected) in [
            (3_600, "1 hour"),
            (5_400, "90 minutes"),
            (172_800, "2 days"),
            (90, "90 seconds"),
            (1, "1 second"),
            (0, "0 seconds"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), expected);
        }
        assert_eq!(moment(Timestamp::from_millis(1_795_536_328_123)), "2026-11-24 16:05:28 UTC");
    }

    #[test]
    fn no_header_can_be_injected() {
        let to = ["a@b.c\r\nBcc: x@y.z".to_owned(), "d@e.f".to_owned()];
        let head = Head {
            from: "gatepost@mx.example.org\nX: y",
            to: &to,
            subject: "grün\r\nX: y",
            id: OutboxId::new(Timestamp::from_millis(1)),
            hostname: "mx.example.org",
            now: Timestamp::from_millis(1_795_536_328_123),
            auto_submitted: AutoSubmitted::Generated,
        };
        let text = head.fields().to_string();
        let names: Vec<_> = text
            .split("\r\n")
            .filter(|line| !line.is_empty() && !line.starts_with(' '))
            .filter_map(|line| line.split_once(':').map(|(name, _)| name))
            .collect();
        assert_eq!(
            names,
            ["Date", "From", "To", "Subject", "Message-ID", "MIME-Version", "Auto-Submitted"],
            "{text}"
        );
        assert!(text.contains("To: a@b.c??Bcc: x@y.z,\r\n d@e.f\r\n"), "{text}");
        assert!(text.contains("Date: Tue, 24 Nov 2026 16:05:28 +0000\r\n"), "{text}");
        assert!(!text.contains("\n\n") && !text.replace("\r\n", "").contains(['\r', '\n']), "{text}");
    }
}
