//! Opening: putting in order what the last process left behind, and reading the log back.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use lacuna_signal::SignalKind;

use crate::chunk::{Chunk, FULL_ROWS};
use crate::counters::add;
use crate::error::StoreError;
use crate::files::TEMPORARY;
use crate::manifest::{self, Loaded, Manifest};
use crate::report::{Finding, FindingKind, Recovery};
use crate::segment::{INDEX_EXTENSION, Segment, file_path, parse_file_name};
use crate::state::State;
use crate::store::Shared;
use crate::wal::replay::{self, Request};
use crate::wal::writer::Writer;
use crate::wal::{LogFile, frame};

/// Ends the names of segment files that were put aside.
const ASIDE: &str = "damaged";
/// Ends the names of files with what was cut off the log.
const CUT: &str = "cut";

/// A folder that others change while it is read is looked at again this often.
const LOOKS: usize = 20;

/// Brings `shared` to the state in which the last process was when it acknowledged its last write;
/// gives the log's writer and a report.
pub fn recover(shared: &Arc<Shared>) -> Result<(Writer, Recovery), StoreError> {
    let (next, recovery) = read(shared)?;
    tell(shared, &recovery);
    let writer = Writer::new(
        shared.options.files.clone(),
        shared.wal_dir(),
        shared.options.wal_file_bytes,
        shared.meters.clone(),
        shared.closed_logs.clone(),
        next,
    );
    shared.wal_bytes.store(writer.bytes(), Ordering::Relaxed);
    Ok((writer, recovery))
}

/// Reads what is in the folder and changes nothing there; another process may use it meanwhile. The
/// number of the log's next frame, and a report.
///
/// # Errors
/// [`StoreError::Changing`] if the segments did not stay the same for as long as it takes.
pub fn look(shared: &Arc<Shared>) -> Result<(u64, Recovery), StoreError> {
    let files = shared.options.files.as_ref();
    let known = || match manifest::load(files, &shared.dir)? {
        Loaded::Manifest(manifest) => Ok::<_, StoreError>(Some(manifest)),
        Loaded::Absent | Loaded::Damaged(_) => Ok(None),
    };
    for _ in 0..LOOKS {
        let before = known()?;
        let seen = read(shared);
        // Files go after the manifest that no longer names them is there. So if it is still the same,
        // nothing that belongs to it went before it was read.
        if known()? == before {
            let (next, recovery) = seen?;
            tell(shared, &recovery);
            shared.wal_bytes.store(recovery.wal_bytes, Ordering::Relaxed);
            return Ok((next, recovery));
        }
        *shared.state.write() = State::default();
        shared.closed_logs.lock().clear();
        shared.memory_bytes.store(0, Ordering::Relaxed);
        shared.active_bytes.store(0, Ordering::Relaxed);
    }
    Err(StoreError::Changing { path: shared.dir.clone() })
}

fn read(shared: &Arc<Shared>) -> Result<(u64, Recovery), StoreError> {
    let mut recovery = Recovery::default();
    let files = shared.options.files.as_ref();
    let manifest = match manifest::load(files, &shared.dir)? {
        Loaded::Manifest(manifest) => manifest,
        Loaded::Absent => first_manifest(shared, &mut recovery)?,
        Loaded::Damaged(why) => {
            let path = manifest::path(&shared.dir);
            recovery.findings.push(Finding::new(&path, FindingKind::Damaged, why));
            rebuild(shared, &mut recovery)?
        }
    };
    let floor = manifest.floor;
    open_segments(shared, &manifest, &mut recovery)?;
    *shared.manifest.lock() = manifest;
    let next = replay_log(shared, floor, &mut recovery)?;
    shared.answered.store(next, Ordering::Release);
    Ok((next, recovery))
}

fn tell(shared: &Shared, recovery: &Recovery) {
    for finding in &recovery.findings {
        tracing::warn!(path = %finding.path.display(), "{}", finding.detail);
        add(&shared.meters.corruptions, u64::from(finding.is_loss()));
    }
    add(&shared.meters.replayed_requests, recovery.requests);
    add(&shared.meters.replayed_rows, recovery.rows);
}

/// The manifest of a new store, written at once: a folder that cannot be written shows here. If
/// there are segments, the manifest has been lost.
fn first_manifest(shared: &Shared, recovery: &mut Recovery) -> Result<Manifest, StoreError> {
    let files = shared.options.files.as_ref();
    let manifest = rebuild(shared, recovery)?;
    if !manifest.segments.is_empty() {
        let path = manifest::path(&shared.dir);
        let detail = "is not there, though there are segments; put together from them";
        recovery.findings.push(Finding::new(&path, FindingKind::Missing, detail));
    }
    if !shared.read_only {
        manifest::save(files, &shared.dir, &manifest)?;
    }
    Ok(manifest)
}

/// Puts the manifest together from what the segments say of themselves.
///
/// A segment counts if it is whole, no whole segment replaces it, and the log no longer has its
/// rows: log files go only after the manifest has named their segments, the oldest first.
fn rebuild(shared: &Shared, recovery: &mut Recovery) -> Result<Manifest, StoreError> {
    let files = shared.options.files.as_ref();
    let folder = shared.segment_dir();
    let codec = shared.codec.as_ref();
    let (mut whole, mut next_segment) = (Vec::new(), 0);
    for entry in files.list(&folder).map_err(|e| StoreError::io(&folder, "list", e))? {
        let Some((id, extension)) = parse_file_name(&entry.name) else { continue };
        next_segment = next_segment.max(id + 1);
        if extension != INDEX_EXTENSION {
            continue;
        }
        match Segment::open(files, codec, &folder, id) {
            Ok(segment) => whole.push(segment.meta().clone()),
            Err(StoreError::Corrupt { path, detail }) => {
                // Nobody can tell whether it counted. It is put aside, for whoever may mend it.
                let aside = if shared.read_only { "not served" } else { "put aside as *.damaged" };
                let detail = format!("{detail}; {aside}");
                recovery.findings.push(Finding::new(&path, FindingKind::Damaged, detail));
                if shared.read_only {
                    continue;
                }
                for extension in [INDEX_EXTENSION, codec.extension()] {
                    let from = file_path(&folder, id, extension);
                    let _ =
                        files.rename(&from, &from.with_extension(format!("{extension}.{ASIDE}")));
                }
            }
            Err(error) => return Err(error),
        }
    }
    let replaced: Vec<u64> = whole.iter().flat_map(|meta| meta.replaces.clone()).collect();
    let log = replay::log_files(files, &shared.wal_dir())?;
    let log_first = log.first().map_or(u64::MAX, |file| file.first);
    whole.retain(|meta| {
        !replaced.contains(&meta.id) && (!meta.replaces.is_empty() || meta.wal_first < log_first)
    });
    let floor = whole.iter().map(|meta| meta.wal_end).max();
    let floor = floor.or_else(|| log.first().map(|file| file.first)).unwrap_or(0);
    Ok(Manifest { floor, next_segment, segments: whole })
}

/// Opens the segments that `manifest` names and removes the files that it does not.
fn open_segments(
    shared: &Shared,
    manifest: &Manifest,
    recovery: &mut Recovery,
) -> Result<(), StoreError> {
    let files = shared.options.files.as_ref();
    let folder = shared.segment_dir();
    let mut state = shared.state.write();
    for meta in &manifest.segments {
        match Segment::open(files, shared.codec.as_ref(), &folder, meta.id) {
            Ok(segment) => {
                state.table_mut(segment.kind()).segments.push(Arc::new(segment));
                recovery.segments += 1;
            }
            // It stays in the manifest, and its files where they are, for whoever may mend them.
            Err(StoreError::Corrupt { path, detail }) => {
                let detail = format!("{detail}; the segment's {} rows are not served", meta.rows);
                recovery.findings.push(Finding::new(&path, FindingKind::Damaged, detail));
            }
            Err(error) => return Err(error),
        }
    }
    drop(state);
    let bytes = manifest.segments.iter().map(|meta| meta.bytes()).sum();
    shared.segment_bytes.store(bytes, Ordering::Relaxed);
    if shared.read_only {
        // Files of no segment may be of one that another process is writing.
        return Ok(());
    }
    let named = |name: &str| {
        parse_file_name(name).is_some_and(|(id, _)| manifest.segments.iter().any(|m| m.id == id))
    };
    let entries = files.list(&folder).map_err(|e| StoreError::io(&folder, "list", e))?;
    let mut leftovers: Vec<_> = entries
        .iter()
        .filter(|entry| parse_file_name(&entry.name).is_some() && !named(&entry.name))
        .map(|entry| folder.join(&entry.name))
        .collect();
    let entries = files.list(&shared.dir).map_err(|e| StoreError::io(&shared.dir, "list", e))?;
    let temporary = entries.iter().filter(|entry| entry.name.ends_with(TEMPORARY));
    leftovers.extend(temporary.map(|entry| shared.dir.join(&entry.name)));
    for path in leftovers {
        files.remove(&path).map_err(|error| StoreError::io(&path, "remove", error))?;
        let detail = "left behind by a crash; removed";
        recovery.findings.push(Finding::new(&path, FindingKind::Leftover, detail));
    }
    Ok(())
}

/// Reads back all frames from `floor` on; the number for the next frame.
fn replay_log(shared: &Shared, floor: u64, recovery: &mut Recovery) -> Result<u64, StoreError> {
    let files = shared.options.files.as_ref();
    let log = replay::log_files(files, &shared.wal_dir())?;
    let mut next = floor;
    for (i, file) in log.iter().enumerate() {
        let last = i + 1 == log.len();
        if log.get(i + 1).is_some_and(|following| following.first <= floor) {
            // A crash came between the manifest and the removal of this file.
            if !shared.read_only {
                remove(shared, file)?;
            }
            continue;
        }
        if file.first > next {
            let detail = format!("frames {next} to {} are missing before it", file.first - 1);
            recovery.findings.push(Finding::new(&file.path, FindingKind::Missing, detail));
        }
        let contents = replay::read_file(files, file, floor)?;
        recovery.findings.extend(contents.findings);
        let mut bytes = file.bytes;
        if let Some(torn) = contents.torn {
            bytes = torn;
            let cut = file.bytes - torn;
            if last {
                add(&shared.meters.torn_bytes, cut);
            }
            let done = cut_off(shared, file, torn, contents.doubtful)?;
            let detail = format!("ends in an unfinished write: {cut} bytes {done}");
            recovery.findings.push(Finding::new(&file.path, FindingKind::Torn, detail));
            if torn < frame::FILE_HEAD as u64 {
                continue;
            }
        }
        next = next.max(contents.next);
        recovery.requests += contents.requests.len() as u64;
        recovery.wal_bytes += bytes;
        let (rows, findings) = load(shared, file, contents.requests)?;
        recovery.rows += rows;
        recovery.findings.extend(findings);
        shared.closed_logs.lock().push(LogFile { bytes, ..file.clone() });
    }
    Ok(next)
}

/// Cuts off what follows `end` of a log file. If it is `doubtful` whether that was an unfinished write
/// or a damaged frame, its bytes are kept in a file of their own. What was done, in words.
fn cut_off(
    shared: &Shared,
    file: &LogFile,
    end: u64,
    doubtful: bool,
) -> Result<String, StoreError> {
    if shared.read_only {
        return Ok("not read".to_owned());
    }
    let files = shared.options.files.as_ref();
    if end < frame::FILE_HEAD as u64 {
        remove(shared, file)?;
        return Ok("cut off".to_owned());
    }
    let mut done = "cut off".to_owned();
    if doubtful {
        let name = file.path.file_name().unwrap_or_default().to_string_lossy();
        let aside = file.path.with_file_name(format!("{name}.{end}.{CUT}"));
        let bytes = files.read(&file.path);
        let kept = bytes
            .and_then(|bytes| files.replace(&aside, bytes.get(end as usize..).unwrap_or_default()));
        if let Err(error) = kept {
            // They stay where they are, as on a full disk: the next start finds them again.
            return Ok(format!("left there, as {} cannot be written: {error}", aside.display()));
        }
        done = format!("cut off and kept in {}", aside.display());
    }
    let cut = files.truncate(&file.path, end);
    cut.map_err(|error| StoreError::io(&file.path, "cut off", error))?;
    Ok(done)
}

fn remove(shared: &Shared, file: &LogFile) -> Result<(), StoreError> {
    match shared.options.files.remove(&file.path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::io(&file.path, "remove", error))
        }
        _ => Ok(()),
    }
}

/// Decodes `requests` on all cores and puts their rows into memory, in order.
fn load(
    shared: &Shared,
    file: &LogFile,
    requests: Vec<Request>,
) -> Result<(u64, Vec<Finding>), StoreError> {
    if requests.is_empty() {
        return Ok((0, Vec::new()));
    }
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let share = requests.len().div_ceil(workers);
    let decoded: Vec<Result<Decoded, StoreError>> = thread::scope(|scope| {
        let parts: Vec<_> = requests
            .chunks(share)
            .map(|part| scope.spawn(move || decode(shared, file, part)))
            .collect();
        let lost = || StoreError::corrupt(&file.path, "decoding panicked");
        parts.into_iter().map(|part| part.join().unwrap_or_else(|_| Err(lost()))).collect()
    });
    let (mut rows, mut findings) = (0, Vec::new());
    let mut state = shared.state.write();
    for part in decoded {
        let part = part?;
        findings.extend(part.findings);
        for (kind, chunk) in part.chunks {
            rows += chunk.num_rows() as u64;
            shared.memory_bytes.fetch_add(chunk.bytes(), Ordering::Relaxed);
            shared.active_bytes.fetch_add(chunk.bytes(), Ordering::Relaxed);
            state.table_mut(kind).active.push(Arc::new(chunk));
        }
    }
    Ok((rows, findings))
}

#[derive(Default)]
struct Decoded {
    chunks: Vec<(SignalKind, Chunk)>,
    findings: Vec<Finding>,
}

fn decode(shared: &Shared, file: &LogFile, requests: &[Request]) -> Result<Decoded, StoreError> {
    let mut decoded = Decoded::default();
    let mut open: [(usize, Vec<Chunk>); 3] = Default::default();
    for request in requests {
        match (shared.options.decoder)(request.kind, request.body.clone()) {
            Ok(batch) => {
                let slot = usize::from(frame::kind_code(request.kind));
                let Some((rows, received)) = open.get_mut(slot) else { continue };
                *rows += batch.num_rows();
                let frames = request.seq..request.seq + 1;
                received.extend(Chunk::received(batch).map(|chunk| chunk.logged(frames)));
                if *rows >= FULL_ROWS {
                    *rows = 0;
                    close(&mut decoded, request.kind, std::mem::take(received))?;
                }
            }
            Err(why) => decoded.findings.push(Finding::new(
                &file.path,
                FindingKind::Undecodable,
                format!("frame {}: {why}", request.seq),
            )),
        }
    }
    for (kind, (_, received)) in SignalKind::ALL.into_iter().zip(open) {
        close(&mut decoded, kind, received)?;
    }
    Ok(decoded)
}

fn close(decoded: &mut Decoded, kind: SignalKind, received: Vec<Chunk>) -> Result<(), StoreError> {
    decoded.chunks.extend(Chunk::pack(&received)?.map(|chunk| (kind, chunk)));
    Ok(())
}
