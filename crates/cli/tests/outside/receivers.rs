//! What receivers take beside plain OTLP: spellings of headers and paths, browsers, many connections.

use http::Method;
use prost::Message;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tonic::Code;
use tonic::codec::CompressionEncoding;

use crate::support::otlp::{Encoding, SECOND, compress, headers, now, span, traces};
use crate::support::server::Serve;
use crate::support::{eventually, grpc};

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const ITEMS: &str = "lacuna_ingest_items_total{signal=\"spans\"}";

fn one_span(id: u64) -> Vec<u8> {
    traces("worker", vec![span(id, "work", now() - SECOND, &[])]).encode_to_vec()
}

/// Guarantees: names of content codings are taken in any case, and `x-gzip` as gzip (RFC 9110); a
/// path may end in a slash; gRPC takes gzip and zstd, and says what it takes.
#[tokio::test]
async fn spellings_that_mean_the_same() {
    let data = tempfile::tempdir().unwrap();
    let server = Serve::on(data.path()).start();
    let mut sent = 0;
    for (name, coding) in [
        ("GZIP", "gzip"),
        ("x-gzip", "gzip"),
        ("X-GZip", "gzip"),
        ("Zstd", "zstd"),
        ("Identity", ""),
    ] {
        let body = if coding.is_empty() { one_span(1) } else { compress(coding, &one_span(1)) };
        let answer = server.send("traces", &headers(Encoding::Protobuf, name), body).await;
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
        sent += 1;
    }
    let protobuf = headers(Encoding::Protobuf, "identity");
    server.send("traces/", &protobuf, one_span(1)).await.ok();
    for compression in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let message = one_span(1);
        grpc::call_with(&server.grpc, EXPORT, message, Some(compression)).await.unwrap();
        sent += 1;
    }
    assert_eq!(server.metric(ITEMS).await, f64::from(sent + 1));
}

/// Guarantees: with `--cors-origin` a browser is told that pages of that origin may send, also in an
/// error; other origins are not, and nobody is without the flag.
#[tokio::test]
async fn browsers_may_send_where_it_is_allowed() {
    let data = tempfile::tempdir().unwrap();
    let shop = "https://shop.example";
    let ask = [
        ("origin", shop),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type,x-tenant"),
    ];
    let server = Serve::on(data.path()).start();
    let url = format!("{}/v1/traces", server.otlp);
    let answer = server.http.send(Method::OPTIONS, &url, &ask, "").await.unwrap();
    assert_eq!(answer.status, 405);
    assert!(answer.header("access-control-allow-origin").is_empty());
    assert!(server.stop().await.success());

    let server = Serve::on(data.path()).args(&["--cors-origin", shop]).start();
    let url = format!("{}/v1/traces", server.otlp);
    let answer = server.http.send(Method::OPTIONS, &url, &ask, "").await.unwrap();
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), shop);
    assert_eq!(answer.header("access-control-allow-methods"), "POST");
    assert_eq!(answer.header("access-control-allow-headers"), "content-type,x-tenant");
    let json = [("content-type", "application/json"), ("origin", shop)];
    for (body, status) in [("{}", 200), ("{", 400)] {
        let answer = server.http.post(&url, &json, body).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("access-control-allow-origin"), shop);
        assert_eq!(answer.header("vary"), "origin");
    }
    let other = [ask[1], ("origin", "https://other.example")];
    let answer = server.http.send(Method::OPTIONS, &url, &other, "").await.unwrap();
    assert!(answer.header("access-control-allow-origin").is_empty());
    let bad = Serve::on(data.path()).args(&["--cors-origin", "shop.example"]).fail();
    assert_eq!(bad.status.code(), Some(2));
}

/// Guarantees: beyond `--max-connections` a connection is closed at once and counted; when one has
/// ended, the next is served.
#[tokio::test]
async fn connections_are_counted_and_bounded() {
    let data = tempfile::tempdir().unwrap();
    let server = Serve::on(data.path()).args(&["--max-connections", "2"]).start();
    let address = server.otlp.trim_start_matches("http://");
    let figure = |name: &str| format!("lacuna_connections{name}{{port=\"otlp_http\"}}");
    let connect = async || TcpStream::connect(address).await.unwrap();
    let (first, _second) = (connect().await, connect().await);
    let open = figure("");
    eventually("two connections", || async { (server.metric(&open).await == 2.0).then_some(()) })
        .await;
    let mut third = connect().await;
    assert!(matches!(third.read(&mut [0; 1]).await, Ok(0) | Err(_)));
    assert_eq!(server.metric(&figure("_refused_total")).await, 1.0);
    drop(first);
    eventually("a place", || async { (server.metric(&open).await == 1.0).then_some(()) }).await;
    let protobuf = headers(Encoding::Protobuf, "identity");
    server.send("traces", &protobuf, one_span(1)).await.ok();
}

/// Scenario: gRPC messages of a few kilobytes that become 40 MiB each, eight at once, where 24 MiB
/// are for telemetry.
/// Guarantees: room is taken while a message is decompressed, so memory stays near what one such
/// message takes; who is refused is told to come again.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn compressed_messages_take_room_as_they_grow() {
    const SIZE: usize = 40 << 20;
    let data = tempfile::tempdir().unwrap();
    let server = Serve::on(data.path()).args(&["--memory-limit", "64MiB"]).start();
    let at_rest = server.peak_memory();
    let text = "x".repeat(60 << 10);
    let spans = (1..=(SIZE / text.len()) as u64).map(|id| span(id, "w", now(), &[("k", &text)]));
    let message = traces("worker", spans.collect()).encode_to_vec();
    let senders: Vec<_> = (0..8)
        .map(|_| {
            let (url, message) = (server.grpc.clone(), message.clone());
            let zstd = Some(CompressionEncoding::Zstd);
            tokio::spawn(async move { grpc::call_with(&url, EXPORT, message, zstd).await })
        })
        .collect();
    for sender in senders {
        if let Err(status) = sender.await.unwrap() {
            assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
            assert!(!status.details().is_empty(), "{status:?}");
        }
    }
    let peak = server.peak_memory();
    println!("at rest {} MiB, peak {} MiB", at_rest >> 20, peak >> 20);
    // The limit, and once more a message: it is taken alone, however large.
    assert!(peak < at_rest + (64 << 20) + 2 * SIZE as u64, "{} MiB", peak >> 20);
}
