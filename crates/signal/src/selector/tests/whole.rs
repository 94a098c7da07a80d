//! What queries ask about whole traces, against a plain reading of it.

use proptest::prelude::*;

use super::super::*;
use super::model::{Row, Val, batch};

/// A span of the trace: its name, its length, its parent's row, and tag `t` of it and its resource.
type Spec = (usize, i64, Option<usize>, Option<i64>, Option<i64>);

fn row(i: usize, (name, duration, parent, own, resource): &Spec) -> Row {
    let tag = |value: &Option<i64>| {
        value.map(|value| ("t".to_owned(), Val::Int(value))).into_iter().collect()
    };
    Row {
        text: ["a", "b", "c"][*name].to_owned(),
        code: 0,
        duration: *duration,
        id: u8::try_from(i + 1).unwrap(),
        parent: Some(parent.map_or(0, |parent| u8::try_from(parent + 1).unwrap())),
        own: tag(own),
        resource: tag(resource),
        scope: Vec::new(),
        events: Vec::new(),
        links: Vec::new(),
    }
}

#[derive(Debug, Clone, Copy)]
enum Ask {
    Longer(i64),
    RootIs(usize),
    Children(i64),
    ParentTag(i64),
    ParentSpanTag(i64),
    ParentResourceTag(i64),
    /// The span's own tag is not its parent's.
    TagChanged,
    NoParentTag,
    Named(usize),
}

impl Ask {
    fn text(self) -> String {
        match self {
            Self::Longer(nanos) => format!("traceDuration > {nanos}ns"),
            Self::RootIs(name) => format!("trace:rootName = \"{}\"", ["a", "b", "c"][name]),
            Self::Children(count) => format!("span:childCount >= {count}"),
            Self::ParentTag(value) => format!("parent.t = {value}"),
            Self::ParentSpanTag(value) => format!("parent.span.t = {value}"),
            Self::ParentResourceTag(value) => format!("parent.resource.t = {value}"),
            Self::TagChanged => "span.t != parent.span.t".to_owned(),
            Self::NoParentTag => "parent.t = nil".to_owned(),
            Self::Named(name) => format!("name = \"{}\"", ["a", "b", "c"][name]),
        }
    }

    fn holds(self, specs: &[Spec], i: usize) -> bool {
        let parent = specs[i].2.and_then(|parent| specs.get(parent));
        let tag = parent.and_then(|parent| parent.3.or(parent.4));
        match self {
            // All spans begin together.
            Self::Longer(nanos) => specs.iter().map(|spec| spec.1).max() > Some(nanos),
            Self::RootIs(name) => {
                specs.iter().find(|spec| spec.2.is_none()).is_some_and(|root| root.0 == name)
            }
            Self::Children(count) => {
                specs.iter().filter(|spec| spec.2 == Some(i)).count() as i64 >= count
            }
            Self::ParentTag(value) => tag == Some(value),
            Self::ParentSpanTag(value) => parent.is_some_and(|parent| parent.3 == Some(value)),
            Self::ParentResourceTag(value) => parent.is_some_and(|parent| parent.4 == Some(value)),
            Self::TagChanged => {
                let other = parent.and_then(|parent| parent.3);
                specs[i].3.is_some() && other.is_some() && specs[i].3 != other
            }
            Self::NoParentTag => tag.is_none(),
            Self::Named(name) => specs[i].0 == name,
        }
    }
}

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        (0i64..40).prop_map(Ask::Longer),
        (0usize..3).prop_map(Ask::RootIs),
        (0i64..4).prop_map(Ask::Children),
        (0i64..3).prop_map(Ask::ParentTag),
        (0i64..3).prop_map(Ask::ParentSpanTag),
        (0i64..3).prop_map(Ask::ParentResourceTag),
        Just(Ask::TagChanged),
        Just(Ask::NoParentTag),
        (0usize..3).prop_map(Ask::Named),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn whole_traces_agree(
        asks in prop::collection::vec((ask(), any::<bool>()), 1..4),
        any_of in any::<bool>(),
        spans in prop::collection::vec(
            (0usize..3, 1i64..40, prop::option::weighted(0.9, 0usize..1_000),
             prop::option::of(0i64..3), prop::option::of(0i64..3)),
            1..10,
        ),
    ) {
        let specs: Vec<Spec> = spans
            .into_iter()
            .enumerate()
            .map(|(i, (name, duration, parent, own, resource))| {
                // A parent that comes before, so that there is no cycle, or one that is missing.
                let parent = parent.map(|n| if i > 0 && n % 10 > 0 { n % i } else { 100 });
                (name, duration, parent, own, resource)
            })
            .collect();
        let terms: Vec<String> = asks
            .iter()
            .map(|(ask, not)| format!("{}({})", if *not { "!" } else { "" }, ask.text()))
            .collect();
        let text = format!("{{ {} }}", terms.join(if any_of { " || " } else { " && " }));
        let query = Query::parse(&text).unwrap();
        prop_assert_eq!(&Query::parse(&query.to_string()).unwrap(), &query);
        let rows: Vec<Row> = specs.iter().enumerate().map(|(i, spec)| row(i, spec)).collect();
        let trace = batch(&rows, false);
        let mask: Vec<bool> = query.mask(&trace).iter().flatten().collect();
        let expected: Vec<bool> = (0..specs.len())
            .map(|i| {
                let mut held = asks.iter().map(|(ask, not)| ask.holds(&specs, i) != *not);
                if any_of { held.any(|held| held) } else { held.all(|held| held) }
            })
            .collect();
        prop_assert_eq!(&mask, &expected, "{}", text);
        // What finds candidates must find every span that the query can select.
        for (row, selected) in expected.iter().enumerate() {
            let mut candidates = query.candidates(&mut |_| 0).into_iter();
            let found = candidates.any(|selector| selector.mask(&trace).value(row));
            prop_assert!(!selected || found, "{}", text);
        }
    }
}

#[test]
fn only_queries_over_traces_ask_about_them() {
    for field in [
        "traceDuration > 1s",
        "trace:rootName = \"a\"",
        "rootServiceName = \"a\"",
        "span:childCount = 0",
        "parent.span.tenant = \"a\"",
        "span.tenant != parent.tenant",
    ] {
        let text = format!("{{ {field} }}");
        let query = Query::parse(&text).unwrap();
        assert!(query.as_selector().is_none());
        let error = Selector::parse(&text).unwrap_err();
        assert!(error.to_string().contains("needs the whole trace"), "{text}: {error}");
        assert!(error.column() > 2, "{text}: {error}");
    }
    let error = FieldAccess::parse(SignalKind::Spans, "parent.x").unwrap_err();
    assert!(error.to_string().contains("needs the whole trace"), "{error}");
    let error = Query::parse("log { traceDuration > 1s }").unwrap_err();
    assert!(error.to_string().contains("log records have no"), "{error}");
    let error = Query::parse("{ span:childCount = \"3\" }").unwrap_err();
    assert!(error.to_string().contains("it is a number"), "{error}");
    let error = Query::parse("{ nestedSetParent = 3 }").unwrap_err();
    assert!(error.to_string().contains("ask with > >>"), "{error}");
}

#[test]
fn a_root_as_grafana_asks_for_it() {
    let same = |text: &str, other: &str| {
        assert_eq!(Query::parse(text).unwrap(), Query::parse(other).unwrap(), "{text}");
    };
    for root in ["nestedSetParent<0", "nestedSetParent = -1", "nestedSetParent <= -1"] {
        same(&format!("{{{root} && true}}"), "{ span:parentID = nil && true }");
        assert!(Selector::parse(&format!("{{ {root} }}")).is_ok());
    }
    same("{ nestedSetParent >= 0 }", "{ span:parentID != nil }");
    for (text, column, says) in [
        ("log { nestedSetParent < 0 }", 7, "log records have no"),
        ("{ nestedSetParent }", 3, "only `nestedSetParent < 0`"),
        ("{ nestedSetParent < ", 3, "only `nestedSetParent < 0`"),
        ("{ } | count() > 2", 5, "`matched`"),
        ("{ } | select(span.x)", 5, "come with the attributes that the query reads"),
        ("{ name = \"a\" } | rate()", 16, "metrics of spans are not answered here"),
        ("{ } > { } | quantile_over_time(duration, .9)", 11, "/api/metrics"),
        ("{ } |", 5, "pipelines are not answered here"),
    ] {
        let error = Query::parse(text).unwrap_err();
        assert_eq!(error.column(), column, "{text}: {error}");
        assert!(error.to_string().contains(says), "{text}: {error}");
    }
}
