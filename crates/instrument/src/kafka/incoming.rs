//! What a message brings with it: its producer's context, and whom to link to.

use super::consume::Parent;
use super::headers::extract;
use crate::correlation;
use opentelemetry::Context;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::{Link, TraceContextExt};
use rdkafka::message::Headers;

/// The context in which a message is handled, and the link to its producer.
pub(super) struct Incoming {
    pub(super) parent: Context,
    /// `None` where the message names no producer.
    pub(super) link: Option<Link>,
}

impl Incoming {
    /// Reads `headers` over the `ambient` context. `id` is the correlation id that wins over the
    /// baggage's.
    pub(super) fn read<H: Headers>(
        headers: Option<&H>,
        parent: Parent,
        ambient: Context,
        id: Option<String>,
    ) -> Self {
        let remote = extract(headers, &ambient);
        let producer = remote.span().span_context().clone();
        // Without a trace in the headers, the ambient one is still there.
        let told = producer.is_valid() && producer != *ambient.span().span_context();
        let link = told.then(|| Link::new(producer, vec![], 0));
        let mut parent = match parent {
            Parent::Producer => remote,
            Parent::Ambient => {
                // The message's id, also where it came as baggage only.
                let id = correlation::of(&remote);
                let parent = if ambient.baggage().is_empty() && !remote.baggage().is_empty() {
                    ambient.with_baggage(correlation::copy(remote.baggage()))
                } else {
                    ambient
                };
                id.map_or_else(|| parent.clone(), |id| correlation::with(&parent, id))
            }
        };
        if let Some(id) = id {
            parent = correlation::with(&parent, id);
        }
        Self { parent, link }
    }
}
