//! The contract monitor while the server runs.
//!
//! One thread owns the order of events: batches come to it as they become durable, and in between
//! it lets the clock move deadlines, looks for changed contract files, says what was found, and
//! writes down what it knows. On start it goes on from where the last process had written down that
//! it was, so that a restart loses no obligation; the ports answer meanwhile.

mod checkpoint;
mod past;
mod queue;
mod reload;
mod run;

use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use lacuna_contract::{ContractSet, Monitor, Options};
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
use queue::Queue;
use reload::Reload;
use run::Loop;

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
    /// Why the monitor's thread has ended before it was to.
    failure: OnceLock<String>,
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
        let file = past::checkpoint_file(&config.data_dir);
        let shared = Arc::new(Shared::new(config, &contracts, store));
        let options = options(config);
        let past =
            Past { options, store: store.clone(), length: config.replay, file: file.clone() };
        let reload = config.contracts_dir.clone().map(|dir| Reload::new(dir, config));
        let counts = Arc::clone(&shared.checkpoints);
        let checkpointer = Checkpointer::new(file, config.checkpoint_every, counts);
        let loop_ = Loop::new(Arc::clone(&shared), past, reload, checkpointer, telemetry);
        let (watched, telemetry) = (Arc::clone(&shared), Arc::clone(telemetry));
        let thread = std::thread::Builder::new()
            .name("contract-monitor".to_owned())
            .spawn(move || run::supervise(&watched, &telemetry, || loop_.run(&contracts)))?;
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

    /// Whether the monitor knows all that it has to know of the past, and watches.
    pub fn is_ready(&self) -> bool {
        *self.shared.ready.borrow() && self.failure().is_none()
    }

    /// Why contracts are not watched any more, if the monitor's thread has broken down. Telemetry is
    /// taken as before, and findings are as they were.
    pub fn failure(&self) -> Option<&str> {
        self.shared.failure.get().map(String::as_str)
    }

    /// Returns when [`Self::is_ready`], or when it never will be.
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
            // Of what went wrong in it has been told.
            let _ = thread.join();
        }
    }
}

impl Observer for Live {
    fn observe(&self, batch: Batch, bytes: usize) {
        self.shared.queue.push(batch, bytes);
    }
}

fn options(config: &Config) -> Options {
    Options {
        lateness: config.lateness,
        idle: config.idle,
        max_open: config.max_open,
        resolve_after: config.resolve_after,
        ..Options::default()
    }
}

impl Shared {
    fn new(config: &Config, contracts: &ContractSet, store: &Store) -> Self {
        Self {
            monitor: Mutex::new(Monitor::new(contracts, options(config))),
            queue: Queue::within(config.memory_limit),
            desk: Desk::open(&config.data_dir, &config.channels()),
            store: store.clone(),
            reloads: Mutex::default(),
            checkpoints: Arc::default(),
            ready: watch::Sender::new(false),
            failure: OnceLock::new(),
            watches: config.contracts_dir.is_some(),
        }
    }

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
