//! `[notify] template`: the operator's own text for notices about an account.
//!
//! Pure except for [`Template::read`]. A name in braces is replaced by a fact of the case, `{{` and `}}` by single
//! braces; there are no conditions and no loops. A first line that begins with `Subject:` is the mail's subject. As in
//! the built-in text, values from outside are made safe to print, and accounts safe to copy into a shell.

use std::path::Path;

use crate::visible::unreadable;

/// A name that a template can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// `blocked`, `would_block`, `probation`, `would_delay`, `suspected`
    Event,
    /// The account, quoted if a shell requires that.
    Account,
    /// Invalid recipients within the period.
    Count,
    /// The account's limit.
    Limit,
    /// Its period.
    Period,
    /// The reason.
    Reason,
    /// When the first invalid recipient within the period was asked for.
    First,
    /// When the last one was.
    Last,
    /// The clients' addresses.
    Clients,
    /// The number of open sessions.
    Sessions,
    /// The latest invalid recipients, one per line.
    Samples,
    /// The latest messages that the upstream accepted, one per line.
    Relayed,
    /// Our own host name.
    Hostname,
    /// When the mail was written.
    Time,
    /// The subject that the mail would have without a template.
    Subject,
    /// The text that the mail would have without a template.
    Text,
}

/// All fields with their names.
pub const FIELDS: [(&str, Field); 16] = [
    ("event", Field::Event),
    ("account", Field::Account),
    ("count", Field::Count),
    ("limit", Field::Limit),
    ("period", Field::Period),
    ("reason", Field::Reason),
    ("first", Field::First),
    ("last", Field::Last),
    ("clients", Field::Clients),
    ("sessions", Field::Sessions),
    ("samples", Field::Samples),
    ("relayed", Field::Relayed),
    ("hostname", Field::Hostname),
    ("time", Field::Time),
    ("subject", Field::Subject),
    ("text", Field::Text),
];

/// A text with fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// `None`: the built-in subject.
    subject: Option<Vec<Piece>>,
    body: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(Field),
}

/// Why a file is not a template; names file, line and remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TemplateError(String);

/// The beginning of the line with the subject.
const SUBJECT: &str = "Subject:";
/// The largest template, in octets; it is for people to read.
const MAX_SIZE: usize = 64 * 1024;

impl Template {
    /// Reads a template file.
    ///
    /// # Errors
    /// The file cannot be read, or is not a template.
    pub fn read(path: &Path) -> Result<Self, TemplateError> {
        let octets = std::fs::read(path).map_err(|cause| TemplateError(unreadable(path, &cause)))?;
        let text = match str::from_utf8(&octets) {
            Ok(text) if octets.len() <= MAX_SIZE => Self::parse(text),
            Ok(_) => Err((None, format!("at most {} KiB", MAX_SIZE / 1024))),
            Err(_) => Err((None, "a text in UTF-8".to_owned())),
        };
        text.map_err(|(line, why)| match line {
            Some(line) => TemplateError(format!("{}:{line}: {why}", path.display())),
            None => TemplateError(format!("{}: {why}", path.display())),
        })
    }

    /// Parses a template; an error has its line number.
    fn parse(text: &str) -> Result<Self, (Option<usize>, String)> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
        let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
        let has_subject = first.get(..SUBJECT.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(SUBJECT));
        let (subject, body) =
            if has_subject { (first.get(SUBJECT.len()..), rest) } else { (None, text.as_str()) };
        let line = 1 + usize::from(has_subject);
        let subject = subject.map(|subject| pieces(subject.trim(), 1)).transpose()?;
        if let Some(many) = subject.iter().flatten().find_map(Piece::of_many_lines) {
            return Err((Some(1), format!("{{{many}}} has many lines, and a subject is one")));
        }
        // As in a mail, an empty line below the subject ends the header.
        let skipped = body.strip_prefix('\n').filter(|_| has_subject);
        let (body, line) = skipped.map_or((body, line), |body| (body, line + 1));
        if body.trim().is_empty() {
            return Err((None, "there is no text in it".to_owned()));
        }
        Ok(Self { subject, body: pieces(body, line)? })
    }

    /// The subject in one line, if the template has one.
    pub(super) fn subject(&self, value: impl Fn(Field) -> String) -> Option<String> {
        self.subject.as_ref().map(|pieces| render(pieces, value).replace('\n', " "))
    }

    /// The text.
    pub(super) fn body(&self, value: impl Fn(Field) -> String) -> String {
        let mut text = render(&self.body, value);
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text
    }
}

impl Piece {
    fn of_many_lines(&self) -> Option<&'static str> {
        let Self::Field(field @ (Field::Samples | Field::Relayed | Field::Text)) = self else { return None };
        FIELDS.iter().find(|(_, known)| known == field).map(|(name, _)| *name)
    }
}

fn render(pieces: &[Piece], value: impl Fn(Field) -> String) -> String {
    let mut text = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(piece) => text.push_str(piece),
            // Lists end with a newline, but the template has its own after the field.
            Piece::Field(field) => text.push_str(value(*field).trim_end_matches('\n')),
        }
    }
    text
}

/// Splits a text into pieces; `first_line` is the number of its first line.
fn pieces(text: &str, first_line: usize) -> Result<Vec<Piece>, (Option<usize>, String)> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, brace) = rest.split_at(at);
        plain.push_str(before);
        if let Some((two, behind)) = brace.split_at_checked(2).filter(|(two, _)| matches!(*two, "{{" | "}}"))
        {
            plain.extend(two.chars().take(1));
            rest = behind;
            continue;
        }
        let name = brace.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let known = name.and_then(|(name, behind)| {
            FIELDS.iter().find(|(known, _)| *known == name).map(|(_, field)| (*field, behind))
        });
        let Some((field, behind)) = known else {
            let line = first_line + text[..text.len() - brace.len()].matches('\n').count();
            return Err((Some(line), unknown(name.map(|(name, _)| name))));
        };
        pieces.push(Piece::Text(std::mem::take(&mut plain)));
        pieces.push(Piece::Field(field));
        rest = behind;
    }
    plain.push_str(rest);
    pieces.push(Piece::Text(plain));
    Ok(pieces)
}

fn unknown(name: Option<&str>) -> String {
    let all = FIELDS.map(|(name, _)| format!("{{{name}}}")).join(", ");
    let braces = "a brace itself is written {{ or }}";
    match name.filter(|name| name.len() <= 40 && !name.contains(char::is_control)) {
        Some(name) => format!("{{{name}}} is unknown; there are {all}; {braces}"),
        None => format!("a brace without its other; there are {all}; {braces}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(field: Field) -> String {
        match field {
            Field::Account => "user:anna".to_owned(),
            Field::Samples => "a@x\nb@x\n".to_owned(),
            field => format!("<{field:?}>"),
        }
    }

    #[test]
    fn names_in_braces_are_filled_in() {
        for (text, subject, body) in [
            ("Konto {account} gesperrt", None, "Konto user:anna gesperrt\n"),
            ("Subject: {account}: {count}\n\nA\n", Some("user:anna: <Count>"), "A\n"),
            ("subject:x\r\nA\r\nB", Some("x"), "A\nB\n"),
            ("Subjects: none\n", None, "Subjects: none\n"),
            ("{samples}\n\nend {{}} {{account}} }}{{\n", None, "a@x\nb@x\n\nend {} {account} }{\n"),
            ("\u{feff}ü{event}ü\n", None, "ü<Event>ü\n"),
        ] {
            let template = Template::parse(text).unwrap();
            assert_eq!(template.subject(value).as_deref(), subject, "{text}");
            assert_eq!(template.body(value), body, "{text}");
        }
    }

    #[test]
    fn what_is_no_template_is_refused_with_its_line() {
        for (text, line, part) in [
            (
                "Subject: x\n\none\n{acount}\n",
                Some(4),
                "{acount} is unknown; there are {event}, {account}, {count}, ",
            ),
            ("{}\n", Some(1), "{} is unknown"),
            ("a {account\n", Some(1), "a brace without its other"),
            ("a\nb } c\n", Some(2), "a brace without its other"),
            ("Subject: {samples}\nx\n", Some(1), "{samples} has many lines"),
            ("Subject: {nothing}\nx\n", Some(1), "{nothing} is unknown"),
            ("Subject: x\n\n \n", None, "there is no text in it"),
            ("", None, "there is no text in it"),
        ] {
            let (found, why) = Template::parse(text).unwrap_err();
            assert!(found == line && why.contains(part), "{text}: {found:?} {why}");
        }
    }

    #[test]
    fn files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notice");
        for (content, part) in [
            (&b"ok {nobody}\n"[..], "notice:1: {nobody}"),
            (b"\xff", "notice: a text in UTF-8"),
            (&[b'x'; MAX_SIZE + 1], "notice: at most 64 KiB"),
        ] {
            std::fs::write(&path, content).unwrap();
            let error = Template::read(&path).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        let missing = Template::read(&folder.path().join("none")).unwrap_err().to_string();
        assert!(missing.contains("none: No such file"), "{missing}");
    }
}
