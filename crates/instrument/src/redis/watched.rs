//! The two phases of an attempt: reads under `WATCH`, then commands queued for `EXEC`.

use super::command::{Call, Server};
use super::connection::{Deadline, Lent};
use super::names::name_of;
use crate::switch::{self, Part};
use opentelemetry::{Context, KeyValue};
use redis::{Cmd, FromRedisValue, Pipeline, RedisResult, Value, from_redis_value};
use std::borrow::Cow;

/// An attempt whose keys are watched, given to the body and dropped by it. Reads go out at once, each
/// in a span `redis.<command>.<group>`; what is to be written is queued by [`Watched::multi`].
#[derive(Debug)]
pub struct Watched {
    pub(crate) connection: Lent,
    pub(crate) server: Server,
    pub(crate) cx: Context,
    pub(crate) attempt: u32,
    pub(crate) deadline: Deadline,
}

impl Watched {
    /// Sends a command now and waits for its answer. `group` names what it touches, low in
    /// cardinality: `available_slots`, not the key.
    ///
    /// # Errors
    /// As the server or the connection fails, when the transaction's time is up, or when the answer
    /// is no `T`; `?` turns each into the transaction's error.
    pub async fn query<T: FromRedisValue>(
        &mut self,
        group: impl Into<Cow<'static, str>>,
        cmd: &Cmd,
    ) -> RedisResult<T> {
        let operation = name_of(cmd);
        let (group, named) = (group.into(), operation.clone());
        let name = || span_name(&named, &group).into();
        let attempt = self.attempt;
        let extra = |a: &mut Vec<KeyValue>| a.push(attempt_attribute(attempt));
        let call = Call::start(&self.server, Some(name), operation, None, extra, &self.cx);
        let result = self.connection.send(cmd, self.deadline).await;
        if let Some(mut call) = call {
            if let Ok(value) = &result {
                call.set(KeyValue::new(RESULT, result_of(value)));
            }
            call.end(&result);
        }
        Ok(from_redis_value(result?.extract_error()?)?)
    }

    /// Starts the queue of commands that `EXEC` applies together.
    #[must_use]
    pub fn multi(&self) -> Multi {
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        Multi { pipeline, groups: switch::spans(Part::Redis).then(Vec::new) }
    }

    /// Ends the attempt without `EXEC`: there is nothing to take. `reason` is low in cardinality.
    pub fn no_value<T>(&self, reason: impl Into<Cow<'static, str>>) -> Step<T> {
        Step(Next::NoValue(reason.into()))
    }

    /// The number of this attempt, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }
}

/// Commands queued for `EXEC`.
#[derive(Debug)]
pub struct Multi {
    pub(crate) pipeline: Pipeline,
    /// What each command touches; `None` with spans off, which nobody would name after it.
    pub(crate) groups: Option<Vec<Cow<'static, str>>>,
}

impl Multi {
    /// Queues a command. `group` names what it touches, as in [`Watched::query`].
    pub fn add(&mut self, group: impl Into<Cow<'static, str>>, cmd: &Cmd) -> &mut Self {
        self.pipeline.add_command(cmd.clone());
        if let Some(groups) = &mut self.groups {
            groups.push(group.into());
        }
        self
    }

    /// Sends the queue with `EXEC`; when it is applied, the outcome is `Committed(value)`.
    pub fn commit<T: Send + 'static>(self, value: T) -> Step<T> {
        self.commit_with("", move |_| Ok(Some(value)))
    }

    /// Sends the queue with `EXEC`; the outcome's value is the replies, one for each command, read
    /// as `T` (a tuple, a `Vec`).
    pub fn commit_replies<T: FromRedisValue>(self) -> Step<T> {
        self.commit_with("", |replies| Ok(Some(from_redis_value(Value::Array(replies))?)))
    }

    /// Sends the queue with `EXEC`; `read` takes the value from the replies, one for each command.
    /// `Ok(None)` makes the outcome `NoValue` with `reason`: an `SPOP` on an empty set was applied,
    /// and found nothing.
    pub fn commit_with<T>(
        self,
        reason: impl Into<Cow<'static, str>>,
        read: impl FnOnce(Vec<Value>) -> RedisResult<Option<T>> + Send + 'static,
    ) -> Step<T> {
        Step(Next::Exec { multi: self, reason: reason.into(), read: Box::new(read) })
    }
}

/// What an attempt does next; made by [`Multi`] and [`Watched::no_value`].
#[must_use = "the closure returns it"]
pub struct Step<T>(pub(crate) Next<T>);

impl<T> std::fmt::Debug for Step<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Next::Exec { multi, .. } => f.debug_tuple("Exec").field(&multi.groups).finish(),
            Next::NoValue(reason) => f.debug_tuple("NoValue").field(reason).finish(),
        }
    }
}

pub(crate) type Read<T> = Box<dyn FnOnce(Vec<Value>) -> RedisResult<Option<T>> + Send>;

pub(crate) enum Next<T> {
    Exec { multi: Multi, reason: Cow<'static, str>, read: Read<T> },
    NoValue(Cow<'static, str>),
}

/// Attribute: what a command of a transaction answered.
pub(crate) const RESULT: &str = "lacuna.redis.result";

/// `value`, `nil` or `empty`: enough to see where a value was lost, without the value.
pub(crate) fn result_of(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Array(items) | Value::Set(items) if items.is_empty() => "empty",
        Value::Map(items) if items.is_empty() => "empty",
        _ => "value",
    }
}

/// `redis.spop.available_slots`.
pub(crate) fn span_name(operation: &str, group: &str) -> String {
    format!("redis.{}.{group}", operation.to_ascii_lowercase())
}

pub(crate) fn attempt_attribute(attempt: u32) -> KeyValue {
    KeyValue::new("lacuna.redis.transaction.attempt", i64::from(attempt))
}
