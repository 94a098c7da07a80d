//! Large traces, many of them, and large answers.

use http::StatusCode;
use lacuna_signal::SignalKind;
use lacuna_signal::otlp::{decode, decode_json};
use lacuna_store::{Options, Store};
use serde_json::{Value, json};

use crate::{Answer, START, Span, append, filled, get, query, request};

/// A query of a trace that was not read whole says so: what it says is missing may be there.
#[tokio::test]
async fn a_trace_of_which_a_part_is_read_is_told() {
    let mut options = Options::default();
    options.trace_rows = 1;
    let (_folder, store) = filled(options);
    let found = query(&store, "{ name = \"pay\" } !<< { name =~ \"GET.*\" }").await.json();
    let warnings = found["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1, "{found}");
    let said = warnings[0].as_str().unwrap();
    assert!(said.starts_with(&format!("trace {:032x} has more than the 1 spans", 1)), "{said}");
    let trace = get(&store, &format!("/api/v2/traces/{:032x}", 1)).await.json();
    assert_eq!(trace["status"], "PARTIAL");
    assert!(trace["message"].as_str().unwrap().contains("only a part"), "{trace}");
}

/// A match that is known without the whole trace is listed, wherever in it it lies.
#[tokio::test]
async fn a_match_in_what_is_not_read_of_a_large_trace_is_found() {
    let mut options = Options::default();
    options.trace_rows = 3;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), options).unwrap();
    let span = |i: u64| {
        let name = if i >= 18 { "late" } else { "early" };
        Span(1, i + 1, (i > 0).then_some(1), name, i, 1, json!({"n": i.to_string()}))
    };
    let spans: Vec<Span> = (0..20).map(span).collect();
    append(&store, &request("web", &spans));
    for (q, matched, cut) in [
        ("{ name = \"late\" }", Some(2), false),
        ("{ span.n = \"19\" || name = \"never\" }", Some(1), false),
        ("{ name = \"late\" } || { span.n = \"0\" }", Some(3), false),
        ("{ name = \"late\" } && { span.n = \"5\" }", Some(3), false),
        ("{ name = \"late\" } && { name = \"never\" }", None, false),
        ("{ name = \"never\" }", None, false),
        // Known by the part that is read, or not to be known.
        ("{ } > { name = \"early\" }", Some(2), false),
        ("{ } > { name = \"late\" }", None, true),
    ] {
        let found = query(&store, q).await.json();
        let set = &found["traces"][0]["spanSet"];
        assert_eq!(set["matched"].as_u64(), matched, "{q}: {found}");
        assert_eq!(found["cut"], cut, "{q}: {found}");
        if matched.is_some() {
            assert!(!set["spans"].as_array().unwrap().is_empty(), "{q}: {found}");
        }
    }
    let found = query(&store, "{ name = \"late\" }").await.json();
    assert_eq!(found["traces"][0]["rootTraceName"], "early");
    assert_eq!(found["traces"][0]["durationMs"], 20);
    assert!(found["warnings"][0].as_str().unwrap().contains("the spans found are of all"));
}

/// A trace that was seen does not come again with each of its spans, and of two sides of `&&` the
/// rarer finds the candidates.
#[tokio::test]
async fn a_search_reads_no_trace_twice_nor_every_span_for_each_page() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Options::default()).unwrap();
    let span = |i: u64| {
        let (trace, rare) = (i % 120 + 1, if i == 7 { "rare" } else { "many" });
        Span(trace, i + 1, None, rare, i, 1, Value::Null)
    };
    let spans: Vec<Span> = (0..24_000).map(span).collect();
    append(&store, &request("web", &spans));
    store.flush().unwrap();
    let before = store.counters().rows_read;
    let found = query(&store, "{ } >> { name = \"many\" }").await.json();
    assert_eq!(found["metrics"]["inspectedTraces"], 120);
    // Two pages of candidates, and the traces themselves.
    let read = store.counters().rows_read - before;
    assert!(read <= 5 * 24_000, "{read} rows were read");
    for q in ["{ } && { name = \"rare\" }", "{ name = \"rare\" } && { }"] {
        let found = query(&store, q).await.json();
        assert_eq!(found["metrics"]["inspectedTraces"], 1, "{q}: {found}");
        assert_eq!(found["traces"][0]["spanSet"]["matched"], 200, "{q}: {found}");
    }
}

/// Many traces, many spans of each: the limits of the answer hold.
#[tokio::test]
async fn an_answer_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Options::default()).unwrap();
    let spans: Vec<Span> =
        (0..300).map(|i| Span(i % 30 + 1, i + 1, None, "many", i, 1, Value::Null)).collect();
    append(&store, &request("web", &spans));
    let found =
        get(&store, "/api/search?q=%7B%20%7D%20%26%26%20%7B%20%7D&limit=7&spss=2").await.json();
    let traces = found["traces"].as_array().unwrap();
    assert_eq!((traces.len(), &found["cut"]), (7, &json!(true)));
    for trace in traces {
        assert_eq!(trace["spanSet"]["spans"].as_array().unwrap().len(), 2);
        assert_eq!(trace["spanSet"]["matched"], 10);
    }
}

/// Answers keep to the memory for answers: cut, and said so, or refused for the moment.
#[tokio::test]
async fn answers_keep_to_their_memory() {
    let mut options = Options::default();
    options.query_bytes = 1 << 20;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), options).unwrap();
    let text = "x".repeat(4096);
    let record = |i: u64| json!({"timeUnixNano": (START + i).to_string(), "body": {"stringValue": format!("{i} {text}")}});
    let records: Vec<Value> = (0..2_000).map(record).collect();
    let logs = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]});
    let (body, _) = decode_json(SignalKind::Logs, &serde_json::to_vec(&logs).unwrap()).unwrap();
    let rows = decode(SignalKind::Logs, body.clone()).unwrap().batch;
    store.append_wait(SignalKind::Logs, body, rows).unwrap();
    let spans: Vec<Span> = (0..500)
        .map(|i| Span(1, i + 1, None, "many", i, 1, json!({"text": format!("{i} {text}")})))
        .collect();
    append(&store, &request("web", &spans));

    for format in ["json", "otlp"] {
        let path = format!("/api/v1/logs?limit=2000&format={format}");
        let found = get(&store, &path).await.json();
        assert_eq!(found["cut"], true, "{format}");
        let list = match format {
            "json" => &found["logs"],
            _ => &found["resourceLogs"][0]["scopeLogs"][0]["logRecords"],
        };
        let list = list.as_array().unwrap();
        assert!((20..300).contains(&list.len()), "{format}: {}", list.len());
    }
    let few = get(&store, "/api/v1/logs?limit=2").await.json();
    assert!(few["logs"][0]["body"].as_str().unwrap().starts_with("1999 "));
    let trace = get(&store, "/api/v2/traces/1").await.json();
    assert_eq!(trace["status"], "PARTIAL");
    assert_eq!(store.answering_bytes(), 0, "all was given back");
    // Another answer has it all.
    let other = store.question().unwrap();
    assert!(other.hold((1 << 20) - 100));
    for path in ["/api/v1/logs", "/api/search", "/api/v2/traces/1", "/api/v2/search/tags"] {
        let Answer(status, body) = get(&store, path).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{path}: {body:?}");
        assert!(String::from_utf8_lossy(&body).contains("the memory for answers is used up"));
    }
    drop(other);
    assert_eq!(get(&store, "/api/search").await.0, StatusCode::OK);
}
