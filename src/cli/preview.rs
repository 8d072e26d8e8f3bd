//! A safe preview of a message: a few header fields, the beginning of its first text, the names of its attachments.
//!
//! It decodes a stranger's text in the operator's own process, never in `serve`. Nothing is fetched, rendered or run,
//! and everything is bounded. Characters unfit for a terminal are replaced when printed.

use memchr::{memchr2_iter, memmem};

use mailparse::{DispositionType, MailHeaderMap, ParsedMail};
use serde::Serialize;

use crate::encoded_word;
use crate::smtp::header::HeaderCollector;

/// The most characters of text.
const TEXT: usize = 2_000;
/// The most lines of text.
const LINES: usize = 100;
/// The most characters of a header field or file name.
const FIELD: usize = 500;
/// The most fields of one name shown.
const ALIKE: usize = 3;
/// The most attachments listed.
const ATTACHMENTS: usize = 50;
/// The most parts examined.
const PARTS: usize = 1_000;

/// The longest header section that is given to the parser, in octets.
const HEADER: usize = 1 << 20;
/// The most multiparts; the parser recurses into each and searches all of its content again.
const MULTIPARTS: usize = 100;
/// The most lines that look like the beginning of a part; each costs the parser some hundred octets.
const BOUNDARIES: usize = 10_000;
/// The most steps in which the parser may decode the words of all lines: about a second.
const STEPS: u64 = 1_000_000_000;
/// How many octets are shown of a message that is not given to the parser.
const PLAIN: usize = 64 << 10;

/// The header fields shown.
const FIELDS: [&str; 8] = ["From", "Sender", "Reply-To", "To", "Cc", "Date", "Message-ID", "Subject"];

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Preview {
    /// Names and decoded values.
    pub(super) header: Vec<(&'static str, String)>,
    /// The beginning of the first text part.
    pub(super) text: Option<String>,
    /// Parts that are attached or not text.
    pub(super) attachments: Vec<Attachment>,
    /// What the reader should know about the preview.
    pub(super) note: Option<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Attachment {
    pub(super) name: Option<String>,
    pub(super) media_type: String,
    /// The decoded size in octets.
    pub(super) size: u64,
}

pub(super) fn preview(message: &[u8]) -> Preview {
    if let Some(why) = extreme(message) {
        return plain(message, why);
    }
    // The parser is not ours, and the message may be hostile.
    let parsed = std::panic::catch_unwind(|| {
        mailparse::parse_mail(message).map(|mail| of_mail(&mail)).map_err(|error| error.to_string())
    });
    match parsed {
        Ok(Ok(preview)) => preview,
        Ok(Err(why)) => unreadable(&why),
        Err(_) => unreadable("its form is broken"),
    }
}

/// Why the parser must not see the message: it would not panic, but exhaust the stack, the memory or the reader's patience.
fn extreme(message: &[u8]) -> Option<&'static str> {
    let header = &message[..message.len().min(HEADER)];
    let ends = |end: &[u8]| memmem::find(header, end).is_some();
    if message.len() > HEADER && !header.starts_with(b"\r\n") && !ends(b"\n\r\n") && !ends(b"\n\n") {
        return Some("its header is very long");
    }
    let is_boundary =
        |at: &usize| message[*at..].get(..8).is_some_and(|word| word.eq_ignore_ascii_case(b"boundary"));
    if memchr2_iter(b'b', b'B', message).filter(is_boundary).nth(MULTIPARTS).is_some() {
        return Some("it has very many multiparts");
    }
    if memmem::find_iter(message, b"\n--").nth(BOUNDARIES).is_some() {
        return Some("it has very many parts");
    }
    let steps = message.split(|octet| *octet == b'\n').map(encoded_word::steps);
    if steps.fold(0, u64::saturating_add) > STEPS {
        return Some("it has very many encoded words");
    }
    None
}

/// The first header fields and the text after them, undecoded.
fn plain(message: &[u8], why: &str) -> Preview {
    let beginning_of = &message[..message.len().min(PLAIN)];
    let end = match beginning_of {
        [b'\r', b'\n', ..] => 2,
        [b'\n', ..] => 1,
        _ => [&b"\n\r\n"[..], b"\n\n"]
            .iter()
            .filter_map(|end| memmem::find(beginning_of, end).map(|at| at + end.len()))
            .min()
            .unwrap_or(beginning_of.len()),
    };
    let (header, body) = beginning_of.split_at(end);
    let mut preview = Preview::default();
    let mut fields = HeaderCollector::new(usize::MAX);
    let _ = fields.push(header);
    let fields = fields.finish();
    for name in FIELDS {
        for value in fields.values(name).take(ALIKE) {
            preview.header.push((name, shortened(&encoded_word::decode(&value), FIELD)));
        }
    }
    let mut notes = vec![format!("its parts are not told apart: {why}; see --raw")];
    preview.text = Some(beginning(&String::from_utf8_lossy(body), &mut notes));
    preview.note = Some(notes.join("; "));
    preview
}

fn unreadable(why: &str) -> Preview {
    Preview { note: Some(format!("no preview: {why}; see --raw")), ..Preview::default() }
}

fn of_mail(mail: &ParsedMail<'_>) -> Preview {
    let mut preview = Preview::default();
    for name in FIELDS {
        for value in mail.headers.get_all_values(name).iter().take(ALIKE) {
            preview.header.push((name, shortened(value, FIELD)));
        }
    }
    let mut notes = Vec::new();
    for (index, part) in mail.parts().enumerate() {
        if index >= PARTS || preview.attachments.len() >= ATTACHMENTS {
            notes.push("there are more parts than are shown".to_owned());
            break;
        }
        add_part(&mut preview, part, &mut notes);
    }
    preview.note = (!notes.is_empty()).then(|| notes.join("; "));
    preview
}

fn add_part(preview: &mut Preview, part: &ParsedMail<'_>, notes: &mut Vec<String>) {
    let media_type = part.ctype.mimetype.as_str();
    if media_type.starts_with("multipart/") {
        return;
    }
    let disposition = part.get_content_disposition();
    let attached = disposition.disposition == DispositionType::Attachment;
    if media_type.starts_with("text/") && !attached && preview.text.is_none() {
        let text = part.get_body().unwrap_or_else(|error| {
            notes.push(format!("the text is not decoded ({error})"));
            String::from_utf8_lossy(&part.get_body_raw().unwrap_or_default()).into_owned()
        });
        if media_type != "text/plain" {
            notes.push(format!("the text is the source of a {} part", shortened(media_type, 40)));
        }
        preview.text = Some(beginning(&text, notes));
        return;
    }
    let name = disposition.params.get("filename").or_else(|| part.ctype.params.get("name"));
    let size = part.get_body_raw().map_or(0, |body| body.len());
    preview.attachments.push(Attachment {
        name: name.map(|name| shortened(name, FIELD)),
        media_type: shortened(media_type, FIELD),
        size: u64::try_from(size).unwrap_or(u64::MAX),
    });
}

fn beginning(text: &str, notes: &mut Vec<String>) -> String {
    let lines: Vec<&str> = text.lines().take(LINES).collect();
    let shown: String = lines.join("\n").chars().take(TEXT).collect();
    if shown.len() + 2 * lines.len() < text.trim_end().len() {
        notes.push("the text goes on".to_owned());
    }
    shown
}

fn shortened(text: &str, most: usize) -> String {
    super::text::cut(text, most).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field<'a>(preview: &'a Preview, name: &str) -> Option<&'a str> {
        preview.header.iter().find(|(field, _)| *field == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn decoded() {
        let message = [
            "From: =?utf-8?q?M=C3=BCller?= <mueller@example.org>",
            "Subject: =?utf-8?b?R3LDvMOfZQ==?=",
            "Content-Type: multipart/mixed; boundary=x",
            "",
            "--x",
            "Content-Type: text/plain; charset=iso-8859-1",
            "Content-Transfer-Encoding: quoted-printable",
            "",
            "Gr=FC=DFe =1B[31m",
            "second line",
            "--x",
            "Content-Type: application/pdf; name=a.pdf",
            "Content-Transfer-Encoding: base64",
            "Content-Disposition: attachment; filename=invoice.pdf",
            "",
            "AAAA",
            "--x--",
        ];
        let preview = preview(message.join("\r\n").as_bytes());
        assert_eq!(field(&preview, "From"), Some("Müller <mueller@example.org>"));
        assert_eq!(field(&preview, "Subject"), Some("Grüße"));
        assert_eq!(preview.text.as_deref(), Some("Grüße \u{1b}[31m\nsecond line"));
        assert_eq!(
            preview.attachments,
            [Attachment { name: Some("invoice.pdf".into()), media_type: "application/pdf".into(), size: 3 }]
        );
        assert_eq!(preview.note, None);
    }

    #[test]
    fn bounded() {
        let long = format!("Subject: {}\r\n\r\n{}", "s".repeat(10_000), "t".repeat(1_000_000));
        let shown = preview(long.as_bytes());
        assert_eq!(field(&shown, "Subject").unwrap().chars().count(), FIELD);
        assert_eq!(shown.text.unwrap().chars().count(), TEXT);
        assert_eq!(shown.note.as_deref(), Some("the text goes on"));

        let lines = format!("\r\n{}", "line\r\n".repeat(500));
        assert_eq!(preview(lines.as_bytes()).text.unwrap().lines().count(), LINES);

        let mut parts = String::from("Content-Type: multipart/mixed; boundary=x\r\n\r\n");
        for _ in 0..200 {
            parts.push_str("--x\r\nContent-Type: image/png\r\n\r\nx\r\n");
        }
        let shown = preview(parts.as_bytes());
        assert_eq!(shown.attachments.len(), ATTACHMENTS);
        assert_eq!(shown.note.as_deref(), Some("there are more parts than are shown"));
    }

    #[test]
    fn what_would_end_the_stack_or_the_memory_is_shown_as_it_stands() {
        let part = |n: usize| format!("Content-Type: multipart/mixed; Boundary=b{n}\r\n\r\n--b{n}\r\n");
        let nested = |depth| format!("Subject: deep\r\n{}", (0..depth).map(part).collect::<String>());
        let wide = |parts| {
            let parts = "--x\r\n\r\n".repeat(parts);
            format!("Subject: deep\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n{parts}")
        };
        let long = |fields| format!("Subject: deep\r\n{}\r\nHello.\r\n", "X: y\r\n".repeat(fields));
        let words = |n| {
            format!("Subject: deep\r\nX: {}{}\r\n\r\n", ",=?".repeat(n), "?=a".repeat(n))
                + "From: x@y\r\n\r\n"
        };
        for (message, why) in [
            (nested(100), None),
            (nested(200_000), Some("multiparts")),
            (wide(10_000), None),
            (wide(1_000_000), Some("parts")),
            (long(100_000), None),
            (long(2_000_000), Some("header")),
            (words(10_000), Some("encoded words")),
            (words(10_000).replace("\r\n", "\n"), Some("encoded words")),
        ] {
            let shown = preview(message.as_bytes());
            assert_eq!(field(&shown, "Subject"), Some("deep"));
            assert!(field(&shown, "From").is_none(), "it stands in the body");
            let note = shown.note.unwrap_or_default();
            assert_eq!(note.contains("not told apart"), why.is_some(), "{why:?}: {note}");
            assert!(note.contains(why.unwrap_or_default()), "{note}");
        }
    }

    /// Without a header the first paragraph is text, whatever it looks like.
    #[test]
    fn a_header_may_be_empty() {
        let words = ",=?".repeat(10_000) + &"?=a".repeat(10_000);
        for newline in ["\r\n", "\n"] {
            let shown = preview(format!("{newline}From: x@y{newline}{newline}{words}").as_bytes());
            assert!(shown.note.as_deref().is_some_and(|note| note.contains("not told apart")));
            assert_eq!(field(&shown, "From"), None);
            assert!(shown.text.is_some_and(|text| text.starts_with("From: x@y")));
        }
    }

    #[test]
    fn hostile_forms_yield_a_preview_all_the_same() {
        let nested: String = (0..2_000)
            .map(|n| format!("Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n"))
            .collect();
        for message in [
            &b""[..],
            b"\r\n",
            b"no header at all",
            b"Subject: a\r\n\r\n\xff\xfe\x00",
            b"Content-Type: text/plain; charset=nonsense\r\n\r\nabc",
            b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n!!!",
            b"Content-Type: multipart/mixed\r\n\r\n--x\r\n\r\n",
            nested.as_bytes(),
        ] {
            let preview = preview(message);
            assert!(preview.header.len() <= 24);
        }
    }
}
