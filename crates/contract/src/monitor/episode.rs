//! Episodes of findings: when one is over, and when the next begins.
//!
//! A finding that nothing ends would be told once in its life. So an episode ends when nothing
//! violates any more, or when all has been well for long enough; the next begins with the next
//! violation, and counts from there.

use jiff::Timestamp;
use lacuna_signal::finding::{Finding, Verdict};

use super::digest::{State, is_found};
use super::gap::Gaps;
use super::machine::Machine;
use super::presence::Presence;
use super::{Monitor, nanos};

/// Where a finding's present or last episode stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Episode {
    /// Activation of the last violation before it; `None` if it is the first.
    pub since: Option<Timestamp>,
    /// If it is over, the activation of the last violation that is part of it.
    pub over: Option<Timestamp>,
    /// Wall-clock time at which it last grew, if that is known.
    pub grew: Option<Timestamp>,
}

/// As [`Episode`], in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub(super) since: i64,
    pub(super) over: Option<i64>,
    grew: Option<i64>,
    /// How many violations there were when last looked at, and the newest of them.
    seen: Option<(u64, i64)>,
    /// Obligations of this verdict when the episode began; `None` until they have been counted.
    pub(super) before: Option<u64>,
}

impl Standing {
    /// An episode that begins at `wall` with what was activated after `since`.
    fn new(since: i64, wall: Option<i64>) -> Self {
        let before = (since == i64::MIN).then_some(0);
        Self { since, over: None, grew: wall, seen: None, before }
    }

    /// What becomes of an episode by what its finding says now, and whether another one has begun.
    /// `quiet` is how long all must have been well, `wall` the wall clock, and `well` says whether
    /// it was.
    pub(super) fn turn(
        known: Option<Self>,
        state: &State,
        quiet: i64,
        wall: Option<i64>,
        well: impl FnOnce() -> bool,
    ) -> (Option<Self>, bool) {
        let holds = state.count > 0 && !state.back;
        match known {
            None if holds => (Some(Self::new(i64::MIN, wall)), false),
            Some(Self { over: Some(over), .. }) if holds && state.last > over => {
                (Some(Self::new(over, wall)), true)
            }
            None | Some(Self { over: Some(_), .. }) => (known, false),
            Some(mut episode) => {
                let grew = |(count, last)| state.count > count || state.last > last;
                if episode.seen.is_some_and(grew) {
                    episode.grew = wall;
                }
                episode.seen = Some((state.count, state.last));
                episode.over = if state.count == 0 {
                    Some(episode.since)
                } else {
                    let over = state.back || well() || is_stale(&episode, quiet, wall);
                    over.then_some(state.last)
                };
                (Some(episode), false)
            }
        }
    }
}

/// Without any traffic that would show that all is well, an episode is over after so much wall time
/// in which it did not grow, a day; or after twice the usual time if that is longer.
const WITHOUT_PROOF: i64 = 24 * 3_600_000_000_000;

impl Machine {
    /// Lets episodes begin and end: `quiet` is how long all must have been well, event time, and
    /// `wall` the wall clock.
    fn turn_episodes(
        &mut self,
        presence: &Presence,
        watermark: i64,
        quiet: i64,
        wall: Option<i64>,
        gaps: &Gaps,
    ) {
        self.refresh_digest(presence, watermark, gaps);
        for verdict in Verdict::ALL.into_iter().filter(|verdict| is_found(*verdict)) {
            let Some(state) = self.state(verdict).filter(|_| self.is_told(verdict)) else {
                continue;
            };
            let known = self.digest.episodes.get(&verdict).copied();
            let well = || self.is_well(&state, watermark, quiet);
            let (next, anew) = Standing::turn(known, &state, quiet, wall, well);
            if let Some(next) = next {
                self.digest.episodes.insert(verdict, next);
            }
            if anew {
                // It counts from here on.
                self.digest.revision = 0;
            }
        }
        self.refresh_digest(presence, watermark, gaps);
    }

    /// Whether an obligation was fulfilled that began `quiet` or more after the last violation, and
    /// everything in between is settled. A deadline that passes is no such proof: where nothing
    /// happens, nothing goes wrong either.
    fn is_well(&self, state: &State, watermark: i64, quiet: i64) -> bool {
        let until = state.last.saturating_add(quiet);
        self.fulfilled >= until && watermark >= until
    }
}

/// Whether an episode has not grown for so long that it is over without any proof.
fn is_stale(episode: &Standing, quiet: i64, wall: Option<i64>) -> bool {
    let (Some(wall), Some(grew)) = (wall, episode.grew) else { return false };
    wall.saturating_sub(grew) >= WITHOUT_PROOF.max(quiet.saturating_mul(2))
}

impl Monitor {
    /// As [`Self::findings`], and lets their episodes begin and end. Every episode is told as open
    /// at least once, however long ago it was.
    ///
    /// An episode is over when nothing is left of it; when an obligation was fulfilled that began
    /// [`Options::resolve_after`](super::Options::resolve_after) (twice the contract's deadline, if
    /// that is longer) or more after the last violation, and none that began in between violates; or
    /// when it has not grown for a day (twice as long, if that is longer) by the wall clock.
    /// Violations that began after its last one are a new episode.
    pub fn review(&mut self) -> Vec<Finding> {
        let after = i64::try_from(self.options.resolve_after.as_nanos()).unwrap_or(i64::MAX);
        for machine in &mut self.machines {
            let within = machine.contract.within.unwrap_or(0);
            let quiet = after.max(within.saturating_mul(2));
            machine.turn_episodes(&self.presence, self.watermark, quiet, self.wall, &self.gaps);
        }
        self.turn_gaps(after);
        self.findings()
    }

    /// Takes over where another process had come with the finding of this fingerprint, unless
    /// [`Self::review`] has spoken of it already.
    pub fn resume(&mut self, fingerprint: &str, episode: &Episode) {
        let since = episode.since.map_or(i64::MIN, nanos);
        let mut standing = Standing::new(since, episode.grew.map(nanos));
        standing.over = episode.over.map(nanos);
        for machine in &mut self.machines {
            if let Some(verdict) = machine.verdict_of(fingerprint) {
                machine.digest.episodes.entry(verdict).or_insert(standing);
                machine.digest.revision = 0;
            }
        }
        if let Some(source) = self.gap_of(fingerprint) {
            self.resume_gap(source, standing);
        }
    }
}
