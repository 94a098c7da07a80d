//! Reading.

use std::sync::Arc;

use ::parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, RowSelection,
};
use ::parquet::arrow::{FieldLevels, ProjectionMask, parquet_to_arrow_field_levels};
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use arrow::array::{RecordBatch, RecordBatchOptions, RecordBatchReader};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use lacuna_signal::selector::{Expr, Selector};
use lacuna_signal::{Batch, SignalKind};

use super::super::blocks::BlockFile;
use super::super::codec::RowReader;
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
    /// The tree of all columns.
    all: FieldLevels,
    contexts: Arc<Contexts>,
}

impl ParquetReader {
    /// Opens a file.
    pub fn open(
        kind: SignalKind,
        file: &BlockFile,
        contexts: Arc<Contexts>,
    ) -> Result<Self, ParquetError> {
        // Look-ups need to know where pages are; what is in them, the side index tells better.
        let options = ArrowReaderOptions::new()
            .with_offset_index_policy(PageIndexPolicy::Required)
            .with_column_index_policy(PageIndexPolicy::Skip);
        let loaded = ArrowReaderMetadata::load(file, options.clone())?;
        let (plain, packed) = pages::as_plain(ParquetMetaData::clone(loaded.metadata()))?;
        let metadata = ArrowReaderMetadata::try_new(Arc::new(plain), options)?;
        let fields = Some(metadata.schema().fields());
        let all = parquet_to_arrow_field_levels(
            metadata.parquet_schema(),
            ProjectionMask::all(),
            fields,
        )?;
        let (file, packed) = (Arc::new(file.clone()), Arc::from(packed));
        Ok(Self { kind, file, metadata, packed, all, contexts })
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

    /// The columns `wanted` of `rows`.
    fn columns(
        &self,
        rows: &RowSet,
        want: Option<&dyn Fn(&str) -> bool>,
    ) -> Result<Batch, StoreError> {
        if rows.is_empty() {
            return Ok(Batch::empty(self.kind));
        }
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
        let some;
        let levels = match want {
            None => &self.all,
            Some(wanted) => {
                let fields = self.metadata.schema().fields();
                let roots = (0..fields.len()).filter(|i| wanted(fields[*i].name()));
                let schema = self.metadata.parquet_schema();
                let mask = ProjectionMask::roots(schema, roots);
                some = parquet_to_arrow_field_levels(schema, mask, Some(fields))
                    .map_err(|error| damaged(&error))?;
                &some
            }
        };
        let size = rows.len().clamp(1, WINDOW_PAGES * PAGE_ROWS as usize);
        let reader = ParquetRecordBatchReader::try_new_with_row_groups(
            levels,
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
        let records = records?;
        let record = match records.as_slice() {
            [one] => one.clone(),
            many if schema.fields().is_empty() => {
                let rows = many.iter().map(RecordBatch::num_rows).sum();
                let options = RecordBatchOptions::new().with_row_count(Some(rows));
                RecordBatch::try_new_with_options(schema, Vec::new(), &options)?
            }
            many => concat_batches(&schema, many)?,
        };
        Ok(Batch::try_new(self.kind, record)?)
    }
}

impl RowReader for ParquetReader {
    fn schema(&self) -> SchemaRef {
        self.metadata.schema().clone()
    }

    fn read(&self, rows: &RowSet, want: Want<'_>, filter: Filter<'_>) -> Result<Batch, StoreError> {
        let wanted = |name: &str| want.wants(name);
        let read = |rows: &RowSet| match want {
            Want::All => self.columns(rows, None),
            _ => self.columns(rows, Some(&wanted)),
        };
        let selector = filter.selector.filter(|selector| *selector.expr() != Expr::Const(true));
        if filter.range == TimeRange::ALL && selector.is_none() {
            return read(rows);
        }
        // What passes is found out by few columns; the others are read for what passes only.
        let (time, tested) = (self.kind.time_column(), selector.map(Selector::columns));
        let tested = tested.unwrap_or_default();
        let tests = |name: &str| name == time || tested.wants(name);
        let batch = self.columns(rows, Some(&tests))?;
        let filter = Filter { selector, ..filter };
        match filter.mask(&batch)? {
            None => read(rows),
            Some(mask) => read(&rows.filter(&mask)),
        }
    }
}
