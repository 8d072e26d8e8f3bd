//! How many clients may be connected: in all, and from one address (IPv6: from one /64).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::account::{Account, canonical};

/// Counts connections. Cheap to clone.
#[derive(Clone)]
pub(super) struct Slots {
    inner: Arc<Inner>,
}

struct Inner {
    max: usize,
    max_per_address: usize,
    per_address: Mutex<HashMap<Account, usize>>,
    open: watch::Sender<usize>,
    evicted: watch::Sender<bool>,
}

/// One connection's place; dropping it frees it.
pub(super) struct Slot {
    inner: Arc<Inner>,
    origin: Account,
}

impl Slots {
    /// So many in all, so many from one address.
    pub(super) fn new(max: usize, max_per_address: usize) -> Self {
        let inner = Inner {
            max,
            max_per_address,
            per_address: Mutex::default(),
            open: watch::Sender::new(0),
            evicted: watch::Sender::new(false),
        };
        Self { inner: Arc::new(inner) }
    }

    /// A place for a connection from `address`; `None` over a limit.
    pub(super) fn take(&self, address: IpAddr) -> Option<Slot> {
        let origin = Account::host(canonical(address));
        let mut per_address = self.inner.per_address.lock().unwrap_or_else(PoisonError::into_inner);
        if *self.inner.open.borrow() >= self.inner.max
            || per_address.get(&origin).is_some_and(|open| *open >= self.inner.max_per_address)
        {
            return None;
        }
        *per_address.entry(origin.clone()).or_default() += 1;
        self.inner.open.send_modify(|open| *open += 1);
        Some(Slot { inner: Arc::clone(&self.inner), origin })
    }

    /// Waits until nobody is connected any more.
    pub(super) async fn emptied(&self) {
        let mut open = self.inner.open.subscribe();
        let _ = open.wait_for(|open| *open == 0).await;
    }

    /// Has every connection cut, whatever it is in the midst of.
    pub(super) fn evict(&self) {
        self.inner.evicted.send_replace(true);
    }

    /// How many are connected.
    pub(super) fn open(&self) -> usize {
        *self.inner.open.borrow()
    }
}

impl Slot {
    /// Returns when the connection is to be cut.
    pub(super) async fn evicted(&self) {
        // The sender lives as long as this slot.
        let _ = self.inner.evicted.subscribe().wait_for(|evicted| *evicted).await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut per_address = self.inner.per_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = per_address.get_mut(&self.origin) {
            *open -= 1;
            if *open == 0 {
                per_address.remove(&self.origin);
            }
        }
        self.inner.open.send_modify(|open| *open -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    #[test]
    fn both_limits_hold_and_places_come_back() {
        let slots = Slots::new(3, 2);
        let (here, there): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let first = slots.take(here).expect("free");
        // The same address, IPv4-mapped.
        let _second = slots.take("::ffff:192.0.2.1".parse().unwrap()).expect("free");
        assert!(slots.take(here).is_none(), "two from one address");
        let _third = slots.take(there).expect("free");
        assert!(slots.take("2001:db8:1::1".parse().unwrap()).is_none(), "three in all");
        drop(first);
        assert_eq!(slots.open(), 2);
        assert!(slots.take("2001:db8::ffff".parse().unwrap()).is_some(), "one place is free again");
    }

    #[tokio::test]
    async fn who_is_evicted_leaves() {
        let slots = Slots::new(2, 2);
        for _ in 0..2 {
            let slot = slots.take("192.0.2.1".parse().unwrap()).expect("free");
            tokio::spawn(async move { slot.evicted().await });
        }
        tokio::task::yield_now().await;
        assert_eq!(slots.open(), 2);
        slots.evict();
        timeout(DEADLINE, slots.emptied()).await.expect("in time");
        // Also who came at the last moment.
        let late = slots.take("192.0.2.1".parse().unwrap()).expect("free");
        timeout(DEADLINE, late.evicted()).await.expect("in time");
    }
}
