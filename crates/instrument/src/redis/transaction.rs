//! `WATCH` → reads → `MULTI` … `EXEC`, again while the server discards it, a bounded number of times.

use super::command::{Call, Server};
use super::connection::{Deadline, Lent, deadline_in, within};
use super::exec::Exec;
use super::outcome::{TransactionError, TransactionOutcome};
use super::record::Record;
use super::watched::{Next, Read, Step, Watched, attempt_attribute, span_name};
use super::{ConnectionPool, ExclusiveConnection};
use crate::switch::{self, Part};
use opentelemetry::context::FutureExt;
use opentelemetry::{Context, KeyValue};
use redis::{RedisResult, ToRedisArgs, Value};
use std::borrow::Cow;
use std::time::Duration;
use tokio::time::Instant;

/// An optimistic transaction, named after the operation it performs. See the [module](super).
#[must_use = "a transaction does nothing until it is run"]
#[derive(Debug, Clone)]
pub struct Transaction {
    operation: Cow<'static, str>,
    group: Cow<'static, str>,
    keys: redis::Cmd,
    attributes: Vec<KeyValue>,
    attempts: u32,
    base: Duration,
    cap: Duration,
    timeout: Option<Duration>,
}

impl Transaction {
    /// A transaction `redis.transaction.<operation>`: five attempts, waits of 1 ms to 50 ms between
    /// them, five seconds in all.
    pub fn new(operation: impl Into<Cow<'static, str>>) -> Self {
        Self {
            operation: operation.into(),
            group: Cow::Borrowed("keys"),
            keys: redis::cmd("WATCH"),
            attributes: vec![],
            attempts: 5,
            base: Duration::from_millis(1),
            cap: Duration::from_millis(50),
            timeout: Some(Duration::from_secs(5)),
        }
    }

    /// The keys to watch, and the name of the group that they are: the span is
    /// `redis.watch.<group>`.
    pub fn watch<K: ToRedisArgs>(
        mut self,
        group: impl Into<Cow<'static, str>>,
        keys: &[K],
    ) -> Self {
        self.group = group.into();
        for key in keys {
            self.keys.arg(key);
        }
        self
    }

    /// An attribute of the transaction's span, such as `batch_id`.
    pub fn attribute(
        mut self,
        key: impl Into<opentelemetry::Key>,
        value: impl Into<opentelemetry::Value>,
    ) -> Self {
        // With spans off there is nothing that it could be on.
        if switch::spans(Part::Redis) {
            self.attributes.push(KeyValue::new(key, value));
        }
        self
    }

    /// How often to try, at least once.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// The wait before attempt n+1: random between zero and `base` × 2ⁿ⁻¹, at most `cap`. Random
    /// from zero, so that workers who collided do not collide again in step.
    pub fn backoff(mut self, base: Duration, cap: Duration) -> Self {
        self.base = base;
        self.cap = cap;
        self
    }

    /// The time for all attempts together; `None` leaves only the connection's own timeouts.
    pub fn timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }

    /// Runs `body` under `WATCH` until `EXEC` is applied, there is nothing to take, or the attempts
    /// are used up. `body` may run once for each attempt: it must have no effect of its own beside
    /// what it queues. Its future must let go of the [`Watched`] that it was given.
    ///
    /// The body runs inside the transaction's span. Dropping the returned future ends the span as
    /// failed and leaves the connection to be cleaned by its next use.
    ///
    /// # Errors
    /// [`TransactionError`]. Only a discarded `EXEC` is tried again: after a lost connection nobody
    /// knows whether `EXEC` was applied, and the caller must decide.
    pub async fn run<T, F, Fut>(
        self,
        connection: &mut ExclusiveConnection,
        body: F,
    ) -> Result<TransactionOutcome<T>, TransactionError>
    where
        F: FnMut(Watched) -> Fut,
        Fut: Future<Output = Result<Step<T>, TransactionError>>,
    {
        self.recorded(On::Connection(connection), body).await
    }

    /// [`Transaction::run`] on a connection of `pool`, which is waited for, and opened where it must
    /// be, inside the transaction's span and time: that there is none is a failure of the transaction
    /// like any other, with its reason.
    ///
    /// # Errors
    /// As [`Transaction::run`], and when the pool gives no connection.
    pub async fn run_in<T, F, Fut>(
        self,
        pool: &ConnectionPool,
        body: F,
    ) -> Result<TransactionOutcome<T>, TransactionError>
    where
        F: FnMut(Watched) -> Fut,
        Fut: Future<Output = Result<Step<T>, TransactionError>>,
    {
        self.recorded(On::Pool(pool), body).await
    }

    async fn recorded<T, F, Fut>(
        mut self,
        on: On<'_>,
        mut body: F,
    ) -> Result<TransactionOutcome<T>, TransactionError>
    where
        F: FnMut(Watched) -> Fut,
        Fut: Future<Output = Result<Step<T>, TransactionError>>,
    {
        let attributes = std::mem::take(&mut self.attributes);
        let mut record = Record::start(self.operation.clone(), || attributes);
        let parent = record.context().cloned().unwrap_or_else(Context::current);
        let spans = record.context().is_some();
        let deadline = deadline_in(self.timeout);
        let work = async {
            let mut taken;
            let connection = match on {
                On::Connection(connection) => connection,
                On::Pool(pool) => {
                    taken = pool.get_before(deadline).await?;
                    &mut *taken
                }
            };
            self.all_attempts(connection, &mut body, &mut record, &parent, deadline).await
        };
        // With spans off the body runs where the caller does, and nothing has to be attached.
        let result = if spans { work.with_context(parent.clone()).await } else { work.await };
        record.end(&result);
        result
    }

    async fn all_attempts<T, F, Fut>(
        self,
        connection: &mut ExclusiveConnection,
        body: &mut F,
        record: &mut Record,
        cx: &Context,
        deadline: Deadline,
    ) -> Result<TransactionOutcome<T>, TransactionError>
    where
        F: FnMut(Watched) -> Fut,
        Fut: Future<Output = Result<Step<T>, TransactionError>>,
    {
        // What is done between two calls has no answer that could be late; the calls themselves have
        // the deadline each, so that their spans say what the transaction says.
        let out_of_time = |_| TransactionError::Timeout { in_doubt: false };
        loop {
            record.attempt();
            let attempt = record.attempts;
            let mut lent = connection.lend()?;
            lent.ready(deadline).await?;
            lent.watching();
            self.send_watch(&mut lent, connection.server(), cx, attempt, deadline).await?;

            let server = connection.server().clone();
            let watched = Watched { connection: lent, server, cx: cx.clone(), attempt, deadline };
            let step = within(deadline, body(watched)).await.map_err(out_of_time)??;
            let mut lent = connection.lend()?;
            match step.0 {
                Next::NoValue(reason) => {
                    // Clean up best effort: `ready` does it again if this fails.
                    lent.ready(deadline).await.ok();
                    return Ok(TransactionOutcome::NoValue { reason, attempts: attempt });
                }
                Next::Exec { multi, reason, read } => {
                    if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                        return Err(TransactionError::Timeout { in_doubt: false });
                    }
                    record.exec_sent = true;
                    let last = attempt >= self.attempts;
                    let server = connection.server();
                    let exec = Exec { multi, attempt, last, deadline };
                    let replies = exec.send(&mut lent, server, cx).await;
                    record.exec_sent = false;
                    let replies = replies?;
                    // EXEC, applied or discarded, forgets the watched keys.
                    lent.unwatched();
                    match replies {
                        Some(replies) => return read_replies(read, replies, reason, attempt),
                        None if last => {
                            return Ok(TransactionOutcome::Aborted { attempts: attempt });
                        }
                        None => record.retry(),
                    }
                }
            }
            drop(lent);
            let wait = tokio::time::sleep(self.wait(attempt));
            within(deadline, wait).await.map_err(out_of_time)?;
        }
    }

    async fn send_watch(
        &self,
        lent: &mut Lent,
        server: &Server,
        cx: &Context,
        attempt: u32,
        deadline: Deadline,
    ) -> RedisResult<()> {
        if self.keys.args_iter().len() < 2 {
            // WATCH without keys is an error to the server; a transaction without them is a plain
            // MULTI/EXEC.
            return Ok(());
        }
        let name = || span_name("watch", &self.group).into();
        let extra = |a: &mut Vec<KeyValue>| a.push(attempt_attribute(attempt));
        let call = Call::start(server, Some(name), "WATCH".into(), None, extra, cx);
        let result = lent.send(&self.keys, deadline).await;
        if let Some(mut call) = call {
            call.end(&result);
        }
        result?.extract_error().map(|_| ())
    }

    fn wait(&self, attempt: u32) -> Duration {
        let longest = self.base.saturating_mul(1 << (attempt - 1).min(20)).min(self.cap);
        longest.mul_f64(fastrand::f64())
    }
}

/// Where a transaction runs.
enum On<'c> {
    Connection(&'c mut ExclusiveConnection),
    Pool(&'c ConnectionPool),
}

fn read_replies<T>(
    read: Read<T>,
    replies: Vec<Value>,
    reason: Cow<'static, str>,
    attempts: u32,
) -> Result<TransactionOutcome<T>, TransactionError> {
    // The server applied the queue whatever the caller makes of its replies.
    let unreadable = |source| TransactionError::Unreadable { source, applied: true };
    Ok(match read(replies).map_err(unreadable)? {
        Some(value) => TransactionOutcome::Committed(value),
        None => TransactionOutcome::NoValue { reason, attempts },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_bounded_and_random_from_zero() {
        let transaction =
            Transaction::new("x").backoff(Duration::from_millis(4), Duration::from_millis(10));
        for attempt in 1..70 {
            let wait = transaction.wait(attempt);
            let bound = if attempt == 1 {
                4
            } else if attempt == 2 {
                8
            } else {
                10
            };
            assert!(wait <= Duration::from_millis(bound), "{wait:?} after attempt {attempt}");
        }
    }

    #[test]
    fn at_least_one_attempt() {
        assert_eq!(Transaction::new("x").attempts(0).attempts, 1);
    }
}
