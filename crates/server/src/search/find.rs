//! Traces by a query over whole traces.
//!
//! A trace is read, asked, answered for and dropped before the next: however many are found, a few are
//! in memory at a time.

use std::collections::HashSet;

use lacuna_signal::rows::SpanRows;
use lacuna_signal::selector::{Expr, Query, Selector};
use lacuna_signal::{Batch, SignalKind, TraceId};
use lacuna_store::{Store, StoreError, TimeRange};

use super::answer::{Metrics, TraceAnswer, TracesAnswer};
use crate::lacking::{damage, note};

/// Traces that are read to find those that a query selects something in, at most.
const MAX_INSPECTED: u64 = 20_000;
/// Selected spans in an answer, at most, over all its traces.
const MAX_SPANS: usize = 100_000;
/// Candidates that are asked for at once, at least.
const PAGE: usize = 100;
/// Traces too large to be read whole that are told of one by one.
const NAMED: u64 = 10;

/// A trace that a query selects something in.
#[derive(Debug)]
pub(super) struct FoundTrace {
    /// Its id.
    pub id: TraceId,
    /// All its spans.
    pub spans: Batch,
    /// The rows of the spans that the query selects and that start in the range.
    pub rows: Vec<usize>,
}

/// What is wanted of the traces that a query finds.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// When a selected span starts.
    pub range: TimeRange,
    /// Traces, at most.
    pub traces: usize,
    /// Selected spans of each, at most.
    pub spans: usize,
}

/// The traces in which `query` selects a span that is `wanted`; newest first, by the newest span
/// that could be what the query selects.
///
/// # Errors
/// The store fails. Damage is no error, but told among the warnings; so is a trace of which only a
/// part was read.
pub fn traces(store: &Store, query: &Query, wanted: &Wanted) -> Result<TracesAnswer, StoreError> {
    let range = wanted.range;
    let columns = query.columns();
    let mut answer = TracesAnswer::default();
    let Some(candidates) = candidates(query) else { return Ok(answer) };
    let Metrics { inspected_traces: mut inspected } = answer.metrics;
    let (mut partial, mut spans_left) = (0, MAX_SPANS);
    let exact = query.as_selector().is_some();
    let mut page = if exact { wanted.traces } else { wanted.traces.max(PAGE) };
    let (mut seen, mut end) = (HashSet::new(), range.end);
    'pages: loop {
        let here = TimeRange::new(range.start, end);
        let matches = store.newest_traces(&candidates, here, page)?;
        note(&mut answer.warnings, damage(&matches.damaged));
        let oldest = matches.items.last().map(|(_, newest)| *newest);
        let mut ids: Vec<TraceId> = matches.items.iter().map(|(id, _)| *id).collect();
        ids.retain(|id| seen.insert(*id));
        for (id, trace) in ids.iter().zip(store.traces(&ids)) {
            let full = answer.traces.len() == wanted.traces || spans_left == 0;
            if full || inspected == MAX_INSPECTED {
                answer.cut = true;
                break 'pages;
            }
            inspected += 1;
            let trace = trace?;
            note(&mut answer.warnings, damage(&trace.damaged));
            let cut = trace.cut;
            let rows = selected(query, &trace.items, range);
            if cut {
                partial += 1;
                if partial <= NAMED {
                    let read = trace.items.num_rows();
                    answer.warnings.push(part_of(*id, read, !rows.is_empty()));
                }
            }
            if !rows.is_empty() {
                let found = FoundTrace { id: *id, spans: trace.items, rows };
                let trace = TraceAnswer::of(&found, &columns, wanted.spans.min(spans_left));
                spans_left -= trace.span_set.spans.len();
                answer.traces.push(trace);
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
            _ => break,
        }
    }
    if partial > NAMED {
        answer.warnings.push(format!("and the same of {} more traces", partial - NAMED));
    }
    answer.metrics.inspected_traces = inspected;
    Ok(answer)
}

/// The rows of `trace` that `query` selects and that start in `range`.
fn selected(query: &Query, trace: &Batch, range: TimeRange) -> Vec<usize> {
    let (spans, mask) = (SpanRows::new(trace), query.mask(trace));
    let set = mask.values().set_indices();
    set.filter(|row| range.contains(spans.start(*row))).collect()
}

/// That a trace was not read whole, so that the query was asked of a part of it.
fn part_of(id: TraceId, read: usize, found: bool) -> String {
    let what = if found { "what is found in it" } else { "that nothing is found in it" };
    format!(
        "trace {id} has more than the {read} spans that are read of one: {what} is of those, and a \
         span, parent or child said to be missing may be among the others"
    )
}

/// A selector of at least one span in every trace in which `query` selects anything.
fn candidates(query: &Query) -> Option<Selector> {
    match query.candidates().as_slice() {
        [only] => Some(only.clone()),
        several => {
            let any = several.iter().map(|selector| selector.expr().clone()).collect();
            Selector::new(SignalKind::Spans, Expr::Or(any)).ok()
        }
    }
}
