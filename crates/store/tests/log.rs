//! Frames of the log: what is said twice is not lost with one of them, and what is cut off is kept.
#![allow(clippy::unwrap_used, reason = "tests say what broke by panicking")]

mod support;

use std::path::{Path, PathBuf};

use lacuna_store::{FindingKind, Options, Store, TimeRange};
use support::{TestSpan, put_spans};

const HEAD: usize = 32;

fn spans_in(store: &Store) -> usize {
    let kind = lacuna_signal::SignalKind::Spans;
    let scan = store.scan(kind, None, TimeRange::ALL, None, usize::MAX).unwrap();
    scan.map(|batch| batch.unwrap().num_rows()).sum()
}

/// A log of three requests of a span each; where each frame begins, and the end.
fn logged(dir: &Path) -> (PathBuf, Vec<usize>) {
    let store = Store::open(dir, Options::default()).unwrap();
    let log = dir.join("wal/00000000000000000000.wal");
    let mut ends = vec![HEAD];
    for number in 1..=3 {
        put_spans(&store, &[TestSpan::new(number, 1, "s", "o", 1)]);
        ends.push(std::fs::metadata(&log).unwrap().len() as usize);
    }
    (log, ends)
}

fn flip(path: &Path, places: &[usize]) {
    let mut bytes = std::fs::read(path).unwrap();
    places.iter().for_each(|at| bytes[*at] ^= 16);
    std::fs::write(path, bytes).unwrap();
}

/// Head and trailer of a frame say the same: with one of them damaged, also in the last frame, where
/// it looked like an unfinished write, everything is served, and the damage told.
#[test]
fn a_damaged_head_or_trailer_loses_nothing() {
    for frame in 0..3 {
        for in_head in [true, false] {
            for byte in 0..HEAD {
                let dir = tempfile::tempdir().unwrap();
                let (log, ends) = logged(dir.path());
                let place = if in_head { ends[frame] } else { ends[frame + 1] - HEAD } + byte;
                flip(&log, &[place]);
                for _ in 0..2 {
                    let store = Store::open(dir.path(), Options::default()).unwrap();
                    assert_eq!(spans_in(&store), 3, "frame {frame}, byte {place}");
                    let [found] = &store.recovery().findings[..] else {
                        unreachable!("{:?}", store.recovery().findings)
                    };
                    assert_eq!(found.kind, FindingKind::Mended);
                    assert!(!found.is_loss());
                    assert!(!store.check(|_| {}).unwrap().damaged.is_empty());
                }
            }
        }
    }
}

/// With both damaged nobody can tell a frame from an unfinished write: what is cut off is kept.
#[test]
fn what_may_have_been_a_frame_is_kept_aside() {
    let dir = tempfile::tempdir().unwrap();
    let (log, ends) = logged(dir.path());
    flip(&log, &[ends[2] + 4, ends[3] - 4]);
    let tail = std::fs::read(&log).unwrap()[ends[2]..].to_vec();
    let store = Store::open(dir.path(), Options::default()).unwrap();
    assert_eq!(spans_in(&store), 2);
    let [found] = &store.recovery().findings[..] else { unreachable!() };
    assert_eq!(found.kind, FindingKind::Torn);
    let aside = log.with_file_name(format!("00000000000000000000.wal.{}.cut", ends[2]));
    assert!(found.detail.contains(aside.to_str().unwrap()), "{found}");
    assert_eq!(std::fs::read(&aside).unwrap(), tail);
    drop(store);
    let store = Store::open(dir.path(), Options::default()).unwrap();
    assert_eq!(store.recovery().findings, []);
    assert_eq!(spans_in(&store), 2);
    // It outlives the log file.
    store.flush().unwrap();
    assert!(!log.exists() && aside.exists());
}

/// A write that plainly ended too early is not kept: every kill would leave a file.
#[test]
fn an_unfinished_write_is_cut_off() {
    for missing in [1, HEAD, HEAD + 1, HEAD + 30] {
        let dir = tempfile::tempdir().unwrap();
        let (log, ends) = logged(dir.path());
        let bytes = std::fs::read(&log).unwrap();
        std::fs::write(&log, &bytes[..ends[3] - missing]).unwrap();
        let store = Store::open(dir.path(), Options::default()).unwrap();
        assert_eq!(spans_in(&store), 2);
        assert_eq!(store.recovery().findings[0].kind, FindingKind::Torn);
        assert_eq!(std::fs::read_dir(dir.path().join("wal")).unwrap().count(), 1);
    }
}

/// A log of version 1, whose frames have no trailers, is read, and a new file goes on after it.
#[test]
fn a_log_of_before_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (log, ends) = logged(dir.path());
    let bytes = std::fs::read(&log).unwrap();
    let sealed = |head: &mut [u8]| {
        let crc = crc32fast::hash(&head[..28]);
        head[28..].copy_from_slice(&crc.to_le_bytes());
    };
    let mut old = bytes[..HEAD].to_vec();
    assert_eq!(old[8], 2);
    old[8] = 1;
    sealed(&mut old[..HEAD]);
    for frame in ends.windows(2) {
        let mut kept = bytes[frame[0]..frame[1] - HEAD].to_vec();
        kept[13] &= !2;
        sealed(&mut kept[..HEAD]);
        old.extend_from_slice(&kept);
    }
    std::fs::write(&log, &old).unwrap();
    let store = Store::open(dir.path(), Options::default()).unwrap();
    assert_eq!(store.recovery().findings, []);
    assert_eq!(spans_in(&store), 3);
    put_spans(&store, &[TestSpan::new(9, 1, "s", "o", 1)]);
    drop(store);
    let store = Store::open(dir.path(), Options::default()).unwrap();
    assert_eq!(store.recovery().findings, []);
    assert_eq!(spans_in(&store), 4);
}
