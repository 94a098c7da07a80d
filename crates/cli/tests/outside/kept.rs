//! What is kept of requests that cannot be kept as they came.

use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use crate::support::export::Exported;
use crate::support::otlp::{
    Encoding, SECOND, compress, headers, log, logs, now, span, trace_id, traces,
};
use crate::support::server::{Serve, run};

/// Scenario: a request of 50 MiB, each attribute within the limits but one, all of characters that
/// JSON writes in six bytes.
/// Guarantees: it is taken, the one is cut and told; so it is after kill -9. (Regression: it was
/// answered with 503, again and again.)
#[tokio::test]
async fn a_large_request_with_one_long_attribute_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let server = Serve::on(dir.path()).start();
    let fits = "\u{1}".repeat(64 << 10);
    let keys: Vec<String> = (0..50).map(|i| format!("key.{i}")).collect();
    let full: Vec<_> = keys.iter().map(|key| (key.as_str(), fits.as_str())).collect();
    let mut spans: Vec<Span> = (1..=16).map(|id| span(id, "work", now() - SECOND, &full)).collect();
    spans.push(span(17, "work", now() - SECOND, &[("long", &"y".repeat((64 << 10) + 1))]));
    let body = compress("gzip", &traces("worker", spans).encode_to_vec());
    let protobuf = headers(Encoding::Protobuf, "gzip");
    let answer = server.send("traces", &protobuf, body).await.ok();
    let told = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(told.contains("1 values cut"), "{told}");
    let path = format!("/api/v3/traces/{:032x}", trace_id(17));
    let before = server.json(&path).await;
    server.kill();
    let server = Serve::on(dir.path()).start();
    assert_eq!(server.json(&path).await, before);
    assert!(before.to_string().contains(&format!("\"{}\"", "y".repeat(64 << 10))));
}

/// Scenario: log records without any time, sent and imported; a span without a start; kill -9.
/// Guarantees: the records have the time at which they came, also after the restart; the sender of
/// the span is told, and it is kept.
#[tokio::test]
async fn what_has_no_time_is_kept_and_found() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("untimed.pb"));
    let mut record = log("no time", &[]);
    (record.time_unix_nano, record.observed_time_unix_nano) = (0, 0);
    let body = logs("worker", vec![record]).encode_to_vec();
    std::fs::write(&file, [&(body.len() as u32).to_be_bytes(), &body[..]].concat()).unwrap();
    let begun = now();
    let args = ["import".as_ref(), "--data".as_ref(), data.as_os_str(), file.as_os_str()];
    assert_eq!(run(args).status.code(), Some(0));

    let server = Serve::on(&data).start();
    let protobuf = headers(Encoding::Protobuf, "identity");
    let answer = server.send("logs", &protobuf, body).await.ok();
    assert!(answer.body.is_empty(), "{:?}", answer.body);
    let spans = traces("worker", vec![span(1, "work", 0, &[])]).encode_to_vec();
    let answer = server.send("traces", &protobuf, spans).await.ok();
    let told = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(told.contains("1 without a time, kept at 1970"), "{told}");
    let ended = now();
    server.kill();
    let exported = Exported::of(&data);
    let times: Vec<u64> = exported.log_records().map(|log| log.observed_time_unix_nano).collect();
    assert_eq!(times.len(), 2);
    assert!(times.iter().all(|time| (begun..=ended).contains(time)), "{begun} {times:?} {ended}");
    assert_eq!(exported.spans().count(), 1);
}
