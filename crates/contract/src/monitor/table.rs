//! Keys and what is known of each, in little memory: key bytes lie in pages of their own, entries in
//! others, and the hash table holds only the entries' numbers. Pages never move, so growing copies
//! nothing and leaves no holes behind.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;
use hashbrown::HashTable;

use super::key;

/// Entries by key.
#[derive(Debug)]
pub(super) struct Table<T> {
    map: HashTable<u32>,
    entries: Pages<T>,
    free: Vec<u32>,
    arena: Arena,
    /// Bytes of the arena that belong to no entry any more.
    dead: usize,
}

#[derive(Debug)]
struct Entry<T> {
    /// Where the key lies in the arena.
    at: u32,
    /// For the owner to remember something by.
    mark: bool,
    value: T,
}

/// Entries in a page.
const PAGE: usize = 512;
/// Bytes in a page of keys.
const ARENA_PAGE: usize = 1 << 16;
/// An address has 32 bits.
const MAX_PAGES: usize = (u32::MAX as usize + 1) / ARENA_PAGE;

fn hash(key: &[u8]) -> u64 {
    FixedState::default().hash_one(key)
}

/// Entries by number, in pages.
#[derive(Debug)]
struct Pages<T> {
    pages: Vec<Vec<Option<Entry<T>>>>,
}

impl<T> Pages<T> {
    fn len(&self) -> usize {
        match self.pages.split_last() {
            Some((last, full)) => full.len() * PAGE + last.len(),
            None => 0,
        }
    }

    fn push(&mut self, entry: Option<Entry<T>>) {
        match self.pages.last_mut().filter(|page| page.len() < PAGE) {
            Some(page) => page.push(entry),
            None => {
                let mut page = Vec::with_capacity(PAGE);
                page.push(entry);
                self.pages.push(page);
            }
        }
    }

    fn get(&self, slot: u32) -> Option<&Entry<T>> {
        self.pages.get(slot as usize / PAGE)?.get(slot as usize % PAGE)?.as_ref()
    }

    fn place(&mut self, slot: u32) -> Option<&mut Option<Entry<T>>> {
        self.pages.get_mut(slot as usize / PAGE)?.get_mut(slot as usize % PAGE)
    }

    fn get_mut(&mut self, slot: u32) -> Option<&mut Entry<T>> {
        self.place(slot)?.as_mut()
    }

    fn iter(&self) -> impl Iterator<Item = &Option<Entry<T>>> {
        self.pages.iter().flatten()
    }

    fn memory(&self) -> usize {
        self.pages.len() * (PAGE * size_of::<Option<Entry<T>>>() + size_of::<Vec<T>>())
    }
}

/// Keys in pages, each as two bytes of length and the key, whole within its page.
#[derive(Debug, Default)]
struct Arena {
    pages: Vec<Vec<u8>>,
}

impl Arena {
    /// Where the next key of `length` bytes goes; `None` if the addresses are used up.
    fn place(&mut self, length: usize) -> Option<u32> {
        let room = |page: &Vec<u8>| ARENA_PAGE - page.len() >= length + 2;
        if !self.pages.last().is_some_and(room) {
            if self.pages.len() >= MAX_PAGES {
                return None;
            }
            self.pages.push(Vec::with_capacity(ARENA_PAGE));
        }
        let offset = self.pages.last().map_or(0, Vec::len);
        u32::try_from((self.pages.len() - 1) * ARENA_PAGE + offset).ok()
    }

    fn push(&mut self, key: &[u8]) -> Option<u32> {
        let at = self.place(key.len())?;
        let page = self.pages.last_mut()?;
        // At most `key::MAX`, which two bytes hold.
        page.extend((key.len() as u16).to_le_bytes());
        page.extend(key);
        Some(at)
    }

    fn read(&self, at: u32) -> &[u8] {
        let (page, offset) = (at as usize / ARENA_PAGE, at as usize % ARENA_PAGE);
        let bytes = &self.pages[page][offset..];
        let length = usize::from(u16::from_le_bytes([bytes[0], bytes[1]]));
        &bytes[2..2 + length]
    }

    fn used(&self) -> usize {
        self.pages.iter().map(Vec::len).sum()
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            map: HashTable::new(),
            entries: Pages { pages: Vec::new() },
            free: Vec::new(),
            arena: Arena::default(),
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
        let key = &*key::fit(key);
        let code = hash(key);
        let (entries, arena) = (&self.entries, &self.arena);
        let same = |slot: &u32| entries.get(*slot).is_some_and(|entry| arena.read(entry.at) == key);
        if let Some(slot) = self.map.find(code, same) {
            return Some(*slot);
        }
        let at = self.arena.push(key)?;
        let entry = Some(Entry { at, mark: false, value: make() });
        let slot = match self.free.pop() {
            Some(slot) => {
                *self.entries.place(slot)? = entry;
                slot
            }
            None => {
                self.entries.push(entry);
                u32::try_from(self.entries.len() - 1).ok()?
            }
        };
        let (entries, arena) = (&self.entries, &self.arena);
        self.map.insert_unique(code, slot, |slot| {
            entries.get(*slot).map_or(0, |entry| hash(arena.read(entry.at)))
        });
        Some(slot)
    }

    /// The entry of `key`, if there is one.
    pub(super) fn find(&self, key: &[u8]) -> Option<u32> {
        let key = &*key::fit(key);
        let same = |slot: &u32| self.key(*slot) == key;
        self.map.find(hash(key), same).copied()
    }

    /// The entry `slot`, if it is still there.
    pub(super) fn get(&self, slot: u32) -> Option<&T> {
        self.entries.get(slot).map(|entry| &entry.value)
    }

    /// The entry `slot`, if it is still there.
    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.entries.get_mut(slot).map(|entry| &mut entry.value)
    }

    /// The mark of entry `slot`.
    pub(super) fn mark(&self, slot: u32) -> bool {
        self.entries.get(slot).is_some_and(|entry| entry.mark)
    }

    /// Sets the mark of entry `slot`, if it is still there.
    pub(super) fn set_mark(&mut self, slot: u32, mark: bool) {
        if let Some(entry) = self.entries.get_mut(slot) {
            entry.mark = mark;
        }
    }

    /// The key of entry `slot`.
    pub(super) fn key(&self, slot: u32) -> &[u8] {
        self.entries.get(slot).map_or(&[], |entry| self.arena.read(entry.at))
    }

    /// Takes entry `slot` out.
    pub(super) fn remove(&mut self, slot: u32) -> Option<T> {
        let code = hash(self.key(slot));
        let entry = self.entries.place(slot)?.take()?;
        if let Ok(found) = self.map.find_entry(code, |other| *other == slot) {
            found.remove();
        }
        self.dead += self.arena.read(entry.at).len() + 2;
        self.free.push(slot);
        if self.dead > ARENA_PAGE && self.dead * 2 > self.arena.used() {
            self.compact();
        }
        Some(entry.value)
    }

    /// The numbers of all entries.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> + use<'_, T> {
        (0u32..).zip(self.entries.iter()).filter(|(_, entry)| entry.is_some()).map(|(slot, _)| slot)
    }

    /// One past the greatest entry's number.
    pub(super) fn end(&self) -> u32 {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }

    /// Bytes of memory, without what the entries point to.
    pub(super) fn memory(&self) -> usize {
        // The map has a control byte a bucket, and an eighth more buckets than it may fill.
        self.map.capacity() * 8 / 7 * 5
            + self.entries.memory()
            + self.arena.pages.len() * (ARENA_PAGE + size_of::<Vec<u8>>())
            + self.free.capacity() * 4
    }

    fn compact(&mut self) {
        let mut arena = Arena::default();
        let live = self.entries.iter().flatten();
        let moved: Option<Vec<u32>> =
            live.map(|entry| arena.push(self.arena.read(entry.at))).collect();
        // Less than half of what could be addressed can be addressed.
        let Some(moved) = moved else { return };
        for (entry, at) in self.entries.pages.iter_mut().flatten().flatten().zip(moved) {
            entry.at = at;
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
        let long = |last: &str| {
            let mut bytes = Vec::new();
            key::push_text(&format!("{}{last}", "x".repeat(99_999)), &mut bytes);
            bytes
        };
        let (a, b) = (long("a"), long("b"));
        let slots = (table.entry(&a, || 0).unwrap(), table.entry(&b, || 1).unwrap());
        assert_ne!(slots.0, slots.1);
        assert_eq!((table.find(&a), table.find(&b)), (Some(slots.0), Some(slots.1)));
    }
}
