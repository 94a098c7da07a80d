//! Rows grouped by resource and by instrumentation scope.

use arrow::array::{Array, PrimitiveArray, StringViewArray};
use arrow::datatypes::UInt32Type;
use hashbrown::HashMap;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use crate::batch::Batch;
use crate::schema::{self, Scope};
use crate::value::{Attributes, Value};

use super::fields;

/// How the members of one scope are written: one a row, or one a group of rows.
pub trait ScopeItems {
    /// Writes the items of `rows` into a sequence.
    fn serialize_rows<S: SerializeSeq>(&self, rows: &[usize], seq: &mut S) -> Result<(), S::Error>;
}

/// The rows of one batch, by resource and scope.
pub struct Groups<'a> {
    origin: Origin<'a>,
    resources: Vec<Vec<Vec<usize>>>,
}

/// The columns that say where a row comes from.
struct Origin<'a> {
    resource: Attributes<'a>,
    resource_url: Option<&'a StringViewArray>,
    scope: Attributes<'a>,
    scope_name: Option<&'a StringViewArray>,
    scope_version: Option<&'a StringViewArray>,
    scope_url: Option<&'a StringViewArray>,
    resource_dropped: Option<&'a PrimitiveArray<UInt32Type>>,
    scope_dropped: Option<&'a PrimitiveArray<UInt32Type>>,
}

fn text(column: Option<&StringViewArray>, row: usize) -> Option<&str> {
    column.filter(|column| column.is_valid(row)).map(|column| column.value(row))
}

impl<'a> Groups<'a> {
    /// Groups the rows of `batch`; groups and rows keep the order in which they first occur.
    pub fn new(batch: &'a Batch) -> Self {
        let origin = Origin {
            resource: batch.attributes(Scope::Resource),
            resource_url: batch.text_column(schema::RESOURCE_SCHEMA_URL),
            scope: batch.attributes(Scope::Instrumentation),
            scope_name: batch.text_column(schema::SCOPE_NAME),
            scope_version: batch.text_column(schema::SCOPE_VERSION),
            scope_url: batch.text_column(schema::SCOPE_SCHEMA_URL),
            resource_dropped: batch.number_column(schema::RESOURCE_DROPPED_ATTRIBUTES),
            scope_dropped: batch.number_column(schema::SCOPE_DROPPED_ATTRIBUTES),
        };
        let mut resources: Vec<Vec<Vec<usize>>> = Vec::new();
        let mut by_resource = Index::default();
        let mut by_scope = Index::default();
        let mut key = Vec::new();
        for row in 0..batch.num_rows() {
            key.clear();
            origin.resource_key(row, &mut key);
            let resource = by_resource.find(&key);
            if resource == resources.len() {
                resources.push(Vec::new());
            }
            key.clear();
            key.extend_from_slice(&resource.to_le_bytes());
            origin.scope_key(row, &mut key);
            let scopes = &mut resources[resource];
            let next = scopes.len();
            let scope = *by_scope.entry(&key, next);
            if scope == next {
                scopes.push(Vec::new());
            }
            scopes[scope].push(row);
        }
        Self { origin, resources }
    }

    /// Writes one `ResourceSpans`, `ResourceLogs` or `ResourceMetrics` per resource into `seq`.
    pub fn serialize_into<S: SerializeSeq>(
        &self,
        seq: &mut S,
        scopes_name: &'static str,
        items_name: &'static str,
        items: &impl ScopeItems,
    ) -> Result<(), S::Error> {
        self.resources.iter().try_for_each(|scopes| {
            let origin = &self.origin;
            seq.serialize_element(&ResourceGroup { origin, scopes, scopes_name, items_name, items })
        })
    }
}

/// Numbers for keys, given out in the order in which they first occur.
#[derive(Default)]
struct Index {
    numbers: HashMap<Vec<u8>, usize, foldhash::fast::RandomState>,
}

impl Index {
    fn find(&mut self, key: &[u8]) -> usize {
        let next = self.numbers.len();
        *self.entry(key, next)
    }

    fn entry(&mut self, key: &[u8], next: usize) -> &usize {
        self.numbers.entry_ref(key).or_insert(next)
    }
}

impl Origin<'_> {
    fn resource_key(&self, row: usize, key: &mut Vec<u8>) {
        push_text(key, text(self.resource_url, row));
        key.extend_from_slice(&fields::count(self.resource_dropped, row).to_le_bytes());
        push_attributes(key, &self.resource, row);
    }

    fn scope_key(&self, row: usize, key: &mut Vec<u8>) {
        push_text(key, text(self.scope_name, row));
        push_text(key, text(self.scope_version, row));
        push_text(key, text(self.scope_url, row));
        key.extend_from_slice(&fields::count(self.scope_dropped, row).to_le_bytes());
        push_attributes(key, &self.scope, row);
    }
}

/// Adds a text to a grouping key.
pub fn push_text(key: &mut Vec<u8>, text: Option<&str>) {
    // Null and empty are the same in OTLP.
    push_bytes(key, 0, text.unwrap_or_default().as_bytes());
}

fn push_bytes(key: &mut Vec<u8>, ty: u8, bytes: &[u8]) {
    key.push(ty);
    key.extend_from_slice(&bytes.len().to_le_bytes());
    key.extend_from_slice(bytes);
}

/// Adds the attributes of `row` to a grouping key.
pub fn push_attributes(key: &mut Vec<u8>, attributes: &Attributes<'_>, row: usize) {
    for (name, value) in attributes.of_row(row) {
        push_bytes(key, 1, name.as_bytes());
        match value {
            Value::Str(text) => push_bytes(key, 2, text.as_bytes()),
            Value::Int(value) => push_bytes(key, 3, &value.to_le_bytes()),
            Value::Double(value) => push_bytes(key, 4, &value.to_bits().to_le_bytes()),
            Value::Bool(value) => push_bytes(key, 5, &[u8::from(value)]),
            Value::Bytes(bytes) => push_bytes(key, 6, bytes),
            Value::Base64(text) => push_bytes(key, 7, text.as_bytes()),
            Value::Any(text) => push_bytes(key, 8, text.as_bytes()),
        }
    }
}

struct ResourceGroup<'s, 'a, I> {
    origin: &'s Origin<'a>,
    scopes: &'s [Vec<usize>],
    scopes_name: &'static str,
    items_name: &'static str,
    items: &'s I,
}

impl<I: ScopeItems> Serialize for ResourceGroup<'_, '_, I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let first = self.scopes.iter().flatten().next().copied().unwrap_or_default();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("resource", &Resource(self.origin, first))?;
        map.serialize_entry(self.scopes_name, &Scopes(self))?;
        fields::text(&mut map, "schemaUrl", text(self.origin.resource_url, first))?;
        map.end()
    }
}

struct Resource<'s, 'a>(&'s Origin<'a>, usize);

impl Serialize for Resource<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        fields::row_attributes(&mut map, &self.0.resource, self.1)?;
        let dropped = fields::count(self.0.resource_dropped, self.1);
        fields::number(&mut map, "droppedAttributesCount", dropped)?;
        map.end()
    }
}

struct Scopes<'s, 'a, I>(&'s ResourceGroup<'s, 'a, I>);

impl<I: ScopeItems> Serialize for Scopes<'_, '_, I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.scopes.iter().map(|rows| ScopeGroup { group: self.0, rows }))
    }
}

struct ScopeGroup<'s, 'a, I> {
    group: &'s ResourceGroup<'s, 'a, I>,
    rows: &'s [usize],
}

impl<I: ScopeItems> Serialize for ScopeGroup<'_, '_, I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let origin = self.group.origin;
        let first = self.rows.first().copied().unwrap_or_default();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("scope", &InstrumentationScope(origin, first))?;
        map.serialize_entry(self.group.items_name, &Items(self.group.items, self.rows))?;
        fields::text(&mut map, "schemaUrl", text(origin.scope_url, first))?;
        map.end()
    }
}

struct InstrumentationScope<'s, 'a>(&'s Origin<'a>, usize);

impl Serialize for InstrumentationScope<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(origin, row) = *self;
        let mut map = serializer.serialize_map(None)?;
        fields::text(&mut map, "name", text(origin.scope_name, row))?;
        fields::text(&mut map, "version", text(origin.scope_version, row))?;
        fields::row_attributes(&mut map, &origin.scope, row)?;
        let dropped = fields::count(origin.scope_dropped, row);
        fields::number(&mut map, "droppedAttributesCount", dropped)?;
        map.end()
    }
}

struct Items<'s, I>(&'s I, &'s [usize]);

impl<I: ScopeItems> Serialize for Items<'_, I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(None)?;
        self.0.serialize_rows(self.1, &mut seq)?;
        seq.end()
    }
}
