//! The Parquet codec: plain files that DuckDB, Polars or ClickHouse open, with encodings chosen for
//! looking up single traces.
//!
//! Small pages (512 rows) keep a look-up from decoding what it does not need; dictionaries only
//! where few values repeat, since a look-up must read the dictionary whole; delta encoding for
//! times. `docs/format.md` lists it.

mod coded;
mod delta;
mod hybrid;
mod plain;
mod read;
mod sink;
#[cfg(test)]
mod tests;
mod values;
mod write;

use std::sync::Arc;

use ::parquet::errors::ParquetError;
use arrow::datatypes::SchemaRef;
use lacuna_signal::SignalKind;

use super::blocks::{BlockFile, BlockWriter};
use super::codec::{Codec, RowReader, RowWriter};
use super::flat::Dictionaries;
use super::pages::Contexts;
use crate::error::StoreError;
use read::ParquetReader;
pub use values::fixed;
use write::ParquetWriter;

/// Reads and writes Parquet.
#[derive(Default)]
pub struct ParquetCodec {
    contexts: Arc<Contexts>,
    dictionaries: Arc<Dictionaries>,
}

impl Codec for ParquetCodec {
    fn extension(&self) -> &'static str {
        "parquet"
    }

    fn write(&self, schema: SchemaRef, out: BlockWriter) -> Result<Box<dyn RowWriter>, StoreError> {
        Ok(Box::new(ParquetWriter::new(schema, out)?))
    }

    fn open(&self, kind: SignalKind, file: BlockFile) -> Result<Arc<dyn RowReader>, StoreError> {
        let (contexts, dictionaries) = (Arc::clone(&self.contexts), Arc::clone(&self.dictionaries));
        let reader = ParquetReader::open(kind, &file, contexts, dictionaries);
        Ok(Arc::new(reader.map_err(|error| damaged(&file, &error))?))
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
