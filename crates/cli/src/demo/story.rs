//! What there is to tell: what every layer reported, what was promised, what was lost and where.

use std::collections::{BTreeMap, BTreeSet};

use lacuna_server::Server;
use lacuna_signal::SignalKind;
use lacuna_signal::rows::{LogRows, SpanRows};
use lacuna_signal::schema::Scope;
use lacuna_store::{Store, StoreError, TimeRange};
use miette::{IntoDiagnostic, miette};
use serde::Serialize;
use serde_json::Value;

use crate::Failure;
use crate::client::Client;

/// OTLP's numbers of the span kinds that face a caller or a queue, and of status error.
const SERVER: u8 = 2;
const CONSUMER: u8 = 5;
const STATUS_ERROR: u8 = 2;
/// Least severity number of an error (logs data model, "Severity Fields").
const SEVERITY_ERROR: u8 = 17;

/// Everything that the demo tells.
#[derive(Serialize)]
pub struct Story {
    /// Rows of spans, logs and points.
    pub rows: [u64; 3],
    /// What the layers reported of themselves.
    pub layers: Layers,
    /// The contracts and what became of them.
    pub contracts: Vec<ContractLine>,
    /// What was found.
    pub losses: Vec<Loss>,
}

/// What every layer reported.
#[derive(Default, Serialize)]
pub struct Layers {
    /// Services that reported anything.
    pub services: BTreeSet<String>,
    /// HTTP requests served, and how many of them in error.
    pub requests: (u64, u64),
    /// Messages consumed, and how many of them in error.
    pub messages: (u64, u64),
    /// By the log records' `layer`: records, errors among them, and what was said how often.
    pub logs: BTreeMap<String, LogLayer>,
}

/// Log records of one layer.
#[derive(Default, Serialize)]
pub struct LogLayer {
    /// Records.
    pub records: u64,
    /// Records of severity ERROR and above.
    pub errors: u64,
    /// Bodies and how often each came.
    #[serde(skip)]
    bodies: BTreeMap<String, u64>,
}

impl LogLayer {
    /// The most frequent body and how often it came.
    pub fn most_frequent(&self) -> Option<(&str, u64)> {
        let most = self.bodies.iter().max_by_key(|(_, count)| **count)?;
        Some((most.0, *most.1))
    }
}

/// One contract in the table.
#[derive(Serialize)]
pub struct ContractLine {
    /// Name.
    pub name: String,
    /// Outcomes that were due.
    pub expected: u64,
    /// Outcomes that came in time.
    pub reached: u64,
}

/// One finding with instances.
#[derive(Serialize)]
pub struct Loss {
    /// What found it, such as `contract/essay-gets-a-slot`.
    pub source: String,
    /// The finding's title.
    pub title: String,
    /// Its severity.
    pub severity: String,
    /// Names of the fields of its instances' keys, joined.
    pub key: String,
    /// How many instances violate.
    pub count: u64,
    /// Path of all its instances.
    pub path: String,
    /// Some of the instances, oldest first.
    pub instances: Vec<LostInstance>,
}

/// One lost instance.
#[derive(Serialize)]
pub struct LostInstance {
    /// Its key: the values, joined.
    pub key: String,
    /// When it began, RFC 3339.
    pub activated_at: String,
    /// A trace to open.
    pub trace_id: String,
    /// Where it was lost, most telling first.
    pub steps: Vec<LostAt>,
}

/// A step at which an instance was lost: like spans, taken together.
#[derive(Serialize)]
pub struct LostAt {
    /// Service of the spans.
    pub service: String,
    /// Name of the spans.
    pub span: String,
    /// `unset`, `ok` or `error`.
    pub status: String,
    /// The status description, or the reason or result that an attribute gives.
    pub why: String,
    /// How many spans.
    pub times: usize,
    /// Correlation ids on them.
    pub correlation_ids: BTreeSet<String>,
}

/// Gathers the story from a server that has settled.
pub async fn gather(server: &Server, client: &Client, list: usize) -> Result<Story, Failure> {
    let store = server.store().clone();
    let (rows, layers) = tokio::task::spawn_blocking(move || layers(&store))
        .await
        .into_diagnostic()?
        .map_err(|error| miette!("{error}"))?;
    let contracts = client.get("/api/v1/contracts").await?;
    let contracts = items(&contracts["contracts"]).map(contract_line).collect();
    let findings = client.get("/api/v1/findings?status=open").await?;
    let mut losses = Vec::new();
    for finding in items(&findings["findings"]) {
        let path = format!("/api/v1/findings/{}/instances", text(&finding["fingerprint"]));
        let found = client.get(&format!("{path}?limit={list}&evidence=true")).await?;
        losses.push(Loss {
            source: text(&finding["source"]),
            title: text(&finding["title"]),
            severity: text(&finding["severity"]),
            key: join(&finding["key"]),
            count: finding["count"].as_u64().unwrap_or(0),
            path,
            instances: items(&found["instances"]).map(lost_instance).collect(),
        });
    }
    Ok(Story { rows, layers, contracts, losses })
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("").to_owned()
}

fn contract_line(contract: &Value) -> ContractLine {
    let verdicts = &contract["verdicts"];
    ContractLine {
        name: text(&contract["name"]),
        expected: contract["activations"].as_u64().unwrap_or(0),
        reached: verdicts["fulfilled"].as_u64().unwrap_or(0),
    }
}

fn lost_instance(instance: &Value) -> LostInstance {
    let mut steps: Vec<LostAt> = Vec::new();
    for step in items(&instance["evidence"]).map(lost_at) {
        let like = |known: &&mut LostAt| {
            (&known.service, &known.span, &known.why) == (&step.service, &step.span, &step.why)
        };
        match steps.iter_mut().find(like) {
            Some(known) => {
                known.times += 1;
                known.correlation_ids.extend(step.correlation_ids);
            }
            None => steps.push(step),
        }
    }
    LostInstance {
        key: join(&instance["key"]),
        activated_at: text(&instance["activated_at"]),
        trace_id: items(&instance["trace_ids"]).next().map(text).unwrap_or_default(),
        steps,
    }
}

fn join(texts: &Value) -> String {
    items(texts).map(text).collect::<Vec<_>>().join(" ")
}

fn lost_at(step: &Value) -> LostAt {
    let attribute = |wanted: &dyn Fn(&str) -> bool| {
        let attributes = items(&step["attributes"]);
        let mut found = attributes.filter(|pair| pair[0].as_str().is_some_and(wanted));
        found.next().map(|pair| text(&pair[1]))
    };
    let reason = attribute(&|key| key.ends_with(".reason"))
        .or_else(|| attribute(&|key| key == "error.type"))
        .or_else(|| attribute(&|key| key.ends_with(".result")));
    let why = match (step["message"].as_str(), reason) {
        (Some(message), Some(reason)) => format!("{message} ({reason})"),
        (Some(message), None) => message.to_owned(),
        (None, reason) => reason.unwrap_or_default(),
    };
    LostAt {
        service: text(&step["service"]),
        span: text(&step["name"]),
        status: text(&step["status"]),
        why,
        times: 1,
        correlation_ids: attribute(&|key| key == "correlation_id").into_iter().collect(),
    }
}

/// Reads through all spans and logs once.
fn layers(store: &Store) -> Result<([u64; 3], Layers), StoreError> {
    let mut layers = Layers::default();
    let mut rows = [0; 3];
    for (kind, rows) in SignalKind::ALL.into_iter().zip(&mut rows) {
        for batch in store.scan(kind, None, TimeRange::ALL, None, usize::MAX)? {
            let batch = batch?;
            *rows += batch.num_rows() as u64;
            if let Some(services) = batch.service_column() {
                for service in services.iter().flatten() {
                    if !layers.services.contains(service) {
                        layers.services.insert(service.to_owned());
                    }
                }
            }
            match kind {
                SignalKind::Spans => layers.add_spans(&SpanRows::new(&batch), batch.num_rows()),
                SignalKind::Logs => {
                    let layer = batch.attribute(Scope::Log, "layer");
                    let logs = LogRows::new(&batch);
                    for row in 0..batch.num_rows() {
                        let layer = layer.get(row).map_or("(none)".to_owned(), |v| v.to_text());
                        layers.logs.entry(layer).or_default().add(&logs, row);
                    }
                }
                SignalKind::Points => {}
            }
        }
    }
    Ok((rows, layers))
}

impl Layers {
    fn add_spans(&mut self, spans: &SpanRows<'_>, rows: usize) {
        for row in 0..rows {
            let counter = match spans.kind(row) {
                SERVER => &mut self.requests,
                CONSUMER => &mut self.messages,
                _ => continue,
            };
            counter.0 += 1;
            counter.1 += u64::from(spans.status_code(row) == STATUS_ERROR);
        }
    }
}

impl LogLayer {
    fn add(&mut self, logs: &LogRows<'_>, row: usize) {
        self.records += 1;
        self.errors += u64::from(logs.severity(row) >= SEVERITY_ERROR);
        if let Some(body) = logs.body(row) {
            match self.bodies.get_mut(body) {
                Some(count) => *count += 1,
                None => {
                    self.bodies.insert(body.to_owned(), 1);
                }
            }
        }
    }
}
