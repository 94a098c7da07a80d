//! What a segment's data file must be able to do. Parquet is the one format; the trait keeps the
//! rest of the store from knowing.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use lacuna_signal::{Batch, SignalKind};

use super::blocks::{BlockFile, BlockWriter};
use super::cells::Cells;
use crate::error::StoreError;
use crate::part::{Filter, Want};
use crate::rows::RowSet;

/// A format of data files.
pub trait Codec: Send + Sync {
    /// Extension of the files.
    fn extension(&self) -> &'static str;
    /// Begins a file with columns `schema`.
    fn write(&self, schema: SchemaRef, out: BlockWriter) -> Result<Box<dyn RowWriter>, StoreError>;
    /// Opens a file.
    fn open(&self, kind: SignalKind, file: BlockFile) -> Result<Arc<dyn RowReader>, StoreError>;
}

/// A data file being written.
pub trait RowWriter {
    /// Appends a row group: the cells of the schema's columns, in order.
    fn append(
        &mut self,
        columns: &mut dyn Iterator<Item = Result<Cells, StoreError>>,
    ) -> Result<(), StoreError>;
    /// Makes the file whole and durable: its length and the checksums of its blocks.
    fn finish(self: Box<Self>) -> Result<(u64, Vec<u32>), StoreError>;
}

/// A data file being read.
pub trait RowReader: Send + Sync {
    /// Its columns.
    fn schema(&self) -> SchemaRef;
    /// The wanted columns of those of `rows` that pass `filter`.
    fn read(&self, rows: &RowSet, want: Want<'_>, filter: Filter<'_>) -> Result<Batch, StoreError>;
}
