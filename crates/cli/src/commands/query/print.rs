//! Answers for a person.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use lacuna_server::search::{LogAnswer, TracesAnswer};
use lacuna_signal::rows::SpanRows;
use lacuna_signal::schema::Scope;
use lacuna_signal::{Batch, SpanId};
use serde::Serialize;

use crate::output::{self, Style};

/// Found traces: a line each, with the selected spans below.
pub fn traces(found: &TracesAnswer) {
    let style = Style::of_stdout();
    if found.traces.is_empty() {
        output::line("no traces");
    }
    for trace in &found.traces {
        let start = at(trace.start_time_unix_nano.parse().unwrap_or(0));
        let spans: u64 = trace.service_stats.values().map(|service| service.span_count).sum();
        let errors: u64 = trace.service_stats.values().map(|service| service.error_count).sum();
        let root = format!("{} {}", trace.root_service_name, trace.root_trace_name);
        let mut line = format!(
            "{}  {start}  {:>9}  {}  {}",
            style.dim(&trace.trace_id),
            span_of_time(trace.duration_ms * 1_000_000),
            style.bold(&root),
            output::count(spans, "span"),
        );
        if errors > 0 {
            line += &style.bad(&format!(", {}", output::count(errors, "error")));
        }
        output::line(&line);
        for span in &trace.span_set.spans {
            let attributes: Vec<String> = span
                .attributes
                .iter()
                .map(|attribute| {
                    let value = attribute["value"].as_object().and_then(|o| o.values().next());
                    let value = value.map_or(String::new(), |value| match value {
                        serde_json::Value::String(text) => text.clone(),
                        other => other.to_string(),
                    });
                    format!("{}={value}", attribute["key"].as_str().unwrap_or_default())
                })
                .collect();
            let took = span_of_time(span.duration_nanos.parse().unwrap_or(0));
            let attributes = style.dim(&attributes.join(" "));
            output::line(&format!("    {}  {took:>9}  {}  {attributes}", span.span_id, span.name));
        }
        let more = trace.span_set.matched.saturating_sub(trace.span_set.spans.len() as u64);
        if more > 0 {
            output::line(&format!("    and {more} more"));
        }
    }
}

/// Log records: a line each, oldest last.
pub fn logs(logs: &[LogAnswer]) {
    let style = Style::of_stdout();
    if logs.is_empty() {
        output::line("no log records");
    }
    for log in logs {
        let severity = log.severity_text.as_deref().unwrap_or("-");
        let painted = format!("{severity:<5}");
        let severity = if log.severity >= 17 { style.bad(&painted) } else { painted };
        let service = style.bold(log.service.as_deref().unwrap_or("-"));
        // A record is one line, whatever its text holds.
        let body = log.body.as_deref().or(log.event_name.as_deref()).unwrap_or_default();
        let body = body.trim_end().replace('\n', "\\n").replace('\r', "");
        let trace =
            log.trace_id.as_deref().map_or(String::new(), |id| format!("  {}", style.dim(id)));
        output::line(&format!("{:.3}  {severity}  {service}  {body}{trace}", log.time));
    }
}

fn at(nanos: i64) -> String {
    Timestamp::from_nanosecond(nanos.into()).map_or("-".to_owned(), |at| format!("{at:.3}"))
}

/// A length of time in three digits or so.
fn span_of_time(nanos: u64) -> String {
    let value = nanos as f64;
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{:.1} µs", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", value / 1e6),
        _ => format!("{:.2} s", value / 1e9),
    }
}

/// A trace as a list of its spans, parents before their children.
#[derive(Debug, Serialize)]
pub struct Tree {
    trace_id: String,
    /// Spans whose parent is not in the trace.
    orphans: usize,
    spans: Vec<Node>,
    /// What is missing from them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

impl Tree {
    /// The same, which lacks what `warnings` say.
    pub fn lacking(self, warnings: &[String]) -> Self {
        Self { warnings: warnings.to_vec(), ..self }
    }
}

/// A span of a [`Tree`].
#[derive(Debug, Serialize)]
struct Node {
    /// How many are above it.
    depth: usize,
    span_id: Option<String>,
    parent_span_id: Option<String>,
    service: Option<String>,
    name: String,
    start: String,
    duration_nanos: i64,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_message: Option<String>,
    /// As text.
    attributes: BTreeMap<String, String>,
    /// Names of its events.
    events: Vec<String>,
}

/// The tree of the spans of one trace.
pub fn tree(trace: &Batch) -> Tree {
    let spans = SpanRows::new(trace);
    let mut by_id: HashMap<SpanId, usize> = HashMap::new();
    for row in 0..trace.num_rows() {
        if let Some(id) = spans.span_id(row) {
            by_id.entry(id).or_insert(row);
        }
    }
    let mut children: HashMap<Option<usize>, Vec<usize>> = HashMap::new();
    let mut orphans = 0;
    for row in 0..trace.num_rows() {
        let named = spans.parent_span_id(row);
        let parent = named.and_then(|id| by_id.get(&id).copied()).filter(|parent| *parent != row);
        orphans += usize::from(named.is_some() && parent.is_none());
        children.entry(parent).or_default().push(row);
    }
    // Last first, as the stack gives them back.
    for rows in children.values_mut() {
        rows.sort_by_key(|row| std::cmp::Reverse(spans.start(*row)));
    }
    let mut open: Vec<(usize, usize)> = Vec::new();
    open.extend(children.remove(&None).into_iter().flatten().map(|row| (row, 0)));
    let mut nodes = Vec::with_capacity(trace.num_rows());
    loop {
        while let Some((row, depth)) = open.pop() {
            nodes.push(node(trace, row, depth));
            let below = children.remove(&Some(row));
            open.extend(below.into_iter().flatten().map(|row| (row, depth + 1)));
        }
        // What is left names each other as parents, in a circle: it is cut open somewhere.
        let Some(row) = children.keys().flatten().min().copied() else { break };
        open.push((row, 0));
        for rows in children.values_mut() {
            rows.retain(|other| *other != row);
        }
    }
    let trace_id = (0..trace.num_rows()).find_map(|row| spans.trace_id(row));
    let trace_id = trace_id.map(|id| id.to_string()).unwrap_or_default();
    Tree { trace_id, orphans, spans: nodes, warnings: Vec::new() }
}

fn node(trace: &Batch, row: usize, depth: usize) -> Node {
    let spans = SpanRows::new(trace);
    let attributes = trace.attributes(Scope::Span);
    Node {
        depth,
        span_id: spans.span_id(row).map(|id| id.to_string()),
        parent_span_id: spans.parent_span_id(row).map(|id| id.to_string()),
        service: spans.service(row).map(str::to_owned),
        name: spans.name(row).to_owned(),
        start: Timestamp::from_nanosecond(spans.start(row).into()).unwrap_or_default().to_string(),
        duration_nanos: spans.duration(row),
        status: match spans.status_code(row) {
            0 => "unset",
            1 => "ok",
            _ => "error",
        },
        status_message: spans.status_message(row).map(str::to_owned),
        attributes: attributes
            .of_row(row)
            .map(|(key, value)| (key.to_owned(), value.to_text()))
            .collect(),
        events: spans.events(row).map(|event| event.name.to_owned()).collect(),
    }
}

/// A trace as an indented tree.
pub fn trace(trace: &Batch) {
    let style = Style::of_stdout();
    let tree = tree(trace);
    let count = output::count(tree.spans.len() as u64, "span");
    let orphans = match tree.orphans {
        0 => String::new(),
        n => format!(", {} without their parent", output::count(n as u64, "span")),
    };
    output::line(&format!("trace {}  {count}{orphans}", style.bold(&tree.trace_id)));
    for span in &tree.spans {
        let indent = "  ".repeat(span.depth);
        let took = span_of_time(u64::try_from(span.duration_nanos).unwrap_or(0));
        let service = span.service.as_deref().unwrap_or("-");
        let mut line =
            format!("{took:>9}  {indent}{}  {}", style.bold(&span.name), style.dim(service));
        if span.status == "error" {
            let why = span.status_message.as_deref().unwrap_or_default();
            line += &style.bad(format!("  error {why}").trim_end());
        }
        output::line(&line);
    }
}
