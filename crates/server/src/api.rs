//! Lacuna's own HTTP API, health and metrics.
//!
//! | method and path | answer |
//! |---|---|
//! | `GET /api/v1/findings` | findings; `?status=open\|resolved`, `?contract=NAME` |
//! | `GET /api/v1/findings/{fingerprint}` | one |
//! | `GET /api/v1/findings/{fingerprint}/instances` | its instances; `?limit=`, `?evidence=true` |
//! | `GET /api/v1/contracts` | contracts, their verdicts and health |
//! | `GET /` | what there is, as text |
//! | `GET /healthz` | 200 while the process runs |
//! | `GET /readyz` | 200 when history has been replayed |
//! | `GET /metrics` | OpenMetrics |

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use lacuna_signal::finding::{Finding, Instance, Status};
use lacuna_store::Store;
use serde::{Deserialize, Serialize};

use crate::evidence::{self, Step};
use crate::exposition;
use crate::live::Live;
use crate::telemetry::{OPENMETRICS, SharedTelemetry};

/// Instances that a request gets unless it says otherwise, and at most.
const DEFAULT_INSTANCES: usize = 100;
const MAX_INSTANCES: usize = 10_000;

/// What a person sees who opens the port in a browser.
const INDEX: &str = "\
Lacuna. There is no user interface here yet; these paths answer:

/api/v1/findings                            what was found
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
}

/// The routes.
pub fn router(store: Store, live: Arc<Live>, telemetry: SharedTelemetry) -> Router {
    Router::new()
        .route("/api/v1/findings", get(findings))
        .route("/api/v1/findings/{fingerprint}", get(finding))
        .route("/api/v1/findings/{fingerprint}/instances", get(instances))
        .route("/api/v1/contracts", get(contracts))
        .route("/", get(|| async { INDEX }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(|| async { "ready\n" }))
        .route("/metrics", get(metrics))
        .with_state(Api { store, live, telemetry })
}

/// An error as JSON: `{"error": {"code": 404, "message": "…"}}`.
pub(crate) struct Failure(pub(crate) StatusCode, pub(crate) String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self(status, message) = self;
        let body = serde_json::json!({"error": {"code": status.as_u16(), "message": message}});
        (status, axum::Json(body)).into_response()
    }
}

#[derive(Deserialize)]
struct FindingsQuery {
    status: Option<Status>,
    contract: Option<String>,
}

#[derive(Serialize)]
struct Findings {
    findings: Vec<Finding>,
}

async fn findings(
    State(api): State<Api>,
    query: Result<Query<FindingsQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<axum::Json<Findings>, Failure> {
    let Query(query) =
        query.map_err(|error| Failure(StatusCode::BAD_REQUEST, error.body_text()))?;
    let source = query.contract.map(|name| format!("contract/{name}"));
    let mut findings = api.live.monitor().findings();
    findings.retain(|finding| {
        query.status.is_none_or(|status| finding.status == status)
            && source.as_ref().is_none_or(|source| finding.source == *source)
    });
    Ok(axum::Json(Findings { findings }))
}

impl Api {
    fn finding(&self, fingerprint: &str) -> Result<Finding, Failure> {
        let findings = self.live.monitor().findings();
        findings.into_iter().find(|finding| finding.fingerprint == fingerprint).ok_or_else(|| {
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
) -> Result<axum::Json<Finding>, Failure> {
    api.finding(&fingerprint).map(axum::Json)
}

#[derive(Deserialize)]
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
    query: Result<Query<InstancesQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<axum::Json<Instances>, Failure> {
    let Query(query) =
        query.map_err(|error| Failure(StatusCode::BAD_REQUEST, error.body_text()))?;
    let limit = query.limit.unwrap_or(DEFAULT_INSTANCES).min(MAX_INSTANCES);
    let done =
        tokio::task::spawn_blocking(move || api.instances(&fingerprint, limit, query.evidence));
    done.await
        .map_err(|error| Failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?
        .map(axum::Json)
}

impl Api {
    fn instances(
        &self,
        fingerprint: &str,
        limit: usize,
        evidence: bool,
    ) -> Result<Instances, Failure> {
        let finding = self.finding(fingerprint)?;
        let name = finding.source.trim_start_matches("contract/");
        let (contract, (instances, cut)) = {
            let monitor = self.live.monitor();
            let contract = monitor.contracts().find(|contract| contract.name == name).cloned();
            let wanted = |verdict| Some(verdict) == finding.verdict;
            (contract, monitor.instances(name, wanted, limit).unwrap_or_default())
        };
        let with = |instance: Instance| {
            let steps = match contract.as_ref().filter(|_| evidence) {
                None => None,
                Some(contract) => Some(
                    evidence::steps(&self.store, contract, &instance)
                        .map_err(|e| Failure(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?,
                ),
            };
            Ok(WithEvidence { instance, evidence: steps })
        };
        let instances = instances.into_iter().map(with).collect::<Result<_, Failure>>()?;
        Ok(Instances { instances, cut })
    }
}

async fn contracts(State(api): State<Api>) -> Response {
    let statuses = api.live.monitor().status();
    let reload_error = api.live.reload_error();
    axum::Json(serde_json::json!({"contracts": statuses, "reload_error": reload_error}))
        .into_response()
}

async fn metrics(State(api): State<Api>) -> Response {
    let mut more = String::new();
    exposition::store(&api.store, &mut more);
    exposition::contracts(&api.live.monitor().status(), &mut more);
    match api.telemetry.encode(&more) {
        Ok(text) => ([(CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
