//! `AnyValue` and `KeyValue` as they stand in a request.

use crate::column::{Buffers, Text};
use crate::schema::AttrType;
use crate::value::{base64, double_text};

use super::wire::{Message, WireError, read_varint};

/// Arrays and key-value lists nested deeper than this are refused. No emitter comes near; protobuf
/// readers refuse more than 100 messages in one another, and a level of a key-value list is three.
pub const MAX_DEPTH: usize = 30;

/// A value of an attribute or a log's body, borrowed from the request.
#[derive(Debug, Clone, Copy)]
pub enum AnyValue<'a> {
    /// Text; not yet checked to be UTF-8.
    Str(&'a [u8]),
    /// 64-bit signed integer.
    Int(i64),
    /// Double.
    Double(f64),
    /// Boolean.
    Bool(bool),
    /// Bytes.
    Bytes(&'a [u8]),
    /// Array, key-value list or nothing: OTLP/JSON text in the written buffer.
    Any(Text<'static>),
}

impl<'a> AnyValue<'a> {
    /// Its type.
    pub fn ty(&self) -> AttrType {
        match self {
            Self::Str(_) => AttrType::Str,
            Self::Int(_) => AttrType::Int,
            Self::Double(_) => AttrType::Double,
            Self::Bool(_) => AttrType::Bool,
            Self::Bytes(_) => AttrType::Bytes,
            Self::Any(_) => AttrType::Any,
        }
    }

    /// The value as the text that a nested attribute list holds.
    pub fn nested_text(&self, buffers: &mut Buffers) -> Text<'a> {
        match *self {
            Self::Str(bytes) => Text::Body(bytes),
            Self::Int(value) => buffers.write(&value.to_string()),
            Self::Double(value) => buffers.write(&double_text(value)),
            Self::Bool(value) => buffers.write(if value { "true" } else { "false" }),
            Self::Bytes(bytes) => buffers.write(&base64(bytes)),
            Self::Any(text) => text,
        }
    }

    /// Reads the `AnyValue` message in `bytes`.
    pub fn parse(
        bytes: &'a [u8],
        buffers: &mut Buffers,
        check_text: bool,
    ) -> Result<Self, WireError> {
        let mut message = Message::new(bytes);
        let mut value = None;
        let mut composite = false;
        while let Some((number, field)) = message.next_field()? {
            // The last of several fields of a `oneof` counts (protobuf, "Oneof Features").
            value = match number {
                1 => Some(Self::Str(text(field.bytes(1)?, check_text)?)),
                2 => Some(Self::Bool(field.varint(2)? != 0)),
                3 => Some(Self::Int(field.varint(3)? as i64)),
                4 => Some(Self::Double(f64::from_bits(field.fixed64(4)?))),
                7 => Some(Self::Bytes(field.bytes(7)?)),
                5 | 6 => {
                    field.bytes(number)?;
                    None
                }
                _ => continue,
            };
            composite = matches!(number, 5 | 6);
        }
        if let (Some(value), false) = (value, composite) {
            return Ok(value);
        }
        json_text(bytes, buffers).map(Self::Any)
    }
}

/// Writes the `AnyValue` message in `bytes` as OTLP/JSON and says where.
pub fn json_text(bytes: &[u8], buffers: &mut Buffers) -> Result<Text<'static>, WireError> {
    let start = buffers.written.len();
    write_json(bytes, &mut buffers.written, 0)?;
    Ok(Text::Written(start, buffers.written.len()))
}

fn text(bytes: &[u8], check: bool) -> Result<&[u8], WireError> {
    if check {
        utf8(bytes)?;
    }
    Ok(bytes)
}

fn utf8(bytes: &[u8]) -> Result<&str, WireError> {
    std::str::from_utf8(bytes).map_err(|_| WireError::Utf8)
}

/// An attribute, borrowed from the request.
#[derive(Debug, Clone, Copy)]
pub struct KeyValue<'a> {
    /// The key; not yet checked to be UTF-8.
    pub key: &'a [u8],
    /// The value.
    pub value: AnyValue<'a>,
}

impl<'a> KeyValue<'a> {
    /// Reads the `KeyValue` message in `bytes`.
    #[inline]
    pub fn parse(
        bytes: &'a [u8],
        buffers: &mut Buffers,
        check_text: bool,
    ) -> Result<Self, WireError> {
        match Self::usual(bytes) {
            Some(usual) if !check_text => Ok(usual),
            _ => Self::any(bytes, buffers, check_text),
        }
    }

    /// Reads what nearly all emitters write: a key, then a text, number or boolean, then nothing,
    /// each length in one byte. `None` if it is anything else.
    #[inline]
    fn usual(bytes: &'a [u8]) -> Option<Self> {
        let [0x0a, len @ ..0x80, rest @ ..] = bytes else { return None };
        let (key, rest) = rest.split_at_checked(usize::from(*len))?;
        let [0x12, len @ ..0x80, value @ ..] = rest else { return None };
        if usize::from(*len) != value.len() {
            return None;
        }
        let value = match value {
            [0x0a, len, text @ ..] if usize::from(*len) == text.len() => AnyValue::Str(text),
            [0x10, flag @ ..2] => AnyValue::Bool(*flag == 1),
            [0x18, number @ ..] => match read_varint(number) {
                Ok((value, len)) if len == number.len() => AnyValue::Int(value as i64),
                _ => return None,
            },
            [0x21, number @ ..] => AnyValue::Double(f64::from_le_bytes(number.try_into().ok()?)),
            _ => return None,
        };
        Some(Self { key, value })
    }

    fn any(bytes: &'a [u8], buffers: &mut Buffers, check_text: bool) -> Result<Self, WireError> {
        let (key, value) = key_and_value(bytes)?;
        Ok(Self {
            key: text(key, check_text)?,
            value: AnyValue::parse(value, buffers, check_text)?,
        })
    }
}

fn key_and_value(bytes: &[u8]) -> Result<(&[u8], &[u8]), WireError> {
    let mut message = Message::new(bytes);
    let (mut key, mut value): (&[u8], &[u8]) = (&[], &[]);
    while let Some((number, field)) = message.next_field()? {
        match number {
            1 => key = field.bytes(1)?,
            2 => value = field.bytes(2)?,
            _ => {}
        }
    }
    Ok((key, value))
}

/// Writes the `AnyValue` message in `bytes` as OTLP/JSON.
fn write_json(bytes: &[u8], out: &mut Vec<u8>, depth: usize) -> Result<(), WireError> {
    if depth > MAX_DEPTH {
        return Err(WireError::Depth);
    }
    let start = out.len();
    let mut message = Message::new(bytes);
    while let Some((number, field)) = message.next_field()? {
        let end = out.len();
        match number {
            1 => {
                out.extend_from_slice(b"{\"stringValue\":");
                write_string(field.bytes(1)?, out)?;
            }
            2 => write_member(out, "boolValue", &(field.varint(2)? != 0).to_string()),
            3 => write_member(out, "intValue", &format!("\"{}\"", field.varint(3)? as i64)),
            4 => {
                let value = f64::from_bits(field.fixed64(4)?);
                let text = double_text(value);
                let text = if value.is_finite() { text } else { format!("\"{text}\"") };
                write_member(out, "doubleValue", &text);
            }
            5 => {
                out.extend_from_slice(b"{\"arrayValue\":{\"values\":[");
                write_items(field.bytes(5)?, out, |item, out| write_json(item, out, depth + 1))?;
                out.extend_from_slice(b"]}");
            }
            6 => {
                out.extend_from_slice(b"{\"kvlistValue\":{\"values\":[");
                write_items(field.bytes(6)?, out, |item, out| {
                    let (key, value) = key_and_value(item)?;
                    out.extend_from_slice(b"{\"key\":");
                    write_string(key, out)?;
                    out.extend_from_slice(b",\"value\":");
                    write_json(value, out, depth + 1)?;
                    out.push(b'}');
                    Ok(())
                })?;
                out.extend_from_slice(b"]}");
            }
            7 => write_member(out, "bytesValue", &format!("\"{}\"", base64(field.bytes(7)?))),
            _ => continue,
        }
        // The last of several fields of a `oneof` counts.
        out.drain(start..end);
        out.push(b'}');
    }
    if out.len() == start {
        out.extend_from_slice(b"{}");
    }
    Ok(())
}

fn write_member(out: &mut Vec<u8>, name: &str, json: &str) {
    out.extend_from_slice(b"{\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    out.extend_from_slice(json.as_bytes());
}

fn write_items(
    list: &[u8],
    out: &mut Vec<u8>,
    mut write: impl FnMut(&[u8], &mut Vec<u8>) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let mut message = Message::new(list);
    let mut first = true;
    while let Some((number, field)) = message.next_field()? {
        if number == 1 {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            write(field.bytes(1)?, out)?;
        }
    }
    Ok(())
}

fn write_string(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
    // Writing a string to a vector cannot fail.
    serde_json::to_writer(out, utf8(bytes)?).map_err(|_| WireError::Utf8)
}
