//! The write path: a queue, and one thread that commits what is in it in groups.
//!
//! While one group is synced the next one gathers, so the disk's latency bounds the delay of a
//! write and not the throughput.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lacuna_signal::{Batch, SignalKind};
use parking_lot::{Condvar, Mutex};

use crate::admit::{Admission, SPACE_RETRY};
use crate::chunk::Chunk;
use crate::counters::add;
use crate::error::{BusyReason, StoreError};
use crate::store::Shared;
use crate::wal::writer::{Body, Compressors, Writer};

/// A group takes at most this many bytes: more would only delay its first writers.
const GROUP_BYTES: usize = 32 << 20;
/// The disk's free space is asked for at most this often.
const SPACE_CHECK_EVERY: Duration = Duration::from_millis(200);
/// When a full queue has a chance to have room again.
const QUEUE_RETRY: Duration = Duration::from_millis(100);

/// Called once with a write's outcome.
type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// Called once after a freeze was tried: whether nothing is left that is not frozen.
type Frozen = Box<dyn FnOnce(bool) + Send>;

struct Pending {
    body: Body,
    raw_bytes: usize,
    chunk: Option<Chunk>,
    kind: SignalKind,
    done: Done,
    /// Ends when the rows count as rows in memory.
    _admission: Admission,
}

/// What the committer has to do next.
struct Group {
    writes: Vec<Pending>,
    freeze: bool,
    frozen: Vec<Frozen>,
    closing: bool,
}

#[derive(Default)]
struct Waiting {
    writes: VecDeque<Pending>,
    bytes: usize,
    freeze: bool,
    /// Called when the next freeze was tried.
    frozen: Vec<Frozen>,
    closing: bool,
    /// The committer has ended.
    ended: bool,
}

/// Writes that wait for the committer.
#[derive(Default)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    ready: Condvar,
    compressors: Compressors,
}

impl Queue {
    /// Asks the committer to freeze what is in memory, so that it gets written to segments.
    pub fn request_freeze(&self) {
        self.waiting.lock().freeze = true;
        self.ready.notify_one();
    }

    /// As [`Self::request_freeze`]; calls `done` when it happened, or drops it if the store is
    /// closed.
    pub fn freeze_and(&self, done: Frozen) {
        let mut waiting = self.waiting.lock();
        if !waiting.ended {
            waiting.freeze = true;
            waiting.frozen.push(done);
            self.ready.notify_one();
        }
    }

    /// Lets the committer commit what waits, and end.
    pub fn close(&self) {
        self.waiting.lock().closing = true;
        self.ready.notify_one();
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.waiting.lock().bytes
    }
}

impl Shared {
    /// Queues a write; see [`Store::append`](crate::Store::append).
    pub(crate) fn append(
        &self,
        admission: Option<Admission>,
        kind: SignalKind,
        body: Bytes,
        batch: Batch,
        done: Done,
    ) {
        if let Err(error) = self.writable() {
            return done(Err(error));
        }
        let raw_bytes = body.len();
        let admission = match admission.map_or_else(|| self.admit(raw_bytes), Ok) {
            Ok(admission) => admission,
            Err(error) => return done(Err(error)),
        };
        // Compressing, checksumming and measuring happen here, on the writer's own thread.
        let body = Body::new(kind, body, self.options.wal_zstd_level, &self.queue.compressors);
        let chunk = Chunk::received(batch);
        let pending = Pending { body, raw_bytes, chunk, kind, done, _admission: admission };
        let mut waiting = self.queue.waiting.lock();
        let refused = if waiting.closing {
            Some(StoreError::Closed)
        } else if waiting.bytes > 0 && waiting.bytes + raw_bytes > self.options.queue_bytes {
            add(&self.meters.rejected_busy, 1);
            Some(StoreError::busy(BusyReason::Queue, QUEUE_RETRY))
        } else {
            None
        };
        if let Some(error) = refused {
            drop(waiting);
            return (pending.done)(Err(error));
        }
        waiting.bytes += raw_bytes;
        waiting.writes.push_back(pending);
        drop(waiting);
        self.queue.ready.notify_one();
    }

    /// The committer thread.
    pub(crate) fn commit_loop(self: Arc<Self>, mut writer: Writer) {
        let mut space = SpaceWatch::default();
        // Rows that were read back from the log age like any others.
        let replayed = self.active_bytes.load(Ordering::Relaxed);
        let mut oldest = (replayed > 0).then(Instant::now);
        if replayed >= self.flush_threshold() {
            self.queue.request_freeze();
        }
        loop {
            let Group { writes: group, freeze, frozen, closing } = self.next_group(oldest);
            if !group.is_empty() {
                self.commit(&mut writer, &mut space, group);
                oldest.get_or_insert_with(Instant::now);
            }
            let aged = oldest.is_some_and(|since| since.elapsed() >= self.options.flush_after);
            let full = self.active_bytes.load(Ordering::Relaxed) >= self.flush_threshold();
            if (freeze || aged || full) && self.freeze(&mut writer) {
                oldest = None;
            } else if aged {
                // Nothing to freeze, or the last flush still runs: look again later.
                oldest = Some(Instant::now());
            }
            if !frozen.is_empty() {
                let all = self.active_bytes.load(Ordering::Relaxed) == 0;
                frozen.into_iter().for_each(|done| done(all));
            }
            if closing {
                writer.rotate();
                let mut waiting = self.queue.waiting.lock();
                waiting.ended = true;
                waiting.frozen.clear();
                return;
            }
        }
    }

    fn next_group(&self, oldest: Option<Instant>) -> Group {
        let mut waiting = self.queue.waiting.lock();
        while waiting.writes.is_empty() && !waiting.freeze && !waiting.closing {
            match oldest {
                None => self.queue.ready.wait(&mut waiting),
                Some(since) => {
                    let deadline = since + self.options.flush_after;
                    if self.queue.ready.wait_until(&mut waiting, deadline).timed_out() {
                        break;
                    }
                }
            }
        }
        let (mut group, mut bytes) = (Vec::new(), 0);
        while let Some(next) = waiting.writes.front() {
            if !group.is_empty() && bytes + next.raw_bytes > GROUP_BYTES {
                break;
            }
            bytes += next.raw_bytes;
            group.extend(waiting.writes.pop_front());
        }
        waiting.bytes -= bytes;
        let closing = waiting.closing && waiting.writes.is_empty();
        let freeze = std::mem::take(&mut waiting.freeze);
        let frozen = std::mem::take(&mut waiting.frozen);
        Group { writes: group, freeze, frozen, closing }
    }

    fn commit(&self, writer: &mut Writer, space: &mut SpaceWatch, group: Vec<Pending>) {
        let bodies: Vec<&Body> = group.iter().map(|pending| &pending.body).collect();
        let result = space.check(self).and_then(|()| writer.append(&bodies));
        self.wal_bytes.store(writer.bytes(), Ordering::Relaxed);
        self.next_frame.store(writer.next(), Ordering::Release);
        if let Err(error) = result {
            let error = if error.is_disk_full() {
                add(&self.meters.rejected_busy, group.len() as u64);
                StoreError::busy(BusyReason::DiskFull, SPACE_RETRY)
            } else {
                add(&self.meters.write_failures, group.len() as u64);
                tracing::error!(%error, "cannot write to the log");
                error
            };
            group.into_iter().for_each(|pending| answer(pending.done, Err(error.clone())));
            return;
        }
        let mut answers = Vec::with_capacity(group.len());
        let frames = writer.next() - group.len() as u64..writer.next();
        let mut state = self.state.write();
        for (pending, frame) in group.into_iter().zip(frames) {
            add(&self.meters.requests, 1);
            add(&self.meters.request_bytes, pending.raw_bytes as u64);
            if let Some(chunk) = pending.chunk {
                let rows = chunk.num_rows() as u64;
                add(self.meters.rows_of(pending.kind), rows);
                self.memory_bytes.fetch_add(chunk.bytes(), Ordering::Relaxed);
                self.active_bytes.fetch_add(chunk.bytes(), Ordering::Relaxed);
                state.table_mut(pending.kind).active.push(Arc::new(chunk.logged(frame..frame + 1)));
            }
            answers.push(pending.done);
        }
        drop(state);
        answers.into_iter().for_each(|done| answer(done, Ok(())));
        self.answered.store(writer.next(), Ordering::Release);
        self.tidy.wake();
    }

    /// When memory is written to segments. Never above half the budget, as rows are still in
    /// memory while they are written.
    fn flush_threshold(&self) -> usize {
        self.options.flush_bytes.min(self.options.memory_bytes / 2)
    }

    fn freeze(&self, writer: &mut Writer) -> bool {
        let frozen = self.state.write().freeze(writer.next());
        if frozen {
            self.active_bytes.store(0, Ordering::Relaxed);
            writer.rotate();
            self.flush.wake();
        }
        frozen
    }
}

/// Tells a writer. Its own panic must not end the committer, on which all others wait.
fn answer(done: Done, result: Result<(), StoreError>) {
    if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
        tracing::error!("a writer panicked when it was told the outcome");
    }
}

/// Asks the file system now and then whether it has room.
#[derive(Default)]
struct SpaceWatch {
    checked: Option<Instant>,
    full: bool,
}

impl SpaceWatch {
    fn check(&mut self, shared: &Shared) -> Result<(), StoreError> {
        if self.checked.is_none_or(|at| at.elapsed() >= SPACE_CHECK_EVERY) {
            self.checked = Some(Instant::now());
            // A file system that does not tell is taken to have room: the write itself will say.
            let free = shared.options.files.free_bytes(&shared.dir).unwrap_or(u64::MAX);
            self.full = free < shared.options.disk_reserve_bytes;
        }
        if self.full {
            return Err(StoreError::busy(BusyReason::DiskFull, SPACE_RETRY));
        }
        Ok(())
    }
}
