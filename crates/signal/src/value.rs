//! Attribute values, and reading them from a batch by key or by row.

mod composite;

use std::borrow::Cow;

use arrow::array::{
    Array, AsArray, BinaryViewArray, BooleanArray, Float64Array, Int64Array, ListArray,
    StringViewArray, StructArray,
};
use arrow::datatypes::{Float64Type, Int64Type, UInt8Type};

use crate::batch::Batch;
use crate::schema::{AttrType, OVERFLOW, Scope, attribute_column, parse_attribute_column};

pub use composite::{any_element, plain_json};

/// An attribute's value, borrowed from its batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// UTF-8 text.
    Str(&'a str),
    /// 64-bit signed integer.
    Int(i64),
    /// IEEE 754 double.
    Double(f64),
    /// Boolean.
    Bool(bool),
    /// Bytes, from an attribute column.
    Bytes(&'a [u8]),
    /// Bytes, from a nested attribute list: in base64.
    Base64(&'a str),
    /// An array, key-value list or empty value: the OTLP/JSON text of its `AnyValue`.
    Any(&'a str),
}

impl Value<'_> {
    /// The value as text, as Lacuna's keys and indexes compare it: strings as they are,
    /// integers in decimal, doubles in their shortest exact form, `true` and `false`, bytes in
    /// base64, anything else as OTLP/JSON.
    pub fn to_text(&self) -> String {
        match *self {
            Self::Str(text) | Self::Base64(text) | Self::Any(text) => text.to_owned(),
            Self::Int(value) => value.to_string(),
            Self::Double(value) => double_text(value),
            Self::Bool(value) => value.to_string(),
            Self::Bytes(bytes) => base64(bytes),
        }
    }

    /// The value as text, as it is shown and Jaeger's tag search compares it: as [`Self::to_text`], but
    /// arrays and key-value lists as plain JSON.
    pub fn shown(&self) -> Cow<'_, str> {
        match self {
            Self::Str(text) | Self::Base64(text) => Cow::Borrowed(text),
            Self::Any(text) => Cow::Owned(plain_json(text)),
            other => Cow::Owned(other.to_text()),
        }
    }

    /// The value as a number, if it is an integer or a double.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::Int(value) => Some(value as f64),
            Self::Double(value) => Some(value),
            _ => None,
        }
    }
}

/// A double in its shortest decimal form that reads back the same; `NaN`, `Infinity` and
/// `-Infinity` as protobuf's JSON mapping writes them.
pub fn double_text(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity".to_owned() } else { "-Infinity".to_owned() }
    } else {
        format!("{value:?}").trim_end_matches(".0").to_owned()
    }
}

/// Standard base64 with padding (RFC 4648, section 4).
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for i in 0..4 {
            if i <= chunk.len() {
                text.push(char::from(DIGITS[(word >> (18 - 6 * i)) as usize & 63]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

/// One attribute column, by type.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Typed<'a> {
    Str(&'a StringViewArray),
    Int(&'a Int64Array),
    Double(&'a Float64Array),
    Bool(&'a BooleanArray),
    Bytes(&'a BinaryViewArray),
    Any(&'a StringViewArray),
}

impl<'a> Typed<'a> {
    fn resolve(batch: &'a Batch, ty: AttrType, name: &str) -> Option<Self> {
        Some(Self::of(batch.column(name)?.as_ref(), ty))
    }

    pub(crate) fn of(column: &'a dyn Array, ty: AttrType) -> Self {
        match ty {
            AttrType::Str => Self::Str(column.as_string_view()),
            AttrType::Int => Self::Int(column.as_primitive::<Int64Type>()),
            AttrType::Double => Self::Double(column.as_primitive::<Float64Type>()),
            AttrType::Bool => Self::Bool(column.as_boolean()),
            AttrType::Bytes => Self::Bytes(column.as_binary_view()),
            AttrType::Any => Self::Any(column.as_string_view()),
        }
    }

    pub(crate) fn get(&self, row: usize) -> Option<Value<'a>> {
        match *self {
            Self::Str(a) => a.is_valid(row).then(|| Value::Str(a.value(row))),
            Self::Int(a) => a.is_valid(row).then(|| Value::Int(a.value(row))),
            Self::Double(a) => a.is_valid(row).then(|| Value::Double(a.value(row))),
            Self::Bool(a) => a.is_valid(row).then(|| Value::Bool(a.value(row))),
            Self::Bytes(a) => a.is_valid(row).then(|| Value::Bytes(a.value(row))),
            Self::Any(a) => a.is_valid(row).then(|| Value::Any(a.value(row))),
        }
    }
}

/// One attribute of a batch: its columns of every type, found once and read by row.
#[derive(Debug)]
pub struct Attribute<'a> {
    columns: Vec<Typed<'a>>,
    overflow: Option<(&'a ListArray, String)>,
}

impl<'a> Attribute<'a> {
    /// The value in `row`, or `None` if the row has no such attribute.
    pub fn get(&self, row: usize) -> Option<Value<'a>> {
        self.columns.iter().find_map(|column| column.get(row)).or_else(|| {
            let (list, key) = self.overflow.as_ref()?;
            AttributeList::in_row(list, row)?.iter().find(|(k, _)| k == key).map(|(_, v)| v)
        })
    }

    /// Whether no row of the batch can have the attribute.
    pub fn is_absent(&self) -> bool {
        self.columns.is_empty() && self.overflow.is_none()
    }
}

/// A nested attribute list: of one event, link, exemplar or of a row's overflow.
#[derive(Debug, Clone, Copy)]
pub struct AttributeList<'a> {
    items: &'a StructArray,
    start: usize,
    end: usize,
}

impl<'a> AttributeList<'a> {
    /// The list in `row` of `lists`; `None` if it is null there or of another type.
    pub fn in_row(lists: &'a ListArray, row: usize) -> Option<Self> {
        if lists.is_null(row) {
            return None;
        }
        let items = lists.values().as_struct_opt()?;
        let offsets = lists.value_offsets();
        let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
        Some(Self { items, start, end })
    }

    /// Keys and values, in the order in which the emitter gave them.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Value<'a>)> + use<'a> {
        let keys = self.items.column(0).as_string_view();
        let types = self.items.column(1).as_primitive::<UInt8Type>();
        let values = self.items.column(2).as_string_view();
        (self.start..self.end).map(move |i| {
            let text = values.value(i);
            let value = match AttrType::from_code(types.value(i)) {
                Some(AttrType::Str) => Value::Str(text),
                Some(AttrType::Int) => text.parse().map_or(Value::Str(text), Value::Int),
                Some(AttrType::Double) => text.parse().map_or(Value::Str(text), Value::Double),
                Some(AttrType::Bool) => Value::Bool(text == "true"),
                Some(AttrType::Bytes) => Value::Base64(text),
                Some(AttrType::Any) | None => Value::Any(text),
            };
            (keys.value(i), value)
        })
    }

    /// Number of attributes.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// All attributes of one scope of a batch, found once and read by row.
#[derive(Debug)]
pub struct Attributes<'a> {
    columns: Vec<(&'a str, Typed<'a>)>,
    overflow: Option<&'a ListArray>,
    prefix: String,
}

impl<'a> Attributes<'a> {
    /// Keys and values of `row`, by key; the overflow's after.
    pub fn of_row<'s>(&'s self, row: usize) -> impl Iterator<Item = (&'a str, Value<'a>)> + 's {
        let columns = self.columns.iter().filter_map(move |(key, c)| Some((*key, c.get(row)?)));
        let overflow = self.overflow.and_then(|list| AttributeList::in_row(list, row));
        let overflow = overflow.into_iter().flat_map(|list| list.iter());
        columns.chain(
            overflow.filter_map(|(key, value)| Some((key.strip_prefix(&self.prefix)?, value))),
        )
    }
}

impl Batch {
    /// The attribute `key` of `scope`, whatever types it has.
    pub fn attribute(&self, scope: Scope, key: &str) -> Attribute<'_> {
        let columns = AttrType::ALL
            .into_iter()
            .filter_map(|ty| Typed::resolve(self, ty, &attribute_column(scope, ty, key)))
            .collect();
        let overflow =
            self.overflow().map(|list| (list, attribute_column(scope, AttrType::Str, key)));
        Attribute { columns, overflow }
    }

    /// All attributes of `scope`.
    pub fn attributes(&self, scope: Scope) -> Attributes<'_> {
        let mut columns: Vec<_> = self
            .schema()
            .fields()
            .iter()
            .enumerate()
            .filter_map(|(at, field)| {
                let (column_scope, ty, key) = parse_attribute_column(field.name())?;
                if column_scope != scope {
                    return None;
                }
                Some((key, Typed::of(self.column_at(at)?.as_ref(), ty)))
            })
            .collect();
        columns.sort_by_key(|(key, _)| *key);
        Attributes { columns, overflow: self.overflow(), prefix: format!("{}.", scope.name()) }
    }

    fn overflow(&self) -> Option<&ListArray> {
        self.column(OVERFLOW)?.as_list_opt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_matches_rfc_4648() {
        let vectors = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, encoded) in vectors {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn doubles_read_back() {
        for value in [0.1, 1.0, -2.5e300, f64::MIN_POSITIVE, 1e21] {
            assert_eq!(double_text(value).parse::<f64>().unwrap(), value);
        }
        assert_eq!(double_text(3.0), "3");
        assert_eq!(double_text(f64::NEG_INFINITY), "-Infinity");
    }
}
