//! The kinds of contract.

use super::Row;

pub const ROWS: &[Row] = &[
    Row {
        // `early`: an outcome before the activation is none. `twice`: one obligation a key.
        // `edge`: [0, 10] includes 10. `7`: a number and its text are one key.
        what: "response per key",
        contract: r#"
            when:   '{ name = "a" }'
            expect: '{ name = "b" }'
            key:    [span.k]
            within: 10s"#,
        events: r#"
            1 shop a 0-1 k=edge
            2 bank b 2-10 k=edge
            3 shop a 1-2 k=late
            4 bank b 5-11.5 k=late
            5 shop a 2-3 k=lost
            6 shop a 3-4 k=twice
            7 bank b 4-5 k=twice
            8 shop a 50-51 k=twice
            9 bank b 3-3.5 k=early
            10 shop a 4-5 k=early
            11 shop a 5-6 k=7
            12 bank b 6-7 k="7"
            13 shop other 0-1 k=other
            14 clock tick 100-100"#,
        args: &[],
        told: "
            6: fulfilled 3, late 1, missed 2
            late [late] at 1 due 11 settled 11.5 traces 3,4
            missed [lost] at 2 due 12 settled 12 traces 5
            missed [early] at 4 due 14 settled 14 traces 10",
    },
    Row {
        // One outcome fulfils the activations at 0 and 1; the one at 20 has none.
        what: "response per event",
        contract: r#"
            when:   '{ name = "a" }'
            expect: '{ name = "b" }'
            key:    [span.k]
            within: 10s
            per:    event"#,
        events: r#"
            1 shop a 0-1 k=x
            2 shop a 1-2 k=x
            3 bank b 5-6 k=x
            4 shop a 20-21 k=x
            5 bank other 25-26
            6 clock tick 100-100"#,
        args: &[],
        told: "
            3: fulfilled 2, missed 1
            missed [x] at 20 due 30 settled 30 traces 4",
    },
    Row {
        // Late goes before refused: the outcome came. A refusal before the activation is none.
        what: "response with refused_by",
        contract: r#"
            when:       '{ name = "a" }'
            expect:     '{ name = "b" }'
            refused_by: '{ name = "no" }'
            key:        [span.k]
            within:     10s"#,
        events: r#"
            1 shop a 0-1 k=no
            2 bank no 3-4 k=no
            3 shop a 1-2 k=both
            4 bank no 3-4 k=both
            5 bank b 5-6 k=both
            6 shop a 2-3 k=late
            7 bank no 4-5 k=late
            8 bank b 13-14 k=late
            9 bank no 2-3 k=before
            10 shop a 3-4 k=before
            11 clock tick 100-100"#,
        args: &[],
        told: "
            4: fulfilled 1, refused 1, late 1, missed 1
            refused [no] at 0 due 10 settled 10 traces 1,2
            late [late] at 2 due 12 settled 14 traces 6,8,7
            missed [before] at 3 due 13 settled 13 traces 10",
    },
    Row {
        // What does not meet the condition makes no pair; a text is no number.
        what: "response with where",
        contract: r#"
            when:   '{ name = "a" }'
            expect: '{ name = "b" }'
            key:    [span.k]
            where:  'expect.span.amount = when.span.amount'
            within: 10s"#,
        events: r#"
            1 shop a 0-1 k=same amount=5
            2 bank b 1-2 k=same amount=5.0
            3 shop a 1-2 k=wrong amount=5
            4 bank b 2-3 k=wrong amount=6
            5 shop a 2-3 k=corrected amount=5
            6 bank b 3-4 k=corrected amount=6
            7 bank b 4-5 k=corrected amount=5
            8 shop a 3-4 k=text amount=5
            9 bank b 4-5 k=text amount="5"
            10 shop a 4-5 k=lacking amount=5
            11 bank b 5-6 k=lacking
            12 clock tick 100-100"#,
        args: &[],
        told: "
            5: fulfilled 2, missed 3
            missed [wrong] at 1 due 11 settled 11 traces 3
            missed [text] at 3 due 13 settled 13 traces 8
            missed [lacking] at 4 due 14 settled 14 traces 10",
    },
    Row {
        // Every outcome is an obligation; a cause at the same time will do; one cause does for two.
        what: "precedence",
        contract: r#"
            kind:   precedence
            when:   '{ name = "a" }'
            expect: '{ name = "b" }'
            key:    [span.k]"#,
        events: r#"
            1 shop a 0-1 k=x
            2 bank b 5-6 k=x
            3 bank b 900-901 k=x
            4 shop a 1-9 k=same
            5 bank b 1-2 k=same
            6 bank b 2-3 k=after
            7 shop a 2.001-3 k=after
            8 bank b 3-4 k=never
            9 clock tick 1000-1000"#,
        args: &[],
        told: "
            5: fulfilled 3, phantom 2
            phantom [after] at 2 settled 2 traces 6
            phantom [never] at 3 settled 3 traces 8",
    },
    Row {
        // [start - 10 s, start] holds its ends.
        what: "precedence with within",
        contract: r#"
            kind:   precedence
            when:   '{ name = "a" }'
            expect: '{ name = "b" }'
            key:    [span.k]
            within: 10s"#,
        events: r#"
            1 shop a 0-1 k=edge
            2 bank b 10-11 k=edge
            3 shop a 0-1 k=old
            4 bank b 10.001-11 k=old
            5 shop other 9-10
            6 clock tick 1000-1000"#,
        args: &[],
        told: "
            2: fulfilled 1, phantom 1
            phantom [old] at 10.001 settled 10.001 traces 4",
    },
    Row {
        what: "absence",
        contract: r#"
            kind:   absence
            when:   '{ name = "a" }'
            expect: '{ name = "b" }'
            key:    [span.k]
            within: 10s"#,
        events: r#"
            1 shop a 0-1 k=edge
            2 bank b 10-30 k=edge
            3 shop a 0-1 k=after
            4 bank b 10.001-11 k=after
            5 bank b 0-1 k=before
            6 shop a 0.001-1 k=before
            7 shop a 2-3 k=none
            8 clock tick 100-100"#,
        args: &[],
        told: "
            4: fulfilled 3, forbidden 1
            forbidden [edge] at 0 due 10 settled 10 traces 1,2",
    },
    Row {
        // What comes after the time is up is not counted. Of a first outcome in time no trace is kept,
        // so that an open obligation stays small.
        what: "exactly one",
        contract: r#"
            kind:   exactly
            when:   '{ name = "a" }'
            expect: '{ name = "b" }'
            key:    [span.k]
            within: 10s"#,
        events: r#"
            1 shop a 0-1 k=once
            2 bank b 10-11 k=once
            3 bank b 10.001-11 k=once
            4 shop a 1-2 k=twice
            5 bank b 2-3 k=twice
            6 bank b 4-5 k=twice
            7 shop a 2-3 k=none
            8 clock tick 100-100"#,
        args: &[],
        told: "
            3: fulfilled 1, duplicate 1, missed 1
            duplicate [twice] at 1 due 11 settled 4 traces 4,6 count=2 expected=1
            missed [none] at 2 due 12 settled 12 traces 7 count=0 expected=1",
    },
    Row {
        what: "exactly two, per event",
        contract: r#"
            kind:   exactly
            count:  2
            per:    event
            when:   '{ name = "a" }'
            expect: '{ name = "b" }'
            key:    [span.k]
            within: 10s"#,
        events: r#"
            1 shop a 0-1 k=two
            2 bank b 1-2 k=two
            3 bank b 2-3 k=two
            4 shop a 1-2 k=one
            5 bank b 3-4 k=one
            6 shop a 2-3 k=three
            7 bank b 4-5 k=three
            8 bank b 5-6 k=three
            9 bank b 6-7 k=three
            10 shop a 40-41 k=three
            11 bank b 42-43 k=three
            12 bank b 43-44 k=three
            13 clock tick 100-100"#,
        args: &[],
        told: "
            4: fulfilled 2, missed 1, duplicate 1
            missed [one] at 1 due 11 settled 11 traces 4,5 count=1 expected=2
            duplicate [three] at 2 due 12 settled 6 traces 6,7,8,9,11,12 count=3 expected=2",
    },
    Row {
        // The time begins with the first event of either side.
        what: "balance of counts",
        contract: r#"
            kind:   balance
            left:   'count { name = "in" }'
            right:  'count { name = "out" || name = "reject" }'
            key:    [span.k]
            within: 10s"#,
        events: r#"
            1 shop in 0-1 k=equal
            2 shop in 1-2 k=equal
            3 bank out 2-3 k=equal
            4 bank reject 10-11 k=equal
            5 shop in 1-2 k=lost
            6 shop in 2-3 k=lost
            7 bank out 3-4 k=lost
            8 bank out 2-3 k=late
            9 shop in 12.001-13 k=late
            10 clock tick 100-100"#,
        args: &[],
        told: "
            3: fulfilled 1, unbalanced 2
            unbalanced [lost] at 1 due 11 settled 11 traces 5,6,7 left=2 right=1
            unbalanced [late] at 2 due 12 settled 12 traces 8 left=0 right=1",
    },
    Row {
        what: "balance of sums",
        contract: r#"
            kind:   balance
            left:   'sum(span.amount) { name = "in" }'
            right:  'sum(span.amount) { name = "out" }'
            key:    [span.k]
            within: 10s"#,
        events: r#"
            1 shop in 0-1 k=equal amount=0.1
            2 shop in 1-2 k=equal amount=0.2
            3 bank out 2-3 k=equal amount=0.3
            4 shop in 1-2 k=off amount=10
            5 shop in 2-3 k=off amount=5
            6 bank out 3-4 k=off amount=14
            7 clock tick 100-100"#,
        args: &[],
        told: "
            2: fulfilled 1, unbalanced 1
            unbalanced [off] at 1 due 11 settled 11 traces 4,5,6 left=15 right=14",
    },
    Row {
        // Minutes 0 (enough), 1 (too few), 2 (no cause: nothing is said), 3 (none), 4 (goes on when
        // the data ends).
        what: "heartbeat",
        contract: r#"
            kind:     heartbeat
            when:     '{ name = "a" }'
            expect:   '{ name = "b" }'
            every:    1m
            at_least: 2"#,
        events: r#"
            1 shop a 10-11
            2 bank b 0-1
            3 bank b 59.999-61
            4 shop a 60-61
            5 shop a 70-71
            6 bank b 80-81
            7 bank other 130-131
            8 shop a 200-201
            9 bank other 210-211
            10 shop a 245-246
            11 clock tick 250-250"#,
        args: &[],
        told: "
            4: fulfilled 1, missed 2, open 1
            missed [] at 60 due 120 settled 120 traces 4 count=1 expected=2
            missed [] at 200 due 240 settled 240 traces 8 count=0 expected=2
            open [] at 245 due 300 traces 10 count=0 expected=2",
    },
    Row {
        what: "heartbeat with a key",
        contract: r#"
            kind:   heartbeat
            when:   '{ name = "a" }'
            expect: '{ name = "b" }'
            key:    [span.k]
            every:  1m"#,
        events: r#"
            1 shop a 10-11 k=x
            2 bank b 20-21 k=x
            3 shop a 30-31 k=y
            4 bank other 40-41
            5 clock tick 60-60"#,
        args: &[],
        told: "
            2: fulfilled 1, missed 1
            missed [y] at 30 due 60 settled 60 traces 3 count=0 expected=1",
    },
];
