//! Reads logs together in chronological order: rotated ones one after the other, those of several machines line by
//! line.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Read};

use super::attribution::Attribution;
use super::calendar::Calendar;
use super::head::{self, Head};
use super::lines::{Found, Lines};
use super::order::Order;
use super::report::Reading;
use super::trial::Trial;
use crate::clock::Timestamp;
use crate::guard::classify::Rules;

/// A log at one of its lines.
#[derive(Debug)]
pub struct Log<R> {
    lines: Lines<R>,
    calendar: Calendar,
    head: Option<Head>,
}

impl<R: Read> Log<R> {
    /// The log that `reader` yields, which was not written after `latest`.
    pub fn new(reader: R, latest: Timestamp) -> Self {
        Self { lines: Lines::new(reader), calendar: Calendar::new(latest), head: None }
    }

    /// Advances to the next line with a head; counts the lines skipped.
    fn advance(&mut self, reading: &mut Reading) -> io::Result<()> {
        self.head = None;
        loop {
            match self.lines.advance()? {
                Found::End => return Ok(()),
                Found::TooLong => {
                    reading.lines += 1;
                    reading.unreadable += 1;
                }
                Found::Line => {
                    reading.lines += 1;
                    let line = self.lines.current();
                    if let Ok(text) = str::from_utf8(line) {
                        self.head = head::read(text, &mut self.calendar);
                    }
                    if self.head.is_some() {
                        return Ok(());
                    }
                    // journald: `-- Boot 1234 --`, `-- No entries --`
                    let says_nothing = line.is_empty() || line.starts_with(b"-- ");
                    reading.unreadable += u64::from(!says_nothing);
                }
            }
        }
    }

    fn current(&self) -> &str {
        str::from_utf8(self.lines.current()).unwrap_or_default()
    }
}

/// Everything between lines and a report.
pub struct Replay {
    rules: Rules,
    attribution: Attribution,
    order: Order,
    trial: Trial,
    reading: Reading,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Replay {
    /// Applies `trial` to what was logged from `since` to `until`; `rules` are the operator's own for the meaning of
    /// refusals.
    pub fn new(
        rules: Rules,
        attribution: Attribution,
        trial: Trial,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Self {
        Self { rules, attribution, order: Order::default(), trial, reading: Reading::default(), since, until }
    }

    /// Reads logs to their ends. `broken` is called with the index of each log that cannot be read to its end;
    /// `progress` with the number of lines read so far, every thousand lines.
    pub fn read<R: Read>(
        &mut self,
        logs: &mut [Log<R>],
        mut broken: impl FnMut(usize, &io::Error),
        mut progress: impl FnMut(u64),
    ) {
        let mut turns = BinaryHeap::new();
        for (place, log) in logs.iter_mut().enumerate() {
            self.turn(&mut turns, place, log, &mut broken);
        }
        while let Some(Reverse((_, place))) = turns.pop() {
            let log = &mut logs[place];
            if let Some(head) = log.head.take() {
                self.line(&head, log.current());
            }
            if self.reading.lines.is_multiple_of(1_000) {
                progress(self.reading.lines);
            }
            self.turn(&mut turns, place, log, &mut broken);
        }
    }

    /// Queues the log for the time of its next line.
    fn turn<R: Read>(
        &mut self,
        turns: &mut BinaryHeap<Reverse<(Timestamp, usize)>>,
        place: usize,
        log: &mut Log<R>,
        broken: &mut impl FnMut(usize, &io::Error),
    ) {
        // A line read before the error is still available.
        while let Err(error) = log.advance(&mut self.reading) {
            broken(place, &error);
        }
        if let Some(head) = &log.head {
            turns.push(Reverse((head.at, place)));
        }
    }

    fn line(&mut self, head: &Head, line: &str) {
        let reading = &mut self.reading;
        if self.since.is_some_and(|since| head.at < since) || self.until.is_some_and(|until| head.at > until)
        {
            reading.out_of_time += 1;
            return;
        }
        reading.from = Some(reading.from.map_or(head.at, |from| from.min(head.at)));
        reading.until = Some(reading.until.map_or(head.at, |until| until.max(head.at)));
        let host = line.get(head.host.clone()).unwrap_or_default();
        match super::say(head.program, line.get(head.rest..).unwrap_or_default(), &self.rules) {
            Ok(Some(record)) => {
                reading.used += 1;
                self.attribution.take(head.at, host, record, |attempt| self.order.put(attempt));
                while let Some(attempt) = self.order.take(Some(head.at)) {
                    self.trial.put(&attempt);
                }
            }
            Ok(None) => {}
            Err(_) => reading.unreadable += 1,
        }
    }

    /// Ends the replay.
    pub fn finish(mut self) -> (Trial, Reading, super::attribution::LeftOut) {
        while let Some(attempt) = self.order.take(None) {
            self.trial.put(&attempt);
        }
        (self.trial, self.reading, self.attribution.left_out())
    }
}
