//! A segment has no more columns than its bound, however many names attributes have, and nothing of
//! what found no column is lost.
#![allow(clippy::unwrap_used, reason = "tests say what broke by panicking")]

mod support;

use std::path::Path;

use lacuna_signal::schema::Scope;
use lacuna_signal::selector::Selector;
use lacuna_signal::{SignalKind, Value as Read};
use lacuna_store::{Options, Store, TimeRange};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue};
use parquet::file::reader::{FileReader, SerializedFileReader};
use support::{TestSpan, put_spans, span_ids, trace_id};

const SPANS: u64 = 1_800;

/// A span with two names that no other has, of a type that goes by its number, and one that all have.
fn spans(from: u64, to: u64) -> Vec<TestSpan> {
    (from..to)
        .map(|id| {
            let text = |text: String| Value::StringValue(text);
            let element = AnyValue { value: Some(text(format!("element-{id}"))) };
            let value = match id % 6 {
                0 => text(format!("text {id}")),
                1 => Value::IntValue(id as i64),
                2 => Value::DoubleValue(id as f64 / 4.0),
                3 => Value::BoolValue(true),
                4 => Value::BytesValue(id.to_be_bytes().to_vec()),
                _ => Value::ArrayValue(ArrayValue { values: vec![element] }),
            };
            let span = TestSpan::new(u128::from(id), id, "worker", "work", id as i64);
            let mut span = span.with("shared", "by all").with(&format!("twin.{id}"), "twin");
            span.attributes.push((format!("key.{id}"), value));
            span
        })
        .collect()
}

/// The most attribute columns that any segment has.
fn widest(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir.join("segments")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let parquet = paths.filter(|path| path.extension().is_some_and(|e| e == "parquet"));
    let columns = parquet.map(|path| {
        let file = SerializedFileReader::new(std::fs::File::open(path).unwrap()).unwrap();
        let schema = file.metadata().file_metadata().schema_descr_ptr();
        let root = schema.root_schema().get_fields();
        root.iter().filter(|field| field.name().contains('.')).count()
    });
    columns.max().unwrap()
}

fn ids(store: &Store, selector: &str) -> Vec<u64> {
    let selector = Selector::parse(selector).unwrap();
    let range = TimeRange::ALL;
    let found = store.newest(SignalKind::Spans, Some(&selector), range, None, 10).unwrap();
    span_ids(&found.items)
}

fn nothing_is_lost(store: &Store) {
    for id in [1, 2, 3, 4, 5, 6, 900, 901, 902, 903, 904, 905, SPANS - 1, SPANS] {
        let found = store.trace(trace_id(u128::from(id)), None).unwrap().items;
        let attributes = found.attributes(Scope::Span);
        let mut seen: Vec<(String, String)> = attributes
            .of_row(0)
            .map(|(key, value)| {
                let number = matches!(value, Read::Int(_)).then_some("int ").unwrap_or_default();
                (key.to_owned(), format!("{number}{}", value.to_text()))
            })
            .collect();
        seen.sort();
        let own = match id % 6 {
            0 => format!("text {id}"),
            1 => format!("int {id}"),
            2 => lacuna_signal::value::double_text(id as f64 / 4.0),
            3 => "true".to_owned(),
            4 => lacuna_signal::value::base64(&id.to_be_bytes()),
            _ => {
                format!("{{\"arrayValue\":{{\"values\":[{{\"stringValue\":\"element-{id}\"}}]}}}}")
            }
        };
        let expected = [
            (format!("key.{id}"), own),
            ("shared".to_owned(), "by all".to_owned()),
            (format!("twin.{id}"), "twin".to_owned()),
        ];
        assert_eq!(seen, expected, "span {id}");
        let literal = match id % 6 {
            0 => format!("\"text {id}\""),
            1 => id.to_string(),
            2 => (id as f64 / 4.0).to_string(),
            3 => "true".to_owned(),
            4 => continue,
            _ => format!("\"element-{id}\""),
        };
        assert_eq!(ids(store, &format!("{{ span.key.{id} = {literal} }}")), [id], "{literal}");
        assert_eq!(ids(store, &format!("{{ span.twin.{id} = \"twin\" }}")), [id]);
    }
    assert_eq!(ids(store, "{ span.shared = \"by all\" }").len(), 10);
    assert!(store.check(|_| {}).unwrap().damaged.is_empty());
}

/// Regression: a merge made a column of every name that any of its segments had.
#[test]
fn thousands_of_names_over_many_flushes_do_not_become_columns() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    options.background = false;
    let store = Store::open(dir.path(), options).unwrap();
    for start in (1..=SPANS).step_by(150) {
        put_spans(&store, &spans(start, start + 150));
        store.flush().unwrap();
    }
    assert_eq!(store.stats().kinds[0].segments, SPANS / 150);
    nothing_is_lost(&store);
    store.compact().unwrap();
    assert_eq!(store.stats().kinds[0].segments, 1);
    assert_eq!(widest(dir.path()), 1024);
    nothing_is_lost(&store);
    // What is used most has its column still.
    let services = store.services(TimeRange::ALL, 10).unwrap().items;
    assert_eq!((services.len(), services[0].spans), (1, SPANS));
    let shared =
        store.attribute_values(SignalKind::Spans, Scope::Span, "shared", TimeRange::ALL, 9);
    assert_eq!(shared.unwrap().items[0].rows, SPANS);
}

/// The same when they are in memory together, and are flushed at once.
#[test]
fn thousands_of_names_in_one_flush_do_not_become_columns() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    options.background = false;
    let store = Store::open(dir.path(), options).unwrap();
    for start in (1..=SPANS).step_by(150) {
        put_spans(&store, &spans(start, start + 150));
    }
    store.flush().unwrap();
    assert_eq!(widest(dir.path()), 1024);
    nothing_is_lost(&store);
}
