//! Proposing contracts from healthy traffic.
//!
//! One pass over batches notes, for every value of every attribute that could be a key, which
//! kinds of event (a service's span name or event name) carried it, and when. Afterwards every
//! pair of kinds that share keys is judged: does one follow the other, come before it, come exactly
//! once, come as often? A relation is proposed if the lower end of its support's confidence
//! interval (Wilson, 95 %) is high enough; pairs inside one synchronous call and pairs that a third
//! kind explains are dropped. What comes out is for a person to review.

mod judge;
mod propose;

use std::hash::BuildHasher;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use foldhash::quality::FixedState;
use hashbrown::HashMap;
use lacuna_signal::schema::{self, AttrType, parse_attribute_column};
use lacuna_signal::selector::BatchIndex;
use lacuna_signal::{Batch, SignalKind, TraceId};

use crate::monitor::Rows;

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

/// Kinds of event are told apart up to so many; what comes later is passed over.
const MAX_KINDS: usize = 2_048;
/// Attributes are considered up to so many.
const MAX_FIELDS: usize = 256;
/// Of each attribute, so many values are remembered.
const MAX_VALUES: usize = 4_000_000;
/// A key carries at most so many kinds of event; beyond it, it joins what does not belong
/// together, as a tenant or a region does.
const MAX_SHARED: usize = 64;
/// After so many values it is decided whether an attribute has enough different ones to be a key.
const TRIAL: u64 = 2_000;

/// A kind of event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    signal: SignalKind,
    service: String,
    name: String,
}

/// One kind of event under one key.
#[derive(Debug, Clone, Copy)]
struct Seen {
    kind: u16,
    count: u32,
    /// Start and end of the first, and of the last.
    first: (i64, i64),
    last: (i64, i64),
    trace: Option<TraceId>,
}

/// One attribute that may be a key.
#[derive(Debug)]
struct Field {
    name: String,
    values: u64,
    rejected: bool,
    keys: HashMap<Box<str>, Vec<Seen>, foldhash::fast::RandomState>,
}

/// Learns from batches, then proposes.
#[derive(Debug)]
pub struct Miner {
    options: MineOptions,
    kinds: HashMap<Kind, u16, foldhash::fast::RandomState>,
    fields: Vec<Field>,
    first: i64,
    last: i64,
}

impl Miner {
    /// One that has learnt nothing.
    pub fn new(options: MineOptions) -> Self {
        Self {
            options,
            kinds: HashMap::default(),
            fields: Vec::new(),
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
        let kinds = self.kinds_of(batch, &rows);
        for row in 0..rows.len() {
            self.first = self.first.min(rows.start(row));
            self.last = self.last.max(rows.end(row));
        }
        let schema = batch.record().schema();
        for (column, array) in schema.fields().iter().zip(batch.record().columns()) {
            let Some((scope, ty, key)) = parse_attribute_column(column.name()) else { continue };
            if scope != kind.own_scope() || !matches!(ty, AttrType::Str | AttrType::Int) {
                continue;
            }
            let Some(field) = self.field(key) else { continue };
            let field = &mut self.fields[field];
            for (row, kind) in kinds.iter().enumerate() {
                let Some(kind) = kind.filter(|_| array.is_valid(row)) else { continue };
                let number;
                let value = match ty {
                    AttrType::Int => {
                        number = array.as_primitive::<Int64Type>().value(row).to_string();
                        &number
                    }
                    _ => array.as_string_view().value(row),
                };
                if field.rejected {
                    break;
                }
                field.note(value, kind, (rows.start(row), rows.end(row)), rows.trace(row));
            }
        }
    }

    /// What the traffic that was seen suggests, by worth.
    pub fn propose(&self) -> Vec<Proposal> {
        propose::propose(self)
    }

    fn kinds_of(&mut self, batch: &Batch, rows: &Rows<'_>) -> Vec<Option<u16>> {
        let signal = batch.kind();
        let name = match signal {
            SignalKind::Spans => batch.text_column(schema::NAME),
            _ => batch.text_column(schema::EVENT_NAME),
        };
        // Rows of one kind share service and name, which are looked up once a batch.
        let mut known: HashMap<u64, Option<u16>> = HashMap::new();
        (0..rows.len())
            .map(|row| {
                let name = name.filter(|name| name.is_valid(row))?.value(row);
                let service = rows.service(row);
                let code = FixedState::default().hash_one((service, name));
                *known.entry(code).or_insert_with(|| {
                    let kind = Kind { signal, service: service.into(), name: name.into() };
                    let next = u16::try_from(self.kinds.len()).ok()?;
                    match self.kinds.get(&kind) {
                        Some(known) => Some(*known),
                        None if self.kinds.len() < MAX_KINDS && !name.is_empty() => {
                            Some(*self.kinds.entry(kind).or_insert(next))
                        }
                        None => None,
                    }
                })
            })
            .collect()
    }

    fn field(&mut self, name: &str) -> Option<usize> {
        if let Some(at) = self.fields.iter().position(|field| field.name == name) {
            return (!self.fields[at].rejected).then_some(at);
        }
        if self.fields.len() == MAX_FIELDS {
            return None;
        }
        let keys = HashMap::default();
        self.fields.push(Field { name: name.to_owned(), values: 0, rejected: false, keys });
        Some(self.fields.len() - 1)
    }
}

impl Field {
    fn note(&mut self, value: &str, kind: u16, time: (i64, i64), trace: Option<TraceId>) {
        self.values += 1;
        if value.is_empty() || value.len() > 256 {
            return;
        }
        // A method, a status or a host has few values; a key has many.
        if self.values == TRIAL && (self.keys.len() as u64) < TRIAL / 100 {
            self.rejected = true;
            self.keys = HashMap::default();
            return;
        }
        if !self.keys.contains_key(value) {
            if self.keys.len() >= MAX_VALUES {
                return;
            }
            self.keys.insert(value.into(), Vec::new());
        }
        let Some(seen) = self.keys.get_mut(value) else { return };
        if let Some(seen) = seen.iter_mut().find(|seen| seen.kind == kind) {
            seen.count += 1;
            if time < seen.first {
                (seen.first, seen.trace) = (time, trace);
            }
            seen.last = seen.last.max(time);
        } else if seen.len() <= MAX_SHARED {
            seen.push(Seen { kind, count: 1, first: time, last: time, trace });
        }
    }
}
