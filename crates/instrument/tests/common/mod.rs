//! One telemetry for a test binary, with everything kept in memory.
#![allow(dead_code)] // each test binary uses its own part of this

#[cfg(feature = "redis")]
pub mod batch;
#[cfg(feature = "postgres")]
pub mod database;
pub mod proxy;

use lacuna_instrument::Telemetry;
use opentelemetry::trace::{SpanId, TraceContextExt, TraceId};
use opentelemetry::{Context, Value};
use opentelemetry_sdk::logs::InMemoryLogExporter;
use opentelemetry_sdk::metrics::InMemoryMetricExporter;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SpanData};
use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};

pub struct Memory {
    pub spans: InMemorySpanExporter,
    pub logs: InMemoryLogExporter,
    pub metrics: InMemoryMetricExporter,
    pub lines: Lines,
    pub telemetry: Telemetry,
}

#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(buf);
        Ok(buf.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    pub fn json(&self) -> Vec<serde_json::Value> {
        let bytes = self.0.lock().unwrap().clone();
        String::from_utf8(bytes)
            .unwrap()
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect()
    }
}

pub fn memory() -> &'static Memory {
    static MEMORY: OnceLock<Memory> = OnceLock::new();
    MEMORY.get_or_init(|| {
        let (spans, logs) = (InMemorySpanExporter::default(), InMemoryLogExporter::default());
        let (metrics, lines) = (InMemoryMetricExporter::default(), Lines::default());
        let telemetry = Telemetry::builder("test")
            .without_otlp()
            .log_lines_to(lines.clone())
            .span_exporter(spans.clone())
            .log_exporter(logs.clone())
            .metric_exporter(metrics.clone())
            .init()
            .unwrap();
        Memory { spans, logs, metrics, lines, telemetry }
    })
}

/// A context with a trace of its own, so that tests in one binary do not see each other's spans.
pub fn own_trace() -> (Context, TraceId) {
    memory();
    let tracer = opentelemetry::global::tracer("test");
    let cx = Context::new().with_span(opentelemetry::trace::Tracer::start(&tracer, "test"));
    let id = cx.span().span_context().trace_id();
    (cx, id)
}

/// The ended spans of a trace, in the order in which they ended.
pub fn spans_of(trace: TraceId) -> Vec<SpanData> {
    let all = memory().spans.get_finished_spans().unwrap();
    all.into_iter().filter(|s| s.span_context.trace_id() == trace).collect()
}

/// The one span of a name.
pub fn one<'a>(spans: &'a [SpanData], name: &str) -> &'a SpanData {
    let found: Vec<_> = spans.iter().filter(|s| s.name == name).collect();
    let names: Vec<_> = spans.iter().map(|s| s.name.as_ref()).collect();
    assert_eq!(found.len(), 1, "spans named {name} among {names:?}");
    found[0]
}

pub fn named<'a>(spans: &'a [SpanData], name: &str) -> Vec<&'a SpanData> {
    spans.iter().filter(|s| s.name == name).collect()
}

/// An attribute as text. Panics when it is there twice.
pub fn attribute(span: &SpanData, key: &str) -> Option<String> {
    let found: Vec<&Value> =
        span.attributes.iter().filter(|kv| kv.key.as_str() == key).map(|kv| &kv.value).collect();
    assert!(found.len() <= 1, "{key} is there {} times on {}", found.len(), span.name);
    found.first().map(|v| v.to_string())
}

pub fn is_child_of(child: &SpanData, parent: &SpanData) -> bool {
    child.parent_span_id != SpanId::INVALID && child.parent_span_id == parent.span_context.span_id()
}

/// The value of a service's URL variable; a test that needs the service fails without it.
pub fn url(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: start the services with `scripts/services up` and export what it prints")
    })
}

/// A name that no other test and no earlier run used.
pub fn unique(prefix: &str) -> String {
    let (_, id) = own_trace();
    format!("{prefix}-{id}")
}
