//! From a trace id to the rows of its trace, within one chunk of memory.

use arrow::array::{Array, AsArray};
use lacuna_signal::schema::TRACE_ID;
use lacuna_signal::{Batch, TraceId};

use crate::packed::{Column, rows_of};
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

/// The traces of packed rows, by the hash of their id.
#[derive(Debug)]
pub struct TraceIndex {
    hashes: Vec<u64>,
    /// For each hash the position of the id: a row, or the code of rows.
    positions: Vec<u32>,
}

impl TraceIndex {
    /// Indexes the ids in `column`.
    pub fn new(column: Option<&Column>) -> Self {
        let mut pairs: Vec<(u64, u32)> = Vec::new();
        let ids = column.map(|column| match column {
            Column::Plain(ids) | Column::Coded { values: ids, .. } => ids,
        });
        if let Some(ids) = ids.and_then(|ids| ids.as_fixed_size_binary_opt()) {
            let known = (0..ids.len()).filter(|at| ids.is_valid(*at));
            pairs = known.map(|at| (trace_hash(ids.value(at)), at as u32)).collect();
            pairs.sort_unstable();
        }
        Self {
            hashes: pairs.iter().map(|pair| pair.0).collect(),
            positions: pairs.iter().map(|pair| pair.1).collect(),
        }
    }

    /// Bytes of memory.
    pub fn footprint(&self) -> usize {
        self.hashes.capacity() * 8 + self.positions.capacity() * 4
    }

    /// Rows whose trace id has the hash of `id`: those of the trace, rarely a few more. `column` is
    /// the one that was indexed.
    pub fn lookup(&self, id: TraceId, column: Option<&Column>) -> RowSet {
        let hash = trace_hash(&id.0);
        let from = self.hashes.partition_point(|h| *h < hash);
        let equal = self.hashes[from..].iter().take_while(|h| **h == hash).count();
        let mut set = RowSet::default();
        for position in &self.positions[from..from + equal] {
            match column {
                Some(Column::Coded { codes, .. }) => {
                    set = set.or(&rows_of(codes, *position as usize));
                }
                _ => set.push(*position..*position + 1),
            }
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
