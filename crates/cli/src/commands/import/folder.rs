//! Importing into a data folder.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use lacuna_signal::SignalKind;
use lacuna_signal::otlp::file::ReadRequest;
use lacuna_signal::otlp::{self, Limits, MAX_BODY};
use lacuna_store::{BusyReason, Import, Options, Store, StoreError};
use miette::miette;

use super::stop::Stop;
use super::{Taken, Target, identity::identify};
use crate::Failure;
use crate::input::failed;

/// Requests that wait for the disk at most.
const MAX_WAITING: usize = 64;
/// How often it is written down how far the import is. A longer time costs a resumed import some
/// reading, and nothing else.
const NOTE_EVERY: Duration = Duration::from_secs(2);
/// While memory is full, this is how often to try again.
const RETRY: Duration = Duration::from_millis(20);

type Answer = (u64, Result<(), StoreError>);

/// A data folder that is imported into.
pub struct Folder {
    store: Store,
    answers: Receiver<Answer>,
    answer: Sender<Answer>,
    waiting: usize,
    /// Requests that were not stored, by number.
    lost: BTreeMap<u64, StoreError>,
    file: Option<InFile>,
    /// The request that the store will never take, and why.
    refused: Option<(u64, String)>,
    stop: Stop,
}

/// The file that is being imported.
struct InFile {
    /// How far it was when that was last written down.
    import: Import,
    /// Whether that is written down at all: standard input cannot be read again.
    noted: bool,
    at: Instant,
    /// Requests, of those to come, that are stored already.
    stored: u64,
    /// Numbers of others that are.
    beyond: Vec<u64>,
    /// Requests, by number, that were stored after one that was not.
    taken: Vec<u64>,
}

impl Folder {
    /// Opens the folder, made if it is not there.
    pub fn open(data: &Path, stop: Stop) -> Result<Self, Failure> {
        let mut options = Options::default();
        options.frame_bytes = MAX_BODY;
        let store = Store::open(data, options).map_err(failed)?;
        let (answer, answers) = channel();
        let (lost, refused) = (BTreeMap::new(), None);
        Ok(Self { store, answers, answer, waiting: 0, lost, file: None, refused, stop })
    }

    fn settle(&mut self, (number, result): Answer) {
        self.waiting -= 1;
        match result {
            Ok(()) => {
                if let (Some(file), false) = (&mut self.file, self.lost.is_empty()) {
                    file.taken.push(number);
                }
            }
            Err(error @ StoreError::TooLarge { .. }) => {
                self.refused = Some((number, error.to_string()));
            }
            Err(error) => {
                self.lost.insert(number, error);
            }
        }
    }

    /// Waits until at most `most` requests wait for the disk.
    fn wait(&mut self, most: usize) {
        while self.waiting > most {
            let Ok(answer) = self.answers.recv() else { return };
            self.settle(answer);
        }
        while let Ok(answer) = self.answers.try_recv() {
            self.settle(answer);
        }
    }

    /// Writes down that the first `passed` requests are done with.
    fn note(&mut self, passed: u64, running: bool) -> Result<(), Failure> {
        self.wait(0);
        let Some(file) = &mut self.file else { return Ok(()) };
        file.at = Instant::now();
        // What was lost is to be tried again, and nothing that came after it.
        let first_lost = self.lost.keys().next().copied();
        let passed = first_lost.map_or(passed, |lost| lost.min(passed));
        let mut beyond: Vec<u64> = file.beyond.iter().chain(&file.taken).copied().collect();
        beyond.retain(|number| *number >= passed);
        let mut import = file.import.clone();
        (import.requests, import.stored, import.beyond) = (passed, file.stored, beyond);
        if file.noted {
            self.store.save_import(&file.import, &import, running).map_err(failed)?;
        }
        file.import = import;
        Ok(())
    }

    /// The first loss, told.
    fn check(&self) -> Result<(), Failure> {
        match self.lost.values().next() {
            None => Ok(()),
            Some(error) => Err(miette!(
                help = "when that is mended, run it again: it goes on from there",
                "{error}"
            )),
        }
    }
}

impl Target for Folder {
    fn begin(&mut self, path: &Path, name: &str, again: bool) -> Result<u64, Failure> {
        let known = self.store.imports().map_err(failed)?;
        let identity = identify(path, name, &known)
            .map_err(|error| miette!("{name}: cannot be read: {error}"))?;
        let noted = identity.is_some();
        let (mut import, found) = identity.unwrap_or((Import::new(name, 0, 0), None));
        let before = found.filter(|_| !again);
        if let Some(before) = &before {
            import.requests = before.requests;
            import.stored = before.stored;
            import.beyond.clone_from(&before.beyond);
        }
        if noted {
            let place = before.as_ref().unwrap_or(&import);
            self.store.save_import(place, &import, true).map_err(failed)?;
        }
        let skip = import.requests;
        let (stored, beyond) = (import.stored, import.beyond.clone());
        let at = Instant::now();
        self.file = Some(InFile { import, noted, at, stored, beyond, taken: Vec::new() });
        Ok(skip)
    }

    fn take(&mut self, number: u64, request: ReadRequest) -> Result<Taken, Failure> {
        let ReadRequest { kind, mut body, mut decoded } = request;
        // A request without rows leaves no trace in the log, so it must not be counted there.
        if decoded.batch.num_rows() == 0 {
            return Ok(Taken::New(None));
        }
        if let Some(file) = &mut self.file {
            if file.beyond.contains(&number) {
                return Ok(Taken::Before);
            }
            if file.stored > 0 {
                file.stored -= 1;
                return Ok(Taken::Before);
            }
        }
        if kind == SignalKind::Logs && decoded.rejected.untimed > 0 {
            // Its records come now.
            let now = Timestamp::now().as_nanosecond();
            let now = i64::try_from(now).unwrap_or(0);
            (body, decoded) = otlp::receive(kind, body, &Limits::default(), now)
                .map_err(|error| miette!("{error}"))?;
        }
        self.wait(MAX_WAITING - 1);
        loop {
            self.check()?;
            let answer = self.answer.clone();
            self.waiting += 1;
            self.store.append(kind, body.clone(), decoded.batch.clone(), move |result| {
                // Nobody waits for it if the import was given up.
                let _ = answer.send((number, result));
            });
            self.wait(MAX_WAITING - 1);
            // Refused at once, so nothing came after it: to be tried again keeps the order.
            let full = |error: &StoreError| match error {
                StoreError::Busy { reason, .. } => {
                    matches!(reason, BusyReason::Queue | BusyReason::Memory)
                }
                _ => false,
            };
            if !self.lost.get(&number).is_some_and(full) {
                // The store says so at once.
                let refused = self.refused.take_if(|(refused, _)| *refused == number);
                return Ok(refused.map_or(Taken::New(None), |(_, why)| Taken::Refused(why)));
            }
            self.lost.remove(&number);
            self.wait(0);
            if !self.stop.sleep(RETRY) {
                return Ok(Taken::Stopped);
            }
        }
    }

    fn passed(&mut self, passed: u64) -> Result<(), Failure> {
        if self.file.as_ref().is_some_and(|file| file.at.elapsed() >= NOTE_EVERY) {
            self.note(passed, true)?;
        }
        self.check()
    }

    fn end(&mut self, passed: u64) -> Result<(), Failure> {
        self.note(passed, false)?;
        self.file = None;
        let checked = self.check();
        self.lost.clear();
        checked
    }

    fn close(&mut self) -> Result<(), Failure> {
        // So that the next start has nothing to read back.
        let flushed = self.store.flush().map_err(failed);
        self.store.close();
        flushed
    }
}

#[cfg(test)]
mod tests {
    use lacuna_signal::otlp::decode;
    use tokio::sync::watch;
    use tokio::task::{spawn_blocking, yield_now};

    use super::*;

    /// Regression: nobody looked whether an end was asked for while memory was full.
    #[tokio::test]
    async fn a_full_memory_does_not_keep_it_from_ending() {
        let dir = tempfile::tempdir().unwrap();
        let (ask, asked) = watch::channel(false);
        let mut folder = Folder::open(dir.path(), Stop::of(asked)).unwrap();
        let all = Options::default().memory_bytes;
        let full = (0..=all / MAX_BODY).map_while(|_| folder.store.admit(MAX_BODY).ok());
        let full: Vec<_> = full.collect();
        assert!(folder.store.admit(MAX_BODY).is_err());
        // A log record with a time, in a request of its own.
        let record = [&[9][..], &[7; 8]].concat();
        let body = bytes::Bytes::from([&[10, 13, 18, 11, 18, 9][..], &record].concat());
        let decoded = decode(SignalKind::Logs, body.clone()).unwrap();
        assert_eq!(decoded.batch.num_rows(), 1);
        let request = ReadRequest { kind: SignalKind::Logs, body, decoded };
        let taking = spawn_blocking(move || folder.take(0, request));
        yield_now().await;
        ask.send_replace(true);
        assert!(matches!(taking.await.unwrap(), Ok(Taken::Stopped)));
        drop(full);
    }
}
