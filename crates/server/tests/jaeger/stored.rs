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
