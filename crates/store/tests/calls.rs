//! What segments say that their spans add up to is what reading the spans gives, wherever flushes,
//! merges and restarts came between.
#![allow(clippy::unwrap_used, reason = "tests say what broke by panicking")]

mod support;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use lacuna_signal::SignalKind;
use lacuna_store::{EdgeKind, Latencies, Options, Store, TimeRange};
use proptest::prelude::*;
use support::{TestSpan, put_spans};

const MINUTE: i64 = 60_000_000_000;

fn options(summary_rows: usize) -> Options {
    let mut options = Options::default();
    options.background = false;
    options.merge_fan_in = 2;
    options.summary_rows = summary_rows;
    options
}

#[derive(Debug, Clone)]
enum Step {
    /// Span numbers of the plan, which come now.
    Put(usize),
    Flush,
    Compact,
    Reopen,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1usize..12).prop_map(Step::Put),
        3 => Just(Step::Flush),
        1 => Just(Step::Compact),
        1 => Just(Step::Reopen),
    ]
}

/// A span with an id of its own, and what caused it: spans of before or after, or nobody.
fn any_spans() -> impl Strategy<Value = Vec<TestSpan>> {
    let one = (0..4usize, 0..3usize, 1..5i32, 0..6 * MINUTE, 0..5_000_000_000i64, any::<bool>());
    let cause = proptest::option::weighted(0.8, 0u64..70);
    let link = proptest::option::weighted(0.3, 0u64..70);
    proptest::collection::vec((one, cause, link), 1..60).prop_map(|all| {
        let trace = |number: u64| u128::from(number % 3) + 1;
        let span = |(n, ((service, name, kind, start, duration, error), parent, link))| {
            let number: u64 = n;
            let (service, name) = (format!("service-{service}"), format!("operation-{name}"));
            let mut span = TestSpan::new(trace(number), number + 1, &service, &name, start);
            (span.kind, span.duration, span.error) = (kind, duration, error);
            // A parent is of the same trace.
            let parent: Option<u64> = parent;
            span.parent = parent.map_or(0, |p| p / 3 * 3 + number % 3 + 1);
            let link: Option<u64> = link;
            span.link = link.map(|l| (trace(l), l + 1));
            span
        };
        (0u64..).zip(all).map(span).collect()
    })
}

/// Start and end of the minutes, open at their start, that times of `range` lie in.
fn widened(range: TimeRange) -> TimeRange {
    let floor = |time: i64| (time - 1).div_euclid(MINUTE) * MINUTE + 1;
    TimeRange::new(floor(range.start), floor(range.end - 1) + MINUTE)
}

type EdgeCounts = BTreeMap<(String, String, EdgeKind), (u64, u64)>;

fn edges_of(spans: &[TestSpan], range: TimeRange) -> (EdgeCounts, u64, u64) {
    let by_id: HashMap<(u128, u64), &str> =
        spans.iter().map(|span| ((span.trace, span.span), span.service.as_str())).collect();
    let (mut edges, mut orphans, mut dangling) = (EdgeCounts::new(), 0, 0);
    for span in spans.iter().filter(|span| range.contains(span.start)) {
        let parent = (span.parent != 0).then_some((span.trace, span.parent));
        let link = span.link.filter(|link| Some(*link) != parent);
        let causes = parent.map(|p| (p, EdgeKind::Parent)).into_iter();
        for (id, kind) in causes.chain(link.map(|link| (link, EdgeKind::Link))) {
            match (by_id.get(&id), kind) {
                (Some(service), _) if *service != span.service => {
                    let edge = ((*service).to_owned(), span.service.clone(), kind);
                    let count = edges.entry(edge).or_default();
                    *count = (count.0 + 1, count.1 + u64::from(span.error));
                }
                (Some(_), _) => {}
                (None, EdgeKind::Parent) => orphans += 1,
                (None, EdgeKind::Link) => dangling += 1,
            }
        }
    }
    (edges, orphans, dangling)
}

fn compare(store: &Store, spans: &[TestSpan], range: TimeRange) {
    if store.rows_within(SignalKind::Spans, range) == 0 {
        // So few are read themselves, and sums are not asked.
        return;
    }
    let wide = widened(range);
    let found = store.edges(range, 0).unwrap();
    assert!(found.is_complete());
    let edges = found.items.edges.into_iter();
    let edges: EdgeCounts =
        edges.map(|e| ((e.parent, e.child, e.kind), (e.calls, e.errors))).collect();
    let seen = (edges, found.items.orphans, found.items.dangling_links);
    assert_eq!(seen, edges_of(spans, wide), "edges of {range:?}");
    let found =
        store.calls(range, &|service, kind| service != "service-0" && kind != 3, 0).unwrap();
    assert!(found.is_complete());
    let mut seen = BTreeMap::new();
    for operation in found.items {
        let name = operation.name.unwrap();
        for minute in operation.minutes {
            let key = (operation.service.clone(), name.clone(), operation.kind, minute.end);
            seen.insert(key, (minute.calls, minute.errors, minute.latencies));
        }
    }
    let mut expected: BTreeMap<_, (u64, u64, Latencies)> = BTreeMap::new();
    let wanted = |span: &&TestSpan| {
        wide.contains(span.start) && span.service != "service-0" && span.kind != 3
    };
    for span in spans.iter().filter(wanted) {
        let minute = ((span.start - 1).div_euclid(MINUTE) + 1) * MINUTE;
        let key = (span.service.clone(), span.name.clone(), span.kind as u8, minute);
        let counted = expected.entry(key).or_default();
        counted.0 += 1;
        counted.1 += u64::from(span.error);
        counted.2.add(span.duration);
    }
    assert_eq!(seen, expected, "calls of {range:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn sums_are_those_of_the_spans(
        spans in any_spans(),
        steps in proptest::collection::vec(any_step(), 1..20),
        (start, length) in (0..5 * MINUTE, 1..3 * MINUTE),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path(), options(0)).unwrap();
        let (mut there, mut rest) = (Vec::new(), spans.as_slice());
        for step in steps {
            match step {
                Step::Put(count) => {
                    let (now, later) = rest.split_at(count.min(rest.len()));
                    if !now.is_empty() {
                        put_spans(&store, now);
                    }
                    there.extend_from_slice(now);
                    rest = later;
                }
                Step::Flush => store.flush().unwrap(),
                Step::Compact => store.compact().unwrap(),
                Step::Reopen => {
                    drop(store);
                    store = Store::open(dir.path(), options(0)).unwrap();
                }
            }
        }
        compare(&store, &there, TimeRange::new(0, 10 * MINUTE));
        compare(&store, &there, TimeRange::new(start, start + length));
        assert!(store.check(|_| {}).unwrap().damaged.is_empty());
    }
}

fn index_files(dir: &std::path::Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir.join("segments")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "index"));
    files
}

/// Ten calls between two services, flushed into one segment.
fn flushed(dir: &std::path::Path, rows: usize) -> Store {
    let store = Store::open(dir, options(rows)).unwrap();
    let spans: Vec<TestSpan> = (1..=10)
        .flat_map(|n| {
            let caller = TestSpan::new(n, 1, "a", "call", n as i64);
            let mut callee = TestSpan::new(n, 2, "b", "answer", n as i64);
            callee.parent = 1;
            [caller, callee]
        })
        .collect();
    put_spans(&store, &spans);
    store.flush().unwrap();
    store
}

/// A flipped bit in the sums is found, told, and made good from the spans.
#[test]
fn damaged_sums_are_told_and_computed_again() {
    let dir = tempfile::tempdir().unwrap();
    drop(flushed(dir.path(), 0));
    let [index] = index_files(dir.path()).try_into().unwrap();
    let bytes = std::fs::read(&index).unwrap();
    // The sums lie just before the directory, whose place the foot begins with.
    let foot = &bytes[bytes.len() - 32..];
    let directory = u64::from_le_bytes(foot[..8].try_into().unwrap()) as usize;
    let mut other = bytes.clone();
    other[directory - 1] ^= 8;
    std::fs::write(&index, other).unwrap();
    let store = Store::open(dir.path(), options(0)).unwrap();
    assert_eq!(store.recovery().findings, []);
    let checked = store.check(|_| {}).unwrap();
    let [damage] = &checked.damaged[..] else { unreachable!("{:?}", checked.damaged) };
    assert!(damage.detail.contains("the sums of calls"), "{damage}");
    let found = store.edges(TimeRange::ALL, 1000).unwrap();
    assert_eq!(found.damaged.len(), 1);
    assert_eq!((found.items.edges.len(), found.items.edges[0].calls), (1, 10));
    // Only so many spans are read for that.
    let found = store.edges(TimeRange::ALL, 19).unwrap();
    assert!(found.cut && found.items.edges.is_empty());
    let found = store.calls(TimeRange::ALL, &|_, _| true, 1000).unwrap();
    assert_eq!(found.items.iter().map(|o| o.minutes[0].calls).collect::<Vec<_>>(), [10, 10]);
}

/// Few spans are read themselves, and the answer is to the nanosecond; of many, the sums are taken.
#[test]
fn few_spans_are_read_and_many_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = flushed(dir.path(), 20);
    let range = TimeRange::new(1, 6);
    assert_eq!(store.rows_within(SignalKind::Spans, range), 20);
    assert_eq!(store.edges(range, 1000).unwrap().items.edges[0].calls, 5);
    drop(store);
    let store = Store::open(dir.path(), options(19)).unwrap();
    assert_eq!(store.edges(range, 1000).unwrap().items.edges[0].calls, 10);
}

/// Regression: spans near the range, where callers are looked for, did not count; a short range in a
/// busy hour was cut.
#[test]
fn many_spans_near_the_range_are_not_read_either() {
    let dir = tempfile::tempdir().unwrap();
    let store = flushed(dir.path(), 19);
    let after = TimeRange::new(100, 200);
    assert_eq!(store.rows_within(SignalKind::Spans, after), 0);
    assert!(store.edges(after, 0).unwrap().is_complete());
}

/// Newest spans are read first if not all may be.
#[test]
fn a_cut_leaves_out_what_is_old() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), options(usize::MAX)).unwrap();
    for (n, service) in [(1, "new"), (2, "old")] {
        let start = if service == "new" { 1_000_000 } else { 10 };
        let caller = TestSpan::new(n, 1, "a", "call", start);
        let mut callee = TestSpan::new(n, 2, service, "answer", start);
        callee.parent = 1;
        put_spans(&store, &[caller, callee]);
        store.flush().unwrap();
    }
    let found = store.edges(TimeRange::ALL, 2).unwrap();
    assert!(found.cut);
    let children: Vec<_> = found.items.edges.iter().map(|edge| edge.child.as_str()).collect();
    assert_eq!(children, ["new"]);
}

/// The sums of a busy minute are small beside its spans.
#[test]
fn sums_are_small() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), options(0)).unwrap();
    let spans = |from: i64| -> Vec<TestSpan> {
        (from..from + 5000)
            .map(|n| {
                let (service, name) = (format!("service-{}", n % 10), format!("o-{}", n % 50));
                let trace = (n / 10) as u128 + 1;
                let mut span = TestSpan::new(trace, n as u64 + 1, &service, &name, n * 20_000);
                span.parent = if n % 10 == 0 { 0 } else { n as u64 };
                span.duration = 1_000_000 + n * n * 7919 % 9_000_000;
                span
            })
            .collect()
    };
    (0..20).for_each(|n| put_spans(&store, &spans(n * 5000)));
    store.flush().unwrap();
    let [index] = index_files(dir.path()).try_into().unwrap();
    let bytes = std::fs::read(&index).unwrap();
    let foot = &bytes[bytes.len() - 32..];
    let directory = u64::from_le_bytes(foot[..8].try_into().unwrap()) as usize;
    // The last section of the directory is five numbers: first where the sums begin.
    let end = bytes.len() - 32;
    let begin = u64::from_le_bytes(bytes[end - 40..end - 32].try_into().unwrap()) as usize;
    let each = (directory - begin) as f64 / 100_000.0;
    assert!(each > 0.0 && each < 0.25, "{each} bytes a span");
}
