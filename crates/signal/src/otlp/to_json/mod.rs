//! Batches as OTLP/JSON.
//!
//! Rows go back into the shape in which they came: grouped by resource, then by instrumentation
//! scope, in the order in which each first occurs. Nothing that a [`Batch`] holds is lost; ids are
//! hex, 64-bit integers decimal strings, enums numbers and fields that have their default are left
//! out, as the OTLP specification's "JSON Protobuf Encoding" has it. No tree is built: the
//! serialiser reads the columns.

mod fields;
mod group;
mod logs;
#[cfg(test)]
mod point_tests;
mod points;
mod spans;
#[cfg(test)]
mod tests;

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use crate::batch::Batch;
use crate::schema::SignalKind;

use group::Groups;

/// Batches of one kind, serialised by `serde_json` as OTLP/JSON `TracesData`, `LogsData` or
/// `MetricsData`: an object with `resourceSpans`, `resourceLogs` or `resourceMetrics`.
///
/// Each batch is grouped by itself, so the spans of one batch stay together. Batches of another
/// kind are left out.
#[derive(Debug, Clone, Copy)]
pub struct OtlpJson<'a> {
    kind: SignalKind,
    batches: &'a [Batch],
}

impl<'a> OtlpJson<'a> {
    /// The rows of `batches` that are of `kind`.
    pub fn new(kind: SignalKind, batches: &'a [Batch]) -> Self {
        Self { kind, batches }
    }
}

impl Serialize for OtlpJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name = match self.kind {
            SignalKind::Spans => "resourceSpans",
            SignalKind::Logs => "resourceLogs",
            SignalKind::Points => "resourceMetrics",
        };
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(name, &Resources(*self))?;
        map.end()
    }
}

/// `batch` as one OTLP/JSON object, ready to be one line of a file or the body of a request.
pub fn to_json(batch: &Batch) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&OtlpJson::new(batch.kind(), std::slice::from_ref(batch)))
}

/// Writes the `ResourceSpans`, `ResourceLogs` or `ResourceMetrics` of `batch` as elements of `seq`:
/// for a document of more batches than are in memory at once.
pub fn serialize_resources<S: SerializeSeq>(batch: &Batch, seq: &mut S) -> Result<(), S::Error> {
    let groups = Groups::new(batch);
    match batch.kind() {
        SignalKind::Spans => {
            groups.serialize_into(seq, "scopeSpans", "spans", &spans::Spans::new(batch))
        }
        SignalKind::Logs => {
            groups.serialize_into(seq, "scopeLogs", "logRecords", &logs::Logs::new(batch))
        }
        SignalKind::Points => {
            groups.serialize_into(seq, "scopeMetrics", "metrics", &points::Points::new(batch))
        }
    }
}

struct Resources<'a>(OtlpJson<'a>);

impl Serialize for Resources<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(None)?;
        for batch in self.0.batches.iter().filter(|batch| batch.kind() == self.0.kind) {
            serialize_resources(batch, &mut seq)?;
        }
        seq.end()
    }
}
