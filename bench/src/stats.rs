//! Durations, and what is said about them.

use std::time::Duration;

/// Measured durations.
#[derive(Debug, Default, Clone)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// Adds one.
    pub fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// Adds those of another.
    pub fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The duration in milliseconds that a share `of` (0 to 1) of the samples does not exceed
    /// (nearest rank); 0 without samples.
    pub fn millis(&self, of: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (of * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).map_or(0.0, |d| d.as_secs_f64() * 1e3)
    }

    /// p50, p99 and the longest, in milliseconds.
    pub fn summary(&self) -> String {
        format!(
            "p50 {:8.2} ms  p99 {:8.2} ms  max {:8.2} ms  ({} samples)",
            self.millis(0.5),
            self.millis(0.99),
            self.millis(1.0),
            self.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let mut samples = Samples::default();
        for n in (1..=100).rev() {
            samples.push(Duration::from_millis(n));
        }
        assert_eq!(samples.millis(0.5), 50.0);
        assert_eq!(samples.millis(0.99), 99.0);
        assert_eq!(samples.millis(1.0), 100.0);
        assert_eq!(Samples::default().millis(0.99), 0.0);
    }
}
