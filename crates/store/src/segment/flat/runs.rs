//! Parquet's hybrid of runs and packed bits: definition levels, codes of dictionaries, booleans.
//! Source: <https://parquet.apache.org/docs/file-format/data-pages/encodings/>

use std::iter::repeat_n;
use std::ops::Range;

use crate::segment::table::take_varint;

/// Values that are stored in one way.
#[derive(Debug, Clone, Copy)]
enum Run<'a> {
    /// One value, so many times.
    Repeated(u32),
    /// Each value in as many bits as the widest takes, lowest bits first.
    Packed(&'a [u8]),
}

/// Takes runs one after the other.
struct Runs<'a> {
    bytes: &'a [u8],
    width: usize,
}

impl<'a> Runs<'a> {
    /// The next run and how many values it has; `None` at the end, and where no run is readable.
    fn next(&mut self) -> Option<(Run<'a>, usize)> {
        let head = take_varint(&mut self.bytes)?;
        let count = usize::try_from(head >> 1).ok()?;
        if head & 1 == 0 {
            let (value, rest) = self.bytes.split_at_checked(self.width.div_ceil(8))?;
            self.bytes = rest;
            let value = value.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte));
            return Some((Run::Repeated(value), count));
        }
        let (packed, rest) = self.bytes.split_at_checked(count.checked_mul(self.width)?)?;
        self.bytes = rest;
        Some((Run::Packed(packed), count.checked_mul(8)?))
    }
}

/// Appends to `out` the values at the places `wanted` (ascending, disjoint), of `width` bits each.
/// `None` if `bytes` does not hold them.
pub fn pick(bytes: &[u8], width: usize, wanted: &[Range<usize>], out: &mut Vec<u32>) -> Option<()> {
    if width > 32 {
        return None;
    }
    let mut runs = Runs { bytes, width };
    let (mut run, mut start, mut end) = (Run::Repeated(0), 0, 0);
    for range in wanted {
        let mut at = range.start;
        while at < range.end {
            while end <= at {
                let (next, count) = runs.next()?;
                (run, start, end) = (next, end, end.checked_add(count)?);
            }
            let to = range.end.min(end);
            match run {
                Run::Repeated(value) => out.extend(repeat_n(value, to - at)),
                Run::Packed(bytes) => unpack(bytes, width, at - start..to - start, out)?,
            }
            at = to;
        }
    }
    Some(())
}

/// Appends the values at `places` of packed `bytes`.
fn unpack(bytes: &[u8], width: usize, places: Range<usize>, out: &mut Vec<u32>) -> Option<()> {
    match width {
        0 => out.extend(repeat_n(0, places.len())),
        8 => out.extend(bytes.get(places)?.iter().map(|byte| u32::from(*byte))),
        16 => {
            let words = bytes.get(places.start * 2..places.end * 2)?.as_chunks::<2>().0;
            out.extend(words.iter().map(|word| u32::from(u16::from_le_bytes(*word))));
        }
        _ => {
            let mask = u32::MAX >> (32 - width);
            for place in places {
                let bit = place * width;
                out.push((word(bytes, bit / 8) >> (bit % 8)) as u32 & mask);
            }
        }
    }
    Some(())
}

/// Eight bytes from `at` on; beyond the end are zeros.
fn word(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.get(at..).unwrap_or_default();
    if let Some(word) = rest.first_chunk::<8>() {
        return u64::from_le_bytes(*word);
    }
    rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// Values of `width` bits, a run or one at a time.
pub struct Each<'a> {
    runs: Runs<'a>,
    run: Run<'a>,
    at: usize,
    count: usize,
}

impl<'a> Each<'a> {
    /// The values in `bytes`.
    pub fn new(bytes: &'a [u8], width: usize) -> Self {
        Self { runs: Runs { bytes, width }, run: Run::Repeated(0), at: 0, count: 0 }
    }
}

impl Each<'_> {
    /// The next value, and how many times it comes one after the other, at least.
    pub fn peek(&mut self) -> Option<(u32, usize)> {
        while self.at == self.count {
            (self.run, self.count) = self.runs.next()?;
            self.at = 0;
        }
        match self.run {
            Run::Repeated(value) => Some((value, self.count - self.at)),
            Run::Packed(bytes) => {
                let (width, bit) = (self.runs.width, self.at * self.runs.width);
                let mask = u32::MAX.checked_shr(32 - width.min(32) as u32).unwrap_or(0);
                Some(((word(bytes, bit / 8) >> (bit % 8)) as u32 & mask, 1))
            }
        }
    }

    /// Goes on by as many values as [`Self::peek`] told of, or fewer.
    pub fn skip(&mut self, values: usize) {
        self.at = self.count.min(self.at + values);
    }
}

/// Which rows of a page have a value.
#[derive(Debug, Default)]
pub struct Validity {
    /// A bit a row, unless all rows are alike.
    bits: Vec<u8>,
    /// Whether all rows have a value, or none has.
    alike: Option<bool>,
    rows: usize,
}

impl Validity {
    /// Begins anew: rows come by [`Self::push`].
    pub fn clear(&mut self) {
        (self.alike, self.rows) = (None, 0);
        self.bits.clear();
    }

    /// Appends a row.
    pub fn push(&mut self, valid: bool) {
        if self.rows.is_multiple_of(8) {
            self.bits.push(0);
        }
        if let Some(last) = self.bits.last_mut() {
            *last |= u8::from(valid) << (self.rows % 8);
        }
        self.rows += 1;
    }

    /// The last row has been pushed; how many there are.
    pub fn finish(&mut self) -> usize {
        if self.count(0..self.rows) == self.rows {
            self.alike = Some(true);
        }
        self.rows
    }

    /// All of `rows` have a value.
    pub fn all(&mut self, rows: usize) {
        (self.alike, self.rows) = (Some(true), rows);
    }

    /// Reads definition levels of 0 and 1.
    pub fn read(&mut self, bytes: &[u8], rows: usize) -> Option<()> {
        self.rows = rows;
        let mut runs = Runs { bytes, width: 1 };
        let (mut run, mut count) = runs.next()?;
        if let Run::Repeated(level) = run
            && count >= rows
        {
            self.alike = Some(level == 1);
            return (level <= 1).then_some(());
        }
        self.alike = None;
        self.bits.clear();
        self.bits.resize(rows.div_ceil(8) + 1, 0);
        let mut at = 0usize;
        loop {
            let end = at.saturating_add(count).min(rows);
            match run {
                Run::Repeated(0) => {}
                Run::Repeated(1) => self.set(at..end),
                Run::Repeated(_) => return None,
                Run::Packed(bytes) => self.copy(at..end, bytes),
            }
            at = end;
            if at == rows {
                return Some(());
            }
            (run, count) = runs.next()?;
        }
    }

    fn set(&mut self, rows: Range<usize>) {
        let (first, last) = (rows.start / 8, rows.end / 8);
        let (low, high) = (0xffu8 << (rows.start % 8), !(0xffu8 << (rows.end % 8)));
        if first == last {
            self.bits[first] |= low & high;
        } else {
            self.bits[first] |= low;
            self.bits[first + 1..last].fill(0xff);
            self.bits[last] |= high;
        }
    }

    fn copy(&mut self, rows: Range<usize>, bytes: &[u8]) {
        let shift = rows.start % 8;
        for (i, byte) in bytes.iter().take(rows.len().div_ceil(8)).enumerate() {
            // Rows after the last may be in the byte; they are nobody's.
            let left = rows.len() - i * 8;
            let byte = if left < 8 { byte & !(0xffu8 << left) } else { *byte };
            let at = rows.start / 8 + i;
            self.bits[at] |= byte << shift;
            if shift > 0
                && let Some(next) = self.bits.get_mut(at + 1)
            {
                *next |= byte >> (8 - shift);
            }
        }
    }

    /// Whether all rows have a value, or none has; `None` if some may.
    pub fn alike(&self) -> Option<bool> {
        self.alike
    }

    /// The bits, if rows differ.
    pub fn bits(&self) -> &[u8] {
        &self.bits
    }

    /// Values in `rows`.
    fn count(&self, rows: Range<usize>) -> usize {
        let bit = |row: usize| usize::from(self.bits[row / 8] >> (row % 8) & 1);
        let (from, to) = (rows.start.next_multiple_of(8).min(rows.end), rows.end / 8 * 8);
        if from >= to {
            return rows.map(bit).sum();
        }
        let whole = &self.bits[from / 8..to / 8];
        let (words, rest) = whole.as_chunks::<8>();
        let words: u32 = words.iter().map(|word| u64::from_le_bytes(*word).count_ones()).sum();
        let rest: u32 = rest.iter().map(|byte| byte.count_ones()).sum();
        (words + rest) as usize
            + (rows.start..from).map(bit).sum::<usize>()
            + (to..rows.end).map(bit).sum::<usize>()
    }

    /// Puts into `places` where the values of the rows `wanted` lie among the page's values.
    pub fn places(&self, wanted: &[Range<usize>], places: &mut Vec<Range<usize>>) {
        places.clear();
        let (mut row, mut value) = (0, 0);
        for range in wanted {
            let (start, len) = match self.alike {
                Some(true) => (range.start, range.len()),
                Some(false) => return,
                None => {
                    value += self.count(row..range.start);
                    let len = self.count(range.clone());
                    row = range.end;
                    value += len;
                    (value - len, len)
                }
            };
            match places.last_mut() {
                _ if len == 0 => {}
                Some(last) if last.end == start => last.end += len,
                _ => places.push(start..start + len),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each(bytes: &[u8], width: usize) -> impl Iterator<Item = u32> {
        let mut each = Each::new(bytes, width);
        std::iter::from_fn(move || {
            let (value, _) = each.peek()?;
            each.skip(1);
            Some(value)
        })
    }
    use proptest::prelude::*;

    /// Runs and packed groups by turns, as `pieces` says: (value, count, packed).
    fn encode(width: usize, pieces: &[(u32, usize, bool)]) -> (Vec<u8>, Vec<u32>) {
        let (mut bytes, mut values) = (Vec::new(), Vec::new());
        let mask = if width == 0 { 0 } else { u32::MAX >> (32 - width) };
        for (value, count, packed) in pieces {
            if *packed {
                let groups = count.div_ceil(8);
                crate::segment::table::put_varint(&mut bytes, (groups as u64) << 1 | 1);
                let mut bits = vec![0u8; groups * width];
                for i in 0..groups * 8 {
                    let value = value.wrapping_mul(i as u32 + 1) & mask;
                    values.push(value);
                    for bit in 0..width {
                        let at = i * width + bit;
                        bits[at / 8] |= ((value >> bit & 1) as u8) << (at % 8);
                    }
                }
                bytes.extend(bits);
            } else {
                crate::segment::table::put_varint(&mut bytes, (*count as u64) << 1);
                bytes.extend(&(value & mask).to_le_bytes()[..width.div_ceil(8)]);
                values.extend(repeat_n(value & mask, *count));
            }
        }
        (bytes, values)
    }

    fn ranges(cuts: &[usize], len: usize) -> Vec<Range<usize>> {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (len + 1)).collect();
        cuts.sort_unstable();
        cuts.chunks_exact(2).map(|pair| pair[0]..pair[1]).filter(|r| !r.is_empty()).collect()
    }

    type Pieces = Vec<(u32, usize, bool)>;

    fn any_pieces() -> impl Strategy<Value = Pieces> {
        proptest::collection::vec((any::<u32>(), 1usize..70, any::<bool>()), 1..9)
    }

    proptest! {
        #[test]
        fn picks_what_stands_there(
            width in 0usize..=32, pieces in any_pieces(),
            cuts in proptest::collection::vec(0usize..400, 0..9),
        ) {
            let (bytes, values) = encode(width, &pieces);
            let wanted = ranges(&cuts, values.len());
            let mut out = Vec::new();
            pick(&bytes, width, &wanted, &mut out).unwrap();
            let expected: Vec<u32> = wanted.into_iter().flat_map(|r| values[r].to_vec()).collect();
            prop_assert_eq!(out, expected);
            prop_assert_eq!(each(&bytes, width).collect::<Vec<_>>(), &values[..]);
            let beyond = values.len()..values.len() + 1;
            let beyond = std::slice::from_ref(&beyond);
            prop_assert!(pick(&bytes, width, beyond, &mut Vec::new()).is_none());
        }

        #[test]
        fn validity_counts_values(
            pieces in any_pieces(), rows in 1usize..400,
            cuts in proptest::collection::vec(0usize..400, 0..9),
        ) {
            let (bytes, values) = encode(1, &pieces);
            let rows = rows.min(values.len());
            let mut validity = Validity::default();
            validity.read(&bytes, rows).unwrap();
            let wanted = ranges(&cuts, rows);
            let mut places = Vec::new();
            validity.places(&wanted, &mut places);
            let mut expected = Vec::new();
            for row in wanted.into_iter().flatten() {
                if values[row] == 1 {
                    expected.push(values[..row].iter().filter(|value| **value == 1).count());
                }
            }
            prop_assert_eq!(places.into_iter().flatten().collect::<Vec<_>>(), expected);
            if validity.alike().is_none() {
                let bits: Vec<u32> = (0..rows)
                    .map(|row| u32::from(validity.bits()[row / 8] >> (row % 8) & 1)).collect();
                prop_assert_eq!(&bits, &values[..rows]);
            }
        }

        #[test]
        fn noise_never_panics(
            bytes in proptest::collection::vec(any::<u8>(), 0..60), width in 0usize..40,
            cuts in proptest::collection::vec(0usize..400, 0..9),
        ) {
            let wanted = ranges(&cuts, 399);
            let _ = pick(&bytes, width, &wanted, &mut Vec::new());
            each(&bytes, width.min(32)).take(1000).for_each(drop);
            let mut validity = Validity::default();
            if validity.read(&bytes, 399).is_some() {
                validity.places(&wanted, &mut Vec::new());
            }
        }
    }
}
