//! A map of bounded size that forgets the least recently used entries, in two generations.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};

/// Keeps at least the `half` most recently used keys, and at most twice as many. Keys are stored as hashes under a
/// secret of this process, so that nobody can construct colliding ones.
#[derive(Debug)]
pub(super) struct Recent<V> {
    half: usize,
    secret: RandomState,
    young: HashMap<u64, V>,
    old: HashMap<u64, V>,
}

impl<V> Recent<V> {
    pub(super) fn new(half: usize) -> Self {
        Self { half, secret: RandomState::new(), young: HashMap::new(), old: HashMap::new() }
    }

    pub(super) fn entry(&mut self, key: impl Hash) -> Option<&mut V> {
        let key = self.secret.hash_one(key);
        if !self.young.contains_key(&key) {
            let value = self.old.remove(&key)?;
            self.put(key, value);
        }
        self.young.get_mut(&key)
    }

    /// The value of a key, which is created if missing.
    pub(super) fn entry_or_default(&mut self, key: impl Hash) -> &mut V
    where
        V: Default,
    {
        let key = self.secret.hash_one(key);
        if !self.young.contains_key(&key) {
            let value = self.old.remove(&key).unwrap_or_default();
            self.put(key, value);
        }
        self.young.entry(key).or_default()
    }

    pub(super) fn insert(&mut self, key: impl Hash, value: V) {
        let key = self.secret.hash_one(key);
        self.old.remove(&key);
        self.put(key, value);
    }

    pub(super) fn remove(&mut self, key: impl Hash) -> Option<V> {
        let key = self.secret.hash_one(key);
        self.young.remove(&key).or_else(|| self.old.remove(&key))
    }

    fn put(&mut self, key: u64, value: V) {
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_what_is_not_used() {
        let mut recent = Recent::new(10);
        for number in 0..1_000 {
            recent.insert(number, number);
            assert_eq!(recent.entry(0), Some(&mut 0), "used, and so kept");
            assert!(recent.young.len() + recent.old.len() <= 20);
        }
        let kept = (0..1_000).filter(|number| recent.entry(number).is_some()).count();
        assert!((10..=20).contains(&kept), "{kept}");
        assert_eq!((recent.remove(999), recent.remove(999), recent.entry(999)), (Some(999), None, None));
        recent.insert(5, 6);
        recent.insert(5, 7);
        assert_eq!(recent.entry(5), Some(&mut 7));
    }
}
