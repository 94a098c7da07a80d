//! Names and values of attributes, for completing a query.

use std::collections::BTreeSet;

use lacuna_signal::SignalKind;
use lacuna_signal::schema::Scope;
use lacuna_signal::selector::Intrinsic;
use lacuna_store::{Store, StoreError, TimeRange};
use serde::Serialize;

/// Values of one attribute unless the request says otherwise.
pub const DEFAULT_VALUES: usize = 1000;
/// Names of attributes, services and operations that are read.
const NAMES: usize = 10_000;

/// What every span has, as a query calls it.
const INTRINSICS: [Intrinsic; 14] = [
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
];

/// Names by scope.
#[derive(Debug, Serialize)]
pub struct TagNames {
    scopes: Vec<TagScope>,
}

#[derive(Debug, Serialize)]
struct TagScope {
    name: &'static str,
    tags: BTreeSet<String>,
}

/// Names of attributes of spans in or near `range`, of all scopes or of one.
pub fn names(store: &Store, scope: Option<&str>, range: TimeRange) -> Result<TagNames, StoreError> {
    let keys = store.attribute_keys(SignalKind::Spans, range, NAMES)?.items;
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
    Ok(TagNames { scopes: scopes.map(|(name, tags)| TagScope { name, tags }).collect() })
}

/// Values of one attribute.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TagValues {
    tag_values: Vec<TagValue>,
}

#[derive(Debug, Serialize, PartialEq, Eq, PartialOrd, Ord)]
struct TagValue {
    #[serde(rename = "type")]
    ty: &'static str,
    value: String,
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
    let mut tag_values: Vec<TagValue> = match name {
        "status" => ["error", "ok", "unset"].iter().map(keyword).collect(),
        "kind" => ["client", "consumer", "internal", "producer", "server", "unspecified"]
            .iter()
            .map(keyword)
            .collect(),
        "name" => {
            let mut names = BTreeSet::new();
            for service in store.services(range, NAMES)?.items {
                let operations = store.operations(&service.name, None, range, NAMES)?.items;
                names.extend(operations.into_iter().map(|operation| operation.name));
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
                found.extend(values.items.into_iter().map(|value| text(value.text)));
            }
            if !known {
                return Ok(None);
            }
            found.into_iter().collect()
        }
    };
    tag_values.truncate(limit);
    Ok(Some(TagValues { tag_values }))
}
