//! Numbers in as few bits as they need, one after the other, the lowest bit of a byte first.

/// Bits being written.
#[derive(Debug, Default)]
pub struct BitWriter {
    bytes: Vec<u8>,
    /// Bits that do not fill a byte yet, and how many.
    rest: u64,
    count: u32,
}

impl BitWriter {
    /// The low `width` bits of `value`; at most 32.
    pub fn put(&mut self, value: u32, width: u32) {
        let value = u64::from(value) & ((1 << width) - 1);
        self.rest |= value << self.count;
        self.count += width;
        while self.count >= 8 {
            self.bytes.push(self.rest as u8);
            self.rest >>= 8;
            self.count -= 8;
        }
    }

    /// `value` as so many zeros, and a one.
    pub fn put_unary(&mut self, value: u32) {
        for _ in 0..value / 32 {
            self.put(0, 32);
        }
        self.put(1 << (value % 32), value % 32 + 1);
    }

    /// Golomb's code by `2^low` (Rice, 1971): the rest in unary, then `low` bits. Short for numbers
    /// that are about `2^low` on average and as likely the smaller they are.
    pub fn put_rice(&mut self, value: u32, low: u32) {
        self.put_unary(value.checked_shr(low).unwrap_or(0));
        self.put(value, low);
    }

    /// Exponential Golomb code of order `low` (Teuhola, 1978): as many bits as the number has, twice,
    /// but for the lowest `low`. Short for small numbers, never very long.
    pub fn put_exp(&mut self, value: u32, low: u32) {
        let high = (u64::from(value) >> low) + 1;
        let width = high.ilog2();
        self.put_unary(width);
        self.put(high as u32, width);
        self.put(value, low);
    }

    /// The bytes, the last one filled up with zeros. The writer is empty then.
    pub fn take(&mut self) -> Vec<u8> {
        if self.count > 0 {
            self.put(0, 8 - self.count);
        }
        std::mem::take(&mut self.bytes)
    }
}

/// Bits being read. What lies beyond the end is `None`.
#[derive(Debug, Clone)]
pub struct BitReader<'a> {
    bytes: &'a [u8],
    /// The next bit.
    at: usize,
}

impl<'a> BitReader<'a> {
    /// Reads `bytes` from their beginning.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// At least 57 of the next bits; zeros beyond the end.
    fn window(&self) -> u64 {
        let rest = self.bytes.get(self.at / 8..).unwrap_or(&[]);
        let word = match rest.first_chunk::<8>() {
            Some(word) => u64::from_le_bytes(*word),
            None => rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
        };
        word >> (self.at % 8)
    }

    fn skip(&mut self, bits: u32) -> Option<()> {
        self.at += bits as usize;
        (self.at <= self.bytes.len() * 8).then_some(())
    }

    /// Reads what [`BitWriter::put`] wrote.
    pub fn get(&mut self, width: u32) -> Option<u32> {
        let value = self.window() & ((1 << width) - 1);
        self.skip(width)?;
        Some(value as u32)
    }

    /// Reads what [`BitWriter::put_unary`] wrote.
    pub fn get_unary(&mut self) -> Option<u32> {
        let mut value = 0u32;
        loop {
            let zeros = self.window().trailing_zeros();
            if zeros < 57 {
                self.skip(zeros + 1)?;
                return value.checked_add(zeros);
            }
            self.skip(56)?;
            value = value.checked_add(56)?;
        }
    }

    /// Reads what [`BitWriter::put_rice`] wrote.
    pub fn get_rice(&mut self, low: u32) -> Option<u32> {
        let high = u64::from(self.get_unary()?) << low;
        u32::try_from(high | u64::from(self.get(low)?)).ok()
    }

    /// Reads what [`BitWriter::put_exp`] wrote.
    pub fn get_exp(&mut self, low: u32) -> Option<u32> {
        let width = self.get_unary().filter(|width| *width <= 32)?;
        let high = (1u64 << width | u64::from(self.get(width)?)) - 1;
        u32::try_from(high << low | u64::from(self.get(low)?)).ok()
    }

    /// What comes after the byte that the last bit was read of.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at.div_ceil(8)..).unwrap_or(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_read_back(
            numbers in proptest::collection::vec((any::<u32>(), 0u32..=32, 0u8..4), 0..60),
        ) {
            let mut writer = BitWriter::default();
            // Golomb's code is meant for numbers that are not much larger than `2^low`.
            let fit = |value: u32, width: u32| value.checked_shr(width).map_or(0, |_| value >> width);
            for (value, width, how) in &numbers {
                match how {
                    0 => writer.put(*value, *width),
                    1 => writer.put_unary(value % 300),
                    2 => writer.put_rice(fit(*value, 32 - width.min(&20)), *width % 17),
                    _ => writer.put_exp(*value, width % 32),
                }
            }
            let mut bytes = writer.take();
            bytes.push(0xa5);
            let mut reader = BitReader::new(&bytes);
            for (value, width, how) in &numbers {
                match how {
                    0 => {
                        let kept = u64::from(*value) & ((1 << width) - 1);
                        prop_assert_eq!(reader.get(*width).map(u64::from), Some(kept));
                    }
                    1 => prop_assert_eq!(reader.get_unary(), Some(value % 300)),
                    2 => {
                        let value = fit(*value, 32 - width.min(&20));
                        prop_assert_eq!(reader.get_rice(*width % 17), Some(value));
                    }
                    _ => prop_assert_eq!(reader.get_exp(width % 32), Some(*value)),
                }
            }
            prop_assert_eq!(reader.rest(), &[0xa5]);
        }

        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40), low in 0u32..32) {
            let mut reader = BitReader::new(&bytes);
            while reader.get_exp(low).is_some() && reader.get_rice(low).is_some() {}
            let _ = reader.rest();
        }
    }
}
