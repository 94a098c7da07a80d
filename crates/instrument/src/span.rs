//! Starting the crate's own spans: one scope name, dynamic names, an explicit parent.

use opentelemetry::trace::{SpanBuilder, SpanKind, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, InstrumentationScope, KeyValue, global};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use std::borrow::Cow;
use std::sync::OnceLock;

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
