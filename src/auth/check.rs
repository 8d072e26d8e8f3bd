//! Password checks: deliberately slow, hence on blocking threads, and limited in number.
//!
//! Unless configured otherwise the limit is one less than the number of cores, so that mail flows while passwords are
//! guessed; it also limits the memory that Argon2id takes. A password that was right lately is not checked again
//! ([`super::recent`]) and needs no place.

use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::sasl::prepared;
use super::scheme::Secret;

/// RFC 4616 2 requires at least 255 octets. There is a limit because the time of SHA-crypt grows with the length.
pub(super) const MAX_PASSWORD: usize = 1024;

/// How long a check waits for a place.
const PATIENCE: Duration = Duration::from_secs(60);

/// A password in every form in which it may have been hashed.
pub(super) type Forms = Vec<Zeroizing<Vec<u8>>>;

/// Returns the prepared form, then the password as it came. Whoever made the hash may have prepared the password (RFC
/// 4616 2 and SCRAM clients do, `doveadm pw` does not), and so may the mail program that sends it.
pub(super) fn forms(password: &[u8]) -> Forms {
    if password.len() > MAX_PASSWORD {
        return vec![Zeroizing::default()];
    }
    let mut forms = Vec::with_capacity(2);
    if let Some(prepared) = std::str::from_utf8(password).ok().and_then(prepared)
        && prepared.as_bytes() != password
    {
        forms.push(Zeroizing::new(prepared.as_bytes().to_vec()));
    }
    forms.push(Zeroizing::new(password.to_vec()));
    forms
}

/// Too many passwords are being checked at once.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Crowded;

/// Limits how many checks run at once.
pub(super) struct Checks {
    permits: ArcSwap<Semaphore>,
}

impl Checks {
    /// Allows `most` checks at once; 0: the number of cores less one.
    pub(super) fn new(most: usize) -> Self {
        Self { permits: ArcSwap::from_pointee(Semaphore::new(places(most))) }
    }

    /// Allows `most` checks from now on. Checks that run or wait already keep their old places until they are done.
    pub(super) fn adopt(&self, most: usize) {
        self.permits.store(Arc::new(Semaphore::new(places(most))));
    }

    /// Returns which of the forms the secret is the hash of, if any; an empty password never matches. A check that has
    /// begun keeps its place until it is done, even if its caller is gone.
    ///
    /// # Errors
    /// No place became free in time.
    pub(super) async fn matching(&self, secret: Arc<Secret>, forms: Forms) -> Result<Option<usize>, Crowded> {
        let place = timeout(PATIENCE, self.permits.load_full().acquire_owned()).await;
        let Ok(Ok(permit)) = place else { return Err(Crowded) };
        let check = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            match &*secret {
                Secret::Usable(hash) => forms.iter().position(|form| hash.matches(form) && !form.is_empty()),
                Secret::Unusable { .. } => None,
            }
        });
        Ok(check.await.ok().flatten())
    }

    /// Takes all places, for tests of what needs one.
    #[cfg(test)]
    pub(super) async fn occupy(&self) -> Option<tokio::sync::OwnedSemaphorePermit> {
        let places = u32::try_from(self.permits.load().available_permits()).ok()?;
        self.permits.load_full().acquire_many_owned(places).await.ok()
    }
}

/// The number of places; 0 stands for the number of cores less one.
fn places(most: usize) -> usize {
    let cores = available_parallelism().map_or(1, usize::from);
    if most == 0 { cores.saturating_sub(1).max(1) } else { most }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_a_password() {
        let long = "x".repeat(MAX_PASSWORD + 1);
        for (password, expected) in [
            (&b"correct horse"[..], &[&b"correct horse"[..]][..]),
            ("\u{aa}".as_bytes(), &[b"a", "\u{aa}".as_bytes()]),
            ("\u{1f511}".as_bytes(), &["\u{1f511}".as_bytes()]),
            (b"Gr\xf6\xdfe", &[b"Gr\xf6\xdfe"]),
            (b"", &[b""]),
            (long.as_bytes(), &[b""]),
        ] {
            let found: Vec<_> = forms(password).iter().map(|form| form.to_vec()).collect();
            assert_eq!(found, expected);
        }
    }

    #[tokio::test]
    async fn an_empty_password_is_never_right() {
        // crypt('', '$5$rounds=1000$abcdefgh') of libxcrypt.
        let secret =
            Secret::read("$5$rounds=1000$abcdefgh$GkBTClnHKE8dKvOznb7VazxXnS.36rgDH/r3khMCLaB").unwrap();
        let Secret::Usable(hash) = &secret else { panic!("unusable") };
        assert!(hash.matches(b""));
        assert_eq!(Checks::new(0).matching(Arc::new(secret), forms(b"")).await, Ok(None));
    }

    #[test]
    fn as_many_places_as_were_asked_for() {
        let checks = Checks::new(3);
        assert_eq!(checks.permits.load().available_permits(), 3);
        checks.adopt(7);
        assert_eq!(checks.permits.load().available_permits(), 7);
    }

    #[tokio::test]
    async fn no_more_at_once_than_there_are_places() {
        let secret = Arc::new(
            Secret::read("$5$rounds=1000$abcdefgh$GkBTClnHKE8dKvOznb7VazxXnS.36rgDH/r3khMCLaB").unwrap(),
        );
        let checks = Checks::new(0);
        let places = checks.permits.load().available_permits();
        assert!(places >= 1);
        let taken = checks.occupy().await.unwrap();
        let mut check = Box::pin(checks.matching(Arc::clone(&secret), forms(b"wrong")));
        let waits =
            std::future::poll_fn(|context| std::task::Poll::Ready(check.as_mut().poll(context).is_pending()));
        assert!(waits.await);
        assert_eq!(Arc::strong_count(&secret), 2, "the check has begun");
        drop(taken);
        let outcome = timeout(Duration::from_secs(20), check).await;
        assert_eq!(outcome, Ok(Ok(None)));
        assert_eq!(checks.permits.load().available_permits(), places);
    }
}
