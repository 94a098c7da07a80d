//! `lacuna import`: files of OTLP requests into a data folder, or to a running server.

mod folder;
mod identity;
mod journal;
mod server;
pub mod stop;

use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::ProgressBar;
use lacuna_signal::SignalKind;
use lacuna_signal::otlp::file::ReadRequest;
use miette::{IntoDiagnostic, miette};
use serde::Serialize;

use crate::client::Tls;
use crate::input::{InputFile, Outcome as Request, Problems, print_json};
use crate::output::Format;
use crate::times::duration;
use crate::{Failure, Outcome, output};
use folder::Folder;
use server::{Partial, Server};
use stop::Stop;

/// Options of `lacuna import`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit status: 0 all was imported, 1 something in the files was refused and \
                        the rest imported, 2 wrong use, interrupted, or a broken environment."
)]
pub struct Args {
    /// Files of OTLP requests: a line each in JSON, or as the Collector's file exporter writes
    /// them; plain, gzip or zstd; `-` for standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Folder that keeps the data, made if it is not there. No server may be running on it.
    #[arg(
        long,
        value_name = "DIR",
        env = "LACUNA_DATA",
        default_value = "lacuna-data",
        conflicts_with = "url"
    )]
    data: PathBuf,
    /// Send to a server instead: where it takes OTLP/HTTP, such as http://localhost:4318.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    #[command(flatten)]
    tls: Tls,
    /// Folder in which to remember how far files were sent to a server; by default
    /// lacuna/imports in the user's state folder.
    #[arg(long, value_name = "DIR", env = "LACUNA_JOURNAL", requires = "url")]
    journal: Option<PathBuf>,
    /// How long to try a server again that cannot be reached.
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = duration,
          requires = "url")]
    retry_for: Duration,
    /// Import files from their beginning, even if they were imported before.
    #[arg(long)]
    again: bool,
    /// Problems of a file that are each told; the others are counted.
    #[arg(long, value_name = "N", default_value_t = 20)]
    max_errors: u64,
    /// How to tell what was imported.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Where requests go.
trait Target {
    /// Makes ready for `path`; how many of its requests are not wanted, from the first.
    fn begin(&mut self, path: &Path, name: &str, again: bool) -> Result<u64, Failure>;
    /// Takes the request with this number in its file, from 0.
    fn take(&mut self, number: u64, request: ReadRequest) -> Result<Taken, Failure>;
    /// The first `passed` requests of the file are done with. Called often.
    fn passed(&mut self, passed: u64) -> Result<(), Failure>;
    /// Returns when all that was taken of the file is durable and is known to be.
    fn end(&mut self, passed: u64) -> Result<(), Failure>;
    /// Returns when nothing is left to do.
    fn close(&mut self) -> Result<(), Failure>;
}

/// What became of a request.
enum Taken {
    /// It is new; what of it was refused.
    New(Option<Partial>),
    /// It had been imported before.
    Before,
    /// It will never be taken, and why.
    Refused(String),
    /// An end was asked for before anything became of it.
    Stopped,
}

/// What became of a file.
#[derive(Debug, Serialize)]
struct Report {
    file: String,
    /// Requests stored.
    requests: u64,
    /// Requests that an earlier import had stored.
    before: u64,
    /// Requests that could be read, and were refused where they were to be stored.
    refused: u64,
    spans: u64,
    log_records: u64,
    metric_points: u64,
    problems: Problems,
}

/// Imports every file; the good ones even if others are bad.
pub async fn run(args: Args) -> Result<Outcome, Failure> {
    let stop = Stop::listen();
    let done = tokio::task::spawn_blocking(move || import(&args, &stop));
    done.await.into_diagnostic()?
}

fn import(args: &Args, stop: &Stop) -> Result<Outcome, Failure> {
    let mut target: Box<dyn Target> = match &args.url {
        Some(url) => {
            let journal = args.journal.clone().or_else(journal::usual_folder);
            Box::new(Server::new(url, &args.tls, journal, args.retry_for, stop.clone())?)
        }
        None => Box::new(Folder::open(&args.data, stop.clone())?),
    };
    let (mut reports, mut failed) = (Vec::new(), None);
    for path in &args.files {
        match import_file(args, path, target.as_mut(), stop) {
            Ok(report) => reports.push(report),
            Err(failure) => {
                failed.get_or_insert(failure);
                break;
            }
        }
    }
    target.close()?;
    match args.format {
        Format::Text => reports.iter().for_each(|report| output::error(&report.words())),
        Format::Json => print_json(&reports)?,
    }
    match failed {
        Some(failure) => Err(failure),
        None if reports.iter().all(|report| report.problems.is_empty()) => Ok(Outcome::Clean),
        None => Ok(Outcome::Findings),
    }
}

fn import_file(
    args: &Args,
    path: &Path,
    target: &mut dyn Target,
    stop: &Stop,
) -> Result<Report, Failure> {
    let mut file = InputFile::open(path, args.max_errors)?;
    let skip = target.begin(path, &file.name, args.again)?;
    let bar = progress(path);
    let mut report = Report {
        file: file.name.clone(),
        requests: 0,
        before: 0,
        refused: 0,
        spans: 0,
        log_records: 0,
        metric_points: 0,
        problems: file.problems.clone(),
    };
    let copied = copy(&mut file, skip, target, &bar, stop, &mut report);
    bar.finish_and_clear();
    // Also after a failure: what was taken is to be known as taken.
    let (passed, copied) = match copied {
        Ok(passed) => (passed, Ok(())),
        Err((passed, failure)) => (passed, Err(failure)),
    };
    let ended = target.end(passed);
    file.problems.conclude();
    copied.and(ended)?;
    if report.requests + report.before == 0 && !file.problems.is_empty() {
        let what = if report.refused > 0 {
            "nothing of it was taken"
        } else {
            "nothing in it can be read"
        };
        return Err(miette!("{}: {what}", file.name));
    }
    report.problems = file.problems;
    Ok(report)
}

/// Hands the file's requests to `target`; how many of them, from the first, are done with.
fn copy(
    file: &mut InputFile,
    skip: u64,
    target: &mut dyn Target,
    bar: &ProgressBar,
    stop: &Stop,
    report: &mut Report,
) -> Result<u64, (u64, Failure)> {
    let mut passed = 0;
    loop {
        let requests = file.next_requests(skip).map_err(|failure| (passed, failure))?;
        if requests.is_empty() {
            return Ok(passed);
        }
        for request in requests {
            match request {
                Request::Skipped => report.before += 1,
                // It may be written on, so it is not done with.
                Request::CutOff => return Ok(passed),
                Request::Unreadable => {}
                Request::Read(place, request) => {
                    let rows = request.decoded.batch.num_rows() as u64;
                    let kind = request.kind;
                    match target.take(passed, *request).map_err(|failure| (passed, failure))? {
                        Taken::New(partial) => {
                            let rejected = partial.as_ref().map_or(0, |partial| partial.rejected);
                            report.count(kind, rows.saturating_sub(rejected));
                            if let Some(Partial { rejected, message }) = partial {
                                file.problems.rejected_items += rejected;
                                file.problems.tell(&place, &message);
                            }
                        }
                        Taken::Before => report.before += 1,
                        Taken::Refused(why) => {
                            report.refused += 1;
                            file.problems.tell(&place, &why);
                        }
                        Taken::Stopped => return Err((passed, interrupted(&file.name))),
                    }
                }
            }
            passed += 1;
            target.passed(passed).map_err(|failure| (passed, failure))?;
        }
        bar.set_position(file.bytes_read());
        if stop.asked() {
            return Err((passed, interrupted(&file.name)));
        }
    }
}

fn interrupted(file: &str) -> Failure {
    miette!("interrupted in {file}: run it again, it goes on from there")
}

impl Report {
    fn count(&mut self, kind: SignalKind, rows: u64) {
        self.requests += 1;
        *match kind {
            SignalKind::Spans => &mut self.spans,
            SignalKind::Logs => &mut self.log_records,
            SignalKind::Points => &mut self.metric_points,
        } += rows;
    }

    fn words(&self) -> String {
        let counts = [
            (self.spans, "span"),
            (self.log_records, "log record"),
            (self.metric_points, "metric point"),
        ];
        let counts: Vec<String> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| output::count(*count, what))
            .collect();
        let mut words = format!("{}: ", self.file);
        words += &match (counts.is_empty(), self.before) {
            (true, 0) => "nothing to import".to_owned(),
            (true, _) => "nothing new, it was imported before".to_owned(),
            (false, _) => {
                format!("{} in {}", counts.join(", "), output::count(self.requests, "request"))
            }
        };
        if self.before > 0 && !counts.is_empty() {
            words += &format!(", after {} that were imported before", self.before);
        }
        let problems = &self.problems;
        if problems.unreadable_requests > 0 {
            words +=
                &format!("; {} unreadable", output::count(problems.unreadable_requests, "request"));
        }
        if self.refused > 0 {
            words += &format!("; {} refused", output::count(self.refused, "request"));
        }
        if problems.rejected_items > 0 {
            words += &format!("; {} refused", output::count(problems.rejected_items, "item"));
        }
        words
    }
}

fn progress(path: &Path) -> ProgressBar {
    let size = std::fs::metadata(path).ok().filter(|m| m.is_file()).map(|m| m.len());
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let template = "{msg} {wide_bar} {bytes}/{total_bytes} {eta}";
    output::progress(size, template).with_message(name.into_owned())
}
