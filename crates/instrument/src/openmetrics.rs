//! `/metrics`: what the meters hold, as OpenMetrics 1.0 text.
//!
//! Names follow OpenTelemetry's Prometheus compatibility specification: dots become underscores, the
//! unit and `_total` are appended where the name does not end with them already. An instrument named
//! `redis_transaction_attempts_total` has that very name here and by OTLP.

use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, Metric, MetricData, ResourceMetrics};
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{InstrumentKind, ManualReader, Pipeline, Temporality};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// The `Content-Type` of [`MetricsText::render`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Renders the service's metrics for a scrape. Cloning shares it.
///
/// ```no_run
/// # fn main() -> Result<(), lacuna_instrument::InitError> {
/// let telemetry = lacuna_instrument::init("essay_lifecycle_service")?;
/// let metrics = telemetry.metrics_text();
/// // In the handler of GET /metrics, with the header `Content-Type: CONTENT_TYPE`:
/// let body = metrics.render();
/// # drop(body); Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct MetricsText {
    reader: Arc<ManualReader>,
}

impl MetricsText {
    pub(crate) fn new() -> Self {
        Self {
            reader: Arc::new(
                ManualReader::builder().with_temporality(Temporality::Cumulative).build(),
            ),
        }
    }

    /// The reader to give to the meter provider.
    pub(crate) fn reader(&self) -> SharedReader {
        SharedReader(self.reader.clone())
    }

    /// The metrics as they are now. After shutdown: none.
    #[must_use]
    pub fn render(&self) -> String {
        let mut collected = ResourceMetrics::default();
        if self.reader.collect(&mut collected).is_err() {
            return "# EOF\n".to_owned();
        }
        render(&collected)
    }
}

/// One reader for the provider and for the renderer.
#[derive(Debug)]
pub(crate) struct SharedReader(Arc<ManualReader>);

impl MetricReader for SharedReader {
    fn register_pipeline(&self, pipeline: Weak<Pipeline>) {
        self.0.register_pipeline(pipeline);
    }
    fn collect(&self, rm: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(rm)
    }
    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }
    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }
    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}

/// A metric family: OpenMetrics wants all its samples together, whichever scope they are from.
struct Family<'a> {
    kind: &'static str,
    unit: &'static str,
    help: &'a str,
    metrics: Vec<(&'a InstrumentationScope, &'a Metric)>,
}

fn render(collected: &ResourceMetrics) -> String {
    let mut families: BTreeMap<String, Family<'_>> = BTreeMap::new();
    for of_scope in collected.scope_metrics() {
        for metric in of_scope.metrics() {
            add(&mut families, of_scope.scope(), metric);
        }
    }
    let mut text = String::new();
    let resource: Vec<KeyValue> =
        collected.resource().iter().map(|(k, v)| KeyValue::new(k.clone(), v.clone())).collect();
    let _ = writeln!(text, "# TYPE target info\n# HELP target Target metadata");
    let _ = writeln!(text, "target_info{} 1", labels(resource.iter(), None));
    for (name, family) in &families {
        let _ = writeln!(text, "# TYPE {name} {}", family.kind);
        if !family.unit.is_empty() && name.ends_with(&format!("_{}", family.unit)) {
            let _ = writeln!(text, "# UNIT {name} {}", family.unit);
        }
        if !family.help.is_empty() {
            let _ = writeln!(text, "# HELP {name} {}", escape(family.help));
        }
        // Two scopes can have the same series: no two samples may be the same one's.
        let (first, others) = match family.metrics.split_first() {
            Some(((first, _), others)) => (*first, others),
            None => continue,
        };
        let several = others.iter().any(|(scope, _)| *scope != first);
        for (scope, metric) in &family.metrics {
            let of_scope = if several { scope_labels(scope) } else { vec![] };
            match metric.data() {
                AggregatedMetrics::F64(d) => samples(&mut text, name, &of_scope, d, |v| v),
                AggregatedMetrics::U64(d) => samples(&mut text, name, &of_scope, d, |v| v as f64),
                AggregatedMetrics::I64(d) => samples(&mut text, name, &of_scope, d, |v| v as f64),
            }
        }
    }
    text.push_str("# EOF\n");
    text
}

/// The scope as the compatibility specification puts it into labels.
fn scope_labels(scope: &InstrumentationScope) -> Vec<KeyValue> {
    let name = KeyValue::new("otel_scope_name", scope.name().to_owned());
    let version = scope.version().map(|v| KeyValue::new("otel_scope_version", v.to_owned()));
    [Some(name), version].into_iter().flatten().collect()
}

/// The kind as OpenMetrics has it, where it has one.
fn kind_of(metric: &Metric) -> Option<&'static str> {
    fn of<T>(data: &MetricData<T>) -> Option<&'static str> {
        match data {
            MetricData::Sum(sum) if sum.is_monotonic() => Some("counter"),
            MetricData::Sum(_) | MetricData::Gauge(_) => Some("gauge"),
            MetricData::Histogram(_) => Some("histogram"),
            // Made only by a view that asks for it; no text form.
            MetricData::ExponentialHistogram(_) => None,
        }
    }
    match metric.data() {
        AggregatedMetrics::F64(data) => of(data),
        AggregatedMetrics::U64(data) => of(data),
        AggregatedMetrics::I64(data) => of(data),
    }
}

fn add<'a>(
    families: &mut BTreeMap<String, Family<'a>>,
    scope: &'a InstrumentationScope,
    metric: &'a Metric,
) {
    let Some(kind) = kind_of(metric) else { return };
    let unit = unit_word(metric.unit(), kind);
    let name = family_name(metric.name(), unit, kind);
    let help = metric.description();
    let family =
        families.entry(name).or_insert_with(|| Family { kind, unit, help, metrics: vec![] });
    // Two instruments of different kinds under one name: the first keeps it.
    if family.kind == kind {
        family.metrics.push((scope, metric));
    }
}

/// Writes a metric's samples, each with the labels `of_scope` beside its own.
fn samples<T: Copy>(
    out: &mut String,
    name: &str,
    of_scope: &[KeyValue],
    data: &MetricData<T>,
    float: impl Fn(T) -> f64,
) {
    match data {
        MetricData::Gauge(gauge) => {
            for p in gauge.data_points() {
                let labels = labels(p.attributes().chain(of_scope), None);
                let _ = writeln!(out, "{name}{labels} {}", number(float(p.value())));
            }
        }
        MetricData::Sum(sum) => {
            let suffix = if sum.is_monotonic() { "_total" } else { "" };
            for p in sum.data_points() {
                let labels = labels(p.attributes().chain(of_scope), None);
                let _ = writeln!(out, "{name}{suffix}{labels} {}", number(float(p.value())));
            }
        }
        MetricData::Histogram(histogram) => {
            for p in histogram.data_points() {
                let own = |le: Option<&str>| labels(p.attributes().chain(of_scope), le);
                let mut below = 0;
                let bounds = p.bounds().map(number).chain(["+Inf".to_owned()]);
                for (bound, n) in bounds.zip(p.bucket_counts()) {
                    below += n;
                    let _ = writeln!(out, "{name}_bucket{} {below}", own(Some(&bound)));
                }
                let _ = writeln!(out, "{name}_count{} {}", own(None), p.count());
                let _ = writeln!(out, "{name}_sum{} {}", own(None), number(float(p.sum())));
            }
        }
        MetricData::ExponentialHistogram(_) => {}
    }
}

/// The unit's word in a name; units in braces are annotations and have none.
fn unit_word(unit: &str, kind: &str) -> &'static str {
    match unit {
        "s" => "seconds",
        "ms" => "milliseconds",
        "us" => "microseconds",
        "By" => "bytes",
        "1" if kind == "gauge" => "ratio",
        _ => "",
    }
}

/// The family's name: without `_total`, which belongs to a counter's samples.
fn family_name(name: &str, unit: &str, kind: &str) -> String {
    let mut clean = clean_name(name);
    if kind == "counter"
        && let Some(base) = clean.strip_suffix("_total")
    {
        clean.truncate(base.len());
    }
    if !unit.is_empty() && !clean.ends_with(&format!("_{unit}")) {
        clean.push('_');
        clean.push_str(unit);
    }
    clean
}

fn clean_name(name: &str) -> String {
    let mut clean = String::with_capacity(name.len() + 1);
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        clean.push('_');
    }
    clean.extend(name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }));
    clean
}

fn labels<'a>(attributes: impl Iterator<Item = &'a KeyValue>, le: Option<&str>) -> String {
    // Two keys can become one name; the specification joins their values.
    let mut by_name: BTreeMap<String, String> = BTreeMap::new();
    for kv in attributes {
        let value = match &kv.value {
            Value::String(s) => s.as_str().to_owned(),
            other => other.to_string(),
        };
        by_name
            .entry(clean_name(kv.key.as_str()))
            .and_modify(|v| {
                v.push(';');
                v.push_str(&value);
            })
            .or_insert(value);
    }
    if let Some(le) = le {
        by_name.insert("le".into(), le.into());
    }
    if by_name.is_empty() {
        return String::new();
    }
    let pairs: Vec<_> = by_name.iter().map(|(k, v)| format!("{k}=\"{}\"", escape(v))).collect();
    format!("{{{}}}", pairs.join(","))
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn number(v: f64) -> String {
    if v.is_nan() {
        "NaN".into()
    } else if v.is_infinite() {
        if v > 0.0 { "+Inf".into() } else { "-Inf".into() }
    } else {
        format!("{v}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::metrics::MeterProvider;
    use opentelemetry_sdk::metrics::SdkMeterProvider;

    fn text(record: impl FnOnce(&opentelemetry::metrics::Meter)) -> String {
        let metrics = MetricsText::new();
        let provider = SdkMeterProvider::builder().with_reader(metrics.reader()).build();
        record(&provider.meter("test"));
        metrics.render()
    }

    #[test]
    fn names_units_and_totals_follow_the_specification() {
        let text = text(|m| {
            m.u64_counter("redis_transaction_attempts_total")
                .with_unit("{attempt}")
                .build()
                .add(3, &[KeyValue::new("operation", "assign_slot")]);
            m.u64_counter("outcome.count")
                .build()
                .add(1, &[KeyValue::new("outcome.name", "a\"b\\c\nd")]);
            m.f64_gauge("batch_slot_utilization_ratio").with_unit("1").build().record(0.5, &[]);
            m.i64_up_down_counter("db.client.connection.count").build().add(-2, &[]);
            m.f64_histogram("huleedu_batch_processing_duration_seconds")
                .with_unit("s")
                .with_boundaries(vec![0.1, 1.0])
                .build()
                .record(0.5, &[]);
        });
        for line in [
            "# TYPE redis_transaction_attempts counter",
            "redis_transaction_attempts_total{operation=\"assign_slot\"} 3",
            "outcome_count_total{outcome_name=\"a\\\"b\\\\c\\nd\"} 1",
            "batch_slot_utilization_ratio 0.5",
            "db_client_connection_count -2",
            "# UNIT huleedu_batch_processing_duration_seconds seconds",
            "huleedu_batch_processing_duration_seconds_bucket{le=\"0.1\"} 0",
            "huleedu_batch_processing_duration_seconds_bucket{le=\"1\"} 1",
            "huleedu_batch_processing_duration_seconds_bucket{le=\"+Inf\"} 1",
            "huleedu_batch_processing_duration_seconds_count 1",
            "huleedu_batch_processing_duration_seconds_sum 0.5",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\nin\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        assert_eq!(text.matches("# TYPE redis_transaction_attempts ").count(), 1);
    }

    #[test]
    fn one_name_in_two_scopes_has_no_sample_twice() {
        let metrics = MetricsText::new();
        let provider = SdkMeterProvider::builder().with_reader(metrics.reader()).build();
        for scope in ["one", "two"] {
            let meter = provider.meter(scope);
            meter.u64_counter("requests").build().add(1, &[KeyValue::new("path", "/")]);
            let seconds = meter.f64_histogram("wait").with_unit("s").with_boundaries(vec![1.0]);
            seconds.build().record(0.5, &[]);
        }
        provider.meter("one").u64_counter("alone").build().add(1, &[]);
        let text = metrics.render();
        for line in [
            "requests_total{otel_scope_name=\"one\",path=\"/\"} 1",
            "requests_total{otel_scope_name=\"two\",path=\"/\"} 1",
            "wait_seconds_bucket{le=\"1\",otel_scope_name=\"two\"} 1",
            "wait_seconds_sum{otel_scope_name=\"one\"} 0.5",
            "alone_total 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\nin\n{text}");
        }
        let mut seen = std::collections::HashSet::new();
        let samples = text.lines().filter(|l| !l.starts_with('#'));
        let series = samples.map(|l| l.rsplit_once(' ').unwrap().0);
        assert_eq!(series.filter(|s| !seen.insert(*s)).count(), 0, "{text}");
    }

    #[test]
    fn after_shutdown_there_is_nothing_and_no_panic() {
        let metrics = MetricsText::new();
        let provider = SdkMeterProvider::builder().with_reader(metrics.reader()).build();
        provider.shutdown().unwrap();
        assert_eq!(metrics.render(), "# EOF\n");
    }
}
