//! The store as a source.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use lacuna_signal::selector::Selector;
use lacuna_signal::{Batch, SignalKind, TraceId};
use lacuna_store::{Finding, Found, Store, StoreError, TimeRange};

use super::source::{Edge, Edges, Matches, Operation, SourceError, Trace, TraceLogs, TraceSource};
use super::unnamed::{NO_SERVICE, shown};

/// Names in a list, at most.
const NAMES: usize = 100_000;
/// Spans that are read to find out who calls whom, at most.
const EDGE_SPANS: usize = 20_000_000;
/// Log records that are shown with a trace, at most.
const TRACE_LOGS: usize = 10_000;

impl From<StoreError> for SourceError {
    fn from(error: StoreError) -> Self {
        Self::failed(error)
    }
}

/// What an answer lacks, in words.
fn warnings(cut: bool, what: &str, damaged: &[Finding]) -> Vec<String> {
    let cut = cut.then(|| format!("only a part: there are more {what} than are read at once"));
    let damaged = damaged.iter().map(|finding| format!("a part may be missing: {finding}"));
    cut.into_iter().chain(damaged).collect()
}

fn read(found: Found<Batch>) -> Trace {
    let Found { items, cut, damaged, .. } = found;
    Trace { spans: items, warnings: warnings(cut, "spans", &damaged) }
}

impl TraceSource for Store {
    fn trace(&self, id: TraceId) -> Result<Trace, SourceError> {
        Ok(read(Store::trace(self, id, None)?))
    }

    fn traces<'a>(
        &'a self,
        ids: &'a [TraceId],
    ) -> Box<dyn Iterator<Item = Result<Trace, SourceError>> + 'a> {
        Box::new(Store::traces(self, ids).map(|found| Ok(read(found?))))
    }

    fn find_traces(
        &self,
        selector: &Selector,
        range: TimeRange,
        limit: usize,
    ) -> Result<Matches, SourceError> {
        let found = Store::find_traces(self, selector, range, limit)?;
        let ids = found.items.iter().map(|found| found.trace_id).collect();
        Ok(Matches { ids, warnings: warnings(false, "traces", &found.damaged) })
    }

    fn scan_spans(
        &self,
        selector: &Selector,
        range: TimeRange,
        columns: &[&str],
        visit: &mut dyn FnMut(&Batch) -> ControlFlow<()>,
    ) -> Result<(), SourceError> {
        let kind = SignalKind::Spans;
        for batch in self.scan(kind, Some(selector), range, Some(columns), usize::MAX)? {
            if visit(&batch?).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn services(&self) -> Result<Vec<String>, SourceError> {
        let found = Store::services(self, TimeRange::ALL, NAMES)?.items.into_iter();
        let of_spans = found.filter(|service| service.spans > 0);
        let names: BTreeSet<String> =
            of_spans.map(|service| shown(&service.name).to_owned()).collect();
        Ok(names.into_iter().collect())
    }

    fn operations(&self, service: &str) -> Result<Vec<Operation>, SourceError> {
        let mut operations = BTreeSet::new();
        let unnamed = (service == NO_SERVICE).then_some("");
        for name in std::iter::once(service).chain(unnamed) {
            let found = Store::operations(self, name, None, TimeRange::ALL, NAMES)?.items;
            let operation =
                |found: lacuna_store::Operation| Operation { name: found.name, kind: found.kind };
            operations.extend(found.into_iter().map(operation));
        }
        Ok(operations.into_iter().collect())
    }

    fn edges(&self, range: TimeRange) -> Result<Edges, SourceError> {
        let Found { items, cut, damaged, .. } = Store::edges(self, range, EDGE_SPANS)?;
        let mut calls: BTreeMap<(String, String), u64> = BTreeMap::new();
        for edge in items.edges {
            let ends = (shown(&edge.parent).to_owned(), shown(&edge.child).to_owned());
            *calls.entry(ends).or_default() += edge.calls;
        }
        let edge = |((parent, child), calls)| Edge { parent, child, calls };
        Ok(Edges {
            edges: calls.into_iter().map(edge).collect(),
            warnings: warnings(cut, "spans", &damaged),
        })
    }

    fn logs_of_trace(&self, id: TraceId) -> Result<TraceLogs, SourceError> {
        let found = Store::logs_of_trace(self, id, None, TRACE_LOGS)?;
        let warnings = warnings(found.cut, "log records", &found.damaged);
        Ok(TraceLogs { records: found.items, warnings })
    }
}
