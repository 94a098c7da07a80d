//! The story of one key: every span, log record and verdict of it, in order, across traces.
//!
//! A key is the values of one or more attributes, whatever their scope and type, or of the parts of
//! texts that contracts join them with. What carries it is found first; then the traces of what was found are read whole, so that the steps are there too
//! that forgot to carry the key. An event that belongs to another instance (another value under the
//! same name, on itself or on the nearest span above it) is left out and counted.
//!
//! The same code tells it from a store and from files: a [`Search`] is shown batches twice.

mod rows;
mod search;
mod verdicts;

use std::collections::BTreeMap;

use jiff::Timestamp;
use lacuna_contract::ContractSet;
use lacuna_signal::finding::{Severity, Verdict};
use lacuna_signal::{SignalKind, SpanId, TraceId};
use lacuna_store::{Store, StoreError, TimeRange};
use serde::{Deserialize, Serialize};

pub use search::Search;
pub use verdicts::verdicts;

/// Events that a story tells at most.
pub const MAX_EVENTS: usize = 10_000;
/// Traces that it follows at most.
pub const MAX_TRACES: usize = 200;

/// One attribute of the key: its name, other names that contracts give it, and its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPart {
    /// The attribute's key, without scope.
    pub name: String,
    /// Its value, as text.
    pub value: String,
    /// Attributes that a contract joins with it under another name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// Parts of texts that a contract joins with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub texts: Vec<TextPart>,
}

/// A part of a text that holds a key's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextPart {
    /// `spans` or `logs`.
    pub signal: String,
    /// The field and the expression, as the contract has it: `body =~ "order_id=(\\S+)"`.
    pub field: String,
}

impl KeyPart {
    /// Reads `correlation_id=abc`; a scope before the name (`span.`) is accepted and not heeded.
    ///
    /// # Errors
    /// What would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not a key: write an attribute and its value, such as correlation_id=4f2c"
            )
        };
        let (name, value) = text.split_once('=').ok_or_else(wrong)?;
        let name = name.trim();
        let bare = ["span.", "log.", "resource.", "instrumentation.", "event.", "any.", "."]
            .into_iter()
            .find_map(|scope| name.strip_prefix(scope))
            .unwrap_or(name);
        let value = value.trim().trim_matches('"');
        if bare.is_empty() || value.is_empty() {
            return Err(wrong());
        }
        Ok(Self {
            name: bare.to_owned(),
            value: value.to_owned(),
            also: Vec::new(),
            texts: Vec::new(),
        })
    }

    /// Learns the names under which contracts join this attribute with others.
    pub fn learn(&mut self, contracts: &ContractSet) {
        for contract in contracts.contracts() {
            let sides: Vec<(SignalKind, Vec<String>)> = contract
                .sides()
                .map(|(_, side)| (side.selector.kind(), verdicts::names(&side.key)))
                .collect();
            for at in 0..sides.first().map_or(0, |(_, names)| names.len()) {
                let names =
                    || sides.iter().filter_map(|(kind, names)| Some((kind, names.get(at)?)));
                if !names().any(|(_, name)| *name == self.name) {
                    continue;
                }
                for (kind, name) in names() {
                    if name.contains("=~") {
                        let signal = kind.name().to_owned();
                        let text = TextPart { signal, field: name.clone() };
                        if !self.texts.contains(&text) {
                            self.texts.push(text);
                        }
                    } else if *name != self.name && !self.also.contains(name) {
                        self.also.push(name.clone());
                    }
                }
            }
        }
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.name.as_str()).chain(self.also.iter().map(String::as_str))
    }
}

/// What happened to one key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Story {
    /// The key.
    pub key: Vec<KeyPart>,
    /// What happened, oldest first.
    pub events: Vec<Event>,
    /// Contracts that are kept by this key, those without an instance of it too.
    pub contracts: usize,
    /// Events of the same traces that belong to other instances and are left out.
    pub others: u64,
    /// Whether there is more than is told.
    pub cut: bool,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When: a span's start, a record's time, the time at which a verdict was settled (of a missed
    /// outcome, its deadline).
    pub at: Timestamp,
    /// Nanoseconds since the story's first event.
    pub after: i64,
    /// Whether it carries the key itself, or only shares a trace with what does.
    pub carries_key: bool,
    /// Its trace.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trace_id: Option<TraceId>,
    /// The span, or the span that the record belongs to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub span_id: Option<SpanId>,
    /// The service that said so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub service: Option<String>,
    /// What it is.
    #[serde(flatten)]
    pub what: What,
    /// Attributes of the span or record, as text.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub attributes: BTreeMap<String, String>,
}

/// What an event is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum What {
    /// A span.
    Span {
        /// Its name.
        name: String,
        /// `unspecified`, `internal`, `server`, `client`, `producer` or `consumer`.
        kind: String,
        /// `unset`, `ok` or `error`.
        status: String,
        /// Its status description.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        message: Option<String>,
        /// Nanoseconds.
        duration: i64,
        /// The span above it.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        parent_span_id: Option<SpanId>,
        /// Traces that it links to.
        #[serde(skip_serializing_if = "Vec::is_empty", default)]
        links: Vec<TraceId>,
    },
    /// A log record.
    Log {
        /// Its level's name, or its number where it has none.
        level: String,
        /// Its text.
        body: String,
        /// Its event's name.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        event: Option<String>,
    },
    /// What became of an obligation.
    Verdict {
        /// The contract.
        contract: String,
        /// Its kind.
        kind: String,
        /// What became of it.
        verdict: Verdict,
        /// How much it matters.
        severity: Severity,
        /// What was promised, in words.
        promise: String,
        /// When the obligation began.
        activated_at: Timestamp,
        /// When the outcome was due.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        deadline: Option<Timestamp>,
        /// Traces to open.
        trace_ids: Vec<TraceId>,
        /// Counts and sums that it rests on.
        #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
        figures: BTreeMap<String, f64>,
        /// Where to read what to do.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        runbook_url: Option<String>,
    },
}

impl Event {
    /// Whether it is what became of an obligation.
    pub fn is_verdict(&self) -> bool {
        matches!(self.what, What::Verdict { .. })
    }

    /// Whether it speaks against the system as a contract's verdict.
    pub fn is_violation(&self) -> bool {
        matches!(&self.what, What::Verdict { verdict, .. } if verdict.is_violation())
    }
}

impl Story {
    /// Everything in order. Of events at one time, spans come before what was said inside them, and
    /// verdicts last.
    pub(crate) fn new(key: Vec<KeyPart>, mut events: Vec<Event>) -> Self {
        let rank = |event: &Event| match &event.what {
            // Of spans that begin together, the longer one is the one around the other.
            What::Span { duration, .. } => (0, -duration),
            What::Log { .. } => (1, 0),
            What::Verdict { .. } => (2, 0),
        };
        events.sort_by_key(|event| (event.at, rank(event)));
        let first = events.first().map(|event| event.at);
        for event in &mut events {
            let since = first.map(|first| event.at.duration_since(first).as_nanos());
            event.after = since.and_then(|nanos| i64::try_from(nanos).ok()).unwrap_or(0);
        }
        Self { key, events, contracts: 0, others: 0, cut: false }
    }

    /// Whether any contract's promise to this key was broken.
    pub fn has_violations(&self) -> bool {
        self.events.iter().any(Event::is_violation)
    }
}

/// The story as a store has it, without verdicts.
///
/// # Errors
/// Those of the store.
pub fn of_store(store: &Store, search: Search, range: TimeRange) -> Result<Search, StoreError> {
    let mut search = search;
    for kind in [SignalKind::Spans, SignalKind::Logs] {
        let Some(selector) = search.selector(kind).cloned() else { continue };
        let mut scan = store.scan(kind, Some(&selector), range, None, MAX_EVENTS)?;
        for batch in scan.by_ref() {
            search.match_batch(&batch?);
        }
        search.cut |= scan.cut();
    }
    for id in search.traces() {
        let spans = store.trace(id, None)?;
        let logs = store.logs_of_trace(id, None, MAX_EVENTS)?;
        search.cut |= spans.cut || logs.cut;
        search.trace_batch(&spans.items);
        search.trace_batch(&logs.items);
    }
    Ok(search)
}
