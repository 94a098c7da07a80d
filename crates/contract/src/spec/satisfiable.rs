//! Selectors that no signal can match.
//!
//! What contradicts itself is found where that can be seen from the selector alone: a value out of
//! its field's range, two values of one field, a value that its expression does not match, ranges that
//! do not meet, a value beside `nil`, a thing and its opposite. Negations are pushed in and small
//! alternatives multiplied out, so it matters little how it is written. A selector that passes may
//! still match nothing.

mod terms;

use std::cmp::Ordering;

use lacuna_signal::selector::{
    Expr, Field, FieldScope, Intrinsic, Literal, Op, SpanKind, StatusCode, whole_match,
};

use terms::{Terms, terms};

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
    // One alternative that cannot be is a mistake too, but the others may be meant.
    let all: Option<Vec<Never>> = terms(expr, false).iter().map(never_together).collect();
    let told = || Some(alone(expr, "it is false".to_owned(), TOGETHER));
    all?.into_iter().next().or_else(told)
}

/// Why no signal can match all of `terms`.
fn never_together(terms: &Terms<'_>) -> Option<Never> {
    let wrong =
        |demand: &Demand<'_>| out_of_range(demand.source, demand.field, demand.op, demand.literal);
    terms.wants.iter().find_map(wrong).or_else(|| conflict(terms))
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

/// What is demanded of one field.
#[derive(Debug, Clone, Copy)]
struct Demand<'a> {
    /// The comparison as it is written.
    source: &'a Expr,
    field: &'a Field,
    op: Op,
    literal: &'a Literal,
}

impl Demand<'_> {
    /// `nil` is compared with it, not a value.
    fn nil(&self) -> bool {
        *self.literal == Literal::Nil
    }

    fn told(&self) -> String {
        words(self.op, self.literal)
    }
}

fn conflict(terms: &Terms<'_>) -> Option<Never> {
    let together = |why: String| Never { term: String::new(), why, help: TOGETHER.to_owned() };
    for (at, demand) in terms.wants.iter().enumerate() {
        // Of several events or links, one may be this and another that.
        let mut before = terms.wants[..at].iter().filter(|_| !is_many(demand.field));
        let other = before.find(|other| other.field == demand.field && excludes(other, demand));
        if let Some(other) = other {
            let (field, told) = (demand.field, other.told());
            return Some(together(format!(
                "`{field}` cannot be {told} and {} at once",
                demand.told()
            )));
        }
    }
    for demand in &terms.wants {
        let same = |other: &&Demand<'_>| other.field == demand.field && implies(demand, other);
        if let Some(other) = terms.refuses.iter().find(same) {
            let why = format!("{} and not {} cannot be at once", demand.source, other.source);
            return Some(together(why));
        }
    }
    let field = terms.impossible()?;
    Some(together(format!("every value that `{field}` can have is ruled out")))
}

/// Whether what satisfies `a` satisfies `b` too; both are about one field.
fn implies(a: &Demand<'_>, b: &Demand<'_>) -> bool {
    if a.op == b.op && a.literal == b.literal {
        return true;
    }
    if b.nil() || a.nil() {
        // Whatever has a value is not nil.
        return b.nil() && b.op == Op::Ne && !(a.nil() && a.op == Op::Eq);
    }
    let level = |demand: &Demand<'_>| matches!(demand.literal, Literal::Severity(_));
    if a.op != Op::Eq || level(a) || level(b) {
        return false;
    }
    match (a.literal, b.literal, b.op) {
        (Literal::Str(text), Literal::Str(pattern), op) if op.is_match() => {
            whole_match(pattern, text) == (op == Op::Match)
        }
        (a, b, op) => !op.is_match() && order(a, b).is_some_and(|order| op.holds(Some(order))),
    }
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
    let absent = |demand: &Demand<'_>| demand.nil() && demand.op == Op::Eq;
    if a.nil() || b.nil() {
        return absent(a) != absent(b);
    }
    excludes_ordered(a, b) || excludes_ordered(b, a)
}

fn excludes_ordered(a: &Demand<'_>, b: &Demand<'_>) -> bool {
    // Types are strict: what equals text equals no number.
    if a.op == Op::Eq && b.op == Op::Eq && a.literal != b.literal {
        return !matches!(order(a.literal, b.literal), Some(Ordering::Equal));
    }
    if let (Op::Eq, Op::Match | Op::NotMatch) = (a.op, b.op) {
        return match (a.literal, b.literal) {
            (Literal::Str(text), Literal::Str(pattern)) => {
                whole_match(pattern, text) != (b.op == Op::Match)
            }
            // Only texts match.
            _ => true,
        };
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
            (r#"{ name = "a" && (name = "b" || name = "c") }"#, "cannot be \"a\" and \"b\""),
            (r#"{ (name = "a" || name = "b") && (name = "c" || name = "d") }"#, "at once"),
            (r#"{ status = error && !(status = error) }"#, "cannot be error and not error"),
            (r#"{ span.a = 1 && !(span.a = 1) }"#, "span.a = 1 and not span.a = 1"),
            (r#"{ !(span.a != nil || span.b = 1) && span.a = 1 }"#, "span.a = 1 and not span.a"),
            (r#"{ span.a = 3 && !(span.a > 2) }"#, "at once"),
            (r#"{ span.a = "ab" && !(span.a =~ "a.*") }"#, "at once"),
            (r#"{ event:name = "a" && !(event:name = "a") }"#, "at once"),
            (r#"{ !(name = "a" || name != "a") }"#, "at once"),
            (r#"{ name = "a" && name =~ "b.*" }"#, "cannot be \"a\" and =~"),
            (r#"{ name = "a" && name !~ "a|b" }"#, "at once"),
            (r#"{ span.a = 1 && span.a =~ "1" }"#, "at once"),
            (r#"{ status != ok && status != error && status != unset }"#, "every value"),
            (r#"{ !(status = ok || status = error || status = unset) }"#, "every value"),
            (r#"{ !(duration >= 0ns) }"#, "never < 0ns"),
        ] {
            let found = why(text).unwrap_or_else(|| panic!("{text} can match"));
            assert!(found.contains(says), "{text}: {found}");
        }
    }

    #[test]
    fn much_of_it_is_judged_part_by_part() {
        let names: Vec<String> = (0..40).map(|i| format!("name = \"n{i}\"")).collect();
        let any = names.join(" || ");
        let wide = format!("{{ ({any}) && ({any}) && ({any}) }}");
        assert_eq!(why(&wide), None);
        let wrong = format!("{{ ({any}) && ({any}) && ({any}) && (span.a = 1 && span.a = 2) }}");
        assert!(why(&wrong).is_some_and(|why| why.contains("at once")));
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
            r#"{ name = "a" && (name = "b" || name =~ "a.*") }"#,
            r#"{ name = "a" && !(name = "b" || status = error) }"#,
            // What has no value at all is neither.
            r#"{ !(span.a = 1) && !(span.a != 1) }"#,
            r#"{ event:name = "a" && !(event:name = "b") }"#,
            r#"{ span.a > 1 && !(span.a > 2) }"#,
            r#"{ name =~ "a.*" && name !~ "ab.*" }"#,
            r#"log { severity = warn && !(severity >= 14) }"#,
            r#"{ span.a = span.b && !(span.a = 1) }"#,
            r#"{ status != ok && status != error }"#,
        ] {
            assert_eq!(why(text), None, "{text}");
        }
    }
}
