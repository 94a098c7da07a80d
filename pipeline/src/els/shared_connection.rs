//! The fault `shared-redis-connection`: the slot transaction as the incident's code had it.
//!
//! This goes around `lacuna_instrument::redis::Transaction` on purpose. That one takes a connection
//! which its caller owns alone, so the incident cannot be written with it; here all workers send
//! `WATCH`, `MULTI`, `SPOP`, `HSET` and `EXEC` one by one over clones of one multiplexed connection.
//! To the server it is one client, so the workers' commands fall into each other's transactions.
//! Measured against Redis 7, with a second worker's commands arriving in between:
//!
//! | what arrives | what its sender gets | and the first worker |
//! |---|---|---|
//! | `WATCH` after the first one's `MULTI` | `ERR WATCH inside MULTI is not allowed` | notices nothing |
//! | `MULTI` after the first one's `MULTI` | `ERR MULTI calls can not be nested` | notices nothing |
//! | `SPOP`, `HSET` after it | `QUEUED`, into the first one's transaction | its `EXEC` pops both slots |
//! | `EXEC` before the first one's `EXEC` | both slots, of which it keeps the first | `ERR EXEC without MULTI` |
//! | `SPOP` after that `EXEC` | a slot at once, outside any transaction | its next `EXEC` answers nil, if it watched |
//!
//! The code below sends all five whatever the answers were, reads nothing but `EXEC`'s, and takes
//! whatever is not a slot for "no slot", like the incident's. So the slot stays behind in Redis or
//! vanishes from it, and the essay is excess. The spans are written by hand, named as the library
//! names them: the incident's code had none, which is why nobody could see where essays were lost.

use std::borrow::Cow;
use std::time::Duration;

use lacuna_instrument::switch::{self, Part};
use opentelemetry::trace::{SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue, global};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, Value, cmd};

use super::slots::{Essay, Keys, assignment_of, slot_in};
use crate::error::Error;

/// The connection that all workers share.
#[derive(Clone)]
pub struct SharedConnection {
    redis: MultiplexedConnection,
}

/// What `EXEC` came to.
enum Exec {
    Slot(String),
    Lost { result: &'static str, reason: &'static str },
}

impl SharedConnection {
    /// Opens it.
    pub async fn connect(client: &redis::Client) -> Result<Self, Error> {
        Ok(Self { redis: client.get_multiplexed_async_connection().await? })
    }

    /// The incident's `assign_slot_atomic`: a slot, or nothing, which its caller takes for "there is
    /// no slot". Why there was nothing, only telemetry hears.
    pub async fn assign_slot(
        &self,
        essay: &Essay,
        window: Duration,
    ) -> Result<String, &'static str> {
        let keys = Keys::of(&essay.batch_id);
        let whole = Step::start(
            "redis.transaction.assign_slot_atomic",
            SpanKind::Internal,
            &Context::current(),
            vec![
                KeyValue::new("batch_id", essay.batch_id.clone()),
                KeyValue::new("essay_id", essay.essay_id.clone()),
                KeyValue::new("transaction.type", "watch_multi_exec"),
                KeyValue::new("attempts", 1),
            ],
        );
        let watched = self
            .send(
                "redis.watch.batch_slots",
                cmd("WATCH").arg(&keys.available_slots).arg(&keys.assignments),
                &whole.context(),
            )
            .await;
        log(
            essay,
            "WATCH",
            &format!("keys=({}, {})", keys.available_slots, keys.assignments),
            &watched,
        );
        tokio::time::sleep(window).await;

        let execute = Step::start(
            "redis.transaction.execute",
            SpanKind::Client,
            &whole.context(),
            named("MULTI"),
        );
        let multi = self.send("redis.multi", &cmd("MULTI"), &execute.context()).await;
        log(essay, "MULTI", "", &multi);
        tokio::time::sleep(window).await;
        let spop = self
            .send(
                "redis.spop.available_slots",
                cmd("SPOP").arg(&keys.available_slots),
                &execute.context(),
            )
            .await;
        log(essay, "SPOP", &format!("key={}", keys.available_slots), &spop);
        tokio::time::sleep(window).await;
        let hset = cmd("HSET")
            .arg(&keys.assignments)
            .arg(&essay.essay_id)
            .arg(assignment_of(essay))
            .clone();
        let hset = self.send("redis.hset.assignments", &hset, &execute.context()).await;
        log(essay, "HSET", &format!("key={}", keys.assignments), &hset);
        tokio::time::sleep(window).await;
        let exec = self.send("redis.exec", &cmd("EXEC"), &execute.context()).await;
        log(essay, "EXEC", "", &exec);

        match read(&exec, &essay.batch_id) {
            Exec::Slot(slot) => {
                execute.end();
                whole.set("transaction.result", "success");
                whole.end();
                Ok(slot)
            }
            Exec::Lost { result, reason } => {
                execute.fail(reason);
                execute.end();
                let failed = Step::start(
                    "redis.transaction.failed",
                    SpanKind::Internal,
                    &whole.context(),
                    vec![
                        KeyValue::new("batch_id", essay.batch_id.clone()),
                        KeyValue::new("essay_id", essay.essay_id.clone()),
                    ],
                );
                failed.fail(reason);
                failed.end();
                whole.set("transaction.result", result);
                whole.fail(reason);
                whole.end();
                Err(reason)
            }
        }
    }

    async fn send(
        &self,
        span: &'static str,
        command: &Cmd,
        parent: &Context,
    ) -> Result<Value, RedisError> {
        let operation =
            command.args_iter().next().map_or(Cow::Borrowed("UNKNOWN"), |name| match name {
                redis::Arg::Simple(name) => String::from_utf8_lossy(name).into_owned().into(),
                _ => Cow::Borrowed("UNKNOWN"),
            });
        let step = Step::start(span, SpanKind::Client, parent, named(operation));
        let mut redis = self.redis.clone();
        // A refusal comes as a value at this level, below what the incident's code looked at.
        let answer = match redis.send_packed_command(command).await {
            Ok(Value::ServerError(error)) => Err(error.into()),
            answer => answer,
        };
        if let Some(word) = word(&answer) {
            step.set("lacuna.redis.result", word);
        }
        if let Err(error) = &answer {
            let code = error.code().unwrap_or("connection_lost").to_owned();
            step.set("error.type", code);
            step.error(error.to_string());
        }
        step.end();
        answer
    }
}

/// Takes the first reply for the own `SPOP`'s, as the incident's code did, and everything that is
/// not a slot of this batch for nothing.
fn read(exec: &Result<Value, RedisError>, batch_id: &str) -> Exec {
    match exec {
        Ok(Value::Array(replies)) => {
            match replies.first().and_then(|reply| slot_in(reply, batch_id)) {
                Some(slot) => Exec::Slot(slot),
                None if matches!(replies.first(), Some(Value::Nil)) => {
                    Exec::Lost { result: "no_value", reason: "no_slot" }
                }
                None => Exec::Lost { result: "failed", reason: "foreign_reply" },
            }
        }
        Ok(Value::Nil) => Exec::Lost { result: "aborted", reason: "concurrent_modification" },
        Ok(_) => Exec::Lost { result: "failed", reason: "foreign_reply" },
        Err(error) if error.code().is_some() => {
            Exec::Lost { result: "failed", reason: "exec_without_multi" }
        }
        Err(_) => Exec::Lost { result: "failed", reason: "connection_lost" },
    }
}

/// The Redis client's own line, the only trace that the incident left.
fn log(essay: &Essay, operation: &str, arguments: &str, answer: &Result<Value, RedisError>) {
    let result = match answer {
        Ok(Value::Okay) => "OK".to_owned(),
        Ok(Value::SimpleString(text)) => text.clone(),
        Ok(Value::Nil) => "nil".to_owned(),
        Ok(Value::Array(replies)) => format!("{} replies", replies.len()),
        Ok(_) => "value".to_owned(),
        Err(error) => format!("FAILED ({})", error.detail().unwrap_or("no answer")),
    };
    let space = if arguments.is_empty() { "" } else { " " };
    tracing::info!(
        target: "redis-client",
        layer = "infrastructure",
        batch_id = essay.batch_id,
        essay_id = essay.essay_id,
        "Redis {operation}: {arguments}{space}result={result}"
    );
}

/// The answer as the library's own spans tell it, and `queued`, which they never see.
fn word(answer: &Result<Value, RedisError>) -> Option<&'static str> {
    match answer {
        Ok(Value::SimpleString(text)) if text == "QUEUED" => Some("queued"),
        Ok(Value::Nil) => Some("nil"),
        Ok(Value::Array(replies)) if replies.is_empty() => Some("empty"),
        Ok(Value::Okay) | Err(_) => None,
        Ok(_) => Some("value"),
    }
}

fn named(operation: impl Into<opentelemetry::Value>) -> Vec<KeyValue> {
    vec![KeyValue::new("db.operation.name", operation)]
}

/// A span written by hand. It ends even when its future is dropped. With the switch `redis` off it
/// is none, and its children are its parent's.
struct Step {
    parent: Context,
    span: Option<Context>,
}

impl Step {
    fn start(
        name: &'static str,
        kind: SpanKind,
        parent: &Context,
        mut attributes: Vec<KeyValue>,
    ) -> Self {
        let span = switch::spans(Part::Redis).then(|| {
            attributes.push(KeyValue::new("db.system.name", "redis"));
            let tracer = global::tracer("pipeline");
            let span = tracer
                .span_builder(name)
                .with_kind(kind)
                .with_attributes(attributes)
                .start_with_context(&tracer, parent);
            parent.with_span(span)
        });
        Self { parent: parent.clone(), span }
    }

    fn context(&self) -> Context {
        self.span.as_ref().unwrap_or(&self.parent).clone()
    }

    fn set(&self, key: &'static str, value: impl Into<opentelemetry::Value>) {
        if let Some(span) = &self.span {
            span.span().set_attribute(KeyValue::new(key, value));
        }
    }

    fn error(&self, message: impl Into<Cow<'static, str>>) {
        if let Some(span) = &self.span {
            span.span().set_status(Status::error(message));
        }
    }

    fn fail(&self, reason: &'static str) {
        self.set("failure.reason", reason);
        self.set("error.type", reason);
        self.error("Transaction discarded");
    }

    fn end(&self) {
        if let Some(span) = &self.span {
            span.span().end();
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(exec: Result<Value, RedisError>) -> &'static str {
        match read(&exec, "b-1") {
            Exec::Slot(_) => "slot",
            Exec::Lost { reason, .. } => reason,
        }
    }

    #[test]
    fn whatever_is_no_slot_is_no_slot() {
        let slot = || Value::BulkString(b"b:001".to_vec());
        assert_eq!(reason(Ok(Value::Array(vec![slot(), Value::Int(1)]))), "slot");
        // Two workers' commands in one transaction: the first reply is kept, whoever's it is.
        assert_eq!(
            reason(Ok(Value::Array(vec![slot(), slot(), Value::Int(1), Value::Int(1)]))),
            "slot"
        );
        assert_eq!(reason(Ok(Value::Array(vec![Value::Int(1), slot()]))), "foreign_reply");
        assert_eq!(
            reason(Ok(Value::Array(vec![Value::BulkString(b"other:001".to_vec())]))),
            "foreign_reply"
        );
        assert_eq!(reason(Ok(Value::Array(vec![Value::Nil]))), "no_slot");
        assert_eq!(reason(Ok(Value::Nil)), "concurrent_modification");
        let refused = RedisError::from((redis::ErrorKind::Client, "gone"));
        assert_eq!(reason(Err(refused)), "connection_lost");
    }
}
