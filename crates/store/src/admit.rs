//! Letting requests in only while there is room for them, before they cost anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::counters::add;
use crate::error::{BusyReason, StoreError};
use crate::store::Shared;

/// When a full memory or disk has a chance to have room again, if nothing tells better.
pub const SPACE_RETRY: Duration = Duration::from_secs(2);
/// Nobody is told to come back sooner, or later.
const RETRY: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(50)..=Duration::from_secs(30);
/// Memory that a request takes until it is committed, as a multiple of its body: the body, and the
/// columns that point into it.
const DECODED: usize = 2;

/// Room in memory for one request, from [`Store::admit`](crate::Store::admit) until the request is
/// committed, or this is dropped.
#[derive(Debug)]
pub struct Admission {
    reserved: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.reserved.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// How fast memory becomes free: by what the last flushes freed.
#[derive(Debug, Default)]
pub struct Drain(Mutex<Draining>);

#[derive(Debug, Default)]
struct Draining {
    /// Bytes a second; 0 if not known yet.
    rate: f64,
    running: Option<(Instant, usize)>,
}

impl Drain {
    /// A flush of `bytes` of memory begins.
    pub fn begin(&self, now: Instant, bytes: usize) {
        self.0.lock().running = Some((now, bytes));
    }

    /// It has ended, and freed them or not.
    pub fn end(&self, now: Instant, freed: bool) {
        let mut draining = self.0.lock();
        if let Some((since, bytes)) = draining.running.take()
            && freed
        {
            let seconds = now.saturating_duration_since(since).as_secs_f64().max(1e-3);
            let rate = bytes as f64 / seconds;
            draining.rate = if draining.rate > 0.0 { (draining.rate + rate) / 2.0 } else { rate };
        }
    }

    /// When there will be room: when the flush that runs ends, or the next one, of `next` bytes.
    pub fn wait(&self, now: Instant, next: usize) -> Duration {
        let draining = self.0.lock();
        if draining.rate <= 0.0 {
            return SPACE_RETRY;
        }
        let (since, bytes) = draining.running.unwrap_or((now, next));
        let takes =
            Duration::try_from_secs_f64(bytes as f64 / draining.rate).unwrap_or(SPACE_RETRY);
        let left = takes.saturating_sub(now.saturating_duration_since(since));
        left.clamp(*RETRY.start(), *RETRY.end())
    }
}

impl Shared {
    /// Makes room for a request of `bytes`; see [`Store::admit`](crate::Store::admit).
    pub(crate) fn admit(&self, bytes: usize) -> Result<Admission, StoreError> {
        let limit = self.options.frame_bytes.min(u32::MAX as usize);
        if bytes > limit {
            add(&self.meters.rejected_too_large, 1);
            return Err(StoreError::TooLarge { bytes, limit });
        }
        if let Some(budget) = self.options.disk_bytes
            && self.disk_bytes() + bytes as u64 > budget
        {
            add(&self.meters.rejected_busy, 1);
            return Err(StoreError::busy(BusyReason::DiskBudget, SPACE_RETRY));
        }
        let mut admission = Admission { reserved: Arc::clone(&self.reserved), bytes: 0 };
        self.extend(&mut admission, bytes)?;
        Ok(admission)
    }

    /// Makes the room of `admission` enough for a request of `bytes`; see
    /// [`Store::extend_admission`](crate::Store::extend_admission).
    pub(crate) fn extend(&self, admission: &mut Admission, bytes: usize) -> Result<(), StoreError> {
        let limit = self.options.frame_bytes.min(u32::MAX as usize);
        if bytes > limit {
            add(&self.meters.rejected_too_large, 1);
            return Err(StoreError::TooLarge { bytes, limit });
        }
        let (own, wanted) = (admission.bytes, bytes.saturating_mul(DECODED));
        let more = wanted.saturating_sub(own);
        if more == 0 {
            return Ok(());
        }
        let before = self.reserved.fetch_add(more, Ordering::Relaxed);
        // From here on, dropping it gives the room back.
        admission.bytes = wanted;
        let others = before.saturating_sub(own) + self.memory_bytes.load(Ordering::Relaxed);
        // One request is taken, however large, if there is nothing else.
        if others > 0 && others.saturating_add(wanted) > self.options.memory_bytes {
            self.reserved.fetch_sub(more, Ordering::Relaxed);
            admission.bytes = own;
            self.queue.request_freeze();
            add(&self.meters.rejected_busy, 1);
            let active = self.active_bytes.load(Ordering::Relaxed);
            let wait = self.drain.wait(Instant::now(), active);
            return Err(StoreError::busy(BusyReason::Memory, wait));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_what_is_left_of_the_flush() {
        let (drain, start) = (Drain::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(drain.wait(at(0), 100), SPACE_RETRY);
        drain.begin(at(0), 1000);
        drain.end(at(10), true);
        assert_eq!(drain.wait(at(10), 400), Duration::from_secs(4));
        drain.begin(at(20), 800);
        assert_eq!(drain.wait(at(23), 400), Duration::from_secs(5));
        assert_eq!(drain.wait(at(60), 400), *RETRY.start());
        // One that failed freed nothing and tells nothing.
        drain.end(at(61), false);
        assert_eq!(drain.wait(at(70), 100), Duration::from_secs(1));
        assert_eq!(drain.wait(at(70), 1_000_000), *RETRY.end());
    }
}
