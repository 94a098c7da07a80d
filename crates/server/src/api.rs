//! Lacuna's own HTTP API, health and metrics.
//!
//! | method and path | answer |
//! |---|---|
//! | `GET /api/v1/findings` | findings; `?status=open\|resolved`, `?contract=NAME` |
//! | `GET /api/v1/findings/stream` | changes as server-sent events; `Last-Event-ID` |
//! | `GET /api/v1/findings/{fingerprint}` | one |
//! | `POST`, `DELETE /api/v1/findings/{fingerprint}/acknowledge` | take it on, `{by, comment}`; give it back |
//! | `GET /api/v1/findings/{fingerprint}/instances` | its instances; `?limit=`, `?evidence=true` |
//! | `GET /api/v1/contracts` | contracts, their verdicts and health |
//! | `GET /` | what there is, as text |
//! | `GET /healthz` | 200 while the process runs |
//! | `GET /readyz` | 200 when the monitor knows what it has to know of the past, 503 before and if it has broken down |
//! | `GET /metrics` | OpenMetrics |

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use lacuna_contract::Contract;
use lacuna_signal::finding::{Acknowledgement, Finding, Instance, Status};
use lacuna_store::Store;
use serde::{Deserialize, Serialize};

use crate::evidence::{self, Step};
use crate::exposition;
use crate::live::Live;
use crate::stream;
use crate::telemetry::{OPENMETRICS, SharedTelemetry};

/// Instances that a request gets unless it says otherwise, and at most.
const DEFAULT_INSTANCES: usize = 100;
const MAX_INSTANCES: usize = 10_000;

/// What a person sees who opens the port in a browser.
const INDEX: &str = "\
Lacuna. There is no user interface here yet; these paths answer:

/api/v1/findings                            what was found
/api/v1/findings/stream                     what changes, as server-sent events
/api/v1/findings/{fingerprint}/instances    every instance of it; ?evidence=true
/api/v1/contracts                           what was promised, and what became of it
/api/v1/explain?key=NAME=VALUE              the story of one key
/api/v1/export?from=1h                      what is stored, as OTLP/JSON lines
/api/services  /api/traces  /api/v3/...     Jaeger's query APIs, v1 and v3
/api/search?q={...}  /api/v1/logs?q=log{...}   traces and log records by selector
/healthz  /readyz  /metrics                 the engine itself
";

#[derive(Clone)]
struct Api {
    store: Store,
    live: Arc<Live>,
    telemetry: SharedTelemetry,
    /// Where people reach this port.
    base: Arc<str>,
    /// How long data is kept; `None` if its age does not matter.
    retention: Option<Duration>,
}

/// The routes; `base` is where people reach them, for links, `retention` how long data is kept.
pub fn router(
    store: Store,
    live: Arc<Live>,
    telemetry: SharedTelemetry,
    base: &str,
    retention: Option<Duration>,
) -> Router {
    Router::new()
        .route("/api/v1/findings", get(findings))
        .route("/api/v1/findings/stream", get(stream))
        .route("/api/v1/findings/{fingerprint}", get(finding))
        .route("/api/v1/findings/{fingerprint}/acknowledge", post(acknowledge).delete(give_back))
        .route("/api/v1/findings/{fingerprint}/instances", get(instances))
        .route("/api/v1/contracts", get(contracts))
        .route("/", get(|| async { INDEX }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(Api { store, live, telemetry, base: base.into(), retention })
}

/// An error as JSON: `{"error": {"code": 404, "message": "…"}}`.
pub(crate) struct Failure(pub(crate) StatusCode, pub(crate) String);

impl Failure {
    fn broken(error: impl std::fmt::Display) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self(status, message) = self;
        let body = serde_json::json!({"error": {"code": status.as_u16(), "message": message}});
        (status, axum::Json(body)).into_response()
    }
}

type Asked<T> = Result<Query<T>, QueryRejection>;

/// The parameters of a request, or what is wrong with them.
fn asked<T>(query: Asked<T>) -> Result<T, Failure> {
    let Query(query) =
        query.map_err(|error| Failure(StatusCode::BAD_REQUEST, error.body_text()))?;
    Ok(query)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FindingsQuery {
    status: Option<Status>,
    contract: Option<String>,
    acknowledged: Option<bool>,
}

/// Of requests without parameters.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoQuery {}

#[derive(Serialize)]
struct Findings {
    findings: Vec<Finding>,
}

async fn findings(
    State(api): State<Api>,
    query: Asked<FindingsQuery>,
) -> Result<axum::Json<Findings>, Failure> {
    let query = asked(query)?;
    let mut findings = api.live.findings();
    findings.retain(|finding| {
        query.status.is_none_or(|status| finding.status == status)
            && query.contract.as_ref().is_none_or(|name| finding.concerns(name))
            && query.acknowledged.is_none_or(|wanted| finding.acknowledged.is_some() == wanted)
    });
    let findings = findings.into_iter().map(|finding| finding.linked(&api.base)).collect();
    Ok(axum::Json(Findings { findings }))
}

impl Api {
    fn finding(&self, fingerprint: &str) -> Result<Finding, Failure> {
        let found = self.live.finding(fingerprint).map(|finding| finding.linked(&self.base));
        found.ok_or_else(|| {
            let message = format!(
                "no finding has the fingerprint `{fingerprint}`: GET /api/v1/findings lists them"
            );
            Failure(StatusCode::NOT_FOUND, message)
        })
    }
}

async fn finding(
    State(api): State<Api>,
    Path(fingerprint): Path<String>,
    query: Asked<NoQuery>,
) -> Result<axum::Json<Finding>, Failure> {
    asked(query)?;
    api.finding(&fingerprint).map(axum::Json)
}

async fn stream(State(api): State<Api>, headers: HeaderMap) -> Response {
    match stream::changes(&api.live, &api.base, &headers) {
        Some(changes) => changes.into_response(),
        None => {
            let message = "the server is stopping".to_owned();
            Failure(StatusCode::SERVICE_UNAVAILABLE, message).into_response()
        }
    }
}

/// Who takes a finding on.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TakeOn {
    by: String,
    comment: Option<String>,
}

async fn acknowledge(
    State(api): State<Api>,
    Path(fingerprint): Path<String>,
    body: Result<axum::Json<TakeOn>, JsonRejection>,
) -> Result<axum::Json<Finding>, Failure> {
    let axum::Json(TakeOn { by, comment }) =
        body.map_err(|error| Failure(error.status(), error.body_text()))?;
    let by = by.trim().to_owned();
    if by.is_empty() {
        let message = "`by` is empty: say who takes the finding on".to_owned();
        return Err(Failure(StatusCode::BAD_REQUEST, message));
    }
    let comment = comment.filter(|comment| !comment.trim().is_empty());
    api.take_on(fingerprint, Some(Acknowledgement { by, at: Timestamp::now(), comment })).await
}

async fn give_back(
    State(api): State<Api>,
    Path(fingerprint): Path<String>,
) -> Result<axum::Json<Finding>, Failure> {
    api.take_on(fingerprint, None).await
}

impl Api {
    async fn take_on(
        self,
        fingerprint: String,
        by: Option<Acknowledgement>,
    ) -> Result<axum::Json<Finding>, Failure> {
        // The answer comes when it is on the disk.
        let done = tokio::task::spawn_blocking(move || {
            let finding = self.finding(&fingerprint)?;
            let taken_on = self.live.acknowledge(&finding.fingerprint, by);
            taken_on.map(|finding| finding.linked(&self.base)).ok_or_else(|| {
                let message = "the finding is resolved: there is nothing to take on".to_owned();
                Failure(StatusCode::CONFLICT, message)
            })
        });
        done.await.map_err(Failure::broken)?.map(axum::Json)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InstancesQuery {
    limit: Option<usize>,
    #[serde(default)]
    evidence: bool,
}

/// The instances of a finding.
#[derive(Serialize)]
struct Instances {
    /// Instances, oldest first.
    instances: Vec<WithEvidence>,
    /// Whether there are more.
    cut: bool,
    /// What was missing while evidence was looked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// An instance with the spans that speak for it, if they were asked for.
#[derive(Serialize)]
struct WithEvidence {
    #[serde(flatten)]
    instance: Instance,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<Vec<Step>>,
}

async fn instances(
    State(api): State<Api>,
    Path(fingerprint): Path<String>,
    query: Asked<InstancesQuery>,
) -> Result<axum::Json<Instances>, Failure> {
    let query = asked(query)?;
    let limit = query.limit.unwrap_or(DEFAULT_INSTANCES).min(MAX_INSTANCES);
    let done =
        tokio::task::spawn_blocking(move || api.instances(&fingerprint, limit, query.evidence));
    done.await.map_err(Failure::broken)?.map(axum::Json)
}

impl Api {
    fn instances(
        &self,
        fingerprint: &str,
        limit: usize,
        evidence: bool,
    ) -> Result<Instances, Failure> {
        let finding = self.finding(fingerprint)?;
        let since = {
            let book = self.live.desk().book();
            book.entries().get(fingerprint).and_then(|entry| entry.since)
        };
        // Those of episodes before stand first.
        let most = if since.is_some() { usize::MAX } else { limit };
        let wanted = |verdict| Some(verdict) == finding.verdict;
        let mut cut = false;
        let mut instances: Vec<(Option<Arc<Contract>>, Instance)> = Vec::new();
        {
            let monitor = self.live.monitor();
            for name in &finding.contracts {
                let contract = monitor.contracts().find(|contract| contract.name == *name).cloned();
                let (found, more) = monitor.instances(name, wanted, most).unwrap_or_default();
                cut |= more;
                instances.extend(found.into_iter().map(|instance| (contract.clone(), instance)));
            }
        }
        instances.retain(|(_, instance)| since.is_none_or(|s| instance.activated_at > s));
        instances.sort_by_key(|(_, instance)| instance.activated_at);
        cut |= instances.len() > limit;
        instances.truncate(limit);
        let mut warnings = Vec::new();
        let mut with = |(contract, mut instance): (Option<Arc<Contract>>, Instance)| {
            instance.link(&self.base);
            let steps = match contract.as_ref().filter(|_| evidence) {
                None => None,
                Some(contract) => Some(
                    evidence::steps(&self.store, contract, &instance, &mut warnings)
                        .map_err(Failure::broken)?,
                ),
            };
            Ok(WithEvidence { instance, evidence: steps })
        };
        let instances = instances.into_iter().map(&mut with).collect::<Result<_, Failure>>()?;
        Ok(Instances { instances, cut, warnings })
    }
}

async fn contracts(State(api): State<Api>) -> Response {
    let (statuses, clocks) = {
        let monitor = api.live.monitor();
        (monitor.status(), monitor.clocks())
    };
    let reload_error = api.live.reloads().error;
    let ready = api.live.is_ready();
    let body = serde_json::json!({
        "contracts": statuses, "clocks": clocks, "reload_error": reload_error, "ready": ready,
        "failure": api.live.failure(), "retention_seconds": api.retention.map(|age| age.as_secs()),
    });
    axum::Json(body).into_response()
}

async fn ready(State(api): State<Api>) -> Response {
    if api.live.is_ready() {
        return "ready\n".into_response();
    }
    if let Some(why) = api.live.failure() {
        let message = format!(
            "not ready: the contract monitor has broken down: {why}; telemetry is taken, but no \
             contract is watched until the next start\n"
        );
        return (StatusCode::SERVICE_UNAVAILABLE, message).into_response();
    }
    let message = "not ready: what was stored before is being read; telemetry is taken meanwhile\n";
    (StatusCode::SERVICE_UNAVAILABLE, message).into_response()
}

async fn metrics(State(api): State<Api>) -> Response {
    let mut more = String::new();
    exposition::store(&api.store, &mut more);
    exposition::contracts(&api.live.monitor().status(), &mut more);
    exposition::live(&api.live, &mut more);
    match api.telemetry.encode(&more) {
        Ok(text) => ([(CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
