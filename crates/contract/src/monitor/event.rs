//! What a contract sees of a row.

use std::borrow::Cow;

use lacuna_signal::selector::{BatchIndex, FieldReader, FieldValue, Op};
use lacuna_signal::{TraceId, Value};

use super::amount::Amount;
use super::codec::{Code, Damaged, Get, code};
use super::key;
use super::rows::Rows;
use crate::spec::{Condition, Contract, Role, Side, Term};

/// One matching event.
#[derive(Debug, Clone)]
pub(super) struct Event {
    /// Nanoseconds since the epoch.
    pub(super) start: i64,
    pub(super) end: i64,
    /// What tells it from others: the same event delivered twice has the same. 56 bits.
    pub(super) id: u64,
    trace: Trace,
    /// What its contract reads of it beside.
    more: More,
}

code!(Event { start, end, id, trace, more });

/// What a contract reads of an event beside its key.
#[derive(Debug, Clone)]
enum More {
    /// Nothing; in a balance it counts one.
    Nothing,
    /// What it adds to its side of a balance.
    Amount(Amount),
    /// What the conditions read. Behind one pointer, because most events have nothing.
    Fields(Box<Fields>),
}

#[derive(Debug, Clone)]
struct Fields(Box<[Option<Held>]>);

impl Event {
    /// An event of which nothing but this is known, or matters.
    pub(super) fn plain(start: i64, end: i64, id: u64, trace: Trace) -> Self {
        Self { start, end, id, trace, more: More::Nothing }
    }

    pub(super) fn trace(&self) -> Option<TraceId> {
        self.trace.id()
    }

    pub(super) fn small_trace(&self) -> Trace {
        self.trace
    }

    /// What it adds to its side of a balance.
    pub(super) fn amount(&self) -> Amount {
        match self.more {
            More::Amount(amount) => amount,
            _ => Amount::Int(1),
        }
    }

    fn field(&self, index: usize) -> Option<&Held> {
        match &self.more {
            More::Fields(fields) => fields.0.get(index)?.as_ref(),
            _ => None,
        }
    }
}

/// One byte: 0 nothing, 1 and 2 an amount, whole or not, 3 fields; then the value.
impl Code for More {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Nothing => out.push(0),
            Self::Amount(Amount::Int(value)) => {
                out.push(1);
                value.put(out);
            }
            Self::Amount(Amount::Double(value)) => {
                out.push(2);
                value.put(out);
            }
            Self::Fields(fields) => {
                out.push(3);
                fields.0.put(out);
            }
        }
    }

    fn get(from: &mut Get<'_>) -> Result<Self, Damaged> {
        Ok(match from.take(1)? {
            [0] => Self::Nothing,
            [1] => Self::Amount(Amount::Int(Code::get(from)?)),
            [2] => Self::Amount(Amount::Double(Code::get(from)?)),
            [3] => Self::Fields(Box::new(Fields(Code::get(from)?))),
            _ => return Err(Damaged),
        })
    }
}

/// A trace's id, or zeros, which no trace has: a byte less than an option, and with it eight bytes
/// less an event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trace([u8; TraceId::LEN]);

impl From<Option<TraceId>> for Trace {
    fn from(trace: Option<TraceId>) -> Self {
        Self(trace.map_or([0; TraceId::LEN], |trace| trace.0))
    }
}

impl Trace {
    pub(super) fn id(self) -> Option<TraceId> {
        TraceId::from_bytes(&self.0)
    }
}

/// As an option.
impl Code for Trace {
    fn put(&self, out: &mut Vec<u8>) {
        self.id().put(out);
    }

    fn get(from: &mut Get<'_>) -> Result<Self, Damaged> {
        Ok(Option::<TraceId>::get(from)?.into())
    }
}

/// Kinds of values, in words: those of different kinds hold nothing together.
pub(crate) const TEXT: &str = "text";
pub(crate) const NUMBER: &str = "a number";
pub(crate) const TRUTH: &str = "a truth value";

/// What kind of value it is for a comparison.
pub(crate) fn kind_of(value: FieldValue<'_>) -> &'static str {
    Held::new(value).what()
}

/// A field's value, kept after its batch is gone.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Held {
    Text(Box<str>),
    Int(i64),
    Double(f64),
    Bool(bool),
}

impl Held {
    fn new(value: FieldValue<'_>) -> Self {
        match value {
            FieldValue::Value(Value::Int(value)) => Self::Int(value),
            FieldValue::Value(Value::Double(value)) => Self::Double(value),
            FieldValue::Value(Value::Bool(value)) => Self::Bool(value),
            other => Self::Text(other.text().into()),
        }
    }

    /// What kind of value it is, in words. Values of different kinds hold nothing together.
    fn what(&self) -> &'static str {
        match self {
            Self::Text(_) => TEXT,
            Self::Int(_) | Self::Double(_) => NUMBER,
            Self::Bool(_) => TRUTH,
        }
    }

    fn value(&self) -> FieldValue<'_> {
        FieldValue::Value(match self {
            Self::Text(text) => Value::Str(text),
            Self::Int(value) => Value::Int(*value),
            Self::Double(value) => Value::Double(*value),
            Self::Bool(value) => Value::Bool(*value),
        })
    }
}

/// One byte, 0 to 3, then the value.
impl Code for Held {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => {
                out.push(0);
                text.put(out);
            }
            Self::Int(number) => {
                out.push(1);
                number.put(out);
            }
            Self::Double(number) => {
                out.push(2);
                number.put(out);
            }
            Self::Bool(value) => {
                out.push(3);
                value.put(out);
            }
        }
    }

    fn get(from: &mut Get<'_>) -> Result<Self, Damaged> {
        Ok(match from.take(1)? {
            [0] => Self::Text(Code::get(from)?),
            [1] => Self::Int(Code::get(from)?),
            [2] => Self::Double(Code::get(from)?),
            [3] => Self::Bool(Code::get(from)?),
            _ => return Err(Damaged),
        })
    }
}

/// Whether `when` and `expect` make a pair. A field that one of them lacks makes none.
pub(super) fn pair(conditions: &[Condition], when: &Event, expect: &Event) -> bool {
    conditions.iter().all(|Condition { left, op, right }| {
        let op: Op = *op;
        match (term(left, when, expect), term(right, when, expect)) {
            (Some(left), Some(right)) => left.value().compare(op, &right.value()),
            _ => false,
        }
    })
}

fn term<'t>(term: &'t Term, when: &'t Event, expect: &'t Event) -> Option<Cow<'t, Held>> {
    Some(match term {
        Term::Field(Role::When, index) => Cow::Borrowed(when.field(*index)?),
        Term::Field(_, index) => Cow::Borrowed(expect.field(*index)?),
        Term::Text(text) => Cow::Owned(Held::Text(text.as_str().into())),
        Term::Int(number) => Cow::Owned(Held::Int(*number)),
        Term::Number(number) => Cow::Owned(Held::Double(*number)),
        Term::Bool(value) => Cow::Owned(Held::Bool(*value)),
    })
}

/// Why `when` and `expect` cannot be compared, in words, if both have what is to be compared and
/// cannot: their values are of different kinds.
pub(super) fn mismatch(contract: &Contract, when: &Event, expect: &Event) -> Option<String> {
    contract.conditions.iter().find_map(|Condition { left, right, .. }| {
        let (a, b) = (term(left, when, expect)?, term(right, when, expect)?);
        let (a, b) = (a.what(), b.what());
        let (left, right) = (contract.term_name(left), contract.term_name(right));
        (a != b).then(|| format!("`{left}` is {a}, `{right}` is {b}"))
    })
}

/// One side of a contract, bound to a batch.
pub(super) struct SideReader<'a> {
    key: Vec<FieldReader<'a>>,
    sum: Option<FieldReader<'a>>,
    fields: Vec<FieldReader<'a>>,
}

/// Why an event does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// A field of the key is missing or of a type that cannot be a key.
    Key,
    /// What is to be added up is missing or no number.
    Amount,
}

impl<'a> SideReader<'a> {
    pub(super) fn new(side: &Side, index: &BatchIndex<'a>) -> Self {
        Self {
            key: side.key.iter().map(|field| field.bind(index)).collect(),
            sum: side.sum.as_ref().map(|field| field.bind(index)),
            fields: side.fields.iter().map(|field| field.bind(index)).collect(),
        }
    }

    /// Reads the event in `row`, and its key into `key`.
    pub(super) fn read(
        &self,
        rows: &Rows<'_>,
        row: usize,
        key: &mut Vec<u8>,
    ) -> Result<Event, Flaw> {
        key.clear();
        for field in &self.key {
            let value = field.get(row).ok_or(Flaw::Key)?;
            if !key::push(value, key) {
                return Err(Flaw::Key);
            }
        }
        let more = match &self.sum {
            Some(field) => {
                let amount = field.get(row).and_then(Amount::new).ok_or(Flaw::Amount)?;
                More::Amount(amount)
            }
            None if self.fields.is_empty() => More::Nothing,
            None => {
                let fields = self.fields.iter().map(|field| field.get(row).map(Held::new));
                More::Fields(Box::new(Fields(fields.collect())))
            }
        };
        Ok(Event {
            start: rows.start(row),
            end: rows.end(row),
            id: rows.id(row),
            trace: rows.trace(row).into(),
            more,
        })
    }
}

impl Event {
    /// Whether it lacks a field that the conditions read.
    pub(super) fn lacks_field(&self) -> bool {
        matches!(&self.more, More::Fields(fields) if fields.0.iter().any(Option::is_none))
    }
}
