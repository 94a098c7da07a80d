//! Traces by a query over whole traces.

use std::collections::HashSet;

use lacuna_signal::rows::SpanRows;
use lacuna_signal::selector::{Expr, Query, Selector};
use lacuna_signal::{Batch, SignalKind, TraceId};
use lacuna_store::{Finding, Store, StoreError, TimeRange};

/// Traces that are read to find those that a query selects something in, at most.
const MAX_INSPECTED: u64 = 20_000;
/// Candidates that are asked for at once, at least.
const PAGE: usize = 100;

/// A trace that a query selects something in.
#[derive(Debug)]
pub struct FoundTrace {
    /// Its id.
    pub id: TraceId,
    /// All its spans.
    pub spans: Batch,
    /// The rows of the spans that the query selects and that start in the range.
    pub rows: Vec<usize>,
}

/// What a query found.
#[derive(Debug, Default)]
pub struct FoundTraces {
    /// The traces; newest first, by the newest span that could be what the query selects.
    pub traces: Vec<FoundTrace>,
    /// Traces that were read.
    pub inspected: u64,
    /// There may be more: the limit was reached, or the most traces that are read.
    pub cut: bool,
    /// Damaged places; what they held is missing.
    pub damaged: Vec<Finding>,
}

impl FoundTraces {
    fn note(&mut self, damaged: Vec<Finding>) {
        for finding in damaged {
            if !self.damaged.contains(&finding) {
                self.damaged.push(finding);
            }
        }
    }
}

/// Traces in which `query` selects a span that starts in `range`, at most `limit`.
///
/// # Errors
/// The store fails. Damage is no error.
pub fn traces(
    store: &Store,
    query: &Query,
    range: TimeRange,
    limit: usize,
) -> Result<FoundTraces, StoreError> {
    let mut found = FoundTraces::default();
    let Some(candidates) = candidates(query) else { return Ok(found) };
    let mut page = if query.as_selector().is_some() { limit } else { limit.max(PAGE) };
    let (mut seen, mut end) = (HashSet::new(), range.end);
    loop {
        let here = TimeRange::new(range.start, end);
        let matches = store.find_traces(&candidates, here, page)?;
        found.note(matches.damaged);
        let oldest = matches.items.last().map(|last| last.newest);
        let mut ids: Vec<TraceId> = matches.items.iter().map(|found| found.trace_id).collect();
        ids.retain(|id| seen.insert(*id));
        for (id, trace) in ids.iter().zip(store.traces(&ids)) {
            if found.traces.len() == limit || found.inspected == MAX_INSPECTED {
                found.cut = true;
                return Ok(found);
            }
            found.inspected += 1;
            let trace = trace?;
            found.note(trace.damaged);
            let (spans, mask) = (SpanRows::new(&trace.items), query.mask(&trace.items));
            let selected = mask.values().set_indices();
            let rows: Vec<usize> =
                selected.filter(|row| range.contains(spans.start(*row))).collect();
            if !rows.is_empty() {
                found.traces.push(FoundTrace { id: *id, spans: trace.items, rows });
            }
        }
        match oldest {
            Some(oldest) if matches.cut => {
                // Traces of this one moment may be left over; more at a time get past them.
                let next = oldest.saturating_add(1);
                if next >= end {
                    page = page.saturating_mul(2);
                }
                end = next.min(end);
            }
            _ => return Ok(found),
        }
    }
}

/// A selector of at least one span in every trace in which `query` selects anything.
fn candidates(query: &Query) -> Option<Selector> {
    match query.candidates().as_slice() {
        [only] => Some((*only).clone()),
        several => {
            let any = several.iter().map(|selector| selector.expr().clone()).collect();
            Selector::new(SignalKind::Spans, Expr::Or(any)).ok()
        }
    }
}
