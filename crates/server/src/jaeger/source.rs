//! What the query API asks of a store.

use std::ops::ControlFlow;
use std::sync::Arc;

use lacuna_signal::selector::{Selector, SpanKind};
use lacuna_signal::{Batch, SignalKind, TraceId};
use lacuna_store::{OperationCalls, TimeRange};

/// Why a source has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The question touches more rows than the source reads for one answer; a shorter time range
    /// is the way out.
    #[error("{0}")]
    TooMuch(String),
    /// Not now: the memory for answers is used up.
    #[error("{0}")]
    Busy(String),
    /// The source failed.
    #[error("{0}")]
    Failed(Box<dyn std::error::Error + Send + Sync>),
}

impl SourceError {
    /// The source failed with `error`.
    pub fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Failed(error.into())
    }
}

/// A span name that a service uses, with one of the kinds that spans of that name have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Operation {
    /// Span name.
    pub name: String,
    /// Span kind as OTLP numbers it.
    pub kind: u8,
}

/// Names, and what is missing from them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed<T> {
    /// The names, sorted.
    pub items: Vec<T>,
    /// What is missing from them, in words.
    pub warnings: Vec<String>,
}

/// Calls from one service to another, or messages that one sent and the other received.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    /// The calling service.
    pub parent: String,
    /// The called service.
    pub child: String,
    /// How often.
    pub calls: u64,
}

/// All edges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edges {
    /// The edges, by parent and child.
    pub edges: Vec<Edge>,
    /// What is missing from them, in words.
    pub warnings: Vec<String>,
}

/// The spans of one trace.
#[derive(Debug, Clone)]
pub struct Trace {
    /// The spans; no rows if there is no such trace.
    pub spans: Batch,
    /// What is missing from them, in words: the source cut them off or met damage.
    pub warnings: Vec<String>,
}

/// Traces that a search found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matches {
    /// Their ids, newest first.
    pub ids: Vec<TraceId>,
    /// What is missing from them, in words: the source met damage. That there are more than were
    /// asked for is not said.
    pub warnings: Vec<String>,
}

/// The log records of one trace.
#[derive(Debug, Clone)]
pub struct TraceLogs {
    /// The records.
    pub records: Batch,
    /// What is missing from them, in words.
    pub warnings: Vec<String>,
}

/// The verbs that Jaeger's API needs. They block; the API calls them on threads that may.
///
/// Spans of a trace are whole whatever the time range by which the trace was found.
pub trait TraceSource: Send + Sync + 'static {
    /// The source for one question, whose memory is counted as long as it lives; `None` if this one
    /// counts nothing.
    fn question(&self) -> Result<Option<Arc<dyn TraceSource>>, SourceError> {
        Ok(None)
    }

    /// Counts `bytes` of a question's memory besides what the other verbs gather; whether there is room
    /// for them.
    fn hold(&self, bytes: usize) -> bool {
        let _ = bytes;
        true
    }

    /// All spans of a trace.
    fn trace(&self, id: TraceId) -> Result<Trace, SourceError>;

    /// All spans of each of `ids`, in their order; read as they are asked for, so that an answer of
    /// many is never whole in memory.
    fn traces<'a>(
        &'a self,
        ids: &'a [TraceId],
    ) -> Box<dyn Iterator<Item = Result<Trace, SourceError>> + 'a> {
        Box::new(ids.iter().map(|id| self.trace(*id)))
    }

    /// Traces of which at least one span starts in `range` and matches `selector`: at most `limit`
    /// of them, newest first.
    fn find_traces(
        &self,
        selector: &Selector,
        range: TimeRange,
        limit: usize,
    ) -> Result<Matches, SourceError>;

    /// Hands the spans that start in `range` and match `selector` to `visit`, in any order, with
    /// at least the columns named in `columns`, until `visit` breaks. What it gives back is what was
    /// missing from them, in words.
    fn scan_spans(
        &self,
        selector: &Selector,
        range: TimeRange,
        columns: &[&str],
        visit: &mut dyn FnMut(&Batch) -> ControlFlow<()>,
    ) -> Result<Vec<String>, SourceError>;

    /// Names of all services that sent spans, as they are shown, sorted.
    fn services(&self) -> Result<Listed<String>, SourceError>;

    /// Span names of `service`, sorted; none if the service is not known.
    fn operations(&self, service: &str) -> Result<Listed<Operation>, SourceError>;

    /// Which service called which in `range`, by parent and by link.
    fn edges(&self, range: TimeRange) -> Result<Edges, SourceError>;

    /// How often the operations of `services` (as they are shown) were called, of spans of `kinds`, by
    /// minute, of all minutes that times in `range` lie in. `None`: the source has no such sums, or
    /// the spans in `range` are few enough to be read one by one.
    fn calls(
        &self,
        services: &[String],
        kinds: &[SpanKind],
        range: TimeRange,
    ) -> Result<Option<Listed<OperationCalls>>, SourceError> {
        let _ = (services, kinds, range);
        Ok(None)
    }

    /// Log records of a trace. A source that keeps no logs has none.
    fn logs_of_trace(&self, id: TraceId) -> Result<TraceLogs, SourceError> {
        let _ = id;
        Ok(TraceLogs { records: Batch::empty(SignalKind::Logs), warnings: Vec::new() })
    }
}
