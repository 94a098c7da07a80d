//! One call to the server as a CLIENT span and a duration, by the database conventions.

use super::errors::{Answer, describe, error_type, server_code};
use crate::metrics::{ByName, CLIENT_SECONDS, meter};
use crate::span::{self, Cancel, Guard, Leaf};
use crate::switch::{self, Level, Part};
use opentelemetry::metrics::{BoundHistogram, Histogram};
use opentelemetry::trace::{SpanBuilder, SpanKind, TraceContextExt};
use opentelemetry::{Context, KeyValue, StringValue};
use redis::{ConnectionAddr, ConnectionInfo, RedisError, RedisFuture, RedisResult};
use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// The server's attributes, built once for each connection.
#[derive(Debug, Clone)]
pub(crate) struct Server(Arc<Known>);

#[derive(Debug)]
struct Known {
    attributes: Vec<KeyValue>,
    /// The duration of each operation that succeeds: most of what is measured.
    succeeded: ByName<BoundHistogram<f64>>,
}

impl Server {
    pub(crate) fn new(info: &ConnectionInfo) -> Self {
        // Shared texts: every call takes a copy.
        let shared = |key: &'static str, value: &str| KeyValue::new(key, Arc::<str>::from(value));
        let mut attributes = vec![
            KeyValue::new("db.system.name", "redis"),
            shared("db.namespace", &info.redis_settings().db().to_string()),
        ];
        match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                attributes.push(shared("server.address", host));
                attributes.push(KeyValue::new("server.port", i64::from(*port)));
            }
            ConnectionAddr::Unix(path) => {
                attributes.push(shared("server.address", &path.display().to_string()));
            }
            _ => {}
        }
        Self(Arc::new(Known { attributes, succeeded: ByName::default() }))
    }

    pub(crate) fn attributes(&self) -> Vec<KeyValue> {
        // Room for what the call and the context add, so that nothing is moved.
        let mut attributes = Vec::with_capacity(self.0.attributes.len() + 8);
        attributes.extend_from_slice(&self.0.attributes);
        attributes
    }

    fn measure(&self, operation: Cow<'static, str>, seconds: f64, error: Option<StringValue>) {
        let attributes = || {
            let mut attributes = self.attributes();
            attributes.push(KeyValue::new("db.operation.name", operation.clone()));
            attributes
        };
        match error {
            None => {
                let bound = self.0.succeeded.get(&operation, || duration().bind(&attributes()));
                bound.record(seconds);
            }
            Some(error) => {
                let mut attributes = attributes();
                attributes.push(KeyValue::new("error.type", error));
                duration().record(seconds, &attributes);
            }
        }
    }
}

/// A call under way. Dropped before its end, it was cancelled.
pub(crate) struct Call(Guard<UnderWay>);

struct UnderWay {
    span: Option<Spanned>,
    started: Option<Instant>,
    operation: Cow<'static, str>,
    server: Server,
}

/// A call's span: most have no children, and none of those should cost a box.
#[allow(clippy::large_enum_variant)]
enum Spanned {
    Leaf(Leaf),
    Parent(Context),
}

impl Spanned {
    fn add(&mut self, attribute: KeyValue) {
        match self {
            Self::Leaf(span) => span.add([attribute]),
            Self::Parent(cx) => cx.span().set_attribute(attribute),
        }
    }

    fn fail(&mut self, error: StringValue, text: Cow<'static, str>) {
        match self {
            Self::Leaf(span) => span.fail(error, text),
            Self::Parent(cx) => span::fail(cx, error, text),
        }
    }
}

impl Call {
    /// Starts a call. `name` is the span's; `None` means the operation's own. A batch of exactly one
    /// command is no batch to the convention, so `batch` is written for none or two and more.
    pub(crate) fn start(
        server: &Server,
        name: Option<impl FnOnce() -> Cow<'static, str>>,
        operation: Cow<'static, str>,
        batch: Option<usize>,
        extra: impl FnOnce(&mut Vec<KeyValue>),
        parent: &Context,
    ) -> Option<Self> {
        let builder = |operation: &Cow<'static, str>| {
            let mut attributes = server.attributes();
            attributes.push(KeyValue::new("db.operation.name", operation.clone()));
            if let Some(size) = batch.filter(|n| *n != 1) {
                attributes.push(KeyValue::new("db.operation.batch.size", size as i64));
            }
            extra(&mut attributes);
            SpanBuilder::from_name(name.map_or_else(|| operation.clone(), |name| name()))
                .with_kind(SpanKind::Client)
                .with_attributes(attributes)
        };
        Self::begin(server, operation, |o| Spanned::Leaf(Leaf::build(builder(o), parent)))
    }

    /// [`Call::start`] for a batch under whose span others start.
    pub(crate) fn start_parent(
        server: &Server,
        name: &'static str,
        operation: Cow<'static, str>,
        batch: usize,
        extra: KeyValue,
        parent: &Context,
    ) -> Option<Self> {
        Self::begin(server, operation, |operation| {
            let mut attributes = server.attributes();
            attributes.push(KeyValue::new("db.operation.name", operation.clone()));
            if batch != 1 {
                attributes.push(KeyValue::new("db.operation.batch.size", batch as i64));
            }
            attributes.push(extra);
            Spanned::Parent(span::start(name, SpanKind::Client, attributes, parent))
        })
    }

    fn begin(
        server: &Server,
        operation: Cow<'static, str>,
        start: impl FnOnce(&Cow<'static, str>) -> Spanned,
    ) -> Option<Self> {
        let (spans, metrics) = (switch::spans(Part::Redis), switch::metrics(Part::Redis));
        if !spans && !metrics {
            return None;
        }
        let span = spans.then(|| start(&operation));
        let started = metrics.then(Instant::now);
        Some(Self(Guard::new(UnderWay { span, started, operation, server: server.clone() })))
    }

    /// One more attribute, known only now.
    pub(crate) fn set(&mut self, attribute: KeyValue) {
        if let Some(span) = &mut self.0.span {
            span.add(attribute);
        }
    }

    /// The call was answered, and the answer is a failure to the caller.
    pub(crate) fn fail(&mut self, error: &'static str, message: &'static str) {
        if let Some(span) = &mut self.0.span {
            span.fail(error.into(), message.into());
        }
    }

    /// The context in which the call's span is current, if others may start there.
    pub(crate) fn context(&self) -> Option<&Context> {
        match &self.0.span {
            Some(Spanned::Parent(cx)) => Some(cx),
            _ => None,
        }
    }

    /// Ends the call: an error is an ERROR with its type, an answer leaves the status unset. An
    /// answer can be an error too: the connection hands the server's on as a value.
    pub(crate) fn end<T: Answer>(&mut self, result: &RedisResult<T>) {
        let answered;
        let error = match result {
            Err(e) => Some(e),
            Ok(value) => {
                answered = value.error();
                answered.as_ref()
            }
        };
        self.0.end(|call| {
            if let (Some(span), Some(e)) = (&mut call.span, error) {
                record_error(span, e);
            }
            call.finish(error.map(error_type));
        });
    }
}

impl UnderWay {
    fn finish(&mut self, error: Option<StringValue>) {
        if let Some(started) = self.started {
            let operation = std::mem::take(&mut self.operation);
            self.server.measure(operation, started.elapsed().as_secs_f64(), error);
        }
        if let Some(Spanned::Parent(cx)) = self.span.take() {
            cx.span().end();
        }
    }
}

impl Cancel for UnderWay {
    fn cancel(&mut self, why: &'static str) {
        if let Some(span) = &mut self.span {
            span.fail(why.into(), "the call was dropped before it was answered".into());
        }
        self.finish(Some(why.into()));
    }
}

/// `sent`, as a call of its own that ends with the answer; as it is, where Redis is switched off.
pub(crate) fn traced<'a, T: Answer + Send + 'a>(
    server: &Server,
    operation: impl FnOnce() -> Cow<'static, str>,
    script: impl FnOnce() -> Option<String>,
    batch: Option<usize>,
    sent: RedisFuture<'a, T>,
) -> RedisFuture<'a, T> {
    if switch::get(Part::Redis) == Level::Off {
        return sent;
    }
    let call = Context::map_current(|cx| {
        let own = None::<fn() -> Cow<'static, str>>;
        let extra = |a: &mut Vec<KeyValue>| {
            a.extend(script().map(|s| KeyValue::new("db.stored_procedure.name", s)));
        };
        Call::start(server, own, operation(), batch, extra, cx)
    });
    Box::pin(async move {
        let result = sent.await;
        if let Some(mut call) = call {
            call.end(&result);
        }
        result
    })
}

/// Puts an error on a span: `error.type`, the server's error prefix, and the status. `NOSCRIPT` is
/// no ERROR: clients answer it by loading the script, and the conventions leave out what is handled.
fn record_error(span: &mut Spanned, error: &RedisError) {
    let code = server_code(error);
    let handled = code.as_deref() == Some("NOSCRIPT");
    if let Some(code) = code {
        span.add(KeyValue::new("db.response.status_code", code));
    }
    if !handled {
        span.fail(error_type(error), describe(error));
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
