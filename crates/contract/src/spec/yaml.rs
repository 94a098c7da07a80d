//! YAML as a tree whose every node knows its place, so that all errors of a file can be told.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// A value without its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A value and the bytes of the file that it stands in.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) span: Range<usize>,
}

/// A map's key and its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) span: Range<usize>,
}

impl Value {
    /// What it is, for messages.
    pub(super) fn what(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Str(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

/// Reads one YAML document.
pub(super) fn parse(text: &str) -> Result<Node, (Range<usize>, String)> {
    let tree: Spanned<Value> = serde_saphyr::from_str(text).map_err(|error| {
        let span = error.location().map_or(0..0, |location| match range(&location) {
            // Some errors know their line and column only.
            span if span.is_empty() => {
                let at = offset(text, location.line(), location.column());
                at..at + text[at..].chars().next().map_or(0, char::len_utf8)
            }
            span => span,
        });
        let whole = error.without_snippet().to_string();
        // The place is told with the file's name, not again in the message.
        let message = whole.rsplit_once(" at line ").map_or(whole.as_str(), |(head, _)| head);
        match indentation_tab(text, span.start).filter(|_| message.contains("tab")) {
            Some(at) => (at..at + 1, "a tab in the indentation".to_owned()),
            None => (span, message.to_owned()),
        }
    })?;
    Ok(node(tree))
}

/// The first tab that indents a line, from the line of byte `from` on: parsers complain about what
/// stands before or after it.
fn indentation_tab(text: &str, from: usize) -> Option<usize> {
    let mut start = text[..from.min(text.len())].rfind('\n').map_or(0, |at| at + 1);
    loop {
        let line = &text[start..];
        let indent = line.len() - line.trim_start_matches([' ', '\t']).len();
        if let Some(at) = line[..indent].find('\t') {
            return Some(start + at);
        }
        start += line.find('\n')? + 1;
    }
}

/// Bytes before `column` of `line`, both from 1.
fn offset(text: &str, line: u64, column: u64) -> usize {
    let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).max(1) - 1;
    let start = match number(line) {
        0 => 0,
        lines => text.match_indices('\n').nth(lines - 1).map_or(text.len(), |(at, _)| at + 1),
    };
    let rest = &text[start..];
    start + rest.char_indices().nth(number(column)).map_or(rest.len(), |(at, _)| at)
}

fn range(location: &serde_saphyr::Location) -> Range<usize> {
    let span = location.span();
    let start = span.byte_offset().and_then(|at| usize::try_from(at).ok()).unwrap_or(0);
    let len = span.byte_len().and_then(|len| usize::try_from(len).ok()).unwrap_or(0);
    start..start + len
}

fn node(spanned: Spanned<Value>) -> Node {
    // Of an alias, the place where it is used is the one to point at.
    Node { span: range(&spanned.referenced), value: spanned.value }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Tree)
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::Float(value as f64), Value::Int))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Str(value.to_owned()))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Value>>()? {
            list.push(node(item));
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some((key, value)) = entries.next_entry::<Spanned<String>, Spanned<Value>>()? {
            let key = Key { span: range(&key.referenced), name: key.value };
            map.push((key, node(value)));
        }
        Ok(Value::Map(map))
    }
}
