//! From a trace id to the rows of its trace, within one chunk of memory.

use arrow::array::Array;
use lacuna_signal::schema::TRACE_ID;
use lacuna_signal::{Batch, TraceId};

use crate::rows::RowSet;

/// A well-mixed hash of a trace id. Ids are random by W3C's rules, but not everybody keeps them,
/// and 64-bit ids have zeros in front.
pub fn trace_hash(id: &[u8]) -> u64 {
    let half = |at: usize| {
        id.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
    };
    mix(half(0) ^ half(8).rotate_left(32))
}

/// The finaliser of SplitMix64 (Steele et al., 2014): every bit depends on every bit.
pub fn mix(mut x: u64) -> u64 {
    x ^= x >> 30;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 27;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Rows sorted by the hash of their trace id.
#[derive(Debug)]
pub struct TraceIndex {
    hashes: Vec<u64>,
    rows: Vec<u32>,
}

impl TraceIndex {
    /// Indexes all rows of `batch` that have a trace id.
    pub fn new(batch: &Batch) -> Self {
        let mut pairs: Vec<(u64, u32)> = Vec::new();
        if let Some(ids) = batch.id_column(TRACE_ID) {
            let rows = (0..ids.len()).filter(|row| ids.is_valid(*row));
            pairs = rows.map(|row| (trace_hash(ids.value(row)), row as u32)).collect();
            pairs.sort_unstable();
        }
        Self {
            hashes: pairs.iter().map(|pair| pair.0).collect(),
            rows: pairs.iter().map(|pair| pair.1).collect(),
        }
    }

    /// Bytes of memory.
    pub fn footprint(&self) -> usize {
        self.hashes.capacity() * 8 + self.rows.capacity() * 4
    }

    /// Rows whose trace id has the hash of `id`: those of the trace, rarely a few more.
    pub fn lookup(&self, id: TraceId) -> RowSet {
        let hash = trace_hash(&id.0);
        let from = self.hashes.partition_point(|h| *h < hash);
        let mut set = RowSet::default();
        let equal = self.hashes[from..].iter().take_while(|h| **h == hash).count();
        for row in &self.rows[from..from + equal] {
            set.push(*row..*row + 1);
        }
        set
    }
}

/// Rows of `batch` in trace `id`, by looking at every row.
pub fn scan_trace(batch: &Batch, id: TraceId) -> RowSet {
    let mut set = RowSet::default();
    if let Some(ids) = batch.id_column(TRACE_ID) {
        for row in (0..ids.len()).filter(|row| ids.is_valid(*row) && ids.value(*row) == id.0) {
            set.push(row as u32..row as u32 + 1);
        }
    }
    set
}
