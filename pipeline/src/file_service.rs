//! `file_service`: takes essays, stores them, and says so on Kafka.

use std::time::Duration;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use clap::Args;
use lacuna_instrument::correlation;
use lacuna_instrument::http::ClientRequest;
use lacuna_instrument::outcome::{Outcome, outcome};
use lacuna_instrument::postgres::Pool;
use opentelemetry::trace::FutureExt;
use opentelemetry::{Context, KeyValue};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::bos::BatchView;
use crate::bus::{Publisher, create_topics};
use crate::business;
use crate::config::{Backends, Listen};
use crate::envelope::{ESSAY_PROVISIONED, Envelope, EssayProvisioned};
use crate::error::Error;
use crate::http::{self, ApiError, Process, Readiness, annotate};

/// The service's name, in telemetry and in envelopes.
pub const SERVICE: &str = "file_service";
/// Where it listens unless told otherwise.
pub const DEFAULT_PORT: u16 = 7001;

const TABLES: &[&str] = &["CREATE TABLE IF NOT EXISTS provisioned_essays (
        essay_id text PRIMARY KEY,
        batch_id text NOT NULL,
        correlation_id text NOT NULL,
        file_name text NOT NULL,
        content text NOT NULL,
        provisioned_at timestamptz NOT NULL DEFAULT clock_timestamp())"];

/// How long BOS may take to say whether it knows a batch.
const BOS_PATIENCE: Duration = Duration::from_secs(10);

/// Options of the file service alone.
#[derive(Clone, Debug, Args)]
pub struct FileArgs {
    /// Base URL of `batch_orchestrator_service`, which is asked whether it knows a batch. Without it,
    /// essays of any batch are taken.
    #[arg(long, env = "BOS_URL")]
    pub bos: Option<String>,
}

#[derive(Clone)]
struct FileService {
    pool: Pool,
    publisher: Publisher,
    transitions: business::Count,
    http: reqwest::Client,
    bos: Option<String>,
}

#[derive(Debug, Deserialize)]
struct UploadRequest {
    files: Vec<File>,
}

#[derive(Debug, Deserialize)]
struct File {
    name: String,
    content: String,
}

#[derive(Debug, Serialize)]
struct UploadResponse {
    batch_id: String,
    essays: Vec<Uploaded>,
}

#[derive(Debug, Serialize)]
struct Uploaded {
    essay_id: String,
    correlation_id: String,
    file_name: String,
}

/// Runs the service until it is time to stop.
pub async fn run(
    backends: &Backends,
    listen: &Listen,
    args: &FileArgs,
    process: Process,
) -> Result<(), Error> {
    let listener = http::bind(listen, DEFAULT_PORT).await?;
    let pool = crate::db::connect(&backends.database_url, &backends.namespace.namespace, 8).await?;
    crate::db::create(&pool, &backends.namespace.namespace, TABLES).await?;
    create_topics(backends, &[ESSAY_PROVISIONED]).await?;
    let files = FileService {
        pool,
        publisher: Publisher::connect(backends, SERVICE)?,
        transitions: business::essay_state_transitions(),
        http: http_client()?,
        bos: args.bos.clone(),
    };
    let routes = Router::new().route("/v1/batches/{id}/files", post(upload)).with_state(files);
    http::serve(SERVICE, listener, routes, listen, Readiness::of(0), process).await
}

fn http_client() -> Result<reqwest::Client, Error> {
    let client = reqwest::Client::builder().timeout(BOS_PATIENCE).build();
    client.map_err(|error| Error::Usage(format!("HTTP client: {error}")))
}

async fn upload(
    State(files): State<FileService>,
    Path(batch_id): Path<String>,
    request: Result<Json<UploadRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<UploadResponse>), ApiError> {
    let Json(request) = request?;
    let batch_id = Uuid::parse_str(&batch_id)
        .map_err(|_| ApiError::bad_request(format!("'{batch_id}' is not a batch id")))?
        .to_string();
    if request.files.is_empty() {
        return Err(ApiError::bad_request("files must name at least one essay"));
    }
    annotate([
        KeyValue::new("batch_id", batch_id.clone()),
        KeyValue::new("essays.count", i64::try_from(request.files.len()).unwrap_or(i64::MAX)),
    ]);
    files.check_batch(&batch_id).await?;
    let mut essays = Vec::with_capacity(request.files.len());
    let alone = request.files.len() == 1;
    for file in request.files {
        // An essay is followed by its request's id while it is the only one in it, else by its own.
        let correlation_id =
            if alone { http::correlation_id() } else { Uuid::new_v4().to_string() };
        let essay_id = Uuid::new_v4().to_string();
        let context = correlation::with(&Context::current(), correlation_id.clone());
        let uploaded = Uploaded { essay_id, correlation_id, file_name: file.name };
        files.provision(&batch_id, &uploaded, &file.content).with_context(context).await?;
        essays.push(uploaded);
    }
    Ok((StatusCode::CREATED, Json(UploadResponse { batch_id, essays })))
}

impl FileService {
    /// Asks BOS whether the batch was registered.
    async fn check_batch(&self, batch_id: &str) -> Result<(), ApiError> {
        let Some(bos) = &self.bos else { return Ok(()) };
        let url = format!("{bos}/v1/batches/{batch_id}");
        let response = ClientRequest::new("GET", &url)
            .template("/v1/batches/{id}")
            .send(
                |headers| self.http.get(&url).headers(headers).send(),
                |response| response.status().as_u16(),
            )
            .await;
        let failed = |reason: String| Error::Call { url: url.clone(), reason };
        let response = response.map_err(|error| failed(error.to_string()))?;
        if response.status() == StatusCode::NOT_FOUND {
            return Err(ApiError::not_found(format!("no batch has the id '{batch_id}'")));
        }
        let response = response.error_for_status().map_err(|error| failed(error.to_string()))?;
        let batch: BatchView = response.json().await.map_err(|error| failed(error.to_string()))?;
        tracing::debug!(
            layer = "application",
            batch_id,
            state = batch.state,
            "BOS knows the batch"
        );
        Ok(())
    }

    /// Stores an essay and says so, or says why not.
    async fn provision(
        &self,
        batch_id: &str,
        essay: &Uploaded,
        content: &str,
    ) -> Result<(), Error> {
        let told = || provisioned(batch_id, essay);
        self.store(batch_id, essay, content).await.inspect_err(|_| told().missed("not_stored"))?;
        self.transitions.one(&[]);
        // Nobody takes up what is stored and not published: the caller hears of it, and so does
        // whoever watches outcomes.
        self.publish(batch_id, essay, content)
            .await
            .inspect_err(|_| told().missed("not_published"))?;
        tracing::info!(
            layer = "application",
            batch_id,
            essay_id = essay.essay_id,
            file_name = essay.file_name,
            "Stored essay, published EssayContentProvisionedV1"
        );
        told().reached();
        Ok(())
    }

    async fn store(&self, batch_id: &str, essay: &Uploaded, content: &str) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO provisioned_essays (essay_id, batch_id, correlation_id, file_name, content)
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(&essay.essay_id)
        .bind(batch_id)
        .bind(&essay.correlation_id)
        .bind(&essay.file_name)
        .bind(content)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    async fn publish(&self, batch_id: &str, essay: &Uploaded, content: &str) -> Result<(), Error> {
        let data = EssayProvisioned {
            essay_id: essay.essay_id.clone(),
            file_name: essay.file_name.clone(),
            content_length: content.len() as u64,
        };
        let event =
            Envelope::new(ESSAY_PROVISIONED, SERVICE, &essay.correlation_id, batch_id, data);
        // Keyed by essay: the essays of one batch spread over the workers, as they did in the incident.
        self.publisher.publish(&event, &essay.essay_id).await
    }
}

fn provisioned(batch_id: &str, essay: &Uploaded) -> Outcome {
    outcome("essay_provisioned")
        .key("correlation_id", essay.correlation_id.clone())
        .key("batch_id", batch_id.to_owned())
        .key("essay_id", essay.essay_id.clone())
}
