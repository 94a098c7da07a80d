//! What a compiled comparison asks of one value.

use std::cmp::Ordering;

use arrow::array::{Array, StringViewArray, make_view};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};
use regex::{Regex, RegexBuilder};

use super::ast::Op;
use crate::value::{Value, any_element};

/// A question to one value.
#[derive(Debug)]
pub(super) enum Test {
    /// Is there one?
    Exists,
    /// Is it text and does it pass?
    Text(TextTest),
    /// Is it a number and does the operator hold between it and this one?
    Number(Op, Number),
    /// Is it this boolean?
    Bool(bool),
}

impl Test {
    /// Asks an attribute's value, or each element of it if it is an array: one that passes is enough,
    /// as in TraceQL.
    pub(super) fn of(&self, value: &Value<'_>) -> bool {
        match value {
            Value::Any(text) if !matches!(self, Self::Exists) => {
                any_element(text, |element| self.value(element))
            }
            value => self.value(value),
        }
    }

    /// Asks an existing value.
    pub(super) fn value(&self, value: &Value<'_>) -> bool {
        match (self, value) {
            (Self::Exists, _) => true,
            (Self::Text(test), Value::Str(text)) => test.text(text),
            (Self::Number(op, number), Value::Int(value)) => number.int(*op, *value),
            (Self::Number(op, number), Value::Double(value)) => number.double(*op, *value),
            (Self::Bool(wanted), Value::Bool(value)) => wanted == value,
            _ => false,
        }
    }
}

/// The right side of a numeric comparison.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    Int(i64),
    Float(f64),
}

impl Number {
    pub(super) fn int(self, op: Op, value: i64) -> bool {
        op.holds(match self {
            Self::Int(number) => Some(value.cmp(&number)),
            Self::Float(number) => (value as f64).partial_cmp(&number),
        })
    }

    pub(super) fn double(self, op: Op, value: f64) -> bool {
        op.holds(match self {
            Self::Int(number) => value.partial_cmp(&(number as f64)),
            Self::Float(number) => value.partial_cmp(&number),
        })
    }
}

/// A question to a text.
#[derive(Debug)]
pub(super) enum TextTest {
    /// Is it the same (`true`) or another (`false`)?
    Same(String, bool),
    /// Is it ordered so, byte by byte?
    Order(Op, String),
    /// Does all of it match (`true`) or not (`false`)?
    Match(Pattern, bool),
}

impl TextTest {
    pub(super) fn text(&self, text: &str) -> bool {
        match self {
            Self::Same(other, wanted) => (text == other) == *wanted,
            Self::Order(op, other) => op.holds(Some(text.cmp(other))),
            Self::Match(pattern, wanted) => pattern.matches(text) == *wanted,
        }
    }

    /// Asks every row of a column; a null row says no.
    pub(super) fn column(&self, column: &StringViewArray) -> BooleanBuffer {
        let views = column.views();
        let mask = match self {
            Self::Same(text, wanted) if text.len() <= 12 => {
                // A short text lies in the view itself, padded with zeros.
                let target = make_view(text.as_bytes(), 0, 0);
                pack(views, |view| (*view == target) == *wanted)
            }
            Self::Same(text, wanted) => {
                // Length and first four bytes are in the view's lower half.
                let target = make_view(text.as_bytes(), 0, 0) as u64;
                pack_rows(views.len(), |row| {
                    (views[row] as u64 == target && column.value(row) == text) == *wanted
                })
            }
            Self::Order(op, other) => {
                pack_rows(views.len(), |row| op.holds(Some(column.value(row).cmp(other.as_str()))))
            }
            Self::Match(pattern, wanted) => {
                let prefix = &pattern.prefix.as_bytes()[..pattern.prefix.len().min(4)];
                let bits = prefix.len() * 8;
                let keep = if bits == 0 { 0 } else { u32::MAX >> (32 - bits) };
                let target =
                    prefix.iter().rev().fold(0u32, |word, byte| word << 8 | u32::from(*byte));
                pack_rows(views.len(), |row| {
                    let head = (views[row] >> 32) as u32;
                    (head & keep == target && pattern.matches(column.value(row))) == *wanted
                })
            }
        };
        with_nulls(mask, column.nulls())
    }
}

/// A regular expression that a whole text must match. `.` matches a line's end too, as in
/// TraceQL.
#[derive(Debug)]
pub(super) struct Pattern {
    regex: Regex,
    /// What every match starts with.
    prefix: String,
    rest: Rest,
}

/// Whether the whole of `text` matches `pattern`, as `=~` has it; a pattern that is none matches
/// nothing.
pub fn whole_match(pattern: &str, text: &str) -> bool {
    Pattern::new(pattern).is_ok_and(|pattern| pattern.matches(text))
}

/// What follows the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    Nothing,
    Anything,
    Regex,
}

/// Compiled regular expressions take at most this much memory each.
const REGEX_SIZE: usize = 1 << 20;

/// A regular expression of bounded size, or why it is none.
pub(super) fn build_regex(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern)
        .dot_matches_new_line(true)
        .size_limit(REGEX_SIZE)
        .build()
        .map_err(|error| reason(&error))
}

impl Pattern {
    pub(super) fn new(pattern: &str) -> Result<Self, String> {
        // Alone first: in a group, an unmatched bracket could close the group.
        build_regex(pattern)?;
        let regex = build_regex(&format!("^(?:{pattern})$"))?;
        let (prefix, rest) = literal_prefix(pattern);
        Ok(Self { regex, prefix, rest })
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        match self.rest {
            Rest::Nothing => text == self.prefix,
            Rest::Anything => text.starts_with(&self.prefix),
            Rest::Regex => text.starts_with(&self.prefix) && self.regex.is_match(text),
        }
    }
}

/// The last line of the regex crate's message, which says what is wrong.
fn reason(error: &regex::Error) -> String {
    let text = error.to_string();
    let line = text.lines().last().unwrap_or_default();
    format!("bad regular expression: {}", line.strip_prefix("error: ").unwrap_or(line))
}

/// What every match of `pattern` starts with, if that can be read off, and what follows.
fn literal_prefix(pattern: &str) -> (String, Rest) {
    const META: &str = r"\.+*?()|[]{}^$";
    if pattern.contains('|') {
        return (String::new(), Rest::Regex);
    }
    let end = pattern.find(|c| META.contains(c)).unwrap_or(pattern.len());
    let (mut prefix, rest) = pattern.split_at(end);
    if rest.is_empty() {
        return (prefix.to_owned(), Rest::Nothing);
    }
    if rest == ".*" {
        return (prefix.to_owned(), Rest::Anything);
    }
    if rest.starts_with(['?', '*', '+', '{']) {
        // The operator belongs to the last character.
        let last = prefix.chars().next_back().map_or(0, char::len_utf8);
        prefix = &prefix[..prefix.len() - last];
    }
    (prefix.to_owned(), Rest::Regex)
}

/// One bit an item.
pub(super) fn pack<T>(items: &[T], test: impl Fn(&T) -> bool) -> BooleanBuffer {
    let words: Vec<u64> = items
        .chunks(64)
        .map(|chunk| {
            chunk.iter().enumerate().fold(0, |word, (i, item)| word | u64::from(test(item)) << i)
        })
        .collect();
    BooleanBuffer::new(Buffer::from_vec(words), 0, items.len())
}

/// One bit a row.
pub(super) fn pack_rows(rows: usize, test: impl FnMut(usize) -> bool) -> BooleanBuffer {
    BooleanBuffer::collect_bool(rows, test)
}

/// `mask` without the null rows.
pub(super) fn with_nulls(mask: BooleanBuffer, nulls: Option<&NullBuffer>) -> BooleanBuffer {
    match nulls {
        Some(nulls) => &mask & nulls.inner(),
        None => mask,
    }
}

/// How two values compare: texts by bytes, numbers by size, booleans false first; `None` if they
/// cannot be compared.
pub(super) fn compare(left: &Value<'_>, right: &Value<'_>) -> Option<Ordering> {
    match (left, right) {
        (Value::Str(a), Value::Str(b)) => Some(a.cmp(b)),
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        _ => left.as_f64()?.partial_cmp(&right.as_f64()?),
    }
}
