//! Series of metrics: points that share everything but their times and values.

use std::collections::{BTreeMap, HashSet};
use std::hash::BuildHasher;

use arrow::array::UInt64Array;
use lacuna_signal::rows::PointRows;
use lacuna_signal::schema::{self, AttrType, Scope};
use lacuna_signal::selector::Selector;
use lacuna_signal::value::{Attributes, base64};
use lacuna_signal::{Batch, SignalKind, Value};

use crate::bounds::{Found, TimeRange};
use crate::error::StoreError;
use crate::metric::MetricKey;
use crate::store::Store;

/// What tells a series from others. A change of its description makes no other series.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesKey {
    /// The metric's name.
    pub name: String,
    /// 0 gauge, 1 sum, 2 histogram, 3 exponential histogram, 4 summary.
    pub metric_type: u8,
    /// Unit (UCUM); empty if none was given.
    pub unit: String,
    /// Aggregation temporality as OTLP numbers it: 0 unspecified, 1 delta, 2 cumulative.
    pub temporality: u8,
    /// Whether a sum only rises.
    pub monotonic: bool,
    /// Name of the instrumentation scope; empty if none was given.
    pub scope_name: String,
    /// Its version; empty if none was given.
    pub scope_version: String,
    /// Attributes of points, resource and instrumentation scope, in order.
    pub attributes: Vec<SeriesAttribute>,
}

/// An attribute of a series.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesAttribute {
    /// Whose.
    pub scope: Scope,
    /// Its key.
    pub key: String,
    /// The type of its value.
    pub ty: AttrType,
    /// The value as text ([`Value::to_text`]).
    pub text: String,
}

/// A series with its points.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Series {
    /// What tells it from others.
    pub key: SeriesKey,
    /// The points, oldest first.
    pub points: Batch,
}

/// A metric, and how many series it has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MetricSeries {
    /// Name and metadata.
    pub metric: MetricKey,
    /// Series.
    pub series: u64,
    /// Points.
    pub points: u64,
}

/// What a set takes for the number of one series, about.
const SERIES_BYTES: usize = 20;
/// Whose attributes are a series'.
const SCOPES: [Scope; 3] = [Scope::Point, Scope::Resource, Scope::Instrumentation];

impl Store {
    /// Series of points in `range` that `selector` (`metric { … }`) selects, by their keys, with
    /// those points. At most `series` of them, and of the newest `points` points: `cut` says
    /// whether there are more of either.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn series(
        &self,
        selector: &Selector,
        range: TimeRange,
        series: usize,
        points: usize,
    ) -> Result<Found<Vec<Series>>, StoreError> {
        let newest = self.newest(SignalKind::Points, Some(selector), range, None, points)?;
        let batch = newest.items;
        let columns = Columns::new(&batch);
        let mut rows: BTreeMap<Vec<u8>, Vec<u64>> = BTreeMap::new();
        let mut bytes = Vec::new();
        for row in (0..batch.num_rows()).rev() {
            bytes.clear();
            columns.identity(row, &mut bytes);
            match rows.get_mut(&bytes) {
                Some(rows) => rows.push(row as u64),
                None => drop(rows.insert(bytes.clone(), vec![row as u64])),
            }
        }
        let keyed = rows.into_values().map(|rows| (columns.key(rows[0] as usize), rows));
        let keyed: BTreeMap<SeriesKey, Vec<u64>> = keyed.collect();
        let more = keyed.len() > series;
        let items = keyed.into_iter().take(series).map(|(key, rows)| {
            let points = batch.take(&UInt64Array::from(rows))?;
            Ok(Series { key, points })
        });
        let mut found = Found::new(items.collect::<Result<Vec<_>, StoreError>>()?);
        found.cut = newest.cut || more;
        found.damaged = newest.damaged;
        Ok(found)
    }

    /// Metrics with points in `range`, by name, at most `limit`, each with how many series it has.
    /// At most `points` points are looked at, all if there are not more: `cut` says whether there
    /// are.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn metric_series(
        &self,
        range: TimeRange,
        limit: usize,
        points: usize,
    ) -> Result<Found<Vec<MetricSeries>>, StoreError> {
        let keys = self.attribute_keys(SignalKind::Points, range, usize::MAX)?;
        let mut names: Vec<String> = [
            schema::NAME,
            schema::UNIT,
            schema::DESCRIPTION,
            schema::METRIC_TYPE,
            schema::TEMPORALITY,
            schema::MONOTONIC,
            schema::SCOPE_NAME,
            schema::SCOPE_VERSION,
            schema::OVERFLOW,
        ]
        .map(str::to_owned)
        .to_vec();
        for scope in SCOPES {
            let of_scope = keys.items.iter().filter(|key| key.scope == scope.name());
            names.extend(of_scope.flat_map(|key| {
                AttrType::ALL.map(|ty| schema::attribute_column(scope, ty, &key.key))
            }));
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut scan = self.scan(SignalKind::Points, None, range, Some(&names), points)?;
        let hasher = foldhash::fast::FixedState::default();
        let mut metrics: BTreeMap<MetricKey, (HashSet<u64>, u64)> = BTreeMap::new();
        let mut bytes = Vec::new();
        let (mut charge, mut short) = (self.charge(), false);
        for batch in scan.by_ref() {
            let batch = batch?;
            let known: usize = metrics.values().map(|(series, _)| series.len()).sum();
            if !charge.set(known * SERIES_BYTES) {
                short = true;
                break;
            }
            let columns = Columns::new(&batch);
            // Points of a series lie together: the metric of most rows is that of the row before.
            let mut last: Option<(MetricKey, HashSet<u64>, u64)> = None;
            for row in 0..batch.num_rows() {
                bytes.clear();
                columns.identity(row, &mut bytes);
                let hash = hasher.hash_one(&bytes);
                if !last.as_ref().is_some_and(|(key, ..)| columns.is_of(row, key)) {
                    settle(&mut metrics, last.take());
                    last = Some((columns.metric(row), HashSet::new(), 0));
                }
                if let Some((_, series, points)) = &mut last {
                    series.insert(hash);
                    *points += 1;
                }
            }
            settle(&mut metrics, last);
        }
        let more = metrics.len() > limit;
        let items = metrics.into_iter().take(limit).map(|(metric, (series, points))| {
            MetricSeries { metric, series: series.len() as u64, points }
        });
        let mut found = Found::new(items.collect::<Vec<_>>());
        found.cut = scan.cut() || more || short;
        found.damaged = keys.damaged;
        for finding in scan.damaged() {
            if !found.damaged.contains(finding) {
                found.damaged.push(finding.clone());
            }
        }
        Ok(found)
    }
}

/// Adds series and points of a metric to those that are known of it.
fn settle(
    metrics: &mut BTreeMap<MetricKey, (HashSet<u64>, u64)>,
    more: Option<(MetricKey, HashSet<u64>, u64)>,
) {
    if let Some((metric, series, points)) = more {
        let known = metrics.entry(metric).or_default();
        known.0.extend(series);
        known.1 += points;
    }
}

/// The columns of points that tell series apart.
struct Columns<'a> {
    rows: PointRows<'a>,
    attributes: [(Scope, Attributes<'a>); 3],
}

impl<'a> Columns<'a> {
    fn new(batch: &'a Batch) -> Self {
        let attributes = SCOPES.map(|scope| (scope, batch.attributes(scope)));
        Self { rows: PointRows::new(batch), attributes }
    }

    fn metric_type(&self, row: usize) -> u8 {
        self.rows.metric_type(row).map_or(0, |ty| ty.code())
    }

    fn texts(&self, row: usize) -> [&'a str; 4] {
        let unset = Option::unwrap_or_default;
        [
            self.rows.name(row),
            unset(self.rows.unit(row)),
            unset(self.rows.scope_name(row)),
            unset(self.rows.scope_version(row)),
        ]
    }

    fn numbers(&self, row: usize) -> [u8; 3] {
        let monotonic = u8::from(self.rows.monotonic(row));
        [self.metric_type(row), self.rows.temporality(row), monotonic]
    }

    /// Appends what tells the series of `row` from others. Attributes come in the order of their
    /// columns, which is by key, and those of a batch's overflow after them: [`Self::key`] sorts.
    fn identity(&self, row: usize, out: &mut Vec<u8>) {
        for text in self.texts(row) {
            put(out, text.as_bytes());
        }
        out.extend(self.numbers(row));
        let start = out.len();
        let mut last: Option<(Scope, &str)> = None;
        let mut sorted = true;
        for (scope, attributes) in &self.attributes {
            for (key, value) in attributes.of_row(row) {
                sorted &= last.is_none_or(|last| last < (*scope, key));
                last = Some((*scope, key));
                out.push(*scope as u8);
                put(out, key.as_bytes());
                put_value(out, value);
            }
        }
        if !sorted {
            // The same attributes may lie in columns here and in the overflow there.
            out.truncate(start);
            for attribute in self.attributes_of(row) {
                out.push(attribute.scope as u8);
                put(out, attribute.key.as_bytes());
                out.push(attribute.ty.code());
                put(out, attribute.text.as_bytes());
            }
        }
    }

    fn attributes_of(&self, row: usize) -> Vec<SeriesAttribute> {
        let mut all: Vec<SeriesAttribute> = Vec::new();
        for (scope, attributes) in &self.attributes {
            all.extend(attributes.of_row(row).map(|(key, value)| SeriesAttribute {
                scope: *scope,
                key: key.to_owned(),
                ty: type_of(value),
                text: value.to_text(),
            }));
        }
        all.sort();
        all
    }

    fn key(&self, row: usize) -> SeriesKey {
        let [name, unit, scope_name, scope_version] = self.texts(row).map(str::to_owned);
        let [metric_type, temporality, monotonic] = self.numbers(row);
        SeriesKey {
            name,
            metric_type,
            unit,
            temporality,
            monotonic: monotonic == 1,
            scope_name,
            scope_version,
            attributes: self.attributes_of(row),
        }
    }

    fn metric(&self, row: usize) -> MetricKey {
        let [name, unit, ..] = self.texts(row).map(str::to_owned);
        let [metric_type, temporality, monotonic] = self.numbers(row);
        let description = self.rows.description(row).unwrap_or_default().to_owned();
        MetricKey { name, unit, description, metric_type, temporality, monotonic: monotonic == 1 }
    }

    fn is_of(&self, row: usize, metric: &MetricKey) -> bool {
        let [name, unit, ..] = self.texts(row);
        let numbers = [metric.metric_type, metric.temporality, u8::from(metric.monotonic)];
        name == metric.name
            && unit == metric.unit
            && self.rows.description(row).unwrap_or_default() == metric.description
            && self.numbers(row) == numbers
    }
}

fn type_of(value: Value<'_>) -> AttrType {
    match value {
        Value::Str(_) => AttrType::Str,
        Value::Int(_) => AttrType::Int,
        Value::Double(_) => AttrType::Double,
        Value::Bool(_) => AttrType::Bool,
        Value::Bytes(_) | Value::Base64(_) => AttrType::Bytes,
        Value::Any(_) => AttrType::Any,
    }
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_value(out: &mut Vec<u8>, value: Value<'_>) {
    out.push(type_of(value).code());
    match value {
        Value::Str(text) | Value::Base64(text) | Value::Any(text) => put(out, text.as_bytes()),
        Value::Bytes(bytes) => put(out, base64(bytes).as_bytes()),
        value => put(out, value.to_text().as_bytes()),
    }
}
