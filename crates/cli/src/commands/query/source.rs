//! What is asked: a data folder, files, or a running server.

use std::path::PathBuf;

use http::StatusCode;
use lacuna_server::search::{self, TracesAnswer};
use lacuna_signal::otlp::{decode, decode_json};
use lacuna_signal::selector::{Query, Selector};
use lacuna_signal::{Batch, SignalKind, TraceId};
use lacuna_store::{Options, Store, TimeRange};
use miette::{IntoDiagnostic, miette};
use serde_json::Value;

use crate::client::{Answer, Client};
use crate::input::{failed, open_store, read_requests};
use crate::remote::escape;
use crate::source::range_query;
use crate::{Failure, output};

/// What is asked.
#[derive(Debug, clap::Args)]
pub struct SourceArgs {
    /// Folder that keeps the data. No server may be running on it.
    #[arg(long, value_name = "DIR", env = "LACUNA_DATA", default_value = "lacuna-data")]
    data: PathBuf,
    /// Ask files of OTLP requests instead: JSON lines or the Collector's; plain, gzip or zstd.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["url"])]
    input: Vec<PathBuf>,
    /// Ask a server instead: where it answers queries, such as http://localhost:16686.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
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
            return Ok(Self::Server(Box::new(Client::new(url))));
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
                let found = search::traces(store, query, range, limit).map_err(failed)?;
                Ok(TracesAnswer::of(&found, query, spans))
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

    /// The newest log records that `selector` selects, whether there are more, and warnings.
    pub async fn logs(
        &self,
        selector: &Selector,
        range: TimeRange,
        limit: usize,
    ) -> Result<(Batch, bool, Vec<String>), Failure> {
        match self {
            Self::Store { store, .. } => {
                let found = store.newest(SignalKind::Logs, Some(selector), range, None, limit);
                let found = found.map_err(failed)?;
                Ok((found.items, found.cut, search::warnings(&found.damaged)))
            }
            Self::Server(client) => {
                // One more tells whether there are more.
                let query = escape(&selector.to_string());
                let (limit_and_one, range) = (limit + 1, range_query(range));
                let path =
                    format!("/api/v1/logs?q={query}&limit={limit_and_one}&format=otlp{range}");
                let answer = client.ask(&path).await?;
                let found = from_otlp(SignalKind::Logs, &ok(client, &path, &answer)?.body)?;
                let rows = found.num_rows();
                Ok((found.slice(0, rows.min(limit)), rows > limit, Vec::new()))
            }
        }
    }

    /// The spans of a trace, if there are any.
    pub async fn trace(&self, id: TraceId) -> Result<Option<Batch>, Failure> {
        let spans = match self {
            Self::Store { store, .. } => store.trace(id, None).map_err(failed)?.items,
            Self::Server(client) => {
                let path = format!("/api/v3/traces/{id}");
                let answer = client.ask(&path).await?;
                if answer.status == StatusCode::NOT_FOUND {
                    return Ok(None);
                }
                let answer = ok(client, &path, &answer)?;
                let json: Value = serde_json::from_slice(&answer.body).into_diagnostic()?;
                from_otlp(SignalKind::Spans, json["result"].to_string().as_bytes())?
            }
        };
        Ok((spans.num_rows() > 0).then_some(spans))
    }
}

fn ok<'a>(client: &Client, path: &str, answer: &'a Answer) -> Result<&'a Answer, Failure> {
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
