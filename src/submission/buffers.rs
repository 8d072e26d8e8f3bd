//! The memory for mail data that is held until its route is chosen, bounded over all sessions.
//!
//! Each session may hold a little without borrowing, so that nobody can fill the shared part and keep others from
//! sending an ordinary message. Beyond the bound a message is streamed from where it is; nothing waits for memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a session may hold without borrowing, in octets: a long header and the beginning of a body. The 4 KiB of most
/// messages never touch the shared part.
pub(super) const OWN: usize = 16 * 1_024;

/// The memory that all sessions together may borrow. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Buffers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    max: AtomicUsize,
    lent: AtomicUsize,
}

/// The memory that one message has borrowed; returned on drop.
#[derive(Debug)]
pub(super) struct Loan {
    shared: Arc<Shared>,
    octets: usize,
}

impl Buffers {
    /// Lends `max` octets in all.
    pub fn new(max: usize) -> Self {
        Self { shared: Arc::new(Shared { max: AtomicUsize::new(max), lent: AtomicUsize::new(0) }) }
    }

    /// Changes the total from now on; existing loans stay.
    pub fn resize(&self, max: usize) {
        self.shared.max.store(max, Ordering::Relaxed);
    }

    /// Opens an empty loan for one message.
    pub(super) fn loan(&self) -> Loan {
        Loan { shared: Arc::clone(&self.shared), octets: 0 }
    }
}

impl Loan {
    /// Adjusts the loan to `held` octets, giving back what is no longer needed; `false` if there is not that much
    /// memory.
    pub(super) fn fit(&mut self, held: usize) -> bool {
        let wanted = held.saturating_sub(OWN);
        if wanted == self.octets {
            return true;
        }
        if wanted < self.octets {
            self.shared.lent.fetch_sub(self.octets - wanted, Ordering::Relaxed);
            self.octets = wanted;
            return true;
        }
        let more = wanted - self.octets;
        let max = self.shared.max.load(Ordering::Relaxed);
        let borrow = |lent: usize| lent.checked_add(more).filter(|lent| *lent <= max);
        let granted = self.shared.lent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, borrow).is_ok();
        if granted {
            self.octets = wanted;
        }
        granted
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.fit(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_borrowed_comes_back() {
        let buffers = Buffers::new(100);
        let lent = || buffers.shared.lent.load(Ordering::Relaxed);
        let (mut first, mut second) = (buffers.loan(), buffers.loan());
        assert!(first.fit(OWN) && second.fit(OWN), "their own");
        assert_eq!(lent(), 0);
        assert!(first.fit(OWN + 60) && second.fit(OWN + 40));
        assert!(!first.fit(OWN + 61), "nothing is left");
        assert_eq!(lent(), 100, "a refusal changes nothing");
        assert!(second.fit(OWN + 30) && first.fit(OWN + 70) && !second.fit(usize::MAX));
        assert!(second.fit(7));
        assert_eq!(lent(), 70);
        drop(first);
        assert_eq!(lent(), 0);
    }
}
