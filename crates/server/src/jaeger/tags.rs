//! Values as Jaeger's v1 JSON shows them: `{"key":…,"type":…,"value":…}`.

use lacuna_signal::Value;
use lacuna_signal::value::{base64, double_text, plain_json};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// Integers beyond this are sent as text: a JavaScript number could not hold them.
const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// A tag of a span or process, or a field of a log.
#[derive(Debug, Clone, Copy)]
pub struct Tag<'a> {
    key: &'a str,
    value: Value<'a>,
}

impl<'a> Tag<'a> {
    /// Attribute `key` with `value`.
    pub fn new(key: &'a str, value: Value<'a>) -> Self {
        Self { key, value }
    }

    /// Tag `key` with text.
    pub fn text(key: &'a str, text: &'a str) -> Self {
        Self::new(key, Value::Str(text))
    }
}

impl Serialize for Tag<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("key", self.key)?;
        let ty = match self.value {
            Value::Str(_) | Value::Any(_) => "string",
            Value::Int(_) => "int64",
            Value::Double(_) => "float64",
            Value::Bool(_) => "bool",
            Value::Bytes(_) | Value::Base64(_) => "binary",
        };
        map.serialize_entry("type", ty)?;
        match self.value {
            Value::Str(text) | Value::Base64(text) => map.serialize_entry("value", text)?,
            Value::Int(value) if value.unsigned_abs() > MAX_SAFE_INTEGER => {
                map.serialize_entry("value", &value.to_string())?;
            }
            Value::Int(value) => map.serialize_entry("value", &value)?,
            Value::Double(value) if value.is_finite() => map.serialize_entry("value", &value)?,
            Value::Double(value) => map.serialize_entry("value", &double_text(value))?,
            Value::Bool(value) => map.serialize_entry("value", &value)?,
            Value::Bytes(bytes) => map.serialize_entry("value", &base64(bytes))?,
            Value::Any(text) => map.serialize_entry("value", &plain_json(text))?,
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_native_json_with_their_type() {
        let tag = |value| serde_json::to_string(&Tag::new("k", value)).unwrap();
        assert_eq!(
            tag(Value::Int(9_007_199_254_740_991)),
            r#"{"key":"k","type":"int64","value":9007199254740991}"#
        );
        assert_eq!(
            tag(Value::Int(i64::MIN)),
            r#"{"key":"k","type":"int64","value":"-9223372036854775808"}"#
        );
        assert_eq!(tag(Value::Double(f64::NAN)), r#"{"key":"k","type":"float64","value":"NaN"}"#);
        assert_eq!(tag(Value::Bytes(&[1, 2])), r#"{"key":"k","type":"binary","value":"AQI="}"#);
        assert_eq!(tag(Value::Bool(true)), r#"{"key":"k","type":"bool","value":true}"#);
    }
}
