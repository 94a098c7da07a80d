//! Paths of calls through a service: Jaeger UI's deep dependency graph.

use std::collections::{BTreeMap, HashMap};

use lacuna_signal::rows::SpanRows;
use lacuna_signal::{Batch, SpanId, TraceId};
use lacuna_store::TimeRange;
use serde::Serialize;

use super::error::ApiError;
use super::found::load;
use super::query::{Query, units};
use super::search::{focal_expr, spans};
use super::source::{Matches, TraceSource};
use super::unnamed::service_of;
use crate::lacking::note;

const MICROS: i64 = 1_000;
/// Jaeger's UI sends no times; this far back is looked then.
const LOOKBACK: i64 = 2 * 24 * 3_600 * 1_000_000_000;
/// Newest traces that the graph is made of.
const TRACES: usize = 200;
/// Traces named for each path.
const EXEMPLARS: usize = 5;

/// A request for the paths through a service.
#[derive(Debug)]
pub struct PathsRequest {
    service: String,
    operation: Option<String>,
    range: TimeRange,
}

impl PathsRequest {
    /// Reads `service`, `operation`, and `start` and `end` in microseconds (0 for none).
    pub fn parse(query: &Query, now: i64) -> Result<Self, ApiError> {
        let Some(service) = query.get("service") else {
            return Err(ApiError::bad("parameter 'service' is required"));
        };
        let end = query.v1("end", units(MICROS))?.filter(|end| *end > 0).unwrap_or(now);
        let start = query.v1("start", units(MICROS))?.filter(|start| *start > 0);
        Ok(Self {
            service: service.to_owned(),
            operation: query.get("operation").map(str::to_owned),
            range: TimeRange {
                start: start.unwrap_or_else(|| end.saturating_sub(LOOKBACK)),
                end: end.saturating_add(MICROS),
            },
        })
    }
}

/// One step of a path: a service, and the operation by which the path enters it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Step {
    service: String,
    operation: String,
}

/// The answer; it comes without v1's envelope.
#[derive(Debug, Serialize)]
pub struct Paths {
    dependencies: Vec<CallPath>,
    /// What is missing from them, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct CallPath {
    path: Vec<Step>,
    attributes: Vec<Exemplar>,
}

#[derive(Debug, Serialize)]
struct Exemplar {
    key: &'static str,
    value: TraceId,
}

/// The paths, from a trace's root to a last called service, that lead through the service, each
/// once, with traces that took it.
pub fn find(source: &dyn TraceSource, request: &PathsRequest) -> Result<Paths, ApiError> {
    let selector = spans(focal_expr(&request.service, request.operation.as_deref()))?;
    let mut paths: BTreeMap<Vec<Step>, Vec<TraceId>> = BTreeMap::new();
    let Matches { ids, mut warnings } = source.find_traces(&selector, request.range, TRACES)?;
    for id in ids {
        let Some(trace) = load(source, id, false)? else { continue };
        note(&mut warnings, trace.warnings);
        for path in paths_of(&trace.spans, request) {
            let traces = paths.entry(path).or_default();
            if traces.len() < EXEMPLARS && traces.last() != Some(&id) {
                traces.push(id);
            }
        }
    }
    let dependencies = paths.into_iter().map(|(path, traces)| CallPath {
        path,
        attributes: traces
            .into_iter()
            .map(|value| Exemplar { key: "exemplar_trace_id", value })
            .collect(),
    });
    Ok(Paths { dependencies: dependencies.collect(), warnings })
}

fn paths_of(trace: &Batch, request: &PathsRequest) -> Vec<Vec<Step>> {
    let rows = SpanRows::new(trace);
    let count = trace.num_rows();
    let by_id: HashMap<SpanId, usize> =
        (0..count).filter_map(|row| Some((rows.span_id(row)?, row))).collect();
    let trace_id = rows.trace_id(0);
    let callers: Vec<Option<usize>> = (0..count)
        .map(|row| {
            let parent = rows.parent_span_id(row).and_then(|parent| by_id.get(&parent));
            // Kafka's convention: a consumer names its producer by a link.
            let linked = || {
                let mut links = rows.links(row).filter(|link| Some(link.trace_id) == trace_id);
                links.find_map(|link| by_id.get(&link.span_id))
            };
            parent.or_else(linked).copied().filter(|caller| *caller != row)
        })
        .collect();
    let is_focal = |row: usize| {
        service_of(&rows, row) == request.service
            && request.operation.as_deref().is_none_or(|operation| rows.name(row) == operation)
    };
    let is_step: Vec<bool> = (0..count)
        .map(|row| {
            let enters =
                callers[row].is_none_or(|caller| rows.service(caller) != rows.service(row));
            enters || (request.operation.is_some() && is_focal(row))
        })
        .collect();
    let previous = previous_steps(&callers, &is_step);
    let mut is_last = is_step.clone();
    for caller in (0..count).filter(|row| is_step[*row]).filter_map(|row| previous[row]) {
        is_last[caller] = false;
    }
    let mut paths = Vec::new();
    for last in (0..count).filter(|row| is_last[*row]) {
        let mut path = vec![last];
        // A path longer than there are spans goes in a circle.
        while let Some(step) =
            path.last().and_then(|row| previous[*row]).filter(|_| path.len() < count)
        {
            path.push(step);
        }
        if path.iter().any(|row| is_focal(*row)) {
            let step = |row: usize| Step {
                service: service_of(&rows, row).to_owned(),
                operation: rows.name(row).to_owned(),
            };
            paths.push(path.into_iter().rev().map(step).collect());
        }
    }
    paths.sort();
    paths.dedup();
    paths
}

/// The nearest caller of each span that is a step.
fn previous_steps(callers: &[Option<usize>], is_step: &[bool]) -> Vec<Option<usize>> {
    let mut previous: Vec<Option<Option<usize>>> = vec![None; callers.len()];
    for row in 0..callers.len() {
        let mut way = Vec::new();
        let mut at = row;
        let found = loop {
            if let Some(known) = previous[at] {
                break known;
            }
            // Whoever comes by here again, in a circle, finds no step.
            previous[at] = Some(None);
            way.push(at);
            match callers[at] {
                None => break None,
                Some(caller) if is_step[caller] => break Some(caller),
                Some(caller) => at = caller,
            }
        };
        for passed in way {
            previous[passed] = Some(found);
        }
    }
    previous.into_iter().map(Option::flatten).collect()
}
