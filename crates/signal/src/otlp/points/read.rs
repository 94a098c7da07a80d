//! One data point of any type, as it stands in a request.

use crate::column::Buffers;
use crate::otlp::any::KeyValue;
use crate::otlp::wire::{Message, WireError, zigzag};
use crate::otlp::{ItemError, nanos};
use crate::rows::{MetricType, Number};

/// A data point. It is complete before a column is touched, so that a bad point leaves nothing
/// behind; its memory is used again for the next point.
#[derive(Default)]
pub struct Point<'a> {
    /// Nanoseconds since the epoch; 0 if not given.
    pub start: i64,
    /// Nanoseconds since the epoch.
    pub time: i64,
    pub flags: u32,
    pub value: Option<Number>,
    pub count: u64,
    pub sum: Option<f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub bucket_counts: Vec<u64>,
    pub explicit_bounds: Vec<f64>,
    pub scale: i32,
    pub zero_count: u64,
    pub zero_threshold: f64,
    pub positive: Buckets,
    pub negative: Buckets,
    /// Each with its value.
    pub quantiles: Vec<(f64, f64)>,
    pub attributes: Vec<KeyValue<'a>>,
    pub exemplars: Vec<Exemplar>,
    pub exemplar_attributes: Vec<KeyValue<'a>>,
}

/// Buckets of an exponential histogram.
#[derive(Default)]
pub struct Buckets {
    /// `None` if the point has no such buckets.
    pub offset: Option<i32>,
    pub counts: Vec<u64>,
}

/// An exemplar of the point; its attributes lie in the point's.
pub struct Exemplar {
    pub time: i64,
    pub value: Option<Number>,
    pub trace_id: Option<[u8; 16]>,
    pub span_id: Option<[u8; 8]>,
    pub attributes_end: usize,
}

impl<'a> Point<'a> {
    fn clear(&mut self) {
        (self.start, self.time, self.flags, self.value) = (0, 0, 0, None);
        (self.count, self.sum, self.min, self.max) = (0, None, None, None);
        (self.scale, self.zero_count, self.zero_threshold) = (0, 0, 0.0);
        self.bucket_counts.clear();
        self.explicit_bounds.clear();
        self.positive.clear();
        self.negative.clear();
        self.quantiles.clear();
        self.attributes.clear();
        self.exemplars.clear();
        self.exemplar_attributes.clear();
    }

    /// Reads the data point of a metric of type `metric_type` in `bytes`.
    pub fn read(
        &mut self,
        metric_type: MetricType,
        bytes: &'a [u8],
        buffers: &mut Buffers,
        check: bool,
    ) -> Result<(), ItemError> {
        use MetricType::{ExponentialHistogram, Gauge, Histogram, Sum, Summary};
        self.clear();
        let mut message = Message::new(bytes);
        let (mut start, mut time) = (0, 0);
        while let Some((number, field)) = message.next_field()? {
            // The four messages agree in the first two fields only.
            match (number, metric_type) {
                (2, _) => start = field.fixed64(2)?,
                (3, _) => time = field.fixed64(3)?,
                (7, Gauge | Sum | Summary) | (9, Histogram) | (1, ExponentialHistogram) => {
                    self.attributes.push(KeyValue::parse(field.bytes(number)?, buffers, check)?);
                }
                (5, Gauge | Sum) | (8, Histogram) | (11, ExponentialHistogram) => {
                    self.exemplar(field.bytes(number)?, buffers, check)?;
                }
                (8, Gauge | Sum | Summary) | (10, Histogram | ExponentialHistogram) => {
                    self.flags = field.varint(number)? as u32;
                }
                (4, Gauge | Sum) => self.value = Some(Number::Double(field.double(4)?)),
                (6, Gauge | Sum) => self.value = Some(Number::Int(field.fixed64(6)? as i64)),
                (4, _) => self.count = field.fixed64(4)?,
                (5, _) => self.sum = Some(field.double(5)?),
                (11, Histogram) | (12, ExponentialHistogram) => {
                    self.min = Some(field.double(number)?);
                }
                (12, Histogram) | (13, ExponentialHistogram) => {
                    self.max = Some(field.double(number)?);
                }
                (6, Histogram) => field.each_fixed64(6, |count| self.bucket_counts.push(count))?,
                (7, Histogram) => field.each_fixed64(7, |bits| {
                    self.explicit_bounds.push(f64::from_bits(bits));
                })?,
                (6, ExponentialHistogram) => self.scale = zigzag(field.varint(6)?),
                (7, ExponentialHistogram) => self.zero_count = field.fixed64(7)?,
                (8, ExponentialHistogram) => self.positive.read(field.bytes(8)?)?,
                (9, ExponentialHistogram) => self.negative.read(field.bytes(9)?)?,
                (14, ExponentialHistogram) => self.zero_threshold = field.double(14)?,
                (6, Summary) => self.quantile(field.bytes(6)?)?,
                _ => {}
            }
        }
        self.start = nanos("start_time_unix_nano", start)?;
        self.time = nanos("time_unix_nano", time)?;
        ItemError::check_buckets(self.bucket_counts.len(), self.explicit_bounds.len())?;
        if metric_type == Summary {
            // In a summary alone the sum has no presence: a sum of 0 is not sent.
            self.sum.get_or_insert(0.0);
        }
        Ok(())
    }

    fn quantile(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let (mut quantile, mut value) = (0.0, 0.0);
        let mut message = Message::new(bytes);
        while let Some((number, field)) = message.next_field()? {
            match number {
                1 => quantile = field.double(1)?,
                2 => value = field.double(2)?,
                _ => {}
            }
        }
        self.quantiles.push((quantile, value));
        Ok(())
    }

    fn exemplar(
        &mut self,
        bytes: &'a [u8],
        buffers: &mut Buffers,
        check: bool,
    ) -> Result<(), ItemError> {
        let (mut trace_id, mut span_id): (&[u8], &[u8]) = (&[], &[]);
        let (mut time, mut value) = (0, None);
        let mut message = Message::new(bytes);
        while let Some((number, field)) = message.next_field()? {
            match number {
                2 => time = field.fixed64(2)?,
                3 => value = Some(Number::Double(field.double(3)?)),
                4 => span_id = field.bytes(4)?,
                5 => trace_id = field.bytes(5)?,
                6 => value = Some(Number::Int(field.fixed64(6)? as i64)),
                7 => {
                    let attribute = KeyValue::parse(field.bytes(7)?, buffers, check)?;
                    self.exemplar_attributes.push(attribute);
                }
                _ => {}
            }
        }
        self.exemplars.push(Exemplar {
            time: nanos("exemplars.time_unix_nano", time)?,
            value,
            // As in a log record, an invalid id is no id: the measurement is still one.
            trace_id: trace_id.try_into().ok().filter(|id| *id != [0; 16]),
            span_id: span_id.try_into().ok().filter(|id| *id != [0; 8]),
            attributes_end: self.exemplar_attributes.len(),
        });
        Ok(())
    }
}

impl Buckets {
    fn clear(&mut self) {
        self.offset = None;
        self.counts.clear();
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        self.offset.get_or_insert(0);
        let mut message = Message::new(bytes);
        while let Some((number, field)) = message.next_field()? {
            match number {
                1 => self.offset = Some(zigzag(field.varint(1)?)),
                2 => field.each_varint(2, |count| self.counts.push(count))?,
                _ => {}
            }
        }
        Ok(())
    }
}
