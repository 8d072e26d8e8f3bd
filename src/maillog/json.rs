//! A log line as one JSON object: time, level, message, and the fields beside them.
//!
//! The output is that of tracing-subscriber's own JSON format, keys in the same order, but written straight into the
//! line. There is at least one line per message, and the original, with a map and a text for each value, cost as much
//! as all the rest of the log.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

use crate::clock;
use crate::decimal::Digits;

/// An event format for tracing-subscriber.
pub struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        out.write_str("{\"timestamp\":\"")?;
        write!(out, "{}", clock::now())?;
        out.write_str("\",\"level\":\"")?;
        out.write_str(event.metadata().level().as_str())?;
        out.write_char('"')?;
        let mut fields = Fields { out: &mut out, outcome: Ok(()) };
        event.record(&mut fields);
        fields.outcome?;
        out.write_str("}\n")
    }
}

/// Writes `,"name":value` for each field.
struct Fields<'a> {
    out: &'a mut dyn Write,
    outcome: fmt::Result,
}

impl Fields<'_> {
    #[inline(never)] // see "The code of a message" in docs/performance.md
    fn put(&mut self, field: &Field, value: &dyn Fn(&mut dyn Write) -> fmt::Result) {
        let named = |out: &mut dyn Write| {
            out.write_str(",\"")?;
            // The field's name in the source, where `type` has to be written `r#type`.
            let name = field.name();
            out.write_str(name.strip_prefix("r#").unwrap_or(name))?;
            out.write_str("\":")?;
            value(out)
        };
        self.outcome = self.outcome.and_then(|()| named(self.out));
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, &|out| {
            out.write_char('"')?;
            write!(Escaped(out), "{value:?}")?;
            out.write_char('"')
        });
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, &|out| {
            out.write_char('"')?;
            Escaped(out).write_str(value)?;
            out.write_char('"')
        });
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, &|out| write!(out, "{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, &|out| out.write_str(Digits::of(value).as_str()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, &|out| write!(out, "{value}"));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.put(field, &|out| write!(out, "{value}"));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.put(field, &|out| write!(out, "{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has neither infinity nor NaN.
        self.put(field, &|out| {
            if value.is_finite() { write!(out, "{value}") } else { out.write_str("null") }
        });
    }
}

/// Writes the inside of a JSON string (RFC 8259 7).
struct Escaped<'a>(&'a mut dyn Write);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if is_plain(text) {
            return self.0.write_str(text);
        }
        let mut written = 0;
        for (at, octet) in text.bytes().enumerate() {
            if octet >= b' ' && octet != b'"' && octet != b'\\' {
                continue;
            }
            self.0.write_str(text.get(written..at).unwrap_or_default())?;
            written = at + 1;
            match octet {
                b'"' => self.0.write_str("\\\"")?,
                b'\\' => self.0.write_str("\\\\")?,
                b'\n' => self.0.write_str("\\n")?,
                b'\r' => self.0.write_str("\\r")?,
                b'\t' => self.0.write_str("\\t")?,
                control => write!(self.0, "\\u{control:04x}")?,
            }
        }
        self.0.write_str(text.get(written..).unwrap_or_default())
    }
}

/// Whether the text needs no escaping. Examines all of it, which is faster than stopping early.
fn is_plain(text: &str) -> bool {
    text.bytes().fold(true, |plain, octet| plain & (octet >= b' ') & (octet != b'"') & (octet != b'\\'))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::Arc;

    use tracing::info;

    use super::*;

    /// Returns what is logged meanwhile, as text.
    fn logged(format: impl FnOnce(Arc<File>) -> Box<dyn Subscriber + Send + Sync>) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        let subscriber = format(Arc::new(file.reopen().unwrap()));
        tracing::subscriber::with_default(subscriber, || {
            let text = "a \"b\" \\ \u{1}\t\r\n \u{7f} \u{e4}\u{2028}\u{1f511}";
            let (none, some): (Option<&str>, _) = (None, Some("x"));
            info!(text, shown = %text, debug = ?text, none, some, size = 3_u64, below = -1, yes = true, part = 0.5, "it {}", text);
            info!(r#type = "x", account = text.to_owned(), "");
            info!("no field");
        });
        std::fs::read_to_string(file.path()).unwrap()
    }

    fn without_time(log: &str) -> Vec<serde_json::Value> {
        let parsed = log.lines().map(|line| {
            let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
            let time = line.as_object_mut().unwrap().remove("timestamp").unwrap();
            assert!(time.as_str().is_some_and(|time| time.parse::<jiff::Timestamp>().is_ok()), "{time}");
            line
        });
        parsed.collect()
    }

    #[test]
    fn as_the_subscriber_of_the_library_says_it() {
        let ours = logged(|file| {
            Box::new(tracing_subscriber::fmt().with_writer(file).event_format(JsonLines).finish())
        });
        let theirs = logged(|file| {
            let builder = tracing_subscriber::fmt().with_writer(file).with_target(false);
            Box::new(builder.json().flatten_event(true).finish())
        });
        assert_eq!(without_time(&ours), without_time(&theirs));
        assert_eq!(ours.lines().count(), 3);
        // The order of the keys matters to people.
        let keys = |log: &str| -> Vec<String> {
            log.lines()
                .next()
                .unwrap()
                .split(",\"")
                .map(|part| part.split('"').next().unwrap().to_owned())
                .collect()
        };
        assert_eq!(keys(&ours)[1..4], ["level", "message", "text"]);
    }
}
