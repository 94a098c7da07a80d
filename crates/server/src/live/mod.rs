//! The contract monitor while the server runs.
//!
//! One thread owns the order of events: batches come to it as they become durable, and in between
//! it lets the clock move deadlines, looks for changed contract files, says what was found, and
//! writes down what it knows. On start it goes on from where the last process had written down that
//! it was, so that a restart loses no obligation; the ports answer meanwhile.

mod checkpoint;
mod past;
mod queue;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use lacuna_contract::{ContractSet, LoadErrors, Monitor, Options};
use lacuna_signal::Batch;
use lacuna_signal::finding::{Acknowledgement, Finding};
use lacuna_store::Store;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use crate::config::Config;
use crate::desk::Desk;
use crate::ingest::Observer;
use crate::telemetry::SharedTelemetry;
use checkpoint::Checkpointer;
use past::Past;
use queue::{Popped, Queue};

/// How often the clock moves deadlines when nothing arrives, and findings are told.
const TICK: Duration = Duration::from_millis(200);
/// Telling what was found takes at most this share of the time: one part in so many.
const SHARE: u32 = 10;

/// How reading changed contract files went.
#[derive(Debug, Clone, Default)]
pub struct Reloads {
    /// Why the files as they are now are not in use; `None` if they are.
    pub error: Option<String>,
    /// How often changed files were taken into use.
    pub done: u64,
    /// How often they could not be.
    pub failed: u64,
}

/// The live monitor.
pub struct Live {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    monitor: Mutex<Monitor>,
    queue: Queue,
    desk: Desk,
    store: Store,
    reloads: Mutex<Reloads>,
    checkpoints: Arc<checkpoint::Counts>,
    ready: watch::Sender<bool>,
    /// Whether there is a folder of contracts.
    watches: bool,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").finish_non_exhaustive()
    }
}

impl Live {
    /// Starts the monitor's thread, which first learns what it has to know of the past.
    pub fn start(
        config: &Config,
        contracts: ContractSet,
        store: &Store,
        telemetry: &SharedTelemetry,
    ) -> std::io::Result<Arc<Self>> {
        let options = Options {
            lateness: config.lateness,
            idle: config.idle,
            max_open: config.max_open,
            resolve_after: config.resolve_after,
            ..Options::default()
        };
        let file = past::checkpoint_file(&config.data_dir);
        let shared = Arc::new(Shared {
            monitor: Mutex::new(Monitor::new(&contracts, options.clone())),
            queue: Queue::within(config.memory_limit),
            desk: Desk::open(&config.data_dir, &config.channels()),
            store: store.clone(),
            reloads: Mutex::default(),
            checkpoints: Arc::default(),
            ready: watch::Sender::new(false),
            watches: config.contracts_dir.is_some(),
        });
        let counts = Arc::clone(&shared.checkpoints);
        let loop_ = Loop {
            past: Past { options, store: store.clone(), length: config.replay, file: file.clone() },
            reload: config.contracts_dir.clone().map(|dir| Reload {
                seen: fingerprint(&dir),
                dir,
                every: config.reload_every,
                retention: config.retention_age,
                next: Instant::now() + config.reload_every,
            }),
            checkpointer: Checkpointer::new(file, config.checkpoint_every, counts),
            changed: true,
            reading: None,
            next_told: Instant::now(),
            telemetry: Arc::clone(telemetry),
            shared: Arc::clone(&shared),
        };
        let thread = std::thread::Builder::new()
            .name("contract-monitor".to_owned())
            .spawn(move || loop_.run(&contracts))?;
        Ok(Arc::new(Self { shared, thread: Mutex::new(Some(thread)) }))
    }

    /// The monitor, locked: keep it only for as long as it takes to copy what is needed. Until
    /// [`Self::is_ready`] it knows nothing.
    pub fn monitor(&self) -> MutexGuard<'_, Monitor> {
        self.shared.monitor.lock()
    }

    /// Where findings are kept and told on.
    pub fn desk(&self) -> &Desk {
        &self.shared.desk
    }

    /// All findings as of now, with who has taken them on; before the monitor is ready, and without
    /// contracts to watch, as they were when the last process ended.
    pub fn findings(&self) -> Vec<Finding> {
        let current = self.is_current();
        let findings = if current { self.monitor().findings() } else { Vec::new() };
        self.desk().book().complete(findings, current)
    }

    /// The finding with this fingerprint.
    pub fn finding(&self, fingerprint: &str) -> Option<Finding> {
        let current = self.is_current();
        let found = if current { self.monitor().finding(fingerprint) } else { None };
        let findings = self.desk().book().complete(found.into_iter().collect(), current);
        findings.into_iter().find(|finding| finding.fingerprint == fingerprint)
    }

    /// Sets or takes back who has taken a finding on; `None` if it is not known or not open.
    pub fn acknowledge(&self, fingerprint: &str, by: Option<Acknowledgement>) -> Option<Finding> {
        if self.is_current() {
            // It may have been found a moment ago.
            self.shared.tell();
        }
        self.desk().acknowledge(fingerprint, by)
    }

    /// Whether the monitor says what holds now. It does not before it is ready, and never if there
    /// are no contracts to watch.
    fn is_current(&self) -> bool {
        self.shared.watches && self.is_ready()
    }

    /// Whether the monitor knows all that it has to know of the past.
    pub fn is_ready(&self) -> bool {
        *self.shared.ready.borrow()
    }

    /// Returns when [`Self::is_ready`].
    pub async fn ready(&self) {
        // An error means that the monitor is gone, which nobody has to wait for.
        let _ = self.shared.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// How reading changed contract files went.
    pub fn reloads(&self) -> Reloads {
        self.shared.reloads.lock().clone()
    }

    /// Bytes of OTLP that wait for the monitor.
    pub fn queue_bytes(&self) -> usize {
        self.shared.queue.bytes()
    }

    /// What is told of checkpoints.
    pub(crate) fn checkpoints(&self) -> &checkpoint::Counts {
        &self.shared.checkpoints
    }

    /// Ends the monitor's thread after what has been handed to it, and writes down what it knows.
    pub fn stop(&self) {
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            self.shared.queue.close(self.shared.store.position());
            // An error means that the thread has panicked; the next start reads history.
            let _ = thread.join();
        }
    }
}

impl Observer for Live {
    fn observe(&self, batch: Batch, bytes: usize) {
        self.shared.queue.push(batch, bytes);
    }
}

impl Shared {
    /// Brings the book up to date.
    fn tell(&self) {
        let (findings, watermark) = {
            let mut monitor = self.monitor.lock();
            (monitor.review(), monitor.watermark())
        };
        self.desk.update(findings, watermark);
    }

    /// Lets `monitor` go on with what the book has of contracts that it has not spoken of yet.
    fn resume(&self, monitor: &mut Monitor) {
        for (fingerprint, entry) in self.desk.book().entries() {
            monitor.resume(fingerprint, &entry.episode());
        }
    }
}

struct Loop {
    shared: Arc<Shared>,
    past: Past,
    reload: Option<Reload>,
    checkpointer: Checkpointer,
    /// Whether there is anything new to write down.
    changed: bool,
    /// Contracts that are not in use yet, since some of them are still being shown history.
    reading: Option<Reading>,
    next_told: Instant,
    telemetry: SharedTelemetry,
}

impl Loop {
    fn run(mut self, contracts: &ContractSet) {
        let queue = &self.shared.queue;
        if self.reload.is_none() {
            // Without contracts there is nothing to watch. What a process with contracts has
            // written down stays for the next one, and its findings are not taken for resolved.
            self.shared.ready.send_replace(true);
            return self.telemetry.set_ready(true);
        }
        let mut monitor = self.past.on_start(contracts, queue);
        if queue.is_closed() {
            // What it knows is not whole: what the last process wrote down stays.
            return;
        }
        if let Some(watermark) = self.shared.desk.book().watermark() {
            // What somebody has been told was settled must not be open again.
            monitor.settle_up_to(watermark);
        }
        self.shared.resume(&mut monitor);
        *self.shared.monitor.lock() = monitor;
        self.shared.tell();
        self.telemetry.set_ready(true);
        self.shared.ready.send_replace(true);
        let mut next_tick = Instant::now() + TICK;
        loop {
            match self.shared.queue.pop(next_tick) {
                Popped::Batch(batch) => {
                    self.shared.monitor.lock().observe(&batch);
                    self.changed = true;
                }
                Popped::Closed => break,
                Popped::Nothing => {}
            }
            if Instant::now() >= next_tick {
                self.tick();
                next_tick = Instant::now() + TICK;
            }
            let (store, queue) = (&self.shared.store, &self.shared.queue);
            self.checkpointer.run(&mut self.changed, store, queue, &self.shared.monitor);
        }
        self.shared.tell();
        if let Some(position) = self.shared.queue.closed_at() {
            self.checkpointer.finish(position, &self.shared.monitor);
        }
    }

    fn tick(&mut self) {
        let start = Instant::now();
        {
            let mut monitor = self.shared.monitor.lock();
            monitor.advance_wall_clock(Timestamp::now());
            self.changed |= monitor.take_changed();
        }
        if start >= self.next_told {
            self.shared.tell();
            self.next_told = Instant::now() + start.elapsed() * SHARE;
        }
        self.look_for_changes();
    }

    fn look_for_changes(&mut self) {
        if let Some(reading) = self.reading.take_if(|reading| reading.thread.is_finished()) {
            self.take_into_use(reading);
        }
        let Some(reload) = self.reload.as_mut().filter(|reload| Instant::now() >= reload.next)
        else {
            return;
        };
        reload.next = Instant::now() + reload.every;
        if self.reading.is_some() {
            return;
        }
        let found = fingerprint(&reload.dir);
        if found == reload.seen {
            return;
        }
        reload.seen = found;
        match reload.load() {
            Ok(contracts) => self.reload(contracts),
            Err(errors) => self.not_reloaded(errors.to_string()),
        }
    }

    /// Takes other contracts into use. Of what is new among them history is read on the side, so that
    /// the deadlines of the others do not stand still meanwhile.
    fn reload(&mut self, contracts: ContractSet) {
        let lacking = self.shared.monitor.lock().lacking(&contracts);
        if lacking.is_empty() {
            self.shared.monitor.lock().reload(&contracts);
            return self.reloaded(contracts.len());
        }
        tracing::info!(contracts = lacking.len(), "reading history for new and changed contracts");
        let (past, shared) = (self.past.clone(), Arc::clone(&self.shared));
        let read = move || past.before_reload(&lacking, &shared.queue);
        match std::thread::Builder::new().name("contract-history".to_owned()).spawn(read) {
            Ok(thread) => self.reading = Some(Reading { contracts, thread }),
            Err(error) => self.not_reloaded(format!("cannot start a thread: {error}")),
        }
    }

    fn take_into_use(&mut self, Reading { contracts, thread }: Reading) {
        let Ok(fresh) = thread.join() else {
            return self.not_reloaded("reading history for them has panicked".to_owned());
        };
        let (monitor, queue) = (&self.shared.monitor, &self.shared.queue);
        // After the stop the next start reads history for what is not in use.
        if self.past.on_reload(monitor, &contracts, fresh, queue) {
            self.reloaded(contracts.len());
        }
    }

    fn reloaded(&mut self, contracts: usize) {
        self.shared.resume(&mut self.shared.monitor.lock());
        self.changed = true;
        tracing::info!(contracts, "contracts reloaded");
        let mut reloads = self.shared.reloads.lock();
        *reloads = Reloads { error: None, done: reloads.done + 1, ..*reloads };
    }

    fn not_reloaded(&self, text: String) {
        tracing::error!("contracts not reloaded, the last good ones stay:\n{text}");
        let mut reloads = self.shared.reloads.lock();
        *reloads = Reloads { error: Some(text), failed: reloads.failed + 1, ..*reloads };
    }
}

/// Contracts that are about to be taken into use.
struct Reading {
    contracts: ContractSet,
    /// Shows history to a monitor of those that are new.
    thread: JoinHandle<(Monitor, u64)>,
}

struct Reload {
    dir: PathBuf,
    seen: Vec<Seen>,
    every: Duration,
    /// How long the store keeps data, if not for ever.
    retention: Option<Duration>,
    next: Instant,
}

impl Reload {
    fn load(&self) -> Result<ContractSet, LoadErrors> {
        let contracts = ContractSet::load_dir(&self.dir)?;
        let errors = self.retention.map_or(Vec::new(), |age| contracts.beyond_retention(age));
        if errors.is_empty() { Ok(contracts) } else { Err(LoadErrors { errors }) }
    }
}

/// What tells that a file has changed: its name, where it lies, its time and size.
type Seen = (PathBuf, Option<PathBuf>, Option<SystemTime>, u64);

/// What tells that a folder's files have changed. Links are followed: of what Kubernetes mounts,
/// the files are links through a link that is swapped.
fn fingerprint(dir: &std::path::Path) -> Vec<Seen> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .filter_map(|entry| {
            let path = entry.path();
            let meta = std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_file)?;
            let target = std::fs::canonicalize(&path).ok();
            Some((path, target, meta.modified().ok(), meta.len()))
        })
        .collect();
    files.sort();
    files
}
