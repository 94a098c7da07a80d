//! Which service calls which: by parent span, and by link (messages).

use std::collections::BTreeMap;

use hashbrown::HashMap;
use lacuna_signal::rows::SpanRows;
use lacuna_signal::schema::{
    AttrType, LINKS, PARENT_SPAN_ID, SPAN_ID, START_TIME, STATUS_CODE, Scope, TRACE_ID,
    attribute_column,
};
use lacuna_signal::{SignalKind, SpanId, TraceId, semconv};

use super::plan::Reader;
use crate::bounds::{Found, TimeRange};
use crate::error::StoreError;
use crate::lookup::Lookup;
use crate::part::{Filter, Want};
use crate::store::Store;
use crate::trace_index::{mix, trace_hash};

/// A caller's span may begin this long before the span that it caused: 15 minutes.
const LOOK_BACK: i64 = 15 * 60 * 1_000_000_000;
/// Clocks of two hosts may differ by this much, so that a caller seems to begin later: 1 minute.
const SKEW: i64 = 60 * 1_000_000_000;

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
fn span_key(trace: TraceId, span: SpanId) -> u64 {
    mix(trace_hash(&trace.0) ^ u64::from_le_bytes(span.0).rotate_left(17))
}

/// A span that was caused by another.
struct Caused {
    by: u64,
    kind: EdgeKind,
    service: u32,
    error: bool,
}

impl Store {
    /// Service edges of the spans that start in `range`. Reads at most `rows` spans.
    pub fn edges(&self, range: TimeRange, rows: usize) -> Result<Found<Edges>, StoreError> {
        let (start, end) = (range.start.saturating_sub(LOOK_BACK), range.end.saturating_add(SKEW));
        let wide = TimeRange::new(start, end);
        let service = attribute_column(Scope::Resource, AttrType::Str, semconv::SERVICE_NAME);
        let columns = [TRACE_ID, SPAN_ID, PARENT_SPAN_ID, START_TIME, STATUS_CODE, LINKS, &service];
        let mut reader = Reader::new(self.shared(), SignalKind::Spans, wide);
        let planned = reader.plan(&Lookup::default(), wide)?;
        let filter = Filter { range: wide, selector: None };
        let mut names: Vec<String> = Vec::new();
        let mut numbers: HashMap<String, u32> = HashMap::new();
        let mut spans: HashMap<u64, u32> = HashMap::new();
        let mut caused: Vec<Caused> = Vec::new();
        let (mut read, mut cut) = (0usize, false);
        'windows: for planned in &planned {
            for batch in reader.read(planned, Want::Names(&columns), filter)? {
                let columns = SpanRows::new(&batch);
                for row in 0..batch.num_rows() {
                    if read == rows {
                        cut = true;
                        break 'windows;
                    }
                    read += 1;
                    let (Some(trace), Some(span)) = (columns.trace_id(row), columns.span_id(row))
                    else {
                        continue;
                    };
                    let name = columns.service(row).unwrap_or("");
                    let number = numbers.get(name).copied().unwrap_or_else(|| {
                        names.push(name.to_owned());
                        let number = names.len() as u32 - 1;
                        numbers.insert(name.to_owned(), number);
                        number
                    });
                    spans.insert(span_key(trace, span), number);
                    if !range.contains(columns.start(row)) {
                        continue;
                    }
                    let error = columns.status_code(row) == 2;
                    let parent = columns.parent_span_id(row).map(|span| span_key(trace, span));
                    let links = columns.links(row).map(|l| span_key(l.trace_id, l.span_id));
                    let links = links.filter(|by| Some(*by) != parent);
                    let parent = parent.map(|by| (by, EdgeKind::Parent));
                    let causes = parent.into_iter().chain(links.map(|by| (by, EdgeKind::Link)));
                    caused.extend(causes.map(|(by, kind)| Caused {
                        by,
                        kind,
                        service: number,
                        error,
                    }));
                }
            }
        }
        let mut found = Found::new(join(&names, &spans, &caused));
        found.cut = cut;
        found.damaged = reader.damaged;
        Ok(found)
    }
}

fn join(names: &[String], spans: &HashMap<u64, u32>, caused: &[Caused]) -> Edges {
    let mut edges = Edges::default();
    let mut counts: BTreeMap<(&str, &str, EdgeKind), (u64, u64)> = BTreeMap::new();
    let name = |number: u32| names.get(number as usize).map_or("", String::as_str);
    for span in caused {
        match (spans.get(&span.by), span.kind) {
            (Some(by), _) if *by == span.service => {}
            (Some(by), kind) => {
                let count = counts.entry((name(*by), name(span.service), kind)).or_default();
                count.0 += 1;
                count.1 += u64::from(span.error);
            }
            (None, EdgeKind::Parent) => edges.orphans += 1,
            (None, EdgeKind::Link) => edges.dangling_links += 1,
        }
    }
    edges.edges = counts
        .into_iter()
        .map(|((parent, child, kind), (calls, errors))| Edge {
            parent: parent.to_owned(),
            child: child.to_owned(),
            kind,
            calls,
            errors,
        })
        .collect();
    edges
}
