//! The output of a command: lines for people or JSON for programs on standard output, complaints on standard error.
//!
//! Text from strangers is cleaned before it reaches a terminal: see [`text`](super::text).

use std::io::{self, BufWriter, StdoutLock, Write};

use serde::Serialize;

use super::text::{clean, escape_json};

/// The most octets that are held back; output beyond that is written at once.
const HELD_MOST: usize = 64 * 1024 * 1024;

/// Why a command did not do everything it should.
#[derive(Debug)]
pub(super) enum Failed {
    /// The reason and the remedy, still to be printed.
    Because(String),
    /// The arguments contradict each other; why is still to be printed.
    Misused(String),
    /// The reason has been printed already.
    Told,
    /// The reader of the output is gone, which is not a failure.
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
    /// Output that is held back.
    held: Option<Vec<u8>>,
    /// Whether to go on if output cannot be written.
    goes_on: bool,
    /// Why nothing more can be written.
    lost: Option<io::Error>,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { out: BufWriter::new(io::stdout().lock()), json, held: None, goes_on: false, lost: None }
    }

    /// Goes on to the end even if nobody reads the output, for a command that changes something or whose verdict covers
    /// everything. [`Self::end`] reports whether all was written.
    pub(super) fn going_on(self) -> Self {
        Self { goes_on: true, ..self }
    }

    /// Holds the output back until [`Self::end`], unless it is very long: a slow reader such as a pager must not keep
    /// others from the data.
    pub(super) fn hold_back(&mut self) {
        self.held.get_or_insert_default();
    }

    /// Writes what was held back.
    fn let_go(&mut self) -> Result<(), Failed> {
        let held = self.held.take().unwrap_or_default();
        self.octets(&held)
    }

    /// Whether the output is JSON, for programs.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints one line for people.
    pub(super) fn line(&mut self, line: &str) -> Result<(), Failed> {
        let line = clean(line);
        self.put(|out| writeln!(out, "{line}"))
    }

    /// Prints one object for programs.
    pub(super) fn object(&mut self, object: &impl Serialize) -> Result<(), Failed> {
        let json = serde_json::to_string(object).map_err(|error| Failed::because(error.to_string()))?;
        let json = escape_json(&json);
        self.put(|out| writeln!(out, "{json}"))
    }

    /// Prints octets unchanged.
    pub(super) fn octets(&mut self, octets: &[u8]) -> Result<(), Failed> {
        self.put(|out| out.write_all(octets))
    }

    /// To be called after each unit of output, and at the very end.
    pub(super) fn flush(&mut self) -> Result<(), Failed> {
        self.put(|out| out.flush())
    }

    /// Ends the output.
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

/// Prints one line on standard error: why the command failed, and what to do.
pub(super) fn complain(why: &str) {
    to_stderr("", why);
}

/// Prints one line on standard error about something that does not make the command fail.
pub(super) fn warn(what: &str) {
    to_stderr("warning: ", what);
}

fn to_stderr(kind: &str, text: &str) {
    let mut stderr = io::stderr().lock();
    for line in text.lines() {
        // If standard error is gone, there is nobody left to tell.
        let _ = writeln!(stderr, "gatepost: {kind}{}", clean(line));
    }
}
