//! `lacuna query metrics|series`.

use lacuna_server::series::{self, MetricsAnswer, PointAnswer, SeriesAnswer, SeriesListAnswer};
use lacuna_signal::SignalKind;
use lacuna_store::TimeRange;
use miette::{IntoDiagnostic, miette};
use serde_json::Value as Json;

use super::source::{Source, ok};
use super::{Common, Format, conclude};
use crate::input::{failed, print_json};
use crate::output::{self, Style};
use crate::remote::escape;
use crate::source::range_query;
use crate::{Failure, report};

/// Points of a series that are shown to a person.
const SHOWN_POINTS: usize = 10;

/// Lists metrics.
pub async fn metrics(common: &Common) -> Result<(), Failure> {
    let range = common.window.range()?;
    let source = Source::open(&common.source)?;
    let limit = common.limit as usize;
    let found: MetricsAnswer = match &source {
        Source::Store { store, .. } => series::metrics(store, range, limit).map_err(failed)?,
        Source::Server(client) => {
            let path = format!("/api/v1/metrics?limit={limit}{}", start_and_end(range));
            let answer = client.ask(&path).await?;
            serde_json::from_slice(&ok(client, &path, &answer)?.body).into_diagnostic()?
        }
    };
    match common.format {
        Format::Table => print_metrics(&found),
        Format::Json => print_json(&found)?,
        Format::Otlp => return Err(no_otlp()),
    }
    conclude(found.cut, "metrics", &found.warnings);
    Ok(())
}

/// Lists series with their points.
pub async fn series(text: &str, points: u32, common: &Common) -> Result<(), Failure> {
    let selector = report::selector(text)?;
    if selector.kind() != SignalKind::Points {
        return Err(miette!("that selects no metrics: write `metric {{ … }}`"));
    }
    let range = common.window.range()?;
    let source = Source::open(&common.source)?;
    let (limit, points) = (common.limit as usize, points as usize);
    let found: SeriesListAnswer = match &source {
        Source::Store { store, .. } => {
            series::series(store, &selector, range, limit, points).map_err(failed)?
        }
        Source::Server(client) => {
            let query = escape(&selector.to_string());
            let range = start_and_end(range);
            let path = format!("/api/v1/series?match={query}&limit={limit}&points={points}{range}");
            let answer = client.ask(&path).await?;
            serde_json::from_slice(&ok(client, &path, &answer)?.body).into_diagnostic()?
        }
    };
    match common.format {
        Format::Table => print_series(&found.series),
        Format::Json => print_json(&found)?,
        Format::Otlp => return Err(no_otlp()),
    }
    conclude(found.cut, "series or points", &found.warnings);
    Ok(())
}

fn no_otlp() -> Failure {
    miette!("metrics come as table or json; `lacuna export --signals metrics` writes OTLP")
}

fn start_and_end(range: TimeRange) -> String {
    range_query(range).replace("&from=", "&start=").replace("&to=", "&end=")
}

fn print_metrics(found: &MetricsAnswer) {
    let style = Style::of_stdout();
    if found.metrics.is_empty() {
        output::line("no metrics");
    }
    for metric in &found.metrics {
        let kind = describe(&metric.kind, &metric.temporality, metric.monotonic);
        let unit =
            if metric.unit.is_empty() { String::new() } else { format!(" [{}]", metric.unit) };
        output::line(&format!(
            "{}{unit}  {kind}  {} series, {}  {}",
            style.bold(&metric.name),
            metric.series,
            output::count(metric.points, "point"),
            style.dim(&metric.description)
        ));
    }
}

fn describe(kind: &str, temporality: &str, monotonic: bool) -> String {
    let mut text = kind.replace('_', " ");
    if temporality != "unspecified" {
        text = format!("{temporality} {text}");
    }
    if monotonic { format!("monotonic {text}") } else { text }
}

fn print_series(found: &[SeriesAnswer]) {
    let style = Style::of_stdout();
    if found.is_empty() {
        output::line("no series");
    }
    for series in found {
        let kind = describe(&series.kind, &series.temporality, series.monotonic);
        let own = series.attributes.iter();
        let service = series.resource.get("service.name").map(|value| ("service", value));
        let labels = service.into_iter().chain(own.map(|(key, value)| (key.as_str(), value)));
        let labels: Vec<String> = labels.map(|(key, value)| format!("{key}={value}")).collect();
        let name = style.bold(&series.name);
        output::line(&format!("{name}{{{}}}  {}", labels.join(", "), style.dim(&kind)));
        let older = series.points.len().saturating_sub(SHOWN_POINTS);
        if older > 0 {
            output::line(&format!("    {older} older points"));
        }
        for point in series.points.iter().skip(older) {
            output::line(&format!("    {}  {}", point.time, value(point, &series.unit)));
        }
    }
}

fn value(point: &PointAnswer, unit: &str) -> String {
    if point.no_recorded_value {
        return "no value".to_owned();
    }
    let mut parts = Vec::new();
    let text = |value: &Json| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if let Some(value) = &point.value {
        parts.push(format!("{} {unit}", text(value)).trim_end().to_owned());
    }
    if let Some(count) = point.count {
        parts.push(format!("count {count}"));
    }
    for (name, value) in [("sum", &point.sum), ("min", &point.min), ("max", &point.max)] {
        parts.extend(value.as_ref().map(|value| format!("{name} {}", text(value))));
    }
    let quantiles = point.quantiles.iter();
    parts.extend(quantiles.map(|q| format!("q{} {}", text(&q.quantile), text(&q.value))));
    if !point.exemplars.is_empty() {
        parts.push(output::count(point.exemplars.len() as u64, "exemplar"));
    }
    parts.join(", ")
}
