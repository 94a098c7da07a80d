//! What a filter's operators are applied to: references to values, and constants.

use lacuna_signal::selector::{Expr, Field, FieldScope, Intrinsic, Literal, Op};
use lacuna_signal::selector::{SpanKind, StatusCode};
use serde::Deserialize;

use super::{LEVELS, Read, id, unsupported, wrong};
use crate::jaeger::go;

/// An attribute, by key.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attribute {
    key: String,
    #[serde(default)]
    level: String,
}

/// What a level has besides attributes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldName {
    name: String,
    level: String,
}

/// Any reference, before they had three forms.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OldReference {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    level: String,
    #[serde(default)]
    attr: bool,
}

/// A constant.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scalar {
    /// As it is written, whatever its type.
    pub value: String,
    #[serde(rename = "type", default)]
    ty: String,
}

/// Constants of one type.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// As they are written.
    #[serde(default)]
    pub values: Vec<String>,
    #[serde(rename = "type", default)]
    ty: String,
}

impl List {
    /// One by one.
    pub fn scalars(&self) -> impl Iterator<Item = Scalar> {
        self.values.iter().map(|value| Scalar { value: value.clone(), ty: self.ty.clone() })
    }
}

/// A value of a span that a filter refers to.
#[derive(Debug, Clone)]
pub struct Reference {
    /// Its field in a selector.
    pub field: Field,
    /// What it is.
    pub subject: Subject,
}

/// What a reference is to, which says how constants beside it are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// An attribute: of any type.
    Attribute,
    /// Text.
    Text,
    /// In Go's syntax.
    Duration,
    /// By its word.
    Kind,
    /// By its word.
    Status,
    /// In hexadecimal.
    Id(Intrinsic),
}

/// A constant that has been read.
#[derive(Debug, Clone)]
pub enum Constant {
    /// Text, or an id.
    Str(String),
    /// An integer.
    Int(i64),
    /// A finite number.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// A duration or a word.
    Other(Literal),
}

/// The scope of attributes that a level's name means.
fn scope(level: &str) -> Read<FieldScope> {
    Ok(match level {
        "" => FieldScope::Unscoped,
        "span" => FieldScope::Span,
        "resource" => FieldScope::Resource,
        // As a draft called it.
        "scope" | "instrumentation" => FieldScope::Instrumentation,
        "event" => FieldScope::Event,
        "link" => FieldScope::Link,
        _ => {
            let levels = LEVELS.join(", ");
            return wrong(format!("unknown filter level {level:?}: levels are {levels}"));
        }
    })
}

impl Attribute {
    /// The reference that it is.
    pub fn read(&self) -> Read<Reference> {
        if self.key.is_empty() {
            return wrong("an attribute without a key");
        }
        let field = Field::attribute(scope(&self.level)?, &self.key);
        Ok(Reference { field, subject: Subject::Attribute })
    }
}

impl FieldName {
    /// The reference that it is.
    pub fn read(&self) -> Read<Reference> {
        let (level, name) = (self.level.as_str(), self.name.as_str());
        let (intrinsic, subject) = match (level, name) {
            ("span", "traceID") => (Intrinsic::TraceId, Subject::Id(Intrinsic::TraceId)),
            ("span", "spanID") => (Intrinsic::SpanId, Subject::Id(Intrinsic::SpanId)),
            ("span", "parentSpanID") => (Intrinsic::ParentId, Subject::Id(Intrinsic::ParentId)),
            ("span", "name") => (Intrinsic::Name, Subject::Text),
            ("span", "kind") => (Intrinsic::Kind, Subject::Kind),
            ("span", "status") => (Intrinsic::Status, Subject::Status),
            ("span", "statusMessage") => (Intrinsic::StatusMessage, Subject::Text),
            ("span", "duration") => (Intrinsic::Duration, Subject::Duration),
            ("resource", "service") => {
                return Ok(Reference { field: Field::service(), subject: Subject::Text });
            }
            ("scope" | "instrumentation", "name") => (Intrinsic::ScopeName, Subject::Text),
            ("scope" | "instrumentation", "version") => (Intrinsic::ScopeVersion, Subject::Text),
            ("event", "name") => (Intrinsic::SpanEventName, Subject::Text),
            ("event", "timeSinceStart") => (Intrinsic::SpanEventTime, Subject::Duration),
            ("link", "traceID") => (Intrinsic::LinkTraceId, Subject::Id(Intrinsic::LinkTraceId)),
            ("link", "spanID") => (Intrinsic::LinkSpanId, Subject::Id(Intrinsic::LinkSpanId)),
            ("span", "startTime" | "endTime") => {
                return unsupported(format!(
                    "field `{name}`; query.startTimeMin and query.startTimeMax bound when spans start"
                ));
            }
            ("span" | "link", "traceState")
            | ("resource" | "scope" | "instrumentation", "schemaURL")
            | ("event", "time") => {
                return unsupported(format!("field `{name}` of level `{level}`"));
            }
            _ => {
                scope(level)?;
                return wrong(format!(
                    "level {level:?} has no field {name:?}; an attribute is {{\"attr\": {{\"key\": \
                     {name:?}, \"level\": {level:?}}}}}"
                ));
            }
        };
        Ok(Reference { field: intrinsic.into(), subject })
    }
}

impl OldReference {
    /// The reference that it is: an attribute if it says so, or has no level.
    pub fn read(&self) -> Read<Reference> {
        let (name, level) = (self.name.clone(), self.level.clone());
        if self.attr || level.is_empty() {
            return Attribute { key: name, level }.read();
        }
        FieldName { name, level }.read()
    }

    /// The collection that it is.
    pub fn collection(&self) -> Read<FieldScope> {
        match scope(&self.level)? {
            scope @ (FieldScope::Event | FieldScope::Link) => Ok(scope),
            _ => wrong(format!("level {:?} is no collection: event and link are", self.level)),
        }
    }
}

impl Reference {
    /// Itself, if it is of the collection that `some` asks, or is not within one.
    pub fn within(self, some: Option<FieldScope>) -> Read<Self> {
        let own = match &self.field {
            Field::Attribute { scope, .. } => *scope,
            Field::Intrinsic(Intrinsic::SpanEventName | Intrinsic::SpanEventTime) => {
                FieldScope::Event
            }
            Field::Intrinsic(Intrinsic::LinkTraceId | Intrinsic::LinkSpanId) => FieldScope::Link,
            Field::Intrinsic(_) => FieldScope::Span,
        };
        match some {
            Some(scope) if scope != own => {
                unsupported(format!("`{}` within `some` over each {}", self.field, scope.name()))
            }
            _ => Ok(self),
        }
    }

    /// That there is a value.
    pub fn exists(&self) -> Expr {
        match self.subject {
            // Every span has them.
            Subject::Kind
            | Subject::Status
            | Subject::Id(Intrinsic::SpanId | Intrinsic::TraceId) => Expr::Const(true),
            Subject::Duration if self.field == Field::Intrinsic(Intrinsic::Duration) => {
                Expr::Const(true)
            }
            _ => Expr::exists(self.field.clone()),
        }
    }

    /// `op` between it and `constant`.
    pub fn compare(&self, op: Op, constant: Constant) -> Expr {
        let literal = match constant {
            Constant::Str(text) => Literal::Str(text),
            Constant::Int(value) => Literal::Int(value),
            Constant::Float(value) => Literal::Float(value),
            Constant::Bool(value) => Literal::Bool(value),
            Constant::Other(literal) => literal,
        };
        Expr::compare(self.field.clone(), op, literal)
    }

    /// What `scalar` may be beside it: beside an attribute one value of each type that its text can
    /// be read as, if it does not say which.
    pub fn constants(&self, scalar: &Scalar) -> Read<Vec<Constant>> {
        let text = scalar.value.as_str();
        let typed = |ty: &str| wrong(format!("{text:?} is not of type {ty}"));
        let one = match (self.subject, scalar.ty.as_str()) {
            (_, ty) if !["", "string", "int", "double", "bool"].contains(&ty) => {
                return wrong(format!("unknown type {ty:?}: types are string, int, double, bool"));
            }
            (Subject::Attribute, "") => {
                let mut all = vec![Constant::Str(text.to_owned())];
                match (text.parse::<i64>(), text.parse::<f64>()) {
                    (Ok(value), _) => all.push(Constant::Int(value)),
                    (_, Ok(value)) if value.is_finite() => all.push(Constant::Float(value)),
                    _ => {}
                }
                all.extend(text.parse().ok().map(Constant::Bool));
                return Ok(all);
            }
            (Subject::Attribute, "int") => match text.parse() {
                Ok(value) => Constant::Int(value),
                Err(_) => return typed("int"),
            },
            (Subject::Attribute, "double") => match text.parse::<f64>() {
                Ok(value) if value.is_finite() => Constant::Float(value),
                _ => return typed("double"),
            },
            (Subject::Attribute, "bool") => match text.parse() {
                Ok(value) => Constant::Bool(value),
                Err(_) => return typed("bool"),
            },
            (Subject::Attribute, _) => Constant::Str(text.to_owned()),
            (_, ty @ ("int" | "double" | "bool")) => {
                return wrong(format!("`{}` compared with a constant of type {ty}", self.field));
            }
            (Subject::Text, _) => Constant::Str(text.to_owned()),
            (Subject::Duration, _) => match go::parse_duration(text) {
                Ok(nanos) => Constant::Other(Literal::Duration(nanos)),
                Err(why) => return wrong(why),
            },
            (Subject::Kind | Subject::Status, _) => {
                let all = words(self.subject);
                let lower = text.to_ascii_lowercase();
                match all.iter().find(|(word, _)| *word == lower) {
                    Some((_, literal)) => Constant::Other(literal.clone()),
                    None => {
                        let names: Vec<&str> = all.iter().map(|(word, _)| *word).collect();
                        return wrong(format!(
                            "{text:?} is not a value of `{}`: values are {}",
                            self.field,
                            names.join(", ")
                        ));
                    }
                }
            }
            (Subject::Id(intrinsic), _) => id(intrinsic, text)?,
        };
        Ok(vec![one])
    }
}

/// The values of what has words for them.
pub fn words(subject: Subject) -> Vec<(&'static str, Literal)> {
    match subject {
        Subject::Kind => SpanKind::ALL.iter().map(|k| (k.name(), Literal::Kind(*k))).collect(),
        Subject::Status => {
            StatusCode::ALL.iter().map(|s| (s.name(), Literal::Status(*s))).collect()
        }
        _ => Vec::new(),
    }
}
