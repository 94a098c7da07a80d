//! The expression between a selector's braces.

use crate::schema::{Scope, SignalKind};

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

/// Something of a row that can be compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    /// An attribute.
    Attribute {
        /// Whose.
        scope: FieldScope,
        /// Its key.
        key: String,
    },
    /// What every row has, by TraceQL's name.
    Intrinsic(Intrinsic),
}

/// Whose attribute a field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FieldScope {
    /// `.key`: the span's or log's, else the resource's.
    Unscoped,
    /// `span.key`
    Span,
    /// `log.key`
    Log,
    /// `resource.key`
    Resource,
    /// `instrumentation.key`
    Instrumentation,
    /// `event.key`: of at least one event of the span.
    Event,
    /// `link.key`: of at least one link of the span.
    Link,
    /// `any.key`: of the span or log, of its resource, its instrumentation scope or at least one
    /// event, with the value compared as text. This is Lacuna's, for Jaeger's tag search; TraceQL
    /// has nothing like it.
    Any,
}

impl FieldScope {
    /// All scopes.
    pub const ALL: [Self; 8] = [
        Self::Unscoped,
        Self::Span,
        Self::Log,
        Self::Resource,
        Self::Instrumentation,
        Self::Event,
        Self::Link,
        Self::Any,
    ];

    /// What stands before the dot.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unscoped => "",
            Self::Span => "span",
            Self::Log => "log",
            Self::Resource => "resource",
            Self::Instrumentation => "instrumentation",
            Self::Event => "event",
            Self::Link => "link",
            Self::Any => "any",
        }
    }

    /// The scope of the attribute's columns, if the attribute has columns of its own.
    pub fn column_scope(self) -> Option<Scope> {
        match self {
            Self::Span => Some(Scope::Span),
            Self::Log => Some(Scope::Log),
            Self::Resource => Some(Scope::Resource),
            Self::Instrumentation => Some(Scope::Instrumentation),
            Self::Unscoped | Self::Event | Self::Link | Self::Any => None,
        }
    }

    /// Whether rows of `kind` have this scope.
    pub fn is_of(self, kind: SignalKind) -> bool {
        match self {
            Self::Span | Self::Event | Self::Link => kind == SignalKind::Spans,
            Self::Log => kind == SignalKind::Logs,
            Self::Unscoped | Self::Resource | Self::Instrumentation | Self::Any => true,
        }
    }
}

/// What every span or log record has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Intrinsic {
    /// `name`: span name.
    Name,
    /// `status`
    Status,
    /// `statusMessage`
    StatusMessage,
    /// `kind`
    Kind,
    /// `duration`
    Duration,
    /// `trace:id`
    TraceId,
    /// `span:id`
    SpanId,
    /// `span:parentID`
    ParentId,
    /// `event:name`: of at least one event of the span.
    SpanEventName,
    /// `event:timeSinceStart`: of at least one event of the span.
    SpanEventTime,
    /// `link:traceID`: of at least one link of the span.
    LinkTraceId,
    /// `link:spanID`: of at least one link of the span.
    LinkSpanId,
    /// `instrumentation:name`
    ScopeName,
    /// `instrumentation:version`
    ScopeVersion,
    /// `body`: text of a log record; a body of another type as its OTLP/JSON.
    Body,
    /// `severity`: number of a log record, or the level in whose range it lies.
    Severity,
    /// `severityText`
    SeverityText,
    /// `eventName`: name of an event log record.
    EventName,
}

/// What can be done with an intrinsic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IntrinsicType {
    Text,
    Status,
    Kind,
    Duration,
    Id,
    Severity,
}

impl Intrinsic {
    /// All intrinsics.
    pub const ALL: [Self; 18] = [
        Self::Name,
        Self::Status,
        Self::StatusMessage,
        Self::Kind,
        Self::Duration,
        Self::TraceId,
        Self::SpanId,
        Self::ParentId,
        Self::SpanEventName,
        Self::SpanEventTime,
        Self::LinkTraceId,
        Self::LinkSpanId,
        Self::ScopeName,
        Self::ScopeVersion,
        Self::Body,
        Self::Severity,
        Self::SeverityText,
        Self::EventName,
    ];

    /// Its name in selectors.
    pub fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Status => "status",
            Self::StatusMessage => "statusMessage",
            Self::Kind => "kind",
            Self::Duration => "duration",
            Self::TraceId => "trace:id",
            Self::SpanId => "span:id",
            Self::ParentId => "span:parentID",
            Self::SpanEventName => "event:name",
            Self::SpanEventTime => "event:timeSinceStart",
            Self::LinkTraceId => "link:traceID",
            Self::LinkSpanId => "link:spanID",
            Self::ScopeName => "instrumentation:name",
            Self::ScopeVersion => "instrumentation:version",
            Self::Body => "body",
            Self::Severity => "severity",
            Self::SeverityText => "severityText",
            Self::EventName => "eventName",
        }
    }

    /// The one called `name`, by its name or by another that TraceQL gives it.
    pub fn from_name(name: &str) -> Option<Self> {
        let other = match name {
            "span:name" => Self::Name,
            "span:status" => Self::Status,
            "span:statusMessage" => Self::StatusMessage,
            "span:kind" => Self::Kind,
            "span:duration" => Self::Duration,
            "traceID" => Self::TraceId,
            "spanID" => Self::SpanId,
            "parentID" => Self::ParentId,
            "log:body" => Self::Body,
            "log:severity" => Self::Severity,
            "log:severityText" => Self::SeverityText,
            "log:eventName" => Self::EventName,
            _ => return Self::ALL.into_iter().find(|intrinsic| intrinsic.name() == name),
        };
        Some(other)
    }

    /// Whether rows of `kind` have it.
    pub fn is_of(self, kind: SignalKind) -> bool {
        match self {
            Self::TraceId | Self::SpanId | Self::ScopeName | Self::ScopeVersion => true,
            Self::Body | Self::Severity | Self::SeverityText | Self::EventName => {
                kind == SignalKind::Logs
            }
            _ => kind == SignalKind::Spans,
        }
    }

    pub(super) fn ty(self) -> IntrinsicType {
        match self {
            Self::Name
            | Self::StatusMessage
            | Self::SpanEventName
            | Self::ScopeName
            | Self::ScopeVersion
            | Self::Body
            | Self::SeverityText
            | Self::EventName => IntrinsicType::Text,
            Self::Status => IntrinsicType::Status,
            Self::Kind => IntrinsicType::Kind,
            Self::Duration | Self::SpanEventTime => IntrinsicType::Duration,
            Self::TraceId
            | Self::SpanId
            | Self::ParentId
            | Self::LinkTraceId
            | Self::LinkSpanId => IntrinsicType::Id,
            Self::Severity => IntrinsicType::Severity,
        }
    }
}

impl Field {
    /// Attribute `key` of `scope`.
    pub fn attribute(scope: FieldScope, key: impl Into<String>) -> Self {
        Self::Attribute { scope, key: key.into() }
    }

    /// Resource attribute `service.name`, which selectors also call `service`.
    pub fn service() -> Self {
        Self::attribute(FieldScope::Resource, crate::semconv::SERVICE_NAME)
    }

    /// Whether it is an `any.` attribute.
    pub(super) fn is_any(&self) -> bool {
        matches!(self, Self::Attribute { scope: FieldScope::Any, .. })
    }

    /// Whether it has a value for each of several items of a row, of which one is enough.
    pub(super) fn is_many(&self) -> bool {
        match self {
            Self::Attribute { scope, .. } => {
                matches!(scope, FieldScope::Event | FieldScope::Link | FieldScope::Any)
            }
            Self::Intrinsic(intrinsic) => matches!(
                intrinsic,
                Intrinsic::SpanEventName
                    | Intrinsic::SpanEventTime
                    | Intrinsic::LinkTraceId
                    | Intrinsic::LinkSpanId
            ),
        }
    }
}

impl From<Intrinsic> for Field {
    fn from(intrinsic: Intrinsic) -> Self {
        Self::Intrinsic(intrinsic)
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
