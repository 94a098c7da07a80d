//! Rows of spans and logs as events of a story.

use jiff::Timestamp;
use lacuna_signal::rows::{LogRows, SpanRows};
use lacuna_signal::schema::Scope;
use lacuna_signal::selector::{SeverityLevel, SpanKind, StatusCode};
use lacuna_signal::semconv::is_event_name;
use lacuna_signal::{Batch, SignalKind, SpanId, TraceId};

use super::{Event, What};

/// A row of a batch, wherever it comes from.
pub(super) struct Row {
    /// Its place in the batch.
    pub(super) at: usize,
    pub(super) event: Event,
    /// The span above: a span's parent, the span that a record belongs to.
    pub(super) above: Option<SpanId>,
    pub(super) links: Vec<TraceId>,
}

/// The rows of `batch` for which `wanted` holds.
pub(super) fn rows(batch: &Batch, wanted: impl Fn(usize) -> bool) -> Vec<Row> {
    let all = (0..batch.num_rows()).filter(|row| wanted(*row));
    match batch.kind() {
        SignalKind::Spans => {
            let columns = SpanRows::new(batch);
            let attributes = batch.attributes(Scope::Span);
            all.filter_map(|row| {
                let mut found = span(&columns, row)?;
                found.event.attributes =
                    attributes.of_row(row).map(|(k, v)| (k.to_owned(), v.to_text())).collect();
                Some(found)
            })
            .collect()
        }
        SignalKind::Logs => {
            let columns = LogRows::new(batch);
            let attributes = batch.attributes(Scope::Log);
            all.filter_map(|row| {
                let mut found = log(&columns, row)?;
                found.event.attributes =
                    attributes.of_row(row).map(|(k, v)| (k.to_owned(), v.to_text())).collect();
                Some(found)
            })
            .collect()
        }
        SignalKind::Points => Vec::new(),
    }
}

fn span(columns: &SpanRows<'_>, row: usize) -> Option<Row> {
    let kind = SpanKind::from_code(columns.kind(row)).unwrap_or(SpanKind::Unspecified);
    let status = StatusCode::from_code(columns.status_code(row)).unwrap_or(StatusCode::Unset);
    let mut links: Vec<TraceId> = columns.links(row).map(|link| link.trace_id).collect();
    links.sort();
    links.dedup();
    let above = columns.parent_span_id(row);
    let what = What::Span {
        name: columns.name(row).to_owned(),
        kind: kind.name().to_owned(),
        status: status.name().to_owned(),
        message: columns.status_message(row).filter(|text| !text.is_empty()).map(str::to_owned),
        duration: columns.duration(row),
        parent_span_id: above,
        links: links.clone(),
    };
    let event = Event {
        at: Timestamp::from_nanosecond(i128::from(columns.start(row))).ok()?,
        after: 0,
        carries_key: false,
        trace_id: columns.trace_id(row),
        span_id: columns.span_id(row),
        service: columns.service(row).map(str::to_owned),
        what,
        attributes: std::collections::BTreeMap::new(),
    };
    Some(Row { at: row, event, above, links })
}

fn log(columns: &LogRows<'_>, row: usize) -> Option<Row> {
    let number = columns.severity(row);
    let level = SeverityLevel::ALL.iter().rev().find(|level| level.code() <= number);
    let level = match (level, columns.severity_text(row)) {
        (Some(level), _) if number > 0 => level.name().to_owned(),
        (_, Some(text)) if !text.is_empty() => text.to_lowercase(),
        _ => "log".to_owned(),
    };
    let above = columns.span_id(row);
    let what = What::Log {
        level,
        body: columns.body(row).unwrap_or_default().to_owned(),
        event: columns.event_name(row).filter(|name| is_event_name(name)).map(str::to_owned),
    };
    let event = Event {
        at: Timestamp::from_nanosecond(i128::from(columns.time(row))).ok()?,
        after: 0,
        carries_key: false,
        trace_id: columns.trace_id(row),
        span_id: above,
        service: columns.service(row).map(str::to_owned),
        what,
        attributes: std::collections::BTreeMap::new(),
    };
    Some(Row { at: row, event, above, links: Vec::new() })
}
