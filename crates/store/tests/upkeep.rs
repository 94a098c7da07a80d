//! Budgets, merging, retention, and a manifest that is lost.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use lacuna_signal::SignalKind;
use lacuna_store::files::{Entry, Files, OsFiles, ReadFile, WriteFile};
use lacuna_store::{BusyReason, FindingKind, Options, Store, StoreError, TimeRange};
use parking_lot::{Condvar, Mutex};
use support::*;

fn by_hand() -> Options {
    let mut options = Options::default();
    options.background = false;
    options
}

fn spans(first: u64, count: u64, start: i64) -> Vec<TestSpan> {
    (first..first + count)
        .map(|id| TestSpan::new(u128::from(id), id, "service", "operation", start + id as i64))
        .collect()
}

fn all_ids(store: &Store) -> Vec<u64> {
    let scan = store.scan(SignalKind::Spans, None, TimeRange::ALL, None, usize::MAX).unwrap();
    let mut ids: Vec<u64> = scan.flat_map(|batch| span_ids(&batch.unwrap())).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn old_segments_expire_by_the_clock_and_not_when_it_goes_backwards() {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicI64::new(1_000));
    let mut options = by_hand();
    options.retain_for = Some(Duration::from_nanos(500));
    options.clock = {
        let now = now.clone();
        Arc::new(move || now.load(Ordering::Relaxed))
    };
    let store = Store::open(dir.path(), options).unwrap();
    put_spans(&store, &spans(1, 10, 800));
    store.flush().unwrap();
    put_spans(&store, &spans(100, 10, 1_200));
    store.flush().unwrap();
    for (time, left) in [(1_310, 20), (900, 20), (i64::MIN, 20), (1_311, 10), (0, 10), (9_999, 0)] {
        now.store(time, Ordering::Relaxed);
        store.enforce_retention().unwrap();
        assert_eq!(all_ids(&store).len(), left, "at {time}");
    }
    assert_eq!(store.counters().rows_expired, 20);
    assert_eq!(store.stats().segment_bytes, 0);
    assert_eq!(std::fs::read_dir(dir.path().join("segments")).unwrap().count(), 0);
    put_spans(&store, &spans(200, 5, 10));
    assert_eq!(all_ids(&store), [200, 201, 202, 203, 204]);
}

#[test]
fn the_oldest_segments_make_room() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), by_hand()).unwrap();
    for round in 0..4 {
        put_spans(&store, &spans(1 + 100 * round, 50, 1_000_000 * round as i64));
        store.flush().unwrap();
    }
    let bytes = store.stats().segment_bytes;
    drop(store);
    let mut options = by_hand();
    options.retain_bytes = Some(bytes / 2);
    let store = Store::open(dir.path(), options).unwrap();
    store.enforce_retention().unwrap();
    assert!(store.stats().segment_bytes <= bytes / 2);
    let left = all_ids(&store);
    assert_eq!(left.last(), Some(&350));
    assert!(left.len() >= 50 && left.first().unwrap() > &150);
}

#[test]
fn merging_keeps_every_row_and_removes_the_old_files() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), by_hand()).unwrap();
    for round in 0..5 {
        put_spans(&store, &spans(1 + 1000 * round, 700, 0));
        put_logs(
            &store,
            &[TestLog { trace: 0, span: 0, service: "s".into(), time: 5, body: "b".into() }],
        );
        store.flush().unwrap();
    }
    let before = all_ids(&store);
    // A scan that began before goes on reading what it began with.
    let mut scan =
        store.scan(SignalKind::Spans, None, TimeRange::ALL, Some(&["name"]), usize::MAX).unwrap();
    let first = scan.next().unwrap().unwrap().num_rows();
    store.compact().unwrap();
    let rest: usize = scan.map(|batch| batch.unwrap().num_rows()).sum();
    assert_eq!(first + rest, 3500);
    let stats = store.stats();
    assert_eq!((stats.kinds[0].segments, stats.kinds[1].segments), (1, 1));
    assert_eq!(all_ids(&store), before);
    assert_eq!(std::fs::read_dir(dir.path().join("segments")).unwrap().count(), 4);
    assert_eq!(std::fs::read_dir(dir.path().join("wal")).unwrap().count(), 0);
    drop(store);
    let store = Store::open(dir.path(), by_hand()).unwrap();
    assert_eq!(store.recovery().findings, []);
    assert_eq!(all_ids(&store), before);
}

#[test]
fn a_lost_or_damaged_manifest_is_put_together_again() {
    for lose in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), by_hand()).unwrap();
        put_spans(&store, &spans(1, 100, 0));
        store.flush().unwrap();
        put_spans(&store, &spans(1001, 100, 0));
        store.compact().unwrap();
        put_spans(&store, &spans(2001, 100, 0));
        store.flush().unwrap();
        put_spans(&store, &spans(3001, 100, 0));
        let before = all_ids(&store);
        drop(store);
        let path = dir.path().join("MANIFEST");
        if lose {
            std::fs::remove_file(&path).unwrap();
        } else {
            std::fs::write(&path, "lacuna-store 1 00000000\n{}").unwrap();
        }
        let store = Store::open(dir.path(), by_hand()).unwrap();
        let kinds: Vec<_> = store.recovery().findings.iter().map(|f| f.kind).collect();
        assert_eq!(kinds, [if lose { FindingKind::Missing } else { FindingKind::Damaged }]);
        assert_eq!(all_ids(&store), before);
        store.flush().unwrap();
        drop(store);
        let store = Store::open(dir.path(), by_hand()).unwrap();
        assert_eq!(store.recovery().findings, []);
        assert_eq!(all_ids(&store), before);
    }
}

#[test]
fn the_manifest_does_not_count_rows_twice_that_the_log_still_has() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), by_hand()).unwrap();
    put_spans(&store, &spans(1, 100, 0));
    let log = std::fs::read_dir(dir.path().join("wal")).unwrap().next().unwrap().unwrap().path();
    let kept = std::fs::read(&log).unwrap();
    store.flush().unwrap();
    drop(store);
    // As if a crash had come before the log file was removed, and the manifest got lost.
    std::fs::write(&log, kept).unwrap();
    std::fs::remove_file(dir.path().join("MANIFEST")).unwrap();
    let store = Store::open(dir.path(), by_hand()).unwrap();
    assert_eq!(all_ids(&store), (1..=100).collect::<Vec<_>>());
}

/// Real files; syncs of those in one folder can be made to wait.
#[derive(Clone, Default)]
struct Gate {
    state: Arc<(Mutex<Option<&'static str>>, Condvar)>,
}

impl Gate {
    fn hold(&self, folder: Option<&'static str>) {
        *self.state.0.lock() = folder;
        self.state.1.notify_all();
    }
}

struct GatedWrite(Box<dyn WriteFile>, PathBuf, Gate);

impl WriteFile for GatedWrite {
    fn append(&mut self, parts: &mut [IoSlice<'_>]) -> std::io::Result<()> {
        self.0.append(parts)
    }

    fn sync(&mut self) -> std::io::Result<()> {
        let (state, changed) = &*self.2.state;
        let held = |folder: &mut Option<&str>| folder.is_some_and(|f| self.1.ends_with(f));
        changed.wait_while(&mut state.lock(), held);
        self.0.sync()
    }

    fn truncate(&mut self, len: u64) -> std::io::Result<()> {
        self.0.truncate(len)
    }
}

impl Files for Gate {
    fn create(&self, path: &Path) -> std::io::Result<Box<dyn WriteFile>> {
        let folder = path.parent().unwrap().to_owned();
        Ok(Box::new(GatedWrite(OsFiles.create(path)?, folder, self.clone())))
    }

    fn open(&self, path: &Path) -> std::io::Result<Arc<dyn ReadFile>> {
        OsFiles.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        OsFiles.rename(from, to)
    }

    fn remove(&self, path: &Path) -> std::io::Result<()> {
        OsFiles.remove(path)
    }

    fn truncate(&self, path: &Path, len: u64) -> std::io::Result<()> {
        OsFiles.truncate(path, len)
    }

    fn sync_dir(&self, path: &Path) -> std::io::Result<()> {
        OsFiles.sync_dir(path)
    }

    fn list(&self, path: &Path) -> std::io::Result<Vec<Entry>> {
        OsFiles.list(path)
    }

    fn create_dir(&self, path: &Path) -> std::io::Result<()> {
        OsFiles.create_dir(path)
    }

    fn free_bytes(&self, _: &Path) -> std::io::Result<u64> {
        Ok(u64::MAX)
    }
}

fn busy_reason(result: Result<(), StoreError>) -> Option<BusyReason> {
    match result {
        Err(StoreError::Busy { reason, retry_after }) => {
            assert!(retry_after > Duration::ZERO);
            Some(reason)
        }
        Err(error) => panic!("{error}"),
        Ok(()) => None,
    }
}

#[test]
fn nothing_is_acknowledged_or_visible_before_it_is_synced_and_the_queue_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::default();
    let mut options = by_hand();
    options.files = Arc::new(gate.clone());
    options.queue_bytes = 20_000;
    let store = Store::open(dir.path(), options).unwrap();
    put_spans(&store, &spans(1, 1, 0));
    gate.hold(Some("wal"));
    let (sender, receiver) = mpsc::channel();
    let mut refused = 0;
    for number in 0..100 {
        let body = span_request(&spans(10 + number * 10, 10, 0));
        let batch = decode(SignalKind::Spans, &body);
        let sender = sender.clone();
        store.append(SignalKind::Spans, body, batch, move |result| {
            let _ = sender.send(result);
        });
        // A refusal is told at once; everything else waits for the disk.
        for result in receiver.try_iter() {
            assert_eq!(busy_reason(result), Some(BusyReason::Queue));
            refused += 1;
        }
    }
    assert!(refused > 10 && refused < 100, "{refused}");
    assert_eq!(all_ids(&store), [1]);
    gate.hold(None);
    for _ in refused..100 {
        assert_eq!(busy_reason(receiver.recv().unwrap()), None);
    }
    assert_eq!(all_ids(&store).len(), 1 + 10 * (100 - refused));
    assert_eq!(store.counters().rejected_busy, refused as u64);
}

#[test]
fn memory_and_disk_budgets_refuse_writes_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::default();
    let mut options = by_hand();
    options.memory_bytes = 400_000;
    options.files = Arc::new(gate.clone());
    let store = Store::open(dir.path(), options).unwrap();
    let (mut next, mut stored) = (1, 0);
    let put = |next: &mut u64| {
        let body = span_request(&spans(*next, 100, 0));
        *next += 100;
        let batch = decode(SignalKind::Spans, &body);
        busy_reason(store.append_wait(SignalKind::Spans, body, batch))
    };
    // While no flush can end, memory fills up.
    gate.hold(Some("segments"));
    let refused = loop {
        match put(&mut next) {
            None => stored += 100,
            Some(reason) => break reason,
        }
        assert!(stored < 100_000, "memory is never full");
    };
    assert_eq!(refused, BusyReason::Memory);
    assert_eq!(all_ids(&store).len(), stored);
    gate.hold(None);
    store.flush().unwrap();
    assert_eq!(put(&mut next), None);
    assert_eq!(all_ids(&store).len(), stored + 100);

    let dir = tempfile::tempdir().unwrap();
    let mut options = by_hand();
    options.disk_bytes = Some(30_000);
    let store = Store::open(dir.path(), options).unwrap();
    let mut refused = None;
    for number in 0..200 {
        let body = span_request(&spans(1 + number * 100, 100, 0));
        let batch = decode(SignalKind::Spans, &body);
        refused = refused.or(busy_reason(store.append_wait(SignalKind::Spans, body, batch)));
    }
    assert_eq!(refused, Some(BusyReason::DiskBudget));
    assert!(store.stats().wal_bytes <= 30_000);
}

#[test]
fn an_oversized_request_is_refused_for_its_size() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = by_hand();
    options.frame_bytes = 1000;
    let store = Store::open(dir.path(), options).unwrap();
    let body = span_request(&spans(1, 100, 0));
    let batch = decode(SignalKind::Spans, &body);
    let error = store.append_wait(SignalKind::Spans, body, batch).unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { limit: 1000, .. }), "{error}");
    assert_eq!(store.counters().rejected_too_large, 1);
}

#[test]
fn compressed_logs_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = by_hand();
    options.wal_zstd_level = Some(1);
    let store = Store::open(dir.path(), options.clone()).unwrap();
    put_spans(&store, &spans(1, 500, 0));
    let counters = store.counters();
    assert!(counters.wal_bytes < counters.request_bytes / 2);
    drop(store);
    // What was written compressed and what was not lie side by side.
    options.wal_zstd_level = None;
    let store = Store::open(dir.path(), options.clone()).unwrap();
    put_spans(&store, &spans(501, 500, 0));
    let counters = store.counters();
    assert!(counters.wal_bytes > counters.request_bytes);
    drop(store);
    let store = Store::open(dir.path(), options).unwrap();
    assert_eq!(all_ids(&store).len(), 1000);
}

#[test]
fn room_is_promised_once_and_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = by_hand();
    options.memory_bytes = 10_000;
    options.frame_bytes = 50_000;
    let store = Store::open(dir.path(), options).unwrap();
    let no_room = |bytes| match store.admit(bytes) {
        Err(StoreError::Busy { reason: BusyReason::Memory, retry_after }) => !retry_after.is_zero(),
        _ => false,
    };
    let first = store.admit(3000).unwrap();
    assert!(no_room(3000), "twice 6000 bytes do not fit");
    let second = store.admit(1000).unwrap();
    drop(first);
    let third = store.admit(3000).unwrap();
    assert!(no_room(3000));
    drop((second, third));
    // A request that can never fit is taken when there is nothing else.
    drop(store.admit(40_000).unwrap());
    assert!(matches!(store.admit(50_001), Err(StoreError::TooLarge { .. })));
    assert_eq!(store.counters().rejected_busy, 2);
    // What was admitted is let in, and its room is free once it is committed.
    let body = span_request(&spans(1, 2, 100));
    let batch = decode(SignalKind::Spans, &body);
    let (sender, receiver) = mpsc::sync_channel(1);
    let admission = store.admit(body.len()).unwrap();
    store.append_admitted(admission, SignalKind::Spans, body, batch, move |result| {
        sender.send(result).unwrap();
    });
    receiver.recv().unwrap().unwrap();
    store.flush().unwrap();
    assert_eq!(all_ids(&store), [1, 2]);
    drop(store.admit(5000).unwrap());
}
