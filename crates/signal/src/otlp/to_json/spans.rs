//! Spans as OTLP/JSON.

use arrow::array::PrimitiveArray;
use arrow::datatypes::UInt32Type;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use crate::batch::Batch;
use crate::rows::{SpanEvent, SpanLink, SpanRows};
use crate::schema::{self, Scope};
use crate::value::Attributes;

use super::fields;
use super::group::ScopeItems;

/// The columns of a batch of spans.
pub struct Spans<'a> {
    rows: SpanRows<'a>,
    attributes: Attributes<'a>,
    dropped_attributes: Option<&'a PrimitiveArray<UInt32Type>>,
    dropped_events: Option<&'a PrimitiveArray<UInt32Type>>,
    dropped_links: Option<&'a PrimitiveArray<UInt32Type>>,
}

impl<'a> Spans<'a> {
    pub fn new(batch: &'a Batch) -> Self {
        Self {
            rows: SpanRows::new(batch),
            attributes: batch.attributes(Scope::Span),
            dropped_attributes: batch.number_column(schema::DROPPED_ATTRIBUTES),
            dropped_events: batch.number_column(schema::DROPPED_EVENTS),
            dropped_links: batch.number_column(schema::DROPPED_LINKS),
        }
    }
}

impl ScopeItems for Spans<'_> {
    fn serialize_rows<S: SerializeSeq>(&self, rows: &[usize], seq: &mut S) -> Result<(), S::Error> {
        rows.iter().try_for_each(|row| seq.serialize_element(&Span(self, *row)))
    }
}

struct Span<'s, 'a>(&'s Spans<'a>, usize);

impl Serialize for Span<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(spans, row) = *self;
        let rows = &spans.rows;
        let mut map = serializer.serialize_map(None)?;
        fields::id(&mut map, "traceId", rows.trace_id(row))?;
        fields::id(&mut map, "spanId", rows.span_id(row))?;
        fields::text(&mut map, "traceState", rows.trace_state(row))?;
        fields::id(&mut map, "parentSpanId", rows.parent_span_id(row))?;
        fields::number(&mut map, "flags", rows.flags(row))?;
        fields::text(&mut map, "name", Some(rows.name(row)))?;
        fields::number(&mut map, "kind", u32::from(rows.kind(row)))?;
        fields::time(&mut map, "startTimeUnixNano", rows.start(row))?;
        fields::time(&mut map, "endTimeUnixNano", rows.end(row))?;
        fields::row_attributes(&mut map, &spans.attributes, row)?;
        let dropped = fields::count(spans.dropped_attributes, row);
        fields::number(&mut map, "droppedAttributesCount", dropped)?;
        if rows.events(row).next().is_some() {
            map.serialize_entry("events", &Events(rows, row))?;
        }
        fields::number(&mut map, "droppedEventsCount", fields::count(spans.dropped_events, row))?;
        if rows.links(row).next().is_some() {
            map.serialize_entry("links", &Links(rows, row))?;
        }
        fields::number(&mut map, "droppedLinksCount", fields::count(spans.dropped_links, row))?;
        map.serialize_entry("status", &Status(rows, row))?;
        map.end()
    }
}

struct Status<'s, 'a>(&'s SpanRows<'a>, usize);

impl Serialize for Status<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        fields::text(&mut map, "message", self.0.status_message(self.1))?;
        fields::number(&mut map, "code", u32::from(self.0.status_code(self.1)))?;
        map.end()
    }
}

struct Events<'s, 'a>(&'s SpanRows<'a>, usize);

impl Serialize for Events<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.events(self.1).map(Event))
    }
}

struct Event<'a>(SpanEvent<'a>);

impl Serialize for Event<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        fields::time(&mut map, "timeUnixNano", self.0.time)?;
        fields::text(&mut map, "name", Some(self.0.name))?;
        fields::list_attributes(&mut map, self.0.attributes)?;
        fields::number(&mut map, "droppedAttributesCount", self.0.dropped_attributes)?;
        map.end()
    }
}

struct Links<'s, 'a>(&'s SpanRows<'a>, usize);

impl Serialize for Links<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.links(self.1).map(Link))
    }
}

struct Link<'a>(SpanLink<'a>);

impl Serialize for Link<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("traceId", &self.0.trace_id)?;
        map.serialize_entry("spanId", &self.0.span_id)?;
        fields::text(&mut map, "traceState", Some(self.0.trace_state))?;
        fields::list_attributes(&mut map, self.0.attributes)?;
        fields::number(&mut map, "droppedAttributesCount", self.0.dropped_attributes)?;
        fields::number(&mut map, "flags", self.0.flags)?;
        map.end()
    }
}
