//! `lacuna contracts check`.

use std::path::PathBuf;

use lacuna_contract::ContractSet;

use crate::{Failure, Outcome, output};

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
        /// Contract files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<Outcome, Failure> {
    match args.command {
        Command::Check { files } => {
            let contracts = ContractSet::load_files(&files).map_err(Failure::new)?;
            output::line(&format!("{} contracts in {} files: good", contracts.len(), files.len()));
            Ok(Outcome::Clean)
        }
    }
}
