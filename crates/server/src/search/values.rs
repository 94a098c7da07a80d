//! Values of a field, for completing a query.

use std::collections::BTreeSet;

use lacuna_signal::rows::SpanRows;
use lacuna_signal::schema::{
    AttrType, EVENTS, LINKS, NAME, SCOPE_NAME, SCOPE_VERSION, STATUS_MESSAGE, Scope,
    attribute_column,
};
use lacuna_signal::selector::{Expr, Field, FieldScope, Intrinsic, Literal, Op, Selector};
use lacuna_signal::selector::{SpanKind, StatusCode};
use lacuna_signal::value::{AttributeList, any_element};
use lacuna_signal::{Batch, SignalKind, Value, semconv};
use lacuna_store::{Store, StoreError, TimeRange};
use serde::Serialize;

use super::tags::{NAMES, filter, newest};
use crate::lacking::{cut, lacking, note};

/// Values of one field unless the request says otherwise.
pub const DEFAULT_VALUES: usize = 1000;
/// Spans of which values are read that the store's catalogue does not have.
const READ_SPANS: usize = 20_000;

/// Values of one field.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TagValues {
    tag_values: Vec<TagValue>,
    /// What is missing from them, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// A value and its type by Tempo's name of it: Grafana puts the values of `string` in quotes, and
/// others as they are.
#[derive(Debug, Serialize, PartialEq, Eq, PartialOrd, Ord)]
struct TagValue {
    value: String,
    #[serde(rename = "type")]
    ty: &'static str,
}

/// Values, as the first version of Tempo's API lists them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FlatValues {
    tag_values: BTreeSet<String>,
    /// What is missing from them, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

impl TagValues {
    /// The values without their types.
    pub fn flat(self) -> FlatValues {
        let values = self.tag_values.into_iter().map(|value| value.value);
        FlatValues { tag_values: values.collect(), warnings: self.warnings }
    }
}

/// What has a list of values.
enum Listed {
    Attribute { scope: Option<FieldScope>, key: String },
    Intrinsic(Intrinsic),
}

impl Listed {
    fn of(name: &str) -> Option<Self> {
        if let Some(intrinsic) = Intrinsic::from_name(name) {
            return Some(Self::Intrinsic(intrinsic));
        }
        let scopes = [
            ("span.", Some(FieldScope::Span)),
            ("resource.", Some(FieldScope::Resource)),
            ("instrumentation.", Some(FieldScope::Instrumentation)),
            ("event.", Some(FieldScope::Event)),
            ("link.", Some(FieldScope::Link)),
            (".", None),
        ];
        let (key, scope) = scopes
            .into_iter()
            .find_map(|(prefix, scope)| Some((name.strip_prefix(prefix)?, scope)))?;
        // As selectors write a key of other characters.
        let quoted = key.strip_prefix('"').and_then(|key| key.strip_suffix('"'));
        let key = quoted.map_or_else(|| key.to_owned(), |key| key.replace("\\\"", "\""));
        Some(Self::Attribute { scope, key })
    }
}

/// Values of `name`, at most `limit`, and if `q` selects spans, only of those; `None` if it has no
/// list of values.
pub fn values(
    store: &Store,
    name: &str,
    range: TimeRange,
    limit: usize,
    q: Option<&str>,
) -> Result<Option<TagValues>, StoreError> {
    let Some(listed) = Listed::of(name) else { return Ok(None) };
    let (filter, warnings) = filter(q);
    let mut reading = Reading { store, range, limit, values: BTreeSet::new(), warnings };
    let known = match listed {
        Listed::Attribute { scope, key } => {
            reading.attribute(scope, &key, filter.as_ref())?;
            true
        }
        Listed::Intrinsic(intrinsic) => reading.intrinsic(intrinsic, filter)?,
    };
    if !known {
        return Ok(None);
    }
    let Reading { values, mut warnings, .. } = reading;
    if values.len() > limit {
        note(&mut warnings, [cut("values")]);
    }
    Ok(Some(TagValues { tag_values: values.into_iter().take(limit).collect(), warnings }))
}

struct Reading<'a> {
    store: &'a Store,
    range: TimeRange,
    limit: usize,
    values: BTreeSet<TagValue>,
    warnings: Vec<String>,
}

impl Reading<'_> {
    fn attribute(
        &mut self,
        scope: Option<FieldScope>,
        key: &str,
        filter: Option<&Selector>,
    ) -> Result<(), StoreError> {
        let scopes: &[Scope] = match scope {
            None => &[Scope::Span, Scope::Resource],
            Some(FieldScope::Span) => &[Scope::Span],
            Some(FieldScope::Resource) => &[Scope::Resource],
            Some(FieldScope::Instrumentation) => &[Scope::Instrumentation],
            Some(scope) => return self.nested(scope, key, filter),
        };
        if filter.is_none() {
            for scope in scopes {
                let (kind, limit) = (SignalKind::Spans, self.limit);
                let found = self.store.attribute_values(kind, *scope, key, self.range, limit)?;
                note(&mut self.warnings, lacking(&found, "values"));
                for value in found.items {
                    self.add_text(value.text, value.value_type);
                }
            }
            return Ok(());
        }
        let columns: Vec<String> = scopes
            .iter()
            .flat_map(|scope| AttrType::ALL.map(|ty| attribute_column(*scope, ty, key)))
            .chain([lacuna_signal::schema::OVERFLOW.to_owned()])
            .collect();
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        let spans = self.spans(filter, &columns)?;
        for scope in scopes {
            let attribute = spans.attribute(*scope, key);
            (0..spans.num_rows()).filter_map(|row| attribute.get(row)).for_each(|v| self.add(&v));
        }
        Ok(())
    }

    /// Of events or links.
    fn nested(
        &mut self,
        scope: FieldScope,
        key: &str,
        filter: Option<&Selector>,
    ) -> Result<(), StoreError> {
        let events = scope == FieldScope::Event;
        let exists = Expr::exists(Field::attribute(scope, key));
        let selector = self.both(exists, filter);
        let spans = self.spans(selector.as_ref(), &[if events { EVENTS } else { LINKS }])?;
        let rows = SpanRows::new(&spans);
        for row in 0..spans.num_rows() {
            let mut of_key = |list: Option<AttributeList<'_>>| {
                let values = list.iter().flat_map(AttributeList::iter);
                values.filter(|(found, _)| *found == key).for_each(|(_, value)| self.add(&value));
            };
            if events {
                rows.events(row).for_each(|event| of_key(event.attributes));
            } else {
                rows.links(row).for_each(|link| of_key(link.attributes));
            }
        }
        Ok(())
    }

    /// Whether `intrinsic` has a list of values.
    fn intrinsic(
        &mut self,
        intrinsic: Intrinsic,
        filter: Option<Selector>,
    ) -> Result<bool, StoreError> {
        let column = match intrinsic {
            Intrinsic::Status => {
                StatusCode::ALL.iter().for_each(|status| self.keyword(status.name()));
                return Ok(true);
            }
            Intrinsic::Kind => {
                SpanKind::ALL.iter().for_each(|kind| self.keyword(kind.name()));
                return Ok(true);
            }
            Intrinsic::Name if filter.is_none() => {
                self.operations()?;
                return Ok(true);
            }
            Intrinsic::Name | Intrinsic::RootName => NAME,
            Intrinsic::StatusMessage => STATUS_MESSAGE,
            Intrinsic::SpanEventName => EVENTS,
            Intrinsic::ScopeName => SCOPE_NAME,
            Intrinsic::ScopeVersion => SCOPE_VERSION,
            Intrinsic::RootService => {
                let roots = self.both(no_parent(), filter.as_ref());
                let column =
                    attribute_column(Scope::Resource, AttrType::Str, semconv::SERVICE_NAME);
                let spans = self.spans(roots.as_ref(), &[&column])?;
                let rows = SpanRows::new(&spans);
                self.texts((0..spans.num_rows()).filter_map(|row| rows.service(row)));
                return Ok(true);
            }
            _ => return Ok(false),
        };
        let selector = match intrinsic {
            Intrinsic::Name => filter,
            // Of the spans that a query selects, those that are roots.
            Intrinsic::RootName => self.both(no_parent(), filter.as_ref()),
            other => self.both(Expr::exists(other), filter.as_ref()),
        };
        let spans = self.spans(selector.as_ref(), &[column])?;
        let (rows, all) = (SpanRows::new(&spans), 0..spans.num_rows());
        match intrinsic {
            Intrinsic::StatusMessage => self.texts(all.filter_map(|row| rows.status_message(row))),
            Intrinsic::SpanEventName => {
                self.texts(all.flat_map(|row| rows.events(row)).map(|event| event.name));
            }
            Intrinsic::ScopeName => self.texts(all.filter_map(|row| rows.scope_name(row))),
            Intrinsic::ScopeVersion => self.texts(all.filter_map(|row| rows.scope_version(row))),
            _ => self.texts(all.map(|row| rows.name(row))),
        }
        Ok(true)
    }

    /// Names of all operations of all services.
    fn operations(&mut self) -> Result<(), StoreError> {
        let services = self.store.services(self.range, NAMES)?;
        note(&mut self.warnings, lacking(&services, "services"));
        for service in services.items {
            let operations = self.store.operations(&service.name, None, self.range, NAMES)?;
            note(&mut self.warnings, lacking(&operations, "operations"));
            for operation in operations.items {
                self.add_text(operation.name, AttrType::Str);
            }
        }
        Ok(())
    }

    /// `expr` of spans that pass `filter`.
    fn both(&self, expr: Expr, filter: Option<&Selector>) -> Option<Selector> {
        let all = [Some(expr), filter.map(|filter| filter.expr().clone())];
        Selector::new(SignalKind::Spans, Expr::all(all.into_iter().flatten())).ok()
    }

    fn spans(
        &mut self,
        selector: Option<&Selector>,
        columns: &[&str],
    ) -> Result<Batch, StoreError> {
        let warnings = &mut self.warnings;
        newest(self.store, selector, self.range, Some(columns), READ_SPANS, warnings)
    }

    fn keyword(&mut self, word: &str) {
        self.values.insert(TagValue { value: word.to_owned(), ty: "keyword" });
    }

    fn texts<'t>(&mut self, texts: impl Iterator<Item = &'t str>) {
        let distinct: BTreeSet<&str> = texts.collect();
        distinct.into_iter().for_each(|text| self.add(&Value::Str(text)));
    }

    fn add_text(&mut self, text: String, ty: AttrType) {
        let ty = match ty {
            AttrType::Str => "string",
            AttrType::Int => "int",
            AttrType::Double => "float",
            AttrType::Bool => "bool",
            // Elements can be asked for.
            AttrType::Any => return self.add(&Value::Any(&text)),
            AttrType::Bytes => return,
        };
        self.values.insert(TagValue { value: text, ty });
    }

    /// Adds a value that a query can be written with.
    fn add(&mut self, value: &Value<'_>) {
        let ty = match value {
            Value::Str(_) => AttrType::Str,
            Value::Int(_) => AttrType::Int,
            Value::Double(double) if double.is_finite() => AttrType::Double,
            Value::Bool(_) => AttrType::Bool,
            Value::Any(text) => {
                any_element(text, |element| {
                    self.add(element);
                    false
                });
                return;
            }
            Value::Double(_) | Value::Bytes(_) | Value::Base64(_) => return,
        };
        self.add_text(value.to_text(), ty);
    }
}

fn no_parent() -> Expr {
    Expr::compare(Intrinsic::ParentId, Op::Eq, Literal::Nil)
}
