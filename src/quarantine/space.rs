//! Room on the file system: parked mail must not use up the last of it, since the database and the outbox live there
//! too.
//!
//! Every writer books before it writes. Octets booked but not yet written count as used, so that concurrent writers
//! cannot pass the floor together.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::terms::ParkError;

/// The floor, what stays free, is the size of the file system divided by this.
const FLOOR_DIVISOR: u64 = 100;
/// The lowest floor, in octets: a segment of the database and a few mails.
const FLOOR_LEAST: u64 = 16 * 1024 * 1024;
/// The highest floor, in octets.
const FLOOR_MOST: u64 = 1024 * 1024 * 1024;
/// On a tiny file system the floor is at most its size divided by this.
const TINY_FLOOR_DIVISOR: u64 = 4;
/// What a message books at first, in octets: a small one and its envelope.
pub(super) const FIRST_BOOKING: u64 = 16 * 1024;
/// How much is booked at a time, in octets, once a message has outgrown its first booking.
const STEP: u64 = 4 * 1024 * 1024;

/// The file system of a folder.
#[derive(Debug)]
pub(super) struct Space {
    folder: PathBuf,
    booked: AtomicU64,
}

/// Octets that may be written. Dropping it gives back those not written.
#[derive(Debug)]
pub(super) struct Booking {
    space: Arc<Space>,
    left: u64,
}

impl Space {
    pub(super) fn of(folder: &Path) -> Arc<Self> {
        Arc::new(Self { folder: folder.into(), booked: AtomicU64::new(0) })
    }

    /// Checks whether `octets` could be booked. One system call, which does not read the disk.
    pub(super) fn check(&self, octets: u64) -> Result<(), ParkError> {
        let free = self.free()?;
        fits(self.booked.load(Ordering::Relaxed), octets, free).map(drop).ok_or_else(|| self.full())
    }

    /// Books the first `octets` of a message.
    pub(super) fn book(self: &Arc<Self>, octets: u64) -> Result<Booking, ParkError> {
        let mut booking = Booking { space: Arc::clone(self), left: 0 };
        booking.add(octets)?;
        Ok(booking)
    }

    /// Returns how many octets may still be written before the floor is reached, bookings not deducted.
    fn free(&self) -> Result<u64, ParkError> {
        let found = rustix::fs::statvfs(&self.folder).map_err(|cause| {
            let cause = std::io::Error::from(cause);
            ParkError::Io(format!("cannot ask how much is free in {}: {cause}", self.folder.display()))
        })?;
        let (total, free) =
            (found.f_blocks.saturating_mul(found.f_frsize), found.f_bavail.saturating_mul(found.f_frsize));
        Ok(free.saturating_sub(floor(total)))
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
        let free = self.space.free()?;
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
    }
}

/// Returns what is booked afterwards; `None` if it does not fit.
fn fits(booked: u64, octets: u64, free: u64) -> Option<u64> {
    booked.checked_add(octets).filter(|wanted| *wanted <= free)
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
        drop(two);
        assert_eq!(space.booked.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_missing_folder_is_an_error_not_a_full_one() {
        let space = Space::of(Path::new("/nowhere"));
        assert!(matches!(space.check(1), Err(ParkError::Io(_))));
    }
}
