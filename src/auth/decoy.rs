//! Stand-ins for names that are not in the users file, so that nobody can find out which names are.
//!
//! A decoy depends only on the name and an install secret: it has the same salt and iteration count each time, as a
//! user would, even after a restart. Its cost is that of a user in the file, chosen by the name.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::sasl::prepared;
use super::scheme::{Hash, Secret};
use super::users::{User, Users};
use super::verifier::{Key, Verifier, mac};

/// Makes decoys.
pub(super) struct Decoys {
    secret: Zeroizing<Key>,
}

impl Decoys {
    pub(super) fn new(secret: Key) -> Self {
        Self { secret: Zeroizing::new(secret) }
    }

    /// For a password: another user's hash. The result of the check is ignored; its cost is the usual one.
    pub(super) fn secret(&self, name: &str, users: &Users) -> Option<Arc<Secret>> {
        self.model(name, users).map(User::secret)
    }

    /// For SCRAM: a verifier that no proof matches; `None` if nobody in the file has one.
    pub(super) fn verifier(&self, name: &str, users: &Users) -> Option<Verifier> {
        match self.model(name, users)?.hash()? {
            Hash::Scram(verifier) => Some(verifier.decoy(|label| self.octets(name, label))),
            Hash::Crypt(..) => None,
        }
    }

    fn model<'a>(&self, name: &str, users: &'a Users) -> Option<&'a User> {
        let [a, b, c, d, e, f, g, h, ..] = self.octets(name, "cost");
        users.model(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }

    /// Pseudo-random octets for a name; spellings that would find the same user yield the same octets.
    fn octets(&self, name: &str, label: &str) -> Key {
        mac(self.secret.as_slice(), &[b"gatepost decoy ", label.as_bytes(), b"\0", folded(name).as_bytes()])
    }
}

/// The common form of all spellings that would find the same user.
pub(super) fn folded(name: &str) -> String {
    prepared(name).map_or_else(|| name.to_ascii_lowercase(), |name| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRAM: &str = "{SCRAM-SHA-256}4096,BTObTyn3847hjgwpF6xmpg==,hICkXYOhkZAjOWibsPoUGumQEKoIPoFdrCXC53tcLaw=,wm74XKUVBf/JUfbA0NoS+gD5UcZLm6fele6BCJrEq08=";

    #[test]
    fn steady_over_restarts_and_spellings() {
        let users = Users::parse(format!("anna:{SCRAM}\n").as_bytes()).unwrap();
        let decoy = |secret: u8, name: &str| Decoys::new([secret; 32]).verifier(name, &users).unwrap();
        let first = decoy(1, "bob");
        assert!(first == decoy(1, "bob") && first == decoy(1, "BOB") && first == decoy(1, "b\u{ad}ob"));
        assert!(first.salt != decoy(1, "carl").salt && first.salt != decoy(2, "bob").salt);
        assert_eq!((first.iterations, first.salt.len()), (4096, 16));
    }

    #[test]
    fn the_file_may_grow() {
        let mut content = format!("anna:{SCRAM}\n");
        let decoys = Decoys::new([1; 32]);
        let before = decoys.verifier("bob", &Users::parse(content.as_bytes()).unwrap()).unwrap();
        content = format!("zoe:!\naaron:{SCRAM}\n{content}");
        assert!(before == decoys.verifier("bob", &Users::parse(content.as_bytes()).unwrap()).unwrap());
    }
}
