//! `essay_lifecycle_service` (ELS): gives each essay a slot of its batch.
//!
//! One consumer makes the slots of registered batches; several workers, each a consumer of its own
//! in one group, assign them. Redis holds the slots, PostgreSQL what became of every essay.

mod faults;
mod handlers;
mod idempotency;
mod intruder;
mod shared_connection;
mod slots;
mod store;

pub use faults::{FaultKind, FaultRequest, FaultState};

use std::time::Duration;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::routing::get;
use axum::{Json, Router};
use clap::Args;
use lacuna_instrument::series::Bounds;

use crate::bus::{PARTITIONS, Publisher, Subscription, create_topics};
use crate::business::Coordination;
use crate::config::{Backends, Listen};
use crate::envelope::{
    BATCH_READY, BATCH_REGISTERED, ESSAY_PROVISIONED, EXCESS_CONTENT, SLOT_ASSIGNED,
};
use crate::error::Error;
use crate::http::{self, ApiError, Process, Readiness};
use faults::Faults;
use handlers::Handlers;

/// The service's name, in telemetry and in envelopes.
pub const SERVICE: &str = "essay_lifecycle_service";
/// Where it listens unless told otherwise.
pub const DEFAULT_PORT: u16 = 6001;

/// Options of ELS alone.
#[derive(Clone, Debug, Args)]
pub struct ElsArgs {
    /// Consumers that assign slots, each with its own Redis connection.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=i64::from(PARTITIONS)))]
    pub workers: u16,
    /// Batches with metric series of their own; further ones are counted together as `other`.
    #[arg(long, default_value_t = 1_000)]
    pub series_cap: usize,
    /// Seconds for which the series of a batch are still there after it became ready.
    #[arg(long, default_value_t = 120)]
    pub series_linger: u64,
    /// Starts with this fault on.
    #[arg(long)]
    pub fault: Option<FaultKind>,
    /// Share of essays that the fault concerns, from 0 to 1.
    #[arg(long, default_value_t = 1.0, requires = "fault")]
    pub fault_rate: f64,
}

/// Runs the service until it is time to stop.
pub async fn run(
    backends: &Backends,
    listen: &Listen,
    args: &ElsArgs,
    process: Process,
) -> Result<(), Error> {
    let listener = http::bind(listen, DEFAULT_PORT).await?;
    let namespace = &backends.namespace.namespace;
    let faults = Faults::default();
    if let Some(fault) = args.fault {
        faults.set(FaultRequest::on(fault, args.fault_rate))?;
    }
    let pool =
        crate::db::connect(&backends.database_url, namespace, u32::from(args.workers) + 4).await?;
    crate::db::create(&pool, namespace, store::TABLES).await?;
    create_topics(
        backends,
        &[BATCH_REGISTERED, ESSAY_PROVISIONED, SLOT_ASSIGNED, EXCESS_CONTENT, BATCH_READY],
    )
    .await?;
    let bounds = Bounds {
        cap: args.series_cap,
        linger: Duration::from_secs(args.series_linger),
        // A batch whose slots are gone is open no more.
        idle: slots::BATCH_TIMEOUT,
    };
    let handlers = Handlers::connect(
        redis::Client::open(backends.redis_url.as_str())?,
        pool,
        Publisher::connect(backends, SERVICE)?,
        Coordination::new(SERVICE, bounds),
        faults.clone(),
        usize::from(args.workers),
    )
    .await?;

    let tidying = tokio::spawn(handlers.clone().end_series_of_ready_batches(process.stop.clone()));
    let readiness = Readiness::of(1 + usize::from(args.workers));
    let mut consumers = Vec::new();
    let registered = Subscription {
        // A group of its own: a worker that waits for its batch must never be the one who makes it.
        group: "essay_lifecycle_service.batches",
        event_types: &[BATCH_REGISTERED],
        worker: 0,
    };
    let h = handlers.clone();
    consumers.push(registered.spawn(
        backends,
        readiness.clone(),
        process.stop.clone(),
        move |event| {
            let h = h.clone();
            async move { h.batch_registered(event).await }
        },
    )?);
    for worker in 0..args.workers {
        let provisioned = Subscription {
            group: "essay_lifecycle_service.essays",
            event_types: &[ESSAY_PROVISIONED],
            worker,
        };
        let h = handlers.clone();
        consumers.push(provisioned.spawn(
            backends,
            readiness.clone(),
            process.stop.clone(),
            move |event| {
                let h = h.clone();
                async move { h.essay_provisioned(event).await }
            },
        )?);
    }

    let routes = Router::new()
        .route("/faults", get(show_faults).post(set_fault).delete(clear_faults))
        .with_state(faults);
    http::serve(SERVICE, listener, routes, listen, readiness, process).await?;
    for consumer in consumers {
        consumer.finished().await;
    }
    let _ = tidying.await;
    Ok(())
}

async fn show_faults(State(faults): State<Faults>) -> Json<FaultState> {
    Json(faults.state())
}

async fn set_fault(
    State(faults): State<Faults>,
    request: Result<Json<FaultRequest>, JsonRejection>,
) -> Result<Json<FaultState>, ApiError> {
    let Json(request) = request?;
    faults.set(request).map_err(|e| ApiError::bad_request(e.to_string()))?;
    Ok(Json(faults.state()))
}

async fn clear_faults(State(faults): State<Faults>) -> Json<FaultState> {
    faults.clear();
    Json(faults.state())
}
