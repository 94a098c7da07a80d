//! Random requests, shuffled and spoiled: the decoder held against prost, row by row.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use bytes::Bytes;
use lacuna_signal::otlp::wire::{Field, Message as WireMessage};
use lacuna_signal::otlp::{DecodeError, Decoded, decode};
use lacuna_signal::rows::{LogRows, MetricType, Number, PointRows, SpanRows};
use lacuna_signal::schema::{self, Scope};
use lacuna_signal::value::{AttributeList, Value, base64};
use lacuna_signal::{Batch, SignalKind};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, InstrumentationScope, KeyValue, any_value::Value as V,
};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Exemplar, Metric, exemplar, number_data_point};
use opentelemetry_proto::tonic::resource::v1::Resource;
use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message;

/// A value of either side, in a form in which they can be compared.
fn ours(value: Value<'_>) -> String {
    match value {
        Value::Double(value) => format!("double {:x}", value.to_bits()),
        Value::Bytes(bytes) => format!("bytes {}", base64(bytes)),
        Value::Base64(text) => format!("bytes {text}"),
        Value::Str(text) => format!("text {text}"),
        Value::Int(value) => format!("int {value}"),
        Value::Bool(value) => format!("bool {value}"),
        Value::Any(text) => format!("any {text}"),
    }
}

fn theirs(value: &AnyValue) -> String {
    match &value.value {
        Some(V::DoubleValue(value)) => format!("double {:x}", value.to_bits()),
        Some(V::BytesValue(bytes)) => format!("bytes {}", base64(bytes)),
        Some(V::StringValue(text)) => format!("text {text}"),
        Some(V::IntValue(value)) => format!("int {value}"),
        Some(V::BoolValue(value)) => format!("bool {value}"),
        _ => format!("any {}", json(value)),
    }
}

/// OTLP/JSON of a value.
fn json(value: &AnyValue) -> String {
    let items = |items: Vec<String>| items.join(",");
    let text = |text: &str| serde_json::to_string(text).unwrap();
    match &value.value {
        None | Some(V::StringValueStrindex(_)) => "{}".to_owned(),
        Some(V::StringValue(value)) => format!("{{\"stringValue\":{}}}", text(value)),
        Some(V::BoolValue(value)) => format!("{{\"boolValue\":{value}}}"),
        Some(V::IntValue(value)) => format!("{{\"intValue\":\"{value}\"}}"),
        Some(V::DoubleValue(value)) => {
            let text = lacuna_signal::value::double_text(*value);
            let text = if value.is_finite() { text } else { format!("\"{text}\"") };
            format!("{{\"doubleValue\":{text}}}")
        }
        Some(V::BytesValue(value)) => format!("{{\"bytesValue\":\"{}\"}}", base64(value)),
        Some(V::ArrayValue(list)) => format!(
            "{{\"arrayValue\":{{\"values\":[{}]}}}}",
            items(list.values.iter().map(json).collect())
        ),
        Some(V::KvlistValue(list)) => {
            let pairs = list.values.iter().map(|pair| {
                let value = pair.value.as_ref().map_or_else(|| "{}".to_owned(), json);
                format!("{{\"key\":{},\"value\":{value}}}", text(&pair.key))
            });
            format!("{{\"kvlistValue\":{{\"values\":[{}]}}}}", items(pairs.collect()))
        }
    }
}

/// NaNs of any payload are one in text.
fn one_nan(text: String) -> String {
    match text.strip_prefix("double ").and_then(|bits| u64::from_str_radix(bits, 16).ok()) {
        Some(bits) if f64::from_bits(bits).is_nan() => "double nan".to_owned(),
        _ => text,
    }
}

/// Keys with their values, in order within a key.
type Pairs = BTreeMap<String, Vec<String>>;

fn pairs(attributes: &[KeyValue]) -> Pairs {
    let mut pairs = Pairs::new();
    for attribute in attributes {
        let value = theirs(attribute.value.as_ref().unwrap());
        pairs.entry(attribute.key.clone()).or_default().push(one_nan(value));
    }
    // Values of several types are columns of their own: their order is lost.
    pairs.values_mut().for_each(|values| values.sort());
    pairs
}

fn row_pairs<'a>(attributes: impl Iterator<Item = (&'a str, Value<'a>)>) -> Pairs {
    let mut pairs = Pairs::new();
    for (key, value) in attributes {
        pairs.entry(key.to_owned()).or_default().push(one_nan(ours(value)));
    }
    pairs.values_mut().for_each(|values| values.sort());
    pairs
}

fn list(list: Option<AttributeList<'_>>) -> Vec<(String, String)> {
    let list = list.into_iter().flat_map(|list| list.iter());
    list.map(|(key, value)| (key.to_owned(), one_nan(ours(value)))).collect()
}

fn their_list(list: &[KeyValue]) -> Vec<(String, String)> {
    let pair = |pair: &KeyValue| (pair.key.clone(), one_nan(theirs(pair.value.as_ref().unwrap())));
    list.iter().map(pair).collect()
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn bits(value: Option<f64>) -> Option<u64> {
    value.map(f64::to_bits)
}

/// What all rows of a scope share.
fn check_frame(
    batch: &Batch,
    row: usize,
    resource: Option<&Resource>,
    scope: Option<&InstrumentationScope>,
    [resource_url, scope_url]: [&str; 2],
) {
    let attributes = resource.map(|resource| pairs(&resource.attributes)).unwrap_or_default();
    assert_eq!(row_pairs(batch.attributes(Scope::Resource).of_row(row)), attributes);
    let attributes = scope.map(|scope| pairs(&scope.attributes)).unwrap_or_default();
    assert_eq!(row_pairs(batch.attributes(Scope::Instrumentation).of_row(row)), attributes);
    for (column, count) in [
        (schema::RESOURCE_DROPPED_ATTRIBUTES, resource.map_or(0, |r| r.dropped_attributes_count)),
        (schema::SCOPE_DROPPED_ATTRIBUTES, scope.map_or(0, |s| s.dropped_attributes_count)),
    ] {
        use arrow::array::Array;
        let found = batch.number_column::<arrow::datatypes::UInt32Type>(column);
        let found = found.filter(|c| c.is_valid(row)).map_or(0, |c| c.value(row));
        assert_eq!(found, count, "{column}");
    }
    for (column, text) in [
        (schema::SCOPE_NAME, scope.map_or("", |scope| &scope.name)),
        (schema::SCOPE_VERSION, scope.map_or("", |scope| &scope.version)),
        (schema::RESOURCE_SCHEMA_URL, resource_url),
        (schema::SCOPE_SCHEMA_URL, scope_url),
    ] {
        use arrow::array::Array;
        let found = batch.text_column(column).filter(|c| c.is_valid(row)).map(|c| c.value(row));
        assert_eq!(found, some(text), "{column}");
    }
}

fn check_points(batch: &Batch, rows: &PointRows<'_>, row: &mut usize, metric: &Metric) {
    let exemplars = |row: usize, expected: &[Exemplar]| {
        let found: Vec<_> = rows.exemplars(row).collect();
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(found.time as u64, expected.time_unix_nano);
            let value = found.value.map(|value| format!("{value:?}"));
            let expected_value = expected.value.map(|value| match value {
                exemplar::Value::AsInt(value) => format!("{:?}", Number::Int(value)),
                exemplar::Value::AsDouble(value) => format!("{:?}", Number::Double(value)),
            });
            assert_eq!(value, expected_value);
            assert_eq!(found.trace_id.map_or(vec![], |id| id.0.to_vec()), expected.trace_id);
            assert_eq!(found.span_id.map_or(vec![], |id| id.0.to_vec()), expected.span_id);
            assert_eq!(list(found.attributes), their_list(&expected.filtered_attributes));
        }
    };
    macro_rules! common {
        ($point:expr, $ty:expr, $temporality:expr) => {{
            let r = *row;
            *row += 1;
            assert_eq!(rows.name(r), metric.name);
            assert_eq!(rows.description(r), some(&metric.description));
            assert_eq!(rows.unit(r), some(&metric.unit));
            assert_eq!(
                row_pairs(batch.attributes(Scope::Metric).of_row(r)),
                pairs(&metric.metadata)
            );
            assert_eq!(rows.metric_type(r), Some($ty));
            assert_eq!(i32::from(rows.temporality(r)), $temporality);
            assert_eq!(rows.time(r) as u64, $point.time_unix_nano);
            assert_eq!(rows.start(r).unwrap_or(0) as u64, $point.start_time_unix_nano);
            assert_eq!(rows.flags(r), $point.flags);
            assert_eq!(
                row_pairs(batch.attributes(Scope::Point).of_row(r)),
                pairs(&$point.attributes)
            );
            r
        }};
    }
    let number = |row: usize, value: &Option<number_data_point::Value>| {
        let found = rows.value(row).map(|value| format!("{value:?}"));
        let expected = value.map(|value| match value {
            number_data_point::Value::AsInt(value) => format!("{:?}", Number::Int(value)),
            number_data_point::Value::AsDouble(value) => format!("{:?}", Number::Double(value)),
        });
        assert_eq!(found, expected);
    };
    let doubles = |found: &[f64], expected: &[f64]| {
        let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(found), bits(expected));
    };
    match metric.data.as_ref() {
        Some(Data::Gauge(gauge)) => {
            for point in &gauge.data_points {
                let r = common!(point, MetricType::Gauge, 0);
                number(r, &point.value);
                exemplars(r, &point.exemplars);
            }
        }
        Some(Data::Sum(sum)) => {
            for point in &sum.data_points {
                let r = common!(point, MetricType::Sum, sum.aggregation_temporality);
                assert_eq!(rows.monotonic(r), sum.is_monotonic);
                number(r, &point.value);
                exemplars(r, &point.exemplars);
            }
        }
        Some(Data::Histogram(data)) => {
            for point in &data.data_points {
                let r = common!(point, MetricType::Histogram, data.aggregation_temporality);
                assert_eq!(rows.count(r), Some(point.count));
                assert_eq!(bits(rows.sum(r)), bits(point.sum));
                assert_eq!(bits(rows.min(r)), bits(point.min));
                assert_eq!(bits(rows.max(r)), bits(point.max));
                assert_eq!(rows.bucket_counts(r), point.bucket_counts);
                doubles(rows.explicit_bounds(r), &point.explicit_bounds);
                exemplars(r, &point.exemplars);
            }
        }
        Some(Data::ExponentialHistogram(data)) => {
            for point in &data.data_points {
                let r =
                    common!(point, MetricType::ExponentialHistogram, data.aggregation_temporality);
                assert_eq!(rows.count(r), Some(point.count));
                assert_eq!(bits(rows.sum(r)), bits(point.sum));
                assert_eq!(bits(rows.min(r)), bits(point.min));
                assert_eq!(bits(rows.max(r)), bits(point.max));
                assert_eq!(rows.scale(r), Some(point.scale));
                assert_eq!(rows.zero_count(r), Some(point.zero_count));
                assert_eq!(bits(rows.zero_threshold(r)), bits(Some(point.zero_threshold)));
                for (found, expected) in
                    [(rows.positive(r), &point.positive), (rows.negative(r), &point.negative)]
                {
                    let expected = expected.as_ref().map(|b| (b.offset, &b.bucket_counts[..]));
                    assert_eq!(found, expected);
                }
                exemplars(r, &point.exemplars);
            }
        }
        Some(Data::Summary(data)) => {
            for point in &data.data_points {
                let r = common!(point, MetricType::Summary, 0);
                assert_eq!(rows.count(r), Some(point.count));
                assert_eq!(bits(rows.sum(r)), bits(Some(point.sum)));
                let found: Vec<_> = rows.quantiles(r).flat_map(|(q, v)| [q, v]).collect();
                let expected: Vec<_> =
                    point.quantile_values.iter().flat_map(|q| [q.quantile, q.value]).collect();
                doubles(&found, &expected);
            }
        }
        None => {}
    }
}

/// Decodes a request of which nothing may be refused.
fn decode_all(kind: SignalKind, body: Vec<u8>) -> Batch {
    let Decoded { batch, rejected } = decode(kind, Bytes::from(body)).unwrap();
    assert!(rejected.is_empty(), "{rejected:?}");
    check_batch(&batch);
    batch
}

fn check_batch(batch: &Batch) {
    Batch::try_new(batch.kind(), batch.record().clone()).unwrap();
    for column in batch.record().columns() {
        column.to_data().validate_full().unwrap();
    }
}

/// `body` with the fields of its messages in another order: those with one number keep theirs.
/// `path` is, level by level, which fields are messages to shuffle as well.
fn shuffled(body: &[u8], path: &[&[u32]], seed: &mut u64) -> Vec<u8> {
    let mut fields: Vec<(u32, Vec<u8>)> = Vec::new();
    let mut message = WireMessage::new(body);
    while let Some((number, field)) = message.next_field().unwrap() {
        let mut bytes = Vec::new();
        let tag = |wire: u32| u64::from(number << 3 | wire);
        match field {
            Field::Varint(value) => {
                prost::encoding::encode_varint(tag(0), &mut bytes);
                prost::encoding::encode_varint(value, &mut bytes);
            }
            Field::Fixed64(value) => {
                prost::encoding::encode_varint(tag(1), &mut bytes);
                bytes.extend(value.to_le_bytes());
            }
            Field::Fixed32(value) => {
                prost::encoding::encode_varint(tag(5), &mut bytes);
                bytes.extend(value.to_le_bytes());
            }
            Field::Bytes(content) => {
                let content = match path {
                    [numbers, rest @ ..] if numbers.contains(&number) => {
                        shuffled(content, rest, seed)
                    }
                    _ => content.to_vec(),
                };
                prost::encoding::encode_varint(tag(2), &mut bytes);
                prost::encoding::encode_varint(content.len() as u64, &mut bytes);
                bytes.extend(content);
            }
        }
        fields.push((number, bytes));
    }
    let mut order: Vec<u32> = fields.iter().map(|(number, _)| *number).collect();
    for i in (1..order.len()).rev() {
        *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        order.swap(i, (*seed >> 33) as usize % (i + 1));
    }
    let mut body = Vec::new();
    for number in order {
        let next = fields.iter().position(|(n, _)| *n == number).unwrap();
        body.extend(fields.remove(next).1);
    }
    body
}

proptest! {
    #[test]
    fn every_span_is_as_prost_has_it(request in support::traces(true), mut seed in any::<u64>()) {
        let body = shuffled(&request.encode_to_vec(), &[&[1], &[2], &[2], &[9, 11, 13]], &mut seed);
        let batch = decode_all(SignalKind::Spans, body);
        let rows = SpanRows::new(&batch);
        let mut row = 0;
        for resource in &request.resource_spans {
            for scope in &resource.scope_spans {
                for span in &scope.spans {
                    let urls = [resource.schema_url.as_str(), &scope.schema_url];
                    let frame = (resource.resource.as_ref(), scope.scope.as_ref());
                    check_frame(&batch, row, frame.0, frame.1, urls);
                    prop_assert_eq!(&rows.trace_id(row).unwrap().0[..], &span.trace_id[..]);
                    prop_assert_eq!(&rows.span_id(row).unwrap().0[..], &span.span_id[..]);
                    let parent = rows.parent_span_id(row).map_or(vec![], |id| id.0.to_vec());
                    prop_assert_eq!(&parent, &span.parent_span_id);
                    prop_assert_eq!(rows.trace_state(row), some(&span.trace_state));
                    prop_assert_eq!(rows.flags(row), span.flags);
                    prop_assert_eq!(rows.name(row), &span.name);
                    prop_assert_eq!(i32::from(rows.kind(row)), span.kind);
                    prop_assert_eq!(rows.start(row) as u64, span.start_time_unix_nano);
                    let duration = span.end_time_unix_nano as i64 - span.start_time_unix_nano as i64;
                    prop_assert_eq!(rows.duration(row), duration);
                    let status = span.status.clone().unwrap_or_default();
                    prop_assert_eq!(i32::from(rows.status_code(row)), status.code);
                    prop_assert_eq!(rows.status_message(row), some(&status.message));
                    let attributes = row_pairs(batch.attributes(Scope::Span).of_row(row));
                    prop_assert_eq!(attributes, pairs(&span.attributes));
                    let events: Vec<_> = rows.events(row).collect();
                    prop_assert_eq!(events.len(), span.events.len());
                    for (found, expected) in events.iter().zip(&span.events) {
                        prop_assert_eq!(found.time as u64, expected.time_unix_nano);
                        prop_assert_eq!(found.name, &expected.name);
                        prop_assert_eq!(found.dropped_attributes, expected.dropped_attributes_count);
                        prop_assert_eq!(list(found.attributes), their_list(&expected.attributes));
                    }
                    let links: Vec<_> = rows.links(row).collect();
                    prop_assert_eq!(links.len(), span.links.len());
                    for (found, expected) in links.iter().zip(&span.links) {
                        prop_assert_eq!(&found.trace_id.0[..], &expected.trace_id[..]);
                        prop_assert_eq!(&found.span_id.0[..], &expected.span_id[..]);
                        prop_assert_eq!(found.trace_state, &expected.trace_state);
                        prop_assert_eq!(found.flags, expected.flags);
                        prop_assert_eq!(found.dropped_attributes, expected.dropped_attributes_count);
                        prop_assert_eq!(list(found.attributes), their_list(&expected.attributes));
                    }
                    row += 1;
                }
            }
        }
        prop_assert_eq!(batch.num_rows(), row);
    }

    #[test]
    fn every_log_is_as_prost_has_it(request in support::logs(true), mut seed in any::<u64>()) {
        let body = shuffled(&request.encode_to_vec(), &[&[1], &[2], &[2], &[6]], &mut seed);
        let batch = decode_all(SignalKind::Logs, body);
        let rows = LogRows::new(&batch);
        let mut row = 0;
        for resource in &request.resource_logs {
            for scope in &resource.scope_logs {
                for log in &scope.log_records {
                    let urls = [resource.schema_url.as_str(), &scope.schema_url];
                    let frame = (resource.resource.as_ref(), scope.scope.as_ref());
                    check_frame(&batch, row, frame.0, frame.1, urls);
                    let observed = log.observed_time_unix_nano;
                    let time = if log.time_unix_nano == 0 { observed } else { log.time_unix_nano };
                    prop_assert_eq!(rows.time(row) as u64, time);
                    prop_assert_eq!(rows.observed(row).unwrap_or(0) as u64, observed);
                    prop_assert_eq!(i32::from(rows.severity(row)), log.severity_number);
                    prop_assert_eq!(rows.severity_text(row), some(&log.severity_text));
                    prop_assert_eq!(rows.event_name(row), some(&log.event_name));
                    let id = rows.trace_id(row).map_or(vec![], |id| id.0.to_vec());
                    prop_assert_eq!(&id, &log.trace_id);
                    let id = rows.span_id(row).map_or(vec![], |id| id.0.to_vec());
                    prop_assert_eq!(&id, &log.span_id);
                    let body = log.body.as_ref().map(|body| match &body.value {
                        Some(V::StringValue(text)) => text.clone(),
                        _ => json(body),
                    });
                    prop_assert_eq!(rows.body(row), body.as_deref());
                    let attributes = row_pairs(batch.attributes(Scope::Log).of_row(row));
                    prop_assert_eq!(attributes, pairs(&log.attributes));
                    row += 1;
                }
            }
        }
        prop_assert_eq!(batch.num_rows(), row);
    }

    #[test]
    fn every_point_is_as_prost_has_it(
        request in support::metrics::metrics(true),
        mut seed in any::<u64>(),
    ) {
        // Prost takes -0 for the default and does not send it.
        let request = ExportMetricsServiceRequest::decode(&request.encode_to_vec()[..]).unwrap();
        let data: &[u32] = &[5, 7, 9, 10, 11];
        let path: [&[u32]; 5] = [&[1], &[2], &[2], data, &[1]];
        let body = shuffled(&request.encode_to_vec(), &path, &mut seed);
        let batch = decode_all(SignalKind::Points, body);
        let rows = PointRows::new(&batch);
        let mut row = 0;
        for resource in &request.resource_metrics {
            for scope in &resource.scope_metrics {
                for metric in &scope.metrics {
                    let first = row;
                    check_points(&batch, &rows, &mut row, metric);
                    for row in first..row {
                        let urls = [resource.schema_url.as_str(), &scope.schema_url];
                        let frame = (resource.resource.as_ref(), scope.scope.as_ref());
                        check_frame(&batch, row, frame.0, frame.1, urls);
                    }
                }
            }
        }
        prop_assert_eq!(batch.num_rows(), row);
    }

    #[test]
    fn a_spoiled_request_never_panics_and_everything_is_accounted_for(
        request in (support::traces(true), support::logs(true), support::metrics::metrics(true)),
        spoil in prop::collection::vec((any::<Index>(), any::<u8>()), 1..4),
        cut in prop::option::weighted(0.2, any::<Index>()),
    ) {
        let (traces, logs, metrics) = request;
        let bodies = [
            (SignalKind::Spans, traces.encode_to_vec()),
            (SignalKind::Logs, logs.encode_to_vec()),
            (SignalKind::Points, metrics.encode_to_vec()),
        ];
        for (kind, mut body) in bodies {
            if body.is_empty() {
                continue;
            }
            for (at, byte) in &spoil {
                let at = at.index(body.len());
                body[at] = *byte;
            }
            if let Some(cut) = cut {
                body.truncate(cut.index(body.len()));
            }
            let items = support::items_by_prost(kind, &body);
            match decode(kind, Bytes::from(body)) {
                Ok(Decoded { batch, rejected }) => {
                    check_batch(&batch);
                    if let Some(items) = items {
                        prop_assert_eq!(batch.num_rows() as u64 + rejected.items, items);
                    }
                }
                Err(DecodeError::Unreadable { first, .. }) => {
                    prop_assert_ne!(items, Some(0), "{}", first);
                }
                Err(error) => prop_assert!(false, "{}", error),
            }
        }
    }
}
