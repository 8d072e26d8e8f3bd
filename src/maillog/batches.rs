//! Where the log's lines go: a line of a quiet log is written at once, those of a busy one together.
//!
//! A write to a file takes as long as the rest of the line, and one to a pipe that nobody reads would hold up the session that
//! logs. So the first line is written by whoever logs it, and those of the next [`BATCH`] by a thread, in one write. Warnings,
//! errors and audit lines, and all lines while there is no such thread, are written before the call returns, after all earlier
//! ones.

use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use super::AUDIT;

/// How long a line waits for others, at most. A process that is killed loses what it logged in that time.
const BATCH: Duration = Duration::from_millis(5);
/// How many octets wait, at most. Whoever logs more waits for the reader of the log.
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

/// Both locks are taken in this order.
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
    /// The lines that are being written; empty otherwise.
    lines: Vec<u8>,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    writer: Writer,
}

/// What the thread does.
#[derive(Debug, Default, PartialEq, Eq)]
enum Writer {
    /// There is none, or it ends.
    #[default]
    Gone,
    /// Nothing was logged lately; it waits until something is.
    Idle,
    /// It writes what waits, every [`BATCH`].
    Busy,
}

impl<W: Write + Send + 'static> Batches<W> {
    /// Lines for `out`; they are written one by one until [`batch`](Self::batch) is called.
    pub fn new(out: W) -> Self {
        let out = Mutex::new(Out { writer: out, lines: Vec::new() });
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
        let write = urgent || waiting.writer != Writer::Busy || waiting.lines.len() > LIMIT;
        if waiting.writer == Writer::Idle {
            waiting.writer = Writer::Busy;
            self.stirred.notify_one();
        }
        drop(waiting);
        if write {
            self.write_all();
        }
    }

    /// Writes what waits. What cannot be written is lost: a log that fails must not end the service.
    fn write_all(&self) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let Out { writer, lines } = &mut *out;
        mem::swap(lines, &mut self.waiting().lines);
        if !lines.is_empty() {
            let _ = writer.write_all(lines);
            lines.clear();
            lines.shrink_to(KEPT);
        }
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
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};

    use tracing::{error, info, subscriber};

    use super::*;

    /// Sends each write, and then waits for `pace`; fails once nobody receives.
    struct Writes(Sender<String>, Option<Receiver<()>>);

    impl Write for Writes {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
            self.0.send(String::from_utf8(octets.to_vec()).unwrap()).map_err(|_| gone())?;
            self.1.as_ref().map_or(Ok(()), |pace| pace.recv().map_err(|_| gone()))?;
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn batches(pace: Option<Receiver<()>>) -> (Batches<Writes>, Receiver<String>) {
        let (sender, writes) = channel();
        (Batches::new(Writes(sender, pace)), writes)
    }

    fn say(batches: &Batches<Writes>, line: &str, urgent: bool) {
        batches.shared.take(line.as_bytes(), urgent);
    }

    #[test]
    fn a_line_of_a_quiet_log_is_there_at_once() {
        let (log, writes) = batches(None);
        say(&log, "before there is a thread\n", false);
        say(&log, "and once more\n", false);
        assert_eq!(writes.try_iter().count(), 2);
        let _batching = log.batch().unwrap();
        for line in ["first\n", "second\n", "third\n"] {
            say(&log, line, false);
            assert_eq!(writes.try_recv().unwrap(), line);
            while log.shared.waiting().writer == Writer::Busy {
                thread::sleep(BATCH);
            }
        }
    }

    #[test]
    fn lines_of_a_busy_log_are_written_together_whole_and_in_order() {
        let (log, writes) = batches(None);
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
        let writes: Vec<String> = writes.try_iter().collect();
        assert!(writes.len() < 2_000, "{} writes", writes.len());
        let mut next = [0; 4];
        for line in writes.concat().lines() {
            let (writer, line) = line.split_once(' ').unwrap();
            let next = &mut next[writer.parse::<usize>().unwrap()];
            assert_eq!(line, next.to_string());
            *next += 1;
        }
        assert_eq!(next, [5_000; 4]);
        say(&log, "the thread is gone\n", false);
    }

    #[test]
    fn what_waits_is_written_within_the_time() {
        let (log, writes) = batches(None);
        let _batching = log.batch().unwrap();
        say(&log, "at once\n", false);
        say(&log, "a little later\n", false);
        let both: Vec<String> =
            (0..2).map(|_| writes.recv_timeout(Duration::from_secs(10)).unwrap()).collect();
        assert_eq!(both, ["at once\n", "a little later\n"]);
    }

    #[test]
    fn warnings_errors_and_audit_lines_do_not_wait_nor_overtake() {
        let (log, writes) = batches(None);
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
            for number in 0..100 {
                info!("number {number}");
            }
            info!(target: AUDIT, "unblock");
            let said = writes.try_iter().collect::<String>();
            assert!(said.ends_with(" INFO number 99\n INFO unblock\n"), "{said}");
        });
    }

    #[test]
    fn what_nobody_reads_is_bounded_and_a_reader_that_is_gone_holds_up_nobody() {
        let (go_on, pace) = channel();
        let (log, writes) = batches(Some(pace));
        let batching = log.batch().unwrap();
        // Dropped first, should an assertion fail: so nothing waits for it.
        let go_on = go_on;
        let line = "x".repeat(1_023) + "\n";
        let (enough, logger) = (Arc::new(AtomicBool::new(false)), log.clone());
        let told = Arc::clone(&enough);
        let logging = thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                say(&logger, &line, false);
            }
        });
        let waiting = || log.shared.waiting().lines.len();
        while waiting() < LIMIT {
            // It is the logger that waits for the reader, not the thread.
            if waiting() == 0 {
                go_on.send(()).unwrap();
            }
            thread::sleep(4 * BATCH);
        }
        thread::sleep(4 * BATCH);
        assert!((LIMIT..=LIMIT + 1_024).contains(&waiting()), "{}", waiting());
        drop((go_on, writes));
        enough.store(true, Ordering::Relaxed);
        logging.join().unwrap();
        drop(batching);
    }
}
