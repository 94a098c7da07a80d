//! Rows of metric points.

use arrow::array::{Array, AsArray, BooleanArray, ListArray, PrimitiveArray, StringViewArray};
use arrow::datatypes::{
    ArrowPrimitiveType, Float64Type, Int32Type, Int64Type, TimestampNanosecondType, UInt8Type,
    UInt32Type, UInt64Type,
};

use super::{id, items, number, text};
use crate::batch::Batch;
use crate::ids::{SpanId, TraceId};
use crate::schema as c;
use crate::value::AttributeList;

/// What kind of metric a point belongs to (`opentelemetry.proto.metrics.v1`, `Metric.data`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MetricType {
    /// A value that was read.
    Gauge,
    /// A value that is added up.
    Sum,
    /// Counts in buckets with explicit bounds.
    Histogram,
    /// Counts in buckets whose bounds grow exponentially.
    ExponentialHistogram,
    /// Quantiles that the emitter computed.
    Summary,
}

impl MetricType {
    /// All types; the position is the type's number in [`c::METRIC_TYPE`].
    pub const ALL: [Self; 5] =
        [Self::Gauge, Self::Sum, Self::Histogram, Self::ExponentialHistogram, Self::Summary];

    /// The type's number in [`c::METRIC_TYPE`].
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The type whose number is `code`.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// The value of a gauge, a sum or an exemplar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// 64-bit signed integer.
    Int(i64),
    /// IEEE 754 double.
    Double(f64),
}

impl Number {
    /// The value as a double; integers beyond 2^53 lose their last digits.
    pub fn as_f64(self) -> f64 {
        match self {
            Self::Int(value) => value as f64,
            Self::Double(value) => value,
        }
    }
}

/// An exemplar of a point.
#[derive(Debug, Clone, Copy)]
pub struct Exemplar<'a> {
    /// Nanoseconds since the epoch.
    pub time: i64,
    /// The measurement; `None` if the emitter gave none.
    pub value: Option<Number>,
    /// The trace in which it was measured.
    pub trace_id: Option<TraceId>,
    /// The span in which it was measured.
    pub span_id: Option<SpanId>,
    /// The attributes that the point's own do not have (`filtered_attributes`).
    pub attributes: Option<AttributeList<'a>>,
}

/// The fixed columns of a batch of metric points.
#[derive(Debug, Clone, Copy)]
pub struct PointRows<'a> {
    name: Option<&'a StringViewArray>,
    time: Option<&'a PrimitiveArray<TimestampNanosecondType>>,
    start: Option<&'a PrimitiveArray<TimestampNanosecondType>>,
    description: Option<&'a StringViewArray>,
    unit: Option<&'a StringViewArray>,
    metric_type: Option<&'a PrimitiveArray<UInt8Type>>,
    temporality: Option<&'a PrimitiveArray<UInt8Type>>,
    monotonic: Option<&'a BooleanArray>,
    flags: Option<&'a PrimitiveArray<UInt32Type>>,
    value_double: Option<&'a PrimitiveArray<Float64Type>>,
    value_int: Option<&'a PrimitiveArray<Int64Type>>,
    count: Option<&'a PrimitiveArray<UInt64Type>>,
    sum: Option<&'a PrimitiveArray<Float64Type>>,
    min: Option<&'a PrimitiveArray<Float64Type>>,
    max: Option<&'a PrimitiveArray<Float64Type>>,
    bucket_counts: Option<&'a ListArray>,
    explicit_bounds: Option<&'a ListArray>,
    scale: Option<&'a PrimitiveArray<Int32Type>>,
    zero_count: Option<&'a PrimitiveArray<UInt64Type>>,
    zero_threshold: Option<&'a PrimitiveArray<Float64Type>>,
    positive_offset: Option<&'a PrimitiveArray<Int32Type>>,
    positive_counts: Option<&'a ListArray>,
    negative_offset: Option<&'a PrimitiveArray<Int32Type>>,
    negative_counts: Option<&'a ListArray>,
    quantiles: Option<&'a ListArray>,
    exemplars: Option<&'a ListArray>,
    service: Option<&'a StringViewArray>,
    scope_name: Option<&'a StringViewArray>,
    scope_version: Option<&'a StringViewArray>,
}

impl<'a> PointRows<'a> {
    /// The columns of `batch`.
    pub fn new(batch: &'a Batch) -> Self {
        Self {
            name: batch.text_column(c::NAME),
            time: batch.number_column(c::TIME),
            start: batch.number_column(c::START_TIME),
            description: batch.text_column(c::DESCRIPTION),
            unit: batch.text_column(c::UNIT),
            metric_type: batch.number_column(c::METRIC_TYPE),
            temporality: batch.number_column(c::TEMPORALITY),
            monotonic: batch.column(c::MONOTONIC).and_then(|column| column.as_boolean_opt()),
            flags: batch.number_column(c::FLAGS),
            value_double: batch.number_column(c::VALUE_DOUBLE),
            value_int: batch.number_column(c::VALUE_INT),
            count: batch.number_column(c::COUNT),
            sum: batch.number_column(c::SUM),
            min: batch.number_column(c::MIN),
            max: batch.number_column(c::MAX),
            bucket_counts: batch.list_column(c::BUCKET_COUNTS),
            explicit_bounds: batch.list_column(c::EXPLICIT_BOUNDS),
            scale: batch.number_column(c::SCALE),
            zero_count: batch.number_column(c::ZERO_COUNT),
            zero_threshold: batch.number_column(c::ZERO_THRESHOLD),
            positive_offset: batch.number_column(c::POSITIVE_OFFSET),
            positive_counts: batch.list_column(c::POSITIVE_COUNTS),
            negative_offset: batch.number_column(c::NEGATIVE_OFFSET),
            negative_counts: batch.list_column(c::NEGATIVE_COUNTS),
            quantiles: batch.list_column(c::QUANTILES),
            exemplars: batch.list_column(c::EXEMPLARS),
            service: batch.service_column(),
            scope_name: batch.text_column(c::SCOPE_NAME),
            scope_version: batch.text_column(c::SCOPE_VERSION),
        }
    }

    /// Metric name; empty if not known.
    pub fn name(&self, row: usize) -> &'a str {
        text(self.name, row).unwrap_or("")
    }

    /// Nanoseconds since the epoch; 0 if the emitter gave none.
    pub fn time(&self, row: usize) -> i64 {
        number(self.time, row).unwrap_or(0)
    }

    /// Since when the point counts, nanoseconds since the epoch.
    pub fn start(&self, row: usize) -> Option<i64> {
        number(self.start, row)
    }

    /// Metric description.
    pub fn description(&self, row: usize) -> Option<&'a str> {
        text(self.description, row)
    }

    /// Metric unit (UCUM).
    pub fn unit(&self, row: usize) -> Option<&'a str> {
        text(self.unit, row)
    }

    /// Kind of metric; `None` only if the column was not asked for.
    pub fn metric_type(&self, row: usize) -> Option<MetricType> {
        MetricType::from_code(number(self.metric_type, row)?)
    }

    /// Aggregation temporality as OTLP numbers it: 0 unspecified, 1 delta, 2 cumulative.
    pub fn temporality(&self, row: usize) -> u8 {
        number(self.temporality, row).unwrap_or(0)
    }

    /// Whether a sum only rises.
    pub fn monotonic(&self, row: usize) -> bool {
        self.monotonic.is_some_and(|column| column.is_valid(row) && column.value(row))
    }

    /// Flags as OTLP numbers their bits.
    pub fn flags(&self, row: usize) -> u32 {
        number(self.flags, row).unwrap_or(0)
    }

    /// Whether the point says that its series has ended or has a gap here
    /// (`FLAG_NO_RECORDED_VALUE`, Prometheus' staleness marker). Its values mean nothing.
    pub fn no_recorded_value(&self, row: usize) -> bool {
        self.flags(row) & 1 != 0
    }

    /// The value of a gauge or sum.
    pub fn value(&self, row: usize) -> Option<Number> {
        number(self.value_double, row)
            .map(Number::Double)
            .or_else(|| number(self.value_int, row).map(Number::Int))
    }

    /// How many values a histogram or summary saw.
    pub fn count(&self, row: usize) -> Option<u64> {
        number(self.count, row)
    }

    /// Sum of the values that a histogram or summary saw.
    pub fn sum(&self, row: usize) -> Option<f64> {
        number(self.sum, row)
    }

    /// The least value that a histogram saw.
    pub fn min(&self, row: usize) -> Option<f64> {
        number(self.min, row)
    }

    /// The greatest value that a histogram saw.
    pub fn max(&self, row: usize) -> Option<f64> {
        number(self.max, row)
    }

    /// Counts of a histogram's buckets, one more than bounds; empty if it has none.
    pub fn bucket_counts(&self, row: usize) -> &'a [u64] {
        list::<UInt64Type>(self.bucket_counts, row)
    }

    /// Inclusive upper bounds of a histogram's buckets but the last.
    pub fn explicit_bounds(&self, row: usize) -> &'a [f64] {
        list::<Float64Type>(self.explicit_bounds, row)
    }

    /// Scale of an exponential histogram: bucket `i` ends at 2^(2^-scale)^(i + 1).
    pub fn scale(&self, row: usize) -> Option<i32> {
        number(self.scale, row)
    }

    /// Count of an exponential histogram's values that are as good as zero.
    pub fn zero_count(&self, row: usize) -> Option<u64> {
        number(self.zero_count, row)
    }

    /// Values of at most this size count as zero in an exponential histogram.
    pub fn zero_threshold(&self, row: usize) -> Option<f64> {
        number(self.zero_threshold, row)
    }

    /// First index and counts of an exponential histogram's buckets of positive values.
    pub fn positive(&self, row: usize) -> Option<(i32, &'a [u64])> {
        Some((number(self.positive_offset, row)?, list::<UInt64Type>(self.positive_counts, row)))
    }

    /// First index and counts of an exponential histogram's buckets of negative values.
    pub fn negative(&self, row: usize) -> Option<(i32, &'a [u64])> {
        Some((number(self.negative_offset, row)?, list::<UInt64Type>(self.negative_counts, row)))
    }

    /// Quantiles of a summary, each with its value.
    pub fn quantiles(&self, row: usize) -> impl Iterator<Item = (f64, f64)> + use<'a> {
        items(self.quantiles, row).map(|(quantiles, i)| {
            let part = |column| quantiles.column(column).as_primitive::<Float64Type>().value(i);
            (part(0), part(1))
        })
    }

    /// The point's exemplars.
    pub fn exemplars(&self, row: usize) -> impl Iterator<Item = Exemplar<'a>> + use<'a> {
        items(self.exemplars, row).map(|(exemplars, i)| {
            let double = number(Some(exemplars.column(1).as_primitive::<Float64Type>()), i);
            let int = number(Some(exemplars.column(2).as_primitive::<Int64Type>()), i);
            let trace_id = id(Some(exemplars.column(3).as_fixed_size_binary()), i);
            let span_id = id(Some(exemplars.column(4).as_fixed_size_binary()), i);
            Exemplar {
                time: exemplars.column(0).as_primitive::<TimestampNanosecondType>().value(i),
                value: double.map(Number::Double).or(int.map(Number::Int)),
                trace_id: trace_id.and_then(TraceId::from_bytes),
                span_id: span_id.and_then(SpanId::from_bytes),
                attributes: AttributeList::in_row(exemplars.column(5).as_list(), i),
            }
        })
    }

    /// Resource attribute `service.name`.
    pub fn service(&self, row: usize) -> Option<&'a str> {
        text(self.service, row)
    }

    /// Instrumentation scope name.
    pub fn scope_name(&self, row: usize) -> Option<&'a str> {
        text(self.scope_name, row)
    }

    /// Instrumentation scope version.
    pub fn scope_version(&self, row: usize) -> Option<&'a str> {
        text(self.scope_version, row)
    }
}

/// The numbers in `row` of a list column; none if it is null.
fn list<T: ArrowPrimitiveType>(column: Option<&ListArray>, row: usize) -> &[T::Native] {
    let values = column.filter(|list| list.is_valid(row)).and_then(|list| {
        let offsets = list.value_offsets();
        let values = list.values().as_primitive_opt::<T>()?.values();
        values.get(offsets[row] as usize..offsets[row + 1] as usize)
    });
    values.unwrap_or(&[])
}
