//! `where`: what must hold between the two sides of a pair.

use lacuna_signal::SignalKind;
use lacuna_signal::selector::{
    Field, FieldAccess, Intrinsic, Op, SeverityLevel, SpanKind, StatusCode, parse_duration,
};

use super::Role;

/// One comparison between the sides of a pair, or between a side and a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// The left side.
    pub left: Term,
    /// The operator: one that compares, not one that matches.
    pub op: Op,
    /// The right side.
    pub right: Term,
}

/// One side of a condition.
#[derive(Debug, Clone, PartialEq)]
pub enum Term {
    /// A field: whose, and its place in that side's `fields`.
    Field(Role, usize),
    /// A text.
    Text(String),
    /// A whole number; a duration is its nanoseconds.
    Int(i64),
    /// Another number.
    Number(f64),
    /// A boolean.
    Bool(bool),
}

/// A complaint about bytes `start..end` of a condition.
pub(super) struct ConditionError {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) message: String,
    pub(super) help: String,
}

const SYNTAX: &str = "write `expect.<field> = when.<field>`, such as \
                      `expect.span.amount = when.span.amount`, joined by `&&`";

/// Reads `expect.span.amount = when.span.amount && …`. The fields that it reads are added to the
/// lists of their sides.
pub(super) fn parse(
    text: &str,
    kinds: (SignalKind, SignalKind),
    when: &mut Vec<FieldAccess>,
    expect: &mut Vec<FieldAccess>,
) -> Result<Vec<Condition>, ConditionError> {
    let mut conditions = Vec::new();
    for (start, part) in split(text) {
        let Some((op, at, len)) = operator(part) else {
            return Err(fail(text, start, part, "no comparison here", SYNTAX));
        };
        let mut side = |from: usize, to: usize| {
            let raw = &part[from..to];
            let offset = start + from + (raw.len() - raw.trim_start().len());
            term(text, offset, raw.trim(), kinds, when, expect)
        };
        let left = side(0, at)?;
        if let Term::Field(role, index) = left {
            let fields = if role == Role::When { &*when } else { &*expect };
            let word = fields.get(index).and_then(|field| words(field, &part[at + len..]));
            if let Some(word) = word {
                let worded = word.conditions(&left, op).ok_or_else(|| {
                    let help = "a level is four numbers: write `>=` or `<`, such as `>= warn`";
                    fail(text, start, part, "a severity level cannot be compared by `!=`", help)
                })?;
                conditions.extend(worded);
                continue;
            }
        }
        let mut side = |from: usize, to: usize| {
            let raw = &part[from..to];
            let offset = start + from + (raw.len() - raw.trim_start().len());
            term(text, offset, raw.trim(), kinds, when, expect)
        };
        let right = side(at + len, part.len())?;
        if !matches!(left, Term::Field(..)) && !matches!(right, Term::Field(..)) {
            return Err(fail(text, start, part, "neither side is a field", SYNTAX));
        }
        conditions.push(Condition { left, op, right });
    }
    Ok(conditions)
}

/// A word that stands for a value of an intrinsic, as in selectors.
enum Word {
    /// Of a status or kind, which are texts.
    Text(&'static str),
    /// Of a severity, which is a number: four for each level, of which this is the lowest.
    Level(i64),
}

/// The value that a bare word has for a field.
fn words(field: &FieldAccess, raw: &str) -> Option<Word> {
    let raw = raw.trim();
    match field.field() {
        Field::Intrinsic(Intrinsic::Status) => {
            StatusCode::from_name(raw).map(|status| Word::Text(status.name()))
        }
        Field::Intrinsic(Intrinsic::Kind) => {
            SpanKind::from_name(raw).map(|kind| Word::Text(kind.name()))
        }
        Field::Intrinsic(Intrinsic::Severity) => {
            SeverityLevel::from_name(raw).map(|level| Word::Level(i64::from(level.code())))
        }
        _ => None,
    }
}

impl Word {
    /// What `left op word` asks for; `None` if that is no number of comparisons that must all hold.
    fn conditions(self, left: &Term, op: Op) -> Option<Vec<Condition>> {
        let one = |op, right| Condition { left: left.clone(), op, right };
        let (low, high) = match self {
            Self::Text(text) => return Some(vec![one(op, Term::Text(text.to_owned()))]),
            Self::Level(low) => (Term::Int(low), Term::Int(low + 3)),
        };
        Some(match op {
            Op::Ge | Op::Lt => vec![one(op, low)],
            Op::Gt | Op::Le => vec![one(op, high)],
            Op::Eq => vec![one(Op::Ge, low), one(Op::Le, high)],
            _ => return None,
        })
    }
}

fn fail(text: &str, start: usize, part: &str, message: &str, help: &str) -> ConditionError {
    let skip = part.len() - part.trim_start().len();
    let end = (start + skip + part.trim().len()).min(text.len());
    ConditionError { start: start + skip, end, message: message.to_owned(), help: help.to_owned() }
}

/// The parts between `&&` outside quotes, with their offsets.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, _) in outside_quotes(text).filter(|(at, _)| text[*at..].starts_with("&&")) {
        if at >= start {
            parts.push((start, &text[start..at]));
            start = at + 2;
        }
    }
    parts.push((start, &text[start..]));
    parts
}

/// The first comparison operator outside quotes: which, where and how long.
fn operator(part: &str) -> Option<(Op, usize, usize)> {
    const OPS: [Op; 6] = [Op::Ne, Op::Le, Op::Ge, Op::Eq, Op::Lt, Op::Gt];
    outside_quotes(part).find_map(|(at, _)| {
        let op = OPS.into_iter().find(|op| part[at..].starts_with(op.text()))?;
        Some((op, at, op.text().len()))
    })
}

fn outside_quotes(text: &str) -> impl Iterator<Item = (usize, char)> {
    let (mut quoted, mut escaped) = (false, false);
    text.char_indices().filter(move |(_, c)| {
        let inside = quoted;
        match c {
            '"' if !escaped => quoted = !quoted,
            _ => {}
        }
        escaped = inside && *c == '\\' && !escaped;
        !inside && !quoted
    })
}

fn term(
    text: &str,
    offset: usize,
    raw: &str,
    kinds: (SignalKind, SignalKind),
    when: &mut Vec<FieldAccess>,
    expect: &mut Vec<FieldAccess>,
) -> Result<Term, ConditionError> {
    let (role, kind, list, field) = if let Some(field) = raw.strip_prefix("when.") {
        (Role::When, kinds.0, when, field)
    } else if let Some(field) = raw.strip_prefix("expect.") {
        (Role::Expect, kinds.1, expect, field)
    } else {
        if let Some(inner) = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            return Ok(Term::Text(inner.replace("\\\"", "\"").replace("\\\\", "\\")));
        }
        let whole = raw.parse::<i64>().ok().or_else(|| parse_duration(raw));
        return match (raw, whole, raw.parse::<f64>()) {
            ("true", ..) => Ok(Term::Bool(true)),
            ("false", ..) => Ok(Term::Bool(false)),
            (_, Some(number), _) => Ok(Term::Int(number)),
            (_, None, Ok(number)) if number.is_finite() => Ok(Term::Number(number)),
            _ => Err(fail(text, offset, raw, "neither a side's field nor a value", SYNTAX)),
        };
    };
    let access = FieldAccess::parse(kind, field).map_err(|error| {
        let start = offset + (raw.len() - field.len()) + error.offset();
        ConditionError {
            start,
            end: start + error.len(),
            message: error.problem().to_owned(),
            help: error.help().to_owned(),
        }
    })?;
    let index = list.iter().position(|known| *known == access).unwrap_or_else(|| {
        list.push(access);
        list.len() - 1
    });
    Ok(Term::Field(role, index))
}
