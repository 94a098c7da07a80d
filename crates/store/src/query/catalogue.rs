//! What there is: services, operations, attributes, metrics.
//!
//! The catalogue is put together from summaries of the parts, so it costs no reading of rows. A
//! summary knows when each service and operation was seen first and last; attributes and metrics
//! are known by part, so a range may also show what lies just outside of it.

use std::collections::{BTreeMap, BTreeSet};

use lacuna_signal::schema::{AttrType, Scope, attribute_column, parse_attribute_column};
use lacuna_signal::{Batch, SignalKind};

use super::plan::Reader;
use crate::bounds::{Found, TimeRange};
use crate::error::StoreError;
use crate::lookup::Lookup;
use crate::metric::MetricKey;
use crate::part::{Filter, Want};
use crate::store::Store;
use crate::summary::Summary;

/// A service and how much of it there is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Service {
    /// Resource attribute `service.name`; empty if the emitter named none.
    pub name: String,
    /// Spans.
    pub spans: u64,
    /// Log records.
    pub logs: u64,
    /// Metric points.
    pub points: u64,
}

/// An operation: a span name and kind of one service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[non_exhaustive]
pub struct Operation {
    /// Span name.
    pub name: String,
    /// Span kind as OTLP numbers it.
    pub kind: u8,
    /// Spans.
    pub spans: u64,
}

/// An attribute that occurs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct AttributeKey {
    /// Prefix of the scope: `span`, `log`, `point`, `resource` or `instrumentation`.
    pub scope: &'static str,
    /// Key.
    pub key: String,
    /// Type of its values: `str`, `int`, `double`, `bool`, `bytes` or `any`.
    pub value_type: &'static str,
    /// Rows that have it.
    pub rows: u64,
}

/// A value that an attribute has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AttributeValue {
    /// The value as text ([`Value::to_text`](lacuna_signal::Value::to_text)).
    pub text: String,
    /// Its type: the same text of another is another value.
    pub value_type: AttrType,
    /// Rows that have it.
    pub rows: u64,
}

/// A metric and how many points it has.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct MetricMetadata {
    /// Name and metadata.
    pub metric: MetricKey,
    /// Points.
    pub points: u64,
}

/// Keeps the first `limit` of what was found.
fn bounded<T>(items: impl IntoIterator<Item = T>, limit: usize) -> Found<Vec<T>> {
    let mut items = items.into_iter();
    let mut found = Found::new(items.by_ref().take(limit).collect::<Vec<_>>());
    found.cut = items.next().is_some();
    found
}

fn type_name(ty: AttrType) -> &'static str {
    match ty {
        AttrType::Str => "str",
        AttrType::Int => "int",
        AttrType::Double => "double",
        AttrType::Bool => "bool",
        AttrType::Bytes => "bytes",
        AttrType::Any => "any",
    }
}

impl Store {
    /// Services that emitted anything in `range`, by name, at most `limit`.
    pub fn services(
        &self,
        range: TimeRange,
        limit: usize,
    ) -> Result<Found<Vec<Service>>, StoreError> {
        let (mut services, mut damaged) = (BTreeMap::<String, Service>::new(), Vec::new());
        for kind in SignalKind::ALL {
            damaged.extend(self.summaries(kind, range, |summary| {
                for (name, operations) in &summary.services {
                    let seen = operations.iter().filter(|(.., o)| o.bounds.overlaps(range));
                    let rows: u64 = seen.map(|(.., o)| o.rows).sum();
                    if rows == 0 {
                        continue;
                    }
                    let service = services.entry(name.clone()).or_insert_with(|| Service {
                        name: name.clone(),
                        spans: 0,
                        logs: 0,
                        points: 0,
                    });
                    match kind {
                        SignalKind::Spans => service.spans += rows,
                        SignalKind::Logs => service.logs += rows,
                        SignalKind::Points => service.points += rows,
                    }
                }
            })?);
        }
        let mut found = bounded(services.into_values(), limit);
        found.damaged = damaged;
        Ok(found)
    }

    /// Operations of `service` with spans in `range`, of any kind or of one, by name and kind, at
    /// most `limit`.
    pub fn operations(
        &self,
        service: &str,
        kind: Option<u8>,
        range: TimeRange,
        limit: usize,
    ) -> Result<Found<Vec<Operation>>, StoreError> {
        let mut operations: BTreeMap<(String, u8), u64> = BTreeMap::new();
        let damaged = self.summaries(SignalKind::Spans, range, |summary| {
            for (name, span_kind, seen) in summary.services.get(service).into_iter().flatten() {
                if seen.bounds.overlaps(range) && kind.is_none_or(|kind| kind == *span_kind) {
                    *operations.entry((name.clone(), *span_kind)).or_default() += seen.rows;
                }
            }
        })?;
        let operations =
            operations.into_iter().map(|((name, kind), spans)| Operation { name, kind, spans });
        let mut found = bounded(operations, limit);
        found.damaged = damaged;
        Ok(found)
    }

    /// Attributes that signals of `kind` have in or near `range`, by scope, key and type, at most
    /// `limit`. Attributes of events and links, and those beyond a batch's columns, are not listed.
    pub fn attribute_keys(
        &self,
        kind: SignalKind,
        range: TimeRange,
        limit: usize,
    ) -> Result<Found<Vec<AttributeKey>>, StoreError> {
        let mut keys: BTreeMap<(Scope, String, AttrType), u64> = BTreeMap::new();
        let damaged = self.summaries(kind, range, |summary| {
            for (column, seen) in &summary.columns {
                if let Some((scope, ty, key)) = parse_attribute_column(column) {
                    *keys.entry((scope, key.to_owned(), ty)).or_default() += seen.rows;
                }
            }
        })?;
        let keys = keys.into_iter().map(|((scope, key, ty), rows)| AttributeKey {
            scope: scope.name(),
            key,
            value_type: type_name(ty),
            rows,
        });
        let mut found = bounded(keys, limit);
        found.damaged = damaged;
        Ok(found)
    }

    /// Values of attribute `key` of `scope` on signals of `kind` in or near `range`, most frequent
    /// first, then by text and type, at most `limit`. A part with many distinct values is read for them, up
    /// to `limit` a part; then the answer is cut.
    pub fn attribute_values(
        &self,
        kind: SignalKind,
        scope: Scope,
        key: &str,
        range: TimeRange,
        limit: usize,
    ) -> Result<Found<Vec<AttributeValue>>, StoreError> {
        let columns = AttrType::ALL.map(|ty| attribute_column(scope, ty, key));
        let names: Vec<&str> = columns.iter().map(String::as_str).collect();
        let mut values: BTreeMap<(String, AttrType), u64> = BTreeMap::new();
        let mut cut = false;
        let mut reader = Reader::new(self.shared(), kind, range);
        for part in reader.parts.clone() {
            let Some(summary) = reader.note(part.summary())? else { continue };
            let seen = names.iter().zip(AttrType::ALL);
            let seen = seen.filter_map(|(name, ty)| Some((summary.columns.get(*name)?, ty)));
            let lists: Option<Vec<_>> =
                seen.map(|(c, ty)| Some((c.values.as_ref()?, ty))).collect();
            if let Some(lists) = lists {
                for (list, ty) in lists {
                    for (text, rows) in list {
                        *values.entry((text.clone(), ty)).or_default() += rows;
                    }
                }
                continue;
            }
            let mut here = BTreeSet::new();
            let single = Reader::over(self.shared(), vec![part], Vec::new());
            cut |= read_values(single, &names, range, limit, |value, rows| {
                if here.len() >= limit && !here.contains(&value) {
                    return false;
                }
                here.insert(value.clone());
                *values.entry(value).or_default() += rows;
                true
            })?;
        }
        let value = |((text, value_type), rows)| AttributeValue { text, value_type, rows };
        let mut values: Vec<_> = values.into_iter().map(value).collect();
        // By text and type they are in order.
        values.sort_by_key(|value| std::cmp::Reverse(value.rows));
        let mut found = bounded(values, limit);
        found.cut |= cut;
        found.damaged = reader.damaged;
        Ok(found)
    }

    /// Metrics with points in or near `range`, by name, at most `limit`.
    pub fn metrics(
        &self,
        range: TimeRange,
        limit: usize,
    ) -> Result<Found<Vec<MetricMetadata>>, StoreError> {
        let mut metrics: BTreeMap<MetricKey, u64> = BTreeMap::new();
        let damaged = self.summaries(SignalKind::Points, range, |summary| {
            for (metric, points) in &summary.metrics {
                *metrics.entry(metric.clone()).or_default() += points;
            }
        })?;
        let metrics = metrics.into_iter().map(|(metric, points)| MetricMetadata { metric, points });
        let mut found = bounded(metrics, limit);
        found.damaged = damaged;
        Ok(found)
    }

    fn summaries(
        &self,
        kind: SignalKind,
        range: TimeRange,
        mut each: impl FnMut(&Summary),
    ) -> Result<Vec<crate::report::Finding>, StoreError> {
        let mut reader = Reader::new(self.shared(), kind, range);
        for part in reader.parts.clone() {
            if let Some(summary) = reader.note(part.summary())? {
                each(&summary);
            }
        }
        Ok(reader.damaged)
    }
}

/// Gives every value in `columns` to `take` until it refuses one; whether it did.
fn read_values(
    mut reader: Reader<'_>,
    columns: &[&str],
    range: TimeRange,
    limit: usize,
    mut take: impl FnMut((String, AttrType), u64) -> bool,
) -> Result<bool, StoreError> {
    let planned = reader.plan(&Lookup::default(), range)?;
    let filter = Filter { range: TimeRange::ALL, selector: None };
    for planned in &planned {
        for batch in reader.read(planned, Want::Names(columns), filter)? {
            for (value, rows) in texts(&batch, columns, limit) {
                if !take(value, rows) {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}

/// The distinct values in `columns` of `batch`, a little more than `limit` at most.
fn texts(batch: &Batch, columns: &[&str], limit: usize) -> BTreeMap<(String, AttrType), u64> {
    let mut values = BTreeMap::new();
    for column in columns {
        let Some((scope, ty, key)) = parse_attribute_column(column) else { continue };
        let Ok(single) = batch.project(&[column]) else { continue };
        let attribute = single.attribute(scope, key);
        for row in 0..single.num_rows() {
            if let Some(value) = attribute.get(row) {
                *values.entry((value.to_text(), ty)).or_default() += 1;
                if values.len() > limit {
                    break;
                }
            }
        }
    }
    values
}
