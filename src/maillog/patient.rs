//! Standard error, whose reader may not read: it is waited for, but not for ever.
//!
//! A pipe or socket that is full holds up whoever writes to it: in the end every session, and the shutdown as well. So writes
//! wait for room for [`PATIENCE`]; after that, a line for which there is no room is lost. The patience comes back within
//! [`CALM`]: whoever reads slowly costs a twelfth of the time at most. A file always has room. A terminal may say that it has
//! room, and hold a line up all the same: whoever watches it sees that.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use memchr::memrchr;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};

/// How long writes may wait for room, all of them together: longer than journald takes to be restarted.
const PATIENCE: Duration = Duration::from_secs(5);
/// The time in which all the patience that was used up comes back.
const CALM: Duration = Duration::from_secs(60);
/// How much is written at once: for so much a pipe that says it has room does have room, and takes it whole (`PIPE_BUF`,
/// pipe(7)).
const AT_ONCE: usize = 4_096;

/// A writer that fails with `WouldBlock` if nobody reads. It takes whole lines, unless a line is longer than [`AT_ONCE`].
#[derive(Debug)]
pub struct Patient<W> {
    out: W,
    always_has_room: bool,
    /// How long writes could wait at `as_of`.
    patience: Duration,
    /// The end of the last wait.
    as_of: Instant,
}

impl<W: Write + AsFd> Patient<W> {
    /// Writes to `out`, which is not buffered.
    pub fn new(out: W) -> Self {
        let always_has_room = fstat(&out).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file());
        Self { out, always_has_room, patience: PATIENCE, as_of: Instant::now() }
    }

    /// Whether there is room, perhaps after a wait.
    fn has_room(&mut self) -> bool {
        if self.always_has_room || self.is_writable(Duration::ZERO) {
            return true;
        }
        let began = Instant::now();
        let back = PATIENCE.mul_f64((began - self.as_of).div_duration_f64(CALM).min(1.0));
        let patience = PATIENCE.min(self.patience + back);
        let is_writable = self.is_writable(patience);
        self.as_of = Instant::now();
        self.patience = patience.saturating_sub(self.as_of - began);
        is_writable
    }

    fn is_writable(&self, within: Duration) -> bool {
        let end = Instant::now() + within;
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
        if !self.has_room() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        match octets.get(..AT_ONCE) {
            Some(front) if !self.always_has_room => {
                let lines = memrchr(b'\n', front).map_or(front.len(), |end| end + 1);
                self.out.write(&front[..lines])
            }
            _ => self.out.write(octets),
        }
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
        let patience = Duration::from_millis(500);
        let mut log = Patient { patience, ..Patient::new(writer) };
        let line = [&[b'x'; 999][..], b"\n"].concat();
        let began = Instant::now();
        let mut written = 0;
        let full = loop {
            match log.write(&line.repeat(10)) {
                Ok(octets) => written += octets,
                Err(error) => break error,
            }
        };
        assert_eq!((full.kind(), written % line.len()), (io::ErrorKind::WouldBlock, 0), "whole lines");
        assert!(began.elapsed() >= patience);
        // hardly at all again after it has read a little
        for _ in 0..3 {
            reader.read_exact(&mut vec![0; 8_192]).unwrap();
            while log.write(&line).is_ok() {}
            assert!(log.patience.is_zero());
        }
        // a twelfth of the time that has passed comes back
        log.as_of = Instant::now().checked_sub(12 * patience).unwrap();
        let began = Instant::now();
        assert!(log.write(&line).is_err());
        assert!((patience..PATIENCE).contains(&began.elapsed()), "{:?}", began.elapsed());
        // a reader that is gone is an error like any other
        drop(reader);
        assert_eq!(log.write(&line).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_file_has_room() {
        let mut log = Patient::new(tempfile::tempfile().unwrap());
        let much = [b'x'; 100_000];
        assert_eq!(log.write(&much).unwrap(), much.len());
    }
}
