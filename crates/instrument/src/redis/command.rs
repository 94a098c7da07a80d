//! One call to the server as a CLIENT span and a duration, by the database conventions.

use crate::metrics::{CLIENT_SECONDS, meter};
use crate::span;
use crate::switch::{self, Part};
use opentelemetry::metrics::Histogram;
use opentelemetry::trace::{SpanKind, Status, TraceContextExt};
use opentelemetry::{Context, KeyValue, StringValue};
use redis::{Arg, Cmd, ConnectionAddr, ConnectionInfo, Pipeline, RedisError, RedisResult};
use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// The server's attributes, built once for each connection.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    attributes: Arc<[KeyValue]>,
}

impl Server {
    pub(crate) fn new(info: &ConnectionInfo) -> Self {
        let mut attributes = vec![
            KeyValue::new("db.system.name", "redis"),
            KeyValue::new("db.namespace", info.redis_settings().db().to_string()),
        ];
        match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                attributes.push(KeyValue::new("server.address", host.clone()));
                attributes.push(KeyValue::new("server.port", i64::from(*port)));
            }
            ConnectionAddr::Unix(path) => {
                attributes.push(KeyValue::new("server.address", path.display().to_string()));
            }
            _ => {}
        }
        Self {
            attributes: attributes.into(),
        }
    }

    pub(crate) fn attributes(&self) -> Vec<KeyValue> {
        let mut attributes = Vec::with_capacity(self.attributes.len() + 6);
        attributes.extend_from_slice(&self.attributes);
        attributes
    }
}

/// A command's name as it was written: the convention forbids folding its case.
pub(crate) fn name_of(cmd: &Cmd) -> Cow<'static, str> {
    let name = match cmd.args_iter().next() {
        Some(Arg::Simple(name)) => name,
        _ => return Cow::Borrowed("UNKNOWN"),
    };
    // The usual names need no allocation.
    const KNOWN: [&str; 24] = [
        "GET",
        "SET",
        "DEL",
        "EXISTS",
        "EXPIRE",
        "TTL",
        "INCR",
        "DECR",
        "MGET",
        "MSET",
        "HGET",
        "HSET",
        "HDEL",
        "HGETALL",
        "HLEN",
        "SADD",
        "SREM",
        "SPOP",
        "SCARD",
        "SMEMBERS",
        "SRANDMEMBER",
        "WATCH",
        "EVALSHA",
        "PING",
    ];
    KNOWN.iter().find(|k| k.as_bytes() == name).map_or_else(
        || Cow::Owned(String::from_utf8_lossy(name).into_owned()),
        |k| Cow::Borrowed(*k),
    )
}

/// `PIPELINE HSET`, `MULTI HSET` when all commands are the same, else `PIPELINE`, `MULTI`.
pub(crate) fn name_of_batch(pipeline: &Pipeline) -> Cow<'static, str> {
    let kind = if pipeline.is_transaction() {
        "MULTI"
    } else {
        "PIPELINE"
    };
    let mut names = pipeline.cmd_iter().map(name_of);
    match names.next() {
        Some(first) if names.all(|n| n == first) => Cow::Owned(format!("{kind} {first}")),
        _ => Cow::Borrowed(kind),
    }
}

/// A call under way.
pub(crate) struct Call {
    span: Option<Context>,
    started: Option<Instant>,
    operation: Cow<'static, str>,
    server: Server,
}

impl Call {
    /// Starts a call. `name` is the span's; `None` means the operation's own. A batch of exactly one
    /// command is no batch to the convention, so `batch` is written for none or two and more.
    pub(crate) fn start(
        server: &Server,
        name: Option<Cow<'static, str>>,
        operation: Cow<'static, str>,
        batch: Option<usize>,
        extra: impl FnOnce(&mut Vec<KeyValue>),
        parent: &Context,
    ) -> Option<Self> {
        let (spans, metrics) = (switch::spans(Part::Redis), switch::metrics(Part::Redis));
        if !spans && !metrics {
            return None;
        }
        let span = spans.then(|| {
            let mut attributes = server.attributes();
            attributes.push(KeyValue::new("db.operation.name", operation.clone()));
            if let Some(size) = batch.filter(|n| *n != 1) {
                attributes.push(KeyValue::new("db.operation.batch.size", size as i64));
            }
            extra(&mut attributes);
            span::start(
                name.unwrap_or_else(|| operation.clone()),
                SpanKind::Client,
                attributes,
                parent,
            )
        });
        Some(Self {
            span,
            started: metrics.then(Instant::now),
            operation,
            server: server.clone(),
        })
    }

    /// One more attribute, known only now.
    pub(crate) fn set(&self, attribute: KeyValue) {
        if let Some(cx) = &self.span {
            cx.span().set_attribute(attribute);
        }
    }

    /// The call was answered, and the answer is a failure to the caller.
    pub(crate) fn fail(&self, error: &'static str, message: &'static str) {
        if let Some(cx) = &self.span {
            cx.span().set_attribute(KeyValue::new("error.type", error));
            cx.span().set_status(Status::error(message));
        }
    }

    /// The context in which the call's span is current.
    pub(crate) fn context(&self) -> Option<&Context> {
        self.span.as_ref()
    }

    /// Ends the call: an error is an ERROR with its type, an answer leaves the status unset.
    pub(crate) fn end<T>(self, result: &RedisResult<T>) {
        let error = result.as_ref().err().map(error_type);
        if let (Some(cx), Err(e)) = (&self.span, result) {
            record_error(cx, e);
        }
        if let Some(started) = self.started {
            let mut attributes = self.server.attributes();
            attributes.push(KeyValue::new("db.operation.name", self.operation));
            if let Some(error) = error {
                attributes.push(KeyValue::new("error.type", error));
            }
            duration().record(started.elapsed().as_secs_f64(), &attributes);
        }
        if let Some(cx) = self.span {
            cx.span().end();
        }
    }
}

/// Puts an error on a span: `error.type`, the server's error prefix, and the status.
pub(crate) fn record_error(cx: &Context, error: &RedisError) {
    let span = cx.span();
    span.set_attribute(KeyValue::new("error.type", error_type(error)));
    if let Some(code) = error.code() {
        span.set_attribute(KeyValue::new("db.response.status_code", code.to_owned()));
    }
    span.set_status(Status::error(error.to_string()));
}

/// `error.type`: the server's error prefix, or what happened to the connection.
pub(crate) fn error_type(error: &RedisError) -> StringValue {
    if error.is_timeout() {
        "timeout".into()
    } else if error.is_connection_dropped() || error.is_io_error() {
        "connection_lost".into()
    } else if let Some(code) = error.code() {
        code.to_owned().into()
    } else {
        error.category().to_owned().into()
    }
}

fn duration() -> &'static Histogram<f64> {
    static DURATION: OnceLock<Histogram<f64>> = OnceLock::new();
    DURATION.get_or_init(|| {
        meter()
            .f64_histogram("db.client.operation.duration")
            .with_unit("s")
            .with_description("Duration of database client operations")
            .with_boundaries(CLIENT_SECONDS.to_vec())
            .build()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_case_and_batches_follow_the_convention() {
        assert_eq!(name_of(&redis::cmd("hset")), "hset");
        assert_eq!(name_of(&redis::cmd("SPOP")), "SPOP");
        let mut pipe = redis::pipe();
        assert_eq!(name_of_batch(&pipe), "PIPELINE");
        pipe.hset("a", "b", 1).hset("a", "c", 2);
        assert_eq!(name_of_batch(&pipe), "PIPELINE HSET");
        pipe.del("a").atomic();
        assert_eq!(name_of_batch(&pipe), "MULTI");
    }
}
