//! Selectors that no signal can match.
//!
//! What contradicts itself is found where that is plain: a value out of its field's range, two
//! values of one field, ranges that do not meet, a value beside `nil`. A selector that passes may
//! still match nothing.

use std::cmp::Ordering;

use lacuna_signal::selector::{
    Expr, Field, FieldScope, Intrinsic, Literal, Op, Operand, StatusCode,
};

/// Why nothing matches.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Never {
    /// The term at fault as selectors write it, or nothing if it is more than one.
    pub(super) term: String,
    pub(super) why: String,
    pub(super) help: String,
}

const TOGETHER: &str = "say what the signals have in common; join alternatives by ||";

/// Why no signal can match `expr`, if that can be seen.
pub(super) fn never(expr: &Expr) -> Option<Never> {
    match expr {
        Expr::Const(true) => None,
        Expr::Const(false) => Some(alone(expr, "it is false".to_owned(), TOGETHER)),
        Expr::Not(inner) => {
            (**inner == Expr::Const(true)).then(|| alone(expr, "it is false".to_owned(), TOGETHER))
        }
        // One alternative that cannot be is a mistake too, but the others may be meant.
        Expr::Or(parts) => {
            let all: Option<Vec<Never>> = parts.iter().map(never).collect();
            all?.into_iter().next()
        }
        Expr::And(parts) => parts.iter().find_map(never).or_else(|| conflict(parts)),
        Expr::Compare { field, op, value: Operand::Literal(literal) } => {
            out_of_range(expr, field, *op, literal)
        }
        Expr::Compare { .. } => None,
    }
}

fn alone(expr: &Expr, why: String, help: &str) -> Never {
    Never { term: expr.to_string(), why, help: help.to_owned() }
}

/// A value that the field never has.
fn out_of_range(expr: &Expr, field: &Field, op: Op, literal: &Literal) -> Option<Never> {
    let Field::Intrinsic(intrinsic) = field else { return None };
    let (least, most, help) = match (intrinsic, literal) {
        (Intrinsic::Duration, Literal::Duration(_)) => {
            (0, i64::MAX, "a span takes no time or some: durations begin at 0ns")
        }
        (Intrinsic::Severity, Literal::Int(_)) => (1, 24, "severity numbers are 1 to 24"),
        (
            Intrinsic::Name | Intrinsic::Status | Intrinsic::Kind | Intrinsic::Duration,
            Literal::Nil,
        ) if op == Op::Eq => {
            let why = format!("every span has a `{field}`");
            return Some(alone(expr, why, "leave it out, or compare it with a value"));
        }
        _ => return None,
    };
    let (Literal::Duration(value) | Literal::Int(value)) = literal else { return None };
    let value = *value;
    let possible = match op {
        Op::Lt => least < value,
        Op::Le => least <= value,
        Op::Gt => most > value,
        Op::Ge => most >= value,
        Op::Eq => (least..=most).contains(&value),
        _ => true,
    };
    let why = || format!("`{field}` is never {} {literal}", op.text());
    (!possible).then(|| alone(expr, why(), help))
}

/// What a conjunction demands of one field.
struct Demand<'a> {
    field: &'a Field,
    op: Op,
    literal: &'a Literal,
    /// `nil` is compared with it, not a value.
    nil: bool,
}

fn conflict(parts: &[Expr]) -> Option<Never> {
    let mut demands: Vec<Demand<'_>> = Vec::new();
    for part in parts {
        let Expr::Compare { field, op, value: Operand::Literal(literal) } = part else { continue };
        // Of several events or links, one may be this and another that.
        if is_many(field) {
            continue;
        }
        let demand = Demand { field, op: *op, literal, nil: *literal == Literal::Nil };
        let other = demands.iter().find(|other| other.field == field && excludes(other, &demand));
        if let Some(other) = other {
            let why = format!(
                "`{field}` cannot be {} and {} at once",
                words(other.op, other.literal),
                words(demand.op, literal)
            );
            return Some(Never { term: String::new(), why, help: TOGETHER.to_owned() });
        }
        demands.push(demand);
    }
    None
}

fn words(op: Op, literal: &Literal) -> String {
    match op {
        Op::Eq => literal.to_string(),
        Op::Ne => format!("not {literal}"),
        op => format!("{} {literal}", op.text()),
    }
}

fn is_many(field: &Field) -> bool {
    match field {
        Field::Attribute { scope, .. } => {
            matches!(scope, FieldScope::Event | FieldScope::Link | FieldScope::Any)
        }
        Field::Intrinsic(intrinsic) => matches!(
            intrinsic,
            Intrinsic::SpanEventName
                | Intrinsic::SpanEventTime
                | Intrinsic::LinkTraceId
                | Intrinsic::LinkSpanId
        ),
    }
}

/// Whether no value satisfies both.
fn excludes(a: &Demand<'_>, b: &Demand<'_>) -> bool {
    // `= nil` wants no value; every other comparison, `!= nil` too, wants one.
    let absent = |demand: &Demand<'_>| demand.nil && demand.op == Op::Eq;
    if a.nil || b.nil {
        return absent(a) != absent(b);
    }
    if excludes_ordered(a, b) || excludes_ordered(b, a) {
        return true;
    }
    // All statuses are ruled out one by one.
    matches!((a.literal, b.literal), (Literal::Status(_), Literal::Status(_)))
        && StatusCode::ALL.iter().all(|status| {
            let holds = |demand: &Demand<'_>| {
                let same = *demand.literal == Literal::Status(*status);
                (demand.op == Op::Eq) == same
            };
            !(holds(a) && holds(b))
        })
}

fn excludes_ordered(a: &Demand<'_>, b: &Demand<'_>) -> bool {
    // Types are strict: what equals text equals no number.
    if a.op == Op::Eq && b.op == Op::Eq && a.literal != b.literal {
        return !matches!(order(a.literal, b.literal), Some(Ordering::Equal));
    }
    // A severity level is a range, which only equality above can tell apart.
    if matches!(a.literal, Literal::Severity(_)) || matches!(b.literal, Literal::Severity(_)) {
        return false;
    }
    let Some(order) = order(a.literal, b.literal) else { return false };
    match (a.op, b.op) {
        (Op::Eq, op) if op != Op::Eq && !op.is_match() => !op.holds(Some(order)),
        // a < x and b > y: nothing lies between if x <= y.
        (Op::Lt, Op::Gt | Op::Ge) | (Op::Le, Op::Gt) => order.is_le(),
        (Op::Le, Op::Ge) => order.is_lt(),
        _ => false,
    }
}

/// How two literals of one type compare.
fn order(a: &Literal, b: &Literal) -> Option<Ordering> {
    let number = |literal: &Literal| match literal {
        Literal::Int(value) => Some(*value as f64),
        Literal::Float(value) => Some(*value),
        _ => None,
    };
    match (a, b) {
        (Literal::Str(a), Literal::Str(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
        (Literal::Int(a), Literal::Int(b)) | (Literal::Duration(a), Literal::Duration(b)) => {
            Some(a.cmp(b))
        }
        (Literal::Bool(a), Literal::Bool(b)) => Some(a.cmp(b)),
        (Literal::Status(a), Literal::Status(b)) => Some(a.cmp(b)),
        (Literal::Kind(a), Literal::Kind(b)) => Some(a.cmp(b)),
        (Literal::Severity(a), Literal::Severity(b)) => Some(a.cmp(b)),
        _ => number(a)?.partial_cmp(&number(b)?),
    }
}

#[cfg(test)]
mod tests {
    use lacuna_signal::selector::Selector;

    use super::never;

    fn why(text: &str) -> Option<String> {
        never(Selector::parse(text).unwrap().expr()).map(|never| never.why)
    }

    #[test]
    fn what_contradicts_itself_is_seen() {
        for (text, says) in [
            (r#"{ span.a = 1 && span.a = 2 }"#, "`span.a` cannot be 1 and 2 at once"),
            (r#"{ span.a = "1" && span.a = 1 }"#, "at once"),
            (r#"{ name = "a" && name != "a" }"#, "cannot be \"a\" and not \"a\""),
            (r#"{ span.a > 5 && span.a < 3 }"#, "cannot be > 5 and < 3"),
            (r#"{ span.a > 5 && span.a <= 5 }"#, "at once"),
            (r#"{ span.a = 2 && span.a > 5 }"#, "at once"),
            (r#"{ span.a = nil && span.a = 2 }"#, "cannot be nil and 2"),
            (r#"{ span.a = nil && span.a != nil }"#, "at once"),
            (r#"{ status = error && status = ok }"#, "cannot be error and ok"),
            (r#"{ status = error && status != error }"#, "at once"),
            (r#"{ duration < 0ns }"#, "`duration` is never < 0ns"),
            (r#"{ duration = -5ms }"#, "never = -5ms"),
            (r#"log { severity > 24 }"#, "never > 24"),
            (r#"{ name = nil }"#, "every span has a `name`"),
            (r#"{ false }"#, "it is false"),
            (r#"{ name = "x" && (duration < 0ns || duration < -1s) }"#, "never"),
        ] {
            let found = why(text).unwrap_or_else(|| panic!("{text} can match"));
            assert!(found.contains(says), "{text}: {found}");
        }
    }

    #[test]
    fn what_may_match_is_left_alone() {
        for text in [
            r#"{ }"#,
            r#"{ span.a = 1 && span.b = 2 }"#,
            r#"{ span.a = 1 || span.a = 2 }"#,
            r#"{ span.a = 1 && span.a = 1.0 }"#,
            r#"{ event:name = "a" && event:name = "b" }"#,
            r#"{ span.a >= 5 && span.a <= 5 }"#,
            r#"{ span.a != 1 && span.a != 2 }"#,
            r#"{ span.a != nil && span.a = 2 }"#,
            r#"{ duration >= 0ns && duration < 1s }"#,
            r#"{ status != error && status != ok }"#,
            r#"log { severity >= warn && severity <= error }"#,
            r#"log { severity = warn && severity >= 14 }"#,
        ] {
            assert_eq!(why(text), None, "{text}");
        }
    }
}
