//! Log records as OTLP/JSON.

use arrow::array::{Array, PrimitiveArray, StringViewArray};
use arrow::datatypes::UInt32Type;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use crate::batch::Batch;
use crate::rows::LogRows;
use crate::schema::{self, Scope};
use crate::value::{Attributes, Value};

use super::fields;
use super::group::ScopeItems;

/// The columns of a batch of log records.
pub struct Logs<'a> {
    rows: LogRows<'a>,
    attributes: Attributes<'a>,
    body: Option<&'a StringViewArray>,
    body_any: Option<&'a StringViewArray>,
    flags: Option<&'a PrimitiveArray<UInt32Type>>,
    dropped_attributes: Option<&'a PrimitiveArray<UInt32Type>>,
}

impl<'a> Logs<'a> {
    pub fn new(batch: &'a Batch) -> Self {
        Self {
            rows: LogRows::new(batch),
            attributes: batch.attributes(Scope::Log),
            body: batch.text_column(schema::BODY),
            body_any: batch.text_column(schema::BODY_ANY),
            flags: batch.number_column(schema::FLAGS),
            dropped_attributes: batch.number_column(schema::DROPPED_ATTRIBUTES),
        }
    }

    fn body(&self, row: usize) -> Option<Value<'a>> {
        let valid = |column: &&StringViewArray| column.is_valid(row);
        let text = self.body.filter(valid).map(|column| Value::Str(column.value(row)));
        text.or_else(|| self.body_any.filter(valid).map(|column| Value::Any(column.value(row))))
    }
}

impl ScopeItems for Logs<'_> {
    fn serialize_rows<S: SerializeSeq>(&self, rows: &[usize], seq: &mut S) -> Result<(), S::Error> {
        rows.iter().try_for_each(|row| seq.serialize_element(&Log(self, *row)))
    }
}

struct Log<'s, 'a>(&'s Logs<'a>, usize);

impl Serialize for Log<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(logs, row) = *self;
        let rows = &logs.rows;
        let mut map = serializer.serialize_map(None)?;
        fields::time(&mut map, "timeUnixNano", rows.time(row))?;
        fields::time(&mut map, "observedTimeUnixNano", rows.observed(row).unwrap_or_default())?;
        fields::number(&mut map, "severityNumber", u32::from(rows.severity(row)))?;
        fields::text(&mut map, "severityText", rows.severity_text(row))?;
        if let Some(body) = logs.body(row) {
            map.serialize_entry("body", &fields::AnyValue(body))?;
        }
        fields::row_attributes(&mut map, &logs.attributes, row)?;
        let dropped = fields::count(logs.dropped_attributes, row);
        fields::number(&mut map, "droppedAttributesCount", dropped)?;
        fields::number(&mut map, "flags", fields::count(logs.flags, row))?;
        fields::id(&mut map, "traceId", rows.trace_id(row))?;
        fields::id(&mut map, "spanId", rows.span_id(row))?;
        fields::text(&mut map, "eventName", rows.event_name(row))?;
        map.end()
    }
}
