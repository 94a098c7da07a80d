//! Spans (`opentelemetry.proto.trace.v1`).

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Int64Type, TimestampNanosecondType, UInt8Type, UInt32Type};

use crate::coded::Column;
use crate::column::{
    AttributeListColumn, Buffers, IdColumn, ListEnds, NumberColumn, Text, TextColumn, ViewColumn,
    struct_column,
};
use crate::schema::{self as c, Scope, SignalKind, event_fields, link_fields, timestamp_type};

use super::any::KeyValue;
use super::attributes::{AttributeColumns, push_attributes};
use super::scopes::{Items, Sink};
use super::wire::{Message, WireError};
use super::{BuildError, ItemError, id, nanos, required_id};

/// Fixed columns of spans.
#[derive(Default)]
pub struct Spans<'a> {
    trace_id: IdColumn<16>,
    span_id: IdColumn<8>,
    parent_span_id: IdColumn<8>,
    trace_state: TextColumn,
    flags: NumberColumn<UInt32Type>,
    name: TextColumn,
    kind: NumberColumn<UInt8Type>,
    start_time: NumberColumn<TimestampNanosecondType>,
    duration: NumberColumn<Int64Type>,
    status_code: NumberColumn<UInt8Type>,
    status_message: TextColumn,
    events: Events,
    links: Links,
    dropped_attributes: NumberColumn<UInt32Type>,
    dropped_events: NumberColumn<UInt32Type>,
    dropped_links: NumberColumn<UInt32Type>,
    scratch: Scratch<'a>,
}

/// The repeated fields of the span that is being read. It is complete before a column is touched,
/// so that a bad span leaves nothing behind; its memory is used again for the next span.
#[derive(Default)]
struct Scratch<'a> {
    attributes: Vec<KeyValue<'a>>,
    events: Vec<Event<'a>>,
    event_attributes: Vec<KeyValue<'a>>,
    links: Vec<Link<'a>>,
    link_attributes: Vec<KeyValue<'a>>,
    /// Links so far, kept or not, and those without a valid id: which, and what is wrong with it.
    links_read: usize,
    bad_links: Vec<(usize, ItemError)>,
}

struct Event<'a> {
    time: i64,
    name: &'a [u8],
    attributes_end: usize,
    dropped: u32,
}

struct Link<'a> {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    trace_state: &'a [u8],
    attributes_end: usize,
    dropped: u32,
    flags: u32,
}

impl<'a> Items<'a> for Spans<'a> {
    const KIND: SignalKind = SignalKind::Spans;
    const PATH: [&'static str; 3] = ["resource_spans", "scope_spans", "spans"];

    fn item(
        &mut self,
        bytes: &'a [u8],
        sink: &mut Sink<'_, 'a>,
        place: &dyn Fn() -> String,
    ) -> Result<(), ItemError> {
        sink.room()?;
        let check = sink.check_text;
        let scratch = &mut self.scratch;
        scratch.attributes.clear();
        scratch.events.clear();
        scratch.event_attributes.clear();
        scratch.links.clear();
        scratch.link_attributes.clear();
        scratch.links_read = 0;
        scratch.bad_links.clear();
        let (mut trace_id, mut span_id, mut parent): (&[u8], &[u8], &[u8]) = (&[], &[], &[]);
        let (mut state, mut name, mut status_message): (&[u8], &[u8], &[u8]) = (&[], &[], &[]);
        let (mut start, mut end, mut kind, mut flags, mut status_code) = (0, 0, 0, 0, 0);
        let (mut dropped_attributes, mut dropped_events, mut dropped_links) = (0, 0, 0u64);

        let mut message = Message::new(bytes);
        // Emitters write fields in the order of their numbers. What comes in another order, or
        // again, is read below.
        for (tag, place) in [
            (0x0a, &mut trace_id),
            (0x12, &mut span_id),
            (0x1a, &mut state),
            (0x22, &mut parent),
            (0x2a, &mut name),
        ] {
            if let Some(bytes) = message.next_bytes(tag) {
                *place = bytes;
            }
        }
        kind = message.next_small(0x30).unwrap_or(kind);
        start = message.next_fixed64(0x39).unwrap_or(start);
        end = message.next_fixed64(0x41).unwrap_or(end);
        while let Some((number, field)) = message.next_field()? {
            match number {
                1 => trace_id = field.bytes(1)?,
                2 => span_id = field.bytes(2)?,
                3 => state = field.bytes(3)?,
                4 => parent = field.bytes(4)?,
                5 => name = field.bytes(5)?,
                6 => kind = field.varint(6)?,
                7 => start = field.fixed64(7)?,
                8 => end = field.fixed64(8)?,
                9 => {
                    let attribute = KeyValue::parse(field.bytes(9)?, sink.buffers, check)?;
                    scratch.attributes.push(attribute);
                    while let Some(bytes) = message.next_bytes(0x4a) {
                        let attribute = KeyValue::parse(bytes, sink.buffers, check)?;
                        scratch.attributes.push(attribute);
                    }
                }
                10 => dropped_attributes = field.varint(10)?,
                11 => scratch.event(field.bytes(11)?, sink.buffers, check)?,
                12 => dropped_events = field.varint(12)?,
                13 => scratch.link(field.bytes(13)?, sink.buffers, check)?,
                14 => dropped_links = field.varint(14)?,
                15 => {
                    let mut status = Message::new(field.bytes(15)?);
                    while let Some((number, field)) = status.next_field()? {
                        match number {
                            2 => status_message = field.bytes(2)?,
                            3 => status_code = field.varint(3)?,
                            _ => {}
                        }
                    }
                }
                16 => flags = field.fixed32(16)?,
                _ => {}
            }
        }
        if check {
            for text in [state, name, status_message] {
                std::str::from_utf8(text).map_err(|_| WireError::Utf8)?;
            }
        }
        let trace_id = required_id("trace_id", trace_id)?;
        let span_id = required_id("span_id", span_id)?;
        let parent = id("parent_span_id", parent)?;
        let start = nanos("start_time_unix_nano", start)?;
        let end = nanos("end_time_unix_nano", end)?;

        // Nothing below can fail.
        for (index, error) in self.scratch.bad_links.drain(..) {
            sink.rejected.note_link(|| format!("{}.links[{index}]", place()), &error);
            dropped_links += 1;
        }
        sink.rejected.untimed += u64::from(start == 0);
        let name = sink.attributes.cut(name);
        let status_message = sink.attributes.cut(status_message);
        let buffers = &mut *sink.buffers;
        self.trace_id.push(Some(trace_id));
        self.span_id.push(Some(span_id));
        self.parent_span_id.push(parent);
        self.trace_state.push_nonempty(buffers, state);
        self.flags.push(flags);
        self.name.push(buffers, Text::Body(name));
        self.kind.push(u8::try_from(kind).unwrap_or(0));
        self.start_time.push(start);
        self.duration.push(end - start);
        self.status_code.push(u8::try_from(status_code).unwrap_or(0));
        self.status_message.push_nonempty(buffers, status_message);
        self.dropped_attributes.push(dropped_attributes as u32);
        self.dropped_events.push(dropped_events as u32);
        self.dropped_links.push(u32::try_from(dropped_links).unwrap_or(u32::MAX));
        self.events.push(buffers, &self.scratch, sink.attributes);
        self.links.push(buffers, &self.scratch, sink.attributes);
        sink.attributes.begin();
        for attribute in &self.scratch.attributes {
            sink.attributes.set(buffers, Scope::Span, *attribute, *sink.row, 1);
        }
        *sink.row += 1;
        Ok(())
    }

    fn finish(self, buffers: &Arc<[Buffer]>) -> Result<Vec<(&'static str, Column)>, BuildError> {
        Ok(vec![
            (c::TRACE_ID, Column::Plain(self.trace_id.finish()?)),
            (c::SPAN_ID, Column::Plain(self.span_id.finish()?)),
            (c::PARENT_SPAN_ID, Column::Plain(self.parent_span_id.finish()?)),
            (c::TRACE_STATE, self.trace_state.finish(buffers)?),
            (c::FLAGS, Column::Plain(self.flags.finish(DataType::UInt32))),
            (c::NAME, self.name.finish(buffers)?),
            (c::KIND, Column::Plain(self.kind.finish(DataType::UInt8))),
            (c::START_TIME, Column::Plain(self.start_time.finish(timestamp_type()))),
            (c::DURATION, Column::Plain(self.duration.finish(DataType::Int64))),
            (c::STATUS_CODE, Column::Plain(self.status_code.finish(DataType::UInt8))),
            (c::STATUS_MESSAGE, self.status_message.finish(buffers)?),
            (c::EVENTS, Column::Plain(self.events.finish(buffers)?)),
            (c::LINKS, Column::Plain(self.links.finish(buffers)?)),
            (
                c::DROPPED_ATTRIBUTES,
                Column::Plain(self.dropped_attributes.finish(DataType::UInt32)),
            ),
            (c::DROPPED_EVENTS, Column::Plain(self.dropped_events.finish(DataType::UInt32))),
            (c::DROPPED_LINKS, Column::Plain(self.dropped_links.finish(DataType::UInt32))),
        ])
    }
}

impl<'a> Scratch<'a> {
    fn event(
        &mut self,
        bytes: &'a [u8],
        buffers: &mut Buffers,
        check: bool,
    ) -> Result<(), ItemError> {
        let (mut time, mut name, mut dropped): (u64, &[u8], u64) = (0, &[], 0);
        let mut message = Message::new(bytes);
        while let Some((number, field)) = message.next_field()? {
            match number {
                1 => time = field.fixed64(1)?,
                2 => name = field.bytes(2)?,
                3 => {
                    let attribute = KeyValue::parse(field.bytes(3)?, buffers, check)?;
                    self.event_attributes.push(attribute);
                }
                4 => dropped = field.varint(4)?,
                _ => {}
            }
        }
        if check {
            std::str::from_utf8(name).map_err(|_| WireError::Utf8)?;
        }
        self.events.push(Event {
            time: nanos("events.time_unix_nano", time)?,
            name,
            attributes_end: self.event_attributes.len(),
            dropped: dropped as u32,
        });
        Ok(())
    }

    fn link(
        &mut self,
        bytes: &'a [u8],
        buffers: &mut Buffers,
        check: bool,
    ) -> Result<(), ItemError> {
        let (mut trace_id, mut span_id, mut state): (&[u8], &[u8], &[u8]) = (&[], &[], &[]);
        let (mut dropped, mut flags) = (0, 0);
        let (index, attributes) = (self.links_read, self.link_attributes.len());
        self.links_read += 1;
        let mut message = Message::new(bytes);
        while let Some((number, field)) = message.next_field()? {
            match number {
                1 => trace_id = field.bytes(1)?,
                2 => span_id = field.bytes(2)?,
                3 => state = field.bytes(3)?,
                4 => {
                    let attribute = KeyValue::parse(field.bytes(4)?, buffers, check)?;
                    self.link_attributes.push(attribute);
                }
                5 => dropped = field.varint(5)?,
                6 => flags = field.fixed32(6)?,
                _ => {}
            }
        }
        if check {
            std::str::from_utf8(state).map_err(|_| WireError::Utf8)?;
        }
        let ids = required_id("trace_id", trace_id)
            .and_then(|trace_id| Ok((trace_id, required_id("span_id", span_id)?)));
        let (trace_id, span_id) = match ids {
            Ok(ids) => ids,
            // It links to nothing; the span is one without it.
            Err(error) => {
                self.link_attributes.truncate(attributes);
                self.bad_links.push((index, error));
                return Ok(());
            }
        };
        self.links.push(Link {
            trace_id,
            span_id,
            trace_state: state,
            attributes_end: self.link_attributes.len(),
            dropped: dropped as u32,
            flags,
        });
        Ok(())
    }
}

/// The column of span events.
#[derive(Default)]
struct Events {
    time: NumberColumn<TimestampNanosecondType>,
    name: ViewColumn,
    attributes: AttributeListColumn,
    dropped: NumberColumn<UInt32Type>,
    ends: ListEnds,
}

impl Events {
    fn push<'a>(
        &mut self,
        buffers: &mut Buffers,
        scratch: &Scratch<'a>,
        limits: &mut AttributeColumns<'a>,
    ) {
        let mut start = 0;
        for event in &scratch.events {
            self.time.push(event.time);
            self.name.push(buffers, Text::Body(limits.cut(event.name)));
            let attributes = &scratch.event_attributes[start..event.attributes_end];
            push_attributes(&mut self.attributes, buffers, attributes, limits);
            self.dropped.push(event.dropped);
            start = event.attributes_end;
        }
        self.ends.end_or_null(self.time.len());
    }

    fn finish(self, buffers: &Arc<[Buffer]>) -> Result<ArrayRef, BuildError> {
        let columns = vec![
            self.time.finish(timestamp_type()),
            self.name.finish_text(buffers)?,
            self.attributes.finish(buffers)?,
            self.dropped.finish(DataType::UInt32),
        ];
        Ok(self.ends.finish(struct_column(event_fields(), columns)?)?)
    }
}

/// The column of span links.
#[derive(Default)]
struct Links {
    trace_id: IdColumn<16>,
    span_id: IdColumn<8>,
    trace_state: ViewColumn,
    attributes: AttributeListColumn,
    dropped: NumberColumn<UInt32Type>,
    flags: NumberColumn<UInt32Type>,
    ends: ListEnds,
}

impl Links {
    fn push<'a>(
        &mut self,
        buffers: &mut Buffers,
        scratch: &Scratch<'a>,
        limits: &mut AttributeColumns<'a>,
    ) {
        let mut start = 0;
        for link in &scratch.links {
            self.trace_id.push(Some(link.trace_id));
            self.span_id.push(Some(link.span_id));
            self.trace_state.push(buffers, Text::Body(link.trace_state));
            let attributes = &scratch.link_attributes[start..link.attributes_end];
            push_attributes(&mut self.attributes, buffers, attributes, limits);
            self.dropped.push(link.dropped);
            self.flags.push(link.flags);
            start = link.attributes_end;
        }
        self.ends.end_or_null(self.flags.len());
    }

    fn finish(self, buffers: &Arc<[Buffer]>) -> Result<ArrayRef, BuildError> {
        let columns = vec![
            self.trace_id.finish()?,
            self.span_id.finish()?,
            self.trace_state.finish_text(buffers)?,
            self.attributes.finish(buffers)?,
            self.dropped.finish(DataType::UInt32),
            self.flags.finish(DataType::UInt32),
        ];
        Ok(self.ends.finish(struct_column(link_fields(), columns)?)?)
    }
}
