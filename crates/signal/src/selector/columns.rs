//! What a selector reads, and what an index can answer of it.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::ast::{Expr, Literal, Op, Operand};
use super::fields::{Field, FieldScope, Intrinsic};
use crate::schema as c;
use crate::schema::{Scope, SignalKind};
use crate::value::double_text;

/// The columns that a selector or a field reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    /// Fixed columns, by name.
    pub fixed: BTreeSet<&'static str>,
    /// Attributes, whatever their columns' types.
    pub attributes: BTreeSet<(Scope, String)>,
}

impl Columns {
    /// Whether the column `name` is among them.
    pub fn wants(&self, name: &str) -> bool {
        if self.fixed.contains(name) {
            return true;
        }
        c::parse_attribute_column(name).is_some_and(|(scope, _, key)| {
            // A lookup by borrowed parts; there are only a few.
            self.attributes.iter().any(|(s, k)| *s == scope && k == key)
        })
    }

    /// Adds what `other` reads.
    pub fn extend(&mut self, other: Self) {
        self.fixed.extend(other.fixed);
        self.attributes.extend(other.attributes);
    }

    /// Adds what reading `field` of rows of `kind` takes.
    pub fn add(&mut self, kind: SignalKind, field: &Field) {
        match field {
            Field::Attribute { scope, key } => {
                let own = kind.own_scope();
                let scopes: &[Scope] = match scope {
                    FieldScope::Unscoped => &[own, Scope::Resource],
                    FieldScope::Any => &[own, Scope::Resource, Scope::Instrumentation],
                    FieldScope::Span => &[Scope::Span],
                    FieldScope::Log => &[Scope::Log],
                    FieldScope::Point => &[Scope::Point],
                    FieldScope::Resource => &[Scope::Resource],
                    FieldScope::Instrumentation => &[Scope::Instrumentation],
                    FieldScope::Event | FieldScope::Link => &[],
                    FieldScope::Parent | FieldScope::ParentSpan | FieldScope::ParentResource => &[],
                };
                self.attributes.extend(scopes.iter().map(|scope| (*scope, key.clone())));
                if !scopes.is_empty() {
                    self.fixed.insert(c::OVERFLOW);
                }
                match scope {
                    FieldScope::Link => self.fixed.insert(c::LINKS),
                    FieldScope::Event => self.fixed.insert(c::EVENTS),
                    FieldScope::Any if kind == SignalKind::Spans => self.fixed.insert(c::EVENTS),
                    _ => false,
                };
            }
            Field::Intrinsic(intrinsic) => {
                let names: &[&'static str] = match intrinsic {
                    Intrinsic::Name => &[c::NAME],
                    Intrinsic::Status => &[c::STATUS_CODE],
                    Intrinsic::StatusMessage => &[c::STATUS_MESSAGE],
                    Intrinsic::Kind => &[c::KIND],
                    Intrinsic::Duration => &[c::DURATION],
                    Intrinsic::TraceId => &[c::TRACE_ID],
                    Intrinsic::SpanId => &[c::SPAN_ID],
                    Intrinsic::ParentId => &[c::PARENT_SPAN_ID],
                    Intrinsic::SpanEventName => &[c::EVENTS],
                    Intrinsic::SpanEventTime => &[c::EVENTS, c::START_TIME],
                    Intrinsic::LinkTraceId | Intrinsic::LinkSpanId => &[c::LINKS],
                    Intrinsic::ScopeName => &[c::SCOPE_NAME],
                    Intrinsic::ScopeVersion => &[c::SCOPE_VERSION],
                    Intrinsic::Body => &[c::BODY, c::BODY_ANY],
                    Intrinsic::Severity => &[c::SEVERITY],
                    Intrinsic::SeverityText => &[c::SEVERITY_TEXT],
                    Intrinsic::EventName => &[c::EVENT_NAME],
                    Intrinsic::TraceDuration => &[c::START_TIME, c::DURATION],
                    Intrinsic::RootName => &[c::START_TIME, c::PARENT_SPAN_ID, c::NAME],
                    Intrinsic::RootService => &[c::START_TIME, c::PARENT_SPAN_ID],
                    Intrinsic::ChildCount => &[c::SPAN_ID, c::PARENT_SPAN_ID],
                };
                self.fixed.extend(names);
            }
        }
    }
}

/// A term `field = "text"`, or `field = number`, that every selected row satisfies.
///
/// `field` is an attribute of any scope, `name`, another text or an id. For
/// [`FieldScope::Unscoped`] the row or its resource has it, for [`FieldScope::Any`] also its
/// instrumentation scope or an event, there with any type of value that reads `text`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Equality<'a> {
    /// The field.
    pub field: &'a Field,
    /// The text; of a number, as a value that is equal to it reads as text
    /// ([`Value::to_text`](crate::Value::to_text)), be it an integer or a double.
    pub text: Cow<'a, str>,
    /// Whether the row may have a number there.
    pub number: bool,
}

pub(super) fn columns(kind: SignalKind, expr: &Expr) -> Columns {
    let mut columns = Columns::default();
    collect(kind, expr, &mut columns);
    columns
}

fn collect(kind: SignalKind, expr: &Expr, columns: &mut Columns) {
    match expr {
        Expr::Const(_) => {}
        Expr::And(parts) | Expr::Or(parts) => {
            parts.iter().for_each(|part| collect(kind, part, columns));
        }
        Expr::Not(inner) => collect(kind, inner, columns),
        Expr::Compare { field, value, .. } => {
            columns.add(kind, field);
            if let Operand::Field(other) = value {
                columns.add(kind, other);
            }
        }
    }
}

pub(super) fn required_equalities(expr: &Expr) -> Vec<Equality<'_>> {
    match expr {
        Expr::And(parts) => parts.iter().flat_map(required_equalities).collect(),
        Expr::Compare { field, op: Op::Eq, value: Operand::Literal(Literal::Str(text)) } => {
            vec![Equality { field, text: Cow::Borrowed(text), number: false }]
        }
        Expr::Compare {
            field: field @ Field::Attribute { .. },
            op: Op::Eq,
            value: Operand::Literal(literal),
        } => {
            let equality = |text| Equality { field, text: Cow::Owned(text), number: true };
            number_text(literal).map(equality).into_iter().collect()
        }
        // The same text as a text or as a number: an index does not tell them apart.
        Expr::Or(parts) => {
            let mut parts = parts.iter().map(required_equalities);
            let Some(mut first) = parts.next().filter(|first| first.len() == 1) else {
                return Vec::new();
            };
            for other in parts {
                match (first.as_mut_slice(), other.as_slice()) {
                    ([one], [other]) if (one.field, &one.text) == (other.field, &other.text) => {
                        one.number |= other.number;
                    }
                    _ => return Vec::new(),
                }
            }
            first
        }
        _ => Vec::new(),
    }
}

/// The one text of all numbers that are equal to `literal`; `None` if they have several: two zeros,
/// and beyond 2^53 a double equals many integers.
fn number_text(literal: &Literal) -> Option<String> {
    const EXACT: i64 = 1 << 53;
    match literal {
        Literal::Int(value) if *value != 0 && (-EXACT..=EXACT).contains(value) => {
            Some(value.to_string())
        }
        Literal::Float(value) if *value != 0.0 && value.abs() <= EXACT as f64 => {
            Some(double_text(*value))
        }
        _ => None,
    }
}
