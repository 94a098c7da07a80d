//! How well a service is traced: the figures of the page "Trace Quality" of Jaeger's UI.
//!
//! The shape is `TQualityMetrics` of the UI (`components/QualityMetrics/types.ts`). What is counted is
//! listed in `docs/api-jaeger.md`.

mod judge;

use std::collections::BTreeMap;

use lacuna_signal::{SpanId, TraceId};
use lacuna_store::TimeRange;
use serde::Serialize;

use super::error::ApiError;
use super::found::load;
use super::go;
use super::query::Query;
use super::search::{focal_expr, spans};
use super::source::{Matches, TraceSource};
use crate::lacking::note;
use judge::Judge;

const HOUR: i64 = 3_600 * 1_000_000_000;
/// A year.
const MAX_HOURS: i64 = 24 * 365;
/// Newest traces that are looked at.
const TRACES: usize = 500;
/// Traces named for each count.
const EXAMPLES: usize = 5;
/// Spans named of each of them.
const EXAMPLE_SPANS: usize = 5;
const DOCUMENTATION: &str = "https://opentelemetry.io/docs/specs/otel/trace/api/";

/// A request for the quality of a service's traces.
#[derive(Debug)]
pub struct QualityRequest {
    service: String,
    hours: i64,
    range: TimeRange,
}

impl QualityRequest {
    /// Reads `service` and `hours`, which end `now`.
    pub fn parse(query: &Query, now: i64) -> Result<Self, ApiError> {
        let Some(service) = query.get("service") else {
            return Err(ApiError::bad("parameter 'service' is required"));
        };
        let hours = query.v1("hours", go::parse_int)?.unwrap_or(1);
        if !(1..=MAX_HOURS).contains(&hours) {
            return Err(ApiError::Bad(format!("'hours' must be from 1 to {MAX_HOURS}")));
        }
        let start = now.saturating_sub(hours.saturating_mul(HOUR));
        let range = TimeRange { start, end: now.saturating_add(1) };
        Ok(Self { service: service.to_owned(), hours, range })
    }
}

/// The answer; it comes without v1's envelope.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Quality {
    trace_quality_documentation_link: &'static str,
    banner_text: String,
    scores: Vec<Score>,
    metrics: Vec<Metric>,
}

#[derive(Debug, Serialize)]
struct Score {
    key: &'static str,
    label: &'static str,
    max: u32,
    value: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Metric {
    name: &'static str,
    category: &'static str,
    description: &'static str,
    metric_documentation_link: &'static str,
    metric_weight: f64,
    pass_count: u64,
    pass_examples: Vec<Example>,
    failure_count: u64,
    failure_examples: Vec<Example>,
    exemption_count: u64,
}

#[derive(Debug, Serialize)]
struct Example {
    #[serde(rename = "traceID")]
    trace_id: TraceId,
    #[serde(rename = "spanIDs")]
    span_ids: Vec<SpanId>,
}

/// The categories, as scores name them.
const CATEGORIES: [(&str, &str); 3] =
    [("propagation", "Propagation"), ("identity", "Identity"), ("truth", "Truth")];

/// What is asked of spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Check {
    Parents,
    Links,
    Consumers,
    Services,
    Kinds,
    Ids,
    Errors,
    Times,
}

impl Check {
    const ALL: [Self; 8] = [
        Self::Parents,
        Self::Links,
        Self::Consumers,
        Self::Services,
        Self::Kinds,
        Self::Ids,
        Self::Errors,
        Self::Times,
    ];

    /// Name, category, weight, and what it says.
    fn words(self) -> (&'static str, &'static str, f64, &'static str) {
        match self {
            Self::Parents => (
                "Parents are there",
                "propagation",
                1.0,
                "A span that names a parent is whole only with it: an orphan hides who called.",
            ),
            Self::Links => (
                "Links lead somewhere",
                "propagation",
                0.5,
                "A link joins a message's receiver to its sender, if the sender's span was kept.",
            ),
            Self::Consumers => (
                "Consumers know their producer",
                "propagation",
                1.0,
                "A consumer span has its producer as parent or link, or the way of a message ends.",
            ),
            Self::Services => (
                "Services have names",
                "identity",
                1.0,
                "A resource without service.name is nobody's.",
            ),
            Self::Kinds => (
                "Span kinds are set",
                "identity",
                0.5,
                "Without a kind it is not known who serves and who calls.",
            ),
            Self::Ids => (
                "Span ids are unique",
                "identity",
                1.0,
                "Two spans with one id in a trace take each other's children.",
            ),
            Self::Errors => (
                "Errors say why",
                "truth",
                1.0,
                "A span that failed has a message, error.type or an exception.",
            ),
            Self::Times => (
                "Times make sense",
                "truth",
                0.5,
                "A span ends after it begins, and does not begin before its parent.",
            ),
        }
    }
}

/// What became of a check of one span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Pass,
    Fail,
    Exempt,
}

/// Spans by trace that stand for a count.
#[derive(Debug, Default)]
struct Examples(BTreeMap<TraceId, Vec<SpanId>>);

impl Examples {
    fn add(&mut self, trace: TraceId, span: Option<SpanId>) {
        if self.0.len() < EXAMPLES || self.0.contains_key(&trace) {
            let spans = self.0.entry(trace).or_default();
            spans.extend(span.filter(|_| spans.len() < EXAMPLE_SPANS));
        }
    }

    fn list(self) -> Vec<Example> {
        let example = |(trace_id, span_ids)| Example { trace_id, span_ids };
        self.0.into_iter().map(example).collect()
    }
}

/// Counts of one check.
#[derive(Debug, Default)]
struct Tally {
    passed: u64,
    failed: u64,
    exempt: u64,
    passing: Examples,
    failing: Examples,
}

impl Tally {
    fn add(&mut self, outcome: Outcome, trace: TraceId, span: Option<SpanId>) {
        match outcome {
            Outcome::Pass => {
                self.passed += 1;
                self.passing.add(trace, span);
            }
            Outcome::Fail => {
                self.failed += 1;
                self.failing.add(trace, span);
            }
            Outcome::Exempt => self.exempt += 1,
        }
    }

    /// The share that passed; `None` where nothing was judged.
    fn share(&self) -> Option<f64> {
        let judged = self.passed + self.failed;
        (judged > 0).then(|| self.passed as f64 / judged as f64)
    }
}

/// Judges the newest traces of the service.
pub fn measure(source: &dyn TraceSource, request: &QualityRequest) -> Result<Quality, ApiError> {
    let selector = spans(focal_expr(&request.service, None))?;
    let Matches { ids, mut warnings } = source.find_traces(&selector, request.range, TRACES)?;
    let mut judge = Judge::new(source, &request.service);
    let mut looked_at = 0;
    for id in ids {
        // As it is stored: what is shown has been repaired.
        let Some(trace) = load(source, id, true)? else { continue };
        note(&mut warnings, trace.warnings);
        judge.trace(id, &trace.spans)?;
        looked_at += 1;
    }
    let tallies = judge.finish();
    let scores = CATEGORIES.iter().map(|(key, label)| {
        let mut weights = (0.0, 0.0);
        for (check, tally) in &tallies {
            let (_, category, weight, _) = check.words();
            if let Some(share) = tally.share().filter(|_| category == *key) {
                weights = (weights.0 + weight * share, weights.1 + weight);
            }
        }
        // Rounded down: 100 is for nothing that failed.
        let value = if weights.1 > 0.0 { weights.0 / weights.1 * 100.0 } else { 100.0 };
        Score { key, label, max: 100, value: value as u32 }
    });
    let scores = scores.collect();
    let metrics = tallies.into_iter().filter(|(_, tally)| tally.share().is_some());
    let metric = |(check, tally): (Check, Tally)| {
        let (name, category, metric_weight, description) = check.words();
        Metric {
            name,
            category,
            description,
            metric_documentation_link: DOCUMENTATION,
            metric_weight,
            pass_count: tally.passed,
            pass_examples: tally.passing.list(),
            failure_count: tally.failed,
            failure_examples: tally.failing.list(),
            exemption_count: tally.exempt,
        }
    };
    let mut banner_text = format!(
        "{}: {looked_at} of the newest traces of the last {} h (at most {TRACES}).",
        request.service, request.hours
    );
    for warning in warnings {
        banner_text.push_str(&format!(" {warning}."));
    }
    Ok(Quality {
        trace_quality_documentation_link: DOCUMENTATION,
        banner_text,
        scores,
        metrics: metrics.map(metric).collect(),
    })
}
