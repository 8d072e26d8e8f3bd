//! Standard error, whose reader may not read: it is waited for, but not for ever.
//!
//! A pipe or socket that is full holds up whoever writes to it: in the end every session, and the shutdown as well. So a write
//! waits for room as long as [`PATIENCE`]; after that, lines are lost until there is room again. A file always has room.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};

/// How long the reader may take nothing at all: longer than journald takes to be restarted.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much is written at once: for so much a pipe that says it has room does have room (`PIPE_BUF`, pipe(7)).
const AT_ONCE: usize = 4_096;

/// A writer that fails with `WouldBlock` if nobody reads.
#[derive(Debug)]
pub struct Patient<W> {
    out: W,
    /// `None`: it always has room.
    patience: Option<Duration>,
    /// Nobody has read for that long.
    is_stuck: bool,
}

impl<W: Write + AsFd> Patient<W> {
    /// Writes to `out`, which is not buffered.
    pub fn new(out: W) -> Self {
        let is_file = fstat(&out).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file());
        Self { out, patience: (!is_file).then_some(PATIENCE), is_stuck: false }
    }

    /// Whether there is room within this time.
    fn has_room(&self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        loop {
            let mut fds = [PollFd::new(&self.out, PollFlags::OUT)];
            let left = Timespec::try_from(end.saturating_duration_since(Instant::now())).ok();
            match poll(&mut fds, left.as_ref()) {
                Ok(0) => return false,
                Err(rustix::io::Errno::INTR) => {}
                // An error shows when it is written to.
                Ok(_) | Err(_) => return true,
            }
        }
    }
}

impl<W: Write + AsFd> Write for Patient<W> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let Some(patience) = self.patience else { return self.out.write(octets) };
        let patience = if self.is_stuck { Duration::ZERO } else { patience };
        self.is_stuck = !self.has_room(patience);
        if self.is_stuck {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.out.write(octets.get(..AT_ONCE).unwrap_or(octets))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn who_does_not_read_is_waited_for_once() {
        let (mut reader, writer) = io::pipe().unwrap();
        let patience = Duration::from_millis(200);
        let mut log = Patient { patience: Some(patience), ..Patient::new(writer) };
        let mut written = 0;
        let began = Instant::now();
        let full = loop {
            match log.write(&[b'x'; 100_000]) {
                Ok(octets) => written += octets,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        assert!(began.elapsed() >= patience);
        let began = Instant::now();
        for _ in 0..100 {
            assert!(log.write(b"lost\n").is_err());
        }
        assert!(began.elapsed() < patience, "{:?}", began.elapsed());
        // until there is room again
        reader.read_exact(&mut vec![0; written]).unwrap();
        assert_eq!(log.write(b"here\n").unwrap(), 5);
        // a reader that is gone is an error like any other
        drop(reader);
        assert_eq!(log.write(b"nobody\n").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_file_has_room() {
        let mut log = Patient::new(tempfile::tempfile().unwrap());
        let much = [b'x'; 100_000];
        assert_eq!(log.write(&much).unwrap(), much.len());
    }
}
