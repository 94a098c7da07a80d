//! Metrics and their series, of every kind: the same answers from a server, from its folder in
//! memory and in segments.

use serde_json::{Value, json};

use crate::support::otlp::{Encoding, headers};
use crate::support::server::{Serve, run};

/// Every kind of metric; two series of the gauge, a delta, an exemplar.
const METRICS: &str = r#"{"resourceMetrics":[{
  "resource":{"attributes":[{"key":"service.name","value":{"stringValue":"els"}}]},
  "scopeMetrics":[{"scope":{"name":"meter","version":"1"},"metrics":[
    {"name":"queue.length","unit":"1","description":"Essays that wait","gauge":{"dataPoints":[
      {"timeUnixNano":"1795420802000000000","asInt":"4","attributes":[{"key":"queue","value":{"stringValue":"essays"}}]},
      {"timeUnixNano":"1795420801000000000","asInt":"3","attributes":[{"key":"queue","value":{"stringValue":"essays"}}],
       "exemplars":[{"timeUnixNano":"1795420801000000000","asDouble":2.5,"traceId":"5b8efff798038103d269b633813fc60c",
        "spanId":"eee19b7ec3c1b174","filteredAttributes":[{"key":"essay","value":{"stringValue":"7"}}]}]},
      {"timeUnixNano":"1795420801000000000","asDouble":"NaN","attributes":[{"key":"queue","value":{"stringValue":"batches"}},
       {"key":"shard","value":{"intValue":"2"}}]}]}},
    {"name":"transactions","sum":{"aggregationTemporality":1,"isMonotonic":true,"dataPoints":[
      {"startTimeUnixNano":"1795420800000000000","timeUnixNano":"1795420801000000000","asInt":"9"}]}},
    {"name":"latency","unit":"s","histogram":{"aggregationTemporality":2,"dataPoints":[
      {"timeUnixNano":"1795420801000000000","count":"3","sum":1.5,"min":0.1,"max":1.0,"bucketCounts":["1","2"],"explicitBounds":[0.5]}]}},
    {"name":"latency.fine","exponentialHistogram":{"aggregationTemporality":1,"dataPoints":[
      {"timeUnixNano":"1795420801000000000","count":"4","scale":2,"zeroCount":"1","positive":{"offset":-1,"bucketCounts":["1","2"]}}]}},
    {"name":"rpc","summary":{"dataPoints":[
      {"timeUnixNano":"1795420801000000000","count":"5","sum":2.0,"quantileValues":[{"quantile":0.5,"value":0.4}]}]}}
  ]}]}]}"#;

async fn query(args: &[&str]) -> std::process::Output {
    let args: Vec<String> = ["query"].iter().chain(args).map(|text| (*text).to_owned()).collect();
    tokio::task::spawn_blocking(move || run(args)).await.unwrap()
}

async fn answer(args: &[&str]) -> Value {
    let done = query(&[args, &["--format", "json"]].concat()).await;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

/// Scenario: metrics of every kind are sent, listed and selected, over HTTP, by the command line from
/// the server, and from the folder after the server has stopped.
/// Guarantees: every value of every kind comes back, series are told apart, all ways agree.
#[tokio::test]
async fn metrics_of_every_kind_come_back_as_series() {
    let dir = tempfile::tempdir().unwrap();
    let server = Serve::on(dir.path()).start();
    let sent = server.send("metrics", &headers(Encoding::Json, "identity"), METRICS.into()).await;
    assert_eq!(sent.ok().json(), json!({}));

    let metrics = server.json("/api/v1/metrics").await;
    let counted: Vec<_> = metrics["metrics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|metric| json!([metric["name"], metric["kind"], metric["series"], metric["points"]]))
        .collect();
    assert_eq!(
        Value::from(counted),
        json!([
            ["latency", "histogram", 1, 1],
            ["latency.fine", "exponential_histogram", 1, 1],
            ["queue.length", "gauge", 2, 3],
            ["rpc", "summary", 1, 1],
            ["transactions", "sum", 1, 1],
        ])
    );
    assert_eq!(metrics["metrics"][2]["description"], "Essays that wait");

    let all = server.json("/api/v1/series").await;
    let series = all["series"].as_array().unwrap();
    assert_eq!((series.len(), &all["cut"]), (6, &json!(false)));
    let at = "2026-11-23T08:00:01Z";
    assert_eq!(
        series[0]["points"],
        json!([{"time": at, "count": 3, "sum": 1.5, "min": 0.1, "max": 1.0,
                "explicit_bounds": [0.5], "bucket_counts": [1, 2]}])
    );
    assert_eq!(series[0]["temporality"], "cumulative");
    assert_eq!(
        series[1]["points"],
        json!([{"time": at, "count": 4, "scale": 2, "zero_count": 1, "zero_threshold": 0.0,
                "positive": {"offset": -1, "counts": [1, 2]}}])
    );
    assert_eq!(
        json!([
            series[2]["attributes"],
            series[2]["points"],
            series[2]["resource"],
            series[2]["scope"]
        ]),
        json!([{"queue": "batches", "shard": 2}, [{"time": at, "value": "NaN"}],
               {"service.name": "els"}, {"name": "meter", "version": "1"}])
    );
    assert_eq!(
        series[3]["points"],
        json!([
            {"time": at, "value": 3, "exemplars": [{"time": at, "value": 2.5,
             "trace_id": "5b8efff798038103d269b633813fc60c", "span_id": "eee19b7ec3c1b174",
             "attributes": {"essay": "7"}}]},
            {"time": "2026-11-23T08:00:02Z", "value": 4},
        ])
    );
    assert_eq!(
        series[4]["points"],
        json!([{"time": at, "count": 5, "sum": 2.0, "quantiles": [{"quantile": 0.5, "value": 0.4}]}])
    );
    assert_eq!(
        json!([
            series[5]["kind"],
            series[5]["temporality"],
            series[5]["monotonic"],
            series[5]["points"]
        ]),
        json!(["sum", "delta", true,
               [{"time": at, "start_time": "2026-11-23T08:00:00Z", "value": 9}]])
    );

    // Matchers on name, point and resource, of all four operators; time; both bounds.
    let selectors = [
        (r#"metric { name = "queue.length" && point.queue = "essays" }"#, 1),
        (r#"metric { name =~ "latency.*" }"#, 2),
        (r#"metric { point.queue != "essays" && point.shard = 2 }"#, 1),
        (r#"metric { service = "els" && point.queue !~ "b.*" }"#, 1),
        (r#"metric { resource.service.name = "other" }"#, 0),
    ];
    for (selector, expected) in selectors {
        let found = answer(&["series", selector, "--url", &server.query]).await;
        assert_eq!(found["series"].as_array().unwrap().len(), expected, "{selector}");
    }
    let late = server.json("/api/v1/series?start=2026-11-23T08:00:02Z").await;
    assert_eq!(late["series"].as_array().unwrap().len(), 1);
    let one = server.json("/api/v1/series?limit=1").await;
    assert_eq!((&one["series"][0]["name"], &one["cut"]), (&json!("latency"), &json!(true)));
    let newest = server.json("/api/v1/series?points=1").await;
    assert_eq!(
        (&newest["series"][0]["points"][0]["value"], &newest["cut"]),
        (&json!(4), &json!(true))
    );
    let wrong = server.get("/api/v1/series?match=%7B%20%7D").await;
    assert_eq!(wrong.status, 400, "{:?}", wrong.body);

    assert_eq!(answer(&["series", "--url", &server.query]).await, all);
    assert_eq!(answer(&["metrics", "--url", &server.query]).await, metrics);
    assert!(server.stop().await.success());
    let data = dir.path().to_str().unwrap();
    assert_eq!(answer(&["series", "--data", data]).await, all);
    assert_eq!(answer(&["metrics", "--data", data]).await, metrics);
    let text = query(&["series", "--data", data]).await;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains(r#"queue.length{service="els", queue="essays"}"#), "{text}");
    assert!(text.contains("2026-11-23T08:00:02Z  4 1"), "{text}");
}
