//! `lacuna contracts check`.

use std::path::PathBuf;

use lacuna_contract::ContractSet;

use crate::{Failure, Outcome, output, report};

/// Options of `lacuna contracts`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Say whether contract files can be used, and if not, where and why.
    Check {
        /// Contract files, or folders of them (*.yaml, *.yml).
        #[arg(required = true, value_name = "FILE|DIR")]
        paths: Vec<PathBuf>,
    },
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<Outcome, Failure> {
    match args.command {
        Command::Check { paths } => {
            let (contracts, files) = ContractSet::load_paths(&paths).map_err(report::contracts)?;
            let count = |n, what| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
            let (contracts, files) = (count(contracts.len(), "contract"), count(files, "file"));
            output::line(&format!("{contracts} in {files}: good"));
            Ok(Outcome::Clean)
        }
    }
}
