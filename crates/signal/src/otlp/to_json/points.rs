//! Metric points as OTLP/JSON: points of one metric under one `Metric`.

use arrow::array::{Array, ArrayRef, AsArray, ListArray, PrimitiveArray, StructArray};
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
use super::group::{ScopeItems, push_attributes, push_text};

const GAUGE: u8 = 0;
const SUM: u8 = 1;
const HISTOGRAM: u8 = 2;
const EXPONENTIAL_HISTOGRAM: u8 = 3;

/// A batch of points.
pub struct Points<'a> {
    batch: &'a Batch,
    attributes: Attributes<'a>,
    metadata: Attributes<'a>,
    types: Option<&'a PrimitiveArray<UInt8Type>>,
}

impl<'a> Points<'a> {
    pub fn new(batch: &'a Batch) -> Self {
        Self {
            batch,
            attributes: batch.attributes(Scope::Point),
            metadata: batch.attributes(Scope::Metric),
            types: batch.number_column(schema::METRIC_TYPE),
        }
    }

    /// Bytes that two points share if and only if they are of one metric.
    fn metric_key(&self, row: usize, key: &mut Vec<u8>) {
        for name in [schema::NAME, schema::DESCRIPTION, schema::UNIT] {
            push_text(key, self.text(name, row));
        }
        let monotonic = u8::from(self.monotonic(row));
        key.extend([self.ty(row), self.temporality(row), monotonic]);
        push_attributes(key, &self.metadata, row);
    }

    fn text(&self, name: &str, row: usize) -> Option<&'a str> {
        let column = self.batch.text_column(name).filter(|column| column.is_valid(row));
        column.map(|column| column.value(row))
    }

    fn temporality(&self, row: usize) -> u8 {
        self.number::<UInt8Type>(schema::TEMPORALITY, row).unwrap_or_default()
    }

    fn monotonic(&self, row: usize) -> bool {
        let column = self.batch.column(schema::MONOTONIC).and_then(|c| c.as_boolean_opt());
        column.is_some_and(|column| column.is_valid(row) && column.value(row))
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
        let mut metrics: Vec<Vec<usize>> = Vec::new();
        let mut numbers: HashMap<Vec<u8>, usize, foldhash::fast::RandomState> = HashMap::default();
        let mut key = Vec::new();
        for row in rows {
            key.clear();
            self.metric_key(*row, &mut key);
            let number = *numbers.entry_ref(key.as_slice()).or_insert(metrics.len());
            if number == metrics.len() {
                metrics.push(Vec::new());
            }
            metrics[number].push(*row);
        }
        metrics.iter().try_for_each(|rows| seq.serialize_element(&Metric { points: self, rows }))
    }
}

/// One metric: what its points share, from the first of them, and the points.
struct Metric<'s, 'a> {
    points: &'s Points<'a>,
    rows: &'s [usize],
}

impl Metric<'_, '_> {
    fn first(&self) -> usize {
        self.rows.first().copied().unwrap_or_default()
    }
}

impl Serialize for Metric<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (points, first) = (self.points, self.first());
        let mut map = serializer.serialize_map(None)?;
        fields::text(&mut map, "name", points.text(schema::NAME, first))?;
        fields::text(&mut map, "description", points.text(schema::DESCRIPTION, first))?;
        fields::text(&mut map, "unit", points.text(schema::UNIT, first))?;
        let member = match points.ty(first) {
            GAUGE => "gauge",
            SUM => "sum",
            HISTOGRAM => "histogram",
            EXPONENTIAL_HISTOGRAM => "exponentialHistogram",
            _ => "summary",
        };
        map.serialize_entry(member, &Data(self))?;
        fields::row_attributes_as(&mut map, "metadata", &points.metadata, first)?;
        map.end()
    }
}

struct Data<'s, 'a>(&'s Metric<'s, 'a>);

impl Serialize for Data<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (points, first) = (self.0.points, self.0.first());
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("dataPoints", &DataPoints(self.0))?;
        let temporality = u32::from(points.temporality(first));
        fields::number(&mut map, "aggregationTemporality", temporality)?;
        if points.monotonic(first) {
            map.serialize_entry("isMonotonic", &true)?;
        }
        map.end()
    }
}

struct DataPoints<'s, 'a>(&'s Metric<'s, 'a>);

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
