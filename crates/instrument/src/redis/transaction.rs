//! `WATCH` → reads → `MULTI` … `EXEC`, again while the server discards it, a bounded number of times.

use super::ExclusiveConnection;
use super::command::{Call, Server, describe, error_type, name_of, name_of_batch};
use super::connection::Lent;
use super::outcome::{TransactionError, TransactionOutcome};
use super::record::{CONCURRENT, DISCARDED, Record};
use super::watched::{
    Multi, Next, RESULT, Read, Step, Watched, attempt_attribute, result_of, span_name,
};
use crate::span::Leaf;
use opentelemetry::context::FutureExt;
use opentelemetry::trace::{SpanBuilder, SpanKind};
use opentelemetry::{Context, KeyValue};
use redis::{RedisResult, ToRedisArgs, Value};
use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

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
        self.attributes.push(KeyValue::new(key, value));
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
        mut self,
        connection: &mut ExclusiveConnection,
        mut body: F,
    ) -> Result<TransactionOutcome<T>, TransactionError>
    where
        F: FnMut(Watched) -> Fut,
        Fut: Future<Output = Result<Step<T>, TransactionError>>,
    {
        let attributes = std::mem::take(&mut self.attributes);
        let mut record = Record::start(self.operation.clone(), || attributes);
        let parent = record.context().cloned().unwrap_or_else(Context::current);
        let exec_sent = AtomicBool::new(false);
        let timeout = self.timeout;
        let spans = record.context().is_some();
        let work = self.all_attempts(connection, &mut body, &mut record, &parent, &exec_sent);
        let limited = async {
            match timeout {
                Some(limit) => tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
                    Err(TransactionError::Timeout { in_doubt: exec_sent.load(Ordering::Relaxed) })
                }),
                None => work.await,
            }
        };
        // With spans off the body runs where the caller does, and nothing has to be attached.
        let result = if spans { limited.with_context(parent.clone()).await } else { limited.await };
        record.end(&result);
        result
    }

    async fn all_attempts<T, F, Fut>(
        self,
        connection: &mut ExclusiveConnection,
        body: &mut F,
        record: &mut Record,
        cx: &Context,
        exec_sent: &AtomicBool,
    ) -> Result<TransactionOutcome<T>, TransactionError>
    where
        F: FnMut(Watched) -> Fut,
        Fut: Future<Output = Result<Step<T>, TransactionError>>,
    {
        loop {
            record.attempt();
            let attempt = record.attempts;
            let mut lent = connection.lend()?;
            lent.ready().await?;
            lent.watching();
            self.send_watch(&mut lent, connection.server(), cx, attempt).await?;

            let server = connection.server().clone();
            let step = body(Watched { connection: lent, server, cx: cx.clone(), attempt }).await?;
            let mut lent = connection.lend()?;
            match step.0 {
                Next::NoValue(reason) => {
                    // Clean up best effort: `ready` does it again if this fails.
                    lent.ready().await.ok();
                    return Ok(TransactionOutcome::NoValue { reason, attempts: attempt });
                }
                Next::Exec { multi, reason, read } => {
                    exec_sent.store(true, Ordering::Relaxed);
                    let last = attempt >= self.attempts;
                    let replies =
                        execute(&mut lent, connection.server(), cx, multi, attempt, last).await;
                    lent.note(&replies);
                    let replies = replies.map_err(|e| TransactionError::of(e, true))?;
                    exec_sent.store(false, Ordering::Relaxed);
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
            tokio::time::sleep(self.wait(attempt)).await;
        }
    }

    async fn send_watch(
        &self,
        lent: &mut Lent,
        server: &Server,
        cx: &Context,
        attempt: u32,
    ) -> RedisResult<()> {
        if self.keys.args_iter().len() < 2 {
            // WATCH without keys is an error to the server; a transaction without them is a plain
            // MULTI/EXEC.
            return Ok(());
        }
        let name = || span_name("watch", &self.group).into();
        let extra = |a: &mut Vec<KeyValue>| a.push(attempt_attribute(attempt));
        let call = Call::start(server, Some(name), "WATCH".into(), None, extra, cx);
        let result = self.keys.exec_async(lent.raw()).await;
        lent.note(&result);
        if let Some(call) = call {
            call.end(&result);
        }
        result
    }

    fn wait(&self, attempt: u32) -> Duration {
        let longest = self.base.saturating_mul(1 << (attempt - 1).min(20)).min(self.cap);
        longest.mul_f64(fastrand::f64())
    }
}

fn read_replies<T>(
    read: Read<T>,
    replies: Vec<Value>,
    reason: Cow<'static, str>,
    attempts: u32,
) -> Result<TransactionOutcome<T>, TransactionError> {
    // The server applied the queue whatever the caller makes of its replies.
    Ok(match read(replies).map_err(TransactionError::Unreadable)? {
        Some(value) => TransactionOutcome::Committed(value),
        None => TransactionOutcome::NoValue { reason, attempts },
    })
}

/// Sends `MULTI`, the queue and `EXEC` in one write. `None`: discarded.
///
/// The queued commands have spans of their own, `redis.<command>.<group>`, over the time of the
/// write and with what each answered, so that the step at which a value was lost can be seen.
async fn execute(
    lent: &mut Lent,
    server: &Server,
    cx: &Context,
    multi: Multi,
    attempt: u32,
    last: bool,
) -> RedisResult<Option<Vec<Value>>> {
    let Multi { pipeline, groups } = multi;
    let call = Call::start_parent(
        server,
        "redis.transaction.execute",
        name_of_batch(&pipeline),
        pipeline.len(),
        attempt_attribute(attempt),
        cx,
    );
    // After their parent's own start.
    let started = SystemTime::now();
    let result: RedisResult<Option<Vec<Value>>> = if pipeline.is_empty() {
        // redis-rs sends nothing for an empty pipeline, but the watched keys must be answered for.
        let exec =
            redis::pipe().cmd("MULTI").cmd("EXEC").query_async::<Vec<Value>>(lent.raw()).await;
        exec.map(|mut replies| match replies.pop() {
            Some(Value::Array(items)) => Some(items),
            _ => None,
        })
    } else {
        pipeline.query_async(lent.raw()).await
    };
    if let Some(mut call) = call {
        if let Ok(None) = &result {
            call.set(KeyValue::new("failure.reason", CONCURRENT));
            call.set(KeyValue::new(RESULT, "discarded"));
            if last {
                // The attempt after which the code gives up is the error (DESIGN, decision 7).
                call.fail(CONCURRENT, DISCARDED);
            }
        }
        if call.context().is_some() {
            queued_spans(&call, server, &pipeline, &groups, &result, started, attempt);
        }
        call.end(&result);
    }
    result
}

fn queued_spans(
    call: &Call,
    server: &Server,
    pipeline: &redis::Pipeline,
    groups: &[Cow<'static, str>],
    result: &RedisResult<Option<Vec<Value>>>,
    started: SystemTime,
    attempt: u32,
) {
    let Some(parent) = call.context() else { return };
    let ended = SystemTime::now();
    for (i, (cmd, group)) in pipeline.cmd_iter().zip(groups).enumerate() {
        let answer = match result {
            Ok(Some(replies)) => replies.get(i).map_or("nil", result_of),
            Ok(None) => "discarded",
            Err(_) => "failed",
        };
        let operation = name_of(cmd);
        let name = span_name(&operation, group);
        let mut attributes = server.attributes();
        attributes.push(KeyValue::new("db.operation.name", operation));
        attributes.push(KeyValue::new(RESULT, answer));
        attributes.push(attempt_attribute(attempt));
        let builder = SpanBuilder::from_name(name)
            .with_kind(SpanKind::Client)
            .with_start_time(started)
            .with_attributes(attributes);
        let mut span = Leaf::build(builder, parent);
        if let Err(error) = result {
            span.fail(error_type(error), describe(error));
        }
        span.end_at(ended);
    }
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
