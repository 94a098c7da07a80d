//! Writing a segment from parts: chunks of memory at a flush, segments at a merge.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt64Array, new_null_array};
use arrow::datatypes::{Field, Schema, SchemaRef};
use lacuna_signal::schema::parse_attribute_column;
use lacuna_signal::{Batch, SignalKind};

use super::blocks::BlockWriter;
use super::cluster::{self, Placed};
use super::codec::Codec;
use super::index::{self, Directory};
use super::postings::{self, PostingsBuilder};
use super::table::{self, put_varint};
use super::{INDEX_EXTENSION, PAGE_ROWS, WINDOW_PAGES, file_path};
use crate::bounds::TimeBounds;
use crate::error::StoreError;
use crate::files::Files;
use crate::manifest::SegmentMeta;
use crate::part::{Part, Want};
use crate::rows::RowSet;
use crate::summary::Summary;

/// Rows that are put in order and written at once.
const SLICE_ROWS: usize = PAGE_ROWS as usize * WINDOW_PAGES;

/// Writes all rows of `parts` to the files of a new segment in `folder`, durably but for the
/// folder's entries. `meta` gives its number, level and place in the log. `None`: no rows.
pub fn write(
    files: &dyn Files,
    codec: &dyn Codec,
    folder: &Path,
    kind: SignalKind,
    parts: &[Arc<dyn Part>],
    mut meta: SegmentMeta,
) -> Result<Option<SegmentMeta>, StoreError> {
    let order = cluster::order(kind, parts)?;
    let Some(bounds) = TimeBounds::of(order.iter().map(|placed| placed.time)) else {
        return Ok(None);
    };
    let mut summary = Summary::default();
    for part in parts {
        summary.merge(part.summary()?.as_ref());
    }
    let schema = union_schema(kind, parts);
    let data_path = file_path(folder, meta.id, codec.extension());
    let data = files.create(&data_path).map_err(|e| StoreError::io(&data_path, "create", e))?;
    let out = BlockWriter::new(data);
    let mut writer = codec.write(kind, schema.clone(), &summary, meta.level > 0, out)?;
    let unindexed = postings::unindexed(&summary);
    let mut values = PostingsBuilder::new(unindexed.clone());
    for (number, slice) in order.chunks(SLICE_ROWS).enumerate() {
        let batch = gather(kind, parts, slice)?;
        writer.append(&conform(batch.record(), &schema)?)?;
        values.add(&batch, number * SLICE_ROWS);
    }
    let (data_bytes, crcs) = writer.finish()?;
    let pages: Vec<TimeBounds> = order
        .chunks(PAGE_ROWS as usize)
        .filter_map(|page| TimeBounds::of(page.iter().map(|placed| placed.time)))
        .collect();
    let traces = match kind {
        SignalKind::Points => table::build(0, std::iter::empty()),
        _ => trace_table(&order),
    };
    let values = values.build(pages.len());
    meta.rows = order.len() as u32;
    meta.bounds = bounds;
    meta.data_bytes = data_bytes;
    let index_path = file_path(folder, meta.id, INDEX_EXTENSION);
    let io = |error| StoreError::io(&index_path, "write", error);
    let tables = (&traces, &values);
    let directory =
        Directory::new(meta.clone(), unindexed, pages, crcs, &summary, tables).map_err(io)?;
    let file = files.create(&index_path).map_err(io)?;
    meta.index_bytes = index::write(file, &directory, &traces, &values).map_err(io)?;
    Ok(Some(meta))
}

/// The table of traces: each lies in one run of rows.
fn trace_table(order: &[Placed]) -> table::Built {
    let mut records: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut row = 0u64;
    for run in order.chunk_by(|a, b| a.group == b.group) {
        if let Some(hash) = run.first().and_then(|placed| placed.group) {
            let mut record = Vec::new();
            put_varint(&mut record, row);
            put_varint(&mut record, run.len() as u64);
            records.push((hash, record));
        }
        row += run.len() as u64;
    }
    records.sort_unstable();
    table::build(records.len(), records.iter().map(|(hash, record)| (*hash, record.as_slice())))
}

/// Reads the rows of `slice` from their parts, in the slice's order.
fn gather(
    kind: SignalKind,
    parts: &[Arc<dyn Part>],
    slice: &[Placed],
) -> Result<Batch, StoreError> {
    let mut by_source: Vec<(u32, u32, usize)> =
        slice.iter().enumerate().map(|(to, placed)| (placed.part, placed.row, to)).collect();
    by_source.sort_unstable();
    let mut indices = vec![0u64; slice.len()];
    let mut batches = Vec::new();
    for (from, (.., to)) in by_source.iter().enumerate() {
        if let Some(index) = indices.get_mut(*to) {
            *index = from as u64;
        }
    }
    for group in by_source.chunk_by(|a, b| a.0 == b.0) {
        let Some(part) = group.first().and_then(|(part, ..)| parts.get(*part as usize)) else {
            continue;
        };
        let mut rows = RowSet::default();
        group.iter().for_each(|(_, row, _)| rows.push(*row..*row + 1));
        batches.push(part.read(&rows, Want::All)?);
    }
    Ok(Batch::concat(kind, &batches)?.take(&UInt64Array::from(indices))?)
}

/// The columns of all `parts`: fixed ones first, then attributes by name.
fn union_schema(kind: SignalKind, parts: &[Arc<dyn Part>]) -> SchemaRef {
    let schemas: Vec<SchemaRef> = parts.iter().map(|part| part.schema()).collect();
    let mut fields: Vec<Field> = Vec::new();
    for fixed in kind.fixed_fields() {
        let have = schemas.iter().filter(|s| s.field_with_name(fixed.name()).is_ok()).count();
        if have > 0 {
            let nullable = fixed.is_nullable() || have < schemas.len();
            fields.push(fixed.as_ref().clone().with_nullable(nullable));
        }
    }
    let all = schemas.iter().flat_map(|schema| schema.fields().iter());
    let names: std::collections::BTreeSet<&str> = all.map(|field| field.name().as_str()).collect();
    let attributes = names.into_iter().filter_map(|name| {
        let (_, ty, _) = parse_attribute_column(name)?;
        Some(Field::new(name, ty.data_type(), true))
    });
    fields.extend(attributes);
    Arc::new(Schema::new(fields))
}

/// `record` with exactly the columns of `schema`, null where it lacks one.
fn conform(record: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, StoreError> {
    let columns: Vec<ArrayRef> = schema
        .fields()
        .iter()
        .map(|field| {
            let column = record.column_by_name(field.name()).cloned();
            column.unwrap_or_else(|| new_null_array(field.data_type(), record.num_rows()))
        })
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(record.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}
