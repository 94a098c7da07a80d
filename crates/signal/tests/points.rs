//! Metric points, held against requests that prost encoded.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use lacuna_signal::otlp::{Limits, decode, decode_with};
use lacuna_signal::rows::{MetricType, Number, PointRows};
use lacuna_signal::schema::Scope;
use lacuna_signal::{Batch, SignalKind, Value};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, InstrumentationScope, KeyValue, any_value::Value as Any,
};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as NumberValue;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram,
    HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary,
    SummaryDataPoint, exemplar,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(Any::StringValue(value.to_owned())) }),
        ..Default::default()
    }
}

fn metric(name: &str, data: Data) -> Metric {
    Metric { name: name.to_owned(), data: Some(data), ..Default::default() }
}

fn point(time: u64, value: NumberValue, attributes: Vec<KeyValue>) -> NumberDataPoint {
    NumberDataPoint { time_unix_nano: time, value: Some(value), attributes, ..Default::default() }
}

fn request(metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource {
                attributes: vec![text("service.name", "essays")],
                ..Default::default()
            }),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(InstrumentationScope { name: "meter".into(), ..Default::default() }),
                metrics,
                schema_url: String::new(),
            }],
            schema_url: "https://opentelemetry.io/schemas/1.44.0".into(),
        }],
    }
}

fn decode_points(request: &ExportMetricsServiceRequest) -> lacuna_signal::otlp::Decoded {
    decode(SignalKind::Points, Bytes::from(request.encode_to_vec())).unwrap()
}

fn all_types() -> Vec<Metric> {
    let mut gauge = metric(
        "queue.length",
        Data::Gauge(Gauge {
            data_points: vec![
                point(10, NumberValue::AsInt(-4), vec![text("queue", "essays")]),
                NumberDataPoint { time_unix_nano: 11, flags: 1, ..Default::default() },
            ],
        }),
    );
    gauge.description = "Messages that wait".into();
    gauge.unit = "{message}".into();
    gauge.metadata = vec![text("prometheus.type", "gauge")];
    let mut counted = point(20, NumberValue::AsDouble(2.5), vec![text("outcome", "aborted")]);
    counted.start_time_unix_nano = 5;
    counted.exemplars = vec![
        Exemplar {
            time_unix_nano: 19,
            value: Some(exemplar::Value::AsInt(3)),
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            filtered_attributes: vec![text("batch_id", "b-1")],
        },
        Exemplar {
            value: Some(exemplar::Value::AsDouble(0.25)),
            trace_id: vec![1; 3],
            ..Default::default()
        },
    ];
    let sum = Sum { data_points: vec![counted], aggregation_temporality: 2, is_monotonic: true };
    let delta = Sum {
        data_points: vec![point(21, NumberValue::AsInt(i64::MIN), vec![])],
        aggregation_temporality: 1,
        is_monotonic: false,
    };
    let histogram = HistogramDataPoint {
        time_unix_nano: 30,
        count: 6,
        sum: Some(1.5),
        bucket_counts: vec![1, 2, 3],
        explicit_bounds: vec![0.1, 0.5],
        min: Some(0.01),
        max: Some(0.9),
        ..Default::default()
    };
    let exponential = ExponentialHistogramDataPoint {
        time_unix_nano: 40,
        count: u64::MAX,
        scale: -3,
        zero_count: 7,
        zero_threshold: 1e-9,
        positive: Some(Buckets { offset: -12, bucket_counts: vec![5, 0, 300] }),
        negative: Some(Buckets { offset: 0, bucket_counts: vec![] }),
        ..Default::default()
    };
    let summary = SummaryDataPoint {
        time_unix_nano: 50,
        count: 2,
        quantile_values: vec![
            ValueAtQuantile { quantile: 0.5, value: 1.0 },
            ValueAtQuantile { quantile: 1.0, value: 2.0 },
        ],
        ..Default::default()
    };
    vec![
        gauge,
        metric("transactions", Data::Sum(sum)),
        metric("delta", Data::Sum(delta)),
        metric(
            "latency",
            Data::Histogram(Histogram { data_points: vec![histogram], aggregation_temporality: 2 }),
        ),
        metric(
            "latency.exponential",
            Data::ExponentialHistogram(ExponentialHistogram {
                data_points: vec![exponential],
                aggregation_temporality: 1,
            }),
        ),
        metric("rpc", Data::Summary(Summary { data_points: vec![summary] })),
    ]
}

#[test]
fn every_type_of_metric_keeps_what_it_had() {
    let decoded = decode_points(&request(all_types()));
    assert!(decoded.rejected.is_empty(), "{:?}", decoded.rejected);
    let batch = decoded.batch;
    Batch::try_new(SignalKind::Points, batch.record().clone()).unwrap();
    let rows = PointRows::new(&batch);
    let names: Vec<_> = (0..batch.num_rows()).map(|row| rows.name(row)).collect();
    let expected = [
        "queue.length",
        "queue.length",
        "transactions",
        "delta",
        "latency",
        "latency.exponential",
        "rpc",
    ];
    assert_eq!(names, expected);
    let types: Vec<_> = (1..7).map(|row| rows.metric_type(row).unwrap()).collect();
    use MetricType::*;
    assert_eq!(types, [Gauge, Sum, Sum, Histogram, ExponentialHistogram, Summary]);
    assert_eq!((rows.service(6), rows.scope_name(6)), (Some("essays"), Some("meter")));

    assert_eq!((rows.value(0), rows.time(0), rows.start(0)), (Some(Number::Int(-4)), 10, None));
    assert_eq!(
        (rows.description(1), rows.unit(1)),
        (Some("Messages that wait"), Some("{message}"))
    );
    assert_eq!((rows.description(2), rows.unit(2)), (None, None));
    assert_eq!((rows.value(1), rows.no_recorded_value(1)), (None, true));
    assert!(!rows.no_recorded_value(0));
    let queue = batch.attribute(Scope::Point, "queue");
    assert_eq!((queue.get(0), queue.get(1)), (Some(Value::Str("essays")), None));
    let kind = batch.attribute(Scope::Metric, "prometheus.type");
    assert_eq!((kind.get(1), kind.get(2)), (Some(Value::Str("gauge")), None));

    assert_eq!((rows.value(2), rows.start(2)), (Some(Number::Double(2.5)), Some(5)));
    assert_eq!((rows.temporality(2), rows.monotonic(2)), (2, true));
    assert_eq!((rows.temporality(3), rows.monotonic(3)), (1, false));
    assert_eq!(rows.value(3), Some(Number::Int(i64::MIN)));
    let exemplars: Vec<_> = rows.exemplars(2).collect();
    assert_eq!((exemplars[0].time, exemplars[0].value), (19, Some(Number::Int(3))));
    assert_eq!(exemplars[0].trace_id.unwrap().0, [1; 16]);
    assert_eq!(exemplars[0].span_id.unwrap().0, [2; 8]);
    let attributes: Vec<_> = exemplars[0].attributes.unwrap().iter().collect();
    assert_eq!(attributes, [("batch_id", Value::Str("b-1"))]);
    assert_eq!((exemplars[1].value, exemplars[1].trace_id), (Some(Number::Double(0.25)), None));
    assert_eq!(exemplars.len(), 2);

    assert_eq!((rows.count(4), rows.sum(4)), (Some(6), Some(1.5)));
    assert_eq!((rows.min(4), rows.max(4)), (Some(0.01), Some(0.9)));
    assert_eq!(rows.bucket_counts(4), [1, 2, 3]);
    assert_eq!(rows.explicit_bounds(4), [0.1, 0.5]);
    assert_eq!((rows.count(0), rows.sum(0), rows.scale(4)), (None, None, None));

    assert_eq!((rows.count(5), rows.sum(5)), (Some(u64::MAX), None));
    assert_eq!((rows.scale(5), rows.zero_count(5)), (Some(-3), Some(7)));
    assert_eq!(rows.zero_threshold(5), Some(1e-9));
    assert_eq!(rows.positive(5), Some((-12, &[5, 0, 300][..])));
    assert_eq!(rows.negative(5), Some((0, &[][..])));
    assert_eq!(rows.positive(4), None);

    assert_eq!((rows.count(6), rows.sum(6)), (Some(2), Some(0.0)));
    assert_eq!(rows.quantiles(6).collect::<Vec<_>>(), [(0.5, 1.0), (1.0, 2.0)]);
    assert_eq!(rows.quantiles(5).count(), 0);
}

#[test]
fn a_bad_point_is_refused_and_its_neighbours_kept() {
    let histogram = HistogramDataPoint {
        count: 3,
        bucket_counts: vec![1, 2],
        explicit_bounds: vec![0.1, 0.2],
        ..Default::default()
    };
    let good = HistogramDataPoint { count: 4, ..Default::default() };
    let late = point(u64::MAX, NumberValue::AsInt(1), vec![text("k", "v")]);
    let decoded = decode_points(&request(vec![
        metric(
            "h",
            Data::Histogram(Histogram {
                data_points: vec![histogram, good],
                aggregation_temporality: 2,
            }),
        ),
        metric(
            "g",
            Data::Gauge(Gauge { data_points: vec![late, point(1, NumberValue::AsInt(2), vec![])] }),
        ),
    ]));
    let rows = PointRows::new(&decoded.batch);
    assert_eq!(decoded.batch.num_rows(), 2);
    assert_eq!((rows.count(0), rows.value(1)), (Some(4), Some(Number::Int(2))));
    assert_eq!((rows.name(0), rows.name(1)), ("h", "g"));
    assert!(decoded.batch.attribute(Scope::Point, "k").is_absent());
    assert_eq!(decoded.rejected.items, 2);
    let place = "resource_metrics[0].scope_metrics[0].metrics";
    assert_eq!(
        decoded.rejected.reasons,
        [
            format!(
                "{place}[0].histogram.data_points[0]: bucket_counts has 2 values and \
                 explicit_bounds 2, expected one count more than bounds"
            ),
            format!(
                "{place}[1].gauge.data_points[0]: time_unix_nano is {} ns, later than the year 2262",
                u64::MAX
            ),
        ]
    );
}

#[test]
fn text_that_is_not_utf8_refuses_its_point_or_its_metric() {
    let gauge = |name: &str, key: &str| {
        let points = (0..3).map(|i| {
            let key = if i == 1 { key } else { "a good key of a point" };
            point(i, NumberValue::AsInt(1), vec![text(key, "v")])
        });
        metric(name, Data::Gauge(Gauge { data_points: points.collect() }))
    };
    let spoil = |request: ExportMetricsServiceRequest| {
        let mut bytes = request.encode_to_vec();
        let at = bytes.windows(7).position(|w| w == b"spoiled").unwrap();
        bytes[at] = 0xff;
        decode(SignalKind::Points, Bytes::from(bytes)).unwrap()
    };
    let one = spoil(request(vec![gauge("first", "spoiled key of a point"), gauge("b", "c")]));
    assert_eq!((one.batch.num_rows(), one.rejected.items), (5, 1));
    assert!(
        one.rejected.reasons[0]
            .ends_with("metrics[0].gauge.data_points[1]: a text that is not UTF-8")
    );
    let all = spoil(request(vec![gauge("a", "b"), gauge("spoiled name of a metric", "c")]));
    assert_eq!((all.batch.num_rows(), all.rejected.items), (3, 3));
    assert!(all.rejected.reasons[0].ends_with("metrics[1]: a text that is not UTF-8"));
}

#[test]
fn the_frame_may_come_in_any_order_and_in_parts() {
    // metric { sum { point }, gauge { point 1 }, gauge { point 2 }, name }: the last member of the
    // `oneof` counts, its parts are merged.
    let part = |data: Data| Metric { data: Some(data), ..Default::default() }.encode_to_vec();
    let gauge = |value| {
        part(Data::Gauge(Gauge { data_points: vec![point(1, NumberValue::AsInt(value), vec![])] }))
    };
    let sum =
        Sum { data_points: vec![point(1, NumberValue::AsInt(9), vec![])], ..Default::default() };
    let mut bytes = part(Data::Sum(sum));
    bytes.extend(gauge(1));
    bytes.extend(gauge(2));
    bytes.extend(Metric { name: "late".into(), ..Default::default() }.encode_to_vec());
    let mut scope = vec![0x12, bytes.len() as u8];
    scope.extend(bytes);
    let mut resource = vec![0x12, scope.len() as u8];
    resource.extend(scope);
    let mut body = vec![0x0a, resource.len() as u8];
    body.extend(resource);
    let decoded = decode(SignalKind::Points, Bytes::from(body)).unwrap();
    let rows = PointRows::new(&decoded.batch);
    let values: Vec<_> = (0..decoded.batch.num_rows())
        .map(|row| (rows.name(row), rows.metric_type(row), rows.value(row)))
        .collect();
    let expected = |value| ("late", Some(MetricType::Gauge), Some(Number::Int(value)));
    assert_eq!(values, [expected(1), expected(2)]);
}

/// Regression: a metric whose data is of no type that is known was taken, and thrown away.
#[test]
fn a_metric_of_an_unknown_type_is_refused_by_its_name() {
    let gauge = Data::Gauge(Gauge { data_points: vec![point(5, NumberValue::AsInt(1), vec![])] });
    let request =
        request(vec![metric("kept", gauge), Metric { name: "lost".into(), ..Default::default() }]);
    let decoded = decode_points(&request);
    assert_eq!((decoded.batch.num_rows(), decoded.rejected.items), (1, 1));
    assert_eq!(
        decoded.rejected.message(),
        "resource_metrics[0].scope_metrics[0].metrics[1]: metric `lost` has no data of a known type: \
         expected gauge, sum, histogram, exponential_histogram or summary"
    );
    let json = br#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[
        {"name":"old","intGauge":{"dataPoints":[{"asInt":"1"}]}}]}]}]}"#;
    let (body, _) = lacuna_signal::otlp::decode_json(SignalKind::Points, json).unwrap();
    let error = decode(SignalKind::Points, body).unwrap_err().to_string();
    assert!(error.contains("metric `old` has no data of a known type"), "{error}");
}

#[test]
fn limits_reach_the_attributes_of_exemplars() {
    let mut limited = point(5, NumberValue::AsInt(1), vec![]);
    limited.exemplars = vec![Exemplar {
        filtered_attributes: vec![text("a", "123456789"), text("b", "2"), text("c", "3")],
        ..Default::default()
    }];
    let gauge = Data::Gauge(Gauge { data_points: vec![limited] });
    let mut request = request(vec![metric("m", gauge)]);
    request.resource_metrics[0].resource = None;
    let limits = Limits { attributes: 2, attribute_length: 8, ..Limits::default() };
    let body = Bytes::from(request.encode_to_vec());
    let decoded = decode_with(SignalKind::Points, body, &limits).unwrap();
    let rows = PointRows::new(&decoded.batch);
    let exemplar = rows.exemplars(0).next().unwrap();
    let list: Vec<_> = exemplar.attributes.unwrap().iter().collect();
    assert_eq!(list, [("a", Value::Str("12345678")), ("b", Value::Str("2"))]);
    assert_eq!((decoded.rejected.attributes, decoded.rejected.truncated), (1, 1));
}
