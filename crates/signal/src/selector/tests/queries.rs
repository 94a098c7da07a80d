//! Structural queries against a plain reading of them.

use proptest::prelude::*;

use super::super::*;
use super::model::{Row, batch};

/// Span `i` has id `i + 1`, is named after `names[i]`, and its parent is row `parents[i]`.
fn trace(names: &[usize], parents: &[Option<usize>]) -> Vec<Row> {
    names
        .iter()
        .zip(parents)
        .enumerate()
        .map(|(i, (name, parent))| Row {
            text: ["a", "b", "c"][*name].to_owned(),
            code: 0,
            duration: 1,
            id: u8::try_from(i + 1).unwrap(),
            parent: Some(parent.map_or(0, |parent| u8::try_from(parent + 1).unwrap())),
            own: Vec::new(),
            resource: Vec::new(),
            scope: Vec::new(),
            events: Vec::new(),
            links: Vec::new(),
        })
        .collect()
}

fn naive(query: &Query, rows: &[Row], parents: &[Option<usize>]) -> Vec<bool> {
    let above = |row: usize| {
        let mut list = Vec::new();
        let mut next = parents[row].filter(|parent| *parent < rows.len());
        while let Some(parent) = next.filter(|parent| !list.contains(parent)) {
            list.push(parent);
            next = parents[parent].filter(|parent| *parent < rows.len());
        }
        list
    };
    match query {
        Query::Select(selector) => rows.iter().map(|row| row.passes(selector.expr())).collect(),
        Query::And(left, right) | Query::Or(left, right) => {
            let (left, right) = (naive(left, rows, parents), naive(right, rows, parents));
            let both = left.contains(&true) && right.contains(&true);
            let none = matches!(query, Query::And(..)) && !both;
            left.iter().zip(&right).map(|(left, right)| !none && (*left || *right)).collect()
        }
        Query::Structural { relation, keep, left, right } => {
            let (left, right) = (naive(left, rows, parents), naive(right, rows, parents));
            // Whether `relation` holds for `row`, which stands right of `other`.
            let holds = |row: usize, other: usize| match relation {
                Relation::Child => above(row).first() == Some(&other),
                Relation::Descendant => above(row).contains(&other),
                Relation::Parent => above(other).first() == Some(&row),
                Relation::Ancestor => above(other).contains(&row),
                Relation::Sibling => {
                    other != row && parents[row].is_some() && parents[row] == parents[other]
                }
            };
            let all = 0..rows.len();
            let to_left = |row: usize| all.clone().any(|other| left[other] && holds(row, other));
            let to_right = |row: usize| all.clone().any(|other| right[other] && holds(other, row));
            all.clone()
                .map(|row| match keep {
                    Keep::Right => right[row] && to_left(row),
                    Keep::Unrelated => right[row] && !to_left(row),
                    Keep::Both => right[row] && to_left(row) || left[row] && to_right(row),
                })
                .collect()
        }
    }
}

fn query() -> impl Strategy<Value = Query> {
    let leaf =
        prop::sample::select(&["{ name = \"a\" }", "{ name = \"b\" }", "{ }", "{ false }"][..])
            .prop_map(|text| Query::Select(Selector::parse(text).unwrap()));
    leaf.prop_recursive(3, 8, 2, |inner| {
        let pair = (inner.clone(), inner).prop_map(|(a, b)| (Box::new(a), Box::new(b)));
        (pair, 0usize..7, 0usize..3).prop_map(|((left, right), op, keep)| match op {
            5 => Query::And(left, right),
            6 => Query::Or(left, right),
            op => {
                let (relation, keep) = (Relation::ALL[op], Keep::ALL[keep]);
                Query::Structural { relation, keep, left, right }
            }
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn queries_agree(
        query in query(),
        // A parent that comes before, so that there is no cycle, or one that is missing.
        spans in prop::collection::vec((0usize..3, prop::option::weighted(0.9, 0usize..1_000)), 1..14),
    ) {
        let names: Vec<usize> = spans.iter().map(|(name, _)| *name).collect();
        let parents: Vec<Option<usize>> = spans
            .iter()
            .enumerate()
            .map(|(i, (_, parent))| match parent {
                Some(parent) if i > 0 && parent % 10 > 0 => Some(parent % i),
                Some(_) => Some(100),
                None => None,
            })
            .collect();
        let rows = trace(&names, &parents);
        let mask: Vec<bool> = query.mask(&batch(&rows, false)).iter().flatten().collect();
        let expected = naive(&query, &rows, &parents);
        prop_assert_eq!(&mask, &expected, "{}", query);
        if expected.contains(&true) {
            let candidate = query.candidates(&mut |_| 0).iter().any(|selector| {
                rows.iter().any(|row| row.passes(selector.expr()))
            });
            prop_assert!(candidate);
        }
    }

    #[test]
    fn written_queries_read_back(query in query()) {
        let text = query.to_string();
        prop_assert_eq!(Query::parse(&text).unwrap(), query, "{}", text);
    }
}

#[test]
fn a_parent_without_such_a_child() {
    // Two consumers, of which one has no transaction.
    let rows = trace(&[0, 1, 0, 2], &[None, Some(0), None, Some(2)]);
    let query = Query::parse("{ name = \"b\" } !< { name = \"a\" }").unwrap();
    let mask: Vec<bool> = query.mask(&batch(&rows, false)).iter().flatten().collect();
    assert_eq!(mask, [false, false, true, false]);
}

#[test]
fn a_cycle_ends() {
    let rows = trace(&[0, 1, 2], &[Some(2), Some(0), Some(1)]);
    for relation in [">", ">>", "<", "<<", "~", "!>>", "!<<", "&>>", "&<<", "&~"] {
        let query = Query::parse(&format!("{{ name = \"a\" }} {relation} {{ }}")).unwrap();
        assert_eq!(query.mask(&batch(&rows, false)).len(), 3);
    }
}

#[test]
fn errors_point_and_help() {
    for (text, column, says) in [
        ("{ } > ", 7, "expected `{`"),
        ("{ } { }", 5, "after the end"),
        ("log { } > { }", 9, "log records"),
        ("({ } > { }", 11, "expected `)`"),
    ] {
        let error = Query::parse(text).unwrap_err();
        assert_eq!(error.column(), column, "{text}: {error}");
        assert!(error.to_string().contains(says), "{text}: {error}");
    }
    assert!(Query::parse(&format!("{}{{ }}", "(".repeat(100_000))).is_err());
    assert!(Query::parse("log { body = \"x\" }").unwrap().as_selector().is_some());
}
