//! What is taken: every way in, every signal, visible to the very next query.

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use serde_json::json;
use tonic::codec::CompressionEncoding;

use crate::support::answers::{otlp_spans, v1_spans};
use crate::support::otlp::{
    self, Encoding, MILLI, SECOND, compress, headers, now, span, trace_id, traces,
};
use crate::support::server::{Serve, Server};

/// What `/metrics` says was made durable, by signal.
async fn accepted(server: &Server) -> [f64; 3] {
    let text = server.get("/metrics").await.ok().text();
    ["spans", "logs", "points"].map(|signal| {
        let series = format!("lacuna_ingest_items_total{{signal=\"{signal}\"}}");
        crate::support::answers::metric(&text, &series)
    })
}

/// Asks once, by every way, for span `id` of `service`, sent just now.
async fn assert_found(server: &Server, id: u64, service: &str, correlation: &str) {
    let expected = [format!("{id:016x}")].into();
    let trace = format!("{:032x}", trace_id(id));
    let by_search = server
        .json(&format!(
            "/api/traces?service={service}&operation=take&tag=correlation_id:{correlation}"
        ))
        .await;
    assert_eq!(v1_spans(&by_search), expected, "v1 search");
    assert_eq!(by_search["data"][0]["traceID"], trace.as_str());
    assert_eq!(v1_spans(&server.json(&format!("/api/traces/{trace}")).await), expected, "v1 by id");

    let time = |nanos: u64| {
        let time = jiff::Timestamp::from_nanosecond(i128::from(nanos)).unwrap();
        time.to_string()
    };
    let by_search = server
        .json(&format!(
            "/api/v3/traces?query.serviceName={service}&query.operationName=take\
             &query.startTimeMin={}&query.startTimeMax={}\
             &query.attributes=%7B%22correlation_id%22:%22{correlation}%22%7D",
            time(now() - 600 * SECOND),
            time(now() + 600 * SECOND),
        ))
        .await;
    assert_eq!(otlp_spans(&by_search), expected, "v3 search");
    let by_id = server.json(&format!("/api/v3/traces/{trace}")).await;
    assert_eq!(otlp_spans(&by_id), expected, "v3 by id");
    let services = server.json("/api/services").await;
    assert!(services["data"].as_array().unwrap().contains(&json!(service)), "{services}");
}

/// Scenario: every encoding and compression of OTLP/HTTP, for every signal.
/// Guarantees: each is taken, counted, and found by the very next query.
#[tokio::test]
async fn every_way_of_otlp_http_is_taken_and_visible_at_once() {
    let data = tempfile::tempdir().unwrap();
    let server = Serve::on(data.path()).start();
    let mut id = 0;
    let mut expected = [0.0; 3];
    for encoding in Encoding::ALL {
        for compression in ["identity", "gzip", "zstd", "deflate"] {
            id += 1;
            let (service, key) = (format!("service-{id}"), format!("corr-{id}"));
            let sent = traces(
                &service,
                vec![span(id, "take", now() - 20 * MILLI, &[("correlation_id", &key)])],
            );
            let headers = headers(encoding, compression);
            let post =
                |signal, body: Vec<u8>| server.send(signal, &headers, compress(compression, &body));
            let answer = post("traces", encoding.encode(&sent)).await.ok();
            assert_eq!(answer.header("content-type"), encoding.content_type());
            // A full success says nothing: an empty message.
            assert_eq!(&*answer.body, if encoding == Encoding::Json { &b"{}"[..] } else { b"" });
            assert_found(&server, id, &service, &key).await;

            let records =
                vec![otlp::log("one", &[]), otlp::log("two", &[]), otlp::log("three", &[])];
            post("logs", encoding.encode(&otlp::logs(&service, records))).await.ok();
            post("metrics", encoding.encode(&otlp::metrics(&service, "queue"))).await.ok();
            for (expected, more) in expected.iter_mut().zip([1.0, 3.0, 2.0]) {
                *expected += more;
            }
            assert_eq!(accepted(&server).await, expected, "{encoding:?} {compression}");
        }
    }
    assert!(server.stop().await.success());
}

/// Scenario: every compression of OTLP/gRPC, for every signal, by tonic's own clients.
/// Guarantees: each is taken, counted, and found by the very next query.
#[tokio::test]
async fn every_way_of_otlp_grpc_is_taken_and_visible_at_once() {
    let data = tempfile::tempdir().unwrap();
    let server = Serve::on(data.path()).start();
    let mut id = 0;
    let mut expected = [0.0; 3];
    for compression in [None, Some(CompressionEncoding::Gzip), Some(CompressionEncoding::Zstd)] {
        id += 1;
        let (service, key) = (format!("service-{id}"), format!("corr-{id}"));
        let mut trace_client = TraceServiceClient::connect(server.grpc.clone()).await.unwrap();
        let mut log_client = LogsServiceClient::connect(server.grpc.clone()).await.unwrap();
        let mut metric_client = MetricsServiceClient::connect(server.grpc.clone()).await.unwrap();
        if let Some(compression) = compression {
            trace_client = trace_client.send_compressed(compression);
            log_client = log_client.send_compressed(compression);
            metric_client = metric_client.send_compressed(compression);
        }
        let sent = traces(
            &service,
            vec![span(id, "take", now() - 20 * MILLI, &[("correlation_id", &key)])],
        );
        let answer = trace_client.export(sent).await.unwrap().into_inner();
        assert_eq!(answer.partial_success, None);
        assert_found(&server, id, &service, &key).await;

        let records = vec![otlp::log("one", &[]), otlp::log("two", &[])];
        let answer = log_client.export(otlp::logs(&service, records)).await.unwrap().into_inner();
        assert_eq!(answer.partial_success, None);
        let answer = metric_client.export(otlp::metrics(&service, "queue")).await;
        assert_eq!(answer.unwrap().into_inner().partial_success, None);
        for (expected, more) in expected.iter_mut().zip([1.0, 2.0, 2.0]) {
            *expected += more;
        }
        assert_eq!(accepted(&server).await, expected, "{compression:?}");
    }
    assert!(server.stop().await.success());
}

/// Scenario: the post-mortem's own command, on data as the incident's services send it.
/// Guarantees: it answers the transaction's span with its tags, and health and metrics answer too.
#[tokio::test]
async fn the_post_mortems_own_query_answers() {
    let data = tempfile::tempdir().unwrap();
    let server = Serve::on(data.path()).start();
    let start = now() - SECOND;
    let failed = [
        ("correlation_id", "c-1"),
        ("batch_id", "b-1"),
        ("transaction.type", "watch_multi_exec"),
        ("transaction.result", "no_slots"),
    ];
    let mut consume =
        span(1, "kafka.consume.essay.provisioned", start, &[("correlation_id", "c-1")]);
    let mut assign = span(2, "redis.transaction.assign_slot_atomic", start + MILLI, &failed);
    assign.trace_id.clone_from(&consume.trace_id);
    assign.parent_span_id.clone_from(&consume.span_id);
    consume.kind = 5;
    let other = span(3, "redis.transaction.assign_slot_atomic", start, &[]);
    let sent = traces("essay_lifecycle_service", vec![consume, assign]);
    let headers = headers(Encoding::Protobuf, "identity");
    server.send("traces", &headers, Encoding::Protobuf.encode(&sent)).await.ok();
    let sent = traces("another_service", vec![other]);
    server.send("traces", &headers, Encoding::Protobuf.encode(&sent)).await.ok();

    let found = server
        .json("/api/traces?service=essay_lifecycle_service&operation=redis.transaction.assign_slot_atomic")
        .await;
    let traces = found["data"].as_array().unwrap();
    assert_eq!(traces.len(), 1, "{found}");
    // The whole trace comes, not only the span that was asked for.
    assert_eq!(v1_spans(&found), [1, 2].map(|id| format!("{id:016x}")).into());
    let spans = traces[0]["spans"].as_array().unwrap();
    let assign = spans.iter().find(|span| span["spanID"] == "0000000000000002").unwrap();
    assert_eq!(assign["operationName"], "redis.transaction.assign_slot_atomic");
    assert_eq!(assign["references"][0]["spanID"], "0000000000000001");
    for (key, value) in failed {
        let tags = assign["tags"].as_array().unwrap();
        assert!(
            tags.iter().any(|tag| tag["key"] == key && tag["value"] == value),
            "{key}: {assign}"
        );
    }

    assert!(server.get("/").await.ok().text().contains("/api/v1/findings"));
    assert_eq!(server.get("/healthz").await.ok().text(), "ok\n");
    assert_eq!(server.get("/readyz").await.ok().text(), "ready\n");
    let metrics = server.get("/metrics").await.ok();
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"));
    let metrics = metrics.text();
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    assert_eq!(crate::support::answers::metric(&metrics, "lacuna_ready"), 1.0);
    let mut families: Vec<&str> =
        metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let all = families.len();
    families.sort_unstable();
    families.dedup();
    assert_eq!(families.len(), all, "a family is exposed twice");
    assert_eq!(server.get("/nothing/here").await.status, 404);
}

/// Scenario: a request beyond the usual limit, to a server that was told to take such.
/// Guarantees: it is taken, by the store too, and read back after a kill by a server that was not.
#[tokio::test]
async fn a_raised_limit_holds_all_the_way() {
    let data = tempfile::tempdir().unwrap();
    let server = Serve::on(data.path())
        .args(&["--max-body", "80MiB", "--max-decompressed", "80MiB"])
        .start();
    let large = traces("large", vec![span(1, &"x".repeat(65 << 20), now() - SECOND, &[])]);
    let headers = headers(Encoding::Protobuf, "zstd");
    let body = compress("zstd", &Encoding::Protobuf.encode(&large));
    server.send("traces", &headers, body.clone()).await.ok();
    assert_eq!(accepted(&server).await, [1.0, 0.0, 0.0]);
    server.kill();
    let server = Serve::on(data.path()).start();
    assert_eq!(server.metric("lacuna_store_replayed_rows_total").await, 1.0);
    assert_eq!(server.json("/api/services").await["data"], json!(["large"]));
    assert_eq!(server.send("traces", &headers, body).await.status, 413);
}
