//! What rows are about: the catalogue's entries of one part.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, Int64Type};
use lacuna_signal::Batch;
use lacuna_signal::rows::SpanRows;
use lacuna_signal::schema::{self, AttrType, SignalKind, parse_attribute_column};
use lacuna_signal::value::{base64, double_text};
use serde::{Deserialize, Serialize};

use crate::bounds::TimeBounds;
use crate::metric::MetricKey;

/// A column with more distinct values than this keeps no list of them in a summary.
pub const MAX_VALUES: usize = 256;
/// Distinct values are counted up to here.
pub const MAX_DISTINCT: usize = 8192;
/// Values longer than this many bytes are not kept in a summary.
const MAX_VALUE_BYTES: usize = 256;

/// Spans of one service with one name and kind, or logs or points of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occurrence {
    /// How many.
    pub rows: u64,
    /// When.
    pub bounds: TimeBounds,
}

impl Occurrence {
    fn note(entry: &mut Option<Self>, time: i64) {
        let seen =
            entry.get_or_insert(Self { rows: 0, bounds: TimeBounds { min: time, max: time } });
        seen.rows += 1;
        seen.bounds = seen.bounds.join(TimeBounds { min: time, max: time });
    }

    fn merge(entry: &mut Option<Self>, other: Self) {
        let seen = entry.get_or_insert(Self { rows: 0, ..other });
        seen.rows += other.rows;
        seen.bounds = seen.bounds.join(other.bounds);
    }
}

/// One attribute column.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnSummary {
    /// Rows that have a value.
    pub rows: u64,
    /// Distinct values, about; no more than [`MAX_DISTINCT`] are counted.
    pub distinct: u64,
    /// Values as text and their rows; `None` if there are too many or too long ones.
    pub values: Option<BTreeMap<String, u64>>,
}

/// What the rows of one part are about.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// All rows.
    pub rows: u64,
    /// By service (empty: none named), then by span name and kind. Logs and points have one entry
    /// a service, of an empty name.
    pub services: BTreeMap<String, Vec<(String, u8, Occurrence)>>,
    /// By attribute column.
    pub columns: BTreeMap<String, ColumnSummary>,
    /// Metrics, each with its rows.
    pub metrics: Vec<(MetricKey, u64)>,
    /// Whether any row has attributes in the overflow column.
    pub overflow: bool,
}

impl Summary {
    /// The summary of `batch`.
    pub fn of(batch: &Batch) -> Self {
        let mut summary =
            Self { rows: batch.num_rows() as u64, services: services(batch), ..Self::default() };
        for (field, column) in
            batch.record().schema_ref().fields().iter().zip(batch.record().columns())
        {
            let rows = (column.len() - column.null_count()) as u64;
            if rows == 0 {
                continue;
            }
            if let Some((_, ty, _)) = parse_attribute_column(field.name()) {
                let (distinct, values) = distinct(column.as_ref(), ty);
                let column = ColumnSummary { rows, distinct, values };
                summary.columns.insert(field.name().clone(), column);
            } else if field.name() == schema::OVERFLOW {
                summary.overflow = true;
            }
        }
        if batch.kind() == SignalKind::Points {
            summary.metrics = MetricKey::of(batch).into_iter().collect();
        }
        summary
    }

    /// Adds what `other` says.
    pub fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        for (service, operations) in &other.services {
            let mine = self.services.entry(service.clone()).or_default();
            let taken = std::mem::take(mine).into_iter().chain(operations.iter().cloned());
            let mut joined: BTreeMap<(String, u8), Option<Occurrence>> = BTreeMap::new();
            for (name, kind, seen) in taken {
                Occurrence::merge(joined.entry((name, kind)).or_default(), seen);
            }
            let joined = joined.into_iter();
            mine.extend(joined.filter_map(|((name, kind), seen)| Some((name, kind, seen?))));
        }
        for (column, theirs) in &other.columns {
            match self.columns.get_mut(column) {
                Some(mine) => mine.merge(theirs),
                None => drop(self.columns.insert(column.clone(), theirs.clone())),
            }
        }
        let taken = std::mem::take(&mut self.metrics).into_iter();
        let mut metrics: BTreeMap<MetricKey, u64> = BTreeMap::new();
        for (key, rows) in taken.chain(other.metrics.iter().cloned()) {
            *metrics.entry(key).or_default() += rows;
        }
        self.metrics = metrics.into_iter().collect();
        self.overflow |= other.overflow;
    }
}

impl ColumnSummary {
    fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        self.values = match (self.values.take(), &other.values) {
            (Some(mut mine), Some(theirs)) => {
                for (value, rows) in theirs {
                    *mine.entry(value.clone()).or_default() += rows;
                }
                self.distinct = mine.len() as u64;
                (mine.len() <= MAX_VALUES).then_some(mine)
            }
            _ => {
                // How many values two parts share is not known. That most are shared fits what
                // few values repeat in; what is unique shows within one part.
                self.distinct = self.distinct.max(other.distinct);
                None
            }
        };
    }
}

fn services(batch: &Batch) -> BTreeMap<String, Vec<(String, u8, Occurrence)>> {
    let mut seen: hashbrown::HashMap<(&str, &str, u8), Option<Occurrence>> = Default::default();
    let service = batch.service_column();
    let spans = (batch.kind() == SignalKind::Spans).then(|| SpanRows::new(batch));
    let times = batch
        .number_column::<arrow::datatypes::TimestampNanosecondType>(batch.kind().time_column());
    for row in 0..batch.num_rows() {
        let service = service.filter(|c| c.is_valid(row)).map_or("", |c| c.value(row));
        let (name, kind) = spans.map_or(("", 0), |spans| (spans.name(row), spans.kind(row)));
        let time = times.map_or(0, |times| times.value(row));
        Occurrence::note(seen.entry((service, name, kind)).or_default(), time);
    }
    let mut services: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for ((service, name, kind), occurrence) in seen {
        let entry = occurrence.map(|o| (name.to_owned(), kind, o));
        services.entry(service.to_owned()).or_default().extend(entry);
    }
    for operations in services.values_mut() {
        operations.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    }
    services
}

/// The distinct values of an attribute column as text, with their rows.
fn distinct(column: &dyn Array, ty: AttrType) -> (u64, Option<BTreeMap<String, u64>>) {
    match ty {
        AttrType::Str | AttrType::Any => {
            let text = column.as_string_view();
            count(text.iter().flatten(), |v| (v.len() <= MAX_VALUE_BYTES).then(|| (*v).to_owned()))
        }
        AttrType::Int => {
            count(column.as_primitive::<Int64Type>().iter().flatten(), |v| Some(v.to_string()))
        }
        AttrType::Double => {
            let bits = column.as_primitive::<Float64Type>().iter().flatten().map(f64::to_bits);
            count(bits, |v| Some(double_text(f64::from_bits(*v))))
        }
        AttrType::Bool => count(column.as_boolean().iter().flatten(), |v| Some(v.to_string())),
        AttrType::Bytes => {
            let bytes = column.as_binary_view();
            count(bytes.iter().flatten(), |v| (v.len() <= MAX_VALUE_BYTES).then(|| base64(v)))
        }
    }
}

fn count<T: std::hash::Hash + Eq>(
    values: impl Iterator<Item = T>,
    text: impl Fn(&T) -> Option<String>,
) -> (u64, Option<BTreeMap<String, u64>>) {
    let mut counts: hashbrown::HashMap<T, u64> = Default::default();
    for value in values {
        *counts.entry(value).or_default() += 1;
        if counts.len() >= MAX_DISTINCT {
            break;
        }
    }
    let distinct = counts.len() as u64;
    if counts.len() > MAX_VALUES {
        return (distinct, None);
    }
    let mut by_text = BTreeMap::new();
    for (value, rows) in counts {
        let Some(text) = text(&value) else { return (distinct, None) };
        *by_text.entry(text).or_default() += rows;
    }
    (distinct, Some(by_text))
}
