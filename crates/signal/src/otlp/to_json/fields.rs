//! Pieces that every kind of signal shares: values, attribute lists, numbers as text.

use std::fmt::Display;

use arrow::array::{Array, PrimitiveArray};
use arrow::datatypes::UInt32Type;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::value::{AttributeList, Attributes, Value, base64, double_text};

/// A value as OTLP/JSON `AnyValue`.
pub struct AnyValue<'a>(pub Value<'a>);

impl Serialize for AnyValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Value::Any(text) = self.0
            && let Ok(raw) = serde_json::from_str::<&RawValue>(text)
        {
            return raw.serialize(serializer);
        }
        let mut map = serializer.serialize_map(Some(1))?;
        match self.0 {
            Value::Str(text) | Value::Any(text) => map.serialize_entry("stringValue", text)?,
            Value::Int(value) => map.serialize_entry("intValue", &Decimal(value))?,
            Value::Double(value) => map.serialize_entry("doubleValue", &Double(value))?,
            Value::Bool(value) => map.serialize_entry("boolValue", &value)?,
            Value::Bytes(bytes) => map.serialize_entry("bytesValue", &base64(bytes))?,
            Value::Base64(text) => map.serialize_entry("bytesValue", text)?,
        }
        map.end()
    }
}

/// A 64-bit integer: protobuf's JSON mapping writes it as a decimal string.
pub struct Decimal<T>(pub T);

impl<T: Display> Serialize for Decimal<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A double; JSON has no number for `NaN` and the infinities, so protobuf's mapping names them.
pub struct Double(pub f64);

impl Serialize for Double {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_finite() {
            serializer.serialize_f64(self.0)
        } else {
            serializer.serialize_str(&double_text(self.0))
        }
    }
}

struct KeyValue<'a>(&'a str, Value<'a>);

impl Serialize for KeyValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("key", self.0)?;
        map.serialize_entry("value", &AnyValue(self.1))?;
        map.end()
    }
}

struct RowAttributes<'s, 'a>(&'s Attributes<'a>, usize);

impl Serialize for RowAttributes<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.of_row(self.1).map(|(key, value)| KeyValue(key, value)))
    }
}

struct ListAttributes<'a>(AttributeList<'a>);

impl Serialize for ListAttributes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|(key, value)| KeyValue(key, value)))
    }
}

/// The attributes of `row` as member `attributes`, unless it has none.
pub fn row_attributes<M: SerializeMap>(
    map: &mut M,
    attributes: &Attributes<'_>,
    row: usize,
) -> Result<(), M::Error> {
    row_attributes_as(map, "attributes", attributes, row)
}

/// The attributes of `row` as member `name`, unless it has none.
pub fn row_attributes_as<M: SerializeMap>(
    map: &mut M,
    name: &str,
    attributes: &Attributes<'_>,
    row: usize,
) -> Result<(), M::Error> {
    if attributes.of_row(row).next().is_none() {
        return Ok(());
    }
    map.serialize_entry(name, &RowAttributes(attributes, row))
}

/// A nested list as member `attributes`, unless it is empty.
pub fn list_attributes<M: SerializeMap>(
    map: &mut M,
    attributes: Option<AttributeList<'_>>,
) -> Result<(), M::Error> {
    list_attributes_as(map, "attributes", attributes)
}

/// A nested list as member `name`, unless it is empty.
pub fn list_attributes_as<M: SerializeMap>(
    map: &mut M,
    name: &str,
    attributes: Option<AttributeList<'_>>,
) -> Result<(), M::Error> {
    match attributes {
        Some(list) if !list.is_empty() => map.serialize_entry(name, &ListAttributes(list)),
        _ => Ok(()),
    }
}

/// A text member, unless it is null or empty.
pub fn text<M: SerializeMap>(map: &mut M, name: &str, text: Option<&str>) -> Result<(), M::Error> {
    match text {
        Some(text) if !text.is_empty() => map.serialize_entry(name, text),
        _ => Ok(()),
    }
}

/// What a column of counts has in `row`; 0 if it has nothing there.
pub fn count(column: Option<&PrimitiveArray<UInt32Type>>, row: usize) -> u32 {
    column.filter(|column| column.is_valid(row)).map_or(0, |column| column.value(row))
}

/// A number member, unless it is 0.
pub fn number<M: SerializeMap>(map: &mut M, name: &str, value: u32) -> Result<(), M::Error> {
    if value == 0 { Ok(()) } else { map.serialize_entry(name, &value) }
}

/// A time member in nanoseconds since the epoch, unless it is 0 (not known).
pub fn time<M: SerializeMap>(map: &mut M, name: &str, nanos: i64) -> Result<(), M::Error> {
    if nanos <= 0 { Ok(()) } else { map.serialize_entry(name, &Decimal(nanos)) }
}

/// An id member.
pub fn id<M: SerializeMap>(
    map: &mut M,
    name: &str,
    id: Option<impl Serialize>,
) -> Result<(), M::Error> {
    match id {
        Some(id) => map.serialize_entry(name, &id),
        None => Ok(()),
    }
}
