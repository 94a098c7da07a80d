//! When which service sent which kind of signal: the evidence that evidence arrives.

use hashbrown::HashMap;
use lacuna_signal::SignalKind;

use super::codec::{Code, Damaged, Get, code};
use super::rows::Rows;

/// Of each service and kind of signal, the times at which there were any, as intervals.
///
/// Points closer to each other than `gap`, the shortest span that anybody asks about, make one
/// interval: any such span that touches the interval then holds a point of it, so the answers are
/// exact.
#[derive(Debug, Clone)]
pub(super) struct Presence {
    gap: i64,
    tracks: HashMap<(SignalKind, Box<str>), Track, foldhash::fast::RandomState>,
}

#[derive(Debug, Clone, Default)]
struct Track {
    first: i64,
    /// Disjoint, in order, `gap` or more apart.
    spans: Vec<(i64, i64)>,
}

code!(Track { first, spans });

/// What verdicts may rest on the absence of signals that have come now.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Doubt {
    /// One of them lies at or before the watermark.
    pub(super) late: bool,
    /// One of them does, and is the first that is known of its service.
    pub(super) earlier: bool,
}

/// A service that comes and goes has at most this many intervals; the oldest are forgotten.
const MAX_SPANS: usize = 65_536;

impl Presence {
    pub(super) fn new(gap: i64) -> Self {
        Self { gap: gap.max(1), tracks: HashMap::default() }
    }

    /// The shortest span that can be asked about, nanoseconds.
    pub(super) fn gap(&self) -> i64 {
        self.gap
    }

    /// From now on spans as short as `gap` are asked about. What is known stays: where points were
    /// joined over longer gaps, a service counts as heard of when it may have been silent.
    pub(super) fn ask_for(&mut self, gap: i64) {
        self.gap = self.gap.min(gap.max(1));
    }

    /// Adds what another one knows.
    pub(super) fn merge(&mut self, other: Self) {
        self.ask_for(other.gap);
        for (key, track) in other.tracks {
            match self.tracks.entry(key) {
                hashbrown::hash_map::Entry::Vacant(entry) => {
                    entry.insert(track);
                }
                hashbrown::hash_map::Entry::Occupied(mut entry) => {
                    entry.get_mut().merge(track, self.gap);
                }
            }
        }
    }

    /// Takes note of a batch's rows; says what verdicts may rest on their absence.
    pub(super) fn observe(&mut self, kind: SignalKind, rows: &Rows<'_>, watermark: i64) -> Doubt {
        let mut doubt = Doubt::default();
        let mut row = 0;
        while row < rows.len() {
            let service = rows.service(row);
            let new = !self.tracks.contains_key(&(kind, service) as &dyn TrackKey);
            if new {
                let track = Track { first: rows.start(row), spans: Vec::new() };
                self.tracks.insert((kind, service.into()), track);
            }
            let Some(track) = self.tracks.get_mut(&(kind, service) as &dyn TrackKey) else { break };
            let first = track.first;
            // Rows of one resource come together, so the track is looked up once for many.
            loop {
                let (start, end) = (rows.start(row), rows.end(row));
                doubt.late |= start <= watermark;
                track.insert(start, self.gap);
                if end != start {
                    track.insert(end, self.gap);
                }
                row += 1;
                if row == rows.len() || !rows.same_service(row - 1, row) {
                    break;
                }
            }
            doubt.earlier |= (new || track.first < first) && track.first <= watermark;
        }
        doubt
    }

    /// When the first came that is known of a service.
    pub(super) fn first(&self, kind: SignalKind, service: &str) -> Option<i64> {
        self.tracks.get(&(kind, service) as &dyn TrackKey).map(|track| track.first)
    }

    /// The last before and the first after a time around which the service sent nothing; `None` if
    /// it did, or never had.
    pub(super) fn hole(
        &self,
        kind: SignalKind,
        service: &str,
        time: i64,
    ) -> Option<(i64, Option<i64>)> {
        let track = self.tracks.get(&(kind, service) as &dyn TrackKey)?;
        let at = track.spans.partition_point(|(_, last)| *last < time);
        let next = track.spans.get(at).map(|(first, _)| *first);
        if next.is_some_and(|next| next <= time) {
            return None;
        }
        let (_, last) = track.spans.get(at.checked_sub(1)?)?;
        Some((*last, next))
    }

    /// Whether the service sent anything before `time`.
    pub(super) fn before(&self, kind: SignalKind, service: &str, time: i64) -> bool {
        self.tracks.get(&(kind, service) as &dyn TrackKey).is_some_and(|track| track.first < time)
    }

    /// Whether the service sent anything in `from..=to`, which is at least as long as the gap.
    pub(super) fn within(&self, kind: SignalKind, service: &str, from: i64, to: i64) -> bool {
        self.tracks.get(&(kind, service) as &dyn TrackKey).is_some_and(|track| {
            let at = track.spans.partition_point(|(_, last)| *last < from);
            track.spans.get(at).is_some_and(|(first, _)| *first <= to)
        })
    }
}

impl Track {
    fn merge(&mut self, other: Self, gap: i64) {
        self.first = self.first.min(other.first);
        let mut all: Vec<_> = self.spans.drain(..).chain(other.spans).collect();
        all.sort_unstable();
        for (first, last) in all {
            match self.spans.last_mut() {
                Some((_, end)) if first.saturating_sub(*end) < gap => *end = last.max(*end),
                _ => self.spans.push((first, last)),
            }
        }
    }

    fn insert(&mut self, time: i64, gap: i64) {
        self.first = self.first.min(time);
        if let Some((first, last)) = self.spans.last_mut() {
            if *first <= time && time <= *last {
                return;
            }
            if time > *last {
                if time.saturating_sub(*last) < gap {
                    *last = time;
                } else {
                    self.spans.push((time, time));
                    if self.spans.len() > MAX_SPANS {
                        self.spans.drain(..MAX_SPANS / 2);
                    }
                }
                return;
            }
        }
        let at = self.spans.partition_point(|(_, last)| *last < time);
        if self.spans.get(at).is_some_and(|(first, _)| *first <= time) {
            return;
        }
        let joins_next =
            self.spans.get(at).is_some_and(|(first, _)| first.saturating_sub(time) < gap);
        let joins_last = at > 0 && time.saturating_sub(self.spans[at - 1].1) < gap;
        match (joins_last, joins_next) {
            (true, true) => {
                let (_, last) = self.spans.remove(at);
                self.spans[at - 1].1 = last;
            }
            (true, false) => self.spans[at - 1].1 = time,
            (false, true) => self.spans[at].0 = time,
            (false, false) => self.spans.insert(at, (time, time)),
        }
    }
}

/// The kind is written as one byte: 0 spans, 1 logs, 2 points.
impl Code for Presence {
    fn put(&self, out: &mut Vec<u8>) {
        self.gap.put(out);
        (self.tracks.len() as u64).put(out);
        for ((kind, service), track) in &self.tracks {
            let kind = SignalKind::ALL.iter().position(|known| known == kind).unwrap_or(0);
            out.push(kind as u8);
            service.put(out);
            track.put(out);
        }
    }

    fn get(from: &mut Get<'_>) -> Result<Self, Damaged> {
        let mut presence = Self::new(Code::get(from)?);
        for _ in 0..from.length()? {
            let kind = from.take(1)?.first().copied().map(usize::from).unwrap_or_default();
            let kind = *SignalKind::ALL.get(kind).ok_or(Damaged)?;
            let service = Code::get(from)?;
            presence.tracks.insert((kind, service), Code::get(from)?);
        }
        Ok(presence)
    }
}

/// Looking a track up without making an owned key.
trait TrackKey {
    fn parts(&self) -> (SignalKind, &str);
}

impl TrackKey for (SignalKind, &str) {
    fn parts(&self) -> (SignalKind, &str) {
        (self.0, self.1)
    }
}

impl std::hash::Hash for dyn TrackKey + '_ {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let (kind, service) = self.parts();
        kind.hash(state);
        service.hash(state);
    }
}

impl hashbrown::Equivalent<(SignalKind, Box<str>)> for dyn TrackKey + '_ {
    fn equivalent(&self, key: &(SignalKind, Box<str>)) -> bool {
        let (kind, service) = self.parts();
        kind == key.0 && service == &*key.1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn answers_as_the_plain_list_does(
            points in prop::collection::vec(0i64..200, 0..40),
            gap in 1i64..20,
            from in -10i64..210,
            longer in 0i64..20,
        ) {
            let mut track = Track { first: i64::MAX, spans: Vec::new() };
            points.iter().for_each(|point| track.insert(*point, gap));
            let mut presence = Presence::new(gap);
            presence.tracks.insert((SignalKind::Spans, "s".into()), track);
            let to = from + gap + longer;
            let naive = points.iter().any(|point| (from..=to).contains(point));
            prop_assert_eq!(presence.within(SignalKind::Spans, "s", from, to), naive);
            let earlier = points.iter().any(|point| *point < from);
            prop_assert_eq!(presence.before(SignalKind::Spans, "s", from), earlier);
        }
    }
}
