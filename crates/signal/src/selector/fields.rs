//! What of a row can be compared: attributes and intrinsics.

use crate::schema::{Scope, SignalKind};

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
    /// `point.key`
    Point,
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
    /// `parent.key`: of the span's parent, else of the parent's resource. For queries over traces.
    Parent,
    /// `parent.span.key`
    ParentSpan,
    /// `parent.resource.key`
    ParentResource,
}

impl FieldScope {
    /// All scopes.
    pub const ALL: [Self; 12] = [
        Self::Unscoped,
        Self::Span,
        Self::Log,
        Self::Point,
        Self::Resource,
        Self::Instrumentation,
        Self::Event,
        Self::Link,
        Self::Any,
        Self::Parent,
        Self::ParentSpan,
        Self::ParentResource,
    ];

    /// What stands before the dot.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unscoped => "",
            Self::Span => "span",
            Self::Log => "log",
            Self::Point => "point",
            Self::Resource => "resource",
            Self::Instrumentation => "instrumentation",
            Self::Event => "event",
            Self::Link => "link",
            Self::Any => "any",
            Self::Parent => "parent",
            Self::ParentSpan => "parent.span",
            Self::ParentResource => "parent.resource",
        }
    }

    /// The scope of the attribute's columns, if the attribute has columns of its own.
    pub fn column_scope(self) -> Option<Scope> {
        match self {
            Self::Span => Some(Scope::Span),
            Self::Log => Some(Scope::Log),
            Self::Point => Some(Scope::Point),
            Self::Resource => Some(Scope::Resource),
            Self::Instrumentation => Some(Scope::Instrumentation),
            Self::Unscoped | Self::Event | Self::Link | Self::Any => None,
            Self::Parent | Self::ParentSpan | Self::ParentResource => None,
        }
    }

    /// Whether it is of another span of the trace.
    pub(super) fn is_whole(self) -> bool {
        matches!(self, Self::Parent | Self::ParentSpan | Self::ParentResource)
    }

    /// Whether rows of `kind` have this scope.
    pub fn is_of(self, kind: SignalKind) -> bool {
        match self {
            Self::Span | Self::Event | Self::Link => kind == SignalKind::Spans,
            Self::Parent | Self::ParentSpan | Self::ParentResource => kind == SignalKind::Spans,
            Self::Log => kind == SignalKind::Logs,
            Self::Point => kind == SignalKind::Points,
            Self::Unscoped | Self::Resource | Self::Instrumentation | Self::Any => true,
        }
    }
}

/// What every span, log record or metric point has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Intrinsic {
    /// `name`: of the span, or of the point's metric.
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
    /// `traceDuration`: from the first start to the last end of the trace. For queries over traces,
    /// as are those that follow.
    TraceDuration,
    /// `rootName`: name of the earliest span without a parent.
    RootName,
    /// `rootServiceName`: its service.
    RootService,
    /// `span:childCount`: how many spans of the trace name the span as their parent.
    ChildCount,
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
    /// A number without a unit.
    Count,
}

impl Intrinsic {
    /// All intrinsics.
    pub const ALL: [Self; 22] = [
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
        Self::TraceDuration,
        Self::RootName,
        Self::RootService,
        Self::ChildCount,
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
            Self::TraceDuration => "traceDuration",
            Self::RootName => "rootName",
            Self::RootService => "rootServiceName",
            Self::ChildCount => "span:childCount",
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
            "trace:duration" => Self::TraceDuration,
            "trace:rootName" => Self::RootName,
            "trace:rootService" => Self::RootService,
            "childCount" => Self::ChildCount,
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
            Self::ScopeName | Self::ScopeVersion => true,
            Self::TraceId | Self::SpanId => kind != SignalKind::Points,
            Self::Name => kind != SignalKind::Logs,
            Self::Body | Self::Severity | Self::SeverityText | Self::EventName => {
                kind == SignalKind::Logs
            }
            _ => kind == SignalKind::Spans,
        }
    }

    /// Whether it is of the trace, or of other spans of it.
    pub(super) fn is_whole(self) -> bool {
        matches!(self, Self::TraceDuration | Self::RootName | Self::RootService | Self::ChildCount)
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
            | Self::EventName
            | Self::RootName
            | Self::RootService => IntrinsicType::Text,
            Self::ChildCount => IntrinsicType::Count,
            Self::Status => IntrinsicType::Status,
            Self::Kind => IntrinsicType::Kind,
            Self::Duration | Self::SpanEventTime | Self::TraceDuration => IntrinsicType::Duration,
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

    /// Whether it takes the whole trace to know: only queries over traces have it.
    pub fn is_whole(&self) -> bool {
        match self {
            Self::Attribute { scope, .. } => scope.is_whole(),
            Self::Intrinsic(intrinsic) => intrinsic.is_whole(),
        }
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
