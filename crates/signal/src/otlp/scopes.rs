//! The frame that all three kinds of request share: resources, their scopes, their items.

use std::sync::Arc;

use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Schema, UInt32Type};
use bytes::Bytes;

use crate::batch::Batch;
use crate::coded::Column;
use crate::column::{Buffers, NumberColumn, Text, TextColumn};
use crate::schema::{self, Scope, SignalKind};

use super::any::KeyValue;
use super::attributes::AttributeColumns;
use super::bounds::Bounds;
use super::wire::{Field as WireField, Message, WireError};
use super::{BuildError, Decoded, ItemError, Limits, Rejected};

/// What an item is written into.
pub struct Sink<'s, 'a> {
    /// The buffers of the batch's texts.
    pub buffers: &'s mut Buffers,
    /// The attribute columns.
    pub attributes: &'s mut AttributeColumns<'a>,
    /// The next row.
    pub row: &'s mut usize,
    /// Rows that are kept at most.
    pub most_rows: usize,
    /// Whether to check that texts are UTF-8.
    pub check_text: bool,
    /// What is refused.
    pub rejected: &'s mut Rejected,
}

impl Sink<'_, '_> {
    /// Whether there is room for one more row.
    ///
    /// # Errors
    /// [`ItemError::TooMany`] if not.
    pub fn room(&self) -> Result<(), ItemError> {
        if *self.row < self.most_rows { Ok(()) } else { Err(ItemError::TooMany(self.most_rows)) }
    }
}

/// The fixed columns of one kind of signal while a request is decoded.
pub trait Items<'a>: Sized {
    /// The kind of signal.
    const KIND: SignalKind;
    /// The names of the repeated fields from the request down to the items, for messages.
    const PATH: [&'static str; 3];

    /// The rows that an item makes at most. Only asked of large requests.
    fn rows(bytes: &[u8]) -> usize {
        let _ = bytes;
        1
    }

    /// Reads one item, appends its rows, and counts what it refuses.
    ///
    /// An item that fails must have appended nothing.
    fn item(
        &mut self,
        bytes: &'a [u8],
        sink: &mut Sink<'_, 'a>,
        place: &dyn Fn() -> String,
    ) -> Result<(), ItemError>;

    /// The fixed columns by name; one that is null in every row may be left out.
    fn finish(self, buffers: &Arc<[Buffer]>) -> Result<Vec<(&'static str, Column)>, BuildError>;
}

/// Resource and scope columns, filled a range of rows at a time.
#[derive(Default)]
struct ScopeColumns {
    scope_name: TextColumn,
    scope_version: TextColumn,
    resource_schema_url: TextColumn,
    scope_schema_url: TextColumn,
    resource_dropped: NumberColumn<UInt32Type>,
    scope_dropped: NumberColumn<UInt32Type>,
}

/// Decodes a whole request.
pub fn decode<'a, I: Items<'a>>(
    mut items: I,
    body: &'a Bytes,
    limits: &Limits,
    check_text: bool,
) -> Result<Decoded, BuildError> {
    let mut buffers = Buffers::new(body.clone());
    let bounds = Bounds::of::<I>(body);
    let mut attributes = AttributeColumns::new(*limits, bounds.columns);
    let mut scopes = ScopeColumns::default();
    let mut rejected = Rejected::default();
    let mut row = 0;

    let mut request = Message::new(body);
    let mut resource = 0;
    loop {
        let place = || format!("{}[{resource}]", I::PATH[0]);
        let field = match request.next_field() {
            Ok(None) => break,
            Ok(Some((1, field))) => field,
            Ok(Some(_)) => continue,
            Err(error) => {
                // Nothing says where the next field would begin.
                rejected.note(place, &error.into());
                break;
            }
        };
        let mut sink = Sink {
            buffers: &mut buffers,
            attributes: &mut attributes,
            row: &mut row,
            most_rows: bounds.rows,
            check_text,
            rejected: &mut rejected,
        };
        let done = field
            .bytes(1)
            .and_then(|bytes| read_resource(bytes, resource, &mut items, &mut scopes, &mut sink));
        if let Err(error) = done {
            rejected.note(place, &error.into());
        }
        resource += 1;
    }

    for column in [
        &mut scopes.scope_name,
        &mut scopes.scope_version,
        &mut scopes.resource_schema_url,
        &mut scopes.scope_schema_url,
    ] {
        column.pad(row);
    }
    scopes.resource_dropped.pad(row);
    scopes.scope_dropped.pad(row);
    rejected.attributes += attributes.dropped;
    rejected.truncated += attributes.truncated;
    let (attribute_columns, buffers) = attributes.finish(buffers, row)?;
    let mut fixed = items.finish(&buffers)?;
    let resource_dropped = scopes.resource_dropped.finish(DataType::UInt32);
    let scope_dropped = scopes.scope_dropped.finish(DataType::UInt32);
    fixed.extend([
        (schema::SCOPE_NAME, scopes.scope_name.finish(&buffers)?),
        (schema::SCOPE_VERSION, scopes.scope_version.finish(&buffers)?),
        (schema::RESOURCE_SCHEMA_URL, scopes.resource_schema_url.finish(&buffers)?),
        (schema::SCOPE_SCHEMA_URL, scopes.scope_schema_url.finish(&buffers)?),
        (schema::RESOURCE_DROPPED_ATTRIBUTES, Column::Plain(resource_dropped)),
        (schema::SCOPE_DROPPED_ATTRIBUTES, Column::Plain(scope_dropped)),
    ]);
    Ok(Decoded { batch: assemble(I::KIND, fixed, attribute_columns, row)?, rejected })
}

fn assemble(
    kind: SignalKind,
    fixed: Vec<(&'static str, Column)>,
    attributes: Vec<(Field, Column)>,
    rows: usize,
) -> Result<Batch, BuildError> {
    let mut fields = Vec::with_capacity(fixed.len() + attributes.len());
    let mut columns = Vec::with_capacity(fields.capacity());
    for (name, column) in fixed {
        let Some((_, field)) = kind.fixed_fields().find(name) else {
            debug_assert!(false, "no fixed column {name}");
            continue;
        };
        if field.is_nullable() && column.is_null() {
            continue;
        }
        fields.push(Arc::clone(field));
        columns.push(column);
    }
    for (field, column) in attributes {
        fields.push(Arc::new(field));
        columns.push(column);
    }
    Ok(Batch::coded(kind, Arc::new(Schema::new(fields)), rows, columns)?)
}

/// What a resource's or scope's message says of all its children.
struct Frame<'a> {
    /// The resource or instrumentation scope.
    owner: &'a [u8],
    schema_url: &'a [u8],
    /// Whether the message could be read to its end.
    read: Result<(), WireError>,
}

/// Gives each child of a message to `child`. The messages of resources and of scopes agree in their
/// first three fields in all three kinds of request: owner, children, schema URL.
fn children<'a>(
    bytes: &'a [u8],
    mut child: impl FnMut(usize, Result<&'a [u8], WireError>),
) -> Frame<'a> {
    let mut frame = Frame { owner: &[], schema_url: &[], read: Ok(()) };
    let (mut message, mut index) = (Message::new(bytes), 0);
    let mut next = |frame: &mut Frame<'a>| -> Result<bool, WireError> {
        let Some((number, field)) = message.next_field()? else { return Ok(false) };
        match number {
            1 => frame.owner = field.bytes(1)?,
            2 => {
                child(index, field.bytes(2));
                index += 1;
            }
            3 => frame.schema_url = field.bytes(3)?,
            _ => {}
        }
        Ok(true)
    };
    loop {
        match next(&mut frame) {
            Ok(true) => {}
            Ok(false) => return frame,
            Err(error) => {
                frame.read = Err(error);
                return frame;
            }
        }
    }
}

/// `ResourceSpans`, `ResourceLogs`, `ResourceMetrics`.
fn read_resource<'a, I: Items<'a>>(
    bytes: &'a [u8],
    resource: usize,
    items: &mut I,
    scopes: &mut ScopeColumns,
    sink: &mut Sink<'_, 'a>,
) -> Result<(), WireError> {
    let first_row = *sink.row;
    let frame = children(bytes, |scope, bytes| {
        let done = bytes.and_then(|b| read_scope(b, [resource, scope], items, scopes, sink));
        if let Err(error) = done {
            let place = || format!("{}[{resource}].{}[{scope}]", I::PATH[0], I::PATH[1]);
            sink.rejected.note(place, &error.into());
        }
    });
    // The rows read so far get their resource even if the rest of the message is broken.
    let n = *sink.row - first_row;
    if n > 0 {
        sink.attributes.begin();
        let mut dropped = 0;
        let mut message = Message::new(frame.owner);
        while let Some((number, field)) = message.next_field()? {
            match number {
                1 => set_attribute(Scope::Resource, field, 1, sink, first_row, n)?,
                2 => dropped = field.varint(2)?,
                _ => {}
            }
        }
        fill_count(&mut scopes.resource_dropped, dropped, first_row, n);
        fill(&mut scopes.resource_schema_url, sink, frame.schema_url, first_row, n)?;
    }
    frame.read
}

/// `ScopeSpans`, `ScopeLogs`, `ScopeMetrics`.
fn read_scope<'a, I: Items<'a>>(
    bytes: &'a [u8],
    [resource, scope]: [usize; 2],
    items: &mut I,
    scopes: &mut ScopeColumns,
    sink: &mut Sink<'_, 'a>,
) -> Result<(), WireError> {
    let first_row = *sink.row;
    let frame = children(bytes, |item, bytes| {
        let place = || {
            let [a, b, c] = I::PATH;
            format!("{a}[{resource}].{b}[{scope}].{c}[{item}]")
        };
        let done = bytes.map_err(ItemError::from).and_then(|bytes| items.item(bytes, sink, &place));
        if let Err(error) = done {
            sink.rejected.note(place, &error);
        }
    });
    let n = *sink.row - first_row;
    if n > 0 {
        let (mut name, mut version, mut dropped): (&[u8], &[u8], u64) = (&[], &[], 0);
        sink.attributes.begin();
        let mut message = Message::new(frame.owner);
        while let Some((number, field)) = message.next_field()? {
            match number {
                1 => name = field.bytes(1)?,
                2 => version = field.bytes(2)?,
                3 => set_attribute(Scope::Instrumentation, field, 3, sink, first_row, n)?,
                4 => dropped = field.varint(4)?,
                _ => {}
            }
        }
        fill_count(&mut scopes.scope_dropped, dropped, first_row, n);
        fill(&mut scopes.scope_name, sink, name, first_row, n)?;
        fill(&mut scopes.scope_version, sink, version, first_row, n)?;
        fill(&mut scopes.scope_schema_url, sink, frame.schema_url, first_row, n)?;
    }
    frame.read
}

/// Sets the attribute in field `number` in `n` rows from `row`.
fn set_attribute<'a>(
    scope: Scope,
    field: WireField<'a>,
    number: u32,
    sink: &mut Sink<'_, 'a>,
    row: usize,
    n: usize,
) -> Result<(), WireError> {
    let attribute = KeyValue::parse(field.bytes(number)?, sink.buffers, sink.check_text)?;
    sink.attributes.set(sink.buffers, scope, attribute, row, n);
    Ok(())
}

/// Sets `text` in `n` rows from `row`; an empty one stays null.
fn fill<'a>(
    column: &mut TextColumn,
    sink: &Sink<'_, 'a>,
    text: &'a [u8],
    row: usize,
    n: usize,
) -> Result<(), WireError> {
    if sink.check_text && std::str::from_utf8(text).is_err() {
        return Err(WireError::Utf8);
    }
    if !text.is_empty() {
        column.pad(row);
        column.push_n(sink.buffers, Text::Body(text), n);
    }
    Ok(())
}

/// Sets `count` in `n` rows from `row`; 0 stays null.
fn fill_count(column: &mut NumberColumn<UInt32Type>, count: u64, row: usize, n: usize) {
    if count != 0 {
        column.pad(row);
        column.push_n(count as u32, n);
    }
}
