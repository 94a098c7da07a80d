//! Writing down what the monitor knows, now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lacuna_contract::Monitor;
use lacuna_store::Store;
use parking_lot::Mutex;

use super::queue::Queue;
use crate::statefile::StateFile;

/// Checkpoints take at most this share of the time: one part in so many.
const SHARE: u32 = 20;

/// What is told of checkpoints.
#[derive(Debug, Default)]
pub struct Counts {
    /// Checkpoints written.
    pub written: AtomicU64,
    /// Checkpoints that could not be written.
    pub failed: AtomicU64,
    /// Bytes of the last.
    pub bytes: AtomicU64,
    /// How long the last took, microseconds.
    pub micros: AtomicU64,
}

/// A point in the stream of batches.
#[derive(Clone, Copy)]
struct Mark {
    /// Where in the store.
    position: u64,
    /// All that lies before it is among so many batches.
    pushed: u64,
}

/// When the next checkpoint is due, and writing it.
pub struct Checkpointer {
    file: StateFile,
    every: Duration,
    next: Instant,
    mark: Option<Mark>,
    writing: Option<JoinHandle<Duration>>,
    counts: Arc<Counts>,
}

impl Checkpointer {
    pub fn new(file: StateFile, every: Duration, counts: Arc<Counts>) -> Self {
        let next = Instant::now() + every;
        Self { file, every, next, mark: None, writing: None, counts }
    }

    /// Writes a checkpoint if one is due and the monitor has seen what it is to cover. `changed`
    /// says that there is anything new to write.
    pub fn run(
        &mut self,
        changed: &mut bool,
        store: &Store,
        queue: &Queue,
        monitor: &Mutex<Monitor>,
    ) {
        if let Some(writing) = self.writing.take_if(|writing| writing.is_finished()) {
            let took = writing.join().unwrap_or_default();
            self.next = Instant::now() + self.every.max(took * SHARE);
        }
        if self.mark.is_none() && self.writing.is_none() && *changed && Instant::now() >= self.next
        {
            // In this order: what lies before the position has been put into the queue.
            let position = store.position();
            self.mark = Some(Mark { position, pushed: queue.pushed() });
        }
        if let Some(mark) = self.mark.take_if(|mark| queue.popped() >= mark.pushed) {
            *changed = false;
            let (file, counts) = (self.file.clone(), Arc::clone(&self.counts));
            let start = Instant::now();
            let body = encode(mark.position, monitor);
            let write = move || {
                write(&file, &body, &counts, start);
                start.elapsed()
            };
            match std::thread::Builder::new().name("checkpoint".to_owned()).spawn(write) {
                Ok(writing) => self.writing = Some(writing),
                Err(error) => tracing::error!(%error, "cannot start a thread for the checkpoint"),
            }
        }
    }

    /// Writes a last checkpoint, which covers everything before `position`.
    pub fn finish(mut self, position: u64, monitor: &Mutex<Monitor>) {
        if let Some(writing) = self.writing.take() {
            let _ = writing.join();
        }
        write(&self.file, &encode(position, monitor), &self.counts, Instant::now());
    }
}

fn encode(position: u64, monitor: &Mutex<Monitor>) -> Vec<u8> {
    let mut body = position.to_le_bytes().to_vec();
    body.extend(monitor.lock().checkpoint());
    body
}

fn write(file: &StateFile, body: &[u8], counts: &Counts, start: Instant) {
    match file.save(body) {
        Ok(()) => {
            counts.written.fetch_add(1, Ordering::Relaxed);
            counts.bytes.store(body.len() as u64, Ordering::Relaxed);
            let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
            counts.micros.store(micros, Ordering::Relaxed);
        }
        Err(error) => {
            counts.failed.fetch_add(1, Ordering::Relaxed);
            tracing::error!("{}: cannot be written: {error}", file.path().display());
        }
    }
}
