//! What keys with very many events keep and give up, and what evictions leave behind.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use std::time::Duration;

use common::{EPOCH, Ev, MS, batch, contract, ev};
use jiff::Timestamp;
use lacuna_contract::{Monitor, Options, history};
use lacuna_signal::Batch;
use lacuna_signal::finding::Verdict;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(EPOCH + millis * MS)).unwrap()
}

fn count(monitor: &Monitor, verdict: Verdict) -> u64 {
    monitor.verdict_counts().find(|(_, v, _)| *v == verdict).unwrap().2
}

fn rule(kind: &str, more: &str) -> String {
    format!(
        "kind: {kind}\nwhen: '{{ name = \"a\" }}'\nexpect: '{{ name = \"b\" }}'\nkey: [span.key]\n\
         {more}"
    )
}

fn events(name: &'static str, ids: std::ops::Range<u32>, step: i64) -> Vec<Batch> {
    let all: Vec<Ev> =
        ids.map(|i| ev(i, name, "k", i64::from(i) * step, i64::from(i) * step)).collect();
    all.chunks(5_000).map(batch).collect()
}

const RESPONSE: &str =
    "when: '{ name = \"a\" }'\nexpect: '{ name = \"b\" }'\nkey: [span.key]\nwithin: 1s";

const SUMS: &str = "kind: balance\nleft: 'sum(span.amount) { name = \"a\" }'\n\
                    right: 'sum(span.amount) { name = \"b\" }'\nkey: [span.key]\nwithin: 10m";

/// Scenario: a key of a balance has 100,000 events on each side, all in time; once it is 1 less.
/// Guarantees: live and over history the figures are those of all events, exactly.
#[test]
fn a_balance_adds_up_however_many_events_there_are() {
    let set = contract(
        "kind: balance\nleft: 'count { name = \"a\" }'\nright: 'count { name = \"b\" }'\n\
                        key: [span.key]\nwithin: 10m",
    );
    for (right, verdict) in [(100_000, Verdict::Fulfilled), (99_999, Verdict::Unbalanced)] {
        let mut batches = events("a", 0..100_000, 1);
        batches.extend(events("b", 100_000..100_000 + right, 1));
        batches.push(batch(&[ev(900_000, "x", "", 1_000_000, 1_000_000)]));
        let report = history::run(&set, &batches);
        assert_eq!(report.contracts[0].verdicts[verdict.name()], 1, "history");
        assert!(report.contracts[0].health.problems.is_empty());
        let mut monitor = Monitor::new(&set, Options::default());
        batches.iter().for_each(|batch| monitor.observe(batch));
        assert_eq!(count(&monitor, verdict), 1, "live");
        let (instances, _) = monitor.instances("c", |_| true, 9).unwrap();
        assert_eq!(instances[0].figures["left"], 100_000.0);
        assert_eq!(instances[0].figures["right"], f64::from(right));
        let problems = &monitor.status()[0].health.problems;
        assert!(problems[0].contains("known only as a sum"), "{problems:?}");
    }
}

/// Scenario: whole amounts of sixteen digits that differ by one; amounts of which one is a double.
/// Guarantees: whole numbers are compared exactly.
#[test]
fn whole_amounts_balance_exactly() {
    let verdict = |left: &[i64], right: &[i64]| {
        let side = |name, id: u32, amounts: &[i64]| -> Vec<Ev> {
            let one = |(i, amount): (u32, &i64)| ev(id + i, name, "k", 0, 0).amount(*amount);
            (0..).zip(amounts).map(one).collect()
        };
        let all = [side("a", 0, left), side("b", 100, right)].concat();
        let end = batch(&[ev(900, "x", "", 1_000_000, 1_000_000)]);
        let report = history::run(&contract(SUMS), [&batch(&all), &end]);
        report.contracts[0].verdicts["fulfilled"] == 1
    };
    let large = 9_007_199_254_740_993;
    assert!(verdict(&[large, 1], &[large + 1]));
    assert!(!verdict(&[large], &[large - 1]));
    assert!(!verdict(&[2_000_000_001], &[2_000_000_000]));
    assert!(verdict(&[i64::MAX, i64::MAX], &[i64::MAX, i64::MAX - 1, 1]));
}

/// Scenario: an exactly-contract's key has 150,000 outcomes in time.
/// Guarantees: over history the figure is right; live the verdict is, and little is kept.
#[test]
fn exactly_counts_beyond_all_bounds() {
    let set = contract(&rule("exactly", "count: 2\nwithin: 10m"));
    let mut batches = events("a", 0..1, 1);
    batches.extend(events("b", 1..150_001, 1));
    batches.push(batch(&[ev(900_000, "x", "", 1_000_000, 1_000_000)]));
    let report = history::run(&set, &batches);
    assert_eq!(report.contracts[0].instances[0].figures["count"], 150_000.0);
    let mut monitor = Monitor::new(&set, Options::default());
    batches.iter().for_each(|batch| monitor.observe(batch));
    assert_eq!(count(&monitor, Verdict::Duplicate), 1);
    assert!(monitor.status()[0].health.memory < 20_000_000);
}

/// Scenario: one key has an activation and an outcome every second for a day; some come late.
/// Guarantees: what is settled and old is forgotten, silently because nothing hangs on it any more;
/// all are counted, and those that were late dated; nothing is given up.
#[test]
fn what_is_settled_long_ago_is_counted_and_not_kept() {
    let set = contract(&rule("response", "per: event\nwithin: 500ms"));
    let mut monitor = Monitor::new(&set, Options::default());
    for hour in 0..24i64 {
        let mut list = Vec::new();
        for second in 0..3_600i64 {
            let (id, start) = ((hour * 3_600 + second) as u32, (hour * 3_600 + second) * 1_000);
            list.push(ev(2 * id, "a", "k", start, start + 1));
            if second % 10 != 0 {
                list.push(ev(2 * id + 1, "b", "k", start + 5, start + 6));
            }
        }
        monitor.observe(&batch(&list));
    }
    monitor.observe(&batch(&[ev(900_000, "x", "", 100_000_000, 100_000_000)]));
    assert_eq!(
        (count(&monitor, Verdict::Fulfilled), count(&monitor, Verdict::Late)),
        (77_760, 8_640)
    );
    let finding = monitor.findings().remove(0);
    assert_eq!((finding.count, finding.first_seen), (8_640, at(0)));
    assert_eq!(finding.examples[0].activated_at, at(86_390_000));
    let health = &monitor.status()[0].health;
    assert!(health.memory < 2_000_000, "{}", health.memory);
    assert_eq!(health.problems, ["the outcome's own signal has stopped arriving"]);
    // What comes now for the first hour can decide nothing any more, and is told.
    monitor.observe(&batch(&[ev(900_001, "a", "k", 500, 501)]));
    assert_eq!(monitor.status()[0].health.too_late, 1);
    assert_eq!(count(&monitor, Verdict::Late), 8_640);
}

/// Scenario: the same, and a heartbeat without a key, by the second.
/// Guarantees: windows too are forgotten when they are settled long ago.
#[test]
fn windows_that_are_settled_are_not_kept_for_ever() {
    let set = contract(&rule("heartbeat", "every: 1s").replace("key: [span.key]\n", ""));
    let mut monitor = Monitor::new(&set, Options::default());
    for hour in 0..24i64 {
        let spans = (0..3_600i64).flat_map(|second| {
            let (id, start) = ((hour * 3_600 + second) as u32, (hour * 3_600 + second) * 1_000);
            let beat = (second % 100 != 0).then(|| ev(2 * id + 1, "b", "k", start + 5, start + 6));
            [Some(ev(2 * id, "a", "k", start, start + 1)), beat].into_iter().flatten()
        });
        monitor.observe(&batch(&spans.collect::<Vec<_>>()));
    }
    monitor.observe(&batch(&[ev(900_000, "x", "", 100_000_000, 100_000_000)]));
    assert_eq!(
        (count(&monitor, Verdict::Fulfilled), count(&monitor, Verdict::Missed)),
        (85_536, 864)
    );
    assert!(monitor.status()[0].health.memory < 1_000_000);
}

/// Scenario: more unsettled events in one key than may be kept.
/// Guarantees: the oldest obligations are given up, counted and told.
#[test]
fn what_is_given_up_unsettled_is_told() {
    let set = contract(&rule("response", "per: event\nwithin: 10h"));
    let options = Options { max_events: 2_000, ..Options::default() };
    let mut monitor = Monitor::new(&set, options);
    events("a", 0..5_000, 1).iter().for_each(|batch| monitor.observe(batch));
    let status = &monitor.status()[0];
    assert_eq!(status.activations, 5_000);
    assert!(status.health.evicted_open >= 3_000, "{}", status.health.evicted_open);
    assert_eq!(status.verdicts["open"] + status.health.evicted_open, 5_000);
    assert!(status.health.problems[0].contains("open obligations were given up"));
}

/// Scenario: a key is given up, its number goes to another key, and more have to be given up.
/// Guarantees: those due first are, not the one that has inherited the number.
#[test]
fn eviction_is_not_misled_by_numbers_that_are_used_again() {
    let options = Options { max_open: 3, max_keys: 3, ..Options::default() };
    let mut monitor = Monitor::new(&contract(&rule("response", "within: 100s")), options);
    let open = |i: u32, start: i64| batch(&[ev(i, "a", &format!("k{i}"), start, start)]);
    // `k0` is fulfilled and forgotten for the others; its deadline still stands in the queue.
    monitor.observe(&open(0, 0));
    monitor.observe(&batch(&[ev(10, "b", "k0", 1, 1)]));
    for (i, start) in [(1, 20_000), (2, 25_000)] {
        monitor.observe(&open(i, start));
    }
    // `k3` takes the place of `k0` and is due last.
    monitor.observe(&open(3, 29_000));
    assert_eq!(monitor.open(), 3);
    monitor.observe(&open(4, 28_000));
    let (left, _) = monitor.instances("c", |v| v == Verdict::Open, 9).unwrap();
    let mut keys: Vec<_> = left.iter().map(|instance| instance.key[0].clone()).collect();
    keys.sort();
    assert_eq!(keys, ["k2", "k3", "k4"]);
    // And what was opened still counts.
    assert_eq!(monitor.status()[0].activations, 5);
}

/// Scenario: of a balance, first the left side comes, then an earlier event of the right.
/// Guarantees: it is settled when it is due by the earlier one.
#[test]
fn a_balance_is_due_by_its_earliest_event_of_either_side() {
    let mut monitor =
        Monitor::new(&contract(SUMS), Options { lateness: Duration::ZERO, ..Options::default() });
    monitor.observe(&batch(&[ev(1, "a", "k", 60_000, 60_000).amount(1)]));
    monitor.observe(&batch(&[ev(2, "b", "k", 0, 0).amount(2)]));
    monitor.observe(&batch(&[ev(3, "x", "", 601_000, 601_000)]));
    assert_eq!(count(&monitor, Verdict::Unbalanced), 1);
}

/// Scenario: keys of two parts, the first nearly as long as a key may be, the second a UUID; and one
/// whose text alone is far too long.
/// Guarantees: no key breaks the monitor; each is told with its parts, cut where they are too long,
/// and found by what it is and by what is told.
#[test]
fn keys_that_are_too_long_are_cut_and_found() {
    const ID: &str = "123e4567-e89b-12d3-a456-426614174000";
    let rule = |key: &str| {
        contract(&format!(
            "when: '{{ name = \"{ID}\" }}'\nexpect: '{{ name = \"b\" }}'\nkey: [{key}]\nwithin: 1s"
        ))
    };
    let (set, one) = (rule("span.key, name"), rule("span.key"));
    for length in (4_070..4_100).chain([100_000]) {
        let long = "x".repeat(length);
        let events = [ev(1, ID, &long, 0, 1), ev(2, "x", "", 60_000, 60_000)];
        for (set, parts) in [(&set, vec![long.as_str(), ID]), (&one, vec![long.as_str()])] {
            let mut monitor = Monitor::new(set, Options::default());
            monitor.observe(&batch(&events));
            let (instances, _) = monitor.instances("c", |_| true, 9).unwrap();
            assert_eq!(instances[0].key.len(), parts.len());
            assert!(instances[0].key[0].starts_with("xxx"));
            assert_eq!(monitor.instances_of_key(&parts).len(), 1, "{length}");
            let told: Vec<&str> = instances[0].key.iter().map(String::as_str).collect();
            assert_eq!(monitor.instances_of_key(&told).len(), 1, "{length}");
            assert_eq!(monitor.findings()[0].examples.len(), 1);
        }
    }
}

/// Scenario: one key has ten activations of which each is an obligation, and then ten windows of a
/// heartbeat; one open obligation less may be kept.
/// Guarantees: the oldest one goes, and is counted; the others are judged as they would have been.
#[test]
fn one_open_obligation_too_many_costs_one() {
    let options = || Options { max_open: 9, ..Options::default() };
    let set = contract(&format!("{RESPONSE}\nper: event"));
    let mut monitor = Monitor::new(&set, options());
    let whens: Vec<Ev> =
        (0..10).map(|i| ev(i, "a", "k", 300 * i64::from(i), 300 * i64::from(i))).collect();
    monitor.observe(&batch(&whens));
    assert_eq!((monitor.open(), monitor.status()[0].health.evicted_open), (9, 1));
    // The first that is left is fulfilled; so would be the one that was given up.
    monitor.observe(&batch(&[ev(20, "b", "k", 400, 410), ev(21, "x", "", 90_000, 90_000)]));
    let verdicts = &monitor.status()[0].verdicts;
    assert_eq!((verdicts["fulfilled"], verdicts["missed"], verdicts["open"]), (1, 8, 0));
    assert_eq!(monitor.status()[0].activations, 10);

    let text = "kind: heartbeat\nwhen: '{ name = \"a\" }'\nexpect: '{ name = \"b\" }'\n\
                key: [span.key]\nevery: 1s";
    let mut monitor = Monitor::new(&contract(text), options());
    let whens: Vec<Ev> =
        (0..10).map(|i| ev(i, "a", "k", 1_000 * i64::from(i), 1_000 * i64::from(i))).collect();
    monitor.observe(&batch(&whens));
    assert_eq!((monitor.open(), monitor.status()[0].health.evicted_open), (9, 1));
    monitor.observe(&batch(&[ev(20, "b", "k", 500, 510), ev(21, "b", "k", 5_500, 5_510)]));
    monitor.observe(&batch(&[ev(22, "x", "", 90_000, 90_000)]));
    let status = &monitor.status()[0];
    assert_eq!((status.verdicts["fulfilled"], status.verdicts["missed"]), (1, 8));
    assert_eq!((status.health.too_late, status.activations), (1, 10));
}
