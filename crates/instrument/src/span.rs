//! Starting the crate's own spans: one scope name, dynamic names, an explicit parent.

use opentelemetry::global::BoxedSpan;
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanKind, Status, TraceContextExt, Tracer, TracerProvider,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue, Value, global};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span as SdkSpan};
use std::borrow::Cow;
use std::sync::OnceLock;
use std::time::SystemTime;

/// Name of the instrumentation scope of every span, log and metric of this crate.
pub(crate) const SCOPE: &str = "lacuna-instrument";

/// The SDK's tracer, kept at `init` so that a span costs neither a look-up nor a box.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

pub(crate) fn scope() -> InstrumentationScope {
    InstrumentationScope::builder(SCOPE).with_version(env!("CARGO_PKG_VERSION")).build()
}

/// Keeps the provider's tracer for [`start`]. The first call of a process wins.
pub(crate) fn remember_tracer(provider: &SdkTracerProvider) {
    let _ = TRACER.set(provider.tracer_with_scope(scope()));
}

/// Starts a span under `parent` and gives the context in which it is current. Without `init` the
/// global provider is used, whoever set it.
pub(crate) fn start(
    name: impl Into<Cow<'static, str>>,
    kind: SpanKind,
    attributes: Vec<KeyValue>,
    parent: &Context,
) -> Context {
    build(SpanBuilder::from_name(name).with_kind(kind).with_attributes(attributes), parent)
}

/// [`start`] for a builder that says more: links, start time.
pub(crate) fn build(builder: SpanBuilder, parent: &Context) -> Context {
    match TRACER.get() {
        Some(tracer) => parent.with_span(tracer.build_with_context(builder, parent)),
        None => {
            let tracer = global::tracer_with_scope(scope());
            parent.with_span(tracer.build_with_context(builder, parent))
        }
    }
}

/// `error.type` of a call whose future was dropped before it was answered.
pub(crate) const CANCELLED: &str = "cancelled";

/// What can be given up before it is answered.
#[cfg_attr(not(any(feature = "redis", feature = "postgres")), allow(dead_code))]
pub(crate) trait Cancel {
    /// Ends without an answer: `why` is [`CANCELLED`], or `panic` where that took it down.
    fn cancel(&mut self, why: &'static str);
}

/// Work under way: dropped before it was ended, it ends as cancelled, and never as silence.
#[cfg_attr(not(any(feature = "redis", feature = "postgres")), allow(dead_code))]
#[derive(Debug)]
pub(crate) struct Guard<T: Cancel> {
    work: T,
    ended: bool,
}

#[cfg_attr(not(any(feature = "redis", feature = "postgres")), allow(dead_code))]
impl<T: Cancel> Guard<T> {
    pub(crate) fn new(work: T) -> Self {
        Self { work, ended: false }
    }

    /// Ends the work by its answer. Only the first end counts.
    pub(crate) fn end(&mut self, how: impl FnOnce(&mut T)) {
        if !std::mem::replace(&mut self.ended, true) {
            how(&mut self.work);
        }
    }
}

impl<T: Cancel> std::ops::Deref for Guard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.work
    }
}

impl<T: Cancel> std::ops::DerefMut for Guard<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.work
    }
}

impl<T: Cancel> Drop for Guard<T> {
    fn drop(&mut self) {
        let why = if std::thread::panicking() { "panic" } else { CANCELLED };
        self.end(|work| work.cancel(why));
    }
}

/// A span that no other starts under: it needs no context, which would cost an allocation, a lock at
/// each touch and a copy for each holder. Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Leaf(Kind);

#[derive(Debug)]
// The usual one is the large one, and boxing it is the allocation that is saved here.
#[allow(clippy::large_enum_variant)]
enum Kind {
    Ours(SdkSpan),
    Other(BoxedSpan),
}

impl Leaf {
    pub(crate) fn start(
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
        attributes: Vec<KeyValue>,
        parent: &Context,
    ) -> Self {
        Self::build(
            SpanBuilder::from_name(name).with_kind(kind).with_attributes(attributes),
            parent,
        )
    }

    pub(crate) fn build(builder: SpanBuilder, parent: &Context) -> Self {
        Self(match TRACER.get() {
            Some(tracer) => Kind::Ours(tracer.build_with_context(builder, parent)),
            None => {
                Kind::Other(global::tracer_with_scope(scope()).build_with_context(builder, parent))
            }
        })
    }

    pub(crate) fn add(&mut self, attributes: impl IntoIterator<Item = KeyValue>) {
        match &mut self.0 {
            Kind::Ours(span) => span.set_attributes(attributes),
            Kind::Other(span) => span.set_attributes(attributes),
        }
    }

    /// Marks the span as an ERROR. `text` says what went wrong without any value of the caller's.
    pub(crate) fn fail(&mut self, error: impl Into<Value>, text: impl Into<Cow<'static, str>>) {
        self.add([KeyValue::new("error.type", error)]);
        let status = Status::error(text);
        match &mut self.0 {
            Kind::Ours(span) => span.set_status(status),
            Kind::Other(span) => span.set_status(status),
        }
    }

    pub(crate) fn end_at(mut self, time: SystemTime) {
        match &mut self.0 {
            Kind::Ours(span) => span.end_with_timestamp(time),
            Kind::Other(span) => span.end_with_timestamp(time),
        }
    }
}

/// Marks the span of `cx` as an ERROR, as [`Leaf::fail`] does.
pub(crate) fn fail(cx: &Context, error: impl Into<Value>, text: impl Into<Cow<'static, str>>) {
    let span = cx.span();
    span.set_attribute(KeyValue::new("error.type", error));
    span.set_status(Status::error(text));
}
