//! What a command prints: lines for people or JSON for programs to standard output, complaints to standard error.
//!
//! Nothing that a stranger wrote reaches a terminal as it is: see [`text`](super::text).

use std::io::{self, BufWriter, StdoutLock, Write};

use serde::Serialize;

use super::text::{clean, escape_json};

/// So much of the output is held back; beyond it goes out at once.
const HELD_MOST: usize = 64 * 1024 * 1024;

/// A command that did not do all that it was to do.
#[derive(Debug)]
pub(super) enum Failed {
    /// Why, and what to do; still to be told.
    Because(String),
    /// It has been told already.
    Told,
    /// Whoever read the output has gone, which is no failure.
    ReaderGone,
}

impl Failed {
    pub(super) fn because(why: impl Into<String>) -> Self {
        Self::Because(why.into())
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ReaderGone,
            _ => Self::because(format!("the output cannot be written: {error}")),
        }
    }
}

/// Standard output.
pub(super) struct Output {
    out: BufWriter<StdoutLock<'static>>,
    json: bool,
    /// What is not yet to be written.
    held: Option<Vec<u8>>,
    /// Whether what cannot be written is no reason to stop.
    goes_on: bool,
    /// Why nothing more is written.
    lost: Option<io::Error>,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { out: BufWriter::new(io::stdout().lock()), json, held: None, goes_on: false, lost: None }
    }

    /// For a command that changes something, or whose verdict is on all of it: it goes on to its end, whether or not anybody reads what
    /// it prints.
    /// [`Self::end`] says whether all was written.
    pub(super) fn going_on(self) -> Self {
        Self { goes_on: true, ..self }
    }

    /// Writes nothing until [`Self::end`], but for a very long output: whoever reads it slowly, a pager say, is not to hold up others
    /// who want the data.
    pub(super) fn hold_back(&mut self) {
        self.held.get_or_insert_default();
    }

    /// Writes what was held back.
    fn let_go(&mut self) -> Result<(), Failed> {
        let held = self.held.take().unwrap_or_default();
        self.octets(&held)
    }

    /// Whether a program reads it.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// One line for people.
    pub(super) fn line(&mut self, line: &str) -> Result<(), Failed> {
        let line = clean(line);
        self.put(|out| writeln!(out, "{line}"))
    }

    /// One object for programs.
    pub(super) fn object(&mut self, object: &impl Serialize) -> Result<(), Failed> {
        let json = serde_json::to_string(object).map_err(|error| Failed::because(error.to_string()))?;
        let json = escape_json(&json);
        self.put(|out| writeln!(out, "{json}"))
    }

    /// Octets as they are.
    pub(super) fn octets(&mut self, octets: &[u8]) -> Result<(), Failed> {
        self.put(|out| out.write_all(octets))
    }

    /// To be called at the end of what belongs together, and at the very end.
    pub(super) fn flush(&mut self) -> Result<(), Failed> {
        self.put(|out| out.flush())
    }

    /// The end of the output.
    pub(super) fn end(&mut self) -> Result<(), Failed> {
        self.let_go()?;
        self.flush()?;
        self.lost.take().map_or(Ok(()), |error| Err(error.into()))
    }

    fn put(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failed> {
        if self.lost.is_some() {
            return Ok(());
        }
        if self.held.as_ref().is_some_and(|held| held.len() > HELD_MOST) {
            self.let_go()?;
        }
        let out: &mut dyn Write = match &mut self.held {
            Some(held) => held,
            None => &mut self.out,
        };
        match write(out) {
            Err(error) if self.goes_on => self.lost = Some(error),
            outcome => outcome?,
        }
        Ok(())
    }
}

/// One line on standard error: why the command failed, and what to do.
pub(super) fn complain(why: &str) {
    to_stderr("", why);
}

/// One line on standard error about something that does not keep the command from being done.
pub(super) fn warn(what: &str) {
    to_stderr("warning: ", what);
}

fn to_stderr(kind: &str, text: &str) {
    let mut stderr = io::stderr().lock();
    for line in text.lines() {
        // With standard error gone there is nobody left to tell.
        let _ = writeln!(stderr, "gatepost: {kind}{}", clean(line));
    }
}
