//! The store gives the same answers as looking at every span.

use bytes::Bytes;
use lacuna_signal::SignalKind;
use lacuna_store::{Options, Store};

use crate::harness::{LOGS, SPANS, Server, batch, logs_request, spans_request};

/// A trace that the store cuts off says so.
#[tokio::test]
async fn a_cut_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    options.trace_rows = 2;
    let store = Store::open(folder.path(), options).unwrap();
    let body = spans_request(SPANS);
    let rows = batch(SignalKind::Spans, body.clone());
    store.append_wait(SignalKind::Spans, Bytes::from(body), rows).unwrap();
    let server = Server::over(store);
    let whole = server.get("/api/traces/abc").await.data();
    assert!(whole[0]["warnings"].is_null());
    let cut = server.get("/api/traces/0af7651916cd43dd8448eb211c80319c").await.data();
    assert_eq!(cut[0]["spans"].as_array().unwrap().len(), 2);
    let warning = cut[0]["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with("only a part"), "{warning}");
}

#[tokio::test]
async fn the_store_answers_as_memory_does() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Options::default()).unwrap();
    for (kind, body) in
        [(SignalKind::Spans, spans_request(SPANS)), (SignalKind::Logs, logs_request(LOGS))]
    {
        let rows = batch(kind, body.clone());
        store.append_wait(kind, Bytes::from(body), rows).unwrap();
    }
    let (stored, memory) = (Server::over(store), Server::new());
    let range = "query.startTimeMin=2023-11-14T22:13:20Z&query.startTimeMax=2023-11-14T22:14:20Z";
    let service = "service=essay_lifecycle_service";
    let uris = [
        "/api/services".to_owned(),
        "/api/services/essay_lifecycle_service/operations".to_owned(),
        format!("/api/operations?{service}"),
        "/api/traces/0af7651916cd43dd8448eb211c80319c".to_owned(),
        "/api/traces/ffffffffffffffffffffffffffffffff".to_owned(),
        "/api/traces/1234".to_owned(),
        "/api/traces".to_owned(),
        "/api/traces?limit=1".to_owned(),
        format!("/api/traces?{service}&operation=redis.transaction.assign_slot_atomic"),
        format!("/api/traces?{service}&operation=db.*"),
        "/api/traces?service=file_service,essay_lifecycle_service".to_owned(),
        "/api/traces?tag=host.name:node-1&tag=process.pid:4711".to_owned(),
        "/api/traces?tag=failure.reason:concurrent_modification".to_owned(),
        "/api/traces?tag=error:true".to_owned(),
        "/api/traces?tag=error:false&minDuration=10ms&maxDuration=60ms".to_owned(),
        "/api/traces?tags=%7B%22redis.reply%22%3A%22JC0xDQo%3D%22%7D".to_owned(),
        "/api/traces?start=1700000010000000".to_owned(),
        "/api/traces?start=1700000010000001".to_owned(),
        "/api/dependencies".to_owned(),
        format!("/api/deep-dependencies?{service}"),
        format!(
            "/api/metrics/latencies?{service}&quantile=0.5&spanKind=client&step=60000&groupByOperation=true"
        ),
        "/api/metrics/calls?service=file_service&step=60000".to_owned(),
        format!("/api/v3/traces?{range}"),
        format!(
            "/api/v3/trace-summaries?{range}&query.attributes=%7B%22correlation_id%22%3A%22c-1%22%7D"
        ),
        "/api/v3/traces/abc".to_owned(),
    ];
    for uri in uris {
        let (stored, memory) = (stored.get(&uri).await, memory.get(&uri).await);
        assert_eq!(stored.status, memory.status, "{uri}");
        assert_eq!(stored.json(), memory.json(), "{uri}");
    }
}

/// Where segments say what their spans add up to, that is what reading the spans gives: to the call for
/// whole minutes, quantiles to 3.2 %.
#[tokio::test]
async fn sums_answer_as_spans_do() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    options.summary_rows = 0;
    let store = Store::open(folder.path(), options).unwrap();
    for json in [SPANS, UNNAMED] {
        let body = spans_request(json);
        let rows = batch(SignalKind::Spans, body.clone());
        store.append_wait(SignalKind::Spans, Bytes::from(body), rows).unwrap();
        store.flush().unwrap();
    }
    let few = tempfile::tempdir().unwrap();
    let read = Store::open(few.path(), Options::default()).unwrap();
    for json in [SPANS, UNNAMED] {
        let body = spans_request(json);
        let rows = batch(SignalKind::Spans, body.clone());
        read.append_wait(SignalKind::Spans, Bytes::from(body), rows).unwrap();
    }
    let (summed, read) = (Server::over(store), Server::over(read));
    let dependencies = read.get("/api/dependencies").await.data();
    assert!(!dependencies.as_array().unwrap().is_empty());
    assert_eq!(summed.get("/api/dependencies").await.data(), dependencies);
    let window = "endTs=1700000100000&lookback=600000&step=60000&ratePer=120000";
    let services = "service=essay_lifecycle_service&service=OTLPResourceNoServiceName\
                    &service=file_service&spanKind=client&spanKind=server&spanKind=internal";
    for what in ["calls", "errors", "latencies"] {
        let uri =
            format!("/api/metrics/{what}?{services}&{window}&quantile=0.95&groupByOperation=true");
        let (summed, read) = (summed.get(&uri).await.json(), read.get(&uri).await.json());
        if what != "latencies" {
            assert_eq!(summed, read);
            continue;
        }
        let values = |family: &serde_json::Value| -> Vec<serde_json::Value> {
            let metrics = family["metrics"].as_array().unwrap().iter();
            let points = metrics.flat_map(|metric| metric["metricPoints"].as_array().unwrap());
            points.map(|point| point["gaugeValue"]["doubleValue"].clone()).collect()
        };
        let (summed, read) = (values(&summed), values(&read));
        assert!(read.iter().any(serde_json::Value::is_number));
        assert_eq!(summed.len(), read.len());
        for (summed, read) in summed.iter().zip(&read) {
            match (summed.as_f64(), read.as_f64()) {
                (Some(summed), Some(read)) => assert!((summed - read).abs() <= read / 32.0 + 1e-6),
                _ => assert_eq!(summed, read),
            }
        }
    }
}

/// Spans without `service.name`, with other resource attributes or none.
const UNNAMED: &str = r#"{"resourceSpans":[
  {"scopeSpans":[{"spans":[{"traceId":"000000000000000000000000000000aa","spanId":"00000000000000aa",
    "name":"nameless","startTimeUnixNano":"1700000020000000000","endTimeUnixNano":"1700000020001000000"}]}]},
  {"resource":{"attributes":[{"key":"host.name","value":{"stringValue":"h"}}]},
   "scopeSpans":[{"spans":[{"traceId":"000000000000000000000000000000bb","spanId":"00000000000000bb",
    "name":"hosted","kind":2,"startTimeUnixNano":"1700000030000000000","endTimeUnixNano":"1700000030001000000"}]}]}]}"#;

/// What is shown as a service is listed as one, and found by that name.
#[tokio::test]
async fn spans_without_a_service_are_found_by_the_name_they_are_shown_with() {
    const NAME: &str = "OTLPResourceNoServiceName";
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Options::default()).unwrap();
    for json in [SPANS, UNNAMED] {
        let body = spans_request(json);
        let rows = batch(SignalKind::Spans, body.clone());
        store.append_wait(SignalKind::Spans, Bytes::from(body), rows).unwrap();
    }
    let server = Server::over(store);
    for path in ["/api/services", "/api/v3/services"] {
        assert!(server.get(path).await.text.contains(NAME), "{path}");
    }
    let operations = server.get(&format!("/api/services/{NAME}/operations")).await.data();
    assert_eq!(operations, serde_json::json!(["hosted", "nameless"]));
    let found = server.get(&format!("/api/traces?service={NAME}")).await;
    assert_eq!(found.trace_ids(), ["00000000000000bb", "00000000000000aa"]);
    for trace in found.data().as_array().unwrap() {
        assert_eq!(trace["processes"]["p1"]["serviceName"], NAME);
    }
    let named = server.get(&format!("/api/traces?service={NAME}&operation=hosted")).await;
    assert_eq!(named.trace_ids(), ["00000000000000bb"]);
    let range = "query.startTimeMin=2023-11-14T22:13:20Z&query.startTimeMax=2023-11-14T22:14:20Z";
    let uri = format!("/api/v3/trace-summaries?{range}&query.serviceName={NAME}");
    let summaries = server.get(&uri).await.json();
    assert_eq!(summaries["summaries"][0]["rootServiceName"], NAME);
    assert_eq!(summaries["summaries"][0]["services"][0]["name"], NAME);
    let calls = server.get(&format!("/api/metrics/calls?service={NAME}&step=60000")).await.json();
    assert_eq!(calls["metrics"][0]["labels"][0]["value"], NAME);
}

/// A search that meets damage finds the rest, and says that something may be missing.
#[tokio::test]
async fn damage_is_a_warning_of_a_search() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Store::open(folder.path(), Options::default()).unwrap();
    let store = open();
    // Enough that its foot, without which nothing of it is served, is not what gets damaged.
    let span = |id: u128| {
        let noise = (id + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        format!(
            r#"{{"traceId":"{id:032x}","spanId":"{:016x}","name":"many","startTimeUnixNano":
            "1700000010000000000","attributes":[{{"key":"k","value":{{"stringValue":"{:x}"}}}}]}}"#,
            id as u64,
            noise.wrapping_mul(noise)
        )
    };
    let many: Vec<String> = (0x1000..0x8000).map(span).collect();
    let many =
        format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{}]}}]}}]}}"#, many.join(","));
    for json in [&many, UNNAMED] {
        let body = spans_request(json);
        let rows = batch(SignalKind::Spans, body.clone());
        store.append_wait(SignalKind::Spans, Bytes::from(body), rows).unwrap();
        store.flush().unwrap();
    }
    store.close();
    drop(store);
    let mut segments: Vec<_> = std::fs::read_dir(folder.path().join("segments"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "parquet"))
        .collect();
    segments.sort();
    let mut bytes = std::fs::read(&segments[0]).unwrap();
    bytes[100] ^= 0x55;
    std::fs::write(&segments[0], bytes).unwrap();
    let server = Server::over(open());
    let found = server.get("/api/traces?limit=10").await.json();
    let note = found["errors"][0]["msg"].as_str().unwrap_or_default();
    assert!(note.starts_with("a part may be missing"), "{found}");
    assert!(found["data"].as_array().unwrap().len() >= 2);
    let range = "query.startTimeMin=2023-11-14T22:13:20Z&query.startTimeMax=2023-11-14T22:14:20Z";
    let times = "startTime=2023-11-14T22:13:20Z&endTime=2023-11-14T22:14:20Z";
    let service = "service=OTLPResourceNoServiceName";
    for uri in [
        format!("/api/v3/traces?{range}&query.searchDepth=10"),
        format!("/api/v3/trace-summaries?{range}&query.searchDepth=10"),
        format!("/api/v3/dependencies?{times}"),
        format!("/api/deep-dependencies?{service}"),
    ] {
        let found = server.get(&uri).await.json();
        let warning = found["warnings"][0].as_str().unwrap_or_default();
        assert!(warning.starts_with("a part may be missing"), "{uri}: {found}");
    }
    let edges = server.get("/api/dependencies").await.json();
    let note = edges["errors"][0]["msg"].as_str().unwrap_or_default();
    assert!(note.starts_with("a part may be missing"), "{edges}");
}
