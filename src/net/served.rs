//! The certificates shown to clients: the one for the name that the client asks for (SNI, RFC 6066 3), else the
//! default. Each can be replaced while the server runs.
//!
//! A broken replacement changes nothing. Tickets survive a replacement, because the surrounding configuration stays.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::SignatureScheme;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::Facts;
use super::pem;
use super::tls::TlsError;
use super::trust::KeyPair;
use crate::clock::Timestamp;

/// How long before its expiry a certificate is reported.
pub const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// A certificate that expires soon.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Expiring {
    /// When it expires.
    pub not_after: Timestamp,
    /// The certificate file.
    pub certificate: PathBuf,
}

/// All certificates of the server.
pub struct Served {
    /// The first is the default, unless the default does not exist yet.
    pairs: Vec<KeyPair>,
    has_default: bool,
    /// Held during a replacement.
    exchange: Mutex<()>,
    current: ArcSwap<Store>,
}

/// The certificates in force.
struct Store {
    /// In the order of the pairs.
    all: Vec<Entry>,
    /// Indexes of the certificates for each DNS name, in order; wildcards such as `*.example.org` included.
    by_name: HashMap<String, Vec<usize>>,
}

#[derive(Clone)]
struct Entry {
    key: Arc<CertifiedKey>,
    facts: Option<Facts>,
}

impl Served {
    /// Reads all chains and keys. The first pair is the default.
    ///
    /// # Errors
    /// A file is missing, encrypted, or holds no certificate or key; a certificate and its key do not match; or a
    /// certificate other than the default has no DNS name.
    pub fn open(pairs: Vec<KeyPair>) -> Result<Self, TlsError> {
        Self::read_all(pairs, true)
    }

    /// Like [`Self::open`], but all pairs are additional ones: the default does not exist yet.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_further(pairs: Vec<KeyPair>) -> Result<Self, TlsError> {
        Self::read_all(pairs, false)
    }

    fn read_all(pairs: Vec<KeyPair>, has_default: bool) -> Result<Self, TlsError> {
        let current = ArcSwap::from_pointee(Store::read(&pairs, has_default)?);
        Ok(Self { pairs, has_default, exchange: Mutex::new(()), current })
    }

    /// The files of all pairs.
    pub fn pairs(&self) -> &[KeyPair] {
        &self.pairs
    }

    /// Reads one pair anew, for future handshakes. Returns whether its certificate has changed.
    ///
    /// # Errors
    /// As [`Self::open`]; the old pair then stays in force.
    pub fn reload(&self, index: usize) -> Result<bool, TlsError> {
        let Some(pair) = self.pairs.get(index) else { return Ok(false) };
        let _alone = self.exchange.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = read(pair, self.has_default && index == 0)?;
        let mut all = self.current.load().all.clone();
        let Some(before) = all.get_mut(index) else { return Ok(false) };
        let changed = before.key.cert != entry.key.cert;
        *before = entry;
        self.current.store(Arc::new(Store::new(all)));
        Ok(changed)
    }

    /// Reads all pairs anew; either all are replaced or none.
    ///
    /// # Errors
    /// As [`Self::open`]; all old pairs then stay in force.
    pub fn reload_all(&self) -> Result<(), TlsError> {
        let _alone = self.exchange.lock().unwrap_or_else(PoisonError::into_inner);
        self.current.store(Arc::new(Store::read(&self.pairs, self.has_default)?));
        Ok(())
    }

    /// The certificates that will have expired by `then`, the earliest first.
    pub fn expiring(&self, then: Timestamp) -> Vec<Expiring> {
        let current = self.current.load();
        let pairs = self.pairs.iter().zip(&current.all);
        let not_after = |(pair, entry): (&KeyPair, &Entry)| {
            let not_after = entry.facts.as_ref()?.not_after;
            (not_after <= then).then(|| Expiring { not_after, certificate: pair.certificate.clone() })
        };
        let mut expiring: Vec<_> = pairs.filter_map(not_after).collect();
        expiring.sort();
        expiring
    }

    /// The first certificate for this name whose key suits the client, else the default.
    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let store = self.current.load();
        let fits = |index: &&usize| {
            store.all.get(**index).is_some_and(|entry| entry.key.key.choose_scheme(schemes).is_some())
        };
        let named = name.map_or(&[][..], |name| store.of(&name.to_ascii_lowercase()));
        let index = named.iter().find(fits).copied().unwrap_or_default();
        store.all.get(index).map(|entry| Arc::clone(&entry.key))
    }
}

impl Store {
    fn read(pairs: &[KeyPair], has_default: bool) -> Result<Self, TlsError> {
        let pairs = pairs.iter().enumerate();
        let all = pairs.map(|(index, pair)| read(pair, has_default && index == 0));
        Ok(Self::new(all.collect::<Result<_, _>>()?))
    }

    fn new(all: Vec<Entry>) -> Self {
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, entry) in all.iter().enumerate() {
            for name in entry.facts.iter().flat_map(|facts| &facts.dns_names) {
                by_name.entry(name.clone()).or_default().push(index);
            }
        }
        Self { all, by_name }
    }

    /// RFC 6125 6.4.3: a wildcard stands for the leftmost label; an exact name takes precedence.
    fn of(&self, name: &str) -> &[usize] {
        let wildcard = || {
            let (_, parent) = name.split_once('.')?;
            self.by_name.get(&format!("*.{parent}"))
        };
        self.by_name.get(name).or_else(wildcard).map_or(&[], Vec::as_slice)
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes())
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Served")
    }
}

/// Reads one pair. All but the default need a DNS name.
fn read(pair: &KeyPair, is_default: bool) -> Result<Entry, TlsError> {
    let key = certified_key(&pair.certificate, &pair.private_key)?;
    let facts = key.cert.first().and_then(|certificate| Facts::read(certificate));
    if !is_default && facts.as_ref().is_none_or(|facts| facts.dns_names.is_empty()) {
        return Err(TlsError(format!(
            "{}: the certificate names no host (subjectAltName), so that no client can ask for it; use it as [tls] certificate, or get one with names",
            pair.certificate.display()
        )));
    }
    Ok(Entry { key: Arc::new(key), facts })
}

fn certified_key(certificate: &Path, private_key: &Path) -> Result<CertifiedKey, TlsError> {
    let chain = pem::certificates(certificate)?;
    let key = pem::private_key(private_key)?;
    let key = aws_lc_rs::sign::any_supported_type(&key).map_err(|cause| {
        TlsError(format!("{}: {cause}; use an RSA, ECDSA or Ed25519 key", private_key.display()))
    })?;
    let pair = CertifiedKey::new(chain, key);
    pair.keys_match().map_err(|cause| match cause {
        rustls::Error::InconsistentKeys(_) => TlsError(format!(
            "{}: this is not the key of the first certificate in {}; the server's own certificate comes first, then the chain",
            private_key.display(),
            certificate.display()
        )),
        cause => TlsError(format!("{}: the first certificate is unusable: {cause}", certificate.display())),
    })?;
    Ok(pair)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[SignatureScheme] =
        &[SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PSS_SHA256];

    /// Writes a pair for these names, valid until some day of 2030.
    fn pair(folder: &Path, file: &str, names: &[&str], day: u8) -> KeyPair {
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut parameters = rcgen::CertificateParams::new(names).unwrap();
        parameters.not_after = rcgen::date_time_ymd(2030, 1, day);
        let certificate = parameters.self_signed(&key).unwrap();
        let path = |end: &str| folder.join(format!("{file}.{end}"));
        let pair = KeyPair { certificate: path("crt"), private_key: path("key") };
        std::fs::write(&pair.certificate, certificate.pem()).unwrap();
        std::fs::write(&pair.private_key, key.serialize_pem()).unwrap();
        pair
    }

    fn of(served: &Served, index: usize) -> Arc<CertifiedKey> {
        Arc::clone(&served.current.load().all[index].key)
    }

    #[test]
    fn the_certificate_that_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let served = Served::open(vec![
            pair(folder.path(), "a", &["mail.example.org"], 1),
            pair(folder.path(), "b", &["mail.example.com", "*.example.com"], 2),
            pair(folder.path(), "c", &["smtp.example.com", "mail.example.org"], 3),
        ])
        .unwrap();
        for (name, expected) in [
            (None, 0),
            (Some("mail.example.org"), 0),
            (Some("MAIL.example.COM"), 1),
            (Some("any.example.com"), 1),
            (Some("smtp.example.com"), 2),
            (Some("a.b.example.com"), 0),
            (Some("example.com"), 0),
            (Some("com"), 0),
            (Some("mail.example.net"), 0),
        ] {
            let chosen = served.choose(name, ALL).unwrap();
            assert!(Arc::ptr_eq(&chosen, &of(&served, expected)), "{name:?}");
        }
        // Nothing suits: the default, so that the client learns why.
        let chosen = served.choose(Some("smtp.example.com"), &[SignatureScheme::ED448]).unwrap();
        assert!(Arc::ptr_eq(&chosen, &of(&served, 0)));
    }

    #[test]
    fn one_is_exchanged_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let pairs = || {
            vec![
                pair(folder.path(), "a", &["mail.example.org"], 1),
                pair(folder.path(), "b", &["mail.example.com"], 2),
            ]
        };
        let served = Served::open(pairs()).unwrap();
        let (first, second) = (of(&served, 0), of(&served, 1));
        assert!(!served.reload(0).unwrap(), "the same");
        pairs();
        assert!(served.reload(1).unwrap());
        assert_eq!(first.cert, of(&served, 0).cert);
        assert_ne!(second.cert, of(&served, 1).cert);
        // The key of another certificate.
        std::fs::copy(folder.path().join("a.key"), folder.path().join("b.key")).unwrap();
        let second = of(&served, 1);
        let error = served.reload(1).unwrap_err().to_string();
        assert!(
            error.contains("b.key") && error.contains("b.crt") && error.contains("not the key"),
            "{error}"
        );
        assert!(Arc::ptr_eq(&second, &of(&served, 1)));
        pair(folder.path(), "b", &[], 2);
        assert!(served.reload(1).unwrap_err().to_string().contains("names no host"));
        pair(folder.path(), "a", &[], 1);
        assert!(served.reload(0).unwrap(), "the default needs no name");
    }

    #[test]
    fn beside_a_default_to_come_each_is_for_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let pairs = |names: &[&str]| vec![pair(folder.path(), "a", names, 1)];
        let Err(error) = Served::open_further(pairs(&[])) else { panic!("nobody can ask for it") };
        assert!(error.to_string().contains("names no host"), "{error}");
        let served = Served::open_further(pairs(&["mail.example.org"])).unwrap();
        pairs(&[]);
        assert!(served.reload(0).is_err() && served.reload_all().is_err());
    }

    #[test]
    fn what_ends_soon() {
        let folder = tempfile::tempdir().unwrap();
        let served = Served::open(vec![
            pair(folder.path(), "a", &["mail.example.org"], 9),
            pair(folder.path(), "b", &["mail.example.com"], 4),
        ])
        .unwrap();
        let at = |text: &str| Timestamp::parse_rfc3339(text).unwrap();
        let names = |then: Timestamp| -> Vec<String> {
            let name = |one: Expiring| one.certificate.file_name().unwrap().to_str().unwrap().to_owned();
            served.expiring(then).into_iter().map(name).collect()
        };
        assert!(names(at("2030-01-03T23:59:59Z")).is_empty());
        assert_eq!(names(at("2030-01-04T00:00:00Z")), ["b.crt"]);
        assert_eq!(names(at("2030-01-04T00:00:00Z").after(EXPIRY_WARNING)), ["b.crt", "a.crt"]);
    }
}
