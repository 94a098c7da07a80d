//! Every verb against a model that keeps all rows in a list, over random appends, flushes, merges
//! and reopenings: where rows lie must never show in an answer.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use lacuna_signal::rows::{LogRows, SpanRows};
use lacuna_signal::schema::Scope;
use lacuna_signal::selector::Selector;
use lacuna_signal::{Batch, SignalKind};
use lacuna_store::{EdgeKind, Options, Store, TimeRange};
use proptest::prelude::*;
use support::*;

#[derive(Debug, Clone)]
enum Step {
    Spans(Vec<TestSpan>),
    Logs(Vec<TestLog>),
    Flush,
    Compact,
    Reopen,
}

/// Times are few, so that rows share them; traces and services few, so that they recur.
fn any_span() -> impl Strategy<Value = TestSpan> {
    let ids = (1u128..12, 1u64..u64::MAX, 0u64..6);
    let names = (0usize..4, 0usize..5, 0i32..6);
    let rest = (0i64..200, any::<bool>(), 0u8..8, proptest::option::of((1u128..12, 1u64..6)));
    (ids, names, rest).prop_map(|((trace, span, parent), (service, name, kind), rest)| {
        let (start, error, extra, link) = rest;
        // Some spans have small ids, for parents and links to find.
        let span = if span % 3 == 0 { span % 5 + 1 } else { span };
        let mut made = TestSpan {
            parent,
            kind,
            error,
            link,
            ..TestSpan::new(
                trace,
                span,
                &format!("service-{service}"),
                &format!("operation number {name}"),
                1_000_000 + start,
            )
        };
        if extra & 1 == 1 {
            made = made.with("correlation_id", &format!("correlation-of-trace-{trace:04}"));
        }
        if extra & 2 == 2 {
            made = made.with_int("attempt", i64::from(extra));
        }
        if extra & 4 == 4 {
            made.event = Some(("reason".to_owned(), format!("reason {}", span % 7)));
        }
        made
    })
}

fn any_log() -> impl Strategy<Value = TestLog> {
    (0u128..8, 1u64..6, 0usize..3, 0i64..200, any::<u16>()).prop_map(
        |(trace, span, service, time, body)| TestLog {
            trace,
            span: if trace == 0 { 0 } else { span },
            service: format!("service-{service}"),
            time: 1_000_000 + time,
            body: format!("body of a log record {body}"),
        },
    )
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => proptest::collection::vec(any_span(), 1..25).prop_map(Step::Spans),
        2 => proptest::collection::vec(any_log(), 1..15).prop_map(Step::Logs),
        2 => Just(Step::Flush),
        1 => Just(Step::Compact),
        1 => Just(Step::Reopen),
    ]
}

type Predicate = fn(&TestSpan) -> bool;

/// Selectors with what they mean.
const SELECTORS: [(&str, Predicate); 7] = [
    ("{ }", |_| true),
    ("{ status = error }", |s| s.error),
    (r#"{ span.correlation_id = "correlation-of-trace-0003" }"#, |s| {
        s.text("correlation_id") == Some("correlation-of-trace-0003")
    }),
    (r#"{ name = "operation number 2" && status != error }"#, |s| {
        s.name == "operation number 2" && !s.error
    }),
    (r#"{ resource.service.name = "service-1" && span.attempt > 2 }"#, |s| {
        s.service == "service-1"
            && s.attributes.iter().any(|(k, v)| {
                use opentelemetry_proto::tonic::common::v1::any_value::Value;
                k == "attempt" && matches!(v, Value::IntValue(n) if *n > 2)
            })
    }),
    (r#"{ event.reason = "reason 4" }"#, |s| s.event.as_ref().is_some_and(|e| e.1 == "reason 4")),
    (r#"{ span.correlation_id = "nobody has this one" }"#, |_| false),
];

#[derive(Default)]
struct Model {
    spans: Vec<TestSpan>,
    logs: Vec<TestLog>,
}

impl Model {
    fn find(&self, keep: Predicate, range: TimeRange, limit: usize) -> (Vec<Matched>, bool) {
        let mut newest: BTreeMap<u128, (i64, u64)> = BTreeMap::new();
        for span in self.spans.iter().filter(|s| range.contains(s.start) && keep(s)) {
            let entry = newest.entry(span.trace).or_insert((span.start, 0));
            *entry = (entry.0.max(span.start), entry.1 + 1);
        }
        let mut found: Vec<Matched> = newest
            .into_iter()
            .map(|(trace, (newest, matched))| {
                let all = self.spans.iter().filter(|s| s.trace == trace);
                let start = all.clone().map(|s| s.start).min().unwrap();
                (trace, start, newest, matched, all.count() as u64)
            })
            .collect();
        found.sort_by_key(|m| (std::cmp::Reverse(m.2), m.0));
        let cut = found.len() > limit;
        found.truncate(limit);
        (found, cut)
    }

    fn edges(&self, range: TimeRange) -> BTreeMap<(String, String, EdgeKind), (u64, u64)> {
        let mut by_id: HashMap<(u128, u64), BTreeSet<&str>> = HashMap::new();
        for span in &self.spans {
            by_id.entry((span.trace, span.span)).or_default().insert(&span.service);
        }
        let mut edges = BTreeMap::new();
        for span in self.spans.iter().filter(|s| range.contains(s.start)) {
            let parent = (span.parent != 0).then_some((span.trace, span.parent));
            let link = span.link.filter(|link| Some(*link) != parent);
            let causes = parent.map(|p| (p, EdgeKind::Parent)).into_iter();
            for (id, kind) in causes.chain(link.map(|l| (l, EdgeKind::Link))) {
                let Some(services) = by_id.get(&id) else { continue };
                // Spans that share an id may have several services: then any of them is right,
                // and the test does not look.
                let [service] = services.iter().collect::<Vec<_>>()[..] else { continue };
                if *service != span.service {
                    let key = (service.to_string(), span.service.clone(), kind);
                    let count: &mut (u64, u64) = edges.entry(key).or_default();
                    count.0 += 1;
                    count.1 += u64::from(span.error);
                }
            }
        }
        edges
    }

    fn ids_are_unique(&self) -> bool {
        let mut by_id: HashMap<(u128, u64), &str> = HashMap::new();
        self.spans
            .iter()
            .all(|s| *by_id.entry((s.trace, s.span)).or_insert(&s.service) == s.service)
    }
}

/// Trace, its start, its newest match, matches, spans.
type Matched = (u128, i64, i64, u64, u64);

fn spans_in(batch: &Batch) -> Vec<(i64, u64, String)> {
    let rows = SpanRows::new(batch);
    let row = |row| {
        let id = u64::from_be_bytes(rows.span_id(row).unwrap().0);
        (rows.start(row), id, rows.name(row).to_owned())
    };
    (0..batch.num_rows()).map(row).collect()
}

fn logs_in(batch: &Batch) -> Vec<(i64, String)> {
    let rows = LogRows::new(batch);
    (0..batch.num_rows()).map(|row| (rows.time(row), rows.body(row).unwrap().to_owned())).collect()
}

fn compare(store: &Store, model: &Model, range: TimeRange, limit: usize) {
    for (text, keep) in SELECTORS {
        let selector = Selector::parse(text).unwrap();
        let found = store.find_traces(&selector, range, limit).unwrap();
        let seen: Vec<Matched> = found
            .items
            .iter()
            .map(|m| (u128::from_be_bytes(m.trace_id.0), m.start, m.newest, m.matched, m.spans))
            .collect();
        assert_eq!((seen, found.cut), model.find(keep, range, limit), "{text} in {range:?}");
        let scan = store.scan(SignalKind::Spans, Some(&selector), range, None, usize::MAX).unwrap();
        let mut seen: Vec<_> = scan.flat_map(|batch| spans_in(&batch.unwrap())).collect();
        seen.sort();
        let expected = model.spans.iter().filter(|s| range.contains(s.start) && keep(s));
        let mut expected: Vec<_> = expected.map(|s| (s.start, s.span, s.name.clone())).collect();
        expected.sort();
        assert_eq!(seen, expected, "{text} in {range:?}");
    }
    // Together as one by one; also an id that is asked for twice, and one that nobody has.
    let ids: Vec<_> = (0..12u128).chain([3]).map(trace_id).collect();
    for (id, found) in ids.iter().zip(store.traces(&ids)) {
        assert_eq!(
            spans_in(&found.unwrap().items),
            spans_in(&store.trace(*id, None).unwrap().items),
            "{id}"
        );
    }
    assert_eq!(store.traces(&ids).count(), ids.len());
    for trace in 1..12u128 {
        let seen = spans_in(&store.trace(trace_id(trace), Some(range)).unwrap().items);
        let expected = model.spans.iter().filter(|s| s.trace == trace && range.contains(s.start));
        // Senders repeat span ids: the names of spans of one id and start are in order, too.
        let mut expected: Vec<_> = expected.map(|s| (s.start, s.span, s.name.clone())).collect();
        expected.sort();
        assert_eq!(seen, expected);
        let found = store.logs_of_trace(trace_id(trace), None, 1000).unwrap();
        let mut seen = logs_in(&found.items);
        seen.sort();
        let logs = model.logs.iter().filter(|l| l.trace == trace);
        let mut expected: Vec<_> = logs.map(|l| (l.time, l.body.clone())).collect();
        expected.sort();
        assert_eq!(seen, expected);
    }
    let found = store.newest(SignalKind::Logs, None, range, None, limit).unwrap();
    let mut expected: Vec<&TestLog> =
        model.logs.iter().filter(|l| range.contains(l.time)).collect();
    expected.sort_by(|a, b| {
        b.time.cmp(&a.time).then((a.trace, a.span, &a.body).cmp(&(b.trace, b.span, &b.body)))
    });
    assert_eq!(found.cut, expected.len() > limit);
    expected.truncate(limit);
    let expected: Vec<_> = expected.iter().map(|l| (l.time, l.body.clone())).collect();
    assert_eq!(logs_in(&found.items), expected);
    if model.ids_are_unique() {
        let edges = store.edges(range, usize::MAX).unwrap().items.edges;
        let seen: BTreeMap<_, _> =
            edges.into_iter().map(|e| ((e.parent, e.child, e.kind), (e.calls, e.errors))).collect();
        assert_eq!(seen, model.edges(range));
    }
}

fn compare_catalogue(store: &Store, model: &Model) {
    let services = store.services(TimeRange::ALL, 100).unwrap().items;
    let seen: BTreeMap<_, _> = services.into_iter().map(|s| (s.name, (s.spans, s.logs))).collect();
    let mut expected: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    model.spans.iter().for_each(|s| expected.entry(s.service.clone()).or_default().0 += 1);
    model.logs.iter().for_each(|l| expected.entry(l.service.clone()).or_default().1 += 1);
    assert_eq!(seen, expected);
    for service in expected.keys() {
        let operations = store.operations(service, None, TimeRange::ALL, 100).unwrap().items;
        let seen: BTreeMap<_, _> =
            operations.into_iter().map(|o| ((o.name, o.kind), o.spans)).collect();
        let mut expected = BTreeMap::new();
        for span in model.spans.iter().filter(|s| s.service == *service) {
            *expected.entry((span.name.clone(), span.kind as u8)).or_default() += 1;
        }
        assert_eq!(seen, expected);
    }
    for (key, of) in [
        ("correlation_id", (|s| s.text("correlation_id").map(str::to_owned)) as fn(&TestSpan) -> _),
        ("attempt", |s| {
            use opentelemetry_proto::tonic::common::v1::any_value::Value;
            s.attributes.iter().find_map(|(k, v)| match v {
                Value::IntValue(n) if k == "attempt" => Some(n.to_string()),
                _ => None,
            })
        }),
    ] {
        let kind = SignalKind::Spans;
        let found = store.attribute_values(kind, Scope::Span, key, TimeRange::ALL, 5000).unwrap();
        let seen: BTreeMap<_, _> = found.items.into_iter().map(|v| (v.text, v.rows)).collect();
        let mut expected: BTreeMap<String, u64> = BTreeMap::new();
        model.spans.iter().filter_map(of).for_each(|v| *expected.entry(v).or_default() += 1);
        assert_eq!(seen, expected, "{key}");
    }
}

fn options() -> Options {
    let mut options = Options::default();
    options.background = false;
    options.merge_fan_in = 2;
    options
}

fn run(steps: Vec<Step>, ranges: &[(i64, i64)], limit: usize) {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path(), options()).unwrap();
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Spans(spans) => {
                put_spans(&store, &spans);
                model.spans.extend(spans);
            }
            Step::Logs(logs) => {
                put_logs(&store, &logs);
                model.logs.extend(logs);
            }
            Step::Flush => store.flush().unwrap(),
            Step::Compact => store.compact().unwrap(),
            Step::Reopen => {
                drop(store);
                store = Store::open(dir.path(), options()).unwrap();
                assert_eq!(store.recovery().findings, []);
            }
        }
    }
    compare(&store, &model, TimeRange::ALL, limit);
    for (start, end) in ranges {
        compare(&store, &model, TimeRange::new(1_000_000 + start, 1_000_000 + end), limit);
    }
    compare_catalogue(&store, &model);
    assert!(store.check(|_| {}).unwrap().damaged.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn answers_do_not_depend_on_where_rows_lie(
        steps in proptest::collection::vec(any_step(), 1..14),
        ranges in proptest::collection::vec((0i64..200, 0i64..220), 1..3),
        limit in 1usize..12,
    ) {
        run(steps, &ranges, limit);
    }
}

/// Enough rows for several pages, windows and merges.
#[test]
fn many_rows_over_segments_and_memory() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), options()).unwrap();
    let mut model = Model::default();
    let mut next = 1u64;
    for round in 0..5i64 {
        for request in 0..10i64 {
            let spans: Vec<TestSpan> = (0..900)
                .map(|i| {
                    next += 1;
                    let trace = u128::from(next / 9 % 700 + 100 * round as u64) + 1;
                    let start = 1_000_000 + round * 40 + request + i % 7;
                    TestSpan::new(trace, next, &format!("service-{}", i % 5), "operation", start)
                        .with("correlation_id", &format!("correlation-of-trace-{trace:04}"))
                        .with_int("attempt", i % 5)
                })
                .collect();
            put_spans(&store, &spans);
            model.spans.extend(spans);
        }
        if round < 4 {
            store.flush().unwrap();
        }
        if round == 2 {
            store.compact().unwrap();
        }
    }
    let stats = store.stats();
    assert_eq!(stats.kinds[0].segments, 2);
    assert_eq!(stats.kinds[0].segment_rows + stats.kinds[0].memory_rows, 45_000);
    compare(&store, &model, TimeRange::ALL, 20);
    compare(&store, &model, TimeRange::new(1_000_050, 1_000_130), 20);
    compare_catalogue(&store, &model);
}

/// A row group has 131,072 rows; rows of later ones are found as well.
#[test]
fn rows_in_later_row_groups_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), options()).unwrap();
    let (requests, rows) = (20, 7000);
    for request in 0..requests {
        let spans: Vec<TestSpan> = (request * rows..(request + 1) * rows)
            .map(|i: u64| TestSpan::new(u128::from(i / 7) + 1, i + 1, "s", "o", 1_000 + i as i64))
            .collect();
        put_spans(&store, &spans);
    }
    store.flush().unwrap();
    assert_eq!(store.stats().kinds[0].segments, 1);
    for trace in [0, 1, 9_999, 18_723, 18_724, 18_725, 19_999] {
        let found = store.trace(trace_id(u128::from(trace) + 1), None).unwrap();
        let expected: Vec<u64> = (trace * 7 + 1..=trace * 7 + 7).collect();
        assert_eq!(span_ids(&found.items), expected);
    }
    let range = TimeRange::new(1_000 + 131_000, 1_000 + 131_200);
    let scan = store.scan(SignalKind::Spans, None, range, Some(&["name"]), usize::MAX).unwrap();
    assert_eq!(scan.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 200);
    let scan = store.scan(SignalKind::Spans, None, TimeRange::ALL, None, usize::MAX).unwrap();
    let all: Vec<u64> = scan.flat_map(|batch| span_ids(&batch.unwrap())).collect();
    assert_eq!(all, (1..=requests * rows).collect::<Vec<_>>());
}
