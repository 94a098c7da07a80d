//! Rows by time, newest first.

use arrow::array::{ArrayRef, UInt32Array, UInt64Array};
use arrow::compute::{SortColumn, SortOptions, lexsort_to_indices};
use lacuna_signal::schema::{BODY, DURATION, KIND, NAME, SPAN_ID, TRACE_ID};
use lacuna_signal::selector::Selector;
use lacuna_signal::{Batch, SignalKind};

use super::plan::{NewestFirst, Reader};
use crate::bounds::{Found, TimeRange};
use crate::error::StoreError;
use crate::lookup::Lookup;
use crate::part::{Filter, Want, project};
use crate::store::Store;

/// What orders rows of one time, so that an answer does not depend on where the rows lie.
/// Senders do repeat span ids: a client and its server may share one.
const TIES: [&str; 6] = [TRACE_ID, SPAN_ID, NAME, BODY, KIND, DURATION];

impl Store {
    /// Rows of `kind` in `range` that `selector` selects, newest first, at most `limit`. Rows of
    /// one time come by trace id, span id, name, body, kind and duration, so the order is stable. With `columns`,
    /// only those and the time.
    pub fn newest(
        &self,
        kind: SignalKind,
        selector: Option<&Selector>,
        range: TimeRange,
        columns: Option<&[&str]>,
        limit: usize,
    ) -> Result<Found<Batch>, StoreError> {
        let mut reader = Reader::new(self.shared(), kind, range);
        let mut order = NewestFirst::careful(reader.plan(&Lookup::of(selector), range)?);
        let (mut charge, mut limit, mut short) = (self.charge(), limit, false);
        let names: Option<Vec<&str>> = columns.map(|columns| {
            let always = TIES.into_iter().chain([kind.time_column()]);
            columns.iter().copied().chain(always).collect()
        });
        let want = names.as_deref().map_or(Want::All, Want::Names);
        let filter = Filter { range, selector };
        let (mut batches, mut rows, mut oldest) = (Vec::<Batch>::new(), 0, i64::MIN);
        while let Some(planned) = order.next(&reader) {
            // One row more than asked for tells whether the answer is cut.
            if rows > limit && planned.bounds.max < oldest {
                break;
            }
            for batch in reader.read(&planned, want, filter)? {
                rows += batch.num_rows();
                if batch.num_rows() > 0 {
                    batches.push(batch);
                }
            }
            let bytes: usize = batches.iter().map(Batch::memory_size).sum();
            order.saw(rows, bytes);
            if rows > limit || !charge.set(bytes) {
                let sorted = sort_by_time(kind, &batches, true, limit.saturating_add(1))?;
                let wanted = sorted.num_rows();
                let kept = charge.fit(sorted)?;
                rows = kept.num_rows();
                if rows < wanted {
                    // The newest that there is room for; others can only take their places.
                    (limit, short) = (rows, true);
                }
                oldest = time_at(&kept, rows.saturating_sub(1));
                batches = vec![kept];
            }
        }
        let mut found = Found::new(sort_by_time(kind, &batches, true, limit)?);
        found.cut = short || rows > limit;
        charge.keep();
        found.damaged = reader.damaged;
        if let Some(columns) = columns {
            let names: Vec<&str> = columns.iter().copied().chain([kind.time_column()]).collect();
            found.items = project(&found.items, Want::Names(&names))?;
        }
        Ok(found)
    }
}

/// The time of `row`.
pub(super) fn time_at(batch: &Batch, row: usize) -> i64 {
    batch
        .number_column::<arrow::datatypes::TimestampNanosecondType>(batch.kind().time_column())
        .map_or(0, |times| times.value(row))
}

/// The first `limit` rows of all `batches` by time, then by [`TIES`].
pub(super) fn sort_by_time(
    kind: SignalKind,
    batches: &[Batch],
    descending: bool,
    limit: usize,
) -> Result<Batch, StoreError> {
    sort(Batch::concat(kind, batches)?, None, descending, limit)
}

/// The first `limit` rows of `all` by `first`, if it is given, then by time, then by [`TIES`].
pub(super) fn sort(
    all: Batch,
    first: Option<ArrayRef>,
    descending: bool,
    limit: usize,
) -> Result<Batch, StoreError> {
    let first = first.map(|values| SortColumn { values, options: None });
    let time = all.column(all.kind().time_column()).map(|values| SortColumn {
        values: values.clone(),
        options: Some(SortOptions { descending, nulls_first: false }),
    });
    let ties = TIES.iter().filter_map(|name| all.column(name)).map(|values| SortColumn {
        values: values.clone(),
        options: Some(SortOptions { descending: false, nulls_first: true }),
    });
    let columns: Vec<SortColumn> = first.into_iter().chain(time).chain(ties).collect();
    if columns.is_empty() || all.num_rows() == 0 {
        return Ok(all.slice(0, limit.min(all.num_rows())));
    }
    let order: UInt32Array = lexsort_to_indices(&columns, Some(limit))?;
    // Rows of one part mostly lie so already.
    if order.values().iter().enumerate().all(|(place, row)| place == *row as usize) {
        return Ok(all.slice(0, order.len()));
    }
    let order = UInt64Array::from_iter_values(order.values().iter().map(|row| u64::from(*row)));
    Ok(all.take(&order)?)
}
