//! Writing.

use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::arrow::arrow_writer::{ArrowRowGroupWriterFactory, compute_leaves};
use ::parquet::basic::{Compression, CompressionCodec, ZstdLevel};
use ::parquet::file::properties::{EnabledStatistics, WriterProperties};
use ::parquet::file::writer::SerializedFileWriter;
use arrow::datatypes::SchemaRef;

use super::super::blocks::BlockWriter;
use super::super::cells::Cells;
use super::super::codec::RowWriter;
use super::super::{GROUP_ROWS, PAGE_ROWS};
use super::coded::{self, CodedWriter};
use super::encode;
use super::plain::{self, PlainWriter};
use super::sink::{LEVEL, Zstd};
use crate::error::StoreError;

/// Rows in a page of a column of lists, which few rows have.
const NESTED_PAGE_ROWS: usize = 4096;

/// Values that tell how a column is best laid down.
const FEW_VALUES: usize = 8192;

/// A file being written.
pub struct ParquetWriter {
    file: SerializedFileWriter<BlockWriter>,
    columns: ArrowRowGroupWriterFactory,
    schema: SchemaRef,
    zstd: Zstd,
    coded: CodedWriter,
    plain: PlainWriter,
    laid: Vec<Laid>,
}

/// How a column was laid down last.
#[derive(Clone, Copy, Default)]
struct Laid {
    coded: Option<coded::Mode>,
    plain: Option<plain::Mode>,
    /// Whether it is compressed: in all row groups, or in none.
    zstd: Option<bool>,
}

impl Laid {
    /// Whether the next `rows` rows, of which `values` have a value, must be compressed.
    fn compress(&self, rows: usize, values: usize) -> Option<bool> {
        // Few values tell little about those in row groups to come.
        let early = rows >= GROUP_ROWS && values < FEW_VALUES;
        self.zstd.or(early.then_some(true))
    }
}

impl ParquetWriter {
    /// Begins a file with columns `schema`.
    pub fn new(schema: SchemaRef, out: BlockWriter) -> Result<Self, StoreError> {
        let properties = properties()?;
        let writer = ArrowWriter::try_new(out, Arc::clone(&schema), Some(properties));
        let (file, columns) =
            writer.and_then(ArrowWriter::into_serialized_writer).map_err(encode)?;
        let zstd = Zstd::new().map_err(encode)?;
        let laid = vec![Laid::default(); schema.fields().len()];
        let (coded, plain) = (CodedWriter::default(), PlainWriter::default());
        Ok(Self { file, columns, schema, zstd, coded, plain, laid })
    }
}

impl RowWriter for ParquetWriter {
    fn append(
        &mut self,
        columns: &mut dyn Iterator<Item = Result<Cells, StoreError>>,
    ) -> Result<(), StoreError> {
        let Self { file, columns: factory, schema, zstd, coded, plain, laid } = self;
        let number = file.flushed_row_groups().len();
        let mut writers = factory.create_column_writers(number).map_err(encode)?.into_iter();
        let leaves = file.schema_descr().columns().to_vec();
        let mut group = file.next_row_group().map_err(encode)?;
        let mut next = 0;
        for ((field, cells), laid) in schema.fields().iter().zip(columns).zip(laid) {
            let Some(leaf) = leaves.get(next) else { break };
            let (bytes, close) = match cells? {
                Cells::Coded(cells) => {
                    let values = cells.codes.iter().filter(|code| **code != 0).count();
                    let compress = laid.compress(cells.codes.len(), values);
                    coded.write(leaf, &cells, zstd, &mut laid.coded, compress).map_err(encode)?
                }
                Cells::Plain(array) if plain::writes(field.data_type()) => {
                    let compress = laid.compress(array.len(), array.len() - array.null_count());
                    let array = array.as_ref();
                    plain.write(leaf, array, zstd, &mut laid.plain, compress).map_err(encode)?
                }
                Cells::Plain(array) => {
                    let parts = compute_leaves(field, &array).map_err(encode)?;
                    next += parts.len();
                    for (part, mut writer) in parts.iter().zip(&mut writers) {
                        writer.write(part).map_err(encode)?;
                        let chunk = writer.close().map_err(encode)?;
                        chunk.append_to_row_group(&mut group).map_err(encode)?;
                    }
                    continue;
                }
            };
            // The crate's writer of this column is not needed.
            drop(writers.next());
            next += 1;
            laid.zstd = Some(close.metadata.compression_codec() == CompressionCodec::ZSTD);
            group.append_column(&bytes, close).map_err(encode)?;
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

/// For what is not laid down here: nested columns.
fn properties() -> Result<WriterProperties, StoreError> {
    let zstd = ZstdLevel::try_new(LEVEL).map(Compression::ZSTD).map_err(encode)?;
    let properties = WriterProperties::builder()
        .set_created_by(concat!("lacuna ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(zstd)
        .set_data_page_row_count_limit(NESTED_PAGE_ROWS)
        .set_write_batch_size(PAGE_ROWS as usize)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_dictionary_enabled(true);
    Ok(properties.build())
}
