//! What `lacuna contracts mine` writes, worked out by hand.

use std::io::Write;

use serde_json::{Value, json};

use super::line;
use crate::support::server::run;

/// The support of `n` of `n` keys: the lower end of Wilson's interval is then n / (n + z²).
fn support(n: f64) -> f64 {
    n / (n + 1.96 * 1.96)
}

/// Scenario: a thousand orders, one a second, from 0 to 999: placed at once, and charged from one
/// second later to two.
///
/// The data lasts 1,001 s, so 60 s at its ends are left out. Those placed up to 941 could be seen to
/// be charged: 942. Those charged from 60 on could be seen to be placed: 59 to 999, which is 941. From
/// the one's start to the other's end it is 2 s: the deadline is at least ten more, 12, which a person
/// writes as 15. From start to start it is 1 s: 11, and also 15.
///
/// Guarantees: both proposals, whole, in both formats; the file finds nothing in what it came from, and
/// a precedence is told what lies before.
#[test]
fn proposals_are_written_as_promised() {
    let dir = tempfile::tempdir().unwrap();
    let (events, mined) = (dir.path().join("events.jsonl"), dir.path().join("mined.yaml"));
    let mut file = std::fs::File::create(&events).unwrap();
    for i in 0..1_000 {
        let placed = line(&format!("{} shop place {i}-{i}.1 order=o{i}", 2 * i + 1));
        let charged = line(&format!("{} bank charge {}-{} order=o{i}", 2 * i + 2, i + 1, i + 2));
        for line in [placed, charged] {
            file.write_all(&[line, b"\n".to_vec()].concat()).unwrap();
        }
    }
    let events = events.to_str().unwrap();
    let mine = |format: &str| {
        let output = run(["contracts", "mine", "--input", events, "--format", format]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let mut found: Value = serde_json::from_str(&mine("json")).unwrap();
    for (proposal, n) in found.as_array_mut().unwrap().iter_mut().zip([942.0, 941.0]) {
        let given = proposal.as_object_mut().unwrap().remove("support").unwrap();
        assert!((given.as_f64().unwrap() - support(n)).abs() < 1e-12, "{given}");
    }
    let place = r#"{ resource.service.name = "shop" && name = "place" && status != error }"#;
    let charge = r#"{ resource.service.name = "bank" && name = "charge" && status != error }"#;
    let second = 1_000_000_000_u64;
    assert_eq!(
        found,
        json!([
            {
                "name": "place-leads-once-to-charge",
                "kind": "exactly",
                "when": place,
                "expect": charge,
                "key": ["span.order"],
                "within": 15 * second,
                "held": 942,
                "n": 942,
                "delays": [2 * second, 2 * second, 2 * second],
                "examples": ["o0", "o1", "o2"],
            },
            {
                "name": "place-comes-before-charge",
                "kind": "precedence",
                "when": place,
                "expect": charge,
                "key": ["span.order"],
                "within": 15 * second,
                "before_data": "unknown",
                "held": 941,
                "n": 941,
                "delays": [2 * second, 2 * second, 2 * second],
                "examples": ["o0", "o1", "o2"],
            },
        ])
    );
    let yaml = mine("yaml");
    let about = |n: u32, support: &str| {
        format!(
            "  # held for {n} of {n} keys, support {support};\n  \
             # delay 2s (half), 2s (99 %), 2s (longest)\n  \
             # such as \"o0\"\n  # such as \"o1\"\n  # such as \"o2\"\n"
        )
    };
    let rest = format!(
        "    when: '{place}'\n    expect: '{charge}'\n    key: ['span.order']\n    within: 15s\n"
    );
    let exactly = "  - name: 'place-leads-once-to-charge'\n    kind: exactly\n";
    let precedence = "  - name: 'place-comes-before-charge'\n    kind: precedence\n";
    let expected = format!(
        "contracts:\n{}{exactly}{rest}{}{precedence}{rest}    before_data: unknown\n",
        about(942, "0.9959"),
        about(941, "0.9959")
    );
    assert_eq!(yaml, expected);
    std::fs::write(&mined, &yaml).unwrap();
    let output = run(["contracts", "run", mined.to_str().unwrap(), "--input", events]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}
