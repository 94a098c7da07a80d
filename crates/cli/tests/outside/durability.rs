//! kill -9: nothing that was acknowledged is lost.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::trace::v1::Span;

use crate::support::answers::v1_spans;
use crate::support::export::Exported;
use crate::support::http::Http;
use crate::support::otlp::{
    Encoding, MILLI, compress, headers, log, logs, metrics, now, span, traces,
};
use crate::support::server::{Serve, Server};

const ROUNDS: u64 = 5;
const SENDERS: u64 = 4;
/// Enough to be under way when the kill comes; a bound, so that a slow kill does not make the
/// answers larger than a search gives.
const REQUESTS: u64 = 200;

/// What was sent, and what of it was acknowledged: `span ID`, bodies of logs, names of metrics.
#[derive(Default)]
struct Book {
    sent: BTreeSet<String>,
    acknowledged: BTreeSet<String>,
}

impl Book {
    fn acknowledge(&mut self, items: &[String]) {
        self.acknowledged.extend(items.iter().cloned());
    }
}

/// A random number of milliseconds up to `most`.
fn random_millis(most: u64) -> u64 {
    RandomState::new().hash_one(0) % (most + 1)
}

/// One connection: sends spans, logs and points in turn until the server is gone. Senders differ
/// in transport, encoding and batch size.
async fn send(round: u64, sender: u64, grpc: String, otlp: String, book: Arc<Mutex<Book>>) {
    let service = format!("sender-{sender}");
    let http = Http::new();
    // The server may be killed before the connection is made.
    let Ok(mut trace_client) = TraceServiceClient::connect(grpc.clone()).await else { return };
    let Ok(mut log_client) = LogsServiceClient::connect(grpc).await else { return };
    for request in 0..REQUESTS {
        let place = (round << 40) | (sender << 32) | (request << 8);
        let ids: Vec<u64> = (1..=1 + sender * 3).map(|i| place | i).collect();
        let start = now() - 10 * MILLI;
        let mut spans: Vec<_> = ids.iter().map(|id| span(*id, "work", start, &[])).collect();
        let first = spans[0].trace_id.clone();
        spans.iter_mut().for_each(|span| span.trace_id.clone_from(&first));
        let spans = traces(&service, spans);
        let span_ids: Vec<String> = ids.iter().map(|id| format!("span {id:016x}")).collect();
        let body = format!("log {place:x}");
        let records = logs(&service, vec![log(&body, &[])]);
        let metric = format!("metric-{place:x}");
        let points = metrics(&service, &metric);
        {
            let mut book = book.lock().unwrap();
            book.sent.extend(span_ids.iter().cloned());
            book.sent.extend([body.clone(), format!("{metric}.depth"), format!("{metric}.taken")]);
        }
        let (encoding, compression) =
            if sender == 1 { (Encoding::Json, "gzip") } else { (Encoding::Protobuf, "zstd") };
        let headers = headers(encoding, compression);
        let post = |signal: &str, body: Vec<u8>| {
            let url = format!("{otlp}/v1/{signal}");
            let (http, headers) = (http.clone(), headers.clone());
            async move {
                let body = compress(compression, &body);
                let answer = http.send(http::Method::POST, &url, &headers, body).await.ok()?;
                assert_eq!(answer.status, 200, "{:?}", answer.body);
                Some(())
            }
        };
        let done = match sender {
            0 | 1 => post("traces", encoding.encode(&spans)).await,
            _ => trace_client.export(spans).await.ok().map(drop),
        };
        let Some(()) = done else { return };
        book.lock().unwrap().acknowledge(&span_ids);
        let done = match sender {
            0 | 1 => post("logs", encoding.encode(&records)).await,
            _ => log_client.export(records).await.ok().map(drop),
        };
        let Some(()) = done else { return };
        book.lock().unwrap().acknowledge(&[body]);
        let Some(()) = post("metrics", encoding.encode(&points)).await else { return };
        book.lock().unwrap().acknowledge(&[format!("{metric}.depth"), format!("{metric}.taken")]);
    }
}

/// All spans that the server has of the senders.
async fn stored_spans(server: &Server) -> BTreeSet<String> {
    let mut spans = BTreeSet::new();
    for sender in 0..SENDERS {
        let path = format!("/api/traces?service=sender-{sender}&limit=10000");
        let found = v1_spans(&server.json(&path).await);
        spans.extend(found.iter().map(|id| format!("span {id}")));
    }
    spans
}

#[track_caller]
fn assert_subset(part: &BTreeSet<String>, whole: &BTreeSet<String>, what: &str) {
    let missing: Vec<_> = part.difference(whole).take(5).collect();
    assert!(missing.is_empty(), "{what}: {missing:?} and perhaps more");
}

/// Scenario: four connections send, by HTTP and gRPC; the server is killed at a random moment;
/// it is started again on the same folder; and so on.
/// Guarantees: after every restart each acknowledged span is found, and nothing that was not sent;
/// in the end the export holds each acknowledged log record and metric point too, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let book = Arc::new(Mutex::new(Book::default()));
    for round in 0..ROUNDS {
        let server = Serve::on(&data).start();
        assert_spans_kept(&server, &book, round).await;
        let before = book.lock().unwrap().acknowledged.len();
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let (grpc, otlp) = (server.grpc.clone(), server.otlp.clone());
                tokio::spawn(send(round, sender, grpc, otlp, Arc::clone(&book)))
            })
            .collect();
        // Not before something is acknowledged, or a slow machine would test nothing.
        crate::support::eventually("an acknowledgement", || async {
            (book.lock().unwrap().acknowledged.len() > before).then_some(())
        })
        .await;
        tokio::time::sleep(Duration::from_millis(random_millis(250))).await;
        server.kill();
        for sender in senders {
            sender.await.unwrap();
        }
    }
    let server = Serve::on(&data).start();
    assert_spans_kept(&server, &book, ROUNDS).await;
    assert_eq!(server.metric("lacuna_store_corruptions_total").await, 0.0);
    server.kill();
    assert_exported(&data, &book.lock().unwrap());
}

async fn assert_spans_kept(server: &Server, book: &Mutex<Book>, round: u64) {
    let stored = stored_spans(server).await;
    let book = book.lock().unwrap();
    let spans =
        book.acknowledged.iter().filter(|item| item.starts_with("span ")).cloned().collect();
    assert_subset(&spans, &stored, &format!("lost before round {round}"));
    assert_subset(&stored, &book.sent, &format!("made up before round {round}"));
}

fn assert_exported(data: &Path, book: &Book) {
    let exported = Exported::of(data);
    let id = |span: &Span| u64::from_be_bytes(span.span_id[..].try_into().unwrap());
    let spans = exported.spans().map(|span| format!("span {:016x}", id(span)));
    let mut items: Vec<String> = spans.collect();
    items.extend(exported.log_bodies());
    items.extend(exported.metric_names());
    let count = items.len();
    let items: BTreeSet<String> = items.into_iter().collect();
    assert_eq!(items.len(), count, "something is exported twice");
    assert_subset(&book.acknowledged, &items, "lost in the end");
    assert_subset(&items, &book.sent, "made up in the end");
}

/// Scenario: the server is killed while it starts, again and again.
/// Guarantees: what was kept before is there at last.
#[tokio::test]
async fn kills_during_start_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Serve::on(dir.path()).start();
    let spans: Vec<_> = (1..=500).map(|id| span(id, "work", now() - 10 * MILLI, &[])).collect();
    let body = Encoding::Protobuf.encode(&traces("early", spans));
    server.send("traces", &headers(Encoding::Protobuf, "identity"), body).await.ok();
    server.kill();
    for _ in 0..5 {
        Serve::on(dir.path()).kill_after(Duration::from_millis(random_millis(40)));
    }
    let server = Serve::on(dir.path()).start();
    let found = server.json("/api/traces?service=early&limit=1000").await;
    assert_eq!(v1_spans(&found).len(), 500);
}

/// Guarantees: a clean stop keeps everything, answers with status 0 and lets the folder be used
/// again at once.
#[tokio::test]
async fn a_clean_stop_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    for round in 1..=3 {
        let server = Serve::on(dir.path()).start();
        let body = traces("steady", vec![span(round, "work", now() - 10 * MILLI, &[])]);
        let headers = headers(Encoding::Protobuf, "identity");
        server.send("traces", &headers, Encoding::Protobuf.encode(&body)).await.ok();
        let found = server.json("/api/traces?service=steady").await;
        assert_eq!(v1_spans(&found).len() as u64, round);
        assert_eq!(server.stop().await.code(), Some(0));
    }
}
