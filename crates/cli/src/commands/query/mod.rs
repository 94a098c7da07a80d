//! `lacuna query traces|logs|metrics|series|trace`.

mod metrics;
mod print;
mod source;

use lacuna_server::search::TracesAnswer;
use lacuna_signal::otlp::to_json::to_json;
use lacuna_signal::{Batch, SignalKind, TraceId};
use miette::miette;

use crate::input::print_json;
use crate::times::Window;
use crate::{Failure, Outcome, output, report};
use source::{Lacks, Source, SourceArgs};

/// Options of `lacuna query`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Find traces, such as '{ name = "checkout" } >> { status = error }'.
    Traces {
        /// Selectors of spans, joined by > >> < << ~, by one of them after ! or &, by && or by ||.
        #[arg(value_name = "QUERY", default_value = "{ }")]
        query: String,
        /// Selected spans to show of each trace.
        #[arg(long, value_name = "N", default_value_t = 3)]
        spans: usize,
        #[command(flatten)]
        common: Common,
    },
    /// Find log records, such as 'log { severity >= warn }'.
    Logs {
        /// A selector of log records.
        #[arg(value_name = "SELECTOR", default_value = "log { }")]
        selector: String,
        #[command(flatten)]
        common: Common,
    },
    /// List metrics, with how many series each has.
    Metrics {
        #[command(flatten)]
        common: Common,
    },
    /// Find series of metrics with their points, such as 'metric { name = "queue.length" }'.
    Series {
        /// A selector of metric points.
        #[arg(value_name = "SELECTOR", default_value = "metric { }")]
        selector: String,
        /// The newest so many points of all series together.
        #[arg(long, value_name = "N", default_value_t = 10_000,
              value_parser = clap::value_parser!(u32).range(1..=100_000))]
        points: u32,
        #[command(flatten)]
        common: Common,
    },
    /// Show a trace as a tree.
    Trace {
        /// Its id: 32 hex digits.
        #[arg(value_name = "ID")]
        id: TraceId,
        #[command(flatten)]
        source: SourceArgs,
        /// How to show it.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

#[derive(Debug, clap::Args)]
struct Common {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    window: Window,
    /// The newest so many.
    #[arg(long, value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u32).range(1..=9_999))]
    limit: u32,
    /// How to show them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, clap::ValueEnum)]
enum Format {
    /// For a person.
    #[default]
    Table,
    /// For a program: what the server's API answers.
    Json,
    /// OTLP/JSON; of traces, a line with all spans of each.
    Otlp,
}

/// Runs the subcommand.
pub async fn run(args: Args) -> Result<Outcome, Failure> {
    match args.command {
        Command::Traces { query, spans, common } => traces(&query, spans, &common).await?,
        Command::Logs { selector, common } => logs(&selector, &common).await?,
        Command::Metrics { common } => metrics::metrics(&common).await?,
        Command::Series { selector, points, common } => {
            metrics::series(&selector, points, &common).await?;
        }
        Command::Trace { id, source, format } => trace(id, &source, format).await?,
    }
    Ok(Outcome::Clean)
}

async fn traces(text: &str, spans: usize, common: &Common) -> Result<(), Failure> {
    // Read here also if a server reads it again: where it is wrong is shown best at home.
    let query = report::query(text)?;
    if query.kind() != SignalKind::Spans {
        return Err(miette!("that selects log records: use `lacuna query logs`"));
    }
    let range = common.window.range()?;
    let source = Source::open(&common.source)?;
    let found = source.traces(&query, range, common.limit as usize, spans).await?;
    match common.format {
        Format::Table => print::traces(&found),
        Format::Json => print_json(&found)?,
        Format::Otlp => {
            for trace in &found.traces {
                let id = trace.trace_id.parse().map_err(|_| {
                    miette!("the server answered with `{}` as a trace id", trace.trace_id)
                })?;
                // One that retention has removed meanwhile is left out. What it lacks was told.
                if let Some((spans, _)) = source.trace(id).await? {
                    otlp(&spans)?;
                }
            }
        }
    }
    let TracesAnswer { cut, warnings, .. } = &found;
    conclude(*cut, "traces", warnings);
    Ok(())
}

async fn logs(text: &str, common: &Common) -> Result<(), Failure> {
    let selector = report::selector(text)?;
    if selector.kind() != SignalKind::Logs {
        return Err(miette!(
            "that selects spans: use `lacuna query traces`, or write `log {{ … }}`"
        ));
    }
    let range = common.window.range()?;
    let source = Source::open(&common.source)?;
    let limit = common.limit as usize;
    let (cut, warnings) = if common.format == Format::Otlp {
        let (found, Lacks { cut, warnings }) = source.logs_otlp(&selector, range, limit).await?;
        otlp(&found)?;
        (cut, warnings)
    } else {
        let found = source.logs(&selector, range, limit).await?;
        match common.format {
            Format::Json => print_json(&found)?,
            Format::Table | Format::Otlp => print::logs(&found.logs),
        }
        (found.cut, found.warnings)
    };
    conclude(cut, "log records", &warnings);
    Ok(())
}

async fn trace(id: TraceId, source: &SourceArgs, format: Format) -> Result<(), Failure> {
    let source = Source::open(source)?;
    let found = source.trace(id).await?;
    let (spans, warnings) = found.ok_or_else(|| miette!("there is no trace {id}"))?;
    match format {
        Format::Table => print::trace(&spans),
        Format::Json => print_json(&print::tree(&spans).lacking(&warnings))?,
        Format::Otlp => otlp(&spans)?,
    }
    conclude(false, "spans", &warnings);
    Ok(())
}

fn otlp(batch: &Batch) -> Result<(), Failure> {
    let json = to_json(batch).map_err(|error| miette!("{error}"))?;
    output::line(&String::from_utf8_lossy(&json));
    Ok(())
}

/// Says on standard error what is missing.
fn conclude(cut: bool, what: &str, warnings: &[String]) {
    if cut {
        output::error(&format!("There are more {what}: --limit, --from and --to choose which."));
    }
    warnings.iter().for_each(|warning| output::error(warning));
}
