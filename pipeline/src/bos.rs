//! `batch_orchestrator_service`: registers batches, and learns what became of them.

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use lacuna_instrument::outcome::outcome;
use lacuna_instrument::postgres::Pool;
use opentelemetry::KeyValue;
use serde::{Deserialize, Serialize};
use sqlx::Row;
use uuid::Uuid;

use crate::bus::{Publisher, Subscription, create_topics};
use crate::business;
use crate::config::{Backends, Listen};
use crate::envelope::{
    BATCH_READY, BATCH_REGISTERED, BatchReady, BatchRegistered, EXCESS_CONTENT, Envelope,
    ExcessContent,
};
use crate::error::Error;
use crate::http::{self, ApiError, Process, Readiness, annotate};

/// The service's name, in telemetry and in envelopes.
pub const SERVICE: &str = "batch_orchestrator_service";
/// Where it listens unless told otherwise.
pub const DEFAULT_PORT: u16 = 5001;

/// More would be a typing error: each slot is a Redis member.
const MOST_ESSAYS: u32 = 10_000;

const TABLES: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS batches (
        batch_id text PRIMARY KEY,
        correlation_id text NOT NULL,
        expected_essays integer NOT NULL,
        state text NOT NULL DEFAULT 'registered',
        ready_events integer NOT NULL DEFAULT 0,
        registered_at timestamptz NOT NULL DEFAULT now(),
        ready_at timestamptz,
        ready_event_id text)",
    // For tables of before there was one.
    "ALTER TABLE batches ADD COLUMN IF NOT EXISTS ready_event_id text",
    "CREATE TABLE IF NOT EXISTS excess_content (
        essay_id text PRIMARY KEY,
        batch_id text NOT NULL,
        correlation_id text NOT NULL,
        reason text NOT NULL,
        received_at timestamptz NOT NULL DEFAULT now())",
];

#[derive(Clone)]
struct Bos {
    pool: Pool,
    publisher: Publisher,
    processing_duration: business::Seconds,
}

#[derive(Debug, Deserialize)]
struct RegisterRequest {
    expected_essays: u32,
}

#[derive(Debug, Serialize)]
struct RegisterResponse {
    batch_id: String,
    correlation_id: String,
    expected_essays: u32,
}

/// What BOS knows of a batch: the answer to `GET /v1/batches/{id}`.
#[derive(Debug, Serialize, Deserialize)]
pub struct BatchView {
    /// The batch.
    pub batch_id: String,
    /// Its id in telemetry.
    pub correlation_id: String,
    /// Essays that it waits for.
    pub expected_essays: u32,
    /// `registered`, or `ready` once every essay has a slot.
    pub state: String,
}

/// Runs the service until it is time to stop.
pub async fn run(backends: &Backends, listen: &Listen, process: Process) -> Result<(), Error> {
    let listener = http::bind(listen, DEFAULT_PORT).await?;
    let pool = crate::db::connect(&backends.database_url, &backends.namespace.namespace, 8).await?;
    crate::db::create(&pool, &backends.namespace.namespace, TABLES).await?;
    create_topics(backends, &[BATCH_REGISTERED, BATCH_READY, EXCESS_CONTENT]).await?;
    let bos = Bos {
        pool,
        publisher: Publisher::connect(backends, SERVICE)?,
        processing_duration: business::batch_processing_duration(),
    };

    let readiness = Readiness::of(1);
    let consumer = {
        let bos = bos.clone();
        let subscription =
            Subscription { group: SERVICE, event_types: &[BATCH_READY, EXCESS_CONTENT], worker: 0 };
        subscription.spawn(backends, readiness.clone(), process.stop.clone(), move |event| {
            let bos = bos.clone();
            async move { bos.handle(event).await }
        })?
    };
    let routes = Router::new()
        .route("/v1/batches", post(register))
        .route("/v1/batches/{id}", get(show))
        .with_state(bos);
    http::serve(SERVICE, listener, routes, listen, readiness, process).await?;
    consumer.finished().await;
    Ok(())
}

async fn register(
    State(bos): State<Bos>,
    request: Result<Json<RegisterRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<RegisterResponse>), ApiError> {
    let Json(request) = request?;
    if request.expected_essays == 0 || request.expected_essays > MOST_ESSAYS {
        return Err(ApiError::bad_request(format!(
            "expected_essays must be from 1 to {MOST_ESSAYS}"
        )));
    }
    // The batch is followed by the id of the request that registered it.
    let (batch_id, correlation_id) = (Uuid::new_v4().to_string(), http::correlation_id());
    annotate([KeyValue::new("batch_id", batch_id.clone())]);
    bos.register(&batch_id, &correlation_id, request.expected_essays).await?;
    let response =
        RegisterResponse { batch_id, correlation_id, expected_essays: request.expected_essays };
    Ok((StatusCode::CREATED, Json(response)))
}

async fn show(
    State(bos): State<Bos>,
    Path(batch_id): Path<String>,
) -> Result<Json<BatchView>, ApiError> {
    annotate([KeyValue::new("batch_id", batch_id.clone())]);
    match bos.batch(&batch_id).await? {
        Some(batch) => Ok(Json(batch)),
        None => Err(ApiError::not_found(format!("no batch has the id '{batch_id}'"))),
    }
}

impl Bos {
    async fn batch(&self, batch_id: &str) -> Result<Option<BatchView>, Error> {
        let row = sqlx::query(
            "SELECT correlation_id, expected_essays, state FROM batches WHERE batch_id = $1",
        )
        .bind(batch_id)
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let expected: i32 = row.try_get(1)?;
        Ok(Some(BatchView {
            batch_id: batch_id.to_owned(),
            correlation_id: row.try_get(0)?,
            expected_essays: u32::try_from(expected).unwrap_or(0),
            state: row.try_get(2)?,
        }))
    }

    async fn register(
        &self,
        batch_id: &str,
        correlation_id: &str,
        expected: u32,
    ) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO batches (batch_id, correlation_id, expected_essays) VALUES ($1, $2, $3)",
        )
        .bind(batch_id)
        .bind(correlation_id)
        .bind(i32::try_from(expected).unwrap_or(i32::MAX))
        .execute(&self.pool)
        .await?;
        let event = Envelope::new(
            BATCH_REGISTERED,
            SERVICE,
            correlation_id,
            batch_id,
            BatchRegistered { expected_essays: expected },
        );
        self.publisher.publish(&event, batch_id).await?;
        tracing::info!(
            layer = "application",
            batch_id,
            correlation_id,
            expected_essays = expected,
            "Registered batch, published BatchEssaysRegisteredV1"
        );
        outcome("batch_registered")
            .key("batch_id", batch_id.to_owned())
            .key("correlation_id", correlation_id.to_owned())
            .attribute("expected_essays", i64::from(expected))
            .reached();
        Ok(())
    }

    async fn handle(&self, event: Envelope<serde_json::Value>) -> Result<(), Error> {
        match event.event_type.as_str() {
            BATCH_READY => self.batch_is_ready(&event, &event.payload()?).await,
            EXCESS_CONTENT => self.essay_is_excess(&event, &event.payload()?).await,
            other => Err(Error::Event(format!("{SERVICE} does not take {other}"))),
        }
    }

    async fn batch_is_ready(
        &self,
        event: &Envelope<serde_json::Value>,
        ready: &BatchReady,
    ) -> Result<(), Error> {
        let row = sqlx::query(
            "UPDATE batches SET state = 'ready', ready_at = coalesce(ready_at, now()),
                 ready_events = ready_events + (ready_event_id IS DISTINCT FROM $2)::integer,
                 ready_event_id = $2
             WHERE batch_id = $1
             RETURNING ready_at = now(), extract(epoch FROM ready_at - registered_at)::float8",
        )
        .bind(&event.batch_id)
        .bind(&event.event_id)
        .fetch_optional(&self.pool)
        .await?;
        let told = outcome("batch_ready")
            .key("batch_id", event.batch_id.clone())
            .key("correlation_id", event.correlation_id.clone())
            .attribute("assigned_essays", i64::from(ready.assigned_essays));
        let Some(row) = row else {
            tracing::warn!(
                layer = "application",
                batch_id = event.batch_id,
                "A batch that nobody registered is said to be ready"
            );
            told.missed("unknown_batch");
            return Ok(());
        };
        // A batch becomes ready once, however often it is said.
        if row.try_get::<bool, _>(0)? {
            self.processing_duration.record(row.try_get(1)?);
        }
        tracing::info!(
            layer = "application",
            batch_id = event.batch_id,
            assigned_essays = ready.assigned_essays,
            "Batch is ready: every expected essay holds a slot"
        );
        told.reached();
        Ok(())
    }

    async fn essay_is_excess(
        &self,
        event: &Envelope<serde_json::Value>,
        excess: &ExcessContent,
    ) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO excess_content (essay_id, batch_id, correlation_id, reason) VALUES ($1, $2, $3, $4)
             ON CONFLICT (essay_id) DO NOTHING",
        )
        .bind(&excess.essay_id)
        .bind(&event.batch_id)
        .bind(&event.correlation_id)
        .bind(&excess.reason)
        .execute(&self.pool)
        .await?;
        tracing::info!(
            layer = "application",
            batch_id = event.batch_id,
            essay_id = excess.essay_id,
            "Recorded excess content"
        );
        Ok(())
    }
}
