//! `--from` of `contracts run` and `explain`, and gaps in the evidence over history.

use serde_json::{Value, json};

use crate::history::{stdout, verdicts};
use crate::meaning::{line, time};
use crate::support::server::run;

const CONTRACT: &str = r#"contracts:
  - name: paid
    when:   '{ name = "a" }'
    expect: '{ name = "b" }'
    key:    [span.k]
    within: 30s
"#;

/// The bank is silent from 1.5 on. `x` was paid; it is activated again. `y` is activated while the
/// bank is silent.
const EVENTS: [&str; 5] = [
    "1 shop a 0-0.5 k=x",
    "2 bank b 1-1.5 k=x",
    "3 shop a 600-601 k=x",
    "4 shop a 700-701 k=y",
    "5 clock tick 900-900",
];

/// Scenario: the story of a day is asked for from five minutes on, after a key's obligation was
/// opened, and after the service of the outcomes was last heard.
/// Guarantees: what is told from then on is what the whole run says of it; the gap is told, with its
/// times; nothing speaks against the system; `explain` agrees.
#[test]
fn from_a_time_on_all_that_came_before_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let (contracts, events) = (dir.path().join("c.yaml"), dir.path().join("events.jsonl"));
    std::fs::write(&contracts, CONTRACT).unwrap();
    let text: Vec<String> =
        EVENTS.iter().map(|event| String::from_utf8(line(event)).unwrap()).collect();
    std::fs::write(&events, text.join("\n")).unwrap();
    let (contracts, events) = (contracts.to_str().unwrap(), events.to_str().unwrap());
    let from = ["--from", "2026-01-01T00:05:00Z"];
    let over = |more: &[&str]| {
        let args = ["contracts", "run", contracts, "--input", events];
        stdout(run(args.iter().chain(more)), 0)
    };
    let json = |more: &[&str]| -> Value {
        let more: Vec<&str> = ["--format", "json"].iter().chain(more).copied().collect();
        serde_json::from_str(&over(&more)).unwrap()
    };
    let (whole, later) = (json(&[]), json(&from));
    assert_eq!(verdicts(&whole), json!({"fulfilled": 1, "unknown": 1}));
    assert_eq!(verdicts(&later), json!({"unknown": 1}));
    assert_eq!(whole["contracts"][0]["instances"], later["contracts"][0]["instances"]);
    let gap = json!([{
        "service": "bank", "signal": "spans", "from": time("1.5"), "to": null,
        "contracts": ["paid"], "obligations": 1,
    }]);
    assert_eq!((&whole["gaps"], &later["gaps"]), (&gap, &gap));
    let told = over(&from);
    let gap =
        "gap: bank sent no spans from 2026-01-01T00:00:01.5Z to the end: 1 obligation of paid";
    assert!(told.contains(gap), "{told}");

    let explain = |key: &str| {
        let args = ["explain", "--key", key, "--contracts", contracts, "--input", events];
        stdout(run(args.iter().chain(&from).chain(&["--format", "json"])), 0)
    };
    let (x, y) = (explain("k=x"), explain("k=y"));
    assert!(!x.contains("missed") && !x.contains("\"unknown\""), "{x}");
    assert!(!y.contains("missed") && y.contains("\"unknown\""), "{y}");
}
