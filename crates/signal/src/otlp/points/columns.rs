//! The fixed columns of metric points while a request is decoded.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::buffer::Buffer;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Float64Type, Int32Type, Int64Type, TimestampNanosecondType,
    UInt8Type, UInt32Type, UInt64Type,
};

use crate::coded::Column;
use crate::column::{
    AttributeListColumn, BoolColumn, Buffers, IdColumn, ListEnds, NumberColumn, Text, TextColumn,
    struct_column,
};
use crate::otlp::BuildError;
use crate::otlp::attributes::{AttributeColumns, push_attributes};
use crate::rows::{MetricType, Number};
use crate::schema::{self as c, exemplar_fields, quantile_fields, timestamp_type};

use super::read::{Buckets, Point};

/// What all points of one metric share.
pub struct Metric<'a> {
    pub name: &'a [u8],
    pub description: &'a [u8],
    pub unit: &'a [u8],
    pub metric_type: MetricType,
    pub temporality: u8,
    pub monotonic: bool,
}

/// The columns. One that not every type of metric uses is as long as the last row that used it.
#[derive(Default)]
pub struct Columns {
    name: TextColumn,
    time: NumberColumn<TimestampNanosecondType>,
    start_time: NumberColumn<TimestampNanosecondType>,
    description: TextColumn,
    unit: TextColumn,
    metric_type: NumberColumn<UInt8Type>,
    temporality: NumberColumn<UInt8Type>,
    monotonic: BoolColumn,
    flags: NumberColumn<UInt32Type>,
    value_double: NumberColumn<Float64Type>,
    value_int: NumberColumn<Int64Type>,
    count: NumberColumn<UInt64Type>,
    sum: NumberColumn<Float64Type>,
    min: NumberColumn<Float64Type>,
    max: NumberColumn<Float64Type>,
    bucket_counts: NumberLists<UInt64Type>,
    explicit_bounds: NumberLists<Float64Type>,
    scale: NumberColumn<Int32Type>,
    zero_count: NumberColumn<UInt64Type>,
    zero_threshold: NumberColumn<Float64Type>,
    positive: BucketColumns,
    negative: BucketColumns,
    quantiles: Quantiles,
    exemplars: Exemplars,
}

impl Columns {
    /// Appends the columns of `point` that are its own, in row `row`.
    pub fn push<'a>(
        &mut self,
        metric_type: MetricType,
        point: &Point<'a>,
        buffers: &mut Buffers,
        limits: &mut AttributeColumns<'a>,
        row: usize,
    ) {
        self.time.push(point.time);
        self.start_time.push_option((point.start != 0).then_some(point.start));
        self.flags.push(point.flags);
        match point.value {
            Some(Number::Double(value)) => set(&mut self.value_double, row, value),
            Some(Number::Int(value)) => set(&mut self.value_int, row, value),
            None => {}
        }
        if !matches!(metric_type, MetricType::Gauge | MetricType::Sum) {
            set(&mut self.count, row, point.count);
        }
        for (column, value) in
            [(&mut self.sum, point.sum), (&mut self.min, point.min), (&mut self.max, point.max)]
        {
            if let Some(value) = value {
                set(column, row, value);
            }
        }
        self.bucket_counts.push(row, &point.bucket_counts);
        self.explicit_bounds.push(row, &point.explicit_bounds);
        if metric_type == MetricType::ExponentialHistogram {
            set(&mut self.scale, row, point.scale);
            set(&mut self.zero_count, row, point.zero_count);
            set(&mut self.zero_threshold, row, point.zero_threshold);
            self.positive.push(row, &point.positive);
            self.negative.push(row, &point.negative);
        }
        self.quantiles.push(row, point);
        self.exemplars.push(row, point, buffers, limits);
    }

    /// Appends the columns that the `n` points from `first_row` share.
    pub fn push_metric(&mut self, metric: &Metric<'_>, buffers: &Buffers, row: usize, n: usize) {
        self.name.push_n(buffers, Text::Body(metric.name), n);
        for (column, text) in
            [(&mut self.description, metric.description), (&mut self.unit, metric.unit)]
        {
            if !text.is_empty() {
                column.pad(row);
                column.push_n(buffers, Text::Body(text), n);
            }
        }
        self.metric_type.push_n(metric.metric_type.code(), n);
        self.temporality.push_n(metric.temporality, n);
        self.monotonic.push_n(metric.monotonic, n);
    }

    /// The columns by name.
    pub fn finish(
        mut self,
        buffers: &Arc<[Buffer]>,
    ) -> Result<Vec<(&'static str, Column)>, BuildError> {
        let rows = self.time.len();
        self.description.pad(rows);
        self.unit.pad(rows);
        Ok(vec![
            (c::NAME, self.name.finish(buffers)?),
            (c::TIME, Column::Plain(self.time.finish(timestamp_type()))),
            (c::START_TIME, Column::Plain(self.start_time.finish(timestamp_type()))),
            (c::DESCRIPTION, self.description.finish(buffers)?),
            (c::UNIT, self.unit.finish(buffers)?),
            (c::METRIC_TYPE, Column::Plain(self.metric_type.finish(DataType::UInt8))),
            (c::TEMPORALITY, Column::Plain(self.temporality.finish(DataType::UInt8))),
            (c::MONOTONIC, Column::Plain(self.monotonic.finish())),
            (c::FLAGS, Column::Plain(self.flags.finish(DataType::UInt32))),
            (c::VALUE_DOUBLE, Column::Plain(finish(self.value_double, rows))),
            (c::VALUE_INT, Column::Plain(finish(self.value_int, rows))),
            (c::COUNT, Column::Plain(finish(self.count, rows))),
            (c::SUM, Column::Plain(finish(self.sum, rows))),
            (c::MIN, Column::Plain(finish(self.min, rows))),
            (c::MAX, Column::Plain(finish(self.max, rows))),
            (c::BUCKET_COUNTS, Column::Plain(self.bucket_counts.finish(rows)?)),
            (c::EXPLICIT_BOUNDS, Column::Plain(self.explicit_bounds.finish(rows)?)),
            (c::SCALE, Column::Plain(finish(self.scale, rows))),
            (c::ZERO_COUNT, Column::Plain(finish(self.zero_count, rows))),
            (c::ZERO_THRESHOLD, Column::Plain(finish(self.zero_threshold, rows))),
            (c::POSITIVE_OFFSET, Column::Plain(finish(self.positive.offset, rows))),
            (c::POSITIVE_COUNTS, Column::Plain(self.positive.counts.finish(rows)?)),
            (c::NEGATIVE_OFFSET, Column::Plain(finish(self.negative.offset, rows))),
            (c::NEGATIVE_COUNTS, Column::Plain(self.negative.counts.finish(rows)?)),
            (c::QUANTILES, Column::Plain(self.quantiles.finish(rows)?)),
            (c::EXEMPLARS, Column::Plain(self.exemplars.finish(rows, buffers)?)),
        ])
    }
}

fn set<T: ArrowPrimitiveType>(column: &mut NumberColumn<T>, row: usize, value: T::Native) {
    column.pad(row);
    column.push(value);
}

fn finish<T: ArrowPrimitiveType>(mut column: NumberColumn<T>, rows: usize) -> ArrayRef {
    column.pad(rows);
    column.finish(T::DATA_TYPE)
}

/// A column of lists of numbers.
struct NumberLists<T: ArrowPrimitiveType> {
    values: NumberColumn<T>,
    ends: ListEnds,
}

impl<T: ArrowPrimitiveType> Default for NumberLists<T> {
    fn default() -> Self {
        Self { values: NumberColumn::default(), ends: ListEnds::default() }
    }
}

impl<T: ArrowPrimitiveType> NumberLists<T> {
    /// Sets the list in `row`; an empty one stays null.
    fn push(&mut self, row: usize, values: &[T::Native]) {
        if !values.is_empty() {
            self.ends.pad(row);
            self.values.extend(values);
            self.ends.end(self.values.len());
        }
    }

    fn finish(mut self, rows: usize) -> Result<ArrayRef, BuildError> {
        self.ends.pad(rows);
        Ok(self.ends.finish(self.values.finish(T::DATA_TYPE))?)
    }
}

#[derive(Default)]
struct BucketColumns {
    offset: NumberColumn<Int32Type>,
    counts: NumberLists<UInt64Type>,
}

impl BucketColumns {
    fn push(&mut self, row: usize, buckets: &Buckets) {
        if let Some(offset) = buckets.offset {
            set(&mut self.offset, row, offset);
            self.counts.push(row, &buckets.counts);
        }
    }
}

#[derive(Default)]
struct Quantiles {
    quantile: NumberColumn<Float64Type>,
    value: NumberColumn<Float64Type>,
    ends: ListEnds,
}

impl Quantiles {
    fn push(&mut self, row: usize, point: &Point<'_>) {
        if point.quantiles.is_empty() {
            return;
        }
        self.ends.pad(row);
        for (quantile, value) in &point.quantiles {
            self.quantile.push(*quantile);
            self.value.push(*value);
        }
        self.ends.end(self.value.len());
    }

    fn finish(mut self, rows: usize) -> Result<ArrayRef, BuildError> {
        self.ends.pad(rows);
        let columns =
            vec![self.quantile.finish(DataType::Float64), self.value.finish(DataType::Float64)];
        Ok(self.ends.finish(struct_column(quantile_fields(), columns)?)?)
    }
}

#[derive(Default)]
struct Exemplars {
    time: NumberColumn<TimestampNanosecondType>,
    value_double: NumberColumn<Float64Type>,
    value_int: NumberColumn<Int64Type>,
    trace_id: IdColumn<16>,
    span_id: IdColumn<8>,
    attributes: AttributeListColumn,
    ends: ListEnds,
}

impl Exemplars {
    fn push<'a>(
        &mut self,
        row: usize,
        point: &Point<'a>,
        buffers: &mut Buffers,
        limits: &mut AttributeColumns<'a>,
    ) {
        if point.exemplars.is_empty() {
            return;
        }
        self.ends.pad(row);
        let mut start = 0;
        for exemplar in &point.exemplars {
            self.time.push(exemplar.time);
            let (double, int) = match exemplar.value {
                Some(Number::Double(value)) => (Some(value), None),
                Some(Number::Int(value)) => (None, Some(value)),
                None => (None, None),
            };
            self.value_double.push_option(double);
            self.value_int.push_option(int);
            self.trace_id.push(exemplar.trace_id);
            self.span_id.push(exemplar.span_id);
            let attributes = &point.exemplar_attributes[start..exemplar.attributes_end];
            push_attributes(&mut self.attributes, buffers, attributes, limits);
            start = exemplar.attributes_end;
        }
        self.ends.end(self.time.len());
    }

    fn finish(mut self, rows: usize, buffers: &Arc<[Buffer]>) -> Result<ArrayRef, BuildError> {
        self.ends.pad(rows);
        let columns = vec![
            self.time.finish(timestamp_type()),
            self.value_double.finish(DataType::Float64),
            self.value_int.finish(DataType::Int64),
            self.trace_id.finish()?,
            self.span_id.finish()?,
            self.attributes.finish(buffers)?,
        ];
        Ok(self.ends.finish(struct_column(exemplar_fields(), columns)?)?)
    }
}
