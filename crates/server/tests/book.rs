//! The book of findings: what is a change, who is told, what survives.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

use jiff::Timestamp;
use lacuna_server::book::{Book, Change, ChangeKind, MAX_NOTICES};
use lacuna_signal::finding::{
    Acknowledgement, Finding, FindingKind, Severity, Status, Verdict, fingerprint,
};
use std::slice::from_ref;
use std::sync::Arc;

const HOOK: &str = "webhook http://hook";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn finding(name: &str, status: Status, count: u64) -> Finding {
    Finding {
        fingerprint: fingerprint(&[name]),
        kind: FindingKind::SilentFailure,
        source: format!("contract/{name}"),
        contracts: vec![name.to_owned()],
        title: name.to_owned(),
        description: String::new(),
        severity: Severity::Warning,
        status,
        key: Vec::new(),
        verdict: Some(Verdict::Missed),
        services: Vec::new(),
        count,
        concerned: count,
        rate: 1.0,
        first_seen: at(0),
        last_seen: at(0),
        examples: Vec::new(),
        runbook_url: None,
        acknowledged: None,
    }
}

fn book() -> Book {
    Book::new(&[HOOK.to_owned()])
}

fn update(book: &mut Book, findings: &[Finding], second: i64) -> Vec<ChangeKind> {
    let changes: Vec<Arc<Change>> = book.update(findings.to_vec(), Some(at(second)), at(second));
    changes.iter().map(|change| change.kind).collect()
}

fn keys(book: &Book) -> Vec<String> {
    book.waiting(HOOK).map(|notice| notice.key()).collect()
}

/// Guarantees: opening and resolving are told once each, growing is a change that nobody is told
/// of, and what the monitor no longer knows is resolved.
#[test]
fn changes_are_told_once() {
    let (mut book, name) = (book(), fingerprint(&["a"]));
    let open = finding("a", Status::Open, 1);
    assert_eq!(update(&mut book, from_ref(&open), 1), [ChangeKind::Opened]);
    assert_eq!(update(&mut book, from_ref(&open), 2), []);
    assert_eq!(update(&mut book, &[finding("a", Status::Open, 2)], 3), [ChangeKind::Changed]);
    assert_eq!(update(&mut book, &[finding("a", Status::Resolved, 0)], 4), [ChangeKind::Resolved]);
    assert_eq!(update(&mut book, &[open], 5), [ChangeKind::Opened]);
    assert_eq!(update(&mut book, &[], 6), [ChangeKind::Resolved]);
    let expected = ["1-open", "1-resolved", "2-open", "2-resolved"];
    assert_eq!(keys(&book), expected.map(|key| format!("{name}-{key}")));
    assert_eq!(book.complete(Vec::new(), true)[0].status, Status::Resolved);
    // What was resolved before anybody saw it open is no news.
    assert_eq!(update(&mut book, &[finding("b", Status::Resolved, 0)], 7), []);
}

/// Guarantees: what was written is all there again; nothing is told again, changes have new
/// numbers, and channels that are gone take their notices with them.
#[test]
fn a_book_that_was_written_goes_on() {
    let mut book = book();
    let open = finding("a", Status::Open, 1);
    update(&mut book, from_ref(&open), 1);
    let by = Acknowledgement { by: "ann".to_owned(), at: at(1), comment: None };
    assert_eq!(
        book.acknowledge(&open.fingerprint, Some(by.clone())).unwrap().kind,
        ChangeKind::Acknowledged
    );
    let last = book.last_change();
    let bytes = book.to_bytes();
    let mut again = Book::from_bytes(&bytes, &[HOOK.to_owned()]).unwrap();
    assert_eq!(keys(&again), keys(&book));
    assert_eq!(again.watermark(), Some(at(1)));
    assert_eq!(update(&mut again, from_ref(&open), 2), []);
    assert_eq!(again.complete(vec![open.clone()], true)[0].acknowledged, Some(by));
    assert!(again.last_change() > last);
    assert!(again.changes_after(last).is_none());
    let ids: Vec<u64> = again.waiting(HOOK).map(|notice| notice.id).collect();
    again.told(HOOK, &ids);
    assert!(keys(&again).is_empty());
    // A new episode is nobody's.
    update(&mut again, &[finding("a", Status::Resolved, 0)], 3);
    assert!(again.acknowledge(&open.fingerprint, None).is_none());
    update(&mut again, from_ref(&open), 4);
    assert_eq!(again.complete(vec![open], true)[0].acknowledged, None);
    assert!(Book::from_bytes(&bytes, &[]).unwrap().waiting(HOOK).next().is_none());
    assert!(Book::from_bytes(b"{}", &[]).is_err());
}

/// Guarantees: what waits is bounded, and what is given up is counted; so are findings that no
/// longer hold.
#[test]
fn the_book_is_bounded() {
    let mut book = book();
    for i in 0..2_000i64 {
        update(&mut book, &[finding(&format!("f{i}"), Status::Open, 1)], i);
    }
    let (_, waiting, dropped) = book.channels().next().unwrap();
    // All but the last were resolved too.
    assert!((1..=MAX_NOTICES).contains(&waiting), "{waiting}");
    assert_eq!(waiting as u64 + dropped, 3_999);
    assert!(book.entries().len() <= 1_001);
    // The newest are those that are kept.
    assert!(book.waiting(HOOK).any(|notice| notice.entry.finding.title == "f1999"));
}

/// Scenario: nobody is told for long; one finding stays open, a thousand others come and go.
/// Guarantees: of each finding at most its newest state waits, and the one that is open is not given
/// up for those that are over.
#[test]
fn an_opening_is_not_given_up_for_what_comes_and_goes() {
    let mut book = book();
    let first = finding("first", Status::Open, 1);
    for i in 0..1_000i64 {
        let other = finding(&format!("f{}", i % 400), Status::Open, 1);
        update(&mut book, &[first.clone(), other], i);
    }
    let waiting: Vec<_> = book.waiting(HOOK).map(|notice| &notice.entry.finding).collect();
    assert!(waiting.len() <= MAX_NOTICES, "{}", waiting.len());
    let of = |title: &str| waiting.iter().filter(|finding| finding.title == title).count();
    assert_eq!(of("first"), 1);
}

/// Guarantees: a reader that was away gets what it missed, as long as that is known.
#[test]
fn changes_after_a_number() {
    let mut book = book();
    update(&mut book, &[finding("a", Status::Open, 1)], 1);
    let first = book.last_change();
    update(&mut book, &[finding("a", Status::Open, 2)], 2);
    let missed = book.changes_after(first).unwrap();
    assert_eq!(missed.len(), 1);
    assert_eq!(missed[0].finding.count, 2);
    assert!(book.changes_after(book.last_change()).unwrap().is_empty());
    assert!(book.changes_after(u64::MAX).is_none());
    for count in 3..2_000 {
        update(&mut book, &[finding("a", Status::Open, count)], 3);
    }
    assert!(book.changes_after(first).is_none());
}
