//! Writing a selector so that it parses back to itself.

use std::fmt::{self, Write};

use super::ast::{Expr, Literal, Operand};
use super::fields::Field;
use super::lexer::is_attribute_char;
use crate::schema::SignalKind;

/// Writes a whole selector.
pub(super) fn selector(kind: SignalKind, expr: &Expr, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match kind {
        SignalKind::Spans => {}
        SignalKind::Logs => f.write_str("log ")?,
        SignalKind::Points => f.write_str("metric ")?,
    }
    match expr {
        Expr::Const(true) => f.write_str("{ }"),
        other => write!(f, "{{ {other} }}"),
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Const(value) => write!(f, "{value}"),
            Self::And(parts) => join(parts, " && ", f, |part| matches!(part, Self::Or(_))),
            Self::Or(parts) => join(parts, " || ", f, |_| false),
            Self::Not(inner) => write!(f, "!({inner})"),
            Self::Compare { field, op, value } => write!(f, "{field} {} {value}", op.text()),
        }
    }
}

fn join(
    parts: &[Expr],
    operator: &str,
    f: &mut fmt::Formatter<'_>,
    bracket: impl Fn(&Expr) -> bool,
) -> fmt::Result {
    for (i, part) in parts.iter().enumerate() {
        if i > 0 {
            f.write_str(operator)?;
        }
        if bracket(part) {
            write!(f, "({part})")?;
        } else {
            write!(f, "{part}")?;
        }
    }
    Ok(())
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(literal) => literal.fmt(f),
            Self::Field(field) => field.fmt(f),
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Intrinsic(intrinsic) => f.write_str(intrinsic.name()),
            Self::Attribute { scope, key } => {
                write!(f, "{}.", scope.name())?;
                let plain =
                    !key.is_empty() && key.chars().all(|c| c != '"' && is_attribute_char(c));
                if plain {
                    return f.write_str(key);
                }
                f.write_char('"')?;
                for c in key.chars() {
                    if matches!(c, '"' | '\\') {
                        f.write_char('\\')?;
                    }
                    f.write_char(c)?;
                }
                f.write_char('"')
            }
        }
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Str(text) => quote(text, f),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Duration(nanos) => duration(*nanos, f),
            Self::Status(status) => f.write_str(status.name()),
            Self::Kind(kind) => f.write_str(kind.name()),
            Self::Severity(level) => f.write_str(level.name()),
            Self::Nil => f.write_str("nil"),
        }
    }
}

fn quote(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

/// The longest unit that divides it.
fn duration(nanos: i64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    const UNITS: [(i64, &str); 6] = [
        (3_600_000_000_000, "h"),
        (60_000_000_000, "m"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1_000, "us"),
        (1, "ns"),
    ];
    let unit = UNITS.into_iter().find(|(size, _)| nanos % size == 0 && nanos != 0);
    let (size, name) = unit.unwrap_or((1, "ns"));
    write!(f, "{}{name}", nanos / size)
}
