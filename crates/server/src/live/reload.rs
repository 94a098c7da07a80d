//! Contract files that change while the monitor runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use lacuna_contract::{ContractSet, LoadErrors, Monitor};

use super::Reloads;
use super::run::Loop;
use crate::config::Config;

impl Loop {
    /// Looks whether the files have changed, when it is time to.
    pub(super) fn look_for_changes(&mut self) {
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
pub(super) struct Reading {
    contracts: ContractSet,
    /// Shows history to a monitor of those that are new.
    thread: JoinHandle<(Monitor, u64)>,
}

/// The folder of contracts, and how it was when it was last looked at.
pub(super) struct Reload {
    dir: PathBuf,
    seen: Vec<Seen>,
    every: Duration,
    /// How long the store keeps data, if not for ever.
    retention: Option<Duration>,
    next: Instant,
}

impl Reload {
    pub(super) fn new(dir: PathBuf, config: &Config) -> Self {
        Self {
            seen: fingerprint(&dir),
            dir,
            every: config.reload_every,
            retention: config.retention_age,
            next: Instant::now() + config.reload_every,
        }
    }

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
