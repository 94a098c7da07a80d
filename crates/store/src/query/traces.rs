//! Traces by selector and time, newest first.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::Array;
use lacuna_signal::rows::SpanRows;
use lacuna_signal::schema::{START_TIME, TRACE_ID};
use lacuna_signal::selector::Selector;
use lacuna_signal::{SignalKind, TraceId};

use super::newest::time_at;
use super::plan::{NewestFirst, Planned, Reader};
use crate::bounds::{Found, TimeRange};
use crate::error::StoreError;
use crate::lookup::Lookup;
use crate::part::{Filter, Part, Want};
use crate::rows::RowSet;
use crate::store::Store;

/// What a map takes for one trace, about.
const TRACE_BYTES: usize = 48;

/// A trace that has selected spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceMatch {
    /// The trace.
    pub trace_id: TraceId,
    /// When its first span began, in or out of the range, nanoseconds since the epoch.
    pub start: i64,
    /// When the newest selected span in the range began. Traces are ordered by it.
    pub newest: i64,
    /// Selected spans in the range.
    pub matched: u64,
    /// All spans of the trace.
    pub spans: u64,
}

impl Store {
    /// Traces with at least one span that starts in `range` and that `selector` selects; newest
    /// first by the newest such span, then by trace id; at most `limit`.
    pub fn find_traces(
        &self,
        selector: &Selector,
        range: TimeRange,
        limit: usize,
    ) -> Result<Found<Vec<TraceMatch>>, StoreError> {
        let parts = self.shared().parts(SignalKind::Spans);
        let Found { items, cut, damaged, .. } =
            newest_in(self, parts.clone(), selector, range, limit, &HashSet::new())?;
        let reader = Reader::over(self.shared(), parts, damaged);
        let mut found = count_spans(reader, &items, Filter { range, selector: Some(selector) })?;
        found.cut = cut;
        Ok(found)
    }

    /// The ids of what [`Self::find_traces`] finds, in the same order, and when the newest selected
    /// span of each began, in nanoseconds since the epoch. Sooner, as the traces are not read.
    pub fn newest_traces(
        &self,
        selector: &Selector,
        range: TimeRange,
        limit: usize,
    ) -> Result<Found<Vec<(TraceId, i64)>>, StoreError> {
        self.newest_traces_but(selector, range, limit, &HashSet::new())
    }

    /// [`Self::newest_traces`] without those in `except`. Who has seen some of them asks on with this,
    /// and a range that ends just after the last: a trace of many selected spans does not come again.
    pub fn newest_traces_but(
        &self,
        selector: &Selector,
        range: TimeRange,
        limit: usize,
        except: &HashSet<TraceId>,
    ) -> Result<Found<Vec<(TraceId, i64)>>, StoreError> {
        newest_in(self, self.shared().parts(SignalKind::Spans), selector, range, limit, except)
    }

    /// How many rows would be read at most to find all that `selector` selects in `range`: what the
    /// indexes leave. For choosing the cheaper of several ways.
    pub fn candidate_rows(&self, selector: &Selector, range: TimeRange) -> Result<u64, StoreError> {
        let mut reader = Reader::new(self.shared(), selector.kind(), range);
        let planned = reader.plan(&Lookup::of(Some(selector)), range)?;
        Ok(planned.iter().map(|planned| planned.rows.len() as u64).sum())
    }
}

fn newest_in(
    store: &Store,
    parts: Vec<Arc<dyn Part>>,
    selector: &Selector,
    range: TimeRange,
    limit: usize,
    except: &HashSet<TraceId>,
) -> Result<Found<Vec<(TraceId, i64)>>, StoreError> {
    let mut reader = Reader::over(store.shared(), parts, Vec::new());
    reader.parts.retain(|part| part.bounds().overlaps(range));
    if selector.kind() != SignalKind::Spans {
        return Ok(Found::new(Vec::new()));
    }
    let planned = reader.plan(&Lookup::of(Some(selector)), range)?;
    let mut order = NewestFirst::new(planned);
    let filter = Filter { range, selector: Some(selector) };
    let mut newest: HashMap<TraceId, i64> = HashMap::new();
    let mut threshold = i64::MIN;
    let (mut charge, mut short) = (store.charge(), false);
    while let Some(planned) = order.next(&reader) {
        // One trace more than asked for tells whether the answer is cut.
        if newest.len() > limit && planned.bounds.max < threshold {
            break;
        }
        for batch in reader.read(&planned, Want::Names(&[TRACE_ID, START_TIME]), filter)? {
            let Some(ids) = batch.id_column(TRACE_ID) else { continue };
            for row in 0..ids.len() {
                let id = TraceId::from_bytes(ids.value(row));
                if let Some(id) = id.filter(|id| !except.contains(id)) {
                    let time = time_at(&batch, row);
                    newest.entry(id).and_modify(|t| *t = time.max(*t)).or_insert(time);
                }
            }
        }
        if !charge.set(newest.len() * TRACE_BYTES) {
            short = true;
            break;
        }
        if newest.len() > limit {
            let mut times: Vec<i64> = newest.values().copied().collect();
            let (_, nth, _) = times.select_nth_unstable_by(limit, |a, b| b.cmp(a));
            threshold = *nth;
        }
    }
    let mut order: Vec<(TraceId, i64)> = newest.into_iter().collect();
    order.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    let cut = short || order.len() > limit;
    order.truncate(limit);
    let mut found = Found::new(order);
    (found.cut, found.damaged) = (cut, reader.damaged);
    Ok(found)
}

/// Reads the traces in `order` once more: now all their spans, by the index.
fn count_spans(
    mut reader: Reader<'_>,
    order: &[(TraceId, i64)],
    filter: Filter<'_>,
) -> Result<Found<Vec<TraceMatch>>, StoreError> {
    let mut matches: Vec<TraceMatch> = order
        .iter()
        .map(|(trace_id, newest)| TraceMatch {
            trace_id: *trace_id,
            start: *newest,
            newest: *newest,
            matched: 0,
            spans: 0,
        })
        .collect();
    let position: HashMap<TraceId, usize> =
        order.iter().enumerate().map(|(i, (id, _))| (*id, i)).collect();
    let everything = Filter { range: TimeRange::ALL, selector: None };
    let read = filter.selector.map(Selector::columns).unwrap_or_default();
    for (i, part) in reader.parts.clone().iter().enumerate() {
        let mut ranges = Vec::new();
        for (id, _) in order {
            let rows = reader.note(part.trace_rows(*id))?.unwrap_or_default();
            ranges.extend_from_slice(rows.ranges());
        }
        let rows = RowSet::from_unsorted(ranges);
        if rows.is_empty() {
            continue;
        }
        let planned = Planned { part: i, rows, bounds: part.bounds() };
        let want = Want::Selector(&read, &[TRACE_ID, START_TIME]);
        for batch in reader.read(&planned, want, everything)? {
            let mask = filter.mask(&batch)?;
            let spans = SpanRows::new(&batch);
            for row in 0..batch.num_rows() {
                let found = spans.trace_id(row).and_then(|id| position.get(&id));
                let Some(entry) = found.and_then(|i| matches.get_mut(*i)) else { continue };
                entry.spans += 1;
                entry.start = entry.start.min(spans.start(row));
                entry.matched += u64::from(mask.as_ref().is_none_or(|mask| mask.value(row)));
            }
        }
    }
    let mut found = Found::new(matches);
    found.damaged = reader.damaged;
    Ok(found)
}
