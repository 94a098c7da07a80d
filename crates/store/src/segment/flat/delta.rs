//! `DELTA_BINARY_PACKED`: the first value, then differences in blocks, packed by bits.
//! Source: <https://parquet.apache.org/docs/file-format/data-pages/encodings/>

use std::ops::Range;

use super::head::zigzag;
use crate::segment::table::take_varint;

/// Appends to `out` the values at the places `wanted` (ascending, disjoint). Values of 32 bits come
/// with any upper half. `None` if `bytes` does not hold them.
pub fn pick(mut bytes: &[u8], wanted: &[Range<usize>], out: &mut Vec<i64>) -> Option<()> {
    let Some(end) = wanted.last().map(|range| range.end) else { return Some(()) };
    let block = usize::try_from(take_varint(&mut bytes)?).ok()?;
    let minis = usize::try_from(take_varint(&mut bytes)?).ok()?;
    let count = usize::try_from(take_varint(&mut bytes)?).ok()?;
    let mut value = zigzag(take_varint(&mut bytes)?);
    let values = block.checked_div(minis)?;
    if end > count || values == 0 || !values.is_multiple_of(8) {
        return None;
    }
    let mut wanted = wanted.iter().cloned();
    let mut range = wanted.next()?;
    let mut at = 0;
    // Puts `value`, which stands at `at`; whether there is more to find.
    let mut put = |value: i64, at: usize| {
        if at < range.start {
            return true;
        }
        out.push(value);
        if at + 1 < range.end {
            return true;
        }
        match wanted.next() {
            Some(next) => {
                range = next;
                true
            }
            None => false,
        }
    };
    if !put(value, at) {
        return Some(());
    }
    loop {
        let least = zigzag(take_varint(&mut bytes)?);
        let (widths, rest) = bytes.split_at_checked(minis)?;
        bytes = rest;
        for width in widths {
            let width = usize::from(*width);
            if width > 64 {
                return None;
            }
            let (packed, rest) = bytes.split_at_checked(width.checked_mul(values / 8)?)?;
            bytes = rest;
            let mask = if width == 0 { 0 } else { u64::MAX >> (64 - width) };
            for place in 0..values {
                let bit = place.checked_mul(width)?;
                let more = (word(packed, bit / 8) >> (bit % 8)) as u64 & mask;
                value = value.wrapping_add(least).wrapping_add(more as i64);
                at += 1;
                if !put(value, at) {
                    return Some(());
                }
            }
        }
    }
}

/// Sixteen bytes from `at` on; beyond the end are zeros.
fn word(bytes: &[u8], at: usize) -> u128 {
    let rest = bytes.get(at..).unwrap_or_default();
    if let Some(word) = rest.first_chunk::<16>() {
        return u128::from_le_bytes(*word);
    }
    rest.iter().rev().fold(0, |word, byte| word << 8 | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::slice::from_ref;

    #[test]
    fn the_example_of_the_specification() {
        // 7, 5, 3, 1, 2, 3, 4, 5: least difference -2, the rest in two bits.
        let bytes = [128, 1, 4, 8, 14, 3, 2, 0, 0, 0, 0b1100_0000, 0b11_1111, 0, 0, 0, 0, 0, 0];
        let mut out = Vec::new();
        pick(&bytes, from_ref(&(0..8)), &mut out).unwrap();
        assert_eq!(out, [7, 5, 3, 1, 2, 3, 4, 5]);
        out.clear();
        pick(&bytes, &[1..2, 6..8], &mut out).unwrap();
        assert_eq!(out, [5, 4, 5]);
        assert!(pick(&bytes, from_ref(&(8..9)), &mut out).is_none());
        assert!(pick(&bytes[..10], from_ref(&(0..8)), &mut out).is_none());
    }

    proptest! {
        #[test]
        fn noise_never_panics(
            bytes in proptest::collection::vec(any::<u8>(), 0..60), from in 0usize..40, len in 1usize..600,
        ) {
            let _ = pick(&bytes, from_ref(&(from..from + len)), &mut Vec::new());
        }
    }
}
