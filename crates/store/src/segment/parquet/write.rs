//! Writing.

use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::arrow::arrow_writer::{ArrowRowGroupWriterFactory, compute_leaves};
use ::parquet::basic::{Compression, Encoding, ZstdLevel};
use ::parquet::file::properties::{EnabledStatistics, WriterProperties};
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::types::ColumnPath;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use lacuna_signal::{SignalKind, schema};

use super::super::PAGE_ROWS;
use super::super::blocks::BlockWriter;
use super::super::cells::Cells;
use super::super::codec::RowWriter;
use super::chunk::{ChunkWriter, LEVEL};
use super::encode;
use crate::error::StoreError;
use crate::summary::Summary;

/// Rows in a page of a column that hardly any row has.
const SPARSE_PAGE_ROWS: usize = 8192;
/// A column that fewer than one in this many rows have is sparse.
const SPARSE: u64 = 64;

/// A file being written.
pub struct ParquetWriter {
    file: SerializedFileWriter<BlockWriter>,
    columns: ArrowRowGroupWriterFactory,
    chunks: ChunkWriter,
    schema: SchemaRef,
}

impl ParquetWriter {
    /// Begins a file; see [`super::super::codec::Codec::write`].
    pub fn new(
        kind: SignalKind,
        schema: SchemaRef,
        summary: &Summary,
        out: BlockWriter,
    ) -> Result<Self, StoreError> {
        let properties = properties(kind, &schema, summary)?;
        let writer = ArrowWriter::try_new(out, Arc::clone(&schema), Some(properties));
        let (file, columns) =
            writer.and_then(ArrowWriter::into_serialized_writer).map_err(encode)?;
        let chunks = ChunkWriter::new().map_err(encode)?;
        Ok(Self { file, columns, chunks, schema })
    }
}

impl RowWriter for ParquetWriter {
    fn append(
        &mut self,
        columns: &mut dyn Iterator<Item = Result<Cells, StoreError>>,
    ) -> Result<(), StoreError> {
        let number = self.file.flushed_row_groups().len();
        let mut writers = self.columns.create_column_writers(number).map_err(encode)?.into_iter();
        let leaves = self.file.schema_descr().columns().to_vec();
        let mut group = self.file.next_row_group().map_err(encode)?;
        let mut next = 0;
        for (field, cells) in self.schema.fields().iter().zip(columns) {
            match cells? {
                Cells::Coded(coded) => {
                    let Some(leaf) = leaves.get(next) else { break };
                    // Of a column that is not nested: it has one writer, which is not needed.
                    drop(writers.next());
                    next += 1;
                    let (bytes, close) = self.chunks.write(leaf, &coded).map_err(encode)?;
                    group.append_column(&bytes, close).map_err(encode)?;
                }
                Cells::Plain(array) => {
                    let parts = compute_leaves(field, &array).map_err(encode)?;
                    next += parts.len();
                    for (part, mut writer) in parts.iter().zip(&mut writers) {
                        writer.write(part).map_err(encode)?;
                        let chunk = writer.close().map_err(encode)?;
                        chunk.append_to_row_group(&mut group).map_err(encode)?;
                    }
                }
            }
        }
        group.close().map_err(encode)?;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(u64, Vec<u32>), StoreError> {
        // Writes the foot.
        let out = self.file.into_inner().map_err(encode)?;
        out.finish().map_err(|error| encode(error.into()))
    }
}

fn properties(
    kind: SignalKind,
    columns: &Schema,
    summary: &Summary,
) -> Result<WriterProperties, StoreError> {
    let zstd = ZstdLevel::try_new(LEVEL).map(Compression::ZSTD).map_err(encode)?;
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("lacuna ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(zstd)
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
        let whole = matches!(data_type, DataType::Int64);
        let delta = matches!(data_type, DataType::Timestamp(..)) || whole && fixed;
        // What repeats comes as codes.
        if !data_type.is_nested() {
            properties = properties.set_column_dictionary_enabled(path.clone(), false);
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
        let dense = delta || name == schema::SPAN_ID;
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
