//! `lacuna export`: a data folder as OTLP/JSON lines.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use lacuna_signal::SignalKind;
use lacuna_signal::otlp::to_json::to_json;
use lacuna_store::TimeRange;
use miette::miette;

use crate::input::open_store;
use crate::{Failure, Outcome, output};

/// Options of `lacuna export`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder that keeps the data. No server may be running on it.
    #[arg(long, value_name = "DIR", env = "LACUNA_DATA", default_value = "lacuna-data")]
    data: PathBuf,
    /// File to write; `-` for standard output. A name that ends in `.zst` is compressed.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    out: PathBuf,
    /// Rows in one line at most.
    #[arg(long, value_name = "ROWS", default_value_t = 1000,
          value_parser = clap::value_parser!(u32).range(1..))]
    rows: u32,
}

/// Writes everything.
pub fn run(args: Args) -> Result<Outcome, Failure> {
    let store = open_store(&args.data)?;
    let out = args.out.display().to_string();
    let failed = |error: std::io::Error| miette!("{out}: cannot be written: {error}");
    let mut sink = open(&args.out).map_err(failed)?;
    let mut rows = 0;
    for kind in SignalKind::ALL {
        let scan =
            store.scan(kind, None, TimeRange::ALL, None, usize::MAX).map_err(|e| miette!("{e}"))?;
        for batch in scan {
            let batch = batch.map_err(|e| miette!("{e}"))?;
            let step = args.rows as usize;
            for start in (0..batch.num_rows()).step_by(step) {
                let part = batch.slice(start, step.min(batch.num_rows() - start));
                rows += part.num_rows();
                let line = to_json(&part).map_err(|e| miette!("{out}: {e}"))?;
                sink.write_all(&line).map_err(failed)?;
                sink.write_all(b"\n").map_err(failed)?;
            }
        }
    }
    sink.finish().map_err(failed)?;
    if args.out != Path::new("-") {
        output::error(&format!("{rows} rows written to {out}"));
    }
    store.close();
    Ok(Outcome::Clean)
}

enum Sink {
    Plain(BufWriter<Box<dyn Write>>),
    Zstd(zstd::stream::write::Encoder<'static, BufWriter<Box<dyn Write>>>),
}

/// Level 19 packs a recording twice as tight as the default and is still faster than a disk.
const ZSTD_LEVEL: i32 = 19;

fn open(path: &Path) -> std::io::Result<Sink> {
    let plain: Box<dyn Write> = if path == Path::new("-") {
        Box::new(std::io::stdout())
    } else {
        Box::new(File::create(path)?)
    };
    let plain = BufWriter::new(plain);
    if path.extension().is_some_and(|e| e == "zst") {
        Ok(Sink::Zstd(zstd::stream::write::Encoder::new(plain, ZSTD_LEVEL)?))
    } else {
        Ok(Sink::Plain(plain))
    }
}

impl Sink {
    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Plain(sink) => sink.write_all(bytes),
            Self::Zstd(sink) => sink.write_all(bytes),
        }
    }

    fn finish(self) -> std::io::Result<()> {
        match self {
            Self::Plain(mut sink) => sink.flush(),
            Self::Zstd(sink) => sink.finish()?.flush(),
        }
    }
}
