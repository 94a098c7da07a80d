//! One trace: its spans, and its logs.

use lacuna_signal::schema::TRACE_ID;
use lacuna_signal::{Batch, SignalKind, TraceId};

use super::newest::sort_by_time;
use super::plan::Reader;
use crate::bounds::{Found, TimeRange};
use crate::error::StoreError;
use crate::lookup::Lookup;
use crate::part::{Filter, Want};
use crate::question::Charge;
use crate::store::Store;

impl Store {
    /// The spans of trace `id`, by start, then by span id, name, kind and duration; with a range,
    /// those that start in it. At most [`Options::trace_rows`](crate::Options::trace_rows), the oldest.
    pub fn trace(&self, id: TraceId, range: Option<TimeRange>) -> Result<Found<Batch>, StoreError> {
        let mut charge = self.charge();
        let found = self.spans_of_trace(id, range, &mut charge)?;
        charge.keep();
        Ok(found)
    }

    /// The same, counted in `charge`.
    pub(super) fn spans_of_trace(
        &self,
        id: TraceId,
        range: Option<TimeRange>,
        charge: &mut Charge<'_>,
    ) -> Result<Found<Batch>, StoreError> {
        let limit = self.shared().options.trace_rows;
        self.rows_of_trace(SignalKind::Spans, id, range, limit, charge)
    }

    /// The logs of trace `id`, by time, at most `limit`, the oldest; with a range, those in it.
    pub fn logs_of_trace(
        &self,
        id: TraceId,
        range: Option<TimeRange>,
        limit: usize,
    ) -> Result<Found<Batch>, StoreError> {
        let mut charge = self.charge();
        let found = self.rows_of_trace(SignalKind::Logs, id, range, limit, &mut charge)?;
        charge.keep();
        Ok(found)
    }

    fn rows_of_trace(
        &self,
        kind: SignalKind,
        id: TraceId,
        range: Option<TimeRange>,
        mut limit: usize,
        charge: &mut Charge<'_>,
    ) -> Result<Found<Batch>, StoreError> {
        let range = range.unwrap_or(TimeRange::ALL);
        let mut reader = Reader::new(self.shared(), kind, range);
        let lookup = Lookup { trace: Some(id), ..Lookup::default() };
        let mut planned = reader.plan(&lookup, range)?;
        planned.sort_by_key(|planned| planned.bounds.min);
        let filter = Filter { range, selector: None };
        let (mut batches, mut rows, mut cut) = (Vec::new(), 0usize, false);
        for planned in &planned {
            // Far more rows than are asked for need not be read to know which are the oldest.
            if rows > limit.saturating_mul(2) && !batches.is_empty() {
                batches = vec![sort_by_time(kind, &batches, false, limit)?];
                rows = batches.iter().map(Batch::num_rows).sum();
                cut = true;
            }
            for batch in reader.read(planned, Want::All, filter)? {
                let batch = only_trace(&batch, id)?;
                rows += batch.num_rows();
                if batch.num_rows() > 0 {
                    batches.push(batch);
                }
            }
            if !charge.set(batches.iter().map(Batch::memory_size).sum()) {
                let sorted = sort_by_time(kind, &batches, false, limit)?;
                let wanted = sorted.num_rows();
                let kept = charge.fit(sorted)?;
                if kept.num_rows() < wanted {
                    (limit, cut) = (kept.num_rows(), true);
                }
                rows = kept.num_rows();
                batches = vec![kept];
            }
        }
        let mut found = Found::new(sort_by_time(kind, &batches, false, limit)?);
        found.cut = cut || rows > limit;
        found.damaged = reader.damaged;
        Ok(found)
    }
}

/// The rows of `batch` in trace `id`: indexes may give a few of others.
fn only_trace(batch: &Batch, id: TraceId) -> Result<Batch, StoreError> {
    use arrow::array::Array;
    let Some(ids) = batch.id_column(TRACE_ID) else { return Ok(batch.slice(0, 0)) };
    let hit = |row: usize| ids.is_valid(row) && ids.value(row) == id.0;
    if (0..ids.len()).all(hit) {
        return Ok(batch.clone());
    }
    Ok(batch.filter(&(0..ids.len()).map(|row| Some(hit(row))).collect())?)
}
