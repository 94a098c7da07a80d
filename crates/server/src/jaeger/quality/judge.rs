//! Judging the spans of a trace.

use std::collections::{BTreeMap, HashMap, HashSet};

use lacuna_signal::rows::SpanRows;
use lacuna_signal::schema::Scope;
use lacuna_signal::{Batch, SpanId, TraceId, semconv};

use super::{Check, Outcome, Tally};
use crate::jaeger::source::{SourceError, TraceSource};
use crate::jaeger::unnamed::service_of;

/// Other traces that are read to see whether links lead to them.
const LINKED_TRACES: usize = 200;
/// Clocks of two hosts agree to about this: 1 ms.
const SKEW: i64 = 1_000_000;
const ERROR: u8 = 2;
const CONSUMER: u8 = 5;

/// Judges trace after trace.
pub struct Judge<'s> {
    source: &'s dyn TraceSource,
    service: &'s str,
    tallies: BTreeMap<Check, Tally>,
    /// Span ids of traces to which links lead.
    linked: HashMap<TraceId, HashSet<SpanId>>,
}

impl<'s> Judge<'s> {
    pub fn new(source: &'s dyn TraceSource, service: &'s str) -> Self {
        let tallies = Check::ALL.map(|check| (check, Tally::default()));
        Self { source, service, tallies: tallies.into(), linked: HashMap::new() }
    }

    pub fn finish(self) -> BTreeMap<Check, Tally> {
        self.tallies
    }

    /// Judges the spans of `trace` that the service sent and, of all its spans, whether they have a
    /// service.
    pub fn trace(&mut self, id: TraceId, trace: &Batch) -> Result<(), SourceError> {
        let rows = SpanRows::new(trace);
        let mut starts: HashMap<SpanId, i64> = HashMap::new();
        let mut uses: HashMap<SpanId, usize> = HashMap::new();
        for row in 0..trace.num_rows() {
            if let Some(span) = rows.span_id(row) {
                starts.entry(span).or_insert_with(|| rows.start(row));
                *uses.entry(span).or_default() += 1;
            }
        }
        let reason = trace.attribute(Scope::Span, semconv::ERROR_TYPE);
        for row in 0..trace.num_rows() {
            let span = rows.span_id(row);
            let named = rows.service(row).is_some_and(|name| !name.is_empty());
            self.count(Check::Services, named, id, span);
            if service_of(&rows, row) != self.service {
                continue;
            }
            let parent = rows.parent_span_id(row);
            match parent {
                Some(parent) => {
                    self.count(Check::Parents, starts.contains_key(&parent), id, span);
                }
                None => self.exempt(Check::Parents, id, span),
            }
            let links: Vec<_> = rows.links(row).map(|link| (link.trace_id, link.span_id)).collect();
            let mut found = None;
            for (other, target) in &links {
                let there = match *other == id {
                    true => Some(starts.contains_key(target)),
                    false => self.has(*other, *target)?,
                };
                found = there.map(|there| there && found != Some(false)).or(found);
            }
            match found {
                Some(found) => self.count(Check::Links, found, id, span),
                None => self.exempt(Check::Links, id, span),
            }
            if rows.kind(row) == CONSUMER {
                self.count(Check::Consumers, parent.is_some() || !links.is_empty(), id, span);
            } else {
                self.exempt(Check::Consumers, id, span);
            }
            self.count(Check::Kinds, rows.kind(row) != 0, id, span);
            let unique = span.is_some_and(|span| uses.get(&span) == Some(&1));
            self.count(Check::Ids, unique, id, span);
            if rows.status_code(row) == ERROR {
                let message = rows.status_message(row).is_some_and(|text| !text.is_empty());
                let exception = || rows.events(row).any(|event| event.name == "exception");
                let said = message || reason.get(row).is_some() || exception();
                self.count(Check::Errors, said, id, span);
            } else {
                self.exempt(Check::Errors, id, span);
            }
            let after_parent = parent
                .and_then(|parent| starts.get(&parent))
                .is_none_or(|start| rows.start(row) >= start.saturating_sub(SKEW));
            self.count(Check::Times, rows.duration(row) >= 0 && after_parent, id, span);
        }
        Ok(())
    }

    /// Whether `span` of another trace is stored; `None` if that is not looked for any more.
    fn has(&mut self, trace: TraceId, span: SpanId) -> Result<Option<bool>, SourceError> {
        if !self.linked.contains_key(&trace) {
            if self.linked.len() == LINKED_TRACES {
                return Ok(None);
            }
            let found = self.source.trace(trace)?.spans;
            let rows = SpanRows::new(&found);
            let ids = (0..found.num_rows()).filter_map(|row| rows.span_id(row)).collect();
            self.linked.insert(trace, ids);
        }
        Ok(self.linked.get(&trace).map(|spans| spans.contains(&span)))
    }

    fn count(&mut self, check: Check, passes: bool, trace: TraceId, span: Option<SpanId>) {
        let outcome = if passes { Outcome::Pass } else { Outcome::Fail };
        self.tallies.entry(check).or_default().add(outcome, trace, span);
    }

    fn exempt(&mut self, check: Check, trace: TraceId, span: Option<SpanId>) {
        self.tallies.entry(check).or_default().add(Outcome::Exempt, trace, span);
    }
}
