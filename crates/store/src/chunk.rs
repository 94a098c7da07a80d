//! Rows in memory: a batch with its time bounds, and indexes once it is large enough.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::{SchemaRef, TimestampNanosecondType};
use lacuna_signal::schema::TRACE_ID;
use lacuna_signal::{Batch, SignalKind, TraceId};

use crate::bounds::TimeBounds;
use crate::error::StoreError;
use crate::packed::{Packed, Stored, footprint};
use crate::rows::RowSet;
use crate::summary::Summary;
use crate::trace_index::{TraceIndex, scan_trace};

/// A chunk with this many rows is not joined with others any more.
pub const FULL_ROWS: usize = 8 * 1024;
/// One that came with this many rows is not either: what joining saves is little, and all its values
/// would have to be told apart anew. Exporters cut requests at about 8,192 rows, some a few below.
pub const LARGE_ROWS: usize = FULL_ROWS / 4 * 3;

/// The rows of a chunk.
#[derive(Debug)]
pub enum Rows {
    /// As they came; they keep the request's body alive.
    Received(Batch),
    /// In memory of their own, with an index of traces.
    Packed(Packed, TraceIndex),
}

/// Immutable rows of one kind in memory.
#[derive(Debug)]
pub struct Chunk {
    rows: Rows,
    bounds: TimeBounds,
    bytes: usize,
    frames: Range<u64>,
    summary: OnceLock<Arc<Summary>>,
}

impl Chunk {
    /// Rows as they came. `None` if there are none. They are not in the log yet: see
    /// [`Self::logged`].
    pub fn received(batch: Batch) -> Option<Self> {
        let bounds = time_bounds(&batch)?;
        let bytes = footprint(&batch);
        let (rows, frames) = (Rows::Received(batch), 0..u64::MAX);
        Some(Self { rows, bounds, bytes, frames, summary: OnceLock::new() })
    }

    /// Says which log frames the rows are in.
    pub fn logged(mut self, frames: Range<u64>) -> Self {
        self.frames = frames;
        self
    }

    /// From the first log frame that holds any of the rows to one past the last.
    pub fn frames(&self) -> Range<u64> {
        self.frames.clone()
    }

    /// The rows of `chunks` packed, in order. `None` if there are none.
    pub fn pack<'a>(
        chunks: impl IntoIterator<Item = &'a Self>,
    ) -> Result<Option<Self>, StoreError> {
        let (mut parts, mut bounds) = (Vec::new(), None::<TimeBounds>);
        let (mut first, mut end) = (u64::MAX, 0);
        for chunk in chunks {
            let columns = match &chunk.rows {
                Rows::Received(batch) => Cow::Owned(batch.stored_columns()),
                Rows::Packed(packed, _) => Cow::Borrowed(packed.columns()),
            };
            parts.push((chunk, columns));
            (first, end) = (first.min(chunk.frames.start), end.max(chunk.frames.end));
            bounds = Some(bounds.map_or(chunk.bounds, |bounds| bounds.join(chunk.bounds)));
        }
        let (Some((chunk, _)), Some(bounds)) = (parts.first(), bounds) else { return Ok(None) };
        let stored: Vec<Stored<'_>> = parts
            .iter()
            .map(|(chunk, columns)| Stored {
                schema: chunk.schema(),
                rows: chunk.num_rows(),
                columns,
                tried: matches!(&chunk.rows, Rows::Received(batch) if batch.is_coded()),
            })
            .collect();
        let packed = Packed::join(chunk.kind(), &stored)?;
        let traces = TraceIndex::new(packed.column(TRACE_ID));
        let bytes = packed.footprint() + traces.footprint();
        let rows = Rows::Packed(packed, traces);
        Ok(Some(Self { rows, bounds, bytes, frames: first..end, summary: OnceLock::new() }))
    }

    /// The rows, as they are kept.
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// Number of rows.
    pub fn num_rows(&self) -> usize {
        match &self.rows {
            Rows::Received(batch) => batch.num_rows(),
            Rows::Packed(packed, _) => packed.num_rows(),
        }
    }

    /// The kind of signal.
    pub fn kind(&self) -> SignalKind {
        match &self.rows {
            Rows::Received(batch) => batch.kind(),
            Rows::Packed(packed, _) => packed.kind(),
        }
    }

    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        match &self.rows {
            Rows::Received(batch) => batch.schema(),
            Rows::Packed(packed, _) => packed.schema(),
        }
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
    pub fn is_packed(&self) -> bool {
        matches!(self.rows, Rows::Packed(..))
    }

    /// Rows of trace `id`; possibly a few more.
    pub fn trace_rows(&self, id: TraceId) -> RowSet {
        match &self.rows {
            Rows::Received(batch) => scan_trace(batch, id),
            Rows::Packed(packed, index) => index.lookup(id, packed.column(TRACE_ID)),
        }
    }

    /// What the rows are about, found out at the first call.
    pub fn summary(&self) -> Result<&Arc<Summary>, StoreError> {
        if let Some(summary) = self.summary.get() {
            return Ok(summary);
        }
        let summary = match &self.rows {
            Rows::Received(batch) => match Packed::of(std::slice::from_ref(batch))? {
                Some(packed) => Summary::of(&packed)?,
                None => Summary::default(),
            },
            Rows::Packed(packed, _) => Summary::of(packed)?,
        };
        Ok(self.summary.get_or_init(|| Arc::new(summary)))
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
