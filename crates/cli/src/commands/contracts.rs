//! `lacuna contracts check|run|mine`.

use std::path::PathBuf;

use lacuna_contract::ContractSet;
use lacuna_contract::history::{ContractReport, History, Report};
use lacuna_contract::mine::{MineOptions, Miner, to_yaml};

use crate::input::{Source, print_json};
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
    /// Run contracts over history and say what became of every obligation.
    Run {
        /// Contract files, or folders of them (*.yaml, *.yml).
        #[arg(required = true, value_name = "FILE|DIR")]
        paths: Vec<PathBuf>,
        #[command(flatten)]
        source: Source,
        /// Instances to tell of each contract.
        #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
        limit: usize,
        /// How to tell it.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Propose contracts from healthy traffic.
    Mine {
        #[command(flatten)]
        source: Source,
        /// Least share of activations that kept the promise, judged by the lower end of its
        /// 95 % confidence interval.
        #[arg(long, value_name = "SHARE", default_value_t = MineOptions::default().min_support)]
        min_support: f64,
        /// How to write the proposals.
        #[arg(long, value_enum, default_value_t)]
        format: MineFormat,
    },
}

#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum Format {
    /// For a person.
    #[default]
    Text,
    /// For a program.
    Json,
}

#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum MineFormat {
    /// A contract file, with what each proposal rests on as a comment.
    #[default]
    Yaml,
    /// For a program.
    Json,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<Outcome, Failure> {
    match args.command {
        Command::Check { paths } => {
            let (contracts, files) = ContractSet::load_paths(&paths).map_err(report::contracts)?;
            let count = |n: usize, what| output::count(n as u64, what);
            let (contracts, files) = (count(contracts.len(), "contract"), count(files, "file"));
            output::line(&format!("{contracts} in {files}: good"));
            Ok(Outcome::Clean)
        }
        Command::Run { paths, source, limit, format } => {
            let (contracts, _) = ContractSet::load_paths(&paths).map_err(report::contracts)?;
            let mut history = History::new(&contracts);
            source.read(|batch| history.observe(batch))?;
            let (report, _) = history.finish(limit);
            match format {
                Format::Text => print_report(&report),
                Format::Json => print_json(&report)?,
            }
            Ok(if report.has_violations() { Outcome::Findings } else { Outcome::Clean })
        }
        Command::Mine { source, min_support, format } => {
            let options = MineOptions { min_support, ..MineOptions::default() };
            let mut miner = Miner::new(options);
            source.read(|batch| miner.observe(batch))?;
            let proposals = miner.propose();
            match format {
                MineFormat::Yaml => output::line(to_yaml(&proposals).trim_end()),
                MineFormat::Json => print_json(&proposals)?,
            }
            Ok(Outcome::Clean)
        }
    }
}

fn print_report(report: &Report) {
    for contract in &report.contracts {
        let verdicts = contract.verdicts.iter().filter(|(_, count)| **count > 0);
        let verdicts: Vec<_> = verdicts.map(|(name, count)| format!("{count} {name}")).collect();
        output::line(&format!(
            "{} ({}): {} activations: {}",
            contract.name,
            contract.kind,
            contract.activations,
            if verdicts.is_empty() { "nothing to judge".to_owned() } else { verdicts.join(", ") }
        ));
        print_instances(contract);
    }
}

fn print_instances(contract: &ContractReport) {
    for instance in &contract.instances {
        let key: Vec<_> =
            contract.key.iter().zip(&instance.key).map(|(k, v)| format!("{k}={v}")).collect();
        let trace = instance.trace_ids.first().map(|id| format!("  trace {id}"));
        output::line(&format!(
            "  {:<10} {}  {}{}",
            instance.verdict.name(),
            instance.activated_at,
            key.join(" "),
            trace.unwrap_or_default()
        ));
    }
    if contract.cut {
        output::line("  and more: raise --limit");
    }
}
