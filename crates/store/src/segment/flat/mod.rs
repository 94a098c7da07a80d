//! Pages of columns, read straight into Arrow arrays for just the rows that are wanted.
//!
//! The parquet crate makes a reader for each column of each read and decodes whole pages. A look-up
//! wants some twenty rows of ninety columns, most of which are null there. Here pages that lie near
//! each other are read at once, definition levels tell where the wanted rows' values are, only those
//! are decoded, dictionaries are kept, and a column that is null in all rows is left out. What is
//! encoded in a way that we do not write stays with the parquet crate.

mod chunk;
mod columns;
mod delta;
mod dictionary;
mod fetch;
mod head;
mod nested;
mod page;
mod runs;
mod sink;
#[cfg(test)]
mod tests;
mod values;

use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;

use ::parquet::file::metadata::ParquetMetaData;
use arrow::array::{ArrayRef, new_null_array};
use arrow::datatypes::Schema;
use arrow::error::ArrowError;

use super::blocks::BlockFile;
use super::pages::Context;
use crate::error::StoreError;
use crate::rows::RowSet;
use chunk::{Chunk, Group};
use columns::{Column, Leaf};
pub use dictionary::Dictionaries;
use dictionary::Dictionary;
use fetch::Fetched;
use page::{Layout, Levels, Scratch};
use sink::Sink;

/// Dictionaries of at most this many bytes are read along with the first pages.
const SMALL_DICTIONARY: u32 = 16 << 10;

/// Why a page was not read.
#[derive(Debug)]
pub enum Fault {
    /// The file could not be read, or is damaged.
    Store(StoreError),
    /// The page is not as it should be.
    Page(&'static str),
    /// Somebody else wrote it.
    Unsupported,
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<ArrowError> for Fault {
    fn from(_: ArrowError) -> Self {
        Self::Page("its values do not fit together")
    }
}

/// What was read of a column.
#[derive(Debug)]
pub enum Read {
    /// The rows.
    Array(ArrayRef),
    /// All rows are null.
    Null,
    /// Not for us.
    Unsupported,
}

/// The columns of a file.
pub struct Flat {
    columns: Vec<Option<Column>>,
    groups: Vec<Group>,
    dictionaries: Arc<Dictionaries>,
    number: u64,
}

impl Drop for Flat {
    fn drop(&mut self) {
        self.dictionaries.forget(self.number);
    }
}

/// Gives a dictionary.
type Ask<'a> = &'a mut dyn FnMut() -> Result<Arc<Dictionary>, Fault>;

/// A page that has wanted rows.
struct Page<'a> {
    bytes: &'a [u8],
    rows: usize,
    wanted: &'a [Range<usize>],
}

/// Rows of one group, counted from its first.
struct Asked<'a> {
    number: usize,
    group: &'a Group,
    ranges: Vec<Range<u32>>,
}

impl Flat {
    /// The columns of `schema`; `packed` tells which leaves are compressed.
    pub fn new(
        metadata: &ParquetMetaData,
        schema: &Schema,
        packed: &[bool],
        dictionaries: Arc<Dictionaries>,
    ) -> Self {
        let columns = columns::of(metadata.file_metadata().schema_descr(), schema, packed);
        let (mut groups, mut first) = (Vec::new(), 0u32);
        for (number, group) in metadata.row_groups().iter().enumerate() {
            let rows = u32::try_from(group.num_rows()).unwrap_or_default();
            let mut chunks = Vec::new();
            chunks.resize_with(packed.len(), || None);
            for leaf in columns.iter().flatten().flat_map(|column| &column.leaves) {
                chunks[leaf.number] = Chunk::new(metadata, number, leaf.number, rows);
            }
            groups.push(Group { first, rows, chunks });
            first = first.saturating_add(rows);
        }
        let number = dictionaries.number();
        Self { columns, groups, dictionaries, number }
    }

    fn asked(&self, rows: &RowSet) -> Vec<Asked<'_>> {
        let mut asked = Vec::new();
        for (number, group) in self.groups.iter().enumerate() {
            let all = group.first..group.first.saturating_add(group.rows);
            let inside = rows.and(&RowSet::range(all));
            if !inside.is_empty() {
                let relative = |r: &Range<u32>| r.start - group.first..r.end - group.first;
                let ranges = inside.ranges().iter().map(relative).collect();
                asked.push(Asked { number, group, ranges });
            }
        }
        asked
    }

    /// The columns `roots` of `rows`, in the order of `roots`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if the file is not as it was written.
    pub fn read(
        &self,
        file: &BlockFile,
        roots: &[usize],
        rows: &RowSet,
        context: Context,
    ) -> Result<Vec<Read>, StoreError> {
        let asked = self.asked(rows);
        let columns: Vec<Option<&Column>> =
            roots.iter().map(|root| self.columns.get(*root).and_then(Option::as_ref)).collect();
        let leaves = columns.iter().flatten().filter_map(|column| column.leaves.first());
        let fetched = Fetched::read(file, self.places(&asked, leaves))?;
        let mut scratch = Scratch::new(context);
        let read = columns.into_iter().map(|column| {
            let Some(column) = column else { return Ok(Read::Unsupported) };
            match self.column(column, &asked, &fetched, &mut scratch) {
                Ok(read) => Ok(read),
                Err((Fault::Unsupported, _)) => Ok(Read::Unsupported),
                Err((Fault::Store(error), _)) => Err(error),
                Err((Fault::Page(detail), at)) => {
                    let detail = format!("the page at {at} is not readable: {detail}");
                    Err(StoreError::corrupt(file.path(), detail))
                }
            }
        });
        read.collect()
    }

    /// Where the pages of `leaves` lie that have rows of `asked`, and small dictionaries.
    fn places<'a>(
        &self,
        asked: &[Asked<'_>],
        leaves: impl Iterator<Item = &'a Leaf> + Clone,
    ) -> Vec<(u64, usize)> {
        let mut places = Vec::new();
        for asked in asked {
            for leaf in leaves.clone() {
                let Some(chunk) = asked.group.chunks[leaf.number].as_ref() else { continue };
                let small = (1..=SMALL_DICTIONARY).contains(&chunk.dictionary);
                if small && self.dictionaries.get(self.key(asked.number, leaf)).is_none() {
                    let before = u64::from(chunk.dictionary);
                    places.push((chunk.start.saturating_sub(before), chunk.dictionary as usize));
                }
                let put = |page, _, _: &[Range<usize>]| {
                    places.push(chunk.place(page));
                    Ok::<(), Infallible>(())
                };
                let Ok(()) = chunk.pages(&asked.ranges, asked.group.rows, put);
            }
        }
        places
    }

    fn key(&self, group: usize, leaf: &Leaf) -> dictionary::Key {
        (self.number, group as u32, leaf.number as u32)
    }

    /// The rows `asked` of one column, or what is wrong with the page at the place given.
    fn column(
        &self,
        column: &Column,
        asked: &[Asked<'_>],
        fetched: &Fetched<'_>,
        scratch: &mut Scratch,
    ) -> Result<Read, (Fault, u64)> {
        let plain = |fault: Fault| (fault, 0);
        let [leaf] = column.leaves.as_slice() else {
            return self.nested(column, asked, fetched, scratch);
        };
        if leaf.layout.repetition > 0 {
            return self.nested(column, asked, fetched, scratch);
        }
        let mut sink = Sink::new(leaf.layout.shape, &leaf.data_type);
        self.leaf(leaf, asked, fetched, scratch, &mut |page, scratch, dictionary| {
            let Page { bytes, rows, wanted } = page;
            page::read(leaf.layout, bytes, rows, wanted, scratch, dictionary, &mut sink)
        })?;
        let array = sink.finish().map_err(plain)?;
        Ok(array.map_or(Read::Null, Read::Array))
    }

    /// A column of lists.
    fn nested(
        &self,
        column: &Column,
        asked: &[Asked<'_>],
        fetched: &Fetched<'_>,
        scratch: &mut Scratch,
    ) -> Result<Read, (Fault, u64)> {
        let plain = |fault: Fault| (fault, 0);
        let Some(first) = column.leaves.first() else { return Err(plain(Fault::Unsupported)) };
        let mut levels = Levels::default();
        self.leaf(first, asked, fetched, scratch, &mut |page, scratch, dictionary| {
            let Page { bytes, wanted, .. } = page;
            let levels = &mut levels;
            page::read_nested(first.layout, bytes, wanted, scratch, dictionary, levels, None)
        })?;
        // Above null is also an empty list.
        if column.nullable && levels.definitions.iter().all(|definition| *definition == 0) {
            return Ok(Read::Null);
        }
        let places = self.places(asked, column.leaves.iter());
        let all = Fetched::read(fetched.file(), places).map_err(|error| plain(error.into()))?;
        let mut leaves = Vec::with_capacity(column.leaves.len());
        for leaf in &column.leaves {
            let mut sink = Sink::new(leaf.layout.shape, &leaf.data_type);
            let mut levels = Levels::default();
            self.leaf(leaf, asked, &all, scratch, &mut |page, scratch, dictionary| {
                let Page { bytes, wanted, .. } = page;
                let (levels, sink) = (&mut levels, Some(&mut sink));
                page::read_nested(leaf.layout, bytes, wanted, scratch, dictionary, levels, sink)
            })?;
            let place = leaf.layout.place;
            let places = levels.definitions.iter().filter(|level| **level >= place).count();
            let array = sink.finish().map_err(plain)?;
            let array = array.unwrap_or_else(|| new_null_array(&leaf.data_type, places));
            leaves.push((levels, array));
        }
        let array = nested::assemble(&column.data_type, column.nullable, &leaves);
        array.map(Read::Array).map_err(plain)
    }

    /// Calls `each` with the pages of `leaf` that have rows of `asked`; it may ask for the
    /// dictionary.
    fn leaf(
        &self,
        leaf: &Leaf,
        asked: &[Asked<'_>],
        fetched: &Fetched<'_>,
        scratch: &mut Scratch,
        each: &mut dyn FnMut(Page<'_>, &mut Scratch, Ask<'_>) -> Result<(), Fault>,
    ) -> Result<(), (Fault, u64)> {
        let context = scratch.context();
        for asked in asked {
            let Some(chunk) = asked.group.chunks[leaf.number].as_ref() else {
                return Err((Fault::Unsupported, 0));
            };
            let key = self.key(asked.number, leaf);
            let mut known: Option<Arc<Dictionary>> = None;
            chunk.pages(&asked.ranges, asked.group.rows, |page, rows, wanted| {
                let (at, len) = chunk.place(page);
                let bytes = fetched.get(at, len).map_err(|error| (error.into(), at))?;
                let mut dictionary = || {
                    if let Some(known) = &known {
                        return Ok(Arc::clone(known));
                    }
                    let read = self.dictionary(key, leaf.layout, chunk, fetched, &context)?;
                    known = Some(Arc::clone(&read));
                    Ok(read)
                };
                let page = Page { bytes: &bytes, rows, wanted };
                each(page, scratch, &mut dictionary).map_err(|fault| (fault, at))
            })?;
        }
        Ok(())
    }

    fn dictionary(
        &self,
        key: dictionary::Key,
        layout: Layout,
        chunk: &Chunk,
        fetched: &Fetched<'_>,
        context: &Context,
    ) -> Result<Arc<Dictionary>, Fault> {
        if let Some(known) = self.dictionaries.get(key) {
            return Ok(known);
        }
        let len = u64::from(chunk.dictionary);
        let bytes = fetched.get(chunk.start.saturating_sub(len), len as usize)?;
        let read = Arc::new(page::dictionary(layout, &bytes, context)?);
        self.dictionaries.put(key, &read);
        Ok(read)
    }
}
