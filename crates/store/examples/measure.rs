//! Measures the store alone, with the load of `lacuna-bench`: `measure DIR [MILLIONS OF SPANS]`.
//! The generator's cost is not in the figures: requests are made before the clock starts, a block
//! at a time. A folder that was measured before is only asked. `WAL_ZSTD_LEVEL`
//! in the environment is the log's (`none`: not compressed).
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a developer's tool; it says what broke by panicking"
)]

#[path = "../../../bench/src/generate/mod.rs"]
#[allow(dead_code, missing_docs, reason = "the generator is the bench's")]
mod generate;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use generate::{SentFlow, Shape, Workload};
use lacuna_signal::selector::Selector;
use lacuna_signal::{SignalKind, TraceId};
use lacuna_store::{Options, Store, TimeRange};
use parquet::file::reader::{FileReader, SerializedFileReader};

const HOUR: u64 = 3600 * 1_000_000_000;
const START: u64 = 1_780_000_000_000_000_000;
const SPANS_A_REQUEST: usize = 8192;

fn quantiles(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |q: f64| times[((times.len() - 1) as f64 * q) as usize];
    println!("{what:<44} p50 {:>9.3?}  p99 {:>9.3?}  max {:>9.3?}", at(0.5), at(0.99), at(1.0));
}

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let of = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or("");
        let kib = line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok());
        kib.unwrap_or(0) / 1024
    };
    format!("resident {} MiB, at most {} MiB", of("VmRSS:"), of("VmHWM:"))
}

/// CPU time of this process by thread name.
fn cpu() -> BTreeMap<String, Duration> {
    let mut times = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let name = stat.split(['(', ')']).nth(1).unwrap_or("").to_owned();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
        let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
        *times.entry(name).or_default() += Duration::from_millis((ticks(11) + ticks(12)) * 10);
    }
    times
}

fn print_cpu(what: &str, before: &BTreeMap<String, Duration>, spans: u64) {
    let mut line = String::new();
    let mut total = 0.0;
    for (name, after) in cpu() {
        let spent = after - before.get(&name).copied().unwrap_or_default();
        let micros = spent.as_secs_f64() * 1e6 / spans as f64;
        total += micros;
        if micros > 0.005 {
            line.push_str(&format!("  {name} {micros:.2}"));
        }
    }
    println!("{what}: {total:.2} us of CPU a span:{line}");
}

/// Bytes of the sums of calls in side index `path`: second of the five numbers that end its directory.
fn sums_of_calls(path: &Path) -> u64 {
    let bytes = std::fs::read(path).unwrap();
    let numbers = bytes.len() - 32 - 5 * 8;
    u64::from_le_bytes(bytes[numbers + 8..numbers + 16].try_into().unwrap())
}

/// Bytes a span of the data files by column, largest first, and of the indexes.
fn print_columns(dir: &Path, spans: u64) {
    let mut columns: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    let (mut data, mut index, mut sums) = (0, 0, 0);
    for entry in std::fs::read_dir(dir.join("segments")).unwrap().flatten() {
        let size = entry.metadata().unwrap().len();
        if entry.path().extension().is_some_and(|e| e == "index") {
            index += size;
            sums += sums_of_calls(&entry.path());
            continue;
        }
        data += size;
        let file = std::fs::File::open(entry.path()).unwrap();
        let reader = SerializedFileReader::new(file).unwrap();
        for group in reader.metadata().row_groups() {
            for column in group.columns() {
                let sums = columns.entry(column.column_path().string()).or_default();
                sums.0 += column.compressed_size();
                sums.1 += column.uncompressed_size();
            }
        }
    }
    let each = |bytes: f64| bytes / spans as f64;
    println!("data {:.1} B/span, index {:.1} B/span", each(data as f64), each(index as f64));
    println!("of the index, sums of calls {:.3} B/span", each(sums as f64));
    let mut columns: Vec<_> = columns.into_iter().collect();
    columns.sort_by_key(|(_, (packed, _))| -packed);
    for (name, (packed, raw)) in columns.iter().take(24) {
        println!("  {:6.2} of {:7.2}  {name}", each(*packed as f64), each(*raw as f64));
    }
    let rest: i64 = columns.iter().skip(24).map(|(_, (packed, _))| packed).sum();
    println!("  {:6.2}  {} more", each(rest as f64), columns.len().saturating_sub(24));
}

fn ingest(store: &Store, load: &Workload, requests: u64) -> u64 {
    let (mut wall, mut raw, mut spans) = (Duration::ZERO, 0u64, 0u64);
    let mut spent: BTreeMap<String, Duration> = BTreeMap::new();
    for first in (0..requests).step_by(16) {
        let made: Vec<(Bytes, u64)> =
            (first..(first + 16).min(requests)).map(|n| load.traces(n)).collect();
        raw += made.iter().map(|(body, _)| body.len() as u64).sum::<u64>();
        spans += made.iter().map(|(_, items)| items).sum::<u64>();
        let (begun, before) = (Instant::now(), cpu());
        let (sender, receiver) = mpsc::channel();
        let count = made.len();
        for (body, _) in made {
            let batch = lacuna_signal::otlp::decode(SignalKind::Spans, body.clone()).unwrap().batch;
            loop {
                let answered = sender.clone();
                let (tell, told) = mpsc::sync_channel(1);
                store.append(SignalKind::Spans, body.clone(), batch.clone(), move |result| {
                    let busy = result.is_err();
                    let _ = tell.try_send(busy);
                    if !busy {
                        let _ = answered.send(());
                    }
                });
                // A refusal comes at once, on this thread.
                if told.try_recv() != Ok(true) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        for _ in 0..count {
            receiver.recv().unwrap();
        }
        wall += begun.elapsed();
        for (name, after) in cpu() {
            let more = after.saturating_sub(before.get(&name).copied().unwrap_or_default());
            *spent.entry(name).or_default() += more;
        }
    }
    println!("spans {spans}, {:.0} B of OTLP each", raw as f64 / spans as f64);
    println!("durable ingest: {:.0} spans/s by the clock", spans as f64 / wall.as_secs_f64());
    let micros = |spent: &Duration| spent.as_secs_f64() * 1e6 / spans as f64;
    let line: Vec<String> = spent.iter().map(|(n, s)| format!("{n} {:.2}", micros(s))).collect();
    let total: f64 = spent.values().map(micros).sum();
    println!("until the last acknowledgement: {total:.2} us of CPU a span: {}", line.join("  "));
    spans
}

fn time(what: &str, count: u64, mut run: impl FnMut(u64) -> usize, least: usize) {
    let before: Duration = cpu().values().sum();
    let times: Vec<Duration> = (0..count)
        .map(|n| {
            let begun = Instant::now();
            let found = run(n);
            let took = begun.elapsed();
            assert!(found >= least, "{what}: found {found}");
            took
        })
        .collect();
    let spent: Duration = cpu().values().sum();
    print!("[{:>7.2?} of CPU each] ", (spent - before) / count as u32);
    quantiles(what, times);
}

fn find(store: &Store, selector: &str, range: TimeRange, limit: usize) -> usize {
    let selector = Selector::parse(selector).unwrap();
    store.find_traces(&selector, range, limit).unwrap().items.len()
}

fn ask(store: &Store, load: &Workload, requests: u64) {
    let flow = |n: u64| -> SentFlow {
        load.sent_flow(n.wrapping_mul(0x9e37_79b9) % (requests - 1), n.wrapping_mul(31))
    };
    let hour = |n: u64| {
        let middle = flow(n).begin;
        TimeRange::new((middle - HOUR / 2) as i64, (middle + HOUR / 2) as i64)
    };
    for round in ["first", "again"] {
        let by_id = |n| {
            let sent = flow(n).traces[0].clone();
            let found = store.trace(TraceId(sent.id), None).unwrap().items.num_rows();
            assert!(found >= sent.spans as usize);
            found
        };
        time(&format!("trace by id ({round})"), 300, by_id, 1);
        let correlation = |n| {
            let selector = format!("{{ span.correlation_id = \"{}\" }}", flow(n).correlation);
            find(store, &selector, hour(n), 100)
        };
        time("correlation id, 1 h", 200, correlation, 1);
        for (what, selector) in [
            (
                "status code 500 of a service",
                "{ resource.service.name = \"edge-gateway\" && .http.response.status_code = 500 }",
            ),
            (
                "redis miss of a service",
                "{ resource.service.name = \"catalog-service\" && .db.redis.hit = false }",
            ),
            ("status = error", "{ status = error }"),
            ("duration > 1 s", "{ duration > 1s }"),
        ] {
            time(what, 50, |n| find(store, selector, hour(n), 20), 0);
        }
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let dir = args.next().unwrap();
    let millions: f64 = args.next().and_then(|a| a.parse().ok()).unwrap_or(1.0);
    let wanted = (millions * 1e6) as u64;
    let step = 24 * HOUR / (wanted / SPANS_A_REQUEST as u64).max(1);
    let shape = Shape { seed: 7, spans_per_request: SPANS_A_REQUEST, begin: START, step };
    let load = Workload::new(shape);
    let requests = load.requests_for(wanted);
    let mut options = Options::default();
    if let Ok(level) = std::env::var("WAL_ZSTD_LEVEL") {
        options.wal_zstd_level = level.parse().ok();
    }
    let store = Store::open(&dir, options).unwrap();
    if store.stats().segment_bytes > 0 {
        return ask(&store, &load, requests);
    }
    let before = cpu();
    let spans = ingest(&store, &load, requests);
    let stats = store.stats();
    println!(
        "{}; {:.0} B a row in memory",
        resident(),
        stats.memory_bytes as f64 / stats.kinds[0].memory_rows.max(1) as f64
    );
    let begun = Instant::now();
    store.flush().unwrap();
    let stats = store.stats();
    println!("flush of the rest {:.2?}; {} segments", begun.elapsed(), stats.kinds[0].segments);
    print_columns(Path::new(&dir), spans);
    print_cpu("with the generator and this flush", &before, spans);
    let (begun, before) = (Instant::now(), cpu());
    store.compact().unwrap();
    let stats = store.stats();
    println!("compact {:.2?}; {} segments", begun.elapsed(), stats.kinds[0].segments);
    print_cpu("merging", &before, spans);
    print_columns(Path::new(&dir), spans);
    ask(&store, &load, requests);
    let begun = Instant::now();
    let services = store.services(TimeRange::ALL, 1000).unwrap().items.len();
    println!("services ({services}) {:.2?}", begun.elapsed());
    let begun = Instant::now();
    let edges = store.edges(TimeRange::ALL, usize::MAX).unwrap().items;
    println!("edges of everything ({}) {:.2?}", edges.edges.len(), begun.elapsed());
    println!("{}; {:?}", resident(), store.counters());
    drop(store);
    let begun = Instant::now();
    let store = Store::open(&dir, Options::default()).unwrap();
    println!("open {:.2?}, {:?}", begun.elapsed(), store.recovery().rows);
}
