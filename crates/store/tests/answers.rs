//! Memory for answers: what verbs gather for questions is counted, and answers are cut there.
#![allow(clippy::unwrap_used, reason = "tests say what broke by panicking")]

use bytes::Bytes;
use lacuna_signal::otlp::decode;
use lacuna_signal::rows::LogRows;
use lacuna_signal::{SignalKind, TraceId};
use lacuna_store::{BusyReason, Options, Store, StoreError, TimeRange};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message;

const ROWS: u64 = 3_000;
const BUDGET: usize = 2 << 20;

/// Log records of 8 KiB, all of one trace.
fn filled() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    options.query_bytes = BUDGET;
    let store = Store::open(dir.path(), options).unwrap();
    for part in 0..3 {
        let record = |i: u64| LogRecord {
            // Not in order, as parts and pages do not lie.
            time_unix_nano: 1_000_000 + (i * 7919 + part) % ROWS,
            trace_id: vec![1; 16],
            body: Some(AnyValue {
                value: Some(Value::StringValue(format!("{i} {}", "x".repeat(8192)))),
            }),
            ..LogRecord::default()
        };
        let log_records = (part * ROWS / 3..(part + 1) * ROWS / 3).map(record).collect();
        let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
        let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
        let body = Bytes::from(ExportLogsServiceRequest { resource_logs }.encode_to_vec());
        let rows = decode(SignalKind::Logs, body.clone()).unwrap().batch;
        store.append_wait(SignalKind::Logs, body, rows).unwrap();
    }
    (dir, store)
}

#[test]
fn an_answer_is_cut_where_its_memory_ends_and_is_of_the_newest() {
    let (_dir, store) = filled();
    for place in ["memory", "segment"] {
        let newest = |store: &Store, limit| {
            store.newest(SignalKind::Logs, None, TimeRange::ALL, None, limit).unwrap()
        };
        let all = newest(&store, ROWS as usize);
        assert_eq!((all.items.num_rows(), all.cut), (ROWS as usize, false), "{place}");
        let question = store.question().unwrap();
        let found = newest(&question, ROWS as usize);
        let rows = found.items.num_rows();
        assert!(found.cut && rows > 20, "{place}: {rows} rows");
        assert!(found.items.memory_size() <= BUDGET, "{place}");
        let (some, every) = (LogRows::new(&found.items), LogRows::new(&all.items));
        for row in 0..rows {
            assert_eq!(some.time(row), every.time(row), "{place}: row {row}");
        }
        let held = store.answering_bytes();
        assert!(held > BUDGET / 4 && held <= BUDGET, "{place}: {held}");
        drop(question);
        assert_eq!(store.answering_bytes(), 0, "{place}");
        // The oldest of a trace.
        let question = store.question().unwrap();
        let found = question.logs_of_trace(TraceId([1; 16]), None, ROWS as usize).unwrap();
        assert!(found.cut && found.items.num_rows() > 20, "{place}");
        assert_eq!(LogRows::new(&found.items).time(0), every.time(ROWS as usize - 1), "{place}");
        // A small answer of another is not.
        drop(question);
        let question = store.question().unwrap();
        assert!(newest(&question, 10).cut);
        assert_eq!(newest(&question, 10).items.num_rows(), 10, "{place}");
        drop(question);
        assert_eq!(store.answering_bytes(), 0, "{place}");
        store.flush().unwrap();
    }
    assert!(store.counters().answers_short > 0);
}

#[test]
fn a_question_that_finds_no_room_is_refused_for_the_moment() {
    let (_dir, store) = filled();
    let first = store.question().unwrap();
    assert!(first.hold(BUDGET - BUDGET / 32));
    assert!(!first.hold(BUDGET), "more than there is");
    let refused = store.question().unwrap_err();
    assert!(matches!(refused, StoreError::Busy { reason: BusyReason::Answers, .. }), "{refused}");
    drop(first);
    assert!(store.question().is_ok());
}
