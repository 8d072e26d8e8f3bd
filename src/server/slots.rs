//! Limits how many clients may be connected, in all and from one address (IPv6: from one /64), and how many may come from one
//! address within a minute.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::account::Account;
use crate::config::Session;

const MINUTE: Duration = Duration::from_secs(60);
/// How many addresses have their arrivals counted in a minute; those of others are not.
const COUNTED: usize = 65_536;

/// How many connections there may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Most {
    /// How many at the same time, in all.
    pub(super) open: usize,
    /// How many at the same time, from one address.
    pub(super) open_per_address: usize,
    /// How many new ones within a minute, from one address; 0: any number.
    pub(super) new_per_address: usize,
}

impl Most {
    /// The limits as configured.
    pub(super) fn of(session: &Session) -> Self {
        Self {
            open: session.max_connections,
            open_per_address: session.max_connections_per_ip,
            new_per_address: session.max_new_connections_per_ip,
        }
    }
}

/// Counts connections. Cheap to clone.
#[derive(Clone)]
pub(super) struct Slots {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    open: watch::Sender<usize>,
    evicted: watch::Sender<bool>,
}

struct State {
    most: Most,
    /// The open connections of each address that has any.
    per_address: HashMap<Account, usize>,
    arrivals: Arrivals,
}

/// The arrivals within this minute.
struct Arrivals {
    since: Instant,
    per_address: HashMap<Account, usize>,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Arrivals {
    /// Whether another connection may come from there within this minute. Those turned away count as well.
    fn may_come(&mut self, origin: &Account, most: usize, now: Instant) -> bool {
        if most == 0 {
            return true;
        }
        if now.saturating_duration_since(self.since) >= MINUTE {
            *self = Self { since: now, per_address: HashMap::new() };
        }
        if self.per_address.len() >= COUNTED && !self.per_address.contains_key(origin) {
            return true;
        }
        let count = self.per_address.entry(origin.clone()).or_default();
        *count += 1;
        *count <= most
    }
}

/// One connection's place; dropping it frees it.
pub(super) struct Slot {
    inner: Arc<Inner>,
    origin: Account,
}

impl Slots {
    /// Creates slots of which none is taken.
    pub(super) fn new(most: Most, now: Instant) -> Self {
        let state = State {
            most,
            per_address: HashMap::new(),
            arrivals: Arrivals { since: now, per_address: HashMap::new() },
        };
        let inner = Inner {
            state: Mutex::new(state),
            open: watch::Sender::new(0),
            evicted: watch::Sender::new(false),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Takes a place for a connection from `address`; `None` if that exceeds a limit.
    pub(super) fn take(&self, address: IpAddr, now: Instant) -> Option<Slot> {
        let origin = Account::host(address);
        let mut state = self.inner.lock();
        let most = state.most;
        if !state.arrivals.may_come(&origin, most.new_per_address, now)
            || *self.inner.open.borrow() >= most.open
            || state.per_address.get(&origin).is_some_and(|open| *open >= most.open_per_address)
        {
            return None;
        }
        *state.per_address.entry(origin.clone()).or_default() += 1;
        self.inner.open.send_modify(|open| *open += 1);
        Some(Slot { inner: Arc::clone(&self.inner), origin })
    }

    /// Applies new limits from now on; whoever is connected already may stay.
    pub(super) fn adopt(&self, most: Most) {
        self.inner.lock().most = most;
    }

    /// Waits until nobody is connected any more.
    pub(super) async fn emptied(&self) {
        let mut open = self.inner.open.subscribe();
        let _ = open.wait_for(|open| *open == 0).await;
    }

    /// Has every connection cut, whatever it is doing.
    pub(super) fn evict(&self) {
        self.inner.evicted.send_replace(true);
    }

    /// Returns how many are connected.
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
        let mut state = self.inner.lock();
        if let Some(open) = state.per_address.get_mut(&self.origin) {
            *open -= 1;
            if *open == 0 {
                state.per_address.remove(&self.origin);
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
        let slots = Slots::new(Most { open: 3, open_per_address: 2, new_per_address: 0 }, Instant::now());
        let (here, there): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let first = slots.take(here, Instant::now()).expect("free");
        // The same address, IPv4-mapped.
        let _second = slots.take("::ffff:192.0.2.1".parse().unwrap(), Instant::now()).expect("free");
        assert!(slots.take(here, Instant::now()).is_none(), "two from one address");
        let _third = slots.take(there, Instant::now()).expect("free");
        assert!(slots.take("2001:db8:1::1".parse().unwrap(), Instant::now()).is_none(), "three in all");
        drop(first);
        assert_eq!(slots.open(), 2);
        assert!(
            slots.take("2001:db8::ffff".parse().unwrap(), Instant::now()).is_some(),
            "one place is free again"
        );
    }

    #[test]
    fn no_more_within_a_minute() {
        let began = Instant::now();
        let slots = Slots::new(Most { open: 9, open_per_address: 9, new_per_address: 2 }, began);
        let takes = |address: &str, second: u64| {
            slots.take(address.parse().unwrap(), began + Duration::from_secs(second)).is_some()
        };
        assert!(takes("192.0.2.1", 0) && takes("192.0.2.1", 59) && takes("192.0.2.2", 59));
        assert!(!takes("192.0.2.1", 59), "a third one, however short they were");
        assert!(takes("192.0.2.1", 60), "another minute");
        assert!(takes("2001:db8::1", 60) && takes("2001:db8::2", 60) && !takes("2001:db8::3", 60));
    }

    #[tokio::test]
    async fn who_is_evicted_leaves() {
        let slots = Slots::new(Most { open: 2, open_per_address: 2, new_per_address: 0 }, Instant::now());
        for _ in 0..2 {
            let slot = slots.take("192.0.2.1".parse().unwrap(), Instant::now()).expect("free");
            tokio::spawn(async move { slot.evicted().await });
        }
        tokio::task::yield_now().await;
        assert_eq!(slots.open(), 2);
        slots.evict();
        timeout(DEADLINE, slots.emptied()).await.expect("in time");
        // Also who came at the last moment.
        let late = slots.take("192.0.2.1".parse().unwrap(), Instant::now()).expect("free");
        timeout(DEADLINE, late.evicted()).await.expect("in time");
    }
}
