//! `lacuna`: finds what telemetry leaves out, and says why.
//!
//! The command line is parsed here, each command has a module of its own, and this is the one
//! place that turns an outcome into an exit status: 0 clean, 1 findings, 2 wrong use or a broken
//! environment.

mod client;
mod commands;
mod demo;
mod input;
mod judge;
mod output;
mod remote;
mod report;
mod sizes;
mod source;
mod times;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Finds what telemetry leaves out: the outcome that never happened, the operation that nobody
/// traced, the alert that can never fire.
#[derive(Debug, Parser)]
#[command(name = "lacuna", version, propagate_version = true, after_help = EXIT_STATUS)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_STATUS: &str = "Exit status: 0 clean, 1 findings, 2 wrong use or a broken environment.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Take telemetry in, keep it, answer queries and watch the contracts.
    Serve(Box<commands::serve::Args>),
    /// Replay the recorded incident and show what is found in it.
    Demo(demo::Args),
    /// Take in files of OTLP requests.
    Import(commands::import::Args),
    /// Write what a data folder or a running server holds as OTLP requests.
    Export(commands::export::Args),
    /// Find traces and log records by selector, show a trace.
    Query(commands::query::Args),
    /// Check, measure and compact a data folder.
    Store(commands::store::Args),
    /// What a running server has found.
    Findings(commands::findings::Args),
    /// Check contract files, run them over history, propose new ones.
    Contracts(commands::contracts::Args),
    /// Tell the story of one key: every span, log record and verdict of it, across traces.
    Explain(commands::explain::Args),
}

/// How a command ended, if nothing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Nothing was found amiss.
    Clean,
    /// Something was found.
    Findings,
}

/// What goes wrong in a command: a report for a person, already worded.
type Failure = miette::Report;

fn main() -> ExitCode {
    report::set_up();
    let command = Cli::parse().command;
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&miette::miette!("cannot start the async runtime: {error}")),
    };
    let done = runtime.block_on(async {
        match command {
            Command::Serve(args) => commands::serve::run(*args).await,
            Command::Demo(args) => demo::run(args).await,
            Command::Import(args) => commands::import::run(args).await,
            Command::Export(args) => commands::export::run(args).await,
            Command::Query(args) => commands::query::run(args).await,
            Command::Store(args) => commands::store::run(args),
            Command::Findings(args) => commands::findings::run(args).await,
            Command::Contracts(args) => commands::contracts::run(args).await,
            Command::Explain(args) => commands::explain::run(args).await,
        }
    });
    match done {
        Ok(Outcome::Clean) => ExitCode::SUCCESS,
        Ok(Outcome::Findings) => ExitCode::from(1),
        Err(report) => fail(&report),
    }
}

fn fail(report: &Failure) -> ExitCode {
    output::error(&format!("{report:?}"));
    ExitCode::from(2)
}
