//! Times as people give them: RFC 3339, or how long ago.

use jiff::Timestamp;
use lacuna_signal::selector::parse_duration;
use lacuna_store::TimeRange;

/// Reads `2026-11-23T14:00:00Z`, `now`, or how long before `now`: `1h`, `30m`, `7d`. Nanoseconds
/// since the epoch.
///
/// # Errors
/// What would be right.
pub fn parse_time(text: &str, now: Timestamp) -> Result<i64, String> {
    let wrong = || {
        format!(
            "`{text}` is not a time: write RFC 3339 such as 2026-11-23T14:00:00Z, or how long ago \
             such as 1h or 30m"
        )
    };
    let text = text.trim();
    let now = nanos(now);
    if text == "now" {
        return Ok(now);
    }
    if let Some(ago) = parse_duration(text.strip_prefix('-').unwrap_or(text)) {
        return Ok(now.saturating_sub(ago));
    }
    text.parse::<Timestamp>().map(nanos).map_err(|_| wrong())
}

/// The range from one time to another; without them, from the beginning and to the end.
///
/// # Errors
/// What is wrong with either time, or that nothing lies between them.
pub fn parse_range(
    from: Option<&str>,
    to: Option<&str>,
    now: Timestamp,
) -> Result<TimeRange, String> {
    let start = from.map_or(Ok(i64::MIN), |text| parse_time(text, now))?;
    let end = to.map_or(Ok(i64::MAX), |text| parse_time(text, now))?;
    let range = TimeRange::new(start, end);
    if range.is_empty() {
        let (from, to) = (from.unwrap_or("the beginning"), to.unwrap_or("the end"));
        return Err(format!("nothing lies between {from} and {to}: `from` must come before `to`"));
    }
    Ok(range)
}

fn nanos(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_absolute_or_ago() {
        let now: Timestamp = "2026-11-23T14:00:00Z".parse().unwrap();
        let at = |text: &str| parse_time(text, now).unwrap();
        assert_eq!(at("now") - at("1h30m"), 5_400_000_000_000);
        assert_eq!(at("1h"), at("2026-11-23T13:00:00Z"));
        assert_eq!(at("1d"), at("2026-11-22T15:00:00+01:00"));
        for bad in ["", "yesterday", "12", "2026-11-23"] {
            let error = parse_time(bad, now).unwrap_err();
            assert!(error.contains("RFC 3339"), "{error}");
        }
    }

    #[test]
    fn ranges_are_not_empty() {
        let now = Timestamp::now();
        assert_eq!(parse_range(None, None, now), Ok(TimeRange::ALL));
        assert!(parse_range(Some("1h"), Some("now"), now).is_ok());
        assert!(parse_range(Some("now"), Some("1h"), now).unwrap_err().contains("before"));
    }
}
