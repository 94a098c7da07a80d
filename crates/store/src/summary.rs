//! What rows are about: the catalogue's entries of one part.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, Int64Type, TimestampNanosecondType, UInt8Type};
use hashbrown::HashMap;
use lacuna_signal::schema::{
    self, AttrType, Scope, SignalKind, attribute_column, parse_attribute_column,
};
use lacuna_signal::semconv;
use lacuna_signal::value::{base64, double_text};
use serde::{Deserialize, Serialize};

use crate::bounds::TimeBounds;
use crate::error::StoreError;
use crate::metric::MetricKey;
use crate::packed::{Codes, Column, Packed};
use crate::rows::RowSet;

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
    /// The summary of `rows`.
    pub fn of(rows: &Packed) -> Result<Self, StoreError> {
        let mut summary =
            Self { rows: rows.num_rows() as u64, services: services(rows), ..Self::default() };
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
            Column::Plain(values) => (values, None),
            Column::Coded { codes, values } => (values, Some(codes.count(values.len()))),
        };
        let nulls = (0..values.len()).filter(|at| values.is_null(*at));
        let rows: u64 = match &counts {
            None => (values.len() - values.null_count()) as u64,
            Some(counts) => {
                let null: u64 = nulls.filter_map(|at| counts.get(at)).sum();
                counts.iter().sum::<u64>() - null
            }
        };
        let weight = |at: usize| counts.as_ref().map_or(1, |counts| counts[at]);
        let (distinct, values) = distinct(values.as_ref(), ty, weight);
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

/// A column of texts by keys: rows with one key have one text.
struct Keyed<'a> {
    codes: Option<&'a Codes>,
    values: Option<&'a dyn Array>,
}

impl<'a> Keyed<'a> {
    fn new(column: Option<&'a Column>) -> Self {
        match column {
            None => Self { codes: None, values: None },
            Some(Column::Plain(values)) => Self { codes: None, values: Some(values) },
            Some(Column::Coded { codes, values }) => {
                Self { codes: Some(codes), values: Some(values) }
            }
        }
    }

    fn key(&self, row: usize) -> usize {
        match (self.codes, self.values) {
            (Some(codes), _) => codes.get(row),
            (None, Some(_)) => row,
            (None, None) => 0,
        }
    }

    fn text(&self, key: usize) -> &'a str {
        let texts = self.values.and_then(|values| values.as_string_view_opt());
        texts.filter(|texts| texts.is_valid(key)).map_or("", |texts| texts.value(key))
    }

    fn number(&self, key: usize) -> u8 {
        let numbers = self.values.and_then(|values| values.as_primitive_opt::<UInt8Type>());
        numbers.map_or(0, |numbers| numbers.value(key))
    }
}

fn services(rows: &Packed) -> BTreeMap<String, Vec<(String, u8, Occurrence)>> {
    let service = attribute_column(Scope::Resource, AttrType::Str, semconv::SERVICE_NAME);
    let of_span = |name| rows.column(name).filter(|_| rows.kind() == SignalKind::Spans);
    let service = Keyed::new(rows.column(&service));
    let (name, kind) = (Keyed::new(of_span(schema::NAME)), Keyed::new(of_span(schema::KIND)));
    let times = rows.column(rows.kind().time_column()).map(|column| match column {
        Column::Plain(times) | Column::Coded { values: times, .. } => times,
    });
    let times = times.and_then(|times| times.as_primitive_opt::<TimestampNanosecondType>());
    let mut seen: HashMap<(usize, usize, usize), Option<Occurrence>> = HashMap::new();
    for row in 0..rows.num_rows() {
        let key = (service.key(row), name.key(row), kind.key(row));
        let time = times.map_or(0, |times| times.value(row));
        Occurrence::note(seen.entry(key).or_default(), time);
    }
    let mut services: BTreeMap<&str, BTreeMap<(&str, u8), Option<Occurrence>>> = BTreeMap::new();
    for ((s, n, k), occurrence) in seen {
        let operations = services.entry(service.text(s)).or_default();
        if let Some(occurrence) = occurrence {
            let entry = operations.entry((name.text(n), kind.number(k))).or_default();
            Occurrence::merge(entry, occurrence);
        }
    }
    let listed = |operations: BTreeMap<(&str, u8), Option<Occurrence>>| {
        let all = operations.into_iter();
        all.filter_map(|((name, kind), seen)| Some((name.to_owned(), kind, seen?))).collect()
    };
    services.into_iter().map(|(name, all)| (name.to_owned(), listed(all))).collect()
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
