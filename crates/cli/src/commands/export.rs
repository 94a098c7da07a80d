//! `lacuna export`: a data folder, or a part of it, as OTLP requests.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use lacuna_signal::otlp::{decode_json, to_json::to_json};
use lacuna_signal::selector::Selector;
use lacuna_signal::{Batch, SignalKind};
use miette::miette;

use crate::input::{open_store, scan};
use crate::report;
use crate::times::Window;
use crate::{Failure, Outcome, output};

/// Options of `lacuna export`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder that keeps the data. No server may be running on it.
    #[arg(long, value_name = "DIR", env = "LACUNA_DATA", default_value = "lacuna-data")]
    data: PathBuf,
    /// File to write; `-` for standard output. A name that ends in `.gz` or `.zst` is compressed.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    out: PathBuf,
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

/// Writes what was asked for.
pub fn run(args: Args) -> Result<Outcome, Failure> {
    let selector = args.select.as_deref().map(report::selector).transpose()?;
    let range = args.window.range()?;
    let store = open_store(&args.data)?;
    let out = args.out.display().to_string();
    let failed = |error: io::Error| miette!("{out}: cannot be written: {error}");
    let mut sink = open(&args.out).map_err(failed)?;
    let stats = store.stats();
    let total = stats.kinds.iter().map(|kind| kind.memory_rows + kind.segment_rows).sum();
    let bar = output::progress(Some(total), "Exporting {wide_bar} {human_pos}/{human_len} rows");
    let mut rows = 0;
    for kind in SignalKind::ALL {
        if selector.as_ref().is_some_and(|selector: &Selector| selector.kind() != kind) {
            continue;
        }
        scan(&store, kind, selector.as_ref(), range, &mut |batch| {
            let step = args.rows as usize;
            for start in (0..batch.num_rows()).step_by(step) {
                let part = batch.slice(start, step.min(batch.num_rows() - start));
                rows += part.num_rows();
                write(&part, args.format, sink.as_mut(), &out)?;
            }
            bar.set_position(rows as u64);
            Ok(())
        })?;
    }
    sink.finish().map_err(failed)?;
    bar.finish_and_clear();
    if args.out != Path::new("-") {
        output::error(&format!("{rows} rows written to {out}"));
    }
    store.close();
    Ok(Outcome::Clean)
}

fn write(part: &Batch, format: Format, sink: &mut dyn Sink, out: &str) -> Result<(), Failure> {
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

/// Where bytes go; compressed bytes have an end that must be written.
trait Sink: Write {
    fn finish(self: Box<Self>) -> io::Result<()>;
}

type Plain = BufWriter<Box<dyn Write>>;

impl Sink for Plain {
    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.flush()
    }
}

impl Sink for zstd::stream::write::Encoder<'static, Plain> {
    fn finish(self: Box<Self>) -> io::Result<()> {
        (*self).finish()?.flush()
    }
}

impl Sink for flate2::write::GzEncoder<Plain> {
    fn finish(self: Box<Self>) -> io::Result<()> {
        (*self).finish()?.flush()
    }
}

/// Level 19 packs a recording twice as tight as the default and is still faster than a disk.
const ZSTD_LEVEL: i32 = 19;

fn open(path: &Path) -> io::Result<Box<dyn Sink>> {
    let plain: Box<dyn Write> =
        if path == Path::new("-") { Box::new(io::stdout()) } else { Box::new(File::create(path)?) };
    let plain = BufWriter::new(plain);
    Ok(match path.extension().and_then(|extension| extension.to_str()) {
        Some("zst") => Box::new(zstd::stream::write::Encoder::new(plain, ZSTD_LEVEL)?),
        Some("gz") => {
            Box::new(flate2::write::GzEncoder::new(plain, flate2::Compression::default()))
        }
        _ => Box::new(plain),
    })
}
