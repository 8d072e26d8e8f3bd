//! Room on the file system: parked mail must not use up the last of it, since the database and the outbox live there
//! too.
//!
//! Every writer books before it writes. Octets booked but not yet written count as used, and so do the files of every
//! booking, so that concurrent writers cannot pass a floor together. Some file systems take any number of files as long
//! as there is room; they say that they have none in all.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::StatVfs;

use super::terms::ParkError;

/// The floor, what stays free, is the size of the file system divided by this.
const FLOOR_DIVISOR: u64 = 100;
/// The lowest floor, in octets: a segment of the database and a few mails.
const FLOOR_LEAST: u64 = 16 * 1024 * 1024;
/// The highest floor, in octets.
const FLOOR_MOST: u64 = 1024 * 1024 * 1024;
/// On a tiny file system the floor is at most its size divided by this.
const TINY_FLOOR_DIVISOR: u64 = 4;
/// The floor of files, how many more can still be made, is the number that the file system takes in all divided by this.
const FILES_FLOOR_DIVISOR: u64 = 100;
/// The highest floor of files. What is written elsewhere when an account is blocked takes a handful.
const FILES_FLOOR_MOST: u64 = 10_000;
/// How many files a message has.
const FILES_OF_A_MESSAGE: u64 = 2;
/// What a message books at first, in octets: a small one and its envelope.
pub(super) const FIRST_BOOKING: u64 = 16 * 1024;
/// How much is booked at a time, in octets, once a message has outgrown its first booking.
const STEP: u64 = 4 * 1024 * 1024;

/// The file system of a folder.
#[derive(Debug)]
pub(super) struct Space {
    folder: PathBuf,
    booked: AtomicU64,
    /// How many bookings there are.
    writers: AtomicU64,
}

/// Octets that may be written. Dropping it gives back those not written.
#[derive(Debug)]
pub(super) struct Booking {
    space: Arc<Space>,
    left: u64,
}

impl Space {
    pub(super) fn of(folder: &Path) -> Arc<Self> {
        Arc::new(Self { folder: folder.into(), booked: AtomicU64::new(0), writers: AtomicU64::new(0) })
    }

    /// Checks whether `octets` could be booked, and two files. The system calls do not read the disk.
    pub(super) fn check(&self, octets: u64) -> Result<(), ParkError> {
        let found = self.ask()?;
        self.check_files(&found, self.writers.load(Ordering::Relaxed) + 1)?;
        let booked = self.booked.load(Ordering::Relaxed);
        fits(booked, octets, free(&found)).map(drop).ok_or_else(|| self.full())
    }

    /// Books the first `octets` of a message, and its two files.
    pub(super) fn book(self: &Arc<Self>, octets: u64) -> Result<Booking, ParkError> {
        let others = self.writers.fetch_add(1, Ordering::Relaxed);
        let mut booking = Booking { space: Arc::clone(self), left: 0 };
        let found = self.ask()?;
        self.check_files(&found, others + 1)?;
        booking.take(octets, &found)?;
        Ok(booking)
    }

    fn ask(&self) -> Result<StatVfs, ParkError> {
        rustix::fs::statvfs(&self.folder).map_err(|cause| {
            let cause = std::io::Error::from(cause);
            ParkError::Io(format!("cannot ask how much is free in {}: {cause}", self.folder.display()))
        })
    }

    /// Checks whether the files of `writers` leave the floor of files free.
    fn check_files(&self, found: &StatVfs, writers: u64) -> Result<(), ParkError> {
        if files_fit(found.f_files, found.f_favail, writers) {
            return Ok(());
        }
        let folder = self.folder.display();
        Err(ParkError::Full(format!("the file system of {folder} has too few inodes left")))
    }

    fn full(&self) -> ParkError {
        ParkError::Full(format!("the file system of {} has too little room left", self.folder.display()))
    }
}

impl Booking {
    /// Ensures that `octets` more may be written.
    pub(super) fn cover(&mut self, octets: u64) -> Result<(), ParkError> {
        match octets.checked_sub(self.left) {
            None | Some(0) => Ok(()),
            // The step is for streamed messages; near the floor, only what is missing is booked.
            Some(missing) => self.add(missing.max(STEP)).or_else(|_| self.add(missing)),
        }
    }

    /// Takes `octets` off the booking: they were written, so the file system itself counts them now.
    pub(super) fn written(&mut self, octets: u64) {
        let octets = octets.min(self.left);
        self.left -= octets;
        self.space.booked.fetch_sub(octets, Ordering::Relaxed);
    }

    fn add(&mut self, octets: u64) -> Result<(), ParkError> {
        let found = self.space.ask()?;
        self.take(octets, &found)
    }

    fn take(&mut self, octets: u64, found: &StatVfs) -> Result<(), ParkError> {
        let free = free(found);
        let outcome = self
            .space
            .booked
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |booked| fits(booked, octets, free));
        if outcome.is_err() {
            return Err(self.space.full());
        }
        self.left += octets;
        Ok(())
    }
}

impl Drop for Booking {
    fn drop(&mut self) {
        self.space.booked.fetch_sub(self.left, Ordering::Relaxed);
        self.space.writers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns how many octets may still be written before the floor is reached, bookings not deducted.
fn free(found: &StatVfs) -> u64 {
    let (total, free) =
        (found.f_blocks.saturating_mul(found.f_frsize), found.f_bavail.saturating_mul(found.f_frsize));
    free.saturating_sub(floor(total))
}

/// Returns what is booked afterwards; `None` if it does not fit.
fn fits(booked: u64, octets: u64, free: u64) -> Option<u64> {
    booked.checked_add(octets).filter(|wanted| *wanted <= free)
}

/// Returns whether a file system that takes `total` files (0: any number), and `free` more, has enough for `writers`.
fn files_fit(total: u64, free: u64, writers: u64) -> bool {
    let floor = (total / FILES_FLOOR_DIVISOR).min(FILES_FLOOR_MOST);
    total == 0 || free >= floor.saturating_add(writers.saturating_mul(FILES_OF_A_MESSAGE))
}

/// Returns how much stays free on a file system of `total` octets.
fn floor(total: u64) -> u64 {
    (total / FLOOR_DIVISOR).clamp(FLOOR_LEAST, FLOOR_MOST).min(total / TINY_FLOOR_DIVISOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor() {
        const MIB: u64 = 1024 * 1024;
        for (total, expected) in [
            (0, 0),
            (8 * MIB, 2 * MIB),
            (64 * MIB, 16 * MIB),
            (1024 * MIB, 16 * MIB),
            (10_000 * MIB, 100 * MIB),
            (10_000_000 * MIB, 1024 * MIB),
        ] {
            assert_eq!(floor(total), expected, "{total}");
        }
    }

    #[test]
    fn the_floor_of_files() {
        for (total, free, writers, expected) in [
            (0, 0, 9, true),
            (1_000, 12, 1, true),
            (1_000, 11, 1, false),
            (1_000, 12, 2, false),
            (6_553_600, 10_002, 1, true),
            (6_553_600, 10_001, 1, false),
            (u64::MAX, u64::MAX, u64::MAX, true),
        ] {
            assert_eq!(files_fit(total, free, writers), expected, "{free} of {total}, {writers} writers");
        }
    }

    #[test]
    fn bookings_add_up_and_go_back() {
        let home = tempfile::tempdir().unwrap();
        let space = Space::of(home.path());
        let mut one = space.book(1000).unwrap();
        let two = space.book(500).unwrap();
        one.cover(1000).unwrap();
        one.written(400);
        assert_eq!(space.booked.load(Ordering::Relaxed), 1100);
        one.cover(601).unwrap();
        assert_eq!(space.booked.load(Ordering::Relaxed), 1100 + STEP);
        drop(one);
        assert_eq!(space.booked.load(Ordering::Relaxed), 500);
        assert!(matches!(space.book(u64::MAX - 1000), Err(ParkError::Full(_))));
        assert!(matches!(space.check(u64::MAX), Err(ParkError::Full(_))));
        space.check(1).unwrap();
        assert_eq!(space.writers.load(Ordering::Relaxed), 1);
        drop(two);
        assert_eq!((space.booked.load(Ordering::Relaxed), space.writers.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn a_missing_folder_is_an_error_not_a_full_one() {
        let space = Space::of(Path::new("/nowhere"));
        assert!(matches!(space.check(1), Err(ParkError::Io(_))));
    }
}
