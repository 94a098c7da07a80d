//! What healthy traffic suggests, and that what it suggests is right.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::{Ev, batch, ev};
use lacuna_contract::mine::{MineOptions, Miner, Proposal, to_yaml};
use lacuna_contract::{ContractSet, history};
use lacuna_signal::Batch;

/// Orders: placed (with a check inside the call), then paid, then shipped; and batches of items
/// that go in and come out. `skip` orders are not paid.
fn traffic(orders: u32, skip: impl Fn(u32) -> bool) -> Vec<Batch> {
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
    let mut batches: Vec<Batch> = events.chunks(500).map(batch).collect();
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
    batches.extend(checks.chunks(500).map(batch));
    batches
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
    assert!(has(&proposals, "response", "place", "pay"), "{names:?}");
    assert!(has(&proposals, "response", "pay", "ship"), "{names:?}");
    assert!(has(&proposals, "exactly", "place", "pay"), "{names:?}");
    assert!(has(&proposals, "precedence", "pay", "ship"), "{names:?}");
    assert!(has(&proposals, "balance", "in", "out"), "{names:?}");
    // Shipping follows placing because paying does.
    assert!(!has(&proposals, "response", "place", "ship"), "{names:?}");
    // Within one synchronous call there is nothing to wait for.
    assert!(!has(&proposals, "response", "place", "check"), "{names:?}");
    assert!(!has(&proposals, "response", "ship", "pay"), "{names:?}");
    let pay =
        proposals.iter().find(|p| p.kind == "response" && p.when.contains("\"place\"")).unwrap();
    assert_eq!(pay.key, ("span.key".to_owned(), "span.key".to_owned()));
    assert!(pay.support >= 0.995 && pay.within.unwrap() >= pay.delays[2], "{pay:?}");
    assert_eq!(pay.examples.len(), 3);
}

#[test]
fn what_it_proposes_is_silent_on_healthy_traffic_and_finds_what_breaks() {
    let yaml = to_yaml(&mine(&traffic(10_000, |_| false)));
    let set = ContractSet::parse("mined.yaml", &yaml).unwrap_or_else(|e| panic!("{yaml}\n{e}"));
    assert!(set.len() >= 5, "{yaml}");
    let healthy = history::run(&set, &traffic(3_000, |_| false));
    assert!(!healthy.has_violations(), "{yaml}");
    let broken = history::run(&set, &traffic(3_000, |i| i % 100 == 7));
    let missed: u64 = broken
        .contracts
        .iter()
        .filter(|c| c.name == "place-leads-to-pay")
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
    assert!(!has(&proposals, "response", "place", "pay"));
    assert!(ContractSet::parse("mined.yaml", &to_yaml(&[])).unwrap().is_empty());
}
