//! The frame that all three kinds of request share: resources, their scopes, their items.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::buffer::Buffer;
use arrow::datatypes::{Field, Schema};
use bytes::Bytes;

use crate::batch::Batch;
use crate::column::{Buffers, Text, ViewColumn};
use crate::schema::{self, Scope, SignalKind};

use super::any::KeyValue;
use super::attributes::AttributeColumns;
use super::wire::{Message, WireError};
use super::{BuildError, Decoded, ItemError, Limits, Rejected};

/// What an item is written into.
pub struct Sink<'s, 'a> {
    /// The buffers of the batch's texts.
    pub buffers: &'s mut Buffers,
    /// The attribute columns.
    pub attributes: &'s mut AttributeColumns<'a>,
    /// The next row.
    pub row: &'s mut usize,
    /// Whether to check that texts are UTF-8.
    pub check_text: bool,
    /// What is refused.
    pub rejected: &'s mut Rejected,
}

/// The fixed columns of one kind of signal while a request is decoded.
pub trait Items<'a>: Sized {
    /// The kind of signal.
    const KIND: SignalKind;
    /// The names of the repeated fields from the request down to the items, for messages.
    const PATH: [&'static str; 3];

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
    fn finish(self, buffers: &Arc<[Buffer]>) -> Result<Vec<(&'static str, ArrayRef)>, BuildError>;
}

/// Resource and scope columns, filled a range of rows at a time.
#[derive(Default)]
struct ScopeColumns {
    scope_name: ViewColumn,
    scope_version: ViewColumn,
    resource_schema_url: ViewColumn,
    scope_schema_url: ViewColumn,
}

/// Decodes a whole request.
pub fn decode<'a, I: Items<'a>>(
    mut items: I,
    body: &'a Bytes,
    limits: &Limits,
    check_text: bool,
) -> Result<Decoded, BuildError> {
    let mut buffers = Buffers::new(body.clone());
    let mut attributes = AttributeColumns::new(*limits);
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
    rejected.attributes += attributes.dropped;
    rejected.truncated += attributes.truncated;
    let (attribute_columns, buffers) = attributes.finish(buffers, row)?;
    let mut fixed = items.finish(&buffers)?;
    fixed.extend([
        (schema::SCOPE_NAME, scopes.scope_name.finish_text(&buffers)?),
        (schema::SCOPE_VERSION, scopes.scope_version.finish_text(&buffers)?),
        (schema::RESOURCE_SCHEMA_URL, scopes.resource_schema_url.finish_text(&buffers)?),
        (schema::SCOPE_SCHEMA_URL, scopes.scope_schema_url.finish_text(&buffers)?),
    ]);
    Ok(Decoded { batch: assemble(I::KIND, fixed, attribute_columns, row)?, rejected })
}

fn assemble(
    kind: SignalKind,
    fixed: Vec<(&'static str, ArrayRef)>,
    attributes: Vec<(Field, ArrayRef)>,
    rows: usize,
) -> Result<Batch, BuildError> {
    let mut fields = Vec::with_capacity(fixed.len() + attributes.len());
    let mut columns = Vec::with_capacity(fields.capacity());
    for (name, column) in fixed {
        let Some((_, field)) = kind.fixed_fields().find(name) else {
            debug_assert!(false, "no fixed column {name}");
            continue;
        };
        if field.is_nullable() && column.null_count() == rows {
            continue;
        }
        fields.push(Arc::clone(field));
        columns.push(column);
    }
    for (field, column) in attributes {
        fields.push(Arc::new(field));
        columns.push(column);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let schema = Arc::new(Schema::new(fields));
    let record = RecordBatch::try_new_with_options(schema, columns, &options)?;
    Ok(Batch::new_unchecked(kind, record))
}

/// `ResourceSpans`, `ResourceLogs`, `ResourceMetrics`: their first three fields agree.
fn read_resource<'a, I: Items<'a>>(
    bytes: &'a [u8],
    resource_index: usize,
    items: &mut I,
    scopes: &mut ScopeColumns,
    sink: &mut Sink<'_, 'a>,
) -> Result<(), WireError> {
    let first_row = *sink.row;
    let (mut resource, mut schema_url): (&[u8], &[u8]) = (&[], &[]);
    let mut scope_index = 0;
    let mut message = Message::new(bytes);
    let read = loop {
        let field = match message.next_field() {
            Ok(None) => break Ok(()),
            Ok(Some(field)) => field,
            Err(error) => break Err(error),
        };
        match field {
            (1, field) => match field.bytes(1) {
                Ok(bytes) => resource = bytes,
                Err(error) => break Err(error),
            },
            (2, field) => {
                let done = field.bytes(2).and_then(|bytes| {
                    read_scope(bytes, [resource_index, scope_index], items, scopes, sink)
                });
                if let Err(error) = done {
                    let place = || {
                        format!("{}[{resource_index}].{}[{scope_index}]", I::PATH[0], I::PATH[1])
                    };
                    sink.rejected.note(place, &error.into());
                }
                scope_index += 1;
            }
            (3, field) => match field.bytes(3) {
                Ok(bytes) => schema_url = bytes,
                Err(error) => break Err(error),
            },
            _ => {}
        }
    };
    // The rows read so far get their resource even if the rest of the message is broken.
    let n = *sink.row - first_row;
    if n > 0 {
        sink.attributes.begin();
        let mut message = Message::new(resource);
        while let Some((number, field)) = message.next_field()? {
            if number == 1 {
                let attribute = KeyValue::parse(field.bytes(1)?, sink.buffers, sink.check_text)?;
                sink.attributes.set(sink.buffers, Scope::Resource, attribute, first_row, n);
            }
        }
        fill(&mut scopes.resource_schema_url, sink, schema_url, first_row, n)?;
    }
    read
}

/// `ScopeSpans`, `ScopeLogs`, `ScopeMetrics`: their first three fields agree.
fn read_scope<'a, I: Items<'a>>(
    bytes: &'a [u8],
    [resource_index, scope_index]: [usize; 2],
    items: &mut I,
    scopes: &mut ScopeColumns,
    sink: &mut Sink<'_, 'a>,
) -> Result<(), WireError> {
    let first_row = *sink.row;
    let (mut scope, mut schema_url): (&[u8], &[u8]) = (&[], &[]);
    let mut item_index = 0;
    let mut message = Message::new(bytes);
    let read = loop {
        let field = match message.next_field() {
            Ok(None) => break Ok(()),
            Ok(Some(field)) => field,
            Err(error) => break Err(error),
        };
        match field {
            (1, field) => match field.bytes(1) {
                Ok(bytes) => scope = bytes,
                Err(error) => break Err(error),
            },
            (2, field) => {
                let place = || {
                    let [a, b, c] = I::PATH;
                    format!("{a}[{resource_index}].{b}[{scope_index}].{c}[{item_index}]")
                };
                let done = match field.bytes(2) {
                    Ok(bytes) => items.item(bytes, sink, &place),
                    Err(error) => Err(error.into()),
                };
                if let Err(error) = done {
                    sink.rejected.note(place, &error);
                }
                item_index += 1;
            }
            (3, field) => match field.bytes(3) {
                Ok(bytes) => schema_url = bytes,
                Err(error) => break Err(error),
            },
            _ => {}
        }
    };
    let n = *sink.row - first_row;
    if n > 0 {
        let (mut name, mut version): (&[u8], &[u8]) = (&[], &[]);
        sink.attributes.begin();
        let mut message = Message::new(scope);
        while let Some((number, field)) = message.next_field()? {
            match number {
                1 => name = field.bytes(1)?,
                2 => version = field.bytes(2)?,
                3 => {
                    let attribute =
                        KeyValue::parse(field.bytes(3)?, sink.buffers, sink.check_text)?;
                    let scope = Scope::Instrumentation;
                    sink.attributes.set(sink.buffers, scope, attribute, first_row, n);
                }
                _ => {}
            }
        }
        fill(&mut scopes.scope_name, sink, name, first_row, n)?;
        fill(&mut scopes.scope_version, sink, version, first_row, n)?;
        fill(&mut scopes.scope_schema_url, sink, schema_url, first_row, n)?;
    }
    read
}

/// Sets `text` in `n` rows from `row`; an empty one stays null.
fn fill<'a>(
    column: &mut ViewColumn,
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
