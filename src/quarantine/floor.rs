//! The floor: a time that is certainly over, in `quarantine/floor`, one line.
//!
//! A clock that is behind (before NTP has set it; a machine without a battery starts in 1970) would make what is parked
//! meanwhile look years old as soon as it is put right. So no message gets an id from before the floor, and nothing
//! expires before its id is old enough. A floor that is too high, since the clock was ahead for hours, only makes things
//! expire later. One that is missing or cannot be read is the epoch: the clock alone counts.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::durable::{DurableError, Folder};

/// Not a name that a parked message can have.
pub(super) const NAME: &str = "floor";
/// The most octets of the file that are read.
const MAX_TEXT: u64 = 64;
/// By how much it must have risen before it is written again.
const STEP: Duration = Duration::from_secs(60 * 60);

#[derive(Debug, Default)]
pub(super) struct Floor {
    time: Timestamp,
    /// What the file says.
    written: Timestamp,
}

impl Floor {
    /// Reads the floor; blocking.
    pub(super) fn read(folder: &Folder) -> Self {
        let mut text = String::new();
        let read = folder.read(NAME).ok().and_then(|file| file.take(MAX_TEXT).read_to_string(&mut text).ok());
        let time = read.and_then(|_| Timestamp::parse_rfc3339(text.trim()).ok()).unwrap_or_default();
        Self { time, written: time }
    }

    /// Returns the floor.
    pub(super) fn time(&self) -> Timestamp {
        self.time
    }

    /// Returns when a message that comes at `now` by the clock is born. While the clock is behind, one comes a
    /// millisecond after the other, since ids sort by arrival.
    pub(super) fn born(&mut self, now: Timestamp) -> Timestamp {
        if now <= self.time {
            self.time = self.time.after(Duration::from_millis(1));
        }
        now.max(self.time)
    }

    /// Raises it to `settled`, the earliest time that the clock has said for a while. Returns what is to be written, if
    /// it is time for that.
    pub(super) fn raise(&mut self, settled: Timestamp) -> Option<Timestamp> {
        self.time = self.time.max(settled);
        (self.time.since(self.written) >= STEP).then_some(self.time)
    }

    /// Notes that `time` is on disk.
    pub(super) fn wrote(&mut self, time: Timestamp) {
        self.written = time;
    }
}

/// Writes the floor durably; blocking.
pub(super) fn write(folder: &Arc<Folder>, time: Timestamp) -> Result<(), DurableError> {
    folder.write(NAME, format!("{time}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: u64) -> Timestamp {
        Timestamp::from_millis(1_795_536_000_000).after(Duration::from_secs(60 * minutes))
    }

    #[test]
    fn nothing_is_born_before_it() {
        let mut floor = Floor::default();
        assert_eq!(floor.born(Timestamp::from_millis(5)), Timestamp::from_millis(5), "nothing is known");
        assert_eq!(floor.raise(at(0)), Some(at(0)));
        floor.wrote(at(0));
        assert_eq!(floor.born(at(1)), at(1));
        let millisecond = |n| at(0).after(Duration::from_millis(n));
        assert_eq!([0, 0, 1].map(|minute| floor.born(at(minute))), [millisecond(1), millisecond(2), at(1)]);
        assert_eq!(floor.born(Timestamp::default()), millisecond(3));
        assert_eq!(floor.raise(Timestamp::default()), None, "it never falls");
        assert_eq!((floor.raise(at(59)), floor.raise(at(60))), (None, Some(at(60))), "not written each time");
        assert_eq!(floor.raise(at(61)), Some(at(61)), "the disk did not take the last one");
    }

    #[test]
    fn a_broken_one_counts_as_none() {
        let home = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::open(home.path()).unwrap());
        assert_eq!(Floor::read(&folder).time(), Timestamp::default());
        write(&folder, at(7)).unwrap();
        let mut floor = Floor::read(&folder);
        assert_eq!((floor.time(), floor.raise(at(66))), (at(7), None));
        for content in [&b"\xff\xff"[..], b"", b"7", b"yesterday\n", &[b'2'; 100]] {
            std::fs::write(home.path().join(NAME), content).unwrap();
            assert_eq!(Floor::read(&folder).time(), Timestamp::default());
        }
        std::fs::remove_file(home.path().join(NAME)).unwrap();
        std::fs::create_dir(home.path().join(NAME)).unwrap();
        assert_eq!(Floor::read(&folder).time(), Timestamp::default());
    }
}
