//! What healthy traffic suggests, and that what it suggests is right.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::{Ev, batch, batch_of, ev};
use lacuna_contract::mine::{MineOptions, Miner, Proof, Proposal, to_yaml};
use lacuna_contract::{ContractSet, history};
use lacuna_signal::{Batch, SignalKind};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

/// Orders: placed (with a check inside the call), then paid, then shipped; and batches of items
/// that go in and come out. `skip` orders are not paid.
fn traffic(orders: u32, skip: impl Fn(u32) -> bool) -> Vec<Batch> {
    in_batches(&orders_of(orders, skip))
}

fn in_batches(events: &[Ev]) -> Vec<Batch> {
    events.chunks(500).map(batch).collect()
}

fn orders_of(orders: u32, skip: impl Fn(u32) -> bool) -> Vec<Ev> {
    let mut events: Vec<Ev> = Vec::new();
    let mut id = 0;
    let mut add = |events: &mut Vec<Ev>, name, key: &str, start, end| {
        id += 1;
        events.push(ev(id, name, key, start, end));
    };
    for i in 0..orders {
        let (key, start) = (format!("order-{i}"), i64::from(i) * 50);
        let wobble = i64::from(i * 7 % 13);
        add(&mut events, "place", &key, start, start + 10);
        if !skip(i) {
            add(&mut events, "pay", &key, start + 40 + wobble, start + 60 + wobble);
            add(&mut events, "ship", &key, start + 200, start + 210 + 2 * wobble);
        }
        if i % 10 == 0 {
            let key = format!("batch-{i}");
            for item in 0..i64::from(1 + i % 4) {
                add(&mut events, "in", &key, start + item, start + item);
                add(&mut events, "out", &key, start + 20 + item, start + 21 + item);
            }
        }
    }
    // The check runs inside the call that places the order: same trace, within its time.
    let checks: Vec<Ev> = events
        .iter()
        .filter(|event| event.name == "place")
        .map(|event| Ev {
            name: "check",
            start: event.start + 2,
            end: event.start + 4,
            ..event.clone()
        })
        .collect();
    events.extend(checks);
    events
}

fn mine(batches: &[Batch]) -> Vec<Proposal> {
    let mut miner = Miner::new(MineOptions::default());
    batches.iter().for_each(|batch| miner.observe(batch));
    miner.propose()
}

fn has(proposals: &[Proposal], kind: &str, when: &str, expect: &str) -> bool {
    let named = |selector: &str, name: &str| selector.contains(&format!("name = \"{name}\""));
    proposals.iter().any(|p| p.kind == kind && named(&p.when, when) && named(&p.expect, expect))
}

#[test]
fn finds_what_always_follows_and_not_what_a_third_explains() {
    let proposals = mine(&traffic(10_000, |_| false));
    let names: Vec<&str> = proposals.iter().map(|p| p.name.as_str()).collect();
    assert!(has(&proposals, "exactly", "place", "pay"), "{names:?}");
    assert!(has(&proposals, "exactly", "pay", "ship"), "{names:?}");
    assert!(has(&proposals, "response", "in", "out"), "{names:?}");
    // Exactly once is the stronger promise: the weaker one beside it says nothing more.
    assert!(!has(&proposals, "response", "place", "pay"), "{names:?}");
    assert!(has(&proposals, "precedence", "pay", "ship"), "{names:?}");
    assert!(has(&proposals, "balance", "in", "out"), "{names:?}");
    // Shipping follows placing because paying does.
    assert!(!has(&proposals, "exactly", "place", "ship"), "{names:?}");
    // Within one synchronous call there is nothing to wait for, and a step of it causes nothing.
    assert!(proposals.iter().all(|p| !p.name.contains("check")), "{names:?}");
    assert!(!has(&proposals, "exactly", "ship", "pay"), "{names:?}");
    let pay =
        proposals.iter().find(|p| p.kind == "exactly" && p.when.contains("\"place\"")).unwrap();
    assert_eq!(pay.key, ("span.key".to_owned(), "span.key".to_owned()));
    assert!(pay.support >= 0.995 && pay.within >= pay.delays[2], "{pay:?}");
    assert_eq!(pay.examples.len(), 3);
}

#[test]
fn what_it_proposes_is_silent_on_healthy_traffic_and_finds_what_breaks() {
    let yaml = to_yaml(&mine(&traffic(10_000, |_| false)));
    let set = ContractSet::parse("mined.yaml", &yaml).unwrap_or_else(|e| panic!("{yaml}\n{e}"));
    assert!(set.len() >= 5, "{yaml}");
    let healthy = history::run(&set, &traffic(3_000, |_| false));
    assert!(!healthy.has_violations(), "{yaml}");
    // Time goes on, so that every deadline passes.
    let mut traffic = traffic(3_000, |i| i % 100 == 7);
    traffic.push(batch(&[ev(1_000_000, "tick", "none", 3_600_000, 3_600_000)]));
    let broken = history::run(&set, &traffic);
    let missed: u64 = broken
        .contracts
        .iter()
        .filter(|c| c.name == "place-leads-once-to-pay")
        .map(|c| c.verdicts["missed"])
        .sum();
    assert_eq!(missed, 30);
}

#[test]
fn little_or_no_traffic_suggests_nothing() {
    assert!(mine(&[]).is_empty());
    assert!(mine(&traffic(20, |_| false)).is_empty());
    // One in a hundred unpaid is not a rule.
    let proposals = mine(&traffic(10_000, |i| i % 100 == 0));
    assert!(!has(&proposals, "exactly", "place", "pay"));
    assert!(ContractSet::parse("mined.yaml", &to_yaml(&[])).unwrap().is_empty());
}

/// Records of services that say what they do in their texts only.
fn texts(service: &str, bodies: impl IntoIterator<Item = (i64, String)>) -> Batch {
    let log_records = bodies.into_iter().map(|(at, body)| LogRecord {
        time_unix_nano: u64::try_from(common::EPOCH + at * common::MS).unwrap(),
        body: Some(AnyValue { value: Some(any_value::Value::StringValue(body)) }),
        ..LogRecord::default()
    });
    let scope_logs = vec![ScopeLogs { log_records: log_records.collect(), ..Default::default() }];
    let name = any_value::Value::StringValue(service.to_owned());
    let name = KeyValue {
        key: "service.name".to_owned(),
        value: Some(AnyValue { value: Some(name) }),
        ..Default::default()
    };
    let resource = Some(Resource { attributes: vec![name], ..Default::default() });
    let resource_logs = vec![ResourceLogs { resource, scope_logs, ..Default::default() }];
    let body = ExportLogsServiceRequest { resource_logs }.encode_to_vec();
    lacuna_signal::otlp::decode(SignalKind::Logs, bytes::Bytes::from(body)).unwrap().batch
}

/// Shipments that only logs show: taken in by name, packed by place, sent as JSON; and spans that
/// carry the same id as an attribute of another name.
fn told_in_texts(orders: i64, lost: impl Fn(i64) -> bool) -> Vec<Batch> {
    let id = |i: i64| format!("{:08x}-ord", i * 7_919);
    let all = || (0..orders).map(|i| (i * 40, id(i), i));
    let mut batches = vec![
        texts(
            "shop",
            all().map(|(at, id, i)| (at, format!("Took order_id={id} from host{}", i % 5))),
        ),
        texts("store", all().map(|(at, id, i)| (at + 15, format!("Packed batch {id}, {i} left.")))),
        texts(
            "mail",
            all().filter(|(_, _, i)| !lost(*i)).map(|(at, id, i)| {
                (at + 90, format!("{{\"order\": \"{id}\", \"ms\": {}}}", i % 9))
            }),
        ),
    ];
    let spans: Vec<Ev> = all()
        .map(|(at, id, i)| {
            ev(u32::try_from(i).unwrap(), "bill", &id, at + 40, at + 50).from("bank")
        })
        .collect();
    batches.extend(spans.chunks(1_000).map(batch));
    batches.push(texts("shop", [(orders * 40 + 600_000, "closing".to_owned())]));
    batches
}

#[test]
fn keys_are_found_in_log_texts_and_joined_by_their_values() {
    let proposals = mine(&told_in_texts(2_000, |_| false));
    let yaml = to_yaml(&proposals);
    let from = |service: &str, other: &str| {
        let of = |selector: &str, name: &str| selector.contains(&format!("\"{name}\""));
        let found = proposals
            .iter()
            .find(|p| p.kind == "exactly" && of(&p.when, service) && of(&p.expect, other));
        found.unwrap_or_else(|| panic!("{service} to {other} in\n{yaml}"))
    };
    let packed = from("shop", "store");
    assert!(
        packed.key.0.contains("order_id=(") && packed.key.1.contains("Packed batch ("),
        "{packed:?}"
    );
    assert_eq!(from("store", "bank").key.1, "span.key");
    assert!(from("bank", "mail").key.1.contains("order"));
    let set = ContractSet::parse("mined.yaml", &yaml).unwrap_or_else(|e| panic!("{yaml}\n{e}"));
    let held_out = history::run(&set, &told_in_texts(1_000, |_| false));
    assert!(!held_out.has_violations(), "{yaml}");
    let broken = history::run(&set, &told_in_texts(1_000, |i| i % 100 == 7));
    let missed = |c: &history::ContractReport| c.verdicts["missed"];
    assert_eq!(broken.contracts.iter().map(missed).max(), Some(10), "{yaml}");
}

#[test]
fn what_comes_again_and_again_follows_nothing() {
    let mut events = Vec::new();
    for i in 0..20_000u32 {
        let key = format!("session-{}", i % 1_000);
        let name = ["look", "touch", "leave"][(i / 1_000 * 7 % 3) as usize];
        events.push(ev(i, name, &key, i64::from(i) * 20, i64::from(i) * 20 + 5));
    }
    let batches: Vec<Batch> = events.chunks(1_000).map(batch).collect();
    let proposals = mine(&batches);
    assert!(!proposals.iter().any(|p| p.kind == "response"), "{proposals:#?}");
}

#[test]
fn the_same_data_gives_the_same_proposals() {
    let batches = traffic(2_000, |_| false);
    let (first, second) = (mine(&batches), mine(&batches));
    assert_eq!(to_yaml(&first), to_yaml(&second));
    assert_eq!(first, second);
    let json = serde_json::to_value(&first[0]).unwrap();
    assert_eq!(json["key"], serde_json::json!(["span.key"]));
    assert_eq!(json["examples"].as_array().unwrap().len(), 3);
}

/// Scenario: hours that are cut from running traffic, at many moments: orders were placed and paid
/// before the cut and are shipped after it, batches are split by it.
/// Guarantees: what was mined finds nothing in them; what has no cause in the middle it does find.
#[test]
fn what_is_cut_from_running_traffic_raises_no_alarm() {
    let all = orders_of(10_000, |_| false);
    let proposals = mine(&in_batches(&all));
    assert!(has(&proposals, "precedence", "pay", "ship"), "{proposals:#?}");
    assert!(has(&proposals, "balance", "in", "out"), "{proposals:#?}");
    let yaml = to_yaml(&proposals);
    let set = ContractSet::parse("mined.yaml", &yaml).unwrap_or_else(|e| panic!("{yaml}\n{e}"));
    for cut in (0..6).map(|i| 50_000 + i * 87) {
        let window = cut..cut + 90_000;
        let mut held_out: Vec<Ev> =
            all.iter().filter(|event| window.contains(&event.start)).cloned().collect();
        // Later rows first: the beginning is that of the events, not of what comes first.
        held_out.reverse();
        let report = history::run(&set, &in_batches(&held_out));
        assert!(!report.has_violations(), "cut at {cut}: {report:#?}");
        let counts = |verdict: &str| report.contracts.iter().map(|c| c.verdicts[verdict]).sum();
        let (fulfilled, unknown): (u64, u64) = (counts("fulfilled"), counts("unknown"));
        assert!(
            unknown > 0 && fulfilled > 20 * unknown,
            "{fulfilled} fulfilled, {unknown} unknown"
        );
        held_out.push(ev(900_000, "ship", "nobody-paid", cut + 60_000, cut + 60_001));
        held_out.push(ev(900_001, "in", "half-batch", cut + 60_000, cut + 60_001));
        let report = history::run(&set, &in_batches(&held_out));
        let of = |kind: &str, verdict: &str| -> u64 {
            let of_kind = report.contracts.iter().filter(|contract| contract.kind == kind);
            of_kind.map(|contract| contract.verdicts[verdict]).sum()
        };
        assert!(of("precedence", "phantom") >= 1 && of("balance", "unbalanced") == 1, "{cut}");
    }
}

/// Scenario: a message is sent by a span that has the same name as the one around it, with the same
/// key.
/// Guarantees: what was mined counts each for itself, so it is silent on what it was learnt from.
#[test]
fn spans_of_one_name_and_several_kinds_stay_apart() {
    let spans: Vec<(Ev, i32, u32)> = (0..1_000u32)
        .flat_map(|i| {
            let (key, at) = (format!("order-{i}"), i64::from(i) * 100);
            let span = |n: u32, name, from, to| ev(i * 10 + n, name, &key, at + from, at + to);
            [
                (span(1, "orders publish", 0, 20), 1, 0),
                (span(2, "orders publish", 5, 10), 4, i * 10 + 1),
                (span(3, "orders process", 40, 50).from("bank"), 5, 0),
                (span(4, "receipt", 300, 310).from("mail"), 1, 0),
            ]
        })
        .collect();
    let batches: Vec<Batch> = spans.chunks(1_000).map(batch_of).collect();
    let proposals = mine(&batches);
    let yaml = to_yaml(&proposals);
    assert!(has(&proposals, "exactly", "orders publish", "orders process"), "{yaml}");
    let publishing = proposals.iter().filter(|p| p.when.contains("orders publish"));
    publishing.for_each(|p| assert!(p.when.contains("kind = "), "{yaml}"));
    let set = ContractSet::parse("mined.yaml", &yaml).unwrap_or_else(|e| panic!("{yaml}\n{e}"));
    assert!(!history::run(&set, &batches).has_violations(), "{yaml}");
}

/// Scenario: batches of 120 items, each of which carries the batch's id twice, so that the first
/// thousands of values have a handful of different ones; and an amount with seven values.
/// Guarantees: the id is found as a key all the same, and with it that batches balance and become
/// ready; the amount is named as what is none.
#[test]
fn a_key_of_many_events_is_found() {
    let mut events = Vec::new();
    let mut id = 0;
    let mut add = |name, key: &str, start| {
        id += 1;
        let event = ev(id, name, key, start, start + 1).amount(i64::from(id % 7));
        events.push(event);
    };
    for i in 0..500i64 {
        let (key, at) = (format!("{i:08x}-batch"), i * 1_300);
        add("register", &key, at);
        for item in 0..120 {
            add("in", &key, at + 5 + item * 8);
            add("out", &key, at + 25 + item * 8);
        }
        add("ready", &key, at + 1_100);
    }
    let mut miner = Miner::new(MineOptions { min_support: 0.99, ..MineOptions::default() });
    events.chunks(1_000).for_each(|events| miner.observe(&batch(events)));
    let notes = miner.passed_over().join("\n");
    assert!(notes.contains("fewer than 30 different values: amount"), "{notes}");
    let proposals = miner.propose();
    let names: Vec<&str> = proposals.iter().map(|p| p.name.as_str()).collect();
    assert!(has(&proposals, "balance", "in", "out"), "{names:?}");
    assert!(has(&proposals, "exactly", "register", "ready"), "{names:?}");
    // The balance's time holds a whole batch.
    let balance = proposals.iter().find(|p| p.kind == "balance").unwrap();
    assert!(balance.within > 2_000_000_000, "{balance:?}");
    let set = ContractSet::parse("mined.yaml", &to_yaml(&proposals)).unwrap();
    let batches: Vec<Batch> = events.chunks(1_000).map(batch).collect();
    assert!(!history::run(&set, &batches).has_violations(), "{names:?}");
}

/// Scenario: a proposal whose deadline is too short for the traffic that suggested it, beside those
/// that are right.
/// Guarantees: run over that traffic it alone is dropped, in words that give the figures.
#[test]
fn what_alarms_on_what_it_was_learnt_from_is_dropped() {
    let batches = traffic(2_000, |_| false);
    let mut proposals = mine(&batches);
    let whole = proposals.clone();
    let wrong = proposals.iter_mut().find(|p| p.kind == "exactly").unwrap();
    wrong.within = 1_000_000;
    let name = wrong.name.clone();
    let mut proof = Proof::new(proposals, 0.995).unwrap();
    batches.iter().for_each(|batch| proof.observe(batch));
    let (kept, dropped) = proof.finish();
    assert_eq!(kept, whole.iter().filter(|p| p.name != name).cloned().collect::<Vec<_>>());
    assert_eq!(dropped.len(), 1, "{dropped:?}");
    assert!(dropped[0].starts_with(&name) && dropped[0].contains("kept 0 times"), "{dropped:?}");
    let mut proof = Proof::new(whole.clone(), 0.995).unwrap();
    batches.iter().for_each(|batch| proof.observe(batch));
    assert_eq!(proof.finish(), (whole, Vec::new()));
}
