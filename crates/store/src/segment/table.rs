//! A hash table on disk: from a 64-bit hash to a short record, one read a look-up.
//!
//! Entries are sorted by hash and cut into blocks by the hash's leading bits, so the place of a
//! block follows from the hash and a small array of offsets. Within a block, entries keep the 16
//! bits of the hash after those; the caller verifies what it finds. One look-up in a thousand names
//! a record of another hash: sixteen more bits would cost more, in every entry, than that.

use std::sync::Arc;

use crate::error::StoreError;
use crate::files::ReadFile;

/// Entries that a block holds on average.
const BLOCK_ENTRIES: usize = 64;

/// Appends `value` in LEB128.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads LEB128 from the front of `bytes`.
pub fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Leading bits of a hash that choose the block, for a table of `entries`.
fn block_bits(entries: usize) -> u32 {
    (entries / BLOCK_ENTRIES).next_power_of_two().ilog2().min(24)
}

/// The blocks of a table, and where they end.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Built {
    /// All blocks. Each ends in a CRC-32 of its entries.
    pub bytes: Vec<u8>,
    /// Where each block begins, and the end of the last.
    pub offsets: Vec<u32>,
}

/// A table being built.
#[derive(Debug)]
pub struct Builder {
    bits: u32,
    built: Built,
    /// Where the block being built begins.
    start: usize,
}

impl Builder {
    /// A table that will have about `entries` entries.
    pub fn new(entries: usize) -> Self {
        Self {
            bits: block_bits(entries),
            built: Built { bytes: Vec::new(), offsets: vec![0] },
            start: 0,
        }
    }

    /// Adds an entry. Hashes come in ascending order.
    pub fn push(&mut self, hash: u64, record: &[u8]) {
        self.close_until(hash.checked_shr(64 - self.bits).unwrap_or(0) as usize);
        let bytes = &mut self.built.bytes;
        bytes.extend_from_slice(&tag(hash, self.bits).to_le_bytes());
        put_varint(bytes, record.len() as u64);
        bytes.extend_from_slice(record);
    }

    /// The table.
    pub fn finish(mut self) -> Built {
        self.close_until(1 << self.bits);
        self.built
    }

    /// Ends all blocks before `block`.
    fn close_until(&mut self, block: usize) {
        let built = &mut self.built;
        while built.offsets.len() <= block {
            let entries = &built.bytes[self.start..];
            if !entries.is_empty() {
                let crc = crc32fast::hash(entries);
                built.bytes.extend_from_slice(&crc.to_le_bytes());
            }
            self.start = built.bytes.len();
            built.offsets.push(self.start as u32);
        }
    }
}

fn tag(hash: u64, bits: u32) -> u16 {
    (hash << bits >> 48) as u16
}

/// A table in a file.
#[derive(Clone)]
pub struct Table {
    file: Arc<dyn ReadFile>,
    start: u64,
    offsets: Arc<[u32]>,
}

impl Table {
    /// The table whose blocks begin at `start` of `file`.
    pub fn new(file: Arc<dyn ReadFile>, start: u64, offsets: Vec<u32>) -> Self {
        Self { file, start, offsets: Arc::from(offsets) }
    }

    /// Gives the records of `hash` to `each` (others with the same bits too).
    ///
    /// # Errors
    /// The block cannot be read, or its checksum does not match: a description.
    pub fn lookup(&self, hash: u64, mut each: impl FnMut(&[u8])) -> Result<(), String> {
        let blocks = self.offsets.len().saturating_sub(1).max(1);
        let bits = blocks.ilog2();
        let number = hash.checked_shr(64 - bits).unwrap_or(0) as usize;
        let Some(block) = self.block(number)? else { return Ok(()) };
        let wanted = tag(hash, bits);
        let mut rest = block.as_slice();
        while let Some((tag, after)) = rest.split_first_chunk::<2>() {
            rest = after;
            let len = take_varint(&mut rest).unwrap_or(u64::MAX);
            let Some((record, after)) =
                usize::try_from(len).ok().and_then(|l| rest.split_at_checked(l))
            else {
                return Err("an index entry is longer than its block".to_owned());
            };
            rest = after;
            let tag = u16::from_le_bytes(*tag);
            if tag == wanted {
                each(record);
            } else if tag > wanted {
                break;
            }
        }
        Ok(())
    }

    /// Reads every block; what is wrong with those that are damaged.
    pub fn verify(&self) -> Vec<String> {
        let blocks = self.offsets.len().saturating_sub(1);
        (0..blocks).filter_map(|number| self.block(number).err()).collect()
    }

    fn block(&self, number: usize) -> Result<Option<Vec<u8>>, String> {
        let (Some(from), Some(to)) = (self.offsets.get(number), self.offsets.get(number + 1))
        else {
            return Ok(None);
        };
        if to <= from {
            return Ok(None);
        }
        let mut block = vec![0; (to - from) as usize];
        let at = self.start + u64::from(*from);
        self.file
            .read_at(&mut block, at)
            .map_err(|error| format!("cannot read the index block at {at}: {error}"))?;
        let crc = block.split_off(block.len().saturating_sub(4));
        if crc != crc32fast::hash(&block).to_le_bytes() {
            return Err(format!("the checksum of the index block at {at} does not match"));
        }
        Ok(Some(block))
    }
}

/// Turns a table's description of damage into an error about file `path`.
pub fn damaged(path: &std::path::Path) -> impl Fn(String) -> StoreError + '_ {
    move |detail| StoreError::corrupt(path, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{Files, OsFiles};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_read_back(value: u64) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut rest = bytes.as_slice();
            prop_assert_eq!(take_varint(&mut rest), Some(value));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn finds_what_is_in_it(seeds in proptest::collection::btree_set(any::<u32>(), 0..600)) {
            let mut entries: Vec<(u64, Vec<u8>)> = seeds.iter()
                .map(|s| (crate::trace_index::mix(u64::from(*s) + 1), s.to_le_bytes().to_vec()))
                .collect();
            entries.sort();
            let mut builder = Builder::new(entries.len());
            entries.iter().for_each(|(hash, record)| builder.push(*hash, record));
            let built = builder.finish();
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("t");
            std::fs::write(&path, [&b"head"[..], &built.bytes].concat()).unwrap();
            let table = Table::new(OsFiles.open(&path).unwrap(), 4, built.offsets);
            for (hash, record) in &entries {
                let mut found = Vec::new();
                table.lookup(*hash, |r| found.push(r.to_vec())).unwrap();
                prop_assert!(found.contains(record));
            }
            // Others with the same bits are given too, but not many.
            let absent = |n: u64| (0..1000).map(move |i| crate::trace_index::mix(u64::MAX - n * 1000 - i));
            let mut found = 0;
            absent(1).for_each(|hash| table.lookup(hash, |_| found += 1).unwrap());
            prop_assert!(found < 30, "{found} of 1000");
            prop_assert!(table.verify().is_empty());
        }
    }
}
