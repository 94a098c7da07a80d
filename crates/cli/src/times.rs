//! Times as people write them on a command line.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use lacuna_store::TimeRange;
use miette::miette;

use crate::Failure;

/// A duration as people write it: `250ms`, `30s`, `2m`, `1h`, `7d`, `1h30m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a duration such as 250ms, 30s, 2m, 1h30m or 7d".to_owned();
    // A day is 24 hours here: nobody counts a retention in calendar days.
    let (days, rest) = match text.split_once('d') {
        Some((days, rest)) => (days.parse::<u32>().map_err(|_| wrong())?, rest),
        None => (0, text),
    };
    let days = Duration::from_secs(u64::from(days) * 24 * 3600);
    if rest.is_empty() && !text.is_empty() {
        return Ok(days);
    }
    let rest: SignedDuration = rest.parse().map_err(|_| wrong())?;
    let rest = Duration::try_from(rest).map_err(|_| wrong())?;
    Ok(days + rest)
}

/// From when to when.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Window {
    /// Nothing older: a time such as 2026-11-23T08:00:00Z, or how long ago, such as 1h.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub from: Option<Moment>,
    /// Nothing younger, written alike.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub to: Option<Moment>,
}

/// A moment, absolute or by how long ago it was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Moment {
    /// This one.
    At(Timestamp),
    /// So long ago.
    Ago(Duration),
}

/// Reads a moment.
fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(ago) = duration(text) {
        return Ok(Moment::Ago(ago));
    }
    text.parse().map(Moment::At).map_err(|_| {
        "expected a time such as 2026-11-23T08:00:00Z, or how long ago, such as 15m, 1h or 7d"
            .to_owned()
    })
}

impl Moment {
    /// Nanoseconds since the epoch, if it is `now`.
    fn nanos(self, now: Timestamp) -> i64 {
        let at = match self {
            Self::At(at) => at,
            Self::Ago(ago) => now.checked_sub(ago).unwrap_or(Timestamp::MIN),
        };
        let bounded = at.as_nanosecond().clamp(i64::MIN.into(), i64::MAX.into());
        i64::try_from(bounded).unwrap_or(i64::MAX)
    }
}

impl Window {
    /// The range; everything where it has no end.
    pub fn range(&self) -> Result<TimeRange, Failure> {
        let now = Timestamp::now();
        let start = self.from.map_or(TimeRange::ALL.start, |from| from.nanos(now));
        let end = self.to.map_or(TimeRange::ALL.end, |to| to.nanos(now));
        if start >= end {
            return Err(miette!("--from is not before --to: nothing is between them"));
        }
        Ok(TimeRange::new(start, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(duration("1d12h"), Ok(Duration::from_secs(129_600)));
        for bad in ["", "30", "-5s", "soon", "d", "1d-2h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn moments_are_absolute_or_ago() {
        let now: Timestamp = "2026-11-23T08:00:00Z".parse().unwrap();
        let nanos = |text: &str| moment(text).map(|moment| moment.nanos(now));
        assert_eq!(nanos("2026-11-23T07:00:00Z"), nanos("1h"));
        assert_eq!(nanos("2026-11-23T08:00:00+01:00"), nanos("60m"));
        assert!(moment("yesterday").is_err());
    }

    #[test]
    fn a_window_has_something_in_it() {
        let window = |from: &str, to: &str| Window {
            from: Some(moment(from).unwrap()),
            to: Some(moment(to).unwrap()),
        };
        assert!(window("2h", "1h").range().is_ok());
        assert!(window("1h", "2h").range().is_err());
        let all = Window { from: None, to: None };
        assert_eq!(all.range().unwrap(), TimeRange::ALL);
    }
}
