//! Parquet's encoding of numbers by their differences.

use super::super::table::put_varint;

/// Values in a block, all of which have one least difference.
const BLOCK: usize = 128;
/// Values that are packed by one width.
const MINI: usize = 32;

/// `values` in `DELTA_BINARY_PACKED`.
pub fn put_numbers(out: &mut Vec<u8>, values: &[i64]) {
    put_varint(out, BLOCK as u64);
    put_varint(out, (BLOCK / MINI) as u64);
    put_varint(out, values.len() as u64);
    let Some(first) = values.first() else {
        out.push(0);
        return;
    };
    put_varint(out, zigzag(*first));
    let mut last = *first;
    let mut deltas = [0i64; BLOCK];
    for block in values[1..].chunks(BLOCK) {
        for (delta, value) in deltas.iter_mut().zip(block) {
            *delta = value.wrapping_sub(last);
            last = *value;
        }
        let deltas = &deltas[..block.len()];
        let least = deltas.iter().copied().min().unwrap_or(0);
        put_varint(out, zigzag(least));
        let widths = out.len();
        out.extend_from_slice(&[0; BLOCK / MINI]);
        for (number, mini) in deltas.chunks(MINI).enumerate() {
            let above = |delta: &i64| delta.wrapping_sub(least) as u64;
            let all = mini.iter().fold(0, |all, delta| all | above(delta));
            let width = 64 - all.leading_zeros();
            out[widths + number] = width as u8;
            put_bits(out, mini.iter().map(above), width);
        }
    }
}

/// [`MINI`] values of `width` bits; missing ones are zero.
fn put_bits(out: &mut Vec<u8>, values: impl Iterator<Item = u64>, width: u32) {
    let end = out.len() + MINI / 8 * width as usize;
    let (mut bits, mut count) = (0u128, 0);
    for value in values {
        bits |= u128::from(value) << count;
        count += width;
        if count >= 64 {
            out.extend_from_slice(&(bits as u64).to_le_bytes());
            bits >>= 64;
            count -= 64;
        }
    }
    out.extend_from_slice(&(bits as u64).to_le_bytes());
    out.resize(end, 0);
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}
