//! A place among the upstream connections that may be open at once.
//!
//! Whoever is connecting or connected holds one; when it is dropped, the next in the queue gets it.

use std::sync::Weak;

/// Where places come from and return to.
pub(super) trait Places: Send + Sync {
    /// Called when a place has become free.
    fn freed(&self);
}

/// One place; dropping it frees it.
pub(super) struct Slot(Weak<dyn Places>);

impl Slot {
    pub(super) fn new(places: Weak<dyn Places>) -> Self {
        Self(places)
    }

    /// A slot that holds no place, for a connection whose place someone else holds.
    pub(super) fn nowhere() -> Self {
        Self(Weak::<Nowhere>::new())
    }

    /// Makes dropping the slot free nothing: the place was not given away after all.
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
