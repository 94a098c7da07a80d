//! Times as people write them on a command line.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use lacuna_server::times::parse_range;
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
#[derive(Debug, Clone, clap::Args)]
pub struct Window {
    /// Nothing older: a time such as 2026-11-23T08:00:00Z, or how long ago, such as 1h.
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Nothing younger, written alike.
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
}

impl Window {
    /// The range; everything where it has no end.
    pub fn range(&self) -> Result<TimeRange, Failure> {
        parse_range(self.from.as_deref(), self.to.as_deref(), Timestamp::now())
            .map_err(|error| miette!("{error}"))
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
}
