//! Precedence where evidence is missing: silences, edges of the data, what was given up.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use std::time::Duration;

use common::{EPOCH, MS, batch, contract, ev};
use jiff::Timestamp;
use lacuna_contract::history::{self, History};
use lacuna_contract::{ContractSet, Monitor, Options};
use lacuna_signal::Batch;
use lacuna_signal::finding::{FindingKind, Status};

fn at(millis: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(EPOCH + millis * MS)).unwrap()
}

fn rule(more: &str) -> ContractSet {
    contract(&format!(
        "kind: precedence\nwhen: '{{ name = \"a\" }}'\nexpect: '{{ name = \"b\" }}'\nkey: [span.key]\n\
         {more}"
    ))
}

fn verdicts(set: &ContractSet, batches: &[Batch]) -> (u64, u64, u64) {
    let report = history::run(set, batches);
    let verdicts = &report.contracts[0].verdicts;
    (verdicts["fulfilled"], verdicts["phantom"], verdicts["unknown"])
}

/// Scenario: a file's outcomes have no cause: in one case it is the file's first span, in another
/// there is no cause of any key, in a third the causes' service is just quiet for a while.
/// Guarantees: all are phantoms.
#[test]
fn what_never_had_a_cause_is_a_phantom() {
    for more in ["", "within: 10s"] {
        let set = rule(more);
        let first = [batch(&[ev(1, "b", "k", 0, 1), ev(2, "a", "l", 5, 6), ev(3, "b", "l", 7, 8)])];
        assert_eq!(verdicts(&set, &first), (1, 1, 0), "{more}");
        assert_eq!(verdicts(&set, &[batch(&[ev(1, "b", "k", 0, 1)])]), (0, 1, 0), "{more}");
        let quiet = [batch(&[
            ev(1, "a", "l", 0, 1).from("pay"),
            ev(2, "b", "k", 40_000, 40_001).from("ship"),
        ])];
        assert_eq!(verdicts(&set, &quiet), (0, 1, 0), "{more}");
    }
}

/// Scenario: the service of the causes falls silent; outcomes go on for minutes; then it delivers
/// what it had kept.
/// Guarantees: an outcome that came needs its cause, whatever its service did: phantoms, with a note
/// that the service was silent; they are judged anew when it delivers.
#[test]
fn outcomes_while_the_causes_service_is_silent_are_phantoms_with_a_note() {
    let mut monitor = Monitor::new(&rule("within: 30s"), Options::default());
    monitor.observe(&batch(&[
        ev(1, "a", "early", 0, 1).from("orders"),
        ev(2, "b", "early", 10, 11).from("shipping"),
    ]));
    for i in 0..10u32 {
        let (start, key) = (100_000 + i64::from(i) * 1_000, format!("k{i}"));
        monitor.observe(&batch(&[ev(10 + i, "b", &key, start, start).from("shipping")]));
    }
    monitor.observe(&batch(&[ev(3, "x", "", 200_000, 200_000).from("shipping")]));
    let count = |monitor: &Monitor, name: &str| monitor.status()[0].verdicts[name];
    assert_eq!((count(&monitor, "unknown"), count(&monitor, "phantom")), (0, 10));
    let findings = monitor.findings();
    assert_eq!(findings.len(), 1);
    assert_eq!((findings[0].kind, findings[0].status), (FindingKind::SilentFailure, Status::Open));
    assert!(findings[0].description.contains("sent no such signal at all"), "{findings:?}");
    // Nine of the causes come after all.
    let kept = (0..10u32).map(|i| {
        let (start, key) = (99_000 + i64::from(i) * 1_000, format!("k{i}"));
        ev(30 + i, if i == 4 { "y" } else { "a" }, &key, start, start).from("orders")
    });
    monitor.observe(&batch(&kept.collect::<Vec<_>>()));
    assert_eq!((count(&monitor, "fulfilled"), count(&monitor, "phantom")), (10, 1));
    assert!(!monitor.findings()[0].description.contains("Note"));
}

/// Scenario: of a balance the left side's service is silent over its time in one case, the right
/// side's in another.
/// Guarantees: only silence of what is expected leaves it unknown; figures are told with both.
#[test]
fn a_balance_is_unknown_only_where_its_right_side_is_silent() {
    let set = contract(
        "kind: balance\nleft: 'count { name = \"a\" }'\nright: 'count { name = \"b\" }'\n\
         key: [span.key]\nwithin: 10s",
    );
    for (only, verdict) in [("b", "unbalanced"), ("a", "unknown")] {
        let service = |name: &str| if name == "a" { "orders" } else { "shipping" };
        let report = history::run(
            &set,
            &[batch(&[
                ev(1, "a", "early", 0, 1).from("orders"),
                ev(2, "b", "early", 5, 6).from("shipping"),
                ev(3, only, "k", 50_000, 50_001).from(service(only)),
                ev(4, "x", "", 90_000, 90_000).from("clock"),
            ])],
        );
        let instance = &report.contracts[0].instances[0];
        assert_eq!((instance.verdict.name(), instance.key[0].as_str()), (verdict, "k"));
        let figures = (instance.figures["left"], instance.figures["right"]);
        assert_eq!(figures, if only == "a" { (1.0, 0.0) } else { (0.0, 1.0) });
    }
}

/// Scenario: a service sends other spans, falls silent over an obligation, and sends its first
/// outcome only later.
/// Guarantees: it is one of the side's services all along: unknown, live as over history.
#[test]
fn a_service_whose_outcomes_come_only_later_was_one_before() {
    let set = contract(
        "when: '{ name = \"a\" }'\nexpect: '{ name = \"b\" }'\nkey: [span.key]\nwithin: 1s",
    );
    let batches = [
        batch(&[ev(1, "y", "", 0, 0).from("pay"), ev(2, "a", "k", 10_000, 10_000).from("shop")]),
        batch(&[ev(3, "x", "", 100_000, 100_000).from("shop")]),
        batch(&[ev(4, "b", "l", 200_000, 200_000).from("pay")]),
    ];
    let mut monitor = Monitor::new(&set, Options::default());
    for (batch, expected) in batches.iter().zip(["open", "missed", "unknown"]) {
        monitor.observe(batch);
        assert_eq!(monitor.status()[0].verdicts[expected], 1);
    }
    assert_eq!(history::run(&set, &batches).contracts[0].verdicts["unknown"], 1);
}

/// Scenario: a new contract is shown the last hour of a longer past.
/// Guarantees: outcomes whose cause may lie before are unknown, later ones are phantoms; also after
/// a restart.
#[test]
fn a_cause_that_may_lie_before_the_edge_is_unknown() {
    for (more, reach) in [("within: 10s", 10_000), ("", 24 * 3_600_000)] {
        let set = rule(more);
        let mut monitor = Monitor::new(&set, Options::default());
        monitor.known_from(at(0));
        monitor.observe(&batch(&[ev(1, "b", "k", reach - 1, reach)]));
        let mut monitor =
            Monitor::restore(&set, Options::default(), &monitor.checkpoint()).unwrap();
        monitor.observe(&batch(&[ev(2, "b", "l", reach, reach + 1)]));
        monitor.finish();
        let verdicts = &monitor.status()[0].verdicts;
        assert_eq!((verdicts["unknown"], verdicts["phantom"]), (1, 1), "{more}");
    }
}

/// Scenario: keys with their causes are given up for others; then an outcome of one of them comes.
/// Guarantees: it is no phantom; a later one, whose cause cannot be among them, is.
#[test]
fn a_cause_that_was_given_up_makes_no_phantom() {
    let options = Options { max_keys: 5, lateness: Duration::ZERO, ..Options::default() };
    let mut monitor = Monitor::new(&rule("within: 60s"), options);
    for i in 0..20u32 {
        let (start, key) = (i64::from(i) * 100, format!("k{i}"));
        monitor.observe(&batch(&[
            ev(i, "a", &key, start, start),
            ev(50 + i, "b", &key, start, start),
        ]));
    }
    monitor.observe(&batch(&[ev(100, "b", "k3", 5_000, 5_000)]));
    monitor.observe(&batch(&[ev(101, "b", "late", 90_000, 90_000)]));
    monitor.observe(&batch(&[ev(102, "x", "", 99_000, 99_000)]));
    let verdicts = &monitor.status()[0].verdicts;
    assert_eq!((verdicts["unknown"], verdicts["phantom"]), (1, 1));
}

/// Scenario: history is asked for from a moment on, and shown what came before too.
/// Guarantees: only what was opened from then on counts, judged by all.
#[test]
fn history_from_a_moment_on_knows_what_came_before() {
    for set in [rule("within: 10s"), rule("")] {
        let mut history = History::new(&set);
        history.count_from(at(10_000));
        history.observe(&batch(&[
            ev(1, "a", "k", 9_000, 9_000),
            ev(2, "b", "k", 11_000, 11_000),
            ev(3, "b", "early", 9_500, 9_500),
            ev(4, "b", "l", 12_000, 12_000),
        ]));
        let (report, findings) = history.finish(9);
        let told: Vec<_> = report.contracts[0].instances.iter().map(|i| i.key[0].clone()).collect();
        assert_eq!((report.contracts[0].activations, told), (2, vec!["l".to_owned()]));
        assert_eq!(findings.iter().map(|finding| finding.count).sum::<u64>(), 1);
    }
}

/// Two contracts of one outcome, and one of another service's.
fn three() -> ContractSet {
    let one = |name: &str, expect: &str, more: &str| {
        format!(
            "  - name: {name}\n    when: '{{ name = \"a\" }}'\n    expect: '{{ name = \"{expect}\" \
             }}'\n    key: [span.key]\n    within: 1s\n{more}"
        )
    };
    let text = format!(
        "contracts:\n{}{}{}",
        one("paid", "b", ""),
        one("paid-once", "b", "    kind: exactly\n    severity: critical\n"),
        one("mailed", "m", "")
    );
    ContractSet::parse("f.yaml", &text).unwrap()
}

/// Scenario: the service that two contracts' outcomes come from falls silent, comes back, and falls
/// silent again; also across a restart in the first silence.
/// Guarantees: one finding for the gap, with both contracts and all obligations, resolved when the
/// service is back, and opened anew by the next gap; history tells both times.
#[test]
fn a_gap_is_one_finding_whatever_the_number_of_contracts() {
    let first = [batch(&[
        ev(1, "b", "early", 0, 1).from("pay"),
        ev(2, "m", "early", 0, 1).from("mail"),
        ev(3, "a", "k1", 10_000, 10_000),
        ev(4, "a", "k2", 11_000, 11_000),
        ev(5, "m", "k1", 10_500, 10_500).from("mail"),
        ev(6, "m", "k2", 11_500, 11_500).from("mail"),
        ev(7, "x", "", 90_000, 90_000),
    ])];
    let second = [
        batch(&[ev(8, "y", "", 100_000, 100_000).from("pay"), ev(9, "x", "", 150_000, 150_000)]),
        batch(&[
            ev(10, "a", "k3", 160_000, 160_000),
            ev(11, "m", "k3", 160_500, 160_500).from("mail"),
            ev(12, "x", "", 250_000, 250_000),
        ]),
    ];
    let set = three();
    let gap = |monitor: &mut Monitor| {
        let mut findings = monitor.review();
        assert_eq!(findings.len(), 1, "{findings:?}");
        findings.remove(0)
    };
    let mut monitor = Monitor::new(&set, Options::default());
    monitor.observe(&first[0]);
    let found = gap(&mut monitor);
    assert_eq!((found.kind, found.status), (FindingKind::EvidenceGap, Status::Open));
    assert_eq!((found.count, found.source.as_str()), (4, "gap/spans/pay"));
    assert_eq!(
        (found.contracts, found.services),
        (vec!["paid".to_owned(), "paid-once".to_owned()], vec!["pay".to_owned()])
    );
    assert_eq!(
        found.title,
        "pay sent no spans: nothing can be said about 4 of 4 outcomes of 2 contracts"
    );
    assert_eq!((found.examples.len(), found.severity.name()), (4, "critical"));
    let mut again = Monitor::restore(&set, Options::default(), &monitor.checkpoint()).unwrap();
    again.resume(&found.fingerprint, &lacuna_contract::Episode::default());
    for monitor in [&mut monitor, &mut again] {
        assert_eq!((gap(monitor).status, gap(monitor).count), (Status::Open, 4));
        monitor.observe(&second[0]);
        assert_eq!(gap(monitor).status, Status::Resolved);
        monitor.observe(&second[1]);
        let next = gap(monitor);
        assert_eq!((next.status, next.count, next.first_seen), (Status::Open, 2, at(160_000)));
        assert_eq!(next.fingerprint, found.fingerprint);
        assert_eq!(monitor.finding(&found.fingerprint), Some(next));
    }
    let report = history::run(&set, first.iter().chain(&second));
    let told = |gap: &lacuna_contract::Gap| (gap.from, gap.to, gap.obligations);
    assert_eq!(
        report.gaps.iter().map(told).collect::<Vec<_>>(),
        [(at(1), Some(at(100_000)), 4), (at(100_000), None, 2)]
    );
    assert_eq!(report.gaps[0].contracts, ["paid", "paid-once"]);
    assert!(!report.has_violations());
}

/// Scenario: one span ends far in the future.
/// Guarantees: the data does not end there if it may not.
#[test]
fn the_datas_end_may_be_bounded() {
    let set = contract(
        "when: '{ name = \"a\" }'\nexpect: '{ name = \"b\" }'\nkey: [span.key]\nwithin: 10s",
    );
    let run = |bounded: bool| {
        let mut history = History::new(&set);
        if bounded {
            history.end_by(at(5_000));
        }
        history.observe(&batch(&[ev(1, "a", "k", 0, 0), ev(2, "x", "", 1_000, 1_000_000)]));
        let (report, _) = history.finish(9);
        (report.contracts[0].verdicts["missed"], report.data_end)
    };
    assert_eq!(run(false), (1, Some(at(1_000_000))));
    assert_eq!(run(true), (0, Some(at(0))));
}

/// Scenario: outcomes of a service are missed while it is silent; much later an old outcome of it
/// comes, by which it is known to be one that outcomes come from.
/// Guarantees: live the verdict becomes what it is over history: unknown.
#[test]
fn a_very_late_arrival_shows_a_silence_to_have_been_one() {
    let set = contract(
        "when: '{ name = \"a\" }'\nexpect: '{ name = \"b\" }'\nkey: [span.key]\nwithin: 1s",
    );
    let batches = [
        batch(&[ev(1, "a", "k", 10_000, 10_000).from("shop")]),
        batch(&[ev(2, "x", "", 100_000, 100_000).from("shop")]),
        batch(&[ev(3, "b", "old", 5, 6).from("pay")]),
    ];
    let mut monitor = Monitor::new(&set, Options::default());
    for (batch, missed) in batches.iter().zip([0, 1, 0]) {
        monitor.observe(batch);
        assert_eq!(monitor.status()[0].verdicts["missed"], missed);
    }
    assert_eq!(monitor.status()[0].verdicts["unknown"], 1);
    assert_eq!(history::run(&set, &batches).contracts[0].verdicts["unknown"], 1);
}

/// Scenario: more obligations of a gap than a contract remembers; a second gap; a restart in it.
/// Guarantees: the finding counts those that were forgotten too, and of the second gap its own alone.
#[test]
fn a_gaps_finding_counts_what_was_forgotten() {
    let set = contract(
        "when: '{ name = \"a\" }'\nexpect: '{ name = \"b\" }'\nkey: [span.key]\nwithin: 1s",
    );
    let options = || Options { max_instances: 3, ..Options::default() };
    let lost = |first: u32, start: i64| -> Vec<_> {
        (first..first + 10).map(|i| ev(i, "a", &format!("k{i}"), start, start)).collect()
    };
    let told = |monitor: &mut Monitor| {
        let found = monitor.review().pop().unwrap();
        (found.status, found.count, found.fingerprint)
    };
    let mut monitor = Monitor::new(&set, options());
    monitor.observe(&batch(&[ev(1, "b", "early", 0, 1).from("pay")]));
    monitor.observe(&batch(&lost(10, 10_000)));
    monitor.observe(&batch(&[ev(2, "x", "", 90_000, 90_000)]));
    let (status, count, fingerprint) = told(&mut monitor);
    assert_eq!((status, count), (Status::Open, 10));
    monitor.observe(&batch(&[ev(3, "y", "", 100_000, 100_000).from("pay")]));
    assert_eq!(told(&mut monitor).0, Status::Resolved);
    monitor.observe(&batch(&lost(30, 110_000)));
    monitor.observe(&batch(&[ev(4, "x", "", 190_000, 190_000)]));
    let second = told(&mut monitor);
    assert_eq!((second.0, second.2.as_str()), (Status::Open, fingerprint.as_str()));
    assert!((3..=10).contains(&second.1), "{}", second.1);
    let mut again = Monitor::restore(&set, options(), &monitor.checkpoint()).unwrap();
    let since = Some(at(10_000));
    again.resume(&fingerprint, &lacuna_contract::Episode { since, ..Default::default() });
    let restored = told(&mut again);
    assert_eq!(restored.0, Status::Open);
    assert!((3..=10).contains(&restored.1), "{}", restored.1);
    assert_eq!(told(&mut again), restored);
}
