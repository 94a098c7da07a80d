//! Reading what the APIs answer.

use std::collections::BTreeSet;

use serde_json::Value;

/// A figure of an OpenMetrics text, 0 if it is not there.
pub fn metric(text: &str, series: &str) -> f64 {
    let lines = text.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let found: Vec<f64> = lines.map(|value| value.parse().unwrap()).collect();
    assert!(found.len() <= 1, "{series} is exposed {} times", found.len());
    found.first().copied().unwrap_or(0.0)
}

/// Span ids of a Jaeger v1 answer.
pub fn v1_spans(answer: &Value) -> BTreeSet<String> {
    let traces = answer["data"].as_array().unwrap().iter();
    let spans = traces.flat_map(|trace| trace["spans"].as_array().unwrap());
    spans.map(|span| span["spanID"].as_str().unwrap().to_owned()).collect()
}

/// Span ids of a Jaeger v3 answer, or of an OTLP/JSON request.
pub fn otlp_spans(answer: &Value) -> BTreeSet<String> {
    let data = if answer["result"].is_object() { &answer["result"] } else { answer };
    let resources = data["resourceSpans"].as_array().unwrap().iter();
    let scopes = resources.flat_map(|resource| resource["scopeSpans"].as_array().unwrap());
    let spans = scopes.flat_map(|scope| scope["spans"].as_array().unwrap());
    spans.map(|span| span["spanId"].as_str().unwrap().to_owned()).collect()
}
