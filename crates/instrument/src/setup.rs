//! The pieces that `init` puts together: resource, propagation, filters, the panic hook.

use crate::env::Lookup;
use crate::outcome;
use opentelemetry::KeyValue;
use opentelemetry::propagation::{TextMapCompositePropagator, TextMapPropagator};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::time::Duration;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::EnvFilter;

/// The environment's resource attributes; the given name unless the environment has one.
pub(crate) fn resource(service: &str) -> Resource {
    let detected = Resource::builder().build();
    let name = detected
        .get(&opentelemetry::Key::from_static_str("service.name"))
        .map(|v| v.to_string())
        .filter(|name| !name.starts_with("unknown_service"));
    let mut attributes = vec![KeyValue::new("process.pid", i64::from(std::process::id()))];
    if detected.get(&opentelemetry::Key::from_static_str("service.instance.id")).is_none() {
        attributes.push(KeyValue::new("service.instance.id", instance_id()));
    }
    Resource::builder()
        .with_service_name(name.unwrap_or_else(|| service.to_owned()))
        .with_attributes(attributes)
        .build()
}

/// A random id for this run of the process, as the convention asks for.
fn instance_id() -> String {
    use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
    RandomIdGenerator::default().new_trace_id().to_string()
}

pub(crate) fn propagator(env: &impl Lookup) -> TextMapCompositePropagator {
    let list = env.get("OTEL_PROPAGATORS").unwrap_or_else(|| "tracecontext,baggage".into());
    let mut chosen: Vec<Box<dyn TextMapPropagator + Send + Sync>> = vec![];
    for name in list.split(',').map(str::trim) {
        match name {
            "tracecontext" => chosen.push(Box::new(TraceContextPropagator::new())),
            "baggage" => chosen.push(Box::new(BaggagePropagator::new())),
            _ => {}
        }
    }
    if chosen.is_empty() && list != "none" {
        chosen.push(Box::new(TraceContextPropagator::new()));
        chosen.push(Box::new(BaggagePropagator::new()));
    }
    TextMapCompositePropagator::new(chosen)
}

/// `RUST_LOG`, or `info` without the SDK's own chatter, whose drops are reported once a minute.
pub(crate) fn log_filter(value: Option<String>) -> (EnvFilter, Option<String>) {
    let quiet = "info,opentelemetry=off,opentelemetry_sdk=off,opentelemetry-otlp=off,\
                 opentelemetry-http=off,hyper=warn,hyper_util=warn,h2=warn,reqwest=warn,tonic=warn";
    match value.as_deref().map(EnvFilter::try_new) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(quiet), Some(error.to_string())),
        None => (EnvFilter::new(quiet), None),
    }
}

/// The exporters' own stack, which must not produce telemetry about sending telemetry.
fn is_exporting(metadata: &Metadata<'_>) -> bool {
    let root = metadata.target().split("::").next().unwrap_or_default();
    root.starts_with("opentelemetry")
        || matches!(root, "hyper" | "hyper_util" | "h2" | "reqwest" | "tonic")
}

/// Spans become spans. Events become log records, not span events; an `error!` inside a span also
/// goes this way, because it is what marks a `tracing` span as failed.
pub(crate) fn for_spans(metadata: &Metadata<'_>) -> bool {
    !is_exporting(metadata) && (metadata.is_span() || *metadata.level() == Level::ERROR)
}

pub(crate) fn for_logs(metadata: &Metadata<'_>) -> bool {
    metadata.is_event() && !is_exporting(metadata) && metadata.target() != outcome::TARGET
}

/// After the usual panic message, sends what is buffered. Only a panic of the main thread or one
/// that will abort waits for it (two seconds at most): a panicking task must not stall the runtime.
pub(crate) fn flush_on_panic(traces: &SdkTracerProvider, logs: &SdkLoggerProvider) {
    let (traces, logs) = (traces.clone(), logs.clone());
    let previous = std::panic::take_hook();
    let hook = move |info: &std::panic::PanicHookInfo<'_>| {
        previous(info);
        tracing::error!(layer = "application", panic = %info, "panic");
        let (traces, logs) = (traces.clone(), logs.clone());
        let (done, flushed) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("lacuna.flush".into()).spawn(move || {
            let _ = traces.force_flush();
            let _ = logs.force_flush();
            let _ = done.send(());
        });
        let ends_process = cfg!(panic = "abort") || std::thread::current().name() == Some("main");
        if thread.is_ok() && ends_process {
            let _ = flushed.recv_timeout(Duration::from_secs(2));
        }
    };
    std::panic::set_hook(Box::new(hook));
}
