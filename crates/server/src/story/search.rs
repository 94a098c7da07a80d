//! Finding what carries a key, and what shares a trace with it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use lacuna_signal::rows::{LogRows, SpanRows};
use lacuna_signal::selector::{
    BatchIndex, Expr, Field, FieldAccess, FieldScope, Literal, Op, Selector, SelectorError,
};
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
    spans: Sought,
    logs: Sought,
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
        Ok(Self {
            spans: Sought::new(SignalKind::Spans, &key)?,
            logs: Sought::new(SignalKind::Logs, &key)?,
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

    /// What selects the rows of a kind that may carry the key.
    pub fn selector(&self, kind: SignalKind) -> Option<&Selector> {
        self.sought(kind).map(|sought| &sought.wide)
    }

    fn sought(&self, kind: SignalKind) -> Option<&Sought> {
        match kind {
            SignalKind::Spans => Some(&self.spans),
            SignalKind::Logs => Some(&self.logs),
            SignalKind::Points => None,
        }
    }

    /// Takes the rows that carry the key, and notes their traces.
    pub fn match_batch(&mut self, batch: &Batch) {
        let Some(sought) = self.sought(batch.kind()) else { return };
        let mask = sought.wide.mask(batch);
        if mask.true_count() == 0 {
            return;
        }
        let owners = sought.owners(batch);
        for row in rows(batch, |row| mask.value(row) && owners[row] == Owner::This) {
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
        let Some(sought) = self.sought(batch.kind()) else { return };
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
        let owners = sought.owners(batch);
        let hits: HashSet<usize> = hits.into_iter().collect();
        for row in rows(batch, |row| hits.contains(&row)) {
            let owner = owners[row.at];
            self.take(row, owner);
        }
    }

    fn take(&mut self, row: Row, owner: Owner) {
        let mut hasher = DefaultHasher::new();
        let event = &row.event;
        (event.trace_id, event.span_id).hash(&mut hasher);
        // Records have no identity of their own: two that differ in anything are two.
        if let What::Log { body, level, event: name } = &event.what {
            (event.at, &event.service, body, level, name, &event.attributes).hash(&mut hasher);
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

/// What is looked for in rows of one kind.
#[derive(Debug)]
struct Sought {
    /// Rows that carry the key, and some that only look like it.
    wide: Selector,
    parts: Vec<Part>,
}

/// One part of the key.
#[derive(Debug)]
struct Part {
    value: String,
    /// Rows with an attribute of that name and value, and of that name.
    same: Selector,
    said: Selector,
    /// Texts of which a part is the value.
    texts: Vec<FieldAccess>,
}

impl Sought {
    fn new(kind: SignalKind, key: &[KeyPart]) -> Result<Self, SelectorError> {
        let mut wide = Vec::new();
        let mut parts = Vec::new();
        for part in key {
            let same = Expr::any(part.names().map(|name| Expr::tag(name, &*part.value)));
            let said = Expr::any(
                part.names().map(|name| Expr::exists(Field::attribute(FieldScope::Any, name))),
            );
            let texts = part.texts.iter().filter(|text| text.signal == kind.name());
            let texts: Vec<FieldAccess> = texts
                .map(|text| FieldAccess::parse(kind, &text.field))
                .collect::<Result<_, _>>()?;
            let pattern = Literal::Str(format!(".*{}.*", regex::escape(&part.value)));
            let holds = |text: &FieldAccess| {
                Expr::compare(text.field().clone(), Op::Match, pattern.clone())
            };
            wide.push(Expr::any(std::iter::once(same.clone()).chain(texts.iter().map(holds))));
            let (same, said) = (Selector::new(kind, same)?, Selector::new(kind, said)?);
            parts.push(Part { value: part.value.clone(), same, said, texts });
        }
        Ok(Self { wide: Selector::new(kind, Expr::all(wide))?, parts })
    }

    /// Whose each row is.
    fn owners(&self, batch: &Batch) -> Vec<Owner> {
        let index = BatchIndex::new(batch);
        let mut owners = vec![Owner::This; batch.num_rows()];
        for part in &self.parts {
            let (same, said) = (part.same.mask_in(&index), part.said.mask_in(&index));
            let texts: Vec<_> = part.texts.iter().map(|text| text.bind(&index)).collect();
            for (row, owner) in owners.iter_mut().enumerate() {
                let mut values = texts.iter().filter_map(|text| text.get(row)).peekable();
                let said = said.value(row) || values.peek().is_some();
                if same.value(row) || values.any(|value| value.text() == part.value) {
                    continue;
                }
                // Of a joint key another value of any part makes it another's.
                *owner = if said || *owner == Owner::Other { Owner::Other } else { Owner::Unsaid };
            }
        }
        owners
    }
}
