//! Every contract of the documentation, run: as it stands on the page, over one stream that keeps it
//! and one that breaks it.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};

use lacuna_contract::{ContractSet, history};
use lacuna_signal::{Batch, SignalKind};
use serde_json::{Value, json};

const SECOND: i64 = 1_000;
const HOUR: i64 = 3_600 * SECOND;
/// A whole hour, so that a heartbeat's windows are where the tests say. Milliseconds.
const EPOCH: i64 = 1_700_000_000_000 / HOUR * HOUR;

/// One signal: a span, or a log record where it has a body.
#[derive(Clone)]
struct Signal {
    service: &'static str,
    name: &'static str,
    /// Milliseconds.
    at: i64,
    lasts: i64,
    attributes: Value,
    error: bool,
    kind: u8,
    is_log: bool,
}

fn span(name: &'static str, at: i64, attributes: Value) -> Signal {
    let service = "shop";
    Signal { service, name, at, lasts: 10, attributes, error: false, kind: 1, is_log: false }
}

fn log(service: &'static str, body: &'static str, at: i64, attributes: Value) -> Signal {
    Signal { service, is_log: true, lasts: 0, ..span(body, at, attributes) }
}

impl Signal {
    fn failed(self) -> Self {
        Self { error: true, ..self }
    }

    fn server(self) -> Self {
        Self { kind: 2, ..self }
    }

    fn batch(&self, id: usize) -> Batch {
        let attributes: Vec<Value> = self
            .attributes
            .as_object()
            .unwrap()
            .iter()
            .map(|(key, value)| {
                let value = match value {
                    Value::Number(n) => json!({"doubleValue": n}),
                    text => json!({"stringValue": text}),
                };
                json!({"key": key, "value": value})
            })
            .collect();
        let nanos = |ms: i64| ((EPOCH + ms) * 1_000_000).to_string();
        let resource = json!({"attributes": [{"key": "service.name", "value": {"stringValue": self.service}}]});
        let (kind, request) = if self.is_log {
            let record = json!({
                "timeUnixNano": nanos(self.at),
                "body": {"stringValue": self.name},
                "attributes": attributes,
            });
            let scope = json!([{"logRecords": [record]}]);
            let request = json!({"resourceLogs": [{"resource": resource, "scopeLogs": scope}]});
            (SignalKind::Logs, request)
        } else {
            let span = json!({
                "traceId": format!("{:032x}", id + 1),
                "spanId": format!("{:016x}", id + 1),
                "name": self.name,
                "kind": self.kind,
                "startTimeUnixNano": nanos(self.at),
                "endTimeUnixNano": nanos(self.at + self.lasts),
                "attributes": attributes,
                "status": {"code": if self.error { 2 } else { 0 }},
            });
            let scope = json!([{"spans": [span]}]);
            let request = json!({"resourceSpans": [{"resource": resource, "scopeSpans": scope}]});
            (SignalKind::Spans, request)
        };
        let text = request.to_string();
        let (body, refused) = lacuna_signal::otlp::decode_json(kind, text.as_bytes()).unwrap();
        assert!(refused.is_empty(), "{}", refused.message());
        lacuna_signal::otlp::decode(kind, body).unwrap().batch
    }
}

/// Streams for one contract: one that keeps it, one that breaks it, and how.
struct Case {
    good: Vec<Signal>,
    bad: Vec<Signal>,
    verdict: &'static str,
}

fn order(id: &str) -> Value {
    json!({"order.id": id})
}

fn paid(id: &str, amount: f64) -> Value {
    json!({"order.id": id, "amount": amount, "payment.result": "success"})
}

/// The contracts of the page, each with its streams.
fn cases() -> BTreeMap<&'static str, Case> {
    let placed = || span("order.place", 0, json!({"order.id": "7", "amount": 12.5}));
    let charged = |at| span("payment.charge", at, paid("7", 12.5));
    let case = |good: Vec<Signal>, bad: Vec<Signal>, verdict| Case { good, bad, verdict };
    [
        (
            "order-gets-paid",
            case(
                vec![placed(), charged(2 * SECOND)],
                vec![placed(), charged(2 * SECOND).failed().renamed("payment.try")],
                "missed",
            ),
        ),
        (
            "order-charged-once",
            case(
                vec![placed(), charged(SECOND)],
                vec![placed(), charged(SECOND), charged(2 * SECOND)],
                "duplicate",
            ),
        ),
        (
            "charge-matches-order",
            case(
                vec![placed(), charged(SECOND)],
                vec![placed(), span("payment.charge", SECOND, paid("7", 1.25))],
                "missed",
            ),
        ),
        (
            "paid-before-shipped",
            case(
                vec![charged(0), span("parcel.ship", HOUR, order("7"))],
                vec![charged(2 * HOUR), span("parcel.ship", HOUR, order("7"))],
                "phantom",
            ),
        ),
        (
            "receipt-sent",
            case(
                vec![
                    charged(0),
                    log("mailer", "receipt sent to somebody", SECOND, json!({"order_id": "7"})),
                ],
                vec![
                    charged(0),
                    log("mailer", "receipt bounced", SECOND, json!({"order_id": "7"})),
                    log("mailer", "receipt sent to nobody", SECOND, json!({"order_id": "8"})),
                ],
                "missed",
            ),
        ),
        (
            "nothing-after-cancel",
            case(
                vec![
                    span("parcel.ship", 0, order("7")),
                    span("order.cancel", SECOND, order("7")),
                    span("parcel.ship", 2 * SECOND, order("8")),
                ],
                vec![
                    span("order.cancel", 0, order("7")),
                    span("parcel.ship", 60 * SECOND, order("7")),
                ],
                "forbidden",
            ),
        ),
        (
            "reservation-released",
            case(
                vec![
                    span("order.cancel", 0, order("7")),
                    span("stock.release", 20 * SECOND, order("7")),
                ],
                vec![
                    span("order.cancel", 0, order("7")),
                    span("stock.release", 20 * SECOND, order("7")).failed(),
                    span("stock.release", 90 * SECOND, order("7")),
                ],
                "late",
            ),
        ),
        (
            "batch-accounted-for",
            case(
                vec![
                    span("item.accept", 0, json!({"batch_id": "b"})),
                    span("item.accept", 1, json!({"batch_id": "b"})),
                    span("item.done", SECOND, json!({"batch_id": "b"})),
                    span("item.reject", SECOND, json!({"batch_id": "b"})),
                ],
                vec![
                    span("item.accept", 0, json!({"batch_id": "b"})),
                    span("item.accept", 1, json!({"batch_id": "b"})),
                    span("item.done", SECOND, json!({"batch_id": "b"})),
                ],
                "unbalanced",
            ),
        ),
        (
            "nightly-sync-runs",
            case(
                vec![
                    span("GET /", 5 * SECOND, json!({})).server(),
                    span("sync.run", 60 * SECOND, json!({})),
                ],
                vec![
                    span("GET /", 5 * SECOND, json!({})).server(),
                    span("sync.run", 60 * SECOND, json!({})).failed(),
                ],
                "missed",
            ),
        ),
        (
            "cache-invalidated",
            case(
                vec![
                    span("price.update", 0, json!({"product.id": "p"})),
                    span("cache.invalidate", SECOND, json!({"product.id": "p"})),
                ],
                vec![
                    span("price.update", 0, json!({"product.id": "p"})),
                    span("cache.invalidate", SECOND, json!({"product.id": "p"})),
                    // The second change of the same product is not followed by anything.
                    span("price.update", 60 * SECOND, json!({"product.id": "p"})),
                ],
                "missed",
            ),
        ),
    ]
    .into()
}

impl Signal {
    fn renamed(self, name: &'static str) -> Self {
        Self { name, ..self }
    }
}

/// The contracts of the page, as they stand there.
fn snippets() -> Vec<ContractSet> {
    let text = std::fs::read_to_string("../../docs/contracts.md").unwrap();
    let blocks = text.split("```yaml\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks
        .map(|yaml| {
            let whole = if yaml.starts_with("contracts:") { "" } else { "contracts:\n" };
            let yaml = format!("{whole}{yaml}");
            ContractSet::parse("docs/contracts.md", &yaml).unwrap_or_else(|e| panic!("{yaml}\n{e}"))
        })
        .collect()
}

fn verdicts(set: &ContractSet, name: &str, stream: &[Signal]) -> BTreeMap<&'static str, u64> {
    // Time goes on, in the services of the outcomes too, so that every deadline passes.
    let end = [span("tick", 5 * HOUR, json!({})), log("mailer", "tick", 5 * HOUR, json!({}))];
    let early = [log("mailer", "started", -SECOND, json!({})), span("tick", -SECOND, json!({}))];
    let all = early.iter().chain(stream).chain(&end);
    let batches: Vec<Batch> = all.enumerate().map(|(id, signal)| signal.batch(id)).collect();
    let report = history::run(set, &batches);
    let contract = report.contracts.into_iter().find(|contract| contract.name == name).unwrap();
    contract.verdicts.into_iter().filter(|(_, count)| *count > 0).collect()
}

#[test]
fn every_contract_of_the_page_is_kept_and_broken() {
    let mut cases = cases();
    let mut seen = BTreeSet::new();
    for set in snippets() {
        for contract in set.contracts() {
            let name = contract.name.as_str();
            let case = cases.get(name).unwrap_or_else(|| panic!("{name} has no streams here"));
            let good = verdicts(&set, name, &case.good);
            assert_eq!(good.keys().copied().collect::<Vec<_>>(), ["fulfilled"], "{name}");
            let bad = verdicts(&set, name, &case.bad);
            assert_eq!(bad.get(case.verdict), Some(&1), "{name}: {bad:?}");
            seen.insert(name.to_owned());
        }
    }
    cases.retain(|name, _| !seen.contains(*name));
    let left: Vec<_> = cases.into_keys().collect();
    assert!(left.is_empty(), "not on the page any more: {left:?}");
}

#[test]
fn an_attribute_of_an_unexpected_type_is_a_missing_key() {
    let set = &snippets()[0];
    let with = |id: Value| {
        let text = json!({"resourceSpans": [{"scopeSpans": [{"spans": [{
            "traceId": "00000000000000000000000000000001", "spanId": "0000000000000001",
            "name": "order.place",
            "startTimeUnixNano": (EPOCH * 1_000_000).to_string(),
            "endTimeUnixNano": (EPOCH * 1_000_000).to_string(),
            "attributes": [{"key": "order.id", "value": id}],
        }]}]}]});
        let kind = SignalKind::Spans;
        let text = text.to_string();
        let (body, _) = lacuna_signal::otlp::decode_json(kind, text.as_bytes()).unwrap();
        history::run(set, [&lacuna_signal::otlp::decode(kind, body).unwrap().batch])
    };
    for id in [
        json!({"arrayValue": {"values": [{"stringValue": "7"}]}}),
        json!({"kvlistValue": {"values": []}}),
        json!({"bytesValue": "AAE="}),
        json!({"stringValue": ""}),
    ] {
        let report = with(id.clone());
        let contract = &report.contracts[0];
        assert_eq!(contract.activations, 0, "{id}");
        assert_eq!(contract.health.key_missing["when"], 1, "{id}");
        assert!(contract.health.problems[0].contains("no usable key"), "{:?}", contract.health);
    }
    assert_eq!(with(json!({"intValue": "7"})).contracts[0].activations, 1);
}
