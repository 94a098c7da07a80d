//! Rows of log records.

use arrow::array::{FixedSizeBinaryArray, PrimitiveArray, StringViewArray};
use arrow::datatypes::{TimestampNanosecondType, UInt8Type};

use super::{id, number, text};
use crate::batch::Batch;
use crate::ids::{SpanId, TraceId};
use crate::schema as c;

/// The fixed columns of a batch of log records.
#[derive(Debug, Clone, Copy)]
pub struct LogRows<'a> {
    time: Option<&'a PrimitiveArray<TimestampNanosecondType>>,
    observed: Option<&'a PrimitiveArray<TimestampNanosecondType>>,
    trace_id: Option<&'a FixedSizeBinaryArray>,
    span_id: Option<&'a FixedSizeBinaryArray>,
    severity: Option<&'a PrimitiveArray<UInt8Type>>,
    severity_text: Option<&'a StringViewArray>,
    body: Option<&'a StringViewArray>,
    body_any: Option<&'a StringViewArray>,
    event_name: Option<&'a StringViewArray>,
    service: Option<&'a StringViewArray>,
    scope_name: Option<&'a StringViewArray>,
}

impl<'a> LogRows<'a> {
    /// The columns of `batch`.
    pub fn new(batch: &'a Batch) -> Self {
        Self {
            time: batch.number_column(c::TIME),
            observed: batch.number_column(c::OBSERVED_TIME),
            trace_id: batch.id_column(c::TRACE_ID),
            span_id: batch.id_column(c::SPAN_ID),
            severity: batch.number_column(c::SEVERITY),
            severity_text: batch.text_column(c::SEVERITY_TEXT),
            body: batch.text_column(c::BODY),
            body_any: batch.text_column(c::BODY_ANY),
            event_name: batch.text_column(c::EVENT_NAME),
            service: batch.service_column(),
            scope_name: batch.text_column(c::SCOPE_NAME),
        }
    }

    /// Nanoseconds since the epoch.
    pub fn time(&self, row: usize) -> i64 {
        number(self.time, row).unwrap_or(0)
    }

    /// When the record was observed by the collection system.
    pub fn observed(&self, row: usize) -> Option<i64> {
        number(self.observed, row)
    }

    /// The trace that the record belongs to.
    pub fn trace_id(&self, row: usize) -> Option<TraceId> {
        TraceId::from_bytes(id(self.trace_id, row)?)
    }

    /// The span that the record belongs to.
    pub fn span_id(&self, row: usize) -> Option<SpanId> {
        SpanId::from_bytes(id(self.span_id, row)?)
    }

    /// Severity number, 1 to 24; 0 unspecified.
    pub fn severity(&self, row: usize) -> u8 {
        number(self.severity, row).unwrap_or(0)
    }

    /// Severity as the source names it.
    pub fn severity_text(&self, row: usize) -> Option<&'a str> {
        text(self.severity_text, row)
    }

    /// The body's text; a body of another type as its OTLP/JSON.
    pub fn body(&self, row: usize) -> Option<&'a str> {
        text(self.body, row).or_else(|| text(self.body_any, row))
    }

    /// Event name.
    pub fn event_name(&self, row: usize) -> Option<&'a str> {
        text(self.event_name, row)
    }

    /// Resource attribute `service.name`.
    pub fn service(&self, row: usize) -> Option<&'a str> {
        text(self.service, row)
    }

    /// Instrumentation scope name.
    pub fn scope_name(&self, row: usize) -> Option<&'a str> {
        text(self.scope_name, row)
    }
}
