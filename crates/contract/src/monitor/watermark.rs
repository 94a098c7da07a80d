//! How time passes for a monitor: by events, by the wall clock, and to the end of the data.

use jiff::Timestamp;

use super::{Monitor, nanos};

impl Monitor {
    /// Lets the watermark follow the newest event.
    pub(super) fn follow(&mut self) {
        let wall = self.wall.unwrap_or(i64::MAX);
        if let Some(last) = self.last.filter(|_| wall >= self.hold) {
            // An event that ends just then may still come, so the watermark stays before it.
            let watermark = last.min(wall).saturating_sub(self.lateness()).saturating_sub(1);
            self.advance(watermark);
        }
    }

    /// Tells the time. While ever newer events arrive it changes nothing; after [`Options::idle`]
    /// without one that is newer than all before, the watermark follows it, so that a source that
    /// stalls, or sends only what is old, does not stop deadlines.
    pub fn advance_wall_clock(&mut self, now: Timestamp) {
        let now = nanos(now);
        self.wall = Some(now);
        if std::mem::take(&mut self.grew) || self.last_growth.is_none() {
            self.last_growth = Some(now);
        }
        if now < self.hold {
            return;
        }
        self.follow();
        let idle = i64::try_from(self.options.idle.as_nanos()).unwrap_or(i64::MAX);
        let since = now.saturating_sub(self.last_growth.unwrap_or(now));
        if since >= idle && self.machines.iter().any(|machine| machine.known) {
            self.advance(now.saturating_sub(self.lateness()));
        }
    }

    /// Tells the time alone, which no deadline follows: before events are observed, so that what ends
    /// in the future is known to. [`Self::advance_wall_clock`] lets deadlines follow.
    pub fn tell_wall_clock(&mut self, now: Timestamp) {
        self.wall = Some(nanos(now));
    }

    /// Lets deadlines wait for the lateness, from `now` on by the wall clock: while nobody listened
    /// events could not come, and senders that were turned away come again with a delay. To be called
    /// on a restart, when all has been observed that came before it.
    pub fn resume_at(&mut self, now: Timestamp) {
        self.tell_wall_clock(now);
        self.hold = nanos(now).saturating_add(self.lateness());
    }

    /// The data ends at `end` at the latest: what ends later is from a clock that is ahead.
    pub fn end_by(&mut self, end: Timestamp) {
        self.end_by = nanos(end);
    }

    /// Ends the data: every deadline up to the greatest end of any event is settled, without
    /// lateness. What is due later stays open.
    pub fn finish(&mut self) {
        self.judge_held();
        let any = self.machines.iter().any(|machine| machine.known);
        // Where all is from clocks that are ahead, the data ends when it may at the latest.
        let end = (any && self.end_by < i64::MAX).then_some(self.end_by);
        let Some(last) = self.last.or(end) else { return };
        self.watermark = self.watermark.max(last);
        for machine in &mut self.machines {
            machine.begin(self.first);
            machine.finish(&self.presence, self.watermark);
        }
    }

    /// Settles every deadline up to `watermark` at least, which another process had reached.
    pub fn settle_up_to(&mut self, watermark: Timestamp) {
        self.settle(nanos(watermark));
    }

    /// As [`Self::advance`], also where a contract lags behind the others.
    pub(super) fn settle(&mut self, watermark: i64) {
        self.watermark = self.watermark.max(watermark);
        for machine in &mut self.machines {
            machine.advance(&self.presence, self.watermark);
        }
    }

    pub(super) fn lateness(&self) -> i64 {
        i64::try_from(self.options.lateness.as_nanos()).unwrap_or(i64::MAX)
    }

    fn advance(&mut self, watermark: i64) {
        if watermark > self.watermark {
            self.watermark = watermark;
            for machine in &mut self.machines {
                // Nothing is judged before, and what comes within the lateness is known by then.
                if watermark >= self.first {
                    machine.begin(self.first);
                }
                machine.advance(&self.presence, watermark);
            }
        }
    }
}
