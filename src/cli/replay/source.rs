//! The logs as opened: files or standard input, plain or gzip.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use flate2::read::MultiGzDecoder;

use super::super::output::Failed;
use crate::clock::{self, Timestamp};
use crate::replay::log::Log;

/// How a gzip file begins (RFC 1952 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// An open log.
pub(super) struct Source {
    name: String,
    reader: Box<dyn Read>,
    latest: Timestamp,
    /// Its size in octets; `None` if unknown.
    pub(super) size: Option<u64>,
    /// The octets read so far.
    pub(super) read: Rc<Cell<u64>>,
}

impl Source {
    pub(super) fn into_log(self) -> (String, Log<Box<dyn Read>>) {
        (self.name, Log::new(self.reader, self.latest))
    }

    fn new(
        name: String,
        reader: impl Read + 'static,
        size: Option<u64>,
        latest: Timestamp,
    ) -> io::Result<Self> {
        let read = Rc::new(Cell::new(0));
        let mut reader = Counted { reader, read: Rc::clone(&read) };
        let mut first = [0; 2];
        let mut got = 0;
        while got < first.len() {
            match reader.read(&mut first[got..])? {
                0 => break,
                octets => got += octets,
            }
        }
        let whole = io::Cursor::new(first).take(got as u64).chain(reader);
        let reader: Box<dyn Read> =
            if first == GZIP { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) };
        Ok(Self { name, reader, latest, size, read })
    }
}

/// Counts the octets that are read.
struct Counted<R> {
    reader: R,
    read: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let octets = self.reader.read(buffer)?;
        self.read.set(self.read.get() + octets as u64);
        Ok(octets)
    }
}

/// Opens all logs before any of them is read.
pub(super) fn open(logs: &[PathBuf]) -> Result<Vec<Source>, Failed> {
    if logs.is_empty() {
        if io::stdin().is_terminal() {
            return Err(Failed::because("name the mail logs to read, or pipe them in"));
        }
        return Ok(vec![standard_input()?]);
    }
    logs.iter().map(|log| if log == Path::new("-") { standard_input() } else { file(log) }).collect()
}

fn standard_input() -> Result<Source, Failed> {
    Source::new("standard input".to_owned(), io::stdin(), None, clock::now())
        .map_err(|error| Failed::because(format!("standard input cannot be read: {error}")))
}

fn file(path: &Path) -> Result<Source, Failed> {
    let opened = File::open(path).and_then(|file| {
        let metadata = file.metadata()?;
        // Nothing in it was written later, even if its lines have no year.
        let modified = metadata.modified().ok().and_then(clock::of).unwrap_or_else(clock::now);
        let size = metadata.is_file().then_some(metadata.len());
        Source::new(path.display().to_string(), file, size, modified.min(clock::now()))
    });
    opened.map_err(|error| Failed::because(format!("{} cannot be read: {error}", path.display())))
}
