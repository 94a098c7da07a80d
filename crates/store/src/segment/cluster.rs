//! The order of rows in a segment: those that are read together lie together.
//!
//! Spans and logs lie by the start of their trace (the earliest row of it in this segment), then by
//! trace, then by time: traces are contiguous, and time still rises nearly steadily. Points lie by
//! metric and series, then by time.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, TimestampNanosecondType};
use hashbrown::HashMap;
use lacuna_signal::schema::{self, parse_attribute_column};
use lacuna_signal::{Batch, SignalKind};

use super::postings::text_hash;
use crate::error::StoreError;
use crate::part::{Part, Want};
use crate::trace_index::{mix, trace_hash};

/// Where a row comes from, and what it lies by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Placed {
    /// Start of the trace, or a hash of the metric's name.
    first: i64,
    /// Hash of the trace id or of the series; `None` for a log outside any trace.
    pub group: Option<u64>,
    /// The row's time.
    pub time: i64,
    /// Position of its part.
    pub part: u32,
    /// Its row there.
    pub row: u32,
}

/// All rows of `parts` in the order in which a segment holds them.
pub fn order(kind: SignalKind, parts: &[Arc<dyn Part>]) -> Result<Vec<Placed>, StoreError> {
    let rows: usize = parts.iter().map(|part| part.rows() as usize).sum();
    let mut placed = Vec::with_capacity(rows);
    for (number, part) in parts.iter().enumerate() {
        for window in part.windows() {
            let columns = |name: &str| -> bool {
                name == kind.time_column()
                    || match kind {
                        SignalKind::Points => {
                            name == schema::NAME || parse_attribute_column(name).is_some()
                        }
                        _ => name == schema::TRACE_ID,
                    }
            };
            let schema = part.schema();
            let names: Vec<&str> =
                schema.fields().iter().map(|f| f.name().as_str()).filter(|n| columns(n)).collect();
            let batch = part.read(&window.rows, Want::Names(&names))?;
            let rows = window.rows.ranges().iter().cloned().flatten();
            let groups = match kind {
                SignalKind::Points => series(&batch),
                _ => traces(&batch),
            };
            let times = batch.number_column::<TimestampNanosecondType>(kind.time_column());
            placed.extend(rows.zip(groups).enumerate().map(|(i, (row, (first, group)))| {
                let time = times.map_or(0, |times| times.value(i));
                let first = first.unwrap_or(time);
                Placed { first, group, time, part: number as u32, row }
            }));
        }
    }
    if kind != SignalKind::Points {
        let mut starts: HashMap<u64, i64> = HashMap::new();
        for row in &placed {
            if let Some(group) = row.group {
                starts.entry(group).and_modify(|t| *t = row.time.min(*t)).or_insert(row.time);
            }
        }
        for row in &mut placed {
            if let Some(start) = row.group.and_then(|group| starts.get(&group)) {
                row.first = *start;
            }
        }
    }
    placed.sort_unstable();
    Ok(placed)
}

fn traces(batch: &Batch) -> Vec<(Option<i64>, Option<u64>)> {
    let ids = batch.id_column(schema::TRACE_ID);
    let group =
        |row: usize| ids.filter(|ids| ids.is_valid(row)).map(|ids| trace_hash(ids.value(row)));
    (0..batch.num_rows()).map(|row| (None, group(row))).collect()
}

fn series(batch: &Batch) -> Vec<(Option<i64>, Option<u64>)> {
    let name = batch.text_column(schema::NAME);
    let mut groups: Vec<(Option<i64>, Option<u64>)> = (0..batch.num_rows())
        .map(|row| {
            let text = name.filter(|n| n.is_valid(row)).map_or("", |n| n.value(row));
            let hash = text_hash(0, text.as_bytes());
            (Some(hash as i64), Some(hash))
        })
        .collect();
    let record = batch.record();
    for (field, column) in record.schema_ref().fields().iter().zip(record.columns()) {
        if parse_attribute_column(field.name()).is_none() {
            continue;
        }
        let seed = text_hash(0, field.name().as_bytes());
        for (row, (_, group)) in groups.iter_mut().enumerate() {
            if let Some(value) = value_hash(column.as_ref(), row, seed) {
                *group = Some(mix(group.unwrap_or(0) ^ value));
            }
        }
    }
    groups
}

fn value_hash(column: &dyn Array, row: usize, seed: u64) -> Option<u64> {
    use arrow::datatypes::{Float64Type, Int64Type};
    if column.is_null(row) {
        return None;
    }
    let bits = |bits: u64| Some(text_hash(seed, &bits.to_le_bytes()));
    match column.data_type() {
        DataType::Utf8View => Some(text_hash(seed, column.as_string_view().value(row).as_bytes())),
        DataType::BinaryView => Some(text_hash(seed, column.as_binary_view().value(row))),
        DataType::Int64 => bits(column.as_primitive::<Int64Type>().value(row) as u64),
        DataType::Float64 => bits(column.as_primitive::<Float64Type>().value(row).to_bits()),
        DataType::Boolean => bits(u64::from(column.as_boolean().value(row))),
        _ => None,
    }
}
