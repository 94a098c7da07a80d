//! A store that is only read changes nothing in its folder, and reads beside a process that does.
#![allow(clippy::unwrap_used, reason = "tests say what broke by panicking")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lacuna_signal::SignalKind;
use lacuna_store::{FindingKind, Import, Options, Store, StoreError, TimeRange};
use support::{TestSpan, decode, put_spans, span_request};

fn small() -> Options {
    let mut options = Options::default();
    options.flush_bytes = 64 << 10;
    options.wal_file_bytes = 8 << 10;
    options.merge_fan_in = 2;
    options
}

fn spans(number: u64) -> Vec<TestSpan> {
    let span = |i| TestSpan::new(u128::from(number) + 1, number * 10 + i, "s", "o", 1 + i as i64);
    (1..=10).map(span).collect()
}

fn count(store: &Store) -> u64 {
    let scan = store.scan(SignalKind::Spans, None, TimeRange::ALL, None, usize::MAX).unwrap();
    scan.map(|batch| batch.unwrap().num_rows() as u64).sum()
}

/// Every file with its bytes.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.display().to_string(), std::fs::read(&path).unwrap());
        }
    }
    found
}

/// Segments that are due to be merged, a torn log, files that a crash left behind, an import that did
/// not end: all is read, and nothing put in order.
#[test]
fn nothing_in_the_folder_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = small();
    options.background = false;
    let store = Store::open(dir.path(), options).unwrap();
    for number in 0..6 {
        put_spans(&store, &spans(number));
        if number < 5 {
            store.flush().unwrap();
        }
    }
    let import = Import::new("day.otlp.jsonl", 17, 4711);
    store.save_import(&import, &import, true).unwrap();
    drop(store);
    std::fs::write(dir.path().join("MANIFEST.tmp"), b"half a manifest").unwrap();
    std::fs::write(dir.path().join("segments/000000000099.parquet"), b"half a segment").unwrap();
    let log = std::fs::read_dir(dir.path().join("wal")).unwrap();
    let log = log.map(|entry| entry.unwrap().path()).max().unwrap();
    let mut bytes = std::fs::read(&log).unwrap();
    bytes.extend_from_slice(b"LFrm and no more");
    std::fs::write(&log, bytes).unwrap();
    let before = files(dir.path());

    let store = Store::open_read_only(dir.path(), small()).unwrap();
    assert_eq!(count(&store), 60);
    let kinds: Vec<_> = store.recovery().findings.iter().map(|found| found.kind).collect();
    assert_eq!(kinds, [FindingKind::Torn]);
    assert!(store.check(|_| {}).unwrap().damaged.is_empty());
    assert_eq!(store.stats().kinds[0].segments, 5);
    let body = span_request(&spans(7));
    let batch = decode(SignalKind::Spans, &body);
    for refused in [
        store.append_wait(SignalKind::Spans, body, batch),
        store.flush(),
        store.compact(),
        store.enforce_retention(),
        store.save_import(&import, &import, false),
    ] {
        assert!(matches!(refused, Err(StoreError::ReadOnly)), "{refused:?}");
    }
    store.close();
    assert_eq!(count(&store), 60);
    drop(store);
    assert_eq!(files(dir.path()), before);
}

/// Damaged, the manifest is put together from the segments, in memory.
#[test]
fn a_damaged_manifest_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), small()).unwrap();
    put_spans(&store, &spans(0));
    store.flush().unwrap();
    drop(store);
    let path = dir.path().join("MANIFEST");
    for damage in [Some(b"lacuna-store 1 00000000\n{}".as_slice()), None] {
        match damage {
            Some(bytes) => std::fs::write(&path, bytes).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let before = files(dir.path());
        let store = Store::open_read_only(dir.path(), small()).unwrap();
        assert_eq!(count(&store), 10);
        assert_eq!(store.recovery().findings.len(), 1);
        drop(store);
        assert_eq!(files(dir.path()), before);
    }
}

/// Beside a store that is written, flushed and merged all the time, whatever was acknowledged when
/// reading began is read, whole.
#[test]
fn it_reads_beside_a_writer() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), small()).unwrap();
    put_spans(&store, &spans(0));
    let (acknowledged, end) = (AtomicU64::new(10), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1.. {
                put_spans(&store, &spans(number));
                acknowledged.fetch_add(10, Ordering::Release);
                if number % 7 == 0 {
                    store.flush().unwrap();
                }
                if end.load(Ordering::Acquire) {
                    return;
                }
            }
        });
        for _ in 0..40 {
            let before = acknowledged.load(Ordering::Acquire);
            let reader = Store::open_read_only(dir.path(), small()).unwrap();
            let seen = count(&reader);
            assert!(seen >= before && seen.is_multiple_of(10), "{seen} of {before}");
            let checked = reader.check(|_| {}).unwrap();
            assert!(checked.damaged.is_empty(), "{:?}", checked.damaged);
            let losses: Vec<_> =
                reader.recovery().findings.iter().filter(|found| found.is_loss()).collect();
            assert!(losses.is_empty(), "{losses:?}");
        }
        end.store(true, Ordering::Release);
    });
    assert_eq!(count(&store), acknowledged.load(Ordering::Acquire));
}
