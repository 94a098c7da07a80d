//! Values that are not messages.

use super::error::Stop;
use super::fields::{Field, Value};
use super::parse::{Json, Kind};
use super::write::{BYTES, FIXED32, FIXED64, VARINT, put_bytes, put_varint};
use super::{Encoder, expect};

impl Value {
    /// The wire type of one value.
    pub fn wire_type(&self) -> u32 {
        match self {
            Self::Bool
            | Self::Uint32
            | Self::Sint32
            | Self::Int64
            | Self::Uint64
            | Self::Enum(_) => VARINT,
            Self::Double | Self::Fixed64 | Self::Sfixed64 | Self::Time => FIXED64,
            Self::Fixed32 => FIXED32,
            Self::Text
            | Self::Id { .. }
            | Self::AnyId
            | Self::Base64
            | Self::Message(_)
            | Self::Any => BYTES,
        }
    }
}

impl Encoder<'_> {
    /// Writes the value at the cursor, without its tag. A message has none here.
    pub fn scalar(&mut self, field: &'static Field) -> Result<(), Stop> {
        let (json, out) = (&mut self.json, &mut self.out);
        match &field.value {
            Value::Text => put_bytes(out, text(json)?.as_bytes()),
            Value::Id { bytes, required } => put_id(out, text(json)?, *bytes, *required)?,
            Value::AnyId => put_hex(out, text(json)?, "hexadecimal digits")?,
            Value::Base64 => put_base64(out, text(json)?)?,
            Value::Bool => out.push(u8::from(boolean(json)?)),
            Value::Double => out.extend_from_slice(&double(json)?.to_le_bytes()),
            Value::Uint32 => put_varint(out, integer(json, 0, u32::MAX.into())? as u64),
            Value::Fixed32 => {
                let value = integer(json, 0, u32::MAX.into())? as u32;
                out.extend_from_slice(&value.to_le_bytes());
            }
            Value::Sint32 => {
                let value = integer(json, i32::MIN.into(), i32::MAX.into())? as i32;
                put_varint(out, u64::from((value << 1 ^ value >> 31) as u32));
            }
            Value::Int64 => {
                put_varint(out, integer(json, i64::MIN.into(), i64::MAX.into())? as u64)
            }
            Value::Uint64 => put_varint(out, integer(json, 0, u64::MAX.into())? as u64),
            Value::Fixed64 => {
                let value = integer(json, 0, u64::MAX.into())? as u64;
                out.extend_from_slice(&value.to_le_bytes());
            }
            Value::Sfixed64 => {
                let value = integer(json, i64::MIN.into(), i64::MAX.into())? as i64;
                out.extend_from_slice(&value.to_le_bytes());
            }
            Value::Time => {
                let value = integer(json, 0, i64::MAX.into())? as u64;
                out.extend_from_slice(&value.to_le_bytes());
            }
            Value::Enum(names) => put_varint(out, enumeration(json, names)? as u64),
            Value::Message(_) | Value::Any => {
                debug_assert!(false, "a message is not a scalar");
            }
        }
        Ok(())
    }
}

fn text<'j>(json: &'j mut Json<'_>) -> Result<&'j str, Stop> {
    expect(json, Kind::Text)?;
    json.text()
}

/// `text` in quotes, cut to a length that a message can hold.
fn quoted(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((at, _)) => format!("\"{}…\"", &text[..at]),
        None => format!("\"{text}\""),
    }
}

fn put_id(out: &mut Vec<u8>, text: &str, bytes: usize, required: bool) -> Result<(), Stop> {
    if text.is_empty() && !required {
        put_bytes(out, &[]);
        return Ok(());
    }
    if text.len() != bytes * 2 {
        if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let what = format!("{} is not hex: expected {} digits", quoted(text), bytes * 2);
            return Err(Stop::bad(what));
        }
        let what = format!("{} has {} digits, expected {}", quoted(text), text.len(), bytes * 2);
        return Err(Stop::bad(what));
    }
    put_hex(out, text, if bytes == 16 { "32 digits" } else { "16 digits" })?;
    if required && out[out.len() - bytes..].iter().all(|byte| *byte == 0) {
        return Err(Stop::bad("is all zero"));
    }
    Ok(())
}

fn put_hex(out: &mut Vec<u8>, text: &str, expected: &str) -> Result<(), Stop> {
    put_varint(out, text.len() as u64 / 2);
    let start = out.len();
    out.resize(start + text.len() / 2, 0);
    hex::decode_to_slice(text, &mut out[start..])
        .map_err(|_| Stop::bad(format!("{} is not hex: expected {expected}", quoted(text))))
}

/// Base64 of either alphabet, with padding or without (RFC 4648, sections 4 and 5).
fn put_base64(out: &mut Vec<u8>, text: &str) -> Result<(), Stop> {
    let bad = || Stop::bad(format!("{} is not base64", quoted(text)));
    let digits = text.trim_end_matches('=').as_bytes();
    if digits.len() % 4 == 1 || text.len() - digits.len() > 2 {
        return Err(bad());
    }
    put_varint(out, digits.len() as u64 * 3 / 4);
    for chunk in digits.chunks(4) {
        let mut word = 0u32;
        for digit in chunk {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'+' | b'-' => 62,
                b'/' | b'_' => 63,
                _ => return Err(bad()),
            };
            word = word << 6 | u32::from(value);
        }
        let word = (word << (6 * (4 - chunk.len()))).to_be_bytes();
        out.extend_from_slice(&word[1..chunk.len()]);
    }
    Ok(())
}

fn boolean(json: &mut Json<'_>) -> Result<bool, Stop> {
    let word = match json.peek()? {
        Kind::Text => json.text()?,
        _ => {
            expect(json, Kind::Bool)?;
            json.word()?
        }
    };
    match word {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(Stop::bad(format!("{} is not a boolean", quoted(other)))),
    }
}

/// The text of a number that may stand in quotes.
fn number<'j>(json: &'j mut Json<'_>) -> Result<&'j str, Stop> {
    match json.peek()? {
        Kind::Text => json.text(),
        Kind::Number => Ok(json.number()?),
        other => Err(Stop::bad(format!("expected a number, found {}", other.name()))),
    }
}

fn integer(json: &mut Json<'_>, min: i128, max: i128) -> Result<i128, Stop> {
    let text = number(json)?;
    let value = match text.parse::<i64>() {
        Ok(value) => Some(value.into()),
        Err(_) => text.parse::<i128>().ok().or_else(|| whole(text)),
    };
    match value {
        Some(value) if (min..=max).contains(&value) => Ok(value),
        Some(_) => {
            Err(Stop::bad(format!("{} is out of range, expected {min} to {max}", quoted(text))))
        }
        None => Err(Stop::bad(format!("{} is not an integer", quoted(text)))),
    }
}

/// A whole number that is written with a fraction or an exponent, such as `1e9` or `5.0`.
fn whole(text: &str) -> Option<i128> {
    let value = decimal(text)?;
    (value.fract() == 0.0 && value.abs() < 2f64.powi(100)).then_some(value as i128)
}

fn decimal(text: &str) -> Option<f64> {
    // `str::parse` would take `inf` and `nan` as well.
    if text.bytes().any(|byte| !matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')) {
        return None;
    }
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

fn double(json: &mut Json<'_>) -> Result<f64, Stop> {
    let text = number(json)?;
    match text {
        "NaN" => Ok(f64::NAN),
        "Infinity" => Ok(f64::INFINITY),
        "-Infinity" => Ok(f64::NEG_INFINITY),
        _ => decimal(text).ok_or_else(|| {
            let what = "is not a number that a double can hold, nor \"NaN\" or \"Infinity\"";
            Stop::bad(format!("{} {what}", quoted(text)))
        }),
    }
}

fn enumeration(json: &mut Json<'_>, names: &[(&str, i32)]) -> Result<i64, Stop> {
    if json.peek()? == Kind::Text {
        let text = json.text()?;
        if let Some((_, value)) = names.iter().find(|(name, _)| *name == text) {
            return Ok((*value).into());
        }
        return text.parse::<i32>().map(i64::from).map_err(|_| {
            let [(first, low), .., (last, high)] = names else {
                return Stop::bad("has no values");
            };
            Stop::bad(format!(
                "{} is not known: expected {low} to {high} or a name, {first} to {last}",
                quoted(text)
            ))
        });
    }
    Ok(integer(json, i32::MIN.into(), i32::MAX.into())? as i64)
}
