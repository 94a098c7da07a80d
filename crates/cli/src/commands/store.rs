//! `lacuna store check|stats|compact`.

use std::path::PathBuf;
use std::time::Duration;

use indicatif::HumanBytes;
use jiff::Timestamp;
use lacuna_store::{Checked, Finding, Options, Stats, Store};
use serde::Serialize;

use crate::input::{failed, open_store, open_store_to_write, print_json};
use crate::output::Format;
use crate::sizes::bytes;
use crate::times::duration;
use crate::{Failure, Outcome, output};

/// Options of `lacuna store`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Read every byte and compare checksums; exit status 1 if anything is damaged.
    Check(Common),
    /// Say how much there is, from when to when, and where.
    Stats(Common),
    /// Write everything to as few segments as the limit of their size lets it.
    Compact {
        #[command(flatten)]
        common: Common,
        /// Also remove what is older than this, such as 7d.
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        retention_age: Option<Duration>,
        /// Also remove the oldest segments while all have more bytes than this, such as 10GiB.
        #[arg(long, value_name = "BYTES", value_parser = bytes)]
        retention_bytes: Option<u64>,
    },
}

#[derive(Debug, clap::Args)]
struct Common {
    /// Folder that keeps the data. A server may be running on it, unless it is to be compacted: what
    /// is there now is read, of the log what is written as a whole.
    #[arg(long, value_name = "DIR", env = "LACUNA_DATA", default_value = "lacuna-data")]
    data: PathBuf,
    /// How to tell it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<Outcome, Failure> {
    match args.command {
        Command::Check(common) => check(&common),
        Command::Stats(common) => {
            let store = open_store(&common.data)?;
            let stats = store.stats();
            store.close();
            match common.format {
                Format::Text => print_stats(&stats),
                Format::Json => print_json(&stats)?,
            }
            Ok(Outcome::Clean)
        }
        Command::Compact { common, retention_age, retention_bytes } => {
            let mut options = Options::default();
            options.background = false;
            options.retain_for = retention_age;
            options.retain_bytes = retention_bytes;
            compact(&common, options)
        }
    }
}

/// What a check has to say.
#[derive(Serialize)]
struct CheckReport {
    segments: u64,
    log_files: u64,
    /// Other files that are checked: imports.json, MONITOR, FINDINGS.
    other_files: u64,
    bytes: u64,
    /// Places where acknowledged data may be lost.
    damaged: Vec<Finding>,
    /// What else was not as after a clean stop.
    notes: Vec<Finding>,
}

fn check(common: &Common) -> Result<Outcome, Failure> {
    let store = open_store(&common.data)?;
    let total = store.stats();
    let total = Some(total.wal_bytes + total.segment_bytes);
    let bar = output::progress(total, "Checking {wide_bar} {bytes}/{total_bytes}");
    let checked = store.check(|checked| bar.set_position(checked.bytes)).map_err(failed)?;
    bar.finish_and_clear();
    // Opening found some of it already, and some that is out of the check's reach.
    let mut findings = store.recovery().findings.clone();
    findings.extend(
        checked.damaged.into_iter().filter(|found| !store.recovery().findings.contains(found)),
    );
    let (damaged, notes) = findings.into_iter().partition(Finding::is_loss);
    store.close();
    let Checked { segments, log_files, other_files, bytes, .. } = checked.items;
    let report = CheckReport { segments, log_files, other_files, bytes, damaged, notes };
    match common.format {
        Format::Text => print_check(&report),
        Format::Json => print_json(&report)?,
    }
    Ok(if report.damaged.is_empty() { Outcome::Clean } else { Outcome::Findings })
}

fn print_check(report: &CheckReport) {
    let style = output::Style::of_stdout();
    let CheckReport { segments, log_files, other_files, bytes, damaged, notes } = report;
    let (segments, log_files) =
        (output::count(*segments, "segment"), output::count(*log_files, "log file"));
    let others = match other_files {
        0 => String::new(),
        others => format!(", {}", output::count(*others, "other file")),
    };
    output::line(&format!("{segments} and {log_files}{others} read, {}", HumanBytes(*bytes)));
    notes.iter().for_each(|note| output::line(&format!("{note}")));
    if damaged.is_empty() {
        output::line(&style.good("Nothing is damaged."));
        return;
    }
    damaged.iter().for_each(|found| output::line(&format!("{found}")));
    let places = output::count(damaged.len() as u64, "damaged place");
    output::line(&style.bad(&format!("{places}: what they held is lost, the rest is served.")));
}

fn print_stats(stats: &Stats) {
    let style = output::Style::of_stdout();
    let row = |cells: [String; 6]| {
        let [kind, rows, memory, segments, from, to] = cells;
        format!("{kind:<8}{rows:>14}{memory:>14}{segments:>10}  {from:<21}{to}")
    };
    let head = ["", "rows", "in memory", "segments", "from", "to"].map(str::to_owned);
    output::line(&style.bold(row(head).trim_end()));
    for kind in &stats.kinds {
        let at = |nanos: Option<i64>| {
            let at = nanos.and_then(|nanos| Timestamp::from_nanosecond(nanos.into()).ok());
            at.map_or("-".to_owned(), |at| format!("{at:.0}"))
        };
        output::line(&row([
            kind.kind.name().to_owned(),
            (kind.memory_rows + kind.segment_rows).to_string(),
            kind.memory_rows.to_string(),
            kind.segments.to_string(),
            at(kind.bounds.map(|bounds| bounds.min)),
            at(kind.bounds.map(|bounds| bounds.max)),
        ]));
    }
    let segment_rows: u64 = stats.kinds.iter().map(|kind| kind.segment_rows).sum();
    let each = match segment_rows {
        0 => String::new(),
        rows => format!(", {:.1} bytes a row", stats.segment_bytes as f64 / rows as f64),
    };
    output::line("");
    output::line(&format!("segments {}{each}", HumanBytes(stats.segment_bytes)));
    output::line(&format!("log      {}", HumanBytes(stats.wal_bytes)));
}

#[derive(Serialize)]
struct CompactReport {
    before: Stats,
    after: Stats,
}

fn compact(common: &Common, options: Options) -> Result<Outcome, Failure> {
    let store: Store = open_store_to_write(&common.data, options)?;
    let before = store.stats();
    let bar = output::progress(None, "{spinner} Compacting, {elapsed}");
    bar.enable_steady_tick(Duration::from_millis(200));
    let done = store.compact().and_then(|()| store.enforce_retention()).map_err(failed);
    bar.finish_and_clear();
    done?;
    let after = store.stats();
    store.close();
    match common.format {
        Format::Text => {
            let size = |stats: &Stats| HumanBytes(stats.wal_bytes + stats.segment_bytes);
            let segments =
                |stats: &Stats| stats.kinds.iter().map(|kind| kind.segments).sum::<u64>();
            output::line(&format!(
                "{} became {}, {} became {}",
                output::count(segments(&before), "segment"),
                segments(&after),
                size(&before),
                size(&after)
            ));
        }
        Format::Json => print_json(&CompactReport { before, after })?,
    }
    Ok(Outcome::Clean)
}
