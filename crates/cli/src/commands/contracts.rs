//! `lacuna contracts check|run|mine`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use lacuna_contract::Gap;
use lacuna_contract::history::{ContractReport, Report};
use lacuna_contract::mine::{MineOptions, Miner, Proof, to_yaml};
use lacuna_contract::spec::DataCheck;
use lacuna_contract::{ContractSet, LoadErrors};
use miette::miette;

use crate::client::Tls;
use crate::input::print_json;
use crate::judge::judge;
use crate::output::Format;
use crate::remote::Remote;
use crate::source::Source;
use crate::times::{Window, duration};
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
        #[command(flatten)]
        data: Data,
        #[command(flatten)]
        window: Window,
        /// How long data is kept: no deadline may be longer, such as 7d.
        /// With --url, the server's own if not given.
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        retention_age: Option<Duration>,
        /// Take notes for errors: sides that nothing matches, keys that some events lack, a
        /// precedence that looks back further than data is kept.
        #[arg(long)]
        strict: bool,
    },
    /// Run contracts over history and say what became of every obligation.
    Run {
        /// Contract files, or folders of them (*.yaml, *.yml).
        #[arg(required = true, value_name = "FILE|DIR")]
        paths: Vec<PathBuf>,
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        window: Window,
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
        #[command(flatten)]
        window: Window,
        /// Least share of activations that kept the promise, judged by the lower end of its
        /// 95 % confidence interval; between 0 and 1.
        #[arg(long, value_name = "SHARE", default_value_t = MineOptions::default().min_support,
              value_parser = share)]
        min_support: f64,
        /// How to write the proposals.
        #[arg(long, value_enum, default_value_t)]
        format: MineFormat,
    },
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
pub async fn run(args: Args) -> Result<Outcome, Failure> {
    match args.command {
        Command::Check { paths, data, window, retention_age, strict } => {
            check(&paths, data.source(), &window, retention_age, strict).await
        }
        Command::Run { paths, source, window, limit, format } => {
            let range = window.range()?;
            let (contracts, _) = load(&paths)?;
            let (history, read) = judge(&contracts, &source, range).await?;
            let (report, _) = history.finish(limit);
            match format {
                Format::Text => print_report(&report),
                Format::Json => print_json(&report)?,
            }
            Ok(if report.has_violations() { Outcome::Findings } else { read })
        }
        Command::Mine { source, window, min_support, format } => {
            let range = window.range()?;
            let options = MineOptions { min_support, ..MineOptions::default() };
            let mut miner = Miner::new(options);
            let read = source.read(range, |batch| miner.observe(batch)).await?;
            for note in miner.passed_over() {
                output::error(&format!("note: {note}"));
            }
            let mut proposals = miner.propose();
            if source.input.iter().any(|file| file.as_os_str() == "-") {
                let note =
                    "what it proposes was not run over what it read: standard input is there once";
                output::error(&format!("note: {note}"));
            } else if !proposals.is_empty() {
                let mut proof = Proof::new(proposals, min_support).map_err(report::contracts)?;
                if source.input.is_empty() {
                    proof.end_by(Timestamp::now());
                }
                source.read(range, |batch| proof.observe(batch)).await?;
                let (kept, dropped) = proof.finish();
                proposals = kept;
                for note in dropped {
                    output::error(&format!("note: {note}"));
                }
            }
            match format {
                MineFormat::Yaml => output::line(to_yaml(&proposals).trim_end()),
                MineFormat::Json => print_json(&proposals)?,
            }
            Ok(read)
        }
    }
}

/// The contracts of files and folders, and of how many files; no file at all is a mistake.
fn load(paths: &[PathBuf]) -> Result<(ContractSet, usize), Failure> {
    let (contracts, files) = ContractSet::load_paths(paths).map_err(report::contracts)?;
    if files == 0 {
        let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
        return Err(miette!("{}: no contract files there (*.yaml, *.yml)", names.join(", ")));
    }
    Ok((contracts, files))
}

/// Signals that contracts may be held against.
#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("signals").args(["input", "data", "url"]))]
struct Data {
    /// Hold the contracts against these files too: keys that one side never has, sides that match
    /// nothing.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    input: Vec<PathBuf>,
    /// The same against a data folder. A server may be running on it.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The same against a running Lacuna.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    #[command(flatten)]
    tls: Tls,
}

impl Data {
    fn source(self) -> Option<Source> {
        let Self { input, data, url, tls } = self;
        let any = !input.is_empty() || data.is_some() || url.is_some();
        any.then_some(Source { input, data, url, tls })
    }
}

/// How long the server that is read from keeps its data, if it says so.
async fn retention_of(source: &Source) -> Result<Option<Duration>, Failure> {
    let Some(url) = &source.url else { return Ok(None) };
    let told: serde_json::Value = Remote::new(url, &source.tls)?.json("/api/v1/contracts").await?;
    Ok(told["retention_seconds"].as_u64().map(Duration::from_secs))
}

async fn check(
    paths: &[PathBuf],
    source: Option<Source>,
    window: &Window,
    retention_age: Option<Duration>,
    strict: bool,
) -> Result<Outcome, Failure> {
    let range = window.range()?;
    let (contracts, files) = load(paths)?;
    let retention_age = match (retention_age, &source) {
        (None, Some(source)) => retention_of(source).await?,
        (age, _) => age,
    };
    let mut errors = retention_age.map_or(Vec::new(), |age| contracts.beyond_retention(age));
    let mut odd = retention_age.map_or(Vec::new(), |age| contracts.without_bound(age));
    let mut read = Outcome::Clean;
    if let Some(source) = source {
        let mut data = DataCheck::new(&contracts);
        read = source.read(range, |batch| data.observe(batch)).await?;
        let (wrong, noted) = data.finish();
        errors.extend(wrong);
        odd.extend(noted);
    }
    if strict {
        errors.append(&mut odd);
    }
    for note in &odd {
        output::error(&format!("note: {note}"));
    }
    if !errors.is_empty() {
        return Err(report::contracts(LoadErrors { errors }));
    }
    let count = |n: usize, what| output::count(n as u64, what);
    let empty = if contracts.is_empty() { ", which promise nothing" } else { "" };
    let (contracts, files) = (count(contracts.len(), "contract"), count(files, "file"));
    output::line(&format!("{contracts} in {files}{empty}: good"));
    Ok(read)
}

/// A share strictly between 0 and 1.
fn share(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|share: &f64| *share > 0.0 && *share < 1.0)
        .ok_or_else(|| "write a share between 0 and 1, such as 0.995".to_owned())
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
        for note in contract.open.iter().map(|open| &open.why).chain(&contract.health.problems) {
            output::line(&format!("  note: {note}"));
        }
        print_instances(contract);
    }
    report.gaps.iter().for_each(print_gap);
}

fn print_gap(gap: &Gap) {
    let Gap { service, from, .. } = gap;
    let until = gap.to.map_or("the end".to_owned(), |to| to.to_string());
    output::line(&format!(
        "gap: {} sent no {} from {from} to {until}: {} of {} unknown",
        if service.is_empty() { "a service without a name" } else { service },
        gap.signal.name(),
        output::count(gap.obligations, "obligation"),
        gap.contracts.join(", ")
    ));
}

/// Instances of one verdict that a person is shown.
const SHOWN: usize = 20;

fn print_instances(contract: &ContractReport) {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for instance in &contract.instances {
        let seen = seen.entry(instance.verdict.name()).or_default();
        *seen += 1;
        if *seen > SHOWN {
            continue;
        }
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
    for (verdict, seen) in seen.into_iter().filter(|(_, seen)| *seen > SHOWN) {
        output::line(&format!("  and {} more {verdict}: --format json", seen - SHOWN));
    }
    if contract.cut {
        output::line("  and more: raise --limit");
    }
}
