//! `pipeline load`: drives the pipeline over HTTP, waits until it settles, and writes the truth.

mod plan;
mod truth;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use lacuna_instrument::postgres::Pool;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::config::NamespaceArg;
use crate::els::{FaultKind, FaultRequest};
use crate::error::Error;
use truth::Truth;
pub use truth::{Scope, Unsettled};

/// What is sent, and where to.
#[derive(Clone, Debug, Args)]
pub struct Sending {
    /// Batches to register.
    #[arg(long, default_value_t = 10)]
    pub batches: u32,
    /// Essays that each batch expects, and gets.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub essays: u32,
    /// Essays a second, over all batches.
    #[arg(long, default_value_t = 50.0)]
    pub rate: f64,
    /// Decides sizes, order and content of all uploads.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Base URL of `batch_orchestrator_service`.
    #[arg(long, default_value = "http://127.0.0.1:5001")]
    pub bos: String,
    /// Base URL of `file_service`.
    #[arg(long, default_value = "http://127.0.0.1:7001")]
    pub file: String,
}

/// Options of `pipeline load`.
#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    #[command(flatten)]
    send: Sending,
    /// Seconds to wait, after the last request, until every essay has an outcome.
    #[arg(long, default_value_t = 60)]
    settle: u64,
    #[command(flatten)]
    read: ReadArgs,
}

/// Options of `pipeline truth`.
#[derive(Clone, Debug, Args)]
pub struct TruthArgs {
    #[command(flatten)]
    read: ReadArgs,
}

/// Where truth comes from and goes to.
#[derive(Clone, Debug, Args)]
struct ReadArgs {
    /// PostgreSQL, where the truth is.
    #[arg(long, env = "DATABASE_URL")]
    database_url: String,
    #[command(flatten)]
    namespace: NamespaceArg,
    /// Where the truth is written.
    #[arg(long, default_value = "truth.json")]
    out: PathBuf,
}

/// Options of `pipeline fault`.
#[derive(Clone, Debug, Args)]
pub struct FaultArgs {
    /// A fault's name, as the README lists them, or `off`.
    name: String,
    /// Share of essays that it concerns, from 0 to 1.
    #[arg(long, default_value_t = 1.0)]
    rate: f64,
    /// Milliseconds between the commands of the shared connection, or for which `late` holds back.
    #[arg(long)]
    window_ms: Option<u64>,
    /// Base URL of `essay_lifecycle_service`.
    #[arg(long, default_value = "http://127.0.0.1:6001")]
    els: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Registered {
    batch_id: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Uploaded {
    essays: Vec<Value>,
}

/// Sends, waits, writes. Exit status 1 when the pipeline did not settle in time.
pub async fn run(args: LoadArgs) -> Result<ExitCode, Error> {
    let pool =
        crate::db::connect(&args.read.database_url, &args.read.namespace.namespace, 2).await?;
    let started_at = jiff::Timestamp::now().to_string();
    let (sent, scope) = send(&args.send).await?;
    let left = settle(&pool, &scope, Duration::from_secs(args.settle)).await?;
    let mut truth = truth::read(&pool, &scope).await?;
    truth.started_at = Some(started_at);
    truth.seed = Some(args.send.seed);
    write(&truth, &args.read.out)?;
    if truth.essays.len() != sent {
        return Err(Error::Usage(format!(
            "{sent} essays were accepted, but the database holds {}: do service and load use one namespace?",
            truth.essays.len()
        )));
    }
    summarise(&truth);
    if truth.settled {
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!(
        "not settled after {} s: {} essays without outcome, {} excess essays and {} ready batches unknown to BOS",
        args.settle, left.essays, left.excess, left.batches
    ));
    Ok(ExitCode::from(1))
}

/// Writes the truth of everything in the namespace.
pub async fn truth(args: TruthArgs) -> Result<ExitCode, Error> {
    let pool =
        crate::db::connect(&args.read.database_url, &args.read.namespace.namespace, 2).await?;
    let truth = truth::read(&pool, &Scope::All).await?;
    write(&truth, &args.read.out)?;
    summarise(&truth);
    Ok(if truth.settled { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Switches a fault of a running ELS.
pub async fn fault(args: FaultArgs) -> Result<ExitCode, Error> {
    let request = match args.name.as_str() {
        "off" => FaultRequest::off(),
        name => {
            let kind = FaultKind::named(name).ok_or_else(|| {
                Error::Usage(format!(
                    "no fault is called '{name}'; one of: {}, off",
                    FaultKind::names().join(", ")
                ))
            })?;
            let request = FaultRequest::on(kind, args.rate);
            FaultRequest { window_ms: args.window_ms.unwrap_or(request.window_ms), ..request }
        }
    };
    let body = serde_json::to_value(request).map_err(|e| Error::Usage(e.to_string()))?;
    let state: Value =
        post(&reqwest::Client::new(), &format!("{}/faults", args.els), &body).await?;
    say(&format!("ELS: {state}"));
    Ok(ExitCode::SUCCESS)
}

/// Waits until every essay has an outcome of which everybody has heard; what is left in the end.
pub async fn settle(pool: &Pool, scope: &Scope, patience: Duration) -> Result<Unsettled, Error> {
    let deadline = Instant::now() + patience;
    loop {
        let left = truth::unsettled(pool, scope).await?;
        if left == Unsettled::default() || Instant::now() >= deadline {
            return Ok(left);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Sends everything on its time, whatever the answers take: an open loop hides no slowness. Gives
/// the number of essays that were accepted, and the batches.
pub async fn send(args: &Sending) -> Result<(usize, Scope), Error> {
    if !(args.rate > 0.0 && args.rate.is_finite()) {
        return Err(Error::Usage(format!("--rate must be above 0, not {}", args.rate)));
    }
    let http = reqwest::Client::builder()
        .timeout(Duration::from_secs(60))
        .build()
        .map_err(|e| Error::Usage(e.to_string()))?;
    let mut batches: Vec<Option<String>> = vec![None; args.batches as usize];
    let mut uploads: JoinSet<Result<usize, Error>> = JoinSet::new();
    let start = Instant::now();
    for upload in plan::uploads(args.batches as usize, args.essays, args.rate, args.seed) {
        tokio::time::sleep_until(start + upload.at).await;
        let batch = &mut batches[upload.batch];
        let batch_id = match batch {
            Some(id) => id.clone(),
            None => {
                let url = format!("{}/v1/batches", args.bos);
                let registered: Registered =
                    post(&http, &url, &json!({ "expected_essays": args.essays })).await?;
                batch.insert(registered.batch_id).clone()
            }
        };
        let files: Vec<Value> = upload
            .files
            .iter()
            .map(|(name, content)| json!({ "name": name, "content": content }))
            .collect();
        let (http, url) = (http.clone(), format!("{}/v1/batches/{batch_id}/files", args.file));
        uploads.spawn(async move {
            let uploaded: Uploaded = post(&http, &url, &json!({ "files": files })).await?;
            Ok(uploaded.essays.len())
        });
    }
    let mut sent = 0;
    while let Some(uploaded) = uploads.join_next().await {
        sent += uploaded.map_err(|e| Error::Usage(format!("an upload panicked: {e}")))??;
    }
    Ok((sent, Scope::Batches(batches.into_iter().flatten().collect())))
}

async fn post<T: DeserializeOwned>(
    http: &reqwest::Client,
    url: &str,
    body: &Value,
) -> Result<T, Error> {
    let failed = |reason: String| Error::Call { url: url.to_owned(), reason };
    let response = http.post(url).json(body).send().await.map_err(|e| failed(e.to_string()))?;
    let status = response.status();
    let text = response.text().await.map_err(|e| failed(e.to_string()))?;
    if !status.is_success() {
        return Err(failed(format!("{status} {text}")));
    }
    serde_json::from_str(&text).map_err(|e| failed(format!("{e} in {text}")))
}

fn write(truth: &Truth, out: &Path) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(truth).map_err(|e| Error::Usage(e.to_string()))?;
    std::fs::write(out, text + "\n").map_err(Error::io(out.display().to_string()))
}

fn summarise(truth: &Truth) {
    let lost = truth.essays.iter().filter(|e| e.slot.is_none()).count();
    let ready = truth.batches.iter().filter(|b| b.ready).count();
    say(&format!(
        "{} essays, {lost} without a slot; {} batches, {ready} ready",
        truth.essays.len(),
        truth.batches.len()
    ));
}

#[allow(clippy::print_stderr, reason = "progress of a command, beside its result")]
fn say(text: &str) {
    eprintln!("pipeline: {text}");
}
