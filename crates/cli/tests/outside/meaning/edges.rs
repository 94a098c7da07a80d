//! The data's end, silent services, keys, and windows of time.

use super::Row;

const A_THEN_B: &str = r#"
    when:   '{ name = "a" }'
    expect: '{ name = "b" }'
    key:    [span.k]
    within: 10s"#;

pub const ROWS: &[Row] = &[
    Row {
        // The data ends at 19: `gone` is due at 10, `edge` at 19, `open` after that.
        what: "open at the data's end",
        contract: A_THEN_B,
        events: r#"
            1 shop a 0-1 k=gone
            2 shop a 9-10 k=edge
            3 shop a 9.001-10 k=open
            4 shop a 9.5-10 k=done
            5 bank b 10-11 k=done
            6 clock tick 18-19"#,
        args: &[],
        told: "
            4: fulfilled 1, missed 2, open 1
            missed [gone] at 0 due 10 settled 10 traces 1
            missed [edge] at 9 due 19 settled 19 traces 2
            open [open] at 9.001 due 19.001 traces 3",
    },
    Row {
        // The bank's spans stop at 6; its log record at 25 is another kind of signal.
        what: "unknown while the outcome's service is silent",
        contract: A_THEN_B,
        events: r#"
            1 shop a 0-1 k=before
            2 bank b 5-6 k=before
            3 shop a 4-5 k=lost
            4 shop a 20-21 k=gap
            5 bank ~alive 25
            6 shop a 40-41 k=back
            7 bank other 45-46
            8 clock tick 100-100"#,
        args: &[],
        told: "
            4: fulfilled 1, missed 2, unknown 1
            missed [lost] at 4 due 14 settled 14 traces 3
            unknown [gap] at 20 due 30 settled 30 traces 4
            missed [back] at 40 due 50 settled 50 traces 6",
    },
    Row {
        // Nothing is said against the system where nothing can be said.
        what: "nothing but unknown",
        contract: r#"
            kind:   exactly
            when:   '{ name = "a" }'
            expect: '{ service = "bank" && name = "b" }'
            key:    [span.k]
            within: 10s"#,
        events: r#"
            1 bank other 0-1
            2 shop a 20-21 k=gap
            3 clock tick 100-100"#,
        args: &[],
        told: "
            1: unknown 1
            unknown [gap] at 20 due 30 settled 30 traces 2 count=0 expected=1",
    },
    Row {
        // That nothing forbidden came proves nothing while nothing comes at all.
        what: "an absence in a gap is unknown",
        contract: r#"
            kind:   absence
            when:   '{ name = "a" }'
            expect: '{ service = "bank" && name = "b" }'
            key:    [span.k]
            within: 10s"#,
        events: r#"
            1 bank other 0-1
            2 shop a 20-21 k=gap
            3 shop a 40-41 k=fine
            4 bank other 45-46
            5 clock tick 100-100"#,
        args: &[],
        told: "
            2: fulfilled 1, unknown 1
            unknown [gap] at 20 due 30 settled 30 traces 2",
    },
    Row {
        // A log record's start and end are its time.
        what: "keys that differ by side, a log as the outcome",
        contract: r#"
            when:   '{ name = "a" }'
            expect: 'log { body =~ "sent.*" }'
            key:    {when: [span.order_id], expect: [log.order]}
            within: 10s"#,
        events: r#"
            1 shop a 0-1 order_id=1
            2 mail ~sent 10 order=1
            3 shop a 1-2 order_id=2
            4 mail ~sent 11.001 order=2
            5 shop a 2-3 order_id=3
            6 mail ~unsent 4 order=3
            7 mail ~sent 5 order_id=3
            8 clock tick 100-100"#,
        args: &[],
        told: "
            3: fulfilled 1, late 1, missed 1
            late [2] at 1 due 11 settled 11.001 traces 3,4
            missed [3] at 2 due 12 settled 12 traces 5",
    },
    Row {
        // Both parts must agree; an event without one of them counts for nothing.
        what: "joint keys",
        contract: r#"
            when:   '{ name = "a" }'
            expect: '{ name = "b" }'
            key:    [span.order, span.item]
            within: 10s"#,
        events: r#"
            1 shop a 0-1 order=1 item=x
            2 bank b 1-2 order=1 item=x
            3 shop a 1-2 order=1 item=y
            4 bank b 2-3 order=2 item=y
            5 bank b 3-4 order=1
            6 shop a 4-5 order=1
            7 clock tick 100-100"#,
        args: &[],
        told: "
            2: fulfilled 1, missed 1
            missed [1,y] at 1 due 11 settled 11 traces 3",
    },
    Row {
        // The same span twice is one event; another span is another.
        what: "delivered twice",
        contract: r#"
            kind:   exactly
            when:   '{ name = "a" }'
            expect: '{ name = "b" }'
            key:    [span.k]
            within: 10s"#,
        events: r#"
            1 shop a 0-1 k=x
            2 bank b 1-2 k=x
            2 bank b 1-2 k=x
            1 shop a 0-1 k=x
            3 clock tick 100-100"#,
        args: &[],
        told: "1: fulfilled 1",
    },
    Row {
        // Of what was opened before 15 nothing is told, though `again` is activated anew after it;
        // `old` decides nothing, since it came before `x` was opened.
        what: "from a time on",
        contract: A_THEN_B,
        events: r#"
            1 shop a 8-9 k=before
            2 shop a 9-10 k=again
            3 bank b 12-13 k=x
            4 shop a 20-21 k=again
            5 shop a 21-22 k=x
            6 shop a 22-23 k=done
            7 bank b 24-25 k=done
            8 clock tick 100-100"#,
        args: &["--from", "2026-01-01T00:00:15Z"],
        told: "
            2: fulfilled 1, missed 1
            missed [x] at 21 due 31 settled 31 traces 5",
    },
    Row {
        // A precedence looks back beyond the time from which it is told.
        what: "a precedence from a time on",
        contract: r#"
            kind:   precedence
            when:   '{ name = "a" }'
            expect: '{ name = "b" }'
            key:    [span.k]"#,
        events: r#"
            1 shop a 0-1 k=x
            2 bank b 1-2 k=before
            3 bank b 500-501 k=x
            4 bank b 501-502 k=y"#,
        args: &["--from", "2026-01-01T00:01:00Z"],
        told: "
            2: fulfilled 1, phantom 1
            phantom [y] at 501 settled 501 traces 4",
    },
    Row {
        // The data ends with the last signal that begins before 25: at 22.5.
        what: "up to a time",
        contract: A_THEN_B,
        events: r#"
            1 shop a 0-1 k=lost
            2 bank other 2-3
            3 shop a 22-22.5 k=open
            4 bank b 25.5-26 k=open
            5 clock tick 100-100"#,
        args: &["--to", "2026-01-01T00:00:25Z"],
        told: "
            2: missed 1, open 1
            missed [lost] at 0 due 10 settled 10 traces 1
            open [open] at 22 due 32 traces 3",
    },
    Row {
        // The data begins at 5. What looks back to before it is not held against anybody.
        what: "a precedence that may have had its cause before the data",
        contract: r#"
            kind:        precedence
            when:        '{ name = "a" }'
            expect:      '{ name = "b" }'
            key:         [span.k]
            within:      10s
            before_data: unknown"#,
        events: r#"
            1 bank b 15-16 k=known
            2 bank b 14.999-16 k=cut
            3 bank b 7-8 k=x
            4 shop a 5-6 k=x
            5 clock tick 100-100"#,
        args: &[],
        told: "
            3: fulfilled 1, phantom 1, unknown 1
            unknown [cut] at 14.999 settled 14.999 traces 2
            phantom [known] at 15 settled 15 traces 1",
    },
    Row {
        // The data begins at 5: what is first seen of a key before 15 may have begun before it.
        what: "a balance that may have begun before the data",
        contract: r#"
            kind:        balance
            left:        'count { name = "in" }'
            right:       'count { name = "out" }'
            key:         [span.k]
            within:      10s
            before_data: unknown"#,
        events: r#"
            1 shop in 5-6 k=equal
            2 bank out 6-7 k=equal
            3 bank out 7-8 k=cut
            4 bank out 15-16 k=known
            5 shop other 20-21
            6 clock tick 100-100"#,
        args: &[],
        told: "
            3: fulfilled 1, unbalanced 1, unknown 1
            unknown [cut] at 7 due 17 settled 17 traces 3 left=0 right=1
            unbalanced [known] at 15 due 25 settled 25 traces 4 left=0 right=1",
    },
    Row {
        // The outcome came, so its own signal is there; that the shop says nothing excuses no phantom.
        what: "a precedence while the cause's service is silent",
        contract: r#"
            kind:   precedence
            when:   '{ name = "a" }'
            expect: '{ name = "b" }'
            key:    [span.k]
            within: 10s"#,
        events: r#"
            1 shop a 0-1 k=x
            2 bank b 5-6 k=x
            3 bank b 500-501 k=y
            4 clock tick 1000-1000"#,
        args: &[],
        told: "
            2: fulfilled 1, phantom 1
            phantom [y] at 500 settled 500 traces 3",
    },
    Row {
        // Of `left` the shop is silent, which excuses nothing; of `right` the bank is.
        what: "a balance while one side's service is silent",
        contract: r#"
            kind:   balance
            left:   'count { name = "in" }'
            right:  'count { name = "out" }'
            key:    [span.k]
            within: 10s"#,
        events: r#"
            1 shop in 0-1 k=x
            2 bank out 1-2 k=x
            3 bank out 100-101 k=left
            4 shop in 200-201 k=right
            5 clock tick 1000-1000"#,
        args: &[],
        told: "
            3: fulfilled 1, unbalanced 1, unknown 1
            unbalanced [left] at 100 due 110 settled 110 traces 3 left=0 right=1
            unknown [right] at 200 due 210 settled 210 traces 4 left=1 right=0",
    },
];
