//! Background work on segments: writing memory to them, merging them, removing old ones.
//!
//! Whatever changes the set of segments happens under the manifest's lock, in this order: files of
//! new segments made durable, manifest replaced, queries switched over, old files removed. A crash
//! between any two steps leaves files that no manifest names, which the next start removes.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lacuna_signal::SignalKind;
use parking_lot::MutexGuard;

use crate::calls::Calls;
use crate::calls::gather::{Of, gather, of_segment};
use crate::chunk::Chunk;
use crate::counters::add;
use crate::error::StoreError;
use crate::manifest::{self, Loaded, Manifest, SegmentMeta};
use crate::part::Part;
use crate::segment::{INDEX_EXTENSION, Segment, build, file_path};
use crate::store::Shared;
use crate::wal::writer::remove_below;

/// Pause after a flush or merge that failed, such as on a full disk.
const RETRY: Duration = Duration::from_secs(5);
/// Merging and retention look around this often.
const ROUND: Duration = Duration::from_secs(10);
/// Segments are of one size if the largest is at most this many times the smallest.
const SIZE_RATIO: u64 = 4;

impl Shared {
    /// The flushing thread.
    pub(crate) fn flush_loop(self: Arc<Self>) {
        loop {
            let woken = self.flush.wait(ROUND);
            if woken.closing {
                return;
            }
            if let Err(error) = guarded(|| self.flush_frozen()) {
                add(&self.meters.flush_failures, 1);
                tracing::error!(%error, "cannot write a segment; its rows stay in memory and log");
                self.flush.wake();
                if !self.flush.pause(RETRY) {
                    return;
                }
            }
        }
    }

    /// The thread of merges and retention.
    pub(crate) fn merge_loop(self: Arc<Self>) {
        loop {
            if self.merge.wait(ROUND).closing {
                return;
            }
            let done = guarded(|| {
                self.enforce_retention()?;
                while !self.merge.is_closing() && self.merge_one(self.options.merge_fan_in)? {}
                Ok(())
            });
            if let Err(error) = done {
                add(&self.meters.merge_failures, 1);
                tracing::error!(%error, "cannot merge segments; they stay as they are");
                if !self.merge.pause(RETRY) {
                    return;
                }
            }
        }
    }

    /// Writes what is frozen to segments and lets go of it in memory and log.
    pub(crate) fn flush_frozen(&self) -> Result<(), StoreError> {
        // One flush at a time; merges go on beside it.
        let _flushing = self.flushing.lock();
        let (floor, frozen) = {
            let state = self.state.read();
            let Some(floor) = state.frozen_floor else { return Ok(()) };
            (floor, SignalKind::ALL.map(|kind| state.table(kind).frozen.clone()))
        };
        let bytes: usize = frozen.iter().flatten().map(|chunk: &Arc<Chunk>| chunk.bytes()).sum();
        self.drain.begin(Instant::now(), bytes);
        let written = self.write_frozen(floor, &frozen);
        self.drain.end(Instant::now(), written.is_ok());
        written?;
        self.memory_bytes.fetch_sub(bytes, Ordering::Relaxed);
        add(&self.meters.flushes, 1);
        self.merge.wake();
        // Files that stay behind because of an error here are removed at the next start.
        let files = self.options.files.as_ref();
        let freed = remove_below(files, &self.closed_logs, floor, &self.meters)?;
        let left = |bytes: u64| Some(bytes.saturating_sub(freed));
        let _ = self.wal_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
        Ok(())
    }

    fn write_frozen(&self, floor: u64, frozen: &[Vec<Arc<Chunk>>; 3]) -> Result<(), StoreError> {
        let wal_first = self.manifest.lock().floor;
        let mut fresh = Vec::new();
        for (kind, chunks) in SignalKind::ALL.into_iter().zip(frozen) {
            let parts: Vec<Arc<dyn Part>> =
                chunks.iter().map(|chunk| chunk.clone() as Arc<dyn Part>).collect();
            let written = (self.options.clock)();
            let meta =
                SegmentMeta { wal_first, wal_end: floor, written, ..SegmentMeta::new(0, kind) };
            let calls = match kind {
                SignalKind::Spans if !parts.is_empty() => {
                    let older = self.state.read().table(kind).segments.clone();
                    Some(gather(&parts, &older, Of::All)?)
                }
                _ => None,
            };
            fresh.extend(self.write_segment(kind, &parts, calls.as_ref(), meta)?);
        }
        let manifest = self.manifest.lock();
        self.publish(manifest, fresh, &[], Some(floor))
    }

    /// Merges one group of segments of about one size, if there are `fan_in` such; whether it did.
    pub(crate) fn merge_one(&self, fan_in: usize) -> Result<bool, StoreError> {
        let _merging = self.merging.lock();
        for kind in SignalKind::ALL {
            let segments = self.state.read().table(kind).segments.clone();
            let group = self.pick(segments, fan_in.max(2));
            if group.is_empty() {
                continue;
            }
            let parts: Vec<Arc<dyn Part>> =
                group.iter().map(|segment| segment.clone() as Arc<dyn Part>).collect();
            let metas = || group.iter().map(|segment| segment.meta());
            let meta = SegmentMeta {
                level: metas().map(|meta| meta.level).max().unwrap_or(0) + 1,
                wal_first: metas().map(|meta| meta.wal_first).min().unwrap_or(0),
                wal_end: metas().map(|meta| meta.wal_end).max().unwrap_or(0),
                replaces: metas().map(|meta| meta.id).collect(),
                written: metas().map(written).max().unwrap_or(0),
                ..SegmentMeta::new(0, kind)
            };
            let replaced = meta.replaces.clone();
            let written = match kind {
                SignalKind::Spans => merged_calls(&group).map(Some),
                _ => Ok(None),
            };
            let written =
                written.and_then(|calls| self.write_segment(kind, &parts, calls.as_ref(), meta));
            let fresh = match written {
                Ok(fresh) => fresh,
                Err(StoreError::Corrupt { path, detail }) => {
                    // Merging would lose what can still be read, so these stay apart.
                    tracing::warn!(path = %path.display(), detail, "damaged segment not merged");
                    add(&self.meters.corruptions, 1);
                    group.iter().for_each(|segment| segment.exclude_from_merges());
                    return Ok(true);
                }
                Err(error) => return Err(error),
            };
            let manifest = self.manifest.lock();
            // Retention may have taken some of them meanwhile; then the rows would come back.
            let current: Vec<u64> = manifest.segments.iter().map(|meta| meta.id).collect();
            if replaced.iter().all(|id| current.contains(id)) {
                self.publish(manifest, fresh.into_iter().collect(), &replaced, None)?;
                add(&self.meters.merges, 1);
            } else {
                fresh.iter().for_each(|segment| self.remove_files(segment.meta().id));
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// Segments to merge. With retention by age, only those whose newest rows lie in one window of
    /// time: a segment goes as a whole, when its newest row is too old.
    fn pick(&self, segments: Vec<Arc<Segment>>, fan_in: usize) -> Vec<Arc<Segment>> {
        let most = self.options.merge_max_rows;
        let Some(window) = self.options.retain_for.map(merge_window) else {
            return pick(segments, fan_in, most);
        };
        let now = (self.options.clock)();
        let mut windows: BTreeMap<i64, Vec<Arc<Segment>>> = BTreeMap::new();
        for segment in segments {
            let number = segment.meta().newest(now).div_euclid(window);
            windows.entry(number).or_default().push(segment);
        }
        let groups = windows.into_values().map(|segments| pick(segments, fan_in, most));
        groups.into_iter().find(|group| !group.is_empty()).unwrap_or_default()
    }

    /// Removes segments that are too old or too many.
    pub(crate) fn enforce_retention(&self) -> Result<(), StoreError> {
        let manifest = self.manifest.lock();
        let now = (self.options.clock)();
        let mut expired: Vec<u64> = Vec::new();
        if let Some(age) = self.options.retain_for {
            let age = i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
            let oldest = now.saturating_sub(age);
            let old = manifest.segments.iter().filter(|meta| meta.newest(now) < oldest);
            expired.extend(old.map(|meta| meta.id));
        }
        if let Some(limit) = self.options.retain_bytes {
            let mut left: Vec<_> =
                manifest.segments.iter().filter(|meta| !expired.contains(&meta.id)).collect();
            left.sort_by_key(|meta| meta.newest(now));
            let mut bytes: u64 = left.iter().map(|meta| meta.bytes()).sum();
            for meta in left {
                if bytes <= limit {
                    break;
                }
                bytes -= meta.bytes();
                expired.push(meta.id);
            }
        }
        if expired.is_empty() {
            return Ok(());
        }
        let gone = manifest.segments.iter().filter(|meta| expired.contains(&meta.id));
        add(&self.meters.rows_expired, gone.map(|meta| u64::from(meta.rows)).sum());
        add(&self.meters.segments_expired, expired.len() as u64);
        self.publish(manifest, Vec::new(), &expired, None)
    }

    fn write_segment(
        &self,
        kind: SignalKind,
        parts: &[Arc<dyn Part>],
        calls: Option<&Calls>,
        meta: SegmentMeta,
    ) -> Result<Option<Arc<Segment>>, StoreError> {
        let id = {
            let mut manifest = self.manifest.lock();
            let id = manifest.next_segment;
            manifest.next_segment += 1;
            id
        };
        let (files, folder) = (self.options.files.as_ref(), self.segment_dir());
        let codec = self.codec.as_ref();
        let written =
            build::write(files, codec, &folder, kind, parts, calls, SegmentMeta { id, ..meta })
                .and_then(|meta| {
                    let Some(meta) = meta else { return Ok(None) };
                    files.sync_dir(&folder).map_err(|e| StoreError::io(&folder, "sync", e))?;
                    add(&self.meters.segment_bytes_written, meta.bytes());
                    Segment::open(files, codec, &folder, id).map(|segment| Some(Arc::new(segment)))
                });
        if written.is_err() {
            self.remove_files(id);
        }
        written
    }

    /// Makes `fresh` part of the store and takes the segments `gone` out of it.
    fn publish(
        &self,
        mut manifest: MutexGuard<'_, Manifest>,
        fresh: Vec<Arc<Segment>>,
        gone: &[u64],
        floor: Option<u64>,
    ) -> Result<(), StoreError> {
        let mut next = Manifest { floor: floor.unwrap_or(manifest.floor), ..manifest.clone() };
        next.segments.retain(|meta| !gone.contains(&meta.id));
        next.segments.extend(fresh.iter().map(|segment| segment.meta().clone()));
        next.segments.sort_by_key(|meta| meta.id);
        if let Err(error) = manifest::save(self.options.files.as_ref(), &self.dir, &next) {
            // If the rename went through and only the sync after it failed, the manifest on disk
            // already names the new files, and they must stay.
            let on_disk = manifest::load(self.options.files.as_ref(), &self.dir);
            if !matches!(on_disk, Ok(Loaded::Manifest(found)) if found == next) {
                fresh.iter().for_each(|segment| self.remove_files(segment.meta().id));
            }
            return Err(error);
        }
        let bytes = next.segments.iter().map(SegmentMeta::bytes).sum();
        *manifest = next;
        let mut state = self.state.write();
        for kind in SignalKind::ALL {
            state.table_mut(kind).segments.retain(|segment| !gone.contains(&segment.meta().id));
        }
        for segment in fresh {
            state.table_mut(segment.kind()).segments.push(segment);
        }
        if floor.is_some() {
            state.thaw();
        }
        drop(state);
        self.segment_bytes.store(bytes, Ordering::Relaxed);
        drop(manifest);
        // Queries that still read them keep them open.
        gone.iter().for_each(|id| self.remove_files(*id));
        Ok(())
    }

    fn remove_files(&self, id: u64) {
        for extension in [self.codec.extension(), INDEX_EXTENSION] {
            let path = file_path(&self.segment_dir(), id, extension);
            match self.options.files.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "cannot remove an old segment");
                }
                _ => {}
            }
        }
    }
}

/// What the spans of `group` add up to.
fn merged_calls(group: &[Arc<Segment>]) -> Result<Calls, StoreError> {
    let all: Vec<Calls> = group.iter().map(of_segment).collect::<Result<_, _>>()?;
    Ok(Calls::merged(&all))
}

/// Runs `work` so that a panic, in a codec say, does not end a thread that others depend on.
fn guarded(work: impl FnOnce() -> Result<(), StoreError>) -> Result<(), StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(StoreError::Panicked))
}

/// Segments whose newest rows are further apart are not merged, in nanoseconds: an eighth of the
/// retention, at least a day, and no more than the retention itself.
fn merge_window(retention: Duration) -> i64 {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let window = (retention / 8).max(DAY).min(retention);
    i64::try_from(window.as_nanos()).unwrap_or(i64::MAX).max(1)
}

/// When a segment's newest rows were written; of one that does not say, its newest row's time.
fn written(meta: &SegmentMeta) -> i64 {
    if meta.written == 0 { meta.bounds.max } else { meta.written }
}

/// `fan_in` or more segments of about one size that together stay below `max_rows`; none if there
/// are not as many. Smallest first, so that a row is rewritten about log(rows) times.
fn pick(mut segments: Vec<Arc<Segment>>, fan_in: usize, max_rows: u64) -> Vec<Arc<Segment>> {
    segments.retain(|segment| segment.may_merge() && u64::from(segment.meta().rows) < max_rows);
    segments.sort_by_key(|segment| (segment.meta().rows, segment.meta().id));
    for start in 0..segments.len() {
        let Some(smallest) = segments.get(start).map(|s| u64::from(s.meta().rows)) else { break };
        let limit = smallest.max(1024).saturating_mul(SIZE_RATIO);
        let mut rows = 0;
        let group: Vec<_> = segments[start..]
            .iter()
            .take_while(|segment| {
                let more = u64::from(segment.meta().rows);
                rows += more;
                more <= limit && rows <= max_rows.max(limit)
            })
            .cloned()
            .collect();
        if group.len() >= fan_in {
            return group;
        }
    }
    Vec::new()
}
