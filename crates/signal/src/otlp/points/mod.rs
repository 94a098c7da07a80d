//! Metric points (`opentelemetry.proto.metrics.v1`): one row a data point.

mod columns;
mod read;

use std::sync::Arc;

use arrow::buffer::Buffer;

use crate::coded::Column;
use crate::rows::MetricType;
use crate::schema::{Scope, SignalKind};

use self::columns::{Columns, Metric};
use self::read::Point;
use super::any::KeyValue;
use super::bounds::each;
use super::scopes::{Items, Sink};
use super::wire::{Message, WireError};
use super::{BuildError, ItemError};

/// Fixed columns of metric points, and the point that is being read.
#[derive(Default)]
pub struct Points<'a> {
    columns: Columns,
    point: Point<'a>,
    metadata: Vec<KeyValue<'a>>,
}

/// Bytes of a metric's name that a message tells.
const MAX_NAME: usize = 200;

/// Field numbers of the members of `Metric.data`.
const DATA: [u32; 5] = [5, 7, 9, 10, 11];

/// The member of `Metric.data` whose field number is `number`, and its name in messages.
fn data(number: u32) -> Option<(MetricType, &'static str)> {
    Some(match number {
        5 => (MetricType::Gauge, "gauge"),
        7 => (MetricType::Sum, "sum"),
        9 => (MetricType::Histogram, "histogram"),
        10 => (MetricType::ExponentialHistogram, "exponential_histogram"),
        11 => (MetricType::Summary, "summary"),
        _ => return None,
    })
}

/// The frame of a metric: everything but its points.
struct Frame<'a> {
    name: &'a [u8],
    description: &'a [u8],
    unit: &'a [u8],
    /// The field number of the data.
    number: u32,
    /// The metric from its first field of the data on.
    data: Message<'a>,
    temporality: u64,
    monotonic: bool,
    /// How many points it has.
    points: u64,
}

impl<'a> Frame<'a> {
    /// Reads the frame, so that a point can be kept as soon as it has been read: what follows it
    /// may say how its values add up.
    fn read(bytes: &'a [u8]) -> Result<Self, WireError> {
        let (mut name, mut description, mut unit): (&[u8], &[u8], &[u8]) = (&[], &[], &[]);
        let mut message = Message::new(bytes);
        let (mut number, mut data_start) = (0, message);
        loop {
            let here = message;
            let Some((field_number, field)) = message.next_field()? else { break };
            match field_number {
                1 => name = field.bytes(1)?,
                2 => description = field.bytes(2)?,
                3 => unit = field.bytes(3)?,
                12 => _ = field.bytes(12)?,
                _ if data(field_number).is_some() => {
                    field.bytes(field_number)?;
                    // Of a `oneof`, the last member counts; a message that comes in several
                    // fields is merged (protobuf, "Last One Wins").
                    if field_number != number {
                        (number, data_start) = (field_number, here);
                    }
                }
                _ => {}
            }
        }
        let mut frame = Self {
            name,
            description,
            unit,
            number,
            data: data_start,
            temporality: 0,
            monotonic: false,
            points: 0,
        };
        for part in frame.parts() {
            let mut message = Message::new(part);
            while let Some((field_number, field)) = message.next_field()? {
                match field_number {
                    1 => frame.points += 1,
                    2 if matches!(number, 7 | 9 | 10) => frame.temporality = field.varint(2)?,
                    3 if number == 7 => frame.monotonic = field.varint(3)? != 0,
                    _ => {}
                }
            }
        }
        Ok(frame)
    }

    /// The fields that make up the data: almost always one.
    fn parts(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (number, mut message) = (self.number, self.data);
        std::iter::from_fn(move || {
            while let Ok(Some((field_number, field))) = message.next_field() {
                if field_number == number {
                    return field.bytes(number).ok();
                }
            }
            None
        })
    }
}

impl<'a> Items<'a> for Points<'a> {
    const KIND: SignalKind = SignalKind::Points;
    const PATH: [&'static str; 3] = ["resource_metrics", "scope_metrics", "metrics"];

    fn rows(bytes: &[u8]) -> usize {
        let mut rows = 0;
        // Which member of the `oneof` counts is not known yet: all of them are counted.
        for number in DATA {
            each(bytes, number, |data| each(data, 1, |_| rows += 1));
        }
        rows
    }

    fn item(
        &mut self,
        bytes: &'a [u8],
        sink: &mut Sink<'_, 'a>,
        place: &dyn Fn() -> String,
    ) -> Result<(), ItemError> {
        let frame = Frame::read(bytes)?;
        let Some((metric_type, data_name)) = data(frame.number) else {
            // A type that is not known yet, or was given up long ago, or none: its points are lost,
            // and its sender has to know.
            let name = String::from_utf8_lossy(&frame.name[..frame.name.len().min(MAX_NAME)]);
            return Err(ItemError::NoData(name.into_owned()));
        };
        if let Err(error) = self.read_metadata(bytes, &frame, sink) {
            // All its points go with it; the one that the caller counts is among them.
            sink.rejected.items += frame.points.saturating_sub(1);
            return Err(error.into());
        }

        let first_row = *sink.row;
        let mut index = 0;
        for part in frame.parts() {
            let mut message = Message::new(part);
            while let Some((number, field)) = message.next_field()? {
                if number != 1 {
                    continue;
                }
                let point = sink.room().and_then(|()| Ok(field.bytes(1)?));
                let read = point.and_then(|bytes| {
                    self.point.read(metric_type, bytes, sink.buffers, sink.check_text)
                });
                match read {
                    Ok(()) => {
                        sink.rejected.untimed += u64::from(self.point.time == 0);
                        let Sink { buffers, attributes, row, .. } = &mut *sink;
                        self.columns.push(metric_type, &self.point, buffers, attributes, **row);
                        sink.attributes.begin();
                        for attribute in &self.point.attributes {
                            let scope = Scope::Point;
                            sink.attributes.set(sink.buffers, scope, *attribute, *sink.row, 1);
                        }
                        *sink.row += 1;
                    }
                    Err(error) => {
                        let place = || format!("{}.{data_name}.data_points[{index}]", place());
                        sink.rejected.note(place, &error);
                    }
                }
                index += 1;
            }
        }

        let n = *sink.row - first_row;
        let metric = Metric {
            name: frame.name,
            description: sink.attributes.cut(frame.description),
            unit: frame.unit,
            metric_type,
            temporality: u8::try_from(frame.temporality).ok().filter(|t| *t <= 2).unwrap_or(0),
            monotonic: frame.monotonic,
        };
        self.columns.push_metric(&metric, sink.buffers, first_row, n);
        if n > 0 {
            sink.attributes.begin();
            for attribute in &self.metadata {
                sink.attributes.set(sink.buffers, Scope::Metric, *attribute, first_row, n);
            }
        }
        Ok(())
    }

    fn finish(self, buffers: &Arc<[Buffer]>) -> Result<Vec<(&'static str, Column)>, BuildError> {
        self.columns.finish(buffers)
    }
}

impl<'a> Points<'a> {
    /// Reads the metric's metadata and checks its texts.
    fn read_metadata(
        &mut self,
        bytes: &'a [u8],
        frame: &Frame<'a>,
        sink: &mut Sink<'_, 'a>,
    ) -> Result<(), WireError> {
        self.metadata.clear();
        let mut message = Message::new(bytes);
        while let Some((number, field)) = message.next_field()? {
            if number == 12 {
                let attribute = KeyValue::parse(field.bytes(12)?, sink.buffers, sink.check_text)?;
                self.metadata.push(attribute);
            }
        }
        if sink.check_text {
            for text in [frame.name, frame.description, frame.unit] {
                std::str::from_utf8(text).map_err(|_| WireError::Utf8)?;
            }
        }
        Ok(())
    }
}
