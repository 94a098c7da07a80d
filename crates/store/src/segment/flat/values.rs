//! The values of a page, decoded where they are wanted.

use std::ops::Range;
use std::sync::Arc;

use super::Fault;
use super::delta;
use super::dictionary::{Dictionary, Values as Known, take_bytes};
use super::head::encoding;
use super::runs::{self, Validity};
use super::sink::{Found, Shape, Sink};

/// What is decoded of a page, in memory that the next page reuses.
#[derive(Debug, Default)]
pub struct Decoded {
    codes: Vec<u32>,
    words: Vec<i64>,
    halves: Vec<i32>,
    bytes: Vec<u8>,
    texts: Vec<Range<usize>>,
}

/// The values of a page as they are stored.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    /// What they are.
    pub shape: Shape,
    /// How they are encoded.
    pub encoding: u64,
    /// Their bytes.
    pub bytes: &'a [u8],
}

/// Appends the rows `wanted` of a page to `sink`: those that have a value by `validity` have, in
/// order, the values at `places`. `dictionary` is asked if the page has codes.
pub fn put(
    page: Stored<'_>,
    wanted: &[Range<usize>],
    validity: &Validity,
    places: &[Range<usize>],
    decoded: &mut Decoded,
    dictionary: impl FnOnce() -> Result<Arc<Dictionary>, Fault>,
    sink: &mut Sink<'_>,
) -> Result<(), Fault> {
    let values = page.bytes;
    const UNREADABLE: Fault = Fault::Page("its values are not readable");
    decoded.codes.clear();
    decoded.words.clear();
    decoded.halves.clear();
    decoded.bytes.clear();
    decoded.texts.clear();
    let dictionary = match page.encoding {
        encoding::RLE_DICTIONARY | encoding::PLAIN_DICTIONARY => {
            let (width, codes) = values.split_first().ok_or(UNREADABLE)?;
            let read = runs::pick(codes, usize::from(*width), places, &mut decoded.codes);
            read.ok_or(UNREADABLE)?;
            let dictionary = dictionary()?;
            let len = dictionary.len();
            if decoded.codes.iter().any(|code| *code as usize >= len) {
                return Err(Fault::Page("it has a code that its dictionary lacks"));
            }
            Some(dictionary)
        }
        _ => None,
    };
    let codes = decoded.codes.iter().map(|code| *code as usize);
    let found = match (&dictionary, page.encoding, page.shape) {
        (Some(dictionary), ..) => match &dictionary.values {
            Known::Views(_) => Found::Codes(&decoded.codes, dictionary),
            Known::Words(words) => {
                decoded.words.extend(codes.map(|code| words[code]));
                Found::Words(&decoded.words)
            }
            Known::Halves(halves) => {
                decoded.halves.extend(codes.map(|code| halves[code]));
                Found::Halves(&decoded.halves)
            }
            Known::Fixed(bytes, width) => {
                codes.for_each(|code| {
                    decoded.bytes.extend_from_slice(&bytes[code * width..(code + 1) * width]);
                });
                Found::Fixed(&decoded.bytes)
            }
        },
        (_, encoding::PLAIN, Shape::Words) => {
            let words = values.as_chunks::<8>().0;
            for at in places {
                let words = words.get(at.clone()).ok_or(UNREADABLE)?;
                decoded.words.extend(words.iter().map(|word| i64::from_le_bytes(*word)));
            }
            Found::Words(&decoded.words)
        }
        (_, encoding::PLAIN, Shape::Halves) => {
            let halves = values.as_chunks::<4>().0;
            for at in places {
                let halves = halves.get(at.clone()).ok_or(UNREADABLE)?;
                decoded.halves.extend(halves.iter().map(|half| i32::from_le_bytes(*half)));
            }
            Found::Halves(&decoded.halves)
        }
        (_, encoding::PLAIN, Shape::Fixed(width)) => {
            for at in places {
                let bytes = values.get(at.start * width..at.end * width).ok_or(UNREADABLE)?;
                decoded.bytes.extend_from_slice(bytes);
            }
            Found::Fixed(&decoded.bytes)
        }
        (_, encoding::PLAIN, Shape::Flags) => {
            for place in places.iter().cloned().flatten() {
                let byte = values.get(place / 8).ok_or(UNREADABLE)?;
                decoded.codes.push(u32::from(byte >> (place % 8) & 1));
            }
            Found::Flags(&decoded.codes)
        }
        (_, encoding::PLAIN, Shape::Text | Shape::Bytes) => {
            texts(values, places, &mut decoded.texts).ok_or(UNREADABLE)?;
            Found::Plain(values, &decoded.texts)
        }
        (_, encoding::RLE, Shape::Flags) => {
            let (_, flags) = values.split_first_chunk::<4>().ok_or(UNREADABLE)?;
            runs::pick(flags, 1, places, &mut decoded.codes).ok_or(UNREADABLE)?;
            Found::Flags(&decoded.codes)
        }
        (_, encoding::DELTA_BINARY_PACKED, Shape::Words) => {
            delta::pick(values, places, &mut decoded.words).ok_or(UNREADABLE)?;
            Found::Words(&decoded.words)
        }
        (_, encoding::DELTA_BINARY_PACKED, Shape::Halves) => {
            delta::pick(values, places, &mut decoded.words).ok_or(UNREADABLE)?;
            decoded.halves.extend(decoded.words.iter().map(|word| *word as i32));
            Found::Halves(&decoded.halves)
        }
        _ => return Err(Fault::Unsupported),
    };
    sink.page(wanted, validity, &found)
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
