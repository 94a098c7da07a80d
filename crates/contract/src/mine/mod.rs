//! Proposing contracts from healthy traffic.
//!
//! One pass over batches notes, for every value of every attribute that could be a key and of every
//! variable word of a log text, which kinds of event ([`kinds`]) carried it, and when. Fields whose
//! values are the same under different names are joined by their values ([`fields`]). Afterwards
//! every pair of kinds that share keys is judged ([`judge`]): does one follow the other, come before
//! it, come exactly once, come as often? A relation is proposed if the lower end of its support's
//! confidence interval (Wilson, 95 %) is high enough; pairs inside one synchronous call and pairs
//! that a third kind explains are dropped ([`prune`]). What comes out is for a person to review.

mod fields;
mod judge;
mod kinds;
mod proof;
mod propose;
mod prune;
mod text;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::hash::BuildHasher;

use arrow::array::{Array, AsArray, ListArray, StringViewArray};
use arrow::datatypes::{Int64Type, UInt8Type};
use foldhash::quality::FixedState;
use hashbrown::HashMap;
use lacuna_signal::schema::{self, AttrType, Scope, parse_attribute_column};
use lacuna_signal::selector::BatchIndex;
use lacuna_signal::semconv::is_event_name;
use lacuna_signal::value::{Attribute, AttributeList};
use lacuna_signal::{Batch, SignalKind, Value};

use crate::monitor::Rows;
use fields::{At, Field};
use kinds::{Kind, Kinds, Said, What};
use text::Templates;

pub use proof::Proof;
pub use propose::{Proposal, to_yaml};

/// What to propose.
#[derive(Debug, Clone)]
pub struct MineOptions {
    /// Least support, as the lower end of its confidence interval, 0 to 1. Without a single
    /// exception, 0.995 takes 765 keys and 0.95 takes 73.
    pub min_support: f64,
    /// Least number of keys that a relation must have been seen with.
    pub min_keys: u64,
    /// Proposals at most.
    pub max_proposals: usize,
}

impl Default for MineOptions {
    fn default() -> Self {
        Self { min_support: 0.995, min_keys: 30, max_proposals: 100 }
    }
}

/// Fields are considered up to so many: attributes, and places in log texts.
const MAX_FIELDS: usize = 1_024;

/// Fields that are no keys are named up to so many.
const MAX_NAMED: usize = 10;

/// Learns from batches, then proposes.
#[derive(Debug)]
pub struct Miner {
    options: MineOptions,
    kinds: Kinds,
    fields: Vec<Field>,
    by_name: HashMap<String, usize, foldhash::fast::RandomState>,
    templates: Templates,
    /// What a template's log records are, by service and template.
    texts: HashMap<(u64, usize), Option<TextKind>, foldhash::fast::RandomState>,
    /// Fields beyond the bound.
    fields_passed_over: u64,
    /// Log records whose body is no text, which selectors and keys cannot read.
    structured: u64,
    first: i64,
    last: i64,
}

/// Log records of one service and template.
#[derive(Debug, Clone)]
struct TextKind {
    kind: u16,
    /// The field of each of the template's places, if it is one; and its name where it has one.
    places: Vec<(Option<usize>, Option<String>)>,
}

impl Miner {
    /// One that has learnt nothing.
    pub fn new(options: MineOptions) -> Self {
        Self {
            options,
            kinds: Kinds::default(),
            fields: Vec::new(),
            by_name: HashMap::default(),
            templates: Templates::default(),
            texts: HashMap::default(),
            fields_passed_over: 0,
            structured: 0,
            first: i64::MAX,
            last: i64::MIN,
        }
    }

    /// Takes a batch of spans or logs, in any order; metric points are passed over.
    pub fn observe(&mut self, batch: &Batch) {
        let kind = batch.kind();
        if kind == SignalKind::Points || batch.num_rows() == 0 {
            return;
        }
        let index = BatchIndex::new(batch);
        let Some(rows) = Rows::new(&index) else { return };
        for row in 0..rows.len() {
            self.first = self.first.min(rows.start(row));
            self.last = self.last.max(rows.end(row));
        }
        let kinds = match kind {
            SignalKind::Spans => self.kinds_of_spans(batch, &rows),
            _ => self.kinds_of_logs(batch, &rows),
        };
        let at = |row: usize| At { time: (rows.start(row), rows.end(row)), trace: rows.trace(row) };
        let mut number = String::new();
        let schema = batch.record().schema();
        for (column, array) in schema.fields().iter().zip(batch.record().columns()) {
            let Some((scope, ty, key)) = parse_attribute_column(column.name()) else { continue };
            if scope != kind.own_scope() || !matches!(ty, AttrType::Str | AttrType::Int) {
                continue;
            }
            let Some(field) = self.field(key) else { continue };
            let field = &mut self.fields[field];
            let text = array.as_string_view_opt();
            let ints = array.as_primitive_opt::<Int64Type>();
            for (row, kind) in kinds.iter().enumerate() {
                let Some(kind) = kind.filter(|_| array.is_valid(row)) else { continue };
                match (text, ints) {
                    (Some(text), _) => field.note(text.value(row), kind, at(row)),
                    (_, Some(ints)) => {
                        number.clear();
                        // Writing to a string cannot fail.
                        let _ = write!(number, "{}", ints.value(row));
                        field.note(&number, kind, at(row));
                    }
                    _ => break,
                }
            }
        }
        self.observe_overflow(batch, &kinds, &rows);
    }

    /// Attributes for which a batch has no column of their own.
    fn observe_overflow(&mut self, batch: &Batch, kinds: &[Option<u16>], rows: &Rows<'_>) {
        let Some(lists) = overflow(batch) else { return };
        for (row, kind) in kinds.iter().enumerate() {
            let Some(kind) = *kind else { continue };
            let at = At { time: (rows.start(row), rows.end(row)), trace: rows.trace(row) };
            for (key, value) in attributes_in(lists, row, batch.kind().own_scope()) {
                if !matches!(value, Value::Str(_) | Value::Int(_)) {
                    continue;
                }
                if let Some(field) = self.field(key) {
                    self.fields[field].note(&value.to_text(), kind, at);
                }
            }
        }
    }

    /// What the traffic that was seen suggests, by worth.
    pub fn propose(self) -> Vec<Proposal> {
        propose::propose(self)
    }

    /// What was passed over, and why, in words; empty if nothing was.
    pub fn passed_over(&self) -> Vec<String> {
        let values: u64 = self.fields.iter().map(|field| field.passed_over).sum();
        let crowded: u64 = self.fields.iter().map(Field::crowded).sum();
        let mut notes: Vec<String> = [
            (self.kinds.passed_over, "events of kinds beyond those that can be told apart"),
            (self.fields_passed_over, "values of attributes beyond those that can be considered"),
            (values, "values beyond those that can be remembered"),
            (crowded, "values that are shared by more than 64 kinds of event"),
            (
                self.structured,
                "log records whose body is a map or a list, which no selector reads,",
            ),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what} were passed over"))
        .collect();
        let few = |field: &&Field| field.has_few(self.options.min_keys);
        // Words of texts without a name have nothing that a person would know them by.
        let mut names: Vec<&str> = self
            .fields
            .iter()
            .filter(few)
            .map(|field| field.name.as_str())
            .filter(|name| !name.contains(' '))
            .collect();
        if !names.is_empty() {
            names.sort_unstable();
            let more = names.len().saturating_sub(MAX_NAMED);
            names.truncate(MAX_NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            notes.push(format!(
                "no keys, since they have fewer than {} different values: {}{more}",
                self.options.min_keys,
                names.join(", ")
            ));
        }
        notes
    }

    fn kinds_of_spans(&mut self, batch: &Batch, rows: &Rows<'_>) -> Vec<Option<u16>> {
        let Some(names) = batch.text_column(schema::NAME) else { return vec![None; rows.len()] };
        let byte = |name| batch.number_column::<UInt8Type>(name);
        let (kinds, statuses) = (byte(schema::KIND), byte(schema::STATUS_CODE));
        let mut wanted: BTreeSet<&str> = BTreeSet::new();
        for field in batch.schema().fields() {
            if let Some((schema::Scope::Span, AttrType::Str | AttrType::Bool, key)) =
                parse_attribute_column(field.name())
            {
                wanted.insert(key);
            }
        }
        if let Some(lists) = overflow(batch) {
            let keys = (0..rows.len()).flat_map(|row| attributes_in(lists, row, Scope::Span));
            wanted.extend(keys.map(|(key, _)| key));
        }
        // By name: of several that a span has, the first tells its kind.
        let outcomes: Vec<(&str, Attribute<'_>)> = wanted
            .into_iter()
            .filter(|key| self.kinds.says_outcome(key))
            .map(|key| (key, batch.attribute(Scope::Span, key)))
            .collect();
        // Rows of one kind share all that makes it, which is looked up once a batch.
        let mut known: HashMap<u64, Option<u16>, foldhash::fast::RandomState> = HashMap::default();
        let state = FixedState::default();
        (0..rows.len())
            .map(|row| {
                if names.is_null(row) || names.value(row).is_empty() {
                    return None;
                }
                let (name, service) = (names.value(row), rows.service(row));
                let kind = kinds.filter(|column| column.is_valid(row)).map_or(0, |c| c.value(row));
                let failed = statuses.is_some_and(|c| c.is_valid(row) && c.value(row) == 2);
                let outcome = outcomes.iter().find_map(|(key, column)| {
                    let said = match column.get(row)? {
                        Value::Bool(flag) => Said::Flag(flag),
                        Value::Str(text) if self.kinds.is_outcome(key, text) => {
                            Said::Text(text.to_owned())
                        }
                        _ => return None,
                    };
                    Some((*key, said))
                });
                let code = state.hash_one((service, name, kind, failed, &outcome));
                *known.entry(code).or_insert_with(|| {
                    self.kinds.number(Kind {
                        service: service.to_owned(),
                        what: What::Span {
                            name: name.to_owned(),
                            kind,
                            failed,
                            outcome: outcome.map(|(key, said)| (key.to_owned(), said)),
                        },
                    })
                })
            })
            .collect()
    }

    /// Also notes the words of texts that may be keys.
    fn kinds_of_logs(&mut self, batch: &Batch, rows: &Rows<'_>) -> Vec<Option<u16>> {
        let events = batch.text_column(schema::EVENT_NAME);
        let bodies = batch.text_column(schema::BODY);
        let value = |column: Option<&StringViewArray>, row: usize| {
            column.filter(|column| column.is_valid(row)).map(|column| column.value(row).to_owned())
        };
        let about = batch.attribute(Scope::Log, kinds::ABOUT);
        let others = batch.text_column(schema::BODY_ANY);
        let state = FixedState::default();
        (0..rows.len())
            .map(|row| {
                let service = rows.service(row);
                let event = value(events, row).filter(|name| is_event_name(name));
                if let Some(name) = event {
                    let about = about.get(row).map(|value| value.to_text());
                    let what = What::Event { name, about };
                    return self.kinds.number(Kind { service: service.to_owned(), what });
                }
                self.structured += u64::from(others.is_some_and(|column| column.is_valid(row)));
                let bodies = bodies.filter(|column| column.is_valid(row))?;
                let body = bodies.value(row);
                let scope = state.hash_one(service);
                let fit = self.templates.fit(scope, body)?;
                if !self.texts.contains_key(&(scope, fit.template)) {
                    let text = self.text_kind(service, fit.template);
                    self.texts.insert((scope, fit.template), text);
                }
                let text = self.texts.get(&(scope, fit.template))?.as_ref()?;
                let at = At { time: (rows.start(row), rows.end(row)), trace: rows.trace(row) };
                for (word, (field, name)) in fit.words.iter().zip(&text.places) {
                    let Some(field) = field else { continue };
                    // What the record says as an attribute too is taken from there.
                    let said = name
                        .as_ref()
                        .is_some_and(|name| batch.attribute(Scope::Log, name).get(row).is_some());
                    if !said {
                        self.fields[*field].note(&body[word.clone()], text.kind, at);
                    }
                }
                Some(text.kind)
            })
            .collect()
    }

    /// A new kind of log record, and fields for the places of its texts.
    fn text_kind(&mut self, service: &str, template: usize) -> Option<TextKind> {
        let template = self.templates.get(template).clone();
        let what = What::Text { words: template.words, pattern: template.pattern };
        let kind = self.kinds.number(Kind { service: service.to_owned(), what })?;
        let mut places = Vec::new();
        for (i, place) in template.places.into_iter().enumerate() {
            // A word without a name of its own is a field of this kind alone, until its values
            // turn out to be another's.
            let name = place.name.clone().unwrap_or_else(|| format!("{kind} word {i}"));
            let field = self.field(&name);
            if let Some(field) = field {
                let spelt = format!("body =~ {}", quoted(&place.pattern));
                self.fields[field].spelt.entry(kind).or_insert(spelt);
            }
            places.push((field, place.name));
        }
        Some(TextKind { kind, places })
    }

    fn field(&mut self, name: &str) -> Option<usize> {
        if let Some(at) = self.by_name.get(name) {
            return Some(*at);
        }
        if self.fields.len() == MAX_FIELDS {
            self.fields_passed_over += 1;
            return None;
        }
        self.fields.push(Field::new(name.to_owned()));
        self.by_name.insert(name.to_owned(), self.fields.len() - 1);
        Some(self.fields.len() - 1)
    }
}

/// The attributes of a batch for which it has no columns.
fn overflow(batch: &Batch) -> Option<&ListArray> {
    batch.column(schema::OVERFLOW)?.as_list_opt()
}

/// Those of a row that are of `scope`, by the keys that they have there.
fn attributes_in(
    lists: &ListArray,
    row: usize,
    scope: Scope,
) -> impl Iterator<Item = (&str, Value<'_>)> {
    let list = AttributeList::in_row(lists, row);
    list.into_iter().flat_map(|list| list.iter()).filter_map(move |(key, value)| {
        Some((key.strip_prefix(scope.name())?.strip_prefix('.')?, value))
    })
}

/// A text as selectors write it.
fn quoted(text: &str) -> String {
    lacuna_signal::selector::Literal::Str(text.to_owned()).to_string()
}
