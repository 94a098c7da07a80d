//! What metrics there are.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, StringViewArray};
use arrow::datatypes::UInt8Type;
use lacuna_signal::Batch;
use lacuna_signal::schema as c;
use serde::{Deserialize, Serialize};

/// A metric's name and metadata. One name with two units is two of these.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MetricKey {
    /// Name.
    pub name: String,
    /// Unit (UCUM); empty if none was given.
    pub unit: String,
    /// Description; empty if none was given.
    pub description: String,
    /// 0 gauge, 1 sum, 2 histogram, 3 exponential histogram, 4 summary.
    pub metric_type: u8,
    /// Aggregation temporality as OTLP numbers it: 0 unspecified, 1 delta, 2 cumulative.
    pub temporality: u8,
    /// Whether a sum only rises.
    pub monotonic: bool,
}

impl MetricKey {
    /// The metrics of the points in `batch`, each with its rows.
    pub(crate) fn of(batch: &Batch) -> BTreeMap<Self, u64> {
        fn text(column: Option<&StringViewArray>, row: usize) -> &str {
            column.filter(|c| c.is_valid(row)).map_or("", |c| c.value(row))
        }
        let (name, unit, description) = (
            batch.text_column(c::NAME),
            batch.text_column(c::UNIT),
            batch.text_column(c::DESCRIPTION),
        );
        let metric_type = batch.number_column::<UInt8Type>(c::METRIC_TYPE);
        let temporality = batch.number_column::<UInt8Type>(c::TEMPORALITY);
        let monotonic = batch.column(c::MONOTONIC).and_then(|c| c.as_boolean_opt());
        let mut counts: hashbrown::HashMap<_, u64> = Default::default();
        for row in 0..batch.num_rows() {
            let key = (
                text(name, row),
                text(unit, row),
                text(description, row),
                metric_type.map_or(0, |c| c.value(row)),
                temporality.map_or(0, |c| c.value(row)),
                monotonic.is_some_and(|c| c.is_valid(row) && c.value(row)),
            );
            *counts.entry(key).or_default() += 1;
        }
        counts
            .into_iter()
            .map(|((name, unit, description, metric_type, temporality, monotonic), rows)| {
                let (name, unit) = (name.to_owned(), unit.to_owned());
                let description = description.to_owned();
                (Self { name, unit, description, metric_type, temporality, monotonic }, rows)
            })
            .collect()
    }
}
