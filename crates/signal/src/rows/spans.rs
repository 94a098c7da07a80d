//! Rows of spans.

use arrow::array::{AsArray, FixedSizeBinaryArray, ListArray, PrimitiveArray, StringViewArray};
use arrow::datatypes::{Int64Type, TimestampNanosecondType, UInt8Type, UInt32Type};

use super::{id, items, number, text};
use crate::batch::Batch;
use crate::ids::{SpanId, TraceId};
use crate::schema as c;
use crate::value::AttributeList;

/// The fixed columns of a batch of spans.
#[derive(Debug, Clone, Copy)]
pub struct SpanRows<'a> {
    trace_id: Option<&'a FixedSizeBinaryArray>,
    span_id: Option<&'a FixedSizeBinaryArray>,
    parent_span_id: Option<&'a FixedSizeBinaryArray>,
    trace_state: Option<&'a StringViewArray>,
    flags: Option<&'a PrimitiveArray<UInt32Type>>,
    service: Option<&'a StringViewArray>,
    name: Option<&'a StringViewArray>,
    kind: Option<&'a PrimitiveArray<UInt8Type>>,
    start: Option<&'a PrimitiveArray<TimestampNanosecondType>>,
    duration: Option<&'a PrimitiveArray<Int64Type>>,
    status_code: Option<&'a PrimitiveArray<UInt8Type>>,
    status_message: Option<&'a StringViewArray>,
    scope_name: Option<&'a StringViewArray>,
    scope_version: Option<&'a StringViewArray>,
    events: Option<&'a ListArray>,
    links: Option<&'a ListArray>,
}

impl<'a> SpanRows<'a> {
    /// The columns of `batch`.
    pub fn new(batch: &'a Batch) -> Self {
        Self {
            trace_id: batch.id_column(c::TRACE_ID),
            span_id: batch.id_column(c::SPAN_ID),
            parent_span_id: batch.id_column(c::PARENT_SPAN_ID),
            trace_state: batch.text_column(c::TRACE_STATE),
            flags: batch.number_column(c::FLAGS),
            service: batch.service_column(),
            name: batch.text_column(c::NAME),
            kind: batch.number_column(c::KIND),
            start: batch.number_column(c::START_TIME),
            duration: batch.number_column(c::DURATION),
            status_code: batch.number_column(c::STATUS_CODE),
            status_message: batch.text_column(c::STATUS_MESSAGE),
            scope_name: batch.text_column(c::SCOPE_NAME),
            scope_version: batch.text_column(c::SCOPE_VERSION),
            events: batch.list_column(c::EVENTS),
            links: batch.list_column(c::LINKS),
        }
    }

    /// Trace id.
    pub fn trace_id(&self, row: usize) -> Option<TraceId> {
        TraceId::from_bytes(id(self.trace_id, row)?)
    }

    /// Span id.
    pub fn span_id(&self, row: usize) -> Option<SpanId> {
        SpanId::from_bytes(id(self.span_id, row)?)
    }

    /// The parent's span id; `None` for a root.
    pub fn parent_span_id(&self, row: usize) -> Option<SpanId> {
        SpanId::from_bytes(id(self.parent_span_id, row)?)
    }

    /// W3C trace state.
    pub fn trace_state(&self, row: usize) -> Option<&'a str> {
        text(self.trace_state, row)
    }

    /// Trace flags.
    pub fn flags(&self, row: usize) -> u32 {
        number(self.flags, row).unwrap_or(0)
    }

    /// Resource attribute `service.name`.
    pub fn service(&self, row: usize) -> Option<&'a str> {
        text(self.service, row)
    }

    /// Span name; empty if not known.
    pub fn name(&self, row: usize) -> &'a str {
        text(self.name, row).unwrap_or("")
    }

    /// Span kind as OTLP numbers it.
    pub fn kind(&self, row: usize) -> u8 {
        number(self.kind, row).unwrap_or(0)
    }

    /// Start, nanoseconds since the epoch.
    pub fn start(&self, row: usize) -> i64 {
        number(self.start, row).unwrap_or(0)
    }

    /// Duration in nanoseconds.
    pub fn duration(&self, row: usize) -> i64 {
        number(self.duration, row).unwrap_or(0)
    }

    /// End, nanoseconds since the epoch.
    pub fn end(&self, row: usize) -> i64 {
        self.start(row).saturating_add(self.duration(row))
    }

    /// Status: 0 unset, 1 ok, 2 error.
    pub fn status_code(&self, row: usize) -> u8 {
        number(self.status_code, row).unwrap_or(0)
    }

    /// Status description.
    pub fn status_message(&self, row: usize) -> Option<&'a str> {
        text(self.status_message, row)
    }

    /// Instrumentation scope name.
    pub fn scope_name(&self, row: usize) -> Option<&'a str> {
        text(self.scope_name, row)
    }

    /// Instrumentation scope version.
    pub fn scope_version(&self, row: usize) -> Option<&'a str> {
        text(self.scope_version, row)
    }

    /// The span's events, in the order in which the emitter gave them.
    pub fn events(&self, row: usize) -> impl Iterator<Item = SpanEvent<'a>> + use<'a> {
        items(self.events, row).map(|(events, i)| SpanEvent {
            time: events.column(0).as_primitive::<TimestampNanosecondType>().value(i),
            name: events.column(1).as_string_view().value(i),
            attributes: AttributeList::in_row(events.column(2).as_list(), i),
            dropped_attributes: events.column(3).as_primitive::<UInt32Type>().value(i),
        })
    }

    /// The span's links.
    pub fn links(&self, row: usize) -> impl Iterator<Item = SpanLink<'a>> + use<'a> {
        items(self.links, row).filter_map(|(links, i)| {
            Some(SpanLink {
                trace_id: TraceId::from_bytes(links.column(0).as_fixed_size_binary().value(i))?,
                span_id: SpanId::from_bytes(links.column(1).as_fixed_size_binary().value(i))?,
                trace_state: links.column(2).as_string_view().value(i),
                attributes: AttributeList::in_row(links.column(3).as_list(), i),
                dropped_attributes: links.column(4).as_primitive::<UInt32Type>().value(i),
                flags: links.column(5).as_primitive::<UInt32Type>().value(i),
            })
        })
    }
}

/// One event of a span.
#[derive(Debug, Clone, Copy)]
pub struct SpanEvent<'a> {
    /// Nanoseconds since the epoch.
    pub time: i64,
    /// Event name.
    pub name: &'a str,
    /// Attributes.
    pub attributes: Option<AttributeList<'a>>,
    /// Attributes that the emitter dropped.
    pub dropped_attributes: u32,
}

/// One link of a span.
#[derive(Debug, Clone, Copy)]
pub struct SpanLink<'a> {
    /// The linked span's trace.
    pub trace_id: TraceId,
    /// The linked span.
    pub span_id: SpanId,
    /// Its W3C trace state.
    pub trace_state: &'a str,
    /// Attributes.
    pub attributes: Option<AttributeList<'a>>,
    /// Attributes that the emitter dropped.
    pub dropped_attributes: u32,
    /// Trace flags.
    pub flags: u32,
}
