//! Pages of one column chunk, put together.

use ::parquet::basic::{Compression, Encoding, PageType, ZstdLevel};
use ::parquet::column::page::{CompressedPage, Page, PageWriter};
use ::parquet::column::writer::ColumnCloseResult;
use ::parquet::errors::Result;
use ::parquet::file::metadata::{ColumnChunkMetaData, PageEncodingStats};
use ::parquet::file::page_index::offset_index::{OffsetIndexMetaData, PageLocation};
use ::parquet::file::statistics::Statistics;
use ::parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use ::parquet::schema::types::ColumnDescPtr;
use bytes::Bytes;
use zstd::bulk::Compressor;

/// zstd's level.
pub const LEVEL: i32 = 1;

/// Compresses pages, with one context for all.
pub struct Zstd {
    compressor: Compressor<'static>,
    packed: Vec<u8>,
}

impl Zstd {
    /// With a context of its own.
    pub fn new() -> Result<Self> {
        Ok(Self { compressor: Compressor::new(LEVEL)?, packed: Vec::new() })
    }

    /// `bytes` compressed.
    pub fn pack(&mut self, bytes: &[u8]) -> Result<&[u8]> {
        self.packed.clear();
        self.packed.reserve(zstd::zstd_safe::compress_bound(bytes.len()));
        self.compressor.compress_to_buffer(bytes, &mut self.packed)?;
        Ok(&self.packed)
    }
}

/// The bytes of a column chunk, and what the file's foot says about it; places count from the
/// chunk's beginning.
pub type Chunk = (Bytes, ColumnCloseResult);

/// A column chunk being put together.
pub struct ChunkSink<'z> {
    sink: TrackedWrite<Vec<u8>>,
    /// Compresses pages, if they are.
    zstd: Option<&'z mut Zstd>,
    unpacked: usize,
    dictionary: Option<u64>,
    encoding: Encoding,
    rows: usize,
    locations: Vec<PageLocation>,
}

impl<'z> ChunkSink<'z> {
    /// Of pages whose values are laid down by `encoding`.
    pub fn new(encoding: Encoding, zstd: Option<&'z mut Zstd>) -> Self {
        let sink = TrackedWrite::new(Vec::new());
        let locations = Vec::new();
        Self { sink, zstd, unpacked: 0, dictionary: None, encoding, rows: 0, locations }
    }

    fn put(&mut self, bytes: &[u8], page: impl FnOnce(Bytes) -> Page) -> Result<u64> {
        let packed = match &mut self.zstd {
            Some(zstd) => zstd.pack(bytes)?,
            None => bytes,
        };
        let page = CompressedPage::new(page(Bytes::copy_from_slice(packed)), bytes.len());
        let spec = SerializedPageWriter::new(&mut self.sink).write_page(page)?;
        self.unpacked += spec.uncompressed_size;
        Ok(spec.bytes_written)
    }

    /// The dictionary's page, which is the first.
    pub fn dictionary(&mut self, bytes: &[u8], values: usize) -> Result<()> {
        let (num_values, encoding) = (values as u32, Encoding::PLAIN);
        let page = |buf| Page::DictionaryPage { buf, num_values, encoding, is_sorted: false };
        self.dictionary = Some(self.put(bytes, page)?);
        Ok(())
    }

    /// A page of the next `rows` rows: levels and values.
    pub fn page(&mut self, body: &[u8], rows: usize) -> Result<()> {
        let offset = self.sink.bytes_written() as i64;
        let encoding = self.encoding;
        let written = self.put(body, |buf| Page::DataPage {
            buf,
            num_values: rows as u32,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        })?;
        self.locations.push(PageLocation {
            offset,
            compressed_page_size: written as i32,
            first_row_index: self.rows as i64,
        });
        self.rows += rows;
        Ok(())
    }

    /// The chunk.
    pub fn finish(self, column: &ColumnDescPtr, bounds: Option<Statistics>) -> Result<Chunk> {
        let compression = match self.zstd {
            Some(_) => Compression::ZSTD(ZstdLevel::try_new(LEVEL)?),
            None => Compression::UNCOMPRESSED,
        };
        let stats = |page_type, encoding, count| PageEncodingStats { page_type, encoding, count };
        let pages = self.locations.len() as i32;
        let mut counts = vec![stats(PageType::DATA_PAGE, self.encoding, pages)];
        let mut encodings = vec![Encoding::RLE, self.encoding];
        if self.dictionary.is_some() {
            counts.insert(0, stats(PageType::DICTIONARY_PAGE, Encoding::PLAIN, 1));
            encodings.push(Encoding::PLAIN);
        }
        let bytes = Bytes::from(self.sink.into_inner()?);
        let mut metadata = ColumnChunkMetaData::builder(column.clone())
            .set_compression(compression)
            .set_encodings(encodings)
            .set_page_encoding_stats(counts)
            .set_num_values(self.rows as i64)
            .set_total_compressed_size(bytes.len() as i64)
            .set_total_uncompressed_size(self.unpacked as i64)
            .set_dictionary_page_offset(self.dictionary.map(|_| 0))
            .set_data_page_offset(self.dictionary.unwrap_or(0) as i64);
        if let Some(bounds) = bounds {
            metadata = metadata.set_statistics(bounds);
        }
        let close = ColumnCloseResult {
            bytes_written: bytes.len() as u64,
            rows_written: self.rows as u64,
            metadata: metadata.build()?,
            bloom_filter: None,
            column_index: None,
            offset_index: Some(OffsetIndexMetaData {
                page_locations: self.locations,
                unencoded_byte_array_data_bytes: None,
            }),
        };
        Ok((bytes, close))
    }
}
