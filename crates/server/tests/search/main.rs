//! The search API, asked from outside over a store.
#![allow(clippy::unwrap_used, reason = "tests say what broke by panicking")]

mod large;
mod values;

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

/// So are arrays of events and links.
#[tokio::test]
async fn arrays_of_events_and_links_are_found_by_an_element() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Options::default()).unwrap();
    let list = json!({"arrayValue": {"values": [{"stringValue": "x"}, {"intValue": "7"}]}});
    let attributes = json!([{"key": "ids", "value": list}]);
    let at = START.to_string();
    let span = json!({"traceId": format!("{:032x}", 1), "spanId": format!("{:016x}", 1),
        "name": "work", "startTimeUnixNano": at, "endTimeUnixNano": at,
        "events": [{"name": "e", "timeUnixNano": at, "attributes": attributes}],
        "links": [{"traceId": format!("{:032x}", 2), "spanId": format!("{:016x}", 2),
            "attributes": attributes}]});
    let request = json!({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]});
    append(&store, &serde_json::to_vec(&request).unwrap());
    for place in ["memory", "segment"] {
        for scope in ["event", "link"] {
            for (value, found) in [("= \"x\"", 1), ("= 7", 1), ("= \"y\"", 0), ("!= nil", 1)] {
                let q = format!("{{ {scope}.ids {value} }}");
                assert_eq!(query(&store, &q).await.traces().len(), found, "{place}: {q}");
            }
        }
        store.flush().unwrap();
    }
}
