//! Contracts live: findings, retraction, idleness, bounds, reload, health.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use std::time::Duration;

use common::{EPOCH, Ev, MS, batch, contract, ev};
use jiff::Timestamp;
use lacuna_contract::{ContractSet, Episode, Monitor, Options};
use lacuna_signal::Batch;
use lacuna_signal::finding::{FindingKind, Status, Verdict};

const RESPONSE: &str =
    "when: '{ name = \"a\" }'\nexpect: '{ name = \"b\" }'\nkey: [span.key]\nwithin: 1s";

fn at(millis: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(EPOCH + millis * MS)).unwrap()
}

fn count(monitor: &Monitor, verdict: Verdict) -> u64 {
    monitor.verdict_counts().find(|(_, v, _)| *v == verdict).unwrap().2
}

#[test]
fn a_missed_outcome_is_found_and_a_late_arrival_resolves_it() {
    let mut monitor = Monitor::new(&contract(RESPONSE), Options::default());
    monitor.observe(&batch(&[
        ev(1, "a", "good", 0, 10),
        ev(2, "b", "good", 5, 20),
        ev(3, "a", "lost", 100, 110),
        ev(4, "a", "lost", 300, 310),
    ]));
    assert_eq!((count(&monitor, Verdict::Open), count(&monitor, Verdict::Fulfilled)), (1, 1));
    assert!(monitor.findings().is_empty());
    assert!(monitor.take_changed() && !monitor.take_changed());
    // Time goes on elsewhere.
    monitor.observe(&batch(&[ev(5, "x", "other", 60_000, 60_001)]));
    let findings = monitor.findings();
    assert_eq!(findings.len(), 1);
    let finding = &findings[0];
    assert_eq!((finding.kind, finding.status), (FindingKind::SilentFailure, Status::Open));
    assert_eq!((finding.count, finding.concerned), (1, 2));
    assert_eq!(finding.title, "c: 1 of 2 outcomes never came");
    assert_eq!(finding.services, ["s"]);
    let example = &finding.examples[0];
    assert_eq!((&*finding.key[0], &*example.key[0]), ("span.key", "lost"));
    assert_eq!(example.activated_at, at(100));
    assert_eq!((example.deadline, example.resolved_at), (Some(at(1_100)), Some(at(1_100))));
    assert_eq!(example.trace_ids[0].to_string(), ev(3, "a", "", 0, 0).trace());
    // The outcome was there all along; its exporter was slow.
    monitor.observe(&batch(&[ev(6, "b", "lost", 400, 410)]));
    let findings = monitor.findings();
    assert_eq!((findings[0].count, findings[0].status), (0, Status::Resolved));
    assert_eq!(findings[0].fingerprint, finding.fingerprint);
    assert_eq!(count(&monitor, Verdict::Fulfilled), 2);
}

#[test]
fn a_stalled_source_does_not_stop_deadlines() {
    let mut monitor = Monitor::new(&contract(RESPONSE), Options::default());
    monitor.advance_wall_clock(at(0));
    monitor.observe(&batch(&[ev(1, "a", "k", 0, 10)]));
    monitor.advance_wall_clock(at(1_000));
    monitor.advance_wall_clock(at(25_000));
    assert_eq!(count(&monitor, Verdict::Open), 1);
    monitor.advance_wall_clock(at(40_000));
    assert_eq!(count(&monitor, Verdict::Missed), 1);
}

/// Scenario: an activation comes, the process is killed, and another one starts ten minutes later; the
/// outcome, which its sender could not deliver, comes again ten seconds after that.
/// Guarantees: though it is idle and the deadline long over, nothing was ever missed; what does not
/// come within the lateness is.
#[test]
fn what_could_not_come_while_nobody_listened_is_waited_for() {
    let set = contract(RESPONSE);
    let options = || Options { idle: Duration::from_secs(10), ..Options::default() };
    let mut monitor = Monitor::new(&set, options());
    monitor.advance_wall_clock(at(0));
    monitor.observe(&batch(&[ev(1, "a", "k", 0, 10), ev(2, "a", "lost", 0, 10)]));
    let mut monitor = Monitor::restore(&set, options(), &monitor.checkpoint()).unwrap();
    monitor.resume_at(at(600_000));
    for second in 600..611 {
        monitor.advance_wall_clock(at(second * 1_000));
    }
    monitor.observe(&batch(&[ev(3, "x", "", 609_000, 609_500)]));
    monitor.observe(&batch(&[ev(4, "b", "k", 20, 30)]));
    monitor.advance_wall_clock(at(629_999));
    assert_eq!((count(&monitor, Verdict::Fulfilled), count(&monitor, Verdict::Open)), (1, 1));
    monitor.advance_wall_clock(at(630_000));
    assert_eq!(monitor.status()[0].reached["missed"], 1);
    assert_eq!((count(&monitor, Verdict::Fulfilled), count(&monitor, Verdict::Missed)), (1, 1));
}

#[test]
fn a_clock_that_is_ahead_settles_nothing() {
    let mut monitor = Monitor::new(&contract(RESPONSE), Options::default());
    monitor.advance_wall_clock(at(0));
    monitor.observe(&batch(&[ev(1, "a", "k", 0, 10), ev(2, "x", "k", 900_000_000, 900_000_000)]));
    assert_eq!(count(&monitor, Verdict::Open), 1);
}

/// Scenario: one span is from far in the future; afterwards an outcome overtakes its activation's
/// successors, by less than the lateness, before and after a restart.
/// Guarantees: lateness is allowed for as before: nothing is settled early.
#[test]
fn one_span_from_the_future_does_not_switch_lateness_off() {
    let set = contract(RESPONSE);
    let mut monitor = Monitor::new(&set, Options::default());
    monitor.advance_wall_clock(at(0));
    monitor.observe(&batch(&[ev(1, "x", "k", 900_000, 900_000), ev(2, "x", "", 40_000, 40_000)]));
    for (n, restart) in [(0u32, false), (1, true)] {
        let start = 100_000 + 100_000 * i64::from(n);
        monitor.advance_wall_clock(at(start));
        let key = format!("k{n}");
        monitor.observe(&batch(&[ev(10 + 10 * n, "a", &key, start, start)]));
        if restart {
            let bytes = monitor.checkpoint();
            monitor = Monitor::restore(&set, Options::default(), &bytes).unwrap();
        }
        monitor.advance_wall_clock(at(start + 20_000));
        monitor.observe(&batch(&[ev(11 + 10 * n, "x", "", start + 20_000, start + 20_000)]));
        assert_eq!(count(&monitor, Verdict::Open), 1, "{n}");
        monitor.observe(&batch(&[ev(12 + 10 * n, "b", &key, start + 5, start + 6)]));
        assert_eq!(count(&monitor, Verdict::Fulfilled), u64::from(n) + 1);
    }
    let told = &monitor.status()[0];
    assert_eq!((told.reached["missed"], told.health.late_events), (0, 0));
}

/// Scenario: a service whose clock is 20 s ahead, less than the lateness, sends all the time.
/// Guarantees: others keep the whole of their lateness.
#[test]
fn a_clock_that_is_a_little_ahead_takes_no_lateness_from_others() {
    let mut monitor = Monitor::new(&contract(RESPONSE), Options::default());
    monitor.advance_wall_clock(at(0));
    monitor.observe(&batch(&[ev(1, "a", "k", 0, 0)]));
    monitor.advance_wall_clock(at(25_000));
    monitor.observe(&batch(&[ev(2, "x", "", 45_000, 45_000)]));
    assert_eq!(count(&monitor, Verdict::Open), 1);
    monitor.observe(&batch(&[ev(3, "b", "k", 5, 6)]));
    assert_eq!(monitor.status()[0].reached["missed"], 0);
}

/// Scenario: nothing new comes any more, but every second a few events that are old.
/// Guarantees: they do not stop deadlines.
#[test]
fn a_trickle_of_old_events_does_not_stop_deadlines() {
    let mut monitor = Monitor::new(&contract(RESPONSE), Options::default());
    monitor.advance_wall_clock(at(0));
    monitor.observe(&batch(&[ev(1, "a", "k", 0, 10)]));
    for second in 1..80 {
        monitor.advance_wall_clock(at(second * 1_000));
        monitor.observe(&batch(&[ev(100 + second as u32, "x", "", -5_000 - second, -5_000)]));
    }
    assert_eq!(count(&monitor, Verdict::Missed), 1);
}

/// Scenario: in one millisecond a service writes log records that differ in an attribute, the
/// severity or the event's name alone; then the first two come again.
/// Guarantees: each counts, and what comes twice counts once.
#[test]
fn log_records_of_one_moment_are_told_apart_by_all_that_they_say() {
    let records: [common::Record<'_>; 5] = [
        (10, 9, "", "charged", &[("key", "k"), ("amount", "1")]),
        (10, 9, "", "charged", &[("amount", "2"), ("key", "k")]),
        (10, 13, "", "charged", &[("key", "k"), ("amount", "1")]),
        (10, 9, "charge", "charged", &[("key", "k"), ("amount", "1")]),
        (10, 9, "", "charged", &[("key", "k"), ("amount", "1"), ("more", "x")]),
    ];
    let set = contract(
        "kind: exactly\ncount: 5\nwhen: '{ name = \"a\" }'\nexpect: 'log { body = \"charged\" }'\n\
         key: {when: [span.key], expect: [log.key]}\nwithin: 1s",
    );
    let mut monitor = Monitor::new(&set, Options::default());
    monitor.observe(&batch(&[ev(1, "a", "k", 0, 1)]));
    monitor.observe(&common::logs(&records));
    monitor.observe(&common::logs(&[
        // As another sender would write it: attributes in another order.
        (10, 9, "", "charged", &[("amount", "1"), ("key", "k")]),
        records[1],
    ]));
    monitor.finish();
    monitor.observe(&batch(&[ev(2, "x", "", 60_000, 60_000)]));
    assert_eq!(count(&monitor, Verdict::Fulfilled), 1, "{:?}", monitor.status()[0].verdicts);
}

#[test]
fn silence_is_unknown_with_one_finding_that_resolves_when_the_signal_is_back() {
    let mut monitor = Monitor::new(&contract(RESPONSE), Options::default());
    let mut events = vec![ev(1, "a", "early", 0, 1), ev(2, "b", "early", 10, 11).from("pay")];
    // The payment service falls silent; orders go on.
    events.extend(
        (0..50).map(|i| ev(100 + i, "a", &format!("k{i}"), 5_000 + 100 * i64::from(i), 5_000)),
    );
    events.push(ev(3, "x", "", 60_000, 60_000));
    monitor.observe(&batch(&events));
    assert_eq!((count(&monitor, Verdict::Unknown), count(&monitor, Verdict::Missed)), (50, 0));
    let findings = monitor.findings();
    assert_eq!(findings.len(), 1);
    assert_eq!((findings[0].kind, findings[0].status), (FindingKind::EvidenceGap, Status::Open));
    assert!(monitor.status()[0].health.silent);
    // It is back.
    monitor.observe(&batch(&[
        ev(4, "x", "", 90_500, 90_500).from("pay"),
        ev(5, "x", "", 120_600, 120_600),
    ]));
    assert_eq!(monitor.findings()[0].status, Status::Resolved);
    // And now delivers what it had kept: what it did not do was missed after all.
    let kept: Vec<Ev> = (0..51)
        .map(|i| ev(200 + i, "y", "", 5_000 + 100 * i64::from(i), 5_000).from("pay"))
        .collect();
    monitor.observe(&batch(&kept));
    assert_eq!((count(&monitor, Verdict::Unknown), count(&monitor, Verdict::Missed)), (0, 50));
}

#[test]
fn events_without_a_usable_key_are_counted() {
    let mut monitor = Monitor::new(&contract(RESPONSE), Options::default());
    let mut keyless = ev(1, "a", "", 0, 1);
    let empty = keyless.clone();
    keyless.key = None;
    keyless.id = 2;
    monitor.observe(&batch(&[keyless, empty, ev(3, "b", "k", 0, 1)]));
    let status = &monitor.status()[0];
    assert_eq!(status.health.key_missing["when"], 2);
    assert_eq!(status.health.matched["when"], 2);
    assert_eq!(status.health.problems, ["2 of 2 events of `when` have no usable key"]);
    assert_eq!(status.activations, 0);
}

#[test]
fn state_is_bounded_and_evictions_are_counted() {
    let options = Options { max_open: 10, max_keys: 40, max_instances: 5, ..Options::default() };
    let mut monitor = Monitor::new(&contract(RESPONSE), options);
    for i in 0..100u32 {
        monitor.observe(&batch(&[ev(
            i,
            "a",
            &format!("k{i}"),
            200 * i64::from(i),
            200 * i64::from(i),
        )]));
    }
    assert_eq!(monitor.open(), 10);
    assert_eq!(monitor.status()[0].health.evicted_open, 90);
    monitor.observe(&batch(&[ev(1_000, "x", "", 60_000, 60_000)]));
    assert_eq!(count(&monitor, Verdict::Missed), 10);
    let (instances, cut) = monitor.instances("c", |v| v == Verdict::Missed, 100).unwrap();
    assert_eq!((instances.len(), cut), (5, false));
    assert_eq!(monitor.status()[0].health.evicted_settled, 5);
    // What was forgotten still counts, and still dates the finding.
    let finding = &monitor.findings()[0];
    assert_eq!((finding.count, finding.first_seen), (10, at(18_000)));
    for i in 0..100u32 {
        let (start, key) = (70_000 + i64::from(i), format!("f{i}"));
        monitor.observe(&batch(&[
            ev(2_000 + i, "a", &key, start, start),
            ev(3_000 + i, "b", &key, start, start),
        ]));
    }
    assert_eq!(count(&monitor, Verdict::Fulfilled), 100);
    let (all, _) = monitor.instances("c", |_| true, 1_000).unwrap();
    assert!(all.len() <= 40, "{}", all.len());
}

#[test]
fn unchanged_contracts_keep_their_obligations_over_a_reload() {
    let mut monitor = Monitor::new(&contract(RESPONSE), Options::default());
    monitor.observe(&batch(&[ev(1, "a", "k", 0, 1)]));
    let both = |within: &str| {
        let second = RESPONSE.replace('\n', "\n    ").replace("1s", within);
        let text = format!(
            "contracts:\n  - name: new\n    {second}\n  - name: c\n    {}\n",
            RESPONSE.replace('\n', "\n    ")
        );
        ContractSet::parse("f.yaml", &text).unwrap()
    };
    monitor.reload(&both("2s"));
    let open: Vec<u64> = monitor.status().iter().map(|status| status.verdicts["open"]).collect();
    assert_eq!(open, [0, 1]);
    monitor.observe(&batch(&[ev(2, "x", "", 60_000, 60_000)]));
    assert_eq!(monitor.status()[1].verdicts["missed"], 1);
    assert_eq!(monitor.horizon(), Duration::from_secs(34));
}

#[test]
fn the_verdicts_of_one_key_can_be_asked_for() {
    let mut monitor = Monitor::new(&contract(RESPONSE), Options::default());
    monitor.observe(&batch(&[ev(1, "a", "k", 0, 1), ev(2, "b", "k", 5, 6), ev(3, "a", "l", 7, 8)]));
    let of = |key: &str| {
        let found = monitor.instances_of_key(&[key]);
        found.into_iter().flat_map(|(_, list)| list).map(|i| i.verdict).collect::<Vec<_>>()
    };
    assert_eq!(of("k"), [Verdict::Fulfilled]);
    assert_eq!(of("l"), [Verdict::Open]);
    assert!(of("m").is_empty());
}

#[test]
fn a_monitor_can_move_between_threads() {
    fn send<T: Send>(_: &T) {}
    send(&Monitor::new(&contract(RESPONSE), Options::default()));
}

/// A span with a kind, below another: service, span and parent id, start and end in ms.
fn call(id: u32, kind: i32, parent: u32, service: &'static str, start: i64, end: i64) -> Batch {
    let mut span = ev(id, if kind == 3 { "call" } else { "serve" }, "", start, end).from(service);
    span.key = None;
    common::batch_of(&[(span, kind, parent)])
}

/// Scenario: the clock of the payment service is 5 s behind; each order calls it, and it charges.
/// Guarantees: the offset is measured, and the charge, which seems to come before its order, fulfils
/// it, live and over history.
#[test]
fn a_clock_that_is_behind_is_allowed_for() {
    let mut batches = Vec::new();
    for i in 0..20 {
        let start = i64::from(i) * 100;
        batches.push(call(100 + 2 * i, 3, 0, "shop", start, start + 20));
        let served = call(101 + 2 * i, 2, 100 + 2 * i, "pay", start - 4_995, start - 4_985);
        batches.push(served);
    }
    batches.push(batch(&[ev(1, "a", "k", 10_000, 10_010).from("shop")]));
    batches.push(batch(&[ev(2, "b", "k", 5_300, 5_310).from("pay")]));
    batches.push(batch(&[ev(3, "x", "", 60_000, 60_000).from("shop")]));
    let set = contract(RESPONSE);
    let mut monitor = Monitor::new(&set, Options::default());
    batches.iter().for_each(|batch| monitor.observe(batch));
    let clocks: Vec<_> =
        monitor.clocks().iter().map(|c| (c.service.clone(), c.offset_seconds)).collect();
    assert_eq!(clocks, [("pay".to_owned(), -5.0), ("shop".to_owned(), 0.0)]);
    assert_eq!((count(&monitor, Verdict::Fulfilled), count(&monitor, Verdict::Missed)), (1, 0));
    let health = &monitor.status()[0].health;
    assert_eq!(health.clock_offsets["pay"], -5.0);
    assert!(health.problems.iter().any(|p| p.contains("`pay` is 5.00 s behind")), "{health:?}");
    let report = lacuna_contract::history::run(&set, &batches);
    assert_eq!(report.contracts[0].verdicts["fulfilled"], 1);
    // After a restart it is still known.
    let again = Monitor::restore(&set, Options::default(), &monitor.checkpoint()).unwrap();
    assert_eq!(again.clocks(), monitor.clocks());
}

/// Scenario: an outcome really does come before its activation.
/// Guarantees: without skew it is not taken for one that came after.
#[test]
fn clocks_that_agree_are_left_alone() {
    let mut batches = Vec::new();
    for i in 0..40 {
        let start = i64::from(i) * 100;
        batches.push(call(100 + 2 * i, 3, 0, "shop", start, start + 20));
        batches.push(call(101 + 2 * i, 2, 100 + 2 * i, "pay", start + 5, start + 15));
    }
    batches.push(batch(&[ev(1, "a", "k", 10_000, 10_010).from("shop")]));
    batches.push(batch(&[ev(2, "b", "k", 9_999, 10_020).from("pay")]));
    batches.push(batch(&[ev(4, "y", "", 10_500, 10_500).from("pay")]));
    batches.push(batch(&[ev(3, "x", "", 60_000, 60_000).from("shop")]));
    let mut monitor = Monitor::new(&contract(RESPONSE), Options::default());
    batches.iter().for_each(|batch| monitor.observe(batch));
    assert!(monitor.clocks().iter().all(|clock| clock.offset_seconds == 0.0));
    assert_eq!(count(&monitor, Verdict::Missed), 1);
}

/// Scenario: a gap in the evidence was over; later all traffic goes quiet.
/// Guarantees: the gap's finding stays resolved while no new obligation is concerned.
#[test]
fn a_gap_that_is_over_does_not_open_again_when_traffic_goes_quiet() {
    let mut monitor = Monitor::new(&contract(RESPONSE), Options::default());
    monitor.observe(&batch(&[
        ev(1, "a", "early", 0, 1),
        ev(2, "b", "early", 10, 11).from("pay"),
        ev(3, "a", "unseen", 5_000, 5_001),
        ev(4, "x", "", 60_000, 60_000),
    ]));
    assert_eq!(monitor.findings()[0].status, Status::Open);
    monitor.observe(&batch(&[ev(5, "x", "", 61_000, 61_000).from("pay")]));
    assert_eq!(monitor.findings()[0].status, Status::Resolved);
    monitor.observe(&batch(&[ev(6, "x", "", 900_000, 900_000)]));
    assert!(monitor.status()[0].health.silent);
    assert_eq!(monitor.findings()[0].status, Status::Resolved);
}

/// Scenario: a missed outcome comes after all.
/// Guarantees: how often verdicts were reached never falls; what was taken back is told apart.
#[test]
fn counts_of_verdicts_reached_never_fall() {
    let mut monitor = Monitor::new(&contract(RESPONSE), Options::default());
    monitor.observe(&batch(&[ev(1, "a", "k", 0, 1), ev(2, "x", "", 60_000, 60_000)]));
    let told = |monitor: &Monitor| {
        let status = &monitor.status()[0];
        (status.reached["missed"], status.retracted["missed"], status.reached["fulfilled"])
    };
    assert_eq!(told(&monitor), (1, 0, 0));
    monitor.observe(&batch(&[ev(3, "b", "k", 5, 6)]));
    assert_eq!(told(&monitor), (1, 1, 1));
}

/// Scenario: one contract changes its deadline, another its severity, a third nothing, across a
/// restart through a checkpoint.
/// Guarantees: only the first begins anew.
#[test]
fn a_checkpoint_is_used_for_contracts_that_mean_the_same() {
    let set = |within: &str, severity: &str| {
        let one = |name: &str, within: &str, severity: &str| {
            let body = RESPONSE.replace('\n', "\n    ").replace("1s", within);
            format!("  - name: {name}\n    severity: {severity}\n    {body}\n")
        };
        let text = format!(
            "contracts:\n{}{}{}",
            one("deadline", within, "info"),
            one("severity", "1s", severity),
            one("same", "1s", "info")
        );
        ContractSet::parse("f.yaml", &text).unwrap()
    };
    let mut monitor = Monitor::new(&set("1s", "info"), Options::default());
    monitor.observe(&batch(&[ev(1, "a", "k", 0, 1)]));
    let changed = set("2s", "critical");
    let restored = Monitor::restore(&changed, Options::default(), &monitor.checkpoint()).unwrap();
    let open: Vec<u64> = restored.status().iter().map(|status| status.verdicts["open"]).collect();
    assert_eq!(open, [0, 1, 1]);
    let lacking = restored.lacking(&changed);
    assert_eq!(lacking.contracts().iter().map(|c| &*c.name).collect::<Vec<_>>(), ["deadline"]);
    // Bytes that are not such are told, whatever they are.
    let bytes = monitor.checkpoint();
    for cut in 0..bytes.len() {
        assert!(Monitor::restore(&changed, Options::default(), &bytes[..cut]).is_err(), "{cut}");
    }
}

/// Lost from `start` on: so many obligations, milliseconds apart.
fn lost(first: u32, count: u32, start: i64) -> Vec<Ev> {
    let at = |i: u32| start + i64::from(i);
    (first..first + count)
        .map(|i| ev(i, "a", &format!("k{i}"), at(i - first), at(i - first)))
        .collect()
}

fn kept(id: u32, start: i64) -> Vec<Ev> {
    let key = format!("kept{id}");
    vec![ev(id, "a", &key, start, start), ev(id + 1, "b", &key, start + 1, start + 1)]
}

#[test]
fn an_incident_is_over_when_something_went_well_long_enough_after_it() {
    const MINUTE: i64 = 60_000;
    let mut monitor = Monitor::new(&contract(RESPONSE), Options::default());
    monitor.observe(&batch(&lost(1, 13, 0)));
    monitor.observe(&batch(&[ev(90, "x", "", MINUTE, MINUTE)]));
    let status = |monitor: &mut Monitor| {
        let found = monitor.review().pop().unwrap();
        (found.status, found.count, found.first_seen)
    };
    assert_eq!(status(&mut monitor), (Status::Open, 13, at(0)));
    // Time alone proves nothing, nor does what went well too soon.
    monitor.observe(&batch(&kept(100, 9 * MINUTE)));
    monitor.observe(&batch(&[ev(91, "x", "", 60 * MINUTE, 60 * MINUTE)]));
    assert_eq!(status(&mut monitor), (Status::Open, 13, at(0)));
    monitor.observe(&batch(&kept(102, 11 * MINUTE)));
    assert_eq!(status(&mut monitor), (Status::Resolved, 13, at(0)));
    // The next incident counts for itself, also when the monitor begins again from a checkpoint.
    let again = Monitor::restore(&contract(RESPONSE), Options::default(), &monitor.checkpoint());
    let mut again = again.unwrap();
    let fingerprint = monitor.findings()[0].fingerprint.clone();
    again.resume(&fingerprint, &Episode { since: None, over: Some(at(12)), grew: None });
    for monitor in [&mut monitor, &mut again] {
        monitor.observe(&batch(&lost(200, 3, 70 * MINUTE)));
        monitor.observe(&batch(&[ev(92, "x", "", 80 * MINUTE, 80 * MINUTE)]));
        assert_eq!(status(monitor), (Status::Open, 3, at(70 * MINUTE)));
        let found = monitor.findings().pop().unwrap();
        assert_eq!((found.examples.len(), found.rate), (3, 1.0));
        // An outcome that comes after all takes its own away, and nothing else.
        monitor.observe(&batch(&[ev(300, "b", "k200", 70 * MINUTE + 1, 70 * MINUTE + 1)]));
        assert_eq!(status(monitor), (Status::Open, 2, at(70 * MINUTE + 1)));
    }
}

#[test]
fn an_incident_that_nothing_follows_is_over_after_a_day() {
    let mut monitor = Monitor::new(&contract(RESPONSE), Options::default());
    monitor.advance_wall_clock(at(0));
    monitor.observe(&batch(&lost(1, 2, 0)));
    let hour = 3_600_000;
    for (hours, expected) in
        [(1, Status::Open), (20, Status::Open), (24, Status::Open), (26, Status::Resolved)]
    {
        monitor.advance_wall_clock(at(hours * hour));
        monitor.advance_wall_clock(at(hours * hour + 60_000));
        assert_eq!(monitor.review()[0].status, expected, "after {hours} h");
    }
}
