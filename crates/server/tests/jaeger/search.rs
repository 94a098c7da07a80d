//! What a v1 search finds.

use crate::harness::{Server, spans};
use crate::source::MemorySource;

const A: &str = "0af7651916cd43dd8448eb211c80319c";
const B: &str = "0000000000000abc";

async fn found(query: &str) -> Vec<String> {
    Server::new().get(&format!("/api/traces?{query}")).await.trace_ids()
}

#[tokio::test]
async fn the_post_mortems_own_requests() {
    let server = Server::new();
    let uri = "http://localhost:16686/api/traces?service=essay_lifecycle_service&operation=redis.transaction.assign_slot_atomic";
    assert_eq!(server.get(uri).await.trace_ids(), [A]);
    assert_eq!(found("service=essay_lifecycle_service&operation=db.*").await, [A]);
    assert_eq!(found("").await, [B, A]);
    assert_eq!(
        found("service=file_service,essay_lifecycle_service,batch_orchestrator_service").await,
        [B, A]
    );
}

/// A name that exists is itself; only one that does not is a pattern.
#[tokio::test]
async fn a_star_is_literal_where_such_a_name_exists() {
    assert_eq!(found("operation=GET%20/*").await, [B]);
    assert_eq!(found("operation=db.*").await, [B, A]);
    assert!(found("service=file_service&operation=db.*").await.is_empty());
    assert!(found("operation=dbx*").await.is_empty());
    assert!(found("operation=d.*y").await.is_empty(), "the dot is a dot");
    assert_eq!(found("operation=POST%20/v1/batches/{id}/f*s").await, [A]);
}

/// Marks that mean something in a regular expression, or do after a backslash.
#[tokio::test]
async fn only_the_star_is_special() {
    let name = r#"f<T>(a|b)[0-9]{2}^$#&-~+?\d\<"'`!@%=:;,./_ é"#;
    let quoted = serde_json::to_string(&format!("{name} x")).unwrap();
    let json = format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"traceId":"0000000000000000000000000000000a",
        "spanId":"0000000000000001","name":{quoted},"startTimeUnixNano":"1700000000000000000"}}]}}]}}]}}"#
    );
    let logs = lacuna_signal::Batch::empty(lacuna_signal::SignalKind::Logs);
    let server = Server::over(MemorySource { spans: spans(&json), logs });
    let query = |pattern: String| {
        form_urlencoded::Serializer::new(String::new()).append_pair("operation", &pattern).finish()
    };
    let uri = |pattern| format!("/api/traces?{}", query(pattern));
    assert_eq!(server.get(&uri(format!("{name}*"))).await.trace_ids().len(), 1);
    assert_eq!(server.get(&uri(format!("*{name}"))).await.trace_ids().len(), 0);
}

#[tokio::test]
async fn all_conditions_hold_on_one_span() {
    let service = "service=essay_lifecycle_service";
    assert_eq!(found(&format!("{service}&tag=correlation_id:c-1")).await, [A]);
    let split = format!("{service}&operation=db.query&tag=correlation_id:c-1");
    assert!(found(&split).await.is_empty(), "the tag is on another span of the trace");
    assert!(found("service=file_service&minDuration=1s").await.is_empty());
}

#[tokio::test]
async fn tags_of_every_place_and_type() {
    let good = [
        "tag=host.name:node-1",
        "tag=process.pid:4711",
        "tag=kafka.offset:9007199254740993",
        "tag=transaction.backoff:0.25",
        "tag=transaction.final:true",
        "tag=failure.reason:concurrent_modification",
        "tag=event:redis.exec.discarded",
        "tag=otel.scope.name:pipeline",
        "tag=otel.scope.version:0.1.0",
        "tag=otel.status_description:Transaction%20discarded",
        "tag=otel.status_code:OK",
        "tag=span.kind:consumer",
        "service=essay_lifecycle_service&tag=error:true",
        "tag=messaging.system:kafka&tag=span.kind:producer",
        "tags=%7B%22transaction.result%22%3A%22aborted%22%2C%22error%22%3A%22true%22%7D",
    ];
    for query in good {
        assert_eq!(found(query).await, [A], "{query}");
    }
    for query in ["tag=host.name:node", "tag=span.kind:nothing", "tag=nothing:", "tag=a:b:c"] {
        assert!(found(query).await.is_empty(), "{query}");
    }
    assert_eq!(found("tag=error:true").await, [B, A]);
    assert_eq!(
        found("service=essay_lifecycle_service&operation=db.query&tag=error:false").await,
        [A]
    );
}

#[tokio::test]
async fn times_are_microseconds_and_inclusive() {
    let start = 1_700_000_000_000_000_i64;
    assert_eq!(found(&format!("start={start}&end={start}")).await, [A]);
    assert!(found(&format!("start={}&end={}", start - 10, start - 1)).await.is_empty());
    let late = start + 10_000_000;
    assert_eq!(found(&format!("start={late}")).await, [B]);
    assert_eq!(found(&format!("end={}", late - 1)).await, [A], "from two days before now");
}

#[tokio::test]
async fn durations_are_inclusive_and_limit_takes_the_newest() {
    assert_eq!(found("minDuration=1.5s").await, [B]);
    assert_eq!(found("minDuration=4ms&maxDuration=4ms").await, [A]);
    assert_eq!(found("limit=1").await, [B]);
    assert_eq!(found("minDuration=0&limit=99999999").await.len(), 2);
}
