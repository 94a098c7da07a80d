//! The order of rows in a segment: those that are read together lie together.
//!
//! Spans lie by trace, and by time within it. Traces lie by their start (their earliest span in this
//! segment), but not one by one: of so many as have about [`BUCKET`] spans, those lie together that begin
//! alike and have spans of the same names, by their start. What columns say about the spans of a trace then repeats
//! from one trace to the next, which is what a compressor sees. Time still rises nearly steadily.
//!
//! Logs lie by the start of their trace, then by trace, then by time. Points lie by metric and series,
//! then by time.

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

/// Spans of traces that start one after the other and lie by what they are like: a page of codes.
const BUCKET: usize = 8192;

/// Traces of a bucket start within so many nanoseconds: who reads a short time, or history window
/// by window, must not read much more than that.
const LONGEST: i64 = 10_000_000_000;

/// Where a row comes from, and what it lies by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Placed {
    /// Number of the bucket, and what the trace is like; 0 for logs and points.
    shape: u64,
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
                        SignalKind::Spans => [schema::TRACE_ID, schema::NAME].contains(&name),
                        SignalKind::Logs => name == schema::TRACE_ID,
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
            let names = batch.text_column(schema::NAME).filter(|_| kind == SignalKind::Spans);
            placed.extend(rows.zip(groups).enumerate().map(|(i, (row, (first, group)))| {
                let time = times.map_or(0, |times| times.value(i));
                let first = first.unwrap_or(time);
                let name = names.filter(|names| names.is_valid(i)).map_or("", |n| n.value(i));
                let shape = names.map_or(0, |_| text_hash(0, name.as_bytes()));
                Placed { first, shape, group, time, part: number as u32, row }
            }));
        }
    }
    match kind {
        SignalKind::Spans => by_likeness(&mut placed),
        SignalKind::Logs => {
            let traces = traces_of(&placed);
            for row in &mut placed {
                row.first =
                    row.group.and_then(|group| traces.get(&group)).map_or(row.time, |t| t.start);
            }
        }
        SignalKind::Points => {}
    }
    placed.sort_unstable();
    Ok(placed)
}

/// A trace, by its rows in a segment.
struct Trace {
    start: i64,
    rows: usize,
    /// The name of the earliest row.
    name: u64,
    /// The names of all rows, in whatever order.
    names: u64,
}

fn traces_of(placed: &[Placed]) -> HashMap<u64, Trace> {
    let mut traces: HashMap<u64, Trace> = HashMap::new();
    for row in placed {
        let Some(group) = row.group else { continue };
        let fresh = || Trace { start: i64::MAX, rows: 0, name: 0, names: 0 };
        let trace = traces.entry(group).or_insert_with(fresh);
        trace.rows += 1;
        trace.names = trace.names.wrapping_add(mix(row.shape));
        // Of those that start at once, always the same one.
        if (row.time, row.shape) < (trace.start, trace.name) || trace.rows == 1 {
            (trace.start, trace.name) = (row.time, row.shape);
        }
    }
    traces
}

/// Where buckets end: the last start in each. They have half of [`BUCKET`] spans to half as many more,
/// fewer if these take longer than [`LONGEST`], and end where there is most time between two traces:
/// what lies side by side should be near in time.
fn bucket_ends(starts: &[(i64, usize)]) -> Vec<i64> {
    let (mut ends, mut rest) = (Vec::new(), starts);
    while let Some(at) = bucket_end(rest) {
        ends.push(rest[at].0);
        rest = &rest[at + 1..];
    }
    // Those that start at once are in one bucket.
    ends.dedup();
    ends
}

/// The last trace of the first bucket; `None` if all are in it.
fn bucket_end(starts: &[(i64, usize)]) -> Option<usize> {
    let (first, _) = starts.first()?;
    let (mut rows, mut best) = (0, None::<(i64, usize)>);
    for (at, pair) in starts.windows(2).enumerate() {
        let &[(start, more), (next, _)] = pair else { continue };
        rows += more;
        let gap = next.saturating_sub(start);
        if rows >= BUCKET / 2 && best.is_none_or(|(widest, _)| gap >= widest) {
            best = Some((gap, at));
        }
        if rows >= BUCKET / 2 * 3 || next.saturating_sub(*first) > LONGEST {
            return Some(best.map_or(at, |(_, at)| at));
        }
    }
    None
}

/// Gives spans, whose shape is the hash of their name, the bucket, shape and start of their trace.
fn by_likeness(placed: &mut [Placed]) {
    let traces = traces_of(placed);
    let alone = placed.iter().filter(|row| row.group.is_none()).map(|row| (row.time, 1));
    let mut starts: Vec<(i64, usize)> =
        traces.values().map(|trace| (trace.start, trace.rows)).chain(alone).collect();
    starts.sort_unstable();
    let ends = bucket_ends(&starts);
    let bucket = |start: i64| (ends.partition_point(|end| *end < start) as u64) << 32;
    for row in placed {
        (row.first, row.shape) = match row.group.and_then(|group| traces.get(&group)) {
            None => (row.time, bucket(row.time)),
            // Those that begin alike, and of these those with the same names.
            Some(Trace { start, name, names, .. }) => {
                (*start, bucket(*start) | name >> 48 << 16 | names >> 48)
            }
        };
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Rows of spans as they are before they are put in order.
    fn rows() -> impl Strategy<Value = Vec<Placed>> {
        let row = (0u64..60, 0i64..5000, 0u64..4).prop_map(|(trace, time, name)| Placed {
            first: time,
            shape: mix(name + 1),
            group: (trace > 3).then_some(trace),
            // Traces begin at times of their own.
            time: trace as i64 * 1000 + time,
            part: 0,
            row: 0,
        });
        proptest::collection::vec(row, 1..400).prop_map(|mut rows| {
            rows.iter_mut().zip(0..).for_each(|(row, number)| row.row = number);
            rows
        })
    }

    proptest! {
        #[test]
        fn traces_stay_together_and_in_order(mut placed in rows()) {
            let times: HashMap<u32, i64> = placed.iter().map(|row| (row.row, row.time)).collect();
            by_likeness(&mut placed);
            placed.sort_unstable();
            prop_assert_eq!(placed.len(), times.len());
            prop_assert!(placed.iter().all(|row| times.get(&row.row) == Some(&row.time)));
            let runs = placed.chunk_by(|a, b| a.group == b.group && a.group.is_some());
            let mut seen = std::collections::HashSet::new();
            for run in runs {
                prop_assert!(run.is_sorted_by_key(|row| row.time));
                prop_assert!(run[0].group.is_none_or(|group| seen.insert(group)));
            }
        }
    }

    #[test]
    fn buckets_follow_time_and_likeness_counts_within_them() {
        // Traces of one span come in groups, with a pause after each.
        const GROUP: usize = 7000;
        let times = (0..5 * GROUP).map(|n| (n + n / GROUP * 100) as i64);
        let mut placed: Vec<Placed> = times
            .zip(0u32..)
            .map(|(time, row)| Placed {
                shape: mix(u64::from(row % 2)),
                first: 0,
                group: Some(mix(u64::from(row))),
                time,
                part: 0,
                row,
            })
            .collect();
        by_likeness(&mut placed);
        placed.sort_unstable();
        for (number, bucket) in placed.chunks(GROUP).enumerate() {
            let first = (number * GROUP) as u32;
            assert!(bucket.iter().all(|row| (first..first + GROUP as u32).contains(&row.row)));
            // The two kinds of traces lie apart, each by time.
            let kinds: Vec<&[Placed]> = bucket.chunk_by(|a, b| a.row % 2 == b.row % 2).collect();
            assert_eq!(kinds.len(), 2);
            assert!(kinds.iter().all(|kind| kind.is_sorted_by_key(|row| row.time)));
        }
    }

    #[test]
    fn buckets_end_at_the_latest_at_half_as_many_more() {
        let steady: Vec<(i64, usize)> = (0..100_000).map(|time| (time, 1)).collect();
        let ends = bucket_ends(&steady);
        let mut last = -1;
        for end in &ends {
            assert!((BUCKET / 2..=BUCKET / 2 * 3).contains(&((end - last) as usize)));
            last = *end;
        }
        assert!(100_000 - last <= (BUCKET / 2 * 3) as i64);
        let slow: Vec<(i64, usize)> = (0..10).map(|n| (n * LONGEST / 2, 5)).collect();
        assert_eq!(bucket_ends(&slow), [2, 5, 8].map(|n| n * LONGEST / 2));
        assert_eq!(bucket_ends(&[(5, 100_000), (5, 100_000), (6, 1)]), [5]);
        assert!(bucket_ends(&[]).is_empty());
    }
}
