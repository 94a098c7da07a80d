//! Names and values of attributes, for completing a query.

use std::collections::BTreeSet;

use lacuna_signal::SignalKind;
use lacuna_signal::schema::Scope;
use lacuna_signal::selector::Intrinsic;
use lacuna_store::{Store, StoreError, TimeRange};
use serde::Serialize;

use crate::lacking::{cut, lacking, note};

/// Values of one attribute unless the request says otherwise.
pub const DEFAULT_VALUES: usize = 1000;
/// Names of attributes, services and operations that are read.
const NAMES: usize = 10_000;

/// What every span has, as a query calls it.
const INTRINSICS: [Intrinsic; 18] = [
    Intrinsic::Duration,
    Intrinsic::SpanEventName,
    Intrinsic::SpanEventTime,
    Intrinsic::ScopeName,
    Intrinsic::ScopeVersion,
    Intrinsic::Kind,
    Intrinsic::LinkSpanId,
    Intrinsic::LinkTraceId,
    Intrinsic::Name,
    Intrinsic::SpanId,
    Intrinsic::ParentId,
    Intrinsic::Status,
    Intrinsic::StatusMessage,
    Intrinsic::TraceId,
    Intrinsic::TraceDuration,
    Intrinsic::RootName,
    Intrinsic::RootService,
    Intrinsic::ChildCount,
];

/// Names by scope.
#[derive(Debug, Serialize)]
pub struct TagNames {
    scopes: Vec<TagScope>,
    /// What is missing from them, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct TagScope {
    name: &'static str,
    tags: BTreeSet<String>,
}

/// Names, as the first version of Tempo's API lists them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FlatNames {
    tag_names: BTreeSet<String>,
    /// What is missing from them, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

impl TagNames {
    /// All names in one list.
    pub fn flat(self) -> FlatNames {
        let names = self.scopes.into_iter().flat_map(|scope| scope.tags);
        FlatNames { tag_names: names.collect(), warnings: self.warnings }
    }
}

/// Names of attributes of spans in or near `range`, of all scopes or of one.
pub fn names(store: &Store, scope: Option<&str>, range: TimeRange) -> Result<TagNames, StoreError> {
    let found = store.attribute_keys(SignalKind::Spans, range, NAMES)?;
    let warnings = lacking(&found, "attributes");
    let keys = found.items;
    let of = |wanted: Scope| {
        let keys = keys.iter().filter(|key| key.scope == wanted.name());
        keys.map(|key| key.key.clone()).collect()
    };
    let all = [
        ("resource", of(Scope::Resource)),
        ("span", of(Scope::Span)),
        ("instrumentation", of(Scope::Instrumentation)),
        ("intrinsic", INTRINSICS.iter().map(|field| field.name().to_owned()).collect()),
    ];
    let wanted = |name: &str| scope.is_none_or(|scope| scope == name || scope == "none");
    let scopes = all.into_iter().filter(|(name, _)| wanted(name));
    let scopes = scopes.map(|(name, tags)| TagScope { name, tags }).collect();
    Ok(TagNames { scopes, warnings })
}

/// Values of one attribute.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TagValues {
    tag_values: Vec<TagValue>,
    /// What is missing from them, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Debug, Serialize, PartialEq, Eq, PartialOrd, Ord)]
struct TagValue {
    #[serde(rename = "type")]
    ty: &'static str,
    value: String,
}

/// Values, as the first version of Tempo's API lists them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FlatValues {
    tag_values: Vec<String>,
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

/// Values of `name`, at most `limit`; `None` if it has no list of values.
pub fn values(
    store: &Store,
    name: &str,
    range: TimeRange,
    limit: usize,
) -> Result<Option<TagValues>, StoreError> {
    let keyword = |value: &&str| TagValue { ty: "keyword", value: (*value).to_owned() };
    let text = |value: String| TagValue { ty: "string", value };
    let mut warnings = Vec::new();
    let mut tag_values: Vec<TagValue> = match name {
        "status" => ["error", "ok", "unset"].iter().map(keyword).collect(),
        "kind" => ["client", "consumer", "internal", "producer", "server", "unspecified"]
            .iter()
            .map(keyword)
            .collect(),
        "name" => {
            let mut names = BTreeSet::new();
            let services = store.services(range, NAMES)?;
            note(&mut warnings, lacking(&services, "services"));
            for service in services.items {
                let operations = store.operations(&service.name, None, range, NAMES)?;
                note(&mut warnings, lacking(&operations, "operations"));
                names.extend(operations.items.into_iter().map(|operation| operation.name));
            }
            names.into_iter().map(text).collect()
        }
        _ => {
            let scopes: &[(Scope, &str)] = &[
                (Scope::Span, "span."),
                (Scope::Resource, "resource."),
                (Scope::Instrumentation, "instrumentation."),
                (Scope::Span, "."),
                (Scope::Resource, "."),
            ];
            let mut found: BTreeSet<TagValue> = BTreeSet::new();
            let mut known = false;
            for (scope, prefix) in scopes {
                let Some(key) = name.strip_prefix(prefix) else { continue };
                known = true;
                let values =
                    store.attribute_values(SignalKind::Spans, *scope, key, range, limit)?;
                note(&mut warnings, lacking(&values, "values"));
                found.extend(values.items.into_iter().map(|value| text(value.text)));
            }
            if !known {
                return Ok(None);
            }
            found.into_iter().collect()
        }
    };
    if tag_values.len() > limit {
        tag_values.truncate(limit);
        note(&mut warnings, [cut("values")]);
    }
    Ok(Some(TagValues { tag_values, warnings }))
}
