//! Which comparisons make sense, and what to write instead of those that do not.

use super::ast::{Expr, Literal, Op, Operand, SeverityLevel, SpanKind, StatusCode};
use super::error::{Complaint, SelectorError};
use super::fields::{Field, Intrinsic, IntrinsicType};
use super::term::Pattern;
use crate::ids::{SpanId, TraceId};
use crate::schema::SignalKind;

/// The part of a comparison that a complaint is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Term,
    Operator,
    Value,
}

/// Checks a whole expression that nobody parsed; `whole` if it will be asked of whole traces.
pub(super) fn check_expr(kind: SignalKind, expr: &Expr, whole: bool) -> Result<(), SelectorError> {
    match expr {
        Expr::Const(_) => Ok(()),
        Expr::And(parts) | Expr::Or(parts) => {
            parts.iter().try_for_each(|part| check_expr(kind, part, whole))
        }
        Expr::Not(inner) => check_expr(kind, inner, whole),
        Expr::Compare { field, op, value } => {
            let fail = |complaint| SelectorError::in_term(expr.to_string(), complaint);
            check_field(kind, field, whole).map_err(fail)?;
            if let Operand::Field(other) = value {
                check_field(kind, other, whole).map_err(fail)?;
            }
            check_comparison(field, *op, value).map_err(|(_, complaint)| fail(complaint))
        }
    }
}

/// Whether rows of `kind` have `field`, and whether it can be known: what is of a whole trace only
/// where whole traces are asked (`whole`).
pub(super) fn check_field(kind: SignalKind, field: &Field, whole: bool) -> Result<(), Complaint> {
    if field.is_whole() && !whole {
        let help = "here one span is seen at a time, as it arrives; only a query over stored \
                    traces, of `lacuna query traces` or /api/search, sees the whole trace";
        return Err(Complaint::new(format!("`{field}` needs the whole trace"), help));
    }
    let known = match field {
        Field::Attribute { scope, .. } => scope.is_of(kind),
        Field::Intrinsic(intrinsic) => intrinsic.is_of(kind),
    };
    if known {
        return Ok(());
    }
    let (other, help) = match kind {
        SignalKind::Spans => {
            ("spans", "to select log records, write `log { … }`, or metric points, `metric { … }`")
        }
        SignalKind::Points => {
            ("metric points", "they have name, point.KEY, resource.KEY and instrumentation.KEY")
        }
        SignalKind::Logs => ("log records", "to select spans, write `{ … }` without `log`"),
    };
    Err(Complaint::new(format!("{other} have no `{field}`"), help))
}

/// The words for the values of an enumerated field.
pub(super) fn value_names(field: &Field) -> Option<Vec<&'static str>> {
    Some(match field {
        Field::Intrinsic(Intrinsic::Status) => StatusCode::ALL.iter().map(|v| v.name()).collect(),
        Field::Intrinsic(Intrinsic::Kind) => SpanKind::ALL.iter().map(|v| v.name()).collect(),
        Field::Intrinsic(Intrinsic::Severity) => {
            SeverityLevel::ALL.iter().map(|v| v.name()).collect()
        }
        _ => return None,
    })
}

/// The values that an enumerated field has, for messages.
pub(super) fn right_values(field: &Field) -> Option<String> {
    let names = value_names(field)?;
    Some(format!("`{field}` is one of {}", names.join(", ")))
}

/// Whether `field op value` means something.
pub(super) fn check_comparison(
    field: &Field,
    op: Op,
    value: &Operand,
) -> Result<(), (Place, Complaint)> {
    let literal = match value {
        Operand::Literal(literal) => literal,
        Operand::Field(other) => return check_fields(field, op, other),
    };
    if *literal == Literal::Nil {
        return match op {
            Op::Eq | Op::Ne => Ok(()),
            _ => Err(operator(op, "nil", "= and !=")),
        };
    }
    if op.is_match() && !matches!(literal, Literal::Str(_)) {
        let help = format!("write \"{literal}\" in quotes, or use = or !=");
        return Err((Place::Value, Complaint::new("a regular expression must be text", help)));
    }
    if matches!(literal, Literal::Float(value) if !value.is_finite()) {
        let problem = format!("`{literal}` is not a number");
        return Err((Place::Value, Complaint::new(problem, "use a finite number")));
    }
    match field {
        Field::Attribute { .. } if field.is_any() => check_any(field, op, literal)?,
        Field::Attribute { .. } => match literal {
            Literal::Bool(_) if op.is_order() => return Err(operator(op, "booleans", "= and !=")),
            Literal::Status(_) | Literal::Kind(_) | Literal::Severity(_) => {
                let help = format!("if it is text, put it in quotes: \"{literal}\"");
                let problem = format!("`{literal}` is not a value of `{field}`");
                return Err((Place::Value, Complaint::new(problem, help)));
            }
            _ => {}
        },
        Field::Intrinsic(intrinsic) => check_intrinsic(*intrinsic, op, literal)?,
    }
    if let (true, Literal::Str(pattern)) = (op.is_match(), literal) {
        Pattern::new(pattern).map_err(|problem| {
            let help = "regular expressions are RE2's and match the whole text";
            (Place::Value, Complaint::new(problem, help))
        })?;
    }
    Ok(())
}

fn operator(op: Op, what: &str, right: &str) -> (Place, Complaint) {
    let problem = format!("`{}` does not compare {what}", op.text());
    (Place::Operator, Complaint::new(problem, format!("use {right}")))
}

fn wrong_type(intrinsic: Intrinsic, literal: &Literal, right: String) -> (Place, Complaint) {
    let problem = format!("`{}` cannot be `{literal}`", intrinsic.name());
    (Place::Value, Complaint::new(problem, right))
}

/// An `any.` attribute compares text, positively: "some value is not x" is hardly ever meant.
fn check_any(field: &Field, op: Op, literal: &Literal) -> Result<(), (Place, Complaint)> {
    if !matches!(op, Op::Eq | Op::Match) {
        let positive = if op == Op::NotMatch { Op::Match } else { Op::Eq };
        let help = format!("write `!({field} {} {literal})`", positive.text());
        let problem = format!("`{}` does not go with `any.`", op.text());
        return Err((Place::Operator, Complaint::new(problem, help)));
    }
    match literal {
        Literal::Str(_) => Ok(()),
        other => {
            let help = format!("put it in quotes: \"{other}\"");
            Err((Place::Value, Complaint::new("`any.` compares values as text", help)))
        }
    }
}

fn check_intrinsic(
    intrinsic: Intrinsic,
    op: Op,
    literal: &Literal,
) -> Result<(), (Place, Complaint)> {
    let field = Field::Intrinsic(intrinsic);
    match (intrinsic.ty(), literal) {
        (IntrinsicType::Text, Literal::Str(_)) => Ok(()),
        (IntrinsicType::Text, other) => {
            Err(wrong_type(intrinsic, other, format!("it is text: \"{other}\"")))
        }
        (IntrinsicType::Status, Literal::Status(_)) | (IntrinsicType::Kind, Literal::Kind(_)) => {
            match op {
                Op::Eq | Op::Ne => Ok(()),
                _ => Err(operator(op, intrinsic.name(), "= and !=, joined by || if need be")),
            }
        }
        (IntrinsicType::Count, Literal::Int(_) | Literal::Float(_)) => Ok(()),
        (IntrinsicType::Count, other) => {
            Err(wrong_type(intrinsic, other, "it is a number, such as `3`".to_owned()))
        }
        (IntrinsicType::Severity, Literal::Severity(_) | Literal::Int(_)) => Ok(()),
        (IntrinsicType::Severity, Literal::Str(_)) => {
            let mut help = right_values(&field).unwrap_or_default();
            help.push_str(", without quotes; its text is `severityText`");
            Err(wrong_type(intrinsic, literal, help))
        }
        (IntrinsicType::Status | IntrinsicType::Kind | IntrinsicType::Severity, other) => {
            Err(wrong_type(intrinsic, other, right_values(&field).unwrap_or_default()))
        }
        (IntrinsicType::Duration, Literal::Duration(_)) => Ok(()),
        (IntrinsicType::Duration, other @ Literal::Int(_)) => {
            Err(wrong_type(intrinsic, other, format!("give a unit: `{other}ms` or `{other}s`")))
        }
        (IntrinsicType::Duration, other) => Err(wrong_type(
            intrinsic,
            other,
            "it is a duration, such as `1.5ms` or `2s`".to_owned(),
        )),
        (IntrinsicType::Id, Literal::Str(text)) => {
            if !matches!(op, Op::Eq | Op::Ne) {
                return Err(operator(op, "ids", "= and !="));
            }
            let result = match intrinsic {
                Intrinsic::TraceId | Intrinsic::LinkTraceId => text.parse::<TraceId>().map(drop),
                _ => text.parse::<SpanId>().map(drop),
            };
            result.map_err(|error| {
                let (problem, help) = error.to_string().split_once(": ").map_or_else(
                    || (error.to_string(), String::new()),
                    |(problem, help)| (problem.to_owned(), help.to_owned()),
                );
                (Place::Value, Complaint::new(problem, help))
            })
        }
        (IntrinsicType::Id, other) => {
            Err(wrong_type(intrinsic, other, "it is hexadecimal text in quotes".to_owned()))
        }
    }
}

fn check_fields(left: &Field, op: Op, right: &Field) -> Result<(), (Place, Complaint)> {
    if op.is_match() {
        let help = "a regular expression is text in quotes";
        let problem = "a regular expression cannot come from a field";
        return Err((Place::Value, Complaint::new(problem, help)));
    }
    for field in [left, right] {
        if field.is_many() {
            let problem = format!("`{field}` has several values and compares only with a literal");
            return Err((Place::Term, Complaint::new(problem, "")));
        }
    }
    Ok(())
}
