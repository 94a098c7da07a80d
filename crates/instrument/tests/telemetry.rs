//! `tracing` and the OpenTelemetry API in one trace, and log records that belong to it.

#![allow(clippy::unwrap_used, clippy::expect_used)] // tests say what broke by panicking

mod common;

use common::{attribute, is_child_of, memory, one, own_trace, spans_of};
use lacuna_instrument::correlation;
use opentelemetry::logs::AnyValue;
use opentelemetry::trace::{Status, TraceContextExt, Tracer};
use opentelemetry::{Context, Key, global};
use tracing::Instrument;

#[test]
fn tracing_spans_and_api_spans_nest_both_ways() {
    let (cx, trace) = own_trace();
    let guard = cx.attach();
    tracing::info_span!("outer").in_scope(|| {
        let tracer = global::tracer("test");
        let api = Context::current_with_span(tracer.start("api"));
        let _api = api.clone().attach();
        tracing::info_span!("inner").in_scope(|| tracing::info!("deep"));
        api.span().end();
    });
    drop(guard);
    let spans = spans_of(trace);
    let (outer, api, inner) = (one(&spans, "outer"), one(&spans, "api"), one(&spans, "inner"));
    assert!(is_child_of(api, outer), "the API's span is under the tracing span");
    assert!(is_child_of(inner, api), "the tracing span is under the API's span");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nesting_holds_over_awaits_on_other_threads() {
    use opentelemetry::context::FutureExt;
    let (cx, trace) = own_trace();
    let work = async {
        tokio::task::yield_now().await;
        let span = global::tracer("test").start("api");
        let cx = Context::current_with_span(span);
        async {
            tokio::task::yield_now().await;
            async { tokio::task::yield_now().await }.instrument(tracing::info_span!("inner")).await;
        }
        .with_context(cx.clone())
        .await;
        cx.span().end();
    };
    tokio::spawn(work.instrument(tracing::info_span!("handler")).with_context(cx.clone()))
        .await
        .unwrap();
    // The tracing span above was made outside `cx`, so only what is under the API span is ours.
    let spans = memory().spans.get_finished_spans().unwrap();
    let handler = spans.iter().find(|s| s.name == "handler").unwrap();
    let own = spans_of(handler.span_context.trace_id());
    assert!(is_child_of(one(&own, "api"), handler));
    assert!(is_child_of(one(&own, "inner"), one(&own, "api")));
    assert!(spans_of(trace).is_empty());
}

#[test]
fn a_log_carries_trace_span_layer_and_correlation_id() {
    let (cx, trace) = own_trace();
    let cx = correlation::with(&cx, "c-log");
    let span_id = cx.span().span_context().span_id();
    {
        let _guard = cx.attach();
        tracing::info!(layer = "framework", essay = 7, "telemetry test line");
    }
    let logs = memory().logs.get_emitted_logs().unwrap();
    let log = logs
        .iter()
        .find(|l| matches!(l.record.body(), Some(AnyValue::String(s)) if s.as_str() == "telemetry test line"))
        .expect("the event is an OTLP log record");
    let ids = log.record.trace_context().unwrap();
    assert_eq!((ids.trace_id, ids.span_id), (trace, span_id));
    let get = |name: &str| {
        let found: Vec<_> =
            log.record.attributes_iter().filter(|(k, _)| *k == Key::new(name.to_owned())).collect();
        assert_eq!(found.len(), 1, "{name}");
        found[0].1.clone()
    };
    assert_eq!(get("layer"), AnyValue::from("framework"));
    assert_eq!(get("correlation_id"), AnyValue::from("c-log".to_owned()));
    assert_eq!(get("essay"), AnyValue::from(7_i64));

    let lines = memory().lines.json();
    let line = lines.iter().find(|l| l["message"] == "telemetry test line").unwrap();
    assert_eq!(line["trace_id"], trace.to_string());
    assert_eq!(line["span_id"], span_id.to_string());
    assert_eq!(line["correlation_id"], "c-log");
    assert_eq!(line["service"], "test");
}

#[test]
fn every_span_under_a_correlation_id_has_it_once() {
    let (cx, trace) = own_trace();
    let _guard = correlation::with(&cx, "c-span").attach();
    tracing::info_span!("with-id").in_scope(|| ());
    assert_eq!(
        attribute(one(&spans_of(trace), "with-id"), "correlation_id").as_deref(),
        Some("c-span")
    );
}

#[test]
fn an_id_that_is_also_the_spans_own_field_is_there_once() {
    let (cx, trace) = own_trace();
    let _guard = correlation::with(&cx, "c-own").attach();
    tracing::info_span!("own-field", correlation_id = "c-own").in_scope(|| ());
    // `attribute` panics on a second one.
    assert_eq!(
        attribute(one(&spans_of(trace), "own-field"), "correlation_id").as_deref(),
        Some("c-own")
    );
}

#[test]
fn events_are_logs_and_only_an_error_marks_the_span() {
    let (cx, trace) = own_trace();
    let _guard = cx.attach();
    tracing::info_span!("fine").in_scope(|| tracing::warn!("careful"));
    tracing::info_span!("broken").in_scope(|| tracing::error!("it broke"));
    let spans = spans_of(trace);
    assert_eq!(one(&spans, "fine").events.len(), 0);
    assert_eq!(one(&spans, "fine").status, Status::Unset);
    assert!(matches!(one(&spans, "broken").status, Status::Error { .. }));
}

#[test]
fn records_of_the_log_crate_get_the_layer_of_their_origin() {
    memory();
    log::warn!(target: "rdkafka::client", "log crate line");
    let lines = memory().lines.json();
    let line = lines.iter().find(|l| l["message"] == "log crate line").unwrap();
    assert_eq!(
        (line["layer"].as_str(), line["target"].as_str()),
        (Some("infrastructure"), Some("rdkafka::client"))
    );
    let logs = memory().logs.get_emitted_logs().unwrap();
    let log = logs
        .iter()
        .find(|l| matches!(l.record.body(), Some(AnyValue::String(s)) if s.as_str() == "log crate line"))
        .unwrap();
    let layers: Vec<_> =
        log.record.attributes_iter().filter(|(k, _)| k.as_str() == "layer").collect();
    assert_eq!(layers.len(), 1);
    assert_eq!(layers[0].1, AnyValue::from("infrastructure"));
}

#[test]
fn a_second_start_is_refused_and_the_first_goes_on() {
    memory();
    let second = lacuna_instrument::Telemetry::builder("other").without_otlp().init();
    assert!(matches!(second, Err(lacuna_instrument::InitError::AlreadyInstalled(_))));
    let (cx, trace) = own_trace();
    let _guard = cx.attach();
    tracing::info_span!("still here").in_scope(|| ());
    one(&spans_of(trace), "still here");
}
