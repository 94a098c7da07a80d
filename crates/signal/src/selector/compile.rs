//! From expression to program: column names written out, regular expressions compiled, the cheap
//! parts of a conjunction first.

use super::ast::{Expr, Literal, Op, Operand};
use super::attribute::AttributeColumns;
use super::error::{Complaint, SelectorError};
use super::field::FieldAccess;
use super::fields::{Field, FieldScope, Intrinsic, IntrinsicType};
use super::term::{Number, Pattern, Test, TextTest};
use super::whole;
use crate::ids::{SpanId, TraceId};
use crate::schema as c;
use crate::schema::SignalKind;

/// A compiled expression.
#[derive(Debug)]
pub(super) enum Node {
    Const(bool),
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    /// A text column.
    Text(&'static str, Test),
    /// A column of small numbers, by a table; a missing column is all zero.
    Codes(&'static str, Box<[bool; 256]>),
    /// The span's duration in nanoseconds.
    Duration(Op, Number),
    /// A column of integers.
    Int(&'static str, Op, Number),
    /// An id column: is there one (`None`), and is it this one?
    Id(&'static str, Option<Vec<u8>>),
    /// An attribute with columns of its own.
    Attribute(AttributeColumns, Test),
    /// At least one event or link of the span.
    Item(Item, Test),
    /// Jaeger's tag: at least one event's attribute, compared as text.
    EventText(String, TextTest),
    /// An attribute with columns of its own, compared as text.
    AttributeText(AttributeColumns, TextTest),
    /// Two fields of one row.
    Fields(FieldAccess, Op, FieldAccess),
}

/// What is asked of a span's events or links.
#[derive(Debug)]
pub(super) enum Item {
    EventAttribute(String),
    EventName,
    EventTime,
    LinkAttribute(String),
    LinkTraceId(Option<TraceId>),
    LinkSpanId(Option<SpanId>),
}

impl Node {
    /// How long a row takes, roughly: cheap parts of a conjunction spare the dear ones rows.
    fn cost(&self) -> u32 {
        match self {
            Self::Const(_) => 0,
            Self::Codes(..) | Self::Duration(..) | Self::Int(..) | Self::Id(..) => 1,
            Self::Text(_, test) | Self::Attribute(_, test) => match test {
                Test::Text(TextTest::Match(..)) => 20,
                Test::Text(TextTest::Order(..)) => 5,
                _ => 2,
            },
            Self::Not(inner) => inner.cost(),
            Self::And(parts) | Self::Or(parts) => parts.iter().map(Self::cost).sum(),
            Self::AttributeText(..) => 40,
            Self::Fields(..) => 50,
            Self::Item(..) | Self::EventText(..) => 100,
        }
    }
}

/// Compiles a checked expression.
pub(super) fn compile(kind: SignalKind, expr: &Expr) -> Result<Node, SelectorError> {
    let all =
        |parts: &[Expr]| parts.iter().map(|p| compile(kind, p)).collect::<Result<Vec<_>, _>>();
    Ok(match expr {
        Expr::Const(value) => Node::Const(*value),
        Expr::And(parts) => {
            let mut parts = all(parts)?;
            parts.sort_by_key(Node::cost);
            Node::And(parts)
        }
        Expr::Or(parts) => Node::Or(all(parts)?),
        Expr::Not(inner) => Node::Not(Box::new(compile(kind, inner)?)),
        Expr::Compare { field, op, value } => {
            let node = match value {
                Operand::Field(other) => {
                    let (left, right) = (field.clone(), other.clone());
                    Ok(Node::Fields(
                        FieldAccess::new(kind, left),
                        *op,
                        FieldAccess::new(kind, right),
                    ))
                }
                Operand::Literal(literal) => comparison(kind, field, *op, literal),
            };
            node.map_err(|complaint| SelectorError::in_term(expr.to_string(), complaint))?
        }
    })
}

fn comparison(
    kind: SignalKind,
    field: &Field,
    op: Op,
    literal: &Literal,
) -> Result<Node, Complaint> {
    if *literal == Literal::Nil && op == Op::Eq {
        return Ok(Node::Not(Box::new(comparison(kind, field, Op::Ne, literal)?)));
    }
    match field {
        Field::Attribute { scope, key } => attribute(kind, *scope, key, op, literal),
        Field::Intrinsic(intrinsic) => intrinsic_term(*intrinsic, op, literal),
    }
}

fn attribute(
    kind: SignalKind,
    scope: FieldScope,
    key: &str,
    op: Op,
    literal: &Literal,
) -> Result<Node, Complaint> {
    let own = kind.own_scope();
    let columns = |scope| AttributeColumns::new(scope, key);
    let of_parent = |scope| AttributeColumns::of_parent(scope, key);
    Ok(match scope {
        FieldScope::Event => Node::Item(Item::EventAttribute(key.to_owned()), test(op, literal)?),
        FieldScope::Link => Node::Item(Item::LinkAttribute(key.to_owned()), test(op, literal)?),
        FieldScope::Any => {
            let scopes = [own, c::Scope::Resource, c::Scope::Instrumentation];
            let mut parts = Vec::with_capacity(4);
            for scope in scopes {
                parts.push(match literal {
                    Literal::Nil => Node::Attribute(columns(scope), Test::Exists),
                    _ => Node::AttributeText(columns(scope), text_test(op, literal)?),
                });
            }
            if kind == SignalKind::Spans {
                parts.push(match literal {
                    Literal::Nil => Node::Item(Item::EventAttribute(key.to_owned()), Test::Exists),
                    _ => Node::EventText(key.to_owned(), text_test(op, literal)?),
                });
            }
            Node::Or(parts)
        }
        FieldScope::Unscoped => first(columns(own), columns(c::Scope::Resource), op, literal)?,
        FieldScope::Parent => {
            first(of_parent(c::Scope::Span), of_parent(c::Scope::Resource), op, literal)?
        }
        FieldScope::ParentSpan => Node::Attribute(of_parent(c::Scope::Span), test(op, literal)?),
        FieldScope::ParentResource => {
            Node::Attribute(of_parent(c::Scope::Resource), test(op, literal)?)
        }
        FieldScope::Span
        | FieldScope::Log
        | FieldScope::Point
        | FieldScope::Resource
        | FieldScope::Instrumentation => {
            let scope = scope.column_scope().unwrap_or(own);
            Node::Attribute(columns(scope), test(op, literal)?)
        }
    })
}

/// The attribute of a row or, only where that has none, of its resource.
fn first(
    own: AttributeColumns,
    resource: AttributeColumns,
    op: Op,
    literal: &Literal,
) -> Result<Node, Complaint> {
    let absent = Node::Not(Box::new(Node::Attribute(own.clone(), Test::Exists)));
    let resource = Node::Attribute(resource, test(op, literal)?);
    Ok(Node::Or(vec![Node::Attribute(own, test(op, literal)?), Node::And(vec![absent, resource])]))
}

fn test(op: Op, literal: &Literal) -> Result<Test, Complaint> {
    Ok(match literal {
        Literal::Nil => Test::Exists,
        Literal::Str(_) => Test::Text(text_test(op, literal)?),
        Literal::Int(value) | Literal::Duration(value) => Test::Number(op, Number::Int(*value)),
        Literal::Float(value) => Test::Number(op, Number::Float(*value)),
        Literal::Bool(value) => Test::Bool((op == Op::Eq) == *value),
        Literal::Status(_) | Literal::Kind(_) | Literal::Severity(_) => {
            return Err(Complaint::new("not the value of an attribute", ""));
        }
    })
}

fn text_test(op: Op, literal: &Literal) -> Result<TextTest, Complaint> {
    let Literal::Str(text) = literal else { return Err(Complaint::new("text was expected", "")) };
    Ok(match op {
        Op::Eq | Op::Ne => TextTest::Same(text.clone(), op == Op::Eq),
        Op::Match | Op::NotMatch => {
            let pattern = Pattern::new(text).map_err(|problem| Complaint::new(problem, ""))?;
            TextTest::Match(pattern, op == Op::Match)
        }
        _ => TextTest::Order(op, text.clone()),
    })
}

fn codes(holds: impl Fn(u8) -> bool) -> Box<[bool; 256]> {
    let mut table = Box::new([false; 256]);
    for (code, entry) in (0..=u8::MAX).zip(table.iter_mut()) {
        *entry = holds(code);
    }
    table
}

fn intrinsic_term(intrinsic: Intrinsic, op: Op, literal: &Literal) -> Result<Node, Complaint> {
    let nil = *literal == Literal::Nil;
    let column = match intrinsic {
        Intrinsic::Name => c::NAME,
        Intrinsic::StatusMessage => c::STATUS_MESSAGE,
        Intrinsic::ScopeName => c::SCOPE_NAME,
        Intrinsic::ScopeVersion => c::SCOPE_VERSION,
        Intrinsic::SeverityText => c::SEVERITY_TEXT,
        Intrinsic::EventName => c::EVENT_NAME,
        Intrinsic::TraceId => c::TRACE_ID,
        Intrinsic::SpanId => c::SPAN_ID,
        Intrinsic::ParentId => c::PARENT_SPAN_ID,
        Intrinsic::Status => c::STATUS_CODE,
        Intrinsic::Kind => c::KIND,
        Intrinsic::Severity => c::SEVERITY,
        Intrinsic::Body => {
            let text = Node::Text(c::BODY, test(op, literal)?);
            return Ok(Node::Or(vec![text, Node::Text(c::BODY_ANY, test(op, literal)?)]));
        }
        Intrinsic::SpanEventName => return Ok(Node::Item(Item::EventName, test(op, literal)?)),
        Intrinsic::SpanEventTime => return Ok(Node::Item(Item::EventTime, test(op, literal)?)),
        Intrinsic::LinkTraceId | Intrinsic::LinkSpanId => return link_id(intrinsic, op, literal),
        Intrinsic::RootName => whole::ROOT_NAME,
        Intrinsic::RootService => whole::ROOT_SERVICE,
        Intrinsic::TraceDuration | Intrinsic::ChildCount => {
            let column = match intrinsic {
                Intrinsic::ChildCount => whole::CHILD_COUNT,
                _ => whole::TRACE_DURATION,
            };
            return Ok(match test(op, literal)? {
                Test::Number(op, number) => Node::Int(column, op, number),
                _ => Node::Const(true),
            });
        }
        Intrinsic::Duration => {
            return Ok(match test(op, literal)? {
                Test::Number(op, number) => Node::Duration(op, number),
                _ => Node::Const(true),
            });
        }
    };
    Ok(match intrinsic.ty() {
        IntrinsicType::Id => match (literal, op) {
            (Literal::Str(text), Op::Eq) => Node::Id(column, Some(id_bytes(intrinsic, text)?)),
            (Literal::Str(text), _) => Node::And(vec![
                Node::Id(column, None),
                Node::Not(Box::new(Node::Id(column, Some(id_bytes(intrinsic, text)?)))),
            ]),
            _ => Node::Id(column, None),
        },
        IntrinsicType::Status | IntrinsicType::Kind => {
            let code = match literal {
                Literal::Status(status) => status.code(),
                Literal::Kind(kind) => kind.code(),
                _ => return Ok(Node::Const(true)),
            };
            Node::Codes(column, codes(|other| (other == code) == (op == Op::Eq)))
        }
        IntrinsicType::Severity => Node::Codes(column, severity(op, literal, nil)),
        _ => Node::Text(column, test(op, literal)?),
    })
}

/// A level is a range of four severity numbers. 0 is "unspecified", that is no severity.
fn severity(op: Op, literal: &Literal, nil: bool) -> Box<[bool; 256]> {
    let (low, high) = match literal {
        Literal::Severity(level) => (i64::from(level.code()), i64::from(level.code()) + 3),
        Literal::Int(number) => (*number, *number),
        _ => (0, 0),
    };
    codes(|code| {
        let code = i64::from(code);
        code != 0
            && (nil
                || match op {
                    Op::Eq => (low..=high).contains(&code),
                    Op::Ne => !(low..=high).contains(&code),
                    Op::Lt => code < low,
                    Op::Le => code <= high,
                    Op::Gt => code > high,
                    Op::Ge => code >= low,
                    Op::Match | Op::NotMatch => false,
                })
    })
}

fn id_bytes(intrinsic: Intrinsic, text: &str) -> Result<Vec<u8>, Complaint> {
    let bytes = match intrinsic {
        Intrinsic::TraceId | Intrinsic::LinkTraceId => {
            text.parse::<TraceId>().map(|id| id.0.to_vec())
        }
        _ => text.parse::<SpanId>().map(|id| id.0.to_vec()),
    };
    bytes.map_err(|error| Complaint::new(error.to_string(), ""))
}

fn link_id(intrinsic: Intrinsic, op: Op, literal: &Literal) -> Result<Node, Complaint> {
    let bytes = match literal {
        Literal::Str(text) => Some(id_bytes(intrinsic, text)?),
        _ => None,
    };
    let bytes = bytes.as_deref();
    let item = match intrinsic {
        Intrinsic::LinkTraceId => Item::LinkTraceId(bytes.and_then(TraceId::from_bytes)),
        _ => Item::LinkSpanId(bytes.and_then(SpanId::from_bytes)),
    };
    // `Bool` says whether the id must be the same.
    let test = if bytes.is_some() { Test::Bool(op == Op::Eq) } else { Test::Exists };
    Ok(Node::Item(item, test))
}
