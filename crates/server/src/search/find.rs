//! Traces by a query over whole traces.
//!
//! A trace is read, asked, answered for and dropped before the next: however many are found, a few are
//! in memory at a time.

use std::collections::HashSet;

use lacuna_signal::rows::SpanRows;
use lacuna_signal::selector::{Expr, Intrinsic, Query, Selector};
use lacuna_signal::{Batch, SignalKind, TraceId};
use lacuna_store::{Store, StoreError, TimeRange};

use super::answer::{TraceAnswer, TracesAnswer};
use crate::lacking::{damage, note};

/// Traces that are read to find those that a query selects something in, at most.
const MAX_INSPECTED: u64 = 20_000;
/// Selected spans in an answer, at most, over all its traces.
const MAX_SPANS: usize = 100_000;
/// What a selected span takes in an answer, twice, and a service of a trace, about.
const SPAN_BYTES: usize = 2 << 10;
/// See [`SPAN_BYTES`].
const SERVICE_BYTES: usize = 128;
/// Why an answer is cut short of its limits.
const NO_MEMORY: &str = "only a part: there is no more memory for the answer now";
/// Candidates that are asked for at once, at least.
const PAGE: usize = 100;
/// Traces too large to be read whole that are told of one by one.
const NAMED: u64 = 10;

/// A trace that a query selects something in.
#[derive(Debug)]
pub(super) struct FoundTrace {
    /// Its id.
    pub id: TraceId,
    /// Its spans; the oldest, if it has more than are read of one.
    pub spans: Batch,
    /// What the query selects in it and that starts in the range.
    pub selected: Selected,
}

/// The spans that a query selects in a trace.
#[derive(Debug)]
pub(super) enum Selected {
    /// The rows of the trace.
    Rows(Vec<usize>),
    /// Spans that were found one by one, as the trace was not read whole.
    Spans {
        /// The newest of them.
        spans: Batch,
        /// How many there are.
        matched: u64,
    },
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
/// that could be what the query selects. Of `A && B`, those count of which there are fewer.
///
/// # Errors
/// The store fails. Damage is no error, but told among the warnings; so is a trace of which only a
/// part was read.
pub fn traces(store: &Store, query: &Query, wanted: &Wanted) -> Result<TracesAnswer, StoreError> {
    let range = wanted.range;
    let columns = query.columns();
    let mut answer = TracesAnswer::default();
    let conjunction = query.conjunction();
    let exact = conjunction.as_deref().is_some_and(|all| all.len() == 1);
    let Some(candidates) = candidates(store, query, conjunction.as_deref(), range)? else {
        return Ok(answer);
    };
    let (mut inspected, mut partial, mut spans_left) = (0, 0, MAX_SPANS);
    let page = if exact { wanted.traces } else { wanted.traces.max(PAGE) };
    // What was seen does not come again: a page is of as many other traces, so that there are no
    // more pages than traces to inspect.
    let (mut seen, mut end) = (HashSet::new(), range.end);
    'pages: loop {
        let here = TimeRange::new(range.start, end);
        let matches = store.newest_traces_but(&candidates, here, page, &seen)?;
        note(&mut answer.warnings, damage(&matches.damaged));
        let ids: Vec<TraceId> = matches.items.iter().map(|(id, _)| *id).collect();
        seen.extend(&ids);
        for (id, trace) in ids.iter().zip(store.traces(&ids)) {
            let full = answer.traces.len() == wanted.traces || spans_left == 0;
            if full || inspected == MAX_INSPECTED {
                answer.cut = true;
                break 'pages;
            }
            inspected += 1;
            let trace = trace?;
            note(&mut answer.warnings, damage(&trace.damaged));
            let most_spans = wanted.spans.min(spans_left);
            let rows = selected(query, &trace.items, range);
            let mut selected = (!rows.is_empty()).then_some(Selected::Rows(rows));
            if trace.cut {
                let known = conjunction.as_deref();
                if let Some(known) = known {
                    selected = one_by_one(store, known, *id, range, most_spans)?;
                }
                // It may be that the query selects something in what was not read.
                answer.cut |= known.is_none() && selected.is_none();
                partial += 1;
                if partial <= NAMED {
                    let read = trace.items.num_rows();
                    answer.warnings.push(part_of(*id, read, known.is_some(), selected.is_some()));
                }
            }
            if let Some(selected) = selected {
                let found = FoundTrace { id: *id, spans: trace.items, selected };
                let trace = TraceAnswer::of(&found, &columns, most_spans);
                spans_left -= trace.span_set.spans.len();
                let told = trace.span_set.spans.len() * SPAN_BYTES
                    + trace.service_stats.len() * SERVICE_BYTES;
                if !store.hold(told) {
                    answer.cut = true;
                    note(&mut answer.warnings, [NO_MEMORY.to_owned()]);
                    break 'pages;
                }
                answer.traces.push(trace);
            }
        }
        match matches.items.last() {
            Some(_) if matches.cut && answer.traces.len() == wanted.traces => {
                answer.cut = true;
                break;
            }
            // Others of the last one's moment may be left over.
            Some((_, oldest)) if matches.cut => end = oldest.saturating_add(1).min(end),
            _ => break,
        }
    }
    if partial > NAMED {
        answer.warnings.push(format!("and the same of {} more traces", partial - NAMED));
    }
    answer.metrics.inspected_traces = inspected;
    Ok(answer)
}

/// The rows of `trace` that `query` selects and that start in `range`; each side of `&&` must select
/// one there.
fn selected(query: &Query, trace: &Batch, range: TimeRange) -> Vec<usize> {
    let (left, right, both) = match query {
        Query::And(left, right) => (left, right, true),
        Query::Or(left, right) => (left, right, false),
        _ => {
            let (spans, mask) = (SpanRows::new(trace), query.mask(trace));
            let set = mask.values().set_indices();
            return set.filter(|row| range.contains(spans.start(*row))).collect();
        }
    };
    let mut rows = selected(left, trace, range);
    let others = selected(right, trace, range);
    if both && (rows.is_empty() || others.is_empty()) {
        return Vec::new();
    }
    rows.extend(others);
    rows.sort_unstable();
    rows.dedup();
    rows
}

/// What any of `conjunction` selects in `range` of a trace in which each of them selects something:
/// at most `most` of the spans, asked of the index, as the trace is too large to be read whole.
fn one_by_one(
    store: &Store,
    conjunction: &[Selector],
    id: TraceId,
    range: TimeRange,
    most: usize,
) -> Result<Option<Selected>, StoreError> {
    let of_trace = Expr::text(Intrinsic::TraceId, id.to_string());
    let in_trace = |selector: &Selector| {
        let both = Expr::all([of_trace.clone(), selector.expr().clone()]);
        Selector::new(SignalKind::Spans, both).ok()
    };
    for selector in conjunction.iter().filter_map(in_trace) {
        if store.newest_traces(&selector, range, 1)?.items.is_empty() {
            return Ok(None);
        }
    }
    let Some(any) = Selector::any(conjunction).as_ref().and_then(in_trace) else { return Ok(None) };
    let found = store.find_traces(&any, range, 1)?;
    let Some(found) = found.items.first() else { return Ok(None) };
    let spans = store.newest(SignalKind::Spans, Some(&any), range, None, most)?.items;
    Ok(Some(Selected::Spans { spans, matched: found.matched }))
}

/// That trace `id` was not read whole, and what that means for a query of whose spans all are `known`
/// without, or for one that was asked of a part.
fn part_of(id: TraceId, read: usize, known: bool, found: bool) -> String {
    let what = match (known, found) {
        (true, _) => "what is told of the whole trace is of those; the spans found are of all",
        (false, true) => {
            "what is found in it is of those, and a span, parent or child said to be missing may be \
             among the others"
        }
        (false, false) => {
            "that nothing is found in it is of those, and what was asked for may be among the others"
        }
    };
    format!("trace {id} has more than the {read} spans that are read of one: {what}")
}

/// A selector of at least one span in every trace in which `query` selects anything.
fn candidates(
    store: &Store,
    query: &Query,
    conjunction: Option<&[Selector]>,
    range: TimeRange,
) -> Result<Option<Selector>, StoreError> {
    if let Some([only]) = conjunction {
        return Ok(Some(only.clone()));
    }
    let mut failed = None;
    let several = query.candidates(&mut |selector| {
        store.candidate_rows(selector, range).unwrap_or_else(|error| {
            failed = Some(error);
            u64::MAX
        })
    });
    failed.map_or_else(|| Ok(Selector::any(&several)), Err)
}
