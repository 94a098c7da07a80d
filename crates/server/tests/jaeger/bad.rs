//! Everything that can be wrong with a request, and what is said about it.

use std::ops::ControlFlow;

use http::StatusCode;
use lacuna_server::jaeger::{Edges, Listed, Matches, Operation, SourceError, Trace, TraceSource};
use lacuna_signal::selector::Selector;
use lacuna_signal::{Batch, TraceId};
use lacuna_store::TimeRange;
use proptest::prelude::*;

use crate::harness::Server;
use crate::source::MemorySource;

const RANGE: &str =
    "query.startTimeMin=2023-11-14T22:13:20Z&query.startTimeMax=2023-11-14T22:14:20Z";

#[tokio::test]
async fn v1_says_what_is_wrong() {
    let server = Server::new();
    let cases = [
        ("/api/operations", "parameter 'service' is required"),
        (
            "/api/traces?start=a",
            "unable to parse param 'start': strconv.ParseInt: parsing \"a\": invalid syntax",
        ),
        (
            "/api/traces?end=99999999999999999999",
            "unable to parse param 'end': strconv.ParseInt: parsing \"99999999999999999999\": value out of range",
        ),
        ("/api/traces?start=2&end=1", "invalid parameter: start time must be before end time"),
        ("/api/traces?limit=x", "strconv.ParseInt: parsing \"x\": invalid syntax"),
        ("/api/traces?limit=0", "invalid parameter: limit must be greater than 0"),
        ("/api/traces?limit=-5", "invalid parameter: limit must be greater than 0"),
        ("/api/traces?tag=x", "malformed 'tag' parameter, expecting key:value, received: x"),
        (
            "/api/traces?minDuration=5",
            "unable to parse param 'minDuration': time: missing unit in duration \"5\"",
        ),
        (
            "/api/traces?maxDuration=1y",
            "unable to parse param 'maxDuration': time: unknown unit \"y\" in duration \"1y\"",
        ),
        (
            "/api/traces?minDuration=2s&maxDuration=1s",
            "'maxDuration' should be greater than 'minDuration'",
        ),
        (
            "/api/traces?raw=foobar",
            "unable to parse param 'raw': strconv.ParseBool: parsing \"foobar\": invalid syntax",
        ),
        (
            "/api/traces?traceID=zz",
            "cannot parse traceID param: strconv.ParseUint: parsing \"zz\": invalid syntax",
        ),
        ("/api/traces/chumbawumba", "strconv.ParseUint: parsing \"chumbawumba\": invalid syntax"),
        (
            "/api/traces/123456789012345678901234567890123",
            "TraceID cannot be longer than 32 hex characters: 123456789012345678901234567890123",
        ),
        (
            "/api/traces/1?start=a",
            "unable to parse param 'start': strconv.ParseInt: parsing \"a\": invalid syntax",
        ),
        (
            "/api/dependencies?endTs=x",
            "unable to parse param 'endTs': strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        (
            "/api/dependencies?lookback=1h",
            "unable to parse param 'lookback': strconv.ParseInt: parsing \"1h\": invalid syntax",
        ),
        ("/api/deep-dependencies", "parameter 'service' is required"),
        (
            "/api/metrics/calls",
            "unable to parse param 'service': please provide at least one service name",
        ),
        (
            "/api/metrics/latencies?service=a",
            "unable to parse param 'quantile': strconv.ParseFloat: parsing \"\": invalid syntax",
        ),
        (
            "/api/metrics/latencies?service=a&quantile=95",
            "unable to parse param 'quantile': it must be between 0 and 1",
        ),
        (
            "/api/metrics/errors?service=a&spanKind=x",
            "unable to parse param 'spanKind': unsupported span kind: 'x'",
        ),
        (
            "/api/metrics/calls?service=a&step=0",
            "unable to parse param 'step': it must be greater than 0",
        ),
        (
            "/api/metrics/calls?service=a&ratePer=-1",
            "unable to parse param 'ratePer': it must be greater than 0",
        ),
        (
            "/api/metrics/calls?service=a&step=1",
            "unable to parse param 'step': lookback holds more than 11000 steps",
        ),
    ];
    for (uri, message) in cases {
        let answer = server.get(uri).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{uri}");
        assert_eq!(answer.content_type, "text/plain; charset=utf-8", "{uri}");
        let expected = serde_json::json!({
            "data": null, "total": 0, "limit": 0, "offset": 0,
            "errors": [{ "code": 400, "msg": message }],
        });
        assert_eq!(answer.json(), expected, "{uri}");
    }
    let tags = server.get("/api/traces?tags=%7Bx").await;
    let message = "malformed 'tags' parameter, cannot unmarshal JSON: ";
    assert!(tags.json()["errors"][0]["msg"].as_str().unwrap().starts_with(message));
    for uri in ["/api/traces/1", "/api/traces/0"] {
        let unknown = server.get(uri).await;
        assert_eq!(unknown.status, StatusCode::NOT_FOUND);
        assert_eq!(unknown.json()["errors"][0]["msg"], "trace not found");
    }
}

#[tokio::test]
async fn v3_says_what_is_wrong() {
    let server = Server::new();
    let cases = [
        ("operations".to_owned(), "malformed parameter service: it is required"),
        ("traces/xyz".to_owned(), "malformed parameter trace_id: strconv.ParseUint: parsing \"xyz\": invalid syntax"),
        ("traces/1?rawTraces=maybe".to_owned(), "malformed parameter rawTraces: strconv.ParseBool: parsing \"maybe\": invalid syntax"),
        ("traces".to_owned(), "query.startTimeMin and query.startTimeMax are required"),
        ("trace-summaries?query.startTimeMin=2023-11-14T22:13:20Z".to_owned(), "query.startTimeMin and query.startTimeMax are required"),
        ("traces?query.startTimeMin=2023-11-14T22:13:20Z&query.startTimeMax=2023-11-14T22:13:20Z".to_owned(), "query.startTimeMin must be before query.startTimeMax"),
        (format!("traces?{RANGE}&query.searchDepth=NaN"), "malformed parameter query.searchDepth: strconv.ParseInt: parsing \"NaN\": invalid syntax"),
        (format!("traces?{RANGE}&query.num_traces=-1"), "malformed parameter query.num_traces: parsing \"-1\": value out of range"),
        (format!("traces?{RANGE}&query.duration_min=NaN"), "malformed parameter query.duration_min: time: invalid duration \"NaN\""),
        (format!("traces?{RANGE}&query.durationMin=2s&query.durationMax=1s"), "'query.durationMax' should be greater than 'query.durationMin'"),
        (format!("traces?{RANGE}&query.filter=%7B%7D"), "malformed parameter query.filter: missing field `op` at line 1 column 2"),
        (format!("traces?{RANGE}&query.pagination.pageSize=1&query.searchDepth=1"), "malformed parameter query.searchDepth: it and query.pagination.pageSize are two ways to say how many"),
        ("dependencies".to_owned(), "startTime and endTime are required"),
    ];
    for (path, message) in cases {
        let answer = server.get(&format!("/api/v3/{path}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
        let expected = serde_json::json!({ "error": { "httpCode": 400, "message": message } });
        assert_eq!(answer.json(), expected, "{path}");
    }
    for name in ["query.startTimeMin", "query.start_time_max", "query.attributes"] {
        let text = server.get(&format!("/api/v3/traces?{name}=NaN")).await.text;
        assert!(text.contains(&format!("malformed parameter {name}: ")), "{text}");
    }
}

#[tokio::test]
async fn bodies_that_are_not_otlp() {
    let server = Server::new();
    for body in [
        "",
        "nonsense",
        "[]",
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"xx"}]}]}]}"#,
    ] {
        let answer = server.post("/api/transform", body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(answer.json()["errors"][0]["code"], 400);
    }
    let half = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[
        {"traceId":"0000000000000000000000000000000a","spanId":"0000000000000001","name":"good"},
        {"traceId":"0000000000000000000000000000000a","spanId":"01","name":"bad"}]}]}]}"#;
    let answer = server.post("/api/transform", half).await;
    assert_eq!(answer.data()[0]["spans"].as_array().unwrap().len(), 1);
    let message = answer.json()["errors"][0]["msg"].as_str().unwrap().to_owned();
    assert!(message.contains("spans[1].spanId"), "{message}");
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let answer = Server::new().post("/api/transform", vec![b' '; (64 << 20) + 1]).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer.json()["errors"][0]["code"], 413);
}

#[tokio::test]
async fn wrong_methods_and_paths() {
    let server = Server::new();
    assert_eq!(server.post("/api/traces", "").await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(server.get("/api/archive/1").await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(server.get("/api/nothing").await.status, StatusCode::NOT_FOUND);
}

/// A source that fails, or panics if `0` is set.
struct Broken(bool);

impl Broken {
    fn fail<T>(&self) -> Result<T, SourceError> {
        assert!(!self.0, "the source panics");
        Err(SourceError::failed("disk on fire"))
    }
}

impl TraceSource for Broken {
    fn trace(&self, _: TraceId) -> Result<Trace, SourceError> {
        self.fail()
    }

    fn find_traces(&self, _: &Selector, _: TimeRange, _: usize) -> Result<Matches, SourceError> {
        self.fail()
    }

    fn scan_spans(
        &self,
        _: &Selector,
        _: TimeRange,
        _: &[&str],
        _: &mut dyn FnMut(&Batch) -> ControlFlow<()>,
    ) -> Result<Vec<String>, SourceError> {
        Err(SourceError::TooMuch("too many spans".to_owned()))
    }

    fn services(&self) -> Result<Listed<String>, SourceError> {
        self.fail()
    }

    fn operations(&self, _: &str) -> Result<Listed<Operation>, SourceError> {
        self.fail()
    }

    fn edges(&self, _: TimeRange) -> Result<Edges, SourceError> {
        self.fail()
    }
}

#[tokio::test]
async fn a_broken_source_is_an_error_not_an_end() {
    for panics in [false, true] {
        let server = Server::over(Broken(panics));
        let v1 = [
            "services",
            "operations?service=a",
            "services/a/operations",
            "traces?service=a",
            "traces?traceID=1",
            "traces/1",
            "dependencies",
            "deep-dependencies?service=a",
        ];
        for path in v1 {
            let answer = server.get(&format!("/api/{path}")).await;
            assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{path}");
            assert_eq!(answer.json()["errors"][0]["code"], 500);
        }
        let v3 = [
            "services".to_owned(),
            "operations?service=a".to_owned(),
            "traces/1".to_owned(),
            format!("traces?{RANGE}"),
            format!("trace-summaries?{RANGE}"),
            "dependencies?startTime=2023-11-14T22:13:20Z&endTime=2023-11-14T22:13:21Z".to_owned(),
        ];
        for path in v3 {
            let answer = server.get(&format!("/api/v3/{path}")).await;
            assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{path}");
            assert_eq!(answer.json()["error"]["httpCode"], 500);
        }
    }
    let too_much = Server::over(Broken(false)).get("/api/metrics/calls?service=a").await;
    assert_eq!(too_much.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(too_much.json()["errors"][0]["msg"], "too many spans");
}

/// A source that finds two traces and can read only the first.
struct Torn(MemorySource);

impl TraceSource for Torn {
    fn trace(&self, id: TraceId) -> Result<Trace, SourceError> {
        match id.to_string().as_str() {
            "00000000000000000000000000000abc" => self.0.trace(id),
            _ => Err(SourceError::failed("disk on fire")),
        }
    }

    fn find_traces(
        &self,
        selector: &Selector,
        range: TimeRange,
        limit: usize,
    ) -> Result<Matches, SourceError> {
        self.0.find_traces(selector, range, limit)
    }

    fn scan_spans(
        &self,
        selector: &Selector,
        range: TimeRange,
        columns: &[&str],
        visit: &mut dyn FnMut(&Batch) -> ControlFlow<()>,
    ) -> Result<Vec<String>, SourceError> {
        self.0.scan_spans(selector, range, columns, visit)
    }

    fn services(&self) -> Result<Listed<String>, SourceError> {
        self.0.services()
    }

    fn operations(&self, service: &str) -> Result<Listed<Operation>, SourceError> {
        self.0.operations(service)
    }

    fn edges(&self, range: TimeRange) -> Result<Edges, SourceError> {
        self.0.edges(range)
    }
}

/// Traces are read while the answer is written; one that cannot be read is not left out silently.
#[tokio::test]
async fn a_trace_that_cannot_be_read_fails_the_answer() {
    let server = Server::over(Torn(MemorySource::fixtures()));
    for path in
        ["traces".to_owned(), format!("v3/traces?{RANGE}"), format!("v3/trace-summaries?{RANGE}")]
    {
        let answer = server.get(&format!("/api/{path}")).await;
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{path}");
        assert!(answer.text.contains("disk on fire"), "{}", answer.text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever a query says, the answer is one of the known statuses and valid JSON.
    #[test]
    fn no_query_breaks_anything(
        path in prop_oneof![
            Just("/api/traces"), Just("/api/operations"), Just("/api/dependencies"),
            Just("/api/deep-dependencies"), Just("/api/metrics/latencies"), Just("/api/metrics/calls"),
            Just("/api/traces/abc"), Just("/api/v3/traces"), Just("/api/v3/trace-summaries"),
            Just("/api/v3/traces/abc"), Just("/api/v3/operations"), Just("/api/v3/dependencies"),
        ],
        pairs in proptest::collection::vec((
            prop_oneof![
                Just("service"), Just("operation"), Just("tag"), Just("tags"), Just("start"), Just("end"),
                Just("limit"), Just("minDuration"), Just("traceID"), Just("raw"), Just("endTs"),
                Just("lookback"), Just("step"), Just("ratePer"), Just("quantile"), Just("spanKind"),
                Just("query.startTimeMin"), Just("query.startTimeMax"), Just("query.operationName"),
                Just("query.attributes"), Just("query.durationMin"), Just("startTime"), Just("endTime"),
            ],
            prop_oneof![
                Just("file_service".to_owned()), Just("0.5".to_owned()), Just("server".to_owned()),
                Just("a:b".to_owned()), Just("{\"error\":\"true\"}".to_owned()), Just("1ms".to_owned()),
                Just("2023-11-14T22:13:20Z".to_owned()), Just("2023-11-14T22:14:20Z".to_owned()),
                any::<i64>().prop_map(|n| n.to_string()), (0i64..100_000).prop_map(|n| n.to_string()),
                ".{0,12}",
            ],
        ), 0..6),
    ) {
        let query: String = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        let uri = format!("{path}?{query}");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let answer = runtime.block_on(async { Server::new().get(&uri).await });
        prop_assert!([200, 400, 404].contains(&answer.status.as_u16()), "{uri}: {}", answer.text);
        prop_assert!(answer.json().is_object());
    }
}
