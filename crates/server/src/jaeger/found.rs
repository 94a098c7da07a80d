//! The traces that a search found, read while the answer is sent: no answer of many is ever whole in
//! memory.

use std::sync::Arc;

use lacuna_signal::{Batch, TraceId};
use serde::ser::{Error, SerializeSeq};
use serde::{Serialize, Serializer};

use super::adjust::adjust;
use super::plain::serialize_spans;
use super::source::{SourceError, Trace, TraceSource};
use super::ui::UiTrace;

/// Traces yet to be read.
pub struct FoundTraces {
    source: Arc<dyn TraceSource>,
    ids: Vec<TraceId>,
    raw: bool,
}

impl FoundTraces {
    /// The traces `ids` of `source`; as they are stored if `raw`.
    pub fn new(source: &Arc<dyn TraceSource>, ids: Vec<TraceId>, raw: bool) -> Self {
        Self { source: Arc::clone(source), ids, raw }
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Reads each trace. One that retention has removed since it was found is left out.
    pub fn read(&self) -> impl Iterator<Item = Result<Trace, SourceError>> {
        self.source
            .traces(&self.ids)
            .filter_map(|trace| trace.and_then(|trace| ready(trace, self.raw)).transpose())
    }
}

/// The spans of a trace, made ready to be shown unless `raw`; `None` if there are none.
pub fn load(
    source: &dyn TraceSource,
    id: TraceId,
    raw: bool,
) -> Result<Option<Trace>, SourceError> {
    ready(source.trace(id)?, raw)
}

fn ready(mut trace: Trace, raw: bool) -> Result<Option<Trace>, SourceError> {
    if trace.spans.num_rows() == 0 {
        return Ok(None);
    }
    if !raw {
        trace.spans = adjust(&trace.spans)?;
    }
    Ok(Some(trace))
}

/// The traces as v1 shows them.
pub struct V1Traces(pub FoundTraces);

impl Serialize for V1Traces {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(None)?;
        for trace in self.0.read() {
            let Trace { spans, warnings } = trace.map_err(S::Error::custom)?;
            seq.serialize_element(&UiTrace { spans, logs: None, warnings })?;
        }
        seq.end()
    }
}

/// One trace as an array of OTLP/JSON `ResourceSpans`.
pub struct OneTrace {
    /// Its spans.
    pub spans: Batch,
    /// As they are stored.
    pub raw: bool,
}

impl Serialize for OneTrace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(None)?;
        serialize_spans(&self.spans, self.raw, &mut seq)?;
        seq.end()
    }
}

/// The traces as an array of OTLP/JSON `ResourceSpans`.
pub struct ResourceSpans(pub FoundTraces);

impl Serialize for ResourceSpans {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(None)?;
        for trace in self.0.read() {
            serialize_spans(&trace.map_err(S::Error::custom)?.spans, self.0.raw, &mut seq)?;
        }
        seq.end()
    }
}
