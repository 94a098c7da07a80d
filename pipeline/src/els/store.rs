//! What became of every essay and batch: ELS's tables.

use std::collections::HashSet;

use lacuna_instrument::postgres::Pool;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::slots::Essay;
use crate::error::Error;

/// ELS's tables.
pub const TABLES: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS essay_states (
        essay_id text PRIMARY KEY,
        batch_id text NOT NULL,
        correlation_id text NOT NULL,
        state text NOT NULL CHECK (state IN ('slot_assigned', 'excess')),
        slot text CHECK ((slot IS NULL) = (state = 'excess')),
        decided_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        UNIQUE (batch_id, slot))",
    "CREATE TABLE IF NOT EXISTS slot_batches (
        batch_id text PRIMARY KEY,
        correlation_id text NOT NULL,
        expected integer NOT NULL,
        assigned integer NOT NULL DEFAULT 0,
        ready_published boolean NOT NULL DEFAULT false)",
];

/// How far a batch is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The batch's own.
    pub correlation_id: String,
    /// Slots that are taken.
    pub assigned: u32,
    /// All slots.
    pub expected: u32,
}

impl Progress {
    /// Every slot is taken.
    pub fn is_complete(&self) -> bool {
        self.assigned == self.expected
    }

    /// Taken slots by all slots.
    pub fn utilization(&self) -> f64 {
        f64::from(self.assigned) / f64::from(self.expected.max(1))
    }
}

/// ELS's tables, behind verbs.
#[derive(Clone)]
pub struct Store {
    pool: Pool,
}

impl Store {
    /// On a pool whose search path is the run's schema.
    pub fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// Remembers a registered batch; a second time changes nothing.
    pub async fn batch_registered(
        &self,
        batch_id: &str,
        correlation_id: &str,
        expected: u32,
    ) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO slot_batches (batch_id, correlation_id, expected) VALUES ($1, $2, $3)
             ON CONFLICT (batch_id) DO NOTHING",
        )
        .bind(batch_id)
        .bind(correlation_id)
        .bind(i32::try_from(expected).unwrap_or(i32::MAX))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// What was decided on the essay before: `None` nothing yet, `Some(None)` excess.
    pub async fn decided(&self, essay_id: &str) -> Result<Option<Option<String>>, Error> {
        let row = sqlx::query("SELECT slot FROM essay_states WHERE essay_id = $1")
            .bind(essay_id)
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.map(|row| row.try_get::<Option<String>, _>(0)).transpose()?)
    }

    /// Slots of the batch that are written down as some essay's.
    pub async fn slots_taken(&self, batch_id: &str) -> Result<HashSet<String>, Error> {
        let rows =
            sqlx::query("SELECT slot FROM essay_states WHERE batch_id = $1 AND slot IS NOT NULL")
                .bind(batch_id)
                .fetch_all(&self.pool)
                .await?;
        Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
    }

    /// Writes the essay's outcome and counts its slot, in one transaction. The counter's row lock
    /// puts the essays of a batch in a row, so exactly one of them sees the batch become complete.
    /// Gives how far the batch is now, if the essay has a slot.
    pub async fn decide(
        &self,
        essay: &Essay,
        slot: Option<&str>,
    ) -> Result<Option<Progress>, Error> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query(
            "INSERT INTO essay_states (essay_id, batch_id, correlation_id, state, slot) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(&essay.essay_id)
        .bind(&essay.batch_id)
        .bind(&essay.correlation_id)
        .bind(if slot.is_some() { "slot_assigned" } else { "excess" })
        .bind(slot)
        .execute(&mut transaction)
        .await
        .map_err(|error| match error.as_database_error() {
            // Somebody recovered this very slot, or this very essay, meanwhile (see
            // `slots::recover`). Nothing is lost: the next attempt recovers another.
            Some(database) if database.is_unique_violation() => {
                Error::TryAgain(format!("essay {}: {database}", essay.essay_id))
            }
            _ => error.into(),
        })?;
        let progress = if slot.is_some() {
            let row = sqlx::query(
                "UPDATE slot_batches SET assigned = assigned + 1 WHERE batch_id = $1
                 RETURNING correlation_id, assigned, expected",
            )
            .bind(&essay.batch_id)
            .fetch_one(&mut transaction)
            .await?;
            Some(progress_in(&row)?)
        } else {
            None
        };
        transaction.commit().await?;
        Ok(progress)
    }

    /// The batch, if it is complete and was not announced: what an essay that is delivered again
    /// after a crash has to make up for.
    pub async fn unannounced(&self, batch_id: &str) -> Result<Option<Progress>, Error> {
        let row = sqlx::query(
            "SELECT correlation_id, assigned, expected FROM slot_batches
             WHERE batch_id = $1 AND assigned = expected AND NOT ready_published",
        )
        .bind(batch_id)
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(progress_in).transpose()
    }

    /// How far the batch is, if it is known.
    pub async fn progress(&self, batch_id: &str) -> Result<Option<Progress>, Error> {
        let row = sqlx::query(
            "SELECT correlation_id, assigned, expected FROM slot_batches WHERE batch_id = $1",
        )
        .bind(batch_id)
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(progress_in).transpose()
    }

    /// Those of the batches whose readiness was published, by whichever process.
    pub async fn published(&self, batch_ids: &[String]) -> Result<Vec<String>, Error> {
        let rows = sqlx::query(
            "SELECT batch_id FROM slot_batches WHERE batch_id = ANY($1) AND ready_published",
        )
        .bind(batch_ids)
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
    }

    /// Remembers that the batch's readiness was published.
    pub async fn announced(&self, batch_id: &str) -> Result<(), Error> {
        sqlx::query("UPDATE slot_batches SET ready_published = true WHERE batch_id = $1")
            .bind(batch_id)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

fn progress_in(row: &PgRow) -> Result<Progress, Error> {
    let (assigned, expected): (i32, i32) = (row.try_get(1)?, row.try_get(2)?);
    Ok(Progress {
        correlation_id: row.try_get(0)?,
        assigned: u32::try_from(assigned).unwrap_or(0),
        expected: u32::try_from(expected).unwrap_or(0),
    })
}
