//! A receiver of OTLP/HTTP JSON that keeps everything.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

#[derive(Clone, Debug)]
pub struct Span {
    pub service: String,
    pub name: String,
    pub trace_id: String,
    pub span_id: String,
    pub parent_id: String,
    /// Nanoseconds since the epoch.
    pub start: u64,
    pub end: u64,
    /// OTLP's number: 2 server, 3 client, 4 producer, 5 consumer.
    pub kind: u64,
    /// Ids of the spans that it links to.
    pub links: Vec<String>,
    pub attributes: HashMap<String, String>,
    pub is_error: bool,
    pub message: String,
}

#[derive(Clone, Debug)]
pub struct Log {
    pub service: String,
    pub body: String,
    pub event_name: String,
    pub trace_id: String,
    pub span_id: String,
    pub attributes: HashMap<String, String>,
}

/// A point of a sum, a gauge or a histogram, whose value is then its count.
#[derive(Clone, Debug)]
pub struct Point {
    pub service: String,
    pub name: String,
    pub attributes: HashMap<String, String>,
    pub value: f64,
}

#[derive(Clone, Debug, Default)]
pub struct Collected {
    pub spans: Vec<Span>,
    pub logs: Vec<Log>,
    /// In the order in which they came: of a series, the last one counts.
    pub points: Vec<Point>,
}

impl Collected {
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Span> {
        self.spans.iter().filter(move |s| s.name == name)
    }

    pub fn of<'a>(&'a self, name: &'a str, correlation_id: &'a str) -> Vec<&'a Span> {
        self.named(name).filter(|s| s.attribute("correlation_id") == correlation_id).collect()
    }

    pub fn logs_of<'a>(&'a self, layer: &'a str, correlation_id: &'a str) -> Vec<&'a Log> {
        let has =
            |log: &Log, key: &str, value: &str| log.attributes.get(key).is_some_and(|v| v == value);
        self.logs
            .iter()
            .filter(|l| has(l, "layer", layer) && has(l, "correlation_id", correlation_id))
            .collect()
    }
}

impl Collected {
    pub fn in_trace<'a>(&'a self, trace_id: &'a str) -> Vec<&'a Span> {
        self.spans.iter().filter(|s| s.trace_id == trace_id).collect()
    }
}

impl Log {
    pub fn attribute(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }
}

impl Span {
    pub fn attribute(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }
}

pub struct Collector {
    address: std::net::SocketAddr,
    collected: Arc<Mutex<Collected>>,
}

impl Collector {
    pub async fn start() -> Self {
        let collected = Arc::new(Mutex::new(Collected::default()));
        let routes = Router::new()
            .route("/v1/traces", post(traces))
            .route("/v1/logs", post(logs))
            .route("/v1/metrics", post(metrics))
            .with_state(collected.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { address, collected }
    }

    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", self.address)),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json".to_owned()),
            ("OTEL_BSP_SCHEDULE_DELAY", "300".to_owned()),
            ("OTEL_BLRP_SCHEDULE_DELAY", "300".to_owned()),
            ("OTEL_METRIC_EXPORT_INTERVAL", "500".to_owned()),
        ]
    }

    pub fn collected(&self) -> Collected {
        self.collected.lock().unwrap().clone()
    }
}

type Shared = State<Arc<Mutex<Collected>>>;

async fn traces(State(collected): Shared, Json(request): Json<Value>) -> Json<Value> {
    for (service, span) in records(&request, "resourceSpans", "scopeSpans", "spans") {
        let span = Span {
            service,
            name: text(&span["name"]),
            trace_id: text(&span["traceId"]),
            span_id: text(&span["spanId"]),
            parent_id: text(&span["parentSpanId"]),
            start: text(&span["startTimeUnixNano"]).parse().unwrap(),
            end: text(&span["endTimeUnixNano"]).parse().unwrap(),
            kind: span["kind"].as_u64().unwrap_or(0),
            links: list(&span["links"]).iter().map(|link| text(&link["spanId"])).collect(),
            attributes: attributes(&span["attributes"]),
            is_error: span["status"]["code"] == json!(2),
            message: text(&span["status"]["message"]),
        };
        collected.lock().unwrap().spans.push(span);
    }
    Json(json!({}))
}

async fn logs(State(collected): Shared, Json(request): Json<Value>) -> Json<Value> {
    for (service, log) in records(&request, "resourceLogs", "scopeLogs", "logRecords") {
        let log = Log {
            service,
            body: value(&log["body"]),
            event_name: text(&log["eventName"]),
            trace_id: text(&log["traceId"]),
            span_id: text(&log["spanId"]),
            attributes: attributes(&log["attributes"]),
        };
        collected.lock().unwrap().logs.push(log);
    }
    Json(json!({}))
}

async fn metrics(State(collected): Shared, Json(request): Json<Value>) -> Json<Value> {
    let number = |value: &Value| match value {
        Value::String(text) => text.parse().unwrap_or(f64::NAN),
        other => other.as_f64().unwrap_or(f64::NAN),
    };
    for (service, metric) in records(&request, "resourceMetrics", "scopeMetrics", "metrics") {
        for (kind, field) in [("sum", None), ("gauge", None), ("histogram", Some("count"))] {
            for point in list(&metric[kind]["dataPoints"]) {
                let value = match field {
                    Some(field) => &point[field],
                    None if point["asInt"].is_null() => &point["asDouble"],
                    None => &point["asInt"],
                };
                let point = Point {
                    service: service.clone(),
                    name: text(&metric["name"]),
                    attributes: attributes(&point["attributes"]),
                    value: number(value),
                };
                collected.lock().unwrap().points.push(point);
            }
        }
    }
    Json(json!({}))
}

fn records(request: &Value, resources: &str, scopes: &str, items: &str) -> Vec<(String, Value)> {
    let mut all = vec![];
    for resource in list(&request[resources]) {
        let service = attributes(&resource["resource"]["attributes"])
            .remove("service.name")
            .unwrap_or_default();
        for scope in list(&resource[scopes]) {
            all.extend(list(&scope[items]).iter().map(|item| (service.clone(), item.clone())));
        }
    }
    all
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn attributes(list_of: &Value) -> HashMap<String, String> {
    list(list_of).iter().map(|a| (text(&a["key"]), value(&a["value"]))).collect()
}

/// Any scalar of OTLP's JSON as text.
fn value(any: &Value) -> String {
    match any.as_object().and_then(|o| o.values().next()) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}
