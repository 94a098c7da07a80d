//! The contract monitor while the server runs.
//!
//! One thread owns the order of events: batches come to it as they become durable, and in between
//! it lets the clock move deadlines and looks for changed contract files. On start it first reads
//! the stored history again, so that a restart loses no obligation.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use lacuna_contract::{ContractSet, Monitor, Options};
use lacuna_signal::{Batch, SignalKind};
use lacuna_store::{Store, StoreError, TimeRange};
use parking_lot::{Mutex, MutexGuard};

use crate::config::Config;
use crate::ingest::Observer;
use crate::telemetry::SharedTelemetry;

/// Batches that may wait for the monitor. When it falls behind by more, acknowledgements wait too.
const QUEUE: usize = 256;

/// How often the clock moves deadlines when nothing arrives.
const TICK: Duration = Duration::from_millis(200);

/// History is read again in windows of this length, so that spans and logs reach the monitor
/// nearly in the order of their times.
const REPLAY_WINDOW: Duration = Duration::from_secs(10);

enum Work {
    Batch(Batch),
    Stop,
}

/// The live monitor.
pub struct Live {
    monitor: Arc<Mutex<Monitor>>,
    work: SyncSender<Work>,
    thread: Mutex<Option<JoinHandle<()>>>,
    reload_error: Arc<Mutex<Option<String>>>,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").finish_non_exhaustive()
    }
}

impl Live {
    /// Replays history and starts the monitor's thread.
    pub fn start(
        config: &Config,
        contracts: &ContractSet,
        store: &Store,
        telemetry: &SharedTelemetry,
    ) -> std::io::Result<Arc<Self>> {
        let options =
            Options { lateness: config.lateness, idle: config.idle, ..Options::default() };
        let past = Past { options, store: store.clone(), length: config.replay };
        let monitor = past.monitor(contracts);
        telemetry.set_ready(true);

        let monitor = Arc::new(Mutex::new(monitor));
        let reload_error = Arc::new(Mutex::new(None));
        let (work, incoming) = sync_channel(QUEUE);
        let loop_ = Loop {
            monitor: Arc::clone(&monitor),
            past,
            incoming,
            reload: config.contracts_dir.clone().map(|dir| Reload {
                seen: fingerprint(&dir),
                dir,
                every: config.reload_every,
                next: Instant::now() + config.reload_every,
            }),
            reload_error: Arc::clone(&reload_error),
        };
        let thread = std::thread::Builder::new()
            .name("contract-monitor".to_owned())
            .spawn(move || loop_.run())?;
        Ok(Arc::new(Self { monitor, work, thread: Mutex::new(Some(thread)), reload_error }))
    }

    /// The monitor, locked: keep it only for as long as it takes to copy what is needed.
    pub fn monitor(&self) -> MutexGuard<'_, Monitor> {
        self.monitor.lock()
    }

    /// Why the contract files as they are now are not in use; `None` if they are.
    pub fn reload_error(&self) -> Option<String> {
        self.reload_error.lock().clone()
    }

    /// Ends the monitor's thread after what has been handed to it.
    pub fn stop(&self) {
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            // An error means that the thread has ended already.
            let _ = self.work.send(Work::Stop);
            let _ = thread.join();
        }
    }
}

impl Observer for Live {
    fn observe(&self, batch: Batch) {
        // After the stop there is nobody to tell; the batch is durable and will be replayed.
        let _ = self.work.send(Work::Batch(batch));
    }
}

struct Loop {
    monitor: Arc<Mutex<Monitor>>,
    past: Past,
    incoming: Receiver<Work>,
    reload: Option<Reload>,
    reload_error: Arc<Mutex<Option<String>>>,
}

impl Loop {
    fn run(mut self) {
        let mut next_tick = Instant::now() + TICK;
        loop {
            let wait = next_tick.saturating_duration_since(Instant::now());
            match self.incoming.recv_timeout(wait) {
                Ok(Work::Batch(batch)) => self.monitor.lock().observe(&batch),
                Ok(Work::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if Instant::now() >= next_tick {
                self.monitor.lock().advance_wall_clock(Timestamp::now());
                self.look_for_changes();
                next_tick = Instant::now() + TICK;
            }
        }
    }

    fn look_for_changes(&mut self) {
        let Some(reload) = self.reload.as_mut().filter(|reload| Instant::now() >= reload.next)
        else {
            return;
        };
        reload.next = Instant::now() + reload.every;
        let found = fingerprint(&reload.dir);
        if found == reload.seen {
            return;
        }
        reload.seen = found;
        match ContractSet::load_dir(&reload.dir) {
            Ok(contracts) => {
                self.take(&contracts);
                tracing::info!(contracts = contracts.len(), "contracts reloaded");
                *self.reload_error.lock() = None;
            }
            Err(errors) => {
                let text = errors.to_string();
                tracing::error!("contracts not reloaded, the last good ones stay:\n{text}");
                *self.reload_error.lock() = Some(text);
            }
        }
    }
}

impl Loop {
    /// Goes on with other contracts. Unchanged ones keep what they know; a new or changed one is
    /// told the past first, as on start, so that an edit does not make findings disappear.
    fn take(&self, contracts: &ContractSet) {
        let mut monitor = self.monitor.lock();
        let known: Vec<_> = monitor.contracts().cloned().collect();
        if contracts.contracts().iter().all(|contract| known.contains(contract)) {
            return monitor.reload(contracts);
        }
        drop(monitor);
        // What arrives while history is read waits in the queue; it is in the history too, which
        // changes no verdict.
        let fresh = self.past.monitor(contracts);
        *self.monitor.lock() = fresh;
    }
}

/// How a monitor is made that knows the past.
struct Past {
    options: Options,
    store: Store,
    length: Duration,
}

impl Past {
    fn monitor(&self, contracts: &ContractSet) -> Monitor {
        let mut monitor = Monitor::new(contracts, self.options.clone());
        // Without contracts there is nothing to find in history, and a day of it takes long to read.
        if !contracts.is_empty()
            && let Err(error) = replay(&mut monitor, &self.store, self.length)
        {
            tracing::error!(%error, "stored history could not be read again in full");
        }
        monitor
    }
}

struct Reload {
    dir: PathBuf,
    seen: Vec<(PathBuf, Option<SystemTime>, u64)>,
    every: Duration,
    next: Instant,
}

/// What tells that a folder's files have changed: names, times and sizes.
fn fingerprint(dir: &std::path::Path) -> Vec<(PathBuf, Option<SystemTime>, u64)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .filter_map(|entry| {
            let meta = entry.metadata().ok().filter(std::fs::Metadata::is_file)?;
            Some((entry.path(), meta.modified().ok(), meta.len()))
        })
        .collect();
    files.sort();
    files
}

fn now() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// Shows `monitor` the last `length` of history, spans and logs side by side.
fn replay(monitor: &mut Monitor, store: &Store, length: Duration) -> Result<(), StoreError> {
    let length = i64::try_from(length.as_nanos()).unwrap_or(i64::MAX);
    let end = now().saturating_add(1);
    let oldest = store.stats().kinds.iter().filter_map(|kind| Some(kind.bounds?.min)).min();
    let Some(oldest) = oldest else { return Ok(()) };
    let window = REPLAY_WINDOW.as_nanos() as i64;
    let mut start = end.saturating_sub(length).max(oldest);
    while start < end {
        let range = TimeRange::new(start, start.saturating_add(window).min(end));
        for kind in [SignalKind::Spans, SignalKind::Logs] {
            for batch in store.scan(kind, None, range, None, usize::MAX)? {
                monitor.observe(&batch?);
            }
        }
        start = range.end;
    }
    Ok(())
}
