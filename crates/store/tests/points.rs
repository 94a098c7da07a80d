//! Metric points go the same way as spans and logs: log, memory, segments, merges.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use bytes::Bytes;
use lacuna_signal::SignalKind;
use lacuna_signal::schema::{NAME, TIME};
use lacuna_store::{Options, Store, TimeRange};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric,
};
use prost::Message;

fn points(host: &str, times: std::ops::Range<u64>) -> Bytes {
    let attribute = KeyValue {
        key: "host".to_owned(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue(host.to_owned())) }),
        ..KeyValue::default()
    };
    let data: Vec<NumberDataPoint> = times
        .map(|time| NumberDataPoint {
            time_unix_nano: time,
            attributes: vec![attribute.clone()],
            value: Some(Value::AsDouble(time as f64)),
            ..NumberDataPoint::default()
        })
        .collect();
    let gauge = Metric {
        name: "temperature".to_owned(),
        unit: "Cel".to_owned(),
        data: Some(metric::Data::Gauge(Gauge { data_points: data.clone() })),
        ..Metric::default()
    };
    let sum = Metric {
        name: "requests".to_owned(),
        unit: "{request}".to_owned(),
        data: Some(metric::Data::Sum(Sum {
            data_points: data,
            aggregation_temporality: 2,
            is_monotonic: true,
        })),
        ..Metric::default()
    };
    let scope = ScopeMetrics { metrics: vec![gauge, sum], ..ScopeMetrics::default() };
    let resource = ResourceMetrics { scope_metrics: vec![scope], ..ResourceMetrics::default() };
    let request = ExportMetricsServiceRequest { resource_metrics: vec![resource] };
    Bytes::from(request.encode_to_vec())
}

/// Name, host and time of every point.
fn all(store: &Store, range: TimeRange) -> Vec<(String, String, i64)> {
    let mut found = Vec::new();
    for batch in store.scan(SignalKind::Points, None, range, None, usize::MAX).unwrap() {
        let batch = batch.unwrap();
        let (name, host) = (batch.text_column(NAME).unwrap(), batch.text_column("point.host"));
        let time = batch.number_column::<arrow::datatypes::TimestampNanosecondType>(TIME).unwrap();
        found.extend((0..batch.num_rows()).map(|row| {
            (name.value(row).to_owned(), host.unwrap().value(row).to_owned(), time.value(row))
        }));
    }
    found.sort();
    found
}

#[test]
fn points_are_durable_found_and_catalogued() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    options.background = false;
    let mut store = Store::open(dir.path(), options.clone()).unwrap();
    for round in 0..4u64 {
        for host in ["a", "b", "c"] {
            let body = points(host, round * 1000..round * 1000 + 300);
            let batch = support::decode(SignalKind::Points, &body);
            store.append_wait(SignalKind::Points, body, batch).unwrap();
        }
        match round {
            0 | 1 => store.flush().unwrap(),
            2 => store.compact().unwrap(),
            _ => {}
        }
    }
    for _ in 0..2 {
        assert_eq!(all(&store, TimeRange::ALL).len(), 4 * 3 * 300 * 2);
        let some = all(&store, TimeRange::new(1290, 2005));
        assert_eq!(some.len(), 3 * 2 * (10 + 5));
        assert_eq!(some.first(), Some(&("requests".to_owned(), "a".to_owned(), 1290)));
        let metrics = store.metrics(TimeRange::ALL, 10).unwrap();
        let seen: Vec<_> = metrics
            .items
            .iter()
            .map(|m| (m.metric.name.as_str(), m.metric.unit.as_str(), m.metric.monotonic, m.points))
            .collect();
        assert_eq!(
            seen,
            [("requests", "{request}", true, 3600), ("temperature", "Cel", false, 3600)]
        );
        assert!(store.metrics(TimeRange::ALL, 1).unwrap().cut);
        drop(store);
        store = Store::open(dir.path(), options.clone()).unwrap();
    }
    // A segment holds a series in one piece.
    let mut series = Vec::new();
    let range = TimeRange::new(i64::MIN, 2500);
    for batch in store.scan(SignalKind::Points, None, range, None, usize::MAX).unwrap() {
        let batch = batch.unwrap();
        let (name, host) = (batch.text_column(NAME).unwrap(), batch.text_column("point.host"));
        for row in 0..batch.num_rows() {
            let key = (name.value(row).to_owned(), host.unwrap().value(row).to_owned());
            if series.last() != Some(&key) {
                series.push(key);
            }
        }
    }
    assert_eq!(series.len(), 6);
}
