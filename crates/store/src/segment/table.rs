//! A hash table on disk: from a 64-bit hash to runs of rows or pages, one read a look-up.
//!
//! Entries are sorted by hash and cut into blocks by the hash's leading bits, so the place of a
//! block follows from the hash and a small array of offsets. Within a block, entries keep the 14
//! bits of the hash after those; the caller verifies what it finds. One look-up in three hundred
//! names a record of another hash: more bits would cost more, in every entry, than that.
//!
//! A segment has about one entry a row, most of them of one page, so bits count: hashes are kept by
//! their differences, some 9.5 bits each, and the number of a page takes as many as there are pages.

use std::ops::Range;
use std::sync::Arc;

use super::bits::{BitReader, BitWriter};
use crate::error::StoreError;
use crate::files::ReadFile;

/// Entries that a block holds on average.
const BLOCK_ENTRIES: usize = 64;
/// Bits of a hash that an entry has beyond those that name its block.
const TAG_BITS: u32 = 14;
/// Order of the code of a gap between two runs.
const GAP_ORDER: u32 = 3;

/// How the runs of a table are laid down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Bits of where a run begins.
    width: u32,
    /// Order of the code of a run's length.
    order: u32,
}

impl Shape {
    /// Runs of a trace's rows, among `rows`.
    pub fn of_rows(rows: u32) -> Self {
        Self { width: u32::BITS - rows.saturating_sub(1).leading_zeros(), order: 2 }
    }

    /// Runs of pages that have a value, among `pages`.
    pub fn of_pages(pages: u32) -> Self {
        Self { order: 0, ..Self::of_rows(pages) }
    }

    /// Writes ascending `runs`, between any two of which there is a gap; none of them: everything.
    fn put(self, bits: &mut BitWriter, runs: &[Range<u32>]) {
        let mut end = 0;
        bits.put(u32::from(runs.len() != 1), 1);
        if runs.len() != 1 {
            bits.put_exp((runs.len() as u32).saturating_sub(1), 0);
        }
        for (number, run) in runs.iter().enumerate() {
            match (runs.len(), number) {
                (1, _) => bits.put(run.start, self.width),
                (_, 0) => bits.put_exp(run.start, GAP_ORDER),
                _ => bits.put_exp(run.start - end - 1, GAP_ORDER),
            }
            bits.put_exp(run.end - run.start - 1, self.order);
            end = run.end;
        }
    }

    /// Reads what [`Self::put`] wrote to `runs`.
    fn take(self, bits: &mut BitReader<'_>, runs: &mut Vec<Range<u32>>) -> Option<()> {
        runs.clear();
        let one = bits.get(1)? == 0;
        let more = if one { 0 } else { bits.get_exp(0)? };
        if !one && more == 0 {
            return Some(());
        }
        let mut end = 0u32;
        for number in 0..=more {
            let start = match (one, number) {
                (true, _) => bits.get(self.width)?,
                (_, 0) => bits.get_exp(GAP_ORDER)?,
                _ => end.checked_add(bits.get_exp(GAP_ORDER)?)?.checked_add(1)?,
            };
            end = start.checked_add(bits.get_exp(self.order)?)?.checked_add(1)?;
            runs.push(start..end);
        }
        Some(())
    }
}

/// The bits of a difference of two tags that are written as they are, in a block of `entries`.
fn tag_low(entries: usize) -> u32 {
    TAG_BITS.saturating_sub(entries.max(1).ilog2())
}

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
    shape: Shape,
    built: Built,
    /// Of the block being built.
    tags: Vec<u16>,
    records: BitWriter,
}

impl Builder {
    /// A table that will have about `entries` entries.
    pub fn new(entries: usize, shape: Shape) -> Self {
        Self {
            bits: block_bits(entries),
            shape,
            built: Built { bytes: Vec::new(), offsets: vec![0] },
            tags: Vec::new(),
            records: BitWriter::default(),
        }
    }

    /// Adds an entry: ascending `runs` that do not touch, or none for everything. Hashes come in
    /// ascending order.
    pub fn push(&mut self, hash: u64, runs: &[Range<u32>]) {
        self.close_until(hash.checked_shr(64 - self.bits).unwrap_or(0) as usize);
        self.tags.push(tag(hash, self.bits));
        self.shape.put(&mut self.records, runs);
    }

    /// The table.
    pub fn finish(mut self) -> Built {
        self.close_until(1 << self.bits);
        self.built
    }

    /// Ends all blocks before `block`.
    fn close_until(&mut self, block: usize) {
        while self.built.offsets.len() <= block {
            if !self.tags.is_empty() {
                self.close();
            }
            self.built.offsets.push(self.built.bytes.len() as u32);
        }
    }

    /// Writes the block that was gathered.
    fn close(&mut self) {
        let out = &mut self.built.bytes;
        let start = out.len();
        put_varint(out, self.tags.len() as u64);
        let (low, mut last) = (tag_low(self.tags.len()), 0);
        let mut bits = BitWriter::default();
        for tag in self.tags.drain(..) {
            bits.put_rice(u32::from(tag - last), low);
            last = tag;
        }
        out.extend_from_slice(&bits.take());
        out.extend_from_slice(&self.records.take());
        let crc = crc32fast::hash(&out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
    }
}

fn tag(hash: u64, bits: u32) -> u16 {
    (hash << bits >> (u64::BITS - TAG_BITS)) as u16
}

/// A table in a file.
#[derive(Clone)]
pub struct Table {
    file: Arc<dyn ReadFile>,
    start: u64,
    offsets: Arc<[u32]>,
    shape: Shape,
}

impl Table {
    /// The table whose blocks begin at `start` of `file`.
    pub fn new(file: Arc<dyn ReadFile>, start: u64, offsets: Vec<u32>, shape: Shape) -> Self {
        Self { file, start, offsets: Arc::from(offsets), shape }
    }

    /// Gives the runs of `hash` to `each` (those of others with the same bits too); none:
    /// everything.
    ///
    /// # Errors
    /// The block cannot be read, or its checksum does not match: a description.
    pub fn lookup(&self, hash: u64, mut each: impl FnMut(&[Range<u32>])) -> Result<(), String> {
        let blocks = self.offsets.len().saturating_sub(1).max(1);
        let bits = blocks.ilog2();
        let number = hash.checked_shr(64 - bits).unwrap_or(0) as usize;
        let Some(block) = self.block(number)? else { return Ok(()) };
        find(&block, tag(hash, bits), self.shape, &mut each)
            .ok_or_else(|| "an index block is not readable".to_owned())
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

/// Gives the runs of the entries of `block` that have the tag `wanted` to `each`.
fn find(
    mut block: &[u8],
    wanted: u16,
    shape: Shape,
    each: &mut impl FnMut(&[Range<u32>]),
) -> Option<()> {
    let entries = usize::try_from(take_varint(&mut block)?).ok()?;
    let (low, wanted) = (tag_low(entries), u32::from(wanted));
    let mut tags = BitReader::new(block);
    let (mut tag, mut found) = (0u32, 0..0);
    for number in 0..entries {
        tag = tag.checked_add(tags.get_rice(low)?)?;
        if tag < wanted {
            found = number + 1..number + 1;
        } else if tag == wanted {
            found.end = number + 1;
        }
    }
    if found.is_empty() {
        return Some(());
    }
    let (mut records, mut runs) = (BitReader::new(tags.rest()), Vec::new());
    for number in 0..found.end {
        shape.take(&mut records, &mut runs)?;
        if number >= found.start {
            each(&runs);
        }
    }
    Some(())
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
        fn finds_what_is_in_it(
            seeds in proptest::collection::btree_map(
                any::<u32>(), proptest::collection::btree_set(0u32..5000, 0..9), 0..600),
            rows: bool,
        ) {
            let mut entries: Vec<(u64, Vec<Range<u32>>)> = seeds.iter()
                .map(|(seed, numbers)| {
                    let mut runs: Vec<Range<u32>> = Vec::new();
                    for number in numbers {
                        // Some lie side by side, some make long runs.
                        let number = number / 3 * 4;
                        let end = number + 1 + number % 7 / 2;
                        match runs.last_mut() {
                            Some(last) if last.end >= number => last.end = end.max(last.end),
                            _ => runs.push(number..end),
                        }
                    }
                    (crate::trace_index::mix(u64::from(*seed) + 1), runs)
                })
                .collect();
            entries.sort_by_key(|(hash, _)| *hash);
            let shape = if rows { Shape::of_rows(8000) } else { Shape::of_pages(8000) };
            let mut builder = Builder::new(entries.len(), shape);
            entries.iter().for_each(|(hash, record)| builder.push(*hash, record));
            let built = builder.finish();
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("t");
            std::fs::write(&path, [&b"head"[..], &built.bytes].concat()).unwrap();
            let table = Table::new(OsFiles.open(&path).unwrap(), 4, built.offsets, shape);
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

        #[test]
        fn noise_never_panics(
            bytes in proptest::collection::vec(any::<u8>(), 0..60), tag: u16, rows: u32,
        ) {
            let _ = find(&bytes, tag, Shape::of_rows(rows), &mut |_| {});
        }
    }
}
