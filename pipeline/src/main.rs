//! The reference system: three services, each its own process, a load generator and the incident's
//! faults. See `README.md` beside this crate's `Cargo.toml`.

mod bench;
mod bos;
mod bus;
mod business;
mod config;
mod db;
mod els;
mod envelope;
mod error;
mod file_service;
mod http;
mod load;
mod stop;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use config::{Backends, Listen};
use error::Error;
use http::Process;
use stop::Stop;

/// Lacuna's reference pipeline: BOS, file service and ELS around Kafka, Redis and PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "pipeline", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs `batch_orchestrator_service` (port 5001 unless told otherwise).
    Bos {
        #[command(flatten)]
        backends: Backends,
        #[command(flatten)]
        listen: Listen,
    },
    /// Runs `file_service` (port 7001 unless told otherwise).
    File {
        #[command(flatten)]
        backends: Backends,
        #[command(flatten)]
        listen: Listen,
        #[command(flatten)]
        file: file_service::FileArgs,
    },
    /// Runs `essay_lifecycle_service` (port 6001 unless told otherwise).
    Els {
        #[command(flatten)]
        backends: Backends,
        #[command(flatten)]
        listen: Listen,
        #[command(flatten)]
        els: els::ElsArgs,
    },
    /// Runs all three as child processes until it is stopped; prints their URLs as one JSON line.
    Up(up::UpArgs),
    /// Sends batches and essays, waits until all have an outcome, writes what the databases say.
    Load(load::LoadArgs),
    /// Writes what the databases say of everything that was ever loaded.
    Truth(load::TruthArgs),
    /// Measures throughput and CPU with all instrumentation on and off, in turn.
    Bench(bench::BenchArgs),
    /// Switches a fault of a running ELS: a fault's name, or `off`.
    Fault(load::FaultArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse().command).await {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            ExitCode::from(2)
        }
    }
}

async fn run(command: Command) -> Result<ExitCode, Error> {
    match command {
        Command::Bos { backends, listen } => {
            service(bos::SERVICE, &listen, |process| async {
                bos::run(&backends, &listen, process).await
            })
            .await
        }
        Command::File { backends, listen, file } => {
            service(file_service::SERVICE, &listen, |process| async {
                file_service::run(&backends, &listen, &file, process).await
            })
            .await
        }
        Command::Els { backends, listen, els } => {
            service(els::SERVICE, &listen, |process| async {
                els::run(&backends, &listen, &els, process).await
            })
            .await
        }
        Command::Up(args) => up::run(args).await,
        Command::Load(args) => load::run(args).await,
        Command::Truth(args) => load::truth(args).await,
        Command::Bench(args) => bench::run(args).await,
        Command::Fault(args) => load::fault(args).await,
    }
}

/// Runs a service between the start of its telemetry and the last flush.
async fn service<R, F>(name: &'static str, listen: &Listen, run: R) -> Result<ExitCode, Error>
where
    R: FnOnce(Process) -> F,
    F: Future<Output = Result<(), Error>>,
{
    let telemetry = lacuna_instrument::init(name).map_err(|e| Error::Telemetry(e.to_string()))?;
    let stop = Stop::on_signals(listen.stop_on_stdin_close)?;
    let result = run(Process { stop, metrics: telemetry.metrics_text() }).await;
    if let Err(error) = telemetry.shutdown().await {
        // Telemetry is best effort: that its backend is gone is no failure of the service.
        complain(&Error::Telemetry(error.to_string()));
    }
    result.map(|()| ExitCode::SUCCESS)
}

#[allow(clippy::print_stderr, reason = "the one place where the program speaks to its user")]
fn complain(error: &Error) {
    eprintln!("pipeline: {error}");
}
