//! Which service calls which: by parent span, and by link (messages).

use hashbrown::HashMap;
use lacuna_signal::rows::SpanRows;
use lacuna_signal::schema::{
    AttrType, LINKS, PARENT_SPAN_ID, SPAN_ID, START_TIME, STATUS_CODE, Scope, TRACE_ID,
    attribute_column,
};
use lacuna_signal::{Batch, SignalKind, SpanId, TraceId, semconv};

use super::calls::Question;
use super::plan::Reader;
use crate::bounds::{Found, TimeRange};
use crate::calls::Calls;
use crate::calls::gather::note_callers;
use crate::error::StoreError;
use crate::lookup::Lookup;
use crate::part::{Filter, Want};
use crate::store::Store;
use crate::trace_index::{mix, trace_hash};

/// A caller's span may begin this long before the span that it caused: 15 minutes.
const LOOK_BACK: i64 = 15 * 60 * 1_000_000_000;
/// Clocks of two hosts may differ by this much, so that a caller seems to begin later: 1 minute.
const SKEW: i64 = 60 * 1_000_000_000;

/// What a span whose cause is not in its batch takes, about.
const ELSEWHERE_BYTES: usize = 56;

/// By what two spans are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EdgeKind {
    /// The caller's span is the parent.
    Parent,
    /// The span has a link to the caller's, as a consumer has to the producer of its message.
    Link,
}

/// Calls from one service to another.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Edge {
    /// The calling service.
    pub parent: String,
    /// The called service.
    pub child: String,
    /// How the spans are joined. A span whose parent and link are the same span counts as
    /// [`EdgeKind::Parent`].
    pub kind: EdgeKind,
    /// Spans of `child` so joined to a span of `parent`.
    pub calls: u64,
    /// Those of them with status error.
    pub errors: u64,
}

/// All edges, and what could not be joined.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Edges {
    /// Edges between different services, by parent, child and kind.
    pub edges: Vec<Edge>,
    /// Spans with a parent that is not in the store, or began over 15 minutes before the range
    /// or a minute after it.
    pub orphans: u64,
    /// Links to spans that are not in the store, or began over 15 minutes before the range or
    /// a minute after it.
    pub dangling_links: u64,
}

/// A span by a hash of its ids: 64 bits make two of 10 million spans collide once in 400,000 such
/// answers, and then one call is counted for a wrong service.
pub(crate) fn span_key(trace: TraceId, span: SpanId) -> u64 {
    mix(trace_hash(&trace.0) ^ u64::from_le_bytes(span.0).rotate_left(17))
}

/// A span that was caused by another.
struct Caused {
    by: u64,
    kind: EdgeKind,
    service: u32,
    error: bool,
}

/// Services, or other names, by a number each.
#[derive(Default)]
pub(crate) struct Names {
    names: Vec<String>,
    numbers: HashMap<String, u32>,
}

impl Names {
    pub(crate) fn number(&mut self, name: &str) -> u32 {
        self.numbers.get(name).copied().unwrap_or_else(|| {
            self.names.push(name.to_owned());
            let number = self.names.len() as u32 - 1;
            self.numbers.insert(name.to_owned(), number);
            number
        })
    }

    /// All, by number.
    pub(crate) fn all(&self) -> &[String] {
        &self.names
    }

    pub(crate) fn name(&self, number: u32) -> &str {
        self.names.get(number as usize).map_or("", String::as_str)
    }
}

/// Calls by caller, callee and how they are joined: all, and those that failed.
#[derive(Default)]
struct Counts(HashMap<(u32, u32, EdgeKind), (u64, u64)>);

impl Counts {
    fn add(&mut self, caller: u32, span: &Caused) {
        if caller != span.service {
            let count = self.0.entry((caller, span.service, span.kind)).or_default();
            count.0 += 1;
            count.1 += u64::from(span.error);
        }
    }
}

impl Store {
    /// Service edges of the spans that start in `range`. Reads at most `rows` spans.
    ///
    /// If more than [`Options::summary_rows`](crate::Options::summary_rows) may be in range and near
    /// it, where callers are looked for, the answer is taken from what segments say that their spans
    /// add up to, by minutes: then the range is widened to whole ones, and only the spans in memory
    /// are read, and those of segments of earlier versions, newest first.
    ///
    /// The spans of a trace lie together, so that nearly every span is joined to its cause within one
    /// batch. Only causes that are not in the batch (links across traces, traces that came in several
    /// flushes) are kept, and looked for in a second pass over three columns: memory goes with them, not
    /// with all spans.
    pub fn edges(&self, range: TimeRange, rows: usize) -> Result<Found<Edges>, StoreError> {
        let (start, end) = (range.start.saturating_sub(LOOK_BACK), range.end.saturating_add(SKEW));
        let wide = TimeRange::new(start, end);
        if self.rows_within(SignalKind::Spans, wide) > self.shared().options.summary_rows as u64 {
            let found = self.summed(&Question::edges(range), rows)?;
            return Ok(Found {
                items: summed(&found.items),
                cut: found.cut,
                damaged: found.damaged,
            });
        }
        let service = attribute_column(Scope::Resource, AttrType::Str, semconv::SERVICE_NAME);
        let columns = [TRACE_ID, SPAN_ID, PARENT_SPAN_ID, START_TIME, STATUS_CODE, LINKS, &service];
        let mut reader = Reader::new(self.shared(), SignalKind::Spans, wide);
        let mut planned = reader.plan(&Lookup::default(), wide)?;
        let filter = Filter { range: wide, selector: None };
        let (mut names, mut counts) = (Names::default(), Counts::default());
        let mut spans: HashMap<u64, u32> = HashMap::new();
        let mut caused: Vec<Caused> = Vec::new();
        let mut elsewhere: Vec<Caused> = Vec::new();
        let mut charge = self.charge();
        let (mut read, mut cut) = (0usize, false);
        planned.sort_by_key(|planned| std::cmp::Reverse(planned.bounds.max));
        for planned in &planned {
            if cut {
                break;
            }
            for batch in reader.read(planned, Want::Names(&columns), filter)? {
                let taken = batch.num_rows().min(rows - read);
                cut |= taken < batch.num_rows();
                let batch = batch.slice(0, taken);
                read += taken;
                spans.clear();
                gather(&batch, range, &mut names, &mut spans, &mut caused);
                for span in caused.drain(..) {
                    match spans.get(&span.by) {
                        Some(caller) => counts.add(*caller, &span),
                        None => elsewhere.push(span),
                    }
                }
            }
            cut |= !charge.set(elsewhere.len() * ELSEWHERE_BYTES);
        }
        if !elsewhere.is_empty() {
            let mut callers: HashMap<u64, Option<u32>> =
                elsewhere.iter().map(|span| (span.by, None)).collect();
            for planned in &planned {
                let want = Want::Names(&[TRACE_ID, SPAN_ID, START_TIME, &service]);
                for batch in reader.read(planned, want, filter)? {
                    note_callers(&batch, &mut names, &mut callers);
                }
            }
            elsewhere.retain(|span| match callers.get(&span.by).copied().flatten() {
                Some(caller) => {
                    counts.add(caller, span);
                    false
                }
                None => true,
            });
        }
        let mut found = Found::new(edges(&names, counts, &elsewhere));
        found.cut = cut;
        found.damaged = reader.damaged;
        Ok(found)
    }
}

/// Adds the spans of `batch` to `spans`, and those in `range` that others caused to `caused`.
fn gather(
    batch: &Batch,
    range: TimeRange,
    names: &mut Names,
    spans: &mut HashMap<u64, u32>,
    caused: &mut Vec<Caused>,
) {
    let columns = SpanRows::new(batch);
    for row in 0..batch.num_rows() {
        let (Some(trace), Some(span)) = (columns.trace_id(row), columns.span_id(row)) else {
            continue;
        };
        let service = names.number(columns.service(row).unwrap_or(""));
        spans.insert(span_key(trace, span), service);
        if !range.contains(columns.start(row)) {
            continue;
        }
        let error = columns.status_code(row) == 2;
        caused.extend(causes(&columns, row, trace).map(|(by, _, kind)| Caused {
            by,
            kind,
            service,
            error,
        }));
    }
}

/// What caused the span in `row`, which is of `trace`: the key and the trace of the other span, and
/// how they are joined.
pub(crate) fn causes<'a>(
    columns: &SpanRows<'a>,
    row: usize,
    trace: TraceId,
) -> impl Iterator<Item = (u64, TraceId, EdgeKind)> + use<'a> {
    let parent = columns.parent_span_id(row).map(|span| span_key(trace, span));
    let links = columns.links(row).map(|l| (span_key(l.trace_id, l.span_id), l.trace_id));
    let links = links.filter(move |(by, _)| Some(*by) != parent);
    let parent = parent.map(|by| (by, trace, EdgeKind::Parent));
    parent.into_iter().chain(links.map(|(by, trace)| (by, trace, EdgeKind::Link)))
}

/// The edges in order, and how many of `unknown` have no cause in the store.
fn edges(names: &Names, counts: Counts, unknown: &[Caused]) -> Edges {
    let mut edges = Edges::default();
    for span in unknown {
        match span.kind {
            EdgeKind::Parent => edges.orphans += 1,
            EdgeKind::Link => edges.dangling_links += 1,
        }
    }
    let edge =
        |((parent, child, kind), (calls, errors)): ((u32, u32, EdgeKind), (u64, u64))| Edge {
            parent: names.name(parent).to_owned(),
            child: names.name(child).to_owned(),
            kind,
            calls,
            errors,
        };
    edges.edges = counts.0.into_iter().map(edge).collect();
    edges.edges.sort_by(|a, b| (&a.parent, &a.child, a.kind).cmp(&(&b.parent, &b.child, b.kind)));
    edges
}

/// What `calls` says of edges.
fn summed(calls: &Calls) -> Edges {
    let mut edges = Edges::default();
    for ((parent, child, kind), minutes) in &calls.edges {
        let (parent, child, kind) = (parent.clone(), child.clone(), *kind);
        let calls = minutes.values().map(|minute| minute.0).sum();
        let errors = minutes.values().map(|minute| minute.1).sum();
        edges.edges.push(Edge { parent, child, kind, calls, errors });
    }
    for ((kind, _), count) in &calls.open {
        let sum = match kind {
            EdgeKind::Parent => &mut edges.orphans,
            EdgeKind::Link => &mut edges.dangling_links,
        };
        // Minutes of one kind add up to no less than nothing, each by itself may be less.
        *sum = sum.wrapping_add_signed(*count);
    }
    edges.orphans = (edges.orphans as i64).max(0) as u64;
    edges.dangling_links = (edges.dangling_links as i64).max(0) as u64;
    edges
}
