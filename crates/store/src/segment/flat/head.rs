//! Heads of pages: Thrift's compact protocol, as far as Parquet's `PageHeader` needs it.
//!
//! Source: <https://github.com/apache/parquet-format> (`parquet.thrift`) and Thrift's
//! `thrift-compact-protocol.md`.

use crate::segment::table::take_varint;

/// Structures in structures that are stepped over; a page's head has three.
const DEPTH: usize = 16;

/// The head of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Which kind of page.
    pub kind: Kind,
    /// Bytes of the page after its head, as stored.
    pub stored: usize,
    /// The same once decompressed.
    pub unpacked: usize,
    /// Values, nulls included.
    pub values: usize,
    /// Number of the values' encoding.
    pub encoding: u64,
}

/// What a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Levels and values, compressed together. The numbers are the encodings of definition and
    /// repetition levels.
    Data(u64, u64),
    /// A dictionary.
    Dictionary,
    /// Levels as they are, then values.
    DataV2 {
        /// Bytes of repetition levels.
        repetition: usize,
        /// Bytes of definition levels, after them.
        definition: usize,
        /// Whether the values are compressed as the column says.
        packed: bool,
    },
}

/// Encodings, as Parquet numbers them.
pub mod encoding {
    /// One value after the other.
    pub const PLAIN: u64 = 0;
    /// Codes of a dictionary, the old name.
    pub const PLAIN_DICTIONARY: u64 = 2;
    /// Runs and packed bits.
    pub const RLE: u64 = 3;
    /// Differences, packed.
    pub const DELTA_BINARY_PACKED: u64 = 5;
    /// Codes of a dictionary.
    pub const RLE_DICTIONARY: u64 = 8;
}

/// The head at the beginning of `page`, and the bytes after it.
pub fn take(page: &[u8]) -> Option<(Head, &[u8])> {
    let mut bytes = page;
    let (mut kind, mut stored, mut unpacked) = (None, None, None);
    let (mut own, mut fields) = (None, Fields::default());
    fields.each(&mut bytes, |id, ty, bytes| {
        match (id, ty) {
            (1, I32) => kind = Some(number(bytes)?),
            (2, I32) => unpacked = Some(number(bytes)?),
            (3, I32) => stored = Some(number(bytes)?),
            (5 | 7 | 8, STRUCT) => own = Some(values(bytes)?),
            _ => skip(bytes, ty, DEPTH)?,
        }
        Some(())
    })?;
    let own = own?;
    let kind = match kind? {
        0 => Kind::Data(own.third?, own.fourth?),
        2 => Kind::Dictionary,
        3 => Kind::DataV2 {
            definition: usize::try_from(own.fifth?).ok()?,
            repetition: usize::try_from(own.sixth?).ok()?,
            packed: own.flag,
        },
        _ => return None,
    };
    let encoding = if matches!(kind, Kind::DataV2 { .. }) { own.fourth? } else { own.second? };
    let size = |n: Option<u64>| n.and_then(|n| usize::try_from(n).ok());
    let head = Head {
        kind,
        stored: size(stored)?,
        unpacked: size(unpacked)?,
        values: size(own.first)?,
        encoding,
    };
    Some((head, bytes))
}

/// Fields 1 to 6 of the structure for one kind of page, as far as they are numbers.
struct Own {
    first: Option<u64>,
    second: Option<u64>,
    third: Option<u64>,
    fourth: Option<u64>,
    fifth: Option<u64>,
    sixth: Option<u64>,
    /// Field 7, which is true unless it says otherwise.
    flag: bool,
}

fn values(bytes: &mut &[u8]) -> Option<Own> {
    let mut found = [None; 7];
    let mut flag = true;
    Fields::default().each(bytes, |id, ty, bytes| {
        match (id, ty) {
            (1..=6, I32) => {
                let value = number(bytes)?;
                if let Some(place) = usize::try_from(id).ok().and_then(|id| found.get_mut(id)) {
                    *place = Some(value);
                }
            }
            (7, FALSE) => flag = false,
            _ => skip(bytes, ty, DEPTH)?,
        }
        Some(())
    })?;
    let [_, first, second, third, fourth, fifth, sixth] = found;
    Some(Own { first, second, third, fourth, fifth, sixth, flag })
}

const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;

/// The number of the last field that was read.
#[derive(Default)]
struct Fields(i64);

impl Fields {
    /// Calls `field` with each field's number and type; it reads the value.
    fn each(
        &mut self,
        bytes: &mut &[u8],
        mut field: impl FnMut(i64, u8, &mut &[u8]) -> Option<()>,
    ) -> Option<()> {
        loop {
            let byte = one(bytes)?;
            if byte == 0 {
                return Some(());
            }
            self.0 = match byte >> 4 {
                0 => zigzag(take_varint(bytes)?),
                more => self.0.checked_add(i64::from(more))?,
            };
            field(self.0, byte & 15, bytes)?;
        }
    }
}

fn one(bytes: &mut &[u8]) -> Option<u8> {
    let (byte, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*byte)
}

/// Undoes zigzag.
pub fn zigzag(n: u64) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

/// A number that is not negative.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    u64::try_from(zigzag(take_varint(bytes)?)).ok()
}

fn forward(bytes: &mut &[u8], len: u64) -> Option<()> {
    *bytes = bytes.get(usize::try_from(len).ok()?..)?;
    Some(())
}

/// Steps over a value of type `ty`.
fn skip(bytes: &mut &[u8], ty: u8, depth: usize) -> Option<()> {
    let depth = depth.checked_sub(1)?;
    match ty {
        TRUE | FALSE => Some(()),
        BYTE => forward(bytes, 1),
        I16 | I32 | I64 => take_varint(bytes).map(|_| ()),
        DOUBLE => forward(bytes, 8),
        BINARY => {
            let len = take_varint(bytes)?;
            forward(bytes, len)
        }
        LIST | SET => {
            let byte = one(bytes)?;
            let count = match byte >> 4 {
                15 => take_varint(bytes)?,
                few => u64::from(few),
            };
            (0..count).try_for_each(|_| item(bytes, byte & 15, depth))
        }
        MAP => {
            let count = take_varint(bytes)?;
            let types = if count > 0 { one(bytes)? } else { 0 };
            (0..count).try_for_each(|_| {
                item(bytes, types >> 4, depth)?;
                item(bytes, types & 15, depth)
            })
        }
        STRUCT => Fields::default().each(bytes, |_, ty, bytes| skip(bytes, ty, depth)),
        _ => None,
    }
}

/// Steps over an item of a list or map: unlike in a field, a boolean has a byte.
fn item(bytes: &mut &[u8], ty: u8, depth: usize) -> Option<()> {
    match ty {
        TRUE | FALSE => forward(bytes, 1),
        other => skip(bytes, other, depth),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_data_page_with_statistics() {
        // type 0, 100 bytes, 60 stored, data page header {512 values, RLE_DICTIONARY, RLE, RLE,
        // statistics {null count 3}}
        let bytes = [
            0x15, 0, 0x15, 200, 1, 0x15, 120, 0x2c, 0x15, 128, 8, 0x15, 16, 0x15, 6, 0x15, 6, 0x1c,
            0x36, 6, 0, 0, 0, 7,
        ];
        let (head, rest) = take(&bytes).unwrap();
        assert_eq!(rest, [7]);
        let kind = Kind::Data(encoding::RLE, encoding::RLE);
        let encoding = encoding::RLE_DICTIONARY;
        assert_eq!(head, Head { kind, stored: 60, unpacked: 100, values: 512, encoding });
    }

    proptest! {
        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = take(&bytes);
        }
    }
}
