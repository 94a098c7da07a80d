//! Names of attributes, for completing a query.
//!
//! Those of spans, resources and scopes are in the store's catalogue. Those of events and links are
//! not: they are taken from the newest spans. So are all, if a query says of which spans.

use std::collections::BTreeSet;

use lacuna_signal::rows::SpanRows;
use lacuna_signal::schema::{EVENTS, LINKS, Scope};
use lacuna_signal::selector::{Intrinsic, Query, Selector};
use lacuna_signal::value::AttributeList;
use lacuna_signal::{Batch, SignalKind};
use lacuna_store::{Store, StoreError, TimeRange};
use serde::Serialize;

use crate::lacking::{damage, lacking, note};

/// Names of attributes, services and operations that are read.
pub(super) const NAMES: usize = 10_000;
/// Spans of which events and links are looked through for names.
const NAMED_SPANS: usize = 20_000;
/// Spans that a query selects of which all attributes are looked through.
const FILTERED_SPANS: usize = 2_000;

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

/// Names of attributes of spans in or near `range`, of all scopes or of one; if `q` selects spans, of
/// those.
pub fn names(
    store: &Store,
    scope: Option<&str>,
    range: TimeRange,
    q: Option<&str>,
) -> Result<TagNames, StoreError> {
    let wanted = |name: &str| scope.is_none_or(|scope| scope == name || scope == "none");
    let (filter, mut warnings) = filter(q);
    let mut keys = Keys::default();
    match &filter {
        Some(filter) => {
            let spans = newest(store, Some(filter), range, None, FILTERED_SPANS, &mut warnings)?;
            keys.add_columns(&spans);
            keys.add_nested(&spans);
        }
        None => {
            let found = store.attribute_keys(SignalKind::Spans, range, NAMES)?;
            note(&mut warnings, lacking(&found, "attributes"));
            let add = |scope: Scope, keys: &mut BTreeSet<String>| {
                let of_scope = found.items.iter().filter(|key| key.scope == scope.name());
                keys.extend(of_scope.map(|key| key.key.clone()));
            };
            add(Scope::Resource, &mut keys.resource);
            add(Scope::Span, &mut keys.span);
            add(Scope::Instrumentation, &mut keys.instrumentation);
            if wanted("event") || wanted("link") {
                let columns = Some(&[EVENTS, LINKS][..]);
                let spans = newest(store, None, range, columns, NAMED_SPANS, &mut warnings)?;
                keys.add_nested(&spans);
            }
        }
    }
    let all = [
        ("resource", keys.resource),
        ("span", keys.span),
        ("event", keys.event),
        ("link", keys.link),
        ("instrumentation", keys.instrumentation),
        ("intrinsic", INTRINSICS.iter().map(|field| field.name().to_owned()).collect()),
    ];
    let scopes = all.into_iter().filter(|(name, _)| wanted(name));
    let scopes = scopes.map(|(name, tags)| TagScope { name, tags }).collect();
    Ok(TagNames { scopes, warnings })
}

#[derive(Default)]
struct Keys {
    resource: BTreeSet<String>,
    span: BTreeSet<String>,
    event: BTreeSet<String>,
    link: BTreeSet<String>,
    instrumentation: BTreeSet<String>,
}

impl Keys {
    fn add_columns(&mut self, spans: &Batch) {
        for (scope, keys) in [
            (Scope::Resource, &mut self.resource),
            (Scope::Span, &mut self.span),
            (Scope::Instrumentation, &mut self.instrumentation),
        ] {
            let attributes = spans.attributes(scope);
            for row in 0..spans.num_rows() {
                add(keys, attributes.of_row(row).map(|(key, _)| key));
            }
        }
    }

    fn add_nested(&mut self, spans: &Batch) {
        let rows = SpanRows::new(spans);
        let keys = |list: Option<AttributeList<'_>>, into: &mut BTreeSet<String>| {
            add(into, list.iter().flat_map(AttributeList::iter).map(|(key, _)| key));
        };
        for row in 0..spans.num_rows() {
            rows.events(row).for_each(|event| keys(event.attributes, &mut self.event));
            rows.links(row).for_each(|link| keys(link.attributes, &mut self.link));
        }
    }
}

fn add<'a>(all: &mut BTreeSet<String>, keys: impl Iterator<Item = &'a str>) {
    for key in keys {
        if !all.contains(key) {
            all.insert(key.to_owned());
        }
    }
}

/// The selector that `q` is, and what is said of it if it is none that can be asked of single spans.
/// A query that is still being typed is none either, so that it is no error.
pub(super) fn filter(q: Option<&str>) -> (Option<Selector>, Vec<String>) {
    let Some(q) = q else { return (None, Vec::new()) };
    let passed_over = |why: String| (None, vec![format!("q was passed over: {why}")]);
    match Query::parse(q).map(|query| (query.kind(), query.conjunction())) {
        Err(error) => passed_over(error.to_string()),
        Ok((SignalKind::Spans, Some(all))) => match all.as_slice() {
            [only] => (Some(only.clone()).filter(|only| !only.is_everything()), Vec::new()),
            _ => passed_over("here it is one selector of spans".to_owned()),
        },
        Ok(_) => passed_over("here it is one selector of spans".to_owned()),
    }
}

/// The newest `limit` spans in `range`, or of those that `selector` selects.
pub(super) fn newest(
    store: &Store,
    selector: Option<&Selector>,
    range: TimeRange,
    columns: Option<&[&str]>,
    limit: usize,
    warnings: &mut Vec<String>,
) -> Result<Batch, StoreError> {
    let found = store.newest(SignalKind::Spans, selector, range, columns, limit)?;
    note(warnings, damage(&found.damaged));
    if found.cut {
        note(warnings, [format!("some are of the newest {limit} spans only")]);
    }
    Ok(found.items)
}
