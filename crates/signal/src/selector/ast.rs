//! The expression between a selector's braces.

use super::fields::{Field, FieldScope};

/// A predicate over one row.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// True or false whatever the row; `{ }` is `Const(true)`.
    Const(bool),
    /// All of them.
    And(Vec<Expr>),
    /// At least one of them.
    Or(Vec<Expr>),
    /// Not it.
    Not(Box<Expr>),
    /// A comparison of a field with a literal or with another field.
    Compare {
        /// The left side.
        field: Field,
        /// The operator.
        op: Op,
        /// The right side.
        value: Operand,
    },
}

/// The right side of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A value written out.
    Literal(Literal),
    /// Another field of the same row.
    Field(Field),
}

/// Comparison operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// `=`
    Eq,
    /// `!=`
    Ne,
    /// `=~`, the whole text against a regular expression.
    Match,
    /// `!~`
    NotMatch,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
}

impl Op {
    /// All operators.
    pub const ALL: [Self; 8] =
        [Self::Eq, Self::Ne, Self::Match, Self::NotMatch, Self::Lt, Self::Le, Self::Gt, Self::Ge];

    /// The operator as it is written.
    pub fn text(self) -> &'static str {
        match self {
            Self::Eq => "=",
            Self::Ne => "!=",
            Self::Match => "=~",
            Self::NotMatch => "!~",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
        }
    }

    /// The operator that says the same with both sides exchanged; `None` for regular expressions.
    pub fn flipped(self) -> Option<Self> {
        match self {
            Self::Eq | Self::Ne => Some(self),
            Self::Match | Self::NotMatch => None,
            Self::Lt => Some(Self::Gt),
            Self::Le => Some(Self::Ge),
            Self::Gt => Some(Self::Lt),
            Self::Ge => Some(Self::Le),
        }
    }

    /// Whether it orders its sides.
    pub fn is_order(self) -> bool {
        matches!(self, Self::Lt | Self::Le | Self::Gt | Self::Ge)
    }

    /// Whether it takes a regular expression.
    pub fn is_match(self) -> bool {
        matches!(self, Self::Match | Self::NotMatch)
    }

    /// Whether the operator holds between sides that compare as `ordering`; `None` is what a NaN
    /// compares as, unequal to everything.
    pub fn holds(self, ordering: Option<std::cmp::Ordering>) -> bool {
        match self {
            Self::Eq => ordering.is_some_and(|o| o.is_eq()),
            Self::Ne => ordering.is_none_or(|o| o.is_ne()),
            Self::Lt => ordering.is_some_and(|o| o.is_lt()),
            Self::Le => ordering.is_some_and(|o| o.is_le()),
            Self::Gt => ordering.is_some_and(|o| o.is_gt()),
            Self::Ge => ordering.is_some_and(|o| o.is_ge()),
            Self::Match | Self::NotMatch => false,
        }
    }
}

/// A value written in a selector.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// Text, a regular expression or an id in hexadecimal.
    Str(String),
    /// An integer.
    Int(i64),
    /// A double; never NaN when parsed.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// A duration, nanoseconds.
    Duration(i64),
    /// A span's status.
    Status(StatusCode),
    /// A span's kind.
    Kind(SpanKind),
    /// A log record's severity level.
    Severity(SeverityLevel),
    /// No value.
    Nil,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$item_doc:meta])* $item:ident = $code:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$item_doc])* $item = $code,)* }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$item),*];

            /// The number that OTLP gives it (of a severity level, its first).
            pub fn code(self) -> u8 {
                self as u8
            }

            /// The word for it in selectors.
            pub fn name(self) -> &'static str {
                match self { $(Self::$item => $text),* }
            }

            /// The one that `name` is the word for.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|word| word.name() == name)
            }

            /// The one with OTLP's number `code`.
            pub fn from_code(code: u8) -> Option<Self> {
                Self::ALL.iter().copied().find(|word| word.code() == code)
            }
        }
    };
}

words! {
    /// Status of a span.
    StatusCode {
        /// Not set.
        Unset = 0, "unset";
        /// Success, said explicitly.
        Ok = 1, "ok";
        /// Failure.
        Error = 2, "error";
    }
}

words! {
    /// Kind of a span.
    SpanKind {
        /// Not given.
        Unspecified = 0, "unspecified";
        /// Internal operation.
        Internal = 1, "internal";
        /// Serves a request.
        Server = 2, "server";
        /// Makes a request.
        Client = 3, "client";
        /// Sends a message.
        Producer = 4, "producer";
        /// Receives a message.
        Consumer = 5, "consumer";
    }
}

words! {
    /// Severity level of a log record: four severity numbers each (OpenTelemetry logs data
    /// model), of which `code` is the lowest.
    SeverityLevel {
        /// 1 to 4.
        Trace = 1, "trace";
        /// 5 to 8.
        Debug = 5, "debug";
        /// 9 to 12.
        Info = 9, "info";
        /// 13 to 16.
        Warn = 13, "warn";
        /// 17 to 20.
        Error = 17, "error";
        /// 21 to 24.
        Fatal = 21, "fatal";
    }
}

impl Expr {
    /// `field op literal`.
    pub fn compare(field: impl Into<Field>, op: Op, literal: Literal) -> Self {
        Self::Compare { field: field.into(), op, value: Operand::Literal(literal) }
    }

    /// `field = "text"`.
    pub fn text(field: impl Into<Field>, text: impl Into<String>) -> Self {
        Self::compare(field, Op::Eq, Literal::Str(text.into()))
    }

    /// That the signal comes from service `name`.
    pub fn service(name: impl Into<String>) -> Self {
        Self::text(Field::service(), name)
    }

    /// That attribute `key` of the span or log, its resource, its instrumentation scope or one of
    /// its events reads `text`, whatever the value's type: Jaeger's tag search.
    pub fn tag(key: impl Into<String>, text: impl Into<String>) -> Self {
        Self::text(Field::attribute(FieldScope::Any, key), text)
    }

    /// That the field has a value.
    pub fn exists(field: impl Into<Field>) -> Self {
        Self::compare(field, Op::Ne, Literal::Nil)
    }

    /// All of `parts`.
    pub fn all(parts: impl IntoIterator<Item = Self>) -> Self {
        Self::And(parts.into_iter().collect()).normalise()
    }

    /// At least one of `parts`.
    pub fn any(parts: impl IntoIterator<Item = Self>) -> Self {
        Self::Or(parts.into_iter().collect()).normalise()
    }

    /// The same with nested conjunctions and disjunctions flattened and those of one part, or
    /// none, replaced by it: the form in which the parser returns it.
    #[must_use]
    pub fn normalise(self) -> Self {
        match self {
            Self::And(parts) => flatten(parts, true),
            Self::Or(parts) => flatten(parts, false),
            Self::Not(inner) => Self::Not(Box::new(inner.normalise())),
            other => other,
        }
    }
}

fn flatten(parts: Vec<Expr>, conjunction: bool) -> Expr {
    let mut flat = Vec::with_capacity(parts.len());
    for part in parts {
        match (part.normalise(), conjunction) {
            (Expr::And(inner), true) | (Expr::Or(inner), false) => flat.extend(inner),
            (other, _) => flat.push(other),
        }
    }
    if flat.len() > 1 {
        return if conjunction { Expr::And(flat) } else { Expr::Or(flat) };
    }
    flat.pop().unwrap_or(Expr::Const(conjunction))
}
