//! Reading protobuf's wire format without copying.

/// Why bytes are not a protobuf message of the expected form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The message ends inside a field.
    #[error("cut off inside a field")]
    Truncated,
    /// A variable-length integer has more than 10 bytes.
    #[error("a variable-length integer of more than 10 bytes")]
    Varint,
    /// A tag with field number 0 or a wire type that OTLP does not use.
    #[error("an impossible tag {0:#x}")]
    Tag(u64),
    /// A known field comes with another wire type than OTLP gives it.
    #[error("field {field} has wire type {found}")]
    Type {
        /// Field number.
        field: u32,
        /// The wire type found.
        found: &'static str,
    },
    /// A text is not UTF-8.
    #[error("a text that is not UTF-8")]
    Utf8,
    /// Composite values are nested more than [`super::any::MAX_DEPTH`] deep.
    #[error("values nested too deep")]
    Depth,
}

/// One field's value as it stands in the message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Field<'a> {
    /// Variable-length integer: int32, int64, uint32, uint64, bool, enum.
    Varint(u64),
    /// Eight bytes: fixed64, double.
    Fixed64(u64),
    /// Length-delimited: string, bytes, message, packed repeated.
    Bytes(&'a [u8]),
    /// Four bytes: fixed32, float.
    Fixed32(u32),
}

impl<'a> Field<'a> {
    #[cold]
    fn type_error(self, field: u32) -> WireError {
        let found = match self {
            Self::Varint(_) => "varint",
            Self::Fixed64(_) => "64-bit",
            Self::Bytes(_) => "length-delimited",
            Self::Fixed32(_) => "32-bit",
        };
        WireError::Type { field, found }
    }

    /// The length-delimited value of `field`.
    #[inline]
    pub fn bytes(self, field: u32) -> Result<&'a [u8], WireError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            other => Err(other.type_error(field)),
        }
    }

    /// The variable-length integer of `field`.
    #[inline]
    pub fn varint(self, field: u32) -> Result<u64, WireError> {
        match self {
            Self::Varint(value) => Ok(value),
            other => Err(other.type_error(field)),
        }
    }

    /// The eight bytes of `field`.
    #[inline]
    pub fn fixed64(self, field: u32) -> Result<u64, WireError> {
        match self {
            Self::Fixed64(value) => Ok(value),
            other => Err(other.type_error(field)),
        }
    }

    /// The eight bytes of `field` as a double.
    pub fn double(self, field: u32) -> Result<f64, WireError> {
        self.fixed64(field).map(f64::from_bits)
    }

    /// Calls `f` with each number of the repeated `field`, packed or not: a reader must take both
    /// (protobuf encoding, "Repeated Elements").
    pub fn each_fixed64(self, field: u32, mut f: impl FnMut(u64)) -> Result<(), WireError> {
        match self {
            Self::Fixed64(value) => f(value),
            Self::Bytes(bytes) => {
                let (numbers, rest) = bytes.as_chunks();
                if !rest.is_empty() {
                    return Err(WireError::Truncated);
                }
                numbers.iter().for_each(|number| f(u64::from_le_bytes(*number)));
            }
            other => return Err(other.type_error(field)),
        }
        Ok(())
    }

    /// Calls `f` with each variable-length integer of the repeated `field`, packed or not.
    pub fn each_varint(self, field: u32, mut f: impl FnMut(u64)) -> Result<(), WireError> {
        match self {
            Self::Varint(value) => f(value),
            Self::Bytes(mut bytes) => {
                while !bytes.is_empty() {
                    let (value, len) = read_varint(bytes)?;
                    f(value);
                    bytes = &bytes[len..];
                }
            }
            other => return Err(other.type_error(field)),
        }
        Ok(())
    }

    /// The four bytes of `field`.
    #[inline]
    pub fn fixed32(self, field: u32) -> Result<u32, WireError> {
        match self {
            Self::Fixed32(value) => Ok(value),
            other => Err(other.type_error(field)),
        }
    }
}

/// The fields of one message, in the order in which they stand.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    rest: &'a [u8],
}

impl<'a> Message<'a> {
    /// The message in `bytes`.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read yet.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next field's number and value; `None` at the end.
    #[inline]
    pub fn next_field(&mut self) -> Result<Option<(u32, Field<'a>)>, WireError> {
        loop {
            if self.rest.is_empty() {
                return Ok(None);
            }
            let tag = self.varint()?;
            let number = match u32::try_from(tag >> 3) {
                Ok(0) | Err(_) => return Err(WireError::Tag(tag)),
                Ok(number) => number,
            };
            let field = match tag & 7 {
                0 => Field::Varint(self.varint()?),
                1 => Field::Fixed64(u64::from_le_bytes(self.array()?)),
                2 => {
                    let len = self.varint()?;
                    let len = usize::try_from(len).map_err(|_| WireError::Truncated)?;
                    Field::Bytes(self.take(len)?)
                }
                3 => {
                    self.skip_group(number)?;
                    continue;
                }
                5 => Field::Fixed32(u32::from_le_bytes(self.array()?)),
                _ => return Err(WireError::Tag(tag)),
            };
            return Ok(Some((number, field)));
        }
    }

    /// The next field's bytes, if its tag is the one byte `tag` and its length has one or two
    /// bytes. Else nothing is read: [`Self::next_field`] does it.
    #[inline]
    pub fn next_bytes(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (len, rest) = match self.rest {
            [first, len @ ..0x80, rest @ ..] if *first == tag => (usize::from(*len), rest),
            [first, low, high @ ..0x80, rest @ ..] if *first == tag => {
                (usize::from(*low & 0x7f) | usize::from(*high) << 7, rest)
            }
            _ => return None,
        };
        let (bytes, rest) = rest.split_at_checked(len)?;
        self.rest = rest;
        Some(bytes)
    }

    /// The next field's number, if its tag is the one byte `tag` and the number is below 128. As
    /// [`Self::next_bytes`].
    #[inline]
    pub fn next_small(&mut self, tag: u8) -> Option<u64> {
        let [first, value @ ..0x80, rest @ ..] = self.rest else { return None };
        self.rest = (*first == tag).then_some(rest)?;
        Some(u64::from(*value))
    }

    /// The next field's eight bytes, if its tag is the one byte `tag`. As [`Self::next_bytes`].
    #[inline]
    pub fn next_fixed64(&mut self, tag: u8) -> Option<u64> {
        let (first, rest) = self.rest.split_first()?;
        let (value, rest) = rest.split_first_chunk()?;
        self.rest = (*first == tag).then_some(rest)?;
        Some(u64::from_le_bytes(*value))
    }

    /// Passes a group: no message of OTLP has one, so it is an unknown field.
    #[cold]
    fn skip_group(&mut self, number: u32) -> Result<(), WireError> {
        let mut open = vec![number];
        while let Some(innermost) = open.last().copied() {
            let tag = self.varint()?;
            let number = u32::try_from(tag >> 3).map_err(|_| WireError::Tag(tag))?;
            match tag & 7 {
                0 => _ = self.varint()?,
                1 => _ = self.take(8)?,
                2 => {
                    let len = self.varint()?;
                    self.take(usize::try_from(len).map_err(|_| WireError::Truncated)?)?;
                }
                // Protobuf readers refuse what is nested deeper than 100.
                3 if open.len() == 100 => return Err(WireError::Depth),
                3 => open.push(number),
                4 if number == innermost => _ = open.pop(),
                5 => _ = self.take(4)?,
                _ => return Err(WireError::Tag(tag)),
            }
        }
        Ok(())
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, WireError> {
        let (value, len) = read_varint(self.rest)?;
        self.rest = &self.rest[len..];
        Ok(value)
    }
}

/// The variable-length integer at the start of `bytes`, and its length.
#[inline]
pub fn read_varint(bytes: &[u8]) -> Result<(u64, usize), WireError> {
    // Most tags, lengths and enums of OTLP have one byte.
    match bytes.first() {
        Some(byte) if *byte < 0x80 => return Ok((u64::from(*byte), 1)),
        None => return Err(WireError::Truncated),
        _ => {}
    }
    let mut value = 0u64;
    for (i, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if *byte < 0x80 {
            return Ok((value, i + 1));
        }
    }
    Err(if bytes.len() < 10 { WireError::Truncated } else { WireError::Varint })
}

/// The `sint32` that a variable-length integer stands for.
pub fn zigzag(value: u64) -> i32 {
    let value = value as u32;
    (value >> 1) as i32 ^ -((value & 1) as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_wire_type() {
        let bytes = [0x08, 0x96, 0x01, 0x12, 0x02, b'h', b'i', 0x1d, 1, 0, 0, 0];
        let mut message = Message::new(&bytes);
        assert_eq!(message.next_field(), Ok(Some((1, Field::Varint(150)))));
        assert_eq!(message.next_field(), Ok(Some((2, Field::Bytes(b"hi")))));
        assert_eq!(message.next_field(), Ok(Some((3, Field::Fixed32(1)))));
        assert_eq!(message.next_field(), Ok(None));
    }

    #[test]
    fn every_cut_is_an_error_or_a_shorter_message() {
        let bytes = [0x12, 0x05, b'h', b'e', b'l', b'l', b'o'];
        for cut in 1..bytes.len() {
            assert_eq!(
                Message::new(&bytes[..cut]).next_field(),
                Err(WireError::Truncated),
                "{cut}"
            );
        }
    }

    #[test]
    fn repeated_numbers_may_be_packed() {
        let mut read = Vec::new();
        Field::Bytes(&[1, 0x96, 0x01]).each_varint(1, |n| read.push(n)).unwrap();
        Field::Varint(7).each_varint(1, |n| read.push(n)).unwrap();
        Field::Bytes(&[9, 0, 0, 0, 0, 0, 0, 0]).each_fixed64(1, |n| read.push(n)).unwrap();
        Field::Fixed64(3).each_fixed64(1, |n| read.push(n)).unwrap();
        assert_eq!(read, [1, 150, 7, 9, 3]);
        assert_eq!(Field::Bytes(&[0; 9]).each_fixed64(1, |_| {}), Err(WireError::Truncated));
        assert_eq!([0, 1, 2, 3].map(zigzag), [0, -1, 1, -2]);
        assert_eq!(zigzag(u64::from(u32::MAX)), i32::MIN);
    }

    #[test]
    fn groups_are_passed() {
        let bytes = [0x0b, 0x08, 1, 0x13, 0x12, 1, 0x0c, 0x14, 0x0c, 0x18, 7];
        let mut message = Message::new(&bytes);
        assert_eq!(message.next_field(), Ok(Some((3, Field::Varint(7)))));
        for cut in 1..9 {
            let cut = Message::new(&bytes[..cut]).next_field();
            assert_eq!(cut, Err(WireError::Truncated));
        }
        assert_eq!(Message::new(&[0x0b, 0x14]).next_field(), Err(WireError::Tag(0x14)));
    }

    #[test]
    fn impossible_tags_are_refused() {
        for tag in [0x00, 0x0c, 0x0e, 0x0f] {
            assert!(
                matches!(Message::new(&[tag, 0]).next_field(), Err(WireError::Tag(_))),
                "{tag}"
            );
        }
        assert_eq!(read_varint(&[0xff; 11]), Err(WireError::Varint));
    }
}
