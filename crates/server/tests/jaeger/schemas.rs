//! What the clients take: the UI's zod schemas (`schemas.ts`, `types.ts`) and Grafana's Go types
//! (`types.go`, `grpc_types.go`) in serde's words. Go refuses a value of another JSON type, takes null
//! and absence for its zero value, and passes over fields that it does not know.

mod otlp;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use otlp::{go_span, span_v3, spans_of};

type Checked = Result<(), String>;

/// Whether the client that reads `schema` takes `json`.
pub fn check(schema: &str, json: &Value) -> Checked {
    match schema {
        "services" => read::<Services>(json).map(drop),
        "operations" => read::<Operations>(json).map(drop),
        "operations_v1" => read::<Data<Operation>>(json).map(drop),
        "summaries" => {
            let found = read::<Summaries>(json)?;
            found.summaries.iter().try_for_each(|summary| {
                hex(&summary.trace_id, 32)?;
                let times = [&summary.min_start_time_unix_nano, &summary.max_end_time_unix_nano];
                times.into_iter().flatten().try_for_each(|time| decimal(time))
            })
        }
        "trace_v3" => spans_of(json)?.iter().try_for_each(span_v3),
        "go_otlp" => spans_of(json)?.iter().try_for_each(go_span),
        "trace_v1" | "go_traces" => read::<Data<GoTrace>>(json).map(drop),
        "go_one_trace" => {
            let found = read::<Data<GoTrace>>(json)?;
            found.data.first().map(drop).ok_or("data[0] is read unseen".to_owned())
        }
        "go_names" => read::<Data<String>>(json).map(drop),
        "dependencies" | "go_dependencies" => read::<Data<Dependency>>(json).map(drop),
        "deep_dependencies" => read::<DeepDependencies>(json).map(drop),
        "metrics" => {
            let family = read::<Family>(json)?;
            (family.r#type == "GAUGE").then_some(()).ok_or("not a gauge".to_owned())
        }
        "quality" => {
            let quality = read::<Quality>(json)?;
            let known: Vec<&str> = quality.scores.iter().map(|score| score.key.as_str()).collect();
            quality.metrics.iter().try_for_each(|metric| {
                let judged = metric.pass_count + metric.failure_count > 0;
                let good = known.contains(&metric.category.as_str()) && judged;
                good.then_some(()).ok_or(format!("metric {}", metric.name))
            })
        }
        other => Err(format!("no schema {other}")),
    }
}

fn read<T: DeserializeOwned>(json: &Value) -> Result<T, String> {
    T::deserialize(json).map_err(|error| error.to_string())
}

fn hex(text: &str, digits: usize) -> Checked {
    let right = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let zero = text.bytes().all(|byte| byte == b'0');
    (right && !zero).then_some(()).ok_or(format!("`{text}` is no id of {digits} digits"))
}

fn decimal(text: &str) -> Checked {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits && text.parse::<u64>().is_ok()).then_some(()).ok_or(format!("`{text}` is no uint64"))
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "that they can be read is what is asked")]
struct Services {
    services: Vec<String>,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "as above")]
struct Operations {
    operations: Vec<Operation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "as above")]
struct Operation {
    name: String,
    span_kind: String,
}

#[derive(Deserialize)]
struct Summaries {
    summaries: Vec<Summary>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "as above")]
struct Summary {
    trace_id: String,
    root_service_name: Option<String>,
    root_operation_name: Option<String>,
    min_start_time_unix_nano: Option<String>,
    max_end_time_unix_nano: Option<String>,
    span_count: Option<u64>,
    error_span_count: Option<u64>,
    orphan_span_count: Option<u64>,
    services: Option<Vec<SummaryService>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "as above")]
struct SummaryService {
    name: String,
    span_count: Option<u64>,
    error_span_count: Option<u64>,
}

/// v1's envelope. `errors` may be null or a list; Grafana reads codes and messages of dependencies.
#[derive(Deserialize)]
#[allow(dead_code, reason = "as above")]
struct Data<T> {
    data: Vec<T>,
    errors: Option<Vec<GoError>>,
    #[serde(default)]
    total: i64,
    #[serde(default)]
    limit: i64,
    #[serde(default)]
    offset: i64,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "as above")]
struct GoError {
    code: Option<i64>,
    msg: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "as above")]
struct Dependency {
    parent: String,
    child: String,
    call_count: i64,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "as above")]
struct GoTrace {
    #[serde(rename = "traceID")]
    trace_id: String,
    processes: BTreeMap<String, GoProcess>,
    warnings: Option<Vec<String>>,
    spans: Vec<GoV1Span>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "as above")]
struct GoProcess {
    service_name: String,
    tags: Option<Vec<GoTag>>,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "as above")]
struct GoTag {
    key: String,
    r#type: String,
    value: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "as above")]
struct GoV1Span {
    #[serde(rename = "traceID")]
    trace_id: String,
    #[serde(rename = "spanID")]
    span_id: String,
    #[serde(rename = "processID")]
    process_id: String,
    operation_name: String,
    start_time: i64,
    duration: i64,
    logs: Option<Vec<GoLog>>,
    references: Option<Vec<GoReference>>,
    tags: Option<Vec<GoTag>>,
    warnings: Option<Vec<String>>,
    flags: Option<i64>,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "as above")]
struct GoLog {
    timestamp: i64,
    fields: Option<Vec<GoTag>>,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "as above")]
struct GoReference {
    #[serde(rename = "refType")]
    ref_type: String,
    #[serde(rename = "spanID")]
    span_id: String,
    #[serde(rename = "traceID")]
    trace_id: String,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "as above")]
struct DeepDependencies {
    dependencies: Vec<CallPath>,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "as above")]
struct CallPath {
    path: Vec<Step>,
    attributes: Vec<PathAttribute>,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "as above")]
struct Step {
    service: String,
    operation: String,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "as above")]
struct PathAttribute {
    key: String,
    value: String,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "as above")]
struct Family {
    name: String,
    r#type: String,
    help: String,
    metrics: Vec<Metric>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "as above")]
struct Metric {
    labels: Vec<Label>,
    metric_points: Vec<Point>,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "as above")]
struct Label {
    name: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "as above")]
struct Point {
    gauge_value: Gauge,
    timestamp: jiff::Timestamp,
}

/// A number, or `"NaN"`, which the UI turns into a gap.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "as above")]
struct Gauge {
    double_value: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "as above")]
struct Quality {
    trace_quality_documentation_link: String,
    banner_text: Option<String>,
    scores: Vec<Score>,
    metrics: Vec<QualityMetric>,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "as above")]
struct Score {
    key: String,
    label: String,
    max: f64,
    value: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "as above")]
struct QualityMetric {
    name: String,
    category: String,
    description: String,
    metric_documentation_link: String,
    metric_weight: f64,
    pass_count: u64,
    pass_examples: Option<Vec<Example>>,
    failure_count: u64,
    failure_examples: Option<Vec<Example>>,
    exemption_count: Option<u64>,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "as above")]
struct Example {
    #[serde(rename = "traceID")]
    trace_id: String,
    #[serde(rename = "spanIDs")]
    span_ids: Option<Vec<String>>,
}
