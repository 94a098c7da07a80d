//! Attribute columns of a batch that is being decoded.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type};
use hashbrown::HashTable;

use crate::column::{AttributeListColumn, BoolColumn, Buffers, NumberColumn, Text, ViewColumn};
use crate::schema::{
    AttrType, MAX_ATTRIBUTE_COLUMNS, OVERFLOW, Scope, attribute_column, attribute_list_type,
};

use super::BuildError;
use super::any::{AnyValue, KeyValue};

#[derive(Debug)]
enum Values {
    Str(ViewColumn),
    Int(NumberColumn<Int64Type>),
    Double(NumberColumn<Float64Type>),
    Bool(BoolColumn),
    Bytes(ViewColumn),
    Any(ViewColumn),
}

impl Values {
    fn new(ty: AttrType) -> Self {
        match ty {
            AttrType::Str => Self::Str(ViewColumn::default()),
            AttrType::Int => Self::Int(NumberColumn::default()),
            AttrType::Double => Self::Double(NumberColumn::default()),
            AttrType::Bool => Self::Bool(BoolColumn::default()),
            AttrType::Bytes => Self::Bytes(ViewColumn::default()),
            AttrType::Any => Self::Any(ViewColumn::default()),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Str(column) | Self::Bytes(column) | Self::Any(column) => column.len(),
            Self::Int(column) => column.len(),
            Self::Double(column) => column.len(),
            Self::Bool(column) => column.len(),
        }
    }

    fn pad(&mut self, row: usize) {
        match self {
            Self::Str(column) | Self::Bytes(column) | Self::Any(column) => column.pad(row),
            Self::Int(column) => column.pad(row),
            Self::Double(column) => column.pad(row),
            Self::Bool(column) => column.pad(row),
        }
    }

    /// Appends `value` to `n` rows. The column was chosen by the value's type.
    fn push_n(&mut self, buffers: &Buffers, value: &AnyValue<'_>, n: usize) {
        match (self, value) {
            (Self::Str(column), AnyValue::Str(bytes))
            | (Self::Bytes(column), AnyValue::Bytes(bytes)) => {
                column.push_n(buffers, Text::Body(bytes), n);
            }
            (Self::Any(column), AnyValue::Any(text)) => column.push_n(buffers, *text, n),
            (Self::Int(column), AnyValue::Int(value)) => column.push_n(*value, n),
            (Self::Double(column), AnyValue::Double(value)) => column.push_n(*value, n),
            (Self::Bool(column), AnyValue::Bool(value)) => column.push_n(*value, n),
            _ => debug_assert!(false, "a column is chosen by the value's type"),
        }
    }

    fn finish(self, buffers: &Arc<[Buffer]>) -> Result<ArrayRef, arrow::error::ArrowError> {
        Ok(match self {
            Self::Str(column) | Self::Any(column) => column.finish_text(buffers)?,
            Self::Bytes(column) => column.finish_bytes(buffers)?,
            Self::Int(column) => column.finish(DataType::Int64),
            Self::Double(column) => column.finish(DataType::Float64),
            Self::Bool(column) => column.finish(),
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

/// A batch keeps at most this many attributes that found no column. More come only from a client
/// that invents keys; what is beyond is counted, not kept.
pub const MAX_OVERFLOW: usize = 1 << 20;

/// Finished columns with their fields, and the buffers that their texts lie in.
pub type Finished = (Vec<(Field, ArrayRef)>, Arc<[Buffer]>);

/// The attribute columns of a batch that is being decoded.
///
/// A column is as long as the last row that used it; it is filled with nulls when it is used again
/// and at the end.
#[derive(Debug, Default)]
pub struct AttributeColumns<'a> {
    columns: Vec<Column<'a>>,
    index: HashTable<usize>,
    hasher: foldhash::fast::FixedState,
    /// Row, scope and attribute of what found no column.
    overflow: Vec<(usize, Scope, KeyValue<'a>)>,
    /// Attributes beyond [`MAX_OVERFLOW`].
    pub dropped: u64,
}

impl<'a> AttributeColumns<'a> {
    /// Sets `attribute` of `scope` in rows `row..row + n`. A second value of the same key goes to
    /// the rows' overflow, as do columns beyond [`MAX_ATTRIBUTE_COLUMNS`].
    pub fn set(
        &mut self,
        buffers: &Buffers,
        scope: Scope,
        attribute: KeyValue<'a>,
        row: usize,
        n: usize,
    ) {
        let Some(i) = self.column(scope, attribute.value.ty(), attribute.key) else {
            return self.overflow(scope, attribute, row, n);
        };
        let values = &mut self.columns[i].values;
        if values.len() > row {
            return self.overflow(scope, attribute, row, n);
        }
        values.pad(row);
        values.push_n(buffers, &attribute.value, n);
    }

    fn column(&mut self, scope: Scope, ty: AttrType, key: &'a [u8]) -> Option<usize> {
        use std::hash::BuildHasher;
        let hash = self.hasher.hash_one((scope, ty, key));
        let columns = &self.columns;
        let same = |i: &usize| {
            let column = &columns[*i];
            column.key == key && column.scope == scope && column.ty == ty
        };
        if let Some(i) = self.index.find(hash, same) {
            return Some(*i);
        }
        if self.columns.len() == MAX_ATTRIBUTE_COLUMNS {
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

    fn overflow(&mut self, scope: Scope, attribute: KeyValue<'a>, row: usize, n: usize) {
        let room = n.min(MAX_OVERFLOW - self.overflow.len());
        self.dropped += (n - room) as u64;
        self.overflow.extend((row..row + room).map(|row| (row, scope, attribute)));
    }

    /// The columns with their fields: attribute columns by name, then the overflow.
    ///
    /// It takes the buffers, since the overflow's keys and numbers are still to be written.
    pub fn finish(mut self, mut buffers: Buffers, rows: usize) -> Result<Finished, BuildError> {
        let overflow = self.take_overflow(&mut buffers, rows)?;
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
            finished.push((field, overflow.finish(&buffers)?));
        }
        Ok((finished, buffers))
    }

    fn take_overflow(
        &mut self,
        buffers: &mut Buffers,
        rows: usize,
    ) -> Result<Option<AttributeListColumn>, BuildError> {
        if self.overflow.is_empty() {
            return Ok(None);
        }
        let mut overflow = std::mem::take(&mut self.overflow);
        overflow.sort_by_key(|(row, _, _)| *row);
        let mut overflow = overflow.into_iter().peekable();
        let mut column = AttributeListColumn::default();
        for row in 0..rows {
            while let Some((_, scope, attribute)) = overflow.next_if(|(r, _, _)| *r == row) {
                let key = std::str::from_utf8(attribute.key).map_err(|_| BuildError::Utf8)?;
                let key = buffers.write(&format!("{}.{key}", scope.name()));
                let ty = attribute.value.ty().code();
                let value = attribute.value.nested_text(buffers);
                column.push(buffers, key, ty, value);
            }
            column.end_or_null();
        }
        Ok(Some(column))
    }
}
