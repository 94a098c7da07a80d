//! Log records (`opentelemetry.proto.logs.v1`).

use std::sync::Arc;

use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, TimestampNanosecondType, UInt8Type, UInt32Type};

use crate::coded::Column;
use crate::column::{Buffers, IdColumn, NumberColumn, Text, TextColumn};
use crate::schema::{self as c, Scope, SignalKind, timestamp_type};

use super::any::{AnyValue, KeyValue, json_text};
use super::scopes::{Items, Sink};
use super::wire::{Message, WireError};
use super::{BuildError, ItemError, nanos};

/// Fixed columns of log records.
#[derive(Default)]
pub struct Logs<'a> {
    time: NumberColumn<TimestampNanosecondType>,
    observed_time: NumberColumn<TimestampNanosecondType>,
    trace_id: IdColumn<16>,
    span_id: IdColumn<8>,
    flags: NumberColumn<UInt32Type>,
    severity: NumberColumn<UInt8Type>,
    severity_text: TextColumn,
    body: TextColumn,
    body_any: TextColumn,
    event_name: TextColumn,
    dropped_attributes: NumberColumn<UInt32Type>,
    attributes: Vec<KeyValue<'a>>,
    /// When the request came, 0 if that is not known.
    received: i64,
}

impl Logs<'_> {
    /// Of a request that came at `received`: nanoseconds since the epoch, 0 if that is not known.
    pub fn received(received: i64) -> Self {
        Self { received, ..Self::default() }
    }
}

impl<'a> Items<'a> for Logs<'a> {
    const KIND: SignalKind = SignalKind::Logs;
    const PATH: [&'static str; 3] = ["resource_logs", "scope_logs", "log_records"];

    fn item(
        &mut self,
        bytes: &'a [u8],
        sink: &mut Sink<'_, 'a>,
        _place: &dyn Fn() -> String,
    ) -> Result<(), ItemError> {
        sink.room()?;
        let check = sink.check_text;
        self.attributes.clear();
        let (mut trace_id, mut span_id): (&[u8], &[u8]) = (&[], &[]);
        let (mut severity_text, mut event_name): (&[u8], &[u8]) = (&[], &[]);
        let (mut time, mut observed, mut severity, mut flags, mut dropped) = (0, 0, 0, 0, 0);
        let mut body = None;

        let mut message = Message::new(bytes);
        while let Some((number, field)) = message.next_field()? {
            match number {
                1 => time = field.fixed64(1)?,
                2 => severity = field.varint(2)?,
                3 => severity_text = field.bytes(3)?,
                5 => body = Some(Body::parse(field.bytes(5)?, sink.buffers, check)?),
                6 => {
                    let attribute = KeyValue::parse(field.bytes(6)?, sink.buffers, check)?;
                    self.attributes.push(attribute);
                    while let Some(bytes) = message.next_bytes(0x32) {
                        let attribute = KeyValue::parse(bytes, sink.buffers, check)?;
                        self.attributes.push(attribute);
                    }
                }
                7 => dropped = field.varint(7)?,
                8 => flags = field.fixed32(8)?,
                9 => trace_id = field.bytes(9)?,
                10 => span_id = field.bytes(10)?,
                11 => observed = field.fixed64(11)?,
                12 => event_name = field.bytes(12)?,
                _ => {}
            }
        }
        if check {
            for text in [severity_text, event_name] {
                std::str::from_utf8(text).map_err(|_| WireError::Utf8)?;
            }
        }
        let time = nanos("time_unix_nano", time)?;
        let mut observed = nanos("observed_time_unix_nano", observed)?;

        // Nothing below can fail.
        let buffers = &mut *sink.buffers;
        if time == 0 && observed == 0 {
            observed = self.received;
            sink.rejected.untimed += u64::from(observed == 0);
        }
        // "If observed_time_unix_nano is present and time_unix_nano is not, use it" (logs.proto).
        self.time.push(if time == 0 { observed } else { time });
        self.observed_time.push_option((observed != 0).then_some(observed));
        // A record with an invalid id is kept, outside any trace (logs.proto, `trace_id`).
        self.trace_id.push(trace_id.try_into().ok().filter(|id| *id != [0; 16]));
        self.span_id.push(span_id.try_into().ok().filter(|id| *id != [0; 8]));
        self.flags.push(flags);
        self.severity.push(u8::try_from(severity).ok().filter(|n| *n <= 24).unwrap_or(0));
        self.severity_text.push_nonempty(buffers, severity_text);
        match body {
            Some(Body::Text(text)) => {
                self.body.push(buffers, Text::Body(sink.attributes.cut(text)));
            }
            Some(Body::Other(json)) if !sink.attributes.fit_value(&mut AnyValue::Any(json)) => {
                sink.attributes.dropped += 1;
            }
            Some(Body::Other(json)) => {
                self.body_any.pad(*sink.row);
                self.body_any.push(buffers, json);
            }
            None => {}
        }
        self.body.pad(*sink.row + 1);
        self.body_any.pad(*sink.row + 1);
        self.event_name.push_nonempty(buffers, event_name);
        self.dropped_attributes.push(dropped as u32);
        sink.attributes.begin();
        for attribute in &self.attributes {
            sink.attributes.set(buffers, Scope::Log, *attribute, *sink.row, 1);
        }
        *sink.row += 1;
        Ok(())
    }

    fn finish(self, buffers: &Arc<[Buffer]>) -> Result<Vec<(&'static str, Column)>, BuildError> {
        Ok(vec![
            (c::TIME, Column::Plain(self.time.finish(timestamp_type()))),
            (c::OBSERVED_TIME, Column::Plain(self.observed_time.finish(timestamp_type()))),
            (c::TRACE_ID, Column::Plain(self.trace_id.finish()?)),
            (c::SPAN_ID, Column::Plain(self.span_id.finish()?)),
            (c::FLAGS, Column::Plain(self.flags.finish(DataType::UInt32))),
            (c::SEVERITY, Column::Plain(self.severity.finish(DataType::UInt8))),
            (c::SEVERITY_TEXT, self.severity_text.finish(buffers)?),
            (c::BODY, self.body.finish(buffers)?),
            (c::BODY_ANY, self.body_any.finish(buffers)?),
            (c::EVENT_NAME, self.event_name.finish(buffers)?),
            (
                c::DROPPED_ATTRIBUTES,
                Column::Plain(self.dropped_attributes.finish(DataType::UInt32)),
            ),
        ])
    }
}

/// A log's body.
#[derive(Clone, Copy)]
enum Body<'a> {
    Text(&'a [u8]),
    /// OTLP/JSON of what is not text.
    Other(Text<'static>),
}

impl<'a> Body<'a> {
    /// Reads the `AnyValue` message in `bytes`.
    fn parse(bytes: &'a [u8], buffers: &mut Buffers, check: bool) -> Result<Self, WireError> {
        Ok(match AnyValue::parse(bytes, buffers, check)? {
            AnyValue::Str(text) => Self::Text(text),
            AnyValue::Any(json) => Self::Other(json),
            _ => Self::Other(json_text(bytes, buffers)?),
        })
    }
}
