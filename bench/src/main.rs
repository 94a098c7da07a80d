//! Measures the real `lacuna serve`: ingest, queries and restart, each with one command that
//! prints its figures, and beside them what the same machine does without Lacuna.
//!
//! It uses nothing of the engine's crates: it speaks to the binary over its ports, as users do.

mod common;
mod error;
mod generate;
mod grpc;
mod http1;
mod ingest;
mod notice;
mod print;
mod process;
mod query;
mod restart;
mod send;
mod server;
mod sink;
mod soak;
mod space;
mod stats;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures `lacuna serve`.
#[derive(Debug, Parser)]
#[command(name = "lacuna-bench")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// How fast spans are taken durably, and what that costs.
    Ingest(ingest::Ingest),
    /// How fast things are found among many spans.
    Query(query::Query),
    /// How long it takes from a deadline until somebody is told.
    Notice(notice::Notice),
    /// How long a start takes after `kill -9`.
    Restart(restart::Restart),
    /// Whether all holds for minutes of load, kills, retention and a full disk.
    Soak(soak::Soak),
    /// A server that keeps nothing (used by the others for comparison).
    Sink {
        /// What it does with a message.
        kind: sink::SinkKind,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Ingest(ingest) => ingest.run().await,
        Command::Query(query) => query.run().await,
        Command::Notice(notice) => notice.run().await,
        Command::Restart(restart) => restart.run().await,
        Command::Soak(soak) => soak.run().await,
        Command::Sink { kind } => sink::serve(kind).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print::line(&format!("error: {error}"));
            ExitCode::from(2)
        }
    }
}
