//! The DSN for a released message whose recipients were permanently refused (RFC 3464, multipart/report of RFC 6522).
//!
//! Pure: facts to octets. There is one DSN for all recipients of a message. It is sent from the null reverse-path, so
//! it cannot cause another. ORCPT, ENVID and RET are honoured (RFC 3461 6.3, 4.3). If an address is not ASCII, the
//! forms of RFC 6533 are used: address type `utf-8`, message/global-delivery-status, message/global-headers.

use lettre::message::header::{ContentTransferEncoding, ContentType, ContentTypeErr};
use lettre::message::{Body, MultiPart, SinglePart};

use super::letter::{AutoSubmitted, Head, moment, shown};
use crate::clock::Timestamp;
use crate::id::OutboxId;
use crate::smtp::{Enhanced, Reply, xtext};
use crate::visible::one_line;

/// Why a DSN cannot be written: lettre rejects a content type, which does not happen with those used here.
#[derive(Debug, thiserror::Error)]
#[error("the DSN: {0}")]
pub struct ReportError(#[from] ContentTypeErr);

/// The facts of a DSN.
#[derive(Debug, Clone)]
pub struct Report<'a> {
    /// Our host name.
    pub hostname: &'a str,
    /// The reverse-path without brackets; never the null one.
    pub sender: &'a str,
    /// `ENVID=`, in xtext as received.
    pub envid: Option<&'a str>,
    /// When the message arrived.
    pub arrived: Timestamp,
    /// Its Subject, decoded.
    pub subject: Option<&'a str>,
    /// The part of the message that is returned.
    pub original: Original<'a>,
    /// The recipients that were refused.
    pub refused: Vec<Refused<'a>>,
}

/// The message, as it was sent upstream.
#[derive(Debug, Clone, Copy)]
pub enum Original<'a> {
    /// Its header section; empty if unknown.
    Header(&'a [u8]),
    /// The whole message, of at most about [`MAX_RETURNED`] octets.
    Whole(&'a [u8]),
}

/// A recipient that the upstream permanently refused.
#[derive(Debug, Clone)]
pub struct Refused<'a> {
    /// The forward-path, without brackets.
    pub address: &'a str,
    /// `ORCPT=`, type and xtext as received.
    pub orcpt: Option<&'a str>,
    /// The upstream's last reply.
    pub reply: &'a Reply,
    /// When that reply came.
    pub at: Timestamp,
}

/// The size in octets up to which a message is returned whole; of a larger one only the header is. Exim's default is
/// the same (`bounce_return_size_limit`), Postfix's is half of it (`bounce_size_limit`).
pub const MAX_RETURNED: u64 = 100 * 1024;
/// How much of the original's header is returned, in octets.
const MAX_HEADER: usize = 64 * 1024;
/// The longest line of a field, in octets without CRLF (RFC 5322 2.1.1 allows 998).
const MAX_LINE: usize = 900;

impl Report<'_> {
    /// Writes the whole message, to be sent from the null reverse-path to [`Report::sender`].
    ///
    /// # Errors
    /// See [`ReportError`].
    pub fn write(&self, id: OutboxId, now: Timestamp) -> Result<Vec<u8>, ReportError> {
        let head = Head {
            from: &format!("Mail Delivery System <MAILER-DAEMON@{}>", self.hostname),
            to: &[self.sender.to_owned()],
            subject: "Your message could not be delivered to everybody",
            id,
            hostname: self.hostname,
            now,
            auto_submitted: AutoSubmitted::Replied,
        };
        let global = !self.is_ascii();
        let (report, status) = match global {
            false => ("delivery-status", "message/delivery-status"),
            true => ("global-delivery-status", "message/global-delivery-status"),
        };
        // The id is fresh, so no text in the parts can contain the boundary.
        let content_type = ContentType::parse(&format!(
            "multipart/report; report-type={report}; boundary=\"gatepost-{id}\""
        ))?;
        let mut parts = MultiPart::builder()
            .header(content_type)
            .singlepart(SinglePart::plain(self.text()))
            .singlepart(part(status, self.status(global))?);
        if let Some(original) = self.original()? {
            parts = parts.singlepart(original);
        }
        let mut mail = head.fields().to_string().into_bytes();
        mail.extend(parts.formatted());
        Ok(mail)
    }

    fn is_ascii(&self) -> bool {
        self.sender.is_ascii() && self.refused.iter().all(|refused| refused.address.is_ascii())
    }

    /// The part for people.
    fn text(&self) -> String {
        let subject = self
            .subject
            .map_or_else(String::new, |subject| format!(" with the subject\n    {}\n", shown(subject)));
        let mut text = format!(
            "This is the mail system at {}.\n\n\
             Your message of {}{subject}{}could not be delivered to the following recipients. It is not tried again.\n",
            shown(self.hostname),
            moment(self.arrived),
            if subject.is_empty() { " " } else { "" },
        );
        for refused in &self.refused {
            text += &format!("\n<{}>\n    {}\n", shown(refused.address), shown(&refused.reply.to_string()));
        }
        text
    }

    /// The part for programs (RFC 3464 2.1).
    fn status(&self, global: bool) -> String {
        let mut fields = Fields { text: String::new(), global };
        fields.add("Reporting-MTA", &format!("dns; {}", self.hostname));
        if let Some(envid) = self.envid.and_then(decoded) {
            fields.add("Original-Envelope-Id", &envid);
        }
        fields.add("Arrival-Date", &self.arrived.to_rfc5322());
        for refused in &self.refused {
            fields.text += "\r\n";
            if let Some(original) = refused.orcpt.and_then(original_recipient) {
                fields.add("Original-Recipient", &original);
            }
            let kind = if refused.address.is_ascii() { "rfc822" } else { "utf-8" };
            fields.add("Final-Recipient", &format!("{kind}; {}", refused.address));
            fields.add("Action", "failed");
            fields.add("Status", &status_of(refused.reply).to_string());
            fields.add("Diagnostic-Code", &format!("smtp; {}", refused.reply));
            fields.add("Last-Attempt-Date", &refused.at.to_rfc5322());
        }
        fields.text
    }

    fn original(&self) -> Result<Option<SinglePart>, ContentTypeErr> {
        let header = match self.original {
            Original::Header(header) => header,
            Original::Whole(message) => match whole(message)? {
                Some(part) => return Ok(Some(part)),
                None => message,
            },
        };
        let Some(header) = Self::header_of(header) else { return Ok(None) };
        let kind = if header.is_ascii() { "text/rfc822-headers" } else { "message/global-headers" };
        part(kind, header).map(Some)
    }

    /// As many whole lines of the header section as fit, with CRLF.
    fn header_of(original: &[u8]) -> Option<String> {
        let header = String::from_utf8_lossy(original.get(..MAX_HEADER).unwrap_or(original));
        let end = header.lines().position(str::is_empty);
        let lines: Vec<&str> = header.lines().take(end.unwrap_or(usize::MAX)).collect();
        let is_cut = end.is_none() && original.len() > MAX_HEADER;
        let whole = if is_cut { lines.split_last()?.1 } else { &lines };
        let text: String = whole.iter().map(|line| format!("{}\r\n", line.replace('\r', "?"))).collect();
        (!text.is_empty()).then_some(text)
    }
}

/// The message itself. RFC 2046 5.2.1 forbids encoding message/rfc822, and the sender's server need accept only 7bit,
/// so any other message is sent as RFC 6532 3.7 describes, which requires a UTF-8 header. `None` if it has none.
fn whole(message: &[u8]) -> Result<Option<SinglePart>, ContentTypeErr> {
    if is_7bit(message) {
        let part = SinglePart::builder().header(ContentType::parse("message/rfc822")?);
        let body = Body::dangerous_pre_encoded(message.to_vec(), ContentTransferEncoding::SevenBit);
        return Ok(Some(part.body(body)));
    }
    let header = memchr::memmem::find(message, b"\r\n\r\n").and_then(|end| message.get(..end));
    if std::str::from_utf8(header.unwrap_or(message)).is_err() {
        return Ok(None);
    }
    let part = SinglePart::builder().header(ContentType::parse("message/global")?);
    let body = Body::new_with_encoding(message.to_vec(), ContentTransferEncoding::Base64);
    Ok(body.ok().map(|body| part.body(body)))
}

/// RFC 2045 2.7.
fn is_7bit(message: &[u8]) -> bool {
    let mut rest = message;
    while !rest.is_empty() {
        let end = memchr::memmem::find(rest, b"\r\n");
        let line = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        if line.len() > 998 || !line.is_ascii() || line.iter().any(|octet| matches!(octet, 0 | b'\r' | b'\n'))
        {
            return false;
        }
        rest = end.and_then(|end| rest.get(end + 2..)).unwrap_or_default();
    }
    true
}

/// A part whose lines end with CRLF. It is 7bit whenever possible (RFC 3464 2.1, RFC 6522 4), which is more often than
/// lettre assumes; the types of RFC 6533 may be encoded.
fn part(content_type: &str, text: String) -> Result<SinglePart, ContentTypeErr> {
    let part = SinglePart::builder().header(ContentType::parse(content_type)?);
    let plain = text.is_ascii() && text.lines().all(|line| line.len() <= 998);
    Ok(if plain {
        part.body(Body::dangerous_pre_encoded(text.into_bytes(), ContentTransferEncoding::SevenBit))
    } else {
        part.body(text)
    })
}

/// RFC 3461 6.3 (d): the type is kept, the address decoded. `utf-8` has an encoding of its own, which the report uses
/// unchanged (RFC 6533 3).
fn original_recipient(orcpt: &str) -> Option<String> {
    let (kind, address) = orcpt.split_once(';')?;
    if kind.eq_ignore_ascii_case("utf-8") {
        return Some(format!("{kind}; {address}"));
    }
    Some(format!("{kind}; {}", decoded(address)?))
}

/// Decodes xtext if the result is printable ASCII.
fn decoded(text: &str) -> Option<String> {
    let text = String::from_utf8(xtext::decode(text)?).ok()?;
    text.bytes().all(|octet| matches!(octet, b' '..=b'~')).then_some(text)
}

/// The reply's enhanced status code, or the most general one of its class.
fn status_of(reply: &Reply) -> Enhanced {
    let class = if reply.is_transient() { 4 } else { 5 };
    reply.enhanced.unwrap_or(Enhanced { class, subject: 0, detail: 0 })
}

/// The fields of a delivery status.
struct Fields {
    text: String,
    /// Whether they may contain characters outside ASCII.
    global: bool,
}

impl Fields {
    fn add(&mut self, name: &str, value: &str) {
        let value = one_line(value);
        let value: String =
            value.chars().map(|c| if c.is_ascii() || self.global { c } else { '?' }).collect();
        let mut rest = format!("{name}: {value}");
        while rest.len() > MAX_LINE {
            let edge = (0..=MAX_LINE).rev().find(|at| rest.is_char_boundary(*at)).unwrap_or_default();
            let at = rest
                .get(..edge)
                .and_then(|line| line.rfind(' '))
                .filter(|at| *at > name.len() + 1)
                .unwrap_or(edge);
            self.text += &format!("{}\r\n", rest.get(..at).unwrap_or_default());
            rest = format!(" {}", rest.get(at..).unwrap_or_default().trim_start());
        }
        self.text += &format!("{rest}\r\n");
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::*;

    use super::*;

    fn at() -> Timestamp {
        Timestamp::from_millis(1_795_536_328_123)
    }

    fn reply(code: u16, enhanced: Option<&str>, text: &str) -> Reply {
        Reply {
            code,
            enhanced: enhanced.map(|text| text.parse().unwrap()),
            text: Cow::Owned(text.to_owned()),
        }
    }

    fn report<'a>(refused: Vec<Refused<'a>>) -> Report<'a> {
        Report {
            hostname: "mx.example.org",
            sender: "anna@example.org",
            envid: Some("QQ+2B1"),
            arrived: at(),
            subject: Some("News"),
            original: Original::Header(b"Received: by x\r\n\twith y\r\nSubject: News\r\n\r\nnot the body"),
            refused,
        }
    }

    /// The parts: type, encoding, decoded content.
    fn parts(mail: &[u8]) -> Vec<(String, String, String)> {
        let parsed = mailparse::parse_mail(mail).unwrap();
        parsed
            .subparts
            .iter()
            .map(|part| {
                let header = |name: &str| {
                    let found =
                        part.headers.iter().find(|header| header.get_key_ref().eq_ignore_ascii_case(name));
                    found.map_or(String::new(), mailparse::MailHeader::get_value)
                };
                let body = String::from_utf8(part.get_body_raw().unwrap()).unwrap();
                (header("Content-Type"), header("Content-Transfer-Encoding"), body)
            })
            .collect()
    }

    #[test]
    fn a_report_as_rfc_3464_has_it() {
        let (one, other) = (reply(550, Some("5.1.1"), "No such user\nat all"), reply(554, None, "No"));
        let report = report(vec![
            Refused {
                address: "a+b@example.com",
                orcpt: Some("rfc822;a+2Bb@example.com"),
                reply: &one,
                at: at(),
            },
            Refused { address: "c@example.com", orcpt: None, reply: &other, at: at() },
        ]);
        let mail = report.write(OutboxId::new(at()), at()).unwrap();
        assert!(mail.is_ascii());
        let text = String::from_utf8(mail.clone()).unwrap();
        for line in [
            "From: Mail Delivery System <MAILER-DAEMON@mx.example.org>\r\n",
            "To: anna@example.org\r\n",
            "Auto-Submitted: auto-replied\r\n",
            "Content-Type: multipart/report; report-type=delivery-status;",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        let [human, status, header] = &parts(&mail)[..] else { panic!("{text}") };
        assert!(
            human.0.starts_with("text/plain") && human.2.contains("550 5.1.1 No such user / at all"),
            "{human:?}"
        );
        assert_eq!((status.0.as_str(), status.1.as_str()), ("message/delivery-status", "7bit"));
        assert_eq!(
            status.2.trim_end(),
            "Reporting-MTA: dns; mx.example.org\r\n\
             Original-Envelope-Id: QQ+1\r\n\
             Arrival-Date: Tue, 24 Nov 2026 16:05:28 +0000\r\n\
             \r\n\
             Original-Recipient: rfc822; a+b@example.com\r\n\
             Final-Recipient: rfc822; a+b@example.com\r\n\
             Action: failed\r\n\
             Status: 5.1.1\r\n\
             Diagnostic-Code: smtp; 550 5.1.1 No such user / at all\r\n\
             Last-Attempt-Date: Tue, 24 Nov 2026 16:05:28 +0000\r\n\
             \r\n\
             Final-Recipient: rfc822; c@example.com\r\n\
             Action: failed\r\n\
             Status: 5.0.0\r\n\
             Diagnostic-Code: smtp; 554 No\r\n\
             Last-Attempt-Date: Tue, 24 Nov 2026 16:05:28 +0000"
        );
        assert_eq!(header.0, "text/rfc822-headers");
        assert_eq!(header.2.trim_end(), "Received: by x\r\n\twith y\r\nSubject: News");
    }

    #[test]
    fn an_address_outside_ascii_takes_rfc_6533() {
        let one = reply(550, Some("5.1.1"), "grün?");
        let refused = Refused {
            address: "grün@example.com",
            orcpt: Some("utf-8;gr\\x{FC}n@example.com"),
            reply: &one,
            at: at(),
        };
        let mail = report(vec![refused]).write(OutboxId::new(at()), at()).unwrap();
        assert!(mail.is_ascii(), "the sender's server may know no 8BITMIME");
        let [_, status, header] = &parts(&mail)[..] else { panic!() };
        assert_eq!(status.0, "message/global-delivery-status");
        for line in [
            "Original-Recipient: utf-8; gr\\x{FC}n@example.com\r\n",
            "Final-Recipient: utf-8; grün@example.com\r\n",
            "Diagnostic-Code: smtp; 550 5.1.1 grün?\r\n",
        ] {
            assert!(status.2.contains(line), "{line} in {}", status.2);
        }
        assert_eq!(header.0, "text/rfc822-headers");
        assert!(String::from_utf8_lossy(&mail).contains("report-type=global-delivery-status"));
    }

    #[test]
    fn odd_facts() {
        let deferred = reply(451, Some("4.4.1"), &"long ".repeat(1_000));
        let facts = Report {
            envid: Some("+0D+0AX:y"),
            subject: None,
            original: Original::Header(b""),
            ..report(vec![Refused {
                address: "a@b.c",
                orcpt: Some("rfc822;+0A"),
                reply: &deferred,
                at: at(),
            }])
        };
        let mail = facts.write(OutboxId::new(at()), at()).unwrap();
        let [human, status] = &parts(&mail)[..] else { panic!("no header, no third part") };
        assert!(human.2.contains("UTC could not be delivered"), "{}", human.2);
        assert!(
            !status.2.contains("Original-"),
            "an id that does not decode to text is left out: {}",
            status.2
        );
        assert!(
            status.2.contains("Status: 4.4.1\r\n") && status.2.lines().all(|line| line.len() <= MAX_LINE)
        );
        assert_eq!(status.1, "7bit");
    }

    /// RFC 3461 4.3, RET=FULL: the message is returned as it was sent, octet for octet; otherwise its header.
    #[test]
    fn the_whole_message() {
        let one = reply(550, Some("5.1.1"), "No such user");
        let long = ["Subject: s\r\n\r\n", &"x".repeat(999), "\r\n"].concat();
        let big = ["Subject: s\r\n\r\n".as_bytes(), &vec![b'x'; 2 * MAX_HEADER]].concat();
        let (plain, global) = (("message/rfc822", "7bit"), ("message/global", "base64"));
        for (message, expected) in [
            (&b"Subject: s\r\n\r\nHello.\r\n.\r\n--gatepost-\r\n"[..], plain),
            (b"Subject: s\r\n\r\nno newline at the end", plain),
            (b"Subject: s\r\n", plain),
            (b"Subject: s\r\n\r\ngr\xfcn\r\n", global),
            ("Subject: gr\u{fc}n\r\n\r\ngr\u{fc}n\r\n".as_bytes(), global),
            (b"Subject: s\r\n\r\nNUL \0, CR \r, LF \n\r\n", global),
            (long.as_bytes(), global),
            (b"Subject: gr\xfcn\r\n\r\nHello.\r\n", ("message/global-headers", "")),
            (&[&big[..], b"\xfc"].concat(), global),
        ] {
            let refused = vec![Refused { address: "a@example.com", orcpt: None, reply: &one, at: at() }];
            let facts = Report { original: Original::Whole(message), ..report(refused) };
            let mail = facts.write(OutboxId::new(at()), at()).unwrap();
            assert!(mail.is_ascii(), "the sender's server may know no 8BITMIME");
            let parsed = mailparse::parse_mail(&mail).unwrap();
            let [_, status, original] = &parsed.subparts[..] else { panic!("three parts") };
            assert!(status.get_body().unwrap().contains("Final-Recipient: rfc822; a@example.com\r\n"));
            let field = |name| {
                mailparse::MailHeaderMap::get_first_value(original.headers.as_slice(), name)
                    .unwrap_or_default()
            };
            assert_eq!(field("Content-Type"), expected.0, "{}", String::from_utf8_lossy(message));
            if expected.1.is_empty() {
                assert_eq!(original.get_body_raw().unwrap(), "Subject: gr\u{fffd}n\r\n".as_bytes());
            } else {
                assert_eq!(field("Content-Transfer-Encoding"), expected.1);
                let body = original.get_body_raw().unwrap();
                assert_eq!(
                    body.strip_suffix(b"\r\n").filter(|_| !message.ends_with(b"\r\n")).unwrap_or(&body),
                    message
                );
            }
        }
    }

    proptest! {
        /// Whatever the facts are, the message keeps its parts and line lengths, and gains no header field.
        #[test]
        fn nothing_breaks_the_form(
            address in any::<String>(), text in any::<String>(), subject in any::<String>(),
            original in proptest::collection::vec(any::<u8>(), 0..200), whole: bool, orcpt in any::<String>(),
        ) {
            let reply = Reply { code: 550, enhanced: None, text: Cow::Owned(text) };
            let facts = Report {
                subject: Some(&subject),
                original: if whole { Original::Whole(&original) } else { Original::Header(&original) },
                ..report(vec![Refused { address: &address, orcpt: Some(&orcpt), reply: &reply, at: at() }])
            };
            let mail = facts.write(OutboxId::new(at()), at()).unwrap();
            let text = String::from_utf8(mail.clone()).unwrap();
            prop_assert!(!text.replace("\r\n", "").contains(['\r', '\n']));
            let parts = parts(&mail);
            prop_assert!(matches!(parts.len(), 2 | 3));
            prop_assert_eq!(parts[1].2.matches("Final-Recipient:").count(), 1 + usize::from(address.contains("Final-Recipient:")));
        }
    }
}
