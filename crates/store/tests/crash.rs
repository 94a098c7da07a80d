//! What is acknowledged survives: kill -9 at any moment, power lost between any two operations,
//! logs cut at every byte, bits flipped in every file, a full disk.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests say what broke by panicking, and print the seed of their kills"
)]

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use lacuna_signal::SignalKind;
use lacuna_store::{FindingKind, Import, Options, Store, StoreError, TimeRange};
use support::faulty::FaultyFiles;
use support::*;

/// Set in the environment of a child that is to be killed: the data folder.
const CHILD: &str = "LACUNA_STORE_TEST_CHILD";

fn small() -> Options {
    let mut options = Options::default();
    // Small enough for rotations, flushes and merges to happen all the time.
    options.flush_bytes = 64 << 10;
    options.wal_file_bytes = 8 << 10;
    options.merge_fan_in = 2;
    options
}

fn request(number: u64) -> Vec<TestSpan> {
    (0..1 + number % 5)
        .map(|i| {
            let span = number * 10 + i + 1;
            TestSpan::new(u128::from(number) + 1, span, "service", "operation", span as i64)
                .with("correlation_id", &format!("correlation-{number:08}"))
        })
        .collect()
}

/// The requests in the store, whole ones only: any other is a failure.
fn requests_in(store: &Store) -> BTreeSet<u64> {
    let mut spans: BTreeSet<u64> = BTreeSet::new();
    let scan = store.scan(SignalKind::Spans, None, TimeRange::ALL, None, usize::MAX).unwrap();
    for batch in scan {
        for span in span_ids(&batch.unwrap()) {
            assert!(spans.insert(span), "span {span} is there twice");
        }
    }
    let numbers: BTreeSet<u64> = spans.iter().map(|span| span / 10).collect();
    for number in &numbers {
        for span in request(*number) {
            assert!(spans.contains(&span.span), "request {number} is there in part");
        }
    }
    numbers
}

/// Not a test: the program that `kills` kills. It appends without end and prints what is durable.
#[test]
fn child() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let store = Store::open(Path::new(&dir), small()).unwrap();
    let first: u64 = std::env::var("FIRST").unwrap().parse().unwrap();
    let out = Arc::new(std::sync::Mutex::new(std::io::stdout()));
    for number in first.. {
        let body = span_request(&request(number));
        let batch = decode(SignalKind::Spans, &body);
        let out = out.clone();
        let done = move |result: Result<(), StoreError>| {
            if result.is_ok() {
                let mut out = out.lock().unwrap();
                writeln!(out, "ack {number}").unwrap();
                out.flush().unwrap();
            }
        };
        if number % 8 == 0 {
            let result = store.append_wait(SignalKind::Spans, body, batch);
            done(result);
        } else {
            store.append(SignalKind::Spans, body, batch, done);
        }
    }
}

/// Names the seed of the kills, to have them again.
const SEED: &str = "LACUNA_KILL_SEED";

/// Random numbers from a seed (SplitMix64).
struct Random(u64);

impl Random {
    /// From the seed in the environment, or another every time; it is printed.
    fn new() -> Self {
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let given = std::env::var(SEED).ok().map(|text| text.parse().unwrap());
        let seed = given.unwrap_or(clock.as_nanos() as u64);
        println!("{SEED}={seed}");
        Self(seed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % bound
    }
}

/// Kills a writing process `rounds` times, each time on the same folder.
fn kills(rounds: u64) {
    let mut random = Random::new();
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: BTreeSet<u64> = BTreeSet::new();
    let mut first = 0;
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--nocapture"])
            .env(CHILD, dir.path())
            .env("FIRST", first.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Killed so long after so many acknowledgements.
        let wanted = 1 + random.below(400);
        let delay = Duration::from_micros(random.below(5_000));
        let mut seen = 0;
        for line in lines {
            let line = line.unwrap();
            let Some(number) = line.split("ack ").nth(1) else { continue };
            acknowledged.insert(number.parse().unwrap());
            seen += 1;
            if seen == wanted {
                std::thread::sleep(delay);
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(seen >= wanted, "the child ended by itself");
        let store = Store::open(dir.path(), small()).unwrap();
        let losses: Vec<_> = store.recovery().findings.iter().filter(|f| f.is_loss()).collect();
        assert!(losses.is_empty(), "{losses:?}");
        let there = requests_in(&store);
        let missing: Vec<_> = acknowledged.difference(&there).collect();
        assert!(missing.is_empty(), "round {round}: lost {missing:?}");
        first = there.last().copied().unwrap_or(0) + 1;
    }
}

#[test]
fn kill_9_loses_nothing_acknowledged() {
    kills(24);
}

#[test]
#[ignore = "soak: hundreds of kills"]
fn soak_kill_9_loses_nothing_acknowledged() {
    kills(400);
}

/// Runs a fixed workload until power is lost after `operations` changes to the file system (never,
/// if `None`); what was acknowledged, and how many operations there were.
fn workload(dir: &Path, operations: Option<u64>, unsynced_is_lost: bool) -> (BTreeSet<u64>, u64) {
    let files = FaultyFiles::default();
    if let Some(operations) = operations {
        files.lose_power_after(operations);
    }
    let mut options = small();
    options.files = Arc::new(files.clone());
    options.background = false;
    let mut acknowledged = BTreeSet::new();
    if let Ok(store) = Store::open(dir, options) {
        for number in 0..40 {
            let body = span_request(&request(number));
            let batch = decode(SignalKind::Spans, &body);
            if store.append_wait(SignalKind::Spans, body, batch).is_ok() {
                acknowledged.insert(number);
            }
            if number % 10 == 9 {
                let _ = store.flush();
            }
        }
        let _ = store.compact();
    }
    if unsynced_is_lost {
        files.drop_unsynced();
    }
    (acknowledged, files.operations())
}

fn power_loss_anywhere(unsynced_is_lost: bool) {
    let dir = tempfile::tempdir().unwrap();
    let (all, operations) = workload(dir.path(), None, false);
    assert_eq!(all.len(), 40);
    for cut in 0..operations {
        let dir = tempfile::tempdir().unwrap();
        let (acknowledged, _) = workload(dir.path(), Some(cut), unsynced_is_lost);
        let store = Store::open(dir.path(), small()).unwrap();
        let there = requests_in(&store);
        let missing: Vec<_> = acknowledged.difference(&there).collect();
        assert!(missing.is_empty(), "power lost at {cut}: lost {missing:?}");
        let losses: Vec<_> = store.recovery().findings.iter().filter(|f| f.is_loss()).collect();
        assert!(losses.is_empty(), "power lost at {cut}: {losses:?}");
        // And what recovery made is whole itself.
        put_spans(&store, &request(1000));
        drop(store);
        let store = Store::open(dir.path(), small()).unwrap();
        assert_eq!(store.recovery().findings, [], "power lost at {cut}");
        assert_eq!(requests_in(&store).len(), there.len() + 1);
    }
}

#[test]
fn power_lost_between_any_two_operations() {
    power_loss_anywhere(false);
}

#[test]
fn power_lost_and_with_it_all_that_was_not_synced() {
    power_loss_anywhere(true);
}

fn log_file(dir: &Path) -> std::path::PathBuf {
    let mut files: Vec<_> =
        std::fs::read_dir(dir.join("wal")).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files.pop().unwrap()
}

#[test]
fn a_log_cut_at_any_byte_keeps_the_requests_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options::default()).unwrap();
    let mut ends = vec![32usize];
    for number in 0..4 {
        put_spans(&store, &request(number));
        ends.push(std::fs::metadata(log_file(dir.path())).unwrap().len() as usize);
    }
    drop(store);
    let path = log_file(dir.path());
    let whole = std::fs::read(&path).unwrap();
    assert_eq!(whole.len(), *ends.last().unwrap());
    for cut in 0..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let expected = ends.iter().skip(1).filter(|end| **end <= cut).count();
        let store = Store::open(dir.path(), Options::default()).unwrap();
        assert_eq!(requests_in(&store).len(), expected, "cut at {cut}");
        let findings = &store.recovery().findings;
        if ends.contains(&cut) {
            assert!(findings.is_empty(), "cut at {cut}: {findings:?}");
        } else {
            assert_eq!(findings.len(), 1, "cut at {cut}");
            assert_eq!(findings[0].kind, FindingKind::Torn);
        }
        drop(store);
        // The tail is gone now, so the next start finds nothing.
        let store = Store::open(dir.path(), Options::default()).unwrap();
        assert_eq!(store.recovery().findings, []);
        assert_eq!(requests_in(&store).len(), expected);
        drop(store);
        for entry in std::fs::read_dir(dir.path().join("wal")).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files_in(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_in(&path));
        } else if path.file_name().unwrap() != "LOCK" {
            files.push(path);
        }
    }
    files
}

/// Reads everything through every verb; whether anything was reported as damaged.
fn read_all(store: &Store) -> bool {
    let mut damaged = !store.recovery().findings.is_empty();
    let mut scan = store.scan(SignalKind::Spans, None, TimeRange::ALL, None, usize::MAX).unwrap();
    scan.by_ref().for_each(|batch| drop(batch.unwrap()));
    damaged |= !scan.damaged().is_empty();
    for number in 0..60 {
        let found = store.trace(trace_id(number + 1), None).unwrap();
        damaged |= !found.damaged.is_empty();
        let text = format!("{{ span.correlation_id = \"correlation-{number:08}\" }}");
        let selector = lacuna_signal::selector::Selector::parse(&text).unwrap();
        let found = store.find_traces(&selector, TimeRange::ALL, 10).unwrap();
        damaged |= !found.damaged.is_empty();
    }
    damaged |= !store.services(TimeRange::ALL, 10).unwrap().damaged.is_empty();
    damaged | !store.check(|_| {}).unwrap().damaged.is_empty()
}

#[test]
fn a_flipped_bit_in_any_file_is_found_and_the_rest_served() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = small();
    options.background = false;
    let store = Store::open(dir.path(), options.clone()).unwrap();
    for number in 0..60 {
        put_spans(&store, &request(number));
        if number == 20 || number == 40 {
            store.flush().unwrap();
        }
    }
    let import = Import::new("day.otlp.jsonl", 17, 4711);
    store.save_import(&import, &import, false).unwrap();
    drop(store);
    for (name, magic) in [("MONITOR", "lacuna-monitor"), ("FINDINGS", "lacuna-findings")] {
        let body = b"what the server keeps";
        let head = format!("{magic} 1 {:08x}\n", crc32fast::hash(body));
        std::fs::write(dir.path().join(name), [head.as_bytes(), body].concat()).unwrap();
    }
    for file in files_in(dir.path()) {
        let size = std::fs::metadata(&file).unwrap().len() as usize;
        let name = file.strip_prefix(dir.path()).unwrap();
        let steps = 24;
        for step in 0..steps {
            let at = step * (size - 1) / (steps - 1);
            let other = tempfile::tempdir().unwrap();
            copy(dir.path(), other.path());
            let path = other.path().join(name);
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[at] ^= 1 << (step % 8);
            std::fs::write(&path, &bytes).unwrap();
            let place = format!("bit {} of byte {at} of {}", step % 8, name.display());
            match Store::open(other.path(), options.clone()) {
                Ok(store) => {
                    assert!(read_all(&store), "{place}: not found");
                    // The other files' 60 - 20 requests are there at least.
                    assert!(requests_in(&store).len() >= 35, "{place}: too little is served");
                }
                // A version may turn into the next one.
                Err(StoreError::OtherFormat { .. }) => {}
                Err(error) => panic!("{place}: {error}"),
            }
        }
    }
}

#[test]
fn a_full_disk_refuses_writes_and_recovers_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let files = FaultyFiles::default();
    let mut options = small();
    options.files = Arc::new(files.clone());
    let store = Store::open(dir.path(), options).unwrap();
    files.set_room(Some(2500));
    let (mut kept, mut refused) = (BTreeSet::new(), 0);
    for number in 0..60 {
        let body = span_request(&request(number));
        let batch = decode(SignalKind::Spans, &body);
        match store.append_wait(SignalKind::Spans, body, batch) {
            Ok(()) => drop(kept.insert(number)),
            Err(StoreError::Busy { retry_after, .. }) => {
                assert!(retry_after > Duration::ZERO);
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(!kept.is_empty() && refused > 0);
    assert!(store.flush().is_err(), "there is no room for a segment");
    assert_eq!(requests_in(&store), kept);
    files.set_room(None);
    for number in 60..80 {
        put_spans(&store, &request(number));
        kept.insert(number);
    }
    store.flush().unwrap();
    assert_eq!(requests_in(&store), kept);
    drop(store);
    let store = Store::open(dir.path(), small()).unwrap();
    assert_eq!(requests_in(&store), kept);
    let losses: Vec<_> = store.recovery().findings.iter().filter(|f| f.is_loss()).collect();
    assert!(losses.is_empty(), "{losses:?}");
}

#[test]
fn a_failed_sync_is_not_acknowledged_and_the_store_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let files = FaultyFiles::default();
    let mut options = small();
    options.files = Arc::new(files.clone());
    let store = Store::open(dir.path(), options).unwrap();
    put_spans(&store, &request(0));
    files.set_fail_sync(true);
    let body = span_request(&request(1));
    let batch = decode(SignalKind::Spans, &body);
    let error = store.append_wait(SignalKind::Spans, body, batch).unwrap_err().to_string();
    assert!(error.contains("cannot sync"), "{error}");
    files.set_fail_sync(false);
    put_spans(&store, &request(2));
    assert_eq!(requests_in(&store), BTreeSet::from([0, 2]));
    drop(store);
    let store = Store::open(dir.path(), small()).unwrap();
    assert_eq!(store.recovery().findings, []);
    let there = requests_in(&store);
    assert!(there.is_superset(&BTreeSet::from([0, 2])), "{there:?}");
}
