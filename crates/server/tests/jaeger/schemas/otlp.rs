//! What the clients take of OTLP's JSON.

use serde_json::Value;

use super::{Checked, decimal, hex};

/// The spans of `{"result": {"resourceSpans": […]}}`.
pub fn spans_of(json: &Value) -> Result<Vec<Value>, String> {
    let mut spans = Vec::new();
    for resource in list(&json["result"]["resourceSpans"])? {
        list(&resource["resource"]["attributes"])?.iter().try_for_each(attribute)?;
        for scope in resource["scopeSpans"].as_array().ok_or("no scopeSpans")? {
            spans.extend(scope["spans"].as_array().ok_or("no spans")?.iter().cloned());
        }
    }
    if spans.is_empty() { Err("no span at all".to_owned()) } else { Ok(spans) }
}

/// An optional array.
fn list(value: &Value) -> Result<Vec<Value>, String> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => Ok(items.clone()),
        other => Err(format!("no array: {other}")),
    }
}

fn text_of<'v>(value: &'v Value, name: &str) -> Result<Option<&'v str>, String> {
    match &value[name] {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        other => Err(format!("{name} is no text: {other}")),
    }
}

fn count_of(value: &Value, name: &str) -> Checked {
    let number = &value[name];
    (number.is_null() || number.is_u64()).then_some(()).ok_or(format!("{name}: {number}"))
}

/// `refinedSpan`.
pub fn span_v3(span: &Value) -> Checked {
    hex(text_of(span, "traceId")?.ok_or("no traceId")?, 32)?;
    hex(text_of(span, "spanId")?.ok_or("no spanId")?, 16)?;
    text_of(span, "parentSpanId")?.map_or(Ok(()), |id| hex(id, 16))?;
    text_of(span, "name")?;
    for name in ["startTimeUnixNano", "endTimeUnixNano"] {
        text_of(span, name)?.map_or(Ok(()), decimal)?;
    }
    for name in ["kind", "flags", "droppedAttributesCount", "droppedEventsCount"] {
        count_of(span, name)?;
    }
    count_of(&span["status"], "code")?;
    text_of(&span["status"], "message")?;
    list(&span["attributes"])?.iter().try_for_each(attribute)?;
    for event in list(&span["events"])? {
        text_of(&event, "timeUnixNano")?.map_or(Ok(()), decimal)?;
        list(&event["attributes"])?.iter().try_for_each(attribute)?;
    }
    for link in list(&span["links"])? {
        hex(text_of(&link, "traceId")?.ok_or("no traceId of a link")?, 32)?;
        hex(text_of(&link, "spanId")?.ok_or("no spanId of a link")?, 16)?;
        list(&link["attributes"])?.iter().try_for_each(attribute)?;
    }
    Ok(())
}

fn attribute(attribute: &Value) -> Checked {
    text_of(attribute, "key")?.ok_or("no key")?;
    any_value(&attribute["value"])
}

/// `refinedAnyValue`: exactly one field, of its type.
fn any_value(value: &Value) -> Checked {
    let members = value.as_object().ok_or(format!("no value: {value}"))?;
    let mut members = members.iter();
    let (Some((ty, value)), None) = (members.next(), members.next()) else {
        return Err(format!("not one value: {value}"));
    };
    let good = match ty.as_str() {
        "stringValue" | "bytesValue" => value.is_string(),
        "boolValue" => value.is_boolean(),
        "intValue" => value.as_str().is_some_and(|text| text.parse::<i64>().is_ok()),
        "doubleValue" => value.is_number(),
        "arrayValue" => return list(&value["values"])?.iter().try_for_each(any_value),
        "kvlistValue" => return list(&value["values"])?.iter().try_for_each(attribute),
        _ => false,
    };
    good.then_some(()).ok_or(format!("{ty}: {value}"))
}

/// `GrpcSpan`. Its events want `timeUnixNano` as a number, against protobuf's JSON, which the UI and
/// Jaeger's own backend keep to: a trace with span events is not read by that client from anybody.
pub fn go_span(span: &Value) -> Checked {
    for name in
        ["traceId", "spanId", "parentSpanId", "name", "startTimeUnixNano", "endTimeUnixNano"]
    {
        text_of(span, name)?;
    }
    for name in
        ["kind", "flags", "droppedAttributesCount", "droppedEventsCount", "droppedLinksCount"]
    {
        count_of(span, name)?;
    }
    count_of(&span["status"], "code")?;
    list(&span["attributes"])?.iter().try_for_each(attribute)
}
