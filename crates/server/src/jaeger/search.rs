//! What a trace search asks for, and the selector that says so.

use std::collections::BTreeMap;

use lacuna_signal::selector::{Expr, Intrinsic, Literal, Op, Selector, SpanKind, StatusCode};
use lacuna_signal::{SignalKind, TraceId};
use lacuna_store::TimeRange;

use super::error::ApiError;
use super::filter;
use super::go;
use super::page::Page;
use super::query::{Query, malformed, unable, units};
use super::source::{SourceError, TraceSource};
use super::unnamed::service_expr;
use crate::logfmt::regex_escape;

/// Traces in an answer unless the request says how many.
const DEFAULT_LIMIT: usize = 100;
/// No answer has more traces, whatever the request says.
pub const MAX_LIMIT: usize = 10_000;
/// How far back a v1 search without `start` looks: Jaeger's two days.
const DEFAULT_LOOKBACK: i64 = 2 * 24 * 3_600 * 1_000_000_000;

const MICROS: i64 = 1_000;

/// A trace search. All conditions must hold on one span of a trace.
#[derive(Debug, Clone)]
pub struct Search {
    /// Service of the span.
    pub service: Option<String>,
    /// Name of the span.
    pub operation: Option<String>,
    /// Tags that the span must have, by key.
    pub tags: BTreeMap<String, String>,
    /// When the span starts.
    pub range: TimeRange,
    /// Least duration in nanoseconds; 0 for any.
    pub min_duration: i64,
    /// Largest duration in nanoseconds; 0 for any.
    pub max_duration: i64,
    /// Most traces.
    pub limit: usize,
    /// Traces as they are stored, without duplicates taken out.
    pub raw: bool,
    /// What v3's `query.filter` asks besides.
    pub filter: Option<Expr>,
    /// Which page of what is found is wanted, if not all.
    pub page: Option<Page>,
}

/// A v1 search request: by conditions, or by ids if there are any.
#[derive(Debug, Clone)]
pub struct V1Search {
    /// The conditions.
    pub search: Search,
    /// The `traceID` parameters; `None` for an id that no trace can have.
    pub trace_ids: Vec<Option<TraceId>>,
}

impl V1Search {
    /// Reads a v1 query. `now` is in nanoseconds since the epoch.
    pub fn parse(query: &Query, now: i64) -> Result<Self, ApiError> {
        let start = query.v1("start", units(MICROS))?;
        let end = query.v1("end", units(MICROS))?;
        let tags = v1_tags(query)?;
        let limit = match query.get("limit") {
            Some(text) => go::parse_int(text).map_err(ApiError::Bad)?,
            None => DEFAULT_LIMIT as i64,
        };
        let min_duration = query.v1("minDuration", go::parse_duration)?.unwrap_or(0);
        let max_duration = query.v1("maxDuration", go::parse_duration)?.unwrap_or(0);
        let trace_ids = query
            .all("traceID")
            .map(go::parse_trace_id)
            .collect::<Result<Vec<_>, go::Reason>>()
            .map_err(|why| ApiError::Bad(format!("cannot parse traceID param: {why}")))?;
        let raw = query.v1("raw", go::parse_bool)?.unwrap_or(false);

        let Some(limit) = usize::try_from(limit).ok().filter(|limit| *limit > 0) else {
            return Err(ApiError::bad("invalid parameter: limit must be greater than 0"));
        };
        let start = start.unwrap_or_else(|| now.saturating_sub(DEFAULT_LOOKBACK));
        let end = end.unwrap_or(now);
        if start > end {
            return Err(ApiError::bad("invalid parameter: start time must be before end time"));
        }
        check_durations("minDuration", min_duration, "maxDuration", max_duration)?;
        let search = Search {
            service: query.get("service").map(str::to_owned),
            operation: query.get("operation").map(str::to_owned),
            tags,
            // Both ends are inclusive, and the end means its whole microsecond.
            range: TimeRange { start, end: end.saturating_add(MICROS) },
            min_duration,
            max_duration,
            limit: limit.min(MAX_LIMIT),
            raw,
            filter: None,
            page: None,
        };
        Ok(Self { search, trace_ids })
    }
}

fn v1_tags(query: &Query) -> Result<BTreeMap<String, String>, ApiError> {
    let mut tags = BTreeMap::new();
    for tag in query.all("tag") {
        let Some((key, value)) = tag.split_once(':') else {
            return Err(ApiError::Bad(format!(
                "malformed 'tag' parameter, expecting key:value, received: {tag}"
            )));
        };
        tags.insert(key.to_owned(), value.to_owned());
    }
    for json in query.all("tags").filter(|json| !json.is_empty()) {
        let more: BTreeMap<String, String> = serde_json::from_str(json).map_err(|error| {
            ApiError::Bad(format!("malformed 'tags' parameter, cannot unmarshal JSON: {error}"))
        })?;
        tags.extend(more);
    }
    Ok(tags)
}

fn check_durations(min_name: &str, min: i64, max_name: &str, max: i64) -> Result<(), ApiError> {
    if min != 0 && max != 0 && max < min {
        return Err(ApiError::Bad(format!("'{max_name}' should be greater than '{min_name}'")));
    }
    Ok(())
}

impl Search {
    /// Reads a v3 query: parameters in camel case, or in Jaeger's older snake case.
    pub fn parse_v3(query: &Query) -> Result<Self, ApiError> {
        let tags: BTreeMap<String, String> = query
            .v3(&["query.attributes"], |json| {
                serde_json::from_str(json).map_err(|error| error.to_string())
            })?
            .unwrap_or_default();
        let min_names = ["query.startTimeMin", "query.start_time_min"];
        let max_names = ["query.startTimeMax", "query.start_time_max"];
        let range = time_range(query, &min_names, &max_names)?;
        let depth_names =
            ["query.searchDepth", "query.search_depth", "query.num_traces", "query.numTraces"];
        let limit = query
            .v3(&depth_names, |text| {
                let depth = go::parse_int(text)?;
                u32::try_from(depth).map_err(|_| format!("parsing {text:?}: value out of range"))
            })?
            .filter(|depth| *depth > 0)
            .map_or(DEFAULT_LIMIT, |depth| depth as usize);
        let page = Page::parse(query, DEFAULT_LIMIT)?;
        if let (Some(_), Some((name, _))) = (page, query.first(&depth_names)) {
            let why = "it and query.pagination.pageSize are two ways to say how many";
            return Err(malformed(name, why));
        }
        let filter = query.get(filter::PARAMETER).map(filter::parse).transpose()?;
        let min_names = ["query.durationMin", "query.duration_min"];
        let max_names = ["query.durationMax", "query.duration_max"];
        let min_duration = query.v3(&min_names, go::parse_duration)?.unwrap_or(0);
        let max_duration = query.v3(&max_names, go::parse_duration)?.unwrap_or(0);
        check_durations(min_names[0], min_duration, max_names[0], max_duration)?;
        let raw_names = ["query.rawTraces", "query.raw_traces"];
        let raw = query.v3(&raw_names, go::parse_bool)?.unwrap_or(false);
        let text = |names: &[&str]| query.first(names).map(|(_, text)| text.to_owned());
        Ok(Self {
            service: text(&["query.serviceName", "query.service_name"]),
            // Some versions of Jaeger's UI call the operation the span's name.
            operation: text(&[
                "query.operationName",
                "query.operation_name",
                "query.spanName",
                "query.span_name",
            ]),
            tags,
            range,
            min_duration,
            max_duration,
            limit: page.map_or(limit.min(MAX_LIMIT), |page| page.find()),
            raw,
            filter,
            page,
        })
    }

    /// The selector of spans that this search asks for.
    ///
    /// A service or operation that `source` does not know, for which Jaeger would find nothing, is
    /// read more kindly: a comma in a service separates several, a `*` in an operation stands for
    /// any text.
    pub fn selector(&self, source: &dyn TraceSource) -> Result<Selector, ApiError> {
        let mut parts = Vec::new();
        let mut services = Vec::new();
        if let Some(service) = &self.service {
            services = self.services(service, source)?;
            parts.push(Expr::any(services.iter().map(|name| service_expr(name))));
        }
        if let Some(operation) = &self.operation {
            parts.push(operation_expr(operation, &services, source)?);
        }
        parts.extend(self.tags.iter().map(|(key, value)| tag_expr(key, value)));
        let duration = |op, nanos| Expr::compare(Intrinsic::Duration, op, Literal::Duration(nanos));
        if self.min_duration != 0 {
            parts.push(duration(Op::Ge, self.min_duration));
        }
        if self.max_duration != 0 {
            parts.push(duration(Op::Le, self.max_duration));
        }
        parts.extend(self.filter.clone());
        spans(Expr::all(parts))
    }

    fn services(&self, name: &str, source: &dyn TraceSource) -> Result<Vec<String>, SourceError> {
        if !name.contains(',') || source.services()?.items.iter().any(|known| known == name) {
            return Ok(vec![name.to_owned()]);
        }
        let parts = name.split(',').map(str::trim).filter(|part| !part.is_empty());
        Ok(parts.map(str::to_owned).collect())
    }
}

/// A selector of spans.
pub fn spans(expr: Expr) -> Result<Selector, ApiError> {
    Selector::new(SignalKind::Spans, expr).map_err(|error| ApiError::Bad(error.to_string()))
}

/// A required time range of a v3 request.
pub fn time_range(
    query: &Query,
    start_names: &[&str],
    end_names: &[&str],
) -> Result<TimeRange, ApiError> {
    let start = query.v3(start_names, go::parse_rfc3339)?;
    let end = query.v3(end_names, go::parse_rfc3339)?;
    let name = |names: &[&str]| names.first().copied().unwrap_or_default().to_owned();
    let (start_name, end_name) = (name(start_names), name(end_names));
    match (start, end) {
        (Some(start), Some(end)) if start < end => Ok(TimeRange { start, end }),
        (Some(_), Some(_)) => Err(ApiError::Bad(format!("{start_name} must be before {end_name}"))),
        _ => Err(ApiError::Bad(format!("{start_name} and {end_name} are required"))),
    }
}

fn operation_expr(
    operation: &str,
    services: &[String],
    source: &dyn TraceSource,
) -> Result<Expr, ApiError> {
    let literal = Expr::text(Intrinsic::Name, operation);
    if !operation.contains('*') {
        return Ok(literal);
    }
    let all;
    let services = if services.is_empty() {
        all = source.services()?.items;
        &all
    } else {
        services
    };
    for service in services {
        if source.operations(service)?.items.iter().any(|known| known.name == operation) {
            return Ok(literal);
        }
    }
    let pattern: Vec<String> = operation.split('*').map(regex_escape).collect();
    let pattern = format!("(?s){}", pattern.join(".*"));
    Ok(Expr::compare(Intrinsic::Name, Op::Match, Literal::Str(pattern)))
}

/// The span has tag `key` with text `value`, as Jaeger shows tags: an attribute of the span, its
/// resource, its scope or an event, or one of the tags into which Jaeger turns OTLP's fields.
fn tag_expr(key: &str, value: &str) -> Expr {
    let attribute = Expr::tag(key, value);
    let field = |field: Intrinsic| Expr::text(field, value);
    let derived = match key {
        "error" => {
            let failed =
                Expr::compare(Intrinsic::Status, Op::Eq, Literal::Status(StatusCode::Error));
            match value {
                "true" => Some(failed),
                // Jaeger has no `error` tag on a span that did not fail; asking for `false` can
                // only mean those.
                "false" => Some(Expr::Not(Box::new(failed))),
                _ => None,
            }
        }
        "span.kind" => SpanKind::from_name(value)
            .map(|kind| Expr::compare(Intrinsic::Kind, Op::Eq, Literal::Kind(kind))),
        "otel.status_code" => StatusCode::from_name(&value.to_ascii_lowercase())
            .map(|status| Expr::compare(Intrinsic::Status, Op::Eq, Literal::Status(status))),
        "otel.status_description" => Some(field(Intrinsic::StatusMessage)),
        "otel.scope.name" | "otel.library.name" => Some(field(Intrinsic::ScopeName)),
        "otel.scope.version" | "otel.library.version" => Some(field(Intrinsic::ScopeVersion)),
        "event" => Some(field(Intrinsic::SpanEventName)),
        _ => None,
    };
    match derived {
        Some(derived) => Expr::any([derived, attribute]),
        None => attribute,
    }
}

/// The span is of one of `services` and of one of `kinds`.
pub fn service_kind_expr(services: &[String], kinds: &[SpanKind]) -> Expr {
    let of_kind = |kind: &SpanKind| Expr::compare(Intrinsic::Kind, Op::Eq, Literal::Kind(*kind));
    Expr::all([
        Expr::any(services.iter().map(|name| service_expr(name))),
        Expr::any(kinds.iter().map(of_kind)),
    ])
}

/// The span is of `service` and, if given, of name `operation`.
pub fn focal_expr(service: &str, operation: Option<&str>) -> Expr {
    let service = service_expr(service);
    Expr::all(
        [Some(service), operation.map(|name| Expr::text(Intrinsic::Name, name))]
            .into_iter()
            .flatten(),
    )
}

/// Reads `spanKind` parameters by Jaeger's names; `server` if there are none.
pub fn span_kinds(query: &Query) -> Result<Vec<SpanKind>, ApiError> {
    let kinds = query
        .all("spanKind")
        .map(|name| {
            SpanKind::from_name(name)
                .ok_or_else(|| unable("spanKind", &format!("unsupported span kind: '{name}'")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(if kinds.is_empty() { vec![SpanKind::Server] } else { kinds })
}
