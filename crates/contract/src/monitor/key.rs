//! Keys as bytes: one part after the other, each so that equal texts have equal bytes and common
//! ids take few of them.

use std::borrow::Cow;
use std::hash::{BuildHasher, Hasher};

use foldhash::quality::FixedState;
use lacuna_signal::Value;
use lacuna_signal::selector::FieldValue;

/// Keys are at most so many bytes long: of longer ones the parts are cut, and end in a digest of all.
pub(super) const MAX: usize = 4_096;
/// Keys of more parts than this are cut as one text.
const MAX_PARTS: usize = 32;
/// What a cut part takes beside what is left of it: tag, length, mark and digest.
const CUT: usize = 48;

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

/// A key of at most [`MAX`] bytes: itself, or, of a longer one, as many parts, of which the long ones
/// are cut and the last of those ends in a digest of the whole key.
pub(super) fn fit(key: &[u8]) -> Cow<'_, [u8]> {
    if key.len() <= MAX {
        return Cow::Borrowed(key);
    }
    let mut all = parts(key);
    if all.len() > MAX_PARTS {
        all = vec![all.join(", ")];
    }
    let room = MAX / all.len().max(1) - CUT;
    let last = all.iter().rposition(|part| part.len() > room);
    let mut short = Vec::with_capacity(MAX);
    for (i, part) in all.iter().enumerate() {
        if part.len() <= room {
            push_text(part, &mut short);
            continue;
        }
        let mut text = part[..part.floor_char_boundary(room)].to_owned();
        text.push('…');
        if Some(i) == last {
            text.push_str(&digest(key));
        }
        push_text(&text, &mut short);
    }
    Cow::Owned(short)
}

/// 32 hexadecimal digits that tell long keys apart.
fn digest(key: &[u8]) -> String {
    let half = |seed| {
        let mut hasher = FixedState::with_seed(seed).build_hasher();
        hasher.write(key);
        hasher.finish()
    };
    format!("{:016x}{:016x}", half(1), half(2))
}

/// The parts of a key as texts. Bytes that are no key give some texts.
pub(super) fn parts(mut key: &[u8]) -> Vec<String> {
    let mut parts = Vec::new();
    while let Some((tag, rest)) = key.split_first() {
        let (text, rest) = match *tag {
            UUID => {
                let (id, rest) = rest.split_at(16.min(rest.len()));
                (dashed(&hex(id)), rest)
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

/// A UUID's digits as they are written; of too few what there is.
fn dashed(hex: &str) -> String {
    let groups = [0..8, 8..12, 12..16, 16..20, 20..32].map(|group| hex.get(group));
    let whole: Option<Vec<&str>> = groups.into_iter().collect();
    whole.map_or_else(|| hex.to_owned(), |groups| groups.join("-"))
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

    /// A part of a key: an id, a number, or a text that may be far too long.
    fn part() -> impl Strategy<Value = String> {
        prop_oneof![
            3 => "\\PC{1,40}",
            2 => "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
            1 => "[0-9a-f]{16}",
            3 => (prop::sample::select(&["x", "é", "🦀"][..]), 0usize..6_000)
                .prop_map(|(text, times)| text.repeat(times / text.len())),
            // About as long as fits.
            3 => (4_060usize..4_100).prop_map(|length| "y".repeat(length)),
        ]
    }

    fn key_of(parts: &[String]) -> Vec<u8> {
        let mut key = Vec::new();
        parts.iter().for_each(|part| push_text(part, &mut key));
        key
    }

    proptest! {
        #[test]
        fn keys_of_any_length_fit_and_stay_apart(
            parts in prop::collection::vec(part(), 1..40),
            other in prop::collection::vec(part(), 1..4),
        ) {
            let key = key_of(&parts);
            let short = fit(&key);
            prop_assert!(short.len() <= MAX, "{}", short.len());
            let read = super::parts(&short);
            if key.len() <= MAX {
                prop_assert_eq!(&read, &parts);
            } else if parts.len() <= MAX_PARTS {
                prop_assert_eq!(read.len(), parts.len());
                for (read, part) in read.iter().zip(&parts) {
                    let start = read.split('…').next().unwrap_or_default();
                    prop_assert!(read == part || part.starts_with(start));
                }
            }
            // As it is told it can be asked for again.
            let again = key_of(&read);
            prop_assert_eq!(&*fit(&again), &*short);
            let other = key_of(&other);
            prop_assert!(other == key || fit(&other) != short);
            // Two long ones that differ at the end alone.
            let mut longer = parts;
            longer.last_mut().unwrap().push('z');
            prop_assert_ne!(fit(&key_of(&longer)).into_owned(), short.into_owned());
        }

        #[test]
        fn any_bytes_have_parts(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = super::parts(&bytes);
            let long = [bytes, vec![UUID; MAX]].concat();
            prop_assert!(fit(&long).len() <= MAX);
        }

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
