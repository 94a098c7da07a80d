//! Limits: what happens when one takes effect, that it is counted, and that nothing acknowledged
//! is changed or lost by it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tonic::Code;

use crate::support::eventually;
use crate::support::export::Exported;
use crate::support::grpc;
use crate::support::otlp::{Encoding, SECOND, compress, headers, now, span, traces};
use crate::support::server::{Serve, Server, run};

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

fn request(spans: Vec<Span>) -> Vec<u8> {
    traces("worker", spans).encode_to_vec()
}

async fn limited(server: &Server, limit: &str) -> f64 {
    let series = format!("lacuna_ingest_limited_total{{signal=\"spans\",limit=\"{limit}\"}}");
    server.metric(&series).await
}

/// Guarantees: a request too large as it comes, or after decompression, is refused for good by
/// HTTP and gRPC, and each is counted by its limit.
#[tokio::test]
async fn sizes_are_limited_before_and_after_decompression() {
    let data = tempfile::tempdir().unwrap();
    let flags = ["--max-body", "64KiB", "--max-decompressed", "256KiB"];
    let server = Serve::on(data.path()).args(&flags).start();
    let named = |length| request(vec![span(1, &"x".repeat(length), now(), &[])]);
    let send = async |compression, body| {
        server.send("traces", &headers(Encoding::Protobuf, compression), body).await
    };
    assert_eq!(send("identity", named(60 << 10)).await.status, 200);
    assert_eq!(send("gzip", compress("gzip", &named(200 << 10))).await.status, 200);
    let large = send("identity", named(100 << 10)).await;
    assert_eq!(large.status, 413);
    assert!(large.header("retry-after").is_empty());
    assert_eq!(limited(&server, "body").await, 1.0);
    assert_eq!(send("gzip", compress("gzip", &named(300 << 10))).await.status, 413);
    assert_eq!(limited(&server, "decompressed").await, 1.0);

    grpc::call(&server.grpc, EXPORT, named(60 << 10)).await.unwrap();
    for length in [100 << 10, 300 << 10] {
        let error = grpc::call(&server.grpc, EXPORT, named(length)).await.unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted, "{error:?}");
        assert!(error.details().is_empty(), "{error:?}");
        assert!(error.message().contains("bytes"), "{error:?}");
    }
    assert_eq!(limited(&server, "body").await, 3.0);
    assert_eq!(server.metric("lacuna_ingest_items_total{signal=\"spans\"}").await, 3.0);
}

fn texts(spans: &[Span]) -> Vec<(String, String)> {
    let attributes = spans.iter().flat_map(|span| &span.attributes);
    attributes
        .map(|attribute| match attribute.value.as_ref().unwrap().value.as_ref().unwrap() {
            Value::StringValue(text) => (attribute.key.clone(), text.clone()),
            other => panic!("{other:?}"),
        })
        .collect()
}

/// Scenario: a span with too many attributes, one of them too long; the server killed and started
/// without limits.
/// Guarantees: the sender is told, it is counted, and what was acknowledged comes back as it was.
#[tokio::test]
async fn attributes_are_limited_once_and_for_all() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--max-attributes", "3", "--max-attribute-length", "8B"];
    let server = Serve::on(dir.path()).args(&flags).start();
    let attributes = [("a", "short"), ("b", "naïve naïve"), ("c", "3"), ("d", "4"), ("e", "5")];
    let body = request(vec![span(1, "work", now() - SECOND, &attributes)]);
    let small = Encoding::Json
        .encode(&traces("worker", vec![span(2, "work", now() - SECOND, &[("a", "b")])]));
    let json = headers(Encoding::Json, "identity");
    let answer = server.send("traces", &json, small).await.ok();
    assert_eq!(answer.json(), serde_json::json!({}));
    let protobuf = headers(Encoding::Protobuf, "identity");
    let answer = server.send("traces", &protobuf, body).await.ok();
    let told = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(told.contains("2 attributes dropped; 1 values cut"), "{told}");
    assert_eq!(limited(&server, "attributes").await, 2.0);
    assert_eq!(limited(&server, "attribute_length").await, 1.0);
    let path = format!("/api/v3/traces/{:032x}", crate::support::otlp::trace_id(1));
    let before = server.json(&path).await;
    server.kill();

    let server = Serve::on(dir.path()).start();
    assert_eq!(server.json(&path).await, before);
    server.kill();
    let spans: Vec<Span> = Exported::of(dir.path()).spans().cloned().collect();
    let mut found = texts(&spans);
    found.sort();
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let expected = [pair("a", "b"), pair("a", "short"), pair("b", "naïve n"), pair("c", "3")];
    assert_eq!(found, expected);
}

/// `google.rpc.RetryInfo` in the details of a status: its delay in seconds.
fn retry_info(details: &[u8]) -> Option<i64> {
    #[derive(prost::Message)]
    struct Delay {
        #[prost(int64, tag = "1")]
        seconds: i64,
    }
    #[derive(prost::Message)]
    struct RetryInfo {
        #[prost(message, optional, tag = "1")]
        retry_delay: Option<Delay>,
    }
    #[derive(prost::Message)]
    struct Any {
        #[prost(string, tag = "1")]
        type_url: String,
        #[prost(bytes = "vec", tag = "2")]
        value: Vec<u8>,
    }
    #[derive(prost::Message)]
    struct RpcStatus {
        #[prost(message, repeated, tag = "3")]
        details: Vec<Any>,
    }
    let status = RpcStatus::decode(details).unwrap();
    let info = status.details.into_iter().next()?;
    assert_eq!(info.type_url, "type.googleapis.com/google.rpc.RetryInfo");
    Some(RetryInfo::decode(&*info.value).unwrap().retry_delay?.seconds)
}

/// Scenario: the disk budget is used up; then the server is started with a larger one.
/// Guarantees: refusals say when to come again, by HTTP and gRPC; all that was acknowledged is
/// there; with room, requests are taken again.
#[tokio::test]
async fn a_full_disk_budget_asks_to_come_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = Serve::on(dir.path()).args(&["--disk-limit", "100KiB"]).start();
    // The log is compressed, so the text must be one that cannot be.
    let noise = |id: u64| -> String {
        let numbers = (0..640).map(|i| (id * 640 + i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        numbers
            .map(|n| format!("{:016x}", (n ^ n >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)))
            .collect()
    };
    let body = |id| request(vec![span(id, &noise(id), now() - SECOND, &[])]);
    let protobuf = headers(Encoding::Protobuf, "identity");
    let mut acknowledged = 0;
    let refused = loop {
        let answer = server.send("traces", &protobuf, body(acknowledged + 1)).await;
        if answer.status != 200 {
            break answer;
        }
        acknowledged += 1;
        assert!(acknowledged < 20, "the limit never took effect");
    };
    assert!(acknowledged > 3);
    assert_eq!(refused.status, 429);
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    let error = grpc::call(&server.grpc, EXPORT, body(99)).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(retry_info(error.details()).unwrap() >= 1);
    let disk = server.metric("lacuna_store_disk_bytes").await;
    assert!((30_000.0..110_000.0).contains(&disk), "{disk}");
    server.kill();
    let server = Serve::on(dir.path()).start();
    assert_eq!(server.send("traces", &protobuf, body(100)).await.status, 200);
    assert!(server.stop().await.success());
    assert_eq!(Exported::of(dir.path()).spans().count() as u64, acknowledged + 1);
}

/// Scenario: a small memory limit; senders that send as fast as they can, several times the limit
/// in all, and wait when they are told to; then kill -9.
/// Guarantees: the process stays below its limit and what it needs at rest (its code, threads, what the
/// allocator has ready), every request is taken in the end, and all
/// of them are there after the kill.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_stays_bounded_and_nothing_is_lost() {
    const SENDERS: u64 = 4;
    const REQUESTS: u64 = 15;
    const SPANS: u64 = 1000;
    const LIMIT: u64 = 64 << 20;
    let dir = tempfile::tempdir().unwrap();
    let server = Arc::new(Serve::on(dir.path()).args(&["--memory-limit", "64MiB"]).start());
    let at_rest = server.peak_memory();
    let waits = Arc::new(AtomicU64::new(0));
    let senders = (0..SENDERS).map(|sender| {
        let (server, waits) = (Arc::clone(&server), Arc::clone(&waits));
        tokio::spawn(async move {
            for number in 0..REQUESTS {
                let first = (sender * REQUESTS + number) * SPANS;
                // About 2.5 KB a span, 150 MB in all.
                let filler: Vec<String> = (0..10).map(|i| format!("{i:0240}{first}")).collect();
                let keys: Vec<String> = (0..10).map(|i| format!("key.{i}")).collect();
                let spans = (first + 1..=first + SPANS).map(|id| {
                    let pairs = keys.iter().zip(&filler);
                    let pairs: Vec<_> = pairs.map(|(k, v)| (k.as_str(), v.as_str())).collect();
                    span(id, "work", now() - SECOND, &pairs)
                });
                let body = request(spans.collect());
                let headers = headers(Encoding::Protobuf, "identity");
                loop {
                    let answer = server.send("traces", &headers, body.clone()).await;
                    if answer.status == 200 {
                        break;
                    }
                    assert_eq!(answer.status, 429, "{:?}", answer.body);
                    assert!(!answer.header("retry-after").is_empty());
                    waits.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        })
    });
    for sender in senders.collect::<Vec<_>>() {
        sender.await.unwrap();
    }
    let peak = server.peak_memory();
    let waits = waits.load(Ordering::Relaxed);
    println!("at rest {} MiB, peak {} MiB, {waits} refusals", at_rest >> 20, peak >> 20);
    assert!(peak < LIMIT + at_rest, "{} MiB", peak >> 20);
    let Ok(server) = Arc::try_unwrap(server) else { panic!("a sender still has it") };
    server.kill();
    let server = Serve::on(dir.path()).start();
    assert!(server.stop().await.success());
    let args = ["store", "stats", "--format", "json", "--data"].map(AsRef::as_ref).into_iter();
    let stats = run(args.chain([dir.path().as_os_str()]));
    let stats: serde_json::Value = serde_json::from_slice(&stats.stdout).unwrap();
    let rows = |place: &str| stats["kinds"][0][place].as_u64().unwrap();
    let stored = rows("memory_rows") + rows("segment_rows");
    assert_eq!(stored, SENDERS * REQUESTS * SPANS);
}

/// Scenario: 30 senders at once, half of them JSON over HTTP and half protobuf over gRPC, each with a
/// request of 6 MB: together far more than the part of the limit that is for telemetry.
/// Guarantees: room is taken before a request is read, so the process stays below its limit and what
/// it needs at rest; who is refused is told to come again; all of it is taken in the end.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_large_requests_at_once_stay_within_the_limit() {
    const SENDERS: u64 = 30;
    const SPANS: u64 = 2400;
    const LIMIT: u64 = 256 << 20;
    let dir = tempfile::tempdir().unwrap();
    let server = Arc::new(Serve::on(dir.path()).args(&["--memory-limit", "256MiB"]).start());
    let at_rest = server.peak_memory();
    let keys: Vec<String> = (0..10).map(|i| format!("key.{i}")).collect();
    let spans = (1..=SPANS).map(|id| {
        let values: Vec<String> = (0..10).map(|i| format!("{i:0240}{id}")).collect();
        let pairs: Vec<_> =
            keys.iter().zip(&values).map(|(k, v)| (k.as_str(), v.as_str())).collect();
        span(id, "work", now() - SECOND, &pairs)
    });
    let request = traces("worker", spans.collect());
    let (json, protobuf) = (Encoding::Json.encode(&request), request.encode_to_vec());
    let waits = Arc::new(AtomicU64::new(0));
    let senders = (0..SENDERS).map(|sender| {
        let (server, waits) = (Arc::clone(&server), Arc::clone(&waits));
        let (json, protobuf) = (json.clone(), protobuf.clone());
        tokio::spawn(async move {
            loop {
                let taken = if sender % 2 == 0 {
                    let headers = headers(Encoding::Json, "identity");
                    let answer = server.send("traces", &headers, json.clone()).await;
                    assert!([200, 429].contains(&answer.status), "{:?}", answer.body);
                    assert!(answer.status == 200 || !answer.header("retry-after").is_empty());
                    answer.status == 200
                } else {
                    match grpc::call(&server.grpc, EXPORT, protobuf.clone()).await {
                        Ok(_) => true,
                        Err(status) => {
                            assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
                            assert!(!status.details().is_empty(), "{status:?}");
                            false
                        }
                    }
                };
                if taken {
                    break;
                }
                waits.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        })
    });
    for sender in senders.collect::<Vec<_>>() {
        sender.await.unwrap();
    }
    let peak = server.peak_memory();
    let waits = waits.load(Ordering::Relaxed);
    println!("at rest {} MiB, peak {} MiB, {waits} refusals", at_rest >> 20, peak >> 20);
    assert!(waits > 0);
    assert!(peak < LIMIT + at_rest, "{} MiB", peak >> 20);
    let items = server.metric("lacuna_ingest_items_total{signal=\"spans\"}").await;
    assert_eq!(items, (SENDERS * SPANS) as f64);
}

/// Scenario: a day of spans from long ago, imported; a server that keeps an hour.
/// Guarantees: what is older goes, is counted, and the disk is given back.
#[tokio::test]
async fn retention_removes_what_is_old() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let file = dir.path().join("old.pb");
    let old = now() - 48 * 3600 * SECOND;
    let body = request((1..=50).map(|id| span(id, "work", old, &[])).collect());
    std::fs::write(&file, [&(body.len() as u32).to_be_bytes(), &body[..]].concat()).unwrap();
    let import = ["import".as_ref(), "--data".as_ref(), data.as_os_str(), file.as_os_str()];
    assert!(run(import).status.success());
    let server = Serve::on(&data).args(&["--retention-age", "1h"]).start();
    eventually("old spans are removed", async || {
        (server.metric("lacuna_store_segment_bytes").await == 0.0).then_some(())
    })
    .await;
    assert_eq!(server.metric("lacuna_store_rows_expired_total").await, 50.0);
}
