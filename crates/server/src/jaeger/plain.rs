//! OTLP/JSON that Jaeger's UI takes whole.
//!
//! The UI checks a trace of v3 against a schema and refuses all of it for one attribute whose value is
//! empty (`{}`) or a double that JSON has no number for (`"NaN"`, `"Infinity"`). Both are right OTLP/JSON.
//! Unless raw traces are asked for, they are shown as v1 shows them: as text.

use lacuna_signal::otlp::to_json::{OtlpJson, serialize_resources};
use lacuna_signal::rows::SpanRows;
use lacuna_signal::schema::Scope;
use lacuna_signal::{Batch, SignalKind, Value};
use serde::ser::{Error, SerializeSeq};
use serde_json::{Value as Json, json};

/// Writes the `ResourceSpans` of `spans` as elements of `seq`; as they are stored if `raw`.
pub fn serialize_spans<S: SerializeSeq>(
    spans: &Batch,
    raw: bool,
    seq: &mut S,
) -> Result<(), S::Error> {
    // Few traces have such a value, and only those are built as a tree.
    if raw || !has_odd_value(spans) {
        return serialize_resources(spans, seq);
    }
    let otlp = OtlpJson::new(SignalKind::Spans, std::slice::from_ref(spans));
    let mut json = serde_json::to_value(otlp).map_err(S::Error::custom)?;
    mend(&mut json);
    let resources = json["resourceSpans"].as_array();
    resources.into_iter().flatten().try_for_each(|resource| seq.serialize_element(resource))
}

fn has_odd_value(spans: &Batch) -> bool {
    let odd = |value: Value<'_>| match value {
        Value::Double(number) => !number.is_finite(),
        Value::Any(text) => {
            text.contains("{}") || text.contains("NaN") || text.contains("Infinity")
        }
        _ => false,
    };
    let scopes = [Scope::Span, Scope::Resource, Scope::Instrumentation];
    let attributes = scopes.map(|scope| spans.attributes(scope));
    let rows = SpanRows::new(spans);
    (0..spans.num_rows()).any(|row| {
        let events = rows.events(row).filter_map(|event| event.attributes);
        let links = rows.links(row).filter_map(|link| link.attributes);
        attributes.iter().any(|attributes| attributes.of_row(row).any(|(_, value)| odd(value)))
            || events.chain(links).any(|list| list.iter().any(|(_, value)| odd(value)))
    })
}

/// Mends every value of an attribute below `json`.
fn mend(json: &mut Json) {
    match json {
        Json::Array(items) => items.iter_mut().for_each(mend),
        Json::Object(members) => {
            for (name, member) in members.iter_mut() {
                match name.as_str() {
                    "value" => mend_value(member),
                    _ => mend(member),
                }
            }
        }
        _ => {}
    }
}

fn mend_value(value: &mut Json) {
    let Json::Object(members) = &mut *value else { return };
    if members.is_empty() {
        *value = json!({"stringValue": ""});
    } else if let Some(Json::String(name)) = members.get("doubleValue") {
        *value = json!({"stringValue": name});
    } else if let Some(array) = members.get_mut("arrayValue") {
        let elements = array["values"].as_array_mut();
        elements.into_iter().flatten().for_each(mend_value);
    } else {
        // The members of a list have values of their own.
        members.values_mut().for_each(mend);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_values_become_text_wherever_they_are() {
        let mut json = json!({"attributes": [
            {"key": "empty", "value": {}},
            {"key": "nan", "value": {"doubleValue": "NaN"}},
            {"key": "one", "value": {"doubleValue": 1.5}},
            {"key": "list", "value": {"arrayValue": {"values": [{}, {"doubleValue": "Infinity"}]}}},
            {"key": "map", "value": {"kvlistValue": {"values": [{"key": "in", "value": {}}]}}},
        ], "status": {}});
        mend(&mut json);
        assert_eq!(
            json,
            json!({"attributes": [
            {"key": "empty", "value": {"stringValue": ""}},
            {"key": "nan", "value": {"stringValue": "NaN"}},
            {"key": "one", "value": {"doubleValue": 1.5}},
            {"key": "list", "value": {"arrayValue": {"values": [
                {"stringValue": ""}, {"stringValue": "Infinity"}]}}},
            {"key": "map", "value": {"kvlistValue": {"values": [
                {"key": "in", "value": {"stringValue": ""}}]}}},
        ], "status": {}})
        );
    }
}
