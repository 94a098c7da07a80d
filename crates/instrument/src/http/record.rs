//! Durations of requests, each combination of labels bound to its instrument once.

use super::names::{OTHER, name_of};
use crate::names::Names;
use opentelemetry::metrics::{BoundHistogram, Histogram};
use opentelemetry::{KeyValue, Value};
use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{PoisonError, RwLock};

/// Most requested things of which combinations are kept: hosts are as many as a service talks to.
const MOST: usize = 1_000;
/// Most statuses of each: servers choose them.
const STATUSES: usize = 20;

/// A histogram with the instruments that were bound of it: by what was asked, and the status.
pub(super) struct ByLabels<K> {
    histogram: Histogram<f64>,
    bound: RwLock<HashMap<K, ByStatus>>,
}

type ByStatus = Vec<(u16, BoundHistogram<f64>)>;

impl<K: Hash + Eq + Clone> ByLabels<K> {
    pub(super) fn new(histogram: Histogram<f64>) -> Self {
        Self { histogram, bound: RwLock::default() }
    }

    /// Records `seconds` for what was asked and the status that came back; `labels` says what both
    /// stand for.
    pub(super) fn record(
        &self,
        asked: &K,
        code: u16,
        seconds: f64,
        labels: impl FnOnce() -> Vec<KeyValue>,
    ) {
        let bound = self.bound.read().unwrap_or_else(PoisonError::into_inner);
        let known = bound.get(asked);
        if let Some((_, one)) = known.and_then(|all| all.iter().find(|(known, _)| *known == code)) {
            return one.record(seconds);
        }
        let full = known.map_or(bound.len() >= MOST, |all| all.len() >= STATUSES);
        drop(bound);
        let labels = labels();
        if full {
            return self.histogram.record(seconds, &labels);
        }
        let instrument = self.histogram.bind(&labels);
        instrument.record(seconds);
        let mut bound = self.bound.write().unwrap_or_else(PoisonError::into_inner);
        bound.entry(asked.clone()).or_default().push((code, instrument));
    }

    /// Records `seconds` under labels that do not come often: those of failures.
    pub(super) fn record_once(&self, seconds: f64, labels: &[KeyValue]) {
        self.histogram.record(seconds, labels);
    }
}

/// What a status adds to the labels; an error's type is its code.
pub(super) fn status(code: u16, is_error: bool) -> impl Iterator<Item = KeyValue> {
    let error: Option<Value> = is_error.then(|| code.to_string().into());
    let code = KeyValue::new("http.response.status_code", i64::from(code));
    [Some(code), error.map(|e| KeyValue::new("error.type", e))].into_iter().flatten()
}

/// A span's name: the method and the route or template, which are bounded.
pub(super) fn span_name(method: &'static str, path: Option<&str>) -> Cow<'static, str> {
    let Some(path) = path else { return Cow::Borrowed(name_of(method)) };
    static GET: Names = Names::new("GET ");
    static POST: Names = Names::new("POST ");
    static PUT: Names = Names::new("PUT ");
    static PATCH: Names = Names::new("PATCH ");
    static DELETE: Names = Names::new("DELETE ");
    static HTTP: Names = Names::new("HTTP ");
    let names = match method {
        "GET" => &GET,
        "POST" => &POST,
        "PUT" => &PUT,
        "PATCH" => &PATCH,
        "DELETE" => &DELETE,
        OTHER => &HTTP,
        rare => return format!("{rare} {path}").into(),
    };
    names.name(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openmetrics::MetricsText;
    use opentelemetry::metrics::MeterProvider;
    use opentelemetry_sdk::metrics::SdkMeterProvider;

    #[test]
    fn what_is_bound_and_what_is_past_the_bound_add_up() {
        let page = MetricsText::new();
        let provider = SdkMeterProvider::builder().with_reader(page.reader()).build();
        let histogram = provider.meter("test").f64_histogram("t").with_boundaries(vec![]).build();
        let times = ByLabels::new(histogram);
        let record = |n: usize, code: u16| {
            let labels =
                || vec![KeyValue::new("n", n as i64), KeyValue::new("code", i64::from(code))];
            times.record(&n, code, 0.5, labels);
        };
        for n in 0..MOST + 3 {
            record(n, 200);
            record(n, 200);
        }
        (0..100).for_each(|code| record(7, code));
        assert_eq!(times.bound.read().unwrap().len(), MOST);
        let text = page.render();
        assert_eq!(times.bound.read().unwrap()[&7].len(), STATUSES);
        for (n, code, count) in
            [(0, 200, 2), (MOST - 1, 200, 2), (MOST + 2, 200, 2), (7, 200, 2), (7, 99, 1)]
        {
            let line = format!("t_count{{code=\"{code}\",n=\"{n}\"}} {count}");
            assert!(text.lines().any(|l| l == line), "{line}");
        }
    }

    #[test]
    fn a_name_is_the_method_and_the_path() {
        for (method, path, name) in [
            ("GET", Some("/x/{id}"), "GET /x/{id}"),
            ("TRACE", Some("/x"), "TRACE /x"),
            (OTHER, Some("/x"), "HTTP /x"),
            (OTHER, None, "HTTP"),
            ("POST", None, "POST"),
        ] {
            assert_eq!(span_name(method, path), name);
        }
    }
}
