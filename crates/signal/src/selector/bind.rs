//! Running a program over a batch.
//!
//! Binding looks every column up once; what names an absent column folds to a constant there, so
//! that a batch in which a selector can match nothing costs no look at a row. A conjunction whose
//! first parts leave few rows asks the others row by row.

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, FixedSizeBinaryArray,
    Float64Array, Int64Array, StringViewArray, UInt8Array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{Float64Type, Int64Type, UInt8Type};

use super::ast::Op;
use super::attribute::AttributeColumns;
use super::compile::{Item, Node};

use super::index::BatchIndex;
use super::term::{Number, Test, TextTest, compare, pack, pack_rows, with_nulls};
use crate::rows::SpanRows;
use crate::schema as c;
use crate::value::{AttributeList, Value};

/// A program bound to the columns of one batch.
pub(super) enum Bound<'a> {
    Const(bool),
    And(Vec<Bound<'a>>),
    Or(Vec<Bound<'a>>),
    Not(Box<Bound<'a>>),
    Text(&'a StringViewArray, &'a TextTest),
    Codes(&'a UInt8Array, &'a [bool; 256]),
    Int(&'a Int64Array, Op, Number),
    Double(&'a Float64Array, Op, Number),
    Bool(&'a BooleanArray, bool),
    Valid(&'a NullBuffer),
    Id(&'a FixedSizeBinaryArray, &'a [u8]),
    Row(Box<dyn Fn(usize) -> bool + 'a>),
}

/// Binds `node` to the columns of `batch`.
pub(super) fn bind<'a>(node: &'a Node, batch: &BatchIndex<'a>) -> Bound<'a> {
    match node {
        Node::Const(value) => Bound::Const(*value),
        Node::And(parts) => all(parts.iter().map(|part| bind(part, batch)), true),
        Node::Or(parts) => all(parts.iter().map(|part| bind(part, batch)), false),
        Node::Not(inner) => match bind(inner, batch) {
            Bound::Const(value) => Bound::Const(!value),
            other => Bound::Not(Box::new(other)),
        },
        Node::Text(name, test) => {
            batch.column(name).map_or(Bound::Const(false), |column| typed(column, test))
        }
        Node::Codes(name, table) => {
            match batch.column(name).and_then(|column| column.as_primitive_opt::<UInt8Type>()) {
                Some(column) => Bound::Codes(column, table),
                None => Bound::Const(table[0]),
            }
        }
        Node::Duration(op, number) => {
            match batch.column(c::DURATION).and_then(|column| column.as_primitive_opt()) {
                Some(column) => Bound::Int(column, *op, *number),
                None => Bound::Const(number.int(*op, 0)),
            }
        }
        Node::Int(name, op, number) => {
            let column = batch.column(name).and_then(|column| column.as_primitive_opt());
            column.map_or(Bound::Const(false), |column| Bound::Int(column, *op, *number))
        }
        Node::Id(name, wanted) => {
            let Some(column) = batch.column(name) else { return Bound::Const(false) };
            match wanted {
                None => valid(column),
                Some(id) => column
                    .as_fixed_size_binary_opt()
                    .map_or(Bound::Const(false), |column| Bound::Id(column, id)),
            }
        }
        Node::Attribute(columns, test) => attribute(columns, test, batch),
        Node::AttributeText(columns, test) => attribute_text(columns, test, batch),
        Node::Item(item, test) => items(item, test, batch),
        Node::EventText(key, test) => {
            if batch.column(c::EVENTS).is_none() {
                return Bound::Const(false);
            }
            let rows = SpanRows::new(batch.batch());
            Bound::Row(Box::new(move |row| {
                rows.events(row)
                    .any(|event| has(event.attributes, key, |value| test.text(&value.shown())))
            }))
        }
        Node::Fields(left, op, right) => {
            let (left, right) = (left.bind(batch), right.bind(batch));
            if left.is_absent() || right.is_absent() {
                return Bound::Const(false);
            }
            Bound::Row(Box::new(move |row| match (left.get(row), right.get(row)) {
                (Some(left), Some(right)) => left.holds(*op, &right, compare),
                _ => false,
            }))
        }
    }
}

/// Joins parts by `&&` (`conjunction`) or `||`, folding constants.
fn all<'a>(parts: impl Iterator<Item = Bound<'a>>, conjunction: bool) -> Bound<'a> {
    let mut kept = Vec::new();
    for part in parts {
        match part {
            Bound::Const(value) if value == conjunction => {}
            Bound::Const(value) => return Bound::Const(value),
            other => kept.push(other),
        }
    }
    match (kept.len(), conjunction) {
        (0, _) => Bound::Const(conjunction),
        (1, _) => kept.remove(0),
        (_, true) => Bound::And(kept),
        (_, false) => Bound::Or(kept),
    }
}

fn valid(column: &ArrayRef) -> Bound<'_> {
    column.nulls().map_or(Bound::Const(true), Bound::Valid)
}

/// A question to a column whose type says whether it can be answered.
fn typed<'a>(column: &'a ArrayRef, test: &'a Test) -> Bound<'a> {
    let no = Bound::Const(false);
    match test {
        Test::Exists => valid(column),
        Test::Text(test) => column.as_string_view_opt().map_or(no, |c| Bound::Text(c, test)),
        Test::Bool(wanted) => column.as_boolean_opt().map_or(no, |c| Bound::Bool(c, *wanted)),
        Test::Number(op, number) => {
            if let Some(column) = column.as_primitive_opt::<Int64Type>() {
                Bound::Int(column, *op, *number)
            } else if let Some(column) = column.as_primitive_opt::<Float64Type>() {
                Bound::Double(column, *op, *number)
            } else {
                no
            }
        }
    }
}

fn attribute<'a>(
    columns: &'a AttributeColumns,
    test: &'a Test,
    batch: &BatchIndex<'a>,
) -> Bound<'a> {
    let found = columns.find(batch);
    let asked = found.into_iter().filter_map(|(ty, column)| {
        // Arrays and byte strings are kept as text too, but are not text to a selector.
        let text = ty == c::AttrType::Str;
        match (ty, column.as_string_view_opt()) {
            (c::AttrType::Any, Some(texts)) if !matches!(test, Test::Exists) => {
                Some(Bound::Row(Box::new(move |row| {
                    texts.is_valid(row) && test.of(&Value::Any(texts.value(row)))
                })))
            }
            _ => (text || !matches!(test, Test::Text(_))).then(|| typed(column, test)),
        }
    });
    let mut parts: Vec<Bound<'a>> = asked.collect();
    if let Some(list) = columns.overflow(batch) {
        // Of a repeated key every value counts, wherever it lies.
        parts.push(Bound::Row(Box::new(move |row| {
            has(AttributeList::in_row(list, row), columns.overflow_key(), |value| test.of(value))
        })));
    }
    all(parts.into_iter(), false)
}

fn attribute_text<'a>(
    columns: &'a AttributeColumns,
    test: &'a TextTest,
    batch: &BatchIndex<'a>,
) -> Bound<'a> {
    let found = columns.find(batch);
    let mut parts = Vec::new();
    for (ty, column) in found {
        match (ty, column.as_string_view_opt()) {
            (c::AttrType::Str, Some(text)) => parts.push(Bound::Text(text, test)),
            _ => {
                let column = crate::value::Typed::of(column.as_ref(), ty);
                parts.push(Bound::Row(Box::new(move |row| {
                    column.get(row).is_some_and(|value| test.text(&value.shown()))
                })));
            }
        }
    }
    if let Some(list) = columns.overflow(batch) {
        parts.push(Bound::Row(Box::new(move |row| {
            has(AttributeList::in_row(list, row), columns.overflow_key(), |value| {
                test.text(&value.shown())
            })
        })));
    }
    all(parts.into_iter(), false)
}

fn has(list: Option<AttributeList<'_>>, key: &str, test: impl Fn(&Value<'_>) -> bool) -> bool {
    list.is_some_and(|list| list.iter().any(|(k, value)| k == key && test(&value)))
}

/// "At least one event (or link) …".
fn items<'a>(item: &'a Item, test: &'a Test, batch: &BatchIndex<'a>) -> Bound<'a> {
    let column = match item {
        Item::EventAttribute(_) | Item::EventName | Item::EventTime => c::EVENTS,
        Item::LinkAttribute(_) | Item::LinkTraceId(_) | Item::LinkSpanId(_) => c::LINKS,
    };
    if batch.column(column).is_none() {
        return Bound::Const(false);
    }
    let rows = SpanRows::new(batch.batch());
    let same = |same: bool| match test {
        Test::Bool(wanted) => same == *wanted,
        _ => true,
    };
    Bound::Row(match item {
        Item::EventAttribute(key) => Box::new(move |row| {
            rows.events(row).any(|event| has(event.attributes, key, |value| test.of(value)))
        }),
        Item::EventName => {
            Box::new(move |row| rows.events(row).any(|event| test.value(&Value::Str(event.name))))
        }
        Item::EventTime => Box::new(move |row| {
            let start = rows.start(row);
            rows.events(row).any(|event| test.value(&Value::Int(event.time.saturating_sub(start))))
        }),
        Item::LinkAttribute(key) => Box::new(move |row| {
            rows.links(row).any(|link| has(link.attributes, key, |value| test.of(value)))
        }),
        Item::LinkTraceId(id) => {
            Box::new(move |row| rows.links(row).any(|link| same(Some(link.trace_id) == *id)))
        }
        Item::LinkSpanId(id) => {
            Box::new(move |row| rows.links(row).any(|link| same(Some(link.span_id) == *id)))
        }
    })
}

impl Bound<'_> {
    /// One bit a row.
    pub(super) fn mask(&self, rows: usize) -> BooleanBuffer {
        match self {
            Self::Const(true) => BooleanBuffer::new_set(rows),
            Self::Const(false) => BooleanBuffer::new_unset(rows),
            Self::And(parts) => conjunction(parts, rows),
            Self::Or(parts) => parts
                .iter()
                .map(|part| part.mask(rows))
                .reduce(|a, b| &a | &b)
                .unwrap_or_else(|| BooleanBuffer::new_unset(rows)),
            Self::Not(inner) => !&inner.mask(rows),
            Self::Text(column, test) => test.column(column),
            Self::Codes(column, table) => {
                let mask = pack(column.values(), |code| table[usize::from(*code)]);
                match column.nulls() {
                    Some(nulls) if table[0] => &mask | &!nulls.inner(),
                    nulls => with_nulls(mask, nulls),
                }
            }
            Self::Int(column, op, number) => {
                let mask = pack(column.values(), |value| number.int(*op, *value));
                with_nulls(mask, column.nulls())
            }
            Self::Double(column, op, number) => {
                let mask = pack(column.values(), |value| number.double(*op, *value));
                with_nulls(mask, column.nulls())
            }
            Self::Bool(column, wanted) => {
                let mask = if *wanted { column.values().clone() } else { !column.values() };
                with_nulls(mask, column.nulls())
            }
            Self::Valid(nulls) => nulls.inner().clone(),
            Self::Id(..) | Self::Row(_) => pack_rows(rows, |row| self.row(row)),
        }
    }

    /// Whether one row passes.
    fn row(&self, row: usize) -> bool {
        match self {
            Self::Const(value) => *value,
            Self::And(parts) => parts.iter().all(|part| part.row(row)),
            Self::Or(parts) => parts.iter().any(|part| part.row(row)),
            Self::Not(inner) => !inner.row(row),
            Self::Text(column, test) => column.is_valid(row) && test.text(column.value(row)),
            Self::Codes(column, table) => {
                let code = if column.is_valid(row) { column.value(row) } else { 0 };
                table[usize::from(code)]
            }
            Self::Int(column, op, number) => {
                column.is_valid(row) && number.int(*op, column.value(row))
            }
            Self::Double(column, op, number) => {
                column.is_valid(row) && number.double(*op, column.value(row))
            }
            Self::Bool(column, wanted) => column.is_valid(row) && column.value(row) == *wanted,
            Self::Valid(nulls) => nulls.is_valid(row),
            Self::Id(column, id) => column.is_valid(row) && column.value(row) == *id,
            Self::Row(test) => test(row),
        }
    }
}

/// A conjunction's parts one after the other, row by row once few rows are left.
fn conjunction(parts: &[Bound<'_>], rows: usize) -> BooleanBuffer {
    let Some((head, rest)) = parts.split_first() else { return BooleanBuffer::new_set(rows) };
    let mut mask = head.mask(rows);
    for (i, part) in rest.iter().enumerate() {
        let left = mask.count_set_bits();
        if left == 0 {
            return mask;
        }
        if left * 8 < rows || rows < 64 {
            let rest = &rest[i..];
            let mut kept = BooleanBufferBuilder::new(rows);
            kept.append_n(rows, false);
            for row in mask.set_indices() {
                if rest.iter().all(|part| part.row(row)) {
                    kept.set_bit(row, true);
                }
            }
            return kept.finish();
        }
        mask = &mask & &part.mask(rows);
    }
    mask
}
