//! A progress line for reading, on a terminal only.

use std::cell::Cell;
use std::io::{IsTerminal, Write, stderr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::super::text::count;
use super::source::Source;

const PACE: Duration = Duration::from_millis(200);
const BAR: usize = 30;

pub(super) struct Progress {
    /// The total size of all logs in octets; `None` if one is unknown.
    size: Option<u64>,
    read: Vec<Rc<Cell<u64>>>,
    begun: Instant,
    shown: Option<Instant>,
    terminal: bool,
}

impl Progress {
    pub(super) fn new(sources: &[Source]) -> Self {
        Self {
            size: sources.iter().map(|source| source.size).sum(),
            read: sources.iter().map(|source| Rc::clone(&source.read)).collect(),
            begun: Instant::now(),
            shown: None,
            terminal: stderr().is_terminal(),
        }
    }

    pub(super) fn show(&mut self, lines: u64) {
        let now = Instant::now();
        if !self.terminal || now - self.shown.unwrap_or(self.begun) < PACE {
            return;
        }
        self.shown = Some(now);
        let octets = self.read.iter().map(|read| read.get()).sum();
        // If standard error is gone, there is nobody left to tell; likewise below.
        let _ = write!(stderr(), "\r{}\u{1b}[K", line(octets, self.size, lines));
    }

    pub(super) fn clear(&self) {
        if self.shown.is_some() {
            let _ = write!(stderr(), "\r\u{1b}[K");
        }
    }
}

fn line(read: u64, size: Option<u64>, lines: u64) -> String {
    let Some(size) = size.filter(|size| *size > 0) else { return format!("{} read", count(lines, "line")) };
    let percent = usize::try_from(read.min(size) * 100 / size).unwrap_or(100);
    let full = percent * BAR / 100;
    format!("[{}{}] {percent:3} %  {} read", "#".repeat(full), "-".repeat(BAR - full), count(lines, "line"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        assert_eq!(line(0, None, 7), "7 lines read");
        assert_eq!(line(0, None, 1), "1 line read");
        assert_eq!(line(5, Some(10), 7), "[###############---------------]  50 %  7 lines read");
        assert_eq!(line(20, Some(10), 7), "[##############################] 100 %  7 lines read");
        assert_eq!(line(0, Some(0), 7), "7 lines read");
    }
}
