//! The keys of session tickets (RFC 5077, RFC 8446 4.6.1) and their rotation. The encryption is the provider's.
//!
//! A ticket is accepted for at least one and at most two lifetimes of a key. The library's own rotation is not used for
//! two reasons: it follows the wall clock, so that a jump forward and back keeps one key in use for as long as the
//! jump; and it discards an expired key only at the second handshake after the expiry, so that a quiet server accepts
//! tickets a week old.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::ProducesTickets;

/// How long a key encrypts tickets; it decrypts them for as long again.
const LIFE: Duration = Duration::from_secs(6 * 60 * 60);

type Key = Arc<dyn ProducesTickets>;

/// Issues tickets and accepts its own.
#[derive(Debug)]
pub(super) struct Tickets {
    keys: Mutex<Keys>,
}

#[derive(Debug)]
struct Keys {
    current: Key,
    previous: Option<Key>,
    /// When `current` came into use.
    since: Instant,
}

impl Tickets {
    /// Starts with a fresh key.
    ///
    /// # Errors
    /// The system provides no random octets.
    pub(super) fn new() -> Result<Self, rustls::Error> {
        let keys = Keys { current: Ticketer::new()?, previous: None, since: Instant::now() };
        Ok(Self { keys: Mutex::new(keys) })
    }

    /// The keys in force now. `None` if a new key is due and cannot be made: every handshake is then a full one.
    fn keys(&self) -> Option<(Key, Option<Key>)> {
        let now = Instant::now();
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let lives = now.saturating_duration_since(keys.since).as_secs() / LIFE.as_secs();
        if lives > 0 {
            let old = std::mem::replace(&mut keys.current, Ticketer::new().ok()?);
            keys.previous = (lives == 1).then_some(old);
            keys.since += Duration::from_secs(lives * LIFE.as_secs());
        }
        Some((Arc::clone(&keys.current), keys.previous.clone()))
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    /// The lifetime that clients are told, in seconds.
    fn lifetime(&self) -> u32 {
        u32::try_from(LIFE.as_secs()).map_or(u32::MAX, |life| life.saturating_mul(2))
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.keys()?.0.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let (current, previous) = self.keys()?;
        current.decrypt(cipher).or_else(|| previous?.decrypt(cipher))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    impl Tickets {
        /// Acts as if this much time had passed.
        pub(in crate::net) fn grow_older(&self, by: Duration) {
            self.keys.lock().unwrap().since -= by;
        }
    }

    /// The key's name: the first 16 octets of a ticket (RFC 5077 4).
    fn key(ticket: &[u8]) -> &[u8] {
        &ticket[..16]
    }

    #[test]
    fn a_key_lives_for_six_hours_and_its_tickets_for_twelve() {
        let tickets = Tickets::new().unwrap();
        let first = tickets.encrypt(b"first").unwrap();
        tickets.grow_older(LIFE - MINUTE);
        let last = tickets.encrypt(b"last").unwrap();
        assert_eq!(key(&first), key(&last));
        tickets.grow_older(MINUTE);
        let second = tickets.encrypt(b"second").unwrap();
        assert_ne!(key(&first), key(&second), "another key");
        let opened = |ticket: &[u8]| tickets.decrypt(ticket);
        assert_eq!(opened(&first).as_deref(), Some(&b"first"[..]));
        assert_eq!(opened(&second).as_deref(), Some(&b"second"[..]));
        tickets.grow_older(LIFE - MINUTE);
        assert_eq!(opened(&last).as_deref(), Some(&b"last"[..]));
        tickets.grow_older(MINUTE);
        assert_eq!((opened(&first), opened(&last)), (None, None), "the first key is gone");
        assert_eq!(opened(&second).as_deref(), Some(&b"second"[..]));
        assert_eq!(tickets.lifetime(), 12 * 60 * 60);
    }

    /// A key expires even if nobody connects for a while.
    #[test]
    fn a_quiet_server_takes_no_old_tickets() {
        for (quiet, taken) in
            [(LIFE - MINUTE, true), (2 * LIFE - MINUTE, true), (2 * LIFE, false), (28 * LIFE, false)]
        {
            let tickets = Tickets::new().unwrap();
            let ticket = tickets.encrypt(b"old").unwrap();
            tickets.grow_older(quiet);
            assert_eq!(tickets.decrypt(&ticket).is_some(), taken, "{quiet:?}");
        }
    }

    /// A late rotation does not prolong the life of the old key's tickets.
    #[test]
    fn a_late_exchange_prolongs_nothing() {
        let tickets = Tickets::new().unwrap();
        let first = tickets.encrypt(b"first").unwrap();
        tickets.grow_older(2 * LIFE - MINUTE);
        assert!(tickets.decrypt(&first).is_some());
        tickets.grow_older(MINUTE);
        assert!(tickets.decrypt(&first).is_none());
        assert!(
            Tickets::new().unwrap().decrypt(&tickets.encrypt(b"ours").unwrap()).is_none(),
            "keys are random"
        );
    }
}
