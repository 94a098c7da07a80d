//! Pages: heads, levels and values, decoded for the wanted rows only.

use std::ops::Range;
use std::sync::Arc;

use super::Fault;
use super::delta;
use super::dictionary::{Dictionary, Values, take_bytes};
use super::head::{self, Head, Kind, encoding};
use super::runs::{self, Each, Validity};
use super::sink::{Found, Shape, Sink};
use crate::segment::pages::Context;

/// zstd makes no more of a byte than this: a block of 128 KiB of one value takes 4 bytes.
const MOST_OF_A_BYTE: usize = 40_000;
/// A page of more bytes is not one that we wrote.
const MAX_PAGE: usize = 1 << 30;

/// What a read reuses from page to page.
pub struct Scratch {
    context: Context,
    unpacked: Vec<u8>,
    validity: Validity,
    places: Vec<Range<usize>>,
    codes: Vec<u32>,
    words: Vec<i64>,
    halves: Vec<i32>,
    bytes: Vec<u8>,
    texts: Vec<Range<usize>>,
}

impl Scratch {
    /// Decompresses with `context`.
    pub fn new(context: Context) -> Self {
        Self {
            context,
            unpacked: Vec::new(),
            validity: Validity::default(),
            places: Vec::new(),
            codes: Vec::new(),
            words: Vec::new(),
            halves: Vec::new(),
            bytes: Vec::new(),
            texts: Vec::new(),
        }
    }

    /// What decompresses.
    pub fn context(&self) -> Context {
        Context::clone(&self.context)
    }
}

/// How the values of a column lie in its pages.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// The values.
    pub shape: Shape,
    /// Whether a row may have none.
    pub optional: bool,
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
    let (levels, values) = split(layout, head, body, &scratch.context, &mut scratch.unpacked)?;
    let validity = &mut scratch.validity;
    match levels {
        None => validity.all(rows),
        Some(levels) => {
            let read = validity.read(levels, rows);
            read.ok_or(Fault::Page("its levels are not readable"))?;
        }
    }
    validity.places(wanted, &mut scratch.places);
    if scratch.places.is_empty() {
        sink.nulls(wanted.iter().map(Range::len).sum());
        return Ok(());
    }
    const UNREADABLE: Fault = Fault::Page("its values are not readable");
    let places = scratch.places.as_slice();
    scratch.codes.clear();
    scratch.words.clear();
    scratch.halves.clear();
    scratch.bytes.clear();
    scratch.texts.clear();
    let dictionary = match head.encoding {
        encoding::RLE_DICTIONARY | encoding::PLAIN_DICTIONARY => {
            let (width, codes) = values.split_first().ok_or(UNREADABLE)?;
            let read = runs::pick(codes, usize::from(*width), places, &mut scratch.codes);
            read.ok_or(UNREADABLE)?;
            let dictionary = dictionary()?;
            let len = dictionary.len();
            if scratch.codes.iter().any(|code| *code as usize >= len) {
                return Err(Fault::Page("it has a code that its dictionary lacks"));
            }
            Some(dictionary)
        }
        _ => None,
    };
    let codes = scratch.codes.iter().map(|code| *code as usize);
    let found = match (&dictionary, head.encoding, layout.shape) {
        (Some(dictionary), ..) => match &dictionary.values {
            Values::Views(_) => Found::Codes(&scratch.codes, dictionary),
            Values::Words(words) => {
                scratch.words.extend(codes.map(|code| words[code]));
                Found::Words(&scratch.words)
            }
            Values::Halves(halves) => {
                scratch.halves.extend(codes.map(|code| halves[code]));
                Found::Halves(&scratch.halves)
            }
            Values::Fixed(bytes, width) => {
                codes.for_each(|code| {
                    scratch.bytes.extend_from_slice(&bytes[code * width..(code + 1) * width]);
                });
                Found::Fixed(&scratch.bytes)
            }
        },
        (_, encoding::PLAIN, Shape::Words) => {
            let words = values.as_chunks::<8>().0;
            for at in places {
                let words = words.get(at.clone()).ok_or(UNREADABLE)?;
                scratch.words.extend(words.iter().map(|word| i64::from_le_bytes(*word)));
            }
            Found::Words(&scratch.words)
        }
        (_, encoding::PLAIN, Shape::Halves) => {
            let halves = values.as_chunks::<4>().0;
            for at in places {
                let halves = halves.get(at.clone()).ok_or(UNREADABLE)?;
                scratch.halves.extend(halves.iter().map(|half| i32::from_le_bytes(*half)));
            }
            Found::Halves(&scratch.halves)
        }
        (_, encoding::PLAIN, Shape::Fixed(width)) => {
            for at in places {
                let bytes = values.get(at.start * width..at.end * width).ok_or(UNREADABLE)?;
                scratch.bytes.extend_from_slice(bytes);
            }
            Found::Fixed(&scratch.bytes)
        }
        (_, encoding::PLAIN, Shape::Flags) => {
            for place in places.iter().cloned().flatten() {
                let byte = values.get(place / 8).ok_or(UNREADABLE)?;
                scratch.codes.push(u32::from(byte >> (place % 8) & 1));
            }
            Found::Flags(&scratch.codes)
        }
        (_, encoding::PLAIN, Shape::Text | Shape::Bytes) => {
            texts(values, places, &mut scratch.texts).ok_or(UNREADABLE)?;
            Found::Plain(values, &scratch.texts)
        }
        (_, encoding::RLE, Shape::Flags) => {
            let (_, flags) = values.split_first_chunk::<4>().ok_or(UNREADABLE)?;
            runs::pick(flags, 1, places, &mut scratch.codes).ok_or(UNREADABLE)?;
            Found::Flags(&scratch.codes)
        }
        (_, encoding::DELTA_BINARY_PACKED, Shape::Words) => {
            delta::pick(values, places, &mut scratch.words).ok_or(UNREADABLE)?;
            Found::Words(&scratch.words)
        }
        (_, encoding::DELTA_BINARY_PACKED, Shape::Halves) => {
            delta::pick(values, places, &mut scratch.words).ok_or(UNREADABLE)?;
            scratch.halves.extend(scratch.words.iter().map(|word| *word as i32));
            Found::Halves(&scratch.halves)
        }
        _ => return Err(Fault::Unsupported),
    };
    sink.page(wanted, &scratch.validity, &found)
}

/// The definition levels of a page, if it has any, and its values.
fn split<'a>(
    layout: Layout,
    head: Head,
    body: &'a [u8],
    context: &Context,
    unpacked: &'a mut Vec<u8>,
) -> Result<(Option<&'a [u8]>, &'a [u8]), Fault> {
    const CUT: Fault = Fault::Page("its levels are cut off");
    match head.kind {
        Kind::Dictionary => Err(Fault::Page("it is a dictionary")),
        Kind::Data(levels, _) => {
            let bytes = if layout.packed {
                unpack(context, body, head.unpacked, unpacked)?;
                unpacked.as_slice()
            } else {
                body
            };
            if !layout.optional {
                return Ok((None, bytes));
            }
            if levels != encoding::RLE {
                return Err(Fault::Unsupported);
            }
            let (len, rest) = bytes.split_first_chunk::<4>().ok_or(CUT)?;
            let len = u32::from_le_bytes(*len) as usize;
            let (levels, values) = rest.split_at_checked(len).ok_or(CUT)?;
            Ok((Some(levels), values))
        }
        Kind::DataV2 { repetition, definition, packed } => {
            let rest = body.get(repetition..).ok_or(CUT)?;
            let (levels, values) = rest.split_at_checked(definition).ok_or(CUT)?;
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
            Ok((layout.optional.then_some(levels), values))
        }
    }
}

/// How the levels of a nested column's leaf lie in its pages.
#[derive(Debug, Clone, Copy)]
pub struct Levels {
    /// Greatest repetition level.
    pub repetition: u32,
    /// Greatest definition level.
    pub definition: u32,
    /// Whether pages are compressed.
    pub packed: bool,
}

/// Whether the rows `wanted` of a nested column are all null, by a page of its first leaf.
pub fn is_null(
    levels: Levels,
    page: &[u8],
    wanted: &[Range<usize>],
    scratch: &mut Scratch,
) -> Result<bool, Fault> {
    const CUT: Fault = Fault::Page("its levels are cut off");
    let (head, body) = open(page)?;
    let Kind::Data(encoding::RLE, encoding::RLE) = head.kind else {
        return Err(Fault::Unsupported);
    };
    let mut bytes = body;
    if levels.packed {
        unpack(&scratch.context, body, head.unpacked, &mut scratch.unpacked)?;
        bytes = &scratch.unpacked;
    }
    let mut take = |greatest: u32| {
        let (len, rest) = bytes.split_first_chunk::<4>()?;
        let (levels, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        bytes = rest;
        Some(Each::new(levels, greatest.checked_ilog2().map_or(0, |bits| bits as usize + 1)))
    };
    let repetitions = take(levels.repetition).ok_or(CUT)?;
    let mut definitions = take(levels.definition).ok_or(CUT)?;
    let mut wanted = wanted.iter();
    let mut range = wanted.next();
    let mut rows = 0usize;
    for repetition in repetitions.take(head.values) {
        rows += usize::from(repetition == 0);
        let row = rows.checked_sub(1).ok_or(CUT)?;
        let definition = definitions.next().ok_or(CUT)?;
        while range.is_some_and(|range| range.end <= row) {
            range = wanted.next();
        }
        match range {
            None => return Ok(true),
            Some(range) if range.start <= row && definition > 0 => return Ok(false),
            Some(_) => {}
        }
    }
    // The last of the rows may be at the page's end.
    if range.is_none_or(|range| range.end <= rows) && wanted.next().is_none() {
        return Ok(true);
    }
    Err(Fault::Page("it has fewer rows than the index says"))
}

/// Where the values at `places` lie in `page`, in which each has its length before it.
fn texts(page: &[u8], places: &[Range<usize>], out: &mut Vec<Range<usize>>) -> Option<()> {
    let (mut rest, mut at) = (page, 0);
    for range in places {
        while at < range.end {
            let value = take_bytes(&mut rest)?;
            let end = page.len() - rest.len();
            if at >= range.start {
                out.push(end - value.len()..end);
            }
            at += 1;
        }
    }
    Some(())
}
