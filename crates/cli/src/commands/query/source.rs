//! What is asked: a data folder, files, or a running server.

use std::path::PathBuf;

use http::StatusCode;
use lacuna_server::lacking::{damage, lacking};
use lacuna_server::search::{self, LogAnswer, LogsAnswer, TracesAnswer, Wanted};
use lacuna_signal::otlp::{decode, decode_json};
use lacuna_signal::selector::{Query, Selector};
use lacuna_signal::{Batch, SignalKind, TraceId};
use lacuna_store::{Found, Options, Store, TimeRange};
use miette::{IntoDiagnostic, miette};
use serde_json::Value;

use crate::client::{Answer, Client, Tls};
use crate::input::{failed, open_store, read_requests};
use crate::remote::escape;
use crate::source::range_query;
use crate::{Failure, output};

/// What is asked.
#[derive(Debug, clap::Args)]
pub struct SourceArgs {
    /// Folder that keeps the data. A server may be running on it: what is there now is read.
    #[arg(long, value_name = "DIR", env = "LACUNA_DATA", default_value = "lacuna-data")]
    data: PathBuf,
    /// Ask files of OTLP requests instead: JSON lines or the Collector's; plain, gzip or zstd.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["url"])]
    input: Vec<PathBuf>,
    /// Ask a server instead: where it answers queries, such as http://localhost:16686.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    #[command(flatten)]
    tls: Tls,
}

/// What is asked, ready for it.
pub enum Source {
    /// A store; one made of files goes with its folder.
    Store { store: Store, _folder: Option<tempfile::TempDir> },
    /// A server.
    Server(Box<Client>),
}

impl Source {
    /// Opens what `args` name.
    pub fn open(args: &SourceArgs) -> Result<Self, Failure> {
        if let Some(url) = &args.url {
            return Ok(Self::Server(Box::new(Client::new(url, &args.tls)?)));
        }
        if args.input.is_empty() {
            return Ok(Self::Store { store: open_store(&args.data)?, _folder: None });
        }
        let folder =
            tempfile::Builder::new().prefix("lacuna-query-").tempdir().into_diagnostic()?;
        let mut options = Options::default();
        options.frame_bytes = lacuna_signal::otlp::MAX_BODY;
        // Nothing is flushed by a budget: there is no hurry, and no next start.
        options.memory_bytes = usize::MAX;
        let store = Store::open(folder.path(), options).map_err(failed)?;
        let progress = output::progress(None, "{spinner} {human_pos} rows read");
        for file in &args.input {
            read_requests(file, &mut |request| {
                let batch = request.decoded.batch;
                progress.inc(batch.num_rows() as u64);
                store.append_wait(request.kind, request.body, batch).map_err(failed)
            })?;
        }
        progress.finish_and_clear();
        Ok(Self::Store { store, _folder: Some(folder) })
    }

    /// Traces that `query` selects something in.
    pub async fn traces(
        &self,
        query: &Query,
        range: TimeRange,
        limit: usize,
        spans: usize,
    ) -> Result<TracesAnswer, Failure> {
        match self {
            Self::Store { store, .. } => {
                let wanted = Wanted { range, traces: limit, spans };
                search::traces(store, query, &wanted).map_err(failed)
            }
            Self::Server(client) => {
                let query = escape(&query.to_string());
                // Tempo's words for the same two times.
                let range =
                    range_query(range).replace("&from=", "&start=").replace("&to=", "&end=");
                let spans = spans.max(1);
                let path = format!("/api/search?q={query}&limit={limit}&spss={spans}{range}");
                let answer = client.ask(&path).await?;
                serde_json::from_slice(&ok(client, &path, &answer)?.body).into_diagnostic()
            }
        }
    }

    /// The newest log records that `selector` selects, newest first.
    pub async fn logs(
        &self,
        selector: &Selector,
        range: TimeRange,
        limit: usize,
    ) -> Result<LogsAnswer, Failure> {
        match self {
            Self::Store { store, .. } => {
                let found = newest_logs(store, selector, range, limit)?;
                let warnings = damage(&found.damaged);
                Ok(LogsAnswer { logs: LogAnswer::all(&found.items), cut: found.cut, warnings })
            }
            Self::Server(client) => {
                let path = logs_path(selector, range, limit, "json");
                let answer = client.ask(&path).await?;
                serde_json::from_slice(&ok(client, &path, &answer)?.body).into_diagnostic()
            }
        }
    }

    /// The same records as OTLP, and what they lack.
    pub async fn logs_otlp(
        &self,
        selector: &Selector,
        range: TimeRange,
        limit: usize,
    ) -> Result<(Batch, Lacks), Failure> {
        match self {
            Self::Store { store, .. } => {
                let found = newest_logs(store, selector, range, limit)?;
                let warnings = damage(&found.damaged);
                Ok((found.items, Lacks { cut: found.cut, warnings }))
            }
            Self::Server(client) => {
                let path = logs_path(selector, range, limit, "otlp");
                let answer = client.ask(&path).await?;
                let body = &ok(client, &path, &answer)?.body;
                let lacks = serde_json::from_slice(body).into_diagnostic()?;
                Ok((from_otlp(SignalKind::Logs, body)?, lacks))
            }
        }
    }

    /// The spans of a trace, if there are any, and what is missing from them.
    pub async fn trace(&self, id: TraceId) -> Result<Option<(Batch, Vec<String>)>, Failure> {
        let (spans, warnings) = match self {
            Self::Store { store, .. } => {
                let found = store.trace(id, None).map_err(failed)?;
                let warnings = lacking(&found, "spans");
                (found.items, warnings)
            }
            Self::Server(client) => {
                // As it is stored, which a folder gives too.
                let path = format!("/api/v3/traces/{id}?rawTraces=true");
                let answer = client.ask(&path).await?;
                if answer.status == StatusCode::NOT_FOUND {
                    return Ok(None);
                }
                let answer = ok(client, &path, &answer)?;
                let json: Value = serde_json::from_slice(&answer.body).into_diagnostic()?;
                let Lacks { warnings, .. } =
                    serde_json::from_slice(&answer.body).into_diagnostic()?;
                (from_otlp(SignalKind::Spans, json["result"].to_string().as_bytes())?, warnings)
            }
        };
        Ok((spans.num_rows() > 0).then_some((spans, warnings)))
    }
}

/// What a server says that an answer lacks, beside it.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub struct Lacks {
    /// Whether there is more.
    pub cut: bool,
    /// What is missing for another reason.
    pub warnings: Vec<String>,
}

fn newest_logs(
    store: &Store,
    selector: &Selector,
    range: TimeRange,
    limit: usize,
) -> Result<Found<Batch>, Failure> {
    store.newest(SignalKind::Logs, Some(selector), range, None, limit).map_err(failed)
}

fn logs_path(selector: &Selector, range: TimeRange, limit: usize, format: &str) -> String {
    let (query, range) = (escape(&selector.to_string()), range_query(range));
    format!("/api/v1/logs?q={query}&limit={limit}&format={format}{range}")
}

/// The answer, or what the server says against it.
pub(super) fn ok<'a>(
    client: &Client,
    path: &str,
    answer: &'a Answer,
) -> Result<&'a Answer, Failure> {
    if answer.status.is_success() {
        return Ok(answer);
    }
    let (base, path) = (client.base(), path.split('?').next().unwrap_or(path));
    Err(miette!("GET {base}{path} answered {}: {}", answer.status, answer.text().trim_end()))
}

fn from_otlp(kind: SignalKind, json: &[u8]) -> Result<Batch, Failure> {
    let (body, _) = decode_json(kind, json).into_diagnostic()?;
    Ok(decode(kind, body).into_diagnostic()?.batch)
}
