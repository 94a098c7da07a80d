//! `MULTI`, the queue and `EXEC`, in one write.

use super::command::{Call, Server};
use super::connection::{Deadline, Lent};
use super::errors::{describe, error_type};
use super::names::{name_of, name_of_batch};
use super::outcome::TransactionError;
use super::record::{CONCURRENT, DISCARDED};
use super::watched::{Multi, RESULT, attempt_attribute, result_of, span_name};
use crate::span::{Cancel, Guard, Leaf};
use opentelemetry::trace::{SpanBuilder, SpanKind};
use opentelemetry::{Context, KeyValue, StringValue};
use redis::{ErrorKind, RedisError, RedisResult, ServerError, ServerErrorKind, Value};
use std::borrow::Cow;
use std::time::SystemTime;

/// The end of an attempt.
pub(crate) struct Exec {
    pub(crate) multi: Multi,
    pub(crate) attempt: u32,
    /// No other attempt follows.
    pub(crate) last: bool,
    pub(crate) deadline: Deadline,
}

impl Exec {
    /// Sends the queue with `EXEC` and gives the replies, one for each command. `None`: discarded.
    ///
    /// The queued commands have spans of their own, `redis.<command>.<group>`, over the time of the
    /// write and with what each answered, so that the step at which a value was lost can be seen.
    pub(crate) async fn send(
        self,
        lent: &mut Lent,
        server: &Server,
        cx: &Context,
    ) -> Result<Option<Vec<Value>>, TransactionError> {
        let Self { multi, attempt, last, deadline } = self;
        let pipeline = &multi.pipeline;
        let call = Call::start_parent(
            server,
            "redis.transaction.execute",
            name_of_batch(pipeline),
            pipeline.len(),
            attempt_attribute(attempt),
            cx,
        );
        let mut executing = call.map(|call| {
            // After their parent's own start.
            let started = SystemTime::now();
            Guard::new(Executing { call, multi: &multi, server, started, attempt })
        });
        let sent = lent.send_all(pipeline, pipeline.len() + 1, 1, deadline).await;
        let answer = sent.and_then(read_answer);
        let result = match &answer {
            Err(error) => Err(TransactionError::of_exec(error.clone(), pipeline.len())),
            Ok(None) => Ok(()),
            Ok(Some(replies)) => match replies.iter().find_map(error_of) {
                None => Ok(()),
                Some(source) => {
                    Err(TransactionError::PartlyApplied { source, replies: replies.clone() })
                }
            },
        };
        if let Some(executing) = &mut executing {
            executing.end(|executing| executing.finish(&answer, result.as_ref().err(), last));
        }
        result?;
        answer.map_err(Into::into)
    }
}

/// What the server says to `EXEC`: the replies, nil where it discarded the queue, or no.
fn read_answer(mut answers: Vec<Value>) -> RedisResult<Option<Vec<Value>>> {
    match answers.pop() {
        Some(Value::Nil) => Ok(None),
        Some(Value::Array(replies)) => Ok(Some(replies)),
        Some(Value::ServerError(error)) => Err(error.into()),
        _ => {
            let what = "EXEC was answered neither with replies nor with nil";
            Err((ErrorKind::UnexpectedReturnType, what).into())
        }
    }
}

fn error_of(reply: &Value) -> Option<RedisError> {
    match reply {
        Value::ServerError(error) => Some(error.clone().into()),
        _ => None,
    }
}

/// An `EXEC` on its way. Given up, it says of each command that it was not answered.
struct Executing<'m> {
    call: Call,
    multi: &'m Multi,
    server: &'m Server,
    started: SystemTime,
    attempt: u32,
}

/// What became of a queued command: `lacuna.redis.result`, and its error.
type Fate = (&'static str, Option<(StringValue, Cow<'static, str>)>);

const UNANSWERED: &str = "unanswered";

impl Executing<'_> {
    fn finish(
        &mut self,
        answer: &RedisResult<Option<Vec<Value>>>,
        error: Option<&TransactionError>,
        last: bool,
    ) {
        if let Some(error) = error {
            self.call.set(KeyValue::new("failure.reason", error.reason()));
        }
        if let Ok(None) = answer {
            self.call.set(KeyValue::new("failure.reason", CONCURRENT));
            self.call.set(KeyValue::new(RESULT, "discarded"));
            if last {
                // The attempt after which the code gives up is the error (DESIGN, decision 7).
                self.call.fail(CONCURRENT, DISCARDED);
            }
        }
        let told = |error: &RedisError| Some((error_type(error), describe(error)));
        let refused = match answer {
            Err(error) => error.clone().into_server_errors(),
            Ok(_) => None,
        };
        let in_part = error.is_some_and(TransactionError::applied);
        self.queued(|i| match (answer, &refused) {
            (Ok(Some(replies)), _) => match replies.get(i) {
                Some(reply) => match error_of(reply) {
                    Some(error) => ("failed", told(&error)),
                    None => (result_of(reply), None),
                },
                None => (UNANSWERED, None),
            },
            (Ok(None), _) => ("discarded", None),
            (Err(_), Some(_)) if in_part => (UNANSWERED, None),
            // EXEC was refused. Where that is because of commands that were refused when they were
            // queued, those are named; the others were not applied.
            (Err(error), Some(refused)) => {
                let by_name = error.kind() == ErrorKind::Server(ServerErrorKind::ExecAbort);
                let named = |(command, error): &&(usize, ServerError)| {
                    by_name && *command == i && error.kind() != Some(ServerErrorKind::ExecAbort)
                };
                match refused.iter().find(named) {
                    Some((_, error)) => ("failed", told(&error.clone().into())),
                    None => ("discarded", None),
                }
            }
            (Err(error), None) => (UNANSWERED, told(error)),
        });
        self.call.end(answer);
    }

    /// A span for each queued command.
    fn queued(&self, fate: impl Fn(usize) -> Fate) {
        let (Some(parent), Some(groups)) = (self.call.context(), &self.multi.groups) else {
            return;
        };
        let ended = SystemTime::now();
        for (i, (cmd, group)) in self.multi.pipeline.cmd_iter().zip(groups).enumerate() {
            let (result, error) = fate(i);
            let operation = name_of(cmd);
            let name = span_name(&operation, group);
            let mut attributes = self.server.attributes();
            attributes.push(KeyValue::new("db.operation.name", operation));
            attributes.push(KeyValue::new(RESULT, result));
            attributes.push(attempt_attribute(self.attempt));
            let builder = SpanBuilder::from_name(name)
                .with_kind(SpanKind::Client)
                .with_start_time(self.started)
                .with_attributes(attributes);
            let mut span = Leaf::build(builder, parent);
            if let Some((error, text)) = error {
                span.fail(error, text);
            }
            span.end_at(ended);
        }
    }
}

impl Cancel for Executing<'_> {
    fn cancel(&mut self, why: &'static str) {
        self.call.set(KeyValue::new("failure.reason", why));
        let text = "the transaction was dropped before EXEC was answered";
        self.queued(|_| (UNANSWERED, Some((why.into(), text.into()))));
    }
}
