//! Metric points as OTLP/JSON: points of one metric under one `Metric`.

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, ListArray, PrimitiveArray, StructArray,
};
use arrow::datatypes::{
    ArrowPrimitiveType, Float64Type, Int32Type, Int64Type, TimestampNanosecondType, UInt8Type,
    UInt32Type, UInt64Type,
};
use hashbrown::HashMap;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use crate::batch::Batch;
use crate::ids::{SpanId, TraceId};
use crate::schema::{self, Scope};
use crate::value::{AttributeList, Attributes};

use super::fields::{self, Decimal, Double};
use super::group::ScopeItems;

const GAUGE: u8 = 0;
const SUM: u8 = 1;
const HISTOGRAM: u8 = 2;
const EXPONENTIAL_HISTOGRAM: u8 = 3;

/// A batch of points.
pub struct Points<'a> {
    batch: &'a Batch,
    attributes: Attributes<'a>,
    types: Option<&'a PrimitiveArray<UInt8Type>>,
}

/// What makes points those of one metric.
type Metric<'a> = (&'a str, &'a str, &'a str, u8, u8, bool);

impl<'a> Points<'a> {
    pub fn new(batch: &'a Batch) -> Self {
        let attributes = batch.attributes(Scope::Point);
        Self { batch, attributes, types: batch.number_column(schema::METRIC_TYPE) }
    }

    fn metric(&self, row: usize) -> Metric<'a> {
        let text = |name| {
            let column = self.batch.text_column(name).filter(|column| column.is_valid(row));
            column.map_or("", |column| column.value(row))
        };
        let temporality = self.number::<UInt8Type>(schema::TEMPORALITY, row).unwrap_or_default();
        let monotonic: Option<&BooleanArray> =
            self.batch.column(schema::MONOTONIC).and_then(|column| column.as_boolean_opt());
        let monotonic = monotonic.is_some_and(|m| m.is_valid(row) && m.value(row));
        let name = text(schema::NAME);
        let ty = self.ty(row);
        (name, text(schema::DESCRIPTION), text(schema::UNIT), ty, temporality, monotonic)
    }

    fn ty(&self, row: usize) -> u8 {
        self.types.filter(|types| types.is_valid(row)).map_or(GAUGE, |types| types.value(row))
    }

    fn number<T: ArrowPrimitiveType>(&self, name: &str, row: usize) -> Option<T::Native> {
        let column = self.batch.number_column::<T>(name)?;
        column.is_valid(row).then(|| column.value(row))
    }

    fn list(&self, name: &str, row: usize) -> Option<ArrayRef> {
        let column: &ListArray = self.batch.list_column(name)?;
        column.is_valid(row).then(|| column.value(row))
    }
}

impl ScopeItems for Points<'_> {
    fn serialize_rows<S: SerializeSeq>(&self, rows: &[usize], seq: &mut S) -> Result<(), S::Error> {
        let mut metrics: Vec<(Metric<'_>, Vec<usize>)> = Vec::new();
        let mut numbers: HashMap<Metric<'_>, usize> = HashMap::new();
        for row in rows {
            let metric = self.metric(*row);
            let number = *numbers.entry(metric).or_insert(metrics.len());
            if number == metrics.len() {
                metrics.push((metric, Vec::new()));
            }
            metrics[number].1.push(*row);
        }
        metrics.iter().try_for_each(|(metric, rows)| {
            seq.serialize_element(&MetricItem { points: self, metric: *metric, rows })
        })
    }
}

struct MetricItem<'s, 'a> {
    points: &'s Points<'a>,
    metric: Metric<'s>,
    rows: &'s [usize],
}

impl Serialize for MetricItem<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (name, description, unit, ty, ..) = self.metric;
        let mut map = serializer.serialize_map(None)?;
        fields::text(&mut map, "name", Some(name))?;
        fields::text(&mut map, "description", Some(description))?;
        fields::text(&mut map, "unit", Some(unit))?;
        let member = match ty {
            GAUGE => "gauge",
            SUM => "sum",
            HISTOGRAM => "histogram",
            EXPONENTIAL_HISTOGRAM => "exponentialHistogram",
            _ => "summary",
        };
        map.serialize_entry(member, &Data(self))?;
        map.end()
    }
}

struct Data<'s, 'a>(&'s MetricItem<'s, 'a>);

impl Serialize for Data<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (.., temporality, monotonic) = self.0.metric;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("dataPoints", &DataPoints(self.0))?;
        fields::number(&mut map, "aggregationTemporality", u32::from(temporality))?;
        if monotonic {
            map.serialize_entry("isMonotonic", &true)?;
        }
        map.end()
    }
}

struct DataPoints<'s, 'a>(&'s MetricItem<'s, 'a>);

impl Serialize for DataPoints<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(metric) = *self;
        serializer.collect_seq(metric.rows.iter().map(|row| Point(metric.points, *row)))
    }
}

struct Point<'s, 'a>(&'s Points<'a>, usize);

impl Serialize for Point<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(points, row) = *self;
        let mut map = serializer.serialize_map(None)?;
        fields::row_attributes(&mut map, &points.attributes, row)?;
        let time = |name| points.number::<TimestampNanosecondType>(name, row).unwrap_or_default();
        fields::time(&mut map, "startTimeUnixNano", time(schema::START_TIME))?;
        fields::time(&mut map, "timeUnixNano", time(schema::TIME))?;
        let mut double = |member: &str, column: &str| {
            let value = points.number::<Float64Type>(column, row);
            value.map_or(Ok(()), |value| map.serialize_entry(member, &Double(value)))
        };
        double("asDouble", schema::VALUE_DOUBLE)?;
        double("sum", schema::SUM)?;
        double("min", schema::MIN)?;
        double("max", schema::MAX)?;
        let threshold = points.number::<Float64Type>(schema::ZERO_THRESHOLD, row);
        if let Some(threshold) = threshold.filter(|threshold| *threshold != 0.0) {
            map.serialize_entry("zeroThreshold", &Double(threshold))?;
        }
        if let Some(value) = points.number::<Int64Type>(schema::VALUE_INT, row) {
            map.serialize_entry("asInt", &Decimal(value))?;
        }
        for (member, column) in [("count", schema::COUNT), ("zeroCount", schema::ZERO_COUNT)] {
            let count = points.number::<UInt64Type>(column, row);
            if let Some(count) = count.filter(|count| *count != 0) {
                map.serialize_entry(member, &Decimal(count))?;
            }
        }
        if let Some(scale) = points.number::<Int32Type>(schema::SCALE, row)
            && scale != 0
        {
            map.serialize_entry("scale", &scale)?;
        }
        if let Some(counts) = points.list(schema::BUCKET_COUNTS, row) {
            map.serialize_entry("bucketCounts", &Counts(counts))?;
        }
        if let Some(bounds) = points.list(schema::EXPLICIT_BOUNDS, row) {
            map.serialize_entry("explicitBounds", &Doubles(bounds))?;
        }
        let sides = [
            ("positive", schema::POSITIVE_OFFSET, schema::POSITIVE_COUNTS),
            ("negative", schema::NEGATIVE_OFFSET, schema::NEGATIVE_COUNTS),
        ];
        for (member, offset, counts) in sides {
            let offset = points.number::<Int32Type>(offset, row);
            if let Some(offset) = offset {
                map.serialize_entry(member, &Buckets(offset, points.list(counts, row)))?;
            }
        }
        if let Some(quantiles) = points.list(schema::QUANTILES, row)
            && let Some(quantiles) = quantiles.as_struct_opt()
        {
            map.serialize_entry("quantileValues", &Quantiles(quantiles))?;
        }
        if let Some(exemplars) = points.list(schema::EXEMPLARS, row)
            && let Some(exemplars) = exemplars.as_struct_opt().filter(|list| !list.is_empty())
        {
            map.serialize_entry("exemplars", &Exemplars(exemplars))?;
        }
        let flags = points.number::<UInt32Type>(schema::FLAGS, row).unwrap_or_default();
        fields::number(&mut map, "flags", flags)?;
        map.end()
    }
}

struct Counts(ArrayRef);

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let counts = self.0.as_primitive::<UInt64Type>().values();
        serializer.collect_seq(counts.iter().map(Decimal))
    }
}

struct Doubles(ArrayRef);

impl Serialize for Doubles {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let values = self.0.as_primitive::<Float64Type>().values();
        serializer.collect_seq(values.iter().map(|value| Double(*value)))
    }
}

/// One side of an exponential histogram; without counts if they are none.
struct Buckets(i32, Option<ArrayRef>);

impl Serialize for Buckets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("offset", &self.0)?;
        if let Some(counts) = &self.1 {
            map.serialize_entry("bucketCounts", &Counts(counts.clone()))?;
        }
        map.end()
    }
}

struct Quantiles<'a>(&'a StructArray);

impl Serialize for Quantiles<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let values = |column| self.0.column(column).as_primitive::<Float64Type>().values();
        let pairs = values(0).iter().zip(values(1));
        serializer.collect_seq(pairs.map(|(quantile, value)| Quantile(*quantile, *value)))
    }
}

struct Quantile(f64, f64);

impl Serialize for Quantile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("quantile", &Double(self.0))?;
        map.serialize_entry("value", &Double(self.1))?;
        map.end()
    }
}

struct Exemplars<'a>(&'a StructArray);

impl Serialize for Exemplars<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((0..self.0.len()).map(|i| Exemplar(self.0, i)))
    }
}

/// An exemplar; its columns are those of [`schema::exemplar_fields`].
struct Exemplar<'a>(&'a StructArray, usize);

impl Serialize for Exemplar<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(list, i) = *self;
        let mut map = serializer.serialize_map(None)?;
        let attributes = AttributeList::in_row(list.column(5).as_list(), i);
        fields::list_attributes_as(&mut map, "filteredAttributes", attributes)?;
        let time = list.column(0).as_primitive::<TimestampNanosecondType>().value(i);
        fields::time(&mut map, "timeUnixNano", time)?;
        let double = list.column(1).as_primitive::<Float64Type>();
        if double.is_valid(i) {
            map.serialize_entry("asDouble", &Double(double.value(i)))?;
        }
        let int = list.column(2).as_primitive::<Int64Type>();
        if int.is_valid(i) {
            map.serialize_entry("asInt", &Decimal(int.value(i)))?;
        }
        let bytes = |column| {
            let ids = list.column(column).as_fixed_size_binary();
            ids.is_valid(i).then(|| ids.value(i))
        };
        fields::id(&mut map, "spanId", bytes(4).and_then(SpanId::from_bytes))?;
        fields::id(&mut map, "traceId", bytes(3).and_then(TraceId::from_bytes))?;
        map.end()
    }
}
