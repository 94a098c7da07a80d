//! Finding what carries a key, and what shares a trace with it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use lacuna_signal::rows::{LogRows, SpanRows};
use lacuna_signal::selector::{Expr, Field, FieldScope, Selector, SelectorError};
use lacuna_signal::{Batch, SignalKind, SpanId, TraceId};

use super::rows::{Row, rows};
use super::{Event, KeyPart, MAX_EVENTS, MAX_TRACES, Story, What};

/// Whose an event is, by the attributes that it has itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// It carries the key.
    This,
    /// It carries another value under the key's name.
    Other,
    /// It does not say.
    Unsaid,
}

/// A search for one key, shown batches twice: first all of them ([`Search::match_batch`]), then
/// those that may hold the traces found ([`Search::trace_batch`]).
#[derive(Debug)]
pub struct Search {
    key: Vec<KeyPart>,
    /// Selectors of what carries the key, and of what carries another value of it.
    spans: [Selector; 2],
    logs: [Selector; 2],
    traces: BTreeSet<TraceId>,
    /// What was taken already: the same row is shown in both passes.
    seen: HashSet<u64>,
    taken: Vec<(Event, Owner, Option<SpanId>)>,
    /// Whether something was left out because there is too much of it.
    pub cut: bool,
}

impl Search {
    /// A search for the key whose parts are all of `key`.
    ///
    /// # Errors
    /// If an attribute cannot be searched for.
    pub fn new(key: Vec<KeyPart>) -> Result<Self, SelectorError> {
        let carries = Expr::all(
            key.iter()
                .map(|part| Expr::any(part.names().map(|name| Expr::tag(name, &*part.value)))),
        );
        let another = Expr::any(key.iter().map(|part| {
            let tag = |name| Field::attribute(FieldScope::Any, name);
            let said = Expr::any(part.names().map(|name| Expr::exists(tag(name))));
            let same = Expr::any(part.names().map(|name| Expr::tag(name, &*part.value)));
            Expr::all([said, Expr::Not(Box::new(same))])
        }));
        let pair = |kind| -> Result<[Selector; 2], SelectorError> {
            Ok([Selector::new(kind, carries.clone())?, Selector::new(kind, another.clone())?])
        };
        Ok(Self {
            spans: pair(SignalKind::Spans)?,
            logs: pair(SignalKind::Logs)?,
            key,
            traces: BTreeSet::new(),
            seen: HashSet::new(),
            taken: Vec::new(),
            cut: false,
        })
    }

    /// The key.
    pub fn key(&self) -> &[KeyPart] {
        &self.key
    }

    /// What selects the rows of a kind that carry the key.
    pub fn selector(&self, kind: SignalKind) -> Option<&Selector> {
        self.selectors(kind).map(|[carries, _]| carries)
    }

    fn selectors(&self, kind: SignalKind) -> Option<&[Selector; 2]> {
        match kind {
            SignalKind::Spans => Some(&self.spans),
            SignalKind::Logs => Some(&self.logs),
            SignalKind::Points => None,
        }
    }

    /// Takes the rows that carry the key, and notes their traces.
    pub fn match_batch(&mut self, batch: &Batch) {
        let Some([carries, _]) = self.selectors(batch.kind()) else { return };
        let mask = carries.mask(batch);
        if mask.true_count() == 0 {
            return;
        }
        for row in rows(batch, |row| mask.value(row)) {
            for id in row.event.trace_id.iter().chain(&row.links) {
                if self.traces.len() < MAX_TRACES {
                    self.traces.insert(*id);
                } else if !self.traces.contains(id) {
                    self.cut = true;
                }
            }
            self.take(row, Owner::This);
        }
    }

    /// The traces of what carries the key, and those that it links to.
    pub fn traces(&self) -> Vec<TraceId> {
        self.traces.iter().copied().collect()
    }

    /// Takes the rows of those traces.
    pub fn trace_batch(&mut self, batch: &Batch) {
        let Some([carries, another]) = self.selectors(batch.kind()) else { return };
        let trace: Vec<Option<TraceId>> = match batch.kind() {
            SignalKind::Spans => {
                let columns = SpanRows::new(batch);
                (0..batch.num_rows()).map(|row| columns.trace_id(row)).collect()
            }
            _ => {
                let columns = LogRows::new(batch);
                (0..batch.num_rows()).map(|row| columns.trace_id(row)).collect()
            }
        };
        let wanted = |row: usize| trace[row].is_some_and(|id| self.traces.contains(&id));
        let hits: Vec<usize> = (0..batch.num_rows()).filter(|row| wanted(*row)).collect();
        if hits.is_empty() {
            return;
        }
        let (carries, another) = (carries.mask(batch), another.mask(batch));
        let hits: HashSet<usize> = hits.into_iter().collect();
        for row in rows(batch, |row| hits.contains(&row)) {
            let owner = match (carries.value(row.at), another.value(row.at)) {
                (true, _) => Owner::This,
                (false, true) => Owner::Other,
                (false, false) => Owner::Unsaid,
            };
            self.take(row, owner);
        }
    }

    fn take(&mut self, row: Row, owner: Owner) {
        let mut hasher = DefaultHasher::new();
        let event = &row.event;
        (event.trace_id, event.span_id).hash(&mut hasher);
        if let What::Log { body, .. } = &event.what {
            (event.at, &event.service, body).hash(&mut hasher);
        }
        if !self.seen.insert(hasher.finish()) {
            return;
        }
        if self.taken.len() >= MAX_EVENTS * 4 {
            self.cut = true;
            return;
        }
        self.taken.push((row.event, owner, row.above));
    }

    /// Ends the search.
    pub fn finish(self) -> Story {
        let mut by_span: HashMap<(TraceId, SpanId), (Owner, Option<SpanId>)> = HashMap::new();
        for (event, owner, above) in &self.taken {
            if let (What::Span { .. }, Some(trace), Some(span)) =
                (&event.what, event.trace_id, event.span_id)
            {
                by_span.insert((trace, span), (*owner, *above));
            }
        }
        let mut others = 0;
        let mut events = Vec::new();
        for (mut event, owner, above) in self.taken {
            let mut owner = owner;
            let mut next = above;
            // A trace that is a circle is none; so many levels are more than any trace has.
            for _ in 0..256 {
                let (Owner::Unsaid, Some(span), Some(trace)) = (owner, next, event.trace_id) else {
                    break;
                };
                let Some((found, above)) = by_span.get(&(trace, span)) else { break };
                if *found != Owner::Unsaid {
                    owner = if *found == Owner::This { Owner::Unsaid } else { Owner::Other };
                    break;
                }
                next = *above;
            }
            if owner == Owner::Other {
                others += 1;
                continue;
            }
            event.carries_key = owner == Owner::This;
            events.push(event);
        }
        let mut story = Story::new(self.key, events);
        story.others = others;
        story.cut = self.cut || story.events.len() > MAX_EVENTS;
        story.events.truncate(MAX_EVENTS);
        story
    }
}
