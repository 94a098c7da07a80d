//! Reading.

use std::sync::Arc;

use ::parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, RowSelection,
};
use ::parquet::arrow::{ProjectionMask, parquet_to_arrow_field_levels};
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, RecordBatchReader};
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use lacuna_signal::selector::{Expr, Selector};
use lacuna_signal::{Batch, SignalKind};

use super::super::blocks::BlockFile;
use super::super::codec::RowReader;
use super::super::flat::{Dictionaries, Flat, Read};
use super::super::pages::{self, Contexts, Groups};
use super::super::{PAGE_ROWS, WINDOW_PAGES};
use super::damaged;
use crate::bounds::TimeRange;
use crate::error::StoreError;
use crate::part::{Filter, Want};
use crate::rows::RowSet;

/// An open file.
pub struct ParquetReader {
    kind: SignalKind,
    file: Arc<BlockFile>,
    metadata: ArrowReaderMetadata,
    /// Which columns are compressed.
    packed: Arc<[bool]>,
    /// What reads most columns.
    flat: Flat,
    contexts: Arc<Contexts>,
}

/// Columns by their number, ascending.
type Columns = Vec<(usize, ArrayRef)>;

impl ParquetReader {
    /// Opens a file.
    pub fn open(
        kind: SignalKind,
        file: &BlockFile,
        contexts: Arc<Contexts>,
        dictionaries: Arc<Dictionaries>,
    ) -> Result<Self, ParquetError> {
        // Look-ups need to know where pages are; what is in them, the side index tells better.
        let options = ArrowReaderOptions::new()
            .with_offset_index_policy(PageIndexPolicy::Required)
            .with_column_index_policy(PageIndexPolicy::Skip);
        let loaded = ArrowReaderMetadata::load(file, options.clone())?;
        let (plain, packed) = pages::as_plain(ParquetMetaData::clone(loaded.metadata()))?;
        let metadata = ArrowReaderMetadata::try_new(Arc::new(plain), options)?;
        let flat = Flat::new(metadata.metadata(), metadata.schema(), &packed, dictionaries);
        let (file, packed) = (Arc::new(file.clone()), Arc::from(packed));
        Ok(Self { kind, file, metadata, packed, flat, contexts })
    }

    /// The row groups that have any of `rows`, and where in them the rows are. Others are left out
    /// altogether, because to skip one costs a step for each of its pages and columns.
    fn select(&self, rows: &RowSet) -> (Vec<usize>, RowSelection) {
        let (mut groups, mut ranges) = (Vec::new(), Vec::new());
        let (mut start, mut kept) = (0u32, 0usize);
        for (number, group) in self.metadata.metadata().row_groups().iter().enumerate() {
            let end = start.saturating_add(u32::try_from(group.num_rows()).unwrap_or(u32::MAX));
            let inside = rows.and(&RowSet::range(start..end));
            if !inside.is_empty() {
                let place = |row: u32| kept + (row - start) as usize;
                ranges.extend(inside.ranges().iter().map(|r| place(r.start)..place(r.end)));
                groups.push(number);
                kept += (end - start) as usize;
            }
            start = end;
        }
        (groups, RowSelection::from_consecutive_ranges(ranges.into_iter(), kept))
    }

    /// The columns `wanted` of `rows`, without those that are null in all of them.
    fn columns(&self, rows: &RowSet, wanted: impl Fn(&str) -> bool) -> Result<Columns, StoreError> {
        let fields = self.metadata.schema().fields();
        let roots: Vec<usize> = (0..fields.len()).filter(|i| wanted(fields[*i].name())).collect();
        if rows.is_empty() || roots.is_empty() {
            return Ok(Vec::new());
        }
        let context = self.contexts.take().map_err(|error| damaged(&self.file, &error))?;
        let read = self.flat.read(&self.file, &roots, rows, Arc::clone(&context));
        self.contexts.put(context);
        let (mut columns, mut others) = (Vec::with_capacity(roots.len()), Vec::new());
        for (root, read) in roots.into_iter().zip(read?) {
            match read {
                Read::Array(array) => columns.push((root, array)),
                Read::Null => {}
                Read::Unsupported => others.push(root),
            }
        }
        if !others.is_empty() {
            let arrays = self.others(rows, &others)?;
            columns.extend(others.into_iter().zip(arrays));
            columns.sort_by_key(|(root, _)| *root);
        }
        Ok(columns)
    }

    /// The columns `roots` of `rows` by the parquet crate.
    fn others(&self, rows: &RowSet, roots: &[usize]) -> Result<Vec<ArrayRef>, StoreError> {
        let (numbers, selection) = self.select(rows);
        let damaged = |error: &ParquetError| damaged(&self.file, error);
        let context = self.contexts.take().map_err(|error| damaged(&error))?;
        let groups = Groups {
            file: Arc::clone(&self.file),
            metadata: Arc::clone(self.metadata.metadata()),
            packed: Arc::clone(&self.packed),
            numbers,
            context,
        };
        let schema = self.metadata.parquet_schema();
        let mask = ProjectionMask::roots(schema, roots.iter().copied());
        let fields = Some(self.metadata.schema().fields());
        let levels =
            parquet_to_arrow_field_levels(schema, mask, fields).map_err(|error| damaged(&error))?;
        let size = rows.len().clamp(1, WINDOW_PAGES * PAGE_ROWS as usize);
        let reader = ParquetRecordBatchReader::try_new_with_row_groups(
            &levels,
            &groups,
            size,
            Some(selection),
        )
        .map_err(|error| damaged(&error))?;
        let schema = RecordBatchReader::schema(&reader);
        let records = reader.collect::<Result<Vec<_>, _>>().map_err(|error| match error {
            ArrowError::ExternalError(cause) => match cause.downcast::<ParquetError>() {
                Ok(error) => damaged(&error),
                Err(cause) => StoreError::corrupt(self.file.path(), cause.to_string()),
            },
            other => StoreError::corrupt(self.file.path(), other.to_string()),
        });
        self.contexts.put(groups.context);
        let record = match records?.as_slice() {
            [one] => one.clone(),
            many => concat_batches(&schema, many)?,
        };
        Ok(record.columns().to_vec())
    }

    /// A batch of `rows` rows.
    fn batch(&self, columns: Columns, rows: usize) -> Result<Batch, StoreError> {
        if rows == 0 {
            return Ok(Batch::empty(self.kind));
        }
        let all = self.metadata.schema().fields();
        let (mut fields, mut arrays) = (Vec::new(), Vec::new());
        for (root, array) in columns {
            fields.push(Arc::clone(&all[root]));
            arrays.push(array);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = Arc::new(Schema::new(fields));
        Ok(Batch::try_new(self.kind, RecordBatch::try_new_with_options(schema, arrays, &options)?)?)
    }
}

impl RowReader for ParquetReader {
    fn schema(&self) -> SchemaRef {
        self.metadata.schema().clone()
    }

    fn read(&self, rows: &RowSet, want: Want<'_>, filter: Filter<'_>) -> Result<Batch, StoreError> {
        let selector = filter.selector.filter(|selector| *selector.expr() != Expr::Const(true));
        if filter.range == TimeRange::ALL && selector.is_none() {
            return self.batch(self.columns(rows, |name| want.wants(name))?, rows.len());
        }
        // What passes is found out by few columns; the others are read for what passes only.
        let (time, tested) = (self.kind.time_column(), selector.map(Selector::columns));
        let tested = tested.unwrap_or_default();
        let tests = |name: &str| name == time || tested.wants(name);
        let mut columns = self.columns(rows, tests)?;
        let filter = Filter { selector, ..filter };
        let mask = filter.mask(&self.batch(columns.clone(), rows.len())?)?;
        let fields = self.metadata.schema().fields();
        columns.retain(|(root, _)| want.wants(fields[*root].name()));
        let passed = match &mask {
            None => rows.clone(),
            Some(mask) => {
                for (_, array) in &mut columns {
                    *array = arrow::compute::filter(array, mask)?;
                }
                rows.filter(mask)
            }
        };
        columns.extend(self.columns(&passed, |name| want.wants(name) && !tests(name))?);
        columns.sort_by_key(|(root, _)| *root);
        self.batch(columns, passed.len())
    }
}
