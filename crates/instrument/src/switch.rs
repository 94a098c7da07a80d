//! Turning parts off or down, at start by `LACUNA_INSTRUMENT` and at run time by [`set`].
//!
//! `LACUNA_INSTRUMENT=redis=off,kafka=spans` switches Redis off and keeps only Kafka's spans. A bare
//! level (`LACUNA_INSTRUMENT=off`) is for every part. A part that is off costs one relaxed atomic
//! load at each call; context propagation over Kafka and HTTP is a part of its own (`propagation`),
//! so that turning a part's spans off does not break other services' traces.
//!
//! The levels are the process's own, as OpenTelemetry's providers are.
//!
//! ```
//! use lacuna_instrument::switch::{self, Level, Part};
//!
//! switch::set(Part::Redis, Level::Spans);
//! assert_eq!(switch::get(Part::Redis), Level::Spans);
//! switch::set(Part::Redis, Level::On);
//! ```

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};

/// Environment variable with the levels at start.
pub const ENV: &str = "LACUNA_INSTRUMENT";

/// What can be switched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Part {
    /// Redis commands, pipelines and transactions.
    Redis,
    /// Kafka produce, consume, commit, rebalance and statistics.
    Kafka,
    /// PostgreSQL queries, transactions and pools.
    Postgres,
    /// Circuit breakers.
    Breaker,
    /// HTTP server and client.
    Http,
    /// Business outcomes.
    Outcome,
    /// Business metrics.
    Business,
    /// Writing and reading trace context and baggage in Kafka and HTTP headers.
    Propagation,
}

impl Part {
    /// Every part, in the order of the documentation.
    pub const ALL: [Part; 8] = [
        Part::Redis,
        Part::Kafka,
        Part::Postgres,
        Part::Breaker,
        Part::Http,
        Part::Outcome,
        Part::Business,
        Part::Propagation,
    ];

    /// The part's name in `LACUNA_INSTRUMENT`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Part::Redis => "redis",
            Part::Kafka => "kafka",
            Part::Postgres => "postgres",
            Part::Breaker => "breaker",
            Part::Http => "http",
            Part::Outcome => "outcome",
            Part::Business => "business",
            Part::Propagation => "propagation",
        }
    }
}

/// How much a part emits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Level {
    /// Nothing.
    Off = 0,
    /// Metrics only.
    Metrics = 1,
    /// Spans (and, for outcomes, event logs) only.
    Spans = 2,
    /// Everything.
    On = 3,
}

impl Level {
    /// The level's name in `LACUNA_INSTRUMENT`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Level::Off => "off",
            Level::Metrics => "metrics",
            Level::Spans => "spans",
            Level::On => "on",
        }
    }
}

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        [Level::Off, Level::Metrics, Level::Spans, Level::On]
            .into_iter()
            .find(|l| l.name().eq_ignore_ascii_case(s))
            .ok_or_else(|| UnknownLevel(s.to_owned()))
    }
}

/// A level that is not `off`, `metrics`, `spans` or `on`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a level: off, metrics, spans, on")]
pub struct UnknownLevel(String);

static LEVELS: [AtomicU8; 8] = [const { AtomicU8::new(Level::On as u8) }; 8];

/// Sets one part's level for the whole process. Spans already started end as they would have.
pub fn set(part: Part, level: Level) {
    LEVELS[part as usize].store(level as u8, Ordering::Relaxed);
}

/// The part's level now.
#[must_use]
pub fn get(part: Part) -> Level {
    match LEVELS[part as usize].load(Ordering::Relaxed) {
        0 => Level::Off,
        1 => Level::Metrics,
        2 => Level::Spans,
        _ => Level::On,
    }
}

/// True when the part emits spans.
#[inline]
#[must_use]
pub fn spans(part: Part) -> bool {
    LEVELS[part as usize].load(Ordering::Relaxed) & (Level::Spans as u8) != 0
}

/// True when the part records metrics. A service asks this before it records instruments of its own,
/// so that [`Part::Business`] covers them too.
#[inline]
#[must_use]
pub fn metrics(part: Part) -> bool {
    LEVELS[part as usize].load(Ordering::Relaxed) & (Level::Metrics as u8) != 0
}

/// What `LACUNA_INSTRUMENT` asked for: the levels understood, and what was not.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Parsed {
    /// Levels by part, in the order written; a later one wins.
    pub(crate) levels: Vec<(Part, Level)>,
    /// One message for every item that means nothing.
    pub(crate) problems: Vec<Problem>,
}

/// One item of a switch list that was skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The item as written.
    pub item: String,
}

/// Sets the levels of a list like `LACUNA_INSTRUMENT`'s, for a service that takes one at run time.
/// What means nothing in it is skipped and given back; the rest counts.
///
/// ```
/// use lacuna_instrument::switch::{self, Level, Part};
///
/// let problems = switch::apply("redis=off,kafka=loud");
/// assert_eq!(switch::get(Part::Redis), Level::Off);
/// assert!(problems[0].to_string().contains("kafka=loud"));
/// # switch::apply("all=on");
/// ```
pub fn apply(list: &str) -> Vec<Problem> {
    let parsed = parse(list);
    for (part, level) in parsed.levels {
        set(part, level);
    }
    parsed.problems
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is ignored: write part=level with part ", self.item)?;
        for part in Part::ALL {
            write!(f, "{}, ", part.name())?;
        }
        write!(f, "or `all`, and level off, metrics, spans, on; the default is on")
    }
}

/// Reads a switch list. A bad item is reported and skipped; the good ones beside it count.
pub(crate) fn parse(list: &str) -> Parsed {
    let mut parsed = Parsed::default();
    for item in list.split(',').map(str::trim).filter(|i| !i.is_empty()) {
        let (name, level) = match item.split_once('=') {
            Some((name, level)) => (name.trim(), level.trim()),
            None => ("all", item),
        };
        let parts: Vec<Part> = Part::ALL
            .into_iter()
            .filter(|p| name.eq_ignore_ascii_case("all") || name.eq_ignore_ascii_case(p.name()))
            .collect();
        match level.parse::<Level>() {
            Ok(level) if !parts.is_empty() => {
                parsed.levels.extend(parts.into_iter().map(|p| (p, level)))
            }
            _ => parsed.problems.push(Problem { item: item.to_owned() }),
        }
    }
    parsed
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_parts_and_levels() {
        let parsed = parse("redis=off, kafka=spans,HTTP=Metrics");
        assert_eq!(
            parsed.levels,
            vec![
                (Part::Redis, Level::Off),
                (Part::Kafka, Level::Spans),
                (Part::Http, Level::Metrics)
            ]
        );
        assert!(parsed.problems.is_empty());
    }

    #[test]
    fn a_bare_level_is_for_every_part() {
        let parsed = parse("off,redis=on");
        assert_eq!(parsed.levels.len(), Part::ALL.len() + 1);
        assert_eq!(parsed.levels.last(), Some(&(Part::Redis, Level::On)));
    }

    #[test]
    fn a_bad_item_is_named_and_the_good_one_kept() {
        let parsed = parse("redis=loud,mysql=off,kafka=off");
        assert_eq!(parsed.levels, vec![(Part::Kafka, Level::Off)]);
        assert_eq!(parsed.problems.len(), 2);
        let text = parsed.problems[0].to_string();
        assert!(text.contains("redis=loud") && text.contains("metrics"), "{text}");
    }

    proptest! {
        #[test]
        fn never_panics_and_accounts_for_every_item(list in ".{0,80}") {
            let parsed = parse(&list);
            let items = list.split(',').filter(|i| !i.trim().is_empty()).count();
            prop_assert!(parsed.problems.len() <= items);
            prop_assert!(items == 0 || !parsed.levels.is_empty() || !parsed.problems.is_empty());
        }
    }
}
