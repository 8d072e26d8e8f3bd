//! Password guessing: counted per address (IPv6: /64) and per account; first slowed down, then refused for a while.
//!
//! A name that no user has is counted like any other, so that nothing is revealed. Repeating the same wrong password is
//! not a further guess: a mail program with a stale password is no thief. (SCRAM never shows the password, so there
//! each try is one.) An address from which a user has lately logged in to an account is known to that account, and
//! other people's guesses do not lock it out; nor do they lock out a stranger who gets the password right within the
//! first [`TRIES`] tries. Pure except for its lock; memory is bounded.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use zeroize::Zeroizing;

use super::bounded::BoundedMap;
use super::verifier::{Key, mac};
use crate::account::Account;

/// The limits of `[auth]` on wrong passwords.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuessLimits {
    /// Guesses from one address within the period; 0: unlimited.
    pub per_address: usize,
    /// Guesses at one account within the period, after which strangers have [`TRIES`] each; 0: unlimited.
    pub per_account: usize,
    /// How long a guess counts.
    pub period: Duration,
}

impl GuessLimits {
    /// No limits.
    pub const NONE: Self = Self { per_address: 0, per_account: 0, period: Duration::from_secs(3_600) };

    fn pace(self, guesses: usize) -> Leave {
        let most = self.per_address;
        if most == 0 {
            return Leave::Now;
        }
        if guesses >= most {
            return Leave::Later;
        }
        let slowed = guesses.saturating_sub(most * UNSLOWED.0 / UNSLOWED.1);
        match u32::try_from(slowed).unwrap_or(u32::MAX) {
            0 => Leave::Now,
            slowed => Leave::After(STEP.saturating_mul(slowed).min(SLOWEST)),
        }
    }

    fn note(self, guesses: &mut Vec<Guess>, guess: Guess) -> bool {
        guesses.retain(|before| self.counts(before, guess.at));
        let new = guesses.iter().all(|before| before.mark != guess.mark);
        if new && guesses.len() < self.per_address.max(MANY) {
            guesses.push(guess);
        }
        new
    }

    fn count(self, guesses: &[Guess], now: Duration) -> usize {
        guesses.iter().filter(|guess| self.counts(guess, now)).count()
    }

    fn counts(self, guess: &Guess, now: Duration) -> bool {
        now < guess.at + self.period
    }
}

/// A login that succeeded after many wrong passwords.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guessed {
    /// The number of guesses within the period.
    pub guesses: usize,
    /// The number of addresses they came from.
    pub addresses: usize,
}

/// How many tries a stranger has on an account at which many guess.
const TRIES: usize = 3;
/// A login from an address not known to the account is reported to the abuse desk if at least this many guesses at the
/// account preceded it within the period,
const MANY: usize = 20;
/// or at least this many of them from that very address.
const MANY_OF_ONE: usize = 10;
/// The abuse desk is told of the same account at most once in this time.
const TOLD_AGAIN: Duration = Duration::from_secs(24 * 60 * 60);
/// How long an address stays known to an account.
const KNOWN: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The share of the guesses allowed per address that is not slowed down.
const UNSLOWED: (usize, usize) = (2, 5);
/// How much longer each further guess takes than the one before.
const STEP: Duration = Duration::from_millis(100);
/// The longest delay.
const SLOWEST: Duration = Duration::from_secs(5);
/// How many addresses, and how many accounts, are remembered at most; those unchanged for longest are forgotten, half
/// at a time.
const REMEMBERED: usize = 16_384;
/// How many addresses known to accounts are remembered.
const REMEMBERED_KNOWN: usize = 65_536;

/// Whether a password may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// At once.
    Now,
    /// After this delay.
    After(Duration),
    /// Not for now.
    Later,
}

/// An attempt to log in, without name or password.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    origin: Account,
    name: u64,
    /// A keyed hash of name and secret.
    mark: u64,
}

/// The recent attempts.
pub(super) struct Guesses {
    /// Random for each process, so that a mark does not reveal what was tried.
    key: Zeroizing<Key>,
    began: Instant,
    state: Mutex<State>,
}

struct State {
    limits: GuessLimits,
    addresses: BoundedMap<Account, Vec<Guess>>,
    accounts: BoundedMap<u64, Siege>,
    known: BoundedMap<(u64, Account), Known>,
}

/// A wrong password.
#[derive(Clone, Copy)]
struct Guess {
    at: Duration,
    name: u64,
    mark: u64,
}

/// The guesses at one account.
#[derive(Default)]
struct Siege {
    guesses: Vec<(Guess, Account)>,
    told: Option<Duration>,
}

/// An address from which a user has logged in to an account.
#[derive(Default)]
struct Known {
    at: Duration,
    missed: Vec<Guess>,
}

impl Guesses {
    pub(super) fn new(limits: GuessLimits, key: Key, began: Instant) -> Self {
        let state = State {
            limits,
            addresses: BoundedMap::new(REMEMBERED),
            accounts: BoundedMap::new(REMEMBERED),
            known: BoundedMap::new(REMEMBERED_KNOWN),
        };
        Self { key: Zeroizing::new(key), began, state: Mutex::new(state) }
    }

    /// Changes the limits; recent attempts stay remembered.
    pub(super) fn adopt(&self, limits: GuessLimits) {
        self.lock().limits = limits;
    }

    /// `name` must be the same for all spellings of a name; `secret` is what the client sent.
    pub(super) fn attempt(&self, name: &str, secret: &[u8], origin: IpAddr) -> Attempt {
        let name = first(mac(self.key.as_slice(), &[b"name\0", name.as_bytes()]));
        let mark = first(mac(self.key.as_slice(), &[b"mark\0", &name.to_be_bytes(), secret]));
        Attempt { origin: Account::host(origin), name, mark }
    }

    /// Whether the attempt may be made now.
    pub(super) fn leave(&self, attempt: &Attempt, now: Instant) -> Leave {
        let now = now.saturating_duration_since(self.began);
        let state = self.lock();
        let limits = state.limits;
        if let Some(known) = state.known(attempt, now) {
            return limits.pace(limits.count(&known.missed, now));
        }
        let tried = state.addresses.get(&attempt.origin).map_or(&[][..], Vec::as_slice);
        if state.besieged(attempt, now) {
            let own: Vec<_> = tried.iter().filter(|guess| guess.name == attempt.name).copied().collect();
            if limits.count(&own, now) >= TRIES {
                return Leave::Later;
            }
        }
        limits.pace(limits.count(tried, now))
    }

    /// Notes a wrong password; returns whether it counts as a guess.
    pub(super) fn missed(&self, attempt: &Attempt, now: Instant) -> bool {
        let now = now.saturating_duration_since(self.began);
        let guess = Guess { at: now, name: attempt.name, mark: attempt.mark };
        let mut state = self.lock();
        let limits = state.limits;
        if state.known(attempt, now).is_some() {
            let known = state.known.entry((attempt.name, attempt.origin.clone()));
            return limits.note(&mut known.missed, guess);
        }
        let siege = state.accounts.entry(attempt.name);
        siege.guesses.retain(|(guess, _)| limits.counts(guess, now));
        if siege.guesses.iter().all(|(before, _)| before.mark != guess.mark)
            && siege.guesses.len() < limits.per_account.max(MANY)
        {
            siege.guesses.push((guess, attempt.origin.clone()));
        }
        let tried = state.addresses.entry(attempt.origin.clone());
        limits.note(tried, guess)
    }

    /// Notes a right password; returns the guesses that preceded it if the abuse desk should be told.
    pub(super) fn hit(&self, attempt: &Attempt, now: Instant) -> Option<Guessed> {
        let now = now.saturating_duration_since(self.began);
        let mut state = self.lock();
        let stranger = state.known(attempt, now).is_none();
        let guessed = stranger.then(|| state.guessed(attempt, now)).flatten();
        if stranger {
            // The wrong tries before a stranger's success are forgiven.
            if let Some(tried) = state.addresses.get_mut(&attempt.origin) {
                tried.retain(|guess| guess.name != attempt.name);
            }
            if let Some(siege) = state.accounts.get_mut(&attempt.name) {
                siege.guesses.retain(|(_, origin)| *origin != attempt.origin);
            }
        }
        let known = state.known.entry((attempt.name, attempt.origin.clone()));
        *known = Known { at: now, missed: Vec::new() };
        guessed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn known(&self, attempt: &Attempt, now: Duration) -> Option<&Known> {
        let known = self.known.get(&(attempt.name, attempt.origin.clone()))?;
        (now < known.at + KNOWN).then_some(known)
    }

    fn besieged(&self, attempt: &Attempt, now: Duration) -> bool {
        let limits = self.limits;
        let siege = self.accounts.get(&attempt.name);
        let guesses = siege
            .map_or(0, |siege| siege.guesses.iter().filter(|(guess, _)| limits.counts(guess, now)).count());
        limits.per_account > 0 && guesses >= limits.per_account
    }

    fn guessed(&mut self, attempt: &Attempt, now: Duration) -> Option<Guessed> {
        let limits = self.limits;
        let siege = self.accounts.get_mut(&attempt.name)?;
        let lately: Vec<_> = siege.guesses.iter().filter(|(guess, _)| limits.counts(guess, now)).collect();
        let own = lately.iter().filter(|(_, origin)| *origin == attempt.origin).count();
        let told = siege.told.is_some_and(|told| now < told + TOLD_AGAIN);
        if told || (lately.len() < MANY && own < MANY_OF_ONE) {
            return None;
        }
        let mut addresses: Vec<_> = lately.iter().map(|(_, origin)| origin.as_str()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let guessed = Guessed { guesses: lately.len(), addresses: addresses.len() };
        siege.told = Some(now);
        Some(guessed)
    }
}

fn first(digest: Key) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = digest;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: GuessLimits =
        GuessLimits { per_address: 50, per_account: 100, period: Duration::from_secs(3_600) };
    const HERE: &str = "192.0.2.1";
    const THERE: &str = "198.51.100.1";

    struct Scene {
        guesses: Guesses,
        now: Instant,
    }

    impl Scene {
        fn new() -> Self {
            let now = Instant::now();
            Self { guesses: Guesses::new(LIMITS, [7; 32], now), now }
        }

        fn attempt(&self, origin: &str, name: &str, secret: &str) -> Attempt {
            self.guesses.attempt(name, secret.as_bytes(), origin.parse().unwrap())
        }

        fn leave(&self, origin: &str, name: &str) -> Leave {
            self.guesses.leave(&self.attempt(origin, name, "any"), self.now)
        }

        /// Tries distinct wrong passwords; returns how many were allowed.
        fn guess(&self, origin: &str, name: &str, secrets: std::ops::Range<usize>) -> usize {
            secrets
                .filter(|secret| {
                    let attempt = self.attempt(origin, name, &format!("{origin} {secret}"));
                    let leave = self.guesses.leave(&attempt, self.now) != Leave::Later;
                    leave && self.guesses.missed(&attempt, self.now)
                })
                .count()
        }

        fn hit(&self, origin: &str, name: &str) -> Option<Guessed> {
            self.guesses.hit(&self.attempt(origin, name, "right"), self.now)
        }

        fn pass(&mut self, seconds: u64) {
            self.now += Duration::from_secs(seconds);
        }
    }

    #[test]
    fn an_address_is_slowed_down_then_put_off_then_let_in_again() {
        let mut scene = Scene::new();
        assert_eq!(scene.guess(HERE, "anna", 0..20), 20);
        assert_eq!(scene.leave(HERE, "bob"), Leave::Now);
        assert_eq!(scene.guess(HERE, "bob", 0..1), 1);
        assert_eq!(scene.leave(HERE, "bob"), Leave::After(STEP));
        scene.pass(1_800);
        assert_eq!(scene.guess(HERE, "carl", 0..100), 29);
        assert_eq!(scene.leave(HERE, "bob"), Leave::Later);
        assert_eq!(scene.leave(THERE, "bob"), Leave::Now);
        scene.pass(1_799);
        assert_eq!(scene.leave(HERE, "bob"), Leave::Later);
        // Half of them are an hour old.
        scene.pass(1);
        assert_eq!(scene.leave(HERE, "bob"), Leave::After(STEP * 9));
    }

    #[test]
    fn a_64_of_ipv6_is_one_address() {
        let scene = Scene::new();
        assert_eq!(scene.guess("2001:db8::1", "anna", 0..50), 50);
        assert_eq!(scene.leave("2001:db8::ffff", "anna"), Leave::Later);
        assert_eq!(scene.leave("2001:db8:0:1::1", "anna"), Leave::Now);
        assert_eq!(scene.guess("::ffff:192.0.2.1", "anna", 0..50), 50);
        assert_eq!(scene.leave(HERE, "bob"), Leave::Later);
    }

    #[test]
    fn the_same_again_does_not_count() {
        let mut scene = Scene::new();
        for hour in 0..3 {
            for minute in 0..60 {
                let stale = scene.attempt(HERE, "anna", "stale");
                assert_eq!(scene.guesses.missed(&stale, scene.now), minute == 0, "{hour}:{minute}");
                scene.pass(60);
            }
        }
        assert_eq!(scene.leave(HERE, "bob"), Leave::Now);
        let other = scene.attempt(HERE, "bob", "stale");
        assert!(scene.guesses.missed(&other, scene.now), "the same password, another name");
    }

    #[test]
    fn guesses_of_many_leave_strangers_few_tries_and_keep_nobody_out() {
        let mut scene = Scene::new();
        assert_eq!(scene.hit(HERE, "anna"), None);
        // A network of thieves: ten tries each.
        let thieves: Vec<String> = (0..10).map(|number| format!("203.0.113.{number}")).collect();
        for thief in &thieves {
            assert_eq!(scene.guess(thief, "anna", 0..10), 10);
        }
        for thief in &thieves {
            assert_eq!(scene.guess(thief, "anna", 10..20), 0);
            assert_eq!(scene.leave(thief, "bob"), Leave::Now);
        }
        // Anna at home, on the road, and with a typing error.
        assert_eq!(scene.leave(HERE, "anna"), Leave::Now);
        assert_eq!(scene.guess(THERE, "anna", 0..2), 2);
        assert_eq!(scene.leave(THERE, "anna"), Leave::Now);
        assert_eq!(scene.guess(THERE, "anna", 2..9), 1);
        assert_eq!(scene.leave(THERE, "anna"), Leave::Later);
        assert_eq!(scene.leave("192.0.2.99", "anna"), Leave::Now, "a first try");
        scene.pass(3_600);
        assert_eq!(scene.leave(THERE, "anna"), Leave::Now);
    }

    #[test]
    fn who_is_known_pays_for_his_own_guesses_alone() {
        let mut scene = Scene::new();
        assert_eq!(scene.hit(HERE, "anna"), None);
        assert_eq!(scene.guess(HERE, "bob", 0..100), 50);
        assert_eq!(scene.leave(HERE, "carl"), Leave::Later);
        assert_eq!(scene.leave(HERE, "anna"), Leave::Now, "known here");
        assert_eq!(scene.guess(HERE, "anna", 0..100), 50, "a thief beside her");
        assert_eq!(scene.leave(HERE, "anna"), Leave::Later);
        assert_eq!(scene.leave(THERE, "anna"), Leave::Now, "they are no siege");
        scene.pass(3_600);
        assert_eq!(scene.leave(HERE, "anna"), Leave::Now);
        scene.pass(KNOWN.as_secs());
        assert_eq!(scene.guess(HERE, "bob", 100..200), 50);
        assert_eq!(scene.leave(HERE, "anna"), Leave::Later, "no longer known");
    }

    #[test]
    fn success_behind_many_guesses_is_told_once_a_day() {
        let mut scene = Scene::new();
        assert_eq!(scene.guess(HERE, "anna", 0..9), 9);
        assert_eq!(scene.hit(HERE, "anna"), None, "nine of one's own");
        assert_eq!(scene.guess(THERE, "anna", 0..10), 10);
        assert_eq!(scene.hit(HERE, "anna"), None, "known");
        assert_eq!(scene.hit(THERE, "anna"), Some(Guessed { guesses: 10, addresses: 1 }));
        for (thief, guesses) in [("203.0.113.1", 9), ("203.0.113.2", 9), ("203.0.113.3", 2)] {
            assert_eq!(scene.guess(thief, "bob", 0..guesses), guesses);
        }
        assert_eq!(scene.hit("203.0.113.4", "bob"), Some(Guessed { guesses: 20, addresses: 3 }));
        assert_eq!(scene.hit("203.0.113.5", "bob"), None, "told already");
        scene.pass(TOLD_AGAIN.as_secs());
        assert_eq!(scene.hit("203.0.113.6", "bob"), None, "long ago");
        assert_eq!(scene.guess(HERE, "carl", 0..50), 50);
        assert_eq!(scene.hit(HERE, "carl"), Some(Guessed { guesses: 50, addresses: 1 }));
        assert_eq!(scene.leave(HERE, "dora"), Leave::Now, "forgiven");
    }

    #[test]
    fn without_limits_all_have_leave() {
        let now = Instant::now();
        let limits = GuessLimits { per_address: 0, per_account: 0, ..LIMITS };
        let scene = Scene { guesses: Guesses::new(limits, [7; 32], now), now };
        assert_eq!(scene.guess(HERE, "anna", 0..1_000), 1_000);
        assert_eq!(scene.leave(HERE, "anna"), Leave::Now);
        assert!(scene.hit(HERE, "anna").is_some(), "and yet it is told");
    }

    #[test]
    fn the_guesses_of_one_address_and_at_one_account_are_bounded() {
        let scene = Scene::new();
        for name in 0..1_000 {
            let attempt = scene.attempt(HERE, &name.to_string(), "x");
            scene.guesses.missed(&attempt, scene.now);
        }
        for thief in 0..1_000_u32 {
            let origin = IpAddr::from((0x0A00_0000 + thief).to_be_bytes());
            let attempt = scene.guesses.attempt("anna", &thief.to_be_bytes(), origin);
            scene.guesses.missed(&attempt, scene.now);
        }
        let state = scene.guesses.lock();
        assert!(state.addresses.values().all(|all| all.len() <= 50));
        assert!(state.accounts.values().all(|one| one.guesses.len() <= 100));
    }
}
