//! Bad input: a proper OTLP error, the good beside it kept, all of it counted.

use http::Method;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message;
use tonic::Code;

use crate::support::answers::v1_spans;
use crate::support::grpc;
use crate::support::http::Answer;
use crate::support::otlp::{
    self, Encoding, RpcStatus, SECOND, compress, headers, log, logs, metrics, now, span, traces,
};
use crate::support::server::{Serve, Server};

const INVALID_ARGUMENT: i32 = 3;

/// Encoding, `Content-Encoding`, body, HTTP status, and what the message must say.
type Case = (Encoding, &'static str, Vec<u8>, u16, &'static [&'static str]);

/// The `google.rpc.Status` of an error, in the encoding that the answer says it has.
#[track_caller]
fn rpc_status(answer: &Answer) -> RpcStatus {
    match answer.header("content-type") {
        "application/x-protobuf" => RpcStatus::decode(&*answer.body).expect("a Status"),
        "application/json" => {
            let json = answer.json();
            let code = json["code"].as_i64().expect("a code") as i32;
            RpcStatus { code, message: json["message"].as_str().expect("a message").to_owned() }
        }
        other => panic!("unexpected content type `{other}`: {:?}", answer.body),
    }
}

async fn refused(server: &Server, signal: &str) -> f64 {
    server.metric(&format!("lacuna_ingest_refused_requests_total{{signal=\"{signal}\"}}")).await
}

async fn rejected(server: &Server, signal: &str) -> f64 {
    server.metric(&format!("lacuna_ingest_rejected_items_total{{signal=\"{signal}\"}}")).await
}

fn one_span(id: u64) -> Vec<u8> {
    traces("good", vec![span(id, "work", now() - SECOND, &[])]).encode_to_vec()
}

/// Scenario: bodies that nothing can be read from, and headers that say what is not so.
/// Guarantees: each is answered with the right status and a `google.rpc.Status` in the request's
/// encoding that says what is wrong; each is counted; nothing is kept; the server goes on.
#[tokio::test]
async fn what_cannot_be_read_is_refused_with_a_reason() {
    use Encoding::{Json, Protobuf};
    let data = tempfile::tempdir().unwrap();
    let server =
        Serve::on(data.path()).args(&["--max-body", "1MiB", "--max-decompressed", "1MiB"]).start();
    let good = one_span(1);
    let cut = good[..good.len() / 2].to_vec();
    let large = traces("good", vec![span(1, &"x".repeat(2 << 20), now(), &[])]).encode_to_vec();
    let mut damaged = compress("gzip", &good);
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0xff;
    let zip = compress("zstd", &good);
    let half = zip[..zip.len() / 2].to_vec();
    let bad_json = b"{\n  \"resourceSpans\": [\n    {\"scopeSpans\": oops}\n  ]\n}".to_vec();
    let html = b"<html>not telemetry</html>".to_vec();

    let cases: Vec<Case> = vec![
        (Protobuf, "identity", vec![0xff; 64], 400, &["resource_spans[0]"]),
        (Protobuf, "identity", cut, 400, &["resource_spans[0]"]),
        (Protobuf, "identity", html.clone(), 400, &["not a readable OTLP export request"]),
        (Json, "identity", html, 400, &["line 1, column 1"]),
        (Json, "identity", bad_json, 400, &["line 3, column 20"]),
        (Json, "identity", b"{\"resourceSpans\": [".to_vec(), 400, &["line 1, column 20"]),
        (Json, "identity", Vec::new(), 400, &["line 1, column 1"]),
        (Json, "identity", b"[]".to_vec(), 400, &["expected an object"]),
        (Json, "identity", b"{\"resourceSpans\": 7}".to_vec(), 400, &["resourceSpans", "array"]),
        (Json, "identity", vec![b'['; 100_000], 400, &["expected an object"]),
        (Protobuf, "gzip", good.clone(), 400, &["not valid gzip"]),
        (Protobuf, "gzip", damaged, 400, &["not valid gzip"]),
        (Protobuf, "zstd", half, 400, &["not valid zstd"]),
        (Protobuf, "deflate", vec![1, 2, 3], 400, &["not valid deflate"]),
        (Json, "zstd", b"{}".to_vec(), 400, &["not valid zstd"]),
        (Protobuf, "br", good.clone(), 415, &["`br`", "gzip, zstd or deflate"]),
        (Json, "snappy", b"{}".to_vec(), 415, &["`snappy`", "gzip, zstd or deflate"]),
        (Protobuf, "identity", large.clone(), 413, &["1048576 bytes", "smaller batches"]),
        // Small on the wire, large when unpacked.
        (Protobuf, "gzip", compress("gzip", &large), 413, &["1048576 bytes"]),
        (Protobuf, "zstd", compress("zstd", &large), 413, &["1048576 bytes"]),
        (Json, "deflate", compress("deflate", &vec![b' '; 2 << 20]), 413, &["1048576 bytes"]),
    ];
    let count = cases.len();
    for (i, (encoding, compression, body, status, says)) in cases.into_iter().enumerate() {
        let answer = server.send("traces", &headers(encoding, compression), body).await;
        let case = format!("case {i}, {encoding:?} {compression}: {answer:?}");
        assert_eq!(answer.status, status, "{case}");
        assert_eq!(answer.header("content-type"), encoding.content_type(), "{case}");
        let error = rpc_status(&answer);
        assert_eq!(error.code, INVALID_ARGUMENT, "{case}");
        for part in says {
            assert!(error.message.contains(part), "`{part}` is missing: {error:?} {case}");
        }
        assert_eq!(refused(&server, "spans").await, (i + 1) as f64, "{case}");
    }

    // A content type that is none of the two, or none at all.
    for (i, headers) in [&[("content-type", "text/plain")][..], &[]].into_iter().enumerate() {
        let answer = server.send("traces", headers, good.clone()).await;
        assert_eq!(answer.status, 415);
        let error = rpc_status(&answer);
        assert!(error.message.contains("application/x-protobuf or application/json"), "{error:?}");
        assert_eq!(refused(&server, "spans").await, (count + i + 1) as f64);
    }
    let protobuf = headers(Protobuf, "identity");
    let url = format!("{}/v1/traces", server.otlp);
    let answer = server.http.send(Method::GET, &url, &[], "").await.unwrap();
    assert_eq!(answer.status, 405);
    assert_eq!(server.send("nothing", &protobuf, good.clone()).await.status, 404);

    assert_eq!(server.metric("lacuna_ingest_items_total{signal=\"spans\"}").await, 0.0);
    let services = server.json("/api/services").await;
    assert_eq!(services["data"], serde_json::json!([]));
    server.send("traces", &protobuf, good).await.ok();
    assert_eq!(v1_spans(&server.json("/api/traces?service=good").await).len(), 1);
}

/// Guarantees: a request without telemetry is a success, whatever its encoding.
#[tokio::test]
async fn an_empty_request_is_a_success() {
    let data = tempfile::tempdir().unwrap();
    let server = Serve::on(data.path()).start();
    for signal in ["traces", "logs", "metrics"] {
        let protobuf = headers(Encoding::Protobuf, "identity");
        assert_eq!(&*server.send(signal, &protobuf, Vec::new()).await.ok().body, b"");
        let json = headers(Encoding::Json, "identity");
        assert_eq!(&*server.send(signal, &json, b"{}".to_vec()).await.ok().body, b"{}");
    }
    assert_eq!(refused(&server, "spans").await, 0.0);
}

/// Scenario: by gRPC, what is not OTLP, what is too large, and a method that does not exist.
/// Guarantees: a status that says what is wrong and that no client tries again; counted.
#[tokio::test]
async fn grpc_refusals_are_final_and_counted() {
    let data = tempfile::tempdir().unwrap();
    let server =
        Serve::on(data.path()).args(&["--max-body", "1MiB", "--max-decompressed", "1MiB"]).start();
    let export = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

    let error = grpc::call(&server.grpc, export, vec![0xff; 32]).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("resource_spans[0]"), "{error:?}");
    assert_eq!(refused(&server, "spans").await, 1.0);

    let error = grpc::call(&server.grpc, export, vec![0; 2 << 20]).await.unwrap_err();
    // OTLP has OUT_OF_RANGE tried again; RESOURCE_EXHAUSTED only if details say when.
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(error.details().is_empty(), "{error:?}");
    assert!(error.message().contains("1048576 bytes"), "{error:?}");
    assert_eq!(refused(&server, "spans").await, 2.0);

    let missing = "/opentelemetry.proto.collector.trace.v1.TraceService/Import";
    let error = grpc::call(&server.grpc, missing, Vec::new()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);

    let good = grpc::call(&server.grpc, export, one_span(1)).await.unwrap();
    assert!(good.is_empty());
    assert_eq!(v1_spans(&server.json("/api/traces?service=good").await).len(), 1);
}

/// A request of five spans of which the second and the fifth are bad; those with ids 1, 3 and 4
/// are good.
fn mixed(service: &str) -> otlp::TraceRequest {
    let start = now() - SECOND;
    let mut spans: Vec<_> = (1..=5).map(|id| span(id, "work", start, &[])).collect();
    spans[1].trace_id = vec![1, 2, 3];
    spans[4].span_id = Vec::new();
    traces(service, spans)
}

/// Scenario: bad spans among good ones, by every way in.
/// Guarantees: the good ones are kept; the answer is a partial success with the number of bad ones
/// and the place of each; `/metrics` counts them.
#[tokio::test]
async fn bad_spans_do_not_take_good_ones_with_them() {
    let data = tempfile::tempdir().unwrap();
    let server = Serve::on(data.path()).start();
    let good: std::collections::BTreeSet<String> = [1, 3, 4].map(|id| format!("{id:016x}")).into();
    for (i, way) in ["http", "json", "grpc"].into_iter().enumerate() {
        let request = mixed(way);
        let (count, message) = match way {
            "http" => {
                let headers = headers(Encoding::Protobuf, "identity");
                let answer = server.send("traces", &headers, request.encode_to_vec()).await.ok();
                let answer = ExportTraceServiceResponse::decode(&*answer.body).unwrap();
                let partial = answer.partial_success.expect("a partial success");
                (partial.rejected_spans, partial.error_message)
            }
            "json" => {
                let body = Encoding::Json.encode(&request);
                let headers = headers(Encoding::Json, "identity");
                let partial = server.send("traces", &headers, body).await.ok().json();
                let partial = &partial["partialSuccess"];
                // A 64-bit number is a string in protobuf's JSON.
                let count = partial["rejectedSpans"].as_str().unwrap().parse().unwrap();
                (count, partial["errorMessage"].as_str().unwrap().to_owned())
            }
            _ => {
                let mut client = TraceServiceClient::connect(server.grpc.clone()).await.unwrap();
                let answer = client.export(request).await.unwrap().into_inner();
                let partial = answer.partial_success.expect("a partial success");
                (partial.rejected_spans, partial.error_message)
            }
        };
        assert_eq!(count, 2, "{way}: {message}");
        let places = match way {
            "json" => ["scopeSpans[0].spans[1].traceId", "scopeSpans[0].spans[4].spanId"],
            _ => ["scope_spans[0].spans[1]: trace_id", "scope_spans[0].spans[4]: span_id"],
        };
        for place in places {
            assert!(message.contains(place), "{way}: {place} is missing: {message}");
        }
        let found = server.json(&format!("/api/traces?service={way}")).await;
        assert_eq!(v1_spans(&found), good, "{way}");
        assert_eq!(rejected(&server, "spans").await, 2.0 * (i + 1) as f64, "{way}");
        let accepted = server.metric("lacuna_ingest_items_total{signal=\"spans\"}").await;
        assert_eq!(accepted, 3.0 * (i + 1) as f64, "{way}");
    }
    assert_eq!(refused(&server, "spans").await, 0.0);
}

/// Scenario: a request is cut off in its second half.
/// Guarantees: what was whole before the cut is kept, and the rest reported.
#[tokio::test]
async fn what_came_before_a_cut_is_kept() {
    let data = tempfile::tempdir().unwrap();
    let server = Serve::on(data.path()).start();
    let mut body = one_span(1);
    let rest = one_span(2);
    body.extend(&rest[..rest.len() - 3]);
    let headers = headers(Encoding::Protobuf, "identity");
    let answer = server.send("traces", &headers, body).await.ok();
    let answer = ExportTraceServiceResponse::decode(&*answer.body).unwrap();
    let partial = answer.partial_success.expect("a partial success");
    assert_eq!(partial.rejected_spans, 1);
    assert!(partial.error_message.contains("resource_spans[1]"), "{}", partial.error_message);
    let found = server.json("/api/traces?service=good").await;
    assert_eq!(v1_spans(&found), [format!("{:016x}", 1)].into());
}

/// Scenario: a bad log record and a bad metric point among good ones.
/// Guarantees: as for spans, with each signal's own field in the answer.
#[tokio::test]
async fn bad_logs_and_points_do_not_take_good_ones_with_them() {
    use opentelemetry_proto::tonic::metrics::v1::{Histogram, HistogramDataPoint, Metric, metric};
    let data = tempfile::tempdir().unwrap();
    let server = Serve::on(data.path()).start();
    let json = headers(Encoding::Json, "identity");

    let mut late = log("beyond 2262", &[]);
    late.time_unix_nano = u64::MAX;
    let request = logs("good", vec![log("one", &[]), late, log("three", &[])]);
    let answer = server.send("logs", &json, Encoding::Json.encode(&request)).await.ok().json();
    assert_eq!(answer["partialSuccess"]["rejectedLogRecords"], "1", "{answer}");
    let message = answer["partialSuccess"]["errorMessage"].as_str().unwrap();
    assert!(message.contains("[1]"), "{message}");
    assert_eq!(rejected(&server, "logs").await, 1.0);
    assert_eq!(server.metric("lacuna_ingest_items_total{signal=\"logs\"}").await, 2.0);

    let mut request = metrics("good", "queue");
    let point = HistogramDataPoint {
        time_unix_nano: now(),
        count: 3,
        bucket_counts: vec![1, 2],
        explicit_bounds: vec![1.0, 2.0, 3.0],
        ..HistogramDataPoint::default()
    };
    let data =
        metric::Data::Histogram(Histogram { data_points: vec![point], aggregation_temporality: 2 });
    let histogram = Metric { name: "bad".to_owned(), data: Some(data), ..Metric::default() };
    request.resource_metrics[0].scope_metrics[0].metrics.insert(1, histogram);
    let answer = server.send("metrics", &json, Encoding::Json.encode(&request)).await.ok().json();
    assert_eq!(answer["partialSuccess"]["rejectedDataPoints"], "1", "{answer}");
    let message = answer["partialSuccess"]["errorMessage"].as_str().unwrap();
    assert!(message.contains("metrics[1]"), "{message}");
    assert_eq!(rejected(&server, "points").await, 1.0);
    assert_eq!(server.metric("lacuna_ingest_items_total{signal=\"points\"}").await, 2.0);
}
