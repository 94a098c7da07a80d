//! Pages of flat columns, read straight into Arrow arrays for just the rows that are wanted.
//!
//! The parquet crate makes a reader for each column of each read and decodes whole pages. A look-up
//! wants some twenty rows of ninety columns, most of which are null there. Here pages that lie near
//! each other are read at once, definition levels tell where the wanted rows' values are, only those
//! are decoded, dictionaries are kept, and a column that is null in all rows is left out. What is
//! nested, or encoded in a way that we do not write, stays with the parquet crate.

mod chunk;
mod delta;
mod dictionary;
mod fetch;
mod head;
mod page;
mod runs;
mod sink;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use ::parquet::basic::Type;
use ::parquet::file::metadata::ParquetMetaData;
use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;

use super::blocks::BlockFile;
use super::pages::Context;
use crate::error::StoreError;
use crate::rows::RowSet;
use chunk::{Chunk, Group};
pub use dictionary::Dictionaries;
use dictionary::Dictionary;
use fetch::Fetched;
use page::{Layout, Levels, Scratch};
use sink::{Shape, Sink};

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
    fn from(error: ArrowError) -> Self {
        Self::Store(error.into())
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

/// A column.
#[derive(Debug)]
struct Column {
    /// Its number among the leaves of Parquet's schema; of a nested column, the first one's.
    leaf: usize,
    form: Form,
    data_type: DataType,
}

#[derive(Debug)]
enum Form {
    Flat(Layout),
    /// Only whether there is anything is found out.
    Nested(Levels),
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

/// Rows of one group, counted from its first.
struct Asked<'a> {
    number: usize,
    group: &'a Group,
    ranges: Vec<Range<u32>>,
}

impl Flat {
    /// The flat ones among the columns of `schema`; `packed` tells which leaves are compressed.
    pub fn new(
        metadata: &ParquetMetaData,
        schema: &Schema,
        packed: &[bool],
        dictionaries: Arc<Dictionaries>,
    ) -> Self {
        let described = metadata.file_metadata().schema_descr();
        let mut columns: Vec<Option<Column>> = Vec::new();
        columns.resize_with(schema.fields().len(), || None);
        for (leaf, column) in described.columns().iter().enumerate() {
            let root = described.get_column_root_idx(leaf);
            let Some(field) = schema.fields().get(root) else { continue };
            let packed = packed.get(leaf).is_some_and(|packed| *packed);
            let data_type = field.data_type().clone();
            let form = if data_type.is_nested() {
                let level = |level: i16| u32::try_from(level).unwrap_or_default();
                let (repetition, definition) = (column.max_rep_level(), column.max_def_level());
                // Without a level for it, a row that is null is not told from others.
                if columns[root].is_some() || !field.is_nullable() || repetition == 0 {
                    continue;
                }
                let (repetition, definition) = (level(repetition), level(definition));
                Form::Nested(Levels { repetition, definition, packed })
            } else {
                let Some(shape) = Shape::of(&data_type) else { continue };
                let width = usize::try_from(column.type_length()).unwrap_or_default();
                let double = data_type == DataType::Float64;
                let fits = match column.physical_type() {
                    Type::INT64 => shape == Shape::Words && !double,
                    Type::DOUBLE => double,
                    Type::INT32 => shape == Shape::Halves,
                    Type::BOOLEAN => shape == Shape::Flags,
                    Type::BYTE_ARRAY => matches!(shape, Shape::Text | Shape::Bytes),
                    Type::FIXED_LEN_BYTE_ARRAY => shape == Shape::Fixed(width),
                    _ => false,
                };
                if !fits || column.max_rep_level() > 0 || column.max_def_level() > 1 {
                    continue;
                }
                Form::Flat(Layout { shape, optional: column.max_def_level() == 1, packed })
            };
            columns[root] = Some(Column { leaf, form, data_type });
        }
        let (mut groups, mut first) = (Vec::new(), 0u32);
        for (number, group) in metadata.row_groups().iter().enumerate() {
            let rows = u32::try_from(group.num_rows()).unwrap_or_default();
            let mut chunks = Vec::new();
            chunks.resize_with(described.num_columns(), || None);
            for column in columns.iter().flatten() {
                chunks[column.leaf] = Chunk::new(metadata, number, column.leaf, rows);
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
        let mut places = Vec::new();
        for asked in &asked {
            for column in columns.iter().flatten() {
                let Some(chunk) = asked.group.chunks[column.leaf].as_ref() else { continue };
                let key = self.key(asked.number, column);
                let flat = matches!(column.form, Form::Flat(_));
                let small = flat && (1..=SMALL_DICTIONARY).contains(&chunk.dictionary);
                if small && self.dictionaries.get(key).is_none() {
                    let before = u64::from(chunk.dictionary);
                    places.push((chunk.start - before, chunk.dictionary as usize));
                }
                let mut next = 0;
                for range in &asked.ranges {
                    let last = chunk.page_of(range.end - 1);
                    for page in chunk.page_of(range.start).max(next)..=last {
                        places.push(chunk.place(page));
                    }
                    next = last + 1;
                }
            }
        }
        let fetched = Fetched::read(file, places)?;
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

    fn key(&self, group: usize, column: &Column) -> dictionary::Key {
        (self.number, group as u32, column.leaf as u32)
    }

    /// The rows `asked` of one column, or what is wrong with the page at the place given.
    fn column(
        &self,
        column: &Column,
        asked: &[Asked<'_>],
        fetched: &Fetched<'_>,
        scratch: &mut Scratch,
    ) -> Result<Read, (Fault, u64)> {
        let mut sink = match column.form {
            Form::Flat(layout) => Some((layout, Sink::new(layout.shape, &column.data_type))),
            Form::Nested(_) => None,
        };
        let context = scratch.context();
        let mut wanted: Vec<Range<usize>> = Vec::new();
        for asked in asked {
            let group = asked.group;
            let Some(chunk) = group.chunks[column.leaf].as_ref() else {
                return Err((Fault::Unsupported, 0));
            };
            let mut known: Option<Arc<Dictionary>> = None;
            let mut ranges = asked.ranges.iter().cloned();
            let mut left = ranges.next();
            while let Some(range) = &left {
                let page = chunk.page_of(range.start);
                let rows = chunk.rows_of(page, group.rows);
                wanted.clear();
                while let Some(range) = &mut left
                    && range.start < rows.end
                {
                    let end = range.end.min(rows.end);
                    wanted.push((range.start - rows.start) as usize..(end - rows.start) as usize);
                    range.start = end;
                    if range.start >= range.end {
                        left = ranges.next();
                    }
                }
                let (at, len) = chunk.place(page);
                let at_page = |fault: Fault| (fault, at);
                let bytes = fetched.get(at, len).map_err(|error| (error.into(), at))?;
                match (&mut sink, &column.form) {
                    (Some((layout, sink)), _) => {
                        let dictionary = || match &known {
                            Some(known) => Ok(Arc::clone(known)),
                            None => {
                                let layout = *layout;
                                let key = self.key(asked.number, column);
                                let read =
                                    self.dictionary(key, layout, chunk, fetched, &context)?;
                                known = Some(Arc::clone(&read));
                                Ok(read)
                            }
                        };
                        let rows = rows.len();
                        page::read(*layout, &bytes, rows, &wanted, scratch, dictionary, sink)
                            .map_err(at_page)?;
                    }
                    (None, Form::Nested(levels)) => {
                        let null = page::is_null(*levels, &bytes, &wanted, scratch);
                        if !null.map_err(at_page)? {
                            return Ok(Read::Unsupported);
                        }
                    }
                    (None, Form::Flat(_)) => return Err((Fault::Unsupported, at)),
                }
            }
        }
        let Some((_, sink)) = sink else { return Ok(Read::Null) };
        let array = sink.finish().map_err(|fault| (fault, 0))?;
        Ok(array.map_or(Read::Null, Read::Array))
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
