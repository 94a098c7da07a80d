//! Pages of a Parquet file, decompressed with one zstd context for a whole read.
//!
//! The parquet crate makes a context for compressing and one for decompressing for each column of
//! each read. Looking up one trace reads a page of each of some ninety columns; the contexts took a
//! third of the time. So the crate is told that the columns are not compressed, and what it reads
//! is decompressed here.

use std::sync::Arc;

use ::parquet::arrow::arrow_reader::RowGroups;
use ::parquet::basic::{Compression, CompressionCodec};
use ::parquet::column::page::{Page, PageIterator, PageMetadata, PageReader};
use ::parquet::errors::{ParquetError, Result};
use ::parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use ::parquet::file::serialized_reader::SerializedPageReader;
use bytes::Bytes;
use parking_lot::Mutex;
use zstd::bulk::Decompressor;

use super::blocks::BlockFile;

/// A page of more bytes is not one that we wrote.
const MAX_PAGE: usize = 1 << 30;

/// A context for decompressing.
pub type Context = Arc<Mutex<Decompressor<'static>>>;

/// Contexts that nobody uses.
#[derive(Default)]
pub struct Contexts(Mutex<Vec<Context>>);

impl Contexts {
    /// A context, until [`Self::put`].
    pub fn take(&self) -> Result<Context> {
        if let Some(context) = self.0.lock().pop() {
            return Ok(context);
        }
        Ok(Arc::new(Mutex::new(Decompressor::new()?)))
    }

    /// Keeps `context` for the next read.
    pub fn put(&self, context: Context) {
        let mut free = self.0.lock();
        // More than as many at a time as there are processors would only be memory.
        if free.len() < 16 {
            free.push(context);
        }
    }
}

/// `metadata` with all columns said not to be compressed, and which of them are: the columns of
/// the first row group, then of the second.
pub fn as_plain(metadata: ParquetMetaData) -> Result<(ParquetMetaData, Vec<bool>)> {
    let mut builder = metadata.into_builder();
    let groups = builder.take_row_groups();
    let mut packed = Vec::new();
    let plain = |group: RowGroupMetaData| {
        let columns = group.columns().iter().map(|column| {
            packed.push(is_packed(column.compression_codec())?);
            column.clone().into_builder().set_compression(Compression::UNCOMPRESSED).build()
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        group.into_builder().set_column_metadata(columns).build()
    };
    let groups = groups.into_iter().map(plain).collect::<Result<Vec<_>>>()?;
    Ok((builder.set_row_groups(groups).build(), packed))
}

fn is_packed(compression: CompressionCodec) -> Result<bool> {
    match compression {
        CompressionCodec::UNCOMPRESSED => Ok(false),
        CompressionCodec::ZSTD => Ok(true),
        other => Err(ParquetError::General(format!("compression {other:?} is not ours"))),
    }
}

/// Row groups of a file, for one read.
pub struct Groups {
    /// The file.
    pub file: Arc<BlockFile>,
    /// From [`as_plain`].
    pub metadata: Arc<ParquetMetaData>,
    /// Which columns are compressed, of each row group.
    pub packed: Arc<[bool]>,
    /// Numbers of the row groups, ascending.
    pub numbers: Vec<usize>,
    /// What decompresses.
    pub context: Context,
}

impl RowGroups for Groups {
    fn num_rows(&self) -> usize {
        self.row_groups().map(|group| group.num_rows() as usize).sum()
    }

    fn column_chunks(&self, column: usize) -> Result<Box<dyn PageIterator>> {
        Ok(Box::new(Chunks {
            file: Arc::clone(&self.file),
            metadata: Arc::clone(&self.metadata),
            column,
            numbers: self.numbers.clone().into_iter(),
            packed: Arc::clone(&self.packed),
            context: Arc::clone(&self.context),
        }))
    }

    fn row_groups(&self) -> Box<dyn Iterator<Item = &RowGroupMetaData> + '_> {
        Box::new(self.numbers.iter().map(|number| self.metadata.row_group(*number)))
    }

    fn metadata(&self) -> &ParquetMetaData {
        &self.metadata
    }
}

struct Chunks {
    file: Arc<BlockFile>,
    metadata: Arc<ParquetMetaData>,
    column: usize,
    numbers: std::vec::IntoIter<usize>,
    packed: Arc<[bool]>,
    context: Context,
}

impl Iterator for Chunks {
    type Item = Result<Box<dyn PageReader>>;

    fn next(&mut self) -> Option<Self::Item> {
        let number = self.numbers.next()?;
        let group = self.metadata.row_group(number);
        let index = self.metadata.page_index_for_row_group(number);
        let pages = index.page_locations(self.column).cloned();
        let rows = group.num_rows() as usize;
        let file = Arc::clone(&self.file);
        let reader = SerializedPageReader::new(file, group.column(self.column), rows, pages);
        let packed = self.packed.get(number * group.num_columns() + self.column);
        let context = packed.is_some_and(|packed| *packed).then(|| Arc::clone(&self.context));
        Some(reader.map(|reader| match context {
            None => Box::new(reader) as Box<dyn PageReader>,
            Some(context) => Box::new(Unpacking { reader, context }),
        }))
    }
}

impl PageIterator for Chunks {}

struct Unpacking {
    reader: SerializedPageReader<BlockFile>,
    context: Context,
}

impl Unpacking {
    fn unpack(&self, page: Page) -> Result<Page> {
        Ok(match page {
            Page::DataPage {
                buf,
                num_values,
                encoding,
                def_level_encoding,
                rep_level_encoding,
                statistics,
            } => Page::DataPage {
                buf: self.bytes(&buf)?,
                num_values,
                encoding,
                def_level_encoding,
                rep_level_encoding,
                statistics,
            },
            Page::DictionaryPage { buf, num_values, encoding, is_sorted } => {
                Page::DictionaryPage { buf: self.bytes(&buf)?, num_values, encoding, is_sorted }
            }
            Page::DataPageV2 { .. } => {
                return Err(ParquetError::General("pages of version 2 are not ours".to_owned()));
            }
        })
    }

    fn bytes(&self, packed: &[u8]) -> Result<Bytes> {
        let size = zstd::zstd_safe::get_frame_content_size(packed).ok().flatten();
        let size = size.and_then(|size| usize::try_from(size).ok()).filter(|n| *n <= MAX_PAGE);
        let Some(size) = size else {
            return Err(ParquetError::General("a page does not tell its size".to_owned()));
        };
        Ok(Bytes::from(self.context.lock().decompress(packed, size)?))
    }
}

impl Iterator for Unpacking {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Unpacking {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        self.reader.get_next_page()?.map(|page| self.unpack(page)).transpose()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.reader.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.reader.skip_next_page()
    }

    fn supports_deferred_dictionary(&self) -> bool {
        self.reader.supports_deferred_dictionary()
    }

    fn take_deferred_dictionary(&mut self) -> Result<Option<Page>> {
        self.reader.take_deferred_dictionary()?.map(|page| self.unpack(page)).transpose()
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.reader.at_record_boundary()
    }
}
