//! Search by selector over HTTP.
//!
//! | method and path | answer |
//! |---|---|
//! | `GET /api/search` | traces by `q`, or by `tags` and durations, in Grafana Tempo's shape |
//! | `GET /api/v2/search/tags` | names of attributes, by scope |
//! | `GET /api/v2/search/tag/{name}/values` | values of one |
//! | `GET /api/search/tags`, `GET /api/search/tag/{name}/values` | the same in Tempo's first version |
//! | `GET /api/v2/traces/{id}` | a trace, in OTLP's protobuf or JSON |
//! | `GET /api/echo` | `echo`: Grafana's test of a Tempo data source |
//! | `GET /api/v1/logs` | log records by `q`, newest first |
//!
//! Source: Tempo's HTTP API. `docs/selectors.md` describes the language, `docs/api.md` the answers.

mod answer;
mod asked;
mod by_id;
mod find;
mod tags;
mod values;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};
use lacuna_signal::otlp::to_json::OtlpJson;
use lacuna_signal::selector::{Selector, SelectorError, parse_duration};
use lacuna_signal::{Batch, SignalKind};
use lacuna_store::{Store, StoreError, TimeRange};
use serde::Serialize;

use crate::body::{self, Held};
use crate::gate::Gate;
use crate::lacking::damage;
use crate::times::parse_range;

pub use answer::{
    LogAnswer, LogsAnswer, Metrics, ServiceStats, SpanAnswer, SpanSet, TraceAnswer, TracesAnswer,
    any_value,
};
pub(crate) use by_id::{NO_ROOM, PROTOBUF, protobuf, wants_protobuf};
pub use find::{Wanted, traces};

/// Traces, and selected spans of each, unless the request says otherwise: as Tempo's.
const DEFAULT_TRACES: usize = 20;
const DEFAULT_SPANS: usize = 3;
/// Log records unless the request says otherwise.
const DEFAULT_LOGS: usize = 100;
/// Traces or log records at most.
const MAX_LIMIT: usize = 10_000;

/// The routes. Questions wait at `gate`, and what they gather counts as memory for answers.
pub fn router(store: Store, gate: Gate) -> Router {
    Router::new()
        .route("/api/search", get(search))
        .route("/api/search/tags", get(all_tag_names))
        .route("/api/search/tag/{name}/values", get(all_tag_values))
        .route("/api/v2/search/tags", get(tag_names))
        .route("/api/v2/search/tag/{name}/values", get(tag_values))
        .route("/api/v2/traces/{id}", get(by_id::trace))
        .route("/api/echo", get(|| async { "echo" }))
        .route("/api/v1/logs", get(logs))
        .with_state(Search { store, gate })
}

/// What the handlers share.
#[derive(Clone)]
struct Search {
    store: Store,
    gate: Gate,
}

/// Why there is no answer; in plain text, as Tempo says it.
pub(crate) struct Failure(pub StatusCode, pub String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.0, self.1).into_response();
        if self.0 == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        if matches!(error, StoreError::Busy { .. }) {
            return Self(StatusCode::SERVICE_UNAVAILABLE, error.to_string());
        }
        tracing::error!(%error, "search failed");
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

impl From<SelectorError> for Failure {
    fn from(error: SelectorError) -> Self {
        bad(format!("invalid query: {error}"))
    }
}

fn bad(message: impl Into<String>) -> Failure {
    Failure(StatusCode::BAD_REQUEST, message.into())
}

/// The parameters of a request.
struct Params(Vec<(String, String)>);

impl Params {
    fn parse(raw: Option<&str>) -> Self {
        Self(form_urlencoded::parse(raw.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    /// The value of `name`, unless it is empty.
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// A number of at most `most`. 0 is the default, as clients mean it that fill in a form.
    fn number(&self, name: &str, default: usize, most: usize) -> Result<usize, Failure> {
        let Some(text) = self.get(name) else { return Ok(default) };
        match text.parse() {
            Ok(0) => Ok(default),
            Ok(number) if (1..=most).contains(&number) => Ok(number),
            _ => Err(bad(format!("{name} is `{text}`: expected a number from 1 to {most}"))),
        }
    }

    fn time(&self, name: &str) -> Result<Option<i64>, Failure> {
        self.get(name)
            .map(|text| {
                let wrong =
                    "expected seconds since the epoch, or a time such as 2026-11-23T08:00:00Z";
                read_time(text).ok_or_else(|| bad(format!("{name} is `{text}`: {wrong}")))
            })
            .transpose()
    }

    /// A duration such as `1.5s`, in nanoseconds.
    fn duration(&self, name: &str) -> Result<Option<i64>, Failure> {
        let wrong = |text| bad(format!("{name} is `{text}`: expected a duration such as 100ms"));
        self.get(name).map(|text| parse_duration(text).ok_or_else(|| wrong(text))).transpose()
    }

    /// From `start` to `end`, which is not in it; everything without them. Tempo's 0 means none.
    fn range(&self) -> Result<TimeRange, Failure> {
        let start = self.time("start")?.unwrap_or(TimeRange::ALL.start);
        let end = self.time("end")?.filter(|end| *end != 0).unwrap_or(TimeRange::ALL.end);
        if start >= end {
            return Err(bad("start is not before end: nothing is between them"));
        }
        Ok(TimeRange::new(start, end))
    }
}

/// Seconds since the epoch, or RFC 3339, in nanoseconds.
fn read_time(text: &str) -> Option<i64> {
    const SECOND: i64 = 1_000_000_000;
    if let Ok(seconds) = text.parse::<i64>() {
        return Some(seconds.saturating_mul(SECOND));
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return seconds.is_finite().then_some((seconds * SECOND as f64) as i64);
    }
    let time: jiff::Timestamp = text.parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok()
}

/// Runs `work` on a thread that may block, as one of a few at once, and sends its answer as it is
/// written. What it gathers of `store` counts until then.
pub(crate) async fn answer<T: Serialize + Send + 'static>(
    store: &Store,
    gate: &Gate,
    work: impl FnOnce(&Store) -> Result<T, Failure> + Send + 'static,
) -> Response {
    let (place, store) = (gate.enter().await, store.clone());
    let done = tokio::task::spawn_blocking(move || {
        let _place = place;
        let question = store.question()?;
        Ok(Held::new(work(&question)?, question))
    });
    let broken = |why: String| Failure(StatusCode::INTERNAL_SERVER_ERROR, why);
    match done.await {
        Ok(Ok(value)) => {
            body::json(value, false).await.unwrap_or_else(|why| broken(why).into_response())
        }
        Ok(Err(failure)) => Failure::into_response(failure),
        Err(error) => broken(error.to_string()).into_response(),
    }
}

async fn search(State(Search { store, gate }): State<Search>, RawQuery(raw): RawQuery) -> Response {
    answer(&store, &gate, move |store| {
        let params = Params::parse(raw.as_deref());
        let (query, mut warnings) = asked::query(&params)?;
        let wanted = Wanted {
            range: params.range()?,
            traces: params.number("limit", DEFAULT_TRACES, MAX_LIMIT)?,
            spans: params.number("spss", DEFAULT_SPANS, MAX_LIMIT)?,
        };
        let mut found = traces(store, &query, &wanted)?;
        warnings.append(&mut found.warnings);
        Ok(TracesAnswer { warnings, ..found })
    })
    .await
}

async fn logs(State(Search { store, gate }): State<Search>, RawQuery(raw): RawQuery) -> Response {
    answer(&store, &gate, move |store| {
        let params = Params::parse(raw.as_deref());
        let selector = Selector::parse(params.get("q").unwrap_or("log { }"))?;
        if selector.kind() != SignalKind::Logs {
            return Err(bad("q selects spans: GET /api/search finds them; write log { … }"));
        }
        let otlp = match params.get("format") {
            None | Some("json") => false,
            Some("otlp") => true,
            Some(other) => {
                return Err(bad(format!("format is `{other}`: expected json or otlp")));
            }
        };
        let limit = params.number("limit", DEFAULT_LOGS, MAX_LIMIT)?;
        let range = parse_range(params.get("from"), params.get("to"), jiff::Timestamp::now());
        let range = range.map_err(bad)?;
        let found = store.newest(SignalKind::Logs, Some(&selector), range, None, limit)?;
        let (cut, warnings) = (found.cut, damage(&found.damaged));
        Ok(match otlp {
            true => Logs::Otlp(OtlpLogs { cut, warnings, logs: AsOtlp(found.items) }),
            false => Logs::Json(JsonLogs { logs: Records(found.items), cut, warnings }),
        })
    })
    .await
}

/// Log records in one of two shapes.
#[derive(Serialize)]
#[serde(untagged)]
enum Logs {
    Json(JsonLogs),
    Otlp(OtlpLogs),
}

/// [`LogsAnswer`], of which one record at a time is made as it is written.
#[derive(Serialize)]
struct JsonLogs {
    logs: Records,
    cut: bool,
    warnings: Vec<String>,
}

struct Records(Batch);

impl Serialize for Records {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(LogAnswer::each(&self.0))
    }
}

/// An OTLP/JSON request, and beside it what it lacks: who reads OTLP/JSON passes over members that it
/// does not know.
#[derive(Serialize)]
struct OtlpLogs {
    #[serde(flatten)]
    logs: AsOtlp,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

struct AsOtlp(Batch);

impl Serialize for AsOtlp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        OtlpJson::new(self.0.kind(), std::slice::from_ref(&self.0)).serialize(serializer)
    }
}

async fn tag_names(State(search): State<Search>, RawQuery(raw): RawQuery) -> Response {
    answer(&search.store, &search.gate, move |store| {
        let params = Params::parse(raw.as_deref());
        Ok(tags::names(store, params.get("scope"), params.range()?, params.get("q"))?)
    })
    .await
}

/// The first version of [`tag_names`]: one list.
async fn all_tag_names(State(search): State<Search>, RawQuery(raw): RawQuery) -> Response {
    answer(&search.store, &search.gate, move |store| {
        let params = Params::parse(raw.as_deref());
        Ok(tags::names(store, None, params.range()?, None)?.flat())
    })
    .await
}

fn values_of(store: &Store, name: &str, raw: Option<&str>) -> Result<values::TagValues, Failure> {
    let params = Params::parse(raw);
    let limit = params.number("limit", values::DEFAULT_VALUES, MAX_LIMIT)?;
    values::values(store, name, params.range()?, limit, params.get("q"))?.ok_or_else(|| {
        let expected = "expected span.KEY, resource.KEY, event.KEY, link.KEY, instrumentation.KEY, \
                        .KEY, or an intrinsic of text or of fixed values, such as name or status";
        bad(format!("`{name}` has no list of values: {expected}"))
    })
}

async fn tag_values(
    State(search): State<Search>,
    Path(name): Path<String>,
    RawQuery(raw): RawQuery,
) -> Response {
    answer(&search.store, &search.gate, move |store| values_of(store, &name, raw.as_deref())).await
}

/// The first version of [`tag_values`]: names have no scope, and values no type.
async fn all_tag_values(
    State(search): State<Search>,
    Path(name): Path<String>,
    RawQuery(raw): RawQuery,
) -> Response {
    answer(&search.store, &search.gate, move |store| {
        let name = match name.as_str() {
            "name" | "status" | "kind" => name,
            "status.code" => "status".to_owned(),
            "root.name" => "rootName".to_owned(),
            "root.service.name" => "rootServiceName".to_owned(),
            _ => format!(".{name}"),
        };
        Ok(values_of(store, &name, raw.as_deref())?.flat())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_or_rfc_3339() {
        assert_eq!(read_time("12"), Some(12_000_000_000));
        assert_eq!(read_time("1.5"), Some(1_500_000_000));
        assert_eq!(read_time("1970-01-01T00:00:12Z"), Some(12_000_000_000));
        for bad in ["", "soon", "NaN", "inf"] {
            assert_eq!(read_time(bad), None, "{bad}");
        }
    }
}
