//! One trace, for tests that follow it.

use std::collections::{BTreeSet, HashMap};

use super::{Collected, Span};

/// The spans of one trace, by where they are.
pub struct Trace<'a> {
    pub spans: Vec<&'a Span>,
    pub by_id: HashMap<&'a str, &'a Span>,
}

impl<'a> Trace<'a> {
    pub fn of(collected: &'a Collected, trace_id: &'a str) -> Self {
        let spans = collected.in_trace(trace_id);
        let by_id = spans.iter().map(|span| (span.span_id.as_str(), *span)).collect();
        Self { spans, by_id }
    }

    pub fn all(&self, service: &str, name: &str) -> Vec<&'a Span> {
        let here = self.spans.iter().filter(|span| span.service == service && span.name == name);
        here.copied().collect()
    }

    pub fn one(&self, service: &str, name: &str) -> &'a Span {
        let found = self.all(service, name);
        let names: BTreeSet<_> = self.spans.iter().map(|s| (&s.service, &s.name)).collect();
        assert_eq!(found.len(), 1, "{service} {name} among {names:#?}");
        found[0]
    }

    /// The names of a span's ancestors, nearest first.
    pub fn above(&self, span: &Span) -> Vec<&'a str> {
        let mut names = vec![];
        let mut at = span.parent_id.as_str();
        while let Some(parent) = self.by_id.get(at) {
            names.push(parent.name.as_str());
            at = &parent.parent_id;
        }
        names
    }

    /// Spans of a name directly under `parent`, one at least.
    pub fn under(&self, parent: &Span, name: &str) -> Vec<&'a Span> {
        let found: Vec<_> = self.all(&parent.service, name);
        let found: Vec<_> = found.into_iter().filter(|s| s.parent_id == parent.span_id).collect();
        assert!(!found.is_empty(), "no {name} under {} of {}", parent.name, parent.service);
        found
    }
}
