//! A map of bounded size that forgets what was not changed for longest, in two halves. Reading does not keep an entry.

use std::collections::HashMap;
use std::hash::Hash;

/// Holds at most as many entries as it was made for; when it is full, the half that was not changed for longest is
/// dropped.
pub(super) struct BoundedMap<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    half: usize,
}

impl<K: Eq + Hash, V: Default> BoundedMap<K, V> {
    pub(super) fn new(most: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), half: most / 2 }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// The value of a key, to be made smaller: that alone does not keep it.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.young.get_mut(key).or_else(|| self.old.get_mut(key))
    }

    /// The entry of a key, created if missing, to be changed.
    pub(super) fn entry(&mut self, key: K) -> &mut V {
        // First, since it may be among those that are dropped.
        let before = self.old.remove(&key);
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        let value = self.young.entry(key).or_default();
        if let Some(before) = before {
            *value = before;
        }
        value
    }

    #[cfg(test)]
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.old.values().chain(self.young.values())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_bounded_and_forgets_the_oldest() {
        let mut map = BoundedMap::new(8);
        for key in 0..1_000 {
            *map.entry(key) = key;
            *map.entry(0) = 1;
            assert!(map.values().count() <= 8);
        }
        assert_eq!(map.get(&0), Some(&1));
        assert_eq!(map.get(&999), Some(&999));
        assert_eq!(map.get(&500), None);
    }

    #[test]
    fn what_is_changed_outlives_the_half_it_was_in() {
        let mut map = BoundedMap::new(8);
        for key in 0..8 {
            *map.entry(key) = key;
        }
        assert_eq!(*map.entry(1), 1);
        assert_eq!(map.get(&0), None, "not changed for longest");
    }
}
