use super::*;

fn value(subjects: &Subjects, subject: &str, counter: &Counter) -> Option<f64> {
    let state = subjects.inner.lock();
    let values = if subject == OTHER { &state.other } else { &state.open.get(subject)?.values };
    values.iter().find(|((family, _), _)| *family == counter.family).map(|(_, v)| *v)
}

#[test]
fn series_live_while_their_subject_is_open_and_linger_after() {
    let subjects =
        Subjects::bounded("batch_id", Bounds { linger: Duration::ZERO, ..Bounds::default() });
    let counter = subjects.counter("series_a_total", "1", "");
    counter.add("a", &[], 1.0);
    counter.add("a", &[], 2.0);
    counter.add("a", &[], -5.0);
    assert_eq!(value(&subjects, "a", &counter), Some(3.0));
    assert_eq!(subjects.len(), 1);
    subjects.close("a");
    assert!(subjects.is_empty());
}

#[test]
fn a_subject_that_nobody_closes_ends_when_nothing_happens_to_it() {
    let subjects =
        Subjects::bounded("batch_id", Bounds { idle: Duration::ZERO, ..Bounds::default() });
    subjects.counter("series_d_total", "1", "").add("a", &[], 1.0);
    assert!(subjects.is_empty());
}

#[test]
fn past_the_cap_the_longest_closed_goes_then_counts_go_to_other() {
    let subjects = Subjects::bounded("batch_id", Bounds { cap: 2, ..Bounds::default() });
    let (counter, gauge) =
        (subjects.counter("series_b_total", "1", ""), subjects.gauge("series_b", "1", ""));
    counter.add("a", &[], 1.0);
    counter.add("b", &[], 1.0);
    subjects.close("b");
    subjects.close("a");
    counter.add("c", &[], 1.0);
    assert_eq!(value(&subjects, "b", &counter), None, "b was closed first");
    counter.add("a", &[], 1.0);
    counter.add("d", &[], 1.0);
    assert_eq!(value(&subjects, "a", &counter), None, "a record does not open what is closed");
    counter.add("e", &[], 5.0);
    gauge.set("e", &[], 0.5);
    assert_eq!(value(&subjects, "e", &counter), None);
    assert_eq!(value(&subjects, OTHER, &counter), Some(5.0));
    assert_eq!(subjects.inner.lock().overflow, 2);
    assert_eq!(subjects.len(), 2);
}

#[test]
fn a_gauge_that_is_raised_never_falls() {
    let subjects = Subjects::new("batch_id");
    let gauge = subjects.gauge("series_e", "1", "");
    gauge.raise("a", &[], 0.5);
    gauge.raise("a", &[], 0.25);
    let state = subjects.inner.lock();
    assert_eq!(state.open["a"].values.values().copied().collect::<Vec<_>>(), [0.5]);
}

#[test]
fn labels_in_another_order_are_the_same_series() {
    let subjects = Subjects::new("batch_id");
    let counter = subjects.counter("series_c_total", "1", "");
    let (x, y) = (KeyValue::new("x", "1"), KeyValue::new("y", "2"));
    counter.add("a", &[x.clone(), y.clone()], 1.0);
    counter.add("a", &[y, x], 1.0);
    assert_eq!(value(&subjects, "a", &counter), Some(2.0));
}

#[test]
fn a_record_after_the_end_opens_nothing_and_is_not_lost() {
    let subjects =
        Subjects::bounded("batch_id", Bounds { linger: Duration::ZERO, ..Bounds::default() });
    let counter = subjects.counter("series_f_total", "1", "");
    counter.add("a", &[], 5.0);
    subjects.close("a");
    assert!(subjects.is_empty());
    counter.add("a", &[], 1.0);
    assert_eq!(value(&subjects, "a", &counter), None, "a counter that fell would be no counter");
    assert_eq!(value(&subjects, OTHER, &counter), Some(1.0));
    assert_eq!(subjects.inner.lock().overflow, 1);
}

#[test]
fn what_ended_is_forgotten_in_the_end() {
    let bounds = Bounds { cap: 1, linger: Duration::ZERO, ..Bounds::default() };
    let subjects = Subjects::bounded("batch_id", bounds);
    let counter = subjects.counter("series_g_total", "1", "");
    for n in 0..100 {
        let name = format!("batch-{n}");
        counter.add(&name, &[], 1.0);
        subjects.close(&name);
        assert!(subjects.is_empty());
    }
    let state = subjects.inner.lock();
    assert_eq!((state.ended.len(), state.ended_names.len()), (ENDED_EACH, ENDED_EACH));
    assert_eq!((state.lingering, state.families.as_slice()), (0, [0].as_slice()));
}

#[test]
fn a_thousand_subjects_with_three_reasons_each_keep_their_names() {
    use opentelemetry::metrics::MeterProvider;
    use opentelemetry_sdk::metrics::SdkMeterProvider;
    let page = crate::openmetrics::MetricsText::new();
    let provider = SdkMeterProvider::builder().with_view(view).with_reader(page.reader()).build();
    let subjects = Subjects::new("batch_id");
    let (family, weak) = subjects.family("series_h_total");
    let failures = Counter { inner: subjects.inner.clone(), family };
    let meter = provider.meter("test");
    let builder = meter.f64_observable_counter("series_h_total");
    let _ = builder.with_callback(move |o| observe(&weak, family, o)).build();
    let add = |n: usize, reason: usize| {
        let reason = KeyValue::new("reason", format!("reason-{reason}"));
        failures.add(&format!("batch-{n}"), &[reason], 1.0);
    };
    (0..1_000).for_each(|n| (0..3).for_each(|reason| add(n, reason)));
    let text = page.render();
    assert_eq!(text.lines().filter(|l| l.starts_with("series_h_total{")).count(), 3_000);
    assert!(!text.contains("otel_metric_overflow"));

    // A label that is not bounded after all: past four for each subject, the rest is `other`.
    (0..2_000).for_each(|reason| add(7, reason));
    let text = page.render();
    assert!(!text.contains("otel_metric_overflow"));
    let own = text.lines().filter(|l| l.starts_with("series_h_total{batch_id=\"batch-")).count();
    assert_eq!(own, 4_000);
}
