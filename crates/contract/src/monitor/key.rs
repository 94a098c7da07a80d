//! Keys as bytes: one part after the other, each so that equal texts have equal bytes and common
//! ids take few of them.

use lacuna_signal::Value;
use lacuna_signal::selector::FieldValue;

/// Any text: length as LEB128, then the text.
const TEXT: u8 = 0;
/// A UUID in lower case: 16 bytes.
const UUID: u8 = 1;
/// 32 hexadecimal digits in lower case: 16 bytes.
const HEX32: u8 = 2;
/// 16 hexadecimal digits in lower case: 8 bytes.
const HEX16: u8 = 3;
/// A number without sign or leading zeros: LEB128.
const NUMBER: u8 = 4;

/// Appends a field's value; `false` if it cannot be part of a key.
///
/// Empty text cannot: it is what is left of a key that somebody forgot, and would join strangers.
pub(super) fn push(value: FieldValue<'_>, key: &mut Vec<u8>) -> bool {
    match value {
        FieldValue::Value(Value::Any(_) | Value::Bytes(_) | Value::Base64(_)) => return false,
        FieldValue::Value(Value::Double(number)) if !number.is_finite() => return false,
        FieldValue::Trace(id) => {
            key.push(HEX32);
            key.extend(id.0);
            return true;
        }
        FieldValue::Span(id) => {
            key.push(HEX16);
            key.extend(id.0);
            return true;
        }
        _ => {}
    }
    let text = value.text();
    push_text(&text, key);
    !text.is_empty()
}

/// Appends a text.
pub(super) fn push_text(text: &str, key: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    let start = key.len();
    let hex = match bytes.len() {
        36 => Some(UUID),
        32 => Some(HEX32),
        16 => Some(HEX16),
        _ => None,
    };
    if let Some(tag) = hex {
        key.push(tag);
        if push_hex(bytes, tag == UUID, key) {
            return;
        }
        key.truncate(start);
    }
    let canonical = bytes.len() < 20
        && !bytes.is_empty()
        && bytes.iter().all(u8::is_ascii_digit)
        && (bytes[0] != b'0' || bytes.len() == 1);
    if let (true, Ok(number)) = (canonical, text.parse::<u64>()) {
        key.push(NUMBER);
        push_number(number, key);
        return;
    }
    key.push(TEXT);
    push_number(bytes.len() as u64, key);
    key.extend(bytes);
}

fn push_hex(bytes: &[u8], dashes: bool, key: &mut Vec<u8>) -> bool {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut high = None;
    for (i, byte) in bytes.iter().enumerate() {
        if dashes && matches!(i, 8 | 13 | 18 | 23) {
            if *byte != b'-' {
                return false;
            }
            continue;
        }
        let Some(value) = digit(*byte) else { return false };
        match high.take() {
            Some(first) => key.push(first << 4 | value),
            None => high = Some(value),
        }
    }
    true
}

fn push_number(mut number: u64, key: &mut Vec<u8>) {
    while number >= 0x80 {
        key.push(number as u8 | 0x80);
        number >>= 7;
    }
    key.push(number as u8);
}

/// The parts of a key as texts.
pub(super) fn parts(mut key: &[u8]) -> Vec<String> {
    let mut parts = Vec::new();
    while let Some((tag, rest)) = key.split_first() {
        let (text, rest) = match *tag {
            UUID => {
                let (id, rest) = rest.split_at(16.min(rest.len()));
                let hex = hex(id);
                let dashed = format!(
                    "{}-{}-{}-{}-{}",
                    &hex[..8],
                    &hex[8..12],
                    &hex[12..16],
                    &hex[16..20],
                    &hex[20..]
                );
                (dashed, rest)
            }
            HEX32 | HEX16 => {
                let length = if *tag == HEX32 { 16 } else { 8 };
                let (id, rest) = rest.split_at(length.min(rest.len()));
                (hex(id), rest)
            }
            NUMBER => {
                let (number, rest) = number(rest);
                (number.to_string(), rest)
            }
            _ => {
                let (length, rest) = number(rest);
                let length = usize::try_from(length).unwrap_or(0).min(rest.len());
                let (text, rest) = rest.split_at(length);
                (String::from_utf8_lossy(text).into_owned(), rest)
            }
        };
        parts.push(text);
        key = rest;
    }
    parts
}

fn number(bytes: &[u8]) -> (u64, &[u8]) {
    let mut number = 0;
    for (i, byte) in bytes.iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return (number, &bytes[i + 1..]);
        }
    }
    (number, &[])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn common_ids_are_short() {
        let mut key = Vec::new();
        push_text("123e4567-e89b-12d3-a456-426614174000", &mut key);
        assert_eq!(key.len(), 17);
        push_text("1234567", &mut key);
        assert_eq!(key.len(), 17 + 4);
        assert_eq!(parts(&key), ["123e4567-e89b-12d3-a456-426614174000", "1234567"]);
    }

    #[test]
    fn unlike_values_have_unlike_keys() {
        for (a, b) in [("01", "1"), ("ABCDEF0123456789", "abcdef0123456789")] {
            let (mut left, mut right) = (Vec::new(), Vec::new());
            push_text(a, &mut left);
            push_text(b, &mut right);
            assert_ne!(left, right);
        }
    }

    proptest! {
        #[test]
        fn keys_read_back(
            texts in prop::collection::vec(
                prop_oneof!["\\PC{0,40}", "[0-9]{1,20}", "[0-9a-f]{16}", "[0-9a-f]{32}", "[0-9A-F]{32}",
                    "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"],
                0..4,
            )
        ) {
            let mut key = Vec::new();
            texts.iter().for_each(|text| push_text(text, &mut key));
            prop_assert_eq!(parts(&key), texts);
        }
    }
}
