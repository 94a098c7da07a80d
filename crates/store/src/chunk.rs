//! Rows in memory: a batch with its time bounds, and indexes once it is large enough.

use std::sync::{Arc, OnceLock};

use arrow::datatypes::TimestampNanosecondType;
use lacuna_signal::{Batch, TraceId};

use crate::bounds::TimeBounds;
use crate::compact::footprint;
use crate::rows::RowSet;
use crate::summary::Summary;
use crate::trace_index::{TraceIndex, scan_trace};

/// A chunk with this many rows is not joined with others any more.
pub const FULL_ROWS: usize = 16 * 1024;

/// Immutable rows of one kind in memory.
#[derive(Debug)]
pub struct Chunk {
    batch: Batch,
    bounds: TimeBounds,
    bytes: usize,
    traces: Option<TraceIndex>,
    summary: OnceLock<Arc<Summary>>,
}

impl Chunk {
    /// Rows as they came; they keep the request's body alive. `None` if there are none.
    pub fn received(batch: Batch) -> Option<Self> {
        let bounds = time_bounds(&batch)?;
        let bytes = footprint(&batch);
        Some(Self { batch, bounds, bytes, traces: None, summary: OnceLock::new() })
    }

    /// Rows copied out of their requests, with an index of traces.
    pub fn compacted(batch: Batch) -> Option<Self> {
        let traces = TraceIndex::new(&batch);
        let mut chunk = Self::received(batch)?;
        chunk.bytes += traces.footprint();
        chunk.traces = Some(traces);
        Some(chunk)
    }

    /// The rows.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Their least and greatest time.
    pub fn bounds(&self) -> TimeBounds {
        self.bounds
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the rows own their memory.
    pub fn is_compacted(&self) -> bool {
        self.traces.is_some()
    }

    /// Rows of trace `id`; possibly a few more.
    pub fn trace_rows(&self, id: TraceId) -> RowSet {
        match &self.traces {
            Some(index) => index.lookup(id),
            None => scan_trace(&self.batch, id),
        }
    }

    /// What the rows are about, found out at the first call.
    pub fn summary(&self) -> &Arc<Summary> {
        self.summary.get_or_init(|| Arc::new(Summary::of(&self.batch)))
    }
}

/// The bounds of the time column of `batch`.
pub fn time_bounds(batch: &Batch) -> Option<TimeBounds> {
    if batch.num_rows() == 0 {
        return None;
    }
    let times = batch.number_column::<TimestampNanosecondType>(batch.kind().time_column());
    Some(match times {
        Some(times) => TimeBounds::of(times.values().iter().copied())?,
        // Rows without a time read as the epoch, as everywhere.
        None => TimeBounds { min: 0, max: 0 },
    })
}
