//! `file_service`: takes essays, stores them, and says so on Kafka.

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use lacuna_instrument::correlation;
use opentelemetry::trace::FutureExt;
use opentelemetry::{Context, KeyValue};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use uuid::Uuid;

use crate::bus::{Publisher, create_topics};
use crate::config::{Backends, Listen};
use crate::envelope::{ESSAY_PROVISIONED, Envelope, EssayProvisioned};
use crate::error::Error;
use crate::http::{self, ApiError, Readiness, annotate};
use crate::stop::Stop;

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

#[derive(Clone)]
struct FileService {
    pool: PgPool,
    publisher: Publisher,
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

/// Runs the service until `stop`.
pub async fn run(backends: &Backends, listen: &Listen, stop: Stop) -> Result<(), Error> {
    let listener = http::bind(listen, DEFAULT_PORT).await?;
    let pool = crate::db::connect(&backends.database_url, &backends.namespace.namespace, 8).await?;
    crate::db::create(&pool, &backends.namespace.namespace, TABLES).await?;
    create_topics(backends, &[ESSAY_PROVISIONED]).await?;
    let files = FileService { pool, publisher: Publisher::connect(backends, SERVICE)? };
    let readiness = Readiness::of(0);
    let routes = Router::new().route("/v1/batches/{id}/files", post(upload)).with_state(files);
    http::serve(
        listener,
        http::with_health(SERVICE, routes, readiness.clone()),
        listen,
        readiness,
        stop,
    )
    .await
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
    let mut essays = Vec::with_capacity(request.files.len());
    for file in request.files {
        // An essay is followed by an id of its own from here on, not by that of the request.
        let (essay_id, correlation_id) = (Uuid::new_v4().to_string(), Uuid::new_v4().to_string());
        let context = correlation::with(&Context::current(), correlation_id.clone());
        let uploaded = Uploaded { essay_id, correlation_id, file_name: file.name };
        files.provision(&batch_id, &uploaded, &file.content).with_context(context).await?;
        essays.push(uploaded);
    }
    Ok((StatusCode::CREATED, Json(UploadResponse { batch_id, essays })))
}

impl FileService {
    async fn provision(
        &self,
        batch_id: &str,
        essay: &Uploaded,
        content: &str,
    ) -> Result<(), Error> {
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
        let data = EssayProvisioned {
            essay_id: essay.essay_id.clone(),
            file_name: essay.file_name.clone(),
            content_length: content.len() as u64,
        };
        let event =
            Envelope::new(ESSAY_PROVISIONED, SERVICE, &essay.correlation_id, batch_id, data);
        // Keyed by essay: the essays of one batch spread over the workers, as they did in the incident.
        self.publisher.publish(&event, &essay.essay_id).await?;
        tracing::info!(
            layer = "application",
            batch_id,
            essay_id = essay.essay_id,
            file_name = essay.file_name,
            "Stored essay, published EssayContentProvisionedV1"
        );
        Ok(())
    }
}
