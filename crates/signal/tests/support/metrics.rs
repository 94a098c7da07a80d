//! Random requests of metric points.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as NumberValue;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram,
    HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary,
    SummaryDataPoint, exemplar,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message;

use super::{attributes, double, integer, maybe_id, resources, text, time};

fn exemplar(special: bool) -> impl Strategy<Value = Exemplar> {
    let value = prop_oneof![
        double(special).prop_map(exemplar::Value::AsDouble),
        integer().prop_map(exemplar::Value::AsInt),
    ];
    (attributes(special), time(), maybe_id(8), maybe_id(16), option::of(value)).prop_map(
        |(filtered_attributes, time_unix_nano, span_id, trace_id, value)| Exemplar {
            filtered_attributes,
            time_unix_nano,
            span_id,
            trace_id,
            value,
        },
    )
}

fn number_point(special: bool) -> impl Strategy<Value = NumberDataPoint> {
    let value = prop_oneof![
        double(special).prop_map(NumberValue::AsDouble),
        integer().prop_map(NumberValue::AsInt),
    ];
    let exemplars = vec(exemplar(special), 0..3);
    (attributes(special), time(), time(), exemplars, any::<u32>(), option::of(value)).prop_map(
        |(attributes, start_time_unix_nano, time_unix_nano, exemplars, flags, value)| {
            NumberDataPoint {
                attributes,
                start_time_unix_nano,
                time_unix_nano,
                exemplars,
                flags,
                value,
            }
        },
    )
}

fn histogram_point(special: bool) -> impl Strategy<Value = HistogramDataPoint> {
    let buckets = prop_oneof![
        1 => Just((vec![], vec![])),
        4 => (0..8usize).prop_flat_map(move |n| {
            (vec(any::<u64>(), n + 1), vec(double(special), n))
        }),
    ];
    let some = move || option::of(double(special));
    (
        (attributes(special), time(), time(), any::<u64>(), buckets),
        (vec(exemplar(special), 0..2), any::<u32>(), some(), some(), some()),
    )
        .prop_map(|(head, tail)| HistogramDataPoint {
            attributes: head.0,
            start_time_unix_nano: head.1,
            time_unix_nano: head.2,
            count: head.3,
            sum: tail.2,
            bucket_counts: head.4.0,
            explicit_bounds: head.4.1,
            exemplars: tail.0,
            flags: tail.1,
            min: tail.3,
            max: tail.4,
        })
}

fn exponential_point(special: bool) -> impl Strategy<Value = ExponentialHistogramDataPoint> {
    let some = move || option::of(double(special));
    let count = prop_oneof![any::<u64>(), 0..300u64];
    let buckets = (any::<i32>(), vec(count, 0..9))
        .prop_map(|(offset, bucket_counts)| Buckets { offset, bucket_counts });
    let buckets = option::of(buckets);
    (
        (attributes(special), time(), time(), any::<u64>(), some(), any::<i32>(), any::<u64>()),
        (buckets.clone(), buckets, any::<u32>(), vec(exemplar(special), 0..2)),
        (some(), some(), double(special)),
    )
        .prop_map(|(head, middle, tail)| ExponentialHistogramDataPoint {
            attributes: head.0,
            start_time_unix_nano: head.1,
            time_unix_nano: head.2,
            count: head.3,
            sum: head.4,
            scale: head.5,
            zero_count: head.6,
            positive: middle.0,
            negative: middle.1,
            flags: middle.2,
            exemplars: middle.3,
            min: tail.0,
            max: tail.1,
            zero_threshold: tail.2,
        })
}

fn summary_point(special: bool) -> impl Strategy<Value = SummaryDataPoint> {
    let quantile = (double(special), double(special))
        .prop_map(|(quantile, value)| ValueAtQuantile { quantile, value });
    (
        attributes(special),
        time(),
        time(),
        any::<u64>(),
        double(special),
        vec(quantile, 0..4),
        0u32..3,
    )
        .prop_map(|(attributes, start, time_unix_nano, count, sum, quantile_values, flags)| {
            SummaryDataPoint {
                attributes,
                start_time_unix_nano: start,
                time_unix_nano,
                count,
                sum,
                quantile_values,
                flags,
            }
        })
}

fn metric(special: bool) -> impl Strategy<Value = Metric> {
    let data = prop_oneof![
        vec(number_point(special), 0..4).prop_map(|data_points| Data::Gauge(Gauge { data_points })),
        (vec(number_point(special), 0..4), 0..3, any::<bool>()).prop_map(
            |(data_points, aggregation_temporality, is_monotonic)| Data::Sum(Sum {
                data_points,
                aggregation_temporality,
                is_monotonic
            })
        ),
        (vec(histogram_point(special), 0..4), 0..3).prop_map(
            |(data_points, aggregation_temporality)| Data::Histogram(Histogram {
                data_points,
                aggregation_temporality
            })
        ),
        (vec(exponential_point(special), 0..4), 0..3).prop_map(
            |(data_points, aggregation_temporality)| Data::ExponentialHistogram(
                ExponentialHistogram { data_points, aggregation_temporality }
            )
        ),
        vec(summary_point(special), 0..4)
            .prop_map(|data_points| Data::Summary(Summary { data_points })),
    ];
    (text(), text(), text(), attributes(special), data.prop_map(Some)).prop_map(
        |(name, description, unit, metadata, data)| Metric {
            name,
            description,
            unit,
            metadata,
            data,
        },
    )
}

/// Requests of metric points.
pub fn metrics(special: bool) -> impl Strategy<Value = ExportMetricsServiceRequest> {
    resources(metric(special), special).prop_map(|resources| ExportMetricsServiceRequest {
        resource_metrics: resources
            .into_iter()
            .map(|(resource, scopes, schema_url)| ResourceMetrics {
                resource,
                scope_metrics: scopes
                    .into_iter()
                    .map(|(scope, metrics, schema_url)| ScopeMetrics { scope, metrics, schema_url })
                    .collect(),
                schema_url,
            })
            .collect(),
    })
}

/// How many points prost finds in a request; `None` if it cannot read it.
pub fn points_by_prost(body: &[u8]) -> Option<usize> {
    let request = ExportMetricsServiceRequest::decode(body).ok()?;
    let scopes = request.resource_metrics.iter().flat_map(|r| &r.scope_metrics);
    let points = scopes.flat_map(|scope| &scope.metrics).map(|metric| match &metric.data {
        Some(Data::Gauge(data)) => data.data_points.len(),
        Some(Data::Sum(data)) => data.data_points.len(),
        Some(Data::Histogram(data)) => data.data_points.len(),
        Some(Data::ExponentialHistogram(data)) => data.data_points.len(),
        Some(Data::Summary(data)) => data.data_points.len(),
        // Refused as one.
        None => 1,
    });
    Some(points.sum())
}
