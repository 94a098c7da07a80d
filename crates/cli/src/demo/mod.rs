//! `lacuna demo`: the reference incident, found.
//!
//! A run of the reference pipeline was recorded while one of its faults was switched on for a
//! part of the time (`make record-demo`). The demo starts a server of its own on free ports and
//! a temporary folder, sends the recording to its OTLP port with the times moved to now, and then
//! tells what the server found, asking it over HTTP as anybody would.

mod print;
mod replay;
mod story;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lacuna_server::{Config, Server};
use miette::{IntoDiagnostic, miette};

use crate::client::{Client, Tls};
use crate::commands::serve::end_asked_for;
use crate::input::print_json;
use crate::output::Format;
use crate::{Failure, Outcome, output, report};
use replay::Recording;
use serde_json::Value;

/// The recorded run: OTLP/JSON export requests, one a line.
const RECORDING: &[u8] = include_bytes!("../../../../demo/incident.otlp.jsonl.zst");

/// The contracts that the reference pipeline ships.
const CONTRACTS: &str = include_str!("../../../../pipeline/contracts/essays.yaml");

/// How far out of order events may come. The recording is replayed in order.
const LATENESS: Duration = Duration::from_secs(1);

/// The replay has ended when nothing has come for this long.
const IDLE: Duration = Duration::from_millis(500);

/// If deadlines are still open after this, something is wrong with the machine's clock.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Options of `lacuna demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// End when the story is told, even on a terminal.
    #[arg(long)]
    exit: bool,
    /// How many lost instances of a contract to list.
    #[arg(long, value_name = "N", default_value_t = 6)]
    list: usize,
    /// How to tell the story.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Tells the story; ends with "findings" if there are any.
pub async fn run(args: Args) -> Result<Outcome, Failure> {
    let folder = tempfile::Builder::new().prefix("lacuna-demo-").tempdir().into_diagnostic()?;
    let contracts = folder.path().join("contracts");
    std::fs::create_dir(&contracts).into_diagnostic()?;
    std::fs::write(contracts.join("essays.yaml"), CONTRACTS).into_diagnostic()?;

    let started = Instant::now();
    let mut recording = Recording::read(RECORDING).into_diagnostic()?;
    let config = Config {
        contracts_dir: Some(contracts),
        lateness: LATENESS,
        idle: IDLE,
        ..Config::on_free_ports(folder.path().join("data"))
    };
    let server = Server::start(config).await.map_err(report::start)?;
    // The run is placed so that its last deadlines have just passed: nothing stays open.
    let patience = longest_deadline(&server) + LATENESS + Duration::from_secs(1);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    recording.move_to(now.saturating_sub(patience).as_nanos() as u64);

    let requests = Some(recording.len() as u64);
    let bar = output::progress(requests, "Replaying {wide_bar} {pos}/{len} requests");
    recording
        .send(&format!("http://{}", server.otlp_http), || bar.inc(1))
        .await
        .into_diagnostic()?;
    bar.finish_and_clear();

    let client = Client::new(format!("http://{}", server.query), &Tls::default())?;
    settle(&client).await?;
    let story = story::gather(&server, &client, args.list).await?;
    match args.format {
        Format::Text => print::story(&story, &client, started.elapsed()),
        Format::Json => print_json(&story)?,
    }

    let outcome = if story.losses.is_empty() { Outcome::Clean } else { Outcome::Findings };
    if output::is_terminal() && !args.exit && args.format == Format::Text {
        output::line("\nStaying up to be explored; Ctrl-C ends it.");
        end_asked_for().await?;
    }
    server.stop().await;
    Ok(outcome)
}

fn longest_deadline(server: &Server) -> Duration {
    let monitor = server.live().monitor();
    let longest = monitor.contracts().filter_map(|contract| contract.within).max();
    Duration::from_nanos(longest.unwrap_or(0).unsigned_abs())
}

/// Waits until no deadline is open.
async fn settle(client: &Client) -> Result<(), Failure> {
    let started = Instant::now();
    loop {
        let contracts = client.get("/api/v1/contracts").await?;
        let open = |contract: &Value| contract["verdicts"]["open"].as_u64().unwrap_or(0);
        let open: u64 = contracts["contracts"].as_array().into_iter().flatten().map(open).sum();
        if open == 0 {
            return Ok(());
        }
        if started.elapsed() > SETTLE_TIMEOUT {
            return Err(miette!(
                "{open} outcomes are still awaited {} s after the replay",
                SETTLE_TIMEOUT.as_secs()
            ));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
