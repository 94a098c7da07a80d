//! What rows are about: the catalogue's entries of one part.

mod services;

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, Int64Type};
use hashbrown::HashMap;
use lacuna_signal::schema::{self, AttrType, SignalKind, parse_attribute_column};
use lacuna_signal::value::{base64, double_text};
use serde::{Deserialize, Serialize};

use crate::bounds::TimeBounds;
use crate::error::StoreError;
use crate::metric::MetricKey;
use crate::packed::{Column, Packed};
use crate::rows::RowSet;
use crate::segment::cells::Cells;

use services::{Keyed, packed_services, service_column, services};

/// A column with more distinct values than this keeps no list of them in a summary.
pub const MAX_VALUES: usize = 256;
/// Distinct values are counted up to here.
pub const MAX_DISTINCT: usize = 8192;
/// Of so many rows distinct values are counted first.
const SAMPLE_ROWS: usize = 8192;
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
    /// The summary of `rows`.
    pub fn of(rows: &Packed) -> Result<Self, StoreError> {
        let mut summary = Self {
            rows: rows.num_rows() as u64,
            services: packed_services(rows),
            ..Self::default()
        };
        for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
            if field.name() == schema::OVERFLOW {
                summary.overflow = true;
            } else if let Some((_, ty, _)) = parse_attribute_column(field.name())
                && let Some(column) = ColumnSummary::of(column, ty)
            {
                summary.columns.insert(field.name().clone(), column);
            }
        }
        if rows.kind() == SignalKind::Points {
            let all = RowSet::range(0..rows.num_rows() as u32);
            let fixed = rows.read(&all, |name| parse_attribute_column(name).is_none())?;
            summary.metrics = MetricKey::of(&fixed).into_iter().collect();
        }
        Ok(summary)
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
    /// The summary of an attribute column; `None` if no row has a value.
    fn of(column: &Column, ty: AttrType) -> Option<Self> {
        let (values, counts) = match column {
            Column::Plain(values) => return Self::plain(values.as_ref(), ty),
            Column::Coded { codes, values } => (values, codes.count(values.len())),
        };
        let valid = (0..values.len()).filter(|at| values.is_valid(*at));
        let rows = valid.filter_map(|at| counts.get(at)).sum();
        let weight = |at: usize| counts.get(at).copied().unwrap_or_default();
        let (distinct, values) = distinct(values.as_ref(), ty, weight);
        (rows > 0).then_some(Self { rows, distinct, values })
    }

    /// The same of a column in a row group.
    fn of_cells(cells: &Cells, ty: AttrType) -> Option<Self> {
        let coded = match cells {
            Cells::Plain(values) => return Self::plain(values.as_ref(), ty),
            Cells::Coded(coded) => coded,
        };
        let rows = coded.codes.iter().filter(|code| **code != 0).count() as u64;
        let values = coded.values.len();
        if values > MAX_VALUES {
            return Some(Self { rows, distinct: values.min(MAX_DISTINCT) as u64, values: None });
        }
        let counts = if values > 1 { coded.counts() } else { vec![0, rows] };
        let weight = |at: usize| counts.get(at + 1).copied().unwrap_or_default();
        let (distinct, values) = distinct(coded.values.as_ref(), ty, weight);
        (rows > 0).then_some(Self { rows, distinct, values })
    }

    fn plain(values: &dyn Array, ty: AttrType) -> Option<Self> {
        let rows = (values.len() - values.null_count()) as u64;
        if values.len() > SAMPLE_ROWS {
            // To count all of many values would only take time: they are not listed.
            let (distinct, _) = distinct(&values.slice(0, SAMPLE_ROWS), ty, |_| 1);
            if distinct > MAX_VALUES as u64 {
                return Some(Self { rows, distinct, values: None });
            }
        }
        let (distinct, values) = distinct(values, ty, |_| 1);
        (rows > 0).then_some(Self { rows, distinct, values })
    }

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

/// Finds out what the rows of a segment are about while it is written: spans or logs, row group
/// after row group.
pub struct SummaryBuilder {
    spans: bool,
    summary: Summary,
    /// Columns of the row group by which services are listed.
    kept: BTreeMap<String, Cells>,
}

impl SummaryBuilder {
    /// Of rows of `kind`.
    pub fn new(kind: SignalKind) -> Self {
        let (summary, kept) = (Summary::default(), BTreeMap::new());
        Self { spans: kind == SignalKind::Spans, summary, kept }
    }

    /// Column `name` of a row group.
    pub fn add(&mut self, name: &str, cells: &Cells) {
        let fixed = self.spans && [schema::NAME, schema::KIND].contains(&name);
        if fixed || name == service_column() {
            self.kept.insert(name.to_owned(), cells.clone());
        }
        if name == schema::OVERFLOW {
            self.summary.overflow = true;
        } else if let Some((_, ty, _)) = parse_attribute_column(name)
            && let Some(column) = ColumnSummary::of_cells(cells, ty)
        {
            match self.summary.columns.get_mut(name) {
                Some(all) => all.merge(&column),
                None => drop(self.summary.columns.insert(name.to_owned(), column)),
            }
        }
    }

    /// Ends a row group, whose rows have these times.
    pub fn end_group(&mut self, times: impl ExactSizeIterator<Item = i64>) {
        let kept = std::mem::take(&mut self.kept);
        let of = |name: &str| Keyed::of_cells(kept.get(name));
        let rows = times.len() as u64;
        let services = services(of(&service_column()), of(schema::NAME), of(schema::KIND), times);
        self.summary.merge(&Summary { rows, services, ..Summary::default() });
    }

    /// What all rows are about.
    pub fn finish(self) -> Summary {
        self.summary
    }
}

/// The distinct values of an attribute column as text, with their rows: each value of `column`
/// stands for `weight` of them.
fn distinct(
    column: &dyn Array,
    ty: AttrType,
    weight: impl Fn(usize) -> u64,
) -> (u64, Option<BTreeMap<String, u64>>) {
    let valid = (0..column.len()).filter(|at| column.is_valid(*at));
    match ty {
        AttrType::Str | AttrType::Any => {
            let texts = column.as_string_view();
            let values = valid.map(|at| (texts.value(at), weight(at)));
            count(values, |v| (v.len() <= MAX_VALUE_BYTES).then(|| (*v).to_owned()))
        }
        AttrType::Int => {
            let numbers = column.as_primitive::<Int64Type>();
            count(valid.map(|at| (numbers.value(at), weight(at))), |v| Some(v.to_string()))
        }
        AttrType::Double => {
            let numbers = column.as_primitive::<Float64Type>();
            let bits = valid.map(|at| (numbers.value(at).to_bits(), weight(at)));
            count(bits, |v| Some(double_text(f64::from_bits(*v))))
        }
        AttrType::Bool => {
            let flags = column.as_boolean();
            count(valid.map(|at| (flags.value(at), weight(at))), |v| Some(v.to_string()))
        }
        AttrType::Bytes => {
            let bytes = column.as_binary_view();
            let values = valid.map(|at| (bytes.value(at), weight(at)));
            count(values, |v| (v.len() <= MAX_VALUE_BYTES).then(|| base64(v)))
        }
    }
}

fn count<T: std::hash::Hash + Eq>(
    values: impl Iterator<Item = (T, u64)>,
    text: impl Fn(&T) -> Option<String>,
) -> (u64, Option<BTreeMap<String, u64>>) {
    let mut counts: HashMap<T, u64> = HashMap::new();
    for (value, rows) in values {
        *counts.entry(value).or_default() += rows;
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
