//! What a server stores of a password for SCRAM-SHA-256: RFC 5803 in Dovecot's spelling, the keys of RFC 5802 3.
//!
//! One verifier serves SCRAM, which never shows the password, and PLAIN and LOGIN, which do. The derivation is PBKDF2
//! (RFC 8018 5.2) and deliberately slow: call it on a blocking thread.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// An HMAC-SHA-256 key or digest.
pub(super) type Key = [u8; 32];

/// The iteration count of a new verifier (RFC 7677 4 requires at least 4,096).
const ITERATIONS: u32 = 100_000;
/// The length of a new salt, in octets.
const SALT: usize = 16;

/// The verifier of one password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Verifier {
    /// The iteration count of PBKDF2, at least 1.
    pub(super) iterations: u32,
    /// Not empty.
    pub(super) salt: Vec<u8>,
    /// H(ClientKey)
    pub(super) stored_key: Key,
    /// HMAC(SaltedPassword, "Server Key")
    pub(super) server_key: Key,
}

impl Verifier {
    /// Derives a verifier with a random salt.
    ///
    /// # Errors
    /// The system provides no random octets.
    pub(super) fn new(password: &[u8]) -> Result<Self, getrandom::Error> {
        let mut salt = vec![0; SALT];
        getrandom::fill(&mut salt)?;
        Ok(Self::derive(password, salt, ITERATIONS))
    }

    fn derive(password: &[u8], salt: Vec<u8>, iterations: u32) -> Self {
        let salted = pbkdf2(password, &salt, iterations);
        let client_key = Zeroizing::new(mac(salted.as_slice(), &[b"Client Key"]));
        let stored_key = Sha256::digest(client_key.as_slice()).into();
        let server_key = mac(salted.as_slice(), &[b"Server Key"]);
        Self { iterations, salt, stored_key, server_key }
    }

    /// A verifier of the same cost that no password matches. `octets` provides its salt and keys, the same for the same
    /// label.
    pub(super) fn decoy(&self, octets: impl Fn(&str) -> Key) -> Self {
        let mut salt = Vec::with_capacity(self.salt.len());
        for block in 0.. {
            if salt.len() == self.salt.len() {
                break;
            }
            let more = octets(&format!("salt {block}"));
            salt.extend(more.into_iter().take(self.salt.len() - salt.len()));
        }
        Self {
            iterations: self.iterations,
            salt,
            stored_key: octets("stored key"),
            server_key: octets("server key"),
        }
    }

    /// Parses `iterations,salt,stored key,server key`, the latter three in base64.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "`{SCRAM-SHA-256}` is followed by ITERATIONS,SALT,STOREDKEY,SERVERKEY".to_owned();
        let mut parts = text.split(',');
        let mut next = || parts.next().ok_or_else(wrong);
        let (iterations, salt, stored_key, server_key) = (next()?, next()?, next()?, next()?);
        if parts.next().is_some() {
            return Err(wrong());
        }
        // `+5` would parse as a number.
        let digits = iterations.bytes().all(|octet| octet.is_ascii_digit());
        let iterations =
            iterations.parse().ok().filter(|count: &u32| digits && *count > 0).ok_or_else(|| {
                "the iteration count behind `{SCRAM-SHA-256}` is a whole number from 1 to 4294967295"
                    .to_owned()
            })?;
        let salt = STANDARD.decode(salt).ok().filter(|salt| !salt.is_empty());
        let key = |text| STANDARD.decode(text).ok().and_then(|key| Key::try_from(key).ok());
        match (salt, key(stored_key), key(server_key)) {
            (Some(salt), Some(stored_key), Some(server_key)) => {
                Ok(Self { iterations, salt, stored_key, server_key })
            }
            _ => Err("salt and keys behind `{SCRAM-SHA-256}` are base64, each key of 32 octets".to_owned()),
        }
    }

    /// Whether this is the verifier of `password`. Takes the same time either way.
    pub(super) fn matches(&self, password: &[u8]) -> bool {
        let other = Self::derive(password, self.salt.clone(), self.iterations);
        other.stored_key.ct_eq(&self.stored_key).into()
    }
}

/// The form in the users file, after `{SCRAM-SHA-256}`.
impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [salt, stored, server] =
            [&self.salt[..], &self.stored_key, &self.server_key].map(|part| STANDARD.encode(part));
        write!(f, "{},{salt},{stored},{server}", self.iterations)
    }
}

/// HMAC-SHA-256 over the concatenated parts.
pub(super) fn mac(key: &[u8], parts: &[&[u8]]) -> Key {
    let mut mac = keyed(key);
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// RFC 2104 2: a key may have any length; one longer than a block is hashed first.
fn keyed(key: &[u8]) -> Hmac<Sha256> {
    let mut block = Zeroizing::new([0u8; 64]);
    if let Some(head) = block.get_mut(..key.len()) {
        head.copy_from_slice(key);
    } else {
        block[..32].copy_from_slice(&Sha256::digest(key));
    }
    hmac::digest::KeyInit::new((&*block).into())
}

/// PBKDF2 (RFC 8018 5.2) with HMAC-SHA-256 and one block of output, which is Hi() of RFC 5802 2.2.
fn pbkdf2(password: &[u8], salt: &[u8], iterations: u32) -> Zeroizing<Key> {
    // Cloned in each round, so that the two blocks of the key are hashed once, not 200,000 times.
    let keyed = keyed(password);
    let mut round: Key =
        keyed.clone().chain_update(salt).chain_update([0, 0, 0, 1]).finalize().into_bytes().into();
    let mut sum = Zeroizing::new(round);
    for _ in 1..iterations {
        round = keyed.clone().chain_update(round).finalize().into_bytes().into();
        for (octet, more) in sum.iter_mut().zip(round) {
            *octet ^= more;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(octets: &[u8]) -> String {
        octets.iter().map(|octet| format!("{octet:02x}")).collect()
    }

    #[test]
    fn pbkdf2_vectors() {
        // The first is from RFC 7914 11 (its first 32 octets); the others are RFC 6070 with SHA-256, as widely
        // published.
        for (password, salt, iterations, expected) in [
            ("passwd", "salt", 1, "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc"),
            ("password", "salt", 1, "120fb6cffcf8b32c43e7225256c4f837a86548c92ccc35480805987cb70be17b"),
            ("password", "salt", 2, "ae4d0c95af6b46d32d0adff928f06dd02a303f8ef3c251dfd6e2d85a95474c43"),
            ("password", "salt", 4096, "c5e478d59288c841aa530db6845c4c8d962893a001ce4e11a4963873aa98134a"),
        ] {
            assert_eq!(hex(pbkdf2(password.as_bytes(), salt.as_bytes(), iterations).as_slice()), expected);
        }
    }

    #[test]
    fn hmac_takes_keys_of_any_length() {
        // RFC 4231 4.3 and 4.7 (a key of 131 octets).
        for (key, data, expected) in [
            (
                b"Jefe".to_vec(),
                &b"what do ya want for nothing?"[..],
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                vec![0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ] {
            assert_eq!(hex(&mac(&key, &[data])), expected);
        }
    }

    #[test]
    fn the_example_of_rfc_7677() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = Verifier::derive(b"pencil", salt, 4096);
        let message = b"n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let signature = mac(&verifier.server_key, &[message]);
        assert_eq!(STANDARD.encode(signature), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn written_and_read_back() {
        let verifier = Verifier::new(b"correct horse").unwrap();
        let text = verifier.to_string();
        assert!(text.starts_with("100000,"), "{text}");
        let read = Verifier::parse(&text).unwrap();
        assert!(read == verifier && read.matches(b"correct horse") && !read.matches(b"correct house"));
        assert_eq!(read.salt.len(), 16);
        assert_ne!(Verifier::new(b"correct horse").unwrap().salt, verifier.salt);
    }

    #[test]
    fn broken_verifiers() {
        let key = STANDARD.encode([7; 32]);
        for text in [
            String::new(),
            "4096".to_owned(),
            format!("4096,c2FsdA==,{key}"),
            format!("4096,c2FsdA==,{key},{key},"),
            format!("0,c2FsdA==,{key},{key}"),
            format!("+4096,c2FsdA==,{key},{key}"),
            format!("4294967296,c2FsdA==,{key},{key}"),
            format!("4096,,{key},{key}"),
            format!("4096,c2FsdA,{key},{key}"),
            format!("4096,c2FsdA==,AAAA,{key}"),
            format!("4096,c2FsdA==,{key},{key}x"),
        ] {
            assert!(Verifier::parse(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_decoy_is_steady_and_looks_alike() {
        let model = Verifier::derive(b"x", vec![1; 40], 5000);
        let octets = |label: &str| mac(b"secret", &[label.as_bytes()]);
        let decoy = model.decoy(octets);
        assert!(decoy == model.decoy(octets));
        assert_eq!((decoy.iterations, decoy.salt.len()), (5000, 40));
        assert!(
            decoy.salt != model.salt
                && decoy.stored_key != model.stored_key
                && decoy.server_key != model.server_key
        );
        assert!(decoy != model.decoy(|label| mac(b"another", &[label.as_bytes()])));
    }
}
