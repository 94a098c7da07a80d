//! How many obligations were opened when.

use std::collections::BTreeMap;

use super::codec::code;

const SECOND: i64 = 1_000_000_000;
/// Seconds that are kept apart; older ones are added up by the minute.
const MAX_SECONDS: usize = 10_800;
/// Two weeks.
const MAX_MINUTES: usize = 20_160;

/// Obligations by the second of their activation for some hours, by the minute for two weeks.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    seconds: BTreeMap<i64, u64>,
    minutes: BTreeMap<i64, u64>,
}

code!(Timeline { seconds, minutes });

impl Timeline {
    /// Counts an obligation that was opened at `time`, nanoseconds.
    pub(super) fn note(&mut self, time: i64) {
        *self.seconds.entry(time.div_euclid(SECOND)).or_default() += 1;
        if self.seconds.len() > MAX_SECONDS
            && let Some((second, count)) = self.seconds.pop_first()
        {
            *self.minutes.entry(second.div_euclid(60)).or_default() += count;
            if self.minutes.len() > MAX_MINUTES {
                self.minutes.pop_first();
            }
        }
    }

    /// Obligations opened from a minute before `first` to a minute after `last`, nanoseconds, to
    /// the second; to the minute where that is no longer known.
    pub(super) fn around(&self, first: i64, last: i64) -> u64 {
        let (from, to) = (first.div_euclid(SECOND) - 60, last.div_euclid(SECOND) + 60);
        let seconds: u64 = self.seconds.range(from..=to).map(|(_, count)| count).sum();
        let minutes = self.minutes.range(from.div_euclid(60)..=to.div_euclid(60));
        seconds + minutes.map(|(_, count)| count).sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_do_not_hang_on_the_clocks_minutes() {
        for shift in [0, 29, 59] {
            let mut timeline = Timeline::default();
            for second in 0..600 {
                timeline.note((shift + second) * SECOND);
            }
            let at = (shift + 300) * SECOND;
            assert_eq!(timeline.around(at, at), 121);
        }
    }

    #[test]
    fn what_is_old_is_kept_by_the_minute() {
        let mut timeline = Timeline::default();
        for second in 0..20_000 {
            timeline.note(second * SECOND);
        }
        assert_eq!(timeline.around(0, 20_000 * SECOND), 20_000);
        assert!(timeline.seconds.len() <= MAX_SECONDS);
    }
}
