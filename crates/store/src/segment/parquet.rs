//! The Parquet codec: plain files that DuckDB, Polars or ClickHouse open, with encodings chosen for
//! looking up single traces.
//!
//! Small pages (512 rows) keep a look-up from decoding what it does not need; dictionaries only
//! where few values repeat, since a look-up must read the dictionary whole; delta encoding for
//! times. `docs/format.md` lists it.

use std::sync::Arc;

use ::parquet::arrow::arrow_reader::{
    ArrowPredicate, ArrowPredicateFn, ArrowReaderMetadata, ArrowReaderOptions,
    ParquetRecordBatchReaderBuilder, RowFilter, RowSelection,
};
use ::parquet::arrow::{ArrowWriter, ProjectionMask};
use ::parquet::basic::{Compression, Encoding, ZstdLevel};
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::PageIndexPolicy;
use ::parquet::file::properties::{EnabledStatistics, WriterProperties};
use ::parquet::schema::types::ColumnPath;
use arrow::array::{BooleanArray, RecordBatch, RecordBatchOptions, RecordBatchReader};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use lacuna_signal::selector::Expr;
use lacuna_signal::{Batch, SignalKind, schema};

use super::PAGE_ROWS;
use super::blocks::{BlockFile, BlockWriter};
use super::codec::{Codec, RowReader, RowWriter};
use crate::bounds::TimeRange;
use crate::error::StoreError;
use crate::part::{Filter, Want};
use crate::rows::RowSet;
use crate::summary::Summary;

/// Rows in a row group.
const GROUP_ROWS: usize = 128 * 1024;
/// A column with more distinct values has no dictionary.
const DICTIONARY_VALUES: u64 = 2048;
/// Rows in a page of a column with a dictionary: a page has a head of some 30 bytes, and codes are
/// decoded a hundred times as fast as texts.
const DICTIONARY_PAGE_ROWS: usize = 4096;
/// Rows in a page of a column that hardly any row has.
const SPARSE_PAGE_ROWS: usize = 8192;
/// A column that fewer than one in this many rows have is sparse.
const SPARSE: u64 = 64;

/// The level of zstd for rows that will be merged soon: without entropy coding, whose tables would
/// cost more than the pages that they are for.
const FAST: i32 = -4;

/// Reads and writes Parquet.
#[derive(Debug, Clone, Copy, Default)]
pub struct ParquetCodec;

impl Codec for ParquetCodec {
    fn extension(&self) -> &'static str {
        "parquet"
    }

    fn write(
        &self,
        kind: SignalKind,
        schema: SchemaRef,
        summary: &Summary,
        lasting: bool,
        out: BlockWriter,
    ) -> Result<Box<dyn RowWriter>, StoreError> {
        let properties = properties(kind, &schema, summary, lasting)?;
        let writer = ArrowWriter::try_new(out, schema, Some(properties)).map_err(encode)?;
        Ok(Box::new(ParquetWriter { writer }))
    }

    fn open(&self, kind: SignalKind, file: BlockFile) -> Result<Arc<dyn RowReader>, StoreError> {
        // Look-ups need to know where pages are; what is in them, the side index tells better.
        let options = ArrowReaderOptions::new()
            .with_offset_index_policy(PageIndexPolicy::Required)
            .with_column_index_policy(PageIndexPolicy::Skip);
        let metadata = ArrowReaderMetadata::load(&file, options).map_err(|e| damaged(&file, &e))?;
        Ok(Arc::new(ParquetReader { kind, file, metadata }))
    }
}

fn encode(error: ParquetError) -> StoreError {
    StoreError::Encode(Arc::new(error))
}

/// A file that cannot be read: with the cause found by the checksums, if that is what it is.
fn damaged(file: &BlockFile, error: &ParquetError) -> StoreError {
    if let ParquetError::External(cause) = error
        && let Some(known) = cause.downcast_ref::<StoreError>()
    {
        return known.clone();
    }
    StoreError::corrupt(file.path(), error.to_string())
}

fn properties(
    kind: SignalKind,
    columns: &Schema,
    summary: &Summary,
    lasting: bool,
) -> Result<WriterProperties, StoreError> {
    let zstd = |level| ZstdLevel::try_new(level).map(Compression::ZSTD).map_err(encode);
    let packed = zstd(if lasting { 1 } else { FAST })?;
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("lacuna ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(packed)
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS as usize)
        .set_write_batch_size(PAGE_ROWS as usize)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_dictionary_enabled(true);
    let rows = summary.rows;
    for field in columns.fields() {
        let (name, data_type) = (field.name(), field.data_type());
        // One part: an attribute's key may hold dots, which are not levels of nesting.
        let path = ColumnPath::new(vec![name.clone()]);
        let fixed = kind.fixed_fields().find(name).is_some();
        let known = summary.columns.get(name);
        let many = known.is_some_and(|column| column.distinct > DICTIONARY_VALUES);
        let plain = match data_type {
            DataType::Timestamp(..) => true,
            DataType::FixedSizeBinary(_) => true,
            // Durations, values and counts hardly repeat.
            DataType::Int64 | DataType::Float64 | DataType::UInt64 if fixed => true,
            _ => many,
        };
        let delta = plain && matches!(data_type, DataType::Timestamp(..) | DataType::Int64);
        if plain {
            properties = properties.set_column_dictionary_enabled(path.clone(), false);
        } else if !data_type.is_nested() {
            let rows = DICTIONARY_PAGE_ROWS;
            properties = properties.set_column_data_page_row_count_limit(path.clone(), rows);
        }
        if delta {
            let encoding = Encoding::DELTA_BINARY_PACKED;
            properties = properties.set_column_encoding(path.clone(), encoding);
        }
        // What other readers can leave row groups out by.
        if data_type.is_primitive() {
            let chunk = EnabledStatistics::Chunk;
            properties = properties.set_column_statistics_enabled(path.clone(), chunk);
        }
        // Random or packed by bits already: to compress it costs more than it saves.
        let dense = delta || name == schema::SPAN_ID || !plain && !lasting;
        if dense && !data_type.is_nested() {
            let none = Compression::UNCOMPRESSED;
            properties = properties.set_column_compression(path.clone(), none);
        }
        if known.is_some_and(|column| column.rows * SPARSE < rows) {
            properties = properties.set_column_data_page_row_count_limit(path, SPARSE_PAGE_ROWS);
        }
    }
    Ok(properties.build())
}

struct ParquetWriter {
    writer: ArrowWriter<BlockWriter>,
}

impl RowWriter for ParquetWriter {
    fn append(&mut self, rows: &RecordBatch) -> Result<(), StoreError> {
        self.writer.write(rows).map_err(encode)
    }

    fn finish(self: Box<Self>) -> Result<(u64, Vec<u32>), StoreError> {
        // Writes the last row group and the foot.
        let out = self.writer.into_inner().map_err(encode)?;
        out.finish().map_err(|error| encode(error.into()))
    }
}

struct ParquetReader {
    kind: SignalKind,
    file: BlockFile,
    metadata: ArrowReaderMetadata,
}

impl ParquetReader {
    fn projection(&self, wanted: impl Fn(&str) -> bool) -> ProjectionMask {
        let fields = self.metadata.schema().fields().iter().enumerate();
        let roots = fields.filter(|(_, field)| wanted(field.name())).map(|(i, _)| i);
        ProjectionMask::roots(self.metadata.parquet_schema(), roots)
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

    fn filters(&self, filter: Filter<'_>) -> RowFilter {
        let kind = self.kind;
        let mut predicates: Vec<Box<dyn ArrowPredicate>> = Vec::new();
        if filter.range != TimeRange::ALL {
            let time = Filter { selector: None, ..filter };
            let range = time.range;
            let projection = self.projection(|name| name == kind.time_column());
            predicates.push(Box::new(ArrowPredicateFn::new(projection, move |record| {
                let rows = record.num_rows();
                let batch = batch(kind, record)?;
                let mask = Filter { range, selector: None }.time_mask(&batch);
                Ok(mask.unwrap_or_else(|| BooleanArray::from(vec![true; rows])))
            })));
        }
        let selector = filter.selector.filter(|s| *s.expr() != Expr::Const(true));
        if let Some(selector) = selector.cloned() {
            let columns = selector.columns();
            let projection = self.projection(|name| columns.wants(name));
            predicates.push(Box::new(ArrowPredicateFn::new(projection, move |record| {
                Ok(selector.mask(&batch(kind, record)?))
            })));
        }
        RowFilter::new(predicates)
    }
}

fn batch(kind: SignalKind, record: RecordBatch) -> Result<Batch, ArrowError> {
    Batch::try_new(kind, record).map_err(|error| ArrowError::ExternalError(Box::new(error)))
}

impl RowReader for ParquetReader {
    fn schema(&self) -> SchemaRef {
        self.metadata.schema().clone()
    }

    fn read(&self, rows: &RowSet, want: Want<'_>, filter: Filter<'_>) -> Result<Batch, StoreError> {
        if rows.is_empty() {
            return Ok(Batch::empty(self.kind));
        }
        let (groups, selection) = self.select(rows);
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(
            self.file.clone(),
            self.metadata.clone(),
        )
        .with_row_groups(groups)
        .with_projection(self.projection(|name| want.wants(name)))
        .with_row_selection(selection)
        .with_row_filter(self.filters(filter))
        .with_batch_size(rows.len().clamp(1, 8192))
        .build()
        .map_err(|error| damaged(&self.file, &error))?;
        let schema = RecordBatchReader::schema(&reader);
        let records = reader.collect::<Result<Vec<_>, _>>().map_err(|error| match error {
            ArrowError::ExternalError(cause) => match cause.downcast::<ParquetError>() {
                Ok(error) => damaged(&self.file, &error),
                Err(cause) => StoreError::corrupt(self.file.path(), cause.to_string()),
            },
            other => StoreError::corrupt(self.file.path(), other.to_string()),
        })?;
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
