//! `where`: what its comparisons take, and what is told where they can hold for no pair.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::{Ev, batch, contract, ev};
use lacuna_contract::spec::DataCheck;
use lacuna_contract::{ContractSet, Monitor, Options};

/// Both sides, `key` a text and `amount` a number, or one without.
fn events(number: bool) -> Vec<Ev> {
    let mut b = ev(2, "b", "12", 5, 5_005);
    b.amount = number.then_some(12);
    vec![ev(1, "a", "12", 0, 1).amount(12), b, ev(3, "x", "", 60_000, 60_000)]
}

fn problems(condition: &str, number: bool) -> (Vec<String>, u64) {
    // The key is the amount of the activation; both spans have it as the text `key`.
    let text = format!(
        "when: '{{ name = \"a\" }}'\nexpect: '{{ name = \"b\" }}'\nkey: [span.key]\nwithin: 1m\n\
         where: '{condition}'"
    );
    let mut monitor = Monitor::new(&contract(&text), Options::default());
    monitor.observe(&batch(&events(number)));
    monitor.finish();
    let status = monitor.status().remove(0);
    (status.health.problems, status.verdicts["fulfilled"])
}

#[test]
fn values_of_different_kinds_are_told() {
    let (told, fulfilled) = problems("expect.span.key = when.span.amount", true);
    assert_eq!(fulfilled, 0);
    assert_eq!(
        told,
        [
            "1 pairs could not be compared by `where`: `expect.span.key` is text, `when.span.amount` \
          is a number; write both sides alike, texts are not taken for numbers"
        ]
    );
    let (told, _) = problems("expect.span.amount = when.span.amount", false);
    assert_eq!(told, ["1 of 1 events of `expect` lack a field of `where`: they make no pair"]);
    let (told, fulfilled) = problems("expect.span.amount = when.span.amount", true);
    assert_eq!((told, fulfilled), (Vec::new(), 1));
}

/// Guarantees: durations, statuses and kinds may be written as in selectors.
#[test]
fn conditions_take_the_words_of_selectors() {
    for (condition, holds) in [
        ("expect.duration >= 5s", 1),
        ("expect.duration < 5s", 0),
        ("expect.status = unset", 1),
        ("expect.status != unset", 0),
        ("expect.status = error", 0),
        ("expect.kind = unspecified", 1),
        ("expect.span.amount = 12 && when.span.amount <= 12.5", 1),
    ] {
        assert_eq!(problems(condition, true), (Vec::new(), holds), "{condition}");
    }
    for bad in ["expect.span.amount = fast", "expect.status = slow"] {
        let text = format!(
            "contracts:\n  - name: c\n    when: '{{ name = \"a\" }}'\n    expect: '{{ name = \"b\" }}'\n\
             \x20   key: [span.key]\n    within: 1s\n    where: '{bad}'\n"
        );
        let errors = ContractSet::parse("c.yaml", &text).unwrap_err().to_string();
        assert!(errors.contains("neither a side's field nor a value"), "{errors}");
    }
}

/// Guarantees: severities compare by level, each of which is four numbers.
#[test]
fn severities_compare_by_level() {
    let verdict = |condition: &str| {
        let set = contract(&format!(
            "when: '{{ name = \"a\" }}'\nexpect: 'log {{ body = \"done\" }}'\n\
             key: {{when: [span.key], expect: [log.key]}}\nwithin: 1s\nwhere: '{condition}'"
        ));
        let mut monitor = Monitor::new(&set, Options::default());
        monitor.observe(&batch(&[ev(1, "a", "k", 0, 1)]));
        monitor.observe(&common::logs(&[(5, 14, "", "done", &[("key", "k")])]));
        monitor.status()[0].verdicts["fulfilled"] == 1
    };
    for (condition, holds) in [
        ("= warn", true),
        ("= info", false),
        (">= warn", true),
        ("> warn", false),
        ("<= warn", true),
        ("< error", true),
    ] {
        assert_eq!(verdict(&format!("expect.severity {condition}")), holds, "{condition}");
    }
}

/// Guarantees: held against data, a field of `where` that a side never has is told, and values that
/// are never of one kind.
#[test]
fn a_where_that_can_hold_for_no_pair_is_told_by_the_check() {
    let check = |condition: &str| {
        let set = contract(&format!(
            "when: '{{ name = \"a\" }}'\nexpect: '{{ name = \"b\" }}'\nkey: [span.key]\nwithin: 1s\n\
             where: '{condition}'"
        ));
        let mut check = DataCheck::new(&set);
        check.observe(&batch(&events(true)));
        let (wrong, odd) = check.finish();
        assert!(odd.is_empty(), "{odd:?}");
        wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let told = check("expect.span.amont = when.span.amount");
    assert!(told.contains("none of the 1 events that `expect` matches has `span.amont`"), "{told}");
    assert!(told.contains("did you mean `span.amount`?"), "{told}");
    let told = check("expect.span.key = when.span.amount");
    assert!(told.contains("`expect.span.key` is text, `when.span.amount` is a number"), "{told}");
    assert_eq!(check("expect.span.amount = when.span.amount"), "");
}

/// Guarantees: an outcome that is its own activation is told, except where it is counted.
#[test]
fn an_outcome_that_is_its_own_activation_is_told() {
    let parse = |kind: &str| {
        let text = format!(
            "contracts:\n  - name: c\n    kind: {kind}\n    when: '{{ name = \"a\" }}'\n    \
             expect: '{{ name = \"a\" }}'\n    key: [span.key]\n    within: 1s\n"
        );
        ContractSet::parse("c.yaml", &text).map_err(|errors| errors.to_string())
    };
    for kind in ["response", "precedence", "absence"] {
        let told = parse(kind).unwrap_err();
        assert!(told.contains("c.yaml:5:13: `expect` selects the same as `when`"), "{told}");
    }
    assert!(parse("exactly").is_ok());
}
