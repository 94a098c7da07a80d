//! One line about a trace, for a list of search results.

use std::collections::{BTreeMap, HashSet};

use lacuna_signal::rows::SpanRows;
use lacuna_signal::{Batch, TraceId};
use serde::Serialize;

use super::unnamed::service_of;

const ERROR: u8 = 2;

/// A trace's summary as `/api/v3/trace-summaries` gives it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    trace_id: TraceId,
    root_service_name: String,
    root_operation_name: String,
    /// Nanoseconds since the epoch, in decimal.
    min_start_time_unix_nano: String,
    /// Nanoseconds since the epoch, in decimal.
    max_end_time_unix_nano: String,
    span_count: usize,
    error_span_count: usize,
    /// Spans whose parent is not in the trace.
    orphan_span_count: usize,
    services: Vec<ServiceSummary>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceSummary {
    name: String,
    span_count: usize,
    error_span_count: usize,
}

impl Summary {
    /// The summary of the spans of one trace; `None` if there are none.
    pub fn of(trace: &Batch) -> Option<Self> {
        let rows = SpanRows::new(trace);
        let all = 0..trace.num_rows();
        let trace_id = all.clone().find_map(|row| rows.trace_id(row))?;
        let ids: HashSet<_> = all.clone().filter_map(|row| rows.span_id(row)).collect();
        let mut services: BTreeMap<&str, ServiceSummary> = BTreeMap::new();
        let (mut errors, mut orphans) = (0, 0);
        for row in all.clone() {
            let service = services.entry(service_of(&rows, row)).or_default();
            service.span_count += 1;
            if rows.status_code(row) == ERROR {
                service.error_span_count += 1;
                errors += 1;
            }
            orphans += usize::from(rows.parent_span_id(row).is_some_and(|p| !ids.contains(&p)));
        }
        // The earliest root; in a trace whose root never came, the earliest span.
        let root = all
            .clone()
            .min_by_key(|row| (rows.parent_span_id(*row).is_some(), rows.start(*row)))?;
        let start = all.clone().map(|row| rows.start(row)).min().unwrap_or_default();
        let end = all.clone().map(|row| rows.end(row)).max().unwrap_or_default();
        Some(Self {
            trace_id,
            root_service_name: service_of(&rows, root).to_owned(),
            root_operation_name: rows.name(root).to_owned(),
            min_start_time_unix_nano: start.max(0).to_string(),
            max_end_time_unix_nano: end.max(start).max(0).to_string(),
            span_count: trace.num_rows(),
            error_span_count: errors,
            orphan_span_count: orphans,
            services: services
                .into_iter()
                .map(|(name, service)| ServiceSummary { name: name.to_owned(), ..service })
                .collect(),
        })
    }
}
