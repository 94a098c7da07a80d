//! Keys and what is known of each, in little memory: key bytes lie in one arena, entries in one
//! vector, and the hash table holds only the entries' numbers.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;
use hashbrown::HashTable;

/// Entries by key.
#[derive(Debug)]
pub(super) struct Table<T> {
    map: HashTable<u32>,
    entries: Vec<Option<Entry<T>>>,
    free: Vec<u32>,
    arena: Vec<u8>,
    /// Bytes of the arena that belong to no entry any more.
    dead: usize,
}

#[derive(Debug)]
struct Entry<T> {
    /// Where the key lies in the arena: two bytes of length, then the key.
    at: u32,
    /// For the owner to remember something by.
    mark: bool,
    value: T,
}

/// Keys are at most this long; of longer ones only their hash is kept, with their beginning.
const MAX_KEY: usize = 4_096;
/// The arena can be addressed so far.
const MAX_ARENA: usize = u32::MAX as usize - 2 * MAX_KEY;

fn hash(key: &[u8]) -> u64 {
    FixedState::default().hash_one(key)
}

fn read(arena: &[u8], at: u32) -> &[u8] {
    let at = at as usize;
    let length = usize::from(u16::from_le_bytes([arena[at], arena[at + 1]]));
    &arena[at + 2..at + 2 + length]
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            map: HashTable::new(),
            entries: Vec::new(),
            free: Vec::new(),
            arena: Vec::new(),
            dead: 0,
        }
    }
}

impl<T> Table<T> {
    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    /// The entry of `key`, made by `make` if there is none; `None` if the table is full.
    pub(super) fn entry(&mut self, key: &[u8], make: impl FnOnce() -> T) -> Option<u32> {
        let short;
        let key = if key.len() <= MAX_KEY {
            key
        } else {
            let mut bytes = key[..MAX_KEY - 8].to_vec();
            bytes.extend(hash(key).to_le_bytes());
            short = bytes;
            &short
        };
        let code = hash(key);
        let (entries, arena) = (&self.entries, &self.arena);
        let same = |slot: &u32| {
            entries[*slot as usize].as_ref().is_some_and(|entry| read(arena, entry.at) == key)
        };
        if let Some(slot) = self.map.find(code, same) {
            return Some(*slot);
        }
        if self.arena.len() > MAX_ARENA {
            return None;
        }
        let at = u32::try_from(self.arena.len()).ok()?;
        // A quarter more at a time: doubling would leave a third of the memory unused.
        let length = key.len() + 2;
        if self.arena.capacity() - self.arena.len() < length {
            self.arena.reserve_exact(length + self.arena.len() / 4);
        }
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(16 + self.entries.len() / 4);
        }
        // At most `MAX_KEY`, which two bytes hold.
        self.arena.extend((key.len() as u16).to_le_bytes());
        self.arena.extend(key);
        let entry = Some(Entry { at, mark: false, value: make() });
        let slot = match self.free.pop() {
            Some(slot) => {
                self.entries[slot as usize] = entry;
                slot
            }
            None => {
                self.entries.push(entry);
                u32::try_from(self.entries.len() - 1).ok()?
            }
        };
        let (entries, arena) = (&self.entries, &self.arena);
        self.map.insert_unique(code, slot, |slot| {
            entries[*slot as usize].as_ref().map_or(0, |entry| hash(read(arena, entry.at)))
        });
        Some(slot)
    }

    /// The entry of `key`, if there is one.
    pub(super) fn find(&self, key: &[u8]) -> Option<u32> {
        let same = |slot: &u32| self.key(*slot) == key;
        self.map.find(hash(key), same).copied()
    }

    /// The entry `slot`, if it is still there.
    pub(super) fn get(&self, slot: u32) -> Option<&T> {
        self.entries.get(slot as usize)?.as_ref().map(|entry| &entry.value)
    }

    /// The entry `slot`, if it is still there.
    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.entries.get_mut(slot as usize)?.as_mut().map(|entry| &mut entry.value)
    }

    /// The mark of entry `slot`.
    pub(super) fn mark(&self, slot: u32) -> bool {
        matches!(self.entries.get(slot as usize), Some(Some(entry)) if entry.mark)
    }

    /// Sets the mark of entry `slot`, if it is still there.
    pub(super) fn set_mark(&mut self, slot: u32, mark: bool) {
        if let Some(Some(entry)) = self.entries.get_mut(slot as usize) {
            entry.mark = mark;
        }
    }

    /// The key of entry `slot`.
    pub(super) fn key(&self, slot: u32) -> &[u8] {
        match self.entries.get(slot as usize) {
            Some(Some(entry)) => read(&self.arena, entry.at),
            _ => &[],
        }
    }

    /// Takes entry `slot` out.
    pub(super) fn remove(&mut self, slot: u32) -> Option<T> {
        let code = hash(self.key(slot));
        let entry = self.entries.get_mut(slot as usize)?.take()?;
        if let Ok(found) = self.map.find_entry(code, |other| *other == slot) {
            found.remove();
        }
        self.dead += read(&self.arena, entry.at).len() + 2;
        self.free.push(slot);
        if self.dead > 1 << 16 && self.dead * 2 > self.arena.len() {
            self.compact();
        }
        Some(entry.value)
    }

    /// The numbers of all entries.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> + use<'_, T> {
        (0u32..).zip(&self.entries).filter(|(_, entry)| entry.is_some()).map(|(slot, _)| slot)
    }

    /// One past the greatest entry's number.
    pub(super) fn end(&self) -> u32 {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }

    /// Bytes of memory, without what the entries point to.
    pub(super) fn memory(&self) -> usize {
        // The map has a control byte an entry.
        self.map.capacity() * 5
            + self.entries.capacity() * size_of::<Option<Entry<T>>>()
            + self.arena.capacity()
            + self.free.capacity() * 4
    }

    fn compact(&mut self) {
        let mut arena = Vec::with_capacity(self.arena.len() - self.dead);
        for entry in self.entries.iter_mut().flatten() {
            let start = entry.at as usize;
            let end = start + 2 + read(&self.arena, entry.at).len();
            // No longer than the old arena, which could be addressed.
            entry.at = arena.len() as u32;
            arena.extend_from_slice(&self.arena[start..end]);
        }
        self.arena = arena;
        self.dead = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_map(
            steps in prop::collection::vec((any::<bool>(), "[ab]{0,3}", any::<u8>()), 0..200)
        ) {
            let (mut table, mut map) = (Table::default(), HashMap::new());
            for (insert, key, value) in steps {
                let key = key.into_bytes();
                let slot = table.entry(&key, || value).unwrap();
                let known = *map.entry(key.clone()).or_insert(value);
                prop_assert_eq!(table.get(slot), Some(&known));
                prop_assert_eq!(table.key(slot), &key);
                prop_assert_eq!(table.find(&key), Some(slot));
                if !insert {
                    prop_assert_eq!(table.remove(slot), map.remove(&key));
                    prop_assert_eq!(table.get(slot), None);
                }
                prop_assert_eq!(table.len(), map.len());
                prop_assert_eq!(table.slots().count(), map.len());
            }
        }
    }

    #[test]
    fn memory_is_given_back() {
        let mut table = Table::default();
        for round in 0..20u32 {
            let slots: Vec<u32> = (0..10_000u32)
                .map(|i| table.entry(format!("key {round} {i}").as_bytes(), || i).unwrap())
                .collect();
            for slot in slots {
                table.remove(slot);
            }
        }
        assert_eq!(table.len(), 0);
        assert!(table.memory() < 2_000_000, "{}", table.memory());
    }

    #[test]
    fn long_keys_stay_apart() {
        let mut table = Table::default();
        let (a, b) = (vec![1; 100_000], [vec![1; 99_999], vec![2]].concat());
        let (a, b) = (table.entry(&a, || 0).unwrap(), table.entry(&b, || 1).unwrap());
        assert_ne!(a, b);
    }
}
