//! OTLP/JSON requests, read as protobuf.

#![allow(clippy::unwrap_used)]

mod support;

use lacuna_signal::SignalKind;
use lacuna_signal::otlp::any::MAX_DEPTH;
use lacuna_signal::otlp::{DecodeError, Rejected, decode, decode_json, json_kind};
use lacuna_signal::rows::{LogRows, PointRows, SpanRows};
use lacuna_signal::schema::Scope;
use lacuna_signal::value::Value;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use proptest::prelude::*;
use prost::Message;

fn round_trip<M>(kind: SignalKind, request: &M) -> Result<(), TestCaseError>
where
    M: Message + Default + PartialEq + serde::Serialize + std::fmt::Debug,
{
    let json = serde_json::to_string(request).unwrap();
    let (bytes, rejected) = decode_json(kind, json.as_bytes()).unwrap();
    prop_assert_eq!(rejected, Rejected::default());
    prop_assert_eq!(&M::decode(bytes).unwrap(), request, "{}", json);
    // The same in other clothes: white space, and members in another order.
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    let json = serde_json::to_string_pretty(&value).unwrap();
    let (bytes, _) = decode_json(kind, json.as_bytes()).unwrap();
    prop_assert_eq!(&M::decode(bytes).unwrap(), request, "{}", json);
    Ok(())
}

proptest! {
    #[test]
    fn traces_read_back(request in support::traces(false)) {
        round_trip(SignalKind::Spans, &request)?;
    }

    #[test]
    fn logs_read_back(request in support::logs(false)) {
        round_trip(SignalKind::Logs, &request)?;
    }

    #[test]
    fn metrics_read_back(request in support::metrics::metrics(false)) {
        round_trip(SignalKind::Points, &request)?;
    }

    #[test]
    fn a_spoiled_text_is_an_error_or_loses_only_what_it_counts(
        request in support::traces(false),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut json = serde_json::to_vec(&request).unwrap();
        let at = at.index(json.len());
        json[at] = byte;
        let spans = |request: &ExportTraceServiceRequest| {
            let scopes = request.resource_spans.iter().flat_map(|r| &r.scope_spans);
            scopes.map(|scope| scope.spans.len() as u64).sum::<u64>()
        };
        if let Ok((bytes, rejected)) = decode_json(SignalKind::Spans, &json) {
            let kept = ExportTraceServiceRequest::decode(bytes).unwrap();
            // A spoiled key or value may hide what it holds, but nothing comes from nowhere.
            prop_assert!(spans(&kept) + rejected.items <= spans(&request).max(1));
            prop_assert!(rejected.items <= 1, "{:?}", rejected);
        }
    }
}

fn spans(json: &str) -> (Vec<Span>, Rejected) {
    let (bytes, rejected) = decode_json(SignalKind::Spans, json.as_bytes()).unwrap();
    let request = ExportTraceServiceRequest::decode(bytes).unwrap();
    let scopes = request.resource_spans.into_iter().flat_map(|r| r.scope_spans);
    (scopes.flat_map(|scope| scope.spans).collect(), rejected)
}

/// A request of spans with `members` beside their ids.
fn request_of(members: &[&str]) -> String {
    let spans = members.iter().enumerate().map(|(i, members)| {
        let comma = if members.is_empty() { "" } else { "," };
        format!(
            r#"{{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"00000000000000{:02x}"{comma}{members}}}"#,
            i + 1
        )
    });
    let spans = spans.collect::<Vec<_>>().join(",");
    format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{spans}]}}]}}]}}"#)
}

#[test]
fn every_spelling_that_the_mapping_allows_is_read() {
    let plain = request_of(&[
        r#""parentSpanId":"EEE19B7EC3C1B174","name":"a","kind":2,"startTimeUnixNano":"1544712660000000000","endTimeUnixNano":1544712661000000000,"flags":257,"status":{"code":2,"message":"m"},"droppedAttributesCount":3"#,
    ]);
    let dressed = request_of(&[
        r#""parent_span_id":"eee19b7ec3c1b174","name":"\u0061","kind":"SPAN_KIND_SERVER","start_time_unix_nano":1544712660000000000,"end_time_unix_nano":"1.544712661e18","flags":"257","status":{"code":"STATUS_CODE_ERROR","message":"m","deprecatedCode":0},"dropped_attributes_count":"3.0","unknown":{"a":[1,{"b":null}]},"links":null,"attributes":null"#,
    ]);
    let (plain, rejected) = spans(&plain);
    assert!(rejected.is_empty());
    assert_eq!(plain[0].start_time_unix_nano, 1_544_712_660_000_000_000);
    assert_eq!((plain[0].kind, plain[0].dropped_attributes_count), (2, 3));
    let (dressed, rejected) = spans(&dressed);
    assert!(rejected.is_empty(), "{rejected:?}");
    assert_eq!(plain, dressed);
}

#[test]
fn every_type_of_value_is_read() {
    let json = request_of(&[r#""attributes":[
        {"key":"s","value":{"stringValue":"v"}},
        {"key":"i","value":{"intValue":"-9223372036854775808"}},
        {"key":"j","value":{"int_value":7}},
        {"key":"d","value":{"doubleValue":"-Infinity"}},
        {"key":"e","value":{"doubleValue":1}},
        {"key":"b","value":{"boolValue":false}},
        {"key":"x","value":{"bytesValue":"+/8="}},
        {"key":"y","value":{"bytesValue":"-_8"}},
        {"key":"l","value":{"arrayValue":{"values":[{"intValue":1},null,{}]}}},
        {"key":"n","value":{"stringValue":null}},
        {"key":"o"}
    ]"#]);
    let (bytes, _) = decode_json(SignalKind::Spans, json.as_bytes()).unwrap();
    let batch = decode(SignalKind::Spans, bytes).unwrap().batch;
    let attributes: Vec<_> = batch.attributes(Scope::Span).of_row(0).collect();
    let list = r#"{"arrayValue":{"values":[{"intValue":"1"},{},{}]}}"#;
    assert_eq!(
        attributes,
        [
            ("b", Value::Bool(false)),
            ("d", Value::Double(f64::NEG_INFINITY)),
            ("e", Value::Double(1.0)),
            ("i", Value::Int(i64::MIN)),
            ("j", Value::Int(7)),
            ("l", Value::Any(list)),
            ("n", Value::Any("{}")),
            ("o", Value::Any("{}")),
            ("s", Value::Str("v")),
            ("x", Value::Bytes(&[0xfb, 0xff])),
            ("y", Value::Bytes(&[0xfb, 0xff])),
        ]
    );
}

#[test]
fn a_bad_span_is_left_out_and_its_neighbours_kept() {
    let bad = [
        (r#""traceId":"xyz""#, r#".traceId: "xyz" is not hex: expected 32 digits"#),
        (r#""traceId":"abcd""#, r#".traceId: "abcd" has 4 digits, expected 32"#),
        (r#""spanId":"0000000000000000""#, ".spanId: is all zero"),
        (r#""name":5"#, ".name: expected a string, found a number"),
        (
            r#""startTimeUnixNano":-1"#,
            r#".startTimeUnixNano: "-1" is out of range, expected 0 to 9223372036854775807"#,
        ),
        (
            r#""kind":"SERVER""#,
            r#".kind: "SERVER" is not known: expected 0 to 5 or a name, SPAN_KIND_UNSPECIFIED to SPAN_KIND_CONSUMER"#,
        ),
        (
            r#""attributes":[{"key":"a"},{"key":"k","value":{"arrayValue":{"values":[{"intValue":"x"}]}}}]"#,
            r#".attributes[1].value.arrayValue.values[0].intValue: "x" is not an integer"#,
        ),
        (r#""events":{}"#, ".events: expected an array, found an object"),
    ];
    let mut members = vec![r#""name":"first""#];
    for (member, _) in &bad {
        members.push(member);
        members.push(r#""name":"good""#);
    }
    let (kept, rejected) = spans(&request_of(&members));
    assert_eq!(kept.len(), bad.len() + 1);
    assert!(kept[1..].iter().all(|span| span.name == "good"));
    assert_eq!(rejected.items, bad.len() as u64);
    for (i, (_, reason)) in bad.iter().enumerate() {
        let place = format!("resourceSpans[0].scopeSpans[0].spans[{}]{reason}", 2 * i + 1);
        assert_eq!(rejected.reasons[i], place);
    }
}

#[test]
fn what_is_missing_or_of_another_type_is_said() {
    let without_id =
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"spanId":"0000000000000001"}]}]}]}"#;
    let error = decode_json(SignalKind::Spans, without_id.as_bytes()).unwrap_err().to_string();
    assert!(
        error.ends_with("resourceSpans[0].scopeSpans[0].spans[0].traceId: is missing"),
        "{error}"
    );
    let error = decode_json(SignalKind::Spans, b"[]").unwrap_err().to_string();
    assert!(error.ends_with("expected an object, found an array"), "{error}");
    let frames = r#"{"resourceSpans":[5,{"schemaUrl":6,"resource":{"attributes":[{"key":"a","value":{"boolValue":"maybe"}},{"key":"b"}]},
        "scopeSpans":[{"scope":"lib","spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"00000000000000aa"}]}]}]}"#;
    let (kept, rejected) = spans(frames);
    assert_eq!(kept.len(), 1);
    assert_eq!((rejected.items, rejected.attributes), (1, 3));
    assert_eq!(
        rejected.reasons,
        [
            "resourceSpans[0]: expected an object, found a number",
            "resourceSpans[1].schemaUrl: expected a string, found a number",
            r#"resourceSpans[1].resource.attributes[0].value.boolValue: "maybe" is not a boolean"#,
            "resourceSpans[1].scopeSpans[0].scope: expected an object, found a string",
        ]
    );
}

#[test]
fn text_that_is_not_json_has_its_line_and_column() {
    let text = "{\"resourceSpans\": [\n  {\"scopeSpans\": [}\n]}";
    let Err(DecodeError::Json { line, column, what }) =
        decode_json(SignalKind::Spans, text.as_bytes())
    else {
        panic!("not refused as JSON");
    };
    assert_eq!((line, column, what), (2, 19, "expected a JSON value"));
    let cut = request_of(&[""]);
    let error = decode_json(SignalKind::Spans, &cut.as_bytes()[..cut.len() - 5]).unwrap_err();
    assert!(matches!(error, DecodeError::Json { what: "the text ends too early", .. }), "{error}");
}

#[test]
fn a_log_keeps_its_text_when_its_ids_are_bad() {
    let json = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[
        {"timeUnixNano":"5","severityNumber":"SEVERITY_NUMBER_WARN","traceId":"not hex","spanId":"eee19b7ec3c1b174","body":{"stringValue":"kept"}}
    ]}]}]}"#;
    let (bytes, rejected) = decode_json(SignalKind::Logs, json.as_bytes()).unwrap();
    ExportLogsServiceRequest::decode(bytes.clone()).unwrap();
    assert_eq!((rejected.items, rejected.attributes), (0, 1));
    assert!(rejected.reasons[0].starts_with("resourceLogs[0].scopeLogs[0].logRecords[0].traceId:"));
    let batch = decode(SignalKind::Logs, bytes).unwrap().batch;
    let rows = LogRows::new(&batch);
    assert_eq!((rows.body(0), rows.severity(0)), (Some("kept"), 13));
    assert!(rows.trace_id(0).is_none() && rows.span_id(0).is_some());
}

#[test]
fn a_bad_point_or_metric_is_left_out_and_the_rest_kept() {
    let json = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[
        {"name":"a","gauge":{"dataPoints":[{"asInt":"1"},{"asDouble":"high"},{"asDouble":"NaN"}]}},
        {"gauge":{"dataPoints":[{"asInt":2},{"asInt":3}]},"name":7},
        {"name":"h","histogram":{"aggregationTemporality":2,"dataPoints":[
            {"count":"3","bucketCounts":["1","2"],"explicitBounds":[0.5,1]},
            {"count":3,"sum":1.5,"bucketCounts":[1,"2"],"explicitBounds":["0.5"],
             "exemplars":[{"asInt":"4","traceId":"zz"}]}]}},
        {"name":"e","exponential_histogram":{"dataPoints":[
            {"count":"18446744073709551615","scale":-3,"positive":{"offset":-2147483648,"bucketCounts":["18446744073709551615",0]}}]}}
    ]}]}]}"#;
    let (bytes, mut rejected) = decode_json(SignalKind::Points, json.as_bytes()).unwrap();
    ExportMetricsServiceRequest::decode(bytes.clone()).unwrap();
    let decoded = decode(SignalKind::Points, bytes).unwrap();
    rejected.merge(decoded.rejected);
    let rows = PointRows::new(&decoded.batch);
    let names: Vec<_> = (0..decoded.batch.num_rows()).map(|row| rows.name(row)).collect();
    assert_eq!(names, ["a", "a", "h", "e"]);
    assert!(rows.value(1).unwrap().as_f64().is_nan());
    assert_eq!((rows.bucket_counts(2), rows.explicit_bounds(2)), (&[1, 2][..], &[0.5][..]));
    assert_eq!(rows.exemplars(2).count(), 1);
    assert_eq!(rows.positive(3), Some((i32::MIN, &[u64::MAX, 0][..])));
    assert_eq!((rejected.items, rejected.attributes), (4, 1));
    let place = "resourceMetrics[0].scopeMetrics[0].metrics";
    assert_eq!(
        rejected.reasons[1..],
        [
            format!("{place}[1].name: expected a string, found a number"),
            format!(
                "{place}[2].histogram.dataPoints[0]: bucket_counts has 2 values and \
                 explicit_bounds 2, expected one count more than bounds"
            ),
            format!(
                "{place}[2].histogram.dataPoints[1].exemplars[0].traceId: \"zz\" is not hex: \
                 expected hexadecimal digits"
            ),
        ]
    );
    assert!(
        rejected.reasons[0]
            .starts_with(&format!("{place}[0].gauge.dataPoints[1].asDouble: \"high\""))
    );
}

#[test]
fn the_kind_of_a_request_is_seen_from_its_first_member() {
    let kind = |json: &str| json_kind(json.as_bytes()).unwrap();
    assert_eq!(kind(r#"{"resourceSpans":[]}"#), Some(SignalKind::Spans));
    assert_eq!(kind(r#"{"x":{"resourceSpans":1},"resource_logs":"#), Some(SignalKind::Logs));
    assert_eq!(kind(r#" {"resourceMetrics":[]}"#), Some(SignalKind::Points));
    assert_eq!((kind("{}"), kind("[1]")), (None, None));
    assert!(json_kind(b"{\"a\" 1}").is_err());
}

#[test]
fn values_nested_too_deep_are_refused() {
    let nested = |depth: usize| {
        let open = r#"{"arrayValue":{"values":["#.repeat(depth);
        let close = "]}}".repeat(depth);
        request_of(&["", &format!(r#""attributes":[{{"key":"k","value":{open}{{}}{close}}}]"#)])
    };
    let (kept, _) = spans(&nested(MAX_DEPTH));
    assert_eq!(kept.len(), 2);
    let (bytes, _) = decode_json(SignalKind::Spans, nested(MAX_DEPTH).as_bytes()).unwrap();
    let batch = decode(SignalKind::Spans, bytes).unwrap().batch;
    assert_eq!(SpanRows::new(&batch).name(1), "");
    assert_eq!(batch.num_rows(), 2);
    let (kept, rejected) = spans(&nested(MAX_DEPTH + 1));
    assert_eq!((kept.len(), rejected.items), (1, 1));
    assert!(rejected.reasons[0].ends_with("values nested too deep"));
}

/// Regression: one link without an id took its span with it.
#[test]
fn a_link_without_an_id_is_counted_in_its_span() {
    let links = r#""links":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"zz"},
        {"traceId":"00000000000000000000000000000000","spanId":"eee19b7ec3c1b174"},
        {"spanId":"eee19b7ec3c1b174"},
        {"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174"}]"#;
    let (bytes, mut rejected) =
        decode_json(SignalKind::Spans, request_of(&[links]).as_bytes()).unwrap();
    let decoded = decode(SignalKind::Spans, bytes).unwrap();
    rejected.merge(decoded.rejected);
    assert_eq!((decoded.batch.num_rows(), rejected.items, rejected.links), (1, 0, 3));
    assert_eq!(SpanRows::new(&decoded.batch).links(0).count(), 1);
    let dropped = decoded.batch.number_column::<arrow::datatypes::UInt32Type>("dropped_links");
    assert_eq!(dropped.unwrap().value(0), 3);
    assert_eq!(
        rejected.reasons[0],
        "resourceSpans[0].scopeSpans[0].spans[0].links[0].spanId: \"zz\" is not hex: expected 16 digits"
    );
}
