//! Where the log's lines go: a line of a quiet log is written at once, those of a busy one together.
//!
//! A write to a file takes as long as the rest of the line, and one to a pipe that is full holds up the session that logs. So
//! whoever logs a line writes it only if little has come for [`BATCH`], and nobody else is writing. Else a thread is woken, which
//! from then on writes every [`BATCH`] what has come, until nothing has: to wake it takes longer than a write, and so has to be
//! rare. Warnings, errors and audit lines, and all lines while there is no such thread, are written before the call returns,
//! after all earlier ones. What cannot be written is lost, whatever it is, and an error tells how much that was.

use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use memchr::memchr;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use super::AUDIT;

/// How long a line waits for others, at most. A process that is killed loses what waits, which is more if the log's reader is
/// slow.
const BATCH: Duration = Duration::from_millis(50);
/// How many octets wait, at most, beside as many that are being written. Whoever logs more waits for the reader of the log.
const LIMIT: usize = 1024 * 1024;

/// How much memory is kept for the next lines, in octets.
const KEPT: usize = 64 * 1024;

/// A writer for tracing-subscriber, which hands over each line in one piece. Cheap to clone.
#[derive(Debug)]
pub struct Batches<W> {
    shared: Arc<Shared<W>>,
}

impl<W> Clone for Batches<W> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

/// Nobody who holds `waiting` waits for `out`.
#[derive(Debug)]
struct Shared<W> {
    /// Held while lines are written: so they stay in order.
    out: Mutex<Out<W>>,
    waiting: Mutex<Waiting>,
    /// The thread has to look at `waiting`.
    stirred: Condvar,
}

#[derive(Debug)]
struct Out<W> {
    writer: W,
    /// How far the last line has come.
    last: Last,
    /// How many lines could not be written so far.
    lost: u64,
    /// How many of those the log has told of.
    told: u64,
    /// Whether it is telling of them.
    tells: bool,
    /// The memory for the next lines.
    spare: Vec<u8>,
}

/// How far the last line has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    /// It is whole.
    Whole,
    /// The next octets continue it.
    Begun,
    /// The rest of it was lost: its end comes before the next line.
    Torn,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    writer: Writer,
    /// When a line that was not urgent last came while the thread was idle.
    last: Option<Instant>,
}

/// What the thread does.
#[derive(Debug, Default, PartialEq, Eq)]
enum Writer {
    /// There is none, or it ends.
    #[default]
    Gone,
    /// Little was logged lately; it waits until two lines come within [`BATCH`], or one while another is being written.
    Idle,
    /// It writes what waits, every [`BATCH`].
    Busy,
}

impl<W: Write + Send + 'static> Batches<W> {
    /// Lines for `out`, which is not flushed; they are written one by one until [`batch`](Self::batch) is called.
    pub fn new(out: W) -> Self {
        let out = Mutex::new(Out {
            writer: out,
            last: Last::Whole,
            lost: 0,
            told: 0,
            tells: false,
            spare: Vec::new(),
        });
        Self { shared: Arc::new(Shared { out, waiting: Mutex::default(), stirred: Condvar::new() }) }
    }

    /// Starts the thread that writes lines together. It ends, with all of them written, when the result is dropped.
    ///
    /// # Errors
    /// There can be no further thread; lines are written one by one as before.
    pub fn batch(&self) -> io::Result<Batching<W>> {
        let shared = Arc::clone(&self.shared);
        shared.waiting().writer = Writer::Idle;
        let thread = thread::Builder::new().name("log".to_owned()).spawn(move || shared.write_batches());
        if thread.is_err() {
            self.shared.waiting().writer = Writer::Gone;
            self.shared.write_all();
        }
        Ok(Batching { shared: Arc::clone(&self.shared), thread: Some(thread?) })
    }
}

/// While this lives, a thread writes the lines.
#[derive(Debug)]
pub struct Batching<W: Write> {
    shared: Arc<Shared<W>>,
    thread: Option<JoinHandle<()>>,
}

impl<W: Write> Drop for Batching<W> {
    fn drop(&mut self) {
        self.shared.waiting().writer = Writer::Gone;
        self.shared.stirred.notify_all();
        if let Some(thread) = self.thread.take() {
            // It does not panic; if it did, the lines would be written here.
            let _ = thread.join();
        }
        self.shared.write_all();
    }
}

impl<W: Write> Shared<W> {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a line; `urgent` ones are written before this returns.
    fn take(&self, line: &[u8], urgent: bool) {
        let mut waiting = self.waiting();
        waiting.lines.extend_from_slice(line);
        let waits = !urgent && waiting.lines.len() <= LIMIT && self.may_wait(&mut waiting);
        let stirs = waits && waiting.writer == Writer::Idle;
        if stirs {
            waiting.writer = Writer::Busy;
        }
        drop(waiting);
        if stirs {
            self.stirred.notify_one();
        }
        if !waits {
            self.write_all();
        }
    }

    /// Whether the thread may write the line that has come.
    fn may_wait(&self, waiting: &mut Waiting) -> bool {
        match waiting.writer {
            Writer::Gone => false,
            Writer::Busy => true,
            Writer::Idle => {
                let now = Instant::now();
                let follows = waiting.last.replace(now).is_some_and(|last| now < last + BATCH);
                // Whoever is writing may be held up.
                follows || matches!(self.out.try_lock(), Err(TryLockError::WouldBlock))
            }
        }
    }

    /// Writes what waits.
    fn write_all(&self) {
        let mut out = self.out();
        let spare = mem::take(&mut out.spare);
        let mut lines = mem::replace(&mut self.waiting().lines, spare);
        let is_written = out.write_lines(&lines);
        lines.clear();
        lines.shrink_to(KEPT);
        out.spare = lines;
        // If telling is lost as well, it is one more to tell of.
        let tells = is_written && out.lost > out.told && !out.tells;
        if tells {
            (out.told, out.tells) = (out.lost, true);
            let lost = out.lost;
            drop(out);
            super::lines_lost(lost);
            self.out().tells = false;
        }
    }

    fn out(&self) -> MutexGuard<'_, Out<W>> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread.
    fn write_batches(&self) {
        let mut waiting = self.waiting();
        while waiting.writer != Writer::Gone {
            if waiting.writer == Writer::Busy {
                let over =
                    self.stirred.wait_timeout_while(waiting, BATCH, |waiting| waiting.writer == Writer::Busy);
                waiting = over.unwrap_or_else(PoisonError::into_inner).0;
                if waiting.lines.is_empty() && waiting.writer == Writer::Busy {
                    waiting.writer = Writer::Idle;
                }
                drop(waiting);
                self.write_all();
                waiting = self.waiting();
            } else {
                let stirred = self.stirred.wait_while(waiting, |waiting| waiting.writer == Writer::Idle);
                waiting = stirred.unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

impl<W: Write> Out<W> {
    /// A line that cannot be written is lost, or its rest is: a log that fails must not end the service. It costs no other
    /// line. Returns whether the last write succeeded.
    fn write_lines(&mut self, lines: &[u8]) -> bool {
        let (mut rest, mut is_written) = (lines, false);
        while !rest.is_empty() {
            let is_due = self.last == Last::Torn;
            match self.writer.write(if is_due { b"\n" } else { rest }) {
                Ok(1..) if is_due => self.last = Last::Whole,
                Ok(octets @ 1..) => {
                    is_written = true;
                    let (written, left) = rest.split_at_checked(octets).unwrap_or((rest, &[]));
                    self.last = if written.ends_with(b"\n") { Last::Whole } else { Last::Begun };
                    rest = left;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => {
                    is_written = false;
                    let end = memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
                    // All but the end of a line may be there.
                    self.lost += u64::from(self.last != Last::Begun || end > 1);
                    if self.last == Last::Begun {
                        self.last = Last::Torn;
                    }
                    rest = rest.get(end..).unwrap_or_default();
                }
            }
        }
        is_written
    }
}

/// Writes one line.
#[derive(Debug)]
pub struct Line<'a, W> {
    shared: &'a Shared<W>,
    urgent: bool,
}

impl<W: Write> Write for Line<'_, W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.shared.take(line, self.urgent);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a, W: Write + 'a> MakeWriter<'a> for Batches<W> {
    type Writer = Line<'a, W>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { shared: &self.shared, urgent: true }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Self::Writer {
        let urgent = *event.level() <= Level::WARN || event.target() == AUDIT;
        Line { shared: &self.shared, urgent }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use tracing::{error, info, subscriber, warn};

    use super::*;

    /// Sends each write; fails once nobody receives.
    struct Writes(Sender<String>);

    impl Write for Writes {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            let sent = self.0.send(String::from_utf8(octets.to_vec()).unwrap());
            sent.map(|()| octets.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn batches() -> (Batches<Writes>, Receiver<String>) {
        let (sender, writes) = channel();
        (Batches::new(Writes(sender)), writes)
    }

    fn say(batches: &Batches<Writes>, line: &str, urgent: bool) {
        batches.shared.take(line.as_bytes(), urgent);
    }

    #[test]
    fn a_line_of_a_quiet_log_is_there_at_once() {
        let (log, writes) = batches();
        say(&log, "before there is a thread\n", false);
        say(&log, "and once more\n", false);
        assert_eq!(writes.try_iter().count(), 2);
        let _batching = log.batch().unwrap();
        for line in ["first\n", "second\n", "third\n"] {
            say(&log, line, false);
            assert_eq!(writes.try_recv().unwrap(), line);
            assert_eq!(log.shared.waiting().writer, Writer::Idle, "and no thread is woken for it");
            thread::sleep(BATCH);
        }
    }

    #[test]
    fn lines_that_follow_each_other_slowly_are_written_together() {
        let (log, writes) = batches();
        let batching = log.batch().unwrap();
        let begun = Instant::now();
        for number in 0..40 {
            say(&log, &format!("{number}\n"), false);
            thread::sleep(BATCH / 10);
        }
        // The thread waits BATCH before each of its writes, and between two of ours BATCH passes as well.
        let most = 2 + 2 * begun.elapsed().div_duration_f64(BATCH) as usize;
        drop(batching);
        let count = writes.try_iter().count();
        assert!(count <= most, "{count} writes");
    }

    #[test]
    fn a_write_that_is_held_up_holds_up_no_other_line() {
        let (log, writes) = batches();
        let batching = log.batch().unwrap();
        let stuck = log.shared.out();
        let logger = thread::spawn({
            let log = log.clone();
            move || say(&log, "a line\n", false)
        });
        let ends = (0..1_000).any(|_| {
            thread::sleep(BATCH);
            logger.is_finished()
        });
        assert!(ends);
        drop((stuck, batching));
        assert_eq!(writes.try_iter().collect::<String>(), "a line\n");
    }

    #[test]
    fn lines_of_a_busy_log_are_written_together_whole_and_in_order() {
        let (log, writes) = batches();
        let batching = log.batch().unwrap();
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let log = log.clone();
                thread::spawn(move || {
                    for line in 0..5_000 {
                        say(&log, &format!("{writer} {line}\n"), line % 1_000 == 999);
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        drop(batching);
        let written: Vec<String> = writes.try_iter().collect();
        assert!(written.len() < 2_000, "{} writes", written.len());
        let mut next = [0; 4];
        for line in written.concat().lines() {
            let (writer, line) = line.split_once(' ').unwrap();
            let next = &mut next[writer.parse::<usize>().unwrap()];
            assert_eq!(line, next.to_string());
            *next += 1;
        }
        assert_eq!(next, [5_000; 4]);
        say(&log, "the thread is gone\n", false);
        assert_eq!(writes.try_recv().unwrap(), "the thread is gone\n");
    }

    #[test]
    fn what_waits_is_written_soon() {
        let (log, writes) = batches();
        let _batching = log.batch().unwrap();
        say(&log, "at once\n", false);
        say(&log, "a little later\n", false);
        let both: Vec<String> =
            (0..2).map(|_| writes.recv_timeout(Duration::from_secs(2)).unwrap()).collect();
        assert_eq!(both, ["at once\n", "a little later\n"]);
    }

    #[test]
    fn warnings_errors_and_audit_lines_do_not_wait_nor_overtake() {
        let (log, writes) = batches();
        let _batching = log.batch().unwrap();
        let subscriber =
            tracing_subscriber::fmt().with_writer(log).without_time().with_ansi(false).with_target(false);
        subscriber::with_default(subscriber.finish(), || {
            for number in 0..100 {
                info!("number {number}");
            }
            error!("trouble");
            let said = writes.try_iter().collect::<String>();
            assert!(said.ends_with(" INFO number 99\nERROR trouble\n"), "{said}");
            assert_eq!(said.lines().count(), 101);
            let after_others = |say: &dyn Fn(), line: &str| {
                (0..100).for_each(|number| info!("number {number}"));
                say();
                let said = writes.try_iter().collect::<String>();
                assert!(said.ends_with(&format!(" INFO number 99\n{line}\n")), "{said}");
            };
            after_others(&|| warn!("doubt"), " WARN doubt");
            after_others(&|| info!(target: AUDIT, "unblock"), " INFO unblock");
        });
    }

    #[test]
    fn what_nobody_reads_is_bounded_and_a_reader_that_is_gone_holds_up_nobody() {
        let (log, writes) = batches();
        let batching = log.batch().unwrap();
        let line = "x".repeat(1_023) + "\n";
        // They log for as long as this is there.
        let test = Arc::new(());
        let stuck = log.shared.out.lock().unwrap();
        let loggers: Vec<_> = (0..3)
            .map(|_| {
                let (log, line, test) = (log.clone(), line.clone(), Arc::downgrade(&test));
                thread::spawn(move || {
                    while test.strong_count() > 0 {
                        say(&log, &line, false);
                    }
                })
            })
            .collect();
        let waiting = || log.shared.waiting().lines.len();
        let full = (0..1_000).any(|_| {
            thread::sleep(2 * BATCH);
            waiting() >= LIMIT
        });
        thread::sleep(4 * BATCH);
        assert!(full && waiting() <= LIMIT + 3 * line.len(), "{}", waiting());
        drop((stuck, writes, test));
        for logger in loggers {
            logger.join().unwrap();
        }
        drop(batching);
    }

    /// Takes so many octets at a time, or fails; then takes everything.
    struct Failing {
        taken: Vec<u8>,
        outcomes: Vec<Option<usize>>,
    }

    impl Write for Failing {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            let outcome = if self.outcomes.is_empty() { Some(octets.len()) } else { self.outcomes.remove(0) };
            let length = outcome.ok_or_else(|| io::Error::from(io::ErrorKind::WouldBlock))?.min(octets.len());
            self.taken.extend_from_slice(&octets[..length]);
            Ok(length)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_failed_write_costs_one_line() {
        for (outcomes, taken, lost) in [
            (vec![None], "two\nthree\n", 1),
            (vec![Some(4), None], "one\nthree\n", 1),
            (vec![Some(5), None], "one\nt\nthree\n", 1),
            (vec![Some(5), None, None], "one\nt", 2),
            (vec![Some(7), None], "one\ntwo\nthree\n", 0),
            (vec![Some(7), None, None], "one\ntwo", 1),
            (vec![None, None, None], "", 3),
            (vec![None, Some(0), None], "", 3),
        ] {
            let batches = Batches::new(Failing { taken: Vec::new(), outcomes });
            let mut out = batches.shared.out();
            out.write_lines(b"one\ntwo\nthree\n");
            assert_eq!((String::from_utf8_lossy(&out.writer.taken).as_ref(), out.lost), (taken, lost));
            // whatever was torn is ended before the next
            out.write_lines(b"four\n");
            let (torn, last) = (!taken.is_empty() && !taken.ends_with('\n'), "four\n");
            let expected = format!("{taken}{}{last}", if torn { "\n" } else { "" });
            assert_eq!(String::from_utf8_lossy(&out.writer.taken), expected);
        }
    }

    /// The number of lost lines is told as soon as a line can be written, and again if that is lost too.
    #[test]
    fn lost_lines_are_told() {
        for (outcomes, told) in [
            (vec![None, None], &["count=2"][..]),
            (vec![None, None, Some(99), None], &["count=3"]),
            (vec![None, Some(99), Some(999), None], &["count=1", "count=2"]),
        ] {
            let log = Batches::new(Failing { taken: Vec::new(), outcomes });
            let subscriber =
                tracing_subscriber::fmt().with_writer(log.clone()).without_time().with_ansi(false);
            subscriber::with_default(subscriber.finish(), || {
                for line in ["one\n", "two\n", "three\n", "four\n"] {
                    log.shared.take(line.as_bytes(), true);
                }
            });
            let taken = String::from_utf8_lossy(&log.shared.out().writer.taken).into_owned();
            let counts: Vec<_> = taken.split_whitespace().filter(|word| word.starts_with("count=")).collect();
            assert_eq!(counts, told, "{taken}");
            assert!(taken.contains("ERROR") && taken.contains("\nfour\n"), "{taken}");
        }
    }
}
