//! Points computed from the spans themselves.

use super::{MILLIS, Measure, MetricsRequest, Point, SECOND};

/// One call.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// When it began, nanoseconds since the epoch.
    pub start: i64,
    /// How long it lasted, in nanoseconds.
    pub duration: i64,
    /// Whether its status is error.
    pub failed: bool,
}

/// The points of `calls`.
pub fn points(mut calls: Vec<Call>, request: &MetricsRequest) -> Vec<Point> {
    calls.sort_by_key(|call| call.start);
    let mut window = Window::new(&calls, matches!(request.measure, Measure::Latency(_)));
    let seconds = request.rate_per as f64 / SECOND as f64;
    request
        .times()
        .map(|time| {
            window.slide(time.saturating_sub(request.rate_per), time);
            let value = match request.measure {
                Measure::Calls => window.len() as f64 / seconds,
                // 0 / 0 is NaN, as Prometheus answers: nothing was called.
                Measure::Errors => window.failed as f64 / window.len() as f64,
                Measure::Latency(quantile) => match window.quantile(quantile) {
                    Some(nanos) => nanos as f64 / MILLIS as f64,
                    None => f64::NAN,
                },
            };
            Point { time, value }
        })
        .collect()
}

/// The calls of a moving window over calls sorted by start.
struct Window<'a> {
    calls: &'a [Call],
    first: usize,
    end: usize,
    failed: usize,
    /// Durations of all calls, sorted; empty if nobody asks for quantiles.
    durations: Vec<i64>,
    /// A Fenwick tree: how many calls of the window have each of `durations`, from 1.
    counts: Vec<usize>,
}

impl<'a> Window<'a> {
    fn new(calls: &'a [Call], quantiles: bool) -> Self {
        let mut durations: Vec<i64> = Vec::new();
        if quantiles {
            durations.extend(calls.iter().map(|call| call.duration));
            durations.sort_unstable();
            durations.dedup();
        }
        let counts = vec![0; durations.len() + 1];
        Self { calls, first: 0, end: 0, failed: 0, durations, counts }
    }

    fn len(&self) -> usize {
        self.end - self.first
    }

    /// Moves on to the calls that start after `after` and not after `until`.
    fn slide(&mut self, after: i64, until: i64) {
        while let Some(call) = self.calls.get(self.end).filter(|call| call.start <= until) {
            self.end += 1;
            self.failed += usize::from(call.failed);
            self.count(call.duration, |n| n + 1);
        }
        while let Some(call) = self.calls[..self.end].get(self.first).filter(|c| c.start <= after) {
            self.first += 1;
            self.failed -= usize::from(call.failed);
            self.count(call.duration, |n| n - 1);
        }
    }

    fn count(&mut self, duration: i64, change: impl Fn(usize) -> usize) {
        let Ok(rank) = self.durations.binary_search(&duration) else { return };
        let mut node = rank + 1;
        while let Some(count) = self.counts.get_mut(node) {
            *count = change(*count);
            node += node & node.wrapping_neg();
        }
    }

    /// The duration that `quantile` of the window's calls do not exceed.
    fn quantile(&self, quantile: f64) -> Option<i64> {
        if self.len() == 0 {
            return None;
        }
        let mut left = ((quantile * self.len() as f64).ceil() as usize).clamp(1, self.len());
        let mut node = 0;
        let mut stride = self.counts.len().next_power_of_two();
        while stride > 0 {
            if let Some(count) = self.counts.get(node + stride).filter(|count| **count < left) {
                left -= count;
                node += stride;
            }
            stride /= 2;
        }
        self.durations.get(node).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_window_is_what_counting_by_hand_gives(
            starts in proptest::collection::vec((0i64..100, 0i64..20, any::<bool>()), 0..60),
            quantile in 0.0..=1.0f64,
            width in 1i64..40,
        ) {
            let mut calls: Vec<Call> = starts
                .into_iter()
                .map(|(start, duration, failed)| Call { start, duration, failed })
                .collect();
            calls.sort_by_key(|call| call.start);
            let mut window = Window::new(&calls, true);
            for until in (0..120).step_by(7) {
                window.slide(until - width, until);
                let inside = calls.iter().filter(|c| c.start > until - width && c.start <= until);
                let mut durations: Vec<i64> = inside.clone().map(|call| call.duration).collect();
                durations.sort_unstable();
                prop_assert_eq!(window.len(), durations.len());
                prop_assert_eq!(window.failed, inside.filter(|call| call.failed).count());
                let rank = ((quantile * durations.len() as f64).ceil() as usize).max(1) - 1;
                prop_assert_eq!(window.quantile(quantile), durations.get(rank).copied());
            }
        }
    }
}
