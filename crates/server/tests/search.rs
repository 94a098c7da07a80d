//! The search API, asked from outside over a store.
#![allow(clippy::unwrap_used, reason = "tests say what broke by panicking")]

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use lacuna_server::gate::Gate;
use lacuna_server::jaeger::JaegerApi;
use lacuna_server::search::router;
use lacuna_signal::SignalKind;
use lacuna_signal::otlp::{decode, decode_json};
use lacuna_store::{Options, Store};
use opentelemetry_proto::tonic::trace::v1::TracesData;
use prost::Message;
use serde_json::{Value, json};
use tower::ServiceExt;

const START: u64 = 1_700_000_000_000_000_000;

/// A span: its trace and id, its parent, its name, when it starts and how long it takes in ms.
struct Span(u64, u64, Option<u64>, &'static str, u64, u64, Value);

fn request(service: &str, spans: &[Span]) -> Vec<u8> {
    let span = |Span(trace, id, parent, name, start, took, attributes): &Span| {
        let start = START + start * 1_000_000;
        let attributes: Vec<Value> = attributes
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| json!({"key": key, "value": {"stringValue": value}}))
            .collect();
        json!({
            "traceId": format!("{trace:032x}"), "spanId": format!("{id:016x}"), "name": name,
            "parentSpanId": parent.map_or(String::new(), |id| format!("{id:016x}")),
            "startTimeUnixNano": start.to_string(), "attributes": attributes,
            "endTimeUnixNano": (start + took * 1_000_000).to_string(),
        })
    };
    let spans: Vec<Value> = spans.iter().map(span).collect();
    let name = json!({"key": "service.name", "value": {"stringValue": service}});
    let request = json!({"resourceSpans": [
        {"resource": {"attributes": [name]}, "scopeSpans": [{"spans": spans}]}]});
    serde_json::to_vec(&request).unwrap()
}

fn append(store: &Store, json: &[u8]) {
    let (body, _) = decode_json(SignalKind::Spans, json).unwrap();
    let rows = decode(SignalKind::Spans, body.clone()).unwrap().batch;
    store.append_wait(SignalKind::Spans, body, rows).unwrap();
}

/// Trace 1: a checkout of 100 ms that pays in 20 ms. Trace 2: a checkout of 10 ms alone.
fn filled(options: Options) -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), options).unwrap();
    let web = [
        Span(
            1,
            1,
            None,
            "GET /checkout",
            0,
            100,
            json!({"tenant": "a b", "http.status_code": "200"}),
        ),
        Span(2, 3, None, "GET /checkout", 1_000, 10, json!({"tenant": "c"})),
    ];
    append(&store, &request("web-front", &web));
    let pay = [Span(1, 2, Some(1), "pay", 10, 20, json!({"tenant": "d"}))];
    append(&store, &request("pay", &pay));
    (folder, store)
}

struct Answer(StatusCode, Bytes);

impl Answer {
    fn json(&self) -> Value {
        assert_eq!(self.0, StatusCode::OK, "{:?}", self.1);
        serde_json::from_slice(&self.1).unwrap()
    }

    /// The last digit of the id of each trace.
    fn traces(&self) -> Vec<String> {
        let json = self.json();
        let traces = json["traces"].as_array().unwrap().iter();
        traces.map(|trace| trace["traceID"].as_str().unwrap()[31..].to_owned()).collect()
    }
}

async fn get_as(store: &Store, accept: &str, path: &str) -> Answer {
    let router: Router = router(store.clone(), Gate::default());
    let request = Request::get(path).header("accept", accept).body(Body::empty()).unwrap();
    let response = router.oneshot(request).await.unwrap();
    let status = response.status();
    Answer(status, response.into_body().collect().await.unwrap().to_bytes())
}

async fn get(store: &Store, path: &str) -> Answer {
    get_as(store, "application/json", path).await
}

async fn query(store: &Store, q: &str) -> Answer {
    let q: String = form_urlencoded::byte_serialize(q.as_bytes()).collect();
    get(store, &format!("/api/search?q={q}")).await
}

#[tokio::test]
async fn tempos_older_search_finds_by_tags_and_durations() {
    let (_folder, store) = filled(Options::default());
    for (params, expected) in [
        ("", &["2", "1"][..]),
        ("tags=tenant%3D%22a+b%22", &["1"]),
        ("tags=tenant%3Da", &[]),
        // Of one span, or its resource.
        ("tags=service.name%3Dpay+tenant%3Dd", &["1"]),
        ("tags=service.name%3Dpay+tenant%3Dc", &[]),
        // Names are found by a part.
        ("tags=service.name%3Dfront+name%3Dcheckout", &["2", "1"]),
        ("tags=root.name%3DGET+name%3Dpay", &["1"]),
        ("tags=root.service.name%3Dpay", &[]),
        ("tags=name%3D.*", &[]),
        ("tags=status.code%3Dok", &[]),
        // How long the whole trace took, not a span of it.
        ("minDuration=50ms", &["1"]),
        ("maxDuration=50ms", &["2"]),
        ("minDuration=10ms&maxDuration=99ms", &["2"]),
        ("minDuration=100ms&tags=name%3Dpay", &["1"]),
        ("tags=name%3Dpay&minDuration=101ms", &[]),
    ] {
        let found = get(&store, &format!("/api/search?{params}")).await;
        assert_eq!(found.traces(), expected, "{params}");
        assert_eq!(found.json()["warnings"], json!([]), "{params}");
    }
    for (params, says) in [
        ("tags=a%3D%22b", "tags: character 3: a quote that is not closed"),
        ("tags=a%3D1+a%3D2", "tags: `a` is given twice"),
        ("tags=status.code%3Dbad", "expected unset, ok or error"),
        ("minDuration=1", "expected a duration such as 100ms"),
        ("minDuration=2s&maxDuration=1s", "maxDuration is less than minDuration"),
        ("q=%7B%7D&tags=a%3D1", "q and tags are two ways to ask"),
        ("q=%7B%7D&minDuration=1s", "traceDuration >= 1s"),
    ] {
        let Answer(status, body) = get(&store, &format!("/api/search?{params}")).await;
        let said = String::from_utf8_lossy(&body);
        assert_eq!(status, StatusCode::BAD_REQUEST, "{params}: {said}");
        assert!(said.contains(says), "{params}: {said}");
    }
    let odd = get(&store, "/api/search?service=pay&limit=1").await.json();
    assert_eq!(odd["warnings"], json!(["parameter `service` is not known and was passed over"]));
}

#[tokio::test]
async fn queries_ask_about_whole_traces() {
    let (_folder, store) = filled(Options::default());
    for (q, expected) in [
        ("{ traceDuration > 50ms }", &["1"][..]),
        ("{ trace:duration <= 50ms }", &["2"]),
        ("{ name = \"pay\" && rootName = \"GET /checkout\" }", &["1"]),
        ("{ trace:rootService = \"web-front\" && service = \"pay\" }", &["1"]),
        ("{ span:childCount = 0 && name = \"GET /checkout\" }", &["2"]),
        ("{ parent.span.tenant = \"a b\" }", &["1"]),
        ("{ span.tenant != parent.tenant }", &["1"]),
        ("{ !(traceDuration > 50ms) }", &["2"]),
        ("{ name =~ \"GET.*\" } &> { name = \"pay\" }", &["1"]),
    ] {
        assert_eq!(query(&store, q).await.traces(), expected, "{q}");
    }
    let both = query(&store, "{ name =~ \"GET.*\" } &> { name = \"pay\" }").await.json();
    assert_eq!(both["traces"][0]["spanSet"]["matched"], 2);
}

/// A query of a trace that was not read whole says so: what it says is missing may be there.
#[tokio::test]
async fn a_trace_of_which_a_part_is_read_is_told() {
    let mut options = Options::default();
    options.trace_rows = 1;
    let (_folder, store) = filled(options);
    let found = query(&store, "{ name = \"pay\" } !<< { name =~ \"GET.*\" }").await.json();
    let warnings = found["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1, "{found}");
    let said = warnings[0].as_str().unwrap();
    assert!(said.starts_with(&format!("trace {:032x} has more than the 1 spans", 1)), "{said}");
    let trace = get(&store, &format!("/api/v2/traces/{:032x}", 1)).await.json();
    assert_eq!(trace["status"], "PARTIAL");
    assert!(trace["message"].as_str().unwrap().contains("only a part"), "{trace}");
}

/// A match that is known without the whole trace is listed, wherever in it it lies.
#[tokio::test]
async fn a_match_in_what_is_not_read_of_a_large_trace_is_found() {
    let mut options = Options::default();
    options.trace_rows = 3;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), options).unwrap();
    let span = |i: u64| {
        let name = if i >= 18 { "late" } else { "early" };
        Span(1, i + 1, (i > 0).then_some(1), name, i, 1, json!({"n": i.to_string()}))
    };
    let spans: Vec<Span> = (0..20).map(span).collect();
    append(&store, &request("web", &spans));
    for (q, matched, cut) in [
        ("{ name = \"late\" }", Some(2), false),
        ("{ span.n = \"19\" || name = \"never\" }", Some(1), false),
        ("{ name = \"late\" } || { span.n = \"0\" }", Some(3), false),
        ("{ name = \"late\" } && { span.n = \"5\" }", Some(3), false),
        ("{ name = \"late\" } && { name = \"never\" }", None, false),
        ("{ name = \"never\" }", None, false),
        // Known by the part that is read, or not to be known.
        ("{ } > { name = \"early\" }", Some(2), false),
        ("{ } > { name = \"late\" }", None, true),
    ] {
        let found = query(&store, q).await.json();
        let set = &found["traces"][0]["spanSet"];
        assert_eq!(set["matched"].as_u64(), matched, "{q}: {found}");
        assert_eq!(found["cut"], cut, "{q}: {found}");
        if matched.is_some() {
            assert!(!set["spans"].as_array().unwrap().is_empty(), "{q}: {found}");
        }
    }
    let found = query(&store, "{ name = \"late\" }").await.json();
    assert_eq!(found["traces"][0]["rootTraceName"], "early");
    assert_eq!(found["traces"][0]["durationMs"], 20);
    assert!(found["warnings"][0].as_str().unwrap().contains("the spans found are of all"));
}

/// A trace that was seen does not come again with each of its spans, and of two sides of `&&` the
/// rarer finds the candidates.
#[tokio::test]
async fn a_search_reads_no_trace_twice_nor_every_span_for_each_page() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Options::default()).unwrap();
    let span = |i: u64| {
        let (trace, rare) = (i % 120 + 1, if i == 7 { "rare" } else { "many" });
        Span(trace, i + 1, None, rare, i, 1, Value::Null)
    };
    let spans: Vec<Span> = (0..24_000).map(span).collect();
    append(&store, &request("web", &spans));
    store.flush().unwrap();
    let before = store.counters().rows_read;
    let found = query(&store, "{ } >> { name = \"many\" }").await.json();
    assert_eq!(found["metrics"]["inspectedTraces"], 120);
    // Two pages of candidates, and the traces themselves.
    let read = store.counters().rows_read - before;
    assert!(read <= 5 * 24_000, "{read} rows were read");
    for q in ["{ } && { name = \"rare\" }", "{ name = \"rare\" } && { }"] {
        let found = query(&store, q).await.json();
        assert_eq!(found["metrics"]["inspectedTraces"], 1, "{q}: {found}");
        assert_eq!(found["traces"][0]["spanSet"]["matched"], 200, "{q}: {found}");
    }
}

/// What Grafana's Tempo data source asks for a trace, and what it decodes the answer as.
#[tokio::test]
async fn a_trace_by_id_as_grafana_asks_for_it() {
    #[derive(Clone, PartialEq, Message)]
    struct TraceByIdResponse {
        #[prost(message, optional, tag = "1")]
        trace: Option<TracesData>,
        #[prost(int32, tag = "3")]
        status: i32,
        #[prost(string, tag = "4")]
        message: String,
    }
    let (_folder, store) = filled(Options::default());
    let names = |trace: TracesData| -> Vec<String> {
        let scopes = trace.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).map(|span| span.name).collect()
    };
    let Answer(status, body) =
        get_as(&store, "application/protobuf", "/api/v2/traces/1?start=1699990000&end=1700010000")
            .await;
    assert_eq!(status, StatusCode::OK);
    let answer = TraceByIdResponse::decode(body).unwrap();
    assert_eq!(names(answer.trace.unwrap()).len(), 2);
    assert_eq!((answer.status, answer.message.as_str()), (0, ""));
    let json = get(&store, "/api/v2/traces/1").await.json();
    let trace: TracesData = serde_json::from_value(json["trace"].clone()).unwrap();
    assert_eq!(names(trace).len(), 2);
    assert_eq!(get(&store, "/api/v2/traces/99").await.0, StatusCode::NOT_FOUND);
    assert_eq!(get(&store, "/api/v2/traces/xyz").await.0, StatusCode::BAD_REQUEST);
}

/// Jaeger's path for a trace is Tempo's older one: who asks for protobuf gets it.
#[tokio::test]
async fn a_trace_at_the_path_that_jaeger_and_tempo_share() {
    let (_folder, store) = filled(Options::default());
    let ask = async |accept: &str, id: &str| {
        let api = JaegerApi::new(std::sync::Arc::new(store.clone())).router();
        let request = Request::get(format!("/api/traces/{id}")).header("accept", accept);
        let response = api.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status();
        Answer(status, response.into_body().collect().await.unwrap().to_bytes())
    };
    let Answer(_, body) = ask("application/protobuf", "1").await;
    let trace = TracesData::decode(body).unwrap();
    let scopes = trace.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    assert_eq!(scopes.flat_map(|scope| &scope.spans).count(), 2);
    assert_eq!(ask("application/protobuf", "99").await.0, StatusCode::NOT_FOUND);
    assert!(ask("application/json", "1").await.json()["data"].is_array());
}

#[tokio::test]
async fn names_and_values_of_both_versions() {
    let (_folder, store) = filled(Options::default());
    let names = get(&store, "/api/search/tags").await.json();
    let names = names["tagNames"].as_array().unwrap();
    assert!(names.contains(&json!("tenant")) && names.contains(&json!("service.name")));
    let values = get(&store, "/api/search/tag/tenant/values").await.json();
    assert_eq!(values, json!({"tagValues": ["a b", "c", "d"]}));
    let scoped = get(&store, "/api/v2/search/tag/span.tenant/values?limit=2").await.json();
    assert_eq!(scoped["tagValues"].as_array().unwrap().len(), 2);
    let warning = scoped["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with("only a part: there are more values"), "{warning}");
    assert_eq!(get(&store, "/api/echo").await.1, "echo");
}

/// What Grafana's query builder completes with: the type says how it writes the value.
#[tokio::test]
async fn values_have_types_and_are_of_the_spans_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Options::default()).unwrap();
    let mixed = [
        json!({"intValue": "200"}),
        json!({"stringValue": "200"}),
        json!({"doubleValue": 1.5}),
        json!({"boolValue": true}),
        json!({"arrayValue": {"values": [{"intValue": "7"}, {"stringValue": "x"}]}}),
        json!({"bytesValue": "AQI="}),
    ];
    let spans: Vec<Value> = (1..)
        .zip(mixed)
        .map(|(id, value): (u64, Value)| {
            let at = (START + id).to_string();
            let attribute = |key: &str| json!({"key": key, "value": value});
            json!({"traceId": format!("{id:032x}"), "spanId": format!("{id:016x}"),
                "name": format!("work {id}"), "startTimeUnixNano": at, "endTimeUnixNano": at,
                "parentSpanId": if id > 1 { "00000000000000aa" } else { "" },
                "status": {"code": 2, "message": format!("failed {id}")},
                "attributes": [attribute("code")],
                "events": [{"timeUnixNano": at, "name": "tried", "attributes": [attribute("try")]}],
                "links": [{"traceId": format!("{id:032x}"), "spanId": format!("{id:016x}"),
                    "attributes": [attribute("why")]}]})
        })
        .collect();
    let name = json!({"key": "service.name", "value": {"stringValue": "shop"}});
    let request = json!({"resourceSpans": [
        {"resource": {"attributes": [name]}, "scopeSpans": [{"spans": spans}]}]});
    append(&store, &serde_json::to_vec(&request).unwrap());
    let typed = json!([
        {"value": "1.5", "type": "float"}, {"value": "200", "type": "int"},
        {"value": "200", "type": "string"}, {"value": "7", "type": "int"},
        {"value": "true", "type": "bool"}, {"value": "x", "type": "string"},
    ]);
    let text = |text: &str| json!([{"value": text, "type": "string"}]);
    for place in ["memory", "segment"] {
        for (field, q, expected) in [
            ("span.code", "", typed.clone()),
            (".code", "", typed.clone()),
            ("event.try", "", typed.clone()),
            ("link.why", "", typed.clone()),
            ("span.code", "{ name = \"work 1\" }", json!([{"value": "200", "type": "int"}])),
            ("event.try", "{ span.code > 100 }", json!([{"value": "200", "type": "int"}])),
            ("rootName", "", text("work 1")),
            ("rootServiceName", "", text("shop")),
            ("statusMessage", "{ span.code = 1.5 }", text("failed 3")),
            ("name", "{ span.code }", text("work 4")),
            ("event:name", "", text("tried")),
        ] {
            let query: String = form_urlencoded::byte_serialize(q.as_bytes()).collect();
            let path = format!("/api/v2/search/tag/{field}/values?q={query}");
            let found = get(&store, &path).await.json();
            assert_eq!(found["tagValues"], expected, "{place}: {field} {q}");
            assert_eq!(found["warnings"], Value::Null, "{place}: {field} {q}");
        }
        let names = async |params: &str| {
            get(&store, &format!("/api/v2/search/tags?{params}")).await.json()["scopes"].clone()
        };
        assert_eq!(names("scope=event").await, json!([{"name": "event", "tags": ["try"]}]));
        assert_eq!(names("scope=link").await, json!([{"name": "link", "tags": ["why"]}]));
        let none = "scope=span&q=%7Bname%3D%22none%22%7D";
        assert_eq!(names(none).await, json!([{"name": "span", "tags": []}]));
        assert_eq!(names("scope=span").await, json!([{"name": "span", "tags": ["code"]}]));
        store.flush().unwrap();
    }
    // Every value finds its span when it is written as its type says.
    for value in typed.as_array().unwrap() {
        let text = value["value"].as_str().unwrap();
        let quote = if value["type"] == "string" { "\"" } else { "" };
        let found = query(&store, &format!("{{ span.code = {quote}{text}{quote} }}")).await;
        assert_eq!(found.traces().len(), 1, "{value}");
    }
    let odd = get(&store, "/api/v2/search/tag/span.code/values?q=%7B+span.x+%3D").await.json();
    assert!(odd["warnings"][0].as_str().unwrap().starts_with("q was passed over: column"), "{odd}");
    let one = get(&store, "/api/search?limit=0&spss=0").await.json();
    assert_eq!(one["traces"].as_array().unwrap().len(), 6);
    assert_eq!(get(&store, "/api/v2/search/tag/duration/values").await.0, StatusCode::BAD_REQUEST);
}

/// Many traces, many spans of each: the limits of the answer hold.
#[tokio::test]
async fn an_answer_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Options::default()).unwrap();
    let spans: Vec<Span> =
        (0..300).map(|i| Span(i % 30 + 1, i + 1, None, "many", i, 1, Value::Null)).collect();
    append(&store, &request("web", &spans));
    let found =
        get(&store, "/api/search?q=%7B%20%7D%20%26%26%20%7B%20%7D&limit=7&spss=2").await.json();
    let traces = found["traces"].as_array().unwrap();
    assert_eq!((traces.len(), &found["cut"]), (7, &json!(true)));
    for trace in traces {
        assert_eq!(trace["spanSet"]["spans"].as_array().unwrap().len(), 2);
        assert_eq!(trace["spanSet"]["matched"], 10);
    }
}

/// An array is found by an element, from memory and from a segment's index.
#[tokio::test]
async fn arrays_are_found_by_an_element_and_by_what_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Options::default()).unwrap();
    let list = json!({"arrayValue": {"values": [{"stringValue": "x"}, {"intValue": "7"}]}});
    let span = |id: u64, value: Value| {
        json!({"traceId": format!("{id:032x}"), "spanId": format!("{id:016x}"), "name": "work",
            "startTimeUnixNano": (START + id).to_string(), "endTimeUnixNano": (START + id).to_string(),
            "attributes": [{"key": "tags", "value": value}]})
    };
    let spans =
        [span(1, list), span(2, json!({"stringValue": "x"})), span(3, json!({"stringValue": "y"}))];
    let request = json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]});
    append(&store, &serde_json::to_vec(&request).unwrap());
    for place in ["memory", "segment"] {
        for (q, expected) in [
            ("{ span.tags = \"x\" }", &["2", "1"][..]),
            ("{ .tags = \"x\" }", &["2", "1"]),
            ("{ span.tags = 7 }", &["1"]),
            ("{ span.tags =~ \"[xz]\" }", &["2", "1"]),
            ("{ span.tags > 6 }", &["1"]),
            ("{ span.tags != nil }", &["3", "2", "1"]),
            ("{ any.tags = `[\"x\",7]` }", &["1"]),
            ("{ any.tags = \"x\" }", &["2"]),
        ] {
            assert_eq!(query(&store, q).await.traces(), expected, "{place}: {q}");
        }
        store.flush().unwrap();
    }
}

/// Answers keep to the memory for answers: cut, and said so, or refused for the moment.
#[tokio::test]
async fn answers_keep_to_their_memory() {
    let mut options = Options::default();
    options.query_bytes = 1 << 20;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), options).unwrap();
    let text = "x".repeat(4096);
    let record = |i: u64| json!({"timeUnixNano": (START + i).to_string(), "body": {"stringValue": format!("{i} {text}")}});
    let records: Vec<Value> = (0..2_000).map(record).collect();
    let logs = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]});
    let (body, _) = decode_json(SignalKind::Logs, &serde_json::to_vec(&logs).unwrap()).unwrap();
    let rows = decode(SignalKind::Logs, body.clone()).unwrap().batch;
    store.append_wait(SignalKind::Logs, body, rows).unwrap();
    let spans: Vec<Span> =
        (0..500).map(|i| Span(1, i + 1, None, "many", i, 1, json!({"text": text}))).collect();
    append(&store, &request("web", &spans));

    for format in ["json", "otlp"] {
        let path = format!("/api/v1/logs?limit=2000&format={format}");
        let found = get(&store, &path).await.json();
        assert_eq!(found["cut"], true, "{format}");
        let list = match format {
            "json" => &found["logs"],
            _ => &found["resourceLogs"][0]["scopeLogs"][0]["logRecords"],
        };
        let list = list.as_array().unwrap();
        assert!((20..300).contains(&list.len()), "{format}: {}", list.len());
    }
    let few = get(&store, "/api/v1/logs?limit=2").await.json();
    assert!(few["logs"][0]["body"].as_str().unwrap().starts_with("1999 "));
    let trace = get(&store, "/api/v2/traces/1").await.json();
    assert_eq!(trace["status"], "PARTIAL");
    assert_eq!(store.answering_bytes(), 0, "all was given back");
    // Another answer has it all.
    let other = store.question().unwrap();
    assert!(other.hold((1 << 20) - 100));
    for path in ["/api/v1/logs", "/api/search", "/api/v2/traces/1", "/api/v2/search/tags"] {
        let Answer(status, body) = get(&store, path).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{path}: {body:?}");
        assert!(String::from_utf8_lossy(&body).contains("the memory for answers is used up"));
    }
    drop(other);
    assert_eq!(get(&store, "/api/search").await.0, StatusCode::OK);
}
