//! Each verb on a small store whose answers can be read off.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use lacuna_signal::SignalKind;
use lacuna_signal::schema::Scope;
use lacuna_signal::selector::Selector;
use lacuna_store::{EdgeKind, Options, Store, TimeRange};
use support::*;

fn small_store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options::default()).unwrap();
    put_spans(
        &store,
        &[
            TestSpan::new(1, 10, "front", "GET /", 100).with("user", "ann"),
            TestSpan { parent: 10, ..TestSpan::new(1, 11, "cart", "add", 150) },
            TestSpan { kind: 4, parent: 11, ..TestSpan::new(1, 12, "cart", "send orders", 160) },
        ],
    );
    put_spans(
        &store,
        &[TestSpan {
            kind: 5,
            error: true,
            link: Some((1, 12)),
            ..TestSpan::new(2, 20, "ship", "process orders", 300)
        }
        .with("user", "bob")],
    );
    put_logs(
        &store,
        &[
            TestLog { trace: 1, span: 11, service: "cart".into(), time: 155, body: "added".into() },
            TestLog { trace: 0, span: 0, service: "cart".into(), time: 90, body: "up".into() },
            TestLog { trace: 1, span: 10, service: "front".into(), time: 101, body: "hi".into() },
        ],
    );
    (dir, store)
}

fn select(text: &str) -> Selector {
    Selector::parse(text).unwrap()
}

/// Rows of memory come after those of segments, so the order once showed where a span lay.
#[test]
fn spans_that_share_an_id_have_one_order_wherever_they_lie() {
    let twins = ["a call", "its server"].map(|name| TestSpan::new(1, 7, "front", name, 100));
    let other = TestSpan::new(2, 9, "front", "another", 100);
    for (first, second) in [(0, 1), (1, 0)] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Options::default()).unwrap();
        put_spans(&store, &[twins[first].clone(), other.clone()]);
        store.flush().unwrap();
        put_spans(&store, &[twins[second].clone()]);
        let names = |found: lacuna_store::Found<lacuna_signal::Batch>| {
            let rows = lacuna_signal::rows::SpanRows::new(&found.items);
            (0..found.items.num_rows()).map(|row| rows.name(row).to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(store.trace(trace_id(1), None).unwrap()), ["a call", "its server"]);
        let ids = [1, 2].map(trace_id);
        let together = store.traces(&ids).map(|found| names(found.unwrap()));
        assert_eq!(together.collect::<Vec<_>>(), [&["a call", "its server"][..], &["another"]]);
    }
}

#[test]
fn a_trace_is_whole_and_ordered() {
    let (_dir, store) = small_store();
    let found = store.trace(trace_id(1), None).unwrap();
    assert!(found.is_complete());
    assert_eq!(span_ids(&found.items), [10, 11, 12]);
    let found = store.trace(trace_id(1), Some(TimeRange::new(150, 160))).unwrap();
    assert_eq!(span_ids(&found.items), [11]);
    assert_eq!(store.trace(trace_id(9), None).unwrap().items.num_rows(), 0);
}

#[test]
fn traces_are_found_newest_first_and_cut_truthfully() {
    let (_dir, store) = small_store();
    let all = select("{ }");
    let found = store.find_traces(&all, TimeRange::ALL, 2).unwrap();
    assert!(found.is_complete());
    let seen: Vec<_> =
        found.items.iter().map(|m| (m.trace_id, m.start, m.newest, m.matched)).collect();
    assert_eq!(seen, [(trace_id(2), 300, 300, 1), (trace_id(1), 100, 160, 3)]);
    let found = store.find_traces(&all, TimeRange::ALL, 1).unwrap();
    assert!(found.cut && found.items.len() == 1 && found.items[0].trace_id == trace_id(2));

    let ann = select(r#"{ span.user = "ann" }"#);
    let found = store.find_traces(&ann, TimeRange::ALL, 10).unwrap();
    assert_eq!((found.items[0].matched, found.items[0].spans), (1, 3));
    let found = store.find_traces(&ann, TimeRange::new(101, 1000), 10).unwrap();
    assert!(found.items.is_empty());
}

#[test]
fn logs_of_a_trace_and_newest_logs() {
    let (_dir, store) = small_store();
    let found = store.logs_of_trace(trace_id(1), None, 10).unwrap();
    let bodies = |batch: &lacuna_signal::Batch| -> Vec<String> {
        let rows = lacuna_signal::rows::LogRows::new(batch);
        (0..batch.num_rows()).map(|row| rows.body(row).unwrap().to_owned()).collect()
    };
    assert_eq!(bodies(&found.items), ["hi", "added"]);
    let found = store.newest(SignalKind::Logs, None, TimeRange::ALL, None, 2).unwrap();
    assert!(found.cut);
    assert_eq!(bodies(&found.items), ["added", "hi"]);
}

#[test]
fn a_scan_reads_named_columns_and_tells_when_it_is_cut() {
    let (_dir, store) = small_store();
    let selector = select("{ resource.service.name = \"cart\" }");
    let rows = |limit: usize| {
        let mut scan = store
            .scan(SignalKind::Spans, Some(&selector), TimeRange::ALL, Some(&["name"]), limit)
            .unwrap();
        let batches: Vec<_> = scan.by_ref().map(Result::unwrap).collect();
        for batch in &batches {
            assert_eq!(batch.record().num_columns(), 1);
        }
        (batches.iter().map(|b| b.num_rows()).sum::<usize>(), scan.cut())
    };
    assert_eq!(rows(10), (2, false));
    assert_eq!(rows(2), (2, false));
    assert_eq!(rows(1), (1, true));
}

#[test]
fn the_catalogue_knows_services_operations_and_attributes() {
    let (_dir, store) = small_store();
    let services = store.services(TimeRange::ALL, 10).unwrap();
    let seen: Vec<_> = services.items.iter().map(|s| (s.name.as_str(), s.spans, s.logs)).collect();
    assert_eq!(seen, [("cart", 2, 2), ("front", 1, 1), ("ship", 1, 0)]);
    assert!(store.services(TimeRange::ALL, 2).unwrap().cut);
    let operations = store.operations("cart", None, TimeRange::ALL, 10).unwrap();
    let seen: Vec<_> = operations.items.iter().map(|o| (o.name.as_str(), o.kind)).collect();
    assert_eq!(seen, [("add", 1), ("send orders", 4)]);
    assert_eq!(store.operations("cart", Some(4), TimeRange::ALL, 10).unwrap().items.len(), 1);
    let keys = store.attribute_keys(SignalKind::Spans, TimeRange::ALL, 10).unwrap();
    let seen: Vec<_> = keys.items.iter().map(|k| (k.scope, k.key.as_str(), k.rows)).collect();
    assert_eq!(seen, [("span", "user", 2), ("resource", "service.name", 4)]);
    let values =
        store.attribute_values(SignalKind::Spans, Scope::Span, "user", TimeRange::ALL, 10).unwrap();
    let seen: Vec<_> = values.items.iter().map(|v| (v.text.as_str(), v.rows)).collect();
    assert_eq!(seen, [("ann", 1), ("bob", 1)]);
}

#[test]
fn edges_follow_parents_and_links() {
    let (_dir, store) = small_store();
    let found = store.edges(TimeRange::ALL, 1000).unwrap();
    let seen: Vec<_> = found
        .items
        .edges
        .iter()
        .map(|e| (e.parent.as_str(), e.child.as_str(), e.kind, e.calls, e.errors))
        .collect();
    assert_eq!(
        seen,
        [("cart", "ship", EdgeKind::Link, 1, 1), ("front", "cart", EdgeKind::Parent, 1, 0)]
    );
    assert_eq!((found.items.orphans, found.items.dangling_links), (0, 0));
    assert!(store.edges(TimeRange::ALL, 2).unwrap().cut);
}

#[test]
fn everything_is_there_after_reopening() {
    let (dir, store) = small_store();
    let before = store.newest(SignalKind::Logs, None, TimeRange::ALL, None, 10).unwrap();
    drop(store);
    let store = Store::open(dir.path(), Options::default()).unwrap();
    assert_eq!(store.recovery().rows, 7);
    assert!(store.recovery().findings.is_empty());
    let after = store.newest(SignalKind::Logs, None, TimeRange::ALL, None, 10).unwrap();
    assert_eq!(before, after);
    assert_eq!(span_ids(&store.trace(trace_id(1), None).unwrap().items), [10, 11, 12]);
}

#[test]
fn a_second_store_on_the_folder_gets_one_clear_line() {
    let (dir, _store) = small_store();
    let error = Store::open(dir.path(), Options::default()).unwrap_err().to_string();
    let pid = std::process::id();
    let expected = format!(
        "{}: the data folder is in use by another process (pid {pid})",
        dir.path().display()
    );
    assert_eq!(error, expected);
}

#[test]
fn a_folder_that_cannot_be_made_gets_one_clear_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Store::open(file.join("data"), Options::default()).unwrap_err().to_string();
    assert!(error.contains("cannot create the folder") && !error.contains('\n'), "{error}");
}

#[test]
fn a_closed_store_reads_and_refuses_writes() {
    let (_dir, store) = small_store();
    store.close();
    let body = span_request(&[TestSpan::new(5, 50, "a", "b", 1)]);
    let batch = decode(SignalKind::Spans, &body);
    let error = store.append_wait(SignalKind::Spans, body, batch).unwrap_err();
    assert_eq!(error.to_string(), "the store is closed");
    assert_eq!(store.trace(trace_id(1), None).unwrap().items.num_rows(), 3);
}

/// The position follows an answer by a moment: it must never be ahead of what has been seen.
fn await_position(store: &Store, position: u64) {
    while store.position() < position {
        std::thread::yield_now();
    }
    assert_eq!(store.position(), position);
}

#[test]
fn what_came_since_a_position_is_found_in_memory_after_a_restart_and_in_segments() {
    let (dir, store) = small_store();
    let position = 3;
    await_position(&store, position);
    let ids = |store: &Store, position| {
        let mut ids = [false, true].map(|whole| {
            let scan =
                store.scan_since(SignalKind::Spans, position, whole, TimeRange::ALL).unwrap();
            scan.flat_map(|batch| span_ids(&batch.unwrap())).collect::<Vec<u64>>()
        });
        ids.iter_mut().for_each(|ids| ids.sort_unstable());
        ids
    };
    assert_eq!(ids(&store, position), [Vec::<u64>::new(), Vec::new()]);
    assert_eq!(store.bounds_since(position), None);
    put_spans(&store, &[TestSpan::new(3, 30, "front", "GET /", 900)]);
    assert_eq!(ids(&store, position), [Vec::<u64>::new(), vec![30u64]]);
    assert_eq!(store.bounds_since(position).unwrap().max, 900);
    store.close();
    drop(store);
    // Read back from the log, or written to a segment, they may lie with what came before.
    let store = Store::open(dir.path(), Options::default()).unwrap();
    assert_eq!(store.position(), 4);
    let [some, all] = ids(&store, position);
    assert!(some.contains(&30) || all.contains(&30), "{some:?} {all:?}");
    store.flush().unwrap();
    let [some, all] = ids(&store, position);
    assert!(some.contains(&30) && all.is_empty(), "{some:?} {all:?}");
    assert_eq!(ids(&store, 4), [Vec::<u64>::new(), Vec::new()]);
}
