//! Reading pages that lie near each other at once.

use bytes::Bytes;

use crate::error::StoreError;
use crate::segment::blocks::BlockFile;

/// Bytes in between that are rather read than left out: to ask the system again costs as much.
const GAP: u64 = 8 << 10;
/// Bytes that are read at once, at most.
const MOST: u64 = 4 << 20;

/// Bytes of a file.
pub struct Fetched<'a> {
    file: &'a BlockFile,
    /// Where each piece begins, ascending.
    pieces: Vec<(u64, Bytes)>,
}

impl<'a> Fetched<'a> {
    /// Reads all `wanted` (start, length). What is damaged is told by [`Self::get`].
    pub fn read(file: &'a BlockFile, mut wanted: Vec<(u64, usize)>) -> Result<Self, StoreError> {
        wanted.sort_unstable();
        let mut joined: Vec<(u64, u64)> = Vec::new();
        for (start, len) in wanted {
            let end = start.saturating_add(len as u64);
            match joined.last_mut() {
                Some((first, last))
                    if start <= last.saturating_add(GAP) && end.saturating_sub(*first) <= MOST =>
                {
                    *last = end.max(*last);
                }
                _ => joined.push((start, end)),
            }
        }
        if joined.len() > 1 {
            let pieces: Vec<(u64, u64)> =
                joined.iter().map(|(start, end)| (*start, end - start)).collect();
            file.will_read(&pieces);
        }
        let mut pieces = Vec::with_capacity(joined.len());
        for (start, end) in joined {
            match file.read(start, (end - start) as usize) {
                Ok(bytes) => pieces.push((start, bytes)),
                // Perhaps in between: what is asked for is then read by itself.
                Err(StoreError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { file, pieces })
    }

    /// The file.
    pub fn file(&self) -> &'a BlockFile {
        self.file
    }

    /// `len` bytes from `start` on, from what was read or from the file.
    pub fn get(&self, start: u64, len: usize) -> Result<Bytes, StoreError> {
        let after = self.pieces.partition_point(|(first, _)| *first <= start);
        if let Some((first, bytes)) = after.checked_sub(1).and_then(|i| self.pieces.get(i)) {
            let at = (start - first) as usize;
            if at.checked_add(len).is_some_and(|end| end <= bytes.len()) {
                return Ok(bytes.slice(at..at + len));
            }
        }
        self.file.read(start, len)
    }
}
