//! The engine against a brute-force reading of what contracts mean: every verdict of every
//! obligation, under random orders, batches, duplicates and lateness.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{Ev, batch, contract, time};
use lacuna_contract::{Monitor, Options, history};
use lacuna_signal::finding::Verdict;
use proptest::prelude::*;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Rule {
    Response,
    Precedence,
    Absence,
    Exactly(usize),
    Balance,
    Heartbeat(usize),
}

#[derive(Debug, Clone)]
struct Case {
    rule: Rule,
    per_event: bool,
    within: Option<i64>,
    refused: bool,
    compare: bool,
}

impl Case {
    fn yaml(&self) -> String {
        let (a, b) = ("{ name = \"a\" }", "{ name = \"b\" }");
        let mut text = match self.rule {
            Rule::Balance => {
                format!(
                    "left: 'sum(span.amount) {a}'\nright: 'sum(span.amount) {b}'\nkind: balance\n"
                )
            }
            _ => format!("when: '{a}'\nexpect: '{b}'\n"),
        };
        match self.rule {
            Rule::Response | Rule::Balance => {}
            Rule::Precedence => text.push_str("kind: precedence\n"),
            Rule::Absence => text.push_str("kind: absence\n"),
            Rule::Exactly(n) => text.push_str(&format!("kind: exactly\ncount: {n}\n")),
            Rule::Heartbeat(n) => text.push_str(&format!("kind: heartbeat\nat_least: {n}\n")),
        }
        text.push_str("key: [span.key]\n");
        let field = if matches!(self.rule, Rule::Heartbeat(_)) { "every" } else { "within" };
        if let Some(within) = self.within {
            text.push_str(&format!("{field}: {within}ms\n"));
        }
        if self.per_event {
            text.push_str("per: event\n");
        }
        if self.refused {
            text.push_str("refused_by: '{ name = \"r\" }'\n");
        }
        if self.compare {
            text.push_str("where: 'expect.span.amount = when.span.amount'\n");
        }
        text
    }
}

/// Key, activation, verdict and resolution of one obligation.
type Said = (String, i64, Verdict, Option<i64>);

/// What the contract's text says of these events, read word by word.
fn brute(case: &Case, events: &[Ev]) -> Vec<Said> {
    let mut unique: Vec<&Ev> = Vec::new();
    for event in events {
        if !unique.iter().any(|known| known.id == event.id) {
            unique.push(event);
        }
    }
    let Some(end) = unique.iter().map(|event| event.end).max() else { return Vec::new() };
    let needs_amount = case.rule == Rule::Balance;
    let side = |name: &str, key: &str| -> Vec<&Ev> {
        let mut list: Vec<&Ev> = unique
            .iter()
            .copied()
            .filter(|event| event.name == name && event.key.as_deref() == Some(key))
            .filter(|event| !needs_amount || event.amount.is_some())
            .collect();
        list.sort_by_key(|event| (event.start, event.id));
        list
    };
    let pairs = |when: &Ev, expect: &Ev| {
        !case.compare || (when.amount.is_some() && when.amount == expect.amount)
    };
    // "If no expect-side signal at all (same service and signal kind) arrived over the obligation's
    // span though it did before." The services are those that expects come from, at any time, and
    // any signal of theirs is one; all of these events are spans.
    let of_expects = |event: &&&Ev| {
        unique.iter().any(|other| other.name == "b" && other.service == event.service)
    };
    let silent = |from: i64, to: i64| {
        let before = unique.iter().filter(of_expects).any(|event| event.start < from);
        let arrived = unique
            .iter()
            .filter(of_expects)
            .any(|event| (from..=to).contains(&event.start) || (from..=to).contains(&event.end));
        before && !arrived
    };
    let mut keys: Vec<String> = unique.iter().filter_map(|event| event.key.clone()).collect();
    keys.sort();
    keys.dedup();
    let mut said = Vec::new();
    for key in keys {
        let (whens, expects, refusals) = (side("a", &key), side("b", &key), side("r", &key));
        match case.rule {
            Rule::Precedence => {
                for expect in expects {
                    let caused = whens.iter().any(|when| {
                        when.start <= expect.start
                            && case.within.is_none_or(|within| when.start >= expect.start - within)
                            && pairs(when, expect)
                    });
                    // The expect itself arrived, so its side was not silent.
                    let verdict = if caused { Verdict::Fulfilled } else { Verdict::Phantom };
                    said.push((key.clone(), expect.start, verdict, Some(expect.start)));
                }
            }
            Rule::Balance => {
                let Some(first) = whens.iter().chain(&expects).map(|event| event.start).min()
                else {
                    continue;
                };
                let deadline = first + case.within.unwrap();
                let in_time = |list: &[&Ev]| -> Vec<i64> {
                    let list = list.iter().filter(|event| event.start <= deadline);
                    list.filter_map(|event| event.amount).collect()
                };
                let (left, right) = (in_time(&whens), in_time(&expects));
                let verdict = if deadline > end {
                    Verdict::Open
                } else if left.iter().sum::<i64>() == right.iter().sum::<i64>() {
                    Verdict::Fulfilled
                } else if right.is_empty() && silent(first, deadline) {
                    Verdict::Unknown
                } else {
                    Verdict::Unbalanced
                };
                let resolved = (verdict != Verdict::Open).then_some(deadline);
                said.push((key.clone(), first, verdict, resolved));
            }
            Rule::Heartbeat(at_least) => {
                let every = case.within.unwrap();
                // Windows begin at multiples of their length since 1970.
                let window = |event: &Ev| {
                    let epoch = common::EPOCH / common::MS;
                    (epoch + event.start).div_euclid(every) * every - epoch
                };
                let mut windows: BTreeMap<i64, (Option<i64>, usize)> = BTreeMap::new();
                for when in &whens {
                    let first = &mut windows.entry(window(when)).or_default().0;
                    *first = Some(first.map_or(when.start, |first| first.min(when.start)));
                }
                for expect in &expects {
                    windows.entry(window(expect)).or_default().1 += 1;
                }
                for (from, (first, count)) in windows {
                    let Some(first) = first else { continue };
                    let to = from + every;
                    let verdict = if count >= at_least {
                        Verdict::Fulfilled
                    } else if to > end {
                        Verdict::Open
                    } else if count == 0 && silent(from, to) {
                        Verdict::Unknown
                    } else {
                        Verdict::Missed
                    };
                    let resolved = (verdict != Verdict::Open).then_some(to);
                    said.push((key.clone(), first, verdict, resolved));
                }
            }
            Rule::Response | Rule::Absence | Rule::Exactly(_) => {
                let count = if case.per_event { whens.len() } else { whens.len().min(1) };
                for when in &whens[..count] {
                    let a = when.start;
                    let deadline = a + case.within.unwrap();
                    let matching: Vec<&&Ev> = expects
                        .iter()
                        .filter(|expect| expect.start >= a && pairs(when, expect))
                        .collect();
                    let inside: Vec<&&&Ev> =
                        matching.iter().filter(|expect| expect.start <= deadline).collect();
                    let due = deadline <= end;
                    let quiet = silent(a, deadline);
                    let (verdict, resolved) = match case.rule {
                        Rule::Absence => match inside.first() {
                            Some(expect) => (Verdict::Forbidden, expect.start),
                            None if !due => (Verdict::Open, 0),
                            None if quiet => (Verdict::Unknown, deadline),
                            None => (Verdict::Fulfilled, deadline),
                        },
                        Rule::Exactly(n) => match inside.len() {
                            more if more > n => (Verdict::Duplicate, inside[n].start),
                            _ if !due => (Verdict::Open, 0),
                            same if same == n => (Verdict::Fulfilled, deadline),
                            0 if quiet => (Verdict::Unknown, deadline),
                            _ => (Verdict::Missed, deadline),
                        },
                        _ => match matching.iter().map(|expect| expect.end).min() {
                            Some(first) if first <= deadline => (Verdict::Fulfilled, first),
                            _ if !due => (Verdict::Open, 0),
                            Some(first) => (Verdict::Late, first),
                            None if refusals.iter().any(|refusal| refusal.start >= a)
                                && case.refused =>
                            {
                                (Verdict::Refused, deadline)
                            }
                            None if quiet => (Verdict::Unknown, deadline),
                            None => (Verdict::Missed, deadline),
                        },
                    };
                    let resolved = (verdict != Verdict::Open).then_some(resolved);
                    said.push((key.clone(), a, verdict, resolved));
                }
            }
        }
    }
    said.sort();
    said
}

fn case() -> impl Strategy<Value = Case> {
    let rule = prop_oneof![
        4 => Just(Rule::Response),
        2 => Just(Rule::Precedence),
        2 => Just(Rule::Absence),
        2 => (1usize..4).prop_map(Rule::Exactly),
        2 => Just(Rule::Balance),
        2 => (1usize..4).prop_map(Rule::Heartbeat),
    ];
    (rule, any::<bool>(), 1i64..60, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(rule, per_event, within, bounded, refused, compare)| {
            let per = matches!(rule, Rule::Response | Rule::Absence | Rule::Exactly(_));
            let pairs = per || rule == Rule::Precedence;
            Case {
                rule,
                per_event: per && per_event,
                within: (bounded || rule != Rule::Precedence).then_some(within),
                refused: refused && rule == Rule::Response,
                compare: compare && pairs,
            }
        },
    )
}

fn event() -> impl Strategy<Value = Ev> {
    (
        prop::sample::select(&["a", "a", "b", "b", "r", "x"][..]),
        prop::sample::select(&["s", "s", "t", "u"][..]),
        prop::option::weighted(0.9, prop::sample::select(&["k", "l"][..])),
        prop::option::weighted(0.8, 1i64..3),
        0i64..200,
        prop_oneof![2 => Just(0i64), 1 => 0i64..70],
    )
        .prop_map(|(name, service, key, amount, start, length)| Ev {
            id: 0,
            name,
            service,
            key: key.map(str::to_owned),
            amount,
            start,
            end: start + length,
        })
}

/// Events, of which some come twice, in any order.
fn stream() -> impl Strategy<Value = Vec<Ev>> {
    prop::collection::vec(event(), 0..24)
        .prop_map(|mut events| {
            for (id, event) in (0..).zip(&mut events) {
                event.id = id;
            }
            events
        })
        .prop_flat_map(|events| {
            let again = prop::collection::vec(any::<prop::sample::Index>(), 0..4);
            (Just(events), again)
        })
        .prop_map(|(mut events, again)| {
            let twice: Vec<Ev> = again
                .iter()
                .filter(|_| !events.is_empty())
                .map(|index| index.get(&events).clone())
                .collect();
            events.extend(twice);
            events
        })
        .prop_shuffle()
}

/// The same with all times longer: a case's milliseconds, or seconds.
fn scaled(case: &Case, events: Vec<Ev>, scale: i64) -> (Case, Vec<Ev>) {
    let case = Case { within: case.within.map(|within| within * scale), ..case.clone() };
    let longer = |event: Ev| Ev { start: event.start * scale, end: event.end * scale, ..event };
    (case, events.into_iter().map(longer).collect())
}

/// Many events of one key.
fn crowd() -> impl Strategy<Value = Vec<Ev>> {
    prop::collection::vec(event(), 0..120).prop_map(|mut events| {
        let mut taken = std::collections::BTreeSet::new();
        for (id, event) in (0..).zip(&mut events) {
            event.id = id;
            event.key = event.key.take().map(|_| "k".to_owned());
            // Of two activations of one moment the text does not say which is the first.
            let length = event.end - event.start;
            while !taken.insert(event.start) {
                event.start += 1;
            }
            event.end = event.start + length;
        }
        // Some come twice.
        for i in (10..events.len()).step_by(11) {
            events[i] = events[i - 3].clone();
        }
        events
    })
}

fn at(millis: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_nanosecond(i128::from(common::EPOCH + millis * common::MS)).unwrap()
}

fn said(instances: Vec<lacuna_signal::finding::Instance>) -> Vec<Said> {
    let mut said: Vec<Said> = instances
        .into_iter()
        .map(|instance| {
            let resolved = instance.resolved_at.map(time);
            let key = instance.key[0].clone();
            (key, time(instance.activated_at), instance.verdict, resolved)
        })
        .collect();
    said.sort();
    said
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn live_and_history_say_what_the_text_says(
        case in case(),
        events in prop_oneof![4 => stream(), 1 => crowd()],
        scale in prop::sample::select(&[1i64, 1, 1_000][..]),
        cuts in prop::collection::vec(1usize..6, 1..30),
        lateness in 0u64..80,
        from in 0i64..200,
        restarts in prop::collection::vec((any::<prop::sample::Index>(), 0usize..4), 0..4),
    ) {
        let (case, events) = scaled(&case, events, scale);
        let lateness = lateness * scale as u64;
        let set = contract(&case.yaml());
        let expected = brute(&case, &events);
        let options = Options { lateness: Duration::from_millis(lateness), ..Options::default() };
        let mut monitor = Monitor::new(&set, options);
        let mut rest = &events[..];
        let mut batches = Vec::new();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (head, tail) = rest.split_at((*cut).min(rest.len()));
            batches.push(batch(head));
            rest = tail;
        }
        batches.iter().for_each(|batch| monitor.observe(batch));
        monitor.finish();
        let (instances, cut) = monitor.instances("c", |_| true, usize::MAX).unwrap();
        prop_assert!(!cut);
        prop_assert_eq!(said(instances), expected.clone());
        // Counts agree with the instances.
        for (_, verdict, count) in monitor.verdict_counts() {
            let n = expected.iter().filter(|(_, _, v, _)| *v == verdict).count();
            prop_assert_eq!(count, n as u64, "{:?}", verdict);
        }
        // Restarts through a checkpoint, after which some batches come again, change nothing.
        let options = Options { lateness: Duration::from_millis(lateness), ..Options::default() };
        let mut restarted = Monitor::new(&set, options.clone());
        for (n, batch) in batches.iter().enumerate() {
            restarted.observe(batch);
            for (at, again) in &restarts {
                if at.index(batches.len()) == n {
                    let bytes = restarted.checkpoint();
                    restarted = Monitor::restore(&set, options.clone(), &bytes).unwrap();
                    prop_assert!(restarted.lacking(&set).is_empty());
                    batches[n.saturating_sub(*again)..=n].iter().for_each(|b| restarted.observe(b));
                }
            }
        }
        restarted.finish();
        let (instances, _) = restarted.instances("c", |_| true, usize::MAX).unwrap();
        prop_assert_eq!(said(instances), expected.clone());
        prop_assert!(restarted.verdict_counts().eq(monitor.verdict_counts()));
        // And so does history.
        let report = history::run(&set, &batches);
        let unfulfilled: Vec<Said> =
            expected.iter().filter(|(_, _, v, _)| *v != Verdict::Fulfilled).cloned().collect();
        prop_assert_eq!(said(report.contracts[0].instances.clone()), unfulfilled.clone());
        // Every unknown one is in a gap, and nothing else is.
        let unknown = unfulfilled.iter().filter(|(_, _, v, _)| *v == Verdict::Unknown).count();
        let of_gaps: u64 = report.gaps.iter().map(|gap| gap.obligations).sum();
        prop_assert_eq!(of_gaps > 0, unknown > 0);
        prop_assert!(of_gaps >= unknown as u64);
        // From a moment on it is what the whole says of what was opened since.
        let from = from * scale;
        let mut history = history::History::new(&set);
        history.count_from(at(from));
        batches.iter().for_each(|batch| history.observe(batch));
        let (report, _) = history.finish(usize::MAX);
        let since = |said: &&Said| said.1 >= from;
        let later: Vec<Said> = unfulfilled.iter().filter(since).cloned().collect();
        prop_assert_eq!(said(report.contracts[0].instances.clone()), later);
        let opened = expected.iter().filter(since).count();
        prop_assert_eq!(report.contracts[0].activations, opened as u64);
    }

    /// Live, only what an event or the time may have changed is judged. A monitor that is restored
    /// judges everything anew, and says the same.
    #[test]
    fn what_is_judged_step_by_step_is_what_is_judged_at_once(
        case in case(),
        events in crowd(),
        ticks in prop::collection::vec(any::<bool>(), 1..8),
    ) {
        let (case, events) = scaled(&case, events, 1_000);
        let set = contract(&case.yaml());
        let options = Options { lateness: Duration::from_secs(20), ..Options::default() };
        let mut monitor = Monitor::new(&set, options.clone());
        for (event, tick) in events.iter().zip(ticks.iter().cycle()) {
            monitor.observe(&batch(std::slice::from_ref(event)));
            if !tick {
                continue;
            }
            let anew = Monitor::restore(&set, options.clone(), &monitor.checkpoint()).unwrap();
            let all = |monitor: &Monitor| monitor.instances("c", |_| true, usize::MAX).unwrap().0;
            let watermark = monitor.watermark().map_or(i64::MIN, time);
            let (live, anew) = (all(&monitor), all(&anew));
            prop_assert_eq!(live.len(), anew.len());
            for (live, anew) in live.iter().zip(&anew) {
                // Deadlines are settled in buckets of 134 ms.
                let deadline = anew.deadline.unwrap_or(anew.activated_at);
                let soon = live.verdict == Verdict::Open && time(deadline) > watermark - 135;
                prop_assert!(soon || live.verdict == anew.verdict, "{live:?}\n{anew:?}");
            }
        }
    }

    /// What comes within the lateness never makes a settled verdict change.
    #[test]
    fn disorder_within_the_lateness_changes_nothing_on_the_way(
        case in case(),
        events in stream(),
        delays in prop::collection::vec(0i64..40, 40),
    ) {
        // One service, so that silence plays no part, and spans that are over at once: one that
        // is still running is late by as much as it lasts.
        let mut events: Vec<Ev> = events
            .into_iter()
            .map(|event| Ev { service: "s", end: event.start, ..event })
            .collect();
        let mut arrivals: Vec<(i64, Ev)> = events
            .drain(..)
            .zip(delays.iter().cycle())
            .map(|(event, delay)| (event.end + delay, event))
            .collect();
        arrivals.sort_by_key(|(arrival, _)| *arrival);
        let events: Vec<Ev> = arrivals.into_iter().map(|(_, event)| event).collect();
        let options = Options { lateness: Duration::from_millis(40), ..Options::default() };
        let mut monitor = Monitor::new(&contract(&case.yaml()), options);
        let mut before: Vec<Said> = Vec::new();
        for event in &events {
            monitor.observe(&batch(std::slice::from_ref(event)));
            let violates = |verdict: Verdict| verdict.is_violation();
            let now = said(monitor.instances("c", violates, usize::MAX).unwrap().0);
            for old in &before {
                // In order, too, an outcome that was missed may still come late or be refused,
                // and "too often" and "came though it must not" are certain at once, of an
                // activation that need not be the first to arrive.
                let certain = matches!(old.2, Verdict::Duplicate | Verdict::Forbidden);
                let kept = |new: &Said| {
                    let comes = match old.2 {
                        Verdict::Missed => {
                            case.rule == Rule::Response
                                && matches!(new.2, Verdict::Late | Verdict::Refused)
                        }
                        Verdict::Refused => new.2 == Verdict::Late,
                        _ => false,
                    };
                    (&new.0, new.1) == (&old.0, old.1) && (new.2 == old.2 || comes)
                };
                prop_assert!(certain || now.iter().any(kept), "{:?} then {:?}", before, now);
            }
            before = now;
        }
    }
}
