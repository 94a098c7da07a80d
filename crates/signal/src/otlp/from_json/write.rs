//! Writing protobuf's wire format.

/// Wire types (protobuf encoding, "Message Structure").
pub const VARINT: u32 = 0;
pub const FIXED64: u32 = 1;
pub const BYTES: u32 = 2;
pub const FIXED32: u32 = 5;

/// Appends a variable-length integer.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends the tag of field `number`.
#[inline]
pub fn put_tag(out: &mut Vec<u8>, number: u32, wire_type: u32) {
    put_varint(out, u64::from(number << 3 | wire_type));
}

/// Appends a length and `bytes`.
#[inline]
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Begins a length-delimited field; [`close`] takes what it gives.
#[inline]
pub fn open(out: &mut Vec<u8>, number: u32) -> usize {
    put_tag(out, number, BYTES);
    // Most messages have a length of one byte.
    out.push(0);
    out.len()
}

/// Ends the length-delimited field whose content begins at `start`: sets its length before it.
#[inline]
pub fn close(out: &mut Vec<u8>, start: usize) {
    let len = out.len() - start;
    if len < 0x80 {
        out[start - 1] = len as u8;
        return;
    }
    let mut length = Vec::with_capacity(5);
    put_varint(&mut length, len as u64);
    let more = length.len() - 1;
    out.resize(out.len() + more, 0);
    out.copy_within(start..start + len, start + more);
    out[start - 1..start + more].copy_from_slice(&length);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::wire::{Field, Message};

    #[test]
    fn lengths_of_any_size_stand_before_their_content() {
        for len in [0, 1, 127, 128, 16_383, 16_384, 3_000_000] {
            let content: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let mut out = vec![9, 9];
            let start = open(&mut out, 3);
            out.extend_from_slice(&content);
            close(&mut out, start);
            put_tag(&mut out, 16, VARINT);
            put_varint(&mut out, u64::MAX);
            let mut message = Message::new(&out[2..]);
            assert_eq!(message.next_field(), Ok(Some((3, Field::Bytes(&content)))));
            assert_eq!(message.next_field(), Ok(Some((16, Field::Varint(u64::MAX)))));
            assert_eq!(message.next_field(), Ok(None));
        }
    }
}
