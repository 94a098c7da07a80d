//! Where pages lie: what the offset index says, in a sixth of the memory.

use std::ops::Range;

use ::parquet::file::metadata::ParquetMetaData;

/// Where the pages of a column lie in a row group.
#[derive(Debug)]
pub struct Chunk {
    /// Where the first page begins.
    pub start: u64,
    /// Where each page ends, from there on.
    ends: Box<[u32]>,
    starts: Starts,
    /// Bytes of the dictionary, which lies before the first page; 0 if there is none.
    pub dictionary: u32,
}

/// The first row of each page.
#[derive(Debug)]
enum Starts {
    /// All pages have so many, but for the last.
    Every(u32),
    At(Box<[u32]>),
}

impl Chunk {
    /// Column `leaf` in `group` of `rows` rows. `None` if it is not as we write it.
    pub fn new(metadata: &ParquetMetaData, group: usize, leaf: usize, rows: u32) -> Option<Self> {
        let index = metadata.page_index_for_row_group(group);
        let pages = index.page_locations(leaf)?;
        let start = u64::try_from(pages.first()?.offset).ok()?;
        let (from, _) = metadata.row_group(group).column(leaf).byte_range();
        let (mut ends, mut firsts, mut end) = (Vec::new(), Vec::new(), 0u32);
        for page in pages {
            if u64::try_from(page.offset).ok()? != start + u64::from(end) {
                return None;
            }
            end = end.checked_add(u32::try_from(page.compressed_page_size).ok()?)?;
            ends.push(end);
            firsts.push(u32::try_from(page.first_row_index).ok()?);
        }
        let every = firsts.get(1).copied().unwrap_or(rows).max(1);
        let regular = |(i, first): (usize, &u32)| u64::from(*first) == i as u64 * u64::from(every);
        let rising = firsts.first() == Some(&0) && firsts.windows(2).all(|two| two[0] < two[1]);
        if !rising || firsts.last().is_some_and(|last| *last >= rows) {
            return None;
        }
        let last = u64::from(every) * firsts.len() as u64 >= u64::from(rows);
        let starts = if last && firsts.iter().enumerate().all(regular) {
            Starts::Every(every)
        } else {
            Starts::At(firsts.into())
        };
        let dictionary = u32::try_from(start.checked_sub(from)?).ok()?;
        Some(Self { start, ends: ends.into(), starts, dictionary })
    }

    /// The page that has `row`.
    fn page_of(&self, row: u32) -> usize {
        match &self.starts {
            Starts::Every(rows) => (row / rows) as usize,
            Starts::At(starts) => starts.partition_point(|first| *first <= row).saturating_sub(1),
        }
    }

    /// The rows of `page`, in a group of `rows`.
    fn rows_of(&self, page: usize, rows: u32) -> Range<u32> {
        let first = |page: usize| match &self.starts {
            Starts::Every(every) => (page as u32).saturating_mul(*every).min(rows),
            Starts::At(starts) => starts.get(page).copied().unwrap_or(rows),
        };
        first(page)..first(page + 1)
    }

    /// Calls `each` with every page that has any of the rows `asked` (of a group of `rows` rows), how
    /// many rows it has, and which of them are asked for.
    pub fn pages<E>(
        &self,
        asked: &[Range<u32>],
        rows: u32,
        mut each: impl FnMut(usize, usize, &[Range<usize>]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut wanted: Vec<Range<usize>> = Vec::new();
        let mut ranges = asked.iter().cloned();
        let mut left = ranges.next();
        while let Some(range) = &left {
            let page = self.page_of(range.start);
            let rows = self.rows_of(page, rows);
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
            each(page, rows.len(), &wanted)?;
        }
        Ok(())
    }

    /// Where `page` lies: the first byte, and how many.
    pub fn place(&self, page: usize) -> (u64, usize) {
        let end = |page: usize| self.ends.get(page).copied().unwrap_or_default();
        let from = page.checked_sub(1).map_or(0, end);
        (self.start + u64::from(from), (end(page).saturating_sub(from)) as usize)
    }
}

/// A row group.
#[derive(Debug)]
pub struct Group {
    /// Its first row in the file.
    pub first: u32,
    /// Number of rows.
    pub rows: u32,
    /// By leaf of a column.
    pub chunks: Vec<Option<Chunk>>,
}
