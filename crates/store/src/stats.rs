//! How much there is, and where.

use std::sync::atomic::Ordering;

use lacuna_signal::SignalKind;

use crate::bounds::TimeBounds;
use crate::store::Store;

/// Signals of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct KindStats {
    /// The kind.
    pub kind: SignalKind,
    /// Rows in memory.
    pub memory_rows: u64,
    /// Batches that they are in.
    pub memory_chunks: u64,
    /// Rows in segments.
    pub segment_rows: u64,
    /// Segments.
    pub segments: u64,
    /// Times of the oldest and newest row; `None` without rows.
    pub bounds: Option<TimeBounds>,
}

/// How much the store holds.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// By kind.
    pub kinds: [KindStats; 3],
    /// Bytes of rows in memory.
    pub memory_bytes: u64,
    /// Bytes of requests that wait for the disk.
    pub queue_bytes: u64,
    /// Bytes of the log.
    pub wal_bytes: u64,
    /// Bytes of segments and their side indexes.
    pub segment_bytes: u64,
}

impl Store {
    /// How much the store holds now.
    pub fn stats(&self) -> Stats {
        let shared = self.shared();
        let state = shared.state.read();
        let kinds = SignalKind::ALL.map(|kind| {
            let table = state.table(kind);
            let parts = table.parts();
            KindStats {
                kind,
                memory_rows: table.chunks().map(|chunk| chunk.num_rows() as u64).sum(),
                memory_chunks: table.chunks().count() as u64,
                segment_rows: table.segments.iter().map(|part| u64::from(part.meta().rows)).sum(),
                segments: table.segments.len() as u64,
                bounds: parts.iter().map(|part| part.bounds()).reduce(TimeBounds::join),
            }
        });
        Stats {
            kinds,
            memory_bytes: shared.memory_bytes.load(Ordering::Relaxed) as u64,
            queue_bytes: shared.queue.bytes() as u64,
            wal_bytes: shared.wal_bytes.load(Ordering::Relaxed),
            segment_bytes: shared.segment_bytes.load(Ordering::Relaxed),
        }
    }
}
