//! Attribute columns of a batch that is being decoded.

use std::sync::Arc;

use arrow::buffer::Buffer;
use arrow::datatypes::{Field, Float64Type, Int64Type};
use hashbrown::HashTable;

use crate::coded::Column as Stored;
use crate::column::{
    AttributeListColumn, BoolColumn, Buffers, CodedNumbers, Text, TextColumn, ViewColumn, same,
};
use crate::schema::{AttrType, OVERFLOW, Scope, attribute_column, attribute_list_type};

use super::any::{AnyValue, KeyValue};
use super::overflow::Overflow;
use super::{BuildError, Limits};

/// A key of up to so many bytes is kept, however short values have to be.
const LEAST_KEY: usize = 256;

impl Limits {
    /// Whether an attribute's key is kept.
    #[inline]
    pub(super) fn key_fits(&self, key: &[u8]) -> bool {
        key.len() <= self.attribute_length.max(LEAST_KEY)
    }

    /// `text` as far as it is kept.
    #[inline]
    pub(super) fn cut<'t>(&self, text: &'t [u8]) -> &'t [u8] {
        let most = self.attribute_length;
        if text.len() <= most {
            return text;
        }
        // Not inside a character: UTF-8's continuation bytes are 10xxxxxx.
        let end = (0..=most).rev().find(|at| text[*at] & 0xc0 != 0x80).unwrap_or(0);
        &text[..end]
    }

    /// Cuts a value to what is kept of it, and says whether it did; `None` if it cannot be cut.
    #[inline]
    pub(super) fn fit(&self, value: &mut AnyValue<'_>) -> Option<bool> {
        let most = self.attribute_length;
        match value {
            AnyValue::Str(text) if text.len() > most => *text = self.cut(text),
            AnyValue::Bytes(bytes) if bytes.len() > most => *bytes = &bytes[..most],
            AnyValue::Any(Text::Written(start, end)) if *end - *start > most => return None,
            _ => return Some(false),
        }
        Some(true)
    }
}

#[derive(Debug)]
enum Values {
    Str(TextColumn),
    Int(CodedNumbers<Int64Type>),
    Double(CodedNumbers<Float64Type>),
    Bool(BoolColumn),
    Bytes(ViewColumn),
    Any(TextColumn),
}

impl Values {
    fn new(ty: AttrType) -> Self {
        match ty {
            AttrType::Str => Self::Str(TextColumn::default()),
            AttrType::Int => Self::Int(CodedNumbers::default()),
            AttrType::Double => Self::Double(CodedNumbers::default()),
            AttrType::Bool => Self::Bool(BoolColumn::default()),
            AttrType::Bytes => Self::Bytes(ViewColumn::default()),
            AttrType::Any => Self::Any(TextColumn::default()),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Str(column) | Self::Any(column) => column.len(),
            Self::Bytes(column) => column.len(),
            Self::Int(column) => column.len(),
            Self::Double(column) => column.len(),
            Self::Bool(column) => column.len(),
        }
    }

    fn pad(&mut self, row: usize) {
        match self {
            Self::Str(column) | Self::Any(column) => column.pad(row),
            Self::Bytes(column) => column.pad(row),
            Self::Int(column) => column.pad(row),
            Self::Double(column) => column.pad(row),
            Self::Bool(column) => column.pad(row),
        }
    }

    /// Appends `value` to `n` rows. The column was chosen by the value's type.
    fn push_n(&mut self, buffers: &Buffers, value: &AnyValue<'_>, n: usize) {
        match (self, value) {
            (Self::Str(column), AnyValue::Str(bytes)) => {
                column.push_n(buffers, Text::Body(bytes), n);
            }
            (Self::Bytes(column), AnyValue::Bytes(bytes)) => {
                column.push_n(buffers, Text::Body(bytes), n);
            }
            (Self::Any(column), AnyValue::Any(text)) => column.push_n(buffers, *text, n),
            (Self::Int(column), AnyValue::Int(value)) => column.push_n(buffers, *value, n),
            (Self::Double(column), AnyValue::Double(value)) => {
                column.push_n(buffers, *value, n);
            }
            (Self::Bool(column), AnyValue::Bool(value)) => column.push_n(*value, n),
            _ => debug_assert!(false, "a column is chosen by the value's type"),
        }
    }

    fn finish(self, buffers: &Arc<[Buffer]>) -> Result<Stored, arrow::error::ArrowError> {
        Ok(match self {
            Self::Str(column) | Self::Any(column) => column.finish(buffers)?,
            Self::Bytes(column) => Stored::Plain(column.finish_bytes(buffers)?),
            Self::Int(column) => column.finish(),
            Self::Double(column) => column.finish(),
            Self::Bool(column) => Stored::Plain(column.finish()),
        })
    }
}

#[derive(Debug)]
struct Column<'a> {
    scope: Scope,
    ty: AttrType,
    key: &'a [u8],
    values: Values,
}

impl Column<'_> {
    #[inline]
    fn is(&self, scope: Scope, ty: AttrType, key: &[u8]) -> bool {
        self.ty == ty && self.scope == scope && same(self.key, key)
    }
}

/// Finished columns with their fields, and the buffers that their texts lie in.
pub type Finished = (Vec<(Field, Stored)>, Arc<[Buffer]>);

/// The attribute columns of a batch that is being decoded.
///
/// A column is as long as the last row that used it; it is filled with nulls when it is used again
/// and at the end.
#[derive(Debug, Default)]
pub struct AttributeColumns<'a> {
    columns: Vec<Column<'a>>,
    index: HashTable<usize>,
    hasher: foldhash::fast::FixedState,
    /// The column of the attribute at each position of the last list of attributes.
    sequence: Vec<usize>,
    /// The position of the next attribute in its list.
    position: usize,
    overflow: Overflow<'a>,
    limits: Limits,
    most_columns: usize,
    /// Attributes that were not kept.
    pub dropped: u64,
    /// Values that were cut.
    pub truncated: u64,
}

impl<'a> AttributeColumns<'a> {
    /// At most `most_columns` columns, that keep at most what `limits` say.
    pub fn new(limits: Limits, most_columns: usize) -> Self {
        Self { limits, most_columns, ..Self::default() }
    }

    /// Begins a list of attributes: of a row, a resource or an instrumentation scope.
    pub fn begin(&mut self) {
        self.position = 0;
    }

    /// Sets `attribute` of `scope` in rows `row..row + n`. A second value of the same key goes to
    /// the rows' overflow, as do columns beyond those that there is room for.
    pub fn set(
        &mut self,
        buffers: &Buffers,
        scope: Scope,
        mut attribute: KeyValue<'a>,
        row: usize,
        n: usize,
    ) {
        if self.position >= self.limits.attributes || !self.fit(&mut attribute) {
            self.dropped += 1;
            return;
        }
        let column = self.column(scope, attribute.value.ty(), attribute.key);
        self.position += 1;
        if let Some(i) = column {
            let values = &mut self.columns[i].values;
            if values.len() <= row {
                values.pad(row);
                return values.push_n(buffers, &attribute.value, n);
            }
        }
        self.dropped += self.overflow.add(scope, attribute, row, n);
    }

    /// Cuts an attribute's value to the length that is kept; false if it cannot be cut, or its key
    /// is too long: cut, it would be another.
    fn fit(&mut self, attribute: &mut KeyValue<'a>) -> bool {
        self.limits.key_fits(attribute.key) && self.fit_value(&mut attribute.value)
    }

    /// Cuts `text` to the length that is kept.
    pub fn cut(&mut self, text: &'a [u8]) -> &'a [u8] {
        let cut = self.limits.cut(text);
        self.truncated += u64::from(cut.len() < text.len());
        cut
    }

    /// Cuts a value to the length that is kept; false if it cannot be cut.
    pub fn fit_value(&mut self, value: &mut AnyValue<'a>) -> bool {
        let fit = self.limits.fit(value);
        self.truncated += u64::from(fit == Some(true));
        fit.is_some()
    }

    #[inline]
    fn column(&mut self, scope: Scope, ty: AttrType, key: &'a [u8]) -> Option<usize> {
        // Emitters set the same attributes in the same order, item after item.
        if let Some(i) = self.sequence.get(self.position)
            && self.columns[*i].is(scope, ty, key)
        {
            return Some(*i);
        }
        let i = self.find(scope, ty, key)?;
        if let Some(guess) = self.sequence.get_mut(self.position) {
            *guess = i;
        } else if self.sequence.len() == self.position {
            self.sequence.push(i);
        }
        Some(i)
    }

    fn find(&mut self, scope: Scope, ty: AttrType, key: &'a [u8]) -> Option<usize> {
        use std::hash::BuildHasher;
        let hash = self.hasher.hash_one((scope, ty, key));
        let columns = &self.columns;
        if let Some(i) = self.index.find(hash, |i| columns[*i].is(scope, ty, key)) {
            return Some(*i);
        }
        if self.columns.len() >= self.most_columns {
            return None;
        }
        let i = self.columns.len();
        self.columns.push(Column { scope, ty, key, values: Values::new(ty) });
        let (columns, hasher) = (&self.columns, &self.hasher);
        self.index.insert_unique(hash, i, |i| {
            let column = &columns[*i];
            hasher.hash_one((column.scope, column.ty, column.key))
        });
        Some(i)
    }

    /// The columns with their fields: attribute columns by name, then the overflow.
    ///
    /// It takes the buffers, since the overflow's keys and numbers are still to be written.
    pub fn finish(self, mut buffers: Buffers, rows: usize) -> Result<Finished, BuildError> {
        let overflow = self.overflow.finish(&mut buffers, rows)?;
        let buffers = buffers.finish();
        let mut finished = Vec::with_capacity(self.columns.len() + 1);
        for mut column in self.columns {
            column.values.pad(rows);
            let key = std::str::from_utf8(column.key).map_err(|_| BuildError::Utf8)?;
            let name = attribute_column(column.scope, column.ty, key);
            let values = column.values.finish(&buffers)?;
            finished.push((Field::new(name, column.ty.data_type(), true), values));
        }
        finished.sort_by(|(a, _), (b, _)| a.name().cmp(b.name()));
        if let Some(overflow) = overflow {
            let field = Field::new(OVERFLOW, attribute_list_type(), true);
            finished.push((field, Stored::Plain(overflow.finish(&buffers)?)));
        }
        Ok((finished, buffers))
    }
}

/// Appends `list`, within the limits of `limits`, to a column of nested attribute lists.
pub fn push_attributes<'a>(
    column: &mut AttributeListColumn,
    buffers: &mut Buffers,
    list: &[KeyValue<'a>],
    limits: &mut AttributeColumns<'a>,
) {
    let mut kept = 0;
    for attribute in list {
        let mut attribute = *attribute;
        if kept >= limits.limits.attributes || !limits.fit(&mut attribute) {
            limits.dropped += 1;
            continue;
        }
        kept += 1;
        let value = attribute.value.nested_text(buffers);
        column.push(buffers, Text::Body(attribute.key), attribute.value.ty().code(), value);
    }
    column.end();
}
