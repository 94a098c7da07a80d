#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what broke by panicking")]

use arrow::array::{Array, AsArray, Float64Array, Int64Array, StringViewArray as TextArray};
use arrow::datatypes::{Float64Type, Int64Type};
use proptest::prelude::*;

use super::*;

/// A value and how many rows have it; `None`: nulls.
type Runs = Vec<(Option<usize>, usize)>;

/// Runs of few or many values, so that some columns stay coded and others do not.
fn runs() -> impl Strategy<Value = Runs> {
    (1usize..4000, 1usize..30, 0usize..2000).prop_flat_map(|(values, longest, many)| {
        let run = (proptest::option::weighted(0.9, 0..values), 1..=longest);
        proptest::collection::vec(run, 0..=many)
    })
}

fn rows<T: Clone>(runs: &Runs, value: impl Fn(usize) -> T) -> Vec<Option<T>> {
    runs.iter().flat_map(|(at, n)| vec![at.map(&value); *n]).collect()
}

/// No value comes twice.
fn assert_distinct(column: &Column) {
    if let Column::Coded { codes, values } = column {
        let again = arrow::util::display::FormatOptions::new().with_null("null");
        let texts = arrow::util::display::ArrayFormatter::try_new(values, &again).unwrap();
        let mut seen: Vec<_> =
            (0..values.len()).map(|at| (values.is_null(at), texts.value(at).to_string())).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), values.len());
        assert!(codes.count(values.len()).iter().all(|rows| *rows > 0), "an unused value");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn texts_come_back(runs in runs(), written in any::<bool>()) {
        let text = |at: usize| match at % 4 {
            0 => format!("{at}"),
            1 => format!("a text of more than twelve bytes {at}"),
            2 => format!("{at:08}"),
            _ => String::new(),
        };
        let expected = rows(&runs, text);
        let all: String = (0..4000).map(text).collect();
        let body = bytes::Bytes::from(all);
        let mut buffers = Buffers::new(body.clone());
        let starts: Vec<usize> = (0..4000)
            .scan(0, |end, at| {
                let start = *end;
                *end += text(at).len();
                Some(start)
            })
            .collect();
        let mut column = TextColumn::default();
        for (at, n) in &runs {
            match at {
                None => column.pad(column.len() + n),
                Some(at) if written && at % 5 == 0 => {
                    let text = buffers.write(&text(*at));
                    column.push_n(&buffers, text, *n);
                }
                Some(at) => {
                    let bytes = &body[starts[*at]..starts[*at] + text(*at).len()];
                    column.push_n(&buffers, Text::Body(bytes), *n);
                }
            }
        }
        prop_assert_eq!(column.len(), expected.len());
        let column = column.finish(&buffers.finish()).unwrap();
        assert_distinct(&column);
        let expected: TextArray = expected.iter().map(Option::as_deref).collect();
        let found = column.all().unwrap();
        prop_assert_eq!(found.as_ref(), &expected as &dyn Array);
    }

    #[test]
    fn numbers_come_back(runs in runs()) {
        let buffers = Buffers::new(bytes::Bytes::new());
        let mut ints = CodedNumbers::<Int64Type>::default();
        let mut doubles = CodedNumbers::<Float64Type>::default();
        let double = |at: usize| match at {
            0 => f64::NAN,
            1 => -0.0,
            2 => 0.0,
            at => at as f64 / 3.0,
        };
        for (at, n) in &runs {
            match at {
                None => {
                    ints.pad(ints.len() + n);
                    doubles.pad(doubles.len() + n);
                }
                Some(at) => {
                    ints.push_n(&buffers, *at as i64 - 7, *n);
                    doubles.push_n(&buffers, double(*at), *n);
                }
            }
        }
        let (ints, doubles) = (ints.finish(), doubles.finish());
        assert_distinct(&ints);
        let (ints, doubles) = (ints.all().unwrap(), doubles.all().unwrap());
        let expected = Int64Array::from(rows(&runs, |at| at as i64 - 7));
        prop_assert_eq!(ints.as_ref(), &expected as &dyn Array);
        let expected = Float64Array::from(rows(&runs, double));
        // By bits: NaN is not equal to itself.
        let bits = |array: &Float64Array| -> Vec<Option<u64>> {
            array.iter().map(|value| value.map(f64::to_bits)).collect()
        };
        prop_assert_eq!(bits(doubles.as_primitive()), bits(&expected));
    }
}

#[test]
fn few_values_are_coded_and_many_are_not() {
    let buffers = Buffers::new(bytes::Bytes::new());
    let (mut few, mut many) =
        (CodedNumbers::<Int64Type>::default(), CodedNumbers::<Int64Type>::default());
    for row in 0..5000 {
        few.push_n(&buffers, row % 300, 1);
        many.push_n(&buffers, row, 1);
    }
    let Column::Coded { codes: Codes::Word(_), values } = few.finish() else {
        panic!("300 values of 5000 rows are worth codes");
    };
    assert_eq!(values.len(), 300);
    assert!(matches!(many.finish(), Column::Plain(_)));
}

#[test]
fn a_text_that_is_not_utf8_is_refused_once_it_stands_in_a_column() {
    let body = bytes::Bytes::from_static(b"good\xff");
    let buffers = Buffers::new(body.clone());
    let mut column = TextColumn::default();
    column.push(&buffers, Text::Body(&body[..4]));
    column.push_n(&buffers, Text::Body(&body[3..]), 3);
    assert!(column.finish(&buffers.finish()).is_err());
}
