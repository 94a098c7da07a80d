//! The slots of a batch in Redis, and how an essay takes one.

use std::collections::HashSet;
use std::time::Duration;

use lacuna_instrument::redis::{
    ConnectionPool, PooledConnection, Step, Transaction, TransactionError, TransactionOutcome,
    Watched,
};
use redis::{AsyncConnectionConfig, FromRedisValue, RedisError, Value, cmd};

use super::faults::{FaultKind, Faults};
use super::intruder::Intruder;
use super::shared_connection::SharedConnection;
use super::store::Store;
use crate::business::Coordination;
use crate::error::Error;

/// How long the slots of a batch wait for essays.
pub const BATCH_TIMEOUT: Duration = Duration::from_secs(24 * 3_600);

/// Each of the workers can be overtaken by all others a few times; far more is a fault of its own.
const ATTEMPTS: u32 = 50;

/// Far above the round trip, since an `EXEC` whose answer is not awaited may have been applied.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why there is nothing to take.
const NO_SLOT: &str = "no_slot";

/// What a worker knows of the essay in its hands.
#[derive(Clone, Debug)]
pub struct Essay {
    /// The essay.
    pub essay_id: String,
    /// Its batch.
    pub batch_id: String,
    /// The essay's id through the whole pipeline.
    pub correlation_id: String,
    /// As uploaded.
    pub file_name: String,
}

/// Redis keys of a batch.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Set of free slots.
    pub available_slots: String,
    /// Hash of the essays that took one.
    pub assignments: String,
    /// Hash of what the batch is.
    pub metadata: String,
    /// Expires when the batch has waited long enough.
    pub timeout: String,
}

impl Keys {
    /// The keys of a batch.
    pub fn of(batch_id: &str) -> Self {
        Self {
            available_slots: format!("batch:{batch_id}:available_slots"),
            assignments: format!("batch:{batch_id}:assignments"),
            metadata: format!("batch:{batch_id}:metadata"),
            timeout: format!("batch:{batch_id}:timeout"),
        }
    }
}

/// The name of a batch's n-th slot, from 1. It names its batch, so that a slot of another batch can
/// be told from one's own.
pub fn slot_name(batch_id: &str, n: u32) -> String {
    format!("{}:{n:03}", batch_prefix(batch_id))
}

/// The slot in a reply of `SPOP`, if it is one, and of this batch.
pub fn slot_in(reply: &Value, batch_id: &str) -> Option<String> {
    let slot = String::from_redis_value_ref(reply).ok()?;
    let (prefix, number) = slot.split_once(':')?;
    (prefix == batch_prefix(batch_id) && number.parse::<u32>().is_ok()).then_some(slot)
}

fn batch_prefix(batch_id: &str) -> &str {
    batch_id.split('-').next().unwrap_or(batch_id)
}

/// What became of an essay's wish for a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assignment {
    /// It took this one.
    Taken(String),
    /// It took none. ELS means by this that the batch has none left; telemetry says what happened.
    Refused(&'static str),
}

/// An attempt that came to nothing and is made again with the event: a reason and the error.
type Unfinished = (&'static str, Error);

/// Slots of all batches.
#[derive(Clone)]
pub struct Slots {
    connections: ConnectionPool,
    store: Store,
    coordination: Coordination,
    shared: SharedConnection,
    intruder: Intruder,
    faults: Faults,
}

impl Slots {
    /// One exclusive connection for each worker and one to spare, and what the faults need.
    pub async fn connect(
        client: &redis::Client,
        store: Store,
        coordination: Coordination,
        faults: Faults,
        workers: usize,
    ) -> Result<Self, Error> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        Ok(Self {
            connections: ConnectionPool::with_config(client.clone(), workers + 1, config),
            store,
            coordination,
            shared: SharedConnection::connect(client).await?,
            intruder: Intruder::connect(client).await?,
            faults,
        })
    }

    /// Makes the slots of a registered batch; a second time changes nothing.
    pub async fn create(
        &self,
        batch_id: &str,
        correlation_id: &str,
        expected: u32,
    ) -> Result<(), Error> {
        let keys = Keys::of(batch_id);
        let mut redis = self.connection().await?;
        if cmd("EXISTS").arg(&keys.metadata).query_async(&mut *redis).await? {
            return Ok(());
        }
        // All or nothing: workers take the metadata as the sign that the slots are there.
        let mut all = redis::pipe();
        all.atomic();
        for n in 1..=expected {
            all.sadd(&keys.available_slots, slot_name(batch_id, n)).ignore();
        }
        all.hset_multiple(
            &keys.metadata,
            &[
                ("batch_id", batch_id),
                ("correlation_id", correlation_id),
                ("expected_essays", &expected.to_string()),
                ("created_at", &jiff::Timestamp::now().to_string()),
            ],
        )
        .ignore();
        all.set_ex(&keys.timeout, correlation_id, BATCH_TIMEOUT.as_secs()).ignore();
        all.exec_async(&mut *redis).await?;
        tracing::info!(
            target: "redis-client",
            layer = "infrastructure",
            batch_id,
            "Redis SADD: key={} members={expected}",
            keys.available_slots
        );
        Ok(())
    }

    async fn connection(&self) -> Result<PooledConnection, Error> {
        Ok(self.connections.get().await.map_err(RedisError::from)?)
    }

    /// Whether the slots of this batch were made.
    pub async fn exist(&self, batch_id: &str) -> Result<bool, Error> {
        let mut redis = self.connection().await?;
        Ok(cmd("EXISTS").arg(Keys::of(batch_id).metadata).query_async(&mut *redis).await?)
    }

    /// Takes a slot for the essay, if the batch has one to give, and counts the attempt.
    pub async fn assign_slot_atomic(&self, essay: &Essay) -> Result<Assignment, Error> {
        let result = self.take(essay).await;
        let failure = match &result {
            Ok(Assignment::Taken(_)) => None,
            Ok(Assignment::Refused(reason)) | Err((reason, _)) => Some(*reason),
        };
        self.coordination.attempted(&essay.batch_id, failure);
        result.map_err(|(_, error)| error)
    }

    async fn take(&self, essay: &Essay) -> Result<Assignment, Unfinished> {
        let fault = self.faults.for_essay(&essay.essay_id);
        match fault.map(|fault| (fault.kind, fault.window)) {
            Some((FaultKind::SharedRedisConnection, window)) => {
                let slot = self.shared.assign_slot(essay, window).await;
                Ok(slot.map_or_else(Assignment::Refused, Assignment::Taken))
            }
            // The fault: a slot that is not the batch's, and nothing asked.
            Some((FaultKind::SkipTransaction, _)) => {
                let made_up = 9_000 + fastrand::u32(..1_000);
                Ok(Assignment::Taken(slot_name(&essay.batch_id, made_up)))
            }
            // The fault: one attempt, and an abort is taken for "no slot".
            Some((FaultKind::ConcurrentSlotModification, _)) => {
                let outcome = self.transaction(essay, 1, Some(&self.intruder)).await?;
                Ok(taken(outcome).unwrap_or(Assignment::Refused("concurrent_modification")))
            }
            _ => {
                let outcome = self.transaction(essay, ATTEMPTS, None).await?;
                // Not "no slot": somebody else was faster fifty times. The event comes again.
                taken(outcome).map_err(|attempts| {
                    let why = format!(
                        "essay {}: the slot transaction was discarded {attempts} times",
                        essay.essay_id
                    );
                    ("exhausted", Error::TryAgain(why))
                })
            }
        }
    }

    /// `WATCH` → `MULTI` → `SPOP`, `HSET` → `EXEC` on a connection that nobody else uses.
    async fn transaction(
        &self,
        essay: &Essay,
        attempts: u32,
        intruder: Option<&Intruder>,
    ) -> Result<TransactionOutcome<String>, Unfinished> {
        let keys = Keys::of(&essay.batch_id);
        let ended = Transaction::new("assign_slot_atomic")
            .attribute("batch_id", essay.batch_id.clone())
            .attribute("essay_id", essay.essay_id.clone())
            .watch("batch_slots", &[&keys.available_slots, &keys.assignments])
            .attempts(attempts)
            .timeout(Some(PATIENCE))
            .run_in(&self.connections, |tx| attempt(tx, &keys, essay, &self.store, intruder))
            .await;
        let outcome = match ended {
            Ok(outcome) => outcome,
            Err(error) => match slot_taken_in_part(&error, &essay.batch_id) {
                Some(slot) => {
                    tracing::warn!(
                        target: "redis-client",
                        layer = "infrastructure",
                        batch_id = essay.batch_id,
                        essay_id = essay.essay_id,
                        slot,
                        "The slot was taken, but its assignment could not be written to Redis: {error}"
                    );
                    TransactionOutcome::Committed(slot)
                }
                None => {
                    let why = Error::TryAgain(format!("essay {}: {error}", essay.essay_id));
                    return Err((error.reason(), why));
                }
            },
        };
        tracing::info!(
            target: "redis-client",
            layer = "infrastructure",
            batch_id = essay.batch_id,
            essay_id = essay.essay_id,
            "Redis WATCH: keys=({}, {}) result={}",
            keys.available_slots,
            keys.assignments,
            if matches!(outcome, TransactionOutcome::Aborted { .. }) { "FAILED" } else { "OK" }
        );
        Ok(outcome)
    }
}

/// The slot of an `EXEC` that took it and could not write it down: nobody else gets it any more, and to
/// try again would take another. PostgreSQL says whose it is, so that the essay keeps it.
fn slot_taken_in_part(error: &TransactionError, batch_id: &str) -> Option<String> {
    match error {
        TransactionError::PartlyApplied { replies, .. } => {
            replies.first().and_then(|reply| slot_in(reply, batch_id))
        }
        _ => None,
    }
}

/// What a transaction came to; how many attempts it made, where the server discarded all of them.
fn taken(outcome: TransactionOutcome<String>) -> Result<Assignment, u32> {
    match outcome {
        TransactionOutcome::Committed(slot) => Ok(Assignment::Taken(slot)),
        TransactionOutcome::NoValue { .. } => Ok(Assignment::Refused(NO_SLOT)),
        TransactionOutcome::Aborted { attempts } => Err(attempts),
    }
}

/// One attempt: looks under `WATCH` whether there is a slot, then queues the commands that take it.
async fn attempt(
    mut tx: Watched,
    keys: &Keys,
    essay: &Essay,
    store: &Store,
    intruder: Option<&Intruder>,
) -> Result<Step<String>, TransactionError> {
    // An earlier attempt that never got to PostgreSQL: a crash, an answer that did not arrive.
    if tx.query("assignments", cmd("HEXISTS").arg(&keys.assignments).arg(&essay.essay_id)).await? {
        return recover(tx, keys, essay, store).await;
    }
    let free: u64 = tx.query("available_slots", cmd("SCARD").arg(&keys.available_slots)).await?;
    if free == 0 {
        return Ok(tx.no_value(NO_SLOT));
    }
    if let Some(intruder) = intruder {
        intruder.touch(&keys.available_slots).await.map_err(TransactionError::abandon)?;
    }
    let mut multi = tx.multi();
    multi.add("available_slots", cmd("SPOP").arg(&keys.available_slots));
    multi.add(
        "assignments",
        cmd("HSET").arg(&keys.assignments).arg(&essay.essay_id).arg(assignment_of(essay)),
    );
    let batch_id = essay.batch_id.clone();
    Ok(multi.commit_with(NO_SLOT, move |replies| {
        Ok(replies.first().and_then(|reply| slot_in(reply, &batch_id)))
    }))
}

/// Gives a slot to an essay that took one before, which nobody wrote down.
///
/// Such slots are neither free nor anybody's in PostgreSQL. Some may be in the hands of workers who
/// are about to write them down; there are as many of them as of essays in this position, so it does
/// not matter who gets which, and PostgreSQL's unique key makes whoever comes second look again.
async fn recover(
    mut tx: Watched,
    keys: &Keys,
    essay: &Essay,
    store: &Store,
) -> Result<Step<String>, TransactionError> {
    let free: HashSet<String> =
        tx.query("available_slots", cmd("SMEMBERS").arg(&keys.available_slots)).await?;
    let expected: u32 =
        tx.query("metadata", cmd("HGET").arg(&keys.metadata).arg("expected_essays")).await?;
    let taken = store.slots_taken(&essay.batch_id).await.map_err(TransactionError::abandon)?;
    let slot = (1..=expected)
        .map(|n| slot_name(&essay.batch_id, n))
        .find(|slot| !free.contains(slot) && !taken.contains(slot));
    let Some(slot) = slot else { return Ok(tx.no_value(NO_SLOT)) };
    let mut multi = tx.multi();
    multi.add(
        "assignments",
        cmd("HSET").arg(&keys.assignments).arg(&essay.essay_id).arg(assignment_of(essay)),
    );
    Ok(multi.commit(slot))
}

/// What the assignments hash keeps for an essay. The slot itself is known only to `EXEC`'s reply;
/// which essay holds which slot is PostgreSQL's to say.
pub fn assignment_of(essay: &Essay) -> String {
    serde_json::json!({
        "correlation_id": essay.correlation_id,
        "file_name": essay.file_name,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_known_by_its_batch() {
        let (mine, other) =
            ("7b13b452-b676-48d5-b270-ba4920053cfe", "2b7d5e4a-56ca-4fe8-83ad-1d7381b8e8db");
        let reply = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let slot = slot_name(mine, 7);
        assert_eq!(slot_in(&reply(&slot), mine), Some(slot.clone()));
        assert_eq!(slot_in(&reply(&slot), other), None);
        assert_eq!(slot_in(&Value::Int(1), mine), None);
        assert_eq!(slot_in(&Value::Nil, mine), None);
        assert_eq!(slot_in(&Value::SimpleString("QUEUED".into()), mine), None);
    }

    #[test]
    fn a_slot_that_was_taken_in_part_is_kept_and_not_taken_again() {
        let batch = "7b13b452-b676-48d5-b270-ba4920053cfe";
        let slot = slot_name(batch, 7);
        let failed = |replies| {
            let source = (redis::ErrorKind::Extension, "WRONGTYPE").into();
            slot_taken_in_part(&TransactionError::PartlyApplied { source, replies }, batch)
        };
        let taken = Value::BulkString(slot.clone().into_bytes());
        assert_eq!(failed(vec![taken, Value::Nil]), Some(slot));
        assert_eq!(failed(vec![Value::Nil, Value::Int(1)]), None, "there was none");
        let refused = (redis::ErrorKind::Extension, "EXECABORT").into();
        assert_eq!(slot_taken_in_part(&TransactionError::Refused(refused), batch), None);
    }
}
