//! What contracts mean, row by row: events worked through by hand, run by `lacuna contracts run`
//! over a file, and all that it must say of them.
//!
//! Every row of [`table`] was worked out from the definitions in `docs/contracts.md`, not by running
//! it. Events stand one a line:
//!
//! ```text
//! 1 shop a 0-1.5 k=x amount=5       a span: number, service, name, start and end, attributes
//! 2 mail ~sent 3 k=x                a log record: number, service, text, time, attributes
//! ```
//!
//! Times are seconds after midnight, 1 January 2026 UTC; the number makes trace and span id. What is
//! to be told stands likewise: the verdicts, then every instance that is not fulfilled.
//!
//! ```text
//! 3: fulfilled 1, missed 2
//! missed [x] at 2 due 12 settled 12 traces 5,6 count=1
//! ```

mod edges;
mod mined;
mod table;

use std::io::Write;

use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use serde_json::{Map, Value, json};

use crate::support::otlp::{Encoding, attribute, log, logs, span, trace_id, traces};
use crate::support::server::run;

/// 2026-01-01T00:00:00Z.
const MIDNIGHT: i64 = 1_767_225_600;

/// One contract, what happened, and what is to be said of it.
pub struct Row {
    pub what: &'static str,
    /// The contract's fields but its name, one a line.
    pub contract: &'static str,
    pub events: &'static str,
    /// More options of the command.
    pub args: &'static [&'static str],
    pub told: &'static str,
}

/// Nanoseconds since the epoch.
fn nanos(seconds: &str) -> i64 {
    let (whole, part) = seconds.split_once('.').unwrap_or((seconds, ""));
    let whole: i64 = whole.parse().unwrap();
    (MIDNIGHT + whole) * 1_000_000_000 + format!("{part:0<9}").parse::<i64>().unwrap()
}

/// As reports write it.
pub fn time(seconds: &str) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(nanos(seconds))).unwrap().to_string()
}

/// Whole numbers, other numbers, else texts; `"5"` is a text.
fn typed(text: &str) -> Any {
    let number = text.parse().map(Any::IntValue);
    number
        .or_else(|_| text.parse().map(Any::DoubleValue))
        .unwrap_or_else(|_| Any::StringValue(text.trim_matches('"').to_owned()))
}

/// An event as a line of OTLP/JSON.
pub fn line(event: &str) -> Vec<u8> {
    let mut words = event.split_whitespace();
    let mut next = || words.next().unwrap_or_else(|| panic!("`{event}` is no event"));
    let (number, service, name, times) = (next().parse().unwrap(), next(), next(), next());
    let attributes: Vec<KeyValue> = words
        .map(|word| {
            let (key, value) = word.split_once('=').unwrap();
            let value = Some(AnyValue { value: Some(typed(value)) });
            KeyValue { value, ..attribute(key, "") }
        })
        .collect();
    if let Some(body) = name.strip_prefix('~') {
        let mut record = log(body, &[]);
        record.time_unix_nano = nanos(times).try_into().unwrap();
        record.observed_time_unix_nano = record.time_unix_nano;
        record.trace_id = trace_id(number).to_be_bytes().to_vec();
        record.attributes = attributes;
        return Encoding::Json.encode(&logs(service, vec![record]));
    }
    let (start, end) = times.split_once('-').unwrap();
    let mut span = span(number, name, nanos(start).try_into().unwrap(), &[]);
    span.end_time_unix_nano = nanos(end).try_into().unwrap();
    span.attributes = attributes;
    Encoding::Json.encode(&traces(service, vec![span]))
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

/// What a line says of an instance, as JSON.
fn instance(line: &str) -> Value {
    let (before, rest) = line.split_once('[').unwrap();
    let (key, rest) = rest.split_once(']').unwrap();
    let mut told = json!({
        "key": key.split(',').filter(|part| !part.is_empty()).collect::<Vec<_>>(),
        "verdict": before.trim(),
        "deadline": null,
        "resolved_at": null,
    });
    let mut figures = Map::new();
    let mut words = rest.split_whitespace();
    while let Some(word) = words.next() {
        let mut moment = |field: &str| told[field] = time(words.next().unwrap()).into();
        match word {
            "at" => moment("activated_at"),
            "due" => moment("deadline"),
            "settled" => moment("resolved_at"),
            "traces" => {
                let ids = words.next().unwrap().split(',').map(|n| n.parse().unwrap());
                told["trace_ids"] = ids.map(|n| format!("{:032x}", trace_id(n))).collect();
            }
            figure => {
                let (name, value) = figure.split_once('=').unwrap();
                figures.insert(name.to_owned(), value.parse::<f64>().unwrap().into());
            }
        }
    }
    told["figures"] = figures.into();
    told
}

/// What the program says of a row, and its exit status.
fn report(row: &Row) -> (Value, i32) {
    let dir = tempfile::tempdir().unwrap();
    let contract: String = lines(row.contract).map(|line| format!("    {line}\n")).collect();
    let (contracts, events) = (dir.path().join("c.yaml"), dir.path().join("events.jsonl"));
    std::fs::write(&contracts, format!("contracts:\n  - name: c\n{contract}")).unwrap();
    let mut file = std::fs::File::create(&events).unwrap();
    for event in lines(row.events) {
        file.write_all(&line(event)).unwrap();
        file.write_all(b"\n").unwrap();
    }
    let (contracts, events) = (contracts.to_str().unwrap(), events.to_str().unwrap());
    let args = ["contracts", "run", contracts, "--format", "json", "--input", events];
    let output = run(args.iter().chain(row.args));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = serde_json::from_slice(&output.stdout);
    let report = report.unwrap_or_else(|error| panic!("{}: {error}: {said}", row.what));
    (report, output.status.code().unwrap())
}

/// Runs a row; what is wrong with it.
fn hold(row: &Row) -> Vec<String> {
    let (report, status) = report(row);
    let contract = &report["contracts"][0];
    let mut told = lines(row.told);
    let (activations, verdicts) = told.next().unwrap().split_once(':').unwrap();
    let expected: Map<String, Value> = verdicts
        .split(',')
        .filter_map(|verdict| verdict.trim().split_once(' '))
        .map(|(verdict, count)| (verdict.to_owned(), count.parse::<u64>().unwrap().into()))
        .collect();
    let mut found = contract["verdicts"].as_object().unwrap().clone();
    found.retain(|_, count| *count != 0);
    let mut wrong = Vec::new();
    let mut compare = |what: &str, found: &Value, expected: &Value| {
        if found != expected {
            wrong.push(format!("{}: {what}: {found:#}\nbut should be {expected:#}", row.what));
        }
    };
    compare("activations", &contract["activations"], &activations.parse::<u64>().unwrap().into());
    let quiet = expected.keys().all(|v| ["fulfilled", "open", "unknown"].contains(&v.as_str()));
    compare("verdicts", &found.into(), &expected.into());
    compare("instances", &contract["instances"], &told.map(instance).collect());
    compare("exit status", &status.into(), &i32::from(!quiet).into());
    wrong
}

/// Guarantees: of every row, the activations, the verdicts, every instance that is not fulfilled with
/// its key, times, traces and figures, and the exit status are those that the definitions give.
#[test]
fn every_row_of_the_table_holds() {
    let rows = table::ROWS.iter().chain(edges::ROWS);
    let wrong: Vec<String> = rows.flat_map(hold).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Guarantees: a report is JSON of the promised shape, here spelt out in full.
#[test]
fn a_report_has_the_promised_shape() {
    let (report, status) = report(&Row {
        what: "shape",
        contract: "
            when:   '{ name = \"a\" }'
            expect: '{ name = \"b\" }'
            key:    [span.k]
            within: 10s",
        events: "
            1 shop a 1.25-2 k=7
            2 shop a 3-4 k=8
            3 bank b 4-5 k=8
            4 clock tick 20-20",
        args: &[],
        told: "",
    });
    assert_eq!(status, 1);
    let contract = &report["contracts"][0];
    assert_eq!(contract["name"], "c");
    assert_eq!(contract["kind"], "response");
    assert_eq!(contract["activations"], 2);
    assert_eq!(contract["verdicts"]["fulfilled"], 1);
    assert_eq!(
        contract["instances"],
        json!([{
            "key": ["7"],
            "verdict": "missed",
            "activated_at": "2026-01-01T00:00:01.25Z",
            "deadline": "2026-01-01T00:00:11.25Z",
            "resolved_at": "2026-01-01T00:00:11.25Z",
            "trace_ids": ["000000000000abcd0000000000000001"],
            "figures": {},
        }])
    );
    assert_eq!(report["data_end"], "2026-01-01T00:00:20Z");
}
