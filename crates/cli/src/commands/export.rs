//! `lacuna export`: what a data folder or a server holds, or a part of it, as OTLP requests.

mod sink;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use lacuna_signal::otlp::{decode_json, to_json::to_json};
use lacuna_signal::selector::Selector;
use lacuna_signal::{Batch, SignalKind};
use miette::miette;

use sink::Sink;

use super::import::stop::Stop;
use crate::client::Tls;
use crate::input::{open_store, scan};
use crate::remote::{Remote, escape};
use crate::report;
use crate::source::range_query;
use crate::times::Window;
use crate::{Failure, Outcome, output};

/// Options of `lacuna export`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder that keeps the data. A server may be running on it: what is there now is written.
    #[arg(long, value_name = "DIR", env = "LACUNA_DATA", default_value = "lacuna-data")]
    data: PathBuf,
    /// Ask a server instead: where it answers queries, such as http://localhost:16686.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    #[command(flatten)]
    tls: Tls,
    /// File to write; `-` for standard output. A name that ends in `.gz` or `.zst` is compressed. The
    /// file gets its name when it is whole; until then it is called FILE.tmp.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    out: PathBuf,
    /// How hard a `.zst` file is packed: 1 is quick, 19 packs a recording twice as tight.
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(i32).range(1..=22))]
    zstd_level: Option<i32>,
    /// How requests are written.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Rows in one request at most.
    #[arg(long, value_name = "ROWS", default_value_t = 1000,
          value_parser = clap::value_parser!(u32).range(1..))]
    rows: u32,
    /// Only what this selects, such as '{ status = error }' or 'log { severity >= warn }'.
    #[arg(long, value_name = "SELECTOR")]
    select: Option<String>,
    #[command(flatten)]
    window: Window,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, clap::ValueEnum)]
enum Format {
    /// A line of JSON each.
    #[default]
    Jsonl,
    /// Protobuf, each after its size in 4 bytes, as the Collector's file exporter writes it.
    Protobuf,
}

/// Writes what was asked for. [`Outcome::Findings`] if damage left some of it out.
pub async fn run(args: Args) -> Result<Outcome, Failure> {
    let selector = args.select.as_deref().map(report::selector).transpose()?;
    let out = args.out.display().to_string();
    let failed = |error: io::Error| miette!("{out}: cannot be written: {error}");
    if args.zstd_level.is_some() && args.out.extension().is_none_or(|ending| ending != "zst") {
        return Err(miette!("--zstd-level is for a file whose name ends in .zst, not for {out}"));
    }
    let mut export = Export {
        step: args.rows as usize,
        format: args.format,
        out: out.clone(),
        sink: sink::open(&args.out, args.zstd_level).map_err(failed)?,
        rows: 0,
        stop: None,
    };
    // What has no name yet is removed when the command ends by itself, so it must. A pipe holds
    // nothing, and whoever does not read from one could keep the command from looking.
    export.stop = export.sink.is_unfinished().then(Stop::listen);
    let stop = export.stop.clone();
    let asked = async {
        match stop {
            Some(stop) => stop.wait().await,
            None => std::future::pending().await,
        }
    };
    let whole = match &args.url {
        Some(url) => tokio::select! {
            whole = from_server(url, &args, selector.as_ref(), &mut export) => whole?,
            () = asked => return Err(interrupted(&out)),
        },
        None => from_folder(&args, selector.as_ref(), &mut export)?,
    };
    export.sink.finish().map_err(failed)?;
    if args.out != Path::new("-") {
        let rows = output::count(export.rows as u64, "row");
        output::error(&format!("{rows} written to {out}"));
    }
    Ok(if whole { Outcome::Clean } else { Outcome::Findings })
}

/// An export under way.
struct Export {
    step: usize,
    format: Format,
    out: String,
    sink: Sink,
    rows: usize,
    stop: Option<Stop>,
}

fn interrupted(out: &str) -> Failure {
    miette!("interrupted: {out} is not written")
}

impl Export {
    fn take(&mut self, batch: &Batch) -> Result<(), Failure> {
        for start in (0..batch.num_rows()).step_by(self.step) {
            if self.stop.as_ref().is_some_and(Stop::asked) {
                return Err(interrupted(&self.out));
            }
            let part = batch.slice(start, self.step.min(batch.num_rows() - start));
            self.rows += part.num_rows();
            write(&part, self.format, &mut self.sink, &self.out)?;
        }
        Ok(())
    }
}

fn from_folder(
    args: &Args,
    selector: Option<&Selector>,
    export: &mut Export,
) -> Result<bool, Failure> {
    let range = args.window.range()?;
    let store = open_store(&args.data)?;
    let stats = store.stats();
    let total = stats.kinds.iter().map(|kind| kind.memory_rows + kind.segment_rows).sum();
    let bar = output::progress(Some(total), "Exporting {wide_bar} {human_pos}/{human_len} rows");
    let mut whole = true;
    for kind in SignalKind::ALL {
        if selector.is_some_and(|selector| selector.kind() != kind) {
            continue;
        }
        whole &= scan(&store, kind, selector, range, &mut |batch| {
            export.take(&batch)?;
            bar.set_position(export.rows as u64);
            Ok(())
        })?;
    }
    bar.finish_and_clear();
    store.close();
    Ok(whole)
}

async fn from_server(
    url: &str,
    args: &Args,
    selector: Option<&Selector>,
    export: &mut Export,
) -> Result<bool, Failure> {
    let range = range_query(args.window.range()?);
    let select = selector.map(|selector| format!("&select={}", escape(&selector.to_string())));
    let path = format!("/api/v1/export?{}{range}", select.unwrap_or_default());
    let bar = output::progress(None, "{spinner} {human_pos} rows exported");
    let whole = Remote::new(url, &args.tls)?
        .lines(&path, &mut |batch| {
            export.take(batch)?;
            bar.set_position(export.rows as u64);
            Ok(())
        })
        .await;
    bar.finish_and_clear();
    whole
}

fn write(part: &Batch, format: Format, sink: &mut Sink, out: &str) -> Result<(), Failure> {
    let json = to_json(part).map_err(|error| miette!("{out}: {error}"))?;
    let failed = |error: io::Error| miette!("{out}: cannot be written: {error}");
    if format == Format::Jsonl {
        return sink.write_all(&json).and_then(|()| sink.write_all(b"\n")).map_err(failed);
    }
    // One writer of each field: JSON. What it wrote is turned over as any request in JSON is.
    let (body, _) = decode_json(part.kind(), &json).map_err(|error| miette!("{out}: {error}"))?;
    let size = u32::try_from(body.len())
        .map_err(|_| miette!("{out}: a request of {} bytes: choose fewer --rows", body.len()))?;
    let written = sink.write_all(&size.to_be_bytes()).and_then(|()| sink.write_all(&body));
    written.map_err(failed)
}
