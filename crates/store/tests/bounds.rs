//! What holds whatever clients send: clocks ahead, invented keys, ids that are numbers.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests say what broke by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use lacuna_signal::SignalKind;
use lacuna_signal::selector::Selector;
use lacuna_store::{Options, Store, TimeRange};
use support::*;

const DAY: i64 = 24 * 3600 * 1_000_000_000;

fn by_hand(now: &Arc<AtomicI64>, retention: i64) -> Options {
    let mut options = Options::default();
    options.background = false;
    options.retain_for = Some(Duration::from_nanos(retention as u64));
    options.clock = {
        let now = now.clone();
        Arc::new(move || now.load(Ordering::Relaxed))
    };
    options
}

fn span(id: u64, start: i64) -> TestSpan {
    TestSpan::new(u128::from(id), id, "els", "work", start)
}

fn rows(store: &Store) -> u64 {
    let stats = store.stats();
    stats.kinds[0].memory_rows + stats.kinds[0].segment_rows
}

/// Regression: one row from a clock that was a year ahead kept its segment for a year.
#[test]
fn a_row_from_the_future_goes_when_its_segment_is_too_old() {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicI64::new(100 * DAY));
    let store = Store::open(dir.path(), by_hand(&now, 8 * DAY)).unwrap();
    put_spans(&store, &[span(1, 100 * DAY - 5), span(2, 465 * DAY)]);
    store.flush().unwrap();
    now.store(108 * DAY, Ordering::Relaxed);
    store.enforce_retention().unwrap();
    assert_eq!(rows(&store), 2);
    now.store(108 * DAY + 1, Ordering::Relaxed);
    store.enforce_retention().unwrap();
    assert_eq!(rows(&store), 0);
}

/// A clock that was behind when rows were written does not make them old.
#[test]
fn rows_written_by_a_clock_that_was_behind_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicI64::new(0));
    let store = Store::open(dir.path(), by_hand(&now, 8 * DAY)).unwrap();
    put_spans(&store, &[span(1, 100 * DAY)]);
    store.flush().unwrap();
    now.store(100 * DAY + 1, Ordering::Relaxed);
    store.enforce_retention().unwrap();
    assert_eq!(rows(&store), 1);
}

/// Regression: merges went by size alone, so a segment came to span weeks and stayed as long as its
/// newest row.
#[test]
fn merges_stay_within_a_window_of_time() {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicI64::new(100 * DAY));
    let store = Store::open(dir.path(), by_hand(&now, 16 * DAY)).unwrap();
    for number in 0..8u64 {
        put_spans(&store, &[span(number + 1, (92 + number as i64) * DAY)]);
        store.flush().unwrap();
    }
    store.compact().unwrap();
    // Windows of two days.
    assert_eq!(store.stats().kinds[0].segments, 4);
    now.store(111 * DAY + 1, Ordering::Relaxed);
    store.enforce_retention().unwrap();
    assert_eq!(rows(&store), 4);
}

/// Regression: every request with keys of its own, joined, became as many columns as there were keys.
#[test]
fn invented_keys_do_not_become_a_square_of_cells() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    options.background = false;
    let store = Store::open(dir.path(), options).unwrap();
    let (requests, spans) = (300u64, 20u64);
    for request in 0..requests {
        let spans: Vec<TestSpan> = (0..spans)
            .map(|n| {
                let id = request * spans + n + 1;
                span(id, id as i64).with(&format!("key.{id}"), "value")
            })
            .collect();
        put_spans(&store, &spans);
    }
    // 6,000 rows of 6,000 columns would be 36 million cells, 16 bytes each until they are packed.
    let peak = (0..50)
        .map(|_| {
            std::thread::sleep(Duration::from_millis(20));
            store.stats().memory_bytes
        })
        .max()
        .unwrap();
    assert!(peak < 48 << 20, "{peak}");
    let selector = Selector::parse(r#"{ span.key.4711 = "value" }"#).unwrap();
    let found = store.newest(SignalKind::Spans, Some(&selector), TimeRange::ALL, None, 10).unwrap();
    assert_eq!(span_ids(&found.items), [4711]);
    assert_eq!(rows(&store), requests * spans);
}

/// Regression: a column of integers with more than 4,096 values was not indexed, and an integer in a
/// selector asked no index at all.
#[test]
fn a_number_that_is_an_id_is_found_by_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    options.background = false;
    let store = Store::open(dir.path(), options).unwrap();
    let spans: Vec<TestSpan> =
        (1..=20_000).map(|id| span(id, id as i64).with_int("order_id", id as i64 * 7)).collect();
    for spans in spans.chunks(5_000) {
        put_spans(&store, spans);
    }
    store.flush().unwrap();
    for text in [
        "{ span.order_id = 70000 }",
        "{ span.order_id = 70000.0 }",
        r#"{ any.order_id = "70000" }"#,
        "{ .order_id = 70000 && name = \"work\" }",
    ] {
        let before = store.counters().rows_read;
        let selector = Selector::parse(text).unwrap();
        let found = store.newest(SignalKind::Spans, Some(&selector), TimeRange::ALL, None, 10);
        assert_eq!(span_ids(&found.unwrap().items), [10_000], "{text}");
        let read = store.counters().rows_read - before;
        assert!(read <= 2 * 512, "{text}: {read} rows were read");
    }
    let none = Selector::parse("{ span.order_id = 70001 }").unwrap();
    let found = store.newest(SignalKind::Spans, Some(&none), TimeRange::ALL, None, 10).unwrap();
    assert_eq!(found.items.num_rows(), 0);
}
