//! Reading signals from files of OTLP requests; opening and scanning data folders.

mod file;

use std::path::Path;

use lacuna_signal::otlp::file::ReadRequest;
use lacuna_signal::selector::Selector;
use lacuna_signal::{Batch, SignalKind};
use lacuna_store::{Options, Store, TimeRange};
use miette::{IntoDiagnostic, miette};

use crate::{Failure, output};

pub use file::{InputFile, Outcome, Problems};

/// Problems of a file are each told, up to so many, unless the command says otherwise.
const MAX_COMPLAINTS: u64 = 10;

/// Opens a data folder to read it as it is now. A server may be running on it: nothing there is
/// changed.
pub fn open_store(data: &Path) -> Result<Store, Failure> {
    exists(data)?;
    Store::open_read_only(data, Options::default()).map_err(failed)
}

/// Opens a data folder that exists, to change it.
pub fn open_store_to_write(data: &Path, options: Options) -> Result<Store, Failure> {
    exists(data)?;
    Store::open(data, options).map_err(failed)
}

/// Opening would make an empty store where there is none, and a misspelt name look like no data.
fn exists(data: &Path) -> Result<(), Failure> {
    if data.join("wal").is_dir() {
        return Ok(());
    }
    Err(miette!("{}: there is no such data folder", data.display()))
}

/// What the store says, as a report.
pub fn failed(error: lacuna_store::StoreError) -> Failure {
    use lacuna_store::StoreError;
    match &error {
        StoreError::Locked { .. } => miette!(
            "{error}: end that, or ask it instead, with `lacuna query … --url \
             http://localhost:16686`, `lacuna import --url http://localhost:4318 …` and its /metrics"
        ),
        _ => miette!("{error}"),
    }
}

/// Hands what `selector` selects in `range` to `take`; tells on standard error of what is damaged
/// and so missing. Whether nothing is.
pub fn scan(
    store: &Store,
    kind: SignalKind,
    selector: Option<&Selector>,
    range: TimeRange,
    take: &mut impl FnMut(Batch) -> Result<(), Failure>,
) -> Result<bool, Failure> {
    let mut scan = store.scan(kind, selector, range, None, usize::MAX).map_err(failed)?;
    for batch in scan.by_ref() {
        take(batch.map_err(failed)?)?;
    }
    for finding in scan.damaged() {
        output::error(&format!("{finding}; what it held is missing here"));
    }
    Ok(scan.damaged().is_empty())
}

/// Hands every batch of a file to `take`.
pub fn read_file(path: &Path, take: &mut impl FnMut(&Batch)) -> Result<(), Failure> {
    read_requests(path, &mut |request| {
        take(&request.decoded.batch);
        Ok(())
    })
}

/// Hands every request of the file `path` to `take`; tells what is wrong in it.
pub fn read_requests(
    path: &Path,
    take: &mut impl FnMut(ReadRequest) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut file = InputFile::open(path, MAX_COMPLAINTS)?;
    let mut good = 0u64;
    loop {
        let requests = file.next_requests(0)?;
        if requests.is_empty() {
            break;
        }
        for request in requests {
            if let Outcome::Read(_, request) = request {
                good += 1;
                take(*request)?;
            }
        }
    }
    file.problems.conclude();
    if good == 0 && !file.problems.is_empty() {
        return Err(miette!("{}: nothing in it can be read", file.name));
    }
    Ok(())
}

/// Writes `value` as JSON to standard output.
pub fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    output::line(&serde_json::to_string_pretty(value).into_diagnostic()?);
    Ok(())
}
