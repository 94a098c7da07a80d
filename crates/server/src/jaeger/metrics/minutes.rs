//! Points made from sums by minute, when there are more spans than are read for one answer.
//!
//! Windows begin and end with whole minutes: that of step `t` ends with the last minute that ended at
//! `t` or before, and has as many minutes as `ratePer`, rounded up. Calls and errors are exact for
//! that window; quantiles are at most 3.2 % away from the spans' own.

use std::collections::BTreeMap;

use lacuna_store::{Latencies, OperationCalls, TimeRange};

use super::{Key, MILLIS, Measure, MetricsRequest, Point, Points, SECOND};

const MINUTE: i64 = 60 * SECOND;
/// The name under which operations are shown that the store does not tell apart.
const OTHERS: &str = "(other operations)";

/// The spans that `request` is about, in whole minutes.
pub fn range(request: &MetricsRequest) -> TimeRange {
    let before = request.lookback.saturating_add(width(request)).saturating_add(MINUTE);
    let start = request.end.saturating_sub(before);
    TimeRange::new(start, request.end.saturating_add(1))
}

/// Nanoseconds in a window.
fn width(request: &MetricsRequest) -> i64 {
    request.rate_per.saturating_add(MINUTE - 1).div_euclid(MINUTE).saturating_mul(MINUTE)
}

/// Calls in some minutes.
#[derive(Default)]
struct Sum {
    errors: u64,
    latencies: Latencies,
}

/// The points of `calls`.
pub fn points(calls: Vec<OperationCalls>, request: &MetricsRequest) -> Points {
    let mut series: BTreeMap<Key, BTreeMap<i64, Sum>> = BTreeMap::new();
    for of in calls {
        let name = || of.name.unwrap_or_else(|| OTHERS.to_owned());
        let key = (of.service, request.by_operation.then(name));
        let minutes = series.entry(key).or_default();
        for minute in of.minutes {
            let sum = minutes.entry(minute.end).or_default();
            sum.errors += minute.errors;
            sum.latencies.merge(&minute.latencies);
        }
    }
    series.into_iter().map(|(key, minutes)| (key, of_series(&minutes, request))).collect()
}

fn of_series(minutes: &BTreeMap<i64, Sum>, request: &MetricsRequest) -> Vec<Point> {
    let width = width(request);
    let seconds = width as f64 / SECOND as f64;
    let (mut window, mut entering, mut leaving) = (Sum::default(), minutes.iter(), minutes.iter());
    let (mut next, mut oldest) = (entering.next(), leaving.next());
    request
        .times()
        .map(|time| {
            let end = time.div_euclid(MINUTE).saturating_mul(MINUTE);
            while let Some((_, sum)) = next.filter(|(minute, _)| **minute <= end) {
                window.errors += sum.errors;
                window.latencies.merge(&sum.latencies);
                next = entering.next();
            }
            // A minute is closed at its end: one that ended when the window begins is not in it.
            let start = end.saturating_sub(width);
            while let Some((_, sum)) = oldest.filter(|(minute, _)| **minute <= start) {
                window.errors -= sum.errors;
                window.latencies.remove(&sum.latencies);
                oldest = leaving.next();
            }
            let calls = window.latencies.count();
            let value = match request.measure {
                Measure::Calls => calls as f64 / seconds,
                // 0 / 0 is NaN, as Prometheus answers: nothing was called.
                Measure::Errors => window.errors as f64 / calls as f64,
                Measure::Latency(quantile) => window
                    .latencies
                    .quantile(quantile)
                    .map_or(f64::NAN, |nanos| nanos as f64 / MILLIS as f64),
            };
            Point { time, value }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::spans::{self, Call};
    use super::*;
    use proptest::prelude::*;

    /// What the store would say of `calls`.
    fn summed(calls: &[Call]) -> BTreeMap<i64, Sum> {
        let mut minutes: BTreeMap<i64, Sum> = BTreeMap::new();
        for call in calls {
            let end = ((call.start - 1).div_euclid(MINUTE) + 1) * MINUTE;
            let sum = minutes.entry(end).or_default();
            sum.errors += u64::from(call.failed);
            sum.latencies.add(call.duration);
        }
        minutes
    }

    fn same(a: f64, b: f64, tolerance: f64) -> bool {
        (a.is_nan() && b.is_nan()) || (a - b).abs() <= a.abs() * tolerance + 1e-12
    }

    proptest! {
        /// Where windows are whole minutes, points are those of the spans.
        #[test]
        fn points_are_those_of_the_spans(
            calls in proptest::collection::vec(
                (0..20 * MINUTE, 0i64..5_000_000_000, any::<bool>()), 0..80),
            (end, lookback, step, rate_per) in (5i64..25, 1i64..20, 1i64..4, 1i64..8),
            quantile in 0.0..=1.0f64,
        ) {
            let calls: Vec<Call> = calls
                .into_iter()
                .map(|(start, duration, failed)| Call { start, duration, failed })
                .collect();
            for measure in [Measure::Calls, Measure::Errors, Measure::Latency(quantile)] {
                let request = MetricsRequest {
                    measure,
                    services: Vec::new(),
                    kinds: Vec::new(),
                    by_operation: false,
                    end: end * MINUTE,
                    lookback: lookback * MINUTE,
                    step: step * MINUTE,
                    rate_per: rate_per * MINUTE,
                };
                let tolerance = if matches!(measure, Measure::Latency(_)) { 1.0 / 32.0 } else { 0.0 };
                let seen = of_series(&summed(&calls), &request);
                let expected = spans::points(calls.clone(), &request);
                prop_assert_eq!(seen.len(), expected.len());
                for (seen, expected) in seen.iter().zip(&expected) {
                    prop_assert_eq!(seen.time, expected.time);
                    prop_assert!(same(expected.value, seen.value, tolerance),
                        "{:?}: {} for {}", measure, seen.value, expected.value);
                }
            }
        }
    }
}
