//! Builders of columns whose text points into a received request.
//!
//! Text columns are Arrow views: 16 bytes a value, the text itself inline if it has at most 12
//! bytes, else at an offset of one of two buffers that all columns of the batch share: the
//! request's body as it was received, and an auxiliary buffer for text that the decoder had to
//! write (numbers in nested attribute lists, OTLP/JSON of composite values).

mod coder;
mod text;

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, FixedSizeBinaryArray, ListArray, NullBufferBuilder, PrimitiveArray,
    StructArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Fields, UInt8Type};
use arrow::error::ArrowError;

pub use self::coder::{Bits, CodedNumbers, TextColumn};
pub use self::text::{Buffers, Text, ViewColumn, same};
use crate::schema::{attribute_list_fields, list_item};

/// A column of numbers.
#[derive(Debug)]
pub struct NumberColumn<T: ArrowPrimitiveType> {
    values: Vec<T::Native>,
    nulls: NullBufferBuilder,
}

impl<T: ArrowPrimitiveType> Default for NumberColumn<T> {
    fn default() -> Self {
        Self { values: Vec::new(), nulls: NullBufferBuilder::new(0) }
    }
}

impl<T: ArrowPrimitiveType> NumberColumn<T> {
    /// Number of rows so far.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are no rows yet.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Fills with null up to row `row`.
    pub fn pad(&mut self, row: usize) {
        if let Some(missing) = row.checked_sub(self.values.len()).filter(|n| *n > 0) {
            self.values.resize(row, T::default_value());
            self.nulls.append_n_nulls(missing);
        }
    }

    /// Appends `value` to `n` rows.
    pub fn push_n(&mut self, value: T::Native, n: usize) {
        self.values.extend(std::iter::repeat_n(value, n));
        self.nulls.append_n_non_nulls(n);
    }

    /// Appends `value`.
    pub fn push(&mut self, value: T::Native) {
        self.values.push(value);
        self.nulls.append_non_null();
    }

    /// Appends all `values`.
    pub fn extend(&mut self, values: &[T::Native]) {
        self.values.extend_from_slice(values);
        self.nulls.append_n_non_nulls(values.len());
    }

    /// Appends `value`, or null.
    pub fn push_option(&mut self, value: Option<T::Native>) {
        match value {
            Some(value) => self.push(value),
            None => {
                self.values.push(T::default_value());
                self.nulls.append_null();
            }
        }
    }

    /// The column, as `data_type` (which differs from `T`'s only in a time zone).
    pub fn finish(mut self, data_type: DataType) -> ArrayRef {
        let array = PrimitiveArray::<T>::new(ScalarBuffer::from(self.values), self.nulls.finish());
        Arc::new(array.with_data_type(data_type))
    }
}

/// A column of booleans.
#[derive(Debug)]
pub struct BoolColumn {
    values: Vec<bool>,
    nulls: NullBufferBuilder,
}

impl Default for BoolColumn {
    fn default() -> Self {
        Self { values: Vec::new(), nulls: NullBufferBuilder::new(0) }
    }
}

impl BoolColumn {
    /// Number of rows so far.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are no rows yet.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Fills with null up to row `row`.
    pub fn pad(&mut self, row: usize) {
        if let Some(missing) = row.checked_sub(self.values.len()).filter(|n| *n > 0) {
            self.values.resize(row, false);
            self.nulls.append_n_nulls(missing);
        }
    }

    /// Appends `value` to `n` rows.
    pub fn push_n(&mut self, value: bool, n: usize) {
        self.values.extend(std::iter::repeat_n(value, n));
        self.nulls.append_n_non_nulls(n);
    }

    /// The column.
    pub fn finish(mut self) -> ArrayRef {
        Arc::new(BooleanArray::new(self.values.into(), self.nulls.finish()))
    }
}

/// A column of ids of `N` bytes.
#[derive(Debug)]
pub struct IdColumn<const N: usize> {
    values: Vec<u8>,
    nulls: NullBufferBuilder,
}

impl<const N: usize> Default for IdColumn<N> {
    fn default() -> Self {
        Self { values: Vec::new(), nulls: NullBufferBuilder::new(0) }
    }
}

impl<const N: usize> IdColumn<N> {
    /// Appends `id`, or null.
    pub fn push(&mut self, id: Option<[u8; N]>) {
        self.values.extend_from_slice(&id.unwrap_or([0; N]));
        self.nulls.append(id.is_some());
    }

    /// The column.
    pub fn finish(mut self) -> Result<ArrayRef, ArrowError> {
        let values = Buffer::from_vec(self.values);
        let array = FixedSizeBinaryArray::try_new(N as i32, values, self.nulls.finish())?;
        Ok(Arc::new(array))
    }
}

/// Ends of lists: what turns a column of items into a column of lists.
#[derive(Debug)]
pub struct ListEnds {
    offsets: Vec<i32>,
    nulls: NullBufferBuilder,
}

impl Default for ListEnds {
    fn default() -> Self {
        Self { offsets: vec![0], nulls: NullBufferBuilder::new(0) }
    }
}

impl ListEnds {
    /// Ends a list after `items` items in all; one without items is null.
    pub fn end_or_null(&mut self, items: usize) {
        let empty = self.offsets.last() == Some(&(items as i32));
        self.offsets.push(items as i32);
        self.nulls.append(!empty);
    }

    /// Ends a list after `items` items in all.
    pub fn end(&mut self, items: usize) {
        self.offsets.push(items as i32);
        self.nulls.append_non_null();
    }

    /// Fills with null up to list `lists`.
    pub fn pad(&mut self, lists: usize) {
        let last = *self.offsets.last().unwrap_or(&0);
        if let Some(missing) = lists.checked_sub(self.len()).filter(|n| *n > 0) {
            self.offsets.resize(lists + 1, last);
            self.nulls.append_n_nulls(missing);
        }
    }

    /// Number of lists so far.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there are no lists yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The column of lists of `items`.
    pub fn finish(mut self, items: ArrayRef) -> Result<ArrayRef, ArrowError> {
        let field = list_item(items.data_type().clone());
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.offsets));
        Ok(Arc::new(ListArray::try_new(field, offsets, items, self.nulls.finish())?))
    }
}

/// A column of struct items from its fields' columns.
pub fn struct_column(fields: Fields, columns: Vec<ArrayRef>) -> Result<ArrayRef, ArrowError> {
    Ok(Arc::new(StructArray::try_new(fields, columns, None::<NullBuffer>)?))
}

/// A column of nested attribute lists ([`crate::schema::attribute_list_type`]).
#[derive(Debug, Default)]
pub struct AttributeListColumn {
    keys: ViewColumn,
    types: NumberColumn<UInt8Type>,
    values: ViewColumn,
    ends: ListEnds,
}

impl AttributeListColumn {
    /// Appends an attribute to the list that is being built.
    pub fn push(&mut self, buffers: &Buffers, key: Text<'_>, type_code: u8, value: Text<'_>) {
        self.keys.push(buffers, key);
        self.types.push(type_code);
        self.values.push(buffers, value);
    }

    /// Ends the list, empty or not.
    pub fn end(&mut self) {
        self.ends.end(self.keys.len());
    }

    /// Ends the list; null if it is empty.
    pub fn end_or_null(&mut self) {
        self.ends.end_or_null(self.keys.len());
    }

    /// The column.
    pub fn finish(self, buffers: &Arc<[Buffer]>) -> Result<ArrayRef, ArrowError> {
        let columns = vec![
            self.keys.finish_text(buffers)?,
            self.types.finish(DataType::UInt8),
            self.values.finish_text(buffers)?,
        ];
        self.ends.finish(struct_column(attribute_list_fields(), columns)?)
    }
}
