//! Writing a segment from parts: chunks of memory at a flush, segments at a merge.

use std::path::Path;
use std::sync::Arc;

use lacuna_signal::SignalKind;

use super::blocks::BlockWriter;
use super::cluster::{self, Placed};
use super::codec::Codec;
use super::gather::{Group, Tried};
use super::index::{self, CallBytes, Directory};
use super::layout::Layout;
use super::postings::PostingsBuilder;
use super::table::{self, Shape};
use super::{GROUP_ROWS, INDEX_EXTENSION, PAGE_ROWS, file_path};
use crate::bounds::TimeBounds;
use crate::calls::Calls;
use crate::error::StoreError;
use crate::files::Files;
use crate::manifest::SegmentMeta;
use crate::part::Part;
use crate::summary::{Summary, SummaryBuilder};

/// Writes all rows of `parts` to the files of a new segment in `folder`, durably but for the
/// folder's entries. `meta` gives its number, level and place in the log; `calls` what the
/// spans add up to. `None`: no rows.
pub fn write(
    files: &dyn Files,
    codec: &dyn Codec,
    folder: &Path,
    kind: SignalKind,
    parts: &[Arc<dyn Part>],
    calls: Option<&Calls>,
    mut meta: SegmentMeta,
) -> Result<Option<SegmentMeta>, StoreError> {
    let order = cluster::order(kind, parts)?;
    let Some(bounds) = TimeBounds::of(order.iter().map(|placed| placed.time)) else {
        return Ok(None);
    };
    let layout = Layout::of(kind, parts)?;
    let schema = layout.schema.clone();
    let data_path = file_path(folder, meta.id, codec.extension());
    let data = files.create(&data_path).map_err(|e| StoreError::io(&data_path, "create", e))?;
    let out = BlockWriter::new(data);
    let mut writer = codec.write(schema.clone(), out)?;
    let mut values = PostingsBuilder::default();
    let mut about = SummaryBuilder::new(kind);
    let mut tried = Tried::default();
    for (number, slice) in order.chunks(GROUP_ROWS).enumerate() {
        let group = Group::new(parts, slice)?;
        let mut columns = schema.fields().iter().map(|field| {
            let cells = layout.cells(&group, field, &mut tried)?;
            values.add(field.name(), &cells, number * GROUP_ROWS);
            about.add(field.name(), &cells);
            Ok(cells)
        });
        writer.append(&mut columns)?;
        about.end_group(slice.iter().map(|placed| placed.time));
    }
    let mut summary = about.finish();
    if kind == SignalKind::Points {
        // What metrics there are is known to the parts.
        let mut parts = parts.iter().map(|part| part.summary());
        let metrics = parts.try_fold(Summary::default(), |mut all, part| {
            all.merge(part?.as_ref());
            Ok::<_, StoreError>(all)
        });
        summary.metrics = metrics?.metrics;
    }
    let (data_bytes, crcs) = writer.finish()?;
    let pages: Vec<TimeBounds> = order
        .chunks(PAGE_ROWS as usize)
        .filter_map(|page| TimeBounds::of(page.iter().map(|placed| placed.time)))
        .collect();
    let traces = match kind {
        SignalKind::Points => table::Builder::new(0, Shape::of_rows(0)).finish(),
        _ => trace_table(&order),
    };
    let (values, unindexed) = values.build(pages.len());
    meta.rows = order.len() as u32;
    meta.bounds = bounds;
    meta.data_bytes = data_bytes;
    let index_path = file_path(folder, meta.id, INDEX_EXTENSION);
    let io = |error| StoreError::io(&index_path, "write", error);
    let calls = calls.map(|calls| CallBytes::new(calls, meta.rows)).transpose();
    let calls = calls.map_err(io)?.unwrap_or_default();
    let tables = (&traces, &values);
    let directory = Directory::new(meta.clone(), unindexed, pages, crcs, &summary, tables, &calls)
        .map_err(io)?;
    let file = files.create(&index_path).map_err(io)?;
    meta.index_bytes = index::write(file, &directory, &traces, &values, &calls).map_err(io)?;
    Ok(Some(meta))
}

/// The table of traces: each lies in one run of rows.
fn trace_table(order: &[Placed]) -> table::Built {
    let mut traces: Vec<(u64, u32, u32)> = Vec::new();
    let mut row = 0u32;
    for run in order.chunk_by(|a, b| a.group == b.group) {
        let rows = run.len() as u32;
        traces.extend(run.first().and_then(|placed| placed.group).map(|hash| (hash, row, rows)));
        row += rows;
    }
    traces.sort_unstable();
    let mut table = table::Builder::new(traces.len(), Shape::of_rows(row));
    for (hash, row, rows) in traces {
        let run = row..row + rows;
        table.push(hash, std::slice::from_ref(&run));
    }
    table.finish()
}
