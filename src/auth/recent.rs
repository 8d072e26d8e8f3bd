//! Recent successful logins: the same password needs no second check, which is deliberately slow.
//!
//! Kept in memory only, as HMAC-SHA-256 under a key that ends with the process, for ten minutes after the successful
//! check and for a limited number of users. Only a hit saves work: a password that is not remembered costs what it
//! would cost without this file. An entry is valid only for the very hash that the password was checked against.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use subtle::ConstantTimeEq as _;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::check::Forms;
use super::scheme::Secret;
use super::verifier::{Key, mac};

/// How long a success is remembered. A mail program that polls every few minutes logs in each time. A hit does not
/// extend the time, so the hash itself is checked at least this often.
const REMEMBERED: Duration = Duration::from_mins(10);

/// The most users remembered, the latest ones; takes about 3 MiB.
const MOST: usize = 10_000;

/// The digests of a password in each form in which it may have been hashed, in that order.
pub(super) type Digests = Vec<Zeroizing<Key>>;

/// The remembered successes of all users.
pub(super) struct Recent {
    /// `None` if the system provided no random octets; nothing is remembered then.
    key: Option<Zeroizing<Key>>,
    successes: Mutex<Successes>,
}

#[derive(Default)]
struct Successes {
    by_name: HashMap<Arc<str>, Success>,
    /// The names with the time of their success, oldest first. Entries whose success was replaced or forgotten have no
    /// effect.
    in_order: VecDeque<(Instant, Arc<str>)>,
}

/// The last successful check of a user's password.
struct Success {
    at: Instant,
    digest: Zeroizing<Key>,
    /// The hash it was checked against.
    secret: Arc<Secret>,
}

impl Recent {
    pub(super) fn new() -> Self {
        let mut key = Zeroizing::new(Key::default());
        let drawn = getrandom::fill(key.as_mut_slice()).is_ok();
        Self { key: drawn.then_some(key), successes: Mutex::default() }
    }

    /// To be called for every attempt, even for a name that nobody has: otherwise the microseconds would reveal that.
    pub(super) fn digests(&self, name: &str, forms: &Forms) -> Digests {
        let Some(key) = &self.key else { return Vec::new() };
        // The length comes first, so that different pairs of name and password never yield the same octets.
        let length = name.len().to_be_bytes();
        let digest = |form: &Zeroizing<Vec<u8>>| mac(key.as_slice(), &[&length, name.as_bytes(), form]);
        forms.iter().map(|form| Zeroizing::new(digest(form))).collect()
    }

    /// Whether one of the digests recently succeeded against this very hash.
    pub(super) fn holds(&self, name: &str, secret: &Arc<Secret>, digests: &Digests, now: Instant) -> bool {
        let successes = self.lock();
        let Some(success) = successes.by_name.get(name) else { return false };
        let fresh = now.saturating_duration_since(success.at) < REMEMBERED;
        let same = Arc::ptr_eq(&success.secret, secret) || success.secret == *secret;
        let known = digests
            .iter()
            .fold(subtle::Choice::from(0), |known, digest| known | success.digest.ct_eq(digest.as_slice()));
        fresh && same && bool::from(known)
    }

    /// Remembers a successful check of this user's password.
    pub(super) fn remember(&self, name: &str, secret: Arc<Secret>, digest: Zeroizing<Key>, now: Instant) {
        let name: Arc<str> = name.into();
        let mut successes = self.lock();
        successes.in_order.push_back((now, Arc::clone(&name)));
        successes.by_name.insert(name, Success { at: now, digest, secret });
        successes.tidy(now);
    }

    /// Forgets these users, whose lines have changed or disappeared.
    pub(super) fn forget(&self, names: &[String]) {
        let mut successes = self.lock();
        for name in names {
            successes.by_name.remove(name.as_str());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Successes> {
        self.successes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Successes {
    /// Drops expired entries, and the oldest if there are too many.
    fn tidy(&mut self, now: Instant) {
        while let Some((at, name)) = self.in_order.front() {
            let old = now.saturating_duration_since(*at) >= REMEMBERED;
            if !old && self.in_order.len() <= MOST {
                return;
            }
            if self.by_name.get(name).is_some_and(|success| success.at == *at) {
                self.by_name.remove(name);
            }
            self.in_order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::forms;
    use super::*;

    const CRYPT: &str = "$5$rounds=1000$8g3bLFkL5Aut2SOi$GLcj/dD3LUBe6HsKOb/.Md/0lurit91j96ihy0vhx/2";
    const OTHER: &str = "$5$4sp6L1kB/3848sxR$23Qr1Il2kfH4pgmstUQMpTgXJRtUcp4LrK0.qSArT99";

    fn secret(text: &str) -> Arc<Secret> {
        Arc::new(Secret::read(text).unwrap())
    }

    /// Remembers the last form of a password, which is the unprepared one.
    fn remember(recent: &Recent, name: &str, secret: &Arc<Secret>, password: &[u8], now: Instant) {
        let digest = recent.digests(name, &forms(password)).pop().unwrap();
        recent.remember(name, Arc::clone(secret), digest, now);
    }

    fn holds(recent: &Recent, name: &str, secret: &Arc<Secret>, password: &[u8], now: Instant) -> bool {
        recent.holds(name, secret, &recent.digests(name, &forms(password)), now)
    }

    #[test]
    fn the_same_name_password_and_hash_alone() {
        let (recent, now, hash) = (Recent::new(), Instant::now(), secret(CRYPT));
        remember(&recent, "anna", &hash, b"correct horse", now);
        for (name, hash, password, expected) in [
            ("anna", &hash, &b"correct horse"[..], true),
            // Read again from the file.
            ("anna", &secret(CRYPT), b"correct horse", true),
            ("anna", &secret(OTHER), b"correct horse", false),
            ("anna", &hash, b"correct horsf", false),
            ("anna", &hash, b"", false),
            ("bob", &hash, b"correct horse", false),
            // A name and a password that form the same octets when concatenated.
            ("annac", &hash, b"orrect horse", false),
        ] {
            assert_eq!(holds(&recent, name, hash, password, now), expected, "{name} {password:?}");
        }
        // Nor is its digest of use in another process.
        let other = Recent::new();
        assert_ne!(other.digests("anna", &forms(b"x")), recent.digests("anna", &forms(b"x")));
        // The form that was hashed counts, whichever a mail program sends.
        remember(&recent, "bob", &hash, b"fish", now);
        assert!(holds(&recent, "bob", &hash, "\u{fb01}sh".as_bytes(), now));
    }

    #[test]
    fn for_ten_minutes_from_the_check() {
        let (recent, now, hash) = (Recent::new(), Instant::now(), secret(CRYPT));
        remember(&recent, "anna", &hash, b"x", now);
        assert!(holds(&recent, "anna", &hash, b"x", now + REMEMBERED - Duration::from_secs(1)));
        assert!(!holds(&recent, "anna", &hash, b"x", now + REMEMBERED));
        // A second check restarts the time; expired entries go with anybody's next success.
        remember(&recent, "anna", &hash, b"x", now + REMEMBERED / 2);
        remember(&recent, "bob", &hash, b"x", now + REMEMBERED);
        assert!(holds(&recent, "anna", &hash, b"x", now + REMEMBERED));
        remember(&recent, "bob", &hash, b"x", now + 2 * REMEMBERED);
        let successes = recent.lock();
        assert_eq!((successes.by_name.len(), successes.in_order.len()), (1, 1));
    }

    #[test]
    fn forgotten_one_by_one() {
        let (recent, now, hash) = (Recent::new(), Instant::now(), secret(CRYPT));
        for name in ["anna", "bob"] {
            remember(&recent, name, &hash, b"x", now);
        }
        recent.forget(&["anna".to_owned(), "carl".to_owned()]);
        assert!(!holds(&recent, "anna", &hash, b"x", now) && holds(&recent, "bob", &hash, b"x", now));
    }

    #[test]
    fn of_a_bounded_number_of_users() {
        let (recent, now, hash) = (Recent::new(), Instant::now(), secret(CRYPT));
        let names = (0..MOST + 2).map(|number| format!("user{number}"));
        // One user over and over takes no more room than any other.
        for (name, tick) in names.chain((0..MOST).map(|_| "anna".to_owned())).zip(0..) {
            let at = now + Duration::from_nanos(tick);
            recent.remember(&name, Arc::clone(&hash), Zeroizing::default(), at);
            let successes = recent.lock();
            assert!(successes.by_name.len() <= MOST && successes.in_order.len() <= MOST);
            assert!(successes.by_name.contains_key(name.as_str()), "the latest is there");
        }
    }
}
