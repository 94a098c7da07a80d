//! Metric points go out as JSON and come in again as the same columns.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram,
    HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary,
    SummaryDataPoint, exemplar, number_data_point,
};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

use super::tests::{TIME, attributes, grouped, id};
use super::to_json;
use crate::otlp::{decode, decode_json};
use crate::schema::SignalKind;

fn double() -> impl Strategy<Value = f64> {
    prop_oneof![
        8 => any::<f64>().prop_filter("other NaNs have no text", |v| !v.is_nan()),
        1 => Just(f64::NAN),
        1 => Just(f64::INFINITY),
    ]
}

fn exemplars() -> impl Strategy<Value = Vec<Exemplar>> {
    let value = prop_oneof![
        double().prop_map(exemplar::Value::AsDouble),
        any::<i64>().prop_map(exemplar::Value::AsInt),
    ];
    let ids = prop::option::of((id::<16>(), id::<8>()));
    let exemplar = (attributes(), TIME, prop::option::of(value), ids).prop_map(
        |(filtered_attributes, time_unix_nano, value, ids)| {
            let (trace_id, span_id) = ids.unwrap_or_default();
            Exemplar { filtered_attributes, time_unix_nano, span_id, trace_id, value }
        },
    );
    vec(exemplar, 0..3)
}

fn numbers() -> impl Strategy<Value = Vec<NumberDataPoint>> {
    let value = prop_oneof![
        double().prop_map(number_data_point::Value::AsDouble),
        any::<i64>().prop_map(number_data_point::Value::AsInt),
    ];
    let point = (attributes(), 0u64..9, TIME, any::<u32>(), exemplars(), prop::option::of(value));
    vec(
        point.prop_map(|(attributes, start, time_unix_nano, flags, exemplars, value)| {
            NumberDataPoint {
                attributes,
                start_time_unix_nano: start,
                time_unix_nano,
                exemplars,
                flags,
                value,
            }
        }),
        1..3,
    )
}

type Parts = (Vec<KeyValue>, u64, u64, u32, Vec<Exemplar>);

fn parts() -> impl Strategy<Value = Parts> {
    (attributes(), 0u64..9, TIME, any::<u32>(), exemplars())
}

fn histograms() -> impl Strategy<Value = Vec<HistogramDataPoint>> {
    let optional = || prop::option::of(double());
    let buckets = vec((any::<u64>(), double()), 0..4);
    let point = (parts(), any::<u64>(), buckets, optional(), optional(), optional());
    vec(
        point.prop_map(|(parts, count, buckets, sum, min, max)| {
            let (attributes, start_time_unix_nano, time_unix_nano, flags, exemplars) = parts;
            let (mut bucket_counts, explicit_bounds): (Vec<u64>, Vec<f64>) =
                buckets.into_iter().unzip();
            if !explicit_bounds.is_empty() {
                bucket_counts.push(0);
            }
            HistogramDataPoint {
                attributes,
                start_time_unix_nano,
                time_unix_nano,
                count,
                sum,
                bucket_counts,
                explicit_bounds,
                exemplars,
                flags,
                min,
                max,
            }
        }),
        1..3,
    )
}

fn exponentials() -> impl Strategy<Value = Vec<ExponentialHistogramDataPoint>> {
    let optional = || prop::option::of(double());
    let buckets = || {
        let buckets = (any::<i32>(), vec(any::<u64>(), 0..4));
        prop::option::of(
            buckets.prop_map(|(offset, bucket_counts)| Buckets { offset, bucket_counts }),
        )
    };
    let counts = (any::<u64>(), any::<u64>(), any::<i32>(), 0.0..1.0f64);
    let point = (parts(), counts, buckets(), buckets(), optional(), optional(), optional());
    vec(
        point.prop_map(
            |(
                parts,
                (count, zero_count, scale, zero_threshold),
                positive,
                negative,
                sum,
                min,
                max,
            )| {
                let (attributes, start_time_unix_nano, time_unix_nano, flags, exemplars) = parts;
                ExponentialHistogramDataPoint {
                    attributes,
                    start_time_unix_nano,
                    time_unix_nano,
                    count,
                    sum,
                    scale,
                    zero_count,
                    positive,
                    negative,
                    flags,
                    exemplars,
                    min,
                    max,
                    zero_threshold,
                }
            },
        ),
        1..3,
    )
}

fn summaries() -> impl Strategy<Value = Vec<SummaryDataPoint>> {
    let quantiles = vec((0.0..1.0f64, double()), 0..3);
    let point = (parts(), any::<u64>(), double(), quantiles);
    vec(
        point.prop_map(|(parts, count, sum, quantiles)| {
            let (attributes, start_time_unix_nano, time_unix_nano, flags, _) = parts;
            let quantile_values = quantiles
                .into_iter()
                .map(|(quantile, value)| ValueAtQuantile { quantile, value })
                .collect();
            SummaryDataPoint {
                attributes,
                start_time_unix_nano,
                time_unix_nano,
                count,
                sum,
                quantile_values,
                flags,
            }
        }),
        1..3,
    )
}

fn metric() -> impl Strategy<Value = Metric> {
    let data = prop_oneof![
        numbers().prop_map(|data_points| Data::Gauge(Gauge { data_points })),
        (numbers(), 0i32..3, any::<bool>()).prop_map(|(data_points, t, is_monotonic)| {
            Data::Sum(Sum { data_points, aggregation_temporality: t, is_monotonic })
        }),
        (histograms(), 0i32..3).prop_map(|(data_points, aggregation_temporality)| {
            Data::Histogram(Histogram { data_points, aggregation_temporality })
        }),
        (exponentials(), 0i32..3).prop_map(|(data_points, aggregation_temporality)| {
            Data::ExponentialHistogram(ExponentialHistogram {
                data_points,
                aggregation_temporality,
            })
        }),
        summaries().prop_map(|data_points| Data::Summary(Summary { data_points })),
    ];
    (".{1,5}", ".{0,5}", "[a-z]{0,3}", data, attributes()).prop_map(
        |(name, description, unit, data, metadata)| Metric {
            name,
            description,
            unit,
            metadata,
            data: Some(data),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn points_come_back(resources in grouped(metric())) {
        let resource_metrics = resources.into_iter().map(|(resource, schema_url, scopes)| {
            let scopes = scopes.into_iter().map(|(scope, schema_url, mut metrics)| {
                // Each metric of a scope has a name of its own.
                for (n, metric) in metrics.iter_mut().enumerate() {
                    metric.name.push_str(&n.to_string());
                }
                ScopeMetrics { scope: Some(scope), metrics, schema_url }
            });
            ResourceMetrics { resource: Some(resource), schema_url, scope_metrics: scopes.collect() }
        });
        let request = ExportMetricsServiceRequest { resource_metrics: resource_metrics.collect() };
        let decoded = decode(SignalKind::Points, Bytes::from(request.encode_to_vec())).unwrap();
        prop_assert!(decoded.rejected.is_empty(), "{:?}", decoded.rejected);
        let json = to_json(&decoded.batch).unwrap();
        let text = String::from_utf8_lossy(&json);
        let (protobuf, rejected) = decode_json(SignalKind::Points, &json).unwrap();
        prop_assert!(rejected.is_empty(), "{:?}: {}", rejected, text);
        let again = decode(SignalKind::Points, protobuf).unwrap();
        prop_assert!(again.rejected.is_empty(), "{:?}: {}", again.rejected, text);
        prop_assert_eq!(again.batch, decoded.batch, "{}", text);
    }
}
