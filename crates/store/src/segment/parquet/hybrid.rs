//! Parquet's hybrid of runs and packed bits, as levels and codes are written.
//!
//! A run is its length doubled (varint) and the value; packed values are the number of groups of
//! eight, doubled, plus one (varint) and the groups. Only the last group may be filled up.

use arrow::buffer::NullBuffer;

use super::super::table::put_varint;

/// Groups of eight that a run must take the place of, in bits of a value: a run and the head of
/// what follows it take some five bytes.
const WORTH: usize = 5;

/// `len` times `value`, which has `width` bits.
pub fn put_run(out: &mut Vec<u8>, len: usize, value: u16, width: u32) {
    put_varint(out, (len as u64) << 1);
    out.extend_from_slice(&value.to_le_bytes()[..width.div_ceil(8).min(2) as usize]);
}

/// `values` of `width` bits, packed.
pub fn put_packed(out: &mut Vec<u8>, values: &[u16], width: u32) {
    let groups = values.len().div_ceil(8);
    put_varint(out, (groups as u64) << 1 | 1);
    out.reserve(groups * width as usize);
    match width {
        8 => out.extend(values.iter().map(|value| *value as u8)),
        16 => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        _ => {
            for group in values.chunks(8) {
                let bits = group.iter().rev().fold(0u128, |bits, v| bits << width | u128::from(*v));
                let bits = bits.to_le_bytes();
                out.extend_from_slice(&bits[..width as usize]);
            }
            return;
        }
    }
    let missing = groups * 8 - values.len();
    out.extend(std::iter::repeat_n(0, missing * width as usize / 8));
}

/// `values` of `width` bits, in runs where that is shorter.
pub fn put_mixed(out: &mut Vec<u8>, values: &[u16], width: u32) {
    let constant = |group: &[u16]| -> Option<u16> {
        let group: &[u16; 8] = group.try_into().ok()?;
        group.iter().all(|value| *value == group[0]).then_some(group[0])
    };
    let groups: usize = values.len().div_ceil(8);
    let group = |n: usize| &values[n * 8..(n * 8 + 8).min(values.len())];
    let (mut start, mut at) = (0, 0);
    while at < groups {
        let Some(value) = constant(group(at)) else {
            at += 1;
            continue;
        };
        let mut end = at + 1;
        while end < groups && constant(group(end)) == Some(value) {
            end += 1;
        }
        if (end - at) * width as usize > WORTH {
            if start < at {
                put_packed(out, &values[start * 8..at * 8], width);
            }
            put_run(out, (end - at) * 8, value, width);
            start = end;
        }
        at = end;
    }
    if start < groups {
        put_packed(out, &values[start * 8..], width);
    }
}

/// Which of some rows have a value: a bit a row.
#[derive(Debug, Default)]
pub struct Valid {
    words: Vec<u64>,
    rows: usize,
}

impl Valid {
    /// Rows whose code is not 0.
    pub fn set(&mut self, codes: &[u16]) {
        self.rows = codes.len();
        self.words.clear();
        self.words.extend(codes.chunks(64).map(|chunk| {
            let bits = chunk.iter().enumerate();
            bits.fold(0u64, |word, (i, code)| word | u64::from(*code != 0) << i)
        }));
    }

    /// `rows` rows from `start` on, those that `nulls` has no null for.
    pub fn set_nulls(&mut self, nulls: Option<&NullBuffer>, start: usize, rows: usize) {
        self.rows = rows;
        self.words.clear();
        match nulls {
            None => self.words.resize(rows.div_ceil(64), u64::MAX),
            Some(nulls) => {
                let bits = nulls.inner().slice(start, rows);
                self.words.extend(bits.bit_chunks().iter_padded().take(rows.div_ceil(64)));
            }
        }
        // Bits beyond the last row do not count.
        if let Some(last) = self.words.last_mut().filter(|_| !rows.is_multiple_of(64)) {
            *last &= (1 << (rows % 64)) - 1;
        }
    }

    /// How many have a value.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The rows that have a value, ascending.
    pub fn rows(&self) -> impl Iterator<Item = usize> + '_ {
        let words = self.words.iter().enumerate();
        words.flat_map(|(number, word)| {
            let mut word = *word;
            std::iter::from_fn(move || {
                let bit = (word != 0).then(|| word.trailing_zeros() as usize)?;
                word &= word - 1;
                Some(number * 64 + bit)
            })
        })
    }

    /// As definition levels, their length before.
    pub fn put_levels(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        let count = self.count();
        if count == 0 || count == self.rows {
            put_run(out, self.rows, u16::from(count > 0), 1);
        } else {
            self.put_mixed(out);
        }
        let len = (out.len() - start - 4) as u32;
        out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    }

    fn put_mixed(&self, out: &mut Vec<u8>) {
        let groups = self.rows.div_ceil(8);
        let byte = |group: usize| (self.words[group / 8] >> (group % 8 * 8)) as u8;
        // The bits of a last group that is not full mean nothing.
        let whole = self.rows / 8;
        let packed = |out: &mut Vec<u8>, from: usize, to: usize| {
            if from < to {
                put_varint(out, ((to - from) as u64) << 1 | 1);
                out.extend((from..to).map(byte));
            }
        };
        let (mut start, mut at) = (0, 0);
        while at < whole {
            let value = byte(at);
            if value != 0 && value != 0xff {
                at += 1;
                continue;
            }
            let mut end = at + 1;
            while end < whole && byte(end) == value {
                end += 1;
            }
            if end - at > WORTH {
                packed(out, start, at);
                put_run(out, (end - at) * 8, u16::from(value & 1), 1);
                start = end;
            }
            at = end;
        }
        packed(out, start, groups);
    }
}
