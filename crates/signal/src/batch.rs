//! A batch of rows of one kind of signal.

mod coded;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, ListArray, RecordBatch, RecordBatchOptions,
    StructArray, UInt64Array, new_null_array,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::compute;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;

use self::coded::CodedRows;
use crate::coded::Column;
use crate::schema::{self, SignalKind, parse_attribute_column};

/// Why columns do not make a batch, or batches do not make one batch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// A column has a known name but another type than [`schema`] gives it.
    #[error("column `{column}` of {kind} has type {found}, expected {expected}")]
    ColumnType {
        /// The column.
        column: String,
        /// The kind of signal.
        kind: &'static str,
        /// Its type.
        found: DataType,
        /// The type by [`schema`].
        expected: DataType,
    },
    /// A column is neither fixed nor an attribute's.
    #[error("column `{column}` is not a column of {kind}")]
    UnknownColumn {
        /// The column.
        column: String,
        /// The kind of signal.
        kind: &'static str,
    },
    /// Batches of two kinds were to become one.
    #[error("cannot join a batch of {0} with a batch of {1}")]
    Kinds(&'static str, &'static str),
    /// Arrow refused.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

/// Rows of one kind of signal: an Arrow record batch whose columns are those of [`schema`].
///
/// A column may be missing, because no row uses it or because a query did not ask for it; it then
/// reads as null. Cloning is cheap (reference counts).
///
/// A decoded batch keeps columns in which values repeat as codes ([`Batch::stored_columns`]); such
/// a column gets a value a row when it is first read so, once for all clones.
#[derive(Debug, Clone)]
pub struct Batch {
    kind: SignalKind,
    rows: Rows,
}

#[derive(Debug, Clone)]
enum Rows {
    Record(RecordBatch),
    Coded(Arc<CodedRows>),
}

impl PartialEq for Batch {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.record() == other.record()
    }
}

impl Batch {
    /// Wraps `record` after checking its columns' names and types.
    pub fn try_new(kind: SignalKind, record: RecordBatch) -> Result<Self, BatchError> {
        for field in record.schema_ref().fields() {
            let name = field.name();
            let expected = match kind.fixed_fields().find(name) {
                Some((_, fixed)) => fixed.data_type().clone(),
                None => match parse_attribute_column(name) {
                    Some((_, ty, _)) => ty.data_type(),
                    None => {
                        let kind = kind.name();
                        return Err(BatchError::UnknownColumn { column: name.clone(), kind });
                    }
                },
            };
            if *field.data_type() != expected {
                return Err(BatchError::ColumnType {
                    column: name.clone(),
                    kind: kind.name(),
                    found: field.data_type().clone(),
                    expected,
                });
            }
        }
        Ok(Self::of(kind, record))
    }

    fn of(kind: SignalKind, record: RecordBatch) -> Self {
        Self { kind, rows: Rows::Record(record) }
    }

    /// A batch of `rows` rows that this crate decoded.
    pub(crate) fn coded(
        kind: SignalKind,
        schema: SchemaRef,
        rows: usize,
        columns: Vec<Column>,
    ) -> Result<Self, ArrowError> {
        let rows = Rows::Coded(Arc::new(CodedRows::try_new(schema, rows, columns)?));
        Ok(Self { kind, rows })
    }

    /// A batch without rows or columns.
    pub fn empty(kind: SignalKind) -> Self {
        Self::of(kind, RecordBatch::new_empty(Arc::new(Schema::empty())))
    }

    /// The kind of signal.
    pub fn kind(&self) -> SignalKind {
        self.kind
    }

    /// The Arrow record batch. Every column gets a value a row: who reads few of them had better
    /// ask for those.
    pub fn record(&self) -> &RecordBatch {
        match &self.rows {
            Rows::Record(record) => record,
            Rows::Coded(rows) => rows.record(),
        }
    }

    /// The columns' names and types.
    pub fn schema(&self) -> &SchemaRef {
        match &self.rows {
            Rows::Record(record) => record.schema_ref(),
            Rows::Coded(rows) => rows.schema(),
        }
    }

    /// Whether it was decoded: texts of rows that are worth codes have them.
    pub fn is_coded(&self) -> bool {
        matches!(self.rows, Rows::Coded(_))
    }

    /// The columns as they are kept, in the schema's order.
    pub fn stored_columns(&self) -> Vec<Column> {
        match &self.rows {
            Rows::Record(record) => record.columns().iter().cloned().map(Column::Plain).collect(),
            Rows::Coded(rows) => rows.columns().cloned().collect(),
        }
    }

    /// Number of rows.
    pub fn num_rows(&self) -> usize {
        match &self.rows {
            Rows::Record(record) => record.num_rows(),
            Rows::Coded(rows) => rows.rows(),
        }
    }

    /// Bytes of memory that the batch keeps alive, buffers shared with other batches included.
    pub fn memory_size(&self) -> usize {
        match &self.rows {
            Rows::Record(record) => record.get_array_memory_size(),
            Rows::Coded(rows) => rows.columns().map(Column::memory_size).sum(),
        }
    }

    /// The column `name`, if any row of the batch may have a value in it.
    pub fn column(&self, name: &str) -> Option<&ArrayRef> {
        match &self.rows {
            Rows::Record(record) => record.column_by_name(name),
            Rows::Coded(rows) => rows.whole(rows.schema().index_of(name).ok()?),
        }
    }

    /// Column number `at` of the schema.
    pub fn column_at(&self, at: usize) -> Option<&ArrayRef> {
        match &self.rows {
            Rows::Record(record) => record.columns().get(at),
            Rows::Coded(rows) => rows.whole(at),
        }
    }

    /// Rows `offset..offset + len`, without copying.
    pub fn slice(&self, offset: usize, len: usize) -> Self {
        Self::of(self.kind, self.record().slice(offset, len))
    }

    /// The rows that `mask` keeps.
    pub fn filter(&self, mask: &BooleanArray) -> Result<Self, BatchError> {
        Ok(Self::of(self.kind, compute::filter_record_batch(self.record(), mask)?))
    }

    /// The rows at `indices`, in that order.
    pub fn take(&self, indices: &UInt64Array) -> Result<Self, BatchError> {
        Ok(Self::of(self.kind, compute::take_record_batch(self.record(), indices)?))
    }

    /// Only the columns in `names`; those that the batch lacks are left out.
    pub fn project(&self, names: &[&str]) -> Result<Self, BatchError> {
        let schema = self.schema();
        let keep: Vec<usize> = (0..schema.fields().len())
            .filter(|i| names.contains(&schema.field(*i).name().as_str()))
            .collect();
        let record = match &self.rows {
            Rows::Record(record) => record.project(&keep)?,
            Rows::Coded(rows) => {
                let columns = keep.iter().filter_map(|at| rows.whole(*at).cloned()).collect();
                let options = RecordBatchOptions::new().with_row_count(Some(rows.rows()));
                let schema = Arc::new(schema.project(&keep)?);
                RecordBatch::try_new_with_options(schema, columns, &options)?
            }
        };
        Ok(Self::of(self.kind, record))
    }

    /// One batch of all rows, in order, with the columns of all.
    ///
    /// Fixed columns come first in [`schema`]'s order, then attribute columns by name. The text
    /// still lies in the buffers of the parts; [`Batch::compact`] frees them.
    pub fn concat(kind: SignalKind, batches: &[Self]) -> Result<Self, BatchError> {
        if let Some(other) = batches.iter().find(|batch| batch.kind != kind) {
            return Err(BatchError::Kinds(kind.name(), other.kind.name()));
        }
        if let [only] = batches {
            return Ok(only.clone());
        }
        let schemas: Vec<&Schema> = batches.iter().map(|batch| batch.schema().as_ref()).collect();
        let schema = Arc::new(union_schema(kind, &schemas));
        let records = batches
            .iter()
            .map(|batch| conform(batch.record(), &schema))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self::of(kind, compute::concat_batches(&schema, &records)?))
    }

    /// Copies text out of buffers that it shares (a received request's body, a decoded page), so
    /// that the batch keeps alive no more memory than its own rows need.
    pub fn compact(&self) -> Result<Self, BatchError> {
        let columns = self.record().columns().iter().map(own_text).collect::<Result<_, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.num_rows()));
        let schema = self.schema().clone();
        let record = RecordBatch::try_new_with_options(schema, columns, &options)?;
        Ok(Self::of(self.kind, record))
    }
}

/// `array` with texts, nested ones too, in buffers of its own.
///
/// # Errors
/// None for a column of a batch: Arrow checks what it built itself.
pub fn own_text(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    Ok(match array.data_type() {
        DataType::Utf8View => Arc::new(array.as_string_view().gc()),
        DataType::BinaryView => Arc::new(array.as_binary_view().gc()),
        DataType::List(item) if item.data_type().is_nested() => {
            let list = array.as_list::<i32>();
            // A slice of a list column still has the items of all rows.
            let ends = list.offsets();
            let (start, end) = (ends[0], ends[ends.len() - 1]);
            let items = list.values().slice(start as usize, (end - start) as usize);
            let ends = ends.iter().map(|end| end - start).collect::<Vec<_>>();
            let ends = OffsetBuffer::new(ScalarBuffer::from(ends));
            let nulls = list.nulls().cloned();
            Arc::new(ListArray::try_new(Arc::clone(item), ends, own_text(&items)?, nulls)?)
        }
        DataType::Struct(fields) => {
            let items = array.as_struct();
            let columns = items.columns().iter().map(own_text).collect::<Result<_, _>>()?;
            let nulls = items.nulls().cloned();
            Arc::new(StructArray::try_new_with_length(fields.clone(), columns, nulls, items.len())?)
        }
        _ => Arc::clone(array),
    })
}

/// The columns of all `schemas` of batches of `kind`: fixed ones in [`schema`]'s order, then
/// attributes by name.
pub fn union_schema(kind: SignalKind, schemas: &[&Schema]) -> Schema {
    let mut names = BTreeSet::new();
    for schema in schemas {
        names.extend(schema.fields().iter().map(|field| field.name().as_str()));
    }
    let mut fields = Vec::with_capacity(names.len());
    for fixed in kind.fixed_fields() {
        if names.remove(fixed.name().as_str()) {
            // A part may lack the column, so the whole may hold nulls in it.
            let everywhere = schemas.iter().all(|schema| schema.index_of(fixed.name()).is_ok());
            let nullable = fixed.is_nullable() || !everywhere;
            fields.push(Field::new(fixed.name(), fixed.data_type().clone(), nullable));
        }
    }
    for name in names {
        if let Some((_, ty, _)) = schema::parse_attribute_column(name) {
            fields.push(Field::new(name, ty.data_type(), true));
        }
    }
    Schema::new(fields)
}

/// `record` with exactly the columns of `schema`, null where it lacks one.
fn conform(record: &RecordBatch, schema: &Arc<Schema>) -> Result<RecordBatch, ArrowError> {
    // Batches of this crate have their columns in the same order: no search by name is needed.
    let own = record.schema_ref().fields();
    let mut next = 0;
    let columns = schema
        .fields()
        .iter()
        .map(|field| match own.get(next) {
            Some(here) if here.name() == field.name() => {
                next += 1;
                Arc::clone(record.column(next - 1))
            }
            _ => record
                .column_by_name(field.name())
                .cloned()
                .unwrap_or_else(|| new_null_array(field.data_type(), record.num_rows())),
        })
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(record.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
}
