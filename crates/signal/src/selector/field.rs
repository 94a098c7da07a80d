//! Reading a field of a row: for keys, sums and comparisons of two fields.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use regex::Regex;

use super::ast::{Literal, Op, SpanKind, StatusCode};
use super::attribute::{AttributeColumns, BoundAttribute};
use super::error::{Complaint, SelectorError};
use super::fields::{Field, FieldScope, Intrinsic};
use super::index::BatchIndex;
use super::{check, parser, whole};
use crate::ids::{SpanId, TraceId};
use crate::rows::{LogRows, PointRows, SpanRows};
use crate::schema::{Scope, SignalKind};
use crate::value::{AttributeList, Typed, Value};

/// A field prepared for reading from batch after batch.
#[derive(Debug, Clone)]
pub struct FieldAccess {
    kind: SignalKind,
    field: Field,
    /// Where an attribute lies, first choice first.
    columns: Vec<AttributeColumns>,
    /// The part of a text that is wanted: what the expression's one group matches.
    extract: Option<Regex>,
}

impl FieldAccess {
    pub(super) fn new(kind: SignalKind, field: Field) -> Self {
        let columns = match &field {
            Field::Attribute { scope, key } => places(kind, *scope, key),
            Field::Intrinsic(_) => Vec::new(),
        };
        Self { kind, field, columns, extract: None }
    }

    /// Prepares `field` of rows of `kind`.
    ///
    /// # Errors
    /// If rows of `kind` have no such field.
    pub fn try_new(kind: SignalKind, field: Field) -> Result<Self, SelectorError> {
        let fail = |complaint: Complaint| SelectorError::in_term(field.to_string(), complaint);
        check::check_field(kind, &field, false).map_err(fail)?;
        Ok(Self::new(kind, field))
    }

    /// Reads a field's name, such as `span.correlation_id`, `name` or `trace:id`; or the part of a
    /// text, such as `body =~ "order (\\d+) .*"`: what the one group of a regular expression
    /// matches at its first match, anywhere in the text.
    ///
    /// # Errors
    /// If rows of `kind` have no such field, or the expression is none or has not one group.
    pub fn parse(kind: SignalKind, text: &str) -> Result<Self, SelectorError> {
        let Some((name, pattern)) = text.split_once("=~") else {
            return Ok(Self::new(kind, parser::parse_field(kind, text)?));
        };
        let field = parser::parse_field(kind, name)?;
        let at = text.len() - pattern.trim_start().len();
        let fail = |problem: String, help: &str| {
            SelectorError::at(text, at, text.len() - at, Complaint::new(problem, help))
        };
        let help = "write the expression in quotes, with one group around what is wanted, such as \
                    body =~ \"order ([0-9]+) .*\"";
        let pattern = parser::parse_text(pattern)
            .ok_or_else(|| fail("expected a regular expression in quotes".to_owned(), help))?;
        let regex = extraction(&pattern).map_err(|problem| fail(problem, help))?;
        let mut access = Self::new(kind, field);
        access.extract = Some(regex);
        Ok(access)
    }

    /// The field.
    pub fn field(&self) -> &Field {
        &self.field
    }

    /// The kind of signal that it is a field of.
    pub fn kind(&self) -> SignalKind {
        self.kind
    }

    /// Looks up its columns in a batch.
    pub fn bind<'a>(&self, batch: &BatchIndex<'a>) -> FieldReader<'a> {
        let attributes = self.columns.iter().map(|columns| columns.bind(batch));
        let attributes: Vec<_> = attributes.filter(|attribute| !attribute.is_absent()).collect();
        let source = match &self.field {
            Field::Attribute { scope: FieldScope::Event, key } => {
                Source::Event(SpanRows::new(batch.batch()), key.clone())
            }
            Field::Attribute { scope: FieldScope::Link, key } => {
                Source::Link(SpanRows::new(batch.batch()), key.clone())
            }
            Field::Attribute { .. } => Source::Attributes(attributes),
            Field::Intrinsic(intrinsic) if intrinsic.is_whole() => {
                Source::Attributes(of_trace(*intrinsic, batch).into_iter().collect())
            }
            Field::Intrinsic(intrinsic) if self.kind == SignalKind::Logs => {
                Source::Log(LogRows::new(batch.batch()), *intrinsic)
            }
            Field::Intrinsic(intrinsic) if self.kind == SignalKind::Points => {
                Source::Point(PointRows::new(batch.batch()), *intrinsic)
            }
            Field::Intrinsic(intrinsic) => Source::Span(SpanRows::new(batch.batch()), *intrinsic),
        };
        // A batch of another kind has no such field at all.
        let source =
            if batch.kind() == self.kind { source } else { Source::Attributes(Vec::new()) };
        FieldReader { source, batch: batch.batch(), extract: self.extract.clone() }
    }
}

impl PartialEq for FieldAccess {
    fn eq(&self, other: &Self) -> bool {
        let pattern =
            |access: &Self| access.extract.as_ref().map(|regex| regex.as_str().to_owned());
        self.kind == other.kind && self.field == other.field && pattern(self) == pattern(other)
    }
}

/// As [`FieldAccess::parse`] reads it.
impl fmt::Display for FieldAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.field)?;
        match &self.extract {
            Some(regex) => write!(f, " =~ {}", Literal::Str(regex.as_str().to_owned())),
            None => Ok(()),
        }
    }
}

/// An expression with one group.
fn extraction(pattern: &str) -> Result<Regex, String> {
    let regex = super::term::build_regex(pattern)?;
    match regex.captures_len() - 1 {
        1 => Ok(regex),
        0 => Err("the expression has no group".to_owned()),
        n => Err(format!("the expression has {n} groups: write `(?:…)` for the others")),
    }
}

/// Where an attribute lies, first choice first.
fn places(kind: SignalKind, scope: FieldScope, key: &str) -> Vec<AttributeColumns> {
    let own = |scope: Scope| AttributeColumns::new(scope, key);
    let of_parent = |scope: Scope| AttributeColumns::of_parent(scope, key);
    match scope {
        FieldScope::Unscoped => vec![own(kind.own_scope()), own(Scope::Resource)],
        FieldScope::Any => {
            vec![own(kind.own_scope()), own(Scope::Resource), own(Scope::Instrumentation)]
        }
        FieldScope::Parent => vec![of_parent(Scope::Span), of_parent(Scope::Resource)],
        FieldScope::ParentSpan => vec![of_parent(Scope::Span)],
        FieldScope::ParentResource => vec![of_parent(Scope::Resource)],
        other => other.column_scope().map(own).into_iter().collect(),
    }
}

/// A field of the whole trace, if it has been computed for `batch`.
fn of_trace<'a>(intrinsic: Intrinsic, batch: &BatchIndex<'a>) -> Option<BoundAttribute<'a>> {
    let column = batch.column(whole::column_of(intrinsic)?)?;
    let typed = match column.as_primitive_opt::<Int64Type>() {
        Some(numbers) => Typed::Int(numbers),
        None => Typed::Str(column.as_string_view_opt()?),
    };
    Some(BoundAttribute::of(typed))
}

/// A field of one batch, read by row.
#[derive(Debug)]
pub struct FieldReader<'a> {
    source: Source<'a>,
    batch: &'a crate::batch::Batch,
    extract: Option<Regex>,
}

#[derive(Debug)]
enum Source<'a> {
    Attributes(Vec<BoundAttribute<'a>>),
    Event(SpanRows<'a>, String),
    Link(SpanRows<'a>, String),
    Span(SpanRows<'a>, Intrinsic),
    Log(LogRows<'a>, Intrinsic),
    Point(PointRows<'a>, Intrinsic),
}

/// A field's value in one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FieldValue<'a> {
    /// Of an attribute or an intrinsic; status and kind are their words, severity its
    /// number.
    Value(Value<'a>),
    /// A trace id.
    Trace(TraceId),
    /// A span id.
    Span(SpanId),
}

impl<'a> FieldValue<'a> {
    /// The value as text, as keys compare it ([`Value::to_text`]); ids in hexadecimal.
    pub fn text(&self) -> Cow<'a, str> {
        match *self {
            Self::Value(Value::Str(text)) => Cow::Borrowed(text),
            Self::Value(value) => Cow::Owned(value.to_text()),
            Self::Trace(id) => Cow::Owned(id.to_string()),
            Self::Span(id) => Cow::Owned(id.to_string()),
        }
    }

    /// The value as a number, if it is one.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Value(value) => value.as_f64(),
            _ => None,
        }
    }

    /// Whether `self op other` holds: texts by bytes, numbers by size, ids by equality; values of
    /// different types hold nothing.
    pub fn compare(&self, op: Op, other: &FieldValue<'_>) -> bool {
        self.holds(op, other, super::term::compare)
    }

    pub(super) fn holds(
        &self,
        op: Op,
        other: &FieldValue<'_>,
        compare: impl Fn(&Value<'_>, &Value<'_>) -> Option<Ordering>,
    ) -> bool {
        match (self, other) {
            (Self::Value(a), FieldValue::Value(b)) => {
                // NaN differs from every number; text and number do not compare at all.
                let comparable = std::mem::discriminant(a) == std::mem::discriminant(b)
                    || (a.as_f64().is_some() && b.as_f64().is_some());
                match (a, b) {
                    _ if !comparable => false,
                    (Value::Bytes(_) | Value::Base64(_) | Value::Any(_), _) => {
                        op.holds(Some(a.to_text().cmp(&b.to_text())))
                    }
                    _ => op.holds(compare(a, b)),
                }
            }
            (Self::Trace(a), FieldValue::Trace(b)) => op.holds(Some(a.cmp(b))),
            (Self::Span(a), FieldValue::Span(b)) => op.holds(Some(a.cmp(b))),
            // An id beside an attribute that holds one as text.
            (Self::Trace(_) | Self::Span(_), FieldValue::Value(Value::Str(text))) => {
                op.holds(Some(self.text().as_ref().cmp(text)))
            }
            (Self::Value(Value::Str(text)), FieldValue::Trace(_) | FieldValue::Span(_)) => {
                op.holds(Some((*text).cmp(other.text().as_ref())))
            }
            _ => false,
        }
    }
}

impl<'a> FieldReader<'a> {
    /// The value in `row`; of several events or links, the first that has one.
    pub fn get(&self, row: usize) -> Option<FieldValue<'a>> {
        let whole = self.whole(row)?;
        match (&self.extract, whole) {
            (None, whole) => Some(whole),
            (Some(regex), FieldValue::Value(Value::Str(text))) => {
                let part = regex.captures(text)?.get(1)?;
                Some(FieldValue::Value(Value::Str(part.as_str())))
            }
            // Only text has parts.
            (Some(_), _) => None,
        }
    }

    fn whole(&self, row: usize) -> Option<FieldValue<'a>> {
        let find = |list: Option<AttributeList<'a>>, key: &str| {
            list.and_then(|list| list.iter().find(|(k, _)| *k == key).map(|(_, value)| value))
        };
        match &self.source {
            Source::Attributes(attributes) => {
                attributes.iter().find_map(|attribute| attribute.get(row)).map(FieldValue::Value)
            }
            Source::Event(rows, key) => rows
                .events(row)
                .find_map(|event| find(event.attributes, key))
                .map(FieldValue::Value),
            Source::Link(rows, key) => {
                rows.links(row).find_map(|link| find(link.attributes, key)).map(FieldValue::Value)
            }
            Source::Span(rows, intrinsic) => self.span(rows, *intrinsic, row),
            Source::Log(rows, intrinsic) => log(rows, *intrinsic, row, self.batch),
            Source::Point(rows, intrinsic) => point(rows, *intrinsic, row),
        }
    }

    /// Whether no row of the batch can have a value.
    pub fn is_absent(&self) -> bool {
        matches!(&self.source, Source::Attributes(attributes) if attributes.is_empty())
    }

    fn span(&self, rows: &SpanRows<'a>, field: Intrinsic, row: usize) -> Option<FieldValue<'a>> {
        let text = |text: &'a str| FieldValue::Value(Value::Str(text));
        let int = |value: i64| FieldValue::Value(Value::Int(value));
        match field {
            Intrinsic::Name => {
                self.batch.column(crate::schema::NAME)?;
                Some(text(rows.name(row)))
            }
            Intrinsic::Status => {
                StatusCode::from_code(rows.status_code(row)).map(|s| text(s.name()))
            }
            Intrinsic::StatusMessage => rows.status_message(row).map(text),
            Intrinsic::Kind => SpanKind::from_code(rows.kind(row)).map(|kind| text(kind.name())),
            Intrinsic::Duration => Some(int(rows.duration(row))),
            Intrinsic::TraceId => rows.trace_id(row).map(FieldValue::Trace),
            Intrinsic::SpanId => rows.span_id(row).map(FieldValue::Span),
            Intrinsic::ParentId => rows.parent_span_id(row).map(FieldValue::Span),
            Intrinsic::SpanEventName => rows.events(row).next().map(|event| text(event.name)),
            Intrinsic::SpanEventTime => {
                let start = rows.start(row);
                rows.events(row).next().map(|event| int(event.time.saturating_sub(start)))
            }
            Intrinsic::LinkTraceId => {
                rows.links(row).next().map(|link| FieldValue::Trace(link.trace_id))
            }
            Intrinsic::LinkSpanId => {
                rows.links(row).next().map(|link| FieldValue::Span(link.span_id))
            }
            Intrinsic::ScopeName => rows.scope_name(row).map(text),
            Intrinsic::ScopeVersion => rows.scope_version(row).map(text),
            Intrinsic::Body
            | Intrinsic::Severity
            | Intrinsic::SeverityText
            | Intrinsic::EventName
            | Intrinsic::TraceDuration
            | Intrinsic::RootName
            | Intrinsic::RootService
            | Intrinsic::ChildCount => None,
        }
    }
}

fn point<'a>(rows: &PointRows<'a>, field: Intrinsic, row: usize) -> Option<FieldValue<'a>> {
    let text = match field {
        Intrinsic::Name => Some(rows.name(row)),
        Intrinsic::ScopeName => rows.scope_name(row),
        Intrinsic::ScopeVersion => rows.scope_version(row),
        _ => None,
    };
    text.map(|text| FieldValue::Value(Value::Str(text)))
}

fn log<'a>(
    rows: &LogRows<'a>,
    field: Intrinsic,
    row: usize,
    batch: &'a crate::batch::Batch,
) -> Option<FieldValue<'a>> {
    let text = |text: &'a str| FieldValue::Value(Value::Str(text));
    match field {
        Intrinsic::Body => rows.body(row).map(text),
        Intrinsic::Severity => {
            let number = rows.severity(row);
            (number != 0).then(|| FieldValue::Value(Value::Int(i64::from(number))))
        }
        Intrinsic::SeverityText => rows.severity_text(row).map(text),
        Intrinsic::EventName => rows.event_name(row).map(text),
        Intrinsic::TraceId => rows.trace_id(row).map(FieldValue::Trace),
        Intrinsic::SpanId => rows.span_id(row).map(FieldValue::Span),
        Intrinsic::ScopeName => rows.scope_name(row).map(text),
        Intrinsic::ScopeVersion => {
            let column = batch.text_column(crate::schema::SCOPE_VERSION)?;
            column.is_valid(row).then(|| text(column.value(row)))
        }
        _ => None,
    }
}
