//! One reading of the clock for a span and for what is measured of it.

use std::time::SystemTime;

/// Seconds between two readings of the wall clock, which is the spans' clock; none where it was set
/// back meanwhile.
pub(crate) fn seconds(from: SystemTime, to: SystemTime) -> f64 {
    to.duration_since(from).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_clock_that_was_set_back_gives_no_negative_time() {
        let now = SystemTime::now();
        assert_eq!(seconds(now, now + Duration::from_millis(1500)), 1.5);
        assert_eq!(seconds(now, now - Duration::from_secs(3600)), 0.0);
    }
}
