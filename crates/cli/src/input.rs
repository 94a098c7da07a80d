//! Reading signals from files of OTLP/JSON lines and from data folders.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use lacuna_signal::otlp::{Decoded, decode, decode_json, json_kind};
use lacuna_signal::{Batch, SignalKind};
use lacuna_store::{Options, Store, TimeRange};
use miette::{IntoDiagnostic, miette};

use crate::{Failure, output};

/// Lines that cannot be read are each told, up to so many.
const MAX_COMPLAINTS: u64 = 10;

/// Where signals are read from.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Source {
    /// Files of OTLP/JSON lines, one export request a line; plain, gzip or zstd.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    input: Vec<PathBuf>,
    /// Folder that keeps the data. No server may be running on it.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl Source {
    /// Hands every batch of spans and logs to `take`.
    pub fn read(&self, mut take: impl FnMut(&Batch)) -> Result<(), Failure> {
        if let Some(data) = &self.data {
            return read_store(data, &mut take);
        }
        self.input.iter().try_for_each(|file| read_file(file, &mut take))
    }
}

/// Opens a data folder that exists. Opening would make an empty store where there is none, and a
/// misspelt name look like no data.
pub fn open_store(data: &Path) -> Result<Store, Failure> {
    if !data.join("wal").is_dir() {
        return Err(miette!("{}: there is no such data folder", data.display()));
    }
    Store::open(data, Options::default()).map_err(|error| miette!("{error}"))
}

fn read_store(data: &Path, take: &mut impl FnMut(&Batch)) -> Result<(), Failure> {
    let store = open_store(data)?;
    for kind in [SignalKind::Spans, SignalKind::Logs] {
        let scan = store.scan(kind, None, TimeRange::ALL, None, usize::MAX);
        for batch in scan.map_err(|error| miette!("{error}"))? {
            take(&batch.map_err(|error| miette!("{error}"))?);
        }
    }
    store.close();
    Ok(())
}

fn read_file(path: &Path, take: &mut impl FnMut(&Batch)) -> Result<(), Failure> {
    let name = path.display();
    let lines = open(path).map_err(|error| miette!("{name}: cannot be read: {error}"))?;
    let (mut good, mut bad) = (0u64, 0u64);
    let mut complain = |line: usize, why: &str| {
        bad += 1;
        if bad <= MAX_COMPLAINTS {
            output::error(&format!("{name}:{line}: {why}"));
        }
    };
    for (i, text) in lines.split(b'\n').enumerate() {
        let text = text.map_err(|error| miette!("{name}: cannot be read: {error}"))?;
        if text.trim_ascii().is_empty() {
            continue;
        }
        match read_line(&text) {
            Ok(decoded) => {
                good += 1;
                if !decoded.rejected.is_empty() {
                    complain(i + 1, &decoded.rejected.message());
                }
                take(&decoded.batch);
            }
            Err(why) => complain(i + 1, &why),
        }
    }
    if bad > MAX_COMPLAINTS {
        output::error(&format!("{name}: {} more lines with problems", bad - MAX_COMPLAINTS));
    }
    if good == 0 && bad > 0 {
        return Err(miette!("{name}: nothing in it can be read"));
    }
    Ok(())
}

fn read_line(text: &[u8]) -> Result<Decoded, String> {
    let Some(kind) = json_kind(text).map_err(|error| error.to_string())? else {
        return Err("not an OTLP/JSON export request: expected an object with resourceSpans, \
                    resourceLogs or resourceMetrics"
            .to_owned());
    };
    let (body, refused) = decode_json(kind, text).map_err(|error| error.to_string())?;
    let mut decoded = decode(kind, body).map_err(|error| error.to_string())?;
    decoded.rejected.merge(refused);
    Ok(decoded)
}

/// The file's bytes, decompressed by what they begin with.
fn open(path: &Path) -> std::io::Result<Box<dyn BufRead>> {
    let mut file = BufReader::new(File::open(path)?);
    let start = file.fill_buf()?;
    let decoded: Box<dyn Read> = if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::read::MultiGzDecoder::new(file))
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Box::new(zstd::stream::read::Decoder::with_buffer(file)?)
    } else {
        return Ok(Box::new(file));
    };
    Ok(Box::new(BufReader::with_capacity(1 << 20, decoded)))
}

/// Writes `value` as JSON to standard output.
pub fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    output::line(&serde_json::to_string_pretty(value).into_diagnostic()?);
    Ok(())
}
