//! What became of every essay and batch, by the databases and nothing else.

use std::collections::BTreeSet;

use lacuna_instrument::postgres::Pool;
use serde::Serialize;
use sqlx::Row;

use crate::error::Error;

/// The content of `truth.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Truth {
    /// RFC 3339, UTC; the time of the first request, where this run made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// RFC 3339, UTC; when the databases were read.
    pub ended_at: String,
    /// The load's seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Whether every essay had an outcome, and every service had heard of it, by `ended_at`.
    pub settled: bool,
    /// In order of provision.
    pub essays: Vec<EssayTruth>,
    /// In order of registration.
    pub batches: Vec<BatchTruth>,
}

/// One essay.
#[derive(Clone, Debug, Serialize)]
pub struct EssayTruth {
    /// The essay.
    pub essay_id: String,
    /// Its batch.
    pub batch_id: String,
    /// Its id in telemetry.
    pub correlation_id: String,
    /// The slot that it got; null: it was lost.
    pub slot: Option<String>,
}

/// One batch.
#[derive(Clone, Debug, Serialize)]
pub struct BatchTruth {
    /// The batch.
    pub batch_id: String,
    /// Its id in telemetry.
    pub correlation_id: String,
    /// Essays that it waits for.
    pub expected: u32,
    /// Whether BOS learned that all of them have a slot.
    pub ready: bool,
    /// How many events told it so, one that was delivered again counted once; more is a fault.
    pub ready_events: u32,
}

/// Which batches are asked about.
#[derive(Clone, Debug)]
pub enum Scope {
    /// All that were ever registered in this namespace.
    All,
    /// These.
    Batches(BTreeSet<String>),
}

impl Scope {
    fn ids(&self) -> Option<Vec<String>> {
        match self {
            Self::All => None,
            Self::Batches(ids) => Some(ids.iter().cloned().collect()),
        }
    }
}

/// Reads what happened. A table that is not there yet means a service that never ran: an error.
pub async fn read(pool: &Pool, scope: &Scope) -> Result<Truth, Error> {
    let ids = scope.ids();
    let essays = sqlx::query(
        "SELECT p.essay_id, p.batch_id, p.correlation_id, s.slot
         FROM provisioned_essays p LEFT JOIN essay_states s USING (essay_id)
         WHERE $1::text[] IS NULL OR p.batch_id = ANY ($1)
         ORDER BY p.provisioned_at, p.essay_id",
    )
    .bind(&ids)
    .fetch_all(pool)
    .await?
    .iter()
    .map(|row| {
        Ok(EssayTruth {
            essay_id: row.try_get(0)?,
            batch_id: row.try_get(1)?,
            correlation_id: row.try_get(2)?,
            slot: row.try_get(3)?,
        })
    })
    .collect::<Result<_, Error>>()?;
    let batches = sqlx::query(
        "SELECT batch_id, correlation_id, expected_essays, state = 'ready', ready_events FROM batches
         WHERE $1::text[] IS NULL OR batch_id = ANY ($1)
         ORDER BY registered_at, batch_id",
    )
    .bind(&ids)
    .fetch_all(pool)
    .await?
    .iter()
    .map(|row| {
        let (expected, ready_events): (i32, i32) = (row.try_get(2)?, row.try_get(4)?);
        Ok(BatchTruth {
            batch_id: row.try_get(0)?,
            correlation_id: row.try_get(1)?,
            expected: u32::try_from(expected).unwrap_or(0),
            ready: row.try_get(3)?,
            ready_events: u32::try_from(ready_events).unwrap_or(0),
        })
    })
    .collect::<Result<_, Error>>()?;
    Ok(Truth {
        started_at: None,
        ended_at: jiff::Timestamp::now().to_string(),
        seed: None,
        settled: unsettled(pool, scope).await? == Unsettled::default(),
        essays,
        batches,
    })
}

/// What is still on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unsettled {
    /// Essays without an outcome in ELS.
    pub essays: i64,
    /// Excess essays that BOS has not heard of.
    pub excess: i64,
    /// Complete batches that BOS has not heard of.
    pub batches: i64,
}

/// Counts what is still on its way.
pub async fn unsettled(pool: &Pool, scope: &Scope) -> Result<Unsettled, Error> {
    let row = sqlx::query(
        "SELECT
           (SELECT count(*) FROM provisioned_essays p
            WHERE ($1::text[] IS NULL OR p.batch_id = ANY ($1))
              AND NOT EXISTS (SELECT FROM essay_states s WHERE s.essay_id = p.essay_id)),
           (SELECT count(*) FROM essay_states s
            WHERE ($1::text[] IS NULL OR s.batch_id = ANY ($1)) AND s.state = 'excess'
              AND NOT EXISTS (SELECT FROM excess_content e WHERE e.essay_id = s.essay_id)),
           (SELECT count(*) FROM slot_batches b
            WHERE ($1::text[] IS NULL OR b.batch_id = ANY ($1)) AND b.assigned = b.expected
              AND NOT EXISTS (SELECT FROM batches o WHERE o.batch_id = b.batch_id AND o.state = 'ready'))",
    )
    .bind(scope.ids())
    .fetch_one(pool)
    .await?;
    Ok(Unsettled { essays: row.try_get(0)?, excess: row.try_get(1)?, batches: row.try_get(2)? })
}
