//! Temporary room on disk, what it holds, and what writing to it costs by itself.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::BenchError;
use crate::generate::Workload;
use crate::process;
use crate::stats::Samples;

/// Bytes by file name extension.
pub fn by_kind(dir: &Path) -> BTreeMap<String, u64> {
    let mut kinds = BTreeMap::new();
    walk(dir, &mut |path, bytes| {
        let kind = path.extension().map_or("other".into(), |e| e.to_string_lossy().into_owned());
        *kinds.entry(kind).or_default() += bytes;
    });
    kinds
}

fn walk(dir: &Path, seen: &mut impl FnMut(&Path, u64)) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => walk(&entry.path(), seen),
            Ok(meta) => seen(&entry.path(), meta.len()),
            // A file may be merged away between listing and asking.
            Err(_) => {}
        }
    }
}

/// All files below `dir`.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    walk(dir, &mut |path, _| files.push(path.to_owned()));
    files
}

/// Bytes of all files below `dir`.
pub fn bytes(dir: &Path) -> u64 {
    by_kind(dir).values().sum()
}

/// Waits until neither the folder's size nor the server's processor time has changed for
/// `quiet`, at most `limit`. Whether it did.
pub async fn settled(
    dir: &Path,
    server: &crate::server::Server,
    quiet: Duration,
    limit: Duration,
) -> Result<bool, BenchError> {
    let begun = Instant::now();
    let mut last = (0, 0.0);
    let mut since = Instant::now();
    while begun.elapsed() < limit {
        let now = (bytes(dir), server.cpu()?.total());
        // A server at rest still looks at its clock.
        if now.0 != last.0 || now.1 - last.1 > 0.05 {
            since = Instant::now();
            last = now;
        } else if since.elapsed() >= quiet {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    Ok(false)
}

/// Has the system forget what it keeps in memory of the files below `dir`.
pub fn forget_pages(dir: &Path) -> Result<(), BenchError> {
    for path in files(dir) {
        let file = std::fs::File::open(&path).map_err(BenchError::io("cannot open a data file"))?;
        file.sync_all()?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)
            .map_err(|error| BenchError::io("fadvise")(error.into()))?;
    }
    Ok(())
}

/// What writing the same bytes to one file costs.
#[derive(Debug)]
pub struct RawWrite {
    /// Bytes written.
    pub bytes: u64,
    /// Spans in them.
    pub spans: u64,
    /// Time for all of it.
    pub took: Duration,
    /// Time of each write with its `fdatasync`.
    pub latency: Samples,
    /// Processor time, making the load left out.
    pub cpu: f64,
}

/// Writes `requests` requests to a file in `dir`, `group` requests to an `fdatasync`.
pub fn raw_write(
    load: &Workload,
    dir: &Path,
    requests: u64,
    group: u64,
) -> Result<RawWrite, BenchError> {
    let path = dir.join("raw");
    let mut file = std::fs::File::create(&path).map_err(BenchError::io("cannot write"))?;
    let mut done = RawWrite {
        bytes: 0,
        spans: 0,
        took: Duration::ZERO,
        latency: Samples::default(),
        cpu: 0.0,
    };
    let mut next = 0;
    while next < requests {
        let bodies: Vec<_> = (next..(next + group).min(requests)).map(|n| load.traces(n)).collect();
        next += group;
        let before = process::cpu(std::process::id())?;
        let at = Instant::now();
        for (body, spans) in &bodies {
            file.write_all(body).map_err(BenchError::io("cannot write"))?;
            done.bytes += body.len() as u64;
            done.spans += spans;
        }
        file.sync_data().map_err(BenchError::io("cannot fdatasync"))?;
        done.latency.push(at.elapsed());
        done.took += at.elapsed();
        done.cpu += process::cpu(std::process::id())?.since(before).total();
    }
    drop(file);
    std::fs::remove_file(path).map_err(BenchError::io("cannot remove"))?;
    Ok(done)
}
