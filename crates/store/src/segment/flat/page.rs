//! Pages: heads, levels and values, decoded for the wanted rows only.

use std::iter::repeat_n;
use std::ops::Range;
use std::sync::Arc;

use super::Fault;
use super::dictionary::Dictionary;
use super::head::{self, Head, Kind, encoding};
use super::runs::{Each, Validity};
use super::sink::{Shape, Sink};
use super::values::{self, Decoded, Stored};
use crate::segment::pages::Context;

/// zstd makes no more of a byte than this: a block of 128 KiB of one value takes 4 bytes.
const MOST_OF_A_BYTE: usize = 40_000;
/// A page of more bytes is not one that we wrote.
const MAX_PAGE: usize = 1 << 30;

/// Levels in a page; a page with more is not one that we wrote.
const MAX_LEVELS: usize = 1 << 24;

/// What a read reuses from page to page.
pub struct Scratch {
    context: Context,
    unpacked: Vec<u8>,
    validity: Validity,
    places: Vec<Range<usize>>,
    decoded: Decoded,
}

impl Scratch {
    /// Decompresses with `context`.
    pub fn new(context: Context) -> Self {
        Self {
            context,
            unpacked: Vec::new(),
            validity: Validity::default(),
            places: Vec::new(),
            decoded: Decoded::default(),
        }
    }

    /// What decompresses.
    pub fn context(&self) -> Context {
        Context::clone(&self.context)
    }
}

/// How a leaf column lies in its pages.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// The values.
    pub shape: Shape,
    /// Greatest repetition level: lists that it is in.
    pub repetition: u32,
    /// Greatest definition level: that of a value.
    pub definition: u32,
    /// Definition level of a place that may be null.
    pub place: u32,
    /// Whether pages are compressed.
    pub packed: bool,
}

/// The head of `page`, and what follows it, of the length that it tells.
fn open(page: &[u8]) -> Result<(Head, &[u8]), Fault> {
    let (head, rest) = head::take(page).ok_or(Fault::Page("its head is not readable"))?;
    let body = rest.get(..head.stored).ok_or(Fault::Page("it is cut off"))?;
    Ok((head, body))
}

/// Decompresses `body` to exactly `size` bytes.
fn unpack(context: &Context, body: &[u8], size: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
    if size > MAX_PAGE || size > body.len().saturating_mul(MOST_OF_A_BYTE) {
        return Err(Fault::Page("it tells an impossible size"));
    }
    out.clear();
    out.reserve_exact(size);
    let done = context.lock().decompress_to_buffer(body, out);
    match done {
        Ok(_) if out.len() == size => Ok(()),
        _ => Err(Fault::Page("it cannot be decompressed")),
    }
}

/// Reads a dictionary.
pub fn dictionary(layout: Layout, page: &[u8], context: &Context) -> Result<Dictionary, Fault> {
    let (head, body) = open(page)?;
    if head.kind != Kind::Dictionary {
        return Err(Fault::Page("it is no dictionary"));
    }
    if !matches!(head.encoding, encoding::PLAIN | encoding::PLAIN_DICTIONARY) {
        return Err(Fault::Unsupported);
    }
    let mut bytes = Vec::new();
    if layout.packed {
        unpack(context, body, head.unpacked, &mut bytes)?;
    } else {
        bytes.extend_from_slice(body);
    }
    let dictionary = Dictionary::decode(layout.shape, bytes, head.values);
    dictionary.ok_or(Fault::Page("its values are not readable"))
}

/// Appends the rows `wanted` of a page of `rows` rows to `sink`. `dictionary` is asked for the
/// column's dictionary if the page has codes of it.
pub fn read(
    layout: Layout,
    page: &[u8],
    rows: usize,
    wanted: &[Range<usize>],
    scratch: &mut Scratch,
    dictionary: impl FnOnce() -> Result<Arc<Dictionary>, Fault>,
    sink: &mut Sink<'_>,
) -> Result<(), Fault> {
    let (head, body) = open(page)?;
    if head.values != rows || wanted.last().is_some_and(|last| last.end > rows) {
        return Err(Fault::Page("it has other rows than the index says"));
    }
    let Scratch { context, unpacked, validity, places, decoded } = scratch;
    let Split { definitions, values, .. } = split(layout, head, body, context, unpacked)?;
    if layout.definition == 0 {
        validity.all(rows);
    } else {
        let read = validity.read(definitions, rows);
        read.ok_or(Fault::Page("its levels are not readable"))?;
    }
    validity.places(wanted, places);
    if places.is_empty() {
        sink.nulls(wanted.iter().map(Range::len).sum());
        return Ok(());
    }
    let page = Stored { shape: layout.shape, encoding: head.encoding, bytes: values };
    values::put(page, wanted, validity, places, decoded, dictionary, sink)
}

/// Levels of the wanted rows of a leaf in lists.
#[derive(Debug, Default)]
pub struct Levels {
    /// Repetition levels.
    pub repetitions: Vec<u32>,
    /// Definition levels.
    pub definitions: Vec<u32>,
}

/// Appends the levels of the rows `wanted` of a page of a leaf in lists to `levels`; and the places
/// for values in these rows to `sink`, if there is one.
pub fn read_nested(
    layout: Layout,
    page: &[u8],
    wanted: &[Range<usize>],
    scratch: &mut Scratch,
    dictionary: impl FnOnce() -> Result<Arc<Dictionary>, Fault>,
    levels: &mut Levels,
    sink: Option<&mut Sink<'_>>,
) -> Result<(), Fault> {
    let (head, body) = open(page)?;
    if head.values > MAX_LEVELS {
        return Err(Fault::Unsupported);
    }
    let Scratch { context, unpacked, validity, places, decoded } = scratch;
    let split = split(layout, head, body, context, unpacked)?;
    let mut definitions = Each::new(split.definitions, width(layout.definition));
    let mut repetitions = Each::new(split.repetitions, width(layout.repetition));
    validity.clear();
    places.clear();
    let (mut row, mut value, mut left) = (0, 0, head.values);
    let mut begun = false;
    let mut ranges = wanted.iter();
    let mut range = ranges.next();
    // Most rows have an empty list or none: long runs of one level, which are taken at once.
    while let (true, Some((repetition, same))) = (left > 0, repetitions.peek()) {
        const CUT: Fault = Fault::Page("its levels are cut off");
        let (definition, alike) = definitions.peek().ok_or(CUT)?;
        let new = repetition == 0;
        let count = if new { same.min(alike).min(left) } else { 1 };
        repetitions.skip(count);
        definitions.skip(count);
        left -= count;
        row += usize::from(begun && new);
        begun = true;
        let there = definition == layout.definition;
        let end = row + count;
        while range.is_some_and(|range| range.end <= row) {
            range = ranges.next();
        }
        if range.is_none() {
            break;
        }
        while let Some(some) = range.filter(|range| range.start < end) {
            let (from, to) = (some.start.max(row), some.end.min(end));
            levels.repetitions.extend(repeat_n(repetition, to - from));
            levels.definitions.extend(repeat_n(definition, to - from));
            if definition >= layout.place {
                (from..to).for_each(|_| validity.push(there));
            }
            if there {
                let (from, to) = (value + (from - row), value + (to - row));
                match places.last_mut() {
                    Some(last) if last.end == from => last.end = to,
                    _ => places.push(from..to),
                }
            }
            // The row may go on with the next item.
            if some.end >= end {
                break;
            }
            range = ranges.next();
        }
        value += if there { count } else { 0 };
        row = end - 1;
    }
    let rows = row + usize::from(begun);
    if wanted.last().is_some_and(|last| last.end > rows) {
        return Err(Fault::Page("it has fewer rows than the index says"));
    }
    let Some(sink) = sink else { return Ok(()) };
    let all = validity.finish();
    if places.is_empty() {
        sink.nulls(all);
        return Ok(());
    }
    let page = Stored { shape: layout.shape, encoding: head.encoding, bytes: split.values };
    let all = 0..all;
    let all = std::slice::from_ref(&all);
    values::put(page, all, validity, places, decoded, dictionary, sink)
}

/// Bits that numbers up to `greatest` take.
fn width(greatest: u32) -> usize {
    (u32::BITS - greatest.leading_zeros()) as usize
}

/// The parts of a page.
struct Split<'a> {
    repetitions: &'a [u8],
    definitions: &'a [u8],
    values: &'a [u8],
}

/// Takes a page apart.
fn split<'a>(
    layout: Layout,
    head: Head,
    body: &'a [u8],
    context: &Context,
    unpacked: &'a mut Vec<u8>,
) -> Result<Split<'a>, Fault> {
    const CUT: Fault = Fault::Page("its levels are cut off");
    match head.kind {
        Kind::Dictionary => Err(Fault::Page("it is a dictionary")),
        Kind::Data(definition, repetition) => {
            let mut bytes = body;
            if layout.packed {
                unpack(context, body, head.unpacked, unpacked)?;
                bytes = unpacked.as_slice();
            }
            let mut levels = |greatest: u32, encoding: u64| {
                if greatest == 0 {
                    return Ok(&[][..]);
                }
                if encoding != encoding::RLE {
                    return Err(Fault::Unsupported);
                }
                let (len, rest) = bytes.split_first_chunk::<4>().ok_or(CUT)?;
                let len = u32::from_le_bytes(*len) as usize;
                let (levels, rest) = rest.split_at_checked(len).ok_or(CUT)?;
                bytes = rest;
                Ok(levels)
            };
            let repetitions = levels(layout.repetition, repetition)?;
            let definitions = levels(layout.definition, definition)?;
            Ok(Split { repetitions, definitions, values: bytes })
        }
        Kind::DataV2 { repetition, definition, packed } => {
            let (repetitions, rest) = body.split_at_checked(repetition).ok_or(CUT)?;
            let (definitions, values) = rest.split_at_checked(definition).ok_or(CUT)?;
            let size =
                head.unpacked.checked_sub(repetition).and_then(|n| n.checked_sub(definition));
            let values = match size.ok_or(CUT)? {
                // There may be no frame at all where there is nothing.
                0 => &[],
                size if packed && layout.packed => {
                    unpack(context, values, size, unpacked)?;
                    unpacked.as_slice()
                }
                _ => values,
            };
            Ok(Split { repetitions, definitions, values })
        }
    }
}
