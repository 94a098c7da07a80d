//! The load decodes as OTLP, is what it says it is, and is the same each time.

use std::collections::HashMap;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use super::{Shape, Workload};

fn workload() -> Workload {
    Workload::new(Shape {
        seed: 7,
        spans_per_request: 512,
        begin: 1_790_000_000_000_000_000,
        step: 1,
    })
}

fn spans(load: &Workload, number: u64) -> Vec<Span> {
    let (bytes, count) = load.traces(number);
    let request = ExportTraceServiceRequest::decode(bytes).unwrap();
    let spans: Vec<Span> = request
        .resource_spans
        .into_iter()
        .flat_map(|r| r.scope_spans)
        .flat_map(|s| s.spans)
        .collect();
    assert_eq!(spans.len() as u64, count);
    spans
}

#[test]
fn requests_are_otlp_of_about_a_kilobyte_a_span() {
    let load = workload();
    let (bytes, count) = load.traces(3);
    let each = bytes.len() as u64 / count;
    assert!((900..1150).contains(&each), "{each} bytes a span");
    let failed = load.failed_share();
    assert!((0.01..0.02).contains(&failed), "{failed} of the spans failed");
    let spans = spans(&load, 3);
    let attributes: usize = spans.iter().map(|s| s.attributes.len()).sum();
    let average = attributes as f64 / spans.len() as f64;
    assert!((10.0..=12.5).contains(&average), "{average} attributes a span");
}

#[test]
fn traces_are_whole_and_known_in_advance() {
    let load = workload();
    let mut traces: HashMap<Vec<u8>, Vec<Span>> = HashMap::new();
    let mut all = Vec::new();
    for number in 0..3 {
        all.append(&mut spans(&load, number));
    }
    for span in &all {
        assert!(span.end_time_unix_nano > span.start_time_unix_nano);
        traces.entry(span.trace_id.clone()).or_default().push(span.clone());
    }
    for choice in 0..40 {
        let flow = load.sent_flow(1, choice);
        let mut linked = 0;
        for sent in &flow.traces {
            let found = &traces[sent.id.as_slice()];
            assert_eq!(found.len(), sent.spans as usize);
            let roots = found.iter().filter(|s| s.parent_span_id.is_empty()).count();
            assert_eq!(roots, 1, "one root a trace");
            for span in found {
                let parent = &span.parent_span_id;
                assert!(parent.is_empty() || found.iter().any(|s| &s.span_id == parent));
                for link in &span.links {
                    linked += 1;
                    let sender = &traces[&link.trace_id];
                    assert!(sender.iter().any(|s| s.span_id == link.span_id));
                }
            }
        }
        assert_eq!(linked + 1, flow.traces.len(), "each later trace links to its message's sender");
    }
}

#[test]
fn the_correlation_id_runs_through_the_traces_of_a_flow() {
    let load = workload();
    let all: Vec<Span> = (0..3).flat_map(|n| spans(&load, n)).collect();
    let flow = (0..99).map(|c| load.sent_flow(1, c)).find(|f| f.traces.len() > 4).unwrap();
    for sent in &flow.traces {
        let carries = all.iter().filter(|s| s.trace_id == sent.id).any(|s| {
            s.attributes.iter().any(|a| {
                a.key == "correlation_id"
                    && format!("{:?}", a.value).contains(flow.correlation.as_str())
            })
        });
        assert!(carries);
    }
}

#[test]
fn a_request_is_the_same_each_time_and_unlike_the_next_of_its_template() {
    let (one, two) = (workload(), workload());
    assert_eq!(one.traces(5), two.traces(5));
    assert_ne!(one.traces(5), one.traces(5 + 48));
}

#[test]
fn logs_and_metrics_are_otlp() {
    let load = workload();
    let (bytes, count) = load.logs(2);
    let request = ExportLogsServiceRequest::decode(bytes).unwrap();
    let logs = request.resource_logs.iter().flat_map(|r| &r.scope_logs);
    assert_eq!(logs.map(|s| s.log_records.len() as u64).sum::<u64>(), count);
    let (bytes, count) = load.metrics(2);
    assert!(count > 100);
    ExportMetricsServiceRequest::decode(bytes).unwrap();
}
