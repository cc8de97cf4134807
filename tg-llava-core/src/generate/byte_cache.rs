use std::collections::HashMap;
use std::hash::Hash;

/// How often a cache was of use, and what it holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Look-ups that found something.
    pub hits: u64,
    /// Look-ups that found nothing.
    pub misses: u64,
    /// Bytes of the values that are kept.
    pub bytes: u64,
}

/// Values by key within a number of bytes: the one that was not used for longest goes first.
#[derive(Debug)]
pub(super) struct ByteCache<K, V> {
    entries: HashMap<K, Entry<V>>,
    most_bytes: u64,
    counts: CacheCounts,
    /// Uses so far, which order the entries by their last one.
    uses: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    bytes: u64,
    last_use: u64,
}

impl<K: Hash + Eq + Clone, V: Clone> ByteCache<K, V> {
    /// A cache that keeps nothing yet.
    pub fn new(most_bytes: u64) -> Self {
        Self { entries: HashMap::new(), most_bytes, counts: CacheCounts::default(), uses: 0 }
    }

    /// What is kept for `key`.
    pub fn get(&mut self, key: &K) -> Option<V> {
        self.uses += 1;
        match self.entries.get_mut(key) {
            Some(entry) => {
                entry.last_use = self.uses;
                self.counts.hits += 1;
                Some(entry.value.clone())
            }
            None => {
                self.counts.misses += 1;
                None
            }
        }
    }

    /// Keeps a value of so many bytes, if there is room for it at all.
    pub fn put(&mut self, key: K, value: V, bytes: u64) {
        if bytes > self.most_bytes {
            return;
        }
        self.uses += 1;
        let entry = Entry { value, bytes, last_use: self.uses };
        self.counts.bytes += bytes;
        if let Some(replaced) = self.entries.insert(key, entry) {
            self.counts.bytes -= replaced.bytes;
        }
        while self.counts.bytes > self.most_bytes {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.last_use);
            let Some(key) = oldest.map(|(key, _)| key.clone()) else { break };
            if let Some(removed) = self.entries.remove(&key) {
                self.counts.bytes -= removed.bytes;
            }
        }
    }

    /// How often it was of use, and what it holds.
    pub fn counts(&self) -> CacheCounts {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let mut cache = ByteCache::new(10);
        cache.put('a', 1, 4);
        cache.put('b', 2, 4);
        assert_eq!(cache.get(&'a'), Some(1));
        cache.put('c', 3, 5);
        assert_eq!((cache.get(&'a'), cache.get(&'b'), cache.get(&'c')), (Some(1), None, Some(3)));
        cache.put('d', 4, 11);
        assert_eq!(cache.get(&'d'), None);
        cache.put('c', 5, 6);
        assert_eq!(cache.get(&'c'), Some(5));
        assert_eq!(cache.counts(), CacheCounts { hits: 4, misses: 2, bytes: 10 });
    }
}
