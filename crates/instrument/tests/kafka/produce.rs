//! Events that are sent.

use super::common::{attribute, memory, named, one, own_trace, spans_of, unique};
use super::{PATIENCE, TYPE, consumer, producer, receive, send};
use lacuna_instrument::kafka::{Event, TracedContext, produce, serialize};
use opentelemetry::context::FutureExt;
use opentelemetry::trace::Status;
use rdkafka::ClientConfig;
use rdkafka::Message as _;
use rdkafka::message::{Header, Headers};
use rdkafka::producer::FutureProducer;
use std::time::Duration;

#[tokio::test]
async fn headers_carry_trace_baggage_and_the_events_names_once() {
    let topic = unique("essays");
    let trace = send(&topic, b"{}").await;
    // A record that is forwarded with its old headers gets the new trace, not a second one.
    let stream = consumer(&topic, &topic);
    let first = receive(&stream).await;
    let (cx, second_trace) = own_trace();
    let old = first.headers().unwrap().detach();
    let old = old.insert(Header { key: "Tenant", value: Some("a") });
    let event = Event::new(&topic, TYPE, b"{}").headers(old);
    let event = event.event_id("e-2").correlation_id("c-2");
    produce(&producer(), event, PATIENCE).with_context(cx).await.unwrap();
    let second = receive(&stream).await;
    for (message, trace, id) in [(&first, trace, "1"), (&second, second_trace, "2")] {
        let headers = message.headers().unwrap();
        let parents: Vec<_> = headers.iter().filter(|h| h.key == "traceparent").collect();
        assert_eq!(parents.len(), 1);
        assert!(String::from_utf8_lossy(parents[0].value.unwrap()).contains(&trace.to_string()));
        let (event, correlation) = (format!("e-{id}"), format!("c-{id}"));
        for (key, value) in
            [("event_type", TYPE), ("event_id", &event), ("correlation_id", &correlation)]
        {
            let all: Vec<_> = headers.iter().filter(|h| h.key == key).map(|h| h.value).collect();
            assert_eq!(all, [Some(value.as_bytes())], "{key}");
        }
    }
    assert!(second.headers().unwrap().iter().any(|h| h.key == "Tenant" && h.value == Some(b"a")));
    assert!(first.headers().unwrap().iter().any(|h| h.key == "baggage"
        && String::from_utf8_lossy(h.value.unwrap()).contains("correlation_id=c-1")));
}

#[tokio::test]
async fn a_send_that_cannot_be_delivered_is_an_error_with_its_name() {
    let (cx, trace) = own_trace();
    let nowhere: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", "127.0.0.1:1")
        .set("message.timeout.ms", "200")
        .set("log_level", "0")
        .create()
        .unwrap();
    let event = Event::new("nowhere", "x.v1", b"{}");
    let sent = produce(&nowhere, event, Duration::from_secs(1)).with_context(cx).await;
    assert!(sent.is_err());
    let spans = spans_of(trace);
    let produced = one(&spans, "kafka.produce.x.v1");
    assert!(matches!(produced.status, Status::Error { .. }));
    assert_eq!(attribute(produced, "error.type").as_deref(), Some("MessageTimedOut"));
}

#[test]
fn serialising_has_a_span_and_its_failure_too() {
    let (cx, trace) = own_trace();
    let _guard = cx.attach();
    serialize::<serde_json::Error>("essays", TYPE, || serde_json::to_vec(&1)).unwrap();
    serialize("essays", TYPE, || Err("no")).unwrap_err();
    let spans = spans_of(trace);
    let spans = named(&spans, "kafka.serialize");
    assert_eq!(spans[0].status, Status::Unset);
    assert_eq!(spans[1].status, Status::error("no"));
}

#[tokio::test]
async fn a_send_that_is_dropped_is_an_error_and_is_measured() {
    let (cx, trace) = own_trace();
    let topic = unique("cancelled");
    let nowhere: FutureProducer<TracedContext> = ClientConfig::new()
        .set("bootstrap.servers", "127.0.0.1:1")
        .set("log_level", "0")
        .create_with_context(TracedContext::new("dropping"))
        .unwrap();
    {
        let send = produce(&nowhere, Event::new(&topic, "x.v1", b"{}"), PATIENCE).with_context(cx);
        assert!(tokio::time::timeout(Duration::from_millis(50), send).await.is_err());
    }
    let spans = spans_of(trace);
    let sent = one(&spans, "kafka.produce.x.v1");
    assert_eq!(attribute(sent, "error.type").as_deref(), Some("cancelled"));
    let page = memory().telemetry.metrics_text().render();
    let lost = page.lines().any(|l| {
        l.starts_with("messaging_client_sent_messages_total{")
            && l.contains(r#"error_type="cancelled""#)
            && l.contains(&topic)
    });
    assert!(lost, "{page}");
}
