//! Batches on their way to the monitor.

use std::collections::VecDeque;
use std::time::Instant;

use lacuna_signal::Batch;
use parking_lot::{Condvar, Mutex};

/// Batches of about so many bytes of OTLP may wait at most, with enough memory.
const MOST: usize = 64 << 20;
/// So many may always.
const LEAST: usize = 4 << 20;

#[derive(Default)]
struct Waiting {
    batches: VecDeque<(Batch, usize)>,
    bytes: usize,
    /// Batches ever put in, and taken out.
    pushed: u64,
    popped: u64,
    open: bool,
    /// Once closed, a position in the store before which everything was put in.
    closed: Option<u64>,
}

impl Waiting {
    fn takes(&self) -> bool {
        self.open && self.closed.is_none()
    }
}

/// A queue bounded by bytes.
pub struct Queue {
    /// Batches of about so many bytes of OTLP may wait. When the monitor falls behind by more,
    /// acknowledgements wait too.
    limit: usize,
    waiting: Mutex<Waiting>,
    filled: Condvar,
    emptied: Condvar,
}

/// What came out of the queue.
pub enum Popped {
    /// A batch.
    Batch(Batch),
    /// Nothing in time.
    Nothing,
    /// It is closed, and empty.
    Closed,
}

impl Queue {
    /// A queue for a process that may have `memory` bytes: a sixteenth of them, within reason.
    pub fn within(memory: Option<u64>) -> Self {
        let limit = memory.and_then(|bytes| usize::try_from(bytes / 16).ok()).unwrap_or(MOST);
        Self {
            limit: limit.clamp(LEAST, MOST),
            waiting: Mutex::default(),
            filled: Condvar::default(),
            emptied: Condvar::default(),
        }
    }

    /// Puts in a batch of `bytes` of OTLP, when there is room. While the queue is not open, and
    /// after it was closed, the batch is let go: it is durable, and will be read from the store.
    pub fn push(&self, batch: Batch, bytes: usize) {
        let mut waiting = self.waiting.lock();
        while waiting.takes() && waiting.bytes > 0 && waiting.bytes + bytes > self.limit {
            self.emptied.wait(&mut waiting);
        }
        if waiting.takes() {
            waiting.bytes += bytes;
            waiting.pushed += 1;
            waiting.batches.push_back((batch, bytes));
            self.filled.notify_one();
        }
    }

    /// The next batch, waiting for it until `deadline`.
    pub fn pop(&self, deadline: Instant) -> Popped {
        let mut waiting = self.waiting.lock();
        loop {
            if let Some((batch, bytes)) = waiting.batches.pop_front() {
                waiting.bytes -= bytes;
                waiting.popped += 1;
                self.emptied.notify_one();
                return Popped::Batch(batch);
            }
            if waiting.closed.is_some() {
                return Popped::Closed;
            }
            if self.filled.wait_until(&mut waiting, deadline).timed_out() {
                return Popped::Nothing;
            }
        }
    }

    /// Takes batches from now on.
    pub fn open(&self) {
        self.waiting.lock().open = true;
    }

    /// Takes no batches any more; those that wait still come out. All that lies in the store before
    /// `position` has been put in.
    pub fn close(&self, position: u64) {
        self.waiting.lock().closed = Some(position);
        self.filled.notify_all();
        self.emptied.notify_all();
    }

    /// Lets go of what waits, and of whatever comes: nobody takes it any more. It is durable.
    pub fn abandon(&self) {
        let mut waiting = self.waiting.lock();
        waiting.closed.get_or_insert(0);
        waiting.batches.clear();
        waiting.bytes = 0;
        self.filled.notify_all();
        self.emptied.notify_all();
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.closed_at().is_some()
    }

    /// The position at which it was closed.
    pub fn closed_at(&self) -> Option<u64> {
        self.waiting.lock().closed
    }

    /// Bytes of OTLP that wait.
    pub fn bytes(&self) -> usize {
        self.waiting.lock().bytes
    }

    /// How many batches were put in so far.
    pub fn pushed(&self) -> u64 {
        self.waiting.lock().pushed
    }

    /// How many batches were taken out so far.
    pub fn popped(&self) -> u64 {
        self.waiting.lock().popped
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use lacuna_signal::SignalKind;

    use super::*;

    fn batch() -> Batch {
        lacuna_signal::otlp::decode(SignalKind::Spans, bytes::Bytes::new()).unwrap().batch
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(1)
    }

    #[test]
    fn takes_batches_only_while_open_and_gives_them_all_after_the_close() {
        let queue = Queue::within(None);
        queue.push(batch(), 10);
        assert!(matches!(queue.pop(soon()), Popped::Nothing));
        queue.open();
        queue.push(batch(), 10);
        queue.close(1);
        queue.push(batch(), 10);
        assert_eq!((queue.bytes(), queue.pushed()), (10, 1));
        assert!(matches!(queue.pop(soon()), Popped::Batch(_)));
        assert!(matches!(queue.pop(soon()), Popped::Closed));
    }

    #[test]
    fn a_full_queue_holds_back_until_there_is_room_or_it_is_closed() {
        let queue = Arc::new(Queue::within(Some(64 << 20)));
        queue.open();
        queue.push(batch(), LEAST);
        let (other, waiting) = (Arc::clone(&queue), Arc::clone(&queue));
        let pushing = std::thread::spawn(move || other.push(batch(), LEAST));
        assert!(matches!(waiting.pop(soon()), Popped::Batch(_)));
        pushing.join().unwrap();
        assert_eq!(queue.pushed(), 2);
        let other = Arc::clone(&queue);
        let pushing = std::thread::spawn(move || other.push(batch(), LEAST));
        queue.close(1);
        pushing.join().unwrap();
        // What was let go of is not in the queue.
        assert_eq!((queue.bytes(), queue.pushed()), (LEAST, 2));
    }
}
