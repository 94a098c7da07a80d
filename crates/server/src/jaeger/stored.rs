//! The store as a source.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use lacuna_signal::selector::{Selector, SpanKind};
use lacuna_signal::{Batch, SignalKind, TraceId};
use lacuna_store::{Found, OperationCalls, Store, StoreError, TimeRange};

use super::source::{
    Edge, Edges, Listed, Matches, Operation, SourceError, Trace, TraceLogs, TraceSource,
};
use super::unnamed::{NO_SERVICE, shown};
use crate::lacking::{damage, lacking, note};

/// Names in a list, at most.
const NAMES: usize = 100_000;
/// Spans that are read to find out who calls whom and how often, at most, where segments do not say
/// what theirs add up to.
const SUMMED_SPANS: usize = 5_000_000;
/// Log records that are shown with a trace, at most.
const TRACE_LOGS: usize = 10_000;

impl From<StoreError> for SourceError {
    fn from(error: StoreError) -> Self {
        match error {
            busy @ StoreError::Busy { .. } => Self::Busy(busy.to_string()),
            other => Self::failed(other),
        }
    }
}

fn read(found: Found<Batch>) -> Trace {
    let warnings = lacking(&found, "spans");
    Trace { spans: found.items, warnings }
}

impl TraceSource for Store {
    fn question(&self) -> Result<Option<Arc<dyn TraceSource>>, SourceError> {
        Ok(Some(Arc::new(Store::question(self)?)))
    }

    fn hold(&self, bytes: usize) -> bool {
        Store::hold(self, bytes)
    }

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
        let found = self.newest_traces(selector, range, limit)?;
        let ids = found.items.iter().map(|(id, _)| *id).collect();
        Ok(Matches { ids, warnings: damage(&found.damaged) })
    }

    fn scan_spans(
        &self,
        selector: &Selector,
        range: TimeRange,
        columns: &[&str],
        visit: &mut dyn FnMut(&Batch) -> ControlFlow<()>,
    ) -> Result<Vec<String>, SourceError> {
        let kind = SignalKind::Spans;
        let mut scan = self.scan(kind, Some(selector), range, Some(columns), usize::MAX)?;
        for batch in scan.by_ref() {
            if visit(&batch?).is_break() {
                break;
            }
        }
        Ok(damage(scan.damaged()))
    }

    fn services(&self) -> Result<Listed<String>, SourceError> {
        let found = Store::services(self, TimeRange::ALL, NAMES)?;
        let warnings = lacking(&found, "services");
        let of_spans = found.items.into_iter().filter(|service| service.spans > 0);
        let names: BTreeSet<String> =
            of_spans.map(|service| shown(&service.name).to_owned()).collect();
        Ok(Listed { items: names.into_iter().collect(), warnings })
    }

    fn operations(&self, service: &str) -> Result<Listed<Operation>, SourceError> {
        let (mut operations, mut warnings) = (BTreeSet::new(), Vec::new());
        let unnamed = (service == NO_SERVICE).then_some("");
        for name in std::iter::once(service).chain(unnamed) {
            let found = Store::operations(self, name, None, TimeRange::ALL, NAMES)?;
            note(&mut warnings, lacking(&found, "operations"));
            let operation =
                |found: lacuna_store::Operation| Operation { name: found.name, kind: found.kind };
            operations.extend(found.items.into_iter().map(operation));
        }
        Ok(Listed { items: operations.into_iter().collect(), warnings })
    }

    fn edges(&self, range: TimeRange) -> Result<Edges, SourceError> {
        let found = Store::edges(self, range, SUMMED_SPANS)?;
        let warnings = lacking(&found, "spans");
        let mut calls: BTreeMap<(String, String), u64> = BTreeMap::new();
        for edge in found.items.edges {
            let ends = (shown(&edge.parent).to_owned(), shown(&edge.child).to_owned());
            *calls.entry(ends).or_default() += edge.calls;
        }
        let edge = |((parent, child), calls)| Edge { parent, child, calls };
        Ok(Edges { edges: calls.into_iter().map(edge).collect(), warnings })
    }

    fn calls(
        &self,
        services: &[String],
        kinds: &[SpanKind],
        range: TimeRange,
    ) -> Result<Option<Listed<OperationCalls>>, SourceError> {
        if self.rows_within(SignalKind::Spans, range) <= self.summary_rows() as u64 {
            return Ok(None);
        }
        let wanted = |service: &str, kind: u8| {
            services.iter().any(|name| name == shown(service))
                && SpanKind::from_code(kind).is_some_and(|kind| kinds.contains(&kind))
        };
        let found = Store::calls(self, range, &wanted, SUMMED_SPANS)?;
        let warnings = lacking(&found, "spans");
        let mut items = found.items;
        for operation in &mut items {
            operation.service = shown(&operation.service).to_owned();
        }
        Ok(Some(Listed { items, warnings }))
    }

    fn logs_of_trace(&self, id: TraceId) -> Result<TraceLogs, SourceError> {
        let found = Store::logs_of_trace(self, id, None, TRACE_LOGS)?;
        let warnings = lacking(&found, "log records");
        Ok(TraceLogs { records: found.items, warnings })
    }
}
