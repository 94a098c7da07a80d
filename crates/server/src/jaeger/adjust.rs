//! A trace made ready to be shown, as Jaeger does unless it is asked for raw traces.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeBinaryBuilder, RecordBatch, UInt64Array};
use arrow::datatypes::{Field, FieldRef, Schema};
use arrow::row::{RowConverter, SortField};

use lacuna_signal::batch::BatchError;
use lacuna_signal::rows::SpanRows;
use lacuna_signal::schema::{PARENT_SPAN_ID, SPAN_ID};
use lacuna_signal::{Batch, SpanId, TraceId};

use super::source::SourceError;

const CLIENT: u8 = 3;
const SERVER: u8 = 2;

fn failed(error: impl Into<BatchError>) -> SourceError {
    SourceError::failed(error.into())
}

/// Splits a batch into one batch per trace, in the order in which traces first occur; rows without
/// a trace id, which no query returns, are left out.
pub fn by_trace(batch: &Batch) -> Result<Vec<Batch>, SourceError> {
    let rows = SpanRows::new(batch);
    let mut index: HashMap<TraceId, usize> = HashMap::new();
    let mut traces: Vec<Vec<u64>> = Vec::new();
    for row in 0..batch.num_rows() {
        let Some(id) = rows.trace_id(row) else { continue };
        let trace = *index.entry(id).or_insert_with(|| {
            traces.push(Vec::new());
            traces.len() - 1
        });
        traces[trace].push(row as u64);
    }
    if traces.len() == 1 && traces[0].len() == batch.num_rows() {
        return Ok(vec![batch.clone()]);
    }
    traces.into_iter().map(|rows| batch.take(&UInt64Array::from(rows)).map_err(failed)).collect()
}

/// The spans of one trace by start time, each once, each with an id of its own.
///
/// An exporter that repeats a request leaves equal spans behind: one of them stays. Zipkin's
/// clients and servers share one span id for the two sides of a call: the server's span gets a new
/// id and the client's span for a parent.
pub fn adjust(trace: &Batch) -> Result<Batch, SourceError> {
    let rows = SpanRows::new(trace);
    let mut order: Vec<u64> = (0..trace.num_rows() as u64).collect();
    order.sort_by_key(|row| rows.start(*row as usize));
    let duplicates = duplicates(trace, &order)?;
    if !duplicates.is_empty() {
        order.retain(|row| !duplicates.contains(row));
    }
    // A store gives them so already, unless there are some to leave out.
    let as_they_are = order.len() == trace.num_rows() && order.is_sorted();
    let sorted = match as_they_are {
        true => trace.clone(),
        false => trace.take(&UInt64Array::from(order)).map_err(failed)?,
    };
    separate_shared_ids(sorted)
}

/// Rows that are equal to an earlier one in `order`, in every column.
fn duplicates(trace: &Batch, order: &[u64]) -> Result<HashSet<u64>, SourceError> {
    let rows = SpanRows::new(trace);
    let mut by_id: HashMap<SpanId, Vec<u64>> = HashMap::with_capacity(order.len());
    for row in order {
        if let Some(id) = rows.span_id(*row as usize) {
            by_id.entry(id).or_default().push(*row);
        }
    }
    let candidates: Vec<u64> =
        by_id.into_values().filter(|rows| rows.len() > 1).flatten().collect();
    if candidates.is_empty() {
        return Ok(HashSet::new());
    }
    let taken = trace.take(&UInt64Array::from(candidates.clone())).map_err(failed)?;
    let columns = taken.record().columns();
    let fields = columns.iter().map(|c| SortField::new(c.data_type().clone())).collect();
    let converted =
        RowConverter::new(fields).and_then(|c| c.convert_columns(columns)).map_err(failed)?;
    let mut seen = HashSet::with_capacity(candidates.len());
    let repeated = |(i, row): (usize, u64)| (!seen.insert(converted.row(i))).then_some(row);
    Ok(candidates.into_iter().enumerate().filter_map(repeated).collect())
}

fn separate_shared_ids(trace: Batch) -> Result<Batch, SourceError> {
    let rows = SpanRows::new(&trace);
    let all = 0..trace.num_rows();
    let of_kind = |kind: u8| {
        let ids = all.clone().filter(|row| rows.kind(*row) == kind);
        ids.filter_map(|row| rows.span_id(row)).collect::<HashSet<_>>()
    };
    let clients = of_kind(CLIENT);
    let shared: HashSet<SpanId> = of_kind(SERVER).intersection(&clients).copied().collect();
    if shared.is_empty() {
        return Ok(trace);
    }
    let mut used: HashSet<SpanId> = all.clone().filter_map(|row| rows.span_id(row)).collect();
    let mut next = 0u64;
    let mut fresh = || loop {
        next = next.wrapping_add(1);
        if let Some(id) = SpanId::from_bytes(&next.to_be_bytes())
            && used.insert(id)
        {
            return id;
        }
    };
    let mut renamed: HashMap<SpanId, SpanId> = HashMap::new();
    let mut ids = FixedSizeBinaryBuilder::new(8);
    let mut own = Vec::with_capacity(trace.num_rows());
    for row in all.clone() {
        let id = rows.span_id(row);
        own.push(match id {
            Some(id) if rows.kind(row) == SERVER && shared.contains(&id) => {
                let new = fresh();
                renamed.insert(id, new);
                Some((new, Some(id)))
            }
            _ => id.map(|id| (id, None)),
        });
    }
    let mut parents = FixedSizeBinaryBuilder::new(8);
    for (row, own) in own.into_iter().enumerate() {
        let (id, client) = own.map_or((None, None), |(id, client)| (Some(id), client));
        let parent = client.or_else(|| {
            let parent = rows.parent_span_id(row)?;
            // What was a child of the shared id is the server's child; the client's span is not.
            let server = renamed.get(&parent).copied();
            Some(server.filter(|server| Some(*server) != id).unwrap_or(parent))
        });
        push(&mut ids, id)?;
        push(&mut parents, parent)?;
    }
    replace_ids(&trace, Arc::new(ids.finish()), Arc::new(parents.finish()))
}

fn replace_ids(trace: &Batch, ids: ArrayRef, parents: ArrayRef) -> Result<Batch, SourceError> {
    let record = trace.record();
    let mut columns: Vec<(FieldRef, ArrayRef)> =
        record.schema().fields().iter().cloned().zip(record.columns().iter().cloned()).collect();
    columns.retain(|(field, _)| field.name() != SPAN_ID && field.name() != PARENT_SPAN_ID);
    for (name, column) in [(SPAN_ID, ids), (PARENT_SPAN_ID, parents)] {
        let field = Field::new(name, column.data_type().clone(), true);
        columns.push((Arc::new(field), column));
    }
    let (fields, columns): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    let schema = Arc::new(Schema::new(fields));
    let record = RecordBatch::try_new(schema, columns).map_err(failed)?;
    Batch::try_new(trace.kind(), record).map_err(failed)
}

fn push(column: &mut FixedSizeBinaryBuilder, id: Option<SpanId>) -> Result<(), SourceError> {
    match id {
        Some(id) => column.append_value(id.0).map_err(failed),
        None => {
            column.append_null();
            Ok(())
        }
    }
}
