//! Adding up spans: those that are flushed, or are in memory when somebody asks.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use hashbrown::HashMap;
use lacuna_signal::rows::SpanRows;
use lacuna_signal::schema::{
    AttrType, DURATION, KIND, LINKS, NAME, PARENT_SPAN_ID, SPAN_ID, START_TIME, STATUS_CODE, Scope,
    TRACE_ID, attribute_column,
};
use lacuna_signal::{Batch, TraceId, semconv};

use super::{Calls, End, MAX_ENDS, bucket_of, minute_of, newest};
use crate::error::StoreError;
use crate::part::{Part, Want};
use crate::query::{EdgeKind, Names, causes, span_key};
use crate::rows::RowSet;
use crate::segment::Segment;

/// Segments in which callers are looked for, the newest.
const NEAR: usize = 16;
/// Of so many of the newest segments the ends are looked at.
const WAITING: usize = 8;
/// Traces that are looked up in other segments for one flush: half a second's work.
const LOOKUPS: usize = 200_000;

/// What of the spans to add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// Calls and edges.
    All,
    /// Calls of operations only.
    Operations,
}

/// A span that another caused.
struct Caused {
    by: u64,
    trace: TraceId,
    kind: EdgeKind,
    service: u32,
    error: bool,
    minute: i64,
}

/// Adds up the spans of `parts`, which came after those of `older` segments.
///
/// # Errors
/// A segment cannot be read. Damage in `older` ones is none: what they would say is left out.
pub fn gather(
    parts: &[Arc<dyn Part>],
    older: &[Arc<Segment>],
    of: Of,
) -> Result<Calls, StoreError> {
    let mut sums = Gathering::default();
    if of == Of::All {
        sums.spans.reserve(parts.iter().map(|part| part.rows() as usize).sum());
    }
    let service = service_column();
    let columns = [
        TRACE_ID,
        SPAN_ID,
        PARENT_SPAN_ID,
        START_TIME,
        DURATION,
        STATUS_CODE,
        KIND,
        NAME,
        LINKS,
        &service,
    ];
    for part in parts {
        for window in part.windows() {
            sums.take(&part.read(&window.rows, Want::Names(&columns))?, of);
        }
    }
    let mut older = older.to_vec();
    older.sort_by_key(|segment| std::cmp::Reverse(segment.meta().wal_end));
    let waiting = ends(older.iter().take(WAITING));
    sums.join(&waiting);
    sums.ask(&older)?;
    Ok(sums.finish(waiting))
}

/// The ends of `segments` that none of them settles. Of damaged ones nothing.
fn ends<'a>(segments: impl Iterator<Item = &'a Arc<Segment>>) -> Vec<End> {
    let all: Vec<Calls> = segments.filter_map(|segment| segment.calls().ok().flatten()).collect();
    let settled: HashSet<u64> = all.iter().flat_map(|calls| &calls.settled).copied().collect();
    let ends = all.into_iter().flat_map(|calls| calls.ends);
    ends.filter(|end| !settled.contains(&end.by)).collect()
}

fn service_column() -> String {
    attribute_column(Scope::Resource, AttrType::Str, semconv::SERVICE_NAME)
}

/// A call as one number: so a million of them are sorted in a few hundredths of a second.
struct Packed;

impl Packed {
    const BUCKET: u32 = 10;
    const MINUTE: u32 = 29;

    fn pack(operation: u32, minute: i64, bucket: u16, error: bool) -> u64 {
        // 2^63 nanoseconds are fewer than 2^28 minutes.
        let minute = (minute + (1 << (Self::MINUTE - 1))) as u64;
        let key = u64::from(operation) << Self::MINUTE | minute;
        (key << Self::BUCKET | u64::from(bucket)) << 1 | u64::from(error)
    }

    fn operation(call: u64) -> usize {
        (call >> (1 + Self::BUCKET + Self::MINUTE)) as usize
    }

    fn minute(call: u64) -> i64 {
        let minute = call >> (1 + Self::BUCKET) & ((1 << Self::MINUTE) - 1);
        minute as i64 - (1 << (Self::MINUTE - 1))
    }

    fn bucket(call: u64) -> u16 {
        (call >> 1 & ((1 << Self::BUCKET) - 1)) as u16
    }
}

/// Operations that are told apart while spans are added up; the numbers of more have no room.
const MAX_GATHERED: u32 = 1 << 20;

#[derive(Default)]
struct Gathering {
    services: Names,
    names: Names,
    operations: HashMap<(u32, Option<u32>, u8), u32>,
    calls: Vec<u64>,
    /// Key and service of each span: a table of all would be larger than any cache, and each look
    /// into it a wait for memory.
    spans: Vec<(u64, u32)>,
    /// Those of one batch.
    near: HashMap<u64, u32>,
    /// The services of spans that are asked for across batches.
    callers: HashMap<u64, Option<u32>>,
    /// Spans whose cause is not in their batch.
    caused: Vec<Caused>,
    /// By caller, callee, kind and minute.
    edges: HashMap<(u32, u32, EdgeKind, i64), (u64, u64)>,
}

impl Gathering {
    fn take(&mut self, batch: &Batch, of: Of) {
        let columns = SpanRows::new(batch);
        self.calls.reserve(batch.num_rows());
        self.near.clear();
        let mut caused = Vec::new();
        for row in 0..batch.num_rows() {
            let service = self.services.number(columns.service(row).unwrap_or(""));
            let minute = minute_of(columns.start(row));
            let error = columns.status_code(row) == 2;
            let operation = self.operation(service, columns.name(row), columns.kind(row));
            let bucket = bucket_of(columns.duration(row));
            self.calls.push(Packed::pack(operation, minute, bucket, error));
            if of == Of::Operations {
                continue;
            }
            let (Some(trace), Some(span)) = (columns.trace_id(row), columns.span_id(row)) else {
                continue;
            };
            let key = span_key(trace, span);
            self.spans.push((key, service));
            self.near.insert(key, service);
            let all = causes(&columns, row, trace).map(|(by, trace, kind)| Caused {
                by,
                trace,
                kind,
                service,
                error,
                minute,
            });
            caused.extend(all);
        }
        // Nearly all that a span was caused by came with it.
        let near = std::mem::take(&mut self.near);
        let rest = self.join_to(caused, |by| near.get(&by).copied());
        self.caused.extend(rest);
        self.near = near;
    }

    fn operation(&mut self, service: u32, name: &str, kind: u8) -> u32 {
        let name = self.names.number(name);
        let next = self.operations.len() as u32;
        if let Some(number) = self.operations.get(&(service, Some(name), kind)) {
            return *number;
        }
        let name = (next < MAX_GATHERED).then_some(name);
        *self.operations.entry((service, name, kind)).or_insert(next)
    }

    /// Joins spans to callers that came in other batches, and looks for those of `waiting` ends.
    fn join(&mut self, waiting: &[End]) {
        let caused = std::mem::take(&mut self.caused);
        let asked = caused.iter().map(|span| span.by).chain(waiting.iter().map(|end| end.by));
        let mut callers: HashMap<u64, Option<u32>> = asked.map(|by| (by, None)).collect();
        for (key, service) in &self.spans {
            if let Some(caller) = callers.get_mut(key) {
                *caller = Some(*service);
            }
        }
        self.caused = self.join_to(caused, |by| callers.get(&by).copied().flatten());
        self.callers = callers;
    }

    /// Counts those of `caused` whose caller `find` knows; the others.
    fn join_to(
        &mut self,
        mut caused: Vec<Caused>,
        find: impl Fn(u64) -> Option<u32>,
    ) -> Vec<Caused> {
        let edges = &mut self.edges;
        caused.retain(|span| match find(span.by) {
            Some(caller) => {
                count(edges, caller, span.service, span.kind, span.minute, span.error);
                false
            }
            None => true,
        });
        caused
    }

    /// Looks for callers in `older` segments, newest first.
    fn ask(&mut self, older: &[Arc<Segment>]) -> Result<(), StoreError> {
        let mut left = LOOKUPS;
        let service = service_column();
        for segment in older.iter().take(NEAR) {
            if self.caused.is_empty() {
                break;
            }
            let traces: HashSet<TraceId> = self.caused.iter().map(|span| span.trace).collect();
            let Some(rest) = left.checked_sub(traces.len()) else { break };
            left = rest;
            let mut callers: HashMap<u64, Option<u32>> =
                self.caused.iter().map(|span| (span.by, None)).collect();
            // What is damaged has no callers to tell of.
            let found = rows_of(segment, &traces).and_then(|rows| {
                for window in segment.windows() {
                    let rows = window.rows.and(&rows);
                    if !rows.is_empty() {
                        let want = Want::Names(&[TRACE_ID, SPAN_ID, &service]);
                        note_callers(&segment.read(&rows, want)?, &mut self.services, &mut callers);
                    }
                }
                Ok(())
            });
            match found {
                Ok(()) | Err(StoreError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
            let caused = std::mem::take(&mut self.caused);
            self.caused = self.join_to(caused, |by| callers.get(&by).copied().flatten());
        }
        Ok(())
    }

    /// The sums; spans here are looked up for `waiting` ends of older segments.
    fn finish(mut self, waiting: Vec<End>) -> Calls {
        let mut calls = Calls::default();
        let mut settled = HashSet::new();
        for end in waiting {
            let Some(caller) = self.callers.get(&end.by).copied().flatten() else { continue };
            let callee = self.services.number(&end.service);
            count(&mut self.edges, caller, callee, end.kind, end.minute, end.error);
            *calls.open.entry((end.kind, end.minute)).or_default() -= 1;
            settled.insert(end.by);
        }
        calls.settled = settled.into_iter().collect();
        calls.settled.sort_unstable();
        calls.settled.truncate(MAX_ENDS);
        let shared: Vec<Arc<str>> =
            self.services.all().iter().map(|name| Arc::from(name.as_str())).collect();
        let ends = self.caused.iter().map(|span| {
            *calls.open.entry((span.kind, span.minute)).or_default() += 1;
            let service = shared.get(span.service as usize).cloned().unwrap_or_default();
            End { by: span.by, kind: span.kind, service, error: span.error, minute: span.minute }
        });
        let ends: Vec<End> = ends.collect();
        calls.ends = newest(ends, MAX_ENDS);
        for ((caller, callee, kind, minute), (all, errors)) in std::mem::take(&mut self.edges) {
            let name = |number| self.services.name(number).to_owned();
            let edge = calls.edges.entry((name(caller), name(callee), kind)).or_default();
            edge.insert(minute, (all, errors));
        }
        self.add_operations(&mut calls);
        calls.bound();
        calls
    }

    fn add_operations(&mut self, calls: &mut Calls) {
        let mut keys = vec![(0, None, 0); self.operations.len()];
        for (key, number) in &self.operations {
            if let Some(place) = keys.get_mut(*number as usize) {
                *place = *key;
            }
        }
        self.calls.sort_unstable();
        let minutes = self.calls.chunk_by(|a, b| {
            (Packed::operation(*a), Packed::minute(*a))
                == (Packed::operation(*b), Packed::minute(*b))
        });
        for of_minute in minutes {
            let Some(first) = of_minute.first() else { continue };
            let Some((service, name, kind)) = keys.get(Packed::operation(*first)) else { continue };
            let name = name.map(|name| self.names.name(name).to_owned());
            let key = (self.services.name(*service).to_owned(), name, *kind);
            let minutes = calls.operations.entry(key).or_default();
            let minute = minutes.entry(Packed::minute(*first)).or_default();
            for bucket in of_minute.chunk_by(|a, b| Packed::bucket(*a) == Packed::bucket(*b)) {
                minute.errors += bucket.iter().map(|call| call & 1).sum::<u64>();
                let number = bucket.first().map_or(0, |call| Packed::bucket(*call));
                minute.latencies.add_bucket(number, bucket.len() as u64);
            }
        }
    }
}

/// Counts a call from `caller` to `callee`, if they are two.
fn count(
    edges: &mut HashMap<(u32, u32, EdgeKind, i64), (u64, u64)>,
    caller: u32,
    callee: u32,
    kind: EdgeKind,
    minute: i64,
    error: bool,
) {
    if caller != callee {
        let sum = edges.entry((caller, callee, kind, minute)).or_default();
        sum.0 += 1;
        sum.1 += u64::from(error);
    }
}

/// Rows of `segment` that may be of `traces`.
fn rows_of(segment: &Segment, traces: &HashSet<TraceId>) -> Result<RowSet, StoreError> {
    let mut ranges = Vec::new();
    for trace in traces {
        ranges.extend(segment.trace_rows(*trace)?.ranges().iter().cloned());
    }
    Ok(RowSet::from_unsorted(ranges))
}

/// Puts down the service of each span of `batch` that `callers` asks for.
pub fn note_callers(batch: &Batch, names: &mut Names, callers: &mut HashMap<u64, Option<u32>>) {
    let columns = SpanRows::new(batch);
    for row in 0..batch.num_rows() {
        let id = columns.trace_id(row).zip(columns.span_id(row));
        let Some((trace, span)) = id else { continue };
        if let Some(caller) = callers.get_mut(&span_key(trace, span)) {
            *caller = Some(names.number(columns.service(row).unwrap_or("")));
        }
    }
}

/// What the spans of `segment` add up to: as it was written down, or, if it was not or is damaged,
/// from the spans themselves, without edges from and to other segments.
pub fn of_segment(segment: &Arc<Segment>) -> Result<Calls, StoreError> {
    if let Ok(Some(calls)) = segment.calls() {
        return Ok(calls);
    }
    gather(&[Arc::clone(segment) as Arc<dyn Part>], &[], Of::All)
}

/// The minutes in which `segment` may have calls or edges.
pub fn minutes_of(segment: &Segment) -> RangeInclusive<i64> {
    let bounds = segment.meta().bounds;
    let (first, last) = (minute_of(bounds.min), minute_of(bounds.max));
    let (from, to) = segment.call_minutes().unwrap_or((first, last));
    from.min(first)..=to.max(last)
}
