//! Spans and logs in memory, and everything found by looking at each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use arrow::array::BooleanArray;
use lacuna_server::jaeger::{
    Edge, Edges, Listed, Matches, Operation, SourceError, Trace, TraceLogs, TraceSource, shown,
};
use lacuna_signal::rows::{LogRows, SpanRows};
use lacuna_signal::selector::Selector;
use lacuna_signal::{Batch, TraceId};
use lacuna_store::TimeRange;

use crate::harness::{LOGS, SPANS, logs, spans};

fn service_of<'a>(rows: &SpanRows<'a>, row: usize) -> &'a str {
    shown(rows.service(row).unwrap_or_default())
}

/// All there is.
pub struct MemorySource {
    pub spans: Batch,
    pub logs: Batch,
}

impl MemorySource {
    /// The fixtures.
    pub fn fixtures() -> Self {
        Self { spans: spans(SPANS), logs: logs(LOGS) }
    }

    fn rows(&self, keep: impl Fn(&SpanRows<'_>, usize) -> bool) -> Result<Batch, SourceError> {
        let rows = SpanRows::new(&self.spans);
        let mask: BooleanArray =
            (0..self.spans.num_rows()).map(|row| Some(keep(&rows, row))).collect();
        self.spans.filter(&mask).map_err(SourceError::failed)
    }

    fn matching(&self, selector: &Selector, range: TimeRange) -> Result<Batch, SourceError> {
        let mask = selector.mask(&self.spans);
        self.rows(|rows, row| {
            mask.value(row) && (range.start..range.end).contains(&rows.start(row))
        })
    }
}

impl TraceSource for MemorySource {
    fn trace(&self, id: TraceId) -> Result<Trace, SourceError> {
        let spans = self.rows(|rows, row| rows.trace_id(row) == Some(id))?;
        Ok(Trace { spans, warnings: Vec::new() })
    }

    fn find_traces(
        &self,
        selector: &Selector,
        range: TimeRange,
        limit: usize,
    ) -> Result<Matches, SourceError> {
        let found = self.matching(selector, range)?;
        let rows = SpanRows::new(&found);
        let mut newest: BTreeMap<TraceId, i64> = BTreeMap::new();
        for row in 0..found.num_rows() {
            let time = newest.entry(rows.trace_id(row).unwrap()).or_insert(i64::MIN);
            *time = rows.start(row).max(*time);
        }
        let mut ids: Vec<_> = newest.into_iter().collect();
        ids.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
        let ids = ids.into_iter().take(limit).map(|(id, _)| id).collect();
        Ok(Matches { ids, warnings: Vec::new() })
    }

    fn scan_spans(
        &self,
        selector: &Selector,
        range: TimeRange,
        columns: &[&str],
        visit: &mut dyn FnMut(&Batch) -> ControlFlow<()>,
    ) -> Result<Vec<String>, SourceError> {
        let found =
            self.matching(selector, range)?.project(columns).map_err(SourceError::failed)?;
        for row in 0..found.num_rows() {
            if visit(&found.slice(row, 1)).is_break() {
                break;
            }
        }
        Ok(Vec::new())
    }

    fn services(&self) -> Result<Listed<String>, SourceError> {
        let rows = SpanRows::new(&self.spans);
        let names = (0..self.spans.num_rows()).map(|row| service_of(&rows, row));
        let names: BTreeSet<String> = names.map(str::to_owned).collect();
        Ok(Listed { items: names.into_iter().collect(), warnings: Vec::new() })
    }

    fn operations(&self, service: &str) -> Result<Listed<Operation>, SourceError> {
        let rows = SpanRows::new(&self.spans);
        let of = (0..self.spans.num_rows()).filter(|row| service_of(&rows, *row) == service);
        let operation = |row| Operation { name: rows.name(row).to_owned(), kind: rows.kind(row) };
        let operations: BTreeSet<Operation> = of.map(operation).collect();
        Ok(Listed { items: operations.into_iter().collect(), warnings: Vec::new() })
    }

    fn edges(&self, range: TimeRange) -> Result<Edges, SourceError> {
        let rows = SpanRows::new(&self.spans);
        let all = 0..self.spans.num_rows();
        let mut edges: BTreeMap<(String, String), u64> = BTreeMap::new();
        for row in all.clone().filter(|row| (range.start..range.end).contains(&rows.start(*row))) {
            let Some(parent) = rows.parent_span_id(row) else { continue };
            let Some(caller) = all.clone().find(|other| {
                rows.span_id(*other) == Some(parent) && rows.trace_id(*other) == rows.trace_id(row)
            }) else {
                continue;
            };
            let (from, to) = (service_of(&rows, caller), service_of(&rows, row));
            if from != to {
                *edges.entry((from.to_owned(), to.to_owned())).or_default() += 1;
            }
        }
        let edge = |((parent, child), calls)| Edge { parent, child, calls };
        Ok(Edges { edges: edges.into_iter().map(edge).collect(), warnings: Vec::new() })
    }

    fn logs_of_trace(&self, id: TraceId) -> Result<TraceLogs, SourceError> {
        let rows = LogRows::new(&self.logs);
        let mask: BooleanArray =
            (0..self.logs.num_rows()).map(|row| Some(rows.trace_id(row) == Some(id))).collect();
        let records = self.logs.filter(&mask).map_err(SourceError::failed)?;
        Ok(TraceLogs { records, warnings: Vec::new() })
    }
}
