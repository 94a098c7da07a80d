//! A batch whose columns have been looked up once.

use arrow::array::ArrayRef;
use hashbrown::HashMap;

use crate::batch::Batch;
use crate::schema::SignalKind;

/// Where a column is.
#[derive(Debug, Clone, Copy)]
enum Place<'a> {
    /// In the batch; it may have to get a value a row first.
    Batch(usize),
    /// Beside it.
    More(&'a ArrayRef),
}

/// A batch and its columns by name, for running many selectors over it.
#[derive(Debug)]
pub struct BatchIndex<'a> {
    batch: &'a Batch,
    columns: HashMap<&'a str, Place<'a>, foldhash::fast::RandomState>,
}

impl<'a> BatchIndex<'a> {
    /// Looks up the columns of `batch`.
    pub fn new(batch: &'a Batch) -> Self {
        let names = batch.schema().fields().iter().map(|field| field.name().as_str());
        Self { batch, columns: names.zip((0..).map(Place::Batch)).collect() }
    }

    /// The same with more columns, of as many rows as `batch` has.
    pub(super) fn with(batch: &'a Batch, more: &'a [(String, ArrayRef)]) -> Self {
        let mut index = Self::new(batch);
        index
            .columns
            .extend(more.iter().map(|(name, column)| (name.as_str(), Place::More(column))));
        index
    }

    /// The batch.
    pub fn batch(&self) -> &'a Batch {
        self.batch
    }

    /// The kind of signal.
    pub fn kind(&self) -> SignalKind {
        self.batch.kind()
    }

    /// Number of rows.
    pub fn num_rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// The column `name`.
    pub fn column(&self, name: &str) -> Option<&'a ArrayRef> {
        match *self.columns.get(name)? {
            Place::Batch(at) => self.batch.column_at(at),
            Place::More(column) => Some(column),
        }
    }
}
