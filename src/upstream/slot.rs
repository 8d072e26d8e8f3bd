//! A place among the upstream connections that may be open at once.
//!
//! Whoever is connecting or connected holds one; when it is dropped, the next in the queue gets it.

use std::sync::Weak;

/// Where places come from, and go back to.
pub(super) trait Places: Send + Sync {
    /// A place has become free.
    fn freed(&self);
}

/// One place.
pub(super) struct Slot(Weak<dyn Places>);

impl Slot {
    pub(super) fn new(places: Weak<dyn Places>) -> Self {
        Self(places)
    }

    /// None, for what does not hold its place itself.
    pub(super) fn nowhere() -> Self {
        Self(Weak::<Nowhere>::new())
    }

    /// It was not given away after all: dropping it frees nothing.
    pub(super) fn disarm(mut self) {
        self.0 = Weak::<Nowhere>::new();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(places) = self.0.upgrade() {
            places.freed();
        }
    }
}

struct Nowhere;

impl Places for Nowhere {
    fn freed(&self) {}
}
