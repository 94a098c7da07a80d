//! From a value of a column to the pages that have it.
//!
//! All columns share one table. Its key is a hash of the column's name and the value's text, its
//! record the runs of pages. A table knows some 28 bits of a hash: about one look-up in three
//! hundred names a page too many, which then is read in vain.

use std::collections::BTreeMap;
use std::ops::Range;

use arrow::array::{Array, AsArray, ListArray, StringViewArray, StructArray};
use arrow::datatypes::{Float64Type, Int64Type};
use hashbrown::HashSet;
use lacuna_signal::Value;
use lacuna_signal::schema::{self, AttrType, parse_attribute_column};
use lacuna_signal::value::{AttributeList, any_element, base64, double_text};

use super::PAGE_ROWS;
use super::cells::Cells;
use super::table::{Builder, Built, Shape};
use crate::lookup::event_column;
use crate::rows::RowSet;
use crate::trace_index::mix;

/// Low bits of an entry that hold the page.
const PAGE_BITS: u32 = 20;
/// A double column that has more distinct values in a row group is not in the table: nobody looks a
/// measurement up, and there would be an entry for nearly each row. Integers may be ids.
const MAX_NUMBERS: usize = 4096;
/// A value on more than this share of the pages gets a record that says so and no list.
const EVERYWHERE: usize = 8;

/// A hash that is the same everywhere and always: part of the format.
pub fn text_hash(seed: u64, text: &[u8]) -> u64 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = seed ^ (text.len() as u64).wrapping_mul(K);
    let (words, rest) = text.as_chunks::<8>();
    for word in words {
        hash = (hash ^ u64::from_le_bytes(*word)).wrapping_mul(K).rotate_left(29);
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix((hash ^ u64::from_le_bytes(last)).wrapping_mul(K))
}

/// The table's key of `text` in `column`.
pub fn posting_hash(column: &str, text: &str) -> u64 {
    key(text_hash(0, column.as_bytes()), text.as_bytes())
}

fn key(column: u64, text: &[u8]) -> u64 {
    text_hash(column, text) >> PAGE_BITS << PAGE_BITS
}

/// Gathers the values of a segment's rows.
#[derive(Debug, Default)]
pub struct PostingsBuilder {
    entries: Vec<u64>,
    /// Those of columns of doubles; `None` if the column has too many values.
    numbers: BTreeMap<String, Option<Vec<u64>>>,
}

impl PostingsBuilder {
    /// Adds the cells of column `name`, the first of which is of row `base` of the segment.
    pub fn add(&mut self, name: &str, cells: &Cells, base: usize) {
        let mut entries = &mut self.entries;
        let ty = match parse_attribute_column(name) {
            Some((_, ty @ AttrType::Double, _)) => {
                let known = self.numbers.entry(name.to_owned());
                let known = known.or_insert_with(|| Some(Vec::new()));
                if known.is_some() && is_measurement(cells) {
                    *known = None;
                }
                let Some(known) = known else { return };
                entries = known;
                Some(ty)
            }
            Some((_, ty, _)) => Some(ty),
            None if [schema::NAME, schema::EVENT_NAME].contains(&name) => Some(AttrType::Str),
            None => None,
        };
        match (ty, cells) {
            (Some(ty), Cells::Coded(coded)) => {
                let mut keys = Keys { column: text_hash(0, name.as_bytes()), keys: Vec::new() };
                column_texts(coded.values.as_ref(), ty, &mut keys);
                code_pages(&coded.codes, &keys.keys, base, entries);
            }
            (Some(AttrType::Str | AttrType::Any), Cells::Plain(column)) => {
                let mut sink = Sink::new(text_hash(0, name.as_bytes()), base, entries);
                texts(column.as_string_view(), &mut sink);
            }
            (Some(ty), Cells::Plain(column)) => {
                let mut sink = Sink::new(text_hash(0, name.as_bytes()), base, entries);
                column_texts(column.as_ref(), ty, &mut sink);
            }
            (None, Cells::Plain(column)) if name == schema::EVENTS => {
                if let Some(lists) = column.as_list_opt() {
                    event_texts(lists, base, entries);
                }
            }
            (None, Cells::Plain(column)) if name == schema::OVERFLOW => {
                if let Some(lists) = column.as_list_opt() {
                    overflow_texts(lists, base, entries);
                }
            }
            (None, _) => {}
        }
    }

    /// The table of all that was added, and the columns that are not in it; `pages` is the number of
    /// the segment's pages.
    pub fn build(mut self, pages: usize) -> (Built, Vec<String>) {
        let mut unindexed = Vec::new();
        for (name, entries) in self.numbers {
            match entries {
                Some(entries) => self.entries.extend(entries),
                None => unindexed.push(name),
            }
        }
        self.entries.sort_unstable();
        self.entries.dedup();
        let groups = || self.entries.chunk_by(|a, b| a >> PAGE_BITS == b >> PAGE_BITS);
        let mut table = Builder::new(groups().count(), Shape::of_pages(pages as u32));
        let mut runs = Vec::new();
        for group in groups() {
            let Some(first) = group.first() else { continue };
            let numbers = group.iter().map(|entry| (entry & ((1 << PAGE_BITS) - 1)) as u32);
            page_runs(numbers, group.len(), pages, &mut runs);
            table.push(first >> PAGE_BITS << PAGE_BITS, &runs);
        }
        (table.finish(), unindexed)
    }
}

/// Whether a row group has too many numbers to be looked up by.
fn is_measurement(cells: &Cells) -> bool {
    let values = match cells {
        Cells::Coded(coded) => return coded.values.len() > MAX_NUMBERS,
        Cells::Plain(values) => values,
    };
    let doubles = values.as_primitive_opt::<Float64Type>();
    let bits = |at: usize| doubles.map_or(0, |numbers| numbers.value(at).to_bits());
    let mut known: HashSet<u64> = HashSet::new();
    (0..values.len()).filter(|at| values.is_valid(*at)).any(|at| {
        known.insert(bits(at));
        known.len() > MAX_NUMBERS
    })
}

/// Takes the texts of a column's values.
pub trait Texts {
    /// The value of `row` is `text`.
    fn put(&mut self, row: usize, text: &[u8]);
}

/// The keys of a dictionary's values.
struct Keys {
    column: u64,
    keys: Vec<u64>,
}

impl Texts for Keys {
    fn put(&mut self, _: usize, text: &[u8]) {
        self.keys.push(key(self.column, text));
    }
}

/// Adds an entry for each page and each code on it; code `n` is of `keys[n - 1]`.
fn code_pages(codes: &[u16], keys: &[u64], base: usize, entries: &mut Vec<u64>) {
    let mut last = vec![u32::MAX; keys.len() + 1];
    for (number, page) in codes.chunks(PAGE_ROWS as usize).enumerate() {
        let first = page.first().copied().unwrap_or(0);
        let page_number = page_of(base + number * PAGE_ROWS as usize);
        let mut put = |code: u16| {
            let code = usize::from(code);
            if code > 0 && last[code] != number as u32 {
                last[code] = number as u32;
                entries.push(keys[code - 1] | page_number);
            }
        };
        if page.iter().all(|code| *code == first) {
            put(first);
        } else {
            page.iter().for_each(|code| put(*code));
        }
    }
}

/// The low bits of an entry for `row` of the segment.
fn page_of(row: usize) -> u64 {
    (row as u64 / u64::from(PAGE_ROWS)) & ((1 << PAGE_BITS) - 1)
}

/// Where the values of one column go.
struct Sink<'a> {
    column: u64,
    base: usize,
    entries: &'a mut Vec<u64>,
    /// Entries seen lately, to drop most repetitions at once.
    seen: [u64; 64],
}

impl<'a> Sink<'a> {
    fn new(column: u64, base: usize, entries: &'a mut Vec<u64>) -> Self {
        Self { column, base, entries, seen: [u64::MAX; 64] }
    }

    fn page(&self, row: usize) -> u64 {
        page_of(self.base + row)
    }

    fn put_key(&mut self, row: usize, key: u64) {
        let entry = key | self.page(row);
        let slot = (entry >> PAGE_BITS) as usize & 63;
        if let Some(seen) = self.seen.get_mut(slot)
            && *seen != entry
        {
            *seen = entry;
            self.entries.push(entry);
        }
    }
}

impl Texts for Sink<'_> {
    fn put(&mut self, row: usize, text: &[u8]) {
        self.put_key(row, key(self.column, text));
    }
}

/// Gives the texts of the values of `column`, which are of type `ty`, to `sink`; nulls have none.
pub fn column_texts(column: &dyn Array, ty: AttrType, sink: &mut impl Texts) {
    let rows = (0..column.len()).filter(|row| column.is_valid(*row));
    match ty {
        AttrType::Str | AttrType::Any => {
            let texts = column.as_string_view();
            rows.for_each(|row| sink.put(row, texts.value(row).as_bytes()));
        }
        AttrType::Int => {
            let numbers = column.as_primitive::<Int64Type>();
            rows.for_each(|row| sink.put(row, numbers.value(row).to_string().as_bytes()));
        }
        AttrType::Double => {
            let numbers = column.as_primitive::<Float64Type>();
            rows.for_each(|row| sink.put(row, double_text(numbers.value(row)).as_bytes()));
        }
        AttrType::Bool => {
            let flags = column.as_boolean();
            rows.for_each(|row| sink.put(row, flags.value(row).to_string().as_bytes()));
        }
        AttrType::Bytes => {
            let bytes = column.as_binary_view();
            rows.for_each(|row| sink.put(row, base64(bytes.value(row)).as_bytes()));
        }
    }
}

/// Rows of one value mostly have one view, as it was kept once in memory or stood once in a page:
/// then neither is the text hashed again, nor even looked at on the same page.
fn texts(column: &StringViewArray, sink: &mut Sink<'_>) {
    const SLOTS: usize = 1024;
    let mut known: Vec<(u128, u64, u64)> = vec![(0, 0, u64::MAX); SLOTS];
    let nulls = column.nulls();
    for (row, view) in column.views().iter().enumerate() {
        if nulls.is_some_and(|nulls| nulls.is_null(row)) {
            continue;
        }
        let folded = *view as u64 ^ (*view >> 64) as u64;
        let slot = folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SLOTS.ilog2());
        let page = sink.page(row);
        let Some(slot) = known.get_mut(slot as usize) else { continue };
        let key = match slot {
            (seen, _, last) if seen == view && *last == page => continue,
            (seen, key, last) if seen == view && *last != u64::MAX => *key,
            _ => key(sink.column, column.value(row).as_bytes()),
        };
        *slot = (*view, key, page);
        sink.put_key(row, key);
    }
}

fn put_value(base: usize, row: usize, column: &str, value: Value<'_>, entries: &mut Vec<u64>) {
    let column = text_hash(0, column.as_bytes());
    Sink::new(column, base, entries).put(row, value.to_text().as_bytes());
}

fn event_texts(lists: &ListArray, base: usize, entries: &mut Vec<u64>) {
    let Some(events) = lists.values().as_struct_opt() else { return };
    let Some(attributes) = attributes_of(events) else { return };
    let offsets = lists.value_offsets();
    for row in (0..lists.len()).filter(|row| lists.is_valid(*row)) {
        for event in offsets[row] as usize..offsets[row + 1] as usize {
            let list = AttributeList::in_row(attributes, event);
            for (key, value) in list.iter().flat_map(AttributeList::iter) {
                let column = event_column(key);
                put_value(base, row, &column, value, entries);
                if let Value::Any(text) = value {
                    // An array is found by an element too.
                    any_element(text, |element| {
                        put_value(base, row, &column, *element, entries);
                        false
                    });
                }
            }
        }
    }
}

fn attributes_of(events: &StructArray) -> Option<&ListArray> {
    events.column_by_name("attributes")?.as_list_opt()
}

fn overflow_texts(lists: &ListArray, base: usize, entries: &mut Vec<u64>) {
    for row in 0..lists.len() {
        let list = AttributeList::in_row(lists, row);
        for (key, value) in list.iter().flat_map(AttributeList::iter) {
            // The key carries its scope as the name of a text column does. A selector also finds an
            // array by an element.
            if let Value::Any(text) = value {
                any_element(text, |element| {
                    put_value(base, row, key, *element, entries);
                    false
                });
            }
            put_value(base, row, key, value, entries);
        }
    }
}

/// Ascending page `numbers`, of which there are `count`, as runs; none if they are so many of all
/// `pages` that their list would not help.
fn page_runs(
    numbers: impl Iterator<Item = u32>,
    count: usize,
    pages: usize,
    runs: &mut Vec<Range<u32>>,
) {
    runs.clear();
    if count * EVERYWHERE > pages && pages > 4 * EVERYWHERE {
        return;
    }
    for page in numbers {
        match runs.last_mut() {
            Some(run) if run.end == page => run.end += 1,
            _ => runs.push(page..page + 1),
        }
    }
}

/// The rows of pages, of `rows` in all; without any run, all of them.
pub fn rows_of_pages(runs: &[Range<u32>], rows: u32) -> RowSet {
    if runs.is_empty() {
        return RowSet::range(0..rows);
    }
    let mut set = RowSet::default();
    for run in runs {
        let row = |page: u32| page.saturating_mul(PAGE_ROWS).min(rows);
        set.push(row(run.start)..row(run.end));
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hashes_never_change() {
        // Part of the format: files on disk depend on these.
        assert_eq!(text_hash(0, b""), 0);
        assert_eq!(text_hash(0, b"span.http.route"), text_hash(0, b"span.http.route"));
        assert_ne!(posting_hash("a", "bc"), posting_hash("ab", "c"));
    }

    proptest! {
        #[test]
        fn pages_read_back(pages in proptest::collection::btree_set(0u32..300, 1..40)) {
            let mut runs = Vec::new();
            page_runs(pages.iter().copied(), pages.len(), 1000, &mut runs);
            let set = rows_of_pages(&runs, 300 * PAGE_ROWS);
            let expected = RowSet::from_unsorted(pages.iter()
                .map(|p| *p * PAGE_ROWS..(*p + 1) * PAGE_ROWS).collect());
            prop_assert_eq!(set, expected);
        }
    }

    #[test]
    fn what_is_nearly_everywhere_has_no_list() {
        let mut runs = Vec::new();
        page_runs(0..100, 100, 300, &mut runs);
        assert!(runs.is_empty());
        assert_eq!(rows_of_pages(&runs, 7), RowSet::range(0..7));
        page_runs(0..32, 32, 32, &mut runs);
        let all = 0..32;
        assert_eq!(runs, std::slice::from_ref(&all));
    }
}
