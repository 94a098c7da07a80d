//! Columns that become arrays of a value a row when they are read so.

use std::sync::OnceLock;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use crate::coded::Column;

/// A column, and what it is with a value a row, once somebody asked.
#[derive(Debug)]
struct Lazy {
    column: Column,
    whole: OnceLock<ArrayRef>,
}

impl Lazy {
    fn whole(&self) -> &ArrayRef {
        match &self.column {
            Column::Plain(array) => array,
            // It cannot fail: each code has its value, as was checked when the rows were made.
            coded => self.whole.get_or_init(|| {
                coded.all().unwrap_or_else(|error| {
                    debug_assert!(false, "a code without its value: {error}");
                    new_null_array(coded.data_type(), coded.len())
                })
            }),
        }
    }
}

/// Rows as coded columns.
#[derive(Debug)]
pub struct CodedRows {
    schema: SchemaRef,
    rows: usize,
    columns: Vec<Lazy>,
    record: OnceLock<RecordBatch>,
}

impl CodedRows {
    /// `rows` rows of `columns`.
    ///
    /// # Errors
    /// If a column is not what `schema` says of it, as Arrow's own record batches check, or a code
    /// has no value.
    pub fn try_new(
        schema: SchemaRef,
        rows: usize,
        columns: Vec<Column>,
    ) -> Result<Self, ArrowError> {
        let wrong = |what: String| Err(ArrowError::InvalidArgumentError(what));
        if schema.fields().len() != columns.len() {
            return wrong(format!("{} columns of {}", columns.len(), schema.fields().len()));
        }
        for (field, column) in schema.fields().iter().zip(&columns) {
            let name = field.name();
            if column.len() != rows {
                return wrong(format!("column `{name}` has {} rows of {rows}", column.len()));
            }
            if column.data_type() != field.data_type() {
                return wrong(format!("column `{name}` has type {}", column.data_type()));
            }
            if !field.is_nullable() && column.has_nulls() {
                return wrong(format!("column `{name}` has nulls"));
            }
            if !column.is_sound() {
                return wrong(format!("column `{name}` has a code without its value"));
            }
        }
        let lazy = |column| Lazy { column, whole: OnceLock::new() };
        let columns = columns.into_iter().map(lazy).collect();
        Ok(Self { schema, rows, columns, record: OnceLock::new() })
    }

    /// The columns' names and types.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The columns as they are kept.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = &Column> {
        self.columns.iter().map(|lazy| &lazy.column)
    }

    /// Column number `at`, a value a row.
    pub fn whole(&self, at: usize) -> Option<&ArrayRef> {
        self.columns.get(at).map(Lazy::whole)
    }

    /// All columns, a value a row.
    pub fn record(&self) -> &RecordBatch {
        self.record.get_or_init(|| {
            let columns = self.columns.iter().map(|lazy| lazy.whole().clone()).collect();
            let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
            let record = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options);
            // It cannot fail: this is what was checked when the rows were made.
            record.unwrap_or_else(|error| {
                debug_assert!(false, "columns that do not make a record: {error}");
                RecordBatch::new_empty(self.schema.clone())
            })
        })
    }
}
